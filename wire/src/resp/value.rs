//! ReplyDecoder: replies read back, for clients, tools and tests.
//!
//! Both versions of RESP in one grammar, pushed messages and attributes included; values are owned.
//! Promises: work in proportion to the bytes that arrived, memory in proportion to them whatever
//! was announced, and no recursion: nesting is a list, [`REPLY_DEPTH_MAX`] long at most.

use core::fmt;

use bytes::Bytes;

use crate::limits::{REPLY_BYTES_MAX, REPLY_DEPTH_MAX, REPLY_LINE_BYTES_MAX, RESERVE_BYTES_MAX};
use crate::resp::reply::Reply;

/// For how many announced elements room is made before they arrive.
const RESERVED_ELEMENTS: usize = 64;

/// A whole reply.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplyRead {
    /// The reply; [`Reply::Push`] answers no request.
    pub reply: Reply,
    /// What the server says about the reply beside it; inner elements' attributes are dropped.
    pub attributes: Vec<(Reply, Reply)>,
    /// Drop this many bytes from the front of the buffer before the next call.
    pub consumed: usize,
}

/// Why a server's replies cannot be understood any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// No type begins with this byte.
    UnknownType {
        /// The byte.
        marker: u8,
    },
    /// A length or a count is no number, or negative where none may be.
    InvalidLength,
    /// A line does not read as its type: a number with letters, a boolean that is neither.
    InvalidLine,
    /// A string is not followed by CR LF.
    Unterminated,
    /// Nested more deeply than [`REPLY_DEPTH_MAX`].
    TooDeep,
    /// The reply, or a line of it, is above its limit.
    TooLarge,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownType { marker } => {
                write!(f, "no reply begins with '{}'", marker.escape_ascii())
            }
            Self::InvalidLength => f.write_str("a reply announces an impossible length"),
            Self::InvalidLine => f.write_str("a line of a reply does not fit its type"),
            Self::Unterminated => f.write_str("a string in a reply does not end with CRLF"),
            Self::TooDeep => write!(f, "a reply nests more than {REPLY_DEPTH_MAX} deep"),
            Self::TooLarge => f.write_str("a reply is larger than the limit"),
        }
    }
}

impl std::error::Error for ReplyError {}

/// What holds elements.
#[derive(Clone, Copy, Debug)]
enum Holder {
    Array,
    Set,
    Push,
    Map,
    Attribute,
}

/// A list or map that is still arriving.
#[derive(Debug)]
struct Partial {
    holder: Holder,
    left: usize,
    items: Vec<Reply>,
}

/// What stands at a place of the stream.
enum Element {
    Whole(Reply),
    Opens(Holder, usize),
}

/// The state of one connection's replies between reads.
#[derive(Debug)]
pub struct ReplyDecoder {
    bytes_max: usize,
    /// The first byte not yet understood, from the start of the reply.
    at: usize,
    /// No line ends before this byte.
    scanned: usize,
    missing: usize,
    open: Vec<Partial>,
    attributes: Vec<(Reply, Reply)>,
    failed: Option<ReplyError>,
}

