//! Host: the few facts and small actions that a session needs from whoever drives it.
//!
//! Synchronous and small: a node implements it over shared tables, the simulator and the tests over
//! plain memory ([`PlainHost`]). What takes time, or another node, is a
//! [`replication::Request`] instead.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use replication::row::Keyspace;
use ring::{NodeId, Now, Slot};
use wire::resp::Protocol;

use crate::acl::{Account, Accounts, Denial, Hash};
use crate::config::ConfigTable;
use crate::stats::Stats;

/// A user who proved who he is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As it is shown by CLIENT LIST and ACL WHOAMI.
    pub name: String,
}

/// What a session says of itself for CLIENT LIST and CLIENT KILL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFacts {
    /// Its number, unique on this node.
    pub id: u64,
    /// CLIENT SETNAME.
    pub name: String,
    /// Who it is; empty before it said so.
    pub user: String,
    /// SELECT.
    pub keyspace: Keyspace,
    /// RESP2 or RESP3.
    pub protocol: Protocol,
    /// CLIENT SETINFO LIB-NAME.
    pub lib_name: String,
    /// CLIENT SETINFO LIB-VER.
    pub lib_version: String,
}

/// A line of CLIENT LIST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLine {
    /// What the session says.
    pub facts: ClientFacts,
    /// The client's address and port.
    pub address: String,
    /// Ours.
    pub local_address: String,
    /// Seconds since it connected.
    pub age_s: u64,
    /// Seconds since its last command.
    pub idle_s: u64,
}

/// Facts of a node for INFO; what is unknown stays at its default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Version of this software.
    pub version: String,
    /// The node's name in the layout.
    pub name: String,
    /// The node's number in the layout.
    pub id: u32,
    /// 40 hexadecimal digits, new with every start.
    pub run_id: String,
    /// `Linux 6.1.0 x86_64`.
    pub os: String,
    /// Process number.
    pub process_id: u32,
    /// Where Redis clients are answered.
    pub tcp_port: u16,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Where the configuration lies.
    pub config_file: String,
    /// Connections now.
    pub connected_clients: u64,
    /// Connections at most.
    pub clients_max: u64,
    /// Bytes allocated, or as near as is known.
    pub used_memory_bytes: u64,
    /// Bytes resident.
    pub rss_bytes: u64,
    /// The most bytes resident since the start.
    pub peak_bytes: u64,
    /// Bytes of memory in the machine.
    pub system_memory_bytes: u64,
    /// Commands a second, of late.
    pub ops_per_sec: u64,
    /// Connections since the start.
    pub connections_received: u64,
    /// Connections refused since the start.
    pub connections_rejected: u64,
    /// Bytes read from clients.
    pub input_bytes: u64,
    /// Bytes written to clients.
    pub output_bytes: u64,
    /// Processor seconds in user mode.
    pub cpu_user_s: f64,
    /// Processor seconds in the kernel.
    pub cpu_system_s: f64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Unix seconds of the last time that everything was on disk.
    pub last_sync_unix_s: u64,
    /// Copies of each key.
    pub copies: u8,
    /// The cluster's name or number.
    pub cluster: String,
    /// The layout's version.
    pub epoch: u64,
    /// Members of the layout.
    pub members: u32,
    /// Members that are up, as this node sees it.
    pub members_up: u32,
    /// More lines of `INFO ring`, name and value.
    pub ring: Vec<(String, String)>,
    /// Lines of `INFO crdt`, name and value.
    pub crdt: Vec<(String, String)>,
    /// Live keys and keys with an expiry by keyspace, as far as this node knows without asking.
    pub keyspaces: Vec<(Keyspace, u64, u64)>,
}

/// A line of ACL LOG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenialLine {
    /// Unique on this node.
    pub id: u64,
    /// How often it happened in a row.
    pub count: u64,
    /// Seconds since the last time.
    pub age_s: u64,
    /// What was refused.
    pub denial: Denial,
}

/// A command that took long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slow {
    /// Its name.
    pub command: &'static str,
    /// The first of its keys, if it has some.
    pub key: Option<Vec<u8>>,
    /// From its arrival to its answer, in microseconds.
    pub micros: u64,
    /// The connection.
    pub client: u64,
    /// CLIENT SETNAME.
    pub client_name: String,
    /// Who it was.
    pub user: String,
}

/// A line of SLOWLOG GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowLine {
    /// Unique on this node.
    pub id: u64,
    /// When it was answered, in Unix seconds.
    pub unix_s: u64,
    /// The client's address and port.
    pub address: String,
    /// What was slow.
    pub slow: Slow,
}

/// Which clients CLIENT KILL means: all that fit every filter that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KillFilter {
    /// Its number.
    pub id: Option<u64>,
    /// Its address and port.
    pub address: Option<String>,
    /// Our address and port.
    pub local_address: Option<String>,
    /// Its user.
    pub user: Option<String>,
    /// Anybody but this one.
    pub except: Option<u64>,
}

