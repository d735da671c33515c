//! Refusal: why a store does not open or cannot be read any further, and what to do about it.
//!
//! Promise: what is advised can be done by whoever reads it. A node without peers is not sent to them for
//! its data; what a repair mends points to the repair; and for a permission that is missing nobody is told
//! to look at the disk.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use storage::{Error, OpenError};

use super::text;
use crate::error::Fault;

/// Damaged places that one message names.
const PLACES_TOLD: usize = 8;

pub(super) const FIX_REPAIR: &str = "if there are other replicas, fetch the data anew from them (move the engine directory away and \
                                     start the node); else keep what can be read here: ringd storage repair DIR";
pub(super) const FIX_DISK: &str = "look at the disk and at the system's log; then try again";

/// Why a node does not start with the store in `dir`. `alone`: it has no peers.
pub(crate) fn of_node(dir: &Path, error: &OpenError, alone: bool) -> Fault {
    let shown = dir.display();
    let anew = if alone {
        format!(
            "ringd storage verify {shown} says what is lost, ringd storage repair {shown} keeps what can be read"
        )
    } else {
        format!(
            "look at the disk; then move {shown} away, keep node.state beside it, and start: the node fetches \
             its data from its peers in a new life. If no peer has them: ringd storage repair {shown} keeps \
             what can be read"
        )
    };
    let fix = match error {
        OpenError::Locked => "stop the other ringd that uses this data directory".to_owned(),
        OpenError::Format { found } if is_version(found) => {
            "start the ringd that wrote it, or choose another node.data_dir".to_owned()
        }
        OpenError::Format { .. } => format!("ringd storage repair {shown} writes it anew"),
        OpenError::RepairBegun => format!("ringd storage repair {shown} finishes it"),
        OpenError::Options { .. } => "change the settings of the engine (engine.*)".to_owned(),
        OpenError::Disk(e) => access(dir, e).or_else(|| room(e)).unwrap_or(anew),
        OpenError::Damaged { .. } => anew,
    };
    Fault::new(format!("the store in {shown} cannot be opened"), why(error), fix)
}

/// Why a tool cannot open the store in `dir`.
pub(super) fn of_tool(dir: &Path, error: &OpenError) -> Fault {
    let shown = dir.display();
    let fix = match error {
        OpenError::Locked => "stop the node that uses it".to_owned(),
        OpenError::Format { found } if is_version(found) => {
            "use the ringd that wrote it".to_owned()
        }
        OpenError::Format { .. } => format!("ringd storage repair {shown} writes it anew"),
        OpenError::RepairBegun => format!("ringd storage repair {shown} finishes it"),
        OpenError::Damaged { .. } => FIX_REPAIR.to_owned(),
        OpenError::Options { .. } => FIX_DISK.to_owned(),
        OpenError::Disk(e) => access(dir, e).or_else(|| room(e)).unwrap_or_else(|| FIX_DISK.into()),
    };
    Fault::new(format!("the store in {shown} cannot be opened"), why(error), fix)
}

/// Why a tool cannot read on.
pub(super) fn unreadable(error: &Error) -> Fault {
    let (why, fix) = match error {
        Error::Damaged(damage) => (
            format!("{damage}: keys {}", text::range(&damage.lower, damage.upper.as_deref())),
            FIX_REPAIR,
        ),
        other => (other.to_string(), FIX_DISK),
    };
    Fault::new("the store cannot be read any further", why, fix)
}

fn why(error: &OpenError) -> String {
    match error {
        OpenError::Damaged { damage } => {
            let told = damage.iter().take(PLACES_TOLD).map(text::damage).collect::<Vec<_>>();
            let more = match damage.len().saturating_sub(PLACES_TOLD) {
                0 => String::new(),
                more => format!(" | and {}", text::count(more as u64, "further place")),
            };
            format!("acknowledged data is lost: {}{more}", told.join(" | "))
        }
        OpenError::Format { found } if !is_version(found) => {
            let damage = if found.starts_with('(') { "is missing" } else { "is damaged" };
            format!("its file FORMAT {damage}, so that nobody knows which version wrote it")
        }
        other => other.reason().to_string(),
    }
}

