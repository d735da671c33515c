//! Contexts: the file that says which clusters there are and how to come in.
//!
//! ```toml
//! current = "demo"                          # the context that is taken if none is named
//!
//! [contexts.demo]
//! cluster = "demo"                          # the cluster's name, as its certificates say it
//! nodes = ["127.0.0.1:7101"]                # where native clients reach its nodes: QUIC ports
//! ca = "certs/ca.pem"                       # the cluster's root certificate
//! cert = "certs/admin.pem"                  # a certificate of role admin or client
//! key = "certs/admin.key"                   # its private key
//! readonly = true                           # ringctl changes nothing there; false if absent
//! ```
//!
//! A relative path is relative to the file. `ringd demo` writes such a file beside its data;
//! `ringctl` looks for it there. Keys that are not known are errors, so that a misspelt one is not
//! silently without effect.

use core::fmt;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use certs::TlsFiles;
use serde::{Deserialize, Serialize};

use crate::error::Told;

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextFile {
    /// The context that is taken if none is named.
    #[serde(default)]
    pub current: Option<String>,
    /// The contexts by their names.
    #[serde(default)]
    pub contexts: BTreeMap<String, ClusterContext>,
}

/// How to come into one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterContext {
    /// The cluster's name; that of the certificates if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// `host:port` of the nodes' QUIC ports; tried in turn.
    pub nodes: Vec<String>,
    /// The cluster's root certificate.
    pub ca: PathBuf,
    /// The certificate to present.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// `ringctl` changes nothing there.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub readonly: bool,
}

/// Why there is no context.
#[derive(Debug)]
pub enum ContextError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not say what it should.
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said, in one line.
        detail: String,
    },
    /// No context of that name stands in the file.
    Unknown {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
        /// The names that do.
        known: Vec<String>,
    },
    /// None is named, none is current, and there is not exactly one.
    NotChosen {
        /// The file.
        path: PathBuf,
        /// The names that stand in the file.
        known: Vec<String>,
    },
}

impl ContextFile {
    /// Reads the file, and makes its relative paths relative to its directory.
    ///
    /// # Errors
    /// [`ContextError::Unreadable`], [`ContextError::Malformed`].
    pub fn load(path: &Path) -> Result<Self, ContextError> {
        let unreadable = |source| ContextError::Unreadable { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mut file = toml::from_str::<Self>(&text).map_err(|e| ContextError::Malformed {
            path: path.to_owned(),
            detail: in_one_line(&text, &e),
        })?;
        let dir = path.parent().unwrap_or(Path::new(""));
        for context in file.contexts.values_mut() {
            for each in [&mut context.ca, &mut context.cert, &mut context.key] {
                *each = dir.join(&*each);
            }
        }
        Ok(file)
    }

    /// The context of this name, or else the current one, or else the only one. `path` is for the
    /// error.
    ///
    /// # Errors
    /// [`ContextError::Unknown`], [`ContextError::NotChosen`].
    pub fn choose(&self, name: Option<&str>, path: &Path) -> Result<&ClusterContext, ContextError> {
        let known = || self.contexts.keys().cloned().collect();
        let path = || path.to_owned();
        match (name.or(self.current.as_deref()), self.contexts.first_key_value()) {
            (Some(name), _) => self.contexts.get(name).ok_or_else(|| ContextError::Unknown {
                path: path(),
                name: name.to_owned(),
                known: known(),
            }),
            (None, Some((_, only))) if self.contexts.len() == 1 => Ok(only),
            (None, _) => Err(ContextError::NotChosen { path: path(), known: known() }),
        }
    }
}

impl ClusterContext {
    /// The three files of its certificate.
    #[must_use]
    pub fn tls_files(&self) -> TlsFiles {
        TlsFiles { ca: self.ca.clone(), cert: self.cert.clone(), key: self.key.clone() }
    }
}

fn in_one_line(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
    let message = error.message().lines().collect::<Vec<_>>().join(" ");
    match line {
        Some(line) => format!("line {line}: {message}"),
        None => message,
    }
}

impl ContextError {
    /// What, why and fix.
    #[must_use]
    pub fn told(&self) -> Told {
        let listed = |known: &[String]| match known {
            [] => "it has no contexts".to_owned(),
            known => format!("it has {}", known.join(", ")),
        };
        match self {
            Self::Unreadable { path, source } => Told::new(
                format!("cannot read the contexts in {}", path.display()),
                source.to_string(),
                "name another file with --config FILE or RINGCTL_CONFIG",
            ),
            Self::Malformed { path, detail } => Told::new(
                format!("{} is no file of contexts", path.display()),
                detail.clone(),
                "write: current = \"NAME\", then [contexts.NAME] with nodes, ca, cert and key",
            ),
            Self::Unknown { path, name, known } => Told::new(
                format!("no context {name} in {}", path.display()),
                listed(known),
                "name one of those, or add it to the file",
            ),
            Self::NotChosen { path, known } => Told::new(
                format!("no context of {} is chosen", path.display()),
                listed(known),
                "set current = \"NAME\" in the file, or name one with --context NAME",
            ),
        }
    }
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.told().fmt(f)
    }
}

impl std::error::Error for ContextError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Malformed { .. } | Self::Unknown { .. } | Self::NotChosen { .. } => None,
        }
    }
}
