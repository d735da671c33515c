//! Salvage: of a table that does not open, the blocks that prove themselves.
//!
//! Promise: what is bad costs no more than itself. Without a filter every key may be there; without the
//! range deletions the rest is whole, and that they are missing is said; where index, properties,
//! metaindex or footer do not prove themselves, the blocks are looked for from the start of the file, each
//! behind the one before, by their checksums. A stretch in which there is none is said with the keys
//! around it. Nothing here is fast: it is for a table of which there is no better copy. But it takes no longer
//! than in proportion to the file: what is looked for gives itself away by its form before its checksum is
//! reckoned, and a file that was made to look like beginnings everywhere is given up.

use super::{Body, Table, listed, read_tombstones};
use crate::cache::Slots;
use crate::checksum::Checksum;
use crate::codec::{take, u32_at, varint, varint32};
use crate::disk::{DiskFile, read_all};
use crate::error::{Damage, Error, Place};
use crate::key::{RANGE_DELETE, Tag};
use crate::limits::BLOCK_BYTES_MAX;
use crate::shelf::Shelf;
use crate::table::block::{Block, DecodeScratch};
use crate::table::build::BlockBuilder;
use crate::table::counts::TableCounts;
use crate::table::filter::Filter;
use crate::table::footer::{FOOTER_BYTES, Footer, Handle, TRAILER_BYTES, unseal};
use crate::table::index::{Index, IndexForm, split_internal};
use crate::table::properties::Properties;
use crate::table::raw::{RawBlock, TAG};
use crate::table::writer::TableBounds;
use crate::tombstones::RangeTombstones;
use std::cell::Cell;
use std::sync::Arc;

/// What is left of a table.
pub(crate) struct Salvaged {
    /// Its index knows the blocks that prove themselves, and no others.
    pub(crate) table: Table,
    /// The stretches between them.
    pub(crate) lost: Vec<Damage>,
    /// It had range deletions, or may have had some, and they are gone.
    pub(crate) ranges_lost: bool,
}

/// How many plain blocks that may end behind a place are tried where one has to begin.
const ENDS_TRIED: usize = 64;
/// How far the only one is that is tried where rows begin, whose end is known by their form.
const NEAR: usize = 16 << 10;
/// Steps and bytes of checksums for each byte of the file that are spent on the search, at most.
const SPENT_MAX: u64 = 256;

impl Table {
    /// Opens what of a table can be read.
    pub(crate) fn salvage(
        number: u64,
        bounds: TableBounds,
        file: Arc<dyn DiskFile>,
        shelf: Arc<Shelf>,
    ) -> Result<Salvaged, Error> {
        let mut table = Self::damaged(number, bounds, shelf);
        table.hold_blobs()?;
        let bytes = read_all(file.as_ref()).map_err(|e| table.failed_read(0, &e))?;
        let frame = Frame::of(&bytes, table.bounds.bytes);
        let checksum = frame.checksum;
        let (mut lost, mut splits_keys) = (Vec::new(), false);
        let (index, walk) = match frame.index(&bytes) {
            Some((index, form)) => {
                splits_keys = !form.user_keys;
                (index, None)
            }
            None => {
                let walk = Walk::over(&bytes, &frame);
                lost = walk.lost(number, &table.bounds);
                splits_keys |= walk.splits_keys();
                (walk.index(), Some(walk))
            }
        };
        let (tombstones, ranges_lost) = frame.tombstones(&bytes, walk.as_ref());
        let slots = Arc::new(Slots::new(number, index.len()));
        let filter = Filter::default();
        table.counts = frame.counts;
        table.body = Some(Body { file, checksum, index, filter, tombstones, slots, splits_keys });
        Ok(Salvaged { table, lost, ranges_lost })
    }
}

/// What stands around the blocks, as far as it proves itself.
struct Frame {
    checksum: Checksum,
    footer: Option<Footer>,
    /// Filter, range deletions, properties.
    handles: Option<[Option<Handle>; 3]>,
    form: Option<IndexForm>,
    counts: TableCounts,
}

