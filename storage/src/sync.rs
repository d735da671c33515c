//! Sync: where locks and atomics come from: the standard library, or a model checker that tries
//! their interleavings (`--cfg loom`, `--cfg shuttle`).

#[cfg(all(not(loom), not(shuttle)))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, atomic};

#[cfg(loom)]
pub(crate) use {
    loom::sync::{Condvar, Mutex, MutexGuard, atomic},
    std::sync::PoisonError,
};

#[cfg(shuttle)]
pub(crate) use {
    shuttle::sync::{Condvar, Mutex, MutexGuard, atomic},
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
