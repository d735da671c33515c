//! MemoryDisk: a disk that can crash, tear, fill up and rot, deterministically from a seed.
//!
//! A file keeps its content and, for each write since its last sync, how to undo it; so a crash can
//! bring back any mixture of synced and un-synced state. Handles from before a crash are dead.

mod pane;

use super::{Disk, DiskFile, Window};
use crate::codec::scatter;
use pane::Pane;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a machine went down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process died: everything written survives.
    ProcessKill,
    /// The power failed: what was not synced survives as said.
    PowerLoss(Survival),
}

/// What of the un-synced writes and directory changes survives a power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// Each write, creation, rename and removal for itself, by chance.
    Subset,
    /// As `Subset`, and each write in pieces of 512 bytes.
    Torn,
}

/// The disk. Clones are the same disk; keep one to inject faults while an engine holds another.
#[derive(Clone)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

type Inode = Arc<Mutex<Content>>;

#[derive(Default, Clone)]
struct Content {
    data: Vec<u8>,
    undo: Vec<Undo>,
    /// Writes that a failed sync dropped: no later sync makes them durable.
    lost: Vec<Undo>,
}

/// How to take back one un-synced change.
#[derive(Clone)]
struct Undo {
    offset: usize,
    /// Bytes written; for a truncation 0.
    written: usize,
    /// What stood at `offset` before.
    before: Vec<u8>,
    len_before: usize,
}

#[derive(Default)]
struct State {
    seed: u64,
    /// What chance began with, and the numbers drawn for others: what they draw changes no fate.
    seed_given: u64,
    numbers: u64,
    epoch: u64,
    locked: bool,
    names: BTreeMap<String, Inode>,
    durable_names: BTreeMap<String, Inode>,
    capacity: Option<u64>,
    syncs: u64,
    fail_next_sync: bool,
    fail_reads: Option<String>,
    windows: Windows,
    window_writes: u64,
    power_fails_at: Option<u64>,
    power_off: bool,
}

/// Whether files can be written through windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Windows {
    #[default]
    None,
    Open,
    /// They are given, and then cannot be moved anywhere.
    Refused,
}

impl MemoryDisk {
    /// An empty disk whose chances all come from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State { seed, seed_given: seed, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The machine goes down and comes up again: what `how` says survives. Open files and locks
    /// from before are dead; injected faults but rot and capacity are gone.
    pub fn crash(&self, how: Crash) {
        let state = &mut *self.state();
        state.epoch += 1;
        state.locked = false;
        state.power_off = false;
        state.power_fails_at = None;
        state.fail_next_sync = false;
        state.fail_reads = None;
        if let Crash::PowerLoss(survival) = how {
            state.lose_power(survival);
        }
    }

    /// At most `bytes` may be stored in all files together; beyond that writes fail as on a full
    /// disk. `None`: no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes stored in all files.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// The next sync of a file fails once, and what it should have made durable is lost at a power
    /// loss, even when a later sync succeeds.
    pub fn fail_next_sync(&self) {
        self.state().fail_next_sync = true;
    }

    /// Reads of files whose name contains `part` fail with an IO error; `None` ends it.
    pub fn fail_reads(&self, part: Option<&str>) {
        self.state().fail_reads = part.map(str::to_owned);
    }

    /// From now on files can be written through windows; they cannot in the beginning.
    pub fn open_windows(&self) {
        self.state().windows = Windows::Open;
    }

    /// Writes through windows so far.
    #[must_use]
    pub fn window_writes(&self) -> u64 {
        self.state().window_writes
    }

    /// From now on no window can be moved: as when the system refuses a page.
    pub fn refuse_windows(&self) {
        self.state().windows = Windows::Refused;
    }

    /// The machine stops at the sync (of a file or the directory) with this number, counted as in
    /// [`MemoryDisk::syncs`]: that sync and all later operations fail until [`MemoryDisk::crash`].
    pub fn power_fails_at_sync(&self, number: u64) {
        self.state().power_fails_at = Some(number);
    }

    /// True once the machine stopped as arranged by [`MemoryDisk::power_fails_at_sync`].
    #[must_use]
    pub fn power_is_off(&self) -> bool {
        self.state().power_off
    }

    /// Syncs asked for so far, of files and the directory.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Flips the bits of `mask` in one stored byte. False when there is no such byte.
    pub fn rot(&self, name: &str, offset: u64, mask: u8) -> bool {
        let state = self.state();
        let Some(inode) = state.names.get(name) else { return false };
        let mut content = lock(inode);
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        match content.data.get_mut(at) {
            Some(byte) => *byte ^= mask,
            None => return false,
        }
        true
    }

