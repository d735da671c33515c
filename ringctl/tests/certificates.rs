//! Certificates from the command line: made, shown, and never overwritten.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use certs::{CaPair, Credentials, Role, TlsFiles};

use crate::stage::*;

#[test]
fn an_authority_is_made_and_signs_what_its_cluster_needs() {
    let dir = tempfile::tempdir().unwrap();
    let ran = alone(dir.path(), "cert ca-init --cluster prod");
    let ca = CaPair::load(&path(dir.path(), "certs")).unwrap();
    assert_eq!(
        ran,
        Ran {
            code: 0,
            out: format!(
                "\
cluster      prod
fingerprint  {}
certificate  certs/ca.pem   every node and client needs it
private key  certs/ca.key   whoever has it can add nodes: keep it off them
next: ringctl cert issue NODE --node-id N --out certs
",
                ca.fingerprint()
            ),
            err: String::new()
        }
    );
    for (line, name, role, number) in [
        ("cert issue n4 --node-id 4", "n4", Role::Node, Some(4)),
        ("cert issue n5 --role node", "n5", Role::Node, None),
        ("cert issue app --role client --days 30", "app", Role::Client, None),
        ("cert issue ann --role admin --out ann --ca certs", "ann", Role::Admin, None),
    ] {
        let ran = alone(dir.path(), line);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line}");
        let certs = path(dir.path(), if role == Role::Admin { "ann" } else { "certs" });
        let file = |suffix: &str| certs.join(format!("{name}.{suffix}"));
        let files = TlsFiles { ca: certs.join("ca.pem"), cert: file("pem"), key: file("key") };
        let credentials = Credentials::load(&files).unwrap();
        let identity = credentials.identity();
        assert_eq!(identity.cluster, "prod");
        assert_eq!((identity.name.as_str(), identity.role), (name, role));
        assert_eq!(identity.node.map(|node| node.0), number);
        assert!(ran.out.contains(&credentials.fingerprint().to_string()), "{}", ran.out);
        let mode = fs::metadata(files.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_certificate_is_shown_with_its_holder_and_its_time() {
    let dir = tempfile::tempdir().unwrap();
    alone(dir.path(), "cert ca-init --cluster prod");
    alone(dir.path(), "cert issue n4 --node-id 4 --host 10.0.0.14");
    let ran = alone(dir.path(), "cert show certs/n4.pem");
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines[0], "holder       node n4 of prod, number 4");
    assert_eq!(lines[1], "subject      O=prod, CN=n4");
    assert!(lines[2].starts_with("signed by    O=prod, CN=prod ringdb CA "), "{ran:?}");
    assert!(lines[3].starts_with("fingerprint  SHA256:"), "{ran:?}");
    assert!(lines[4].starts_with("valid        20") && lines[4].ends_with("Z (valid)"), "{ran:?}");

    let ca = alone(dir.path(), "cert show certs/ca.pem");
    assert!(ca.out.starts_with("holder       CA of prod\n"), "{ca:?}");
    let json = alone(dir.path(), "cert show certs/n4.pem -o json").out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let shown = &json["certificates"][0];
    assert_eq!((&shown["role"], &shown["node_id"]), (&"node".into(), &"4".into()));
    assert_eq!(shown["not_after"].as_str().unwrap().len(), "2026-01-01T00:00:00Z".len());
}

#[test]
fn nothing_is_overwritten_and_every_refusal_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let ran = alone(dir.path(), "cert issue n1");
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (
            2,
            "error: certs/ca.pem is missing\n  why: the cluster's CA is needed to sign\n  \
             fix: name its directory with --ca DIR, or make one: ringctl cert ca-init\n"
        )
    );
    alone(dir.path(), "cert ca-init");
    let key = fs::read(path(dir.path(), "certs/ca.key")).unwrap();
    let ran = alone(dir.path(), "cert ca-init");
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with("error: certs/ca.key already exists\n  why: "), "{ran:?}");
    assert_eq!(fs::read(path(dir.path(), "certs/ca.key")).unwrap(), key);

    let cases = [
        ("cert issue Node_1", "error: \"Node_1\" cannot be a name in a certificate"),
        ("cert issue app --role client --node-id 4", "error: a client has no number"),
        ("cert show certs/ca.key", "error: certs/ca.key holds no certificate"),
        ("cert show missing.pem", "error: missing.pem is missing"),
        ("cert issue x --role king", "error: invalid value 'king' for '--role <ROLE>'"),
    ];
    for (line, what) in cases {
        let ran = alone(dir.path(), line);
        assert_eq!((ran.code, ran.err.lines().next()), (2, Some(what)), "{line}");
        assert_eq!(ran.err.lines().count(), 3, "{ran:?}");
    }
}
