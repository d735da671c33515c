//! Speakers: clients that speak RESP on one connection at a time, in pipelines, and move to another
//! node when theirs is gone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use replication::row::Row;
use ring::Level;
use wire::resp::ReplyDecoder;

use super::client::OwnKey;

/// What a reply must look like, and so what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// OK.
    Done,
    /// OK, or null if the condition did not hold; `absent`: the condition was that there is nothing.
    SetIf {
        /// SET NX.
        absent: bool,
    },
    /// The value before, or null.
    Previous,
    /// A value or null.
    Value,
    /// A list of values and nulls.
    Values,
    /// 1 or 0.
    Flag,
    /// 1 if the value was set because there was none.
    SetFlag,
    /// How many of the keys were deleted.
    Deleted,
    /// A counter's new value.
    Number,
    /// A counter's new value, as a decimal.
    Decimal,
    /// A length.
    Length,
    /// A value and a context.
    WithContext,
    /// All values and a context.
    Siblings,
    /// A context.
    Context,
}

/// What a speaker waits for.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// Anything that is no error.
    Ok,
    /// That a command was taken into a transaction.
    Queued,
    /// This text.
    Exactly(Bytes),
    /// The outcome of a request.
    Request(u64, Form),
    /// The end of a transaction: of each command its request and form, and since when which keys were
    /// watched.
    Exec(Vec<(u64, Form)>, Vec<(Row, u64)>),
    /// That no key is watched any more.
    Unwatched,
    /// That keys are watched.
    Watched(u64, Vec<Row>),
    /// A page of a scan.
    Page(u64),
    /// All keys of a tag that were there for good.
    Keys(u64, u64),
    /// How many keys there are.
    Size(u64),
    /// How many other replicas hold this request's write.
    Acks(u64, u64),
    /// That every key of the keyspace is gone.
    Flushed(u64),
}

impl Wanted {
    /// The requests whose end the reply tells.
    #[must_use]
    pub fn ops(&self) -> Vec<u64> {
        match self {
            Self::Ok | Self::Queued | Self::Unwatched | Self::Exactly(_) => Vec::new(),
            Self::Request(op, _)
            | Self::Watched(op, _)
            | Self::Page(op)
            | Self::Keys(op, _)
            | Self::Size(op)
            | Self::Acks(op, _)
            | Self::Flushed(op) => vec![*op],
            Self::Exec(parts, _) => {
                let mut ops: Vec<u64> = parts.iter().map(|(op, _)| *op).collect();
                ops.dedup();
                ops
            }
        }
    }
}

/// A connection, as its client sees it.
#[derive(Debug)]
pub struct Line {
    /// Its number in the world.
    pub number: u64,
    /// Which process of the node it goes to.
    pub life: u64,
    /// What reads ask.
    pub read: Level,
    /// What writes wait for.
    pub write: Level,
    /// It said so itself.
    pub explicit: bool,
    /// What its replies are read with.
    pub decoder: ReplyDecoder,
    /// The beginning of a reply.
    pub input: Vec<u8>,
    /// What is still to be answered, in order.
    pub waiting: VecDeque<Wanted>,
    /// When the last byte sent arrives.
    pub sent_until: u64,
    /// When the last byte said to it arrives.
    pub heard_until: u64,
    /// How many replies it has heard.
    pub heard: u64,
    /// Requests of the pipeline under way, by key.
    pub under_way: BTreeMap<Row, Vec<u64>>,
    /// Something was refused of late: another node may do better.
    pub refused: bool,
    /// Keys watched, and since when.
    pub watching: Vec<(Row, u64)>,
}

/// A walk over all keys, cursor by cursor, through whichever nodes.
#[derive(Clone, Debug)]
pub struct Walk {
    /// When it began.
    pub since: u64,
    /// Where to go on.
    pub cursor: Bytes,
    /// Every page met the writes.
    pub strong: bool,
    /// What was found.
    pub found: BTreeSet<Bytes>,
}

/// A client that speaks RESP.
#[derive(Debug, Default)]
pub struct Speaker {
    /// The node that it speaks to, or dials.
    pub node: usize,
    /// The connection, if there is one.
    pub line: Option<Line>,
    /// The last value that it set on each key: request, node and process.
    pub last_set: BTreeMap<Row, (u64, usize, u64)>,
    /// Contexts that it has read.
    pub contexts: BTreeMap<Row, Bytes>,
    /// Its own key, which expires.
    pub own: OwnKey,
    /// Its scan.
    pub walk: Option<Walk>,
    /// How many keys of the large slot it has settled.
    pub settled: u64,
}
