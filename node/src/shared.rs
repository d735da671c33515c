//! What the threads of a node share: facts that change seldom, and mailboxes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::liveness::NodeState;
use ring::{ClusterId, Incarnation, Instant, Layout, NodeId, Policies, Register};
use storage::Engine;
use tokio::sync::Notify;

use crate::background::Background;
use crate::config::Config;
use crate::drain::{self, Waits};
use crate::front::registry::Registry;
use crate::hot::Hot;
use crate::mailbox::Mailbox;
use crate::metrics::CoreReport;
use crate::slowlog::SlowLog;
use crate::turn::Letter;
use crate::users::Users;

/// What core 0 thinks of a member, for everybody to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Whether it seems to be up; we are.
    pub up: bool,
    /// Its latest life.
    pub incarnation: Incarnation,
    /// What it says of itself.
    pub state: NodeState,
    /// When it was last thought otherwise.
    pub since: Instant,
}

/// What core 0 thinks of all members.
#[derive(Clone, Debug, Default)]
pub struct MembersView {
    /// By number.
    pub members: BTreeMap<NodeId, MemberView>,
    /// The fraction of slots of which a majority of the copies is up and ready.
    pub quorum: f64,
    /// The same for the slots that this node keeps.
    pub quorum_of_mine: f64,
}

/// What the threads of a node share.
pub struct Shared {
    /// The configuration.
    pub config: Config,
    /// The cluster.
    pub cluster: ClusterId,
    /// This life of this node.
    pub incarnation: Incarnation,
    /// When the process began to serve.
    pub started: Instant,
    /// 40 hexadecimal digits, new with every start.
    pub run_id: String,
    /// The engine.
    pub engine: Arc<Engine>,
    /// The background threads.
    pub background: Arc<Background>,
    /// What waits for each core.
    pub boxes: Arc<Vec<Mailbox<Letter>>>,
    /// Clients of the Redis port.
    pub clients: Registry,
    /// Who they may be.
    pub users: Users,
    /// What took them long.
    pub slow: SlowLog,
    /// Clients at most; CONFIG SET may change it.
    pub maxclients: AtomicU32,
    /// Numbers for clients.
    pub next_client: AtomicU64,
    /// Connections refused because there were too many.
    pub rejected: AtomicU64,
    /// True while the node may not serve.
    pub loading: AtomicBool,
    /// True while there is no room on the disk: what is there is served, and nothing is written.
    pub full: AtomicBool,
    /// True once the node is stopping.
    pub draining: AtomicBool,
    /// What each core still waits for then.
    pub waits: Vec<drain::Told>,
    /// The highest stamp that the cores have minted or heard, once they have closed.
    pub last_stamp: AtomicU64,
    /// Rises with every CONFIG RESETSTAT.
    pub stats_epoch: AtomicU64,
    /// The busiest keys of each core.
    pub hot: Vec<Hot>,
    layout: Mutex<Arc<Layout>>,
    register: Mutex<Arc<Register>>,
    policies: Mutex<Arc<Policies>>,
    members: Mutex<Arc<MembersView>>,
    reports: Vec<Mutex<CoreReport>>,
    fatal: Mutex<Option<String>>,
    fatal_bell: Notify,
}