impl KillFilter {
    /// Whether it means this client.
    #[must_use]
    pub fn fits(&self, line: &ClientLine) -> bool {
        self.id.is_none_or(|id| id == line.facts.id)
            && self.address.as_ref().is_none_or(|a| *a == line.address)
            && self.local_address.as_ref().is_none_or(|a| *a == line.local_address)
            && self.user.as_ref().is_none_or(|u| *u == line.facts.user)
            && self.except.is_none_or(|id| id != line.facts.id)
    }
}

/// Whoever drives a session.
pub trait Host {
    /// The user with this name and password; `None` if there is none, or he is disabled. The name
    /// comes without its `~level` suffix; `default` stands for the one-argument form.
    fn authenticate(&mut self, user: &str, password: &[u8]) -> Option<User>;

    /// SHA-256 of a password.
    fn hash_password(&self, password: &[u8]) -> Hash;

    /// Every account of this node.
    fn accounts(&self) -> Arc<Accounts>;

    /// Rises with every change of an account.
    fn accounts_version(&self) -> u64;

    /// The account of this name.
    fn account(&self, name: &str) -> Option<Arc<Account>> {
        self.accounts().get(name).cloned()
    }

    /// Sets, or adds, an account.
    fn set_account(&mut self, account: Account);

    /// Removes an account; false if there is none of this name.
    fn remove_account(&mut self, name: &str) -> bool;

    /// Writes the accounts where they are found at the next start.
    ///
    /// # Errors
    /// Why not, for a person.
    fn save_accounts(&mut self) -> Result<(), String>;

    /// Reads them from there again.
    ///
    /// # Errors
    /// Why not, for a person; nothing has changed then.
    fn load_accounts(&mut self) -> Result<(), String>;

    /// Something was refused: log it and count it.
    fn denied(&mut self, denial: Denial);

    /// What was refused of late, the latest first.
    fn denials(&self) -> Vec<DenialLine>;

    /// Empties that.
    fn forget_denials(&mut self);

    /// False if the default user needs no password: then AUTH with one argument says so.
    fn default_has_password(&self) -> bool;

    /// The cluster's secret under which contexts are sealed; the same on every node.
    fn context_secret(&self) -> [u8; 16];

    /// True while nothing may be served yet.
    fn is_loading(&self) -> bool;

    /// `Some` while commands on keys are refused because too much is asked: the milliseconds after
    /// which to come back.
    fn overload(&self) -> Option<u32> {
        None
    }

    /// For how long the command that is being fed has waited already: it counts against its time.
    fn waited(&self) -> Duration {
        Duration::ZERO
    }

    /// From when on a command is slow, in microseconds.
    fn slow_from_us(&self) -> u64 {
        u64::MAX
    }

    /// A command was slow.
    fn was_slow(&mut self, _now: Now, _slow: Slow) {}

    /// Slow commands, the latest first.
    fn slow_lines(&self) -> Vec<SlowLine> {
        Vec::new()
    }

    /// Forgets them.
    fn forget_slow(&mut self) {}

    /// Facts for INFO.
    fn node(&self) -> NodeFacts;

    /// How a node is called in errors.
    fn node_name(&self, node: NodeId) -> String {
        node.to_string()
    }

    /// The nodes that keep a slot, the preferred coordinator first.
    fn owners(&self, keyspace: Keyspace, slot: Slot) -> Vec<NodeId>;

    /// Every client of this node.
    fn clients(&self) -> Vec<ClientLine>;

    /// A session says something new of itself.
    fn client_is(&mut self, facts: &ClientFacts);

    /// Closes the connections that the filter means, and says how many. A session that ends itself
    /// closes by its own output; the driver need not.
    fn kill_clients(&mut self, filter: &KillFilter) -> u64;

    /// The settings that CONFIG shows.
    fn config(&self) -> ConfigTable;

    /// Changes a setting whose name and value the table has accepted.
    ///
    /// # Errors
    /// Why the host refuses.
    fn config_set(&mut self, name: &str, value: &str) -> Result<(), String>;

    /// The counters of this core, to count in.
    fn stats_mut(&mut self) -> &mut Stats;

    /// The counters of the whole node.
    fn stats(&self) -> Stats;

    /// Starts all counters of the node again.
    fn reset_stats(&mut self);
}

/// A host in plain memory, for the simulator and for tests.
#[derive(Debug, Default)]
pub struct PlainHost {
    /// Passwords by user; if `default` is absent it needs none.
    pub passwords: BTreeMap<String, Vec<u8>>,
    /// Users with rights of their own; those of `passwords` may do everything.
    pub accounts: Accounts,
    /// See [`Host::accounts_version`].
    pub accounts_version: u64,
    /// See [`Host::denials`].
    pub denials: Vec<Denial>,
    /// Seals contexts.
    pub secret: [u8; 16],
    /// See [`Host::is_loading`].
    pub loading: bool,
    /// See [`Host::overload`].
    pub overload: Option<u32>,
    /// See [`Host::waited`].
    pub waited: Duration,
    /// See [`Host::slow_from_us`]; none if nothing is slow.
    pub slow_from_us: Option<u64>,
    /// See [`Host::slow_lines`].
    pub slow: Vec<Slow>,
    /// See [`Host::node`].
    pub facts: NodeFacts,
    /// See [`Host::clients`].
    pub clients: BTreeMap<u64, ClientFacts>,
    /// Clients that CLIENT KILL named.
    pub killed: Vec<u64>,
    /// See [`Host::config`].
    pub config: ConfigTable,
    /// See [`Host::stats_mut`].
    pub stats: Stats,
    /// What [`Host::owners`] says of every slot.
    pub owners: Vec<NodeId>,
}

