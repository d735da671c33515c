//! `ringd storage stats`: what a store is made of.

use std::io::Write;
use std::path::Path;

use serde_json::json;
use storage::{BlobInfo, Stats, TableInfo};

use super::{EXIT_WHOLE, Failure, Opened, open, text};

/// Sums over some tables.
#[derive(Clone, Copy, Default)]
struct Sum {
    tables: u64,
    bytes: u64,
    entries: u64,
    deletions: u64,
    ranges: u64,
    merges: u64,
    raw: u64,
}

impl Sum {
    fn of<'a>(tables: impl Iterator<Item = &'a TableInfo>) -> Self {
        tables.fold(Self::default(), |sum, t| Self {
            tables: sum.tables + 1,
            bytes: sum.bytes + t.bytes,
            entries: sum.entries + t.entries,
            deletions: sum.deletions + t.deletions - t.range_deletions,
            ranges: sum.ranges + t.range_deletions,
            merges: sum.merges + t.merges,
            raw: sum.raw + t.raw_bytes,
        })
    }
}

/// How much more is read, kept or written than would be needed.
struct Amplification {
    /// Bytes of all tables to those of the deepest level that has any.
    space: f64,
    /// Places where a key may stand: tables of level 0, and each deeper level.
    runs: u64,
    /// Bytes of rows to the bytes that tables take for them.
    compression: f64,
}

fn amplification(tables: &[TableInfo]) -> Amplification {
    let total = Sum::of(tables.iter());
    let deepest = tables.iter().map(|t| t.level).max().unwrap_or(0);
    let last = Sum::of(tables.iter().filter(|t| t.level == deepest));
    let in_level0 = tables.iter().filter(|t| t.level == 0).count() as u64;
    let mut deeper: Vec<usize> = tables.iter().map(|t| t.level).filter(|l| *l > 0).collect();
    deeper.sort_unstable();
    deeper.dedup();
    let ratio = |a: u64, b: u64| if b == 0 { 1.0 } else { a as f64 / b as f64 };
    Amplification {
        space: if deepest == 0 { 1.0 } else { ratio(total.bytes, last.bytes) },
        runs: in_level0 + deeper.len() as u64,
        compression: ratio(total.raw, total.bytes),
    }
}

pub(super) fn run(dir: &Path, as_json: bool, out: &mut dyn Write) -> Result<i32, Failure> {
    let opened = open(dir)?;
    let tables = opened.engine.tables();
    let (blobs, stats) = (opened.engine.blobs(), opened.engine.stats());
    let leftovers = opened.leftovers()?;
    if as_json {
        write_json(&opened, &tables, &blobs, &stats, &leftovers, out)?;
    } else {
        write_text(dir, &opened, &tables, &blobs, &stats, &leftovers, out)?;
    }
    Ok(EXIT_WHOLE)
}

fn write_text(
    dir: &Path,
    opened: &Opened,
    tables: &[TableInfo],
    blobs: &[BlobInfo],
    stats: &Stats,
    leftovers: &[String],
    out: &mut dyn Write,
) -> Result<(), Failure> {
    writeln!(out, "store in {}", dir.display())?;
    writeln!(out)?;
    let head = ["level", "tables", "bytes", "entries", "deletions", "ranges", "operands"];
    writeln!(
        out,
        "{:>5} {:>7} {:>11} {:>12} {:>10} {:>7} {:>10}",
        head[0], head[1], head[2], head[3], head[4], head[5], head[6]
    )?;
    let mut line = |name: &str, s: Sum| {
        writeln!(
            out,
            "{name:>5} {:>7} {:>11} {:>12} {:>10} {:>7} {:>10}",
            s.tables,
            text::bytes(s.bytes),
            s.entries,
            s.deletions,
            s.ranges,
            s.merges
        )
    };
    for level in 0..stats.tables.len() {
        let sum = Sum::of(tables.iter().filter(|t| t.level == level));
        if sum.tables > 0 {
            line(&level.to_string(), sum)?;
        }
    }
    line("all", Sum::of(tables.iter()))?;
    writeln!(out)?;
    let a = amplification(tables);
    writeln!(
        out,
        "amplification  space {:.2}, read {}, compression {:.2}",
        a.space,
        text::count(a.runs, "sorted run"),
        a.compression
    )?;
    let bytes: u64 = blobs.iter().map(|b| b.bytes).sum();
    let live: u64 = blobs.iter().map(|b| b.live_bytes).sum();
    match blobs.len() {
        0 => writeln!(out, "large values   none beside the tables")?,
        n => writeln!(
            out,
            "large values   {}, {}, {} % live",
            text::count(n as u64, "blob file"),
            text::bytes(bytes),
            live * 100 / bytes.max(1)
        )?,
    }
    writeln!(
        out,
        "log            {}, {}, {} not yet in tables",
        text::count(stats.log_segments as u64, "segment"),
        text::bytes(stats.log_bytes),
        text::count(opened.in_log, "change")
    )?;
    let leftovers = if leftovers.is_empty() { "none".to_owned() } else { leftovers.join(", ") };
    writeln!(out, "leftovers      {leftovers}")?;
    match opened.engine.damage().len() as u64 {
        0 => {
            writeln!(out, "damage         none known; `ringd storage verify` reads everything")?;
        }
        n => {
            let places = text::count(n, "place");
            writeln!(out, "damage         {places}: see `ringd storage verify`")?;
        }
    }
    Ok(())
}

fn write_json(
    opened: &Opened,
    tables: &[TableInfo],
    blobs: &[BlobInfo],
    stats: &Stats,
    leftovers: &[String],
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let a = amplification(tables);
    let table = |t: &TableInfo| {
        json!({
            "number": t.number, "level": t.level, "bytes": t.bytes, "entries": t.entries,
            "deletions": t.deletions - t.range_deletions, "range_deletions": t.range_deletions,
            "operands": t.merges, "raw_bytes": t.raw_bytes, "blob_bytes": t.blob_bytes,
            "last_sequence": t.last_sequence, "readable": t.readable,
            "first": text::key_json(&t.smallest), "last": text::key_json(&t.largest),
        })
    };
    let blob =
        |b: &BlobInfo| json!({ "number": b.number, "bytes": b.bytes, "live_bytes": b.live_bytes });
    let report = json!({
        "tables": tables.iter().map(table).collect::<Vec<_>>(),
        "blobs": blobs.iter().map(blob).collect::<Vec<_>>(),
        "amplification": { "space": a.space, "sorted_runs": a.runs, "compression": a.compression },
        "log": {
            "segments": stats.log_segments, "bytes": stats.log_bytes,
            "changes_not_in_tables": opened.in_log,
        },
        "leftovers": leftovers,
        "damage": opened.engine.damage().iter().map(text::damage_json).collect::<Vec<_>>(),
    });
    writeln!(out, "{report}")?;
    Ok(())
}
