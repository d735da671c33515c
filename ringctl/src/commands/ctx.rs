//! `ctx`: the clusters that this person knows, and which of them is meant.
//!
//! Promise: `use` changes the one line that names the current context; comments and everything else
//! of the file stay as they are, and the file is replaced whole or not at all.

use std::fs;
use std::path::Path;

use client::Told;
use client::context::{ClusterContext, ContextError, ContextFile};

use crate::args::{Args, Ctx};
use crate::cluster::contexts_file;
use crate::failure::{Exit, Failure};
use crate::render::{Cell, Paint, Record, Report, Style, Table};
use crate::{show, style};

pub(crate) fn run(args: &Args, command: &Ctx) -> Result<Exit, Failure> {
    let path = contexts_file(args)?;
    if let Ctx::Use { name } = command {
        choose(&path, name)?;
    }
    let file = ContextFile::load(&path)?;
    let report = match command {
        Ctx::Ls => list(&path, &file, args, style(args)),
        Ctx::Use { name } => used(&path, name, &file),
    };
    show(args, &report);
    Ok(Exit::Fine)
}

/// The fields of a context.
const CONTEXT: [&str; 6] = ["current", "name", "cluster", "nodes", "cert", "readonly"];

fn row(name: &str, context: &ClusterContext, current: bool) -> Record {
    Record::new([
        ("current", current.into()),
        ("name", name.into()),
        ("cluster", context.cluster.clone().into()),
        ("nodes", context.nodes.clone().into()),
        ("cert", context.cert.display().to_string().into()),
        ("readonly", context.readonly.into()),
    ])
}

fn list(path: &Path, file: &ContextFile, args: &Args, style: Style) -> Report {
    let current = file.choose(args.context.as_deref(), path).ok();
    let mut headings = vec!["", "NAME", "CLUSTER", "NODES", ""];
    if style.wide {
        headings.insert(4, "CERTIFICATE");
    }
    let mut table = Table::new(&headings);
    let mut rows = Vec::new();
    for (name, context) in &file.contexts {
        let is_current = current.is_some_and(|current| std::ptr::eq(current, context));
        let mut cells = vec![
            Cell::text(if is_current { "*" } else { "" }).painted(Paint::Good),
            Cell::text(name.as_str()),
            Cell::text(context.cluster.as_deref().unwrap_or("-")),
            Cell::text(context.nodes.join(" ")),
            Cell::text(if context.readonly { "readonly" } else { "" }),
        ];
        if style.wide {
            cells.insert(4, Cell::text(context.cert.display().to_string()));
        }
        table.row(cells);
        rows.push(row(name, context, is_current));
    }
    let text = table.render(style.colour);
    let whole = Record::new([("file", path.display().to_string().into())]);
    Report { text, whole: whole.with("contexts", &rows).of(&CONTEXT), rows }
}

fn used(path: &Path, name: &str, file: &ContextFile) -> Report {
    let rows: Vec<_> =
        file.contexts.get(name).map(|context| row(name, context, true)).into_iter().collect();
    let text = format!("current context: {name}   in {}\n", path.display());
    let whole =
        Record::new([("file", path.display().to_string().into()), ("current", name.into())]);
    Report { text, whole: whole.into(), rows }
}

/// Makes `name` the current one.
fn choose(path: &Path, name: &str) -> Result<(), Failure> {
    let file = ContextFile::load(path)?;
    file.choose(Some(name), path)?;
    let unreadable = |source| ContextError::Unreadable { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let text = with_current(&text, name);
    // What was written must say what was meant, whatever the file looked like.
    let said = text.parse::<toml::Table>().ok();
    if said.and_then(|table| table.get("current")?.as_str().map(|s| s == name)) != Some(true) {
        let told = Told::new(
            format!("{} cannot be changed", path.display()),
            "its line of the current context is written in an unusual way",
            format!("write current = \"{name}\" at its top"),
        );
        return Err(Failure { exit: Exit::Failed, told });
    }
    let beside = path.with_extension("toml.new");
    let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        let what = format!("{} cannot be changed", path.display());
        Failure::operation(what, &error, "make it writable, or name the context with --context")
    })
}

fn with_current(text: &str, name: &str) -> String {
    let line = format!("current = {}", toml::Value::from(name));
    let mut out = String::with_capacity(text.len() + line.len());
    let (mut done, mut in_table) = (false, false);
    for old in text.split_inclusive('\n') {
        in_table |= old.trim_start().starts_with('[');
        let is_it = !done
            && !in_table
            && old
                .trim_start()
                .strip_prefix("current")
                .is_some_and(|r| r.trim_start().starts_with('='));
        if is_it {
            done = true;
            let comment = old.find('#').map_or("", |at| old[at..].trim_end());
            out.push_str(&line);
            if !comment.is_empty() {
                out.push_str("   ");
                out.push_str(comment);
            }
            out.push('\n');
        } else {
            out.push_str(old);
        }
    }
    if done { out } else { format!("{line}\n\n{out}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_changes_and_the_rest_stays() {
        let file = "# mine\ncurrent = \"a\" # the usual one\n\n[contexts.a]\ncurrent = 1\n";
        assert_eq!(
            with_current(file, "b"),
            "# mine\ncurrent = \"b\"   # the usual one\n\n[contexts.a]\ncurrent = 1\n"
        );
        assert_eq!(
            with_current("[contexts.a]\ncurrent = 1\n", "a"),
            "current = \"a\"\n\n[contexts.a]\ncurrent = 1\n"
        );
    }
}
