//! What can go wrong, said so that the caller knows what to do next.

use std::fmt;
use std::io;

/// Why an operation on an open store failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The disk is full. Reads go on; the same call may be repeated once there is space. What a
    /// failed commit held is kept and written by the next commit, so it may survive: never
    /// acknowledge it.
    NoSpace,
    /// An earlier write or fsync of the log or the manifest failed, so what is on disk is unknown.
    /// Every later write fails with this; reads go on. Reopen the store to recover.
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// What was read from a table does not match its checksum: these bytes are lost here. The rest
    /// of the store is served; see [`crate::Engine::damage`].
    Damaged(Box<Damage>),
    /// The batch is larger than [`crate::limits::BATCH_BYTES_MAX`] or holds a key longer than
    /// [`crate::limits::KEY_BYTES_MAX`]. Nothing was applied.
    TooLarge {
        /// What was offered, in bytes.
        bytes: usize,
        /// What is allowed, in bytes.
        bytes_max: usize,
    },
    /// What was asked for cannot be done, and asking again would not help. Nothing changed.
    Refused {
        /// What, why, and what could be done instead.
        reason: String,
    },
    /// Somebody is just doing something that this would have to wait for; try again.
    Busy,
    /// The disk refused a read, or a write that threatens no acknowledged data.
    Io {
        /// What was being done.
        what: String,
        /// The kind that the operating system gave.
        kind: io::ErrorKind,
    },
}

/// Why a store could not be opened. Nothing was changed on disk that would make matters worse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// Another process (or another engine in this one) has the directory open.
    Locked,
    /// The directory was written by another format version.
    Format {
        /// The first line of its FORMAT file, or what is missing.
        found: String,
    },
    /// Acknowledged data is lost. Opening with [`crate::Options::tolerate_damage`] serves the rest
    /// and reports the ranges, for a layer that can repair them from replicas.
    Damaged {
        /// What is lost.
        damage: Vec<Damage>,
    },
    /// The options contradict themselves.
    Options {
        /// Which, and why.
        reason: &'static str,
    },
    /// The disk refused; it may be tried again.
    Disk(Error),
}

/// A part of the store that was acknowledged and cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damage {
    /// Where the bytes were.
    pub place: Place,
    /// The first key that may be affected.
    pub lower: Vec<u8>,
    /// The first key after `lower` that is not affected; `None` when everything after is.
    pub upper: Option<Vec<u8>>,
}

/// Where damaged bytes stand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A hole in the log: the writes with these sequences, of one shard of an earlier run.
    Log {
        /// The stream of the log.
        stream: u64,
        /// The segment in it.
        segment: u64,
        /// Byte offset of the hole.
        offset: u64,
        /// First lost sequence.
        first: u64,
        /// Last lost sequence; `u64::MAX` when nothing after the hole was readable.
        last: u64,
    },
    /// A table, whole (`offset` is none) or one block of it.
    Table {
        /// The table's number.
        number: u64,
        /// Byte offset of the block.
        offset: Option<u64>,
    },
    /// A blob file, whole (`offset` is none) or one block of it.
    Blob {
        /// The file's number.
        number: u64,
        /// Byte offset of the block.
        offset: Option<u64>,
    },
    /// The manifest or CURRENT: nothing can be said about what the store held.
    Manifest,
}

impl Damage {
    /// Which keys, for a log: what is not printable is escaped. (Whoever knows what keys mean tells it
    /// better.)
    #[must_use]
    pub fn keys(&self) -> String {
        let lower = self.lower.escape_ascii();
        match &self.upper {
            None if self.lower.is_empty() => "all".to_owned(),
            None => format!("from \"{lower}\" to the end"),
            Some(upper) if upper.strip_suffix(&[0]) == Some(&self.lower) => format!("\"{lower}\""),
            Some(upper) => format!("from \"{lower}\" to before \"{}\"", upper.escape_ascii()),
        }
    }
}

impl Error {
    /// `e` as the error of doing `what`.
    #[must_use]
    pub fn io(what: &str, e: &io::Error) -> Self {
        if is_full(e) {
            Self::NoSpace
        } else {
            Self::Io { what: format!("{what}: {e}"), kind: e.kind() }
        }
    }
}

/// True when the disk said that it is full: worth trying again later, nothing is in doubt.
pub(crate) fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<Error> for OpenError {
    fn from(e: Error) -> Self {
        match e {
            Error::Damaged(damage) => Self::Damaged { damage: vec![*damage] },
            other => Self::Disk(other),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace => write!(f, "no space left on the disk"),
            Self::Poisoned { reason } => {
                write!(f, "the store refuses writes since a failure ({reason}); restart the node")
            }
            Self::Damaged(damage) => write!(f, "{damage}"),
            Self::TooLarge { bytes, bytes_max } => {
                write!(f, "{bytes} bytes where at most {bytes_max} are allowed")
            }
            Self::Refused { reason } => write!(f, "{reason}"),
            Self::Busy => write!(f, "a job of the store is in the way; try again when it is done"),
            Self::Io { what, .. } => write!(f, "{what}"),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => write!(f, "the data directory is open in another process"),
            Self::Format { found } => write!(
                f,
                "refusing to open: the data directory's FORMAT says {found:?}, this version reads \
                 {:?} only; use the version that wrote it, or start with an empty directory",
                crate::limits::FORMAT_LINE
            ),
            Self::Damaged { damage } => {
                write!(f, "acknowledged data is lost:")?;
                damage.iter().try_for_each(|d| write!(f, " {d};"))
            }
            Self::Options { reason } => write!(f, "bad options: {reason}"),
            Self::Disk(e) => write!(f, "{e}"),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Log { stream, segment, offset, first, last } => write!(
                f,
                "log {stream}-{segment} damaged at offset {offset}: sequences {first} to {last}"
            ),
            Place::Table { number, offset: Some(offset) } => {
                write!(f, "table {number} damaged at offset {offset}")
            }
            Place::Table { number, offset: None } => write!(f, "table {number} damaged"),
            Place::Blob { number, offset: Some(offset) } => {
                write!(f, "blob file {number} damaged at offset {offset}")
            }
            Place::Blob { number, offset: None } => write!(f, "blob file {number} damaged"),
            Place::Manifest => write!(f, "manifest damaged"),
        }
    }
}

impl std::error::Error for Error {}
impl std::error::Error for OpenError {}
