//! Checks: one promise a file, each decided from what was really minted.

pub mod truth;

pub mod cells;
pub mod convergence;
pub mod counters;
pub mod durability;
pub mod errors;
pub mod expiry;
pub mod fence;
pub mod ranges;
pub mod reads;
pub mod scans;
pub mod session;
pub mod siblings;
pub mod transactions;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub promise: &'static str,
    /// How.
    pub text: String,
}

impl Violation {
    /// A broken promise.
    #[must_use]
    pub const fn new(promise: &'static str, text: String) -> Self {
        Self { promise, text }
    }
}
