//! Storms: seeded mutations of good files through the targets that a fuzzer shares.
//!
//! A failure prints its round; the same round makes the same bytes on every machine. With
//! `RINGDB_FUZZ_FACTOR=100` there are a hundred times as many. Behind each storm the memory that
//! the process ever held is looked at: a length that was believed would show.

mod forged;
mod targets;

use crate::fixture::Chance;
use targets::File;

/// More than the tests of this binary hold at a time, less than what a believed length asks for.
const GROWTH_KIB_MAX: u64 = 512 << 10;

/// A good file, damaged in a few places.
fn mutant(chance: &mut Chance, good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=chance.below(5) {
        if bytes.is_empty() {
            break;
        }
        let below = |chance: &mut Chance, n: usize| chance.below(n as u64) as usize;
        let at = below(chance, bytes.len());
        match chance.below(9) {
            0 | 1 => bytes[at] ^= 1 << chance.below(8),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, 0x0f][below(chance, 6)],
            3 => bytes.insert(at, [0, 1, 0x7f, 0x80, 0xff, 0x0f][below(chance, 6)]),
            4 => drop(bytes.remove(at)),
            5 => bytes.truncate(at),
            6 => {
                // A number as somebody malicious would choose it.
                let number = [u64::MAX, 0, 1 << 63, u64::from(u32::MAX), 96 << 20, 1 << 56]
                    [below(chance, 6)];
                let width = [1, 4, 8][below(chance, 3)];
                let end = (at + width).min(bytes.len());
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
            7 => {
                // The largest varint, in place of one byte.
                let largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
                targets::splice_into_frame(&mut bytes, at, &largest);
            }
            _ => {
                let end = at + below(chance, bytes.len() - at);
                let piece = bytes[at..end].to_vec();
                let to = below(chance, bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
    bytes
}

/// KiB that this process ever held; nothing where there is no `/proc`.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn storm(file: File, rounds: u64) {
    let good = file.good();
    let rows = file.rows(&good).expect("a good file opens");
    assert!(rows > 10, "{rows} rows in the good store");
    // Otherwise nothing would ever be reached behind a checksum.
    assert_eq!(file.seal(&good), good, "the checksums here are those of the format");
    let before = peak_kib();
    for end in (0..good.len()).step_by(7) {
        file.fuzz(&good[..end]);
    }
    for round in 0..rounds * factor() {
        let input = mutant(&mut Chance(round), &good);
        let caught = std::panic::catch_unwind(|| file.fuzz(&input));
        assert!(
            caught.is_ok(),
            "{file:?}, round {round} breaks a promise: {}",
            input.escape_ascii()
        );
    }
    check_growth(before);
}

fn factor() -> u64 {
    let factor = std::env::var("RINGDB_FUZZ_FACTOR").ok().and_then(|f| f.parse().ok());
    factor.unwrap_or(1)
}

/// Looks at what the process came to hold since it held `before` KiB.
fn check_growth(before: Option<u64>) {
    if let (Some(before), Some(after)) = (before, peak_kib()) {
        // The kernel counts pages by processor: the peak may seem to fall by a few.
        let grown = after.saturating_sub(before);
        assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more for small files");
    }
}

#[test]
fn tables_forged_to_stand_for_much_memory_are_read_or_refused_in_a_storm() {
    let before = peak_kib();
    for round in 0..40 * factor() {
        let mut chance = Chance(round);
        // Numbers as somebody malicious would choose them, or any; those that are left out are 0.
        let mut recipe = Vec::new();
        for _ in 0..=chance.below(200) {
            let number = [20_000, 1 << 16, 65_535, 1, 1000][chance.below(5) as usize];
            let number = if chance.below(3) > 0 { number } else { chance.next() as u32 };
            recipe.extend_from_slice(&number.to_le_bytes());
        }
        let caught = std::panic::catch_unwind(|| forged::fuzz(&recipe));
        assert!(caught.is_ok(), "round {round} breaks a promise: {}", recipe.escape_ascii());
    }
    check_growth(before);
}

#[test]
fn logs_err_or_work_in_a_storm() {
    storm(File::Log, 300);
}

#[test]
fn tables_err_or_work_in_a_storm() {
    storm(File::Table, 300);
}

#[test]
fn manifests_err_or_work_in_a_storm() {
    storm(File::Manifest, 300);
}
