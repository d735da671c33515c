//! Args: reading a command's arguments as Redis reads them.

use replication::row::{self, Row};
use wire::limits::KEY_BYTES_MAX;

use crate::errors::Fault;
use crate::turn::Ask;

/// Whether an argument is this word, in any case.
pub(crate) fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// An integer in its one canonical form: no sign but a minus, no leading zeros, no blanks.
pub(crate) fn canonical(arg: &[u8]) -> Option<i64> {
    let digits = arg.strip_prefix(b"-").unwrap_or(arg);
    let canonical = match digits {
        [b'0'] => digits.len() == arg.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical || arg.len() > 20 {
        return None;
    }
    core::str::from_utf8(arg).ok()?.parse().ok()
}

/// The same, or the error that Redis gives.
pub(crate) fn integer(arg: &[u8]) -> Result<i64, Fault> {
    canonical(arg).ok_or(Fault::NotInteger)
}

/// The row of a key.
pub(crate) fn row_of(ask: &Ask, key: &[u8]) -> Result<Row, Fault> {
    if key.len() > KEY_BYTES_MAX as usize {
        return Err(Fault::KeyTooLong);
    }
    Ok(row::of_key(ask.keyspace, key))
}

/// An argument as text, as far as it is text.
pub(crate) fn text(arg: &[u8]) -> String {
    String::from_utf8_lossy(arg).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_form_of_an_integer_is_one() {
        for good in [0, 1, -1, 10, i64::MAX, i64::MIN] {
            assert_eq!(canonical(good.to_string().as_bytes()), Some(good));
        }
        for bad in ["", "-", "-0", "01", "+1", " 1", "1 ", "1.0", "9223372036854775808", "a"] {
            assert_eq!(canonical(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
