//! Native requests: what `ringctl` and the native client ask over the mesh.
//!
//! What a client may do stands in its certificate; clients and administrators may do all of this, but
//! what is in `admin` is for administrators.
//! A request that the machine has to answer waits in the core's table like any other; the answer
//! leaves with the mesh's next flush. The clock that a client has heard is merged before anything is
//! minted for it.

mod admin;
mod age;
mod asker;
mod explain;
mod keyspaces;
mod task;
mod window;

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use replication::op::TaskError;
use replication::{Event, Request};
use ring::{Hlc, NodeId, Slot};
use tracing::debug;
use wire::moment::Moment;
use wire::reply::Owner;
use wire::{ClientReply, ClientRequest, Frame, FrameWriter, Header, Kind, codec};

pub use admin::{Look, Looker, look, look_for_peer, looked};
pub use age::Age;
use asker::{Many, Wants};
pub use asker::{NativeAsker, reply_to};
use explain::{explain, invalid, senseless};
pub use task::who;
pub use window::Window;

use crate::limits::{DIRECT_IN_FLIGHT_MAX, REQUEST_TIMEOUT};
use crate::mesh::ClientConn;
use crate::shared::Shared;
use crate::status;
use crate::turn::{Asker, Core, Letter, Refusal};

/// A frame came from a native client.
pub fn on_frame(core: &mut Core, client: &ClientConn, frame: &Frame<'_>) {
    let reply = match frame.header.kind {
        Kind::CLIENT_REQUEST => Kind::CLIENT_REPLY,
        Kind::ADMIN_REQUEST => Kind::ADMIN_REPLY,
        Kind::MOMENT => return on_moment(core, client, frame),
        other => {
            debug!(kind = ?other, "a native client sent a frame of an unknown kind");
            return;
        }
    };
    let request_id = frame.header.request_id;
    let asker = |wants: Wants| NativeAsker { client: client.clone(), request_id, reply, wants };
    core.begin();
    let shared = core.shared.clone();
    let hlc = core.hlc();
    let say = |said: &ClientReply| asker(Wants::Done).send(&shared, said, hlc);
    if frame.header.time_left().is_some_and(|given| core.is_too_late(client.id(), given)) {
        // Its client has given up, and an answer would be one to nothing.
        return;
    }
    let request = match codec::decode::<ClientRequest<'_>>(frame.body) {
        Ok(request) => request,
        Err(e) => return say(&invalid(&e.to_string())),
    };
    let (keyspace, request) = match request {
        ClientRequest::In { keyspace, request } => match task::within(keyspace, *request) {
            Ok(request) => (keyspace, request),
            Err(why) => return say(&senseless(&why)),
        },
        request => (0, request),
    };
    let wants = match &request {
        ClientRequest::In { .. } => return say(&invalid("a database is named twice")),
        ClientRequest::Ping => return say(&ClientReply::Pong),
        ClientRequest::Status => return say(&ClientReply::Status(status::of(&shared))),
        ClientRequest::Owners { key } => return say(&owners(&shared, key)),
        ClientRequest::Layout => return say(&layout(&shared)),
        ClientRequest::Admin(asked) => {
            return admin::on_request(core, asker(Wants::Done), asked.clone());
        }
        ClientRequest::Cancel { request_id } => {
            return core.cancel_native(client.id(), Some(*request_id));
        }
        ClientRequest::Get { .. } | ClientRequest::GetMany { .. } => Wants::Value,
        ClientRequest::Share { .. } => Wants::Share,
        ClientRequest::Range { partition, .. } | ClientRequest::DeleteRange { partition, .. } => {
            Wants::Page { partition: Bytes::copy_from_slice(partition) }
        }
        ClientRequest::Put { .. } | ClientRequest::Delete { .. } | ClientRequest::Add { .. } => {
            Wants::Done
        }
    };
    if shared.is_loading() || core.draining {
        return say(&ClientReply::Error(explain(&shared, TaskError::NotReady)));
    }
    let given = frame.header.time_left().unwrap_or(REQUEST_TIMEOUT);
    let left = match core.judge_native(client.id(), given) {
        Ok(left) => left,
        Err(Refusal::Late) => return,
        Err(Refusal::Overloaded { retry_after_ms }) => {
            let error = TaskError::Overloaded { retry_after_ms };
            return say(&ClientReply::Error(explain(&shared, error)));
        }
    };
    let timeout_us = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
    let heard = frame.header.hlc;
    if let ClientRequest::GetMany { keys, level, after } = &request {
        let parts = match task::of_many_keys(keys, keyspace, *level, after) {
            Ok(parts) => parts,
            Err(why) => return say(&senseless(&why)),
        };
        if parts.is_empty() {
            return say(&ClientReply::Values { keys: Vec::new() });
        }
        let held = keys.iter().map(|_| None).collect();
        let many = Rc::new(RefCell::new(Many { held, parts_left: parts.len(), hlc: Hlc(0) }));
        for (task, places) in parts {
            hear(core, task.slot, heard);
            let asker = asker(Wants::Part { many: many.clone(), places });
            core.submit(Asker::Native(asker), Request::Task(task), timeout_us);
        }
        return;
    }
    let asked = match &request {
        ClientRequest::Range { .. } | ClientRequest::DeleteRange { .. } => {
            task::of_range(&request, keyspace)
        }
        ClientRequest::Share { .. } => task::of_share(&request, keyspace),
        _ => task::of_one_key(&request, keyspace, core.now().wall).map(Request::Task),
    };
    match asked {
        Ok(asked) => {
            hear(core, asked.slot(), heard);
            let mut name = task::name_of(&request, client.boot());
            if let Some(named) = &mut name {
                named.direct &= core.in_flight() < DIRECT_IN_FLIGHT_MAX;
            }
            core.submit_named(Asker::Native(asker(wants)), asked, timeout_us, name);
        }
        Err(why) => say(&senseless(&why)),
    }
}

