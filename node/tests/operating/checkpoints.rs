//! A node that goes back to a checkpoint has what was in it, hears the rest from its peers, and never
//! gives a second write the name of a first.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use client::{
    AdminReply, AdminRequest, CheckpointFacts, Client, ClientError, NodeFacts, Tls, TlsFiles,
};
use tokio::runtime::Runtime;

use crate::support::demo::Demo;
use crate::support::{RINGD, until};

const PATIENCE: Duration = Duration::from_secs(10);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn connect(demo: &Demo, node: u16, who: &str) -> Client {
    let file = |name: String| demo.dir.join("certs").join(name);
    let (ca, cert) = (file("ca.pem".into()), file(format!("{who}.pem")));
    let tls = Tls::load(&TlsFiles { ca, cert, key: file(format!("{who}.key")) }).unwrap();
    Client::connect([format!("127.0.0.1:{}", demo.base + 100 + node)], tls).await.unwrap()
}

pub(super) fn ask(
    demo: &Demo,
    node: u16,
    request: AdminRequest,
) -> Result<AdminReply, ClientError> {
    runtime()
        .block_on(async { connect(demo, node, "admin").await.administer(request, PATIENCE).await })
}

fn checkpoints(reply: Result<AdminReply, ClientError>) -> Vec<CheckpointFacts> {
    match reply {
        Ok(AdminReply::Checkpoints(all)) => all,
        other => panic!("{other:?}"),
    }
}

fn make(demo: &Demo, node: u16, name: &str) -> CheckpointFacts {
    let mut made = checkpoints(ask(demo, node, AdminRequest::MakeCheckpoint { name: name.into() }));
    assert_eq!((made.len(), made[0].name.as_str()), (1, name));
    made.pop().unwrap()
}

fn facts(demo: &Demo, node: u16) -> NodeFacts {
    match ask(demo, node, AdminRequest::Facts) {
        Ok(AdminReply::Facts(facts)) => *facts,
        other => panic!("{other:?}"),
    }
}

/// What a node's copy of a key is, dots and all.
fn digest(demo: &Demo, node: u16, key: String) -> (usize, String) {
    match ask(demo, node, AdminRequest::Copy { key: Bytes::from(key), keyspace: 0 }) {
        Ok(AdminReply::Copy(copy)) => (copy.values.len(), copy.digest),
        other => panic!("{other:?}"),
    }
}

fn data(demo: &Demo, node: u16) -> PathBuf {
    demo.dir.join(format!("n{node}/data"))
}

/// As an operator does it, who keeps the store that was there.
fn put_in_place(checkpoint: &Path, data: &Path) {
    let engine = data.join("engine");
    drop(fs::remove_dir_all(data.join("engine.before")));
    fs::rename(&engine, data.join("engine.before")).unwrap();
    fs::create_dir(&engine).unwrap();
    for entry in fs::read_dir(checkpoint).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), engine.join(entry.file_name())).unwrap();
    }
}

/// The files of a node's log.
fn log_of(demo: &Demo, node: u16) -> BTreeSet<OsString> {
    let all = fs::read_dir(data(demo, node).join("engine")).unwrap();
    let names = all.map(|entry| entry.unwrap().file_name());
    names.filter(|name| Path::new(name).extension().is_some_and(|e| e == "log")).collect()
}

