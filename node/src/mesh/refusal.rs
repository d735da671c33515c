//! Refusals and endings: why a connection was turned away, or came to its end.
//!
//! Promise: the side that is refused learns the reason in words, in its own log, since that is
//! where somebody will look.

use core::fmt;

use quinn::{ConnectionError, VarInt};
use wire::hello::close;

use super::limits::REASON_BYTES_MAX;

/// Why one side closed a connection; travels as the close frame's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Refusal {
    /// The process ends, or this peer is no longer wanted.
    Closing = close::CLOSING,
    /// A newer connection of the same peer took its place.
    Replaced = close::REPLACED,
    /// Not a hello, or not in time.
    BadHello = close::BAD_HELLO,
    /// A member of another cluster.
    WrongCluster = close::WRONG_CLUSTER,
    /// The certificate's role does not allow what was tried.
    WrongRole = close::WRONG_ROLE,
    /// A node that is no member, or that gives another number than the layout.
    UnknownNode = close::UNKNOWN_NODE,
    /// No version of the frames that both sides know.
    WireVersion = close::WIRE_VERSION,
    /// A length beyond the largest frame.
    Oversized = close::OVERSIZED,
    /// The layer above found the content wrong.
    Content = close::CONTENT,
    /// Too many connections.
    Busy = close::BUSY,
    /// Another process with the same name is connected, and speaks.
    Second = close::SECOND,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The other side closed it, and said why.
    Refused {
        /// The reason, if it is one that we know.
        refusal: Option<Refusal>,
        /// The reason in the other side's words.
        text: String,
    },
    /// Nothing was heard for the idle time-out: dead, or cut off.
    Silent,
    /// The other process runs, and knows nothing of this connection: it was restarted.
    Restarted,
    /// The certificates did not suit; in words.
    Certificates(String),
    /// The network or the protocol failed; in words.
    Broken(String),
    /// We closed it.
    Ours(Refusal),
}

impl Refusal {
    const ALL: [Self; 11] = [
        Self::Closing,
        Self::Replaced,
        Self::BadHello,
        Self::WrongCluster,
        Self::WrongRole,
        Self::UnknownNode,
        Self::WireVersion,
        Self::Oversized,
        Self::Content,
        Self::Busy,
        Self::Second,
    ];

    /// The code in a close frame.
    #[must_use]
    pub fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    fn from_code(code: VarInt) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.code() == code)
    }

    /// Closes `connection` for this reason.
    pub(super) fn close(self, connection: &quinn::Connection, text: &str) {
        // A letter cut in two is shown as one that cannot be read; all our words are ASCII.
        let end = text.len().min(REASON_BYTES_MAX);
        connection.close(self.code(), &text.as_bytes()[..end]);
    }
}

impl From<ConnectionError> for Ending {
    fn from(error: ConnectionError) -> Self {
        let tls = |code: quinn::TransportErrorCode| {
            // Codes 0x100 to 0x1ff carry a TLS alert in their last byte.
            let code = u64::from(code);
            (code >> 8 == 1).then(|| certs::explain_alert(code as u8)).flatten()
        };
        match error {
            ConnectionError::ApplicationClosed(close) => Self::Refused {
                refusal: Refusal::from_code(close.error_code),
                text: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::ConnectionClosed(close) => match tls(close.error_code) {
                Some(text) => Self::Certificates(format!("the other side says: {text}")),
                None => Self::Broken(close.to_string()),
            },
            ConnectionError::TransportError(fault) => match tls(fault.code) {
                Some(text) => Self::Certificates(format!("{} ({text})", fault.reason)),
                None => Self::Broken(fault.to_string()),
            },
            ConnectionError::TimedOut => Self::Silent,
            ConnectionError::Reset => Self::Restarted,
            ConnectionError::LocallyClosed => Self::Ours(Refusal::Closing),
            ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => {
                Self::Broken(error.to_string())
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closing => "closing",
            Self::Replaced => "replaced by a newer connection",
            Self::BadHello => "no hello",
            Self::WrongCluster => "another cluster",
            Self::WrongRole => "the certificate's role does not allow it",
            Self::UnknownNode => "not a member",
            Self::WireVersion => "no common version",
            Self::Oversized => "a frame too large",
            Self::Content => "wrong content",
            Self::Busy => "too many connections",
            Self::Second => "another process runs under this name",
        })
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { refusal: Some(refusal), text } => {
                write!(f, "closed by the other side ({refusal}): {text}")
            }
            Self::Refused { refusal: None, text } => write!(f, "closed by the other side: {text}"),
            Self::Silent => f.write_str("nothing heard"),
            Self::Restarted => f.write_str("the other process was restarted"),
            Self::Certificates(text) => write!(f, "certificates: {text}"),
            Self::Broken(text) => f.write_str(text),
            Self::Ours(refusal) => write!(f, "closed by us: {refusal}"),
        }
    }
}
