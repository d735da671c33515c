//! `ringd storage dump`: the rows of a store, or the changes in one table.

use std::io::Write;
use std::path::Path;

use replication::row;
use ring::Slot;
use serde_json::{Value, json};
use storage::{Direction, Error, OpenError, TableChange, TableRow, read_table};

use super::{EXIT_WHOLE, Failure, disk, open, refusal, text, unreadable};
use crate::error::Fault;

/// Which rows, and how.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// The changes of this table file instead of the rows of the store.
    pub table: Option<String>,
    /// Only this key.
    pub key: Option<String>,
    /// Only this slot.
    pub slot: Option<u16>,
    /// Only this database.
    pub db: Option<u16>,
    /// The slots' own rows, too.
    pub clocks: bool,
    /// At most so many rows.
    pub limit: Option<u64>,
    /// Values in full.
    pub full: bool,
}

/// Characters of a value that a line shows.
const VALUE_CHARS: usize = 100;

impl Dump {
    pub(super) fn run(
        &self,
        dir: &Path,
        as_json: bool,
        out: &mut dyn Write,
    ) -> Result<i32, Failure> {
        match &self.table {
            Some(name) => self.table(dir, name, as_json, out),
            None => self.store(dir, as_json, out),
        }
    }

    fn chars(&self) -> usize {
        if self.full { usize::MAX } else { VALUE_CHARS }
    }

    /// The slot that is asked for, if it is one.
    fn slot(&self) -> Option<Slot> {
        let key = self.key.as_ref().map(|key| Slot::of_key(key.as_bytes()));
        key.or(self.slot.map(Slot))
    }

    fn wants(&self, row: &[u8]) -> bool {
        if row::is_clock(row) {
            return self.clocks && self.key.is_none() && self.db.is_none();
        }
        let key = || row::key_of(row);
        self.db.is_none_or(|db| row::keyspace_of(row) == Some(db))
            && self.slot().is_none_or(|slot| row::slot_of(row) == Some(slot))
            && self.key.as_ref().is_none_or(|wanted| key().as_deref() == Some(wanted.as_bytes()))
    }

    fn store(&self, dir: &Path, as_json: bool, out: &mut dyn Write) -> Result<i32, Failure> {
        let opened = open(dir)?;
        let start = self.slot().map(row::start_of).unwrap_or_default();
        let end = self.slot().and_then(|s| s.0.checked_add(1)).map(|s| row::start_of(Slot(s)));
        let scan = opened.shard.scan(&start, end.as_deref(), Direction::Forward, None);
        let mut scan = scan.map_err(|e| unreadable(&e))?;
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0
            && let Some((key, value)) = scan.next_row().map_err(|e| unreadable(&e))?
        {
            if !self.wants(key) {
                continue;
            }
            left -= 1;
            if as_json {
                writeln!(out, "{}", joined(text::key_json(key), text::value_json(key, &value)))?;
            } else {
                writeln!(out, "{} = {}", text::key(key), text::value(key, &value, self.chars()))?;
            }
        }
        Ok(EXIT_WHOLE)
    }

    fn table(
        &self,
        dir: &Path,
        name: &str,
        as_json: bool,
        out: &mut dyn Write,
    ) -> Result<i32, Failure> {
        let disk = disk(dir)?;
        let _lock = disk.lock().map_err(|e| {
            let busy = e.kind() == std::io::ErrorKind::WouldBlock;
            let told = || OpenError::Disk(Error::io("locking the directory", &e));
            refusal::of_tool(dir, &if busy { OpenError::Locked } else { told() })
        })?;
        let name = if name.contains('.') { name.to_owned() } else { format!("{name:0>10}.sst") };
        if !name.ends_with(".sst") && !name.ends_with(".sst.bad") {
            let why = "tables are the files that end with .sst, or with .sst.bad once they were set aside";
            let fix =
                "give the number or the name of a table: ringd storage stats --json DIR lists them";
            return Err(Fault::new(format!("{name} is no table"), why, fix).into());
        }
        if let Err(e) = disk.open(&name) {
            let fix = "ringd storage stats --json DIR lists the tables";
            return Err(
                Fault::new(format!("cannot read the table {name}"), e.to_string(), fix).into()
            );
        }
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut written = Ok(());
        let mut show = |row: TableRow<'_>| {
            if left > 0 && written.is_ok() && self.wants(row.key) {
                left -= 1;
                written = if as_json {
                    writeln!(out, "{}", change_json(&row))
                } else {
                    writeln!(out, "{}", self.change(&row))
                };
            }
        };
        let read = read_table(&disk, &name, &mut show);
        written?;
        read.map_err(|e| unreadable(&e))?;
        Ok(EXIT_WHOLE)
    }

    fn change(&self, row: &TableRow<'_>) -> String {
        let key = format!("{} @{}", text::key(row.key), row.sequence);
        match row.change {
            TableChange::Put(value) => {
                format!("{key} put {}", text::value(row.key, value, self.chars()))
            }
            TableChange::Large { file, offset, bytes } => {
                format!("{key} put, {bytes} bytes at {offset} of blob file {file}")
            }
            TableChange::Delete => format!("{key} delete"),
            TableChange::Merge(operand) => format!("{key} operand of {} bytes", operand.len()),
            TableChange::DeleteRange(end) => format!("{key} delete to before {}", text::key(end)),
        }
    }
}

fn change_json(row: &TableRow<'_>) -> Value {
    let (change, more) = match row.change {
        TableChange::Put(value) => ("put", text::value_json(row.key, value)),
        TableChange::Large { file, offset, bytes } => {
            ("put", json!({ "blob_file": file, "blob_offset": offset, "blob_bytes": bytes }))
        }
        TableChange::Delete => ("delete", json!({})),
        TableChange::Merge(operand) => ("operand", json!({ "operand_hex": text::hex(operand) })),
        TableChange::DeleteRange(end) => ("delete_range", json!({ "end_hex": text::hex(end) })),
    };
    let head = json!({ "sequence": row.sequence, "change": change });
    joined(joined(text::key_json(row.key), head), more)
}

/// The fields of both objects in one.
fn joined(mut a: Value, b: Value) -> Value {
    if let (Some(a), Value::Object(b)) = (a.as_object_mut(), b) {
        a.extend(b);
    }
    a
}
