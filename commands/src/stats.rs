//! Stats: what has been counted of commands on one core; sums over cores are made by [`Stats::add`].

use std::collections::BTreeMap;

use crate::limits::ERROR_CODES_MAX;
use crate::table;

/// What has been counted of one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandCount {
    /// How often it was carried out.
    pub calls: u64,
    /// Microseconds from its arrival to its answer, summed.
    pub micros: u64,
    /// How often it was refused before it began.
    pub rejected: u64,
    /// How often it began and answered with an error.
    pub failed: u64,
}

/// Counters of one core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// By the command's place in the command table.
    commands: Vec<CommandCount>,
    /// Answers by error code.
    errors: BTreeMap<String, u64>,
    /// Reads that found a value.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Transactions whose keys lie in several slots.
    pub cross_slot_tx: u64,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            commands: vec![CommandCount::default(); table::TABLE.len()],
            errors: BTreeMap::new(),
            hits: 0,
            misses: 0,
            cross_slot_tx: 0,
        }
    }
}

impl Stats {
    /// The counters of every command that was ever asked for, by name.
    pub fn commands(&self) -> impl Iterator<Item = (&'static str, &CommandCount)> {
        let asked = |(_, c): &(&'static str, &CommandCount)| **c != CommandCount::default();
        table::TABLE.iter().map(|spec| spec.name).zip(&self.commands).filter(asked)
    }

    /// Answers with an error, by the error's code.
    #[must_use]
    pub const fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }

    /// Commands carried out.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.commands.iter().map(|c| c.calls).sum()
    }

    /// Sums up two cores.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.commands.iter_mut().zip(&other.commands) {
            mine.calls += theirs.calls;
            mine.micros += theirs.micros;
            mine.rejected += theirs.rejected;
            mine.failed += theirs.failed;
        }
        for (code, count) in &other.errors {
            self.count_errors(code, *count);
        }
        self.hits += other.hits;
        self.misses += other.misses;
        self.cross_slot_tx += other.cross_slot_tx;
    }

    pub(crate) fn called(&mut self, place: usize, micros: u64, failed: bool) {
        let count = &mut self.commands[place];
        count.calls += 1;
        count.micros += micros;
        count.failed += u64::from(failed);
    }

    /// It was refused because of overload.
    pub(crate) fn shed(&mut self, place: usize) {
        self.rejected(place);
        self.count_errors("OVERLOADED", 1);
    }

    pub(crate) fn rejected(&mut self, place: usize) {
        self.commands[place].rejected += 1;
    }

    /// Counts an encoded error reply by its code.
    pub(crate) fn errored(&mut self, reply: &[u8]) {
        let end = reply.iter().position(|b| matches!(b, b' ' | b'\r')).unwrap_or(reply.len());
        let code = String::from_utf8_lossy(reply.get(1..end).unwrap_or_default());
        self.count_errors(&code, 1);
    }

    fn count_errors(&mut self, code: &str, by: u64) {
        if let Some(count) = self.errors.get_mut(code) {
            *count += by;
        } else if self.errors.len() < ERROR_CODES_MAX {
            self.errors.insert(code.to_owned(), by);
        }
    }
}
