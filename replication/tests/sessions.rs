//! Sessions: who says what it has seen is never answered from less.

use bytes::Bytes;
use ring::keyspace::Level;
use ring::{NodeId, Slot};
use ringdb_replication::op::Span;
use ringdb_replication::{Answer, Message, Op, Outcome, Request, Task, TaskError, row};

use crate::cluster::{Cluster, set, task};

/// A task of one op at ONE, after what was seen.
fn at_one(key: &str, op: Op, after: Option<&Bytes>) -> Request {
    let Request::Task(task) = task(key, op) else { panic!("a task") };
    let (read, write) = (Some(Level::One), Some(Level::One));
    Request::Task(Task { read, write, after: after.cloned(), ..task })
}

/// The values that a read at ONE finds, and what has been seen then.
fn read(
    c: &mut Cluster,
    at: NodeId,
    key: &str,
    after: Option<&Bytes>,
) -> Result<(Vec<String>, Option<Bytes>), TaskError> {
    match c.ask(at, at_one(key, Op::Siblings, after)) {
        Answer::Done { outcomes, .. } => {
            let Outcome::Siblings { values, .. } = &outcomes[0] else { panic!("{outcomes:?}") };
            let text = |v: &[u8]| String::from_utf8_lossy(v).into_owned();
            let seen = outcomes.get(1).map(|seen| match seen {
                Outcome::Seen(seen) => seen.clone(),
                other => panic!("{other:?}"),
            });
            Ok((values.iter().map(|v| text(&v.value)).collect(), seen))
        }
        Answer::Failed(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

fn write(c: &mut Cluster, at: NodeId, key: &str, op: Op, after: &Bytes) -> (Outcome, Bytes) {
    match c.ask(at, at_one(key, op, Some(after))) {
        Answer::Done { mut outcomes, .. } => match outcomes.pop() {
            Some(Outcome::Seen(seen)) => (outcomes.pop().expect("the op's own"), seen),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Three nodes, of which the second and third hear of no write for now.
fn lagging() -> (Cluster, NodeId, NodeId, NodeId) {
    lagging_at(b"k")
}

fn lagging_at(key: &[u8]) -> (Cluster, NodeId, NodeId, NodeId) {
    let mut c = Cluster::new(3);
    let &[ahead, behind, other] = c.layout().replicas(Slot::of_key(key)) else { panic!("three") };
    c.lose = Box::new(move |from, _, m| from == ahead && matches!(m, Message::Replicate { .. }));
    (c, ahead, behind, other)
}

#[test]
fn who_says_what_it_wrote_reads_it_at_one_from_a_replica_that_lags() {
    let (mut c, ahead, behind, _) = lagging();
    let nothing = Bytes::new();
    let (_, seen) = write(&mut c, ahead, "k", set("v1"), &nothing);
    assert_eq!(read(&mut c, behind, "k", None), Ok((vec![], None)), "it has not heard of it");
    let (values, again) = read(&mut c, behind, "k", Some(&seen)).expect("the one ahead is there");
    assert_eq!(values, ["v1"]);
    // And what it has seen then is not less.
    let again = again.expect("it was asked for");
    assert_eq!(read(&mut c, ahead, "k", Some(&again)).expect("it is there").0, ["v1"]);
    // A write after it replaces it, though it is made where it was not known.
    let (_, seen) = write(&mut c, ahead, "k", set("v2"), &again);
    let (_, seen) = write(&mut c, behind, "k", set("v3"), &seen);
    assert_eq!(read(&mut c, behind, "k", Some(&seen)).expect("it is there").0, ["v3"]);
    assert!(c.peer(behind).stats().reads_behind > 0);
}

#[test]
fn a_deletion_that_was_seen_is_not_unseen() {
    let (mut c, ahead, behind, _) = lagging();
    c.lose = Box::new(|_, _, _| false);
    c.set(ahead, "k", "old").expect("a quorum");
    c.lose = Box::new(move |from, _, m| from == ahead && matches!(m, Message::Replicate { .. }));
    let (deleted, _) = write(&mut c, ahead, "k", Op::Delete, &Bytes::new());
    assert_eq!(deleted, Outcome::Flag(true));
    let (values, seen) = read(&mut c, ahead, "k", Some(&Bytes::new())).expect("it is there");
    assert_eq!(values, [""; 0]);
    assert_eq!(read(&mut c, behind, "k", None).expect("it is there").0, ["old"]);
    assert_eq!(read(&mut c, behind, "k", seen.as_ref()).expect("it is there").0, [""; 0]);
}

#[test]
fn what_nobody_has_who_is_there_is_waited_for_and_then_refused() {
    let (mut c, ahead, behind, _) = lagging();
    let (_, seen) = write(&mut c, ahead, "k", set("v"), &Bytes::new());
    c.kill(ahead, true);
    let refused = read(&mut c, behind, "k", Some(&seen));
    assert_eq!(refused, Err(TaskError::Behind { missing: vec![ahead] }));
    // An increment is not counted from less either, and leaves nothing behind.
    let refused = c.ask(behind, at_one("k", Op::Increment(1), Some(&seen)));
    assert!(matches!(refused, Answer::Failed(TaskError::Behind { .. })), "{refused:?}");
    assert_eq!(read(&mut c, behind, "k", None), Ok((vec![], None)));
    // It comes while somebody waits.
    let id = c.submit(behind, at_one("k", Op::Siblings, Some(&seen)));
    c.settle();
    assert_eq!(c.answer(id), None);
    c.lose = Box::new(|_, _, _| false);
    c.start(ahead, false);
    let found = c.await_answer(id);
    let Answer::Done { outcomes, .. } = found else { panic!("{found:?}") };
    assert!(matches!(&outcomes[0], Outcome::Siblings { values, .. } if values.len() == 1));
}

#[test]
fn a_token_that_no_node_gave_is_refused() {
    let mut c = Cluster::new(3);
    let &[at, ..] = c.layout().replicas(Slot::of_key(b"k")) else { panic!("three") };
    let refused = read(&mut c, at, "k", Some(&Bytes::from_static(b"\xff\xff\xff")));
    assert!(matches!(refused, Err(TaskError::Invalid(_))), "{refused:?}");
}

fn span() -> Span {
    let (start, end) = row::range_of_sort_keys(0, b"p", None, None).expect("a tag");
    let (slot, keyspace) = (Slot::of_key(b"{p}"), 0);
    Span { slot, keyspace, start, end, reverse: false, rows: 10, bytes: 1 << 20 }
}

/// The values in a range at ONE, and what has been seen then.
fn range(
    c: &mut Cluster,
    at: NodeId,
    after: Option<&Bytes>,
) -> Result<(Vec<String>, Bytes), TaskError> {
    let (level, after) = (Some(Level::One), after.cloned());
    match c.ask(at, Request::Range { span: span(), level, after }) {
        Answer::Page { rows, next, seen } => {
            assert!(next.is_empty());
            let text = |v: &[u8]| String::from_utf8_lossy(v).into_owned();
            let values = rows.iter().flat_map(|row| &row.values);
            Ok((values.map(|v| text(&v.value)).collect(), seen))
        }
        Answer::Failed(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_range_at_one_shows_what_its_asker_has_seen_from_a_replica_that_lags() {
    let (mut c, ahead, behind, other) = lagging_at(b"{p}");
    let (_, seen) = write(&mut c, ahead, "{p}a", set("v1"), &Bytes::new());
    let (_, seen) = write(&mut c, ahead, "{p}b", set("v2"), &seen);
    assert_eq!(range(&mut c, behind, None), Ok((vec![], Bytes::new())), "it has heard of nothing");
    let (values, seen) = range(&mut c, behind, Some(&seen)).expect("the one ahead is there");
    assert_eq!(values, ["v1", "v2"]);
    // What was seen in a range is not unseen by a read, nor in another range; what was seen to be gone
    // neither.
    assert_eq!(read(&mut c, other, "{p}a", Some(&seen)).expect("it is there").0, ["v1"]);
    assert_eq!(range(&mut c, other, Some(&seen)).expect("it is there").0, ["v1", "v2"]);
    let (_, seen) = write(&mut c, ahead, "{p}a", Op::Delete, &seen);
    let (values, seen) = range(&mut c, ahead, Some(&seen)).expect("it is there");
    assert_eq!(values, ["v2"]);
    assert_eq!(range(&mut c, other, Some(&seen)).expect("it is there").0, ["v2"]);
    assert!(c.peer(other).stats().reads_behind > 0);
}

#[test]
fn a_range_that_was_seen_empty_is_not_seen_full_again() {
    let (mut c, ahead, behind, _) = lagging_at(b"{p}");
    c.lose = Box::new(|_, _, _| false);
    c.set(ahead, "{p}a", "old").expect("a quorum");
    c.lose = Box::new(move |from, _, m| from == ahead && matches!(m, Message::Replicate { .. }));
    write(&mut c, ahead, "{p}a", Op::Delete, &Bytes::new());
    let (values, seen) = range(&mut c, ahead, Some(&Bytes::new())).expect("it is there");
    assert_eq!(values, [""; 0]);
    assert_eq!(range(&mut c, behind, None).expect("it is there").0, ["old"]);
    assert_eq!(range(&mut c, behind, Some(&seen)).expect("it is there").0, [""; 0]);
}

#[test]
fn a_range_is_deleted_as_its_asker_has_seen_it() {
    let (mut c, ahead, behind, _) = lagging_at(b"{p}");
    let (_, seen) = write(&mut c, ahead, "{p}a", set("v1"), &Bytes::new());
    let (read, write, durability) = (Some(Level::One), Some(Level::One), None);
    let delete = |after: Option<Bytes>| Request::DeleteRange {
        span: span(),
        read,
        write,
        durability,
        after,
    };
    let deleted = c.ask(behind, delete(None));
    assert!(matches!(deleted, Answer::Deleted { count: 0, .. }), "{deleted:?}");
    let deleted = c.ask(behind, delete(Some(seen)));
    let Answer::Deleted { count: 1, seen, .. } = deleted else { panic!("{deleted:?}") };
    assert_eq!(range(&mut c, ahead, Some(&seen)).expect("it is there").0, [""; 0]);
}

#[test]
fn a_range_that_nobody_has_seen_who_is_there_is_waited_for_and_then_refused() {
    let (mut c, ahead, behind, _) = lagging_at(b"{p}");
    let (_, seen) = write(&mut c, ahead, "{p}a", set("v"), &Bytes::new());
    c.kill(ahead, true);
    let refused = range(&mut c, behind, Some(&seen));
    assert_eq!(refused, Err(TaskError::Behind { missing: vec![ahead] }));
    // It comes while somebody waits, though an answer got lost.
    let (level, after) = (Some(Level::One), Some(seen.clone()));
    let id = c.submit(behind, Request::Range { span: span(), level, after });
    c.settle();
    assert_eq!(c.answer(id), None);
    c.lose = Box::new(|_, _, m| matches!(m, Message::Walked { .. }));
    c.start(ahead, false);
    c.wait(core::time::Duration::from_millis(300));
    c.lose = Box::new(|_, _, _| false);
    let found = c.await_answer(id);
    assert!(matches!(&found, Answer::Page { rows, .. } if rows.len() == 1), "{found:?}");
    let nonsense = range(&mut c, behind, Some(&Bytes::from_static(b"\xff\xff\xff")));
    assert!(matches!(nonsense, Err(TaskError::Invalid(_))), "{nonsense:?}");
}
