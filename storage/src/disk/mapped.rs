//! Mapped: a file that does not change any more, read from the page cache without a call.
//!
//! A load from mapped memory cannot report an error: where the disk refuses a page, or the file has
//! become shorter, the kernel sends SIGBUS, and a process dies of that. Promise: nobody dies of a read
//! here. The handler puts zeros in the place of the mapping and says that it is lost; the reader, which
//! copies before it looks at anything, sees that and asks the file by a call, which knows the error.
//!
//! A call also brings a page that is not in memory at less cost than a fault does. So each thread sends
//! one read in sixteen by a call that does not wait for the disk, which shows whether pages are there (and shows the
//! kernel that they are used); once one was not, the file is read by calls until many in a row were.
#![allow(unsafe_code, reason = "memory that is the file's; each use says why")]

use rustix::io::ReadWriteFlags;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use std::cell::Cell;
use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering, compiler_fence, fence};

/// Longer reads gain nothing by it.
const BYTES_MAX: usize = 16 << 10;
/// One read in so many is a probe.
const PROBE: u8 = 16;
/// Probes in a row that must find their pages before memory is used again.
const SOUND: u8 = 32;

/// A mapping of a file as long as it was then.
pub(super) struct Mapped {
    base: NonNull<u8>,
    bytes: usize,
    /// The pages are not the file's any more.
    lost: AtomicBool,
    /// Probes in a row that found their pages; up to [`SOUND`].
    sound: AtomicU8,
}

// SAFETY: the mapping belongs to this value until it is dropped, and is only ever read.
unsafe impl Send for Mapped {}
// SAFETY: as above; what changes are atomics.
unsafe impl Sync for Mapped {}

thread_local! {
    /// What this thread reads at the moment, for the handler.
    static READS: Cell<*const Mapped> = const { Cell::new(std::ptr::null()) };
    static TICK: Cell<u8> = const { Cell::new(0) };
}

impl Mapped {
    /// All of `file`, which must not change from now on; none where that cannot be had.
    pub(super) fn of(file: impl AsFd) -> Option<Self> {
        let bytes = rustix::fs::fstat(&file).ok()?.st_size;
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes > 0)?;
        if !handle_bus_errors() {
            return None;
        }
        // SAFETY: a new mapping where the system likes it, of which nobody has a reference: it is only
        // copied from, and what happens when the file does change is the handler's part.
        let base = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, &file, 0).ok()?
        };
        let (lost, sound) = (AtomicBool::new(false), AtomicU8::new(SOUND));
        Some(Self { base: NonNull::new(base.cast())?, bytes, lost, sound })
    }

    /// Fills `buffer` from `offset` of `file`, which it maps; false when it has to be read by a call.
    #[inline]
    pub(super) fn read_at(&self, file: impl AsFd, buffer: &mut [u8], offset: u64) -> bool {
        let Some(at) = self.place_of(offset, buffer.len()) else { return false };
        let tick = TICK.get().wrapping_add(1);
        TICK.set(tick);
        if tick.is_multiple_of(PROBE) {
            return self.probe(file, buffer, offset);
        }
        self.sound.load(Ordering::Relaxed) >= SOUND && self.copy(buffer, at)
    }

    fn place_of(&self, offset: u64, len: usize) -> Option<usize> {
        let at = usize::try_from(offset).ok()?;
        (len <= BYTES_MAX && at.checked_add(len)? <= self.bytes).then_some(at)
    }

    /// Reads without waiting for the disk, and notes whether that could be done.
    fn probe(&self, file: impl AsFd, buffer: &mut [u8], offset: u64) -> bool {
        let mut into = [IoSliceMut::new(buffer)];
        let found = rustix::io::preadv2(file, &mut into, offset, ReadWriteFlags::NOWAIT);
        let whole = found.is_ok_and(|n| n == buffer.len());
        let sound = if whole { self.sound.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
        self.sound.store(sound.min(SOUND), Ordering::Relaxed);
        whole
    }

    /// Copies from the mapping; false when what was copied may not be the file's.
    #[inline]
    fn copy(&self, buffer: &mut [u8], at: usize) -> bool {
        READS.set(self);
        compiler_fence(Ordering::SeqCst);
        // SAFETY: `place_of` found the range inside of the mapping; `buffer` is other memory. A page
        // that cannot be had becomes zeros by the handler, to which `READS` was shown before.
        unsafe {
            let from = self.base.as_ptr().add(at);
            std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), buffer.len());
        }
        compiler_fence(Ordering::SeqCst);
        READS.set(std::ptr::null());
        // Not before the copy: the handler says it before it changes a page.
        fence(Ordering::Acquire);
        !self.lost.load(Ordering::Relaxed)
    }

    /// Puts zeros in the place of the file if `address` lies in the mapping; false if it does not or
    /// that fails. For a signal's handler: no lock, no memory, no `errno`.
    fn lose(&self, address: usize) -> bool {
        let base = self.base.as_ptr();
        if !(base.addr()..base.addr() + self.bytes).contains(&address) {
            return false;
        }
        self.lost.store(true, Ordering::SeqCst);
        // SAFETY: the pages are this mapping's own, which nobody has a reference into; whoever copies
        // from them at this moment looks at `lost` afterwards.
        let zeros = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
            mmap_anonymous(base.cast(), self.bytes, ProtFlags::READ, flags)
        };
        zeros.is_ok()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped with this size, and nobody is left who could reach it.
        let gone = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
        if let Err(e) = gone {
            tracing::warn!(error = %e, "a mapping of a table could not be closed");
        }
    }
}

