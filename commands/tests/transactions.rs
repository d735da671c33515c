//! Transactions: what becomes one task, what becomes several, and what a watch prevents.

use commands::{CrossSlot, SessionDefaults};
use replication::op::TaskError;
use replication::{Answer, Request, Task};

use crate::story::Story;

fn tasks(story: &mut Story) -> Vec<(u64, Task)> {
    story
        .takes_submits()
        .into_iter()
        .map(|submit| match submit.request {
            Request::Task(task) => (submit.id, task),
            other => panic!("a task, not {other:?}"),
        })
        .collect()
}

fn queue(story: &mut Story, lines: &[&str]) {
    assert_eq!(story.says("MULTI"), "+OK");
    for line in lines {
        assert_eq!(story.says(line), "+QUEUED", "{line}");
    }
}

#[test]
fn keys_of_one_slot_are_one_atomic_task_with_its_watches() {
    let mut story = Story::new();
    story.goes(&[("SET {u}n 5", "+OK"), ("WATCH {u}n {u}m", "+OK")]);
    queue(&mut story, &["INCR {u}n", "SET {u}m x", "PING", "GET {u}m", "SET {u}m x BOGUS"]);
    story.sends_line("WITH ALL EXEC");
    let [(id, task)]: [_; 1] = tasks(&mut story).try_into().expect("one task");
    assert!(task.atomic && task.ops.len() == 3 && task.watches.len() == 2, "{task:?}");
    assert_eq!(task.write, Some(ring::keyspace::Level::All));
    let answer = story.model.answer(story.now.wall, Request::Task(task));
    story.answers(id, answer);
    assert_eq!(story.hears_text(), "*5 :6 +OK +PONG $1 x -ERR syntax error");
    assert_eq!(story.host.stats.cross_slot_tx, 0);
}

fn unavailable() -> Answer {
    let level = ring::keyspace::Level::Quorum;
    let missing = vec![ring::NodeId(2)];
    Answer::Failed(TaskError::Unavailable { level, needed: 2, copies: 3, alive: 1, missing })
}

#[test]
fn a_command_of_which_one_slot_was_written_does_not_say_that_nothing_was() {
    let mut story = Story::new();
    story.sends_line("MSET {a}k 1 {b}k 2");
    let [(first, task), (second, _)]: [_; 2] = tasks(&mut story).try_into().expect("two tasks");
    let mut done = story.model.answer(story.now.wall, Request::Task(task.clone()));
    if let Answer::Done { write, .. } = &mut done {
        let coordinator = ring::NodeId(1);
        *write = Some(replication::op::WriteHandle { slot: task.slot, coordinator, id: 1 });
    }
    story.answers(second, unavailable());
    story.answers(first, done);
    let heard = story.hears_text();
    assert!(heard.starts_with("-UNCONFIRMED some slots were written, others were not:"), "{heard}");
    assert!(!heard.contains("Nothing was written"), "{heard}");
    // Where no slot was written, that is what is said.
    story.sends_line("MSET {a}k 1 {b}k 2");
    for (id, _) in tasks(&mut story) {
        story.answers(id, unavailable());
    }
    assert!(story.hears_text().starts_with("-UNAVAILABLE QUORUM needs 2 of 3"));
}

#[test]
fn a_transaction_that_may_have_been_done_elsewhere_is_not_said_to_be_stopped() {
    let mut story = Story::new();
    story.goes(&[("WATCH {a}k", "+OK"), ("MULTI", "+OK")]);
    story.goes(&[("SET {a}k 1", "+QUEUED"), ("SET {b}k 2", "+QUEUED")]);
    story.sends_line("EXEC");
    let [look] = <[_; 1]>::try_from(story.takes_submits()).expect("one look");
    story.serves(look);
    for (id, task) in tasks(&mut story) {
        let error = if task.watches.is_empty() {
            let level = ring::keyspace::Level::Quorum;
            TaskError::Unconfirmed { level, needed: 2, copies: 3, acked: 1, missing: Vec::new() }
        } else {
            TaskError::Aborted
        };
        story.answers(id, Answer::Failed(error));
    }
    assert!(story.hears_text().starts_with("-UNCONFIRMED QUORUM needs 2 of 3 acks"));
}

