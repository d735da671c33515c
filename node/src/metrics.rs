//! Metrics: what a core counts, and all of it as Prometheus reads it.
//!
//! A core counts in plain numbers of its own and publishes a copy once a second. No label ever
//! holds a key, a client or anything else without bound.

use core::time::Duration;
use std::fmt::Write as _;

use commands::Stats;

use crate::mesh::Counters;
use crate::shared::Shared;
use crate::tally::Counted;

/// Upper bounds of the duration histogram, in microseconds: 100 µs to 10 s.
const BUCKETS_US: [u64; 16] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

/// What a request does, as far as its duration is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It only reads.
    Read,
    /// It writes.
    Write,
    /// It is a share of a read that its client gathers, and not the one with the value: that one counts as the read.
    Share,
    /// It concerns many keys.
    Whole,
}

/// How often requests took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS_US.len() + 1],
    sum_us: u64,
}

impl Histogram {
    /// One more request.
    pub fn record(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[BUCKETS_US.partition_point(|bound| *bound < us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.sum_us += other.sum_us;
    }

    fn write(&self, out: &mut String, name: &str, label: &str) {
        let mut sum = 0;
        for (bound, count) in BUCKETS_US.iter().zip(self.counts) {
            sum += count;
            let seconds = *bound as f64 / 1e6;
            line(out, name, &format!("_bucket{{{label},le=\"{seconds}\"}}"), sum);
        }
        sum += self.counts[BUCKETS_US.len()];
        line(out, name, &format!("_bucket{{{label},le=\"+Inf\"}}"), sum);
        let seconds = self.sum_us as f64 / 1e6;
        put(out, format_args!("ringdb_{name}_sum{{{label}}} {seconds}\n"));
        line(out, name, &format!("_count{{{label}}}"), sum);
    }
}

/// What a core says of itself once a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CoreReport {
    /// By command.
    pub stats: Stats,
    /// How long reads took.
    pub reads: Histogram,
    /// How long writes took.
    pub writes: Histogram,
    /// How long shares of reads took, but for those with the value.
    pub shares: Histogram,
    /// How long requests about many keys took.
    pub whole: Histogram,
    /// Requests answered with an error, by kind.
    pub unavailable: u64,
    /// Writes that too few replicas confirmed in time.
    pub unconfirmed: u64,
    /// Requests refused because too much was asked.
    pub refused: u64,
    /// Answers that came after their deadline and were not given.
    pub late: u64,
    /// Requests that are not answered yet.
    pub in_flight: u64,
    /// How many there may be.
    pub in_flight_max: u64,
    /// Cores that refuse requests which waited too long.
    pub shedding: u64,
    /// Writes whose acknowledgement was held back since the engine was behind.
    pub held_writes: u64,
    /// Commits of the log.
    pub commits: u64,
    /// Turns that did something.
    pub turns: u64,
    /// Messages of peers.
    pub messages_in: u64,
    /// Messages to peers.
    pub messages_out: u64,
    /// Acknowledgements of writes that clients were told of here, not by the coordinator.
    pub direct_acks: u64,
    /// Messages to peers that could not be sent.
    pub messages_dropped: u64,
    /// Bytes read from Redis clients.
    pub bytes_in: u64,
    /// Bytes written to Redis clients.
    pub bytes_out: u64,
    /// What the mesh counted, on core 0.
    pub mesh: Counters,
    /// Clients whose TLS could not be opened.
    pub tls_failed: u64,
    /// Connections of Redis clients since the start.
    pub connections: u64,
    /// Bytes in the memtable.
    pub memtable_bytes: u64,
    /// Commands a second, of late.
    pub ops_per_second: u64,
    /// Reads that repaired a replica.
    pub read_repairs: u64,
    /// Requests of sessions for which the coordinator had not seen enough by itself.
    pub reads_behind: u64,
    /// Writes that left their keys with many concurrent values.
    pub many_siblings: u64,
    /// Gaps in slot clocks: writes known to be missing here.
    pub clock_gaps: u64,
    /// The keys that it keeps.
    pub keys: Counted,
}

impl CoreReport {
    /// The histogram of a class.
    pub fn histogram(&mut self, class: Class) -> &mut Histogram {
        match class {
            Class::Read => &mut self.reads,
            Class::Write => &mut self.writes,
            Class::Share => &mut self.shares,
            Class::Whole => &mut self.whole,
        }
    }

