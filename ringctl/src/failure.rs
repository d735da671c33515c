//! Failures: what ringctl says when it did not work, and the exit code that goes with it.

use core::fmt;
use std::process::ExitCode;

use certs::CertError;
use client::context::ContextError;
use client::{ClientError, Told};

/// The exit codes; scripts depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It worked.
    Fine = 0,
    /// The operation failed.
    Failed = 1,
    /// The command line, the context or its files do not do.
    Usage = 2,
    /// No node was reached.
    Unreachable = 3,
    /// The cluster was reached, and is degraded.
    Degraded = 4,
    /// The time given was over.
    TimedOut = 6,
    /// The certificates do not allow it.
    Unauthorised = 7,
}

/// Why it did not work.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code to leave with.
    pub(crate) exit: Exit,
    /// What to say.
    pub(crate) told: Told,
}

impl Failure {
    /// Something that the command itself could not do.
    pub(crate) fn operation(
        what: impl Into<String>,
        why: &dyn fmt::Display,
        fix: impl Into<String>,
    ) -> Self {
        Self { exit: Exit::Failed, told: Told::new(what, why.to_string(), fix) }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match error {
            ClientError::Unreachable { .. } | ClientError::Interrupted { .. } => Exit::Unreachable,
            ClientError::Unauthorised { .. } => Exit::Unauthorised,
            ClientError::TimedOut { .. } => Exit::TimedOut,
            _ => Exit::Failed,
        };
        Self { exit, told: error.told() }
    }
}

impl From<ContextError> for Failure {
    fn from(error: ContextError) -> Self {
        Self { exit: Exit::Usage, told: error.told() }
    }
}

impl From<CertError> for Failure {
    fn from(error: CertError) -> Self {
        let exit = match error {
            CertError::WrongAuthority { .. }
            | CertError::Expired { .. }
            | CertError::NotYetValid { .. }
            | CertError::WrongRole { .. } => Exit::Unauthorised,
            CertError::Unwritable { .. } | CertError::Tls { .. } => Exit::Failed,
            CertError::Unreadable { .. }
            | CertError::NotPem { .. }
            | CertError::KeyMismatch { .. }
            | CertError::NoIdentity { .. }
            | CertError::BadName { .. } => Exit::Usage,
        };
        // An administrator's tool: what a client may do would not be enough.
        let role_fix = match &error {
            CertError::WrongRole { name, .. } => {
                Some(format!("ringctl cert issue {name}-admin --role admin"))
            }
            _ => None,
        };
        let text = error.to_string();
        let mut lines = text.lines().map(str::trim);
        let mut next = |prefix: &str| {
            let line = lines.next().unwrap_or_default();
            line.strip_prefix(prefix).unwrap_or(line).trim().to_owned()
        };
        let (what, why, fix) = (next(""), next("why:"), next("fix:"));
        let fix = role_fix.unwrap_or(fix);
        Self { exit, told: Told::new(what, why, fix) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.told)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
