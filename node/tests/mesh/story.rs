//! What the stories share: nodes that remember what they saw, and visitors that speak raw QUIC.

use std::cell::RefCell;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use certs::{CaPair, Credentials, Role, Subject, Validity, ca_init, issue, node_dns_name};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use ring::NodeId;
use ringdb_node::mesh::{
    ClientConn, ClusterId, Ending, Frames, Hello, Lane, LinkStatus, Mesh, MeshConfig, MeshHandler,
    Peer, Purpose, Tuning, Versions,
};
use tokio::runtime::LocalRuntime;

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
pub(crate) const WIRE: Versions = Versions { min: 1, max: 1 };
pub(crate) const N1: NodeId = NodeId(1);
pub(crate) const N2: NodeId = NodeId(2);

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a story on one thread, as the mesh wants it.
pub(crate) fn tell(story: impl Future<Output = ()>) {
    let runtime = LocalRuntime::new().unwrap();
    runtime.block_on(async { tokio::time::timeout(4 * PATIENCE, story).await.expect("it ends") });
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub(crate) fn authority() -> CaPair {
    ca_init("prod").unwrap()
}

pub(crate) fn node(ca: &CaPair, id: NodeId) -> Credentials {
    let subject = Subject::node(id.to_string(), id);
    Credentials::from_pair(&issue(ca, &subject, Validity::days(1)).unwrap()).unwrap()
}

pub(crate) fn visitor(ca: &CaPair, name: &str, role: Role) -> Credentials {
    let subject = Subject::of_role(name, role);
    Credentials::from_pair(&issue(ca, &subject, Validity::days(1)).unwrap()).unwrap()
}

/// An address at which nobody listens now.
pub(crate) fn free_address() -> SocketAddr {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

pub(crate) fn peer(id: NodeId, address: SocketAddr) -> Peer {
    Peer { id, name: id.to_string(), address }
}

pub(crate) fn config(ca: &CaPair, me: NodeId, listen: SocketAddr, peers: Vec<Peer>) -> MeshConfig {
    MeshConfig {
        me,
        listen,
        cluster: CLUSTER,
        wire: WIRE,
        credentials: node(ca, me),
        peers,
        tuning: Tuning::default(),
    }
}

/// Something that a handler was told, frames apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Connected(NodeId, u8),
    Closed(NodeId, Ending),
    ClientClosed(Ending),
    Second(NodeId),
}

/// A handler that remembers everything, and answers what begins with '?'.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) frames: RefCell<Vec<(NodeId, Lane, Vec<u8>)>>,
    pub(crate) requests: RefCell<Vec<(Role, Vec<u8>)>>,
    pub(crate) events: RefCell<Vec<Event>>,
}

impl Memory {
    pub(crate) fn has(&self, event: impl Fn(&Event) -> bool) -> bool {
        self.events.borrow().iter().any(event)
    }

    pub(crate) fn count(&self, event: impl Fn(&Event) -> bool) -> usize {
        self.events.borrow().iter().filter(|e| event(e)).count()
    }
}

impl MeshHandler for Memory {
    fn on_frames(&self, mesh: &Mesh, from: NodeId, lane: Lane, frames: Frames<'_>) {
        assert!(!frames.is_empty());
        for frame in frames {
            if frame.first() == Some(&b'?') {
                mesh.send(from, lane, |buf| buf.extend(&frame[1..])).unwrap();
            }
            self.frames.borrow_mut().push((from, lane, frame.to_vec()));
        }
    }

    fn on_connected(&self, _: &Mesh, peer: NodeId, wire: u8) {
        self.events.borrow_mut().push(Event::Connected(peer, wire));
    }

    fn on_closed(&self, _: &Mesh, peer: NodeId, ending: &Ending, _dropped: usize) {
        self.events.borrow_mut().push(Event::Closed(peer, ending.clone()));
    }

    fn on_second(&self, _: &Mesh, peer: NodeId, why: &str) {
        assert!(why.contains("is connected already"), "{why}");
        self.events.borrow_mut().push(Event::Second(peer));
    }

