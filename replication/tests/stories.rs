//! Stories: what a small cluster does when messages, nodes and logs get lost.

use std::time::Duration;

use bytes::Bytes;
use ring::keyspace::Level;
use ring::{Slot, WallMillis};
use ringdb_replication::op::{ExpireCondition, SetCondition, SetExpiry};
use ringdb_replication::{Answer, Message, Op, Outcome, Request, Task, TaskError, row};

use crate::cluster::{Cluster, n, set, task};

#[test]
fn what_one_node_sets_every_node_gets() {
    let mut c = Cluster::new(3);
    c.set(n(1), "k", "v").expect("a quorum");
    for at in 1..=3 {
        assert_eq!(c.get(n(at), "k").as_deref(), Some("v"));
    }
    assert_eq!(c.op(n(2), "k", Op::Delete), Ok(Outcome::Flag(true)));
    assert_eq!(c.op(n(2), "k", Op::Delete), Ok(Outcome::Flag(false)));
    for at in 1..=3 {
        assert_eq!(c.get(n(at), "k"), None);
    }
}

#[test]
fn five_nodes_forward_to_the_three_that_keep_a_key() {
    let mut c = Cluster::new(5);
    for i in 0..40 {
        let (key, value) = (format!("k{i}"), format!("v{i}"));
        c.set(n(1 + i % 5), &key, &value).expect("a quorum");
        assert_eq!(c.get(n(1 + (i + 2) % 5), &key), Some(value));
        assert_eq!(c.incr(n(1 + i % 5), &format!("c{i}"), 2), 2);
        assert_eq!(c.incr(n(1 + (i + 1) % 5), &format!("c{i}"), 3), 5);
    }
    assert!((1..=5).any(|i| c.peer(n(i)).stats().forwards > 0));
}

#[test]
fn counters_survive_what_they_have_not_seen() {
    let mut c = Cluster::new(3);
    c.set(n(1), "k", "10").expect("a quorum");
    assert_eq!(c.incr(n(2), "k", 5), 15);
    c.set(n(3), "k", "100").expect("a quorum");
    assert_eq!(c.get(n(1), "k").as_deref(), Some("100"));
    assert_eq!(c.incr(n(1), "k", 1), 101);
    assert_eq!(c.op(n(1), "k", Op::Delete), Ok(Outcome::Flag(true)));
    assert_eq!(c.incr(n(1), "k", 1), 1);
    let float = c.op(n(1), "k", Op::IncrementFloat(Bytes::from_static(b"0.5")));
    assert_eq!(float, Ok(Outcome::Float(Bytes::from_static(b"1.5"))));
}

#[test]
fn with_one_of_three_down_quorums_go_on_and_with_two_they_are_refused_at_once() {
    let mut c = Cluster::new(3);
    c.set(n(1), "k", "v1").expect("a quorum");
    c.kill(n(3), true);
    c.set(n(1), "k", "v2").expect("two of three are there");
    assert_eq!(c.incr(n(2), "c", 1), 1);
    c.kill(n(2), true);
    let sent = c.submit(n(1), task("k", set("v3")));
    let Some(Answer::Failed(TaskError::Unavailable { needed: 2, alive: 1, .. })) = c.answer(sent)
    else {
        panic!("refused at once")
    };
    let Request::Task(mut one) = task("k", Op::Read) else { unreachable!("a task") };
    one.read = Some(Level::One);
    let Answer::Done { outcomes, .. } = c.ask(n(1), Request::Task(one)) else {
        panic!("ONE serves")
    };
    assert!(matches!(&outcomes[0], Outcome::Read { found: Some(f), .. } if f.value == "v2"));
}

