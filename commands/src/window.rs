//! Window: how many commands of a connection may be unanswered, by the size of its replies.
//!
//! A request says nothing of how large its reply will be, so commands alone do not bound what their
//! replies take: a thousand GETs of large values would. The promise: as soon as a connection has
//! shown what its replies look like, no more are awaited than [`REPLY_BYTES_MAX`] holds, and one.
//! The size expected rises with the first large reply and falls by an eighth with each small one. A
//! new connection is expected to ask for large values until its first replies say otherwise.

use crate::limits::{REPLY_BYTES_MAX, UNFINISHED_FIRST, UNFINISHED_MAX};

/// What is known of the replies of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Bytes that a reply is expected to have.
    expected: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self { expected: REPLY_BYTES_MAX / UNFINISHED_FIRST }
    }
}

impl Window {
    /// A reply had so many bytes.
    pub(crate) fn replied(&mut self, bytes: usize) {
        self.expected = bytes.max(self.expected - self.expected.div_ceil(8));
    }

    /// How many commands may be unanswered; at least one.
    pub(crate) fn commands(self) -> usize {
        (REPLY_BYTES_MAX / self.expected.max(1)).clamp(1, UNFINISHED_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_with_small_replies_and_closes_with_a_large_one() {
        let mut window = Window::default();
        assert_eq!(window.commands(), UNFINISHED_FIRST);
        for _ in 0..32 {
            window.replied(5);
        }
        assert_eq!(window.commands(), UNFINISHED_MAX);
        window.replied(64 << 10);
        assert_eq!(window.commands(), REPLY_BYTES_MAX >> 16);
        window.replied(512 << 20);
        assert_eq!(window.commands(), 1);
        for _ in 0..1_000 {
            window.replied(0);
        }
        assert_eq!(window.commands(), UNFINISHED_MAX);
    }
}
