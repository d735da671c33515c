//! Scan: the rows of a shard in order, as one reader sees them.
//!
//! Most rows are one change in one table: those are lent as they stand, without a copy, unless they
//! stand elsewhere. The others are resolved as a point read would. Rows under a range deletion are not walked one by one.

use crate::error::Error;
use crate::fold::Merge;
use crate::key::Kind;
use crate::merge::{Direction, Found, Merged};
use crate::shelf::{Resolved, Shelf};
use crate::tombstones::{RangeTombstones, Stretch};
use crate::value::{Bytes, Outcome, Resolver, Value};
use std::ops::ControlFlow;

/// Hidden rows in a row after which the scan jumps to where the deletion ends.
const HIDDEN_BEFORE_SKIP: u32 = 4;

/// Rows of a key range, forward or backward. Use [`Scan::next_row`] to borrow rows, or it as an
/// iterator to own them. After an error it ends.
pub struct Scan<'a> {
    rows: Merged<'a>,
    covers: Covers<'a>,
    pub(crate) merge: &'a dyn Merge,
    shelf: &'a Shelf,
    bound: u64,
    /// The row lent last stands at the head of `rows`: go past it first.
    lent: bool,
    /// Rows in a row that a range deletion hid.
    hidden: u32,
    key: Vec<u8>,
    found: Vec<Found<'a>>,
    stored: Option<Bytes<'a>>,
    folded: Vec<u8>,
    ended: bool,
}

/// Where a row is that is to be shown.
enum Shown {
    /// At the head of the merged sources.
    Head,
    Stored,
    Folded,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(
        rows: Merged<'a>,
        tombstones: Vec<&'a RangeTombstones>,
        direction: Direction,
        merge: &'a dyn Merge,
        shelf: &'a Shelf,
        bound: u64,
    ) -> Self {
        Self {
            rows,
            covers: Covers::new(tombstones, direction, bound),
            merge,
            shelf,
            bound,
            lent: false,
            hidden: 0,
            key: Vec::new(),
            found: Vec::new(),
            stored: None,
            folded: Vec::new(),
            ended: false,
        }
    }

    /// The next row that has a value. The row is lent until the next call.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Io`] when the rows at hand cannot be read.
    pub fn next_row(&mut self) -> Result<Option<(&[u8], Value<'_>)>, Error> {
        if self.ended {
            return Ok(None);
        }
        let shown = self.find();
        self.ended = !matches!(shown, Ok(Some(_)));
        let row = match shown? {
            None => None,
            Some(Shown::Head) => self.rows.head().zip(self.rows.only().map(|(_, value)| value)),
            Some(Shown::Stored) => {
                Some((&self.key[..], self.stored.as_ref().map_or(&[][..], Bytes::bytes)))
            }
            Some(Shown::Folded) => Some((&self.key[..], &self.folded[..])),
        };
        Ok(row.map(|(key, value)| (key, Value(Bytes::Borrowed(value)))))
    }

