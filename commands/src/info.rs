//! Info: INFO, in the sections and with the fields that clients and tools read.

use core::fmt::Write as _;

use crate::args;
use crate::connection::REDIS_VERSION;
use crate::host::NodeFacts;
use crate::stats::Stats;
use crate::turn::Turn;

/// A section's lines, each `name:value`.
type Lines = Vec<(String, String)>;

/// What INFO tells about.
struct Scene {
    facts: NodeFacts,
    stats: Stats,
    loading: bool,
}

/// A section: its name in lower case, its title, whether it is shown unasked, and its lines.
type Section = (&'static str, &'static str, bool, fn(&Scene) -> Lines);

const SECTIONS: [Section; 14] = [
    ("server", "Server", true, server),
    ("clients", "Clients", true, clients),
    ("memory", "Memory", true, memory),
    ("persistence", "Persistence", true, persistence),
    ("stats", "Stats", true, stats),
    ("replication", "Replication", true, replication),
    ("cpu", "CPU", true, cpu),
    ("modules", "Modules", true, |_| Vec::new()),
    ("commandstats", "Commandstats", false, commandstats),
    ("errorstats", "Errorstats", true, errorstats),
    ("cluster", "Cluster", true, cluster),
    ("keyspace", "Keyspace", true, keyspace),
    ("ring", "Ring", true, ring),
    ("crdt", "Crdt", true, |scene| scene.facts.crdt.clone()),
];

pub(crate) fn info(turn: &mut Turn<'_>, args: &[&[u8]]) {
    let (facts, stats) = (turn.host.node(), turn.host.stats());
    let scene = Scene { facts, stats, loading: turn.host.is_loading() };
    let mut text = String::new();
    for (name, title, unasked, lines) in SECTIONS {
        let asked = |word: &&[u8]| {
            args::is(word, name)
                || args::is(word, "all")
                || args::is(word, "everything")
                || (unasked && args::is(word, "default"))
        };
        if if args.len() == 1 { unasked } else { args[1..].iter().any(asked) } {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            write!(text, "# {title}\r\n").expect("a string takes any text");
            for (name, value) in lines(&scene) {
                write!(text, "{name}:{value}\r\n").expect("a string takes any text");
            }
        }
    }
    turn.text(&text);
}

fn lines<const N: usize>(pairs: [(&str, String); N]) -> Lines {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Bytes as people read them: `1.50M`.
fn human(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "K", "M", "G"] {
        if amount < 1024.0 {
            return if unit == "B" { format!("{bytes}B") } else { format!("{amount:.2}{unit}") };
        }
        amount /= 1024.0;
    }
    format!("{amount:.2}T")
}

fn server(Scene { facts: f, .. }: &Scene) -> Lines {
    lines([
        ("redis_version", REDIS_VERSION.to_owned()),
        ("redis_git_sha1", "00000000".to_owned()),
        ("redis_git_dirty", "0".to_owned()),
        ("redis_build_id", "0".to_owned()),
        ("redis_mode", "standalone".to_owned()),
        ("ring_version", f.version.clone()),
        ("os", f.os.clone()),
        ("arch_bits", usize::BITS.to_string()),
        ("multiplexing_api", "epoll".to_owned()),
        ("process_id", f.process_id.to_string()),
        ("run_id", f.run_id.clone()),
        ("tcp_port", f.tcp_port.to_string()),
        ("uptime_in_seconds", f.uptime_s.to_string()),
        ("uptime_in_days", (f.uptime_s / 86_400).to_string()),
        ("hz", "10".to_owned()),
        ("configured_hz", "10".to_owned()),
        ("executable", "ringd".to_owned()),
        ("config_file", f.config_file.clone()),
    ])
}

fn clients(Scene { facts: f, .. }: &Scene) -> Lines {
    lines([
        ("connected_clients", f.connected_clients.to_string()),
        ("cluster_connections", "0".to_owned()),
        ("maxclients", f.clients_max.to_string()),
        ("blocked_clients", "0".to_owned()),
        ("tracking_clients", "0".to_owned()),
    ])
}

