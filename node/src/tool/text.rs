//! Keys, values and sizes as a person reads them.

use std::fmt::Write as _;

use replication::record::{NEVER, Record};
use replication::row;
use ring::{Slot, WallMillis};
use serde_json::{Value, json};
use storage::{Damage, LogCut};

/// Bytes between quotation marks, what is not printable escaped.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                c if c.is_control() => out.extend(c.escape_default()),
                c => out.push(c),
            }
        }
        for b in chunk.invalid() {
            put(&mut out, format_args!("\\x{b:02x}"));
        }
    }
    out.push('"');
    out
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string");
}

/// At most `chars` of a text, and how many bytes it stands for if it was cut.
pub(super) fn cut(text: String, chars: usize, bytes: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((at, _)) => format!("{}…\" ({bytes} bytes)", &text[..at]),
        None => text,
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        put(&mut out, format_args!("{b:02x}"));
        out
    })
}

/// A row's key.
pub(super) fn key(row: &[u8]) -> String {
    let Some(slot) = row::slot_of(row).filter(|slot| slot.0 < ring::SLOTS) else {
        return format!("row 0x{}", hex(row));
    };
    if row::is_clock(row) {
        return format!("slot {} clock", slot.0);
    }
    match (row::keyspace_of(row), row::key_of(row)) {
        (Some(db), Some(key)) => format!("slot {} db {db} {}", slot.0, quoted(&key)),
        (None, _) => format!("slot {}", slot.0),
        // The slot's own rows begin here.
        (Some(row::META), _) => format!("slot {} clock", slot.0),
        (Some(db), None) => match begun(&row[4..]) {
            begun if begun.is_empty() => format!("slot {} db {db}", slot.0),
            begun => format!("slot {} db {db} {}…", slot.0, quoted(&begun)),
        },
    }
}

