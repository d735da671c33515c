//! What differs from a stock Redis, or cannot be compared with one: greeting, login, INFO, CONFIG,
//! scans of many keys, WAIT, and the words for a cluster's troubles.

use std::collections::BTreeSet;

use commands::{Levels, SessionDefaults};
use replication::op::TaskError;
use replication::{Answer, Request};
use ring::NodeId;
use ring::keyspace::{Durability, Level};

use crate::story::Story;

fn locked() -> Story {
    let mut story =
        Story::with(SessionDefaults { auth_required: true, ..SessionDefaults::default() });
    story.host.passwords.insert("default".to_owned(), b"secret".to_vec());
    story.host.passwords.insert("app".to_owned(), b"pw".to_vec());
    story
}

#[test]
fn errors_send_nobody_to_a_command_that_does_not_exist() {
    let mut story = Story::new();
    for container in
        ["ACL", "CLIENT", "COMMAND", "CONFIG", "LATENCY", "MEMORY", "OBJECT", "SLOWLOG"]
    {
        let unknown = story.says(&format!("{container} NOSUCH"));
        assert_eq!(unknown, format!("-ERR unknown subcommand 'NOSUCH'. Try {container} HELP."));
        let help = story.says(&format!("{container} HELP"));
        assert!(help.contains(&format!(" +{container} <subcommand>")), "{help}");
        assert!(story.says(&format!("{container} HELP x")).starts_with("-ERR wrong number of "));
    }
    let commands = story.says("COMMAND LIST");
    let names: Vec<&str> =
        commands.split(' ').filter(|word| !word.starts_with(['*', '$'])).collect();
    assert!(names.len() > 80, "{commands}");
    let stays = |name: &&&str| !["quit", "reset", "multi", "exec", "discard"].contains(*name);
    for name in names.iter().filter(stays) {
        for rest in ["", " a", " a b", " meet x"] {
            let heard = story.says(&format!("{name}{rest}"));
            for (at, _) in heard.match_indices("ringctl ") {
                let word = heard[at..].split([' ', ';', '.']).nth(1).unwrap_or_default();
                let exists = ["status", "ring", "cert", "version", "completions"].contains(&word);
                assert!(exists, "{name}{rest}: {heard}");
            }
        }
    }
}

#[test]
fn nothing_works_before_the_client_has_said_who_it_is() {
    let mut story = locked();
    assert!(!story.session.is_authenticated());
    story.goes(&[
        ("GET a", "-NOAUTH Authentication required."),
        ("PING", "-NOAUTH Authentication required."),
        ("MULTI", "-NOAUTH Authentication required."),
        ("AUTH wrong", "-WRONGPASS invalid username-password pair or user is disabled."),
        ("AUTH app secret", "-WRONGPASS invalid username-password pair or user is disabled."),
        ("AUTH secret", "+OK"),
        ("ACL WHOAMI", "$7 default"),
        ("GET a", "$-1"),
        ("RESET", "+RESET"),
        ("GET a", "-NOAUTH Authentication required."),
        ("AUTH app pw", "+OK"),
        ("ACL WHOAMI", "$3 app"),
    ]);
    assert!(story.session.is_authenticated());
    let mut story = locked();
    assert!(story.says("HELLO 3").starts_with("-NOAUTH HELLO must be called"));
    assert!(story.says("HELLO 3 AUTH app wrong").starts_with("-WRONGPASS"));
    let hello = story.says("HELLO 3 AUTH app pw SETNAME me");
    assert_eq!(
        hello,
        "%7 $6 server $5 redis $7 version $5 7.2.4 $5 proto :3 $2 id :7 $4 mode $10 standalone $4 \
         role $6 master $7 modules *0"
    );
    assert_eq!(story.says("CLIENT GETNAME"), "$2 me");
}

