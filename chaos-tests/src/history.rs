//! History: what clients asked and what they heard.

use std::rc::Rc;

use bytes::Bytes;
use replication::op::Span;
use replication::row::Row;
use ring::Slot;

/// What a client wanted, as far as the checks care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Writes a value that names this request; SET, or something that reads first.
    Write,
    /// A plain SET.
    Set,
    /// Reads the winning value.
    Get,
    /// Reads every concurrent value.
    Siblings,
    /// Deletes.
    Delete,
    /// Deletes and returns.
    GetDelete,
    /// Replaces what a context saw.
    WithContext,
    /// A plain SET where siblings are kept.
    Beside,
    /// Replaces what a context saw where siblings are kept: the values of these requests.
    Resolve(Rc<[u64]>),
    /// Adds to a counter that is never reset.
    Add(i64),
    /// Adds thousandths to a counter that is never reset.
    AddThousandths(i64),
    /// Writes eight bytes that name this request at an offset, or behind the value: SETRANGE, APPEND.
    Cell(Option<u64>),
    /// Sets both keys of a pair in one transaction.
    Pair,
    /// Reads several keys at once.
    GetMany,
    /// Reads a counter that is never reset.
    Sum,
    /// Anything on a counter that is reset.
    Resettable,
    /// A transaction: two writes and an increment.
    Multi(i64),
    /// A step of a client with a key of its own that expires.
    Expiring(Step),
    /// A part of a scan.
    Scan,
    /// Reads a page of a range of sort keys.
    Range(Span),
    /// Deletes what a page of such a range shows.
    DeleteRange(Span),
    /// How many keys there are.
    Count,
    /// Deletes a slot's keys.
    Flush(Slot),
    /// A stable key is created.
    Settle,
    /// A probe after everything is mended.
    Probe,
}

/// What is done to a key that expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// SET without a deadline.
    Set,
    /// SET with this deadline (true wall time, in milliseconds).
    SetUntil(u64),
    /// SET for so many milliseconds by the clock of the node.
    SetFor(u64),
    /// EXPIRE at this deadline.
    Expire(u64),
    /// PEXPIRE in so many milliseconds by the clock of the node.
    ExpireFor(u64),
    /// GETEX PERSIST.
    GetPersist,
    /// GETEX with this deadline.
    GetUntil(u64),
    /// PERSIST.
    Persist,
    /// GET.
    Get,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is under way.
    Open,
    /// It was done.
    Done,
    /// It had no effect, and the client was told so.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who asked.
    pub client: usize,
    /// Which node.
    pub node: usize,
    /// What.
    pub ask: Ask,
    /// The keys.
    pub rows: Vec<Row>,
    /// When, in true nanoseconds.
    pub at: u64,
    /// Earlier requests on the same keys and the same connection: they take effect first.
    pub after: Vec<u64>,
    /// Requests whose effects its token covers, in order: those that its session has seen.
    pub knows: Rc<[u64]>,
    /// How many copies a read asks.
    pub read: u8,
    /// How many copies a write waits for.
    pub write: u8,
    /// How it ended.
    pub end: End,
    /// When.
    pub ended: u64,
}

/// All requests, by number.
#[derive(Debug, Default)]
pub struct History {
    asked: Vec<Asked>,
    /// How many were done.
    pub done: u64,
    /// How many failed without effect.
    pub failed: u64,
    /// How many ended in doubt.
    pub unknown: u64,
}

impl Asked {
    /// Whether its session has seen what that request did.
    #[must_use]
    pub fn has_seen(&self, op: u64) -> bool {
        self.knows.binary_search(&op).is_ok()
    }
}

impl History {
    /// The number of the next request.
    #[must_use]
    pub const fn next_op(&self) -> u64 {
        self.asked.len() as u64
    }

    /// A request begins.
    pub fn begin(&mut self, asked: Asked) -> u64 {
        self.asked.push(asked);
        self.next_op() - 1
    }

    /// A request ends. False if it had ended before.
    pub fn end(&mut self, op: u64, now: u64, end: End) -> bool {
        let asked = &mut self.asked[op as usize];
        if asked.end != End::Open {
            return false;
        }
        asked.end = end;
        asked.ended = now;
        match end {
            End::Open => {}
            End::Done => self.done += 1,
            End::Failed => self.failed += 1,
            End::Unknown => self.unknown += 1,
        }
        true
    }

    /// A request.
    #[must_use]
    pub fn get(&self, op: u64) -> &Asked {
        &self.asked[op as usize]
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Asked] {
        &self.asked
    }
}

/// The value that a request writes: unique, and naming the request.
#[must_use]
pub fn value_of(op: u64) -> Bytes {
    Bytes::from(format!("={op}"))
}

/// How many bytes a cell has: what one SETRANGE or APPEND writes.
pub const CELL_BYTES: usize = 8;

/// The cell that a request writes: unique, and naming the request.
#[must_use]
pub fn cell_of(op: u64) -> Bytes {
    Bytes::from(format!("#{op:06x};"))
}

/// The request that wrote a cell; `None` if no request writes such bytes.
#[must_use]
pub fn op_of_cell(cell: &[u8]) -> Option<u64> {
    let [b'#', hex @ .., b';'] = cell else { return None };
    let text = core::str::from_utf8(hex).ok().filter(|_| cell.len() == CELL_BYTES)?;
    u64::from_str_radix(text, 16).ok()
}
