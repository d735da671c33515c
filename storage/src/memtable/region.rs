//! Region: the memory of a large memtable, one huge page after the other, and the pages that
//! memtables before it have given back.
//!
//! Memory that is new to a process has to be cleared by the system page by page, while whoever writes
//! waits: some hundred microseconds for a huge page, and milliseconds where the machine itself is a
//! guest. So a page that one memtable gives back is moved to where another one grows: into its place
//! in the other's addresses, not its content. All memtables of a process share these pages, whichever
//! shard or store they are of.
//!
//! Promise: with the pages that wait to be used again a process has no more of them than it had in use
//! at some time lately; no more wait than are in use, or than one memtable had; none once none is
//! in use. Whatever the system refuses, the region has memory everywhere, at worst new memory.
#![allow(unsafe_code, reason = "memory that is mapped and moved; each use says why")]

use crate::sync::{self, Mutex, MutexGuard, process_wide};
use std::ptr::NonNull;

/// Bytes of a huge page. (A small one where a model checker tries every interleaving.)
pub(super) const PAGE: usize = if cfg!(any(loom, shuttle)) { 4 << 10 } else { 2 << 20 };

/// Addresses for so many huge pages, each of which is to be had by [`Region::back`] before it is used.
pub(super) struct Region {
    base: NonNull<u8>,
    pages: usize,
}

impl Region {
    /// A region of at least `bytes`; none when the system has no addresses for it.
    pub(super) fn new(bytes: usize) -> Option<Self> {
        let pages = bytes.div_ceil(PAGE).max(1);
        let bytes = pages.checked_mul(PAGE)?;
        let mapped = system::map(bytes.checked_add(PAGE)?)?;
        // On a boundary of huge pages; what is too much before and behind is given back.
        let before = mapped.addr().get().next_multiple_of(PAGE) - mapped.addr().get();
        // SAFETY: at most one page into a mapping that has one more than the region.
        let base = unsafe { mapped.add(before) };
        system::unmap(mapped, before);
        // SAFETY: `before` and `bytes` together are at most what was mapped.
        system::unmap(unsafe { base.add(bytes) }, PAGE - before);
        system::advise(base, bytes);
        Some(Self { base, pages })
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn bytes(&self) -> usize {
        self.pages * PAGE
    }

    fn page(&self, page: usize) -> NonNull<u8> {
        assert!(page < self.pages, "a page of this region");
        // SAFETY: inside of the region, as was just seen.
        unsafe { self.base.add(page * PAGE) }
    }

    /// Page number `page` is going to be used: puts memory there that somebody has given back, if there is any.
    ///
    /// # Safety
    /// Nobody has used it yet: what stands there is lost.
    pub(super) unsafe fn back(&self, page: usize) {
        let to = self.page(page);
        let Some(Idle(from)) = lock().take() else { return };
        // SAFETY: `from` is a mapping of one page that nothing else knows of, and the page at `to` is this
        // region's, of which nobody has a reference as the caller says.
        if unsafe { system::move_page(from, to) } {
            return;
        }
        system::unmap(from, PAGE);
        // The call took away what was there, or changed nothing.
        if !system::fill(to) {
            let layout = std::alloc::Layout::from_size_align(PAGE, PAGE);
            std::alloc::handle_alloc_error(layout.expect("a page"));
        }
        system::advise(to, PAGE);
    }

    /// Ends the region; its first `used` pages were backed.
    pub(super) fn give_back(self, used: usize) {
        // Not while others need the lock.
        let gone = lock().give((0..used).map(|page| Idle(self.page(page))));
        for page in gone {
            system::unmap(page.0, PAGE);
        }
        if used < self.pages {
            system::unmap(self.page(used), (self.pages - used) * PAGE);
        }
    }
}

/// What is asked of the system.
#[cfg(all(target_os = "linux", not(miri)))]
mod system {
    use super::PAGE;
    use rustix::io::Errno;
    use rustix::mm::{Advice, MapFlags, MremapFlags, ProtFlags};
    use rustix::mm::{madvise, mmap_anonymous, mremap_fixed, munmap};
    use std::ptr::NonNull;

