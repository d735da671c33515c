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

/// A block of `len` bytes, and perhaps more behind them, as `write` makes it: that gets room of this
/// length, and gives the head, or none when there is to be no block.
pub(crate) fn fill(
    len: usize,
    write: impl FnOnce(&mut [u8]) -> Option<Head>,
) -> Option<SharedBlock> {
    let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
    let mut block = spare.filter(|block| block.slice.len() >= len).unwrap_or_else(|| {
        let room = if len > BYTES_MAX { len } else { len.next_multiple_of(STEP) };
        ThinArc::from_header_and_slice(Head::default(), &vec![0; room])
    });
    block.with_arc_mut(|block| {
        let block = Arc::get_mut(block)?;
        *block.header_mut() = write(&mut block.slice_mut()[..len])?;
        Some(())
    })?;
    Some(block)
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
    use super::super::footer::{Payload, seal};
    use crate::checksum::Checksum;
    use crate::key::Tag;

    fn content(value: u8) -> Vec<u8> {
        let mut builder = BlockBuilder::new(16);
        builder.add_change(b"key", Tag(1), &[value; 3000]);
        builder.finish().to_vec()
    }

    fn block(value: u8, compress: bool) -> Block {
        let mut sealed = Vec::new();
        seal(&mut sealed, &content(value), compress);
        Block::of_payload(Payload::of(&sealed, Checksum::Xxh3).unwrap()).unwrap()
    }

    #[test]
    fn memory_is_used_again_unless_somebody_has_it() {
        let place = |block: &Block| block.bytes().as_ptr();
        let first = block(1, false);
        let (kept, at) = (first.clone(), place(&first));
        first.spare();
        let second = block(2, true);
        assert_ne!(place(&second), at, "somebody has the first");
        assert_eq!(kept.content().unwrap(), content(1));
        kept.spare();
        let third = block(3, true);
        assert_eq!(place(&third), at, "nobody has it any more");
        assert_eq!(third.content().unwrap(), content(3));
        assert_eq!(second.content().unwrap(), content(2));
    }
}
