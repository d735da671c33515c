//! The file of contexts.

use std::fs;
use std::path::{Path, PathBuf};

use ringdb_client::context::{ContextError, ContextFile};

fn load(text: &str) -> (tempfile::TempDir, PathBuf, Result<ContextFile, ContextError>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ringctl.toml");
    fs::write(&path, text).unwrap();
    let loaded = ContextFile::load(&path);
    (dir, path, loaded)
}

const TWO: &str = r#"
current = "demo"

[contexts.demo]
cluster = "demo"
nodes = ["127.0.0.1:7101", "127.0.0.1:7102"]
ca = "certs/ca.pem"
cert = "certs/admin.pem"
key = "/elsewhere/admin.key"

[contexts.prod]
nodes = ["10.0.0.11:7400"]
ca = "ca.pem"
cert = "me.pem"
key = "me.key"
"#;

#[test]
fn paths_are_relative_to_the_file() {
    let (dir, path, loaded) = load(TWO);
    let loaded = loaded.unwrap();
    let demo = loaded.choose(None, &path).unwrap();
    assert_eq!(demo.nodes, ["127.0.0.1:7101", "127.0.0.1:7102"]);
    assert_eq!(demo.tls_files().ca, dir.path().join("certs/ca.pem"));
    assert_eq!(demo.tls_files().key, Path::new("/elsewhere/admin.key"));
    let prod = loaded.choose(Some("prod"), &path).unwrap();
    assert_eq!(prod.cluster, None);
}

#[test]
fn without_a_choice_the_only_one_is_taken_and_of_two_none() {
    let one = "[contexts.x]\nnodes = []\nca = ''\ncert = ''\nkey = ''\n";
    let (_dir, path, loaded) = load(one);
    assert!(loaded.unwrap().choose(None, &path).is_ok());
    let (_dir, path, loaded) = load(&format!("{one}{}", one.replace(".x", ".y")));
    let file = loaded.unwrap();
    let error = file.choose(None, &path).unwrap_err();
    assert_eq!(error.told().why, "it has x, y");
    let error = file.choose(Some("z"), &path).unwrap_err();
    assert!(matches!(error, ContextError::Unknown { .. }), "{error}");
}

#[test]
fn a_misspelt_key_is_named_with_its_line() {
    let (_dir, path, loaded) = load(&TWO.replace("cert = \"me.pem\"", "crt = \"me.pem\""));
    let error = loaded.unwrap_err();
    assert!(
        error.to_string().starts_with(&format!(
            "{} is no file of contexts\n  why: line 14: unknown field `crt`",
            path.display()
        )),
        "{error}"
    );
    let missing = ContextFile::load(Path::new("/nowhere/ringctl.toml")).unwrap_err();
    assert!(matches!(missing, ContextError::Unreadable { .. }), "{missing}");
}
