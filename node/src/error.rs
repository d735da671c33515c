//! Faults: why `ringd` does not start or go on, in three lines: what, why, fix.
//!
//! Promise: whatever the operator can do something about reaches him as a [`Fault`], never as a
//! stack trace, and the program ends with exit code 2.

use core::fmt;

/// The exit code of a program that refused to start or to go on.
pub const EXIT_REFUSED: i32 = 2;

/// The exit code of a node that stopped and could not put everything on disk.
pub const EXIT_UNSAVED: i32 = 1;

/// The exit code of a node that stopped with everything on disk, but whose drain ran out of time.
pub const EXIT_CUT_OFF: i32 = 3;

/// A reason to end the program that a person can do something about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What does not work.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do about it.
    pub fix: String,
}

impl Fault {
    /// A fault with its three lines.
    pub fn new(what: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into(), fix: fix.into() }
    }

    /// A file or directory that cannot be used.
    pub fn file(path: &std::path::Path, doing: &str, error: &std::io::Error) -> Self {
        Self::new(
            format!("cannot {doing} {}", path.display()),
            error.to_string(),
            "make sure that the path exists and that this user may read and write it",
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n  why: {}\n  fix: {}", self.what, self.why, self.fix)
    }
}

impl std::error::Error for Fault {}

impl From<certs::CertError> for Fault {
    fn from(error: certs::CertError) -> Self {
        let text = error.to_string();
        let mut lines = text.lines().map(str::trim);
        let mut next = |prefix: &str| {
            let line = lines.next().unwrap_or_default();
            line.strip_prefix(prefix).unwrap_or(line).trim().to_owned()
        };
        Self { what: next("error:"), why: next("why:"), fix: next("fix:") }
    }
}
