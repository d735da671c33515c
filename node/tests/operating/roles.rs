//! Roles: what stands in a certificate decides what its holder may be, whatever it says of itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use certs::{CaPair, Credentials, Role, Subject, Validity, node_dns_name};
use quinn::crypto::rustls::QuicClientConfig;
use ring::NodeId;
use ringdb_node::mesh::{ClusterId, Hello, Purpose, Versions};
use tokio::runtime::Builder;

use super::metric;
use crate::support::{Node, free_port, until};

const CLUSTER: &str = "6f1c0c5a5f0e4a3a9a4f4cf1a7a0d9e2";

struct Story {
    node: Node,
    peer_port: u16,
    ca: CaPair,
    _dir: tempfile::TempDir,
}

impl Story {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = certs::ca_init("prod").unwrap();
        let subject = Subject::node("n1", NodeId(1));
        let files = certs::issue(&ca, &subject, Validity::days(2)).unwrap().write(dir.path());
        let [ca_file, cert, key] = files.map(|f| [f.ca, f.cert, f.key]).unwrap();
        let peer_port = free_port();
        let config = format!(
            "[cluster]\nname = \"prod\"\nid = \"{CLUSTER}\"\n[tls]\nca = {ca_file:?}\n\
             cert = {cert:?}\nkey = {key:?}\n"
        );
        let file = dir.path().join("ringd.toml");
        std::fs::write(&file, config).unwrap();
        let listen = format!("127.0.0.1:{peer_port}");
        let file = file.display().to_string();
        let node = Node::start_on(dir.path(), &listen, &["--config", &file]);
        Self { node, peer_port, ca, _dir: dir }
    }

    /// Comes with these credentials as a peer of the cluster; what it hears at the end.
    fn comes_as_peer(&self, credentials: &Credentials, cluster: &str) -> String {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, self.peer_port));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
            let tls = certs::client_config(credentials).unwrap();
            let crypto = Arc::new(QuicClientConfig::try_from(tls).unwrap());
            endpoint.set_default_client_config(quinn::ClientConfig::new(crypto));
            let connecting = endpoint.connect(to, &node_dns_name("prod", "n1")).unwrap();
            let connection = match connecting.await {
                Ok(connection) => connection,
                Err(e) => return e.to_string(),
            };
            let hello = Hello {
                purpose: Purpose::Fast,
                wire: Versions { min: 1, max: 1 },
                node: NodeId(2),
                boot: 7,
                cluster: ClusterId(u128::from_str_radix(cluster, 16).unwrap()),
            };
            if let Ok((mut send, _recv)) = connection.open_bi().await {
                // If it is closed by now, the reason is heard below.
                drop(send.write_all(&hello.encode()).await);
                let closed = tokio::time::timeout(Duration::from_secs(10), connection.closed());
                return closed.await.expect("it is turned away").to_string();
            }
            connection.closed().await.to_string()
        })
    }

    fn counts(&self, line: &str) {
        until("it is counted", || metric(&self.node, line).filter(|count| *count >= 1.0));
    }
}

#[test]
fn a_client_certificate_is_no_nodes_and_a_node_of_another_cluster_is_no_peer() {
    let mut story = Story::new();
    drop(story.node.client());
    let of = |ca: &CaPair, subject: &Subject| {
        let pair = certs::issue(ca, subject, Validity::days(1)).unwrap();
        Credentials::from_pair(&pair).unwrap()
    };
    for role in [Role::Client, Role::Admin] {
        let visitor = of(&story.ca, &Subject::of_role("n2", role));
        let heard = story.comes_as_peer(&visitor, CLUSTER);
        assert!(heard.contains("may not open a stream for Fast"), "{heard}");
    }
    story.counts("ringdb_peer_refused_total{reason=\"role\"}");
    let stranger = of(&story.ca, &Subject::node("n2", NodeId(2)));
    let heard = story.comes_as_peer(&stranger, CLUSTER);
    assert!(heard.contains("is not a member"), "{heard}");
    story.counts("ringdb_peer_refused_total{reason=\"unknown\"}");
    let heard = story.comes_as_peer(&stranger, "c2");
    assert!(heard.contains("this is cluster"), "{heard}");
    story.counts("ringdb_peer_refused_total{reason=\"cluster\"}");
    // A cluster of the same name with an authority of its own: it trusts ours, we do not trust it.
    let other = certs::ca_init("prod").unwrap();
    let mut pair =
        certs::issue(&other, &Subject::node("n2", NodeId(2)), Validity::days(1)).unwrap();
    pair.ca_pem = format!("{}{}", pair.ca_pem, story.ca.cert_pem);
    let foreign = Credentials::from_pair(&pair).unwrap();
    let heard = story.comes_as_peer(&foreign, CLUSTER);
    assert!(!heard.is_empty());
    story.counts("ringdb_peer_handshake_failures_total");
    let log = story.node.log();
    for told in [
        "may not open a stream for Fast",
        "is not a member",
        "this is cluster",
        "certificate refused claims=\"node n2 of prod\"",
    ] {
        assert!(log.contains(told), "{told} is not in the log:\n{log}");
    }
    story.node.stop();
}
