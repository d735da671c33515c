//! What every choice keeps to, tried on random stores: no table is in two hands, levels never
//! overlap, what is newer stays above, and there is always an end.

use crate::compaction::around::{Around, Part};
use crate::compaction::choose::{Choice, Claim, Situation, TABLES_MAX, Work, choose};
use crate::compaction::place;
use crate::key::KeyRange;
use crate::limits::LEVELS;
use crate::options::{Options, PlantedBug};
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
    coming: Vec<Coming>,
    /// Its tables speak of few keys each: many of level 0 that do not meet are merged at once.
    narrow: bool,
    /// How many tables came into deeper levels than 0 beside others.
    deep: usize,
    /// Of so many tables one cannot be read; 0: all can.
    broken_every: u64,
}

/// Tables that are about to be ingested.
struct Coming {
    /// With their levels.
    tables: Vec<(usize, Arc<Table>)>,
    claims: Vec<Claim>,
    shards: BTreeSet<usize>,
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
        let (rows, newest, running, coming) = Default::default();
        let (next_table, sequence, deep, broken_every) = (1, 0, 0, 0);
        Self {
            options,
            version,
            rows,
            newest,
            next_table,
            sequence,
            running,
            coming,
            narrow: false,
            deep,
            broken_every,
        }
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
        let span = if self.narrow { 4 } else { [1000, 200, 30][chance.below(3) as usize] };
        let deleting = chance.below(6) == 0;
        let shard = self.options.shard_of(&key(from));
        if self.coming.iter().any(|coming| coming.shards.contains(&shard)) {
            return;
        }
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

    fn claims(&self) -> Vec<Claim> {
        let running = self.running.iter().map(|(_, claim)| claim);
        running.chain(self.coming.iter().flat_map(|coming| &coming.claims)).cloned().collect()
    }

    /// Writes tables of rows of one shard, or of two that are no neighbours, newer than all in it, and
    /// finds places for them.
    fn ingest(&mut self, chance: &mut Chance) {
        let any = chance.below(self.options.shards() as u64) as usize;
        let shards: BTreeSet<usize> =
            if chance.below(3) == 0 { [0, any & 2].into() } else { [any].into() };
        if self.coming.iter().any(|coming| !coming.shards.is_disjoint(&shards)) {
            return;
        }
        let (from, step) = (chance.below(1000), 1 + chance.below(30));
        self.sequence += 1;
        let keys = (0..1 + chance.below(40)).map(|i| from + i * step).filter(|k| *k < 1000);
        let mine = keys.filter(|k| shards.contains(&self.options.shard_of(&key(*k))));
        let rows: Vec<_> = mine.map(|k| (k, (self.sequence, chance.below(5) == 0))).collect();
        let mut tables = Vec::new();
        for rows in rows.chunks(1 + chance.below(10) as usize) {
            tables.push(self.table(rows.iter().copied().collect()));
        }
        let bounds: Vec<(u64, TableBounds)> =
            tables.iter().map(|t| (t.number, t.bounds.clone())).collect();
        let levels = place::places(&self.version, &self.options, &self.claims(), &bounds);
        let claims = place::claims(&bounds, &levels);
        let tables = tables.into_iter().map(|t| (levels[&t.number], t)).collect();
        self.coming.push(Coming { tables, claims, shards });
    }

    fn end_ingest(&mut self, i: usize) {
        let coming = self.coming.swap_remove(i);
        for (level, table) in &coming.tables {
            self.newest.extend(self.rows[&table.number].iter().map(|(k, row)| (*k, *row)));
            self.deep += usize::from(*level > 0 && self.version.tables().next().is_some());
        }
        self.version = self.version.edited(&[], coming.tables, None);
        self.check();
    }

    /// `moved`: the place of a table of which large values are to be moved.
    fn begin(&mut self, free_bytes: Option<u64>, moved: Option<usize>) -> bool {
        let claims = self.claims();
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
    try_choices(|_| 0, &[]);
}

#[test]
fn damage_keeps_its_place_among_what_is_newer_and_what_is_older() {
    try_choices(|seed| 3 + seed % 20, &[]);
}

#[test]
fn tables_that_come_below_what_is_older_or_beside_what_somebody_writes_are_caught() {
    for bug in [PlantedBug::IngestPastLevel0, PlantedBug::IngestPastJobs] {
        let caught = std::panic::catch_unwind(|| try_choices(|_| 0, &[bug]));
        assert!(caught.is_err(), "{bug:?}");
    }
}

/// `broken_every`: of how many tables one cannot be read, by seed.
fn try_choices(broken_every: impl Fn(u64) -> u64, planted: &[PlantedBug]) {
    let (mut together, mut deepest, mut deep) = (0, 0, 0);
    for seed in 0..400 {
        let chance = &mut Chance(seed * 1_000_003);
        let mut toy = Toy::new(chance);
        toy.broken_every = broken_every(seed);
        toy.options.planted_bugs = planted.to_vec();
        toy.narrow = seed % 4 == 0;
        let mut bottoms: Vec<BTreeMap<u64, bool>> = Vec::new();
        for _ in 0..150 {
            match chance.below(12) {
                0..4 => toy.flush(chance),
                10 => toy.ingest(chance),
                11 if !toy.coming.is_empty() => {
                    let i = chance.below(toy.coming.len() as u64) as usize;
                    toy.end_ingest(i);
                }
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
        while !toy.coming.is_empty() {
            toy.end_ingest(0);
        }
        deep += toy.deep;
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
    assert!(deep >= 400, "only {deep} ingested tables came deep");
}

/// As an ingest that nothing below has room for leaves it, or writers who go through the keys in order.
#[test]
fn hundreds_of_tables_that_do_not_meet_are_merged_in_pieces_of_a_size() {
    for (seed, (below, per_shard)) in (0..).zip([(0, 1), (40, 1), (200, 1), (40, 2)]) {
        let chance = &mut Chance(seed);
        let mut toy = Toy::new(chance);
        (toy.options.splits, toy.options.level1_bytes) = (vec![key(500)], 100_000);
        let put = |toy: &mut Toy, level: usize, keys: std::ops::Range<u64>| {
            toy.sequence += 1;
            let rows: BTreeMap<_, _> = keys.map(|k| (k, (toy.sequence, false))).collect();
            toy.newest.extend(rows.iter().map(|(k, row)| (*k, *row)));
            let table = toy.table(rows);
            toy.version = toy.version.edited(&[], vec![(level, table)], None);
        };
        (0..below).for_each(|i| put(&mut toy, LEVELS - 1, i * 5..i * 5 + 5));
        (0..300).for_each(|i| put(&mut toy, 0, i * 3..i * 3 + per_shard));
        let (mut together, mut choices) = (0, 0);
        while {
            while toy.begin(None, None) {
                choices += 1;
            }
            !toy.running.is_empty()
        } {
            together = together.max(toy.running.len());
            for (choice, _) in &toy.running {
                let (bytes, bound) = (choice.bytes(), TABLES_MAX * toy.options.table_bytes);
                assert!(bytes <= bound, "seed {seed}: {bytes} at once");
                assert!(choice.upper.len() > 1, "seed {seed}: one by one");
            }
            let i = chance.below(toy.running.len() as u64) as usize;
            let bottom = toy.bottoms(&toy.running[i].0);
            toy.end(i, &bottom);
        }
        let left = toy.version.levels[0].len();
        assert!(left < 2 * 4 * toy.options.level0_tables, "seed {seed}: {left} are left");
        assert!(together > 1 && choices < 30, "seed {seed}: {together} at once, {choices} in all");
    }
}
