//! Pending: the commands of one connection that are not answered yet.
//!
//! Two promises. Replies leave in the order of the commands, whenever they are ready. And a command
//! starts only once every earlier one that touches one of its keys, one of the two writing, has
//! ended; commands on other keys run at the same time. A *barrier* (DBSIZE, EXEC, WAIT) waits for
//! all before it, and all after it wait for the barrier.
//!
//! Keys queue in the order of their commands, and a command joins all its queues at once, so nobody
//! can wait for somebody behind. Keys are known by a hash: two that collide wait for each other
//! without need, which does no harm.

use std::collections::VecDeque;

use replication::row::Row;
use ring::Instant;
use smallvec::SmallVec;

use crate::job::Job;
use crate::turn::Ask;

/// Places for commands that a connection keeps between two pipelines.
const ENTRIES_KEPT: usize = 16;

/// A key that a command touches, and whether it writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Touch {
    pub(crate) key: u64,
    pub(crate) writes: bool,
}

/// What a command may collide with.
#[derive(Clone, Debug)]
pub(crate) enum Footprint {
    /// Everything.
    Barrier,
    /// These keys, each once.
    Keys(SmallVec<[Touch; 1]>),
}

/// How far a command has come.
#[derive(Debug)]
pub(crate) enum Stage {
    /// It waits for others.
    Held(Job),
    /// It waits for the peer.
    Running(Job),
    /// It has ended; its reply waits for its turn.
    Ended,
}

/// An unanswered command.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its place in the command table.
    pub(crate) place: usize,
    pub(crate) ask: Ask,
    pub(crate) started: Instant,
    /// Whether its reply is to be swallowed.
    pub(crate) silent: bool,
    pub(crate) next_part: u32,
    pub(crate) stage: Stage,
    pub(crate) footprint: Footprint,
    /// The first of its keys, for the slow log.
    pub(crate) subject: Option<Row>,
    pub(crate) reply: Vec<u8>,
    /// What it holds in memory beside its reply, about.
    pub(crate) bytes: usize,
    locks_missing: usize,
}

impl Entry {
    pub(crate) const fn new(
        place: usize,
        ask: Ask,
        silent: bool,
        stage: Stage,
        footprint: Footprint,
        bytes: usize,
    ) -> Self {
        let started = ask.now.mono;
        Self {
            place,
            ask,
            started,
            silent,
            next_part: 0,
            stage,
            footprint,
            subject: None,
            reply: Vec::new(),
            bytes,
            locks_missing: 0,
        }
    }
}

/// A key that somebody holds or waits for.
#[derive(Debug, Default)]
struct Lock {
    key: u64,
    readers: usize,
    writer: bool,
    waiting: VecDeque<(u64, bool)>,
}

