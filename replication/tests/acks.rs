//! Acks: clients that hear the replicas of their writes themselves, and what their coordinator answers then.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ring::keyspace::Level;
use ring::layout::Table;
use ring::{Confirmation, Durability, Incarnation, NodeId, Slot};
use ringdb_replication::limits::{DIRECT_TIME_MIN, RESEND_AFTER};
use ringdb_replication::message::RequestKey;
use ringdb_replication::{Answer, Event, Message, Named, Op, Outcome, Request};

use crate::cluster::{Cluster, Told, n, set, task};

fn name(number: u64, direct: bool) -> Named {
    let (front, incarnation) = (NodeId(1 << 31), Incarnation(7));
    let request = RequestKey { front, incarnation, core: 0xff, n: number, first_sent: 0 };
    Named { request, may_mint: true, direct }
}

/// The outcomes that a client of the request takes for its answer, if it has heard enough.
fn taken(told: &[Told], number: u64) -> Option<Vec<Outcome>> {
    let mut confirmation = Confirmation::default();
    let of_it = told.iter().filter(|told| told.request.n == number);
    let enough =
        |told: &&Told| confirmation.held(told.by, told.write, usize::from(told.direct.needed));
    of_it.clone().find(enough).map(|told| told.direct.outcomes.clone())
}

fn at(key: &str, op: Op, level: Level) -> Request {
    let Request::Task(mut task) = task(key, op) else { unreachable!("a task") };
    task.write = Some(level);
    Request::Task(task)
}

fn is_done(answer: &Answer) -> bool {
    matches!(answer, Answer::Done { write: Some(_), .. })
}

/// A cluster, and the replicas of the slot of `k` in order of preference.
fn three() -> (Cluster, [NodeId; 3]) {
    let c = Cluster::new(3);
    let &[a, b, d] = c.layout().replicas(Slot::of_key(b"k")) else { panic!("three") };
    (c, [a, b, d])
}

fn without_replicates_to(c: &mut Cluster, gone: NodeId) {
    c.lose = Box::new(move |_, to, m| to == gone && matches!(m, Message::Replicate { .. }));
}

#[test]
fn one_teller_beside_the_coordinator_is_a_quorum_of_three() {
    let (mut c, [a, b, d]) = three();
    without_replicates_to(&mut c, d);
    let id = c.submit_named(a, at("k", Op::Increment(5), Level::Quorum), name(1, true));
    c.settle();
    assert_eq!(c.told_at.iter().map(|(told, _)| *told).collect::<Vec<_>>(), [id]);
    assert_eq!(c.told.iter().map(|told| told.by).collect::<Vec<_>>(), [b]);
    assert_eq!(c.told[0].write.coordinator, a);
    assert_eq!(taken(&c.told, 1), Some(vec![Outcome::Integer(5)]));
    assert_eq!(c.answer(id), Some(Answer::Confirmed));
    // It is as done as any: without its coordinator it is found.
    c.lose = Box::new(|_, _, _| false);
    c.kill(a, true);
    assert_eq!(c.incr(d, "k", 0), 5);
}

#[test]
fn what_the_client_takes_is_what_the_coordinator_would_answer() {
    let (mut c, [a, ..]) = three();
    c.set(a, "k", "old").expect("a quorum");
    let Request::Task(mut task) = task("k", Op::Append(Bytes::from_static(b"er"))) else {
        unreachable!("a task")
    };
    task.after = Some(Bytes::new());
    let request = || Request::Task(task.clone());
    let first = c.submit_named(a, request(), name(1, true));
    assert_eq!(c.await_answer(first), Answer::Confirmed);
    let taken = taken(&c.told, 1).expect("told by enough");
    assert!(matches!(taken.as_slice(), [Outcome::Integer(5), Outcome::Seen(_)]), "{taken:?}");
    let again = c.submit_named(a, request(), name(1, false));
    let Answer::Done { outcomes, .. } = c.await_answer(again) else { panic!("it was done") };
    assert_eq!(outcomes, taken);
}