#[test]
fn a_suffix_of_the_user_name_sets_the_levels_of_the_connection() {
    let mut story = locked();
    assert_eq!(story.says("AUTH app~one~w=all~d=sync pw"), "+OK");
    assert_eq!(story.says("ACL WHOAMI"), "$3 app");
    assert_eq!(
        story.says("CONSISTENCY GET"),
        "*6 $4 read $3 ONE $5 write $3 ALL $10 durability $4 sync"
    );
    story.sends_line("SET k v");
    let Request::Task(task) = &story.takes_submits()[0].request else { panic!("a task") };
    assert_eq!((task.read, task.write), (Some(Level::One), Some(Level::All)));
    assert_eq!(task.durability, Some(Durability::Sync));
    assert!(locked().says("AUTH app~nonsense pw").starts_with("-WRONGPASS"));
}

#[test]
fn levels_hold_for_the_connection_or_for_one_command() {
    let mut story = Story::new();
    let mut asks = |line: &str| {
        story.sends_line(line);
        let submits = story.takes_submits();
        let Request::Task(task) = submits[0].request.clone() else { panic!("a task") };
        story.serves(submits.into_iter().next().expect("one"));
        Levels { read: task.read, write: task.write, durability: task.durability }
    };
    let level = |read, write| Levels { read, write, durability: None };
    assert_eq!(asks("GET a"), Levels::default());
    assert_eq!(asks("WITH ONE GET a"), level(Some(Level::One), Some(Level::One)));
    assert_eq!(
        asks("WITH w=ALL r=2 d=sync SET a 1"),
        Levels {
            durability: Some(Durability::Sync),
            ..level(Some(Level::Count(2)), Some(Level::All))
        }
    );
    assert_eq!(asks("GET a"), Levels::default(), "WITH holds for one command");
    story.hears();
    assert_eq!(story.says("CONSISTENCY READ ONE WRITE local_quorum"), "+OK");
    story.sends_line("with r=all GET a");
    let Request::Task(task) = &story.takes_submits()[0].request else { panic!("a task") };
    assert_eq!((task.read, task.write), (Some(Level::All), Some(Level::LocalQuorum)));

    let mut story = Story::new();
    for (line, begins) in [
        ("WITH", "-ERR wrong number of arguments for 'with' command"),
        ("WITH ONE", "-ERR WITH: no command follows. fix: WITH QUORUM GET key"),
        ("WITH SOON GET a", "-ERR WITH: 'SOON' is no consistency level. fix: "),
        ("WITH w=many GET a", "-ERR WITH: unknown consistency level \"many\": use ONE,"),
        ("WITH ONE WITH TWO GET a", "-ERR WITH inside WITH is not allowed. fix: "),
        ("WITH ANY SET a 1", "-ERR WITH: ANY is not available: "),
        ("CONSISTENCY WRITE SERIAL", "-ERR CONSISTENCY: SERIAL is not available: "),
        ("WITH ONE NOSUCH", "-ERR unknown command 'NOSUCH'"),
        ("WITH ONE GET", "-ERR wrong number of arguments for 'get' command"),
        ("WITH ONE PING", "+PONG"),
        ("CONSISTENCY READ", "-ERR CONSISTENCY takes "),
        ("CONSISTENCY READ SOON", "-ERR CONSISTENCY: unknown consistency level"),
        ("CONSISTENCY QUORUM", "+OK"),
        ("CONSISTENCY DEFAULT", "+OK"),
    ] {
        let heard = story.says(line);
        assert!(heard.starts_with(begins), "{line}: {heard}");
    }
}

#[test]
fn a_cluster_in_trouble_says_what_and_why_and_what_to_do() {
    let missing = vec![NodeId(2), NodeId(3)];
    let (level, needed, copies) = (Level::Quorum, 2, 3);
    for (error, line) in [
        (
            TaskError::Unavailable { level, needed, copies, alive: 1, missing: missing.clone() },
            "-UNAVAILABLE QUORUM needs 2 of 3 replicas, 1 is up (n2, n3 down). Nothing was written. \
             fix: bring one back, or ask with WITH ONE",
        ),
        (
            TaskError::Unconfirmed {
                level,
                needed,
                copies,
                acked: 1,
                missing: missing[1..].to_vec(),
            },
            "-UNCONFIRMED QUORUM needs 2 of 3 acks, 1 came in time (no answer: n3). The write may \
             survive. fix: read it back or retry",
        ),
        (
            TaskError::Overloaded { retry_after_ms: 20 },
            "-OVERLOADED retry_after_ms=20 too much is in flight here. Nothing was done. fix: wait \
             that long and retry, here or on another node",
        ),
        (TaskError::NotReady, "-LOADING RingDB is fetching what it missed from its peers"),
        (TaskError::BadLevel("use ONE".to_owned()), "-ERR use ONE"),
    ] {
        for command in ["SET k v", "MSET k v other v", "DEL k"] {
            let mut story = Story::new();
            story.sends_line(command);
            for submit in story.takes_submits() {
                story.answers(submit.id, Answer::Failed(error.clone()));
            }
            assert_eq!(story.hears_text(), line, "{command}");
            assert!(story.session.is_idle());
        }
    }
}

