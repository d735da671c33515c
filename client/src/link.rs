//! Link: one connection that many requests share.
//!
//! Promise: every request is answered once or learns that the link is gone; a request whose future
//! was dropped leaves nothing behind; a frame is written whole or not at all, since one task does
//! all the writing and no caller can be cancelled in the middle of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core::time::Duration;

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use ring::Hlc;
use rustls::pki_types::CertificateDer;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};
use wire::hello::{LENGTH_BYTES, close};
use wire::limits::FRAME_BYTES_MAX;
use wire::{
    ClientReply, ClientRequest, CodecError, FrameDecoder, FrameWriter, Header, Hello, Kind, codec,
};

use crate::dial::{Dialled, how_it_ended};
use crate::error::{ClientError, Told};
use crate::limits::{
    CLOSE_TIMEOUT, PENDING_MAX, PENDING_RETRY_AFTER, QUEUE_FRAMES_MAX, READ_BYTES,
};

/// How a request over a link came to no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The link was gone before the request left. Ask over another one.
    NotSent,
    /// The link ended while the answer was awaited.
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
    queue: mpsc::Sender<Vec<u8>>,
    shared: Arc<Shared>,
}

type Outcome = Result<ClientReply, CodecError>;

#[derive(Default)]
struct Shared {
    /// Who waits for which request; `None` once the link is gone.
    waiting: Mutex<Waiting>,
    /// The greatest clock heard, to be said with the next request: a node never mints below what
    /// its clients have seen.
    hlc: AtomicU64,
    /// The latest epoch that the node spoke of.
    epoch: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    askers: BTreeMap<u64, oneshot::Sender<Outcome>>,
    asked: u64,
    /// How many of those that wait are for the client's own use.
    own: usize,
    ended: Option<String>,
}

/// A request that waits; forgotten when it is dropped, and the node is told to forget it too.
struct Place<'a> {
    link: &'a Link,
    id: u64,
    /// It is for the client's own use.
    own: bool,
    /// It has left, so that the node works on it.
    left: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.link.shared.waiting();
        let unanswered = waiting.askers.remove(&self.id).is_some();
        waiting.own -= usize::from(self.own);
        drop(waiting);
        if unanswered && self.left {
            let header = Header::new(Kind::CLIENT_REQUEST);
            let cancel = ClientRequest::Cancel { request_id: self.id };
            // A full queue means that the node hears of much else: it finds out by the deadline.
            if let Ok(frame) = framed(header, &cancel) {
                drop(self.link.queue.try_send(frame));
            }
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, reason: String) {
        let mut waiting = self.waiting();
        waiting.ended.get_or_insert(reason);
        // Whoever waits learns of it by the loss of the sender.
        waiting.askers.clear();
    }

    fn answer(&self, id: u64, outcome: Outcome) {
        // Nobody there: the caller went away, and does not want to know.
        if let Some(asker) = self.waiting().askers.remove(&id) {
            drop(asker.send(outcome));
        }
    }
}

