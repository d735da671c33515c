//! Terms of keyspaces that change while requests are under way, and deadlines that keyspaces give.

use std::sync::Arc;

use bytes::Bytes;
use ring::keyspace::{KeyspacePolicy, Level};
use ring::{NodeId, Policies, WallMillis};
use ringdb_replication::op::{ExpireCondition, SetCondition, SetExpiry};
use ringdb_replication::{Answer, Event, Message, Op, Outcome, TaskError};

use crate::cluster::{Cluster, n, set, task};

const HOUR_MS: u64 = 3_600_000;

fn set_terms(c: &mut Cluster, nodes: &[NodeId], terms: KeyspacePolicy) {
    let policies = Arc::new(Policies { default: terms, ..Policies::default() });
    for node in nodes {
        c.event(*node, Event::PoliciesAre(policies.clone()));
    }
}

fn all() -> [NodeId; 3] {
    [n(1), n(2), n(3)]
}

/// When a key vanishes, as the node finds it.
fn deadline(c: &mut Cluster, at: NodeId, key: &str) -> Option<WallMillis> {
    match c.op(at, key, Op::Read) {
        Ok(Outcome::Read { found: Some(found), .. }) => found.deadline,
        other => panic!("{key} is there: {other:?}"),
    }
}

#[test]
fn what_is_under_way_keeps_the_terms_that_it_began_with() {
    let mut c = Cluster::new(3);
    // It began when two of three were enough, and ONE is not what it is answered by.
    c.lose = Box::new(|_, _, message| matches!(message, Message::Replicated { .. }));
    let before = c.submit(n(1), task("k", set("v1")));
    c.settle();
    assert_eq!(c.answer(before), None, "nobody else has acknowledged it");
    let base = KeyspacePolicy::default();
    set_terms(&mut c, &all(), KeyspacePolicy { write: Level::One, ..base });
    c.settle();
    assert_eq!(c.answer(before), None, "the new terms are not its terms");
    let after = c.submit(n(1), task("j", set("v1")));
    c.settle();
    assert!(matches!(c.answer(after), Some(Answer::Done { .. })), "these are the new terms");
    c.lose = Box::new(|_, _, _| false);
    assert!(matches!(c.await_answer(before), Answer::Done { .. }));

    set_terms(&mut c, &all(), KeyspacePolicy { write: Level::All, ..base });
    c.kill(n(3), true);
    let refused = c.set(n(1), "k", "v2");
    assert!(matches!(refused, Err(TaskError::Unavailable { needed: 3, .. })), "{refused:?}");
    set_terms(&mut c, &[n(1), n(2)], base);
    c.set(n(1), "k", "v2").expect("two are enough again");
}

#[test]
fn what_a_keyspace_with_fewer_copies_passes_over_is_no_gap_and_what_is_lost_is_one() {
    let mut c = Cluster::new(3);
    let default = KeyspacePolicy::default();
    let fewer = KeyspacePolicy { n: 2, ..default };
    let policies = Policies { default, own: vec![(5, fewer)], closed: Vec::new() };
    for node in all() {
        c.event(node, Event::PoliciesAre(Arc::new(policies.clone())));
    }
    // Keys of both keyspaces in one slot, minted by its first replica: the third lacks those of one.
    let replicas = c.layout().replicas(ring::Slot::of_key(b"k")).to_vec();
    let gaps = |c: &Cluster| -> Vec<u64> {
        replicas.iter().map(|r| c.peer(*r).clock_gaps(0, usize::MAX).unwrap_or_default()).collect()
    };
    let write = |c: &mut Cluster, keyspace| {
        let slot = ring::Slot::of_key(b"k");
        let row = ringdb_replication::row::of_key(keyspace, b"k");
        let write = ringdb_replication::Task::one(slot, keyspace, row, set("v"));
        let done = c.ask(replicas[0], ringdb_replication::Request::Task(write));
        assert!(matches!(done, Answer::Done { .. }), "{done:?}");
        c.settle();
    };
    for keyspace in [0, 5, 0] {
        write(&mut c, keyspace);
    }
    assert_eq!(gaps(&c), [0, 0, 0], "nobody lacks what it should have");
    // The second loses a write that it should have had.
    let second = replicas[1];
    c.lose = Box::new(move |_, to, message| {
        to == second && matches!(message, Message::Replicate { .. })
    });
    write(&mut c, 0);
    c.lose = Box::new(|_, _, _| false);
    write(&mut c, 0);
    assert_eq!(gaps(&c), [0, 1, 0], "one lacks something");
    // By terms of as many copies everywhere the third would lack something too.
    set_terms(&mut c, &all(), default);
    assert_eq!(gaps(&c), [0, 1, 1]);
}

