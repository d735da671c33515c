//! Nodes: all members asked at the same time for what each knows of itself.
//!
//! Promise: a node that does not answer takes no longer than the patience that was given, and is told
//! of with the reason.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use client::{
    AdminReply, AdminRequest, Client, ClientError, ClusterStatus, NodeFacts, NodeStatus, Told,
};
use tokio::task::JoinSet;

use crate::args::Args;
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};

/// Longer than this no node is waited for when all are asked.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// What was heard of a member.
pub(crate) struct Heard {
    /// As the node that was asked first sees it.
    pub(crate) status: NodeStatus,
    /// What it says of itself.
    pub(crate) facts: Option<NodeFacts>,
    /// The connection to it, if there is one.
    pub(crate) client: Option<Client>,
    /// Why it did not say anything.
    pub(crate) silence: Option<ClientError>,
    /// By how much its clock is before ours, in milliseconds; uncertain by the round trip.
    pub(crate) ahead_ms: i64,
    /// How long the question took.
    pub(crate) round_trip: Duration,
}

/// Milliseconds since 1970, by this machine's clock.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The cluster as one node sees it, and every member by its own words, in the order of their ids.
pub(crate) async fn ask_all(
    args: &Args,
    cluster: &Cluster,
) -> Result<(ClusterStatus, Vec<Heard>), Failure> {
    let client = cluster.connect(args.node.as_deref()).await?;
    let status = client.status().await?;
    client.close().await;
    let mut asked = JoinSet::new();
    for (place, node) in status.nodes.iter().cloned().enumerate() {
        let dialling = cluster.dial_aside(node.address.clone(), PATIENCE);
        asked.spawn(async move { (place, ask(node, dialling.await).await) });
    }
    let mut heard = Vec::new();
    while let Some(answer) = asked.join_next().await {
        heard.extend(answer.ok());
    }
    heard.sort_by_key(|(place, _)| *place);
    let heard: Vec<_> = heard.into_iter().map(|(_, heard)| heard).collect();
    // Whoever may not ask is told so, instead of seeing a cluster that keeps silent.
    if heard.iter().all(|h| h.facts.is_none())
        && let Some(error) = heard.iter().find_map(|h| match &h.silence {
            Some(error @ ClientError::Unauthorised { .. }) => Some(error.clone()),
            _ => None,
        })
    {
        return Err(error.into());
    }
    Ok((status, heard))
}

async fn ask(status: NodeStatus, dialled: Result<Client, ClientError>) -> Heard {
    let client = match dialled {
        Ok(client) => client,
        Err(error) => return Heard::silent(status, None, error),
    };
    let (began, wall) = (Instant::now(), wall_ms());
    let answer = client.administer(AdminRequest::Facts, PATIENCE).await;
    let round_trip = began.elapsed();
    match answer {
        Ok(AdminReply::Facts(facts)) => {
            let ours = wall as i64 + round_trip.as_millis() as i64 / 2;
            let ahead_ms = facts.wall_ms as i64 - ours;
            let facts = Some(*facts);
            Heard { status, facts, client: Some(client), silence: None, ahead_ms, round_trip }
        }
        Ok(_) => Heard::silent(status, Some(client), misfit()),
        Err(error) => Heard::silent(status, Some(client), error),
    }
}

fn misfit() -> ClientError {
    let fix = "compare the versions of ringctl and node";
    ClientError::Internal {
        told: Told::new("the node answered another question", "it is of another version", fix),
    }
}

impl Heard {
    fn silent(status: NodeStatus, client: Option<Client>, error: ClientError) -> Self {
        let (facts, round_trip) = (None, Duration::ZERO);
        Self { status, facts, client, silence: Some(error), ahead_ms: 0, round_trip }
    }
}

/// The member that a person means: its name, its number, or its address.
pub(crate) fn named<'a>(status: &'a ClusterStatus, name: &str) -> Result<&'a NodeStatus, Failure> {
    let is_it = |node: &&NodeStatus| {
        node.name == name || node.id.to_string() == name || node.address == name
    };
    status.nodes.iter().find(is_it).ok_or_else(|| {
        let known: Vec<_> = status.nodes.iter().map(|node| node.name.as_str()).collect();
        let told = Told::new(
            format!("no node has the name {name}"),
            format!("{} has {}", status.name, known.join(", ")),
            "name one of those, or its number or address",
        );
        Failure { exit: Exit::Usage, told }
    })
}
