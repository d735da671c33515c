//! Cursors and gets against the list of rows that was written.

use super::super::build::BlockBuilder;
use super::super::footer::{Footer, Handle, seal};
use super::super::raw::RawBlock;
use super::super::walk::Walk;
use super::super::{TableBounds, TablesCursor};
use super::{Chance, Row, get, open, open_on, write};
use crate::checksum::Checksum;
use crate::disk::{Disk, MemoryDisk};
use crate::error::Place;
use crate::key::{Kind, Tag};
use crate::merge::Direction;
use crate::shelf::Shelf;
use crate::table::Table;
use std::cmp::Reverse;
use std::sync::Arc;

/// Rows in order: few keys with several versions, some long keys, some large values.
fn rows(chance: &mut Chance, from: u64, count: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    let shared = chance.below(12) as usize;
    for i in 0..count {
        let tail = chance.below(4) * chance.below(20);
        let number = (from + i).to_be_bytes();
        let key = [&vec![b'p'; shared], &number[2..], &chance.bytes(tail)].concat();
        let versions = if chance.below(8) == 0 { 1 + chance.below(20) } else { 1 };
        for version in (0..versions).rev() {
            let len = if chance.below(300) == 0 { 70_000 } else { chance.below(40) };
            rows.push((key.clone(), 1 + version + chance.below(2) * 100, chance.bytes(len)));
        }
        let first = rows.len() - versions as usize;
        rows[first..].sort_by_key(|(_, sequence, _)| Reverse(*sequence));
        let mut last = u64::MAX;
        rows.retain(|(k, sequence, _)| {
            *k != key || std::mem::replace(&mut last, *sequence) > *sequence
        });
    }
    rows
}

fn walk(cursor: &mut TablesCursor<'_>) -> Vec<Row> {
    let (mut all, mut found) = (Vec::new(), Vec::new());
    while let Some(key) = cursor.key().map(<[u8]>::to_vec) {
        let only = cursor.only().map(|(tag, value)| (tag, value.to_vec()));
        cursor.take(&mut found).unwrap();
        if let Some((tag, value)) = only {
            assert!(found.len() == 1 && found[0].0 == tag && found[0].1.bytes() == value);
        }
        for (tag, value) in found.drain(..) {
            all.push((key.clone(), tag.sequence(), value.bytes().to_vec()));
        }
    }
    all
}

/// `rows` from `start` to `end`; backward by key, the versions of a key newest first all the same.
fn part(rows: &[Row], start: &[u8], end: Option<&[u8]>, direction: Direction) -> Vec<Row> {
    let inside = |key: &[u8]| key >= start && end.is_none_or(|end| key < end);
    let mut part: Vec<Row> = rows.iter().filter(|(key, ..)| inside(key)).cloned().collect();
    if direction == Direction::Backward {
        part.sort_by(|a, b| b.0.cmp(&a.0));
    }
    part
}

#[test]
fn a_walk_over_any_part_in_any_direction_gives_what_was_written() {
    for seed in 0..40 {
        let mut chance = Chance(seed << 32);
        let disk = MemoryDisk::new(seed);
        let block_bytes = [64, 300, 4096][chance.below(3) as usize];
        let cache_bytes = [0, 20_000, 10 << 20][chance.below(3) as usize];
        let (mut tables, mut all): (Vec<Arc<Table>>, Vec<Row>) = (Vec::new(), Vec::new());
        for n in 0..1 + chance.below(3) {
            let count = 1 + chance.below(400);
            let mut more = rows(&mut chance, n << 20, count);
            // Tables follow each other.
            more.iter_mut().for_each(|row| row.0.insert(0, n as u8));
            let name = format!("{n}.sst");
            let bounds = write(&disk, &name, &more, block_bytes);
            assert_eq!((&bounds.smallest, &bounds.largest), (&more[0].0, &more.last().unwrap().0));
            tables.push(open(&disk, &name, bounds, cache_bytes).unwrap());
            all.extend(more);
        }
        assert_eq!(
            walk(&mut TablesCursor::streaming(&tables, &[], None).unwrap()),
            all,
            "seed {seed}"
        );
        for _ in 0..30 {
            let mut bound = || {
                let mut key = all[chance.below(all.len() as u64) as usize].0.clone();
                match chance.below(6) {
                    0 => key.push(0),
                    1 => drop(key.pop()),
                    2 => key = chance.bytes(3),
                    3 => key.clear(),
                    _ => {}
                }
                key
            };
            let (start, end) = (bound(), bound());
            let end = (end >= start).then_some(&end[..]);
            for direction in [Direction::Forward, Direction::Backward] {
                let mut cursor = TablesCursor::new(&tables, &start, end, direction).unwrap();
                let want = part(&all, &start, end, direction);
                assert!(walk(&mut cursor) == want, "seed {seed} {start:x?} {end:x?} {direction:?}");
            }
        }
        for (key, ..) in &all {
            let table = tables.iter().find(|t| t.spans(key)).unwrap();
            let found = get(table, key).unwrap();
            let found: Vec<Row> =
                found.into_iter().map(|(tag, v)| (key.clone(), tag.sequence(), v)).collect();
            let want: Vec<Row> = all.iter().filter(|row| row.0 == *key).cloned().collect();
            assert!(found == want, "seed {seed} {key:x?}");
            let beside = [&key[..], &[0]].concat();
            assert!(
                all.iter().any(|row| row.0 == beside) || get(table, &beside).unwrap().is_empty()
            );
        }
    }
}

