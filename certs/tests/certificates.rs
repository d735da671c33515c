//! The life of certificates: issued, written, loaded, refused.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::NodeId;
use ringdb_certs::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, Connection, ServerConnection};

fn pair(ca: &CaPair, subject: &Subject) -> CertPair {
    issue(ca, subject, Validity::days(30)).unwrap()
}

fn credentials(ca: &CaPair, subject: &Subject) -> Credentials {
    Credentials::from_pair(&pair(ca, subject)).unwrap()
}

/// Both ends of a handshake in memory; the error of whichever end failed first.
fn shake(server: &Credentials, client: &Credentials, name: &str) -> Result<Identity, String> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let (server, client) = (server_config(server).unwrap(), client_config(client).unwrap());
    let mut server = Connection::Server(ServerConnection::new(Arc::new(server)).unwrap());
    let mut client = Connection::Client(ClientConnection::new(Arc::new(client), name).unwrap());
    for _ in 0..10 {
        carry(&mut client, &mut server)?;
        carry(&mut server, &mut client)?;
    }
    assert!(!server.is_handshaking() && !client.is_handshaking());
    client.writer().write_all(b"ping").unwrap();
    carry(&mut client, &mut server)?;
    let mut heard = [0; 4];
    server.reader().read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"ping");
    Ok(identity_of(&server.peer_certificates().unwrap()[0]).unwrap())
}

fn carry(from: &mut Connection, to: &mut Connection) -> Result<(), String> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets().map_err(|e| e.to_string())?;
    }
    Ok(())
}

#[test]
fn a_node_is_recognised_by_name_wherever_it_lives() {
    let ca = ca_init("prod-eu").unwrap();
    let n1 = credentials(&ca, &Subject::node("n1", NodeId(1)));
    let n2 = credentials(&ca, &Subject::node("n2", NodeId(2)));
    let seen = shake(&n1, &n2, &node_dns_name("prod-eu", "n1")).unwrap();
    assert_eq!(seen, *n2.identity());
    assert_eq!((seen.role, seen.node), (Role::Node, Some(NodeId(2))));
    assert_eq!(seen.to_string(), "node n2 of prod-eu");
    // The right authority and the wrong node: a mixed-up address is found out.
    let fault = shake(&n1, &n2, &node_dns_name("prod-eu", "n3")).unwrap_err();
    assert!(fault.contains("not valid for name"), "{fault}");
}

#[test]
fn a_node_of_another_authority_is_refused_at_both_ends() {
    let (ours, theirs) = (ca_init("prod").unwrap(), ca_init("prod").unwrap());
    let n1 = credentials(&ours, &Subject::node("n1", NodeId(1)));
    let stranger = credentials(&theirs, &Subject::node("n2", NodeId(2)));
    for (server, client) in [(&n1, &stranger), (&stranger, &n1)] {
        let fault = shake(server, client, &node_dns_name("prod", &server.identity().name));
        assert!(fault.as_ref().is_err_and(|e| e.contains("UnknownIssuer")), "{fault:?}");
    }
    assert_ne!(n1.authority(), stranger.authority());
}

#[test]
fn the_node_that_refuses_knows_both_fingerprints() {
    let (ours, theirs) = (ca_init("prod").unwrap(), ca_init("prod").unwrap());
    let n1 = credentials(&ours, &Subject::node("n1", NodeId(1)));
    let n4 = credentials(&theirs, &Subject::node("n4", NodeId(4)));
    let (tell, told) = std::sync::mpsc::channel();
    let on_refused: OnRefused = Arc::new(move |refused| tell.send(refused.to_string()).unwrap());
    let config = server_config_reporting(&n1, on_refused).unwrap();
    let mut server = Connection::Server(ServerConnection::new(Arc::new(config)).unwrap());
    // The stranger trusts our authority, as after a mix-up of files, so that only we can refuse.
    let mut client = client_config(&n4).unwrap();
    client.dangerous().set_certificate_verifier(
        rustls::client::WebPkiServerVerifier::builder_with_provider(roots(&ours), provider())
            .build()
            .unwrap(),
    );
    let name = ServerName::try_from(node_dns_name("prod", "n1")).unwrap();
    let mut client = Connection::Client(ClientConnection::new(Arc::new(client), name).unwrap());
    let mut outcome = Ok(());
    for _ in 0..4 {
        outcome = outcome.and_then(|()| carry(&mut client, &mut server));
        outcome = outcome.and_then(|()| carry(&mut server, &mut client));
    }
    assert!(outcome.is_err_and(|e| e.contains("UnknownIssuer")));
    let text = told.try_recv().unwrap();
    assert!(
        text.starts_with("node n4 of prod presented a certificate that is refused\n"),
        "{text}"
    );
    let both = format!("why: cluster CA {}, presented {}", n1.authority(), n4.fingerprint());
    assert!(text.contains(&both), "{text}");
}

