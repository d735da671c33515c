//! Inline commands: a line of text split into words, with Redis's quoting undone.

use crate::resp::decode::{ProtocolError, Span};

/// Splits an inline command into words as Redis does: blanks separate; `"…"` knows `\n \r \t \b \a
/// \xHH` and takes any other escaped byte as itself; `'…'` knows only `\'`.
pub(super) fn split_words(
    line: &[u8],
    text: &mut Vec<u8>,
    spans: &mut Vec<Span>,
) -> Result<(), ProtocolError> {
    let mut rest = line;
    loop {
        let blanks = rest.iter().take_while(|b| is_blank(**b)).count();
        rest = &rest[blanks..];
        if rest.is_empty() {
            return Ok(());
        }
        let start = text.len() as u32;
        rest = word(rest, text)?;
        spans.push(Span { start, end: text.len() as u32 });
    }
}

/// Appends the first word of `rest` to `text`; returns what follows it.
fn word<'b>(mut rest: &'b [u8], text: &mut Vec<u8>) -> Result<&'b [u8], ProtocolError> {
    loop {
        rest = match rest {
            [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => return Ok(rest),
            [b'"', inside @ ..] => return closed(double_quoted(inside, text)?),
            [b'\'', inside @ ..] => return closed(single_quoted(inside, text)?),
            [byte, after @ ..] => {
                text.push(*byte);
                after
            }
        }
    }
}

/// A closing quote ends the word: what follows it must be a blank or the end.
fn closed(rest: &[u8]) -> Result<&[u8], ProtocolError> {
    match rest.first() {
        Some(byte) if !is_blank(*byte) => Err(ProtocolError::UnbalancedQuotes),
        _ => Ok(rest),
    }
}

fn double_quoted<'b>(mut rest: &'b [u8], text: &mut Vec<u8>) -> Result<&'b [u8], ProtocolError> {
    loop {
        rest = match rest {
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                text.push(hex(*high) << 4 | hex(*low));
                after
            }
            [b'\\', escaped, after @ ..] => {
                text.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                after
            }
            [b'"', after @ ..] => return Ok(after),
            [] => return Err(ProtocolError::UnbalancedQuotes),
            [byte, after @ ..] => {
                text.push(*byte);
                after
            }
        }
    }
}

fn single_quoted<'b>(mut rest: &'b [u8], text: &mut Vec<u8>) -> Result<&'b [u8], ProtocolError> {
    loop {
        rest = match rest {
            [b'\\', b'\'', after @ ..] => {
                text.push(b'\'');
                after
            }
            [b'\'', after @ ..] => return Ok(after),
            [] => return Err(ProtocolError::UnbalancedQuotes),
            [byte, after @ ..] => {
                text.push(*byte);
                after
            }
        }
    }
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}
