//! `node`: the members one by one, by their own words, and how to send one away for a while.

use std::time::{Duration, Instant};

use client::{AdminReply, AdminRequest, NodeFacts, Told};
use serde_json::Value;

use super::status::{code, state};
use super::watch::again;
use crate::args::{Args, Node};
use crate::cluster::Cluster;
use crate::confirm::confirm;
use crate::failure::{Exit, Failure};
use crate::nodes::{Heard, ask_all, named};
use crate::render::{Cell, Paint, Record, Report, Style, Table, human};
use crate::{show, style};

pub(crate) async fn run(args: &Args, command: &Node) -> Result<Exit, Failure> {
    match command {
        Node::Ls { watch } => again(args, watch.every, || ls(args)).await,
        Node::Show { name, watch } => again(args, watch.every, || show_one(args, name)).await,
        Node::Drain { name, yes, even_if_degraded } => {
            drain(args, name, *yes, *even_if_degraded).await
        }
    }
}

fn load(facts: &NodeFacts) -> u64 {
    facts.store.table_bytes + facts.store.blob_bytes + facts.store.log_bytes
}

fn ago(ms: u64) -> String {
    human::duration(Duration::from_millis(ms))
}

/// What a row of `ls` and all of `show` say of a node.
fn record(heard: &Heard) -> Record {
    let node = &heard.status;
    let mut fields = vec![
        ("code", Value::from(code(node))),
        ("id", node.id.to_string().into()),
        ("name", node.name.as_str().into()),
        ("zone", node.zone.as_str().into()),
        ("address", node.address.as_str().into()),
        ("state", state(node).into()),
        ("up", node.up.into()),
        ("ready", node.ready.into()),
        ("owns", node.owns.into()),
    ];
    let f = heard.facts.as_ref();
    let of = |value: fn(&NodeFacts) -> Value| f.map_or(Value::Null, value);
    fields.extend([
        ("version", of(|f| f.version.as_str().into())),
        ("incarnation", of(|f| f.incarnation.into())),
        ("pid", of(|f| f.pid.into())),
        ("uptime_ms", of(|f| f.uptime_ms.into())),
        ("cpu_us", of(|f| f.cpu_us.into())),
        ("memory_bytes", of(|f| f.memory_bytes.into())),
        ("files_open", of(|f| f.files_open.into())),
        ("files_max", of(|f| f.files_max.into())),
        ("disk_free_bytes", of(|f| f.disk_free_bytes.into())),
        ("disk_bytes", of(|f| f.disk_bytes.into())),
        ("load_bytes", of(|f| load(f).into())),
        ("cores", of(|f| f.cores.into())),
        ("data_dir", of(|f| f.data_dir.as_str().into())),
        ("config_file", of(|f| f.config_file.as_str().into())),
        ("redis_listen", of(|f| f.redis_listen.as_str().into())),
        ("peer_listen", of(|f| f.peer_listen.as_str().into())),
        ("http_listen", of(|f| f.http_listen.as_str().into())),
        ("clients", of(|f| f.clients.into())),
        ("clients_max", of(|f| f.clients_max.into())),
        ("ops_per_second", of(|f| f.ops_per_second.into())),
        ("unavailable", of(|f| f.unavailable.into())),
        ("unconfirmed", of(|f| f.unconfirmed.into())),
        ("overloaded", of(|f| f.overloaded.into())),
        ("read_repairs", of(|f| f.read_repairs.into())),
        ("clock_gaps", of(|f| f.clock_gaps.into())),
        ("not_ready", of(|f| f.not_ready.clone().into())),
        ("tables", of(|f| f.store.tables.into())),
        ("table_bytes", of(|f| f.store.table_bytes.into())),
        ("blob_bytes", of(|f| f.store.blob_bytes.into())),
        ("log_bytes", of(|f| f.store.log_bytes.into())),
        ("memtable_bytes", of(|f| f.store.memtable_bytes.into())),
        ("cache_bytes", of(|f| f.store.cache_bytes.into())),
        ("debt", of(|f| f.store.debt.into())),
        ("damaged_places", of(|f| f.store.damaged_places.into())),
        ("clock_ahead_ms", if f.is_some() { heard.ahead_ms.into() } else { Value::Null }),
        ("error", heard.silence.as_ref().map(|error| error.told().why).into()),
    ]);
    Record::new(fields)
}

