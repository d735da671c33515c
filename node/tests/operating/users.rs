//! Users: rights from the configuration, from a file and by command; what is refused is told, logged
//! and counted.

use std::fs;

use super::metric;
use crate::support::{Client, Node, until};

const DENIED_KEY: &str = "-NOPERM No permissions to access a key";

fn users() -> [&'static str; 4] {
    let table = r#"{ admin = "top", app = { password = "s3", rules = "~app:* +@read +set consistency=one" } }"#;
    ["--redis-users", table, "--keyspace-n", "1"]
}

#[test]
fn a_user_without_the_right_to_a_key_is_refused_logged_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_with(dir.path(), &users());
    let mut client = until("the node listens", || Client::connect(node.port));
    assert_eq!(client.ask("GET app:1"), "-NOAUTH Authentication required.");
    assert!(client.ask("AUTH app wrong").starts_with("-WRONGPASS"));
    assert_eq!(client.ask("AUTH app s3"), "OK");
    until("it serves", || (client.ask("SET app:1 x") == "OK").then_some(()));
    assert_eq!(client.ask("GET app:1"), "x");
    assert_eq!(client.ask("GET secret:1"), DENIED_KEY);
    assert_eq!(client.ask("GET secret:1"), DENIED_KEY);
    let denied = "-NOPERM User app has no permissions to run the 'config|get' command";
    assert_eq!(client.ask("CONFIG GET port"), denied);
    for (reason, count) in [("auth", 1.0), ("key", 2.0), ("command", 1.0)] {
        let line = format!("ringdb_acl_denied_total{{reason=\"{reason}\"}}");
        assert_eq!(metric(&node, &line), Some(count), "{reason}");
    }
    let log = node.log();
    for told in ["reason=\"key\" object=\"secret:1\"", "object=\"config|get\"", "reason=\"auth\""] {
        assert_eq!(log.matches(told).count(), 1, "{told} once:\n{log}");
    }
    let mut admin = Client::connect(node.port).unwrap();
    assert_eq!(admin.ask("AUTH admin top"), "OK");
    let told = admin.ask("ACL LOG");
    assert!(
        told.contains("[count, 2, reason, key,") && told.contains("object, secret:1"),
        "{told}"
    );
    node.stop();
}

#[test]
fn users_that_are_saved_are_there_after_a_restart_and_their_changes_hold_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users.acl");
    let flags = ["--redis-acl-file", file.to_str().unwrap()];
    let mut node = Node::start_with(dir.path(), &flags);
    let mut root = node.client();
    assert_eq!(root.ask("ACL SETUSER bob on >pw ~bob:* -@all +get +set"), "OK");
    let mut bob = node.client();
    assert_eq!(bob.ask("AUTH bob pw"), "OK");
    assert_eq!(bob.ask("SET bob:1 x"), "OK");
    assert_eq!(root.ask("ACL SETUSER bob -set"), "OK");
    let denied = "-NOPERM User bob has no permissions to run the 'set' command";
    assert_eq!(bob.ask("SET bob:1 y"), denied);
    assert_eq!(root.ask("ACL SAVE"), "OK");
    assert_eq!(root.ask("ACL DELUSER bob"), "1");
    until("bob's connection is closed", || {
        bob.send(&["GET", "bob:1"]);
        bob.next().is_none().then_some(())
    });
    assert_eq!(root.ask("ACL LOAD"), "OK");
    assert_eq!(root.ask("ACL USERS"), "[bob, default]");
    node.stop();
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("pw") && text.contains("user bob on #"), "{text}");
    let mut node = Node::start_with(dir.path(), &flags);
    let mut bob = node.client();
    assert_eq!(bob.ask("AUTH bob pw"), "OK");
    assert_eq!(bob.ask("GET bob:1"), "x");
    assert_eq!(bob.ask("SET bob:1 y"), denied);
    node.stop();
}
