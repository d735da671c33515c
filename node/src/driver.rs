//! The driver: one thread a core, with a runtime of its own, around one [`Core`].
//!
//! Tasks of connections and of the mesh only feed the core; the task that ends turns runs behind
//! them in the executor's queue, so that one commit and one flush serve all who were ready.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use replication::Peer;
use store::Store;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant as TokioInstant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{debug, error, warn};
use wire::{FrameDecoder, Kind, codec};

use crate::clock;
use crate::error::Fault;
use crate::front::listen;
use crate::front::tls::Offered;
use crate::limits::DRAIN_MAX;
use crate::members::Members;
use crate::mesh::{ClientConn, Ending, Frames, Lane, Mesh, MeshConfig, MeshHandler};
use crate::native;
use crate::peers::{self, Heartbeat, KEYSPACES, LAYOUT, LAYOUT_WANTED, VACANCY, VACANCY_WANTED};
use crate::shared::Shared;
use crate::turn::{Core, LOOK_AROUND};

/// How long peers have to hear that we close.
const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// How often keys are counted in a second at most: about one per cent of a core while everything changes.
pub(crate) const COUNTS_A_LOOK: usize = 32;

/// Between two counts, so that all are done before the next look.
const COUNT_PAUSE: Duration = Duration::from_millis(25);

/// What a core begins with.
pub struct Beginning {
    /// Which core.
    pub index: usize,
    /// Its machine.
    pub peer: Peer,
    /// Its store.
    pub store: Store,
    /// Its listener for Redis clients, if they may come without TLS.
    pub listener: Option<std::net::TcpListener>,
    /// Its listener for those who come with it.
    pub tls: Option<(std::net::TcpListener, Arc<Offered>)>,
    /// For core 0 of a node with peers: how to reach them.
    pub mesh: Option<MeshConfig>,
}

/// A core's thread.
pub struct Thread {
    join: JoinHandle<()>,
    drained: oneshot::Receiver<()>,
}

impl Thread {
    /// Waits until the core has answered everything, or it took too long.
    pub async fn drained(&mut self) {
        // A thread that ended early has nothing left to drain.
        drop((&mut self.drained).await);
    }

    /// Waits for the end of the thread; false if it panicked.
    #[must_use]
    pub fn join(self) -> bool {
        self.join.join().is_ok()
    }
}

/// Starts a core's thread; returns once it serves.
///
/// # Errors
/// A [`Fault`]: the mesh cannot listen, or the system gives no thread.
pub fn start(shared: Arc<Shared>, beginning: Beginning) -> Result<Thread, Fault> {
    let (started, begun) = std::sync::mpsc::channel();
    let (drain, drained) = oneshot::channel();
    let name = format!("core-{}", beginning.index);
    let fault = |e: io::Error| {
        Fault::new(
            "cannot start a core",
            e.to_string(),
            "raise the limits of this user, or use fewer cores",
        )
    };
    let run = move || {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(e) => return drop(started.send(Err(fault(e)))),
        };
        LocalSet::new().block_on(&runtime, run(shared, beginning, started, drain));
    };
    let join = thread::Builder::new().name(name).spawn(run).map_err(fault)?;
    match begun.recv() {
        Ok(Ok(())) => Ok(Thread { join, drained }),
        Ok(Err(fault)) => Err(fault),
        Err(_) => {
            Err(Fault::new("a core ended as it began", "it panicked", "look at its last words"))
        }
    }
}

async fn run(
    shared: Arc<Shared>,
    beginning: Beginning,
    started: std::sync::mpsc::Sender<Result<(), Fault>>,
    drain: oneshot::Sender<()>,
) {
    let Beginning { index, peer, store, listener, tls, mesh } = beginning;
    let core = Rc::new(RefCell::new(Core::new(index, shared.clone(), peer, store)));
    core.borrow_mut().learn_of_room();
    let begun = begin(&core, listener, tls, mesh);
    let failed = begun.is_err();
    // Nobody waits for the answer only if the process ends anyway.
    drop(started.send(begun));
    if failed {
        return;
    }
    spawn_local(look_around(core.clone()));
    spawn_local(tell_drained(core.clone(), drain));
    end_turns(&core).await;
    let mesh = {
        let mut core = core.borrow_mut();
        core.close();
        core.members.as_ref().and_then(Members::mesh)
    };
    if let Some(mesh) = mesh {
        // Peers that do not answer any more are not waited for.
        drop(timeout(GOODBYE_MAX, mesh.shutdown()).await);
    }
}

