//! Looking for faults, for busy keys and for large ones, and gathering it all.

use std::fs;

use crate::stage::*;

fn json(stage: &Stage, line: &str) -> serde_json::Value {
    serde_json::from_str(&stage.run(&format!("{line} -o json")).out).unwrap()
}

#[test]
fn the_doctor_says_what_why_and_what_to_do() {
    let mut stage = Stage::three();
    stage.change(|status| lose(status, &["n3"]));
    drop(stage.nodes.remove(2));
    let ran = stage.run("doctor");
    // The certificates of these stories are valid for a day.
    let found = "\
doctor  demo   2 of 3 nodes answered   checked: nodes, quorum, answers, readiness, clocks, disks, \
damage, load, files, layouts, settings, levels, versions, certificates
problem: n3 is down
  why: n1 has not heard of it for 6m12s
  fix: start ringd on n3 (127.0.0.1:";
    assert!(ran.out.starts_with(found), "{ran:?}");
    for whose in ["n1", "n2", "this client"] {
        assert!(
            ran.out
                .contains(&format!("problem: the certificate of {whose} expires within a day\n")),
            "{ran:?}"
        );
    }
    assert!(ran.out.ends_with("\n4 problems, 0 warnings\n"), "{ran:?}");
    assert_eq!((ran.code, ran.err.as_str()), (4, ""));
    let json = json(&stage, "doctor");
    assert_eq!((&json["schema"], &json["healthy"]), (&"ringctl/v1".into(), &false.into()));
    assert_eq!(json["findings"][0]["check"], "nodes");
    assert_eq!(json["findings"][0]["node"], "n3");
    let csv = stage.run("doctor -o csv").out;
    assert!(
        csv.starts_with("check,weight,node,what,why,fix\nnodes,problem,n3,n3 is down,"),
        "{csv}"
    );
}

#[test]
fn busy_keys_are_summed_over_the_nodes() {
    let stage = Stage::three();
    assert_eq!(
        stage.run("hot").out,
        "\
about 1,200 operations a second at 3 nodes in the last 40s, from samples
OPS/S  OF ALL  WRITES  DB  KEY        ASKED AT
\x20 480   40.0%   12.5%   0  \"cart:42\"  n1 n2 n3
"
    );
    let ran = stage.run("hot --node n1");
    assert!(ran.out.contains("at 1 node in") && ran.out.contains("   80   20.0%"), "{ran:?}");
    assert_eq!(json(&stage, "hot")["keys"][0]["ops_per_second"], 480.0);
}

#[test]
fn large_keys_are_found_in_every_part_of_every_store() {
    let stage = Stage::three();
    assert_eq!(
        stage.run("big --count 2").out,
        "\
60 copies of keys read on 3 nodes
\x20  SIZE  VALUES  DB  KEY        HELD BY
3.0 MiB       1   0  \"photo:2\"  n1 n2 n3
2.0 MiB       1   0  \"photo:1\"  n1 n2 n3
"
    );
    let ran = stage.run("big --count 1 --node n2");
    assert!(ran.out.starts_with("20 copies of keys read on 1 node\n"), "{ran:?}");
    assert!(ran.out.ends_with("\"photo:2\"  n2\n"), "{ran:?}");
    assert_eq!(stage.run("big --count 0").code, 2);
}

#[test]
fn keyspaces_are_listed_with_their_rules() {
    let stage = Stage::three();
    assert_eq!(
        stage.run("keyspace ls").out,
        "\
DATABASE  N  READ    WRITE   DURABILITY  CONFLICT  TTL   FROM
default   3  QUORUM  QUORUM  os          lww       none  configuration
4         3  ONE     QUORUM  os          lww       90m   set v2 by ann
"
    );
    assert_eq!(json(&stage, "keyspace ls")["keyspaces"][1]["everywhere"], true);
}

#[test]
fn a_bundle_holds_what_could_be_had_and_says_what_could_not() {
    let mut stage = Stage::three();
    stage.change(|status| lose(status, &["n3"]));
    drop(stage.nodes.remove(2));
    let demo = stage.dir.path().join("ringdb-demo");
    fs::create_dir(demo.join("n1")).unwrap();
    fs::write(demo.join("n1/ringd.log"), "it began\n").unwrap();
    let ran = stage.run("debug bundle --out b");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(
        ran.out.contains("missing  nodes/n2/log.txt: the log of n2 is not on this machine\n"),
        "{ran:?}"
    );
    assert!(ran.out.contains("missing  nodes/n3: cannot reach a node at "), "{ran:?}");
    assert!(ran.out.ends_with("next: tar czf b.tar.gz b\n"), "{ran:?}");
    let dir = stage.dir.path().join("b");
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(read("nodes/n1/log.txt"), "it began\n");
    assert_eq!(read("nodes/n2/metrics.txt"), "ringdb_ready 1\n");
    assert!(read("nodes/n2/settings.toml").contains("name = \"n2\""));
    for name in ["doctor.json", "status.json", "layout.json", "version.json", "nodes/n1/facts.json"]
    {
        let json: serde_json::Value = serde_json::from_str(&read(name)).unwrap();
        assert_eq!(json["schema"], "ringctl/v1", "{name}");
    }
    assert!(
        read("doctor.txt").contains("problem: n3 is down") && read("missing.txt").contains("n3")
    );
    let key = fs::read_to_string(demo.join("certs/admin.key")).unwrap();
    for name in ["status.json", "doctor.json", "nodes/n1/facts.json"] {
        assert!(!read(name).contains(key.lines().nth(1).unwrap()), "{name}");
    }
    // It is never mixed with another.
    let ran = stage.run("debug bundle --out b");
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (
            2,
            "error: b exists already\n  why: a bundle is never mixed with another\n  \
             fix: name another directory with --out\n"
        )
    );
}

