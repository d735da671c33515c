//! `ringd storage verify`: reads everything that is at rest and says what of it is damaged.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use storage::{Damage, OpenError};

use super::{EXIT_DAMAGED, EXIT_WHOLE, Failure, refusal, text, try_open, unreadable};

/// Bytes read in one step.
const STEP_BYTES: u64 = 16 << 20;

pub(super) fn run(dir: &Path, as_json: bool, out: &mut dyn Write) -> Result<i32, Failure> {
    // Opening reads the manifest and the log.
    let opened = match try_open(dir)? {
        Ok(opened) => opened,
        Err(OpenError::Damaged { damage }) => {
            if as_json {
                let damage: Vec<_> = damage.iter().map(text::damage_json).collect();
                writeln!(out, "{}", json!({ "whole": false, "damage": damage }))?;
            } else {
                write_damage(&damage, out)?;
            }
            return Ok(EXIT_DAMAGED);
        }
        Err(e) => return Err(refusal::of_tool(dir, &e).into()),
    };
    let engine = &opened.engine;
    while engine.scrub().rounds == 0
        && let Some(step) = engine.scrub_step(STEP_BYTES)
    {
        step.run().map_err(|e| unreadable(&e))?;
    }
    let (stats, damage) = (engine.stats(), engine.damage());
    let read = engine.scrub().bytes_total + stats.log_bytes;
    let tables: usize = stats.tables.iter().sum();
    if as_json {
        let report = json!({
            "whole": damage.is_empty(), "tables": tables, "blobs": stats.blob_files,
            "log_segments": stats.log_segments, "bytes_read": read,
            "damage": damage.iter().map(text::damage_json).collect::<Vec<_>>(),
            "log_cuts": engine.log_cuts().iter().map(text::log_cut_json).collect::<Vec<_>>(),
            "leftovers": opened.leftovers()?,
        });
        writeln!(out, "{report}")?;
    } else {
        writeln!(
            out,
            "{}: {}, {}, {}; {} read",
            dir.display(),
            text::count(tables as u64, "table"),
            text::count(stats.blob_files as u64, "blob file"),
            text::count(stats.log_segments as u64, "log segment"),
            text::bytes(read)
        )?;
        for name in opened.leftovers()? {
            writeln!(out, "left over: {name}")?;
        }
        for cut in engine.log_cuts() {
            writeln!(out, "{}", text::log_cut(&cut))?;
        }
        if damage.is_empty() {
            writeln!(out, "the store is whole")?;
        } else {
            write_damage(&damage, out)?;
        }
    }
    Ok(if damage.is_empty() { EXIT_WHOLE } else { EXIT_DAMAGED })
}

fn write_damage(damage: &[Damage], out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "DAMAGED in {}:", text::count(damage.len() as u64, "place"))?;
    for damage in damage {
        writeln!(out, "  {}", text::damage(damage))?;
    }
    writeln!(
        out,
        "why: these bytes are not what was written, or are gone; the rest of the store is whole"
    )?;
    writeln!(out, "fix: {}", super::FIX_REPAIR)
}
