//! `key`: what the cluster holds under a key, and how to set it right.
//!
//! Promise: what `resolve` and `delete` replace is what they have read just before; what somebody
//! writes meanwhile stays.

use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use client::{AdminReply, AdminRequest, Client, CopyValue, Level, Read, Slot, Told};
use serde_json::Value;

use crate::args::{Args, Key, Take};
use crate::cluster::Cluster;
use crate::confirm::confirm;
use crate::failure::{Exit, Failure};
use crate::nodes::PATIENCE;
use crate::render::{Cell, Record, Report, Style, Table, bytes_fields, human, key_fields};
use crate::{show, style};

/// A key in a database.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) db: u16,
    pub(super) key: &'a [u8],
}

pub(crate) async fn run(args: &Args, db: u16, command: &Key) -> Result<Exit, Failure> {
    match command {
        Key::Get { key, level } => get(args, At { db, key: key.as_bytes() }, *level).await,
        Key::Siblings { key, level } => {
            siblings(args, At { db, key: key.as_bytes() }, *level).await
        }
        Key::Resolve { key, take, level } => {
            resolve(args, At { db, key: key.as_bytes() }, take, *level).await
        }
        Key::Delete { key, level, yes } => {
            delete(args, At { db, key: key.as_bytes() }, *level, *yes).await
        }
        Key::Trace { key, level } => {
            super::trace::run(args, At { db, key: key.as_bytes() }, *level).await
        }
    }
}

/// A key or a value between quotation marks.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                c if c.is_control() => out.extend(c.escape_default()),
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|b| out += &format!("\\x{b:02x}"));
    }
    out + "\""
}

