//! What an administrator hears of real nodes, and that nobody else does.

use std::time::Duration;

use bytes::Bytes;
use client::{AdminReply, AdminRequest, Client, ClientError, Level, Tls, TlsFiles};

use crate::support::demo::Demo;

const PATIENCE: Duration = Duration::from_secs(5);

async fn connect(demo: &Demo, node: u16, who: &str) -> Client {
    let file = |name: String| demo.dir.join("certs").join(name);
    let (ca, cert) = (file("ca.pem".into()), file(format!("{who}.pem")));
    let tls = Tls::load(&TlsFiles { ca, cert, key: file(format!("{who}.key")) }).unwrap();
    Client::connect([format!("127.0.0.1:{}", demo.base + 100 + node)], tls).await.unwrap()
}

async fn ask(client: &Client, request: AdminRequest) -> AdminReply {
    client.administer(request, PATIENCE).await.unwrap()
}

#[test]
fn an_administrator_hears_what_a_node_knows_of_itself_and_may_end_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(&dir.path().join("demo"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Whoever is only a client is refused, by name.
        let visitor = connect(&demo, 1, "client").await;
        for request in [AdminRequest::Facts, AdminRequest::Settings, AdminRequest::Drain] {
            let refused = visitor.administer(request, PATIENCE).await.unwrap_err();
            assert!(matches!(refused, ClientError::Unauthorised { .. }), "{refused}");
            assert!(refused.told().why.contains("client client of demo"), "{refused}");
        }
        let n1 = connect(&demo, 1, "admin").await;
        let nodes = [n1, connect(&demo, 2, "admin").await, connect(&demo, 3, "admin").await];
        facts(&demo, &nodes[0]).await;
        copies_of_keys(&nodes).await;
        large_keys(&nodes[0]).await;
        busy_keys(&nodes).await;
        let AdminReply::Text { text } = ask(&nodes[0], AdminRequest::Metrics).await else {
            panic!("text")
        };
        assert!(text.contains("ringdb_acl_denied_total{reason=\"role\"} 3\n"), "{text}");
        assert_eq!(ask(&nodes[2], AdminRequest::Drain).await, AdminReply::Draining);
    });
    // The demo says that it ended, and not by a signal: it had put everything on disk.
    let line = demo.hears("n3 ");
    assert!(!line.contains("signal"), "{line}");
    demo.stop();
}

async fn facts(demo: &Demo, n1: &Client) {
    let AdminReply::Facts(facts) = ask(n1, AdminRequest::Facts).await else { panic!("facts") };
    assert_eq!((facts.name.as_str(), facts.id), ("n1", 1));
    assert!(facts.pid > 0 && facts.cpu_us > 0 && facts.memory_bytes > 1 << 20, "{facts:?}");
    assert!(facts.files_open > 3 && facts.files_max >= facts.files_open, "{facts:?}");
    assert!(facts.disk_bytes >= facts.disk_free_bytes && facts.disk_free_bytes > 0, "{facts:?}");
    assert_eq!((facts.keyspaces[0].name.as_str(), facts.keyspaces[0].n), ("default", 3));
    assert_eq!((facts.not_ready.len(), facts.epoch), (0, 1));
    assert_eq!(facts.redis_listen, format!("127.0.0.1:{}", demo.base + 1));

    let AdminReply::Text { text } = ask(n1, AdminRequest::Metrics).await else { panic!("text") };
    assert!(text.contains("ringdb_build_info"), "{text}");
    let AdminReply::Text { text } = ask(n1, AdminRequest::Settings).await else { panic!("text") };
    assert!(text.contains("name = \"n1\"") && text.contains("# "), "{text}");
}

async fn copies_of_keys(nodes: &[Client; 3]) {
    for i in 0..50_usize {
        let value = vec![b'x'; 100 + i * 40];
        nodes[0].put(format!("key:{i}"), value).consistency(Level::All).await.unwrap();
    }
    nodes[0].counter("hits").add(5).consistency(Level::All).await.unwrap();
    let copy = |key: &'static str| AdminRequest::Copy { key: Bytes::from(key), keyspace: 0 };
    let mut digests = Vec::new();
    for node in nodes {
        let AdminReply::Copy(seen) = ask(node, copy("key:7")).await else { panic!("a copy") };
        assert_eq!((seen.values.len(), seen.values[0].bytes), (1, 380), "{seen:?}");
        assert!(seen.values[0].at_ms > 0 && seen.values[0].seq > 0, "{seen:?}");
        digests.push(seen.digest);
    }
    assert!(digests.iter().all(|d| *d == digests[0]), "all copies are the same: {digests:?}");
    let AdminReply::Copy(none) = ask(&nodes[0], copy("nothing")).await else { panic!("a copy") };
    assert_eq!((none.values.len(), none.counter, none.record_bytes), (0, None, 0));
    let AdminReply::Copy(hits) = ask(&nodes[0], copy("hits")).await else { panic!("a copy") };
    assert_eq!(hits.counter.as_deref(), Some("5"));
}

async fn large_keys(n1: &Client) {
    let (mut at, mut read, mut largest) = ((0, Bytes::new()), 0, Vec::new());
    let mut questions = 0;
    loop {
        let request = AdminRequest::Big { slot: at.0, from: at.1, count: 2 };
        let AdminReply::Big(big) = ask(n1, request).await else { panic!("large keys") };
        assert!(big.keys.len() <= 2);
        (read, questions) = (read + big.read, questions + 1);
        largest.extend(big.keys);
        match big.next {
            Some(next) => at = next,
            None => break,
        }
    }
    largest.sort_by_key(|key| std::cmp::Reverse(key.bytes));
    let names: Vec<_> = largest.iter().take(2).map(|key| &key.key[..]).collect();
    assert_eq!((read, names), (51, vec![&b"key:49"[..], b"key:48"]));
    assert!(questions >= 64, "{questions} questions went through all slots");
}

async fn busy_keys(nodes: &[Client; 3]) {
    for _ in 0..400 {
        nodes[0].get("busy").await.unwrap();
    }
    // Requests go to holders of the key: all nodes together have seen it.
    let mut samples = 0;
    for node in nodes {
        let AdminReply::Hot(hot) = ask(node, AdminRequest::Hot).await else { panic!("hot keys") };
        let busy = hot.keys.iter().find(|key| key.key == "busy");
        samples += busy.map_or(0, |key| key.samples * u64::from(hot.one_in));
    }
    assert!((300..=500).contains(&samples), "{samples} of 400");
}
