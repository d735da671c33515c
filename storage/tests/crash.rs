//! A crash at every sync point, with every fate of what was not synced.
//!
//! Promise: what was acknowledged as durable is there afterwards, what was never written is not.

use crate::fixture::{Chance, Store, all_rows, external, options};
use ringdb_storage::{Batch, Crash, Durability, MemoryDisk, Options, PlantedBug, Survival};
use std::collections::BTreeMap;

/// What may be found under a key: acknowledged states, newest last, from the last one that must
/// have survived on.
pub(crate) type Allowed = BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>>;

#[derive(Default)]
pub(crate) struct Ledger {
    /// All states each key went through.
    pub(crate) states: Allowed,
    /// Of each key, how many states a power loss or a process kill may not undo.
    pub(crate) synced: BTreeMap<Vec<u8>, usize>,
    pub(crate) written: BTreeMap<Vec<u8>, usize>,
}

impl Ledger {
    pub(crate) fn note(&mut self, key: &[u8], value: Option<Vec<u8>>) {
        self.states.entry(key.to_vec()).or_insert_with(|| vec![None]).push(value);
    }
    fn latest(&self) -> BTreeMap<Vec<u8>, usize> {
        self.states.iter().map(|(key, states)| (key.clone(), states.len() - 1)).collect()
    }
}

/// How durable each batch is to be.
pub(crate) type Promise = fn(&mut Chance) -> Durability;

pub(crate) fn evenly(chance: &mut Chance) -> Durability {
    [Durability::Buffered, Durability::Os, Durability::Sync][chance.below(3) as usize]
}

fn seldom_synced(chance: &mut Chance) -> Durability {
    match chance.below(24) {
        0 => Durability::Sync,
        1..4 => Durability::Buffered,
        _ => Durability::Os,
    }
}

/// Works on the store until the power fails or the work is done; the ledger says what was promised.
pub(crate) fn work(
    disk: &MemoryDisk,
    options: Options,
    seed: u64,
    promise: Promise,
    ledger: &mut Ledger,
) {
    let mut chance = Chance(seed);
    let mut other_chance = Chance(seed ^ 0xf11e5);
    let ingests = options.large_value_bytes < usize::MAX;
    let Ok(mut store) = Store::open(disk, options) else { return };
    for step in 0..120u32 {
        let key = chance.key(20);
        let mut batch = Batch::new();
        let old = ledger.states.get(&key).and_then(|s| s.last().cloned()).flatten();
        let new = match chance.below(10) {
            0..5 => Some(format!("{step}:{}", "v".repeat(chance.below(90) as usize)).into_bytes()),
            5..8 => Some([old.unwrap_or_default(), format!("+{step}").into_bytes()].concat()),
            _ => None,
        };
        match (&new, chance.below(2)) {
            (Some(new), _) if new.ends_with(format!("+{step}").as_bytes()) => {
                batch.merge(&key, format!("+{step}").as_bytes());
            }
            (Some(new), _) => batch.put(&key, new),
            (None, 0) => batch.delete(&key),
            (None, _) => batch.delete_range(&key, &[&key[..], b"\0"].concat()),
        }
        // Noted before it is tried: from here on it may survive.
        ledger.note(&key, new);
        let durability = promise(&mut chance);
        let shard = store.shard(&key);
        if shard.apply(&batch, durability).is_err() {
            return;
        }
        match durability {
            Durability::Buffered => {}
            // Other shards' buffers are not written by this commit.
            Durability::Os => drop(ledger.written.insert(key.clone(), ledger.latest()[&key])),
            Durability::Sync => {
                ledger.written.insert(key.clone(), ledger.latest()[&key]);
                ledger.synced.insert(key.clone(), ledger.latest()[&key]);
            }
        }
        if shard.wants_rotation() || chance.below(12) == 0 {
            shard.rotate();
        }
        let worked = match chance.below(8) {
            0 => store.run_jobs(),
            1 => store.some_jobs(&mut chance),
            _ => Ok(()),
        };
        if worked.is_err() {
            return;
        }
        if ingests && other_chance.below(15) == 0 {
            let rows: BTreeMap<Vec<u8>, Vec<u8>> = (0..3)
                .map(|_| {
                    let value = format!("{step} ingested {}", "i".repeat(30));
                    (other_chance.key(20), value.into_bytes())
                })
                .collect();
            rows.iter().for_each(|(key, value)| ledger.note(key, Some(value.clone())));
            let (files, names) = external(rows.iter());
            if store.engine.ingest(&mut store.shards, &files, &names).is_err() {
                return;
            }
            // It brings everything before it into tables.
            ledger.written = ledger.latest();
            ledger.synced = ledger.latest();
        }
    }
}

