//! The native client against real nodes: routed by key, cancelled, and through the death of a node.

use std::path::Path;
use std::time::{Duration, Instant};

use client::context::ContextFile;
use client::{AdminReply, AdminRequest, Client, ClientError, Level, Settings, Tls};

use crate::support::demo::Demo;

mod acks;
mod databases;
mod direct;
mod examples;
mod names;
mod ranges;
mod sessions;
mod siblings;

async fn connect(dir: &Path) -> Client {
    connect_as(dir, Settings::default()).await
}

async fn connect_as(dir: &Path, settings: Settings) -> Client {
    connect_to(dir, None, settings).await
}

/// A client that asks this node what concerns no key.
async fn connect_to(dir: &Path, address: Option<String>, settings: Settings) -> Client {
    let path = dir.join("ringctl.toml");
    let file = ContextFile::load(&path).unwrap();
    let cluster = file.choose(None, &path).unwrap();
    let tls = Tls::load(&cluster.tls_files()).unwrap();
    let nodes = address.map_or_else(|| cluster.nodes.clone(), |address| vec![address]);
    Client::connect_with(nodes, tls, settings).await.unwrap()
}

const PATIENCE: Duration = Duration::from_secs(5);

/// A counter of the node that is asked: what stands behind this in its metrics.
async fn counter(ring: &Client, name: &str) -> u64 {
    let text = match ring.administer(AdminRequest::Metrics, PATIENCE).await.unwrap() {
        AdminReply::Text { text } => text,
        other => panic!("{other:?}"),
    };
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Asks until requests go to the holders of their keys.
async fn until_routed(ring: &Client) {
    let end = Instant::now() + Duration::from_secs(30);
    while ring.tally().routed == 0 {
        ring.get("warm").await.unwrap();
        assert!(Instant::now() < end, "no request was routed: {:?}", ring.tally());
    }
}

#[test]
fn a_program_reads_writes_and_counts_through_the_holders_of_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    runtime().block_on(async {
        let ring = connect(dir.path()).await;
        until_routed(&ring).await;
        for i in 0..200 {
            ring.put(format!("k{i}"), format!("v{i}")).await.unwrap();
        }
        let before = ring.tally();
        let keys = (0..201).map(|i| format!("k{i}"));
        let read = ring.get_many(keys).consistency(Level::Quorum).await;
        assert_eq!(read.len(), 201);
        for (i, read) in read.iter().enumerate().take(200) {
            assert_eq!(read.as_ref().unwrap().values(), [format!("v{i}")], "{i}");
        }
        assert!(read[200].as_ref().unwrap().values().is_empty(), "it was never written");
        let asked = ring.tally().requests - before.requests;
        assert!(asked <= 4, "201 keys of three nodes took {asked} requests");

        // Two who add at once, over two connections of their own.
        let other = connect(dir.path()).await;
        let (hits, others) = (ring.counter("hits"), other.counter("hits"));
        for _ in 0..20 {
            let (a, b) = tokio::join!(hits.add(3).into_future(), others.add(-1).into_future());
            a.unwrap();
            b.unwrap();
        }
        assert_eq!((hits.value().await.unwrap(), others.value().await.unwrap()), (40, 40));
        let error = ring.counter("k1").add(1).await.unwrap_err();
        assert!(matches!(error, ClientError::Invalid { .. }), "{error}");

        // What was read is replaced; what was written meanwhile stays beside it.
        let seen = ring.get("cart").await.unwrap().context();
        ring.put("cart", "apple").context(seen.clone()).await.unwrap();
        other.put("cart", "pear").context(seen).await.unwrap();
        let both = ring.get("cart").await.unwrap();
        let mut values: Vec<_> = both.values().to_vec();
        values.sort();
        assert_eq!(values, ["apple", "pear"]);
        ring.put("cart", "both").context(both.context()).await.unwrap();
        assert_eq!(other.get("cart").await.unwrap().values(), ["both"]);
        other.close().await;
        ring.close().await;
    });
    demo.stop();
}

#[test]
fn a_program_goes_on_when_a_node_dies_and_is_told_what_cannot_be_had() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    runtime().block_on(async {
        let ring = connect(dir.path()).await;
        until_routed(&ring).await;
        for i in 0..100 {
            ring.put(format!("k{i}"), "before").await.unwrap();
        }
        demo.kill(2);
        let mut slowest = Duration::ZERO;
        for i in 0..300 {
            let asked = Instant::now();
            let read = ring.get(format!("k{}", i % 100)).await.unwrap();
            slowest = slowest.max(asked.elapsed());
            assert_eq!(read.values(), ["before"]);
        }
        // A read finds another node by itself, and never waits for the connection to be given up twice.
        assert!(slowest < Duration::from_secs(4), "{slowest:?}");
        for i in 0..100 {
            ring.put(format!("k{i}"), "after").await.unwrap();
        }
        let error = ring.get("k1").consistency(Level::All).await.unwrap_err();
        assert!(matches!(error, ClientError::Unavailable { needed: 3, alive: 2, .. }), "{error}");
        assert!(error.had_no_effect());
        ring.close().await;
    });
    demo.stop();
}