#[test]
fn a_returning_replica_pulls_what_it_missed_before_it_serves() {
    for truncate in [false, true] {
        let mut c = Cluster::new(3);
        c.set(n(1), "old", "v").expect("a quorum");
        c.set(n(1), "gone", "v").expect("a quorum");
        c.kill(n(3), true);
        for i in 0..50 {
            c.set(n(1), &format!("k{i}"), "missed").expect("a quorum");
        }
        c.incr(n(2), "count", 7);
        c.op(n(1), "gone", Op::Delete).expect("a quorum");
        if truncate {
            c.truncate_log(n(1));
            c.truncate_log(n(2));
        }
        c.start(n(3), false);
        c.settle();
        assert!(c.peer(n(3)).is_serving(), "truncate {truncate}");
        let states: u64 = (1..=2).map(|i| c.peer(n(i)).stats().states_served).sum();
        assert_eq!(states > 0, truncate);
        c.kill(n(1), true);
        c.kill(n(2), true);
        for i in 0..50 {
            let Request::Task(mut t) = task(&format!("k{i}"), Op::Read) else { unreachable!() };
            t.read = Some(Level::One);
            let Answer::Done { outcomes, .. } = c.ask(n(3), Request::Task(t)) else {
                panic!("ONE")
            };
            assert!(matches!(&outcomes[0], Outcome::Read { found: Some(_), .. }), "k{i}");
        }
        for (key, there) in [("gone", false), ("old", true), ("count", true)] {
            let Request::Task(mut t) = task(key, Op::Read) else { unreachable!() };
            t.read = Some(Level::One);
            let Answer::Done { outcomes, .. } = c.ask(n(3), Request::Task(t)) else {
                panic!("ONE")
            };
            let Outcome::Read { found, .. } = &outcomes[0] else { panic!("a read") };
            assert_eq!(found.is_some(), there, "{key}, truncate {truncate}");
        }
    }
}

#[test]
fn a_lost_answer_is_asked_for_again_and_minted_once() {
    let mut c = Cluster::new(3);
    let key = "hits";
    let minter = c.layout().replicas(Slot::of_key(key.as_bytes()))[0];
    let front = if minter == n(1) { n(2) } else { n(1) };
    c.lose = Box::new(|_, _, m| matches!(m, Message::Forwarded { .. }));
    let id = c.submit(front, task(key, Op::Increment(1)));
    c.settle();
    assert_eq!(c.answer(id), None, "the answer was lost");
    c.lose = Box::new(|_, _, _| false);
    c.wait(Duration::from_millis(600));
    let Some(Answer::Done { outcomes, .. }) = c.answer(id) else { panic!("confirmed") };
    assert_eq!(outcomes, [Outcome::Integer(1)]);
    assert_eq!(c.get(front, key).as_deref(), Some("1"));
}

#[test]
fn a_retry_is_not_minted_again_by_a_process_to_which_the_log_tells_no_more() {
    let mut c = Cluster::new(3);
    let key = "hits";
    let minter = c.layout().replicas(Slot::of_key(key.as_bytes()))[0];
    let front = if minter == n(1) { n(2) } else { n(1) };
    c.lose = Box::new(|_, _, m| matches!(m, Message::Forwarded { .. }));
    let id = c.submit(front, task(key, Op::Increment(1)));
    c.settle();
    assert_eq!(c.answer(id), None, "the answer was lost");
    // A clean stop, with everything in tables and nothing kept of the log.
    c.truncate_log(minter);
    c.kill(minter, true);
    c.start_in_this_life(minter, false);
    c.lose = Box::new(|_, _, _| false);
    c.wait(Duration::from_millis(800));
    let answer = c.answer(id);
    let Some(Answer::Done { outcomes, .. }) = answer else { panic!("confirmed: {answer:?}") };
    assert_eq!(outcomes, [Outcome::Integer(1)]);
    assert_eq!(c.get(front, key).as_deref(), Some("1"), "minted once");
    assert_eq!(c.incr(front, key, 1), 2, "what comes later is minted");
}

