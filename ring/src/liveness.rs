//! Liveness: who seems to be up, from the heartbeats that everybody sends to everybody.
//!
//! It is advice. It may make a node refuse a request early or ask another copy first; it never
//! counts as an answer, and it never moves data. A wrong "down" costs a detour, so it may be quick:
//! - a peer is down after [`SILENCE_MIN`] of silence, or more if it has been late before: the worst
//!   lateness of the last minutes is remembered and fades, so a busy machine flaps once at most;
//! - a peer whose connection closed is down after [`CLOSED_GRACE`], unless it is heard again;
//! - time in which *we* did not run blames nobody: when an event comes later than
//!   [`Liveness::next_deadline`] asked for, all deadlines move by as much;
//! - a peer is up again with the first message of its present life; messages of earlier lives do
//!   not count, and silence that spans two lives teaches nothing about lateness.
//!
//! Heartbeats go to every peer at a constant rate, up or down: a network of n nodes carries 4·n²
//! small messages a second whatever happens to it.

use core::time::Duration;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{Incarnation, NodeId};
use crate::time::Instant;

/// How often a node tells each peer that it is there.
pub const HEARTBEAT: Duration = Duration::from_millis(250);

/// A peer that was never late is down after this much silence: two heartbeats lost, and the third
/// due.
pub const SILENCE_MIN: Duration = Duration::from_millis(750);

/// However late a peer has been, it is down after this much silence.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);

/// A peer whose connection was closed or refused has this long to come back.
pub const CLOSED_GRACE: Duration = Duration::from_millis(500);

/// The lateness we expect of a peer that we do not know yet: until it has shown itself punctual for
/// a minute or two, it is down after 950 ms.
const LATENESS_FIRST: Duration = Duration::from_millis(300);

/// Remembered lateness fades to about a third in this time.
const LATENESS_FADES_IN: Duration = Duration::from_secs(180);

const _: () = assert!(CLOSED_GRACE.as_millis() >= 2 * HEARTBEAT.as_millis());
const _: () = assert!(SILENCE_MIN.as_millis() >= 3 * HEARTBEAT.as_millis());
const _: () = assert!(SILENCE_MAX.as_millis() > SILENCE_MIN.as_millis());

/// What a node says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It reads its log; ask it nothing.
    #[default]
    Starting,
    /// It takes writes, but lacks some of those that were made while it was away.
    CatchingUp,
    /// It answers everything.
    Ready,
    /// It is about to stop: it answers what it was asked; ask others from now on.
    Draining,
}

/// What we think of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it seems to be up.
    pub up: bool,
    /// The latest life of it that we know of.
    pub incarnation: Incarnation,
    /// What it last said of itself, in that life.
    pub state: NodeState,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message came: a heartbeat or any other that carries these.
    Heard {
        /// Who sent it.
        from: NodeId,
        /// In which of its lives.
        incarnation: Incarnation,
        /// What it says of itself.
        state: NodeState,
    },
    /// A connection to or from this peer was closed or refused: its process is probably gone.
    Closed {
        /// The peer.
        from: NodeId,
    },
    /// [`Liveness::next_deadline`] has come.
    Tick,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell this peer our incarnation and state.
    SendHeartbeat {
        /// The peer.
        to: NodeId,
    },
    /// A peer went up or down, said something new of itself, or began another life.
    Changed {
        /// The peer.
        peer: NodeId,
        /// What we thought before.
        from: Status,
        /// What we think now.
        to: Status,
    },
}

#[derive(Clone, Debug)]
struct Peer {
    status: Status,
    /// When its status last changed.
    since: Instant,
    /// When it was last heard, moved forward by the time in which we did not run.
    heard: Instant,
    /// When it is down unless heard again; set by a closed connection.
    closed_deadline: Option<Instant>,
    /// The worst lateness of a heartbeat, fading.
    lateness: Duration,
}

impl Peer {
    fn silence_allowed(&self) -> Duration {
        (HEARTBEAT * 2 + self.lateness * 3 / 2).clamp(SILENCE_MIN, SILENCE_MAX)
    }

    /// When it is down if nothing more is heard; nothing to wait for if it is down already.
    fn deadline(&self) -> Option<Instant> {
        let silent = self.heard + self.silence_allowed();
        self.status.up.then(|| self.closed_deadline.map_or(silent, |closed| closed.min(silent)))
    }

    fn learn(&mut self, gap: Duration) {
        let fades = LATENESS_FADES_IN.as_nanos();
        let faded = self.lateness.as_nanos() * fades / (fades + gap.as_nanos());
        let faded = Duration::from_nanos(u64::try_from(faded).unwrap_or(u64::MAX));
        // Silence beyond what we would ever allow is absence, not lateness.
        let late = if gap <= SILENCE_MAX { gap.saturating_sub(HEARTBEAT) } else { Duration::ZERO };
        self.lateness = late.max(faded);
    }
}

/// The failure detector of one node.
#[derive(Clone, Debug)]
pub struct Liveness {
    me: NodeId,
    state: NodeState,
    peers: BTreeMap<NodeId, Peer>,
    next_heartbeat: Instant,
    /// When we asked to be called; never later than a peer's deadline or the next heartbeat.
    wake: Instant,
    /// The latest time that we know to have been ours to act in.
    seen: Instant,
}