#[test]
fn the_coordinator_answers_whenever_too_few_have_told() {
    let (_, replicas) = three();
    for level in [Level::Quorum, Level::All] {
        let needed = if level == Level::All { 2 } else { 1 };
        for listening in 0..4_u32 {
            let mut c = Cluster::new(3);
            let heard = |place: &usize| listening & (1 << (place - 1)) != 0;
            c.connected = (1..3).filter(heard).map(|place| replicas[place]).collect();
            let id = c.submit_named(replicas[0], at("k", set("v"), level), name(1, true));
            let answer = c.await_answer(id);
            let told: BTreeSet<NodeId> = c.told.iter().map(|told| told.by).collect();
            assert_eq!(told, c.connected, "{level:?}");
            assert_eq!(taken(&c.told, 1).is_some(), told.len() >= needed, "{level:?} {told:?}");
            match answer {
                Answer::Confirmed => assert!(told.len() >= needed, "{level:?} {told:?}"),
                // It may have heard first of somebody who could not tell.
                answer => assert!(is_done(&answer) && told.len() < 2, "{level:?} {answer:?}"),
            }
        }
    }
}

#[test]
fn all_of_three_takes_two_tellers() {
    let (mut c, [a, b, d]) = three();
    without_replicates_to(&mut c, d);
    let id = c.submit_named(a, at("k", set("v"), Level::All), name(1, true));
    c.settle();
    assert_eq!(c.told.iter().map(|told| told.by).collect::<Vec<_>>(), [b]);
    assert_eq!((taken(&c.told, 1), c.answer(id)), (None, None), "one is not enough");
    // The other one gets it once more, and need not tell: the coordinator answers.
    c.lose = Box::new(|_, _, _| false);
    assert!(is_done(&c.await_answer(id)));
    assert_eq!(taken(&c.told, 1), None);
    let id = c.submit_named(a, at("k", set("w"), Level::All), name(2, true));
    assert_eq!(c.await_answer(id), Answer::Confirmed);
    assert!(taken(&c.told, 2).is_some());
}

#[test]
fn some_writes_are_for_the_coordinator_alone_to_answer() {
    let synced = || {
        let Request::Task(mut task) = task("k", set("v")) else { unreachable!("a task") };
        task.durability = Some(Durability::Sync);
        Request::Task(task)
    };
    let usual = Duration::from_secs(1);
    let short = DIRECT_TIME_MIN - Duration::from_millis(1);
    let cases = [
        ("sync", synced(), usual, true),
        ("one", at("k", set("v"), Level::One), usual, true),
        ("local", at("k", set("v"), Level::LocalQuorum), usual, true),
        ("each", at("k", set("v"), Level::EachQuorum), usual, true),
        ("short", at("k", set("v"), Level::Quorum), short, true),
        ("not asked for", at("k", set("v"), Level::Quorum), usual, false),
    ];
    for (case, request, time, direct) in cases {
        let (mut c, [a, ..]) = three();
        let id = c.submit_named_within(a, request, (name(1, direct), time));
        assert!(is_done(&c.await_answer(id)), "{case}");
        assert_eq!((c.told, c.told_at), (vec![], vec![]), "{case}");
    }
    let (mut c, [a, ..]) = three();
    let request = at("k", set("v"), Level::Quorum);
    let id = c.submit_named_within(a, request, (name(1, true), DIRECT_TIME_MIN));
    assert_eq!(c.await_answer(id), Answer::Confirmed, "just enough time");
}

#[test]
fn whoever_forwards_a_write_answers_it() {
    let mut c = Cluster::new(5);
    let replicas = c.layout().replicas(Slot::of_key(b"k")).to_vec();
    let front = (1..=5).map(n).find(|node| !replicas.contains(node)).expect("two of five");
    let id = c.submit_named(front, at("k", Op::Increment(5), Level::Quorum), name(1, true));
    assert!(is_done(&c.await_answer(id)));
    assert_eq!(c.told, []);
}

#[test]
fn what_is_sent_again_is_answered_by_the_coordinator() {
    let (mut c, [a, ..]) = three();
    c.lose = Box::new(|_, _, m| matches!(m, Message::Replicate { .. }));
    let id = c.submit_named(a, at("k", Op::Increment(5), Level::Quorum), name(1, true));
    c.settle();
    c.lose = Box::new(|_, _, m| matches!(m, Message::Replicate { direct: Some(_), .. }));
    c.wait(RESEND_AFTER + Duration::from_millis(20));
    let answer = c.answer(id).expect("it was sent again");
    assert!(is_done(&answer), "{answer:?}");
    assert_eq!(c.told, []);
    assert_eq!(c.incr(a, "k", 0), 5);
}

