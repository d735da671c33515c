//! Ranges of sort keys, through real nodes: read, removed, and after the death of a node.

use bytes::Bytes;
use client::{Client, ClientError, Level};

use super::{connect, runtime, until_routed};
use crate::support::demo::Demo;

fn sort(i: usize) -> String {
    format!("{:04}", i)
}

async fn sorts(ring: &Client, partition: &str, level: Level) -> Vec<String> {
    let mut rows = ring.range(partition, ..).page(7).consistency(level).await.unwrap();
    let rows = rows.rest().await.unwrap();
    rows.iter().map(|row| String::from_utf8(row.sort_key().to_vec()).unwrap()).collect()
}

#[test]
fn a_range_is_read_in_order_page_by_page_in_both_directions() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    runtime().block_on(async {
        let ring = connect(dir.path()).await;
        until_routed(&ring).await;
        for i in 0..150 {
            ring.put(("inbox:42", sort(i)), format!("v{i}")).await.unwrap();
        }
        // Neighbours that are none of its sort keys: the partition key alone, and another one.
        ring.put("inbox:42", "alone").await.unwrap();
        ring.put(("inbox:43", "0007"), "other").await.unwrap();
        let all: Vec<String> = (0..150).map(sort).collect();

        let before = ring.tally().requests;
        let mut rows = ring.range("inbox:42", ..).page(20).await.unwrap();
        for (i, name) in all.iter().enumerate() {
            if i == 10 {
                // Nobody has wanted the second page: it has not been asked for.
                assert_eq!(ring.tally().requests - before, 1);
            }
            let row = rows.next().await.unwrap().unwrap();
            assert_eq!(
                (&row.sort_key()[..], row.values()),
                (name.as_bytes(), &[Bytes::from(format!("v{i}"))][..])
            );
        }
        assert_eq!(rows.next().await.unwrap(), None);
        assert_eq!(sorts(&ring, "inbox:42", Level::One).await, all);
        assert_eq!(sorts(&ring, "inbox:42", Level::All).await, all);

        let names = |rows: Vec<client::Row>| -> Vec<String> {
            rows.iter().map(|r| String::from_utf8(r.sort_key().to_vec()).unwrap()).collect()
        };
        let some = ring.range("inbox:42", sort(30)..sort(60)).page(7);
        let down = some.clone().reverse().limit(11);
        assert_eq!(names(some.await.unwrap().rest().await.unwrap()), all[30..60]);
        let expected: Vec<_> = all[49..60].iter().rev().cloned().collect();
        assert_eq!(names(down.await.unwrap().rest().await.unwrap()), expected);

        // A row's context replaces what was read, as that of a get; a Redis client sees the same key.
        let mut rows = ring.range("inbox:42", sort(5)..=sort(5)).await.unwrap();
        let row = rows.next().await.unwrap().unwrap();
        ring.put(("inbox:42", sort(5)), "new").context(row.context()).await.unwrap();
        assert_eq!(ring.get("{inbox:42}0005").await.unwrap().values(), ["new"]);

        for wrong in ["", "a}b"] {
            let error = ring.range(wrong, ..).await.unwrap_err();
            assert!(matches!(error, ClientError::Invalid { .. }), "{error}");
            let error = ring.get((wrong, "x")).await.unwrap_err();
            assert!(matches!(error, ClientError::Invalid { .. }), "{error}");
        }
        ring.close().await;
    });
    let mut redis = demo.client(2);
    assert_eq!(redis.ask("GET {inbox:42}0006"), "v6");
    demo.stop();
}

#[test]
fn a_range_deletion_survives_the_death_of_nodes_and_reaches_the_one_that_was_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    let back = runtime().block_on(async {
        let ring = connect(dir.path()).await;
        until_routed(&ring).await;
        for i in 0..1200 {
            ring.put(("log", sort(i)), "entry").await.unwrap();
        }
        demo.kill(3);
        // Asked of the node that is gone, nobody knows what became of it: it may be repeated.
        let old = loop {
            match ring.delete_range("log", ..sort(1100)).await {
                Err(ClientError::Interrupted { .. } | ClientError::Unconfirmed { .. }) => {}
                done => break done.unwrap(),
            }
        };
        assert_eq!(old, 1100);
        // Whoever acknowledged it holds it, though it be killed at once.
        demo.kill(1);
        let mut back = vec![demo.restart(1)];
        let left: Vec<String> = (1100..1200).map(sort).collect();
        until_serving(&ring, Level::Quorum).await;
        assert_eq!(sorts(&ring, "log", Level::Quorum).await, left);
        back.push(demo.restart(3));
        until_serving(&ring, Level::All).await;
        // Each node by itself: the one that was away has pulled the deletion before it answers.
        for node in 1..=3 {
            let mut redis = demo.client(node);
            assert_eq!(redis.ask("WITH ONE EXISTS {log}0000 {log}1099"), "0");
            assert_eq!(redis.ask("WITH ONE EXISTS {log}1100 {log}1199"), "2");
        }
        assert_eq!(sorts(&ring, "log", Level::All).await, left);
        // Again does no harm.
        assert_eq!(ring.delete_range("log", ..sort(1100)).await.unwrap(), 0);
        ring.close().await;
        back
    });
    drop(back);
    demo.stop();
}

/// Asks until a level can be reached.
async fn until_serving(ring: &Client, level: Level) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while let Err(error) = ring.get("warm").consistency(level).await {
        assert!(std::time::Instant::now() < end, "{level}: {error}");
    }
}
