//! What nodes do: turns, frames, failure detection, fsyncs, chores, starts and ends.

use std::rc::Rc;
use std::sync::Arc;

use replication::{Bug, Effect, Event, Message, RowChange};
use ring::liveness::{self, NodeState};
use ring::{Actor, Hlc, Incarnation, Instant, NodeId, Slot};
use storage::Crash;
use wire::codec;
use wire::frame::{FrameDecoder, FrameWriter, Header, Kind};

use super::{Happening, World};
use crate::check::fence;
use crate::check::truth::Truth;
use crate::sim::clock::{MS, SECOND};
use crate::sim::network::Lane;
use crate::sim::node::{Disk, Held, Input, Outside, Watch};

/// Watches a turn for the checks.
struct Watcher<'a> {
    truth: &'a mut Truth,
    now: u64,
    turn: u64,
}

impl Watch for Watcher<'_> {
    fn applied(&mut self, me: Actor, changes: &[RowChange]) {
        self.truth.applied(self.now, self.turn, me, changes);
    }

    fn stale(&mut self, me: Actor, slot: Slot, effects: &[Effect]) {
        fence::check(self.truth, me, slot, effects);
    }
}

impl World {
    /// Puts something into a core's inbox and plans a turn.
    pub(crate) fn put(&mut self, node: usize, core: usize, input: Input) {
        let paused_until = self.nodes[node].paused_until;
        let Some(life) = &mut self.nodes[node].life else { return };
        let c = &mut life.cores[core];
        c.inbox.push_back(input);
        if !c.turn_planned && !c.stalled {
            c.turn_planned = true;
            let at = (self.now + self.of_turns.between(4_000, 40_000)).max(paused_until);
            let life = life.number;
            self.queue.plan(at, Happening::Turn { node, life, core });
        }
    }

    /// Puts an event into the inbox of every core.
    pub(crate) fn put_everywhere(&mut self, node: usize, event: &Event) {
        for core in 0..usize::from(self.profile.cores) {
            self.put(node, core, Input::Event(event.clone()));
        }
    }

    pub(crate) fn take_turn(&mut self, node: usize, life: u64, core: usize) {
        if !self.lives(node, life) {
            return;
        }
        if self.now < self.nodes[node].paused_until {
            let at = self.nodes[node].paused_until;
            self.queue.plan(at, Happening::Turn { node, life, core });
            return;
        }
        self.turn += 1;
        self.tally.turns += 1;
        let disk = match (self.profile.load_ns, self.profile.load_late) {
            (0, _) => Disk::AtOnce,
            (_, true) => Disk::LooksLate,
            (_, false) => Disk::AnswersLate,
        };
        let now = self.nodes[node].clock.read(self.now);
        let mut outside = Vec::new();
        let Some(l) = &mut self.nodes[node].life else { return };
        let c = &mut l.cores[core];
        c.turn_planned = false;
        let mut watcher = Watcher { truth: &mut self.truth, now: self.now, turn: self.turn };
        let written = c.turn((l.actor, now), &l.engine, disk, &mut watcher, &mut outside);
        let died = self.attend(node, life, core, outside);
        if died {
            return;
        }
        if written {
            self.release(node, core);
        } else {
            let at = self.now + 20 * MS;
            self.queue.plan(at, Happening::Again { node, life, core });
        }
        self.plan_tick(node, core);
        let Some(l) = &mut self.nodes[node].life else { return };
        let c = &mut l.cores[core];
        if !c.inbox.is_empty() && !c.turn_planned && !c.stalled {
            c.turn_planned = true;
            self.queue.plan(self.now + 2_000, Happening::Turn { node, life, core });
        }
    }

    fn plan_tick(&mut self, node: usize, core: usize) {
        let Some(life) = &mut self.nodes[node].life else { return };
        let c = &mut life.cores[core];
        let Some(deadline) = c.peer.next_deadline() else { return };
        // A little late, as timers are.
        let at = deadline.0.max(self.now) + 100_000;
        if c.tick_planned.is_none_or(|planned| at < planned) {
            c.tick_planned = Some(at);
            let life = life.number;
            self.queue.plan(at, Happening::Tick { node, life, core });
        }
    }

