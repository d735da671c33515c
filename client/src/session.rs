//! Session: what a program has seen, so that it reads what it wrote and nothing older than what it has
//! read, at ONE as well.
//!
//! For each slot it holds what nodes have said to have seen. It goes with every request of the session
//! about a key of that slot: a replica that lacks some of it fetches that from the others before it answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ring::Slot;

/// What was seen, made by [`Session::new`]; clones share it. Hand it to each request that belongs to
/// it, of any client of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Session {
    seen: Arc<Mutex<BTreeMap<Slot, Vec<Bytes>>>>,
}

/// The bytes of a session cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotASession;

impl core::fmt::Display for NotASession {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("these bytes are no session\n  why: they end early, or name a slot that there is not\n  fix: pass on what Session::to_bytes gave")
    }
}

impl std::error::Error for NotASession {}

impl Session {
    /// A session that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As bytes, to go on with in another process: some dozens for each slot that was spoken of.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (slot, seen) in self.lock().iter() {
            for one in seen {
                let length = u32::try_from(one.len()).unwrap_or(u32::MAX);
                out.extend_from_slice(&slot.0.to_le_bytes());
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(one);
            }
        }
        out
    }

    /// What [`Session::to_bytes`] gave.
    ///
    /// # Errors
    /// [`NotASession`].
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self, NotASession> {
        let session = Self::new();
        while !bytes.is_empty() {
            let (slot, rest) = bytes.split_first_chunk::<2>().ok_or(NotASession)?;
            let (length, rest) = rest.split_first_chunk::<4>().ok_or(NotASession)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (one, rest) = rest.split_at_checked(length).ok_or(NotASession)?;
            let slot = Slot(u16::from_le_bytes(*slot));
            if slot.0 >= ring::SLOTS {
                return Err(NotASession);
            }
            session.lock().entry(slot).or_default().push(Bytes::copy_from_slice(one));
            bytes = rest;
        }
        Ok(session)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Slot, Vec<Bytes>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen of a slot.
    fn of(&self, slot: Slot) -> Vec<Bytes> {
        self.lock().get(&slot).cloned().unwrap_or_default()
    }

    /// `seen` has been seen, which covers all of `before`.
    fn learn(&self, slot: Slot, before: &[Bytes], seen: &Bytes) {
        if seen.is_empty() {
            return;
        }
        let mut all = self.lock();
        let known = all.entry(slot).or_default();
        // What other requests have learnt meanwhile stays beside it.
        known.retain(|one| !before.contains(one));
        if !known.contains(seen) {
            known.push(seen.clone());
        }
    }
}

/// What a request of a session, if it is of one, says to have seen.
pub(crate) struct Before {
    session: Option<Session>,
    slot: Slot,
    seen: Vec<Bytes>,
}

impl Before {
    pub(crate) fn new(session: Option<Session>, key: &[u8]) -> Self {
        let slot = Slot::of_key(key);
        let seen = session.as_ref().map(|session| session.of(slot)).unwrap_or_default();
        Self { session, slot, seen }
    }

    pub(crate) fn seen(&self) -> Vec<&serde_bytes::Bytes> {
        self.seen.iter().map(|one| serde_bytes::Bytes::new(one)).collect()
    }

    /// The answer had seen this.
    pub(crate) fn learn(&self, seen: &Bytes) {
        if let Some(session) = &self.session {
            session.learn(self.slot, &self.seen, seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_requests_learn_at_once_is_kept_and_what_an_answer_covers_is_not() {
        let session = Session::new();
        let before = || Before::new(Some(session.clone()), b"k");
        let (one, two) = (before(), before());
        one.learn(&Bytes::from_static(b"1"));
        two.learn(&Bytes::from_static(b"2"));
        let both = before();
        assert_eq!(both.seen, ["1", "2"]);
        both.learn(&Bytes::from_static(b"3"));
        assert_eq!(before().seen, ["3"]);
        assert!(Before::new(Some(session.clone()), b"another slot").seen.is_empty());
        let bytes = session.to_bytes();
        let again = Session::from_bytes(&bytes).expect("whole");
        assert_eq!(Before::new(Some(again), b"k").seen, ["3"]);
        assert!(Session::from_bytes(&bytes[1..]).is_err());
        assert!(Session::from_bytes(&[0xff; 6]).is_err());
    }
}