fn memory(Scene { facts: f, .. }: &Scene) -> Lines {
    lines([
        ("used_memory", f.used_memory_bytes.to_string()),
        ("used_memory_human", human(f.used_memory_bytes)),
        ("used_memory_rss", f.rss_bytes.to_string()),
        ("used_memory_rss_human", human(f.rss_bytes)),
        ("used_memory_peak", f.peak_bytes.to_string()),
        ("used_memory_peak_human", human(f.peak_bytes)),
        ("total_system_memory", f.system_memory_bytes.to_string()),
        ("total_system_memory_human", human(f.system_memory_bytes)),
        ("used_memory_lua", "0".to_owned()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory_human", "0B".to_owned()),
        ("maxmemory_policy", "noeviction".to_owned()),
        ("mem_fragmentation_ratio", {
            let ratio = f.rss_bytes as f64 / f.used_memory_bytes.max(1) as f64;
            format!("{ratio:.2}")
        }),
        ("mem_allocator", "mimalloc".to_owned()),
    ])
}

fn persistence(Scene { facts: f, loading, .. }: &Scene) -> Lines {
    lines([
        ("loading", u8::from(*loading).to_string()),
        ("async_loading", "0".to_owned()),
        ("rdb_changes_since_last_save", "0".to_owned()),
        ("rdb_bgsave_in_progress", "0".to_owned()),
        ("rdb_last_save_time", f.last_sync_unix_s.to_string()),
        ("rdb_last_bgsave_status", "ok".to_owned()),
        ("aof_enabled", "1".to_owned()),
        ("aof_rewrite_in_progress", "0".to_owned()),
        ("aof_last_bgrewrite_status", "ok".to_owned()),
        ("aof_last_write_status", "ok".to_owned()),
        ("disk_bytes", f.disk_bytes.to_string()),
    ])
}

fn stats(Scene { facts: f, stats: s, .. }: &Scene) -> Lines {
    lines([
        ("total_connections_received", f.connections_received.to_string()),
        ("total_commands_processed", s.calls().to_string()),
        ("instantaneous_ops_per_sec", f.ops_per_sec.to_string()),
        ("total_net_input_bytes", f.input_bytes.to_string()),
        ("total_net_output_bytes", f.output_bytes.to_string()),
        ("rejected_connections", f.connections_rejected.to_string()),
        ("sync_full", "0".to_owned()),
        ("expired_keys", "0".to_owned()),
        ("evicted_keys", "0".to_owned()),
        ("keyspace_hits", s.hits.to_string()),
        ("keyspace_misses", s.misses.to_string()),
        ("pubsub_channels", "0".to_owned()),
        ("pubsub_patterns", "0".to_owned()),
        ("latest_fork_usec", "0".to_owned()),
        ("total_error_replies", s.errors().values().sum::<u64>().to_string()),
        ("cross_slot_tx_total", s.cross_slot_tx.to_string()),
    ])
}

fn replication(Scene { facts: f, .. }: &Scene) -> Lines {
    lines([
        ("role", "master".to_owned()),
        ("connected_slaves", "0".to_owned()),
        ("master_failover_state", "no-failover".to_owned()),
        ("master_replid", f.run_id.clone()),
        ("master_repl_offset", "0".to_owned()),
        ("second_repl_offset", "-1".to_owned()),
        ("repl_backlog_active", "0".to_owned()),
    ])
}

fn cpu(Scene { facts: f, .. }: &Scene) -> Lines {
    lines([
        ("used_cpu_sys", format!("{:.6}", f.cpu_system_s)),
        ("used_cpu_user", format!("{:.6}", f.cpu_user_s)),
        ("used_cpu_sys_children", "0.000000".to_owned()),
        ("used_cpu_user_children", "0.000000".to_owned()),
    ])
}

fn commandstats(Scene { stats: s, .. }: &Scene) -> Lines {
    s.commands()
        .map(|(name, c)| {
            let each = c.micros as f64 / c.calls.max(1) as f64;
            let value = format!(
                "calls={},usec={},usec_per_call={each:.2},rejected_calls={},failed_calls={}",
                c.calls, c.micros, c.rejected, c.failed
            );
            (format!("cmdstat_{name}"), value)
        })
        .collect()
}

fn errorstats(Scene { stats: s, .. }: &Scene) -> Lines {
    let line =
        |(code, count): (&String, &u64)| (format!("errorstat_{code}"), format!("count={count}"));
    s.errors().iter().map(line).collect()
}

fn cluster(_: &Scene) -> Lines {
    lines([("cluster_enabled", "0".to_owned())])
}

fn keyspace(Scene { facts: f, .. }: &Scene) -> Lines {
    let line = |(keyspace, keys, expires): &(u16, u64, u64)| {
        (format!("db{keyspace}"), format!("keys={keys},expires={expires},avg_ttl=0"))
    };
    f.keyspaces.iter().filter(|(_, keys, _)| *keys > 0).map(line).collect()
}

fn ring(Scene { facts: f, .. }: &Scene) -> Lines {
    let mut all = lines([
        ("cluster", f.cluster.clone()),
        ("node", f.name.clone()),
        ("node_id", f.id.to_string()),
        ("epoch", f.epoch.to_string()),
        ("members", f.members.to_string()),
        ("members_up", f.members_up.to_string()),
        ("copies", f.copies.to_string()),
    ]);
    all.extend(f.ring.iter().cloned());
    all
}
