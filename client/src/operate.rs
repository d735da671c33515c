//! Operate: what a program with an administrator's certificate may ask of one node.
//!
//! Each of these is about the node that is asked, so the client should have been connected to that
//! node's address alone.

use std::time::Duration;

use ring::{Layout, NodeId};
use wire::operate::{AdminReply, AdminRequest};
use wire::{ClientReply, ClientRequest};

use crate::client::{Asking, Client};
use crate::error::ClientError;

impl Client {
    /// The layout that the asked node has in force, and the members that it takes to be down.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn layout(&self) -> Result<(Layout, Vec<NodeId>), ClientError> {
        match self.ask_default(&ClientRequest::Layout).await? {
            ClientReply::Layout { layout, down } => {
                Ok((*layout, down.into_iter().map(NodeId).collect()))
            }
            other => Err(Self::misfit(&other)),
        }
    }

    /// Asks the node itself, within `timeout`.
    ///
    /// # Errors
    /// [`ClientError`]: [`ClientError::Unauthorised`] without a certificate of role admin,
    /// [`ClientError::Invalid`] if the node is of a version that does not know the question.
    pub async fn administer(
        &self,
        request: AdminRequest,
        timeout: Duration,
    ) -> Result<AdminReply, ClientError> {
        let asking = match request {
            AdminRequest::Drain
            | AdminRequest::Keyspace(_)
            | AdminRequest::MakeCheckpoint { .. }
            | AdminRequest::RemoveCheckpoint { .. } => Asking::once(timeout),
            _ => Asking::harmless(timeout),
        };
        match self.ask(asking, &ClientRequest::Admin(request)).await? {
            ClientReply::Admin(reply) => Ok(reply),
            other => Err(Self::misfit(&other)),
        }
    }
}
