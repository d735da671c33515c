//! Words: what shells may offer for a value that is more than a choice of words.

use std::error::Error;
use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Command};

/// Levels by their names; a number is a level too.
pub(super) const LEVELS: &[&str] = &["one", "two", "three", "quorum", "all"];

/// Whom a certificate may be for.
pub(super) const ROLES: &[&str] = &["node", "client", "admin"];

/// A parser that says what a shell may offer. It alone says what does.
#[derive(Clone)]
pub(super) struct Words<P> {
    parser: P,
    words: &'static [&'static str],
}

impl<P> Words<P> {
    /// What `parser` takes, of which shells offer `words`.
    pub(super) const fn of(parser: P, words: &'static [&'static str]) -> Self {
        Self { parser, words }
    }
}

impl<P, T, E> TypedValueParser for Words<P>
where
    P: Fn(&str) -> Result<T, E> + Clone + Send + Sync + 'static,
    E: Into<Box<dyn Error + Send + Sync + 'static>>,
    T: Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        self.parser.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.words.iter().map(|word| PossibleValue::new(*word))))
    }
}
