//! Nodes: one process each, when it lives; machines, store and failure detector as a node has them.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use commands::SessionDefaults;
use replication::message::{Direct, RequestKey};
use replication::{Bug, Config, Effect, Event, Message, Outbox, Peer};
use ring::keyspace::{Conflict, Durability, KeyspacePolicy};
use ring::liveness::{Liveness, NodeState};
use ring::{Actor, Instant, Layout, NodeId, Now, Policies, Slot, WallMillis};
use storage::{Engine, Error, Options};
use store::Store;

use super::clock::Clock;
use super::disk::{self, Platter};
use super::front::{self, Front, Spoken};
use crate::profile::Profile;
use crate::workload::KEPT;

/// A machine with a disk, and a process on it or not.
pub struct Node {
    /// Its number in the layout.
    pub id: NodeId,
    /// What survives.
    pub platter: Platter,
    /// Its clocks.
    pub clock: Clock,
    /// The process.
    pub life: Option<Life>,
    /// How many processes there were.
    pub starts: u64,
    /// It stands still until then.
    pub paused_until: u64,
    /// The newest layout that it was told of.
    pub layout: Arc<Layout>,
}

/// A process.
pub struct Life {
    /// Which start of the node it is.
    pub number: u64,
    /// Who it mints for.
    pub actor: Actor,
    /// The engine under its stores.
    pub engine: Arc<Engine>,
    /// Its cores.
    pub cores: Vec<Core>,
    /// Whom it believes to be there.
    pub liveness: Liveness,
}

/// One core of a process.
pub struct Core {
    /// Which one of how many.
    pub index: usize,
    /// How many there are.
    pub cores: usize,
    /// Mistakes planted in its sessions.
    pub session_bugs: Vec<commands::Bug>,
    /// Its machine.
    pub peer: Peer,
    /// Its part of the engine.
    pub store: Store,
    /// Its clients that speak RESP.
    pub front: Front,
    /// What has happened and was not looked at yet.
    pub inbox: VecDeque<Input>,
    /// A turn is planned.
    pub turn_planned: bool,
    /// The moment of the earliest tick that is planned.
    pub tick_planned: Option<u64>,
    /// What must not leave before the log is written.
    pub held: Held,
    /// The disk is full: nothing is looked at before the log is written.
    pub stalled: bool,
    /// Clocks of the last rotation are not in rows yet.
    pub saving: bool,
}

/// Something for a core to look at.
#[derive(Debug)]
pub enum Input {
    /// An event.
    Event(Event),
    /// A reading of the disk that answers with what is there now.
    Perform(Effect),
    /// A client has connected.
    Open(u64, Arc<SessionDefaults>),
    /// Bytes came from a client.
    Bytes(u64, Rc<[u8]>),
    /// A client has gone.
    Close(u64),
    /// Another core's machine has answered what a session here asked.
    Answered(u64, Box<replication::Answer>),
}

/// What leaves once the log is written.
#[derive(Debug, Default)]
pub struct Held {
    /// Messages in order.
    pub sends: Vec<(NodeId, Message)>,
    /// Answers to clients.
    pub answers: Vec<(u64, replication::Answer)>,
    /// What clients are to hear of writes that other nodes coordinate.
    pub acks: Vec<Ack>,
    /// Requests that were taken in whose clients hear replicas.
    pub asked: Vec<u64>,
    /// Replies of sessions.
    pub spoken: Vec<Spoken>,
    /// For other cores of the process.
    pub mail: Vec<(usize, Input)>,
    /// Applies that are as durable as was asked once the log is written.
    pub applied: Vec<u64>,
    /// Applies that wait for an fsync behind that.
    pub to_sync: Vec<u64>,
}

/// A write that is held here: see [`Effect::Acknowledge`].
#[derive(Debug)]
pub struct Ack {
    /// Its coordinator.
    pub to: NodeId,
    /// Its client's name for it.
    pub request: RequestKey,
    /// The coordinator's number of it.
    pub token: u64,
    /// Its slot.
    pub slot: Slot,
    /// What the client is told.
    pub direct: Box<Direct>,
    /// When the coordinator asked.
    pub made: Instant,
}

