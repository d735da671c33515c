//! Known requests: the names of forwarded requests that were minted, so that a retry is not minted
//! twice.
//!
//! An entry is made in the same batch as the delta that carries the request, on every replica that
//! applies it, and lives longer than a retry may. Full means that forwarded writes are refused, never
//! that an entry is forgotten early.

use std::collections::{BTreeMap, VecDeque};

use ring::WallMillis;

use crate::limits::{KNOWN_FOR, KNOWN_MAX};
use crate::message::RequestKey;
use crate::op::Answer;

/// The window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    entries: BTreeMap<RequestKey, ()>,
    order: VecDeque<(WallMillis, RequestKey)>,
}

impl Known {
    /// The request was minted; `at` is about when.
    pub(crate) fn insert(&mut self, request: RequestKey, at: WallMillis) {
        if self.entries.insert(request, ()).is_none() {
            self.order.push_back((at, request));
        }
        self.expire(at);
    }

    pub(crate) fn contains(&self, request: &RequestKey) -> bool {
        self.entries.contains_key(request)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= KNOWN_MAX
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn expire(&mut self, now: WallMillis) {
        let horizon = now.0.saturating_sub(KNOWN_FOR.as_millis() as u64);
        while let Some((at, request)) = self.order.front() {
            if at.0 >= horizon {
                break;
            }
            self.entries.remove(request);
            self.order.pop_front();
        }
    }
}

/// Requests that were answered without being minted: refused, failed, or found to change nothing.
/// Another copy of one gets the same answer, and is not carried out though it could be by now: the
/// client has been told that it was not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Closed {
    answers: BTreeMap<RequestKey, Option<Answer>>,
    order: VecDeque<(WallMillis, RequestKey)>,
}

impl Closed {
    /// The request was answered so, or refused if `None`.
    pub(crate) fn insert(&mut self, request: RequestKey, answer: Option<Answer>, at: WallMillis) {
        if self.answers.insert(request, answer).is_none() {
            self.order.push_back((at, request));
        }
        let horizon = at.0.saturating_sub(KNOWN_FOR.as_millis() as u64);
        while let Some((at, request)) = self.order.front() {
            if at.0 >= horizon && self.answers.len() <= KNOWN_MAX {
                break;
            }
            self.answers.remove(request);
            self.order.pop_front();
        }
    }

    /// How the request was answered before, if it was.
    pub(crate) fn get(&self, request: &RequestKey) -> Option<&Option<Answer>> {
        self.answers.get(request)
    }
}
