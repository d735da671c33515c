//! Admin: what an administrator asks of this node itself.
//!
//! Promise: whoever has no certificate of role admin is refused, and it is logged; a question about
//! keys reads no more than a few hundred kilobytes at a time on the core that keeps them, so that
//! nobody who is served notices.

use bytes::Bytes;
use replication::op::Span;
use replication::row::Keyspace;
use replication::{Record, row};
use ring::{NodeId, Slot};
use store::Store;
use tracing::{info, warn};
use wire::operate::{BigKey, BigKeys, CopyValue, Emptiness, KeyCopy};
use wire::{AdminReply, AdminRequest, ClientReply, ErrorCode, ErrorReply};

use super::{NativeAsker, invalid, keyspaces};
use crate::checkpoints::Wish;
use crate::peers::{VacancyTold, VacancyWanted};
use crate::slab::Key;
use crate::turn::{Core, Letter};
use crate::{clock, facts, hot, metrics};

/// How many rows are read at a time where keys are only looked for.
const EMPTY_ROWS: u32 = 1_000;

/// How much of a store is read for one question about large keys.
const BIG_BYTES: u32 = 256 << 10;

/// The most slots that one such question passes through: empty ones cost something too.
const BIG_SLOTS: u16 = 256;

/// The most keys that one answer names.
const BIG_KEYS_MAX: usize = 1_000;

/// What is to be looked up in the store of a core.
#[derive(Debug)]
pub enum Look {
    /// The copy of a key.
    Copy {
        /// The key's row.
        row: row::Row,
    },
    /// Large keys of a slot, and of those of its core that follow.
    Big {
        /// The slots, in the order of the walk; the first is begun at `from`.
        slots: Vec<Slot>,
        /// The row to go on at.
        from: Bytes,
        /// The most keys to name.
        count: usize,
        /// The slot after them, if there is one.
        next: Option<Slot>,
    },
    /// Whether there is a key of a database in these slots of a core.
    Empty {
        /// The database.
        keyspace: Keyspace,
        /// The slots.
        slots: Vec<Slot>,
        /// The slot after them, if there is one.
        next: Option<Slot>,
    },
}

/// Who waits for what a core sees.
#[derive(Debug)]
pub enum Looker {
    /// An administrator.
    Administrator(NativeAsker),
    /// A member that changes the number of copies of a keyspace; this one may be it.
    Member {
        /// Which.
        node: NodeId,
        /// Its question.
        wanted: VacancyWanted,
    },
}

pub(super) fn on_request(core: &mut Core, asker: NativeAsker, request: AdminRequest) {
    let shared = core.shared.clone();
    let identity = asker.client.identity();
    if identity.role != certs::Role::Admin {
        warn!(client = %identity, ?request, "refused: only administrators may ask this");
        shared.users.denied_by_role();
        let hlc = core.hlc();
        return asker.send(&shared, &unauthorised(identity), hlc);
    }
    let reply = match request {
        AdminRequest::Facts => AdminReply::Facts(Box::new(facts::of(&shared))),
        AdminRequest::Metrics => AdminReply::Text { text: metrics::text(&shared) },
        AdminRequest::Settings => AdminReply::Text { text: shared.config.printed.clone() },
        AdminRequest::Hot => AdminReply::Hot(hot::of_all(&shared.hot, clock::mono())),
        AdminRequest::Copy { key, keyspace } => {
            let look = Look::Copy { row: row::of_key(keyspace, &key) };
            return send_look(core, asker, Slot::of_key(&key), look);
        }
        AdminRequest::Big { slot, from, count } => {
            if slot >= ring::SLOTS {
                let hlc = core.hlc();
                return asker.send(&shared, &invalid("there is no such slot"), hlc);
            }
            let (slots, next) = walk(slot, shared.cores());
            let count = usize::from(count).min(BIG_KEYS_MAX);
            return send_look(core, asker, Slot(slot), Look::Big { slots, from, count, next });
        }
        AdminRequest::Empty { keyspace, slot } => {
            if slot >= ring::SLOTS {
                let hlc = core.hlc();
                return asker.send(&shared, &invalid("there is no such slot"), hlc);
            }
            let (slots, next) = walk(slot, shared.cores());
            return send_look(core, asker, Slot(slot), Look::Empty { keyspace, slots, next });
        }
        AdminRequest::Keyspace(change) => {
            info!(administrator = %identity, ?change, "an administrator wants other terms");
            return keyspaces::on_change(core, asker, &change);
        }
        AdminRequest::Checkpoints => return keep(core, asker, Wish::List),
        AdminRequest::MakeCheckpoint { name } => return keep(core, asker, Wish::Make(name)),
        AdminRequest::RemoveCheckpoint { name } => return keep(core, asker, Wish::Remove(name)),
        AdminRequest::Drain => {
            info!(administrator = %identity, "told to drain and end");
            // The way of SIGTERM, so that there is one way only.
            let myself = rustix::process::getpid();
            match rustix::process::kill_process(myself, rustix::process::Signal::TERM) {
                Ok(()) => AdminReply::Draining,
                Err(e) => {
                    let hlc = core.hlc();
                    return asker.send(&shared, &failed(e.to_string()), hlc);
                }
            }
        }
    };
    let hlc = core.hlc();
    asker.send(&shared, &ClientReply::Admin(reply), hlc);
}

