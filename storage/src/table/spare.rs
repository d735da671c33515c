//! Memory of blocks that were walked once, to be used again by the thread: a scan of a few rows
//! would ask the allocator for more than it does otherwise.

use super::block::{Head, SharedBlock};
use std::cell::RefCell;
use triomphe::{Arc, ThinArc};

/// Blocks that a thread keeps.
const KEPT: usize = 8;
/// Larger ones are not kept.
const BYTES_MAX: usize = 32 << 10;
/// Memory is taken in steps of this, so that it fits the next block, too.
const STEP: usize = 1 << 10;

thread_local! {
    static SPARE: RefCell<Vec<SharedBlock>> = const { RefCell::new(Vec::new()) };
}

/// A block with this content, and perhaps more bytes behind it.
pub(crate) fn fill(head: Head, content: &[u8]) -> SharedBlock {
    let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
    if let Some(mut block) = spare.filter(|block| block.slice.len() >= content.len()) {
        let mut head = Some(head);
        block.with_arc_mut(|block| {
            if let Some(block) = Arc::get_mut(block) {
                block.slice_mut()[..content.len()].copy_from_slice(content);
                if let Some(head) = head.take() {
                    *block.header_mut() = head;
                }
            }
        });
        return match head {
            None => block,
            Some(head) => ThinArc::from_header_and_slice(head, content),
        };
    }
    if content.len() > BYTES_MAX {
        return ThinArc::from_header_and_slice(head, content);
    }
    let room = content.len().next_multiple_of(STEP) - content.len();
    let bytes = content.iter().chain(std::iter::repeat_n(&0, room)).copied();
    let bytes: Vec<u8> = bytes.collect();
    ThinArc::from_header_and_slice(head, &bytes)
}

/// The block is not needed any more; its memory is kept if nobody else has it.
pub(crate) fn keep(block: SharedBlock) {
    if block.slice.len() > BYTES_MAX || ThinArc::strong_count(&block) > 1 {
        return;
    }
    // A thread that ends keeps nothing.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < KEPT {
            spare.push(block);
        }
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::super::block::Block;
    use super::super::build::BlockBuilder;
    use crate::key::Tag;

    fn content(value: u8) -> Vec<u8> {
        let mut builder = BlockBuilder::new(16);
        builder.add_change(b"key", Tag(1), &[value; 3000]);
        builder.finish().to_vec()
    }

    #[test]
    fn memory_is_used_again_unless_somebody_has_it() {
        let place = |block: &Block| block.bytes().as_ptr();
        let first = Block::of_raw(&content(1)).unwrap();
        let (kept, at) = (first.clone(), place(&first));
        first.spare();
        let second = Block::of_raw(&content(2)).unwrap();
        assert_ne!(place(&second), at, "somebody has the first");
        assert_eq!(kept.content().unwrap(), content(1));
        kept.spare();
        let third = Block::of_raw(&content(3)[..]).unwrap();
        assert_eq!(place(&third), at, "nobody has it any more");
        assert_eq!(third.content().unwrap(), content(3));
        assert_eq!(second.content().unwrap(), content(2));
    }
}
