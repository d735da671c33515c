//! Bench: puts load on a cluster, or on anything that speaks Redis's protocol, and says how fast it
//! was and what it cost.
//!
//! Promise: the same operations, keys and values whatever is measured; latencies in histograms that
//! are exact to a thousandth; an operation that failed is never a fast one.
//!
//! Reading order: [`keys`] and [`mix`] (what is asked), [`target`] (of whom), [`drive`] (when),
//! [`cost`] (at which price), [`report`].

mod cost;
mod drive;
mod keys;
mod mix;
#[cfg(feature = "redis-rs")]
mod redis_rs;
mod report;
mod target;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use client::{Client, ClientError, Level, Told};
use serde_json::Value;
use tokio::sync::watch;

use crate::args::{Args, BenchArgs, Driver, Workload};
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};
use crate::render::Record;
use crate::{show, style};

use cost::Payer;
use drive::{Crew, Orders, Schedule, Tally, wait_until};
use mix::Mix;
use report::Run;
use target::{Endpoint, Redis, Target};

/// What is measured.
enum Subject {
    Cluster { name: String, addresses: Vec<String> },
    Redis { address: String },
}

struct Bench<'a> {
    args: &'a Args,
    wanted: &'a BenchArgs,
    /// Of a Redis endpoint it need not be known.
    cluster: Option<Arc<Cluster>>,
    subject: Subject,
    payers: Vec<Payer>,
}

pub(crate) async fn run(args: &Args, wanted: &BenchArgs) -> Result<Exit, Failure> {
    let bench = Bench::prepare(args, wanted).await?;
    for sorted in [false, true].into_iter().filter(|_| !wanted.no_load) {
        let reads = |w: &Workload| *w != Workload::Counters && mix::is_sorted(*w) == sorted;
        if wanted.workload.iter().any(reads) {
            bench.load(sorted).await?;
        }
    }
    let levels: Vec<Option<Level>> = match &wanted.level[..] {
        [] => vec![None],
        some => some.iter().copied().map(Some).collect(),
    };
    let mut runs = Vec::new();
    for workload in &wanted.workload {
        for level in &levels {
            runs.push(bench.measure(*workload, *level).await?);
        }
    }
    show(args, &report::report(bench.about(), &runs, style(args)));
    let failed = runs.iter().find(|run| run.tally.all().latencies.is_empty());
    match failed {
        None => Ok(Exit::Fine),
        Some(run) => {
            let why = run.tally.errors.iter().max_by_key(|(_, count)| **count);
            let why = why.map_or("nothing was answered in time", |(why, _)| why.as_str());
            let what = format!("nothing of workload {} succeeded", run.workload);
            Err(Failure::operation(what, &why, "mend that, then measure again"))
        }
    }
}

impl<'a> Bench<'a> {
    async fn prepare(args: &'a Args, wanted: &'a BenchArgs) -> Result<Self, Failure> {
        let mut payers: Vec<Payer> = Vec::new();
        for pid in &wanted.pid {
            if cost::process_cpu_us(*pid).is_none() {
                let told = Told::new(
                    format!("there is no process {pid} here"),
                    "its processor time cannot be counted",
                    "name processes of this machine with --pid, or leave it out",
                );
                return Err(Failure { exit: Exit::Usage, told });
            }
            payers.push(Payer::Process { pid: *pid });
        }
        if let Some(address) = &wanted.redis {
            let subject = Subject::Redis { address: address.clone() };
            return Ok(Self { args, wanted, cluster: None, subject, payers });
        }
        let cluster = Arc::new(Cluster::find(args)?);
        cluster.check_writable("a benchmark")?;
        if wanted.driver == Driver::RedisRs {
            let what = "redis-rs asks Redis endpoints";
            let told =
                Told::new(what, "none is named", "name one with --redis, or leave --driver out");
            return Err(Failure { exit: Exit::Usage, told });
        }
        let client = cluster.connect(args.node.as_deref()).await?;
        check_levels(&client, wanted).await?;
        let status = client.status().await?;
        client.close().await;
        let mut addresses = Vec::new();
        for node in status.nodes.iter().filter(|node| node.up) {
            addresses.push(node.address.clone());
            if let Ok(client) = cluster.dial_aside(node.address.clone(), args.timeout).await {
                payers.push(Payer::Node { name: node.name.clone(), client });
            }
        }
        let subject = Subject::Cluster { name: status.name, addresses };
        Ok(Self { args, wanted, cluster: Some(cluster), subject, payers })
    }

