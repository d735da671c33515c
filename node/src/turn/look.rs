//! Look: what a core does now and then, whatever is asked of it: it says how it is, and counts keys.

use tracing::warn;

use super::{Core, LOOK_AROUND};
use crate::clock;
use crate::members::Members;

/// How much is read at a time to count keys: well below a millisecond, so that nobody notices.
const COUNT_BYTES: u32 = 64 << 10;

/// In how many slots gaps are looked for at a time: about a tenth of a millisecond.
const GAP_SLOTS: usize = 640;

// A count ends before the next one begins.
const _: () = assert!(ring::SLOTS as usize / GAP_SLOTS + 3 < crate::driver::COUNTS_A_LOOK);

/// How far the count of gaps is.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    next: usize,
    found: u64,
    done: bool,
}

impl Core {
    /// Once a second: says how it is, and looks after clients that do not move.
    pub fn look_around(&mut self) {
        self.look_for_room();
        let calls = self.report.stats.calls();
        self.report.stats = self.host.own_stats().clone();
        self.report.ops_per_second = self.report.stats.calls().saturating_sub(calls);
        if let Some(mesh) = self.members.as_ref().and_then(Members::mesh) {
            self.report.mesh = mesh.counters();
        }
        self.report.in_flight = self.in_flight() as u64;
        self.report.in_flight_max = self.admission.in_flight_max() as u64;
        self.report.shedding = u64::from(self.admission.is_shedding());
        self.report.memtable_bytes = self.store.memtable_bytes() as u64;
        let machine = self.peer.stats();
        self.report.read_repairs = machine.repairs;
        self.report.reads_behind = machine.reads_behind;
        self.report.many_siblings = machine.many_siblings;
        self.gaps = Gaps::default();
        self.report.keys = self.tally.counted(clock::mono());
        self.host.follow_reset();
        self.shared.set_report(self.index, self.report.clone());
        let now = clock::mono();
        let idle_max = u64::from(self.shared.config.redis.idle_timeout_s);
        for (_, conn) in self.conns.iter_mut() {
            conn.look_around(now, idle_max);
        }
        let lately = |heard| now.since(heard) < 2 * LOOK_AROUND;
        let heard = self.conns.iter_mut().map(|(_, conn)| (conn.id, conn.last_heard()));
        self.shared.clients.heard(heard.filter(|(_, at)| lately(*at)));
    }

    /// Counts keys on for a moment; false if there is nothing to count.
    pub fn count_keys(&mut self) -> bool {
        if self.disk_failed || self.stopped || !self.tally.has_work() {
            return false;
        }
        let store = &self.store;
        let read = |first, last, from: &[u8], bytes| store.read_slots(first, last, from, bytes);
        match self.tally.step(clock::now(), COUNT_BYTES, read) {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, "the keys of a slot cannot be counted");
                false
            }
        }
    }

    /// Counts gaps of clocks on for a moment, and says how many there are once all have been looked at; false if that
    /// was done.
    pub fn count_gaps(&mut self) -> bool {
        if self.gaps.done {
            return false;
        }
        match self.peer.clock_gaps(self.gaps.next, GAP_SLOTS) {
            Some(more) => {
                self.gaps.next += GAP_SLOTS;
                self.gaps.found += more;
            }
            None => {
                self.gaps.done = true;
                self.report.clock_gaps = self.gaps.found;
                self.shared.set_report(self.index, self.report.clone());
            }
        }
        !self.gaps.done
    }

    /// Keys that have expired are to be counted anew.
    pub fn expire_keys(&mut self) {
        self.tally.expire(clock::now());
    }
}
