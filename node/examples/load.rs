//! load: puts load on anything that speaks the Redis protocol, and says what it cost.
//!
//! ```text
//! cargo run --release -p ringdb-node --example load -- --mode set --addr 127.0.0.1:7001
//! ```
//!
//! A closed loop: each connection sends `--pipeline` commands in one write, waits for all their
//! replies and goes on; with `--rate` it goes on when the next are due (an open loop). Prints one line: operations a second, latency of a whole pipeline (p50, p99)
//! and, for the processes named by `--pids`, processor time an operation. Every reply is looked at:
//! errors are no operations, and make the exit code 1. `--help` lists the options.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use ring::Slot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use wire::resp::encode::write_command;
use wire::resp::{Reply, ReplyDecoder};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Set,
    Get,
    Incr,
    /// SET, then WAIT 1 1000.
    SetWait,
    /// Each key once.
    Fill,
}

/// Puts load on servers that speak the Redis protocol.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Options {
    /// Where to connect; connections are dealt in turn.
    #[arg(long = "addr", value_delimiter = ',', default_value = "127.0.0.1:7001")]
    addresses: Vec<SocketAddr>,
    /// Sends each key to the master of its slot, as CLUSTER SLOTS of the first says.
    #[arg(long)]
    cluster: bool,
    /// What is asked.
    #[arg(long, default_value = "set")]
    mode: Mode,
    /// First says CONSISTENCY and this on each connection.
    #[arg(long)]
    level: Option<String>,
    /// Prefixes every command with WITH and this.
    #[arg(long)]
    with: Option<String>,
    /// Connections.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Commands in one write.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pipeline: u32,
    /// How long.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds before anything is counted; a tenth of `--seconds` if absent.
    #[arg(long)]
    warm_up: Option<f64>,
    /// Operations a second, sent when they are due and not when the server is ready; latency counts
    /// from when a command was due, if its connection was late.
    #[arg(long)]
    rate: Option<f64>,
    /// Different keys.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    value: usize,
    /// Processes whose processor time is counted.
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// What the printed line begins with.
    #[arg(long, default_value = "")]
    name: String,
}

/// Latencies by the microsecond up to a bound, and how many lay beyond it.
struct Latencies {
    counts: Vec<u64>,
    beyond: u64,
}

impl Latencies {
    const MICROS_MAX: usize = 1_000_000;

    fn new() -> Self {
        Self { counts: vec![0; Self::MICROS_MAX], beyond: 0 }
    }

    fn add(&mut self, took: Duration, times: u64) {
        let micros = usize::try_from(took.as_micros()).unwrap_or(usize::MAX);
        match self.counts.get_mut(micros) {
            Some(count) => *count += times,
            None => self.beyond += times,
        }
    }

    /// Milliseconds within which this share of all operations was answered.
    fn quantile(&self, share: f64) -> f64 {
        let all = self.counts.iter().sum::<u64>() + self.beyond;
        let wanted = (all as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (micros, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return micros as f64 / 1000.0;
            }
        }
        f64::INFINITY
    }
}

/// What all connections saw together.
struct Tally {
    done: u64,
    misses: u64,
    errors: u64,
    first_error: Option<String>,
    latencies: Latencies,
    /// Counting begins with the measured part.
    counting: bool,
    over: bool,
}

impl Tally {
    fn took(&mut self, reply: &Reply, mode: Mode) {
        let good = match (mode, reply) {
            (_, Reply::Error(text)) => {
                self.first_error.get_or_insert_with(|| text.to_string());
                false
            }
            (Mode::Get, Reply::Null) => {
                self.misses += 1;
                true
            }
            _ => true,
        };
        self.done += u64::from(good);
        self.errors += u64::from(!good);
    }
}

/// A small generator, one a connection, so that runs draw the same keys.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A server that takes load.
#[derive(Clone)]
struct Target {
    address: SocketAddr,
    /// The slots that it may be asked for; none: all.
    owned: Option<Rc<Vec<(u16, u16)>>>,
    /// The next key of a fill, shared by all that fill the same slots.
    next_fill: Rc<Cell<u64>>,
}

impl Target {
    fn any(address: SocketAddr, next_fill: &Rc<Cell<u64>>) -> Self {
        Self { address, owned: None, next_fill: next_fill.clone() }
    }
}

struct Connection {
    stream: TcpStream,
    out: Vec<u8>,
    inbox: Vec<u8>,
    decoder: ReplyDecoder,
    chance: Chance,
    target: Target,
    /// When the next commands are due, and how far apart they are; without: at once.
    due: Option<(Instant, Duration)>,
}

