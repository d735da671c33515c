//! `ringd storage`: looking at a data directory, and mending it, while no node has it open.
//!
//! Promise: all but `repair` change nothing in the directory; each takes its lock, so that none runs
//! beside a node. What was found out is told by the exit code also where nobody reads the output. Exit code 0: all is well; 1: something is lost or damaged; 2: it could not be done.

mod dump;
mod mend;
pub(crate) mod refusal;
mod stats;
mod text;
mod verify;

use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::{Disk, Engine, FileDisk, OpenError, Options, Overlay, Shard};
use store::Folding;

use crate::error::Fault;

pub use dump::Dump;
use refusal::{FIX_DISK, FIX_REPAIR, unreadable};

/// Nothing is wrong.
pub const EXIT_WHOLE: i32 = 0;
/// Something is damaged or lost.
pub const EXIT_DAMAGED: i32 = 1;

/// What to do with which directory.
#[derive(Clone, Debug)]
pub struct Tool {
    /// A node's data directory, or the engine's in it.
    pub dir: PathBuf,
    /// For programs instead of people.
    pub json: bool,
    /// What to do.
    pub what: What,
}

/// What to do.
#[derive(Clone, Debug)]
pub enum What {
    /// Print rows.
    Dump(Dump),
    /// Read and verify everything.
    Verify,
    /// Make a store of what can be read.
    Repair,
    /// Say what the store is made of.
    Stats,
}

/// Does it, and says what came of it on `out`; the exit code.
///
/// # Errors
/// A [`Fault`]: it could not be done.
pub fn run(tool: &Tool, out: &mut dyn Write) -> Result<i32, Fault> {
    let dir = directory(&tool.dir)?;
    let mut told = Told { out, ended: false };
    let done = match &tool.what {
        // There is no verdict to wait for behind the rows.
        What::Dump(dump) => dump.run(&dir, tool.json, told.out),
        What::Verify => verify::run(&dir, tool.json, &mut told),
        What::Repair => mend::run(&dir, tool.json, &mut told),
        What::Stats => stats::run(&dir, tool.json, &mut told),
    };
    give_to_owner(&dir);
    let done = done.and_then(|code| match told.flush() {
        Ok(()) => Ok(code),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(code),
        Err(e) => Err(e.into()),
    });
    match done {
        // Whoever reads the output has seen enough.
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(EXIT_WHOLE),
        Err(Failure::Output(e)) => Err(Fault::new(
            "the output cannot be written",
            e.to_string(),
            "send it somewhere with room for it",
        )),
        Err(Failure::Fault(fault)) => Err(fault),
        Ok(code) => Ok(code),
    }
}

/// The output, which is not worth failing for once nobody reads it any more: the exit code still tells.
struct Told<'a> {
    out: &'a mut dyn Write,
    ended: bool,
}

impl Told<'_> {
    fn unless_ended<T>(&mut self, done: io::Result<T>, otherwise: T) -> io::Result<T> {
        match done {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                self.ended = true;
                Ok(otherwise)
            }
            done => done,
        }
    }
}

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(bytes.len());
        }
        let done = self.out.write(bytes);
        self.unless_ended(done, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        let done = self.out.flush();
        self.unless_ended(done, ())
    }
}

/// What root left in the directory belongs to whom the directory does, or the node could not open it.
fn give_to_owner(dir: &Path) {
    let root = rustix::process::geteuid().as_raw();
    let Ok(owner) = std::fs::metadata(dir).map(|found| (found.uid(), found.gid())) else { return };
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    if root != 0 || owner.0 == root {
        return;
    }
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        // The file itself, whatever stands under its name by now, and only if it has no other name: the owner
        // of the directory shall not be given what is somebody else's.
        let mut options = std::fs::OpenOptions::new();
        let no_link = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let flags = i32::try_from(no_link.bits()).unwrap_or(0);
        let Ok(file) = options.read(true).custom_flags(flags).open(&path) else { continue };
        let is_ours = file
            .metadata()
            .is_ok_and(|found| found.is_file() && found.uid() == root && found.nlink() == 1);
        if is_ours && let Err(e) = std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1)) {
            tracing::warn!(file = %path.display(), error = %e, "a file cannot be given to the directory's owner");
        }
    }
}

