//! Terms of keyspaces that are set while a cluster runs.

use std::time::Duration;

use client::{
    AdminReply, AdminRequest, Client, ClientError, KeyspaceChange, KeyspaceChanged, KeyspaceFacts,
    Tls, TlsFiles,
};

use crate::support::demo::Demo;
use crate::support::until;

const PATIENCE: Duration = Duration::from_secs(5);

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn connect(demo: &Demo, node: u16, who: &str) -> Client {
    let file = |name: String| demo.dir.join("certs").join(name);
    let (ca, cert) = (file("ca.pem".into()), file(format!("{who}.pem")));
    let tls = Tls::load(&TlsFiles { ca, cert, key: file(format!("{who}.key")) }).unwrap();
    Client::connect([format!("127.0.0.1:{}", demo.base + 100 + node)], tls).await.unwrap()
}

/// Asks a node for other terms.
async fn try_change(
    demo: &Demo,
    node: u16,
    change: KeyspaceChange,
) -> Result<KeyspaceChanged, ClientError> {
    let client = connect(demo, node, "admin").await;
    match client.administer(AdminRequest::Keyspace(Box::new(change)), PATIENCE).await? {
        AdminReply::Keyspace(changed) => Ok(*changed),
        other => panic!("{other:?}"),
    }
}

fn change(demo: &Demo, node: u16, change: KeyspaceChange) -> KeyspaceChanged {
    block_on(try_change(demo, node, change)).unwrap()
}

/// What a node says of a keyspace, if it has terms of its own.
fn told(demo: &Demo, node: u16, name: &str) -> Option<KeyspaceFacts> {
    block_on(async {
        let client = connect(demo, node, "admin").await;
        match client.administer(AdminRequest::Facts, PATIENCE).await.unwrap() {
            AdminReply::Facts(facts) => facts.keyspaces.into_iter().find(|k| k.name == name),
            other => panic!("{other:?}"),
        }
    })
}

fn of(name: &str) -> KeyspaceChange {
    KeyspaceChange { name: name.into(), ..KeyspaceChange::default() }
}

fn write_at(level: &str) -> KeyspaceChange {
    KeyspaceChange { write: Some(level.into()), ..of("4") }
}

#[test]
fn what_is_set_through_one_node_holds_at_all_and_before_a_node_that_was_down_serves() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(&dir.path().join("demo"));
    let mut n2 = demo.client(2);
    assert_eq!(n2.ask("SELECT 4"), "OK");
    let changed = change(&demo, 1, KeyspaceChange { durability: Some("sync".into()), ..of("4") });
    assert_eq!((changed.before.durability.as_str(), changed.before.set), ("os", false));
    assert_eq!((changed.after.durability.as_str(), changed.after.set), ("sync", true));
    assert_eq!(changed.after.by, "admin");
    assert_eq!(changed.held, ["n1", "n2", "n3"]);
    assert_eq!(n2.ask("SET a 1"), "OK");

    // One is down; two are enough for the default, and not for what is set now.
    demo.kill(3);
    until("the others notice", || {
        (n2.ask("WITH ALL SET a 1").starts_with("-UNAVAILABLE")).then_some(())
    });
    assert_eq!(n2.ask("SET a 2"), "OK");
    let changed = change(&demo, 1, write_at("all"));
    assert_eq!(
        (changed.held, changed.missing),
        (vec!["n1".into(), "n2".into()], vec!["n3".to_owned()])
    );
    let refused = n2.ask("SET a 3");
    assert!(refused.starts_with("-UNAVAILABLE ALL needs 3 of 3"), "{refused}");
    assert_eq!(n2.ask("SELECT 5"), "OK");
    assert_eq!(n2.ask("SET a 3"), "OK", "other databases go on");

    // Whoever was asked dies with the acknowledgement, and has it when it comes back.
    demo.kill(1);
    let state = std::fs::read_to_string(demo.dir.join("n1/data/node.state")).unwrap();
    assert!(state.contains("[keyspaces.4") && state.contains("write = \"ALL\""), "{state}");
    let returned = [demo.restart(3), demo.restart(1)];
    for node in [3, 1] {
        let mut client = demo.client(node);
        // It serves from now on, and knows.
        let facts = told(&demo, node, "4").expect("it was set");
        assert_eq!((facts.write.as_str(), facts.version), ("ALL", 2), "n{node}");
        assert_eq!(client.ask("SELECT 4"), "OK");
        until("all are there again", || (client.ask("SET a 4") == "OK").then_some(()));
    }

    // What is given back is as the configuration says, everywhere.
    let changed = change(&demo, 2, KeyspaceChange { remove: true, ..of("4") });
    assert_eq!((changed.before.write.as_str(), changed.after.write.as_str()), ("ALL", "QUORUM"));
    assert!(!changed.after.set && changed.missing.is_empty(), "{changed:?}");
    for node in 1..=3 {
        assert_eq!(told(&demo, node, "4"), None, "n{node}");
    }
    drop(returned);
    demo.stop();
}

