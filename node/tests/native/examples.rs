//! The examples of the client, run against a cluster, and the application that the README prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::runtime;
use crate::support::demo::Demo;
use crate::support::run;

#[path = "../../../client/examples/counter.rs"]
#[allow(dead_code, reason = "its main is for people")]
mod counter;
#[path = "../../../client/examples/hello.rs"]
#[allow(dead_code, reason = "its main is for people")]
mod hello;
#[path = "../../../client/examples/range.rs"]
#[allow(dead_code, reason = "its main is for people")]
mod range;
#[path = "../../../client/examples/readme.rs"]
mod readme;
#[path = "../../../client/examples/session.rs"]
#[allow(dead_code, reason = "its main is for people")]
mod session;
#[path = "../../../client/examples/siblings.rs"]
#[allow(dead_code, reason = "its main is for people")]
mod siblings;

/// Set in the process that is the README's application.
const AS_README: &str = "RINGDB_TEST_AS_README";

fn from_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[test]
fn every_example_says_what_it_should() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    let file = dir.path().join("ringctl.toml");
    runtime().block_on(async {
        let said = hello::hello(&file).await.unwrap();
        assert_eq!(said, ["greeting: hello", "greeting: hello, world", "greeting: (none)"]);
        let said = siblings::siblings(&file).await.unwrap();
        assert_eq!(said, ["concurrent: apple | pear", "joined: apple and pear"]);
        let said = counter::counter(&file).await.unwrap();
        let expected =
            ["ten times 3 and ten times -1: 20", "with 100 more: 120", "sent once more: 120"];
        assert_eq!(said, expected);
        let said = range::range(&file).await.unwrap();
        let expected = [
            "2026-03-01: 4 °C",
            "2026-03-15: 18 °C",
            "latest: 2026-12-15, 2026-12-01",
            "12 removed, 12 left",
        ];
        assert_eq!(said, expected);
        let said = session::session(&file).await.unwrap();
        assert_eq!(said, ["here: after", "elsewhere: after"]);
    });
    demo.stop();
}

#[test]
fn the_application_in_the_readme_runs_as_it_is_printed() {
    if std::env::var_os(AS_README).is_some() {
        readme::run().unwrap();
        return;
    }
    let source = fs::read_to_string(from_root("client/examples/readme.rs")).unwrap();
    let (_, rest) = source.split_once("\n\n").unwrap();
    let (printed, _) = rest.split_once("\n#[cfg(test)]").unwrap();
    let text = fs::read_to_string(from_root("README.md")).unwrap();
    assert!(text.contains(&format!("```rust\n{printed}```")), "the README prints another one");

    // Beside a demo, as whoever follows the README starts it; in a directory of its own, hence a process.
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(&dir.path().join("ringdb-demo"));
    for visit in 1..=2 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let name = "native::examples::the_application_in_the_readme_runs_as_it_is_printed";
        command.args(["--exact", name, "--nocapture"]).env(AS_README, "").current_dir(dir.path());
        let said = String::from_utf8(run(&mut command).stdout).unwrap();
        assert!(said.contains(&format!("visit {visit}\n")), "{said}");
    }
    assert_eq!(demo.client(1).ask("GET cart:42"), "three apples");
    demo.stop();
}
