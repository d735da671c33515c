//! Peer: the replication machine of one core of a node.
//!
//! It coordinates requests for slots of its core, answers its peers about them, and brings a
//! returning replica up to date. Pure: what happens goes in as [`Event`]s with the time, what follows
//! comes out as [`crate::Effect`]s, and the same events give the same effects. Nothing in it belongs
//! to another core; the slots of a core are its alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use ring::keyspace::{Durability, KeyspacePolicy, Level, ReplicaSet};
use ring::{
    Actor, Hlc, HlcClock, Incarnation, Instant, Layout, NodeId, Now, Policies, Slot, WallMillis,
};

use smallvec::{SmallVec, smallvec};

use crate::bugs::Bug;
use crate::catchup::{Join, Pulls, Serve};
use crate::coordinator::{Body, Flow, Job, Origin, Replicas, Stage, Wanted};
use crate::event::{Effect, Event, Outbox, RowChange};
use crate::known::{Closed, Known};
use crate::limits::{CEILING_AHEAD, CEILING_LOW, LOOK_EVERY};
use crate::message::RequestKey;
use crate::op::{Answer, TaskError};
use crate::recovery::Recovery;
use crate::replica::Served;
use crate::row::{Keyspace, Row};
use crate::slab::{Key, Slab, Token};
use crate::slots::Slots;
use crate::stats::Stats;

/// What a machine is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who it mints for: this node in this life.
    pub me: Actor,
    /// Which core this is, and of how many.
    pub core: u8,
    /// How many cores the node uses.
    pub cores: u8,
    /// The layout in force.
    pub layout: Arc<Layout>,
    /// The terms of keyspaces in force.
    pub policies: Arc<Policies>,
    /// No stamp below this: the lower of the ceiling that the previous life left on disk and what the
    /// wall clock can explain. Stamps found in the log raise it further.
    pub hlc_floor: WallMillis,
    /// The ceiling that is on disk now.
    pub hlc_ceiling: WallMillis,
    /// True if the life goes on after a clean end. The process before may have minted for requests of
    /// which the log tells no more: a retry of what was sent before that end is not minted.
    pub resumed: bool,
    /// True if acknowledged writes may be lost: the machine lost power, or the log is damaged. The
    /// replica then answers nothing before it has pulled from every other replica. A damaged store
    /// must be emptied first: clocks that claim what the damage took would have joins delete it.
    pub amnesia: bool,
    /// Chance for choosing peers and spreading retries.
    pub seed: u64,
    /// Planted bugs; empty but in the simulator.
    pub bugs: Vec<Bug>,
}

/// The machine.
#[derive(Debug)]
pub struct Peer {
    pub(crate) cfg: Config,
    /// The layout's last change of each slot, by epoch.
    last_changes: Vec<u64>,
    pub(crate) hlc: HlcClock,
    ceiling_asked: WallMillis,
    pub(crate) slots: Slots,
    pub(crate) known: Known,
    /// Requests that were first sent by then may have been minted by a process of this life before this.
    pub(crate) not_known_before: WallMillis,
    pub(crate) closed: Closed,
    pub(crate) up: BTreeSet<NodeId>,
    ready_peers: BTreeSet<NodeId>,
    /// The latest lives of the others.
    pub(crate) lives: BTreeMap<NodeId, Incarnation>,
    pub(crate) ready: bool,
    /// Our disk has no room.
    pub(crate) full: bool,
    /// Peers that said the same of theirs, and have not been ready since.
    pub(crate) full_peers: BTreeSet<NodeId>,
    pub(crate) started: Instant,
    begun: bool,
    seen: Instant,
    pub(crate) fatal: Option<String>,

