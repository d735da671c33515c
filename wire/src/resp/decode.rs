//! Decoder: the requests of one RESP connection, in place.
//!
//! Both forms that Redis takes: `*N` followed by N bulk strings, and an inline line of text with
//! Redis's quoting. Arguments are slices of the caller's buffer; only an inline command, whose
//! quotes must be undone, is copied, into a buffer of ours that is reused.
//!
//! Promises: no allocation per command in the steady state; work in proportion to the bytes that
//! arrived, however they were cut; memory in proportion to the bytes that arrived, whatever lengths
//! were announced. Errors are in Redis's own words, and each of them ends the connection: after one
//! the decoder repeats it for ever.
//!
//! Stricter than Redis 7 on purpose: an argument must end in CR LF (Redis skips two bytes unseen), a
//! CR in a length's line must be followed by LF, a command has at most
//! [`RESP_ARGS_MAX`] arguments (Redis: 2^31), and an unprintable byte in an error is escaped.

use core::fmt;
use core::ops::{Index, Range};

use crate::limits::{
    RESERVE_BYTES_MAX, RESP_ARGS_MAX, RESP_BULK_BYTES_DEFAULT, RESP_COMMAND_BYTES_MAX,
    RESP_INLINE_BYTES_MAX, RESP_UNAUTHENTICATED_ARGS_MAX, RESP_UNAUTHENTICATED_BULK_BYTES_MAX,
    VALUE_BYTES_MAX,
};
use crate::resp::inline::split_words;

/// How many argument slots, and how many bytes of inline text, a decoder keeps between commands.
const ARGS_KEPT: usize = 1_024;

/// What a connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest argument in bytes; values above [`VALUE_BYTES_MAX`] are taken as that.
    pub bulk_bytes_max: u32,
    /// The most arguments of a command, its name included.
    pub args_max: u32,
    /// The largest command in bytes, headers included.
    pub command_bytes_max: u32,
    /// The longest inline command, and the longest line that announces a length, in bytes.
    pub inline_bytes_max: u32,
    /// Whether the client may send more than it takes to authenticate.
    pub authenticated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bulk_bytes_max: RESP_BULK_BYTES_DEFAULT,
            args_max: RESP_ARGS_MAX,
            command_bytes_max: RESP_COMMAND_BYTES_MAX,
            inline_bytes_max: RESP_INLINE_BYTES_MAX,
            authenticated: true,
        }
    }
}

/// Why a connection cannot be understood any longer. `Display` is Redis's text without the leading
/// `ERR `; it holds no control characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The number after `*` is none, or above the limit.
    InvalidMultibulkLength,
    /// The number after `$` is none, or above the limit.
    InvalidBulkLength,
    /// The line that began with `*` does not end.
    TooBigMultibulkCount,
    /// The line that began with `$` does not end.
    TooBigBulkCount,
    /// The inline command does not end.
    TooBigInline,
    /// An inline command opens a quote and does not close it, or goes on right after closing it.
    UnbalancedQuotes,
    /// Something else than `$` where an argument should begin.
    ExpectedBulk {
        /// What stood there.
        got: u8,
    },
    /// An argument is not followed by CR LF.
    UnterminatedBulk,
    /// The command as a whole is above the limit.
    TooBigCommand,
    /// More arguments than a client that must authenticate may send.
    UnauthenticatedMultibulk,
    /// A longer argument than a client that must authenticate may send.
    UnauthenticatedBulk,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            Self::InvalidMultibulkLength => f.write_str("invalid multibulk length"),
            Self::InvalidBulkLength => f.write_str("invalid bulk length"),
            Self::TooBigMultibulkCount => f.write_str("too big mbulk count string"),
            Self::TooBigBulkCount => f.write_str("too big bulk count string"),
            Self::TooBigInline => f.write_str("too big inline request"),
            Self::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
            Self::ExpectedBulk { got } if got.is_ascii_graphic() || *got == b' ' => {
                write!(f, "expected '$', got '{}'", char::from(*got))
            }
            Self::ExpectedBulk { got } => write!(f, "expected '$', got '\\x{got:02x}'"),
            Self::UnterminatedBulk => f.write_str("bulk string without CRLF at its end"),
            Self::TooBigCommand => f.write_str("too big request"),
            Self::UnauthenticatedMultibulk => f.write_str("unauthenticated multibulk length"),
            Self::UnauthenticatedBulk => f.write_str("unauthenticated bulk length"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// Where an argument stands; 32 bits suffice because a command is at most
/// [`RESP_COMMAND_BYTES_MAX`] long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// One command: its name and its arguments, borrowed from the connection's buffer.
///
/// It may be empty (`*0`, a blank line): that asks for nothing and hears nothing.
#[derive(Clone, Copy)]
pub struct Command<'a> {
    source: &'a [u8],
    spans: &'a [Span],
    inline: bool,
}

