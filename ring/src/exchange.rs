//! Exchange: how every node comes to hold the same [`Register`], and who is known to hold a setting.
//!
//! Pure: the driver says what happened, keeps the register on its disk when told to, and sends notes.
//! A note carries a whole register, so that it may be lost, late, repeated or overtaken by others: merging
//! it again changes nothing, and the heartbeats' digests show who still differs. Promises:
//! - whatever is in a note is on its sender's disk; so a note that has a setting proves that its sender
//!   will never forget it, and whoever answers an asked question holds what the question carried;
//! - nothing is in force before it is on the disk;
//! - a peer is [`Effect::InStep`] only when all that it held when it answered us, on the link that is up
//!   now, is on our disk and in force. The machines hear of a link no sooner, and a node serves no sooner
//!   than it has pulled over its links: so a node that returns knows the terms before it acts on them.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::limits::CHANGES_MAX;
use crate::register::{Register, Scope, Setting};
use crate::time::Instant;

/// How long the members that seem to be up have to put a setting on their disks.
pub const HOLD_PATIENCE: Duration = Duration::from_millis(2_000);

/// What nodes send each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// All that is on the sender's disk.
    #[serde(rename = "k")]
    pub register: Register,
    /// To be answered under this number as soon as it is on the receiver's disk; 0: no need.
    #[serde(rename = "q", default)]
    pub ask: u64,
    /// The answer to the question of this number; 0: to none.
    #[serde(rename = "a", default)]
    pub answer: u64,
}

/// A change that an administrator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Names it in [`Effect::Done`].
    pub id: u64,
    /// Of which keyspace.
    pub scope: Scope,
    /// The setting, with the version that it is to have.
    pub setting: Setting,
    /// The other members that seem to be up.
    pub up: BTreeSet<NodeId>,
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// Frames can go to this peer and come from it, and some may have been lost.
    LinkIs(NodeId),
    /// A note came.
    Heard {
        /// From whom.
        from: NodeId,
        /// The note.
        note: Note,
    },
    /// A heartbeat came, and said this of its sender's register; 0: nothing.
    Beat {
        /// From whom.
        from: NodeId,
        /// The digest.
        digest: u64,
    },
    /// This register is on the disk.
    Kept(Register),
    /// The disk refused; the reason.
    NotKept(String),
    /// An administrator wants a change.
    Change(Change),
    /// [`Exchange::next_deadline`] has come.
    Tick,
}

/// How a change ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is on the disks of this node and of these others, and in force here.
    Held(BTreeSet<NodeId>),
    /// As before, but another change of the keyspace was made at the same time, and wins.
    Overtaken(BTreeSet<NodeId>),
    /// This node's disk refused it. It may show after a restart.
    NotKept(String),
    /// Too many changes are under way. Nothing was done.
    TooMany,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Put this on the disk, then say [`Event::Kept`], in the order of these effects.
    Keep(Register),
    /// [`Exchange::register`] is another one now: let it be in force before what follows.
    Changed,
    /// Send this.
    Send {
        /// To whom.
        to: NodeId,
        /// The note.
        note: Note,
    },
    /// We have all that this peer held when its present link began.
    InStep(NodeId),
    /// A change has ended.
    Done {
        /// Which.
        id: u64,
        /// How.
        outcome: Outcome,
    },
}

/// What is known of a peer.
#[derive(Clone, Debug, Default)]
struct Link {
    /// The number of our question that is not answered; 0: none.
    asked: u64,
    /// Its answer, which is not on our disk yet.
    answer: Option<Register>,
}

/// A change that is under way.
#[derive(Clone, Debug)]
struct Waiting {
    change: Change,
    held: BTreeSet<NodeId>,
    sent: bool,
    deadline: Instant,
}

/// The exchange of one node.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// What is on the disk, and in force.
    kept: Register,
    /// And what is on its way there.
    known: Register,
    links: BTreeMap<NodeId, Link>,
    /// Questions of others that wait for our disk.
    questions: Vec<(NodeId, u64, Register)>,
    waiting: Vec<Waiting>,
    last_number: u64,
}

impl Exchange {
    /// With what the disk holds. `seed` makes the numbers of questions differ from those of earlier
    /// lives.
    #[must_use]
    pub fn new(kept: Register, seed: u64) -> Self {
        Self {
            known: kept.clone(),
            kept,
            links: BTreeMap::new(),
            questions: Vec::new(),
            waiting: Vec::new(),
            last_number: seed >> 1,
        }
    }

    /// What is on the disk, and in force.
    #[must_use]
    pub const fn register(&self) -> &Register {
        &self.kept
    }

