//! Scan: SCAN, KEYS and RANDOMKEY, which walk the slots in order.
//!
//! The cursor of SCAN is 1 + (slot << 48 | hash), so it needs no memory on any node; 0 begins and
//! ends. A call takes whole slots until COUNT is reached. Nearly empty keyspaces are walked with a
//! growing number of groups at once, so that a scan over nothing does not take 64 round trips.

use std::collections::BTreeMap;

use bytes::Bytes;
use replication::{Answer, Request};
use ring::{GROUPS, SLOTS, Slot};
use wire::resp::encode;

use crate::args;
use crate::bugs::Bug;
use crate::errors::Fault;
use crate::glob;
use crate::job::{Job, Step, end_with_failure};
use crate::limits::{KEYS_BYTES_MAX, SCAN_COUNT_MAX, SWEEP_PAGE_KEYS, SWEEP_WINDOW_MAX};
use crate::turn::{Ask, Flow, State};
use crate::whole::first_slot;

/// How many keys SCAN looks at unless it is told.
const SCAN_COUNT_DEFAULT: u32 = 10;

const HASH_BITS: u32 = 48;

type Position = (Slot, u64);

/// Keys, and where to go on.
type Page = (Vec<Bytes>, Option<Position>);

/// What a walk is for.
#[derive(Debug)]
enum Purpose {
    /// SCAN.
    List { pattern: Option<Vec<u8>> },
    /// RANDOMKEY; `wrapped` once it went on from the first slot.
    PickOne { wrapped: bool },
}

/// A walk from a place onward until enough keys are seen.
#[derive(Debug)]
pub(crate) struct ScanJob {
    purpose: Purpose,
    from: Position,
    count: u32,
    window: u32,
    keys: Vec<Bytes>,
    /// Requests of this wave, in the order of their groups.
    wave: BTreeMap<u32, Option<Page>>,
    left: usize,
}

pub(crate) fn scan(_state: &mut State, _ask: &Ask, args: &[&[u8]]) -> Result<Job, Fault> {
    let from = from_cursor(args[1]).ok_or(Fault::Fixed("ERR invalid cursor"))?;
    let mut count = SCAN_COUNT_DEFAULT;
    let mut pattern = None;
    let mut only_others = false;
    let mut options = args[2..].chunks_exact(2);
    for option in options.by_ref() {
        let (name, value) = (option[0], option[1]);
        if args::is(name, "count") {
            let wanted = args::integer(value)?;
            if wanted < 1 {
                return Err(Fault::Syntax);
            }
            count = u32::try_from(wanted).unwrap_or(u32::MAX).min(SCAN_COUNT_MAX);
        } else if args::is(name, "match") {
            pattern = (value != b"*").then(|| value.to_vec());
        } else if args::is(name, "type") {
            only_others = !args::is(value, "string");
        } else {
            return Err(Fault::Syntax);
        }
    }
    if !options.remainder().is_empty() {
        return Err(Fault::Syntax);
    }
    // No key has another type: past the last slot there is nothing to find.
    let from = if only_others { (Slot(SLOTS), 0) } else { from };
    Ok(walk(Purpose::List { pattern }, from, count))
}

pub(crate) fn randomkey(state: &mut State, _ask: &Ask, _args: &[&[u8]]) -> Result<Job, Fault> {
    let slot = Slot((state.random() % u64::from(SLOTS)) as u16);
    let hash = state.random() >> (64 - HASH_BITS);
    Ok(walk(Purpose::PickOne { wrapped: false }, (slot, hash), 1))
}

fn walk(purpose: Purpose, from: Position, count: u32) -> Job {
    let (keys, wave) = (Vec::new(), BTreeMap::new());
    Job::Scan(Box::new(ScanJob { purpose, from, count, window: 1, keys, wave, left: 0 }))
}

fn from_cursor(text: &[u8]) -> Option<Position> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let cursor: u64 = core::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()?;
    let Some(place) = cursor.checked_sub(1) else { return Some((Slot(0), 0)) };
    let slot = place >> HASH_BITS;
    // A cursor of nobody's making is past the end rather than an error, as on Redis.
    let slot = Slot(u16::try_from(slot).unwrap_or(SLOTS).min(SLOTS));
    Some((slot, place & ((1 << HASH_BITS) - 1)))
}

fn to_cursor(position: Option<Position>) -> u64 {
    match position {
        Some((slot, hash)) if slot.0 < SLOTS => 1 + (u64::from(slot.0) << HASH_BITS | hash),
        _ => 0,
    }
}

impl ScanJob {
    pub(crate) fn start(&mut self, flow: &mut Flow<'_>) -> Step {
        if self.from.0.0 >= SLOTS {
            return self.past_the_end(flow);
        }
        let first = u32::from(self.from.0.group());
        let window = self.window.min(u32::from(GROUPS) - first);
        self.wave.clear();
        self.left = window as usize;
        for group in first..first + window {
            let (from, from_hash) =
                if group == first { self.from } else { (first_slot(group as u8), 0) };
            let count = self.count - self.keys.len() as u32;
            let (keyspace, level) = (flow.ask.keyspace, flow.ask.levels.read);
            let part = flow.submit_step(Request::Scan { keyspace, from, from_hash, count, level });
            self.wave.insert(part, None);
        }
        Step::Waits
    }