    /// Carries out what a turn asks of the world; true if the process is gone.
    fn attend(&mut self, node: usize, life: u64, core: usize, outside: Vec<Outside>) -> bool {
        for what in outside {
            match what {
                Outside::Later(event) => {
                    let at = self.now + self.of_disks.between(1_000, self.profile.load_ns);
                    let input = Input::Event(event);
                    self.queue.plan(at, Happening::Input { node, life, core, input });
                }
                Outside::Read(effect) => {
                    let at = self.now + self.of_disks.between(1_000, self.profile.load_ns);
                    let input = Input::Perform(effect);
                    self.queue.plan(at, Happening::Input { node, life, core, input });
                }
                Outside::Ceiling(to) => {
                    let memory = &mut self.nodes[node].platter.memory;
                    memory.ceiling = memory.ceiling.max(to);
                    let at = self.now + self.of_disks.between(MS, 10 * MS);
                    let input = Input::Event(Event::CeilingRaised(to));
                    self.queue.plan(at, Happening::Input { node, life, core, input });
                }
                Outside::Ready(ready) => self.core_is_ready(node, ready),
                Outside::FetchLayout(from) => self.fetch_layout(node, from),
                Outside::Die(why) => {
                    self.trace.tell(self.now, format_args!("n{} dies: {why}", node + 1));
                    self.die(node, Crash::ProcessKill);
                    let at = self.now + self.of_faults.between(MS, 500 * MS);
                    self.queue.plan(at, Happening::Start { node });
                    return true;
                }
                Outside::Fatal(why) => {
                    self.truth.breaks("a machine goes on", format!("n{}: {why}", node + 1));
                    return true;
                }
            }
        }
        false
    }

    fn core_is_ready(&mut self, node: usize, _ready: bool) {
        let Some(life) = &mut self.nodes[node].life else { return };
        let all = life.cores.iter().all(|c| c.peer.is_serving());
        for c in &mut life.cores {
            c.front.host.loading = !all;
        }
        if all {
            life.liveness.set_state(NodeState::Ready);
            self.nodes[node].platter.memory.suspect = false;
            self.trace.tell(self.now, format_args!("n{} is ready", node + 1));
        }
    }

    /// The log is written: what was held may leave.
    fn release(&mut self, node: usize, core: usize) {
        let now = self.nodes[node].clock.read(self.now);
        let Some(life) = &mut self.nodes[node].life else { return };
        let number = life.number;
        let c = &mut life.cores[core];
        let Held { mut sends, answers, acks, asked, spoken, mail, applied, to_sync } =
            std::mem::take(&mut c.held);
        let (epoch, hlc) = (c.peer.epoch(), c.peer.hlc(now));
        for token in applied.into_iter().filter(|t| *t != 0) {
            let event = Event::Applied { token, failed: None };
            self.put(node, core, Input::Event(event));
        }
        if !to_sync.is_empty() {
            let at = self.now + self.of_disks.between(100_000, self.profile.sync_ns);
            let tokens = to_sync;
            self.queue.plan(at, Happening::Synced { node, life: number, core, tokens });
        }
        for (op, answer) in answers {
            let at = self.now + self.of_network.between(20_000, 400_000);
            self.queue
                .plan(at, Happening::Heard { op, from: (node, number), answer: Box::new(answer) });
        }
        for op in asked {
            if let Some(naming) = self.named.get_mut(&op) {
                naming.asked_at = self.now;
            }
        }
        for ack in acks {
            sends.extend(self.tell((node, number, core), ack));
        }
        for spoken in spoken {
            self.spoken(spoken);
        }
        for (core, input) in mail {
            self.put(node, core, input);
        }
        self.send_messages(node, (epoch, hlc), sends);
    }

