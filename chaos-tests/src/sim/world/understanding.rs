//! What speakers make of replies: each must be what its command can be answered with, and what it
//! says is checked like what other clients hear.

use std::collections::BTreeSet;

use bytes::Bytes;
use wire::resp::Reply;

use super::World;
use super::speakers::is_own;
use crate::check::errors::{self, Told};
use crate::check::{cells, durability, expiry, reads, session, transactions};
use crate::history::{Ask, Asked, CELL_BYTES, End};
use crate::workload::{FLUSHED, Form, LARGE_SLOT_KEYS, Wanted, flushed_slots};

/// What is promised of replies.
const FITS: &str = "each command gets its own reply";

impl World {
    /// A reply has come for what was next to be answered.
    pub(crate) fn understand(&mut self, speaker: usize, wanted: &Wanted, reply: Reply) {
        let line = match &reply {
            Reply::Error(line) => Some(line.to_string()),
            _ => None,
        };
        if let Some(line) = line {
            return self.refused(speaker, wanted, &line);
        }
        match *wanted {
            Wanted::Ok => {}
            Wanted::Unwatched => {
                self.fits(is_ok(&reply), wanted, &reply);
                self.no_longer_watching(speaker);
            }
            Wanted::Queued => self.fits(reply == Reply::QUEUED, wanted, &reply),
            Wanted::Exactly(ref text) => {
                let same = match &reply {
                    Reply::Bulk(bytes) => bytes == text,
                    Reply::Simple(simple) => simple.as_bytes() == text,
                    _ => false,
                };
                self.fits(same, wanted, &reply);
            }
            Wanted::Request(op, form) => self.answered(speaker, op, form, &reply),
            Wanted::Exec(ref parts, ref watched) => match reply {
                Reply::Null | Reply::NullArray => {
                    self.fits(!watched.is_empty(), wanted, &reply);
                    for op in wanted.ops() {
                        self.request_ends(speaker, op, End::Failed);
                    }
                    self.no_longer_watching(speaker);
                }
                Reply::Array(items) if items.len() == parts.len() => {
                    for (row, since) in watched {
                        self.trace.mix(&[row.len() as u64, *since]);
                    }
                    self.executed(speaker, parts, watched, &items);
                    self.no_longer_watching(speaker);
                }
                _ => self.fits(false, wanted, &reply),
            },
            Wanted::Watched(op, ref rows) => {
                self.fits(is_ok(&reply), wanted, &reply);
                self.request_ends(speaker, op, End::Done);
                let now = self.now;
                if let Some(line) = &mut self.speakers[speaker].line {
                    line.watching = rows.iter().map(|row| (row.clone(), now)).collect();
                }
            }
            Wanted::Page(op) => self.page(speaker, op, reply),
            Wanted::Keys(op, tag) => {
                let Some(asked) = self.request_ends(speaker, op, End::Done) else { return };
                let found = match reply {
                    Reply::Array(items) => keys_of(&items),
                    other => return self.fits(false, wanted, &other),
                };
                let strong = asked.read + asked.write > 3;
                let checked = self.scans.check_all(&found, asked.at, Some(tag), strong);
                if let Err(text) = checked {
                    self.truth.breaks("KEYS finds what was there throughout", text);
                }
            }
            Wanted::Size(op) => {
                self.request_ends(speaker, op, End::Done);
                match reply {
                    Reply::Integer(size) if size >= 0 => self.sizes.push(size as u64),
                    other => self.fits(false, wanted, &other),
                }
            }
            Wanted::Acks(op, of) => {
                self.request_ends(speaker, op, End::Done);
                match reply {
                    // Three copies, of which one coordinates.
                    Reply::Integer(acks @ 0..=2) => self.held_by(of, acks as u8 + 1),
                    other => self.fits(false, wanted, &other),
                }
            }
            Wanted::Flushed(op) => {
                self.fits(is_ok(&reply), wanted, &reply);
                let Some(asked) = self.request_ends(speaker, op, End::Done) else { return };
                let slots: Vec<_> = flushed_slots(&self.profile).collect();
                for slot in slots {
                    reads::flushed(&mut self.truth, slot, FLUSHED, &asked, self.now);
                }
            }
        }
    }

    fn fits(&mut self, fits: bool, wanted: &Wanted, reply: &Reply) {
        if !fits {
            self.truth.breaks(FITS, format!("{wanted:?} got {reply:?}"));
        }
    }

    fn no_longer_watching(&mut self, speaker: usize) {
        if let Some(line) = &mut self.speakers[speaker].line {
            line.watching.clear();
        }
    }

