//! Checkpoints: the ones that a node keeps in its data directory, and what marks a store as one.
//!
//! Promises: a checkpoint has its name only when it is whole and durable; nothing is left of one that could not be
//! made. Each carries a mark, so that a node that is started over one knows that its store went back in
//! time: it begins a life that never was and serves only when it has pulled what it once acknowledged.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ring::WallMillis;
use serde::{Deserialize, Serialize};
use storage::{Engine, FileDisk};
use tracing::{info, warn};
use wire::operate::CheckpointFacts;
use wire::{AdminReply, ClientReply, ErrorCode, ErrorReply};

use crate::clock;
use crate::error::Fault;
use crate::facts;
use crate::limits::{CHECKPOINT_NAME_MAX, full_below};
use crate::state::{NodeState, StateFile};

/// Where they are below the data directory.
const DIRECTORY: &str = "checkpoints";

/// The mark in the directory of each.
const MARK: &str = "CHECKPOINT";

/// What is begun or half removed has a name that no checkpoint can have.
const UNFINISHED: char = '.';

/// What an administrator wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To hear which there are.
    List,
    /// A new one of this name.
    Make(String),
    /// That it is gone.
    Remove(String),
}

/// What a checkpoint says of the node that it was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When.
    pub at: WallMillis,
    /// The state of that node then.
    pub state: NodeState,
}

impl Mark {
    /// The mark in the directory of a store: nothing, unless the store is a checkpoint that no node has run on yet.
    ///
    /// # Errors
    /// A [`Fault`]: there is one, and it cannot be read.
    pub fn find(store: &Path) -> Result<Option<Self>, Fault> {
        let path = store.join(MARK);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Fault::file(&path, "read", &e)),
        };
        toml::from_str(&text).map(Some).map_err(|e| {
            Fault::new(
                format!("{} cannot be understood", path.display()),
                e.message().to_owned(),
                "put the checkpoint in place again, or another one",
            )
        })
    }

    /// A life has begun on the checkpoint, and is on disk: from now on the store is the node's own.
    pub fn take_away(store: &Path) {
        let gone = fs::remove_file(store.join(MARK)).and_then(|()| File::open(store)?.sync_all());
        if let Err(e) = gone {
            warn!(error = %e, "the mark of a checkpoint stays: the next start begins a new life again");
        }
    }

    fn write(&self, store: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let mut file = File::create(store.join(MARK))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        File::open(store)?.sync_all()
    }
}

/// What a node needs to keep checkpoints of its store.
#[derive(Clone, Debug)]
pub struct Keeper {
    /// Its data directory.
    pub data_dir: PathBuf,
    /// How long a file of the log is, and how many cores have one.
    pub log_segment_bytes: u64,
    /// See there.
    pub cores: usize,
}

