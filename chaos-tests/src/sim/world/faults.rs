//! What goes wrong, within a budget that leaves the promises meaningful.
//!
//! With durability `os` one machine at a time may have lost power: from the loss until its replica
//! has been made whole. All machines may lose it together only if every write waits for the disk.

use replication::Event;
use ring::{Durability, KeyspacePolicy, Level};
use storage::{Crash, Survival};

use super::{Happening, World};
use crate::fault::Fault;
use crate::sim::clock::{MS, SECOND};
use crate::sim::node::{policies, policy};

impl World {
    pub(crate) fn plan_fault(&mut self, fault: Fault, earliest: u64) {
        if let Some(interval) = self.profile.faults.interval(fault) {
            let at = self.now.max(earliest) + self.of_faults.waiting(interval);
            self.queue.plan(at, Happening::Fault(fault));
        }
    }

    pub(crate) fn fault_is_due(&mut self, fault: Fault) {
        if !self.stormy {
            return;
        }
        self.plan_fault(fault, 0);
        let n = self.nodes.len() as u64;
        let node = self.of_faults.below(n) as usize;
        let other = (node + 1 + self.of_faults.below(n - 1) as usize) % n as usize;
        let outage = MS + self.of_faults.waiting(self.profile.outage_ns);
        self.tally.faults += 1;
        self.trace.mix(&[self.now, fault as u64, node as u64, outage]);
        self.trace
            .tell(self.now, format_args!("fault {fault:?} n{} for {} ms", node + 1, outage / MS));
        match fault {
            Fault::Kill => {
                if self.nodes[node].life.is_some() {
                    self.die(node, Crash::ProcessKill);
                    self.queue.plan(self.now + outage, Happening::Start { node });
                }
            }
            Fault::Power => {
                if self.may_lose_power(node) {
                    self.lose_power(node);
                    self.queue.plan(self.now + outage, Happening::Start { node });
                }
            }
            Fault::PowerEverywhere => {
                if self.profile.durability == Durability::Sync {
                    self.truth.reads_void_before = self.now;
                    for node in 0..self.nodes.len() {
                        self.lose_power(node);
                        let at = self.now + self.of_faults.between(MS, outage);
                        self.queue.plan(at, Happening::Start { node });
                    }
                }
            }
            Fault::Stop => self.stop_in_good_order(node, outage),
            Fault::Split => {
                let side: Vec<bool> = self.nodes.iter().map(|_| self.of_faults.coin()).collect();
                let mut ways = Vec::new();
                for a in 0..side.len() {
                    for b in 0..side.len() {
                        if side[a] != side[b] {
                            ways.push((a, b));
                        }
                    }
                }
                self.cut(ways, outage);
            }
            Fault::OneWay => self.cut(vec![(node, other)], outage),
            Fault::Reset => self.break_connection(node, other),
            Fault::Pause => {
                self.nodes[node].paused_until = self.now + outage.min(3 * SECOND);
            }
            Fault::Jump => {
                let by = self.of_faults.below(2 * self.profile.jump_ms + 1) as i64;
                let by_ms = by - self.profile.jump_ms as i64;
                self.nodes[node].clock.jumped_ms = by_ms;
                self.queue.plan(self.now + outage, Happening::SetRight { node });
            }
            Fault::SyncFails => self.nodes[node].platter.files.fail_next_sync(),
            Fault::Full => {
                let used = self.nodes[node].platter.files.used();
                let room = self.of_faults.below(4_000);
                self.nodes[node].platter.files.set_capacity(Some(used + room));
                self.queue.plan(self.now + outage, Happening::Room { node });
            }
            Fault::Terms => {
                // Never weaker than what the checks expect. Each node hears by itself, so that for a
                // while they differ, and a node that starts again has forgotten.
                let base = policy(&self.profile);
                let terms = self.of_faults.pick(&[
                    base,
                    KeyspacePolicy { durability: Durability::Sync, ..base },
                    KeyspacePolicy { write: Level::All, ..base },
                    KeyspacePolicy { read: Level::All, ..base },
                    KeyspacePolicy { read: Level::All, write: Level::All, ..base },
                ]);
                self.put_everywhere(node, &Event::PoliciesAre(policies(terms)));
            }
            Fault::Rot => {
                // What one copy alone acknowledged, a sync of it does not save from rot.
                let may = self.may_lose_power(node) && self.is_written_twice();
                if may && self.nodes[node].life.is_some() {
                    self.die(node, Crash::ProcessKill);
                    let files = &self.nodes[node].platter.files;
                    let where_ = files.rot_random(".log");
                    // From now on, not only once it is noticed: nobody else may lose anything before
                    // this machine is whole again.
                    self.nodes[node].platter.memory.suspect = true;
                    self.trace.tell(self.now, format_args!("rot in {where_:?}"));
                    self.queue.plan(self.now + outage, Happening::Start { node });
                }
            }
        }
    }

    /// True if no other machine lacks writes that it acknowledged.
    fn may_lose_power(&self, node: usize) -> bool {
        let others_whole =
            self.nodes.iter().enumerate().all(|(i, n)| i == node || !n.platter.memory.suspect);
        let synced = self.profile.durability == Durability::Sync;
        others_whole && (synced || self.is_written_twice())
    }

    /// True if two copies at least acknowledge each write.
    pub(super) fn is_written_twice(&self) -> bool {
        !self.profile.mixed_levels && crate::workload::needed(self.profile.write) >= 2
    }

    fn lose_power(&mut self, node: usize) {
        let survival = self.of_faults.pick(&[
            Survival::None,
            Survival::None,
            Survival::All,
            Survival::Subset,
            Survival::Torn,
        ]);
        self.tally.power_losses += 1;
        self.die(node, Crash::PowerLoss(survival));
    }

    fn stop_in_good_order(&mut self, node: usize, outage: u64) {
        let now = self.nodes[node].clock.read(self.now);
        let Some(life) = &mut self.nodes[node].life else { return };
        let last = life.cores.iter().map(|c| c.peer.hlc(now).wall()).max();
        let mut in_order = true;
        for c in &mut life.cores {
            // Work that has not been looked at is dropped; what was applied is written and synced.
            in_order &= !c.stalled && c.store.commit().is_ok();
            in_order &= c.store.sync_handle().sync().is_ok();
        }
        let suspect = self.nodes[node].platter.memory.suspect;
        self.die(node, Crash::ProcessKill);
        let memory = &mut self.nodes[node].platter.memory;
        memory.clean = in_order && !suspect;
        if let Some(last) = last.filter(|_| memory.clean) {
            // Two more, for the parts of a millisecond that the last stamps carry.
            memory.ceiling = ring::WallMillis(last.0 + 2);
        }
        self.queue.plan(self.now + outage, Happening::Start { node });
    }

    fn cut(&mut self, ways: Vec<(usize, usize)>, outage: u64) {
        for (from, to) in &ways {
            self.network.set_cut(*from, *to, true);
        }
        let breaks = !self.network.manners.faithful || self.of_faults.coin();
        self.queue.plan(self.now + outage, Happening::Mend { ways, breaks });
    }

    pub(crate) fn mend(&mut self, ways: &[(usize, usize)], breaks: bool) {
        for (from, to) in ways {
            self.network.set_cut(*from, *to, false);
        }
        if breaks {
            for (from, to) in ways {
                self.break_connection(*from, *to);
            }
        }
    }
}
