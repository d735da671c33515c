//! engines: the storage engine, RocksDB, fjall and redb under the same workloads, side by side.
//!
//! Each measurement runs in a process of its own, so that memory and recovery are its own; rounds go
//! through all engines in turn, so that a busy moment of the machine meets them all. Every put that
//! is not synced is in the page cache when it returns, except redb's (see `engines`).
//! Waits are those of a closed loop. 16-byte keys; values of which LZ4 removes a half.

mod engines;
mod measure;
mod report;
mod rows;
mod workload;

use clap::{Parser, ValueEnum};
use engines::{Name, Store};
use measure::Figures;
use report::Rounds;
use rows::{Row, Scale};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

#[derive(Parser, Debug, Clone)]
#[command(about = "Measures the storage engine beside RocksDB, fjall and redb")]
#[command(args_override_self = true)]
struct Arguments {
    /// Rows of the base store.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Times that everything is measured; engines take turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only these rows (the base store is made when one wants it).
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Row>,
    /// Only these engines.
    #[arg(long, value_enum, value_delimiter = ',')]
    engines: Vec<Name>,
    /// Size at which a memtable is flushed.
    #[arg(long, default_value_t = 64 << 20)]
    memtable_bytes: usize,
    /// Most seconds of a synced row.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Little of everything: says that the harness works, not how fast anything is.
    #[arg(long)]
    smoke: bool,
    /// Where the stores are made; what is there of an earlier run is removed.
    #[arg(long, default_value = "target/stores")]
    directory: PathBuf,
    /// Where the figures of all rounds are written.
    #[arg(long, default_value = "target/engines.json")]
    json: PathBuf,
    /// Prints the figures of earlier runs, together, and measures nothing.
    #[arg(long, value_delimiter = ',')]
    show: Vec<PathBuf>,
    /// Measures one row in this process, on the store in `--directory`.
    #[arg(long, hide = true)]
    child: Option<Row>,
    /// Writes what `recovery` opens, and dies.
    #[arg(long, hide = true)]
    die: bool,
}

