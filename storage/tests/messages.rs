//! What a store says when it cannot be opened: which file, which keys, and what to do.

use crate::faulty::Faulty;
use crate::fixture::{Store, options, put};
use ringdb_storage::{
    Crash, Damage, Disk, Durability, Error, MemoryDisk, OpenError, Options, Place, Survival,
};
use std::sync::Arc;

fn of(place: Place, lower: &[u8], upper: Option<&[u8]>) -> Damage {
    Damage { place, lower: lower.into(), upper: upper.map(Into::into) }
}

#[test]
fn damage_is_told_with_its_place_its_keys_and_what_to_do() {
    let log = |last| Place::Log { stream: 3, segment: 2, offset: 640, first: 77, last };
    let table = Place::Table { number: 9, offset: Some(512) };
    let all = [
        (of(log(u64::MAX), b"", None), "sequences from 77 on (any key)"),
        (of(log(80), b"a", None), "sequences 77 to 80 (keys from \"a\" on)"),
        (
            of(log(77), b"\xff\"", Some(b"b")),
            "sequence 77 (keys from \"\\xff\\\"\" to before \"b\")",
        ),
        (of(table, b"a", Some(b"a\0")), "table 9 damaged at offset 512 (key \"a\")"),
    ];
    for (damage, told) in all {
        let error = OpenError::Damaged { damage: vec![damage] };
        let text = error.to_string();
        assert!(text.contains(told), "{text}");
        assert!(text.contains("tolerate_damage") && text.contains("`repair`"), "{text}");
        let reason = error.reason().to_string();
        assert!(text.starts_with(reason.split(" (").next().unwrap()), "{reason}");
        assert!(!reason.contains("repair") && !reason.contains("key"), "{reason}");
    }
}

#[test]
fn a_file_that_is_refused_is_named() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    for i in 0..40 {
        let key = format!("k{i:03}");
        store.shards[0].apply(&put(key.as_bytes(), &[7; 60]), Durability::Sync).unwrap();
        if i == 20 {
            store.shards[0].rotate();
            store.run_jobs().unwrap();
        }
    }
    drop(store);
    disk.crash(Crash::PowerLoss(Survival::All));
    let mut told = 0;
    for name in disk.list().unwrap() {
        let faulty = Faulty::new(&disk.fork(1));
        faulty.scratch(&name, 0..u64::MAX);
        let Err(error) = Store::open_on(Arc::new(faulty), options(1)) else { continue };
        let text = error.to_string();
        assert!(text.contains(&name), "{name}: {text}");
        assert!(matches!(error, OpenError::Disk(Error::Io { .. })), "{name}: {error:?}");
        assert!(text.contains("tolerate_damage") && text.contains("`repair`"), "{text}");
        told += 1;
    }
    assert!(told >= 4, "only {told}: FORMAT, CURRENT, a manifest, tables, logs");
}

#[test]
fn what_else_keeps_a_store_from_being_opened_says_what_to_do() {
    let disk = MemoryDisk::new(2);
    let full = OpenError::Disk(Error::NoSpace).to_string();
    assert_eq!(full, "no space left on the disk; make room and open it again");
    let _held = Store::open(&disk, options(1)).unwrap();
    let locked = Store::open(&disk, options(1)).err().unwrap().to_string();
    assert_eq!(locked, "the data directory is open in another process; close it there");
    let bad = Store::open(&disk, Options { parts_max: 0, ..options(1) }).err().unwrap();
    assert_eq!(bad.to_string(), "bad options: parts_max must be between 1 and 64");
}
