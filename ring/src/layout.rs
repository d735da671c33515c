//! Layout: the members of the cluster and the table that says who keeps which slot.
//!
//! A layout is a value with an epoch: a change makes the next one, it never edits this one in place
//! ([`Layout::next`]). Invariants, all checked by [`Layout::validate`]: a node id is allocated from
//! a counter and never twice; every node in the table is a member; no slot names a node twice. A
//! lookup is one multiplication and one slice: no search, no allocation, and no panic whatever came
//! over the wire, since a table of the wrong shape cannot be built.

use core::fmt;
use core::str::FromStr;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::assign::assign;
use crate::id::{Incarnation, NodeId};
use crate::limits::{
    ADDRESS_BYTES_MAX, CAPACITY_DEFAULT, CAPACITY_MAX, COPIES_DEFAULT, COPIES_MAX, MEMBERS_MAX,
    NAME_BYTES_MAX, REGIONS_MAX, ZONES_MAX,
};
use crate::slot::{SLOTS, Slot};

/// The version of a layout; grows by one with every change.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// Which cluster this is: drawn once at its birth, so that two clusters never mix. Written, also in
/// files and frames, as 32 hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAClusterId {
    /// What stood there.
    pub text: String,
}

impl fmt::Display for NotAClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a cluster id: 32 hexadecimal digits expected", self.text)
    }
}

impl core::error::Error for NotAClusterId {}

impl FromStr for ClusterId {
    type Err = NotAClusterId;

    fn from_str(text: &str) -> Result<Self, NotAClusterId> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(raw) if digits => Ok(Self(raw)),
            Ok(_) | Err(_) => Err(NotAClusterId { text: text.to_owned() }),
        }
    }
}

impl Serialize for ClusterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClusterId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One node of the cluster, as the layout knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its number; given by [`Layout::add`].
    pub id: NodeId,
    /// What people call it; unique in the cluster.
    pub name: String,
    /// Its life when the layout was made. It may live a later one by now; never an earlier one.
    #[serde(default = "first_incarnation")]
    pub incarnation: Incarnation,
    /// Its failure domain inside the region. Equal names in two regions are two zones.
    #[serde(default = "default_place")]
    pub zone: String,
    /// What LOCAL_* levels call local.
    #[serde(default = "default_place")]
    pub region: String,
    /// Its relative weight. 0 owns nothing: a gateway, or a node that is being emptied.
    #[serde(default = "default_capacity")]
    pub capacity: u32,
    /// Where its peers reach it over QUIC, `host:port`.
    #[serde(default)]
    pub peer: String,
    /// Where Redis clients reach it, `host:port`; empty if it serves none.
    #[serde(default)]
    pub redis: String,
    /// Where metrics and health are served, `host:port`; empty if nowhere.
    #[serde(default)]
    pub http: String,
}

fn first_incarnation() -> Incarnation {
    Incarnation(1)
}

fn default_place() -> String {
    "default".to_owned()
}

fn default_capacity() -> u32 {
    CAPACITY_DEFAULT
}

fn default_copies() -> u8 {
    COPIES_DEFAULT
}

fn first_id() -> u32 {
    1
}

impl Member {
    /// A member in its first life, in the zone and region `default`, with the default weight. It has
    /// no number before [`Layout::add`] gives it one.
    #[must_use]
    pub fn new(name: impl Into<String>, peer: impl Into<String>) -> Self {
        Self {
            id: NodeId(0),
            name: name.into(),
            incarnation: first_incarnation(),
            zone: default_place(),
            region: default_place(),
            capacity: CAPACITY_DEFAULT,
            peer: peer.into(),
            redis: String::new(),
            http: String::new(),
        }
    }

    /// What fails together with this member: its zone, within its region.
    #[must_use]
    pub fn failure_domain(&self) -> (&str, &str) {
        (&self.region, &self.zone)
    }
}

/// Who keeps which slot: for each slot, the nodes of its preference list in order.
///
/// Every list has the same length, the width. Node ids of four bytes stand in it directly, so that
/// a lookup hands out a slice of them: 192 KiB at three copies.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawTable")]
pub struct Table {
    width: u8,
    cells: Vec<NodeId>,
}

#[derive(Deserialize)]
struct RawTable {
    #[serde(default)]
    width: u8,
    #[serde(default)]
    cells: Vec<NodeId>,
}

