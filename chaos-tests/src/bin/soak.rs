//! soak: seeds, one after the other, until one breaks a promise; prints the line that replays it.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

use std::process::ExitCode;
use std::time::Instant;

use chaos_tests::mutation::{PLANTED, Planted};
use chaos_tests::profile::{NAMES, Profile};
use chaos_tests::run::run;
use chaos_tests::sim::trace::Telling;

const USAGE: &str = "usage: soak --seeds A..B [--seconds 60] [--profile swarm] [--bug NAME] [--trace] \
                     [--keep-going] [--hash]";

struct Arguments {
    seeds: std::ops::Range<u64>,
    seconds: u64,
    profile: String,
    bug: Option<Planted>,
    trace: bool,
    keep_going: bool,
    hash: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut all = Arguments {
        seeds: 0..100,
        seconds: 60,
        profile: "swarm".to_owned(),
        bug: None,
        trace: false,
        keep_going: false,
        hash: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--seeds" | "--seed" => {
                let text = value()?;
                let number = |t: &str| t.parse::<u64>().map_err(|_| format!("bad seed {t:?}"));
                all.seeds = match text.split_once("..") {
                    Some((a, b)) => number(a)?..number(b)?,
                    None => number(&text)?..number(&text)? + 1,
                };
            }
            "--seconds" => {
                all.seconds = value()?.parse().map_err(|_| "bad --seconds".to_owned())?;
            }
            "--profile" => all.profile = value()?,
            "--bug" => {
                let name = value()?;
                let planted = PLANTED.iter().find(|p| p.name() == name);
                all.bug = Some(*planted.ok_or_else(|| format!("no such bug {name:?}"))?);
            }
            "--trace" => all.trace = true,
            "--keep-going" => all.keep_going = true,
            "--hash" => all.hash = true,
            _ => return Err(format!("unknown argument {arg:?}")),
        }
    }
    if !NAMES.contains(&all.profile.as_str()) {
        return Err(format!("no such profile {:?}; there are {NAMES:?}", all.profile));
    }
    Ok(all)
}

/// Seconds that a processor worked for this process, where the system tells: other programs on the
/// machine do not change them.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name in parentheses, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let spent = |place: usize| fields.get(place)?.parse::<f64>().ok();
    Some((spent(11)? + spent(12)?) / 100.0)
}

fn main() -> ExitCode {
    let all = match arguments() {
        Ok(all) => all,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    #[expect(clippy::disallowed_methods, reason = "measures how fast the simulator itself is")]
    let begun = Instant::now();
    let (mut seeds, mut broken, mut simulated) = (0u64, 0u64, 0u64);
    let mut requests = (0, 0, 0);
    let (mut minted, mut crashes, mut power, mut faults, mut frames, mut states, mut moves) =
        (0, 0, 0, 0, 0, 0, 0);
    let (mut gathered, mut told) = (0, 0);
    for seed in all.seeds.clone() {
        let Some(mut profile) = Profile::draw(&all.profile, seed, all.seconds) else { continue };
        if let Some(planted) = &all.bug {
            planted.plant(&mut profile);
        }
        let telling = if all.trace { Telling::Print } else { Telling::Silent };
        let outcome = run(&profile, telling);
        seeds += 1;
        simulated += outcome.simulated;
        requests.0 += outcome.requests.0;
        requests.1 += outcome.requests.1;
        requests.2 += outcome.requests.2;
        minted += outcome.minted;
        crashes += outcome.tally.crashes;
        power += outcome.tally.power_losses;
        faults += outcome.tally.faults;
        frames += outcome.tally.frames;
        states += outcome.tally.states;
        moves += outcome.tally.moves;
        gathered += outcome.tally.gathered;
        told += outcome.tally.told;
        if all.hash {
            println!("seed {seed} hash {:016x}", outcome.hash);
        }
        if let Some(violation) = outcome.broken {
            broken += 1;
            println!("seed {seed}: BROKEN {}: {}", violation.promise, violation.text);
            let bug = all.bug.map(|b| format!(" --bug {}", b.name())).unwrap_or_default();
            println!(
                "replay: cargo run --release -p chaos-tests --bin soak -- --seeds {seed}..{} \
                 --seconds {} --profile {}{bug} --trace",
                seed + 1,
                all.seconds,
                all.profile
            );
            if !all.keep_going {
                if !all.trace {
                    for line in run(&profile, Telling::Tail).tail.iter().rev().take(40).rev() {
                        println!("  {line}");
                    }
                }
                break;
            }
        }
    }
    let wall = begun.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds, {broken} broken; {} done, {} refused, {} in doubt; {minted} mutations; \
         {faults} faults, {crashes} crashes, {power} power losses; {frames} frames, {states} states; \
         {:.0} simulated s in {wall:.1} s: {:.0} a second, {:.0} a second of a processor; {moves} moves, \
         {gathered} gathered, {told} told by replicas",
        requests.0,
        requests.1,
        requests.2,
        simulated as f64 / 1e9,
        simulated as f64 / 1e9 / wall.max(0.001),
        simulated as f64 / 1e9 / cpu_seconds().unwrap_or(wall).max(0.001)
    );
    if broken > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