/// What a turn asks of the world at once.
#[derive(Debug)]
pub enum Outside {
    /// Answer a reading of the disk later; it shows this moment.
    Later(Event),
    /// Read the disk later, and show that moment.
    Read(Effect),
    /// Persist the clock's ceiling.
    Ceiling(WallMillis),
    /// The core says that it is ready, or is not.
    Ready(bool),
    /// Exchange layouts.
    FetchLayout(NodeId),
    /// The process must stop.
    Die(String),
    /// The machine says that it must not go on.
    Fatal(String),
}

/// The engine's options under a profile.
#[must_use]
pub fn options(profile: &Profile) -> Options {
    Options {
        memtable_bytes: profile.memtable_bytes,
        log_segment_bytes: profile.memtable_bytes as u64,
        log_retain_bytes: profile.log_retain_bytes,
        tolerate_damage: false,
        // Every second seed keeps nearly all values beside the tables.
        large_value_bytes: if profile.seed % 2 == 1 { 20 } else { usize::MAX },
        planted_bugs: profile.storage_bugs.clone(),
        ..Options::small()
    }
}

/// The terms of keyspaces with which nodes start.
pub(crate) const fn policy(profile: &Profile) -> KeyspacePolicy {
    KeyspacePolicy {
        n: 3,
        read: profile.read,
        write: profile.write,
        durability: profile.durability,
        conflict: Conflict::Lww,
        ttl_ms: None,
    }
}

/// The terms of all keyspaces, where most have these.
pub(crate) fn policies(default: KeyspacePolicy) -> Arc<Policies> {
    let kept = KeyspacePolicy { conflict: Conflict::Siblings, ..default };
    Arc::new(Policies { default, own: vec![(KEPT, kept)], closed: Vec::new() })
}

impl Node {
    /// Starts a process.
    ///
    /// # Errors
    /// What keeps the store from opening.
    pub fn start(&mut self, profile: &Profile, now: Now, seed: u64) -> Result<(), String> {
        let same = profile.bugs.contains(&Bug::ReusesDots);
        let mut opened = self.platter.open(options(profile), profile.cores);
        if matches!(opened, Err(storage::OpenError::Damaged { .. })) {
            // As the operator is told to: the store is moved away, the node's state is kept.
            self.platter.files = storage::MemoryDisk::new(seed);
            self.platter.memory.suspect = true;
            self.platter.memory.clean = false;
            opened = self.platter.open(options(profile), profile.cores);
        }
        let opened = opened.map_err(|e| e.to_string())?;
        let floor = self.platter.floor(now.wall);
        let resumed = self.platter.memory.clean;
        let incarnation = self.platter.begin_life(same);
        let actor = Actor { node: self.id, incarnation };
        let policies = policies(policy(profile));
        let mut cores = Vec::new();
        for (core, (store, recovery)) in
            opened.stores.into_iter().zip(opened.recoveries).enumerate()
        {
            let config = Config {
                me: actor,
                core: core as u8,
                cores: profile.cores,
                layout: self.layout.clone(),
                policies: policies.clone(),
                hlc_floor: floor,
                hlc_ceiling: self.platter.memory.ceiling,
                resumed,
                // The planted bug goes on as if nothing had happened.
                amnesia: self.platter.memory.suspect && !same,
                seed,
                bugs: profile.bugs.clone(),
            };
            cores.push(Core {
                index: core,
                cores: usize::from(profile.cores),
                session_bugs: profile.session_bugs.clone(),
                peer: Peer::new(config, recovery),
                store,
                front: Front::new(core as u8),
                inbox: VecDeque::new(),
                turn_planned: false,
                tick_planned: None,
                held: Held::default(),
                stalled: false,
                saving: false,
            });
        }
        let mut liveness = Liveness::new(now.mono, self.id);
        let members = self.layout.members.values().map(|m| (m.id, m.incarnation));
        liveness.set_members(now.mono, members.collect::<Vec<_>>());
        liveness.set_state(NodeState::CatchingUp);
        self.starts += 1;
        self.life =
            Some(Life { number: self.starts, actor, engine: opened.engine, cores, liveness });
        Ok(())
    }
}

