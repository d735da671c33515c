//! Keyspace: what a keyspace promises its clients, and how many answers each promise takes.
//!
//! A level becomes a [`Needs`] for one slot: so many answers in all, so many from each region. The
//! needs are exact: fewer answers never suffice. What cannot be promised yet (ANY, SERIAL) and what
//! a slot cannot give (THREE of two copies, LOCAL_* without a copy near) is refused with a text that
//! says what, why, and what to use instead.

use core::fmt::{self, Write};
use core::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::NodeId;
use crate::layout::Layout;
use crate::limits::{COPIES_DEFAULT, COPIES_MAX, TTL_MS_MAX};

const DAY_MS: u64 = 86_400_000;

/// How many answers, and whose, a request waits for. Written as in Redis style commands: ONE,
/// LOCAL_QUORUM, …, or a number; case does not matter when reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// One copy.
    One,
    /// Two copies.
    Two,
    /// Three copies.
    Three,
    /// A majority of the copies.
    Quorum,
    /// Every copy.
    All,
    /// One copy in the coordinator's region.
    LocalOne,
    /// A majority of the copies in the coordinator's region.
    LocalQuorum,
    /// In every region that has copies, a majority of them.
    EachQuorum,
    /// A write is done once anybody has noted it. Refused until hints exist.
    Any,
    /// Linearizable. Refused until compare-and-set exists.
    Serial,
    /// Linearizable within the region. Refused until compare-and-set exists.
    LocalSerial,
    /// This many copies.
    Count(u8),
}

const NAMES: [(Level, &str); 11] = [
    (Level::One, "ONE"),
    (Level::Two, "TWO"),
    (Level::Three, "THREE"),
    (Level::Quorum, "QUORUM"),
    (Level::All, "ALL"),
    (Level::LocalOne, "LOCAL_ONE"),
    (Level::LocalQuorum, "LOCAL_QUORUM"),
    (Level::EachQuorum, "EACH_QUORUM"),
    (Level::Any, "ANY"),
    (Level::Serial, "SERIAL"),
    (Level::LocalSerial, "LOCAL_SERIAL"),
];

/// The number of copies that makes a majority of `copies`.
#[must_use]
pub const fn majority(copies: u8) -> u8 {
    copies / 2 + 1
}

impl Level {
    /// How many answers of `n` copies this level needs, wherever they come from.
    ///
    /// For LOCAL_* and EACH_QUORUM this is the figure of a cluster with a single region;
    /// [`Level::needs`] knows regions.
    ///
    /// # Errors
    /// [`LevelError`] if there are fewer copies than that, or the level does not exist yet.
    pub fn needed(self, n: u8) -> Result<u8, LevelError> {
        let needed = match self {
            Self::One | Self::LocalOne => 1,
            Self::Two => 2,
            Self::Three => 3,
            Self::Quorum | Self::LocalQuorum | Self::EachQuorum => majority(n),
            Self::All => n.max(1),
            Self::Count(count) => count,
            Self::Any => return Err(LevelError::NoHintsYet),
            Self::Serial | Self::LocalSerial => {
                return Err(LevelError::NoCompareAndSetYet { level: self });
            }
        };
        if needed == 0 {
            return Err(LevelError::Zero);
        }
        if needed > n {
            return Err(LevelError::TooFewCopies { level: self, needed, copies: n });
        }
        Ok(needed)
    }

