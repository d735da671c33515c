//! Peers: messages between nodes as frames, and back.
//!
//! One frame a peer, lane and turn; its body is messages one behind the other. The clock in its
//! header is read when it is sealed, so it is no lower than any stamp in it. What cannot be decoded
//! is dropped with a word in the log: its sender will ask again.

use std::collections::BTreeMap;
use std::time::Duration;

use replication::Message;
use replication::limits::ACK_DELAY;
use ring::liveness::NodeState;
use ring::{Hlc, Incarnation, Instant, NodeId};
use serde::{Deserialize, Serialize};
use tracing::warn;
use wire::moment::Moment;
use wire::{FrameWriter, Header, Kind, codec};

use crate::limits::PEER_FRAME_BYTES;
use crate::mesh::Lane;

/// "Send me your layout": an empty body.
pub const LAYOUT_WANTED: Kind = Kind(16);

/// A layout.
pub const LAYOUT: Kind = Kind(17);

/// What a node has heard of the terms of keyspaces: a [`ring::exchange::Note`].
pub const KEYSPACES: Kind = Kind(18);

/// "Do you hold a key of this keyspace?": a [`VacancyWanted`].
pub const VACANCY_WANTED: Kind = Kind(19);

/// The answer: a [`VacancyTold`].
pub const VACANCY: Kind = Kind(20);

/// A question about some slots of a keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VacancyWanted {
    /// Its number.
    #[serde(rename = "q")]
    pub question: u64,
    /// The keyspace.
    #[serde(rename = "k")]
    pub keyspace: u16,
    /// The first of the slots.
    #[serde(rename = "s")]
    pub slot: u16,
}

/// What a node has found in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VacancyTold {
    /// The number of the question.
    #[serde(rename = "q")]
    pub question: u64,
    /// The keyspace.
    #[serde(rename = "k")]
    pub keyspace: u16,
    /// What was found.
    #[serde(rename = "e")]
    pub found: wire::operate::Emptiness,
}

/// What a node says of itself four times a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Its life.
    #[serde(rename = "i")]
    pub incarnation: Incarnation,
    /// How far it is.
    #[serde(rename = "s", default)]
    pub state: NodeState,
    /// Counts its connections to the receiver: a new one means that messages may have been lost.
    #[serde(rename = "l", default)]
    pub link: u64,
    /// The fingerprint of its layout.
    #[serde(rename = "h", default)]
    pub layout_hash: u64,
    /// The fingerprint of what was set of keyspaces; 0 from a node that knows nothing of such.
    #[serde(rename = "k", default)]
    pub keyspaces: u64,
}

/// What goes to every peer when the turn ends.
#[derive(Default)]
pub struct Sends {
    peers: BTreeMap<NodeId, Outgoing>,
    /// Peers in `peers` with something in it.
    waiting: Vec<NodeId>,
    /// What may wait for something else that goes there, and until when.
    later: BTreeMap<NodeId, Later>,
    writer: FrameWriter,
}

/// What may wait.
struct Later {
    until: Instant,
    messages: Vec<Message>,
}

#[derive(Default)]
struct Outgoing {
    fast: Vec<Message>,
    bulk: Vec<Message>,
}

impl Sends {
    /// Adds a message to what goes to `to`.
    pub fn push(&mut self, to: NodeId, message: Message) {
        let peer = self.peers.entry(to).or_default();
        if peer.fast.is_empty() && peer.bulk.is_empty() {
            self.waiting.push(to);
        }
        let lane = if message.is_bulk() { &mut peer.bulk } else { &mut peer.fast };
        lane.push(message);
    }

    /// Adds a small message that leaves with the next other one to `to`, and after [`ACK_DELAY`] at the latest.
    pub fn push_later(&mut self, to: NodeId, message: Message, now: Instant) {
        let until = now + ACK_DELAY;
        let later = self.later.entry(to);
        later.or_insert_with(|| Later { until, messages: Vec::new() }).messages.push(message);
    }

