//! Reads without a coordinator on real nodes: while all is well, where a database wants something else, and
//! when a node dies.

use std::time::{Duration, Instant};

use client::{AdminRequest, Client, KeyspaceChange, Level};

use super::{PATIENCE, connect, counter, runtime, until_routed};
use crate::support::demo::Demo;

/// How many shares without a value the node that is asked gave.
async fn shares(ring: &Client) -> u64 {
    counter(ring, "ringdb_request_duration_seconds_count{class=\"share\"} ").await
}

#[test]
fn a_read_at_quorum_needs_no_coordinator_while_its_replicas_agree() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    runtime().block_on(async {
        let ring = connect(dir.path()).await;
        until_routed(&ring).await;
        for i in 0..100 {
            ring.put(format!("k{i}"), format!("v{i}")).consistency(Level::All).await.unwrap();
        }
        let before = ring.tally();
        for i in 0..100 {
            let read = ring.get(format!("k{i}")).await.unwrap();
            assert_eq!(read.values(), [format!("v{i}")]);
            // What it has seen is what a coordinator would have said.
            ring.put(format!("k{i}"), "new").context(read.context()).await.unwrap();
            assert_eq!(ring.get(format!("k{i}")).await.unwrap().values(), ["new"]);
        }
        let after = ring.tally();
        let (direct, all) = (after.direct - before.direct, after.requests - before.requests);
        assert!(direct >= 100, "{direct} of {all}: {after:?}");
        // Reports come with a pace of their own.
        let end = Instant::now() + Duration::from_secs(20);
        while shares(&ring).await == 0 {
            assert!(Instant::now() < end, "nobody counted a share");
        }

        // A database whose reads ask one replica, or all: as it wants.
        for (level, number) in [("ONE", 5), ("ALL", 6)] {
            let name = number.to_string();
            let change = KeyspaceChange {
                name,
                read: Some(level.into()),
                weak: true,
                ..KeyspaceChange::default()
            };
            ring.administer(AdminRequest::Keyspace(Box::new(change)), PATIENCE).await.unwrap();
            let database = ring.database(number);
            database.put("k", "v").consistency(Level::All).await.unwrap();
            let before = ring.tally().direct;
            for _ in 0..20 {
                assert_eq!(database.get("k").await.unwrap().values(), ["v"]);
            }
            assert_eq!(ring.tally().direct, before, "{level}");
            let quorum = database.get("k").consistency(Level::Quorum).await.unwrap();
            assert_eq!(quorum.values(), ["v"]);
        }

        demo.kill(3);
        for i in 0..300 {
            let read = ring.get(format!("k{}", i % 100)).await.unwrap();
            assert_eq!(read.values(), ["new"], "{i}");
        }
        for i in 0..100 {
            ring.put(format!("k{i}"), "last").await.unwrap();
            assert_eq!(ring.get(format!("k{i}")).await.unwrap().values(), ["last"]);
        }
        ring.close().await;
    });
    demo.stop();
}
