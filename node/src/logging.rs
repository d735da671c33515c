//! Logging: what goes to standard error, and how much of it, which may be changed while the node runs.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::error::Fault;

type Change = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send>;

/// What holds, and how it is changed; nothing before [`start`].
static LEVEL: Mutex<Option<(String, Change)>> = Mutex::new(None);

/// Redis's names of levels, and ours.
const OF_REDIS: [(&str, &str); 4] =
    [("debug", "debug"), ("verbose", "info"), ("notice", "info"), ("warning", "warn")];

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What may be said, for a person.
pub const POSSIBLE: &str = "error, warn, info, debug, or directives such as info,ringdb_node=debug";

/// What `level` asks for: a level of ours or of Redis, or directives for single modules.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let named = OF_REDIS.iter().find(|(name, _)| name.eq_ignore_ascii_case(level));
    let wanted = named.map_or(level, |(_, ours)| ours);
    // A word that is no level would be taken for a module that shall be logged.
    let is_level = |directive: &str| {
        let word = directive.rsplit('=').next().unwrap_or_default();
        LEVELS.iter().any(|known| known.eq_ignore_ascii_case(word))
    };
    // Blanks that are not ASCII make the parser of directives panic.
    if !wanted.is_ascii() || !wanted.split(',').all(is_level) {
        return Err(format!("{level:?} is no level"));
    }
    EnvFilter::try_new(wanted).map_err(|e| e.to_string())
}

/// Whether [`start`] and [`set`] would take it.
///
/// # Errors
/// Why not, for a person.
pub fn check(level: &str) -> Result<(), String> {
    filter(level).map(drop)
}

/// Begins to log. `level` is a level of ours or of Redis, or directives for single modules.
///
/// # Errors
/// A [`Fault`] if it is none of these.
pub fn start(level: &str) -> Result<(), Fault> {
    let filter = filter(level).map_err(|why| {
        Fault::new(format!("log.level cannot be {level:?}"), why, format!("use {POSSIBLE}"))
    })?;
    let colour = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_env_filter(filter)
        .with_filter_reloading();
    let handle = builder.reload_handle();
    builder.init();
    let change: Change = Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string()));
    *LEVEL.lock().unwrap_or_else(PoisonError::into_inner) = Some((level.to_owned(), change));
    Ok(())
}

/// Changes what is logged: a level of ours or of Redis, or directives.
///
/// # Errors
/// Why not, for a person.
pub fn set(level: &str) -> Result<(), String> {
    let filter = filter(level).map_err(|why| format!("{why}. fix: {POSSIBLE}"))?;
    let mut guard = LEVEL.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((holds, change)) = &mut *guard else { return Err("nothing is logged".to_owned()) };
    change(filter)?;
    *holds = level.to_owned();
    drop(guard);
    info!(level, "the level of the log was changed");
    Ok(())
}

/// What holds, as it was said.
#[must_use]
pub fn level() -> String {
    let guard = LEVEL.lock().unwrap_or_else(PoisonError::into_inner);
    guard.as_ref().map(|(level, _)| level.clone()).unwrap_or_default()
}
