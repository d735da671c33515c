//! The compaction filter: the layer above says what may go, since only it knows what is obsolete.
//!
//! A filter is asked about the value that a key has now, when a flush or a compaction passes it and
//! no snapshot reads it that was there before. (A snapshot that is taken while the job runs may see
//! the value first and the answer's consequence later.) Whatever it answers, no older value of the key comes back: a dropped value
//! leaves a deletion behind as long as something older may exist below.

/// What a filter is asked about.
pub struct FilterRow<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value, with all merges folded that are known here. A large one is read for this from
    /// where it stands.
    pub value: &'a [u8],
    /// Sequence of the newest change in it.
    pub sequence: u64,
    pub(crate) newer: &'a dyn Fn(&[u8]) -> bool,
}

impl FilterRow<'_> {
    /// Whether a newer change of the key may be in a table that this flush or compaction does not
    /// read. What is still in memtables is not looked at: see [`crate::Engine::flushed_upto`].
    #[must_use]
    pub fn may_have_newer(&self) -> bool {
        (self.newer)(self.key)
    }
}

/// A filter's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The value stays.
    Keep,
    /// The key has no value any more.
    Drop,
    /// The key has the value that the filter wrote to `out`.
    Change,
}

/// Decides what becomes of values. One job asks one filter from its beginning to its end; to let the
/// next jobs decide by newer state (a watermark, say) give the engine a new one with
/// [`crate::Engine::set_filter`], or share atomics with it.
///
/// The answer may be given any number of times, or never: what must be gone for readers has to be
/// deleted.
pub trait Filter: Send + Sync {
    /// What becomes of `row`. `out` is empty.
    fn decide(&self, row: &FilterRow<'_>, out: &mut Vec<u8>) -> Verdict;
}
