//! Terms: core 0's part in setting the terms of keyspaces while the cluster runs.
//!
//! [`Exchange`](ring::exchange) decides; here its effects reach the disk, the peers, the machines and the
//! administrators who wait. Promise: an administrator hears that a change is made only when it is on the
//! disk of this node and of those that the answer names.

use std::collections::{BTreeMap, BTreeSet};

use replication::Event;
use replication::limits::LONELY_AFTER;
use ring::exchange::{self, Effect, Outcome};
use ring::{KeyspacePolicy, NodeId, Now, Register, Scope, Setting};
use tracing::info;
use wire::operate::{KeyspaceChanged, KeyspaceFacts};
use wire::{AdminReply, ClientReply, ErrorCode, ErrorReply, codec};

use super::Members;
use super::copies::Searches;
use crate::facts;
use crate::mesh::Lane;
use crate::native::NativeAsker;
use crate::peers::KEYSPACES;

/// Administrators who wait for a change, and what they are to hear.
#[derive(Default)]
pub(super) struct Changes {
    last: u64,
    wanted: BTreeMap<u64, Wanted>,
    pub(super) answers: Vec<(NativeAsker, ClientReply)>,
    effects: Vec<Effect>,
    /// Keyspaces that were closed just now, with the names of those who have not heard of it.
    pub(super) closed: Vec<(Wanted, Vec<String>)>,
    /// Changes of the number of copies.
    pub(super) searches: Searches,
}

/// A change of a keyspace, and who waits for it.
pub struct Wanted {
    /// Who waits, if anybody does.
    pub asker: Option<NativeAsker>,
    /// Of which keyspace.
    pub scope: Scope,
    /// The setting.
    pub setting: Setting,
    /// What holds before it.
    pub before: KeyspaceFacts,
    /// Why reads may miss writes from then on; empty if they do not.
    pub warning: String,
    /// What follows.
    pub then: Then,
}

/// What follows when a change is made.
#[derive(Debug)]
pub enum Then {
    /// Whoever waits hears of it.
    Tell,
    /// The keyspace is closed: it is to have these terms if it is empty.
    Search(KeyspacePolicy),
    /// It is open again, as it was: why it has no other copies.
    Refuse(Box<ErrorReply>),
}

impl Changes {
    /// Whether a change of a keyspace is under way.
    pub(super) fn is_under_way(&self, scope: Scope) -> bool {
        self.wanted.values().any(|wanted| wanted.scope == scope)
    }
}

impl Members {
    /// What a new setting of a keyspace has to follow.
    #[must_use]
    pub const fn known_terms(&self) -> &Register {
        self.exchange.known()
    }

    /// What is to be told to administrators.
    pub fn take_answers(&mut self) -> Vec<(NativeAsker, ClientReply)> {
        std::mem::take(&mut self.changes.answers)
    }

    /// Begins a change; its asker hears how it ended.
    pub fn change_terms(&mut self, now: Now, wanted: Wanted, events: &mut Vec<Event>) {
        self.changes.last += 1;
        let id = self.changes.last;
        let up: BTreeSet<NodeId> =
            self.links.keys().copied().filter(|peer| self.liveness.is_up(*peer)).collect();
        let (scope, setting) = (wanted.scope, wanted.setting.clone());
        self.changes.wanted.insert(id, wanted);
        let change = exchange::Change { id, scope, setting, up };
        self.exchange(now, exchange::Event::Change(change), events);
    }

    /// The disk has a register, or refused it.
    pub fn kept(&mut self, now: Now, kept: Result<Register, String>, events: &mut Vec<Event>) {
        let event = match kept {
            Ok(register) => exchange::Event::Kept(register),
            Err(why) => exchange::Event::NotKept(why),
        };
        self.exchange(now, event, events);
    }

