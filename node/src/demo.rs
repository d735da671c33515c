//! The demo: a cluster of real processes on this machine, to try, to kill and to bring back.
//!
//! Each node is a child of this process with an ordinary configuration and data directory. Promises:
//! the next demo finds the data again; a node that dies stays dead until somebody brings it back;
//! when the demo ends, however it ends, its children drain (they watch their standard input).

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use ring::{ClusterId, Layout, Member, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::config;
use crate::error::Fault;
use crate::limits::{DEMO_NODES_MAX, DEMO_READY_MAX, DRAIN_MAX};

const CLUSTER_NAME: &str = "demo";
const CERTIFICATE_DAYS: u32 = 3_650;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Demo {
    /// How many nodes.
    pub nodes: u16,
    /// Node i answers Redis clients on this plus i.
    pub base_port: u16,
    /// Where everything lies.
    pub dir: PathBuf,
}

impl Demo {
    fn redis(&self, node: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.base_port + node))
    }

    fn peer(&self, node: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.base_port + 100 + node))
    }

    fn http(&self, node: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.base_port + 200 + node))
    }

    fn node_dir(&self, node: u16) -> PathBuf {
        self.dir.join(format!("n{node}"))
    }

    fn config_of(&self, node: u16) -> PathBuf {
        self.node_dir(node).join("ringd.toml")
    }

    fn log_of(&self, node: u16) -> PathBuf {
        self.node_dir(node).join("ringd.log")
    }

    fn nodes(&self) -> impl Iterator<Item = u16> + use<> {
        1..=self.nodes
    }

    fn members(&self) -> Vec<Member> {
        let member = |i: u16| Member {
            id: NodeId(u32::from(i)),
            zone: zone(i),
            redis: self.redis(i).to_string(),
            http: self.http(i).to_string(),
            ..Member::new(format!("n{i}"), self.peer(i).to_string())
        };
        self.nodes().map(member).collect()
    }

    /// The command that brings a node back from any terminal.
    fn restart(&self, node: u16) -> String {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("ringd"));
        format!("{} start --config {}", program.display(), self.config_of(node).display())
    }
}

/// Runs the demo until it is told to stop.
///
/// # Errors
/// A [`Fault`]: a port is in use, a directory is unusable, a node does not start.
pub async fn run(demo: &Demo) -> Result<(), Fault> {
    check_bounds(demo)?;
    // Signals are caught before the first child, so that none is left behind.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| no_signals(&e))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| no_signals(&e))?;
    fs::create_dir_all(&demo.dir).map_err(|e| Fault::file(&demo.dir, "create", &e))?;
    let dir = fs::canonicalize(&demo.dir).map_err(|e| Fault::file(&demo.dir, "open", &e))?;
    let demo = Demo { dir, ..demo.clone() };
    let found = prepare(&demo)?;
    check_ports(&demo)?;
    let mut children = Vec::new();
    for node in demo.nodes() {
        children.push(spawn(&demo, node)?);
    }
    let ready = tokio::select! {
        ready = all_ready(&demo, &mut children) => ready,
        _ = interrupt.recv() => return stop(&demo, children).await,
        _ = terminate.recv() => return stop(&demo, children).await,
    };
    if let Err(fault) = ready {
        drop_all(children).await;
        return Err(fault);
    }
    println!("{}", welcome(&demo, found, &children)?);
    std::io::stdout().flush().map_err(|e| Fault::new("cannot print", e.to_string(), "-"))?;
    loop {
        tokio::select! {
            (place, status) = next_death(&mut children) => {
                let node = children.remove(place).node;
                println!("{}", obituary(&demo, node, status));
            }
            _ = interrupt.recv() => return stop(&demo, children).await,
            _ = terminate.recv() => return stop(&demo, children).await,
        }
    }
}

fn no_signals(error: &std::io::Error) -> Fault {
    Fault::new("cannot listen to signals", error.to_string(), "see the limits of this system")
}

fn check_bounds(demo: &Demo) -> Result<(), Fault> {
    if !(1..=DEMO_NODES_MAX).contains(&demo.nodes) {
        return Err(Fault::new(
            format!("a demo of {} nodes is not possible", demo.nodes),
            format!("1 to {DEMO_NODES_MAX} nodes share this machine"),
            "choose another --nodes",
        ));
    }
    if demo.base_port == 0 || demo.base_port > u16::MAX - 200 - DEMO_NODES_MAX {
        return Err(Fault::new(
            format!("--base-port {} is not possible", demo.base_port),
            "node i uses the ports P+i, P+100+i and P+200+i",
            "choose a base port between 1 and 65000",
        ));
    }
    Ok(())
}

