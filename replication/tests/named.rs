//! Named requests: however often a client asks under one name, it is done once or not at all.

use std::time::Duration;

use ring::{Incarnation, NodeId, Slot};
use ringdb_replication::message::RequestKey;
use ringdb_replication::{Answer, Event, Message, Named, Op, Outcome, TaskError};

use crate::cluster::{Cluster, n, set, task};

pub(crate) fn name(number: u64, may_mint: bool) -> Named {
    let (front, incarnation) = (NodeId(1 << 31), Incarnation(7));
    let request = RequestKey { front, incarnation, core: 0xff, n: number, first_sent: 0 };
    Named { request, may_mint, direct: false }
}

fn integer(answer: &Answer) -> Option<i64> {
    match answer {
        Answer::Done { outcomes, .. } => match outcomes.first() {
            Some(Outcome::Integer(value)) => Some(*value),
            _ => None,
        },
        _ => None,
    }
}

fn is_unconfirmed(answer: &Answer) -> bool {
    matches!(answer, Answer::Failed(TaskError::Unconfirmed { .. }))
}

#[test]
fn an_addition_that_is_asked_for_again_counts_once() {
    let mut c = Cluster::new(3);
    let add = || task("c", Op::Increment(5));
    // Twice while it is under way: the later asking is answered.
    c.lose = Box::new(|_, _, m| matches!(m, Message::Replicate { .. }));
    let first = c.submit_named(n(1), add(), name(1, true));
    c.settle();
    let again = c.submit_named(n(1), add(), name(1, true));
    c.lose = Box::new(|_, _, _| false);
    assert_eq!(integer(&c.await_answer(again)), Some(5));
    assert_eq!(c.answer(first), Some(Answer::Confirmed), "nothing is sent to the earlier asking");
    // And again afterwards, at the same node and at the others, which may only confirm it.
    for (at, may_mint) in [(1, true), (2, false), (3, false)] {
        let id = c.submit_named(n(at), add(), name(1, may_mint));
        assert_eq!(integer(&c.await_answer(id)), Some(5), "n{at}");
    }
    assert_eq!(c.incr(n(2), "c", 0), 5);
    // Another name is another addition.
    let other = c.submit_named(n(1), add(), name(2, true));
    assert_eq!(integer(&c.await_answer(other)), Some(10));
}

#[test]
fn a_node_that_keeps_no_copy_forwards_it_under_the_same_name() {
    let mut c = Cluster::new(5);
    let replicas = c.layout().replicas(Slot::of_key(b"c")).to_vec();
    let front = (1..=5).map(n).find(|node| !replicas.contains(node)).expect("two of five");
    let add = || task("c", Op::Increment(5));
    // The answer to the front node gets lost, and the client asks it again meanwhile.
    c.lose = Box::new(|_, _, m| matches!(m, Message::Forwarded { .. }));
    c.submit_named(front, add(), name(1, true));
    c.settle();
    c.lose = Box::new(|_, _, _| false);
    let again = c.submit_named(front, add(), name(1, true));
    assert_eq!(integer(&c.await_answer(again)), Some(5));
    let again = c.submit_named(front, add(), name(1, true));
    assert_eq!(integer(&c.await_answer(again)), Some(5));
    // The front node is gone; whoever holds the write confirms it.
    c.kill(front, true);
    for at in replicas {
        let again = c.submit_named(at, add(), name(1, false));
        assert_eq!(integer(&c.await_answer(again)), Some(5));
        assert_eq!(c.incr(at, "c", 0), 5);
    }
}

#[test]
fn a_minter_whose_log_tells_no_more_does_not_mint_again_for_a_client() {
    let mut c = Cluster::new(5);
    let replicas = c.layout().replicas(Slot::of_key(b"c")).to_vec();
    let (minter, add) = (replicas[0], || task("c", Op::Increment(5)));
    let front = (1..=5).map(n).find(|node| !replicas.contains(node)).expect("two of five");
    c.lose = Box::new(|_, _, m| matches!(m, Message::Forwarded { .. }));
    let id = c.submit_named(front, add(), name(1, true));
    c.settle();
    // A clean stop, with everything in tables and nothing kept of the log: the life goes on.
    c.truncate_log(minter);
    c.kill(minter, true);
    c.start_in_this_life(minter, false);
    c.lose = Box::new(|_, _, _| false);
    assert_eq!(integer(&c.await_answer(id)), Some(5));
    assert_eq!(c.incr(front, "c", 0), 5, "minted once");
    // What is new is minted, and whoever is asked directly knows it under the same name.
    c.lose = Box::new(|_, _, m| matches!(m, Message::Forwarded { .. }));
    c.submit_named(front, add(), name(2, true));
    c.settle();
    let again = c.submit_named(minter, add(), name(2, false));
    assert_eq!(integer(&c.await_answer(again)), Some(10));
}

