//! `hot` and `big`: the keys that are asked for most, and those that are largest.

use std::collections::BTreeMap;

use bytes::Bytes;
use client::{AdminReply, AdminRequest, BigKey, Client, HotKeys, Told};

use super::key::quoted;
use crate::args::Args;
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};
use crate::nodes::{PATIENCE, ask_all, named};
use crate::render::{Cell, Record, Report, Style, Table, human, key_fields};
use crate::{show, style};

/// The nodes that answer, or the one that was named, with their connections.
async fn nodes(args: &Args, cluster: &Cluster) -> Result<Vec<(String, Client)>, Failure> {
    let (status, heard) = ask_all(args, cluster).await?;
    let only = match &args.node {
        None => None,
        Some(name) => Some(named(&status, name)?.id),
    };
    let heard = heard.into_iter().filter(|heard| only.is_none_or(|id| heard.status.id == id));
    Ok(heard.filter_map(|heard| Some((heard.status.name, heard.client?))).collect())
}

fn misfit() -> Failure {
    let told = Told::new(
        "the node answered another question",
        "it is of another version",
        "compare the versions of ringctl and node: ringctl node ls",
    );
    Failure { exit: Exit::Failed, told }
}

#[derive(Default)]
struct Heat {
    per_second: f64,
    error: f64,
    reads: f64,
    writes: f64,
    nodes: Vec<String>,
}

pub(crate) async fn hot(args: &Args, count: usize) -> Result<Exit, Failure> {
    let cluster = Cluster::find(args)?;
    let mut told = Vec::new();
    for (name, client) in nodes(args, &cluster).await? {
        match client.administer(AdminRequest::Hot, PATIENCE).await? {
            AdminReply::Hot(hot) => told.push((name, hot)),
            _ => return Err(misfit()),
        }
    }
    show(args, &hot_report(&told, count, style(args)));
    Ok(Exit::Fine)
}

/// The fields of a key that is asked for much.
const HOT: [&str; 8] = [
    "key",
    "key_hex",
    "db",
    "ops_per_second",
    "error_per_second",
    "share",
    "share_of_writes",
    "nodes",
];

/// The fields of a large key.
const BIG: [&str; 6] = ["key", "key_hex", "db", "bytes", "values", "nodes"];

fn hot_report(told: &[(String, HotKeys)], count: usize, style: Style) -> Report {
    let mut heats: BTreeMap<(u16, &Bytes), Heat> = BTreeMap::new();
    let (mut all, mut window_ms) = (0.0, 0);
    for (name, hot) in told {
        // A window that has only begun says little; a second at least is taken for the rate.
        let scale = f64::from(hot.one_in) / (hot.window_ms.max(1_000) as f64 / 1e3);
        all += hot.samples as f64 * scale;
        window_ms = window_ms.max(hot.window_ms);
        for key in &hot.keys {
            let heat = heats.entry((key.keyspace, &key.key)).or_default();
            heat.per_second += key.samples as f64 * scale;
            heat.error += key.error as f64 * scale;
            heat.writes += key.writes as f64;
            heat.reads += (key.samples - key.writes.min(key.samples)) as f64;
            heat.nodes.push(name.clone());
        }
    }
    let mut heats: Vec<_> = heats.into_iter().collect();
    heats.sort_by(|(_, a), (_, b)| (b.per_second - b.error).total_cmp(&(a.per_second - a.error)));
    // What may be nothing but error is not hot.
    heats.retain(|(_, heat)| heat.error * 2.0 < heat.per_second);
    heats.truncate(count);
    let mut table = Table::new(&[">OPS/S", ">OF ALL", ">WRITES", ">DB", "KEY", "ASKED AT"]);
    let mut rows = Vec::new();
    for ((db, key), heat) in &heats {
        let share = if all > 0.0 { heat.per_second / all } else { 0.0 };
        let writes = heat.writes / (heat.reads + heat.writes).max(1.0);
        table.row([
            Cell::number(human::count(heat.per_second.round() as u64)),
            Cell::number(human::share(share)),
            Cell::number(human::share(writes)),
            Cell::number(db.to_string()),
            Cell::text(human::cut(&quoted(key), if style.wide { usize::MAX } else { 60 })),
            Cell::text(heat.nodes.join(" ")),
        ]);
        rows.push(Record::new(key_fields(key)).and([
            ("db", (*db).into()),
            ("ops_per_second", heat.per_second.round().into()),
            ("error_per_second", heat.error.round().into()),
            ("share", share.into()),
            ("share_of_writes", writes.into()),
            ("nodes", heat.nodes.clone().into()),
        ]));
    }
    let window = human::duration(std::time::Duration::from_millis(window_ms));
    let text = format!(
        "about {} operations a second at {} in the last {window}, from samples\n{}",
        human::count(all.round() as u64),
        human::things(told.len(), "node", "nodes"),
        if rows.is_empty() { "no key stands out\n".to_owned() } else { table.render(style.colour) },
    );
    let whole = Record::new([
        ("window_ms", window_ms.into()),
        ("ops_per_second", all.round().into()),
        ("nodes", told.len().into()),
    ]);
    Report { text, whole: whole.with("keys", &rows).of(&HOT), rows }
}

