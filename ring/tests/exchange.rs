//! Nodes that exchange their registers while notes are lost, repeated and late, and while nodes crash:
//! nothing is said that is not on a disk, whoever counts as holding a setting holds it for ever, a node
//! that returns knows the terms before its link counts, and in the end all hold the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringdb_ring::exchange::{Change, Effect, Event, Exchange, Note, Outcome};
use ringdb_ring::keyspace::{KeyspacePolicy, Level};
use ringdb_ring::register::{Register, Scope, Setting};
use ringdb_ring::{Actor, Instant, NodeId, WallMillis};

const NODES: usize = 4;

/// A fault of the machine, planted to see that the test would find it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Planted {
    None,
    /// The disk is said to hold what it does not.
    KeptBeforeTheDisk,
    /// A late answer to another question counts.
    AnyAnswerCounts,
}

struct Node {
    machine: Exchange,
    disk: Register,
    /// What waits for the disk.
    keeps: VecDeque<Register>,
    life: u32,
    up: bool,
    /// What a peer held when our present link to it began.
    owed: BTreeMap<usize, Register>,
    /// What was in force when it was last said to have changed.
    in_force: Register,
}

struct World {
    rng: StdRng,
    planted: Planted,
    now: u64,
    nodes: Vec<Node>,
    net: Vec<(usize, usize, Note)>,
    next_change: u64,
    changes: BTreeMap<u64, (usize, Change)>,
    done: Vec<(Change, BTreeSet<NodeId>)>,
    ended: u32,
}

impl World {
    fn new(seed: u64, planted: Planted) -> Self {
        let node = |i: usize| Node {
            machine: Exchange::new(Register::default(), i as u64),
            disk: Register::default(),
            keeps: VecDeque::new(),
            life: 1,
            up: true,
            owed: BTreeMap::new(),
            in_force: Register::default(),
        };
        Self {
            rng: StdRng::seed_from_u64(seed),
            planted,
            now: 0,
            nodes: (0..NODES).map(node).collect(),
            net: Vec::new(),
            next_change: 0,
            changes: BTreeMap::new(),
            done: Vec::new(),
            ended: 0,
        }
    }

    fn feed(&mut self, i: usize, event: Event) {
        let mut out = Vec::new();
        self.nodes[i].machine.on_event(Instant(self.now), event, &mut out);
        for effect in out {
            let me = &mut self.nodes[i];
            match effect {
                Effect::Keep(register) => {
                    assert!(register.covers(&me.disk), "the disk never goes back");
                    me.keeps.push_back(register);
                }
                Effect::Changed => {
                    assert!(me.disk.covers(me.machine.register()), "in force before it is kept");
                    me.in_force = me.machine.register().clone();
                }
                Effect::Send { to, note } => {
                    assert!(me.disk.covers(&note.register), "said before it is kept");
                    self.net.push((i, to.0 as usize, note));
                }
                Effect::InStep(peer) => {
                    let owed = me.owed.get(&(peer.0 as usize)).expect("a link had begun");
                    assert!(me.disk.covers(owed) && me.in_force.covers(owed), "not in step");
                }
                Effect::Done { id, outcome } => {
                    let (_, change) = self.changes.remove(&id).expect("it was wanted");
                    self.ended += 1;
                    if let Outcome::Held(mut held) | Outcome::Overtaken(mut held) = outcome {
                        held.insert(NodeId(i as u32));
                        self.done.push((change, held));
                    }
                }
            }
        }
        if self.planted == Planted::KeptBeforeTheDisk && !self.nodes[i].keeps.is_empty() {
            let register = self.nodes[i].keeps.pop_front().expect("just seen");
            self.feed(i, Event::Kept(register));
        }
    }

    fn link(&mut self, a: usize, b: usize) {
        if a != b && self.nodes[a].up && self.nodes[b].up {
            let owed = self.nodes[b].disk.clone();
            self.nodes[a].owed.insert(b, owed);
            self.feed(a, Event::LinkIs(NodeId(b as u32)));
        }
    }

    fn beat(&mut self, a: usize, b: usize) {
        if a != b && self.nodes[a].up && self.nodes[b].up {
            let (from, digest) = (NodeId(a as u32), self.nodes[a].machine.register().digest());
            self.feed(b, Event::Beat { from, digest });
        }
    }