    /// Messages leave in frames, one for each node and lane.
    pub(super) fn send_messages(
        &mut self,
        node: usize,
        (epoch, hlc): (u64, Hlc),
        mut sends: Vec<(NodeId, Message)>,
    ) {
        while let Some((to, first)) = sends.first() {
            let (to, bulk) = (*to, first.is_bulk());
            let (now_sent, rest): (Vec<_>, Vec<_>) =
                sends.into_iter().partition(|(t, m)| *t == to && m.is_bulk() == bulk);
            sends = rest;
            let lane = if bulk { Lane::Bulk } else { Lane::Small };
            let mut header = Header::new(Kind::PEER_MESSAGES);
            header.epoch = epoch;
            header.hlc = hlc;
            let mut frame = FrameWriter::new();
            frame.begin(header);
            for (_, message) in &now_sent {
                if self.trace.wants_text() {
                    self.trace.tell(self.now, format_args!("n{} -> {to} {message:?}", node + 1));
                }
                codec::encode_into(message, frame.body());
            }
            frame.finish().expect("a turn's messages to one node fit a frame");
            self.send(node, to, lane, frame.bytes());
        }
    }

    /// Sends a frame.
    fn send(&mut self, from: usize, to: NodeId, lane: Lane, bytes: &[u8]) {
        let to = to.0 as usize - 1;
        let Some(connection) = self.network.connection(from, to) else { return };
        let arrivals = self.network.send(self.now, (from, to), lane, &mut self.of_network);
        let bytes: Rc<[u8]> = Rc::from(bytes);
        for at in arrivals.into_iter().flatten() {
            let bytes = bytes.clone();
            let made = self.now;
            self.queue.plan(at, Happening::Frame { from, to, connection, made, bytes });
        }
    }

    pub(crate) fn frame_arrives(
        &mut self,
        from: usize,
        to: usize,
        (connection, made): (u64, u64),
        bytes: &Rc<[u8]>,
    ) {
        if self.network.connection(from, to) != Some(connection) {
            return;
        }
        if self.network.is_cut(from, to) {
            // A faithful connection sends again until it gets through; else it is lost.
            if self.network.manners.faithful {
                let (at, bytes) = (self.now + 50 * MS, bytes.clone());
                self.queue.plan(at, Happening::Frame { from, to, connection, made, bytes });
            }
            return;
        }
        self.tally.frames += 1;
        let mut decoder = FrameDecoder::new();
        let frame = match decoder.decode(bytes) {
            Ok(Some(frame)) => frame,
            other => {
                let text = format!("{other:?}");
                self.truth.breaks("a frame that was written can be read", text);
                return;
            }
        };
        let (header, mut body) = (frame.header, frame.body);
        self.trace.mix(&[self.now, from as u64, to as u64, header.hlc.0, body.len() as u64]);
        let sender = NodeId(from as u32 + 1);
        if header.kind == Kind::HEARTBEAT {
            let told: Result<(u32, NodeState), _> = codec::decode(body);
            let Ok((incarnation, state)) = told else {
                self.truth.breaks("a heartbeat can be read", format!("{told:?}"));
                return;
            };
            let incarnation = Incarnation(incarnation);
            self.liveness(to, liveness::Event::Heard { from: sender, incarnation, state });
            return;
        }
        while !body.is_empty() {
            let (message, rest): (Message, &[u8]) = match codec::decode_next(body) {
                Ok(next) => next,
                Err(e) => {
                    self.truth.breaks("a message that was written can be read", e.to_string());
                    return;
                }
            };
            body = rest;
            let Some(slot) = message.slot() else {
                self.truth.breaks("a message has a slot", format!("{message:?}"));
                return;
            };
            let core = slot.core(usize::from(self.profile.cores));
            let (epoch, hlc) = (header.epoch, header.hlc);
            let made = Instant(made);
            let event = Event::Received { from: sender, epoch, hlc, made, message };
            self.put(to, core, Input::Event(event));
        }
    }

