//! Room: what a replica without room on its disk says of writes, and how it comes back.

use std::time::Duration;

use ring::keyspace::Level;
use ring::{Incarnation, NodeId, Slot};
use ringdb_replication::limits::{LONELY_AFTER, PULL_PATIENCE};
use ringdb_replication::{Answer, Event, Message, Op, Outcome, Request, TaskError};

use crate::cluster::{Cluster, n, set, task};
use crate::named::name;

fn room(c: &mut Cluster, node: NodeId, room: bool) {
    c.event(node, Event::RoomIs(room));
    ready(c, node, false);
}

/// A node says of itself that it is ready, or is not.
fn ready(c: &mut Cluster, node: NodeId, ready: bool) {
    for other in (1..=3).map(n).filter(|other| *other != node) {
        if c.is_up(other) {
            c.event(other, Event::PeerIs { node, up: true, ready, incarnation: Incarnation(1) });
        }
    }
    c.settle();
}

fn links_up(c: &mut Cluster, node: NodeId) {
    for other in (1..=3).map(n).filter(|other| *other != node) {
        if c.is_up(other) {
            c.event(node, Event::LinkUp(other));
        }
    }
    c.settle();
}

fn seen_alone(c: &mut Cluster, at: NodeId, key: &str) -> Option<String> {
    let Request::Task(mut one) = task(key, Op::Read) else { unreachable!("a task") };
    one.read = Some(Level::One);
    let Answer::Done { outcomes, .. } = c.ask(at, Request::Task(one)) else { panic!("ONE") };
    let Outcome::Read { found, .. } = &outcomes[0] else { panic!("a read") };
    found.as_ref().map(|f| String::from_utf8_lossy(&f.value).into_owned())
}

#[test]
fn a_replica_without_room_serves_again_when_it_has_pulled_what_it_missed() {
    let mut c = Cluster::new(3);
    c.set(n(1), "k", "before").expect("a quorum");
    assert_eq!(c.incr(n(3), "count", 1), 1);
    // Twice: nothing is left over of the first time.
    for round in 1..3 {
        let value = format!("missed {round}");
        room(&mut c, n(3), false);
        assert!(!c.peer(n(3)).is_serving());
        c.set(n(1), "k", &value).expect("two of three have room");
        assert_eq!(c.incr(n(2), "count", 1), round + 1);
        // It asks for nothing that it could not write, however long, and does not count as alone.
        c.lose = Box::new(|from, _, message| {
            assert!(from != n(3) || !matches!(message, Message::Pull { .. }), "{message:?}");
            false
        });
        links_up(&mut c, n(3));
        c.wait(LONELY_AFTER + PULL_PATIENCE);
        assert!(!c.peer(n(3)).is_serving());
        c.lose = Box::new(|_, _, message| matches!(message, Message::PullDone { .. }));
        room(&mut c, n(3), true);
        links_up(&mut c, n(3));
        c.wait(PULL_PATIENCE * 2);
        assert!(!c.peer(n(3)).is_serving(), "not before all of it is here");
        c.lose = Box::new(|_, _, _| false);
        c.wait(PULL_PATIENCE * 2);
        assert!(c.peer(n(3)).is_serving());
        ready(&mut c, n(3), true);
        assert_eq!(seen_alone(&mut c, n(3), "k"), Some(value));
        assert_eq!(seen_alone(&mut c, n(3), "count"), Some((round + 1).to_string()));
    }
}

#[test]
fn what_cannot_be_held_for_want_of_room_fails_at_once() {
    let mut c = Cluster::new(3);
    c.event(n(3), Event::RoomIs(false));
    c.kill(n(2), true);
    // As long as n3 passes for ready, its word may be about something else: a row that it could not read.
    let sent = c.submit(n(1), task("other", set("v")));
    c.settle();
    assert_eq!(c.answer(sent), None);
    ready(&mut c, n(3), false);
    // The first is minted: who holds it is not known to its client, but that it is too few is.
    let sent = c.submit(n(1), task("k", set("first")));
    c.settle();
    let Some(Answer::Failed(TaskError::Unconfirmed { needed: 2, acked: 1, .. })) = c.answer(sent)
    else {
        panic!("before its deadline")
    };
    // After that nothing is minted.
    let sent = c.submit(n(1), task("k", set("second")));
    let Some(Answer::Failed(TaskError::Unavailable { needed: 2, alive: 1, .. })) = c.answer(sent)
    else {
        panic!("refused at once")
    };
    assert_eq!(c.peer(n(1)).stats().writes, 2);
    room(&mut c, n(3), true);
    links_up(&mut c, n(3));
    c.wait(PULL_PATIENCE * 2);
    assert!(c.peer(n(3)).is_serving(), "those who are there are enough");
    assert_eq!(seen_alone(&mut c, n(3), "k").as_deref(), Some("first"), "it was not lost");
    ready(&mut c, n(3), true);
    c.set(n(1), "k", "third").expect("a quorum");
    c.wait(Duration::from_millis(5));
    assert_eq!(seen_alone(&mut c, n(3), "k").as_deref(), Some("third"));
}

#[test]
fn who_asks_again_under_the_same_name_hears_how_it_went_on() {
    let mut c = Cluster::new(3);
    room(&mut c, n(3), false);
    c.lose = Box::new(|_, to, m| to == n(2) && matches!(m, Message::Replicate { .. }));
    let is_ours = |key: &String| c.layout().replicas(Slot::of_key(key.as_bytes()))[0] == n(1);
    let key = (0..99).map(|i| format!("c{i}")).find(is_ours).expect("a third of them");
    let add = || {
        let Request::Task(mut add) = task(&key, Op::Increment(5)) else { unreachable!("a task") };
        add.write = Some(Level::All);
        Request::Task(add)
    };
    let first = c.submit_named(n(1), add(), name(1, true));
    c.settle();
    let told = c.answer(first);
    assert!(matches!(told, Some(Answer::Failed(TaskError::Unconfirmed { .. }))), "{told:?}");
    let again = c.submit_named(n(1), add(), name(1, true));
    c.lose = Box::new(|_, _, _| false);
    room(&mut c, n(3), true);
    let Answer::Done { outcomes, .. } = c.await_answer(again) else { panic!("all have it") };
    assert!(matches!(outcomes[0], Outcome::Integer(5)), "{outcomes:?}");
}
