//! replication: how copies come to agree.
//!
//! Pure machines: an event and the time go in, effects come out; no clock, no socket, no disk, no
//! chance of their own. `replication` does not know how bytes are kept or carried: it asks for rows
//! to be loaded and changes to be applied, and for messages to be sent.
//!
//! Reading order: [`causality`] (dots and sets of dots), [`record`] (what a replica keeps of a key),
//! [`delta`] and [`fold`] (what travels and how it is folded), [`op`] (what clients ask), [`message`]
//! and [`event`] (what goes in and out), [`peer`] (the machine of one core); then how it works:
//! `slots`, `coordinator`, `replica`, `catchup`, `sweep`, `range`.

pub mod encoding;

pub mod causality;
pub mod decimal;
pub mod delta;
pub mod fold;
pub mod record;
pub mod row;

pub mod op;

pub mod event;
pub mod message;
pub mod piece;
pub mod raw;

pub mod bugs;
pub mod limits;
pub mod listing;
pub mod peer;
pub mod recovery;
pub mod stats;

mod catchup;
mod coordinator;
mod decide;
mod known;
mod range;
mod replica;
mod slab;
mod slots;
mod sweep;

pub use bugs::Bug;
pub use causality::{Dot, DotSet};
pub use delta::Delta;
pub use event::{Changes, Effect, Event, Named, Outbox, Records, RequestId, RowChange, Rows};
pub use message::Message;
pub use op::{Answer, Op, Outcome, Request, Share, Task, TaskError};
pub use peer::{Config, Peer};
pub use raw::{RawDelta, RawDeltas};
pub use record::{Digest, Record, View};
pub use recovery::Recovery;
pub use stats::Stats;
