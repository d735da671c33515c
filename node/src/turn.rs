//! The turn: one core's machine, store and sessions, and the order in which a turn treats them.
//!
//! Whatever wakes the core (a socket, the mesh, a mailbox, a timer) hands its events in here and
//! marks the turn as begun. When everybody who was ready has done so, [`Core::flush`] ends it:
//! effects until there are none, one commit of the log, what becomes durable by it, and only then
//! frames to peers and replies to clients. So nothing leaves the process that a killed process could
//! forget, and one write of the log, one frame a peer and one write a socket serve the whole turn.
//!
//! The clocks are read once a turn.
//!
//! While flushes and compactions are behind, acknowledgements of writes are held for a moment, longer
//! the further they are behind: writers slow down evenly, and reads go on. When memory can take no
//! more, writes are refused.

mod acks;
mod ahead;
mod judge;
mod look;
mod members;
mod room;
mod rotate;

use acks::Held;
pub use judge::Refusal;
pub use room::look_at_disk;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use replication::message::Direct;
use replication::op::TaskError;
use replication::{Answer, Effect, Event, Message, Named, Outbox, Peer, Request, RowChange, Task};
use ring::keyspace::{Durability, Level};
use ring::{Hlc, NodeId, Now, Register, Slot};
use store::Store;
use tokio::sync::Notify;
use tracing::{error, warn};

use crate::admission::Admission;
use crate::clock;
use crate::drain::Waits;
use crate::front::conn::Conn;
use crate::front::host::NodeHost;
use crate::limits::HOLD_US_MIN;
use crate::members::Members;
use crate::mesh::Lane;
use crate::metrics::{Class, CoreReport};
use crate::native::{Age, Look, Looker, NativeAsker, Window, look};
use crate::peers::Sends;
use crate::shared::Shared;
use crate::slab::{Key, Slab};
use crate::tally::Tally;

/// What one core hands to another.
#[derive(Debug)]
pub enum Letter {
    /// For the machine.
    Event(Event),
    /// What was applied is durable, or will never be.
    Applied {
        /// Of these effects.
        tokens: Vec<u64>,
        /// The reason, if the disk failed.
        failed: Option<String>,
    },
    /// The answer to a request that the receiver submitted.
    Answer {
        /// The request.
        id: u64,
        /// Its answer.
        answer: Answer,
        /// The clock of the core that gave it.
        hlc: Hlc,
    },
    /// For the mesh, which lives on core 0: whole frames.
    Frames {
        /// To this peer.
        to: NodeId,
        /// On this lane.
        lane: Lane,
        /// The frames.
        bytes: Vec<u8>,
    },
    /// To core 0: that core is ready, or is not.
    CoreReady {
        /// The core.
        core: usize,
        /// Whether it is.
        ready: bool,
    },
    /// To core 0, where clients are: see [`Effect::Acknowledge`].
    Acknowledge {
        /// The coordinator.
        to: NodeId,
        /// What is held.
        held: Held,
        /// What the client is told.
        direct: Direct,
        /// When the coordinator asked.
        made: ring::Instant,
        /// The clock of the core that holds it.
        hlc: Hlc,
    },
    /// See [`Effect::Told`].
    Told {
        /// The request that the receiver submitted.
        id: u64,
        /// When its client was told.
        at: ring::Instant,
    },
    /// To core 0: exchange layouts with this peer.
    FetchLayout {
        /// The peer.
        from: NodeId,
    },
    /// To core 0: what was set of keyspaces is on disk, or the disk refused it, and why.
    KeyspacesKept(Result<Register, String>),
    /// An administrator wants to know what this core's store holds.
    Look {
        /// The core that was asked.
        asked: usize,
        /// Who waits there.
        key: Key,
        /// What is asked.
        look: Look,
    },
    /// What was seen, for who waits here.
    Looked {
        /// Who waits.
        key: Key,
        /// What was seen.
        reply: Box<wire::ClientReply>,
    },
    /// Close this client's connection.
    Kill(Key),
    /// Take no more requests; go on serving peers.
    Drain,
    /// Everything is over.
    Stop,
}

/// Who waits for an answer of the machine.
#[derive(Debug)]
pub enum Asker {
    /// A Redis client: its connection, and the session's number of the request.
    Conn {
        /// The connection.
        conn: Key,
        /// The session's number.
        id: u64,
    },
    /// A native client.
    Native(NativeAsker),
}