/// What [`Shared::new`] takes beside the configuration.
pub struct Parts {
    /// The cluster.
    pub cluster: ClusterId,
    /// This life.
    pub incarnation: Incarnation,
    /// The engine.
    pub engine: Arc<Engine>,
    /// The background threads.
    pub background: Arc<Background>,
    /// What waits for each core.
    pub boxes: Arc<Vec<Mailbox<Letter>>>,
    /// The layout in force.
    pub layout: Arc<Layout>,
    /// What administrators have set of keyspaces.
    pub register: Register,
    /// Who clients may be.
    pub users: Users,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values are replaced whole, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Everything at the start of a node.
    #[must_use]
    pub fn new(config: Config, parts: Parts) -> Self {
        let Parts { cluster, incarnation, engine, background, boxes, layout, register, users } =
            parts;
        let policies = Arc::new(register.over(&config.policies));
        let run_id: [u8; 20] = rand::random();
        Self {
            cluster,
            incarnation,
            started: crate::clock::mono(),
            run_id: run_id.iter().map(|b| format!("{b:02x}")).collect(),
            engine,
            background,
            clients: Registry::default(),
            users,
            slow: SlowLog::new(config.slow_us),
            maxclients: AtomicU32::new(config.redis.maxclients),
            next_client: AtomicU64::new(1),
            rejected: AtomicU64::new(0),
            loading: AtomicBool::new(true),
            full: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            waits: boxes.iter().map(|_| drain::Told::default()).collect(),
            last_stamp: AtomicU64::new(0),
            stats_epoch: AtomicU64::new(0),
            hot: boxes.iter().map(|_| Hot::default()).collect(),
            layout: Mutex::new(layout),
            register: Mutex::new(Arc::new(register)),
            policies: Mutex::new(policies),
            members: Mutex::default(),
            reports: boxes.iter().map(|_| Mutex::default()).collect(),
            fatal: Mutex::new(None),
            fatal_bell: Notify::new(),
            boxes,
            config,
        }
    }

    /// What all cores of a node that drains wait for.
    #[must_use]
    pub fn waits(&self) -> Waits {
        self.waits.iter().map(drain::Told::last).sum()
    }

    /// The layout in force.
    #[must_use]
    pub fn layout(&self) -> Arc<Layout> {
        lock(&self.layout).clone()
    }

    /// A newer layout is in force.
    pub fn set_layout(&self, layout: Arc<Layout>) {
        *lock(&self.layout) = layout;
    }

    /// The terms of keyspaces in force.
    #[must_use]
    pub fn policies(&self) -> Arc<Policies> {
        lock(&self.policies).clone()
    }

    /// What of them administrators have set.
    #[must_use]
    pub fn register(&self) -> Arc<Register> {
        lock(&self.register).clone()
    }

    /// Other terms are in force; returns all of them.
    pub fn set_register(&self, register: Register) -> Arc<Policies> {
        let policies = Arc::new(register.over(&self.config.policies));
        *lock(&self.register) = Arc::new(register);
        *lock(&self.policies) = policies.clone();
        policies
    }

    /// What core 0 thinks of the members.
    #[must_use]
    pub fn members(&self) -> Arc<MembersView> {
        lock(&self.members).clone()
    }

    /// Core 0 thinks something new.
    pub fn set_members(&self, view: MembersView) {
        *lock(&self.members) = Arc::new(view);
    }

    /// What a core last said of itself.
    #[must_use]
    pub fn report_of(&self, core: usize) -> CoreReport {
        lock(&self.reports[core]).clone()
    }

    /// A core says how it is.
    pub fn set_report(&self, core: usize, report: CoreReport) {
        *lock(&self.reports[core]) = report;
    }

    /// What all cores last said of themselves, as one.
    #[must_use]
    pub fn report(&self) -> CoreReport {
        let mut reports = self.reports.iter();
        let mut all = reports.next().map(|report| lock(report).clone()).unwrap_or_default();
        for report in reports {
            all.add(&lock(report));
        }
        all
    }

    /// How many cores there are.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.boxes.len()
    }

    /// The node must not go on: the first reason counts.
    pub fn fail(&self, why: String) {
        lock(&self.fatal).get_or_insert(why);
        self.fatal_bell.notify_one();
    }

    /// Waits until the node must not go on, and says why.
    pub async fn failed(&self) -> String {
        loop {
            if let Some(why) = lock(&self.fatal).clone() {
                return why;
            }
            self.fatal_bell.notified().await;
        }
    }

    /// Whether there is no room on the disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Whether the node may not serve yet.
    #[must_use]
    pub fn is_loading(&self) -> bool {
        self.loading.load(Ordering::Relaxed)
    }
}