    fn about(&self) -> (String, Record) {
        let w = self.wanted;
        let (what, face) = match &self.subject {
            Subject::Cluster { name, .. } => (name.clone(), "native client"),
            Subject::Redis { address, .. } if self.wanted.driver == Driver::RedisRs => {
                (address.clone(), "redis-rs, one connection a thread")
            }
            Subject::Redis { address, .. } => (address.clone(), "Redis protocol"),
        };
        let text = format!(
            "bench  {what}{}   {face}   {} records of {} B   {} at a time, {}   {:?} each",
            if w.db == 0 { String::new() } else { format!("   database {}", w.db) },
            w.records,
            w.value_bytes,
            w.concurrency,
            crate::render::human::things(w.threads as usize, "thread", "threads"),
            w.time,
        );
        let record = Record::new([
            ("target", what.into()),
            ("face", face.into()),
            ("db", w.db.into()),
            ("records", w.records.into()),
            ("value_bytes", w.value_bytes.into()),
            ("concurrency", w.concurrency.into()),
            ("threads", w.threads.into()),
            ("loop", if w.rate.is_some() { "open" } else { "closed" }.into()),
            ("distribution", w.distribution.map_or(Value::Null, |d| name_of(&d).into())),
            ("seed", w.seed.into()),
        ]);
        (text, record)
    }

    /// Puts every record there.
    async fn load(&self, sorted: bool) -> Result<(), Failure> {
        let w = self.wanted;
        let mix = Arc::new(Mix::load(w.records, w.value_bytes as usize, &w.prefix, sorted));
        // Long enough: it ends when the records do.
        let schedule =
            |now| Schedule { start: now, from: now, until: now + Duration::from_secs(24 * 3600) };
        let crews = self.muster(&mix, None, None, w.concurrency.max(32)).await?;
        let (tally, _, _) = self.let_work(crews, schedule).await;
        let errors = tally.all().errors;
        if errors == 0 {
            return Ok(());
        }
        let why = tally.errors.iter().max_by_key(|(_, count)| **count);
        let why = why.map(|(why, _)| why.clone()).unwrap_or_default();
        let what = format!("{errors} of {} records could not be written", w.records);
        let exit = exit_of(&why).unwrap_or(Exit::Failed);
        let fix = fix_of(&why).unwrap_or("mend that, or measure fewer or smaller records");
        Err(Failure { exit, told: Told::new(what, why, fix) })
    }

    async fn measure(&self, workload: Workload, level: Option<Level>) -> Result<Run, Failure> {
        let w = self.wanted;
        let how = w.distribution.unwrap_or_else(|| mix::usual(workload));
        let mix = Mix::new(workload, how, w.records, w.value_bytes as usize, &w.prefix);
        let crews = self.muster(&Arc::new(mix), level, w.rate, w.concurrency).await?;
        let (warm_up, time) = (w.warm_up, w.time);
        let schedule = |start| {
            let from = start + warm_up;
            Schedule { start, from, until: from + time }
        };
        let (tally, cpu_us, took) = self.let_work(crews, schedule).await;
        Ok(Run {
            workload: name_of(&workload),
            level: level.map_or_else(|| "default".into(), |level| level.to_string()),
            offered: w.rate,
            seconds: took.as_secs_f64(),
            tally,
            cpu_us,
        })
    }

