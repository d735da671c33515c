//! Members: core 0's dealings with the other nodes: the mesh, who is up, who has which layout.
//!
//! Peers hear from us four times a second; what they say of themselves decides who is up. A peer's
//! link counts as up once frames can go both ways, and again whenever either direction was broken:
//! then messages may have been lost. The machines hear of it once the terms of keyspaces that the peer
//! holds are in force here (see [`ring::exchange`]): a node that returns knows them before it serves.

mod copies;
mod terms;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use replication::Event;
use ring::exchange::{self, Exchange};
use ring::keyspace::majority;
use ring::liveness::{self, Liveness, NodeState};
use ring::{Incarnation, Instant, Layout, NodeId, Now, Slot};
use tracing::{error, info, warn};
use wire::moment::Moment;
use wire::{FrameWriter, Header, Kind, codec};

use crate::clock;
use crate::mesh::{Lane, Mesh};
use crate::native::Age;
use crate::peers::{Heartbeat, LAYOUT, LAYOUT_WANTED, say_moment};
use crate::shared::{MemberView, MembersView, Shared};

pub use terms::{Then, Wanted};

/// So often in a row a peer must have refused this process for a second one before it is believed:
/// what a process said that has just ended may have arrived late.
const SECOND_TIMES: u32 = 2;

/// How the two directions to a peer stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Link {
    /// Counts our connections to it.
    out: u64,
    /// Frames can go there now.
    out_up: bool,
    /// The number that it gave to its connection to us; 0 before it said one.
    heard: u64,
    /// It says what it holds of the terms of keyspaces.
    exchanges: bool,
    /// The pair for which it was asked for them.
    asked: (u64, u64),
    /// They are in force here.
    in_step: bool,
    /// The pair for which the machines were told that the link is up.
    told: (u64, u64),
    /// What the process that connected to us last calls itself, and how long what it sends is under way.
    boot: u64,
    age: Age,
}

/// What core 0 knows of the other nodes.
pub struct Members {
    shared: Arc<Shared>,
    mesh: Option<Mesh>,
    liveness: Liveness,
    layout: Arc<Layout>,
    /// Its fingerprint, which takes a while to compute.
    layout_hash: u64,
    links: BTreeMap<NodeId, Link>,
    ready: Vec<bool>,
    /// It was once, all of it.
    was_ready: bool,
    draining: bool,
    /// What administrators set of keyspaces, here and elsewhere.
    exchange: Exchange,
    changes: terms::Changes,
    effects: Vec<liveness::Effect>,
    /// Peers whose different layout was already complained about.
    strangers: Vec<NodeId>,
    /// By peer, how often in a row it refused this process for a second one of its name.
    refusals: BTreeMap<NodeId, u32>,
}

impl Members {
    /// What is known at the start: nobody is up.
    #[must_use]
    pub fn new(shared: Arc<Shared>, now: Now) -> Self {
        let layout = shared.layout();
        let me = shared.config.node;
        let mut liveness = Liveness::new(now.mono, me);
        liveness.set_members(now.mono, layout.members.values().map(|m| (m.id, m.incarnation)));
        let links = layout.peers_of(me).map(|m| (m.id, Link::default())).collect();
        let ready = vec![false; shared.cores()];
        let register = ring::Register::clone(&shared.register());
        let members = Self {
            shared,
            mesh: None,
            liveness,
            layout_hash: layout.hash(),
            layout,
            links,
            ready,
            was_ready: false,
            draining: false,
            exchange: Exchange::new(register, clock::seed()),
            changes: terms::Changes::default(),
            effects: Vec::new(),
            strangers: Vec::new(),
            refusals: BTreeMap::new(),
        };
        members.publish();
        members
    }

    /// The mesh has begun.
    pub fn set_mesh(&mut self, mesh: Mesh) {
        self.mesh = Some(mesh);
    }

    /// The mesh, unless this node has no peers.
    #[must_use]
    pub fn mesh(&self) -> Option<Mesh> {
        self.mesh.clone()
    }

