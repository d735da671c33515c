//! `keyspace`: by which terms the keys of each keyspace are kept, as the nodes say it, and other terms.
//!
//! Promise: of several keyspaces none is changed before all of them could be and were meant to be; what is
//! changed is what was shown, or nothing, if somebody else was faster.

use std::time::Duration;

use client::{
    AdminReply, AdminRequest, Client, KeyspaceChange, KeyspaceChanged, KeyspaceFacts, Told,
};

use crate::args::{Args, How, Keyspace, Sloppy, Terms};
use crate::cluster::Cluster;
use crate::confirm::confirm;
use crate::failure::{Exit, Failure};
use crate::nodes::ask_all;
use crate::render::{Cell, Paint, Record, Report, Style, Table, human};
use crate::{show, style};

pub(crate) async fn run(args: &Args, command: &Keyspace) -> Result<Exit, Failure> {
    match command {
        Keyspace::Ls { watch } => super::watch::again(args, watch.every, || ls(args)).await,
        Keyspace::Set { names, terms, how } => {
            check_sloppy(terms.sloppy)?;
            change(args, names, &wish(terms), *how).await
        }
        Keyspace::Rm { names, how } => {
            let wish = KeyspaceChange { remove: true, ..KeyspaceChange::default() };
            change(args, names, &wish, *how).await
        }
    }
}

async fn ls(args: &Args) -> Result<Exit, Failure> {
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
    let mut headings = vec!["DATABASE"];
    headings.extend(TERMS);
    headings.extend(style.wide.then_some("SLOPPY"));
    headings.extend(["FROM", ""]);
    let mut table = Table::new(&headings);
    let mut rows = Vec::new();
    for (keyspace, nodes) in kinds {
        let all = nodes.len() == asked;
        let only = if all { String::new() } else { format!("only at {}", nodes.join(", ")) };
        let mut cells = vec![Cell::text(keyspace.name.as_str())];
        cells.extend(cells_of(keyspace));
        cells.extend(style.wide.then(|| Cell::text("off")));
        cells.push(Cell::text(from(keyspace, style.wide)));
        cells.push(Cell::text(only).painted(Paint::Bad));
        table.row(cells);
        let row = Record::new([("database", keyspace.name.as_str().into())]);
        let row = row.and(record_of(keyspace));
        rows.push(row.and([("nodes", nodes.clone().into()), ("everywhere", all.into())]));
    }
    let text = table.render(style.colour);
    Report { text, whole: Record::default().with("keyspaces", &rows), rows }
}

/// The columns that terms have.
const TERMS: [&str; 6] = [">N", "READ", "WRITE", "DURABILITY", "CONFLICT", "TTL"];

fn cells_of(terms: &KeyspaceFacts) -> [Cell; 6] {
    [
        Cell::number(terms.n.to_string()),
        Cell::text(terms.read.as_str()),
        Cell::text(terms.write.as_str()),
        Cell::text(terms.durability.as_str()),
        Cell::text(terms.conflict.as_str()),
        Cell::text(ttl(terms.ttl_ms)),
    ]
}