#[test]
fn a_transaction_whose_answer_got_lost_is_not_stopped_by_its_own_writes() {
    let mut c = Cluster::new(3);
    let key = "hits";
    let minter = c.layout().replicas(Slot::of_key(key.as_bytes()))[0];
    let front = if minter == n(1) { n(2) } else { n(1) };
    let id = c.submit(front, task(key, Op::Read));
    c.settle();
    let Some(Answer::Done { outcomes, .. }) = c.answer(id) else { panic!("read") };
    let Outcome::Read { digest, .. } = outcomes[0] else { panic!("a read") };
    let Request::Task(mut watched) = task(key, Op::Increment(1)) else { panic!("a task") };
    watched.atomic = true;
    watched.watches = vec![(watched.ops[0].0.clone(), digest)];
    c.lose = Box::new(|_, _, m| matches!(m, Message::Forwarded { .. }));
    let id = c.submit(front, Request::Task(watched));
    c.settle();
    assert_eq!(c.answer(id), None, "the answer was lost");
    // The minter forgets that it has it ready, as one does that is asked much later.
    c.lose = Box::new(|_, _, _| false);
    c.wait(Duration::from_millis(600));
    let answer = c.answer(id);
    let Some(Answer::Done { outcomes, .. }) = answer else { panic!("confirmed: {answer:?}") };
    assert_eq!(outcomes, [Outcome::Integer(1)]);
}

#[test]
fn a_minter_that_dies_leaves_a_retry_to_those_who_hold_it() {
    let mut c = Cluster::new(3);
    let key = "hits";
    let minter = c.layout().replicas(Slot::of_key(key.as_bytes()))[0];
    let front = if minter == n(1) { n(2) } else { n(1) };
    c.lose = Box::new(|_, _, m| matches!(m, Message::Forwarded { .. }));
    let id = c.submit(front, task(key, Op::Increment(1)));
    c.settle();
    c.kill(minter, true);
    c.lose = Box::new(|_, _, _| false);
    c.wait(Duration::from_millis(800));
    let answer = c.answer(id);
    let Some(Answer::Done { outcomes, write }) = answer else { panic!("confirmed: {answer:?}") };
    assert_eq!(outcomes, [Outcome::Integer(1)]);
    assert_eq!(c.get(front, key).as_deref(), Some("1"), "minted once");
    // It is a write like another, of which WAIT may ask.
    let write = write.expect("a write has a name");
    let wait = Request::AwaitAcks { write, acks: 2, timeout_ms: 100 };
    assert_eq!(c.ask(front, wait), Answer::Acks(2));
}

#[test]
fn a_conditional_set_reads_a_quorum_though_its_coordinator_missed_the_value() {
    let mut c = Cluster::new(3);
    let key = "lock";
    let first = c.layout().replicas(Slot::of_key(key.as_bytes()))[0];
    let other = if first == n(1) { n(2) } else { n(1) };
    c.lose = Box::new(move |_, to, m| to == first && matches!(m, Message::Replicate { .. }));
    c.set(other, key, "held").expect("the other two hold it");
    c.lose = Box::new(|_, _, _| false);
    let nx = Op::Set {
        value: Bytes::from_static(b"mine"),
        expiry: SetExpiry::Clear,
        condition: SetCondition::IfAbsent,
        get: false,
    };
    assert_eq!(c.op(first, key, nx), Ok(Outcome::Set { done: false, previous: None }));
    // The same for a deletion: it replaces what a quorum knows.
    c.op(first, key, Op::Delete).expect("a quorum");
    c.wait(Duration::from_millis(500));
    assert_eq!(c.get(other, key), None);
}

#[test]
fn a_transaction_is_one_batch_and_a_watched_key_that_changed_stops_it() {
    let mut c = Cluster::new(3);
    let rows = [row::of_key(0, b"{t}a"), row::of_key(0, b"{t}b")];
    c.set(n(1), "{t}a", "1").expect("a quorum");
    let Ok(Outcome::Read { digest, .. }) = c.op(n(1), "{t}a", Op::Read) else { panic!("a read") };
    let mut t = Task::one(Slot::of_key(b"{t}"), 0, rows[0].clone(), Op::Increment(4));
    t.ops.push((rows[1].clone(), set("x")));
    t.ops.push((rows[1].clone(), Op::Append(Bytes::from_static(b"y"))));
    t.ops.push((rows[0].clone(), Op::Read));
    t.atomic = true;
    t.watches = vec![(rows[0].clone(), digest)];
    let Answer::Done { outcomes, .. } = c.ask(n(2), Request::Task(t.clone())) else {
        panic!("done")
    };
    assert_eq!(outcomes[0], Outcome::Integer(5));
    assert_eq!(outcomes[2], Outcome::Integer(2));
    assert!(matches!(&outcomes[3], Outcome::Read { found: Some(f), .. } if f.value == "5"));
    assert_eq!(c.ask(n(2), Request::Task(t)), Answer::Failed(TaskError::Aborted));
    assert_eq!(c.get(n(3), "{t}b").as_deref(), Some("xy"));
}

