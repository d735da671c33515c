//! What can be wrong with a certificate, said in three lines: what, why, fix.
//!
//! Promise: every message names the file or the identity concerned, shows fingerprints where two
//! certificates disagree, and ends with something to do.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::{Fingerprint, Role};

/// Why certificates could not be issued, loaded or used.
#[derive(Debug)]
pub enum CertError {
    /// A file could not be read. Nothing was loaded.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be written, or exists and may not be replaced.
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is there but does not hold what it should.
    NotPem {
        /// The file, or the name that the caller gave to the text.
        path: PathBuf,
        /// What was looked for: "certificate" or "private key".
        wanted: &'static str,
        /// What the parser said.
        detail: String,
    },
    /// The certificate's time is over.
    Expired {
        /// Where it came from.
        path: PathBuf,
        /// Its fingerprint.
        fingerprint: Fingerprint,
        /// When it ended, as the certificate writes it.
        not_after: String,
    },
    /// The certificate's time has not begun, or this machine's clock is wrong.
    NotYetValid {
        /// Where it came from.
        path: PathBuf,
        /// Its fingerprint.
        fingerprint: Fingerprint,
        /// When it begins, as the certificate writes it.
        not_before: String,
    },
    /// The certificate was not signed by the cluster's authority.
    WrongAuthority {
        /// Where the certificate came from.
        path: PathBuf,
        /// The authority that was expected.
        authority: Fingerprint,
        /// The certificate that was presented.
        presented: Fingerprint,
        /// What the verifier said.
        detail: String,
    },
    /// The private key belongs to another certificate.
    KeyMismatch {
        /// Where the key came from.
        path: PathBuf,
        /// The certificate that it should belong to.
        certificate: Fingerprint,
    },
    /// The certificate says nothing about a role in a cluster, or something unreadable.
    NoIdentity {
        /// The certificate.
        fingerprint: Fingerprint,
        /// What is missing or malformed.
        detail: String,
    },
    /// The certificate has another role than this use needs.
    WrongRole {
        /// The name in the certificate.
        name: String,
        /// The role in the certificate.
        has: Role,
        /// The role that is needed.
        needs: Role,
    },
    /// A cluster or subject name that cannot stand in a certificate.
    BadName {
        /// The name.
        name: String,
        /// Which rule it breaks.
        rule: &'static str,
    },
    /// The TLS library refused; a fault of ours or a certificate that no check above foresaw.
    Tls {
        /// What it said.
        detail: String,
    },
}

/// "what", "why" and "fix", the parts of every message.
struct Story {
    what: String,
    why: String,
    fix: String,
}

impl CertError {
    pub(crate) fn unreadable(path: &Path, source: io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), source }
    }

    pub(crate) fn unwritable(path: &Path, source: io::Error) -> Self {
        Self::Unwritable { path: path.to_owned(), source }
    }

    pub(crate) fn tls(detail: impl fmt::Display) -> Self {
        Self::Tls { detail: detail.to_string() }
    }

    fn story(&self) -> Story {
        let (what, why, fix) = match self {
            Self::Unreadable { path, source } if source.kind() == io::ErrorKind::NotFound => (
                format!("{} is missing", path.display()),
                "the settings point at it, and there is no such file".into(),
                "issue one with ringctl cert issue NAME, or correct the path".into(),
            ),
            Self::Unreadable { path, source } => (
                format!("{} cannot be read", path.display()),
                source.to_string(),
                "make it readable for the user that runs this process, and for nobody else".into(),
            ),
            Self::Unwritable { path, source } if source.kind() == io::ErrorKind::AlreadyExists => (
                format!("{} already exists", path.display()),
                "keys are never overwritten: what they signed or opened would be lost".into(),
                "choose another directory, or move the old file away first".into(),
            ),
            Self::Unwritable { path, source } => (
                format!("{} cannot be written", path.display()),
                source.to_string(),
                "choose a directory that exists and is writable".into(),
            ),
            Self::NotPem { path, wanted, detail } => (
                format!("{} holds no {wanted} in PEM form", path.display()),
                detail.clone(),
                "check that certificate, key and CA have not been exchanged; \
                 ringctl cert show FILE tells what a file is"
                    .into(),
            ),
            Self::Expired { path, fingerprint, not_after } => (
                format!("the certificate in {} has expired", path.display()),
                format!("{fingerprint} was valid until {not_after}"),
                "issue it again: ringctl cert issue NAME, then restart or reload the node".into(),
            ),
            Self::NotYetValid { path, fingerprint, not_before } => (
                format!("the certificate in {} is not valid yet", path.display()),
                format!("{fingerprint} is valid from {not_before}"),
                "set this machine's clock, or issue the certificate again".into(),
            ),
            Self::WrongAuthority { path, authority, presented, detail } => (
                format!("{} is signed by another CA", path.display()),
                format!("cluster CA {authority}, presented {presented} ({detail})"),
                "issue it with this cluster's CA: ringctl cert issue NAME".into(),
            ),
            Self::KeyMismatch { path, certificate } => (
                format!("the key in {} belongs to another certificate", path.display()),
                format!("it does not fit the certificate {certificate}"),
                "use the .key file that was written together with the certificate".into(),
            ),
            Self::NoIdentity { fingerprint, detail } => (
                "a certificate names no role in a cluster".into(),
                format!("{fingerprint}: {detail}"),
                "use certificates written by ringctl cert issue".into(),
            ),
            Self::WrongRole { name, has, needs } => (
                format!("the certificate of {name} cannot be used here"),
                format!("its role is {has}, this needs {needs}"),
                format!("ringctl cert issue {name} --role {needs}"),
            ),
            Self::BadName { name, rule } => (
                format!("{name:?} cannot be a name in a certificate"),
                (*rule).into(),
                "use lower-case letters, digits and inner hyphens, at most 63 of them".into(),
            ),
            Self::Tls { detail } => (
                "TLS could not be set up".into(),
                detail.clone(),
                "check the files with ringctl cert show; if they are sound, report this".into(),
            ),
        };
        Story { what, why, fix }
    }
}

impl fmt::Display for CertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Story { what, why, fix } = self.story();
        write!(f, "{what}\n  why: {why}\n  fix: {fix}")
    }
}

impl std::error::Error for CertError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } | Self::Unwritable { source, .. } => Some(source),
            _ => None,
        }
    }
}