fn record_of(k: &KeyspaceFacts) -> [(&'static str, serde_json::Value); 12] {
    let was_set = k.version > 0;
    [
        ("n", k.n.into()),
        ("read", k.read.as_str().into()),
        ("write", k.write.as_str().into()),
        ("durability", k.durability.as_str().into()),
        ("conflict", k.conflict.as_str().into()),
        ("ttl_ms", Some(k.ttl_ms).filter(|ms| *ms > 0).into()),
        // There is nothing else yet.
        ("sloppy", "off".into()),
        ("set", k.set.into()),
        ("version", k.version.into()),
        ("by", Some(k.by.as_str()).filter(|_| was_set).into()),
        ("at", Some(human::rfc3339(k.at_ms)).filter(|_| was_set).into()),
        ("closed", k.closed.into()),
    ]
}

/// A time in the greatest unit that has it whole.
fn ttl(ms: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let whole = units.iter().find(|(scale, _)| ms > 0 && ms.is_multiple_of(*scale));
    whole.map_or_else(|| "none".to_owned(), |(scale, unit)| format!("{}{unit}", ms / scale))
}

/// Where terms come from.
fn from(k: &KeyspaceFacts, wide: bool) -> String {
    let when = || if wide { format!(" {}", human::rfc3339(k.at_ms)) } else { String::new() };
    match (k.set, k.version) {
        (set, version) if set || version > 0 => {
            let whose = if set { "set" } else { "configuration" };
            let closed = if k.closed { ", CLOSED" } else { "" };
            format!("{whose} v{version} by {}{}{closed}", k.by, when())
        }
        _ => "configuration".to_owned(),
    }
}

fn check_sloppy(sloppy: Option<Sloppy>) -> Result<(), Failure> {
    if matches!(sloppy, None | Some(Sloppy::Off)) {
        return Ok(());
    }
    let told = Told::new(
        "sloppy quorums are not available",
        "they rest on hints, which this version does not keep: nobody may stand in for a replica",
        "leave it off; lower --write, if writes are to go on with fewer replicas",
    );
    Err(Failure { exit: Exit::Failed, told })
}

fn wish(terms: &Terms) -> KeyspaceChange {
    KeyspaceChange {
        n: terms.n,
        read: terms.read.clone(),
        write: terms.write.clone(),
        durability: terms.durability.clone(),
        conflict: terms.conflict.clone(),
        ttl_ms: terms.ttl,
        ..KeyspaceChange::default()
    }
}

async fn change(
    args: &Args,
    names: &[String],
    wish: &KeyspaceChange,
    how: How,
) -> Result<Exit, Failure> {
    let cluster = Cluster::find(args)?;
    if !how.dry_run {
        cluster.check_writable("to change a keyspace")?;
    }
    let client = cluster.connect(args.node.as_deref()).await?;
    let mut plans = Vec::new();
    for name in names {
        let wish = KeyspaceChange { name: name.clone(), dry_run: true, ..wish.clone() };
        plans.push(ask(args, &client, wish).await?);
    }
    if how.dry_run {
        show(args, &changes(&plans, true, style(args)));
        return Ok(Exit::Fine);
    }
    for KeyspaceChanged { before, warning, .. } in &plans {
        if wish.remove && before.set {
            confirm(how.yes, &format!("give keyspace {} back to the configuration", before.name))?;
        }
        if !warning.is_empty() {
            confirm(how.yes, &format!("change keyspace {}, though {warning}", before.name))?;
        }
    }
    for KeyspaceChanged { before, after, .. } in plans.iter().filter(|p| p.before.n != p.after.n) {
        let what = format!(
            "refuse requests of keyspace {} until every member has said that it is empty, then make \
             N={} N={}",
            before.name, before.n, after.n
        );
        confirm(how.yes, &what)?;
    }
    let mut done = Vec::new();
    for plan in plans {
        let (version, weak) = (Some(plan.before.version), !plan.warning.is_empty());
        let (name, drive) = (plan.before.name, plan.before.n != plan.after.n);
        let wish = KeyspaceChange { name, weak, drive, version, ..wish.clone() };
        done.push(ask(args, &client, wish).await?);
    }
    show(args, &changes(&done, false, style(args)));
    Ok(Exit::Fine)
}

/// How long to wait for other copies: a search, and what comes before and after it.
const COPIES_PATIENCE: Duration = Duration::from_secs(30);

async fn ask(
    args: &Args,
    client: &Client,
    wish: KeyspaceChange,
) -> Result<KeyspaceChanged, Failure> {
    // The node looks through all members before it answers, and goes on whether we wait or not.
    let timeout = if wish.drive { args.timeout.max(COPIES_PATIENCE) } else { args.timeout };
    match client.administer(AdminRequest::Keyspace(Box::new(wish)), timeout).await? {
        AdminReply::Keyspace(changed) => Ok(*changed),
        _ => Err(Failure::operation(
            "the node answered another question",
            &"it is of another version",
            "compare versions",
        )),
    }
}

fn changes(all: &[KeyspaceChanged], dry_run: bool, style: Style) -> Report {
    let (mut text, mut rows) = (String::new(), Vec::new());
    for changed in all {
        let KeyspaceChanged { before, after, warning, held, missing } = changed;
        let mut headings = vec![""];
        headings.extend(TERMS);
        headings.push("FROM");
        let mut table = Table::new(&headings);
        for (when, terms) in [("before", before), (if dry_run { "then" } else { "now" }, after)] {
            let mut cells = vec![Cell::text(when)];
            cells.extend(cells_of(terms));
            cells.push(Cell::text(from(terms, style.wide)));
            table.row(cells);
        }
        let state = if dry_run {
            "nothing is changed yet".to_owned()
        } else if held.is_empty() {
            "as it was: nothing had been set".to_owned()
        } else {
            format!("on the disks of {}", held.join(", "))
        };
        text += &format!("keyspace {}   {state}\n{}", after.name, table.render(style.colour));
        if !missing.is_empty() && !held.is_empty() {
            text += &format!(
                "not yet at {}: it learns of this before it serves again\n",
                missing.join(", ")
            );
        }
        if !warning.is_empty() {
            text += &format!("warning: {warning}\n");
        }
        let row = Record::new([
            ("database", after.name.as_str().into()),
            ("dry_run", dry_run.into()),
            ("n_before", before.n.into()),
            ("read_before", before.read.as_str().into()),
            ("write_before", before.write.as_str().into()),
            ("durability_before", before.durability.as_str().into()),
            ("conflict_before", before.conflict.as_str().into()),
            ("ttl_ms_before", Some(before.ttl_ms).filter(|ms| *ms > 0).into()),
        ]);
        rows.push(row.and(record_of(after)).and([
            ("warning", Some(warning.as_str()).filter(|w| !w.is_empty()).into()),
            ("held", held.clone().into()),
            ("missing", missing.clone().into()),
        ]));
    }
    Report { text, whole: Record::default().with("keyspaces", &rows), rows }
}
