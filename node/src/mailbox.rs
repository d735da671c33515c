//! Mailboxes: what cores hand to each other, in batches, with one wake-up a batch.
//!
//! A core gathers what others should get during its turn and posts it once, when the turn ends.
//! With one core nothing of this ever runs.

use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// What waits for one core.
pub struct Mailbox<T> {
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    letters: Vec<T>,
    waker: Option<Waker>,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { letters: Vec::new(), waker: None }) }
    }
}

impl<T> Mailbox<T> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner<T>> {
        // A panic of another thread leaves letters, which are whole: go on.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `letters`, which is emptied, and wakes the owner if it may be asleep.
    pub fn post(&self, letters: &mut Vec<T>) {
        let mut inner = self.lock();
        let asleep = inner.letters.is_empty();
        inner.letters.append(letters);
        let waker = if asleep { inner.waker.clone() } else { None };
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Adds one letter.
    pub fn post_one(&self, letter: T) {
        self.post(&mut vec![letter]);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().letters.is_empty()
    }

    /// Exchanges the letters for `empty`; the next letter wakes `waker`.
    pub fn take(&self, empty: &mut Vec<T>, waker: &Waker) {
        let mut inner = self.lock();
        std::mem::swap(&mut inner.letters, empty);
        if !inner.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
            inner.waker = Some(waker.clone());
        }
    }
}
