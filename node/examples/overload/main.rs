//! overload: offers more than servers can do, and prints what became of it, moment by moment.
//!
//! ```text
//! scripts/overload.sh         # three nodes of its own, both kinds of clients, pass or fail
//! cargo run --release -p ringdb-node --example overload -- --addr 127.0.0.1:7001 --pids PID
//! cargo run --release -p ringdb-node --example overload -- --native ringdb-demo/ringctl.toml --pids PID
//! ```
//!
//! Three phases: a closed loop finds the peak; an open loop offers `--factor` times as much, whatever
//! the server answers; then half the peak. A request is due at a moment, and its latency counts from
//! there. One that could not be sent by its deadline is given up, as a client with a time-out does,
//! and so that this is possible, sockets hold little.
//! *good* are answers within the deadline; *refused* those that say OVERLOADED; *late* are answers that
//! came after the deadline; *lost* are requests that were given up: unsent by a Redis client, without
//! an answer by a native one, which hears of an answer only in time, and counts those that come later.
//! Exit code 1 if goodput fell below `--goodput` of the peak, both for each second of the servers' processor
//! time, or recovery took more than five seconds, or answers came too late, or memory grew by more than
//! `--memory-mib`.

mod native;
mod redis;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How often connections are looked after.
const TICK: Duration = Duration::from_millis(2);

/// What one printed line covers.
const MOMENT: Duration = Duration::from_millis(500);

/// The node gives up on a request after this; nothing may be answered later.
const NODE_DEADLINE: Duration = Duration::from_secs(2);

/// What is asked.
#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Set,
    Get,
    Incr,
}

/// Offers more than servers can do, and prints what became of it.
#[derive(Parser)]
#[command(name = "overload")]
struct Options {
    /// Where to connect; connections are dealt in turn.
    #[arg(long = "addr", value_delimiter = ',', default_value = "127.0.0.1:7001")]
    addresses: Vec<SocketAddr>,
    /// The native client instead, by this file of contexts, over `--connections` / 16 connections to each node.
    #[arg(long, value_name = "FILE")]
    native: Option<PathBuf>,
    /// Processes whose memory is shown.
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// What is asked.
    #[arg(long, default_value = "set")]
    mode: Mode,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Commands in flight on each connection while the peak is found.
    #[arg(long, default_value_t = 16)]
    window: usize,
    /// How many times the peak is offered.
    #[arg(long, default_value_t = 3.0)]
    factor: f64,
    /// Operations a second, instead of finding the peak.
    #[arg(long)]
    peak: Option<f64>,
    /// How long each phase takes.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// When a client gives up, in milliseconds.
    #[arg(long = "deadline-ms", default_value = "1000", value_parser = millis)]
    deadline: Duration,
    /// How long values are.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// How much of the peak must still be done, in per cent.
    #[arg(long, default_value_t = 90.0)]
    goodput: f64,
    /// Of so many answers one may be seen too late: on a machine that everybody shares whoever asks is
    /// sometimes not run for a moment, and then sees late what came in time.
    #[arg(long, default_value_t = 10_000)]
    late: u64,
    /// How much more memory the servers may use while there is too much to do.
    #[arg(long, default_value_t = 128)]
    memory_mib: u64,
}

fn millis(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_millis)
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
    /// Answered too late: by the node's own deadline, counted from when the request was sent, to a
    /// Redis client; by the request's deadline to a native one.
    beyond: u64,
    first_error: Option<String>,
}

impl Phase {
    /// The moment that this is, after the phase has lasted for `since`.
    fn moment(&mut self, options: &Options, since: Duration) -> usize {
        let moment = (since.as_nanos() / MOMENT.as_nanos()) as usize;
        while self.moments.len() <= moment {
            self.moments.push(Moment::default());
            self.rss.push(rss(&options.pids));
            self.cpu_s.push(cpu_s(&options.pids));
        }
        moment
    }
}

/// Clients of one kind.
enum Clients {
    Redis(Vec<redis::Connection>),
    Native(native::Clients),
}

impl Clients {
    fn run(&mut self, options: &Options, how: Loop, seconds: f64) -> Outcome<Phase> {
        match self {
            Self::Redis(connections) => redis::run(options, connections, how, seconds),
            Self::Native(clients) => clients.run(options, how, seconds),
        }
    }
}

/// Numbers without order.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn key(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % 100_000
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
    let mut clients = match &options.native {
        Some(file) => Clients::Native(native::Clients::open(file, options)?),
        None => Clients::Redis(redis::open_all(options)?),
    };
    let mut peak_per_cpu = None;
    let peak = match options.peak {
        Some(peak) => peak,
        None => {
            let how = Loop::Closed(options.window);
            let mut phase = clients.run(options, how, options.seconds)?;
            show("peak", &mut phase);
            peak_per_cpu = Some(per_cpu(&phase));
            goodput(&phase)
        }
    };
    let offered = Loop::Open(peak * options.factor);
    let mut over = clients.run(options, offered, options.seconds)?;
    show("overload", &mut over);
    let mut after = clients.run(options, Loop::Open(peak / 2.0), options.seconds)?;
    show("after", &mut after);
    let (good, recovered) = (goodput(&over), recovery(&after));
    let offered: u64 = over.moments.iter().map(|m| m.offered).sum();
    let most = |phase: &Phase| phase.rss.iter().copied().max().unwrap_or(0) >> 20;
    let before = over.rss.first().copied().unwrap_or(0) >> 20;
    let beyond = over.beyond + after.beyond;
    let answered: u64 = over.moments.iter().map(|m| m.good + m.refused).sum();
    println!(
        "peak/s={peak:.0} offered={:.1}x goodput/s={good:.0} ({:.0} % of peak) recovery_s={recovered:.1} \
         answered_too_late={beyond} of {answered} rss_mib: before={before} most={} after={}",
        offered as f64 / options.seconds / peak,
        good * 100.0 / peak,
        most(&over),
        after.rss.last().copied().unwrap_or(0) >> 20,
    );
    let share = match peak_per_cpu {
        Some(of_peak) if !options.pids.is_empty() => {
            let of_over = per_cpu(&over);
            println!(
                "good answers a second of server CPU: peak {of_peak:.0}, overload {of_over:.0} ({:.0} %)",
                of_over * 100.0 / of_peak
            );
            of_over / of_peak
        }
        _ => good / peak,
    };
    let judged = [
        (
            share * 100.0 >= options.goodput,
            format!("goodput is at least {} % of the peak's", options.goodput),
        ),
        (recovered <= 5.0, "it recovers within five seconds".to_owned()),
        (beyond <= answered / options.late.max(1), "nothing is answered too late".to_owned()),
        (most(&over) <= before + options.memory_mib, "memory stays flat".to_owned()),
    ];
    for (holds, what) in &judged {
        println!("{} {what}", if *holds { "holds:" } else { "FAILS:" });
    }
    Ok(judged.iter().all(|(holds, _)| *holds))
}

fn main() -> ExitCode {
    match work(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
