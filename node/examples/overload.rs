//! overload: offers more than servers can do, and prints what became of it, moment by moment.
//!
//! ```text
//! cargo run --release -p ringdb-node --example overload -- --addr 127.0.0.1:7001 --pids PID
//! ```
//!
//! Three phases: a closed loop finds the peak; an open loop offers `--factor` times as much, whatever
//! the server answers; then half the peak. A request is due at a moment, and its latency counts from
//! there. One that could not be sent by its deadline is given up, as a client with a time-out does,
//! and so that this is possible, sockets hold little.
//! *good* are answers within the deadline; *refused* those that say OVERLOADED; *late* are answers that
//! came after the deadline, *lost* requests that were given up unsent. Exit code 1 if goodput fell
//! below 90 % of the peak, or recovery took more than five seconds.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

const HELP: &str = "\
overload: offers more than servers can do, and prints what became of it
  --addr A[,B…]    where to connect; connections are dealt in turn (default 127.0.0.1:7001)
  --pids P[,Q…]    processes whose memory is shown
  --mode M         set or get (default set)
  --connections N  connections (default 64)
  --window N       commands in flight on each connection while the peak is found (default 16)
  --factor F       how many times the peak is offered (default 3)
  --peak N         operations a second, instead of finding the peak
  --seconds N      how long each phase takes (default 10)
  --deadline-ms N  when a client gives up (default 1000)";

/// How often connections are looked after.
const TICK: Duration = Duration::from_millis(2);

/// What one printed line covers.
const MOMENT: Duration = Duration::from_millis(500);

/// What a connection hands to the system ahead: what lies there cannot be given up.
const SEND_BUFFER_BYTES: usize = 32 << 10;

/// The node gives up on a request after this; nothing may be answered later.
const NODE_DEADLINE: Duration = Duration::from_secs(2);

struct Options {
    addresses: Vec<SocketAddr>,
    pids: Vec<u32>,
    get: bool,
    connections: usize,
    window: usize,
    factor: f64,
    peak: Option<f64>,
    seconds: f64,
    deadline: Duration,
}

fn options() -> Outcome<Option<Options>> {
    let mut options = Options {
        addresses: vec![SocketAddr::from(([127, 0, 0, 1], 7001))],
        pids: Vec::new(),
        get: false,
        connections: 64,
        window: 16,
        factor: 3.0,
        peak: None,
        seconds: 10.0,
        deadline: Duration::from_secs(1),
    };
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or(format!("{flag} wants a value"));
        match flag.as_str() {
            "--help" | "-h" => return Ok(None),
            "--addr" => {
                options.addresses =
                    value()?.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            "--pids" => {
                options.pids = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            "--mode" => options.get = value()? == "get",
            "--connections" => options.connections = value()?.parse()?,
            "--window" => options.window = value()?.parse()?,
            "--factor" => options.factor = value()?.parse()?,
            "--peak" => options.peak = Some(value()?.parse()?),
            "--seconds" => options.seconds = value()?.parse()?,
            "--deadline-ms" => options.deadline = Duration::from_millis(value()?.parse()?),
            _ => return Err(format!("no option is called {flag}; --help lists them").into()),
        }
    }
    Ok(Some(options))
}

/// What happened in a moment.
#[derive(Clone, Default)]
struct Moment {
    offered: u64,
    good: u64,
    refused: u64,
    late: u64,
    lost: u64,
    errors: u64,
    took_us: Vec<u32>,
}

/// What happened in a phase.
#[derive(Default)]
struct Phase {
    moments: Vec<Moment>,
    rss: Vec<u64>,
    /// Processor time of the servers when each moment began, in seconds.
    cpu_s: Vec<f64>,
    /// Done, and told after the node's own deadline, counted from when the request was sent.
    beyond: u64,
    first_error: Option<String>,
}

struct Connection {
    stream: TcpStream,
    /// When they were due, of those that wait to be sent.
    unsent: VecDeque<Instant>,
    /// When they were due and sent, of those that wait for an answer.
    sent: VecDeque<(Instant, Instant)>,
    out: Vec<u8>,
    written: usize,
    inbox: Vec<u8>,
    chance: u64,
}

impl Connection {
    fn open(address: SocketAddr, seed: u64) -> Outcome<Self> {
        let stream = TcpStream::connect(address).map_err(|e| format!("{address}: {e}"))?;
        stream.set_nodelay(true)?;
        socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            unsent: VecDeque::new(),
            sent: VecDeque::new(),
            out: Vec::new(),
            written: 0,
            inbox: Vec::new(),
            chance: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        })
    }

    /// Sends what is due, as much as the socket takes; what is too old is given up.
    fn write(&mut self, now: Instant, options: &Options, moment: &mut Moment) -> Outcome<()> {
        loop {
            while self.out.len() - self.written < 16 << 10 {
                let Some(due) = self.unsent.pop_front() else { break };
                if now.duration_since(due) >= options.deadline {
                    moment.lost += 1;
                    continue;
                }
                self.chance ^= self.chance << 13;
                self.chance ^= self.chance >> 7;
                self.chance ^= self.chance << 17;
                let key = self.chance % 100_000;
                if options.get {
                    write!(self.out, "*2\r\n$3\r\nGET\r\n$16\r\nkey:{key:012}\r\n")?;
                } else {
                    write!(self.out, "*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n$100\r\n")?;
                    self.out.extend_from_slice(&[b'v'; 100]);
                    self.out.extend_from_slice(b"\r\n");
                }
                self.sent.push_back((due, now));
            }
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
                return Ok(());
            }
            match self.stream.write(&self.out[self.written..]) {
                Ok(n) => self.written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Takes the answers that are there.
    fn read(&mut self, options: &Options, phase: &mut Phase, moment: usize) -> Outcome<()> {
        let mut buffer = [0; 64 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(n) => self.inbox.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.into()),
            }
        }
        let now = Instant::now();
        let mut at = 0;
        while let Some(end) = self.inbox[at..].windows(2).position(|w| w == b"\r\n") {
            let line = &self.inbox[at..at + end];
            let mut next = at + end + 2;
            if line.first() == Some(&b'$') && line != b"$-1" {
                next += std::str::from_utf8(&line[1..])?.parse::<usize>()? + 2;
            }
            if next > self.inbox.len() {
                break;
            }
            let (due, sent) = self.sent.pop_front().ok_or("an answer to nothing")?;
            let took = now.duration_since(due);
            let of = &mut phase.moments[moment];
            if line.starts_with(b"-OVERLOADED") {
                of.refused += 1;
            } else if line.starts_with(b"-") {
                of.errors += 1;
                let text = || String::from_utf8_lossy(line).into_owned();
                phase.first_error.get_or_insert_with(text);
            } else if took > options.deadline {
                of.late += 1;
                phase.beyond += u64::from(now.duration_since(sent) > NODE_DEADLINE + TICK * 10);
            } else {
                of.good += 1;
                of.took_us.push(took.as_micros() as u32);
            }
            at = next;
        }
        self.inbox.drain(..at);
        Ok(())
    }
}

