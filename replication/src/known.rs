//! Known requests: the names of forwarded requests that were minted, so that a retry is not minted
//! twice.
//!
//! An entry is made in the same batch as the delta that carries the request, on every replica that
//! applies it, and lives longer than a retry may. Full means that forwarded writes are refused, never
//! that an entry is forgotten early.

use std::collections::{BTreeMap, VecDeque};

use ring::{Incarnation, NodeId, WallMillis};

use crate::limits::{CLOSED_MAX, KNOWN_FOR, KNOWN_PAGES_MAX};
use crate::message::RequestKey;
use crate::op::Answer;

/// Requests of a front node that follow each other are numbered so: they share a page.
const PAGE: u64 = 256;

/// The front node's core in one of its lives, and which of its pages. A life may have several starts,
/// and its numbers go on over all of them.
type PageKey = (NodeId, Incarnation, u8, u64);

/// Which of a run of numbers are known, and when the latest of them was minted.
#[derive(Clone, Copy, Debug, Default)]
struct Page {
    bits: [u64; (PAGE / 64) as usize],
    latest: WallMillis,
}

/// The window: a bit for each request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pages: BTreeMap<PageKey, Page>,
    /// When which page may be forgotten, unless it was written to since.
    order: VecDeque<(WallMillis, PageKey)>,
    count: usize,
}

const fn place(request: &RequestKey) -> (PageKey, usize, u64) {
    let RequestKey { front, incarnation, core, n, .. } = *request;
    let bit = n % PAGE;
    ((front, incarnation, core, n / PAGE), (bit / 64) as usize, 1 << (bit % 64))
}

impl Known {
    /// The request was minted; `at` is about when.
    pub(crate) fn insert(&mut self, request: RequestKey, at: WallMillis) {
        let (key, word, bit) = place(&request);
        let order = &mut self.order;
        let page = self.pages.entry(key).or_insert_with(|| {
            order.push_back((at, key));
            Page::default()
        });
        self.count += usize::from(page.bits[word] & bit == 0);
        page.bits[word] |= bit;
        page.latest = page.latest.max(at);
        self.expire(at);
    }

    pub(crate) fn contains(&self, request: &RequestKey) -> bool {
        let (key, word, bit) = place(request);
        self.pages.get(&key).is_some_and(|page| page.bits[word] & bit != 0)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.pages.len() >= KNOWN_PAGES_MAX
    }

    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    fn expire(&mut self, now: WallMillis) {
        let horizon = now.0.saturating_sub(KNOWN_FOR.as_millis() as u64);
        while let Some((at, key)) = self.order.front().copied() {
            if at.0 >= horizon {
                break;
            }
            self.order.pop_front();
            let Some(page) = self.pages.get(&key) else { continue };
            if page.latest.0 >= horizon {
                // Some of it is young. It may stand behind younger ones now and go late, never early.
                self.order.push_back((page.latest, key));
                continue;
            }
            self.count -= page.bits.iter().map(|word| word.count_ones() as usize).sum::<usize>();
            self.pages.remove(&key);
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
            if at.0 >= horizon && self.answers.len() <= CLOSED_MAX {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn request(front: u32, n: u64) -> RequestKey {
        let (front, incarnation) = (NodeId(front), Incarnation(1));
        RequestKey { front, incarnation, core: 0, n, first_sent: 0 }
    }

    #[test]
    fn every_request_is_known_for_its_time_and_forgotten_after_it() {
        let keep = KNOWN_FOR.as_millis() as u64;
        let mut known = Known::default();
        // A fast front node and a slow one; the numbers of the slow one share no page.
        for n in 0..10_000 {
            known.insert(request(1, n), WallMillis(n));
            if n % 100 == 0 {
                known.insert(request(2, n * 50), WallMillis(n));
            }
        }
        assert_eq!(known.len(), 10_100);
        for n in 0..10_000 {
            assert!(known.contains(&request(1, n)), "{n}");
            assert_eq!(known.contains(&request(2, n * 50)), n % 100 == 0, "{n}");
        }
        // Nothing young is forgotten, whatever shares its page.
        known.insert(request(3, 0), WallMillis(keep + 5_000));
        assert!((5_000..10_000).all(|n| known.contains(&request(1, n))));
        assert!(!known.contains(&request(1, 0)) && !known.contains(&request(2, 0)));
        known.insert(request(4, 0), WallMillis(2 * keep + 20_000));
        assert_eq!(known.len(), 1);
        assert_eq!((known.pages.len(), known.order.len()), (1, 1));
    }

    #[test]
    fn a_request_is_counted_once_and_lives_from_its_last_arrival() {
        let keep = KNOWN_FOR.as_millis() as u64;
        let mut known = Known::default();
        known.insert(request(1, 7), WallMillis(0));
        known.insert(request(1, 7), WallMillis(keep));
        known.insert(request(2, 7), WallMillis(keep + 1));
        assert_eq!(known.len(), 2);
        assert!(known.contains(&request(1, 7)));
        assert!(!known.contains(&request(1, 8)));
        let other_life = RequestKey { incarnation: Incarnation(2), ..request(1, 7) };
        assert!(!known.contains(&other_life));
    }
}
