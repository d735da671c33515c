//! Clients: a handle to answer a program that asks, be it an application or `ringctl`.
//!
//! Promise: replies leave in order on the stream that the requests came on, and a client that does
//! not read them costs no more than the limit of its outbox.

use core::fmt;
use std::net::SocketAddr;
use std::rc::Rc;

use certs::Identity;
use quinn::{Connection, VarInt};

use super::lane::{Outbox, SendError};
use super::refusal::Refusal;
use super::{Mesh, Tally};

/// A client's connection, for as long as somebody may want to answer it. Clones are the same one.
#[derive(Clone)]
pub struct ClientConn {
    pub(super) shared: Rc<Shared>,
}

pub(super) struct Shared {
    pub(super) id: u64,
    pub(super) number: u64,
    pub(super) identity: Identity,
    pub(super) wire: u8,
    pub(super) connection: Connection,
    pub(super) outbox: Rc<Outbox>,
    pub(super) mesh: Mesh,
}

impl ClientConn {
    /// A number that no other connection of this process has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// The number that it gives its requests, by its hello; 0 if it gives none.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.shared.number
    }

    /// Which start of this process it talks to: what our hello said.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.shared.mesh.inner.boot
    }

    /// Who it is; its role is client or administrator.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// The newest version of the frames that both ends know.
    #[must_use]
    pub fn wire(&self) -> u8 {
        self.shared.wire
    }

    /// From where it comes.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.shared.connection.remote_address()
    }

    /// Appends the frame that `write` appends to the buffer of replies; as [`Mesh::send`], it leaves
    /// with the next [`Mesh::flush`].
    ///
    /// # Errors
    /// [`SendError::NotConnected`] once it is gone, [`SendError::Full`] if it does not read.
    pub fn reply(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), SendError> {
        let inner = &self.shared.mesh.inner;
        match self.shared.outbox.append(write) {
            Ok(()) => {
                Tally::add(&inner.tally.frames_sent, 1);
                inner.list_for_flush(&self.shared.outbox);
                Ok(())
            }
            Err(error) => {
                Tally::add(&inner.tally.sends_refused, 1);
                Err(error)
            }
        }
    }

    /// Bytes of replies that wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.outbox.queued()
    }

    /// So many bytes may be on their way to us, or have come and not been read; what was granted already
    /// stays so.
    pub fn set_window(&self, bytes: u32) {
        self.shared.connection.set_receive_window(VarInt::from_u32(bytes));
    }

    /// Ends the connection for this reason; replies that wait are dropped.
    pub fn close(&self, refusal: Refusal, text: &str) {
        refusal.close(&self.shared.connection, text);
    }
}

impl fmt::Debug for ClientConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientConn({}, {})", self.shared.id, self.shared.identity)
    }
}
