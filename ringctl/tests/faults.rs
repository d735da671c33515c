//! Every error has three lines and an exit code that scripts can rely on.

use std::fs;

use certs::Role;
use wire::{ClientReply, ErrorCode, ErrorReply};

use crate::fake::*;
use crate::stage::*;

fn err(ran: &Ran) -> Vec<&str> {
    assert_eq!(ran.out, "", "an error says nothing on standard output");
    let lines: Vec<_> = ran.err.lines().collect();
    assert_eq!(lines.len(), 3, "{ran:?}");
    assert!(lines[0].starts_with("error: "), "{ran:?}");
    assert!(lines[1].starts_with("  why: ") && lines[1].len() > 7, "{ran:?}");
    assert!(lines[2].starts_with("  fix: ") && lines[2].len() > 7, "{ran:?}");
    lines
}

#[test]
fn no_node_reached_is_3_and_names_what_was_tried() {
    let mut stage = Stage::three();
    let addresses: Vec<_> = stage.nodes.iter().map(FakeNode::address).collect();
    stage.nodes.clear();
    let ran = stage.run("status --timeout 400ms");
    assert_eq!(
        err(&ran),
        [
            format!("error: cannot reach any node: tried {}", addresses.join(", ")).as_str(),
            "  why: nothing answers there",
            "  fix: start ringd there, or name a node that runs with --node; QUIC needs UDP to pass",
        ]
    );
    assert_eq!(ran.code, 3);
    // Beside the data of a demo the fix is to start it.
    fs::create_dir(stage.dir.path().join("ringdb-demo/n1")).unwrap();
    fs::write(stage.dir.path().join("ringdb-demo/n1/ringd.toml"), "").unwrap();
    let ran = stage.run("status --timeout 400ms");
    assert_eq!(
        err(&ran)[2],
        "  fix: start the demo (ringd demo --data-dir ringdb-demo), or see ringdb-demo/n*/ringd.log"
    );
    let ran = stage.run("status --timeout 400ms --node 127.0.0.1:1");
    assert_eq!(
        err(&ran),
        [
            "error: cannot reach a node at 127.0.0.1:1",
            "  why: nothing answers there",
            "  fix: start that node, or ask any: leave --node out",
        ]
    );
    assert_eq!(ran.code, 3);
}

#[test]
fn another_ca_is_7_and_shows_both_fingerprints() {
    let stage = Stage::three();
    let other = authority();
    stage.write_context(&other);
    let ran = stage.run("status");
    let lines = err(&ran);
    assert_eq!(
        lines[0],
        "error: no connection to 127.0.0.1:N1000: its certificate is signed by another CA"
    );
    let trusted = format!(
        "  why: this client trusts CA {:#}, node n1 of demo presented SHA256:",
        other.fingerprint()
    );
    assert!(lines[1].starts_with(&trusted), "{ran:?}");
    assert_eq!(
        lines[2],
        "  fix: use ca, certificate and key of that cluster, or dial a node of this one"
    );
    assert_eq!(ran.code, 7);
}

#[test]
fn a_certificate_that_its_own_ca_did_not_sign_is_found_before_anything_is_sent() {
    let stage = Stage::three();
    let certs = stage.dir.path().join("ringdb-demo/certs");
    fs::write(certs.join("ca.pem"), authority().cert_pem).unwrap();
    let ran = stage.run("status");
    assert_eq!(err(&ran)[0], "error: ringdb-demo/certs/admin.pem is signed by another CA");
    assert_eq!(ran.code, 7);
    fs::remove_file(certs.join("admin.key")).unwrap();
    let ran = stage.run("status");
    assert_eq!(err(&ran)[0], "error: ringdb-demo/certs/admin.key is missing");
    assert_eq!(ran.code, 2);
}

#[test]
fn a_node_that_says_no_is_quoted() {
    let mut stage = Stage::three();
    let refusing = |id, code| {
        FakeNode::start(&node(&stage.ca, id), id, move |_, _| {
            let (what, why, fix) = ("no".into(), "because".into(), "ask another".into());
            Answer::Say(ClientReply::Error(ErrorReply { code, what, why, fix }))
        })
    };
    let overloaded = ErrorCode::Overloaded { retry_after_ms: 20 };
    let codes = [(ErrorCode::Unauthorised, 7), (overloaded, 1), (ErrorCode::Internal, 1)];
    for (code, exit) in codes {
        let node = refusing(1, code);
        let ran = stage.run(&format!("status --node {}", node.address()));
        assert_eq!(err(&ran), ["error: no", "  why: because", "  fix: ask another"]);
        assert_eq!(ran.code, exit);
    }
    stage.nodes.clear();
}