impl Frame {
    /// `len`: how long the file was.
    fn of(bytes: &[u8], len: u64) -> Self {
        let whole = bytes.len() as u64 >= len;
        let end = usize::try_from(len).ok().filter(|_| whole);
        let footer =
            end.and_then(|end| Footer::decode(bytes.get(end.checked_sub(FOOTER_BYTES)?..end)?));
        let checksum = footer.map_or(Checksum::Xxh3, |footer| footer.checksum);
        let mut frame =
            Self { checksum, footer, handles: None, form: None, counts: TableCounts::default() };
        let metaindex = footer.and_then(|footer| frame.block(bytes, footer.metaindex));
        frame.handles = metaindex.and_then(|block| listed(&RawBlock::new(&block)?));
        let properties = frame.handles.and_then(|[.., properties]| properties);
        if let Some(block) = properties.and_then(|handle| frame.block(bytes, handle))
            && let Some(block) = RawBlock::new(&block)
        {
            frame.counts = TableCounts::of_properties(&block);
            frame.form = Properties::parse(&block).map(|properties| properties.index);
        }
        frame
    }

    fn block(&self, bytes: &[u8], handle: Handle) -> Option<Vec<u8>> {
        content_at(bytes, handle, self.checksum)
    }

    fn index(&self, bytes: &[u8]) -> Option<(Index, IndexForm)> {
        let (footer, form) = (self.footer?, self.form?);
        let index = self.block(bytes, footer.index)?;
        Some((Index::parse(&index, form, bytes.len() as u64, &mut 0)?, form))
    }

    /// Where no data can stand any more.
    fn data_end(&self, bytes: &[u8]) -> usize {
        // The footer has no checksum of its own.
        let index = self.footer.map(|footer| footer.index);
        let index = index.filter(|handle| self.block(bytes, *handle).is_some());
        let handles = self.handles.iter().flatten().flatten().chain(&index);
        let first = handles.map(|handle| handle.offset).min();
        first.and_then(|at| usize::try_from(at).ok()).unwrap_or(usize::MAX).min(bytes.len())
    }

    /// The range deletions, and whether some are lost.
    fn tombstones(&self, bytes: &[u8], walk: Option<&Walk>) -> (RangeTombstones, bool) {
        let found = match self.handles {
            Some([_, None, _]) => return (RangeTombstones::default(), false),
            Some([_, Some(handle), _]) => self.block(bytes, handle),
            None => walk.and_then(|walk| walk.ranges.clone()),
        };
        let file_bytes = bytes.len() as u64;
        let read = found.and_then(|block| read_tombstones(&RawBlock::new(&block)?, file_bytes));
        let none = self.handles.is_none() && walk.and_then(|walk| walk.range_count) == Some(0);
        let lost = read.is_none() && !none;
        (read.unwrap_or_default(), lost)
    }
}

/// A stretch in which no block proves itself.
struct Gap {
    at: usize,
    /// The number of blocks before it.
    before: usize,
}

/// The blocks that were found one behind the other.
#[derive(Default)]
struct Walk {
    /// With the first and the last key.
    blocks: Vec<(Handle, Vec<u8>, Vec<u8>)>,
    gaps: Vec<Gap>,
    /// The block of range deletions, if it was met, and how many the properties speak of.
    ranges: Option<Vec<u8>>,
    range_count: Option<u64>,
    /// What the search took, in bytes and steps.
    spent: u64,
}

/// What a sound block turns out to be.
enum Content {
    Rows(Vec<u8>, Vec<u8>),
    Ranges,
    Other,
}