/// What took SIGBUS before us, once we do; none when we could not.
static BEFORE: OnceLock<Option<libc::sigaction>> = OnceLock::new();

/// Sees to it that our handler is asked; false when it cannot be.
fn handle_bus_errors() -> bool {
    let before = BEFORE.get_or_init(|| {
        // SAFETY: zeros are a valid value of this struct of plain data.
        let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: asks only; the place for the answer is ours.
        let asked = unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut before) };
        (asked == 0).then_some(before)
    });
    static TAKEN: OnceLock<bool> = OnceLock::new();
    before.is_some_and(|mut ours| {
        *TAKEN.get_or_init(|| {
            ours.sa_sigaction = on_bus_error as *const () as usize;
            // On the thread's other stack if it has one: a handler before us may need that.
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            // SAFETY: `on_bus_error` has the signature that SA_SIGINFO asks for, and calls nothing that
            // a handler may not call. The set of blocked signals is made empty.
            unsafe {
                libc::sigemptyset(&raw mut ours.sa_mask);
                libc::sigaction(libc::SIGBUS, &raw const ours, std::ptr::null_mut()) == 0
            }
        })
    })
}

extern "C" fn on_bus_error(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let reads = READS.get();
    // SAFETY: the kernel shows us a valid `info`; what `READS` points to is borrowed by the read that
    // was interrupted on this thread.
    let mended = unsafe { !reads.is_null() && (*reads).lose((*info).si_addr().addr()) };
    if !mended {
        pass_on(signal, info, context);
    }
}