#[test]
fn a_search_in_a_block_as_it_stands_finds_what_a_look_at_every_entry_finds() {
    for seed in 0..400 {
        let mut chance = Chance(seed << 32);
        // Few different bytes: keys are prefixes of each other, and go on as a tag does.
        let bytes = [0, 1, 2, 0xff];
        let key = |chance: &mut Chance| -> Vec<u8> {
            (0..chance.below(7)).map(|_| bytes[chance.below(4) as usize]).collect()
        };
        let mut rows: Vec<(Vec<u8>, Reverse<u64>)> = (0..1 + chance.below(60))
            .map(|_| (key(&mut chance), Reverse(chance.below(3))))
            .collect();
        rows.sort();
        rows.dedup();
        let mut builder = BlockBuilder::new([1, 2, 3, 16][chance.below(4) as usize]);
        for (key, Reverse(sequence)) in &rows {
            builder.add_change(key, Tag::new(*sequence, Kind::Put), &key[..key.len() / 2]);
        }
        let content = builder.finish();
        let block = RawBlock::new(content).unwrap();
        let mut walk = Walk::default();
        let mut wanted: Vec<Vec<u8>> = rows.iter().map(|row| row.0.clone()).collect();
        wanted.extend((0..60).map(|_| key(&mut chance)));
        for wanted in wanted {
            let from = rows.partition_point(|row| row.0 < wanted);
            let mut there = walk.seek(&block, &wanted).unwrap();
            for (i, row) in rows.iter().enumerate().skip(from) {
                assert!(there, "seed {seed}, {wanted:x?}: row {i} is missing");
                let at_hand = (walk.user_key().to_vec(), Reverse(walk.tag().sequence()));
                assert_eq!(at_hand, *row, "seed {seed}, {wanted:x?}");
                assert_eq!(block.entries[walk.value()], row.0[..row.0.len() / 2]);
                let again = rows.get(i + 1).is_some_and(|next| next.0 == row.0);
                assert_eq!(walk.repeats(&block), again, "seed {seed}, row {i}");
                there = walk.step(&block).unwrap();
            }
            assert!(!there, "seed {seed}, {wanted:x?}: more than there are");
        }
    }
}

#[test]
fn versions_of_a_key_that_stand_in_several_blocks_are_all_found() {
    // As RocksDB may write: a block ends between two versions, so separators are internal keys.
    let key = |i: u64| format!("key-{:02}", i / 7).into_bytes();
    let rows: Vec<Row> = (0..100).map(|i| (key(i), 900 - i, vec![i as u8; 9])).collect();
    let internal = |row: &Row| [&row.0[..], &(row.1 << 8 | 1).to_le_bytes()].concat();
    let (mut out, mut handles) = (Vec::new(), Vec::new());
    let mut sealed = |payload: &[u8]| {
        let offset = out.len() as u64;
        let handle = Handle { offset, size: seal(&mut out, payload, false) };
        let mut value = Vec::new();
        handle.encode(&mut value);
        (handle, value)
    };
    for rows in rows.chunks(3) {
        let mut block = BlockBuilder::new(16);
        rows.iter().for_each(|row| block.add(&internal(row), &row.2, true));
        handles.push((internal(rows.last().unwrap()), sealed(block.finish()).1));
    }
    let mut index = BlockBuilder::new(1);
    handles.iter().for_each(|(separator, handle)| index.add(separator, handle, true));
    let index = sealed(index.finish()).0;
    let properties = sealed(&[0, 0, 0, 0, 1, 0, 0, 0]).1;
    let mut metaindex = BlockBuilder::new(1);
    metaindex.add(b"rocksdb.properties", &properties, true);
    let metaindex = sealed(metaindex.finish()).0;
    out.extend(Footer { checksum: Checksum::Xxh3, metaindex, index }.encode());
    let disk = MemoryDisk::new(1);
    disk.create("t").unwrap().write_at(&out, 0).unwrap();
    let bounds = TableBounds {
        bytes: out.len() as u64,
        smallest: rows[0].0.clone(),
        largest: rows[99].0.clone(),
        last_sequence: 900,
        ..TableBounds::default()
    };
    let tables = [open(&disk, "t", bounds, 1 << 20).unwrap()];
    for i in 0..15 {
        let name = key(7 * i);
        let found: Vec<u64> =
            get(&tables[0], &name).unwrap().iter().map(|(tag, _)| tag.sequence()).collect();
        let want: Vec<u64> = rows.iter().filter(|row| row.0 == name).map(|row| row.1).collect();
        assert_eq!(found, want, "{i}");
        for direction in [Direction::Forward, Direction::Backward] {
            let (start, end) = (key(7 * (i / 2)), key(7 * i));
            let mut cursor = TablesCursor::new(&tables, &start, Some(&end), direction).unwrap();
            assert_eq!(walk(&mut cursor), part(&rows, &start, Some(&end), direction));
            let mut cursor = TablesCursor::new(&tables, &start, None, direction).unwrap();
            let mut keys = 0;
            while cursor.key().is_some() {
                cursor.advance().unwrap();
                keys += 1;
            }
            assert_eq!(keys, 15 - i / 2);
        }
    }
}

