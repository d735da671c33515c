//! Turn: what a command sees while it is carried out, and what a connection remembers between two.

use core::time::Duration;
use std::sync::Arc;

use replication::op::WriteHandle;
use replication::record::Digest;
use replication::row::{Keyspace, Row};
use replication::{Request, Task};
use ring::{Instant, Now, Slot};
use smallvec::SmallVec;
use wire::resp::Protocol;
use wire::resp::encode;

use crate::acl::Account;
use crate::bugs::Bug;
use crate::errors::Fault;
use crate::host::{ClientFacts, Host};
use crate::levels::Levels;
use crate::limits::WAITED_WRITES_MAX;
use crate::session::{SessionDefaults, Submit};
use crate::transactions::Queue;

/// How a command was asked, fixed when it came: what follows it on the connection cannot change it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) now: Now,
    /// How long it may take once it begins: what it waited for the node before is taken off.
    pub(crate) timeout: Duration,
    /// When it must have ended; known once it begins.
    pub(crate) deadline: Instant,
    pub(crate) keyspace: Keyspace,
    pub(crate) protocol: Protocol,
    pub(crate) levels: Levels,
    pub(crate) bulk_bytes_max: u64,
    /// Seals contexts: [`Host::context_secret`].
    pub(crate) context_secret: [u8; 16],
}

impl Ask {
    /// A task with these levels and nothing in it yet.
    pub(crate) fn task(&self, slot: Slot) -> Task {
        Task {
            slot,
            keyspace: self.keyspace,
            ops: Vec::new(),
            watches: Vec::new(),
            atomic: false,
            read: self.levels.read,
            write: self.levels.write,
            durability: self.levels.durability,
            after: None,
        }
    }
}

/// Whether replies are sent: CLIENT REPLY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Replies {
    #[default]
    On,
    Off,
    SkipNext,
}

/// A watched key as it was.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    /// Which of the connection's successive sets of watches it belongs to.
    pub(crate) generation: u64,
    pub(crate) keyspace: Keyspace,
    pub(crate) row: Row,
    pub(crate) digest: Digest,
}

/// What a connection remembers.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) id: u64,
    pub(crate) defaults: Arc<SessionDefaults>,
    pub(crate) protocol: Protocol,
    pub(crate) keyspace: Keyspace,
    /// Who it is, once that is known.
    pub(crate) user: Option<String>,
    /// The user's account, and the version of all accounts as of which that holds.
    pub(crate) account: Option<Arc<Account>>,
    pub(crate) account_version: Option<u64>,
    pub(crate) name: String,
    pub(crate) lib_name: String,
    pub(crate) lib_version: String,
    pub(crate) levels: Levels,
    pub(crate) replies: Replies,
    pub(crate) queue: Option<Queue>,
    pub(crate) watch_generation: u64,
    pub(crate) watched: Vec<Watched>,
    /// The writes of the latest command that wrote, for WAIT.
    pub(crate) last_writes: SmallVec<[WriteHandle; 1]>,
    /// Which command that was.
    pub(crate) last_writer: u64,
    pub(crate) closing: bool,
    /// Empty but in the simulator.
    pub(crate) bugs: Vec<Bug>,
    chance: u64,
}

impl State {
    pub(crate) fn new(id: u64, defaults: Arc<SessionDefaults>, seed: u64) -> Self {
        let user = (!defaults.auth_required).then(|| "default".to_owned());
        Self {
            id,
            protocol: Protocol::Resp2,
            keyspace: 0,
            user,
            account: None,
            account_version: None,
            name: String::new(),
            lib_name: String::new(),
            lib_version: String::new(),
            levels: defaults.levels,
            replies: Replies::On,
            queue: None,
            watch_generation: 0,
            watched: Vec::new(),
            last_writes: SmallVec::new(),
            last_writer: 0,
            closing: false,
            bugs: Vec::new(),
            chance: seed,
            defaults,
        }
    }

    /// As if it had just connected: RESET.
    pub(crate) fn reset(&mut self) {
        let generation = self.watch_generation + 1;
        let (lib_name, lib_version) =
            (std::mem::take(&mut self.lib_name), std::mem::take(&mut self.lib_version));
        let last = (std::mem::take(&mut self.last_writes), self.last_writer);
        let bugs = std::mem::take(&mut self.bugs);
        *self = Self::new(self.id, Arc::clone(&self.defaults), self.random());
        self.watch_generation = generation;
        (self.lib_name, self.lib_version) = (lib_name, lib_version);
        (self.last_writes, self.last_writer) = last;
        self.bugs = bugs;
    }

    pub(crate) fn facts(&self) -> ClientFacts {
        ClientFacts {
            id: self.id,
            name: self.name.clone(),
            user: self.user.clone().unwrap_or_default(),
            keyspace: self.keyspace,
            protocol: self.protocol,
            lib_name: self.lib_name.clone(),
            lib_version: self.lib_version.clone(),
        }
    }