/// A request that is not answered yet.
struct Asked {
    asker: Asker,
    since: ring::Instant,
    /// When its client gives up.
    deadline: ring::Instant,
    class: Class,
    /// The level of a write, and how many copies there are.
    write: Level,
    copies: u8,
    /// Its replicas told the client then: for us it was answered.
    told: Option<ring::Instant>,
}

/// One core of a node.
pub struct Core {
    /// Which one.
    pub index: usize,
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// What sessions ask of the node.
    pub host: NodeHost,
    /// Its Redis clients.
    pub conns: Slab<Conn>,
    /// Buffer for reads from clients.
    pub scratch: Vec<u8>,
    /// What it counts.
    pub report: CoreReport,
    /// Core 0: peers, their liveness, and the mesh.
    pub members: Option<Members>,
    /// True once it takes no more requests.
    pub draining: bool,
    /// Rung when the drain begins.
    pub drain_bell: Rc<Notify>,
    /// True once everything is over.
    pub stopped: bool,
    /// Those who wait for what a core sees.
    pub looks: Slab<Looker>,
    peer: Peer,
    store: Store,
    tally: Tally,
    gaps: look::Gaps,
    now: Option<Now>,
    begun: bool,
    /// When the turn began.
    begun_at: ring::Instant,
    /// What it takes on.
    admission: Admission,
    /// Bytes of clients that were read and are not served yet.
    ahead: usize,
    /// Clients that are not served while too much is in flight.
    waiting: judge::Waiting,
    /// How long native clients' requests were under way, and how much of theirs may be, by the number of
    /// their connection.
    ways: BTreeMap<u64, (Age, Window)>,
    waker: Waker,
    /// What the machine asked for and has not got yet.
    effects: Outbox,
    /// What it asked for before that and gets now.
    batch: Outbox,
    /// Requests of sessions, likewise.
    submits: Vec<(Key, commands::Submit)>,
    submitting: Vec<(Key, commands::Submit)>,
    asked: Slab<Asked>,
    /// Core 0: clients that hear replicas themselves.
    hearers: acks::Hearers,
    /// Answers for native clients, which leave when the turn ends.
    answers: Vec<(Asked, Answer, Hlc)>,
    /// Something was applied and not committed.
    uncommitted: bool,
    /// Effects to be told of by the commit, and by the sync after it.
    on_commit: Vec<u64>,
    on_sync: Vec<u64>,
    /// How much writers are slowed down, and what was applied and is not told yet, with its time.
    brake: storage::Brake,
    held: VecDeque<(ring::Instant, Vec<u64>)>,
    /// The disk refused a write: the machine knows more than the disk, and nothing may leave.
    disk_failed: bool,
    /// How far the last rotation is.
    saving: rotate::Saving,
    sends: Sends,
    mail: Vec<Vec<Letter>>,
    letters: Vec<Letter>,
    written: Vec<Key>,
    ready: bool,
}

/// How often a core says how it is.
pub const LOOK_AROUND: Duration = Duration::from_secs(1);

/// The bits of a request's number that name its core.
const CORE_SHIFT: u32 = 56;

impl Core {
    /// A core with its machine and its store; nothing has happened yet.
    #[must_use]
    pub fn new(index: usize, shared: Arc<Shared>, peer: Peer, store: Store) -> Self {
        let mail = shared.boxes.iter().map(|_| Vec::new()).collect();
        let (started, cores) = (shared.started, shared.cores());
        let queue_max = shared.config.redis.queue_max;
        let mine = Slot::all().filter(|slot| slot.core(cores) == index);
        Self {
            tally: Tally::new(started, mine),
            index,
            host: NodeHost::new(shared.clone(), index),
            shared,
            conns: Slab::default(),
            scratch: vec![0; crate::limits::READ_BYTES],
            report: CoreReport::default(),
            members: None,
            draining: false,
            drain_bell: Rc::default(),
            stopped: false,
            looks: Slab::default(),
            peer,
            store,
            gaps: look::Gaps::default(),
            now: None,
            begun: false,
            begun_at: ring::Instant(0),
            admission: Admission::new(queue_max),
            ahead: 0,
            waiting: judge::Waiting::default(),
            ways: BTreeMap::new(),
            waker: Waker::noop().clone(),
            effects: Vec::new(),
            batch: Vec::new(),
            submits: Vec::new(),
            submitting: Vec::new(),
            asked: Slab::default(),
            hearers: acks::Hearers::default(),
            answers: Vec::new(),
            uncommitted: false,
            on_commit: Vec::new(),
            on_sync: Vec::new(),
            brake: storage::Brake::default(),
            held: VecDeque::new(),
            disk_failed: false,
            saving: rotate::Saving::default(),
            sends: Sends::default(),
            mail,
            letters: Vec::new(),
            written: Vec::new(),
            ready: false,
        }
    }