/// How a start ends that cannot be, and what it said.
fn start_in_vain(demo: &Demo, node: u16) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(RINGD);
    let ran = command.args(["start", "--config"]).arg(demo.config(node)).output().unwrap();
    (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

fn set(demo: &Demo, node: u16, keys: std::ops::Range<u32>, value: &str) {
    let mut client = demo.client(node);
    for i in keys {
        assert_eq!(client.ask(&format!("WITH ALL SET k{i} {value}")), "OK");
    }
}

#[test]
fn a_node_that_goes_back_hears_the_rest_and_names_no_write_twice() {
    let dir = tempfile::tempdir().unwrap();
    // So little that what n3 lacks is not in its peers' logs any more, and is sent as state.
    let small = [
        ("RINGDB__ENGINE__MEMTABLE_BYTES", "65536"),
        ("RINGDB__ENGINE__LOG_SEGMENT_BYTES", "65536"),
        ("RINGDB__ENGINE__LOG_RETAIN_BYTES", "0"),
    ];
    let mut demo = Demo::start_in(&dir.path().join("demo"), &small);
    set(&demo, 3, 0..60, "before");
    set(&demo, 3, 60..70, "short-lived");
    assert_eq!(demo.client(3).ask("WITH ALL INCR hits"), "1");
    let made = make(&demo, 3, "first");
    assert!(made.path.ends_with("n3/data/checkpoints/first") && made.bytes > 0, "{made:?}");
    assert!(Path::new(&made.path).is_absolute() || Path::new(&made.path).exists());
    // Writes that n3 names in the life that the checkpoint knows of, and one after it.
    set(&demo, 3, 0..40, "after");
    for i in 60..70 {
        assert_eq!(demo.client(3).ask(&format!("WITH ALL DEL k{i}")), "1");
    }
    assert_eq!(demo.client(3).ask("WITH ALL INCR hits"), "2");
    assert_eq!(demo.client(1).ask("WITH ALL INCR hits"), "3");
    let log = || [1, 2].map(|node| log_of(&demo, node));
    let with_it = log();
    let filler = "x".repeat(8_000);
    let mut i = 0;
    until("their logs go on without it", || {
        i += 1;
        assert_eq!(demo.client(3).ask(&format!("WITH ALL SET filler{} {filler}", i % 20)), "OK");
        log().iter().zip(&with_it).all(|(now, then)| now.is_disjoint(then)).then_some(())
    });
    let lived = facts(&demo, 3).incarnation;
    let checkpoint = data(&demo, 3).join("checkpoints/first");

    demo.kill(3);
    put_in_place(&checkpoint, &data(&demo, 3));
    let mut three = demo.restart(3);
    let mut client = demo.client(3);
    let now = facts(&demo, 3);
    assert!(now.incarnation > lived, "a life that never was");
    for i in 0..60 {
        let value = if i < 40 { "after" } else { "before" };
        assert_eq!(client.ask(&format!("WITH ONE GET k{i}")), value, "k{i}");
    }
    for i in 60..70 {
        assert_eq!(client.ask(&format!("WITH ONE GET k{i}")), "nil", "k{i}");
    }
    assert_eq!(client.ask("WITH ONE GET hits"), "3");
    assert_eq!(client.ask("WITH ALL INCR hits"), "4");
    // What it names now is to all the same.
    set(&demo, 3, 20..60, "anew");
    // However cleanly it ended: the writes of this life are not in the checkpoint.
    three.terminate();
    assert!(three.wait().success());
    put_in_place(&checkpoint, &data(&demo, 3));
    let mut three = demo.restart(3);
    let mut client = demo.client(3);
    let again = facts(&demo, 3).incarnation;
    assert!(again > now.incarnation);
    set(&demo, 3, 0..10, "last");
    for i in 0..60 {
        let value = match i {
            0..10 => "last",
            10..20 => "after",
            _ => "anew",
        };
        assert_eq!(client.ask(&format!("WITH ONE GET k{i}")), value, "k{i}");
        let copies: Vec<_> = (1..=3).map(|n| digest(&demo, n, format!("k{i}"))).collect();
        assert!(copies.iter().all(|c| *c == copies[0] && c.0 == 1), "k{i}: {copies:?}");
    }
    for i in 60..70 {
        assert_eq!(client.ask(&format!("WITH ONE GET k{i}")), "nil", "k{i}");
    }
    assert_eq!(client.ask("WITH ALL INCR hits"), "5");
    assert_eq!(demo.client(1).ask("GET hits"), "5");
    // The store is its own again: the next start is one like any other.
    three.terminate();
    assert!(three.wait().success());
    let mut three = demo.restart(3);
    drop(demo.client(3));
    assert_eq!(facts(&demo, 3).incarnation, again);
    three.terminate();
    assert!(three.wait().success());
    demo.stop();
}

#[test]
fn all_nodes_go_back_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(&dir.path().join("demo"));
    set(&demo, 1, 0..30, "before");
    assert_eq!(demo.client(2).ask("INCR hits"), "1");
    for node in 1..=3 {
        make(&demo, node, "then");
    }
    set(&demo, 2, 0..30, "mistake");
    assert_eq!(demo.client(1).ask("INCR hits"), "2");
    demo.stop();
    for node in 1..=3 {
        put_in_place(&data(&demo, node).join("checkpoints/then"), &data(&demo, node));
    }
    // One of them has lost its disk, and the checkpoint lay elsewhere.
    fs::remove_file(data(&demo, 2).join("node.state")).unwrap();
    let mut demo = Demo::start(&demo.dir.clone());
    for node in 1..=3 {
        let mut client = demo.client(node);
        for i in 0..30 {
            assert_eq!(client.ask(&format!("GET k{i}")), "before", "k{i} of n{node}");
        }
        assert_eq!(client.ask("INCR hits"), (u32::from(node) + 1).to_string());
    }
    demo.stop();
}

