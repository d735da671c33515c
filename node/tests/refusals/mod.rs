//! Refusals: three lines that say what, why and how to go on, and exit code 2.

mod certificates;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::support::{Node, RINGD, free_port, run, start_command};

/// The three lines of a command that must be refused.
fn refusal(command: &mut Command) -> String {
    let output = run(command);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|l| l.starts_with("error: ")).expect("an error is told");
    assert_eq!(lines.len() - at, 3, "{text}");
    assert!(lines[at + 1].starts_with("  why: ") && lines[at + 2].starts_with("  fix: "), "{text}");
    format!("{}\n", lines[at..].join("\n"))
}

fn check(dir: &Path, config: &str) -> Command {
    let path = dir.join("ringd.toml");
    fs::write(&path, config).unwrap();
    let mut command = Command::new(RINGD);
    command.args(["config", "check", "--config"]).arg(path);
    command
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ringd.toml");
    assert_eq!(
        refusal(&mut check(dir.path(), "[redis]\nmaxclient = 5\n")),
        format!(
            "error: unknown setting redis.maxclient\n  why: {} sets it, and there is no such key\n  \
             fix: did you mean redis.maxclients?\n",
            path.display()
        )
    );
    let mut command = Command::new(RINGD);
    let text = refusal(command.args(["config", "check"]).env("RINGDB__NODE__NAEM", "x"));
    assert!(
        text.contains("RINGDB__NODE__NAEM") && text.contains("did you mean node.name?"),
        "{text}"
    );
}

#[test]
fn an_unknown_key_of_one_database_is_refused_with_the_one_that_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |config: &str| refusal(&mut check(dir.path(), config));
    let text = refused("[keyspace.db.3]\nreed = \"ONE\"\n");
    assert!(text.ends_with("\n  fix: did you mean keyspace.db.3.read?\n"), "{text}");
    let mut command = Command::new(RINGD);
    let variable = "RINGDB__KEYSPACE__DB__3__REED";
    let text = refusal(command.args(["config", "check"]).env(variable, "ONE"));
    assert!(text.contains(&format!("why: {variable} sets it")), "{text}");
    assert!(text.ends_with("\n  fix: did you mean keyspace.db.3.read?\n"), "{text}");
    for config in ["[keyspace.db.3]\nlevel = 1\n", "[keyspace.db.16]\nread = \"ONE\"\n"] {
        let text = refused(config);
        assert!(
            text.contains("fix: write [keyspace.db.N] with N from 0 to 15, and in it n, read"),
            "{text}"
        );
    }
}

#[test]
fn values_of_the_wrong_kind_are_refused_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    for (config, what) in [
        ("[redis]\nmaxclients = \"many\"\n", "error: redis.maxclients cannot be \"many\""),
        ("[redis]\nlisten = \"localhost\"\n", "error: redis.listen cannot be \"localhost\""),
        ("[keyspace]\nread = \"MOST\"\n", "error: keyspace.read cannot be \"MOST\""),
        ("[keyspace]\nn = 2\nwrite = \"THREE\"\n", "error: [keyspace] makes no sense"),
        ("[tls]\nca = \"ca.pem\"\n", "error: [tls] is not complete"),
        ("[node]\ncores = 0\n", "error: node.cores cannot be 0"),
        ("what\n", "is no TOML"),
        ("[cluster]\nmembers = [{ name = \"n2\", peer = \"h:1\" }]\n", "n1 is no member"),
        ("[cluster]\nmembers = [{ nam = \"n2\" }]\n", "cluster.members has a wrong field"),
    ] {
        let text = refusal(&mut check(dir.path(), config));
        assert!(text.contains(what), "{text}");
    }
}