#[test]
fn a_node_that_does_not_answer_in_time_is_6() {
    let stage = Stage::three();
    let silent = FakeNode::start(&node(&stage.ca, 1), 1, |_, _| Answer::Silence);
    let ran = stage.run(&format!("status --timeout 300ms --node {}", silent.address()));
    assert_eq!(err(&ran)[0], "error: no answer in 300 ms");
    assert_eq!(ran.code, 6);
}

#[test]
fn names_that_are_not_known_are_answered_with_those_that_are() {
    let stage = Stage::three();
    let ran = stage.run("status --node n9");
    assert_eq!(
        err(&ran),
        [
            "error: no node has the name n9",
            "  why: demo has n1, n2, n3",
            "  fix: name one of those, or host:port",
        ]
    );
    assert_eq!(ran.code, 2);
    let ran = stage.run("status --context prod");
    assert_eq!(
        err(&ran),
        [
            "error: no context prod in ringdb-demo/ringctl.toml",
            "  why: it has demo",
            "  fix: name one of those, or add it to the file",
        ]
    );
    assert_eq!(ran.code, 2);
}

#[test]
fn without_any_context_it_says_where_it_looked() {
    let dir = tempfile::tempdir().unwrap();
    let ran = alone(dir.path(), "status");
    let why = format!(
        "  why: there is no file of contexts: looked for ringdb-demo/ringctl.toml, \
         {}/.config/ringctl/config.toml",
        dir.path().display()
    );
    assert_eq!(
        err(&ran),
        [
            "error: no cluster is known here",
            why.as_str(),
            "  fix: run ringd demo in this directory, or name a file with --config FILE or \
             RINGCTL_CONFIG",
        ]
    );
    assert_eq!(ran.code, 2);
}

#[test]
fn a_context_whose_certificate_is_of_another_cluster_is_refused() {
    let stage = Stage::three();
    let certs = stage.dir.path().join("ringdb-demo/certs");
    fs::remove_dir_all(&certs).unwrap();
    let other = certs::ca_init("prod").unwrap();
    visitor(&other, Role::Admin).write(&certs).unwrap();
    let ran = stage.run("status");
    assert_eq!(
        err(&ran),
        [
            "error: the context of demo has a certificate of another cluster",
            "  why: ringdb-demo/certs/admin.pem is for admin admin of prod",
            "  fix: correct cluster, ca, cert and key in ringdb-demo/ringctl.toml",
        ]
    );
    assert_eq!(ran.code, 2);
}

#[test]
fn a_command_line_that_is_not_understood_is_2_in_three_lines() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        (
            "statis",
            [
                "error: unrecognized subcommand 'statis'",
                "  why: usage: ringctl [OPTIONS] <COMMAND>",
                "  fix: a similar subcommand exists: 'status'",
            ],
        ),
        (
            "status --chek",
            [
                "error: unexpected argument '--chek' found",
                "  why: usage: ringctl status [OPTIONS]",
                "  fix: a similar argument exists: '--check'",
            ],
        ),
        (
            "status --timeout 2y",
            [
                "error: invalid value '2y' for '--timeout <TIME>'",
                "  why: \"y\" is no unit of time: ms, s, m or h",
                "  fix: ringctl status --help",
            ],
        ),
        (
            "",
            [
                "error: a command is missing",
                "  why: usage: ringctl [OPTIONS] <COMMAND>",
                "  fix: ringctl --help",
            ],
        ),
        (
            "ring owners",
            [
                "error: the following required arguments were not provided: <KEY>",
                "  why: usage: ringctl ring owners [OPTIONS] <KEY>",
                "  fix: ringctl ring owners --help",
            ],
        ),
        (
            "status --check -w",
            [
                "error: the argument '--check' cannot be used with '--watch[=<TIME>]'",
                "  why: usage: ringctl status [OPTIONS]",
                "  fix: ringctl status --help",
            ],
        ),
    ];
    for (line, told) in cases {
        let ran = alone(dir.path(), line);
        assert_eq!(err(&ran), told, "{line}");
        assert_eq!(ran.code, 2, "{line}");
    }
}