#[test]
fn expiry_hides_and_what_was_written_after_it_is_not_hidden() {
    let mut c = Cluster::new(3);
    c.set(n(1), "k", "v").expect("a quorum");
    let at = WallMillis(c.now.wall.0 + 1_000);
    let expire = Op::Expire { at, condition: ExpireCondition::Always };
    assert_eq!(c.op(n(2), "k", expire.clone()), Ok(Outcome::Flag(true)));
    assert_eq!(c.get(n(3), "k").as_deref(), Some("v"));
    c.wait(Duration::from_millis(1_100));
    assert_eq!(c.get(n(3), "k"), None);
    assert_eq!(c.op(n(3), "k", Op::Persist), Ok(Outcome::Flag(false)));
    assert_eq!(c.incr(n(1), "k", 1), 1, "an expired key begins anew");
    c.set(n(1), "k", "w").expect("a quorum");
    c.wait(Duration::from_millis(50));
    assert_eq!(c.get(n(2), "k").as_deref(), Some("w"));
}

#[test]
fn siblings_are_kept_until_somebody_who_saw_them_writes() {
    let mut c = Cluster::new(3);
    let blank = Op::SetWithContext {
        value: Some(Bytes::from_static(b"a")),
        context: Bytes::from_static(&[0]),
    };
    let other = Op::SetWithContext {
        value: Some(Bytes::from_static(b"b")),
        context: Bytes::from_static(&[0]),
    };
    c.op(n(1), "k", blank).expect("a quorum");
    c.op(n(2), "k", other).expect("a quorum");
    let Ok(Outcome::Siblings { values, context }) = c.op(n(3), "k", Op::Siblings) else { panic!() };
    assert_eq!(values.len(), 2);
    let both = Op::SetWithContext { value: Some(Bytes::from_static(b"ab")), context };
    c.op(n(3), "k", both).expect("a quorum");
    let Ok(Outcome::Siblings { values, .. }) = c.op(n(1), "k", Op::Siblings) else { panic!() };
    assert_eq!(values.len(), 1);
    assert_eq!(values[0].value, "ab");
}

