//! Catching up: a returning replica pulls what it missed before it serves.
//!
//! It sends its slot clocks; the peer answers with the deltas that it lacks, from the retained log,
//! and where the log no longer reaches back with the whole state of the slot. A peer's clock is taken
//! over only once every part of the slot's state has come. Parts are numbered, so that a lost one is
//! noticed and the pull begun again.
//!
//! Whoever may have lost acknowledged writes (power loss, damage) answers nothing before it has
//! pulled from every other replica; whoever lost nothing needs one, or none if nobody is there.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ring::keyspace::Durability;
use ring::{GROUPS, Incarnation, Instant, NodeId, Now, SLOTS_PER_GROUP, Slot};

use crate::bugs::Bug;
use crate::causality::{Dot, DotSet};
use crate::delta::{self, Delta};
use crate::encoding::Reader;
use crate::event::{Changes, Effect, Outbox, RowChange};
use crate::limits::{LONELY_AFTER, PULL_PART_BYTES, PULL_PATIENCE};
use crate::message::{Listed, Message};
use crate::peer::Peer;
use crate::raw::RawDelta;
use crate::record::Record;
use crate::row::{self, Row};
use crate::slab::{Key, Token};

/// What this replica pulls from one peer.
#[derive(Debug, Default)]
pub(crate) struct Pulls {
    /// Groups in flight, by token.
    asked: BTreeMap<u64, Pull>,
    /// Groups still to be asked for.
    todo: BTreeSet<u8>,
    /// It has been pulled from completely since this machine started.
    pub(crate) done: bool,
}

/// One group's pull.
#[derive(Debug)]
struct Pull {
    group: u8,
    last_word: Instant,
    /// The serving that counts: the first one heard of.
    serving: Option<u64>,
    parts: BTreeSet<u32>,
    expected: Option<u32>,
    /// Parts whose joining still reads our disk.
    joining: u32,
    /// Clocks to take over when every part is in.
    clocks: BTreeMap<Slot, DotSet>,
    /// Rows that the parts held.
    held: BTreeSet<Row>,
    /// Rows of these slots that changed here from elsewhere since the first part came.
    touched: BTreeSet<Row>,
}

impl Pull {
    /// Whether a part is of the serving that counts; the first one heard of does.
    fn is_of(&mut self, serving: u64) -> bool {
        *self.serving.get_or_insert(serving) == serving
    }
}

/// A part of a slot's state that is being joined: our own rows of its range are read first.
#[derive(Debug)]
pub(crate) struct Join {
    from: NodeId,
    pull: u64,
    slot: Slot,
    clock: DotSet,
    rows: BTreeMap<Row, Bytes>,
    next: Row,
}

/// What a peer pulls from us.
#[derive(Debug)]
pub(crate) struct Serve {
    to: NodeId,
    token: u64,
    serving: u64,
    wanted: BTreeMap<Slot, DotSet>,
    /// Slots whose log no longer reaches back, the one in progress last.
    states: Vec<Slot>,
    clock: Bytes,
    start: Row,
    parts: u32,
    slot: Slot,
}

/// How many groups are asked for at once from one peer.
const GROUPS_AT_ONCE: usize = 64;

impl Peer {
    /// A connection is up that was not: pull whatever was missed meanwhile.
    pub(crate) fn on_link_up(&mut self, now: Now, node: NodeId, out: &mut Outbox) {
        if node == self.me() || self.layout().member(node).is_none() || self.full {
            return;
        }
        let first = self.slots.all().next().map_or(0, Slot::group);
        let last = self.slots.all().last().map_or(0, Slot::group);
        let pulls = self.pulls.entry(node).or_default();
        pulls.asked.clear();
        pulls.todo = (first..=last.min(GROUPS as u8 - 1)).collect();
        self.pull_more(now, node, out);
    }

    /// There is room on our disk, or none. What is missed for want of it is pulled before anybody is served again, as
    /// after a start; links count as up anew then.
    pub(crate) fn on_room(&mut self, now: Now, room: bool, out: &mut Outbox) {
        if self.layout().peers_of(self.me()).next().is_none() {
            return;
        }
        self.full = !room;
        for pulls in self.pulls.values_mut() {
            pulls.asked.clear();
            pulls.todo.clear();
            pulls.done = false;
        }
        self.pulls_state = false;
        self.started = now.mono;
        self.ready = false;
        out.push(Effect::Ready(false));
    }