/// How requests become due.
#[derive(Clone, Copy)]
enum Loop {
    /// So many in flight on each connection.
    Closed(usize),
    /// So many a second in all.
    Open(f64),
}

fn rss(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let pages = statm.split(' ').nth(1).and_then(|f| f.parse::<u64>().ok());
        pages.unwrap_or(0) * 4096
    };
    pids.iter().map(of).sum()
}

/// Processor time of these processes. The kernel counts in hundredths of a second.
fn cpu_s(pids: &[u32]) -> f64 {
    let of = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
        ticks as f64 / 100.0
    };
    pids.iter().map(of).sum()
}

fn run(
    options: &Options,
    connections: &mut [Connection],
    how: Loop,
    seconds: f64,
) -> Outcome<Phase> {
    let began = Instant::now();
    let mut phase = Phase::default();
    let (mut offered, mut next) = (0_u64, 0_usize);
    loop {
        let now = Instant::now();
        let since = now.duration_since(began);
        if since.as_secs_f64() >= seconds {
            return Ok(phase);
        }
        let moment = (since.as_nanos() / MOMENT.as_nanos()) as usize;
        while phase.moments.len() <= moment {
            phase.moments.push(Moment::default());
            phase.rss.push(rss(&options.pids));
            phase.cpu_s.push(cpu_s(&options.pids));
        }
        match how {
            Loop::Closed(window) => {
                for connection in connections.iter_mut() {
                    while connection.sent.len() + connection.unsent.len() < window {
                        connection.unsent.push_back(now);
                        phase.moments[moment].offered += 1;
                    }
                }
            }
            Loop::Open(rate) => {
                let due = (since.as_secs_f64() * rate) as u64;
                while offered < due {
                    let at = began + Duration::from_secs_f64(offered as f64 / rate);
                    connections[next].unsent.push_back(at);
                    next = (next + 1) % connections.len();
                    offered += 1;
                    phase.moments[moment].offered += 1;
                }
            }
        }
        for connection in connections.iter_mut() {
            connection.write(now, options, &mut phase.moments[moment])?;
            connection.read(options, &mut phase, moment)?;
        }
        // In a closed loop whoever has an answer asks again at once.
        if matches!(how, Loop::Open(_)) {
            std::thread::sleep(TICK.saturating_sub(now.elapsed()));
        }
    }
}

