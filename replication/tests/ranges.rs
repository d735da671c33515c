//! Ranges: pages of rows as a quorum knows them, and their deletion.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ring::Slot;
use ring::keyspace::Level;
use ringdb_replication::op::Span;
use ringdb_replication::{Answer, Message, Op, Outcome, Request, Task, TaskError, row};

use crate::cluster::{Cluster, n, set, task};

fn span(rows: u32, reverse: bool) -> Span {
    let (start, end) = row::range_of_sort_keys(0, b"p", None, None).expect("a tag");
    Span { slot: Slot::of_key(b"{p}"), keyspace: 0, start, end, reverse, rows, bytes: 1 << 20 }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every page of a span, one after the other: sort keys and their values.
fn read_all(c: &mut Cluster, at: u32, mut span: Span) -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    loop {
        let request = Request::Range { span: span.clone(), level: None, after: None };
        let Answer::Page { rows, next, .. } = c.ask(n(at), request) else { panic!("no page") };
        assert!(rows.len() <= span.rows as usize * 3);
        for found in rows {
            let sort = row::sort_key_of(&found.row, b"p").expect("a row of the partition");
            let values = found.values.iter().map(|v| text(&v.value)).collect();
            all.push((text(&sort), values));
        }
        if next.is_empty() {
            return all;
        }
        span = span.after(next);
    }
}