    /// Tells a node's failure detector something and carries out what follows.
    pub(crate) fn liveness(&mut self, node: usize, event: liveness::Event) {
        let now = self.now;
        if now < self.nodes[node].paused_until {
            if event == liveness::Event::Tick
                && let Some(life) = &self.nodes[node].life
            {
                let (at, life) = (self.nodes[node].paused_until, life.number);
                self.queue.plan(at, Happening::Alive { node, life });
            }
            return;
        }
        let Some(life) = &mut self.nodes[node].life else { return };
        let mut effects = Vec::new();
        let is_tick = event == liveness::Event::Tick;
        life.liveness.on_event(Instant(now), event, &mut effects);
        let (incarnation, state) = (life.actor.incarnation.0, life.liveness.state());
        let (number, wake) = (life.number, life.liveness.next_deadline());
        for effect in effects {
            match effect {
                liveness::Effect::SendHeartbeat { to } => {
                    let mut frame = FrameWriter::new();
                    frame.begin(Header::new(Kind::HEARTBEAT));
                    codec::encode_into(&(incarnation, state), frame.body());
                    frame.finish().expect("a heartbeat is small");
                    self.send(node, to, Lane::Small, frame.bytes());
                }
                liveness::Effect::Changed { peer, to, .. } => {
                    let ready = to.up && to.state == NodeState::Ready;
                    self.trace.tell(
                        now,
                        format_args!("n{} believes {peer} up={} ready={ready}", node + 1, to.up),
                    );
                    let event =
                        Event::PeerIs { node: peer, incarnation: to.incarnation, up: to.up, ready };
                    self.put_everywhere(node, &event);
                }
            }
        }
        if is_tick {
            let at = wake.0.max(now + 1_000);
            self.queue.plan(at, Happening::Alive { node, life: number });
        }
    }

    pub(crate) fn try_full_disk(&mut self, node: usize, life: u64, core: usize) {
        if !self.lives(node, life) {
            return;
        }
        let Some(l) = &mut self.nodes[node].life else { return };
        let c = &mut l.cores[core];
        match c.store.commit() {
            Ok(()) => {
                c.stalled = false;
                c.turn_planned = true;
                self.release(node, core);
                self.queue.plan(self.now + 2_000, Happening::Turn { node, life, core });
            }
            Err(storage::Error::NoSpace) => {
                self.queue.plan(self.now + 20 * MS, Happening::Again { node, life, core });
            }
            Err(_) => {
                self.die(node, Crash::ProcessKill);
                self.queue.plan(self.now + 100 * MS, Happening::Start { node });
            }
        }
    }

    pub(crate) fn synced(&mut self, node: usize, life: u64, core: usize, tokens: Vec<u64>) {
        if !self.lives(node, life) {
            return;
        }
        let Some(l) = &self.nodes[node].life else { return };
        match l.cores[core].store.sync_handle().sync() {
            Ok(_) => {
                for token in tokens.into_iter().filter(|t| *t != 0) {
                    let event = Event::Applied { token, failed: None };
                    self.put(node, core, Input::Event(event));
                }
            }
            Err(e) => self.disk_failed(node, &e.to_string()),
        }
    }

    /// What is on disk is unknown: the process stops and starts anew.
    fn disk_failed(&mut self, node: usize, why: &str) {
        self.trace.tell(self.now, format_args!("n{} disk failed: {why}", node + 1));
        self.die(node, Crash::ProcessKill);
        let at = self.now + self.of_faults.between(10 * MS, SECOND);
        self.queue.plan(at, Happening::Start { node });
    }

    pub(crate) fn sync_all(&mut self, node: usize, life: u64) {
        if !self.lives(node, life) {
            return;
        }
        let Some(l) = &self.nodes[node].life else { return };
        let failed = l.cores.iter().find_map(|c| c.store.sync_handle().sync().err());
        match failed {
            Some(e) => self.disk_failed(node, &e.to_string()),
            None => {
                self.queue.plan(self.now + SECOND, Happening::SyncAll { node, life });
            }
        }
    }

