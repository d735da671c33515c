//! Commands, one a file.

mod bundle;
mod cert;
mod checkpoint;
mod completions;
mod ctx;
mod hot;
mod key;
mod keyspace;
mod man;
mod node;
mod owners;
mod ring;
mod status;
mod trace;
mod version;
mod watch;

use crate::args::{Args, Command, Debugging, Ring};
use crate::failure::{Exit, Failure};

/// Runs the command.
pub(crate) async fn run(args: &Args) -> Result<Exit, Failure> {
    match &args.command {
        Command::Status { check, watch } => status::run(args, *check, *watch).await,
        Command::Ring(Ring::Owners { key }) => owners::run(args, key).await,
        Command::Ring(Ring::Map { watch }) => {
            watch::again(args, watch.every, || ring::map(args)).await
        }
        Command::Ring(Ring::Slots { of, slot }) => ring::slots(args, of.as_deref(), *slot).await,
        Command::Ring(Ring::Balance { watch }) => {
            watch::again(args, watch.every, || ring::balance(args)).await
        }
        Command::Node(command) => node::run(args, command).await,
        Command::Key { db, command } => key::run(args, *db, command).await,
        Command::Hot { count, watch } => {
            watch::again(args, watch.every, || hot::hot(args, usize::from(*count))).await
        }
        Command::Big { count } => hot::big(args, *count).await,
        Command::Keyspace(command) => keyspace::run(args, command).await,
        Command::Checkpoint(command) => checkpoint::run(args, command).await,
        Command::Doctor { watch } => {
            watch::again(args, watch.every, || crate::doctor::run(args)).await
        }
        Command::Debug(Debugging::Bundle { out }) => bundle::run(args, out.as_deref()).await,
        Command::Bench(wanted) => crate::bench::run(args, wanted).await,
        Command::Cert(command) => cert::run(args, command),
        Command::Version => Ok(version::run(args)),
        Command::Ctx(command) => ctx::run(args, command),
        Command::Man { dir } => man::run(args, dir),
        Command::Completions { shell } => Ok(completions::run(*shell)),
    }
}