impl Walk {
    fn over(bytes: &[u8], frame: &Frame) -> Self {
        let (mut walk, mut scratch) = (Self::default(), DecodeScratch::default());
        // Where the metaindex is lost, what stands behind the data is met on the way.
        let end = if frame.handles.is_some() { frame.data_end(bytes) } else { bytes.len() };
        let ends = ends(bytes);
        let seeker = Seeker {
            bytes: &bytes[..end],
            checksum: frame.checksum,
            ends,
            spent: Cell::new(0),
            tried: Cell::new(0),
        };
        let (mut at, mut gap, mut in_data) = (0, None, true);
        while at < end {
            let found = match gap {
                Some(_) if !seeker.may_begin(at) => None,
                Some(_) => seeker.block_within(at),
                None => seeker.block_at(at),
            };
            let Some((handle, content)) = found else {
                gap.get_or_insert(at);
                at += 1;
                continue;
            };
            let content_is = classify(&content, &mut scratch);
            if let Some(gap) = gap.take()
                && in_data
            {
                walk.gaps.push(Gap { at: gap, before: walk.blocks.len() });
            }
            match content_is {
                Content::Rows(first, last) if in_data && walk.follows(&first) => {
                    walk.blocks.push((handle, first, last));
                }
                Content::Rows(..) if in_data => {
                    walk.gaps.push(Gap { at, before: walk.blocks.len() });
                }
                Content::Rows(..) => {}
                Content::Ranges => {
                    in_data = false;
                    walk.ranges = Some(content);
                }
                Content::Other => {
                    in_data = false;
                    if let Some(block) = RawBlock::new(&content)
                        && let Some(count) = range_count(&block)
                    {
                        walk.range_count = Some(count);
                    }
                }
            }
            at += usize::try_from(handle.sealed_len()).unwrap_or(usize::MAX);
        }
        // A file that was cut short may end with a good block.
        let cut_short = frame.handles.is_none().then_some(end);
        if let Some(gap) = gap.or(cut_short)
            && in_data
        {
            walk.gaps.push(Gap { at: gap, before: walk.blocks.len() });
        }
        walk.spent = seeker.spent.get() + seeker.tried.get();
        walk
    }

    fn follows(&self, first: &[u8]) -> bool {
        self.blocks.last().is_none_or(|(_, _, last)| last.as_slice() <= first)
    }

    fn splits_keys(&self) -> bool {
        self.blocks.windows(2).any(|pair| pair[0].2 == pair[1].1)
    }

    fn index(&self) -> Index {
        let (mut index, mut handle_bytes) = (BlockBuilder::new(1), Vec::new());
        for (handle, _, last) in &self.blocks {
            handle_bytes.clear();
            handle.encode(&mut handle_bytes);
            index.add(last, &handle_bytes, false);
        }
        let form = IndexForm { delta_encoded: true, user_keys: true };
        // Made of keys that are in memory already.
        Index::parse(index.finish(), form, u64::MAX, &mut 0).unwrap_or_default()
    }

    /// The gaps, with the keys between what stands around them.
    fn lost(&self, number: u64, bounds: &TableBounds) -> Vec<Damage> {
        let lost = |gap: &Gap| {
            let place = Place::Table { number, offset: Some(gap.at as u64) };
            let before = gap.before.checked_sub(1).map(|i| &self.blocks[i].2);
            let lower = before.map(|last| [&last[..], &[0]].concat());
            let lower = lower.unwrap_or_else(|| bounds.smallest.clone());
            let upper = match self.blocks.get(gap.before) {
                Some((_, first, _)) => Some(first.clone()),
                None if bounds.largest.is_empty() => None,
                None if bounds.largest_excluded => Some(bounds.largest.clone()),
                None => Some([&bounds.largest[..], &[0]].concat()),
            };
            Damage { place, lower, upper }
        };
        let any = |lost: &Damage| lost.upper.as_ref().is_none_or(|upper| lost.lower < *upper);
        self.gaps.iter().map(lost).filter(any).collect()
    }
}

fn classify(content: &[u8], scratch: &mut DecodeScratch) -> Content {
    let Some(raw) = RawBlock::new(content) else { return Content::Other };
    let mut any = false;
    let ranges = raw.each(|internal, _| {
        any = true;
        let (_, tag) = split_internal(internal)?;
        (tag.0 & 0xff == u64::from(RANGE_DELETE)).then_some(())
    });
    if any && ranges.is_some() {
        return Content::Ranges;
    }
    let Some(block) = Block::decode(content, scratch).filter(|block| block.rows() > 0) else {
        return Content::Other;
    };
    let known = (0..block.rows()).all(|row| block.tag(row).kind().is_some());
    let sorted = (1..block.rows()).all(|row| block.suffix(row - 1) <= block.suffix(row));
    if known && sorted {
        Content::Rows(block.key(0), block.key(block.rows() - 1))
    } else {
        Content::Other
    }
}

