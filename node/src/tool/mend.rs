//! `ringd storage repair`: makes a store of what can be read, and says what could not.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::{EXIT_DAMAGED, EXIT_WHOLE, Failure, disk, refusal, text};
use store::Folding;

pub(super) fn run(dir: &Path, as_json: bool, out: &mut dyn Write) -> Result<i32, Failure> {
    let done =
        storage::repair(&disk(dir)?, Arc::new(Folding)).map_err(|e| refusal::of_tool(dir, &e))?;
    let rewritten = done.rewritten.len() as u64;
    let whole = done.lost.is_empty() && done.undeleted.is_empty();
    if as_json {
        let report = json!({
            "tables_kept": done.kept,
            "tables_rewritten": done.rewritten.iter().map(|(old, new)| json!({ "old": old, "new": new })).collect::<Vec<_>>(),
            "aside": done.aside.iter().map(|name| format!("{name}.bad")).collect::<Vec<_>>(),
            "manifest_made_anew": done.manifest_made_anew,
            "written_anew": done.mended,
            "log_cuts": done.log_cuts.iter().map(text::log_cut_json).collect::<Vec<_>>(),
            "rows": done.rows,
            "range_deletions_lost": done.undeleted.iter().map(text::damage_json).collect::<Vec<_>>(),
            "lost": done.lost.iter().map(text::damage_json).collect::<Vec<_>>(),
        });
        writeln!(out, "{report}")?;
    } else {
        writeln!(out, "kept       {}", text::count(done.kept as u64, "table"))?;
        if rewritten > 0 {
            let list = done.rewritten.iter().map(|(old, new)| format!("{old} as {new}"));
            let list = list.collect::<Vec<_>>().join(", ");
            writeln!(
                out,
                "rewritten  {}, what could be read of {list}",
                text::count(rewritten, "table")
            )?;
        }
        for name in &done.aside {
            writeln!(out, "aside      {name}.bad")?;
        }
        if done.manifest_made_anew {
            writeln!(
                out,
                "manifest   made anew from the tables; keys deleted shortly before may be back"
            )?;
        }
        for name in &done.mended {
            writeln!(out, "mended     {name}, which was damaged or missing")?;
        }
        for cut in &done.log_cuts {
            writeln!(out, "cut        {}", text::log_cut(cut))?;
        }
        writeln!(out, "rows       {} can be read", done.rows)?;
        for damage in &done.undeleted {
            writeln!(
                out,
                "UNDELETED  what was deleted cannot all be told: {damage}; of these keys some that were \
                 deleted may be back: {}",
                text::range(&damage.lower, damage.upper.as_deref())
            )?;
        }
        if whole {
            writeln!(out, "lost       nothing")?;
        }
        for damage in &done.lost {
            writeln!(out, "LOST       {}", text::damage(damage))?;
        }
        if !whole {
            writeln!(
                out,
                "why: these bytes were not what was written; of keys there an older value may show"
            )?;
            writeln!(
                out,
                "fix: before the node starts, rather fetch the data anew from the other replicas, if there are \
                 any: its clock may claim writes that are lost here"
            )?;
        }
    }
    Ok(if whole { EXIT_WHOLE } else { EXIT_DAMAGED })
}
