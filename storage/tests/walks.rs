//! Walks over rows, one by one and in runs, mixed and broken off anywhere: all show the same rows.

use crate::fixture::{Chance, Rows, Store};
use ringdb_storage::{Batch, Direction, Durability, MemoryDisk, Options, Scan, Snapshot};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// All rows of a scan, now lent one by one, now shown in runs of any length.
pub(crate) fn mixed(mut scan: Scan<'_>, chance: &mut Chance) -> Rows {
    let mut rows = Rows::new();
    loop {
        let (mut left, before) = (chance.below(9), rows.len());
        if left == 0 {
            match scan.next_row().unwrap() {
                Some((key, value)) => rows.push((key.to_vec(), value.to_vec())),
                None => return rows,
            }
            continue;
        }
        let broke = scan.for_each_row(|key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if broke.unwrap().is_continue() {
            assert!(scan.next_row().unwrap().is_none(), "the end is the end");
            return rows;
        }
        assert_eq!(left, 0, "broken off after {} rows", rows.len() - before);
    }
}

/// Keys whose first eight bytes are often the same, that end in zeros, or are almost nothing.
fn key(chance: &mut Chance) -> Vec<u8> {
    let heads: [&[u8]; 5] = [b"", b"a", b"the same beginning", &[0; 8], &[0xff; 9]];
    let mut key = heads[chance.below(5) as usize].to_vec();
    for _ in 0..chance.below(5) {
        key.push([0, 1, b'm', 0xff][chance.below(4) as usize]);
    }
    if chance.below(16) == 0 { key.repeat(1 + chance.below(30) as usize) } else { key }
}

fn value(chance: &mut Chance) -> Vec<u8> {
    match chance.below(40) {
        0 => vec![7; 600],
        1 => b"\xf5ringdb\x01 looks like a pointer".to_vec(),
        _ => chance.next().to_be_bytes()[..chance.below(9) as usize].to_vec(),
    }
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn check(store: &Store, model: &Model, snapshot: Option<&Snapshot>, chance: &mut Chance) {
    let (a, b) = (key(chance), key(chance));
    let parts =
        [(Vec::new(), None), (a.clone(), None), (Vec::new(), Some(b.clone())), (a, Some(b))];
    for (start, end) in parts {
        let inside = |key: &[u8]| key >= &start[..] && end.as_ref().is_none_or(|end| key < end);
        let want = model.iter().filter(|(key, _)| inside(key));
        let want: Rows = want.map(|(key, value)| (key.clone(), value.clone())).collect();
        for direction in [Direction::Forward, Direction::Backward] {
            let scan = store.shards[0].scan(&start, end.as_deref(), direction, snapshot).unwrap();
            let mut rows = mixed(scan, chance);
            if direction == Direction::Backward {
                rows.reverse();
            }
            assert_eq!(rows, want, "{direction:?} from {start:x?} to {end:x?}");
        }
    }
}

#[test]
fn walks_in_runs_show_what_walks_row_by_row_show() {
    for seed in 0..60 {
        let mut chance = Chance(seed);
        let options = Options { large_value_bytes: 500, ..Options::small() };
        let mut store = Store::open(&MemoryDisk::new(seed), options).unwrap();
        let (mut model, mut past): (Model, Option<(Snapshot, Model)>) = Default::default();
        for _ in 0..2 + chance.below(5) {
            for _ in 0..chance.below(300) {
                let mut batch = Batch::new();
                let key = key(&mut chance);
                match chance.below(300) {
                    0 => {
                        let end = [&key[..], b"\x80"].concat();
                        batch.delete_range(&key, &end);
                        model.retain(|k, _| *k < key || *k >= end);
                    }
                    1..30 => {
                        batch.delete(&key);
                        model.remove(&key);
                    }
                    _ => {
                        let value = value(&mut chance);
                        batch.put(&key, &value);
                        model.insert(key, value);
                    }
                }
                store.shards[0].apply(&batch, Durability::Buffered).unwrap();
                if chance.below(200) == 0 {
                    past = Some((store.shards[0].snapshot(), model.clone()));
                }
            }
            check(&store, &model, None, &mut chance);
            store.shards[0].commit().unwrap();
            store.shards[0].rotate();
            store.some_jobs(&mut chance).unwrap();
            store.shards[0].refresh();
            check(&store, &model, None, &mut chance);
            if let Some((snapshot, model)) = &past {
                check(&store, model, Some(snapshot), &mut chance);
            }
        }
    }
}