#[test]
fn every_command_has_help_and_stands_in_the_help_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let help = alone(dir.path(), "-h").out;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names: Vec<_> = commands.map_while(|line| line.split_whitespace().next()).collect();
    for name in [
        "status",
        "node",
        "ring",
        "key",
        "hot",
        "big",
        "keyspace",
        "checkpoint",
        "doctor",
        "debug",
        "bench",
        "cert",
        "ctx",
        "man",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    for name in &names {
        let ran = alone(dir.path(), &format!("{name} --help"));
        if *name != "help" {
            assert!(ran.code == 0 && ran.out.contains("Usage: ringctl"), "{name}: {ran:?}");
        }
    }
    // A page that fits a terminal: no line of the summary is longer.
    let long: Vec<_> = help.lines().filter(|line| line.chars().count() > 100).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn a_commands_own_options_come_before_those_of_all() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(alone(dir.path(), "man pages").code, 0);
    for (line, own) in [("bench", "--workload"), ("key get", "--db"), ("status", "--check")] {
        let help = alone(dir.path(), &format!("{line} --help")).out;
        let page = format!("pages/ringctl-{}.1", line.replace(' ', "-"));
        let page = fs::read_to_string(dir.path().join(page)).unwrap().replace("\\-", "-");
        let (first, second) = help.split_once("\nCommon options:\n").unwrap();
        let place = |option: &str| page.find(&format!("[\\fB{option}\\fR]")).expect(option);
        assert!(place(own) < place("--node"), "{line}: {page}");
        let (_, options) = page.split_once(".SH OPTIONS\n").unwrap();
        let (man_first, man_second) = options.split_once(".SH \"COMMON OPTIONS\"\n").unwrap();
        for (first, second) in [(first, second), (man_first, man_second)] {
            assert!(first.contains(own) && !second.contains(own), "{line}: {first}");
            for common in ["--node", "--config", "--context", "--output", "--timeout"] {
                assert!(second.contains(common) && !first.contains(common), "{line}: {common}");
            }
        }
    }
}