impl Default for ReplyDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplyDecoder {
    /// A decoder at the beginning of a connection.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes_max: REPLY_BYTES_MAX,
            at: 0,
            scanned: 0,
            missing: 0,
            open: Vec::new(),
            attributes: Vec::new(),
            failed: None,
        }
    }

    /// The same with another limit on the bytes of a reply.
    #[must_use]
    pub fn with_bytes_max(self, bytes_max: usize) -> Self {
        Self { bytes_max, ..self }
    }

    /// The next reply of `buf`, or `None` if it is not all there yet.
    ///
    /// `buf` holds every byte since the last one consumed.
    ///
    /// # Errors
    /// [`ReplyError`]: close the connection; every later call returns the same.
    pub fn decode(&mut self, buf: &[u8]) -> Result<Option<ReplyRead>, ReplyError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match self.advance(buf) {
            Err(error) => {
                self.failed = Some(error);
                self.open = Vec::new();
                Err(error)
            }
            Ok(None) => Ok(None),
            Ok(Some(reply)) => {
                let attributes = core::mem::take(&mut self.attributes);
                let consumed = core::mem::take(&mut self.at);
                self.scanned = 0;
                Ok(Some(ReplyRead { reply, attributes, consumed }))
            }
        }
    }

    /// After `None`: how many bytes more than `buffered` to make room for before the next read; 0
    /// if that is not known. It never exceeds the larger of 64 KiB and `buffered`.
    #[must_use]
    pub fn reserve_hint(&self, buffered: usize) -> usize {
        self.missing.min(buffered.max(RESERVE_BYTES_MAX))
    }

    fn advance(&mut self, buf: &[u8]) -> Result<Option<Reply>, ReplyError> {
        self.missing = 0;
        loop {
            match self.element(buf)? {
                None => return Ok(None),
                Some(Element::Whole(reply)) => {
                    if let Some(reply) = self.settle(reply) {
                        return Ok(Some(reply));
                    }
                }
                Some(Element::Opens(holder, left)) => {
                    if self.open.len() >= REPLY_DEPTH_MAX {
                        return Err(ReplyError::TooDeep);
                    }
                    let items = Vec::with_capacity(left.min(RESERVED_ELEMENTS));
                    self.open.push(Partial { holder, left, items });
                    if left == 0
                        && let Some(reply) = self.close()
                    {
                        return Ok(Some(reply));
                    }
                }
            }
        }
    }

    /// Gives a whole value to what holds it; returns it once nothing does.
    fn settle(&mut self, reply: Reply) -> Option<Reply> {
        let Some(holder) = self.open.last_mut() else { return Some(reply) };
        holder.items.push(reply);
        holder.left -= 1;
        if holder.left == 0 { self.close() } else { None }
    }

    /// Closes the innermost holder, and whatever that completes in turn.
    fn close(&mut self) -> Option<Reply> {
        loop {
            let Partial { holder, items, .. } = self.open.pop()?;
            let reply = match holder {
                Holder::Array => Reply::Array(items),
                Holder::Set => Reply::Set(items),
                Holder::Push => Reply::Push(items),
                Holder::Map => Reply::Map(pairs(items)),
                Holder::Attribute => {
                    if self.open.is_empty() {
                        self.attributes.extend(pairs(items));
                    }
                    return None;
                }
            };
            let Some(outer) = self.open.last_mut() else { return Some(reply) };
            outer.items.push(reply);
            outer.left -= 1;
            if outer.left > 0 {
                return None;
            }
        }
    }

    /// Reads what stands at `at` and steps over it; `None` if it is not all there.
    fn element(&mut self, buf: &[u8]) -> Result<Option<Element>, ReplyError> {
        let Some(&marker) = buf.get(self.at) else { return Ok(None) };
        if !b"+-:$*_,#!=(%~>|".contains(&marker) {
            return Err(ReplyError::UnknownType { marker });
        }
        let Some(end) = self.line_end(buf)? else { return Ok(None) };
        let line = &buf[self.at + 1..end];
        let after = end + 2;
        let element = match marker {
            b'$' | b'!' | b'=' => {
                let length = integer(line).ok_or(ReplyError::InvalidLength)?;
                if marker == b'$' && length == -1 {
                    Element::Whole(Reply::Null)
                } else {
                    let Some(bytes) = self.string(buf, after, length)? else { return Ok(None) };
                    let whole = string(marker, bytes)?;
                    self.at = after + bytes.len() + 2;
                    return Ok(Some(Element::Whole(whole)));
                }
            }
            b'*' if line == b"-1" => Element::Whole(Reply::NullArray),
            b'*' => Element::Opens(Holder::Array, count(line)?),
            b'~' => Element::Opens(Holder::Set, count(line)?),
            b'>' => Element::Opens(Holder::Push, count(line)?),
            b'%' => Element::Opens(Holder::Map, 2 * count(line)?),
            b'|' => Element::Opens(Holder::Attribute, 2 * count(line)?),
            _ => Element::Whole(plain(marker, line)?),
        };
        self.at = after;
        Ok(Some(element))
    }

    /// Where the CR of the line at `at` stands, once its LF is there too.
    fn line_end(&mut self, buf: &[u8]) -> Result<Option<usize>, ReplyError> {
        let from = self.scanned.max(self.at);
        let found = buf[from..].iter().position(|b| *b == b'\r');
        let end = found.map_or(buf.len(), |found| from + found);
        if end - self.at > REPLY_LINE_BYTES_MAX || end > self.bytes_max {
            return Err(ReplyError::TooLarge);
        }
        self.scanned = end;
        match (found, buf.get(end + 1)) {
            (None, _) | (Some(_), None) => Ok(None),
            (Some(_), Some(b'\n')) => Ok(Some(end)),
            (Some(_), Some(_)) => Err(ReplyError::InvalidLine),
        }
    }

    /// The `length` bytes at `from`, once they and their CR LF are there.
    fn string<'b>(
        &mut self,
        buf: &'b [u8],
        from: usize,
        length: i64,
    ) -> Result<Option<&'b [u8]>, ReplyError> {
        let length = usize::try_from(length).map_err(|_| ReplyError::InvalidLength)?;
        let end = from.checked_add(length).ok_or(ReplyError::TooLarge)?;
        if end > self.bytes_max {
            return Err(ReplyError::TooLarge);
        }
        match buf.get(end..end + 2) {
            None => {
                self.missing = end + 2 - buf.len();
                Ok(None)
            }
            Some(b"\r\n") => Ok(Some(&buf[from..end])),
            Some(_) => Err(ReplyError::Unterminated),
        }
    }
}

