//! Register: the terms of keyspaces that administrators have set while the cluster runs.
//!
//! One [`Setting`] a keyspace, in a total order of all that could ever be said of it: the version, then
//! who wrote it in which life, then all the rest. Of two the greater holds, wherever and whenever they
//! meet. So a merge is commutative, associative and idempotent, two administrators who change a keyspace
//! at the same moment come to the same end everywhere, and even two settings under one name, which only
//! a disk that was set back can bring about, have one winner.
//!
//! A setting is all the terms of its keyspace, or says that it follows the configuration again.

use core::fmt;
use core::str::FromStr;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::Actor;
use crate::keyspace::KeyspacePolicy;
use crate::layout::Fnv;
use crate::limits::{AUTHOR_BYTES_MAX, COPIES_MAX};
use crate::time::WallMillis;

/// Which keyspaces a setting is about. Written as `default`, or as the number of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All that have no terms of their own.
    Default,
    /// One.
    Keyspace(u16),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Keyspace(number) => write!(f, "{number}"),
        }
    }
}

/// The text is neither `default` nor the number of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownScope;

impl fmt::Display for UnknownScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a keyspace is `default` or the number of a database")
    }
}

impl core::error::Error for UnknownScope {}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        if text == "default" {
            return Ok(Self::Default);
        }
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        number.map(Self::Keyspace).ok_or(UnknownScope)
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What an administrator made of a keyspace. Its order is that of the fields, and decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Setting {
    /// One more than that of the setting which its writer replaced.
    pub version: u64,
    /// The node that took it.
    pub writer: Actor,
    /// When, by that node's clock. For people.
    pub at: WallMillis,
    /// The administrator's name. For people.
    pub by: String,
    /// While true the keyspace takes no requests: its number of copies is being changed.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub closed: bool,
    /// The terms; `None` if it follows the configuration again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<KeyspacePolicy>,
}

impl Setting {
    /// Whether a node may take this from another: what it says can be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.by.len() <= AUTHOR_BYTES_MAX
            && self.version < u64::MAX / 2
            && self.terms.is_none_or(|terms| terms.validate(COPIES_MAX).is_ok())
    }
}

/// All settings that a node knows of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Register {
    settings: BTreeMap<Scope, Setting>,
}

impl Register {
    /// What was last set for a keyspace, be it that it follows the configuration again.
    #[must_use]
    pub fn get(&self, scope: Scope) -> Option<&Setting> {
        self.settings.get(&scope)
    }

    /// All of it, the default first.
    pub fn iter(&self) -> impl Iterator<Item = (Scope, &Setting)> {
        self.settings.iter().map(|(scope, setting)| (*scope, setting))
    }

    /// True if nothing was ever set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty()
    }

    /// The version that the next setting of a keyspace has.
    #[must_use]
    pub fn next_version(&self, scope: Scope) -> u64 {
        self.get(scope).map_or(1, |setting| setting.version + 1)
    }

    /// Takes a setting, if it is greater than what is there; true if it was.
    pub fn put(&mut self, scope: Scope, setting: Setting) -> bool {
        match self.settings.entry(scope) {
            Entry::Vacant(vacant) => {
                vacant.insert(setting);
                true
            }
            Entry::Occupied(mut occupied) => {
                let newer = setting > *occupied.get();
                if newer {
                    occupied.insert(setting);
                }
                newer
            }
        }
    }

    /// Takes all that is newer in another register, and sound; true if there was any.
    pub fn merge(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for (scope, setting) in other.iter().filter(|(_, setting)| setting.is_sound()) {
            changed |= self.put(scope, setting.clone());
        }
        changed
    }

    /// Whether merging the other would change nothing.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let mut sound = other.iter().filter(|(_, setting)| setting.is_sound());
        sound.all(|(scope, setting)| self.get(scope).is_some_and(|mine| mine >= setting))
    }

    /// A fingerprint, the same on every node; never 0.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hash = Fnv::new();
        for (scope, setting) in self.iter() {
            let Setting { version, writer, at, by, closed, terms } = setting;
            for number in [*version, writer.to_u64(), at.0, u64::from(*closed)] {
                hash.number(number);
            }
            hash.text(&scope.to_string());
            hash.text(by);
            let Some(terms) = terms else {
                hash.number(0);
                continue;
            };
            let KeyspacePolicy { n, read, write, durability, conflict, ttl_ms } = terms;
            hash.number(1 + u64::from(*n));
            for text in [&read as &dyn fmt::Display, &write, &durability, &conflict] {
                hash.text(&text.to_string());
            }
            hash.number(ttl_ms.unwrap_or(0));
        }
        hash.value().max(1)
    }

    /// The terms that hold, where the configuration has `configured`.
    #[must_use]
    pub fn over(&self, configured: &Policies) -> Policies {
        let mut all = configured.clone();
        for (scope, setting) in self.iter() {
            match scope {
                Scope::Default => all.default = setting.terms.unwrap_or(all.default),
                Scope::Keyspace(keyspace) => {
                    if let Some(terms) = setting.terms {
                        all.own.retain(|(own, _)| *own != keyspace);
                        all.own.push((keyspace, terms));
                    }
                    if setting.closed {
                        all.closed.push(keyspace);
                    }
                }
            }
        }
        all.own.sort_by_key(|(keyspace, _)| *keyspace);
        all
    }
}

