//! Scan: the rows of a shard in order, as one reader sees them.

use crate::error::Error;
use crate::fold::Merge;
use crate::merge::{Found, Merged};
use crate::shelf::Shelf;
use crate::tombstones::RangeTombstones;
use crate::value::{Resolver, Value};

/// Rows of a key range, forward or backward. Use [`Scan::next_row`] to borrow rows, or it as an
/// iterator to own them. After an error it ends.
pub struct Scan<'a> {
    pub(crate) rows: Merged<'a>,
    pub(crate) tombstones: Vec<&'a RangeTombstones>,
    pub(crate) merge: &'a dyn Merge,
    pub(crate) shelf: &'a Shelf,
    pub(crate) bound: u64,
    pub(crate) key: Vec<u8>,
    pub(crate) found: Vec<Found<'a>>,
    pub(crate) failed: bool,
}

impl<'a> Scan<'a> {
    /// The next row that has a value.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Io`] when the rows at hand cannot be read.
    pub fn next_row(&mut self) -> Result<Option<(&[u8], Value<'a>)>, Error> {
        while !self.failed {
            match self.step() {
                Ok(Some(Some(value))) => return Ok(Some((&self.key, value))),
                Ok(Some(None)) => {}
                Ok(None) => self.failed = true,
                Err(e) => {
                    self.failed = true;
                    return Err(e);
                }
            }
        }
        Ok(None)
    }

    /// One key: none at the end, some none when it has no value.
    #[allow(clippy::option_option, reason = "the end and a hidden row are two things")]
    fn step(&mut self) -> Result<Option<Option<Value<'a>>>, Error> {
        if !self.rows.next(&mut self.key, &mut self.found)? {
            return Ok(None);
        }
        let mut resolver = Resolver::new(self.bound);
        for tombstones in &self.tombstones {
            resolver.cover(tombstones.covering(&self.key, self.bound));
        }
        for (tag, value) in self.found.drain(..) {
            if !resolver.see(tag, || value) {
                break;
            }
        }
        resolver.finish(&self.key, self.merge, self.shelf).map(Some)
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
