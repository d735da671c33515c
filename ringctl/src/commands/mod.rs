//! Commands, one a file.

mod cert;
mod completions;
mod ctx;
mod man;
mod owners;
mod status;
mod version;

use crate::args::{Args, Command, Ring};
use crate::failure::{Exit, Failure};

/// Runs the command.
pub(crate) async fn run(args: &Args) -> Result<Exit, Failure> {
    match &args.command {
        Command::Status { check, watch } => status::run(args, *check, *watch).await,
        Command::Ring(Ring::Owners { key }) => owners::run(args, key).await,
        Command::Bench(wanted) => crate::bench::run(args, wanted).await,
        Command::Cert(command) => cert::run(args, command),
        Command::Version => Ok(version::run(args)),
        Command::Ctx(command) => ctx::run(args, command),
        Command::Man { dir } => man::run(args, dir),
        Command::Completions { shell } => Ok(completions::run(*shell)),
    }
}
