//! The store: carries out the storage effects of one core's machine on its shard of the engine.
//!
//! Everything here is synchronous. What is applied is visible at once and leaves memory with the
//! next [`Store::commit`]; what cannot be read is never taken for absent.

use std::cmp::Ordering;

use bytes::Bytes;
use replication::fold;
use replication::listing::{Listed, Listings, Rows};
use replication::op::Span;
use replication::piece;
use replication::row::{self, Keyspace, Row};
use replication::{Records, RowChange};
use ring::Slot;
use storage::{Batch, Direction, Durability, Error, Folded, Merge, Shard, SyncHandle};

/// What merge operands mean: replication says so, the engine only calls.
#[derive(Clone, Copy, Debug)]
pub struct Folding;

impl Merge for Folding {
    fn full(
        &self,
        _key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Folded {
        match fold::fold(base, operands.iter().copied(), out) {
            fold::Folded::Record => Folded::Value,
            fold::Folded::Nothing => Folded::Deleted,
            fold::Folded::Unreadable => Folded::Carry,
        }
    }

    fn partial(&self, _key: &[u8], operands: &[&[u8]], out: &mut Vec<u8>) -> bool {
        fold::fold_partial(operands.iter().copied(), out)
    }
}

/// One core's part of the engine.
pub struct Store {
    shard: Shard,
    batch: Batch,
    listings: Listings,
    /// Bytes applied since they were last asked for.
    written: u64,
}

impl Store {
    /// The store over a shard.
    #[must_use]
    pub fn new(shard: Shard) -> Self {
        Self { shard, batch: Batch::new(), listings: Listings::default(), written: 0 }
    }

    pub(crate) const fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Says that these rows are about to be loaded or written.
    pub fn prefetch(&self, rows: &[&[u8]]) {
        self.shard.prefetch(rows);
    }

    /// Applies all changes or none; visible at once.
    ///
    /// # Errors
    /// What the engine says; nothing was applied.
    pub fn apply(&mut self, changes: &[RowChange]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        self.batch.clear();
        for change in changes {
            match change {
                RowChange::Merge { row, operand } => self.batch.merge(row, operand),
                RowChange::Put { row, value } => self.batch.put(row, value),
            }
        }
        self.written += self.batch.encoded_len() as u64;
        self.shard.apply(&self.batch, Durability::Buffered).map(|_| ())
    }

    /// Gives everything applied to the operating system, in one write.
    ///
    /// # Errors
    /// What the engine says; nothing applied since the last commit may be acknowledged.
    pub fn commit(&mut self) -> Result<(), Error> {
        self.shard.commit().map(|_| ())
    }

    /// Makes everything applied durable, and lets the log say so: for a clean end. Blocks for the disk.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn settle(&mut self) -> Result<(), Error> {
        self.shard.settle().map(|_| ())
    }

    /// The encoded records of rows, empty where there is none.
    ///
    /// # Errors
    /// What the engine says: the record of some row cannot be known.
    pub fn load(&self, rows: &[Row]) -> Result<Records, Error> {
        let mut records = Records::with_capacity(rows.len());
        self.shard.get_many(rows, |_, value| {
            records.push(value.map_or_else(Bytes::new, piece::copied));
        })?;
        Ok(records)
    }

    /// Lists rows in the order of SCAN.
    ///
    /// # Errors
    /// What the engine says.
    pub fn list(
        &mut self,
        keyspace: Keyspace,
        from: (Slot, u64),
        last: Slot,
        count: u32,
    ) -> Result<Listed, String> {
        self.listings.list(&Source(&self.shard), keyspace, from, last, count)
    }

    /// Rows of every keyspace of a slot from `from` on, about `bytes` of them; then where to go on,
    /// empty if that was all.
    ///
    /// # Errors
    /// What the engine says.
    pub fn read_rows(
        &self,
        slot: Slot,
        from: &[u8],
        bytes: u32,
    ) -> Result<(Vec<(Row, Bytes)>, Row), Error> {
        self.read_slots(slot, slot, from, bytes)
    }

