//! The server: one node, from opening its data to a clean end.
//!
//! Order of a start: certificates, whose data these are (and a new life on disk), the log replayed into the
//! machines' recovery, listeners bound, cores started. Order of an end: no new requests, those in
//! flight answered, everything on disk, and only then the mark that says so.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use replication::{Peer, Recovery};
use ring::{Actor, Hlc, Layout, WallMillis};
use storage::{FileDisk, Options};
use store::{Opened, Store};
use tokio::time::interval;
use tracing::{error, info, warn};
use wire::frame::{WIRE_VERSION, WIRE_VERSION_MIN};

use crate::background::{self, Threads};
use crate::certificates::Certificates;
use crate::checkpoints::{Keeper, Mark};
use crate::clock;
use crate::config::Config;
use crate::drain::Waits;
use crate::driver::{self, Beginning, Thread};
use crate::error::{EXIT_CUT_OFF, EXIT_UNSAVED, Fault};
use crate::front::listen;
use crate::front::tls::Offered;
use crate::limits::{DRAIN_MAX, DRAIN_TOLD, FILES_BESIDE_CLIENTS, raise_files};
use crate::mailbox::Mailbox;
use crate::mesh::{self, MeshConfig, Tuning, Versions};
use crate::shared::{Parts, Shared};
use crate::state::{Owner, Start, StateFile};
use crate::tool::refusal;
use crate::turn::{Letter, look_at_disk};
use crate::users::Users;

/// A running node.
pub struct Server {
    shared: Arc<Shared>,
    cores: Vec<Thread>,
    threads: Threads,
    offered: Option<Arc<Offered>>,
}

impl Server {
    /// Opens the data and serves.
    ///
    /// # Errors
    /// A [`Fault`]: whatever keeps the node from starting.
    pub fn start(config: Config) -> Result<Self, Fault> {
        let Certificates { own: credentials, offered } = Certificates::load(&config)?;
        check_files(config.redis.maxclients);
        let (listeners, tls) = listeners(&config, offered.as_ref())?;
        let redis = &config.redis;
        let users =
            Users::load(redis.requirepass.as_deref(), &redis.users, redis.acl_file.as_deref())?;
        let owner = Owner { cluster: config.cluster, node: config.node, name: &config.name };
        let store = config.data_dir.join("engine");
        let restored = Mark::find(&store)?;
        StateFile::check(&config.data_dir, &owner, restored.as_ref())?;
        // A node that has a past but no store has lost all that it acknowledged.
        let lost = !store.join("FORMAT").exists() && StateFile::peek(&config.data_dir)?.is_some();
        // The engine's lock also guards the state of the node.
        let Opened { engine, stores, recoveries } = open(&config)?;
        let restored = restored.as_ref();
        let (state, start) =
            StateFile::begin(&config.data_dir, &owner, lost, restored, clock::wall())?;
        if let Some(mark) = restored {
            let (of, incarnation) = (mark.at.0, start.state.incarnation);
            warn!(of, %incarnation, "the store is a checkpoint: this node begins a new life on it");
            Mark::take_away(&store);
        }
        let keeper = Keeper {
            data_dir: config.data_dir.clone(),
            log_segment_bytes: config.engine.log_segment_bytes,
            cores: config.cores,
        };
        keeper.tidy();
        let cluster = start.state.cluster;
        let layout = Arc::new(config.layout(cluster)?);
        let boxes: Arc<Vec<Mailbox<Letter>>> =
            Arc::new((0..config.cores).map(|_| Mailbox::default()).collect());
        let handles = stores.iter().map(Store::sync_handle).collect();
        let rates = background::Rates {
            merge: config.engine.merge_rate,
            scrub: config.engine.scrub_bytes_per_second,
        };
        let (background, threads) =
            background::start(&engine, handles, (state, keeper), &boxes, rates).map_err(|e| {
                Fault::new("cannot start a thread", e.to_string(), "raise this user's limits")
            })?;
        if start.state.amnesia {
            warn!("acknowledged writes may be lost here; pulling from every other replica first");
        }
        let machines = machines(&config, &start, &layout, recoveries);
        let incarnation = start.state.incarnation;
        let parts = Parts {
            cluster,
            incarnation,
            engine,
            background,
            boxes,
            layout: layout.clone(),
            register: start.state.keyspaces.clone(),
            users,
        };
        info!(node = config.name, %incarnation, %cluster, cores = config.cores, "starting");
        let shared = Arc::new(Shared::new(config, parts));
        // Before anything could be written.
        look_at_disk(&shared);
        let mut mesh = mesh_config(&shared, credentials, &layout)?;
        let mut server = Self { shared: shared.clone(), cores: Vec::new(), threads, offered };
        let listeners = listeners.into_iter().zip(tls);
        let begin = machines.into_iter().zip(stores).zip(listeners).enumerate();
        for (index, ((peer, store), (listener, tls))) in begin {
            let mesh = if index == 0 { mesh.take() } else { None };
            let beginning = Beginning { index, peer, store, listener, tls, mesh };
            match driver::start(shared.clone(), beginning) {
                Ok(thread) => server.cores.push(thread),
                Err(fault) => {
                    server.abandon();
                    return Err(fault);
                }
            }
        }
        Ok(server)
    }

