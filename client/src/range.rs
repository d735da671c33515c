//! Range: the sort keys of one partition key in their order, page by page, and their removal.
//!
//! Promise: a page is asked for when the program wants its first row, and no more than one page is
//! held; each row is read as a get of its key would read it. A row that stands there during the whole
//! reading is in it once; of what is written meanwhile, some is and some is not.

use core::future::{Future, IntoFuture};
use core::pin::Pin;
use std::collections::VecDeque;

use bytes::Bytes;
use wire::reply::PageRow;
use wire::{ClientReply, ClientRequest};

use crate::causal::{Context, Read};
use crate::client::{Asking, Client};
use crate::error::ClientError;
use crate::key::Key;
use crate::limits::PAGE_ROWS;
use crate::request::Answer;
use crate::span::HalfOpen;
use crate::terms::{Terms, terms};

/// A reading of a range, made by [`Client::range`]. Its first page is asked for when it is awaited.
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct Range {
    rest: Rest,
    reverse: bool,
    page: u32,
    limit: u64,
    terms: Terms,
}

/// What is left to be read or removed.
#[derive(Clone, Debug)]
struct Rest {
    client: Client,
    partition: Bytes,
    bounds: HalfOpen,
}

impl Rest {
    fn new(client: &Client, partition: &[u8], bounds: HalfOpen) -> Self {
        Self { client: client.clone(), partition: Bytes::copy_from_slice(partition), bounds }
    }

    /// A key of the partition, by which requests are routed.
    fn key(&self) -> Result<Bytes, ClientError> {
        Key::sorted(&self.partition, []).checked()
    }
}

impl Range {
    pub(crate) fn new(client: &Client, partition: &[u8], bounds: HalfOpen) -> Self {
        let terms = Terms::new(client.patience().request);
        let rest = Rest::new(client, partition, bounds);
        Self { rest, reverse: false, page: PAGE_ROWS, limit: u64::MAX, terms }
    }

    /// From the greatest sort key to the least.
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// How many rows to ask for at once, at least one. A node may send fewer: it looks at no more
    /// than a MiB for one page.
    pub fn page(mut self, rows: u32) -> Self {
        self.page = rows.max(1);
        self
    }

    /// Ends after so many rows.
    pub fn limit(mut self, rows: u64) -> Self {
        self.limit = rows;
        self
    }
}

// The time is that of each page.
terms!(Range: consistency, timeout);

impl IntoFuture for Range {
    type Output = Result<Rows, ClientError>;
    type IntoFuture = Answer<Rows>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let mut rows = Rows { range: self, page: VecDeque::new(), ended: false };
            rows.fetch().await?;
            Ok(rows)
        })
    }
}

/// A sort key and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    sort: Bytes,
    read: Read,
}

impl Row {
    /// The sort key.
    #[must_use]
    pub const fn sort_key(&self) -> &Bytes {
        &self.sort
    }

    /// Its values: several if they were written concurrently.
    #[must_use]
    pub fn values(&self) -> &[Bytes] {
        self.read.values()
    }

    /// What was seen: hand it to the write that replaces these values.
    #[must_use]
    pub fn context(&self) -> Context {
        self.read.context()
    }

    /// The parts, to be kept.
    #[must_use]
    pub fn into_parts(self) -> (Bytes, Read) {
        (self.sort, self.read)
    }
}

impl From<PageRow> for Row {
    fn from(row: PageRow) -> Self {
        let PageRow { sort, values, context } = row;
        Self { sort, read: Read { values, context: Context(context) } }
    }
}

/// The rows of a range as they are read.
#[derive(Debug)]
pub struct Rows {
    range: Range,
    page: VecDeque<Row>,
    ended: bool,
}

impl Rows {
    /// The next row; none behind the last one. Asks for the next page when one is used up.
    ///
    /// # Errors
    /// [`ClientError`]. Nothing is lost by it: the next call goes on at the same place.
    pub async fn next(&mut self) -> Result<Option<Row>, ClientError> {
        while self.page.is_empty() && !self.ended && self.range.limit > 0 {
            self.fetch().await?;
        }
        let row = self.page.pop_front().filter(|_| self.range.limit > 0);
        self.range.limit -= u64::from(row.is_some());
        Ok(row)
    }

    /// All rows that are left. They are all held in memory: use it where they are known to be few.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rest(&mut self) -> Result<Vec<Row>, ClientError> {
        let mut rows = Vec::new();
        while let Some(row) = self.next().await? {
            rows.push(row);
        }
        Ok(rows)
    }

    async fn fetch(&mut self) -> Result<(), ClientError> {
        let Range { rest, reverse, page, limit, terms } = &self.range;
        let request = ClientRequest::Range {
            partition: &rest.partition,
            from: rest.bounds.0.as_deref(),
            to: rest.bounds.1.as_deref(),
            reverse: *reverse,
            rows: u32::try_from(*limit).unwrap_or(u32::MAX).clamp(1, *page),
            level: terms.level,
        };
        let asking = Asking::harmless(terms.timeout);
        match rest.client.ask_for(&rest.key()?, asking, &request).await? {
            ClientReply::Page { rows, next } => {
                self.page.extend(rows.into_iter().map(Row::from));
                self.ended = next.is_none();
                let bounds = &mut self.range.rest.bounds;
                *(if self.range.reverse { &mut bounds.1 } else { &mut bounds.0 }) = next;
                Ok(())
            }
            other => Err(Client::misfit(&other)),
        }
    }
}

/// A removal of a range, made by [`Client::delete_range`].
///
/// Removed is what a quorum of replicas knew of each row when its page was dealt with; a write that
/// they had not seen survives. A page is removed as a whole or not at all, the range page by page: after an error,
/// some of it may be gone, and doing it again does no harm.
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct DeleteRange {
    rest: Rest,
    terms: Terms,
}

impl DeleteRange {
    pub(crate) fn new(client: &Client, partition: &[u8], bounds: HalfOpen) -> Self {
        let terms = Terms::new(client.patience().request);
        Self { rest: Rest::new(client, partition, bounds), terms }
    }
}

// The time is that of each page.
terms!(DeleteRange: consistency, durability, timeout);

impl IntoFuture for DeleteRange {
    /// How many sort keys had a value.
    type Output = Result<u64, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { mut rest, terms } = self;
            let (key, mut sum) = (rest.key()?, 0);
            loop {
                // Each page is a request with a name of its own.
                let request = |name| ClientRequest::DeleteRange {
                    partition: &rest.partition,
                    from: rest.bounds.0.as_deref(),
                    to: rest.bounds.1.as_deref(),
                    rows: PAGE_ROWS,
                    level: terms.level,
                    durability: terms.durability,
                    name: Some(name),
                };
                match rest.client.ask_write(&key, &terms, request).await? {
                    ClientReply::Deleted { count, next } => {
                        sum += count;
                        if next.is_none() {
                            return Ok(sum);
                        }
                        rest.bounds.0 = next;
                    }
                    other => return Err(Client::misfit(&other)),
                }
            }
        })
    }
}
