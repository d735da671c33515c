//! Acks: writes whose replicas the client hears itself.
//!
//! Each replica that takes a write in says over its own connection that it holds it, and that so many have to beside
//! its coordinator. Once so many have, the write is done: one message earlier than through the coordinator, which
//! need not be woken for each of them.
//!
//! Promises: what is counted is said of the very same write by different nodes ([`Confirmation`]); a request whose
//! future was dropped leaves nothing behind; if a connection ends, over which somebody may have spoken, whoever
//! waits and has time for it learns of it, and asks the coordinator.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::{Confirmation, Hlc, NodeId, WriteId};
use tokio::time::Instant;
use wire::Ack;

use crate::link::{Answers, Came};

/// The writes of one client that wait.
#[derive(Default)]
pub(crate) struct Acks {
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    /// Writes that were done when their replicas had said so.
    confirmed: AtomicU64,
}

/// A write that waits.
struct Waiting {
    confirmation: Confirmation,
    /// Where it was asked for, and under which number.
    asked: (Arc<Answers>, u64),
    /// Until then it may be asked for again.
    again: Instant,
}

impl Acks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write of the client's number `n` is asked for, and may be asked for again until then.
    pub(crate) fn expect(&self, n: u64, asked: (Arc<Answers>, u64), again: Instant) {
        self.lock().insert(n, Waiting { confirmation: Confirmation::default(), asked, again });
    }

    /// Nobody waits for it any more.
    pub(crate) fn forget(&self, n: u64) {
        self.lock().remove(&n);
    }

    /// A replica, whose clock shows `hlc`, holds a write. What the client writes next has to be later than it, whichever
    /// node mints that: so whoever asked hears of that clock, as it would from the coordinator.
    pub(crate) fn held(&self, by: NodeId, hlc: Hlc, ack: Ack) {
        let write = WriteId { coordinator: NodeId(ack.coordinator), number: ack.write };
        let mut all = self.lock();
        let Some(waiting) = all.get_mut(&ack.n) else { return };
        if waiting.confirmation.held(by, write, usize::from(ack.needed)) {
            let (answers, id) = waiting.asked.clone();
            drop(all);
            answers.hear(hlc);
            // Whatever the coordinator says besides does not matter any more.
            answers.supersede(id);
            let waited = answers.tell(id, Came::Reply(Ok(ack.reply)));
            self.confirmed.fetch_add(u64::from(waited), Ordering::Relaxed);
        }
    }

    /// How many writes were done when their replicas had said so.
    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// A connection is gone. Whoever has no time left to ask again waits on: for its coordinator, or another word.
    pub(crate) fn doubt(&self) {
        let now = Instant::now();
        let all = self.lock();
        let asked = all.values().filter(|waiting| now < waiting.again);
        let asked: Vec<_> = asked.map(|waiting| waiting.asked.clone()).collect();
        drop(all);
        for (answers, id) in asked {
            answers.supersede(id);
            answers.tell(id, Came::Doubt);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn only_who_has_time_to_ask_again_hears_of_a_lost_connection() {
        let (acks, answers, now) = (Acks::default(), Arc::new(Answers::default()), Instant::now());
        let mut late = answers.expect(1);
        let mut early = answers.expect(2);
        acks.expect(11, (answers.clone(), 1), now);
        acks.expect(12, (answers.clone(), 2), now + Duration::from_secs(60));
        acks.doubt();
        assert!(late.try_recv().is_err(), "its coordinator may answer yet");
        assert!(matches!(early.try_recv(), Ok((Came::Doubt, _))));
    }
}