#[test]
fn keys_that_are_not_told_live_as_long_as_their_keyspace_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(&dir.path().join("demo"));
    let mut n2 = demo.client(2);
    assert_eq!(n2.ask("SELECT 4"), "OK");
    assert_eq!(n2.ask("SET before 1"), "OK");
    change(&demo, 1, KeyspaceChange { ttl_ms: Some(100_000), ..of("4") });
    let mut lives = |command: &str, key: &str, expected: &str| {
        let reply = n2.ask(command);
        assert!(!reply.starts_with('-'), "{command}: {reply}");
        let left = n2.ask(&format!("TTL {key}"));
        let (left, expected): (i64, i64) = (left.parse().unwrap(), expected.parse().unwrap());
        // Some seconds may have passed.
        let fine = left == expected || expected > 0 && (expected - 9..expected).contains(&left);
        assert!(fine, "after {command} it lives for {left} s, not {expected}");
    };
    for (command, key, expected) in [
        ("GET before", "before", "-1"),
        ("SET a 1", "a", "100"),
        ("SET a 1 EX 50", "a", "50"),
        ("SET a 2 KEEPTTL", "a", "50"),
        ("APPEND a 2", "a", "50"),
        ("INCR a", "a", "50"),
        ("GETSET a 3", "a", "100"),
        ("PERSIST a", "a", "-1"),
        ("INCR a", "a", "-1"),
        ("SET a 4 KEEPTTL", "a", "-1"),
        ("SET a 5", "a", "100"),
        ("SETNX b 1", "b", "100"),
        ("SETEX c 50 1", "c", "50"),
        ("INCR d", "d", "100"),
        ("EXPIRE d 50", "d", "50"),
        ("INCRBY d 4", "d", "50"),
        ("INCRBYFLOAT e 1.5", "e", "100"),
        ("APPEND f x", "f", "100"),
        ("SETRANGE g 1 x", "g", "100"),
        ("SET h 1 KEEPTTL", "h", "100"),
        ("MSET i 1 j 2", "j", "100"),
        ("INCR before", "before", "-1"),
        ("DEL d", "d", "-2"),
        ("DECRBY d -3", "d", "100"),
    ] {
        lives(command, key, expected);
    }
    change(&demo, 3, KeyspaceChange { ttl_ms: Some(0), ..of("4") });
    lives("SET a 6", "a", "-1");
    lives("GET b", "b", "100");

    // The same from programs.
    change(&demo, 3, KeyspaceChange { ttl_ms: Some(100_000), ..of("0") });
    block_on(async {
        let program = connect(&demo, 1, "client").await;
        program.put("p", "1").await.unwrap();
        program.put("q", "1").ttl(Duration::from_secs(50)).await.unwrap();
        program.counter("r").add(1).await.unwrap();
        let read = program.get("s").await.unwrap();
        program.put("s", "1").context(read.context()).await.unwrap();
    });
    assert_eq!(n2.ask("SELECT 0"), "OK");
    for (key, expected) in [("p", 100), ("q", 50), ("r", 100), ("s", 100)] {
        let left: i64 = n2.ask(&format!("TTL {key}")).parse().unwrap();
        assert!((expected - 5..=expected).contains(&left), "{key} lives for {left}");
    }
    demo.stop();
}