/// All unanswered commands of a connection.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    entries: VecDeque<Entry>,
    /// The number of the first entry.
    first: u64,
    /// Commands that a barrier keeps from even queueing for their keys.
    held: VecDeque<u64>,
    /// Commands that may start now.
    ready: VecDeque<u64>,
    /// By key. Most often there is one, so it is no tree, whose nodes would come and go with it.
    locks: Vec<Lock>,
    /// Commands past the barriers that have not ended.
    admitted: usize,
    barrier_runs: bool,
    bytes: usize,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes that are held, about.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back memory that was needed for more commands at a time than there are now.
    pub(crate) fn rest(&mut self) {
        self.entries.shrink_to_fit();
        self.held.shrink_to_fit();
        self.ready.shrink_to_fit();
        self.locks.shrink_to_fit();
    }

    /// All are answered: what a deep pipeline took is given back at once, since thousands of clients
    /// may have sent one.
    pub(crate) fn ease(&mut self) {
        if self.entries.capacity() > ENTRIES_KEPT {
            self.entries.shrink_to(ENTRIES_KEPT);
            self.held.shrink_to(ENTRIES_KEPT);
            self.ready.shrink_to(ENTRIES_KEPT);
            self.locks.shrink_to(ENTRIES_KEPT);
        }
    }

    /// Takes in a command.
    pub(crate) fn push(&mut self, entry: Entry) {
        let seq = self.first + self.entries.len() as u64;
        self.bytes += entry.bytes + entry.reply.len();
        let ended = matches!(entry.stage, Stage::Ended);
        self.entries.push_back(entry);
        if !ended {
            self.held.push_back(seq);
            self.admit();
        }
    }

    /// Puts a reply behind that of the latest command, if that one has ended and is heard: for commands
    /// that are answered on the spot, many in a row. False if it must be taken in.
    pub(crate) fn reply_behind(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(latest) = self.entries.back_mut() else { return false };
        let joins = matches!(latest.stage, Stage::Ended) && !latest.silent;
        if joins {
            let before = latest.reply.len();
            write(&mut latest.reply);
            self.bytes += latest.reply.len() - before;
        }
        joins
    }

    pub(crate) fn get(&mut self, seq: u64) -> Option<&mut Entry> {
        let at = seq.checked_sub(self.first)?;
        self.entries.get_mut(usize::try_from(at).ok()?)
    }

    /// Whether this command is the next to be answered.
    pub(crate) const fn is_first(&self, seq: u64) -> bool {
        seq == self.first
    }

    /// A command that may start now.
    pub(crate) fn next_ready(&mut self) -> Option<u64> {
        self.ready.pop_front()
    }

    /// The command has ended, with this reply beside what was sent already.
    pub(crate) fn end(&mut self, seq: u64, reply: Vec<u8>) {
        self.bytes += reply.len();
        let entry = self.get(seq).expect("a command ends once, before it is answered");
        entry.stage = Stage::Ended;
        entry.reply = reply;
        let held = core::mem::take(&mut entry.bytes);
        let footprint = core::mem::replace(&mut entry.footprint, Footprint::Keys(SmallVec::new()));
        self.bytes -= held;
        self.admitted -= 1;
        match footprint {
            Footprint::Barrier => self.barrier_runs = false,
            Footprint::Keys(touches) => {
                for touch in touches {
                    self.release(touch);
                }
            }
        }
        self.admit();
    }

    /// The reply of the first command, if it has ended, and whether it is to be swallowed.
    pub(crate) fn pop_ended(&mut self) -> Option<(Vec<u8>, bool)> {
        if !matches!(self.entries.front()?.stage, Stage::Ended) {
            return None;
        }
        let entry = self.entries.pop_front()?;
        self.first += 1;
        self.bytes -= entry.reply.len() + entry.bytes;
        Some((entry.reply, entry.silent))
    }

    fn admit(&mut self) {
        while let Some(seq) = self.held.front().copied() {
            if self.barrier_runs {
                return;
            }
            let entry = self.get(seq).expect("a held command has not ended");
            match &entry.footprint {
                Footprint::Barrier => {
                    if self.admitted > 0 {
                        return;
                    }
                    self.barrier_runs = true;
                    self.ready.push_back(seq);
                }
                Footprint::Keys(touches) => {
                    let touches = touches.clone();
                    let missing = touches.iter().filter(|t| !self.acquire(seq, **t)).count();
                    self.get(seq).expect("still there").locks_missing = missing;
                    if missing == 0 {
                        self.ready.push_back(seq);
                    }
                }
            }
            self.admitted += 1;
            self.held.pop_front();
        }
    }

    fn acquire(&mut self, seq: u64, touch: Touch) -> bool {
        let at = self.locks.binary_search_by_key(&touch.key, |lock| lock.key);
        let at = at.unwrap_or_else(|at| {
            self.locks.insert(at, Lock { key: touch.key, ..Lock::default() });
            at
        });
        let lock = &mut self.locks[at];
        let free = if touch.writes { lock.readers == 0 } else { true };
        if free && !lock.writer && lock.waiting.is_empty() {
            if touch.writes {
                lock.writer = true;
            } else {
                lock.readers += 1;
            }
            return true;
        }
        lock.waiting.push_back((seq, touch.writes));
        false
    }

    fn release(&mut self, touch: Touch) {
        let at = self.locks.binary_search_by_key(&touch.key, |lock| lock.key);
        let at = at.expect("what is released was acquired");
        let lock = &mut self.locks[at];
        if touch.writes {
            lock.writer = false;
        } else {
            lock.readers -= 1;
        }
        let mut granted: SmallVec<[u64; 4]> = SmallVec::new();
        while let Some((seq, writes)) = lock.waiting.front().copied() {
            if lock.writer || (writes && lock.readers > 0) {
                break;
            }
            if writes {
                lock.writer = true;
            } else {
                lock.readers += 1;
            }
            lock.waiting.pop_front();
            granted.push(seq);
        }
        if lock.readers == 0 && !lock.writer {
            self.locks.remove(at);
        }
        for seq in granted {
            let entry = self.get(seq).expect("who waits for a key has not ended");
            entry.locks_missing -= 1;
            if entry.locks_missing == 0 {
                self.ready.push_back(seq);
            }
        }
    }
}