/// A bus error that is none of ours: what would have happened without us.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let before = BEFORE.get().and_then(Option::as_ref);
    match before.map(|before| (before.sa_sigaction, before.sa_flags & libc::SA_SIGINFO != 0)) {
        Some((handler, with_info)) if handler != libc::SIG_DFL && handler != libc::SIG_IGN => {
            // SAFETY: the flag says which of the two signatures the handler that was there has.
            unsafe {
                if with_info {
                    let handler: extern "C" fn(_, _, _) = std::mem::transmute(handler);
                    handler(signal, info, context);
                } else {
                    let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
                    handler(signal);
                }
            }
        }
        // The access is tried again when we return, and then ends the process as it should.
        // SAFETY: a handler may call it.
        _ => unsafe {
            libc::signal(signal, libc::SIG_DFL);
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use std::os::unix::process::ExitStatusExt;

    fn content(len: usize) -> Vec<u8> {
        (0..len as u64).map(|i| crate::codec::scatter(i) as u8 | 1).collect()
    }

    fn file_of(bytes: &[u8]) -> impl FileExt + AsFd + Sync + use<> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    #[test]
    fn what_is_read_is_what_the_file_holds_and_nothing_beside_it() {
        let bytes = content(70_001);
        let file = file_of(&bytes);
        let mapped = Mapped::of(&file).unwrap();
        if !mapped.probe(&file, &mut [0; 10], 0) {
            println!("SKIPPED: this file system has no reads that do not wait");
            return;
        }
        for i in 0..2000u64 {
            let at = crate::codec::scatter(i) as usize % bytes.len();
            let len = (crate::codec::scatter(i + 7000) as usize % 3000).min(bytes.len() - at);
            let mut buffer = vec![0; len];
            assert!(mapped.read_at(&file, &mut buffer, at as u64), "{at} {len}");
            assert_eq!(buffer, bytes[at..at + len]);
        }
        let mut long = vec![0; BYTES_MAX + 1];
        for (len, offset) in [(2, 70_000), (1, 70_001), (1, u64::MAX), (BYTES_MAX + 1, 0)] {
            assert!(!mapped.read_at(&file, &mut long[..len], offset), "{len} at {offset}");
        }
        assert!(Mapped::of(file_of(&[])).is_none());
    }

    #[test]
    fn pages_that_are_gone_are_seen_by_every_reader_and_nobody_dies() {
        let bytes = content(1 << 20);
        let file = file_of(&bytes);
        let mapped = Mapped::of(&file).unwrap();
        std::thread::scope(|scope| {
            for t in 0..4 {
                let (mapped, file, bytes) = (&mapped, &file, &bytes);
                scope.spawn(move || {
                    let mut buffer = vec![0; 9000];
                    let mut read = 0;
                    while !mapped.lost.load(Ordering::Relaxed) {
                        read += 1;
                        let at =
                            crate::codec::scatter(read * 4 + t) as usize % (bytes.len() - 9000);
                        if mapped.read_at(file, &mut buffer, at as u64) {
                            assert!(buffer == bytes[at..at + 9000], "not the file's at {at}");
                        }
                        if read == 200 {
                            rustix::fs::ftruncate(file, 8192).unwrap();
                        }
                    }
                });
            }
        });
        // What comes back is read by calls.
        file.write_all_at(&bytes, 0).unwrap();
        assert!((0..100).filter(|_| mapped.copy(&mut [0; 100], 500)).count() == 0);
    }

    #[test]
    fn where_pages_are_not_at_hand_calls_read_until_they_are() {
        let bytes = content(20_000);
        let file = file_of(&bytes);
        let mapped = Mapped::of(&file).unwrap();
        if !mapped.probe(&file, &mut [0; 10], 0) {
            println!("SKIPPED: this file system has no reads that do not wait");
            return;
        }
        // A call that does not wait finds nothing where the file has ended.
        rustix::fs::ftruncate(&file, 100).unwrap();
        assert!(!mapped.probe(&file, &mut [0; 200], 5000));
        file.write_all_at(&bytes, 0).unwrap();
        let (mut calls, mut buffer) = (0, [0; 300]);
        while !mapped.read_at(&file, &mut buffer, 5000)
            || mapped.sound.load(Ordering::Relaxed) < SOUND
        {
            calls += 1;
            assert!(calls < 2 * u32::from(PROBE) * u32::from(SOUND), "never again");
        }
        assert!(calls > u32::from(PROBE) * (u32::from(SOUND) - 2), "after {calls}");
        assert_eq!(buffer, bytes[5000..5300]);
    }

    /// Set where the test below is to die of somebody else's bus error.
    const DIE: &str = "RINGDB_TEST_BUS_ERROR";

    #[test]
    fn a_bus_error_of_somebody_else_ends_the_process_as_it_would_without_us() {
        if std::env::var_os(DIE).is_some() {
            let ours = Mapped::of(file_of(&content(5000))).unwrap();
            assert!(ours.copy(&mut [0; 10], 0));
            let file = file_of(&content(5000));
            let other = Mapped::of(&file).unwrap();
            rustix::fs::ftruncate(&file, 0).unwrap();
            // SAFETY: inside of the mapping; that the page is gone is what is tried here.
            unsafe { other.base.as_ptr().read_volatile() };
            unreachable!("nobody reads what is not there");
        }
        let name = "disk::mapped::tests::a_bus_error_of_somebody_else_ends_the_process_as_it_would_without_us";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let done = again.args([name, "--exact"]).env(DIE, "1").output().unwrap();
        assert_eq!(done.status.signal(), Some(libc::SIGBUS), "{done:?}");
    }
}