    /// When [`Sends::hurry`] is due; none if nothing waits for company.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.later.values().map(|later| later.until).min()
    }

    /// What has waited long enough leaves with this turn; true if there is any.
    pub fn hurry(&mut self, now: Instant) -> bool {
        let due = |later: &Later| later.until <= now;
        let due: Vec<NodeId> =
            self.later.iter().filter(|(_, later)| due(later)).map(|(to, _)| *to).collect();
        for to in &due {
            // It takes the others along.
            let first = self.later.get_mut(to).and_then(|later| later.messages.pop());
            first.into_iter().for_each(|message| self.push(*to, message));
        }
        !due.is_empty()
    }

    /// True if nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Seals all that waits into frames and calls `f` with each, ready to be sent. Where it matters how long a message is
    /// under way, `now` goes before it, the time by which the machine made it.
    pub fn seal(
        &mut self,
        (epoch, hlc): (u64, Hlc),
        now: Instant,
        mut f: impl FnMut(NodeId, Lane, &[u8]),
    ) {
        let writer = &mut self.writer;
        for to in self.waiting.drain(..) {
            let Some(peer) = self.peers.get_mut(&to) else { continue };
            if let Some(later) = self.later.remove(&to) {
                peer.fast.extend(later.messages);
            }
            for (lane, messages) in [(Lane::Fast, &mut peer.fast), (Lane::Bulk, &mut peer.bulk)] {
                let left = time_left(messages);
                let header = Header { epoch, hlc, ..Header::new(Kind::PEER_MESSAGES) };
                if messages.iter().any(is_timed) {
                    say_moment(writer, Moment { at_us: now.0 / 1_000, heard_us: 0 });
                }
                let mut rest = messages.drain(..).peekable();
                while rest.peek().is_some() {
                    writer.begin(header.with_time_left(left));
                    while writer.body_len() < PEER_FRAME_BYTES
                        && let Some(message) = rest.next()
                    {
                        codec::encode_into(&message, writer.body());
                    }
                    match writer.finish() {
                        Ok(()) => f(to, lane, writer.bytes()),
                        Err(e) => warn!(%to, error = %e, "a message is too large to be sent"),
                    }
                    writer.clear();
                }
            }
        }
    }
}

/// Whether the receiver is to know when a message was made.
const fn is_timed(message: &Message) -> bool {
    matches!(message, Message::Replicate { direct: Some(_), .. })
}

/// Says when the frames behind it were made.
pub fn say_moment(writer: &mut FrameWriter, moment: Moment) {
    let mut body = Vec::new();
    codec::encode_into(&moment, &mut body);
    if let Err(e) = writer.frame(Header::new(Kind::MOMENT), &body) {
        warn!(error = %e, "a moment cannot be told");
    }
}

/// How long the most patient of the askers waits; `None` if somebody waits for ever.
fn time_left(messages: &[Message]) -> Option<Duration> {
    let left = |m: &Message| match m {
        Message::Forward { remaining_us, .. } => Some(*remaining_us),
        _ => None,
    };
    let most = messages.iter().map(left).try_fold(0, |most, one| Some(one?.max(most)))?;
    Some(Duration::from_micros(most))
}