async fn ls(args: &Args) -> Result<Exit, Failure> {
    let cluster = Cluster::find(args)?;
    let (status, heard) = ask_all(args, &cluster).await?;
    let rows: Vec<_> = heard.iter().map(record).collect();
    let text = table(&heard, style(args)).render(style(args).colour);
    let whole = Record::new([("cluster", status.name.as_str().into())]).with("nodes", &rows);
    show(args, &Report { text, whole, rows });
    Ok(Exit::Fine)
}

fn table(heard: &[Heard], style: Style) -> Table {
    let mut headings =
        vec!["", "NODE", "ZONE", "ADDRESS", "STATE", "VERSION", ">UP FOR", ">OPS/S", ">MEMORY"];
    headings.extend([">LOAD", ">DISK FREE", ">FILES"]);
    if style.wide {
        headings.extend([">ID", ">LIFE", ">PID", ">CLIENTS", ">CPU TIME", "REDIS", "DATA"]);
    }
    let mut table = Table::new(&headings);
    for Heard { status, facts, silence, .. } in heard {
        let paint = if !status.up {
            Paint::Bad
        } else if status.ready {
            Paint::Good
        } else {
            Paint::Pending
        };
        let mut cells = vec![
            Cell::text(format!("{} ", code(status))).painted(paint),
            Cell::text(status.name.as_str()),
            Cell::text(status.zone.as_str()),
            Cell::text(status.address.as_str()),
            Cell::text(state(status)).painted(paint),
        ];
        match facts {
            Some(f) => {
                let free = f.disk_free_bytes as f64 / f.disk_bytes.max(1) as f64;
                cells.extend([
                    Cell::text(f.version.as_str()),
                    Cell::number(ago(f.uptime_ms)),
                    Cell::number(human::count(f.ops_per_second)),
                    Cell::number(human::bytes(f.memory_bytes)),
                    Cell::number(human::bytes(load(f))),
                    Cell::number(human::share(free)),
                    Cell::number(human::count(f.files_open)),
                ]);
                if style.wide {
                    cells.extend([
                        Cell::number(f.id.to_string()),
                        Cell::number(f.incarnation.to_string()),
                        Cell::number(f.pid.to_string()),
                        Cell::number(human::count(f.clients)),
                        Cell::number(ago(f.cpu_us / 1_000)),
                        Cell::text(f.redis_listen.as_str()),
                        Cell::text(f.data_dir.as_str()),
                    ]);
                }
            }
            None => {
                let why = silence.as_ref().map(|error| error.told().why).unwrap_or_default();
                cells.push(Cell::spanning(why));
            }
        }
        table.row(cells);
    }
    table
}

async fn show_one(args: &Args, name: &str) -> Result<Exit, Failure> {
    let cluster = Cluster::find(args)?;
    let (status, heard) = ask_all(args, &cluster).await?;
    let id = named(&status, name)?.id;
    let heard = heard.into_iter().find(|heard| heard.status.id == id);
    let heard = heard.expect("every member was asked");
    let Some(facts) = &heard.facts else {
        let silence = heard.silence.expect("who says nothing has a reason");
        let mut failure = Failure::from(silence);
        failure.told.what = format!("{} says nothing: {}", heard.status.name, failure.told.what);
        return Err(failure);
    };
    let row = record(&heard);
    let text = page(&heard, facts);
    show(args, &Report { text, whole: row.clone().into(), rows: vec![row] });
    Ok(Exit::Fine)
}

