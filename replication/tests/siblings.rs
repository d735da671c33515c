//! Keyspaces that keep siblings: no write takes away a value that its client has not been shown.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ring::keyspace::{Conflict, KeyspacePolicy};
use ring::{NodeId, Policies, Slot, WallMillis};
use ringdb_replication::limits::{SIBLINGS_MANY, SIBLINGS_MAX};
use ringdb_replication::op::{ExpireCondition, OpError, SetCondition, SetExpiry, Sibling};
use ringdb_replication::{Answer, Event, Op, Outcome, Request, Task, row};

use crate::cluster::{Cluster, n, set, task};

fn keeping(ttl_ms: Option<u64>) -> Cluster {
    let mut c = Cluster::new(3);
    let terms =
        KeyspacePolicy { conflict: Conflict::Siblings, ttl_ms, ..KeyspacePolicy::default() };
    let policies = Arc::new(Policies { default: terms, ..Policies::default() });
    for node in [n(1), n(2), n(3)] {
        c.event(node, Event::PoliciesAre(policies.clone()));
    }
    c
}

/// All values of a key, in their order, and the context.
fn siblings(c: &mut Cluster, at: NodeId, key: &str) -> (Vec<String>, Bytes) {
    match c.op(at, key, Op::Siblings) {
        Ok(Outcome::Siblings { values, context }) => {
            let text = |s: &Sibling| String::from_utf8_lossy(&s.value).into();
            (values.iter().map(text).collect(), context)
        }
        other => panic!("{other:?}"),
    }
}

fn values(c: &mut Cluster, at: NodeId, key: &str) -> Vec<String> {
    siblings(c, at, key).0
}

fn with(value: &str, expiry: SetExpiry, condition: SetCondition, get: bool) -> Op {
    Op::Set { value: Bytes::copy_from_slice(value.as_bytes()), expiry, condition, get }
}

/// A little later, so that what is written now is newer.
fn later(c: &mut Cluster) {
    c.wait(Duration::from_millis(5));
}

#[test]
fn what_is_set_without_a_context_goes_beside_what_is_there() {
    let mut c = keeping(None);
    for (node, value) in [(1, "a"), (1, "b"), (2, "c")] {
        c.set(n(node), "k", value).expect("a quorum");
        later(&mut c);
    }
    for node in [1, 2, 3] {
        assert_eq!(values(&mut c, n(node), "k"), ["c", "b", "a"], "newest first");
        assert_eq!(c.get(n(node), "k").as_deref(), Some("c"), "plain reads show the newest");
    }
    c.set(n(3), "k", "b").expect("a quorum");
    assert_eq!(values(&mut c, n(1), "k"), ["b", "c", "a"], "a SET may be repeated");
    let (_, context) = siblings(&mut c, n(2), "k");
    later(&mut c);
    c.set(n(1), "k", "d").expect("a quorum");
    let all = Op::SetWithContext { value: Some("abc".into()), context };
    c.op(n(2), "k", all).expect("a quorum");
    let left = values(&mut c, n(3), "k");
    assert_eq!(left, ["abc", "d"], "what came after the read stays");
    c.op(n(2), "k", Op::Delete).expect("a quorum");
    assert_eq!(values(&mut c, n(1), "k"), Vec::<String>::new(), "a deletion is of the key");
}

#[test]
fn what_its_client_is_shown_or_has_watched_is_replaced_and_no_more() {
    let mut c = keeping(None);
    let two = |c: &mut Cluster, key: &str| {
        c.set(n(1), key, "old").expect("a quorum");
        later(c);
        c.set(n(2), key, "new").expect("a quorum");
        later(c);
    };
    let always = SetCondition::Always;
    let cases = [
        ("getset", with("x", SetExpiry::Clear, always, true), vec!["x", "old"]),
        ("append", Op::Append("er".into()), vec!["newer", "old"]),
        ("setrange", Op::SetRange { offset: 1, bytes: "ow".into() }, vec!["now", "old"]),
        ("keepttl", with("x", SetExpiry::Keep, always, false), vec!["x", "new", "old"]),
        (
            "xx",
            with("x", SetExpiry::Clear, SetCondition::IfPresent, false),
            vec!["x", "new", "old"],
        ),
        ("nx", with("x", SetExpiry::Clear, SetCondition::IfAbsent, false), vec!["new", "old"]),
        ("getdel", Op::GetDelete, vec![]),
    ];
    for (key, op, expected) in cases {
        two(&mut c, key);
        c.op(n(3), key, op).expect("a quorum");
        assert_eq!(values(&mut c, n(1), key), expected, "{key}");
    }

    two(&mut c, "k");
    let Ok(Outcome::Read { digest, .. }) = c.op(n(1), "k", Op::Read) else { panic!("it is there") };
    let key = row::of_key(0, b"k");
    let base = Task::one(Slot::of_key(b"k"), 0, key.clone(), set("x"));
    let ops = vec![(key.clone(), set("x")), (key.clone(), set("y"))];
    let both = Task { ops, watches: vec![(key, digest)], atomic: true, ..base };
    let done = c.ask(n(1), Request::Task(both));
    assert!(matches!(done, Answer::Done { .. }), "{done:?}");
    assert_eq!(values(&mut c, n(2), "k"), ["y", "old"], "its own first value is replaced too");
}