    /// Adds what another core says.
    pub fn add(&mut self, other: &Self) {
        self.stats.add(&other.stats);
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
        self.shares.add(&other.shares);
        self.whole.add(&other.whole);
        self.keys.add(&other.keys);
        // One core has the mesh.
        if other.mesh != Counters::default() {
            self.mesh = other.mesh;
        }
        for (mine, theirs) in [
            (&mut self.unavailable, other.unavailable),
            (&mut self.unconfirmed, other.unconfirmed),
            (&mut self.refused, other.refused),
            (&mut self.late, other.late),
            (&mut self.in_flight, other.in_flight),
            (&mut self.in_flight_max, other.in_flight_max),
            (&mut self.shedding, other.shedding),
            (&mut self.held_writes, other.held_writes),
            (&mut self.commits, other.commits),
            (&mut self.turns, other.turns),
            (&mut self.messages_in, other.messages_in),
            (&mut self.messages_out, other.messages_out),
            (&mut self.messages_dropped, other.messages_dropped),
            (&mut self.direct_acks, other.direct_acks),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.tls_failed, other.tls_failed),
            (&mut self.connections, other.connections),
            (&mut self.memtable_bytes, other.memtable_bytes),
            (&mut self.ops_per_second, other.ops_per_second),
            (&mut self.read_repairs, other.read_repairs),
            (&mut self.reads_behind, other.reads_behind),
            (&mut self.many_siblings, other.many_siblings),
            (&mut self.clock_gaps, other.clock_gaps),
        ] {
            *mine += theirs;
        }
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes any text");
}

fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    put(out, format_args!("ringdb_{name}{labels} {value}\n"));
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    put(out, format_args!("# HELP ringdb_{name} {help}\n# TYPE ringdb_{name} {kind}\n"));
}

fn single(out: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    head(out, name, kind, help);
    line(out, name, "", value);
}

