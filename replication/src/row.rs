//! Rows: how a key becomes the bytes that the engine sorts by.
//!
//! `slot (u16, big-endian) · keyspace (u16, big-endian) · escaped partition key · escaped sort key ·
//! kind`. The partition key is the hash tag, or the whole Redis key; the sort key is empty, or the
//! full Redis key when it is tagged. Escaping turns 0x00 into 0x00 0xff and ends with 0x00 0x00, so
//! that byte order is the order of (partition key, sort key). The slot ignores the keyspace.

use bytes::Bytes;
use ring::{Slot, slot};
use smallvec::SmallVec;

use crate::piece;

/// A keyspace: what SELECT n chooses.
pub type Keyspace = u16;

/// The keyspace number under which a slot keeps its own rows (its clock); no client reaches it.
pub const META: Keyspace = 0xffff;

/// The kind byte of a key's record.
const KIND_RECORD: u8 = 0;

/// The kind byte of a slot's clock.
const KIND_CLOCK: u8 = 1;

/// A key as the engine knows it.
pub type Row = Bytes;

/// The row of a Redis key.
#[must_use]
pub fn of_key(keyspace: Keyspace, key: &[u8]) -> Row {
    let tag = slot::hash_tag(key);
    let mut row: SmallVec<[u8; 128]> = SmallVec::with_capacity(key.len() + tag.len() + 10);
    row.extend_from_slice(&Slot::of_key(key).0.to_be_bytes());
    row.extend_from_slice(&keyspace.to_be_bytes());
    escape(tag, &mut row);
    // A tag that is a proper part of the key leaves the whole key to the sort key.
    escape(if tag.len() == key.len() { &[] } else { key }, &mut row);
    row.push(KIND_RECORD);
    piece::copied(&row)
}

/// The slot of a row, or `None` if the row is too short to have one.
#[must_use]
pub fn slot_of(row: &[u8]) -> Option<Slot> {
    let raw = row.first_chunk::<2>()?;
    Some(Slot(u16::from_be_bytes(*raw)))
}

/// The keyspace of a row.
#[must_use]
pub fn keyspace_of(row: &[u8]) -> Option<Keyspace> {
    let raw = row.get(2..4)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*raw))
}

/// The Redis key of a row; `None` if the row holds no key's record.
#[must_use]
pub fn key_of(row: &[u8]) -> Option<Vec<u8>> {
    if keyspace_of(row)? == META {
        return None;
    }
    let (pk, rest) = unescape(&row[4..])?;
    let (sk, rest) = unescape(rest)?;
    (rest == [KIND_RECORD]).then_some(if sk.is_empty() { pk } else { sk })
}

/// First row and end (exclusive) of a keyspace in a slot.
#[must_use]
pub fn range_of(slot: Slot, keyspace: Keyspace) -> (Vec<u8>, Vec<u8>) {
    let mut start = slot.0.to_be_bytes().to_vec();
    let mut end = start.clone();
    start.extend_from_slice(&keyspace.to_be_bytes());
    end.extend_from_slice(&keyspace.saturating_add(1).to_be_bytes());
    (start, end)
}

/// First row of every client keyspace of a slot, and their end (exclusive).
#[must_use]
pub fn range_of_slot(slot: Slot) -> (Vec<u8>, Vec<u8>) {
    (range_of(slot, 0).0, range_of(slot, META).0)
}

/// The Redis key of a partition key and a sort key: `{partition}sort`. `None` if the partition key
/// cannot be a hash tag: it is empty, or has a `}` in it.
#[must_use]
pub fn pair(partition: &[u8], sort: &[u8]) -> Option<Vec<u8>> {
    if partition.is_empty() || partition.contains(&b'}') {
        return None;
    }
    Some([b"{", partition, b"}", sort].concat())
}

/// The sort key of a row among those of a partition key; `None` if it is none of them.
#[must_use]
pub fn sort_key_of(row: &[u8], partition: &[u8]) -> Option<Vec<u8>> {
    let mut key = key_of(row)?;
    let prefix = pair(partition, b"")?;
    key.starts_with(&prefix).then(|| key.split_off(prefix.len()))
}

/// First row and end (exclusive) of the sort keys of a partition key from `from` (all if `None`) to
/// before `to` (all if `None`). `None` if the partition key cannot be a hash tag.
#[must_use]
pub fn range_of_sort_keys(
    keyspace: Keyspace,
    partition: &[u8],
    from: Option<&[u8]>,
    to: Option<&[u8]>,
) -> Option<(Row, Row)> {
    // A key's row without its kind: before every row of the key, behind every row of lesser keys.
    let edge = |sort: &[u8]| {
        let row = of_key(keyspace, &pair(partition, sort)?);
        Some(row.slice(..row.len() - 1))
    };
    let start = edge(from.unwrap_or_default())?;
    let end = if let Some(to) = to {
        edge(to)?
    } else {
        // Behind everything that begins with `{partition}`: without the terminator, and with the
        // brace raised by one.
        let least = edge(b"")?;
        let mut end = least[..least.len() - 2].to_vec();
        *end.last_mut()? += 1;
        Bytes::from(end)
    };
    Some((start, end))
}