/// What a turn has around it.
struct Around<'a> {
    me: Actor,
    now: Now,
    engine: &'a Engine,
    disk: Disk,
    watch: &'a mut dyn Watch,
    outside: &'a mut Vec<Outside>,
}

/// What a core's turn tells those who watch.
pub trait Watch {
    /// Changes are about to be applied.
    fn applied(&mut self, me: Actor, changes: &[replication::RowChange]);
    /// A message of an older epoch than its slot's last change was looked at; these came of it.
    fn stale(&mut self, me: Actor, slot: Slot, effects: &[Effect]);
}

impl Core {
    /// Looks at what has happened, carries out what follows, and writes the log. False if the disk
    /// is full: then what is held has to wait.
    pub fn turn(
        &mut self,
        (me, now): (Actor, Now),
        engine: &Engine,
        disk: Disk,
        watch: &mut dyn Watch,
        outside: &mut Vec<Outside>,
    ) -> bool {
        let mut around = Around { me, now, engine, disk, watch, outside };
        let mut looked_at = 0;
        while looked_at < TURN_INPUTS_MAX
            && let Some(input) = self.inbox.pop_front()
        {
            looked_at += 1;
            let done =
                self.look_at(&mut around, input).and_then(|()| self.ask_for_sessions(&mut around));
            if let Err(why) = done {
                around.outside.push(Outside::Die(why));
                return false;
            }
        }
        self.held.spoken.extend(self.front.take_spoken());
        match self.store.commit() {
            Ok(()) => true,
            Err(Error::NoSpace) => {
                self.stalled = true;
                false
            }
            Err(e) => {
                outside.push(Outside::Die(format!("commit: {e}")));
                false
            }
        }
    }

