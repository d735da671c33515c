//! Contexts, variables and manual pages: what ringctl knows without asking anybody.

use std::fs;

use crate::stage::*;

const FILE: &str = "\
# the two that I look after
current = \"prod\"   # usually

[contexts.prod]
cluster = \"prod\"
nodes = [\"10.0.0.1:7400\", \"10.0.0.2:7400\"]
ca = \"certs/ca.pem\"
cert = \"certs/admin.pem\"
key = \"certs/admin.key\"
readonly = true

[contexts.test]
nodes = [\"10.0.9.1:7400\"]
ca = \"test/ca.pem\"
cert = \"test/admin.pem\"
key = \"test/admin.key\"
";

fn home() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join(".config/ringctl");
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("config.toml"), FILE).unwrap();
    dir
}

#[test]
fn contexts_are_listed_and_chosen_and_the_file_stays_as_it_was_written() {
    let dir = home();
    let ran = alone(dir.path(), "ctx ls");
    assert_eq!(
        (ran.out.as_str(), ran.err.as_str()),
        (
            "\
\x20  NAME  CLUSTER  NODES
*  prod  prod     10.0.0.1:7400 10.0.0.2:7400  readonly
   test  -        10.0.9.1:7400
",
            ""
        )
    );
    let file = dir.path().join(".config/ringctl/config.toml");
    let ran = alone(dir.path(), "ctx use test");
    let out = format!("current context: test   in {}\n", file.display());
    assert_eq!((ran.out, ran.code), (out, 0));
    let changed = FILE.replace("current = \"prod\"   #", "current = \"test\"   #");
    assert_eq!(fs::read_to_string(&file).unwrap(), changed);
    let json = alone(dir.path(), "ctx ls -o json").out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["schema"], "ringctl/v1");
    assert_eq!(json["contexts"][0]["readonly"], true);
    assert_eq!(json["contexts"][1]["current"], true);

    let ran = alone(dir.path(), "ctx use nowhere");
    let err = format!(
        "error: no context nowhere in {}\n  why: it has prod, test\n  \
         fix: name one of those, or add it to the file\n",
        file.display()
    );
    assert_eq!((ran.err, ran.code), (err, 2));
    assert_eq!(fs::read_to_string(&file).unwrap(), changed);
}

#[test]
fn every_flag_has_a_variable_and_the_flag_wins() {
    let dir = tempfile::tempdir().unwrap();
    let with = |line: &str, name: &str, value: &str| {
        let mut command = command_in(dir.path(), line);
        let output = command.env(name, value).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(with("version", "RINGCTL_OUTPUT", "csv").starts_with("ringctl,wire,wire_min\n"));
    assert!(with("version -o table", "RINGCTL_OUTPUT", "csv").starts_with("ringctl "));
    let made = with("cert ca-init", "RINGCTL_CERT_CA_INIT_CLUSTER", "prod");
    assert!(made.starts_with("cluster      prod\n"), "{made}");
}

#[test]
fn a_page_of_the_manual_is_written_for_each_command() {
    let dir = tempfile::tempdir().unwrap();
    let ran = alone(dir.path(), "man pages");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.ends_with(
        " pages in pages\nnext: man pages/ringctl.1, or move them to a directory man1 of MANPATH\n"
    ));
    for name in ["ringctl.1", "ringctl-status.1", "ringctl-ring-owners.1", "ringctl-cert-issue.1"] {
        let page = fs::read_to_string(dir.path().join("pages").join(name)).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{name}");
    }
    fs::write(dir.path().join("file"), "").unwrap();
    let ran = alone(dir.path(), "man file");
    assert_eq!((ran.code, ran.err.lines().count()), (1, 3), "{ran:?}");
    assert!(ran.err.starts_with("error: the pages cannot be written to file\n"), "{ran:?}");
}
