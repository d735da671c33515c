//! Whatever the order in which the peer answers, a pipeline hears what it would hear one by one.

use crate::differential::{chance, draw};
use crate::story::{Story, words};

#[test]
fn a_pipeline_hears_the_same_as_one_command_at_a_time_whatever_the_order_of_answers() {
    for seed in 0..300 {
        let mut state = seed;
        let mut lines: Vec<String> = (0..60).map(|_| draw(&mut state)).collect();
        for (at, line) in [
            (10, "MULTI"),
            (14, "EXEC"),
            (20, "DBSIZE"),
            (25, "SELECT 1"),
            (31, "SELECT 0"),
            (33, "WATCH a b"),
            (36, "MULTI"),
            (39, "EXEC"),
            (45, "SCAN 0 COUNT 100"),
            (50, "FLUSHDB"),
        ] {
            lines.insert(at, line.to_owned());
        }
        let mut serial = Story::new();
        let one_by_one: Vec<u8> =
            lines.iter().flat_map(|line| serial.says_args(&words(line))).collect();

        let mut piped = Story::new();
        let mut asked = Vec::new();
        let mut unsent = lines.iter();
        loop {
            asked.append(&mut piped.takes_submits());
            // Sometimes more commands come before anything is answered, sometimes the reverse.
            let sends = asked.is_empty() || chance(&mut state).is_multiple_of(3);
            match unsent.as_slice() {
                [line, ..] if sends => {
                    unsent.next();
                    piped.sends_line(line);
                }
                [] if asked.is_empty() => break,
                _ => {
                    let at = chance(&mut state) as usize % asked.len();
                    let submit = asked.swap_remove(at);
                    piped.serves(submit);
                }
            }
        }
        let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", " ");
        assert!(piped.session.is_idle());
        assert_eq!(show(&piped.hears()), show(&one_by_one), "seed {seed}: {lines:#?}");
    }
}

#[test]
fn commands_on_other_keys_run_at_the_same_time_and_those_on_one_key_in_turn() {
    let mut story = Story::new();
    for line in ["SET a 1", "SET b 1", "GET a", "GET a", "GET c", "APPEND a 2", "GET a"] {
        story.sends_line(line);
    }
    let first = story.takes_submits();
    assert_eq!(first.len(), 3, "SET a, SET b and GET c may run: {first:?}");
    let [set_a, set_b, get_c]: [_; 3] = first.try_into().expect("three");
    story.serves(get_c);
    story.serves(set_b);
    assert_eq!(story.hears_text(), "", "nothing leaves before SET a is answered");
    story.serves(set_a);
    assert_eq!(story.hears_text(), "+OK +OK");
    let reads = story.takes_submits();
    assert_eq!(reads.len(), 2, "two reads of a key run together: {reads:?}");
    for read in reads.into_iter().rev() {
        story.serves(read);
    }
    assert_eq!(story.hears_text(), "$1 1 $1 1 $-1");
    story.settles();
    assert_eq!(story.hears_text(), ":2 $2 12");
    assert!(story.session.is_idle());
}

#[test]
fn a_session_with_too_much_unfinished_wants_no_more_until_answers_come() {
    let mut story = Story::new();
    // Nobody knows yet how large its replies are.
    for most in [commands::limits::UNFINISHED_FIRST, commands::limits::UNFINISHED_MAX] {
        let mut sent = 0;
        while story.session.wants_more() {
            story.sends_line(&format!("GET key:{sent}"));
            sent += 1;
        }
        assert_eq!(sent, most);
        story.settles();
        assert!(story.session.wants_more() && story.session.is_idle());
        assert_eq!(story.hears().len(), sent * 5);
    }

    let value = vec![b'x'; 8 << 20];
    let mut sent = 0;
    while story.session.wants_more() {
        story.sends(&[b"SET", b"k", &value]);
        sent += 1;
    }
    assert!(sent < 10, "values count too, and {sent} were taken");
    story.settles();
    assert!(story.session.wants_more());
}

#[test]
fn a_session_that_reads_large_values_awaits_few_at_a_time() {
    let mut story = Story::new();
    let value = vec![b'x'; 1 << 20];
    story.sends(&[b"SET", b"k", &value]);
    story.sends_line("GET k");
    story.settles();
    assert!(story.hears().len() > value.len());
    let mut sent = 0;
    while story.session.wants_more() {
        story.sends_line("GET k");
        sent += 1;
    }
    assert_eq!(sent, commands::limits::REPLY_BYTES_MAX / (value.len() + 12));
    story.settles();
    assert_eq!(story.hears().len(), sent * (value.len() + 12));
}

