//! Forged tables: files with good checksums whose few bytes stand for many, made as any recipe says.
//!
//! Panics where reading one shows more than the file can justify; that no reader takes much memory for one is
//! for whoever runs many of them to see. Mutations of good files hardly ever get there: the keys of an index
//! that leave out what they share, and range deletions within each other.

use ringdb_storage::{Disk, MemoryDisk, read_table};
use std::sync::Arc;

/// Rows that a file may show beside one for each of its bytes: pieces of range deletions.
const ROWS_MAX: usize = 1 << 20;

/// The next number of a recipe, up to `max`; 0 behind its end.
fn number(recipe: &mut &[u8], max: usize) -> usize {
    let Some((bytes, rest)) = recipe.split_first_chunk::<4>() else { return 0 };
    *recipe = rest;
    usize::try_from(u32::from_le_bytes(*bytes)).unwrap_or(0) % (max + 1)
}

/// The property: the table that `recipe` makes is read or refused.
pub(crate) fn fuzz(mut recipe: &[u8]) {
    let recipe = &mut recipe;
    let mut file = File::default();
    let index = index(recipe);
    let index = file.put(&index);
    let range_del = range_deletions(recipe);
    let range_del = file.put(&range_del);
    let properties = [
        (&b"rocksdb.index.key.is.user.key"[..], vec![1]),
        (b"rocksdb.index.value.is.delta.encoded", vec![1]),
    ];
    let properties = file.put(&block(&properties));
    let metaindex = [(&b"rocksdb.properties"[..], properties), (b"rocksdb.range_del", range_del)];
    let metaindex = file.put(&block(&metaindex));
    let bytes = file.finish(&metaindex, &index);
    let disk = MemoryDisk::new(1);
    let made = disk.create("0000000001.sst").expect("memory works");
    made.write_at(&bytes, 0).expect("memory works");
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let mut rows = 0;
    // A refusal is an answer.
    let _ = read_table(&disk, "0000000001.sst", &mut |_| rows += 1);
    assert!(rows <= ROWS_MAX + bytes.len(), "{rows} rows in {} bytes", bytes.len());
}

/// An index of keys that share nearly everything with the first.
fn index(recipe: &mut &[u8]) -> Vec<u8> {
    let (entries, key) = (number(recipe, 20_000), number(recipe, 1 << 16));
    let mut out = Vec::new();
    for i in 0..entries {
        let shared = if i == 0 { 0 } else { key.saturating_sub(1) };
        put_varint(&mut out, shared);
        put_varint(&mut out, key - shared);
        out.resize(out.len() + key - shared, b'k');
        out.resize(out.len() + if shared == 0 { 2 } else { 1 }, 0);
    }
    out.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
    out
}

/// Range deletions that begin and end one behind the other, in so many steps that each overlaps many.
fn range_deletions(recipe: &mut &[u8]) -> Vec<u8> {
    let count = number(recipe, 20_000) as u64;
    let (starts, ends) = (number(recipe, 3) as u64, number(recipe, 3) as u64);
    let sequences = number(recipe, 1 << 16) as u64 + 1;
    let entries: Vec<_> = (0..count)
        .map(|i| {
            let tag = ((count - i) % sequences) << 8 | 15;
            let start = [(i * starts).to_be_bytes(), tag.to_le_bytes()].concat();
            // The first ends are the greatest, or the least.
            let end = 1 << 40 | if number(recipe, 1) == 0 { i * ends } else { (count - i) * ends };
            (start, end.to_be_bytes().to_vec())
        })
        .collect();
    let entries: Vec<_> = entries.iter().map(|(start, end)| (&start[..], end.clone())).collect();
    block(&entries)
}

/// A block whose entries share nothing.
fn block(entries: &[(&[u8], Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut restarts) = (Vec::new(), Vec::new());
    for (key, value) in entries {
        restarts.push(out.len());
        put_varint(&mut out, 0);
        put_varint(&mut out, key.len());
        put_varint(&mut out, value.len());
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }
    if restarts.is_empty() {
        restarts.push(0);
    }
    restarts.push(restarts.len());
    for number in restarts {
        out.extend_from_slice(&u32::try_from(number).expect("small").to_le_bytes());
    }
    out
}

fn put_varint(out: &mut Vec<u8>, mut v: usize) {
    while v >= 0x80 {
        out.push((v & 0x7f) as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// docs/format/table.md, blocks as they are.
#[derive(Default)]
struct File(Vec<u8>);

impl File {
    /// Appends a block; its handle.
    fn put(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut handle = Vec::new();
        put_varint(&mut handle, self.0.len());
        put_varint(&mut handle, payload.len());
        self.0.extend_from_slice(payload);
        self.0.push(0);
        let sum = xxhash_rust::xxh3::xxh3_64(payload) as u32;
        self.0.extend_from_slice(&sum.to_le_bytes());
        handle
    }

    fn finish(mut self, metaindex: &[u8], index: &[u8]) -> Vec<u8> {
        let mut footer = [&[4][..], metaindex, index].concat();
        footer.resize(41, 0);
        footer.extend_from_slice(&5u32.to_le_bytes());
        footer.extend_from_slice(&0x88e2_41b7_85f4_cff7_u64.to_le_bytes());
        self.0.extend(footer);
        self.0
    }
}
