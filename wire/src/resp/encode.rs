//! Encoding replies: a [`Reply`] as bytes, and the same piece by piece without building one.
//!
//! The `write_*` functions append one element; an aggregate is its header followed by its elements.
//! Those whose form depends on the version take it as [`Protocol`]. Nothing allocates but `out`
//! itself, and no text can break a line: CR and LF in statuses and errors are sent as blanks.

use bytes::BufMut;

use crate::resp::double::DoubleText;
use crate::resp::reply::Reply;

/// Which version of RESP a client speaks; it starts with 2 and may change with `HELLO 3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Five types.
    #[default]
    Resp2,
    /// Also maps, sets, doubles, booleans, one null, and pushed messages.
    Resp3,
}

/// Appends `reply` as a client of `protocol` reads it.
pub fn encode(reply: &Reply, protocol: Protocol, out: &mut impl BufMut) {
    match reply {
        Reply::Simple(text) => write_simple(out, text),
        Reply::Error(text) => write_error(out, text),
        Reply::Integer(number) => write_integer(out, *number),
        Reply::Bulk(bytes) => write_bulk(out, bytes),
        Reply::Double(number) => write_double(out, protocol, *number),
        Reply::Boolean(truth) => write_boolean(out, protocol, *truth),
        Reply::BigNumber(digits) => write_big_number(out, protocol, digits),
        Reply::Null => write_null(out, protocol),
        Reply::NullArray => write_null_array(out, protocol),
        Reply::Array(items) => {
            write_array(out, items.len());
            encode_all(items, protocol, out);
        }
        Reply::Set(items) => {
            write_set(out, protocol, items.len());
            encode_all(items, protocol, out);
        }
        Reply::Push(items) => {
            write_push(out, protocol, items.len());
            encode_all(items, protocol, out);
        }
        Reply::Map(pairs) => {
            write_map(out, protocol, pairs.len());
            for (key, value) in pairs {
                encode(key, protocol, out);
                encode(value, protocol, out);
            }
        }
        Reply::Verbatim { format, text } => write_verbatim(out, protocol, *format, text),
    }
}

fn encode_all(items: &[Reply], protocol: Protocol, out: &mut impl BufMut) {
    for item in items {
        encode(item, protocol, out);
    }
}

/// The usual status of success.
#[inline]
pub fn write_ok(out: &mut impl BufMut) {
    out.put_slice(b"+OK\r\n");
}

/// A status.
pub fn write_simple(out: &mut impl BufMut, text: &str) {
    write_line(out, b'+', text);
}

/// An error, code first: `"ERR syntax error"`.
pub fn write_error(out: &mut impl BufMut, text: &str) {
    write_line(out, b'-', text);
}

/// An integer.
#[inline]
pub fn write_integer(out: &mut impl BufMut, number: i64) {
    let mut line = Line::new(b':');
    line.decimal(number);
    line.end(out);
}