/// A value for programs.
fn for_programs(value: &[u8]) -> [(&'static str, Value); 2] {
    bytes_fields(["value", "value_hex"], value)
}

/// The fields of what `get` finds.
const VALUES: [&str; 3] = ["bytes", "value", "value_hex"];

/// The fields of what `siblings` finds.
const SIBLINGS: [&str; 7] =
    ["place", "written_by", "dot", "written_at", "bytes", "value", "value_hex"];

fn level_name(level: Option<Level>) -> String {
    level.map_or_else(|| "the keyspace's level".into(), |level| level.to_string())
}

pub(super) fn head_of(At { db, key }: At<'_>) -> String {
    let database = if db == 0 { String::new() } else { format!("   database {db}") };
    format!("key {}{database}   slot {}", quoted(key), Slot::of_key(key))
}

fn head(at: At<'_>, what: &str, level: Option<Level>) -> String {
    format!("{}   {what}   at {}\n", head_of(at), level_name(level))
}

/// How a person names the key to this program.
fn named(At { db, key }: At<'_>) -> String {
    let database = if db == 0 { String::new() } else { format!(" --db {db}") };
    format!("{}{database}", String::from_utf8_lossy(key))
}

async fn read(client: &Client, key: &[u8], level: Option<Level>) -> Result<Read, Failure> {
    let get = client.get(Bytes::copy_from_slice(key));
    let get = if let Some(level) = level { get.consistency(level) } else { get };
    Ok(get.await?)
}

fn whole(At { db, key }: At<'_>, level: Option<Level>) -> Record {
    Record::new(key_fields(key)).and([
        ("db", db.into()),
        ("slot", Slot::of_key(key).0.into()),
        ("level", level.map_or(Value::Null, |level| level.to_string().into())),
    ])
}

pub(crate) fn amount(count: usize) -> String {
    match count {
        0 => "no value".into(),
        1 => "1 value".into(),
        many => format!("{many} siblings"),
    }
}

async fn get(args: &Args, at: At<'_>, level: Option<Level>) -> Result<Exit, Failure> {
    let client = Cluster::find(args)?.connect(args.node.as_deref()).await?.database(at.db);
    let read = read(&client, at.key, level).await?;
    let rows: Vec<_> = read
        .values()
        .iter()
        .map(|value| {
            let [text, hex] = for_programs(value);
            Record::new([("bytes", value.len().into()), text, hex])
        })
        .collect();
    let mut text = head(at, &amount(rows.len()), level);
    read.values().iter().for_each(|value| text += &format!("{}\n", quoted(value)));
    if rows.len() > 1 {
        text += &format!("next: ringctl key siblings {}\n", named(at));
    }
    show(args, &Report { text, whole: whole(at, level).with("values", &rows).of(&VALUES), rows });
    client.close().await;
    Ok(Exit::Fine)
}

async fn siblings(args: &Args, at: At<'_>, level: Option<Level>) -> Result<Exit, Failure> {
    let cluster = Cluster::find(args)?;
    let client = cluster.connect(args.node.as_deref()).await?.database(at.db);
    let read = read(&client, at.key, level).await?;
    let written = writers(&cluster, &client, at, read.values()).await;
    let names: Vec<(u32, String)> =
        client.status().await?.nodes.into_iter().map(|node| (node.id, node.name)).collect();
    let report = siblings_report(at, level, &read, &written, &names, style(args));
    show(args, &report);
    client.close().await;
    Ok(Exit::Fine)
}

/// Who wrote each value, as the first holder says that has the same values; empty if none has.
async fn writers(
    cluster: &Cluster,
    client: &Client,
    at: At<'_>,
    values: &[Bytes],
) -> Vec<CopyValue> {
    let Ok(owners) = client.owners(at.key).await else { return Vec::new() };
    for owner in owners.nodes.iter().filter(|owner| owner.up) {
        let request = AdminRequest::Copy { key: Bytes::copy_from_slice(at.key), keyspace: at.db };
        let Ok(node) = cluster.dial_aside(owner.address.clone(), PATIENCE).await else { continue };
        if let Ok(AdminReply::Copy(copy)) = node.administer(request, PATIENCE).await
            && copy.counter.is_none()
            && copy.values.len() == values.len()
            && copy.values.iter().zip(values).all(|(a, b)| a.bytes == b.len() as u64)
        {
            return copy.values;
        }
    }
    Vec::new()
}

fn siblings_report(
    at: At<'_>,
    level: Option<Level>,
    read: &Read,
    written: &[CopyValue],
    names: &[(u32, String)],
    style: Style,
) -> Report {
    let mut table = Table::new(&["", "WRITTEN BY", ">DOT", "AT", ">BYTES", "VALUE"]);
    let mut rows = Vec::new();
    for (place, value) in read.values().iter().enumerate() {
        let by = written.get(place);
        let name = by.map(|by| {
            let named = names.iter().find(|(id, _)| *id == by.node);
            named.map_or_else(|| by.node.to_string(), |(_, name)| name.clone())
        });
        let dot = by.map(|by| format!("{}.{}:{}", by.node, by.incarnation, by.seq));
        let at = by.map(|by| human::rfc3339(by.at_ms));
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        table.row([
            Cell::text((place + 1).to_string()),
            Cell::text(or(&name)),
            Cell::number(or(&dot)),
            Cell::text(or(&at)),
            Cell::number(value.len().to_string()),
            Cell::text(human::cut(&quoted(value), if style.wide { usize::MAX } else { 60 })),
        ]);
        let [text, hex] = for_programs(value);
        rows.push(Record::new([
            ("place", (place + 1).into()),
            ("written_by", name.into()),
            ("dot", dot.into()),
            ("written_at", at.into()),
            ("bytes", value.len().into()),
            text,
            hex,
        ]));
    }
    let mut text = head(at, &amount(rows.len()), level);
    if !rows.is_empty() {
        text += &table.render(style.colour);
    }
    if rows.len() > 1 {
        text += &format!("next: ringctl key resolve {} --take 1, or --value TEXT\n", named(at));
    }
    Report { text, whole: whole(at, level).with("siblings", &rows).of(&SIBLINGS), rows }
}

async fn resolve(
    args: &Args,
    at: At<'_>,
    take: &Take,
    level: Option<Level>,
) -> Result<Exit, Failure> {
    let cluster = Cluster::find(args)?;
    cluster.check_writable("a change of a key")?;
    let client = cluster.connect(args.node.as_deref()).await?.database(at.db);
    let read = read(&client, at.key, level).await?;
    let found = read.values().len();
    let value = match take {
        Take { value: Some(value), .. } => Bytes::copy_from_slice(value.as_bytes()),
        Take { take, .. } => {
            let take = take.unwrap_or(1);
            let chosen = take.checked_sub(1).and_then(|place| read.values().get(place));
            chosen.cloned().ok_or_else(|| no_such_sibling(at, take, found))?
        }
    };
    if found == 1 && read.values()[0] == value {
        let text = head(at, "1 value: nothing to resolve", level);
        let record = resolved(at, level, found, &value);
        show(args, &Report { text, whole: record.clone().into(), rows: vec![record] });
        client.close().await;
        return Ok(Exit::Fine);
    }
    let put = client.put(Bytes::copy_from_slice(at.key), value.clone()).context(read.context());
    let put = if let Some(level) = level { put.consistency(level) } else { put };
    put.await?;
    let what = format!("{} replaced by {}", amount(found), human::cut(&quoted(&value), 60));
    let record = resolved(at, level, found, &value);
    let text = head(at, &what, level);
    show(args, &Report { text, whole: record.clone().into(), rows: vec![record] });
    client.close().await;
    Ok(Exit::Fine)
}

fn resolved(at: At<'_>, level: Option<Level>, found: usize, value: &[u8]) -> Record {
    let [text, hex] = for_programs(value);
    whole(at, level).and([("replaced", found.into()), text, hex])
}

fn no_such_sibling(at: At<'_>, take: usize, found: usize) -> Failure {
    let what = format!("{} has no sibling {take}", quoted(at.key));
    let why = format!("it has {}", amount(found));
    let told = Told::new(what, why, format!("see them: ringctl key siblings {}", named(at)));
    Failure { exit: Exit::Usage, told }
}

async fn delete(args: &Args, at: At<'_>, level: Option<Level>, yes: bool) -> Result<Exit, Failure> {
    let cluster = Cluster::find(args)?;
    cluster.check_writable("a change of a key")?;
    let client = cluster.connect(args.node.as_deref()).await?.database(at.db);
    let read = read(&client, at.key, level).await?;
    let found = read.values().len();
    if found > 0 {
        confirm(yes, &format!("delete {} of {}", amount(found), quoted(at.key)))?;
        let delete = client.delete(Bytes::copy_from_slice(at.key)).context(read.context());
        let delete = if let Some(level) = level { delete.consistency(level) } else { delete };
        delete.await?;
    }
    let what =
        if found == 0 { "there was no value".into() } else { format!("{} deleted", amount(found)) };
    let record = whole(at, level).and([("deleted", found.into())]);
    let text = head(at, &what, level);
    show(args, &Report { text, whole: record.clone().into(), rows: vec![record] });
    client.close().await;
    Ok(Exit::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_shown_all_the_same() {
        assert_eq!(quoted(b"a\"b\n\xff"), "\"a\\\"b\\n\\xff\"");
        assert_eq!(for_programs(b"\xff")[1], ("value_hex", "ff".into()));
    }
}