/// The row that holds a slot's clock.
#[must_use]
pub fn of_clock(slot: Slot) -> Row {
    let mut row = range_of(slot, META).0;
    row.push(KIND_CLOCK);
    Bytes::from(row)
}

/// True if the row holds a slot's clock.
#[must_use]
pub fn is_clock(row: &[u8]) -> bool {
    keyspace_of(row) == Some(META) && row.get(4..) == Some(&[KIND_CLOCK])
}

/// Where the rows of a group of slots start: the split keys between cores.
#[must_use]
pub fn start_of(slot: Slot) -> Vec<u8> {
    slot.0.to_be_bytes().to_vec()
}

/// The place of a key in the order of SCAN within its slot: 48 bits of XXH3.
#[must_use]
pub fn hash48(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key) >> 16
}

fn escape(bytes: &[u8], out: &mut SmallVec<[u8; 128]>) {
    let mut rest = bytes;
    while let Some(zero) = rest.iter().position(|b| *b == 0) {
        out.extend_from_slice(&rest[..=zero]);
        out.push(0xff);
        rest = &rest[zero + 1..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(&[0, 0]);
}

fn unescape(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    loop {
        match bytes.get(i)? {
            0 => match bytes.get(i + 1)? {
                0xff => out.push(0),
                0 => return Some((out, &bytes[i + 2..])),
                _ => return None,
            },
            b => {
                out.push(*b);
                i += 1;
                continue;
            }
        }
        i += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gives_its_key_back() {
        for key in
            [&b""[..], b"foo", b"a\0b\0", b"{tag}rest", b"{}x", b"x{t}", b"\0\xff\0\0", b"{a}"]
        {
            let row = of_key(3, key);
            assert_eq!(key_of(&row).as_deref(), Some(key));
            assert_eq!(slot_of(&row), Some(Slot::of_key(key)));
            assert_eq!(keyspace_of(&row), Some(3));
        }
    }

    #[test]
    fn different_keys_have_different_rows() {
        assert_ne!(of_key(0, b"a"), of_key(0, b"{a}"));
        assert_ne!(of_key(0, b"a"), of_key(1, b"a"));
        assert_ne!(of_key(0, b"a\0"), of_key(0, b"a"));
    }

    #[test]
    fn sort_keys_of_one_partition_key_are_neighbours_in_byte_order() {
        let rows: Vec<_> =
            [&b"{p}"[..], b"{p}\0", b"{p}a", b"{p}aa", b"{p}b"].map(|k| of_key(0, k)).to_vec();
        assert!(rows.is_sorted(), "{rows:?}");
        let (start, end) = range_of(Slot::of_key(b"{p}"), 0);
        assert!(rows.iter().all(|r| r[..] >= start[..] && r[..] < end[..]));
    }

    #[test]
    fn a_range_of_sort_keys_holds_these_and_no_others() {
        let keys: [&[u8]; 9] =
            [b"p", b"{p}", b"{p}\0", b"{p}a", b"{p}a\0", b"{p}aa", b"{p}b", b"x{p}b", b"{p"];
        let within = |from: Option<&[u8]>, to: Option<&[u8]>| {
            let (start, end) = range_of_sort_keys(0, b"p", from, to).expect("a tag");
            let row = |key: &&&[u8]| {
                let row = of_key(0, key);
                row >= start && row < end
            };
            keys.iter().filter(row).map(|k| sort_key_of(&of_key(0, k), b"p")).collect::<Vec<_>>()
        };
        let sorts = |sorts: &[&[u8]]| sorts.iter().map(|s| Some(s.to_vec())).collect::<Vec<_>>();
        assert_eq!(within(None, None), sorts(&[b"", b"\0", b"a", b"a\0", b"aa", b"b"]));
        assert_eq!(within(Some(b"a"), Some(b"b")), sorts(&[b"a", b"a\0", b"aa"]));
        assert_eq!(within(Some(b"a\0"), None), sorts(&[b"a\0", b"aa", b"b"]));
        assert_eq!(within(None, Some(b"a")), sorts(&[b"", b"\0"]));
        assert_eq!(within(Some(b"b"), Some(b"a")), sorts(&[]));
        assert_eq!(range_of_sort_keys(0, b"", None, None), None);
        assert_eq!(range_of_sort_keys(0, b"a}b", None, None), None);
        assert_eq!(sort_key_of(&of_key(0, b"p"), b"p"), None);
        assert_eq!(sort_key_of(&of_key(0, b"x{p}b"), b"p"), None);
    }

    #[test]
    fn a_clock_row_is_no_key() {
        let row = of_clock(Slot(7));
        assert!(is_clock(&row));
        assert_eq!(key_of(&row), None);
        let (_, end) = range_of_slot(Slot(7));
        assert!(row[..] >= end[..]);
    }
}
