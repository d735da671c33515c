//! Task: what a native request is to the machine.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use replication::op::{ExpireCondition, SetCondition, SetExpiry};
use replication::row::{self, Keyspace};
use replication::{Op, Task};
use ring::keyspace::{Durability, Level, LevelError};
use ring::{Slot, WallMillis};
use wire::ClientRequest;

/// The keyspace of native clients.
const KEYSPACE: Keyspace = 0;

/// The one task that a request for one key asks for.
///
/// # Errors
/// Why it makes no sense, for a person.
pub(super) fn of_one_key(request: &ClientRequest<'_>, now: WallMillis) -> Result<Task, String> {
    let base =
        |key: &[u8], op: Op| Task::one(Slot::of_key(key), KEYSPACE, row::of_key(KEYSPACE, key), op);
    match *request {
        ClientRequest::Get { key, level: read } => {
            Ok(Task { read: level(read)?, ..base(key, Op::Siblings) })
        }
        ClientRequest::Put { key, value, context, level: write, durability: d, ttl_ms } => {
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
                task.ops.push((row::of_key(KEYSPACE, key), Op::Expire { at, condition }));
                task.atomic = true;
            }
            Ok(Task { write: level(write)?, durability: d.map(durability), ..task })
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
        ClientRequest::Add { key, by, level: write, durability: d } => {
            let task = base(key, Op::Increment(by));
            Ok(Task { write: level(write)?, durability: d.map(durability), ..task })
        }
        ClientRequest::GetMany { .. }
        | ClientRequest::Cancel { .. }
        | ClientRequest::Layout
        | ClientRequest::Status
        | ClientRequest::Owners { .. }
        | ClientRequest::Ping
        | ClientRequest::Admin(_) => Err("it is no task for one key".to_owned()),
    }
}

/// The tasks that read many keys, one a slot, and for each the places of its keys.
///
/// # Errors
/// Why it makes no sense, for a person.
pub(super) fn of_many_keys<K: AsRef<[u8]>>(
    keys: &[K],
    read: Option<wire::Level>,
) -> Result<Vec<(Task, Vec<usize>)>, String> {
    if keys.len() > wire::limits::KEYS_MAX {
        let (asked, most) = (keys.len(), wire::limits::KEYS_MAX);
        return Err(format!("{asked} keys are asked for at once, and {most} may be"));
    }
    let read = level(read)?;
    let mut by_slot: BTreeMap<Slot, (Task, Vec<usize>)> = BTreeMap::new();
    for (place, key) in keys.iter().enumerate() {
        let key = key.as_ref();
        let (slot, row) = (Slot::of_key(key), row::of_key(KEYSPACE, key));
        match by_slot.entry(slot) {
            Entry::Vacant(vacant) => {
                let task = Task::one(slot, KEYSPACE, row, Op::Siblings);
                vacant.insert((Task { read, ..task }, vec![place]));
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
