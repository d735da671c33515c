//! Values that merges grow beyond what a block holds: all of it stays readable.

use crate::fixture::{Store, options};
use ringdb_storage::{Batch, Direction, Durability, MemoryDisk, Options};

const OPERANDS: usize = 110;

/// Operand `i`: a MiB that does not compress.
fn operand(i: usize) -> Vec<u8> {
    let mut state = i as u64 + 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..(1 << 20) / 8).flat_map(step).collect()
}

fn is_whole(value: Option<&[u8]>, operands: usize) -> bool {
    let Some(value) = value else { return false };
    value.len() == operands << 20
        && value.chunks(1 << 20).enumerate().all(|(i, part)| part == operand(i))
}

fn grows_beyond_a_block(large_value_bytes: usize) {
    let disk = MemoryDisk::new(1);
    // A level 0 so flat that every other flush is merged.
    let options = Options {
        large_value_bytes,
        memtable_bytes: 64 << 20,
        log_segment_bytes: 64 << 20,
        level0_tables: 2,
        ..options(1)
    };
    let mut store = Store::open(&disk, options.clone()).unwrap();
    for i in 0..OPERANDS {
        let mut batch = Batch::new();
        batch.merge(b"k", &operand(i));
        store.shards[0].apply(&batch, Durability::Buffered).unwrap();
        if i % 28 == 27 || i + 1 == OPERANDS {
            store.shards[0].commit().unwrap();
            store.shards[0].rotate();
            store.run_jobs().unwrap();
            store.shards[0].refresh();
        }
    }
    assert_eq!(store.engine.stats().tables[0], 0, "compacted");
    let value = store.shards[0].get(b"k", None).unwrap();
    assert!(is_whole(value.as_deref(), OPERANDS), "{:?} bytes", value.map(|v| v.len()));
    drop(store);
    let mut store = Store::open(&disk, options).unwrap();
    let rows = store.shards[0].scan(b"", None, Direction::Forward, None).unwrap();
    let rows: Vec<_> = rows.map(Result::unwrap).collect();
    assert!(rows.len() == 1 && is_whole(Some(&rows[0].1), OPERANDS));
    assert!(store.engine.damage().is_empty());
    let mut batch = Batch::new();
    batch.put(b"k", b"small again");
    store.shards[0].apply(&batch, Durability::Os).unwrap();
    store.shards[0].rotate();
    store.run_jobs().unwrap();
    store.shards[0].refresh();
    assert_eq!(store.get(b"k").unwrap().as_deref(), Some(&b"small again"[..]));
}

#[test]
fn a_value_that_merges_grow_beyond_a_block_is_whole_after_compaction() {
    grows_beyond_a_block(usize::MAX);
}

#[test]
fn so_it_is_where_large_values_stand_beside_the_tables() {
    grows_beyond_a_block(4 << 10);
}
