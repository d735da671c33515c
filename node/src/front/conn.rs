//! Connections: bytes from a Redis client into its session, replies back.
//!
//! One task a connection. It reads into a buffer that all connections of the core share, so that an
//! idle one costs its session and a few hundred bytes; only an incomplete command is kept. When there
//! is no time to serve what a client sends, its bytes are taken from the socket all the same, a bounded
//! number of them, so that it is known since when they wait. Promises:
//! nothing is served to a client that has too much unfinished or does not take its replies; one that
//! takes nothing for long, or lets too much pile up, is closed with a word in the log.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use commands::{Output, Session};
use ring::Instant;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tracing::{debug, info, warn};
use wire::resp::{Decoder, Limits};

use crate::clock;
use crate::front::backlog::Backlog;
use crate::front::tls::{Peer, Tls};
use crate::limits::{
    AHEAD_BYTES, AHEAD_EVERY, BUFFER_KEPT_BYTES_MAX, FEED_COMMANDS, MUCH_BYTES, OUTPUT_BYTES_MAX,
    OUTPUT_PAUSE_BYTES, OUTPUT_STALL_MAX, READ_BYTES, REST_AFTER,
};
use crate::slab::Key;
use crate::turn::Core;

/// A connection as its core sees it.
pub struct Conn {
    /// Its number on this node.
    pub id: u64,
    /// What it asks and hears.
    pub session: Session,
    /// What the session wants done; its replies are the output buffer.
    pub output: Output,
    /// Whether it stands in the core's list of connections to look at when the turn ends.
    pub listed: bool,
    address: SocketAddr,
    writer: OwnedWriteHalf,
    /// TLS, and what it has sealed for the client.
    tls: Option<Box<Tls>>,
    sealed: Vec<u8>,
    /// So much of the replies, or of what is sealed, has been written.
    sent: usize,
    /// The socket is full: the task waits until it is not.
    blocked: bool,
    /// The task has stopped reading until there is room again.
    held: bool,
    /// The client sends no more; it may still hear what it asked for.
    half_closed: bool,
    /// Since when replies wait without one byte being taken.
    stalled_since: Option<Instant>,
    ending: Option<Ending>,
    last_heard: Instant,
    /// It has been silent for a while, and its buffers are given back.
    rests: bool,
    waker: Option<Waker>,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// By the client, the session or the network.
    Plain,
    /// By CLIENT KILL.
    Killed,
    /// It takes nothing of its replies.
    Stalled,
    /// It let too many replies pile up.
    Full,
    /// It was idle for too long.
    Idle,
    /// What it sends is no TLS that we can open.
    Tls,
}

impl Conn {
    /// A new connection.
    #[must_use]
    pub fn new(
        id: u64,
        session: Session,
        address: SocketAddr,
        writer: OwnedWriteHalf,
        tls: Option<Box<Tls>>,
    ) -> Self {
        Self {
            id,
            session,
            output: Output::default(),
            listed: false,
            address,
            writer,
            tls,
            sealed: Vec::new(),
            sent: 0,
            blocked: false,
            held: false,
            half_closed: false,
            stalled_since: None,
            ending: None,
            last_heard: clock::mono(),
            rests: false,
            waker: None,
        }
    }

    /// Closes it as soon as its task runs.
    pub fn kill(&mut self) {
        self.end(Ending::Killed);
    }

    fn end(&mut self, why: Ending) {
        self.ending.get_or_insert(why);
        self.wake();
    }

    /// Lets its task run.
    pub fn wake(&mut self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Whether it has to be looked at when the turn ends.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.unsent() > 0 || self.output.close || self.held || self.half_closed
    }

