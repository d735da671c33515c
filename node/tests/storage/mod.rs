//! `ringd storage`: what it prints about a real node's directory, whole, damaged and mended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::{Node, RINGD, free_port, run, start_command, until};

/// What a tool printed, what it complained about, and how it ended.
fn tool(arguments: &[&str], dir: &Path) -> (String, String, i32) {
    let output = run(Command::new(RINGD).arg("storage").args(arguments).arg(dir));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
}

const SETTINGS: [&str; 4] =
    ["--engine-large-value-bytes", "1000", "--engine-memtable-bytes", "65536"];

/// A node's directory with tables, blob files and a log: a copy of one that a node filled once for all.
fn filled(dir: &Path) -> PathBuf {
    static FILLED: OnceLock<Vec<(PathBuf, Vec<u8>)>> = OnceLock::new();
    let files = FILLED.get_or_init(|| {
        let temporary = tempfile::tempdir().unwrap();
        fill(temporary.path());
        let data = temporary.path().join("data");
        let within = |part: &str| -> Vec<(PathBuf, Vec<u8>)> {
            let entries = fs::read_dir(data.join(part)).unwrap().map(|entry| entry.unwrap());
            let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
            let file = |entry: fs::DirEntry| {
                let path = entry.path();
                (path.strip_prefix(&data).unwrap().to_owned(), fs::read(path).unwrap())
            };
            files.map(file).collect()
        };
        [within(""), within("engine")].concat()
    });
    let data = dir.join("data");
    fs::create_dir_all(data.join("engine")).unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(data.join(name), bytes).unwrap());
    data
}

fn fill(dir: &Path) {
    let mut node = Node::start_with(dir, &SETTINGS);
    let mut client = node.client();
    // Memtables are small here, and a node that is behind with them refuses what it has done nothing of.
    let mut say = |words: &[&str]| {
        until("the node takes it", || {
            client.send(words);
            let reply = format!("{:?}", client.next());
            assert!(!reply.contains("Error") || reply.contains("OVERLOADED"), "{words:?}: {reply}");
            (!reply.contains("OVERLOADED")).then_some(())
        });
    };
    let mut set = |key: &str, value: &str| say(&["SET", key, value]);
    // First, so that they are no longer in memory alone in the end.
    for i in 0..30 {
        set(&format!("large:{i}"), &format!("{i:x}").repeat(2_000));
    }
    for i in 0..3_000_u64 {
        let value = format!("value {i} {:x}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).repeat(3);
        set(&format!("key:{i}"), &value);
    }
    for command in ["INCR visits", "INCR visits", "SET session abc EX 100000", "DEL key:7"] {
        say(&command.split(' ').collect::<Vec<_>>());
    }
    until("there are tables", || {
        let names = names(&dir.join("data/engine"));
        let of = |ending: &str| names.iter().any(|name| name.ends_with(ending));
        (of(".sst") && of(".blob")).then_some(())
    });
    node.stop();
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let engine = dir.join("engine");
    names(&engine).into_iter().map(|n| (n.clone(), fs::read(engine.join(n)).unwrap())).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_whole_store_is_shown_and_not_changed() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = filled(temporary.path());
    let before = content(&dir);

    let (text, errors, code) = tool(&["stats"], &dir);
    assert_eq!((code, errors.as_str()), (0, ""), "{text}");
    for part in
        ["level  tables", "amplification  space ", "large values   ", "blob file", "log      "]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (json, _, _) = tool(&["stats", "--json"], &dir);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let (tables, left) =
        (json["tables"].as_array().unwrap(), json["leftovers"].as_array().unwrap());
    // A node that stops may leave files that nobody needs any more, and none that are in force.
    let name = |table: &serde_json::Value| format!("{:010}.sst", table["number"].as_u64().unwrap());
    assert!(!tables.is_empty() && !tables.iter().any(|t| left.contains(&name(t).into())), "{json}");
    assert!(json["blobs"][0]["live_bytes"].as_u64().unwrap() > 0, "{json}");

    let (text, _, code) = tool(&["verify"], &dir);
    assert!(code == 0 && text.ends_with("the store is whole\n"), "{text}");

    let (text, _, _) = tool(&["dump", "--key", "visits"], &dir);
    assert!(
        text.starts_with("slot ") && text.ends_with(" db 0 \"visits\" = \"2\", counter\n"),
        "{text}"
    );
    let (text, _, _) = tool(&["dump", "--key", "session"], &dir);
    assert!(text.contains("= \"abc\", expires at "), "{text}");
    let (text, _, _) = tool(&["dump", "--key", "large:3"], &dir);
    assert!(text.contains("\"3333") && text.ends_with("…\" (2000 bytes)\n"), "{text}");
    let (text, _, _) = tool(&["dump", "--key", "large:3", "--full"], &dir);
    assert!(text.contains(&"3".repeat(2_000)));
    let (text, _, _) = tool(&["dump", "--json"], &dir);
    let rows: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.iter().filter(|row| !row["value"].is_null()).count(), 2_999 + 30 + 2);

    // Not any table: which rows a flush found together depends on when it began.
    let largest = tables.iter().max_by_key(|table| table["entries"].as_u64()).unwrap();
    let (text, _, code) = tool(&["dump", "--limit", "50", "--table", &name(largest)], &dir);
    assert!(code == 0 && text.lines().count() == 50, "{text}");
    assert!(text.lines().all(|line| line.contains(" @")), "{text}");
    assert_eq!(content(&dir), before, "looking changes nothing");
}

