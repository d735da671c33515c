//! Writes whose replicas tell the client, on real nodes: while all is well, where it is not for them to tell, and
//! when nodes die.

use std::time::{Duration, Instant};

use client::{Client, Durability, Level, Settings};

use super::{connect_as, connect_to, counter, runtime, until_routed};
use crate::support::demo::Demo;
use crate::support::{pid_of, signal};

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

/// What a node has told, once its reports have caught up with what it did.
async fn told_in_the_end(at: &Client) -> u64 {
    let end = Instant::now() + Duration::from_millis(2_500);
    let mut last = told(at).await;
    while Instant::now() < end {
        last = told(at).await;
    }
    last
}

#[test]
fn a_replica_that_stood_still_tells_nobody_when_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    runtime().block_on(async {
        let ring = connect_as(dir.path(), Settings::default()).await;
        let third = Some(format!("127.0.0.1:{}", demo.base + 103));
        let third = connect_to(dir.path(), third, Settings::default()).await;
        until_routed(&ring).await;
        let end = Instant::now() + Duration::from_secs(30);
        while told(&third).await == 0 {
            ring.put("warm", "v").consistency(Level::All).await.unwrap();
            assert!(Instant::now() < end, "{:?}", ring.tally());
        }
        let before = told_in_the_end(&third).await;

        let pid = pid_of(demo.config(3).to_str().unwrap()).expect("the node runs");
        signal("STOP", pid);
        let stopped = Instant::now();
        let timeout = Duration::from_millis(400);
        let write = |i: u32| {
            let ring = ring.clone();
            tokio::spawn(async move {
                let put = ring.put(format!("late{i}"), "v").consistency(Level::All);
                put.timeout(timeout).await.unwrap_err()
            })
        };
        for write in (0..60).map(write).collect::<Vec<_>>() {
            write.await.unwrap();
        }
        // Longer than anybody waits, and less than it takes for a connection to be given up.
        while stopped.elapsed() < Duration::from_millis(900) {
            told(&ring).await;
        }
        signal("CONT", pid);
        let after = told_in_the_end(&third).await;
        assert_eq!(after, before, "all of it was too late");
        // It has taken them in nonetheless.
        let found = async |i: u32| ring.get(format!("late{i}")).consistency(Level::All).await;
        let mut held = 0;
        for i in 0..60 {
            held += found(i).await.unwrap().values().len();
        }
        assert!(held > 20, "{held} of 60");
        third.close().await;
        ring.close().await;
    });
    demo.stop();
}

#[test]
fn a_coordinator_with_much_in_flight_answers_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    runtime().block_on(async {
        let ring = connect_as(dir.path(), Settings::default()).await;
        until_routed(&ring).await;
        let end = Instant::now() + Duration::from_secs(30);
        while ring.tally().confirmed == 0 {
            ring.put("warm", "v").consistency(Level::All).await.unwrap();
            assert!(Instant::now() < end, "{:?}", ring.tally());
        }
        // While one of three stands still, nothing that all have to hold is done: it stays in flight.
        let pid = pid_of(demo.config(3).to_str().unwrap()).expect("the node runs");
        let together = async |keys: &[String]| {
            let before = ring.tally().confirmed;
            signal("STOP", pid);
            let stopped = Instant::now();
            let write = |key: &String| {
                let (ring, key) = (ring.clone(), key.clone());
                tokio::spawn(async move {
                    ring.put(key, "v").consistency(Level::All).await.unwrap();
                })
            };
            let writes: Vec<_> = keys.iter().map(write).collect();
            // Long enough for all to come in, and less than after which the client would ask again.
            while stopped.elapsed() < Duration::from_millis(600) {
                told(&ring).await;
            }
            signal("CONT", pid);
            for write in writes {
                write.await.unwrap();
            }
            ring.tally().confirmed - before
        };
        // Of those that the two others coordinate.
        let mut keys = Vec::new();
        for i in 0.. {
            let key = format!("k{i}");
            if ring.owners(&key).await.unwrap().nodes[0].id != 3 {
                keys.push(key);
            }
            if keys.len() == 1_500 {
                break;
            }
        }
        let few = together(&keys[..60]).await;
        assert!(few >= 40, "{few} of 60: {:?}", ring.tally());
        let many = together(&keys).await;
        // 128 of each.
        assert!((100..=256).contains(&many), "{many} of 1,500: {:?}", ring.tally());
        ring.close().await;
    });
    demo.stop();
}
