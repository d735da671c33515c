//! Tables that somebody made to hurt: an error or wrong rows, never a panic, never much memory.

use super::super::block::{Block, DecodeScratch};
use super::super::build::BlockBuilder;
use super::super::filter::Filter;
use super::super::footer::{FOOTER_BYTES, Footer, Handle, TRAILER_BYTES, seal, unseal};
use super::super::index::{Index, IndexForm};
use super::super::properties::Properties;
use super::super::raw::RawBlock;
use super::super::walk::Walk;
use super::super::{TableBounds, TablesCursor};
use super::{Chance, Row, get, open, write};
use super::{Error, Kind, TableWriter};
use crate::checksum::Checksum;
use crate::codec::put_varint;
use crate::disk::{Disk, MemoryDisk, read_all};
use crate::inspect::read_table;
use crate::key::{RANGE_DELETE, Tag};
use crate::limits::{BLOCK_BYTES_MAX, KEY_BYTES_MAX};
use crate::merge::Direction;
use std::io::ErrorKind;
use std::sync::Arc;

fn sample(chance: &mut Chance, compressible: bool) -> Vec<Row> {
    let value = |chance: &mut Chance| {
        if compressible { vec![b'v'; 60] } else { chance.bytes(60) }
    };
    (0..60u64).map(|i| (i.to_be_bytes()[3..].to_vec(), 1 + i, value(chance))).collect()
}

/// All that a reader may do with a table.
fn use_all(disk: &MemoryDisk, bounds: &TableBounds, rows: &[Row]) -> bool {
    let Ok(table) = open(disk, "t", bounds.clone(), 1 << 20) else { return false };
    let mut sound = true;
    for (key, ..) in rows {
        sound &= get(&table, key).is_ok();
    }
    let tables = [table];
    let mut cursors = vec![TablesCursor::streaming(&tables, &[], None)];
    for direction in [Direction::Forward, Direction::Backward] {
        let (start, end) = (&rows[3].0, Some(&rows[50].0[..]));
        cursors.push(TablesCursor::new(&tables, start, end, direction));
        cursors.push(TablesCursor::new(&tables, &[], None, direction));
    }
    let mut found = Vec::new();
    for cursor in cursors {
        let Ok(mut cursor) = cursor else { return false };
        for _ in 0..10_000 {
            found.clear();
            if cursor.key().is_none() || cursor.take(&mut found).is_err() {
                break;
            }
        }
    }
    sound
}

/// Where every block of the table stands: (offset, size without the trailer).
fn blocks(bytes: &[u8]) -> Vec<(usize, usize)> {
    // Blocks follow each other from the start, and each is verified by its checksum.
    let (mut all, mut from) = (Vec::new(), 0);
    let end = bytes.len() - FOOTER_BYTES;
    while from < end {
        let sealed = (from + TRAILER_BYTES..=end)
            .find(|to| unseal(&bytes[from..*to], Checksum::Xxh3, &mut Vec::new()).is_some())
            .expect("a block begins where the one before ends");
        all.push((from, sealed - from - TRAILER_BYTES));
        from = sealed;
    }
    all
}

#[test]
fn forged_blocks_with_right_checksums_give_errors_or_rows_and_never_a_panic() {
    for compressible in [false, true] {
        let mut chance = Chance(u64::from(compressible) << 40);
        let rows = sample(&mut chance, compressible);
        let disk = MemoryDisk::new(1);
        let bounds = write(&disk, "t", &rows, 400);
        assert!(use_all(&disk, &bounds, &rows));
        let whole = read_all(disk.open("t").unwrap().as_ref()).unwrap();
        let blocks = blocks(&whole);
        assert!(blocks.len() > 5);
        let mut refused = 0;
        for _ in 0..4000 {
            let mut forged = whole.clone();
            for _ in 0..1 + chance.below(3) {
                let (offset, size) = blocks[chance.below(blocks.len() as u64) as usize];
                for _ in 0..1 + chance.below(3) {
                    let at = offset + chance.below(size as u64 + 1) as usize;
                    forged[at] = match chance.below(3) {
                        0 => chance.below(256) as u8,
                        1 => 0xff,
                        _ => forged[at].wrapping_add(1),
                    };
                }
                let kind = forged[offset + size];
                let sum = Checksum::Xxh3.of(&forged[offset..offset + size], kind);
                forged[offset + size + 1..offset + size + 5].copy_from_slice(&sum.to_le_bytes());
            }
            let disk = MemoryDisk::new(1);
            disk.create("t").unwrap().write_at(&forged, 0).unwrap();
            refused += u32::from(!use_all(&disk, &bounds, &rows));
        }
        assert!(refused > 1000, "{refused} of 4000 refused");
    }
}