impl Arguments {
    fn scale(&self) -> Scale {
        let Self { keys, memtable_bytes, seconds, .. } = *self;
        Scale { keys, memtable_bytes, seconds }
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if let (Some(row), [engine]) = (arguments.child, &*arguments.engines) {
        match engine {
            Name::Ours => child::<engines::ours::Ours>(&arguments, row),
            Name::Rocksdb => child::<engines::rocks::Rocks>(&arguments, row),
            Name::Fjall => child::<engines::fjall::Fjall>(&arguments, row),
            Name::Redb => child::<engines::redb::Redb>(&arguments, row),
        }
        return ExitCode::SUCCESS;
    }
    let rounds = if arguments.show.is_empty() {
        prepare(&mut arguments);
        measure_all(&arguments)
    } else {
        read_json(&arguments.show)
    };
    match rounds {
        Ok(rounds) => {
            println!("{}\n{}", report::ratios_table(&rounds), report::table(&rounds));
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Fills in what follows from what was asked, and says what is missing.
fn prepare(arguments: &mut Arguments) {
    if arguments.smoke {
        arguments.keys = arguments.keys.min(20_000);
        arguments.memtable_bytes = 1 << 20;
        arguments.rounds = 1;
        arguments.seconds = 0.2;
    }
    if arguments.engines.is_empty() {
        arguments.engines = Name::value_variants().to_vec();
    }
    if !engines::rocks::ffi::is_there() {
        eprintln!("SKIPPED: RINGDB_ROCKSDB_SO names no library (see fetch-rocksdb.sh): no RocksDB");
        arguments.engines.retain(|name| *name != Name::Rocksdb);
    } else if let Some(ns) = engines::rocks::ffi::crc32c_ns(140) {
        eprintln!("RocksDB's checksum of a log record of 140 bytes takes {ns:.0} ns");
    }
}

/// One measurement: the figures go to the standard output.
fn child<S: Store>(arguments: &Arguments, row: Row) {
    if arguments.die {
        rows::fill_and_die::<S>(&arguments.directory, arguments.scale());
    }
    let figures = rows::run::<S>(row, &arguments.directory, arguments.scale());
    println!("{}", serde_json::to_string(&figures).expect("numbers are JSON"));
}

fn measure_all(arguments: &Arguments) -> Result<Rounds, String> {
    let wanted = |row: &Row| arguments.only.is_empty() || arguments.only.contains(row);
    let rows: Vec<Row> = Row::value_variants().iter().copied().filter(wanted).collect();
    let mut processes: Vec<Row> = rows.iter().map(|row| row.process()).collect();
    processes.dedup();
    if processes.iter().any(|row| row.reads_base()) && processes[0] != Row::Fill {
        processes.insert(0, Row::Fill);
    }
    let mut rounds = Rounds::new();
    for round in 0..arguments.rounds {
        for row in &processes {
            // Another one begins each time.
            let engines = arguments.engines.iter().cycle().skip(round % arguments.engines.len());
            for engine in engines.take(arguments.engines.len()) {
                eprintln!(
                    "round {} of {}: {}: {}",
                    round + 1,
                    arguments.rounds,
                    engine.text(),
                    row.text()
                );
                for (row, figures) in measure(arguments, *engine, *row)? {
                    if rows.contains(&row) {
                        rounds.entry(row).or_default().entry(*engine).or_default().push(figures);
                    }
                }
            }
            // After each row, so that a run that is stopped was not for nothing.
            write_json(arguments, &rounds)?;
        }
    }
    Ok(rounds)
}

fn measure(arguments: &Arguments, engine: Name, row: Row) -> Result<Vec<(Row, Figures)>, String> {
    let own = arguments.directory.join(engine.text());
    let base = row == Row::Fill || row.reads_base();
    let directory = own.join(if base { "base" } else { "other" });
    if row == Row::Fill || !base {
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&own).map_err(|e| format!("{}: {e}", own.display()))?;
    }
    if row == Row::Recovery {
        // It kills itself: nothing comes back.
        run_child(arguments, engine, row, &directory, true)?;
    }
    let out = run_child(arguments, engine, row, &directory, false)?;
    if !base {
        let _ = std::fs::remove_dir_all(&directory);
    }
    serde_json::from_str(&out).map_err(|e| format!("{} {}: {e}", engine.text(), row.text()))
}

fn run_child(
    arguments: &Arguments,
    engine: Name,
    row: Row,
    directory: &Path,
    die: bool,
) -> Result<String, String> {
    let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
        value().map(|v| v.get_name().to_owned()).unwrap_or_default()
    };
    let mut command = Command::new(std::env::current_exe().map_err(|e| e.to_string())?);
    command.args(["--child", &name(&|| row.to_possible_value())]);
    command.args(["--engines", &name(&|| engine.to_possible_value())]);
    command.args(["--keys", &arguments.keys.to_string()]);
    command.args(["--memtable-bytes", &arguments.memtable_bytes.to_string()]);
    command.args(["--seconds", &arguments.seconds.to_string()]);
    command.arg("--directory").arg(directory);
    if die {
        command.arg("--die");
    }
    let done = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let done = done.map_err(|e| e.to_string())?;
    if !done.status.success() && !die {
        return Err(format!("{} {}: {}", engine.text(), row.text(), done.status));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// What is kept of a run.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    keys: u64,
    memtable_bytes: usize,
    rows: Rounds,
}

fn write_json(arguments: &Arguments, rounds: &Rounds) -> Result<(), String> {
    let Arguments { keys, memtable_bytes, .. } = *arguments;
    let kept = Kept { keys, memtable_bytes, rows: rounds.clone() };
    let text = serde_json::to_string_pretty(&kept).map_err(|e| e.to_string())?;
    if let Some(parent) = arguments.json.parent() {
        std::fs::create_dir_all(parent).map_err(|e| e.to_string())?;
    }
    std::fs::write(&arguments.json, text).map_err(|e| format!("{}: {e}", arguments.json.display()))
}

/// The rounds of earlier runs, together.
fn read_json(paths: &[PathBuf]) -> Result<Rounds, String> {
    let mut all = Rounds::new();
    for path in paths {
        let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| failed(&e))?;
        let kept: Kept = serde_json::from_str(&text).map_err(|e| failed(&e))?;
        for (row, engines) in kept.rows {
            for (name, rounds) in engines {
                all.entry(row).or_default().entry(name).or_default().extend(rounds);
            }
        }
    }
    Ok(all)
}
