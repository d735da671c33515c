//! Spares: files that wait to become segments, already as large as they will be.
//!
//! A write into such a file changes no size and takes no new block, so syncing it is a write of its
//! bytes and nothing else. A spare is a file of zeros that a job made, or a segment that nobody needs
//! any more, as it was: what it holds from its former life proves itself under another segment id
//! only. Its old name is durably gone before it is used again, so that no crash brings it back.

use super::parse_segment_name;
use crate::disk::Disk;
use crate::error::Error;
use crate::limits::{LOG_SPARE_BYTES_MAX, YIELD_BYTES};
use crate::options::Options;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Zeros that are written at a time: a page. What is written in one call a file system may keep as one
/// piece of its cache, and then each later write into that piece, however small, looks at every block
/// of it: with a mebibyte a put paid more for that than for everything else.
static ZEROS: [u8; 4 << 10] = [0; 4 << 10];

/// The spare files of a store.
pub(crate) struct Spares {
    disk: Arc<dyn Disk>,
    /// A file below this size is no spare.
    bytes: u64,
    /// So many are made when there are fewer.
    wanted: usize,
    /// Beyond those wanted, so many bytes are kept and no more.
    room: u64,
    /// Somebody syncs: until then a file of zeros would only be written twice. Segments that are
    /// not needed any more are kept all the same.
    syncing: AtomicBool,
    due: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With their sizes.
    ready: Vec<(String, u64)>,
    /// Names given out.
    last: u64,
    /// Somebody is making one.
    filling: bool,
}

impl State {
    /// True when one more of `len` bytes is wanted, or fits in the `room` of all.
    fn has_room(&self, len: u64, wanted: usize, room: u64) -> bool {
        let bytes: u64 = self.ready.iter().map(|(_, len)| len).sum();
        self.ready.len() < wanted || (wanted > 0 && bytes + len <= room)
    }
}

/// The number of a spare file's name, if it is one.
fn parse_name(name: &str) -> Option<u64> {
    name.strip_suffix(".spare")?.parse().ok()
}