    fn look_at(&mut self, around: &mut Around<'_>, input: Input) -> Result<(), String> {
        match input {
            Input::Event(event) => {
                return self.happens(around, event);
            }
            Input::Perform(effect) => {
                for event in self.read(around.engine, effect)?.into_iter().rev() {
                    self.inbox.push_front(Input::Event(event));
                }
            }
            Input::Open(conn, defaults) => {
                self.front.open(conn, &defaults, self.session_bugs.clone());
            }
            Input::Bytes(conn, bytes) => self.front.bytes(around.now, conn, &bytes),
            Input::Answered(id, answer) => self.front.answered(around.now, id, *answer),
            Input::Close(conn) => {
                for id in self.front.close(conn) {
                    // The core that works on it is not remembered; each one passes over what is not
                    // its own.
                    for core in 0..self.cores {
                        let event = Event::Cancel(id);
                        if core == self.index {
                            self.happens(around, event)?;
                        } else {
                            self.held.mail.push((core, Input::Event(event)));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Hands in what sessions ask, until they ask nothing more.
    fn ask_for_sessions(&mut self, around: &mut Around<'_>) -> Result<(), String> {
        loop {
            let asking = self.front.take_asking();
            if asking.is_empty() {
                return Ok(());
            }
            for front::Asking { id, request, timeout_us } in asking {
                let core = request.slot().core(self.cores);
                let event = Event::Submit { id, request, timeout_us };
                if core == self.index {
                    self.happens(around, event)?;
                } else {
                    self.held.mail.push((core, Input::Event(event)));
                }
            }
        }
    }

    fn happens(&mut self, around: &mut Around<'_>, event: Event) -> Result<(), String> {
        let stale_slot = match &event {
            Event::Received { epoch, message, .. } => {
                message.slot().filter(|s| *epoch < self.peer.fence_of(*s) && is_request(message))
            }
            _ => None,
        };
        if let Event::SubmitNamed { named, .. } = &event
            && named.direct
        {
            self.held.asked.push(named.request.n);
        }
        let mut out = Outbox::new();
        self.peer.on_event(around.now, event, &mut out);
        if let Some(slot) = stale_slot {
            around.watch.stale(around.me, slot, &out);
        }
        for effect in out {
            self.carry_out(around, effect)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, around: &mut Around<'_>, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Answer { id, answer } => match front::core_of(id) {
                None => self.held.answers.push((id, answer)),
                Some(core) if core == self.index => self.front.answered(around.now, id, answer),
                Some(core) => self.held.mail.push((core, Input::Answered(id, Box::new(answer)))),
            },
            Effect::Send { to, message } => self.held.sends.push((to, message)),
            Effect::Acknowledge { to, request, token, slot, direct, made } => {
                self.held.acks.push(Ack { to, request, token, slot, direct, made });
            }
            // For figures only.
            Effect::Told { .. } => {}
            Effect::Apply { token, changes, durability } => {
                around.watch.applied(around.me, &changes);
                self.store.apply(&changes).map_err(|e| format!("apply: {e}"))?;
                match durability {
                    Durability::Os => self.held.applied.push(token),
                    Durability::Sync => self.held.to_sync.push(token),
                }
            }
            Effect::Load { .. }
            | Effect::List { .. }
            | Effect::ReadRows { .. }
            | Effect::ReadSpan { .. }
            | Effect::ScanLog { .. } => match around.disk {
                Disk::LooksLate => around.outside.push(Outside::Read(effect)),
                Disk::AnswersLate => {
                    let events = self.read(around.engine, effect)?;
                    around.outside.extend(events.into_iter().map(Outside::Later));
                }
                Disk::AtOnce => {
                    let events = self.read(around.engine, effect)?;
                    self.inbox.extend(events.into_iter().map(Input::Event));
                }
            },
            Effect::RaiseCeiling(to) => around.outside.push(Outside::Ceiling(to)),
            Effect::Ready(ready) => around.outside.push(Outside::Ready(ready)),
            Effect::FetchLayout { from } => around.outside.push(Outside::FetchLayout(from)),
            Effect::Fatal(why) => around.outside.push(Outside::Fatal(why)),
        }
        Ok(())
    }

    fn read(&mut self, engine: &Engine, effect: Effect) -> Result<Vec<Event>, String> {
        Ok(match effect {
            Effect::Load { token, rows } => {
                let records = self.store.load(&rows).map_err(|e| format!("load: {e}"))?;
                vec![Event::Loaded { token, records }]
            }
            Effect::List { token, keyspace, from, from_hash, last, count } => {
                let listed = self.store.list(keyspace, (from, from_hash), last, count)?;
                vec![Event::Listed { token, rows: listed.rows, next: listed.next }]
            }
            Effect::ReadRows { token, slot, from, bytes } => {
                // So few at a time that a state takes several parts.
                let bytes = bytes.min(2_000);
                let (rows, next) = self
                    .store
                    .read_rows(slot, &from, bytes)
                    .map_err(|e| format!("read rows: {e}"))?;
                vec![Event::RowsRead { token, rows, next }]
            }
            Effect::ReadSpan { token, span } => {
                let read = self.store.read_span(&span);
                let (rows, next) = read.map_err(|e| format!("read a span: {e}"))?;
                vec![Event::RowsRead { token, rows, next }]
            }
            Effect::ScanLog { token, wanted } => {
                let deltas = disk::deltas_in_log(engine, &wanted).map_err(|e| e.to_string())?;
                let parts = deltas.chunks(16).map(<[_]>::to_vec);
                let mut events: Vec<Event> =
                    parts.map(|deltas| Event::LogFound { token, deltas }).collect();
                events.push(Event::LogScanned { token });
                events
            }
            _ => Vec::new(),
        })
    }
}

/// When a reading of the disk is answered, and which moment it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// In the same turn.
    AtOnce,
    /// Later, with what was there when it was asked.
    AnswersLate,
    /// Later, with what is there then.
    LooksLate,
}

/// Events looked at in one turn.
const TURN_INPUTS_MAX: usize = 64;

fn is_request(message: &Message) -> bool {
    matches!(
        message,
        Message::Replicate { .. }
            | Message::Read { .. }
            | Message::Install { .. }
            | Message::Forward { .. }
            | Message::List { .. }
            | Message::Walk { .. }
            | Message::Count { .. }
    )
}