#[test]
fn reading_ahead_into_a_hole_blames_the_block_that_is_cut_and_no_other() {
    for direction in [Direction::Forward, Direction::Backward] {
        for cut in 20..60 {
            let mut chance = Chance(cut);
            let disk = MemoryDisk::new(1);
            let rows: Vec<Row> = (0..200u8).map(|i| (vec![i], 1, chance.bytes(50))).collect();
            let bounds = write(&disk, "t", &rows, 200);
            let shelf = Arc::new(Shelf::alone(0));
            let table = open_on(&disk, "t", bounds, shelf.clone()).unwrap();
            let end_of =
                |i: usize| table.handle(i).unwrap().offset + table.handle(i).unwrap().sealed_len();
            disk.open("t").unwrap().truncate(end_of(cut as usize) - 3).unwrap();
            // Backward the walk begins before the cut, so that only what it reads ahead is whole.
            let end = [rows[4 * cut as usize / 2].0[0]];
            let tables = [table];
            let end = (direction == Direction::Backward).then_some(&end[..]);
            let mut cursor = TablesCursor::new(&tables, b"", end, direction).unwrap();
            let mut seen = 0;
            while cursor.key().is_some() && cursor.advance().is_ok() {
                seen += 1;
            }
            let damage: Vec<_> = shelf.damage_found().iter().map(|d| d.place.clone()).collect();
            if direction == Direction::Backward {
                assert_eq!((seen, damage), (2 * cut, vec![]));
            } else {
                let offset = Some(tables[0].handle(cut as usize).unwrap().offset);
                assert_eq!(damage, [Place::Table { number: tables[0].number, offset }]);
                assert!(seen < 200);
            }
        }
    }
}

#[test]
fn skipping_what_a_deletion_hides_passes_over_nothing_else() {
    for seed in 0..200 {
        let mut chance = Chance(seed << 32 | 7);
        let disk = MemoryDisk::new(seed);
        let (mut tables, mut all): (Vec<Arc<Table>>, Vec<Row>) = (Vec::new(), Vec::new());
        for n in 0..3u8 {
            let newest = 10 * (1 + chance.below(3));
            let more: Vec<Row> =
                (0..40).map(|i| (vec![n, i], 1 + chance.below(newest), chance.bytes(20))).collect();
            let bounds = write(&disk, &n.to_string(), &more, 100);
            tables.push(open(&disk, &n.to_string(), bounds, 1 << 20).unwrap());
            all.extend(more);
        }
        let direction = [Direction::Forward, Direction::Backward][chance.below(2) as usize];
        let mut cursor = TablesCursor::new(&tables, &[0, 3], Some(&[2, 30]), direction).unwrap();
        let want = part(&all, &[0, 3], Some(&[2, 30]), direction);
        let steps = chance.below(60) as usize;
        for _ in 0..steps {
            cursor.advance().unwrap();
        }
        let at = cursor.key().unwrap().to_vec();
        let bound = vec![chance.below(3) as u8, chance.below(40) as u8];
        let bound = (chance.below(5) > 0).then_some(bound);
        let cover = chance.below(40);
        cursor.skip_covered(bound.as_deref(), cover).unwrap();
        let left = walk(&mut cursor);
        // What is left is the end of what there was; what is missing is hidden by the deletion.
        let rest = &want[steps..];
        assert!(rest.ends_with(&left), "seed {seed}");
        let skipped = &rest[..rest.len() - left.len()];
        for (key, sequence, _) in skipped {
            let hidden = match direction {
                Direction::Forward => bound.as_ref().is_none_or(|bound| key < bound),
                Direction::Backward => bound.as_ref().is_none_or(|bound| key >= bound),
            };
            assert!(hidden && *sequence < cover, "seed {seed}: {key:?} at {sequence}");
        }
        // A table with nothing newer is passed over as far as the deletion goes.
        let table = tables.iter().find(|t| t.spans(&at)).unwrap();
        if table.bounds.last_sequence < cover
            && let Some((key, ..)) = left.first()
            && table.spans(key)
        {
            let beyond = match direction {
                Direction::Forward => bound.as_ref().is_some_and(|bound| key >= bound),
                Direction::Backward => bound.as_ref().is_some_and(|bound| key < bound),
            };
            assert!(beyond || *key == at, "seed {seed}: {key:?} is still there");
        }
    }
}
