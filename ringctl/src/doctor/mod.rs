//! Doctor: what commonly goes wrong, looked for before it hurts.
//!
//! Promise: it changes nothing; each finding says what, why and what to do; what could not be looked at
//! is a finding too, never taken for healthy.
//!
//! Reading order: [`checks`] (one function each, pure), [`certificates`], and here what is asked.

pub(crate) mod certificates;
pub(crate) mod checks;

use client::{ClusterStatus, Layout};
use serde_json::Value;

use crate::args::Args;
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};
use crate::nodes::{Heard, ask_all};
use crate::render::{Paint, Record, Report, Style, human};
use crate::{show, style};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// Something does not work, or will not for long.
    Problem,
    /// Something may come of it.
    Warning,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What was checked.
    pub(crate) check: &'static str,
    pub(crate) weight: Weight,
    /// The node that it is about, if it is about one.
    pub(crate) node: Option<String>,
    pub(crate) what: String,
    pub(crate) why: String,
    pub(crate) fix: String,
}

/// What was heard of the cluster.
pub(crate) struct Picture {
    pub(crate) status: ClusterStatus,
    pub(crate) heard: Vec<Heard>,
    /// The layout of each node that told it, by name.
    pub(crate) layouts: Vec<(String, Layout)>,
    /// The certificates that each node showed, and ours, by name; its own before its authority's.
    pub(crate) certificates: Vec<(String, Vec<Vec<u8>>)>,
}

/// Asks the whole cluster.
pub(crate) async fn look(args: &Args, cluster: &Cluster) -> Result<Picture, Failure> {
    let (status, heard) = ask_all(args, cluster).await?;
    let (mut layouts, mut certificates) = (Vec::new(), Vec::new());
    for one in &heard {
        let Some(client) = &one.client else { continue };
        let name = &one.status.name;
        certificates.push((name.clone(), client.certificates().await));
        if let Ok((layout, _)) = client.layout().await {
            layouts.push((name.clone(), layout));
        }
    }
    certificates.push(("this client".to_owned(), cluster.own_certificates()));
    Ok(Picture { status, heard, layouts, certificates })
}

/// Everything that is not as it should be, the worst first.
pub(crate) fn findings(picture: &Picture, cluster: &Cluster) -> Vec<Finding> {
    let mut all = Vec::new();
    let bring_back = |name: &str| cluster.bring_back(name);
    for check in checks::ALL {
        all.extend((check.look)(picture, &bring_back));
    }
    all.sort_by_key(|finding| finding.weight);
    all
}

pub(crate) async fn run(args: &Args) -> Result<Exit, Failure> {
    let cluster = Cluster::find(args)?;
    let picture = look(args, &cluster).await?;
    let findings = findings(&picture, &cluster);
    show(args, &report(&picture, &findings, style(args)));
    Ok(if findings.is_empty() { Exit::Fine } else { Exit::Degraded })
}

fn name(weight: Weight) -> &'static str {
    match weight {
        Weight::Problem => "problem",
        Weight::Warning => "warning",
    }
}

/// The report of what was found.
pub(crate) fn report(picture: &Picture, findings: &[Finding], style: Style) -> Report {
    let asked = picture.heard.iter().filter(|heard| heard.facts.is_some()).count();
    let mut text = format!(
        "doctor  {}   {asked} of {} answered   checked: {}\n",
        picture.status.name,
        human::things(picture.heard.len(), "node", "nodes"),
        checks::ALL.map(|check| check.name).join(", "),
    );
    for finding in findings {
        let paint = match finding.weight {
            Weight::Problem => Paint::Bad,
            Weight::Warning => Paint::Pending,
        };
        let Finding { what, why, fix, .. } = finding;
        let weight = paint.on(name(finding.weight), style.colour);
        text += &format!("{weight}: {what}\n  why: {why}\n  fix: {fix}\n");
    }
    let count = |weight| findings.iter().filter(|finding| finding.weight == weight).count();
    let (problems, warnings) = (count(Weight::Problem), count(Weight::Warning));
    text += &if findings.is_empty() {
        "all is well\n".to_owned()
    } else {
        let problems = human::things(problems, "problem", "problems");
        format!("{problems}, {}\n", human::things(warnings, "warning", "warnings"))
    };
    let rows: Vec<_> = findings
        .iter()
        .map(|finding| {
            Record::new([
                ("check", finding.check.into()),
                ("weight", name(finding.weight).into()),
                ("node", finding.node.clone().map_or(Value::Null, Value::from)),
                ("what", finding.what.as_str().into()),
                ("why", finding.why.as_str().into()),
                ("fix", finding.fix.as_str().into()),
            ])
        })
        .collect();
    let whole = Record::new([
        ("cluster", picture.status.name.as_str().into()),
        ("nodes", picture.heard.len().into()),
        ("answered", asked.into()),
        ("healthy", findings.is_empty().into()),
        ("checks", checks::ALL.map(|check| check.name).to_vec().into()),
    ]);
    Report { text, whole: whole.with("findings", &rows).of(&FINDING), rows }
}

/// The fields of a finding.
const FINDING: [&str; 6] = ["check", "weight", "node", "what", "why", "fix"];
