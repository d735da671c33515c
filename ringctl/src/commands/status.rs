//! `status`: the cluster, its nodes, and what to do next.
//!
//! One node is asked for the picture, and then each node for what only it knows of itself: how much
//! it stores and which program it runs. What nobody could tell is shown as `-`, and as null.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{Client, ClusterStatus, NodeState, NodeStatus};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::args::{Args, Format};
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};
use crate::render::{Cell, Paint, Record, Report, Style, Table, human};
use crate::{print, show, style};

pub(crate) async fn run(
    args: &Args,
    check: bool,
    watch: Option<Duration>,
) -> Result<Exit, Failure> {
    let cluster = Cluster::find(args)?;
    if let Some(every) = watch {
        return watch_it(args, &cluster, every).await;
    }
    let client = cluster.connect(args.node.as_deref()).await?;
    let picture = look(&cluster, &client, args.node.is_none()).await?;
    // The reader first, the farewell then.
    show(args, &report(&picture, &cluster, style(args)));
    client.close().await;
    let amiss = !problems(&picture.status).is_empty();
    Ok(if check && amiss { Exit::Degraded } else { Exit::Fine })
}

/// Shows it until somebody stops it. A cluster that is away for a while is no reason to stop.
async fn watch_it(args: &Args, cluster: &Cluster, every: Duration) -> Result<Exit, Failure> {
    let style = style(args);
    let mut client = None;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Fine),
        }
        let looked = async {
            if client.is_none() {
                client = Some(cluster.connect(args.node.as_deref()).await?);
            }
            let client = client.as_ref().expect("it was just connected");
            look(cluster, client, args.node.is_none()).await
        };
        let looked = tokio::select! {
            looked = looked => looked,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Fine),
        };
        let (clear, after) = if style.colour { ("\x1b[H\x1b[2J", "") } else { ("", "\n") };
        let for_people = matches!(args.output, Format::Table | Format::Wide);
        match looked {
            Ok(picture) => {
                print(if for_people { clear } else { "" });
                show(args, &report(&picture, cluster, style));
                print(if for_people { after } else { "" });
            }
            Err(failure) if failure.exit == Exit::Usage => return Err(failure),
            Err(failure) => {
                client = None;
                print(if for_people { clear } else { "" });
                eprintln!("{failure}");
            }
        }
    }
}

/// What was seen.
struct Picture {
    status: ClusterStatus,
    /// The nodes that told of themselves.
    told: BTreeMap<u32, NodeStatus>,
}

impl Picture {
    fn load(&self, node: &NodeStatus) -> Option<u64> {
        self.told.get(&node.id).map(|own| own.load_bytes)
    }

    /// How many keys the node keeps, if it has counted them.
    fn keys(&self, node: &NodeStatus) -> Option<u64> {
        self.told.get(&node.id).filter(|own| own.keys_age_ms.is_some()).map(|own| own.keys)
    }

    /// How old that figure may be.
    fn keys_age_ms(&self, node: &NodeStatus) -> Option<u64> {
        self.told.get(&node.id)?.keys_age_ms
    }

    fn version(&self, node: &NodeStatus) -> Option<&str> {
        let own = self.told.get(&node.id)?;
        Some(own.version.as_str()).filter(|version| !version.is_empty())
    }
}

/// Longer than this no node is asked for what it knows of itself.
const ASIDE: Duration = Duration::from_secs(1);

async fn look(cluster: &Cluster, client: &Client, ask_others: bool) -> Result<Picture, Failure> {
    let status = client.status().await?;
    let own = |status: &ClusterStatus| {
        status.nodes.iter().find(|node| node.name == status.reporter).cloned()
    };
    let mut told: BTreeMap<u32, NodeStatus> = BTreeMap::new();
    told.extend(own(&status).map(|node| (node.id, node)));
    let mut asked = JoinSet::new();
    // Whoever names one node wants to know what that one says.
    for node in status.nodes.iter().filter(|node| ask_others && node.up) {
        if node.name != status.reporter {
            let aside = cluster.dial_aside(node.address.clone(), ASIDE);
            asked.spawn(async move {
                let client = aside.await.ok()?;
                client.status().await.ok()
            });
        }
    }
    while let Some(answer) = asked.join_next().await {
        let answer = answer.ok().flatten();
        told.extend(answer.as_ref().and_then(own).map(|node| (node.id, node)));
    }
    Ok(Picture { status, told })
}