    /// Flips one bit of a byte chosen by chance in a file whose name contains `part`; says where.
    pub fn rot_random(&self, part: &str) -> Option<(String, u64)> {
        let (name, offset, bit) = {
            let state = &mut *self.state();
            let files: Vec<(String, u64)> = state
                .names
                .iter()
                .filter(|(name, _)| name.contains(part))
                .map(|(name, inode)| (name.clone(), lock(inode).data.len() as u64))
                .filter(|(_, len)| *len > 0)
                .collect();
            if files.is_empty() {
                return None;
            }
            let total: u64 = files.iter().map(|(_, len)| len).sum();
            let mut at = state.random() % total;
            let bit = state.random() % 8;
            let mut files = files.into_iter();
            let (name, _) = files.find(|(_, len)| {
                let found = at < *len;
                at -= if found { 0 } else { *len };
                found
            })?;
            (name, at, bit)
        };
        self.rot(&name, offset, 1 << bit).then_some((name, offset))
    }

    /// A second disk with the same content and durable state, for trying several fates of one past.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        let state = self.state();
        let mut copies: Vec<(Inode, Inode)> = Vec::new();
        let mut copy = |inode: &Inode| {
            if let Some((_, twin)) = copies.iter().find(|(old, _)| Arc::ptr_eq(old, inode)) {
                return twin.clone();
            }
            let old = lock(inode);
            let twin = Arc::new(Mutex::new(old.clone()));
            copies.push((inode.clone(), twin.clone()));
            twin
        };
        let names = state.names.iter().map(|(n, i)| (n.clone(), copy(i))).collect();
        let durable_names = state.durable_names.iter().map(|(n, i)| (n.clone(), copy(i))).collect();
        // With the same seed it draws on from here.
        let State { capacity, windows, numbers, .. } = *state;
        let fresh = State {
            seed,
            seed_given: seed,
            numbers,
            names,
            durable_names,
            capacity,
            windows,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(fresh)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn handle(&self, name: &str, inode: Inode, epoch: u64) -> Arc<dyn DiskFile> {
        Arc::new(OpenFile { name: name.to_owned(), disk: self.clone(), inode, epoch })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scatter(self.seed)
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| lock(inode).data.len() as u64).sum()
    }

    /// Fails when the machine is down.
    fn up(&self) -> io::Result<()> {
        if self.power_off { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    /// Counts a sync; fails when this is the one at which the machine stops.
    fn count_sync(&mut self) -> io::Result<()> {
        self.up()?;
        if self.power_fails_at == Some(self.syncs) {
            self.power_off = true;
        }
        self.syncs += 1;
        self.up()
    }

    fn lose_power(&mut self, survival: Survival) {
        let mut all: Vec<String> =
            self.names.keys().chain(self.durable_names.keys()).cloned().collect();
        all.sort();
        all.dedup();
        let mut names = BTreeMap::new();
        for name in all {
            let new_survives = match survival {
                Survival::None => false,
                Survival::All => true,
                Survival::Subset | Survival::Torn => self.random().is_multiple_of(2),
            };
            let from = if new_survives { &self.names } else { &self.durable_names };
            if let Some(inode) = from.get(&name) {
                names.insert(name, inode.clone());
            }
        }
        for inode in names.values() {
            let mut content = lock(inode);
            content.settle(survival, || self.random());
        }
        self.names = names;
        self.durable_names = self.names.clone();
    }
}

impl Content {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let len_before = self.data.len();
        let end = offset + bytes.len();
        let before = self.data[offset.min(len_before)..end.min(len_before)].to_vec();
        self.undo.push(Undo { offset, written: bytes.len(), before, len_before });
        self.place(bytes, offset);
    }

    fn place(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[offset..end].copy_from_slice(bytes);
    }

    /// All that was written is durable now, but for what an earlier sync dropped. Where that was written
    /// once more since, what stands there now is on the disk.
    fn note_durable(&mut self) {
        let Self { data, undo, lost } = self;
        for new in undo.drain(..) {
            for gone in lost.iter_mut() {
                let from = gone.offset.max(new.offset);
                let to = (gone.offset + gone.written).min(new.offset + new.written).min(data.len());
                if from < to {
                    let inside = from - gone.offset..to - gone.offset;
                    let len = gone.before.len().max(inside.end);
                    gone.before.resize(len, 0);
                    gone.before[inside].copy_from_slice(&data[from..to]);
                }
            }
        }
    }

    /// Takes back every un-synced change, then does again those that survive.
    fn settle(&mut self, survival: Survival, random: impl FnMut() -> u64) {
        self.settle_unsynced(survival, random);
        for undo in std::mem::take(&mut self.lost).into_iter().rev() {
            let end = (undo.offset + undo.written).min(self.data.len());
            self.data[undo.offset.min(end)..end].fill(0);
            let kept = undo.before.len().min(end.saturating_sub(undo.offset));
            self.place(&undo.before[..kept], undo.offset.min(end));
        }
    }

    fn settle_unsynced(&mut self, survival: Survival, mut random: impl FnMut() -> u64) {
        if survival == Survival::All {
            self.undo.clear();
            return;
        }
        let mut redo = Vec::new();
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            let end = (undo.offset + undo.written).min(self.data.len());
            let written = self.data[undo.offset.min(end)..end].to_vec();
            let cut = (undo.written == 0).then_some(self.data.len());
            self.data.truncate(undo.len_before);
            self.data.resize(undo.len_before, 0);
            let end = undo.offset + undo.before.len();
            self.data[undo.offset.min(end)..end].copy_from_slice(&undo.before);
            redo.push((undo.offset, written, cut));
        }
        if survival == Survival::None {
            return;
        }
        for (offset, bytes, cut) in redo.into_iter().rev() {
            match cut {
                Some(len) if random().is_multiple_of(2) => self.data.truncate(len),
                Some(_) => {}
                None if survival == Survival::Torn => {
                    let mut at = 0;
                    while at < bytes.len() {
                        let sector_end = (offset + at) / 512 * 512 + 512;
                        let end = bytes.len().min(sector_end - offset);
                        if random().is_multiple_of(2) {
                            self.place(&bytes[at..end], offset + at);
                        }
                        at = end;
                    }
                }
                None => {
                    if random().is_multiple_of(2) {
                        self.place(&bytes, offset);
                    }
                }
            }
        }
    }
}

