//! Ahead: the rows that a batch of effects is about to read or write are asked for together.
//!
//! Looking up a row is mostly waiting for memory; the waits of several rows overlap if they begin
//! together. Nothing else changes.

use replication::{Effect, RowChange};
use smallvec::SmallVec;

use super::Core;

impl Core {
    /// `batch` is about to be carried out.
    pub(super) fn prefetch(&self, batch: &[Effect]) {
        let mut rows: SmallVec<[&[u8]; 32]> = SmallVec::new();
        for effect in batch {
            match effect {
                Effect::Load { rows: loaded, .. } => rows.extend(loaded.iter().map(AsRef::as_ref)),
                Effect::Apply { changes, .. } => rows.extend(changes.iter().map(|change| {
                    let (RowChange::Merge { row, .. } | RowChange::Put { row, .. }) = change;
                    row.as_ref()
                })),
                _ => {}
            }
        }
        if rows.len() > 1 {
            self.store.prefetch(&rows);
        }
    }
}