    pub(crate) fn chores(&mut self, node: usize, life: u64) {
        if !self.lives(node, life) {
            return;
        }
        let Some(l) = &mut self.nodes[node].life else { return };
        for (core, c) in l.cores.iter_mut().enumerate() {
            // Only between turns whose log is written.
            if c.stalled {
                continue;
            }
            let is_full = c.store.wants_rotation();
            let some = 1 + (self.now / MS % 40) as usize;
            if c.saving {
                let rows = c.peer.checkpoint_some(if is_full { usize::MAX } else { some });
                match c.store.apply(&rows).and_then(|()| c.store.commit()) {
                    Ok(()) if c.peer.unsaved() == 0 => {
                        c.saving = false;
                        c.store.release();
                    }
                    Ok(()) => {}
                    Err(storage::Error::NoSpace) => {
                        c.stalled = true;
                        let at = self.now + 20 * MS;
                        self.queue.plan(at, Happening::Again { node, life, core });
                    }
                    Err(_) => {}
                }
            }
            if is_full && !c.saving {
                c.peer.begin_checkpoint();
                c.store.rotate_held();
                c.saving = true;
                if self.profile.bugs.contains(&Bug::FlushesUnsaved) {
                    c.store.release();
                }
            }
        }
        let jobs = self.of_disks.below(4);
        for _ in 0..jobs {
            let Some(job) = l.engine.next_job() else { break };
            // A job that fails is handed out again.
            if job.run().is_err() {
                break;
            }
        }
        let at = self.now + self.of_disks.between(MS, 60 * MS);
        self.queue.plan(at, Happening::Chores { node, life });
    }

    pub(crate) fn try_connect(&mut self, a: usize, b: usize) {
        if self.nodes[a].life.is_none() || self.nodes[b].life.is_none() {
            return;
        }
        if self.network.connection(a, b).is_some() {
            return;
        }
        if !self.network.connect(a, b) {
            let at = self.now + self.of_network.between(20 * MS, 200 * MS);
            self.queue.plan(at, Happening::Connect { a, b });
            return;
        }
        self.trace.tell(self.now, format_args!("n{} and n{} are connected", a + 1, b + 1));
        for (here, there) in [(a, b), (b, a)] {
            let event = Event::LinkUp(NodeId(there as u32 + 1));
            for core in 0..usize::from(self.profile.cores) {
                let at = self.now + self.of_network.between(10_000, 2 * MS);
                let life = self.nodes[here].life.as_ref().map_or(0, |l| l.number);
                let input = Input::Event(event.clone());
                self.queue.plan(at, Happening::Input { node: here, life, core, input });
            }
        }
    }

    /// Breaks a connection and plans the next one.
    pub(crate) fn break_connection(&mut self, a: usize, b: usize) {
        if !self.network.break_up(a, b) {
            return;
        }
        for (here, there) in [(a, b), (b, a)] {
            self.liveness(here, liveness::Event::Closed { from: NodeId(there as u32 + 1) });
        }
        let at = self.now + self.of_network.between(MS, 300 * MS);
        self.queue.plan(at, Happening::Connect { a, b });
    }

    pub(crate) fn start(&mut self, node: usize) {
        if self.nodes[node].life.is_some() {
            return;
        }
        let now = self.nodes[node].clock.read(self.now);
        let seed = self.of_faults.next();
        if let Err(why) = self.nodes[node].start(&self.profile, now, seed) {
            // A full disk, most likely: try again.
            self.trace.tell(self.now, format_args!("n{} does not start: {why}", node + 1));
            self.queue.plan(self.now + 300 * MS, Happening::Start { node });
            return;
        }
        let Some(life) = &self.nodes[node].life else { return };
        let (number, actor) = (life.number, life.actor);
        self.trace.tell(self.now, format_args!("n{} starts as {actor}", node + 1));
        self.trace.mix(&[self.now, 0x5747, node as u64, actor.to_u64()]);
        self.queue.plan(self.now, Happening::Alive { node, life: number });
        self.queue.plan(self.now + SECOND, Happening::SyncAll { node, life: number });
        self.queue.plan(self.now + 5 * MS, Happening::Chores { node, life: number });
        self.put_everywhere(node, &Event::Tick);
        for other in (0..self.nodes.len()).filter(|o| *o != node) {
            let at = self.now + self.of_network.between(MS, 100 * MS);
            self.queue.plan(at, Happening::Connect { a: node, b: other });
        }
    }

