//! Laws: whatever order deltas, states and folds come in, every replica ends with what the causal
//! history says, and no partial merge changes the result.
//!
//! The oracle is naive: the set of all mutations. A value lives if no mutation in the set discards
//! it; a counter is the sum of the increments that no reset saw.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use ring::{Actor, Hlc, Slot, WallMillis};
use ringdb_replication::record::{Record, Summary};
use ringdb_replication::row;
use ringdb_replication::{Delta, Dot, DotSet};

use crate::bare::Replica;

/// The dots and totals that a mutation had seen, for the oracle.
struct Truth {
    dot: Dot,
    row: Bytes,
    discards: Option<DotSet>,
    discards_expiry: Option<DotSet>,
    value: bool,
    expiry: bool,
    increment: i128,
    /// Increments that this reset saw.
    reset: Vec<Dot>,
}

fn mint(
    replica: &mut Replica,
    actor: Actor,
    row: &Bytes,
    hlc: Hlc,
    increments: &BTreeMap<(Bytes, Actor), Vec<Dot>>,
    rng: &mut StdRng,
) -> (Bytes, Truth) {
    let dot = Dot::new(actor, replica.clock.highest(actor) + 1);
    let bytes = replica.record(row);
    let record = Record::decode(&bytes).expect("ours");
    let mut seen = replica.clock.clone();
    seen.union(&record.pending);
    let mut delta = Delta::new(row, dot, hlc);
    let text = format!("v{dot}");
    let kind = rng.random_range(0..10);
    let mut truth = Truth {
        dot,
        row: row.clone(),
        discards: None,
        discards_expiry: None,
        value: false,
        expiry: false,
        increment: 0,
        reset: Vec::new(),
    };
    if kind < 6 {
        // SET or DEL: replaces what is seen, resets the counter.
        delta.discards_values = true;
        delta.discards_expiry = kind != 5;
        delta.discard = seen.clone();
        if kind >= 2 {
            delta.value = Some(text.as_bytes());
            truth.value = true;
        }
        delta.resets = record.reset_at(hlc);
        for c in &record.counts {
            let dots = increments.get(&(row.clone(), c.actor)).into_iter().flatten();
            truth.reset.extend(dots.filter(|d| d.seq <= c.n));
        }
        truth.discards = Some(seen.clone());
        if delta.discards_expiry {
            truth.discards_expiry = Some(seen);
        }
        if kind == 4 {
            delta.expiry = Some(WallMillis(9_000_000));
            truth.expiry = true;
        }
    } else if kind == 6 {
        delta.discards_expiry = true;
        delta.discard = seen.clone();
        delta.expiry = Some(WallMillis(9_000_000 + dot.seq));
        truth.discards_expiry = Some(seen);
        truth.expiry = true;
    } else {
        let by = i128::from(rng.random_range(-5i64..9));
        delta.count = record.counted(actor, dot.seq, by, false);
        truth.increment = by;
    }
    let raw = delta.to_bytes();
    assert_eq!(Delta::decode(&raw), Some(delta), "encoding gives it back");
    (raw, truth)
}

fn check(replicas: &[Replica], rows: &[Bytes], truths: &[Truth], seed: u64) {
    for row in rows {
        let here = |t: &&Truth| t.row == *row;
        let live = |dot: Dot, by: fn(&Truth) -> &Option<DotSet>| {
            !truths.iter().filter(here).any(|t| {
                t.dot != dot && by(t).as_ref().is_some_and(|discards| discards.contains(dot))
            })
        };
        let values: Vec<Dot> = truths
            .iter()
            .filter(here)
            .filter(|t| t.value && live(t.dot, |t| &t.discards))
            .map(|t| t.dot)
            .collect();
        let expiries: Vec<Dot> = truths
            .iter()
            .filter(here)
            .filter(|t| t.expiry && live(t.dot, |t| &t.discards_expiry))
            .map(|t| t.dot)
            .collect();
        let reset: Vec<Dot> = truths.iter().filter(here).flat_map(|t| t.reset.clone()).collect();
        let sum: i128 = truths
            .iter()
            .filter(here)
            .filter(|t| !reset.contains(&t.dot))
            .map(|t| t.increment)
            .sum();
        for (i, replica) in replicas.iter().enumerate() {
            let bytes = replica.record(row);
            let record = Record::decode(&bytes).expect("ours");
            let mut found: Vec<Dot> = record.values.iter().map(|v| v.dot).collect();
            let mut wanted = values.clone();
            found.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "seed {seed}: values of replica {i}");
            let mut found: Vec<Dot> = record.expiries.iter().map(|e| e.dot).collect();
            let mut wanted = expiries.clone();
            found.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "seed {seed}: expiries of replica {i}");
            let view = record.view(WallMillis(1));
            assert_eq!(view.sum.unwrap_or(0), sum, "seed {seed}: counter of replica {i}");
            assert_eq!(record.to_bytes(), bytes, "encoding is canonical");
        }
    }
}

