//! Processes that never outlive their test, and a Redis client that says what it heard.

pub(crate) mod demo;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use wire::resp::{Reply, ReplyDecoder, encode};

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program under test.
pub(crate) const RINGD: &str = env!("CARGO_BIN_EXE_ringd");

/// Waits until `f` gives something.
pub(crate) fn until<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = f() {
            return found;
        }
        assert!(Instant::now() < end, "waited too long until {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok()
}

/// Below the ports that the system gives to outgoing connections, so that none of those takes one
/// away between the look and its use; different for every process and call.
fn next_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 40) as u16 * 500;
    first + NEXT.fetch_add(count, Ordering::Relaxed) % 500
}

/// A port that nobody uses, neither for TCP nor for UDP.
pub(crate) fn free_port() -> u16 {
    until("a port is free", || Some(next_ports(1)).filter(|port| is_free(*port)))
}

/// A base port whose demo finds all its ports free.
pub(crate) fn free_base(nodes: u16) -> u16 {
    until("ports for a demo are free", || {
        let base = next_ports(nodes + 1);
        let all = (1..=nodes).flat_map(|i| [base + i, base + 100 + i, base + 200 + i]);
        all.clone().all(is_free).then_some(base)
    })
}

/// A process that is killed when it goes out of scope.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self { child: command.spawn().unwrap() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// As `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn terminate(&self) {
        signal("TERM", self.id());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the process ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn signal(name: &str, pid: u32) {
    let kill = format!("kill -{name} {pid}");
    assert!(Command::new("sh").arg("-c").arg(kill).status().unwrap().success());
}

/// The process whose command line holds this text.
pub(crate) fn pid_of(text: &str) -> Option<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id()).find(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.starts_with(RINGD) && line.contains(text)
    })
}

/// One node alone.
pub(crate) struct Node {
    pub(crate) process: Process,
    pub(crate) port: u16,
    pub(crate) http: u16,
    dir: PathBuf,
}

/// `ringd start` for one node alone, with a port for each listener.
pub(crate) fn start_command(dir: &Path, port: u16, http: u16) -> Command {
    command_on(dir, port, http, "127.0.0.1:1")
}

fn command_on(dir: &Path, port: u16, http: u16, peers: &str) -> Command {
    let mut command = Command::new(RINGD);
    command
        .arg("start")
        .arg("--node-data-dir")
        .arg(dir.join("data"))
        .args(["--node-cores", "1"])
        .args(["--redis-listen", &format!("127.0.0.1:{port}")])
        .args(["--http-listen", &format!("127.0.0.1:{http}")])
        .args(["--peer-listen", peers])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

impl Node {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    pub(crate) fn start_with(dir: &Path, more: &[&str]) -> Self {
        let (port, http) = (free_port(), free_port());
        let log = fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let mut command = start_command(dir, port, http);
        let process = Process::spawn(command.args(more).stderr(log));
        Self { process, port, http, dir: dir.to_owned() }
    }

    /// The same, started by another program, which becomes the node.
    pub(crate) fn start_under(program: &[&str], dir: &Path, more: &[&str]) -> Self {
        let (port, http) = (free_port(), free_port());
        let log = fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let node = start_command(dir, port, http);
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(node.get_program()).args(node.get_args()).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = Process::spawn(command.stderr(log));
        Self { process, port, http, dir: dir.to_owned() }
    }

    /// The same with an address for peers.
    pub(crate) fn start_on(dir: &Path, peers: &str, more: &[&str]) -> Self {
        let (port, http) = (free_port(), free_port());
        let log = fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let mut command = command_on(dir, port, http, peers);
        let process = Process::spawn(command.args(more).stderr(log));
        Self { process, port, http, dir: dir.to_owned() }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }

    /// A connection, once the node serves.
    pub(crate) fn client(&mut self) -> Client {
        until("the node serves", || {
            let ended = self.process.child.try_wait().unwrap();
            assert_eq!(ended, None, "the node ended: {}", self.log());
            Client::try_ready(self.port)
        })
    }

    /// Drains it; its exit must be clean.
    pub(crate) fn stop(mut self) {
        self.process.terminate();
        let status = self.process.wait();
        assert!(status.success(), "{status}: {}", self.log());
    }
}

/// Runs a command that must end by itself.
pub(crate) fn run(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.wait_with_output().unwrap()
}

/// The body of an HTTP answer, and its status code.
pub(crate) fn http(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// A Redis client.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    decoder: ReplyDecoder,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Self { stream, decoder: ReplyDecoder::new(), buffer: Vec::new() })
    }

    /// A connection to a node that serves.
    pub(crate) fn ready(port: u16) -> Self {
        until("the node serves", || Self::try_ready(port))
    }

    fn try_ready(port: u16) -> Option<Self> {
        let mut client = Self::connect(port)?;
        client.send(&["PING"]);
        (client.next()? == Reply::simple("PONG")).then_some(client)
    }

    /// Gives back what replies were read into.
    pub(crate) fn forget_buffer(&mut self) {
        self.buffer = Vec::new();
    }

    pub(crate) fn send(&mut self, args: &[&str]) {
        let mut bytes = Vec::new();
        let args: Vec<&[u8]> = args.iter().map(|a| a.as_bytes()).collect();
        encode::write_command(&mut bytes, &args);
        // A server that has closed is noticed by the next read.
        let _ = self.stream.write_all(&bytes);
    }

    /// The next reply; `None` at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Reply> {
        loop {
            if let Some(read) = self.decoder.decode(&self.buffer).unwrap() {
                self.buffer.drain(..read.consumed);
                return Some(read.reply);
            }
            let mut chunk = [0; 64 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
            }
        }
    }

    /// The reply to a command, as text: status and string plain, an error with its dash.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        let args: Vec<&str> = command.split(' ').collect();
        self.send(&args);
        text(&self.next().unwrap_or_else(|| panic!("no reply to {command}")))
    }
}

/// A reply as text.
pub(crate) fn text(reply: &Reply) -> String {
    match reply {
        Reply::Simple(s) => s.to_string(),
        Reply::Error(e) => format!("-{e}"),
        Reply::Integer(n) => n.to_string(),
        Reply::Bulk(b) => String::from_utf8_lossy(b).into_owned(),
        Reply::Null | Reply::NullArray => "nil".to_owned(),
        Reply::Array(items) => {
            let items: Vec<String> = items.iter().map(text).collect();
            format!("[{}]", items.join(", "))
        }
        other => format!("{other:?}"),
    }
}