#[test]
fn a_watched_key_that_changed_stops_the_transaction() {
    let mut story = Story::new();
    story.goes(&[("SET k 1", "+OK"), ("WATCH k", "+OK"), ("SET k 2", "+OK")]);
    queue(&mut story, &["SET k 3"]);
    story.goes(&[("EXEC", "*-1"), ("GET k", "$1 2")]);
    // Watched in one slot, written in another.
    story.goes(&[("WATCH k", "+OK"), ("SET k 4", "+OK")]);
    queue(&mut story, &["SET other 1"]);
    story.goes(&[("EXEC", "*-1"), ("GET other", "$-1")]);
    // Watched in another slot and unchanged.
    story.goes(&[("WATCH k", "+OK")]);
    queue(&mut story, &["SET other 1"]);
    story.goes(&[("EXEC", "*1 +OK"), ("GET other", "$1 1")]);
    // Nothing but a watch.
    story.goes(&[("WATCH k", "+OK"), ("SET k 5", "+OK")]);
    queue(&mut story, &["PING"]);
    story.goes(&[("EXEC", "*-1")]);
}

#[test]
fn a_pipelined_watch_guards_the_exec_behind_it_and_no_other() {
    let mut story = Story::new();
    for line in ["WATCH k", "UNWATCH", "SET k 1", "MULTI", "GET k", "EXEC"] {
        story.sends_line(line);
    }
    for line in
        ["WATCH k", "SET k 2", "MULTI", "GET k", "EXEC", "UNWATCH", "MULTI", "GET k", "EXEC"]
    {
        story.sends_line(line);
    }
    story.settles();
    assert_eq!(
        story.hears_text(),
        "+OK +OK +OK +OK +QUEUED *1 $1 1 +OK +OK +OK +QUEUED *-1 +OK +OK +QUEUED *1 $1 2"
    );
}

#[test]
fn keys_of_several_slots_are_a_task_each_counted_and_refusable() {
    let mut story = Story::new();
    queue(&mut story, &["SET a 1", "SET b 2", "INCR a"]);
    story.sends_line("EXEC");
    let sent = tasks(&mut story);
    assert_eq!(sent.iter().map(|(_, t)| t.ops.len()).sum::<usize>(), 3);
    assert!(sent.len() == 2 && sent.iter().all(|(_, t)| t.atomic));
    for (id, task) in sent.into_iter().rev() {
        let answer = story.model.answer(story.now.wall, Request::Task(task));
        story.answers(id, answer);
    }
    assert_eq!(story.hears_text(), "*3 +OK +OK :2");
    assert_eq!(story.host.stats.cross_slot_tx, 1);

    let cross_slot = CrossSlot::Error;
    let mut story = Story::with(SessionDefaults { cross_slot, ..SessionDefaults::default() });
    queue(&mut story, &["SET a 1", "SET b 2"]);
    assert!(story.says("EXEC").starts_with("-CROSSSLOT EXEC has keys in several slots. fix: "));
    queue(&mut story, &["SET {t}a 1", "SET {t}b 2"]);
    assert_eq!(story.says("EXEC"), "*2 +OK +OK");
}

#[test]
fn a_slot_that_fails_is_told_by_its_own_commands() {
    let mut story = Story::new();
    queue(&mut story, &["SET a 1", "SET b 2"]);
    story.sends_line("EXEC");
    let sent = tasks(&mut story);
    for (n, (id, task)) in sent.into_iter().enumerate() {
        let answer = match n {
            0 => Answer::Failed(TaskError::Overloaded { retry_after_ms: 5 }),
            _ => story.model.answer(story.now.wall, Request::Task(task)),
        };
        story.answers(id, answer);
    }
    let heard = story.hears_text();
    assert!(heard.starts_with("*2 ") && heard.contains("+OK"), "{heard}");
    assert!(heard.contains("-OVERLOADED retry_after_ms=5"), "{heard}");

    queue(&mut story, &["SET {t}a 1", "SET {t}b 2"]);
    story.sends_line("EXEC");
    for (id, _) in tasks(&mut story) {
        story.answers(id, Answer::Failed(TaskError::NotReady));
    }
    assert_eq!(story.hears_text(), "-LOADING RingDB is fetching what it missed from its peers");
}