    /// What Redis clients with TLS are offered, if they may come.
    #[must_use]
    pub fn offered(&self) -> Option<Arc<Offered>> {
        self.offered.clone()
    }

    /// What all threads share.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Drains and stops: in-flight requests are answered, everything is put on disk, and the state
    /// says so. The exit code: 0, or that not everything is on disk, or that it waited for somebody in vain.
    pub async fn stop(mut self) -> i32 {
        info!("draining");
        self.shared.draining.store(true, Ordering::Relaxed);
        self.post(|| Letter::Drain);
        drained(&mut self.cores, &self.shared).await;
        let left = self.shared.waits();
        if !left.is_over() {
            warn!(
                requests = left.requests,
                clients = left.clients,
                "the drain ran out of time after {DRAIN_MAX:?}: requests without an answer, and \
                 clients that did not take their replies, are cut off"
            );
        }
        self.end(left)
    }

    fn post(&self, letter: impl Fn() -> Letter) {
        for mailbox in self.shared.boxes.iter() {
            mailbox.post_one(letter());
        }
    }

    /// Ends threads that began before one could not.
    fn abandon(self) {
        self.post(|| Letter::Stop);
        for core in self.cores {
            // The fault that is reported came first.
            let _ = core.join();
        }
        drop(self.threads.end());
    }

    /// `left` is what the drain waited for in vain.
    fn end(self, left: Waits) -> i32 {
        self.post(|| Letter::Stop);
        let mut sound = true;
        for core in self.cores {
            sound &= core.join();
        }
        let state = self.threads.end();
        let Some(mut state) = state.filter(|_| sound) else {
            error!("not everything is on disk; the next start takes a new incarnation");
            return EXIT_UNSAVED;
        };
        let last = Hlc(self.shared.last_stamp.load(Ordering::Acquire)).wall();
        match state.end(WallMillis(last.0 + 1)) {
            Ok(()) => {
                if left.is_over() {
                    info!("stopped, everything is on disk");
                    return 0;
                }
                warn!("stopped, everything is on disk, but {left} were cut off");
                EXIT_CUT_OFF
            }
            Err(e) => {
                error!(error = %e, "cannot write node.state");
                EXIT_UNSAVED
            }
        }
    }
}

/// Waits until every core has answered everything, or it took too long, and says what it waits for.
async fn drained(cores: &mut [Thread], shared: &Shared) {
    let mut all = pin!(async {
        for core in cores {
            core.drained().await;
        }
    });
    let mut every = interval(DRAIN_TOLD);
    // The first is at once, when nothing is to be told yet.
    every.tick().await;
    loop {
        tokio::select! {
            () = &mut all => return,
            _ = every.tick() => info!("draining: waiting for {}", shared.waits()),
        }
    }
}

type Plain = Option<std::net::TcpListener>;
type Sealed = Option<(std::net::TcpListener, Arc<Offered>)>;