    pub(crate) jobs: Slab<Job>,
    pub(crate) in_flight: BTreeMap<RequestKey, Key>,
    pub(crate) locks: BTreeMap<Row, SmallVec<[Key; 2]>>,
    pub(crate) woken: Vec<Key>,
    pub(crate) waking: bool,
    /// Finished writes and how many replicas had acknowledged them, oldest first.
    pub(crate) settled: VecDeque<(u64, u8)>,
    pub(crate) next_look: Option<Instant>,
    pub(crate) last_request: u64,
    turn: usize,

    /// Answers of jobs that are parts of others.
    pub(crate) parts_answered: Vec<(Key, Answer)>,

    pub(crate) served: Slab<Served>,

    pub(crate) pulls: BTreeMap<NodeId, Pulls>,
    pub(crate) last_pull: u64,
    /// A slot's state is being pulled.
    pub(crate) pulls_state: bool,
    pub(crate) joins: Slab<Join>,
    pub(crate) serves: Slab<Serve>,
    pub(crate) serves_waiting: Vec<Key>,
    pub(crate) serves_scanning: Vec<Key>,
    pub(crate) log_scan: u64,
    pub(crate) last_serving: u64,

    /// Slots whose clocks were not in rows when the checkpoint began, and are not yet.
    unsaved: Vec<Slot>,

    pub(crate) stats: Stats,
    /// What deltas are encoded in.
    pub(crate) scratch: Vec<u8>,
}

impl Peer {
    /// A machine that has recovered this.
    #[must_use]
    pub fn new(config: Config, recovery: Recovery) -> Self {
        let floor = config.hlc_floor.max(recovery.hlc.wall());
        let ceiling = config.hlc_ceiling.max(floor);
        let seed = config.seed as usize;
        let epoch = config.layout.epoch.0;
        let life = config.me.incarnation;
        let amnesia = config.amnesia || recovery.unreadable > 0;
        Self {
            last_changes: vec![epoch; usize::from(ring::SLOTS)],
            hlc: HlcClock::new(floor, ceiling),
            ceiling_asked: ceiling,
            slots: recovery.slots,
            known: recovery.known,
            not_known_before: if config.resumed { floor } else { WallMillis(0) },
            closed: Closed::default(),
            up: BTreeSet::new(),
            ready_peers: BTreeSet::new(),
            lives: BTreeMap::new(),
            ready: false,
            full: false,
            full_peers: BTreeSet::new(),
            started: Instant(0),
            begun: false,
            seen: Instant(0),
            fatal: None,
            jobs: Slab::new(life),
            in_flight: BTreeMap::new(),
            locks: BTreeMap::new(),
            woken: Vec::new(),
            waking: false,
            settled: VecDeque::new(),
            next_look: None,
            last_request: 0,
            turn: seed,
            parts_answered: Vec::new(),
            served: Slab::new(life),
            pulls: BTreeMap::new(),
            pulls_state: false,
            last_pull: u64::from(life.0) << 32,
            joins: Slab::new(life),
            serves: Slab::new(life),
            serves_waiting: Vec::new(),
            serves_scanning: Vec::new(),
            log_scan: 0,
            last_serving: u64::from(life.0) << 32,
            unsaved: Vec::new(),
            stats: Stats::default(),
            scratch: Vec::new(),
            cfg: Config { amnesia, ..config },
        }
    }

    /// Something happened at `now`; what follows from it is appended to `out`.
    pub fn on_event(&mut self, now: Now, event: Event, out: &mut Outbox) {
        if !self.begun {
            self.begun = true;
            self.started = now.mono;
            self.consider_ready(now, out);
        }
        if self.fatal.is_some() {
            return;
        }
        self.handle(now, event, out);
        self.keep_ceiling(now, out);
        if self.jobs.len() > 0 && self.next_look.is_none() {
            self.next_look = Some(now.mono + LOOK_EVERY);
        }
        if let Some(why) = &self.fatal {
            out.push(Effect::Fatal(why.clone()));
        }
    }

