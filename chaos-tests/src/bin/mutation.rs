//! mutation: plants each known bug in turn and counts the seeds until a promise breaks.
//!
//! A bug that is not found within the seeds allowed is a hole in the checks. Each is sought under
//! the profile that presses on its corner; the same profile must be clean without the bug.

#![expect(clippy::print_stdout, reason = "a command-line tool")]

use std::process::ExitCode;

use chaos_tests::mutation::{PLANTED, seek};

fn main() -> ExitCode {
    let (mut missed, seeds_max, seconds) = (0, 200, 20);
    for planted in PLANTED {
        match seek(planted, seeds_max, seconds) {
            Some((seed, violation)) => println!(
                "{:<22} {:<10} seed {seed:>3}: {}",
                planted.name(),
                planted.profile,
                violation.promise
            ),
            None => {
                missed += 1;
                println!("{:<22} {:<10} NOT FOUND", planted.name(), planted.profile);
            }
        }
    }
    println!("{} of {} found within {seeds_max} seeds", PLANTED.len() - missed, PLANTED.len());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
