//! Session: one connection of a Redis client, as a machine.
//!
//! Promises: exactly one reply a command (none if the client switched replies off), in the order of
//! the commands; commands that touch the same key take effect in that order; a bounded amount of
//! unfinished work, as long as the driver stops feeding commands while [`Session::wants_more`] is
//! false. Every submitted request must be answered once, in any order; a driver that drops the
//! connection may drop the session at any time, and cancel what it has submitted.

use std::sync::Arc;

use replication::row::{self, Row};
use replication::{Answer, Request};
use ring::Now;
use wire::limits::RESP_BULK_BYTES_DEFAULT;
use wire::resp::{Protocol, encode};

use crate::acl::{Denial, Why};
use crate::args;
use crate::bugs::Bug;
use crate::errors::{self, Fault, LOADING};
use crate::host::{ClientFacts, Host, Slow};
use crate::job::{Job, Step};
use crate::levels::Levels;
use crate::limits::HELD_BYTES_MAX;
use crate::ops::{Asked, OpsJob};
use crate::pending::{Entry, Footprint, Pending, Stage};
use crate::strings::SetAllJob;
use crate::table::{self, Control, Run, TABLE};
use crate::transactions;
use crate::turn::{Ask, Flow, PART_BITS, Replies, State, Turn};
use crate::window::Window;

/// What EXEC does when its keys lie in several slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrossSlot {
    /// One atomic batch a slot, without isolation between slots; counted.
    #[default]
    Allow,
    /// An error.
    Error,
}

/// What every connection of a listener starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDefaults {
    /// Whether a client must say who it is before anything else.
    pub auth_required: bool,
    /// How long a request may take, in microseconds.
    pub timeout_us: u64,
    /// The longest value, in bytes: `proto-max-bulk-len`.
    pub bulk_bytes_max: u64,
    /// The connection's levels until it says otherwise; `None` leaves them to the keyspace.
    pub levels: Levels,
    /// EXEC over several slots.
    pub cross_slot: CrossSlot,
    /// Whether FLUSHDB and FLUSHALL work.
    pub allow_flush: bool,
}

impl Default for SessionDefaults {
    fn default() -> Self {
        Self {
            auth_required: false,
            timeout_us: 5_000_000,
            bulk_bytes_max: u64::from(RESP_BULK_BYTES_DEFAULT),
            levels: Levels::default(),
            cross_slot: CrossSlot::Allow,
            allow_flush: true,
        }
    }
}

/// A request for the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submit {
    /// Unique within the session, for ever; its answer must carry it.
    pub id: u64,
    /// What is asked.
    pub request: Request,
    /// How long the client waits, in microseconds.
    pub timeout_us: u64,
}

/// What a session wants done; the caller empties it.
#[derive(Debug, Default)]
pub struct Output {
    /// Bytes for the client.
    pub replies: Vec<u8>,
    /// Requests for the peer.
    pub submits: Vec<Submit>,
    /// Close the connection once `replies` are written. What is in flight is of no interest then.
    pub close: bool,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    state: State,
    pending: Pending,
    window: Window,
}

impl Session {
    /// A new connection. `id` is its number on this node; `seed` feeds its private chance
    /// (RANDOMKEY).
    #[must_use]
    pub fn new(id: u64, defaults: Arc<SessionDefaults>, seed: u64) -> Self {
        Self {
            state: State::new(id, defaults, seed),
            pending: Pending::default(),
            window: Window::default(),
        }
    }

    /// The same with mistakes planted in it: for the simulator alone.
    #[must_use]
    pub fn with_bugs(mut self, bugs: Vec<Bug>) -> Self {
        self.state.bugs = bugs;
        self
    }