fn quantile(took: &mut [u32], share: f64) -> f64 {
    took.sort_unstable();
    let at = ((took.len() as f64 * share).ceil() as usize).clamp(1, took.len().max(1)) - 1;
    took.get(at).map_or(f64::NAN, |us| f64::from(*us) / 1_000.0)
}

fn show(name: &str, phase: &mut Phase) {
    let a_second = 1.0 / MOMENT.as_secs_f64();
    for (i, (moment, rss)) in phase.moments.iter_mut().zip(&phase.rss).enumerate() {
        let per = |count: u64| count as f64 * a_second;
        println!(
            "{name:9} {:5.1}s offered/s={:7.0} good/s={:7.0} refused/s={:7.0} late/s={:6.0} lost/s={:6.0} \
             errors={} p50_ms={:.1} p99_ms={:.1} rss_mib={:.0}",
            i as f64 * MOMENT.as_secs_f64(),
            per(moment.offered),
            per(moment.good),
            per(moment.refused),
            per(moment.late),
            per(moment.lost),
            moment.errors,
            quantile(&mut moment.took_us, 0.5),
            quantile(&mut moment.took_us, 0.99),
            *rss as f64 / f64::from(1 << 20),
        );
    }
    if let Some(error) = &phase.first_error {
        println!("first error: {error}");
    }
}

/// Good answers a second, the first two moments and a last one cut short apart.
fn goodput(phase: &Phase) -> f64 {
    let all = phase.moments.len();
    let counted = &phase.moments[2.min(all)..all.saturating_sub(1).max(2.min(all))];
    let good: u64 = counted.iter().map(|m| m.good).sum();
    good as f64 / (counted.len().max(1) as f64 * MOMENT.as_secs_f64())
}

/// Good answers a second of the servers' processor time, in the same moments: what others do on the
/// machine does not count.
fn per_cpu(phase: &Phase) -> f64 {
    let all = phase.moments.len();
    let (from, to) = (2.min(all), all.saturating_sub(1).max(2.min(all)));
    let good: u64 = phase.moments[from..to].iter().map(|m| m.good).sum();
    let at = |i: usize| phase.cpu_s.get(i).copied().unwrap_or(0.0);
    good as f64 / (at(to) - at(from)).max(0.01)
}

/// When, after the overload, nearly all that is offered is good for the rest of the phase.
fn recovery(phase: &Phase) -> f64 {
    let whole = &phase.moments[..phase.moments.len().saturating_sub(1)];
    let well = |m: &Moment| m.good as f64 >= 0.98 * m.offered as f64 && m.refused == 0;
    let last_bad = whole.iter().rposition(|m| !well(m));
    last_bad.map_or(0.0, |i| (i + 1) as f64 * MOMENT.as_secs_f64())
}

fn work(options: &Options) -> Outcome<bool> {
    let open =
        |i: usize| Connection::open(options.addresses[i % options.addresses.len()], i as u64 + 1);
    let mut connections: Vec<Connection> =
        (0..options.connections).map(open).collect::<Outcome<_>>()?;
    let mut peak_per_cpu = None;
    let peak = match options.peak {
        Some(peak) => peak,
        None => {
            let how = Loop::Closed(options.window);
            let mut phase = run(options, &mut connections, how, options.seconds)?;
            show("peak", &mut phase);
            peak_per_cpu = Some(per_cpu(&phase));
            goodput(&phase)
        }
    };
    let offered = Loop::Open(peak * options.factor);
    let mut over = run(options, &mut connections, offered, options.seconds)?;
    show("overload", &mut over);
    let mut after = run(options, &mut connections, Loop::Open(peak / 2.0), options.seconds)?;
    show("after", &mut after);
    let (good, recovered) = (goodput(&over), recovery(&after));
    let most = |phase: &Phase| phase.rss.iter().copied().max().unwrap_or(0) >> 20;
    let beyond = over.beyond + after.beyond;
    println!(
        "peak/s={peak:.0} offered={}x goodput/s={good:.0} ({:.0} % of peak) recovery_s={recovered:.1} \
         answered_after_2s={beyond} rss_mib: before={} most={} after={}",
        options.factor,
        good * 100.0 / peak,
        over.rss.first().copied().unwrap_or(0) >> 20,
        most(&over),
        after.rss.last().copied().unwrap_or(0) >> 20,
    );
    if let Some(of_peak) = peak_per_cpu {
        let of_over = per_cpu(&over);
        println!(
            "good answers a second of server CPU: peak {of_peak:.0}, overload {of_over:.0} ({:.0} %)",
            of_over * 100.0 / of_peak
        );
    }
    Ok(good >= 0.9 * peak && recovered <= 5.0 && beyond == 0)
}

fn main() -> ExitCode {
    let done = match options() {
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Some(options)) => work(&options),
        Err(e) => Err(e),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
