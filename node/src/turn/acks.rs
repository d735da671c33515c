//! Acks: clients that hear this replica itself, and acknowledgements to coordinators that may wait.
//!
//! A native client says in its hello which number it gives its requests; a write's name says the same, so that a
//! replica knows whom to tell that it holds the write. All that a client is to be told of one turn leaves in one frame;
//! what it need not know at once, since other replicas were asked to tell it, goes along with whatever it gets next.
//! The coordinator then hears of it with whatever goes there next, since nobody waits for that.

use std::collections::BTreeMap;
use std::time::Duration;

use replication::Message;
use replication::limits::TELL_DELAY;
use replication::message::{Direct, RequestKey};
use ring::{Hlc, Incarnation, Instant, NodeId, Slot};
use tracing::debug;
use wire::{Ack, FrameWriter, Header, Kind, codec};

use super::{CORE_SHIFT, Core, Letter};
use crate::clock;
use crate::limits::ACKS_QUEUED_MAX;
use crate::mesh::ClientConn;
use crate::native;
use crate::slab::Key;

/// A write that is held here: its client's name for it, its coordinator's number of it, its slot.
pub(super) type Held = (RequestKey, u64, Slot);

/// Which client, as names of requests tell it.
type Who = (NodeId, Incarnation);

/// Core 0: the clients that are connected, and what they are to be told when the turn ends, or soon.
#[derive(Default)]
pub(super) struct Hearers {
    clients: BTreeMap<Who, Hearer>,
    /// Those to whom something is to be said.
    waiting: Vec<Who>,
    writer: FrameWriter,
}

/// A client that hears replicas itself.
struct Hearer {
    conn: ClientConn,
    /// Each with the time after which it is not told any more.
    acks: Vec<(Instant, Ack)>,
    /// When they have to leave, if nothing else goes there before.
    until: Instant,
    /// The highest clock of those who hold them: what the client writes next is to be later.
    hlc: Hlc,
}

impl Hearers {
    /// A client is here. If it has another connection, that one is older: what was to be said over it is said over
    /// this one.
    fn came(&mut self, conn: &ClientConn) {
        if conn.number() != 0 {
            let (until, hlc) = (Instant(0), Hlc(0));
            let hearer = || Hearer { conn: conn.clone(), acks: Vec::new(), until, hlc };
            let hearer = self.clients.entry(native::who(conn.number())).or_insert_with(hearer);
            hearer.conn = conn.clone();
        }
    }

    /// A connection is gone.
    fn gone(&mut self, conn: &ClientConn) {
        let who = native::who(conn.number());
        if self.clients.get(&who).is_some_and(|hearer| hearer.conn.id() == conn.id()) {
            self.clients.remove(&who);
            self.waiting.retain(|waits| *waits != who);
        }
    }

    /// A client is to be told by `until`, and not after `by`; false if it is not here, or does not listen.
    fn tell(
        &mut self,
        who: Who,
        (until, by, hlc): (Instant, Instant, Hlc),
        ack: impl FnOnce() -> Ack,
    ) -> bool {
        let Some(hearer) = self.clients.get_mut(&who) else { return false };
        if hearer.conn.queued() > ACKS_QUEUED_MAX {
            return false;
        }
        if hearer.acks.is_empty() {
            self.waiting.push(who);
            hearer.until = until;
        }
        hearer.until = hearer.until.min(until);
        hearer.hlc = hearer.hlc.max(hlc);
        hearer.acks.push((by, ack()));
        true
    }