    /// Something happened to the terms of keyspaces.
    pub fn exchange(&mut self, now: Now, event: exchange::Event, events: &mut Vec<Event>) {
        let mut effects = std::mem::take(&mut self.changes.effects);
        self.exchange.on_event(now.mono, event, &mut effects);
        let mut in_step = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Keep(register) => self.shared.background.keep_keyspaces(register),
                Effect::Changed => {
                    let policies = self.shared.set_register(self.exchange.register().clone());
                    for (scope, setting) in self.exchange.register().iter() {
                        let (version, by) = (setting.version, setting.by.as_str());
                        info!(keyspace = %scope, version, by, "the terms of a keyspace in force");
                    }
                    events.push(Event::PoliciesAre(policies));
                    self.publish();
                }
                Effect::Send { to, note } => {
                    let mut body = Vec::new();
                    codec::encode_into(&note, &mut body);
                    self.send_frame(to, Lane::Bulk, KEYSPACES, &body);
                }
                Effect::InStep(peer) => in_step.push(peer),
                Effect::Done { id, outcome } => self.change_done(id, outcome),
            }
        }
        self.changes.effects = effects;
        for (wanted, missing) in std::mem::take(&mut self.changes.closed) {
            self.begin_search(now, wanted, &missing, events);
        }
        for peer in in_step {
            if let Some(link) = self.links.get_mut(&peer) {
                link.in_step = true;
            }
            self.tell_of_link(now, peer, events);
            self.say_state(now);
        }
    }

    /// Whether the terms of those who are there are in force here, so that this node may begin to serve.
    /// Alone it waits no longer than the machines do.
    pub(super) fn knows_terms(&self, now: Now) -> bool {
        let lonely = now.mono.since(self.shared.started) >= LONELY_AFTER;
        let mut there = self.links.iter().filter(|(peer, _)| self.liveness.is_up(**peer));
        self.was_ready || lonely || there.all(|(_, link)| link.in_step)
    }

    fn change_done(&mut self, id: u64, outcome: Outcome) {
        let Some(wanted) = self.changes.wanted.remove(&id) else { return };
        let (scope, by) = (wanted.scope, wanted.setting.by.clone());
        let name = |node: &NodeId| {
            let member = self.layout.member(*node);
            member.map_or_else(|| node.to_string(), |member| member.name.clone())
        };
        let now_held = || {
            let (policies, register) = (self.shared.policies(), self.shared.register());
            facts::keyspace(scope, policies.of_scope(scope), register.get(scope))
        };
        let fault = |code, what: &str, why: String, fix: &str| {
            let what = format!("keyspace {scope} {what}");
            ClientReply::Error(ErrorReply { code, what, why, fix: fix.to_owned() })
        };
        let reply = match outcome {
            Outcome::Held(held) => {
                let me = self.shared.config.node;
                let has = |node: &&NodeId| **node == me || held.contains(node);
                let (held, missing): (Vec<_>, Vec<_>) = self.layout.members.keys().partition(has);
                info!(keyspace = %scope, by, ?held, ?missing, "an administrator changed it");
                if matches!(wanted.then, Then::Search(_)) {
                    let missing = missing.into_iter().map(name).collect();
                    self.changes.closed.push((wanted, missing));
                    return;
                }
                if let Then::Refuse(error) = wanted.then {
                    let reply = ClientReply::Error(*error);
                    self.changes.answers.extend(wanted.asker.map(|asker| (asker, reply)));
                    return;
                }
                let Wanted { before, warning, .. } = wanted;
                ClientReply::Admin(AdminReply::Keyspace(Box::new(KeyspaceChanged {
                    before,
                    after: now_held(),
                    warning,
                    held: held.into_iter().map(name).collect(),
                    missing: missing.into_iter().map(name).collect(),
                })))
            }
            Outcome::Overtaken(_) => fault(
                ErrorCode::Conflict,
                "was changed by somebody else at the same time",
                format!("version {} by {} wins", now_held().version, now_held().by),
                "look what holds now (ringctl keyspace ls), and set it again if it should differ",
            ),
            Outcome::NotKept(why) => fault(
                ErrorCode::Internal,
                "is not changed for certain: the disk of this node refused it",
                why,
                "make room there or mend the disk, look with ringctl keyspace ls, set it again",
            ),
            Outcome::TooMany => fault(
                ErrorCode::Overloaded { retry_after_ms: 1_000 },
                "is not changed: too many changes are under way",
                "this node waits for other members to put earlier ones on their disks".to_owned(),
                "wait some seconds",
            ),
        };
        let reply = match (reply, wanted.then) {
            (ClientReply::Error(stuck), Then::Refuse(error)) => ClientReply::Error(ErrorReply {
                what: format!("{}; it stays closed", error.what),
                why: format!("{}; {}: {}", error.why, stuck.what, stuck.why),
                fix: format!("{}; open it in a minute: ringctl keyspace set {scope}", stuck.fix),
                ..stuck
            }),
            (reply, _) => reply,
        };
        self.changes.answers.extend(wanted.asker.map(|asker| (asker, reply)));
    }
}