pub(crate) fn small(bugs: Vec<PlantedBug>) -> Options {
    Options {
        memtable_bytes: 1 << 10,
        log_segment_bytes: 700,
        log_retain_bytes: 1 << 10,
        // Tables of a few rows: several levels, jobs in parts, and a manifest that is written anew.
        table_bytes: 300,
        level1_bytes: 180,
        manifest_bytes: 600,
        planted_bugs: bugs,
        ..options(2)
    }
}

/// What is wrong with the store after the crash, if anything.
pub(crate) fn violation(
    disk: &MemoryDisk,
    ledger: &Ledger,
    crash: Crash,
    shards: usize,
    bugs: &[PlantedBug],
) -> Option<String> {
    let with = |shards| Options { planted_bugs: bugs.to_vec(), ..options(shards) };
    let mut store = match Store::open(disk, with(shards)) {
        Ok(store) => store,
        Err(e) => return Some(format!("does not open: {e}")),
    };
    let promised = match crash {
        Crash::ProcessKill => &ledger.written,
        Crash::PowerLoss(_) => &ledger.synced,
    };
    for i in 0..20 {
        let key = format!("k{i:03}").into_bytes();
        let found = match store.get(&key) {
            Ok(found) => found,
            Err(e) => return Some(format!("key {i} cannot be read: {e}")),
        };
        let nothing = vec![None];
        let states = ledger.states.get(&key).unwrap_or(&nothing);
        let from = promised.get(&key).copied().unwrap_or(0);
        if !states[from..].contains(&found) {
            let text = found.map(|f| String::from_utf8_lossy(&f).into_owned());
            let all = states.iter().map(|s| s.as_deref().map(String::from_utf8_lossy));
            let all: Vec<_> = all.collect();
            return Some(format!("key {i} is {text:?}, promised from {from} on of {all:?}"));
        }
    }
    // The store goes on working, and its next start finds the same.
    let rows: Vec<_> = all_rows(&store);
    drop(store);
    disk.crash(Crash::PowerLoss(Survival::None));
    let again = match Store::open(disk, with(3 - shards)) {
        Ok(again) => again,
        Err(e) => return Some(format!("second start: {e}")),
    };
    (all_rows(&again) != rows).then(|| "the second start shows something else".to_owned())
}

pub(crate) const FATES: [Crash; 5] = [
    Crash::ProcessKill,
    Crash::PowerLoss(Survival::None),
    Crash::PowerLoss(Survival::All),
    Crash::PowerLoss(Survival::Subset),
    Crash::PowerLoss(Survival::Torn),
];

/// Crashes at sync `number` in every way; the violations found, and whether the work ended before.
fn crash_at(number: u64, seed: u64, bugs: &[PlantedBug]) -> (Vec<String>, bool) {
    crash_with(&small(bugs.to_vec()), &MemoryDisk::new(seed), evenly, number, seed)
}

/// With a log that is written through windows, of segments that hold some frames; also how many frames
/// were.
fn crash_with_windows_at(
    number: u64,
    seed: u64,
    bugs: &[PlantedBug],
) -> ((Vec<String>, bool), u64) {
    let options = Options { log_segment_bytes: 3000, ..small(bugs.to_vec()) };
    let disk = MemoryDisk::new(seed);
    disk.open_windows();
    (crash_with(&options, &disk, seldom_synced, number, seed), disk.window_writes())
}