/// A string of bytes.
#[inline]
pub fn write_bulk(out: &mut impl BufMut, bytes: &[u8]) {
    write_header(out, b'$', bytes.len());
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

/// No value.
#[inline]
pub fn write_null(out: &mut impl BufMut, protocol: Protocol) {
    out.put_slice(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// No value where a list was asked for.
pub fn write_null_array(out: &mut impl BufMut, protocol: Protocol) {
    out.put_slice(match protocol {
        Protocol::Resp2 => b"*-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// The header of a list of `items`.
#[inline]
pub fn write_array(out: &mut impl BufMut, items: usize) {
    write_header(out, b'*', items);
}

/// The header of a map; `pairs` keys follow, each with its value.
pub fn write_map(out: &mut impl BufMut, protocol: Protocol, pairs: usize) {
    match protocol {
        Protocol::Resp2 => write_header(out, b'*', pairs * 2),
        Protocol::Resp3 => write_header(out, b'%', pairs),
    }
}

/// The header of a set of `items`.
pub fn write_set(out: &mut impl BufMut, protocol: Protocol, items: usize) {
    match protocol {
        Protocol::Resp2 => write_header(out, b'*', items),
        Protocol::Resp3 => write_header(out, b'~', items),
    }
}

/// The header of a pushed message of `items`.
pub fn write_push(out: &mut impl BufMut, protocol: Protocol, items: usize) {
    match protocol {
        Protocol::Resp2 => write_header(out, b'*', items),
        Protocol::Resp3 => write_header(out, b'>', items),
    }
}

/// A number.
pub fn write_double(out: &mut impl BufMut, protocol: Protocol, number: f64) {
    let text = DoubleText::new(number);
    match protocol {
        Protocol::Resp2 => write_bulk(out, text.as_bytes()),
        Protocol::Resp3 => {
            out.put_u8(b',');
            out.put_slice(text.as_bytes());
            out.put_slice(b"\r\n");
        }
    }
}

/// True or false.
pub fn write_boolean(out: &mut impl BufMut, protocol: Protocol, truth: bool) {
    out.put_slice(match (protocol, truth) {
        (Protocol::Resp2, true) => b":1\r\n",
        (Protocol::Resp2, false) => b":0\r\n",
        (Protocol::Resp3, true) => b"#t\r\n",
        (Protocol::Resp3, false) => b"#f\r\n",
    });
}

/// A decimal integer of any size, given as its digits.
pub fn write_big_number(out: &mut impl BufMut, protocol: Protocol, digits: &str) {
    match protocol {
        Protocol::Resp2 => write_bulk(out, digits.as_bytes()),
        Protocol::Resp3 => write_line(out, b'(', digits),
    }
}

/// A text for people, with its kind (`txt`, `mkd`).
pub fn write_verbatim(out: &mut impl BufMut, protocol: Protocol, format: [u8; 3], text: &[u8]) {
    match protocol {
        Protocol::Resp2 => write_bulk(out, text),
        Protocol::Resp3 => {
            write_header(out, b'=', text.len() + 4);
            out.put_slice(&format);
            out.put_u8(b':');
            out.put_slice(text);
            out.put_slice(b"\r\n");
        }
    }
}

/// A request: the header of a command and its arguments, as a client sends it.
pub fn write_command(out: &mut impl BufMut, args: &[&[u8]]) {
    write_array(out, args.len());
    for arg in args {
        write_bulk(out, arg);
    }
}

#[inline]
fn write_header(out: &mut impl BufMut, marker: u8, count: usize) {
    let mut line = Line::new(marker);
    line.unsigned(count as u64);
    line.end(out);
}

fn write_line(out: &mut impl BufMut, marker: u8, text: &str) {
    out.put_u8(marker);
    let mut pieces = text.as_bytes().split(|b| matches!(b, b'\r' | b'\n'));
    out.put_slice(pieces.next().unwrap_or_default());
    for piece in pieces {
        out.put_u8(b' ');
        out.put_slice(piece);
    }
    out.put_slice(b"\r\n");
}

/// The decimal digits of `number` and, if negative, its sign, appended to `out`.
pub fn write_decimal(out: &mut impl BufMut, number: i64) {
    let mut line = Line::new(b':');
    line.decimal(number);
    out.put_slice(line.text());
}

/// A marker and a number, built in place so that they are appended in one go.
pub(super) struct Line {
    bytes: [u8; 24],
    length: usize,
}

impl Line {
    #[inline]
    pub(super) const fn new(marker: u8) -> Self {
        let mut bytes = [0; 24];
        bytes[0] = marker;
        Self { bytes, length: 1 }
    }

    #[inline]
    pub(super) fn decimal(&mut self, number: i64) {
        if number < 0 {
            self.bytes[1] = b'-';
            self.length = 2;
        }
        self.unsigned(number.unsigned_abs());
    }

    #[inline]
    fn unsigned(&mut self, mut number: u64) {
        let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
        let end = self.length + digits;
        for place in self.bytes[self.length..end].iter_mut().rev() {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.length = end;
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.bytes[1..self.length]
    }

    #[inline]
    fn end(mut self, out: &mut impl BufMut) {
        self.bytes[self.length] = b'\r';
        self.bytes[self.length + 1] = b'\n';
        out.put_slice(&self.bytes[..self.length + 2]);
    }
}
