//! World: a cluster, its clients and their misfortunes, in one queue of events.
//!
//! It carries out what machines ask as a node's driver does: effects in order, an apply visible at
//! once, and nothing told to anybody before the log of that turn is written.

mod acks;
mod audit;
mod clients;
mod ending;
mod faults;
mod named;
mod nodes;
mod shares;
mod speakers;
mod tokens;
mod understanding;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use replication::{Answer, Event, Message, Request};
use ring::layout::Member;
use ring::{ClusterId, Layout, NodeId};

use super::chance::Chance;
use super::clock::{Clock, MS, SECOND};
use super::disk::Platter;
use super::network::Network;
use super::node::{Ack, Input, Node};
use super::queue::Queue;
use super::trace::{Telling, Trace};
use crate::check::Violation;
use crate::check::counters::Counters;
use crate::check::scans::Scans;
use crate::check::truth::Truth;
use crate::fault::Fault;
use crate::history::History;
use crate::profile::Profile;
use crate::workload::{Client, Speaker};

/// What happens in the world.
pub(crate) enum Happening {
    /// A frame arrives.
    Frame { from: usize, to: usize, connection: u64, made: u64, bytes: Rc<[u8]> },
    /// A core looks at its inbox.
    Turn { node: usize, life: u64, core: usize },
    /// Something for a core.
    Input { node: usize, life: u64, core: usize, input: Input },
    /// A core's machine wants to be called.
    Tick { node: usize, life: u64, core: usize },
    /// A full disk is tried again.
    Again { node: usize, life: u64, core: usize },
    /// The failure detector wants to be called.
    Alive { node: usize, life: u64 },
    /// An fsync is over.
    Synced { node: usize, life: u64, core: usize, tokens: Vec<u64> },
    /// The fsync of each second.
    SyncAll { node: usize, life: u64 },
    /// Rotation and background jobs.
    Chores { node: usize, life: u64 },
    /// Two nodes try to connect.
    Connect { a: usize, b: usize },
    /// A process starts.
    Start { node: usize },
    /// A node hears of the newest layout.
    Announce { node: usize },
    /// Replicas move while every process is down.
    Rebuild,
    /// A fault is due.
    Fault(Fault),
    /// Cut directions are mended.
    Mend { ways: Vec<(usize, usize)>, breaks: bool },
    /// A full disk has room again.
    Room { node: usize },
    /// A wall clock is set right.
    SetRight { node: usize },
    /// A client thinks of something.
    Think { client: usize },
    /// A request arrives at its node.
    Ask { op: u64, node: usize, request: Box<Request> },
    /// An answer arrives at its client.
    Heard { op: u64, from: (usize, u64), answer: Box<Answer> },
    /// A replica's word that it holds a write arrives at its client.
    Told { by: NodeId, ack: Ack },
    /// A client doubts that it will hear of this write from its replicas.
    Doubt { op: u64 },
    /// What was to go to a coordinator later goes now.
    SendLater { node: usize, life: u64, core: usize, to: NodeId, message: Message },
    /// A client waits no longer.
    GiveUp { op: u64 },
    /// A speaker connects.
    Dial { speaker: usize },
    /// A speaker thinks of something.
    Speak { speaker: usize, number: u64 },
    /// Bytes arrive at a speaker.
    Hear { speaker: usize, number: u64, bytes: Rc<[u8]>, close: bool },
    /// A speaker looks whether it has heard anything since.
    Impatient { speaker: usize, number: u64, heard: u64 },
}

use acks::{Hearing, Listens};
use named::Naming;
use shares::Gathering;

/// What happened how often.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Frames that arrived.
    pub frames: u64,
    /// Turns of cores.
    pub turns: u64,
    /// Processes that died, whatever the reason.
    pub crashes: u64,
    /// Machines that lost power.
    pub power_losses: u64,
    /// Faults of all kinds.
    pub faults: u64,
    /// Whole slots sent as state.
    pub states: u64,
    /// Layouts in which replicas moved.
    pub moves: u64,
    /// Reads that clients gathered by themselves.
    pub gathered: u64,
    /// Writes that were done for their clients because replicas said so.
    pub told: u64,
}

