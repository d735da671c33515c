//! State: the few things that a node must remember about itself, in `node.state`.
//!
//! Written whole: a temporary file, fsync, rename, fsync of the directory. Promises: an incarnation
//! is on disk before anything is minted under it, and is used by one life only, unless the life
//! before ended with everything on disk and said so (`clean`).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ring::{ClusterId, Incarnation, NodeId, Register, WallMillis};
use serde::{Deserialize, Serialize};

use crate::error::Fault;

/// The version of everything in a data directory.
const FORMAT: u32 = 1;

const NAME: &str = "node.state";

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// The format of the data directory.
    pub format: u32,
    /// The cluster that the data belong to.
    pub cluster: ClusterId,
    /// The node that they belong to.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its life: this one while it runs, the last one while it does not.
    pub incarnation: Incarnation,
    /// True if the last life ended with everything on disk.
    pub clean: bool,
    /// True while acknowledged writes may be missing here: from a loss of power or damage on until
    /// everything was pulled from the other replicas.
    #[serde(default)]
    pub amnesia: bool,
    /// No stamp above this wall time was ever minted.
    pub hlc_ceiling: WallMillis,
    /// Which start of the machine the last life ran in.
    pub boot_id: String,
    /// The terms of keyspaces that administrators have set.
    #[serde(default, skip_serializing_if = "Register::is_empty")]
    pub keyspaces: Register,
}

/// Whose data a directory should hold. Without `cluster` the directory decides, and a new one draws
/// its own.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The cluster.
    pub cluster: Option<ClusterId>,
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: &'a str,
}

/// What the state says about the start that begins now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The state as it is on disk now.
    pub state: NodeState,
    /// No stamp may be minted below this.
    pub hlc_floor: WallMillis,
    /// True if there was no previous life.
    pub first: bool,
    /// True if the life goes on after a clean end.
    pub resumed: bool,
}

/// The file, as the one process that owns the directory sees it.
#[derive(Debug)]
pub struct StateFile {
    dir: PathBuf,
    state: NodeState,
}

