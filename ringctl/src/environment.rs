//! Environment: every flag has a variable, `RINGCTL_` and its name; a command's own flag has the
//! command's name between the two: `--node` is `RINGCTL_NODE`, `status --check` is
//! `RINGCTL_STATUS_CHECK`.
//!
//! Promise: a flag that is added later has its variable without anybody thinking of it.

use clap::builder::FalseyValueParser;
use clap::{Arg, ArgAction, Command};

/// The command line, with a variable for every flag.
pub(crate) fn with_variables(command: Command) -> Command {
    under("RINGCTL", command)
}

fn under(prefix: &str, command: Command) -> Command {
    let own = prefix.to_owned();
    command.mut_args(move |arg| variable(&own, arg)).mut_subcommands(|command| {
        let name = command.get_name().replace('-', "_").to_uppercase();
        under(&format!("{prefix}_{name}"), command)
    })
}

fn variable(prefix: &str, arg: Arg) -> Arg {
    let Some(flag) = arg.get_long() else { return arg };
    if matches!(flag, "help" | "version") {
        return arg;
    }
    let name = format!("{prefix}_{}", flag.replace('-', "_").to_uppercase());
    let arg = arg.env(name).hide_env(true);
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        // Empty, 0, no, false and off are no.
        return arg.value_parser(FalseyValueParser::new());
    }
    arg
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Args;

    fn flags(command: &Command, out: &mut Vec<(String, Option<String>)>) {
        for arg in command.get_arguments() {
            let Some(flag) = arg.get_long() else { continue };
            let env = arg.get_env().map(|env| env.to_string_lossy().into_owned());
            out.push((format!("{} --{flag}", command.get_name()), env));
        }
        command.get_subcommands().for_each(|command| flags(command, out));
    }

    #[test]
    fn every_flag_has_a_variable_of_its_own() {
        let mut found = Vec::new();
        flags(&with_variables(Args::command()), &mut found);
        let mut seen = std::collections::BTreeSet::new();
        for (flag, env) in &found {
            if flag.ends_with("--help") || flag.ends_with("--version") {
                continue;
            }
            let env = env.as_ref().unwrap_or_else(|| panic!("{flag} has no variable"));
            assert!(seen.insert(env), "{env} stands for two flags");
        }
        assert!(seen.contains(&"RINGCTL_NODE".to_owned()), "{seen:?}");
        assert!(seen.contains(&"RINGCTL_STATUS_CHECK".to_owned()), "{seen:?}");
    }
}
