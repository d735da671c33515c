//! Crashes while the store recovers from a crash, and while it recovers from that one.
//!
//! Promise: a start that is cut off at any of its syncs, once or twice, takes nothing that was
//! promised, and what a start has shown is there at the next one.

use crate::crash::{FATES, Ledger, evenly, small, violation, work};
use crate::fixture::{Chance, Rows, Store, all_rows, options};
use crate::storm::factor;
use ringdb_storage::{Crash, MemoryDisk, Options, Survival};

/// What the disk was made to go through.
#[derive(Debug, Clone)]
struct Past {
    seed: u64,
    /// The sync at which the machine stopped, and then those of the starts at which it did.
    stops: Vec<u64>,
    fates: Vec<Crash>,
}

/// A store at work goes down at sync `number`, in every way, and every start after it at each of its
/// syncs, in every way. How many pasts were tried, what was wrong, and whether the work ended before.
fn crash_again_from(
    number: u64,
    seed: u64,
    options: &Options,
    wrong: &mut Vec<String>,
) -> (u64, bool) {
    let disk = MemoryDisk::new(seed);
    disk.power_fails_at_sync(number);
    let mut ledger = Ledger::default();
    work(&disk, options.clone(), seed, evenly, &mut ledger);
    let mut tried = 0;
    for (i, fate) in FATES.into_iter().enumerate() {
        let down = disk.fork(seed * 1000 + number * 10 + i as u64);
        down.crash(fate);
        let past = Past { seed, stops: vec![number], fates: vec![fate] };
        tried += stop_each_start(&down, &past, &ledger, 2, wrong);
    }
    (tried, !disk.power_is_off())
}

/// Stops the start of the store on `disk` at each of its syncs, and, while `deeper`, the start after
/// that at one of its own.
fn stop_each_start(
    disk: &MemoryDisk,
    past: &Past,
    ledger: &Ledger,
    deeper: u32,
    wrong: &mut Vec<String>,
) -> u64 {
    let mut chance = Chance(past.seed ^ past.stops.iter().sum::<u64>());
    let (mut tried, mut stop) = (0, 0);
    loop {
        let fate = FATES[chance.below(FATES.len() as u64) as usize];
        let fork = disk.fork(chance.next());
        let shards = 1 + chance.below(2) as usize;
        let shown = stopped_start(&fork, stop, shards);
        let over = shown.is_some();
        fork.crash(fate);
        let mut past = past.clone();
        past.stops.push(stop);
        past.fates.push(fate);
        tried += 1;
        if deeper > 1 {
            tried += stop_each_start(&fork, &past, ledger, deeper - 1, wrong);
        }
        // As long as nobody but the process died, what was written counts.
        let killed = past.fates.iter().all(|fate| *fate == Crash::ProcessKill);
        let worst = if killed { Crash::ProcessKill } else { Crash::PowerLoss(Survival::None) };
        let after = fork.fork(chance.next());
        if let Some(v) = violation(&after, ledger, worst, shards, &[]) {
            wrong.push(format!("{past:?}: {v}"));
        }
        if let Some(shown) = shown
            && Store::open(&fork, options(3 - shards)).map(|store| all_rows(&store)).ok()
                != Some(shown)
        {
            wrong.push(format!("{past:?}: a start showed something else"));
        }
        if over {
            return tried;
        }
        stop += 1;
    }
}

/// Starts the store on a machine that stops at the sync with number `stop`; what it shows if it
/// comes that far.
fn stopped_start(disk: &MemoryDisk, stop: u64, shards: usize) -> Option<Rows> {
    disk.power_fails_at_sync(disk.syncs() + stop);
    Store::open(disk, options(shards)).ok().map(|store| all_rows(&store))
}

#[test]
fn what_was_promised_survives_crashes_of_the_start_after_a_crash_in_a_storm() {
    let (seeds, stride) = if factor() > 1 { (6, 3) } else { (2, 31) };
    let (mut tried, mut wrong) = (0, Vec::new());
    for seed in 0..seeds {
        for number in (seed..).step_by(stride) {
            let (more, over) = crash_again_from(number, seed, &small(vec![]), &mut wrong);
            tried += more;
            assert!(wrong.is_empty(), "{} of {tried}: {:#?}", wrong.len(), &wrong[..1]);
            if over {
                break;
            }
        }
    }
    assert!(tried > 500, "only {tried} starts");
}