impl Keeper {
    /// Removes what is left of checkpoints that were begun, or half removed, when a process ended.
    pub fn tidy(&self) {
        let Ok(all) = fs::read_dir(self.directory()) else { return };
        let left =
            all.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(UNFINISHED));
        for entry in left {
            match fs::remove_dir_all(entry.path()) {
                Ok(()) => {
                    info!(path = %entry.path().display(), "removed: an unfinished checkpoint");
                }
                Err(e) => warn!(path = %entry.path().display(), error = %e, "cannot be removed"),
            }
        }
    }

    /// Does it. One at a time.
    #[must_use]
    pub fn carry_out(&self, engine: &Engine, wish: &Wish) -> ClientReply {
        let done = match wish {
            Wish::List => self.list(),
            Wish::Make(name) => self.make(engine, name).map(|made| vec![made]),
            Wish::Remove(name) => self.remove(name).map(|gone| vec![gone]),
        };
        match done {
            Ok(checkpoints) => ClientReply::Admin(AdminReply::Checkpoints(checkpoints)),
            Err(refused) => ClientReply::Error(*refused),
        }
    }

    fn directory(&self) -> PathBuf {
        self.data_dir.join(DIRECTORY)
    }

    fn list(&self) -> Result<Vec<CheckpointFacts>, Box<ErrorReply>> {
        let failed = |e: io::Error| told("the checkpoints cannot be listed", &e);
        let all = match fs::read_dir(self.directory()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            all => all.map_err(failed)?,
        };
        let of_store = self.of_store().map_err(failed)?;
        let mut found = Vec::new();
        for entry in all {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            // What else somebody put there is not ours.
            if is_name(&name) && self.directory().join(&name).is_dir() {
                found.push(self.facts(&name, &of_store).map_err(failed)?);
            }
        }
        found.sort_by(|a, b| (a.at_ms, &a.name).cmp(&(b.at_ms, &b.name)));
        Ok(found)
    }

    /// The files of the store, by what is theirs under each name.
    fn of_store(&self) -> io::Result<BTreeSet<u64>> {
        Ok(files(&self.data_dir.join("engine"))?.iter().map(MetadataExt::ino).collect())
    }

    fn facts(&self, name: &str, of_store: &BTreeSet<u64>) -> io::Result<CheckpointFacts> {
        let path = self.directory().join(name);
        let mut facts = CheckpointFacts { name: name.to_owned(), ..CheckpointFacts::default() };
        // One whose mark was tampered with is listed all the same: it takes room.
        facts.at_ms = Mark::find(&path).ok().flatten().map_or(0, |mark| mark.at.0);
        for file in files(&path)? {
            facts.bytes += file.len();
            facts.own_bytes += if of_store.contains(&file.ino()) { 0 } else { file.len() };
            facts.freed_bytes += if file.nlink() == 1 { file.len() } else { 0 };
        }
        facts.path = path.display().to_string();
        Ok(facts)
    }

    fn make(&self, engine: &Engine, name: &str) -> Result<CheckpointFacts, Box<ErrorReply>> {
        let what = || format!("the checkpoint {name} is not made");
        check_name(name).map_err(|why| invalid(what(), why, "choose another name"))?;
        let path = self.directory().join(name);
        if path.exists() {
            let why = format!("{} is there already", path.display());
            return Err(invalid(
                what(),
                why,
                format!("choose another name, or remove it: {}", rm(name)),
            ));
        }
        self.tidy();
        self.check_room(engine).map_err(|why| invalid(what(), why, FIX_ROOM))?;
        let begun = self.directory().join(format!("{UNFINISHED}{name}"));
        match self.fill(engine, &begun, &path) {
            Ok(()) => self
                .of_store()
                .and_then(|of_store| self.facts(name, &of_store))
                .map_err(|e| told(what(), &e)),
            Err(e) => {
                warn!(name, error = %e, "a checkpoint cannot be made");
                self.tidy();
                Err(told(what(), &e))
            }
        }
    }

    /// A node whose disk is full takes no writes: a checkpoint must not bring it there, nor the next file of the
    /// log of each core.
    fn check_room(&self, engine: &Engine) -> Result<(), String> {
        let (free, size) = facts::disk(&self.data_dir);
        let log = engine.stats().log_bytes;
        let segments = self.log_segment_bytes.saturating_mul(self.cores as u64);
        let reserve = full_below(self.log_segment_bytes, size, true).saturating_add(segments);
        if free >= log.saturating_add(reserve) {
            return Ok(());
        }
        Err(format!(
            "{free} bytes are free under {}; the log, of which a checkpoint is a copy, has {log}, and {reserve} \
             stay free for the node itself",
            self.data_dir.display()
        ))
    }

    fn fill(&self, engine: &Engine, begun: &Path, path: &Path) -> io::Result<()> {
        let state = StateFile::peek(&self.data_dir).map_err(|e| io::Error::other(e.what))?;
        let state = state.ok_or_else(|| io::Error::other("there is no node.state"))?;
        let at = clock::wall();
        let disk = FileDisk::new(begun)?;
        let made = engine.checkpoint(&disk).map_err(|e| match e {
            storage::Error::NoSpace => io::ErrorKind::StorageFull.into(),
            e => io::Error::other(e.to_string()),
        })?;
        Mark { at, state }.write(begun)?;
        fs::rename(begun, path)?;
        File::open(self.directory())?.sync_all()?;
        info!(path = %path.display(), ?made, "a checkpoint was made");
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<CheckpointFacts, Box<ErrorReply>> {
        let what = || format!("the checkpoint {name} is not removed");
        check_name(name).map_err(|why| invalid(what(), why, "name one that ls shows"))?;
        let path = self.directory().join(name);
        if !path.exists() {
            let why = format!("there is no {}", path.display());
            return Err(invalid(what(), why, "name one of these: ringctl checkpoint ls NODE"));
        }
        let gone = self.directory().join(format!("{UNFINISHED}{name}"));
        let failed = |e: io::Error| told(what(), &e);
        let of_store = self.of_store().map_err(failed)?;
        let facts = self.facts(name, &of_store).map_err(failed)?;
        // So that what is half removed does not pass for a checkpoint.
        self.tidy();
        fs::rename(&path, &gone).and_then(|()| fs::remove_dir_all(&gone)).map_err(failed)?;
        info!(path = %path.display(), "a checkpoint was removed");
        Ok(facts)
    }
}

/// The files of a directory. The store removes some of its own at any time.
fn files(directory: &Path) -> io::Result<Vec<Metadata>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        match entry?.metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            file => found.push(file?),
        }
    }
    Ok(found)
}

const FIX_ROOM: &str = "make room: ringctl checkpoint rm NODE NAME, or a larger disk";

fn rm(name: &str) -> String {
    format!("ringctl checkpoint rm NODE {name}")
}

fn is_name(name: &str) -> bool {
    check_name(name).is_ok()
}

/// A name is one part of a path, the same on every system, and nothing that a shell changes.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let first = name.chars().next();
    if name.len() <= CHECKPOINT_NAME_MAX
        && first.is_some_and(|c| c.is_ascii_alphanumeric())
        && name.chars().all(plain)
    {
        return Ok(());
    }
    Err(format!(
        "a name has 1 to {CHECKPOINT_NAME_MAX} letters, digits, '-', '_' and '.', and begins with a letter or digit"
    ))
}

fn invalid(
    what: impl Into<String>,
    why: impl Into<String>,
    fix: impl Into<String>,
) -> Box<ErrorReply> {
    let (what, why, fix) = (what.into(), why.into(), fix.into());
    Box::new(ErrorReply { code: ErrorCode::Invalid, what, why, fix })
}

fn told(what: impl Into<String>, e: &io::Error) -> Box<ErrorReply> {
    let full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let fix = if full { FIX_ROOM } else { "look at the node's log, and at its disk" };
    let (what, why, fix) = (what.into(), e.to_string(), fix.to_owned());
    Box::new(ErrorReply { code: ErrorCode::Internal, what, why, fix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path_and_nothing_unfinished_has_one() {
        for name in ["a", "before-upgrade", "2026-11-27T10_00", "v1.2", &"x".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", ".a", "a/b", "../a", "a b", "-rf", "a\0", "é", &"x".repeat(65)]
        {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
