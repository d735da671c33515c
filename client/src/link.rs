//! Link: one connection that many requests share.
//!
//! Promise: every request is answered once or learns that the link is gone; a request whose future
//! was dropped leaves nothing behind; a frame is written whole or not at all, since one task does
//! all the writing and no caller can be cancelled in the middle of it. What waited here until its caller
//! gave up is not sent, and of what is sent the node hears when it was made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core::time::Duration;

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use ring::{Hlc, NodeId};
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};
use wire::hello::{LENGTH_BYTES, close};
use wire::limits::{FRAME_BODY_BYTES_MAX, FRAME_BYTES_MAX};
use wire::moment::Moment;
use wire::{
    Ack, ClientReply, ClientRequest, CodecError, ErrorCode, ErrorReply, FrameDecoder, FrameWriter,
    Header, Hello, Kind, codec,
};

use crate::acks::Acks;
use crate::dial::{Dialled, Dialler, how_it_ended};
use crate::error::{ClientError, Told};
use crate::limits::{
    ACKS_PATIENCE, BATCH_BYTES, MOMENTS_APART, PENDING_MAX, PENDING_RETRY_AFTER, QUEUE_FRAMES_MAX,
    READ_BYTES, SUPERSEDED_MAX, WAY_OUT,
};

/// How a request over a link came to no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The link was gone before the request left. Ask over another one.
    NotSent,
    /// It was not sent, since no node could answer in the time that is left.
    NoTime,
    /// The link ended while the answer was awaited; or, if it stands, another one over which a replica may have
    /// told that a write is done.
    Lost {
        /// How.
        reason: String,
    },
    /// Anything else.
    Error(ClientError),
}

/// A connection to one node.
pub(crate) struct Link {
    address: String,
    answer: Hello,
    connection: Connection,
    endpoint: Endpoint,
    queue: mpsc::Sender<Outgoing>,
    shared: Arc<Answers>,
    acks: Arc<Acks>,
    began: Instant,
}

/// A frame that waits to be written.
struct Outgoing {
    header: Header,
    body: Vec<u8>,
    times: Option<Times>,
}

/// By when a request wants what.
#[derive(Clone, Copy)]
struct Times {
    /// The node's answer.
    answer: Instant,
    /// To be sent; later it would come when little of its time is left.
    send: Instant,
}

/// What comes of a request.
pub(crate) enum Came {
    /// An answer.
    Reply(Result<ClientReply, CodecError>),
    /// It was not sent, since the node takes requests too slowly.
    Shed,
    /// A replica may have said in vain that it holds the write: the coordinator has to be asked.
    Doubt,
}

/// Who waits for answers of one link, and what was heard over it.
#[derive(Default)]
pub(crate) struct Answers {
    /// Who waits for which request; `None` once the link is gone.
    waiting: Mutex<Waiting>,
    /// The greatest clock heard, to be said with the next request: a node never mints below what
    /// its clients have seen.
    hlc: AtomicU64,
    /// The latest epoch that the node spoke of.
    epoch: AtomicU64,
    /// What the node's clock showed when it last spoke of it, in microseconds; 0 if it never did.
    moment_us: AtomicU64,
    /// Answers for which nobody waited any more, of all links of the client.
    unwanted: Arc<AtomicU64>,
    /// When the node last said anything, in microseconds since the connection was made.
    heard_us: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    /// They hear what came, and when.
    askers: BTreeMap<u64, oneshot::Sender<(Came, Instant)>>,
    asked: u64,
    /// How many of those that wait are for the client's own use.
    own: usize,
    /// Those that were asked for anew, or answered by others: what answers them still is neither late nor wanted.
    superseded: BTreeSet<u64>,
    ended: Option<String>,
}

/// A request that waits; forgotten when it is dropped, and the node is told to forget it too.
struct Place<'a> {
    link: &'a Link,
    id: u64,
    /// It is for the client's own use.
    own: bool,
    /// The client's number of a write whose replicas it hears.
    direct: Option<u64>,
    /// It has left, so that the node works on it.
    left: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.link.shared.waiting();
        let unanswered = waiting.askers.remove(&self.id).is_some();
        waiting.own -= usize::from(self.own);
        drop(waiting);
        if let Some(n) = self.direct {
            self.link.acks.forget(n);
        }
        if unanswered && self.left {
            let header = Header::new(Kind::CLIENT_REQUEST);
            let cancel = ClientRequest::Cancel { request_id: self.id };
            // A full queue means that the node hears of much else: it finds out by the deadline.
            let cancel = Outgoing { header, body: encoded(&cancel), times: None };
            drop(self.link.queue.try_send(cancel));
        }
    }
}

