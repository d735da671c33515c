//! Lanes: frames in, frames out, each a u32 length (little-endian) and that many bytes.
//!
//! Out: an [`Outbox`] gathers the frames of a turn; a flush writes them to the stream as one piece,
//! in the caller's own turn, and only what the windows refuse waits for the connection's task. It
//! is bounded: a peer that does not read costs `limit` bytes, and then sends are refused.
//!
//! In: an [`Inbox`] hands over all complete frames of a read at once, borrowed. A length beyond
//! the limit is found before a byte of that frame is buffered.

use core::cell::{Cell, RefCell};
use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use quinn::{SendStream, WriteError};
use ring::NodeId;

use super::limits::{
    BUFFER_KEPT_BYTES_MAX, CLIENT_READ_BYTES, FRAME_BYTES_MAX, LENGTH_BYTES, READ_BYTES,
};

/// A class of traffic with its own stream, so that large transfers never delay small frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Requests, answers, heartbeats. Goes first.
    Fast,
    /// Transfers of state. Goes when nothing of the fast lane waits.
    Bulk,
}

/// Why a frame was not taken. Nothing of it was or will be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No such peer in the layout.
    UnknownPeer {
        /// The number that was given.
        to: NodeId,
    },
    /// No connection at the moment; it is being dialled.
    NotConnected,
    /// The peer reads too slowly: so much waits already. Shed load or try after some replies.
    Full {
        /// Bytes that wait.
        queued: usize,
    },
    /// The frame is larger than any may be.
    TooLarge {
        /// Its length.
        bytes: usize,
    },
}

/// A length beyond the largest frame: the stream is useless from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Oversized {
    /// The length that was announced.
    pub(super) announced: usize,
}

/// The frames that wait to be sent on one stream.
pub(super) struct Outbox {
    pending: RefCell<Pending>,
    /// Whether it stands in the mesh's list of what to flush.
    pub(super) listed: Cell<bool>,
    limit: usize,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// So much of `bytes` has been given to the stream.
    written: usize,
    stream: Option<SendStream>,
    /// The connection's task, which goes on when the windows open again.
    task: Option<Waker>,
    /// The windows are closed; only the task may try again.
    blocked: bool,
}

impl Outbox {
    pub(super) fn new(limit: usize) -> Self {
        Self { pending: RefCell::default(), listed: Cell::new(false), limit }
    }

    pub(super) fn open(&self, stream: SendStream) {
        let mut pending = self.pending.borrow_mut();
        assert!(pending.bytes.is_empty(), "an outbox opens with {} bytes", pending.bytes.len());
        *pending = Pending { stream: Some(stream), ..Pending::default() };
    }

    /// Forgets what was not written, and says how much that was.
    pub(super) fn close(&self) -> usize {
        core::mem::take(&mut *self.pending.borrow_mut()).queued()
    }

    pub(super) fn queued(&self) -> usize {
        self.pending.borrow().queued()
    }

    /// Appends the frame that `write` appends to the buffer.
    pub(super) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), SendError> {
        let pending = &mut *self.pending.borrow_mut();
        if pending.stream.is_none() {
            return Err(SendError::NotConnected);
        }
        let queued = pending.queued();
        if queued >= self.limit {
            return Err(SendError::Full { queued });
        }
        let start = pending.bytes.len();
        let body = start + LENGTH_BYTES;
        pending.bytes.resize(body, 0);
        write(&mut pending.bytes);
        let length = pending.bytes.len().checked_sub(body);
        let length = length.expect("a frame is appended; what stands before it is left alone");
        // An empty outbox takes every frame, so that no limit makes a lawful frame unsendable.
        let refused = match u32::try_from(length) {
            Ok(announced) if length <= FRAME_BYTES_MAX => {
                let prefix = &mut pending.bytes[start..body];
                prefix.copy_from_slice(&announced.to_le_bytes());
                let full = queued > 0 && queued + LENGTH_BYTES + length > self.limit;
                full.then_some(SendError::Full { queued })
            }
            _ => Some(SendError::TooLarge { bytes: length }),
        };
        match refused {
            None => Ok(()),
            Some(error) => {
                pending.bytes.truncate(start);
                Err(error)
            }
        }
    }

    /// Writes what waits, as far as the windows allow, in the caller's turn.
    pub(super) fn flush(&self) {
        let pending = &mut *self.pending.borrow_mut();
        // Without a task yet, the task is about to look by itself.
        if let (Some(task), false) = (pending.task.clone(), pending.blocked) {
            // A fault is for the connection's task, which hears of it by itself.
            let _ = pending.write(&mut Context::from_waker(&task));
        }
    }

    /// For the connection's task: goes on writing for ever; ready when the stream is broken.
    pub(super) fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<WriteError> {
        let pending = &mut *self.pending.borrow_mut();
        if !pending.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            pending.task = Some(cx.waker().clone());
        }
        match pending.write(cx) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    }
}