#[test]
fn damage_is_found_with_its_keys_and_repaired_as_far_as_it_can_be() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = filled(temporary.path());
    let engine = dir.join("engine");
    // One in force: files that nobody needs any more may be left over.
    let (json, _, _) = tool(&["stats", "--json"], &dir);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let first = |kind: &str, ending: &str| {
        format!("{:010}.{ending}", json[kind][0]["number"].as_u64().unwrap())
    };
    let (table, blob) = (first("tables", "sst"), first("blobs", "blob"));
    let middle = fs::metadata(engine.join(&table)).unwrap().len() / 2;
    flip(&engine.join(&table), usize::try_from(middle).unwrap());
    // In the data of the first large value, behind 8 bytes of the file and 13 of its block.
    flip(&engine.join(&blob), 8 + 13 + 5);

    let (text, errors, code) = tool(&["verify"], &dir);
    assert_eq!((code, errors.as_str()), (1, ""), "{text}");
    assert!(text.contains("DAMAGED in 2 places:"), "{text}");
    assert!(text.contains("\nwhy: ") && text.contains("\nfix: "), "{text}");
    // Which rows the table has, and so whether a block stands before the damaged one, depends on when it was flushed.
    let from = ["; keys from slot ", "; keys from what follows slot "];
    let to = [" to before slot ", " to before what follows slot "];
    let told = |edges: [&str; 2]| edges.iter().any(|edge| text.contains(edge));
    assert!(told(from) && told(to), "{text}");
    let line = text.lines().find(|line| line.contains("damaged at offset 8;")).unwrap();
    assert!(line.starts_with("  blob file ") && line.contains(" db 0 \"large:"), "{line}");

    let (_, errors, code) = tool(&["dump"], &dir);
    assert!(
        code == 2 && errors.starts_with("error: the store cannot be read any further\n  why: "),
        "{errors}"
    );
    assert!(errors.contains("\n  fix: "), "{errors}");

    let (mended, errors, code) = tool(&["repair"], &dir);
    let text = &mended;
    assert_eq!((code, errors.as_str()), (1, ""), "{text}");
    for part in ["kept       ", "rewritten  ", &format!("aside      {table}.bad"), "LOST       "] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(engine.join(format!("{table}.bad")).exists());
    let (text, _, code) = tool(&["verify"], &dir);
    assert!(code == 0 && text.contains(&format!("left over: {table}.bad")), "{text}");
    let (text, _, _) = tool(&["dump", "--json"], &dir);
    let found = text.lines().filter(|line| !line.contains("\"value\":null")).count();
    assert!((2_500..3_031).contains(&found), "{found} rows are left: {mended}");
    let (text, _, code) = tool(&["repair"], &dir);
    assert!(code == 0 && text.contains("lost       nothing"), "{text}");
}

#[test]
fn a_lost_manifest_is_made_anew_from_the_tables() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = filled(temporary.path());
    flip(&dir.join("engine/CURRENT"), 3);
    let manifest = names(&dir.join("engine")).into_iter().rfind(|n| n.starts_with("MANIFEST-"));
    flip(&dir.join("engine").join(manifest.unwrap()), 20);
    let (text, _, code) = tool(&["verify"], &dir);
    assert!(code == 1 && text.contains("manifest damaged; keys of the whole store"), "{text}");
    let (_, errors, code) = tool(&["stats"], &dir);
    assert!(code == 2 && errors.contains("ringd storage repair"), "{errors}");
    let (text, _, code) = tool(&["repair", "--json"], &dir);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(code == 1 && json["manifest_made_anew"] == true, "{json}");
    let mut node = Node::start_with(temporary.path(), &SETTINGS);
    let mut client = node.client();
    assert_eq!(client.ask("GET visits"), "2", "an operand that is applied twice counts once");
    for i in (0..30).step_by(7) {
        assert_eq!(client.ask(&format!("GET large:{i}")), format!("{i:x}").repeat(2_000));
    }
    node.stop();
}