    const ACCESS: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

    /// New memory.
    pub(super) fn map(bytes: usize) -> Option<NonNull<u8>> {
        // SAFETY: where the system likes it.
        let mapped =
            unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, ACCESS, MapFlags::PRIVATE) };
        NonNull::new(mapped.ok()?.cast())
    }

    /// New memory for the page at `at`, unless there is some.
    pub(super) fn fill(at: NonNull<u8>) -> bool {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
        // SAFETY: the addresses are those of a page of a region, and what is mapped there stays.
        let mapped = unsafe { mmap_anonymous(at.as_ptr().cast(), PAGE, ACCESS, flags) };
        match mapped {
            // A kernel that does not know the flag chooses other addresses.
            Ok(mapped) if mapped != at.as_ptr().cast() => {
                unmap(NonNull::new(mapped.cast()).expect("mapped"), PAGE);
                true
            }
            Ok(_) | Err(Errno::EXIST) => true,
            Err(_) => false,
        }
    }

    /// Asks for huge pages.
    pub(super) fn advise(from: NonNull<u8>, bytes: usize) {
        // SAFETY: mapped, and the advice does not change what it holds. If it is refused, all works
        // with small pages.
        let _ = unsafe { madvise(from.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
    }

    /// Ends a mapping that nobody uses.
    pub(super) fn unmap(from: NonNull<u8>, bytes: usize) {
        if bytes == 0 {
            return;
        }
        // SAFETY: called for what was mapped here and nobody uses.
        let gone = unsafe { munmap(from.as_ptr().cast(), bytes) };
        if let Err(error) = gone {
            tracing::warn!(%error, "memory of a memtable could not be given back");
        }
    }

    /// Puts the page at `from` in the place of the one at `to`; false when neither may be relied on.
    ///
    /// # Safety
    /// Both are mapped by [`map`], and nobody uses them.
    pub(super) unsafe fn move_page(from: NonNull<u8>, to: NonNull<u8>) -> bool {
        let (from, to) = (from.as_ptr().cast(), to.as_ptr().cast());
        // SAFETY: as the caller says.
        let moved = unsafe { mremap_fixed(from, PAGE, PAGE, MremapFlags::MAYMOVE, to) };
        if let Err(error) = moved {
            tracing::debug!(%error, "memory of a memtable could not be moved to the next");
        }
        moved.is_ok()
    }
}

/// Where pages cannot be moved there are no regions.
#[cfg(not(all(target_os = "linux", not(miri))))]
mod system {
    use std::ptr::NonNull;

    pub(super) fn map(_: usize) -> Option<NonNull<u8>> {
        None
    }

    pub(super) fn fill(_: NonNull<u8>) -> bool {
        false
    }

    pub(super) fn advise(_: NonNull<u8>, _: usize) {}

    pub(super) fn unmap(_: NonNull<u8>, _: usize) {}

    pub(super) unsafe fn move_page(_: NonNull<u8>, _: NonNull<u8>) -> bool {
        false
    }
}

process_wide! {
    /// Pages of all regions of the process.
    static PAGES: Mutex<Pages> = Mutex::new(Pages { in_use: 0, lately: 0, idle: Vec::new() });
}

fn lock() -> MutexGuard<'static, Pages> {
    sync::lock(&PAGES)
}

/// How many pages are used, and those that wait to be.
struct Pages {
    in_use: usize,
    /// The most that were in use at a time lately: an eighth less each time that somebody gives back.
    lately: usize,
    idle: Vec<Idle>,
}

/// Memory that nobody uses.
struct Idle(NonNull<u8>);

// SAFETY: it is memory that nothing else knows of.
unsafe impl Send for Idle {}

impl Pages {
    /// One more is used: one that waits, or a new one.
    fn take(&mut self) -> Option<Idle> {
        self.in_use += 1;
        self.idle.pop()
    }

