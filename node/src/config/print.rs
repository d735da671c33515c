//! Print: all settings as a configuration file, with those that are not set as comments.
//!
//! Promise: what is printed is a configuration that `ringd` reads, and no secret is in it.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::source::Settings;
use crate::config::keys::{DB_FIELDS, KEYS};
use crate::limits::DATABASES;

/// The section of what holds for all databases.
const KEYSPACE: &str = "keyspace";

/// The settings as a configuration file, each with its source if asked for. Passwords are hidden.
#[must_use]
pub fn print(settings: &Settings, with_source: bool) -> String {
    let mut sections: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
    for key in KEYS {
        let (head, name) = split(key.path);
        sections.entry(head).or_default().insert(name, format!("# {name} is not set"));
    }
    for (path, value, source) in settings.iter() {
        let (head, name) = split(path);
        let shown = shown(path, value);
        let source = if with_source { format!("  # {source}") } else { String::new() };
        sections.entry(head).or_default().insert(name, format!("{name} = {shown}{source}"));
    }
    let text = |(head, lines): (&str, BTreeMap<&str, String>)| {
        let mut text = format!("[{head}]\n");
        for line in lines.values() {
            text.push_str(&format!("{line}\n"));
        }
        if head == KEYSPACE {
            text.push_str(&format!(
                "# [keyspace.db.N], N from 0 to {}, sets {} of one database\n",
                DATABASES - 1,
                DB_FIELDS.join(", ")
            ));
        }
        text
    };
    sections.into_iter().map(text).collect::<Vec<_>>().join("\n")
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

fn shown(path: &str, value: &Value) -> String {
    let hidden = || Value::String("***".to_owned());
    match (path, value) {
        ("redis.requirepass", _) => hidden().to_string(),
        ("redis.users", Value::Table(users)) => {
            let users: Table = users.keys().map(|name| (name.clone(), hidden())).collect();
            Value::Table(users).to_string()
        }
        _ => value.to_string(),
    }
}