    /// The time of this turn.
    pub fn now(&mut self) -> Now {
        *self.now.get_or_insert_with(clock::now)
    }

    /// There is something to do: the turn will be ended.
    pub fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            self.begun_at = self.now().mono;
            self.waker.wake_by_ref();
        }
    }

    /// The machine's clock now: what a reply that it has no part in says.
    pub fn hlc(&mut self) -> Hlc {
        let now = self.now();
        self.peer.hlc(now)
    }

    /// The core that a slot belongs to.
    #[must_use]
    pub fn core_of(&self, slot: Slot) -> usize {
        slot.core(self.mail.len())
    }

    /// Who ends turns: woken when one begins.
    pub fn set_waker(&mut self, waker: &Waker) {
        if !self.waker.will_wake(waker) {
            self.waker = waker.clone();
        }
    }

    /// Whether a turn has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether others have handed something in.
    #[must_use]
    pub fn has_post(&self) -> bool {
        !self.shared.boxes[self.index].is_empty()
    }

    /// When the machine must hear of the time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<ring::Instant> {
        let members = self.members.as_ref().map(Members::next_deadline);
        let held = self.held.front().map(|(at, _)| *at);
        let later = [self.sends.next_due(), self.hearers.next_due()];
        let all = [self.peer.next_deadline(), members, held];
        all.into_iter().chain(later).flatten().min()
    }

    /// Requests that are not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.asked.len()
    }

    /// Something happened; its effects follow with [`Core::run`].
    pub fn feed(&mut self, event: Event) {
        let now = self.now();
        self.peer.on_event(now, event, &mut self.effects);
        self.begin();
    }

    /// Time may have passed beyond a deadline.
    pub fn tick(&mut self) {
        let now = self.now();
        if self.peer.next_deadline().is_some_and(|at| at <= now.mono) {
            self.feed(Event::Tick);
        }
        while self.held.front().is_some_and(|(at, _)| *at <= now.mono) {
            let (_, tokens) = self.held.pop_front().expect("just looked at");
            self.tell_applied(tokens, None);
        }
        let is_due = self.hearers.next_due().is_some_and(|at| at <= now.mono);
        if self.sends.hurry(now.mono) || is_due {
            self.begin();
        }
        self.with_members(|members, now, letters| members.tick(now, letters));
        if !self.begun {
            // Nothing was due; whatever comes next has a time of its own.
            self.now = None;
        }
    }

    /// A message came from a peer; only core 0 hears them.
    pub fn receive(&mut self, from: NodeId, (epoch, hlc): (u64, Hlc), message: Message) {
        let Some(slot) = message.slot() else {
            warn!(%from, "a message without a slot");
            return;
        };
        self.report.messages_in += 1;
        let made = self.made_by(from);
        let event = Event::Received { from, epoch, hlc, made, message };
        self.tell(slot.core(self.mail.len()), event);
    }

    /// Tells the machine of a core.
    fn tell(&mut self, core: usize, event: Event) {
        if core == self.index {
            self.feed(event);
        } else {
            self.hand(core, Letter::Event(event));
        }
    }

    /// Gives a letter to a core: at once if it is this one.
    pub fn hand(&mut self, core: usize, letter: Letter) {
        if core == self.index {
            self.open(letter);
        } else {
            self.mail[core].push(letter);
            self.begin();
        }
    }

    /// Asks the machine of the slot's core.
    pub fn submit(&mut self, asker: Asker, request: Request, timeout_us: u64) {
        self.submit_named(asker, request, timeout_us, None);
    }

    /// As [`Core::submit`], under the name that the client gave.
    pub fn submit_named(
        &mut self,
        asker: Asker,
        request: Request,
        timeout_us: u64,
        named: Option<Named>,
    ) {
        let class = match &request {
            Request::Task(task) if task.is_read() => Class::Read,
            Request::Share(share) if share.whole => Class::Read,
            Request::Share(_) => Class::Share,
            Request::Task(_) | Request::DeleteRange { .. } => Class::Write,
            Request::Scan { .. }
            | Request::Range { .. }
            | Request::Count { .. }
            | Request::Flush { .. }
            | Request::AwaitAcks { .. } => Class::Whole,
        };
        let core = request.slot().core(self.mail.len());
        let since = self.now().mono;
        self.shared.hot[self.index].see(&request, since);
        let deadline = since + Duration::from_micros(timeout_us);
        let terms = *self.peer.policy(request.keyspace().unwrap_or_default());
        let write = match &request {
            Request::Task(Task { write: Some(level), .. }) => *level,
            _ => terms.write,
        };
        let (copies, told) = (terms.n, None);
        let unwritable = self.unwritable(class, &request);
        let key = self.asked.insert(Asked { asker, since, deadline, class, write, copies, told });
        let id = ((self.index as u64) << CORE_SHIFT) | key.to_bits();
        if let Some(error) = unwritable {
            self.effects.push(Effect::Answer { id, answer: Answer::Failed(error) });
            self.begin();
            return;
        }
        let event = match named {
            Some(named) => Event::SubmitNamed { id, request, timeout_us, named },
            None => Event::Submit { id, request, timeout_us },
        };
        self.tell(core, event);
    }

    /// The client is gone: nobody waits for its answers any more.
    pub fn cancel(&mut self, conn: Key) {
        self.cancel_asked(|asked| matches!(asked.asker, Asker::Conn { conn: c, .. } if c == conn));
    }

    fn cancel_asked(&mut self, is_gone: impl Fn(&Asked) -> bool) {
        let gone = self.asked.iter_mut().filter(|(_, asked)| is_gone(asked));
        let gone: Vec<Key> = gone.map(|(key, _)| key).collect();
        for key in gone {
            self.asked.remove(key);
            let id = ((self.index as u64) << CORE_SHIFT) | key.to_bits();
            // The core that works on it is not remembered; each one passes over what is not its.
            for core in 0..self.mail.len() {
                self.hand(core, Letter::Event(Event::Cancel(id)));
            }
        }
    }

    /// A native client does not want the answer to this request of its connection any more; or to
    /// any, if none is named.
    pub fn cancel_native(&mut self, connection: u64, request_id: Option<u64>) {
        let is_it = |asked: &Asked| match &asked.asker {
            Asker::Native(asker) => asker.is_of(connection, request_id),
            Asker::Conn { .. } => false,
        };
        self.cancel_asked(is_it);
    }

    fn open(&mut self, letter: Letter) {
        self.begin();
        match letter {
            Letter::Event(event) => self.feed(event),
            Letter::Applied { tokens, failed: None } => drop(self.hold_back(tokens)),
            Letter::Applied { tokens, failed } => self.tell_applied(tokens, failed.as_deref()),
            Letter::Answer { id, answer, hlc } => self.answer(id, answer, hlc),
            Letter::Frames { to, lane, bytes } => {
                if let Some(members) = &self.members {
                    let sent = members.send(to, lane, &bytes);
                    self.report.messages_dropped += u64::from(!sent);
                }
            }
            Letter::CoreReady { core, ready } => {
                self.with_members(|members, now, _| members.core_is(now, core, ready));
            }
            Letter::Acknowledge { to, held, direct, made, hlc } => {
                self.tell_client(to, held, direct, (made, hlc));
            }
            Letter::Told { id, at } => self.told(id, at),
            Letter::FetchLayout { from } => {
                if let Some(members) = &self.members {
                    members.fetch_layout(from);
                }
            }
            Letter::KeyspacesKept(kept) => {
                self.with_members(|members, now, events| members.kept(now, kept, events));
            }
            Letter::Look { asked, key, look: wanted } => {
                let busy = matches!(&wanted, Look::Empty { keyspace, .. } if self.peer.is_busy_in(*keyspace));
                let reply = Box::new(look(&self.store, wanted, busy));
                self.hand(asked, Letter::Looked { key, reply });
            }
            Letter::Looked { key, reply } => {
                crate::native::looked(self, key, *reply);
            }
            Letter::Kill(key) => {
                if let Some(conn) = self.conns.get_mut(key) {
                    conn.kill();
                }
            }
            Letter::Drain => {
                self.draining = true;
                self.drain_bell.notify_one();
                for (_, conn) in self.conns.iter_mut() {
                    conn.wake();
                }
                self.with_members(|members, now, events| members.drain(now, events));
            }
            Letter::Stop => self.stopped = true,
        }
    }

    /// Carries out effects until there are none.
    pub fn run(&mut self) {
        loop {
            // What follows from a batch comes after all of it, in order.
            while !self.effects.is_empty() {
                let mut batch = std::mem::take(&mut self.batch);
                std::mem::swap(&mut batch, &mut self.effects);
                self.prefetch(&batch);
                for effect in batch.drain(..) {
                    self.carry_out(effect);
                }
                self.batch = batch;
            }
            if self.submits.is_empty() {
                return;
            }
            let mut submits = std::mem::take(&mut self.submitting);
            std::mem::swap(&mut submits, &mut self.submits);
            for (conn, submit) in submits.drain(..) {
                let commands::Submit { id, request, timeout_us } = submit;
                self.submit(Asker::Conn { conn, id }, request, timeout_us);
            }
            self.submitting = submits;
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Answer { id, answer } => {
                let core = (id >> CORE_SHIFT) as usize;
                let now = self.now();
                let hlc = self.peer.hlc(now);
                if core == self.index {
                    self.answer(id, answer, hlc);
                } else {
                    self.hand(core, Letter::Answer { id, answer, hlc });
                }
            }
            Effect::Send { to, message } => {
                self.report.messages_out += 1;
                self.sends.push(to, message);
            }
            Effect::Told { id, at } => self.told(id, at),
            Effect::Acknowledge { to, request, token, slot, direct, made } => {
                self.acknowledge(to, (request, token, slot), *direct, made);
            }
            Effect::Load { token, rows } => match self.store.load(&rows) {
                Ok(records) => self.feed(Event::Loaded { token, records }),
                // Damage is not absence: whoever asked gets no answer, and asks another replica.
                Err(e) => {
                    error!(error = %e, "rows cannot be read");
                    self.feed(Event::LoadFailed { token });
                }
            },
            Effect::Apply { token, changes, durability } => match self.store.apply(&changes) {
                Ok(()) => {
                    let now = self.now().mono;
                    for change in &changes {
                        let (RowChange::Merge { row, .. } | RowChange::Put { row, .. }) = change;
                        self.tally.touched(row, now);
                    }
                    self.uncommitted |= !changes.is_empty();
                    let waiting = match durability {
                        Durability::Os => &mut self.on_commit,
                        Durability::Sync => &mut self.on_sync,
                    };
                    waiting.push(token);
                }
                Err(e) => self.fail_disk(&e),
            },
            Effect::List { token, keyspace, from, from_hash, last, count } => {
                match self.store.list(keyspace, (from, from_hash), last, count) {
                    Ok(listed) => {
                        let (rows, next) = (listed.rows, listed.next);
                        self.feed(Event::Listed { token, rows, next });
                    }
                    Err(e) => {
                        error!(error = e, "rows cannot be listed");
                        self.feed(Event::LoadFailed { token });
                    }
                }
            }
            Effect::ReadRows { token, slot, from, bytes } => {
                match self.store.read_rows(slot, &from, bytes) {
                    Ok((rows, next)) => self.feed(Event::RowsRead { token, rows, next }),
                    Err(e) => error!(error = %e, "rows of a slot cannot be read"),
                }
            }
            Effect::ReadSpan { token, span } => match self.store.read_span(&span) {
                Ok((rows, next)) => self.feed(Event::RowsRead { token, rows, next }),
                Err(e) => {
                    error!(error = %e, "rows of a range cannot be read");
                    self.feed(Event::LoadFailed { token });
                }
            },
            Effect::ScanLog { token, wanted } => {
                self.shared.background.search_log(self.index, token, wanted);
            }
            Effect::RaiseCeiling(to) => self.shared.background.raise_ceiling(to),
            Effect::Ready(ready) => {
                if self.ready != ready {
                    self.ready = ready;
                    self.hand(0, Letter::CoreReady { core: self.index, ready });
                }
            }
            Effect::FetchLayout { from } => self.hand(0, Letter::FetchLayout { from }),
            Effect::Fatal(why) => self.shared.fail(why),
        }
    }

    fn answer(&mut self, id: u64, answer: Answer, hlc: Hlc) {
        let key = Key::from_bits(id & ((1 << CORE_SHIFT) - 1));
        let Some(asked) = self.asked.remove(key) else { return };
        match asked.asker {
            Asker::Native(_) => self.answers.push((asked, answer, hlc)),
            Asker::Conn { .. } => self.give(asked, answer, hlc),
        }
    }

    /// Native clients hear when the turn ends: only then is it known whether they are still there.
    fn answer_natives(&mut self) {
        let mut answers = std::mem::take(&mut self.answers);
        for (asked, answer, hlc) in answers.drain(..) {
            self.give(asked, answer, hlc);
        }
        self.answers = answers;
    }

    fn give(&mut self, asked: Asked, answer: Answer, hlc: Hlc) {
        let now = self.now();
        let took = asked.told.unwrap_or(now.mono).since(asked.since);
        self.report.histogram(asked.class).record(took);
        // Whoever is told by replicas cannot hear of it too late from us.
        let confirmed = matches!(answer, Answer::Confirmed);
        if confirmed && asked.told.is_some() {
            self.admission.answered(now.mono, took);
        }
        if confirmed || self.is_given_up(&asked) {
            return;
        }
        let answer = self.in_time(&asked, answer);
        if let Answer::Failed(error) = &answer {
            match error {
                TaskError::Unavailable { .. } => self.report.unavailable += 1,
                TaskError::Unconfirmed { .. } => self.report.unconfirmed += 1,
                TaskError::Overloaded { .. } => self.report.refused += 1,
                _ => {}
            }
        }
        if !matches!(answer, Answer::Failed(_)) && asked.class != Class::Whole {
            self.admission.answered(now.mono, took);
        }
        match asked.asker {
            Asker::Conn { conn: key, id } => {
                let Some(conn) = self.conns.get_mut(key) else { return };
                conn.session.on_answer(now, id, answer, &mut self.host, &mut conn.output);
                self.after_session(key);
            }
            Asker::Native(asker) => asker.answer(&self.shared, answer, hlc),
        }
    }

    /// A session has done something: takes its requests, remembers that it has replies.
    pub fn after_session(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        for submit in conn.output.submits.drain(..) {
            self.submits.push((key, submit));
        }
        if !conn.listed && conn.has_work() {
            conn.listed = true;
            self.written.push(key);
        }
        self.begin();
    }

    /// Ends the turn; see the head of this file.
    pub fn flush(&mut self) {
        // What happens meanwhile belongs to this turn and begins none.
        self.begun = true;
        self.report.turns += 1;
        self.read_mail();
        self.save_some();
        loop {
            self.run();
            if !self.settle() {
                break;
            }
        }
        if !self.disk_failed {
            self.look_at_memtable();
        }
        if self.disk_failed {
            self.now = None;
            return;
        }
        self.answer_natives();
        self.tell_clients();
        self.send_frames();
        self.write_replies();
        self.post_mail();
        self.now = None;
        self.begun = false;
        self.wake_waiting();
    }

    fn read_mail(&mut self) {
        let mut letters = std::mem::take(&mut self.letters);
        self.shared.boxes[self.index].take(&mut letters, &self.waker);
        for letter in letters.drain(..) {
            self.open(letter);
        }
        self.letters = letters;
    }

    /// Commits what was applied and tells the machine what is durable; false if there was nothing.
    fn settle(&mut self) -> bool {
        let quiet = self.on_commit.is_empty() && self.on_sync.is_empty();
        if quiet && !self.uncommitted {
            return false;
        }
        if self.uncommitted && !self.disk_failed {
            match self.store.commit() {
                Ok(()) => {
                    self.report.commits += 1;
                    self.shared.background.committed(self.index);
                }
                Err(e) => self.fail_disk(&e),
            }
        }
        self.uncommitted = false;
        if self.disk_failed {
            return false;
        }
        let mut tokens = std::mem::take(&mut self.on_commit);
        let on_sync = std::mem::take(&mut self.on_sync);
        if !on_sync.is_empty() {
            self.shared.background.sync_log(self.index, on_sync);
        }
        let (now, bytes) = (self.now().mono, self.store.take_written());
        self.brake.hold(now.0 / 1000, self.store.debt(), bytes);
        tokens = self.hold_back(tokens);
        if self.on_commit.is_empty() {
            self.on_commit = tokens;
        }
        true
    }

    /// Tells the machine what is applied, at once or as soon as the brake lets go; gives back the
    /// list, empty.
    fn hold_back(&mut self, mut tokens: Vec<u64>) -> Vec<u64> {
        let now = self.now().mono;
        let hold_us = self.brake.hold(now.0 / 1000, 0.0, 0);
        if hold_us < HOLD_US_MIN || tokens.is_empty() {
            for token in tokens.drain(..) {
                self.feed(Event::Applied { token, failed: None });
            }
            return tokens;
        }
        self.report.held_writes += tokens.len() as u64;
        self.held.push_back((ring::Instant(now.0 + hold_us * 1000), tokens));
        self.begin();
        Vec::new()
    }

    fn tell_applied(&mut self, tokens: Vec<u64>, failed: Option<&str>) {
        for token in tokens {
            self.feed(Event::Applied { token, failed: failed.map(str::to_owned) });
        }
    }

    /// The disk refused a write. The slot clocks speak of changes now that are not on it, so this
    /// node must say nothing more: it ends, and its next start reads from the disk what is there.
    fn fail_disk(&mut self, error: &storage::Error) {
        if self.disk_failed {
            return;
        }
        self.disk_failed = true;
        error!(%error, "the disk refuses writes; nothing of this turn leaves the node");
        self.shared.fail(format!(
            "the disk under {} refuses writes: {error}. Nothing that was acknowledged is lost. fix: make \
             room there, or mend the disk, and start the node again: it pulls what it missed",
            self.shared.config.data_dir.display()
        ));
    }

    fn send_frames(&mut self) {
        if !self.sends.is_empty() {
            let now = self.now();
            let (epoch, hlc) = (self.shared.layout().epoch.0, self.peer.hlc(now));
            let (members, mail, dropped) =
                (&self.members, &mut self.mail, &mut self.report.messages_dropped);
            // How long a client waits still was found out when the turn began.
            self.sends.seal((epoch, hlc), now.mono, |to, lane, bytes| match members {
                Some(members) => *dropped += u64::from(!members.send(to, lane, bytes)),
                None => mail[0].push(Letter::Frames { to, lane, bytes: bytes.to_vec() }),
            });
        }
        if let Some(members) = &self.members {
            members.flush();
        }
    }

    fn write_replies(&mut self) {
        let mut written = std::mem::take(&mut self.written);
        for key in written.drain(..) {
            if let Some(conn) = self.conns.get_mut(key) {
                conn.listed = false;
                self.report.bytes_out += conn.flush() as u64;
            }
        }
        self.written = written;
    }

    fn post_mail(&mut self) {
        for (core, letters) in self.mail.iter_mut().enumerate() {
            if !letters.is_empty() {
                self.shared.boxes[core].post(letters);
            }
        }
    }

    /// Who still waits for an answer, and who has not taken every reply.
    pub fn waits(&mut self) -> Waits {
        let clients = self.conns.iter_mut().filter(|(_, conn)| !conn.is_drained()).count();
        Waits { requests: self.asked.len(), clients }
    }

    /// Draining is far enough, or took too long: a last commit, then nothing more.
    pub fn close(&mut self) {
        let now = self.now().mono;
        self.sends.hurry(now + replication::limits::ACK_DELAY);
        self.flush();
        // The log says that all of it is durable, so that rot in it is never taken for a torn tail.
        if let Err(e) = self.store.settle() {
            error!(error = %e, "the end of the log could not be marked; nothing that was promised is lost");
        }
        let last = self.peer.hlc(clock::now());
        self.shared.last_stamp.fetch_max(last.0, Ordering::AcqRel);
    }
}
