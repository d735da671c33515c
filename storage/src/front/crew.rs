//! Crew: the threads that a caller lends for background work, and those who wait for what they do.
//!
//! Nobody waits for time. A worker sleeps until somebody says that there may be work; whoever needs
//! the work done sleeps until some of it was. Work that failed is told to those who wait for it, and
//! tried again when somebody calls again.

use crate::error::Error;
use crate::sync::{Condvar, Mutex, lock, wait};

/// Counts what happens; a count that moved is what wakes.
#[derive(Default)]
pub(crate) struct Crew {
    state: Mutex<State>,
    work: Condvar,
    progress: Condvar,
}

#[derive(Default)]
struct State {
    workers: usize,
    closed: bool,
    /// How often somebody said that there may be work.
    calls: u64,
    /// How often a worker finished something, or failed.
    steps: u64,
    /// How the last of them failed.
    failure: Option<Error>,
}

impl Crew {
    pub(crate) fn join(&self) {
        lock(&self.state).workers += 1;
    }

    pub(crate) fn leave(&self) {
        lock(&self.state).workers -= 1;
        self.progress.notify_all();
    }

    /// True when nobody but the caller can do the work.
    pub(crate) fn is_empty(&self) -> bool {
        let state = lock(&self.state);
        state.workers == 0 || state.closed
    }

    pub(crate) fn calls(&self) -> u64 {
        lock(&self.state).calls
    }

    pub(crate) fn steps(&self) -> u64 {
        lock(&self.state).steps
    }

    /// There may be work.
    pub(crate) fn call(&self) {
        lock(&self.state).calls += 1;
        self.work.notify_all();
    }

    /// Some work was done, or could not be.
    pub(crate) fn step(&self, done: Result<(), Error>) {
        let mut state = lock(&self.state);
        state.steps += 1;
        state.failure = done.err();
        drop(state);
        self.progress.notify_all();
    }

    /// Sleeps until there may be more work than when `calls` was read; false once all should go.
    pub(crate) fn await_call(&self, calls: u64) -> bool {
        let mut state = lock(&self.state);
        while state.calls == calls && !state.closed {
            state = wait(&self.work, state);
        }
        !state.closed
    }

    /// Sleeps until a worker did something since `steps` was read, or there is none any more; how
    /// what it did failed.
    pub(crate) fn await_step(&self, steps: u64) -> Result<(), Error> {
        let mut state = lock(&self.state);
        while state.steps == steps && state.workers > 0 && !state.closed {
            state = wait(&self.progress, state);
        }
        if state.steps == steps { Ok(()) } else { state.failure.clone().map_or(Ok(()), Err) }
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.work.notify_all();
        self.progress.notify_all();
    }
}
