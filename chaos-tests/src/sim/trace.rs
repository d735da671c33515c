//! Trace: what happened, as a hash that two equal runs share and, on request, as text.

use std::collections::VecDeque;
use std::fmt;

use super::clock::MS;

/// How many lines the tail keeps.
const TAIL_LINES: usize = 200;

/// What is done with the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Nothing: only the hash is kept.
    Silent,
    /// The last lines are kept, to be printed when a promise is broken.
    Tail,
    /// Every line is printed at once.
    Print,
}

/// The trace of a run.
pub struct Trace {
    hash: u64,
    telling: Telling,
    tail: VecDeque<String>,
}

impl Trace {
    /// An empty trace.
    #[must_use]
    pub const fn new(telling: Telling) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, telling, tail: VecDeque::new() }
    }

    /// Mixes numbers that say what happened into the hash.
    pub fn mix(&mut self, numbers: &[u64]) {
        for n in numbers {
            self.hash = (self.hash ^ n).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
        }
    }

    /// True if text is wanted at all.
    #[must_use]
    pub fn wants_text(&self) -> bool {
        self.telling != Telling::Silent
    }

    /// Adds a line.
    pub fn tell(&mut self, now: u64, line: fmt::Arguments<'_>) {
        let text = || format!("{:>10}.{:03} {line}", now / MS, now % MS / 1_000);
        match self.telling {
            Telling::Silent => {}
            Telling::Tail => {
                if self.tail.len() == TAIL_LINES {
                    self.tail.pop_front();
                }
                self.tail.push_back(text());
            }
            #[expect(clippy::print_stderr, reason = "this is what --trace asks for")]
            Telling::Print => eprintln!("{}", text()),
        }
    }

    /// The hash so far.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }
}
