//! `keyspace ls`: by which rules the keys of each keyspace are kept, as the nodes say it.

use client::KeyspaceFacts;

use crate::args::Args;
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};
use crate::nodes::ask_all;
use crate::render::{Cell, Paint, Record, Report, Style, Table};
use crate::{show, style};

pub(crate) async fn ls(args: &Args) -> Result<Exit, Failure> {
    let cluster = Cluster::find(args)?;
    let (_, heard) = ask_all(args, &cluster).await?;
    let mut kinds: Vec<(KeyspaceFacts, Vec<String>)> = Vec::new();
    let mut asked = 0;
    for heard in heard {
        let Some(facts) = heard.facts else { continue };
        asked += 1;
        for keyspace in facts.keyspaces {
            match kinds.iter_mut().find(|(known, _)| *known == keyspace) {
                Some((_, names)) => names.push(heard.status.name.clone()),
                None => kinds.push((keyspace, vec![heard.status.name.clone()])),
            }
        }
    }
    // The default first, then databases by their numbers.
    kinds.sort_by_key(|(keyspace, _)| keyspace.name.parse::<i32>().unwrap_or(-1));
    show(args, &report(&kinds, asked, style(args)));
    Ok(Exit::Fine)
}

fn report(kinds: &[(KeyspaceFacts, Vec<String>)], asked: usize, style: Style) -> Report {
    let mut table = Table::new(&["DATABASE", ">N", "READ", "WRITE", "DURABILITY", "CONFLICT", ""]);
    let mut rows = Vec::new();
    for (keyspace, nodes) in kinds {
        let all = nodes.len() == asked;
        let only = if all { String::new() } else { format!("only at {}", nodes.join(", ")) };
        table.row([
            Cell::text(keyspace.name.as_str()),
            Cell::number(keyspace.n.to_string()),
            Cell::text(keyspace.read.as_str()),
            Cell::text(keyspace.write.as_str()),
            Cell::text(keyspace.durability.as_str()),
            Cell::text(keyspace.conflict.as_str()),
            Cell::text(only).painted(Paint::Bad),
        ]);
        rows.push(Record::new([
            ("database", keyspace.name.as_str().into()),
            ("n", keyspace.n.into()),
            ("read", keyspace.read.as_str().into()),
            ("write", keyspace.write.as_str().into()),
            ("durability", keyspace.durability.as_str().into()),
            ("conflict", keyspace.conflict.as_str().into()),
            ("nodes", nodes.clone().into()),
            ("everywhere", all.into()),
        ]));
    }
    let text = table.render(style.colour);
    Report { text, whole: Record::default().with("keyspaces", &rows), rows }
}