impl<'a> Command<'a> {
    /// How many arguments, the command's name included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is not even a name.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The command's name as it was sent, in any case; empty if the command is.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        self.get(0).unwrap_or_default()
    }

    /// Argument `index`, where 0 is the name.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|span| &self.source[span.range()])
    }

    /// Every argument from the name on.
    pub fn args(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let source = self.source;
        self.spans.iter().map(move |span| &source[span.range()])
    }

    /// Where argument `index` stands in the buffer given to [`Decoder::decode`], so that a caller
    /// who keeps that buffer need not copy; `None` for an inline command or no such argument.
    #[must_use]
    pub fn range(&self, index: usize) -> Option<Range<usize>> {
        if self.inline {
            return None;
        }
        self.spans.get(index).map(|span| span.range())
    }
}

impl Index<usize> for Command<'_> {
    type Output = [u8];

    fn index(&self, index: usize) -> &[u8] {
        &self.source[self.spans[index].range()]
    }
}

/// The name and the number of arguments: an argument may be a password.
impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} args)", self.name().escape_ascii(), self.len().saturating_sub(1))
    }
}

/// A command and how many bytes of the buffer it took.
#[derive(Clone, Copy, Debug)]
pub struct Decoded<'a> {
    /// What was asked.
    pub command: Command<'a>,
    /// Drop this many bytes from the front of the buffer before the next call.
    pub consumed: usize,
}

/// What the decoder is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing read of the next command.
    Start,
    /// A line of text up to LF.
    Inline,
    /// The line `*N`.
    Count,
    /// The line `$len`, with this many arguments to come.
    BulkHeader { args_left: u32 },
    /// The bytes of an argument, with this many arguments to come, itself included.
    Bulk { args_left: u32, bytes: u32 },
}

/// The state of one connection's request stream between reads.
pub struct Decoder {
    limits: Limits,
    stage: Stage,
    /// The first byte not yet understood, from the start of the command.
    at: usize,
    /// No line ends before this byte.
    scanned: usize,
    /// How many bytes more are known to be needed.
    missing: usize,
    spans: Vec<Span>,
    /// An inline command with its quotes undone.
    text: Vec<u8>,
    failed: Option<ProtocolError>,
}

