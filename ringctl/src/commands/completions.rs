//! `completions`: what a shell needs to complete our commands.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::args::Args;
use crate::failure::Exit;
use crate::print;

/// What completes the names of nodes.
const NODES: &str = include_str!("nodes.bash");

pub(crate) fn run(shell: Shell) -> Exit {
    let mut script = Vec::new();
    generate(shell, &mut Args::command(), "ringctl", &mut script);
    if shell == Shell::Bash {
        script.extend_from_slice(NODES.as_bytes());
    }
    print(&String::from_utf8_lossy(&script));
    Exit::Fine
}
