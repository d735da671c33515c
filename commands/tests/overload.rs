//! What a session answers when too much is asked: at once, in order, and nothing is done.

use core::time::Duration;

use commands::SessionDefaults;

use crate::story::Story;

const TIMEOUT_US: u64 = 2_000_000;

fn story() -> Story {
    Story::with(SessionDefaults { timeout_us: TIMEOUT_US, ..SessionDefaults::default() })
}

const REFUSED: &str = "-OVERLOADED retry_after_ms=100 too much is in flight here. Nothing was done. \
                       fix: wait that long and retry, here or on another node";

#[test]
fn commands_on_keys_are_refused_in_order_and_the_others_served() {
    let mut story = story();
    story.sends_line("SET a 1");
    story.host.overload = Some(100);
    for line in ["GET a", "PING", "WITH ONE GET a", "DBSIZE", "WATCH a", "MULTI", "GET a", "EXEC"] {
        story.sends_line(line);
    }
    assert_eq!(story.hears_text(), "", "SET a is answered first");
    let submits = story.takes_submits();
    assert_eq!(submits.len(), 1, "nothing but SET a is asked for: {submits:?}");
    story.settles();
    for submit in submits {
        story.serves(submit);
    }
    let aborted =
        REFUSED.replace("-OVERLOADED", "-EXECABORT Transaction discarded because of: OVERLOADED");
    let expected =
        format!("+OK {REFUSED} +PONG {REFUSED} {REFUSED} {REFUSED} +OK +QUEUED {aborted}");
    assert_eq!(story.hears_text(), expected);
    story.host.overload = None;
    story.sends_line("GET a");
    story.settles();
    assert_eq!(story.hears_text(), "$1 1");
}

#[test]
fn a_request_has_what_is_left_of_its_commands_time() {
    let mut story = story();
    story.host.waited = Duration::from_millis(1_500);
    story.sends_line("GET a");
    let submits = story.takes_submits();
    assert_eq!(submits[0].timeout_us, 500_000);
}

#[test]
fn the_time_of_a_command_begins_when_those_before_it_on_its_key_have_ended() {
    let mut story = story();
    story.sends_line("SET a 1");
    story.sends_line("APPEND a 2");
    let first = story.takes_submits();
    story.now.mono = story.now.mono + Duration::from_millis(1_900);
    for submit in first {
        story.serves(submit);
    }
    let second = story.takes_submits();
    assert_eq!(second[0].timeout_us, TIMEOUT_US, "a client may send as early as it likes");
}

#[test]
fn a_command_of_several_steps_has_one_time_for_all_of_them() {
    let mut story = story();
    story.sends_line("MSETNX {t}a 1 {t}b 2");
    let looks = story.takes_submits();
    story.now.mono = story.now.mono + Duration::from_millis(1_500);
    for submit in looks {
        assert_eq!(submit.timeout_us, TIMEOUT_US);
        story.serves(submit);
    }
    let writes = story.takes_submits();
    assert!(!writes.is_empty() && writes.iter().all(|w| w.timeout_us == 500_000), "{writes:?}");
}

#[test]
fn a_slow_command_is_told_with_its_key_and_listed_until_it_is_forgotten() {
    let mut story = story();
    story.host.slow_from_us = Some(10_000);
    story.sends_line("SET a 1");
    story.sends_line("GET quick");
    let submits = story.takes_submits();
    story.now.mono = story.now.mono + Duration::from_millis(9);
    let [slow, quick] = submits.try_into().expect("both are asked");
    story.serves(quick);
    story.now.mono = story.now.mono + Duration::from_millis(3);
    story.serves(slow);
    assert_eq!(story.hears_text(), "+OK $-1");
    assert_eq!(story.says("SLOWLOG LEN"), ":1");
    let listed = "*1 *6 :0 :0 :12000 *2 $3 set $1 a $0  $0 ";
    assert_eq!(story.says("SLOWLOG GET").trim_end(), listed.trim_end());
    assert_eq!(story.says("SLOWLOG GET -2"), "-ERR count should be greater than or equal to -1");
    assert_eq!(story.says("SLOWLOG RESET"), "+OK");
    assert_eq!(story.says("SLOWLOG GET -1"), "*0");
}