    /// An error: the requests behind the command end as it says.
    fn refused(&mut self, speaker: usize, wanted: &Wanted, line: &str) {
        if matches!(wanted, Wanted::Exec(..)) {
            self.no_longer_watching(speaker);
        }
        if let Some(l) = &mut self.speakers[speaker].line {
            l.refused = true;
        }
        let end = match errors::told(line) {
            Told::Nothing => End::Failed,
            Told::Perhaps => End::Unknown,
            Told::Undocumented => {
                self.truth.breaks(errors::PROMISE, format!("{wanted:?} got {line}"));
                return;
            }
        };
        for op in wanted.ops() {
            self.request_ends(speaker, op, end);
        }
    }

    /// A transaction was carried out: all of one slot, or nothing of it.
    fn executed(
        &mut self,
        speaker: usize,
        parts: &[(u64, Form)],
        watched: &[(replication::row::Row, u64)],
        items: &[Reply],
    ) {
        let mut ops: Vec<u64> = parts.iter().map(|(op, _)| *op).collect();
        ops.dedup();
        for op in ops {
            let of_op: Vec<(Form, &Reply)> = parts
                .iter()
                .zip(items)
                .filter(|((o, _), _)| *o == op)
                .map(|((_, form), reply)| (*form, reply))
                .collect();
            let told: Vec<Option<Told>> = of_op
                .iter()
                .map(|(_, reply)| match reply {
                    Reply::Error(line) => Some(errors::told(line)),
                    _ => None,
                })
                .collect();
            if told.iter().any(|t| *t != told[0]) {
                let text = format!("request {op} of s{speaker} got {of_op:?}");
                self.truth.breaks("a transaction on one slot is carried out whole or not", text);
                return;
            }
            match told[0] {
                Some(Told::Nothing) => drop(self.request_ends(speaker, op, End::Failed)),
                Some(Told::Perhaps) => drop(self.request_ends(speaker, op, End::Unknown)),
                Some(Told::Undocumented) => {
                    self.truth.breaks(errors::PROMISE, format!("{of_op:?}"));
                }
                None => {
                    let Some(asked) = self.request_ends(speaker, op, End::Done) else { return };
                    durability::acknowledged(&mut self.truth, op, &asked, self.now);
                    transactions::watched(&mut self.truth, &asked, op, watched);
                    for (form, reply) in of_op {
                        self.check_form(op, form, reply);
                        if form == Form::Number {
                            // Of several keys the counter is the last.
                            let rows = asked.rows.last().into_iter().cloned().collect();
                            let asked = Asked { rows, ..asked.clone() };
                            self.check_number(&asked, reply);
                        }
                    }
                }
            }
        }
    }

    fn check_form(&mut self, op: u64, form: Form, reply: &Reply) {
        let fits = match form {
            Form::Done => is_ok(reply),
            Form::SetIf { .. } => is_ok(reply) || is_null(reply),
            Form::Previous | Form::Value => is_null(reply) || matches!(reply, Reply::Bulk(_)),
            Form::Flag | Form::SetFlag => matches!(reply, Reply::Integer(0 | 1)),
            Form::Deleted => matches!(reply, Reply::Integer(0..=4)),
            Form::Number => matches!(reply, Reply::Integer(_)),
            Form::Decimal | Form::Context => matches!(reply, Reply::Bulk(_)),
            Form::Length => matches!(reply, Reply::Integer(0..)),
            Form::Values => matches!(reply, Reply::Array(_)),
            Form::WithContext => matches!(reply, Reply::Array(items) if items.len() == 2),
            Form::Siblings => matches!(reply, Reply::Array(_) | Reply::Map(_)),
        };
        if !fits {
            let asked = self.history.get(op);
            self.truth.breaks(FITS, format!("{asked:?}, {form:?}, got {reply:?}"));
        }
    }

    /// A counter's new value as its writer was told: nothing that nobody added is in it.
    fn check_number(&mut self, asked: &Asked, reply: &Reply) {
        let shown = match reply {
            Reply::Integer(n) => Bytes::from(n.to_string()),
            Reply::Bulk(text) => text.clone(),
            _ => return,
        };
        // The coordinator counts what it has, which need not be all that is sure.
        let asked = Asked { read: 0, ..asked.clone() };
        if let Err(text) = self.counters.check(&asked, Some(&shown)) {
            self.truth.breaks("a counter lies between what is sure and what may be", text);
        }
    }

