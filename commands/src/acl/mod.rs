//! Access: who may run which command on which keys, and with which consistency by default.
//!
//! An [`Account`] is a name, hashes of passwords and rights, written and shown in the words of Redis's
//! ACL ([`rules`]). Promises: an account that does not say otherwise may do nothing; a command is
//! judged by the account as it is when the command comes; passwords are never kept, and compared in a
//! time that does not depend on how much is right. Whether it is allowed is decided here, from the
//! command table and the keys that it names; what is refused the session answers in Redis's words and
//! tells the host ([`Denial`]).

pub mod rules;

pub(crate) mod command;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::args;
use crate::glob;
use crate::levels::Levels;
use crate::table::{self, READONLY, Spec, TABLE, WRITE};

/// SHA-256 of a password.
pub type Hash = [u8; 32];

/// Accounts that may exist.
pub const ACCOUNTS_MAX: usize = 10_000;

/// Keys that fit a pattern, and what may be done to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// As KEYS takes it.
    pub pattern: Vec<u8>,
    /// They may be read.
    pub read: bool,
    /// They may be written.
    pub write: bool,
}

/// A user: how he proves who he is, and what he may do then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// His name.
    pub name: String,
    /// Whether he may come in at all.
    pub enabled: bool,
    /// Whether every password is right.
    pub nopass: bool,
    /// Hashes of his passwords.
    pub passwords: Vec<Hash>,
    /// Which keys he may touch.
    pub keys: Vec<Keys>,
    /// What his connections start with.
    pub levels: Levels,
    /// The words of `levels`, as they were given.
    consistency: Vec<String>,
    /// By place in the command table.
    allowed: u128,
    /// Single subcommands that differ from their command: place, name, whether allowed.
    subs: BTreeMap<(usize, String), bool>,
    /// The rules about commands, as they were given, since `allowed` was last all or nothing.
    said: Vec<String>,
}

const _: () = assert!(TABLE.len() < 127, "one bit a command, and one for those to come");

/// Every command.
const ALL: u128 = u128::MAX;

/// Why something is refused to an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The command; `command|sub` if it has subcommands.
    Command(String),
    /// One of its keys.
    Key(Vec<u8>),
    /// Name and password do not fit.
    Password,
}

/// Something that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The connection.
    pub client: u64,
    /// Who it was, or said to be.
    pub user: String,
    /// What was refused.
    pub why: Why,
}

impl Denial {
    /// What kind of right was missing: `command`, `key` or `auth`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self.why {
            Why::Command(_) => "command",
            Why::Key(_) => "key",
            Why::Password => "auth",
        }
    }

    /// What it was about: the command, the key, or the name.
    #[must_use]
    pub fn object(&self) -> String {
        match &self.why {
            Why::Command(command) => command.clone(),
            Why::Key(key) => args::text(key),
            Why::Password => self.user.clone(),
        }
    }
}

impl Account {
    /// One that exists and may do nothing.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            enabled: false,
            nopass: false,
            passwords: Vec::new(),
            keys: Vec::new(),
            levels: Levels::default(),
            consistency: Vec::new(),
            allowed: 0,
            subs: BTreeMap::new(),
            said: Vec::new(),
        }
    }

    /// One that may do everything, and has no password yet.
    #[must_use]
    pub fn unlimited(name: &str) -> Self {
        let every = Keys { pattern: b"*".to_vec(), read: true, write: true };
        Self { enabled: true, keys: vec![every], allowed: ALL, ..Self::new(name) }
    }

    /// Whether nothing is refused to him, so that nobody needs to look.
    #[must_use]
    pub fn may_everything(&self) -> bool {
        self.allowed == ALL && self.subs.is_empty() && self.has_all_keys()
    }

    fn has_all_keys(&self) -> bool {
        self.keys.iter().any(|k| k.pattern == b"*" && k.read && k.write)
    }

    /// Whether this is one of his passwords.
    #[must_use]
    pub fn takes(&self, hash: &Hash) -> bool {
        let same = |mine: &Hash| {
            let differs = mine.iter().zip(hash).fold(0, |all, (a, b)| all | (a ^ b));
            differs == 0
        };
        // Every one is looked at, so that the time tells nothing.
        let fits = self.passwords.iter().fold(false, |any, mine| any | same(mine));
        self.enabled && (self.nopass || fits)
    }

    /// Whether he may run this command, whose name is `args[0]`.
    ///
    /// # Errors
    /// What he lacks.
    pub(crate) fn judge(&self, place: usize, args: &[&[u8]]) -> Result<(), Why> {
        let spec = &TABLE[place];
        // What a client says before anybody knows it, and the prefix of what is judged on its own.
        if spec.has(table::NO_AUTH) || spec.name == "with" {
            return Ok(());
        }
        let sub = sub_of(spec, args);
        let whole = self.allowed & (1 << place) != 0;
        let single = sub.as_ref().and_then(|sub| self.subs.get(&(place, sub.clone())));
        if !single.copied().unwrap_or(whole) {
            let name = spec.name;
            return Err(Why::Command(sub.map_or(name.to_owned(), |sub| format!("{name}|{sub}"))));
        }
        if self.has_all_keys() {
            return Ok(());
        }
        let (reads, writes) = uses(spec, args);
        for key in keys_of(spec, args) {
            let fits = |k: &&Keys| glob::matches(&k.pattern, key, false);
            let mut fitting = self.keys.iter().filter(fits);
            let (mut read, mut write) = (!reads, !writes);
            // What only tells about a key wants no more than any right to it.
            let mut any = reads || writes;
            while let Some(keys) = fitting.next().filter(|_| !(any && read && write)) {
                any = true;
                read |= keys.read;
                write |= keys.write;
            }
            if !(any && read && write) {
                return Err(Why::Key(key.to_vec()));
            }
        }
        Ok(())
    }
}

