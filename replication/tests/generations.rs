//! Generations: a counter that was reset, dropped by collection and begun anew stays exact, whatever
//! deltas, repairs, pulls and sweeps are still in flight, doubled, late or out of order.
//!
//! The oracle never forgets: each node has the set of increments that it has been told of, and the
//! set of those that it knows to be reset. After every step each node shows the sum of the one
//! without the other, and so does every read that joins states of different moments; at the end all
//! show the increments that no reset had seen. Each planted mistake has to break that.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use ring::{Actor, Hlc, WallMillis};
use ringdb_replication::fold::{self, Patch};
use ringdb_replication::record::{Count, Record};
use ringdb_replication::{Delta, Dot, DotSet, row};

use crate::bare::Replica;

const NODES: usize = 3;

/// A mistake to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    /// A counter that is begun anew has the generation of its former self.
    KeepsGeneration,
    /// What a reset saw of an earlier generation is taken from a later one.
    TakesFormerBaseline,
    /// A part that is wholly reset is carried on instead of begun anew.
    CarriesOnWhatIsReset,
    /// A state brings back a part that was dropped here.
    InstallsDropped,
    /// A read joins a part that one of those asked has dropped.
    JoinsDropped,
    /// A reset has the time of the increments that it saw, not its own.
    ResetHasTimeOfCount,
    /// Collection does not wait until increments minted before the reset came have arrived.
    DropsOnFirstClose,
    /// Collection looks at its own replica only.
    DropsAlone,
    /// Collection judges the oldest version of a key without the operands above it.
    DropsOldestVersion,
}

/// What a node has been told of one key, for ever.
#[derive(Clone, Default)]
struct Told {
    increments: BTreeSet<Dot>,
    reset: BTreeSet<Dot>,
}

impl Told {
    fn union(&mut self, other: &Self) {
        self.increments.extend(&other.increments);
        self.reset.extend(&other.reset);
    }
}

/// A replica's state at one moment.
#[derive(Clone)]
struct Snapshot {
    clock: DotSet,
    records: Vec<Vec<u8>>,
    told: Vec<Told>,
}

#[derive(Clone)]
enum Message {
    Delta {
        raw: Bytes,
        key: usize,
        told: Told,
    },
    /// Read repair of one key.
    Repair {
        key: usize,
        snapshot: Snapshot,
    },
    /// A whole slot: every key, and then the clock.
    Sweep(Snapshot),
    /// What `actor` minted up to `hlc` has numbers up to `seq`.
    Closed {
        actor: Actor,
        hlc: u64,
        seq: u64,
    },
    /// The sender holds all that was minted up to `hlc`; so far it has minted `seq`.
    Reached {
        node: usize,
        hlc: u64,
        actor: Actor,
        seq: u64,
    },
}

struct Node {
    actor: Actor,
    hlc: u64,
    replica: Replica,
    told: Vec<Told>,
    /// Of each key, its own increments that were reset when it last began anew.
    former: Vec<BTreeSet<Dot>>,
    log: BTreeMap<Dot, Message>,
    /// By actor, ascending.
    closed: BTreeMap<Actor, Vec<(u64, u64)>>,
    reached: Vec<Vec<(u64, Actor, u64)>>,
}

struct World {
    rng: StdRng,
    plant: Option<Plant>,
    rows: Vec<Bytes>,
    nodes: Vec<Node>,
    /// Who lives no more: their last number is known to all.
    sealed: BTreeMap<Actor, u64>,
    flying: Vec<(usize, u64, Message)>,
    by: BTreeMap<Dot, i128>,
    /// Increments of each key that a reset has seen.
    reset: Vec<BTreeSet<Dot>>,
    increments: Vec<BTreeSet<Dot>>,
    at_end: bool,
    dropped: u64,
    begun_anew: u64,
}

type Check = Result<(), String>;