    /// A process ends, whatever the reason.
    pub(crate) fn die(&mut self, node: usize, how: Crash) {
        let was_alive = self.nodes[node].life.take();
        self.nodes[node].platter.crash(how);
        let Some(life) = was_alive else { return };
        self.tally.crashes += 1;
        for c in &life.cores {
            self.tally.states += c.peer.stats().states_served;
        }
        self.trace.mix(&[self.now, 0xdead, node as u64]);
        self.nodes[node].paused_until = 0;
        for other in (0..self.nodes.len()).filter(|o| *o != node) {
            if self.network.break_up(node, other) {
                let from = NodeId(node as u32 + 1);
                self.liveness(other, liveness::Event::Closed { from });
            }
        }
        self.node_left_its_clients(node);
        self.lines_lost(node, life.number);
    }

    /// A layout in which every slot's order of preference is turned: the same nodes, another order.
    pub(crate) fn announce_new_layout(&mut self, at: u64) {
        let mut next = (*self.newest).clone();
        let width = next.table.width();
        let mut cells = Vec::new();
        for (slot, replicas) in self.newest.table.rows() {
            let mut order = replicas.to_vec();
            if slot.0.is_multiple_of(3) || self.profile.tags < 3 {
                order.rotate_left(1);
            }
            cells.extend(order);
        }
        next.table =
            ring::layout::Table::from_cells(width, cells).expect("as many cells as before");
        next.epoch = next.epoch.next();
        self.newest = Arc::new(next);
        for node in 0..self.nodes.len() {
            let late = self.of_faults.below(3 * SECOND);
            self.queue.plan(at + late, Happening::Announce { node });
        }
    }

    /// Moves replicas: every process ends, and all start again with a layout in which the last node
    /// keeps slots that others kept. It begins with nothing seen, so it counts in no quorum before it
    /// has pulled them from all who still keep them (decision 11: why not while others serve).
    pub(crate) fn rebuild(&mut self) {
        if !self.stormy {
            return;
        }
        if self.nodes.iter().any(|n| n.platter.memory.suspect) {
            // Another machine lacks writes: two may not do so at once.
            self.queue.plan(self.now + 500 * MS, Happening::Rebuild);
            return;
        }
        let gains = self.nodes.len() - 1;
        let mut next = (*self.newest).clone();
        let mut cells = Vec::new();
        for (slot, replicas) in self.newest.table.rows() {
            let mut order = replicas.to_vec();
            if !order.contains(&self.nodes[gains].id) {
                let place = usize::from(slot.0) % order.len();
                order[place] = self.nodes[gains].id;
            }
            cells.extend(order);
        }
        let width = next.table.width();
        next.table =
            ring::layout::Table::from_cells(width, cells).expect("as many cells as before");
        next.epoch = next.epoch.next();
        self.newest = Arc::new(next);
        self.trace.tell(self.now, format_args!("replicas move to n{}", gains + 1));
        self.tally.moves += 1;
        for node in 0..self.nodes.len() {
            self.die(node, Crash::ProcessKill);
            self.nodes[node].layout = self.newest.clone();
            let at = self.now + self.of_faults.between(MS, SECOND);
            self.queue.plan(at, Happening::Start { node });
        }
        let memory = &mut self.nodes[gains].platter.memory;
        memory.suspect = true;
        memory.clean = false;
    }

    pub(crate) fn announce(&mut self, node: usize) {
        let newest = self.newest.clone();
        if self.nodes[node].layout.epoch < newest.epoch {
            self.nodes[node].layout = newest.clone();
            self.put_everywhere(node, &Event::LayoutIs(newest));
        }
    }

    fn fetch_layout(&mut self, node: usize, from: NodeId) {
        let there = from.0 as usize - 1;
        let reachable = self.network.connection(node, there).is_some();
        if reachable && self.nodes[there].layout.epoch > self.nodes[node].layout.epoch {
            let at = self.now + self.of_network.between(MS, 50 * MS);
            self.queue.plan(at, Happening::Announce { node });
        }
    }
}
