//! A small cluster for stories: machines, a map for a disk, and messages that a story can hold back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ring::{Actor, ClusterId, Instant, Layout, Member, NodeId, Now, Slot, WallMillis, WriteId};
use ringdb_replication::fold::{self, Folded};
use ringdb_replication::listing::{Listings, Rows};
use ringdb_replication::message::{Direct, RequestKey};
use ringdb_replication::op::Span;
use ringdb_replication::row::{self, Keyspace};
use ringdb_replication::{
    Answer, Config, Effect, Event, Message, Named, Op, Outbox, Outcome, Peer, Recovery, Request,
    RowChange, Task, TaskError, delta,
};

/// A replica's rows and log.
#[derive(Default)]
pub(crate) struct Disk {
    rows: BTreeMap<Bytes, Vec<u8>>,
    pub(crate) log: Vec<RowChange>,
}

impl Disk {
    fn apply(&mut self, change: &RowChange) {
        self.log.push(change.clone());
        match change {
            RowChange::Put { row, value } => {
                self.rows.insert(row.clone(), value.to_vec());
            }
            RowChange::Merge { row, operand } => {
                let base = self.rows.remove(row);
                let mut out = Vec::new();
                let folded = fold::fold(base.as_deref(), [&operand[..]], &mut out);
                assert_ne!(folded, Folded::Unreadable, "an operand of ours");
                if folded == Folded::Record {
                    self.rows.insert(row.clone(), out);
                }
            }
        }
    }
}

impl Disk {
    fn read_span(&self, span: &Span) -> (Vec<(Bytes, Bytes)>, Bytes) {
        let (start, end) = (span.start.clone(), span.end.clone().max(span.start.clone()));
        let found = self.rows.range(start..end);
        let mut all: Vec<_> = found.map(|(r, v)| (r.clone(), Bytes::from(v.clone()))).collect();
        if span.reverse {
            all.reverse();
        }
        let cut = match all.get(span.rows as usize) {
            None => Bytes::new(),
            Some(_) if span.reverse => all[span.rows as usize - 1].0.clone(),
            Some((first_unread, _)) => first_unread.clone(),
        };
        all.truncate(span.rows as usize);
        (all, cut)
    }
}

impl Rows for Disk {
    fn each(
        &self,
        slot: Slot,
        keyspace: Keyspace,
        f: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), String> {
        let (start, end) = row::range_of(slot, keyspace);
        for (row, record) in self.rows.range(Bytes::from(start)..Bytes::from(end)) {
            f(row, record);
        }
        Ok(())
    }

    fn first_filled(&self, from: Slot, last: Slot, keyspace: Keyspace) -> Option<Slot> {
        let range = row::range_of(from, 0).0..row::range_of(last, keyspace).1;
        let mut rows = self.rows.range(Bytes::from(range.start)..Bytes::from(range.end));
        let (row, _) = rows.find(|(row, _)| row::keyspace_of(row) == Some(keyspace))?;
        row::slot_of(row)
    }

    fn get(&self, row: &[u8]) -> Result<Vec<u8>, String> {
        Ok(self.rows.get(row).cloned().unwrap_or_default())
    }
}

struct Node {
    peer: Option<Peer>,
    disk: Disk,
    listings: Listings,
    incarnation: u32,
    /// It ended cleanly, so that its life goes on.
    lives_on: bool,
    /// How far its clock went.
    stamped: WallMillis,
}

/// What a client was told by a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// The replica.
    pub(crate) by: NodeId,
    /// The client's name for the write.
    pub(crate) request: RequestKey,
    /// Which write it is.
    pub(crate) write: WriteId,
    /// What it is told.
    pub(crate) direct: Direct,
}

/// Which messages arrive twice.
type Keep = Box<dyn Fn(&Message) -> bool>;

/// Which messages are lost.
type Loss = Box<dyn Fn(NodeId, NodeId, &Message) -> bool>;

/// The cluster.
pub(crate) struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    layout: Arc<Layout>,
    pub(crate) now: Now,
    flying: VecDeque<(NodeId, NodeId, Message)>,
    /// Messages for which this is true are lost.
    pub(crate) lose: Loss,
    /// Of messages for which this is true a copy is kept, to be delivered later.
    pub(crate) kept: Option<Keep>,
    copies: Vec<(NodeId, NodeId, Message)>,
    answers: BTreeMap<u64, Answer>,
    next_id: u64,
    /// The nodes to which clients that name their writes are connected.
    pub(crate) connected: BTreeSet<NodeId>,
    /// What those were told, in order.
    pub(crate) told: Vec<Told>,
    /// Requests whose clients their replicas told, and when.
    pub(crate) told_at: Vec<(u64, Instant)>,
    /// How long messages are under way.
    pub(crate) under_way: Duration,
}