    /// Calls `visit` with row after row until it breaks off or there are no more; a later call goes
    /// on behind. Costs less a row than [`Scan::next_row`].
    ///
    /// # Errors
    /// As [`Scan::next_row`].
    pub fn for_each_row(
        &mut self,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        while !self.ended {
            if self.covers.is_empty() {
                let ran = self.run(&mut visit);
                self.ended = ran.is_err();
                if ran? {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if let Some((key, value)) = self.next_row()?
                && visit(key, &value).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Shows `visit` the rows of which there is nothing to decide; true when it broke off.
    fn run(
        &mut self,
        visit: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<bool, Error> {
        if std::mem::take(&mut self.lent) {
            self.rows.advance()?;
        }
        self.lent = self.rows.run(self.bound, visit)?;
        Ok(self.lent)
    }

    fn find(&mut self) -> Result<Option<Shown>, Error> {
        if std::mem::take(&mut self.lent) {
            self.rows.advance()?;
        }
        while let Some(key) = self.rows.head() {
            let cover = self.covers.over(key);
            if let Some((tag, value)) = self.rows.only() {
                let past = tag.sequence() <= self.bound;
                let covered = tag.sequence() < cover;
                match tag.kind() {
                    _ if covered || !past => {
                        self.rows.advance()?;
                        self.pass_covered(covered)?;
                        continue;
                    }
                    Some(Kind::Put) => {
                        let resolved = if self.rows.is_plain() {
                            Resolved::AsItIs
                        } else {
                            self.shelf.resolve(value, key)?
                        };
                        self.hidden = 0;
                        let value = match resolved {
                            Resolved::AsItIs => {
                                self.lent = true;
                                return Ok(Some(Shown::Head));
                            }
                            Resolved::Value(value) => Some(value),
                            Resolved::Absent => None,
                        };
                        self.key.clear();
                        self.key.extend_from_slice(key);
                        self.rows.advance()?;
                        if let Some(value) = value {
                            self.stored = Some(Bytes::Owned(value));
                            return Ok(Some(Shown::Stored));
                        }
                        continue;
                    }
                    Some(Kind::Delete) => {
                        self.rows.advance()?;
                        continue;
                    }
                    Some(Kind::Merge) | None => {}
                }
            }
            self.rows.next(&mut self.key, &mut self.found)?;
            let mut resolver = Resolver::new(self.bound);
            resolver.cover(cover);
            let covered = self.found.first().is_some_and(|(tag, _)| tag.sequence() < cover);
            for (tag, value) in self.found.drain(..) {
                if !resolver.see(tag, || value) {
                    break;
                }
            }
            match resolver.outcome(&self.key, self.merge, self.shelf, &mut self.folded)? {
                Outcome::Nothing => self.pass_covered(covered)?,
                Outcome::Stored(bytes) => {
                    self.stored = Some(bytes);
                    self.hidden = 0;
                    return Ok(Some(Shown::Stored));
                }
                Outcome::Folded => {
                    self.hidden = 0;
                    return Ok(Some(Shown::Folded));
                }
            }
        }
        Ok(None)
    }

    /// A row was hidden, by a range deletion if `covered`: after some of these jumps to the end.
    fn pass_covered(&mut self, covered: bool) -> Result<(), Error> {
        self.hidden = if covered { self.hidden + 1 } else { 0 };
        if self.hidden >= HIDDEN_BEFORE_SKIP {
            self.hidden = 0;
            let (bound, cover) = self.covers.whole();
            self.rows.skip_covered(bound, cover)?;
        }
        Ok(())
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_row() {
            Ok(None) => None,
            Ok(Some((key, value))) => Some(Ok((key.to_vec(), value.into_vec()))),
            Err(e) => Some(Err(e)),
        }
    }
}

/// Which range deletion lies over the key at hand, asked anew only where one begins or ends.
struct Covers<'a> {
    sets: Vec<(&'a RangeTombstones, Stretch<'a>)>,
    direction: Direction,
    reader: u64,
    cover: u64,
    /// Forward: keys below it have this cover. Backward: keys from it on. None: all to the end.
    edge: Option<&'a [u8]>,
    asked: bool,
}

impl<'a> Covers<'a> {
    fn new(tombstones: Vec<&'a RangeTombstones>, direction: Direction, reader: u64) -> Self {
        let sets: Vec<_> = tombstones.into_iter().map(|t| (t, Stretch::default())).collect();
        let asked = sets.is_empty();
        Self { sets, direction, reader, cover: 0, edge: None, asked }
    }

    /// True when there is no range deletion at all.
    fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// The greatest sequence that deletes `key` for this reader; keys in the scan's order.
    fn over(&mut self, key: &[u8]) -> u64 {
        let inside = self.asked
            && match self.direction {
                Direction::Forward => self.edge.is_none_or(|edge| key < edge),
                Direction::Backward => self.edge.is_none_or(|edge| key >= edge),
            };
        if !inside {
            self.ask(key);
        }
        self.cover
    }

    fn ask(&mut self, key: &[u8]) {
        let first = !std::mem::replace(&mut self.asked, true);
        (self.cover, self.edge) = (0, None);
        for (set, stretch) in &mut self.sets {
            let left = match self.direction {
                Direction::Forward => stretch.end.is_some_and(|end| key >= end),
                Direction::Backward => stretch.start.is_some_and(|start| key < start),
            };
            if first || left {
                *stretch = set.stretch(key, self.reader);
            }
            self.cover = self.cover.max(stretch.cover);
            self.edge = match self.direction {
                Direction::Forward => match (self.edge, stretch.end) {
                    (Some(edge), Some(end)) => Some(edge.min(end)),
                    (edge, end) => edge.or(end),
                },
                Direction::Backward => match (self.edge, stretch.start) {
                    (Some(edge), Some(start)) => Some(edge.max(start)),
                    (edge, start) => edge.or(start),
                },
            };
        }
    }

    /// Up to where rows older than that cover are hidden: as [`Merged::skip_covered`] takes it.
    fn whole(&self) -> (Option<&'a [u8]>, u64) {
        let covering = self.sets.iter().filter(|(_, stretch)| stretch.cover == self.cover);
        let ends = covering.map(|(_, stretch)| match self.direction {
            Direction::Forward => stretch.end,
            Direction::Backward => stretch.start,
        });
        // The piece of the newest deletion goes on where an older one begins or ends.
        let reach = match self.direction {
            Direction::Forward => ends.flatten().max(),
            Direction::Backward => ends.flatten().min(),
        };
        (reach.or(self.edge), self.cover)
    }
}
