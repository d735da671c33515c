//! Sync: where locks and atomics come from: the standard library, or a model checker that tries
//! their interleavings (`--cfg loom`, `--cfg shuttle`).

#[cfg(all(not(loom), not(shuttle)))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError, atomic},
    thread::yield_now,
};

#[cfg(loom)]
pub(crate) use {
    loom::sync::{Condvar, Mutex, MutexGuard, atomic},
    loom::thread::yield_now,
    std::sync::PoisonError,
};

#[cfg(shuttle)]
pub(crate) use {
    shuttle::sync::{Condvar, Mutex, MutexGuard, atomic},
    shuttle::thread::yield_now,
    std::sync::PoisonError,
};

/// The lock, also after a holder panicked: what it guards is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on `condvar`, as [`lock`] does.
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// The thread that made it, for those who are to wake it. A call to wake while it does not sleep is
/// kept for the next time; so it may wake without a reason, and looks again.
#[cfg(all(not(loom), not(shuttle)))]
#[derive(Clone)]
pub(crate) struct Sleeper(std::thread::Thread);

#[cfg(all(not(loom), not(shuttle)))]
impl Sleeper {
    pub(crate) fn new() -> Self {
        Self(std::thread::current())
    }

    /// Only for the thread that made it.
    #[allow(clippy::unused_self, reason = "the models' one needs it")]
    pub(crate) fn rest(&self) {
        std::thread::park();
    }

    pub(crate) fn wake(&self) {
        self.0.unpark();
    }
}

/// The same out of what model checkers know well.
#[cfg(any(loom, shuttle))]
#[derive(Clone)]
pub(crate) struct Sleeper(std::sync::Arc<(Mutex<bool>, Condvar)>);

#[cfg(any(loom, shuttle))]
impl Sleeper {
    pub(crate) fn new() -> Self {
        Self(std::sync::Arc::new((Mutex::new(false), Condvar::new())))
    }

    pub(crate) fn rest(&self) {
        let mut called = lock(&self.0.0);
        while !std::mem::take(&mut *called) {
            called = wait(&self.0.1, called);
        }
    }

    pub(crate) fn wake(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_one();
    }
}
