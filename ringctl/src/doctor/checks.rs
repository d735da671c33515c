//! Checks: each looks at the picture for one thing.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{NodeFacts, NodeStatus};

use super::certificates;
use super::{Finding, Picture, Weight};
use crate::render::human;

/// How to bring a node back, if that is known.
type BringBack<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A check, and what it is called.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) look: fn(&Picture, BringBack<'_>) -> Vec<Finding>,
}

/// All of them.
pub(crate) const ALL: [Check; 14] = [
    Check { name: "nodes", look: nodes },
    Check { name: "quorum", look: quorum },
    Check { name: "answers", look: answers },
    Check { name: "readiness", look: readiness },
    Check { name: "clocks", look: clocks },
    Check { name: "disks", look: disks },
    Check { name: "damage", look: damage },
    Check { name: "load", look: load },
    Check { name: "files", look: files },
    Check { name: "layouts", look: layouts },
    Check { name: "settings", look: settings },
    Check { name: "levels", look: levels },
    Check { name: "versions", look: versions },
    Check { name: "certificates", look: certificates::look },
];

/// Nodes refuse to coordinate when clocks differ by this.
const SKEW_MAX_MS: i64 = 500;
/// And this is worth a word.
const SKEW_WARN_MS: i64 = 100;

fn finding(
    check: &'static str,
    weight: Weight,
    node: Option<&str>,
    told: (String, String, String),
) -> Finding {
    let (what, why, fix) = told;
    Finding { check, weight, node: node.map(Into::into), what, why, fix }
}

/// Of every node that told its facts.
fn facts(picture: &Picture) -> impl Iterator<Item = (&NodeStatus, &NodeFacts)> {
    picture.heard.iter().filter_map(|heard| Some((&heard.status, heard.facts.as_ref()?)))
}

fn nodes(picture: &Picture, bring_back: BringBack<'_>) -> Vec<Finding> {
    let down = picture.status.nodes.iter().filter(|node| !node.up);
    down.map(|node| {
        let time = human::duration(Duration::from_millis(node.last_seen_ms));
        let fix = bring_back(&node.name).unwrap_or_else(|| {
            format!("start ringd on {} ({}), or look into its log", node.name, node.address)
        });
        let told = (
            format!("{} is down", node.name),
            format!("{} has not heard of it for {time}", picture.status.reporter),
            fix,
        );
        finding("nodes", Weight::Problem, Some(&node.name), told)
    })
    .collect()
}

fn quorum(picture: &Picture, _: BringBack<'_>) -> Vec<Finding> {
    let status = &picture.status;
    let served = status.slots_quorum_readable.min(status.slots_quorum_writable);
    if served >= 1.0 {
        return Vec::new();
    }
    let told = (
        format!("{} of slots have no quorum", human::part(1.0 - served)),
        "too few of their replicas are up and ready".to_owned(),
        "bring nodes back; until then keys there are served at ONE only".to_owned(),
    );
    vec![finding("quorum", Weight::Problem, None, told)]
}

/// Nodes that the others reach and we do not.
fn answers(picture: &Picture, _: BringBack<'_>) -> Vec<Finding> {
    let silent = picture.heard.iter().filter(|heard| heard.status.up);
    silent
        .filter_map(|heard| {
            let told = heard.silence.as_ref()?.told();
            let name = &heard.status.name;
            let what = format!("{name} is up, but tells nothing here: {}", told.what);
            Some(finding("answers", Weight::Problem, Some(name), (what, told.why, told.fix)))
        })
        .collect()
}

fn readiness(picture: &Picture, _: BringBack<'_>) -> Vec<Finding> {
    let unready = facts(picture).filter(|(_, facts)| !facts.not_ready.is_empty());
    unready
        .map(|(node, facts)| {
            let told = (
                format!("{} should get no traffic", node.name),
                facts.not_ready.join(", "),
                "wait if it catches up or drains (ringctl status -w); else look into its log"
                    .to_owned(),
            );
            finding("readiness", Weight::Warning, Some(&node.name), told)
        })
        .collect()
}