impl Decoder {
    /// A decoder at the beginning of a connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let mut decoder = Self {
            limits,
            stage: Stage::Start,
            at: 0,
            scanned: 0,
            missing: 0,
            spans: Vec::new(),
            text: Vec::new(),
            failed: None,
        };
        decoder.set_limits(limits);
        decoder
    }

    /// Other limits from the next length that is announced on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits =
            Limits { bulk_bytes_max: limits.bulk_bytes_max.min(VALUE_BYTES_MAX), ..limits };
    }

    /// The limits in force.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// The client has authenticated itself, or must do so again.
    pub fn set_authenticated(&mut self, authenticated: bool) {
        self.limits.authenticated = authenticated;
    }

    /// The next command of `buf`, or `None` if it is not all there yet.
    ///
    /// `buf` holds every byte since the last one consumed: after `None` the same bytes and more
    /// (they may have moved), after a command the bytes behind it.
    ///
    /// # Errors
    /// [`ProtocolError`]: answer it, close the connection; every later call returns the same.
    pub fn decode<'a>(&'a mut self, buf: &'a [u8]) -> Result<Option<Decoded<'a>>, ProtocolError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        assert!(
            buf.len() >= self.at.max(self.scanned),
            "the buffer lost bytes that were not consumed: {} left, {self:?}",
            buf.len()
        );
        match self.advance(buf) {
            Err(error) => {
                self.failed = Some(error);
                Err(error)
            }
            Ok(false) => Ok(None),
            Ok(true) => {
                let consumed = core::mem::take(&mut self.at);
                let inline = self.stage == Stage::Inline;
                self.stage = Stage::Start;
                self.scanned = 0;
                let source = if inline { &self.text } else { buf };
                let command = Command { source, spans: &self.spans, inline };
                Ok(Some(Decoded { command, consumed }))
            }
        }
    }

    /// After `None`: how many bytes more than `buffered` to make room for before the next read.
    ///
    /// Zero means that it is not known, so that any read will do. It never exceeds the larger of
    /// 64 KiB and `buffered`: an announced length is believed only as its bytes arrive.
    #[must_use]
    pub fn reserve_hint(&self, buffered: usize) -> usize {
        self.missing.min(buffered.max(RESERVE_BYTES_MAX))
    }

    /// Whether the connection is between two commands, so that it may be closed without loss.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Start
    }

    /// Understands as much of `buf` as there is; true once a command is complete.
    fn advance(&mut self, buf: &[u8]) -> Result<bool, ProtocolError> {
        loop {
            match self.stage {
                Stage::Start => {
                    let Some(first) = buf.first() else { return Ok(false) };
                    self.begin(*first);
                }
                Stage::Inline => return self.inline(buf),
                Stage::Count => {
                    let Some(count) = self.number(buf, Announced::Args)? else { return Ok(false) };
                    if count == 0 {
                        return Ok(true);
                    }
                    self.stage = Stage::BulkHeader { args_left: count };
                }
                Stage::BulkHeader { args_left } => {
                    match buf.get(self.at) {
                        None => return Ok(false),
                        Some(b'$') => {}
                        Some(&got) => return Err(ProtocolError::ExpectedBulk { got }),
                    }
                    let Some(bytes) = self.number(buf, Announced::Bytes)? else { return Ok(false) };
                    if self.at + bytes as usize > self.limits.command_bytes_max as usize {
                        return Err(ProtocolError::TooBigCommand);
                    }
                    self.stage = Stage::Bulk { args_left, bytes };
                }
                Stage::Bulk { args_left, bytes } => {
                    let end = self.at + bytes as usize;
                    match buf.get(end..end + 2) {
                        None => {
                            self.missing = end + 2 - buf.len();
                            return Ok(false);
                        }
                        Some(b"\r\n") => {}
                        Some(_) => return Err(ProtocolError::UnterminatedBulk),
                    }
                    self.spans.push(Span { start: self.at as u32, end: end as u32 });
                    self.at = end + 2;
                    self.missing = 0;
                    if args_left == 1 {
                        return Ok(true);
                    }
                    self.stage = Stage::BulkHeader { args_left: args_left - 1 };
                }
            }
        }
    }

    fn begin(&mut self, first: u8) {
        self.missing = 0;
        self.spans.clear();
        self.text.clear();
        // One huge command must not hold its memory for the rest of the connection's life.
        self.spans.shrink_to(ARGS_KEPT);
        self.text.shrink_to(ARGS_KEPT);
        self.stage = if first == b'*' { Stage::Count } else { Stage::Inline };
    }

    /// The number on the line at `at` whose first byte is its marker, and steps over the line.
    #[inline]
    fn number(&mut self, buf: &[u8], what: Announced) -> Result<Option<u32>, ProtocolError> {
        let line = &buf[self.at + 1..];
        let number = if let Some((number, length)) = quick_number(line) {
            self.at += 1 + length;
            i64::from(number)
        } else {
            let Some(end) = self.line_end(buf, what)? else { return Ok(None) };
            let digits = &buf[self.at + 1..end];
            self.at = end + 2;
            strict_number(digits).ok_or(what.invalid())?
        };
        what.check(number, &self.limits).map(Some)
    }

    /// Where the CR of the line at `at` stands, once its LF is there too.
    #[cold]
    fn line_end(&mut self, buf: &[u8], what: Announced) -> Result<Option<usize>, ProtocolError> {
        let from = self.scanned.max(self.at);
        let found = buf[from..].iter().position(|b| *b == b'\r');
        let end = found.map_or(buf.len(), |found| from + found);
        if end - self.at > self.limits.inline_bytes_max as usize {
            return Err(what.endless());
        }
        self.scanned = end;
        if found.is_none() {
            return Ok(None);
        }
        match buf.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some(end)),
            Some(_) => Err(what.invalid()),
        }
    }

    fn inline(&mut self, buf: &[u8]) -> Result<bool, ProtocolError> {
        // Redis looks for the LF in a C string: a line with a NUL in it never ends, only grows too
        // big. So does ours, that a client out of step is not taken for one that asks.
        let found = buf[self.scanned..].iter().position(|b| matches!(b, b'\n' | 0));
        self.scanned += found.unwrap_or(buf.len() - self.scanned);
        let ends = buf.get(self.scanned) == Some(&b'\n');
        let length = if ends { self.scanned } else { buf.len() };
        if length > self.limits.inline_bytes_max as usize {
            return Err(ProtocolError::TooBigInline);
        }
        if !ends {
            return Ok(false);
        }
        let line = &buf[..length];
        split_words(line.strip_suffix(b"\r").unwrap_or(line), &mut self.text, &mut self.spans)?;
        if !self.limits.authenticated && self.spans.len() > RESP_UNAUTHENTICATED_ARGS_MAX as usize {
            return Err(ProtocolError::UnauthenticatedMultibulk);
        }
        self.at = length + 1;
        Ok(true)
    }
}