pub(crate) async fn big(args: &Args, count: u16) -> Result<Exit, Failure> {
    let cluster = Cluster::find(args)?;
    let nodes = nodes(args, &cluster).await?;
    let asked = nodes.len();
    let mut walks = tokio::task::JoinSet::new();
    for (name, client) in nodes {
        walks.spawn(async move { (name, walk(&client, count).await) });
    }
    let (mut keys, mut read) = (BTreeMap::<(u16, Bytes), (BigKey, Vec<String>)>::new(), 0);
    while let Some(walked) = walks.join_next().await {
        let (name, walked) = walked.map_err(|error| {
            Failure::operation("a walk through the keys of a node broke", &error, "try again")
        })?;
        let (largest, of_this) = walked?;
        read += of_this;
        for key in largest {
            let entry = keys.entry((key.keyspace, key.key.clone()));
            let (known, names) = entry.or_insert_with(|| (key.clone(), Vec::new()));
            known.bytes = known.bytes.max(key.bytes);
            names.push(name.clone());
        }
    }
    let mut keys: Vec<_> = keys.into_values().collect();
    keys.sort_by(|(a, _), (b, _)| b.bytes.cmp(&a.bytes).then_with(|| a.key.cmp(&b.key)));
    keys.truncate(usize::from(count));
    show(args, &big_report(&mut keys, read, asked, style(args)));
    Ok(Exit::Fine)
}

/// The largest keys of a node, and how many it has. Its store is read once, in small parts.
async fn walk(client: &Client, count: u16) -> Result<(Vec<BigKey>, u64), Failure> {
    let (mut largest, mut read, mut at) = (Vec::new(), 0, (0, Bytes::new()));
    loop {
        let request = AdminRequest::Big { slot: at.0, from: at.1, count };
        let AdminReply::Big(big) = client.administer(request, PATIENCE).await? else {
            return Err(misfit());
        };
        read += big.read;
        largest.extend(big.keys);
        largest.sort_by_key(|key: &BigKey| std::cmp::Reverse(key.bytes));
        largest.truncate(usize::from(count));
        match big.next {
            Some(next) => at = next,
            None => return Ok((largest, read)),
        }
    }
}

fn big_report(keys: &mut [(BigKey, Vec<String>)], read: u64, nodes: usize, style: Style) -> Report {
    let mut table = Table::new(&[">SIZE", ">VALUES", ">DB", "KEY", "HELD BY"]);
    let mut rows = Vec::new();
    for (key, names) in keys {
        names.sort_unstable();
        table.row([
            Cell::number(human::bytes(key.bytes)),
            Cell::number(key.values.to_string()),
            Cell::number(key.keyspace.to_string()),
            Cell::text(human::cut(&quoted(&key.key), if style.wide { usize::MAX } else { 60 })),
            Cell::text(names.join(" ")),
        ]);
        rows.push(Record::new(key_fields(&key.key)).and([
            ("db", key.keyspace.into()),
            ("bytes", key.bytes.into()),
            ("values", key.values.into()),
            ("nodes", names.clone().into()),
        ]));
    }
    let text = format!(
        "{} read on {}\n{}",
        human::things(read as usize, "copy of a key", "copies of keys"),
        human::things(nodes, "node", "nodes"),
        table.render(style.colour)
    );
    let whole = Record::new([("copies_read", read.into()), ("nodes", nodes.into())]);
    Report { text, whole: whole.with("keys", &rows).of(&BIG), rows }
}
