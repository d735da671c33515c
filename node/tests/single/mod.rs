//! One node alone: what it serves, and what it keeps when it is stopped or killed.

use crate::support::{Client, Node, http, text, until};

#[test]
fn a_node_alone_serves_and_its_data_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    let mut client = node.client();
    assert_eq!(client.ask("SET greeting hello"), "OK");
    assert_eq!(client.ask("GET greeting"), "hello");
    assert_eq!(client.ask("INCR hits"), "1");
    assert_eq!(client.ask("GET nothing"), "nil");
    node.stop();
    let mut node = Node::start(dir.path());
    let mut client = node.client();
    assert_eq!(client.ask("GET greeting"), "hello");
    assert_eq!(client.ask("INCR hits"), "2");
    // A clean end needs no new life.
    let (_, status) = http(node.http, "/status").unwrap();
    assert!(status.contains("\"incarnation\":1,"), "{status}");
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    for life in 1..4 {
        let mut node = Node::start(dir.path());
        let mut client = node.client();
        for earlier in 1..life {
            for i in 0..200 {
                assert_eq!(client.ask(&format!("GET {earlier}:{i}")), format!("v{earlier}:{i}"));
            }
        }
        assert_eq!(client.ask("INCR lives"), life.to_string());
        for i in 0..200 {
            assert_eq!(client.ask(&format!("SET {life}:{i} v{life}:{i}")), "OK");
        }
        let (_, status) = http(node.http, "/status").unwrap();
        assert!(status.contains(&format!("\"incarnation\":{life},")), "{status}");
        node.process.kill();
    }
}

#[test]
fn a_pipeline_is_answered_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    let mut client = node.client();
    for i in 0..5_000 {
        client.send(&["SET", &format!("key:{}", i % 700), &i.to_string()]);
        client.send(&["GET", &format!("key:{}", i % 700)]);
    }
    for i in 0..5_000 {
        assert_eq!(text(&client.next().unwrap()), "OK");
        assert_eq!(text(&client.next().unwrap()), i.to_string());
    }
}

#[test]
fn writes_of_durability_sync_are_answered_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start_with(dir.path(), &["--keyspace-durability", "sync"]);
    let mut client = node.client();
    for i in 0..20 {
        client.send(&["SET", &format!("k{i}"), "v"]);
    }
    for _ in 0..20 {
        assert_eq!(text(&client.next().unwrap()), "OK");
    }
    assert_eq!(client.ask("WITH d=os SET other v"), "OK");
}

#[test]
fn a_memtable_becomes_tables_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let small = ["--engine-memtable-bytes", "262144", "--engine-log-segment-bytes", "262144"];
    let small = [&small[..], &["--engine-log-retain-bytes", "0"]].concat();
    let mut node = Node::start_with(dir.path(), &small);
    let mut client = node.client();
    let value = "v".repeat(200);
    for i in 0..8_000 {
        client.send(&["SET", &format!("key:{i}"), &value]);
    }
    // Where much else runs, flushes of memtables so small may fall behind: then a write is refused, and comes again.
    let refused: Vec<_> = (0..8_000).filter(|_| text(&client.next().unwrap()) != "OK").collect();
    for i in refused {
        let set = format!("SET key:{i} {value}");
        until("it is taken", || (client.ask(&set) == "OK").then_some(()));
    }
    until("there are tables", || {
        let (_, metrics) = http(node.http, "/metrics")?;
        let line = metrics.lines().find_map(|l| l.strip_prefix("ringdb_engine_tables "))?;
        (line != "0").then_some(())
    });
    node.process.kill();
    let mut node = Node::start_with(dir.path(), &small);
    let mut client = node.client();
    for i in 0..8_000 {
        client.send(&["GET", &format!("key:{i}")]);
    }
    for i in 0..8_000 {
        assert_eq!(text(&client.next().unwrap()), value, "key:{i}");
    }
    // The new life writes on over what the old one left.
    assert_eq!(client.ask("SET key:1 new"), "OK");
    assert_eq!(client.ask("GET key:1"), "new");
}

#[test]
fn several_cores_serve_every_slot_from_every_connection() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start_with(dir.path(), &["--node-cores", "4"]);
    drop(node.client());
    let mut clients: Vec<Client> = (0..8).map(|_| node.client()).collect();
    for (c, client) in clients.iter_mut().enumerate() {
        for i in 0..300 {
            client.send(&["SET", &format!("{c}:{i}"), "v"]);
        }
    }
    for client in &mut clients {
        for _ in 0..300 {
            assert_eq!(text(&client.next().unwrap()), "OK");
        }
    }
    assert_eq!(clients[0].ask("DBSIZE"), "2400");
    node.stop();
    // The number of cores may change between starts.
    let mut node = Node::start_with(dir.path(), &["--node-cores", "3"]);
    let mut client = node.client();
    for c in 0..8 {
        for i in 0..300 {
            client.send(&["GET", &format!("{c}:{i}")]);
            assert_eq!(text(&client.next().unwrap()), "v", "{c}:{i}");
        }
    }
}

#[test]
fn the_keys_that_a_node_keeps_are_counted_not_the_writes() {
    let dir = tempfile::tempdir().unwrap();
    let counted = |node: &Node, keys: u64| {
        let (all, known) = (format!("\"keys\":{keys},"), "\"keys_age_ms\":null");
        until("the keys are counted", || {
            let (_, status) = http(node.http, "/status")?;
            (status.contains(&all) && !status.contains(known)).then_some(())
        });
    };
    let mut node = Node::start_with(dir.path(), &["--node-cores", "2"]);
    let mut client = node.client();
    for i in 0..300 {
        client.send(&["SET", &format!("k{}", i % 100), "v"]);
        assert_eq!(text(&client.next().unwrap()), "OK");
    }
    assert_eq!(client.ask("SELECT 3"), "OK");
    assert_eq!(client.ask("INCR hits"), "1");
    assert_eq!(client.ask("INCR hits"), "2");
    counted(&node, 101);
    assert_eq!(client.ask("SELECT 0"), "OK");
    assert_eq!(client.ask("DEL k0 k1 nothing"), "2");
    assert_eq!(client.ask("PEXPIRE k2 1"), "1");
    assert_eq!(client.ask("EXPIRE k3 1000"), "1");
    counted(&node, 98);
    assert_eq!(client.ask("DBSIZE"), "97");
    let keyspace = client.ask("INFO keyspace");
    assert!(keyspace.contains("db0:keys=97,expires=1,avg_ttl=0\r\ndb3:keys=1,"), "{keyspace}");
    node.stop();
    let flags = ["--node-cores", "1", "--redis-allow-flush", "true"];
    let mut node = Node::start_with(dir.path(), &flags);
    let mut client = node.client();
    counted(&node, 98);
    assert_eq!(client.ask("FLUSHALL"), "OK");
    counted(&node, 0);
}

#[test]
fn health_and_metrics_are_told_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    let mut client = node.client();
    client.ask("SET a b");
    assert_eq!(http(node.http, "/livez").unwrap().0, 200);
    assert_eq!(http(node.http, "/readyz").unwrap(), (200, r#"{"ready":true,"reasons":[]}"#.into()));
    let counted = "ringdb_requests_total{command=\"set\",result=\"ok\"} 1\n";
    let metrics = until("the request is counted", || {
        http(node.http, "/metrics").map(|(_, body)| body).filter(|body| body.contains(counted))
    });
    for name in ["build_info", "request_duration_seconds_bucket", "engine_bytes", "up_peers"] {
        assert!(metrics.contains(&format!("ringdb_{name}")), "{name} is missing:\n{metrics}");
    }
}