/// How many range deletions properties speak of; none when these are none.
fn range_count(block: &RawBlock<'_>) -> Option<u64> {
    let mut count = None;
    block.each(|name, mut value| {
        if name == b"rocksdb.num.range-deletions" {
            count = varint(&mut value);
        }
        Some(())
    })?;
    count
}

fn content_at(bytes: &[u8], handle: Handle, checksum: Checksum) -> Option<Vec<u8>> {
    let start = usize::try_from(handle.offset).ok()?;
    let end = start.checked_add(usize::try_from(handle.sealed_len()).ok()?)?;
    unseal(bytes.get(start..end)?, checksum, &mut Vec::new()).map(<[u8]>::to_vec)
}

/// Where the trailers of blocks may begin that are not compressed: behind restart points of which the
/// first is 0, or behind what ends as our filter does.
fn ends(bytes: &[u8]) -> Vec<usize> {
    let plain = |at: usize| {
        let count_at = at.checked_sub(4)?;
        let restarts = usize::try_from(u32_at(bytes, count_at)?).ok().filter(|n| *n > 0)?;
        let first = count_at.checked_sub(restarts.checked_mul(4)?)?;
        (u32_at(bytes, first)? == 0).then_some(())
    };
    let filter = |at: usize| {
        let tail = bytes.get(at.checked_sub(5)?..at)?;
        matches!(tail, [0xff, 0, 1..=30, 0, 0]).then_some(())
    };
    let ends = (0..bytes.len()).filter(|at| bytes[*at] == 0);
    ends.filter(|at| plain(*at).or_else(|| filter(*at)).is_some()).collect()
}

/// Finds blocks where it is not known how long they are.
struct Seeker<'a> {
    bytes: &'a [u8],
    checksum: Checksum,
    /// See [`ends`], ascending.
    ends: Vec<usize>,
    /// On the search, and on where one ended before: see [`SPENT_MAX`].
    spent: Cell<u64>,
    tried: Cell<u64>,
}