    /// Threads of workers that are connected and wait.
    async fn muster(
        &self,
        mix: &Arc<Mix>,
        level: Option<Level>,
        rate: Option<u32>,
        workers: u32,
    ) -> Result<(Vec<Crew>, watch::Sender<Option<Schedule>>), Failure> {
        let (tell, hear) = watch::channel(None);
        let threads = self.wanted.threads.min(workers);
        let mut crews = Vec::new();
        for thread in 0..threads {
            let orders = Orders {
                mix: mix.clone(),
                workers: workers / threads + u32::from(thread < workers % threads),
                rate: rate.map(|rate| f64::from(rate) / f64::from(threads)),
                seed: self.wanted.seed.wrapping_add(u64::from(thread)),
            };
            let crew = self.crew(orders, level, hear.clone());
            crews.push(crew.map_err(|e| {
                Failure::operation("a thread cannot be started", &e, "use fewer --threads")
            })?);
        }
        for crew in &mut crews {
            crew.ready().await.map_err(|why| self.unreachable(&why))?;
        }
        Ok((crews, tell))
    }

    fn crew(
        &self,
        orders: Orders,
        level: Option<Level>,
        schedule: watch::Receiver<Option<Schedule>>,
    ) -> std::io::Result<Crew> {
        let patience = self.args.timeout;
        match &self.subject {
            Subject::Redis { address } => {
                let endpoint = Endpoint {
                    address: address.clone(),
                    user: self.wanted.user.clone(),
                    password: self.wanted.password.clone(),
                    db: self.wanted.db,
                    level,
                    patience,
                };
                if self.wanted.driver == Driver::RedisRs {
                    return start_redis_rs(orders, endpoint, schedule);
                }
                let connect = move |_| {
                    let endpoint = endpoint.clone();
                    async move { Ok(Target::Redis(Box::new(Redis::connect(endpoint).await?))) }
                };
                Crew::start(orders, connect, schedule)
            }
            Subject::Cluster { addresses, .. } => {
                let cluster = self.cluster.clone().expect("a cluster is measured");
                let (addresses, db) = (addresses.clone(), self.wanted.db);
                // The workers of a thread share one client, as those of a program do.
                let shared = Arc::new(tokio::sync::OnceCell::<Client>::new());
                let connect = move |_| {
                    let (cluster, addresses, shared) =
                        (cluster.clone(), addresses.clone(), shared.clone());
                    async move {
                        let client = shared.get_or_try_init(|| cluster.dial_all(&addresses)).await;
                        let client = client.map_err(|error| error.told().why)?.database(db);
                        Ok(Target::Native { client, level, patience })
                    }
                };
                Crew::start(orders, connect, schedule)
            }
        }
    }

    /// Lets them work; what they saw, the processor time of each that is watched, and how long what
    /// counts took.
    async fn let_work(
        &self,
        (crews, tell): (Vec<Crew>, watch::Sender<Option<Schedule>>),
        schedule: impl Fn(Instant) -> Schedule,
    ) -> (Tally, Vec<(String, Option<u64>)>, Duration) {
        let schedule = schedule(Instant::now() + Duration::from_millis(20));
        tell.send_replace(Some(schedule));
        wait_until(schedule.from).await;
        let before = self.cpu_us().await;
        let (done, end) = tokio::sync::oneshot::channel();
        let joiner = std::thread::spawn(move || {
            let mut tally = Tally::default();
            crews.into_iter().for_each(|crew| tally.add(&crew.join()));
            // Whoever asked waits, unless the program ends.
            drop(done.send(tally));
        });
        let mut end = std::pin::pin!(end);
        let early = tokio::select! {
            tally = &mut end => Some(tally),
            () = wait_until(schedule.until) => None,
        };
        let after = self.cpu_us().await;
        let took = schedule.until.min(Instant::now()).duration_since(schedule.from);
        let tally = match early {
            Some(tally) => tally,
            None => end.await,
        };
        drop(joiner.join());
        let tally = tally.expect("it is always sent");
        let spent = before.into_iter().zip(after).zip(&self.payers);
        let spent = spent.map(|((before, after), payer)| {
            (payer.name(), before.zip(after).map(|(b, a)| a.saturating_sub(b)))
        });
        (tally, spent.collect(), took)
    }