/// A client says when what follows was made; now and then it hears of our clock.
fn on_moment(core: &mut Core, client: &ClientConn, frame: &Frame<'_>) {
    let said = match codec::decode::<Moment>(frame.body) {
        Ok(said) => said,
        Err(error) => return debug!(%error, "a client's moment is not understood"),
    };
    let (ours, window) = core.heard_moment(client.id(), said);
    if let Some(bytes) = window {
        client.set_window(bytes);
    }
    let Some(ours) = ours else { return };
    let mut writer = FrameWriter::new();
    writer.begin(Header::new(Kind::MOMENT));
    codec::encode_into(&ours, writer.body());
    let sent = writer.finish().map_err(|e| e.to_string()).and_then(|()| {
        let append = |buffer: &mut Vec<u8>| buffer.extend_from_slice(writer.bytes());
        client.reply(append).map_err(|e| e.to_string())
    });
    if let Err(why) = sent {
        debug!(why, "a native client cannot hear of our clock");
    }
}

/// The machine that will mint for a client hears of the clock that the client has heard.
fn hear(core: &mut Core, slot: Slot, hlc: Hlc) {
    if hlc != Hlc(0) {
        let of = core.core_of(slot);
        core.hand(of, Letter::Event(Event::Heard { hlc }));
    }
}

fn layout(shared: &Shared) -> ClientReply {
    let (layout, view) = (shared.layout(), shared.members());
    let is_down = |node: &&NodeId| view.members.get(node).is_some_and(|m| !m.up);
    let down = layout.members.keys().filter(is_down).map(|node| node.0).collect();
    ClientReply::Layout { layout: Box::new(ring::Layout::clone(&layout)), down }
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
    let copies = layout.replicas_for(slot, shared.policies().default.n);
    ClientReply::Owners { slot: slot.0, nodes: copies.iter().filter_map(owner).collect() }
}