/// What is amiss, in words; nothing if all is well.
fn problems(status: &ClusterStatus) -> Vec<String> {
    let count = |is: fn(&NodeStatus) -> bool| status.nodes.iter().filter(|node| is(node)).count();
    let (down, unready) = (count(|node| !node.up), count(|node| node.up && !node.ready));
    let mut problems = Vec::new();
    if down > 0 {
        problems.push(human::things(down, "node", "nodes") + " down");
    }
    if unready > 0 {
        problems.push(human::things(unready, "node", "nodes") + " not ready");
    }
    let served = status.slots_quorum_readable.min(status.slots_quorum_writable);
    if served < 1.0 {
        problems.push(format!("{} of slots without a quorum", human::part(1.0 - served)));
    }
    problems
}

/// Two letters: up or down; normal, joining, leaving, draining.
pub(super) fn code(node: &NodeStatus) -> &'static str {
    match (node.up, node.state) {
        (true, NodeState::Normal) => "UN",
        (true, NodeState::Joining) => "UJ",
        (true, NodeState::Leaving) => "UL",
        (true, NodeState::Draining) => "UD",
        (false, NodeState::Normal) => "DN",
        (false, NodeState::Joining) => "DJ",
        (false, NodeState::Leaving) => "DL",
        (false, NodeState::Draining) => "DD",
    }
}

pub(super) fn state(node: &NodeStatus) -> &'static str {
    match node.state {
        _ if !node.up => "down",
        NodeState::Normal if !node.ready => "starting",
        NodeState::Normal => "normal",
        NodeState::Joining => "joining",
        NodeState::Leaving => "leaving",
        NodeState::Draining => "draining",
    }
}

fn paint(node: &NodeStatus) -> Paint {
    match node.state {
        _ if !node.up => Paint::Bad,
        NodeState::Normal if node.ready => Paint::Good,
        _ => Paint::Pending,
    }
}

/// Zones with a node that is up, and all zones.
fn zones(status: &ClusterStatus) -> (Vec<&str>, Vec<&str>) {
    let mut all: Vec<_> = status.nodes.iter().map(|node| node.zone.as_str()).collect();
    all.sort_unstable();
    all.dedup();
    let lives = |zone: &str| status.nodes.iter().any(|node| node.up && node.zone == zone);
    (all.iter().copied().filter(|zone| lives(zone)).collect(), all)
}

fn quorum(status: &ClusterStatus) -> String {
    let (read, write) = (status.slots_quorum_readable, status.slots_quorum_writable);
    let (read, write) = (human::part(read), human::part(write));
    let served = if read == write {
        format!("{read} of slots readable and writable at QUORUM")
    } else {
        format!("{read} of slots readable and {write} writable at QUORUM")
    };
    let (live, all) = zones(status);
    let dark: Vec<_> = all.into_iter().filter(|zone| !live.contains(zone)).collect();
    match dark[..] {
        [] => served,
        [zone] => format!("{served}; no node of zone {zone} is up"),
        _ => format!("{served}; no node of zones {} is up", dark.join(", ")),
    }
}

/// What to do next.
fn advice(status: &ClusterStatus, bring_back: impl Fn(&str) -> Option<String>) -> String {
    let down: Vec<_> = status.nodes.iter().filter(|node| !node.up).collect();
    if let Some(first) = down.first() {
        let names: Vec<_> = down.iter().map(|node| node.name.as_str()).collect();
        let time = human::duration(Duration::from_millis(first.last_seen_ms));
        let are = match &names[..] {
            [one] => format!("{one} has been down for {time}"),
            several => format!("{} are down", several.join(", ")),
        };
        let how = bring_back(&first.name).unwrap_or_else(|| {
            format!("start ringd on {} ({}), or look into its log", first.name, first.address)
        });
        return format!("{are}. Bring {} back: {how}", if down.len() == 1 { "it" } else { "one" });
    }
    if let Some(node) = status.nodes.iter().find(|node| !node.ready) {
        return match node.state {
            NodeState::Draining => {
                format!("{} is about to stop; watch: ringctl status -w", node.name)
            }
            _ => format!("{} catches up with the others; watch: ringctl status -w", node.name),
        };
    }
    if status.slots_quorum_readable.min(status.slots_quorum_writable) < 1.0 {
        return format!(
            "all nodes are up, but {} sees no quorum for some slots: look into its log",
            status.reporter
        );
    }
    "nothing to do".into()
}