impl Answers {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, reason: String) {
        let mut waiting = self.waiting();
        waiting.ended.get_or_insert(reason);
        // Whoever waits learns of it by the loss of the sender.
        waiting.askers.clear();
    }

    /// Somebody's clock shows this.
    pub(crate) fn hear(&self, hlc: Hlc) {
        self.hlc.fetch_max(hlc.0, Ordering::Relaxed);
    }

    /// Somebody waits for the answer to a request of this number.
    #[cfg(test)]
    pub(crate) fn expect(&self, id: u64) -> oneshot::Receiver<(Came, Instant)> {
        let (sender, answer) = oneshot::channel();
        self.waiting().askers.insert(id, sender);
        answer
    }

    /// Tells whoever asked what came of it. True if somebody waited for that.
    pub(crate) fn tell(&self, id: u64, came: Came) -> bool {
        let asker = self.waiting().askers.remove(&id);
        // Nobody there: the caller went away, and does not want to know.
        asker.is_some_and(|asker| asker.send((came, Instant::now())).is_ok())
    }

    /// The node answered.
    fn answered(&self, id: u64, reply: Result<ClientReply, CodecError>) {
        if !self.tell(id, Came::Reply(reply)) {
            let unwanted = !self.waiting().superseded.remove(&id);
            self.unwanted.fetch_add(u64::from(unwanted), Ordering::Relaxed);
        }
    }

    /// A request is asked for anew, or was answered by others: what this node answers does not matter.
    pub(crate) fn supersede(&self, id: u64) {
        let mut waiting = self.waiting();
        waiting.superseded.insert(id);
        if waiting.superseded.len() > SUPERSEDED_MAX {
            waiting.superseded.pop_first();
        }
    }
}

impl Link {
    /// Takes a connection over; to be called inside a runtime, which keeps its two tasks.
    pub(crate) fn open(dialled: Dialled, dialler: &Dialler) -> Self {
        let Dialled { address, endpoint, connection, send, recv, answer } = dialled;
        let unwanted = dialler.unwanted.clone();
        let shared = Arc::new(Answers { unwanted, ..Answers::default() });
        let (queue, frames) = mpsc::channel(QUEUE_FRAMES_MAX);
        tokio::spawn(write_all(send, frames, shared.clone()));
        let began = Instant::now();
        let (answers, acks) = (shared.clone(), dialler.acks.clone());
        let hears = Hears { node: answer.node, answers, acks: acks.clone(), began };
        tokio::spawn(read_all(recv, connection.clone(), hears));
        Self { address, answer, connection, endpoint, queue, shared, acks, began }
    }

    /// The address that was dialled.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What the node said of itself.
    pub(crate) fn answer(&self) -> &Hello {
        &self.answer
    }

    /// The certificates that the node showed, its own first.
    pub(crate) fn certificates(&self) -> Vec<Vec<u8>> {
        let shown = self.connection.peer_identity();
        let shown = shown.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        shown.into_iter().flat_map(|all| *all).map(|der| der.to_vec()).collect()
    }

    /// Whether requests still make sense.
    pub(crate) fn is_alive(&self) -> bool {
        self.shared.waiting().ended.is_none()
    }

    /// Whether the node has said nothing since then.
    pub(crate) fn is_silent_since(&self, at: Instant) -> bool {
        let heard = Duration::from_micros(self.shared.heard_us.load(Ordering::Relaxed));
        self.began + heard < at
    }

    /// How many requests of the program wait for their answers.
    pub(crate) fn pending(&self) -> usize {
        let waiting = self.shared.waiting();
        waiting.askers.len().saturating_sub(waiting.own)
    }

    /// The greatest clock that was heard.
    pub(crate) fn hlc(&self) -> Hlc {
        Hlc(self.shared.hlc.load(Ordering::Relaxed))
    }

    /// The latest epoch that the node spoke of.
    pub(crate) fn epoch(&self) -> u64 {
        self.shared.epoch.load(Ordering::Relaxed)
    }

