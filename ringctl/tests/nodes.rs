//! Members and slots, as a person reads them.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::fake::*;
use crate::stage::*;

#[test]
fn bash_completes_names_of_nodes_from_the_cluster_and_all_else_as_before() {
    let stage = Stage::three();
    let complete = |words: &[&str]| {
        let program = env!("CARGO_BIN_EXE_ringctl");
        let script = format!(
            "source <({program} completions bash); COMP_WORDS=({program} {}); COMP_CWORD={}; \
             _ringctl_or_nodes {program} \"${{COMP_WORDS[COMP_CWORD]}}\" \
             \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; echo \"${{COMPREPLY[*]}}\"",
            words.join(" "),
            words.len()
        );
        let mut bash = std::process::Command::new("bash");
        bash.args(["-c", &script]).current_dir(stage.dir.path());
        let output = bash.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete(&["node", "show", "''"]), "n1 n2 n3");
    assert_eq!(complete(&["node", "drain", "n2"]), "n2");
    assert_eq!(complete(&["status", "--node", "n"]), "n1 n2 n3");
    assert_eq!(complete(&["ring", "slots", "--of", "n"]), "n1 n2 n3");
    assert_eq!(complete(&["checkpoint", "create", "n"]), "n1 n2 n3");
    assert_eq!(complete(&["ring", "slots", "--of", "r"]), "", "a node is no file");
    assert_eq!(complete(&["ctx", "use", "d"]), "demo");
    assert_eq!(complete(&["status", "--context", "''"]), "demo");
    assert_eq!(complete(&["--config", "nowhere.toml", "ctx", "use", "d"]), "");
    let config = stage.dir.path().join("ringdb-demo/ringctl.toml");
    let config = config.to_str().unwrap();
    assert_eq!(complete(&["--config", config, "node", "show", "n3"]), "n3");
    assert_eq!(complete(&["--config", "nowhere.toml", "node", "show", "n"]), "");
    assert_eq!(complete(&["node", "dr"]), "drain");
    assert!(complete(&["node", "show", "--ver"]).contains("--ver"), "options stay");
}

#[test]
fn members_are_listed_by_their_own_words() {
    let mut stage = Stage::three();
    stage.change(|status| lose(status, &["n3"]));
    drop(stage.nodes.remove(2));
    let address = stage.status.lock().unwrap().nodes[2].address.clone();
    let ran = stage.run("node ls");
    assert_eq!(
        ran.out.replace(&address, "127.0.0.1:N3000"),
        "\
\x20    NODE  ZONE  ADDRESS          STATE   VERSION  UP FOR  OPS/S     MEMORY       LOAD  DISK FREE  FILES
UN   n1    a     127.0.0.1:N1000  normal  0.1.0     2h05m  4,321  200.0 MiB  105.0 MiB      60.0%     40
UN   n2    b     127.0.0.1:N2000  normal  0.1.0     2h05m  4,321  200.0 MiB  105.0 MiB      60.0%     40
DN   n3    c     127.0.0.1:N3000  down    nothing answers there
"
    );
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let json: serde_json::Value = serde_json::from_str(&stage.run("node ls -o json").out).unwrap();
    assert_eq!(json["schema"], "ringctl/v1");
    assert_eq!(json["nodes"][0]["memory_bytes"], 200 << 20);
    assert_eq!(json["nodes"][2]["memory_bytes"], serde_json::Value::Null);
    assert_eq!(json["nodes"][2]["error"], "nothing answers there");

    let ran = stage.run("node show n3");
    assert_eq!(ran.code, 3);
    assert!(ran.err.starts_with("error: n3 says nothing: cannot reach a node at "), "{ran:?}");
    assert_eq!(ran.err.lines().count(), 3);
}

#[test]
fn what_is_read_can_be_watched() {
    let stage = Stage::three();
    for line in [
        "node ls --watch=20ms -o jsonl",
        "hot --watch=20ms -o csv",
        "keyspace ls --watch=20ms -o jsonl",
        "ring balance --watch=20ms",
        "ring map --watch=20ms",
        "doctor --watch=20ms",
        "node show n1 -o jsonl --watch=20ms",
    ] {
        let mut child = stage.command(line).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(
            lines.take(7).filter(|line| line.is_ok()).count(),
            7,
            "more than one picture: {line}"
        );
        // The reader is gone by now, so it may have ended by itself.
        drop(child.kill());
        child.wait().unwrap();
    }
}