    /// A request was done, and this came back.
    fn answered(&mut self, speaker: usize, op: u64, form: Form, reply: &Reply) {
        self.check_form(op, form, reply);
        let Some(asked) = self.request_ends(speaker, op, End::Done) else { return };
        if self.truth.broken.is_some() {
            return;
        }
        let now = self.now;
        durability::acknowledged(&mut self.truth, op, &asked, now);
        if let Ask::Expiring(step) = asked.ask {
            return self.own_step(speaker, step, &asked, reply);
        }
        match form {
            Form::Done => match asked.ask {
                Ask::Set => self.overwrites(speaker, op, &asked),
                Ask::Settle => {
                    self.scans.settled(&asked.rows, now);
                    let settled = asked.rows.len() as u64;
                    self.speakers[speaker].settled += settled;
                    debug_assert!(self.speakers[speaker].settled <= LARGE_SLOT_KEYS);
                }
                _ => {}
            },
            Form::Value => self.value(&asked, bulk_of(reply)),
            Form::Values => {
                let Reply::Array(items) = reply else { return };
                let shown: Vec<Option<Bytes>> =
                    items.iter().map(|item| bulk_of(item).cloned()).collect();
                for (row, value) in asked.rows.iter().zip(&shown) {
                    let asked = Asked { rows: vec![row.clone()], ..asked.clone() };
                    reads::winner(&mut self.truth, &asked, now, value.as_ref());
                }
                let both = asked.rows.iter().all(|row| is_of_kind(row, b'm'));
                if both {
                    transactions::pair(&mut self.truth, &self.history, &asked, &shown);
                }
            }
            Form::SetIf { absent: true } if is_ok(reply) => {
                reads::found_nothing(&mut self.truth, &asked, op);
            }
            Form::SetFlag if *reply == Reply::Integer(1) => {
                reads::found_nothing(&mut self.truth, &asked, op);
            }
            Form::Flag => {
                let was = *reply == Reply::Integer(1);
                if asked.ask == Ask::Delete {
                    reads::deleted(&mut self.truth, &asked, now, was);
                }
            }
            Form::Deleted => {
                let Reply::Integer(count) = reply else { return };
                let all = *count as usize == asked.rows.len();
                for row in asked.rows.iter().filter(|_| all || *count == 0) {
                    let asked = Asked { rows: vec![row.clone()], ..asked.clone() };
                    reads::deleted(&mut self.truth, &asked, now, all);
                }
            }
            Form::Number | Form::Decimal => self.check_number(&asked, reply),
            Form::Length => {
                let cells = asked.rows.iter().all(|row| is_of_kind(row, b'x'));
                if let Reply::Integer(length) = reply
                    && cells
                    && *length % CELL_BYTES as i64 != 0
                {
                    let text = format!("{asked:?} told {length} bytes");
                    self.truth.breaks(cells::PROMISE, text);
                }
            }
            Form::WithContext => {
                let Reply::Array(items) = reply else { return };
                self.value(&asked, bulk_of(&items[0]));
                self.keep_context(speaker, &asked, bulk_of(&items[1]));
            }
            Form::Siblings => {
                let Some((values, context)) = siblings_of(reply) else {
                    self.truth.breaks(FITS, format!("{asked:?} got {reply:?}"));
                    return;
                };
                reads::siblings(&mut self.truth, &asked, now, &values);
                self.keep_context(speaker, &asked, Some(&context));
            }
            Form::SetIf { .. } | Form::SetFlag | Form::Previous | Form::Context => {}
        }
    }

    fn keep_context(&mut self, speaker: usize, asked: &Asked, context: Option<&Bytes>) {
        if let (Some(row), Some(context)) = (asked.rows.first(), context) {
            self.speakers[speaker].contexts.insert(row.clone(), context.clone());
        }
    }

    /// A value was shown.
    fn value(&mut self, asked: &Asked, shown: Option<&Bytes>) {
        let now = self.now;
        if asked.ask == Ask::Sum {
            if let Err(text) = self.counters.check(asked, shown) {
                self.truth.breaks("a counter lies between what is sure and what may be", text);
            }
            return;
        }
        if let Some(value) = shown
            && asked.rows.iter().all(|row| is_of_kind(row, b'x'))
            && let Err(text) = cells::check(&self.history, asked, value)
        {
            self.truth.breaks(cells::PROMISE, text);
            return;
        }
        reads::winner(&mut self.truth, asked, now, shown);
        if asked.ask == Ask::GetDelete {
            reads::deleted(&mut self.truth, asked, now, shown.is_some());
        }
    }

    /// A session that sets a key twice through one process replaces what it set first.
    fn overwrites(&mut self, speaker: usize, op: u64, asked: &Asked) {
        let me = &mut self.speakers[speaker];
        let Some(line) = &me.line else { return };
        let here = (op, me.node, line.life);
        for row in &asked.rows {
            let before = me.last_set.insert(row.clone(), here);
            let Some((first, node, life)) = before else { continue };
            if (node, life) == (here.1, here.2) {
                session::replaces(&mut self.truth, row, first, op);
            }
        }
    }

