//! Talk: the next pipeline of a speaker, as commands of Redis.

use bytes::Bytes;
use replication::row::Row;
use ring::{Level, Slot};

use super::client::Fate;
use super::compose::needed;
use super::speaker::{Form, Speaker, Walk, Wanted};
use super::{key_of, row_of, slot_of};
use crate::history::{Ask, CELL_BYTES, Step, cell_of, value_of};
use crate::profile::Profile;
use crate::sim::chance::Chance;
use crate::sim::clock::true_wall;

/// How much of what speakers say; weights.
#[derive(Clone, Debug, Default)]
pub struct TalkMix {
    /// SET.
    pub set: u64,
    /// GET.
    pub get: u64,
    /// DEL, UNLINK, GETDEL.
    pub del: u64,
    /// SETNX, SET with options, GETSET, APPEND.
    pub conditional: u64,
    /// The RING family.
    pub siblings: u64,
    /// INCR, INCRBY, DECRBY.
    pub counter: u64,
    /// INCRBYFLOAT.
    pub decimal: u64,
    /// SETRANGE and APPEND of cells.
    pub cells: u64,
    /// MSET and MGET over slots.
    pub many: u64,
    /// Transactions on one slot, and reads of their keys.
    pub pair: u64,
    /// Transactions over several slots.
    pub across: u64,
    /// WATCH, and writes to keys that are watched.
    pub watch: u64,
    /// Keys that expire.
    pub expiry: u64,
    /// SET and WAIT.
    pub wait: u64,
    /// ECHO, PING and other talk.
    pub chat: u64,
    /// SCAN.
    pub scan: u64,
    /// DBSIZE and KEYS.
    pub size: u64,
    /// FLUSHDB of a keyspace of its own.
    pub flush: u64,
}

impl TalkMix {
    fn weights(&self) -> [u64; 18] {
        [
            self.set,
            self.get,
            self.del,
            self.conditional,
            self.siblings,
            self.counter,
            self.decimal,
            self.cells,
            self.many,
            self.pair,
            self.across,
            self.watch,
            self.expiry,
            self.wait,
            self.chat,
            self.scan,
            self.size,
            self.flush,
        ]
    }
}

/// What the checks are told of a request.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What it is.
    pub ask: Ask,
    /// Its keys.
    pub rows: Vec<Row>,
    /// How many copies its reads ask.
    pub read: u8,
    /// How many copies its writes wait for.
    pub write: u8,
}

/// One command.
#[derive(Clone, Debug)]
pub struct Utterance {
    /// Its words.
    pub words: Vec<Bytes>,
    /// What must come back.
    pub wanted: Wanted,
    /// The requests that it begins, in order.
    pub begins: Vec<Draft>,
}

/// Keys of the slot that is so large that scans of it are cut.
pub const LARGE_SLOT_KEYS: u64 = 1_050;

/// How many of them one MSET settles.
const SETTLED_AT_ONCE: u64 = 150;

struct Talk<'a> {
    profile: &'a Profile,
    speaker: &'a mut Speaker,
    me: usize,
    now: u64,
    next_op: u64,
    read: Level,
    write: Level,
    /// Levels in front of the next command.
    with: Option<(Level, Level)>,
    said: Vec<Utterance>,
}

/// Composes the next pipeline of speaker `me`, whose requests are numbered from `next_op`.
pub fn talk(
    profile: &Profile,
    speaker: &mut Speaker,
    (me, next_op, now): (usize, u64, u64),
    c: &mut Chance,
) -> Vec<Utterance> {
    let Some(line) = &speaker.line else { return Vec::new() };
    let (read, write) = (line.read, line.write);
    let watching = line.watching.clone();
    let mut t =
        Talk { profile, speaker, me, now, next_op, read, write, with: None, said: Vec::new() };
    if profile.large_slot && me == 0 && t.speaker.settled < LARGE_SLOT_KEYS {
        t.settle();
        return t.said;
    }
    if !watching.is_empty() {
        t.after_watch(watching, c);
        return t.said;
    }
    let pipeline = c.between(1, profile.pipeline);
    while (t.said.len() as u64) < pipeline {
        if t.one(c) {
            break;
        }
    }
    t.said
}