/// All metrics of a node, as Prometheus reads them.
#[must_use]
pub fn text(shared: &Shared) -> String {
    let mut out = String::with_capacity(8 << 10);
    let report = shared.report();
    let out = &mut out;
    head(out, "build_info", "gauge", "The version of the program.");
    line(out, "build_info", &format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1);
    head(out, "requests_total", "counter", "Commands carried out, by command.");
    for (name, count) in report.stats.commands() {
        line(
            out,
            "requests_total",
            &format!("{{command=\"{name}\",result=\"ok\"}}"),
            count.calls - count.failed.min(count.calls),
        );
        line(
            out,
            "requests_total",
            &format!("{{command=\"{name}\",result=\"error\"}}"),
            count.failed + count.rejected,
        );
    }
    head(out, "request_duration_seconds", "histogram", "From a request to its answer.");
    for (class, histogram) in [
        ("read", &report.reads),
        ("write", &report.writes),
        ("share", &report.shares),
        ("whole", &report.whole),
    ] {
        histogram.write(out, "request_duration_seconds", &format!("class=\"{class}\""));
    }
    let shed = report.stats.errors().get("OVERLOADED").copied().unwrap_or(0);
    let overloaded = report.refused.max(shed);
    head(out, "unavailable_total", "counter", "Requests that were not done, by reason.");
    for (reason, count) in [
        ("unavailable", report.unavailable),
        ("unconfirmed", report.unconfirmed),
        ("overloaded", overloaded),
        ("late", report.late),
    ] {
        line(out, "unavailable_total", &format!("{{reason=\"{reason}\"}}"), count);
    }
    let in_flight = "Requests that are not answered yet.";
    single(out, "requests_in_flight", "gauge", in_flight, report.in_flight);
    let in_flight_max = "How many may be in flight before more are refused.";
    single(out, "requests_in_flight_limit", "gauge", in_flight_max, report.in_flight_max);
    let shedding = "Cores that refuse requests which waited too long.";
    single(out, "cores_shedding", "gauge", shedding, report.shedding);
    let clients = shared.clients.len() as u64;
    single(out, "connections", "gauge", "Redis clients now.", clients);
    single(
        out,
        "connections_total",
        "counter",
        "Redis clients since the start.",
        report.connections,
    );
    let rejected = shared.rejected.load(std::sync::atomic::Ordering::Relaxed);
    single(out, "connections_rejected_total", "counter", "Redis clients refused.", rejected);
    let failed = "Redis clients with whom no TLS came about.";
    single(out, "client_tls_failures_total", "counter", failed, report.tls_failed);
    head(
        out,
        "acl_denied_total",
        "counter",
        "What was refused to users and clients, by the right they lack.",
    );
    for (reason, count) in shared.users.denied_by_reason() {
        line(out, "acl_denied_total", &format!("{{reason=\"{reason}\"}}"), count);
    }
    single(
        out,
        "client_input_bytes_total",
        "counter",
        "Bytes from Redis clients.",
        report.bytes_in,
    );
    single(
        out,
        "client_output_bytes_total",
        "counter",
        "Bytes to Redis clients.",
        report.bytes_out,
    );
    single(
        out,
        "read_repairs_total",
        "counter",
        "Reads that repaired a replica.",
        report.read_repairs,
    );
    single(
        out,
        "reads_behind_total",
        "counter",
        "Requests of sessions that wanted more than their replica had seen: others were asked.",
        report.reads_behind,
    );
    single(
        out,
        "many_siblings_total",
        "counter",
        "Writes that left their keys with 16 concurrent values or more: nobody resolves them.",
        report.many_siblings,
    );
    single(out, "slot_clock_gaps", "gauge", "Writes known to be missing here.", report.clock_gaps);
    single(out, "log_commits_total", "counter", "Writes of the log.", report.commits);
    single(out, "turns_total", "counter", "Turns of all cores.", report.turns);
    head(out, "peer_messages_total", "counter", "Messages between nodes, by direction.");
    for (direction, count) in [
        ("in", report.messages_in),
        ("out", report.messages_out),
        ("dropped", report.messages_dropped),
    ] {
        line(out, "peer_messages_total", &format!("{{direction=\"{direction}\"}}"), count);
    }
    let direct =
        "Acknowledgements of writes that native clients were told of by this replica itself.";
    single(out, "direct_acks_total", "counter", direct, report.direct_acks);
    let held = "Writes held back while the engine was behind.";
    single(out, "writes_held_total", "counter", held, report.held_writes);
    if let Some(asked) = crate::allocator::counts() {
        allocations(out, asked);
    }
    let slow = "Commands that took longer than log.slow_us.";
    single(out, "slow_commands_total", "counter", slow, shared.slow.count());
    peers(out, &report.mesh);
    engine(out, shared, report.memtable_bytes);
    cluster(out, shared);
    std::mem::take(out)
}

fn allocations(out: &mut String, asked: crate::allocator::Counts) {
    single(out, "allocations_total", "counter", "Pieces of memory asked for.", asked.allocations);
    let name = "reallocations_total";
    single(out, name, "counter", "Pieces of memory made longer or shorter.", asked.reallocations);
    single(out, "allocated_bytes_total", "counter", "Bytes of memory asked for.", asked.bytes);
}

fn peers(out: &mut String, mesh: &Counters) {
    let refused = "Connections over QUIC that were turned away, by what did not suit.";
    head(out, "peer_refused_total", "counter", refused);
    for (reason, count) in [
        ("role", mesh.refused_role),
        ("cluster", mesh.refused_cluster),
        ("unknown", mesh.refused_unknown),
        ("second", mesh.refused_second),
        ("other", mesh.refused_other),
    ] {
        line(out, "peer_refused_total", &format!("{{reason=\"{reason}\"}}"), count);
    }
    let failed = "Handshakes that failed, those with certificates of another authority among them.";
    single(out, "peer_handshake_failures_total", "counter", failed, mesh.handshakes_failed);
    let failed = "Attempts to reach a peer that failed.";
    single(out, "peer_dial_failures_total", "counter", failed, mesh.dials_failed);
}