    fn handle(&mut self, now: Now, event: Event, out: &mut Outbox) {
        match event {
            Event::Submit { id, request, timeout_us } => {
                self.on_submit(now, id, request, timeout_us, out);
            }
            Event::SubmitNamed { id, request, timeout_us, named } => {
                self.on_submit_named(now, id, request, (timeout_us, named), out);
            }
            Event::Cancel(id) => self.on_cancel(id),
            Event::Heard { hlc } => drop(self.merge_clock(now, hlc, self.me())),
            Event::Received { from, epoch, hlc, made, message } => {
                let skewed = self.merge_clock(now, hlc, from);
                if epoch > self.epoch() {
                    out.push(Effect::FetchLayout { from });
                }
                self.on_message(now, from, (epoch, skewed, made), message, out);
            }
            Event::Loaded { token, records } => match Token::from_u64(token) {
                Token::Job(key) => self.with_job(now, key, out, |peer, job, out| match &job.body {
                    Body::Read(_) => peer.read_loaded(now, job, &records, out),
                    Body::Share(_) => peer.share_loaded(now, job, &records, out),
                    _ => peer.gather_loaded(now, key, job, &records, out),
                }),
                Token::Served(key) => self.served_loaded(key, &records, out),
                Token::Join(_) | Token::Pull(_) | Token::Nobody => {}
            },
            Event::LoadFailed { token } => match Token::from_u64(token) {
                Token::Job(key) => self.with_job(now, key, out, |peer, job, out| match &job.body {
                    Body::Read(_) => peer.read_load_failed(now, key, job, out),
                    Body::Share(_) => peer.share_load_failed(job, out),
                    Body::Range(_) => peer.range_read_failed(now, key, job, out),
                    _ => peer.job_load_failed(now, key, job, out),
                }),
                Token::Served(key) => self.served_load_failed(key, out),
                Token::Join(_) | Token::Pull(_) | Token::Nobody => {}
            },
            Event::Applied { token, failed } => match Token::from_u64(token) {
                Token::Job(key) => self.with_job(now, key, out, |peer, job, out| match &job.body {
                    Body::Flush(_) if failed.is_none() => {
                        let me = peer.me();
                        peer.flush_acked(key, job, (me, 0), out)
                    }
                    _ => peer.write_applied(now, key, job, failed, out),
                }),
                Token::Served(key) => self.served_applied(now, key, failed, out),
                Token::Join(_) | Token::Pull(_) | Token::Nobody => {}
            },
            Event::Listed { token, rows, next } => match Token::from_u64(token) {
                Token::Job(key) => self.with_job(now, key, out, |peer, job, out| {
                    peer.job_listed(now, key, job, rows, next, out)
                }),
                Token::Served(key) => self.served_listed(now, key, rows, next, out),
                Token::Join(_) | Token::Pull(_) | Token::Nobody => {}
            },
            Event::RowsRead { token, rows, next } => match Token::from_u64(token) {
                Token::Join(key) => self.join_read(now, key, &rows, next, out),
                Token::Pull(key) => self.serve_read(key, rows, next, out),
                Token::Job(key) => self.with_job(now, key, out, |peer, job, out| {
                    peer.range_read(now, key, job, (rows, next), out)
                }),
                Token::Served(key) => self.served_walked(key, &rows, next, out),
                Token::Nobody => {}
            },
            Event::LogFound { token, deltas } => self.log_found(token, &deltas, out),
            Event::LogScanned { token } => self.log_scanned(token, out),
            Event::LinkUp(node) => self.on_link_up(now, node, out),
            Event::RoomIs(room) => self.on_room(now, room, out),
            Event::PeerIs { node, up, ready, incarnation } => {
                self.on_peer_is(now, node, (up, ready, incarnation), out);
            }
            Event::LayoutIs(layout) => self.on_layout(layout),
            Event::PoliciesAre(policies) => self.cfg.policies = policies,
            Event::CeilingRaised(to) => self.hlc.raise_ceiling(to),
            Event::Tick => {}
        }
        // Housekeeping is due by time, not by ticks: a busy machine never waits for one.
        self.look_over_jobs(now, out);
        self.gather_parts(now, out);
        if self.pulls_wait() {
            self.look_over_pulls(now, out);
        }
    }

