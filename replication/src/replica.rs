//! Replica: answers its peers about the slots that it keeps.
//!
//! A delta is applied at most once and acknowledged when it is as durable as was asked. A state
//! answer pairs the record with the clock as it was before the record was read. Whoever speaks from
//! an older layout than a slot's last change is refused before anything is done.

use core::time::Duration;

use bytes::Bytes;
use ring::keyspace::Durability;
use ring::{Hlc, Instant, NodeId, Now, Slot};
use smallvec::smallvec;

use crate::bugs::Bug;
use crate::causality::{Dot, DotSet};
use crate::coordinator::gather::encode_state;
use crate::delta::Delta;
use crate::encoding::Reader;
use crate::event::{Changes, Effect, Outbox};
use crate::limits::TELL_DELAY;
use crate::message::{Direct, Message, ReadKind, Refusal, RequestKey, State};
use crate::peer::Peer;
use crate::raw::RawDelta;
use crate::record::{Record, Summary};
use crate::row::{self, Row};
use crate::slab::{Key, Token};

/// A peer's request that waits for our disk.
#[derive(Debug)]
pub(crate) enum Served {
    /// A read; with our clock as it was before, if the state is wanted and not only its digest.
    Read { from: NodeId, token: u64, index: u16, row: Row, clock: Option<DotSet> },
    /// An apply, and the acknowledgement to send when it is durable; and what a client is to hear of it.
    Apply { to: NodeId, ack: Message, client: Option<Telling> },
    /// A listing for a scan.
    List { from: NodeId, token: u64, first: Slot, last: Slot, clocks: Vec<(Slot, Bytes)> },
    /// The rows of a span.
    /// With its clock from before, if that was asked for.
    Walk { from: NodeId, token: u64, slot: Slot, clock: Bytes },
    /// A count.
    Count { from: NodeId, token: u64, slots: Vec<Slot> },
}

/// What a client is to hear of a write that another node coordinates.
#[derive(Debug)]
pub(crate) struct Telling {
    request: RequestKey,
    direct: Box<Direct>,
    /// When the coordinator's message was made.
    made: Instant,
}

impl Telling {
    /// Whether the client waits no more when it would be told.
    fn is_late(&self, now: Now) -> bool {
        let waits = if self.direct.prompt { Duration::ZERO } else { TELL_DELAY };
        now.mono.since(self.made) + waits >= Duration::from_micros(self.direct.left_us)
    }
}

