//! Name: what makes a request the same request when it is sent again.
//!
//! A node that was asked under a name remembers it for half a minute, and so does every replica that
//! took the write in. Only the process that was asked first may carry it out; whoever else is asked can but
//! confirm it. A request that certainly was not done gets another number, so that it may be tried anew.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::NodeId;
use tokio::time::Instant;

use crate::link::Link;

/// The names that one client gives.
#[derive(Debug)]
pub(crate) struct Names {
    client: u64,
    given: AtomicU64,
}

/// By chance: hashers are seeded so, and that is all that is wanted.
fn number() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
}

impl Names {
    pub(crate) fn new() -> Self {
        Self { client: number(), given: AtomicU64::new(0) }
    }

    /// The client's number in the names, and in its hellos: so replicas know whom to tell of its writes.
    pub(crate) const fn client(&self) -> u64 {
        self.client
    }

    fn next(&self) -> u64 {
        self.given.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A request's name, made by [`Client::name`](crate::Client::name). Use it for one request, and again
/// only to repeat that, within twenty seconds.
#[derive(Clone, Debug)]
pub struct Name {
    names: Arc<Names>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    n: u64,
    /// To whom it was sent first: the node, the start of its process, and when.
    first: Option<(NodeId, u64, Instant)>,
}

impl Name {
    pub(crate) fn new(names: &Arc<Names>) -> Self {
        let state = Mutex::new(State { n: names.next(), first: None });
        Self { names: names.clone(), state: Arc::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name as it goes over this link, and whether it was never sent before. `direct`: the replicas'
    /// acknowledgements are awaited.
    pub(crate) fn over(&self, link: &Link, direct: bool) -> (wire::Name, bool) {
        let mut state = self.lock();
        let is_first = state.first.is_none();
        let answer = link.answer();
        let (_, first_asked, at) =
            *state.first.get_or_insert_with(|| (answer.node, answer.boot, Instant::now()));
        let age_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (client, n) = (self.names.client, state.n);
        (wire::Name { client, n, age_ms, first_asked, direct }, is_first)
    }

    /// Whether the process at the other end is the one that was asked first.
    pub(crate) fn is_first_asked(&self, link: &Link) -> bool {
        self.lock().first.is_some_and(|(_, boot, _)| boot == link.answer().boot)
    }

    /// Whether the node at the other end is in place of the process that was asked first.
    pub(crate) fn is_of_successor(&self, link: &Link) -> bool {
        let answer = link.answer();
        self.lock().first.is_some_and(|(node, boot, _)| node == answer.node && boot != answer.boot)
    }

    /// Whether somebody may have carried it out.
    pub(crate) fn is_sent(&self) -> bool {
        self.lock().first.is_some()
    }

    /// It has not left.
    pub(crate) fn unsend(&self) {
        self.lock().first = None;
    }

    /// It was not done, and will not be: what is asked next is another request.
    pub(crate) fn renew(&self) {
        *self.lock() = State { n: self.names.next(), first: None };
    }
}
