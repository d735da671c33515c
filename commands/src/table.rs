//! Table: every command there is, in the order of names: what it takes, what it is called for, and
//! the function that understands it.
//!
//! Names are found by a perfect-enough hash that the compiler builds, so that no command costs more
//! to find than another.

use core::ops::RangeInclusive;

use replication::row::Keyspace;

use crate::errors::Fault;
use crate::job::Job;
use crate::limits::NAME_BYTES_MAX;
use crate::ops::Asked;
use crate::turn::{Ask, State, Turn};
use crate::{
    acl, client, connection, counters, expiry, info, introspection, keys, ring_face, scan, server,
    strings, transactions, whole,
};

/// The keyspaces that SELECT reaches.
pub(crate) const KEYSPACES: RangeInclusive<Keyspace> = 0..=15;

/// It may change something.
pub(crate) const WRITE: u16 = 1;
/// It reads keys and changes nothing.
pub(crate) const READONLY: u16 = 2;
/// It may make memory grow.
pub(crate) const DENYOOM: u16 = 4;
/// It is for administrators.
pub(crate) const ADMIN: u16 = 8;
/// It works while the node is loading.
pub(crate) const LOADING: u16 = 16;
/// It takes constant time.
pub(crate) const FAST: u16 = 32;
/// It works before the client has said who it is.
pub(crate) const NO_AUTH: u16 = 64;
/// It is not for scripts.
pub(crate) const NOSCRIPT: u16 = 128;
/// It can do harm.
pub(crate) const DANGEROUS: u16 = 256;

const FLAG_NAMES: [(u16, &str); 8] = [
    (WRITE, "write"),
    (READONLY, "readonly"),
    (DENYOOM, "denyoom"),
    (ADMIN, "admin"),
    (NOSCRIPT, "noscript"),
    (LOADING, "loading"),
    (FAST, "fast"),
    (NO_AUTH, "no_auth"),
];

/// Makes the job of a command from its arguments.
type Plan = fn(&mut State, &Ask, &[&[u8]]) -> Result<Job, Fault>;

