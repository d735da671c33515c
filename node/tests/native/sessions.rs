//! Sessions, through real nodes: reads at ONE from whichever node, right after a write at ONE.

use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;

use client::context::ContextFile;
use client::{Client, Level, Session, Stream, Tls};

use super::{connect, runtime, until_routed};
use crate::support::demo::Demo;
use crate::support::{pid_of, signal};

/// A client whose first request goes to this node, whoever holds the key.
async fn through(dir: &Path, demo: &Demo, node: u16) -> Client {
    let path = dir.join("ringctl.toml");
    let file = ContextFile::load(&path).unwrap();
    let tls = Tls::load(&file.choose(None, &path).unwrap().tls_files()).unwrap();
    let ring = Client::connect([format!("127.0.0.1:{}", demo.base + 100 + node)], tls).await;
    let ring = ring.unwrap();
    assert_eq!(ring.contact().await.node.0, u32::from(node));
    ring
}

#[test]
fn a_session_reads_what_it_wrote_and_nothing_older_at_one_through_any_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    runtime().block_on(async {
        let ring = connect(dir.path()).await;
        until_routed(&ring).await;
        let session = Session::new();
        for i in 0..12 {
            let (key, value) = (format!("s{}", i % 3), format!("v{i}"));
            let put = ring.put(key.as_str(), value.clone()).consistency(Level::One);
            put.session(&session).await.unwrap();
            let node = 1 + i % 3;
            let reader = through(dir.path(), &demo, node).await;
            let get = reader.get(key.as_str()).consistency(Level::One).session(&session);
            assert_eq!(get.await.unwrap().values(), [value], "{i}, through n{node}");
            reader.close().await;
        }
        let hits = ring.counter("hits");
        for i in 1..=9_i64 {
            hits.add(1).consistency(Level::One).session(&session).await.unwrap();
            let reader = through(dir.path(), &demo, 1 + (i % 3) as u16).await;
            let get = reader.get("hits").consistency(Level::One).session(&session);
            assert_eq!(get.await.unwrap().values(), [i.to_string()]);
            reader.close().await;
        }

        // So do reads of many keys, and ranges.
        for i in 0..9_u16 {
            let sort = format!("{i}");
            let put = ring.put(("row", sort.as_str()), "v").consistency(Level::One);
            put.session(&session).await.unwrap();
            let put = ring.put(format!("many{i}"), "v").consistency(Level::One);
            put.session(&session).await.unwrap();
            let reader = through(dir.path(), &demo, 1 + i % 3).await;
            let range = reader.range("row", ..).consistency(Level::One).session(&session).page(4);
            let mut rows = range.await.unwrap();
            // As a stream.
            let mut seen = 0;
            while let Some(row) = poll_fn(|cx| Pin::new(&mut rows).poll_next(cx)).await {
                row.unwrap();
                seen += 1;
            }
            assert_eq!(seen, i + 1, "through n{}", 1 + i % 3);
            let keys = (0..=i).map(|i| format!("many{i}"));
            let many = reader.get_many(keys).consistency(Level::One).session(&session).await;
            assert!(many.into_iter().all(|read| read.unwrap().values() == ["v"]));
            reader.close().await;
        }
        let gone = ring.delete_range("row", .."4").consistency(Level::One).session(&session);
        assert_eq!(gone.await.unwrap(), 4);
        let reader = through(dir.path(), &demo, 2).await;
        let range = reader.range("row", ..).consistency(Level::One).session(&session);
        assert_eq!(range.await.unwrap().rest().await.unwrap().len(), 5);
        reader.close().await;

        // A node that stood still while others wrote is asked as the first thing that it does.
        let key = {
            let mut keys = (0..).map(|i| format!("k{i}"));
            loop {
                let key = keys.next().unwrap();
                if ring.owners(&key).await.unwrap().nodes[0].id == 1 {
                    break key;
                }
            }
        };
        let pid = pid_of(demo.config(3).to_str().unwrap()).unwrap();
        for i in 0..5 {
            let reader = through(dir.path(), &demo, 3).await;
            signal("STOP", pid);
            let put = ring.put(key.as_str(), format!("w{i}")).consistency(Level::One);
            put.session(&session).await.unwrap();
            let get = reader.get(key.as_str()).consistency(Level::One).session(&session);
            let get = tokio::spawn(get.into_future());
            tokio::task::yield_now().await;
            signal("CONT", pid);
            assert_eq!(get.await.unwrap().unwrap().values(), [format!("w{i}")], "{i}");
            reader.close().await;
        }
        ring.close().await;
    });
    demo.stop();
}