impl TryFrom<RawTable> for Table {
    type Error = WrongShape;

    fn try_from(raw: RawTable) -> Result<Self, WrongShape> {
        Self::from_cells(raw.width, raw.cells)
    }
}

/// A table must hold exactly `width` nodes for each of the 16384 slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongShape {
    /// Nodes a slot.
    pub width: u8,
    /// Nodes in all.
    pub cells: usize,
}

impl fmt::Display for WrongShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { width, cells } = self;
        write!(f, "a slot table of {cells} cells, where {SLOTS} slots of {width} were expected")
    }
}

impl core::error::Error for WrongShape {}

impl Table {
    /// The table whose slot `s` is kept by `cells[s * width..][..width]`.
    ///
    /// # Errors
    /// [`WrongShape`] unless there are exactly `width` cells for each slot.
    pub fn from_cells(width: u8, cells: Vec<NodeId>) -> Result<Self, WrongShape> {
        if width > COPIES_MAX || cells.len() != usize::from(width) * usize::from(SLOTS) {
            return Err(WrongShape { width, cells: cells.len() });
        }
        Ok(Self { width, cells })
    }

    /// How many nodes keep each slot.
    #[must_use]
    pub const fn width(&self) -> u8 {
        self.width
    }

    /// The nodes that keep `slot`, in order of preference. Empty in an empty table.
    #[must_use]
    pub fn replicas(&self, slot: Slot) -> &[NodeId] {
        let width = usize::from(self.width);
        let start = slot.index() * width;
        // A slot above 16383 cannot be made from a key, but it can come over the wire.
        self.cells.get(start..start + width).unwrap_or_default()
    }

    /// Every slot with its preference list.
    pub fn rows(&self) -> impl Iterator<Item = (Slot, &[NodeId])> {
        Slot::all().map(|slot| (slot, self.replicas(slot)))
    }

    /// How many slots each node keeps; nodes that keep none are absent.
    #[must_use]
    pub fn loads(&self) -> BTreeMap<NodeId, u32> {
        count(self.cells.iter().copied())
    }

    /// How many slots each node is first in; nodes that are first nowhere are absent.
    #[must_use]
    pub fn firsts(&self) -> BTreeMap<NodeId, u32> {
        count(self.rows().filter_map(|(_, nodes)| nodes.first().copied()))
    }
}

fn count(nodes: impl Iterator<Item = NodeId>) -> BTreeMap<NodeId, u32> {
    let mut counts = BTreeMap::new();
    for node in nodes {
        *counts.entry(node).or_insert(0) += 1;
    }
    counts
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("width", &self.width).finish_non_exhaustive()
    }
}

/// A run of neighbouring slots with one preference list, as CLUSTER SLOTS shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRange<'a> {
    /// The first slot.
    pub first: Slot,
    /// The last slot, inclusive.
    pub last: Slot,
    /// Who keeps them, in order of preference.
    pub replicas: &'a [NodeId],
}

/// The members of the cluster and the slots they keep, as of one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Which version this is.
    pub epoch: Epoch,
    /// Which cluster this is.
    pub cluster: ClusterId,
    /// How many copies of each slot there should be (N).
    #[serde(default = "default_copies")]
    pub copies: u8,
    /// The next node id to give away. Only grows, so that no id is ever given twice.
    #[serde(default = "first_id")]
    pub next_id: u32,
    /// The members by id.
    #[serde(default)]
    pub members: BTreeMap<NodeId, Member>,
    /// Who keeps which slot.
    #[serde(default)]
    pub table: Table,
}

impl Layout {
    /// A cluster without members, at epoch 0.
    #[must_use]
    pub fn empty(cluster: ClusterId, copies: u8) -> Self {
        Self {
            epoch: Epoch(0),
            cluster,
            copies,
            next_id: first_id(),
            members: BTreeMap::new(),
            table: Table::default(),
        }
    }

    /// The first layout (epoch 1) of a cluster: the members are numbered 1, 2, … in this order.
    ///
    /// # Errors
    /// As [`Layout::validate`].
    pub fn genesis(
        cluster: ClusterId,
        copies: u8,
        members: impl IntoIterator<Item = Member>,
    ) -> Result<Self, LayoutError> {
        Self::empty(cluster, copies).next(|draft| {
            for member in members {
                draft.add(member);
            }
        })
    }

