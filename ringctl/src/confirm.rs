//! Confirm: whether a person means it. Where nobody can be asked, `--yes` must have said so.

use std::io::{BufRead, IsTerminal, Write};

use client::Told;

use crate::failure::{Exit, Failure};

/// An error unless `yes`, or unless a person at the terminal says so.
pub(crate) fn confirm(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    let refused = |why: &str| {
        let told =
            Told::new(format!("nothing was done: {what}"), why, "say that you mean it with --yes");
        Failure { exit: Exit::Usage, told }
    };
    if !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        return Err(refused("there is no terminal at which you could be asked"));
    }
    let mut err = std::io::stderr().lock();
    let mut answer = String::new();
    // A terminal that cannot be written to or read from has said no.
    drop(write!(err, "{what}? [y/N] ").and_then(|()| err.flush()));
    drop(stdin.lock().read_line(&mut answer));
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(refused("you did not say yes")),
    }
}
