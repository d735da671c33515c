//! What a person reads about a cluster, and what a program does.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use ring::Slot;

use crate::stage::*;

/// Ports of four digits make columns narrower; the stories are written for five.
fn wide_ports(stage: &Stage) -> bool {
    stage.nodes.iter().all(|node| node.address.port() > 9_999)
}

#[test]
fn a_healthy_cluster_is_shown_on_one_page() {
    let stage = Stage::three();
    assert!(wide_ports(&stage), "the system gives dynamic ports");
    let ran = stage.run("status");
    assert_eq!(ran.err, "");
    assert_eq!(
        ran.out,
        "\
cluster  demo   ring v1   3/3 zones   N=3 R=2 W=2   wire v1      HEALTHY
     NODE  ZONE  ADDRESS          STATE    OWNS       LOAD    KEYS
UN   n1    a     127.0.0.1:N1000  normal  33.3%  976.6 KiB  18,442
UN   n2    b     127.0.0.1:N2000  normal  33.3%    1.9 MiB  36,884
UN   n3    c     127.0.0.1:N3000  normal  33.3%    2.9 MiB  55,326
quorum: 100% of slots readable and writable at QUORUM
next: nothing to do
"
    );
    assert_eq!(ran.code, 0);
    assert_eq!(stage.run("status --check").code, 0);
    let wide = stage.run("status -o wide");
    assert!(wide.out.contains("KEYS  COUNTED  ID  LIFE  VERSION  READY\n"), "{}", wide.out);
    assert!(wide.out.contains("  18,442   1s ago   1     1  0.1.0    yes\n"), "{}", wide.out);
}

#[test]
fn with_one_node_down_it_says_since_when_and_how_to_bring_it_back() {
    let mut stage = Stage::three();
    stage.change(|status| lose(status, &["n3"]));
    // It is really gone, and its address costs nothing: the others are asked.
    drop(stage.nodes.remove(2));
    let ran = stage.run("status --check");
    let address = stage.status.lock().unwrap().nodes[2].address.clone();
    assert_eq!(
        ran.out.replace(&address, "127.0.0.1:N3000"),
        "\
cluster  demo   ring v1   2/3 zones   N=3 R=2 W=2   wire v1      DEGRADED: 1 node down
     NODE  ZONE  ADDRESS          STATE    OWNS       LOAD    KEYS
UN   n1    a     127.0.0.1:N1000  normal  33.3%  976.6 KiB  18,442
UN   n2    b     127.0.0.1:N2000  normal  33.3%    1.9 MiB  36,884
DN   n3    c     127.0.0.1:N3000  down    33.3%  last seen 6m12s ago
quorum: 100% of slots readable and writable at QUORUM; no node of zone c is up
next: n3 has been down for 6m12s. Bring it back: start ringd on n3 (127.0.0.1:N3000), or look into its log
"
    );
    assert_eq!((ran.code, ran.err.as_str()), (4, ""));
    assert_eq!(stage.run("status").code, 0, "only --check judges");
    // Of a demo the exact command is known.
    let home = stage.dir.path().join("ringdb-demo/n3");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("ringd.toml"), "").unwrap();
    let ran = stage.run("status");
    let next = "next: n3 has been down for 6m12s. Bring it back: \
                ringd start --config ringdb-demo/n3/ringd.toml\n";
    assert!(ran.out.ends_with(next), "{}", ran.out);
}

#[test]
fn with_two_nodes_down_it_says_that_the_quorum_is_lost() {
    let stage = Stage::three();
    stage.change(|status| {
        lose(status, &["n2", "n3"]);
        status.slots_quorum_readable = 0.0;
        status.slots_quorum_writable = 0.0;
    });
    let ran = stage.run("status --check --node n1");
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(
        lines[0],
        "cluster  demo   ring v1   1/3 zones   N=3 R=2 W=2   wire v1      \
         DEGRADED: 2 nodes down, 100% of slots without a quorum"
    );
    assert_eq!(
        lines[5..],
        [
            "quorum: 0% of slots readable and writable at QUORUM; no node of zones b, c is up",
            "next: n2, n3 are down. Bring one back: start ringd on n2 (127.0.0.1:N2000), \
             or look into its log",
        ]
    );
    assert_eq!(ran.code, 4);
}