#[test]
fn only_administrators_make_checkpoints_and_a_name_is_used_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(&dir.path().join("demo"));
    set(&demo, 1, 0..10, "v");
    let wish = |name: &str| AdminRequest::MakeCheckpoint { name: name.into() };
    let refused = runtime().block_on(async {
        connect(&demo, 1, "client").await.administer(wish("a"), PATIENCE).await.unwrap_err()
    });
    assert!(matches!(refused, ClientError::Unauthorised { .. }), "{refused}");
    assert!(checkpoints(ask(&demo, 1, AdminRequest::Checkpoints)).is_empty());
    // What a process left that was killed over it.
    let place = data(&demo, 1).join("checkpoints");
    fs::create_dir_all(place.join(".half")).unwrap();
    make(&demo, 1, "b");
    make(&demo, 1, "a");
    let all = checkpoints(ask(&demo, 1, AdminRequest::Checkpoints));
    assert_eq!(all.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["b", "a"], "by time");
    for (name, why) in [("a", "is there already"), ("../a", "a name has"), (".half", "a name has")]
    {
        let refused = ask(&demo, 1, wish(name)).unwrap_err();
        assert!(matches!(refused, ClientError::Invalid { .. }), "{refused}");
        let told = refused.told();
        assert!(told.why.contains(why) && !told.fix.is_empty(), "{told}");
    }
    let rm = |name: &str| ask(&demo, 1, AdminRequest::RemoveCheckpoint { name: name.into() });
    assert!(rm("c").unwrap_err().told().why.contains("there is no"));
    assert!(rm("../../data").unwrap_err().told().why.contains("a name has"));
    assert_eq!(checkpoints(rm("a"))[0].name, "a");
    // A stray file is nobody's checkpoint; what two have and the store no longer has is freed by the second.
    fs::write(place.join("b.tar"), "x").unwrap();
    let of_b = || checkpoints(ask(&demo, 1, AdminRequest::Checkpoints)).pop().unwrap();
    let alone = of_b();
    assert_eq!((alone.name.as_str(), alone.own_bytes), ("b", alone.freed_bytes));
    let twin = place.join("twin");
    fs::create_dir(&twin).unwrap();
    for entry in fs::read_dir(place.join("b")).unwrap().map(Result::unwrap) {
        fs::hard_link(entry.path(), twin.join(entry.file_name())).unwrap();
    }
    let shared = checkpoints(ask(&demo, 1, AdminRequest::Checkpoints));
    assert_eq!(shared.len(), 2, "{shared:?}");
    for twin in shared {
        assert_eq!((twin.own_bytes, twin.freed_bytes), (alone.own_bytes, 0));
    }
    assert!(alone.own_bytes > 0);
    fs::remove_dir_all(&twin).unwrap();
    fs::remove_file(place.join("b.tar")).unwrap();
    let left = fs::read_dir(&place).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(left, ["b"]);
    // Another node's is refused before anything is touched.
    let there = place.join("b");
    demo.kill(2);
    put_in_place(&there, &data(&demo, 2));
    let state = fs::read(data(&demo, 2).join("node.state")).unwrap();
    let mark = fs::read(data(&demo, 2).join("engine/CHECKPOINT")).unwrap();
    let (code, said) = start_in_vain(&demo, 2);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("belongs to another node") && said.contains("\n  fix: "), "{said}");
    assert_eq!(fs::read(data(&demo, 2).join("node.state")).unwrap(), state);
    assert_eq!(fs::read(data(&demo, 2).join("engine/CHECKPOINT")).unwrap(), mark);
    demo.stop();
}
