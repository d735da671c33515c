//! Merging: a choice that is being carried out, in parts that any threads may take.
//!
//! Promise: all parts become part of the store at once, or none of them does.

use crate::blob::blob_name;
use crate::compaction::around::{Around, Part};
use crate::compaction::choose::{Choice, Claim};
use crate::table::{TableBounds, table_name};
use crate::version::Version;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What was written and is not yet part of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// By key: their numbers and bounds.
    pub(crate) tables: Vec<(u64, TableBounds)>,
    /// Blob files: their numbers and bytes.
    pub(crate) blobs: Vec<(u64, u64)>,
    /// Those of its tables that stay above damage.
    pub(crate) above: BTreeSet<u64>,
}

impl Written {
    /// The names of its files.
    pub(crate) fn names(&self) -> Vec<String> {
        let tables = self.tables.iter().map(|(number, _)| table_name(*number));
        tables.chain(self.blobs.iter().map(|(number, _)| blob_name(*number))).collect()
    }

    /// What all of `parts` wrote, in their order.
    fn of_parts(parts: impl Iterator<Item = Self>) -> Self {
        parts.fold(Self::default(), |mut all, part| {
            all.tables.extend(part.tables);
            all.blobs.extend(part.blobs);
            all.above.extend(part.above);
            all
        })
    }
}

/// What all parts of a merging look at.
pub(crate) struct Plan {
    pub(crate) number: u64,
    pub(crate) choice: Choice,
    /// The version in which it was chosen.
    pub(crate) version: Arc<Version>,
    pub(crate) parts: Vec<Part>,
    /// What of its tables is damaged and stays.
    pub(crate) around: Around,
    /// Keys at which its tables are cut.
    pub(crate) cuts: Vec<Vec<u8>>,
    /// Blob files that its tables shall not point into any more.
    pub(crate) leave: BTreeSet<u64>,
}

/// How far it is.
pub(crate) struct Merging {
    pub(crate) plan: Arc<Plan>,
    pub(crate) claim: Claim,
    /// Parts that nobody has.
    waiting: Vec<usize>,
    /// Parts that somebody has.
    out: usize,
    done: Vec<Option<Written>>,
    failed: bool,
}

/// What is left to do after a part has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Others go on.
    Nothing,
    /// All parts are there: install them.
    Install(Written),
    /// It has failed: these are of no use.
    Discard(Written),
}

impl Merging {
    pub(crate) fn new(plan: Plan) -> Self {
        let count = plan.parts.len();
        Self {
            claim: plan.choice.claim(),
            plan: Arc::new(plan),
            // The first is handed out first.
            waiting: (0..count).rev().collect(),
            out: 0,
            done: vec![None; count],
            failed: false,
        }
    }

    /// A part that nobody has.
    pub(crate) fn take(&mut self) -> Option<usize> {
        let part = self.waiting.pop()?;
        self.out += 1;
        Some(part)
    }

    /// A part was given back untouched.
    pub(crate) fn put_back(&mut self, part: usize) -> Next {
        if self.failed {
            return self.failed();
        }
        self.out -= 1;
        self.waiting.push(part);
        Next::Nothing
    }

    /// A part is written.
    pub(crate) fn finished(&mut self, part: usize, written: Written) -> Next {
        self.done[part] = Some(written);
        if self.failed {
            return self.failed();
        }
        self.out -= 1;
        if self.out > 0 || !self.waiting.is_empty() {
            return Next::Nothing;
        }
        Next::Install(Written::of_parts(self.done.iter_mut().filter_map(Option::take)))
    }

    /// A part could not be written: the others are finished for nothing, and nobody starts more.
    pub(crate) fn failed(&mut self) -> Next {
        self.failed = true;
        self.waiting.clear();
        self.out -= 1;
        if self.out > 0 {
            return Next::Nothing;
        }
        Next::Discard(Written::of_parts(self.done.iter_mut().filter_map(Option::take)))
    }

    /// True when nobody has begun, so that it may as well be chosen anew.
    pub(crate) fn is_untouched(&self) -> bool {
        self.out == 0 && self.done.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compaction::choose::{Reason, Work};
    use crate::key::KeyRange;

    fn merging(parts: usize) -> Merging {
        let choice = Choice {
            reason: Reason::Size,
            work: Work::Merge,
            upper_level: 1,
            level: 2,
            upper: Vec::new(),
            lower: Vec::new(),
        };
        let version = Arc::new(Version::new(Vec::new(), Vec::new()));
        let parts = vec![Part::of_all(KeyRange { lower: Vec::new(), upper: None }); parts];
        let (around, cuts, leave) = Default::default();
        Merging::new(Plan { number: 1, choice, version, parts, around, cuts, leave })
    }

    fn written(numbers: &[u64]) -> Written {
        let tables = numbers.iter().map(|n| (*n, TableBounds::default())).collect();
        // A blob file for each table, so that these are seen to go with them.
        let blobs = numbers.iter().map(|n| (n + 100, 1)).collect();
        Written { tables, blobs, ..Written::default() }
    }

    #[test]
    fn parts_are_installed_together_in_the_order_of_keys() {
        let mut merging = merging(3);
        let parts: Vec<usize> = std::iter::from_fn(|| merging.take()).collect();
        assert_eq!(parts, [0, 1, 2]);
        assert_eq!(merging.finished(2, written(&[7])), Next::Nothing);
        assert_eq!(merging.put_back(0), Next::Nothing);
        assert_eq!(merging.finished(1, written(&[8, 9])), Next::Nothing);
        assert_eq!(merging.take(), Some(0));
        assert_eq!(merging.finished(0, written(&[])), Next::Install(written(&[8, 9, 7])));
    }

    #[test]
    fn one_part_that_fails_undoes_all_once_the_last_one_has_ended() {
        let mut merging = merging(4);
        for part in 0..3 {
            assert_eq!(merging.take(), Some(part));
        }
        assert_eq!(merging.finished(0, written(&[5])), Next::Nothing);
        assert_eq!(merging.failed(), Next::Nothing);
        assert_eq!(merging.take(), None, "nobody starts what is lost");
        assert_eq!(merging.finished(2, written(&[6])), Next::Discard(written(&[5, 6])));
    }
}
