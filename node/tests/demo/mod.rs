//! The demo: three real processes, killed and brought back while clients go on.

use std::time::{Duration, Instant};

use crate::support::demo::{Demo, command};
use crate::support::{free_base, free_port, http, pid_of, run, signal, start_command, text, until};

#[test]
fn a_cluster_lives_through_the_death_of_its_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    let mut one = demo.client(1);
    for i in 0..50 {
        assert_eq!(one.ask(&format!("SET k{i} v{i}")), "OK");
    }
    for node in 2..=3 {
        let mut other = demo.client(node);
        for i in 0..50 {
            assert_eq!(other.ask(&format!("GET k{i}")), format!("v{i}"), "n{node}");
        }
    }
    // Increments through all nodes are exact.
    for round in 0..5 {
        for node in 1..=3 {
            assert_eq!(demo.client(node).ask("INCR hits"), (round * 3 + node).to_string());
        }
    }

    demo.kill(3);
    // A quorum is left: every write is answered, none after a pause that anybody would notice.
    let end = Instant::now() + Duration::from_secs(3);
    let (mut slowest, mut i) = (Duration::ZERO, 0);
    while Instant::now() < end {
        let asked = Instant::now();
        let reply = one.ask(&format!("SET during:{} v", i % 500));
        slowest = slowest.max(asked.elapsed());
        assert_eq!(reply, "OK", "write {i}");
        i += 1;
    }
    assert!(slowest < Duration::from_secs(1), "one of {i} writes took {slowest:?}");

    demo.kill(2);
    until("n1 knows that it is alone", || {
        one.ask("SET lonely v").starts_with("-UNAVAILABLE").then_some(())
    });
    let asked = Instant::now();
    let reply = one.ask("GET k1");
    assert!(reply.starts_with("-UNAVAILABLE QUORUM needs 2 of 3 replicas, 1 is up"), "{reply}");
    assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
    assert_eq!(one.ask("WITH ONE GET k1"), "v1");
    assert_eq!(http(demo.base + 201, "/readyz").unwrap().0, 503);

    let mut three = demo.restart(3);
    let mut client = demo.client(3);
    assert_eq!(client.ask("GET k49"), "v49");
    // What was written while it was away is there, also on itself.
    assert_eq!(client.ask("WITH ONE GET during:7"), "v");
    until("n1 sees it", || (one.ask("SET lonely v") == "OK").then_some(()));
    three.terminate();
    assert!(three.wait().success());
    demo.stop();
}

#[test]
fn the_next_demo_finds_the_data_and_ctrl_c_stops_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    assert_eq!(demo.client(1).ask("SET kept value"), "OK");
    assert_eq!(demo.client(2).ask("INCR hits"), "1");
    demo.stop();
    // Other ports, the same data.
    let mut demo = Demo::start(dir.path());
    assert_eq!(demo.client(3).ask("GET kept"), "value");
    assert_eq!(demo.client(3).ask("INCR hits"), "2");
    let context = std::fs::read_to_string(dir.path().join("ringctl.toml")).unwrap();
    assert!(context.contains(&format!("127.0.0.1:{}", demo.base + 101)), "{context}");
    demo.stop();
}

#[test]
fn nodes_do_not_outlive_a_demo_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let demo = Demo::start(dir.path());
    let configs: Vec<_> = (1..=3).map(|n| demo.config(n).display().to_string()).collect();
    signal("KILL", demo.process.id());
    until("the children are gone", || configs.iter().all(|c| pid_of(c).is_none()).then_some(()));
    // They drained: nobody needs a new life.
    for node in 1..=3 {
        let state = dir.path().join(format!("n{node}/data/node.state"));
        let state = std::fs::read_to_string(state).unwrap();
        assert!(state.contains("clean = true"), "{state}");
    }
}

#[test]
fn a_port_in_use_is_told_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let base = free_base(3);
    let _holder = std::net::TcpListener::bind(("127.0.0.1", base + 2)).unwrap();
    let output = run(&mut command(dir.path(), base));
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        told,
        format!(
            "error: port {port} is in use\n  why: node n2 needs 127.0.0.1:{port}: Address already \
             in use (os error 98)\n  fix: stop what uses it (perhaps another demo), or choose \
             another --base-port than {base}\n",
            port = base + 2
        )
    );
}

#[test]
fn a_second_process_under_a_name_ends_and_the_first_one_does_not_notice() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    assert_eq!(demo.client(1).ask("SET a b"), "OK");
    let mut second = start_command(&dir.path().join("second"), free_port(), free_port());
    second.arg("--config").arg(demo.config(1));
    second.args(["--peer-listen", &format!("127.0.0.1:{}", free_port())]);
    let output = run(&mut second);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    let why = "is connected already, from another address, and speaks";
    for part in ["error: another process runs as node n1\n", "\n  why: ", why, "\n  fix: stop that"]
    {
        assert!(told.contains(part), "no '{part}' in {told}");
    }
    for node in 1..=3 {
        assert_eq!(demo.client(node).ask("WITH ALL SET a c"), "OK", "n{node}");
        assert_eq!(demo.client(node).ask("WITH ALL GET a"), "c", "n{node}");
    }
    demo.stop();
}

#[test]
fn a_transaction_and_a_pipeline_work_through_any_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    for node in 1..=3 {
        let mut client = demo.client(node);
        assert_eq!(client.ask("MULTI"), "OK");
        assert_eq!(client.ask("SET {t}a 1"), "QUEUED");
        assert_eq!(client.ask("INCR {t}n"), "QUEUED");
        assert_eq!(client.ask("EXEC"), format!("[OK, {node}]"));
        for i in 0..500 {
            client.send(&["SET", &format!("p{i}"), &node.to_string()]);
            client.send(&["GET", &format!("p{i}")]);
        }
        for i in 0..500 {
            assert_eq!(text(&client.next().unwrap()), "OK");
            assert_eq!(text(&client.next().unwrap()), node.to_string(), "p{i}");
        }
    }
    demo.stop();
}