    /// False while so much is unfinished that the driver must stop reading the socket, and after
    /// the client has said goodbye.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        !self.state.closing
            && self.pending.len() < self.window.commands()
            && self.pending.bytes() < HELD_BYTES_MAX
    }

    /// Whether every command so far is answered.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Gives back the memory of what has been answered: nothing is expected of the client soon.
    pub fn rest(&mut self) {
        self.pending.rest();
    }

    /// Whether the client has said who it is, or need not: for the decoder's limits.
    #[must_use]
    pub const fn is_authenticated(&self) -> bool {
        self.state.user.is_some()
    }

    /// What it says of itself: register this with the host's list of clients.
    #[must_use]
    pub fn facts(&self) -> ClientFacts {
        self.state.facts()
    }

    /// The version of RESP that the next reply will have.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.state.protocol
    }

    /// The client sent a command; `args[0]` is its name. No arguments at all ask for nothing.
    pub fn on_command(&mut self, now: Now, args: &[&[u8]], host: &mut dyn Host, out: &mut Output) {
        if args.is_empty() || self.state.closing {
            return;
        }
        self.dispatch(now, args, Levels::default(), host, out);
        self.run(now, host, out);
    }

    /// The peer answered the request `id`.
    pub fn on_answer(
        &mut self,
        now: Now,
        id: u64,
        answer: Answer,
        host: &mut dyn Host,
        out: &mut Output,
    ) {
        let (seq, part) = (id >> PART_BITS, (id & ((1 << PART_BITS) - 1)) as u32);
        self.step(seq, now, host, out, |job, flow| job.on_answer(part, answer, flow));
        self.run(now, host, out);
    }

    /// What the client sends cannot be understood: it hears why, after the replies that it still
    /// has to get, and the connection closes. `why` is without the leading `ERR `.
    pub fn on_protocol_error(&mut self, why: &str, host: &dyn Host, out: &mut Output) {
        if self.state.closing {
            return;
        }
        let mut reply = Vec::new();
        encode::write_error(&mut reply, &format!("ERR {why}"));
        if self.pending.is_empty() {
            out.replies.extend_from_slice(&reply);
        } else {
            let ask = self.state.ask(Now::default(), Levels::default(), host);
            self.pending.push(ended(0, ask, reply, false));
        }
        self.state.closing = true;
        out.close = self.pending.is_empty();
    }

    /// Understands one command and either answers it, or takes it in.
    fn dispatch(
        &mut self,
        now: Now,
        args: &[&[u8]],
        levels: Levels,
        host: &mut dyn Host,
        out: &mut Output,
    ) {
        let Some(place) = table::find(args[0]) else {
            let fault = unknown_command(args);
            return self.refuse(None, now, &fault, host, out);
        };
        let spec = &TABLE[place];
        if let Err(fault) = self.may_run(place, args, host) {
            if let Fault::Overloaded { retry_after_ms } = fault
                && self.shed(place, now, retry_after_ms, host, out)
            {
                return;
            }
            return self.refuse(Some(place), now, &fault, host, out);
        }
        if let Run::Control(control) = spec.run {
            return self.control(control, place, now, args, levels, host, out);
        }
        if let Some(queue) = &mut self.state.queue {
            let queued = match spec.run {
                _ if levels != Levels::default() => Err(Fault::Fixed(
                    "ERR WITH inside MULTI is not allowed. fix: put it before EXEC, where it holds \
                     for the whole transaction",
                )),
                _ => queue.push(place, args),
            };
            return match queued {
                Ok(()) => self.answer(place, now, host, out, |turn| {
                    encode::write_simple(turn.reply, "QUEUED");
                }),
                Err(fault) => self.refuse(Some(place), now, &fault, host, out),
            };
        }
        let ask = self.state.ask(now, levels, host);
        match spec.run {
            Run::Keys(understand) => match understand(&ask, args) {
                Ok(asked) => self.take_ops(place, ask, asked),
                Err(fault) => self.answer(place, now, host, out, |turn| turn.fail(&fault)),
            },
            Run::SetAll(understand) => match understand(&ask, args) {
                Ok(asked) => {
                    let (footprint, bytes) = (Footprint::Keys(asked.touches()), asked.bytes());
                    let job = Job::SetAll(Box::new(SetAllJob::new(asked)));
                    self.take(place, ask, job, footprint, bytes);
                }
                Err(fault) => self.answer(place, now, host, out, |turn| turn.fail(&fault)),
            },
            Run::Whole(understand) => match understand(&mut self.state, &ask, args) {
                Ok(job) => self.take(place, ask, job, Footprint::Barrier, 0),
                Err(fault) => self.answer(place, now, host, out, |turn| turn.fail(&fault)),
            },
            Run::Local(act) => self.answer(place, now, host, out, |turn| act(turn, args)),
            Run::Never(line) => {
                self.answer(place, now, host, out, |turn| turn.fail(&Fault::Fixed(line)));
            }
            Run::Control(_) => unreachable!("handled above"),
        }
    }

    fn may_run(&mut self, place: usize, args: &[&[u8]], host: &mut dyn Host) -> Result<(), Fault> {
        let spec = &TABLE[place];
        self.state.follow_accounts(host);
        if !spec.takes(args.len()) {
            return Err(Fault::Arity { command: spec.name.to_owned() });
        }
        if self.state.user.is_none() && !spec.has(table::NO_AUTH) {
            return Err(Fault::NoAuth);
        }
        self.has_right(place, args, host)?;
        if host.is_loading() && !spec.has(table::LOADING) {
            return Err(Fault::Fixed(LOADING));
        }
        if let Some(retry_after_ms) = host.overload()
            && spec.asks_peer(self.state.queue.is_some())
        {
            return Err(Fault::Overloaded { retry_after_ms });
        }
        Ok(())
    }

    /// Whether the user's account allows it.
    fn has_right(&self, place: usize, args: &[&[u8]], host: &mut dyn Host) -> Result<(), Fault> {
        let Some(account) = self.state.account.as_ref().filter(|a| !a.may_everything()) else {
            return Ok(());
        };
        let Err(why) = account.judge(place, args) else { return Ok(()) };
        let (client, user) = (self.state.id, account.name.clone());
        let fault = match &why {
            Why::Command(command) => Fault::Line(format!(
                "NOPERM User {user} has no permissions to run the '{command}' command"
            )),
            Why::Key(_) | Why::Password => Fault::Fixed("NOPERM No permissions to access a key"),
        };
        host.denied(Denial { client, user, why });
        Err(fault)
    }

    /// The client has shown who it is, otherwise than by a password; false if there is no such user.
    pub fn is_user(&mut self, name: &str, host: &mut dyn Host) -> bool {
        let known = host.account(name).is_some_and(|account| account.enabled);
        if known {
            self.state.is_user(name.to_owned());
            host.client_is(&self.state.facts());
        }
        known
    }

    /// Commands that steer the session itself.
    #[expect(clippy::too_many_arguments, reason = "the same as dispatch, and what it found")]
    fn control(
        &mut self,
        control: Control,
        place: usize,
        now: Now,
        args: &[&[u8]],
        levels: Levels,
        host: &mut dyn Host,
        out: &mut Output,
    ) {
        match control {
            Control::With => match split_with(args, levels) {
                Ok((levels, command)) => self.dispatch(now, command, levels, host, out),
                Err(fault) => self.refuse(Some(place), now, &fault, host, out),
            },
            Control::Exec => {
                let ask = self.state.ask(now, levels, host);
                match transactions::exec(&mut self.state, &ask, host) {
                    Ok(job) => {
                        let bytes = job.bytes();
                        let job = Job::Exec(Box::new(job));
                        self.take(place, ask, job, Footprint::Barrier, bytes);
                    }
                    Err(fault) => self.answer(place, now, host, out, |turn| turn.fail(&fault)),
                }
            }
            Control::Watch => {
                let ask = self.state.ask(now, levels, host);
                match transactions::watch(&self.state, &ask, args) {
                    Ok(job) => {
                        self.take(place, ask, Job::Watch(Box::new(job)), Footprint::Barrier, 0);
                    }
                    Err(fault) => self.answer(place, now, host, out, |turn| turn.fail(&fault)),
                }
            }
            Control::Turn(act) => self.answer(place, now, host, out, |turn| act(turn, args)),
        }
    }

    /// Refuses a command because of overload, as cheaply as can be where nothing else is to be thought
    /// of; false if something is. There are many of them, and each takes time from one that is served.
    fn shed(
        &mut self,
        place: usize,
        now: Now,
        retry_after_ms: u32,
        host: &mut dyn Host,
        out: &mut Output,
    ) -> bool {
        let plain = matches!(TABLE[place].run, Run::Keys(_))
            && self.state.queue.is_none()
            && self.state.replies == Replies::On;
        if !plain {
            return false;
        }
        let write = |reply: &mut Vec<u8>| errors::write_overloaded(reply, retry_after_ms);
        if self.pending.is_empty() {
            write(&mut out.replies);
        } else if !self.pending.reply_behind(write) {
            let mut reply = Vec::new();
            write(&mut reply);
            let ask = self.state.ask(now, Levels::default(), host);
            self.pending.push(ended(place, ask, reply, false));
        }
        host.stats_mut().shed(place);
        true
    }

    /// A command that is refused before it begins; a transaction that is being queued is spoilt.
    fn refuse(
        &mut self,
        place: Option<usize>,
        now: Now,
        fault: &Fault,
        host: &mut dyn Host,
        out: &mut Output,
    ) {
        if let Some(place) = place {
            host.stats_mut().rejected(place);
            if matches!(TABLE[place].run, Run::Control(Control::Exec)) {
                transactions::forget(&mut self.state);
                let aborted = transactions::abort_because(fault);
                self.reply_now(place, now, host, out, |turn| turn.fail(&aborted));
                return;
            }
        }
        if let Some(queue) = &mut self.state.queue {
            queue.spoil();
        }
        self.reply_now(place.unwrap_or(0), now, host, out, |turn| turn.fail(fault));
    }

    /// A command that is answered on the spot.
    fn answer(
        &mut self,
        place: usize,
        now: Now,
        host: &mut dyn Host,
        out: &mut Output,
        act: impl FnOnce(&mut Turn<'_>),
    ) {
        let failed = self.reply_now(place, now, host, out, act);
        host.stats_mut().called(place, 0, failed);
    }

    /// Writes a reply at once if nothing is before it; true if it is an error.
    fn reply_now(
        &mut self,
        place: usize,
        now: Now,
        host: &mut dyn Host,
        out: &mut Output,
        act: impl FnOnce(&mut Turn<'_>),
    ) -> bool {
        let skipped = self.take_skip();
        let ask = self.state.ask(now, Levels::default(), host);
        let mut own = Vec::new();
        let at_once = self.pending.is_empty();
        let reply = if at_once { &mut out.replies } else { &mut own };
        let start = reply.len();
        act(&mut Turn { now, state: &mut self.state, host, reply });
        let failed = reply.get(start) == Some(&b'-');
        if failed {
            host.stats_mut().errored(&reply[start..]);
        }
        // CLIENT REPLY ON is heard, CLIENT REPLY OFF is not: what holds afterwards decides.
        let silent = skipped || self.state.replies == Replies::Off;
        if at_once {
            if silent {
                out.replies.truncate(start);
            }
        } else {
            self.pending.push(ended(place, ask, own, silent));
        }
        failed
    }

    /// Whether CLIENT REPLY SKIP silences this command; it does so once.
    fn take_skip(&mut self) -> bool {
        let skips = self.state.replies == Replies::SkipNext;
        if skips {
            self.state.replies = Replies::On;
        }
        skips
    }

    fn take_ops(&mut self, place: usize, ask: Ask, asked: Asked) {
        let footprint = Footprint::Keys(asked.touches());
        let bytes = asked.bytes();
        let subject = asked.ops.first().map(|(row, _)| row.clone());
        let job = Job::Ops(OpsJob::Whole(asked));
        self.take_about(place, ask, job, footprint, bytes, subject);
    }

    fn take(&mut self, place: usize, ask: Ask, job: Job, footprint: Footprint, bytes: usize) {
        self.take_about(place, ask, job, footprint, bytes, None);
    }

    fn take_about(
        &mut self,
        place: usize,
        ask: Ask,
        job: Job,
        footprint: Footprint,
        bytes: usize,
        subject: Option<Row>,
    ) {
        let silent = self.take_skip() || self.state.replies == Replies::Off;
        let mut entry = Entry::new(place, ask, silent, Stage::Held(job), footprint, bytes);
        entry.subject = subject;
        self.pending.push(entry);
    }

    /// A command that took long.
    fn slow(&mut self, seq: u64, place: usize, micros: u64) -> Slow {
        let subject = self.pending.get(seq).and_then(|entry| entry.subject.take());
        Slow {
            command: TABLE[place].name,
            key: subject.and_then(|row| row::key_of(&row)),
            micros,
            client: self.state.id,
            client_name: self.state.name.clone(),
            user: self.state.user.clone().unwrap_or_default(),
        }
    }

    /// Starts what may start, sends what may be sent.
    fn run(&mut self, now: Now, host: &mut dyn Host, out: &mut Output) {
        while let Some(seq) = self.pending.next_ready() {
            // What it waited for its own connection is the client's affair, who sent it so early.
            if let Some(entry) = self.pending.get(seq) {
                entry.ask.deadline = now.mono + entry.ask.timeout;
            }
            self.step(seq, now, host, out, Job::start);
        }
        while let Some((reply, silent)) = self.pending.pop_ended() {
            if !silent {
                out.replies.extend_from_slice(&reply);
            }
        }
        if self.pending.is_empty() {
            self.pending.ease();
            let generation = self.state.watch_generation;
            self.state.watched.retain(|w| w.generation == generation);
            out.close |= self.state.closing;
        }
    }

    /// Lets one command go on.
    fn step(
        &mut self,
        seq: u64,
        now: Now,
        host: &mut dyn Host,
        out: &mut Output,
        go: impl FnOnce(&mut Job, &mut Flow<'_>) -> Step,
    ) {
        let first = self.pending.is_first(seq);
        let Some(entry) = self.pending.get(seq) else { return };
        let (place, started, silent, ask) = (entry.place, entry.started, entry.silent, entry.ask);
        let mut job = match std::mem::replace(&mut entry.stage, Stage::Ended) {
            Stage::Held(job) | Stage::Running(job) => job,
            // An answer to a command that has ended without waiting for it.
            Stage::Ended => return,
        };
        let mut own = Vec::new();
        let at_once = (first || self.state.has_bug(Bug::AnswersOutOfTurn)) && !silent;
        let reply = if at_once { &mut out.replies } else { &mut own };
        let start = reply.len();
        let mut flow = Flow {
            turn: Turn { now, state: &mut self.state, host, reply },
            ask,
            seq,
            next_part: &mut entry.next_part,
            submits: &mut out.submits,
        };
        let step = go(&mut job, &mut flow);
        match step {
            Step::Waits => entry.stage = Stage::Running(job),
            Step::Ended => {
                let failed = reply.get(start) == Some(&b'-');
                let stats = host.stats_mut();
                if failed {
                    stats.errored(&reply[start..]);
                }
                let micros = now.mono.since(started).as_micros() as u64;
                stats.called(place, micros, failed);
                self.window.replied(reply.len() - start);
                if micros >= host.slow_from_us() {
                    let slow = self.slow(seq, place, micros);
                    host.was_slow(now, slow);
                }
                self.pending.end(seq, own);
            }
        }
    }
}

fn ended(place: usize, ask: Ask, reply: Vec<u8>, silent: bool) -> Entry {
    let nothing = Footprint::Keys(smallvec::SmallVec::new());
    let mut entry = Entry::new(place, ask, silent, Stage::Ended, nothing, 0);
    entry.reply = reply;
    entry
}

/// `WITH option… command…`: the levels and the command.
fn split_with<'a, 'b>(
    args: &'a [&'b [u8]],
    outer: Levels,
) -> Result<(Levels, &'a [&'b [u8]]), Fault> {
    if outer != Levels::default() {
        return Err(nested_with());
    }
    let mut levels = Levels::default();
    for (i, arg) in args.iter().enumerate().skip(1) {
        let taken = levels.take(arg).map_err(|why| Fault::Line(format!("ERR WITH: {why}")))?;
        if taken {
            continue;
        }
        if i == 1 {
            return Err(Fault::Line(format!(
                "ERR WITH: '{}' is no consistency level. fix: WITH level|r=level|w=level|d=sync|os \
                 ... command, with levels ONE, TWO, THREE, QUORUM, ALL, LOCAL_ONE, LOCAL_QUORUM, \
                 EACH_QUORUM or a number",
                args::text(arg)
            )));
        }
        if args::is(arg, "with") {
            return Err(nested_with());
        }
        return Ok((levels, &args[i..]));
    }
    Err(Fault::Fixed("ERR WITH: no command follows. fix: WITH QUORUM GET key"))
}

const fn nested_with() -> Fault {
    Fault::Fixed("ERR WITH inside WITH is not allowed. fix: put all options behind one WITH")
}

fn unknown_command(args: &[&[u8]]) -> Fault {
    use crate::limits::ECHOED_ARGS_BYTES_MAX;
    let mut echoed = String::new();
    for arg in &args[1..] {
        if echoed.len() >= ECHOED_ARGS_BYTES_MAX {
            break;
        }
        let room = ECHOED_ARGS_BYTES_MAX - echoed.len();
        echoed.push('\'');
        echoed.push_str(&args::text(&arg[..arg.len().min(room)]));
        echoed.push_str("' ");
    }
    Fault::UnknownCommand { name: args[0].to_vec(), echoed }
}