fn words(all: &[&[u8]]) -> Vec<Bytes> {
    all.iter().map(|w| Bytes::copy_from_slice(w)).collect()
}

impl Talk<'_> {
    fn say(&mut self, words: Vec<Bytes>, wanted: Wanted) {
        self.said.push(Utterance { words, wanted, begins: Vec::new() });
    }

    fn levels(&self) -> (u8, u8) {
        let (read, write) = self.with.unwrap_or((self.read, self.write));
        (needed(read), needed(write))
    }

    fn draft(&self, ask: Ask, rows: Vec<Row>) -> Draft {
        let (read, write) = self.levels();
        Draft { ask, rows, read, write }
    }

    /// A command that is one request.
    fn ask(&mut self, ask: Ask, rows: Vec<Row>, form: Form, words: Vec<Bytes>) {
        let wanted = Wanted::Request(self.next_op, form);
        self.begin(self.draft(ask, rows), wanted, words);
    }

    fn begin(&mut self, draft: Draft, wanted: Wanted, mut words: Vec<Bytes>) {
        self.next_op += 1;
        if let Some((read, write)) = self.with.take() {
            let mut all = vec![Bytes::from_static(b"WITH")];
            if read == write {
                all.push(Bytes::from(read.to_string()));
            } else {
                all.push(Bytes::from(format!("r={read}")));
                all.push(Bytes::from(format!("w={write}")));
            }
            all.append(&mut words);
            words = all;
        }
        self.said.push(Utterance { words, wanted, begins: vec![draft] });
    }

    /// Creates keys that stay, many at a time, in one slot.
    fn settle(&mut self) {
        let first = self.speaker.settled;
        let value = value_of(self.next_op);
        let mut all = words(&[b"MSET"]);
        let mut rows = Vec::new();
        for number in first..first + SETTLED_AT_ONCE {
            // Beside those that other clients settle.
            all.push(key_of('s', 0, 100 + number));
            all.push(value.clone());
            rows.push(row_of(0, 's', 0, 100 + number));
        }
        self.ask(Ask::Settle, rows, Form::Done, all);
    }

    /// Says one thing; true if nothing else may be said with it.
    fn one(&mut self, c: &mut Chance) -> bool {
        let (profile, op) = (self.profile, self.next_op);
        let tag = c.below(profile.tags);
        let number = c.below(profile.keys);
        let (key, row) = (key_of('k', tag, number), row_of(0, 'k', tag, number));
        let value = value_of(op);
        if profile.mixed_levels && c.hits(300_000) {
            let mut one = || c.pick(&[Level::One, Level::Quorum, Level::All]);
            self.with = Some((one(), one()));
        }
        let weights = profile.talk.weights();
        let mut at = c.below(weights.iter().sum());
        let kind = weights.iter().position(|w| {
            let hit = at < *w;
            at = at.saturating_sub(*w);
            hit
        });
        match kind {
            None | Some(0) => {
                self.ask(Ask::Set, vec![row], Form::Done, words(&[b"SET", &key, &value]));
            }
            Some(1) => self.ask(Ask::Get, vec![row], Form::Value, words(&[b"GET", &key])),
            Some(2) => match c.below(3) {
                0 => self.ask(Ask::Delete, vec![row], Form::Flag, words(&[b"DEL", &key])),
                1 => self.ask(Ask::Delete, vec![row], Form::Flag, words(&[b"UNLINK", &key])),
                _ => self.ask(Ask::GetDelete, vec![row], Form::Value, words(&[b"GETDEL", &key])),
            },
            Some(3) => self.conditional(&key, row, &value, c),
            Some(4) => self.siblings(&key, row, &value, c),
            Some(5) => self.counter(tag, number, c),
            Some(6) => self.decimal(tag, number, c),
            Some(7) => self.cells(tag, number % 2, c),
            Some(8) => self.many(number, c),
            Some(9) => self.pair(tag, number, c),
            Some(10) => self.across(number, c),
            Some(11) => return self.watch(tag, c),
            Some(12) => self.expiring(c),
            Some(13) => {
                self.with = None;
                self.ask(Ask::Set, vec![row], Form::Done, words(&[b"SET", &key, &value]));
                let copies = c.between(1, 2);
                let ms = self.profile.patience_ns / 2_000_000;
                let draft = self.draft(Ask::Count, Vec::new());
                let all = [&b"WAIT"[..], copies.to_string().as_bytes(), ms.to_string().as_bytes()]
                    .map(Bytes::copy_from_slice);
                self.begin(draft, Wanted::Acks(self.next_op, op), all.to_vec());
            }
            Some(14) => self.chat(c),
            Some(15) => return self.scan(c),
            Some(16) => {
                self.with = None;
                if c.coin() {
                    let draft = self.draft(Ask::Count, Vec::new());
                    self.begin(draft, Wanted::Size(op), words(&[b"DBSIZE"]));
                } else {
                    let draft = self.draft(Ask::Scan, Vec::new());
                    let pattern = format!("{{t{tag}}}s*");
                    let all = words(&[b"KEYS", pattern.as_bytes()]);
                    self.begin(draft, Wanted::Keys(op, tag), all);
                }
            }
            Some(_) => {
                self.with = None;
                let draft = self.draft(Ask::Count, Vec::new());
                self.say(words(&[b"SELECT", b"1"]), Wanted::Ok);
                self.begin(draft, Wanted::Flushed(op), words(&[b"FLUSHDB"]));
                self.say(words(&[b"SELECT", b"0"]), Wanted::Ok);
                return true;
            }
        }
        false
    }

    fn conditional(&mut self, key: &[u8], row: Row, value: &[u8], c: &mut Chance) {
        let rows = vec![row];
        let op = self.next_op;
        match c.below(6) {
            0 => self.ask(Ask::Write, rows, Form::SetFlag, words(&[b"SETNX", key, value])),
            1 => {
                let form = Form::SetIf { absent: true };
                self.ask(Ask::Write, rows, form, words(&[b"SET", key, value, b"NX"]));
            }
            2 => {
                let form = Form::SetIf { absent: false };
                self.ask(Ask::Write, rows, form, words(&[b"SET", key, value, b"XX"]));
            }
            3 => self.ask(Ask::Write, rows, Form::Previous, words(&[b"GETSET", key, value])),
            4 => {
                self.ask(Ask::Write, rows, Form::Previous, words(&[b"SET", key, value, b"GET"]));
            }
            _ => {
                let more = format!("+{op}");
                let all = words(&[b"APPEND", key, more.as_bytes()]);
                self.ask(Ask::Write, rows, Form::Length, all);
            }
        }
    }

    fn siblings(&mut self, key: &[u8], row: Row, value: &[u8], c: &mut Chance) {
        match self.speaker.contexts.remove(&row) {
            Some(token) => {
                let all = match c.below(4) {
                    0 => words(&[b"RING.DEL", key, b"CTX", &token]),
                    1 => words(&[b"RING.RESOLVE", key, &token, value]),
                    _ => words(&[b"RING.SET", key, value, b"CTX", &token]),
                };
                self.ask(Ask::WithContext, vec![row], Form::Context, all);
            }
            None if c.coin() => {
                self.ask(Ask::Siblings, vec![row], Form::Siblings, words(&[b"RING.SIBLINGS", key]));
            }
            None => {
                let all = words(&[b"RING.GET", key, b"WITHCTX"]);
                self.ask(Ask::Get, vec![row], Form::WithContext, all);
            }
        }
    }

    fn counter(&mut self, tag: u64, number: u64, c: &mut Chance) {
        let (key, row) = (key_of('c', tag, number), row_of(0, 'c', tag, number));
        match c.below(6) {
            0 | 1 => self.ask(Ask::Sum, vec![row], Form::Value, words(&[b"GET", &key])),
            2 | 3 => self.ask(Ask::Add(1), vec![row], Form::Number, words(&[b"INCR", &key])),
            4 => {
                let by = c.between(1, 9);
                let all = words(&[b"INCRBY", &key, by.to_string().as_bytes()]);
                self.ask(Ask::Add(by as i64), vec![row], Form::Number, all);
            }
            _ => {
                let by = c.between(1, 3);
                let all = words(&[b"DECRBY", &key, by.to_string().as_bytes()]);
                self.ask(Ask::Add(-(by as i64)), vec![row], Form::Number, all);
            }
        }
    }

    fn decimal(&mut self, tag: u64, number: u64, c: &mut Chance) {
        let (key, row) = (key_of('d', tag, number), row_of(0, 'd', tag, number));
        if c.hits(300_000) {
            return self.ask(Ask::Sum, vec![row], Form::Value, words(&[b"GET", &key]));
        }
        let thousandths = c.between(1, 9_999) as i64 - 3_000;
        let sign = if thousandths < 0 { "-" } else { "" };
        let (whole, rest) = (thousandths.abs() / 1_000, thousandths.abs() % 1_000);
        let by = format!("{sign}{whole}.{rest:03}");
        let all = words(&[b"INCRBYFLOAT", &key, by.as_bytes()]);
        self.ask(Ask::AddThousandths(thousandths), vec![row], Form::Decimal, all);
    }

    fn cells(&mut self, tag: u64, number: u64, c: &mut Chance) {
        let (key, row) = (key_of('x', tag, number), row_of(0, 'x', tag, number));
        let (rows, cell) = (vec![row], cell_of(self.next_op));
        match c.below(8) {
            0 | 1 => {
                self.ask(Ask::Cell(None), rows, Form::Length, words(&[b"APPEND", &key, &cell]));
            }
            2 | 3 => {
                let offset = c.below(6) * CELL_BYTES as u64;
                let text = offset.to_string();
                let all = words(&[b"SETRANGE", &key, text.as_bytes(), &cell]);
                self.ask(Ask::Cell(Some(offset)), rows, Form::Length, all);
            }
            4 => self.ask(Ask::Delete, rows, Form::Flag, words(&[b"DEL", &key])),
            5 => self.ask(Ask::Count, rows, Form::Length, words(&[b"STRLEN", &key])),
            _ => self.ask(Ask::Get, rows, Form::Value, words(&[b"GET", &key])),
        }
    }

    /// MSET, MGET and DEL over as many slots as there are tags, four at most.
    fn many(&mut self, number: u64, c: &mut Chance) {
        let tags = self.profile.tags.min(4);
        let value = value_of(self.next_op);
        let rows = (0..tags).map(|tag| row_of(0, 'k', tag, number)).collect::<Vec<_>>();
        let keys = (0..tags).map(|tag| key_of('k', tag, number));
        match c.below(5) {
            0 | 1 => {
                let pairs = keys.flat_map(|key| [key, value.clone()]);
                let all = words(&[b"MSET"]).into_iter().chain(pairs).collect();
                self.ask(Ask::Set, rows, Form::Done, all);
            }
            2 => {
                let all = words(&[b"DEL"]).into_iter().chain(keys).collect();
                self.ask(Ask::Delete, rows, Form::Deleted, all);
            }
            _ => {
                let all = words(&[b"MGET"]).into_iter().chain(keys).collect();
                self.ask(Ask::GetMany, rows, Form::Values, all);
            }
        }
    }

    /// A transaction on one slot, or a read of what such transactions write.
    fn pair(&mut self, tag: u64, number: u64, c: &mut Chance) {
        let number = number % 2;
        let (op, value) = (self.next_op, value_of(self.next_op));
        let places = [2 * number, 2 * number + 1];
        let keys = places.map(|n| key_of('m', tag, n));
        let rows = places.map(|n| row_of(0, 'm', tag, n));
        match c.below(5) {
            0 | 1 => {
                let all = words(&[b"MGET", &keys[0], &keys[1]]);
                self.ask(Ask::GetMany, rows.to_vec(), Form::Values, all);
            }
            2 | 3 => {
                let draft = self.draft(Ask::Pair, rows.to_vec());
                let with = self.with.take();
                self.say(words(&[b"MULTI"]), Wanted::Ok);
                self.say(words(&[b"SET", &keys[0], &value]), Wanted::Queued);
                self.say(words(&[b"SET", &keys[1], &value]), Wanted::Queued);
                self.with = with;
                let parts = vec![(op, Form::Done), (op, Form::Done)];
                self.begin(draft, Wanted::Exec(parts, Vec::new()), words(&[b"EXEC"]));
            }
            _ => {
                let (k, other) = (number, (number + 1) % self.profile.keys.max(2));
                let rows = vec![
                    row_of(0, 'k', tag, k),
                    row_of(0, 'k', tag, other),
                    row_of(0, 'c', tag, k),
                ];
                let draft = self.draft(Ask::Multi(2), rows);
                let with = self.with.take();
                self.say(words(&[b"MULTI"]), Wanted::Ok);
                self.say(words(&[b"SET", &key_of('k', tag, k), &value]), Wanted::Queued);
                self.say(words(&[b"SET", &key_of('k', tag, other), &value]), Wanted::Queued);
                self.say(words(&[b"INCRBY", &key_of('c', tag, k), b"2"]), Wanted::Queued);
                self.with = with;
                let parts = vec![(op, Form::Done), (op, Form::Done), (op, Form::Number)];
                self.begin(draft, Wanted::Exec(parts, Vec::new()), words(&[b"EXEC"]));
            }
        }
    }

    /// A transaction over several slots: of each slot a request of its own.
    fn across(&mut self, number: u64, c: &mut Chance) {
        let tags = self.profile.tags.min(3);
        let with = self.with;
        let mut begins = Vec::new();
        let mut parts = Vec::new();
        let mut queued = Vec::new();
        for tag in 0..tags {
            let op = self.next_op + tag;
            let (rows, ask, form, all) = if c.hits(700_000) {
                let all = words(&[b"SET", &key_of('k', tag, number), &value_of(op)]);
                (vec![row_of(0, 'k', tag, number)], Ask::Write, Form::Done, all)
            } else {
                let all = words(&[b"INCR", &key_of('c', tag, number)]);
                (vec![row_of(0, 'c', tag, number)], Ask::Add(1), Form::Number, all)
            };
            begins.push(self.draft(ask, rows));
            parts.push((op, form));
            queued.push(all);
        }
        self.with = None;
        self.say(words(&[b"MULTI"]), Wanted::Ok);
        for all in queued {
            self.say(all, Wanted::Queued);
        }
        self.with = with;
        let first = begins.remove(0);
        self.begin(first, Wanted::Exec(parts, Vec::new()), words(&[b"EXEC"]));
        self.next_op += begins.len() as u64;
        let exec = self.said.last_mut().expect("said just now");
        exec.begins.append(&mut begins);
    }

    /// Watches one or two keys, or writes to one that others may watch.
    fn watch(&mut self, tag: u64, c: &mut Chance) -> bool {
        let number = c.below(2);
        let (key, row) = (key_of('w', tag, number), row_of(0, 'w', tag, number));
        let op = self.next_op;
        if c.coin() || !self.said.is_empty() {
            let value = value_of(op);
            self.ask(Ask::Set, vec![row], Form::Done, words(&[b"SET", &key, &value]));
            return false;
        }
        self.with = None;
        let mut all = words(&[b"WATCH", &key]);
        let mut rows = vec![row];
        if c.coin() {
            let other = (tag + 1) % self.profile.tags;
            all.push(key_of('w', other, 1 - number));
            rows.push(row_of(0, 'w', other, 1 - number));
        }
        let draft = self.draft(Ask::Count, rows.clone());
        self.begin(draft, Wanted::Watched(op, rows.clone()), all);
        self.ask(Ask::Get, rows[..1].to_vec(), Form::Value, words(&[b"GET", &key]));
        true
    }

    /// The transaction that a WATCH was for.
    fn after_watch(&mut self, watching: Vec<(Row, u64)>, c: &mut Chance) {
        if c.hits(100_000) {
            return self.say(words(&[b"UNWATCH"]), Wanted::Unwatched);
        }
        let row = watching[0].0.clone();
        let key = replication::row::key_of(&row).unwrap_or_default();
        let (op, value) = (self.next_op, value_of(self.next_op));
        let draft = self.draft(Ask::Write, vec![row]);
        self.say(words(&[b"MULTI"]), Wanted::Ok);
        self.say(words(&[b"SET", &key, &value]), Wanted::Queued);
        self.begin(draft, Wanted::Exec(vec![(op, Form::Done)], watching), words(&[b"EXEC"]));
    }

    /// The next step with the speaker's own key.
    fn expiring(&mut self, c: &mut Chance) {
        let (own, me) = (self.speaker.own, self.me as u64);
        let tag = (me + own.generation) % self.profile.tags;
        let number = own_number(self.me, own.generation);
        let (key, row) = (key_of('e', tag, number), row_of(0, 'e', tag, number));
        let value = value_of(self.next_op);
        let ms = c.pick(&[1_500, 5_000, 3_600_000]);
        let until = true_wall(self.now) + ms;
        let (at, lasting) = (until.to_string(), ms.to_string());
        let (at, lasting) = (at.as_bytes(), lasting.as_bytes());
        let fresh = own.fate == Fate::Fresh;
        // What decides who may be asked must be one level throughout.
        self.with = None;
        let (step, form, all) = match c.below(if fresh { 4 } else { 14 }) {
            0 => (Step::Set, Form::Done, words(&[b"SET", &key, &value])),
            1 => (Step::SetUntil(until), Form::Done, words(&[b"SET", &key, &value, b"PXAT", at])),
            2 => (Step::SetFor(ms), Form::Done, words(&[b"PSETEX", &key, lasting, &value])),
            3 => (Step::SetFor(ms), Form::Done, words(&[b"SET", &key, &value, b"PX", lasting])),
            4 => (Step::Expire(until), Form::Flag, words(&[b"PEXPIREAT", &key, at])),
            5 => (Step::ExpireFor(ms), Form::Flag, words(&[b"PEXPIRE", &key, lasting])),
            6 => (Step::Persist, Form::Flag, words(&[b"PERSIST", &key])),
            7 => (Step::GetPersist, Form::Value, words(&[b"GETEX", &key, b"PERSIST"])),
            8 => (Step::GetUntil(until), Form::Value, words(&[b"GETEX", &key, b"PXAT", at])),
            9 => (Step::Get, Form::Flag, words(&[b"EXISTS", &key])),
            _ => (Step::Get, Form::Value, words(&[b"GET", &key])),
        };
        self.ask(Ask::Expiring(step), vec![row], form, all);
    }

    fn chat(&mut self, c: &mut Chance) {
        self.with = None;
        match c.below(6) {
            0 => self.say(words(&[b"PING"]), Wanted::Exactly(Bytes::from_static(b"PONG"))),
            1 => self.say(words(&[b"CLIENT", b"ID"]), Wanted::Ok),
            2 => {
                self.say(words(&[b"MULTI"]), Wanted::Ok);
                let key = key_of('a', 0, 0);
                self.say(words(&[b"SET", &key, b"never"]), Wanted::Queued);
                self.say(words(&[b"DISCARD"]), Wanted::Ok);
            }
            _ => {
                let text = Bytes::from(format!("e{}.{}", self.me, c.next()));
                self.say(words(&[b"ECHO", &text]), Wanted::Exactly(text.clone()));
            }
        }
    }

    /// The next page of a scan over all keys.
    fn scan(&mut self, c: &mut Chance) -> bool {
        if self.said.iter().any(|u| matches!(u.wanted, Wanted::Page(_))) {
            return true;
        }
        self.with = None;
        let (now, op) = (self.now, self.next_op);
        let walk = self.speaker.walk.get_or_insert_with(|| Walk {
            since: now,
            cursor: Bytes::from_static(b"0"),
            strong: true,
            found: std::collections::BTreeSet::new(),
        });
        let count = c.pick(&[10u64, 100, 500]).to_string();
        let all = words(&[b"SCAN", &walk.cursor.clone(), b"COUNT", count.as_bytes()]);
        let draft = self.draft(Ask::Scan, Vec::new());
        self.begin(draft, Wanted::Page(op), all);
        true
    }
}

/// The number of a speaker's own key; other clients have lower ones.
#[must_use]
pub const fn own_number(me: usize, generation: u64) -> u64 {
    (1_000 + me as u64) * 1_000_000 + generation
}

/// The slots in which speakers flush keys.
pub fn flushed_slots(profile: &Profile) -> impl Iterator<Item = Slot> {
    (0..profile.tags).map(slot_of)
}
