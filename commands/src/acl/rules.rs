//! Rules: the words of ACL SETUSER, as they are given and as they are shown again.
//!
//! Promise: the line that an account shows makes the same account when it is read.

use super::{ALL, Account, HAVE_SUBCOMMANDS, Hash, Keys};
use crate::levels::Levels;
use crate::table::{self, TABLE};

/// Categories that exist; those without a command here are there for files written for a Redis.
pub const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// Subcommands that belong to other categories than their commands, as in Redis.
const SUBCOMMANDS: [(&str, &str, &[&str]); 13] = [
    ("acl", "cat", &["slow"]),
    ("acl", "genpass", &["slow"]),
    ("acl", "help", &["slow"]),
    ("acl", "whoami", &["slow"]),
    ("client", "kill", &["admin", "slow", "dangerous", "connection"]),
    ("client", "list", &["admin", "slow", "dangerous", "connection"]),
    ("client", "no-evict", &["admin", "slow", "dangerous", "connection"]),
    ("client", "unpause", &["admin", "slow", "dangerous", "connection"]),
    ("config", "help", &["slow"]),
    ("latency", "help", &["slow"]),
    ("memory", "help", &["slow"]),
    ("module", "help", &["slow"]),
    ("slowlog", "help", &["slow"]),
];

const UNKNOWN: &str = "Unknown command or category name in ACL";

impl Account {
    /// Applies one rule; after an error nothing has changed. `hash` is SHA-256.
    ///
    /// # Errors
    /// What is wrong with it, in Redis's words where it has any.
    pub fn apply(&mut self, rule: &[u8], hash: &dyn Fn(&[u8]) -> Hash) -> Result<(), String> {
        let word = core::str::from_utf8(rule).unwrap_or_default();
        match word.to_ascii_lowercase().as_str() {
            "on" => self.enabled = true,
            "off" => self.enabled = false,
            "nopass" => {
                self.nopass = true;
                self.passwords.clear();
            }
            "resetpass" => {
                self.nopass = false;
                self.passwords.clear();
            }
            "allkeys" => self.add_keys(b"*", true, true),
            "resetkeys" => self.keys.clear(),
            "allcommands" => self.command_rule("+@all")?,
            "nocommands" => self.command_rule("-@all")?,
            // There are no channels here: what is said of them is taken, so that files can be shared.
            "allchannels" | "resetchannels" | "sanitize-payload" | "skip-sanitize-payload" => {}
            "reset" => *self = Self::new(&self.name),
            "clearselectors" => {}
            _ => return self.apply_marked(rule, hash),
        }
        Ok(())
    }

    fn apply_marked(&mut self, rule: &[u8], hash: &dyn Fn(&[u8]) -> Hash) -> Result<(), String> {
        let syntax = || Err("Syntax error".to_owned());
        match rule {
            [b'>', password @ ..] => self.add_password(hash(password)),
            [b'<', password @ ..] => self.remove_password(&hash(password))?,
            [b'#', hex @ ..] => self.add_password(unhex(hex)?),
            [b'!', hex @ ..] => self.remove_password(&unhex(hex)?)?,
            [b'~', pattern @ ..] => self.add_keys(pattern, true, true),
            [b'%', rest @ ..] => {
                let Some(at) = rest.iter().position(|b| *b == b'~') else { return syntax() };
                let (how, pattern) = (&rest[..at], &rest[at + 1..]);
                let has = |letter: u8| how.iter().any(|b| b.eq_ignore_ascii_case(&letter));
                if how.is_empty() || how.iter().any(|b| !b"rwRW".contains(b)) {
                    return syntax();
                }
                self.add_keys(pattern, has(b'r'), has(b'w'));
            }
            [b'&', ..] => {}
            [b'+' | b'-', ..] => {
                let Ok(word) = core::str::from_utf8(rule) else { return Err(UNKNOWN.to_owned()) };
                self.command_rule(&word.to_ascii_lowercase())?;
            }
            _ => {
                let word = core::str::from_utf8(rule).unwrap_or_default();
                let Some(level) = word.strip_prefix("consistency=") else { return syntax() };
                self.consistency_rule(level)?;
            }
        }
        Ok(())
    }

    fn consistency_rule(&mut self, level: &str) -> Result<(), String> {
        if level.is_empty() || level.eq_ignore_ascii_case("default") {
            (self.levels, self.consistency) = (Levels::default(), Vec::new());
            return Ok(());
        }
        let mut levels = Levels::default();
        if !levels.take(level.as_bytes())? {
            return Err(format!("{level} is no consistency level"));
        }
        self.levels = levels.or(self.levels);
        if !level.contains('=') {
            // A level for both takes the place of what was said of one.
            self.consistency.retain(|word| word.starts_with("d="));
        }
        self.consistency.push(level.to_ascii_lowercase());
        Ok(())
    }

    fn add_password(&mut self, hash: Hash) {
        self.nopass = false;
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
    }

    fn remove_password(&mut self, hash: &Hash) -> Result<(), String> {
        let before = self.passwords.len();
        self.passwords.retain(|mine| mine != hash);
        if self.passwords.len() == before {
            return Err("The password you are trying to remove from the user does not exist".into());
        }
        Ok(())
    }

