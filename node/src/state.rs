//! State: the few things that a node must remember about itself, in `node.state`.
//!
//! Written whole: into a spare file, fsync, the two exchange their names, fsync of the directory. The spare has
//! its room from the write before, so that a disk that has become full keeps no node from
//! starting. Promises: an incarnation
//! is on disk before anything is minted under it, and is used by one life only, unless the life
//! before ended with everything on disk and said so (`clean`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ring::{ClusterId, Incarnation, NodeId, Register, WallMillis};
use serde::{Deserialize, Serialize};

use crate::checkpoints::Mark;
use crate::error::Fault;

/// The version of everything in a data directory.
const FORMAT: u32 = 1;

const NAME: &str = "node.state";

/// What is written next has this name first, and what it replaced has it afterwards.
const SPARE: &str = "node.state.spare";

/// Files have so many bytes, or a multiple: what is written is seldom longer than what it replaces.
const BYTES: usize = 4096;

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
    /// What the directory says is on disk: else the spare may be what a loss of power brings back.
    names_kept: bool,
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

    /// Checks whose data these are, before anything is opened, and makes the directory. `restored` is the
    /// mark of the checkpoint that was put in the store's place.
    ///
    /// # Errors
    /// A [`Fault`] if the data are another node's or cluster's, or of another format.
    pub fn check(dir: &Path, owner: &Owner<'_>, restored: Option<&Mark>) -> Result<(), Fault> {
        fs::create_dir_all(dir).map_err(|e| Fault::file(dir, "create", &e))?;
        let old = Self::peek(dir)?;
        let cluster = owner.cluster.or(old.as_ref().map(|old| old.cluster));
        let owner = Owner { cluster, ..*owner };
        old.iter().chain(restored.map(|m| &m.state)).try_for_each(|of| belongs(dir, of, &owner))
    }

    /// Begins a life: takes a new incarnation unless the last life ended cleanly, and puts it on
    /// disk. The caller holds the lock of the data. `damaged` says that the store has lost some, `restored` that it
    /// is a checkpoint: what was acknowledged after it is missing, and no life since may be lived again.
    ///
    /// # Errors
    /// As [`StateFile::check`], or the disk refuses.
    pub fn begin(
        dir: &Path,
        owner: &Owner<'_>,
        damaged: bool,
        restored: Option<&Mark>,
        now: WallMillis,
    ) -> Result<(Self, Start), Fault> {
        Self::check(dir, owner, restored)?;
        let boot_id = boot_id();
        let old = match restored {
            Some(mark) => Some(last_life(Self::peek(dir)?, mark, now)),
            None => Self::peek(dir)?,
        };
        let damaged = damaged || restored.is_some();
        let Owner { cluster, node, name } = *owner;
        let first = old.is_none();
        let hlc_floor = old.as_ref().map_or(WallMillis(0), |o| floor(o, now));
        let forgot = |o: &NodeState| o.amnesia || (!o.clean && o.boot_id != boot_id);
        let amnesia = damaged || old.as_ref().is_some_and(forgot);
        let resumed = old.as_ref().is_some_and(|o| o.clean && !damaged);
        let incarnation = match &old {
            None => Incarnation(1),
            Some(o) if resumed => o.incarnation,
            Some(o) => o.incarnation.0.checked_add(1).map(Incarnation).ok_or_else(no_life_left)?,
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
        let mut file = Self { dir: dir.to_owned(), state: state.clone(), names_kept: false };
        file.write().map_err(|e| Fault::file(&dir.join(NAME), "write", &e))?;
        Ok((file, Start { state, hlc_floor, first, resumed }))
    }

    /// Puts a higher ceiling on disk; returns the one that holds then.
    ///
    /// # Errors
    /// The disk's; the ceiling on disk is then unknown but no lower than it was.
    pub fn raise_ceiling(&mut self, to: WallMillis) -> io::Result<WallMillis> {
        let before = self.state.hlc_ceiling;
        if to > before {
            self.state.hlc_ceiling = to;
            // So that nobody who wishes less is told that it holds.
            self.write().inspect_err(|_| self.state.hlc_ceiling = before)?;
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
        let mut text = toml::to_string(&self.state).map_err(io::Error::other)?.into_bytes();
        let (path, spare) = (self.dir.join(NAME), self.dir.join(SPARE));
        if !self.names_kept {
            File::open(&self.dir)?.sync_all()?;
        }
        // Not cut: a file that was cut would have to be given its room again.
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(false).open(&spare)?;
        let has = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        // Empty lines are no part of what TOML says.
        text.resize(text.len().max(has).next_multiple_of(BYTES), b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        self.names_kept = false;
        if exchange(&spare, &path).is_err() {
            fs::rename(&spare, &path)?;
            let room = |mut file: File| file.write_all(&text).and_then(|()| file.sync_all());
            // Without it the next write has to find room, as this one had.
            drop(File::create(&spare).and_then(room));
        }
        File::open(&self.dir)?.sync_all()?;
        self.names_kept = true;
        Ok(())
    }
}

/// Lives are counted in 32 bits; only a clock that was years ahead brings anybody near their end.
fn no_life_left() -> Fault {
    Fault::new(
        "this node cannot begin another life",
        format!("its lives are counted, and it has had {} of them by its own account", u32::MAX),
        "was a checkpoint put in place while the clock was years ahead? set the clock, and put node.state and the \
         store of before back; else start the node under a new name",
    )
}

/// Gives each the other's name. Fails where there is only one, and on file systems that cannot.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
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

/// What is known of the last life of a node whose store is a checkpoint. Its state may have gone with the disk, or be as
/// old as the checkpoint: then it is not known how many lives there were since. A life lasts a second or more, so there
/// were no more than seconds. (Were that wrong, a peer that holds writes of the life would end the node.)
fn last_life(known: Option<NodeState>, mark: &Mark, now: WallMillis) -> NodeState {
    let seconds = u32::try_from(now.0.saturating_sub(mark.at.0) / 1_000).unwrap_or(u32::MAX);
    let at_most = Incarnation(mark.state.incarnation.0.saturating_add(seconds));
    let known = known.filter(|known| known.incarnation >= mark.state.incarnation);
    let mut last = known.unwrap_or_else(|| NodeState { clean: false, ..mark.state.clone() });
    last.incarnation = last.incarnation.max(at_most);
    last.keyspaces.merge(&mark.state.keyspaces);
    last
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
        begin_on(dir, None)
    }

    fn begin_on(dir: &Path, restored: Option<&Mark>) -> (StateFile, Start) {
        StateFile::begin(dir, &OWNER, false, restored, WallMillis(1_000)).expect("may begin")
    }

    fn mark(dir: &Path) -> Mark {
        let state = StateFile::peek(dir).expect("readable").expect("there");
        Mark { at: WallMillis(1_000), state }
    }

    #[test]
    fn a_life_on_a_checkpoint_is_none_that_was_and_has_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut file, _) = begin(dir.path());
        let mark = mark(dir.path());
        file.end(WallMillis(900)).expect("written");
        // However cleanly the last life ended: its dots are not in this store.
        let (mut file, start) = begin_on(dir.path(), Some(&mark));
        assert_eq!((start.state.incarnation, start.resumed), (Incarnation(2), false));
        assert!(start.state.amnesia && !start.first);
        assert_eq!(start.hlc_floor, WallMillis(900), "where the last life ended");
        assert!(begin(dir.path()).1.state.amnesia, "until all was pulled");
        file.end(WallMillis(1_900)).expect("written");
        assert_eq!(begin_on(dir.path(), Some(&mark)).1.state.incarnation, Incarnation(3));
    }

    #[test]
    fn where_only_a_checkpoint_is_left_its_node_goes_on_behind_all_lives_that_may_have_been() {
        let dir = tempfile::tempdir().expect("a directory");
        let (_, was) = begin(dir.path());
        let mark = mark(dir.path());
        let anew = tempfile::tempdir().expect("a directory");
        let later = WallMillis(1_000 + 60_000);
        let owner = Owner { cluster: None, ..OWNER };
        let (_, start) =
            StateFile::begin(anew.path(), &owner, true, Some(&mark), later).expect("may");
        assert_eq!(start.state.incarnation, Incarnation(62));
        assert_eq!(start.state.cluster, was.state.cluster);
        assert!(start.state.amnesia && !start.resumed && !start.first);
    }

    #[test]
    fn the_checkpoint_of_another_node_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        begin(dir.path());
        let mark = mark(dir.path());
        let refused = |mark: &Mark, what: &str| {
            let owner = Owner { cluster: None, ..OWNER };
            let text = StateFile::check(dir.path(), &owner, Some(mark)).expect_err("refused");
            assert!(text.to_string().contains(what), "{text}");
        };
        let mut other = mark.clone();
        (other.state.node, other.state.name) = (NodeId(2), "n2".into());
        refused(&other, "another node");
        refused(
            &Mark { state: NodeState { cluster: ClusterId(8), ..mark.state }, ..mark },
            "another cluster",
        );
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
    fn what_is_written_needs_no_room_that_it_does_not_have() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str| fs::metadata(dir.path().join(name)).expect("there");
        let (mut state, _) = begin(dir.path());
        let first = file(NAME).ino();
        assert_eq!(file(SPARE).len(), file(NAME).len(), "from the first write on");
        state.raise_ceiling(WallMillis(1_000_000)).expect("written");
        let both = |a: &str, b: &str| [a, b].map(|name| (file(name).ino(), file(name).len()));
        let slots = both(NAME, SPARE);
        assert!(slots[1].0 == first && slots[0].1 == slots[1].1, "{slots:?}");
        for i in 1..6 {
            state.raise_ceiling(WallMillis(1_000_000 + i)).expect("written");
            let names = if i % 2 == 0 { (NAME, SPARE) } else { (SPARE, NAME) };
            assert_eq!(both(names.0, names.1), slots, "the same two files, in turn");
            let read = StateFile::peek(dir.path()).expect("readable").expect("there");
            assert_eq!(read.hlc_ceiling, WallMillis(1_000_000 + i));
        }
        let names = fs::read_dir(dir.path()).expect("a directory").count();
        assert_eq!(names, 2, "and no third one");
        // What an older version wrote, and what a write left that was cut short.
        let text = fs::read_to_string(dir.path().join(NAME)).expect("text");
        fs::write(dir.path().join(NAME), text.trim_end()).expect("written");
        fs::write(dir.path().join(SPARE), "format").expect("written");
        assert_eq!(begin(dir.path()).1.state.incarnation, Incarnation(2));
        assert_eq!(begin(dir.path()).1.state.incarnation, Incarnation(3));
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
    fn a_ceiling_that_is_not_on_disk_is_nobodys() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut file, start) = begin(dir.path());
        let held = start.state.hlc_ceiling;
        let spare = dir.path().join(SPARE);
        fs::remove_file(&spare).expect("removed");
        fs::create_dir(&spare).expect("nothing can be written there");
        file.raise_ceiling(WallMillis(held.0 + 1_000)).expect_err("refused");
        // Another core's wish, which the first one's would have covered.
        file.raise_ceiling(WallMillis(held.0 + 500)).expect_err("refused too");
        assert_eq!(file.raise_ceiling(held).expect("it holds"), held);
        fs::remove_dir(&spare).expect("removed");
        let to = WallMillis(held.0 + 500);
        assert_eq!(file.raise_ceiling(to).expect("written"), to);
        assert_eq!(StateFile::peek(dir.path()).expect("read").expect("there").hlc_ceiling, to);
    }

    #[test]
    fn lives_do_not_begin_anew_when_they_run_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut mark = {
            begin(dir.path());
            mark(dir.path())
        };
        mark.state.incarnation = Incarnation(u32::MAX - 5);
        let later = WallMillis(60_000);
        let refused = StateFile::begin(dir.path(), &OWNER, true, Some(&mark), later);
        let text = refused.expect_err("refused").to_string();
        assert!(text.contains("another life") && text.lines().count() == 3, "{text}");
        assert_eq!(begin(dir.path()).1.state.incarnation, Incarnation(2), "nothing was touched");
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
        let text = StateFile::check(dir.path(), &other, None).expect_err("refused").to_string();
        assert!(text.contains("another cluster") && text.lines().count() == 3, "{text}");
        let other = Owner { node: NodeId(2), name: "n2", ..OWNER };
        let text = StateFile::check(dir.path(), &other, None).expect_err("refused").to_string();
        assert!(text.contains("another node") && text.lines().count() == 3, "{text}");
    }
}
