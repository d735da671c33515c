//! The allocator of `ringd`, and how often it is asked.
//!
//! mimalloc, and with the feature `count-allocations` the system's allocator behind counters: how
//! often and for how much memory is asked does not depend on who gives it. The counters are shared by
//! all threads and cost time, so a program built with them is for counting and not for timing.

#[cfg(feature = "count-allocations")]
mod chosen {
    use std::alloc::System;

    use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

    use super::Counts;

    /// Whom `ringd` asks for memory.
    pub type Allocator = &'static StatsAlloc<System>;

    /// The allocator, to be put into a `#[global_allocator]`.
    #[must_use]
    pub const fn new() -> Allocator {
        &INSTRUMENTED_SYSTEM
    }

    /// What was asked for since the start.
    #[must_use]
    pub fn counts() -> Option<Counts> {
        let stats = INSTRUMENTED_SYSTEM.stats();
        Some(Counts {
            allocations: stats.allocations as u64,
            reallocations: stats.reallocations as u64,
            // With what pieces grew by, but not their copies.
            bytes: stats.bytes_allocated as u64,
        })
    }
}

#[cfg(not(feature = "count-allocations"))]
mod chosen {
    use super::Counts;

    /// Whom `ringd` asks for memory.
    pub type Allocator = mimalloc::MiMalloc;

    /// The allocator, to be put into a `#[global_allocator]`.
    #[must_use]
    pub const fn new() -> Allocator {
        mimalloc::MiMalloc
    }

    /// What was asked for since the start: not counted in this build.
    #[must_use]
    pub const fn counts() -> Option<Counts> {
        None
    }
}

pub use chosen::{Allocator, counts, new};

/// What a process has asked its allocator for since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// How often for new memory.
    pub allocations: u64,
    /// How often to make a piece longer or shorter.
    pub reallocations: u64,
    /// For how many bytes.
    pub bytes: u64,
}