    /// Sends `request`, which may take `told` as the node hears it, and waits for its answer until
    /// `until`. Of a write that replicas are to tell of, `may_ask_again` says whether its coordinator may be asked
    /// once more when nobody has told since the given time.
    pub(crate) async fn ask(
        &self,
        request: &ClientRequest<'_>,
        hlc: Hlc,
        told: Duration,
        until: Instant,
        may_ask_again: &(dyn Fn(Instant) -> bool + Sync),
    ) -> Result<ClientReply, NoAnswer> {
        let own = matches!(request, ClientRequest::Layout);
        let made = Instant::now();
        let direct = request.name().filter(|name| name.direct).map(|name| name.n);
        let (mut place, answer) = self.take_place(own, direct.map(|n| (n, made + told)))?;
        let header = Header { hlc, request_id: place.id, ..Header::new(Kind::CLIENT_REQUEST) };
        let body = encoded(request);
        if body.len() > FRAME_BODY_BYTES_MAX as usize {
            let (what, why) = ("the request is too large", format!("it has {} bytes", body.len()));
            let told = Told::new(what, why, "store smaller values");
            return Err(NoAnswer::Error(ClientError::Invalid { told }));
        }
        let late = || NoAnswer::Error(ClientError::TimedOut { after: Duration::ZERO });
        // Who waited longer for the way out would come when little of its time is left, and in front of
        // all who have theirs yet: then every one comes too late.
        let part = until.saturating_duration_since(made) / WAY_OUT;
        let times = Some(Times { answer: made + told, send: made + told.min(part * 2) });
        let queued = self.queue.send(Outgoing { header, body, times });
        match timeout_at(made + part, queued).await {
            Ok(Ok(())) => place.left = true,
            Ok(Err(_)) => return Err(NoAnswer::NotSent),
            Err(_) => return Err(NoAnswer::Error(shed().into())),
        }
        let asks_again = direct.is_some().then_some(may_ask_again);
        match self.come(place.id, answer, (made, made + told, until), asks_again).await {
            Ok(Ok(Came::Reply(Ok(ClientReply::Error(error))))) => {
                Err(NoAnswer::Error(error.into()))
            }
            Ok(Ok(Came::Reply(Ok(reply)))) => Ok(reply),
            Ok(Ok(Came::Shed)) => Err(NoAnswer::Error(shed().into())),
            Ok(Ok(Came::Doubt)) => {
                // The node is asked again, and must not stop.
                place.left = false;
                Err(NoAnswer::Lost { reason: "no replica tells that it holds the write".into() })
            }
            Ok(Ok(Came::Reply(Err(error)))) => {
                let what = format!("the answer of {} is not understood", self.address);
                let told = Told::new(what, error.to_string(), "compare the versions of both ends");
                Err(NoAnswer::Error(ClientError::Internal { told }))
            }
            Ok(Err(_)) => {
                let ended = self.shared.waiting().ended.clone();
                Err(NoAnswer::Lost { reason: ended.unwrap_or_else(|| "it broke".into()) })
            }
            Err(TooLate { answered_late }) => {
                self.shared.unwanted.fetch_add(u64::from(answered_late), Ordering::Relaxed);
                // The node knows by when it had to answer, and need not hear of it.
                place.left = false;
                Err(late())
            }
        }
    }

    /// What comes until the last of the three times. Replicas that are to tell of a write have a part of that time: a
    /// word of theirs may be lost without a trace, and then the coordinator has to be asked, before the second.
    async fn come(
        &self,
        id: u64,
        mut answer: oneshot::Receiver<(Came, Instant)>,
        (made, again, until): (Instant, Instant, Instant),
        asks_again: Option<&(dyn Fn(Instant) -> bool + Sync)>,
    ) -> Result<Heard, TooLate> {
        let Some(may) = asks_again else { return by(until, answer).await };
        let part = until.saturating_duration_since(made) / ACKS_PATIENCE;
        for parts in 1..ACKS_PATIENCE {
            match timeout_at(made + part * parts, &mut answer).await {
                Ok(came) => return in_time(until, came),
                Err(_) if Instant::now() >= again => break,
                Err(_) if may(made + part * (parts - 1)) => {
                    // Before its receiver is gone, for whom an answer could still be meant.
                    self.shared.supersede(id);
                    return Ok(Ok(Came::Doubt));
                }
                Err(_) => {}
            }
        }
        by(until, answer).await
    }

    fn take_place(
        &self,
        own: bool,
        direct: Option<(u64, Instant)>,
    ) -> Result<(Place<'_>, oneshot::Receiver<(Came, Instant)>), NoAnswer> {
        let mut waiting = self.shared.waiting();
        if waiting.ended.is_some() {
            return Err(NoAnswer::NotSent);
        }
        if waiting.askers.len() >= PENDING_MAX {
            let why = format!("{PENDING_MAX} of this client's own requests wait already");
            let told = Told::new("the request was shed", why, "await some of them first");
            let retry_after = PENDING_RETRY_AFTER;
            return Err(NoAnswer::Error(ClientError::Overloaded { retry_after, told }));
        }
        waiting.asked += 1;
        waiting.own += usize::from(own);
        let id = waiting.asked;
        let (sender, answer) = oneshot::channel();
        waiting.askers.insert(id, sender);
        drop(waiting);
        if let Some((n, again)) = direct {
            self.acks.expect(n, (self.shared.clone(), id), again);
        }
        let direct = direct.map(|(n, _)| n);
        Ok((Place { link: self, id, own, direct, left: false }, answer))
    }