#[test]
fn a_node_that_is_loading_says_so_even_to_a_ping() {
    let mut story = Story::new();
    story.host.loading = true;
    let loading = "-LOADING RingDB is fetching what it missed from its peers";
    story.goes(&[("PING", loading), ("GET a", loading), ("SELECT 1", "+OK")]);
    story.host.loading = false;
    assert_eq!(story.says("PING"), "+PONG");
}

#[test]
fn scan_walks_every_key_once_and_any_node_can_go_on() {
    let mut story = Story::new();
    let keys: BTreeSet<String> = (0..3_000).map(|n| format!("key:{n}")).collect();
    for key in &keys {
        assert_eq!(story.says(&format!("SET {key} v")), "+OK");
    }
    assert_eq!(story.says("DBSIZE"), ":3000");
    for (count, options) in [(10, ""), (500, ""), (100_000, ""), (50, " MATCH key:1*")] {
        let (mut seen, mut cursor, mut calls) = (Vec::new(), "0".to_owned(), 0);
        loop {
            let heard = story.says(&format!("SCAN {cursor} COUNT {count}{options}"));
            let mut words = heard.split(' ');
            cursor = words.nth(2).expect("a cursor").to_owned();
            let found = words.skip(1).filter(|word| !word.starts_with('$'));
            seen.extend(found.map(str::to_owned));
            calls += 1;
            if cursor == "0" {
                break;
            }
        }
        let wanted: BTreeSet<String> = keys
            .iter()
            .filter(|key| options.is_empty() || key.starts_with("key:1"))
            .cloned()
            .collect();
        assert_eq!(seen.len(), wanted.len(), "no key comes twice");
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), wanted);
        assert!(calls <= 3_000 / count + 1, "{calls} calls with COUNT {count}");
    }
    assert_eq!(story.says("SCAN 0 TYPE hash"), "*2 $1 0 *0");
    assert!(story.says("KEYS key:*").starts_with("*3000 "));
    assert_eq!(story.says("KEYS key:12"), "*1 $6 key:12");
    let drawn: BTreeSet<String> = (0..50).map(|_| story.says("RANDOMKEY")).collect();
    assert!(drawn.len() > 25, "{drawn:?}");
    assert_eq!(story.says("FLUSHALL"), "+OK");
    assert_eq!(story.says("DBSIZE"), ":0");
    assert_eq!(story.says("SCAN 0"), "*2 $1 0 *0");
    // A cursor beyond the last slot ends the walk.
    assert_eq!(story.says("SCAN 18446744073709551615"), "*2 $1 0 *0");
}

#[test]
fn a_flush_asks_only_slots_that_hold_keys_and_can_be_switched_off() {
    let mut story = Story::new();
    story.goes(&[("SET a 1", "+OK"), ("SELECT 3", "+OK"), ("SET b 1", "+OK")]);
    story.sends_line("FLUSHDB");
    let mut flushed = Vec::new();
    loop {
        let submits = story.takes_submits();
        if submits.is_empty() {
            break;
        }
        assert!(submits.len() <= commands::limits::IN_FLIGHT_MAX);
        for submit in submits {
            if let Request::Flush { keyspace, slot, .. } = submit.request {
                flushed.push((keyspace, slot));
            }
            story.serves(submit);
        }
    }
    assert_eq!(flushed, [(3, ring::Slot::of_key(b"b"))]);
    story.hears();
    story.goes(&[("GET b", "$-1"), ("SELECT 0", "+OK"), ("GET a", "$1 1")]);
    let mut story =
        Story::with(SessionDefaults { allow_flush: false, ..SessionDefaults::default() });
    assert!(story.says("FLUSHALL").starts_with("-ERR flushing is switched off"));
}