#[test]
fn a_replica_whose_word_got_lost_on_its_way_to_the_coordinator_has_told_nonetheless() {
    let (mut c, [a, ..]) = three();
    c.lose = Box::new(|_, _, m| matches!(m, Message::Replicated { told_us: 1.., .. }));
    let id = c.submit_named(a, at("k", Op::Increment(5), Level::Quorum), name(1, true));
    c.settle();
    assert_eq!(taken(&c.told, 1), Some(vec![Outcome::Integer(5)]));
    assert_eq!(c.answer(id), None);
    c.wait(RESEND_AFTER + Duration::from_millis(20));
    // It cannot know, and what it answers is passed over.
    let answer = c.answer(id).expect("it was sent again");
    assert!(is_done(&answer), "{answer:?}");
    assert_eq!(c.incr(a, "k", 0), 5);
}

#[test]
fn asking_again_while_it_is_under_way_is_answered_and_the_first_asking_is_not() {
    let (mut c, [a, ..]) = three();
    let add = || at("k", Op::Increment(5), Level::Quorum);
    c.lose = Box::new(|_, _, m| matches!(m, Message::Replicated { .. }));
    let first = c.submit_named(a, add(), name(1, true));
    c.settle();
    let again = c.submit_named(a, add(), name(1, false));
    assert_eq!(c.answer(first), Some(Answer::Confirmed));
    assert_eq!(c.answer(again), None);
    // Whatever the replicas have told: this one waits for the coordinator.
    c.lose = Box::new(|_, _, _| false);
    assert!(is_done(&c.await_answer(again)));
    assert_eq!(c.incr(a, "k", 0), 5);
}

#[test]
fn asking_again_after_it_was_confirmed_is_answered() {
    let (mut c, [a, _, d]) = three();
    let add = || at("k", Op::Increment(5), Level::Quorum);
    without_replicates_to(&mut c, d);
    let first = c.submit_named(a, add(), name(1, true));
    c.settle();
    assert_eq!(c.answer(first), Some(Answer::Confirmed));
    // The job is still there, for the one that lacks it.
    let again = c.submit_named(a, add(), name(1, false));
    let answer = c.answer(again).expect("at once");
    assert!(is_done(&answer), "{answer:?}");
    // And when it is not.
    c.lose = Box::new(|_, _, _| false);
    c.wait(Duration::from_secs(3));
    let late = c.submit_named(a, add(), name(1, false));
    assert!(is_done(&c.await_answer(late)));
    assert_eq!((c.answer(first), c.answer(again)), (None, None), "once each");
    assert_eq!(c.incr(a, "k", 0), 5);
}

#[test]
fn a_client_that_went_away_is_answered_when_it_asks_again() {
    let (mut c, [a, ..]) = three();
    let add = || at("k", Op::Increment(5), Level::Quorum);
    let first = c.submit_named(a, add(), name(1, true));
    c.event(a, Event::Cancel(first));
    c.settle();
    assert_eq!(c.answer(first), None);
    let again = c.submit_named(a, add(), name(1, false));
    assert!(is_done(&c.await_answer(again)));
    assert_eq!(c.incr(a, "k", 0), 5);
}

#[test]
fn whoever_refuses_a_write_tells_nobody() {
    let (mut c, [a, b, d]) = three();
    // The others have adopted a layout in which the slot has another order, of which the coordinator does not know.
    let mut next = c.layout().clone();
    let rows = next.table.rows().map(|(_, replicas)| replicas.to_vec()).collect::<Vec<_>>();
    let turned = rows.into_iter().flat_map(|mut replicas| {
        replicas.rotate_left(1);
        replicas
    });
    let cells: Vec<NodeId> = turned.collect();
    next.table = Table::from_cells(next.table.width(), cells).expect("as many cells");
    next.epoch = next.epoch.next();
    let next = Arc::new(next);
    for node in [b, d] {
        c.event(node, Event::LayoutIs(next.clone()));
    }
    let refused = Rc::new(RefCell::new(BTreeSet::new()));
    let seen = refused.clone();
    c.lose = Box::new(move |from, _, m| {
        if matches!(m, Message::Refused { .. }) {
            seen.borrow_mut().insert(from);
        }
        false
    });
    let id = c.submit_named(a, at("k", set("v"), Level::Quorum), name(1, true));
    c.settle();
    assert_eq!(*refused.borrow(), BTreeSet::from([b, d]));
    assert_eq!((c.answer(id), &c.told[..]), (None, &[][..]));
    // Once it has heard of the layout, what it sends again is taken.
    c.event(a, Event::LayoutIs(next));
    assert!(is_done(&c.await_answer(id)));
    assert_eq!(c.told, []);
}

