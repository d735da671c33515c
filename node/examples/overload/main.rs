//! overload: offers more than servers can do, and prints what became of it, moment by moment.
//!
//! ```text
//! scripts/overload.sh         # three nodes of its own, both kinds of clients, pass or fail
//! cargo run --release -p ringdb-node --example overload -- --addr 127.0.0.1:7001 --pids PID
//! cargo run --release -p ringdb-node --example overload -- --native ringdb-demo/ringctl.toml --pids PID
//! ```
//!
//! First the peak is sought: open loops offer more and more, around what a closed loop does, and the one
//! with the most good answers is the peak. Then an open loop offers `--factor` times as much as that one,
//! whatever the server answers; then half of it. The peak is measured again before, between and after
//! `--rounds` of these, since a machine that others use does not do the same in two moments. A request is due at a moment, and its latency counts from
//! there. One that could not be sent by its deadline, or by a native client could not be begun in a quarter
//! of its time, is given up, as a client with a time-out does; so that this is possible, sockets hold little.
//! *good* are answers within the deadline; *refused* those that say OVERLOADED; *late* are answers that
//! came after the deadline; *lost* are requests that were given up: unsent by a Redis client, without
//! an answer by a native one, which hears of an answer only in time, and counts those that come later as
//! late; *overslept* are those of the lost whose client was not run by the machine when their time was over:
//! so many late answers of that moment may have come in time, and are not held against the servers.
//! Exit code 1 if goodput fell below `--goodput` of the peak's, both for each second of the servers' processor
//! time; or recovery took more than five seconds, or answers came
//! too late, or memory grew by more than `--memory-mib`.

mod curve;
mod native;
mod phase;
mod redis;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use curve::{Curve, Point};
use phase::{Moment, Phase};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How often connections are looked after.
const TICK: Duration = Duration::from_millis(2);

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
    /// Native clients hear of their writes from coordinators alone.
    #[arg(long)]
    no_direct_acks: bool,
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
    /// What is offered while the peak is sought, as shares of what the closed loop does.
    #[arg(long, value_delimiter = ',', default_value = "0.5,0.7,0.85,1,1.15,1.3")]
    curve: Vec<f64>,
    /// How long the closed loop takes, and each offer while the peak is sought; the first second does
    /// not count.
    #[arg(long, default_value_t = 2.5)]
    step_seconds: f64,
    /// How often the peak is followed by an overload.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// How long each overload takes, and the time after it.
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
    /// So many answers may be seen too late: where everybody shares a machine, whoever asks is sometimes not
    /// run for a moment, and then sees late what came in time.
    #[arg(long, default_value_t = 0)]
    late: u64,
    /// How much more memory the servers may use while there is too much to do.
    #[arg(long, default_value_t = 128)]
    memory_mib: u64,
}

fn millis(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_millis)
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

/// What is measured once the peak is known.
struct Rounds {
    /// The peak, between the overloads and around them.
    peaks: Vec<Phase>,
    overloads: Vec<Phase>,
    afters: Vec<Phase>,
}

impl Rounds {
    /// Measures, and prints the series.
    fn run(options: &Options, clients: &mut Clients, peak: f64) -> Outcome<Self> {
        let mut rounds = Self { peaks: Vec::new(), overloads: Vec::new(), afters: Vec::new() };
        let peak_again = |clients: &mut Clients| {
            let phase = clients.run(options, Loop::Open(peak), options.step_seconds)?;
            println!("peak      {}", Point::new(peak, &[&phase]));
            Outcome::Ok(phase)
        };
        for _ in 0..options.rounds.max(1) {
            rounds.peaks.push(peak_again(clients)?);
            let offered = Loop::Open(peak * options.factor);
            let mut over = clients.run(options, offered, options.seconds)?;
            over.show("overload");
            rounds.overloads.push(over);
            let mut after = clients.run(options, Loop::Open(peak / 2.0), options.seconds)?;
            after.show("after");
            rounds.afters.push(after);
        }
        rounds.peaks.push(peak_again(clients)?);
        Ok(rounds)
    }

    fn beyond(&self) -> u64 {
        let all = self.peaks.iter().chain(&self.overloads).chain(&self.afters);
        all.map(|phase| phase.beyond).sum()
    }
}

fn work(options: &Options) -> Outcome<bool> {
    let mut clients = match &options.native {
        Some(file) => Clients::Native(native::Clients::open(file, options)?),
        None => Clients::Redis(redis::open_all(options)?),
    };
    let curve = match options.peak {
        Some(peak) => Curve::known(peak),
        None => Curve::find(options, &mut clients)?,
    };
    let rounds = Rounds::run(options, &mut clients, curve.peak)?;
    Ok(report(options, &curve, &rounds))
}

/// Sums up, and says whether all holds.
fn report(options: &Options, curve: &Curve, rounds: &Rounds) -> bool {
    let all = |phases: &[Phase], offered| Point::new(offered, &phases.iter().collect::<Vec<_>>());
    let peak = all(&rounds.peaks, curve.peak);
    let flood = all(&rounds.overloads, curve.peak * options.factor);
    let recovered = rounds.afters.iter().map(Phase::recovery).fold(0.0, f64::max);
    let before = rounds.overloads[0].rss[0] >> 20;
    let most = rounds.overloads.iter().map(Phase::rss_most).max().unwrap_or(0) >> 20;
    let after = rounds.afters.iter().filter_map(|phase| phase.rss.last()).next_back();
    let beyond = curve.beyond + rounds.beyond();
    let moments = rounds.overloads.iter().flat_map(|phase| &phase.moments);
    let overslept: u64 = moments.clone().map(|m| m.overslept).sum();
    let answered: u64 = moments.map(|m| m.good + m.refused).sum();
    println!(
        "peak/s={:.0} at {:.0} offered, overload offered={:.1}x goodput/s={:.0} ({:.0} % of peak) \
         recovery_s={recovered:.1} answered_too_late={beyond} of {answered} (overslept: {overslept}) rss_mib: before={before} \
         most={most} after={}",
        peak.good,
        peak.offered,
        flood.came / peak.offered,
        flood.good,
        flood.good * 100.0 / peak.good,
        after.copied().unwrap_or(0) >> 20,
    );
    // What others do on the machine does not count.
    let share = match (peak.per_cpu, flood.per_cpu) {
        (Some(peak), Some(flood)) => {
            println!(
                "good answers a second of server CPU: peak {peak:.0}, overload {flood:.0} ({:.0} %)",
                flood * 100.0 / peak
            );
            flood / peak
        }
        _ => flood.good / peak.good,
    };
    if let Some(closed) = &curve.closed {
        let by_cpu = closed.per_cpu.zip(flood.per_cpu).map_or(f64::NAN, |(of, is)| is * 100.0 / of);
        println!(
            "beside a closed loop of {} in flight: overload {:.0} % of its goodput, by CPU {by_cpu:.0} %",
            options.window * options.connections,
            flood.good * 100.0 / closed.good,
        );
    }
    let judged = [
        (
            share * 100.0 >= options.goodput,
            format!("goodput is at least {} % of the peak's", options.goodput),
        ),
        (recovered <= 5.0, "it recovers within five seconds".to_owned()),
        (beyond <= options.late, "nothing is answered too late".to_owned()),
        (most <= before + options.memory_mib, "memory stays flat".to_owned()),
    ];
    for (holds, what) in &judged {
        println!("{} {what}", if *holds { "holds:" } else { "FAILS:" });
    }
    judged.iter().all(|(holds, _)| *holds)
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