fn begin(
    core: &Rc<RefCell<Core>>,
    listener: Option<std::net::TcpListener>,
    tls: Option<(std::net::TcpListener, Arc<Offered>)>,
    mesh: Option<MeshConfig>,
) -> Result<(), Fault> {
    let system = |e: io::Error| Fault::new("cannot listen", e.to_string(), "try again");
    let listener = listener.map(TcpListener::from_std).transpose().map_err(system)?;
    let with_tls = |(listener, offered)| Ok((TcpListener::from_std(listener)?, offered));
    let tls = tls.map(with_tls).transpose().map_err(system)?;
    let shared = core.borrow().shared.clone();
    if core.borrow().index == 0 {
        core.borrow_mut().members = Some(Members::new(shared, clock::now()));
    }
    if let Some(config) = mesh {
        let listen = config.listen;
        let mesh = Mesh::start(config, Rc::new(Ears { core: core.clone() })).map_err(|e| {
            let text = e.to_string();
            let mut lines = text.lines().map(str::trim);
            let mut next = |prefix| {
                let line = lines.next().unwrap_or_default();
                line.strip_prefix(prefix).unwrap_or(line).trim().to_owned()
            };
            let fault = Fault::new(next("error:"), next("why:"), next("fix:"));
            debug!(%listen, "the mesh did not start");
            fault
        })?;
        if let Some(members) = &mut core.borrow_mut().members {
            members.set_mesh(mesh);
        }
    }
    // The machine's first look at the time.
    core.borrow_mut().feed(replication::Event::Tick);
    if let Some(listener) = listener {
        spawn_local(listen::accept_all(core.clone(), listener, None));
    }
    if let Some((listener, offered)) = tls {
        spawn_local(listen::accept_all(core.clone(), listener, Some(offered)));
    }
    Ok(())
}

/// Ends every turn that begins, and tells the core of the time; returns when all is over.
async fn end_turns(core: &Rc<RefCell<Core>>) {
    let far = TokioInstant::now() + Duration::from_secs(86_400 * 365);
    let mut timer = pin!(sleep_until(far));
    let mut armed = ring::Instant(u64::MAX);
    // Others may have posted before we could be woken.
    core.borrow_mut().begin();
    let mut first = true;
    poll_fn(move |cx| {
        let mut guard = core.borrow_mut();
        let core = &mut *guard;
        core.set_waker(cx.waker());
        if timer.as_mut().poll(cx).is_ready() {
            armed = ring::Instant(u64::MAX);
            timer.as_mut().reset(far);
            core.tick();
        }
        let posted = core.has_post();
        if first || posted || core.has_begun() {
            first = false;
            core.flush();
        }
        if core.stopped {
            return Poll::Ready(());
        }
        // A timer that is set too early is let run: moving it costs more than looking twice.
        if let Some(at) = core.next_deadline().filter(|at| *at < armed) {
            armed = at;
            timer.as_mut().reset(TokioInstant::from_std(clock::to_std(at)));
        }
        // A timer that is due already must be heard of again.
        if timer.as_mut().poll(cx).is_ready() {
            armed = ring::Instant(u64::MAX);
            timer.as_mut().reset(far);
            core.tick();
        }
        Poll::Pending
    })
    .await;
}

async fn look_around(core: Rc<RefCell<Core>>) {
    let mut every = interval(LOOK_AROUND);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut counts = interval(COUNT_PAUSE);
    counts.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        core.borrow_mut().expire_keys();
        // Few keys are counted before they are told of.
        let mut more = core.borrow_mut().count_keys();
        core.borrow_mut().look_around();
        let mut gaps = true;
        // The rest bit by bit: all at once would be felt by whoever asks just then.
        counts.reset();
        for _ in 1..COUNTS_A_LOOK {
            let mut is_saving = core.borrow().is_saving();
            if !more && !is_saving && !gaps {
                break;
            }
            counts.tick().await;
            let core = &mut *core.borrow_mut();
            gaps = core.count_gaps();
            is_saving &= core.is_saving();
            if is_saving {
                // Where nobody asks anything, turns are few.
                core.begin();
            }
            more = more && core.count_keys();
        }
    }
}

/// Says when a draining core has answered everything, or that it took too long.
async fn tell_drained(core: Rc<RefCell<Core>>, drain: oneshot::Sender<()>) {
    let bell = core.borrow().drain_bell.clone();
    bell.notified().await;
    let mut every = interval(Duration::from_millis(5));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = TokioInstant::now() + DRAIN_MAX;
    while TokioInstant::now() < end {
        let is_over = tell_waits(&mut core.borrow_mut());
        if is_over {
            break;
        }
        every.tick().await;
    }
    // The other end waits, or the process is about to end.
    let _ = drain.send(());
}

/// Says what is still waited for; what was said last when the time is over is cut off. True if nothing is.
fn tell_waits(core: &mut Core) -> bool {
    let waits = core.waits();
    core.shared.waits[core.index].tell(waits);
    waits.is_over()
}

/// What the mesh tells core 0.
struct Ears {
    core: Rc<RefCell<Core>>,
}