    fn on_client(&self, _: &Mesh, client: &ClientConn, frames: Frames<'_>) {
        for frame in frames {
            self.requests.borrow_mut().push((client.identity().role, frame.to_vec()));
            client.reply(|buf| buf.extend(frame.iter().rev())).unwrap();
        }
    }

    fn on_client_closed(&self, _: &Mesh, _: &ClientConn, ending: &Ending) {
        self.events.borrow_mut().push(Event::ClientClosed(ending.clone()));
    }
}

pub(crate) struct Node {
    pub(crate) mesh: Mesh,
    pub(crate) memory: Rc<Memory>,
}

impl Node {
    pub(crate) fn start(config: MeshConfig) -> Self {
        let memory = Rc::new(Memory::default());
        Self { mesh: Mesh::start(config, memory.clone()).unwrap(), memory }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.mesh.local_addr().unwrap()
    }

    pub(crate) fn sees(&self, peer: NodeId) -> bool {
        matches!(self.mesh.status(peer), Some(LinkStatus::Connected { .. }))
    }

    /// Why the last dial to `peer` failed.
    pub(crate) fn last(&self, peer: NodeId) -> Option<Ending> {
        match self.mesh.status(peer)? {
            LinkStatus::Dialling { last, .. } => last,
            LinkStatus::Connected { .. } => None,
        }
    }
}

/// Where the system chooses the port, so that no two stories meet.
pub(crate) fn anywhere() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Two nodes that dial each other.
pub(crate) fn introduced(one: MeshConfig, two: MeshConfig) -> (Node, Node) {
    let (n1, n2) = (Node::start(one), Node::start(two));
    n1.mesh.set_peer(peer(N2, n2.address()));
    n2.mesh.set_peer(peer(N1, n1.address()));
    (n1, n2)
}

/// Two nodes that see each other.
pub(crate) async fn pair(ca: &CaPair) -> (Node, Node) {
    let one = config(ca, N1, anywhere(), vec![]);
    let (n1, n2) = introduced(one, config(ca, N2, anywhere(), vec![]));
    until("both connected", || n1.sees(N2) && n2.sees(N1)).await;
    (n1, n2)
}

/// An endpoint that says what it likes, under these credentials.
pub(crate) fn raw_endpoint(credentials: &Credentials) -> quinn::Endpoint {
    let tls = certs::server_config(credentials).unwrap();
    let crypto = Arc::new(QuicServerConfig::try_from(tls).unwrap());
    let server = quinn::ServerConfig::with_crypto(crypto);
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    let mut endpoint = quinn::Endpoint::server(server, address).unwrap();
    let tls = certs::client_config(credentials).unwrap();
    let crypto = Arc::new(QuicClientConfig::try_from(tls).unwrap());
    endpoint.set_default_client_config(quinn::ClientConfig::new(crypto));
    endpoint
}

pub(crate) async fn raw_dial(endpoint: &quinn::Endpoint, to: &Node) -> quinn::Connection {
    let name = node_dns_name("prod", &to.mesh.me().to_string());
    endpoint.connect(to.address(), &name).unwrap().await.unwrap()
}

pub(crate) fn hello(purpose: Purpose, node: NodeId) -> Hello {
    Hello { purpose, wire: WIRE, node, boot: 7, cluster: CLUSTER }
}

/// Opens a stream with this hello; does not wait for the answer.
pub(crate) async fn raw_hello(
    connection: &quinn::Connection,
    hello: Hello,
) -> (quinn::SendStream, quinn::RecvStream) {
    let (mut send, recv) = connection.open_bi().await.unwrap();
    send.write_all(&hello.encode()).await.unwrap();
    (send, recv)
}

/// How a connection ended, as the mesh would say it.
pub(crate) async fn raw_ending(connection: &quinn::Connection) -> Ending {
    tokio::time::timeout(PATIENCE, connection.closed()).await.expect("it is closed").into()
}