    async fn cpu_us(&self) -> Vec<Option<u64>> {
        let mut all = Vec::new();
        for payer in &self.payers {
            all.push(payer.cpu_us(self.cluster.as_deref()).await);
        }
        all
    }

    fn unreachable(&self, why: &str) -> Failure {
        let what = match &self.subject {
            Subject::Redis { address } => format!("cannot use the Redis endpoint {address}"),
            Subject::Cluster { name, .. } => format!("cannot reach the nodes of {name}"),
        };
        let exit = exit_of(why).unwrap_or(Exit::Unreachable);
        let fix = fix_of(why).unwrap_or(
            "see that it runs and what it asks for (--user, --password), or use fewer connections \
             (--concurrency)",
        );
        Failure { exit, told: Told::new(what, why, fix) }
    }
}

/// Whether the cluster has the levels that are wanted: else nothing would be measured but refusals.
async fn check_levels(client: &Client, wanted: &BenchArgs) -> Result<(), Failure> {
    for level in &wanted.level {
        let probe = client.database(wanted.db).get(wanted.prefix.clone()).consistency(*level).await;
        if let Err(error @ ClientError::Invalid { .. }) = probe {
            return Err(error.into());
        }
    }
    Ok(())
}

/// The code to leave with after what was said to a request that reached somebody.
fn exit_of(why: &str) -> Option<Exit> {
    if ["NOAUTH", "WRONGPASS", "NOPERM"].iter().any(|code| why.contains(code)) {
        return Some(Exit::Unauthorised);
    }
    if why.contains(TOO_MANY) {
        return Some(Exit::Unreachable);
    }
    fix_of(why).map(|_| Exit::Failed)
}

/// What a Redis endpoint says that takes no more connections.
const TOO_MANY: &str = "max number of clients";

/// What to do about what a Redis endpoint, or a node, said to a request that reached it.
fn fix_of(why: &str) -> Option<&'static str> {
    let fixes = [
        (TOO_MANY, "use fewer connections (--concurrency)"),
        ("NOAUTH", "say who you are with --user and --password"),
        ("WRONGPASS", "check --user and --password"),
        ("NOPERM", "use a --user who may do this"),
        ("DB index", "name another --db"),
        ("invalid DB", "name another --db"),
        ("there is no database", "name another --db"),
        ("unknown command 'CONSISTENCY'", "leave --level out: this endpoint knows no levels"),
        ("unknown command `CONSISTENCY`", "leave --level out: this endpoint knows no levels"),
        ("ERR ", "ask for what the endpoint has: its words say what it misses"),
    ];
    fixes.into_iter().find(|(said, _)| why.contains(said)).map(|(_, fix)| fix)
}

/// A crew whose workers share a connection of redis-rs.
#[cfg(feature = "redis-rs")]
fn start_redis_rs(
    orders: Orders,
    endpoint: Endpoint,
    schedule: watch::Receiver<Option<Schedule>>,
) -> std::io::Result<Crew> {
    let shared = Arc::new(tokio::sync::OnceCell::<redis_rs::RedisRs>::new());
    let connect = move |_| {
        let (endpoint, shared) = (endpoint.clone(), shared.clone());
        async move {
            let connection =
                shared.get_or_try_init(|| redis_rs::RedisRs::connect(endpoint)).await?;
            Ok(Target::RedisRs(Box::new(connection.clone())))
        }
    };
    Crew::start(orders, connect, schedule)
}

#[cfg(not(feature = "redis-rs"))]
fn start_redis_rs(
    _: Orders,
    _: Endpoint,
    _: watch::Receiver<Option<Schedule>>,
) -> std::io::Result<Crew> {
    Err(std::io::Error::other("ringctl was built without the feature redis-rs"))
}

/// As it is written on the command line.
fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