    /// The next of a fixed sequence of numbers that looks like chance (SplitMix64).
    pub(crate) const fn random(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn account_levels(&self) -> Levels {
        self.account.as_ref().map_or_else(Levels::default, |account| account.levels)
    }

    /// Follows changes of accounts. A user that is gone is known no more.
    pub(crate) fn follow_accounts(&mut self, host: &dyn Host) {
        let version = Some(host.accounts_version());
        if self.account_version == version {
            return;
        }
        self.account_version = version;
        self.account = self.user.as_ref().and_then(|user| host.account(user));
        if self.account.is_none() {
            self.user = None;
        }
    }

    /// From now on it is this user.
    pub(crate) fn is_user(&mut self, name: String) {
        self.user = Some(name);
        self.account_version = None;
    }

    /// Whether a mistake was planted.
    pub(crate) fn has_bug(&self, bug: Bug) -> bool {
        self.bugs.contains(&bug)
    }

    pub(crate) fn ask(&self, now: Now, levels: Levels, host: &dyn Host) -> Ask {
        let timeout = Duration::from_micros(self.defaults.timeout_us);
        let timeout = timeout.saturating_sub(host.waited());
        Ask {
            now,
            timeout,
            deadline: now.mono + timeout,
            keyspace: self.keyspace,
            protocol: self.protocol,
            levels: levels.or(self.levels).or(self.account_levels()),
            bulk_bytes_max: self.defaults.bulk_bytes_max,
            context_secret: host.context_secret(),
        }
    }
}

/// What a command sees that is answered on the spot.
pub(crate) struct Turn<'a> {
    pub(crate) now: Now,
    pub(crate) state: &'a mut State,
    pub(crate) host: &'a mut dyn Host,
    pub(crate) reply: &'a mut Vec<u8>,
}

impl Turn<'_> {
    pub(crate) fn ok(&mut self) {
        encode::write_ok(self.reply);
    }

    pub(crate) fn fail(&mut self, fault: &Fault) {
        encode::write_error(self.reply, &fault.to_string());
    }

    pub(crate) fn integer(&mut self, number: i64) {
        encode::write_integer(self.reply, number);
    }

    pub(crate) fn bulk(&mut self, bytes: impl AsRef<[u8]>) {
        encode::write_bulk(self.reply, bytes.as_ref());
    }

    pub(crate) fn null(&mut self) {
        encode::write_null(self.reply, self.state.protocol);
    }

    pub(crate) fn map(&mut self, pairs: usize) {
        encode::write_map(self.reply, self.state.protocol, pairs);
    }

    /// Answers `CONTAINER HELP`; `rest` is what stands behind it, which must be nothing.
    pub(crate) fn help(&mut self, container: &str, rest: &[&[u8]], lines: &[&str]) {
        if let Err(fault) = write_help(self.reply, container, rest, lines) {
            self.fail(&fault);
        }
    }

    /// A text for people.
    pub(crate) fn text(&mut self, text: &str) {
        encode::write_verbatim(self.reply, self.state.protocol, *b"txt", text.as_bytes());
    }
}

/// The answer to `CONTAINER HELP`; `rest` is what stands behind it, which must be nothing.
pub(crate) fn write_help(
    reply: &mut Vec<u8>,
    container: &str,
    rest: &[&[u8]],
    lines: &[&str],
) -> Result<(), Fault> {
    if !rest.is_empty() {
        let command = format!("{}|help", container.to_ascii_lowercase());
        return Err(Fault::Arity { command });
    }
    encode::write_array(reply, 1 + lines.len());
    let head = format!("{container} <subcommand> [<arg> ...]. Subcommands are:");
    encode::write_simple(reply, &head);
    for line in lines {
        encode::write_simple(reply, line);
    }
    Ok(())
}

/// What a command sees that asks the peer and waits.
pub(crate) struct Flow<'a> {
    pub(crate) turn: Turn<'a>,
    pub(crate) ask: Ask,
    /// The command's number on its connection.
    pub(crate) seq: u64,
    pub(crate) next_part: &'a mut u32,
    pub(crate) submits: &'a mut Vec<Submit>,
}

/// Bits of a request's id that number the requests of one command.
pub(crate) const PART_BITS: u32 = 24;

impl Flow<'_> {
    /// Asks the peer; the answer comes with the number that is returned.
    pub(crate) fn submit(&mut self, request: Request) -> u32 {
        let left = self.ask.deadline.since(self.turn.now.mono);
        self.submit_within(request, u64::try_from(left.as_micros()).unwrap_or(u64::MAX))
    }

    /// The same for one step of a walk over all keys, which takes as long as there are keys: each
    /// step has the time that another command has.
    pub(crate) fn submit_step(&mut self, request: Request) -> u32 {
        let timeout_us = self.turn.state.defaults.timeout_us;
        self.submit_within(request, timeout_us)
    }

    pub(crate) fn submit_within(&mut self, request: Request, timeout_us: u64) -> u32 {
        let part = *self.next_part;
        *self.next_part += 1;
        let id = (self.seq << PART_BITS) | u64::from(part);
        self.submits.push(Submit { id, request, timeout_us });
        part
    }

    /// Remembers a write for WAIT.
    pub(crate) fn wrote(&mut self, write: Option<WriteHandle>) {
        let Some(write) = write else { return };
        let state = &mut *self.turn.state;
        if self.seq < state.last_writer {
            return;
        }
        if self.seq > state.last_writer {
            state.last_writer = self.seq;
            state.last_writes.clear();
        }
        if state.last_writes.len() < WAITED_WRITES_MAX {
            state.last_writes.push(write);
        }
    }

    /// Answers with an error.
    pub(crate) fn fail(&mut self, fault: &Fault) {
        self.turn.fail(fault);
    }
}