/// The number of elements of a list; its double must be a number too.
fn count(line: &[u8]) -> Result<usize, ReplyError> {
    integer(line)
        .and_then(|count| u32::try_from(count).ok())
        .map(|count| count as usize)
        .ok_or(ReplyError::InvalidLength)
}

fn integer(line: &[u8]) -> Option<i64> {
    core::str::from_utf8(line).ok()?.parse().ok()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A string with a length before it.
fn string(marker: u8, bytes: &[u8]) -> Result<Reply, ReplyError> {
    Ok(match (marker, bytes) {
        (b'!', _) => Reply::Error(text(bytes).into()),
        (b'=', [a, b, c, b':', rest @ ..]) => {
            Reply::Verbatim { format: [*a, *b, *c], text: Bytes::copy_from_slice(rest) }
        }
        (b'=', _) => return Err(ReplyError::InvalidLine),
        _ => Reply::Bulk(Bytes::copy_from_slice(bytes)),
    })
}

/// A value that is a line.
fn plain(marker: u8, line: &[u8]) -> Result<Reply, ReplyError> {
    let reply = match (marker, line) {
        (b'+', _) => Some(Reply::Simple(text(line).into())),
        (b'-', _) => Some(Reply::Error(text(line).into())),
        (b':', _) => integer(line).map(Reply::Integer),
        (b',', _) => {
            core::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).map(Reply::Double)
        }
        (b'(', [b'-', digits @ ..] | digits)
            if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) =>
        {
            Some(Reply::BigNumber(text(line).into()))
        }
        (b'#', b"t") => Some(Reply::Boolean(true)),
        (b'#', b"f") => Some(Reply::Boolean(false)),
        (b'_', b"") => Some(Reply::Null),
        _ => None,
    };
    reply.ok_or(ReplyError::InvalidLine)
}

fn pairs(items: Vec<Reply>) -> Vec<(Reply, Reply)> {
    let mut pairs = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    pairs
}
