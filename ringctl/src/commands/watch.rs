//! Watch: a command again and again, until somebody stops it. A cluster that is away for a while is no
//! reason to stop.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::args::{Args, Format};
use crate::failure::{Exit, Failure};
use crate::{print, style};

/// Carries a command out once, or once in every `every`.
pub(crate) async fn again<F>(
    args: &Args,
    every: Option<Duration>,
    once: impl Fn() -> F,
) -> Result<Exit, Failure>
where
    F: Future<Output = Result<Exit, Failure>>,
{
    let Some(every) = every else { return once().await };
    let for_people = matches!(args.output, Format::Table | Format::Wide);
    let (before, after) = match (for_people, style(args).colour) {
        (false, _) => ("", ""),
        (true, true) => ("\x1b[H\x1b[2J", ""),
        (true, false) => ("", "\n"),
    };
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Fine),
        }
        print(before);
        let done = tokio::select! {
            done = once() => done,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Fine),
        };
        match done {
            Ok(_) => print(after),
            Err(failure) if failure.exit == Exit::Usage => return Err(failure),
            Err(failure) => eprintln!("{failure}"),
        }
    }
}