#[test]
fn what_cannot_be_is_refused_and_of_two_changes_at_once_one_holds_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(&dir.path().join("demo"));
    block_on(async {
        let visitor = connect(&demo, 1, "client").await;
        let wish = AdminRequest::Keyspace(Box::new(write_at("all")));
        let refused = visitor.administer(wish, PATIENCE).await.unwrap_err();
        assert!(matches!(refused, ClientError::Unauthorised { .. }), "{refused}");
        for (wish, what, why) in [
            (of("16"), "there is no keyspace \"16\"", "the databases 0 to 15"),
            (of("x"), "there is no keyspace \"x\"", "the databases 0 to 15"),
            (write_at("ANY"), "cannot have these terms", "use ONE"),
            (write_at("many"), "cannot have write \"many\"", "use ONE, TWO"),
            (write_at("4"), "cannot have these terms", "4 needs 4 copies"),
            (write_at("one"), "is not changed", "with N=3 R=QUORUM W=ONE"),
            (KeyspaceChange { n: Some(2), ..of("4") }, "keeps N=3", "must be closed"),
            (KeyspaceChange { n: Some(4), ..of("4") }, "cannot have N=4", "keeps 3 copies"),
            (KeyspaceChange { n: Some(2), ..of("default") }, "keeps N=3", "all of them"),
            (KeyspaceChange { ttl_ms: Some(u64::MAX), ..of("4") }, "cannot have these", "1 ms to"),
            (KeyspaceChange { version: Some(7), ..write_at("all") }, "is not changed", "version 0"),
        ] {
            let refused = try_change(&demo, 1, wish.clone()).await.unwrap_err().told();
            assert!(
                refused.what.contains(what) && refused.why.contains(why),
                "{wish:?}: {refused}"
            );
            assert!(!refused.fix.is_empty());
        }
    });
    assert_eq!(told(&demo, 1, "4"), None, "nothing was done");
    let plan = change(&demo, 1, KeyspaceChange { dry_run: true, ..write_at("one") });
    assert!(plan.warning.contains("miss") && plan.held.is_empty(), "{plan:?}");
    assert_eq!(plan.after.write, "ONE");
    assert_eq!(told(&demo, 2, "4"), None, "nothing was done");
    let changed = change(&demo, 1, KeyspaceChange { weak: true, ..write_at("one") });
    assert!(changed.warning.contains("may miss") && changed.after.version == 1, "{changed:?}");
    let again = change(&demo, 2, KeyspaceChange { weak: true, ..write_at("one") });
    assert_eq!((again.after.version, again.held.len()), (1, 3), "it is so already");

    // Reads meet writes again, but not those that were acknowledged at ONE before.
    let back = KeyspaceChange { read: Some("all".into()), ..of("4") };
    assert_eq!(change(&demo, 3, back).warning, "");
    let back = KeyspaceChange { read: Some("quorum".into()), ..write_at("quorum") };
    let refused = block_on(try_change(&demo, 3, back)).unwrap_err().told();
    assert!(refused.why.contains("acknowledged at W=ONE before"), "{refused}");

    for round in 0..5 {
        let level = |node: usize| ["all", "two"][(node + round) % 2];
        let (a, b) = block_on(async {
            tokio::join!(
                try_change(&demo, 1, write_at(level(1))),
                try_change(&demo, 2, write_at(level(2)))
            )
        });
        for outcome in [&a, &b] {
            let fine = matches!(outcome, Ok(_) | Err(ClientError::Conflict { .. }));
            assert!(fine, "{outcome:?}");
        }
        assert!(a.is_ok() || b.is_ok(), "one of them holds: {a:?}, {b:?}");
        let all = until("all hold the same", || {
            let all = [1, 2, 3].map(|node| told(&demo, node, "4").unwrap());
            (all[0] == all[1] && all[1] == all[2]).then_some(all)
        });
        let held = |outcome: &Result<KeyspaceChanged, _>| {
            outcome.as_ref().is_ok_and(|changed| changed.after == all[0])
        };
        assert!(held(&a) || held(&b), "{a:?}, {b:?}, and {:?} holds", all[0]);
    }
    demo.stop();
}