    /// What this level takes for a slot kept by `replicas`, when a node in region `local`
    /// coordinates.
    ///
    /// # Errors
    /// As [`Level::needed`]; [`LevelError::NoLocalCopy`] if LOCAL_* finds no copy in `local`.
    pub fn needs(
        self,
        layout: &Layout,
        local: &str,
        replicas: &[NodeId],
    ) -> Result<Needs, LevelError> {
        let copies = u8::try_from(replicas.len()).unwrap_or(u8::MAX);
        let total = self.needed(copies)?;
        let region = |node: &NodeId| layout.region_of(*node).unwrap_or_default();
        let share = |name: &str| {
            let here = |(_, node): &(usize, &NodeId)| region(node) == name;
            let of = replicas.iter().enumerate().filter(here).map(|(i, _)| i).collect();
            RegionNeeds { needed: 0, region: name.to_owned(), of }
        };
        match self {
            Self::LocalOne | Self::LocalQuorum => {
                let of: ReplicaSet = share(local).of;
                if of.len() == 0 {
                    return Err(LevelError::NoLocalCopy { level: self, region: local.to_owned() });
                }
                let needed = if self == Self::LocalOne { 1 } else { majority(of.len()) };
                let region = local.to_owned();
                Ok(Needs { total: needed, per_region: vec![RegionNeeds { needed, region, of }] })
            }
            Self::EachQuorum => {
                let mut per_region: Vec<RegionNeeds> = Vec::new();
                for name in replicas.iter().map(region) {
                    if per_region.iter().all(|r| r.region != name) {
                        let share = share(name);
                        per_region.push(RegionNeeds { needed: majority(share.of.len()), ..share });
                    }
                }
                let total = per_region.iter().map(|r| r.needed).sum();
                Ok(Needs { total, per_region })
            }
            Self::One | Self::Two | Self::Three | Self::Quorum | Self::All | Self::Count(_) => {
                Ok(Needs { total, per_region: Vec::new() })
            }
            Self::Any | Self::Serial | Self::LocalSerial => {
                unreachable!("{self} was refused above")
            }
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Count(count) = self {
            return write!(f, "{count}");
        }
        let name = NAMES.iter().find(|(level, _)| level == self).map(|(_, name)| *name);
        f.write_str(name.expect("every level but a number has a name"))
    }
}

impl FromStr for Level {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        if let Some((level, _)) = NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)) {
            return Ok(*level);
        }
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(0) if digits => Err(LevelError::Zero),
            Ok(count) if digits && count <= COPIES_MAX => Ok(Self::Count(count)),
            Ok(_) | Err(_) => Err(LevelError::Unknown { text: text.to_owned() }),
        }
    }
}

/// Some of the replicas of a slot, by their place in its preference list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaSet(u8);

impl ReplicaSet {
    /// Nobody.
    pub const EMPTY: Self = Self(0);

    /// Adds the replica in place `index` (below 8); false if it was there.
    pub fn insert(&mut self, index: usize) -> bool {
        assert!(index < 8, "a slot has at most {COPIES_MAX} replicas, and {index} was named");
        let before = self.0;
        self.0 |= 1 << index;
        self.0 != before
    }

    /// Whether the replica in place `index` is in the set.
    #[must_use]
    pub const fn contains(self, index: usize) -> bool {
        index < 8 && self.0 & (1 << index) != 0
    }

    /// How many are in the set.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a count of answers, not a container")]
    pub const fn len(self) -> u8 {
        self.0.count_ones() as u8
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromIterator<usize> for ReplicaSet {
    fn from_iter<I: IntoIterator<Item = usize>>(indexes: I) -> Self {
        let mut set = Self::EMPTY;
        for index in indexes {
            set.insert(index);
        }
        set
    }
}

/// The answers that one request waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// At least this many in all.
    pub total: u8,
    /// And these; empty if regions do not matter.
    pub per_region: Vec<RegionNeeds>,
}

/// The answers that one request waits for from one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionNeeds {
    /// Which region.
    pub region: String,
    /// At least this many …
    pub needed: u8,
    /// … of these replicas: those of the slot that lie in the region.
    pub of: ReplicaSet,
}

impl Needs {
    /// `total` answers, wherever they come from.
    #[must_use]
    pub const fn anywhere(total: u8) -> Self {
        Self { total, per_region: Vec::new() }
    }

    /// Whether these answers suffice. Before they came, with everybody who is up instead: whether
    /// they still can.
    #[must_use]
    pub fn is_met_by(&self, answered: ReplicaSet) -> bool {
        let enough_in = |region: &RegionNeeds| answered.and(region.of).len() >= region.needed;
        answered.len() >= self.total && self.per_region.iter().all(enough_in)
    }

    /// How many answers count towards these needs so far: what to report as `acked` when they do
    /// not suffice. Surplus answers of one region do not stand in for those of another.
    #[must_use]
    pub fn counted(&self, answered: ReplicaSet) -> u8 {
        if self.per_region.is_empty() {
            return answered.len().min(self.total);
        }
        self.per_region.iter().map(|r| answered.and(r.of).len().min(r.needed)).sum()
    }
}

