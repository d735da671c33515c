//! A database that keeps siblings, on real nodes: for programs, for Redis clients, and in the metrics.

use std::time::Duration;

use client::{AdminRequest, Client, ClientError, KeyspaceChange};

use super::{connect, runtime, until_routed};
use crate::support::demo::Demo;

const PATIENCE: Duration = Duration::from_secs(5);

async fn conflict(ring: &Client, rule: &str) {
    let change = KeyspaceChange {
        name: "4".into(),
        conflict: Some(rule.into()),
        ..KeyspaceChange::default()
    };
    ring.administer(AdminRequest::Keyspace(Box::new(change)), PATIENCE).await.unwrap();
}

async fn values(database: &Client, key: &str) -> Vec<String> {
    let read = database.get(key.to_owned()).await.unwrap();
    read.values().iter().map(|v| String::from_utf8_lossy(v).into_owned()).collect()
}

#[test]
fn where_siblings_are_kept_no_write_takes_away_what_its_client_was_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    let mut redis = [demo.client(1), demo.client(2), demo.client(3)];
    redis.iter_mut().for_each(|client| assert_eq!(client.ask("SELECT 4"), "OK"));
    let runtime = runtime();
    let ring = runtime.block_on(async {
        let ring = connect(dir.path()).await;
        until_routed(&ring).await;
        ring
    });
    let four = ring.database(4);
    runtime.block_on(async {
        // By the default rule the second replaces the first.
        four.put("k", "one").await.unwrap();
        four.put("k", "two").await.unwrap();
        assert_eq!(values(&four, "k").await, ["two"]);
        conflict(&ring, "siblings").await;

        // Two programs and a Redis client, none of which says what it has seen.
        four.put("k", "three").await.unwrap();
    });
    assert_eq!(redis[1].ask("SET k four"), "OK");
    for client in &mut redis {
        assert_eq!(client.ask("GET k"), "four", "the newest, at every node");
        let all = client.ask("RING.SIBLINGS k");
        assert!(["two", "three", "four"].iter().all(|value| all.contains(value)), "{all}");
    }
    runtime.block_on(async {
        let read = four.get("k").await.unwrap();
        assert_eq!(read.values(), ["four", "three", "two"]);
        // What comes between the read and the write with its context stays.
        four.put("k", "five").await.unwrap();
        four.put("k", "all of them").context(read.context()).await.unwrap();
        assert_eq!(values(&four, "k").await, ["all of them", "five"]);
    });
    // Whoever is shown a value replaces that one.
    assert_eq!(redis[0].ask("GETSET k six"), "all of them");
    assert_eq!(redis[2].ask("WATCH k"), "OK");
    assert_eq!(redis[2].ask("GET k"), "six");
    for (command, reply) in [("MULTI", "OK"), ("SET k seven", "QUEUED")] {
        assert_eq!(redis[2].ask(command), reply);
    }
    assert_eq!(redis[2].ask("EXEC"), "[OK]");
    runtime.block_on(async {
        assert_eq!(values(&four, "k").await, ["seven", "five"]);
        conflict(&ring, "lww").await;
        assert_eq!(values(&four, "k").await.len(), 2, "they stay until the next write");
        four.put("k", "eight").await.unwrap();
        assert_eq!(values(&four, "k").await, ["eight"]);
        ring.close().await;
    });
    demo.stop();
}

#[test]
fn a_key_with_too_many_siblings_takes_no_more_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    let mut redis = demo.client(2);
    assert_eq!(redis.ask("SELECT 4"), "OK");
    runtime().block_on(async {
        let ring = connect(dir.path()).await;
        conflict(&ring, "siblings").await;
        let four = ring.database(4);
        for i in 0..128 {
            four.put("k", format!("v{i}")).await.unwrap();
        }
        let refused = four.put("k", "one more").await.unwrap_err();
        assert!(matches!(refused, ClientError::Invalid { .. }), "{refused}");
        assert!(refused.told().why.contains("128 concurrent values"), "{refused}");
        assert!(refused.told().fix.contains("context of that read"), "{refused}");
        let line = redis.ask("SET k more");
        let expected = "-ERR the key has 128 siblings, as many concurrent values as are kept; nothing \
                        was written. fix: ";
        assert!(line.starts_with(expected), "{line}");
        let read = four.get("k").await.unwrap();
        assert_eq!(read.values().len(), 128);
        four.put("k", "one").context(read.context()).await.unwrap();
        four.put("k", "two").await.unwrap();
        assert_eq!(values(&four, "k").await, ["two", "one"]);
        ring.close().await;
    });
    demo.stop();
}
