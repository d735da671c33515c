//! Vacancy: whether no member holds a key of a keyspace, or is about to write one.
//!
//! Pure: the driver says what happened and what time it is, and carries out the step that it is told. Members are
//! asked one after the other, slot by slot. Promise: [`Step::Empty`] only after every member has answered for every
//! slot, to a question that was put after the search began; an answer to another question counts for nothing.

use core::time::Duration;
use std::collections::VecDeque;

use crate::id::NodeId;
use crate::time::Instant;

/// How long a whole search may take.
pub const SEARCH_PATIENCE: Duration = Duration::from_secs(20);

/// How long before an unanswered question is put again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How long to let requests end that are under way.
const REST: Duration = Duration::from_millis(50);

/// What a member says of some slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The first key found; without it there is none.
    pub key: Option<Vec<u8>>,
    /// Requests that may write are still under way there.
    pub busy: bool,
    /// The slot after them, if there is one.
    pub next: Option<u16>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Put this question.
    Ask {
        /// To whom.
        to: NodeId,
        /// Its number.
        question: u64,
        /// Of the slots from this one on.
        slot: u16,
    },
    /// It has ended: nobody holds anything.
    Empty,
    /// It has ended: this member holds this key.
    Occupied(NodeId, Vec<u8>),
    /// It has ended: requests of this member did not.
    Busy(NodeId),
    /// It has ended: this member is away, or did not answer in time.
    Silent(NodeId),
}

/// A search through all members.
#[derive(Clone, Debug)]
pub struct Vacancy {
    /// Those who have not said it of all their slots; the first is being asked.
    left: VecDeque<NodeId>,
    slot: u16,
    question: u64,
    /// It was answered: requests are under way there.
    rests: bool,
    again_at: Instant,
    ends: Instant,
}

impl Vacancy {
    /// A search that begins now, whose questions have numbers from `question` on.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = NodeId>, question: u64, now: Instant) -> Self {
        let left = members.into_iter().collect();
        Self { left, slot: 0, question, rests: false, again_at: now, ends: now + SEARCH_PATIENCE }
    }

    /// When it must hear of the time.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        self.again_at.min(self.ends)
    }

    /// The number that a question of another search may have from now on.
    #[must_use]
    pub const fn next_question(&self) -> u64 {
        self.question + 1
    }

    /// Time has passed. `is_there`: whether a member seems to be up.
    pub fn tick(&mut self, now: Instant, is_there: impl Fn(NodeId) -> bool) -> Option<Step> {
        let Some(to) = self.left.front().copied() else { return Some(Step::Empty) };
        if !is_there(to) {
            return Some(Step::Silent(to));
        }
        if now >= self.ends {
            return Some(if self.rests { Step::Busy(to) } else { Step::Silent(to) });
        }
        if now < self.again_at {
            return None;
        }
        if self.rests {
            self.rests = false;
            self.question += 1;
        }
        self.again_at = now + AGAIN_AFTER;
        Some(Step::Ask { to, question: self.question, slot: self.slot })
    }

    /// A member answers.
    pub fn told(&mut self, now: Instant, from: NodeId, question: u64, told: Told) -> Option<Step> {
        if self.left.front() != Some(&from) || question != self.question || self.rests {
            return None;
        }
        if let Some(key) = told.key {
            return Some(Step::Occupied(from, key));
        }
        if told.busy {
            self.rests = true;
            self.again_at = now + REST;
            return None;
        }
        // Only forward, so that it ends whatever is answered.
        match told.next.filter(|next| *next > self.slot) {
            Some(next) => self.slot = next,
            None => {
                self.left.pop_front();
                self.slot = 0;
            }
        }
        self.question += 1;
        self.again_at = now;
        self.tick(now, |_| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: Told = Told { key: None, busy: false, next: None };

    fn at(ms: u64) -> Instant {
        Instant(0) + Duration::from_millis(ms)
    }

    fn asks(step: Option<Step>) -> (u32, u64, u16) {
        match step {
            Some(Step::Ask { to, question, slot }) => (to.0, question, slot),
            other => panic!("no question: {other:?}"),
        }
    }

    #[test]
    fn all_are_asked_for_all_slots_and_then_it_is_empty() {
        let mut search = Vacancy::new([NodeId(1), NodeId(2)], 7, at(0));
        assert_eq!(asks(search.tick(at(0), |_| true)), (1, 7, 0));
        let half = Told { next: Some(8_000), ..EMPTY };
        assert_eq!(asks(search.told(at(1), NodeId(1), 7, half)), (1, 8, 8_000));
        assert_eq!(asks(search.told(at(2), NodeId(1), 8, EMPTY)), (2, 9, 0));
        assert_eq!(search.told(at(3), NodeId(2), 9, EMPTY), Some(Step::Empty));
    }

    #[test]
    fn only_the_answer_to_the_question_that_was_put_counts() {
        let mut search = Vacancy::new([NodeId(1), NodeId(2)], 7, at(0));
        search.tick(at(0), |_| true);
        for (from, question) in [(1, 6), (1, 8), (2, 7)] {
            assert_eq!(search.told(at(1), NodeId(from), question, EMPTY), None);
        }
        assert_eq!(search.tick(at(499), |_| true), None);
        assert_eq!(asks(search.tick(at(500), |_| true)), (1, 7, 0), "it is put again");
        assert_eq!(asks(search.told(at(501), NodeId(1), 7, EMPTY)), (2, 8, 0));
        assert_eq!(search.told(at(502), NodeId(1), 7, EMPTY), None, "it came twice");
    }

    #[test]
    fn requests_under_way_are_waited_for_and_then_all_is_looked_at_anew() {
        let mut search = Vacancy::new([NodeId(1)], 7, at(0));
        search.tick(at(0), |_| true);
        let busy = Told { busy: true, ..EMPTY };
        assert_eq!(search.told(at(1), NodeId(1), 7, busy.clone()), None);
        assert_eq!(search.told(at(2), NodeId(1), 7, EMPTY), None, "of before it rested");
        assert_eq!(search.tick(at(50), |_| true), None);
        assert_eq!(asks(search.tick(at(51), |_| true)), (1, 8, 0));
        assert_eq!(search.told(at(52), NodeId(1), 8, busy), None);
        assert_eq!(search.tick(at(20_000), |_| true), Some(Step::Busy(NodeId(1))));
    }

    #[test]
    fn a_key_or_a_member_that_is_away_ends_it() {
        let search = Vacancy::new([NodeId(1)], 7, at(0));
        let key = Told { key: Some(b"k".to_vec()), ..EMPTY };
        let mut one = search.clone();
        one.tick(at(0), |_| true);
        let occupied = Some(Step::Occupied(NodeId(1), b"k".to_vec()));
        assert_eq!(one.told(at(1), NodeId(1), 7, key), occupied);
        let mut one = search.clone();
        assert_eq!(one.tick(at(0), |_| false), Some(Step::Silent(NodeId(1))));
        let mut one = search;
        one.tick(at(0), |_| true);
        assert_eq!(one.tick(at(20_000), |_| true), Some(Step::Silent(NodeId(1))));
    }
}
