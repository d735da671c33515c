//! `completions`: what a shell needs to complete our commands.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::args::Args;
use crate::failure::Exit;
use crate::print;

pub(crate) fn run(shell: Shell) -> Exit {
    let mut script = Vec::new();
    generate(shell, &mut Args::command(), "ringctl", &mut script);
    print(&String::from_utf8_lossy(&script));
    Exit::Fine
}
