//! Frames of the log that a client made and put into a value.
//!
//! Promise: a value is a value. What of it is left in the log when the power goes cannot be taken for a
//! write that somebody made, nor keep a store from opening, unless its author knew the stream's number;
//! and that nobody can guess.

use crate::fixture::{Store, options, put};
use ringdb_storage::{Crash, Disk, Durability, MemoryDisk, Options, Survival};

fn scatter(v: u64) -> u64 {
    let mut z = v.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn crc32(parts: [&[u8]; 2]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    let add = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !parts.into_iter().flatten().fold(!0, add)
}

/// A frame for place `at` of a segment, that says that all before it is durable and puts a row.
fn frame(stream: u64, segment: u64, at: u64) -> Vec<u8> {
    let payload = [&[1, 1, 5][..], b"admin", &[6], b"forged"].concat();
    let id = scatter(scatter(stream) ^ segment.rotate_left(32)) ^ at;
    let mut frame = (payload.len() as u32 | 1 << 31).to_le_bytes().to_vec();
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&((id ^ id >> 32) as u32).to_le_bytes());
    for number in [3, segment, at] {
        frame.extend_from_slice(&number.to_le_bytes());
    }
    frame.extend_from_slice(&payload);
    frame.resize(frame.len().next_multiple_of(4), 0);
    let crc = crc32([&frame[..4], &frame[8..]]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    frame
}

/// A value that stands at `start` of a segment, with a frame for each of `streams`, of which none is in
/// the value's first sectors.
fn value(start: u64, streams: &[u64]) -> Vec<u8> {
    let mut value = vec![b' '; 1100];
    for stream in streams {
        let at = (start + value.len() as u64).next_multiple_of(4);
        value.resize((at - start) as usize, b' ');
        value.extend_from_slice(&frame(*stream, 1, at));
    }
    value
}

/// Of a store that `disk` holds, and that gets a value with frames for `streams`: how many of the power
/// losses that break that write make a row of such a frame, and after how many the store does not open.
fn harm(disk: &MemoryDisk, streams: &dyn Fn(u64) -> Vec<u64>) -> (u32, u32) {
    let mut store = Store::open(disk, options(1)).unwrap();
    let before = disk.list().unwrap();
    store.shards[0].apply(&put(b"admin", b"honest"), Durability::Sync).unwrap();
    let mut names = disk.list().unwrap().into_iter().filter(|name| !before.contains(name));
    let name = names.find(|name| name.ends_with("-0000000001.log")).unwrap();
    let stream = name.split_once('-').unwrap().0.parse().unwrap();
    let end = disk.open(&name).unwrap().len().unwrap();
    // The frame of the value has a head of 36 bytes, then counts and the key.
    let value = value(end + 36 + 1 + 1 + 1 + 4 + 2, &streams(stream));
    store.shards[0].apply(&put(b"mine", &value), Durability::Os).unwrap();
    drop(store);
    let (mut forged, mut refused) = (0, 0);
    for seed in 0..200 {
        for tolerate_damage in [false, true] {
            let fork = disk.fork(seed);
            fork.crash(Crash::PowerLoss(Survival::Torn));
            match Store::open(&fork, Options { tolerate_damage, ..options(1) }) {
                Err(_) => refused += 1,
                Ok(mut store) => {
                    let found = store.get(b"admin").unwrap();
                    forged += u32::from(found.as_deref() != Some(b"honest"));
                }
            }
        }
    }
    (forged, refused)
}

#[test]
fn frames_in_a_value_prove_nothing_to_who_cannot_guess_the_stream() {
    // What a client may guess who knows how many runs there were.
    let guesses = |counter: u64| {
        let salted = |counter: u64| [0, 1, 2, u64::from(u32::MAX)].map(|low| counter << 32 | low);
        (1..10).chain(salted(counter)).chain(salted(counter + 1)).collect::<Vec<_>>()
    };
    for seed in 0..6 {
        let disk = MemoryDisk::new(seed);
        for run in 1..4 {
            assert_eq!(harm(&disk, &|_| guesses(run)), (0, 0), "seed {seed}, run {run}");
            disk.crash(Crash::PowerLoss(Survival::None));
        }
    }
}

#[test]
fn who_knows_the_stream_can_forge_so_the_test_would_see_it() {
    let (forged, refused) = harm(&MemoryDisk::new(1), &|stream| vec![stream]);
    assert!(forged > 10 && refused > 10, "{forged} forged, {refused} refused");
}