impl Pending {
    fn queued(&self) -> usize {
        self.bytes.len() - self.written
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), WriteError> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        self.blocked = false;
        while self.written < self.bytes.len() {
            match Pin::new(&mut *stream).poll_write(cx, &self.bytes[self.written..]) {
                Poll::Ready(written) => self.written += written?,
                Poll::Pending => {
                    self.blocked = true;
                    self.compact();
                    return Ok(());
                }
            }
        }
        self.bytes.clear();
        self.written = 0;
        if self.bytes.capacity() > BUFFER_KEPT_BYTES_MAX {
            self.bytes.shrink_to(READ_BYTES);
        }
        Ok(())
    }

    /// Moves the rest to the front once it is the smaller part, so that each byte moves once.
    fn compact(&mut self) {
        if self.written > self.queued() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}

/// All complete frames of one read, in order.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
}

impl Frames<'_> {
    /// Whether no frame is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.bytes.split_first_chunk::<LENGTH_BYTES>()?;
        let (frame, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        self.bytes = rest;
        Some(frame)
    }
}

/// What was read of one stream and is not handled yet.
pub(super) struct Inbox {
    /// All of it initialised; `start..end` was read.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; READ_BYTES], start: 0, end: 0 }
    }

    /// One that takes less at a time.
    pub(super) fn of_client() -> Self {
        Self { bytes: vec![0; CLIENT_READ_BYTES], start: 0, end: 0 }
    }

    /// Room for the next read; never empty.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == 0 && self.bytes.len() > BUFFER_KEPT_BYTES_MAX {
            self.bytes.truncate(READ_BYTES);
            self.bytes.shrink_to_fit();
        }
        if self.end == self.bytes.len() {
            // Only an incomplete frame fills the buffer. It grows with what has arrived, not with
            // what was announced.
            let doubled = (2 * self.end).min(FRAME_BYTES_MAX + LENGTH_BYTES);
            assert!(doubled > self.end, "a frame beyond the limit was buffered");
            self.bytes.resize(doubled, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// `count` bytes were read into the room; yields the frames that are now complete.
    pub(super) fn read(&mut self, count: usize) -> Result<Frames<'_>, Oversized> {
        self.end += count;
        let unread = &self.bytes[self.start..self.end];
        let whole = whole_frames(unread)?;
        self.start += whole;
        Ok(Frames { bytes: &unread[..whole] })
    }
}

/// How many bytes at the front of `bytes` are whole frames.
fn whole_frames(bytes: &[u8]) -> Result<usize, Oversized> {
    let mut at = 0;
    while let Some((length, rest)) = bytes[at..].split_first_chunk::<LENGTH_BYTES>() {
        let announced = u32::from_le_bytes(*length) as usize;
        if announced > FRAME_BYTES_MAX {
            return Err(Oversized { announced });
        }
        if rest.len() < announced {
            break;
        }
        at += LENGTH_BYTES + announced;
    }
    Ok(at)
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPeer { to } => write!(f, "{to} is not in the layout"),
            Self::NotConnected => f.write_str("not connected"),
            Self::Full { queued } => write!(f, "{queued} bytes wait already"),
            Self::TooLarge { bytes } => {
                write!(f, "a frame of {bytes} bytes; the largest has {FRAME_BYTES_MAX}")
            }
        }
    }
}

impl std::error::Error for SendError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(frames: &[&[u8]]) -> Vec<u8> {
        let length = |frame: &[u8]| u32::try_from(frame.len()).unwrap_or(u32::MAX).to_le_bytes();
        frames.iter().flat_map(|frame| [&length(frame)[..], *frame].concat()).collect()
    }

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let large = vec![7; 3 * READ_BYTES];
        let frames: [&[u8]; 5] = [b"one", b"", b"three", &large, b"five"];
        let stream = framed(&frames);
        for cut in [1, 2, 3, 5, 7, 4_096, 300_000, usize::MAX] {
            let (mut inbox, mut seen, mut rest) = (Inbox::new(), Vec::new(), &stream[..]);
            while !rest.is_empty() {
                let room = inbox.room();
                let count = rest.len().min(cut).min(room.len());
                room[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                let frames = inbox.read(count).expect("all lengths are lawful");
                seen.extend(frames.map(<[u8]>::to_vec));
            }
            assert_eq!(seen, frames, "cut into {cut}");
        }
    }

    #[test]
    fn an_oversized_length_is_found_before_its_frame_is_buffered() {
        let mut inbox = Inbox::new();
        let announced = u32::try_from(FRAME_BYTES_MAX + 1).expect("the limit fits");
        inbox.room()[..4].copy_from_slice(&announced.to_le_bytes());
        let error = inbox.read(4).expect_err("it is beyond the limit");
        assert_eq!(error, Oversized { announced: FRAME_BYTES_MAX + 1 });
        assert_eq!(inbox.bytes.len(), READ_BYTES);
    }

    #[test]
    fn an_outbox_without_a_stream_takes_nothing() {
        let outbox = Outbox::new(100);
        assert_eq!(outbox.append(|buf| buf.push(1)), Err(SendError::NotConnected));
        assert_eq!(outbox.queued(), 0);
    }
}
