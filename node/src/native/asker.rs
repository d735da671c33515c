//! Asker: a native client that waits for an answer, and the reply that it gets.
//!
//! A request over several slots is several tasks; they share one [`Many`], and whoever comes last
//! sends the reply. Every reply carries the clock of whoever answered and the layout's epoch.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use replication::Answer;
use replication::op::Outcome;
use replication::row::{self, Row};
use ring::Hlc;
use tracing::debug;
use wire::reply::{Held, PageRow};
use wire::{ClientReply, ErrorCode, ErrorReply, FrameWriter, Header, Kind, codec};

use super::explain::{explain, invalid, refused};
use crate::mesh::ClientConn;
use crate::shared::Shared;

/// A native client that waits for an answer.
pub struct NativeAsker {
    pub(super) client: ClientConn,
    pub(super) request_id: u64,
    pub(super) reply: Kind,
    pub(super) wants: Wants,
}

/// What the reply is made of.
pub(super) enum Wants {
    /// Nothing but that it is done, and what is seen now; or the number that it came to.
    Done,
    /// Every concurrent value.
    Value,
    /// What this replica holds.
    Share,
    /// The rows of this partition key, or how many there were.
    Page { partition: Bytes },
    /// The values of these places among many keys.
    Part { many: Rc<RefCell<Many>>, places: Vec<usize> },
}

/// The values of many keys, as they come in.
pub(super) struct Many {
    pub(super) held: Vec<Option<Held>>,
    pub(super) parts_left: usize,
    pub(super) hlc: Hlc,
}

impl std::fmt::Debug for NativeAsker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NativeAsker({})", self.request_id)
    }
}

impl NativeAsker {
    /// Whether it is of that connection, and that request if one is named.
    #[must_use]
    pub fn is_of(&self, connection: u64, request_id: Option<u64>) -> bool {
        self.client.id() == connection && request_id.is_none_or(|id| self.request_id == id)
    }

    /// Answers with what the machine said, whose clock was at `hlc`.
    pub fn answer(&self, shared: &Shared, answer: Answer, hlc: Hlc) {
        if let Wants::Part { many, places } = &self.wants {
            return self.answer_part(shared, many, places, answer, hlc);
        }
        let reply = match answer {
            Answer::Done { outcomes, .. } => reply_to(outcomes, matches!(self.wants, Wants::Value)),
            // The replicas have said so.
            Answer::Confirmed => return,
            Answer::Page { rows, next, seen } => ClientReply::Page {
                rows: rows.into_iter().filter_map(|row| self.page_row(row)).collect(),
                next: self.sort_key(&next),
                context: seen,
            },
            Answer::Deleted { count, next, seen } => {
                ClientReply::Deleted { count, next: self.sort_key(&next), context: seen }
            }
            Answer::Failed(error) => ClientReply::Error(explain(shared, error)),
            Answer::Share { digest, outcome } => {
                ClientReply::Share { digest: (digest.0, digest.1), held: outcome.and_then(held) }
            }
            Answer::Keys { .. } | Answer::Count(_) | Answer::Acks(_) => {
                invalid("the request has no such answer")
            }
        };
        self.send(shared, &reply, hlc);
    }

    fn page_row(&self, found: replication::op::PageRow) -> Option<PageRow> {
        let values = found.values.into_iter().map(|s| s.value).collect();
        Some(PageRow { sort: self.sort_key(&found.row)?, values, context: found.context })
    }

    /// The sort key of a row of the partition key asked about; none of an empty row.
    fn sort_key(&self, row: &Row) -> Option<Bytes> {
        let Wants::Page { partition } = &self.wants else { return None };
        row::sort_key_of(row, partition).map(Bytes::from)
    }

    fn answer_part(
        &self,
        shared: &Shared,
        many: &RefCell<Many>,
        places: &[usize],
        answer: Answer,
        hlc: Hlc,
    ) {
        let mut many = many.borrow_mut();
        let mut fill = |place: usize, held: Held| {
            if let Some(room) = many.held.get_mut(place) {
                *room = Some(held);
            }
        };
        match answer {
            Answer::Done { outcomes, .. } => {
                let seen = outcomes.iter().find_map(|outcome| match outcome {
                    Outcome::Seen(seen) => Some(seen.clone()),
                    _ => None,
                });
                for (place, outcome) in places.iter().zip(outcomes) {
                    if let Outcome::Siblings { values, context } = outcome {
                        let values = values.into_iter().map(|s| s.value).collect();
                        let context = seen.clone().unwrap_or(context);
                        fill(*place, Held::Value { values, context });
                    }
                }
            }
            Answer::Failed(error) => {
                let error = explain(shared, error);
                places.iter().for_each(|place| fill(*place, Held::Error(error.clone())));
            }
            Answer::Keys { .. }
            | Answer::Count(_)
            | Answer::Page { .. }
            | Answer::Deleted { .. }
            | Answer::Acks(_)
            | Answer::Confirmed
            | Answer::Share { .. } => {}
        }
        many.hlc = many.hlc.max(hlc);
        many.parts_left -= 1;
        if many.parts_left == 0 {
            let unknown = || Held::Error(no_answer());
            let held = std::mem::take(&mut many.held);
            let keys = held.into_iter().map(|held| held.unwrap_or_else(unknown)).collect();
            self.send(shared, &ClientReply::Values { keys }, many.hlc);
        }
    }

    /// Sends a reply as it is; the clock is that of whoever gave it.
    pub fn send(&self, shared: &Shared, reply: &ClientReply, hlc: Hlc) {
        let mut writer = FrameWriter::new();
        let header = Header::new(self.reply);
        let epoch = shared.layout().epoch.0;
        writer.begin(Header { request_id: self.request_id, epoch, hlc, ..header });
        codec::encode_into(reply, writer.body());
        let sent = writer.finish().map_err(|e| e.to_string()).and_then(|()| {
            let append = |buffer: &mut Vec<u8>| buffer.extend_from_slice(writer.bytes());
            self.client.reply(append).map_err(|e| e.to_string())
        });
        if let Err(why) = sent {
            debug!(why, "a native client cannot be answered");
        }
    }
}

/// What the reply to a task is made of: values if they are wanted, a number if there is one.
pub fn reply_to(outcomes: Vec<Outcome>, values_wanted: bool) -> ClientReply {
    let (mut values, mut number, mut seen) = (Vec::new(), None, Bytes::new());
    for outcome in outcomes {
        match outcome {
            Outcome::Siblings { values: found, context } => (values, seen) = (found, context),
            Outcome::Seen(context) => seen = context,
            Outcome::Integer(value) => number = Some(value),
            Outcome::Failed(why) => return refused(why),
            _ => {}
        }
    }
    match number {
        _ if values_wanted => {
            let values = values.into_iter().map(|s| s.value).collect();
            ClientReply::Value { values, context: seen }
        }
        Some(value) => ClientReply::Number { value, context: seen },
        None => ClientReply::Done { context: seen },
    }
}

/// What a replica holds of a key.
fn held(outcome: Outcome) -> Option<Held> {
    let Outcome::Siblings { values, context } = outcome else { return None };
    let values = values.into_iter().map(|s| s.value).collect();
    Some(Held::Value { values, context })
}

/// A key for which no answer came, though its part was answered.
fn no_answer() -> ErrorReply {
    ErrorReply {
        code: ErrorCode::Internal,
        what: "the key was not read".to_owned(),
        why: "the replica answered another question".to_owned(),
        fix: "compare the versions of the nodes".to_owned(),
    }
}