fn clocks(picture: &Picture, _: BringBack<'_>) -> Vec<Finding> {
    // Against the middle one: a single wrong clock, ours too, then stands out.
    let told = || picture.heard.iter().filter(|heard| heard.facts.is_some());
    let mut all: Vec<i64> = told().map(|heard| heard.ahead_ms).collect();
    all.sort_unstable();
    let Some(middle) = all.get(all.len() / 2) else { return Vec::new() };
    told()
        .filter_map(|heard| {
            let off = heard.ahead_ms - middle;
            let uncertain = i64::try_from(heard.round_trip.as_millis()).unwrap_or(i64::MAX);
            if off.abs() < SKEW_WARN_MS.saturating_add(uncertain) {
                return None;
            }
            let weight = if off.abs() >= SKEW_MAX_MS { Weight::Problem } else { Weight::Warning };
            let name = &heard.status.name;
            let side = if off > 0 { "before" } else { "behind" };
            let told = (
                format!("the clock of {name} is {} ms {side} the others'", off.abs()),
                format!(
                    "from {SKEW_MAX_MS} ms on a node refuses to coordinate writes; \
                         of concurrent SETs the later clock wins"
                ),
                format!("let a time service set the clock of {name} (chrony, systemd-timesyncd)"),
            );
            Some(finding("clocks", weight, Some(name), told))
        })
        .collect()
}

fn disks(picture: &Picture, _: BringBack<'_>) -> Vec<Finding> {
    facts(picture)
        .filter(|(_, facts)| facts.disk_bytes > 0)
        .filter_map(|(node, facts)| {
            let free = facts.disk_free_bytes as f64 / facts.disk_bytes as f64;
            let weight = match free {
                ..0.05 => Weight::Problem,
                0.05..0.15 => Weight::Warning,
                _ => return None,
            };
            let told = (
                format!("the disk of {} is nearly full: {} free", node.name, human::share(free)),
                format!(
                    "{} of {} under {} are free; a node whose disk is full takes no writes",
                    human::bytes(facts.disk_free_bytes),
                    human::bytes(facts.disk_bytes),
                    facts.data_dir
                ),
                "make room, or move the data directory to a larger disk while the node is down"
                    .to_owned(),
            );
            Some(finding("disks", weight, Some(&node.name), told))
        })
        .collect()
}

fn damage(picture: &Picture, _: BringBack<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (node, facts) in facts(picture) {
        if facts.store.poisoned {
            let told = (
                format!("the disk of {} failed", node.name),
                "a write or a sync was refused; the node takes no more writes".to_owned(),
                "mend the disk, then start the node again".to_owned(),
            );
            found.push(finding("damage", Weight::Problem, Some(&node.name), told));
        }
        if facts.store.damaged_places > 0 {
            let places = human::things(facts.store.damaged_places as usize, "place", "places");
            let told = (
                format!("{places} in the store of {} are damaged", node.name),
                "bytes on its disk are not what was written; other replicas answer for them"
                    .to_owned(),
                "see its log for the keys; stop it and run ringd storage verify DIR".to_owned(),
            );
            found.push(finding("damage", Weight::Problem, Some(&node.name), told));
        }
        if facts.clock_gaps > 0 {
            let told = (
                format!(
                    "{} lacks {} that others have",
                    node.name,
                    human::things(facts.clock_gaps as usize, "write", "writes")
                ),
                "it missed them while it was away; reads at QUORUM are not affected".to_owned(),
                "look again in a minute; if the number stays, read its log".to_owned(),
            );
            found.push(finding("damage", Weight::Warning, Some(&node.name), told));
        }
    }
    found
}

fn load(picture: &Picture, _: BringBack<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (node, facts) in facts(picture) {
        if facts.store.debt >= 0.8 {
            let told = (
                format!(
                    "flush and compaction of {} are behind: {}",
                    node.name,
                    human::share(facts.store.debt)
                ),
                "writers are slowed down, and refused at 100 %".to_owned(),
                "write less, give it a faster disk, or more memory (engine.memtable_bytes)"
                    .to_owned(),
            );
            found.push(finding("load", Weight::Warning, Some(&node.name), told));
        }
        if facts.clients_max > 0 && facts.clients * 10 >= facts.clients_max * 9 {
            let told = (
                format!("{} has nearly as many clients as it takes", node.name),
                format!("{} of {}; further ones are refused", facts.clients, facts.clients_max),
                "raise redis.maxclients, or let programs share connections".to_owned(),
            );
            found.push(finding("load", Weight::Warning, Some(&node.name), told));
        }
    }
    found
}