/// The world.
pub struct World {
    pub(crate) profile: Profile,
    pub(crate) now: u64,
    pub(crate) queue: Queue<Happening>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) newest: Arc<Layout>,
    pub(crate) clients: Vec<Client>,
    pub(crate) speakers: Vec<Speaker>,
    /// Who speaks on which connection.
    pub(crate) lines: BTreeMap<u64, usize>,
    /// Connections so far.
    pub(crate) numbers: u64,
    /// What DBSIZE told.
    pub(crate) sizes: Vec<u64>,
    /// What the last scan over everything found.
    pub(crate) walked: Option<BTreeSet<bytes::Bytes>>,
    /// Scans over everything.
    pub(crate) walks: u64,
    /// What happened.
    pub trace: Trace,
    /// What was minted.
    pub truth: Truth,
    /// What was asked and heard.
    pub history: History,
    /// Counters, as clients know them.
    pub counters: Counters,
    /// Keys that must and must not be found by scans.
    pub scans: Scans,
    /// How often what happened.
    pub tally: Tally,
    pub(crate) turn: u64,
    /// Faults happen and clients ask.
    pub(crate) stormy: bool,
    pub(crate) of_network: Chance,
    pub(crate) of_disks: Chance,
    pub(crate) of_faults: Chance,
    pub(crate) of_clients: Chance,
    pub(crate) of_turns: Chance,
    pub(crate) of_speakers: Chance,
    /// Answers of probes by request.
    pub(crate) probed: Vec<(u64, Answer)>,
    /// Requests that have a name.
    pub(crate) named: BTreeMap<u64, Naming>,
    /// Requests whose clients read by themselves.
    pub(crate) gathering: BTreeMap<u64, Gathering>,
    /// Writes whose clients hear replicas themselves.
    pub(crate) hearing: BTreeMap<u64, Hearing>,
    /// How each client is connected to each node; whoever is not mentioned hears all.
    pub(crate) listening: BTreeMap<(usize, usize), Listens>,
    /// The layout that all began with.
    pub(crate) oldest: Arc<Layout>,
}

impl World {
    /// A world before its first event.
    #[must_use]
    pub fn new(profile: Profile, telling: Telling) -> Self {
        let mut chance = Chance::new(profile.seed);
        let members = (1..=profile.nodes).map(|n| Member::new(format!("n{n}"), format!("sim:{n}")));
        let layout = Arc::new(
            Layout::genesis(ClusterId(1), 3, members).expect("a small cluster has a layout"),
        );
        let nodes = (0..profile.nodes).map(|n| Node {
            id: NodeId(n as u32 + 1),
            platter: Platter::new(chance.next()),
            clock: Clock {
                offset_ms: chance.below(2 * profile.skew_ms + 1) as i64 - profile.skew_ms as i64,
                jumped_ms: 0,
                drift_ppm: chance.below(201) as i64 - 100,
            },
            life: None,
            starts: 0,
            paused_until: 0,
            layout: layout.clone(),
        });
        let nodes: Vec<Node> = nodes.collect();
        let network = Network::new(profile.nodes, profile.manners.clone());
        let clients =
            (0..profile.clients).map(|c| Client::new(c % profile.nodes)).collect::<Vec<_>>();
        let speaker = |s| Speaker { node: s % profile.nodes, ..Speaker::default() };
        let speakers = (0..profile.speakers).map(speaker).collect();
        let mut world = Self {
            now: 0,
            queue: Queue::default(),
            nodes,
            network,
            newest: layout.clone(),
            oldest: layout,
            clients,
            speakers,
            lines: BTreeMap::new(),
            numbers: 0,
            sizes: Vec::new(),
            walked: None,
            walks: 0,
            trace: Trace::new(telling),
            truth: Truth::default(),
            history: History::default(),
            counters: Counters::default(),
            scans: Scans::default(),
            tally: Tally::default(),
            turn: 0,
            stormy: true,
            of_network: chance.fork(),
            of_disks: chance.fork(),
            of_faults: chance.fork(),
            of_clients: chance.fork(),
            of_turns: chance.fork(),
            of_speakers: chance.fork(),
            probed: Vec::new(),
            named: BTreeMap::new(),
            gathering: BTreeMap::new(),
            hearing: BTreeMap::new(),
            listening: BTreeMap::new(),
            profile,
        };
        world.plan_the_beginning();
        world
    }