#[test]
fn a_reply_that_is_ready_waits_for_those_before_it() {
    let mut story = Story::new();
    story.sends_line("GET a");
    story.sends_line("PING");
    story.sends_line("NOSUCH");
    story.sends_line("HELLO 3");
    story.sends_line("GET b");
    let [a, b]: [_; 2] = story.takes_submits().try_into().expect("two keys");
    story.serves(b);
    assert_eq!(story.hears_text(), "");
    story.serves(a);
    let heard = story.hears_text();
    assert!(
        heard.starts_with("$-1 +PONG -ERR unknown command 'NOSUCH', with args beginning with:  %7"),
        "{heard}"
    );
    assert!(heard.ends_with(" _"), "each reply has the version of its command: {heard}");
}

#[test]
fn a_client_that_wants_no_replies_gets_none_and_its_commands_still_work() {
    let mut story = Story::new();
    story.goes(&[
        ("CLIENT REPLY SKIP", ""),
        ("SET a 1", ""),
        ("GET a", "$1 1"),
        ("CLIENT REPLY OFF", ""),
        ("SET a 2", ""),
        ("PING", ""),
        ("NOSUCH", ""),
        ("CLIENT REPLY SKIP", ""),
        ("CLIENT REPLY ON", "+OK"),
        ("GET a", "$1 2"),
        ("CLIENT REPLY SKIP", ""),
        ("PING", ""),
        ("PING", "+PONG"),
    ]);
}

#[test]
fn any_arguments_whatever_get_exactly_one_reply() {
    const ARGUMENTS: [&[u8]; 24] = [
        b"",
        b"a",
        b"{t}b",
        b"0",
        b"-1",
        b"9223372036854775807",
        b"EX",
        b"GET",
        b"USAGE",
        b"ENCODING",
        b"CTX",
        b"WITHCTX",
        b"MATCH",
        b"COUNT",
        b"r=1",
        b"QUORUM",
        b"SET",
        b"LIST",
        b"KILL",
        b"ID",
        b"GETKEYS",
        b"\xff\x00\r\n",
        b"AUTH",
        b"MULTI",
    ];
    let mut state = 7;
    let mut story = Story::new();
    let names = String::from_utf8(story.says_args(&[b"COMMAND", b"LIST"])).expect("names are text");
    let names: Vec<&[u8]> =
        names.lines().skip(1).filter(|l| !l.starts_with('$')).map(str::as_bytes).collect();
    assert!(names.len() > 80);
    for round in 0..60_000 {
        if round % 50 == 0 || !story.session.wants_more() {
            story = Story::new();
        }
        let mut args = vec![names[chance(&mut state) as usize % names.len()]];
        for _ in 0..chance(&mut state) % 6 {
            args.push(ARGUMENTS[chance(&mut state) as usize % ARGUMENTS.len()]);
        }
        if args.iter().any(|arg| arg.eq_ignore_ascii_case(b"wait")) {
            story.says_args(&[b"SET", b"a", b"1"]);
        }
        let heard = story.says_args(&args);
        let read = wire::resp::ReplyDecoder::new().decode(&heard);
        let consumed = read.as_ref().ok().and_then(|r| r.as_ref()).map(|r| r.consumed);
        let show = || args.iter().map(|a| a.escape_ascii().to_string()).collect::<Vec<_>>();
        assert_eq!(consumed, Some(heard.len()), "{:?}: {}", show(), heard.escape_ascii());
        assert!(story.session.is_idle(), "{:?}", show());
    }
}

#[test]
fn a_session_may_move_between_threads() {
    fn moves<T: Send>(_: &T) {}
    moves(&Story::new().session);
}

#[test]
fn quit_closes_only_after_every_reply() {
    let mut story = Story::new();
    story.sends_line("GET a");
    story.sends_line("QUIT");
    story.sends_line("PING");
    assert!(!story.out.close && !story.session.wants_more());
    story.settles();
    assert_eq!(story.hears_text(), "$-1 +OK");
    assert!(story.out.close);

    let mut story = Story::new();
    story.sends_line("GET a");
    story.session.on_protocol_error(
        "Protocol error: invalid bulk length",
        &story.host,
        &mut story.out,
    );
    assert!(!story.out.close);
    story.settles();
    assert_eq!(story.hears_text(), "$-1 -ERR Protocol error: invalid bulk length");
    assert!(story.out.close);
}
