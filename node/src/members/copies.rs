//! Copies: core 0's part in giving a keyspace another number of copies.
//!
//! Which nodes hold a key is a prefix of its slot's preference list, so that another N would leave written keys where
//! nobody asks for them. The node that an administrator asks closes the keyspace, lets
//! [`Vacancy`] look through all members, and opens it. Promise: N is changed only while all members refuse
//! requests of the keyspace, none has one under way, and none holds a key of it; otherwise it is opened as it was.
//! Whether whoever asked still waits makes no difference. What a former life of this node has left closed is opened as it
//! was when the node returns: nothing else can have been sent, since a setting is on the disk first.

use std::collections::BTreeMap;

use replication::Event;
use ring::vacancy::{Step, Told, Vacancy};
use ring::{Actor, Instant, KeyspacePolicy, NodeId, Now, Scope, Setting};
use tracing::{info, warn};
use wire::{ErrorCode, ErrorReply, codec};

use super::{Members, Then, Wanted};
use crate::facts;
use crate::limits::CLOSED_BY_MS;
use crate::mesh::Lane;
use crate::peers::{VACANCY, VACANCY_WANTED, VacancyTold, VacancyWanted};

/// Keyspaces that are closed and looked through by this node.
#[derive(Default)]
pub(super) struct Searches {
    under_way: BTreeMap<u16, Search>,
    /// The number of the next question: none is ever put twice, so that no late answer is taken for another.
    question: u64,
    /// Questions to this node itself.
    looks: Vec<VacancyWanted>,
}

struct Search {
    /// The closing.
    wanted: Wanted,
    /// What it is to have.
    terms: KeyspacePolicy,
    vacancy: Vacancy,
}

fn refusal(scope: Scope, why: String, fix: &str) -> Box<ErrorReply> {
    Box::new(ErrorReply {
        code: ErrorCode::Invalid,
        what: format!("the copies of keyspace {scope} are not changed"),
        why,
        fix: fix.to_owned(),
    })
}

impl Members {
    /// What this node is to be asked itself.
    pub fn take_looks(&mut self) -> Vec<VacancyWanted> {
        std::mem::take(&mut self.changes.searches.looks)
    }

    /// When a search must hear of the time.
    pub(super) fn next_search_deadline(&self) -> Option<Instant> {
        let all = self.changes.searches.under_way.values();
        all.map(|search| search.vacancy.next_deadline()).min()
    }

    /// A keyspace is closed, and is to be looked through.
    pub(super) fn begin_search(
        &mut self,
        now: Now,
        wanted: Wanted,
        missing: &[String],
        events: &mut Vec<Event>,
    ) {
        let (Scope::Keyspace(keyspace), Then::Search(terms)) = (wanted.scope, &wanted.then) else {
            return;
        };
        let terms = *terms;
        if !missing.is_empty() || self.draining {
            let why = match missing {
                [] => "the node that was asked is stopping".to_owned(),
                missing => format!("{} has not heard of it", missing.join(", ")),
            };
            let refusal = refusal(wanted.scope, why, "bring it back, then try again");
            return self.open_again(now, wanted, refusal, events);
        }
        let members = self.layout.members.keys().copied();
        let vacancy = Vacancy::new(members, self.changes.searches.question, now.mono);
        let search = Search { wanted, terms, vacancy };
        self.changes.searches.under_way.insert(keyspace, search);
        self.search_on(now, events);
    }

    /// Lets searches hear of the time.
    pub(super) fn search_on(&mut self, now: Now, events: &mut Vec<Event>) {
        let me = self.shared.config.node;
        let mut steps = Vec::new();
        for (keyspace, search) in &mut self.changes.searches.under_way {
            let is_there = |node| node == me || self.liveness.is_up(node);
            steps.extend(search.vacancy.tick(now.mono, is_there).map(|step| (*keyspace, step)));
        }
        for (keyspace, step) in steps {
            self.take_step(now, keyspace, step, events);
        }
    }

    /// A member, which may be this one, says what it holds.
    pub fn vacancy_told(
        &mut self,
        now: Now,
        from: NodeId,
        told: VacancyTold,
        events: &mut Vec<Event>,
    ) {
        let VacancyTold { question, keyspace, found } = told;
        let Some(search) = self.changes.searches.under_way.get_mut(&keyspace) else { return };
        let key = found.key.map(|key| key.to_vec());
        let told = Told { key, busy: found.busy, next: found.next };
        if let Some(step) = search.vacancy.told(now.mono, from, question, told) {
            self.take_step(now, keyspace, step, events);
        }
    }

    /// Tells a member what this one holds.
    pub fn tell_vacancy(&self, to: NodeId, told: &VacancyTold) {
        let mut body = Vec::new();
        codec::encode_into(told, &mut body);
        self.send_frame(to, Lane::Bulk, VACANCY, &body);
    }