    /// Whether every reply has been taken.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.unsent() == 0 || self.ending.is_some()
    }

    fn unsent(&self) -> usize {
        self.sealed.len() + self.output.replies.len() - self.sent
    }

    /// Seals replies. Only what may leave is sealed: at the end of a turn.
    fn seal(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        tls.seal(&self.output.replies, &mut self.sealed);
        self.output.replies.clear();
        if self.output.replies.capacity() > BUFFER_KEPT_BYTES_MAX {
            self.output.replies = Vec::new();
        }
    }

    /// The bytes for the socket of which some are sent.
    fn outgoing(&mut self) -> &mut Vec<u8> {
        if self.tls.is_some() { &mut self.sealed } else { &mut self.output.replies }
    }

    /// Takes bytes of the socket; what they hold is added to `plain`. False if nothing follows.
    fn open(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<bool, String> {
        let Some(tls) = &mut self.tls else { return Ok(true) };
        let opened = tls.open(bytes, plain);
        // The handshake, or why there is none: nothing of a reply is in it.
        tls.seal(&[], &mut self.sealed);
        self.write_sealed();
        opened
    }

    fn write_sealed(&mut self) -> usize {
        let mut taken = 0;
        while !self.blocked && self.ending.is_none() {
            let sent = self.sent;
            let rest = if self.tls.is_some() { &self.sealed } else { &self.output.replies };
            if rest.len() == sent {
                break;
            }
            match self.writer.try_write(&rest[sent..]) {
                Ok(n) => taken += self.took(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.blocked = true,
                Err(_) => self.end(Ending::Plain),
            }
        }
        taken
    }

    /// Says goodbye, if the client still listens.
    fn say_goodbye(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.close(&mut self.sealed);
        }
        self.flush();
    }

    /// Whether nothing more will come and everything has been said.
    fn is_over(&self) -> bool {
        let said_all = self.output.close || (self.half_closed && self.session.is_idle());
        said_all && self.unsent() == 0
    }

    fn may_read(&self) -> bool {
        self.session.wants_more()
            && !self.half_closed
            && self.unsent() < OUTPUT_PAUSE_BYTES
            && !self.output.close
    }

    /// Whether it is served no more for now because it has much unfinished, and for no other reason.
    fn may_take_ahead(&self) -> bool {
        !self.half_closed && self.unsent() < OUTPUT_PAUSE_BYTES && !self.output.close
    }

    /// Writes replies, as many as the socket takes; how many bytes it took.
    pub fn flush(&mut self) -> usize {
        self.seal();
        let taken = self.write_sealed();
        self.judge_output();
        if self.blocked || self.is_over() || (self.held && self.may_read()) {
            self.wake();
        }
        taken
    }

    fn took(&mut self, bytes: usize) -> usize {
        self.sent += bytes;
        self.stalled_since = None;
        let sent = self.sent;
        let outgoing = self.outgoing();
        if outgoing.len() == sent {
            outgoing.clear();
            if outgoing.capacity() > BUFFER_KEPT_BYTES_MAX {
                *outgoing = Vec::new();
            }
            self.sent = 0;
        }
        bytes
    }

    fn judge_output(&mut self) {
        if self.unsent() > 0 && self.stalled_since.is_none() {
            self.stalled_since = Some(clock::mono());
        }
        if self.unsent() > OUTPUT_BYTES_MAX {
            self.end(Ending::Full);
        }
    }

    /// Goes on with what the socket did not take; ready when it took all.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        // What is not sealed yet waits for the end of the turn.
        while self.outgoing().len() > self.sent {
            let rest = if self.tls.is_some() { &self.sealed } else { &self.output.replies };
            let n = ready!(Pin::new(&mut self.writer).poll_write(cx, &rest[self.sent..]))?;
            taken += self.took(n);
        }
        self.blocked = false;
        Poll::Ready(Ok(taken))
    }

    /// When it last sent something.
    #[must_use]
    pub const fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// It sent something.
    const fn heard(&mut self, now: Instant) {
        self.last_heard = now;
        self.rests = false;
    }

    /// Once a second: ends it if it does not move, and gives back what a silent one does not use.
    pub fn look_around(&mut self, now: Instant, idle_max_s: u64) {
        if self.stalled_since.is_some_and(|since| now.since(since) > OUTPUT_STALL_MAX) {
            self.end(Ending::Stalled);
        }
        let silent = now.since(self.last_heard);
        if !self.rests && silent >= REST_AFTER && self.session.is_idle() && self.unsent() == 0 {
            self.rests = true;
            self.session.rest();
            self.output = Output { close: self.output.close, ..Output::default() };
        }
        let idle = silent.as_secs();
        if idle_max_s > 0 && idle >= idle_max_s && self.session.is_idle() {
            self.end(Ending::Idle);
        }
    }

    fn remember(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }
}

/// The task of a connection: ends when the connection does.
pub struct Task {
    core: Rc<RefCell<Core>>,
    key: Key,
    reader: OwnedReadHalf,
    decoder: Decoder,
    /// The beginning of an incomplete command, or commands that the session could not take yet.
    input: Vec<u8>,
    /// `input` may hold whole commands.
    unfed: bool,
    /// How long what it reads has waited.
    backlog: Backlog,
    /// What it read last was refused, since it was too old: so is all up to where the socket is empty.
    flooded: bool,
    /// What it is about to feed comes from the socket.
    is_fresh: bool,
    /// It read so much that others shall have their turn first.
    gives_way: bool,
    /// The last read left nothing in the socket.
    emptied: bool,
    /// Nothing comes after `input`.
    ended: bool,
    /// So many bytes of `input` are in the core's account.
    counted: usize,
    /// The turn since which it waits for less to be in flight.
    waits_since: u64,
    /// When it last took what was not served.
    ahead_at: Instant,
}

