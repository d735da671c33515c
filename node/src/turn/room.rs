//! Room: what a core takes on while the disk is full, or nearly.
//!
//! Promise: while it is, nothing is applied that the disk might refuse, since a machine that knows more than its
//! disk must end. Alone, a node is read. What peers send to be written the machine refuses, and links count as up anew
//! when there is room: then it is pulled, before anybody is served (see [`replication::Event::RoomIs`]).

use std::sync::atomic::Ordering;

use replication::op::TaskError;
use replication::{Event, Request};
use tracing::{info, warn};

use super::Core;
use crate::facts;
use crate::limits::full_below;
use crate::metrics::Class;
use crate::shared::Shared;

/// Looks at the disk; true if it is full now and was not, or the other way round.
pub fn look_at_disk(shared: &Shared) -> bool {
    let (config, was) = (&shared.config, shared.is_full());
    let (free, size) = facts::disk(&config.data_dir);
    if size == 0 {
        // The system does not tell; then the engine will.
        return false;
    }
    let below = full_below(config.engine.log_segment_bytes, size, was);
    let is = free < below;
    shared.full.store(is, Ordering::Relaxed);
    let disk = config.data_dir.display();
    if is && !was {
        let until = full_below(config.engine.log_segment_bytes, size, true);
        warn!(%disk, free, until, "the disk is full: nothing is written until so many bytes are free");
    }
    if was && !is {
        info!(%disk, free, "there is room on the disk again: writes go on");
    }
    is != was
}

impl Core {
    /// Why a request that may write cannot be taken on now.
    pub(super) fn unwritable(&self, class: Class, request: &Request) -> Option<TaskError> {
        if class != Class::Write && !matches!(request, Request::Flush { .. }) {
            return None;
        }
        if self.shared.is_full() {
            return Some(TaskError::NoSpace);
        }
        let waits = class == Class::Write && self.shared.engine.debt().memtables >= 1.0;
        waits.then_some(TaskError::Overloaded { retry_after_ms: 50 })
    }

    /// As it begins: the disk may be full already.
    pub fn learn_of_room(&mut self) {
        if self.shared.is_full() {
            self.feed(Event::RoomIs(false));
        }
    }

    /// Core 0, once a second: is there room?
    pub(super) fn look_for_room(&mut self) {
        if self.members.is_some() && look_at_disk(&self.shared) {
            self.with_members(|members, now, events| members.room_has_changed(now, events));
        }
    }
}