#[test]
fn wait_counts_the_replicas_beyond_the_coordinator() {
    let mut story = Story::new();
    assert_eq!(story.says("WAIT 1 100"), ":2", "nothing was written yet");
    story.goes(&[("SET a 1", "+OK"), ("WAIT 1 100", ":1"), ("WAIT 2 0", ":2")]);
    story.goes(&[("MSET a 1 b 2", "+OK"), ("GET a", "$1 1")]);
    story.sends_line("WAIT 2 50");
    let submits = story.takes_submits();
    assert_eq!(submits.len(), 2, "a write a slot");
    for (submit, acks) in submits.into_iter().zip([3, 2]) {
        let Request::AwaitAcks { acks: wanted, timeout_ms, .. } = submit.request else {
            panic!("an AwaitAcks")
        };
        assert_eq!((wanted, timeout_ms), (3, 50));
        assert!(submit.timeout_us > 50_000);
        story.answers(submit.id, Answer::Acks(acks));
    }
    assert_eq!(story.hears_text(), ":1");
}

#[test]
fn time_passes_and_keys_vanish() {
    let mut story = Story::new();
    story.goes(&[("SET k v PX 1500", "+OK"), ("PTTL k", ":1500"), ("TTL k", ":2")]);
    story.passes_ms(600);
    story.goes(&[("PTTL k", ":900"), ("GET k", "$1 v")]);
    story.passes_ms(900);
    story.goes(&[("GET k", "$-1"), ("TTL k", ":-2"), ("TIME", "*2 $10 1700000001 $6 500000")]);
}

#[test]
fn info_has_the_fields_that_clients_and_tools_read() {
    let mut story = Story::new();
    story.host.facts.keyspaces = vec![(0, 3, 1), (1, 0, 0)];
    story.host.facts.crdt = vec![("conflicts".to_owned(), "4".to_owned())];
    story.goes(&[
        ("GET k", "$-1"),
        ("NOSUCH", "-ERR unknown command 'NOSUCH', with args beginning with:"),
    ]);
    let info = story.says("INFO everything");
    for field in [
        "# Server redis_version:7.2.4 ",
        " redis_mode:standalone ",
        " loading:0 ",
        " role:master ",
        " connected_slaves:0 ",
        " cluster_enabled:0 ",
        " db0:keys=3,expires=1,avg_ttl=0 ",
        " cmdstat_get:calls=1,usec=0,usec_per_call=0.00,rejected_calls=0,failed_calls=0",
        " errorstat_ERR:count=1 ",
        " keyspace_misses:1 ",
        " maxmemory_policy:noeviction ",
        " # Crdt conflicts:4",
    ] {
        assert!(info.contains(field), "{field} in {info}");
    }
    assert!(!info.contains("db1:"));
    assert!(!story.says("INFO").contains("cmdstat_"));
    let one = story.says("INFO replication");
    assert!(one.contains("# Replication role:master") && !one.contains("# Server"), "{one}");
    assert!(story.says("HELLO 3").starts_with("%7"));
    assert!(story.says("INFO cluster").starts_with("=34 txt:# Cluster cluster_enabled:0"));
    story.goes(&[("CONFIG RESETSTAT", "+OK")]);
    assert!(!story.says("INFO commandstats").contains("cmdstat_get"));
}

#[test]
fn settings_are_shown_and_set_and_unknown_ones_refused() {
    let mut story = Story::new();
    story.goes(&[
        ("CONFIG GET MAXMEM*", "*6 $9 maxmemory $1 0 $16 maxmemory-policy $10 noeviction $17 maxmemory-samples $1 5"),
        ("CONFIG SET timeout 10 hz 20", "+OK"),
        ("CONFIG GET timeout hz", "*4 $2 hz $2 20 $7 timeout $2 10"),
        ("CONFIG SET port 1", "-ERR CONFIG SET failed (possibly related to argument 'port') - can't set immutable config"),
        ("CONFIG SET timeout x", "-ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an integer"),
        ("CONFIG SET nosuch 1", "-ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'"),
    ]);
}