pub(crate) fn n(id: u32) -> NodeId {
    NodeId(id)
}

impl Cluster {
    /// `count` nodes that are up, ready and connected.
    pub(crate) fn new(count: u32) -> Self {
        let members =
            (1..=count).map(|i| Member::new(format!("n{i}"), format!("127.0.0.1:{}", 7400 + i)));
        let layout = Layout::genesis(ClusterId(7), 3, members).expect("a good layout");
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            layout: Arc::new(layout),
            now: Now { mono: Instant(1_000_000_000), wall: WallMillis(1_700_000_000_000) },
            flying: VecDeque::new(),
            lose: Box::new(|_, _, _| false),
            kept: None,
            copies: Vec::new(),
            answers: BTreeMap::new(),
            next_id: 0,
            connected: (1..=count).map(NodeId).collect(),
            told: Vec::new(),
            told_at: Vec::new(),
            under_way: Duration::ZERO,
        };
        for i in 1..=count {
            let node = Node {
                peer: None,
                disk: Disk::default(),
                listings: Listings::default(),
                incarnation: 0,
                lives_on: false,
                stamped: WallMillis(0),
            };
            cluster.nodes.insert(NodeId(i), node);
        }
        for i in 1..=count {
            cluster.start(NodeId(i), false);
        }
        cluster.settle();
        cluster
    }

    /// Starts a node that is down, with what its disk holds.
    pub(crate) fn start(&mut self, id: NodeId, amnesia: bool) {
        let node = self.nodes.get_mut(&id).expect("a node");
        node.incarnation += 1;
        node.lives_on = false;
        self.start_in_this_life(id, amnesia);
    }

    /// The same after a clean stop, which does not end the life.
    pub(crate) fn start_in_this_life(&mut self, id: NodeId, amnesia: bool) {
        let node = self.nodes.get_mut(&id).expect("a node");
        let mut recovery = Recovery::new(0, 1);
        for change in &node.disk.log {
            recovery.learn(change);
        }
        let config = Config {
            me: Actor { node: id, incarnation: ring::Incarnation(node.incarnation) },
            core: 0,
            cores: 1,
            layout: self.layout.clone(),
            policies: Arc::default(),
            hlc_floor: node.stamped,
            hlc_ceiling: WallMillis(self.now.wall.0 + 20_000),
            resumed: node.lives_on,
            amnesia,
            seed: u64::from(id.0),
            bugs: Vec::new(),
        };
        node.peer = Some(Peer::new(config, recovery));
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|o| *o != id).collect();
        for other in others {
            if self.is_up(other) {
                for (at, node) in [(id, other), (other, id)] {
                    let incarnation = ring::Incarnation(self.nodes[&node].incarnation);
                    self.event(at, Event::PeerIs { node, up: true, ready: true, incarnation });
                }
                self.event(id, Event::LinkUp(other));
                self.event(other, Event::LinkUp(id));
            }
        }
    }

    /// Kills a node; the others notice if `noticed`.
    pub(crate) fn kill(&mut self, id: NodeId, noticed: bool) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).expect("a node");
        if let Some(peer) = node.peer.take() {
            node.stamped = node.stamped.max(peer.hlc(now).wall());
            node.lives_on = true;
        }
        if noticed {
            for other in self.nodes.keys().copied().collect::<Vec<_>>() {
                let incarnation = ring::Incarnation(self.nodes[&id].incarnation);
                self.event(other, Event::PeerIs { node: id, up: false, ready: false, incarnation });
            }
        }
    }

    /// A node's directory is gone, and with it what life it was in.
    pub(crate) fn lose_data(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node");
        node.disk = Disk::default();
        node.incarnation = 0;
    }

    pub(crate) fn is_up(&self, id: NodeId) -> bool {
        self.nodes[&id].peer.is_some()
    }

    pub(crate) fn peer(&self, id: NodeId) -> &Peer {
        self.nodes[&id].peer.as_ref().expect("up")
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Forgets a node's retained log, as truncation does; its clocks go to rows first.
    pub(crate) fn truncate_log(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node");
        let rows = node.peer.as_mut().expect("up").checkpoint();
        node.disk.log.clear();
        for change in rows {
            node.disk.apply(&change);
        }
        for (row, value) in node.disk.rows.clone() {
            if row::is_clock(&row) {
                node.disk.log.push(RowChange::Put { row, value: Bytes::from(value) });
            }
        }
    }

    pub(crate) fn event(&mut self, id: NodeId, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let node = self.nodes.get_mut(&id).expect("a node");
            let Some(peer) = node.peer.as_mut() else { return };
            let mut out = Outbox::new();
            peer.on_event(self.now, event, &mut out);
            for effect in out {
                match effect {
                    Effect::Answer { id, answer } => {
                        self.answers.insert(id, answer);
                    }
                    Effect::Send { to, message } => self.flying.push_back((id, to, message)),
                    Effect::Told { id, at } => self.told_at.push((id, at)),
                    Effect::Acknowledge { to, request, token, slot, direct, made } => {
                        let told = self.connected.contains(&id);
                        if told {
                            let write = WriteId { coordinator: to, number: token };
                            self.told.push(Told { by: id, request, write, direct: *direct });
                        }
                        let since = self.now.mono.since(made).as_micros() as u32;
                        let told_us = if told { since.max(1) } else { 0 };
                        let message = Message::Replicated { token, part: 0, slot, told_us };
                        self.flying.push_back((id, to, message));
                    }
                    Effect::Load { token, rows } => {
                        let get = |r: &Bytes| node.disk.rows.get(r).cloned().unwrap_or_default();
                        let records = rows.iter().map(|r| Bytes::from(get(r))).collect();
                        events.push_back(Event::Loaded { token, records });
                    }
                    Effect::Apply { token, changes, .. } => {
                        for change in &changes {
                            node.disk.apply(change);
                        }
                        events.push_back(Event::Applied { token, failed: None });
                    }
                    Effect::List { token, keyspace, from, from_hash, last, count } => {
                        let listed = node
                            .listings
                            .list(&node.disk, keyspace, (from, from_hash), last, count)
                            .expect("a map cannot fail");
                        let (rows, next) = (listed.rows, listed.next);
                        events.push_back(Event::Listed { token, rows, next });
                    }
                    Effect::ReadRows { token, slot, from, bytes } => {
                        let (start, end) = row::range_of_slot(slot);
                        let start = if from.is_empty() { Bytes::from(start) } else { from };
                        let mut rows = Vec::new();
                        let mut next = Bytes::new();
                        let mut size = 0;
                        for (row, record) in node.disk.rows.range(start..Bytes::from(end)) {
                            if size > bytes as usize {
                                next = row.clone();
                                break;
                            }
                            size += record.len();
                            rows.push((row.clone(), Bytes::from(record.clone())));
                        }
                        events.push_back(Event::RowsRead { token, rows, next });
                    }
                    Effect::ReadSpan { token, span } => {
                        let (rows, next) = node.disk.read_span(&span);
                        events.push_back(Event::RowsRead { token, rows, next });
                    }
                    Effect::ScanLog { token, wanted } => {
                        let wanted: BTreeMap<_, _> = wanted.into_iter().collect();
                        let mut deltas = Vec::new();
                        for change in &node.disk.log {
                            let RowChange::Merge { operand, .. } = change else { continue };
                            let Some(raw) = fold::delta_of(operand) else { continue };
                            let (slot, dot) = delta::name_of(raw).expect("ours");
                            if wanted.get(&slot).is_some_and(|w| w.contains(dot)) {
                                deltas.push((slot, Bytes::copy_from_slice(raw)));
                            }
                        }
                        events.push_back(Event::LogFound { token, deltas });
                        events.push_back(Event::LogScanned { token });
                    }
                    Effect::RaiseCeiling(to) => events.push_back(Event::CeilingRaised(to)),
                    Effect::Ready(_) | Effect::FetchLayout { .. } => {}
                    Effect::Fatal(why) => panic!("{id}: {why}"),
                }
            }
        }
    }

    /// Delivers everything that flies, and what follows from it.
    pub(crate) fn settle(&mut self) {
        while let Some((from, to, message)) = self.flying.pop_front() {
            self.deliver(from, to, message);
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, message: Message) {
        if (self.lose)(from, to, &message) || !self.is_up(from) {
            return;
        }
        if self.kept.as_ref().is_some_and(|kept| kept(&message)) {
            self.copies.push((from, to, message.clone()));
        }
        let Some(peer) = &self.nodes[&from].peer else { return };
        let (epoch, hlc) = (peer.epoch(), peer.hlc(self.now));
        let made = Instant(self.now.mono.0 - self.under_way.as_nanos() as u64);
        self.event(to, Event::Received { from, epoch, hlc, made, message });
    }

    /// Delivers the copies that were kept.
    pub(crate) fn deliver_kept(&mut self) {
        self.kept = None;
        for (from, to, message) in std::mem::take(&mut self.copies) {
            self.deliver(from, to, message);
        }
        self.settle();
    }

    /// Lets one node believe that another is up, or is not.
    pub(crate) fn believe(&mut self, at: NodeId, node: NodeId, up: bool) {
        let incarnation = ring::Incarnation(self.nodes[&node].incarnation);
        self.event(at, Event::PeerIs { node, up, ready: up, incarnation });
    }

    /// Lets time pass in small steps.
    pub(crate) fn wait(&mut self, time: Duration) {
        let step = Duration::from_millis(5);
        let steps = time.as_millis() / step.as_millis();
        for _ in 0..steps {
            self.now.mono = self.now.mono + step;
            self.now.wall = WallMillis(self.now.wall.0 + 5);
            for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                self.event(id, Event::Tick);
            }
            self.settle();
        }
    }

    /// Asks a node, without delivering anything yet.
    pub(crate) fn submit(&mut self, at: NodeId, request: Request) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        self.event(at, Event::Submit { id, request, timeout_us: 2_000_000 });
        id
    }

    /// Asks a node under a name.
    pub(crate) fn submit_named(&mut self, at: NodeId, request: Request, named: Named) -> u64 {
        self.submit_named_within(at, request, (named, Duration::from_secs(2)))
    }

    /// The same, with so much time.
    pub(crate) fn submit_named_within(
        &mut self,
        at: NodeId,
        request: Request,
        (named, time): (Named, Duration),
    ) -> u64 {
        self.next_id += 1;
        let (id, timeout_us) = (self.next_id, time.as_micros() as u64);
        self.event(at, Event::SubmitNamed { id, request, timeout_us, named });
        id
    }

    /// Waits for the answer to what was submitted.
    pub(crate) fn await_answer(&mut self, id: u64) -> Answer {
        self.settle();
        for _ in 0..600 {
            if let Some(answer) = self.answer(id) {
                return answer;
            }
            self.wait(Duration::from_millis(5));
        }
        panic!("no answer in 3 s");
    }

    pub(crate) fn answer(&mut self, id: u64) -> Option<Answer> {
        self.answers.remove(&id)
    }

    /// Asks a node and waits for the answer.
    pub(crate) fn ask(&mut self, at: NodeId, request: Request) -> Answer {
        let id = self.submit(at, request);
        self.await_answer(id)
    }

    /// Does one op on one key.
    pub(crate) fn op(&mut self, at: NodeId, key: &str, op: Op) -> Result<Outcome, TaskError> {
        match self.ask(at, task(key, op)) {
            Answer::Done { mut outcomes, .. } => Ok(outcomes.pop().expect("one outcome")),
            Answer::Failed(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn set(&mut self, at: NodeId, key: &str, value: &str) -> Result<Outcome, TaskError> {
        self.op(at, key, set(value))
    }

    pub(crate) fn get(&mut self, at: NodeId, key: &str) -> Option<String> {
        match self.op(at, key, Op::Read).expect("a read") {
            Outcome::Read { found, .. } => {
                found.map(|f| String::from_utf8_lossy(&f.value).into_owned())
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn incr(&mut self, at: NodeId, key: &str, by: i64) -> i64 {
        match self.op(at, key, Op::Increment(by)).expect("an increment") {
            Outcome::Integer(v) => v,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn set(value: &str) -> Op {
    Op::Set {
        value: Bytes::copy_from_slice(value.as_bytes()),
        expiry: ringdb_replication::op::SetExpiry::Clear,
        condition: ringdb_replication::op::SetCondition::Always,
        get: false,
    }
}

pub(crate) fn task(key: &str, op: Op) -> Request {
    let row = row::of_key(0, key.as_bytes());
    Request::Task(Task::one(Slot::of_key(key.as_bytes()), 0, row, op))
}
