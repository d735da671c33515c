//! `ringd storage`: looking at a data directory, and mending it, while no node has it open.
//!
//! Promise: all but `repair` change nothing in the directory; each takes its lock, so that none runs
//! beside a node. Exit code 0: all is well; 1: something is lost or damaged; 2: it could not be done.

mod dump;
mod mend;
mod stats;
mod text;
mod verify;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::{Disk, Engine, Error, FileDisk, OpenError, Options, Overlay, Shard};
use store::Folding;

use crate::error::Fault;

pub use dump::Dump;

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
    let done = match &tool.what {
        What::Dump(dump) => dump.run(&dir, tool.json, out),
        What::Verify => verify::run(&dir, tool.json, out),
        What::Repair => mend::run(&dir, tool.json, out),
        What::Stats => stats::run(&dir, tool.json, out),
    };
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
    try_open(dir)?.map_err(|e| refused(dir, &e))
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

const FIX_DISK: &str = "look at the disk and at the system's log; then try again";
const FIX_REPAIR: &str = "fetch the data anew from the other replicas (move the engine directory away and start the \
                          node), or keep what can be read here: ringd storage repair DIR";

fn refused(dir: &Path, error: &OpenError) -> Fault {
    let what = format!("the store in {} cannot be opened", dir.display());
    let fix = match error {
        OpenError::Locked => "stop the node that uses it, or look at a checkpoint of it",
        OpenError::Format { .. } => "use the ringd that wrote it",
        OpenError::Damaged { .. } => FIX_REPAIR,
        OpenError::Options { .. } | OpenError::Disk(_) => FIX_DISK,
    };
    Fault::new(what, error.reason().to_string(), fix)
}

fn unreadable(error: &Error) -> Fault {
    let (why, fix) = match error {
        Error::Damaged(damage) => (
            format!("{damage}: keys {}", text::range(&damage.lower, damage.upper.as_deref())),
            FIX_REPAIR,
        ),
        other => (other.to_string(), FIX_DISK),
    };
    Fault::new("the store cannot be read any further", why, fix)
}