    fn add_keys(&mut self, pattern: &[u8], read: bool, write: bool) {
        let keys = Keys { pattern: pattern.to_vec(), read, write };
        if !self.keys.contains(&keys) {
            self.keys.push(keys);
        }
    }

    /// `rule` is in lower case, with its sign.
    fn command_rule(&mut self, rule: &str) -> Result<(), String> {
        let allow = rule.starts_with('+');
        let name = &rule[1..];
        if name == "@all" {
            self.allowed = if allow { ALL } else { 0 };
            self.subs.clear();
            self.said.clear();
            return Ok(());
        }
        if let Some(category) = name.strip_prefix('@') {
            if !CATEGORIES.contains(&category) {
                return Err(UNKNOWN.to_owned());
            }
            self.allow_category(category, allow);
        } else if let Some((container, sub)) = name.split_once('|') {
            let place = table::find(container.as_bytes()).ok_or(UNKNOWN)?;
            if !HAVE_SUBCOMMANDS.contains(&container) || sub.is_empty() {
                return Err(UNKNOWN.to_owned());
            }
            self.subs.insert((place, sub.to_owned()), allow);
        } else {
            let place = table::find(name.as_bytes()).ok_or(UNKNOWN)?;
            self.allow(place, allow);
        }
        let allowed = self.allowed;
        self.subs.retain(|(place, _), allow| *allow != (allowed & (1 << *place) != 0));
        self.said.retain(|said| said[1..] != *name);
        self.said.push(rule.to_owned());
        Ok(())
    }

    /// What is of the category, and nothing else: a command without those of its subcommands that are of others, and
    /// of other commands those that are of it.
    fn allow_category(&mut self, category: &str, allow: bool) {
        let known = SUBCOMMANDS.iter().filter_map(|(container, sub, of)| {
            let place = table::find(container.as_bytes())?;
            let key = (place, (*sub).to_owned());
            let whole = self.allowed & (1 << place) != 0;
            let before = self.subs.get(&key).copied().unwrap_or(whole);
            Some((key, if of.contains(&category) { allow } else { before }))
        });
        let known: Vec<_> = known.collect();
        for (place, _) in commands_in(category) {
            self.allow(place, allow);
        }
        self.subs.extend(known);
    }

    fn allow(&mut self, place: usize, allow: bool) {
        let bit = 1 << place;
        self.allowed = if allow { self.allowed | bit } else { self.allowed & !bit };
        self.subs.retain(|(of, _), _| *of != place);
    }

    /// The rules about commands, as they are shown.
    #[must_use]
    pub fn command_rules(&self) -> String {
        // All bits stand for commands of later versions too, and are never the sum of single ones.
        let base = if self.allowed >> 127 == 1 { "+@all" } else { "-@all" };
        let said = self.said.iter().map(|rule| format!(" {rule}"));
        std::iter::once(base.to_owned()).chain(said).collect()
    }

    /// The patterns of keys, as they are shown.
    #[must_use]
    pub fn key_rules(&self) -> String {
        let shown = self.keys.iter().map(|keys| {
            let how = match (keys.read, keys.write) {
                (true, true) => "",
                (true, false) => "%R",
                (false, _) => "%W",
            };
            format!("{how}~{}", String::from_utf8_lossy(&keys.pattern))
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    /// Words such as `on` and `nopass`.
    #[must_use]
    pub fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.enabled { "on" } else { "off" }];
        if self.nopass {
            flags.push("nopass");
        }
        flags
    }

    /// The consistency that its connections start with, as it was given.
    #[must_use]
    pub fn consistency(&self) -> &[String] {
        &self.consistency
    }

    /// `user NAME RULE…`, from which the same account can be made.
    #[must_use]
    pub fn line(&self) -> String {
        let mut words = vec!["user".to_owned(), self.name.clone()];
        words.extend(self.flags().into_iter().map(str::to_owned));
        words.extend(self.passwords.iter().map(|hash| format!("#{}", hex(hash))));
        words.extend(Some(self.key_rules()).filter(|rules| !rules.is_empty()));
        words.extend(self.consistency.iter().map(|word| format!("consistency={word}")));
        words.push(self.command_rules());
        words.join(" ")
    }
}

/// The subcommands of a category whose commands are not of it.
pub(crate) fn subcommands_in(category: &str) -> impl Iterator<Item = String> {
    let alone = |container: &str| commands_in(category).all(|(_, name)| name != container);
    let of = SUBCOMMANDS.iter().filter(move |(c, _, of)| of.contains(&category) && alone(c));
    of.map(|(container, sub, _)| format!("{container}|{sub}"))
}

/// The commands of a category, with their places in the table.
pub(crate) fn commands_in(category: &str) -> impl Iterator<Item = (usize, &'static str)> {
    let wanted = format!("@{category}");
    let all = TABLE.iter().enumerate();
    all.filter(move |(_, spec)| spec.categories().contains(&wanted)).map(|(i, s)| (i, s.name))
}

/// A hash in hexadecimal digits.
#[must_use]
pub fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &[u8]) -> Result<Hash, String> {
    let wrong = || {
        "The password hash must be exactly 64 characters and contain only lowercase hexadecimal \
         characters"
            .to_owned()
    };
    if digits.len() != 64 || !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(wrong());
    }
    let mut hash = Hash::default();
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let text = core::str::from_utf8(pair).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(text, 16).map_err(|_| wrong())?;
    }
    Ok(hash)
}
