//! Terms of keyspaces are changed: shown, asked for, refused.

use crate::stage::*;

#[test]
fn terms_are_set_and_who_has_not_heard_is_told() {
    let stage = Stage::three();
    let ran = stage.run("keyspace set 2 --write ALL --ttl 1d --sloppy off");
    assert_eq!(
        ran.out,
        "\
keyspace 2   on the disks of n1, n2
        N  READ    WRITE   DURABILITY  CONFLICT  TTL   FROM
before  3  QUORUM  QUORUM  os          lww       none  configuration
now     3  QUORUM  ALL     os          lww       1d    set v1 by admin
not yet at n3: it learns of this before it serves again
"
    );
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let ran = stage.run("keyspace set 2 4 --read TWO -o jsonl");
    let rows: Vec<serde_json::Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    for (row, name, before) in [(&rows[0], "2", "QUORUM"), (&rows[1], "4", "ONE")] {
        assert_eq!((&row["database"], &row["dry_run"]), (&name.into(), &false.into()));
        assert_eq!((&row["read_before"], &row["read"]), (&before.into(), &"TWO".into()));
        assert_eq!(row["missing"][0], "n3");
        assert_eq!(row["at"], "2025-11-25T20:23:46.197Z");
    }
    let ran = stage.run("keyspace set 4 --ttl none -o csv");
    assert!(ran.out.starts_with("database,dry_run,n_before,"), "{ran:?}");
    assert!(stage.run("keyspace set 4 --ttl none -o json").out.contains("\"ttl_ms\": null"));
}

#[test]
fn what_would_be_is_shown_without_doing_it() {
    let stage = Stage::three();
    let ran = stage.run("keyspace set 4 --write ONE --dry-run -o wide");
    assert_eq!(
        ran.out,
        "\
keyspace 4   nothing is changed yet
        N  READ  WRITE   DURABILITY  CONFLICT  TTL  FROM
before  3  ONE   QUORUM  os          lww       90m  set v2 by ann 2025-11-24T16:00:00.000Z
then    3  ONE   ONE     os          lww       90m  set v3 by admin 2025-11-25T20:23:46.197Z
warning: reads may miss acknowledged writes
"
    );
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[test]
fn what_is_dangerous_must_be_meant_and_what_cannot_be_is_refused() {
    let stage = Stage::three();
    for (line, what) in [
        ("keyspace rm 4", "give keyspace 4 back to the configuration"),
        (
            "keyspace set 4 --write ONE",
            "change keyspace 4, though reads may miss acknowledged writes",
        ),
    ] {
        let ran = stage.run(line);
        assert_eq!(
            (ran.code, ran.err.as_str()),
            (
                2,
                format!(
                    "error: nothing was done: {what}\n  \
                     why: there is no terminal at which you could be asked\n  \
                     fix: say that you mean it with --yes\n"
                )
                .as_str()
            )
        );
        let ran = stage.run(&format!("{line} --yes"));
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    }
    let ran = stage.run("keyspace set 4 --sloppy write");
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (
            1,
            "error: sloppy quorums are not available\n  \
             why: they rest on hints, which this version does not keep: nobody may stand in for a \
             replica\n  \
             fix: leave it off; lower --write, if writes are to go on with fewer replicas\n"
        )
    );
    for line in [
        "keyspace set 4",
        "keyspace set --read ONE",
        "keyspace set 4 --ttl 5",
        "keyspace set 4 --sloppy maybe",
        "keyspace rm",
    ] {
        let ran = stage.run(line);
        assert_eq!((ran.code, ran.err.lines().count()), (2, 3), "{line}: {ran:?}");
    }
}

#[test]
fn the_number_of_copies_is_changed_only_where_every_member_says_that_there_is_no_key() {
    let stage = Stage::three();
    let ran = stage.run("keyspace set 2 --n 1");
    assert_eq!(
        (ran.code, ran.err.lines().next().unwrap()),
        (
            2,
            "error: nothing was done: refuse requests of keyspace 2 until every member has said that it \
             is empty, then make N=3 N=1"
        )
    );
    let ran = stage.run("keyspace set 2 --n 1 --yes");
    assert_eq!(
        ran.out,
        "\
keyspace 2   on the disks of n1, n2, n3
        N  READ    WRITE   DURABILITY  CONFLICT  TTL   FROM
before  3  QUORUM  QUORUM  os          lww       none  configuration
now     1  QUORUM  QUORUM  os          lww       none  set v1 by admin
"
    );
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let ran = stage.run("keyspace set 7 --n 1 --yes");
    assert_eq!(
        (ran.code, ran.out.as_str(), ran.err.as_str()),
        (
            1,
            "",
            "error: the copies of keyspace 7 are not changed\n  \
             why: n2 holds its key \"left\"\n  \
             fix: nothing moves keys in this version: delete them, or take another database\n"
        )
    );
}