impl Task {
    /// The task of connection `key` of `core`.
    #[must_use]
    pub fn new(core: Rc<RefCell<Core>>, key: Key, reader: OwnedReadHalf) -> Self {
        let decoder = Decoder::new(Limits::default());
        Self {
            core,
            key,
            reader,
            decoder,
            input: Vec::new(),
            unfed: false,
            backlog: Backlog::default(),
            flooded: false,
            is_fresh: false,
            gives_way: false,
            emptied: true,
            ended: false,
            counted: 0,
            waits_since: 0,
            ahead_at: Instant(0),
        }
    }

    /// Feeds whole commands of `bytes` to the session, until it wants no more or the turn was long;
    /// how many bytes were taken.
    fn feed(&mut self, core: &mut Core, bytes: &[u8]) -> usize {
        let now = core.now();
        let (mut at, mut judged, mut fed) = (0, 0, 0);
        let fresh = std::mem::take(&mut self.is_fresh);
        loop {
            let Some(conn) = core.conns.get_mut(self.key) else { return bytes.len() };
            if !conn.may_read() {
                // What the session has asked so far may be answered on the spot.
                core.after_session(self.key);
                core.run();
                let room = core.conns.get_mut(self.key).is_some_and(|conn| conn.may_read());
                self.unfed = !room;
                if room {
                    continue;
                }
                return at;
            }
            if at >= judged {
                // Bytes that came together are judged together.
                let id = conn.id;
                let (since, upto) = self.backlog.next(at as u64);
                judged = usize::try_from(upto).unwrap_or(usize::MAX).max(at + 1);
                let flooded = self.flooded && !self.emptied;
                self.flooded = core.judge_client(id, since, flooded, fresh);
                if !self.flooded && core.is_full() {
                    core.after_session(self.key);
                    core.run();
                    self.unfed = true;
                    self.is_fresh = true;
                    return at;
                }
                continue;
            }
            self.decoder.set_authenticated(conn.session.is_authenticated());
            match self.decoder.decode(&bytes[at..]) {
                Ok(Some(decoded)) => {
                    at += decoded.consumed;
                    let args: SmallVec<[&[u8]; 8]> = decoded.command.args().collect();
                    conn.session.on_command(now, &args, &mut core.host, &mut conn.output);
                    fed += 1;
                }
                Ok(None) => {
                    self.unfed = false;
                    break;
                }
                Err(e) => {
                    let why = e.to_string();
                    conn.session.on_protocol_error(&why, &core.host, &mut conn.output);
                    at = bytes.len();
                    break;
                }
            }
            if fed == FEED_COMMANDS {
                fed = 0;
                core.after_session(self.key);
                core.run();
                // To refuse there need be no room.
                if core.is_long() || (!self.flooded && core.is_full()) {
                    self.unfed = true;
                    self.is_fresh = true;
                    return at;
                }
            }
        }
        core.after_session(self.key);
        core.run();
        at
    }

    /// Takes what has come out of the socket and feeds nothing of it: since when it waits is known
    /// then. Ready if the connection is broken.
    fn take_ahead(&mut self, core: &mut Core, cx: &mut Context<'_>) -> Poll<Ending> {
        let now = clock::mono();
        if now.since(self.ahead_at) < AHEAD_EVERY {
            return Poll::Pending;
        }
        self.ahead_at = now;
        let sealed = core.conns.get_mut(self.key).is_some_and(|conn| conn.tls.is_some());
        loop {
            if self.ended || self.input.len() >= AHEAD_BYTES || !core.has_room_ahead() {
                self.emptied = self.ended;
                self.note_kept();
                break;
            }
            let polled = if sealed {
                self.poll_read_sealed(core, cx)
            } else {
                self.poll_read_ahead(core, cx)
            };
            self.account(core);
            match polled {
                Poll::Ready(Ok(true)) => self.heard(core),
                Poll::Ready(Ok(false)) => self.ended = true,
                Poll::Ready(Err(_)) => return Poll::Ready(Ending::Plain),
                Poll::Pending => {
                    self.emptied = true;
                    break;
                }
            }
        }
        Poll::Pending
    }

