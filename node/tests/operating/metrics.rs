//! Metrics as Prometheus wants them, judged by rules like those of promtool.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Node, http, until};

/// Labels that may be there: each has few values, whatever clients do.
const LABELS: [&str; 10] = [
    "class",
    "command",
    "direction",
    "le",
    "peer",
    "place",
    "reason",
    "result",
    "state",
    "version",
];

/// Endings that are no base unit: seconds, bytes and ratios are.
const UNITS: [&str; 12] = [
    "_ms",
    "_us",
    "_ns",
    "_milliseconds",
    "_microseconds",
    "_kb",
    "_kib",
    "_mb",
    "_mib",
    "_percent",
    "_thousandths",
    "_minutes",
];

#[derive(Default)]
struct Family {
    kind: String,
    helped: bool,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// What is wrong with a page of metrics; nothing if it is right.
fn lint(page: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut finished: BTreeSet<String> = BTreeSet::new();
    let mut current = String::new();
    let mut series = BTreeSet::new();
    for line in page.lines() {
        let mut words = line.splitn(4, ' ');
        if line.starts_with('#') {
            let (_, what) = (words.next(), words.next().unwrap_or_default());
            let name = words.next().unwrap_or_default().to_owned();
            let rest = words.next().unwrap_or_default();
            if name != current && !finished.insert(name.clone()) {
                wrong.push(format!("{name}: not in one piece"));
            }
            current = name.clone();
            let family = families.entry(name.clone()).or_default();
            match what {
                "HELP" if family.helped || rest.is_empty() => wrong.push(format!("{name}: HELP")),
                "HELP" => family.helped = true,
                "TYPE" if !family.kind.is_empty() => wrong.push(format!("{name}: TYPE twice")),
                "TYPE" => family.kind = rest.to_owned(),
                _ => wrong.push(format!("a comment: {line}")),
            }
            continue;
        }
        let Some((id, value)) = line.rsplit_once(' ') else {
            wrong.push(format!("no sample: {line}"));
            continue;
        };
        if !series.insert(id.to_owned()) {
            wrong.push(format!("{id}: twice"));
        }
        let (name, labels) = id.split_once('{').map_or((id, ""), |(n, l)| (n, l));
        let labels: BTreeMap<String, String> = labels
            .trim_end_matches('}')
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned()))
            .collect();
        for label in labels.keys().filter(|l| !LABELS.contains(&l.as_str())) {
            wrong.push(format!("{name}: the label {label} is not among those with few values"));
        }
        let Ok(value) = value.parse::<f64>() else {
            wrong.push(format!("{id}: no number"));
            continue;
        };
        if !(name == current
            || name.strip_prefix(&current).is_some_and(|rest| rest.starts_with('_')))
        {
            wrong.push(format!("{name}: without HELP and TYPE before it"));
        }
        let family = families.entry(current.clone()).or_default();
        family.samples.push((name.to_owned(), labels, value));
    }
    for (name, family) in &families {
        wrong.extend(of_family(name, family));
    }
    wrong
}

fn of_family(name: &str, family: &Family) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut say = |what: &str| wrong.push(format!("{name}: {what}"));
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !name.starts_with("ringdb_") || !name.chars().all(letters) {
        say("the name");
    }
    if !family.helped {
        say("no HELP");
    }
    if family.samples.is_empty() {
        say("no sample");
    }
    let counts = family.kind == "counter";
    if !["counter", "gauge", "histogram"].contains(&family.kind.as_str()) {
        say("no TYPE");
    }
    if counts != name.ends_with("_total") {
        say("counters, and nothing else, end in _total");
    }
    let base = name.trim_end_matches("_total");
    if UNITS.iter().any(|unit| base.ends_with(unit)) {
        say("no base unit");
    }
    if ["_gauge", "_counter", "_histogram", "_count", "_sum", "_bucket"]
        .iter()
        .any(|end| base.ends_with(end))
    {
        say("a type in the name");
    }
    if counts && family.samples.iter().any(|(_, _, value)| *value < 0.0) {
        say("a counter below zero");
    }
    if family.kind == "histogram" {
        wrong.extend(of_histogram(name, family));
    } else if family
        .samples
        .iter()
        .any(|(sample, labels, _)| sample != name || labels.contains_key("le"))
    {
        say("samples of another name");
    }
    wrong
}

