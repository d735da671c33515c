//! Native requests: what `ringctl` and the native client ask over the mesh.
//!
//! What a client may do stands in its certificate; clients and administrators may do all of this.
//! A request that the machine has to answer waits in the core's table like any other; the answer
//! leaves with the mesh's next flush.

use bytes::Bytes;
use replication::op::{Outcome, SetCondition, SetExpiry, TaskError};
use replication::row::{self, Keyspace};
use replication::{Answer, Op, Request, Task};
use ring::{NodeId, Slot, WallMillis};
use tracing::debug;
use wire::reply::Owner;
use wire::{
    ClientReply, ClientRequest, ErrorCode, ErrorReply, Frame, FrameWriter, Header, Kind, codec,
};

use crate::limits::REQUEST_TIMEOUT;
use crate::mesh::ClientConn;
use crate::shared::Shared;
use crate::status;
use crate::turn::{Asker, Core};

/// The keyspace of native clients.
const KEYSPACE: Keyspace = 0;

/// A native client that waits for an answer.
pub struct NativeAsker {
    client: ClientConn,
    request_id: u64,
    reply: Kind,
    reads: bool,
}

impl std::fmt::Debug for NativeAsker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NativeAsker({})", self.request_id)
    }
}

impl NativeAsker {
    /// Answers with what the machine said.
    pub fn answer(&self, shared: &Shared, answer: Answer) {
        let reply = match answer {
            Answer::Done { outcomes, .. } => self.reply_to(outcomes),
            Answer::Failed(error) => ClientReply::Error(explain(shared, error)),
            Answer::Keys { .. } | Answer::Count(_) | Answer::Acks(_) => {
                invalid("the request has no such answer")
            }
        };
        self.send(&reply);
    }

    fn reply_to(&self, outcomes: Vec<Outcome>) -> ClientReply {
        for outcome in outcomes {
            match outcome {
                Outcome::Siblings { values, context } if self.reads => {
                    let values = values.into_iter().map(|s| s.value).collect();
                    return ClientReply::Value { values, context };
                }
                Outcome::Siblings { context, .. } => return ClientReply::Done { context },
                Outcome::Failed(why) => return invalid(&format!("{why:?}")),
                _ => {}
            }
        }
        ClientReply::Done { context: Bytes::new() }
    }

    fn send(&self, reply: &ClientReply) {
        let mut writer = FrameWriter::new();
        writer.begin(Header { request_id: self.request_id, ..Header::new(self.reply) });
        codec::encode_into(reply, writer.body());
        let sent = writer.finish().map_err(|e| e.to_string()).and_then(|()| {
            let append = |buffer: &mut Vec<u8>| buffer.extend_from_slice(writer.bytes());
            self.client.reply(append).map_err(|e| e.to_string())
        });
        if let Err(why) = sent {
            debug!(why, "a native client cannot be answered");
        }
    }
}

/// A frame came from a native client.
pub fn on_frame(core: &mut Core, client: &ClientConn, frame: &Frame<'_>) {
    let reply = match frame.header.kind {
        Kind::CLIENT_REQUEST => Kind::CLIENT_REPLY,
        Kind::ADMIN_REQUEST => Kind::ADMIN_REPLY,
        other => {
            debug!(kind = ?other, "a native client sent a frame of an unknown kind");
            return;
        }
    };
    let request_id = frame.header.request_id;
    let mut asker = NativeAsker { client: client.clone(), request_id, reply, reads: false };
    core.begin();
    let request = match codec::decode::<ClientRequest<'_>>(frame.body) {
        Ok(request) => request,
        Err(e) => return asker.send(&invalid(&e.to_string())),
    };
    let shared = core.shared.clone();
    match request {
        ClientRequest::Ping => return asker.send(&ClientReply::Pong),
        ClientRequest::Status => return asker.send(&ClientReply::Status(status::of(&shared))),
        ClientRequest::Owners { key } => return asker.send(&owners(&shared, key)),
        ClientRequest::Get { .. } => asker.reads = true,
        ClientRequest::Put { .. } | ClientRequest::Delete { .. } => {}
    }
    if shared.is_loading() || core.draining {
        return asker.send(&ClientReply::Error(explain(&shared, TaskError::NotReady)));
    }
    let left = frame.header.time_left().unwrap_or(REQUEST_TIMEOUT);
    let timeout_us = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
    match task(&request, core.now().wall) {
        Ok(task) => core.submit(Asker::Native(asker), Request::Task(task), timeout_us),
        Err(why) => asker.send(&invalid(&why)),
    }
}