    /// `pages` are used no more; those that are not to wait for somebody.
    fn give(&mut self, pages: impl ExactSizeIterator<Item = Idle>) -> Vec<Idle> {
        let given = pages.len();
        self.lately = self.in_use.max(self.lately - self.lately.div_ceil(8));
        self.in_use = self.in_use.saturating_sub(given);
        self.idle.extend(pages);
        let most = if self.in_use == 0 { 0 } else { self.in_use.max(given) };
        let kept = self.lately.saturating_sub(self.in_use).min(most);
        // The last one that was used is the first to be used again.
        self.idle.drain(..self.idle.len().saturating_sub(kept)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(n: usize) -> Idle {
        // The memory behind the address is never touched.
        Idle(NonNull::new(std::ptr::without_provenance_mut(n * PAGE)).expect("not null"))
    }

    fn give(pages: &mut Pages, range: std::ops::RangeInclusive<usize>) -> usize {
        let given: Vec<_> = range.map(idle).collect();
        pages.give(given.into_iter()).len()
    }

    #[test]
    fn as_many_wait_as_were_in_use_lately_and_none_once_none_is() {
        let mut pages = Pages { in_use: 0, lately: 0, idle: Vec::new() };
        for _ in 0..20 {
            assert!(pages.take().is_none());
        }
        assert_eq!(give(&mut pages, 1..=8), 0, "twelve are in use, and there were twenty");
        assert!((0..8).all(|_| pages.take().is_some()));
        assert!(pages.take().is_none());
        // 21 in use. Those of one memtable wait, and no more than are in use.
        assert_eq!(give(&mut pages, 1..=15), 0);
        assert_eq!(pages.idle.len(), 15, "what one memtable had");
        assert_eq!(give(&mut pages, 16..=18), 15, "three are in use");
        assert_eq!(pages.idle.len(), 3);
        // What was in use long ago counts no more.
        for _ in 0..40 {
            pages.take();
            give(&mut pages, 1..=1);
        }
        assert_eq!((pages.in_use, pages.lately), (3, 4));
        assert_eq!(pages.idle.len(), 1);
        assert_eq!(give(&mut pages, 1..=3), 4);
        assert!(pages.idle.is_empty());
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn pages_move_from_one_region_to_the_next_and_stay_whole() {
        let words = PAGE / 8;
        let write = |region: &Region, page: usize, what: u64| {
            // SAFETY: nobody has used the page, and the words are inside of it.
            unsafe {
                region.back(page);
                let at = region.page(page).cast::<u64>();
                (0..words).step_by(511).for_each(|i| at.add(i).write(what ^ i as u64));
            }
        };
        let is = |region: &Region, page: usize, what: u64| {
            let at = region.page(page).cast::<u64>();
            // SAFETY: inside of the page, which has memory.
            (0..words).step_by(511).all(|i| unsafe { at.add(i).read() } == what ^ i as u64)
        };
        // Keeps some pages in use, whatever other tests do meanwhile.
        let held = Region::new(8 * PAGE - 5).expect("there are addresses");
        assert_eq!(held.bytes(), 8 * PAGE);
        assert_eq!(held.base().addr().get() % PAGE, 0);
        (0..8).for_each(|page| write(&held, page, page as u64));
        std::thread::scope(|scope| {
            for thread in 1..=4u64 {
                let (write, is) = (&write, &is);
                scope.spawn(move || {
                    for round in 0..30 {
                        let region = Region::new(6 * PAGE).expect("there are addresses");
                        let used = 1 + (thread as usize + round) % 6;
                        let what = |page: usize| (thread << 32) + (round << 8 | page) as u64;
                        (0..used).for_each(|page| write(&region, page, what(page)));
                        assert!((0..used).all(|page| is(&region, page, what(page))));
                        region.give_back(used);
                    }
                });
            }
        });
        assert!((0..8).all(|page| is(&held, page, page as u64)));
        // What one left is what the next finds there: it is the same memory.
        let first = Region::new(PAGE).expect("there are addresses");
        write(&first, 0, 77);
        first.give_back(1);
        let moved = (0..50).any(|_| {
            let next = Region::new(PAGE).expect("there are addresses");
            // SAFETY: nobody has used the page.
            unsafe { next.back(0) };
            let found = is(&next, 0, 77);
            next.give_back(1);
            found
        });
        assert!(moved, "the page was not used again");
        held.give_back(8);
    }
}
