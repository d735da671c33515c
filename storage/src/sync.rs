//! Sync: where locks and atomics come from: the standard library, or a model checker that tries
//! their interleavings (`--cfg loom`, `--cfg shuttle`). `Counted` is `Arc`, where a model has to see
//! who holds something last.

#[cfg(all(not(loom), not(shuttle)))]
pub(crate) use std::{
    sync::{Arc as Counted, Condvar, Mutex, MutexGuard, PoisonError, atomic},
    thread::yield_now,
};

#[cfg(all(target_os = "linux", not(loom), not(shuttle)))]
use rustix::thread::futex;

#[cfg(loom)]
pub(crate) use {
    loom::sync::{Arc as Counted, Condvar, Mutex, MutexGuard, atomic},
    loom::thread::yield_now,
    std::sync::PoisonError,
};

#[cfg(shuttle)]
pub(crate) use {
    shuttle::sync::{Arc as Counted, Condvar, Mutex, MutexGuard, atomic},
    shuttle::thread::yield_now,
    std::sync::PoisonError,
};

/// A static of the process; models begin each execution with a new one.
#[cfg(not(any(loom, shuttle)))]
macro_rules! process_wide {
    ($(#[$about:meta])* static $name:ident: $type:ty = $value:expr;) => {
        $(#[$about])* static $name: $type = $value;
    };
}

#[cfg(loom)]
macro_rules! process_wide {
    ($(#[$about:meta])* static $name:ident: $type:ty = $value:expr;) => {
        loom::lazy_static! { $(#[$about])* static ref $name: $type = $value; }
    };
}

#[cfg(shuttle)]
macro_rules! process_wide {
    ($(#[$about:meta])* static $name:ident: $type:ty = $value:expr;) => {
        shuttle::lazy_static! { $(#[$about])* static ref $name: $type = $value; }
    };
}

pub(crate) use process_wide;

/// Stands beside memory that is filled before others may read it, and taken away when nobody can any
/// more: loom says where one of these accesses does not happen before the other. Elsewhere it is
/// nothing, in no bytes.
pub(crate) struct Watch(#[cfg(loom)] loom::cell::UnsafeCell<()>);

impl Watch {
    /// The memory is filled.
    #[inline]
    pub(crate) fn new() -> Self {
        let watch = Self(
            #[cfg(loom)]
            loom::cell::UnsafeCell::new(()),
        );
        // An access of its own: one that is made after the memory was published counts as later.
        watch.end();
        watch
    }

    /// Somebody reads it, who must know that it was filled.
    #[inline]
    pub(crate) fn read(&self) {
        #[cfg(loom)]
        self.0.with(|_| ());
    }

    /// It is taken away, by who must know that all who read it are done.
    #[inline]
    pub(crate) fn end(&self) {
        #[cfg(loom)]
        self.0.with_mut(|_| ());
    }
}

/// The lock, also after a holder panicked: what it guards is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on `condvar`, as [`lock`] does.
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// What many sleep on, and who ends what they wait for wakes all of them with one call. To sleep one
/// says how often it had rung when there was still something to wait for; so a ring in between is
/// not missed. It may wake without a reason: whoever wakes looks again.
#[cfg(all(target_os = "linux", not(loom), not(shuttle)))]
#[derive(Default)]
pub(crate) struct Bell(atomic::AtomicU32);

#[cfg(all(target_os = "linux", not(loom), not(shuttle)))]
impl Bell {
    /// How often it has rung.
    pub(crate) fn rings(&self) -> u32 {
        self.0.load(atomic::Ordering::Acquire)
    }

    /// Sleeps until it has rung more than `heard` times.
    pub(crate) fn rest(&self, heard: u32) {
        // It has rung, or a signal came: either is a reason to look again.
        let _ = futex::wait(&self.0, futex::Flags::PRIVATE, heard, None);
    }

    /// Wakes one of those who rest.
    pub(crate) fn ring_for_one(&self) {
        self.ring(1);
    }

    /// Wakes all who rest.
    pub(crate) fn ring_for_all(&self) {
        self.ring(i32::MAX.unsigned_abs());
    }

    fn ring(&self, sleepers: u32) {
        self.0.fetch_add(1, atomic::Ordering::Release);
        // Cannot fail: the word is there, and so is the flag.
        let _ = futex::wake(&self.0, futex::Flags::PRIVATE, sleepers);
    }
}

/// The same out of what model checkers know well, and every system has.
#[cfg(any(not(target_os = "linux"), loom, shuttle))]
#[derive(Default)]
pub(crate) struct Bell(Mutex<u32>, Condvar);

#[cfg(any(not(target_os = "linux"), loom, shuttle))]
impl Bell {
    pub(crate) fn rings(&self) -> u32 {
        *lock(&self.0)
    }

    pub(crate) fn rest(&self, heard: u32) {
        let mut rings = lock(&self.0);
        while *rings == heard {
            rings = wait(&self.1, rings);
        }
    }

    pub(crate) fn ring_for_one(&self) {
        self.count();
        self.1.notify_one();
    }

    pub(crate) fn ring_for_all(&self) {
        self.count();
        self.1.notify_all();
    }

    fn count(&self) {
        let mut rings = lock(&self.0);
        *rings = rings.wrapping_add(1);
    }
}