fn delete_all(c: &mut Cluster, at: u32, mut span: Span) -> u64 {
    let mut sum = 0;
    loop {
        let (read, write, durability, after) = (None, None, None, None);
        let request = Request::DeleteRange { span: span.clone(), read, write, durability, after };
        match c.ask(n(at), request) {
            Answer::Deleted { count, next, .. } => {
                sum += count;
                if next.is_empty() {
                    return sum;
                }
                span = span.after(next);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Writes that did not know of each other are siblings: the later one is shown first.
fn latest(rows: Vec<(String, Vec<String>)>) -> Vec<(String, String)> {
    rows.into_iter().map(|(sort, mut values)| (sort, values.swap_remove(0))).collect()
}

fn plain(model: &BTreeMap<String, String>) -> Vec<(String, String)> {
    model.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

#[test]
fn whatever_a_minority_missed_a_range_is_what_was_acknowledged() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut c = Cluster::new(if seed % 3 == 0 { 5 } else { 3 });
        let nodes = if seed % 3 == 0 { 5 } else { 3 };
        let mut model = BTreeMap::new();
        // Neighbours that no range of {p} may show.
        for key in ["p", "{q}a", "x{p}a"] {
            c.set(n(1), key, "other").expect("a quorum");
        }
        for step in 0..40 {
            c.wait(Duration::from_millis(5));
            // Each write misses one node, another one each time.
            let deaf = n(rng.random_range(1..=nodes));
            c.lose = Box::new(move |_, to, m| to == deaf && matches!(m, Message::Replicate { .. }));
            let (sort, at) =
                (format!("{:02}", rng.random_range(0..20)), rng.random_range(1..=nodes));
            let key = format!("{{p}}{sort}");
            if rng.random_range(0..3) == 0 {
                c.op(n(at), &key, Op::Delete).expect("a quorum");
                model.remove(&sort);
            } else {
                c.set(n(at), &key, &format!("v{step}")).expect("a quorum");
                model.insert(sort, format!("v{step}"));
            }
        }
        c.lose = Box::new(|_, _, _| false);
        let (at, rows) = (rng.random_range(1..=nodes), rng.random_range(1..8));
        let read = latest(read_all(&mut c, at, span(rows, false)));
        assert_eq!(read, plain(&model), "seed {seed}");
        let mut backward = plain(&model);
        backward.reverse();
        let at = rng.random_range(1..=nodes);
        let read = latest(read_all(&mut c, at, span(rows, true)));
        assert_eq!(read, backward, "seed {seed}");
        // What a quorum read has shown, every later one shows, though the writes are heard no more.
        let at = rng.random_range(1..=nodes);
        assert_eq!(delete_all(&mut c, at, span(rows, false)), model.len() as u64, "seed {seed}");
        for at in 1..=nodes {
            assert_eq!(read_all(&mut c, at, span(3, false)), [], "seed {seed}");
            assert_eq!(c.get(n(at), "x{p}a").as_deref(), Some("other"));
            assert_eq!(c.get(n(at), "p").as_deref(), Some("other"));
        }
    }
}

#[test]
fn a_range_repairs_before_it_answers() {
    let mut c = Cluster::new(3);
    // A write that only one replica got, and that was not confirmed.
    c.lose = Box::new(|_, to, m| to != n(1) && matches!(m, Message::Replicate { .. }));
    let unconfirmed = c.set(n(1), "{p}a", "v");
    assert!(matches!(unconfirmed, Err(TaskError::Unconfirmed { acked: 1, .. })), "{unconfirmed:?}");
    assert_eq!(read_all(&mut c, 1, span(10, false)), [("a".to_owned(), vec!["v".to_owned()])]);
    // It was shown: those who do not hold it could not show it now.
    c.kill(n(1), true);
    assert_eq!(read_all(&mut c, 2, span(10, false)), [("a".to_owned(), vec!["v".to_owned()])]);
}

#[test]
fn a_range_deletion_spares_what_it_did_not_see_and_reaches_those_who_were_away() {
    let mut c = Cluster::new(3);
    // The node that mints, one that will not have heard of it, and one that is away.
    let &[minter, deaf, away] = c.layout().replicas(Slot::of_key(b"{p}")) else { panic!("three") };
    for sort in ["a", "b", "c"] {
        c.set(minter, &format!("{{p}}{sort}"), "old").expect("a quorum");
    }
    c.kill(away, true);
    // A write that one replica has not heard of, beside what is there.
    c.lose = Box::new(move |_, to, m| to == deaf && matches!(m, Message::Replicate { .. }));
    let context = Bytes::from_static(&[0]);
    let value = Some(Bytes::from_static(b"new"));
    let mut beside = task("{p}b", Op::SetWithContext { value, context });
    let Request::Task(Task { write, read, .. }) = &mut beside else { panic!("a task") };
    (*read, *write) = (Some(Level::One), Some(Level::One));
    let written = c.ask(minter, beside);
    assert!(matches!(written, Answer::Done { .. }), "{written:?}");
    c.lose = Box::new(|_, _, _| false);
    // The deletion knows what that one knows, and no more.
    c.believe(deaf, minter, false);
    let (read, write) = (Some(Level::One), Some(Level::One));
    let (durability, after) = (None, None);
    let request = Request::DeleteRange { span: span(10, false), read, write, durability, after };
    let deleted = c.ask(deaf, request);
    assert!(matches!(deleted, Answer::Deleted { count: 3, .. }), "{deleted:?}");
    c.believe(deaf, minter, true);
    c.start(away, false);
    c.settle();
    c.wait(Duration::from_secs(3));
    for at in 1..=3 {
        let left = read_all(&mut c, at, span(2, false));
        assert_eq!(left, [("b".to_owned(), vec!["new".to_owned()])], "at n{at}");
    }
}

#[test]
fn an_answer_that_comes_twice_does_not_disturb_a_page_under_way() {
    let mut c = Cluster::new(3);
    c.lose = Box::new(|_, to, m| to != n(1) && matches!(m, Message::Replicate { .. }));
    c.set(n(1), "{p}a", "v").expect_err("one replica has it");
    // The row is read apart, and that takes a while.
    c.lose = Box::new(|_, _, m| matches!(m, Message::DigestIs { .. } | Message::StateIs { .. }));
    c.kept = Some(Box::new(|m| matches!(m, Message::Walked { .. })));
    let request = Request::Range { span: span(10, false), level: None, after: None };
    let id = c.submit(n(1), request);
    c.settle();
    assert_eq!(c.answer(id), None);
    c.deliver_kept();
    c.lose = Box::new(|_, _, _| false);
    c.wait(Duration::from_secs(1));
    let answer = c.answer(id);
    let Some(Answer::Page { rows, .. }) = answer else { panic!("no page: {answer:?}") };
    assert_eq!(rows.len(), 1);
}

#[test]
fn a_page_ends_where_the_first_replica_stopped() {
    let mut c = Cluster::new(3);
    // n3 lacks the even rows, so that it comes further with as many.
    for i in 0..40 {
        let deaf = i % 2 == 0;
        c.lose =
            Box::new(move |_, to, m| deaf && to == n(3) && matches!(m, Message::Replicate { .. }));
        c.set(n(1), &format!("{{p}}{i:02}"), "v").expect("a quorum");
    }
    for reverse in [false, true] {
        for at in 1..=3 {
            let all = read_all(&mut c, at, span(5, reverse));
            assert_eq!(all.len(), 40, "at n{at}, reverse: {reverse}");
        }
    }
}

#[test]
fn a_range_that_cannot_reach_its_level_is_refused() {
    let mut c = Cluster::new(3);
    c.op(n(1), "{p}a", set("v")).expect("a quorum");
    c.kill(n(2), true);
    c.kill(n(3), true);
    let request = Request::Range { span: span(5, false), level: None, after: None };
    let refused = c.ask(n(1), request);
    assert!(matches!(refused, Answer::Failed(TaskError::Unavailable { .. })), "{refused:?}");
    let request = Request::Range { span: span(5, false), level: Some(Level::One), after: None };
    let Answer::Page { rows, .. } = c.ask(n(1), request) else { panic!("no page") };
    assert_eq!(rows.len(), 1);
    // The context of a row replaces what was read, as that of a get does.
    c.start(n(2), false);
    c.wait(Duration::from_secs(3));
    let (value, context) = (Some(Bytes::from_static(b"w")), rows[0].context.clone());
    let replaced = c.op(n(1), "{p}a", Op::SetWithContext { value, context });
    assert!(matches!(replaced, Ok(Outcome::Siblings { .. })), "{replaced:?}");
    assert_eq!(read_all(&mut c, 1, span(5, false)), [("a".to_owned(), vec!["w".to_owned()])]);
}
