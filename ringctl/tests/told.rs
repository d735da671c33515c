//! What the nodes of the stories tell an administrator.

use bytes::Bytes;
use wire::operate::{
    AdminReply, AdminRequest, BigKey, BigKeys, CopyValue, HotKey, HotKeys, KeyCopy, KeyspaceFacts,
    NodeFacts, StoreFacts,
};

/// The answer of node `id`, which was asked so many times before.
pub(crate) fn admin(id: u32, asked: u64, request: &AdminRequest) -> AdminReply {
    match request {
        AdminRequest::Facts => AdminReply::Facts(Box::new(facts(id, asked))),
        AdminRequest::Metrics => AdminReply::Text { text: "ringdb_ready 1\n".into() },
        AdminRequest::Settings => AdminReply::Text { text: format!("[node]\nname = \"n{id}\"\n") },
        AdminRequest::Copy { .. } => AdminReply::Copy(copy(id)),
        AdminRequest::Hot => AdminReply::Hot(hot(id)),
        AdminRequest::Big { slot, .. } => AdminReply::Big(big(*slot)),
        AdminRequest::Drain => AdminReply::Draining,
    }
}

fn facts(id: u32, asked: u64) -> NodeFacts {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    NodeFacts {
        id,
        name: format!("n{id}"),
        version: "0.1.0".into(),
        incarnation: 1,
        pid: 4_000 + id,
        uptime_ms: 7_500_000,
        wall_ms: wall.as_millis() as u64,
        // A second more each time.
        cpu_us: asked * 1_000_000,
        memory_bytes: 200 << 20,
        files_open: 40,
        files_max: 20_000,
        disk_free_bytes: 60 << 30,
        disk_bytes: 100 << 30,
        cores: 2,
        data_dir: format!("/var/lib/ringdb/n{id}"),
        config_file: format!("/etc/ringdb/n{id}.toml"),
        redis_listen: format!("10.0.0.{id}:6379"),
        peer_listen: format!("10.0.0.{id}:7400"),
        http_listen: String::new(),
        clients: 12,
        clients_max: 10_000,
        ops_per_second: 4_321,
        unavailable: 3,
        read_repairs: 5,
        store: StoreFacts {
            tables: 7,
            table_bytes: 41 << 20,
            log_bytes: 64 << 20,
            memtable_bytes: 5 << 20,
            cache_bytes: 100 << 20,
            debt: 0.02,
            ..StoreFacts::default()
        },
        keyspaces: vec![keyspace("default", 3, "QUORUM"), keyspace("4", 3, "ONE")],
        epoch: 1,
        ..NodeFacts::default()
    }
}

fn keyspace(name: &str, n: u8, read: &str) -> KeyspaceFacts {
    KeyspaceFacts {
        name: name.into(),
        n,
        read: read.into(),
        write: "QUORUM".into(),
        durability: "os".into(),
        conflict: "lww".into(),
    }
}

/// n3 has missed the last write.
fn copy(id: u32) -> KeyCopy {
    let late = id == 3;
    let value = CopyValue {
        node: 1,
        incarnation: 2,
        seq: if late { 6 } else { 7 },
        at_ms: 1_790_000_000_000,
        bytes: 10,
    };
    KeyCopy {
        values: vec![value],
        record_bytes: 40,
        digest: if late { "aa".into() } else { "bb".into() },
        read_us: 20,
        ..KeyCopy::default()
    }
}

fn hot(id: u32) -> HotKeys {
    let key = |key: &'static str, samples, writes, error| HotKey {
        keyspace: 0,
        key: Bytes::from(key),
        samples,
        writes,
        error,
    };
    HotKeys {
        window_ms: 40_000,
        one_in: 16,
        samples: 1_000,
        keys: vec![key("cart:42", 200 * u64::from(id), 50, 0), key("rare", 2, 0, 1)],
    }
}

/// A large key in the first part, a larger one in the second.
fn big(slot: u16) -> BigKeys {
    let key =
        |key: &'static str, bytes| BigKey { keyspace: 0, key: Bytes::from(key), bytes, values: 1 };
    let first = slot == 0;
    BigKeys {
        keys: vec![if first { key("photo:1", 2 << 20) } else { key("photo:2", 3 << 20) }],
        read: 10,
        next: first.then_some((9_000, Bytes::new())),
    }
}