    fn deliver(&mut self, keep: bool) {
        if self.net.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.net.len());
        let (from, to, mut note) =
            if keep { self.net[at].clone() } else { self.net.swap_remove(at) };
        if self.planted == Planted::AnyAnswerCounts && note.answer != 0 {
            // As if the number did not matter: the receiver's latest question is taken as answered.
            note.answer = self.latest_question(to, from).unwrap_or(note.answer);
        }
        if self.nodes[to].up {
            self.feed(to, Event::Heard { from: NodeId(from as u32), note });
        }
    }

    fn latest_question(&self, from: usize, to: usize) -> Option<u64> {
        let asked = self.net.iter().filter(|(f, t, n)| (*f, *t) == (from, to) && n.ask != 0);
        asked.map(|(_, _, note)| note.ask).max()
    }

    fn write_disk(&mut self, i: usize) {
        let me = &mut self.nodes[i];
        if let Some(register) = me.keeps.pop_front() {
            me.disk = register.clone();
            self.feed(i, Event::Kept(register));
        }
    }

    fn crash(&mut self, i: usize) {
        let seed = self.rng.random();
        let me = &mut self.nodes[i];
        me.life += 1;
        me.keeps.clear();
        me.owed.clear();
        me.in_force = me.disk.clone();
        me.machine = Exchange::new(me.disk.clone(), seed);
        me.up = !me.up;
        self.changes.retain(|_, (at, _)| *at != i);
    }

    fn want(&mut self, i: usize) {
        if !self.nodes[i].up {
            return;
        }
        let scope = [Scope::Default, Scope::Keyspace(1)][self.rng.random_range(0..2)];
        let read = [Level::One, Level::Two, Level::Quorum][self.rng.random_range(0..3)];
        let me = &self.nodes[i];
        let terms = KeyspacePolicy { read, ..KeyspacePolicy::default() };
        let setting = Setting {
            version: me.machine.known().next_version(scope),
            writer: Actor::new(i as u32, me.life),
            at: WallMillis(self.now),
            by: "admin".into(),
            closed: false,
            terms: self.rng.random_bool(0.8).then_some(terms),
        };
        let up = (0..NODES).filter(|o| *o != i && self.nodes[*o].up).map(|o| NodeId(o as u32));
        let (id, up) = (self.next_change, up.collect());
        self.next_change += 1;
        let change = Change { id, scope, setting, up };
        self.changes.insert(id, (i, change.clone()));
        self.feed(i, Event::Change(change));
    }

    fn step(&mut self) {
        let (a, b) = (self.rng.random_range(0..NODES), self.rng.random_range(0..NODES));
        self.now += 5_000_000;
        match self.rng.random_range(0..100) {
            0..40 => self.deliver(false),
            40..44 => self.deliver(true),
            44..47 if !self.net.is_empty() => {
                let at = self.rng.random_range(0..self.net.len());
                drop(self.net.swap_remove(at));
            }
            47..67 => self.write_disk(a),
            67..77 => self.link(a, b),
            77..87 => self.beat(a, b),
            87..89 => self.crash(a),
            89..92 => self.want(a),
            92..94 if !self.nodes[a].keeps.is_empty() => {
                self.nodes[a].keeps.clear();
                self.feed(a, Event::NotKept("no room".into()));
            }
            _ if self.nodes[a].up => self.feed(a, Event::Tick),
            _ => {}
        }
        for (change, held) in &self.done {
            for node in held {
                let setting = self.nodes[node.0 as usize].disk.get(change.scope);
                assert!(setting.is_some_and(|s| *s >= change.setting), "{node} does not hold it");
            }
        }
    }

    /// Everything is well from now on.
    fn heal(&mut self) {
        for i in (0..NODES).filter(|i| !self.nodes[*i].up).collect::<Vec<_>>() {
            self.crash(i);
        }
        for round in 0..6 {
            for (a, b) in (0..NODES).flat_map(|a| (0..NODES).map(move |b| (a, b))) {
                if round == 0 {
                    self.link(a, b);
                }
                self.beat(a, b);
            }
            while !self.net.is_empty() || self.nodes.iter().any(|n| !n.keeps.is_empty()) {
                self.deliver(false);
                (0..NODES).for_each(|i| self.write_disk(i));
            }
        }
        for node in &self.nodes {
            assert_eq!(node.disk, self.nodes[0].disk, "all hold the same");
            assert_eq!(*node.machine.register(), node.disk);
            assert_eq!(node.in_force, node.disk);
        }
    }
}