impl StateFile {
    /// The state without a start, for those who only look; `None` if there is none.
    ///
    /// # Errors
    /// A [`Fault`] if it cannot be read.
    pub fn peek(dir: &Path) -> Result<Option<NodeState>, Fault> {
        let path = dir.join(NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Fault::file(&path, "read", &e)),
        };
        match toml::from_str::<NodeState>(&text) {
            Ok(state) if state.format == FORMAT => Ok(Some(state)),
            Ok(state) => Err(Fault::new(
                format!("the data directory {} has another format", dir.display()),
                format!("it is of format {}, this ringd reads format {FORMAT}", state.format),
                "start the version of ringd that wrote it, or choose another node.data_dir",
            )),
            Err(e) => Err(Fault::new(
                format!("{} cannot be understood", path.display()),
                e.message().to_owned(),
                "restore the file, or empty the data directory and let the node fetch its data",
            )),
        }
    }

    /// Checks whose data these are, before anything is opened, and makes the directory.
    ///
    /// # Errors
    /// A [`Fault`] if the data are another node's or cluster's, or of another format.
    pub fn check(dir: &Path, owner: &Owner<'_>) -> Result<(), Fault> {
        fs::create_dir_all(dir).map_err(|e| Fault::file(dir, "create", &e))?;
        Self::peek(dir)?.map_or(Ok(()), |old| belongs(dir, &old, owner))
    }

    /// Begins a life: takes a new incarnation unless the last life ended cleanly, and puts it on
    /// disk. The caller holds the lock of the data. `damaged` says that the store has lost some.
    ///
    /// # Errors
    /// As [`StateFile::check`], or the disk refuses.
    pub fn begin(
        dir: &Path,
        owner: &Owner<'_>,
        damaged: bool,
        now: WallMillis,
    ) -> Result<(Self, Start), Fault> {
        Self::check(dir, owner)?;
        let boot_id = boot_id();
        let old = Self::peek(dir)?;
        let Owner { cluster, node, name } = *owner;
        let first = old.is_none();
        let hlc_floor = old.as_ref().map_or(WallMillis(0), |o| floor(o, now));
        let forgot = |o: &NodeState| o.amnesia || (!o.clean && o.boot_id != boot_id);
        let amnesia = damaged || old.as_ref().is_some_and(forgot);
        let resumed = old.as_ref().is_some_and(|o| o.clean && !damaged);
        let incarnation = match &old {
            None => Incarnation(1),
            Some(o) => Incarnation(o.incarnation.0 + u32::from(!resumed)),
        };
        let ahead = WallMillis(now.0 + crate::limits::CEILING_AHEAD_MS);
        let state = NodeState {
            format: FORMAT,
            keyspaces: old.as_ref().map(|o| o.keyspaces.clone()).unwrap_or_default(),
            cluster: old
                .map(|o| o.cluster)
                .or(cluster)
                .unwrap_or_else(|| ClusterId(rand::random())),
            node,
            name: name.to_owned(),
            incarnation,
            clean: false,
            amnesia,
            hlc_ceiling: ahead.max(hlc_floor),
            boot_id,
        };
        let mut file = Self { dir: dir.to_owned(), state: state.clone() };
        file.write().map_err(|e| Fault::file(&dir.join(NAME), "write", &e))?;
        Ok((file, Start { state, hlc_floor, first, resumed }))
    }

    /// Puts a higher ceiling on disk; returns the one that holds then.
    ///
    /// # Errors
    /// The disk's; the ceiling on disk is then unknown but no lower than it was.
    pub fn raise_ceiling(&mut self, to: WallMillis) -> io::Result<WallMillis> {
        if to > self.state.hlc_ceiling {
            self.state.hlc_ceiling = to;
            self.write()?;
        }
        Ok(self.state.hlc_ceiling)
    }

    /// Takes what is newer in a register of keyspaces; returns all that is on disk then.
    ///
    /// # Errors
    /// The disk's; what is on it then is the one or the other.
    pub fn keep_keyspaces(&mut self, register: &Register) -> io::Result<&Register> {
        let before = self.state.keyspaces.clone();
        if self.state.keyspaces.merge(register)
            && let Err(e) = self.write()
        {
            // So that the next attempt writes it, and does not find it here.
            self.state.keyspaces = before;
            return Err(e);
        }
        Ok(&self.state.keyspaces)
    }

    /// Everything that may have been missing here was pulled from the other replicas.
    ///
    /// # Errors
    /// The disk's; the next start pulls again.
    pub fn recovered(&mut self) -> io::Result<()> {
        if self.state.amnesia {
            self.state.amnesia = false;
            self.write()?;
        }
        Ok(())
    }

    /// Marks the life as ended with everything on disk, and `last` as the highest stamp that it
    /// minted. The caller made sure of both.
    ///
    /// # Errors
    /// The disk's.
    pub fn end(&mut self, last: WallMillis) -> io::Result<()> {
        self.state.clean = true;
        self.state.hlc_ceiling = last;
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        let text = toml::to_string(&self.state).map_err(io::Error::other)?;
        let (path, tmp) = (self.dir.join(NAME), self.dir.join(format!("{NAME}.tmp")));
        let mut file = File::create(&tmp)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&tmp, &path)?;
        File::open(&self.dir)?.sync_all()
    }
}

/// Where the stamps of the life that begins now start.
///
/// A clean end says how far its stamps went. After any other end only the ceiling is known, which
/// was kept some seconds ahead of the clock: as long as the clock stands within these seconds it
/// has gone on honestly, and starting at the ceiling would only make peers refuse stamps from the
/// future (what the log holds is known besides). A ceiling further ahead means that the clock was
/// set back; then no stamp may be minted below it.
fn floor(old: &NodeState, now: WallMillis) -> WallMillis {
    // Stamps merged from peers may lead our clock, and the ceiling leads the stamps.
    let lead = 2 * ring::hlc::MAX_OFFSET.as_millis() as u64;
    let honest = old.hlc_ceiling.0 <= now.0 + crate::limits::CEILING_AHEAD_MS + lead;
    if !old.clean && honest { old.hlc_ceiling.min(now) } else { old.hlc_ceiling }
}

fn belongs(dir: &Path, old: &NodeState, owner: &Owner<'_>) -> Result<(), Fault> {
    let Owner { cluster, node, name } = *owner;
    let fix = "point node.data_dir to this node's own directory, or to an empty one";
    if let Some(cluster) = cluster.filter(|c| *c != old.cluster) {
        return Err(Fault::new(
            format!("the data directory {} belongs to another cluster", dir.display()),
            format!("its data are of cluster {}, the configuration says {cluster}", old.cluster),
            fix,
        ));
    }
    if old.node != node || old.name != name {
        let NodeState { node: number, name: other, .. } = old;
        return Err(Fault::new(
            format!("the data directory {} belongs to another node", dir.display()),
            format!(
                "its data are of {other} (node {number}), the configuration says {name} ({node})"
            ),
            fix,
        ));
    }
    Ok(())
}

