//! Rendering: one report, in whichever form it is asked for.

pub(crate) mod human;
mod table;

use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::Value;

use crate::args::Format;

pub(crate) use table::{Cell, Paint, Table};

/// The name and version of what programs read.
pub(crate) const SCHEMA: &str = "ringctl/v1";

/// What tables may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    /// Colours may be used.
    pub(crate) colour: bool,
    /// All columns are wanted.
    pub(crate) wide: bool,
}

/// Fields in an order, with raw values.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record(Vec<(&'static str, Value)>);

/// The whole that a command has to say: its fields, then a list of records.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Whole {
    fields: Record,
    list: Option<(&'static str, Vec<Record>)>,
    /// What the records of the list have, for when there are none.
    columns: &'static [&'static str],
}

/// All that a command has to say.
#[derive(Debug)]
pub(crate) struct Report {
    /// For people.
    pub(crate) text: String,
    /// For programs: the whole.
    pub(crate) whole: Whole,
    /// For programs: the rows of the table.
    pub(crate) rows: Vec<Record>,
}

impl Record {
    /// A record of these fields.
    pub(crate) fn new(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        Self(fields.into_iter().collect())
    }

    /// With these fields behind its own.
    pub(crate) fn and(mut self, fields: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        self.0.extend(fields);
        self
    }

    /// With this list of records behind its fields.
    pub(crate) fn with(self, name: &'static str, rows: &[Self]) -> Whole {
        Whole { fields: self, list: Some((name, rows.to_vec())), columns: &[] }
    }
}

impl Whole {
    /// Its list, which may be empty, has records of these fields.
    pub(crate) fn of(self, columns: &'static [&'static str]) -> Self {
        Self { columns, ..self }
    }
}

impl From<Record> for Whole {
    fn from(fields: Record) -> Self {
        Self { fields, list: None, columns: &[] }
    }
}

impl Serialize for Record {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Serialize for Whole {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("schema", SCHEMA)?;
        for (name, value) in &self.fields.0 {
            map.serialize_entry(name, value)?;
        }
        if let Some((name, rows)) = &self.list {
            map.serialize_entry(name, rows)?;
        }
        map.end()
    }
}

impl Report {
    /// In this form, with a line end at its end.
    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Table | Format::Wide => self.text.clone(),
            Format::Json => {
                let json = serde_json::to_string_pretty(&self.whole);
                json.expect("names are strings and values are JSON already") + "\n"
            }
            Format::Jsonl => self.rows.iter().map(json_line).collect(),
            Format::Csv => csv(&self.rows, self.whole.columns),
        }
    }
}

/// A row that stands alone says its schema too.
fn json_line(record: &Record) -> String {
    serde_json::to_string(&Whole::from(record.clone()))
        .expect("names are strings and values are JSON already")
        + "\n"
}

fn csv(rows: &[Record], columns: &[&'static str]) -> String {
    let line = |fields: Vec<String>| fields.join(",") + "\n";
    let names = match rows.first() {
        Some(first) => first.0.iter().map(|(name, _)| *name).collect(),
        None => columns.to_vec(),
    };
    debug_assert!(columns.is_empty() || names == columns, "{names:?} are not {columns:?}");
    if names.is_empty() {
        return String::new();
    }
    let names = line(names.into_iter().map(str::to_owned).collect());
    let rows = rows.iter().map(|row| line(row.0.iter().map(|(_, value)| field(value)).collect()));
    names + &rows.collect::<String>()
}

fn field(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

/// A key for programs.
pub(crate) fn key_fields(key: &[u8]) -> [(&'static str, Value); 2] {
    bytes_fields(["key", "key_hex"], key)
}

/// Bytes for programs, in fields of these names: as text where they are text, else in hexadecimal.
pub(crate) fn bytes_fields(
    [text, hex]: [&'static str; 2],
    bytes: &[u8],
) -> [(&'static str, Value); 2] {
    match std::str::from_utf8(bytes) {
        Ok(words) => [(text, words.into()), (hex, Value::Null)],
        Err(_) => {
            let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            [(text, Value::Null), (hex, digits.into())]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_without_rows_has_its_line_of_names() {
        let whole = Record::default().with("keys", &[]).of(&["key", "db"]);
        let report = Report { text: String::new(), whole, rows: vec![] };
        assert_eq!(report.render(Format::Csv), "key,db\n");
        assert_eq!(report.render(Format::Jsonl), "");
    }

    #[test]
    fn keys_that_are_no_text_are_told_apart() {
        assert_eq!(key_fields(b"\xff\xfe")[1], ("key_hex", "fffe".into()));
        assert_eq!(key_fields(b"k")[0], ("key", "k".into()));
    }

    #[test]
    fn fields_keep_their_order_and_csv_its_quotes() {
        let row = Record::new([("z", "a,\"b\"".into()), ("a", Value::Null), ("n", 7.into())]);
        let report = Report { text: String::new(), whole: row.clone().into(), rows: vec![row] };
        assert_eq!(report.render(Format::Csv), "z,a,n\n\"a,\"\"b\"\"\",,7\n");
        assert_eq!(
            report.render(Format::Jsonl),
            "{\"schema\":\"ringctl/v1\",\"z\":\"a,\\\"b\\\"\",\"a\":null,\"n\":7}\n"
        );
    }
}
