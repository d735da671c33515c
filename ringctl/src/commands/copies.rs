//! Copies: before a keyspace may have another N it is closed, and every member says that it is empty.
//!
//! Which nodes hold a key is a prefix of its slot's preference list, so that another N would leave written
//! keys where nobody asks for them. Promise: N is changed only while all members refuse requests of the
//! keyspace, none has one under way, and none holds a key of it; otherwise the keyspace is opened again as
//! it was. If this program dies meanwhile it stays closed, as `keyspace ls` says, and after a minute any
//! `keyspace set` opens it: until then nobody but this program may, so that no two do so at once.

use std::time::{Duration, Instant};

use client::{
    AdminReply, AdminRequest, Client, Emptiness, KeyspaceChange, KeyspaceChanged, NodeStatus,
};

use super::key::quoted;
use super::keyspace::ask;
use crate::args::Args;
use crate::cluster::Cluster;
use crate::failure::Failure;

/// How long to let requests end that are under way.
const REST: Duration = Duration::from_millis(50);

/// Closes a keyspace and makes sure that it is empty; returns the version that it has then.
pub(super) async fn close(
    args: &Args,
    cluster: &Cluster,
    client: &Client,
    plan: &KeyspaceChanged,
) -> Result<u64, Failure> {
    let (before, name) = (&plan.before, &plan.before.name);
    let wish = KeyspaceChange {
        name: name.clone(),
        n: Some(plan.after.n),
        close: true,
        version: Some(before.version),
        ..KeyspaceChange::default()
    };
    let closed = ask(args, client, wish).await?;
    let version = closed.after.version;
    let found = if closed.missing.is_empty() {
        all_empty(args, cluster, client, name).await
    } else {
        Err(refused(name, &format!("{} has not heard of it", closed.missing.join(", ")), AGAIN))
    };
    let Err(failure) = found else { return Ok(version) };
    // As it was: what had been set stays set, and what had not been is the configuration's.
    let undo = KeyspaceChange {
        name: name.clone(),
        remove: !before.set,
        weak: true,
        finish: true,
        version: Some(version),
        ..KeyspaceChange::default()
    };
    match ask(args, client, undo).await {
        Ok(_) => Err(failure),
        Err(mut stuck) => {
            stuck.told.what = format!("keyspace {name} stays closed: {}", stuck.told.what);
            stuck.told.why = format!("{}; {}", failure.told.why, stuck.told.why);
            stuck.told.fix =
                format!("open it in a minute: ringctl keyspace set {name} --n {}", before.n);
            Err(stuck)
        }
    }
}

const AGAIN: &str = "bring it back, then try again";

fn refused(name: &str, why: &str, fix: &str) -> Failure {
    Failure::operation(format!("the copies of keyspace {name} are not changed"), &why, fix)
}

async fn all_empty(
    args: &Args,
    cluster: &Cluster,
    client: &Client,
    name: &str,
) -> Result<(), Failure> {
    let number = name.parse();
    let keyspace: u16 = number.map_err(|_| refused(name, "it has no number", "name one"))?;
    for node in client.status().await?.nodes {
        let dialled = cluster.dial_aside(node.address.clone(), args.timeout).await?;
        let found = empty(args, &dialled, &node, keyspace).await;
        dialled.close().await;
        found?;
    }
    Ok(())
}

/// Goes through all slots of a node.
async fn empty(
    args: &Args,
    client: &Client,
    node: &NodeStatus,
    keyspace: u16,
) -> Result<(), Failure> {
    let (name, end) = (keyspace.to_string(), Instant::now() + args.timeout);
    let mut slot = 0;
    loop {
        let question = AdminRequest::Empty { keyspace, slot };
        let AdminReply::Empty(told) = client.administer(question, args.timeout).await? else {
            let why = format!("{} answered another question", node.name);
            return Err(refused(&name, &why, "compare versions"));
        };
        let Emptiness { key, busy, next } = told;
        if let Some(key) = key {
            let why = format!("{} holds its key {}", node.name, quoted(&key));
            let fix = "nothing moves keys in this version: delete them, or take another database";
            return Err(refused(&name, &why, fix));
        }
        match (busy, next) {
            (true, _) if Instant::now() < end => tokio::time::sleep(REST).await,
            (true, _) => {
                let why = format!("requests of it are still under way at {}", node.name);
                return Err(refused(&name, &why, "try again"));
            }
            (false, Some(next)) => slot = next,
            (false, None) => return Ok(()),
        }
    }
}