    /// When the liveness of peers must hear of the time.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        let changes = self.exchange.next_deadline().unwrap_or(Instant(u64::MAX));
        let changes = changes.min(self.next_search_deadline().unwrap_or(Instant(u64::MAX)));
        if self.links.is_empty() { changes } else { self.liveness.next_deadline().min(changes) }
    }

    /// Time may have passed beyond a deadline.
    pub fn tick(&mut self, now: Now, events: &mut Vec<Event>) {
        if self.next_deadline() <= now.mono {
            self.happens(now, liveness::Event::Tick, events);
            self.exchange(now, exchange::Event::Tick, events);
            self.say_state(now);
            self.search_on(now, events);
            self.take_back(now, events);
        }
    }

    /// Frames to the peer can be sent from now on.
    pub fn connected(&mut self, now: Now, peer: NodeId, events: &mut Vec<Event>) {
        if let Some(link) = self.links.get_mut(&peer) {
            self.refusals.remove(&peer);
            link.out += 1;
            link.out_up = true;
            // At once, so that it need not wait for the next beat to know us.
            self.send_heartbeat(peer);
            self.tell_of_link(now, peer, events);
        }
    }

    /// The peer refuses this process: another one with its name is connected there and speaks. One
    /// that never was connected there is the newcomer, and ends; another one goes on, and says so.
    pub fn is_second(&mut self, peer: NodeId, why: &str) {
        let times = self.refusals.entry(peer).or_default();
        *times += 1;
        if *times < SECOND_TIMES {
            return;
        }
        let name = &self.shared.config.name;
        if self.links.get(&peer).is_some_and(|link| link.out == 0) {
            self.shared.fail(format!(
                "another process runs as node {name}\n  why: {peer} says: {why}\n  fix: stop that \
                 process, or give this one a name, certificate and data directory of its own"
            ));
        } else if *times == SECOND_TIMES {
            error!(%peer, why, name, "another process runs under this node's name; stop one of them");
        }
    }

    /// The peer is connected to us anew. Another process has another clock.
    pub fn accepted(&mut self, peer: NodeId, boot: u64) {
        if let Some(link) = self.links.get_mut(&peer)
            && link.boot != boot
        {
            (link.boot, link.age) = (boot, Age::default());
        }
    }

    /// A peer says when what it sends next was made. It hears of our clock with our heartbeats.
    pub fn said(&mut self, from: NodeId, said: Moment) {
        if let Some(link) = self.links.get_mut(&from) {
            let _ = link.age.heard(clock::mono(), said);
        }
    }

    /// When what comes from this peer now was made, by our clock; nothing if it has not said so.
    #[must_use]
    pub fn made_by(&self, from: NodeId) -> Option<Instant> {
        self.links.get(&from).and_then(|link| link.age.made())
    }

    /// The connection to the peer is gone.
    pub fn closed(&mut self, now: Now, peer: NodeId, events: &mut Vec<Event>) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.out_up = false;
            self.happens(now, liveness::Event::Closed { from: peer }, events);
        }
    }

    /// A heartbeat came.
    pub fn heard(
        &mut self,
        now: Now,
        from: NodeId,
        beat: &Heartbeat,
        epoch: u64,
        events: &mut Vec<Event>,
    ) {
        let Some(link) = self.links.get_mut(&from) else { return };
        link.heard = beat.link;
        let Heartbeat { incarnation, state, keyspaces: digest, .. } = *beat;
        link.exchanges = digest != 0;
        self.happens(now, liveness::Event::Heard { from, incarnation, state }, events);
        self.tell_of_link(now, from, events);
        self.exchange(now, exchange::Event::Beat { from, digest }, events);
        let differs = epoch == self.layout.epoch.0 && beat.layout_hash != self.layout_hash;
        if differs && !self.strangers.contains(&from) {
            self.strangers.push(from);
            error!(
                peer = %from, epoch,
                "a peer has another list of members under the same epoch; correct cluster.members \
                 on one of the two: it must be the same everywhere"
            );
        }
    }

    fn tell_of_link(&mut self, now: Now, peer: NodeId, events: &mut Vec<Event>) {
        let full = self.shared.is_full();
        let Some(link) = self.links.get_mut(&peer) else { return };
        let pair = (link.out, link.heard);
        // What would be pulled could not be written.
        if full || !link.out_up || link.heard == 0 || link.told == pair {
            return;
        }
        if link.asked != pair {
            link.asked = pair;
            link.in_step = !link.exchanges;
            if link.exchanges {
                return self.exchange(now, exchange::Event::LinkIs(peer), events);
            }
        }
        if link.in_step || !link.exchanges {
            link.told = pair;
            info!(%peer, "the link is up");
            events.push(Event::LinkUp(peer));
        }
    }

    /// A core of this node is ready, or is not.
    pub fn core_is(&mut self, now: Now, core: usize, ready: bool) {
        self.ready[core] = ready;
        self.say_state(now);
    }

    /// This node is about to stop.
    pub fn drain(&mut self, now: Now, events: &mut Vec<Event>) {
        self.draining = true;
        self.give_up_searches(now, events);
        self.say_state(now);
    }

    /// There is room on the disk again, or none any more. Meanwhile writes were lost: links are up anew, and this node is
    /// ready again when its cores have caught up.
    pub fn room_has_changed(&mut self, now: Now, events: &mut Vec<Event>) {
        events.push(Event::RoomIs(!self.shared.is_full()));
        if !self.links.is_empty() {
            self.ready.fill(false);
        }
        let peers: Vec<NodeId> = self.links.keys().copied().collect();
        for peer in peers {
            if let Some(link) = self.links.get_mut(&peer) {
                link.told = (0, 0);
            }
            self.tell_of_link(now, peer, events);
        }
        self.say_state(now);
    }

    fn say_state(&mut self, now: Now) {
        // Without room a node lags behind its peers, who can do without it; one that is alone is read.
        let is_there = self.links.is_empty() || !self.shared.is_full();
        let ready = self.ready.iter().all(|r| *r) && self.knows_terms(now) && is_there;
        self.was_ready |= ready;
        let state = match (self.draining, ready) {
            (true, _) => NodeState::Draining,
            (false, true) => NodeState::Ready,
            (false, false) => NodeState::CatchingUp,
        };
        if state == self.liveness.state() {
            return;
        }
        info!(?state, "this node");
        self.liveness.set_state(state);
        self.shared.loading.store(!ready, Ordering::Relaxed);
        if state == NodeState::Ready {
            self.shared.background.recovered();
        }
        let peers: Vec<NodeId> = self.links.keys().copied().collect();
        for peer in peers {
            self.send_heartbeat(peer);
        }
        self.publish();
    }

    fn happens(&mut self, now: Now, event: liveness::Event, events: &mut Vec<Event>) {
        let mut effects = std::mem::take(&mut self.effects);
        self.liveness.on_event(now.mono, event, &mut effects);
        let mut changed = false;
        for effect in effects.drain(..) {
            match effect {
                liveness::Effect::SendHeartbeat { to } => self.send_heartbeat(to),
                liveness::Effect::Changed { peer, from, to } => {
                    changed = true;
                    let (up, ready) = (to.up, to.up && to.state == NodeState::Ready);
                    info!(%peer, up, state = ?to.state, was_up = from.up, "a peer");
                    let incarnation = to.incarnation;
                    events.push(Event::PeerIs { node: peer, up, ready, incarnation });
                }
            }
        }
        self.effects = effects;
        if changed {
            self.publish();
        }
    }

    fn send_heartbeat(&self, to: NodeId) {
        let Some(link) = self.links.get(&to) else { return };
        let beat = Heartbeat {
            incarnation: self.shared.incarnation,
            state: self.liveness.state(),
            link: link.out,
            layout_hash: self.layout_hash,
            keyspaces: self.exchange.register().digest(),
        };
        let mut body = Vec::new();
        codec::encode_into(&beat, &mut body);
        self.send_frame(to, Lane::Fast, Kind::HEARTBEAT, &body);
    }

    fn send_frame(&self, to: NodeId, lane: Lane, kind: Kind, body: &[u8]) {
        let mut writer = FrameWriter::new();
        let header = Header { epoch: self.layout.epoch.0, ..Header::new(kind) };
        if kind == Kind::HEARTBEAT {
            // So that it is known before it matters how far the clocks are apart.
            let heard_us = self.links.get(&to).map_or(0, |link| link.age.latest());
            say_moment(&mut writer, Moment { at_us: clock::mono().0 / 1_000, heard_us });
        }
        if let Err(e) = writer.frame(header, body) {
            warn!(%to, error = %e, "a frame cannot be sent");
            return;
        }
        self.send(to, lane, writer.bytes());
        self.flush();
    }

    /// Gives frames to the mesh; false if it did not take them.
    pub fn send(&self, to: NodeId, lane: Lane, frames: &[u8]) -> bool {
        let Some(mesh) = &self.mesh else { return false };
        mesh.send(to, lane, |buffer| buffer.extend_from_slice(frames)).is_ok()
    }

    /// What was given to the mesh leaves.
    pub fn flush(&self) {
        if let Some(mesh) = &self.mesh {
            mesh.flush();
        }
    }

    /// Exchanges layouts with a peer.
    pub fn fetch_layout(&self, from: NodeId) {
        self.send_frame(from, Lane::Bulk, LAYOUT_WANTED, &[]);
        self.send_layout(from);
    }

    /// Sends our layout to a peer.
    pub fn send_layout(&self, to: NodeId) {
        let mut body = Vec::new();
        codec::encode_into(&*self.layout, &mut body);
        self.send_frame(to, Lane::Bulk, LAYOUT, &body);
    }

    /// A peer's layout came: a newer one of this cluster holds from now on.
    pub fn layout_came(&mut self, now: Now, from: NodeId, layout: Layout, events: &mut Vec<Event>) {
        if layout.cluster != self.layout.cluster || layout.epoch <= self.layout.epoch {
            return;
        }
        if let Err(e) = layout.validate() {
            warn!(%from, error = %e, "a peer's layout is refused");
            return;
        }
        info!(%from, epoch = layout.epoch.0, "a newer layout");
        self.layout_hash = layout.hash();
        self.layout = Arc::new(layout);
        self.shared.set_layout(self.layout.clone());
        let members = self.layout.members.values().map(|m| (m.id, m.incarnation));
        self.liveness.set_members(now.mono, members);
        events.push(Event::LayoutIs(self.layout.clone()));
        self.publish();
    }

    fn publish(&self) {
        let me = self.shared.config.node;
        let view_of = |node: NodeId| match self.liveness.status(node) {
            Some(status) => MemberView {
                up: status.up,
                incarnation: status.incarnation,
                state: status.state,
                since: self.liveness.since(node).unwrap_or_default(),
            },
            None => MemberView {
                up: node == me,
                incarnation: if node == me { self.shared.incarnation } else { Incarnation(0) },
                state: self.liveness.state(),
                since: self.shared.started,
            },
        };
        let members = self.layout.members.keys().map(|node| (*node, view_of(*node))).collect();
        let n = self.shared.policies().default.n;
        let served = |slot: Slot| {
            let copies = self.layout.replicas_for(slot, n);
            let ready = copies.iter().filter(|node| self.liveness.is_ready(**node)).count();
            !copies.is_empty() && ready >= usize::from(majority(copies.len() as u8))
        };
        let (mut all, mut mine, mut mine_served) = (0_u32, 0_u32, 0_u32);
        for slot in Slot::all() {
            let served = u32::from(served(slot));
            let is_mine = u32::from(self.layout.is_replica(me, slot));
            all += served;
            mine += is_mine;
            mine_served += is_mine & served;
        }
        self.shared.set_members(MembersView {
            members,
            quorum: f64::from(all) / f64::from(ring::SLOTS),
            quorum_of_mine: f64::from(mine_served) / f64::from(mine.max(1)),
        });
    }
}
