//! Arguments: what may be said on the command line. Flags win over the environment, the
//! environment over the context file.

mod bench;

mod usage;

mod words;

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use certs::Role;
use clap::{Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use client::Level;

pub(crate) use bench::{BenchArgs, Distribution, Driver, Workload};
pub(crate) use usage::not_understood;
use words::{LEVELS, ROLES, Words};

/// Under this heading the help of every command has the options of all.
const COMMON: &str = "Common options";

/// Asks and administers a RingDB cluster.
#[derive(Debug, Parser)]
#[command(name = "ringctl", version, propagate_version = true, max_term_width = 100)]
// After those of a command itself, in the synopses of the manual as well.
#[command(next_display_order = 100)]
#[command(after_help = "Exit codes: 0 fine, 1 failed, 2 usage, 3 no node reached, 4 degraded \
                        (status --check, doctor),\n6 timed out, 7 not authorised. Every flag has a \
                        variable: --node is RINGCTL_NODE,\nstatus --check is RINGCTL_STATUS_CHECK.")]
pub(crate) struct Args {
    /// The node to ask: its name, or host:port of its QUIC port; any if absent.
    #[arg(long, global = true, value_name = "ADDR", help_heading = COMMON)]
    pub(crate) node: Option<String>,

    /// The file of contexts.
    ///
    /// Looked for at ./ringdb-demo/ringctl.toml and ~/.config/ringctl/config.toml if absent.
    #[arg(long, global = true, value_name = "FILE", help_heading = COMMON)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,

    /// The context in that file; its current one if absent.
    #[arg(long, global = true, value_name = "NAME", help_heading = COMMON)]
    pub(crate) context: Option<String>,

    /// How to print: for people, or for programs.
    #[arg(short, long, global = true, value_name = "FORMAT", help_heading = COMMON)]
    #[arg(default_value = "table")]
    pub(crate) output: Format,

    /// No colours, not even on a terminal (NO_COLOR does the same).
    #[arg(long, global = true, help_heading = COMMON)]
    pub(crate) no_color: bool,

    /// How long to wait for an answer: 500ms, 2s, 1m.
    #[arg(long, global = true, value_name = "TIME", help_heading = COMMON)]
    #[arg(default_value = "5s", value_parser = duration, allow_hyphen_values = true)]
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
    /// Shows the members one by one, and drains one.
    #[command(subcommand)]
    Node(Node),
    /// Says where keys live.
    #[command(subcommand)]
    Ring(Ring),
    /// Shows what is under a key, and sets it right.
    Key {
        /// The database that the key is in.
        #[arg(long, global = true, value_name = "N", default_value_t = 0)]
        #[arg(allow_negative_numbers = true)]
        db: u16,
        #[command(subcommand)]
        command: Key,
    },
    /// Shows the keys that are asked for most, from samples of the last minute.
    Hot {
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 20, allow_negative_numbers = true)]
        #[arg(value_parser = clap::value_parser!(u16).range(1..=1_000))]
        count: u16,
        #[command(flatten)]
        watch: Watch,
    },
    /// Finds the largest keys.
    ///
    /// Reads the store of every node once, in small parts so that nobody who is served notices; of one
    /// node only with --node.
    Big {
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 20, allow_negative_numbers = true)]
        #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
        count: u16,
    },
    /// Shows by which terms keys are kept, and changes them.
    #[command(subcommand)]
    Keyspace(Keyspace),
    /// Keeps a node's store as it is, and shows and removes what was kept.
    ///
    /// A checkpoint shares the tables with the store and costs hardly any room until compactions replace them. It
    /// lies in the node's data directory; how to go back to it stands in docs/operating.md.
    #[command(subcommand)]
    Checkpoint(Checkpoint),
    /// Looks for what commonly goes wrong, and says what to do about it.
    ///
    /// Exits with 4 if it finds anything.
    Doctor {
        #[command(flatten)]
        watch: Watch,
    },
    /// Gathers what helps to understand a fault.
    #[command(subcommand)]
    Debug(Debugging),
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
        #[arg(value_hint = ValueHint::DirPath)]
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
    /// Draws which node is first in which slots.
    Map {
        #[command(flatten)]
        watch: Watch,
    },
    /// Lists which nodes keep which slots, in ranges.
    Slots {
        /// Only what this node keeps: its name or number.
        #[arg(long, value_name = "NODE")]
        of: Option<String>,
        /// Only the range with this slot.
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        #[arg(value_parser = clap::value_parser!(u16).range(0..i64::from(ring::SLOTS)))]
        slot: Option<u16>,
    },
    /// Compares what each node keeps with its fair share.
    Balance {
        #[command(flatten)]
        watch: Watch,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keyspace {
    /// Lists the databases that have terms of their own, after the default, and where these come from.
    Ls {
        #[command(flatten)]
        watch: Watch,
    },
    /// Sets terms, on all nodes and without a restart. What is not named stays as it is.
    ///
    /// Returns once all members that are up have them on their disks, and says which have not; those learn
    /// of them before they serve again. What is under way goes on by the terms that it began with.
    Set {
        /// `default`, or numbers of databases.
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        #[command(flatten)]
        terms: Terms,
        #[command(flatten)]
        how: How,
    },
    /// Gives keyspaces back to the configuration.
    Rm {
        /// `default`, or numbers of databases.
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Checkpoint {
    /// Lists the checkpoints of a node, the oldest first.
    Ls {
        /// Its name, its number or its address.
        node: String,
    },
    /// Makes a checkpoint of all that a node has, while it serves.
    ///
    /// Holds everything that was acknowledged before. Of one node: make one of each for a backup of a cluster.
    Create {
        /// Its name, its number or its address.
        node: String,
        /// The checkpoint's name: letters, digits, '-', '_' and '.'. The time, if absent.
        name: Option<String>,
    },
    /// Removes a checkpoint.
    Rm {
        /// Its name, its number or its address.
        node: String,
        /// The checkpoint's name.
        name: String,
        /// Does not ask whether you mean it.
        #[arg(long)]
        yes: bool,
    },
}

/// How terms are changed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct How {
    /// Only shows what would be.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Does not ask whether you mean it.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// The terms of a keyspace.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Terms {
    /// The level of reads that name none: ONE, QUORUM, ALL and so on, or a number.
    #[arg(long, value_name = "LEVEL", value_parser = Words::of(text, LEVELS))]
    #[arg(hide_possible_values = true, allow_negative_numbers = true)]
    pub(crate) read: Option<String>,
    /// The level of writes that name none.
    #[arg(long, value_name = "LEVEL", value_parser = Words::of(text, LEVELS))]
    #[arg(hide_possible_values = true, allow_negative_numbers = true)]
    pub(crate) write: Option<String>,
    /// What an acknowledged write survives: os (the process), or sync (power).
    #[arg(long, value_name = "os|sync", value_parser = Words::of(text, &["os", "sync"]))]
    #[arg(hide_possible_values = true)]
    pub(crate) durability: Option<String>,
    /// What a write without a context replaces: what its coordinator has (lww), or nothing that its client
    /// was not shown (siblings).
    #[arg(long, value_name = "lww|siblings", value_parser = Words::of(text, &["lww", "siblings"]))]
    #[arg(hide_possible_values = true)]
    pub(crate) conflict: Option<String>,
    /// How long a key lives that is written without an expiry: 90s, 12h, 30d; none for ever.
    #[arg(long, value_name = "TIME", value_parser = ttl, allow_hyphen_values = true)]
    pub(crate) ttl: Option<u64>,
    /// Who may stand in for a replica that is away: off is all that there is in this version.
    #[arg(long, value_name = "off|write|readwrite")]
    pub(crate) sloppy: Option<Sloppy>,
    /// Copies of each key.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) n: Option<u8>,
}

/// Who may stand in for a replica that is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum Sloppy {
    /// Nobody.
    Off,
    /// Others, for writes.
    Write,
    /// Others, for writes and reads.
    ReadWrite,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Debugging {
    /// Writes all that helps to understand a fault into one directory.
    ///
    /// Status, findings of the doctor, layout, and of each node its metrics, its settings without
    /// secrets, and its log if that lies on this machine.
    Bundle {
        /// The directory, which must not exist; ringctl-bundle-TIME if absent.
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Lists the members, each by its own words.
    Ls {
        #[command(flatten)]
        watch: Watch,
    },
    /// Shows all that one node says of itself.
    Show {
        /// Its name, its number or its address.
        name: String,
        #[command(flatten)]
        watch: Watch,
    },
    /// Lets a node finish what it does, put everything on disk, and end.
    ///
    /// Nothing moves: it keeps its share, and takes it up again when it is started.
    Drain {
        /// Its name, its number or its address.
        name: String,
        /// Does not ask whether you mean it.
        #[arg(long)]
        yes: bool,
        /// Even if another node is down or not ready.
        #[arg(long)]
        even_if_degraded: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Shows the value, or the values if they were written concurrently.
    Get {
        /// The key.
        key: OsString,
        /// How many replicas must agree; the keyspace's own level if absent.
        #[arg(short = 'c', long = "consistency", value_parser = level(), value_name = "LEVEL")]
        #[arg(hide_possible_values = true, allow_negative_numbers = true)]
        level: Option<Level>,
    },
    /// Shows concurrent values, and who wrote each of them when.
    Siblings {
        /// The key.
        key: OsString,
        /// As for get.
        #[arg(short = 'c', long = "consistency", value_parser = level(), value_name = "LEVEL")]
        #[arg(hide_possible_values = true, allow_negative_numbers = true)]
        level: Option<Level>,
    },
    /// Replaces what is read by one value; what is written meanwhile stays.
    Resolve {
        /// The key.
        key: OsString,
        #[command(flatten)]
        take: Take,
        /// For the read and the write.
        #[arg(short = 'c', long = "consistency", value_parser = level(), value_name = "LEVEL")]
        #[arg(hide_possible_values = true, allow_negative_numbers = true)]
        level: Option<Level>,
    },
    /// Asks each replica for its own copy, then reads at a level.
    Trace {
        /// The key.
        key: OsString,
        /// The level of the read; QUORUM if absent.
        #[arg(short = 'c', long = "consistency", value_parser = level(), value_name = "LEVEL")]
        #[arg(hide_possible_values = true, allow_negative_numbers = true)]
        level: Option<Level>,
    },
    /// Removes what is read; what is written meanwhile stays.
    Delete {
        /// The key.
        key: OsString,
        /// For the read and the write.
        #[arg(short = 'c', long = "consistency", value_parser = level(), value_name = "LEVEL")]
        #[arg(hide_possible_values = true, allow_negative_numbers = true)]
        level: Option<Level>,
        /// Does not ask whether you mean it.
        #[arg(long)]
        yes: bool,
    },
}

/// How often a command is carried out.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Watch {
    /// Shows it again and again, every two seconds if it is not said.
    #[arg(short = 'w', long = "watch", value_name = "TIME", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "2s", value_parser = duration)]
    pub(crate) every: Option<Duration>,
}

/// Which value a key shall have.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Take {
    /// The sibling of this place, as `key siblings` shows them.
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    pub(crate) take: Option<usize>,
    /// This value.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) value: Option<OsString>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cert {
    /// Makes the certificate authority of a new cluster.
    CaInit {
        /// Where ca.pem and ca.key go.
        #[arg(long, value_name = "DIR", default_value = "certs", value_hint = ValueHint::DirPath)]
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
        #[arg(long, default_value = "node", value_parser = Words::of(role, ROLES))]
        role: Role,
        /// The node's number in the layout, if it has one already.
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        node_id: Option<u32>,
        /// Where NAME.pem and NAME.key go, and ca.pem beside them.
        #[arg(long, value_name = "DIR", default_value = "certs", value_hint = ValueHint::DirPath)]
        out: PathBuf,
        /// Where ca.pem and ca.key are; where the certificate goes if absent.
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        ca: Option<PathBuf>,
        /// How long it is valid.
        #[arg(long, value_name = "DAYS", default_value_t = 365, allow_negative_numbers = true)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
        /// Further DNS names or addresses to name, for tools that insist on them.
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
    },
    /// Shows what a certificate says.
    Show {
        /// A file in PEM form.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// How many, or which place.
fn whole(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "a whole number is expected, as in 20".to_owned())
}

/// A time with a unit, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| "a number is expected, as in 2s".to_owned())?;
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{unit:?} is no unit of time: ms, s, m or h")),
    };
    match Duration::try_from_secs_f64(number * scale) {
        Ok(time) if time.is_zero() => Err("it must be more than nothing".into()),
        Ok(time) => Ok(time.min(Duration::from_secs(24 * 3600))),
        Err(error) => Err(error.to_string()),
    }
}

/// A time with a unit, in milliseconds; 0 for ever.
fn ttl(text: &str) -> Result<u64, String> {
    if matches!(text, "none" | "off") {
        return Ok(0);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a number is expected, as in 12h".to_owned())?;
    let scale = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("a time has a unit: ms, s, m, h or d, as in 12h; or it is none".into()),
    };
    let ms = number.checked_mul(scale).filter(|ms| *ms <= ring::limits::TTL_MS_MAX);
    let ms = ms.ok_or("keys live for a hundred years at most")?;
    if ms == 0 { Err("it must be more than nothing; none is for ever".into()) } else { Ok(ms) }
}

fn level() -> Words<impl Fn(&str) -> Result<Level, String> + Clone> {
    let known = "a level is ONE, TWO, THREE, QUORUM, ALL or a number of replicas";
    Words::of(move |text: &str| Level::parse(text).ok_or_else(|| known.to_owned()), LEVELS)
}

/// What the nodes judge.
#[expect(clippy::unnecessary_wraps, reason = "parsers of arguments may fail")]
fn text(text: &str) -> Result<String, Infallible> {
    Ok(text.to_owned())
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
    fn keys_live_for_a_time_with_a_unit() {
        for (text, ms) in [("1d", 86_400_000), ("90s", 90_000), ("5ms", 5), ("none", 0)] {
            assert_eq!(ttl(text), Ok(ms), "{text}");
        }
        for text in ["", "0s", "5", "1y", "-1s", "1.5h", "99999999d"] {
            assert!(ttl(text).is_err(), "{text:?}");
        }
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
