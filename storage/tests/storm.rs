//! Files of other hands and rotten ones, in a storm: an answer or a refusal, never a panic.
//!
//! With `RINGDB_FUZZ_FACTOR=100` there are a hundred times as many.

use crate::damage::build;
use crate::fixture::{Append, Chance, Rows, Store, external, options};
use ringdb_storage::{Disk, Error, MemoryDisk, OpenError, Options, read_table, repair};
use std::sync::Arc;

/// How many times the usual number is asked for.
pub(crate) fn factor() -> u64 {
    let factor = std::env::var("RINGDB_FUZZ_FACTOR").ok().and_then(|f| f.parse().ok());
    factor.unwrap_or(1)
}

fn rounds(usual: u64) -> u64 {
    usual * factor()
}

/// Flips, cuts, doubles and moves parts of a file.
fn maul(disk: &MemoryDisk, name: &str, chance: &mut Chance) {
    let file = disk.open(name).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    for _ in 0..=chance.below(4) {
        if bytes.is_empty() {
            break;
        }
        let len = bytes.len() as u64;
        let (a, b) = (chance.below(len) as usize, chance.below(len) as usize);
        let (a, b) = (a.min(b), a.max(b));
        match chance.below(6) {
            0 => bytes.truncate(a),
            1 => drop(bytes.drain(a..b)),
            2 => bytes.extend_from_within(a..b),
            3 => bytes[a..b].rotate_left((b - a) / 2),
            4 => bytes[a] = chance.next() as u8,
            _ => bytes[a] ^= 1 << chance.below(8),
        }
    }
    let file = disk.create(name).unwrap();
    file.write_at(&bytes, 0).unwrap();
}

#[test]
fn tables_of_other_hands_are_ingested_or_refused_in_a_storm() {
    let mut chance = Chance(1);
    let incoming: Rows =
        (0..50).map(|i| (format!("k{i:03}").into_bytes(), vec![b'v'; i])).collect();
    let (files, names) = external(incoming.iter().map(|(k, v)| (k, v)));
    for round in 0..rounds(400) {
        let mauled = files.fork(round);
        maul(&mauled, &names[0], &mut chance);
        let mut store = Store::open(&MemoryDisk::new(1), options(2)).unwrap();
        match store.engine.ingest(&mut store.shards, &mauled, &names) {
            Ok(ingested) => assert!(ingested.rows <= 50),
            Err(Error::Refused { .. } | Error::Io { .. }) => {}
            Err(e) => panic!("{e}"),
        }
        let disk: Arc<dyn Disk> = Arc::new(mauled);
        let mut rows = 0;
        // An error is an answer.
        let _ = read_table(&disk, &names[0], &mut |_| rows += 1);
        assert!(rows <= 50);
    }
}

#[test]
fn mauled_stores_with_large_values_are_read_refused_or_repaired_in_a_storm() {
    let mut chance = Chance(2);
    let (disk, _) = build(3, 8);
    let names: Vec<String> = disk.list().unwrap();
    for round in 0..rounds(300) {
        let mauled = disk.fork(round);
        for _ in 0..=chance.below(2) {
            maul(&mauled, &names[chance.below(names.len() as u64) as usize], &mut chance);
        }
        let tolerant = Options { tolerate_damage: true, ..options(1) };
        match Store::open(&mauled.fork(round), tolerant) {
            Ok(mut store) => {
                for i in 0..60 {
                    // An error is an answer.
                    let _ = store.get(format!("k{i:03}").as_bytes());
                }
            }
            Err(OpenError::Damaged { .. } | OpenError::Format { .. } | OpenError::Disk(_)) => {}
            Err(e) => panic!("{e}"),
        }
        let disk: Arc<dyn Disk> = Arc::new(mauled.clone());
        match repair(&disk, Arc::new(Append)) {
            Ok(mended) => {
                mauled.crash(ringdb_storage::Crash::ProcessKill);
                let store = Store::open(&mauled, options(1))
                    .unwrap_or_else(|e| panic!("round {round}: {e}, {mended:?}"));
                assert!(store.engine.damage().is_empty(), "{mended:?}");
            }
            Err(OpenError::Format { .. }) => {}
            Err(e) => panic!("round {round}: {e}"),
        }
    }
}
