//! Tool: `sst_dump`, whose exit code says nothing and whose words are taken literally.

use crate::build;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A change as `sst_dump` printed it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) key: u32,
    /// Sequence and kind, as a table packs them.
    pub(crate) tag: u64,
    /// What its value says; 0 for a deletion.
    pub(crate) number: u64,
}

impl Entry {
    pub(crate) fn sequence(&self) -> u64 {
        self.tag >> 8
    }

    pub(crate) fn kind(&self) -> u64 {
        self.tag & 0xff
    }
}

fn command(table: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("sst_dump");
    command.arg(format!("--file={}", table.display())).args(arguments).stdin(Stdio::null());
    command
}

fn run(table: &Path, arguments: &[&str]) -> Result<Output, String> {
    command(table, arguments).output().map_err(|e| format!("sst_dump: {e}"))
}

pub(crate) fn is_installed() -> bool {
    Command::new("sst_dump").arg("--help").output().is_ok()
}

/// The tables in `directory`, in order.
pub(crate) fn tables(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let files = std::fs::read_dir(directory).map_err(|e| e.to_string())?;
    let mut tables: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    tables.retain(|path| path.extension().is_some_and(|e| e == "sst"));
    tables.sort();
    Ok(tables)
}

/// Every checksum of `table`.
pub(crate) fn verify(table: &Path) -> Result<(), String> {
    let output = run(table, &["--command=verify", "--verify_checksum"])?;
    let (said, complained) = texts(&output);
    if !said.contains("The file is ok") || complains(&complained) {
        return Err(format!("{}: {said} {complained}", table.display()));
    }
    Ok(())
}

/// Range deletions that the table's properties count.
pub(crate) fn range_deletions(table: &Path) -> Result<u64, String> {
    let output = run(table, &["--command=none", "--show_properties"])?;
    let (said, _) = texts(&output);
    let line = said.lines().find_map(|line| line.trim().strip_prefix("# range deletions:"));
    let count = line.and_then(|count| count.trim().parse().ok());
    count.ok_or_else(|| format!("{}: no count of range deletions: {said}", table.display()))
}

/// Appends every entry of `table` to `into`; they must ascend, and be as many as its properties say.
pub(crate) fn scan(table: &Path, into: &mut Vec<Entry>) -> Result<(), String> {
    let name = table.display();
    let mut command = command(table, &["--command=scan", "--output_hex"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("sst_dump: {e}"))?;
    let out = child.stdout.take().ok_or("sst_dump has no output")?;
    let mut last: Option<Entry> = None;
    let before = into.len();
    for line in BufReader::new(out).lines() {
        let line = line.map_err(|e| e.to_string())?;
        if !line.contains(" => ") {
            continue;
        }
        let entry = parse(&line).ok_or_else(|| format!("{name}: no entry of ours: {line}"))?;
        let ascends = last.is_none_or(|l| {
            (l.key, std::cmp::Reverse(l.tag)) < (entry.key, std::cmp::Reverse(entry.tag))
        });
        if !ascends {
            return Err(format!("{name}: {entry:?} comes after {last:?}"));
        }
        last = Some(entry);
        into.push(entry);
    }
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    let (_, complained) = texts(&output);
    if complains(&complained) {
        return Err(format!("{name}: {complained}"));
    }
    let scanned = (into.len() - before) as u64;
    let said = run(table, &["--command=none", "--show_properties"])?;
    let (said, _) = texts(&said);
    let counted = said.lines().find_map(|line| line.trim().strip_prefix("# entries:"));
    let counted: Option<u64> = counted.and_then(|count| count.trim().parse().ok());
    if counted != Some(scanned + range_deletions(table)?) {
        return Err(format!("{name}: {scanned} entries scanned, its properties say {counted:?}"));
    }
    Ok(())
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// True when anything was said that is not a greeting.
fn complains(stderr: &str) -> bool {
    stderr.lines().any(|line| !line.trim().is_empty() && !line.starts_with("options.env is "))
}

/// `'6B6579' seq:12, type:1 => 76616C`
fn parse(line: &str) -> Option<Entry> {
    let (key, rest) = line.strip_prefix('\'')?.split_once("' seq:")?;
    let (sequence, rest) = rest.split_once(", type:")?;
    let (kind, value) = rest.split_once(" => ")?;
    let (sequence, kind): (u64, u64) = (sequence.parse().ok()?, kind.trim().parse().ok()?);
    let value = unhex(value.trim())?;
    let number = if kind == 0 { value.is_empty().then_some(0) } else { build::number(&value) };
    Some(Entry { key: build::parse_key(&unhex(key)?)?, tag: sequence << 8 | kind, number: number? })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}
