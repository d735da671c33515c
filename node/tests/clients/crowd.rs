//! Ten thousand idle clients: what they cost, and that a busy one does not notice them.

use std::io::Write;
use std::time::{Duration, Instant};

use super::rss_kib;
use crate::support::{Client, Node, text, until};

const CROWD: usize = 10_000;

/// Files of the node beside those of its clients, and of the tests that run beside this one.
const FILES_BESIDE: u64 = 1_500;

/// What an idle client may cost, its share of the node's tables and buffers included.
const CLIENT_BYTES_MAX: u64 = 8 << 10;

/// Round trips of one busy client, sorted.
fn round_trips(client: &mut Client, count: usize) -> Vec<Duration> {
    let mut took: Vec<Duration> = (0..count)
        .map(|i| {
            let start = Instant::now();
            assert_eq!(client.ask(&format!("SET busy:{i} value")), "OK");
            start.elapsed()
        })
        .collect();
    took.sort();
    took
}

#[test]
fn ten_thousand_idle_clients_cost_little_and_a_busy_one_does_not_notice() {
    // The clients live in this process and their other ends in the node's: each must hold them all.
    let files = ringdb_node::limits::raise_files();
    if files < CROWD as u64 + FILES_BESIDE {
        eprintln!(
            "SKIPPED: ten thousand clients: a process may open {files} files here, and this takes {} \
             (raise the hard limit: ulimit -Hn)",
            CROWD as u64 + FILES_BESIDE
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let most = (CROWD + 10).to_string();
    // What the engine keeps of their writes is not theirs: little, so that it cannot pass for it.
    let engine = ["--engine-memtable-bytes", "1048576"];
    let args = [&["--redis-maxclients", most.as_str()][..], &engine].concat();
    let mut node = Node::start_with(dir.path(), &args);
    let mut busy = node.client();
    round_trips(&mut busy, 500);
    let alone = round_trips(&mut busy, 2_000);
    let before = rss_kib(node.process.id());

    // Everyone has been busy once: a hundred commands in one write.
    let mut crowd: Vec<Client> = Vec::with_capacity(CROWD);
    let burst = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n".repeat(100);
    while crowd.len() < CROWD {
        let from = crowd.len();
        for _ in 0..100 {
            let mut client = Client::connect(node.port).unwrap();
            client.stream.write_all(&burst).unwrap();
            crowd.push(client);
        }
        for client in &mut crowd[from..] {
            assert!((0..100).all(|_| text(&client.next().unwrap()) == "OK"));
            client.forget_buffer();
        }
    }
    let clients = busy.ask("INFO clients");
    assert!(clients.contains(&format!("connected_clients:{}\r\n", CROWD + 1)), "{clients}");

    // Buffers are given back after a while of silence, and the allocator returns them when it is used.
    let mut costs: Vec<u64> = Vec::new();
    let lowest = until("what the silent clients cost does not fall any more", || {
        busy.ask("PING");
        let more = rss_kib(node.process.id()).saturating_sub(before) * 1_024;
        costs.push(more / CROWD as u64);
        let lowest = costs.iter().copied().min()?;
        let fell = costs.iter().position(|cost| *cost == lowest)?;
        // Where much else runs it takes longer: until then it is no answer.
        let patience = if lowest < CLIENT_BYTES_MAX { 800 } else { 3_000 };
        (costs.len() - fell > patience || lowest < CLIENT_BYTES_MAX / 2).then_some(lowest)
    });
    assert!(lowest < CLIENT_BYTES_MAX, "an idle client costs {lowest} bytes");
    let crowded = round_trips(&mut busy, 2_000);
    let (p50, p99) =
        (|all: &[Duration]| all[all.len() / 2], |all: &[Duration]| all[all.len() * 99 / 100]);
    println!(
        "an idle client costs {lowest} bytes; a busy one waits {:?} (p99 {:?}) alone and {:?} (p99 {:?}) \
         beside {CROWD} idle ones",
        p50(&alone),
        p99(&alone),
        p50(&crowded),
        p99(&crowded)
    );
    // Other work on the machine moves both; ten thousand times the work would move one.
    assert!(p50(&crowded) < 3 * p50(&alone) + Duration::from_millis(2));

    // They are idle and not lost.
    for client in crowd.iter_mut().step_by(97) {
        assert_eq!(client.ask("GET a"), "b");
    }
}

#[test]
fn announced_values_cost_what_has_come_and_not_what_was_announced() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    let mut other = node.client();
    let before = rss_kib(node.process.id());
    // Each announces eight megabytes, sends a few bytes of it and says nothing more.
    let mut stalled: Vec<Client> = Vec::new();
    for _ in 0..200 {
        let mut client = Client::connect(node.port).unwrap();
        let head = format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n${}\r\nxxxx", 8 << 20);
        client.stream.write_all(head.as_bytes()).unwrap();
        stalled.push(client);
    }
    until("all have come", || {
        let all = other.ask("INFO clients").contains("connected_clients:201\r\n");
        all.then_some(())
    });
    for _ in 0..1_000 {
        assert_eq!(other.ask("SET b c"), "OK");
    }
    let cost = rss_kib(node.process.id()).saturating_sub(before);
    assert!(cost < 40 << 10, "200 clients that announced 8 MiB each cost {cost} KiB");
    // Whoever goes on is served.
    let rest = "y".repeat((8 << 20) - 4);
    stalled[7].stream.write_all(rest.as_bytes()).unwrap();
    stalled[7].stream.write_all(b"\r\n").unwrap();
    assert_eq!(text(&stalled[7].next().unwrap()), "OK");
    assert_eq!(other.ask("STRLEN a"), (8 << 20).to_string());
}
