//! A node that drains says what it waits for, and whom it did not wait for to the end.

use std::path::Path;

use crate::support::{Client, Node, http, text, until};

/// A node of which a client wants more than both ends of a connection hold, and reads nothing.
fn unread(dir: &Path) -> (Node, Client) {
    let mut node = Node::start(dir);
    let mut client = node.client();
    client.send(&["SET", "big", &"v".repeat(7 << 20)]);
    assert_eq!(client.next().map(|reply| text(&reply)), Some("OK".to_owned()));
    client.send(&["MGET", "big", "big", "big", "big", "big", "big", "big", "big"]);
    for _ in 0..8 {
        client.send(&["GET", "big"]);
    }
    // The first reply has begun, and cannot end.
    client.stream.peek(&mut [0]).unwrap();
    node.process.terminate();
    (node, client)
}

#[test]
fn a_client_that_reads_nothing_is_waited_for_and_told_of_and_then_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (mut node, client) = unread(dir.path());
    let ready = until("it is told to load balancers", || {
        http(node.http, "/readyz").filter(|(_, body)| body.contains("draining: "))
    });
    assert_eq!(ready.0, 503);
    assert!(ready.1.contains("draining: 0 requests, 1 client\""), "{}", ready.1);
    assert_eq!(
        node.process.wait().code(),
        Some(3),
        "everything is on disk, and somebody was cut off"
    );
    drop(client);
    let log = node.log();
    let told = log.matches("draining: waiting for 0 requests, 1 client\n").count();
    assert!((2..=6).contains(&told), "{told} times: {log}");
    assert!(log.contains("WARN") && log.contains("the drain ran out of time after 5s"), "{log}");
    assert!(log.contains("everything is on disk, but 0 requests, 1 client were cut off"), "{log}");
    assert!(!log.contains("stopped, everything is on disk\n"), "{log}");
}

#[test]
fn a_client_that_reads_in_time_is_not_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (mut node, mut client) = unread(dir.path());
    until("it is told", || node.log().contains("draining: waiting for ").then_some(()));
    let read = std::io::copy(&mut client.stream, &mut std::io::sink()).unwrap();
    assert!(read > 8 * (7 << 20), "what was begun is whole: {read} bytes");
    assert!(node.process.wait().success());
    let log = node.log();
    assert!(!log.contains("ran out of time"), "{log}");
    assert!(log.contains("stopped, everything is on disk\n"), "{log}");
}

#[test]
fn a_drain_that_is_over_at_once_tells_of_no_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    let client = node.client();
    node.process.terminate();
    assert!(node.process.wait().success());
    drop(client);
    let log = node.log();
    assert!(!log.contains("waiting for"), "{log}");
    assert!(log.contains("stopped, everything is on disk\n"), "{log}");
}