/// One random history of three replicas, with deltas out of order, states in between, and folds.
fn run(seed: u64, with_installs: bool) {
    let mut rng = StdRng::seed_from_u64(seed);
    let rows: Vec<Bytes> = (0..2)
        .map(|i| {
            let mut row = row::of_key(0, b"{t}").to_vec();
            row.push(i);
            Bytes::from(row)
        })
        .collect();
    let actors = [Actor::new(1, 1), Actor::new(2, 1), Actor::new(3, 4)];
    let mut replicas = vec![Replica::default(); 3];
    let mut clock = 1_000u64;
    let mut truths = Vec::new();
    let mut increments: BTreeMap<(Bytes, Actor), Vec<Dot>> = BTreeMap::new();
    let mut flying: Vec<(usize, Bytes)> = Vec::new();
    for _ in 0..60 {
        let at = rng.random_range(0..3);
        let row = rows[rng.random_range(0..rows.len())].clone();
        match rng.random_range(0..100) {
            0..35 => {
                clock += rng.random_range(0..3);
                let hlc = Hlc::new(WallMillis(clock), 0);
                let (raw, truth) =
                    mint(&mut replicas[at], actors[at], &row, hlc, &increments, &mut rng);
                if truth.increment != 0 || Delta::decode(&raw).is_some_and(|d| d.count.is_some()) {
                    increments.entry((row, actors[at])).or_default().push(truth.dot);
                }
                replicas[at].apply(&raw);
                truths.push(truth);
                for to in (0..3).filter(|to| *to != at) {
                    for _ in 0..rng.random_range(1..=2) {
                        flying.push((to, raw.clone()));
                    }
                }
            }
            35..75 if !flying.is_empty() => {
                let (to, raw) = flying.swap_remove(rng.random_range(0..flying.len()));
                replicas[to].apply(&raw);
            }
            75..88 if with_installs => {
                let from = rng.random_range(0..3);
                if from != at {
                    let (state, seen) = (replicas[from].record(&row), replicas[from].clock.clone());
                    replicas[at].install(&row, &state, &seen);
                }
            }
            _ => replicas[at].squash(&row, &mut rng),
        }
    }
    flying.shuffle(&mut rng);
    for (to, raw) in flying {
        replicas[to].apply(&raw);
    }
    check(&replicas, &rows, &truths, seed);
    let digests = |r: &Replica| {
        rows.iter()
            .map(|row| Record::decode(&r.record(row)).expect("ours").digest())
            .collect::<Vec<_>>()
    };
    assert_eq!(digests(&replicas[0]), digests(&replicas[1]), "seed {seed}");
    assert_eq!(digests(&replicas[0]), digests(&replicas[2]), "seed {seed}");
}

#[test]
fn deltas_in_any_order_give_what_the_causal_history_says() {
    for seed in 0..3_000 {
        run(seed, false);
    }
}

#[test]
fn states_joined_in_between_change_nothing_of_it() {
    for seed in 10_000..13_000 {
        run(seed, true);
    }
}

/// Random record states with their clocks, as replicas of one history have them.
fn related_states(seed: u64) -> Vec<(Vec<u8>, DotSet)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let row = row::of_key(0, b"k");
    let actors = [Actor::new(1, 1), Actor::new(2, 1), Actor::new(3, 1)];
    let mut replicas = vec![Replica::default(); 3];
    let increments = BTreeMap::new();
    let mut flying: Vec<(usize, Bytes)> = Vec::new();
    for step in 0..25 {
        let at = rng.random_range(0..3);
        if rng.random_bool(0.4) {
            let hlc = Hlc::new(WallMillis(step), 0);
            let (raw, _) = mint(&mut replicas[at], actors[at], &row, hlc, &increments, &mut rng);
            replicas[at].apply(&raw);
            flying.extend((0..3).filter(|to| *to != at).map(|to| (to, raw.clone())));
        } else if !flying.is_empty() {
            let (to, raw) = flying.swap_remove(rng.random_range(0..flying.len()));
            replicas[to].apply(&raw);
        }
    }
    replicas.into_iter().map(|r| (r.record(&row), r.clock)).collect()
}

