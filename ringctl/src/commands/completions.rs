//! `completions`: what a shell needs to complete our commands.

use clap::{Command, CommandFactory, ValueHint};
use clap_complete::{Shell, generate};

use crate::args::Args;
use crate::failure::Exit;
use crate::print;

/// What completes the names of nodes and contexts.
const NODES: &str = include_str!("nodes.bash");

pub(crate) fn run(shell: Shell) -> Exit {
    let mut script = Vec::new();
    generate(shell, &mut without_files(Args::command()), "ringctl", &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => script += NODES,
        // With two colons the words that may be repeated would be all that zsh knows of from there on,
        // and no option were completed after the first of them.
        Shell::Zsh => script = script.replace("'*::", "'*:"),
        _ => {}
    }
    print(&script);
    Exit::Fine
}

/// A value is the name of a file only where its argument says so.
fn without_files(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let unknown = arg.get_value_hint() == ValueHint::Unknown;
        let valued = arg.get_action().takes_values();
        if valued && unknown { arg.value_hint(ValueHint::Other) } else { arg }
    });
    command.mut_subcommands(without_files)
}
