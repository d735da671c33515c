//! The disk of a node: the engine's files, and the few things that a node must remember of itself.

use ring::{Incarnation, WallMillis};
use storage::{Crash, MemoryDisk};

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

    /// The machine or the process goes down.
    pub fn crash(&mut self, how: Crash) {
        self.files.crash(how);
        if matches!(how, Crash::PowerLoss(_)) {
            self.memory.suspect = true;
            self.memory.clean = false;
        }
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