impl Disk for MemoryDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = &mut *self.state();
        state.up()?;
        let inode = Inode::default();
        state.names.insert(name.to_owned(), inode.clone());
        Ok(self.handle(name, inode, state.epoch))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        state.up()?;
        let inode = state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(name, inode.clone(), state.epoch))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.up()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let state = &mut *self.state();
        state.up()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let state = &mut *self.state();
        state.up()?;
        state.names.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let state = &mut *self.state();
        state.count_sync()?;
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn free(&self) -> io::Result<Option<u64>> {
        let state = self.state();
        state.up()?;
        Ok(state.capacity.map(|capacity| capacity.saturating_sub(state.used())))
    }

    fn random(&self) -> io::Result<u64> {
        let state = &mut *self.state();
        state.up()?;
        state.numbers += 1;
        Ok(scatter(scatter(!state.seed_given) ^ state.numbers))
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        let state = &mut *self.state();
        state.up()?;
        if state.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked = true;
        Ok(Box::new(Held { disk: self.clone(), epoch: state.epoch }))
    }
}

struct Held {
    disk: MemoryDisk,
    epoch: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.epoch == self.epoch {
            state.locked = false;
        }
    }
}

#[derive(Clone)]
struct OpenFile {
    name: String,
    disk: MemoryDisk,
    inode: Inode,
    epoch: u64,
}

impl OpenFile {
    /// The disk's state, unless the machine is down or went down since this file was opened.
    fn disk(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        state.up()?;
        if state.epoch == self.epoch {
            Ok(state)
        } else {
            Err(io::Error::other("opened before the crash"))
        }
    }
}

impl DiskFile for OpenFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk()?;
        if state.fail_reads.as_ref().is_some_and(|part| self.name.contains(part)) {
            return Err(rustix::io::Errno::IO.into());
        }
        let content = lock(&self.inode);
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = at.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(content.data.get(at..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let state = self.disk()?;
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let free = state.capacity.map(|capacity| capacity.saturating_sub(state.used()));
        let mut content = lock(&self.inode);
        let growth = (at + bytes.len()).saturating_sub(content.data.len()) as u64;
        if let Some(free) = free.filter(|free| growth > *free) {
            // As a real disk does: part of the bytes may get there before it says that it is full.
            let fits = bytes.len() - usize::try_from(growth - free).unwrap_or(bytes.len());
            if fits > 0 && at <= content.data.len() {
                content.write(&bytes[..fits], at);
            }
            return Err(io::ErrorKind::StorageFull.into());
        }
        if !bytes.is_empty() {
            content.write(bytes, at);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk()?;
        state.count_sync()?;
        let mut content = lock(&self.inode);
        if std::mem::take(&mut state.fail_next_sync) {
            // The pages are marked clean and never written: readers see them until the crash.
            let dropped = std::mem::take(&mut content.undo);
            content.lost.extend(dropped);
            return Err(io::Error::other("injected sync error"));
        }
        content.note_durable();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let _up = self.disk()?;
        Ok(lock(&self.inode).data.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let _up = self.disk()?;
        let mut content = lock(&self.inode);
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let len_before = content.data.len();
        if len < len_before {
            let before = content.data[len..].to_vec();
            content.undo.push(Undo { offset: len, written: 0, before, len_before });
        }
        content.data.resize(len, 0);
        Ok(())
    }

    fn window(&self, _: u64) -> io::Result<Option<Box<dyn Window>>> {
        let state = self.disk()?;
        let windows = state.windows;
        drop(state);
        Ok((windows != Windows::None).then(|| Box::new(Pane::new(self.clone())) as Box<dyn Window>))
    }
}