#[test]
fn whoever_has_no_certificate_is_refused() {
    let ca = ca_init("prod").unwrap();
    let n1 = credentials(&ca, &Subject::node("n1", NodeId(1)));
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(&ca))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let server = Arc::new(server_config(&n1).unwrap());
    let mut server = Connection::Server(ServerConnection::new(server).unwrap());
    let name = ServerName::try_from(node_dns_name("prod", "n1")).unwrap();
    let mut client = Connection::Client(ClientConnection::new(Arc::new(config), name).unwrap());
    let mut outcome = Ok(());
    for _ in 0..4 {
        outcome = outcome.and_then(|()| carry(&mut client, &mut server));
        outcome = outcome.and_then(|()| carry(&mut server, &mut client));
    }
    assert!(outcome.is_err_and(|e| e.contains("no certificates")));
}

fn roots(ca: &CaPair) -> Arc<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.cert_pem.as_bytes()).unwrap()).unwrap();
    Arc::new(roots)
}

#[test]
fn a_certificate_beside_the_wrong_authority_is_named_when_it_is_loaded() {
    let (ours, theirs) = (ca_init("prod").unwrap(), ca_init("prod").unwrap());
    let mut mixed = pair(&theirs, &Subject::node("n4", NodeId(4)));
    mixed.ca_pem = ours.cert_pem.clone();
    let error = Credentials::from_pair(&mixed).unwrap_err();
    assert!(matches!(error, CertError::WrongAuthority { .. }), "{error}");
    let text = error.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "n4.pem is signed by another CA");
    assert!(lines[1].starts_with(&format!("  why: cluster CA {}", ours.fingerprint())), "{text}");
    assert!(lines[1].contains(&mixed.fingerprint().to_string()), "{text}");
    assert_eq!(lines[2], "  fix: issue it with this cluster's CA: ringctl cert issue NAME");
}

#[test]
fn certificates_out_of_their_time_are_refused() {
    let ca = ca_init("prod").unwrap();
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let past = Validity { not_before: now - 2 * day, not_after: now - day };
    let old = issue(&ca, &Subject::node("n1", NodeId(1)), past).unwrap();
    let error = Credentials::from_pair(&old).unwrap_err();
    assert!(
        matches!(error, CertError::Expired { fingerprint, .. } if fingerprint == old.fingerprint())
    );
    assert!(error.to_string().starts_with("the certificate in n1.pem has expired\n  why: SHA256:"));

    let future = Validity { not_before: now + day, not_after: now + 2 * day };
    let early = issue(&ca, &Subject::node("n1", NodeId(1)), future).unwrap();
    let error = Credentials::from_pair(&early).unwrap_err();
    assert!(matches!(error, CertError::NotYetValid { .. }), "{error}");
}

#[test]
fn roles_are_read_from_the_certificate_and_clients_cannot_serve() {
    let ca = ca_init("prod").unwrap();
    let node = credentials(&ca, &Subject::node("n1", NodeId(1)));
    for role in [Role::Client, Role::Admin] {
        let visitor = credentials(&ca, &Subject::of_role("alice", role));
        let seen = shake(&node, &visitor, &node_dns_name("prod", "n1")).unwrap();
        assert_eq!((seen.role, seen.name.as_str(), seen.node), (role, "alice", None));
        // A stolen client key must not pose as a node, not even under a node's name.
        let mut subject = Subject::of_role("n1", role);
        subject.hosts.push(node_dns_name("prod", "n1"));
        let posing = credentials(&ca, &subject);
        let fault = shake(&posing, &node, &node_dns_name("prod", "n1"));
        assert!(fault.is_err_and(|e| e.contains("extended key usage") || e.contains("Purpose")));
    }
}

