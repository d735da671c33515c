//! Keys: every setting there is, in one table: the file, the flags and the environment are read by
//! it, and `ringd config print` shows it.

/// What a setting's text must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Any text.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Flag,
    /// A list of tables: the members of the cluster.
    Members,
    /// A table of names and passwords.
    Users,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Where it stands: `section.key`.
    pub path: &'static str,
    /// What its text must be.
    pub shape: Shape,
    /// What holds if nobody says otherwise; empty: nothing.
    pub default: &'static str,
    /// What it does, for `--help`.
    pub help: &'static str,
}

const fn key(path: &'static str, shape: Shape, default: &'static str, help: &'static str) -> Key {
    Key { path, shape, default, help }
}

/// All settings, in the order in which they are printed.
pub const KEYS: &[Key] = &[
    key("node.name", Shape::Text, "n1", "This node's name among the members"),
    key("node.data_dir", Shape::Text, "./ringdb-data", "Where its data are kept"),
    key("node.cores", Shape::Number, "", "Cores to use (1 to 64); all of the machine if not given"),
    key("cluster.id", Shape::Text, "", "The cluster's id, 32 hexadecimal digits"),
    key("cluster.name", Shape::Text, "ringdb", "The cluster's name, as its certificates say it"),
    key("cluster.members", Shape::Members, "", "All members, as an array of tables"),
    key(
        "redis.listen",
        Shape::Text,
        "127.0.0.1:6379",
        "Where Redis clients connect; empty: nowhere",
    ),
    key(
        "redis.tls_listen",
        Shape::Text,
        "",
        "Where Redis clients connect with TLS; empty: nowhere",
    ),
    key("redis.tls_cert", Shape::Text, "", "The certificate that they see (PEM, with its chain)"),
    key("redis.tls_key", Shape::Text, "", "Its private key (PEM)"),
    key("redis.tls_ca", Shape::Text, "", "The authority of clients' certificates (PEM)"),
    key(
        "redis.tls_clients",
        Shape::Text,
        "",
        "Certificates of clients: no, optional or required; whom one names needs no password",
    ),
    key("redis.requirepass", Shape::Text, "", "The password of the user `default`"),
    key(
        "redis.users",
        Shape::Users,
        "",
        "Further users: names, each with a password, or with { password, rules }",
    ),
    key("redis.acl_file", Shape::Text, "", "Users in Redis's ACL format; ACL SAVE writes it"),
    key("redis.maxclients", Shape::Number, "10000", "Redis clients at a time"),
    key(
        "redis.queue_max_ms",
        Shape::Number,
        "400",
        "Requests are refused while all wait for longer than this; 0: never",
    ),
    key("redis.idle_timeout_s", Shape::Number, "0", "Idle clients are closed after this; 0: never"),
    key("redis.allow_flush", Shape::Flag, "false", "Whether FLUSHDB and FLUSHALL are served"),
    key("redis.cross_slot", Shape::Text, "allow", "EXEC across slots: allow or error"),
    key(
        "peer.listen",
        Shape::Text,
        "127.0.0.1:7400",
        "Where peers and native clients connect (UDP)",
    ),
    key("http.listen", Shape::Text, "127.0.0.1:7480", "Metrics and health; empty for none"),
    key("tls.ca", Shape::Text, "", "The cluster's root certificate (PEM)"),
    key("tls.cert", Shape::Text, "", "This node's certificate (PEM)"),
    key("tls.key", Shape::Text, "", "Its private key (PEM)"),
    key("keyspace.n", Shape::Number, "3", "Copies of each key"),
    key("keyspace.read", Shape::Text, "QUORUM", "Default level of reads"),
    key("keyspace.write", Shape::Text, "QUORUM", "Default level of writes"),
    key(
        "keyspace.durability",
        Shape::Text,
        "os",
        "What an acknowledged write survives: os or sync",
    ),
    key("keyspace.conflict", Shape::Text, "lww", "Concurrent values: lww or siblings"),
    key("keyspace.ttl_s", Shape::Number, "0", "How long keys live that are not told; 0: for ever"),
    key(
        "engine.memtable_bytes",
        Shape::Number,
        "67108864",
        "Memory of a core before it is flushed",
    ),
    key("engine.log_segment_bytes", Shape::Number, "67108864", "Size of one file of the log"),
    key("engine.log_retain_bytes", Shape::Number, "268435456", "Log kept for peers that were away"),
    key("engine.block_cache_bytes", Shape::Number, "134217728", "Memory for blocks of tables"),
    key(
        "engine.compaction_bytes_per_second",
        Shape::Number,
        "0",
        "Read by compactions that are not behind; 0: no limit",
    ),
    key(
        "engine.large_value_bytes",
        Shape::Number,
        "4096",
        "Values from this size on stand beside the tables; 0: none",
    ),
    key(
        "engine.scrub_bytes_per_second",
        Shape::Number,
        "1048576",
        "How fast what is at rest is read again and verified; 0: not at all",
    ),
    key("log.slow_us", Shape::Number, "100000", "Commands that take as long are logged; 0: none"),
    key("log.level", Shape::Text, "info", "error, warn, info, debug, or per-module directives"),
];

/// The fields of `[keyspace.db.N]`: what one database has instead of the defaults.
pub const DB_FIELDS: [&str; 6] = ["n", "read", "write", "durability", "conflict", "ttl_s"];

/// The fields of a member.
pub const MEMBER_FIELDS: [&str; 8] =
    ["name", "id", "zone", "region", "capacity", "peer", "redis", "http"];

impl Key {
    /// The key at `path`.
    #[must_use]
    pub fn at(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|k| k.path == path)
    }

    /// Its flag, without the dashes.
    #[must_use]
    pub fn flag(&self) -> String {
        self.path.replace(['.', '_'], "-")
    }

    /// Its variable in the environment.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("RINGDB__{}", self.path.replace('.', "__").to_uppercase())
    }
}

/// The known name that `unknown` most likely means.
#[must_use]
pub fn did_you_mean<'a>(
    unknown: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let far_max = 1 + unknown.len() / 4;
    let known = known.into_iter().map(|k| (distance(unknown, k), k));
    known.filter(|(far, _)| *far <= far_max).min().map(|(_, k)| k)
}

/// How many letters must be changed, added, removed or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let differs = usize::from(a[i - 1] != b[j - 1]);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let swap = if swapped { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                (rows[i - 1][j] + 1)
                    .min(rows[i][j - 1] + 1)
                    .min(rows[i - 1][j - 1] + differs)
                    .min(swap)
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let known = || KEYS.iter().map(|k| k.path);
        assert_eq!(did_you_mean("redis.maxclient", known()), Some("redis.maxclients"));
        assert_eq!(did_you_mean("node.dat_adir", known()), Some("node.data_dir"));
        assert_eq!(did_you_mean("something.else", known()), None);
    }
}
