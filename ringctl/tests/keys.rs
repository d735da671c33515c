//! One key, from above and from every replica.

use crate::stage::*;

#[test]
fn a_value_is_shown_and_is_raw_for_programs() {
    let stage = Stage::three();
    let ran = stage.run("key get cart:42 -c quorum");
    assert_eq!(
        (ran.out.as_str(), ran.code),
        ("key \"cart:42\"   slot 15749   1 value   at QUORUM\n\"two apples\"\n", 0)
    );
    let json: serde_json::Value =
        serde_json::from_str(&stage.run("key get cart:42 -o json").out).unwrap();
    assert_eq!(
        (&json["values"][0]["value"], &json["slot"]),
        (&"two apples".into(), &15_749.into())
    );
    assert_eq!(json["level"], serde_json::Value::Null);
}

#[test]
fn siblings_say_who_wrote_them_and_when() {
    let stage = Stage::three();
    assert_eq!(
        stage.run("key siblings cart:42").out,
        "\
key \"cart:42\"   slot 15749   1 value   at the keyspace's level
\x20  WRITTEN BY    DOT  AT                        BYTES  VALUE
1  n1          1.2:7  2026-09-21T14:13:20.000Z     10  \"two apples\"
"
    );
    let ran = stage.run("key resolve cart:42 --take 2");
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (
            2,
            "error: \"cart:42\" has no sibling 2\n  why: it has 1 value\n  \
             fix: see them: ringctl key siblings cart:42\n"
        )
    );
    let out = stage.run("key resolve cart:42 --value pear").out;
    assert_eq!(
        out,
        "key \"cart:42\"   slot 15749   1 value replaced by \"pear\"   at the keyspace's level\n"
    );
    let out = stage.run("key resolve cart:42 --take 1").out;
    assert!(out.contains("1 value: nothing to resolve"), "{out}");
}

#[test]
fn a_trace_shows_which_replica_holds_what() {
    let stage = Stage::three();
    let ran = stage.run("key trace cart:42 -c all");
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines[0], "key \"cart:42\"   slot 15749");
    assert!(lines[1].starts_with("   NODE  ZONE  ROUND TRIP  OWN READ  HOLDS"), "{ran:?}");
    assert!(
        lines[2].starts_with("1  n2    b ") && lines[2].ends_with("0.02 ms  {1.2:7}"),
        "{ran:?}"
    );
    assert!(
        lines[3].starts_with("2  n3    c ") && lines[3].ends_with("{1.2:6}  differs"),
        "{ran:?}"
    );
    assert_eq!(lines[5], "copies: 2 of 3 hold the same");
    assert!(lines[6].starts_with("read at ALL: 1 value in "), "{ran:?}");
    let json: serde_json::Value =
        serde_json::from_str(&stage.run("key trace cart:42 -o json").out).unwrap();
    assert_eq!((&json["same"], &json["level"]), (&2.into(), &"QUORUM".into()));
    assert_eq!(json["replicas"][1]["same"], false);

    let mut stage = stage;
    stage.change(|status| lose(status, &["n3"]));
    drop(stage.nodes.remove(2));
    let ran = stage.run("key trace cart:42");
    let lines: Vec<_> = ran.out.lines().collect();
    assert!(lines[3].ends_with(" nothing answers there"), "{ran:?}");
    assert_eq!(lines[5], "copies: 2 of 3 hold the same");
}

#[test]
fn a_key_is_deleted_only_if_somebody_means_it_and_not_where_nothing_may_change() {
    let stage = Stage::three();
    let ran = stage.run("key delete cart:42");
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (
            2,
            "error: nothing was done: delete 1 value of \"cart:42\"\n  \
             why: there is no terminal at which you could be asked\n  \
             fix: say that you mean it with --yes\n"
        )
    );
    let ran = stage.run("key delete cart:42 --yes -c all");
    assert_eq!(ran.out, "key \"cart:42\"   slot 15749   1 value deleted   at ALL\n");

    let contexts = stage.dir.path().join("ringdb-demo/ringctl.toml");
    let text = std::fs::read_to_string(&contexts).unwrap();
    std::fs::write(&contexts, text + "readonly = true\n").unwrap();
    for line in ["key delete cart:42 --yes", "key resolve cart:42 --take 1"] {
        let ran = stage.run(line);
        assert_eq!(
            (ran.code, ran.err.as_str()),
            (
                2,
                "error: a change of a key is refused\n  \
                 why: the context in ringdb-demo/ringctl.toml is marked readonly\n  \
                 fix: use another context, or remove readonly = true from this one\n"
            ),
            "{line}"
        );
    }
}

#[test]
fn a_key_of_another_database_is_asked_for_there() {
    let stage = Stage::three();
    for line in ["key get cart:42 --db 4", "key --db 4 get cart:42"] {
        assert_eq!(
            stage.run(line).out,
            "key \"cart:42\"   database 4   slot 15749   1 value   at the keyspace's level\n\
             \"apples of database 4\"\n"
        );
    }
    let json: serde_json::Value =
        serde_json::from_str(&stage.run("key get cart:42 --db 4 -o json").out).unwrap();
    assert_eq!((&json["db"], &json["slot"]), (&4.into(), &15_749.into()));
}

#[test]
fn a_key_that_is_no_text_is_told_apart_by_programs() {
    use std::os::unix::ffi::OsStrExt;

    let stage = Stage::three();
    for line in ["key get -o json", "ring owners -o json"] {
        let mut command = stage.command(line);
        command.arg(std::ffi::OsStr::from_bytes(b"\xff\xfebin"));
        let ran = ran(command, &stage);
        let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(
            (&json["key"], &json["key_hex"]),
            (&serde_json::Value::Null, &"fffe62696e".into()),
            "{line}"
        );
    }
}

#[test]
fn what_cannot_be_written_is_no_success() {
    let stage = Stage::three();
    for line in ["status -o json", "completions bash", "--help"] {
        let mut command = stage.command(line);
        command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let ran = ran(command, &stage);
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert!(ran.err.starts_with("error: the output cannot be written\n  why: "), "{ran:?}");
        assert_eq!(ran.err.lines().count(), 3, "{ran:?}");
    }
}