    /// Asks for as many groups as may be in flight.
    fn pull_more(&mut self, now: Now, node: NodeId, out: &mut Outbox) {
        loop {
            let Some(pulls) = self.pulls.get_mut(&node) else { return };
            if pulls.asked.len() >= GROUPS_AT_ONCE {
                return;
            }
            let Some(group) = pulls.todo.pop_first() else { break };
            let first = u16::from(group) * SLOTS_PER_GROUP;
            let me = self.cfg.me.node;
            let shared = |slot: &Slot| {
                let replicas = self.cfg.layout.replicas(*slot);
                replicas.contains(&node) && replicas.contains(&me)
            };
            let slots: Vec<Slot> =
                (first..first + SLOTS_PER_GROUP).map(Slot).filter(shared).collect();
            if slots.is_empty() {
                continue;
            }
            let clocks = slots.iter().map(|s| (*s, self.encoded_clock(*s))).collect();
            self.last_pull += 1;
            let token = self.last_pull;
            let pull = Pull {
                group,
                last_word: now.mono,
                serving: None,
                parts: BTreeSet::new(),
                expected: None,
                joining: 0,
                clocks: BTreeMap::new(),
                held: BTreeSet::new(),
                touched: BTreeSet::new(),
            };
            if let Some(pulls) = self.pulls.get_mut(&node) {
                pulls.asked.insert(token, pull);
            }
            out.push(Effect::Send { to: node, message: Message::Pull { token, clocks } });
        }
        self.pull_settled(now, node, out);
    }

    /// Notes that a peer has been pulled from completely.
    fn pull_settled(&mut self, now: Now, node: NodeId, out: &mut Outbox) {
        let Some(pulls) = self.pulls.get_mut(&node) else { return };
        if pulls.asked.is_empty() && pulls.todo.is_empty() && !pulls.done {
            pulls.done = true;
            tracing::info!(%node, "pulled what was missed");
        }
        self.consider_ready(now, out);
    }

    /// Deltas that we lacked came.
    pub(crate) fn on_pulled(
        &mut self,
        now: Now,
        from: NodeId,
        (token, serving, part): (u64, u64, u32),
        deltas: &[Bytes],
        out: &mut Outbox,
    ) {
        let mut changes = Changes::new();
        for raw in deltas {
            let raw = RawDelta::from_encoded(raw);
            let delta = Delta::decode(raw.encoded()).filter(|d| self.slots.owns(d.slot()));
            let Some(delta) = delta else {
                self.stats.unreadable_messages += 1;
                return;
            };
            self.check_own_dot(from, delta.slot(), delta.dot);
            let row = raw.row_of(&delta);
            if let Some(change) = self.slots.apply(&delta, row, &raw, &self.cfg.bugs) {
                changes.push(change);
                self.note_touched(delta.slot(), delta.row);
                self.stats.pulled += 1;
                if let Some(request) = delta.request {
                    self.known.insert(request, now.wall);
                }
            }
        }
        if !changes.is_empty() {
            let token = Token::Nobody.to_u64();
            out.push(Effect::Apply { token, changes, durability: Durability::Os });
        }
        self.part_in(now, from, (token, serving, part), out);
    }

    /// Part of a slot's state came: read our own rows of its range before joining.
    pub(crate) fn on_pulled_state(
        &mut self,
        now: Now,
        from: NodeId,
        (token, serving, part): (u64, u64, u32),
        (slot, clock, start, rows, next): (Slot, &Bytes, Row, Vec<Listed>, Row),
        out: &mut Outbox,
    ) {
        let Some(clock) = DotSet::decode(&mut Reader::new(clock)) else {
            self.stats.unreadable_messages += 1;
            return;
        };
        let hasty = self.has_bug(Bug::ClockBeforeState);
        let Some(pull) = self.pulls.get_mut(&from).and_then(|p| p.asked.get_mut(&token)) else {
            return;
        };
        if !pull.is_of(serving) {
            return;
        }
        pull.last_word = now.mono;
        if !pull.parts.insert(part) {
            return;
        }
        pull.joining += 1;
        pull.clocks.insert(slot, clock.clone());
        pull.held.extend(rows.iter().map(|l| l.row.clone()));
        self.pulls_state = true;
        let ours = clock.highest(self.cfg.me);
        if ours > 0 {
            self.check_own_dot(from, slot, Dot::new(self.cfg.me, ours));
        }
        if hasty {
            self.take_over_clock(slot, &clock, out);
        }
        let rows = rows.into_iter().map(|l| (l.row, l.record)).collect();
        let join = Join { from, pull: token, slot, clock, rows, next };
        let key = self.joins.insert(join);
        out.push(Effect::ReadRows {
            token: Token::Join(key).to_u64(),
            slot,
            from: start,
            bytes: PULL_PART_BYTES as u32,
        });
    }