impl Peer {
    /// A message came; its frame's epoch and clock were looked at already.
    pub(crate) fn on_message(
        &mut self,
        now: Now,
        from: NodeId,
        (epoch, skewed, made): (u64, bool, Instant),
        message: Message,
        out: &mut Outbox,
    ) {
        let Some(slot) = message.slot().filter(|s| self.slots.owns(*s)) else {
            self.stats.unreadable_messages += 1;
            return;
        };
        if let Some((token, why)) = self.refusal(slot, epoch, skewed, &message) {
            self.stats.refusals += 1;
            if let Message::Forward { request, body, .. } = &message
                && body.writes()
            {
                self.closed.insert(request.kept(), None, now.wall);
            }
            let epoch = self.epoch();
            out.push(Effect::Send {
                to: from,
                message: Message::Refused { token, slot, why, epoch },
            });
            if self.has_bug(Bug::TellsRefused) {
                out.extend(tells_refused(from, slot, message, made));
            }
            return;
        }
        match message {
            Message::Replicate { token, part, deltas, sync, direct } => {
                let ack = Message::Replicated { token, part, slot, told_us: 0 };
                self.on_replicate(now, from, &deltas, (ack, sync), (direct, made), out);
            }
            Message::Read { token, index, row, kind } => {
                let clock = match kind {
                    ReadKind::State => Some(self.slots.clock(slot).clone()),
                    ReadKind::Digest => None,
                };
                let served = Served::Read { from, token, index, row: row.clone(), clock };
                let token = Token::Served(self.served.insert(served)).to_u64();
                out.push(Effect::Load { token, rows: smallvec![row] });
            }
            Message::Install { token, index, row, state } => {
                self.on_install(from, (token, index, slot), row, &state, out);
            }
            Message::Forward { token, request, minter, remaining_us, body } => {
                self.on_forward(now, from, token, (request, minter, remaining_us, body), out);
            }
            Message::List { token, keyspace, from: first, from_hash, last, count } => {
                self.on_list(from, token, (keyspace, first, from_hash, last, count), out);
            }
            Message::Walk { token, span, clock } => {
                let clock = if clock { self.encoded_clock(slot) } else { Bytes::new() };
                let served = Served::Walk { from, token, slot, clock };
                let token = Token::Served(self.served.insert(served)).to_u64();
                out.push(Effect::ReadSpan { token, span });
            }
            Message::Count { token, keyspace, slots } => {
                self.on_count(from, token, keyspace, slots, out);
            }
            // Nothing is asked for now; what comes was on its way, and there is no room for it.
            Message::Pulled { .. } | Message::PulledState { .. } if self.full => {}
            Message::Pull { token, clocks } => self.on_pull(from, token, &clocks, out),
            Message::Pulled { token, serving, part, deltas, .. } => {
                self.on_pulled(now, from, (token, serving, part), &deltas, out);
            }
            Message::PulledState { token, serving, part, slot, clock, from: start, rows, next } => {
                self.on_pulled_state(
                    now,
                    from,
                    (token, serving, part),
                    (slot, &clock, start, rows, next),
                    out,
                );
            }
            Message::PullDone { token, serving, incarnation, parts, .. } => {
                self.on_pull_done(now, from, (token, serving), incarnation, parts, out);
            }
            Message::Refused { token, why, epoch, .. } => {
                self.on_refused(now, from, token, why, epoch, out);
            }
            answer => self.on_job_answer(now, from, answer, out),
        }
    }

    fn on_job_answer(&mut self, now: Now, from: NodeId, message: Message, out: &mut Outbox) {
        let token = match &message {
            Message::Replicated { token, .. }
            | Message::DigestIs { token, .. }
            | Message::StateIs { token, .. }
            | Message::Installed { token, .. }
            | Message::Forwarded { token, .. }
            | Message::Listing { token, .. }
            | Message::Walked { token, .. }
            | Message::Counted { token, .. } => *token,
            _ => return,
        };
        let Token::Job(key) = Token::from_u64(token) else { return };
        self.with_job(now, key, out, |peer, job, out| match message {
            Message::Replicated { part, told_us, .. } => {
                peer.job_replicated(now, key, job, (from, part, told_us), out)
            }
            Message::DigestIs { index, digest, .. } => {
                peer.gather_said(now, key, job, (from, index), Ok(digest), out)
            }
            Message::StateIs { index, state, .. } => {
                peer.gather_said(now, key, job, (from, index), Err(state), out)
            }
            Message::Installed { index, .. } => {
                peer.gather_installed(now, key, job, (from, index), out)
            }
            Message::Forwarded { slot, answer, heard, .. } => {
                peer.forward_answered(job, (slot, answer, &heard), out)
            }
            Message::Listing { rows, clocks, next, .. } => {
                peer.job_listing(now, key, job, from, (rows, clocks, next), out)
            }
            Message::Walked { rows, next, clock, .. } => {
                peer.range_walked(now, key, job, (from, rows, next, &clock), out)
            }
            Message::Counted { count, .. } => peer.count_answered(now, job, from, count, out),
            _ => crate::coordinator::Flow::Waits,
        });
    }

