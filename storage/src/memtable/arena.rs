//! Arena: memory that is handed out piece by piece and given back as a whole.
//!
//! A place is a number of 8-byte words, so that a link takes half of what a pointer takes. Nothing
//! that was handed out ever moves. The first block has room for the whole budget of a memtable; one
//! batch may be larger than what is left of it, and then further blocks follow, each as large as all
//! before it. A large first block is a [`Region`], whose pages are had one by one.
//!
//! Whoever writes to a place must be the only one that knows it, until it publishes the place with a
//! store that readers' loads synchronise with. What a place holds may be freed for reuse only when
//! nobody can hold it any more; see `memtable`.
#![allow(unsafe_code, reason = "memory that is not owned piece by piece; each use says why")]

use super::region::{PAGE, Region};
use crate::prefetch::prefetch;
use crate::sync::Watch;
use crate::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Bytes of a word, the unit of places.
pub(super) const WORD: usize = 8;
/// Blocks after the first. Each doubles the arena: no place could be beyond them. (Those of model
/// checkers stay small.)
const MORE: usize = if cfg!(any(loom, shuttle)) { 3 } else { 32 };
/// From this size on an arena asks for huge pages: its reads go all over it, and each page of 4 KiB
/// would cost a miss of the table of pages.
pub(crate) const HUGE_FROM: usize = if cfg!(any(loom, shuttle)) { 2 * PAGE } else { 4 << 20 };
const LINE: usize = 64;

pub(super) struct Arena {
    base: NonNull<u8>,
    /// Words in the first block.
    words: u32,
    /// What the first block is, when it is large, and how many of its pages are in use.
    region: Option<Region>,
    pages: AtomicU32,
    more: [Block; MORE],
    watch: Watch,
}

/// A block after the first: its first place, 0 while there is none, and its memory.
#[derive(Default)]
struct Block {
    start: AtomicU32,
    words: AtomicU32,
    base: AtomicPtr<u8>,
}

/// What the writer knows of an arena: which words are free.
pub(super) struct Bump {
    next: u32,
    end: u32,
    /// Words handed out, and those that were passed over.
    used: u64,
    blocks: usize,
}

// SAFETY: an arena is memory and its size; what may be done with that memory from which thread is
// up to those who hold places in it, and they keep the rule in the head of this file.
unsafe impl Send for Arena {}
// SAFETY: as above; the arena's own fields change only through atomics.
unsafe impl Sync for Arena {}

fn layout(words: u32) -> Layout {
    Layout::from_size_align(words as usize * WORD, LINE)
        .expect("a u32 of words fits the address space")
}

fn allocate(words: u32) -> NonNull<u8> {
    let layout = layout(words);
    // SAFETY: no layout here is of size zero.
    let Some(base) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
    base
}

impl Arena {
    /// An arena for `bytes`, and what its writer needs.
    pub(super) fn new(bytes: usize) -> (Self, Bump) {
        // At most half of all places, so that there is one for whatever follows.
        let words = u32::try_from(bytes.div_ceil(WORD)).unwrap_or(u32::MAX).clamp(512, 1 << 31);
        // Place 0 is nowhere; a whole line, so that what follows is aligned to lines.
        let skipped = (LINE / WORD) as u32;
        let mut bump = Bump { next: skipped, end: words, used: u64::from(skipped), blocks: 0 };
        let bytes = words as usize * WORD;
        let region = if bytes >= HUGE_FROM { Region::new(bytes) } else { None };
        let (base, words) = match &region {
            Some(region) => (region.base(), (region.bytes() / WORD) as u32),
            None => (allocate(words), words),
        };
        if region.is_some() {
            bump.end = 0;
        }
        let (pages, more) = (AtomicU32::new(0), Default::default());
        (Self { base, words, region, pages, more, watch: Watch::new() }, bump)
    }

    /// The memory at `place`.
    #[inline]
    pub(super) fn at(&self, place: u32) -> *mut u8 {
        self.watch.read();
        if place < self.words {
            // SAFETY: inside the first block.
            return unsafe { self.base.as_ptr().add(place as usize * WORD) };
        }
        self.beyond(place)
    }