    /// Our own rows of a part's range came: join.
    pub(crate) fn join_read(
        &mut self,
        now: Now,
        key: Key,
        rows: &[(Row, Bytes)],
        next: Row,
        out: &mut Outbox,
    ) {
        let Some(mut join) = self.joins.take(key) else { return };
        let ends = |row: &Row| !join.next.is_empty() && *row >= join.next;
        let past_end = rows.last().is_some_and(|(row, _)| ends(row)) || next.is_empty();
        let past_end = past_end || ends(&next);
        let mut changes = Changes::new();
        for (row, _) in rows.iter().filter(|(row, _)| !ends(row)) {
            let theirs = join.rows.remove(row).unwrap_or_default();
            if let Some(record) = Record::decode(&theirs) {
                let change = self.slots.install(
                    join.slot,
                    row.clone(),
                    &record,
                    &join.clock,
                    &self.cfg.bugs,
                );
                changes.push(change);
            }
        }
        if past_end {
            // Rows that only the peer has.
            for (row, theirs) in core::mem::take(&mut join.rows) {
                if let Some(record) = Record::decode(&theirs) {
                    let (slot, clock) = (join.slot, &join.clock);
                    changes.push(self.slots.install(slot, row, &record, clock, &self.cfg.bugs));
                }
            }
        }
        for change in &changes {
            if let RowChange::Merge { row, .. } = change {
                self.note_touched(join.slot, row);
            }
        }
        self.stats.pulled += changes.len() as u64;
        if !changes.is_empty() {
            let token = Token::Nobody.to_u64();
            out.push(Effect::Apply { token, changes, durability: Durability::Os });
        }
        if past_end {
            let (from, token) = (join.from, join.pull);
            self.joins.forget(key);
            if let Some(pull) = self.pulls.get_mut(&from).and_then(|p| p.asked.get_mut(&token)) {
                pull.joining -= 1;
                pull.last_word = now.mono;
            }
            self.pull_on(now, from, token, out);
        } else {
            let slot = join.slot;
            self.joins.put_back(key, join);
            out.push(Effect::ReadRows {
                token: Token::Join(key).to_u64(),
                slot,
                from: next,
                bytes: PULL_PART_BYTES as u32,
            });
        }
    }

    /// The peer says that this was all.
    pub(crate) fn on_pull_done(
        &mut self,
        now: Now,
        from: NodeId,
        (token, serving): (u64, u64),
        incarnation: Incarnation,
        parts: u32,
        out: &mut Outbox,
    ) {
        if incarnation > self.cfg.me.incarnation {
            self.fatal = Some(format!(
                "{from} knows this node in life {incarnation}, and its data directory is in life \
                 {}: the directory is empty, old, or a copy, or a checkpoint that was put in place while \
                 the clock was behind. fix: after a checkpoint start the node again, each start begins a later \
                 life; else put the newest data directory back, or start the node under a new name and \
                 remove the old one",
                self.cfg.me.incarnation
            ));
        }
        if let Some(pull) = self.pulls.get_mut(&from).and_then(|p| p.asked.get_mut(&token)) {
            if !pull.is_of(serving) {
                return;
            }
            pull.expected = Some(parts);
            pull.last_word = now.mono;
        }
        self.pull_on(now, from, token, out);
    }

