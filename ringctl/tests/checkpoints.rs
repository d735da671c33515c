//! Checkpoints, as a person asks for them.

use crate::stage::*;

#[test]
fn checkpoints_are_listed_made_and_removed_by_name() {
    let stage = Stage::three();
    let ran = stage.run("checkpoint ls n2");
    assert_eq!(
        ran.out,
        "\
NAME    MADE AT                      SIZE  NOT THE STORE'S   RM FREES  PATH
before  2025-11-25T20:23:46.197Z  3.0 MiB          1.0 MiB  512.0 KiB  /var/lib/ringdb/n2/checkpoints/before
later   2025-11-25T20:23:46.197Z  3.0 MiB          1.0 MiB  512.0 KiB  /var/lib/ringdb/n2/checkpoints/later
"
    );
    let ran = stage.run("checkpoint create n1 upgrade");
    assert_eq!(
        ran.out,
        "checkpoint upgrade of n1   3.0 MiB, of which 1.0 MiB are not the store's   \
         /var/lib/ringdb/n1/checkpoints/upgrade\n"
    );
    let made = stage.run("checkpoint create n1 -o json");
    let json: serde_json::Value = serde_json::from_str(&made.out).unwrap();
    let name = json["checkpoints"][0]["name"].as_str().unwrap();
    assert!(name.starts_with("20") && name.ends_with('Z') && !name.contains(':'), "{name}");
    let ran = stage.run("checkpoint rm n1 upgrade");
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(ran.err.starts_with("error: nothing was done: remove the checkpoint upgrade of n1\n"));
    let ran = stage.run("checkpoint rm n1 upgrade --yes");
    assert_eq!(ran.out, "checkpoint upgrade of n1 is gone   512.0 KiB are free again\n");
    let ran = stage.run("checkpoint ls n4");
    assert_eq!(ran.code, 2);
    assert!(ran.err.starts_with("error: no node has the name n4\n"), "{ran:?}");
}
