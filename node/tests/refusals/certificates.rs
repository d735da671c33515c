//! Certificates that do not do are refused by the check of a configuration as by a start, which touches
//! nothing before.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use certs::{CaPair, Role, Subject, Validity};
use ring::NodeId;

use super::{check, refusal};
use crate::support::{Node, free_port, run, start_command};

/// An authority and the directory that it writes to.
struct Story {
    ca: CaPair,
    dir: tempfile::TempDir,
}

impl Story {
    fn new() -> Self {
        Self { ca: certs::ca_init("prod").unwrap(), dir: tempfile::tempdir().unwrap() }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The certificate and the key of this subject, in a directory of that name.
    fn issue(&self, dir: &str, subject: &Subject, validity: Validity) -> [PathBuf; 2] {
        let pair = certs::issue(&self.ca, subject, validity).unwrap();
        let files = pair.write(&self.dir().join(dir)).unwrap();
        [files.cert, files.key]
    }

    fn expired(&self) -> [PathBuf; 2] {
        let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
        let past = Validity { not_before: now - 2 * day, not_after: now - day };
        self.issue("old", &Subject::node("n1", NodeId(1)), past)
    }

    fn good(&self) -> [PathBuf; 2] {
        self.issue("good", &Subject::node("n1", NodeId(1)), Validity::days(2))
    }

    fn cluster(&self, [cert, key]: &[PathBuf; 2]) -> String {
        let ca = self.dir().join("good").join("ca.pem");
        format!("[tls]\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\n")
    }
}

fn redis([cert, key]: &[PathBuf; 2]) -> String {
    let listen = "tls_listen = \"127.0.0.1:1\"";
    format!("[redis]\n{listen}\ntls_cert = {cert:?}\ntls_key = {key:?}\n")
}

#[test]
fn the_check_opens_the_certificates_of_the_cluster_and_of_the_redis_port() {
    let story = Story::new();
    let (good, expired) = (story.good(), story.expired());
    let nowhere = [good[0].clone(), "/nowhere/n1.key".into()];
    let missing = ["/nowhere/n1.pem".into(), good[1].clone()];
    let mixed = [good[0].clone(), expired[1].clone()];
    for config in [story.cluster(&good), redis(&good)] {
        let output = run(&mut check(story.dir(), &config));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let refused = |config: &str| refusal(&mut check(story.dir(), config));
    for (files, told) in [
        (&missing, "error: /nowhere/n1.pem is missing"),
        (&nowhere, "error: /nowhere/n1.key is missing"),
        (&expired, "old/n1.pem has expired\n"),
        (&mixed, "old/n1.key belongs to another certificate"),
    ] {
        for config in [story.cluster(files), redis(files)] {
            let text = refused(&config);
            assert!(text.contains(told), "{config}\n{text}");
        }
    }
}

#[test]
fn a_certificate_that_is_not_this_nodes_own_is_refused_before_a_new_life_begins() {
    let story = Story::new();
    let good = story.cluster(&story.good());
    let file = story.dir().join("ringd.toml");
    fs::write(&file, &good).unwrap();
    let path = file.display().to_string();
    let node = Node::start_with(story.dir(), &["--config", &path]);
    // Killed, so that the next life is another one.
    let mut node = node;
    drop(node.client());
    node.process.kill();
    let state = story.dir().join("data/node.state");
    let before = fs::read(&state).unwrap();
    let other = Subject::node("n1", NodeId(2));
    let client = Subject::of_role("app", Role::Client);
    for (dir, subject, why) in [
        ("client", client, "client app of prod has a certificate, but not one of a node"),
        ("other", other, "the certificate of node n1 of prod is for n2, and is not for n1"),
    ] {
        let [cert, key] = story.issue(dir, &subject, Validity::days(2));
        let told = format!(
            "error: the certificate in {} is not this node's own\n  why: {why}\n  \
             fix: ringctl cert issue n1 --node-id 1\n",
            cert.display()
        );
        let config = story.cluster(&[cert, key]);
        assert_eq!(refusal(&mut check(story.dir(), &config)), told);
        let mut start = start_command(story.dir(), free_port(), free_port());
        let output = run(start.args(["--config", &path]));
        assert_eq!(String::from_utf8_lossy(&output.stderr), told, "nothing is logged before");
        assert_eq!(fs::read(&state).unwrap(), before, "no new incarnation");
    }
}