impl Ears {
    fn on_frame(core: &mut Core, from: ring::NodeId, frame: &wire::Frame<'_>) {
        let header = frame.header;
        match header.kind {
            Kind::PEER_MESSAGES => {
                for message in peers::messages(from, frame.body) {
                    core.receive(from, (header.epoch, header.hlc), message);
                }
            }
            Kind::MOMENT => match codec::decode(frame.body) {
                Ok(said) => core.with_members(|members, _, _| members.said(from, said)),
                Err(e) => warn!(%from, error = %e, "a moment is not understood"),
            },
            Kind::HEARTBEAT => match codec::decode::<Heartbeat>(frame.body) {
                Ok(beat) => core.with_members(|members, now, events| {
                    members.heard(now, from, &beat, header.epoch, events);
                }),
                Err(e) => warn!(%from, error = %e, "a heartbeat is not understood"),
            },
            KEYSPACES => match codec::decode(frame.body) {
                Ok(note) => core.with_members(|members, now, events| {
                    let note = ring::exchange::Event::Heard { from, note };
                    members.exchange(now, note, events);
                }),
                Err(e) => warn!(%from, error = %e, "terms of keyspaces are not understood"),
            },
            VACANCY_WANTED => match codec::decode(frame.body) {
                Ok(wanted) => native::look_for_peer(core, from, wanted),
                Err(e) => warn!(%from, error = %e, "a question about keys is not understood"),
            },
            VACANCY => match codec::decode(frame.body) {
                Ok(told) => core.with_members(|members, now, events| {
                    members.vacancy_told(now, from, told, events);
                }),
                Err(e) => warn!(%from, error = %e, "an answer about keys is not understood"),
            },
            LAYOUT_WANTED => {
                if let Some(members) = &core.members {
                    members.send_layout(from);
                }
            }
            LAYOUT => match codec::decode(frame.body) {
                Ok(layout) => core.with_members(|members, now, events| {
                    members.layout_came(now, from, layout, events);
                }),
                Err(e) => warn!(%from, error = %e, "a layout is not understood"),
            },
            other => debug!(%from, kind = ?other, "a frame of an unknown kind"),
        }
    }
}

/// Calls `f` with every frame in `frames`; a piece of the mesh may hold several.
fn each_frame(
    frames: Frames<'_>,
    mut f: impl FnMut(&wire::Frame<'_>),
) -> Result<(), wire::FrameError> {
    let mut decoder = FrameDecoder::new();
    for piece in frames {
        let mut rest = piece;
        while let Some(frame) = decoder.decode(rest)? {
            f(&frame);
            rest = &rest[frame.consumed..];
        }
    }
    Ok(())
}

impl MeshHandler for Ears {
    fn on_frames(&self, _mesh: &Mesh, from: ring::NodeId, _lane: Lane, frames: Frames<'_>) {
        let core = &mut *self.core.borrow_mut();
        if let Err(e) = each_frame(frames, |frame| Self::on_frame(core, from, frame)) {
            error!(%from, error = %e, "frames of a peer cannot be read");
        }
        core.run();
    }

    fn on_connected(&self, _mesh: &Mesh, peer: ring::NodeId, _wire: u8) {
        let core = &mut *self.core.borrow_mut();
        core.with_members(|members, now, events| members.connected(now, peer, events));
    }

    fn on_closed(&self, _mesh: &Mesh, peer: ring::NodeId, ending: &Ending, dropped: usize) {
        debug!(%peer, ?ending, dropped, "a link is down");
        let core = &mut *self.core.borrow_mut();
        core.with_members(|members, now, events| members.closed(now, peer, events));
    }

    fn on_accepted(&self, _mesh: &Mesh, peer: ring::NodeId, boot: u64) {
        self.core.borrow_mut().with_members(|members, _, _| members.accepted(peer, boot));
    }

    fn on_second(&self, _mesh: &Mesh, peer: ring::NodeId, why: &str) {
        self.core.borrow_mut().with_members(|members, _, _| members.is_second(peer, why));
    }

    fn poll_room(&self, cx: &mut Context<'_>, turn: &mut u64) -> Poll<()> {
        self.core.borrow_mut().poll_room(cx, turn)
    }

    fn on_client(&self, _mesh: &Mesh, client: &ClientConn, frames: Frames<'_>) {
        let core = &mut *self.core.borrow_mut();
        if let Err(e) = each_frame(frames, |frame| native::on_frame(core, client, frame)) {
            debug!(error = %e, "frames of a client cannot be read");
        }
        core.run();
    }

    fn on_client_connected(&self, _mesh: &Mesh, client: &ClientConn) {
        self.core.borrow_mut().native_came(client);
    }

    fn on_client_closed(&self, _mesh: &Mesh, client: &ClientConn, _ending: &Ending) {
        let core = &mut *self.core.borrow_mut();
        core.native_gone(client);
        core.run();
    }
}
