//! Rotation: a full memtable gives way to a new one, and what only the log told goes into rows.
//!
//! The clock of each slot that was written to has to be in a row before the log that told of those writes may go.
//! There are thousands of them: they are written bit by bit, into the new memtable, and the old one
//! may be flushed once all are committed. A core that wrote them in one go would be away for milliseconds, and
//! whoever asks just then waits.

use std::time::Duration;

use ring::Instant;

use super::Core;
use crate::limits::SAVE_MAX;

/// How far a rotation is.
#[derive(Default)]
pub(super) struct Saving {
    /// Some clocks are not in rows, and the memtable before this one must not be flushed.
    open: bool,
    /// When the last one began.
    began: Instant,
    /// How many clocks there were.
    clocks: usize,
    /// How long they may take.
    span: Duration,
}

impl Saving {
    /// How many of the clocks are to be in rows by then.
    fn due(&self, now: Instant) -> usize {
        let (passed, span) = (now.since(self.began).as_micros(), self.span.as_micros().max(1));
        let due = (self.clocks as u128 * passed).div_ceil(span);
        usize::try_from(due).unwrap_or(usize::MAX).min(self.clocks)
    }
}

impl Core {
    /// A turn begins: its commit takes some clocks along.
    pub(super) fn save_some(&mut self) {
        if self.is_saving() {
            let now = self.now().mono;
            let due = self.saving.due(now);
            let done = self.saving.clocks - self.peer.unsaved().min(self.saving.clocks);
            self.save(due.saturating_sub(done));
        }
    }

    /// Whether there is something left to do about the last rotation.
    pub fn is_saving(&self) -> bool {
        self.saving.open && !self.disk_failed && !self.stopped && !self.shared.is_full()
    }

    /// A turn's changes are committed: ends a rotation, or begins one.
    pub(super) fn look_at_memtable(&mut self) {
        // A disk that is full takes no clocks either; nothing is written that would need them.
        let is_full = self.store.wants_rotation() && !self.shared.is_full();
        if is_full && self.is_saving() {
            // It was fast.
            self.save(usize::MAX);
            match self.store.commit() {
                Ok(()) => {
                    self.uncommitted = false;
                    self.shared.background.committed(self.index);
                }
                Err(e) => self.fail_disk(&e),
            }
        }
        if self.is_saving() && self.peer.unsaved() == 0 {
            self.saving.open = false;
            self.store.release();
            self.shared.background.look_for_jobs();
        }
        // Nothing is begun at the end: what is held stays so, and the log tells of it.
        if is_full && !self.disk_failed && !self.stopped {
            self.peer.begin_checkpoint();
            self.store.rotate_held();
            let now = self.now().mono;
            let span = (now.since(self.saving.began) / 2).min(SAVE_MAX);
            self.saving = Saving { open: true, began: now, clocks: self.peer.unsaved(), span };
        }
    }

    fn save(&mut self, most: usize) {
        let changes = self.peer.checkpoint_some(most);
        self.uncommitted |= !changes.is_empty();
        if let Err(e) = self.store.apply(&changes) {
            self.fail_disk(&e);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clocks_are_due_when_the_time_is_over_and_some_from_the_beginning() {
        let ms = Duration::from_millis;
        let began = Instant(7);
        let saving = Saving { open: true, began, clocks: 1000, span: ms(100) };
        assert_eq!(saving.due(began), 0);
        assert_eq!(saving.due(began + Duration::from_micros(10)), 1);
        assert_eq!(saving.due(began + ms(50)), 500);
        assert_eq!(saving.due(began + ms(100)), 1000);
        assert_eq!(saving.due(began + ms(1000)), 1000);
        let at_once = Saving { span: Duration::ZERO, ..saving };
        assert_eq!(at_once.due(began + Duration::from_micros(1)), 1000);
    }
}