    /// The same of all slots from `first` to `last`; between them come rows that are of no client keyspace.
    ///
    /// # Errors
    /// What the engine says.
    pub fn read_slots(
        &self,
        first: Slot,
        last: Slot,
        from: &[u8],
        bytes: u32,
    ) -> Result<(Vec<(Row, Bytes)>, Row), Error> {
        let (first, end) = (row::range_of_slot(first).0, row::range_of_slot(last).1);
        let start = if from.is_empty() { &first[..] } else { from };
        let mut scan = self.shard.scan(start, Some(&end), Direction::Forward, None)?;
        let (mut rows, mut sum) = (Vec::new(), 0);
        while let Some((key, value)) = scan.next_row()? {
            if sum >= bytes as usize {
                return Ok((rows, Bytes::copy_from_slice(key)));
            }
            sum += key.len() + value.len();
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(&value)));
        }
        Ok((rows, Row::new()))
    }

    /// Rows of a span in its order: at least one, and no more than its bounds. Then where the page
    /// ends, empty if that was all: the first row not read, or the last one read if it is reversed.
    ///
    /// # Errors
    /// What the engine says.
    pub fn read_span(&self, span: &Span) -> Result<(Vec<(Row, Bytes)>, Row), Error> {
        let mut rows: Vec<(Row, Bytes)> = Vec::new();
        if span.start >= span.end {
            return Ok((rows, Row::new()));
        }
        let direction = if span.reverse { Direction::Backward } else { Direction::Forward };
        let mut scan = self.shard.scan(&span.start, Some(&span.end), direction, None)?;
        let mut sum = 0;
        while let Some((key, value)) = scan.next_row()? {
            let is_full = rows.len() >= span.rows as usize || sum >= span.bytes as usize;
            if let Some((last, _)) = rows.last().filter(|_| is_full) {
                let cut = if span.reverse { last.clone() } else { Bytes::copy_from_slice(key) };
                return Ok((rows, cut));
            }
            sum += key.len() + value.len();
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(&value)));
        }
        Ok((rows, Row::new()))
    }

    /// Whether the memtable should become a table.
    #[must_use]
    pub fn wants_rotation(&self) -> bool {
        self.shard.wants_rotation()
    }

    /// Begins a new memtable and a new file of the log. Rows that carry what only the log told must
    /// have been applied and committed just before.
    pub fn rotate(&mut self) {
        self.shard.rotate();
    }

    /// As [`Store::rotate`], but the rows may be applied and committed bit by bit afterwards, before [`Store::release`].
    pub fn rotate_held(&mut self) {
        self.shard.rotate_held();
    }

    /// The rows that [`Store::rotate_held`] spoke of are committed: what the log told before it may go, once they are
    /// durable.
    pub fn release(&mut self) {
        self.shard.release();
    }

    /// A handle that makes durable, from any thread, what was committed.
    #[must_use]
    pub fn sync_handle(&self) -> SyncHandle {
        self.shard.sync_handle()
    }

    /// Bytes applied since this was last asked.
    pub fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }

    /// How far flushes and compactions are behind: 0 not at all, 1 as far as they may.
    #[must_use]
    pub fn debt(&self) -> f64 {
        self.shard.debt().worst()
    }

    /// Bytes in the memtable that takes the writes.
    #[must_use]
    pub fn memtable_bytes(&self) -> usize {
        self.shard.memtable_bytes()
    }
}

/// A shard as listings read it.
struct Source<'a>(&'a Shard);

impl Rows for Source<'_> {
    fn each(
        &self,
        slot: Slot,
        keyspace: Keyspace,
        f: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), String> {
        let (start, end) = row::range_of(slot, keyspace);
        let told = |e: Error| e.to_string();
        let mut scan = self.0.scan(&start, Some(&end), Direction::Forward, None).map_err(told)?;
        while let Some((key, value)) = scan.next_row().map_err(told)? {
            f(key, &value);
        }
        Ok(())
    }

    fn first_filled(&self, from: Slot, last: Slot, keyspace: Keyspace) -> Option<Slot> {
        let end = row::range_of(last, keyspace).1;
        let mut slot = from;
        while slot <= last {
            let start = row::range_of(slot, keyspace).0;
            let scan = self.0.scan(&start, Some(&end), Direction::Forward, None);
            let place = |key: &[u8]| row::slot_of(key).zip(row::keyspace_of(key));
            slot = match scan.and_then(|mut scan| Ok(scan.next_row()?.map(|(key, _)| place(key)))) {
                Ok(None) => return None,
                Ok(Some(Some((found, of)))) => match of.cmp(&keyspace) {
                    Ordering::Less => found,
                    Ordering::Equal => return Some(found),
                    Ordering::Greater => Slot(found.0 + 1),
                },
                Ok(Some(None)) | Err(_) => return Some(slot),
            };
        }
        None
    }

    fn get(&self, row: &[u8]) -> Result<Vec<u8>, String> {
        let copy = |value: Option<&[u8]>| value.map(<[u8]>::to_vec).unwrap_or_default();
        self.0.get_with(row, copy).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_first_filled_slot_is_the_first_of_which_rows_are_read() {
        let disk = Arc::new(storage::MemoryDisk::new(1));
        let options = storage::Options::small();
        let mut opened = crate::open(disk, options, 1).expect("an empty disk opens");
        let store = &mut opened.stores[0];
        let clock =
            |slot| RowChange::Put { row: row::of_clock(Slot(slot)), value: piece::copied(b"c") };
        let record = |slot, keyspace| {
            let mut row = row::of_key(keyspace, b"key").to_vec();
            row[..2].copy_from_slice(&Slot(slot).0.to_be_bytes());
            RowChange::Put { row: row.into(), value: piece::copied(b"r") }
        };
        // Slots without rows, with a clock alone, and with rows of lower and higher keyspaces; in
        // tables and in memory.
        let parts = [
            vec![record(2, 0), clock(2), clock(3), record(5, 1), record(5, 3), clock(5), clock(6)],
            vec![record(9, 0), record(9, 3), clock(9), record(10, 1), record(11, 3), clock(14)],
        ];
        for part in parts {
            store.apply(&part).expect("there is room");
            store.commit().expect("there is room");
            store.rotate();
            let job = opened.engine.next_job().expect("a memtable is full");
            job.run().expect("there is room");
        }
        store.apply(&[record(0, 3), record(13, 1), clock(13)]).expect("there is room");

        let source = Source(&store.shard);
        let mut filled = 0;
        for keyspace in 0..5 {
            let has_rows = |slot: &Slot| {
                let mut rows = 0;
                source.each(*slot, keyspace, &mut |_, _| rows += 1).expect("readable");
                rows > 0
            };
            for (from, last) in (0..16).flat_map(|from| (from..16).map(move |last| (from, last))) {
                let expected = (from..=last).map(Slot).find(has_rows);
                let found = source.first_filled(Slot(from), Slot(last), keyspace);
                assert_eq!(found, expected, "keyspace {keyspace} from {from} to {last}");
                filled += usize::from(found.is_some());
            }
        }
        assert!(filled > 100, "only {filled}");
    }
}