    fn plan_the_beginning(&mut self) {
        let n = self.profile.nodes;
        for node in 0..n {
            self.queue.plan(self.of_faults.below(50 * MS), Happening::Start { node });
        }
        for client in 0..self.clients.len() {
            let at = 3 * SECOND + self.of_clients.below(SECOND);
            self.queue.plan(at, Happening::Think { client });
        }
        for speaker in 0..self.speakers.len() {
            let at = 3 * SECOND + self.of_speakers.below(SECOND);
            self.queue.plan(at, Happening::Dial { speaker });
        }
        let kinds: Vec<Fault> = self.profile.faults.kinds().collect();
        for fault in kinds {
            self.plan_fault(fault, 5 * SECOND);
        }
        if let Some(at) = self.profile.new_layout_at {
            self.announce_new_layout(at.max(6 * SECOND));
        }
        // What one copy acknowledged is gone with it (decision 11): that is for writes of two and more.
        if let Some(at) = self.profile.replicas_move_at.filter(|_| self.is_written_twice()) {
            self.queue.plan(at.max(6 * SECOND), Happening::Rebuild);
        }
    }

    /// Runs until true time `until`, or until a promise is broken.
    pub fn run(&mut self, until: u64) {
        while self.truth.broken.is_none()
            && let Some((at, what)) = self.queue.pop(until)
        {
            self.now = at;
            self.happen(what);
        }
        self.now = self.now.max(until);
    }

    /// The promise that was broken, if one was.
    #[must_use]
    pub const fn broken(&self) -> Option<&Violation> {
        self.truth.broken.as_ref()
    }

    /// True nanoseconds since the beginning.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Frame { from, to, connection, made, bytes } => {
                self.frame_arrives(from, to, (connection, made), &bytes);
            }
            Happening::Turn { node, life, core } => self.take_turn(node, life, core),
            Happening::Input { node, life, core, input } => {
                if self.lives(node, life) {
                    self.put(node, core, input);
                }
            }
            Happening::Tick { node, life, core } => {
                if self.lives(node, life) {
                    if let Some(life) = &mut self.nodes[node].life {
                        life.cores[core].tick_planned = None;
                    }
                    self.put(node, core, Input::Event(Event::Tick));
                }
            }
            Happening::Again { node, life, core } => self.try_full_disk(node, life, core),
            Happening::Alive { node, life } => {
                if self.lives(node, life) {
                    self.liveness(node, ring::liveness::Event::Tick);
                }
            }
            Happening::Synced { node, life, core, tokens } => {
                self.synced(node, life, core, tokens);
            }
            Happening::SyncAll { node, life } => self.sync_all(node, life),
            Happening::Chores { node, life } => self.chores(node, life),
            Happening::Connect { a, b } => self.try_connect(a, b),
            Happening::Start { node } => self.start(node),
            Happening::Announce { node } => self.announce(node),
            Happening::Rebuild => self.rebuild(),
            Happening::Fault(fault) => self.fault_is_due(fault),
            // In the end everything is mended at once, and nothing breaks any more.
            Happening::Mend { ways, breaks } if self.stormy => self.mend(&ways, breaks),
            Happening::Mend { .. } => {}
            Happening::Room { node } => self.nodes[node].platter.files.set_capacity(None),
            Happening::SetRight { node } => self.nodes[node].clock.jumped_ms = 0,
            Happening::Think { client } => self.think(client),
            Happening::Ask { op, node, request } => self.ask_arrives(op, node, *request),
            Happening::Heard { op, from, answer } => self.heard(op, from, *answer),
            Happening::Told { by, ack } => self.told(by, ack),
            Happening::Doubt { op } => self.doubt(op),
            Happening::SendLater { node, life, core, to, message } => {
                self.send_later((node, life, core), to, message);
            }
            Happening::GiveUp { op } => self.give_up(op),
            Happening::Dial { speaker } => self.dial(speaker),
            Happening::Speak { speaker, number } => self.speak(speaker, number),
            Happening::Hear { speaker, number, bytes, close } => {
                self.hear(speaker, number, &bytes, close);
            }
            Happening::Impatient { speaker, number, heard } => {
                self.impatient(speaker, number, heard);
            }
        }
    }

    pub(crate) fn lives(&self, node: usize, life: u64) -> bool {
        self.nodes[node].life.as_ref().is_some_and(|l| l.number == life)
    }
}
