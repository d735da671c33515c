//! `ring owners`: where a key lives, and who is asked for it first.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use client::{Owners, hash_tag};
use serde_json::Value;

use crate::args::Args;
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};
use crate::render::{Cell, Paint, Record, Report, Style, Table, human, key_fields};
use crate::{show, style};

pub(crate) async fn run(args: &Args, key: &OsStr) -> Result<Exit, Failure> {
    let key = key.as_bytes();
    let client = Cluster::find(args)?.connect(args.node.as_deref()).await?;
    let owners = client.owners(key).await?;
    // The reader first, the farewell then.
    show(args, &report(key, &owners, style(args)));
    client.close().await;
    Ok(Exit::Fine)
}

/// What the row of an owner says of its part.
fn part(place: usize, coordinator: Option<usize>) -> &'static str {
    match (place, coordinator) {
        (0, Some(0)) => "preferred coordinator",
        (0, _) => "preferred coordinator, if it were up",
        (place, Some(coordinator)) if place == coordinator => "coordinates meanwhile",
        _ => "",
    }
}

fn report(key: &[u8], owners: &Owners, style: Style) -> Report {
    let Owners { slot, nodes } = owners;
    let tag = hash_tag(key);
    let tagged = tag.len() < key.len();
    let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let up = nodes.iter().filter(|node| node.up).count();
    let coordinator = nodes.iter().position(|node| node.up);
    let mut headings = vec!["", "NODE", "ZONE", "ADDRESS", "STATE", ""];
    if style.wide {
        headings.insert(2, "ID");
    }
    let mut table = Table::new(&headings);
    let mut rows = Vec::new();
    for (place, node) in nodes.iter().enumerate() {
        let (state, paint) = if node.up { ("up", Paint::Good) } else { ("down", Paint::Bad) };
        let mut cells = vec![
            Cell::text((place + 1).to_string()),
            Cell::text(node.name.as_str()),
            Cell::text(node.zone.as_str()),
            Cell::text(node.address.as_str()),
            Cell::text(state).painted(paint),
            Cell::spanning(part(place, coordinator)),
        ];
        if style.wide {
            cells.insert(2, Cell::text(node.id.to_string()));
        }
        table.row(cells);
        rows.push(Record::new([
            ("place", (place + 1).into()),
            ("id", node.id.to_string().into()),
            ("name", node.name.as_str().into()),
            ("zone", node.zone.as_str().into()),
            ("address", node.address.as_str().into()),
            ("state", state.into()),
        ]));
    }
    let text = format!(
        "key \"{}\"   slot {slot}   {}   {}, {up} up\n{}quorum: {}\n",
        shown(key),
        if tagged {
            format!("hash tag \"{}\"", shown(tag))
        } else {
            "hash tag: the whole key".into()
        },
        human::things(nodes.len(), "replica", "replicas"),
        table.render(style.colour),
        quorum(nodes.len(), up),
    );
    let whole = Record::new(key_fields(key))
        .and([
            ("slot", slot.0.into()),
            ("hash_tag", if tagged { String::from_utf8_lossy(tag).into() } else { Value::Null }),
        ])
        .with("replicas", &rows);
    Report { text, whole, rows }
}

fn quorum(replicas: usize, up: usize) -> String {
    let needed = replicas / 2 + 1;
    let verdict =
        if up >= needed { "readable and writable" } else { "neither readable nor writable" };
    format!("{needed} of {replicas} needed, {up} up: {verdict} at QUORUM")
}