/// The subcommand in lower case, if it is a command that has some.
fn sub_of(spec: &Spec, args: &[&[u8]]) -> Option<String> {
    let has = HAVE_SUBCOMMANDS.contains(&spec.name);
    let sub = args.get(1).filter(|_| has)?;
    Some(args::text(sub).to_ascii_lowercase())
}

/// Commands whose first argument says what they do.
pub(crate) const HAVE_SUBCOMMANDS: [&str; 11] = [
    "acl", "client", "cluster", "command", "config", "latency", "memory", "module", "object",
    "slowlog", "debug",
];

/// Commands that write and tell what was there. As in Redis 7 the length of a value, or whether there was one, counts
/// for nothing: APPEND, SETRANGE, EXPIRE and MSETNX only write.
const READ_TOO: [&str; 8] =
    ["decr", "decrby", "getdel", "getex", "getset", "incr", "incrby", "incrbyfloat"];

/// Commands that tell of a key, and nothing of its value.
const ABOUT: [&str; 7] = ["exists", "memory", "object", "strlen", "touch", "type", "watch"];

/// Whether a command reads its keys, and whether it writes them.
fn uses(spec: &Spec, args: &[&[u8]]) -> (bool, bool) {
    let writes = spec.has(WRITE);
    let gets = spec.name == "set" && args.iter().skip(3).any(|arg| args::is(arg, "get"));
    let about = ABOUT.contains(&spec.name);
    let reads = (spec.has(READONLY) || !writes) && !about || gets || READ_TOO.contains(&spec.name);
    (reads, writes)
}

/// The keys that a command names.
fn keys_of<'a>(spec: &Spec, args: &'a [&'a [u8]]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let (first, last, step) = spec.keys;
    let count = args.len() as i16;
    let last = if last < 0 { count + last } else { last };
    let places = if first > 0 { first..last.min(count - 1) + 1 } else { 0..0 };
    places.step_by(step.max(1) as usize).map(|at| args[at as usize])
}

/// All accounts, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    by_name: BTreeMap<String, Arc<Account>>,
}

impl Default for Accounts {
    /// One account, `default`, which may do everything and needs no password.
    fn default() -> Self {
        let default = Account { nopass: true, ..Account::unlimited("default") };
        let by_name = BTreeMap::from([(default.name.clone(), Arc::new(default))]);
        Self { by_name }
    }
}

impl Accounts {
    /// The account of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Account>> {
        self.by_name.get(name)
    }

    /// Sets, or adds, an account.
    pub fn set(&mut self, account: Account) {
        self.by_name.insert(account.name.clone(), Arc::new(account));
    }

    /// Removes one; false if there is none of this name.
    pub fn remove(&mut self, name: &str) -> bool {
        self.by_name.remove(name).is_some()
    }

    /// All of them, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.by_name.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True if there is none, which never is: `default` stays.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whether a client must say who it is before anything else.
    #[must_use]
    pub fn auth_required(&self) -> bool {
        self.get("default").is_none_or(|d| !d.enabled || !d.nopass)
    }

    /// Reads what [`Accounts::to_text`] wrote, or a Redis's ACL file: a line `user NAME RULE…` for
    /// each. Accounts that are not named stay as they are.
    ///
    /// # Errors
    /// The number of the line, and what is wrong with it.
    pub fn read(
        &mut self,
        text: &str,
        hash: &dyn Fn(&[u8]) -> Hash,
    ) -> Result<(), (usize, String)> {
        for (number, line) in text.lines().enumerate() {
            let mut words = line.split_whitespace();
            match words.next() {
                None => continue,
                Some(word) if word.starts_with('#') => continue,
                Some("user") => {}
                Some(_) => return Err((number + 1, "a line begins with: user NAME".to_owned())),
            }
            let name = words.next().ok_or((number + 1, "the name is missing".to_owned()))?;
            let mut account = Account::new(name);
            for rule in words {
                account.apply(rule.as_bytes(), hash).map_err(|why| (number + 1, why))?;
            }
            self.set(account);
        }
        Ok(())
    }

    /// Every account as a line, as ACL LIST shows it.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.iter().map(|account| format!("{}\n", account.line())).collect()
    }
}
