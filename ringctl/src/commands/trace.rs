//! `key trace`: what each replica holds of a key by its own account, how far it is, and what a read
//! at a level makes of that.
//!
//! The replicas are asked first, so that what is shown is what the read met: the read repairs.

use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{AdminReply, AdminRequest, ClientError, KeyCopy, Level, Owner};
use serde_json::Value;

use super::key::{At, head_of};
use crate::args::Args;
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};
use crate::nodes::PATIENCE;
use crate::render::{Cell, Paint, Record, Report, Style, Table, human, key_fields};
use crate::{show, style};

/// What came of asking a replica.
struct Asked {
    owner: Owner,
    copy: Result<KeyCopy, ClientError>,
    took: Duration,
}

struct Trace {
    db: u16,
    key: Bytes,
    slot: u16,
    level: Level,
    asked: Vec<Asked>,
    read: Result<usize, ClientError>,
    read_took: Duration,
}

pub(crate) async fn run(
    args: &Args,
    At { db, key }: At<'_>,
    level: Option<Level>,
) -> Result<Exit, Failure> {
    let cluster = Cluster::find(args)?;
    let client = cluster.connect(args.node.as_deref()).await?.database(db);
    let key = Bytes::copy_from_slice(key);
    let owners = client.owners(&key).await?;
    // Connecting is not to be counted. If it does not come to that, the read shows it.
    client.reach(&key).await;
    let mut asked = Vec::new();
    for owner in owners.nodes {
        let (copy, took) = ask(&cluster, &owner, (db, &key)).await;
        if let Err(error @ ClientError::Unauthorised { .. }) = copy {
            return Err(error.into());
        }
        asked.push(Asked { owner, copy, took });
    }
    let level = level.unwrap_or(Level::Quorum);
    let began = Instant::now();
    let read = client.get(key.clone()).consistency(level).await;
    let read_took = began.elapsed();
    let read = read.map(|read| read.values().len());
    let trace = Trace { db, key, slot: owners.slot.0, level, asked, read, read_took };
    show(args, &report(&trace, style(args)));
    client.close().await;
    trace.read.map(|_| Exit::Fine).map_err(Failure::from)
}

async fn ask(
    cluster: &Cluster,
    owner: &Owner,
    (keyspace, key): (u16, &Bytes),
) -> (Result<KeyCopy, ClientError>, Duration) {
    let node = match cluster.dial_aside(owner.address.clone(), PATIENCE).await {
        Ok(node) => node,
        Err(error) => return (Err(error), Duration::ZERO),
    };
    let request = AdminRequest::Copy { key: key.clone(), keyspace };
    let began = Instant::now();
    let answer = node.administer(request, PATIENCE).await;
    let took = began.elapsed();
    node.close().await;
    let copy = match answer {
        Ok(AdminReply::Copy(copy)) => Ok(copy),
        Ok(_) => Err(ClientError::Internal { told: client::Told::default() }),
        Err(error) => Err(error),
    };
    (copy, took)
}

fn one_line(told: &client::Told) -> String {
    format!("{}: {}", told.what, told.why)
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// What a replica holds, by the writes that made it.
fn state(copy: &KeyCopy) -> String {
    let dots = copy.values.iter().map(|v| format!("{}.{}:{}", v.node, v.incarnation, v.seq));
    let dots = dots.collect::<Vec<_>>().join(", ");
    match (&copy.counter, copy.values.len()) {
        (Some(sum), _) => format!("counter {sum}"),
        (None, 0) if copy.record_bytes == 0 => "nothing".into(),
        (None, 0) => "deleted".into(),
        (None, _) => format!("{{{dots}}}"),
    }
}

/// The state that most replicas have, and of those the one of the latest write.
fn common<'a>(copies: &[&'a KeyCopy]) -> Option<&'a str> {
    let latest = |copy: &KeyCopy| copy.values.iter().map(|v| v.at_ms).max().unwrap_or(0);
    let count = |digest: &str| copies.iter().filter(|copy| copy.digest == digest).count();
    let most = copies.iter().max_by_key(|copy| (count(&copy.digest), latest(copy)));
    most.map(|copy| copy.digest.as_str())
}

fn report(trace: &Trace, style: Style) -> Report {
    let copies: Vec<&KeyCopy> = trace.asked.iter().filter_map(|a| a.copy.as_ref().ok()).collect();
    let common = common(&copies);
    let mut table = Table::new(&["", "NODE", "ZONE", ">ROUND TRIP", ">OWN READ", "HOLDS", ""]);
    let mut rows = Vec::new();
    for (place, asked) in trace.asked.iter().enumerate() {
        let head = [
            Cell::text((place + 1).to_string()),
            Cell::text(asked.owner.name.as_str()),
            Cell::text(asked.owner.zone.as_str()),
        ];
        let mut record = vec![
            ("place", (place + 1).into()),
            ("node", asked.owner.name.as_str().into()),
            ("zone", asked.owner.zone.as_str().into()),
        ];
        match &asked.copy {
            Ok(copy) => {
                let same = common == Some(copy.digest.as_str());
                let verdict = if same { "" } else { "differs" };
                let read = Duration::from_micros(copy.read_us);
                table.row(head.into_iter().chain([
                    Cell::number(ms(asked.took)),
                    Cell::number(ms(read)),
                    Cell::text(state(copy)),
                    Cell::text(verdict).painted(Paint::Pending),
                ]));
                let expires = copy.expires_ms.map(human::rfc3339);
                record.extend([
                    ("holds", state(copy).into()),
                    ("same", same.into()),
                    ("digest", copy.digest.as_str().into()),
                    ("record_bytes", copy.record_bytes.into()),
                    ("expires_at", expires.into()),
                    ("round_trip_us", (asked.took.as_micros() as u64).into()),
                    ("read_us", copy.read_us.into()),
                    ("error", Value::Null),
                ]);
            }
            Err(error) => {
                let told = error.told();
                let dash = || Cell::number("-");
                let silent = Cell::text("-").painted(Paint::Bad);
                table.row(head.into_iter().chain([
                    dash(),
                    dash(),
                    silent,
                    Cell::text(told.why.as_str()),
                ]));
                let unknown = |name| (name, Value::Null);
                record.extend(
                    [
                        "holds",
                        "same",
                        "digest",
                        "record_bytes",
                        "expires_at",
                        "round_trip_us",
                        "read_us",
                    ]
                    .map(unknown),
                );
                record.push(("error", one_line(&told).into()));
            }
        }
        rows.push(Record::new(record));
    }
    let same = copies.iter().filter(|copy| common == Some(copy.digest.as_str())).count();
    let read = match &trace.read {
        Ok(count) => format!("{} in {}", super::key::amount(*count), ms(trace.read_took)),
        Err(error) => format!("failed after {}: {}", ms(trace.read_took), error.told().what),
    };
    let text = format!(
        "{}\n{}copies: {same} of {} hold the same\nread at {}: {read}\n",
        head_of(At { db: trace.db, key: &trace.key }),
        table.render(style.colour),
        trace.asked.len(),
        trace.level,
    );
    let whole = Record::new(key_fields(&trace.key)).and([
        ("db", trace.db.into()),
        ("slot", trace.slot.into()),
        ("level", trace.level.to_string().into()),
        ("same", same.into()),
        ("values", trace.read.as_ref().ok().copied().into()),
        ("read_us", (trace.read_took.as_micros() as u64).into()),
        ("error", trace.read.as_ref().err().map(|e| one_line(&e.told())).into()),
    ]);
    Report { text, whole: whole.with("replicas", &rows), rows }
}
