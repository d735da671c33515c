//! A node that is only a face: real QUIC, real certificates, and answers as the story wants them.

#![allow(dead_code, reason = "two test binaries share it, each uses its part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use certs::{CaPair, CertPair, Credentials, Role, Subject, Validity, ca_init, issue};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, RecvStream, SendStream};
use ring::{ClusterId, Hlc, NodeId};
use tokio::sync::{Mutex, oneshot};
use wire::hello::HELLO_BYTES;
use wire::{
    Ack, ClientReply, ClientRequest, ErrorCode, ErrorReply, FrameDecoder, FrameWriter, Header,
    Hello, Kind, Purpose, Versions, codec,
};

/// What the node does about a request.
pub(crate) enum Answer {
    /// Answers.
    Say(ClientReply),
    /// Answers now the requests that it kept waiting, the latest first, and then this one.
    SayLast(ClientReply),
    /// Keeps this answer until some request is answered with `SayLast`.
    Keep(ClientReply),
    /// Says nothing.
    Silence,
    /// Closes the connection under this code.
    HangUp(u32, &'static str),
}

pub(crate) struct Script {
    answer: Box<Answering>,
    mapless: bool,
    epoch: Arc<AtomicU64>,
}

type Answering = dyn Fn(&Header, &ClientRequest<'_>) -> Answer + Send + Sync;

impl Script {
    fn is_mapless(&self) -> bool {
        self.mapless
    }
}

/// The streams to those who are connected.
type Clients = Arc<Mutex<Vec<Arc<Mutex<SendStream>>>>>;

/// A node that listens; gone when it is dropped.
pub(crate) struct FakeNode {
    clients: Clients,
    /// The epoch that it says with every answer.
    pub(crate) epoch: Arc<AtomicU64>,
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The clock that the node says with every answer.
pub(crate) const HLC: Hlc = Hlc(77 << 16);

/// The clock that it says with what it holds.
pub(crate) const LATER: Hlc = Hlc(99 << 16);

impl FakeNode {
    /// Node `id` under `pair`, which answers as `script` says.
    pub(crate) fn start(
        pair: &CertPair,
        id: u32,
        script: impl Fn(&Header, &ClientRequest<'_>) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start_as(pair, id, (Box::new(script), true))
    }

    /// As [`FakeNode::start`], and the script hears of everything that a node hears of.
    pub(crate) fn start_mapped(
        pair: &CertPair,
        id: u32,
        script: impl Fn(&Header, &ClientRequest<'_>) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start_as(pair, id, (Box::new(script), false))
    }

    fn start_as(pair: &CertPair, id: u32, (answer, mapless): (Box<Answering>, bool)) -> Self {
        let epoch = Arc::<AtomicU64>::default();
        let script = Script { answer, mapless, epoch: epoch.clone() };
        let (started, address) = sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let credentials = Credentials::from_pair(pair).unwrap();
        let clients = Clients::default();
        let streams = clients.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let served = serve(credentials, id, (Arc::new(script), streams), started, stopped);
            runtime.unwrap().block_on(served);
        });
        let address = address.recv().unwrap();
        Self { clients, epoch, address, stop: Some(stop), thread: Some(thread) }
    }

    /// Tells whoever is connected that it holds these writes.
    pub(crate) async fn hold(&self, acks: &[Ack]) {
        let clients = self.clients.lock().await.clone();
        for client in clients {
            hold(&mut *client.lock().await, acks).await;
        }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

async fn serve(
    credentials: Credentials,
    id: u32,
    (script, clients): (Arc<Script>, Clients),
    started: SyncSender<SocketAddr>,
    stopped: oneshot::Receiver<()>,
) {
    let tls = certs::server_config(&credentials).unwrap();
    let crypto = Arc::new(QuicServerConfig::try_from(tls).unwrap());
    let server = quinn::ServerConfig::with_crypto(crypto);
    let endpoint = Endpoint::server(server, ([127, 0, 0, 1], 0).into()).unwrap();
    started.send(endpoint.local_addr().unwrap()).unwrap();
    let accept = async {
        while let Some(incoming) = endpoint.accept().await {
            let (script, clients) = (script.clone(), clients.clone());
            tokio::spawn(async move {
                // A client that refuses us is part of some stories.
                let Ok(connection) = incoming.await else { return };
                if let Ok((send, recv)) = connection.accept_bi().await {
                    let send = Arc::new(Mutex::new(send));
                    clients.lock().await.push(send.clone());
                    talk(&connection, id, &send, recv, &script).await;
                }
                connection.closed().await;
            });
        }
    };
    tokio::select! {
        () = accept => {}
        _ = stopped => {}
    }
    endpoint.close(1_u8.into(), b"the process ends");
    endpoint.wait_idle().await;
}

async fn talk(
    connection: &quinn::Connection,
    id: u32,
    send: &Mutex<SendStream>,
    mut recv: RecvStream,
    script: &Script,
) {
    let mut hello = [0; HELLO_BYTES];
    recv.read_exact(&mut hello).await.unwrap();
    let hello = Hello::decode(&hello).unwrap();
    assert_eq!((hello.purpose, hello.node), (Purpose::Client, NodeId(0)));
    let node = NodeId(id);
    let boot = boot_of(id);
    let answer = Hello { node, wire: Versions::OURS, boot, cluster: ClusterId(5), ..hello };
    send.lock().await.write_all(&answer.encode()).await.unwrap();
    let mut decoder = FrameDecoder::new();
    let mut kept: Vec<(u64, ClientReply)> = Vec::new();
    let mut length = [0; 4];
    while recv.read_exact(&mut length).await.is_ok() {
        let mut piece = vec![0; u32::from_le_bytes(length) as usize];
        if recv.read_exact(&mut piece).await.is_err() {
            return;
        }
        let frame = decoder.decode(&piece).unwrap().unwrap();
        if frame.header.kind == Kind::MOMENT {
            // A node that does not know it passes over it.
            continue;
        }
        assert_eq!((frame.header.kind, frame.consumed), (Kind::CLIENT_REQUEST, piece.len()));
        let request = codec::decode(frame.body).unwrap();
        let send = &mut *send.lock().await;
        let id = frame.header.request_id;
        let epoch = script.epoch.load(Ordering::SeqCst);
        if script.is_mapless() {
            // As a node of an earlier version: it knows neither maps nor cancelled requests.
            match request {
                ClientRequest::Layout => {
                    say(send, epoch, [(id, error(ErrorCode::Invalid))]).await;
                    continue;
                }
                ClientRequest::Cancel { .. } => continue,
                _ => {}
            }
        }
        match (script.answer)(&frame.header, &request) {
            Answer::Say(reply) => say(send, epoch, [(id, reply)]).await,
            Answer::SayLast(reply) => {
                say(send, epoch, kept.drain(..).rev().chain([(id, reply)])).await;
            }
            Answer::Keep(reply) => kept.push((id, reply)),
            Answer::Silence => {}
            Answer::HangUp(code, text) => return connection.close(code.into(), text.as_bytes()),
        }
    }
}

/// All in one frame, as a node says what it holds.
async fn hold(send: &mut SendStream, acks: &[Ack]) {
    let mut writer = FrameWriter::new();
    writer.begin(Header { hlc: LATER, ..Header::new(Kind::ACKS) });
    for ack in acks {
        codec::encode_into(ack, writer.body());
    }
    writer.finish().unwrap();
    let length = u32::try_from(writer.bytes().len()).unwrap();
    drop(send.write_all(&[&length.to_le_bytes(), writer.bytes()].concat()).await);
}

/// All replies in one piece, as a node may send them.
async fn say(
    send: &mut SendStream,
    epoch: u64,
    replies: impl IntoIterator<Item = (u64, ClientReply)>,
) {
    let mut writer = FrameWriter::new();
    for (request_id, reply) in replies {
        writer.begin(Header { request_id, epoch, hlc: HLC, ..Header::new(Kind::CLIENT_REPLY) });
        codec::encode_into(&reply, writer.body());
        writer.finish().unwrap();
    }
    let length = u32::try_from(writer.bytes().len()).unwrap();
    // The client may be gone.
    drop(send.write_all(&[&length.to_le_bytes(), writer.bytes()].concat()).await);
}

/// Which start of its process node `id` says to be.
pub(crate) fn boot_of(id: u32) -> u64 {
    900 + u64::from(id)
}

pub(crate) fn authority() -> CaPair {
    ca_init("demo").unwrap()
}

pub(crate) fn node(ca: &CaPair, id: u32) -> CertPair {
    issue(ca, &Subject::node(format!("n{id}"), NodeId(id)), Validity::days(1)).unwrap()
}

pub(crate) fn visitor(ca: &CaPair, role: Role) -> CertPair {
    issue(ca, &Subject::of_role(role.to_string(), role), Validity::days(1)).unwrap()
}

pub(crate) fn error(code: ErrorCode) -> ClientReply {
    let (what, why, fix) = ("it failed".into(), "of this".into(), "do that".into());
    ClientReply::Error(ErrorReply { code, what, why, fix })
}

/// An address at which nobody listens.
pub(crate) fn nobody() -> String {
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    socket.local_addr().unwrap().to_string()
}