    fn part_in(
        &mut self,
        now: Now,
        from: NodeId,
        (token, serving, part): (u64, u64, u32),
        out: &mut Outbox,
    ) {
        if let Some(pull) = self.pulls.get_mut(&from).and_then(|p| p.asked.get_mut(&token)) {
            if !pull.is_of(serving) {
                return;
            }
            pull.parts.insert(part);
            pull.last_word = now.mono;
        }
        self.pull_on(now, from, token, out);
    }

    /// Ends a group's pull if every part is in and joined.
    fn pull_on(&mut self, now: Now, from: NodeId, token: u64, out: &mut Outbox) {
        let Some(pulls) = self.pulls.get_mut(&from) else { return };
        let complete = pulls.asked.get(&token).is_some_and(|p| {
            p.joining == 0 && p.expected.is_some_and(|n| p.parts.len() == n as usize)
        });
        if !complete {
            return;
        }
        let Some(pull) = pulls.asked.remove(&token) else { return };
        self.pulls_state =
            self.pulls.values().any(|p| p.asked.values().any(|p| !p.clocks.is_empty()));
        // What came from elsewhere meanwhile, into rows that the peer no longer has: with its clock
        // we learn of their deletion, and no delta will tell us of it again.
        let mut changes = Changes::new();
        for row in pull.touched.difference(&pull.held) {
            let slot = row::slot_of(row).filter(|slot| self.slots.owns(*slot));
            let Some((slot, clock)) = slot.and_then(|s| Some((s, pull.clocks.get(&s)?))) else {
                continue;
            };
            let nothing = Record::default();
            let (row, bugs) = (row.clone(), &self.cfg.bugs);
            changes.push(self.slots.install(slot, row, &nothing, clock, bugs));
        }
        if !changes.is_empty() {
            let token = Token::Nobody.to_u64();
            out.push(Effect::Apply { token, changes, durability: Durability::Os });
        }
        for (slot, clock) in pull.clocks {
            self.take_over_clock(slot, &clock, out);
        }
        self.pull_more(now, from, out);
        self.pull_settled(now, from, out);
    }

    /// A row changed here by what came from elsewhere: pulls of its slot's state must know.
    pub(crate) fn note_touched(&mut self, slot: Slot, row: &[u8]) {
        if !self.pulls_state {
            return;
        }
        let row = Row::copy_from_slice(row);
        for pull in self.pulls.values_mut().flat_map(|p| p.asked.values_mut()) {
            if pull.clocks.contains_key(&slot) {
                pull.touched.insert(row.clone());
            }
        }
    }

    /// Every current dot of a peer's slot has come: what it has seen, we have seen.
    fn take_over_clock(&mut self, slot: Slot, clock: &DotSet, out: &mut Outbox) {
        let state = self.slots.get_mut(slot);
        state.clock.union(clock);
        state.dirty = true;
        let change = self.slots.clock_row(slot);
        self.apply_unasked(change, out);
    }

    /// Whether this replica may serve now.
    pub(crate) fn consider_ready(&mut self, now: Now, out: &mut Outbox) {
        if self.ready || self.full || self.fatal.is_some() {
            return;
        }
        let me = self.me();
        let others: Vec<NodeId> = self.layout().peers_of(me).map(|m| m.id).collect();
        let pulled = |n: &NodeId| self.pulls.get(n).is_some_and(|p| p.done);
        let busy = |n: &NodeId| {
            self.pulls.get(n).is_some_and(|p| !p.asked.is_empty() || !p.todo.is_empty())
        };
        let done = others.iter().filter(|n| pulled(n)).count();
        let lonely = now.mono.since(self.started) >= LONELY_AFTER;
        let enough = if others.is_empty() || self.has_bug(Bug::ServesBeforePull) {
            true
        } else if self.cfg.amnesia {
            done == others.len()
        } else {
            // Pull from all who are there; wait a little for those who are not.
            let waiting = others.iter().any(|n| busy(n) && self.up.contains(n));
            (done == others.len()) || (!waiting && (done > 0 && self.settled_in(now) || lonely))
        };
        if enough {
            self.ready = true;
            // All that was acknowledged before is here. What is missed from now on was not.
            self.cfg.amnesia = false;
            out.push(Effect::Ready(true));
        }
    }

    /// True once peers that are there have had time to connect.
    fn settled_in(&self, now: Now) -> bool {
        now.mono.since(self.started) >= PULL_PATIENCE
    }

