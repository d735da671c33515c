//! Numbers as people read them.

use std::time::Duration;

/// A size: `41.2 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut scaled = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be written as 1024.0 belongs to the next unit.
    while scaled >= 1023.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// A count: `9,214`, `38.1M`.
pub(crate) fn count(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..100_000 => format!("{},{:03}", count / 1_000, count % 1_000),
        100_000..1_000_000_000 => format!("{:.1}M", count as f64 / 1e6),
        _ => format!("{:.1}G", count as f64 / 1e9),
    }
}

/// A duration in its two largest units: `6m12s`.
pub(crate) fn duration(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        0 => format!("{}ms", time.as_millis()),
        1..60 => format!("{s}s"),
        60..3_600 => format!("{}m{:02}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h{:02}m", s / 3_600, s / 60 % 60),
        _ => format!("{}d{:02}h", s / 86_400, s / 3_600 % 24),
    }
}

/// A moment, given in milliseconds since 1970: `2026-11-25T20:41:48.120Z`.
pub(crate) fn rfc3339(ms: u64) -> String {
    let (s, ms) = (ms / 1_000, ms % 1_000);
    let (days, s) = (s / 86_400, s % 86_400);
    // Days since the first of March of the year 0: leap days come last in such a year.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (year, day) = (year + era * 400, day - (153 * month + 2) / 5 + 1);
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    let (h, m, s) = (s / 3_600, s / 60 % 60, s % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
}

/// At most `chars` characters of a text, with a sign that there was more.
pub(crate) fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// A share: `33.3%`.
pub(crate) fn share(fraction: f64) -> String {
    format!("{:.1}%", fraction * 100.0)
}

/// A share that says `100%` only if it is all, and `0%` only if it is nothing.
pub(crate) fn part(fraction: f64) -> String {
    if fraction >= 1.0 {
        return "100%".into();
    }
    if fraction <= 0.0 {
        return "0%".into();
    }
    format!("{:.1}%", (fraction * 100.0).clamp(0.1, 99.9))
}

/// A number of things: `1 node`, `2 nodes`.
pub(crate) fn things(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_their_dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_790_000_000_123), "2026-09-21T14:13:20.123Z");
        assert_eq!(rfc3339(4_107_542_399_999), "2100-02-28T23:59:59.999Z");
        assert_eq!(rfc3339(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0, 1023, 1024, 44_238_189_363].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "41.2 GiB"]
        );
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!([7, 18_442, 38_100_000].map(count), ["7", "18,442", "38.1M"]);
        assert_eq!(
            [840, 12_000, 372_000, 7_500_000, 100_000_000]
                .map(|ms| duration(Duration::from_millis(ms))),
            ["840ms", "12s", "6m12s", "2h05m", "1d03h"]
        );
        assert_eq!(
            [1.0, 0.99999, 0.0, 0.0001, 1.0 / 3.0].map(part),
            ["100%", "99.9%", "0%", "0.1%", "33.3%"]
        );
    }
}