    fn poll_read_ahead(&mut self, core: &mut Core, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut scratch = std::mem::take(&mut core.scratch);
        let mut buffer = ReadBuf::new(&mut scratch);
        let polled = Pin::new(&mut self.reader).poll_read(cx, &mut buffer);
        let length = buffer.filled().len();
        self.input.extend_from_slice(&scratch[..length]);
        core.scratch = scratch;
        ready!(polled)?;
        core.report.bytes_in += length as u64;
        self.emptied = length < READ_BYTES;
        self.unfed |= length > 0;
        self.note_kept();
        Poll::Ready(Ok(length > 0))
    }

    /// Whether what waits first is refused, if there is time for that: it takes no room.
    fn is_to_refuse(&self, core: &mut Core) -> bool {
        let id = core.conns.get_mut(self.key).map_or(0, |conn| conn.id);
        let since = self.backlog.next(0).0;
        self.unfed && since.is_some_and(|since| core.waits_still(id, since)) && !core.is_long()
    }

    /// Its client sent something.
    fn heard(&self, core: &mut Core) {
        let now = core.now().mono;
        if let Some(conn) = core.conns.get_mut(self.key) {
            conn.heard(now);
        }
    }

    /// What is kept, and what the socket holds if it is not empty, has come by now.
    fn note_kept(&mut self) {
        // A system that does not tell has told nothing: then waits are found later.
        let left = if self.emptied { 0 } else { self.left_in_socket() };
        self.backlog.holds(clock::mono(), self.input.len() as u64 + left);
    }

    fn left_in_socket(&self) -> u64 {
        rustix::io::ioctl_fionread(self.reader.as_ref()).unwrap_or(0)
    }

    /// Says how much it keeps.
    fn account(&mut self, core: &mut Core) {
        core.keeps_ahead(self.counted, self.input.len());
        self.counted = self.input.len();
    }

    /// Reads once and feeds what came; false at the end of the stream.
    fn poll_read(&mut self, core: &mut Core, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if core.conns.get_mut(self.key).is_some_and(|conn| conn.tls.is_some()) {
            return self.poll_read_sealed(core, cx);
        }
        let start = self.input.len();
        let missing = self.decoder.reserve_hint(start);
        if start + missing <= READ_BYTES / 2 {
            return self.poll_read_shared(core, cx);
        }
        // The rest of a long command: straight behind its beginning.
        let room = missing.clamp(4 << 10, 1 << 20);
        self.input.resize(start + room, 0);
        let mut buffer = ReadBuf::new(&mut self.input[start..]);
        let polled = Pin::new(&mut self.reader).poll_read(cx, &mut buffer);
        let length = buffer.filled().len();
        self.input.truncate(start + length);
        ready!(polled)?;
        core.report.bytes_in += length as u64;
        self.note_backlog(length, length == room, self.input.len());
        self.unfed = true;
        Poll::Ready(Ok(length > 0))
    }

    /// The same by the buffer that all connections share, behind the beginning of a command that was
    /// kept.
    fn poll_read_shared(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        let start = self.input.len();
        let mut scratch = std::mem::take(&mut core.scratch);
        let mut buffer = ReadBuf::new(&mut scratch[start..]);
        let polled = Pin::new(&mut self.reader).poll_read(cx, &mut buffer);
        let length = buffer.filled().len();
        if length > 0 {
            core.report.bytes_in += length as u64;
            scratch[..start].copy_from_slice(&self.input);
            self.input.clear();
            let all = start + length;
            self.note_backlog(length, all == scratch.len(), all);
            let taken = self.feed(core, &scratch[..all]);
            self.backlog.taken(taken);
            self.keep(&scratch[taken..all]);
            if self.unfed {
                self.backlog.holds(clock::mono(), self.input.len() as u64);
            }
        }
        core.scratch = scratch;
        ready!(polled)?;
        Poll::Ready(Ok(length > 0))
    }

    /// The same where what comes is sealed.
    fn poll_read_sealed(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        let mut scratch = std::mem::take(&mut core.scratch);
        let mut buffer = ReadBuf::new(&mut scratch);
        let polled = Pin::new(&mut self.reader).poll_read(cx, &mut buffer);
        let length = buffer.filled().len();
        let mut more = length > 0;
        if let Some(conn) = core.conns.get_mut(self.key).filter(|_| length > 0) {
            match conn.open(&scratch[..length], &mut self.input) {
                Ok(open) => more = open,
                Err(why) => {
                    warn!(client = conn.id, address = %conn.address, why, "no TLS with a client");
                    conn.end(Ending::Tls);
                    core.report.tls_failed += 1;
                }
            }
            let peer = conn.tls.as_mut().and_then(|tls| tls.take_peer());
            if let Some(Peer { user, fingerprint }) = peer {
                let known = user.as_ref().is_some_and(|u| conn.session.is_user(u, &mut core.host));
                debug!(client = conn.id, user, fingerprint, known, "a client's certificate");
            }
        }
        core.scratch = scratch;
        ready!(polled)?;
        core.report.bytes_in += length as u64;
        self.emptied = length < READ_BYTES;
        self.is_fresh = true;
        self.note_kept();
        self.unfed = !self.input.is_empty();
        Poll::Ready(Ok(more))
    }