    /// Begins pulls again that have gone silent.
    pub(crate) fn look_over_pulls(&mut self, now: Now, out: &mut Outbox) {
        if self.full {
            return;
        }
        let nodes: Vec<NodeId> = self.pulls.keys().copied().collect();
        for node in nodes {
            let Some(pulls) = self.pulls.get_mut(&node) else { continue };
            let silent: Vec<u64> = pulls
                .asked
                .iter()
                .filter(|(_, p)| now.mono.since(p.last_word) >= PULL_PATIENCE && p.joining == 0)
                .map(|(token, _)| *token)
                .collect();
            for token in silent {
                if let Some(pull) = pulls.asked.remove(&token) {
                    pulls.todo.insert(pull.group);
                }
            }
            // What went silent while the peer was away is asked for again when it is back.
            if !pulls.todo.is_empty() && self.up.contains(&node) {
                self.pull_more(now, node, out);
            }
        }
        self.consider_ready(now, out);
    }

    /// True while a pull or the first readiness needs ticks.
    pub(crate) fn pulls_wait(&self) -> bool {
        !self.ready || self.pulls.values().any(|p| !p.asked.is_empty() || !p.todo.is_empty())
    }

    /// A peer pulls from us.
    pub(crate) fn on_pull(
        &mut self,
        from: NodeId,
        token: u64,
        clocks: &[(Slot, Bytes)],
        out: &mut Outbox,
    ) {
        let mut wanted = BTreeMap::new();
        for (slot, clock) in clocks {
            if !self.slots.owns(*slot) || !self.layout_has_me(*slot) {
                continue;
            }
            let Some(clock) = DotSet::decode(&mut Reader::new(clock)) else { continue };
            let lacks = self.slots.clock(*slot).minus(&clock);
            if !lacks.is_empty() {
                wanted.insert(*slot, lacks);
            }
        }
        let slot = clocks.first().map_or(Slot(0), |c| c.0);
        self.last_serving += 1;
        let serve = Serve {
            to: from,
            token,
            serving: self.last_serving,
            wanted,
            states: Vec::new(),
            clock: Bytes::new(),
            start: Bytes::new(),
            parts: 0,
            slot,
        };
        if serve.wanted.is_empty() {
            self.serve_end(&serve, out);
            return;
        }
        let key = self.serves.insert(serve);
        self.serves_waiting.push(key);
        self.scan_log_on(out);
    }

    /// Starts a reading of the log for everybody who waits for one, unless one is running.
    fn scan_log_on(&mut self, out: &mut Outbox) {
        if !self.serves_scanning.is_empty() || self.serves_waiting.is_empty() {
            return;
        }
        self.serves_scanning = core::mem::take(&mut self.serves_waiting);
        let mut wanted: BTreeMap<Slot, DotSet> = BTreeMap::new();
        for key in &self.serves_scanning {
            if let Some(serve) = self.serves.get_mut(*key) {
                for (slot, dots) in &serve.wanted {
                    wanted.entry(*slot).or_default().union(dots);
                }
            }
        }
        self.log_scan += 1;
        let wanted = wanted.into_iter().collect();
        out.push(Effect::ScanLog { token: self.log_scan, wanted });
    }

    /// Deltas that somebody wants were found in the log.
    pub(crate) fn log_found(&mut self, token: u64, deltas: &[(Slot, Bytes)], out: &mut Outbox) {
        if token != self.log_scan {
            return;
        }
        for key in self.serves_scanning.clone() {
            let Some(mut serve) = self.serves.take(key) else { continue };
            let mut batch: Vec<Bytes> = Vec::new();
            let mut bytes = 0;
            for (slot, raw) in deltas {
                let Some((_, dot)) = delta::name_of(raw) else { continue };
                let Some(wanted) = serve.wanted.get_mut(slot).filter(|w| w.contains(dot)) else {
                    continue;
                };
                wanted.remove(dot);
                batch.push(raw.clone());
                bytes += raw.len();
                if bytes >= PULL_PART_BYTES {
                    self.send_pulled(&mut serve, core::mem::take(&mut batch), out);
                    bytes = 0;
                }
            }
            if !batch.is_empty() {
                self.send_pulled(&mut serve, batch, out);
            }
            self.serves.put_back(key, serve);
        }
    }

