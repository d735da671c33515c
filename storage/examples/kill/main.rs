//! kill: a writer that is killed again and again, and a reader that looks what is left each time.
//!
//! The writer keeps a ledger beside the store: for every key what it is about to become, written
//! before the engine is told, and what it has become, written after the engine said that it survives
//! the death of the process. So after a kill every key is what was promised, or what was about to
//! be; batches are there whole or not at all; and of those that nobody promised, a later one is there
//! only if the earlier ones are.
//!
//! ```text
//! cargo run --release -p ringdb-storage --example kill -- --rounds 40 --seconds 60 --seed 1
//! ```
//!
//! With `--bug early` the writer promises before the engine does: the reader must notice.

mod ledger;
mod verify;
mod writer;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Steele, Lea and Flood's SplitMix64.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

pub(crate) struct Arguments {
    rounds: u64,
    seconds: u64,
    pub(crate) seed: u64,
    /// Promise before the engine does.
    pub(crate) early: bool,
    pub(crate) directory: Option<PathBuf>,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut parsed = Arguments { rounds: 40, seconds: 60, seed: 1, early: false, directory: None };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} wants a value"))?;
        let number = || value.parse::<u64>().map_err(|e| format!("{word} {value}: {e}"));
        match word.as_str() {
            "--rounds" => parsed.rounds = number()?,
            "--seconds" => parsed.seconds = number()?,
            "--seed" => parsed.seed = number()?,
            "--bug" if value == "early" => parsed.early = true,
            "--child" => parsed.directory = Some(PathBuf::from(value)),
            _ => return Err(format!("{word} {value} is not known")),
        }
    }
    Ok(parsed)
}

fn main() -> ExitCode {
    let done = parse(std::env::args().skip(1)).and_then(|arguments| match &arguments.directory {
        Some(directory) => writer::write(directory, &arguments).map(|()| String::new()),
        None => kill_again_and_again(&arguments),
    });
    match done {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn kill_again_and_again(arguments: &Arguments) -> Result<String, String> {
    let directory = std::env::temp_dir().join(format!("ringdb-kill-{}", std::process::id()));
    std::fs::create_dir_all(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    let began = Instant::now();
    let mut chance = Chance(arguments.seed);
    let mut sum = verify::Counts::default();
    let mut rounds = 0;
    while rounds < arguments.rounds && began.elapsed() < Duration::from_secs(arguments.seconds) {
        run_and_kill(&directory, arguments, &mut chance)?;
        let round = verify::verify(&directory, chance.next())
            .map_err(|e| format!("round {rounds} of seed {}: {e}", arguments.seed))?;
        sum.add(&round);
        rounds += 1;
    }
    std::fs::remove_dir_all(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    if rounds == 0 || sum.rows == 0 || sum.promised == 0 {
        return Err("no round wrote anything: nothing was shown".to_owned());
    }
    Ok(format!("{rounds} kills in {} s, nothing lost: {sum}", began.elapsed().as_secs()))
}

/// Starts a writer and kills it at a random moment, sometimes while it still recovers.
fn run_and_kill(
    directory: &Path,
    arguments: &Arguments,
    chance: &mut Chance,
) -> Result<(), String> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new(me);
    command.arg("--child").arg(directory).args(["--seed", &chance.next().to_string()]);
    if arguments.early {
        command.args(["--bug", "early"]);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    if chance.below(8) == 0 {
        std::thread::sleep(Duration::from_micros(chance.below(20_000)));
    } else {
        let out = child.stdout.take().ok_or("the writer has no output")?;
        let mut ready = String::new();
        BufReader::new(out).read_line(&mut ready).map_err(|e| e.to_string())?;
        if ready.trim() != "ready" {
            let status = child.wait().map_err(|e| e.to_string())?;
            return Err(format!("the writer did not begin: {status}"));
        }
        std::thread::sleep(Duration::from_millis(20 + chance.below(400)));
    }
    if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
        return Err(format!("the writer ended by itself: {status}"));
    }
    // SIGKILL: nothing of the writer runs any more.
    child.kill().map_err(|e| e.to_string())?;
    child.wait().map(|_| ()).map_err(|e| e.to_string())
}