#[test]
fn what_is_written_can_be_loaded_and_keys_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ca_init("prod").unwrap();
    ca.write(dir.path()).unwrap();
    let ca = CaPair::load(dir.path()).unwrap();
    assert_eq!(ca.cluster, "prod");
    let files = pair(&ca, &Subject::node("n1", NodeId(1))).write(dir.path()).unwrap();
    let loaded = Credentials::load(&files).unwrap();
    assert_eq!(loaded.identity().to_string(), "node n1 of prod");
    assert_eq!(loaded.authority(), ca.fingerprint());
    for key in ["ca.key", "n1.key"] {
        let mode = fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    // Issuing again must not destroy the key that is in use.
    let again = pair(&ca, &Subject::node("n1", NodeId(1))).write(dir.path()).unwrap_err();
    assert!(again.to_string().contains("n1.key already exists"), "{again}");
    let other = ca_init("prod").unwrap();
    let mixed = pair(&other, &Subject::node("n9", NodeId(9))).write(dir.path()).unwrap_err();
    assert!(mixed.to_string().contains("ca.pem already exists"), "{mixed}");
    assert!(!dir.path().join("n9.key").exists());
}

#[test]
fn missing_exchanged_and_mismatched_files_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ca_init("prod").unwrap();
    let files = pair(&ca, &Subject::node("n1", NodeId(1))).write(dir.path()).unwrap();
    let with = |change: &dyn Fn(&mut TlsFiles)| {
        let mut files = files.clone();
        change(&mut files);
        Credentials::load(&files).unwrap_err()
    };
    let missing = with(&|f| f.cert = dir.path().join("n7.pem"));
    assert!(matches!(missing, CertError::Unreadable { .. }));
    assert!(missing.to_string().contains("n7.pem is missing\n  why: "), "{missing}");
    let exchanged = with(&|f| f.cert = f.key.clone());
    assert!(matches!(exchanged, CertError::NotPem { wanted: "certificate", .. }), "{exchanged}");
    let exchanged = with(&|f| f.key = f.cert.clone());
    assert!(matches!(exchanged, CertError::NotPem { wanted: "private key", .. }), "{exchanged}");
    let other = pair(&ca, &Subject::node("n2", NodeId(2))).write(dir.path()).unwrap();
    let mismatch = with(&|f| f.key = other.key.clone());
    assert!(matches!(mismatch, CertError::KeyMismatch { .. }), "{mismatch}");
}

#[test]
fn names_that_cannot_stand_in_a_certificate_are_refused_before_anything_is_made() {
    let ca = ca_init("prod").unwrap();
    let long = "a".repeat(NAME_BYTES_MAX + 1);
    for name in ["", "N1", "n 1", "n/1", "-n", "n-", "n.1", &long] {
        let error = issue(&ca, &Subject::node(name, NodeId(1)), Validity::days(1)).unwrap_err();
        assert!(matches!(error, CertError::BadName { .. }), "{name}: {error}");
        assert!(ca_init(name).is_err());
    }
}

#[test]
fn secrets_survive_a_restart_and_differ_by_key_and_purpose() {
    let ca = ca_init("prod").unwrap();
    let n1 = pair(&ca, &Subject::node("n1", NodeId(1)));
    let (a, b) = (Credentials::from_pair(&n1).unwrap(), Credentials::from_pair(&n1).unwrap());
    assert_eq!(a.derive_secret("reset", b"1"), b.derive_secret("reset", b"1"));
    assert_ne!(a.derive_secret("reset", b"1"), a.derive_secret("token", b"1"));
    assert_ne!(a.derive_secret("reset", b"1"), a.derive_secret("reset", b"2"));
    let n2 = credentials(&ca, &Subject::node("n2", NodeId(2)));
    assert_ne!(a.derive_secret("reset", b"1"), n2.derive_secret("reset", b"1"));
}

#[test]
fn the_cheapest_suite_is_first_and_no_default_provider_is_installed() {
    let ca = ca_init("prod").unwrap();
    let n1 = credentials(&ca, &Subject::node("n1", NodeId(1)));
    let config = server_config(&n1).unwrap();
    let suites = &config.crypto_provider().cipher_suites;
    assert_eq!(suites[0].suite(), rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert!(suites.iter().all(|suite| suite.tls13().is_some()));
    assert_eq!(config.alpn_protocols, [ALPN.to_vec()]);
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
}

#[test]
fn fingerprints_are_those_that_openssl_shows() {
    // SHA-256 of the empty string, the best-known test vector.
    let empty = Fingerprint::of(b"");
    let hex = "SHA256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(empty.to_string(), hex);
    assert_eq!(format!("{empty:#}"), "SHA256:e3b0…55");
}