    fn send_pulled(&mut self, serve: &mut Serve, deltas: Vec<Bytes>, out: &mut Outbox) {
        let slot = deltas.first().and_then(|d| delta::slot_of(d)).unwrap_or(serve.slot);
        let message = Message::Pulled {
            token: serve.token,
            serving: serve.serving,
            part: serve.parts,
            slot,
            deltas,
        };
        serve.parts += 1;
        out.push(Effect::Send { to: serve.to, message });
    }

    /// The log has been read: what was not in it is sent as state.
    pub(crate) fn log_scanned(&mut self, token: u64, out: &mut Outbox) {
        if token != self.log_scan {
            return;
        }
        for key in core::mem::take(&mut self.serves_scanning) {
            let Some(serve) = self.serves.get_mut(key) else { continue };
            let left = |(slot, dots): (&Slot, &DotSet)| (!dots.is_empty()).then_some(*slot);
            serve.states = serve.wanted.iter().filter_map(left).collect();
            self.serve_state_on(key, out);
        }
        self.scan_log_on(out);
    }

    /// Sends the next slot's state, or the end.
    fn serve_state_on(&mut self, key: Key, out: &mut Outbox) {
        let Some(mut serve) = self.serves.take(key) else { return };
        let Some(slot) = serve.states.last().copied() else {
            self.serve_end(&serve, out);
            self.serves.forget(key);
            return;
        };
        // The clock before the first row: it must not claim what the rows do not show.
        serve.clock = self.encoded_clock(slot);
        serve.start = Bytes::new();
        self.stats.states_served += 1;
        self.serves.put_back(key, serve);
        self.read_state(key, slot, Bytes::new(), out);
    }

    fn read_state(&self, key: Key, slot: Slot, from: Row, out: &mut Outbox) {
        out.push(Effect::ReadRows {
            token: Token::Pull(key).to_u64(),
            slot,
            from,
            bytes: PULL_PART_BYTES as u32,
        });
    }

    /// Rows of a slot that a peer pulls came from our disk.
    pub(crate) fn serve_read(
        &mut self,
        key: Key,
        rows: Vec<(Row, Bytes)>,
        next: Row,
        out: &mut Outbox,
    ) {
        let Some(mut serve) = self.serves.take(key) else { return };
        let Some(slot) = serve.states.last().copied() else {
            self.serves.put_back(key, serve);
            return;
        };
        let rows: Vec<Listed> = rows
            .into_iter()
            .filter(|(row, _)| row::key_of(row).is_some())
            .map(|(row, record)| Listed { row, record })
            .collect();
        let message = Message::PulledState {
            token: serve.token,
            serving: serve.serving,
            part: serve.parts,
            slot,
            clock: serve.clock.clone(),
            from: serve.start.clone(),
            rows,
            next: next.clone(),
        };
        out.push(Effect::Send { to: serve.to, message });
        serve.parts += 1;
        serve.start = next.clone();
        if next.is_empty() {
            serve.states.pop();
            self.serves.put_back(key, serve);
            self.serve_state_on(key, out);
        } else {
            self.serves.put_back(key, serve);
            self.read_state(key, slot, next, out);
        }
    }

    fn serve_end(&self, serve: &Serve, out: &mut Outbox) {
        let incarnation = self.incarnation_known(serve.to, serve.slot);
        let (token, serving) = (serve.token, serve.serving);
        let (slot, parts) = (serve.slot, serve.parts);
        let message = Message::PullDone { token, serving, slot, incarnation, parts };
        out.push(Effect::Send { to: serve.to, message });
    }

    /// The highest life of a node that the clocks of a slot's group know. A pull of every group hears
    /// of every group, so each needs to look at its own only.
    fn incarnation_known(&self, node: NodeId, slot: Slot) -> Incarnation {
        let first = slot.0 / SLOTS_PER_GROUP * SLOTS_PER_GROUP;
        let of_group = (first..first + SLOTS_PER_GROUP).map(Slot).filter(|s| self.slots.owns(*s));
        let mut highest = Incarnation(0);
        for slot in of_group {
            for actor in self.slots.clock(slot).actors().filter(|a| a.node == node) {
                highest = highest.max(actor.incarnation);
            }
        }
        highest
    }
}
