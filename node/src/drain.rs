//! The drain: what a node that ends still waits for, in numbers and in words.

use std::fmt;
use std::iter::Sum;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a drain waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Requests that have no answer yet.
    pub requests: usize,
    /// Clients that have not taken all of their replies.
    pub clients: usize,
}

impl Waits {
    /// Whether there is nothing left to wait for.
    #[must_use]
    pub fn is_over(&self) -> bool {
        *self == Self::default()
    }
}

impl Sum for Waits {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            requests: a.requests + b.requests,
            clients: a.clients + b.clients,
        })
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |count: usize| if count == 1 { "" } else { "s" };
        let Self { requests, clients } = *self;
        write!(f, "{requests} request{}, {clients} client{}", s(requests), s(clients))
    }
}

/// What one core waits for, as it said last; other threads read it.
#[derive(Debug, Default)]
pub struct Told {
    requests: AtomicUsize,
    clients: AtomicUsize,
}

impl Told {
    /// The core says it anew.
    pub fn tell(&self, waits: Waits) {
        self.requests.store(waits.requests, Ordering::Relaxed);
        self.clients.store(waits.clients, Ordering::Relaxed);
    }

    /// What it said last; nothing before its drain begins.
    #[must_use]
    pub fn last(&self) -> Waits {
        Waits {
            requests: self.requests.load(Ordering::Relaxed),
            clients: self.clients.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cores_together_are_told_in_words() {
        let cores = [Told::default(), Told::default()];
        let all = || cores.iter().map(Told::last).sum::<Waits>();
        assert!(all().is_over());
        cores[0].tell(Waits { requests: 1, clients: 2 });
        cores[1].tell(Waits { requests: 2, clients: 0 });
        assert_eq!(all().to_string(), "3 requests, 2 clients");
        cores[0].tell(Waits { requests: 0, clients: 1 });
        cores[1].tell(Waits { requests: 1, clients: 0 });
        assert_eq!(all().to_string(), "1 request, 1 client");
    }
}