/// The task that a request asks for.
fn task(request: &ClientRequest<'_>, now: WallMillis) -> Result<Task, String> {
    let base =
        |key: &[u8], op: Op| Task::one(Slot::of_key(key), KEYSPACE, row::of_key(KEYSPACE, key), op);
    let level = |level: Option<wire::Level>| {
        level
            .map(|l| l.to_string().parse())
            .transpose()
            .map_err(|e: ring::keyspace::LevelError| e.to_string())
    };
    match *request {
        ClientRequest::Get { key, level: read } => {
            Ok(Task { read: level(read)?, ..base(key, Op::Siblings) })
        }
        ClientRequest::Put { key, value, context, level: write, durability, ttl_ms } => {
            let value = Bytes::copy_from_slice(value);
            let at = ttl_ms.map(|ttl| WallMillis(now.0.saturating_add(ttl)));
            let mut task = match context {
                Some(context) => {
                    let context = Bytes::copy_from_slice(context);
                    base(key, Op::SetWithContext { value: Some(value), context })
                }
                None => {
                    let expiry = at.map_or(SetExpiry::Clear, SetExpiry::At);
                    let condition = SetCondition::Always;
                    base(key, Op::Set { value, expiry, condition, get: false })
                }
            };
            if let (Some(at), Some(_)) = (at, context) {
                let condition = replication::op::ExpireCondition::Always;
                task.ops.push((row::of_key(KEYSPACE, key), Op::Expire { at, condition }));
                task.atomic = true;
            }
            let durability = durability.map(|d| match d {
                wire::Durability::Os => ring::keyspace::Durability::Os,
                wire::Durability::Sync => ring::keyspace::Durability::Sync,
            });
            Ok(Task { write: level(write)?, durability, ..task })
        }
        ClientRequest::Delete { key, context, level: write } => {
            let op = match context {
                Some(context) => {
                    Op::SetWithContext { value: None, context: Bytes::copy_from_slice(context) }
                }
                None => Op::Delete,
            };
            Ok(Task { write: level(write)?, ..base(key, op) })
        }
        ClientRequest::Status | ClientRequest::Owners { .. } | ClientRequest::Ping => {
            Err("it is no task".to_owned())
        }
    }
}

fn owners(shared: &Shared, key: &[u8]) -> ClientReply {
    let (layout, view, slot) = (shared.layout(), shared.members(), Slot::of_key(key));
    let owner = |node: &NodeId| {
        let member = layout.member(*node)?;
        Some(Owner {
            id: node.0,
            name: member.name.clone(),
            address: member.peer.clone(),
            zone: member.zone.clone(),
            up: view.members.get(node).is_some_and(|m| m.up),
        })
    };
    let copies = layout.replicas_for(slot, shared.config.policy.n);
    ClientReply::Owners { slot: slot.0, nodes: copies.iter().filter_map(owner).collect() }
}

fn invalid(why: &str) -> ClientReply {
    ClientReply::Error(ErrorReply {
        code: ErrorCode::Invalid,
        what: "the request makes no sense to this node".to_owned(),
        why: why.to_owned(),
        fix: "check the versions of client and node".to_owned(),
    })
}

fn explain(shared: &Shared, error: TaskError) -> ErrorReply {
    let layout = shared.layout();
    let names = |nodes: &[NodeId]| {
        let name = |node: &NodeId| {
            layout.member(*node).map_or_else(|| node.to_string(), |m| m.name.clone())
        };
        nodes.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let say = |code, what: &str, why: String, fix: &str| ErrorReply {
        code,
        what: what.to_owned(),
        why,
        fix: fix.to_owned(),
    };
    match error {
        TaskError::Unavailable { level, needed, copies, alive, missing } => say(
            ErrorCode::Unavailable { needed, alive },
            "too few replicas are up; nothing was written",
            format!("{level} needs {needed} of {copies}, {alive} up; down: {}", names(&missing)),
            "bring one back, or ask at a lower level",
        ),
        TaskError::Unconfirmed { level, needed, copies, acked, missing } => say(
            ErrorCode::Unconfirmed { acked, needed },
            "too few replicas confirmed the write in time; it may survive",
            format!(
                "{level} needs {needed} of {copies}, {acked} came; silent: {}",
                names(&missing)
            ),
            "read it back, or retry",
        ),
        TaskError::Overloaded { retry_after_ms } => say(
            ErrorCode::Overloaded { retry_after_ms },
            "too much is in flight; nothing was done",
            "this node sheds load".to_owned(),
            "retry later, or on another node",
        ),
        TaskError::NotReady => say(
            ErrorCode::NotReady,
            "this node does not serve",
            "it is starting, catching up or stopping".to_owned(),
            "ask another node",
        ),
        TaskError::Aborted => say(
            ErrorCode::Conflict,
            "the key has changed; nothing was done",
            "a condition of the request does not hold".to_owned(),
            "read it again and retry",
        ),
        TaskError::ClockSkew => say(
            ErrorCode::NotReady,
            "this node's clock is too far from the cluster's",
            "it may not coordinate writes".to_owned(),
            "set its clock; ask another node",
        ),
        TaskError::BadLevel(why) | TaskError::Invalid(why) => {
            say(ErrorCode::Invalid, "the request cannot be served", why, "change the request")
        }
        TaskError::Storage(why) => say(
            ErrorCode::Internal,
            "this node's disk failed",
            why,
            "look at the node's log; ask another node",
        ),
    }
}