/// With large values beside the tables, and files that are ingested.
fn crash_with_files_at(number: u64, seed: u64, bugs: &[PlantedBug]) -> (Vec<String>, bool) {
    let options = Options { large_value_bytes: 40, blob_file_bytes: 400, ..small(bugs.to_vec()) };
    crash_with(&options, &MemoryDisk::new(seed), evenly, number, seed)
}

fn crash_with(
    options: &Options,
    disk: &MemoryDisk,
    promise: Promise,
    number: u64,
    seed: u64,
) -> (Vec<String>, bool) {
    disk.power_fails_at_sync(number);
    let mut ledger = Ledger::default();
    work(disk, options.clone(), seed, promise, &mut ledger);
    let over = !disk.power_is_off();
    let mut violations = Vec::new();
    for (i, fate) in FATES.into_iter().enumerate() {
        let fork = disk.fork(seed * 1000 + number * 10 + i as u64);
        fork.crash(fate);
        let shards = 1 + (number as usize + i) % 2;
        if let Some(v) = violation(&fork, &ledger, fate, shards, &options.planted_bugs) {
            violations.push(format!("seed {seed}, sync {number}, {fate:?}: {v}"));
        }
    }
    (violations, over)
}

#[test]
fn what_was_promised_survives_a_crash_at_every_sync_point() {
    let mut points = 0;
    for seed in (0..16).chain([1036]) {
        for number in 0.. {
            let (violations, over) = crash_at(number, seed, &[]);
            assert!(violations.is_empty(), "{violations:#?}");
            points += 1;
            if over {
                break;
            }
        }
    }
    assert!(points > 200, "only {points} crash points");
}

#[test]
fn a_log_written_through_windows_survives_a_crash_at_every_sync_point() {
    let (mut points, mut through_windows) = (0, 0);
    for seed in [200, 203, 205] {
        for number in 0.. {
            let ((violations, over), frames) = crash_with_windows_at(number, seed, &[]);
            assert!(violations.is_empty(), "{violations:#?}");
            points += 1;
            through_windows += frames;
            if over {
                break;
            }
        }
    }
    assert!(points > 200, "only {points} crash points");
    assert!(through_windows > 8 * points, "{through_windows} frames at {points} crash points");
}

#[test]
fn a_missing_fsync_of_what_went_through_windows_is_caught() {
    let bug = [PlantedBug::MissingFsync];
    let mut tries = (200..203).flat_map(|seed| (0..90).map(move |number| (seed, number)));
    let caught =
        tries.any(|(seed, number)| !crash_with_windows_at(number, seed, &bug).0.0.is_empty());
    assert!(caught);
}

#[test]
fn a_missing_fsync_is_caught() {
    let caught = (0..3).any(|seed| {
        (0..60).any(|number| !crash_at(number, seed, &[PlantedBug::MissingFsync]).0.is_empty())
    });
    assert!(caught);
}

#[test]
fn frames_of_a_file_s_former_life_are_caught_when_they_are_believed() {
    let caught = (0..200).any(|seed| {
        (0..60).any(|number| !crash_at(number, seed, &[PlantedBug::OneSegmentId]).0.is_empty())
    });
    assert!(caught);
}

#[test]
fn large_values_and_ingested_files_survive_a_crash_at_every_sync_point() {
    let mut points = 0;
    for seed in 100..116 {
        for number in 0.. {
            let (violations, over) = crash_with_files_at(number, seed, &[]);
            assert!(violations.is_empty(), "{violations:#?}");
            points += 1;
            if over {
                break;
            }
        }
    }
    assert!(points > 800, "only {points} crash points");
}

#[test]
fn a_blob_file_that_goes_too_early_is_caught() {
    let bug = [PlantedBug::BlobRemovedEarly];
    let caught = (100..104)
        .any(|seed| (0..120).any(|number| !crash_with_files_at(number, seed, &bug).0.is_empty()));
    assert!(caught);
}
