//! TLS on the Redis port: served beside the plain one, refused in words, certificates as users.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use certs::{CaPair, CertPair, Credentials, Role, Subject, Validity};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use wire::resp::encode::write_command;
use wire::resp::{Reply, ReplyDecoder};

use super::metric;
use crate::support::{Node, free_port, run, signal, start_command, text, until};

const CLUSTER: &str = "prod";

fn issue(ca: &CaPair, role: Role, name: &str) -> CertPair {
    certs::issue(ca, &Subject::of_role(name, role), Validity::days(30)).unwrap()
}

/// A node that serves TLS too, and whose users are root and app.
struct Story {
    node: Node,
    tls_port: u16,
    ca: CaPair,
    /// Removed when the story ends.
    dir: tempfile::TempDir,
}

fn files(dir: &Path, ca: &CaPair) -> [String; 3] {
    let pair = issue(ca, Role::Node, "n1");
    let files = pair.write(dir).unwrap();
    [files.ca, files.cert, files.key].map(|path| path.display().to_string())
}

impl Story {
    fn new(clients: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = certs::ca_init(CLUSTER).unwrap();
        let [ca_file, cert, key] = files(dir.path(), &ca);
        let tls_port = free_port();
        let listen = format!("127.0.0.1:{tls_port}");
        let users = r#"{ root = "top", app = { password = "s3", rules = "~app:* +@all" } }"#;
        let flags = [
            "--redis-tls-listen",
            &listen,
            "--redis-tls-cert",
            &cert,
            "--redis-tls-key",
            &key,
            "--redis-tls-ca",
            &ca_file,
            "--redis-tls-clients",
            clients,
            "--redis-users",
            users,
        ];
        let node = Node::start_with(dir.path(), &flags);
        Self { node, tls_port, ca, dir }
    }

    /// A client that shows this certificate.
    fn client(&self, pair: Option<&CertPair>) -> Tls {
        let trusting = issue(&self.ca, Role::Client, "anybody");
        // It trusts us, even if we do not trust it.
        let mut config = certs::client_config(&Credentials::from_pair(&trusting).unwrap()).unwrap();
        config.client_auth_cert_resolver = Arc::new(Shows(pair.map(certified)));
        config.alpn_protocols.clear();
        Tls::connect(self.tls_port, config)
    }
}

/// Shows this certificate, or none, whatever is wrong with it.
#[derive(Debug)]
struct Shows(Option<Arc<CertifiedKey>>);