#[test]
fn a_node_that_catches_up_is_starting_and_worth_waiting_for() {
    let stage = Stage::three();
    stage.change(|status| {
        status.nodes[1].ready = false;
        status.slots_quorum_writable = 0.9999;
    });
    let ran = stage.run("status --check");
    let lines: Vec<_> = ran.out.lines().collect();
    assert!(lines[0].ends_with("DEGRADED: 1 node not ready, 0.1% of slots without a quorum"));
    assert!(lines[3].starts_with("UN   n2    b     127.0.0.1:N2000  starting"), "{}", lines[3]);
    assert_eq!(lines[5], "quorum: 100% of slots readable and 99.9% writable at QUORUM");
    assert_eq!(lines[6], "next: n2 catches up with the others; watch: ringctl status -w");
    assert_eq!(ran.code, 4);
}

#[test]
fn what_one_named_node_does_not_know_of_others_is_left_open() {
    let stage = Stage::three();
    let address = stage.nodes[0].address();
    for named in [address.as_str(), "n1"] {
        let ran = stage.run(&format!("--node {named} status"));
        assert!(ran.out.contains("33.3%  976.6 KiB  18,442\n"), "{}", ran.out);
        assert!(ran.out.contains("33.3%          -       -\n"), "{}", ran.out);
    }
}

#[test]
fn programs_read_raw_numbers_under_a_schema() {
    let stage = Stage::three();
    stage.change(|status| lose(status, &["n3"]));
    let ran = stage.run("status -o json");
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert!(ran.out.starts_with("{\n  \"schema\": \"ringctl/v1\",\n  \"cluster\": \"demo\",\n"));
    assert_eq!(json["cluster_id"], "000000000000000000000000000000c1");
    assert_eq!(json["healthy"], false);
    assert_eq!(json["problems"], serde_json::json!(["1 node down"]));
    assert!(
        ran.out.contains("{\n      \"code\": \"UN\",\n      \"id\": \"1\",\n"),
        "fields in order"
    );
    assert_eq!(json["nodes"][0]["load_bytes"], 1_000_000);
    assert_eq!(json["nodes"][0]["last_seen_ms"], serde_json::Value::Null);
    assert_eq!(json["nodes"][2]["last_seen_ms"], 372_000);
    assert_eq!(json["nodes"][2]["load_bytes"], serde_json::Value::Null);
    assert_eq!((&json["nodes"][2]["id"], &json["nodes"][2]["code"]), (&"3".into(), &"DN".into()));

    let lines = stage.run("status -o jsonl").out;
    assert_eq!(lines.lines().count(), 3);
    for line in lines.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(row["schema"], "ringctl/v1");
    }

    let csv = stage.run("status -o csv").out;
    assert_eq!(
        csv.lines().next().unwrap(),
        "code,id,name,zone,address,state,up,ready,owns,load_bytes,keys,keys_age_ms,last_seen_ms,\
         incarnation,version"
    );
    assert!(csv.contains("DN,3,n3,c,127.0.0.1:N3000,down,false,false,0.333"), "{csv}");
}

#[test]
fn watching_shows_it_again_and_again() {
    let stage = Stage::three();
    let mut command = stage.command("status --watch=20ms -o jsonl");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.take(7).filter(|line| line.is_ok()).count(), 7, "two pictures and a third");
    // The reader is gone by now, so it may have ended by itself.
    drop(child.kill());
    child.wait().unwrap();
}

