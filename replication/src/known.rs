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