    /// Keeps what could not be fed; an idle connection holds no buffer.
    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.input = Vec::new();
        } else {
            self.input.extend_from_slice(rest);
        }
    }

    /// The socket gave as much as was asked for: whatever is left in it has come by now. If it gave
    /// less it is empty.
    fn note_backlog(&mut self, length: usize, full: bool, unfed: usize) {
        let is_much = length >= MUCH_BYTES;
        self.is_fresh = true;
        self.flooded &= is_much;
        self.gives_way = is_much;
        self.emptied = !full;
        if !full {
            return self.backlog.drained();
        }
        // A system that does not tell has told nothing: then waits are found later.
        let left = self.left_in_socket();
        self.backlog.holds(clock::mono(), unfed as u64 + left);
    }

    fn feed_input(&mut self, core: &mut Core) {
        let mut input = std::mem::take(&mut self.input);
        let taken = self.feed(core, &input);
        self.backlog.taken(taken);
        if taken == input.len() && input.capacity() > BUFFER_KEPT_BYTES_MAX {
            input = Vec::new();
        } else {
            input.drain(..taken);
        }
        if input.is_empty() {
            // An idle connection holds no buffer.
            input = Vec::new();
        }
        self.input = input;
    }

    /// Goes on as far as it can; ready with the reason when the connection is over.
    fn go_on(&mut self, core: &mut Core, cx: &mut Context<'_>) -> Poll<Ending> {
        loop {
            let draining = core.draining;
            let Some(conn) = core.conns.get_mut(self.key) else {
                return Poll::Ready(Ending::Plain);
            };
            conn.remember(cx.waker());
            if let Some(ending) = conn.ending {
                return Poll::Ready(ending);
            }
            if conn.blocked {
                match conn.poll_write(cx) {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Ending::Plain),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if conn.is_over() {
                return Poll::Ready(Ending::Plain);
            }
            conn.held = !conn.may_read() || draining;
            if conn.held {
                let takes = conn.may_take_ahead() && !draining;
                return if takes { self.take_ahead(core, cx) } else { Poll::Pending };
            }
            if core.poll_room(cx, &mut self.waits_since).is_pending() && !self.is_to_refuse(core) {
                self.is_fresh = true;
                return self.take_ahead(core, cx);
            }
            if self.unfed {
                self.feed_input(core);
                self.account(core);
                continue;
            }
            if self.ended {
                if let Some(conn) = core.conns.get_mut(self.key) {
                    conn.half_closed = true;
                }
                continue;
            }
            let polled = self.poll_read(core, cx);
            self.account(core);
            match polled {
                Poll::Ready(Ok(true)) => {
                    self.heard(core);
                    // What was refused cost little, and the rest of it is to be refused now.
                    if std::mem::take(&mut self.gives_way) && !self.flooded {
                        self.backlog.passed_over(clock::mono());
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Poll::Ready(Ok(false)) => self.ended = true,
                Poll::Ready(Err(_)) => return Poll::Ready(Ending::Plain),
                Poll::Pending => {
                    self.flooded = false;
                    self.emptied = true;
                    self.backlog.is_empty();
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = self.get_mut();
        let core = task.core.clone();
        let core = &mut *core.borrow_mut();
        let ending = ready!(task.go_on(core, cx));
        core.keeps_ahead(task.counted, 0);
        let Some(mut conn) = core.conns.remove(task.key) else { return Poll::Ready(()) };
        // What can still be told is told, unless the client would not hear it.
        conn.say_goodbye();
        core.shared.clients.remove(conn.id);
        if !conn.session.is_idle() {
            core.cancel(task.key);
        }
        match ending {
            Ending::Plain => {}
            why => info!(
                client = conn.id,
                address = %conn.address,
                ?why,
                unsent_bytes = conn.unsent(),
                "closed a client's connection"
            ),
        }
        Poll::Ready(())
    }
}