#[test]
fn as_many_are_prompt_as_it_takes_and_each_in_turn() {
    let (mut c, [a, b, d]) = three();
    let mut prompt = BTreeSet::new();
    for number in 1..=6 {
        let id = c.submit_named(a, at("k", set("v"), Level::Quorum), name(number, true));
        assert_eq!(c.await_answer(id), Answer::Confirmed);
        c.settle();
        let told: Vec<Told> = c.told.drain(..).collect();
        assert_eq!(told.len(), 2);
        let at_once: Vec<NodeId> =
            told.iter().filter(|told| told.direct.prompt).map(|told| told.by).collect();
        assert_eq!(at_once.len(), 1, "{told:?}");
        prompt.extend(at_once);
    }
    assert_eq!(prompt, BTreeSet::from([b, d]));
    // All of three takes both.
    let id = c.submit_named(a, at("k", set("v"), Level::All), name(7, true));
    assert_eq!(c.await_answer(id), Answer::Confirmed);
    assert!(c.told.iter().all(|told| told.direct.prompt), "{:?}", c.told);
    // And it is nobody's turn who seems to be away.
    c.believe(a, b, false);
    for number in 8..=10 {
        c.told.clear();
        let id = c.submit_named(a, at("k", set("v"), Level::Quorum), name(number, true));
        c.await_answer(id);
        let at_once = c.told.iter().find(|told| told.direct.prompt).map(|told| told.by);
        assert_eq!(at_once, Some(d));
    }
}

#[test]
fn a_message_that_comes_twice_tells_twice_and_counts_once() {
    let (mut c, [a, b, d]) = three();
    c.kept = Some(Box::new(|m| matches!(m, Message::Replicate { .. })));
    c.lose = Box::new(move |_, to, m| to == d && matches!(m, Message::Replicate { .. }));
    let id = c.submit_named(a, at("k", Op::Increment(5), Level::All), name(1, true));
    c.settle();
    c.deliver_kept();
    assert_eq!(c.told.iter().map(|told| told.by).collect::<Vec<_>>(), [b, b]);
    assert_eq!((taken(&c.told, 1), c.answer(id)), (None, None));
    assert_eq!(c.incr(a, "k", 0), 5);
}

#[test]
fn nobody_is_told_once_the_client_has_given_up() {
    // The coordinator's messages are under way for so long: the client waits for 200 ms.
    for (ms, is_told) in [(0, true), (150, true), (199, true), (200, false), (300, false)] {
        let (mut c, [a, ..]) = three();
        c.under_way = Duration::from_millis(ms);
        let request = at("k", set("v"), Level::All);
        let time = Duration::from_millis(200);
        let id = c.submit_named_within(a, request, (name(1, true), time));
        c.settle();
        assert_eq!(taken(&c.told, 1).is_some(), is_told, "{ms} ms");
        // What is not told is acknowledged at once, and the coordinator knows what is late.
        let answer = c.answer(id).expect("answered");
        assert_eq!(answer == Answer::Confirmed, is_told, "{ms} ms");
        assert!(is_told || is_done(&answer), "{answer:?}");
    }
    // Whoever need not tell at once has to be able to tell later.
    let (mut c, [a, b, d]) = three();
    c.under_way = Duration::from_millis(196);
    let request = at("k", set("v"), Level::Quorum);
    c.submit_named_within(a, request, (name(1, true), Duration::from_millis(200)));
    c.settle();
    let told: Vec<_> = c.told.iter().map(|told| (told.by, told.direct.prompt)).collect();
    assert!(matches!(told[..], [(by, true)] if by == b || by == d), "{told:?}");
}

#[test]
fn the_coordinator_learns_when_the_client_was_told() {
    // Its messages are under way for so long by their receivers' clocks, and 20 ms pass until it hears of them; what
    // it takes for the time of telling is never later than that.
    for (under_way, told_after) in [(7, 7), (50, 20)] {
        let (mut c, [a, ..]) = three();
        c.under_way = Duration::from_millis(under_way);
        let asked = c.now.mono;
        let id = c.submit_named(a, at("k", set("v"), Level::Quorum), name(1, true));
        c.now.mono = asked + Duration::from_millis(20);
        c.settle();
        assert_eq!(c.told_at, [(id, asked + Duration::from_millis(told_after))]);
    }
}