fn run(seed: u64, planted: Planted) -> u32 {
    let mut world = World::new(seed, planted);
    for _ in 0..1_500 {
        world.step();
    }
    world.heal();
    world.ended
}

#[test]
fn whatever_happens_to_notes_and_nodes_all_come_to_hold_what_was_set_last() {
    let ended: u32 = (0..150).map(|seed| run(seed, Planted::None)).sum();
    assert!(ended > 2_000, "{ended} changes ended");
}

#[test]
fn the_test_would_notice() {
    for planted in [Planted::KeptBeforeTheDisk, Planted::AnyAnswerCounts] {
        let fails = |seed| std::panic::catch_unwind(|| run(seed, planted)).is_err();
        assert!((0..150).any(fails));
    }
}

#[test]
fn settings_merged_in_any_order_and_however_often_give_the_same() {
    let mut rng = StdRng::seed_from_u64(7);
    for _ in 0..300 {
        let mut all = Vec::new();
        for _ in 0..rng.random_range(1..12) {
            let terms = KeyspacePolicy {
                read: [Level::One, Level::All][rng.random_range(0..2)],
                ttl_ms: [None, Some(rng.random_range(1..3))][rng.random_range(0..2)],
                ..KeyspacePolicy::default()
            };
            let setting = Setting {
                version: rng.random_range(1..4),
                writer: Actor::new(rng.random_range(1..3), rng.random_range(1..3)),
                at: WallMillis(rng.random_range(0..2)),
                by: ["a", "b"][rng.random_range(0..2)].into(),
                closed: rng.random_bool(0.2),
                terms: rng.random_bool(0.7).then_some(terms),
            };
            let mut one = Register::default();
            one.put(Scope::Keyspace(rng.random_range(0..2)), setting);
            all.push(one);
        }
        let joined = |order: &[usize]| {
            let mut register = Register::default();
            for i in order {
                register.merge(&all[*i]);
            }
            register
        };
        let mut order: Vec<usize> = (0..all.len()).collect();
        let expected = joined(&order);
        for _ in 0..5 {
            order.extend((0..3).map(|_| rng.random_range(0..all.len())));
            for i in 0..order.len() {
                let other = rng.random_range(0..order.len());
                order.swap(i, other);
            }
            order.extend(0..all.len());
            assert_eq!(joined(&order), expected);
            assert_eq!(joined(&order).digest(), expected.digest());
        }
        assert!(all.iter().all(|one| expected.covers(one)));
    }
}

#[test]
fn whoever_is_overtaken_hears_of_it_though_the_other_setting_is_not_on_its_disk_yet() {
    let setting = |node| Setting {
        version: 1,
        writer: Actor::new(node, 1),
        at: WallMillis(0),
        by: "admin".into(),
        closed: false,
        terms: Some(KeyspacePolicy::default()),
    };
    let scope = Scope::Keyspace(4);
    let mut machine = Exchange::new(Register::default(), 0);
    let mut out = Vec::new();
    let change = Change { id: 1, scope, setting: setting(1), up: BTreeSet::from([NodeId(2)]) };
    machine.on_event(Instant(0), Event::Change(change), &mut out);
    let [Effect::Keep(register)] = &out[..] else { panic!("{out:?}") };
    let kept = Event::Kept(register.clone());
    out.clear();
    machine.on_event(Instant(0), kept, &mut out);
    let Some(Effect::Send { note, .. }) = out.last() else { panic!("{out:?}") };
    let mut register = Register::default();
    register.put(scope, setting(2));
    let note = Note { register, ask: 0, answer: note.ask };
    out.clear();
    machine.on_event(Instant(0), Event::Heard { from: NodeId(2), note }, &mut out);
    let done = out.iter().find_map(|effect| match effect {
        Effect::Done { outcome, .. } => Some(outcome),
        _ => None,
    });
    assert_eq!(done, Some(&Outcome::Overtaken(BTreeSet::from([NodeId(2)]))));
}
