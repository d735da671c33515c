//! Range: the sort keys of one partition key in their order, page by page, and their removal.
//!
//! Promise: a page is asked for when the program wants its first row, and no more than one page is
//! held; each row is read as a get of its key would read it. A row that stands there during the whole
//! reading is in it once; of what is written meanwhile, some is and some is not.

use core::fmt;
use core::future::{Future, IntoFuture, poll_fn};
use core::pin::Pin;
use core::task::{Context as Waking, Poll, ready};
use std::collections::VecDeque;

use bytes::Bytes;
use futures_core::Stream;
use wire::reply::PageRow;
use wire::{ClientReply, ClientRequest};

use crate::causal::{Context, Read};
use crate::client::{Asking, Client};
use crate::error::ClientError;
use crate::key::Key;
use crate::limits::PAGE_ROWS;
use crate::request::Answer;
use crate::session::Before;
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
terms!(Range: consistency, timeout, session);

impl IntoFuture for Range {
    type Output = Result<Rows, ClientError>;
    type IntoFuture = Answer<Rows>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let mut rows =
                Rows { range: self, page: VecDeque::new(), ended: false, fetching: None };
            poll_fn(|cx| rows.poll_page(cx)).await?;
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

/// A page, and where the next one begins.
type Page = (Vec<Row>, Option<Bytes>);

/// The rows of a range as they are read; also a [`Stream`] of them. A page is asked for when the one
/// before is used up.
pub struct Rows {
    range: Range,
    page: VecDeque<Row>,
    ended: bool,
    /// The page that is on its way: it comes even if whoever waited for it stopped waiting.
    fetching: Option<Answer<Page>>,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { range, page, ended, .. } = self;
        f.debug_struct("Rows")
            .field("range", range)
            .field("page", page)
            .field("ended", ended)
            .finish()
    }
}

impl Rows {
    /// The next row; none behind the last one. Asks for the next page when one is used up.
    ///
    /// # Errors
    /// [`ClientError`]. Nothing is lost by it: the next call goes on at the same place.
    pub async fn next(&mut self) -> Result<Option<Row>, ClientError> {
        poll_fn(|cx| self.poll_row(cx)).await
    }

    fn poll_row(&mut self, cx: &mut Waking<'_>) -> Poll<Result<Option<Row>, ClientError>> {
        while self.page.is_empty() && !self.ended && self.range.limit > 0 {
            ready!(self.poll_page(cx))?;
        }
        let row = self.page.pop_front().filter(|_| self.range.limit > 0);
        self.range.limit -= u64::from(row.is_some());
        Poll::Ready(Ok(row))
    }

    fn poll_page(&mut self, cx: &mut Waking<'_>) -> Poll<Result<(), ClientError>> {
        let range = &self.range;
        let fetching = self.fetching.get_or_insert_with(|| Box::pin(range.clone().fetch()));
        let fetched = ready!(fetching.as_mut().poll(cx));
        self.fetching = None;
        let (rows, next) = fetched?;
        self.page.extend(rows);
        self.ended = next.is_none();
        let bounds = &mut self.range.rest.bounds;
        *(if self.range.reverse { &mut bounds.1 } else { &mut bounds.0 }) = next;
        Poll::Ready(Ok(()))
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
}

impl Stream for Rows {
    type Item = Result<Row, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Waking<'_>) -> Poll<Option<Self::Item>> {
        self.poll_row(cx).map(Result::transpose)
    }
}

impl Range {
    /// Asks for the next page.
    async fn fetch(self) -> Result<Page, ClientError> {
        let Self { rest, reverse, page, limit, terms } = self;
        let key = rest.key()?;
        let before = Before::new(terms.session, &key);
        let request = ClientRequest::Range {
            partition: &rest.partition,
            from: rest.bounds.0.as_deref(),
            to: rest.bounds.1.as_deref(),
            reverse,
            rows: u32::try_from(limit).unwrap_or(u32::MAX).clamp(1, page),
            level: terms.level,
            after: before.seen(),
        };
        let asking = Asking::harmless(terms.timeout);
        match rest.client.ask_for(&key, asking, &request).await? {
            ClientReply::Page { rows, next, context } => {
                before.learn(&context);
                Ok((rows.into_iter().map(Row::from).collect(), next))
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
terms!(DeleteRange: consistency, durability, timeout, session);

impl IntoFuture for DeleteRange {
    /// How many sort keys had a value.
    type Output = Result<u64, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { mut rest, mut terms } = self;
            terms.paged = true;
            let (key, mut sum) = (rest.key()?, 0);
            loop {
                let before = Before::new(terms.session.clone(), &key);
                // Each page is a request with a name of its own.
                let request = |name| ClientRequest::DeleteRange {
                    partition: &rest.partition,
                    from: rest.bounds.0.as_deref(),
                    to: rest.bounds.1.as_deref(),
                    rows: PAGE_ROWS,
                    level: terms.level,
                    durability: terms.durability,
                    after: before.seen(),
                    name: Some(name),
                };
                match rest.client.ask_write(&key, &terms, request).await? {
                    ClientReply::Deleted { count, next, context } => {
                        before.learn(&context);
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
