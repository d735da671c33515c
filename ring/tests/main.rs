//! The public contract of `ring`: placement keeps its bounds, layouts survive the wire, and the
//! failure detector neither sleeps nor panics.

mod exchange;
mod layout;
mod liveness;
mod optimum;
mod placement;