fn zone(node: u16) -> String {
    let letter = char::from(b'a' + ((node - 1) % 26) as u8);
    if node <= 26 { letter.to_string() } else { format!("{letter}{}", (node - 1) / 26) }
}

/// Makes certificates and configurations, or finds those of an earlier demo; true if it found some.
fn prepare(demo: &Demo) -> Result<bool, Fault> {
    let earlier = earlier_cluster(demo)?;
    let certs_dir = demo.dir.join("certs");
    let ca = if certs_dir.join("ca.pem").exists() {
        certs::CaPair::load(&certs_dir)?
    } else {
        let ca = certs::ca_init(CLUSTER_NAME)?;
        ca.write(&certs_dir)?;
        ca
    };
    let issue = |subject: &certs::Subject| {
        if !certs_dir.join(format!("{}.pem", subject.name)).exists() {
            let validity = certs::Validity::days(CERTIFICATE_DAYS);
            certs::issue(&ca, subject, validity)?.write(&certs_dir)?;
        }
        Ok::<_, Fault>(())
    };
    for node in demo.nodes() {
        issue(&certs::Subject::node(format!("n{node}"), NodeId(u32::from(node))))?;
    }
    issue(&certs::Subject::of_role("client", certs::Role::Client))?;
    issue(&certs::Subject::of_role("admin", certs::Role::Admin))?;
    let cluster = earlier.unwrap_or_else(|| ClusterId(rand::random()));
    for node in demo.nodes() {
        let dir = demo.node_dir(node);
        fs::create_dir_all(&dir).map_err(|e| Fault::file(&dir, "create", &e))?;
        let path = demo.config_of(node);
        // What somebody changed by hand stays, unless the ports moved.
        if !says_these_ports(&path, demo, node) {
            let text = node_config(demo, node, cluster, &certs_dir);
            fs::write(&path, text).map_err(|e| Fault::file(&path, "write", &e))?;
        }
    }
    let path = demo.dir.join("ringctl.toml");
    fs::write(&path, context(demo, &certs_dir)).map_err(|e| Fault::file(&path, "write", &e))?;
    Ok(earlier.is_some())
}

/// The cluster whose data lie here, if there is one.
fn earlier_cluster(demo: &Demo) -> Result<Option<ClusterId>, Fault> {
    let path = demo.config_of(1);
    if !path.exists() {
        return Ok(None);
    }
    let settings = config::Settings::gather(Some(&path), std::iter::empty(), std::iter::empty())?;
    let config = config::Config::from_settings(&settings)?;
    if config.members.len() != usize::from(demo.nodes) {
        let was = config.members.len();
        return Err(Fault::new(
            format!("the demo in {} has {was} nodes", demo.dir.display()),
            format!("its data are spread over {was} nodes, and --nodes asks for {}", demo.nodes),
            format!("start it with --nodes {was}, or choose another --data-dir"),
        ));
    }
    Ok(config.cluster)
}

fn says_these_ports(path: &Path, demo: &Demo, node: u16) -> bool {
    let settings = config::Settings::gather(Some(path), std::iter::empty(), std::iter::empty());
    let Ok(config) = settings.and_then(|s| config::Config::from_settings(&s)) else { return false };
    config.redis.listen == Some(demo.redis(node))
        && config.peer_listen == demo.peer(node)
        && config.http_listen == Some(demo.http(node))
        && config.members == demo.members()
        && config.data_dir == demo.node_dir(node).join("data")
}

fn node_config(demo: &Demo, node: u16, cluster: ClusterId, certs_dir: &Path) -> String {
    let quoted = |path: PathBuf| toml::Value::String(path.display().to_string()).to_string();
    let file = |name: String| quoted(certs_dir.join(name));
    let mut out = format!(
        "# Node n{node} of a demo cluster. `ringd config print` shows every key that there is.\n\
         [node]\nname = \"n{node}\"\ndata_dir = {data}\ncores = 1\n\n\
         [redis]\nlisten = \"{redis}\"\nallow_flush = true\n\n[peer]\nlisten = \"{peer}\"\n\n\
         [http]\nlisten = \"{http}\"\n\n\
         [tls]\nca = {ca}\ncert = {cert}\nkey = {key}\n\n\
         [cluster]\nname = \"{CLUSTER_NAME}\"\nid = \"{cluster}\"\n",
        data = quoted(demo.node_dir(node).join("data")),
        redis = demo.redis(node),
        peer = demo.peer(node),
        http = demo.http(node),
        ca = file("ca.pem".into()),
        cert = file(format!("n{node}.pem")),
        key = file(format!("n{node}.key")),
    );
    for m in demo.members() {
        out.push_str(&format!(
            "\n[[cluster.members]]\nname = \"{}\"\nid = {}\nzone = \"{}\"\npeer = \"{}\"\n\
             redis = \"{}\"\nhttp = \"{}\"\n",
            m.name, m.id.0, m.zone, m.peer, m.redis, m.http
        ));
    }
    out
}