impl Connection {
    async fn open(target: Target, seed: u64) -> Outcome<Self> {
        let address = target.address;
        let stream = TcpStream::connect(address).await.map_err(|e| format!("{address}: {e}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            out: Vec::new(),
            inbox: Vec::with_capacity(64 << 10),
            decoder: ReplyDecoder::new(),
            chance: Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            target,
            due: None,
        })
    }

    /// Sends one command and returns its reply.
    async fn ask(&mut self, args: &[&[u8]]) -> Outcome<Reply> {
        self.out.clear();
        write_command(&mut self.out, args);
        self.stream.write_all(&self.out).await?;
        let mut reply = None;
        self.replies(1, |r| reply = Some(r.clone())).await?;
        reply.ok_or_else(|| "no reply".into())
    }

    /// Takes `count` replies, in order.
    async fn replies(&mut self, count: u32, mut each: impl FnMut(&Reply)) -> Outcome<()> {
        let mut left = count;
        let mut start = 0;
        loop {
            while left > 0 {
                let Some(read) = self.decoder.decode(&self.inbox[start..])? else { break };
                start += read.consumed;
                each(&read.reply);
                left -= 1;
            }
            self.inbox.drain(..start);
            start = 0;
            if left == 0 {
                return Ok(());
            }
            if self.stream.read_buf(&mut self.inbox).await? == 0 {
                return Err("the server closed the connection".into());
            }
        }
    }

    /// The next key that this connection may ask for.
    fn key(&mut self, options: &Options) -> Option<String> {
        loop {
            let number = if options.mode == Mode::Fill {
                self.target.next_fill.replace(self.target.next_fill.get() + 1)
            } else {
                self.chance.below(options.keys)
            };
            if number >= options.keys {
                return None;
            }
            let prefix = if options.mode == Mode::Incr { "counter" } else { "key" };
            let key = format!("{prefix}:{number:012}");
            match &self.target.owned {
                Some(ranges) => {
                    let slot = Slot::of_key(key.as_bytes()).0;
                    if ranges.iter().any(|(from, to)| (*from..=*to).contains(&slot)) {
                        return Some(key);
                    }
                }
                None => return Some(key),
            }
        }
    }

    /// Waits until the next commands are due; from when on their latency counts. A timer that rings
    /// late is not the server's fault; that the last replies came late is.
    async fn until_due(&mut self) -> Instant {
        let Some((due, apart)) = &mut self.due else { return Instant::now() };
        let this = *due;
        *due += *apart;
        if Instant::now() >= this {
            return this;
        }
        tokio::time::sleep_until(this.into()).await;
        Instant::now()
    }

    /// Sends one pipeline of commands and takes its replies; false when there is nothing left.
    async fn round(
        &mut self,
        options: &Options,
        tally: &RefCell<Tally>,
        value: &[u8],
    ) -> Outcome<bool> {
        self.out.clear();
        let (mut commands, mut asked) = (0, 0);
        for _ in 0..options.pipeline {
            let Some(key) = self.key(options) else { break };
            let key = key.as_bytes();
            let command: &[&[u8]] = match options.mode {
                Mode::Get => &[b"GET", key],
                Mode::Incr => &[b"INCR", key],
                Mode::Set | Mode::SetWait | Mode::Fill => &[b"SET", key, value],
            };
            match &options.with {
                Some(level) => {
                    write_command(&mut self.out, &[&[b"WITH", level.as_bytes()], command].concat());
                }
                None => write_command(&mut self.out, command),
            }
            asked += 1;
            commands += 1;
            if options.mode == Mode::SetWait {
                write_command(&mut self.out, &[b"WAIT", b"1", b"1000"]);
                commands += 1;
            }
        }
        if asked == 0 {
            return Ok(false);
        }
        let start = self.until_due().await;
        let out = std::mem::take(&mut self.out);
        self.stream.write_all(&out).await?;
        self.out = out;
        let counting = tally.borrow().counting;
        let mut position = 0_u32;
        self.replies(commands, |reply| {
            // The reply to WAIT counts for its SET; an error of either counts as one.
            let is_wait = options.mode == Mode::SetWait && position % 2 == 1;
            position += 1;
            if counting && (!is_wait || reply.is_error()) {
                tally.borrow_mut().took(reply, options.mode);
            }
        })
        .await?;
        if counting {
            tally.borrow_mut().latencies.add(start.elapsed(), asked);
        }
        Ok(true)
    }
}

/// Processor time of these processes, in microseconds.
fn processor_micros(pids: &[u32]) -> Outcome<u64> {
    // The kernel counts in ticks, a hundred a second on every Linux that a user sees.
    const MICROS_A_TICK: u64 = 10_000;
    let mut micros = 0;
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_err(|e| format!("process {pid}: {e}"))?;
        // The name in brackets may hold blanks; utime and stime are the 14th and 15th field.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let times: Vec<u64> = fields.skip(11).take(2).filter_map(|t| t.parse().ok()).collect();
        micros += times.iter().sum::<u64>() * MICROS_A_TICK;
    }
    Ok(micros)
}

