//! Poison: once a write or sync is in doubt, nothing more is promised.

use crate::error::Error;
use std::sync::OnceLock;

/// Set once, by the first failure.
#[derive(Debug, Default)]
pub(crate) struct Poison {
    reason: OnceLock<String>,
}

impl Poison {
    /// Remembers the failure, unless there was one before; the error that everybody gets from now.
    pub(crate) fn set(&self, reason: &str) -> Error {
        if self.reason.set(reason.to_owned()).is_ok() {
            tracing::error!(reason, "storage poisoned: no further writes are accepted");
        }
        self.error(self.reason.get().map_or(reason, String::as_str))
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.reason.get() {
            None => Ok(()),
            Some(reason) => Err(self.error(reason)),
        }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.reason.get().is_some()
    }

    #[allow(clippy::unused_self, reason = "reads as a property of the poison")]
    fn error(&self, reason: &str) -> Error {
        Error::Poisoned { reason: reason.to_owned() }
    }
}