    /// Waits until no connection of this socket has anything to say any more.
    pub(crate) async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }

    /// Says farewell.
    pub(crate) fn hang_up(&self) {
        self.connection.close(close::CLOSING.into(), b"the client is done");
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.hang_up();
    }
}

/// Whoever waits has given up; an answer may have been read before, though it could not look.
struct TooLate {
    /// An answer was read, after the deadline.
    answered_late: bool,
}

impl TooLate {
    fn with(until: Instant, came: Option<(Came, Instant)>) -> Self {
        Self {
            answered_late: came.is_some_and(|(c, at)| matches!(c, Came::Reply(_)) && at > until),
        }
    }
}

/// What came, or that the link is gone.
type Heard<T = Came> = Result<T, oneshot::error::RecvError>;

/// What comes until then; nothing if it is later when whoever waits for it can look, though it came.
async fn by(
    until: Instant,
    mut awaited: oneshot::Receiver<(Came, Instant)>,
) -> Result<Heard, TooLate> {
    match timeout_at(until, &mut awaited).await {
        Ok(came) => in_time(until, came),
        Err(_) => {
            // What comes from here on finds nobody.
            awaited.close();
            Err(TooLate::with(until, awaited.try_recv().ok()))
        }
    }
}

/// What came, if it is not too late to look at it.
fn in_time(until: Instant, came: Heard<(Came, Instant)>) -> Result<Heard, TooLate> {
    if Instant::now() > until {
        return Err(TooLate::with(until, came.ok()));
    }
    Ok(came.map(|(came, _)| came))
}

fn encoded(body: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_into(body, &mut bytes);
    bytes
}

/// A request waited for its way to the node for so long that it was not sent.
fn shed() -> ErrorReply {
    let retry_after_ms = u32::try_from(PENDING_RETRY_AFTER.as_millis()).unwrap_or(u32::MAX);
    ErrorReply {
        code: ErrorCode::Overloaded { retry_after_ms },
        what: "the request was not sent".to_owned(),
        why: "the node takes requests more slowly than they are made".to_owned(),
        fix: "ask less at a time, or wait and retry".to_owned(),
    }
}

/// The task that writes: whatever waits goes out as one.
async fn write_all(
    mut send: SendStream,
    mut frames: mpsc::Receiver<Outgoing>,
    shared: Arc<Answers>,
) {
    let began = Instant::now();
    let mut pieces =
        Pieces { began, told: None, shared, writer: FrameWriter::new(), batch: Vec::new() };
    while let Some(first) = frames.recv().await {
        pieces.append(first);
        while pieces.batch.len() < BATCH_BYTES
            && let Ok(more) = frames.try_recv()
        {
            pieces.append(more);
        }
        if let Err(error) = send.write_all(&pieces.batch).await {
            debug!(%error, "cannot write");
            // The reading side ends the link, and knows why.
            return;
        }
        pieces.clear();
    }
}

/// Frames that go out together, each a piece by itself.
struct Pieces {
    /// Our clock begins here.
    began: Instant,
    /// What the node last heard of it.
    told: Option<Instant>,
    shared: Arc<Answers>,
    writer: FrameWriter,
    batch: Vec<u8>,
}

impl Pieces {
    /// Puts a frame behind the others, with the time that it has now; unless that is too late.
    fn append(&mut self, next: Outgoing) {
        let now = Instant::now();
        let Outgoing { mut header, body, times } = next;
        if let Some(Times { answer, send }) = times {
            if send <= now {
                self.shared.tell(header.request_id, Came::Shed);
                return;
            }
            header = header.with_time_left(Some(answer.saturating_duration_since(now)));
        }
        if self.told.is_none_or(|told| now.duration_since(told) >= MOMENTS_APART) {
            self.told = Some(now);
            let since = now.duration_since(self.began).as_micros();
            let at_us = u64::try_from(since).unwrap_or(u64::MAX);
            let heard_us = self.shared.moment_us.load(Ordering::Relaxed);
            let moment = encoded(&Moment { at_us, heard_us });
            self.add(Header::new(Kind::MOMENT), &moment);
        }
        self.add(header, &body);
    }