#[test]
fn a_word_that_is_no_level_of_the_log_is_refused_by_the_check_and_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let told = "error: log.level cannot be \"chatty\"\n  why: \"chatty\" is no level; possible are \
                error, warn, info, debug, or directives such as info,ringdb_node=debug\n  \
                fix: correct it where it is set: ";
    let mut flag = Command::new(RINGD);
    flag.args(["config", "check", "--log-level", "chatty"]);
    assert_eq!(refusal(&mut flag), format!("{told}--log-level\n"));
    let mut start = start_command(dir.path(), free_port(), free_port());
    let text = refusal(start.env("RINGDB__LOG__LEVEL", "chatty"));
    assert_eq!(text, format!("{told}RINGDB__LOG__LEVEL\n"));
    let file = refusal(&mut check(dir.path(), "[log]\nlevel = \"chatty\"\n"));
    assert!(file.starts_with(told) && file.ends_with("ringd.toml\n"), "{file}");
    for wrong in ["", "info,chatty", "chatty,info", "ringdb_node=loud"] {
        let mut command = Command::new(RINGD);
        refusal(command.args(["config", "check", "--log-level", wrong]));
    }
    for right in ["off", "WARN", "trace", "notice", "Verbose", "warn,ringdb_node=debug"] {
        let mut command = Command::new(RINGD);
        let output = run(command.args(["config", "check", "--log-level", right]));
        assert!(output.status.success(), "{right}");
    }
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ringd.toml");
    fs::write(&path, "[redis]\nmaxclients = 1\nidle_timeout_s = 1\n[http]\nlisten = \"\"\n")
        .unwrap();
    let mut command = Command::new(RINGD);
    command
        .args(["config", "print", "--with-source", "--redis-maxclients", "3", "--config"])
        .arg(&path)
        .env("RINGDB__REDIS__MAXCLIENTS", "2")
        .env("RINGDB__REDIS__IDLE_TIMEOUT_S", "2")
        .env("RINGDB__REDIS__REQUIREPASS", "secret");
    let output = run(&mut command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in [
        "maxclients = 3  # --redis-maxclients\n".to_owned(),
        "idle_timeout_s = 2  # RINGDB__REDIS__IDLE_TIMEOUT_S\n".to_owned(),
        format!("listen = \"\"  # {}\n", path.display()),
        "allow_flush = false  # default\n".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is missing:\n{text}");
    }
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    assert_eq!(
        refusal(&mut start_command(dir.path(), port, free_port())),
        format!(
            "error: cannot listen for Redis clients on 127.0.0.1:{port}\n  \
             why: Address already in use (os error 98)\n  \
             fix: stop what uses the port (perhaps another ringd), or set another redis.listen\n"
        )
    );
    let mut several = start_command(dir.path(), port, free_port());
    assert!(refusal(several.args(["--node-cores", "2"])).contains("Address already in use"));
}

#[test]
fn strangers_are_not_served_without_a_password() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(RINGD);
    command
        .args(["start", "--redis-listen", "0.0.0.0:6379", "--node-data-dir"])
        .arg(dir.path().join("data"));
    assert_eq!(
        refusal(&mut command),
        "error: redis.listen = 0.0.0.0:6379 would serve everybody\n  \
         why: the address is not a loopback address, and no password is set\n  \
         fix: set redis.requirepass or redis.users, or listen on 127.0.0.1\n"
    );
}

#[test]
fn joining_points_to_the_static_list() {
    let mut command = Command::new(RINGD);
    let text = refusal(command.args(["start", "--join", "10.0.0.1:7400"]));
    assert!(text.contains("cluster.members"), "{text}");
}

#[test]
fn data_of_another_cluster_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    drop(node.client());
    node.stop();
    let mut command = start_command(dir.path(), free_port(), free_port());
    let other = "00000000000000000000000000000007";
    let text = refusal(command.args(["--cluster-id", other]));
    assert!(text.contains("belongs to another cluster") && text.contains(other), "{text}");
    let mut command = start_command(dir.path(), free_port(), free_port());
    let text = refusal(command.args(["--node-name", "n9"]));
    assert!(text.contains("belongs to another node"), "{text}");
    let path = dir.path().join("data/node.state");
    let state = fs::read_to_string(&path).unwrap().replace("format = 1", "format = 99");
    fs::write(&path, state).unwrap();
    let text = refusal(&mut start_command(dir.path(), free_port(), free_port()));
    assert!(text.contains("another format") && text.contains("99"), "{text}");
}

#[test]
fn two_nodes_do_not_share_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    drop(node.client());
    let text = refusal(&mut start_command(dir.path(), free_port(), free_port()));
    assert!(text.contains("open in another process"), "{text}");
    drop(node.client());
}