fn report(picture: &Picture, cluster: &Cluster, style: Style) -> Report {
    let status = &picture.status;
    let problems = problems(status);
    let next = advice(status, |name| cluster.bring_back(name));
    let rows: Vec<_> = status.nodes.iter().map(|node| row(picture, node)).collect();
    let whole = Record::new([
        ("cluster", status.name.as_str().into()),
        ("cluster_id", status.cluster.as_str().into()),
        ("ring_version", status.epoch.into()),
        ("n", status.n.into()),
        ("r", status.r.into()),
        ("w", status.w.into()),
        ("wire", status.wire_version.into()),
        ("reporter", status.reporter.as_str().into()),
        ("healthy", problems.is_empty().into()),
        ("problems", problems.clone().into()),
        ("slots_quorum_readable", status.slots_quorum_readable.into()),
        ("slots_quorum_writable", status.slots_quorum_writable.into()),
        ("next", next.as_str().into()),
    ])
    .with("nodes", &rows);
    let text = format!(
        "{}\n{}quorum: {}\nnext: {next}\n",
        headline(status, &problems, style),
        table(picture, style).render(style.colour),
        quorum(status),
    );
    Report { text, whole, rows }
}

fn headline(status: &ClusterStatus, problems: &[String], style: Style) -> String {
    let (live, all) = zones(status);
    let verdict = match problems {
        [] => Paint::Good.on("HEALTHY", style.colour),
        some => Paint::Bad.on(&format!("DEGRADED: {}", some.join(", ")), style.colour),
    };
    format!(
        "cluster  {}   ring v{}   {}/{} zones   N={} R={} W={}   wire v{}      {verdict}",
        status.name,
        status.epoch,
        live.len(),
        all.len(),
        status.n,
        status.r,
        status.w,
        status.wire_version,
    )
}

fn table(picture: &Picture, style: Style) -> Table {
    let mut headings = vec!["", "NODE", "ZONE", "ADDRESS", "STATE", ">OWNS", ">LOAD", ">KEYS"];
    if style.wide {
        headings.extend([">COUNTED", ">ID", ">LIFE", "VERSION", "READY"]);
    }
    let mut table = Table::new(&headings);
    let unknown = || "-".to_owned();
    for node in &picture.status.nodes {
        let mut cells = vec![
            Cell::text(format!("{} ", code(node))).painted(paint(node)),
            Cell::text(node.name.as_str()),
            Cell::text(node.zone.as_str()),
            Cell::text(node.address.as_str()),
            Cell::text(state(node)).painted(paint(node)),
            Cell::number(human::share(node.owns)),
        ];
        if node.up {
            let load = picture.load(node).map_or_else(unknown, human::bytes);
            let keys = picture.keys(node).map_or_else(unknown, human::count);
            cells.extend([Cell::number(load), Cell::number(keys)]);
            if style.wide {
                let version = picture.version(node).map_or_else(unknown, Into::into);
                let ago = |ms| format!("{} ago", human::duration(Duration::from_millis(ms)));
                let counted = picture.keys_age_ms(node).map_or_else(unknown, ago);
                cells.extend([
                    Cell::number(counted),
                    Cell::number(node.id.to_string()),
                    Cell::number(node.incarnation.to_string()),
                    Cell::text(version),
                    Cell::text(if node.ready { "yes" } else { "no" }),
                ]);
            }
        } else {
            let ago = human::duration(Duration::from_millis(node.last_seen_ms));
            cells.push(Cell::spanning(format!("last seen {ago} ago")));
        }
        table.row(cells);
    }
    table
}

fn row(picture: &Picture, node: &NodeStatus) -> Record {
    let last_seen_ms = (!node.up).then_some(node.last_seen_ms);
    Record::new([
        ("code", code(node).into()),
        ("id", node.id.to_string().into()),
        ("name", node.name.as_str().into()),
        ("zone", node.zone.as_str().into()),
        ("address", node.address.as_str().into()),
        ("state", state(node).into()),
        ("up", node.up.into()),
        ("ready", node.ready.into()),
        ("owns", node.owns.into()),
        ("load_bytes", picture.load(node).into()),
        ("keys", picture.keys(node).into()),
        ("keys_age_ms", picture.keys_age_ms(node).into()),
        ("last_seen_ms", last_seen_ms.into()),
        ("incarnation", node.incarnation.into()),
        ("version", picture.version(node).into()),
    ])
}
