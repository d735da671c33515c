//! ringctl: the administrator's tool. It asks a cluster, says what it heard, and what to do next.
//!
//! Promise: output is the same for every command: tables for people, aligned and without borders,
//! JSON for programs under `"schema":"ringctl/v1"`; an error has three lines, what, why and fix, on
//! standard error; the exit code says what kind of error it was ([`failure::Exit`]).
//!
//! Reading order: [`args`], [`cluster`] (how a cluster is found), [`nodes`] (all
//! members asked at once), [`commands`], [`doctor`], [`mod@bench`], [`render`].

mod args;

mod environment;

mod failure;

mod cluster;

mod nodes;

mod confirm;

mod commands;

mod bench;

mod doctor;

mod render;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::Args;
use failure::{Exit, Failure};
use render::{Report, Style};

fn main() -> ExitCode {
    let parsed = environment::with_variables(Args::command()).try_get_matches();
    let done = match parsed.and_then(|matches| Args::from_arg_matches(&matches)) {
        Ok(args) => run(&args),
        Err(error) => not_understood(&error),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit.into()
        }
    }
}

fn run(args: &Args) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::operation("cannot start", &e, "try again"))?;
    runtime.block_on(commands::run(args))
}

/// Help and the version are no errors; anything else is told in three lines like every error.
fn not_understood(error: &clap::Error) -> Result<Exit, Failure> {
    if !error.use_stderr() {
        print(&error.to_string());
        return Ok(Exit::Fine);
    }
    Err(args::not_understood(error))
}

/// Prints a report as the flags ask for it.
fn show(args: &Args, report: &Report) {
    print(&report.render(args.output));
}

/// What tables may look like here.
fn style(args: &Args) -> Style {
    let refused = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let plain = args.no_color || refused("NO_COLOR") || dumb;
    Style {
        colour: !plain && std::io::stdout().is_terminal(),
        wide: matches!(args.output, args::Format::Wide),
    }
}

/// Writes to standard output. Whoever reads may stop when they have seen enough.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    let Err(error) = written else { return };
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        // Nobody reads any longer: there is nobody to tell either.
        std::process::exit(0);
    }
    let fix = "make room there, or send it elsewhere; what was asked for may be done";
    eprintln!("{}", Failure::operation("the output cannot be written", &error, fix));
    std::process::exit(Exit::Failed as i32);
}