/// The terms of all keyspaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// Of those that have none of their own.
    pub default: KeyspacePolicy,
    /// Of those that have.
    pub own: Vec<(u16, KeyspacePolicy)>,
    /// Those that take no requests now.
    pub closed: Vec<u16>,
}

impl Policies {
    /// The terms of one.
    #[must_use]
    pub fn of(&self, keyspace: u16) -> &KeyspacePolicy {
        let own = self.own.iter().find(|(own, _)| *own == keyspace);
        own.map_or(&self.default, |(_, policy)| policy)
    }

    /// The terms of one, or of those that have none.
    #[must_use]
    pub fn of_scope(&self, scope: Scope) -> &KeyspacePolicy {
        match scope {
            Scope::Default => &self.default,
            Scope::Keyspace(keyspace) => self.of(keyspace),
        }
    }

    /// Whether it takes no requests now.
    #[must_use]
    pub fn is_closed(&self, keyspace: u16) -> bool {
        self.closed.contains(&keyspace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::Level;

    fn setting(version: u64, node: u32, read: Option<Level>) -> Setting {
        let terms = read.map(|read| KeyspacePolicy { read, ..KeyspacePolicy::default() });
        let (at, by) = (WallMillis(9), "admin".to_owned());
        Setting { version, writer: Actor::new(node, 1), at, by, closed: false, terms }
    }

    #[test]
    fn a_keyspace_is_named_as_it_is_written() {
        for scope in [Scope::Default, Scope::Keyspace(0), Scope::Keyspace(15)] {
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
        for bad in ["", "Default", "-1", "+1", "70000", "4x"] {
            assert_eq!(bad.parse::<Scope>(), Err(UnknownScope), "{bad:?}");
        }
    }

    #[test]
    fn what_is_set_wins_over_the_configuration_and_what_is_removed_gives_it_back() {
        let own = KeyspacePolicy { write: Level::All, ..KeyspacePolicy::default() };
        let configured = Policies { own: vec![(4, own)], ..Policies::default() };
        let mut register = Register::default();
        assert_eq!(register.over(&configured), configured);
        assert!(register.put(Scope::Keyspace(4), setting(1, 1, Some(Level::One))));
        assert!(register.put(Scope::Default, setting(1, 1, Some(Level::Two))));
        let all = register.over(&configured);
        let read = |keyspace| all.of(keyspace).read;
        assert_eq!((read(4), read(5), all.of(4).write), (Level::One, Level::Two, Level::Quorum));
        assert!(register.put(Scope::Keyspace(4), setting(2, 1, None)));
        assert_eq!(register.over(&configured).of(4), &own);
        assert!(!register.put(Scope::Keyspace(4), setting(1, 9, None)), "the older one loses");
    }

    #[test]
    fn a_register_is_read_back_and_nonsense_of_others_is_not_taken() {
        let mut register = Register::default();
        register.put(Scope::Keyspace(4), setting(3, 2, Some(Level::One)));
        register.put(Scope::Default, Setting { closed: true, ..setting(1, 1, None) });
        let json = serde_json::to_string(&register).expect("written");
        assert_eq!(serde_json::from_str::<Register>(&json).expect("read"), register);
        let packed = rmp_serde::to_vec_named(&register).expect("written");
        assert_eq!(rmp_serde::from_slice::<Register>(&packed).expect("read"), register);
        let terms = Some(KeyspacePolicy { n: 0, ..KeyspacePolicy::default() });
        let mut other = Register::default();
        other.put(Scope::Default, Setting { terms, ..setting(9, 9, None) });
        other.put(Scope::Keyspace(1), setting(u64::MAX, 9, None));
        assert!(!register.merge(&other) && register.covers(&other));
    }

    #[test]
    fn a_fingerprint_tells_any_two_registers_apart() {
        let mut seen = vec![Register::default().digest()];
        for version in 1..4 {
            for read in [None, Some(Level::One), Some(Level::Quorum)] {
                for scope in [Scope::Default, Scope::Keyspace(0), Scope::Keyspace(1)] {
                    let mut register = Register::default();
                    register.put(scope, setting(version, 1, read));
                    seen.push(register.digest());
                }
            }
        }
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }
}