#[test]
fn joining_is_commutative_associative_and_idempotent() {
    for seed in 0..2_000 {
        let states = related_states(seed);
        let records: Vec<Record<'_>> =
            states.iter().map(|(bytes, _)| Record::decode(bytes).expect("ours")).collect();
        let clocks: Vec<&DotSet> = states.iter().map(|(_, clock)| clock).collect();
        let both = |a: &DotSet, b: &DotSet| {
            let mut all = a.clone();
            all.union(b);
            all
        };
        let live = |r: &Record<'_>| {
            let bare =
                Record { pending: DotSet::new(), pending_expiry: DotSet::new(), ..r.clone() };
            bare.to_bytes()
        };
        let ab = records[0].join(clocks[0], &records[1], clocks[1]);
        let ba = records[1].join(clocks[1], &records[0], clocks[0]);
        assert_eq!(live(&ab), live(&ba), "seed {seed}: commutative");
        let ab_clock = both(clocks[0], clocks[1]);
        let ab_c = ab.join(&ab_clock, &records[2], clocks[2]);
        let bc = records[1].join(clocks[1], &records[2], clocks[2]);
        let a_bc = records[0].join(clocks[0], &bc, &both(clocks[1], clocks[2]));
        assert_eq!(live(&ab_c), live(&a_bc), "seed {seed}: associative");
        let aa = records[0].join(clocks[0], &records[0], clocks[0]);
        assert_eq!(live(&aa), live(&records[0]), "seed {seed}: idempotent");
        let again = ab.join(&ab_clock, &records[0], clocks[0]);
        assert_eq!(live(&again), live(&ab), "seed {seed}: absorbing");
    }
}

#[test]
fn dot_sets_behave_as_sets() {
    for seed in 0..500 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut sets = vec![(DotSet::new(), std::collections::BTreeSet::new()); 2];
        for _ in 0..60 {
            let dot = Dot::new(Actor::new(rng.random_range(1..4), 1), rng.random_range(1..20));
            let (set, model) = &mut sets[rng.random_range(0..2)];
            assert_eq!(set.insert(dot), model.insert(dot), "seed {seed}");
        }
        let [(a, ma), (b, mb)] = &sets[..] else { unreachable!("two") };
        let of =
            |model: &std::collections::BTreeSet<Dot>| model.iter().copied().collect::<DotSet>();
        assert_eq!(*a, of(ma));
        assert_eq!(a.minus(b), of(&(ma - mb)), "seed {seed}: minus");
        let mut union = a.clone();
        union.union(b);
        assert_eq!(union, of(&(ma | mb)), "seed {seed}: union");
        assert_eq!(union.len(), (ma | mb).len() as u64);
        assert!(union.covers(a) && union.covers(b));
        assert_eq!(a.covers(b), mb.is_subset(ma), "seed {seed}: covers");
        let mut encoded = Vec::new();
        union.encode(&mut encoded);
        let mut reader = ringdb_replication::encoding::Reader::new(&encoded);
        assert_eq!(DotSet::decode(&mut reader), Some(union));
        for cut in 0..encoded.len() {
            let mut reader = ringdb_replication::encoding::Reader::new(&encoded[..cut]);
            assert_eq!(DotSet::decode(&mut reader), None, "cut at {cut}");
        }
    }
    assert_eq!(Slot::of_key(b"{t}"), Slot::of_key(b"{t}x"));
}

#[test]
fn a_summary_says_what_the_record_says() {
    for seed in 0..2_000 {
        for (bytes, _) in related_states(seed) {
            let record = Record::decode(&bytes).expect("ours");
            let summary = Summary::of(&bytes).expect("ours");
            assert_eq!(summary.digest, record.digest());
            let pending = !record.pending.is_empty() || !record.pending_expiry.is_empty();
            assert_eq!(summary.has_pending, pending);
            assert_eq!(summary.has_counts, !record.counts.is_empty() || !record.resets.is_empty());
            for cut in 0..bytes.len() {
                assert!(cut == 0 || Summary::of(&bytes[..cut]).is_none(), "cut at {cut}");
            }
        }
    }
}