/// Where it stands, but none of what it read: an argument may be a password.
impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("stage", &self.stage)
            .field("at", &self.at)
            .field("scanned", &self.scanned)
            .field("args", &self.spans.len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// What a length announces, and so which limits and which words apply.
#[derive(Clone, Copy)]
enum Announced {
    Args,
    Bytes,
}

impl Announced {
    const fn invalid(self) -> ProtocolError {
        match self {
            Self::Args => ProtocolError::InvalidMultibulkLength,
            Self::Bytes => ProtocolError::InvalidBulkLength,
        }
    }

    const fn endless(self) -> ProtocolError {
        match self {
            Self::Args => ProtocolError::TooBigMultibulkCount,
            Self::Bytes => ProtocolError::TooBigBulkCount,
        }
    }

    #[inline]
    fn check(self, number: i64, limits: &Limits) -> Result<u32, ProtocolError> {
        let (lowest, highest) = match self {
            // Redis takes a negative count for an empty command.
            Self::Args => (i64::MIN, limits.args_max),
            Self::Bytes => (0, limits.bulk_bytes_max),
        };
        if number < lowest || number > i64::from(highest) {
            return Err(self.invalid());
        }
        if !limits.authenticated {
            match self {
                Self::Args if number > i64::from(RESP_UNAUTHENTICATED_ARGS_MAX) => {
                    return Err(ProtocolError::UnauthenticatedMultibulk);
                }
                Self::Bytes if number > i64::from(RESP_UNAUTHENTICATED_BULK_BYTES_MAX) => {
                    return Err(ProtocolError::UnauthenticatedBulk);
                }
                Self::Args | Self::Bytes => {}
            }
        }
        Ok(number.max(0) as u32)
    }
}

/// A number of up to nine digits and the length of its line, if the line is whole and plain.
#[inline]
fn quick_number(line: &[u8]) -> Option<(u32, usize)> {
    let mut number = 0;
    for (i, byte) in line.iter().take(10).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 && i < 9 {
            number = number * 10 + u32::from(digit);
            continue;
        }
        let plain = i == 1 || (i > 1 && line[0] != b'0');
        let ends = *byte == b'\r' && line.get(i + 1) == Some(&b'\n');
        return (plain && ends).then_some((number, i + 2));
    }
    None
}

/// A decimal number as Redis reads one: no sign but `-`, no leading zeros, no blanks.
fn strict_number(digits: &[u8]) -> Option<i64> {
    let magnitude = digits.strip_prefix(b"-").unwrap_or(digits);
    match magnitude {
        [b'0'] if magnitude.len() == digits.len() => Some(0),
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => {
            core::str::from_utf8(digits).ok()?.parse().ok()
        }
        _ => None,
    }
}
