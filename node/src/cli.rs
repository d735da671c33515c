//! The command line: `ringd start`, `ringd demo`, `ringd config check|print`,
//! `ringd storage dump|verify|repair|stats`.
//!
//! Every setting is also a flag of `start` and `config`; the flags come from the table of settings,
//! so that none can be forgotten.

use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::config::keys::KEYS;
use crate::demo::Demo;
use crate::error::Fault;
use crate::tool::{Dump, Tool, What};

/// What to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Run a node.
    Start {
        /// The configuration file.
        file: Option<PathBuf>,
        /// Settings given as flags: path and text.
        flags: Vec<(String, String)>,
        /// Drain when the standard input ends.
        drain_on_stdin_end: bool,
    },
    /// Run a cluster to try.
    Demo(Demo),
    /// Check a configuration.
    Check {
        /// The configuration file.
        file: Option<PathBuf>,
        /// Settings given as flags.
        flags: Vec<(String, String)>,
    },
    /// Print a configuration.
    Print {
        /// The configuration file.
        file: Option<PathBuf>,
        /// Settings given as flags.
        flags: Vec<(String, String)>,
        /// With where each value comes from.
        with_source: bool,
    },
    /// Look at a data directory that no node has open, or mend it.
    Storage(Tool),
}

/// The whole command line.
#[must_use]
pub fn command() -> Command {
    let start = with_settings(Command::new("start").about("Run one node"))
        .arg(
            Arg::new("join")
                .long("join")
                .value_name("ADDR")
                .num_args(0..=1)
                .help("Join a running cluster (not yet: members come from a static list)"),
        )
        .arg(
            Arg::new("drain-on-stdin-end")
                .long("drain-on-stdin-end")
                .action(ArgAction::SetTrue)
                .hide(true)
                .help("Drain when the standard input ends"),
        );
    let demo = Command::new("demo")
        .about("Run a cluster of real processes on this machine, to try")
        .arg(number("nodes", "N", "3", "How many nodes"))
        .arg(number("base-port", "P", "7000", "Node i: Redis P+i, QUIC P+100+i, HTTP P+200+i"))
        .arg(
            Arg::new("data-dir")
                .long("data-dir")
                .value_name("DIR")
                .default_value("./ringdb-demo")
                .value_parser(value_parser!(PathBuf))
                .help("Where data, certificates and logs are; the next demo finds them"),
        );
    let check = with_settings(Command::new("check").about("Say whether a configuration is right"));
    let print = with_settings(Command::new("print").about("Print every setting that holds")).arg(
        Arg::new("with-source")
            .long("with-source")
            .action(ArgAction::SetTrue)
            .help("And where each value comes from"),
    );
    let config = Command::new("config")
        .about("Look at a configuration")
        .subcommand_required(true)
        .subcommands([check, print]);
    Command::new("ringd")
        .about("RingDB: an active-active, durable store on a Dynamo ring")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .subcommands([start, demo, config, storage()])
}

/// Looking at what is on disk.
fn storage() -> Command {
    let with_dir = |name: &'static str, about: &'static str| {
        let dir = Arg::new("dir").value_name("DIR").required(true);
        let json = Arg::new("json").long("json").action(ArgAction::SetTrue);
        Command::new(name)
            .about(about)
            .arg(
                dir.value_parser(value_parser!(PathBuf))
                    .help("A node's data directory, or the directory engine in it"),
            )
            .arg(json.help("For programs; one object, or one a line"))
    };
    let optional = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let dump = with_dir("dump", "Print rows: keys and values")
        .arg(optional("table", "N", "The changes in this table, instead of the rows of the store"))
        .arg(optional("key", "KEY", "Only this key"))
        .arg(
            optional("slot", "N", "Only this slot")
                .value_parser(value_parser!(u16).range(..16_384)),
        )
        .arg(optional("db", "N", "Only this database").value_parser(value_parser!(u16)))
        .arg(optional("limit", "N", "At most so many").value_parser(value_parser!(u64)))
        .arg(flag("clocks", "The slots' own rows, too"))
        .arg(flag("full", "Long values in full"));
    Command::new("storage")
        .about("Look at a data directory that no node has open, or mend it")
        .subcommand_required(true)
        .subcommands([
            dump,
            with_dir("stats", "Say what the store is made of"),
            with_dir("verify", "Read everything; exit code 1 and the keys if some is damaged"),
            with_dir("repair", "Keep what can be read, move the rest aside, say what is lost"),
        ])
}

fn number(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(value)
        .default_value(default)
        .value_parser(ValueParser::from(value_parser!(u16)))
        .help(help)
}

fn with_settings(command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .env("RINGDB_CONFIG")
        .value_parser(value_parser!(PathBuf))
        .help("The configuration file");
    // Of a flag that is given twice the last one counts.
    let command = command.args_override_self(true).arg(config);
    KEYS.iter().fold(command, |command, key| {
        let arg = Arg::new(key.path).long(key.flag()).value_name("VALUE").help(key.help);
        command.arg(arg.help_heading("Settings").hide_default_value(true))
    })
}

