//! Confirmation: when a write is done, for a client that hears its replicas' acknowledgements itself.
//!
//! Whoever holds a write says so, and how many have to beside its coordinator, who held it before it sent it to anybody.
//! Promise: it is done, once, when so many replicas, no two of them the same node and none of them the
//! coordinator, have said so of the very same write.
//!
//! Source: learners that hear acceptors themselves, in L. Lamport, "Paxos Made Simple", 2001, section 2.3.

use crate::NodeId;

/// Which write of which coordinator: an answer to a later asking for the same request may be of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteId {
    /// The coordinator.
    pub coordinator: NodeId,
    /// Its number of the write, not given twice in its life.
    pub number: u64,
}

/// What has been said so far of one request.
#[derive(Clone, Debug, Default)]
pub struct Confirmation {
    held: Vec<(NodeId, WriteId)>,
    over: bool,
}

impl Confirmation {
    /// A replica holds a write, which is done once `needed` beside its coordinator do: true if that is so now.
    pub fn held(&mut self, by: NodeId, write: WriteId, needed: usize) -> bool {
        if self.over || by == write.coordinator || self.held.contains(&(by, write)) {
            return false;
        }
        self.held.push((by, write));
        self.over = self.held.iter().filter(|(_, other)| *other == write).count() >= needed;
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: WriteId = WriteId { coordinator: NodeId(1), number: 7 };

    #[test]
    fn it_is_done_once_enough_others_hold_it_and_only_once() {
        let mut c = Confirmation::default();
        assert!(!c.held(NodeId(2), WRITE, 2));
        assert!(c.held(NodeId(3), WRITE, 2));
        assert!(!c.held(NodeId(4), WRITE, 2));
        assert!(Confirmation::default().held(NodeId(2), WRITE, 1));
    }

    #[test]
    fn nobody_counts_twice_and_the_coordinator_not_at_all() {
        let mut c = Confirmation::default();
        assert!(!c.held(NodeId(2), WRITE, 2));
        assert!(!c.held(NodeId(2), WRITE, 2));
        assert!(!c.held(NodeId(1), WRITE, 2));
        assert!(c.held(NodeId(3), WRITE, 2));
    }

    #[test]
    fn what_is_said_of_another_write_does_not_count() {
        let mut c = Confirmation::default();
        let other = WriteId { number: 8, ..WRITE };
        let elsewhere = WriteId { coordinator: NodeId(4), ..WRITE };
        assert!(!c.held(NodeId(2), other, 2));
        assert!(!c.held(NodeId(3), elsewhere, 2));
        assert!(!c.held(NodeId(3), WRITE, 2));
        assert!(c.held(NodeId(2), WRITE, 2));
    }
}