/// Why a level is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LevelError {
    /// No such level.
    Unknown {
        /// What was asked for.
        text: String,
    },
    /// Nobody waits for no answer.
    Zero,
    /// The level needs more copies than there are.
    TooFewCopies {
        /// The level.
        level: Level,
        /// What it takes.
        needed: u8,
        /// What there is.
        copies: u8,
    },
    /// No copy of the slot lies in the coordinator's region.
    NoLocalCopy {
        /// The level.
        level: Level,
        /// The coordinator's region.
        region: String,
    },
    /// ANY would rest on hints, and there are none yet.
    NoHintsYet,
    /// The level would rest on compare-and-set, and there is none yet.
    NoCompareAndSetYet {
        /// SERIAL or LOCAL_SERIAL.
        level: Level,
    },
}

impl fmt::Display for LevelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { text } => {
                write!(f, "unknown consistency level {text:?}: use ")?;
                for (_, name) in NAMES {
                    write!(f, "{name}, ")?;
                }
                write!(f, "or a number of copies from 1 to {COPIES_MAX}")
            }
            Self::Zero => f.write_str("a request waits for at least one copy: use ONE or more"),
            Self::TooFewCopies { level, needed, copies } => write!(
                f,
                "{level} needs {needed} copies and the keyspace has {copies}: use QUORUM or ALL"
            ),
            Self::NoLocalCopy { level, region } => write!(
                f,
                "{level} needs a copy in region {region} and this key has none there: use \
                 QUORUM, or ask a node in a region that has one"
            ),
            Self::NoHintsYet => f.write_str(
                "ANY is not available: it rests on hints, which this version does not keep; use \
                 ONE, which waits for one real copy",
            ),
            Self::NoCompareAndSetYet { level } => write!(
                f,
                "{level} is not available: it rests on compare-and-set, which this version does \
                 not have; use QUORUM for reads and writes, which is not linearizable under \
                 concurrent writes",
            ),
        }
    }
}

impl core::error::Error for LevelError {}

/// When a replica says that a write is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Once the operating system has it; it reaches the disk within about a second. A crash of the
    /// process loses nothing, a power cut may lose that second.
    #[default]
    Os,
    /// Once it is on disk.
    Sync,
}

/// What a write without a context makes of values that its client may not have seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Conflict {
    /// It replaces all that its coordinator has seen; among true concurrents the last writer wins, by
    /// its clock.
    #[default]
    Lww,
    /// It goes beside them. Clients see them all, and resolve them by a write with the context of that
    /// read.
    Siblings,
}

/// The text names no value of this setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSetting {
    /// Which setting.
    pub setting: &'static str,
    /// What was asked for.
    pub text: String,
    /// What exists.
    pub choices: &'static str,
}

impl fmt::Display for UnknownSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown {} {:?}: use {}", self.setting, self.text, self.choices)
    }
}

impl core::error::Error for UnknownSetting {}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Os => "os",
            Self::Sync => "sync",
        })
    }
}

impl FromStr for Durability {
    type Err = UnknownSetting;

    fn from_str(text: &str) -> Result<Self, UnknownSetting> {
        match text.to_ascii_lowercase().as_str() {
            "os" => Ok(Self::Os),
            "sync" => Ok(Self::Sync),
            _ => Err(UnknownSetting {
                setting: "durability",
                text: text.to_owned(),
                choices: "os or sync",
            }),
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lww => "lww",
            Self::Siblings => "siblings",
        })
    }
}

impl FromStr for Conflict {
    type Err = UnknownSetting;

    fn from_str(text: &str) -> Result<Self, UnknownSetting> {
        match text.to_ascii_lowercase().as_str() {
            "lww" => Ok(Self::Lww),
            "siblings" => Ok(Self::Siblings),
            _ => Err(UnknownSetting {
                setting: "conflict resolution",
                text: text.to_owned(),
                choices: "lww or siblings",
            }),
        }
    }
}

/// Settings travel and rest as their text; reading and writing one allocates nothing.
macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut text: SmallText = SmallText::default();
                match write!(text, "{self}") {
                    Ok(()) => serializer.serialize_str(text.as_str()),
                    Err(fmt::Error) => serializer.collect_str(self),
                }
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a text")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    )*};
}

/// Room for the text of a setting.
#[derive(Default)]
struct SmallText {
    bytes: [u8; 16],
    len: usize,
}