impl Link {
    /// Takes a connection over; to be called inside a runtime, which keeps its two tasks.
    pub(crate) fn open(dialled: Dialled) -> Self {
        let Dialled { address, endpoint, connection, send, recv, answer } = dialled;
        let shared = Arc::new(Shared::default());
        let (queue, frames) = mpsc::channel(QUEUE_FRAMES_MAX);
        tokio::spawn(write_all(send, frames));
        tokio::spawn(read_all(recv, connection.clone(), shared.clone()));
        Self { address, answer, connection, endpoint, queue, shared }
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
    /// `until`.
    pub(crate) async fn ask(
        &self,
        request: &ClientRequest<'_>,
        hlc: Hlc,
        told: Duration,
        until: Instant,
    ) -> Result<ClientReply, NoAnswer> {
        let own = matches!(request, ClientRequest::Layout);
        let (mut place, answer) = self.take_place(own)?;
        let header = Header { hlc, request_id: place.id, ..Header::new(Kind::CLIENT_REQUEST) };
        let frame = framed(header.with_time_left(Some(told)), request).map_err(NoAnswer::Error)?;
        let late = || NoAnswer::Error(ClientError::TimedOut { after: Duration::ZERO });
        match timeout_at(until, self.queue.send(frame)).await {
            Ok(Ok(())) => place.left = true,
            Ok(Err(_)) => return Err(NoAnswer::NotSent),
            Err(_) => return Err(late()),
        }
        match timeout_at(until, answer).await {
            Ok(Ok(Ok(ClientReply::Error(error)))) => Err(NoAnswer::Error(error.into())),
            Ok(Ok(Ok(reply))) => Ok(reply),
            Ok(Ok(Err(error))) => {
                let what = format!("the answer of {} is not understood", self.address);
                let told = Told::new(what, error.to_string(), "compare the versions of both ends");
                Err(NoAnswer::Error(ClientError::Internal { told }))
            }
            Ok(Err(_)) => {
                let ended = self.shared.waiting().ended.clone();
                Err(NoAnswer::Lost { reason: ended.unwrap_or_else(|| "it broke".into()) })
            }
            Err(_) => Err(late()),
        }
    }

    fn take_place(&self, own: bool) -> Result<(Place<'_>, oneshot::Receiver<Outcome>), NoAnswer> {
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
        let (asker, answer) = oneshot::channel();
        waiting.askers.insert(id, asker);
        Ok((Place { link: self, id, own, left: false }, answer))
    }

    /// Says farewell, and waits a moment until it was heard.
    pub(crate) async fn close(&self) {
        self.hang_up();
        // A node that does not hear it notices by itself.
        drop(timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await);
    }

    fn hang_up(&self) {
        self.connection.close(close::CLOSING.into(), b"the client is done");
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.hang_up();
    }
}

/// A request as it goes out: a piece of one frame.
fn framed(header: Header, request: &ClientRequest<'_>) -> Result<Vec<u8>, ClientError> {
    let mut writer = FrameWriter::new();
    writer.begin(header);
    codec::encode_into(request, writer.body());
    writer.finish().map_err(|error| {
        let told = Told::new("the request is too large", error.to_string(), "store smaller values");
        ClientError::Invalid { told }
    })?;
    let frame = writer.bytes();
    let length = u32::try_from(frame.len()).expect("a frame has at most 16 MiB");
    let mut piece = Vec::with_capacity(LENGTH_BYTES + frame.len());
    piece.extend_from_slice(&length.to_le_bytes());
    piece.extend_from_slice(frame);
    Ok(piece)
}

/// The task that writes: whatever waits goes out as one.
async fn write_all(mut send: SendStream, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(mut batch) = frames.recv().await {
        while batch.len() < READ_BYTES
            && let Ok(more) = frames.try_recv()
        {
            batch.extend_from_slice(&more);
        }
        if let Err(error) = send.write_all(&batch).await {
            debug!(%error, "cannot write");
            // The reading side ends the link, and knows why.
            return;
        }
    }
}

/// The task that reads, until the connection ends.
async fn read_all(mut recv: RecvStream, connection: Connection, shared: Arc<Shared>) {
    let mut inbox = Inbox::default();
    let reason = loop {
        match recv.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => {
                inbox.bytes.extend_from_slice(&chunk.bytes);
                if let Err(reason) = inbox.deliver(&shared) {
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
    shared.end(reason);
}

/// What was read and is not delivered yet.
#[derive(Default)]
struct Inbox {
    bytes: Vec<u8>,
    decoder: FrameDecoder,
}

impl Inbox {
    /// Hands every whole piece over; an error ends the link.
    fn deliver(&mut self, shared: &Shared) -> Result<(), String> {
        let mut at = 0;
        while let Some((length, rest)) = self.bytes[at..].split_first_chunk::<LENGTH_BYTES>() {
            let length = u32::from_le_bytes(*length);
            if length > FRAME_BYTES_MAX {
                return Err(format!("{length} bytes were announced as one piece"));
            }
            let Some(piece) = rest.get(..length as usize) else { break };
            deliver_piece(&mut self.decoder, piece, shared)?;
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
    shared: &Shared,
) -> Result<(), String> {
    while !piece.is_empty() {
        let frame = decoder.decode(piece).map_err(|e| e.to_string())?;
        let frame = frame.ok_or("a piece ends inside a frame")?;
        shared.hlc.fetch_max(frame.header.hlc.0, Ordering::Relaxed);
        shared.epoch.fetch_max(frame.header.epoch, Ordering::Relaxed);
        match frame.header.kind {
            Kind::CLIENT_REPLY => {
                shared.answer(frame.header.request_id, codec::decode(frame.body));
            }
            other => warn!(kind = ?other, "a frame of an unknown kind is ignored"),
        }
        piece = &piece[frame.consumed..];
    }
    Ok(())
}