/// The messages in a body, in order; stops at the first that is not understood.
pub fn messages(from: NodeId, body: &[u8]) -> impl Iterator<Item = Message> + '_ {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match codec::decode_next::<Message>(rest) {
            Ok((message, after)) => {
                rest = after;
                Some(message)
            }
            Err(e) => {
                warn!(%from, error = %e, bytes = rest.len(), "messages of a peer are not understood");
                None
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use replication::message::{Direct, Refusal};
    use ring::Slot;
    use wire::FrameDecoder;

    use super::*;

    fn refused(token: u64) -> Message {
        Message::Refused { token, slot: Slot(7), why: Refusal::NotMine, epoch: 1 }
    }

    #[test]
    fn messages_of_a_turn_share_a_frame_and_come_back_in_order() {
        let mut sends = Sends::default();
        for token in 0..5 {
            sends.push(NodeId(2), refused(token));
        }
        sends.push(NodeId(3), refused(9));
        let mut frames = Vec::new();
        sends.seal((4, Hlc(77)), Instant(7_000), |to, lane, bytes| {
            frames.push((to, lane, bytes.to_vec()));
        });
        assert!(sends.is_empty());
        assert_eq!(frames.len(), 2);
        let mut decoder = FrameDecoder::new();
        let frame = decoder.decode(&frames[0].2).expect("sound").expect("whole");
        assert_eq!((frame.header.epoch, frame.header.hlc), (4, Hlc(77)));
        assert_eq!(frame.consumed, frames[0].2.len());
        let back: Vec<_> = messages(NodeId(1), frame.body).collect();
        assert_eq!(back, (0..5).map(refused).collect::<Vec<_>>());
    }

    #[test]
    fn what_may_wait_goes_along_or_alone_when_it_is_due() {
        let mut sends = Sends::default();
        let (start, mut tokens) = (Instant(5), Vec::new());
        let mut seal = |sends: &mut Sends| {
            tokens.clear();
            sends.seal((1, Hlc(1)), Instant(7_000), |to, _, bytes| {
                let mut decoder = FrameDecoder::new();
                let frame = decoder.decode(bytes).expect("sound").expect("whole");
                tokens.extend(messages(to, frame.body).map(|m| match m {
                    Message::Refused { token, .. } => (to.0, token),
                    other => panic!("{other:?}"),
                }));
            });
            tokens.clone()
        };
        sends.push_later(NodeId(2), refused(1), start);
        sends.push_later(NodeId(3), refused(2), start + Duration::from_millis(1));
        assert!(sends.is_empty() && !sends.hurry(start));
        assert_eq!(seal(&mut sends), []);
        sends.push(NodeId(3), refused(3));
        assert_eq!(seal(&mut sends), [(3, 3), (3, 2)]);
        sends.push_later(NodeId(2), refused(4), start + Duration::from_millis(1));
        assert_eq!(sends.next_due(), Some(start + ACK_DELAY), "the first one's time counts");
        assert!(sends.hurry(start + ACK_DELAY));
        assert_eq!(seal(&mut sends), [(2, 4), (2, 1)]);
        assert_eq!(sends.next_due(), None);
    }

    #[test]
    fn a_write_that_its_receiver_is_to_tell_of_says_when_it_was_made() {
        let direct = |direct| {
            let deltas = replication::RawDeltas::default();
            Message::Replicate { token: 1, part: 0, deltas, sync: false, direct }
        };
        let told = Direct { needed: 1, prompt: true, left_us: 9, outcomes: Vec::new() };
        let mut sends = Sends::default();
        sends.push(NodeId(2), direct(None));
        sends.push(NodeId(3), direct(Some(Box::new(told))));
        let mut kinds = Vec::new();
        sends.seal((4, Hlc(77)), Instant(7_000), |to, _, mut bytes| {
            let mut decoder = FrameDecoder::new();
            while let Some(frame) = decoder.decode(bytes).expect("sound") {
                if frame.header.kind == Kind::MOMENT {
                    let said: Moment = codec::decode(frame.body).expect("a moment");
                    assert_eq!(said, Moment { at_us: 7, heard_us: 0 });
                }
                kinds.push((to.0, frame.header.kind));
                bytes = &bytes[frame.consumed..];
            }
        });
        let messages = Kind::PEER_MESSAGES;
        assert_eq!(kinds, [(2, messages), (3, Kind::MOMENT), (3, messages)]);
    }

    #[test]
    fn what_is_not_understood_ends_the_sequence() {
        let mut body = Vec::new();
        codec::encode_into(&refused(1), &mut body);
        body.extend_from_slice(b"\xc1garbage");
        assert_eq!(messages(NodeId(1), &body).count(), 1);
    }
}
