//! Arguments: what may be said on the command line. Flags win over the environment, the
//! environment over the context file.

mod bench;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use certs::Role;
use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use client::Level;

pub(crate) use bench::{BenchArgs, Distribution, Workload};

/// Asks and administers a RingDB cluster.
#[derive(Debug, Parser)]
#[command(name = "ringctl", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 fine, 1 failed, 2 usage, 3 no node reached, 4 degraded \
                        (status --check, doctor),\n6 timed out, 7 not authorised. Every flag has a \
                        variable: --node is RINGCTL_NODE,\nstatus --check is RINGCTL_STATUS_CHECK.")]
pub(crate) struct Args {
    /// The node to ask: host:port of its QUIC port, or its name. Any node of the context if absent.
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) node: Option<String>,

    /// The file of contexts. Looked for at ./ringdb-demo/ringctl.toml and
    /// ~/.config/ringctl/config.toml if absent.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The context in that file; its current one if absent.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,

    /// How to print: for people, or for programs.
    #[arg(short, long, global = true, value_name = "FORMAT")]
    #[arg(default_value = "table")]
    pub(crate) output: Format,

    /// No colours, not even on a terminal (NO_COLOR does the same).
    #[arg(long, global = true)]
    pub(crate) no_color: bool,

    /// How long to wait for an answer: 500ms, 2s, 1m.
    #[arg(long, global = true, value_name = "TIME")]
    #[arg(default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table.
    Table,
    /// A table with more columns.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON document a row.
    Jsonl,
    /// Comma-separated values under a line of names.
    Csv,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows the cluster, its nodes, and what to do next.
    ///
    /// KEYS is how many keys a node keeps: live ones of all databases, as DBSIZE counts them, each
    /// once however often it was written. With N copies each key counts on N nodes. Nodes count in the
    /// background, slot by slot, what was written to or has expired: on a quiet cluster the figure is
    /// one or two seconds old, under a steady load of writes as old as a walk over all keys takes (`-o
    /// wide` and keys_age_ms tell). `-` means that the node has not counted yet since it started.
    Status {
        /// Exits with 4 if anything is amiss.
        #[arg(long, conflicts_with = "watch")]
        check: bool,
        /// Shows it again and again, every two seconds if it is not said.
        #[arg(short, long, value_name = "TIME", num_args = 0..=1, require_equals = true)]
        #[arg(default_missing_value = "2s", value_parser = duration)]
        watch: Option<Duration>,
    },
    /// Says where keys live.
    #[command(subcommand)]
    Ring(Ring),
    /// Measures how fast a cluster is, or any Redis endpoint, and what that costs.
    Bench(Box<BenchArgs>),
    /// Makes and shows certificates.
    #[command(subcommand)]
    Cert(Cert),
    /// Shows the versions of this program and of the protocol it speaks.
    Version,
    /// Shows the clusters that are known here, and chooses one.
    #[command(subcommand)]
    Ctx(Ctx),
    /// Prints completions for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Writes the manual pages, one a command.
    Man {
        /// Where they go.
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ctx {
    /// Lists the contexts of the file.
    Ls,
    /// Makes a context the current one.
    Use {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ring {
    /// Shows the slot of a key and the replicas that hold it, in order.
    Owners {
        /// The key.
        key: OsString,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cert {
    /// Makes the certificate authority of a new cluster.
    CaInit {
        /// Where ca.pem and ca.key go.
        #[arg(long, value_name = "DIR", default_value = "certs")]
        out: PathBuf,
        /// The cluster's name.
        #[arg(long, value_name = "NAME", default_value = "ringdb")]
        cluster: String,
    },
    /// Issues a certificate for a node, a client or an administrator.
    Issue {
        /// The name of its holder.
        name: String,
        /// What the holder may do.
        #[arg(long, default_value = "node", value_parser = role)]
        role: Role,
        /// The node's number in the layout, if it has one already.
        #[arg(long, value_name = "N")]
        node_id: Option<u32>,
        /// Where NAME.pem and NAME.key go, and ca.pem beside them.
        #[arg(long, value_name = "DIR", default_value = "certs")]
        out: PathBuf,
        /// Where ca.pem and ca.key are; where the certificate goes if absent.
        #[arg(long, value_name = "DIR")]
        ca: Option<PathBuf>,
        /// How long it is valid.
        #[arg(long, value_name = "DAYS", default_value_t = 365)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
        /// Further DNS names or addresses to name, for tools that insist on them.
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
    },
    /// Shows what a certificate says.
    Show {
        /// A file in PEM form.
        file: PathBuf,
    },
}

/// A time with a unit, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{unit:?} is no unit of time: ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| "a number is expected, as in 2s".to_owned())?;
    match Duration::try_from_secs_f64(number * scale) {
        Ok(time) if time.is_zero() => Err("it must be more than nothing".into()),
        Ok(time) => Ok(time.min(Duration::from_secs(24 * 3600))),
        Err(error) => Err(error.to_string()),
    }
}

fn level(text: &str) -> Result<Level, String> {
    let known = "a level is ONE, TWO, THREE, QUORUM, ALL or a number of replicas";
    Level::parse(text).ok_or_else(|| known.to_owned())
}

fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|()| "a role is node, client or admin".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        for (text, ms) in [("250ms", 250), ("2s", 2_000), ("3", 3_000), ("1.5m", 90_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "0", "2y", "-1s"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }
}