#[test]
fn a_key_that_comes_into_being_lives_as_long_as_its_keyspace_says() {
    let mut c = Cluster::new(3);
    c.set(n(1), "old", "7").expect("a quorum");
    let ttl_ms = Some(HOUR_MS);
    set_terms(&mut c, &all(), KeyspacePolicy { ttl_ms, ..KeyspacePolicy::default() });
    assert_eq!(deadline(&mut c, n(2), "old"), None, "it was there before");
    assert_eq!(c.incr(n(1), "old", 1), 8);
    assert_eq!(deadline(&mut c, n(2), "old"), None, "it did not come into being");
    c.set(n(1), "old", "9").expect("a quorum");
    c.set(n(2), "new", "1").expect("a quorum");
    assert_eq!(c.incr(n(3), "count", 2), 2);
    let expected = Some(WallMillis(c.now.wall.0 + HOUR_MS));
    for key in ["old", "new", "count"] {
        for node in all() {
            let found = deadline(&mut c, node, key);
            let near = found.zip(expected).is_some_and(|(a, b)| a.0.abs_diff(b.0) < 5_000);
            assert!(near, "{key} at {node}: {found:?}, not {expected:?}");
        }
    }
    assert_eq!(c.op(n(1), "new", Op::Persist), Ok(Outcome::Flag(true)));
    assert_eq!(deadline(&mut c, n(2), "new"), None);
    assert_eq!(c.op(n(1), "new", Op::Append(Bytes::from_static(b"2"))), Ok(Outcome::Integer(2)));
    assert_eq!(deadline(&mut c, n(2), "new"), None, "it was persisted");
    let at = WallMillis(c.now.wall.0 + 50_000);
    let condition = SetCondition::Always;
    let own = Op::Set { value: "3".into(), expiry: SetExpiry::At(at), condition, get: false };
    c.op(n(1), "new", own).expect("a quorum");
    assert_eq!(deadline(&mut c, n(2), "new"), Some(at), "its own wins");
    let later = WallMillis(at.0 + 50_000);
    let expire = Op::Expire { at: later, condition: ExpireCondition::Always };
    assert_eq!(c.op(n(3), "count", expire), Ok(Outcome::Flag(true)));
    assert_eq!(c.incr(n(3), "count", 2), 4);
    assert_eq!(deadline(&mut c, n(2), "count"), Some(later));
}

#[test]
fn an_increment_at_a_replica_that_lags_gives_no_deadline_to_a_key_that_shall_live() {
    let mut c = Cluster::new(3);
    let ttl_ms = Some(HOUR_MS);
    // The preferred coordinator of the key misses that it was begun, before there was a deadline.
    let (key, first) = ("k", c.layout().replicas(ring::Slot::of_key(b"k"))[0]);
    let other = all().into_iter().find(|node| *node != first).expect("another one");
    c.lose =
        Box::new(move |_, to, message| to == first && matches!(message, Message::Replicate { .. }));
    c.set(other, key, "10").expect("two others hold it");
    set_terms(&mut c, &all(), KeyspacePolicy { ttl_ms, ..KeyspacePolicy::default() });
    c.lose = Box::new(|_, _, _| false);
    assert_eq!(c.incr(first, key, 1), 11, "it asked a quorum");
    for node in all() {
        assert_eq!(c.get(node, key).as_deref(), Some("11"));
        assert_eq!(deadline(&mut c, node, key), None, "at {node}");
    }
}