/// The disk is not waited for here.
fn keep(core: &mut Core, asker: NativeAsker, wish: Wish) {
    if wish != Wish::List {
        info!(administrator = %asker.client.identity(), ?wish, "about a checkpoint");
    }
    let key = core.looks.insert(Looker::Administrator(asker));
    core.shared.background.checkpoint(core.index, key, wish);
}

/// The slots that one question passes through from a slot on, all of one core, and the slot after them.
fn walk(slot: u16, cores: usize) -> (Vec<Slot>, Option<Slot>) {
    let (first, last) = (slot, slot.saturating_add(BIG_SLOTS).min(ring::SLOTS));
    let of = Slot(first).core(cores);
    let slots: Vec<Slot> =
        (first..last).map(Slot).take_while(|slot| slot.core(cores) == of).collect();
    let next = slots.last().map(|slot| Slot(slot.0 + 1)).filter(|s| s.0 < ring::SLOTS);
    (slots, next)
}

fn send_look(core: &mut Core, asker: NativeAsker, slot: Slot, look: Look) {
    hand_look(core, Looker::Administrator(asker), slot, look);
}

/// A member, which may be this one, asks whether this node holds keys of a keyspace.
pub fn look_for_peer(core: &mut Core, node: NodeId, wanted: VacancyWanted) {
    let VacancyWanted { keyspace, slot, .. } = wanted;
    if slot >= ring::SLOTS {
        return warn!(%node, slot, "there is no such slot");
    }
    let (slots, next) = walk(slot, core.shared.cores());
    let look = Look::Empty { keyspace, slots, next };
    hand_look(core, Looker::Member { node, wanted }, Slot(slot), look);
}

/// A core has seen what somebody waits for.
pub fn looked(core: &mut Core, key: Key, reply: ClientReply) {
    let (node, wanted) = match core.looks.remove(key) {
        None => return,
        Some(Looker::Administrator(asker)) => {
            let hlc = core.hlc();
            return asker.send(&core.shared, &reply, hlc);
        }
        Some(Looker::Member { node, wanted }) => (node, wanted),
    };
    // Whoever hears nothing of it does not take it for empty.
    let ClientReply::Admin(AdminReply::Empty(found)) = reply else {
        return warn!(%node, ?reply, "a member cannot be told whether there are keys");
    };
    let VacancyWanted { question, keyspace, .. } = wanted;
    let told = VacancyTold { question, keyspace, found };
    let me = core.shared.config.node;
    core.with_members(|members, now, events| {
        if node == me {
            members.vacancy_told(now, me, told, events);
        } else {
            members.tell_vacancy(node, &told);
        }
    });
}

fn hand_look(core: &mut Core, looker: Looker, slot: Slot, look: Look) {
    let key = core.looks.insert(looker);
    let (asked, of) = (core.index, core.core_of(slot));
    core.hand(of, Letter::Look { asked, key, look });
}

/// Looks it up. `busy`: requests of the database that is looked for are under way.
pub fn look(store: &Store, look: Look, busy: bool) -> ClientReply {
    let seen = match look {
        Look::Copy { row } => copy(store, &row).map(AdminReply::Copy),
        Look::Big { slots, from, count, next } => {
            big(store, &slots, &from, count, next).map(AdminReply::Big)
        }
        Look::Empty { keyspace, slots, next } => {
            let key = first_key(store, keyspace, &slots);
            let next = next.map(|slot| slot.0);
            key.map(|key| AdminReply::Empty(Emptiness { key, busy, next }))
        }
    };
    seen.map_or_else(failed, ClientReply::Admin)
}