impl SmallText {
    fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl Write for SmallText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

serde_as_text!(Level, Durability, Conflict);

/// What a keyspace promises unless a request says otherwise. Quorums are strict: nobody but the
/// slot's own replicas counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyspacePolicy {
    /// Copies of each key (N): a prefix of the slot's preference list.
    pub n: u8,
    /// The level of reads (R).
    pub read: Level,
    /// The level of writes (W).
    pub write: Level,
    /// When a write counts as there.
    pub durability: Durability,
    /// What becomes of concurrent values.
    pub conflict: Conflict,
    /// How long a key lives, in milliseconds, whose writer says nothing of it; for ever if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

impl Default for KeyspacePolicy {
    fn default() -> Self {
        Self {
            n: COPIES_DEFAULT,
            read: Level::Quorum,
            write: Level::Quorum,
            durability: Durability::Os,
            conflict: Conflict::Lww,
            ttl_ms: None,
        }
    }
}

/// Why a policy is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyError {
    /// There cannot be so many copies.
    Copies {
        /// What was asked for.
        n: u8,
        /// The number of copies that the cluster keeps.
        most: u8,
    },
    /// The default level of reads or writes cannot be.
    Level {
        /// `read` or `write`.
        of: &'static str,
        /// Why.
        why: LevelError,
    },
    /// Keys cannot live for so short, or for so long.
    Ttl {
        /// What was asked for, in milliseconds.
        ms: u64,
    },
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copies { n, most } => {
                write!(f, "{n} copies of a key, and the cluster keeps 1 to {most}")
            }
            Self::Level { of, why } => write!(f, "the {of} level: {why}"),
            Self::Ttl { ms } => {
                write!(f, "keys cannot live for {ms} ms: from 1 ms to {} days", TTL_MS_MAX / DAY_MS)
            }
        }
    }
}

impl core::error::Error for PolicyError {}

impl KeyspacePolicy {
    /// Checks the policy against a cluster that keeps `copies` copies.
    ///
    /// # Errors
    /// [`PolicyError`] if it asks for more copies, or for a level that these copies cannot give.
    pub fn validate(&self, copies: u8) -> Result<(), PolicyError> {
        if self.n == 0 || self.n > copies {
            return Err(PolicyError::Copies { n: self.n, most: copies });
        }
        for (of, level) in [("read", self.read), ("write", self.write)] {
            level.needed(self.n).map_err(|why| PolicyError::Level { of, why })?;
        }
        if let Some(ms) = self.ttl_ms.filter(|ms| *ms == 0 || *ms > TTL_MS_MAX) {
            return Err(PolicyError::Ttl { ms });
        }
        Ok(())
    }

    /// Whether every read meets every write that was acknowledged before: R + W > N.
    #[must_use]
    pub fn reads_meet_writes(&self) -> bool {
        match (self.read.needed(self.n), self.write.needed(self.n)) {
            (Ok(read), Ok(write)) => self.levels_are_global() && read + write > self.n,
            (Err(_), _) | (_, Err(_)) => false,
        }
    }