/// What the arguments of this process ask for. Ends the process for `--help` and `--version`.
///
/// # Errors
/// A [`Fault`] for what is not understood, or not possible.
pub fn parse() -> Result<Action, Fault> {
    match command().try_get_matches() {
        Ok(matches) => action(&matches),
        Err(told) if !told.use_stderr() => told.exit(),
        Err(error) => Err(not_understood(&error.to_string())),
    }
}

/// A mistake on the command line, told as every other error.
fn not_understood(text: &str) -> Fault {
    let in_one = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let what = text.split("\n\n").next().unwrap_or_default();
    let what = in_one(what.trim_start_matches("error: "));
    let line = |start: &str| text.lines().find_map(|l| l.trim().strip_prefix(start)).map(in_one);
    let why = line("Usage: ").map_or_else(
        || "that option does not take such a value".to_owned(),
        |usage| format!("usage: {usage}"),
    );
    let fix = line("tip: ").unwrap_or_else(|| "`ringd --help` lists what there is".to_owned());
    Fault::new(what, why, fix)
}

fn action(matches: &ArgMatches) -> Result<Action, Fault> {
    match matches.subcommand() {
        Some(("demo", m)) => Ok(Action::Demo(Demo {
            nodes: *m.get_one("nodes").expect("it has a default"),
            base_port: *m.get_one("base-port").expect("it has a default"),
            dir: m.get_one::<PathBuf>("data-dir").expect("it has a default").clone(),
        })),
        Some(("start", m)) => {
            if m.contains_id("join") {
                return Err(Fault::new(
                    "this node cannot join a running cluster",
                    "members come from the static list cluster.members for now; joining is to come",
                    "list every member in cluster.members on all nodes, then `ringd start` each",
                ));
            }
            let drain_on_stdin_end = m.get_flag("drain-on-stdin-end");
            Ok(Action::Start { file: file(m), flags: flags(m), drain_on_stdin_end })
        }
        Some(("storage", m)) => {
            let Some((name, m)) = m.subcommand() else { unreachable!("a subcommand is required") };
            let what = match name {
                "dump" => What::Dump(Dump {
                    table: m.get_one("table").cloned(),
                    key: m.get_one("key").cloned(),
                    slot: m.get_one("slot").copied(),
                    db: m.get_one("db").copied(),
                    clocks: m.get_flag("clocks"),
                    limit: m.get_one("limit").copied(),
                    full: m.get_flag("full"),
                }),
                "verify" => What::Verify,
                "repair" => What::Repair,
                _ => What::Stats,
            };
            let dir = m.get_one::<PathBuf>("dir").expect("it is required").clone();
            Ok(Action::Storage(Tool { dir, json: m.get_flag("json"), what }))
        }
        Some(("config", m)) => match m.subcommand() {
            Some(("print", m)) => {
                let with_source = m.get_flag("with-source");
                Ok(Action::Print { file: file(m), flags: flags(m), with_source })
            }
            Some((_, m)) => Ok(Action::Check { file: file(m), flags: flags(m) }),
            None => unreachable!("a subcommand is required"),
        },
        Some(_) | None => unreachable!("a subcommand is required"),
    }
}

fn file(matches: &ArgMatches) -> Option<PathBuf> {
    matches.get_one("config").cloned()
}

fn flags(matches: &ArgMatches) -> Vec<(String, String)> {
    let given = |path: &str| matches.get_one::<String>(path).cloned();
    KEYS.iter().filter_map(|k| given(k.path).map(|text| (k.path.to_owned(), text))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_on_the_command_line_says_what_why_and_fix() {
        for (line, what, fix) in [
            (
                "ringd",
                "'ringd' requires a subcommand but one was not provided [subcommands: start, demo, \
                 config, storage, help]",
                "`ringd --help` lists what there is",
            ),
            ("ringd dmeo", "unrecognized subcommand 'dmeo'", "a similar subcommand exists: 'demo'"),
            (
                "ringd start --confg x",
                "unexpected argument '--confg' found",
                "a similar argument exists: '--config'",
            ),
            (
                "ringd demo --base-port 70000",
                "invalid value '70000' for '--base-port <P>': 70000 is not in 0..=65535",
                "`ringd --help` lists what there is",
            ),
        ] {
            let error = command().try_get_matches_from(line.split(' ')).expect_err("a mistake");
            let told = not_understood(&error.to_string()).to_string();
            let lines: Vec<&str> = told.lines().collect();
            assert_eq!(lines.len(), 3, "{told}");
            assert_eq!(lines[0], format!("error: {what}"));
            assert!(lines[1].starts_with("  why: ") && lines[1].len() > 10, "{told}");
            assert_eq!(lines[2], format!("  fix: {fix}"));
        }
    }
}