/// The context by which `ringctl` finds the cluster without flags.
fn context(demo: &Demo, certs_dir: &Path) -> String {
    let nodes: Vec<String> = demo.nodes().map(|i| format!("\"{}\"", demo.peer(i))).collect();
    let file =
        |name: &str| toml::Value::String(certs_dir.join(name).display().to_string()).to_string();
    format!(
        "# The context of a demo cluster, with its administrator's certificate.\n\
         current = \"{CLUSTER_NAME}\"\n\n[contexts.{CLUSTER_NAME}]\ncluster = \"{CLUSTER_NAME}\"\n\
         nodes = [{}]\nca = {}\ncert = {}\nkey = {}\n",
        nodes.join(", "),
        file("ca.pem"),
        file("admin.pem"),
        file("admin.key"),
    )
}

fn check_ports(demo: &Demo) -> Result<(), Fault> {
    for node in demo.nodes() {
        for address in [demo.redis(node), demo.http(node)] {
            TcpListener::bind(address).map_err(|e| in_use(demo, node, address, &e))?;
        }
        let address = demo.peer(node);
        UdpSocket::bind(address).map_err(|e| in_use(demo, node, address, &e))?;
    }
    Ok(())
}

fn in_use(demo: &Demo, node: u16, address: SocketAddr, error: &std::io::Error) -> Fault {
    Fault::new(
        format!("port {} is in use", address.port()),
        format!("node n{node} needs {address}: {error}"),
        format!(
            "stop what uses it (perhaps another demo), or choose another --base-port than {}",
            demo.base_port
        ),
    )
}

/// A node of ours that runs, or did.
struct Running {
    node: u16,
    child: Child,
    /// While it is open the node runs; waiting for a child would close one that it owns.
    stdin: Option<ChildStdin>,
    /// Where the node's log ended before it started.
    log_from: u64,
}

fn spawn(demo: &Demo, node: u16) -> Result<Running, Fault> {
    let path = demo.log_of(node);
    let fault = |e| Fault::file(&path, "open", &e);
    let log = fs::OpenOptions::new().create(true).append(true).open(&path).map_err(fault)?;
    let log_from = log.metadata().map_err(fault)?.len();
    let program = std::env::current_exe().map_err(|e| {
        Fault::new("cannot find the ringd program", e.to_string(), "start it by its full path")
    })?;
    let mut child = Command::new(program)
        .arg("start")
        .arg("--config")
        .arg(demo.config_of(node))
        .arg("--drain-on-stdin-end")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        // Ctrl-C in the terminal is for the demo, which then tells its children in order.
        .process_group(0)
        .spawn()
        .map_err(|e| {
            Fault::new(format!("cannot start node n{node}"), e.to_string(), "try again")
        })?;
    let stdin = child.stdin.take();
    Ok(Running { node, child, stdin, log_from })
}

/// What a node wrote to its log since it was started.
fn log_since(demo: &Demo, node: u16, from: u64) -> String {
    let read = || {
        let mut file = fs::File::open(demo.log_of(node))?;
        file.seek(SeekFrom::Start(from))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map(|_| text)
    };
    read().unwrap_or_default()
}

async fn all_ready(demo: &Demo, children: &mut [Running]) -> Result<(), Fault> {
    let wait = async {
        for node in demo.nodes() {
            while !serves_every_slot(demo.http(node)).await {
                sleep(Duration::from_millis(25)).await;
            }
        }
    };
    tokio::select! {
        waited = timeout(DEMO_READY_MAX, wait) => waited.map_err(|_| Fault::new(
            "the nodes did not become ready",
            format!("after {} s not every slot can be read and written", DEMO_READY_MAX.as_secs()),
            format!("look into the logs: {}/n*/ringd.log", demo.dir.display()),
        )),
        (place, status) = next_death(children) => Err(not_started(demo, &children[place], status)),
    }
}

fn not_started(demo: &Demo, dead: &Running, status: ExitStatus) -> Fault {
    let text = log_since(demo, dead.node, dead.log_from);
    let lines: Vec<&str> = text.lines().collect();
    let told = lines.iter().rposition(|l| l.starts_with("error: ")).map(|at| &lines[at..]);
    let line = |i: usize, prefix: &str| {
        let line = told.and_then(|t| t.get(i)).map(|l| l.trim()).unwrap_or_default();
        line.strip_prefix(prefix).unwrap_or(line).trim().to_owned()
    };
    if told.is_some() {
        let what = format!("node n{} did not start: {}", dead.node, line(0, "error:"));
        return Fault::new(what, line(1, "why:"), line(2, "fix:"));
    }
    Fault::new(
        format!("node n{} did not start", dead.node),
        format!("{status}; its last words: {}", lines.last().unwrap_or(&"none")),
        format!("look into {}", demo.log_of(dead.node).display()),
    )
}