    /// When [`Event::Tick`] is due, if nothing else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.fatal.is_some() {
            return None;
        }
        let pulls = self.pulls_wait().then(|| self.last_seen() + LOOK_EVERY * 20);
        let ceiling = Some(self.last_seen() + CEILING_LOW / 2);
        [self.next_look, pulls, ceiling].into_iter().flatten().min()
    }

    /// The stamp to put on a frame that leaves now.
    #[must_use]
    pub fn hlc(&self, now: Now) -> Hlc {
        self.hlc.peek(now.wall)
    }

    /// The epoch to put on a frame.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.cfg.layout.epoch.0
    }

    /// The layout in force.
    #[must_use]
    pub fn layout(&self) -> &Arc<Layout> {
        &self.cfg.layout
    }

    /// True once this replica serves.
    #[must_use]
    pub const fn is_serving(&self) -> bool {
        self.ready
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            in_flight: self.jobs.len() as u64,
            known_requests: self.known.len() as u64,
            ..self.stats
        }
    }

    /// Gaps in the clocks of the slots that this node keeps for every keyspace: writes that it knows to lack. Of another
    /// slot a keyspace with fewer copies passes it over: what its clock lacks there need not be missing. Looks at
    /// `count` of this core's slots, from the `first`-th on; nothing if that was all, since all at once takes milliseconds.
    #[must_use]
    pub fn clock_gaps(&self, first: usize, count: usize) -> Option<u64> {
        let policies = &self.cfg.policies;
        let own = policies.own.iter().map(|(_, terms)| terms.n);
        let fewest = own.fold(policies.default.n, u8::min);
        let keeps = |slot: &Slot| {
            let replicas = self.cfg.layout.replicas_for(*slot, fewest);
            // Whoever is no replica at all has no excuse: it has moved away, or its layout is old.
            replicas.contains(&self.me()) || !self.cfg.layout.replicas(*slot).contains(&self.me())
        };
        let mut looked_at = self.slots.all().skip(first).take(count).peekable();
        looked_at.peek()?;
        Some(looked_at.filter(keeps).map(|slot| self.slots.clock(slot).gaps() as u64).sum())
    }

    /// The clock of a slot: everything that this replica has applied of it.
    #[must_use]
    pub fn slot_clock(&self, slot: Slot) -> Option<&crate::causality::DotSet> {
        self.slots.owns(slot).then(|| self.slots.clock(slot))
    }

    /// The epoch in which a slot's replicas last changed, as this node knows it.
    #[must_use]
    pub fn fence_of(&self, slot: Slot) -> u64 {
        self.last_changes[slot.index()]
    }

    /// Clock rows of every slot that changed since its last one: to be applied before what the engine's log tells of
    /// these changes may go.
    pub fn checkpoint(&mut self) -> Vec<RowChange> {
        self.begin_checkpoint();
        self.checkpoint_some(usize::MAX)
    }

    /// The log ends here: what [`Peer::checkpoint_some`] gives from now on has to be applied before it may go.
    pub fn begin_checkpoint(&mut self) {
        self.unsaved = self.slots.all().filter(|s| self.slots.get(*s).dirty).collect();
    }

    /// At most so many of the rows that are left, each with all that is known when it is given; none: that was all.
    pub fn checkpoint_some(&mut self, most: usize) -> Vec<RowChange> {
        let mut rows = Vec::new();
        while rows.len() < most
            && let Some(slot) = self.unsaved.pop()
        {
            if core::mem::take(&mut self.slots.get_mut(slot).dirty) {
                rows.push(self.slots.clock_row(slot));
            }
        }
        rows
    }

    /// How many slots [`Peer::checkpoint_some`] has not looked at yet.
    #[must_use]
    pub fn unsaved(&self) -> usize {
        self.unsaved.len()
    }

    pub(crate) const fn me(&self) -> NodeId {
        self.cfg.me.node
    }

    pub(crate) fn has_bug(&self, bug: Bug) -> bool {
        self.cfg.bugs.contains(&bug)
    }

    /// The policy of a keyspace.
    #[must_use]
    pub fn policy(&self, keyspace: Keyspace) -> &KeyspacePolicy {
        self.cfg.policies.of(keyspace)
    }

    /// The replicas of a slot for a keyspace.
    pub(crate) fn replicas_of(&self, slot: Slot, keyspace: Keyspace) -> &[NodeId] {
        self.cfg.layout.replicas_for(slot, self.policy(keyspace).n)
    }

    pub(crate) fn replicas(&self, slot: Slot, keyspace: Keyspace) -> Replicas {
        Replicas::from_slice(self.replicas_of(slot, keyspace))
    }

    /// What a level takes of these replicas.
    pub(crate) fn wanted(&self, level: Level, replicas: &[NodeId]) -> Result<Wanted, TaskError> {
        let region = self.cfg.layout.region_of(self.me()).unwrap_or_default();
        match level.needs(&self.cfg.layout, region, replicas) {
            Ok(needs) => Ok(Wanted { level, needs }),
            Err(error) => Err(TaskError::BadLevel(error.to_string())),
        }
    }

    /// Which of these replicas are there and can take a write, or are ready if they must be.
    pub(crate) fn alive(&self, replicas: &[NodeId], must_be_ready: bool) -> ReplicaSet {
        let takes = |n: &NodeId| self.up.contains(n) && !self.full_peers.contains(n);
        let is_there = |n: &NodeId| {
            if must_be_ready { self.is_ready(*n) } else { *n == self.me() || takes(n) }
        };
        replicas.iter().enumerate().filter(|(_, n)| is_there(n)).map(|(i, _)| i).collect()
    }

    pub(crate) fn is_ready(&self, node: NodeId) -> bool {
        if node == self.me() {
            self.ready
        } else {
            self.up.contains(&node) && self.ready_peers.contains(&node)
        }
    }

    /// The first replica, in order of preference, that is there and ready.
    pub(crate) fn preferred(&self, replicas: &[NodeId]) -> Option<NodeId> {
        replicas.iter().copied().find(|n| self.is_ready(*n))
    }

    /// Whether a message to a replica is worth its while: it is there, or liveness may be wrong
    /// because too few are.
    pub(crate) fn worth_sending(&self, node: NodeId, replicas: &[NodeId]) -> bool {
        let there = replicas.iter().filter(|n| **n == self.me() || self.up.contains(n)).count();
        self.up.contains(&node) || there * 2 <= replicas.len()
    }

    /// Whether the layout in force makes this node a replica of the slot.
    pub(crate) fn layout_has_me(&self, slot: Slot) -> bool {
        self.cfg.layout.is_replica(self.me(), slot)
    }

    pub(crate) fn last_change(&self, slot: Slot) -> u64 {
        self.last_changes[slot.index()]
    }

    /// A number that spreads choices over replicas.
    pub(crate) const fn rotation(&mut self) -> usize {
        self.turn = self.turn.wrapping_add(1);
        self.turn
    }

    /// The moment by which expiry is judged: the hybrid clock's, so that it never runs backwards.
    pub(crate) fn judged_now(&self, now: Now) -> WallMillis {
        now.wall.max(self.hlc.last().wall())
    }

    pub(crate) fn encoded_clock(&self, slot: Slot) -> Bytes {
        self.slots.clock(slot).to_bytes()
    }

    /// Forgets pending discards of a record that the slot clock covers by now.
    pub(crate) fn strip(&self, row: &Row, record: &[u8], out: &mut Outbox) {
        let record = crate::record::Record::decode(record);
        if let Some(change) = record.and_then(|r| self.slots.strip(row, &r)) {
            self.apply_unasked(change, out);
        }
    }

    /// Applies a change that nobody waits for.
    pub(crate) fn apply_unasked(&self, change: RowChange, out: &mut Outbox) {
        out.push(Effect::Apply {
            token: Token::Nobody.to_u64(),
            changes: smallvec![change],
            durability: Durability::Os,
        });
    }

    /// A replica acknowledged a batch: of a task, or of a flush.
    pub(crate) fn job_replicated(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        (from, part, told_us): (NodeId, u32, u32),
        out: &mut Outbox,
    ) -> Flow {
        self.full_peers.remove(&from);
        match &job.body {
            Body::Flush(_) => self.flush_acked(key, job, (from, part), out),
            _ => self.write_replicated(now, key, job, (from, told_us), out),
        }
    }

    fn on_cancel(&mut self, id: u64) {
        for key in self.jobs.keys() {
            let Some(job) = self.jobs.get_mut(key) else { continue };
            job.origin = match job.origin {
                Origin::Local(owner) if owner == id => Origin::Nobody,
                // It keeps its name: whoever asks for it again must find it.
                Origin::Named { id: Some(owner), request, .. } if owner == id => {
                    Origin::Named { id: None, request, direct: false }
                }
                _ => continue,
            };
            // What is minted goes on to all replicas; what only reads may stop at once.
            let minted = match &job.body {
                Body::Task(t) => t.is_minted() || matches!(t.stage, Stage::Queued),
                Body::Forward(_) | Body::Flush(_) => true,
                Body::Range(r) => r.has_part(),
                Body::Read(_) | Body::Share(_) | Body::Scan(_) | Body::Count(_) => false,
            };
            if !minted {
                job.deadline = Instant(0);
            }
        }
    }

    fn on_peer_is(
        &mut self,
        now: Now,
        node: NodeId,
        (up, ready, life): (bool, bool, Incarnation),
        out: &mut Outbox,
    ) {
        self.lives.insert(node, life);
        if up {
            self.up.insert(node);
        } else {
            self.up.remove(&node);
        }
        if up && ready {
            self.ready_peers.insert(node);
        } else {
            self.ready_peers.remove(&node);
        }
        if ready || !up {
            self.full_peers.remove(&node);
        }
        if !up {
            self.next_look = Some(now.mono);
        }
        self.consider_ready(now, out);
    }

    /// A replica refuses something of a write on account of its disk. Whether it has no room for it: then it says
    /// of itself that it is not ready, and it is asked again until that is heard. One that is ready could not read.
    pub(crate) fn has_no_room(&mut self, node: NodeId) -> bool {
        let is_full = self.up.contains(&node) && !self.ready_peers.contains(&node);
        if is_full {
            self.full_peers.insert(node);
        }
        is_full
    }

    fn on_layout(&mut self, layout: Arc<Layout>) {
        if layout.epoch <= self.cfg.layout.epoch {
            return;
        }
        for slot in Slot::all() {
            if layout.replicas(slot) != self.cfg.layout.replicas(slot) {
                self.last_changes[slot.index()] = layout.epoch.0;
            }
        }
        self.cfg.layout = layout;
    }

    fn keep_ceiling(&mut self, now: Now, out: &mut Outbox) {
        let wall = self.judged_now(now).0;
        if wall + CEILING_LOW.as_millis() as u64 > self.ceiling_asked.0 {
            self.ceiling_asked = WallMillis(wall + CEILING_AHEAD.as_millis() as u64);
            out.push(Effect::RaiseCeiling(self.ceiling_asked));
        }
        self.seen = now.mono;
    }

    const fn last_seen(&self) -> Instant {
        self.seen
    }
}