#[test]
fn a_scan_returns_each_key_once_and_a_flush_leaves_none() {
    for nodes in [3, 5] {
        let mut c = Cluster::new(nodes);
        for i in 0..100 {
            c.set(n(1), &format!("k{i}"), "v").expect("a quorum");
        }
        for i in 0..20 {
            c.op(n(2), &format!("k{i}"), Op::Delete).expect("a quorum");
        }
        let scan = |c: &mut Cluster| {
            let mut keys = Vec::new();
            let mut at = Some((Slot(0), 0));
            while let Some((from, from_hash)) = at {
                let request =
                    Request::Scan { keyspace: 0, from, from_hash, count: 10, level: None };
                let Answer::Keys { keys: some, next } = c.ask(n(3), request) else {
                    panic!("keys")
                };
                keys.extend(some);
                at = next;
            }
            keys.sort();
            keys
        };
        let keys = scan(&mut c);
        assert_eq!(keys.len(), 80);
        assert!(keys.windows(2).all(|w| w[0] != w[1]));
        let count: u64 = (0..64)
            .map(|group| match c.ask(n(2), Request::Count { keyspace: 0, group }) {
                Answer::Count(count) => count,
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!(count, 80);
        for key in keys {
            let slot = Slot::of_key(&key);
            let flush = Request::Flush { keyspace: 0, slot, level: None };
            assert!(matches!(c.ask(n(1), flush), Answer::Count(_)));
        }
        assert_eq!(scan(&mut c).len(), 0);
    }
}

#[test]
fn a_large_slot_is_scanned_in_pieces_and_nothing_is_left_out() {
    let mut c = Cluster::new(3);
    for i in 0..1_500 {
        c.set(n(1), &format!("{{big}}{i}"), "v").expect("a quorum");
    }
    let slot = Slot::of_key(b"{big}");
    let mut keys = std::collections::BTreeSet::new();
    let mut at = Some((slot, 0));
    let mut calls = 0;
    while let Some((from, from_hash)) = at.filter(|(s, _)| *s == slot) {
        let request = Request::Scan { keyspace: 0, from, from_hash, count: 100, level: None };
        let Answer::Keys { keys: some, next } = c.ask(n(2), request) else { panic!("keys") };
        for key in some {
            assert!(keys.insert(key), "each once");
        }
        at = next;
        calls += 1;
    }
    assert_eq!(keys.len(), 1_500);
    assert!(calls >= 15, "cut in pieces: {calls}");
}

#[test]
fn a_quorum_read_repairs_before_it_answers() {
    let mut c = Cluster::new(3);
    c.lose = Box::new(|from, to, m| {
        (from, to) != (n(1), n(2)) && from == n(1) && matches!(m, Message::Replicate { .. })
    });
    c.set(n(1), "k", "v").expect("1 and 2 hold it");
    c.lose = Box::new(|_, _, _| false);
    for _ in 0..4 {
        assert_eq!(c.get(n(3), "k").as_deref(), Some("v"));
    }
    assert!(c.peer(n(3)).slot_clock(Slot::of_key(b"k")).is_some_and(|clock| !clock.is_empty()));
}

#[test]
#[should_panic(expected = "holds writes that n3 made in life 1")]
fn an_empty_directory_under_a_known_name_refuses_to_go_on() {
    let mut c = Cluster::new(3);
    for i in 0..50 {
        c.set(n(3), &format!("k{i}"), "v").expect("a quorum");
    }
    c.kill(n(3), true);
    c.lose_data(n(3));
    c.start(n(3), false);
    c.settle();
}

#[test]
fn a_request_that_was_answered_without_a_write_is_not_carried_out_by_a_late_copy() {
    let mut c = Cluster::new(3);
    let key = "hits";
    let minter = c.layout().replicas(Slot::of_key(key.as_bytes()))[0];
    let front = if minter == n(1) { n(2) } else { n(1) };
    // Every forward arrives twice: once now, once when the world looks better.
    c.kept = Some(Box::new(|m| matches!(m, Message::Forward { .. })));
    let others: Vec<_> = (1..=3).map(n).filter(|o| *o != minter).collect();
    for other in &others {
        c.believe(minter, *other, false);
    }
    let answer = c.ask(front, task(key, Op::Increment(1)));
    assert!(matches!(answer, Answer::Failed(TaskError::Unavailable { .. })), "{answer:?}");
    for other in &others {
        c.believe(minter, *other, true);
    }
    c.deliver_kept();
    c.wait(Duration::from_millis(100));
    assert_eq!(c.get(front, key), None, "the client was told that nothing was done");
}

#[test]
fn a_key_that_no_disk_would_take_is_refused_before_it_has_a_dot() {
    let mut c = Cluster::new(3);
    let key = "k".repeat(70_000);
    assert!(matches!(c.set(n(1), &key, "v"), Err(TaskError::Invalid(_))));
    let clock = c.peer(n(1)).slot_clock(Slot::of_key(key.as_bytes()));
    assert!(clock.is_some_and(|clock| clock.is_empty()));
}

#[test]
fn forwarded_increments_after_a_clean_restart_are_not_taken_for_those_before_it() {
    let mut cluster = Cluster::new(3);
    for round in 1..=3 {
        // One of them coordinates; the others forward, and number what they forward.
        for at in 1..=3 {
            for _ in 0..5 {
                cluster.incr(n(at), "hits", 1);
            }
        }
        for node in 1..=3 {
            assert_eq!(cluster.get(n(node), "hits"), Some((15 * round).to_string()));
            cluster.kill(n(node), true);
            cluster.wait(Duration::from_millis(20));
            cluster.start_in_this_life(n(node), false);
            cluster.settle();
            cluster.wait(Duration::from_millis(20));
        }
    }
}
