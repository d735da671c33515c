//! Sources: where settings come from, and which of them wins.
//!
//! Flag before environment before file before default; each value remembers where it came from.
//! An unknown name is an error wherever it stands, with the name that was probably meant.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Value;

use crate::config::keys::{DB_FIELDS, KEYS, Key, Shape, did_you_mean};
use crate::error::Fault;
use crate::limits::DATABASES;

/// Where a value was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nowhere: it is the default.
    Default,
    /// In the configuration file.
    File(PathBuf),
    /// In the environment.
    Variable(String),
    /// On the command line.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => write!(f, "--{flag}"),
        }
    }
}

/// Settings by path, each with its source.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<String, (Value, Source)>,
}

impl Settings {
    /// All that holds: defaults, then the file, then the environment, then flags.
    ///
    /// # Errors
    /// A [`Fault`] that names what is unknown or malformed, and where.
    pub fn gather(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        flags: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Fault> {
        let mut all = Self::default();
        for key in KEYS.iter().filter(|k| !k.default.is_empty()) {
            all.set_text(key.path, key.default, Source::Default)?;
        }
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|e| {
                Fault::new(
                    format!("cannot read the configuration {}", path.display()),
                    e.to_string(),
                    "give the path of a ringd.toml with --config, or none for the defaults",
                )
            })?;
            all.read_file(path, &text)?;
        }
        for (name, text) in environment {
            if let Some(rest) = name.strip_prefix("RINGDB__") {
                let path = rest.to_lowercase().replace("__", ".");
                let source = Source::Variable(name.clone());
                all.check_known(&path, &source)?;
                all.set_text(&path, &text, source)?;
            }
        }
        for (path, text) in flags {
            let flag = Key::at(&path).map_or_else(|| path.clone(), Key::flag);
            all.set_text(&path, &text, Source::Flag(flag))?;
        }
        Ok(all)
    }

    /// The value at `path`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Value> {
        self.values.get(path).map(|(value, _)| value)
    }

    /// Where the value at `path` came from.
    #[must_use]
    pub fn source(&self, path: &str) -> Source {
        self.values.get(path).map_or(Source::Default, |(_, source)| source.clone())
    }

    /// Every value with its path and source, in the order of paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value, &Source)> {
        self.values.iter().map(|(path, (value, source))| (path.as_str(), value, source))
    }

    fn read_file(&mut self, path: &Path, text: &str) -> Result<(), Fault> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(1, |s| text[..s.start].matches('\n').count() + 1);
            Fault::new(
                format!("the configuration {} is no TOML", path.display()),
                format!("line {line}: {}", e.message()),
                "correct that line; `ringd config check --config FILE` tells whether it is right",
            )
        })?;
        let source = Source::File(path.to_owned());
        for (section, value) in table {
            let Value::Table(keys) = value else {
                return Err(unknown(&section, &source));
            };
            for (key, value) in keys {
                let place = format!("{section}.{key}");
                match value {
                    Value::Table(databases) if place == "keyspace.db" => {
                        self.read_databases(&databases, &source)?;
                    }
                    value => {
                        self.check_known(&place, &source)?;
                        self.set(&place, value, source.clone())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn read_databases(&mut self, databases: &toml::Table, source: &Source) -> Result<(), Fault> {
        for (number, fields) in databases {
            let place = format!("keyspace.db.{number}");
            let Value::Table(fields) = fields else { return Err(unknown(&place, source)) };
            for (field, value) in fields {
                let place = format!("{place}.{field}");
                self.check_known(&place, source)?;
                self.set(&place, value.clone(), source.clone())?;
            }
        }
        Ok(())
    }

    fn check_known(&self, path: &str, source: &Source) -> Result<(), Fault> {
        if Key::at(path).is_some() || shape_of_database(path).is_some() {
            return Ok(());
        }
        Err(unknown(path, source))
    }

    /// Sets a value that came as text: a flag, a variable or a default.
    fn set_text(&mut self, path: &str, text: &str, source: Source) -> Result<(), Fault> {
        let shape = Key::at(path).map(|k| k.shape).or_else(|| shape_of_database(path));
        let malformed = |wanted: &str| {
            Fault::new(
                format!("{path} cannot be {text:?}"),
                format!("{wanted} is expected ({source} says so)"),
                format!("see `ringd config print --with-source` and correct {path}"),
            )
        };
        let value = match shape {
            Some(Shape::Number) => {
                Value::Integer(text.parse().map_err(|_| malformed("a whole number"))?)
            }
            Some(Shape::Flag) => {
                Value::Boolean(text.parse().map_err(|_| malformed("true or false"))?)
            }
            Some(Shape::Members | Shape::Users) => {
                let table: Result<toml::Table, _> = format!("value = {text}").parse();
                let value = table.ok().and_then(|mut t| t.remove("value"));
                value.ok_or_else(|| malformed("TOML"))?
            }
            Some(Shape::Text) | None => Value::String(text.to_owned()),
        };
        self.set(path, value, source)
    }

    fn set(&mut self, path: &str, value: Value, source: Source) -> Result<(), Fault> {
        let shape = Key::at(path).map(|k| k.shape).or_else(|| shape_of_database(path));
        let fits = matches!(
            (shape, &value),
            (Some(Shape::Text), Value::String(_))
                | (Some(Shape::Number), Value::Integer(0..))
                | (Some(Shape::Flag), Value::Boolean(_))
                | (Some(Shape::Members), Value::Array(_))
                | (Some(Shape::Users), Value::Table(_))
        );
        if !fits {
            let wanted = match shape {
                Some(Shape::Number) => "a whole number",
                Some(Shape::Flag) => "true or false",
                Some(Shape::Members) => "an array of tables",
                Some(Shape::Users) => "a table of names and passwords",
                Some(Shape::Text) | None => "a text in quotes",
            };
            return Err(Fault::new(
                format!("{path} cannot be {value}"),
                format!("{wanted} is expected ({source} says so)"),
                format!("see `ringd config print --with-source` and correct {path}"),
            ));
        }
        self.values.insert(path.to_owned(), (value, source));
        Ok(())
    }
}

/// What the settings of single databases begin with.
const OF_DATABASE: &str = "keyspace.db.";

/// As the settings are read: 03 would be accepted, and then read by nobody.
fn is_database(number: &str) -> bool {
    number.parse::<u16>().is_ok_and(|n| n < DATABASES && n.to_string() == number)
}

/// The shape of `keyspace.db.N.FIELD`.
fn shape_of_database(path: &str) -> Option<Shape> {
    let (number, field) = path.strip_prefix(OF_DATABASE)?.split_once('.')?;
    if !is_database(number) {
        return None;
    }
    let number = matches!(field, "n" | "ttl_s");
    DB_FIELDS.contains(&field).then_some(if number { Shape::Number } else { Shape::Text })
}

/// The setting that an unknown one most likely means.
fn meant(path: &str) -> Option<String> {
    let of_database = path.strip_prefix(OF_DATABASE).and_then(|rest| rest.split_once('.'));
    if let Some((number, field)) = of_database.filter(|(number, _)| is_database(number)) {
        // The field alone: what stands before it is right, and allows for no slips.
        return did_you_mean(field, DB_FIELDS)
            .map(|field| format!("{OF_DATABASE}{number}.{field}"));
    }
    did_you_mean(path, KEYS.iter().map(|k| k.path)).map(str::to_owned)
}

fn unknown(path: &str, source: &Source) -> Fault {
    let fix = match meant(path) {
        Some(known) => format!("did you mean {known}?"),
        None if path.starts_with(OF_DATABASE) => format!(
            "write [keyspace.db.N] with N from 0 to {}, and in it {}",
            DATABASES - 1,
            DB_FIELDS.join(", ")
        ),
        None => "see `ringd config print` for every key that there is".to_owned(),
    };
    Fault::new(
        format!("unknown setting {path}"),
        format!("{source} sets it, and there is no such key"),
        fix,
    )
}
