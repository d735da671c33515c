//! What a round trip over the mesh costs: processor time of both ends, per request and reply.
//!
//! ```text
//! cargo run --release -p ringdb-node --example mesh_cost [-- SECONDS [ROUNDS]]
//! ```
//!
//! Two nodes in two threads, each with its own runtime, as in two processes: 150-byte requests,
//! 150-byte replies, a fixed number in flight, every reply answered by the next request in the same
//! turn. Prints the least of all rounds, since everything else that runs can only add.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use certs::{CaPair, Credentials, Subject, Validity, ca_init, issue};
use ring::NodeId;
use ringdb_node::mesh::{
    ClusterId, Frames, Lane, Mesh, MeshConfig, MeshHandler, Peer, Tuning, Versions,
};
use tokio::runtime::LocalRuntime;
use tokio::sync::{Notify, oneshot};

const MESSAGE_BYTES: usize = 150;
const ASKS: NodeId = NodeId(1);
const ANSWERS: NodeId = NodeId(2);
const IN_FLIGHT: [usize; 4] = [1, 16, 64, 512];

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Answers every frame with one of the same length.
struct Answerer;

impl MeshHandler for Answerer {
    fn on_frames(&self, mesh: &Mesh, from: NodeId, lane: Lane, frames: Frames<'_>) {
        for frame in frames {
            // A reply that is not taken is a request less in flight, and shows in the figures.
            let _ = mesh.send(from, lane, |buf| buf.extend_from_slice(frame));
        }
    }
}

/// Sends the next request for every reply, while it is told to.
#[derive(Default)]
struct Asker {
    connected: Notify,
    running: Cell<bool>,
    in_flight: Cell<usize>,
    done: Cell<u64>,
    reads: Cell<u64>,
    idle: Notify,
    /// When the last read was answered with requests.
    sent_at: Cell<Option<Instant>>,
    /// Microseconds from one read to the next.
    waits: RefCell<Vec<u32>>,
}

impl Asker {
    fn ask(&self, mesh: &Mesh) {
        let request = |buf: &mut Vec<u8>| buf.resize(buf.len() + MESSAGE_BYTES, 7);
        if mesh.send(ANSWERS, Lane::Fast, request).is_ok() {
            self.in_flight.set(self.in_flight.get() + 1);
        }
    }
}

impl MeshHandler for Asker {
    fn on_connected(&self, _: &Mesh, _: NodeId, _: u8) {
        self.connected.notify_one();
    }

    fn on_frames(&self, mesh: &Mesh, _: NodeId, _: Lane, frames: Frames<'_>) {
        let replies = frames.count();
        self.done.set(self.done.get() + replies as u64);
        self.reads.set(self.reads.get() + 1);
        self.in_flight.set(self.in_flight.get() - replies);
        let now = Instant::now();
        if let Some(sent) = self.sent_at.replace(Some(now)) {
            let wait = u32::try_from((now - sent).as_micros()).unwrap_or(u32::MAX);
            self.waits.borrow_mut().push(wait);
        }
        if self.running.get() {
            for _ in 0..replies {
                self.ask(mesh);
            }
        } else if self.in_flight.get() == 0 {
            self.idle.notify_one();
        }
    }
}

fn config(ca: &CaPair, me: NodeId, listen: SocketAddr, peer: Peer) -> Outcome<MeshConfig> {
    let pair = issue(ca, &Subject::node(me.to_string(), me), Validity::days(1))?;
    Ok(MeshConfig {
        me,
        listen,
        cluster: ClusterId(1),
        wire: Versions { min: 1, max: 1 },
        credentials: Credentials::from_pair(&pair)?,
        peers: vec![peer],
        tuning: Tuning::default(),
    })
}

/// What all threads of this process spent on processors.
fn processor_time() -> Outcome<Duration> {
    // In nanoseconds, where utime and stime have ticks of ten milliseconds; one file a thread.
    let mut nanoseconds = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path().join("schedstat");
        let text = std::fs::read_to_string(path)?;
        let spent = text.split(' ').next().ok_or("an empty schedstat")?;
        nanoseconds += spent.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

struct Cost {
    micros: f64,
    rate: f64,
    per_read: f64,
    p50: u32,
}

async fn measure(asker: &Asker, mesh: &Mesh, in_flight: usize, time: Duration) -> Outcome<Cost> {
    asker.running.set(true);
    for _ in 0..in_flight {
        asker.ask(mesh);
    }
    mesh.flush();
    tokio::time::sleep(time / 5).await;
    let (done, reads, began) = (asker.done.get(), asker.reads.get(), Instant::now());
    asker.waits.borrow_mut().clear();
    let spent = processor_time()?;
    tokio::time::sleep(time).await;
    let spent = processor_time()? - spent;
    let done = (asker.done.get() - done) as f64;
    let reads = (asker.reads.get() - reads) as f64;
    let elapsed = began.elapsed().as_secs_f64();
    let p50 = {
        let mut waits = asker.waits.borrow_mut();
        waits.sort_unstable();
        waits.get(waits.len() / 2).copied().unwrap_or(0)
    };
    asker.running.set(false);
    asker.idle.notified().await;
    Ok(Cost {
        micros: spent.as_secs_f64() * 1e6 / done,
        rate: done / elapsed,
        per_read: done / reads,
        p50,
    })
}

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    let seconds: f64 = args.next().map_or(Ok(1.0), |text| text.parse())?;
    let rounds: usize = args.next().map_or(Ok(5), |text| text.parse())?;
    let free =
        || -> Outcome<SocketAddr> { Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?) };
    let (a, b) = (free()?, free()?);
    let ca = ca_init("cost")?;
    let peer = |id: NodeId, address| Peer { id, name: id.to_string(), address };
    let asks = config(&ca, ASKS, a, peer(ANSWERS, b))?;
    let answers = config(&ca, ANSWERS, b, peer(ASKS, a))?;

    let (stop, stopped) = oneshot::channel::<()>();
    let other = thread::spawn(move || {
        let runtime = LocalRuntime::new().expect("a runtime needs only a few descriptors");
        runtime.block_on(async {
            let mesh = Mesh::start(answers, Rc::new(Answerer)).expect("the address was free");
            let _ = stopped.await;
            mesh.shutdown().await;
        });
    });
    let runtime = LocalRuntime::new()?;
    runtime.block_on(async {
        let asker = Rc::new(Asker::default());
        let mesh = Mesh::start(asks, asker.clone())?;
        asker.connected.notified().await;
        println!("in flight   CPU-us/round trip   round trips/s   replies/read   p50 us/read");
        for in_flight in IN_FLIGHT {
            let mut best: Option<Cost> = None;
            for _ in 0..rounds {
                let time = Duration::from_secs_f64(seconds);
                let cost = measure(&asker, &mesh, in_flight, time).await?;
                if best.as_ref().is_none_or(|best| cost.micros < best.micros) {
                    best = Some(cost);
                }
            }
            let Some(Cost { micros, rate, per_read, p50 }) = best else { continue };
            println!("{in_flight:9}   {micros:17.2}   {rate:13.0}   {per_read:12.1}   {p50:11}");
        }
        if let Some(path) = mesh.path(ANSWERS) {
            println!("mtu {}, {} of {} datagrams lost", path.mtu, path.lost, path.sent);
        }
        mesh.shutdown().await;
        Outcome::Ok(())
    })?;
    let _ = stop.send(());
    other.join().map_err(|_| "the answering node panicked")?;
    Ok(())
}