    /// The layout after this one: `change` edits a draft, then the slots are assigned anew with the
    /// fewest moves and the epoch grows by one.
    ///
    /// # Errors
    /// As [`Layout::validate`], if the change made no sense.
    pub fn next(&self, change: impl FnOnce(&mut Self)) -> Result<Self, LayoutError> {
        let mut draft = self.clone();
        change(&mut draft);
        draft.epoch = self.epoch.next();
        draft.validate_members()?;
        draft.table = assign(&draft.members, draft.copies, &self.table);
        draft.validate()?;
        Ok(draft)
    }

    /// Adds a member under the next free id, whatever id it carries; returns that id. It keeps no
    /// slot before they are assigned anew: call this inside [`Layout::next`].
    pub fn add(&mut self, member: Member) -> NodeId {
        let id = NodeId(self.next_id);
        self.next_id += 1;
        self.members.insert(id, Member { id, ..member });
        id
    }

    /// The member `node`.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// The member called `name`.
    #[must_use]
    pub fn member_named(&self, name: &str) -> Option<&Member> {
        self.members.values().find(|m| m.name == name)
    }

    /// The region of `node`, if it is a member.
    #[must_use]
    pub fn region_of(&self, node: NodeId) -> Option<&str> {
        self.members.get(&node).map(|m| m.region.as_str())
    }

    /// The nodes that keep `slot`, in order of preference: min(N, members that own slots) of them.
    #[must_use]
    pub fn replicas(&self, slot: Slot) -> &[NodeId] {
        self.table.replicas(slot)
    }

    /// The nodes that keep `slot` for a keyspace with `n` copies: a prefix of the preference list.
    #[must_use]
    pub fn replicas_for(&self, slot: Slot, n: u8) -> &[NodeId] {
        let all = self.replicas(slot);
        &all[..all.len().min(usize::from(n))]
    }

    /// The node that `slot` prefers to coordinate its writes; none before there are members.
    #[must_use]
    pub fn primary(&self, slot: Slot) -> Option<NodeId> {
        self.replicas(slot).first().copied()
    }

    /// Where `node` stands in the preference list of `slot`, counted from 0.
    #[must_use]
    pub fn replica_index(&self, node: NodeId, slot: Slot) -> Option<usize> {
        self.replicas(slot).iter().position(|n| *n == node)
    }

    /// Whether `node` keeps `slot`.
    #[must_use]
    pub fn is_replica(&self, node: NodeId, slot: Slot) -> bool {
        self.replicas(slot).contains(&node)
    }

    /// The slots that `node` keeps, ascending.
    pub fn slots_of(&self, node: NodeId) -> impl Iterator<Item = Slot> {
        Slot::all().filter(move |slot| self.is_replica(node, *slot))
    }

    /// The slots in which `node` is first, ascending.
    pub fn primaries(&self, node: NodeId) -> impl Iterator<Item = Slot> {
        Slot::all().filter(move |slot| self.primary(*slot) == Some(node))
    }