/// The masters of a Redis Cluster and their slots.
async fn masters(first: Target) -> Outcome<Vec<Target>> {
    let reply = Connection::open(first, 1).await?.ask(&[b"CLUSTER", b"SLOTS"]).await?;
    let mut found: BTreeMap<SocketAddr, Vec<(u16, u16)>> = BTreeMap::new();
    let Reply::Array(rows) = reply else { return Err(format!("CLUSTER SLOTS: {reply:?}").into()) };
    for row in rows {
        let Reply::Array(parts) = row else { continue };
        if let [Reply::Integer(from), Reply::Integer(to), Reply::Array(node), ..] = &parts[..]
            && let [Reply::Bulk(host), Reply::Integer(port), ..] = &node[..]
        {
            let host = std::str::from_utf8(host)?;
            let address = SocketAddr::new(host.parse()?, u16::try_from(*port)?);
            found.entry(address).or_default().push((u16::try_from(*from)?, u16::try_from(*to)?));
        }
    }
    let target = |(address, slots)| Target {
        address,
        owned: Some(Rc::new(slots)),
        next_fill: Rc::default(),
    };
    Ok(found.into_iter().map(target).collect())
}

async fn run(options: Rc<Options>) -> Outcome<bool> {
    let next_fill = Rc::default();
    let mut targets: Vec<Target> =
        options.addresses.iter().map(|address| Target::any(*address, &next_fill)).collect();
    if options.cluster {
        targets = masters(targets[0].clone()).await?;
    }
    let tally = Rc::new(RefCell::new(Tally {
        done: 0,
        misses: 0,
        errors: 0,
        first_error: None,
        latencies: Latencies::new(),
        // Without a warm-up, what is counted here is what the servers count.
        counting: options.mode == Mode::Fill || options.warm_up == Some(0.0),
        over: false,
    }));
    let value: Rc<Vec<u8>> = Rc::new((0..options.value).map(|i| b'a' + (i % 26) as u8).collect());
    let mut tasks = Vec::new();
    for (n, target) in (0..options.connections).zip(targets.iter().cycle()) {
        let mut connection = Connection::open(target.clone(), u64::from(n) + 1).await?;
        if let Some(level) = &options.level {
            let reply = connection.ask(&[b"CONSISTENCY", level.as_bytes()]).await?;
            if reply.is_error() {
                return Err(format!("CONSISTENCY {level}: {reply:?}").into());
            }
        }
        if let Some(rate) = options.rate {
            let apart = f64::from(options.connections) * f64::from(options.pipeline) / rate;
            // One after the other, so that no two are due together.
            let first = apart * f64::from(n) / f64::from(options.connections);
            let first = Instant::now() + Duration::from_secs_f64(first);
            connection.due = Some((first, Duration::from_secs_f64(apart)));
        }
        let (options, tally, value) = (options.clone(), tally.clone(), value.clone());
        tasks.push(tokio::task::spawn_local(async move {
            while !tally.borrow().over {
                if !connection.round(&options, &tally, &value).await? {
                    break;
                }
            }
            Outcome::Ok(())
        }));
    }
    let (began, before);
    if options.mode == Mode::Fill {
        (began, before) = (Instant::now(), processor_micros(&options.pids)?);
    } else {
        let warm_up = options.warm_up.unwrap_or(options.seconds / 10.0);
        tokio::time::sleep(Duration::from_secs_f64(warm_up)).await;
        tally.borrow_mut().counting = true;
        (began, before) = (Instant::now(), processor_micros(&options.pids)?);
        tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
        tally.borrow_mut().over = true;
    }
    for task in tasks {
        task.await??;
    }
    let took = began.elapsed().as_secs_f64();
    let spent = processor_micros(&options.pids)? - before;
    let tally = tally.borrow();
    let mut line = format!(
        "{} ops/s={:.0} p50_ms={:.2} p99_ms={:.2} ops={} errors={} misses={}",
        options.name,
        tally.done as f64 / took,
        tally.latencies.quantile(0.5),
        tally.latencies.quantile(0.99),
        tally.done,
        tally.errors,
        tally.misses,
    );
    if !options.pids.is_empty() {
        line.push_str(&format!(" cpu_us_per_op={:.2}", spent as f64 / tally.done.max(1) as f64));
    }
    println!("{}", line.trim_start());
    if let Some(error) = &tally.first_error {
        eprintln!("first error: {error}");
    }
    Ok(tally.errors == 0 && tally.done > 0)
}

fn main() -> ExitCode {
    let work = || -> Outcome<bool> {
        let options = Options::parse();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, run(Rc::new(options)))
    };
    match work() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
