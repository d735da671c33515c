//! Moment: when the frames behind it were made, so that it is known how long they were under way.
//!
//! A deadline is an interval, since clocks differ; how long a frame waited in buffers on its way is
//! not in it. A client therefore says now and then what its own clock shows, and what the node's
//! last said; and the node answers in kind. From the two each can tell how far apart the clocks are. Nodes say
//! it to each other where it matters.
//! Promise: whoever does not know such frames loses nothing by passing over them.

use serde::{Deserialize, Serialize};

/// The body of a frame of kind [`MOMENT`](crate::Kind::MOMENT): it is about all frames behind it, until the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Microseconds on the speaker's clock, which counts from any point and is never set.
    #[serde(rename = "a")]
    pub at_us: u64,
    /// The latest of the other side's moments that the speaker had heard then; none yet: 0.
    #[serde(rename = "h", default)]
    pub heard_us: u64,
}