#[test]
fn clients_are_listed_named_and_ended() {
    let mut story = Story::new();
    let other = commands::ClientFacts { id: 9, name: "other".to_owned(), ..story.session.facts() };
    commands::Host::client_is(&mut story.host, &other);
    story.goes(&[
        ("CLIENT SETNAME me", "+OK"),
        ("CLIENT SETINFO lib-name redis-py", "+OK"),
        ("CLIENT SETINFO LIB-VER 8.1", "+OK"),
        ("CLIENT SETINFO lib-colour red", "-ERR Unrecognized option 'lib-colour'"),
        ("CLIENT ID", ":7"),
        (
            "CLIENT MAINT_NOTIFICATIONS ON",
            "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.",
        ),
    ]);
    let info = story.says("CLIENT INFO");
    assert!(info.contains("id=7 ") && info.contains(" name=me "), "{info}");
    assert!(info.contains(" lib-name=redis-py lib-ver=8.1"), "{info}");
    let list = story.says("CLIENT LIST");
    assert!(list.contains("id=7 ") && list.contains("id=9 ") && list.contains("cmd=client|list"));
    assert_eq!(story.says("CLIENT KILL ID 9"), ":1");
    assert_eq!(story.host.killed, [9]);
    assert_eq!(story.says("CLIENT KILL ID 7"), ":0", "it spares itself");
    assert_eq!(story.says("CLIENT KILL ID 7 SKIPME no"), ":1");
    assert!(story.out.close);
}

#[test]
fn commands_describe_themselves() {
    let mut story = Story::new();
    assert_eq!(
        story.says("COMMAND INFO get"),
        "*1 *10 $3 get :2 *2 +readonly +fast :1 :1 :1 *3 +@string +@read +@fast *0 *0 *0"
    );
    let docs = story.says("COMMAND DOCS get nosuch");
    assert_eq!(
        docs,
        "*2 $3 get *6 $7 summary $14 Reads a value. $5 since $5 1.0.0 $5 group $6 string"
    );
    let count = story.says("COMMAND COUNT");
    assert!(story.says("COMMAND").starts_with(&count.replace(':', "*")));
    assert!(story.says("COMMAND DOCS").starts_with('*'));
    assert!(story.says("COMMAND LIST FILTERBY ACLCAT transaction").contains("exec"));
}

#[test]
fn what_a_leaderless_store_never_does_is_refused_with_a_pointer() {
    let mut story = Story::new();
    for line in [
        "REPLICAOF NO ONE",
        "SLAVEOF a 1",
        "SYNC",
        "PSYNC ? -1",
        "FAILOVER",
        "MIGRATE a 1 k 0 100",
        "MOVE k 1",
        "SWAPDB 0 1",
        "SAVE",
        "BGSAVE",
        "BGREWRITEAOF",
        "SHUTDOWN",
        "DEBUG SLEEP 1",
        "MODULE LOAD x",
        "CLUSTER MEET a 1",
    ] {
        let heard = story.says(line);
        assert!(heard.starts_with("-ERR ") && heard.contains(" fix: "), "{line}: {heard}");
    }
    story.goes(&[
        ("CLUSTER KEYSLOT foo", ":12182"),
        ("CLUSTER SLOTS", "-ERR This instance has cluster support disabled"),
        ("MODULE LIST", "*0"),
        ("ROLE", "*3 $6 master :0 *0"),
    ]);
}

#[test]
fn a_key_that_no_record_can_hold_is_refused() {
    let mut story = Story::new();
    let key = vec![b'k'; wire::limits::KEY_BYTES_MAX as usize + 1];
    let heard = story.says_args(&[b"SET", &key, b"v"]);
    assert!(heard.starts_with(b"-ERR key is too long"), "{}", heard.escape_ascii());
    let heard = story.says_args(&[b"SETRANGE", b"k", b"9000000", b"v"]);
    assert_eq!(heard, b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n");
}
