//! Start: what a start changes on the disk, in the order that bears a crash anywhere in it.
//!
//! A disk may have no room for it. Then all goes that nothing refers to; and where that is not enough,
//! the store is open nevertheless: it can be read, and whoever writes first tries the rest of the start
//! again. Until that is done no file of the log is begun and no edit is made, so that a crash finds what
//! this start found.

use super::FORMAT;
use super::logs::Cut;
use super::rewrite::{self, Replayed};
use crate::blob::parse_blob_name;
use crate::disk::{Disk, DiskFile, swap_file};
use crate::error::Error;
use crate::limits::FORMAT_LINE;
use crate::manifest::{self, Edit, Manifest, Story, parse_manifest_name};
use crate::poison::Poison;
use crate::table::parse_table_name;
use crate::table::part::parse_part_name;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// What a start has to write.
pub(super) struct Start {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) poison: Arc<Poison>,
    /// The manifest that was in force.
    pub(super) found: u64,
    /// The newest one that this start began. One that may be in force is never written over.
    pub(super) number: u64,
    pub(super) format_is_old: bool,
    /// The story tells of damage that the manifest in force does not know: it is remembered before
    /// its traces are cut.
    pub(super) tells_damage: bool,
    pub(super) cuts: Vec<Cut>,
    pub(super) replayed: Vec<Replayed>,
    /// What may be said once the tails are cut.
    pub(super) edits: Vec<Edit>,
}

impl Start {
    /// All of it. After an error it may be tried again.
    pub(super) fn carry_out(&mut self, story: &Story) -> Result<Manifest, Error> {
        let disk = self.disk.clone();
        self.number += 1;
        let (number, poison) = (self.number, self.poison.clone());
        let mut manifest = Manifest::create(disk.as_ref(), number, story.clone(), poison)?;
        (self.found, self.tells_damage) = (number, false);
        if self.format_is_old {
            // Before anything is written that an older version would take for a torn tail.
            let written = swap_file(disk.as_ref(), FORMAT, format!("{FORMAT_LINE}\n").as_bytes());
            written.map_err(|e| Error::io("writing FORMAT", &e))?;
            self.format_is_old = false;
        }
        self.settle()?;
        for name in list(disk.as_ref())? {
            if parse_manifest_name(&name).is_some_and(|n| n != number) || name.ends_with(".tmp") {
                remove(disk.as_ref(), &name);
            }
        }
        sync_dir(disk.as_ref())?;
        manifest.commit(&self.edits)?;
        Ok(manifest)
    }

    /// The same where there was no room. The manifest that comes back may be one that is still to be
    /// written.
    pub(super) fn carry_out_without_space(mut self, story: Story) -> Result<Manifest, Error> {
        self.reclaim(&story)?;
        match self.carry_out(&story) {
            Err(Error::NoSpace) if !self.must_be_told_first() => {}
            done => return done,
        }
        // What is shown from now on has to survive, written or not, and that takes no space.
        self.settle()?;
        tracing::warn!(
            directory = ?self.disk.directory(),
            "no space left for the manifest of this start: the store can be read, and is written \
             again once there is space"
        );
        let (disk, found, poison) = (self.disk.clone(), self.found, self.poison.clone());
        let begin = Box::new(move |story: &Story| self.carry_out(story));
        Manifest::unwritten(disk.as_ref(), found, story, poison, begin)
    }

    /// Something that is not written yet has to be on the disk before logs are changed: damage whose traces
    /// are cut, or the format that a header of a segment would be in.
    fn must_be_told_first(&self) -> bool {
        self.tells_damage
            || (self.format_is_old && self.replayed.iter().any(|s| !s.header.is_empty()))
    }

    /// Cuts the tails and makes durable what was replayed: in the place where it is.
    fn settle(&mut self) -> Result<(), Error> {
        let disk = self.disk.as_ref();
        self.cuts.iter().try_for_each(|cut| cut.carry_out(disk))?;
        self.cuts.clear();
        rewrite::write_again(disk, &self.replayed)?;
        self.replayed.clear();
        sync_dir(disk)
    }

    /// Removes what nothing refers to.
    fn reclaim(&self, story: &Story) -> Result<(), Error> {
        let disk = self.disk.as_ref();
        // What the manifest says may be in the page cache alone, and what it said before refers to
        // tables that go now.
        let sure = match manifest::write_again(disk, self.found) {
            Err(Error::NoSpace) => false,
            done => done.map(|()| true)?,
        };
        sync_dir(disk)?;
        for name in list(disk)? {
            let unfinished = name.ends_with(".tmp") || name.ends_with(".spare");
            let old = parse_manifest_name(&name).is_some_and(|number| number < self.found);
            if unfinished || (sure && (old || is_orphan(&name, story))) {
                tracing::info!(%name, "removed, since nothing refers to it and the disk is full");
                remove(disk, &name);
            }
        }
        sync_dir(disk)
    }
}

/// True when no edit made the table or blob file `name` part of the store, or what it is said beside.
pub(super) fn is_orphan(name: &str, story: &Story) -> bool {
    parse_table_name(name).is_some_and(|n| !story.tables.contains_key(&n))
        || parse_blob_name(name).is_some_and(|n| !story.blobs.contains_key(&n))
        || parse_part_name(name).is_some_and(|n| {
            story.tables.get(&n).is_none_or(|(_, bounds)| bounds.narrowed.is_none())
        })
}

fn remove(disk: &dyn Disk, name: &str) {
    if let Err(e) = disk.remove(name) {
        tracing::warn!(%name, error = %e, "a left-over file could not be removed");
    }
}

pub(super) fn list(disk: &dyn Disk) -> Result<Vec<String>, Error> {
    disk.list().map_err(|e| Error::io("listing the directory", &e))
}

fn sync_dir(disk: &dyn Disk) -> Result<(), Error> {
    disk.sync_dir().map_err(|e| Error::io("syncing the directory", &e))
}

/// The disk of a log that begins no file before the start of its store is written.
pub(super) struct Waiting {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) manifest: Arc<Mutex<Manifest>>,
}

impl Waiting {
    fn begin(&self) -> io::Result<()> {
        let mut manifest = self.manifest.lock().unwrap_or_else(PoisonError::into_inner);
        manifest.begin().map_err(|e| match e {
            Error::NoSpace => io::ErrorKind::StorageFull.into(),
            e => io::Error::other(e.to_string()),
        })
    }
}

impl Disk for Waiting {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.begin()?;
        self.disk.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.begin()?;
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn free(&self) -> io::Result<Option<u64>> {
        self.disk.free()
    }

    fn directory(&self) -> Option<&Path> {
        self.disk.directory()
    }

    fn random(&self) -> io::Result<u64> {
        self.disk.random()
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock()
    }
}
