//! What an administrator may ask of one node, and what it says: facts of its process, its own copy of a
//! key, its busiest and largest keys, and that it should leave.
//!
//! Only a certificate of role admin may ask these; each is answered by the node that is asked, of
//! itself. Ids are numbers, sizes bytes, times milliseconds unless the name says otherwise. Every
//! field has a default, so that either side may be older than the other.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A request of an administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminRequest {
    /// What the node knows of its process and its store. Answered with `Facts`.
    Facts,
    /// Its metrics, as Prometheus reads them. Answered with `Text`.
    Metrics,
    /// Its settings and where each was set, without secrets. Answered with `Text`.
    Settings,
    /// Its own copy of a key, whoever holds others. Answered with `Copy`.
    Copy {
        /// The key.
        key: Bytes,
        /// The database.
        #[serde(default)]
        keyspace: u16,
    },
    /// The keys that were asked of it most often lately. Answered with `Hot`.
    Hot,
    /// The largest of its keys from a place on; a part of them at a time. Answered with `Big`.
    Big {
        /// The slot to go on in.
        slot: u16,
        /// The row to go on at, as the last answer gave it; empty for the slot's first. Opaque.
        #[serde(default)]
        from: Bytes,
        /// How many of the largest to name.
        count: u16,
    },
    /// Other terms for a keyspace, on all nodes. Answered with `Keyspace`, once all members that seem to be
    /// up have them on their disks.
    Keyspace(Box<KeyspaceChange>),
    /// Whether its store holds a key of a database, from a slot on; a part at a time. Answered with `Empty`.
    Empty {
        /// The database.
        keyspace: u16,
        /// The slot to go on in.
        slot: u16,
    },
    /// The checkpoints that it keeps. Answered with `Checkpoints`.
    Checkpoints,
    /// Make a checkpoint of its store, under this name in its own data directory. Answered with
    /// `Checkpoints`: the one that was made.
    MakeCheckpoint {
        /// Its name.
        name: String,
    },
    /// Remove a checkpoint. Answered with `Checkpoints`: the one that is gone.
    RemoveCheckpoint {
        /// Its name.
        name: String,
    },
    /// Take no more requests, put everything on disk, and end. Answered with `Draining`.
    Drain,
}

/// What a node says to an administrator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminReply {
    /// What it knows of itself.
    Facts(Box<NodeFacts>),
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// Its own copy of a key.
    Copy(KeyCopy),
    /// Its busiest keys.
    Hot(HotKeys),
    /// Some of its largest keys.
    Big(BigKeys),
    /// The terms of a keyspace were changed, or would be.
    Keyspace(Box<KeyspaceChanged>),
    /// Whether some slots hold a key of a database.
    Empty(Emptiness),
    /// Checkpoints, by their names.
    Checkpoints(Vec<CheckpointFacts>),
    /// It drains, and ends then.
    Draining,
}

/// What a node knows of its process and its store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFacts {
    /// Its number in the layout.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// The version of its program.
    pub version: String,
    /// Which of its lives this is.
    pub incarnation: u32,
    /// Its process.
    pub pid: u32,
    /// How long it runs.
    pub uptime_ms: u64,
    /// Its clock: milliseconds since 1970.
    pub wall_ms: u64,
    /// Processor time of the process since it began, in microseconds.
    pub cpu_us: u64,
    /// Memory that it holds.
    pub memory_bytes: u64,
    /// Files and sockets that it has open.
    pub files_open: u64,
    /// How many it may.
    pub files_max: u64,
    /// Room on the disk of its data, for it to use.
    pub disk_free_bytes: u64,
    /// The size of that disk.
    pub disk_bytes: u64,
    /// Threads that serve.
    pub cores: u32,
    /// Where its data are.
    pub data_dir: String,
    /// The file of its settings; empty if there is none.
    pub config_file: String,
    /// Where Redis clients connect.
    pub redis_listen: String,
    /// Where peers and native clients connect.
    pub peer_listen: String,
    /// Where health and metrics are served; empty if nowhere.
    pub http_listen: String,
    /// Redis clients now.
    pub clients: u64,
    /// Redis clients at most.
    pub clients_max: u64,
    /// Commands of Redis clients in the last second.
    pub ops_per_second: u64,
    /// Requests for which too few replicas were up, since the start.
    pub unavailable: u64,
    /// Writes that too few replicas confirmed in time, since the start.
    pub unconfirmed: u64,
    /// Requests refused because too much was under way, since the start.
    pub overloaded: u64,
    /// Reads that repaired a replica, since the start.
    pub read_repairs: u64,
    /// Writes that are known to be missing here.
    pub clock_gaps: u64,
    /// Why it should get no traffic; nothing if it should.
    pub not_ready: Vec<String>,
    /// The version of its layout.
    pub epoch: u64,
    /// The store.
    pub store: StoreFacts,
    /// The policy of databases that have none of their own comes first, as `default`.
    pub keyspaces: Vec<KeyspaceFacts>,
}

/// What a node knows of its store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreFacts {
    /// Tables.
    pub tables: u64,
    /// Bytes in tables.
    pub table_bytes: u64,
    /// Bytes of large values beside them.
    pub blob_bytes: u64,
    /// Bytes of log.
    pub log_bytes: u64,
    /// Bytes in memory that are not in tables yet.
    pub memtable_bytes: u64,
    /// Bytes of blocks in memory.
    pub cache_bytes: u64,
    /// Tables that a read may meet in level 0.
    pub level0_depth: u64,
    /// How far flush and compaction are behind: 0 not at all, 1 as far as they may.
    pub debt: f64,
    /// Places whose rows are lost here.
    pub damaged_places: u64,
    /// The disk failed; writes are refused.
    pub poisoned: bool,
}