fn engine(out: &mut String, shared: &Shared, memtable_bytes: u64) {
    let stats = shared.engine.stats();
    head(out, "engine_bytes", "gauge", "Bytes that the engine holds, by place.");
    for (place, bytes) in [
        ("tables", stats.table_bytes.iter().sum()),
        ("blobs", stats.blob_bytes),
        ("log", stats.log_bytes),
        ("memtable", memtable_bytes),
        ("cache", stats.cache_bytes as u64),
    ] {
        line(out, "engine_bytes", &format!("{{place=\"{place}\"}}"), bytes);
    }
    let tables = stats.tables.iter().sum::<usize>() as u64;
    single(out, "engine_tables", "gauge", "Tables.", tables);
    single(
        out,
        "engine_level0_depth",
        "gauge",
        "Tables that a read may meet in level 0.",
        stats.level0_depth as u64,
    );
    single(out, "engine_pending_bytes", "gauge", "Bytes to be compacted.", stats.pending_bytes);
    let behind = "How far flush and compaction are behind; at 1 writes are refused.";
    head(out, "engine_debt_ratio", "gauge", behind);
    let debt = shared.engine.debt().worst();
    put(out, format_args!("ringdb_engine_debt_ratio {debt}\n"));
    let damaged = shared.engine.damage().len() as u64;
    single(out, "engine_damaged_places", "gauge", "Places whose rows are lost here.", damaged);
    let scrub = shared.engine.scrub();
    single(out, "scrub_rounds_total", "counter", "Times that all at rest was read.", scrub.rounds);
    single(out, "scrub_bytes", "gauge", "Bytes read in this round.", scrub.bytes);
    single(out, "scrub_round_bytes", "gauge", "Bytes that this round reads.", scrub.bytes_total);
    let bad = scrub.bad_blocks;
    single(out, "scrub_bad_blocks_total", "counter", "Damaged blocks that were read.", bad);
    single(out, "engine_poisoned", "gauge", "1 if writes are refused.", u64::from(stats.poisoned));
}

fn cluster(out: &mut String, shared: &Shared) {
    let (layout, view) = (shared.layout(), shared.members());
    let up = view.members.values().filter(|m| m.up).count() as u64;
    single(out, "up_peers", "gauge", "Members that seem to be up, this one included.", up);
    single(out, "members", "gauge", "Members of the layout.", layout.members.len() as u64);
    single(out, "ring_epoch", "gauge", "The version of the layout.", layout.epoch.0);
    let incarnation = u64::from(shared.incarnation.0);
    single(out, "incarnation", "gauge", "This node's life.", incarnation);
    let ready = u64::from(!shared.is_loading());
    single(out, "ready", "gauge", "1 if this node serves.", ready);
    head(out, "peer_state", "gauge", "1 if the member is up and ready.");
    for (node, member) in &view.members {
        let Some(name) = layout.member(*node).map(|m| &m.name) else { continue };
        let ready = member.up && member.state == ring::liveness::NodeState::Ready;
        line(out, "peer_state", &format!("{{peer=\"{name}\"}}"), u64::from(ready));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_upwards() {
        let mut histogram = Histogram::default();
        for us in [50, 100, 101, 20_000_000] {
            histogram.record(Duration::from_micros(us));
        }
        let mut out = String::new();
        histogram.write(&mut out, "x", "class=\"read\"");
        assert!(out.starts_with("ringdb_x_bucket{class=\"read\",le=\"0.0001\"} 2\n"), "{out}");
        assert!(out.contains("le=\"0.0002\"} 3\n") && out.contains("le=\"10\"} 3\n"), "{out}");
        assert!(out.ends_with("le=\"+Inf\"} 4\nringdb_x_sum{class=\"read\"} 20.000251\nringdb_x_count{class=\"read\"} 4\n"), "{out}");
    }
}
