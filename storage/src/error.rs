//! What can go wrong, said so that the caller knows what to do next.

use crate::limits::FORMAT_LINE;
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
    /// A repair was begun and has not ended: what is in tables does not yet read right. Call
    /// [`crate::repair`] again.
    RepairBegun,
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

/// True when the disk said that it cannot read these bytes, or the file system that they are not what it
/// wrote: others of the same file may well be sound.
pub(crate) fn is_unreadable(e: &io::Error) -> bool {
    use rustix::io::Errno;
    #[cfg(target_os = "linux")]
    const ALL: [Errno; 4] = [Errno::IO, Errno::BADMSG, Errno::NODATA, Errno::UCLEAN];
    #[cfg(not(target_os = "linux"))]
    const ALL: [Errno; 2] = [Errno::IO, Errno::BADMSG];
    ALL.iter().any(|errno| e.raw_os_error() == Some(errno.raw_os_error()))
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
                write!(
                    f,
                    "the store refuses writes since a failure ({reason}) until it is opened anew"
                )
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

impl OpenError {
    /// What is wrong, without what to do about it and without the keys that damage is about: for whoever
    /// tells that in words of his own.
    #[must_use]
    pub fn reason(&self) -> impl fmt::Display {
        Reason(self)
    }
}

struct Reason<'a>(&'a OpenError);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            OpenError::Locked => write!(f, "the data directory is open in another process"),
            OpenError::Format { found } => write!(
                f,
                "refusing to open: the data directory's FORMAT says {found:?}, this version reads \
                 {FORMAT_LINE:?} only"
            ),
            OpenError::Damaged { damage } => {
                write!(f, "acknowledged data is lost: ")?;
                list(f, damage, |f, damage| write!(f, "{damage}"))
            }
            OpenError::RepairBegun => f.write_str(
                "a repair of the data directory was begun and not finished (its file REPAIR says so), so that \
                 deleted rows and older values would show",
            ),
            OpenError::Options { reason } => write!(f, "bad options: {reason}"),
            OpenError::Disk(e) => write!(f, "{e}"),
        }
    }
}

/// Writes all of `damage` with semicolons between.
fn list(
    f: &mut fmt::Formatter<'_>,
    damage: &[Damage],
    write: impl Fn(&mut fmt::Formatter<'_>, &Damage) -> fmt::Result,
) -> fmt::Result {
    for (i, damage) in damage.iter().enumerate() {
        if i > 0 {
            f.write_str("; ")?;
        }
        write(f, damage)?;
    }
    Ok(())
}

/// A key as a person can read it: what is not printable escaped, and no more than fits a line.
fn shown(key: &[u8]) -> String {
    const BYTES_MAX: usize = 48;
    let more = if key.len() > BYTES_MAX { "…" } else { "" };
    format!("\"{}{more}\"", key[..key.len().min(BYTES_MAX)].escape_ascii())
}

impl Damage {
    /// Which keys it is about, in words; what is not printable is escaped. (Whoever knows what keys mean
    /// tells it better.)
    #[must_use]
    pub fn keys(&self) -> String {
        let lower = shown(&self.lower);
        match &self.upper {
            None if self.lower.is_empty() => "any key".to_owned(),
            None => format!("keys from {lower} on"),
            Some(upper) if upper.strip_suffix(b"\0") == Some(&self.lower[..]) => {
                format!("key {lower}")
            }
            Some(upper) => format!("keys from {lower} to before {}", shown(upper)),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { damage } => {
                write!(f, "acknowledged data is lost: ")?;
                list(f, damage, |f, damage| write!(f, "{damage} ({})", damage.keys()))?;
            }
            _ => write!(f, "{}", Reason(self))?,
        }
        match self {
            Self::Locked => f.write_str("; close it there"),
            Self::Format { .. } => f.write_str(
                "; use the version that wrote it, or start with an empty directory",
            ),
            Self::Damaged { .. } => f.write_str(
                "; take a copy of the directory that is whole, or open what is left with \
                 Options::tolerate_damage, or let `repair` make a whole store of it",
            ),
            Self::RepairBegun => f.write_str("; let `repair` finish it"),
            Self::Options { .. } => Ok(()),
            Self::Disk(Error::NoSpace) => f.write_str("; make room and open it again"),
            Self::Disk(_) => f.write_str(
                "; look at the disk and try again; if bytes of it stay unreadable, open what is left \
                 with Options::tolerate_damage, or let `repair` make a whole store of it",
            ),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Log { stream, segment, offset, first, last } => {
                write!(f, "log {stream}-{segment} damaged at offset {offset}: ")?;
                match last {
                    &u64::MAX => write!(f, "sequences from {first} on"),
                    last if last == first => write!(f, "sequence {first}"),
                    last => write!(f, "sequences {first} to {last}"),
                }
            }
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
