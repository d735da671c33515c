//! Splitting work into key ranges of like size, so that several threads can do it. Pure.

use crate::key::KeyRange;
use crate::table::Table;
use std::sync::Arc;

/// Keys asked of each table for each part: the more, the more even the parts.
const SAMPLES: usize = 4;

/// At most `parts` − 1 keys that cut what `tables` hold into parts of like size, ascending.
pub(crate) fn cuts(tables: &[&Arc<Table>], parts: usize) -> Vec<Vec<u8>> {
    let total: u64 = tables.iter().map(|t| t.bounds.weight()).sum();
    if parts < 2 || total == 0 {
        return Vec::new();
    }
    // Each sample stands for the bytes before it.
    let mut samples: Vec<(Vec<u8>, u64)> = Vec::new();
    for table in tables {
        let keys = table.sample(parts * SAMPLES);
        let weight = table.bounds.weight() / (keys.len() as u64 + 1);
        samples.extend(keys.into_iter().map(|key| (key, weight)));
        samples.push((table.upper(), weight));
    }
    samples.sort();
    let part = total / parts as u64;
    let mut cuts: Vec<Vec<u8>> = Vec::new();
    let mut bytes = 0;
    for (key, weight) in samples {
        bytes += weight;
        let due = part * (cuts.len() as u64 + 1);
        if bytes >= due && cuts.len() + 1 < parts && cuts.last().is_none_or(|last| *last < key) {
            cuts.push(key);
        }
    }
    // A cut behind everything cuts nothing off.
    let end = tables.iter().map(|t| t.upper()).max().unwrap_or_default();
    cuts.retain(|key| *key < end);
    cuts
}

/// The ranges that `cuts` make of all keys.
pub(crate) fn ranges(cuts: &[Vec<u8>]) -> Vec<KeyRange> {
    KeyRange::of_splits(cuts)
}