fn copy(store: &Store, row: &row::Row) -> Result<KeyCopy, String> {
    let began = clock::mono();
    let records = store.load(std::slice::from_ref(row)).map_err(|e| e.to_string())?;
    let read_us = clock::mono().since(began).as_micros() as u64;
    let bytes = records.first().map_or(&[][..], |record| &record[..]);
    let record = if bytes.is_empty() { Some(Record::default()) } else { Record::decode(bytes) };
    let record = record.ok_or("the record of the key cannot be read")?;
    let view = record.view(clock::wall());
    let value = |value: &replication::record::Value<'_>| CopyValue {
        node: value.dot.actor.node.0,
        incarnation: value.dot.actor.incarnation.0,
        seq: value.dot.seq,
        at_ms: value.hlc.wall().0,
        bytes: value.bytes.len() as u64,
    };
    let digest = record.digest();
    Ok(KeyCopy {
        values: view.values.iter().map(value).collect(),
        counter: view.sum.and_then(|_| view.value()).map(|v| String::from_utf8_lossy(&v).into()),
        expires_ms: view.deadline.filter(|at| *at != replication::record::NEVER).map(|at| at.0),
        record_bytes: bytes.len() as u64,
        digest: format!("{:016x}{:016x}", digest.0, digest.1),
        read_us,
    })
}

/// The first key of a database in some slots. One that is deleted or has expired is none.
fn first_key(store: &Store, keyspace: Keyspace, slots: &[Slot]) -> Result<Option<Bytes>, String> {
    let now = clock::wall();
    for slot in slots {
        let (start, end) = row::range_of(*slot, keyspace);
        let (mut start, end) = (Bytes::from(start), Bytes::from(end));
        loop {
            let (slot, reverse) = (*slot, false);
            let (rows, bytes) = (EMPTY_ROWS, BIG_BYTES);
            let span = Span { slot, keyspace, start, end: end.clone(), reverse, rows, bytes };
            let (rows, next) = store.read_span(&span).map_err(|e| e.to_string())?;
            for (row, record) in &rows {
                let record = Record::decode(record).ok_or("a record cannot be read")?;
                if !row::is_clock(row) && record.view(now).exists() {
                    return Ok(Some(row::key_of(row).map(Bytes::from).unwrap_or_default()));
                }
            }
            if next.is_empty() {
                break;
            }
            start = next;
        }
    }
    Ok(None)
}

fn big(
    store: &Store,
    slots: &[Slot],
    from: &[u8],
    count: usize,
    next: Option<Slot>,
) -> Result<BigKeys, String> {
    let now = clock::wall();
    let mut told = BigKeys::default();
    let mut left = i64::from(BIG_BYTES);
    for (place, slot) in slots.iter().enumerate() {
        let from = if place == 0 { from } else { &[] };
        let bytes = u32::try_from(left.max(1)).unwrap_or(1);
        let (rows, go_on) = store.read_rows(*slot, from, bytes).map_err(|e| e.to_string())?;
        for (row, record) in &rows {
            left -= (row.len() + record.len()) as i64;
            told.read += u64::from(note(row, record, now, &mut told.keys));
        }
        if told.keys.len() > 4 * BIG_KEYS_MAX {
            keep_largest(&mut told.keys, count);
        }
        if !go_on.is_empty() {
            told.next = Some((slot.0, go_on));
        } else if left <= 0 && place + 1 < slots.len() {
            told.next = Some((slots[place + 1].0, Bytes::new()));
        }
        if told.next.is_some() {
            break;
        }
    }
    told.next = told.next.or(next.map(|slot| (slot.0, Bytes::new())));
    keep_largest(&mut told.keys, count);
    Ok(told)
}

/// Adds a key that exists.
fn note(row: &[u8], bytes: &[u8], now: ring::WallMillis, keys: &mut Vec<BigKey>) -> bool {
    let (Some(keyspace), Some(key)) = (row::keyspace_of(row), row::key_of(row)) else {
        return false;
    };
    let Some(record) = Record::decode(bytes).filter(|_| !row::is_clock(row)) else { return false };
    let view = record.view(now);
    if !view.exists() {
        return false;
    }
    let values = (view.values.len() as u64).max(u64::from(view.sum.is_some()));
    keys.push(BigKey { keyspace, key: key.into(), bytes: bytes.len() as u64, values });
    true
}

fn keep_largest(keys: &mut Vec<BigKey>, count: usize) {
    keys.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.key.cmp(&b.key)));
    keys.truncate(count);
}

fn unauthorised(identity: &certs::Identity) -> ClientReply {
    ClientReply::Error(ErrorReply {
        code: ErrorCode::Unauthorised,
        what: "only administrators may ask this".to_owned(),
        why: format!("the certificate is that of {identity}"),
        fix: "use a certificate of role admin: ringctl cert issue NAME --role admin".to_owned(),
    })
}

fn failed(why: String) -> ClientReply {
    ClientReply::Error(ErrorReply {
        code: ErrorCode::Internal,
        what: "this node cannot tell".to_owned(),
        why,
        fix: "look at the node's log".to_owned(),
    })
}
