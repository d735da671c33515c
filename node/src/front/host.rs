//! The host: what a session asks of the node beside keys.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use commands::acl::{Account, Accounts, Denial, Hash};
use commands::{
    ClientFacts, ClientLine, ConfigTable, DenialLine, Host, KillFilter, NodeFacts, Slow, SlowLine,
    Stats, User,
};
use replication::row::Keyspace;
use ring::{NodeId, Now, Slot};

use crate::shared::Shared;
use crate::turn::Letter;
use crate::{clock, logging};

/// The node as the sessions of one core see it.
pub struct NodeHost {
    shared: Arc<Shared>,
    core: usize,
    stats: Stats,
    stats_epoch: u64,
    /// For how long the commands that are being fed have waited, and whether they are refused.
    pub fed: Fed,
}

/// What the core thinks of the commands that it is about to feed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fed {
    /// For how long they have waited.
    pub waited: Duration,
    /// Commands on keys are refused: when to come back, in milliseconds.
    pub overload: Option<u32>,
}

impl NodeHost {
    /// The host of one core.
    #[must_use]
    pub fn new(shared: Arc<Shared>, core: usize) -> Self {
        Self { shared, core, stats: Stats::default(), stats_epoch: 0, fed: Fed::default() }
    }

    /// What was counted on this core.
    #[must_use]
    pub const fn own_stats(&self) -> &Stats {
        &self.stats
    }

    /// Starts the counters again if another core was told to.
    pub fn follow_reset(&mut self) {
        let epoch = self.shared.stats_epoch.load(Ordering::Relaxed);
        if self.stats_epoch != epoch {
            self.stats_epoch = epoch;
            self.stats = Stats::default();
        }
    }
}

impl Host for NodeHost {
    fn authenticate(&mut self, user: &str, password: &[u8]) -> Option<User> {
        let hash = certs::sha256(password);
        let accounts = self.shared.users.accounts();
        let fits = accounts.get(user).is_some_and(|account| account.takes(&hash));
        fits.then(|| User { name: user.to_owned() })
    }

    fn hash_password(&self, password: &[u8]) -> Hash {
        certs::sha256(password)
    }

    fn accounts(&self) -> Arc<Accounts> {
        self.shared.users.accounts()
    }

    fn accounts_version(&self) -> u64 {
        self.shared.users.version()
    }

    fn set_account(&mut self, account: Account) {
        self.shared.users.set(account);
    }

    fn remove_account(&mut self, name: &str) -> bool {
        self.shared.users.remove(name)
    }

    fn save_accounts(&mut self) -> Result<(), String> {
        self.shared.users.save()
    }

    fn load_accounts(&mut self) -> Result<(), String> {
        self.shared.users.reload()
    }

    fn denied(&mut self, denial: Denial) {
        self.shared.users.denied(clock::mono(), denial);
    }

    fn denials(&self) -> Vec<DenialLine> {
        self.shared.users.denials(clock::mono())
    }

    fn forget_denials(&mut self) {
        self.shared.users.forget_denials();
    }

    fn default_has_password(&self) -> bool {
        self.shared.users.accounts().auth_required()
    }

    fn context_secret(&self) -> [u8; 16] {
        self.shared.cluster.0.to_be_bytes()
    }

    fn is_loading(&self) -> bool {
        self.shared.is_loading()
    }

    fn overload(&self) -> Option<u32> {
        self.fed.overload
    }

    fn waited(&self) -> Duration {
        self.fed.waited
    }

    fn slow_from_us(&self) -> u64 {
        self.shared.slow.threshold_us()
    }

    fn was_slow(&mut self, now: Now, slow: Slow) {
        let address = self.shared.clients.address_of(slow.client);
        self.shared.slow.add(now, slow, address);
    }

    fn slow_lines(&self) -> Vec<SlowLine> {
        self.shared.slow.lines()
    }

    fn forget_slow(&mut self) {
        self.shared.slow.clear();
    }

    fn node(&self) -> NodeFacts {
        facts(&self.shared)
    }

    fn node_name(&self, node: NodeId) -> String {
        let layout = self.shared.layout();
        layout.member(node).map_or_else(|| node.to_string(), |m| m.name.clone())
    }

    fn owners(&self, keyspace: Keyspace, slot: Slot) -> Vec<NodeId> {
        let n = self.shared.policies().of(keyspace).n;
        self.shared.layout().replicas_for(slot, n).to_vec()
    }

    fn clients(&self) -> Vec<ClientLine> {
        self.shared.clients.lines(clock::mono())
    }

    fn client_is(&mut self, facts: &ClientFacts) {
        self.shared.clients.client_is(facts);
    }

    fn kill_clients(&mut self, filter: &KillFilter) -> u64 {
        let meant = self.shared.clients.meant_by(filter, clock::mono());
        for (core, key) in &meant {
            self.shared.boxes[*core].post_one(Letter::Kill(*key));
        }
        meant.len() as u64
    }

