//! Reserve: large blocks of memory that a memtable has given back, for the next one.
//!
//! Memory that is new to a process has to be cleared by the system page by page, while whoever writes waits: some
//! hundred microseconds for a huge page, and milliseconds where the machine itself is a guest. A
//! memtable takes the place of another one of the same size, so what the other one held is at hand.
//!
//! Promise: at most half as much is kept as is in use, or one block; nothing once nothing is in use.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Blocks of one process, whichever store they are of.
static RESERVE: Mutex<Reserve> = Mutex::new(Reserve { kinds: Vec::new() });

struct Reserve {
    kinds: Vec<Kind>,
}

/// Blocks of one layout.
struct Kind {
    layout: Layout,
    in_use: usize,
    idle: Vec<Idle>,
}

/// Memory that nobody uses.
struct Idle(NonNull<u8>);

// SAFETY: it is memory that nothing else knows of.
#[allow(unsafe_code, reason = "a pointer that owns what it points to")]
unsafe impl Send for Idle {}

fn lock() -> MutexGuard<'static, Reserve> {
    RESERVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A block of this layout that another one has given back, if there is one. Either way the caller is about
/// to use one, and has to [`give`] it back.
pub(super) fn take(layout: Layout) -> Option<NonNull<u8>> {
    let mut reserve = lock();
    let place = reserve.kinds.iter().position(|kind| kind.layout == layout);
    let place = place.unwrap_or_else(|| {
        reserve.kinds.push(Kind { layout, in_use: 0, idle: Vec::new() });
        reserve.kinds.len() - 1
    });
    let kind = &mut reserve.kinds[place];
    kind.in_use += 1;
    kind.idle.pop().map(|idle| idle.0)
}

/// A block of this layout is used no more; gives back those that are to be freed.
pub(super) fn give(layout: Layout, block: NonNull<u8>) -> Vec<NonNull<u8>> {
    let mut reserve = lock();
    let Some(place) = reserve.kinds.iter().position(|kind| kind.layout == layout) else {
        return vec![block];
    };
    let kind = &mut reserve.kinds[place];
    kind.in_use = kind.in_use.saturating_sub(1);
    kind.idle.push(Idle(block));
    let kept = if kind.in_use == 0 { 0 } else { (kind.in_use / 2).max(1) };
    let freed = kind.idle.drain(kept.min(kind.idle.len())..).map(|idle| idle.0).collect();
    if kind.in_use == 0 {
        reserve.kinds.swap_remove(place);
    }
    freed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_again_and_nothing_is_kept_when_nothing_is_in_use() {
        // Of a size that no other test uses; the memory behind the addresses is never touched.
        let layout = Layout::from_size_align(12_345 * 64, 64).expect("a layout");
        let block =
            |n: usize| NonNull::new(std::ptr::without_provenance_mut(n * 64)).expect("not null");
        assert_eq!(take(layout), None);
        assert_eq!(take(layout), None);
        assert_eq!(give(layout, block(1)), [], "one is in use, so one is kept");
        assert_eq!(take(layout), Some(block(1)));
        assert_eq!(take(layout), None);
        assert_eq!(give(layout, block(1)), []);
        assert_eq!(give(layout, block(2)), [block(2)], "one in use keeps one");
        let mut freed = give(layout, block(3));
        freed.sort();
        assert_eq!(freed, [block(1), block(3)]);
        assert!(!lock().kinds.iter().any(|kind| kind.layout == layout));
    }
}