#[test]
fn a_key_has_so_many_siblings_and_no_more() {
    let mut c = keeping(None);
    for i in 0..SIBLINGS_MAX {
        c.set(n(1), "k", &format!("v{i}")).expect("a quorum");
    }
    let refused = c.set(n(1), "k", "one more");
    assert_eq!(refused, Ok(Outcome::Failed(OpError::TooManySiblings)));
    let (all, context) = siblings(&mut c, n(3), "k");
    assert_eq!(all.len(), SIBLINGS_MAX, "none is dropped");
    let counted = c.peer(n(1)).stats().many_siblings;
    assert_eq!(counted as usize, SIBLINGS_MAX - SIBLINGS_MANY + 1);
    // What takes the place of one has room.
    later(&mut c);
    let always = SetCondition::Always;
    let done = c.op(n(2), "k", with("instead", SetExpiry::Clear, always, true));
    assert!(matches!(done, Ok(Outcome::Set { done: true, .. })), "{done:?}");
    later(&mut c);
    let resolved = Op::SetWithContext { value: Some("one".into()), context };
    c.op(n(2), "k", resolved).expect("a quorum");
    assert_eq!(values(&mut c, n(1), "k"), ["one", "instead"]);
    c.set(n(1), "k", "one more").expect("a quorum");
}

#[test]
fn a_set_frees_the_key_of_its_deadline_and_brings_nothing_back() {
    let mut c = keeping(None);
    let until = |c: &Cluster, ms| SetExpiry::At(WallMillis(c.now.wall.0 + ms));
    let (soon, always) = (until(&c, 1_000), SetCondition::Always);
    c.op(n(1), "k", with("a", soon, always, false)).expect("a quorum");
    later(&mut c);
    c.set(n(2), "k", "b").expect("a quorum");
    c.wait(Duration::from_millis(1_500));
    assert_eq!(values(&mut c, n(3), "k"), ["b", "a"], "the key has no deadline any more");

    c.op(n(1), "gone", with("a", until(&c, 1_000), always, false)).expect("a quorum");
    c.set(n(1), "gone", "b").expect("a quorum");
    let at = WallMillis(c.now.wall.0 + 1_000);
    let expire = Op::Expire { at, condition: ExpireCondition::Always };
    assert_eq!(c.op(n(2), "gone", expire), Ok(Outcome::Flag(true)));
    c.wait(Duration::from_millis(1_500));
    assert_eq!(c.get(n(1), "gone"), None);
    c.set(n(3), "gone", "c").expect("a quorum");
    for node in [1, 2, 3] {
        assert_eq!(values(&mut c, n(node), "gone"), ["c"], "what has expired does not return");
    }
}

#[test]
fn default_deadlines_and_counters_are_of_the_key() {
    let mut c = keeping(Some(60_000));
    c.set(n(1), "k", "a").expect("a quorum");
    later(&mut c);
    c.set(n(2), "k", "b").expect("a quorum");
    let Ok(Outcome::Read { found: Some(found), .. }) = c.op(n(3), "k", Op::Read) else {
        panic!("it is there")
    };
    assert!(found.deadline.is_some_and(|at| at.0.abs_diff(c.now.wall.0 + 60_000) < 1_000));

    assert_eq!(c.incr(n(1), "count", 5), 5);
    c.set(n(2), "count", "10").expect("a quorum");
    assert_eq!(values(&mut c, n(1), "count"), ["10"], "the increments that it saw are reset");
    later(&mut c);
    c.set(n(2), "count", "20").expect("a quorum");
    assert_eq!(c.incr(n(3), "count", 1), 21);
    assert_eq!(values(&mut c, n(1), "count"), ["21", "11"], "each counts on");
}

#[test]
fn siblings_end_with_the_terms_that_kept_them() {
    let mut c = keeping(None);
    c.set(n(1), "k", "a").expect("a quorum");
    c.set(n(1), "k", "b").expect("a quorum");
    for node in [n(1), n(2), n(3)] {
        c.event(node, Event::PoliciesAre(Arc::default()));
    }
    assert_eq!(values(&mut c, n(2), "k").len(), 2, "they are still there");
    c.set(n(2), "k", "c").expect("a quorum");
    assert_eq!(values(&mut c, n(3), "k"), ["c"]);
    let id = c.submit(n(1), task("k", set("d")));
    assert!(matches!(c.await_answer(id), Answer::Done { .. }));
}
