//! Scrub: reading everything that is at rest, to find rot before a reader does.
//!
//! Every block of every table in force is read past the cache, verified, and checked for order; and
//! with it every block of a blob file that it points to, so that the key of each bad one is known.
//! What nothing points to is not read: nobody can be served from it. A block that the disk refuses to
//! read, twice, is a bad one as well. A round is about the tables that there were when it began, or
//! writes that outrun it would keep it from what is older. The engine has no clock: who takes the steps
//! decides how fast that goes.

use crate::blob::{Stored, stored};
use crate::engine::{Engine, Shared};
use crate::error::Error;
use crate::job::{Job, Task};
use crate::key::Kind;
use crate::table::Table;
use std::sync::{Arc, PoisonError};

/// How far the scrub is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scrub {
    /// Times that everything was read since the store was opened.
    pub rounds: u64,
    /// Bytes read in this round.
    pub bytes: u64,
    /// Bytes that this round is about to read, as far as known when it began.
    pub bytes_total: u64,
    /// Bad blocks that it found since the store was opened, each time that it came by.
    pub bad_blocks: u64,
}

/// Where the next step begins.
#[derive(Default)]
pub(crate) struct Place {
    pub(crate) progress: Scrub,
    /// The table at hand, or the first one after it that there is.
    table: u64,
    /// Its next block.
    block: usize,
    /// Tables with a number from here on came after the round began; 0: none has begun.
    until: u64,
    /// Somebody takes a step.
    pub(crate) busy: bool,
}

impl Engine {
    /// The next step of the scrub, which reads about `bytes`; none when another one is out, or when
    /// there is no table. When all is read, the next step begins a new round.
    #[must_use]
    pub fn scrub_step(&self, bytes: u64) -> Option<Job> {
        let shared = &self.shared;
        let mut place = shared.scrub.lock().unwrap_or_else(PoisonError::into_inner);
        if place.busy || shared.version.load().tables().next().is_none() {
            return None;
        }
        place.busy = true;
        drop(place);
        Some(Job::new(shared.clone(), Task::Scrub(bytes)))
    }

    /// How far the scrub is.
    #[must_use]
    pub fn scrub(&self) -> Scrub {
        self.shared.scrub.lock().unwrap_or_else(PoisonError::into_inner).progress
    }
}

/// Reads about `bytes` and notes how far it came.
pub(crate) fn run_step(shared: &Shared, bytes: u64) -> Result<(), Error> {
    let (mut table, mut block, mut until, mut progress) = {
        let place = shared.scrub.lock().unwrap_or_else(PoisonError::into_inner);
        (place.table, place.block, place.until, place.progress)
    };
    let mut read = 0;
    let mut failed = None;
    while read < bytes.max(1) {
        let version = shared.version.load_full();
        if until == 0 {
            until = version.tables().map(|(_, t)| t.number + 1).max().unwrap_or(1);
            let blobs = version.tables().flat_map(|(_, t)| &t.bounds.blobs);
            let blobs: u64 = blobs.map(|(_, bytes)| bytes).sum();
            progress.bytes_total =
                blobs + version.tables().map(|(_, t)| t.bounds.weight()).sum::<u64>();
        }
        let next = version.tables().map(|(_, t)| t).filter(|t| (table..until).contains(&t.number));
        let Some(at) = next.min_by_key(|t| t.number) else {
            // A round is over. The next step begins the next one.
            progress.rounds += 1;
            progress.bytes = 0;
            (table, block, until) = (0, 0, 0);
            break;
        };
        if at.number != table {
            (table, block) = (at.number, 0);
        }
        let step = check(shared, at, block, &mut progress);
        match step {
            Ok((bytes, more)) => {
                read += bytes.max(1);
                progress.bytes += bytes;
                if more {
                    block += 1;
                } else {
                    (table, block) = (table + 1, 0);
                }
            }
            Err(e) => {
                failed = Some(e);
                break;
            }
        }
    }
    let mut place = shared.scrub.lock().unwrap_or_else(PoisonError::into_inner);
    (place.table, place.block, place.until, place.progress) = (table, block, until, progress);
    failed.map_or(Ok(()), Err)
}

/// Checks what stands around a table's blocks (step 0) or block `step - 1` and all that it points
/// to; the bytes read, and whether there is more of this table.
fn check(
    shared: &Shared,
    table: &Arc<Table>,
    step: usize,
    progress: &mut Scrub,
) -> Result<(u64, bool), Error> {
    let Ok(blocks) = table.blocks() else { return Ok((0, false)) };
    let Some(number) = step.checked_sub(1) else {
        return match twice(|| table.check_frame(), || table.damage(None)) {
            Ok(bytes) => Ok((bytes, blocks > 0)),
            Err(Error::Damaged(_)) => {
                progress.bad_blocks += 1;
                Ok((0, blocks > 0))
            }
            Err(e) => Err(e),
        };
    };
    if number >= blocks {
        // It was narrowed since the last step: what is left of it was looked at before.
        return Ok((0, false));
    }
    let more = number + 1 < blocks;
    let handle = table.handle(number)?;
    let lost = || table.damage(Some(handle.offset));
    let (block, mut bytes) = match twice(|| table.check_block(number), lost) {
        Ok(read) => read,
        Err(Error::Damaged(_)) => {
            progress.bad_blocks += 1;
            return Ok((0, more));
        }
        Err(e) => return Err(e),
    };
    for row in 0..block.rows() {
        if block.tag(row).kind() != Some(Kind::Put) {
            continue;
        }
        let value = &block.bytes()[block.value(row)];
        if let Stored::Elsewhere(pointer) = stored(value) {
            bytes += pointer.block_bytes();
            let (shelf, key) = (&shared.shelf, block.key(row));
            match twice(|| shelf.load(pointer, &key), || shelf.lose(pointer, &key)) {
                Ok(_) => {}
                Err(Error::Damaged(_)) => progress.bad_blocks += 1,
                Err(e) => return Err(e),
            }
        }
    }
    Ok((bytes, more))
}

/// What `read` gives. A disk that refuses once may have been busy; one that refuses twice has lost what
/// stands there, for all that can be known, and the scrub must not wait there for ever: then what `lost`
/// says.
fn twice<T>(read: impl Fn() -> Result<T, Error>, lost: impl FnOnce() -> Error) -> Result<T, Error> {
    match read() {
        Err(Error::Io { .. }) => match read() {
            Err(Error::Io { what, .. }) => {
                tracing::warn!(error = %what, "the disk refuses a block twice: it counts as bad");
                Err(lost())
            }
            done => done,
        },
        done => done,
    }
}