fn files(picture: &Picture, _: BringBack<'_>) -> Vec<Finding> {
    facts(picture)
        .filter_map(|(node, facts)| {
            let fix = format!(
                "raise the limit of the user that runs ringd: ulimit -n {}, or LimitNOFILE in its unit",
                (facts.clients_max * 2).max(65_536)
            );
            let told = if facts.files_open * 10 >= facts.files_max * 8 {
                (
                    format!("{} has nearly as many files open as it may", node.name),
                    format!("{} of {}", facts.files_open, facts.files_max),
                    fix,
                )
            } else if facts.files_max < facts.clients_max {
                (
                    format!("{} may open fewer files than it takes clients", node.name),
                    format!("{} files, and redis.maxclients is {}", facts.files_max, facts.clients_max),
                    fix,
                )
            } else {
                return None;
            };
            Some(finding("files", Weight::Warning, Some(&node.name), told))
        })
        .collect()
}

/// Groups nodes by what they say; nothing if all say the same.
fn differing<T: Ord>(said: impl Iterator<Item = (String, T)>) -> Option<BTreeMap<T, Vec<String>>> {
    let mut groups: BTreeMap<T, Vec<String>> = BTreeMap::new();
    said.for_each(|(name, what)| groups.entry(what).or_default().push(name));
    (groups.len() > 1).then_some(groups)
}

fn layouts(picture: &Picture, _: BringBack<'_>) -> Vec<Finding> {
    let mut kinds: Vec<(&client::Layout, Vec<&str>)> = Vec::new();
    for (name, layout) in &picture.layouts {
        match kinds.iter_mut().find(|(known, _)| *known == layout) {
            Some((_, names)) => names.push(name),
            None => kinds.push((layout, vec![name])),
        }
    }
    if kinds.len() < 2 {
        return Vec::new();
    }
    let each =
        kinds.iter().map(|(layout, names)| format!("{}: {}", layout.epoch, names.join(", ")));
    let told = (
        "nodes have different layouts".to_owned(),
        each.collect::<Vec<_>>().join("; "),
        "give cluster.members the same list on every node, and restart those that differ"
            .to_owned(),
    );
    vec![finding("layouts", Weight::Problem, None, told)]
}

fn settings(picture: &Picture, _: BringBack<'_>) -> Vec<Finding> {
    let said = facts(picture).map(|(node, facts)| {
        let one = |k: &client::KeyspaceFacts| {
            format!(
                "{} N={} R={} W={} {} {} ttl={} v{}",
                k.name, k.n, k.read, k.write, k.durability, k.conflict, k.ttl_ms, k.version
            )
        };
        (node.name.clone(), facts.keyspaces.iter().map(one).collect::<Vec<_>>().join(", "))
    });
    let Some(groups) = differing(said) else { return closed(picture) };
    let each = groups.iter().map(|(what, names)| format!("{}: {what}", names.join(", ")));
    let told = (
        "nodes keep keyspaces by different rules".to_owned(),
        each.collect::<Vec<_>>().join("; "),
        "give [keyspace] the same settings on every node, and restart those that differ; or set them for \
         all: ringctl keyspace set"
            .to_owned(),
    );
    vec![finding("settings", Weight::Problem, None, told)]
}

/// Keyspaces that take no requests: whoever was about to change their copies has gone.
fn closed(picture: &Picture) -> Vec<Finding> {
    let any = facts(picture).next().map(|(_, facts)| facts.keyspaces.as_slice());
    let closed = any.unwrap_or_default().iter().filter(|keyspace| keyspace.closed);
    let tell = |keyspace: &client::KeyspaceFacts| {
        let client::KeyspaceFacts { name, by, n, .. } = keyspace;
        let told = (
            format!("keyspace {name} takes no requests"),
            format!("{by} closed it to change its number of copies, and that has not ended"),
            format!("if nobody is at it, open it: ringctl keyspace set {name} --n {n}"),
        );
        finding("settings", Weight::Problem, None, told)
    };
    closed.map(tell).collect()
}

