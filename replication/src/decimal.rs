//! Decimals: exact numbers for counters, so that the order of additions cannot matter.
//!
//! A number is an integer count of 10⁻¹⁷ in 128 bits: every 64-bit integer fits with room to spare,
//! and 17 digits behind the point are what Redis prints. Binary floating point would make the value
//! of a counter depend on the order in which replicas learn of its increments.

/// How many units make one.
pub const ONE: i128 = 100_000_000_000_000_000;

/// Digits behind the point.
const SCALE: usize = 17;

/// The decimal of a 64-bit integer.
#[must_use]
pub fn of_integer(v: i64) -> i128 {
    i128::from(v) * ONE
}

/// The 64-bit integer that `v` is, if it is one.
#[must_use]
pub fn to_integer(v: i128) -> Option<i64> {
    (v % ONE == 0).then_some(v / ONE).and_then(|whole| i64::try_from(whole).ok())
}

/// The 64-bit integer that `text` is, in the one spelling that Redis accepts: no sign but a single
/// minus, no leading zeros, no blanks.
#[must_use]
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [] => false,
        [b'0'] => text.len() == 1,
        [b'0', ..] => false,
        _ => digits.iter().all(u8::is_ascii_digit),
    };
    if !canonical {
        return None;
    }
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// The decimal that `text` is: digits with an optional sign, point and exponent. Digits beyond the
/// 17th behind the point are rounded half away from zero. `None` if it is no number, or too large.
#[must_use]
pub fn parse(text: &[u8]) -> Option<i128> {
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let split = rest.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(rest.len());
    let (mantissa, exponent) = rest.split_at(split);
    let exponent: i32 = match exponent {
        [] => 0,
        [_, sign_and_digits @ ..] => {
            let digits = sign_and_digits.strip_prefix(b"+").unwrap_or(sign_and_digits);
            core::str::from_utf8(digits).ok()?.parse().ok()?
        }
    };
    let point = mantissa.iter().position(|b| *b == b'.').unwrap_or(mantissa.len());
    let whole = &mantissa[..point];
    let fraction = mantissa.get(point + 1..).unwrap_or(&[]);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    // The value is the digits, read as one integer, times 10^power units.
    let mut power = i64::from(exponent) - fraction.len() as i64 + SCALE as i64;
    let mut digits: Vec<u8> = Vec::with_capacity(mantissa.len());
    for b in whole.iter().chain(fraction) {
        if !b.is_ascii_digit() {
            return None;
        }
        digits.push(b - b'0');
    }
    let mut round_up = false;
    while power < 0 {
        let Some(last) = digits.pop() else { return Some(0) };
        round_up = last >= 5;
        power += 1;
    }
    let mut value: i128 = 0;
    for d in digits {
        value = value.checked_mul(10)?.checked_add(i128::from(d))?;
    }
    if value != 0 {
        value = value.checked_mul(10i128.checked_pow(u32::try_from(power).ok()?)?)?;
    }
    value = value.checked_add(i128::from(round_up))?;
    Some(if negative { -value } else { value })
}

/// The shortest text of `v`: no exponent, no trailing zeros.
#[must_use]
pub fn format(v: i128) -> String {
    let sign = if v < 0 { "-" } else { "" };
    let (whole, fraction) =
        (v.unsigned_abs() / ONE.unsigned_abs(), v.unsigned_abs() % ONE.unsigned_abs());
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let digits = format!("{fraction:0SCALE$}");
    format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_written_exactly() {
        for (text, shown) in [
            ("0", "0"),
            ("10.50", "10.5"),
            ("-3.14", "-3.14"),
            ("5.0e3", "5000"),
            ("1e-17", "0.00000000000000001"),
            ("4e-18", "0"),
            ("6e-18", "0.00000000000000001"),
            (".5", "0.5"),
            ("9223372036854775807", "9223372036854775807"),
            ("0.1", "0.1"),
        ] {
            assert_eq!(parse(text.as_bytes()).map(format).as_deref(), Some(shown), "{text}");
        }
        for bad in ["", "-", ".", "1.2.3", "abc", "1e", "nan", "inf", " 1", "1 ", "1e400"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_tenth_ten_times_is_one() {
        let tenth = parse(b"0.1").expect("a number");
        assert_eq!(format(tenth * 10), "1");
    }

    #[test]
    fn integers_have_one_spelling() {
        for good in ["0", "-1", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(
                parse_integer(good.as_bytes()).map(|v| v.to_string()).as_deref(),
                Some(good)
            );
        }
        for bad in ["", "-", "-0", "01", "+1", " 1", "1.0", "9223372036854775808"] {
            assert_eq!(parse_integer(bad.as_bytes()), None, "{bad}");
        }
    }
}
