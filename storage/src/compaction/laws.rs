//! What every choice keeps to, tried on random stores: no table is in two hands, levels never
//! overlap, what is newer stays above, and there is always an end.

use crate::compaction::around::{Around, Part};
use crate::compaction::choose::{Choice, Claim, Situation, Work, choose};
use crate::key::KeyRange;
use crate::limits::LEVELS;
use crate::options::Options;
use crate::table::{Table, TableBounds, TableCounts};
use crate::version::Version;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        crate::codec::scatter(self.0) % n
    }
}

/// A store of which only keys and sequences are kept; every row weighs ten bytes.
struct Toy {
    options: Options,
    version: Version,
    /// The rows of each table.
    rows: BTreeMap<u64, BTreeMap<u64, (u64, bool)>>,
    /// The newest change of each key: its sequence, and whether it is a deletion.
    newest: BTreeMap<u64, (u64, bool)>,
    next_table: u64,
    sequence: u64,
    running: Vec<(Choice, Claim)>,
    /// Of so many tables one cannot be read; 0: all can.
    broken_every: u64,
}

const ROW_BYTES: u64 = 10;

fn key(k: u64) -> Vec<u8> {
    format!("{k:04}").into_bytes()
}

impl Toy {
    fn new(chance: &mut Chance) -> Self {
        let options = Options {
            splits: [Vec::new(), vec![key(300)], vec![key(200), key(700)]]
                [chance.below(3) as usize]
                .clone(),
            level0_tables: 2 + chance.below(3) as usize,
            level1_bytes: 50 + chance.below(100),
            table_bytes: 100,
            memtable_bytes: 100,
            deletions_many: 8,
            ..Options::default()
        };
        let version = Version::new(Vec::new(), vec![0; options.shards()]);
        let (rows, newest, running) = Default::default();
        let (next_table, sequence, broken_every) = (1, 0, 0);
        Self { options, version, rows, newest, next_table, sequence, running, broken_every }
    }

    fn table(&mut self, rows: BTreeMap<u64, (u64, bool)>) -> Arc<Table> {
        let number = self.next_table;
        self.next_table += 1;
        let (first, _) = rows.first_key_value().expect("a table has rows");
        let (last, _) = rows.last_key_value().expect("a table has rows");
        let bounds = TableBounds {
            bytes: rows.len() as u64 * ROW_BYTES,
            smallest: key(*first),
            largest: key(*last),
            largest_excluded: false,
            last_sequence: rows.values().map(|(s, _)| *s).max().unwrap_or(0),
            blobs: Vec::new(),
            narrowed: None,
        };
        let deletions = rows.values().filter(|(_, deleted)| *deleted).count() as u64;
        let counts =
            TableCounts { entries: rows.len() as u64, deletions, ..TableCounts::default() };
        self.rows.insert(number, rows);
        Arc::new(if self.broken_every > 0 && number.is_multiple_of(self.broken_every) {
            Table::hollow_damaged(number, bounds, counts)
        } else {
            Table::hollow(number, bounds, counts)
        })
    }

    /// Writes and flushes some rows of one shard.
    fn flush(&mut self, chance: &mut Chance) {
        let from = chance.below(1000);
        let span = [1000, 200, 30][chance.below(3) as usize];
        let deleting = chance.below(6) == 0;
        let shard = self.options.shard_of(&key(from));
        let mut rows = BTreeMap::new();
        for _ in 0..1 + chance.below(20) {
            let k = (from + chance.below(span)).min(999);
            if self.options.shard_of(&key(k)) == shard {
                self.sequence += 1;
                rows.insert(k, (self.sequence, deleting || chance.below(5) == 0));
            }
        }
        if rows.is_empty() {
            return;
        }
        self.newest.extend(rows.iter().map(|(k, row)| (*k, *row)));
        let table = self.table(rows);
        self.version = self.version.edited(&[], vec![(0, table)], None);
    }

    /// `moved`: the place of a table of which large values are to be moved.
    fn begin(&mut self, free_bytes: Option<u64>, moved: Option<usize>) -> bool {
        let claims: Vec<Claim> = self.running.iter().map(|(_, claim)| claim.clone()).collect();
        let situation = Situation {
            version: &self.version,
            options: &self.options,
            claims: &claims,
            oldest_snapshots: &[],
            free_bytes,
        };
        let chosen = match moved.and_then(|moved| self.version.tables().nth(moved)) {
            Some((level, table)) => situation.relocated(level, table),
            None => choose(&situation),
        };
        let Some(choice) = chosen else { return false };
        let claim = choice.claim();
        for (_, other) in &self.running {
            let shared: Vec<_> = claim.tables.intersection(&other.tables).collect();
            assert!(shared.is_empty(), "tables {shared:?} in two hands");
        }
        if let (Some(free), Work::Merge) = (free_bytes, choice.work) {
            assert!(choice.bytes() <= free, "more is begun than there is room for");
        }
        self.running.push((choice, claim));
        true
    }