impl Seeker<'_> {
    /// The block that begins at `at`, if one proves itself; where one ended just before.
    fn block_at(&self, at: usize) -> Option<(Handle, Vec<u8>)> {
        // What stands where it should costs no search, and is never given up.
        self.block_of_rows(at).or_else(|| {
            let from = self.ends.partition_point(|end| *end <= at);
            // Rows whose end is known by their form are bad; and at some point so is all.
            let few = self.may_begin(at) || self.tried.get() > self.max();
            let (tried, reach) = if few { (1, NEAR) } else { (ENDS_TRIED, BLOCK_BYTES_MAX) };
            let mut ends = self.ends[from..].iter().take(tried).filter(|end| *end - at <= reach);
            ends.find_map(|end| self.block_between(at, *end, &self.tried))
        })
    }

    fn max(&self) -> u64 {
        SPENT_MAX.saturating_mul(self.bytes.len() as u64)
    }

    /// The block of rows or range deletions that begins at `at`, if one proves itself; where anything may
    /// stand.
    fn block_within(&self, at: usize) -> Option<(Handle, Vec<u8>)> {
        if self.spent.get() > self.max() {
            return None;
        }
        self.block_of_rows(at)
    }

    fn block_of_rows(&self, at: usize) -> Option<(Handle, Vec<u8>)> {
        let mut ends = self.packed_end(at).into_iter().chain(self.plain_end(at));
        ends.find_map(|end| self.block_between(at, end, &self.spent))
    }

    /// `spent`: on what account it goes.
    fn block_between(&self, at: usize, end: usize, spent: &Cell<u64>) -> Option<(Handle, Vec<u8>)> {
        let handle = Handle { offset: at as u64, size: (end - at) as u64 };
        if end - at > BLOCK_BYTES_MAX || end + TRAILER_BYTES > self.bytes.len() {
            return None;
        }
        spent.set(spent.get().saturating_add((end - at) as u64));
        Some((handle, content_at(self.bytes, handle, self.checksum)?))
    }

    fn step(&self) {
        self.spent.set(self.spent.get().saturating_add(1));
    }

    /// Where a plain block of rows or range deletions that begins at `at` ends: one entry stands behind the
    /// other, then restart points that ascend from 0, and how many they are.
    fn plain_end(&self, at: usize) -> Option<usize> {
        let mut rest = self.bytes.get(at..)?;
        let entry = |rest: &mut &[u8]| {
            let (shared, tail, value) = (varint32(rest)?, varint32(rest)?, varint32(rest)?);
            (u64::from(shared) + u64::from(tail) >= TAG as u64).then_some(())?;
            take(rest, usize::try_from(u64::from(tail) + u64::from(value)).ok()?).map(drop)
        };
        // What is no entry at all may look like one after the other for long.
        let next = self.ends.partition_point(|end| *end <= at);
        let last = self.ends.get(next + ENDS_TRIED).map_or(self.bytes.len(), |end| *end);
        let restarts = loop {
            self.step();
            let here = self.bytes.len() - rest.len();
            if here > last || here - at > BLOCK_BYTES_MAX {
                return None;
            }
            if entry(&mut rest).is_none() {
                break here;
            }
        };
        let mut last = u32_at(self.bytes, restarts).filter(|first| *first == 0)?;
        for count in 1.. {
            self.step();
            let end = restarts.checked_add(4 * count)?;
            let next = u32_at(self.bytes, end)?;
            // An entry takes more than a byte, so no restart point is its own number.
            if usize::try_from(next).ok()? == count {
                return end.checked_add(4);
            }
            if next <= last || usize::try_from(next).ok()? >= restarts - at {
                return None;
            }
            last = next;
        }
        None
    }

    /// Where a compressed block that begins at `at` ends. LZ4 says how long it is only while it is
    /// followed to its end.
    fn packed_end(&self, at: usize) -> Option<usize> {
        let (size, mut at) = self.packed(at)?;
        let mut unpacked = 0_usize;
        loop {
            self.step();
            let token = *self.bytes.get(at)?;
            at += 1;
            let literals = self.length(&mut at, token >> 4)?;
            at = at.checked_add(literals).filter(|at| *at < self.bytes.len())?;
            unpacked += literals;
            if unpacked >= size {
                return (unpacked == size).then_some(at);
            }
            // What is no LZ4 soon copies from before its beginning.
            let back = u16::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?);
            if back == 0 || usize::from(back) > unpacked {
                return None;
            }
            at += 2;
            unpacked += self.length(&mut at, token & 15)? + 4;
        }
    }

    /// How long the block is unpacked, and where LZ4's part of it begins.
    fn packed(&self, at: usize) -> Option<(usize, usize)> {
        let mut rest = self.bytes.get(at..)?;
        let size = usize::try_from(varint(&mut rest)?).ok()?;
        (size > 0 && size <= BLOCK_BYTES_MAX).then_some((size, self.bytes.len() - rest.len()))
    }

    /// A length of LZ4, of which `start` are in the token.
    fn length(&self, at: &mut usize, start: u8) -> Option<usize> {
        let mut length = usize::from(start);
        let mut goes_on = start == 15;
        while goes_on && length <= BLOCK_BYTES_MAX {
            self.step();
            let more = *self.bytes.get(*at)?;
            *at += 1;
            length += usize::from(more);
            goes_on = more == 255;
        }
        Some(length)
    }

    /// False where rows or range deletions cannot begin: their first key shares nothing, and is followed by a tag.
    fn may_begin(&self, at: usize) -> bool {
        let packed = || {
            let (_, mut at) = self.packed(at)?;
            let token = *self.bytes.get(at)?;
            at += 1;
            let literals = self.length(&mut at, token >> 4)?;
            (literals > 0 && *self.bytes.get(at)? == 0).then_some(())
        };
        let plain = || {
            let mut rest = self.bytes.get(at..)?.strip_prefix(&[0])?;
            let tail_len = usize::try_from(varint(&mut rest)?).ok()?;
            varint(&mut rest)?;
            let tag = rest.get(tail_len.checked_sub(TAG)?..tail_len)?.first_chunk::<TAG>()?;
            let tag = Tag(u64::from_le_bytes(*tag));
            (tag.kind().is_some() || tag.0 & 0xff == u64::from(RANGE_DELETE)).then_some(())
        };
        packed().or_else(plain).is_some()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use crate::disk::{Disk, MemoryDisk};
    use crate::key::Kind;
    use crate::table::writer::TableWriter;

    /// A table without its footer of which every tenth block is bad; what it takes to walk over it for each
    /// of its bytes, and how many of its rows are found.
    fn walk_over(rows: u64, value: &dyn Fn(u64, u64) -> u8) -> (f64, f64) {
        let disk = MemoryDisk::new(1);
        let mut writer = TableWriter::new(disk.create("t").unwrap(), 1 << 10, 10);
        for i in 0..rows {
            let value: Vec<u8> = (0..40).map(|j| value(i, j)).collect();
            writer.add(format!("key {i:09}").as_bytes(), 1, Kind::Put, &value).unwrap();
        }
        let bounds = writer.finish().unwrap();
        let file = disk.open("t").unwrap();
        let shelf = Arc::new(Shelf::alone(0));
        let table = Table::open(1, bounds, file.clone(), shelf).unwrap();
        let mut bytes = read_all(file.as_ref()).unwrap();
        for i in (0..table.blocks().unwrap()).step_by(10) {
            let handle = table.handle(i).unwrap();
            bytes[(handle.offset + handle.size / 2) as usize] ^= 1;
        }
        let end = bytes.len() - FOOTER_BYTES;
        bytes[end..].fill(0);
        let walk = Walk::over(&bytes, &Frame::of(&bytes, bytes.len() as u64));
        let found = walk.blocks.len() as f64 / table.blocks().unwrap() as f64;
        (walk.spent as f64 / bytes.len() as f64, found)
    }

    #[test]
    fn a_table_without_a_footer_costs_in_proportion_to_its_size() {
        let noise = |i: u64, j: u64| crate::codec::scatter(i * 100 + j) as u8;
        let text = |i: u64, j: u64| b'a' + (i % 7 * j % 5) as u8;
        for value in [&noise as &dyn Fn(u64, u64) -> u8, &text] {
            for rows in [2_000, 8_000, 32_000] {
                let (spent, found) = walk_over(rows, value);
                assert!(found > 0.88, "{found} of the blocks of {rows} rows");
                assert!(spent < 40.0, "{spent} for each byte, with {rows} rows");
            }
        }
        // Numbers of which each high byte is small look like beginnings, and LZ4 does not shrink them.
        let numbers = |i: u64, j: u64| match j % 8 {
            6 | 7 => 0,
            at => (crate::codec::scatter(i * 100 + j / 8) >> (8 * at)) as u8,
        };
        for rows in [8_000, 64_000, 256_000] {
            let (spent, found) = walk_over(rows, &numbers);
            assert!(found > 0.88, "{found} of the blocks of {rows} rows of numbers");
            assert!(spent < 60.0, "{spent} for each byte, with {rows} rows of numbers");
        }
    }

    #[test]
    fn a_file_of_beginnings_is_given_up() {
        // Each is followed by entries up to the end of the file.
        let entry = [&[0, 8, 0][..], &Tag::new(1, Kind::Put).0.to_le_bytes()].concat();
        let bytes = entry.repeat(40_000);
        let walk = Walk::over(&bytes, &Frame::of(&bytes, bytes.len() as u64));
        assert!(walk.blocks.is_empty() && walk.spent < 300 * bytes.len() as u64, "{}", walk.spent);
    }
}