#[test]
fn what_cannot_be_done_is_said_in_three_parts() {
    let temporary = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str], dir: &Path, what: &str| {
        let (text, errors, code) = tool(arguments, dir);
        assert_eq!((code, text.as_str()), (2, ""), "{errors}");
        let lines: Vec<&str> = errors.lines().collect();
        assert!(lines.len() == 3 && lines[0].contains(what), "{errors}");
        assert!(lines[1].starts_with("  why: ") && lines[2].starts_with("  fix: "), "{errors}");
    };
    refused(&["stats"], &temporary.path().join("nothing"), "cannot read");
    refused(&["verify"], temporary.path(), "there is no store in");
    let mut node = Node::start(temporary.path());
    node.client();
    let dir = temporary.path().join("data");
    for command in ["stats", "verify", "dump", "repair"] {
        let (_, errors, code) = tool(&[command], &dir);
        assert!(code == 2 && errors.contains("stop the node that uses it"), "{command}: {errors}");
    }
    node.stop();
    refused(&["dump", "--table", "77"], &dir, "cannot read the table 0000000077.sst");
}

#[test]
fn current_and_format_are_mended_by_themselves_and_that_is_said() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = filled(temporary.path());
    let (before, _, _) = tool(&["dump"], &dir);
    flip(&dir.join("engine/CURRENT"), 3);
    let (text, _, code) = tool(&["repair"], &dir);
    assert!(
        code == 0 && text.contains("mended     CURRENT") && text.contains("lost       nothing")
    );
    flip(&dir.join("engine/FORMAT"), 2);
    for command in ["stats", "verify", "dump"] {
        let (_, errors, code) = tool(&[command], &dir);
        assert!(code == 2 && errors.contains("FORMAT is damaged"), "{command}: {errors}");
        assert!(errors.contains("fix: ringd storage repair"), "{command}: {errors}");
    }
    let (text, _, code) = tool(&["repair", "--json"], &dir);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(code == 0 && json["written_anew"] == serde_json::json!(["FORMAT"]), "{json}");
    let (after, _, _) = tool(&["dump"], &dir);
    assert!(before == after, "not a row is lost or back");
}

#[test]
fn the_exit_code_is_the_verdict_whatever_becomes_of_the_output() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = filled(temporary.path());
    let ends = |command: &str, out: std::process::Stdio| {
        let mut tool = Command::new(RINGD);
        tool.args(["storage", command]).arg(&dir).stdout(out).stderr(std::process::Stdio::piped());
        let output = tool.spawn().unwrap().wait_with_output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into();
    let closed = || std::io::pipe().unwrap().1.into();
    for command in ["stats", "verify", "dump", "repair"] {
        let (code, errors) = ends(command, full());
        assert!(
            code == 2 && errors.contains("the output cannot be written"),
            "{command}: {errors}"
        );
        assert_eq!(ends(command, closed()), (0, String::new()), "{command}");
    }
    flip(&dir.join("engine").join(table_of(&dir)), 100);
    assert_eq!(ends("verify", closed()), (1, String::new()));
    assert_eq!(ends("repair", closed()), (1, String::new()));
}

/// A table in force.
fn table_of(dir: &Path) -> String {
    let (json, _, _) = tool(&["stats", "--json"], dir);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    format!("{:010}.sst", json["tables"][0]["number"].as_u64().unwrap())
}

#[test]
fn what_a_repair_writes_belongs_to_whom_the_directory_does() {
    use std::os::unix::fs::{MetadataExt, chown};
    let temporary = tempfile::tempdir().unwrap();
    let dir = filled(temporary.path());
    let engine = dir.join("engine");
    // Only root can give files away; for anybody else all is his already.
    let given = chown(&engine, Some(12_345), Some(12_345)).is_ok();
    for name in names(&engine) {
        assert_eq!(chown(engine.join(name), Some(12_345), Some(12_345)).is_ok(), given);
    }
    flip(&engine.join(table_of(&dir)), 100);
    fs::remove_file(engine.join("LOCK")).unwrap();
    let (text, _, code) = tool(&["repair"], &dir);
    assert!(code == 1 && text.contains("rewritten  1 table"), "{text}");
    let owner = fs::metadata(&engine).unwrap().uid();
    for name in names(&engine) {
        assert_eq!(fs::metadata(engine.join(&name)).unwrap().uid(), owner, "{name}");
    }
}

#[test]
fn only_a_table_is_dumped_as_one() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = filled(temporary.path());
    let blob = names(&dir.join("engine")).into_iter().find(|n| n.ends_with(".blob")).unwrap();
    let (text, errors, code) = tool(&["dump", "--table", &blob], &dir);
    assert_eq!((text.as_str(), code), ("", 2));
    assert!(errors.starts_with(&format!("error: {blob} is no table")), "{errors}");
}

#[test]
fn a_node_without_peers_that_cannot_open_its_store_is_sent_to_the_repair() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = filled(temporary.path());
    fs::remove_file(dir.join("engine/CURRENT")).unwrap();
    let output = run(&mut start_command(temporary.path(), free_port(), free_port()));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("manifest damaged; keys of the whole store"), "{errors}");
    let fix = errors.lines().find(|line| line.starts_with("  fix: ")).unwrap();
    assert!(fix.contains("ringd storage repair ") && !fix.contains("peer"), "{fix}");
}