#[test]
fn the_fix_is_the_help_of_the_command_that_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    for (line, command) in [
        ("--foo", ""),
        ("bench --foo", "bench "),
        ("key get x -c foo", "key get "),
        ("key get x --foo", "key get "),
        ("--timeout 1s key --db 3 get x y", "key get "),
        ("key", "key "),
        ("key foo", "key "),
        ("keyspace set 4", "keyspace set "),
        ("keyspace set 4 --foo", "keyspace set "),
        ("cert ca-init --foo", "cert ca-init "),
    ] {
        let ran = alone(dir.path(), line);
        assert_eq!(err(&ran)[2], format!("  fix: ringctl {command}--help"), "{line}");
        assert_eq!(ran.code, 2, "{line}");
    }
    let ran = alone(dir.path(), "key get -x");
    assert_eq!(err(&ran)[2], "  fix: ringctl key get --help; if -x is meant as it stands: -- -x");
}

#[test]
fn a_value_that_does_not_do_has_its_reason_in_the_second_line() {
    let dir = tempfile::tempdir().unwrap();
    let (time, place) = ("a number is expected, as in 12h", "a whole number is expected, as in 20");
    for (line, value, reason) in [
        (
            "key get x -c foo",
            "foo",
            "a level is ONE, TWO, THREE, QUORUM, ALL or a number of replicas",
        ),
        ("keyspace set 4 --ttl -1d", "-1d", time),
        ("keyspace set 4 --ttl -1", "-1", time),
        ("keyspace set 4 --n -1", "-1", "-1 is not in 0..=255"),
        ("ring slots --slot -1", "-1", "-1 is not in 0..16384"),
        ("bench --rate -4", "-4", "-4 is not in 1..=10000000"),
        ("bench --time -4s", "-4s", "a number is expected, as in 2s"),
        ("hot --count -1", "-1", "-1 is not in 1..=1000"),
        ("key resolve x --take -1", "-1", place),
        ("status -o xml", "xml", "possible values: table, wide, json, jsonl, csv"),
        ("cert issue x --role king", "king", "a role is node, client or admin"),
    ] {
        let ran = alone(dir.path(), line);
        let lines = err(&ran);
        let what = format!("error: invalid value '{value}' for '");
        assert!(lines[0].starts_with(&what) && lines[0].ends_with(">'"), "{line}: {ran:?}");
        assert_eq!(lines[1], format!("  why: {reason}"), "{line}");
        assert!(lines[2].ends_with(" --help"), "{line}: {ran:?}");
    }
    // What may begin with a hyphen is taken: this fails only because there is no cluster.
    let ran = alone(dir.path(), "key resolve x --value -5");
    assert_eq!(err(&ran)[0], "error: no cluster is known here");
}

#[test]
fn a_variable_that_is_not_understood_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let said = |line: &str, variable: &str, value: &str| {
        let mut command = command_in(dir.path(), line);
        let output = command.env(variable, value).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(
        said("version", "RINGCTL_TIMEOUT", "soon"),
        "error: invalid value 'soon' for RINGCTL_TIMEOUT\n  why: a number is expected, as in 2s\n  \
         fix: correct or unset RINGCTL_TIMEOUT; ringctl version --help\n"
    );
    let text = said("hot", "RINGCTL_HOT_COUNT", "0");
    assert!(text.starts_with("error: invalid value '0' for RINGCTL_HOT_COUNT\n"), "{text}");
    let text = said("status", "RINGCTL_OUTPUT", "xml");
    assert!(text.starts_with("error: invalid value 'xml' for RINGCTL_OUTPUT\n"), "{text}");
    // A flag that is wrong is told as such, whatever the variable says.
    let text = said("hot --count 0", "RINGCTL_HOT_COUNT", "x");
    assert!(text.starts_with("error: invalid value '0' for '--count <N>'\n"), "{text}");
}

#[test]
fn variables_change_nothing_in_what_is_said_of_a_line() {
    let dir = tempfile::tempdir().unwrap();
    for line in ["", "key", "key get", "bench --foo", "keyspace set 4", "status --check -w"] {
        let plain = alone(dir.path(), line);
        let mut command = command_in(dir.path(), line);
        command.env("RINGCTL_CONFIG", "contexts.toml").env("RINGCTL_TIMEOUT", "9s");
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), plain.err, "{line}");
        assert_eq!(output.status.code(), Some(2), "{line}");
    }
}
