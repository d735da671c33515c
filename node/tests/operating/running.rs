//! What is changed and looked at while a node runs: levels of the log, slow commands, the configuration.

use std::process::Command;

use super::metric;
use crate::support::{Node, RINGD, run};

#[test]
fn the_level_of_the_log_is_changed_while_the_node_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start_with(dir.path(), &["--log-level", "warn"]);
    let mut client = node.client();
    assert!(!node.log().contains("INFO"), "{}", node.log());
    assert_eq!(client.ask("CONFIG GET loglevel"), "[loglevel, warn]");
    assert_eq!(client.ask("CONFIG SET loglevel debug"), "OK");
    assert!(node.log().contains("the level of the log was changed"), "{}", node.log());
    assert_eq!(client.ask("CONFIG SET loglevel info,ringdb_node=debug"), "OK");
    assert_eq!(client.ask("CONFIG GET loglevel"), "[loglevel, info,ringdb_node=debug]");
    let refused = client.ask("CONFIG SET loglevel loud");
    assert!(refused.contains("\"loud\" is no level. fix: "), "{refused}");
    node.stop();
}

#[test]
fn names_of_levels_that_redis_has_mean_the_same_at_the_start_as_later() {
    for (level, tells) in [("verbose", true), ("notice", true), ("warning", false)] {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Node::start_with(dir.path(), &["--log-level", level]);
        let mut client = node.client();
        assert_eq!(client.ask("CONFIG GET loglevel"), format!("[loglevel, {level}]"));
        let log = node.log();
        assert_eq!(log.contains("INFO"), tells, "{level}: {log}");
        node.stop();
    }
}

#[test]
fn a_slow_command_is_listed_logged_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    let mut client = node.client();
    client.ask("CLIENT SETNAME worker");
    assert_eq!(
        client.ask("CONFIG GET slowlog-log-slower-than"),
        "[slowlog-log-slower-than, 100000]"
    );
    // As in Redis: everything is slow.
    assert_eq!(client.ask("CONFIG SET slowlog-log-slower-than 0"), "OK");
    assert_eq!(client.ask("SET user:1 x"), "OK");
    let listed = client.ask("SLOWLOG GET 1");
    assert!(listed.contains("[set, user:1]") && listed.contains("worker"), "{listed}");
    assert_ne!(client.ask("SLOWLOG LEN"), "0");
    let log = node.log();
    assert!(log.contains("a slow command command=\"set\" key=\"user:1\""), "{log}");
    assert!(metric(&node, "ringdb_slow_commands_total").is_some_and(|count| count >= 1.0));
    assert_eq!(client.ask("CONFIG SET slowlog-log-slower-than -1"), "OK");
    assert_eq!(client.ask("SLOWLOG RESET"), "OK");
    assert_eq!(client.ask("SET user:1 y"), "OK");
    assert_eq!(client.ask("SLOWLOG LEN"), "0");
    node.stop();
}

#[test]
fn the_configuration_is_printed_with_the_source_of_each_setting_and_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringd.toml");
    let text = "[redis]\nmaxclients = 5\nidle_timeout_s = 6\nrequirepass = \"hidden\"\n\
                [redis.users]\napp = { password = \"hidden\", rules = \"~* +@all >hidden\" }\n";
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(RINGD);
    command.args(["config", "print", "--with-source", "--redis-maxclients", "7", "--config"]);
    let output = run(command.arg(&file).env("RINGDB__KEYSPACE__READ", "ONE"));
    let shown = String::from_utf8(output.stdout).unwrap();
    for line in [
        "maxclients = 7  # --redis-maxclients".to_owned(),
        format!("idle_timeout_s = 6  # {}", file.display()),
        "read = \"ONE\"  # RINGDB__KEYSPACE__READ".to_owned(),
        "queue_max_ms = 400  # default".to_owned(),
        format!("requirepass = \"***\"  # {}", file.display()),
        format!("users = {{ app = \"***\" }}  # {}", file.display()),
        "# tls_cert is not set".to_owned(),
    ] {
        assert!(shown.lines().any(|l| l == line), "{line}\n{shown}");
    }
    assert!(!shown.contains("hidden"), "{shown}");
}

#[test]
fn what_is_printed_has_every_setting_and_is_a_configuration_that_prints_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first.toml"), dir.path().join("second.toml"));
    let text = "[redis]\nrequirepass = \"hidden\"\nusers = { a-b = \"hidden\" }\n\
                [cluster]\nmembers = [{ name = \"n1\", peer = \"127.0.0.1:7400\" }]\n\
                [keyspace]\nn = 2\nwrite = \"ALL\"\n[keyspace.db.3]\nread = \"ONE\"\n";
    std::fs::write(&first, text).unwrap();
    let ringd = |what: &str, file: &std::path::Path, more: &[&str]| {
        let output =
            run(Command::new(RINGD).args(["config", what, "--config"]).arg(file).args(more));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = ringd("print", &first, &[]);
    std::fs::write(&second, &printed).unwrap();
    assert_eq!(ringd("print", &second, &[]), printed);
    ringd("check", &second, &[]);
    std::fs::write(&second, ringd("print", &first, &["--with-source"])).unwrap();
    assert_eq!(ringd("print", &second, &[]), printed);
    for key in ringdb_node::config::keys::KEYS {
        let (head, name) = key.path.split_once('.').unwrap();
        let (_, rest) = printed.split_once(&format!("[{head}]\n")).unwrap();
        let section = rest.split("\n[").next().unwrap();
        let holds =
            |l: &str| l.starts_with(&format!("{name} = ")) || l == format!("# {name} is not set");
        assert_eq!(section.lines().filter(|l| holds(l)).count(), 1, "{}\n{printed}", key.path);
    }
    for line in ["[keyspace.db.3]", "read = \"ONE\"", "# cert is not set", "# cores is not set"] {
        assert!(printed.lines().any(|l| l == line), "{line}\n{printed}");
    }
    assert!(printed.contains("\n# [keyspace.db.N], N from 0 to 15, sets n, read, "), "{printed}");
}