fn page(heard: &Heard, f: &NodeFacts) -> String {
    let (node, store) = (&heard.status, &f.store);
    let free = f.disk_free_bytes as f64 / f.disk_bytes.max(1) as f64;
    let why = if f.not_ready.is_empty() {
        String::new()
    } else {
        format!(": {}", f.not_ready.join(", "))
    };
    let or = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let bytes = human::bytes;
    let count = human::count;
    [
        (
            "node",
            format!("{}   number {}, life {}, zone {}", f.name, f.id, f.incarnation, node.zone),
        ),
        ("state", format!("{}{why}", state(node))),
        (
            "program",
            format!(
                "ringd {}, process {}, {}, up for {}",
                f.version,
                f.pid,
                human::things(f.cores as usize, "core", "cores"),
                ago(f.uptime_ms)
            ),
        ),
        (
            "listens",
            format!(
                "redis {}, QUIC {}, HTTP {}",
                f.redis_listen,
                f.peer_listen,
                or(&f.http_listen)
            ),
        ),
        ("settings", or(&f.config_file)),
        (
            "used",
            format!(
                "{} of processor time, {} of memory, {} of {} files",
                ago(f.cpu_us / 1_000),
                bytes(f.memory_bytes),
                count(f.files_open),
                count(f.files_max)
            ),
        ),
        (
            "clients",
            format!(
                "{} of {}, {} operations a second",
                count(f.clients),
                count(f.clients_max),
                count(f.ops_per_second)
            ),
        ),
        (
            "refused",
            format!(
                "{} unavailable, {} unconfirmed, {} overloaded",
                count(f.unavailable),
                count(f.unconfirmed),
                count(f.overloaded)
            ),
        ),
        ("ring", format!("version {}, owns {}", f.epoch, human::share(node.owns))),
        (
            "copies",
            format!(
                "{} repaired by reads, {} writes known to be missing",
                count(f.read_repairs),
                count(f.clock_gaps)
            ),
        ),
        (
            "store",
            format!(
                "{}: {} in {} tables, {} large values, {} log",
                f.data_dir,
                bytes(store.table_bytes),
                count(store.tables),
                bytes(store.blob_bytes),
                bytes(store.log_bytes)
            ),
        ),
        (
            "memory",
            format!(
                "{} not in tables yet, {} of blocks",
                bytes(store.memtable_bytes),
                bytes(store.cache_bytes)
            ),
        ),
        (
            "behind",
            format!(
                "flush and compaction {}, {} damaged places{}",
                human::share(store.debt),
                store.damaged_places,
                if store.poisoned { ", the disk FAILED" } else { "" }
            ),
        ),
        (
            "disk",
            format!(
                "{} free of {} ({})",
                bytes(f.disk_free_bytes),
                bytes(f.disk_bytes),
                human::share(free)
            ),
        ),
        (
            "clock",
            format!(
                "{} ms before this machine's, give or take {:.1} ms",
                heard.ahead_ms,
                heard.round_trip.as_secs_f64() * 1e3
            ),
        ),
    ]
    .map(|(name, value)| format!("{name:<9}  {value}\n"))
    .concat()
}

async fn drain(
    args: &Args,
    name: &str,
    yes: bool,
    even_if_degraded: bool,
) -> Result<Exit, Failure> {
    let cluster = Cluster::find(args)?;
    cluster.check_writable("to drain a node")?;
    let client = cluster.connect(None).await?;
    let status = client.status().await?;
    client.close().await;
    let node = named(&status, name)?.clone();
    let others =
        status.nodes.iter().filter(|other| other.id != node.id && !(other.up && other.ready));
    let amiss: Vec<_> = others.map(|other| other.name.as_str()).collect();
    if !amiss.is_empty() && !even_if_degraded {
        let told = Told::new(
            format!("{} is not drained", node.name),
            format!(
                "{} not ready: without {} too, some slots may have no quorum",
                amiss.join(", "),
                node.name
            ),
            "bring them back first, or say --even-if-degraded",
        );
        return Err(Failure { exit: Exit::Failed, told });
    }
    confirm(yes, &format!("drain {}, whose process ends then", node.name))?;
    let began = Instant::now();
    let target = cluster.dial_aside(node.address.clone(), args.timeout).await?;
    match target.administer(AdminRequest::Drain, args.timeout).await? {
        AdminReply::Draining => {}
        _ => {
            return Err(Failure::operation(
                "the node answered another question",
                &"it is of another version",
                "compare versions",
            ));
        }
    }
    let ended = wait_for_the_end(&target, args.timeout).await;
    let took = began.elapsed();
    let next = cluster.bring_back(&node.name);
    let next = next.unwrap_or_else(|| format!("start ringd on {} ({})", node.name, node.address));
    let row = Record::new([
        ("name", node.name.as_str().into()),
        ("ended", ended.into()),
        ("took_ms", (took.as_millis() as u64).into()),
        ("bring_back", next.as_str().into()),
    ]);
    if !ended {
        let what = format!("{} drains, and has not ended yet", node.name);
        let why = format!("it still answers after {}", human::duration(took));
        let told =
            Told::new(what, why, "watch it: ringctl status -w, or wait longer with --timeout");
        return Err(Failure { exit: Exit::TimedOut, told });
    }
    let text = format!(
        "{} has drained, and is gone after {:.2} s\nbring it back: {next}\n",
        node.name,
        took.as_secs_f64()
    );
    show(args, &Report { text, whole: row.clone().into(), rows: vec![row] });
    Ok(Exit::Fine)
}

/// Whether the node stopped answering in time.
async fn wait_for_the_end(node: &client::Client, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        let asked = tokio::time::timeout(Duration::from_secs(1), node.ping()).await;
        if !matches!(asked, Ok(Ok(_))) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}
