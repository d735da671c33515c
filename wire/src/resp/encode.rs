//! Encoding replies: a [`Reply`] as bytes, and the same piece by piece without building one.
//!
//! The `write_*` functions append one element; an aggregate is its header followed by its elements.
//! Those whose form depends on the version take it as [`Protocol`]. Nothing allocates but `out`
//! itself, and no text can break a line: CR and LF in statuses and errors are sent as blanks.

use core::fmt::Write as _;

use bytes::BufMut;

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
struct Line {
    bytes: [u8; 24],
    length: usize,
}

impl Line {
    #[inline]
    const fn new(marker: u8) -> Self {
        let mut bytes = [0; 24];
        bytes[0] = marker;
        Self { bytes, length: 1 }
    }

    #[inline]
    fn decimal(&mut self, number: i64) {
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

    fn text(&self) -> &[u8] {
        &self.bytes[1..self.length]
    }

    #[inline]
    fn end(mut self, out: &mut impl BufMut) {
        self.bytes[self.length] = b'\r';
        self.bytes[self.length + 1] = b'\n';
        out.put_slice(&self.bytes[..self.length + 2]);
    }
}

/// A double as Redis 7.2 prints it: whole numbers below 2^52 without a point, otherwise the
/// shortest digits that read back as the same number, with an exponent when that is shorter.
#[derive(Clone, Copy, Debug)]
pub struct DoubleText {
    bytes: [u8; 32],
    length: usize,
}

impl DoubleText {
    /// The text of `number`.
    #[must_use]
    pub fn new(number: f64) -> Self {
        const WHOLE_MAX: f64 = (1_u64 << 52) as f64;
        let mut text = Self { bytes: [0; 32], length: 0 };
        if number.is_nan() {
            text.push(b"nan");
        } else if number.is_infinite() {
            text.push(if number > 0.0 { b"inf" } else { b"-inf" });
        } else if number == 0.0 {
            text.push(if number.is_sign_negative() { b"-0" } else { b"0" });
        } else if number.abs() < WHOLE_MAX && number.trunc() == number {
            let mut line = Line::new(b',');
            line.decimal(number as i64);
            text.push(line.text());
        } else {
            text.shortest(number);
        }
        text
    }

    /// The text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn push_zeros(&mut self, count: usize) {
        self.bytes[self.length..self.length + count].fill(b'0');
        self.length += count;
    }

    fn shortest(&mut self, number: f64) {
        // The standard library finds the digits: d.ddde±x, at most 17 of them.
        let mut scientific = Self { bytes: [0; 32], length: 0 };
        write!(scientific, "{:e}", number.abs()).expect("17 digits and an exponent fit 32 bytes");
        let mut digits = [0; 17];
        let mut count = 0;
        let mut exponent = 0;
        for (i, byte) in scientific.as_bytes().iter().enumerate() {
            match byte {
                b'e' => {
                    exponent = core::str::from_utf8(&scientific.as_bytes()[i + 1..])
                        .ok()
                        .and_then(|text| text.parse::<i32>().ok())
                        .expect("the standard library prints an integer after e");
                    break;
                }
                b'.' => {}
                digit => {
                    digits[count] = *digit;
                    count += 1;
                }
            }
        }
        if number < 0.0 {
            self.push(b"-");
        }
        self.place(&digits[..count], exponent, number < 0.0);
    }

    /// Puts the point among `digits`, whose first stands for units of 10^`exponent`.
    fn place(&mut self, digits: &[u8], exponent: i32, negative: bool) {
        let count = digits.len() as i32;
        // The power of ten of the last digit.
        let last = exponent - (count - 1);
        let trailing_zeros_max = if negative { 6 } else { 7 };
        if last >= 0 && exponent.abs() < count + trailing_zeros_max {
            self.push(digits);
            self.push_zeros(last as usize);
        } else if last < 0 && (last > -7 || exponent.abs() < 4) {
            if exponent < 0 {
                self.push(b"0.");
                self.push_zeros((-exponent - 1) as usize);
                self.push(digits);
            } else {
                let (whole, fraction) = digits.split_at(exponent as usize + 1);
                self.push(whole);
                self.push(b".");
                self.push(fraction);
            }
        } else {
            self.push(&digits[..1]);
            if count > 1 {
                self.push(b".");
                self.push(&digits[1..]);
            }
            write!(self, "e{exponent:+}").expect("an exponent of three digits fits");
        }
    }
}

impl core::fmt::Write for DoubleText {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        if self.length + text.len() > self.bytes.len() {
            return Err(core::fmt::Error);
        }
        self.push(text.as_bytes());
        Ok(())
    }
}