    /// Whether a message is refused, and which token to refuse.
    fn refusal(
        &self,
        slot: Slot,
        epoch: u64,
        skewed: bool,
        message: &Message,
    ) -> Option<(u64, Refusal)> {
        // Who knows our layout cannot be behind any change in it: usually nothing is looked up.
        let stale = epoch < self.epoch()
            && epoch < self.last_change(slot)
            && !self.has_bug(Bug::AcceptsStaleEpoch);
        let mine = self.layout_has_me(slot);
        match message {
            Message::Replicate { token, .. } | Message::Install { token, .. } => {
                if stale {
                    return Some((*token, Refusal::StaleEpoch));
                }
                if self.full {
                    return Some((*token, Refusal::Storage));
                }
                // A delta from a clock that is ahead is applied all the same (rule 6).
                (!mine).then_some((*token, Refusal::NotMine))
            }
            Message::Read { token, .. }
            | Message::Walk { token, .. }
            | Message::List { token, .. }
            | Message::Count { token, .. } => {
                let is_list = !matches!(message, Message::Read { .. } | Message::Walk { .. });
                if stale {
                    Some((*token, Refusal::StaleEpoch))
                } else if !mine && !is_list {
                    Some((*token, Refusal::NotMine))
                } else if !self.ready {
                    Some((*token, Refusal::NotReady))
                } else {
                    None
                }
            }
            Message::Forward { token, .. } => {
                if stale {
                    Some((*token, Refusal::StaleEpoch))
                } else if skewed {
                    Some((*token, Refusal::ClockSkew))
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    fn on_replicate(
        &mut self,
        now: Now,
        from: NodeId,
        deltas: &[RawDelta],
        (ack, sync): (Message, bool),
        (direct, made): (Option<Box<Direct>>, Instant),
        out: &mut Outbox,
    ) {
        let slot = ack.slot();
        let mut changes = Changes::new();
        let mut request = None;
        for raw in deltas {
            let Some(delta) = Delta::decode(raw.encoded()).filter(|d| Some(d.slot()) == slot)
            else {
                self.stats.unreadable_messages += 1;
                return;
            };
            request = delta.request;
            self.take_in(now, from, (&delta, raw), &mut changes);
        }
        let telling = |(request, direct)| Telling { request, direct, made };
        let client = request.zip(direct).map(telling);
        self.apply_and_ack((from, client), ack, changes, sync, out);
    }

    /// A dot of this life of ours that we do not know: this life has been lived before, by a data
    /// directory that is gone. To go on would be to name other mutations by the same dots.
    pub(crate) fn check_own_dot(&mut self, from: NodeId, slot: Slot, dot: Dot) {
        if dot.actor != self.cfg.me
            || self.slots.clock(slot).contains(dot)
            || self.has_bug(Bug::ReusesDots)
        {
            return;
        }
        let me = self.me();
        self.fatal = Some(format!(
            "{from} holds writes that {me} made in life {} and that are not in its data directory \
             ({slot:?}, {dot}): the directory is empty, old, or a copy. fix: put the newest data \
             directory of {me} back, or start the node under a new name and remove the old one",
            self.cfg.me.incarnation
        ));
    }

    /// Takes in a delta from elsewhere, decoded from `raw`, unless it is here already.
    pub(crate) fn take_in(
        &mut self,
        now: Now,
        from: NodeId,
        (delta, raw): (&Delta<'_>, &RawDelta),
        changes: &mut Changes,
    ) {
        self.check_own_dot(from, delta.slot(), delta.dot);
        if let Some(change) = self.slots.apply(delta, raw.row_of(delta), raw, &self.cfg.bugs) {
            changes.push(change);
            self.note_touched(delta.slot(), delta.row);
            if let Some(request) = delta.request {
                self.known.insert(request, now.wall);
            }
        } else {
            self.stats.duplicates += 1;
        }
    }

    fn on_install(
        &mut self,
        from: NodeId,
        (token, index, slot): (u64, u16, Slot),
        row: Row,
        state: &State,
        out: &mut Outbox,
    ) {
        let clock = DotSet::decode(&mut Reader::new(&state.clock));
        let (Some(seen), Some(record)) = (clock, Record::decode(&state.record)) else {
            self.stats.unreadable_messages += 1;
            return;
        };
        self.note_touched(slot, &row);
        let change = self.slots.install(slot, row, &record, &seen, &self.cfg.bugs);
        let ack = Message::Installed { token, index, slot };
        self.apply_and_ack((from, None), ack, smallvec![change], false, out);
    }

    fn apply_and_ack(
        &mut self,
        (to, client): (NodeId, Option<Telling>),
        ack: Message,
        changes: Changes,
        sync: bool,
        out: &mut Outbox,
    ) {
        let token = Token::Served(self.served.insert(Served::Apply { to, ack, client })).to_u64();
        let durability = if sync { Durability::Sync } else { Durability::Os };
        out.push(Effect::Apply { token, changes, durability });
    }

    /// What a peer asked to read came from our disk.
    pub(crate) fn served_loaded(&mut self, key: Key, records: &[Bytes], out: &mut Outbox) {
        let Some(Served::Read { from, token, index, row, clock }) = self.served.remove(key) else {
            return;
        };
        let slot = row::slot_of(&row).unwrap_or(Slot(0));
        let bytes = records.first().cloned().unwrap_or_default();
        let Some(summary) = Summary::of(&bytes) else {
            let (why, epoch) = (Refusal::Storage, self.epoch());
            out.push(Effect::Send {
                to: from,
                message: Message::Refused { token, slot, why, epoch },
            });
            return;
        };
        if summary.has_pending {
            self.strip(&row, &bytes, out);
        }
        let message = match clock {
            None => Message::DigestIs { token, index, slot, digest: summary.digest },
            Some(clock) => {
                let clock = if self.has_bug(Bug::ClockAfterKey) {
                    self.slots.clock(slot).clone()
                } else {
                    clock
                };
                Message::StateIs { token, index, slot, state: encode_state(&bytes, &clock) }
            }
        };
        out.push(Effect::Send { to: from, message });
    }

    /// What a peer asked to read cannot be read here: somebody else must answer.
    pub(crate) fn served_load_failed(&mut self, key: Key, out: &mut Outbox) {
        let (to, token, slot) = match self.served.remove(key) {
            Some(Served::Read { from, token, row, .. }) => {
                (from, token, row::slot_of(&row).unwrap_or(Slot(0)))
            }
            Some(Served::List { from, token, first, .. }) => (from, token, first),
            Some(Served::Walk { from, token, slot, .. }) => (from, token, slot),
            Some(Served::Count { from, token, slots }) => {
                (from, token, slots.first().copied().unwrap_or(Slot(0)))
            }
            Some(Served::Apply { .. }) | None => return,
        };
        self.stats.failed_loads += 1;
        let (why, epoch) = (Refusal::Storage, self.epoch());
        out.push(Effect::Send { to, message: Message::Refused { token, slot, why, epoch } });
    }

    /// What a peer asked to apply is durable, or failed.
    pub(crate) fn served_applied(
        &mut self,
        now: Now,
        key: Key,
        failed: Option<String>,
        out: &mut Outbox,
    ) {
        let Some(Served::Apply { to, ack, client }) = self.served.remove(key) else { return };
        let client = client.filter(|c| !c.is_late(now) || self.has_bug(Bug::TellsLate));
        match (failed, ack, client) {
            (None, Message::Replicated { token, slot, .. }, Some(client)) => {
                let Telling { request, direct, made } = client;
                out.push(Effect::Acknowledge { to, request, token, slot, direct, made });
            }
            (None, message, _) => out.push(Effect::Send { to, message }),
            (Some(why), ..) => {
                tracing::error!(%why, "a replicated write could not be kept");
                self.stats.failed_applies += 1;
            }
        }
    }

    /// Merges a frame's clock; true if it is too far ahead to be merged.
    pub(crate) fn merge_clock(&mut self, now: Now, hlc: Hlc, from: NodeId) -> bool {
        match self.hlc.merge(hlc, now.wall) {
            Ok(()) => false,
            Err(ahead) => {
                self.stats.skewed_messages += 1;
                if self.stats.skewed_messages.is_power_of_two() {
                    tracing::warn!(%from, ?ahead, "a clock that was heard is too far ahead of ours");
                }
                true
            }
        }
    }
}

/// The planted bug: what was refused is told to its client like what is held.
fn tells_refused(to: NodeId, slot: Slot, message: Message, made: Instant) -> Option<Effect> {
    let Message::Replicate { token, deltas, direct, .. } = message else { return None };
    let request = Delta::decode(deltas.first()?.encoded())?.request?;
    Some(Effect::Acknowledge { to, request, token, slot, direct: direct?, made })
}
