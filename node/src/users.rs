//! Users: the accounts of this node, which all cores share, and what was refused to whom.
//!
//! They come from the configuration (`redis.requirepass`, `redis.users`) and from `redis.acl_file`,
//! where a name that stands in both is as the file says. ACL SETUSER changes them until the node stops;
//! ACL SAVE writes the file. Every node has its own: nothing of this travels between nodes.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use commands::DenialLine;
use commands::acl::{Account, Accounts, Denial};
use ring::Instant;
use tracing::warn;

use crate::error::Fault;

/// Denials that are kept.
const DENIALS_MAX: usize = 128;

/// The same denial again within this is counted, and not told anew.
const SAME_FOR: Duration = Duration::from_secs(60);

/// What the configuration says of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigUser {
    /// Its password, if it has one.
    pub password: Option<String>,
    /// Rules as ACL SETUSER takes them; without any it may do everything.
    pub rules: Option<String>,
}

/// The kind of what is refused to a native client whose certificate has not the role for it.
const ROLE: &str = "role";

/// Kinds of denials, as they are counted.
pub const REASONS: [&str; 4] = ["auth", "command", "key", ROLE];

/// All users of a node.
#[derive(Debug)]
pub struct Users {
    accounts: Mutex<Arc<Accounts>>,
    version: AtomicU64,
    configured: Accounts,
    file: Option<PathBuf>,
    seen: Mutex<VecDeque<Seen>>,
    next_id: AtomicU64,
    denied: [AtomicU64; REASONS.len()],
}

#[derive(Clone, Debug)]
struct Seen {
    id: u64,
    count: u64,
    last: Instant,
    denial: Denial,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values are replaced whole, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Users {
    /// The users that the configuration names, and those of the file, if there is one.
    ///
    /// # Errors
    /// A [`Fault`] that says which rule is wrong, and where.
    pub fn load(
        requirepass: Option<&str>,
        named: &BTreeMap<String, ConfigUser>,
        file: Option<&Path>,
    ) -> Result<Self, Fault> {
        let configured = configured(requirepass, named)?;
        let mut accounts = configured.clone();
        if let Some(path) = file {
            read_file(path, &mut accounts)?;
        }
        Ok(Self {
            accounts: Mutex::new(Arc::new(accounts)),
            version: AtomicU64::new(1),
            configured,
            file: file.map(Path::to_owned),
            seen: Mutex::default(),
            next_id: AtomicU64::new(0),
            denied: Default::default(),
        })
    }

    /// All of them, as they are now.
    #[must_use]
    pub fn accounts(&self) -> Arc<Accounts> {
        lock(&self.accounts).clone()
    }

    /// Rises with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Accounts) -> T) -> T {
        let mut accounts = lock(&self.accounts);
        let done = change(Arc::make_mut(&mut accounts));
        self.version.fetch_add(1, Ordering::AcqRel);
        done
    }

    /// Sets, or adds, an account.
    pub fn set(&self, account: Account) {
        self.change(|accounts| accounts.set(account));
    }

    /// Removes an account; false if there is none of this name.
    pub fn remove(&self, name: &str) -> bool {
        self.change(|accounts| accounts.remove(name))
    }

    /// Writes all accounts to the file.
    ///
    /// # Errors
    /// Why not, for a person.
    pub fn save(&self) -> Result<(), String> {
        let path = self.file.as_ref().ok_or(NO_FILE)?;
        let text = self.accounts().to_text();
        let new = path.with_extension("new");
        let write = || {
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        write().map_err(|e| format!("cannot write {}: {e}", path.display()))
    }

    /// Reads the file again: what it says holds, and beside it what the configuration said at the start.
    ///
    /// # Errors
    /// Why not, for a person; nothing has changed then.
    pub fn reload(&self) -> Result<(), String> {
        let path = self.file.as_ref().ok_or(NO_FILE)?;
        let mut accounts = self.configured.clone();
        read_file(path, &mut accounts).map_err(|fault| fault.to_string().replace('\n', " "))?;
        self.change(|all| *all = accounts);
        Ok(())
    }

    /// Something was refused: counts it, and tells it unless it was told just now.
    pub fn denied(&self, now: Instant, denial: Denial) {
        let reason = denial.reason();
        self.count(reason);
        let mut seen = lock(&self.seen);
        let same = |s: &&mut Seen| {
            s.denial.user == denial.user
                && s.denial.why == denial.why
                && now.since(s.last) < SAME_FOR
        };
        if let Some(known) = seen.iter_mut().find(same) {
            known.count += 1;
            known.last = now;
            return;
        }
        warn!(
            client = denial.client,
            user = denial.user,
            reason,
            object = denial.object(),
            "refused to a user"
        );
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        seen.push_front(Seen { id, count: 1, last: now, denial });
        seen.truncate(DENIALS_MAX);
    }

    /// Something was refused to whoever is no administrator.
    pub fn denied_by_role(&self) {
        self.count(ROLE);
    }

    fn count(&self, reason: &str) {
        if let Some(at) = REASONS.iter().position(|r| *r == reason) {
            self.denied[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was refused of late, the latest first.
    #[must_use]
    pub fn denials(&self, now: Instant) -> Vec<DenialLine> {
        let line = |seen: &Seen| DenialLine {
            id: seen.id,
            count: seen.count,
            age_s: now.since(seen.last).as_secs(),
            denial: seen.denial.clone(),
        };
        lock(&self.seen).iter().map(line).collect()
    }

    /// Empties that; the counters go on.
    pub fn forget_denials(&self) {
        lock(&self.seen).clear();
    }

    /// How often something was refused, by reason.
    pub fn denied_by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.denied.iter().map(|count| count.load(Ordering::Relaxed));
        REASONS.into_iter().zip(counts)
    }
}

const NO_FILE: &str = "there is no ACL file. fix: set redis.acl_file in ringd.toml, and restart";

fn configured(
    requirepass: Option<&str>,
    named: &BTreeMap<String, ConfigUser>,
) -> Result<Accounts, Fault> {
    let mut accounts = Accounts::default();
    let mut default = Account::unlimited("default");
    match requirepass {
        Some(password) => default.passwords.push(certs::sha256(password.as_bytes())),
        // Where there are other users, nobody comes in without a name.
        None if !named.is_empty() => default.enabled = false,
        None => default.nopass = true,
    }
    accounts.set(default);
    for (name, user) in named {
        let mut account =
            if user.rules.is_none() { Account::unlimited(name) } else { Account::new(name) };
        account.enabled = true;
        if let Some(password) = &user.password {
            account.passwords.push(certs::sha256(password.as_bytes()));
        }
        for rule in user.rules.iter().flat_map(|rules| rules.split_whitespace()) {
            account.apply(rule.as_bytes(), &certs::sha256).map_err(|why| {
                Fault::new(
                    format!("redis.users.{name} has a rule that is none: {rule}"),
                    why,
                    "rules are those of ACL SETUSER, such as: +@read ~app:* consistency=quorum",
                )
            })?;
        }
        accounts.set(account);
    }
    Ok(accounts)
}

fn read_file(path: &Path, accounts: &mut Accounts) -> Result<(), Fault> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        // ACL SAVE makes it.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Fault::file(path, "read", &e)),
    };
    accounts.read(&text, &certs::sha256).map_err(|(line, why)| {
        Fault::new(
            format!("the ACL file {} is wrong in line {line}", path.display()),
            why,
            "a line is: user NAME on >PASSWORD ~PATTERN +@CATEGORY; correct it, or set another \
             redis.acl_file",
        )
    })
}