/// The key of which a row has only the beginning, as far as it goes: where a range ends there is often no
/// more than tells two keys apart.
fn begun(rest: &[u8]) -> Vec<u8> {
    // The partition key, then the sort key, which is the whole key where there is one.
    let mut parts = [Vec::new(), Vec::new()];
    let (mut part, mut at) = (0, 0);
    while let Some(byte) = rest.get(at)
        && part < parts.len()
    {
        match (byte, rest.get(at + 1)) {
            (0, Some(0xff)) => parts[part].push(0),
            (0, Some(0)) => part += 1,
            (0, _) => break,
            (byte, _) => {
                parts[part].push(*byte);
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    let [partition, sort] = parts;
    if sort.is_empty() { partition } else { sort }
}

/// The same for programs.
pub(super) fn key_json(row: &[u8]) -> Value {
    let slot = row::slot_of(row).filter(|slot| slot.0 < ring::SLOTS);
    let slot = slot.map(|Slot(slot)| slot);
    let kind = if row::is_clock(row) { "clock" } else { "record" };
    match row::key_of(row) {
        Some(key) => json!({
            "slot": slot, "db": row::keyspace_of(row), "kind": kind,
            "key": std::str::from_utf8(&key).ok(), "key_hex": hex(&key),
        }),
        None => json!({ "slot": slot, "kind": kind, "row_hex": hex(row) }),
    }
}

/// Keys from `lower` (inclusive) to `upper` (exclusive).
pub(super) fn range(lower: &[u8], upper: Option<&[u8]>) -> String {
    match upper {
        None if lower.is_empty() => "of the whole store".to_owned(),
        None => format!("from {} to the end", edge(lower)),
        // The key and nothing else.
        Some(upper) if upper.strip_suffix(&[0]) == Some(lower) => key(lower),
        Some(upper) if lower.is_empty() => format!("from the first to before {}", edge(upper)),
        Some(upper) => format!("from {} to before {}", edge(lower), edge(upper)),
    }
}

/// A key at which a range begins or ends: it may be one with a zero behind.
fn edge(row: &[u8]) -> String {
    match row.strip_suffix(&[0]) {
        Some(before) if row::key_of(before).is_some() || row::is_clock(before) => {
            format!("what follows {}", key(before))
        }
        _ => key(row),
    }
}

pub(super) fn damage(damage: &Damage) -> String {
    format!("{damage}; keys {}", range(&damage.lower, damage.upper.as_deref()))
}

pub(super) fn log_cut(cut: &LogCut) -> String {
    let frames = count(cut.frames, "good frame");
    format!(
        "the log is cut at {} offset {}: {frames} behind it that nobody was promised are no part of the store",
        cut.file, cut.offset
    )
}

pub(super) fn log_cut_json(cut: &LogCut) -> Value {
    json!({ "file": cut.file, "offset": cut.offset, "good_frames_behind": cut.frames })
}

pub(super) fn damage_json(damage: &Damage) -> Value {
    json!({
        "place": damage.to_string(),
        "lower_hex": hex(&damage.lower),
        "upper_hex": damage.upper.as_deref().map(hex),
        "keys": range(&damage.lower, damage.upper.as_deref()),
    })
}

/// A row's value.
pub(super) fn value(row: &[u8], value: &[u8], chars: usize) -> String {
    if row::is_clock(row) {
        return format!("{} bytes", value.len());
    }
    let Some(record) = Record::decode(value) else {
        return cut(format!("unreadable \"{}\"", hex(value)), chars, value.len());
    };
    let view = record.view(WallMillis(0));
    let mut out = match view.value() {
        Some(bytes) => cut(quoted(&bytes), chars, bytes.len()),
        None => "deleted".to_owned(),
    };
    if view.values.len() > 1 {
        put(&mut out, format_args!(", {} siblings", view.values.len()));
    }
    if view.sum.is_some() {
        out.push_str(", counter");
    }
    if let Some(deadline) = view.deadline.filter(|d| *d != NEVER) {
        put(&mut out, format_args!(", expires at {} ms", deadline.0));
    }
    out
}

/// The same for programs.
pub(super) fn value_json(row: &[u8], value: &[u8]) -> Value {
    let record = (!row::is_clock(row)).then(|| Record::decode(value)).flatten();
    let Some(record) = record else { return json!({ "bytes_hex": hex(value) }) };
    let view = record.view(WallMillis(0));
    let shown = view.value();
    json!({
        "value": shown.as_deref().and_then(|v| std::str::from_utf8(v).ok()),
        "value_hex": shown.as_deref().map(hex),
        "siblings": view.values.len(),
        "counter": view.sum.is_some(),
        "expires_ms": view.deadline.filter(|d| *d != NEVER).map(|d| d.0),
    })
}

/// Bytes in the unit that fits.
pub(super) fn bytes(n: u64) -> String {
    let mut unit = 0;
    let mut size = n as f64;
    while size >= 1024.0 && unit < 5 {
        size /= 1024.0;
        unit += 1;
    }
    let name = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit];
    if unit == 0 { format!("{n} B") } else { format!("{size:.1} {name}") }
}

/// `1 table`, `2 tables`.
pub(super) fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_ranges_and_sizes_are_readable() {
        let row = row::of_key(0, b"a \"b\"\n\xff");
        let Some(Slot(slot)) = row::slot_of(&row) else { panic!("it has a slot") };
        let name = format!(r#"slot {slot} db 0 "a \"b\"\n\xff""#);
        assert_eq!(key(&row), name);
        assert_eq!(range(&row, Some(&[&row[..], &[0]].concat())), name);
        assert_eq!(range(b"", None), "of the whole store");
        assert_eq!(key(&row::of_clock(Slot(7))), "slot 7 clock");
        let clock = [&row::of_clock(Slot(7))[..], &[0]].concat();
        let told = "from what follows slot 7 clock to before";
        assert!(range(&clock, Some(&row)).starts_with(told), "{}", range(&clock, Some(&row)));
        let (partial, tagged) = (&row[..6], &row::of_key(3, b"{t}x\0key")[..11]);
        assert_eq!(key(partial), format!(r#"slot {slot} db 0 "a "…"#));
        assert!(key(tagged).ends_with(r#" db 3 "{t}x"…"#), "{}", key(tagged));
        assert_eq!(key(&row[..4]), format!("slot {slot} db 0"));
        assert_eq!(key(&row[..3]), format!("slot {slot}"));
        assert_eq!((bytes(1_023), bytes(1_536)), ("1023 B".to_owned(), "1.5 KiB".to_owned()));
        assert_eq!(cut(quoted(b"abcdef"), 4, 6), "\"abc…\" (6 bytes)");
    }
}
