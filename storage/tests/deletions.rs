//! Range deletions over each other, as a queue that is trimmed writes them: what they hide stays hidden, and they
//! take no more room than somebody can see of them.

use crate::fixture::{self, Append, put};
use ringdb_storage::{Batch, Direction, Durability, MemoryDisk, Options, Store, View};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

fn key(i: u32) -> Vec<u8> {
    format!("queue/{i:08}").into_bytes()
}

/// A store with `rows` rows of a queue in tables.
fn queue(rows: u32, options: Options) -> Store {
    let store = Store::open(Arc::new(MemoryDisk::new(1)), options, Arc::new(Append)).unwrap();
    for i in 0..rows {
        store.put(&key(i), b"item", Durability::Buffered).unwrap();
    }
    store.flush().unwrap();
    store
}

fn keys(store: &Store, direction: Direction) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let note = |key: &[u8], _: &[u8]| {
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    };
    store.scan(b"", None, direction, note).unwrap();
    if direction == Direction::Backward {
        keys.reverse();
    }
    keys
}

fn keys_of(view: &View) -> Vec<Vec<u8>> {
    let rows = view.scan(b"", None, Direction::Forward).unwrap();
    rows.map(|row| row.unwrap().0).collect()
}

fn range_deletions(store: &Store) -> u64 {
    store.engine().tables().iter().map(|table| table.range_deletions).sum()
}

/// Whether the store holds the rows from `from` to `to` but `without`, for every way to ask.
fn check(store: &Store, from: u32, to: u32, without: &BTreeSet<u32>) {
    let want: Vec<_> = (from..to).filter(|i| !without.contains(i)).map(key).collect();
    for direction in [Direction::Forward, Direction::Backward] {
        assert_eq!(keys(store, direction), want, "{direction:?}");
    }
    for i in 0..to {
        let there = i >= from && !without.contains(&i);
        assert_eq!(store.get(&key(i)).unwrap().is_some(), there, "row {i}");
    }
}

#[test]
fn a_queue_that_is_trimmed_thousands_of_times_leaves_few_range_deletions_and_can_be_flushed() {
    let store = queue(2_100, Options::default());
    for i in 1..=2_000 {
        store.delete_range(&key(0), &key(i), Durability::Buffered).unwrap();
    }
    check(&store, 2_000, 2_100, &BTreeSet::new());
    store.flush().unwrap();
    check(&store, 2_000, 2_100, &BTreeSet::new());
    assert!(range_deletions(&store) <= 1, "{} range deletions", range_deletions(&store));
    assert_eq!(store.engine().damage(), []);
    store.put(&key(5), b"anew", Durability::Buffered).unwrap();
    assert_eq!(keys(&store, Direction::Forward)[0], key(5));
}

#[test]
fn views_see_their_moment_of_a_queue_that_is_trimmed_under_them() {
    // So small that what a view keeps in a memtable makes it full.
    let store = queue(700, Options { memtable_bytes: 256 << 10, ..Options::default() });
    let mut views = vec![(0, store.views())];
    for i in 1..=600 {
        store.delete_range(&key(0), &key(i), Durability::Buffered).unwrap();
        if i % 150 == 0 {
            views.push((i, store.views()));
        }
    }
    let held = |views: &[(u32, Vec<View>)]| {
        for (from, views) in views {
            let want: Vec<_> = (*from..700).map(key).collect();
            assert_eq!(keys_of(&views[0]), want, "the view behind {from} deletions");
        }
    };
    held(&views);
    store.flush().unwrap();
    held(&views);
    assert!(range_deletions(&store) < 100, "{} range deletions", range_deletions(&store));
    check(&store, 600, 700, &BTreeSet::new());
}

#[test]
fn a_snapshot_of_a_queue_that_is_trimmed_keeps_its_moment_and_little_more() {
    for with_reader in [false, true] {
        let disk = MemoryDisk::new(1);
        let mut store = fixture::Store::open(&disk, Options::default()).unwrap();
        for i in 0..1_100 {
            store.shards[0].apply(&put(&key(i), b"item"), Durability::Buffered).unwrap();
        }
        let reader = with_reader.then(|| store.shards[0].reader());
        let mut snapshots = Vec::new();
        let mut batch = Batch::new();
        for i in 1..=1_000 {
            batch.clear();
            batch.delete_range(&key(0), &key(i));
            store.shards[0].apply(&batch, Durability::Buffered).unwrap();
            if [10, 500].contains(&i) {
                snapshots.push((i, store.shards[0].snapshot()));
            }
        }
        let bytes = store.shards[0].memtable_bytes();
        assert!(bytes < 2 << 20, "{bytes} bytes");
        for _ in 0..2 {
            for (from, snapshot) in &snapshots {
                let shard = &store.shards[0];
                let rows = shard.scan(b"", None, Direction::Forward, Some(snapshot)).unwrap();
                let want: Vec<_> = (*from..1_100).map(key).collect();
                assert_eq!(rows.map(|row| row.unwrap().0).collect::<Vec<_>>(), want);
                assert!(shard.get(&key(*from), Some(snapshot)).unwrap().is_some());
                assert!(shard.get(&key(*from - 1), Some(snapshot)).unwrap().is_none());
            }
            if let Some(reader) = &reader {
                assert_eq!(keys_of(&reader.view()), (1_000..1_100).map(key).collect::<Vec<_>>());
            }
            store.shards[0].commit().unwrap();
            store.shards[0].rotate();
            store.run_jobs().unwrap();
            store.shards[0].refresh();
        }
        let ranges: u64 = store.engine.tables().iter().map(|t| t.range_deletions).sum();
        assert!(ranges <= 6, "two snapshots and the present: {ranges} range deletions");
    }
}

#[test]
fn range_deletions_without_number_go_to_several_tables() {
    let options = Options { memtable_bytes: 8 << 20, ..Options::small() };
    let table_bytes = options.table_bytes;
    let store = queue(4_000, options);
    let mut gone = BTreeSet::new();
    for i in (0..4_000).step_by(2) {
        store.delete_range(&key(i), &key(i + 1), Durability::Buffered).unwrap();
        gone.insert(i);
    }
    for i in (0..4_000).step_by(400) {
        store.put(&key(i), b"anew", Durability::Buffered).unwrap();
        gone.remove(&i);
    }
    // Below it there is something to delete, so all of them count.
    store.flush().unwrap();
    check(&store, 0, 4_000, &gone);
    let tables = store.engine().tables();
    let most = tables.iter().map(|table| table.range_deletions).max().unwrap_or(0);
    let each = 2 * key(0).len() as u64 + 16;
    assert!(most * each <= table_bytes + each, "{most} range deletions in a table");
    let mut spans: Vec<_> = tables.iter().filter(|table| table.range_deletions > 0).collect();
    spans.sort_by(|a, b| a.smallest.cmp(&b.smallest));
    assert!(spans.len() > 3 && spans.windows(2).all(|two| two[0].largest <= two[1].smallest));
    while let Some(job) = store.engine().next_job() {
        job.run().unwrap();
    }
    check(&store, 0, 4_000, &gone);
    assert_eq!(store.engine().damage(), []);
}