fn levels(picture: &Picture, _: BringBack<'_>) -> Vec<Finding> {
    let status = &picture.status;
    let mut found = Vec::new();
    if u16::from(status.r) + u16::from(status.w) <= u16::from(status.n) {
        let told = (
            format!("reads may miss writes: N={} R={} W={}", status.n, status.r, status.w),
            "R + W is not more than N, so a read and a write need have no replica in common"
                .to_owned(),
            "ringctl keyspace set default --read QUORUM --write QUORUM, unless that is meant"
                .to_owned(),
        );
        found.push(finding("levels", Weight::Warning, None, told));
    }
    let any = facts(picture).next().map(|(_, facts)| facts.keyspaces.as_slice());
    for keyspace in any.unwrap_or_default().iter().filter(|k| k.weak && k.name != "default") {
        let client::KeyspaceFacts { name, n, read, write, .. } = keyspace;
        let told = (
            format!("reads of keyspace {name} may miss writes: N={n} R={read} W={write}"),
            "R + W is not more than N, so a read and a write need have no replica in common"
                .to_owned(),
            format!(
                "ringctl keyspace set {name} --read QUORUM --write QUORUM, unless that is meant"
            ),
        );
        found.push(finding("levels", Weight::Warning, None, told));
    }
    let mut zones: Vec<_> = status.nodes.iter().map(|node| node.zone.as_str()).collect();
    zones.sort_unstable();
    zones.dedup();
    if status.nodes.len() > 1 && zones.len() == 1 {
        let told = (
            format!("all nodes are in zone {}", zones[0]),
            "whatever takes the zone away takes every copy with it".to_owned(),
            "give members their zones in cluster.members".to_owned(),
        );
        found.push(finding("levels", Weight::Warning, None, told));
    }
    found
}

fn versions(picture: &Picture, _: BringBack<'_>) -> Vec<Finding> {
    let said = facts(picture).map(|(node, facts)| (node.name.clone(), facts.version.clone()));
    let Some(groups) = differing(said) else { return Vec::new() };
    let each = groups.iter().map(|(version, names)| format!("{version}: {}", names.join(", ")));
    let told = (
        "nodes run different versions".to_owned(),
        each.collect::<Vec<_>>().join("; "),
        "finish the upgrade: one node after the other, each until it is ready".to_owned(),
    );
    vec![finding("versions", Weight::Warning, None, told)]
}

#[cfg(test)]
mod tests {
    use client::{ClusterStatus, KeyspaceFacts, StoreFacts};

    use super::*;
    use crate::nodes::Heard;

    fn healthy() -> Picture {
        let status = |id: u32| NodeStatus {
            id,
            name: format!("n{id}"),
            zone: format!("z{id}"),
            up: true,
            ready: true,
            ..NodeStatus::default()
        };
        let facts = NodeFacts {
            version: "1".into(),
            files_open: 10,
            files_max: 20_000,
            clients_max: 10_000,
            disk_bytes: 100,
            disk_free_bytes: 50,
            keyspaces: vec![KeyspaceFacts { n: 3, ..KeyspaceFacts::default() }],
            ..NodeFacts::default()
        };
        let heard = |id| Heard {
            status: status(id),
            facts: Some(facts.clone()),
            client: None,
            silence: None,
            ahead_ms: 3,
            round_trip: Duration::from_millis(1),
        };
        let cluster = ClusterStatus {
            n: 3,
            r: 2,
            w: 2,
            slots_quorum_readable: 1.0,
            slots_quorum_writable: 1.0,
            nodes: (1..=3).map(status).collect(),
            reporter: "n1".into(),
            ..ClusterStatus::default()
        };
        let heard = (1..=3).map(heard).collect();
        Picture { status: cluster, heard, layouts: Vec::new(), certificates: Vec::new() }
    }

    /// The checks that found something, with the node, once the picture was changed.
    fn found(change: impl FnOnce(&mut Picture)) -> Vec<(&'static str, Weight, Option<String>)> {
        let mut picture = healthy();
        change(&mut picture);
        let all = ALL.iter().flat_map(|check| {
            let found = (check.look)(&picture, &|_| None);
            for finding in &found {
                assert_eq!(finding.check, check.name);
                assert!(
                    [&finding.what, &finding.why, &finding.fix]
                        .iter()
                        .all(|t| !t.is_empty() && !t.contains('\n'))
                );
            }
            found
        });
        all.map(|finding| (finding.check, finding.weight, finding.node)).collect()
    }

    fn facts_of(picture: &mut Picture, node: usize) -> &mut NodeFacts {
        picture.heard[node].facts.as_mut().expect("every node told its facts")
    }