    /// That and what is on its way to the disk: what a new setting has to follow.
    #[must_use]
    pub const fn known(&self) -> &Register {
        &self.known
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|w| w.deadline).min()
    }

    /// Something happened; what follows is appended to `out`.
    pub fn on_event(&mut self, now: Instant, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::LinkIs(peer) => {
                let asked = self.number();
                self.links.insert(peer, Link { asked, answer: None });
                self.ask(peer, asked, out);
            }
            Event::Heard { from, note } => self.heard(from, note, out),
            Event::Beat { from, digest } => self.beat(from, digest, out),
            Event::Kept(register) => {
                if self.kept.merge(&register) {
                    out.push(Effect::Changed);
                }
                self.known.merge(&register);
            }
            Event::NotKept(why) => {
                // What others sent they will send again; it is asked for anew as well.
                self.known = self.kept.clone();
                self.questions.clear();
                self.links.values_mut().for_each(|link| link.answer = None);
                let kept = &self.kept;
                self.waiting.retain(|w| {
                    let is_kept = holds(kept, &w.change);
                    if !is_kept {
                        let outcome = Outcome::NotKept(why.clone());
                        out.push(Effect::Done { id: w.change.id, outcome });
                    }
                    is_kept
                });
            }
            Event::Change(change) => self.change(now, change, out),
            Event::Tick => {}
        }
        self.proceed(now, out);
    }

    fn number(&mut self) -> u64 {
        self.last_number = self.last_number.wrapping_add(1).max(1);
        self.last_number
    }

    fn ask(&self, to: NodeId, ask: u64, out: &mut Vec<Effect>) {
        let note = Note { register: self.kept.clone(), ask, answer: 0 };
        out.push(Effect::Send { to, note });
    }

    fn heard(&mut self, from: NodeId, note: Note, out: &mut Vec<Effect>) {
        let Note { register, ask, answer } = note;
        if self.known.merge(&register) {
            out.push(Effect::Keep(self.known.clone()));
        }
        for waiting in &mut self.waiting {
            if holds(&register, &waiting.change) {
                waiting.held.insert(from);
            }
        }
        if let Some(link) = self.links.get_mut(&from).filter(|l| answer != 0 && l.asked == answer) {
            link.answer = Some(register.clone());
        }
        if ask != 0 {
            // Of one asker the latest question counts; so there are no more than peers.
            self.questions.retain(|(node, _, _)| *node != from);
            self.questions.push((from, ask, register));
        }
    }

    fn beat(&mut self, from: NodeId, digest: u64, out: &mut Vec<Effect>) {
        let Some(link) = self.links.get(&from) else { return };
        if link.asked != 0 && link.answer.is_none() {
            // The question, or its answer, may have been dropped.
            self.ask(from, link.asked, out);
        } else if digest != 0 && digest != self.kept.digest() {
            self.ask(from, 0, out);
        }
    }

    fn change(&mut self, now: Instant, change: Change, out: &mut Vec<Effect>) {
        if self.waiting.len() >= CHANGES_MAX {
            return out.push(Effect::Done { id: change.id, outcome: Outcome::TooMany });
        }
        if self.known.put(change.scope, change.setting.clone()) {
            out.push(Effect::Keep(self.known.clone()));
        }
        let deadline = now + HOLD_PATIENCE;
        self.waiting.push(Waiting { change, held: BTreeSet::new(), sent: false, deadline });
    }

    /// Does what has become possible.
    fn proceed(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let kept = &self.kept;
        for (peer, link) in &mut self.links {
            if link.answer.as_ref().is_some_and(|answer| kept.covers(answer)) {
                *link = Link::default();
                out.push(Effect::InStep(*peer));
            }
        }
        self.questions.retain(|(from, ask, register)| {
            let ready = kept.covers(register);
            if ready {
                let note = Note { register: kept.clone(), ask: 0, answer: *ask };
                out.push(Effect::Send { to: *from, note });
            }
            !ready
        });
        let mut asks: BTreeSet<NodeId> = BTreeSet::new();
        for waiting in self.waiting.iter_mut().filter(|w| !w.sent && holds(kept, &w.change)) {
            waiting.sent = true;
            asks.extend(&waiting.change.up);
        }
        for to in asks {
            // Whatever question it is: an answer to it, as any note, says what its sender holds.
            let unanswered = self.links.get(&to).map_or(0, |link| link.asked);
            let ask = if unanswered != 0 { unanswered } else { self.number() };
            self.ask(to, ask, out);
        }
        let (kept, known) = (&self.kept, &self.known);
        self.waiting.retain(|w| {
            let everybody = w.sent && w.change.up.is_subset(&w.held);
            if !everybody && now < w.deadline {
                return true;
            }
            let (id, held) = (w.change.id, w.held.clone());
            let outcome = if !holds(kept, &w.change) {
                Outcome::NotKept("it did not answer in time".to_owned())
            } else if known.get(w.change.scope) == Some(&w.change.setting) {
                Outcome::Held(held)
            } else {
                // Known is enough: whoever held it may have answered with it.
                Outcome::Overtaken(held)
            };
            out.push(Effect::Done { id, outcome });
            false
        });
    }
}

/// Whether a register has a change, or what replaced it.
fn holds(register: &Register, change: &Change) -> bool {
    register.get(change.scope).is_some_and(|setting| *setting >= change.setting)
}