/// What a node says of a database, all of its slots together: a key, and whether it is busy.
async fn emptiness(client: &Client, keyspace: u16) -> (Option<bytes::Bytes>, bool) {
    let (mut slot, mut key, mut busy) = (0, None, false);
    loop {
        let question = AdminRequest::Empty { keyspace, slot };
        let AdminReply::Empty(told) = client.administer(question, PATIENCE).await.unwrap() else {
            panic!("another answer");
        };
        key = key.or(told.key);
        busy |= told.busy;
        match told.next {
            Some(next) => slot = next,
            None => return (key, busy),
        }
    }
}

#[test]
fn a_closed_keyspace_takes_no_requests_and_an_empty_one_may_have_other_copies() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(&dir.path().join("demo"));
    let mut n2 = demo.client(2);
    assert_eq!(n2.ask("SELECT 4"), "OK");
    assert_eq!(n2.ask("SET gone 1"), "OK");
    assert_eq!(n2.ask("SET soon 1 PX 1"), "OK");
    assert_eq!(n2.ask("DEL gone"), "1");
    assert_eq!(n2.ask("SET here 1"), "OK");
    let wish = KeyspaceChange { close: true, n: Some(1), ..of("4") };
    let closed = change(&demo, 1, wish.clone());
    assert!(closed.after.closed && !closed.after.set && closed.missing.is_empty(), "{closed:?}");
    for command in ["SET a 1", "GET here", "INCR a", "DBSIZE", "SCAN 0"] {
        let refused = n2.ask(command);
        assert!(refused.starts_with("-OVERLOADED retry_after_ms=200"), "{command}: {refused}");
    }
    assert!(told(&demo, 3, "4").unwrap().closed, "it is shown, though it has no terms of its own");
    let found = |node| block_on(async { emptiness(&connect(&demo, node, "admin").await, 4).await });
    until("nothing is under way", || (!found(1).1).then_some(()));
    assert_eq!(found(1).0.as_deref(), Some(&b"here"[..]));

    // It is given back as it was; then it is emptied, closed, and has one copy.
    let version = Some(closed.after.version);
    let others = block_on(try_change(&demo, 3, write_at("all"))).unwrap_err().told();
    assert!(others.why.contains("its number of copies is being changed"), "{others}");
    let back = KeyspaceChange { remove: true, finish: true, version, ..of("4") };
    assert!(!change(&demo, 3, back).after.closed);
    assert_eq!(n2.ask("GET here"), "1");
    assert_eq!(n2.ask("DEL here"), "1");
    let closed = change(&demo, 1, wish);
    for node in 1..=3 {
        until("there is nothing", || (found(node) == (None, false)).then_some(()));
    }
    // Another number of copies is for the node that drives it, and for nobody else.
    let version = Some(closed.after.version);
    let one = KeyspaceChange { n: Some(1), finish: true, version, ..of("4") };
    let refused = block_on(try_change(&demo, 2, one)).unwrap_err().told();
    assert!(refused.what.contains("keeps N=3"), "{refused}");
    let back = KeyspaceChange { remove: true, finish: true, version, ..of("4") };
    assert!(!change(&demo, 3, back).after.closed);
    let changed = change(&demo, 2, KeyspaceChange { n: Some(1), drive: true, ..of("4") });
    assert!(
        (changed.before.n, changed.after.n, changed.after.closed) == (3, 1, false),
        "{changed:?}"
    );
    assert_eq!(changed.held, ["n1", "n2", "n3"]);
    for i in 0..30 {
        assert_eq!(n2.ask(&format!("SET key:{i} {i}")), "OK");
    }
    let mut n3 = demo.client(3);
    assert_eq!(n3.ask("SELECT 4"), "OK");
    for i in 0..30 {
        assert_eq!(n3.ask(&format!("GET key:{i}")), i.to_string());
    }
    assert_eq!(n3.ask("DBSIZE"), "30");
    // It is not empty any more.
    let three = KeyspaceChange { n: Some(3), drive: true, ..of("4") };
    let refused = block_on(try_change(&demo, 1, three)).unwrap_err().told();
    assert!(refused.why.contains("holds its key \"key:"), "{refused}");
    assert_eq!(n3.ask("GET key:7"), "7", "it is open again, as it was");
    // To give it back would be another N.
    let rm = KeyspaceChange { remove: true, ..of("4") };
    let refused = block_on(try_change(&demo, 2, rm)).unwrap_err().told();
    assert!(refused.what.contains("keeps N=1"), "{refused}");

    // While one is away nothing is closed.
    demo.kill(3);
    let mut n1 = demo.client(1);
    until("n1 notices", || n1.ask("WITH ALL SET x 1").starts_with("-UNAVAILABLE").then_some(()));
    let wish = KeyspaceChange { close: true, n: Some(2), ..of("5") };
    let refused = block_on(try_change(&demo, 1, wish)).unwrap_err().told();
    assert!(refused.why.contains("n3 must say that it holds no key"), "{refused}");
    demo.stop();
}