    pub(crate) fn on_answer(&mut self, part: u32, answer: Answer, flow: &mut Flow<'_>) -> Step {
        let Answer::Keys { keys, next } = answer else { return end_with_failure(&answer, flow) };
        let Some(place) = self.wave.get_mut(&part) else { return Step::Waits };
        *place = Some((keys, next));
        self.left -= 1;
        if self.left > 0 {
            return Step::Waits;
        }
        let groups = self.from.0.group()..;
        let wave = std::mem::take(&mut self.wave);
        for (group, (keys, next)) in groups.zip(wave.into_values().flatten()) {
            self.keys.extend(keys);
            self.from = next.unwrap_or((Slot(SLOTS), 0));
            if self.keys.len() >= self.count as usize {
                return self.enough(flow);
            }
            if self.from.0.0 < SLOTS && self.from.0.group() == group {
                // The replica stopped within its group: what was asked beyond it comes too early.
                return self.start(flow);
            }
        }
        self.window = (self.window * 2).min(SWEEP_WINDOW_MAX);
        self.start(flow)
    }

    fn past_the_end(&mut self, flow: &mut Flow<'_>) -> Step {
        if let Purpose::PickOne { wrapped: wrapped @ false } = &mut self.purpose {
            *wrapped = true;
            self.from = (Slot(0), 0);
            return self.start(flow);
        }
        self.enough(flow)
    }

    fn enough(&mut self, flow: &mut Flow<'_>) -> Step {
        match &self.purpose {
            Purpose::List { pattern } => {
                if let Some(pattern) = pattern {
                    self.keys.retain(|key| glob::matches(pattern, key, false));
                }
                encode::write_array(flow.turn.reply, 2);
                if flow.turn.state.has_bug(Bug::ScanSkipsCutSlot) && self.from.1 > 0 {
                    self.from = (Slot(self.from.0.0 + 1), 0);
                }
                flow.turn.bulk(to_cursor(Some(self.from)).to_string());
                encode::write_array(flow.turn.reply, self.keys.len());
                for key in &self.keys {
                    encode::write_bulk(flow.turn.reply, key);
                }
            }
            Purpose::PickOne { .. } => {
                let at = flow.turn.state.random() % (self.keys.len().max(1) as u64);
                match self.keys.get(at as usize) {
                    Some(key) => encode::write_bulk(flow.turn.reply, key),
                    None => encode::write_null(flow.turn.reply, flow.ask.protocol),
                }
            }
        }
        Step::Ended
    }
}

/// KEYS: every group, page by page, several groups at once.
#[derive(Debug)]
pub(crate) struct KeysJob {
    pattern: Vec<u8>,
    next_group: u8,
    /// The group of each request.
    running: BTreeMap<u32, u8>,
    keys: Vec<Bytes>,
    bytes: usize,
}

pub(crate) fn keys(_state: &mut State, _ask: &Ask, args: &[&[u8]]) -> Result<Job, Fault> {
    Ok(Job::Keys(Box::new(KeysJob {
        pattern: args[1].to_vec(),
        next_group: 0,
        running: BTreeMap::new(),
        keys: Vec::new(),
        bytes: 0,
    })))
}

impl KeysJob {
    pub(crate) fn start(&mut self, flow: &mut Flow<'_>) -> Step {
        while self.running.len() < SWEEP_WINDOW_MAX as usize && u16::from(self.next_group) < GROUPS
        {
            let group = self.next_group;
            self.next_group += 1;
            self.look(group, (first_slot(group), 0), flow);
        }
        if !self.running.is_empty() {
            return Step::Waits;
        }
        encode::write_array(flow.turn.reply, self.keys.len());
        for key in &self.keys {
            encode::write_bulk(flow.turn.reply, key);
        }
        Step::Ended
    }

    fn look(&mut self, group: u8, (from, from_hash): Position, flow: &mut Flow<'_>) {
        let part = flow.submit_step(Request::Scan {
            keyspace: flow.ask.keyspace,
            from,
            from_hash,
            count: SWEEP_PAGE_KEYS,
            level: flow.ask.levels.read,
        });
        self.running.insert(part, group);
    }

    pub(crate) fn on_answer(&mut self, part: u32, answer: Answer, flow: &mut Flow<'_>) -> Step {
        let Answer::Keys { keys, next } = answer else { return end_with_failure(&answer, flow) };
        let Some(group) = self.running.remove(&part) else { return Step::Waits };
        let all = self.pattern == b"*";
        for key in keys {
            if all || glob::matches(&self.pattern, &key, false) {
                self.bytes += key.len() + 32;
                self.keys.push(key);
            }
        }
        if self.bytes > KEYS_BYTES_MAX {
            flow.fail(&Fault::Line(format!(
                "ERR KEYS found more than {KEYS_BYTES_MAX} bytes of keys. fix: walk them with SCAN"
            )));
            return Step::Ended;
        }
        match next {
            Some(position) if position.0.group() == group && position.0.0 < SLOTS => {
                self.look(group, position, flow);
                Step::Waits
            }
            _ => self.start(flow),
        }
    }
}