impl World {
    fn new(seed: u64, plant: Option<Plant>) -> Self {
        let rows: Vec<Bytes> = (0..2)
            .map(|i| {
                let mut row = row::of_key(0, b"{t}").to_vec();
                row.push(i);
                Bytes::from(row)
            })
            .collect();
        let node = |i: usize| Node {
            actor: Actor::new(i as u32 + 1, 1),
            hlc: 100,
            replica: Replica::default(),
            told: vec![Told::default(); rows.len()],
            former: vec![BTreeSet::new(); rows.len()],
            log: BTreeMap::new(),
            closed: BTreeMap::new(),
            reached: vec![Vec::new(); NODES],
        };
        Self {
            rng: StdRng::seed_from_u64(seed),
            plant,
            nodes: (0..NODES).map(node).collect(),
            sealed: BTreeMap::new(),
            flying: Vec::new(),
            by: BTreeMap::new(),
            reset: vec![BTreeSet::new(); rows.len()],
            increments: vec![BTreeSet::new(); rows.len()],
            rows,
            at_end: false,
            dropped: 0,
            begun_anew: 0,
        }
    }

    fn is(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    fn snapshot(&self, at: usize) -> Snapshot {
        let node = &self.nodes[at];
        let records = self.rows.iter().map(|row| node.replica.record(row)).collect();
        Snapshot { clock: node.replica.clock.clone(), records, told: node.told.clone() }
    }

    fn send(&mut self, from: usize, to: usize, message: &Message) {
        for _ in 0..self.rng.random_range(1..=2) {
            self.flying.push((to, self.nodes[from].hlc, message.clone()));
        }
    }

    fn send_all(&mut self, from: usize, message: &Message) {
        for to in (0..NODES).filter(|to| *to != from) {
            self.send(from, to, message);
        }
    }

    fn mint(&mut self, at: usize, key: usize) {
        self.nodes[at].hlc += self.rng.random_range(1..4);
        let (actor, stamp) = (self.nodes[at].actor, self.nodes[at].hlc);
        let hlc = Hlc::new(WallMillis(stamp), 0);
        let dot = Dot::new(actor, self.nodes[at].replica.clock.highest(actor) + 1);
        let row = self.rows[key].clone();
        let bytes = self.nodes[at].replica.record(&row);
        let mut record = Record::decode(&bytes).expect("ours");
        let mine = &self.nodes[at].told[key];
        let live: Vec<Dot> = mine.increments.difference(&mine.reset).copied().collect();
        let of_actor = |actor: Actor| {
            mine.increments.iter().copied().filter(move |d| d.actor == actor).collect::<Vec<_>>()
        };
        let mut delta = Delta::new(&row, dot, hlc);
        let mut told = Told::default();
        if self.rng.random_bool(0.3) {
            // DEL: resets whatever part is not wholly reset.
            delta.discards_values = true;
            delta.discard = self.nodes[at].replica.clock.clone();
            delta.resets = record.reset_at(hlc);
            if self.is(Plant::ResetHasTimeOfCount) {
                for reset in &mut delta.resets {
                    let of_it = record.counts.iter().find(|c| c.actor == reset.actor);
                    reset.hlc = of_it.map_or(hlc, |c| c.hlc);
                }
            }
            let actors: BTreeSet<Actor> = live.iter().map(|d| d.actor).collect();
            told.increments = actors.into_iter().flat_map(of_actor).collect();
            told.reset = told.increments.clone();
            self.reset[key].extend(&mine.increments);
        } else {
            let by = i128::from(self.rng.random_range(1..20));
            if self.is(Plant::CarriesOnWhatIsReset) {
                record.resets.clear();
            }
            delta.count = record.counted(actor, dot.seq, by, false);
            if self.is(Plant::KeepsGeneration) {
                delta.count = delta.count.map(|(_, total)| (1, total));
            }
            told.increments = of_actor(actor).into_iter().collect();
            if live.iter().all(|d| d.actor != actor) {
                // The minter knows of nothing of its own that is not reset: from here on whoever
                // hears from it knows that as well.
                self.begun_anew += u64::from(!told.increments.is_empty());
                self.nodes[at].former[key] = told.increments.clone();
            }
            told.reset = self.nodes[at].former[key].clone();
            told.increments.insert(dot);
            self.by.insert(dot, by);
            self.increments[key].insert(dot);
        }
        let raw = delta.to_bytes();
        assert_eq!(Delta::decode(&raw), Some(delta), "encoding gives it back");
        let message = Message::Delta { raw, key, told };
        self.deliver(at, stamp, message.clone());
        self.send_all(at, &message);
    }

    fn deliver(&mut self, at: usize, hlc: u64, message: Message) {
        let installs_dropped = self.is(Plant::InstallsDropped);
        let former_baseline = self.is(Plant::TakesFormerBaseline);
        let node = &mut self.nodes[at];
        node.hlc = node.hlc.max(hlc);
        match message {
            Message::Delta { raw, key, told } => {
                let before = node.replica.record(&self.rows[key]);
                if node.replica.apply(&raw) {
                    let delta = Delta::decode(&raw).expect("ours");
                    let dot = delta.dot;
                    let before = Record::decode(&before).expect("ours");
                    let reset = before.resets.iter().find(|r| r.actor == dot.actor);
                    if former_baseline
                        && let (Some((generation, _)), Some(reset)) = (delta.count, reset)
                    {
                        let resets = [Count { generation, ..*reset }].into_iter().collect();
                        let record = Record { resets, ..Record::default() };
                        node.replica.push(delta.row, Patch::of_record(record).to_operand());
                    }
                    node.told[key].union(&told);
                    node.log.insert(dot, Message::Delta { raw, key, told });
                }
            }
            Message::Repair { key, snapshot } => {
                node.install(&self.rows, key, &snapshot, installs_dropped);
            }
            Message::Sweep(snapshot) => {
                for key in 0..self.rows.len() {
                    node.install(&self.rows, key, &snapshot, installs_dropped);
                }
                node.replica.clock.union(&snapshot.clock);
            }
            Message::Closed { actor, hlc, seq } => {
                node.closed.entry(actor).or_default().push((hlc, seq));
            }
            Message::Reached { node: of, hlc, actor, seq } => {
                node.reached[of].push((hlc, actor, seq));
            }
        }
    }

    /// Up to when `at` holds all that anybody minted.
    fn reached(&self, at: usize) -> u64 {
        let node = &self.nodes[at];
        let living = self.nodes.iter().map(|n| n.actor);
        let of = |actor: Actor| {
            let known = node.closed.get(&actor).into_iter().flatten();
            let covered = known.filter(|(_, seq)| *seq <= node.replica.clock.base(actor));
            covered.map(|(hlc, _)| *hlc).max().unwrap_or(0)
        };
        let covers = |(actor, last): (&Actor, &u64)| node.replica.clock.base(*actor) >= *last;
        if !self.sealed.iter().all(covers) {
            return 0;
        }
        living.map(of).min().unwrap_or(0)
    }

    /// Up to when resets may be dropped at `at`: every node has reached it, and what each had minted
    /// by then is here.
    fn watermark(&self, at: usize) -> u64 {
        let mine = self.reached(at);
        if self.is(Plant::DropsAlone) {
            return mine;
        }
        let node = &self.nodes[at];
        let early = self.is(Plant::DropsOnFirstClose);
        let of = |peer: usize| {
            let here =
                |(_, a, seq): &&(u64, Actor, u64)| early || *seq <= node.replica.clock.base(*a);
            node.reached[peer].iter().filter(here).map(|(hlc, ..)| *hlc).max().unwrap_or(0)
        };
        (0..NODES).filter(|n| *n != at).map(of).min().unwrap_or(0).min(mine)
    }

    /// Drops the parts of a counter that are wholly reset, if all that is over everywhere.
    fn collect(&mut self, at: usize, key: usize) {
        let below = Hlc::new(WallMillis(self.watermark(at)), 0);
        let oldest_only = self.is(Plant::DropsOldestVersion) && !self.at_end;
        let row = self.rows[key].clone();
        let Some((base, operands)) = self.nodes[at].replica.keys.get_mut(&row) else { return };
        let mut bytes = Vec::new();
        let taken = if oldest_only { 0 } else { operands.len() };
        fold::fold(Some(base), operands[..taken].iter().map(|o| &o[..]), &mut bytes);
        let mut record = Record::decode(&bytes).expect("ours");
        let is_over = |c: &Count, resets: &[Count]| {
            let reset = resets.iter().find(|r| r.actor == c.actor);
            c.hlc < below
                && reset
                    .is_some_and(|r| (r.generation, r.n) >= (c.generation, c.n) && r.hlc < below)
        };
        let resets = record.resets.clone();
        let before = record.counts.len();
        record.counts.retain(|c| !is_over(c, &resets));
        let counts = record.counts.clone();
        record.resets.retain(|r| counts.iter().any(|c| c.actor == r.actor));
        if record.counts.len() < before {
            self.dropped += 1;
            *base = record.to_bytes().to_vec();
            operands.drain(..taken);
        }
    }

    fn sum_of(&self, told: &Told) -> i128 {
        told.increments.difference(&told.reset).map(|d| self.by[d]).sum()
    }

    /// Every node shows what it was told.
    fn check_each(&self) -> Check {
        (0..NODES).try_for_each(|at| self.check(at))
    }

    fn check(&self, at: usize) -> Check {
        let node = &self.nodes[at];
        for (key, row) in self.rows.iter().enumerate() {
            let bytes = node.replica.record(row);
            let record = Record::decode(&bytes).expect("ours");
            let (shown, wanted) = (shown(&record), self.sum_of(&node.told[key]));
            if shown != wanted {
                return Err(format!("node {at} shows {shown} of key {key}, not {wanted}"));
            }
        }
        Ok(())
    }

    /// A read that joins states, some of them of an earlier moment.
    fn check_read(&mut self, key: usize, asked: &[Snapshot]) -> Check {
        let none = DotSet::new();
        let joins_dropped = self.is(Plant::JoinsDropped);
        let (mut joined, mut seen, mut told) = (Record::default(), DotSet::new(), Told::default());
        for s in asked {
            let record = Record::decode(&s.records[key]).expect("ours");
            for (a, b) in joined.counts.iter().zip(&record.counts) {
                // Of two generations the later one has the greater numbers, all of them: to go by
                // the number alone would choose alike.
                let in_order = a.actor != b.actor
                    || a.generation == b.generation
                    || (a.generation < b.generation) == (a.n < b.generation)
                    || (b.generation < a.generation) == (b.n < a.generation);
                if !in_order {
                    return Err(format!("generations overlap: {a:?} and {b:?}"));
                }
            }
            joined = if joins_dropped {
                joined.join(&none, &record, &none)
            } else {
                joined.join(&seen, &record, &s.clock)
            };
            seen.union(&s.clock);
            told.union(&s.told[key]);
        }
        let (shown, wanted) = (shown(&joined), self.sum_of(&told));
        if shown == wanted {
            Ok(())
        } else {
            Err(format!("a read shows {shown} of key {key}, not {wanted}"))
        }
    }

    fn step(&mut self, earlier: &mut Vec<Snapshot>) -> Check {
        let at = self.rng.random_range(0..NODES);
        let other = (at + self.rng.random_range(1..NODES)) % NODES;
        let key = self.rng.random_range(0..self.rows.len());
        match self.rng.random_range(0..100) {
            0..14 => self.mint(at, key),
            14..62 if !self.flying.is_empty() => {
                let i = self.rng.random_range(0..self.flying.len());
                let (to, hlc, message) = self.flying.swap_remove(i);
                self.deliver(to, hlc, message);
                return self.check(to);
            }
            62..66 => {
                let snapshot = self.snapshot(other);
                self.send(other, at, &Message::Repair { key, snapshot });
            }
            66..68 => {
                let snapshot = self.snapshot(other);
                self.send(other, at, &Message::Sweep(snapshot));
            }
            68..71 => self.pull(at, other),
            71..76 => self.close(at),
            76..81 => self.tell_reached(at),
            81..83 => return self.quieten(),
            85..92 => self.collect(at, key),
            92..94 => earlier.push(self.snapshot(at)),
            94..95 if self.rng.random_bool(0.1) => self.restart(at),
            95..98 => {
                let mut asked = vec![self.snapshot(at)];
                if let Some(s) = earlier.choose(&mut self.rng) {
                    asked.push(s.clone());
                }
                if self.rng.random_bool(0.5) {
                    asked.push(self.snapshot(other));
                }
                asked.shuffle(&mut self.rng);
                self.check_read(key, &asked)?;
            }
            _ => {
                let row = self.rows[key].clone();
                self.nodes[at].replica.squash(&row, &mut self.rng);
            }
        }
        self.check(at)
    }

    fn close(&mut self, at: usize) {
        let (actor, hlc) = (self.nodes[at].actor, self.nodes[at].hlc);
        let seq = self.nodes[at].replica.clock.highest(actor);
        let message = Message::Closed { actor, hlc, seq };
        self.deliver(at, hlc, message.clone());
        self.send_all(at, &message);
    }

    fn tell_reached(&mut self, at: usize) {
        let (actor, hlc) = (self.nodes[at].actor, self.reached(at));
        let seq = self.nodes[at].replica.clock.highest(actor);
        self.send_all(at, &Message::Reached { node: at, hlc, actor, seq });
    }

    /// A quiet while: most of what flies arrives, but no repair and no sweep, and much is collected.
    fn quieten(&mut self) -> Check {
        let mut late = Vec::new();
        for round in 0..3 {
            if round == 1 && self.rng.random_bool(0.5) {
                // Minted after the first closing, it may take longer than all of this.
                let earlier = self.flying.len();
                let (at, key) = (self.rng.random_range(0..NODES), self.rng.random_range(0..2));
                self.mint(at, key);
                late = self.flying.split_off(earlier);
            }
            let share = if round == 0 && self.rng.random_bool(0.5) { 0.7 } else { 1.0 };
            let mut left = Vec::new();
            for (to, hlc, message) in std::mem::take(&mut self.flying) {
                let is_state = matches!(message, Message::Repair { .. } | Message::Sweep(_));
                if is_state || !self.rng.random_bool(share) {
                    left.push((to, hlc, message));
                } else {
                    self.deliver(to, hlc, message);
                }
            }
            self.flying = left;
            for at in 0..NODES {
                match round {
                    0 => self.close(at),
                    1 => self.tell_reached(at),
                    _ => (0..self.rows.len()).for_each(|key| self.collect(at, key)),
                }
            }
        }
        self.flying.append(&mut late);
        self.check_each()
    }

    /// The deltas that `at` misses, from the other's log.
    fn pull(&mut self, at: usize, from: usize) {
        let clock = self.nodes[at].replica.clock.clone();
        let missed: Vec<Message> = self.nodes[from]
            .log
            .iter()
            .filter(|(dot, _)| !clock.contains(**dot))
            .map(|(_, message)| message.clone())
            .collect();
        for message in missed {
            self.send(from, at, &message);
        }
    }

    /// A start that was not clean: a new life, and the old one is sealed.
    fn restart(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        self.sealed.insert(node.actor, node.replica.clock.highest(node.actor));
        node.actor = Actor::new(node.actor.node.0, node.actor.incarnation.0 + 1);
        node.former.fill(BTreeSet::new());
    }

    /// Everything arrives, and everybody hears of everything.
    fn heal(&mut self) -> Check {
        let mut flying = std::mem::take(&mut self.flying);
        flying.shuffle(&mut self.rng);
        for (to, hlc, message) in flying {
            self.deliver(to, hlc, message);
            self.check(to)?;
        }
        for key in 0..self.rows.len() {
            for (shown_at, node) in self.nodes.iter().enumerate() {
                let bytes = node.replica.record(&self.rows[key]);
                let shown = shown(&Record::decode(&bytes).expect("ours"));
                let unseen = self.increments[key].difference(&self.reset[key]);
                let wanted: i128 = unseen.map(|d| self.by[d]).sum();
                if shown != wanted {
                    return Err(format!(
                        "node {shown_at} ends with {shown} of key {key}, the history with {wanted}"
                    ));
                }
            }
        }
        self.collect_all()
    }

    /// After two rounds of closing, all that is reset is gone everywhere, and all are alike.
    fn collect_all(&mut self) -> Check {
        self.at_end = true;
        let top = self.nodes.iter().map(|n| n.hlc).max().unwrap_or(0) + 1;
        for at in 0..NODES {
            let actor = self.nodes[at].actor;
            let seq = self.nodes[at].replica.clock.highest(actor);
            for to in 0..NODES {
                self.deliver(to, top, Message::Closed { actor, hlc: top, seq });
            }
        }
        for at in 0..NODES {
            let (actor, hlc) = (self.nodes[at].actor, self.reached(at));
            let seq = self.nodes[at].replica.clock.highest(actor);
            for to in 0..NODES {
                self.deliver(to, top, Message::Reached { node: at, hlc, actor, seq });
            }
        }
        for key in 0..self.rows.len() {
            let mut digests = BTreeSet::new();
            for at in 0..NODES {
                self.collect(at, key);
                let bytes = self.nodes[at].replica.record(&self.rows[key]);
                let record = Record::decode(&bytes).expect("ours");
                digests.insert(record.digest());
                let told = &self.nodes[at].told[key];
                if self.plant.is_none() && told.increments.is_subset(&told.reset) {
                    assert!(record.counts.is_empty(), "something reset is kept: {record:?}");
                }
            }
            if digests.len() > 1 {
                return Err(format!("copies of key {key} differ at the end"));
            }
        }
        self.check_each()
    }
}

impl Node {
    fn install(&mut self, rows: &[Bytes], key: usize, from: &Snapshot, brings_back: bool) {
        let row = &rows[key];
        self.replica.install(row, &from.records[key], &from.clock);
        if brings_back {
            let theirs = Record::decode(&from.records[key]).expect("ours");
            let counts = Record { counts: theirs.counts.clone(), ..Record::default() };
            self.replica.push(row, Patch::of_record(counts).to_operand());
        }
        self.told[key].union(&from.told[key]);
    }
}

fn shown(record: &Record<'_>) -> i128 {
    record.view(WallMillis(1)).sum.unwrap_or(0)
}

/// One random history; how often something was dropped, and begun anew.
fn run(seed: u64, plant: Option<Plant>) -> Result<(u64, u64), String> {
    let mut world = World::new(seed, plant);
    let mut earlier = Vec::new();
    for step in 0..250 {
        world.step(&mut earlier).map_err(|why| format!("seed {seed}, step {step}: {why}"))?;
    }
    world.heal().map_err(|why| format!("seed {seed}, healing: {why}"))?;
    Ok((world.dropped, world.begun_anew))
}

#[test]
fn counters_dropped_and_begun_anew_stay_exact() {
    let (mut dropped, mut begun_anew) = (0, 0);
    for seed in 0..600 {
        let (d, b) = run(seed, None).unwrap_or_else(|why| panic!("{why}"));
        dropped += d;
        begun_anew += b;
    }
    println!("600 histories: dropped {dropped} times, begun anew {begun_anew} times");
    assert!(dropped > 1_000 && begun_anew > 1_000, "too little happens to show anything");
}

#[test]
fn every_planted_mistake_about_generations_is_found() {
    for plant in [
        Plant::KeepsGeneration,
        Plant::TakesFormerBaseline,
        Plant::CarriesOnWhatIsReset,
        Plant::InstallsDropped,
        Plant::JoinsDropped,
        Plant::ResetHasTimeOfCount,
        Plant::DropsOnFirstClose,
        Plant::DropsAlone,
        Plant::DropsOldestVersion,
    ] {
        let found = (0..2_000).find_map(|seed| run(seed, Some(plant)).err());
        println!("{plant:?}: {}", found.as_deref().unwrap_or("not found"));
        assert!(found.is_some(), "{plant:?} was not found");
    }
}

#[test]
fn a_running_total_without_room_takes_nothing_more_until_it_is_reset() {
    let me = Actor::new(1, 1);
    let full = Count { actor: me, generation: 1, n: 5, total: i128::MAX - 1, hlc: Hlc(9) };
    let mut record = Record { counts: [full].into_iter().collect(), ..Record::default() };
    assert_eq!(record.counted(me, 6, 1, false), Some((1, i128::MAX)));
    assert_eq!(record.counted(me, 6, 2, false), None);
    assert_eq!(record.counted(me, 6, 2, true), Some((6, 2)), "the same mutation resets it");
    record.resets = record.reset_at(Hlc(10));
    assert_eq!(record.counted(me, 6, 2, false), Some((6, 2)), "begun anew");
}