#[test]
fn every_reader_of_a_part_takes_any_bytes() {
    let mut chance = Chance(5);
    let mut builder = BlockBuilder::new(16);
    for i in 0..200u32 {
        builder.add_change(&i.to_be_bytes(), Tag(u64::from(i)), b"some value");
    }
    let block = builder.finish().to_vec();
    let forms = [(false, false), (false, true), (true, false), (true, true)];
    for round in 0..60_000 {
        let len = chance.below(80);
        let bytes = if round % 2 == 0 {
            chance.bytes(len)
        } else {
            let from = chance.below(block.len() as u64) as usize;
            let mut bytes = block[from..].to_vec();
            let at = chance.below(bytes.len() as u64) as usize;
            bytes[at] = chance.below(256) as u8;
            bytes
        };
        if let Some(block) = Block::decode(&bytes, &mut DecodeScratch::default()) {
            for row in 0..block.rows() {
                let key = [block.prefix(), block.suffix(row)].concat();
                let _ = (block.find(&key), block.below(&key), block.tag(row));
                assert!(block.bytes().get(block.value(row)).is_some());
            }
        }
        for (delta_encoded, user_keys) in forms {
            let form = IndexForm { delta_encoded, user_keys };
            if let Some(index) = Index::parse(&bytes, form, 1 << 10, &mut 0) {
                assert!(index.first_block(&bytes) <= index.len());
            }
        }
        if let Some(raw) = RawBlock::new(&bytes) {
            let _ = Properties::parse(&raw);
            let mut walk = Walk::default();
            let mut there = walk.seek(&raw, &bytes[..bytes.len().min(4)]);
            while there == Some(true) {
                assert!(raw.entries.get(walk.value()).is_some());
                let _ = (walk.user_key(), walk.tag(), walk.repeats(&raw));
                there = walk.step_key(&raw);
            }
        }
        let _ = Filter::decode(&bytes).may_contain(chance.below(u64::MAX));
        let _ = Footer::decode(&bytes);
        let _ = unseal(&bytes, Checksum::Xxh3, &mut Vec::new());
    }
}

#[test]
fn keys_that_unfold_to_more_memory_than_a_block_may_have_are_refused() {
    let mut raw = Vec::new();
    let entry = |raw: &mut Vec<u8>, shared: usize, tail: &[u8]| {
        put_varint(raw, shared as u64);
        put_varint(raw, tail.len() as u64);
        put_varint(raw, 0);
        raw.extend_from_slice(tail);
    };
    entry(&mut raw, 0, &[b'a'; 60_000]);
    // A few bytes each that stand for 60,000.
    for _ in 0..4000 {
        entry(&mut raw, 60_000, b"12345678");
    }
    entry(&mut raw, 0, b"b12345678");
    raw.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
    assert!(Block::decode(&raw, &mut DecodeScratch::default()).is_none());
}

#[test]
fn a_block_that_claims_more_than_its_bytes_can_hold_is_refused_before_memory_is_taken() {
    let mut sealed = Vec::new();
    put_varint(&mut sealed, 90 << 20);
    sealed.extend_from_slice(&[0xff; 40]);
    sealed.push(4);
    let sum = Checksum::Xxh3.of(&sealed[..sealed.len() - 1], 4);
    sealed.extend_from_slice(&sum.to_le_bytes());
    let mut buffer = Vec::new();
    assert!(unseal(&sealed, Checksum::Xxh3, &mut buffer).is_none());
    assert_eq!(buffer.capacity(), 0);
}

#[test]
fn a_filter_that_no_reader_would_take_is_left_out_and_every_key_is_found() {
    let disk = MemoryDisk::new(1);
    let bits = 9 * BLOCK_BYTES_MAX / 1000;
    let mut writer = TableWriter::new(disk.create("t").unwrap(), 4096, bits);
    let keys: Vec<Vec<u8>> = (0..1000u32).map(|i| i.to_be_bytes().to_vec()).collect();
    for key in &keys {
        writer.add(key, 1, Kind::Put, b"value").unwrap();
    }
    let bounds = writer.finish().unwrap();
    assert!(bounds.bytes < 100_000, "{} bytes", bounds.bytes);
    let table = open(&disk, "t", bounds, 0).unwrap();
    for key in &keys {
        assert_eq!(get(&table, key).unwrap(), [(Tag::new(1, Kind::Put), b"value".to_vec())]);
    }
}

