//! Sessions: who says what it has seen is never answered from less.

use bytes::Bytes;
use ring::keyspace::Level;
use ring::{NodeId, Slot};
use ringdb_replication::{Answer, Message, Op, Outcome, Request, Task, TaskError};

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
    let mut c = Cluster::new(3);
    let &[ahead, behind, other] = c.layout().replicas(Slot::of_key(b"k")) else { panic!("three") };
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
