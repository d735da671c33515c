//! Usage: what is said of a command line that is not understood.
//!
//! Promise: it is about the command that was meant, and names its help; the same line is answered alike
//! whatever variables are set, unless it is one of these that is not understood: then it is named.

use std::error::Error;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command, CommandFactory};
use client::Told;

use super::Args;
use crate::environment::with_variables;
use crate::failure::{Exit, Failure};

/// Tells in three lines what clap tells in many.
pub(crate) fn not_understood(error: &clap::Error) -> Failure {
    let meant = Meant::find();
    let text = error.to_string();
    let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
    let told = match of_variable(error, &text) {
        Some((variable, flag)) => Told::new(
            what(error, &text).replace(&flag, &variable),
            why(error, &meant),
            format!("correct or unset {variable}; {} --help", meant.name),
        ),
        None => Told::new(what(error, &text), why(error, &meant), fix(error, tip, &meant)),
    };
    Failure { exit: Exit::Usage, told }
}

/// The variable whose value is not understood, and the flag that clap takes it for; nothing if it is the line's own.
fn of_variable(error: &clap::Error, text: &str) -> Option<(String, String)> {
    if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        return None;
    }
    let line_alone = Args::command().try_get_matches().err().map(|e| e.to_string());
    if line_alone.is_some_and(|alone| alone == text) {
        return None;
    }
    let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = arg.split_once(' ').map_or(arg.as_str(), |(flag, _)| flag).trim_start_matches("--");
    let matches = Args::command().ignore_errors(true).try_get_matches().unwrap_or_default();
    let variable = variable_of(&with_variables(Args::command()), &matches, flag)?;
    Some((variable, format!("'{arg}'")))
}

/// The variable of a flag of the command that was meant, or of one above it.
fn variable_of(command: &Command, matches: &ArgMatches, flag: &str) -> Option<String> {
    let under = matches
        .subcommand()
        .and_then(|(name, matches)| variable_of(command.find_subcommand(name)?, matches, flag));
    let own = || {
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(flag))?;
        Some(arg.get_env()?.to_string_lossy().into_owned())
    };
    under.or_else(own)
}

/// The command that the line comes to.
struct Meant {
    /// Its words, from `ringctl` on.
    name: String,
    /// How it is used, whatever stands on this line.
    usage: String,
    /// Whether something without a flag, such as a key, has still to come.
    open: bool,
}

impl Meant {
    fn find() -> Self {
        let mut whole = Args::command();
        whole.build();
        let matches = Args::command().ignore_errors(true).try_get_matches().unwrap_or_default();
        Self::under(&mut whole, &matches)
    }

    fn under(command: &mut Command, matches: &ArgMatches) -> Self {
        if let Some((name, matches)) = matches.subcommand()
            && let Some(command) = command.find_subcommand_mut(name)
        {
            return Self::under(command, matches);
        }
        let named = |id: &str| matches.try_contains_id(id).unwrap_or_default();
        let open = command.get_positionals().any(|arg| !named(arg.get_id().as_str()));
        let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
        let usage = command.render_usage().to_string();
        Self { name, usage: one_line(usage.trim_start_matches("Usage:")), open }
    }
}

fn what(error: &clap::Error, text: &str) -> String {
    if is_missing_command(error) {
        return "a command is missing".into();
    }
    let first = text.split("\n\n").next().unwrap_or_default();
    let whole = one_line(first.trim_start_matches("error:"));
    // The reason, and the values that do, have a line of their own.
    let reason = error.source().map(|reason| format!(": {}", one_line(&reason.to_string())));
    let short = reason.and_then(|reason| whole.strip_suffix(&reason).map(str::to_owned));
    let short =
        short.or_else(|| whole.split_once(" [possible values:").map(|(what, _)| what.into()));
    short.unwrap_or(whole)
}

fn why(error: &clap::Error, meant: &Meant) -> String {
    if let Some(reason) = error.source() {
        return one_line(&reason.to_string());
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => {
            format!("possible values: {}", values.join(", "))
        }
        _ => format!("usage: {}", meant.usage),
    }
}

fn fix(error: &clap::Error, tip: Option<&str>, meant: &Meant) -> String {
    let help = format!("{} --help", meant.name);
    match tip {
        // That a word with a hyphen may be a value helps only where one is wanted.
        Some(tip) if tip.contains("as a value, use '-- ") => {
            let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else {
                return help;
            };
            if meant.open {
                format!("{help}; if {word} is meant as it stands: -- {word}")
            } else {
                help
            }
        }
        Some(tip) => one_line(tip),
        None => help,
    }
}

fn is_missing_command(error: &clap::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    )
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