    fn own_step(
        &mut self,
        speaker: usize,
        step: crate::history::Step,
        asked: &Asked,
        reply: &Reply,
    ) {
        use crate::history::Step;
        if !is_own(&self.speakers[speaker], speaker, asked) {
            return;
        }
        let was_there = match (step, reply) {
            (Step::Get | Step::GetPersist | Step::GetUntil(_), Reply::Bulk(_)) => Some(true),
            (Step::Get | Step::GetPersist | Step::GetUntil(_), reply) if is_null(reply) => {
                Some(false)
            }
            (Step::Get | Step::Expire(_) | Step::ExpireFor(_), Reply::Integer(flag)) => {
                Some(*flag == 1)
            }
            _ => None,
        };
        let stepped = self.stepped(step, asked, was_there);
        if let Err(text) = expiry::step(&mut self.speakers[speaker].own, &stepped) {
            self.truth.breaks(expiry::PROMISE, text);
        }
    }

    /// A page of a walk over all keys.
    fn page(&mut self, speaker: usize, op: u64, reply: Reply) {
        let Some(asked) = self.request_ends(speaker, op, End::Done) else { return };
        let Reply::Array(mut items) = reply else {
            self.truth.breaks(FITS, format!("SCAN got {reply:?}"));
            return;
        };
        let (keys, cursor) = (items.pop(), items.pop());
        let (Some(Reply::Array(keys)), Some(Reply::Bulk(cursor))) = (keys, cursor) else {
            self.truth.breaks(FITS, "SCAN got no page".to_owned());
            return;
        };
        let Some(mut walk) = self.speakers[speaker].walk.take() else { return };
        walk.found.extend(keys_of(&keys));
        walk.strong &= asked.read + asked.write > 3;
        if &cursor[..] != b"0" {
            walk.cursor = cursor;
            self.speakers[speaker].walk = Some(walk);
            return;
        }
        self.walks += 1;
        if let Err(text) = self.scans.check_all(&walk.found, walk.since, None, walk.strong) {
            self.truth.breaks("a scan finds what was there throughout", text);
        }
        self.walked = Some(walk.found);
    }

    /// So many replicas hold a write: a read that asks few enough of them meets one.
    fn held_by(&mut self, op: u64, copies: u8) {
        let asked = self.history.get(op);
        if asked.end != End::Done {
            return;
        }
        for i in self.truth.of_op(op) {
            let m = self.truth.get_mut(i);
            if m.acked.is_some_and(|(_, known)| known < copies) {
                m.acked = Some((self.now, copies));
            }
        }
    }
}

fn is_ok(reply: &Reply) -> bool {
    *reply == Reply::OK
}

const fn is_null(reply: &Reply) -> bool {
    matches!(reply, Reply::Null | Reply::NullArray)
}

const fn bulk_of(reply: &Reply) -> Option<&Bytes> {
    match reply {
        Reply::Bulk(bytes) => Some(bytes),
        _ => None,
    }
}

fn keys_of(items: &[Reply]) -> BTreeSet<Bytes> {
    items.iter().filter_map(|item| bulk_of(item).cloned()).collect()
}

/// True if the key behind a row is of this kind: the letter behind its hash tag.
pub(crate) fn is_of_kind(row: &[u8], kind: u8) -> bool {
    let key = replication::row::key_of(row).unwrap_or_default();
    let behind = key.iter().position(|b| *b == b'}');
    behind.and_then(|at| key.get(at + 1)) == Some(&kind)
}

/// The values and the context of RING.SIBLINGS, in either version of the protocol.
fn siblings_of(reply: &Reply) -> Option<(Vec<Bytes>, Bytes)> {
    let pairs: Vec<(Reply, Reply)> = match reply {
        Reply::Map(pairs) => pairs.clone(),
        Reply::Array(items) => {
            items.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
        }
        _ => return None,
    };
    let of = |name: &[u8], pairs: &[(Reply, Reply)]| {
        pairs.iter().find(|(k, _)| bulk_of(k).is_some_and(|k| k == name)).map(|(_, v)| v.clone())
    };
    let Reply::Array(siblings) = of(b"siblings", &pairs)? else { return None };
    let context = bulk_of(&of(b"context", &pairs)?)?.clone();
    let mut values = Vec::new();
    for sibling in siblings {
        let pairs: Vec<(Reply, Reply)> = match sibling {
            Reply::Map(pairs) => pairs,
            Reply::Array(items) => {
                items.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
            }
            _ => return None,
        };
        values.push(bulk_of(&of(b"value", &pairs)?)?.clone());
    }
    Some((values, context))
}