/// Names the current start of the machine; empty where the system does not tell.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner<'_> = Owner { cluster: Some(ClusterId(7)), node: NodeId(1), name: "n1" };

    fn begin(dir: &Path) -> (StateFile, Start) {
        StateFile::begin(dir, &OWNER, false, WallMillis(1_000)).expect("may begin")
    }

    #[test]
    fn every_life_has_its_own_number_unless_the_last_one_ended_cleanly() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut file, start) = begin(dir.path());
        assert!(start.first && start.state.incarnation == Incarnation(1));
        file.end(WallMillis(900)).expect("written");
        let (_, start) = begin(dir.path());
        assert_eq!(start.state.incarnation, Incarnation(1));
        assert!(start.resumed);
        // That life ends without a word.
        let (_, start) = begin(dir.path());
        assert_eq!(start.state.incarnation, Incarnation(2));
        assert!(!start.resumed);
        assert!(!start.state.amnesia, "the machine did not restart");
    }

    #[test]
    fn what_was_set_of_keyspaces_is_there_after_any_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut file, start) = begin(dir.path());
        assert!(start.state.keyspaces.is_empty());
        let setting = |version, ttl_ms| ring::Setting {
            version,
            writer: ring::Actor::new(1, 1),
            at: WallMillis(5),
            by: "admin".into(),
            closed: false,
            terms: Some(ring::KeyspacePolicy { ttl_ms, ..ring::KeyspacePolicy::default() }),
        };
        let mut register = Register::default();
        register.put(ring::Scope::Keyspace(4), setting(2, Some(1_000)));
        register.put(ring::Scope::Default, ring::Setting { terms: None, ..setting(1, None) });
        file.keep_keyspaces(&register).expect("written");
        let mut older = Register::default();
        older.put(ring::Scope::Keyspace(4), setting(1, None));
        assert_eq!(file.keep_keyspaces(&older).expect("written"), &register);
        let (mut file, start) = begin(dir.path());
        assert_eq!(start.state.keyspaces, register);
        file.raise_ceiling(WallMillis(1_000_000)).expect("written");
        file.end(WallMillis(900)).expect("written");
        assert_eq!(begin(dir.path()).1.state.keyspaces, register);
    }

    #[test]
    fn the_ceiling_never_falls() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut file, _) = begin(dir.path());
        file.raise_ceiling(WallMillis(1_000_000)).expect("written");
        file.raise_ceiling(WallMillis(5)).expect("written");
        let (_, start) = begin(dir.path());
        assert_eq!(start.hlc_floor, WallMillis(1_000_000), "the clock was set back");
        assert_eq!(start.state.hlc_ceiling, WallMillis(1_000_000));
    }

    #[test]
    fn a_killed_node_goes_on_at_its_clock_and_a_stopped_one_where_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut file, start) = begin(dir.path());
        assert!(start.state.hlc_ceiling > WallMillis(1_000));
        assert_eq!(begin(dir.path()).1.hlc_floor, WallMillis(1_000));
        file.end(WallMillis(1_200)).expect("written");
        assert_eq!(begin(dir.path()).1.hlc_floor, WallMillis(1_200));
    }

    #[test]
    fn a_restart_of_the_machine_is_noticed_only_if_the_life_was_not_ended() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut file, _) = begin(dir.path());
        file.state.boot_id = "another".into();
        file.write().expect("written");
        assert!(begin(dir.path()).1.state.amnesia);
        // Killed before it had pulled everything: it still may lack some.
        let (mut file, start) = begin(dir.path());
        assert!(start.state.amnesia);
        file.recovered().expect("written");
        assert!(!begin(dir.path()).1.state.amnesia);
        file.end(WallMillis(900)).expect("written");
        assert!(!begin(dir.path()).1.state.amnesia);
    }

    #[test]
    fn data_of_others_are_refused_in_three_lines() {
        let dir = tempfile::tempdir().expect("a directory");
        begin(dir.path());
        let other = Owner { cluster: Some(ClusterId(8)), ..OWNER };
        let text = StateFile::check(dir.path(), &other).expect_err("refused").to_string();
        assert!(text.contains("another cluster") && text.lines().count() == 3, "{text}");
        let other = Owner { node: NodeId(2), name: "n2", ..OWNER };
        let text = StateFile::check(dir.path(), &other).expect_err("refused").to_string();
        assert!(text.contains("another node") && text.lines().count() == 3, "{text}");
    }
}