    fn config(&self) -> ConfigTable {
        let config = &self.shared.config;
        let mut table = ConfigTable::default();
        let maxclients = self.shared.maxclients.load(Ordering::Relaxed).to_string();
        let slow = &self.shared.slow;
        let slow_us = Some(slow.threshold_us()).filter(|us| *us != u64::MAX);
        for (name, value) in [
            ("loglevel", logging::level()),
            ("slowlog-log-slower-than", slow_us.map_or("-1".to_owned(), |us| us.to_string())),
            ("slowlog-max-len", slow.keeps().to_string()),
            ("maxclients", maxclients),
            ("port", config.redis.listen.map_or(0, |a| a.port()).to_string()),
            ("tls-port", config.redis.tls.as_ref().map_or(0, |t| t.0.port()).to_string()),
            ("bind", config.redis.listen.map(|a| a.ip().to_string()).unwrap_or_default()),
            ("timeout", config.redis.idle_timeout_s.to_string()),
            ("dir", config.data_dir.display().to_string()),
        ] {
            table.set(name, &value);
        }
        table
    }

    fn config_set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "maxclients" => {
                let most = value.parse().map_err(|_| "argument must be a number".to_owned())?;
                self.shared.maxclients.store(most, Ordering::Relaxed);
                Ok(())
            }
            "loglevel" => logging::set(value),
            "slowlog-log-slower-than" => {
                let us: i64 = value.parse().map_err(|_| "argument must be a number".to_owned())?;
                self.shared.slow.set_threshold_us(u64::try_from(us).unwrap_or(u64::MAX));
                Ok(())
            }
            "slowlog-max-len" => {
                let keeps = value.parse().map_err(|_| "argument must be a number".to_owned())?;
                self.shared.slow.set_keeps(keeps);
                Ok(())
            }
            _ => Err("it can only be changed in ringd.toml".to_owned()),
        }
    }

    fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    fn stats(&self) -> Stats {
        let mut all = self.stats.clone();
        for core in (0..self.shared.cores()).filter(|core| *core != self.core) {
            all.add(&self.shared.report_of(core).stats);
        }
        all
    }

    fn reset_stats(&mut self) {
        self.stats_epoch = self.shared.stats_epoch.fetch_add(1, Ordering::Relaxed) + 1;
        self.stats = Stats::default();
    }
}

fn facts(shared: &Shared) -> NodeFacts {
    let (report, layout, view) = (shared.report(), shared.layout(), shared.members());
    let (config, engine) = (&shared.config, shared.engine.stats());
    let process = Process::read();
    NodeFacts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: config.name.clone(),
        id: config.node.0,
        run_id: shared.run_id.clone(),
        os: os(),
        process_id: std::process::id(),
        tcp_port: config.redis.listen.map_or(0, |a| a.port()),
        uptime_s: clock::mono().since(shared.started).as_secs(),
        config_file: config.file.as_ref().map(|f| f.display().to_string()).unwrap_or_default(),
        connected_clients: shared.clients.len() as u64,
        clients_max: u64::from(shared.maxclients.load(Ordering::Relaxed)),
        used_memory_bytes: process.own_bytes,
        rss_bytes: process.rss_bytes,
        peak_bytes: process.peak_bytes,
        system_memory_bytes: system_memory_bytes(),
        ops_per_sec: report.ops_per_second,
        connections_received: report.connections,
        connections_rejected: shared.rejected.load(Ordering::Relaxed),
        input_bytes: report.bytes_in,
        output_bytes: report.bytes_out,
        cpu_user_s: process.user_s,
        cpu_system_s: process.system_s,
        disk_bytes: engine.table_bytes.iter().sum::<u64>() + engine.log_bytes,
        last_sync_unix_s: clock::wall().0 / 1_000,
        copies: layout.table.width(),
        cluster: config.cluster_name.clone(),
        epoch: layout.epoch.0,
        members: layout.members.len() as u32,
        members_up: view.members.values().filter(|m| m.up).count() as u32,
        ring: Vec::new(),
        crdt: vec![
            ("read_repairs".to_owned(), report.read_repairs.to_string()),
            ("slot_clock_gaps".to_owned(), report.clock_gaps.to_string()),
            ("many_siblings".to_owned(), report.many_siblings.to_string()),
        ],
        keyspaces: report.keys.keyspaces.iter().map(|(k, n)| (*k, n.live, n.expiring)).collect(),
    }
}

/// What the system says of this process; zeros where it does not.
#[derive(Clone, Copy, Debug, Default)]
struct Process {
    rss_bytes: u64,
    /// Of these those that no file stands behind.
    own_bytes: u64,
    peak_bytes: u64,
    user_s: f64,
    system_s: f64,
}

impl Process {
    fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // Behind the program's name in parentheses, which may hold anything.
        let after = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let ticks = |place: usize| {
            let field = after.split_whitespace().nth(place);
            field.and_then(|f| f.parse::<f64>().ok()).unwrap_or_default() / TICKS_PER_SECOND
        };
        Self {
            rss_bytes: kib(&status, "VmRSS:") << 10,
            own_bytes: kib(&status, "RssAnon:") << 10,
            peak_bytes: kib(&status, "VmHWM:") << 10,
            user_s: ticks(11),
            system_s: ticks(12),
        }
    }
}

/// Linux counts processor time for programs in hundredths of a second, whatever the kernel's own.
const TICKS_PER_SECOND: f64 = 100.0;

fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    let field = line.and_then(|l| l.split_whitespace().next());
    field.and_then(|f| f.parse().ok()).unwrap_or_default()
}

fn system_memory_bytes() -> u64 {
    kib(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:") << 10
}

fn os() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {} {}", release.trim(), std::env::consts::ARCH)
}