#[test]
fn what_cannot_be_queued_is_refused_and_spoils_the_transaction() {
    let mut story = Story::new();
    story.says("MULTI");
    assert!(story.says("WITH ONE GET a").starts_with("-ERR WITH inside MULTI is not allowed"));
    assert!(story.says("EXEC").starts_with("-EXECABORT "));
    story.says("MULTI");
    assert_eq!(story.says("RESET"), "+RESET");
    assert_eq!(story.says("EXEC"), "-ERR EXEC without MULTI");
}

#[test]
fn commands_of_several_steps_are_done_where_they_stand_in_the_transaction() {
    let mut story = Story::new();
    queue(&mut story, &["SET a 1", "SET b 2", "DBSIZE", "DEL a", "KEYS *", "FLUSHDB", "SET c 3"]);
    for line in ["DBSIZE", "SCAN 0 COUNT 100000", "RANDOMKEY", "MSETNX {t}a 1 {t}b 2", "GET {t}b"] {
        assert_eq!(story.says(line), "+QUEUED");
    }
    assert_eq!(
        story.says("EXEC"),
        "*12 +OK +OK :2 :1 *1 $1 b +OK +OK :1 *2 $1 0 *1 $1 c $1 c :1 $1 2"
    );
}

#[test]
fn a_watch_stops_a_transaction_before_its_first_step_whatever_that_is() {
    for first in ["FLUSHALL", "SET x 1", "SET {w}x 1"] {
        let mut story = Story::new();
        story.says("SET {w}k 1");
        story.says("WATCH {w}k");
        story.says("SET {w}k 2");
        queue(&mut story, &[first, "DBSIZE", "SET {w}k 3"]);
        assert_eq!(story.says("EXEC"), "*-1", "{first}");
        assert_eq!(story.says("GET {w}k"), "$1 2", "{first}");
        // And one that changed by this transaction itself does not.
        story.says("WATCH {w}k");
        queue(&mut story, &["SET {w}k 4", "DBSIZE", "SET {w}k 5"]);
        assert_eq!(story.says("EXEC"), "*3 +OK :1 +OK", "{first}");
    }
}

#[test]
fn a_step_that_fails_says_so_in_its_place_and_late_answers_to_it_are_not_taken_for_others() {
    let mut story = Story::new();
    queue(&mut story, &["DBSIZE", "DBSIZE", "SET a 1"]);
    story.sends_line("EXEC");
    let first = story.takes_submits();
    let mut late = Vec::new();
    for (n, submit) in first.into_iter().enumerate() {
        match n {
            0 => story.answers(submit.id, Answer::Failed(TaskError::NotReady)),
            _ => late.push(submit),
        }
    }
    for submit in late {
        story.answers(submit.id, Answer::Count(1_000));
    }
    story.settles();
    let heard = story.hears_text();
    assert!(heard.starts_with("*3 -LOADING ") && heard.ends_with(" :0 +OK"), "{heard}");
}

#[test]
fn a_transaction_has_few_commands_of_several_steps() {
    let mut story = Story::new();
    story.says("MULTI");
    for _ in 0..64 {
        assert_eq!(story.says("DBSIZE"), "+QUEUED");
    }
    assert!(story.says("KEYS *").starts_with("-ERR the transaction is too long"));
    assert!(story.says("EXEC").starts_with("-EXECABORT "));
}

#[test]
fn msetnx_starts_again_when_a_key_changes_under_it() {
    let mut story = Story::new();
    story.sends_line("MSETNX {t}a 1 {t}b 2");
    let [(look, task)]: [_; 1] = tasks(&mut story).try_into().expect("a look");
    assert!(task.is_read());
    let answer = story.model.answer(story.now.wall, Request::Task(task));
    story.answers(look, answer);
    let [(write, task)]: [_; 1] = tasks(&mut story).try_into().expect("a write");
    assert!(task.atomic && task.watches.len() == 2);
    story.answers(write, Answer::Failed(TaskError::Aborted));
    story.settles();
    assert_eq!(story.hears_text(), ":1");
    assert_eq!(story.says("MSETNX {t}b 3 {t}c 4"), ":0");
    assert!(story.says("MSETNX x 3 y 4").starts_with("-CROSSSLOT MSETNX"));
}
