//! Facts: what a node knows of its process and its store, for administrators.
//!
//! What the system does not tell is 0.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use ring::keyspace::KeyspacePolicy;
use ring::{Scope, Setting};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use wire::operate::{KeyspaceFacts, NodeFacts, StoreFacts};

use crate::shared::Shared;
use crate::{clock, status};

/// All of it, now.
#[must_use]
pub fn of(shared: &Shared) -> NodeFacts {
    let (config, report, layout) = (&shared.config, shared.report(), shared.layout());
    let (disk_free_bytes, disk_bytes) = disk(&config.data_dir);
    let text = |path: &std::path::Path| path.display().to_string();
    NodeFacts {
        id: config.node.0,
        name: config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        incarnation: shared.incarnation.0,
        pid: std::process::id(),
        uptime_ms: clock::mono().since(shared.started).as_millis() as u64,
        wall_ms: clock::wall().0,
        cpu_us: cpu_us(),
        memory_bytes: memory_bytes(),
        files_open: std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() as u64),
        files_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        disk_free_bytes,
        disk_bytes,
        cores: u32::try_from(config.cores).unwrap_or(u32::MAX),
        data_dir: text(&config.data_dir),
        config_file: config.file.as_deref().map(text).unwrap_or_default(),
        redis_listen: config.redis.listen.map(|at| at.to_string()).unwrap_or_default(),
        peer_listen: config.peer_listen.to_string(),
        http_listen: config.http_listen.map(|a| a.to_string()).unwrap_or_default(),
        clients: shared.clients.len() as u64,
        clients_max: u64::from(shared.maxclients.load(Ordering::Relaxed)),
        ops_per_second: report.ops_per_second,
        unavailable: report.unavailable,
        unconfirmed: report.unconfirmed,
        overloaded: report.refused,
        read_repairs: report.read_repairs,
        clock_gaps: report.clock_gaps,
        not_ready: status::not_ready(shared),
        epoch: layout.epoch.0,
        store: store(shared, report.memtable_bytes),
        keyspaces: keyspaces(shared),
    }
}

fn store(shared: &Shared, memtable_bytes: u64) -> StoreFacts {
    let stats = shared.engine.stats();
    StoreFacts {
        tables: stats.tables.iter().sum::<usize>() as u64,
        table_bytes: stats.table_bytes.iter().sum(),
        blob_bytes: stats.blob_bytes,
        log_bytes: stats.log_bytes,
        memtable_bytes,
        cache_bytes: stats.cache_bytes as u64,
        level0_depth: stats.level0_depth as u64,
        debt: shared.engine.debt().worst(),
        damaged_places: shared.engine.damage().len() as u64,
        poisoned: stats.poisoned,
    }
}

fn keyspaces(shared: &Shared) -> Vec<KeyspaceFacts> {
    let (policies, register) = (shared.policies(), shared.register());
    let own = policies.own.iter().map(|(keyspace, _)| *keyspace);
    let all: BTreeSet<u16> = own.chain(policies.closed.iter().copied()).collect();
    let all = std::iter::once(Scope::Default).chain(all.into_iter().map(Scope::Keyspace));
    all.map(|scope| keyspace(scope, policies.of_scope(scope), register.get(scope))).collect()
}

/// What holds for a keyspace, and what an administrator did to it last.
#[must_use]
pub fn keyspace(scope: Scope, terms: &KeyspacePolicy, setting: Option<&Setting>) -> KeyspaceFacts {
    KeyspaceFacts {
        name: scope.to_string(),
        n: terms.n,
        read: terms.read.to_string(),
        write: terms.write.to_string(),
        durability: terms.durability.to_string(),
        conflict: terms.conflict.to_string(),
        weak: !terms.reads_meet_writes(),
        ttl_ms: terms.ttl_ms.unwrap_or(0),
        set: setting.is_some_and(|s| s.terms.is_some()),
        version: setting.map_or(0, |s| s.version),
        by: setting.map(|s| s.by.clone()).unwrap_or_default(),
        at_ms: setting.map_or(0, |s| s.at.0),
        closed: setting.is_some_and(|s| s.closed),
    }
}

/// Processor time of the whole process.
fn cpu_us() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (s, ns) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    s.unwrap_or(0) * 1_000_000 + ns.unwrap_or(0) / 1_000
}

/// What the system holds in memory for the process alone: without pages of files, which are its cache.
fn memory_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split_whitespace().map(|field| field.parse::<u64>().unwrap_or(0)).skip(1);
    let (resident, of_files) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    resident.saturating_sub(of_files) * rustix::param::page_size() as u64
}

/// Room and size of the disk under `dir`.
pub(crate) fn disk(dir: &std::path::Path) -> (u64, u64) {
    let Ok(disk) = rustix::fs::statvfs(dir) else { return (0, 0) };
    (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)
}