    fn add(&mut self, header: Header, body: &[u8]) {
        self.writer.clear();
        self.writer.begin(header);
        self.writer.body().extend_from_slice(body);
        if let Err(error) = self.writer.finish() {
            // Its asker looked at its length; whoever waits hears of it by the deadline.
            return warn!(%error, "a frame cannot be sent");
        }
        let frame = self.writer.bytes();
        let length = u32::try_from(frame.len()).expect("a frame has at most 16 MiB");
        self.batch.extend_from_slice(&length.to_le_bytes());
        self.batch.extend_from_slice(frame);
    }

    /// They have gone out.
    fn clear(&mut self) {
        self.batch.clear();
        if self.batch.capacity() > wire::limits::SCRATCH_KEPT_MAX {
            self.batch = Vec::new();
            self.writer = FrameWriter::new();
        }
    }
}

/// Whom the task that reads tells what.
struct Hears {
    /// The node at the other end.
    node: NodeId,
    answers: Arc<Answers>,
    acks: Arc<Acks>,
    began: Instant,
}

impl Hears {
    /// The node holds these writes.
    fn held(&self, hlc: Hlc, mut body: &[u8]) -> Result<(), String> {
        while !body.is_empty() {
            let (ack, rest) = codec::decode_next::<Ack>(body).map_err(|e| e.to_string())?;
            self.acks.held(self.node, hlc, ack);
            body = rest;
        }
        Ok(())
    }
}

/// The task that reads, until the connection ends.
async fn read_all(mut recv: RecvStream, connection: Connection, hears: Hears) {
    let mut inbox = Inbox::default();
    let reason = loop {
        match recv.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => {
                let since = u64::try_from(hears.began.elapsed().as_micros()).unwrap_or(u64::MAX);
                hears.answers.heard_us.store(since, Ordering::Relaxed);
                inbox.bytes.extend_from_slice(&chunk.bytes);
                if let Err(reason) = inbox.deliver(&hears) {
                    connection.close(close::CONTENT.into(), reason.as_bytes());
                    break reason;
                }
            }
            Ok(None) => break "the node finished its stream".to_owned(),
            Err(quinn::ReadError::ConnectionLost(error)) => break how_it_ended(&error),
            Err(error) => break error.to_string(),
        }
    };
    debug!(reason, "link gone");
    hears.answers.end(reason);
    hears.acks.doubt();
}

/// What was read and is not delivered yet.
#[derive(Default)]
struct Inbox {
    bytes: Vec<u8>,
    decoder: FrameDecoder,
}

impl Inbox {
    /// Hands every whole piece over; an error ends the link.
    fn deliver(&mut self, hears: &Hears) -> Result<(), String> {
        let mut at = 0;
        while let Some((length, rest)) = self.bytes[at..].split_first_chunk::<LENGTH_BYTES>() {
            let length = u32::from_le_bytes(*length);
            if length > FRAME_BYTES_MAX {
                return Err(format!("{length} bytes were announced as one piece"));
            }
            let Some(piece) = rest.get(..length as usize) else { break };
            deliver_piece(&mut self.decoder, piece, hears)?;
            at += LENGTH_BYTES + piece.len();
        }
        self.bytes.drain(..at);
        if self.bytes.is_empty() && self.bytes.capacity() > wire::limits::SCRATCH_KEPT_MAX {
            self.bytes = Vec::new();
        }
        Ok(())
    }
}

fn deliver_piece(
    decoder: &mut FrameDecoder,
    mut piece: &[u8],
    hears: &Hears,
) -> Result<(), String> {
    let shared = &hears.answers;
    while !piece.is_empty() {
        let frame = decoder.decode(piece).map_err(|e| e.to_string())?;
        let frame = frame.ok_or("a piece ends inside a frame")?;
        shared.hear(frame.header.hlc);
        shared.epoch.fetch_max(frame.header.epoch, Ordering::Relaxed);
        match frame.header.kind {
            Kind::CLIENT_REPLY => {
                shared.answered(frame.header.request_id, codec::decode(frame.body));
            }
            Kind::ACKS => hears.held(frame.header.hlc, frame.body)?,
            Kind::MOMENT => {
                let said = codec::decode::<Moment>(frame.body).map_err(|e| e.to_string())?;
                shared.moment_us.store(said.at_us, Ordering::Relaxed);
            }
            other => warn!(kind = ?other, "a frame of an unknown kind is ignored"),
        }
        piece = &piece[frame.consumed..];
    }
    Ok(())
}