    /// Asks for the memory at `place`, which will be read soon.
    #[inline]
    pub(super) fn prefetch(&self, place: u32) {
        prefetch(self.at(place).cast_const());
    }

    #[cold]
    fn beyond(&self, place: u32) -> *mut u8 {
        // Relaxed: a place is only known from a load that synchronised with what its writer did
        // before, and that includes the block.
        let blocks = self.more.iter().rev();
        let mut filled = blocks.filter(|block| {
            let start = block.start.load(Ordering::Relaxed);
            start != 0 && start <= place
        });
        let block = filled.next().expect("a place that was handed out lies in a block");
        let inside = place - block.start.load(Ordering::Relaxed);
        // SAFETY: blocks follow each other, and this is the last that starts at or before it.
        unsafe { block.base.load(Ordering::Relaxed).add(inside as usize * WORD) }
    }

    /// `words` fresh words for the one writer; uninitialised, on a line of their own if asked.
    pub(super) fn allocate(&self, bump: &mut Bump, words: u32, line: bool) -> u32 {
        let align = if line { (LINE / WORD) as u32 } else { 1 };
        let mut place = bump.next.next_multiple_of(align);
        if u64::from(place) + u64::from(words) > u64::from(bump.end)
            && !self.has_pages(bump, u64::from(place) + u64::from(words))
        {
            self.grow(bump, words);
            place = bump.next;
        }
        bump.used += u64::from(place - bump.next + words);
        bump.next = place + words;
        place
    }

    /// Sees to it that the first block has memory up to the word `end`; false when it ends before.
    #[cold]
    fn has_pages(&self, bump: &mut Bump, end: u64) -> bool {
        const PAGE_WORDS: u32 = (PAGE / WORD) as u32;
        let Some(region) = self.region.as_ref().filter(|_| bump.blocks == 0) else { return false };
        if end > u64::from(self.words) {
            bump.end = self.words;
            return false;
        }
        while u64::from(bump.end) < end {
            // SAFETY: words are handed out below `end` only, and this page begins there.
            unsafe { region.back((bump.end / PAGE_WORDS) as usize) };
            bump.end += PAGE_WORDS;
        }
        self.pages.store(bump.end / PAGE_WORDS, Ordering::Relaxed);
        true
    }

    #[cold]
    fn grow(&self, bump: &mut Bump, words: u32) {
        // On a line boundary, as the block's memory is.
        let start = bump.end.next_multiple_of((LINE / WORD) as u32);
        let room = start.max(words).min(u32::MAX - start);
        assert!(room >= words, "a memtable holds at most 32 GiB");
        let block = &self.more[bump.blocks];
        block.base.store(allocate(room).as_ptr(), Ordering::Relaxed);
        block.words.store(room, Ordering::Relaxed);
        block.start.store(start, Ordering::Relaxed);
        (bump.next, bump.end) = (start, start + room);
        bump.blocks += 1;
    }
}

#[cfg(test)]
impl Arena {
    /// Where its blocks begin.
    pub(super) fn starts(&self) -> Vec<u32> {
        let more = self.more.iter().map(|block| block.start.load(Ordering::Relaxed));
        std::iter::once(0).chain(more.take_while(|start| *start != 0)).collect()
    }
}

impl Bump {
    /// Up to where words are handed out.
    #[cfg(test)]
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Bytes that the arena holds for what was put into it, reachable or not.
    pub(super) fn bytes(&self) -> usize {
        usize::try_from(self.used).expect("counted in memory") * WORD
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // Nobody is left who holds a place in it.
        self.watch.end();
        match self.region.take() {
            Some(region) => region.give_back(self.pages.load(Ordering::Relaxed) as usize),
            // SAFETY: allocated with this layout.
            None => unsafe { dealloc(self.base.as_ptr(), layout(self.words)) },
        }
        for block in &self.more {
            let words = block.words.load(Ordering::Relaxed);
            if let Some(base) = NonNull::new(block.base.load(Ordering::Relaxed)) {
                // SAFETY: as above.
                unsafe { dealloc(base.as_ptr(), layout(words)) };
            }
        }
    }
}
