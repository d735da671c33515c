//! Task: what a native request is to the machine.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use replication::encoding::Reader;
use replication::limits::{RETRY_FOR, SPAN_BYTES_MAX};
use replication::message::RequestKey;
use replication::op::{ExpireCondition, Request, SetCondition, SetExpiry, Span};
use replication::row::{self, Keyspace};
use replication::{DotSet, Named, Op, Share, Task};
use ring::keyspace::{Durability, Level, LevelError};
use ring::{Incarnation, NodeId, Slot, WallMillis};
use wire::ClientRequest;

use crate::limits::DATABASES;

/// A request of a database other than 0.
///
/// # Errors
/// Why it makes no sense, for a person.
pub(super) fn within(
    keyspace: Keyspace,
    request: ClientRequest<'_>,
) -> Result<ClientRequest<'_>, String> {
    if keyspace >= DATABASES {
        return Err(format!("there is no database {keyspace}: there are 0 to {}", DATABASES - 1));
    }
    if request.is_about_keys() { Ok(request) } else { Err("it is about no keys".to_owned()) }
}

/// The one task that a request for one key asks for.
///
/// # Errors
/// Why it makes no sense, for a person.
pub(super) fn of_one_key(
    request: &ClientRequest<'_>,
    keyspace: Keyspace,
    now: WallMillis,
) -> Result<Task, String> {
    let base =
        |key: &[u8], op: Op| Task::one(Slot::of_key(key), keyspace, row::of_key(keyspace, key), op);
    match *request {
        ClientRequest::Get { key, level: read, ref after } => {
            let after = known(after)?;
            Ok(Task { read: level(read)?, after, ..base(key, Op::Siblings) })
        }
        ClientRequest::Put {
            key,
            value,
            context,
            level: write,
            durability: d,
            ttl_ms,
            ref after,
            name: _,
        } => {
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
                let condition = ExpireCondition::Always;
                task.ops.push((row::of_key(keyspace, key), Op::Expire { at, condition }));
                task.atomic = true;
            }
            written(task, write, d, after)
        }
        ClientRequest::Delete { key, context, level: write, durability: d, ref after, name: _ } => {
            let op = match context {
                Some(context) => {
                    Op::SetWithContext { value: None, context: Bytes::copy_from_slice(context) }
                }
                None => Op::Delete,
            };
            written(base(key, op), write, d, after)
        }
        ClientRequest::Add { key, by, level: write, durability: d, ref after, name: _ } => {
            written(base(key, Op::Increment(by)), write, d, after)
        }
        ClientRequest::GetMany { .. }
        | ClientRequest::Share { .. }
        | ClientRequest::Range { .. }
        | ClientRequest::DeleteRange { .. }
        | ClientRequest::In { .. }
        | ClientRequest::Cancel { .. }
        | ClientRequest::Layout
        | ClientRequest::Status
        | ClientRequest::Owners { .. }
        | ClientRequest::Ping
        | ClientRequest::Admin(_) => Err("it is no task for one key".to_owned()),
    }
}

/// A task that writes; it tells what has been seen then.
fn written<C: AsRef<[u8]>>(
    task: Task,
    write: Option<wire::Level>,
    d: Option<wire::Durability>,
    after: &[C],
) -> Result<Task, String> {
    let (write, durability) = (level(write)?, d.map(durability));
    Ok(Task { write, durability, after: Some(seen(after)?), ..task })
}

/// The same; nothing if there are none.
fn known<C: AsRef<[u8]>>(contexts: &[C]) -> Result<Option<Bytes>, String> {
    if contexts.is_empty() { Ok(None) } else { seen(contexts).map(Some) }
}

/// What several contexts have seen together.
fn seen<C: AsRef<[u8]>>(contexts: &[C]) -> Result<Bytes, String> {
    let mut all = DotSet::new();
    for context in contexts {
        let one = DotSet::decode(&mut Reader::new(context.as_ref()));
        all.union(&one.ok_or("what was seen is not a context that a reply gave")?);
    }
    let mut encoded = Vec::new();
    all.encode(&mut encoded);
    Ok(encoded.into())
}

/// The name that the client gave to a request, as replication knows it. `boot` is this process.
pub(super) fn name_of(request: &ClientRequest<'_>, boot: u64) -> Option<Named> {
    let (ClientRequest::Put { name, .. }
    | ClientRequest::Delete { name, .. }
    | ClientRequest::Add { name, .. }
    | ClientRequest::DeleteRange { name, .. }) = request
    else {
        return None;
    };
    let wire::Name { client, n, age_ms, first_asked, direct } = (*name)?;
    let (front, incarnation) = who(client);
    let request = RequestKey { front, incarnation, core: u8::MAX, n, first_sent: 0 };
    let is_young = age_ms <= RETRY_FOR.as_millis() as u64;
    Some(Named { request, may_mint: is_young && first_asked == boot, direct })
}

