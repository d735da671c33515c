//! What the nodes of the stories tell an administrator.

use bytes::Bytes;
use wire::operate::{
    AdminReply, AdminRequest, BigKey, BigKeys, CheckpointFacts, CopyValue, Emptiness, HotKey,
    HotKeys, KeyCopy, KeyspaceChange, KeyspaceChanged, KeyspaceFacts, NodeFacts, StoreFacts,
};
use wire::{ErrorCode, ErrorReply};

/// The answer of node `id`, which was asked so many times before.
pub(crate) fn admin(id: u32, asked: u64, request: &AdminRequest) -> AdminReply {
    match request {
        AdminRequest::Facts => AdminReply::Facts(Box::new(facts(id, asked))),
        AdminRequest::Metrics => AdminReply::Text { text: "ringdb_ready 1\n".into() },
        AdminRequest::Settings => AdminReply::Text { text: format!("[node]\nname = \"n{id}\"\n") },
        AdminRequest::Copy { .. } => AdminReply::Copy(copy(id)),
        AdminRequest::Hot => AdminReply::Hot(hot(id)),
        AdminRequest::Big { slot, .. } => AdminReply::Big(big(*slot)),
        AdminRequest::Empty { .. } => AdminReply::Empty(Emptiness::default()),
        AdminRequest::Keyspace(change) => AdminReply::Keyspace(Box::new(changed(change))),
        AdminRequest::Checkpoints => {
            AdminReply::Checkpoints(vec![checkpoint(id, "before"), checkpoint(id, "later")])
        }
        AdminRequest::MakeCheckpoint { name } | AdminRequest::RemoveCheckpoint { name } => {
            AdminReply::Checkpoints(vec![checkpoint(id, name)])
        }
        AdminRequest::Drain => AdminReply::Draining,
    }
}

/// Database 7 is not empty.
pub(crate) fn refusal(request: &AdminRequest) -> Option<ErrorReply> {
    let AdminRequest::Keyspace(change) = request else { return None };
    (change.drive && change.name == "7").then(|| ErrorReply {
        code: ErrorCode::Invalid,
        what: "the copies of keyspace 7 are not changed".into(),
        why: "n2 holds its key \"left\"".into(),
        fix: "nothing moves keys in this version: delete them, or take another database".into(),
    })
}

/// Database 4 was set, others were not; n3 is not told of.
fn changed(change: &KeyspaceChange) -> KeyspaceChanged {
    let before = match change.name.as_str() {
        "4" => keyspace("4", 3, "ONE"),
        name => keyspace(name, 3, "QUORUM"),
    };
    let mut after = before.clone();
    after.version += 1;
    after.n = change.n.unwrap_or(after.n);
    (after.set, after.by, after.at_ms) = (!change.remove, "admin".into(), 1_764_102_226_197);
    if change.remove {
        after.read = "QUORUM".into();
    }
    after.read = change.read.clone().unwrap_or(after.read);
    after.write = change.write.clone().unwrap_or(after.write);
    after.ttl_ms = change.ttl_ms.unwrap_or(after.ttl_ms);
    let weak = after.write == "ONE";
    let warning = if weak { "reads may miss acknowledged writes" } else { "" };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let (held, missing) = if change.dry_run {
        (Vec::new(), Vec::new())
    } else {
        assert!(change.weak || !weak);
        assert!(change.version.is_some());
        assert_eq!(change.drive, after.n != before.n, "other copies are driven by the node");
        let all = change.drive;
        let missing = if all { names(&[]) } else { names(&["n3"]) };
        (names(if all { &["n1", "n2", "n3"] } else { &["n1", "n2"] }), missing)
    };
    KeyspaceChanged { before, after, warning: warning.into(), held, missing }
}

fn checkpoint(id: u32, name: &str) -> CheckpointFacts {
    CheckpointFacts {
        name: name.to_owned(),
        path: format!("/var/lib/ringdb/n{id}/checkpoints/{name}"),
        at_ms: 1_764_102_226_197,
        bytes: 3 << 20,
        own_bytes: 1 << 20,
        freed_bytes: 512 << 10,
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
        set: name == "4",
        version: u64::from(name == "4") * 2,
        by: if name == "4" { "ann".into() } else { String::new() },
        at_ms: if name == "4" { 1_764_000_000_000 } else { 0 },
        ttl_ms: if name == "4" { 5_400_000 } else { 0 },
        closed: false,
        weak: false,
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
