//! Listings: what a walk over slots reads, and that slots without rows change nothing but its cost.

use std::cell::Cell;
use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ring::{SLOTS, Slot};
use ringdb_replication::listing::{Listed, Listings, Rows, WHOLE_SLOT_MAX};
use ringdb_replication::row::{self, Keyspace, Row};

/// Rows in memory, which count what is asked of them.
#[derive(Default)]
struct Counted {
    rows: BTreeMap<Row, Vec<u8>>,
    reads: Cell<usize>,
    looks: Cell<usize>,
}

impl Counted {
    fn put(&mut self, slot: Slot, keyspace: Keyspace, key: usize) {
        let mut row = row::of_key(keyspace, key.to_string().as_bytes()).to_vec();
        row[..2].copy_from_slice(&slot.0.to_be_bytes());
        self.rows.insert(row.into(), vec![1]);
    }

    fn clear(&mut self, slot: Slot, keyspace: Keyspace) {
        self.rows
            .retain(|r, _| (row::slot_of(r), row::keyspace_of(r)) != (Some(slot), Some(keyspace)));
    }

    fn holds(&self, slot: Slot, keyspace: Keyspace) -> bool {
        let (start, end) = row::range_of(slot, keyspace);
        self.rows.range(Row::from(start)..Row::from(end)).next().is_some()
    }
}

impl Rows for Counted {
    fn each(
        &self,
        slot: Slot,
        keyspace: Keyspace,
        f: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), String> {
        self.reads.set(self.reads.get() + 1);
        let (start, end) = row::range_of(slot, keyspace);
        for (row, record) in self.rows.range(Row::from(start)..Row::from(end)) {
            f(row, record);
        }
        Ok(())
    }

    fn first_filled(&self, from: Slot, last: Slot, keyspace: Keyspace) -> Option<Slot> {
        self.looks.set(self.looks.get() + 1);
        (from.0..=last.0).map(Slot).find(|slot| self.holds(*slot, keyspace))
    }

    fn get(&self, row: &[u8]) -> Result<Vec<u8>, String> {
        Ok(self.rows.get(row).cloned().unwrap_or_default())
    }
}

#[test]
fn a_walk_reads_few_of_the_slots_that_hold_nothing() {
    let mut source = Counted::default();
    for (key, slot) in [7, 8, 300, SLOTS - 1].into_iter().enumerate() {
        source.put(Slot(slot), 1, key);
    }
    for slot in 0..SLOTS {
        source.put(Slot(slot), 0, 0);
    }
    let walk = |keyspace, count| {
        let (from, last) = ((Slot(0), 0), Slot(SLOTS - 1));
        let listed = Listings::default().list(&source, keyspace, from, last, count).expect("rows");
        (listed.rows.len(), listed.next, source.reads.take(), source.looks.take())
    };
    let end = (u32::from(SLOTS), 0);
    // Each run of empty slots costs one read and one look.
    assert_eq!(walk(1, u32::MAX), (4, end, 4 + 3, 3));
    assert_eq!(walk(1, 3), (3, (301, 0), 3 + 2, 2));
    assert_eq!(walk(2, u32::MAX), (0, end, 1, 1));
    // Where none is empty, there is nothing to look for.
    assert_eq!(walk(0, u32::MAX), (usize::from(SLOTS), end, usize::from(SLOTS), 0));
}

#[test]
fn an_order_ends_with_a_walk_that_passes_over_its_slot() {
    let mut source = Counted::default();
    let mut listings = Listings::default();
    let large = Slot(5);
    (0..=WHOLE_SLOT_MAX).for_each(|key| source.put(large, 0, key));
    let cut = listings.list(&source, 0, (large, 0), large, 10).expect("rows").next;
    assert_eq!(cut.0, 5, "it is cut within the slot");
    source.clear(large, 0);
    let none = listings.list(&source, 0, (Slot(0), 0), Slot(9), 10).expect("rows");
    assert_eq!((none.rows.len(), none.next), (0, (10, 0)));
    // Of other keys than the order knew.
    (5_000..5_100).for_each(|key| source.put(large, 0, key));
    let listed = listings.list(&source, 0, (large, cut.1), large, u32::MAX).expect("rows");
    assert!(listed.rows.len() > 50, "{} of 100 keys", listed.rows.len());
}

/// A walk that reads every slot, whether it holds rows or not.
fn slot_by_slot(
    listings: &mut Listings,
    source: &Counted,
    keyspace: Keyspace,
    (from, from_hash): (Slot, u64),
    last: Slot,
    count: u32,
) -> Listed {
    let mut all = Listed::default();
    for slot in (from.0..=last.0).map(Slot) {
        let start = if slot == from { from_hash } else { 0 };
        let left = count - all.rows.len() as u32;
        let one = listings.list(source, keyspace, (slot, start), slot, left).expect("rows");
        all.rows.extend(one.rows);
        all.next = one.next;
        if all.rows.len() >= count as usize || one.next.0 == u32::from(slot.0) {
            break;
        }
    }
    all
}

#[test]
fn walks_that_pass_over_empty_slots_list_what_those_list_that_read_them() {
    const SLOTS_USED: u16 = 12;
    for seed in 0..12 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut source = Counted::default();
        let (mut passing, mut reading) = (Listings::default(), Listings::default());
        // Where earlier walks stopped, so that later ones go on there, whatever happened since.
        let mut stops = vec![(Slot(0), 0)];
        for step in 0..400 {
            let slot = Slot(rng.random_range(0..SLOTS_USED));
            let keyspace = rng.random_range(0..2);
            match rng.random_range(0..12) {
                0..=2 => source.put(slot, keyspace, rng.random_range(0..10_000)),
                3..=4 => source.clear(slot, keyspace),
                5 if slot.0.is_multiple_of(3) => {
                    (0..=WHOLE_SLOT_MAX).for_each(|key| source.put(slot, keyspace, key));
                }
                _ => {
                    let from = stops[rng.random_range(0..stops.len())];
                    let last = Slot(rng.random_range((from.0).0..SLOTS_USED));
                    let count = [1, 5, 700, u32::MAX][rng.random_range(0..4)];
                    let read = slot_by_slot(&mut reading, &source, keyspace, from, last, count);
                    let passed = passing.list(&source, keyspace, from, last, count).expect("rows");
                    assert_eq!(passed, read, "seed {seed}, step {step}: {from:?} to {last:?}");
                    let next = read.next;
                    if next.0 < u32::from(SLOTS_USED) {
                        stops.push((Slot(next.0 as u16), next.1));
                    }
                }
            }
        }
    }
}