    /// Ends a choice as a compaction would: the newest row of each key, deletions only where
    /// something may lie below in the version of the choice, which is the one it began with.
    fn end(&mut self, i: usize, bottom: &BTreeMap<u64, bool>) {
        let (choice, claim) = self.running.swap_remove(i);
        let mut removed: Vec<u64> = claim.tables.iter().copied().collect();
        let mut added = Vec::new();
        match choice.work {
            Work::Drop => unreachable!("there are no range deletions here"),
            Work::Relocate => {
                let rows = self.rows[&choice.upper[0].number].clone();
                added.push((choice.level, self.table(rows)));
            }
            Work::Move => added.extend(choice.upper.iter().map(|t| (choice.level, t.clone()))),
            Work::Merge => {
                let around = Around::of(&choice);
                removed.retain(|n| !around.kept().iter().any(|kept| kept.table.number == *n));
                let all = vec![KeyRange { lower: Vec::new(), upper: None }];
                for part in around.parts(&choice, all, &self.options.splits) {
                    self.end_part(&choice, &part, bottom, &mut added);
                }
            }
        }
        self.version = self.version.edited(&removed, added, None);
        self.check();
    }

    fn end_part(
        &mut self,
        choice: &Choice,
        part: &Part,
        bottom: &BTreeMap<u64, bool>,
        added: &mut Vec<(usize, Arc<Table>)>,
    ) {
        let mut merged: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
        for table in choice.inputs().filter(|t| part.reads(t)) {
            let mine =
                self.rows[&table.number].iter().filter(|(k, _)| part.range.contains(&key(**k)));
            for (k, row) in mine {
                assert!(!table.is_broken(), "what is damaged is read");
                let newest = merged.entry(*k).or_default();
                *newest = (*newest).max(*row);
            }
        }
        merged.retain(|k, (_, deleted)| part.stays || !(*deleted && bottom[k]));
        let rows: Vec<_> = merged.into_iter().collect();
        let per_table = (self.options.table_bytes / ROW_BYTES) as usize;
        for rows in rows.chunks(per_table) {
            let table = self.table(rows.iter().copied().collect());
            added.push((if part.stays { choice.upper_level } else { choice.level }, table));
        }
    }

    /// Which keys of a choice have nothing below, as the job would see it when it begins.
    fn bottoms(&self, choice: &Choice) -> BTreeMap<u64, bool> {
        let keys: BTreeSet<u64> =
            choice.inputs().flat_map(|t| self.rows[&t.number].keys().copied()).collect();
        let reaches = |k: u64| {
            let after = [key(k), vec![0]].concat();
            self.version.reaches_below(choice.level + 1, &key(k), Some(&after))
        };
        keys.into_iter().map(|k| (k, !reaches(k))).collect()
    }

    fn check(&self) {
        for level in &self.version.levels[1..] {
            for pair in level.windows(2) {
                assert!(pair[0].is_below(&pair[1].bounds.smallest), "a level overlaps");
            }
        }
        for (k, (sequence, deleted)) in &self.newest {
            let name = key(*k);
            let found = (0..LEVELS).find_map(|level| {
                let mut tables = self.version.levels[level].iter().filter(|t| t.spans(&name));
                tables.find_map(|t| self.rows[&t.number].get(k))
            });
            match found {
                Some(row) => {
                    assert_eq!(row, &(*sequence, *deleted), "key {k}: an old row is on top");
                }
                None => assert!(*deleted, "key {k} is lost"),
            }
        }
    }
}

#[test]
fn any_number_of_choices_at_once_in_any_order_keeps_the_store_in_order() {
    try_choices(|_| 0);
}

#[test]
fn damage_keeps_its_place_among_what_is_newer_and_what_is_older() {
    try_choices(|seed| 3 + seed % 20);
}

/// `broken_every`: of how many tables one cannot be read, by seed.
fn try_choices(broken_every: impl Fn(u64) -> u64) {
    let (mut together, mut deepest) = (0, 0);
    for seed in 0..400 {
        let chance = &mut Chance(seed * 1_000_003);
        let mut toy = Toy::new(chance);
        toy.broken_every = broken_every(seed);
        let mut bottoms: Vec<BTreeMap<u64, bool>> = Vec::new();
        for _ in 0..150 {
            match chance.below(10) {
                0..4 => toy.flush(chance),
                4..8 => {
                    let free = (chance.below(4) == 0).then(|| chance.below(3000));
                    let moved = (chance.below(4) == 0).then(|| chance.below(20) as usize);
                    if toy.begin(free, moved) {
                        let (choice, _) = toy.running.last().expect("just begun");
                        bottoms.push(toy.bottoms(choice));
                        together = together.max(toy.running.len());
                    }
                }
                _ if !toy.running.is_empty() => {
                    let i = chance.below(toy.running.len() as u64) as usize;
                    let bottom = bottoms.swap_remove(i);
                    toy.end(i, &bottom);
                }
                _ => {}
            }
        }
        // Nothing is written any more: it comes to rest, with every level as large as it may be.
        let mut steps = 0;
        loop {
            while toy.begin(None, None) {
                let (choice, _) = toy.running.last().expect("just begun");
                bottoms.push(toy.bottoms(choice));
            }
            if toy.running.is_empty() {
                break;
            }
            let i = chance.below(toy.running.len() as u64) as usize;
            let bottom = bottoms.swap_remove(i);
            toy.end(i, &bottom);
            steps += 1;
            assert!(steps < 2000, "seed {seed}: no end");
        }
        let used = toy.version.levels.iter().filter(|tables| !tables.is_empty()).count();
        deepest = deepest.max(used);
        if toy.broken_every > 0 {
            continue;
        }
        let bytes = |level| toy.version.level_bytes(level);
        let (last, above) = (bytes(LEVELS - 1), (1..LEVELS - 1).map(bytes).sum::<u64>());
        assert!(
            above * 9 <= last + 9 * toy.options.table_bytes,
            "seed {seed}: {above} over {last}"
        );
    }
    assert!(together >= 3 && deepest >= 3, "{together} at once, {deepest} levels: too tame");
}