impl Liveness {
    /// The detector of node `me`, which knows no peer yet and is [`NodeState::Starting`].
    #[must_use]
    pub const fn new(now: Instant, me: NodeId) -> Self {
        let state = NodeState::Starting;
        Self { me, state, peers: BTreeMap::new(), next_heartbeat: now, wake: now, seen: now }
    }

    /// The members of the layout, with their lives as the layout knows them. A new peer is down
    /// until it is heard; one that left is forgotten.
    pub fn set_members(
        &mut self,
        now: Instant,
        members: impl IntoIterator<Item = (NodeId, Incarnation)>,
    ) {
        let mut former = core::mem::take(&mut self.peers);
        for (node, incarnation) in members.into_iter().filter(|(node, _)| *node != self.me) {
            let status = Status { up: false, incarnation, state: NodeState::Starting };
            let new = Peer {
                status,
                since: now,
                heard: now,
                closed_deadline: None,
                lateness: LATENESS_FIRST,
            };
            self.peers.insert(node, former.remove(&node).unwrap_or(new));
        }
    }

    /// What this node says of itself from now on.
    pub const fn set_state(&mut self, state: NodeState) {
        self.state = state;
    }

    /// What this node says of itself.
    #[must_use]
    pub const fn state(&self) -> NodeState {
        self.state
    }

    /// Whether `node` seems to be up. We are; a node that is no member is not.
    #[must_use]
    pub fn is_up(&self, node: NodeId) -> bool {
        node == self.me || self.peers.get(&node).is_some_and(|p| p.status.up)
    }

    /// Whether `node` seems to be up and said that it is ready.
    #[must_use]
    pub fn is_ready(&self, node: NodeId) -> bool {
        if node == self.me {
            return self.state == NodeState::Ready;
        }
        let ready = |p: &Peer| p.status.up && p.status.state == NodeState::Ready;
        self.peers.get(&node).is_some_and(ready)
    }

    /// What we think of a peer; nothing of ourselves or of strangers.
    #[must_use]
    pub fn status(&self, node: NodeId) -> Option<Status> {
        self.peers.get(&node).map(|p| p.status)
    }

    /// Since when we think so.
    #[must_use]
    pub fn since(&self, node: NodeId) -> Option<Instant> {
        self.peers.get(&node).map(|p| p.since)
    }

    /// How much silence a peer is allowed at present.
    #[must_use]
    pub fn silence_allowed(&self, node: NodeId) -> Option<Duration> {
        self.peers.get(&node).map(Peer::silence_allowed)
    }

    /// When to send [`Event::Tick`]. Being called later than this counts as a stall of ours.
    #[must_use]
    pub const fn next_deadline(&self) -> Instant {
        self.wake
    }

    /// Takes note of `event`, then does what is due at `now`.
    pub fn on_event(&mut self, now: Instant, event: Event, out: &mut Vec<Effect>) {
        self.forgive_our_stall(now);
        match event {
            Event::Heard { from, incarnation, state } => {
                self.on_heard(now, from, incarnation, state, out);
            }
            Event::Closed { from } => self.on_closed(now, from),
            Event::Tick => {}
        }
        if now >= self.wake {
            self.do_what_is_due(now, out);
        }
    }

    fn forgive_our_stall(&mut self, now: Instant) {
        let stall = now.since(self.wake.max(self.seen));
        self.seen = self.seen.max(now);
        if stall.is_zero() {
            return;
        }
        for peer in self.peers.values_mut() {
            peer.heard = (peer.heard + stall).min(now);
            peer.closed_deadline = peer.closed_deadline.map(|deadline| deadline + stall);
        }
    }

    fn on_heard(
        &mut self,
        now: Instant,
        from: NodeId,
        incarnation: Incarnation,
        state: NodeState,
        out: &mut Vec<Effect>,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if incarnation < peer.status.incarnation {
            return;
        }
        let gone_for_sure = peer.closed_deadline.is_some_and(|deadline| deadline <= now);
        if incarnation == peer.status.incarnation && !gone_for_sure {
            peer.learn(now.since(peer.heard));
        }
        peer.heard = now;
        peer.closed_deadline = None;
        set_status(from, peer, now, Status { up: true, incarnation, state }, out);
        // Its deadline is no earlier than one heartbeat from now, when we wake anyway.
    }

    fn on_closed(&mut self, now: Instant, from: NodeId) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let deadline = *peer.closed_deadline.get_or_insert(now + CLOSED_GRACE);
        self.wake = self.wake.min(deadline);
    }

    fn do_what_is_due(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if now >= self.next_heartbeat {
            out.extend(self.peers.keys().map(|&to| Effect::SendHeartbeat { to }));
            // After a stall the beat goes on from here: nobody needs the ones that we missed.
            let on_time = self.next_heartbeat + HEARTBEAT;
            self.next_heartbeat = if on_time > now { on_time } else { now + HEARTBEAT };
        }
        self.wake = self.next_heartbeat;
        for (&node, peer) in &mut self.peers {
            let Some(deadline) = peer.deadline() else { continue };
            if deadline <= now {
                set_status(node, peer, now, Status { up: false, ..peer.status }, out);
            } else {
                self.wake = self.wake.min(deadline);
            }
        }
    }
}

fn set_status(node: NodeId, peer: &mut Peer, now: Instant, to: Status, out: &mut Vec<Effect>) {
    let from = peer.status;
    if from != to {
        peer.status = to;
        peer.since = now;
        out.push(Effect::Changed { peer: node, from, to });
    }
}