#[test]
fn a_minter_that_died_is_not_stood_in_for() {
    let mut c = Cluster::new(3);
    let &[minter, other, _] = c.layout().replicas(Slot::of_key(b"c")) else { panic!("three") };
    // It minted and died, and nobody heard of it.
    c.lose = Box::new(|_, _, m| matches!(m, Message::Replicate { .. }));
    c.submit_named(minter, task("c", Op::Increment(5)), name(1, true));
    c.settle();
    c.lose = Box::new(|_, _, _| false);
    c.kill(minter, true);
    let again = c.submit_named(other, task("c", Op::Increment(5)), name(1, false));
    let answer = c.await_answer(again);
    assert!(is_unconfirmed(&answer), "{answer:?}");
    assert_eq!(c.incr(other, "c", 0), 0);
    // It comes back, in another life, with what it minted: now it can be confirmed, by either.
    c.start(minter, false);
    c.wait(Duration::from_secs(3));
    for at in [minter, other] {
        let again = c.submit_named(at, task("c", Op::Increment(5)), name(1, false));
        assert_eq!(integer(&c.await_answer(again)), Some(5), "{at}");
    }
}

#[test]
fn a_client_that_went_away_and_asks_again_finds_its_request() {
    let mut c = Cluster::new(3);
    let &[at, ..] = c.layout().replicas(Slot::of_key(b"c")) else { panic!("three") };
    c.lose = Box::new(|_, _, m| matches!(m, Message::Replicate { .. }));
    let first = c.submit_named(at, task("c", Op::Increment(5)), name(1, true));
    c.settle();
    c.event(at, Event::Cancel(first));
    c.lose = Box::new(|_, _, _| false);
    let again = c.submit_named(at, task("c", Op::Increment(5)), name(1, true));
    assert_eq!(integer(&c.await_answer(again)), Some(5));
    assert_eq!(c.incr(at, "c", 0), 5);
}

#[test]
fn a_request_that_waits_keeps_its_name_though_its_client_went_away() {
    let mut c = Cluster::new(3);
    let &[at, ..] = c.layout().replicas(Slot::of_key(b"c")) else { panic!("three") };
    // Something that reads first has the key, and its reading takes a while.
    c.lose = Box::new(|_, _, m| matches!(m, Message::Read { .. }));
    c.submit(at, task("c", Op::Delete));
    let first = c.submit_named(at, task("c", Op::Increment(5)), name(1, true));
    c.event(at, Event::Cancel(first));
    c.settle();
    c.lose = Box::new(|_, _, _| false);
    c.wait(Duration::from_secs(1));
    let again = c.submit_named(at, task("c", Op::Increment(5)), name(1, true));
    assert_eq!(integer(&c.await_answer(again)), Some(5));
    assert_eq!(c.incr(at, "c", 0), 5);
}

#[test]
fn what_was_refused_stays_refused_under_its_name() {
    let mut c = Cluster::new(3);
    let &[at, one, two] = c.layout().replicas(Slot::of_key(b"k")) else { panic!("three") };
    c.kill(one, true);
    c.kill(two, true);
    let refused = c.submit_named(at, task("k", set("v")), name(1, true));
    let answer = c.await_answer(refused);
    assert!(matches!(answer, Answer::Failed(TaskError::Unavailable { .. })), "{answer:?}");
    c.start(one, false);
    c.wait(Duration::from_secs(3));
    // The client was told that nothing was done: a late copy must not do it.
    let again = c.submit_named(at, task("k", set("v")), name(1, true));
    assert_eq!(c.await_answer(again), answer);
    assert_eq!(c.get(at, "k"), None);
    let other = c.submit_named(at, task("k", set("v")), name(2, true));
    assert!(matches!(c.await_answer(other), Answer::Done { .. }));
}