/// A client's number as names of requests tell it among nodes.
pub const fn who(client: u64) -> (NodeId, Incarnation) {
    // The highest bit: no node has such a number, so that no name of theirs is the same.
    (NodeId(1 << 31 | (client >> 33) as u32), Incarnation(client as u32))
}

/// What a request for this replica's share of a read asks for.
///
/// # Errors
/// Why it makes no sense, for a person.
pub(super) fn of_share(request: &ClientRequest<'_>, keyspace: Keyspace) -> Result<Request, String> {
    let ClientRequest::Share { key, level: read, of, epoch, whole, ref after } = *request else {
        return Err("it is no request for a share".to_owned());
    };
    Ok(Request::Share(Box::new(Share {
        slot: Slot::of_key(key),
        keyspace,
        row: row::of_key(keyspace, key),
        op: Op::Siblings,
        level: level(read)?,
        of,
        epoch,
        whole,
        after: known(after)?,
    })))
}

/// What a request for a page of sort keys asks for.
///
/// # Errors
/// Why it makes no sense, for a person.
pub(super) fn of_range(request: &ClientRequest<'_>, keyspace: Keyspace) -> Result<Request, String> {
    let span = |partition: &[u8], from, to, reverse, rows| {
        let range = row::range_of_sort_keys(keyspace, partition, from, to);
        let (start, end) = range.ok_or("a partition key may not be empty, nor have a } in it")?;
        let slot = row::slot_of(&start).ok_or("its keys have no slot")?;
        let bytes = SPAN_BYTES_MAX;
        Ok::<_, String>(Span { slot, keyspace, start, end, reverse, rows, bytes })
    };
    match *request {
        ClientRequest::Range { partition, from, to, reverse, rows, level: read, ref after } => {
            let span = span(partition, from, to, reverse, rows)?;
            let after = Some(seen(after)?);
            Ok(Request::Range { span, level: level(read)?, after })
        }
        ClientRequest::DeleteRange {
            partition,
            from,
            to,
            rows,
            level: write,
            durability: d,
            ref after,
            name: _,
        } => {
            let after = Some(seen(after)?);
            let span = span(partition, from, to, false, rows)?;
            let (write, durability) = (level(write)?, d.map(durability));
            Ok(Request::DeleteRange { span, read: None, write, durability, after })
        }
        _ => Err("it is no request for a range".to_owned()),
    }
}

/// The tasks that read many keys, one a slot, and for each the places of its keys.
///
/// # Errors
/// Why it makes no sense, for a person.
pub(super) fn of_many_keys<K: AsRef<[u8]>, C: AsRef<[u8]>>(
    keys: &[K],
    keyspace: Keyspace,
    read: Option<wire::Level>,
    after: &[(u16, C)],
) -> Result<Vec<(Task, Vec<usize>)>, String> {
    if keys.len() > wire::limits::KEYS_MAX {
        let (asked, most) = (keys.len(), wire::limits::KEYS_MAX);
        return Err(format!("{asked} keys are asked for at once, and {most} may be"));
    }
    let read = level(read)?;
    let mut by_slot: BTreeMap<Slot, (Task, Vec<usize>)> = BTreeMap::new();
    for (place, key) in keys.iter().enumerate() {
        let key = key.as_ref();
        let (slot, row) = (Slot::of_key(key), row::of_key(keyspace, key));
        match by_slot.entry(slot) {
            Entry::Vacant(vacant) => {
                let task = Task::one(slot, keyspace, row, Op::Siblings);
                let of_slot = after.iter().filter(|(of, _)| *of == slot.0);
                let of_slot: Vec<_> = of_slot.map(|(_, context)| context).collect();
                let after = known(&of_slot)?;
                vacant.insert((Task { read, after, ..task }, vec![place]));
            }
            Entry::Occupied(mut occupied) => {
                let (task, places) = occupied.get_mut();
                task.ops.push((row, Op::Siblings));
                places.push(place);
            }
        }
    }
    Ok(by_slot.into_values().collect())
}

fn level(level: Option<wire::Level>) -> Result<Option<Level>, String> {
    let parsed = level.map(|level| level.to_string().parse()).transpose();
    parsed.map_err(|e: LevelError| e.to_string())
}

const fn durability(durability: wire::Durability) -> Durability {
    match durability {
        wire::Durability::Os => Durability::Os,
        wire::Durability::Sync => Durability::Sync,
    }
}