#[test]
fn a_block_that_no_reader_would_take_is_refused_by_its_writer_and_not_called_damage() {
    let disk = MemoryDisk::new(1);
    let mut writer = TableWriter::new(disk.create("t").unwrap(), 4096, 10);
    let ends: Vec<Vec<u8>> = (0..BLOCK_BYTES_MAX / 60_000)
        .map(|i| [&(i as u32).to_be_bytes()[..], &vec![b'e'; 60_000]].concat())
        .collect();
    writer.add_ranges(ends.iter().map(|end| (&end[..4], &end[..], 1)));
    writer.add_ranges([(&b"x"[..], &vec![b'y'; 1 << 20][..], 1)]);
    let error = writer.finish().unwrap_err();
    assert!(error.to_string().contains("larger than readers take"), "{error}");
    let error = Error::io("writing a table", &error);
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

/// A file with good checksums around this index and these range deletions.
fn forge(disk: &MemoryDisk, index: &[u8], range_del: Option<&[u8]>) -> TableBounds {
    let mut file = Vec::new();
    let mut put = |payload: &[u8]| {
        let offset = file.len() as u64;
        Handle { offset, size: seal(&mut file, payload, false) }
    };
    let index = put(index);
    let mut properties = BlockBuilder::new(1);
    properties.add(b"rocksdb.index.key.is.user.key", &[1], true);
    properties.add(b"rocksdb.index.value.is.delta.encoded", &[1], true);
    let mut metaindex = BlockBuilder::new(1);
    let mut add = |name: &str, handle: Handle| {
        let mut value = Vec::new();
        handle.encode(&mut value);
        metaindex.add(name.as_bytes(), &value, true);
    };
    add("rocksdb.properties", put(properties.finish()));
    if let Some(range_del) = range_del {
        add("rocksdb.range_del", put(range_del));
    }
    let metaindex = put(metaindex.finish());
    file.extend(Footer { checksum: Checksum::Xxh3, metaindex, index }.encode());
    disk.create("t").unwrap().write_at(&file, 0).unwrap();
    TableBounds { bytes: file.len() as u64, ..TableBounds::default() }
}

#[test]
fn an_index_whose_keys_unfold_to_many_times_its_file_is_refused() {
    for (entries, sound) in [(10, true), (3_000, false)] {
        let mut index = Vec::new();
        for i in 0..=entries {
            let (shared, tail) = if i == 0 { (0, 60_000) } else { (59_999, 1) };
            put_varint(&mut index, shared);
            put_varint(&mut index, tail as u64);
            index.extend(vec![b'k'; tail]);
            index.extend([0; 2].iter().take(if i == 0 { 2 } else { 1 }));
        }
        index.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
        let disk = MemoryDisk::new(1);
        let bounds = forge(&disk, &index, None);
        let opened = open(&disk, "t", bounds.clone(), 0);
        assert_eq!(opened.is_ok(), sound, "{entries} entries in {} bytes", bounds.bytes);
    }
    // Nor may it name more blocks than there is room for.
    let (mut index, entries) = (Vec::new(), 5_000);
    for _ in 0..entries {
        index.extend_from_slice(&[0, 0, 0, 0]);
    }
    index.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
    let form = IndexForm { delta_encoded: true, user_keys: true };
    assert!(Index::parse(&index, form, 6 * entries, &mut 0).is_some());
    assert!(Index::parse(&index, form, 6 * entries - 1, &mut 0).is_none());
}

/// An empty index.
const NO_BLOCKS: [u8; 8] = [0, 0, 0, 0, 1, 0, 0, 0];

#[test]
fn range_deletions_within_each_other_are_refused_where_their_pieces_would_take_much_memory() {
    let nested = |count: u32, sequence: &dyn Fn(u32) -> u64| {
        let mut block = BlockBuilder::new(1);
        for i in 0..count {
            let tag = sequence(i) << 8 | u64::from(RANGE_DELETE);
            let start = [&i.to_be_bytes()[..], &tag.to_le_bytes()].concat();
            block.add(&start, &(u32::MAX - i).to_be_bytes(), true);
        }
        let disk = MemoryDisk::new(1);
        let bounds = forge(&disk, &NO_BLOCKS, Some(block.finish()));
        open(&disk, "t", bounds, 0)
    };
    let table = nested(500, &|i| u64::from(1000 - i)).unwrap();
    let tombstones = table.tombstones().unwrap();
    assert_eq!(tombstones.iter().count(), 500 * 500);
    assert_eq!(tombstones.covering(&[0, 0, 0, 7, 1], u64::MAX), 1000);
    assert_eq!(tombstones.covering(&[0, 0, 0, 7, 1], 995), 995);
    assert!(nested(20_000, &|i| u64::from(30_000 - i)).is_err());
    // Those of a file to be ingested have one sequence, and so they are one.
    let table = nested(20_000, &|_| 0).unwrap();
    assert_eq!(table.tombstones().unwrap().iter().count(), 1);
    // Many deletions of one range, and keys that unfold.
    let mut block = BlockBuilder::new(u32::MAX);
    for i in 0..30_000u64 {
        let tag = (40_000 - i) << 8 | u64::from(RANGE_DELETE);
        block.add(&[&[b'k'; 3_000][..], &tag.to_le_bytes()].concat(), b"l", true);
    }
    let disk = MemoryDisk::new(1);
    let bounds = forge(&disk, &NO_BLOCKS, Some(block.finish()));
    assert!(open(&disk, "t", bounds, 0).is_err());
}

/// What reading the table of another store says about it.
fn refusal_of(bytes: &[u8]) -> Error {
    let disk = MemoryDisk::new(1);
    disk.create("t").unwrap().write_at(bytes, 0).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(disk);
    read_table(&disk, "t", &mut |_| {}).unwrap_err()
}

#[test]
fn a_sound_table_that_we_do_not_read_is_told_what_it_has_and_how_to_write_it() {
    let disk = MemoryDisk::new(1);
    write(&disk, "t", &sample(&mut Chance(3), false), 400);
    let whole = read_all(disk.open("t").unwrap().as_ref()).unwrap();
    let footer = whole.len() - FOOTER_BYTES;
    let told = |change: &dyn Fn(&mut Vec<u8>), words: &str| {
        let mut forged = whole.clone();
        change(&mut forged);
        let error = refusal_of(&forged);
        let unsupported = matches!(error, Error::Io { kind: ErrorKind::Unsupported, .. });
        assert!(unsupported && error.to_string().contains(words), "{error}, not {words}");
        // A table of our own is damaged then.
        disk.create("forged").unwrap().write_at(&forged, 0).unwrap();
        let bounds = TableBounds { bytes: forged.len() as u64, ..TableBounds::default() };
        let ours = open(&disk, "forged", bounds, 0)
            .and_then(|table| (0..table.blocks()?).try_for_each(|i| table.block(i).map(drop)));
        assert!(matches!(ours, Err(Error::Damaged(_))), "{words}: {ours:?}");
    };
    for version in [0, 1, 6, 7] {
        let words = format!(
            "format_version {version} is not supported; write it with format_version 2 to 5"
        );
        told(&|bytes| bytes[footer + 41] = version, &words);
    }
    let legacy = 0xdb47_7524_8b80_fb57_u64.to_le_bytes();
    told(
        &|bytes| bytes[footer + 45..].copy_from_slice(&legacy),
        "format_version 0 is not supported",
    );
    for (kind, name) in [(0, "none"), (2, "XXH32"), (3, "XXH64")] {
        let words =
            format!("checksum {kind} ({name}) is not supported; write it with CRC32c or XXH3");
        told(&|bytes| bytes[footer] = kind, &words);
    }
    let blocks = blocks(&whole);
    for (kind, name) in [(1, "Snappy"), (2, "ZLIB"), (7, "ZSTD")] {
        // In the first of the rows, one in the middle, and the index.
        for (offset, size) in [blocks[0], blocks[2], blocks[blocks.len() - 3]] {
            let words =
                format!("compression {kind} ({name}) is not supported; write it with LZ4 or none");
            let change = |bytes: &mut Vec<u8>| {
                bytes[offset + size] = kind;
                let sum = Checksum::Xxh3.of(&bytes[offset..offset + size], kind);
                bytes[offset + size + 1..offset + size + 5].copy_from_slice(&sum.to_le_bytes());
            };
            told(&change, &words);
        }
    }
}

#[test]
fn a_table_of_another_store_with_a_key_longer_than_ours_is_told_so() {
    for before in [0u32, 1, 30] {
        let disk = MemoryDisk::new(1);
        let mut writer = TableWriter::new(disk.create("t").unwrap(), 400, 10);
        for i in 0..before {
            writer.add(&i.to_be_bytes(), 0, Kind::Put, &[b'v'; 100]).unwrap();
        }
        writer.add(&vec![b'k'; KEY_BYTES_MAX + 1], 0, Kind::Put, b"value").unwrap();
        writer.add(b"l", 0, Kind::Put, b"value").unwrap();
        writer.finish().unwrap();
        let error = refusal_of(&read_all(disk.open("t").unwrap().as_ref()).unwrap());
        let words = "a key of 65537 bytes is not supported, at most 65536 are";
        assert!(error.to_string().contains(words), "{error}");
    }
}