/// The listeners of each core: without TLS, and with it.
fn listeners(
    config: &Config,
    offered: Option<&Arc<Offered>>,
) -> Result<(Vec<Plain>, Vec<Sealed>), Fault> {
    let (redis, cores) = (&config.redis, config.cores);
    let plain = match redis.listen {
        Some(address) => {
            listen::bind(address, "redis.listen", cores)?.into_iter().map(Some).collect()
        }
        None => (0..cores).map(|_| None).collect(),
    };
    let (Some((address, _)), Some(offered)) = (&redis.tls, offered) else {
        return Ok((plain, (0..cores).map(|_| None).collect()));
    };
    let bound = listen::bind(*address, "redis.tls_listen", cores)?;
    Ok((plain, bound.into_iter().map(|listener| Some((listener, offered.clone()))).collect()))
}

fn check_files(maxclients: u32) {
    let files = raise_files();
    if files < u64::from(maxclients) + FILES_BESIDE_CLIENTS {
        warn!(files, maxclients, "fewer files may be open than redis.maxclients needs: ulimit -n");
    }
}

/// Opens the engine and replays the log into the recovery of each core.
fn open(config: &Config) -> Result<Opened, Fault> {
    let dir = config.data_dir.join("engine");
    let disk = FileDisk::new(&dir).map_err(|e| Fault::file(&dir, "open", &e))?;
    let options = Options {
        memtable_bytes: config.engine.memtable_bytes,
        log_segment_bytes: config.engine.log_segment_bytes,
        log_retain_bytes: config.engine.log_retain_bytes,
        block_cache_bytes: config.engine.block_cache_bytes,
        large_value_bytes: config.engine.large_value_bytes,
        // Clocks and rows must not contradict each other: a damaged store is not served from.
        tolerate_damage: false,
        ..Options::default()
    };
    let alone = config.members.len() < 2;
    store::open(Arc::new(disk), options, cores_u8(config.cores))
        .map_err(|e| refusal::of_node(&dir, &e, alone))
}

fn cores_u8(cores: usize) -> u8 {
    u8::try_from(cores).expect("there are at most 64 cores")
}

fn machines(
    config: &Config,
    start: &Start,
    layout: &Arc<Layout>,
    recoveries: Vec<Recovery>,
) -> Vec<Peer> {
    let policies = Arc::new(start.state.keyspaces.over(&config.policies));
    let machine = |(core, recovery): (usize, Recovery)| {
        let config = replication::Config {
            me: Actor { node: config.node, incarnation: start.state.incarnation },
            core: cores_u8(core),
            cores: cores_u8(config.cores),
            layout: layout.clone(),
            policies: policies.clone(),
            hlc_floor: start.hlc_floor,
            hlc_ceiling: start.state.hlc_ceiling,
            resumed: start.resumed,
            amnesia: start.state.amnesia,
            seed: clock::seed(),
            bugs: Vec::new(),
        };
        Peer::new(config, recovery)
    };
    recoveries.into_iter().enumerate().map(machine).collect()
}

fn mesh_config(
    shared: &Shared,
    credentials: Option<certs::Credentials>,
    layout: &Layout,
) -> Result<Option<MeshConfig>, Fault> {
    let Some(credentials) = credentials else {
        info!("no certificates, so no peers and no native clients");
        return Ok(None);
    };
    let config = &shared.config;
    let mut peers = Vec::new();
    for member in layout.peers_of(config.node) {
        let address = resolve(&member.peer)?;
        peers.push(mesh::Peer { id: member.id, name: member.name.clone(), address });
    }
    Ok(Some(MeshConfig {
        me: config.node,
        listen: config.peer_listen,
        cluster: mesh::ClusterId(shared.cluster.0),
        wire: Versions { min: WIRE_VERSION_MIN, max: WIRE_VERSION },
        credentials,
        peers,
        tuning: Tuning::default(),
    }))
}

fn resolve(address: &str) -> Result<std::net::SocketAddr, Fault> {
    use std::net::ToSocketAddrs;
    let found = address.to_socket_addrs().map(|mut all| all.next());
    let why = match found {
        Ok(Some(address)) => return Ok(address),
        Ok(None) => "the name has no address".to_owned(),
        Err(e) => e.to_string(),
    };
    Err(Fault::new(
        format!("the peer address {address} cannot be resolved"),
        why,
        "correct it in cluster.members, or the name server",
    ))
}