    /// Neighbouring slots with equal preference lists, joined; covers every slot once, in order.
    #[must_use]
    pub fn ranges(&self) -> Vec<SlotRange<'_>> {
        let mut ranges: Vec<SlotRange<'_>> = Vec::new();
        for (slot, replicas) in self.table.rows() {
            match ranges.last_mut() {
                Some(last) if last.replicas == replicas => last.last = slot,
                Some(_) | None => ranges.push(SlotRange { first: slot, last: slot, replicas }),
            }
        }
        ranges
    }

    /// The peers of `node`: every other member.
    pub fn peers_of(&self, node: NodeId) -> impl Iterator<Item = &Member> {
        self.members.values().filter(move |m| m.id != node)
    }

    /// Checks every invariant of the file's header, and every bound.
    ///
    /// # Errors
    /// The first [`LayoutError`] found.
    pub fn validate(&self) -> Result<(), LayoutError> {
        self.validate_members()?;
        self.validate_table()
    }

    fn validate_members(&self) -> Result<(), LayoutError> {
        if self.members.len() > MEMBERS_MAX {
            return Err(LayoutError::TooManyMembers { members: self.members.len() });
        }
        if self.copies == 0 || self.copies > COPIES_MAX {
            return Err(LayoutError::Copies { copies: self.copies });
        }
        let mut names = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        let mut regions = BTreeSet::new();
        let mut zones = BTreeSet::new();
        for (&id, member) in &self.members {
            if member.id != id {
                return Err(LayoutError::IdMismatch { listed: id, id: member.id });
            }
            if id.0 >= self.next_id {
                return Err(LayoutError::IdNotAllocated { id, next: self.next_id });
            }
            member.validate()?;
            if let Some(other) = names.insert(member.name.as_str(), id) {
                return Err(LayoutError::NameTaken { name: member.name.clone(), a: other, b: id });
            }
            if let Some(other) = addresses.insert(member.peer.as_str(), id) {
                let address = member.peer.clone();
                return Err(LayoutError::AddressTaken { address, a: other, b: id });
            }
            regions.insert(member.region.as_str());
            zones.insert(member.failure_domain());
        }
        if zones.len() > ZONES_MAX {
            return Err(LayoutError::TooManyZones { zones: zones.len() });
        }
        if regions.len() > REGIONS_MAX {
            return Err(LayoutError::TooManyRegions { regions: regions.len() });
        }
        Ok(())
    }

    fn validate_table(&self) -> Result<(), LayoutError> {
        let owners = self.members.values().filter(|m| m.capacity > 0).count();
        let width = usize::from(self.table.width());
        // A table may be narrower than N while a cluster grows, but never empty once it has owners.
        let most = self.members.len().min(usize::from(self.copies));
        if width > most || (width == 0 && owners > 0) {
            return Err(LayoutError::Width { width: self.table.width(), most });
        }
        for (slot, nodes) in self.table.rows() {
            for (i, &node) in nodes.iter().enumerate() {
                if !self.members.contains_key(&node) {
                    return Err(LayoutError::UnknownReplica { slot, node });
                }
                if nodes[..i].contains(&node) {
                    return Err(LayoutError::ReplicaTwice { slot, node });
                }
            }
        }
        Ok(())
    }

    /// A fingerprint that is equal on every machine and version for equal layouts, and differs for
    /// any two that a cluster meets by accident. It does not withstand forgery.
    ///
    /// A field that is added later enters it only where it differs from its default, so that old
    /// and new versions agree on layouts that both can express.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hash = Fnv::new();
        hash.number(self.epoch.0);
        hash.bytes(&self.cluster.0.to_be_bytes());
        hash.number(u64::from(self.copies));
        hash.number(u64::from(self.next_id));
        hash.number(self.members.len() as u64);
        for member in self.members.values() {
            hash.number(u64::from(member.id.0));
            hash.number(u64::from(member.incarnation.0));
            hash.number(u64::from(member.capacity));
            for text in [
                &member.name,
                &member.zone,
                &member.region,
                &member.peer,
                &member.redis,
                &member.http,
            ] {
                hash.number(text.len() as u64);
                hash.bytes(text.as_bytes());
            }
        }
        hash.number(u64::from(self.table.width));
        for node in &self.table.cells {
            hash.bytes(&node.0.to_be_bytes());
        }
        hash.0
    }
}

impl Member {
    fn validate(&self) -> Result<(), LayoutError> {
        for (what, text) in [("name", &self.name), ("zone", &self.zone), ("region", &self.region)] {
            let sound = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(sound) {
                return Err(LayoutError::BadName { what, text: text.clone(), node: self.id });
            }
        }
        let optional = [("redis", &self.redis), ("http", &self.http)];
        let given = optional.into_iter().filter(|(_, address)| !address.is_empty());
        for (what, address) in [("peer", &self.peer)].into_iter().chain(given) {
            if !is_host_and_port(address) {
                let address = address.clone();
                return Err(LayoutError::BadAddress { what, address, node: self.id });
            }
        }
        if self.capacity > CAPACITY_MAX {
            return Err(LayoutError::Capacity { capacity: self.capacity, node: self.id });
        }
        if self.incarnation.0 == 0 {
            return Err(LayoutError::NoIncarnation { node: self.id });
        }
        Ok(())
    }
}

fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let host_sound = !host.is_empty()
        && (bracketed || !host.contains(':'))
        && host.bytes().all(|b| b.is_ascii_graphic());
    address.len() <= ADDRESS_BYTES_MAX && host_sound && port.parse().is_ok_and(|p: u16| p != 0)
}

/// FNV-1a of 64 bits: two lines, published, the same everywhere.
pub(crate) struct Fnv(u64);

impl Fnv {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.bytes(&number.to_be_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }

    pub(crate) const fn value(&self) -> u64 {
        self.0
    }
}

/// Why a layout is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are named in the sentence above each variant")]
pub enum LayoutError {
    /// More `members` than [`MEMBERS_MAX`].
    TooManyMembers { members: usize },
    /// More failure domains (`zones`) than [`ZONES_MAX`].
    TooManyZones { zones: usize },
    /// More `regions` than [`REGIONS_MAX`].
    TooManyRegions { regions: usize },
    /// N (`copies`) is 0 or above [`COPIES_MAX`].
    Copies { copies: u8 },
    /// The member listed under one id carries another.
    IdMismatch { listed: NodeId, id: NodeId },
    /// The `id` is not below the counter that gives ids away (`next`): it would be given again.
    IdNotAllocated { id: NodeId, next: u32 },
    /// The name, zone or region (`what`) of `node` is empty, too long, or has characters other than
    /// letters, digits, `-`, `_` and `.`.
    BadName { what: &'static str, text: String, node: NodeId },
    /// Two members, `a` and `b`, have one `name`.
    NameTaken { name: String, a: NodeId, b: NodeId },
    /// The `what` address of `node` is not `host:port`.
    BadAddress { what: &'static str, address: String, node: NodeId },
    /// Two members, `a` and `b`, have one peer `address`.
    AddressTaken { address: String, a: NodeId, b: NodeId },
    /// The `capacity` of `node` is above [`CAPACITY_MAX`].
    Capacity { capacity: u32, node: NodeId },
    /// The incarnation of `node` is 0; lives are counted from 1.
    NoIncarnation { node: NodeId },
    /// The table keeps `width` copies of a slot, where 1 to `most` make sense.
    Width { width: u8, most: usize },
    /// The table gives `slot` to `node`, which is no member.
    UnknownReplica { slot: Slot, node: NodeId },
    /// The table gives `slot` to `node` twice.
    ReplicaTwice { slot: Slot, node: NodeId },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyMembers { members } => {
                write!(f, "{members} members, and a cluster has at most {MEMBERS_MAX}")
            }
            Self::TooManyZones { zones } => {
                write!(f, "{zones} zones, and a cluster has at most {ZONES_MAX}")
            }
            Self::TooManyRegions { regions } => {
                write!(f, "{regions} regions, and a cluster has at most {REGIONS_MAX}")
            }
            Self::Copies { copies } => {
                write!(f, "{copies} copies of a slot, where 1 to {COPIES_MAX} are possible")
            }
            Self::IdMismatch { listed, id } => {
                write!(f, "the member listed as {listed} says that it is {id}")
            }
            Self::IdNotAllocated { id, next } => {
                write!(f, "{id} was never given away: the next free id is n{next}")
            }
            Self::BadName { what, text, node } => write!(
                f,
                "the {what} {text:?} of {node}: 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' \
                 or '.' expected"
            ),
            Self::NameTaken { name, a, b } => write!(f, "both {a} and {b} are called {name:?}"),
            Self::BadAddress { what, address, node } => {
                write!(f, "the {what} address {address:?} of {node}: host:port expected")
            }
            Self::AddressTaken { address, a, b } => {
                write!(f, "both {a} and {b} have the peer address {address}")
            }
            Self::Capacity { capacity, node } => {
                write!(f, "the capacity {capacity} of {node} is above {CAPACITY_MAX}")
            }
            Self::NoIncarnation { node } => {
                write!(f, "{node} has incarnation 0, and lives are counted from 1")
            }
            Self::Width { width, most } => {
                write!(f, "the table keeps {width} copies of a slot, where 1 to {most} make sense")
            }
            Self::UnknownReplica { slot, node } => {
                write!(f, "the table gives slot {slot} to {node}, which is no member")
            }
            Self::ReplicaTwice { slot, node } => {
                write!(f, "the table gives slot {slot} to {node} twice")
            }
        }
    }
}

impl core::error::Error for LayoutError {}