/// Its buckets (bound and count), its count, and whether it has a sum.
type Histogram = (Vec<(f64, f64)>, Option<f64>, bool);

fn of_histogram(name: &str, family: &Family) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut by_labels: BTreeMap<String, Histogram> = BTreeMap::new();
    for (sample, labels, value) in &family.samples {
        let others: Vec<_> = labels.iter().filter(|(label, _)| *label != "le").collect();
        let of = by_labels.entry(format!("{others:?}")).or_default();
        match sample.strip_prefix(name) {
            Some("_bucket") => {
                let le = labels.get("le").map_or("", String::as_str).replace("+Inf", "inf");
                of.0.push((le.parse().unwrap_or(f64::NAN), *value));
            }
            Some("_count") => of.1 = Some(*value),
            Some("_sum") => of.2 = true,
            _ => wrong.push(format!("{name}: {sample} in a histogram")),
        }
    }
    for (labels, (buckets, count, sum)) in by_labels {
        let rises = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
        let last = buckets.last().copied().unwrap_or((0.0, 0.0));
        if !buckets.windows(2).all(rises) || last.0 != f64::INFINITY {
            wrong.push(format!("{name} {labels}: buckets"));
        }
        if count != Some(last.1) || !sum {
            wrong.push(format!("{name} {labels}: _count and _sum"));
        }
    }
    wrong
}

#[test]
fn the_lint_finds_what_it_is_for() {
    let head = "# HELP ringdb_a_total A.\n# TYPE ringdb_a_total counter\n";
    assert_eq!(lint(&format!("{head}ringdb_a_total 1\n")), Vec::<String>::new());
    let histogram = "# HELP ringdb_h_seconds H.\n# TYPE ringdb_h_seconds histogram\n";
    for (page, found) in [
        ("ringdb_a_total 1\n".to_owned(), "without HELP"),
        ("# TYPE ringdb_a_total counter\nringdb_a_total 1\n".to_owned(), "no HELP"),
        ("# HELP ringdb_a_total A.\nringdb_a_total 1\n".to_owned(), "no TYPE"),
        (head.replace("_total", "") + "ringdb_a 1\n", "end in _total"),
        (head.replace("counter", "gauge") + "ringdb_a_total 1\n", "end in _total"),
        (head.replace("_a_", "_a_ms_") + "ringdb_a_ms_total 1\n", "no base unit"),
        (head.replace("ringdb", "other") + "other_a_total 1\n", "the name"),
        (format!("{head}ringdb_a_total{{key=\"user:1\"}} 1\n"), "the label key"),
        (format!("{head}ringdb_a_total 1\nringdb_a_total 1\n"), "twice"),
        (format!("{head}ringdb_a_total one\n"), "no number"),
        (head.to_owned(), "no sample"),
        (
            format!(
                "{histogram}ringdb_h_seconds_bucket{{le=\"1\"}} 1\nringdb_h_seconds_sum 1\nringdb_h_seconds_count 1\n"
            ),
            "buckets",
        ),
        (
            format!(
                "{histogram}ringdb_h_seconds_bucket{{le=\"+Inf\"}} 2\nringdb_h_seconds_sum 1\nringdb_h_seconds_count 1\n"
            ),
            "_count and _sum",
        ),
    ] {
        let wrong = lint(&page);
        assert!(wrong.iter().any(|w| w.contains(found)), "{found}: {wrong:?}\n{page}");
    }
}

#[test]
fn the_metrics_of_a_node_keep_to_prometheus_conventions_and_name_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    let mut client = node.client();
    for command in ["SET my-secret-key 1", "GET my-secret-key", "my-secret-command", "DBSIZE"] {
        client.ask(command);
    }
    client.ask("CLIENT SETNAME my-secret-client");
    let page = until("the commands are counted", || {
        let (_, body) = http(node.http, "/metrics")?;
        body.contains("command=\"get\"").then_some(body)
    });
    assert_eq!(lint(&page), Vec::<String>::new(), "{page}");
    assert!(!page.contains("my-secret"), "{page}");
    node.stop();
}
