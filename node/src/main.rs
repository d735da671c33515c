//! ringd: a node of RingDB, or a cluster of them to try.

use std::io::BufWriter;
use std::process::exit;

use ringdb_node::certificates::Certificates;
use ringdb_node::cli::{self, Action};
use ringdb_node::error::{EXIT_REFUSED, Fault};
use ringdb_node::{allocator, config, demo, logging, shutdown, tool};
use tokio::runtime::Builder;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::new();

fn main() {
    match cli::parse().and_then(act) {
        Ok(code) => exit(code),
        Err(fault) => {
            eprintln!("{fault}");
            exit(EXIT_REFUSED);
        }
    }
}

fn act(action: Action) -> Result<i32, Fault> {
    match action {
        Action::Start { file, flags, drain_on_stdin_end } => {
            let (_, config) = config::load(file.as_deref(), flags.into_iter())?;
            logging::start(&config.log_level)?;
            end_on_panic();
            let config = config::Config { drain_on_stdin_end, ..config };
            block_on(shutdown::run(config))
        }
        Action::Storage(tool) => {
            // What the engine finds is said by the tool itself.
            logging::start("off")?;
            tool::run(&tool, &mut BufWriter::new(std::io::stdout().lock()))
        }
        Action::Demo(demo) => block_on(demo::run(&demo)).map(|()| 0),
        Action::Check { file, flags } => {
            let (_, config) = config::load(file.as_deref(), flags.into_iter())?;
            Certificates::load(&config)?;
            println!("the configuration is right");
            Ok(0)
        }
        Action::Print { file, flags, with_source } => {
            let (settings, _) = config::load(file.as_deref(), flags.into_iter())?;
            print!("{}", config::print(&settings, with_source));
            Ok(0)
        }
    }
}

/// A thread that panicked leaves a node that answers for some slots and not for others: end it whole,
/// as if it had been killed, which it survives.
fn end_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tell(info);
        std::process::abort();
    }));
}

fn block_on<T>(run: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Fault::new("cannot start", e.to_string(), "raise the limits of this user"))?;
    let done = runtime.block_on(run);
    // Whoever still reads standard input would be waited for otherwise.
    runtime.shutdown_background();
    done
}
