//! Clients that do not behave: what they hear, what they cost, and that others do not notice.

mod crowd;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::support::{Client, Node, text, until};

/// All that the server says to these bytes before it closes the connection.
fn last_words(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    String::from_utf8_lossy(&heard).into_owned()
}

#[test]
fn malformed_requests_end_their_connection_in_the_words_of_redis() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    let mut other = node.client();
    for (bytes, words) in [
        (&b"*1\r\n!4\r\nPING\r\n"[..], "-ERR Protocol error: expected '$', got '!'\r\n"),
        (b"*x\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\n$-7\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$999999999\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"SET a \"b\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
        // What came before is answered before.
        (b"PING\r\n*1\r\n!", "+PONG\r\n-ERR Protocol error: expected '$', got '!'\r\n"),
    ] {
        assert_eq!(last_words(node.port, bytes), words, "{}", bytes.escape_ascii());
    }
    assert_eq!(other.ask("PING"), "PONG");
}

#[test]
fn a_command_may_come_byte_by_byte_and_a_large_value_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    let mut client = node.client();
    for byte in b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n" {
        client.stream.write_all(&[*byte]).unwrap();
        client.stream.flush().unwrap();
    }
    assert_eq!(text(&client.next().unwrap()), "OK");
    let value = "x".repeat(3 << 20);
    client.send(&["SET", "large", &value]);
    assert_eq!(text(&client.next().unwrap()), "OK");
    assert_eq!(client.ask("STRLEN large"), (3 << 20).to_string());
    client.send(&["GET", "large"]);
    assert_eq!(text(&client.next().unwrap()), value);
}

#[test]
fn half_open_connections_hear_their_replies_and_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    let mut client = node.client();
    client.send(&["SET", "a", "b"]);
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(text(&client.next().unwrap()), "OK");
    assert_eq!(client.next(), None);
    let mut other = node.client();
    until("only one client is left", || {
        other.ask("INFO clients").contains("connected_clients:1\r\n").then_some(())
    });
}

#[test]
fn a_client_that_never_reads_stops_being_read_and_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    let mut client = node.client();
    let value = "x".repeat(64 << 10);
    assert_eq!(client.ask(&format!("SET large {value}")), "OK");
    let mut deaf = node.client();
    deaf.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    // Some 13 GB of replies are asked for; the server must stop reading long before.
    let asked = b"*2\r\n$3\r\nGET\r\n$5\r\nlarge\r\n".repeat(200_000);
    let refused = deaf.stream.write_all(&asked).is_err();
    assert!(refused, "the server read everything");
    let start = Instant::now();
    assert_eq!(client.ask("PING"), "PONG");
    assert!(start.elapsed() < Duration::from_secs(1));
    let rss = rss_mib(node.process.id());
    assert!(rss < 100, "{rss} MiB");
    // It is not lost: once it reads, everything that was asked is answered.
    assert_eq!(text(&deaf.next().unwrap()).len(), value.len());
}

fn rss_mib(pid: u32) -> u64 {
    rss_kib(pid) >> 10
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn many_idle_connections_cost_little_and_too_many_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start_with(dir.path(), &["--redis-maxclients", "3000"]);
    let mut first = node.client();
    let before = rss_mib(node.process.id());
    let mut crowd = Vec::new();
    ringdb_node::limits::raise_files();
    for _ in 0..2_000 {
        let mut client = Client::connect(node.port).unwrap();
        client.send(&["SET", "a", "b"]);
        crowd.push(client);
    }
    for client in &mut crowd {
        assert_eq!(text(&client.next().unwrap()), "OK");
    }
    let cost = rss_mib(node.process.id()).saturating_sub(before);
    assert!(cost < 20, "2,000 idle connections cost {cost} MiB");
    assert_eq!(first.ask("CONFIG SET maxclients 2001"), "OK");
    let refused = last_words(node.port, b"");
    assert_eq!(refused, "-ERR max number of clients reached\r\n");
    drop(crowd);
    until("there is room again", || {
        let mut client = Client::connect(node.port)?;
        client.send(&["PING"]);
        client.next().filter(|r| text(r) == "PONG")
    });
}

#[test]
fn clients_can_be_listed_and_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    let (mut a, mut b) = (node.client(), node.client());
    assert_eq!(b.ask("CLIENT SETNAME victim"), "OK");
    let id = b.ask("CLIENT ID");
    let list = a.ask("CLIENT LIST");
    assert!(list.contains("name=victim"), "{list}");
    assert_eq!(a.ask(&format!("CLIENT KILL ID {id}")), "1");
    assert_eq!(b.next(), None);
    assert_eq!(a.ask("PING"), "PONG");
}

#[test]
fn without_the_password_nothing_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_with(dir.path(), &["--redis-requirepass", "secret"]);
    let mut client = until("the node answers", || Client::connect(node.port));
    assert!(client.ask("GET a").starts_with("-NOAUTH"));
    assert!(client.ask("AUTH wrong").starts_with("-WRONGPASS"));
    assert_eq!(client.ask("AUTH secret"), "OK");
    until("the node serves", || (client.ask("SET a b") == "OK").then_some(()));
}