    /// When [`Hearers::send`] is due, if nothing goes to a client before; none if nobody is to be told anything.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let until = |who: &Who| self.clients.get(who).map(|hearer| hearer.until);
        self.waiting.iter().filter_map(until).min()
    }

    /// Sends what is due by `due` or goes along with replies, but nothing that `now` is too late for; returns how many
    /// acknowledgements that were.
    pub(super) fn send(&mut self, (due, now): (Instant, Instant), epoch: u64, hlc: Hlc) -> u64 {
        let mut count = 0;
        let (clients, writer) = (&mut self.clients, &mut self.writer);
        self.waiting.retain(|who| {
            let Some(Hearer { conn, acks, until, hlc: held }) = clients.get_mut(who) else {
                return false;
            };
            if *until > due && conn.queued() == 0 {
                return true;
            }
            writer.begin(Header { epoch, hlc: hlc.max(*held), ..Header::new(Kind::ACKS) });
            let in_time = acks.drain(..).filter(|(by, _)| now < *by);
            let told =
                in_time.map(|(_, ack)| codec::encode_into(&ack, writer.body())).count() as u64;
            count += told;
            if told == 0 {
                writer.clear();
                return false;
            }
            let sent = writer.finish().map_err(|e| e.to_string()).and_then(|()| {
                let append = |buffer: &mut Vec<u8>| buffer.extend_from_slice(writer.bytes());
                conn.reply(append).map_err(|e| e.to_string())
            });
            if let Err(why) = sent {
                // It asks its coordinators, which know.
                debug!(client = conn.id(), why, "a client cannot be told what is held here");
            }
            writer.clear();
            false
        });
        count
    }
}

impl Core {
    /// A native client is connected.
    pub fn native_came(&mut self, client: &ClientConn) {
        self.hearers.came(client);
    }

    /// A native client's connection is gone.
    pub fn native_gone(&mut self, client: &ClientConn) {
        self.hearers.gone(client);
        self.forget_native(client.id());
    }

    /// The replicas of a write told its client at `at`: that is when it was answered.
    pub(super) fn told(&mut self, id: u64, at: Instant) {
        let core = (id >> CORE_SHIFT) as usize;
        if core != self.index {
            return self.hand(core, Letter::Told { id, at });
        }
        if let Some(asked) = self.asked.get_mut(Key::from_bits(id & ((1 << CORE_SHIFT) - 1))) {
            asked.told = Some(at);
        }
    }

    /// When what comes from this peer now was made, by our clock.
    pub(super) fn made_by(&mut self, from: NodeId) -> Instant {
        let now = self.now().mono;
        let made = self.members.as_ref().and_then(|members| members.made_by(from));
        made.map_or(now, |made| made.min(now))
    }

    /// See [`Effect::Acknowledge`](replication::Effect).
    pub(super) fn acknowledge(&mut self, to: NodeId, held: Held, direct: Direct, made: Instant) {
        let now = self.now();
        let hlc = self.peer.hlc(now);
        if self.index == 0 {
            self.tell_client(to, held, direct, (made, hlc));
        } else {
            self.hand(0, Letter::Acknowledge { to, held, direct, made, hlc });
        }
    }

    /// Core 0: tells the client, if it is here, and the coordinator later; or that one at once. `hlc` is the clock of
    /// the core that holds the write.
    pub(super) fn tell_client(
        &mut self,
        to: NodeId,
        (request, token, slot): Held,
        direct: Direct,
        (made, hlc): (Instant, Hlc),
    ) {
        // By now its log is written, which may have taken a while.
        let now = clock::mono();
        let until = if direct.prompt { now } else { now + TELL_DELAY };
        let by = made + Duration::from_micros(direct.left_us);
        let ack = || Ack {
            n: request.n,
            coordinator: to.0,
            write: token,
            needed: direct.needed,
            reply: native::reply_to(direct.outcomes, false),
        };
        let who = (request.front, request.incarnation);
        let told = until < by && self.hearers.tell(who, (until, by, hlc), ack);
        self.report.messages_out += 1;
        let told_us = u32::try_from(until.since(made).as_micros()).unwrap_or(u32::MAX).max(1);
        let told_us = if told { told_us } else { 0 };
        let message = Message::Replicated { token, part: 0, slot, told_us };
        if told && !self.stopped {
            self.sends.push_later(to, message, now);
        } else {
            self.sends.push(to, message);
        }
        self.begin();
    }

    /// What clients are to be told leaves, if it is due or something else does; their connections are flushed with
    /// those of peers.
    pub(super) fn tell_clients(&mut self) {
        if self.hearers.next_due().is_some() {
            let now = self.now();
            let (epoch, hlc) = (self.shared.layout().epoch.0, self.peer.hlc(now));
            // The turn may have lasted: what its beginning was in time for may be too late at its end.
            let ends = clock::mono();
            // When all is over nobody can wait for company.
            let due = if self.stopped { Instant(u64::MAX) } else { ends };
            self.report.direct_acks += self.hearers.send((due, ends), epoch, hlc);
        }
    }
}