/// Whether the node at this HTTP address says that every slot is readable and writable at QUORUM.
async fn serves_every_slot(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = "GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.ok()?;
        let body = reply.windows(4).position(|w| w == b"\r\n\r\n")?;
        serde_json::from_slice::<wire::ClusterStatus>(&reply[body + 4..]).ok()
    };
    let status = timeout(Duration::from_secs(1), ask).await.ok().flatten();
    status.is_some_and(|s| s.slots_quorum_readable >= 1.0 && s.slots_quorum_writable >= 1.0)
}

/// The place of the next child that ends, and how it ended. Waits for ever if there is none.
async fn next_death(children: &mut [Running]) -> (usize, ExitStatus) {
    let mut waits: Vec<_> = children.iter_mut().map(|c| Box::pin(c.child.wait())).collect();
    std::future::poll_fn(move |cx| {
        for (place, wait) in waits.iter_mut().enumerate() {
            if let std::task::Poll::Ready(status) = wait.as_mut().poll(cx) {
                let status = status.unwrap_or_else(|_| ExitStatus::from_raw(0));
                return std::task::Poll::Ready((place, status));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

fn welcome(demo: &Demo, found: bool, children: &[Running]) -> Result<String, Fault> {
    let members = demo.members();
    let layout =
        Layout::genesis(ClusterId(0), ring::limits::COPIES_DEFAULT, members).map_err(|e| {
            Fault::new(
                "the demo's members make no cluster",
                e.to_string(),
                "choose another --nodes",
            )
        })?;
    let copies = layout.table.width();
    let mut out = format!(
        "ready: {} nodes, {copies} copies of each key, QUORUM reads and writes{}\n\n",
        demo.nodes,
        if found { "; the data of the last demo are here again" } else { "" }
    );
    for member in layout.members.values() {
        let slots = layout.slots_of(member.id).count();
        let first = layout.primaries(member.id).count();
        out.push_str(&format!(
            "  {:<3}  redis://{}  zone {}  keeps {slots} slots, first in {first}\n",
            member.name, member.redis, member.zone
        ));
    }
    let last = demo.nodes;
    let pid = children.last().and_then(|c| c.child.id()).unwrap_or_default();
    out.push_str(&format!(
        "\ntry:\n  \
         redis-cli -p {p1} SET greeting hello        # any node takes it\n  \
         redis-cli -p {p2} GET greeting              # any node answers\n  \
         redis-cli -p {p1} WITH ALL GET greeting     # the level of one request\n  \
         kill -9 {pid:<7}                            # n{last} dies, the others go on\n  \
         {restart}\n  \
         curl http://{http}/status              # also /metrics, /readyz\n  \
         ringctl --config {ctl} status\n\
         \ndata and logs are in {dir}; Ctrl-C stops all nodes and keeps the data",
        p1 = demo.redis(1).port(),
        p2 = demo.redis(demo.nodes.min(2)).port(),
        restart = demo.restart(last),
        http = demo.http(1),
        ctl = demo.dir.join("ringctl.toml").display(),
        dir = demo.dir.display(),
    ));
    Ok(out)
}

fn obituary(demo: &Demo, node: u16, status: ExitStatus) -> String {
    let how = match status.signal() {
        Some(signal) => format!("was killed by signal {signal}"),
        None => format!("ended ({status})"),
    };
    format!("n{node} {how} and stays dead; this brings it back: {}", demo.restart(node))
}

/// Tells every child to drain, waits for all, and says how it went.
async fn stop(demo: &Demo, children: Vec<Running>) -> Result<(), Fault> {
    let count = children.len();
    println!("stopping {count} nodes");
    let killed = drop_all(children).await;
    let how =
        if killed == 0 { "all drained".to_owned() } else { format!("{killed} had to be killed") };
    println!("stopped {count} nodes, {how}; the data stay in {}", demo.dir.display());
    Ok(())
}

/// Ends all children; how many did not drain in time.
async fn drop_all(mut children: Vec<Running>) -> usize {
    for running in &mut children {
        // The end of its standard input tells it to drain.
        drop(running.stdin.take());
    }
    let mut killed = 0;
    for mut running in children {
        if timeout(DRAIN_MAX * 2, running.child.wait()).await.is_err() {
            killed += 1;
            // It may end just now; either way it is gone afterwards.
            drop(running.child.kill().await);
        }
    }
    killed
}
