//! DoubleText: a double as decimal text, the way Redis writes one, without allocating.

use core::fmt::Write as _;

use crate::resp::encode::Line;

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