#[test]
fn the_owners_of_a_key_come_in_order_with_the_tag_that_decides() {
    let stage = Stage::three();
    let slot = Slot::of_key(b"42");
    assert_eq!(
        stage.run("ring owners cart:{42}.items").out,
        format!(
            "\
key \"cart:{{42}}.items\"   slot {slot}   hash tag \"42\"   3 replicas, 3 up
   NODE  ZONE  ADDRESS          STATE
1  n2    b     127.0.0.1:N2000  up     preferred coordinator
2  n3    c     127.0.0.1:N3000  up
3  n1    a     127.0.0.1:N1000  up
quorum: 2 of 3 needed, 3 up: readable and writable at QUORUM
"
        )
    );
    stage.change(|status| lose(status, &["n2", "n3"]));
    assert_eq!(
        stage.run("ring owners foo").out,
        "\
key \"foo\"   slot 12182   hash tag: the whole key   3 replicas, 1 up
   NODE  ZONE  ADDRESS          STATE
1  n2    b     127.0.0.1:N2000  down   preferred coordinator, if it were up
2  n3    c     127.0.0.1:N3000  down
3  n1    a     127.0.0.1:N1000  up     coordinates meanwhile
quorum: 2 of 3 needed, 1 up: neither readable nor writable at QUORUM
"
    );
    let ran = stage.run("ring owners foo -o json");
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&json["schema"], &json["slot"]), (&"ringctl/v1".into(), &12_182.into()));
    assert_eq!(json["replicas"][0]["name"], "n2");
    assert_eq!(json["hash_tag"], serde_json::Value::Null);
}

#[test]
fn flags_win_over_the_environment_and_it_over_the_files_that_are_found() {
    let stage = Stage::three();
    let demo = stage.dir.path().join("ringdb-demo");
    // Away from the demo's directory the file must be named, or be the one at home.
    let away = tempfile::tempdir().unwrap();
    let command = |line: &str| command_in(away.path(), line);
    let file = demo.join("ringctl.toml");
    let mut by_flag = command("status --config");
    assert_eq!(
        ran(
            {
                by_flag.arg(&file);
                by_flag
            },
            &stage
        )
        .code,
        0
    );
    let mut by_environment = command("status");
    assert_eq!(
        ran(
            {
                by_environment.env("RINGCTL_CONFIG", &file);
                by_environment
            },
            &stage
        )
        .code,
        0
    );
    let mut overruled = command("status --config missing.toml");
    let overruled = ran(
        {
            overruled.env("RINGCTL_CONFIG", &file);
            overruled
        },
        &stage,
    );
    assert_eq!(overruled.code, 2);
    let home = away.path().join(".config/ringctl");
    fs::create_dir_all(&home).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let absolute = text.replace("\"certs/", &format!("\"{}/certs/", demo.display()));
    fs::write(home.join("config.toml"), absolute).unwrap();
    assert_eq!(ran(command("status"), &stage).code, 0);
    let mut named = command("status");
    named.env("RINGCTL_NODE", "n2");
    let json = ran(
        {
            named.args(["-o", "json"]);
            named
        },
        &stage,
    )
    .out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["reporter"], "n2");
}

#[test]
fn versions_help_and_completions_need_no_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let ran = alone(dir.path(), "version");
    assert_eq!(ran.out, format!("ringctl {version}   wire v1 (min v1)\n"));
    assert_eq!(alone(dir.path(), "--version").out, format!("ringctl {version}\n"));
    let json = alone(dir.path(), "version -o json").out;
    assert!(json.contains("\"schema\": \"ringctl/v1\"") && json.contains("\"wire\": 1"), "{json}");
    let help = alone(dir.path(), "status --help");
    assert!(help.code == 0 && help.out.contains("--check"), "{help:?}");
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let ran = alone(dir.path(), &format!("completions {shell}"));
        assert!(ran.code == 0 && ran.out.contains("ringctl") && ran.out.contains("status"));
    }
}
