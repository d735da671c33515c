//! Collecting blob files that are mostly dead: moving what is live out of them.
//!
//! One table a job: it is written again at its level, as it is, but for the values that move. When
//! the last table that points into a file was written again, the file is dead and goes.

use crate::table::Table;
use crate::version::Version;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A table to be written again.
pub(crate) struct Relocation {
    pub(crate) level: usize,
    pub(crate) table: Arc<Table>,
    /// The files that it shall not point into any more.
    pub(crate) leave: BTreeSet<u64>,
}

/// The table to be written again next, if some file holds too little that is live. `sizes`: bytes
/// of each blob file. Pure.
pub(crate) fn choose(
    version: &Version,
    sizes: &BTreeMap<u64, u64>,
    live_percent: u64,
    broken: &BTreeSet<u64>,
) -> Option<Relocation> {
    if sizes.is_empty() {
        return None;
    }
    let live = live_bytes(version);
    let mut sparse: Vec<(u64, u64)> = Vec::new();
    for (number, bytes) in sizes {
        let live = live.get(number).copied().unwrap_or(0);
        if live * 100 < bytes * live_percent && !broken.contains(number) {
            sparse.push((live * 1000 / bytes.max(&1), *number));
        }
    }
    sparse.sort_unstable();
    let leave: BTreeSet<u64> = sparse.iter().map(|(_, number)| *number).collect();
    sparse.into_iter().find_map(|(_, worst)| {
        let points = |table: &Table| table.bounds.blobs.iter().any(|(number, _)| *number == worst);
        let (level, table) = version.tables().find(|(_, t)| points(t) && !t.is_broken())?;
        Some(Relocation { level, table: table.clone(), leave: leave.clone() })
    })
}

/// Bytes of each blob file that a table of `version` points to.
pub(crate) fn live_bytes(version: &Version) -> BTreeMap<u64, u64> {
    let mut live = BTreeMap::new();
    for (_, table) in version.tables() {
        for (number, bytes) in &table.bounds.blobs {
            *live.entry(*number).or_default() += bytes;
        }
    }
    live
}