#[test]
fn other_copies_need_nobody_who_waits_for_them_and_a_keyspace_left_closed_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(&dir.path().join("demo"));
    // Whoever asked is gone as soon as the node has begun.
    for (node, n) in [(1, 2), (2, 1), (3, 3)] {
        block_on(async {
            let gone = connect(&demo, node, "admin").await;
            let wish = KeyspaceChange { n: Some(n), drive: true, weak: true, ..of("4") };
            let wish = AdminRequest::Keyspace(Box::new(wish));
            let asks = gone.administer(wish, PATIENCE);
            let watch = async {
                let other = connect(&demo, node, "admin").await;
                loop {
                    let facts = other.administer(AdminRequest::Facts, PATIENCE).await.unwrap();
                    let AdminReply::Facts(facts) = facts else { panic!("{facts:?}") };
                    let of = facts.keyspaces.into_iter().find(|k| k.name == "4");
                    if of.is_some_and(|k| k.closed || k.n == n) {
                        return;
                    }
                }
            };
            // The watcher's end drops the request.
            tokio::select! { biased; () = watch => {}, _ = asks => {} }
            gone.close().await;
        });
        for at in 1..=3 {
            until("it has other copies", || {
                told(&demo, at, "4").filter(|k| k.n == n && !k.closed && k.set)
            });
        }
    }

    // A node that closed it and died opens it when it is back: nobody else could have changed it.
    let closed = change(&demo, 1, KeyspaceChange { close: true, ..of("4") });
    assert!(closed.after.closed && closed.missing.is_empty(), "{closed:?}");
    demo.kill(1);
    assert!(told(&demo, 2, "4").unwrap().closed);
    let returned = demo.restart(1);
    for at in 1..=3 {
        let open = until("it is open", || told(&demo, at, "4").filter(|k| !k.closed));
        assert_eq!((open.n, open.set), (3, true), "as it was");
    }
    let mut n2 = demo.client(2);
    assert_eq!((n2.ask("SELECT 4"), n2.ask("SET a 1")), ("OK".into(), "OK".into()));
    drop(returned);
    demo.stop();
}
