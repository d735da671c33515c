//! Arguments of `bench`: what is measured, how, and for how long. Every one has a default under which
//! a first measurement of a fresh cluster takes less than half a minute.

use std::time::Duration;

use clap::{Args, ValueEnum};
use client::Level;

use super::{duration, level};

/// Which mix of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Half reads, half updates.
    A,
    /// 95 % reads, 5 % updates.
    B,
    /// Reads only.
    C,
    /// 95 % reads, of what was inserted lately, 5 % inserts.
    D,
    /// 95 % short ranges, 5 % inserts; a range is 1 to 100 keys that follow each other in one partition,
    /// read as such by the native client, with MGET from a Redis endpoint.
    E,
    /// Half reads, half reads that write back what they changed.
    F,
    /// Updates only.
    W,
    /// Increments only.
    Counters,
}

/// Through which client a Redis endpoint is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Driver {
    /// A plain one of this program, with a connection for each operation under way.
    Own,
    /// The crate `redis`, if this program was built with the feature redis-rs.
    RedisRs,
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Distribution {
    /// Few keys often, most seldom, the popular ones strewn over all (exponent 0.99).
    Zipfian,
    /// Every key as often as any other.
    Uniform,
    /// The later a key was inserted, the more often.
    Latest,
}

/// What is measured, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchArgs {
    /// The workloads, one after the other: YCSB's core ones, and counters.
    #[arg(long, value_delimiter = ',', default_value = "a", ignore_case = true, value_name = "W")]
    pub(crate) workload: Vec<Workload>,
    /// The levels of all requests, one after the other; the keyspace's own if absent.
    #[arg(long, value_delimiter = ',', value_parser = level(), value_name = "LEVEL")]
    #[arg(hide_possible_values = true, allow_negative_numbers = true)]
    pub(crate) level: Vec<Level>,
    /// The database of the keys.
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true)]
    pub(crate) db: u16,
    /// Measures this Redis endpoint, of whatever make, instead of the cluster by the native client.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) redis: Option<String>,
    /// Through which client the Redis endpoint is asked.
    #[arg(long, default_value = "own", value_name = "D")]
    pub(crate) driver: Driver,
    /// The user at the Redis endpoint.
    #[arg(long, requires = "password", value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// The password at the Redis endpoint. Better given as RINGCTL_BENCH_PASSWORD.
    #[arg(long, requires = "redis", value_name = "TEXT", hide_env_values = true)]
    #[arg(allow_hyphen_values = true)]
    pub(crate) password: Option<String>,
    /// Sends so many operations a second, whether earlier ones are answered or not; each one's latency
    /// counts from when it was due. Without it the next is sent when the last is answered.
    #[arg(long, value_name = "OPS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    #[arg(allow_negative_numbers = true)]
    pub(crate) rate: Option<u32>,
    /// Operations under way at a time; at a Redis endpoint each has a connection.
    #[arg(long, default_value_t = 16, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    #[arg(allow_negative_numbers = true)]
    pub(crate) concurrency: u32,
    /// Threads of this program.
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    #[arg(allow_negative_numbers = true)]
    pub(crate) threads: u32,
    /// How long each workload is measured.
    #[arg(long, value_parser = duration, default_value = "10s", value_name = "TIME")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) time: Duration,
    /// How long it runs before that.
    #[arg(long, value_parser = duration, default_value = "1s", value_name = "TIME")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) warm_up: Duration,
    /// Keys that are there before it begins.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    #[arg(allow_negative_numbers = true)]
    pub(crate) records: u64,
    /// The length of a value.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    #[arg(allow_negative_numbers = true)]
    pub(crate) value_bytes: u32,
    /// How keys are chosen; as YCSB does it for the workload if absent.
    #[arg(long, value_name = "HOW")]
    pub(crate) distribution: Option<Distribution>,
    /// What the keys begin with. They stay there afterwards.
    #[arg(long, default_value = "bench:", value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prefix: String,
    /// Takes the keys to be there from an earlier run.
    #[arg(long)]
    pub(crate) no_load: bool,
    /// Where the choice of keys and operations begins: the same gives the same.
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    pub(crate) seed: u64,
    /// Processes of this machine whose processor time is counted too; not of nodes of the cluster, which
    /// tell theirs without it.
    #[arg(long, value_delimiter = ',', value_name = "PID", allow_negative_numbers = true)]
    pub(crate) pid: Vec<u32>,
}