/// True for the first line of a FORMAT file that some version wrote.
fn is_version(found: &str) -> bool {
    found.strip_prefix("ringdb storage ").is_some_and(|version| version.parse::<u32>().is_ok())
}

/// What to do where the system lets nobody in.
fn access(dir: &Path, error: &Error) -> Option<String> {
    let Error::Io { kind, .. } = error else { return None };
    match kind {
        ErrorKind::PermissionDenied => Some(permission(dir)),
        ErrorKind::ReadOnlyFilesystem => Some(format!(
            "mount the file system of {} for writing, or look at a copy of the directory on another one: also \
             what changes nothing opens the files for writing",
            dir.display()
        )),
        _ => None,
    }
}

fn permission(dir: &Path) -> String {
    let (shown, me) = (dir.display(), rustix::process::geteuid().as_raw());
    let owner = std::fs::metadata(dir).map(|found| found.uid());
    match owner {
        Ok(owner) if owner != me => format!(
            "run it as the user with the number {owner}, to whom the directory belongs (this is {me}), or give \
             all of it to the user who runs the node: chown -R USER {shown}"
        ),
        _ => format!(
            "give all of it to the user who runs the node, and let him write there: chown -R USER {shown}; \
             chmod -R u+rwX {shown}"
        ),
    }
}

fn room(error: &Error) -> Option<String> {
    matches!(error, Error::NoSpace).then(|| "make room on the disk; then try again".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::{Damage, Place};

    fn fix(error: &OpenError, alone: bool) -> String {
        of_node(Path::new("/data/engine"), error, alone).fix
    }

    fn io(kind: ErrorKind) -> OpenError {
        OpenError::Disk(Error::Io { what: "opening a table".to_owned(), kind })
    }

    #[test]
    fn a_node_alone_is_not_told_to_fetch_its_data_from_peers() {
        let place = Place::Table { number: 7, offset: None };
        let lower = replication::row::of_key(0, b"visits").to_vec();
        let damage = vec![Damage { place, lower, upper: None }];
        let damaged = OpenError::Damaged { damage };
        for error in [damaged.clone(), io(ErrorKind::Other)] {
            let alone = fix(&error, true);
            assert!(alone.contains("ringd storage repair /data/engine"), "{alone}");
            assert!(!alone.contains("peer") && !alone.contains("away"), "{alone}");
            let one_of_many = fix(&error, false);
            assert!(one_of_many.contains("from its peers"), "{one_of_many}");
            assert!(one_of_many.contains("ringd storage repair /data/engine"), "{one_of_many}");
        }
        let why = of_node(Path::new("/data/engine"), &damaged, true).why;
        assert!(why.contains("db 0 \"visits\" to the end"), "{why}");
    }

    #[test]
    fn what_has_nothing_to_do_with_damage_has_a_fix_of_its_own() {
        let has = |error: &OpenError, part: &str| {
            for fix in [fix(error, false), of_tool(Path::new("/data/engine"), error).fix] {
                assert!(fix.contains(part) && !fix.contains("away"), "{fix}");
            }
        };
        has(&io(ErrorKind::PermissionDenied), "chown -R USER /data/engine");
        has(&io(ErrorKind::ReadOnlyFilesystem), "mount the file system");
        has(&OpenError::Disk(Error::NoSpace), "make room");
        has(&OpenError::Format { found: "ringdb storage 9".to_owned() }, "the ringd that wrote it");
        has(&OpenError::Format { found: "rinhdb storage 2".to_owned() }, "ringd storage repair");
        has(&OpenError::Format { found: "(no FORMAT file)".to_owned() }, "ringd storage repair");
        has(&OpenError::RepairBegun, "ringd storage repair /data/engine");
        has(&OpenError::Locked, "stop the");
    }
}
