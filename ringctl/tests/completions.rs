//! What shells complete: words that there are, options behind names too, and files only where files are meant.

use crate::stage::*;

fn script(shell: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let ran = alone(dir.path(), &format!("completions {shell}"));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{shell}");
    ran.out
}

/// What the script for bash does after `option` of `command`.
fn after(script: &str, command: &str, option: &str) -> String {
    let command = format!("        ringctl__subcmd__{})\n", command.replace(' ', "__subcmd__"));
    let (_, rest) = script.split_once(&command).expect(&command);
    let (_, rest) = rest.split_once(&format!(" {option})\n")).expect(option);
    rest.lines().find(|line| line.contains("COMPREPLY")).unwrap().trim().to_owned()
}

#[test]
fn options_are_completed_after_words_that_may_be_repeated() {
    let script = script("zsh");
    assert!(script.contains("'*:names -- "), "{script}");
    assert!(!script.contains("'*::"), "zsh would know of nothing else from there on");
}

#[test]
fn files_are_offered_where_a_file_is_meant_and_nowhere_else() {
    let script = script("bash");
    for (command, option, words) in [
        ("keyspace set", "--conflict", "lww siblings"),
        ("keyspace set", "--durability", "os sync"),
        ("keyspace set", "--sloppy", "off write readwrite"),
        ("keyspace set", "--read", "one two three quorum all"),
        ("cert issue", "--role", "node client admin"),
        ("bench", "--level", "one two three quorum all"),
        ("key get", "-c", "one two three quorum all"),
    ] {
        let offered = format!("COMPREPLY=($(compgen -W \"{words}\" -- \"${{cur}}\"))");
        assert_eq!(after(&script, command, option), offered, "{command} {option}");
    }
    for (command, option) in [
        ("ring slots", "--of"),
        ("ring slots", "--slot"),
        ("keyspace set", "--ttl"),
        ("bench", "--redis"),
        ("status", "--context"),
        ("status", "--node"),
    ] {
        assert_eq!(after(&script, command, option), "COMPREPLY=(\"${cur}\")", "{command} {option}");
    }
    assert!(after(&script, "status", "--config").contains("compgen -f"));
    // The names of nodes are asked of the cluster.
    assert!(script.contains("*\" --node\" | *\" --of\" | "));
}
