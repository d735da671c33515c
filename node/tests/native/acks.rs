//! Writes whose replicas tell the client, on real nodes: while all is well, where it is not for them to tell, and
//! when nodes die.

use std::time::{Duration, Instant};

use client::{Client, Durability, Level, Settings};

use super::{connect_as, counter, runtime, until_routed};
use crate::support::demo::Demo;

/// How many acknowledgements the node that is asked has told clients of.
async fn told(ring: &Client) -> u64 {
    counter(ring, "ringdb_direct_acks_total ").await
}

#[test]
fn a_write_is_done_when_its_replicas_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    runtime().block_on(async {
        let ring =
            connect_as(dir.path(), Settings { direct_acks: true, ..Settings::default() }).await;
        until_routed(&ring).await;
        // Connections to all holders are made in the background.
        let end = Instant::now() + Duration::from_secs(30);
        while ring.tally().confirmed == 0 {
            ring.put("warm", "v").await.unwrap();
            assert!(Instant::now() < end, "{:?}", ring.tally());
        }
        let before = ring.tally().confirmed;
        for i in 0..100 {
            let key = format!("k{i}");
            ring.put(key.as_str(), format!("v{i}")).await.unwrap();
            let read = ring.get(key.as_str()).await.unwrap();
            assert_eq!(read.values(), [format!("v{i}")]);
            // What the replica told of it is what the coordinator would have said.
            let seen = ring.put(key.as_str(), "new").context(read.context()).await.unwrap();
            ring.delete(key.as_str()).context(seen).await.unwrap();
            assert!(ring.get(key.as_str()).await.unwrap().values().is_empty());
            assert_eq!(ring.counter("hits").add(2).await.unwrap(), 2 * (i + 1));
        }
        let confirmed = ring.tally().confirmed - before;
        assert!(confirmed >= 300, "{confirmed} of 400: {:?}", ring.tally());
        // Reports come with a pace of their own.
        let end = Instant::now() + Duration::from_secs(20);
        while told(&ring).await == 0 {
            assert!(Instant::now() < end, "nobody told of a write");
        }

        // Two others have to hold it.
        let before = ring.tally().confirmed;
        for i in 0..50 {
            ring.put(format!("k{i}"), "all").consistency(Level::All).await.unwrap();
            let read = ring.get(format!("k{i}")).consistency(Level::One).await.unwrap();
            assert_eq!(read.values(), ["all"]);
        }
        assert!(ring.tally().confirmed > before, "{:?}", ring.tally());

        // It is not for the replicas to tell.
        let before = ring.tally().confirmed;
        for i in 0..20 {
            let put = || ring.put(format!("k{i}"), "coordinated");
            put().consistency(Level::One).await.unwrap();
            put().durability(Durability::Sync).await.unwrap();
            put().timeout(Duration::from_millis(99)).await.unwrap();
        }
        assert_eq!(ring.tally().confirmed, before);

        demo.kill(3);
        // What was sent to it and not answered is in doubt: reads find out that it is gone.
        for i in 0..300 {
            let read = ring.get(format!("k{}", i % 20)).await.unwrap();
            assert_eq!(read.values(), ["coordinated"]);
        }
        for i in 0..200 {
            ring.put(format!("k{}", i % 100), format!("{i}")).await.unwrap();
        }
        for i in 100..200 {
            let read = ring.get(format!("k{}", i % 100)).await.unwrap();
            assert_eq!(read.values(), [format!("{i}")]);
        }
        ring.close().await;
    });
    demo.stop();
}
