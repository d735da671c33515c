//! What `bench` says of targets whose behaviour is known.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wire::resp::{Decoder, Limits};

use crate::stage::*;

/// A server that answers every command with what `answer` says, on as many connections as come.
fn server(answer: impl Fn(u64) -> (Duration, &'static str) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (answer, asked) = (Arc::new(answer), Arc::new(AtomicU64::new(0)));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer, asked) = (stream.unwrap(), answer.clone(), asked.clone());
            std::thread::spawn(move || {
                let (mut decoder, mut bytes) = (Decoder::new(Limits::default()), Vec::new());
                let mut chunk = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut chunk) {
                    bytes.extend_from_slice(&chunk[..n]);
                    while let Some(consumed) = consumed(&mut decoder, &bytes) {
                        bytes.drain(..consumed);
                        let (pause, text) = answer(asked.fetch_add(1, Ordering::Relaxed));
                        std::thread::park_timeout(pause);
                        if stream.write_all(text.as_bytes()).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

fn measure(line: &str) -> serde_json::Value {
    let dir = tempfile::tempdir().unwrap();
    let ran = alone(dir.path(), &format!("bench {line} -o json"));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    serde_json::from_str(&ran.out).unwrap()
}

fn number(run: &serde_json::Value, name: &str) -> f64 {
    run[name].as_f64().unwrap_or_else(|| panic!("{name} in {run}"))
}

const OK: (Duration, &str) = (Duration::ZERO, "+OK\r\n");
const SHORT: &str = "--time 1s --warm-up 100ms --records 20 --value-bytes 10";

#[test]
fn a_stall_is_charged_for_everybody_who_would_have_come_meanwhile() {
    let stall = |n| if n == 220 { (Duration::from_millis(400), "+OK\r\n") } else { OK };
    let run = |more: &str| {
        let address = server(stall);
        let json = measure(&format!("--redis {address} --workload c {SHORT} {more}"));
        assert_eq!(json["schema"], "ringctl/v1");
        json["runs"][0].clone()
    };
    let open = run("--rate 400 --concurrency 1");
    assert!(number(&open, "max_ms") >= 390.0, "{open}");
    // 160 operations were due during the stall: 0.2 s each on average, of 400 in all.
    assert!(number(&open, "mean_ms") > 30.0, "{open}");
    assert!(number(&open, "p99_ms") > 200.0, "{open}");
    let offered = number(&open, "offered_per_second");
    assert_eq!((offered, number(&open, "unsent")), (400.0, 0.0), "{open}");
}

#[test]
fn an_overload_is_told_as_what_was_done_how_late_and_what_was_not_begun() {
    let address = server(|n| if n < 20 { OK } else { (Duration::from_millis(10), "+OK\r\n") });
    let json =
        measure(&format!("--redis {address} --workload c {SHORT} --rate 1000 --concurrency 2"));
    let run = &json["runs"][0];
    let done = number(run, "operations");
    assert!((50.0..=202.0).contains(&done), "two at a time, 10 ms each: {run}");
    assert!(number(run, "unsent") > 700.0 && number(run, "max_ms") > 400.0, "{run}");
}

#[test]
fn error_replies_are_no_fast_answers() {
    let failing = |n: u64| match n {
        0..20 => OK,
        n if n.is_multiple_of(2) => (Duration::from_millis(1), "-UNAVAILABLE 2 of 3\r\n"),
        _ => (Duration::from_millis(1), "+OK\r\n"),
    };
    let address = server(failing);
    let json = measure(&format!("--redis {address} --workload c {SHORT}"));
    let run = &json["runs"][0];
    let (done, errors) = (number(run, "operations"), number(run, "errors"));
    assert!(done > 0.0 && (errors / done - 1.0).abs() < 0.2, "{run}");
    assert_eq!(run["errors_by_kind"]["UNAVAILABLE"].as_f64(), Some(errors));

    let dir = tempfile::tempdir().unwrap();
    let address = server(|n| if n < 20 { OK } else { (Duration::ZERO, "-ERR no\r\n") });
    let ran = alone(dir.path(), &format!("bench --redis {address} --workload c {SHORT}"));
    assert_eq!(ran.code, 1, "{ran:?}");
    let last: Vec<_> = ran.err.lines().collect();
    assert_eq!(
        last,
        [
            "error: nothing of workload c succeeded",
            "  why: ERR no",
            "  fix: mend that, then measure again"
        ]
    );
}

#[test]
fn a_cluster_is_measured_by_level_and_its_nodes_tell_what_it_cost_them() {
    let stage = Stage::three();
    let line = format!("bench --workload a,counters --level one,quorum {SHORT} --time 300ms");
    let ran = stage.run(&line.replace("--time 1s ", ""));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(
        lines[0],
        "bench  demo   native client   20 records of 10 B   16 at a time, 1 thread   300ms each"
    );
    assert!(lines[1].starts_with("WORKLOAD  LEVEL"), "{ran:?}");
    let names: Vec<_> = lines[2..]
        .iter()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(names, ["a ONE", "a QUORUM", "counters ONE", "counters QUORUM"]);
    // Each node says that it used a second more each time that it is asked.
    assert!(lines[2].contains("  n1 ") && lines[2].contains("  n3 "), "{}", lines[2]);
}

#[test]
fn ranges_are_measured_in_the_database_that_is_named() {
    let stage = Stage::three();
    let line = format!("bench --workload e --db 3 {SHORT} --time 300ms");
    let ran = stage.run(&line.replace("--time 1s ", ""));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let first = ran.out.lines().next().unwrap();
    assert!(first.starts_with("bench  demo   database 3   native client   20 records"), "{first}");

    // Of a Redis endpoint they are asked for with MGET, after SELECT.
    let (asked, log) = std::sync::mpsc::channel();
    let address = recorder(asked);
    measure(&format!("--redis {address} --workload e --db 3 --concurrency 1 {SHORT}"));
    let words: Vec<String> = log.try_iter().collect();
    assert_eq!(words[0], "SELECT 3");
    let loads = words.iter().filter(|w| w.starts_with("SET {bench:0000000}user00000000")).count();
    assert!(loads >= 20, "{loads} were loaded");
    let ranges = words.iter().filter(|w| w.starts_with("MGET {bench:0000000}user00000000")).count();
    assert!(ranges > 20, "{ranges} ranges");
}

/// A server that tells the words of every command, but for long values, and answers OK.
fn recorder(tell: std::sync::mpsc::Sender<String>) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, tell) = (stream.unwrap(), tell.clone());
            std::thread::spawn(move || {
                let (mut decoder, mut bytes) = (Decoder::new(Limits::default()), Vec::new());
                let mut chunk = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut chunk) {
                    bytes.extend_from_slice(&chunk[..n]);
                    while let Some(decoded) = decoder.decode(&bytes).unwrap() {
                        let word = |at| decoded.command.get(at).map(String::from_utf8_lossy);
                        let words: Vec<_> = (0..).map_while(word).collect();
                        let words = words.join(" ");
                        let consumed = decoded.consumed;
                        bytes.drain(..consumed);
                        drop(tell.send(words));
                        if stream.write_all(b"+OK\r\n").is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

/// A server that refuses whatever it is asked with this line.
fn refuser(line: &'static str) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut chunk = [0; 4096];
                while let Ok(1..) = stream.read(&mut chunk) {
                    if stream.write_all(format!("-{line}\r\n").as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn what_a_redis_endpoint_refuses_is_told_with_what_to_do_about_it() {
    let dir = tempfile::tempdir().unwrap();
    let commandless = "ERR unknown command 'CONSISTENCY', with args beginning with: 'QUORUM'";
    let cases = [
        ("WRONGPASS invalid pair", "--password no", 7, "check --user and --password"),
        ("NOAUTH Authentication required.", "", 7, "say who you are with --user and --password"),
        ("ERR DB index is out of range", "--db 99", 1, "name another --db"),
        ("ERR max number of clients reached", "", 3, "use fewer connections (--concurrency)"),
        (commandless, "--level quorum", 1, "leave --level out: this endpoint knows no levels"),
    ];
    for (line, flags, code, fix) in cases {
        let address = refuser(line);
        let ran = alone(dir.path(), &format!("bench --redis {address} --records 10 {flags}"));
        let lines: Vec<_> = ran.err.lines().collect();
        assert_eq!((ran.code, lines.len()), (code, 3), "{ran:?}");
        assert_eq!(lines[2], format!("  fix: {fix}"), "{ran:?}");
    }
}

#[test]
fn what_cannot_be_measured_says_so_in_three_lines() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("--redis 127.0.0.1:1", 3, "error: cannot use the Redis endpoint 127.0.0.1:1"),
        ("--redis 127.0.0.1:1 --pid 4000000000", 2, "error: there is no process 4000000000 here"),
        ("--workload g", 2, "error: invalid value 'g' for '--workload <W>'"),
        ("--level some", 2, "error: invalid value 'some' for '--level <LEVEL>'"),
        ("", 2, "error: no cluster is known here"),
    ];
    for (line, code, what) in cases {
        let ran = alone(dir.path(), &format!("bench {line}"));
        let lines: Vec<_> = ran.err.lines().collect();
        assert_eq!((ran.code, lines[0], lines.len()), (code, what, 3), "{ran:?}");
    }
    let stage = Stage::three();
    let contexts = stage.dir.path().join("ringdb-demo/ringctl.toml");
    let text = std::fs::read_to_string(&contexts).unwrap();
    std::fs::write(&contexts, text + "readonly = true\n").unwrap();
    let ran = stage.run("bench --records 1");
    assert_eq!(ran.code, 2);
    assert!(ran.err.starts_with("error: a benchmark is refused\n"), "{ran:?}");
    let ran = Stage::three().run("bench --driver redis-rs --records 1");
    assert_eq!(ran.code, 2);
    assert!(ran.err.starts_with("error: redis-rs asks Redis endpoints\n"), "{ran:?}");
}

fn consumed(decoder: &mut Decoder, bytes: &[u8]) -> Option<usize> {
    decoder.decode(bytes).unwrap().map(|decoded| decoded.consumed)
}