impl PlainHost {
    fn line(facts: &ClientFacts) -> ClientLine {
        ClientLine {
            facts: facts.clone(),
            address: format!("127.0.0.1:{}", 50_000 + facts.id),
            local_address: "127.0.0.1:6379".to_owned(),
            age_s: 0,
            idle_s: 0,
        }
    }
}

impl Host for PlainHost {
    fn authenticate(&mut self, user: &str, password: &[u8]) -> Option<User> {
        let known = match (self.passwords.get(user), self.accounts.get(user)) {
            (Some(wanted), _) => wanted == password,
            (None, Some(account)) => account.takes(&self.hash_password(password)),
            (None, None) => false,
        };
        known.then(|| User { name: user.to_owned() })
    }

    /// Not SHA-256, and no secret: this host is for stories.
    fn hash_password(&self, password: &[u8]) -> Hash {
        let mut hash = Hash::default();
        for (i, byte) in password.iter().enumerate() {
            hash[i % hash.len()] = hash[i % hash.len()].wrapping_mul(31).wrapping_add(*byte);
        }
        hash
    }

    fn accounts(&self) -> Arc<Accounts> {
        let mut accounts = self.accounts.clone();
        for name in self.passwords.keys() {
            accounts.set(Account::unlimited(name));
        }
        Arc::new(accounts)
    }

    fn accounts_version(&self) -> u64 {
        self.accounts_version
    }

    fn set_account(&mut self, account: Account) {
        self.accounts.set(account);
        self.accounts_version += 1;
    }

    fn remove_account(&mut self, name: &str) -> bool {
        self.accounts_version += 1;
        self.accounts.remove(name)
    }

    fn save_accounts(&mut self) -> Result<(), String> {
        Err("this host keeps nothing".to_owned())
    }

    fn load_accounts(&mut self) -> Result<(), String> {
        Err("this host keeps nothing".to_owned())
    }

    fn denied(&mut self, denial: Denial) {
        self.denials.insert(0, denial);
    }

    fn denials(&self) -> Vec<DenialLine> {
        let line = |(i, denial): (usize, &Denial)| DenialLine {
            id: (self.denials.len() - i) as u64,
            count: 1,
            age_s: 0,
            denial: denial.clone(),
        };
        self.denials.iter().enumerate().map(line).collect()
    }

    fn forget_denials(&mut self) {
        self.denials.clear();
    }

    fn default_has_password(&self) -> bool {
        self.passwords.contains_key("default")
    }

    fn context_secret(&self) -> [u8; 16] {
        self.secret
    }

    fn is_loading(&self) -> bool {
        self.loading
    }

    fn overload(&self) -> Option<u32> {
        self.overload
    }

    fn waited(&self) -> Duration {
        self.waited
    }

    fn slow_from_us(&self) -> u64 {
        self.slow_from_us.unwrap_or(u64::MAX)
    }

    fn was_slow(&mut self, _now: Now, slow: Slow) {
        self.slow.insert(0, slow);
    }

    fn slow_lines(&self) -> Vec<SlowLine> {
        let line = |(i, slow): (usize, &Slow)| SlowLine {
            id: (self.slow.len() - 1 - i) as u64,
            unix_s: 0,
            address: String::new(),
            slow: slow.clone(),
        };
        self.slow.iter().enumerate().map(line).collect()
    }

    fn forget_slow(&mut self) {
        self.slow.clear();
    }

    fn node(&self) -> NodeFacts {
        self.facts.clone()
    }

    fn owners(&self, _keyspace: Keyspace, _slot: Slot) -> Vec<NodeId> {
        self.owners.clone()
    }

    fn clients(&self) -> Vec<ClientLine> {
        self.clients.values().map(Self::line).collect()
    }

    fn client_is(&mut self, facts: &ClientFacts) {
        self.clients.insert(facts.id, facts.clone());
    }

    fn kill_clients(&mut self, filter: &KillFilter) -> u64 {
        let meant = |facts: &&ClientFacts| filter.fits(&Self::line(facts));
        let ids: Vec<u64> = self.clients.values().filter(meant).map(|f| f.id).collect();
        self.killed.extend(&ids);
        ids.len() as u64
    }

    fn config(&self) -> ConfigTable {
        self.config.clone()
    }

    fn config_set(&mut self, name: &str, value: &str) -> Result<(), String> {
        self.config.set(name, value);
        Ok(())
    }

    fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    fn stats(&self) -> Stats {
        self.stats.clone()
    }

    fn reset_stats(&mut self) {
        self.stats = Stats::default();
    }
}