/// Why a tool did not come to its end.
enum Failure {
    Fault(Fault),
    Output(io::Error),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Output(e)
    }
}

/// The engine's directory in `given`, or `given` itself.
fn directory(given: &Path) -> Result<PathBuf, Fault> {
    let inner = given.join("engine");
    let dir = if inner.is_dir() { inner } else { given.to_path_buf() };
    let found = std::fs::read_dir(&dir).map_err(|e| Fault::file(&dir, "read", &e))?;
    let ours = |name: &str| {
        let path = Path::new(name);
        let ending = path.extension().and_then(|e| e.to_str());
        matches!(name, "FORMAT" | "CURRENT") || matches!(ending, Some("sst" | "log" | "blob"))
    };
    let mut names = found.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    if names.any(|name| ours(&name)) {
        return Ok(dir);
    }
    Err(Fault::new(
        format!("there is no store in {}", dir.display()),
        "none of its files is one of a store (FORMAT, CURRENT, *.sst, *.log, *.blob)",
        "give the node's data directory (node.data_dir), or the directory engine in it",
    ))
}

fn disk(dir: &Path) -> Result<Arc<dyn Disk>, Fault> {
    let disk = FileDisk::new(dir).map_err(|e| Fault::file(dir, "open", &e))?;
    Ok(Arc::new(disk))
}

/// A store that is only looked at.
struct Opened {
    engine: Arc<Engine>,
    shard: Shard,
    /// Changes that are in the log alone.
    in_log: u64,
    below: Arc<dyn Disk>,
    seen: Arc<dyn Disk>,
}

/// Opens the store in `dir` without changing it, damaged or not.
fn open(dir: &Path) -> Result<Opened, Fault> {
    try_open(dir)?.map_err(|e| refusal::of_tool(dir, &e))
}

fn try_open(dir: &Path) -> Result<Result<Opened, OpenError>, Fault> {
    let below = disk(dir)?;
    let seen: Arc<dyn Disk> = Arc::new(Overlay::new(below.clone()));
    let options = Options { tolerate_damage: true, log_spares: 0, ..Options::default() };
    let mut in_log = 0;
    let mut count = |batch: storage::LogBatch<'_>| in_log += batch.ops().len() as u64;
    let opened = Engine::open(seen.clone(), options, Arc::new(Folding), &mut count);
    Ok(opened.map(|(engine, mut shards)| {
        let shard = shards.pop().expect("a store without splits has one shard");
        Opened { engine, shard, in_log, below, seen }
    }))
}

impl Opened {
    /// Files that no manifest speaks of: left over, or set aside.
    fn leftovers(&self) -> Result<Vec<String>, Fault> {
        let told =
            |e: io::Error| Fault::new("the directory cannot be listed", e.to_string(), FIX_DISK);
        let seen = self.seen.list().map_err(told)?;
        let left = |name: &String| {
            let data = name.ends_with(".sst") || name.ends_with(".blob");
            name.ends_with(".bad") || name.ends_with(".tmp") || (data && !seen.contains(name))
        };
        Ok(self.below.list().map_err(told)?.into_iter().filter(left).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink};

    #[test]
    fn the_owner_of_a_directory_is_given_what_root_left_there_and_nothing_that_has_another_name() {
        if rustix::process::geteuid().as_raw() != 0 {
            eprintln!("SKIPPED: only root can give files away");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir(at("engine")).unwrap();
        for name in ["engine/left", "engine/others", "linked", "symlinked"] {
            std::fs::write(at(name), b"").unwrap();
        }
        std::fs::hard_link(at("linked"), at("engine/linked")).unwrap();
        symlink(at("symlinked"), at("engine/symlink")).unwrap();
        chown(at("engine/others"), Some(77), Some(77)).unwrap();
        let owner = |name: &str| std::fs::metadata(at(name)).map(|found| found.uid()).unwrap();
        give_to_owner(&at("engine"));
        assert_eq!(owner("engine/left"), 0, "root's own directory is as it should be");
        chown(at("engine"), Some(4321), Some(4321)).unwrap();
        give_to_owner(&at("engine"));
        let found = ["engine/left", "engine/others", "linked", "symlinked"].map(owner);
        assert_eq!(found, [4321, 77, 0, 0]);
    }
}