impl Spares {
    /// The spares of a store with the files `names`. Those that are too small are removed, and those
    /// that may be a segment under a second name, which a crash can leave behind, lose this name.
    pub(crate) fn open(disk: &Arc<dyn Disk>, options: &Options, names: &[String]) -> Self {
        let bytes = options.log_segment_bytes.min(LOG_SPARE_BYTES_MAX);
        let wanted = options.log_spares * options.shards();
        // What a memtable of each shard fills comes back when it is flushed, and with it some frames more.
        let filled = options.memtable_bytes as u64;
        let room = wanted as u64 * (filled + filled / 4).max(bytes);
        let segments = names.iter().filter(|name| parse_segment_name(name).is_some());
        let faces: BTreeSet<Face> =
            segments.filter_map(|name| face(disk.as_ref(), name, bytes)).collect();
        let mut state = State::default();
        for name in names {
            let Some(number) = parse_name(name) else { continue };
            state.last = state.last.max(number);
            let found = face(disk.as_ref(), name, bytes).filter(|face| !faces.contains(face));
            if let Some((len, _)) = found.filter(|(len, _)| state.has_room(*len, wanted, room)) {
                state.ready.push((name.clone(), len));
            } else if let Err(e) = disk.remove(name) {
                tracing::warn!(%name, error = %e, "a left-over file could not be removed");
            }
        }
        Self {
            disk: disk.clone(),
            bytes,
            wanted,
            room,
            syncing: AtomicBool::new(false),
            due: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody syncs.
    pub(crate) fn note_sync(&self) {
        if !self.syncing.load(Ordering::Relaxed) {
            self.syncing.store(true, Ordering::Relaxed);
            self.due.store(true, Ordering::Relaxed);
        }
    }

    /// True once after each change by which there may be a file to be made: for whoever wakes those
    /// who make it.
    pub(crate) fn fell_due(&self) -> bool {
        self.due.load(Ordering::Relaxed) && self.due.swap(false, Ordering::Relaxed)
    }

    /// How many are ready.
    pub(crate) fn ready(&self) -> usize {
        self.state().ready.len()
    }

    /// Takes one out.
    pub(crate) fn take(&self) -> Option<String> {
        self.due.store(true, Ordering::Relaxed);
        self.state().ready.pop().map(|(name, _)| name)
    }

    /// True for one caller when a spare should be made: [`Spares::fill`] or [`Spares::leave`].
    pub(crate) fn claim(&self) -> bool {
        if !self.syncing.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.state();
        let claimed = !state.filling && state.ready.len() < self.wanted;
        state.filling |= claimed;
        claimed
    }

    /// Who claimed does not fill after all.
    pub(crate) fn leave(&self) {
        self.state().filling = false;
    }

    /// True when a file of `len` bytes is of use beside what is ready and what is `coming`.
    fn takes(&self, coming: &[(String, u64)], len: u64) -> bool {
        let mut state = State { ready: coming.to_vec(), ..State::default() };
        state.ready.extend(self.state().ready.iter().cloned());
        state.has_room(len, self.wanted, self.room)
    }

    fn next_name(&self) -> String {
        let mut state = self.state();
        state.last += 1;
        format!("{:010}.spare", state.last)
    }

    /// Makes a file of zeros.
    pub(crate) fn fill(&self) -> Result<(), Error> {
        let name = self.next_name();
        let done = self.write_zeros(&name);
        if done.is_err() {
            // Its space may be what is missing.
            let _ = self.disk.remove(&name);
        }
        done.map_err(|e| Error::io(&format!("making {name} ready"), &e))?;
        self.state().ready.push((name, self.bytes));
        Ok(())
    }

    fn write_zeros(&self, name: &str) -> io::Result<()> {
        let file = self.disk.create(name)?;
        let mut at = 0;
        while at < self.bytes {
            let len = self.bytes.min(at + ZEROS.len() as u64) - at;
            file.write_at(&ZEROS[..usize::try_from(len).expect("at most a page")], at)?;
            at += len;
            if at % YIELD_BYTES == 0 {
                std::thread::yield_now();
            }
        }
        file.sync()
    }

    /// Turns the retired segments `names` into spares where there is room, and removes the others.
    /// Each is taken off the list when it is gone.
    pub(crate) fn retire(&self, names: &mut Vec<String>) -> Result<(), Error> {
        let mut renamed = Vec::new();
        while let Some(name) = names.first() {
            let len = self.disk.open(name).and_then(|file| file.len());
            let useful = len.ok().filter(|len| *len >= self.bytes && self.takes(&renamed, *len));
            let gone = if let Some(len) = useful {
                let spare = self.next_name();
                let gone = self.disk.rename(name, &spare);
                renamed.extend(gone.is_ok().then_some((spare, len)));
                gone
            } else {
                self.disk.remove(name)
            };
            match gone {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(Error::io(&format!("removing {name}"), &e));
                }
                _ => drop(names.remove(0)),
            }
        }
        if !renamed.is_empty() {
            // The old names may not come back over new content. Spares that this does not reach are
            // found at the next start.
            let synced = self.disk.sync_dir();
            synced.map_err(|e| Error::io("syncing the directory", &e))?;
            self.state().ready.append(&mut renamed);
        }
        Ok(())
    }
}

/// Size and first bytes of a file: the same for a file under another name, and for no other segment,
/// since the header of each has another tag.
type Face = (u64, [u8; 64]);

/// The face of a file that has at least `bytes`.
fn face(disk: &dyn Disk, name: &str, bytes: u64) -> Option<Face> {
    let file = disk.open(name).ok()?;
    let len = file.len().ok()?;
    let mut head = [0; 64];
    if len < bytes.max(64) || file.read_at(&mut head, 0).is_err() {
        return None;
    }
    Some((len, head))
}
