//! The disk of a node: the engine's files, and the few things that a node must remember of itself.

use std::sync::Arc;

use bytes::Bytes;
use replication::DotSet;
use ring::{Incarnation, Slot, WallMillis};
use storage::{Crash, Engine, Error, MemoryDisk, OpenError, Options};
use store::Opened;

/// What a node's state file holds; each change of it is durable at once.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// The present or last life.
    pub incarnation: Incarnation,
    /// The last life ended with everything on disk.
    pub clean: bool,
    /// No stamp above this was minted.
    pub ceiling: WallMillis,
    /// Acknowledged writes may be gone, and the replica has not been made whole since.
    pub suspect: bool,
}

/// A node's disk.
pub struct Platter {
    /// The engine's files.
    pub files: MemoryDisk,
    /// The state file.
    pub memory: Memory,
}

impl Platter {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let memory = Memory {
            incarnation: Incarnation(0),
            clean: false,
            ceiling: WallMillis(0),
            suspect: false,
        };
        Self { files: MemoryDisk::new(seed), memory }
    }

    /// Opens the engine, as a node does.
    ///
    /// # Errors
    /// What the engine says.
    pub fn open(&self, options: Options, cores: u8) -> Result<Opened, OpenError> {
        store::open(Arc::new(self.files.clone()), options, cores)
    }

    /// The machine or the process goes down.
    pub fn crash(&mut self, how: Crash) {
        self.files.crash(how);
        if matches!(how, Crash::PowerLoss(_)) {
            self.memory.suspect = true;
            self.memory.clean = false;
        }
    }

    /// Below this no stamp may be minted, by the node's rule: what the log holds is known besides, so
    /// the ceiling counts only after a clean stop, which lowers it to the last stamp, or if the wall
    /// clock was set back.
    #[must_use]
    pub fn floor(&self, wall: WallMillis) -> WallMillis {
        let ceiling = self.memory.ceiling;
        let ahead = replication::limits::CEILING_AHEAD.as_millis() as u64;
        let offset = ring::hlc::MAX_OFFSET.as_millis() as u64;
        let honest = ceiling.0 <= wall.0 + ahead + offset;
        if !self.memory.clean && honest { ceiling.min(wall) } else { ceiling }
    }

    /// The life that begins now; `same` takes the old one again, which nobody may.
    pub fn begin_life(&mut self, same: bool) -> Incarnation {
        let keeps = self.memory.clean || (same && self.memory.incarnation.0 > 0);
        if !keeps {
            self.memory.incarnation.0 += 1;
        }
        self.memory.clean = false;
        self.memory.incarnation
    }
}

/// Deltas wanted that stand in the retained log.
///
/// # Errors
/// What the engine says.
pub fn deltas_in_log(
    engine: &Engine,
    wanted: &[(Slot, DotSet)],
) -> Result<Vec<(Slot, Bytes)>, Error> {
    let mut found = Vec::new();
    store::each_delta(engine, &mut |slot, dot, raw| {
        if wanted.iter().any(|(s, dots)| *s == slot && dots.contains(dot)) {
            found.push((slot, Bytes::copy_from_slice(raw)));
        }
    })?;
    Ok(found)
}