    /// LOCAL_* levels of two regions need not meet.
    fn levels_are_global(&self) -> bool {
        let local = |level| matches!(level, Level::LocalOne | Level::LocalQuorum);
        !local(self.read) && !local(self.write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{ClusterId, Member};

    #[test]
    fn every_level_is_read_back_as_it_is_written() {
        for (level, name) in NAMES {
            assert_eq!(level.to_string(), name);
            assert_eq!(name.to_lowercase().parse(), Ok(level));
        }
        assert_eq!("2".parse(), Ok(Level::Count(2)));
        assert_eq!(Level::Count(2).to_string(), "2");
        for bad in ["", "0", "+1", "8", "300", "QUORUMS", "LOCAL-QUORUM", " ONE"] {
            assert!(bad.parse::<Level>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_level_needs_what_its_name_says_or_is_refused() {
        let table = [
            (Level::One, [Some(1), Some(1), Some(1), Some(1)]),
            (Level::Two, [None, Some(2), Some(2), Some(2)]),
            (Level::Three, [None, None, Some(3), Some(3)]),
            (Level::Quorum, [Some(1), Some(2), Some(2), Some(3)]),
            (Level::All, [Some(1), Some(2), Some(3), Some(4)]),
            (Level::Count(3), [None, None, Some(3), Some(3)]),
            (Level::Any, [None; 4]),
            (Level::Serial, [None; 4]),
            (Level::LocalSerial, [None; 4]),
        ];
        for (level, expected) in table {
            for (n, expected) in (1..).zip(expected) {
                assert_eq!(level.needed(n).ok(), expected, "{level} of {n}");
            }
            assert!(level.needed(0).is_err(), "{level} of none");
        }
    }

    #[test]
    fn a_refusal_says_what_to_use_instead() {
        for (level, word) in [(Level::Any, "use ONE"), (Level::Serial, "use QUORUM")] {
            let text = level.needed(3).expect_err("refused").to_string();
            assert!(text.contains(word) && text.contains(&level.to_string()), "{text}");
        }
        let text = Level::Three.needed(2).expect_err("refused").to_string();
        assert_eq!(text, "THREE needs 3 copies and the keyspace has 2: use QUORUM or ALL");
    }

    /// Nodes 1, 2, 3 in `eu`, nodes 4, 5 in `us`.
    fn two_regions() -> (Layout, Vec<NodeId>) {
        let member = |i: u32| Member {
            region: if i <= 3 { "eu" } else { "us" }.to_owned(),
            ..Member::new(format!("n{i}"), format!("host{i}:7400"))
        };
        let layout = Layout::genesis(ClusterId(1), 5, (1..=5).map(member)).expect("sound");
        (layout, (1..=5).map(NodeId).collect())
    }

    fn set(indexes: &[usize]) -> ReplicaSet {
        indexes.iter().copied().collect()
    }

    #[test]
    fn local_levels_count_only_their_region() {
        let (layout, replicas) = two_regions();
        let needs = Level::LocalQuorum.needs(&layout, "eu", &replicas).expect("possible");
        assert!(needs.is_met_by(set(&[0, 2])));
        assert!(!needs.is_met_by(set(&[0, 3, 4])), "us does not stand in for eu");
        assert_eq!(needs.counted(set(&[0, 3, 4])), 1);
        let needs = Level::LocalQuorum.needs(&layout, "us", &replicas).expect("possible");
        assert!(!needs.is_met_by(set(&[3])) && needs.is_met_by(set(&[3, 4])));
        let needs = Level::LocalOne.needs(&layout, "us", &replicas).expect("possible");
        assert!(needs.is_met_by(set(&[4])) && !needs.is_met_by(set(&[0, 1, 2])));
        let refused = Level::LocalOne.needs(&layout, "asia", &replicas);
        assert!(matches!(refused, Err(LevelError::NoLocalCopy { .. })), "{refused:?}");
    }

    #[test]
    fn each_quorum_takes_a_majority_in_every_region() {
        let (layout, replicas) = two_regions();
        let needs = Level::EachQuorum.needs(&layout, "eu", &replicas).expect("possible");
        assert_eq!(needs.total, 4);
        assert!(needs.is_met_by(set(&[0, 1, 3, 4])));
        assert!(!needs.is_met_by(set(&[0, 1, 2, 3])), "one of two is no majority");
        assert_eq!(needs.counted(set(&[0, 1, 2, 3])), 3);
    }

    #[test]
    fn global_levels_do_not_ask_where_an_answer_comes_from() {
        let (layout, replicas) = two_regions();
        let needs = Level::Quorum.needs(&layout, "asia", &replicas).expect("possible");
        assert_eq!(needs, Needs::anywhere(3));
        for bits in 0..32_u8 {
            let answered = ReplicaSet(bits);
            assert_eq!(needs.is_met_by(answered), bits.count_ones() >= 3);
        }
    }

    #[test]
    fn the_default_policy_reads_what_it_wrote_and_a_bad_one_is_refused() {
        let policy = KeyspacePolicy::default();
        assert_eq!(policy.validate(3), Ok(()));
        assert!(policy.reads_meet_writes());
        let one = KeyspacePolicy { read: Level::One, ..policy };
        assert!(!one.reads_meet_writes());
        assert!(KeyspacePolicy { n: 4, ..policy }.validate(3).is_err());
        assert!(KeyspacePolicy { ttl_ms: Some(0), ..policy }.validate(3).is_err());
        assert!(KeyspacePolicy { write: Level::Any, ..policy }.validate(3).is_err());
        assert!(KeyspacePolicy { n: 2, write: Level::Three, ..policy }.validate(3).is_err());
    }
}