/// How the keys of a keyspace are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyspaceFacts {
    /// `default`, or the number of a database.
    pub name: String,
    /// Copies.
    pub n: u8,
    /// The level of reads that name none.
    pub read: String,
    /// The level of writes that name none.
    pub write: String,
    /// What an acknowledged write survives.
    pub durability: String,
    /// What is shown of concurrent values.
    pub conflict: String,
    /// How long keys live whose writers say nothing of it; 0: for ever.
    pub ttl_ms: u64,
    /// Whether an administrator set these, while the cluster ran; otherwise they are the configuration's.
    pub set: bool,
    /// How often its terms were set or given back; 0: never.
    pub version: u64,
    /// Who did that last.
    pub by: String,
    /// When: milliseconds since 1970, by the clock of the node that was asked.
    pub at_ms: u64,
    /// It takes no requests, because its number of copies is being changed.
    pub closed: bool,
    /// Reads may miss acknowledged writes: R + W is not more than N.
    pub weak: bool,
}

/// What an administrator wants of a keyspace. What is not named stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyspaceChange {
    /// `default`, or the number of a database.
    pub name: String,
    /// Copies.
    pub n: Option<u8>,
    /// The level of reads that name none.
    pub read: Option<String>,
    /// The level of writes that name none.
    pub write: Option<String>,
    /// What an acknowledged write survives.
    pub durability: Option<String>,
    /// What is shown of concurrent values.
    pub conflict: Option<String>,
    /// How long keys live whose writers say nothing of it; 0: for ever.
    pub ttl_ms: Option<u64>,
    /// Instead of all these: follow the configuration again.
    pub remove: bool,
    /// Instead of all these: take no requests of it from now on. Any other change opens it again.
    pub close: bool,
    /// Of a keyspace closed by `close`: it comes from whoever closed it, at `version`, and opens it with as
    /// many copies as it has. Others open it only when that was a while ago.
    pub finish: bool,
    /// If that is another number of copies: the node that is asked closes the keyspace, makes sure that no
    /// member holds a key of it, and opens it with the new number, or as it was. It answers then, and
    /// goes on though whoever asked is gone.
    pub drive: bool,
    /// Only say what would be.
    pub dry_run: bool,
    /// It is meant that reads may miss writes from then on.
    pub weak: bool,
    /// Refuse unless this is the version now.
    pub version: Option<u64>,
}

/// What became of such a wish.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyspaceChanged {
    /// Its terms before.
    pub before: KeyspaceFacts,
    /// And now; or as they would be.
    pub after: KeyspaceFacts,
    /// Why reads may miss writes that were acknowledged, and did not before; empty if they do not.
    pub warning: String,
    /// The names of the members that have it on their disks; of none if it was only asked what would be.
    pub held: Vec<String>,
    /// The names of those that have not: they hear of it before they serve again.
    pub missing: Vec<String>,
}

/// What a node says of some slots of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Emptiness {
    /// The first key found; without it there is none.
    pub key: Option<Bytes>,
    /// Requests of the database that may write are still under way on the core of these slots.
    pub busy: bool,
    /// The slot after them, if there is one.
    pub next: Option<u16>,
}

/// A checkpoint that a node keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointFacts {
    /// Its name.
    pub name: String,
    /// Where it is, on the node's machine.
    pub path: String,
    /// When it was made: milliseconds since 1970, by the node's clock.
    pub at_ms: u64,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Of these, bytes that the store does not have too.
    pub own_bytes: u64,
    /// Of these, bytes that removing it would give back: neither the store nor another checkpoint has them.
    pub freed_bytes: u64,
}

/// A node's own copy of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyCopy {
    /// The values that it would show, newest first.
    pub values: Vec<CopyValue>,
    /// The counter's sum in these values' place, as text, if it is a counter.
    pub counter: Option<String>,
    /// When it expires: milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// Bytes of the whole record, dots and all.
    pub record_bytes: u64,
    /// A fingerprint of what is live: equal where the state is.
    pub digest: String,
    /// How long the node took to read it, in microseconds.
    pub read_us: u64,
}

/// One of the values of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CopyValue {
    /// The node that wrote it.
    pub node: u32,
    /// In which of its lives.
    pub incarnation: u32,
    /// The number of that write among those of its life in the slot.
    pub seq: u64,
    /// When, by the writer's hybrid clock: milliseconds since 1970.
    pub at_ms: u64,
    /// The length of the value.
    pub bytes: u64,
}

/// A node's busiest keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HotKeys {
    /// For how long it has looked.
    pub window_ms: u64,
    /// One request in so many was looked at.
    pub one_in: u32,
    /// How many were looked at.
    pub samples: u64,
    /// The keys, the busiest first.
    pub keys: Vec<HotKey>,
}

/// A busy key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HotKey {
    /// The database.
    pub keyspace: u16,
    /// The key.
    pub key: Bytes,
    /// Samples that met it; may be too many by `error`.
    pub samples: u64,
    /// Of these, writes.
    pub writes: u64,
    /// By how much the samples may be too many.
    pub error: u64,
}

/// Some of a node's largest keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BigKeys {
    /// The largest of those that were read.
    pub keys: Vec<BigKey>,
    /// How many keys were read.
    pub read: u64,
    /// Where to go on; without it that was all.
    pub next: Option<(u16, Bytes)>,
}

/// A large key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BigKey {
    /// The database.
    pub keyspace: u16,
    /// The key.
    pub key: Bytes,
    /// The bytes of its record: values, dots and all.
    pub bytes: u64,
    /// How many concurrent values it holds.
    pub values: u64,
}