    #[test]
    fn a_healthy_cluster_has_no_findings() {
        assert_eq!(found(|_| {}), []);
    }

    #[test]
    fn every_fault_is_found_by_its_check_and_by_no_other() {
        use Weight::{Problem, Warning};
        let n2 = || Some("n2".to_owned());
        assert_eq!(found(|p| p.status.nodes[1].up = false), [("nodes", Problem, n2())]);
        assert_eq!(found(|p| p.status.slots_quorum_writable = 0.5), [("quorum", Problem, None)]);
        let silent = |p: &mut Picture| {
            p.heard[1].facts = None;
            p.heard[1].silence =
                Some(client::ClientError::TimedOut { after: Duration::from_secs(2) });
        };
        assert_eq!(found(silent), [("answers", Problem, n2())]);
        let unready = |p: &mut Picture| facts_of(p, 1).not_ready.push("catching up".into());
        assert_eq!(found(unready), [("readiness", Warning, n2())]);
        assert_eq!(found(|p| p.heard[1].ahead_ms = -200), [("clocks", Warning, n2())]);
        assert_eq!(found(|p| p.heard[1].ahead_ms = 600), [("clocks", Problem, n2())]);
        let slow = |p: &mut Picture| {
            p.heard[1].ahead_ms = 200;
            p.heard[1].round_trip = Duration::from_millis(300);
        };
        assert_eq!(found(slow), [], "what the round trip explains is no skew");
        assert_eq!(found(|p| facts_of(p, 1).disk_free_bytes = 10), [("disks", Warning, n2())]);
        assert_eq!(found(|p| facts_of(p, 1).disk_free_bytes = 2), [("disks", Problem, n2())]);
        let damaged = StoreFacts { damaged_places: 1, ..StoreFacts::default() };
        assert_eq!(found(|p| facts_of(p, 1).store = damaged), [("damage", Problem, n2())]);
        assert_eq!(found(|p| facts_of(p, 1).store.poisoned = true), [("damage", Problem, n2())]);
        assert_eq!(found(|p| facts_of(p, 1).clock_gaps = 4), [("damage", Warning, n2())]);
        assert_eq!(found(|p| facts_of(p, 1).store.debt = 0.9), [("load", Warning, n2())]);
        assert_eq!(found(|p| facts_of(p, 1).clients = 9_500), [("load", Warning, n2())]);
        assert_eq!(found(|p| facts_of(p, 1).files_open = 17_000), [("files", Warning, n2())]);
        assert_eq!(found(|p| facts_of(p, 1).files_max = 1_024), [("files", Warning, n2())]);
        assert_eq!(found(|p| facts_of(p, 1).keyspaces[0].n = 2), [("settings", Problem, None)]);
        // A database is judged by its own copies, whatever the default has.
        let own = |n: u8, weak: bool| {
            move |p: &mut Picture| {
                let name = "4".to_owned();
                let of = KeyspaceFacts { name, n, weak, ..KeyspaceFacts::default() };
                (0..3).for_each(|i| facts_of(p, i).keyspaces.push(of.clone()));
            }
        };
        assert_eq!(found(own(1, false)), []);
        assert_eq!(found(own(3, true)), [("levels", Warning, None)]);
        let closed =
            |p: &mut Picture| (0..3).for_each(|i| facts_of(p, i).keyspaces[0].closed = true);
        assert_eq!(found(closed), [("settings", Problem, None)]);
        assert_eq!(found(|p| facts_of(p, 1).version = "2".into()), [("versions", Warning, None)]);
        assert_eq!(found(|p| p.status.w = 1), [("levels", Warning, None)]);
        let one_zone =
            |p: &mut Picture| p.status.nodes.iter_mut().for_each(|n| n.zone = "a".into());
        assert_eq!(found(one_zone), [("levels", Warning, None)]);
        let layouts = |p: &mut Picture| {
            let of = |epoch| {
                let empty = client::Layout::empty(ring::ClusterId(1), 3);
                client::Layout { epoch: ring::Epoch(epoch), ..empty }
            };
            p.layouts = vec![("n1".into(), of(1)), ("n2".into(), of(2)), ("n3".into(), of(1))];
        };
        assert_eq!(found(layouts), [("layouts", Problem, None)]);
    }
}