    fn take_step(&mut self, now: Now, keyspace: u16, step: Step, events: &mut Vec<Event>) {
        let name = |node: NodeId| {
            self.layout.member(node).map_or_else(|| node.to_string(), |m| m.name.clone())
        };
        let (why, fix) = match step {
            Step::Ask { to, question, slot } => {
                let searches = &mut self.changes.searches;
                searches.question = searches.question.max(question + 1);
                let wanted = VacancyWanted { question, keyspace, slot };
                if to == self.shared.config.node {
                    return searches.looks.push(wanted);
                }
                let mut body = Vec::new();
                codec::encode_into(&wanted, &mut body);
                return self.send_frame(to, Lane::Bulk, VACANCY_WANTED, &body);
            }
            Step::Empty => return self.open_with_other_copies(now, keyspace, events),
            Step::Occupied(node, key) => (
                format!("{} holds its key {:?}", name(node), String::from_utf8_lossy(&key)),
                "nothing moves keys in this version: delete them, or take another database",
            ),
            Step::Busy(node) => {
                (format!("requests of it are still under way at {}", name(node)), "try again")
            }
            Step::Silent(node) => {
                (format!("{} does not answer", name(node)), "bring it back, then try again")
            }
        };
        self.give_up(now, keyspace, why, fix, events);
    }

    fn give_up(
        &mut self,
        now: Now,
        keyspace: u16,
        why: String,
        fix: &str,
        events: &mut Vec<Event>,
    ) {
        let Some(search) = self.changes.searches.under_way.remove(&keyspace) else { return };
        let refusal = refusal(search.wanted.scope, why, fix);
        self.open_again(now, search.wanted, refusal, events);
    }

    /// This node is about to stop: what it has closed is opened.
    pub(super) fn give_up_searches(&mut self, now: Now, events: &mut Vec<Event>) {
        let all: Vec<u16> = self.changes.searches.under_way.keys().copied().collect();
        for keyspace in all {
            let why = "the node that was asked is stopping".to_owned();
            self.give_up(now, keyspace, why, "ask another node", events);
        }
    }

    /// Nobody holds a key of it, or is about to write one.
    fn open_with_other_copies(&mut self, now: Now, keyspace: u16, events: &mut Vec<Event>) {
        let Some(search) = self.changes.searches.under_way.remove(&keyspace) else { return };
        let Search { wanted, terms, .. } = search;
        // Others may open it as it was after a while: until then they cannot have.
        if now.wall.0.saturating_sub(wanted.setting.at.0) > CLOSED_BY_MS {
            let refusal = refusal(wanted.scope, "it took too long".to_owned(), "try again");
            return self.open_again(now, wanted, refusal, events);
        }
        self.open(now, Wanted { then: Then::Tell, ..wanted }, Some(terms), events);
    }

    /// Opens a keyspace as it was: the closing has kept its terms.
    fn open_again(
        &mut self,
        now: Now,
        wanted: Wanted,
        refusal: Box<ErrorReply>,
        events: &mut Vec<Event>,
    ) {
        info!(keyspace = %wanted.scope, why = refusal.why, "its copies are not changed");
        let terms = wanted.setting.terms;
        self.open(now, Wanted { then: Then::Refuse(refusal), ..wanted }, terms, events);
    }

    /// Opens a keyspace, if it still is as it was closed.
    fn open(
        &mut self,
        now: Now,
        closed: Wanted,
        terms: Option<KeyspacePolicy>,
        events: &mut Vec<Event>,
    ) {
        let register = self.exchange.known();
        let known = register.get(closed.scope);
        if known != Some(&closed.setting) {
            let by = known.map(|setting| setting.by.clone()).unwrap_or_default();
            let why = format!("{by} changed it meanwhile");
            let refusal = refusal(closed.scope, why, "look what holds now (ringctl keyspace ls)");
            let asker = closed.asker.map(|asker| (asker, wire::ClientReply::Error(*refusal)));
            return self.changes.answers.extend(asker);
        }
        let setting = Setting {
            version: register.next_version(closed.scope),
            writer: self.me(),
            at: now.wall,
            closed: false,
            terms,
            ..closed.setting
        };
        self.change_terms(now, Wanted { setting, ..closed }, events);
    }

    fn me(&self) -> Actor {
        Actor { node: self.shared.config.node, incarnation: self.shared.incarnation }
    }

    /// Opens what a former life of this node has left closed.
    pub(super) fn take_back(&mut self, now: Now, events: &mut Vec<Event>) {
        if !self.was_ready || self.draining {
            return;
        }
        let me = self.me();
        let is_left = |setting: &Setting| {
            let Actor { node, incarnation } = setting.writer;
            setting.closed && node == me.node && incarnation != me.incarnation
        };
        let under_way = |scope| self.changes.is_under_way(scope);
        let register = self.exchange.known().iter();
        let left = register.filter(|(scope, setting)| is_left(setting) && !under_way(*scope));
        let left: Vec<(Scope, Setting)> =
            left.map(|(scope, setting)| (scope, setting.clone())).collect();
        for (scope, setting) in left {
            warn!(keyspace = %scope, "a former life of this node has left it closed: it is opened");
            let policies = self.shared.policies();
            let before = facts::keyspace(scope, policies.of_scope(scope), Some(&setting));
            let (warning, terms) = (String::new(), setting.terms);
            let wanted = Wanted { asker: None, scope, setting, before, warning, then: Then::Tell };
            self.open(now, wanted, terms, events);
        }
    }
}