/// How a command is carried out.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// Ops on keys.
    Keys(fn(&Ask, &[&[u8]]) -> Result<Asked, Fault>),
    /// Ops on keys that need a look before.
    SetAll(fn(&Ask, &[&[u8]]) -> Result<Asked, Fault>),
    /// A job that waits for everything before it, and that everything after it waits for.
    Whole(Plan),
    /// Answered on the spot.
    Local(fn(&mut Turn<'_>, &[&[u8]])),
    /// Steers the session, also inside MULTI.
    Control(Control),
    /// Refused for ever, with a line that says what to do instead.
    Never(&'static str),
}

/// Commands that are never queued by MULTI.
#[derive(Clone, Copy)]
pub(crate) enum Control {
    With,
    Exec,
    Watch,
    /// Answered on the spot.
    Turn(fn(&mut Turn<'_>, &[&[u8]])),
}

/// A command.
#[derive(Clone, Copy)]
pub(crate) struct Spec {
    /// In lower case.
    pub(crate) name: &'static str,
    /// How many arguments, its name included; negative: at least so many.
    pub(crate) arity: i16,
    pub(crate) flags: u16,
    /// The places of the first and the last key and the step between; zeros: none.
    pub(crate) keys: (i16, i16, i16),
    pub(crate) group: &'static str,
    pub(crate) since: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) run: Run,
}

impl Spec {
    pub(crate) const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Whether it may have so many arguments, its name included.
    pub(crate) const fn takes(&self, args: usize) -> bool {
        let least = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { args >= least } else { args == least }
    }

    /// Whether it costs more than its bytes: it asks the peer, and is not queued by MULTI.
    pub(crate) const fn asks_peer(&self, queueing: bool) -> bool {
        match self.run {
            Keys(_) | SetAll(_) | Whole(_) => !queueing,
            Steer(Control::Exec | Control::Watch) => true,
            Local(_) | Run::Never(_) | Steer(Control::With | Control::Turn(_)) => false,
        }
    }

    pub(crate) fn flag_names(&self) -> Vec<&'static str> {
        FLAG_NAMES.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| *name).collect()
    }

    pub(crate) fn categories(&self) -> Vec<String> {
        let group = match (self.group, self.name) {
            ("generic", _) | ("server", "dbsize" | "flushall" | "flushdb") => Some("keyspace"),
            ("transactions", _) => Some("transaction"),
            ("server", "command") => Some("connection"),
            ("server", _) => self.has(ADMIN).then_some("admin"),
            (other, _) => Some(other),
        };
        let mut all: Vec<_> = group.map(|group| format!("@{group}")).into_iter().collect();
        for (flag, category) in [(WRITE, "@write"), (READONLY, "@read"), (DANGEROUS, "@dangerous")]
        {
            if self.has(flag) {
                all.push(category.to_owned());
            }
        }
        all.push(if self.has(FAST) { "@fast" } else { "@slow" }.to_owned());
        all
    }
}

const NONE: (i16, i16, i16) = (0, 0, 0);
const ONE: (i16, i16, i16) = (1, 1, 1);
const ALL: (i16, i16, i16) = (1, -1, 1);
const PAIRS: (i16, i16, i16) = (1, -1, 2);
const SECOND: (i16, i16, i16) = (2, 2, 1);

const fn spec(
    name: &'static str,
    arity: i16,
    flags: u16,
    keys: (i16, i16, i16),
    (group, since): (&'static str, &'static str),
    summary: &'static str,
    run: Run,
) -> Spec {
    Spec { name, arity, flags, keys, group, since, summary, run }
}

const fn never(name: &'static str, line: &'static str) -> Spec {
    let about = ("server", "1.0.0");
    let summary = "Not supported; the error says what to use instead.";
    spec(name, -1, ADMIN | NOSCRIPT | DANGEROUS, NONE, about, summary, Run::Never(line))
}

const NO_LEADER: &str = "ERR RingDB has no leader to follow: every node takes reads and writes. \
                         fix: use any of them; ringd.toml names the members";
const ALWAYS_SAVED: &str = "ERR RingDB writes every change to its log as it happens. fix: leave \
                            it out; to copy the data, stop a node and copy its data directory";
const NO_MOVING: &str = "ERR RingDB places keys itself, and keyspaces do not exchange keys. fix: \
                         read the key and write it where it is wanted";

use Run::{Control as Steer, Keys, Local, SetAll, Whole};

const R: u16 = READONLY;
const RF: u16 = READONLY | FAST;
const W: u16 = WRITE;
const WF: u16 = WRITE | FAST;
const WD: u16 = WRITE | DENYOOM;
const WDF: u16 = WRITE | DENYOOM | FAST;
const ANY: u16 = LOADING | FAST;
const HANDSHAKE: u16 = LOADING | FAST | NO_AUTH | NOSCRIPT;
const OFFICE: u16 = LOADING | ADMIN | NOSCRIPT | DANGEROUS;

/// Every command, in the order of names.
#[rustfmt::skip]
pub(crate) const TABLE: &[Spec] = &[
    spec("acl", -2, OFFICE, NONE, ("server", "6.0.0"), "Tells who the client is; shows and changes users.", Local(acl::command::acl)),
    spec("append", 3, WDF, ONE, ("string", "2.0.0"), "Appends to a value; creates it if there is none.", Keys(strings::append)),
    spec("auth", -2, HANDSHAKE, NONE, ("connection", "1.0.0"), "Says who the client is.", Local(connection::auth)),
    never("bgrewriteaof", ALWAYS_SAVED),
    never("bgsave", ALWAYS_SAVED),
    spec("client", -2, LOADING | NOSCRIPT, NONE, ("connection", "2.4.0"), "Names, lists and ends connections.", Local(client::client)),
    spec("cluster", -2, LOADING, NONE, ("cluster", "3.0.0"), "Tells the slot of a key; the rest belongs to cluster mode.", Local(server::cluster)),
    spec("command", -1, LOADING, NONE, ("server", "2.8.13"), "Describes commands.", Local(introspection::command)),
    spec("config", -2, OFFICE, NONE, ("server", "2.0.0"), "Shows and changes settings.", Local(server::config)),
    spec("consistency", -2, ANY, NONE, ("connection", "7.2.4"), "Sets how many replicas this connection's reads and writes wait for.", Local(ring_face::consistency)),
    spec("dbsize", 1, R, NONE, ("server", "1.0.0"), "Counts the keys of the keyspace.", Whole(whole::dbsize)),
    never("debug", "ERR DEBUG is not supported: a node has nothing to crash on purpose. fix: /metrics and ringctl status tell how it is"),
    spec("decr", 2, WDF, ONE, ("string", "1.0.0"), "Subtracts one from a counter.", Keys(counters::decr)),
    spec("decrby", 3, WDF, ONE, ("string", "1.0.0"), "Subtracts from a counter.", Keys(counters::decrby)),
    spec("del", -2, W, ALL, ("generic", "1.0.0"), "Deletes keys.", Keys(keys::del)),
    spec("discard", 1, ANY | NOSCRIPT, NONE, ("transactions", "2.0.0"), "Forgets a transaction.", Steer(Control::Turn(transactions::discard))),
    spec("echo", 2, ANY, NONE, ("connection", "1.0.0"), "Repeats a text.", Local(connection::echo)),
    spec("exec", 1, LOADING | NOSCRIPT, NONE, ("transactions", "1.2.0"), "Carries out a transaction.", Steer(Control::Exec)),
    spec("exists", -2, RF, ALL, ("generic", "1.0.0"), "Counts which of the keys exist.", Keys(keys::exists)),
    spec("expire", -3, WF, ONE, ("generic", "1.0.0"), "Sets the seconds a key has to live.", Keys(expiry::expire)),
    spec("expireat", -3, WF, ONE, ("generic", "1.2.0"), "Sets the second in which a key vanishes.", Keys(expiry::expireat)),
    spec("expiretime", 2, RF, ONE, ("generic", "7.0.0"), "Tells the second in which a key vanishes.", Keys(expiry::expiretime)),
    never("failover", NO_LEADER),
    spec("flushall", -1, W | DANGEROUS, NONE, ("server", "1.0.0"), "Deletes every key of every keyspace.", Whole(whole::flushall)),
    spec("flushdb", -1, W | DANGEROUS, NONE, ("server", "1.0.0"), "Deletes every key of the keyspace.", Whole(whole::flushdb)),
    spec("get", 2, RF, ONE, ("string", "1.0.0"), "Reads a value.", Keys(strings::get)),
    spec("getdel", 2, WF, ONE, ("string", "6.2.0"), "Reads a value and deletes it.", Keys(strings::getdel)),
    spec("getex", -2, WF, ONE, ("string", "6.2.0"), "Reads a value and changes its expiry.", Keys(strings::getex)),
    spec("getrange", 4, R, ONE, ("string", "2.4.0"), "Reads a part of a value.", Keys(strings::getrange)),
    spec("getset", 3, WDF, ONE, ("string", "1.0.0"), "Sets a value and tells the one before.", Keys(strings::getset)),
    spec("hello", -1, HANDSHAKE, NONE, ("connection", "6.0.0"), "Chooses the version of the protocol, and says who the client is.", Local(connection::hello)),
    spec("incr", 2, WDF, ONE, ("string", "1.0.0"), "Adds one to a counter.", Keys(counters::incr)),
    spec("incrby", 3, WDF, ONE, ("string", "1.0.0"), "Adds to a counter.", Keys(counters::incrby)),
    spec("incrbyfloat", 3, WDF, ONE, ("string", "2.6.0"), "Adds a decimal number to a counter.", Keys(counters::incrbyfloat)),
    spec("info", -1, LOADING | DANGEROUS, NONE, ("server", "1.0.0"), "Tells about the node.", Local(info::info)),
    spec("keys", 2, R | DANGEROUS, NONE, ("generic", "1.0.0"), "Lists the keys that fit a pattern.", Whole(scan::keys)),
    spec("lastsave", 1, ANY | ADMIN | DANGEROUS, NONE, ("server", "1.0.0"), "Tells when everything was last on disk.", Local(server::lastsave)),
    spec("latency", -2, OFFICE, NONE, ("server", "2.8.13"), "Lists no latency events: see the metrics.", Local(server::latency)),
    spec("memory", -2, R, SECOND, ("server", "4.0.0"), "Estimates the bytes that a key takes.", Keys(keys::memory)),
    spec("mget", -2, RF, ALL, ("string", "1.0.0"), "Reads several values.", Keys(strings::mget)),
    never("migrate", NO_MOVING),
    spec("module", -2, OFFICE, NONE, ("server", "4.0.0"), "Lists modules, of which there are none.", Local(server::module)),
    never("move", NO_MOVING),
    spec("mset", -3, WD, PAIRS, ("string", "1.0.1"), "Sets several values.", Keys(strings::mset)),
    spec("msetnx", -3, WD, PAIRS, ("string", "1.0.1"), "Sets several values if none of the keys exists.", SetAll(strings::msetnx)),
    spec("multi", 1, ANY | NOSCRIPT, NONE, ("transactions", "1.2.0"), "Begins a transaction.", Steer(Control::Turn(transactions::multi))),
    spec("object", -2, R, SECOND, ("generic", "2.2.3"), "Tells how a value would be kept by a Redis.", Keys(keys::object)),
    spec("persist", 2, WF, ONE, ("generic", "2.2.0"), "Removes a key's expiry.", Keys(expiry::persist)),
    spec("pexpire", -3, WF, ONE, ("generic", "2.6.0"), "Sets the milliseconds a key has to live.", Keys(expiry::pexpire)),
    spec("pexpireat", -3, WF, ONE, ("generic", "2.6.0"), "Sets the millisecond in which a key vanishes.", Keys(expiry::pexpireat)),
    spec("pexpiretime", 2, RF, ONE, ("generic", "7.0.0"), "Tells the millisecond in which a key vanishes.", Keys(expiry::pexpiretime)),
    spec("ping", -1, FAST, NONE, ("connection", "1.0.0"), "Answers, if the node serves.", Local(connection::ping)),
    spec("psetex", 4, WD, ONE, ("string", "2.6.0"), "Sets a value and the milliseconds it has to live.", Keys(strings::psetex)),
    never("psync", NO_LEADER),
    spec("pttl", 2, RF, ONE, ("generic", "2.6.0"), "Tells the milliseconds a key has left.", Keys(expiry::pttl)),
    spec("quit", -1, HANDSHAKE, NONE, ("connection", "1.0.0"), "Ends the connection.", Steer(Control::Turn(connection::quit))),
    spec("randomkey", 1, R, NONE, ("generic", "1.0.0"), "Tells any key.", Whole(scan::randomkey)),
    spec("readonly", 1, ANY, NONE, ("cluster", "3.0.0"), "Belongs to cluster mode.", Local(server::accepted)),
    spec("readwrite", 1, ANY, NONE, ("cluster", "3.0.0"), "Belongs to cluster mode.", Local(server::accepted)),
    never("replicaof", NO_LEADER),
    spec("reset", 1, HANDSHAKE, NONE, ("connection", "6.2.0"), "Makes the connection as new.", Steer(Control::Turn(connection::reset))),
    spec("ring.del", -2, W, ONE, ("string", "7.2.4"), "Deletes exactly the values that a context has seen.", Keys(ring_face::ring_del)),
    spec("ring.get", -2, R, ONE, ("string", "7.2.4"), "Reads a value and the context that replaces it.", Keys(ring_face::ring_get)),
    spec("ring.resolve", 4, WD, ONE, ("string", "7.2.4"), "Replaces exactly the values that a context has seen.", Keys(ring_face::ring_resolve)),
    spec("ring.set", -3, WD, ONE, ("string", "7.2.4"), "Sets a value in place of those that a context has seen.", Keys(ring_face::ring_set)),
    spec("ring.siblings", 2, R, ONE, ("string", "7.2.4"), "Lists concurrent values with node, time and context.", Keys(ring_face::ring_siblings)),
    spec("ring.where", 2, R, ONE, ("generic", "7.2.4"), "Tells a key's slot and the nodes that keep it.", Local(ring_face::ring_where)),
    spec("role", 1, ANY | ADMIN | DANGEROUS | NOSCRIPT, NONE, ("server", "2.8.12"), "Tells that every node takes writes.", Local(server::role)),
    never("save", ALWAYS_SAVED),
    spec("scan", -2, R, NONE, ("generic", "2.8.0"), "Walks the keys.", Whole(scan::scan)),
    spec("select", 2, ANY, NONE, ("connection", "1.0.0"), "Chooses the keyspace.", Local(connection::select)),
    spec("set", -3, WD, ONE, ("string", "1.0.0"), "Sets a value.", Keys(strings::set)),
    spec("setex", 4, WD, ONE, ("string", "2.0.0"), "Sets a value and the seconds it has to live.", Keys(strings::setex)),
    spec("setnx", 3, WDF, ONE, ("string", "1.0.0"), "Sets a value if there is none.", Keys(strings::setnx)),
    spec("setrange", 4, WD, ONE, ("string", "2.2.0"), "Overwrites a part of a value.", Keys(strings::setrange)),
    never("shutdown", "ERR a client cannot stop a node. fix: send its process SIGTERM, which drains it"),
    never("slaveof", NO_LEADER),
    spec("slowlog", -2, OFFICE, NONE, ("server", "2.2.12"), "Lists commands that took long.", Local(server::slowlog)),
    spec("strlen", 2, RF, ONE, ("string", "2.2.0"), "Tells the length of a value.", Keys(strings::strlen)),
    spec("substr", 4, R, ONE, ("string", "1.0.0"), "Reads a part of a value; the older name of GETRANGE.", Keys(strings::getrange)),
    never("swapdb", NO_MOVING),
    never("sync", NO_LEADER),
    spec("time", 1, ANY, NONE, ("server", "2.6.0"), "Tells the node's wall clock.", Local(connection::time)),
    spec("touch", -2, RF, ALL, ("generic", "3.2.1"), "Counts which of the keys exist.", Keys(keys::exists)),
    spec("ttl", 2, RF, ONE, ("generic", "1.0.0"), "Tells the seconds a key has left.", Keys(expiry::ttl)),
    spec("type", 2, RF, ONE, ("generic", "1.0.0"), "Tells the type of a value.", Keys(keys::type_of)),
    spec("unlink", -2, WF, ALL, ("generic", "4.0.0"), "Deletes keys.", Keys(keys::del)),
    spec("unwatch", 1, ANY | NOSCRIPT, NONE, ("transactions", "2.2.0"), "Forgets what is watched.", Local(transactions::unwatch)),
    spec("wait", 3, NOSCRIPT, NONE, ("generic", "3.0.0"), "Waits until replicas hold this connection's last write.", Whole(whole::wait)),
    spec("watch", -2, FAST | NOSCRIPT, ALL, ("transactions", "2.2.0"), "Makes the next EXEC depend on keys not changing.", Steer(Control::Watch)),
    spec("with", -2, LOADING, NONE, ("connection", "7.2.4"), "Gives one command its consistency levels.", Steer(Control::With)),
];

const BUCKETS: usize = 512;

/// For each bucket, one more than a command's place in the table; collisions go to the next bucket.
const INDEX: [u8; BUCKETS] = index();

const fn index() -> [u8; BUCKETS] {
    assert!(TABLE.len() < 255 && TABLE.len() * 4 < BUCKETS, "the index must stay sparse");
    let mut index = [0; BUCKETS];
    let mut place = 0;
    while place < TABLE.len() {
        let name = TABLE[place].name.as_bytes();
        assert!(name.len() <= NAME_BYTES_MAX, "names fit the buffer that they are lowered into");
        let mut bucket = bucket_of(name);
        while index[bucket] != 0 {
            bucket = (bucket + 1) % BUCKETS;
        }
        index[bucket] = place as u8 + 1;
        place += 1;
    }
    index
}

/// FNV-1a of a name in lower case.
const fn bucket_of(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < name.len() {
        hash = (hash ^ name[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    (hash ^ (hash >> 16)) as usize % BUCKETS
}

/// The place in the table of the command with this name, in any case.
pub(crate) fn find(name: &[u8]) -> Option<usize> {
    let mut lower = [0; NAME_BYTES_MAX];
    let lower = lower.get_mut(..name.len())?;
    for (to, from) in lower.iter_mut().zip(name) {
        *to = from.to_ascii_lowercase();
    }
    let mut bucket = bucket_of(lower);
    loop {
        let place = usize::from(INDEX[bucket]).checked_sub(1)?;
        if TABLE[place].name.as_bytes() == lower {
            return Some(place);
        }
        bucket = (bucket + 1) % BUCKETS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name_in_any_case() {
        assert!(TABLE.is_sorted_by_key(|spec| spec.name));
        for (place, spec) in TABLE.iter().enumerate() {
            assert_eq!(find(spec.name.as_bytes()), Some(place));
            assert_eq!(find(spec.name.to_ascii_uppercase().as_bytes()), Some(place));
            assert!(!spec.summary.is_empty() && spec.arity != 0, "{}", spec.name);
        }
        for unknown in ["", "ge", "gett", "a name that is much too long for any command"] {
            assert_eq!(find(unknown.as_bytes()), None);
        }
    }
}