#[test]
fn one_member_tells_all_that_it_knows_of_itself() {
    let stage = Stage::three();
    for name in ["n2", "2", &stage.nodes[1].address()] {
        let ran = stage.run(&format!("node show {name}"));
        let (page, clock) = ran.out.split_at(ran.out.find("clock").unwrap());
        assert_eq!(
            page,
            "\
node       n2   number 2, life 1, zone b
state      normal
program    ringd 0.1.0, process 4002, 2 cores, up for 2h05m
listens    redis 10.0.0.2:6379, QUIC 10.0.0.2:7400, HTTP -
settings   /etc/ringdb/n2.toml
used       0ms of processor time, 200.0 MiB of memory, 40 of 20,000 files
clients    12 of 10,000, 4,321 operations a second
refused    3 unavailable, 0 unconfirmed, 0 overloaded
ring       version 1, owns 33.3%
copies     5 repaired by reads, 0 writes known to be missing
store      /var/lib/ringdb/n2: 41.0 MiB in 7 tables, 0 B large values, 64.0 MiB log
memory     5.0 MiB not in tables yet, 100.0 MiB of blocks
behind     flush and compaction 2.0%, 0 damaged places
disk       60.0 GiB free of 100.0 GiB (60.0%)
"
            .replace("used       0ms", page.lines().nth(5).unwrap().split(" of ").next().unwrap())
        );
        assert!(clock.starts_with("clock      ") && clock.ends_with(" ms\n"), "{clock}");
    }
}

#[test]
fn a_node_is_drained_only_if_somebody_means_it_and_the_others_can_do_without() {
    let stage = Stage::three();
    let ran = stage.run("node drain n2");
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (
            2,
            "error: nothing was done: drain n2, whose process ends then\n  \
             why: there is no terminal at which you could be asked\n  \
             fix: say that you mean it with --yes\n"
        )
    );
    // This node says that it drains, and goes on answering.
    let ran = stage.run("node drain n2 --yes --timeout 300ms");
    assert_eq!(ran.code, 6);
    assert!(ran.err.starts_with("error: n2 drains, and has not ended yet\n"), "{ran:?}");
    stage.change(|status| lose(status, &["n3"]));
    let ran = stage.run("node drain n2 --yes");
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (
            1,
            "error: n2 is not drained\n  \
             why: n3 not ready: without n2 too, some slots may have no quorum\n  \
             fix: bring them back first, or say --even-if-degraded\n"
        )
    );
}

#[test]
fn who_is_no_administrator_is_told_so() {
    let mut stage = Stage::three();
    stage.nodes.clear();
    let status = stage.status.clone();
    let address = {
        let told = status.clone();
        let node = FakeNode::start(&node(&stage.ca, 1), 1, move |_, request| {
            Answer::Say(match request {
                wire::ClientRequest::Status => {
                    let mut status = told.lock().unwrap().clone();
                    status.nodes.truncate(1);
                    wire::ClientReply::Status(status)
                }
                _ => error(wire::ErrorCode::Unauthorised),
            })
        });
        status.lock().unwrap().nodes[0].address = node.address();
        let address = node.address();
        stage.nodes.push(node);
        address
    };
    let ran = stage.run(&format!("node ls --node {address}"));
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (7, "error: it failed\n  why: of this\n  fix: do that\n")
    );
}

#[test]
fn the_ring_is_drawn_listed_and_weighed() {
    let stage = Stage::three();
    let map = stage.run("ring map");
    let lines: Vec<_> = map.out.lines().collect();
    assert_eq!(
        lines[0],
        "ring v1   16384 slots, each kept by 3 nodes   one letter: 64 slots, by the node that most \
         are first in"
    );
    assert!(lines[1].starts_with("    0  A") && lines[4].starts_with("12288  "), "{map:?}");
    assert!(lines[1..5].iter().all(|line| line.len() == 7 + 64), "{map:?}");
    assert_eq!(
        lines[5..],
        [
            "   NODE  ZONE  FIRST IN  KEEPS  STATE",
            "A  n1    a         5462  16384  up",
            "B  n2    b         5461  16384  up",
            "C  n3    c         5461  16384  up",
        ]
    );
    let ran = stage.run("ring slots --slot 100");
    assert_eq!(
        ran.out,
        "\
FROM   TO  SLOTS  KEPT BY, THE PREFERRED COORDINATOR FIRST
\x20  0  340    341  n1 n2 n3
"
    );
    let csv = stage.run("ring slots -o csv").out;
    assert!(
        csv.starts_with("from,to,slots,nodes\n0,340,341,\"[\"\"n1\"\",\"\"n2\"\",\"\"n3\"\"]\"\n")
    );
    let total: u32 =
        csv.lines().skip(1).map(|l| l.split(',').nth(2).unwrap().parse::<u32>().unwrap()).sum();
    assert_eq!(total, 16_384, "every slot is in one range");
    assert_eq!(
        stage.run("ring balance").out,
        "\
NODE  ZONE  WEIGHT  KEEPS   FAIR  RATIO  FIRST IN  FAIR  RATIO
n1    a        100  16384  16384  1.000      5462  5461  1.000
n2    b        100  16384  16384  1.000      5461  5461  1.000
n3    c        100  16384  16384  1.000      5461  5461  1.000
balance: the fullest node keeps 1.000 of its fair share, the busiest coordinates 1.000
"
    );
    let ran = stage.run("ring slots --of n9");
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (
            2,
            "error: no node has the name n9\n  why: the members are n1, n2, n3\n  fix: name one of those\n"
        )
    );
}