fn certified(pair: &CertPair) -> Arc<CertifiedKey> {
    let chain = vec![CertificateDer::from_pem_slice(pair.cert_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap();
    Arc::new(CertifiedKey::from_der(chain, key, &certs::provider()).unwrap())
}

fn expired(ca: &CaPair, role: Role, name: &str) -> CertPair {
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let past = Validity { not_before: now - 2 * day, not_after: now - day };
    certs::issue(ca, &Subject::of_role(name, role), past).unwrap()
}

impl rustls::client::ResolvesClientCert for Shows {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

struct Tls {
    stream: StreamOwned<ClientConnection, TcpStream>,
    decoder: ReplyDecoder,
    buffer: Vec<u8>,
}

impl Tls {
    fn connect(port: u16, config: ClientConfig) -> Self {
        let stream = until("the TLS port is open", || TcpStream::connect(("127.0.0.1", port)).ok());
        let name = ServerName::try_from(certs::node_dns_name(CLUSTER, "n1")).unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = StreamOwned::new(session, stream);
        Self { stream, decoder: ReplyDecoder::new(), buffer: Vec::new() }
    }

    fn next(&mut self) -> Result<Reply, String> {
        loop {
            if let Some(read) = self.decoder.decode(&self.buffer).unwrap() {
                self.buffer.drain(..read.consumed);
                return Ok(read.reply);
            }
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err("closed".to_owned()),
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(e) => return Err(e.to_string()),
            }
        }
    }

    fn try_ask(&mut self, command: &str) -> Result<String, String> {
        let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        let mut bytes = Vec::new();
        write_command(&mut bytes, &args);
        self.stream.write_all(&bytes).map_err(|e| e.to_string())?;
        Ok(text(&self.next()?))
    }

    fn ask(&mut self, command: &str) -> String {
        self.try_ask(command).unwrap()
    }
}

#[test]
fn the_tls_port_serves_beside_the_plain_one() {
    let story = Story::new("no");
    let mut client = story.client(None);
    assert_eq!(client.ask("AUTH root top"), "OK");
    until("it serves", || (client.ask("SET a 1") == "OK").then_some(()));
    let value = "v".repeat(3 << 20);
    assert_eq!(client.ask(&format!("SET big {value}")), "OK");
    assert_eq!(client.ask("GET big"), value, "a reply of many records");
    let mut bytes = Vec::new();
    for i in 0..5_000 {
        write_command(&mut bytes, &[b"SET", b"counter", i.to_string().as_bytes()]);
        write_command(&mut bytes, &[b"GET", b"counter"]);
    }
    client.stream.write_all(&bytes).unwrap();
    for i in 0..5_000 {
        assert_eq!(text(&client.next().unwrap()), "OK");
        assert_eq!(text(&client.next().unwrap()), i.to_string());
    }
    let mut plain = crate::support::Client::connect(story.node.port).unwrap();
    assert_eq!(plain.ask("AUTH root top"), "OK");
    assert_eq!(plain.ask("GET a"), "1");
    assert_eq!(client.try_ask("QUIT"), Ok("OK".to_owned()));
    assert_eq!(client.try_ask("PING"), Err("closed".to_owned()), "with a goodbye");
    story.node.stop();
}

#[test]
fn a_client_certificate_says_who_it_is_and_strangers_are_refused_logged_and_counted() {
    let story = Story::new("optional");
    let mut app = story.client(Some(&issue(&story.ca, Role::Client, "app")));
    until("it serves", || (app.ask("SET app:1 x") == "OK").then_some(()));
    assert_eq!(app.ask("ACL WHOAMI"), "app");
    assert_eq!(app.ask("GET other"), "-NOPERM No permissions to access a key");
    for unknown in [Some((Role::Client, "stranger")), Some((Role::Node, "root")), None] {
        let pair = unknown.map(|(role, name)| issue(&story.ca, role, name));
        let mut client = story.client(pair.as_ref());
        assert_eq!(client.ask("GET app:1"), "-NOAUTH Authentication required.", "{unknown:?}");
    }
    let other = certs::ca_init(CLUSTER).unwrap();
    let mut stranger = story.client(Some(&issue(&other, Role::Client, "app")));
    let refused = stranger.try_ask("PING").unwrap_err();
    assert!(refused.contains("UnknownCA") || refused.contains("DecryptError"), "{refused}");
    until("it is counted", || {
        metric(&story.node, "ringdb_client_tls_failures_total ").filter(|count| *count == 1.0)
    });
    let log = story.node.log();
    assert!(log.contains("client app of prod presented a certificate that is refused"), "{log}");
    assert!(log.contains("no TLS with a client"), "{log}");
    story.node.stop();
}

#[test]
fn an_expired_certificate_is_told_apart_from_a_strangers() {
    let story = Story::new("required");
    let other = certs::ca_init(CLUSTER).unwrap();
    let name = "client app of prod presented a certificate that is refused";
    let logged = |why: &str, fix: &str| {
        until("it is logged", || {
            let log = story.node.log();
            let told = log.split_once(&format!("{name}\n  why: {why}"));
            told.filter(|(_, rest)| rest.contains(&format!("\n  fix: {fix}\n"))).map(drop)
        });
    };
    let old = expired(&story.ca, Role::Client, "app");
    story.client(Some(&old)).try_ask("PING").unwrap_err();
    logged("it has expired: ", "issue it again: ringctl cert issue app --role client");
    assert!(!story.node.log().contains("issue it with this cluster's CA"), "{}", story.node.log());
    // It has expired too, which is not what is to be mended.
    let stranger = expired(&other, Role::Client, "app");
    story.client(Some(&stranger)).try_ask("PING").unwrap_err();
    logged("cluster CA ", "issue it with this cluster's CA: ringctl cert issue NAME");
    story.node.stop();
}

#[test]
fn without_a_certificate_nobody_comes_in_where_one_is_required() {
    let story = Story::new("required");
    assert!(story.client(None).try_ask("PING").is_err());
    let mut app = story.client(Some(&issue(&story.ca, Role::Client, "app")));
    until("it serves", || (app.ask("SET app:1 x") == "OK").then_some(()));
    let mut plain = TcpStream::connect(("127.0.0.1", story.tls_port)).unwrap();
    plain.write_all(b"PING\r\n").unwrap();
    let mut heard = Vec::new();
    // Whatever it hears, it is no reply, and then the end.
    drop(plain.read_to_end(&mut heard));
    assert!(!heard.starts_with(b"+PONG"));
    story.node.stop();
}

#[test]
fn a_wrong_or_expired_certificate_is_told_in_three_lines_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let ca = certs::ca_init(CLUSTER).unwrap();
    let [_, cert, key] = files(dir.path(), &ca);
    let listen = format!("127.0.0.1:{}", free_port());
    let told = |more: &[&str]| {
        let mut command = start_command(dir.path(), free_port(), free_port());
        let output = run(command.args(["--redis-tls-listen", &listen]).args(more));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        let lines = text.lines().rev().take(3).collect::<Vec<_>>();
        assert!(lines[2].starts_with("error: ") && lines[1].starts_with("  why: "), "{text}");
        assert!(lines[0].starts_with("  fix: "), "{text}");
        lines[2].to_owned()
    };
    assert!(told(&[]).contains("has no certificate"));
    let missing = ["--redis-tls-cert", "/nowhere/x.pem", "--redis-tls-key", &key];
    assert!(told(&missing).contains("/nowhere/x.pem"));
    let old = expired(&ca, Role::Node, "old");
    let old_dir = dir.path().join("old");
    let old = old.write(&old_dir).unwrap();
    let (old_cert, old_key) = (old.cert.display().to_string(), old.key.display().to_string());
    let expired = ["--redis-tls-cert", &old_cert, "--redis-tls-key", &old_key];
    assert!(told(&expired).contains("has expired"));
    let mixed = ["--redis-tls-cert", &cert, "--redis-tls-key", &old_key];
    assert!(told(&mixed).contains("key"));
    fs::write(dir.path().join("no.pem"), "nothing").unwrap();
    let text = dir.path().join("no.pem").display().to_string();
    assert!(told(&["--redis-tls-cert", &text, "--redis-tls-key", &key]).contains("no.pem"));
    let blind =
        ["--redis-tls-cert", &cert, "--redis-tls-key", &key, "--redis-tls-clients", "required"];
    assert!(told(&blind).contains("nobody can verify"));
}

#[test]
fn certificates_are_read_again_for_new_connections_and_a_broken_file_changes_nothing() {
    let story = Story::new("no");
    let shown = |client: &mut Tls| {
        assert_eq!(client.ask("AUTH root top"), "OK");
        client.stream.conn.peer_certificates().unwrap()[0].to_vec()
    };
    let mut old = story.client(None);
    let before = shown(&mut old);
    let dir = story.dir.path();
    let next = dir.join("next");
    files(&next, &story.ca);
    for file in ["n1.pem", "n1.key"] {
        fs::rename(next.join(file), dir.join(file)).unwrap();
    }
    signal("HUP", story.node.process.id());
    let after = until("the new one is shown", || {
        let new = shown(&mut story.client(None));
        (new != before).then_some(new)
    });
    assert_eq!(old.ask("ECHO still"), "still", "who is there stays");
    fs::write(dir.join("n1.pem"), "no certificate").unwrap();
    signal("HUP", story.node.process.id());
    until("it is told", || {
        let log = story.node.log();
        log.contains("the certificates of the Redis port stay as they were").then_some(())
    });
    assert_eq!(shown(&mut story.client(None)), after);
    story.node.stop();
}
