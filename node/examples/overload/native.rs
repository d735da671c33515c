//! Native clients: each request is a task that asks, with its deadline, and gives up by it.
//!
//! What is due begins only when all that was begun before has run: if this program itself has more to
//! do than it can, requests wait where they can be given up, as in any program that bounds its tasks. They
//! are, when a quarter of their time is over: what begins shall have time to be answered.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use client::context::ContextFile;
use client::{Client, ClientError, Settings, Tls};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{LocalSet, spawn_local};

use super::{Chance, Loop, Mode, Options, Outcome, Phase, TICK};

/// So many tasks begin together.
const BATCH: usize = 256;

/// A request that waits for longer than this part of its time does not begin.
const WAIT: u32 = 4;

/// A client that finds its time over for so long was not run in time.
const OVERSLEPT: Duration = Duration::from_millis(10);

/// So many requests at a time share a connection in the closed loop.
const CONNECTIONS_A_CLIENT: usize = 16;

/// All of them, on one thread.
pub(super) struct Clients {
    runtime: Runtime,
    local: LocalSet,
    state: Rc<State>,
}

struct State {
    clients: Vec<Client>,
    phase: RefCell<Phase>,
    chance: RefCell<Chance>,
    deadline: Duration,
    mode: Mode,
    /// Tasks that were begun and have not run yet.
    begun: Cell<usize>,
    value: bytes::Bytes,
}

impl Clients {
    /// Connects.
    pub(super) fn open(file: &Path, options: &Options) -> Outcome<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let contexts = ContextFile::load(file).map_err(|e| e.to_string())?;
        let cluster = contexts.choose(None, file).map_err(|e| e.to_string())?;
        let tls = Tls::load(&cluster.tls_files())?;
        // A read that is asked twice would hide which answer nobody wanted.
        let direct_acks = !options.no_direct_acks;
        let settings = Settings { hedging: false, direct_acks, ..Settings::default() };
        let mut clients = Vec::new();
        for _ in 0..options.connections.div_ceil(CONNECTIONS_A_CLIENT) {
            let nodes = cluster.nodes.clone();
            let connecting = Client::connect_with(nodes, tls.clone(), settings.clone());
            clients.push(runtime.block_on(connecting)?);
        }
        let state = State {
            clients,
            phase: RefCell::new(Phase::new(&[], 0.0)),
            chance: RefCell::new(Chance::new(1)),
            deadline: options.deadline,
            mode: options.mode,
            begun: Cell::new(0),
            value: vec![b'v'; options.value_bytes].into(),
        };
        Ok(Self { runtime, local: LocalSet::new(), state: Rc::new(state) })
    }

    /// One phase. What it leaves unanswered belongs to the next.
    pub(super) fn run(&mut self, options: &Options, how: Loop, seconds: f64) -> Outcome<Phase> {
        let state = self.state.clone();
        let mut seen = state.unwanted();
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        self.local.block_on(&self.runtime, async {
            let began = Instant::now();
            *state.phase.borrow_mut() = Phase::new(&options.pids, seconds);
            if let Loop::Closed(window) = how {
                for _ in 0..window * options.connections {
                    spawn_local(ask_again_and_again(state.clone(), end));
                }
            }
            let mut offered = 0_u64;
            let mut waiting = VecDeque::new();
            while Instant::now() < end {
                let since = began.elapsed();
                let moment = state.phase.borrow_mut().moment(since);
                let late = state.unwanted();
                state.phase.borrow_mut().moments[moment].late += late - seen;
                seen = late;
                if let Loop::Open(rate) = how {
                    let due = (since.as_secs_f64() * rate) as u64;
                    state.phase.borrow_mut().moments[moment].offered += due - offered;
                    let at = |n: u64| began + Duration::from_secs_f64(n as f64 / rate);
                    waiting.extend((offered..due).map(at));
                    offered = due;
                    while waiting.front().is_some_and(|at| at.elapsed() >= state.deadline / WAIT) {
                        waiting.pop_front();
                        state.phase.borrow_mut().moments[moment].lost += 1;
                    }
                    let few = if state.begun.get() == 0 { waiting.len().min(BATCH) } else { 0 };
                    for (which, at) in waiting.drain(..few).enumerate() {
                        state.begun.set(state.begun.get() + 1);
                        spawn_local(begin(state.clone(), which, at));
                    }
                    if !waiting.is_empty() {
                        tokio::task::yield_now().await;
                        continue;
                    }
                }
                tokio::time::sleep(TICK).await;
            }
        });
        let mut phase = state.phase.replace(Phase::new(&[], 0.0));
        phase.end();
        if let Some(moment) = phase.moments.last_mut() {
            moment.late += state.unwanted() - seen;
        }
        phase.beyond += phase.unwanted();
        Ok(phase)
    }
}

impl State {
    /// Answers that came when nobody waited for them any more.
    fn unwanted(&self) -> u64 {
        self.clients.iter().map(|client| client.tally().unwanted).sum()
    }
}

async fn ask_again_and_again(state: Rc<State>, end: Instant) {
    let mut which = 0;
    while Instant::now() < end {
        if let Some(moment) = state.phase.borrow_mut().moments.last_mut() {
            moment.offered += 1;
        }
        which += 1;
        ask(state.clone(), which, Instant::now()).await;
    }
}

async fn begin(state: Rc<State>, which: usize, due: Instant) {
    state.begun.set(state.begun.get() - 1);
    ask(state, which, due).await;
}

/// One request, which was due at `due`.
async fn ask(state: Rc<State>, which: usize, due: Instant) {
    let asked = Instant::now();
    let left = (due + state.deadline).saturating_duration_since(asked);
    let answer = if left.is_zero() {
        Err(None)
    } else {
        let client = &state.clients[which % state.clients.len()];
        let key = format!("key:{:012}", state.chance.borrow_mut().key());
        let done = match state.mode {
            Mode::Get => client.get(key).timeout(left).await.map(drop),
            Mode::Set => client.put(key, state.value.clone()).timeout(left).await.map(drop),
            Mode::Incr => {
                client.counter(format!("count:{key}")).add(1).timeout(left).await.map(drop)
            }
        };
        done.map_err(Some)
    };
    let (took, over) = (due.elapsed(), asked.elapsed().saturating_sub(left));
    let phase = &mut *state.phase.borrow_mut();
    let Some(moment) = phase.moments.last_mut() else { return };
    match answer {
        Ok(()) if over > TICK => phase.beyond += 1,
        Ok(()) => {
            moment.good += 1;
            moment.took_us.push(took.as_micros() as u32);
        }
        Err(None | Some(ClientError::TimedOut { .. })) => {
            moment.lost += 1;
            moment.overslept += u64::from(over > OVERSLEPT);
        }
        Err(Some(ClientError::Overloaded { .. })) => moment.refused += 1,
        Err(Some(error)) => {
            moment.errors += 1;
            phase.first_error.get_or_insert_with(|| error.to_string());
        }
    }
}
