//! Terms: what may be said of a request beside what it asks. Every kind of request has the same words
//! for it, written down once.

use core::time::Duration;

use wire::{Durability, Level};

use crate::name::Name;
use crate::session::Session;

/// What was said of a request.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) level: Option<Level>,
    pub(crate) durability: Option<Durability>,
    pub(crate) timeout: Duration,
    pub(crate) session: Option<Session>,
    pub(crate) name: Option<Name>,
    /// It is done page by page, and a coordinator says where a page ends.
    pub(crate) paged: bool,
}

impl Terms {
    /// Nothing was said yet.
    pub(crate) const fn new(timeout: Duration) -> Self {
        Self { level: None, durability: None, timeout, session: None, name: None, paged: false }
    }

    /// Whether the replicas of such a write may tell of it: one copy must not be enough, nor must it matter where
    /// the copies are, nor must they survive the loss of power. What a keyspace wants is the node's to know.
    pub(crate) const fn may_be_told(&self) -> bool {
        let level = match self.level {
            None | Some(Level::Two | Level::Three | Level::Quorum | Level::All) => true,
            Some(Level::Count(count)) => count > 1,
            Some(_) => false,
        };
        level && !self.paged && !matches!(self.durability, Some(Durability::Sync))
    }
}

/// Gives a request, which has `terms`, the methods that set them.
macro_rules! terms {
    ($request:ty: $($term:ident),+) => {
        impl $request {
            $($crate::terms::terms!(@$term);)+
        }
    };
    (@consistency) => {
        /// How many replicas must agree on what is read, or hold what is written; the keyspace's
        /// default if it is not said.
        pub fn consistency(mut self, level: wire::Level) -> Self {
            self.terms.level = Some(level);
            self
        }
    };
    (@durability) => {
        /// What a replica's acknowledgement survives; the keyspace's default if it is not said.
        pub fn durability(mut self, durability: wire::Durability) -> Self {
            self.terms.durability = Some(durability);
            self
        }
    };
    (@timeout) => {
        /// How long it may take; the node hears of it.
        pub fn timeout(mut self, timeout: core::time::Duration) -> Self {
            self.terms.timeout = timeout;
            self
        }
    };
    (@session) => {
        /// What the program has seen in this session is not gone back behind, and what it sees now
        /// counts as seen.
        pub fn session(mut self, session: &$crate::Session) -> Self {
            self.terms.session = Some(session.clone());
            self
        }
    };
    (@named) => {
        /// Its name: sent again under the same one, it is done once. Without it, the request has a
        /// name of its own, under which only the client sends it again.
        pub fn named(mut self, name: &$crate::Name) -> Self {
            self.terms.name = Some(name.clone());
            self
        }
    };
    (@context) => {
        /// What the writer has read: the write replaces that, and nothing that was written since.
        /// Without it, what the coordinator holds is replaced.
        pub fn context(mut self, context: $crate::Context) -> Self {
            self.context = Some(context);
            self
        }
    };
}
pub(crate) use terms;
