//! Config: the settings that CONFIG GET shows and CONFIG SET takes.
//!
//! Most exist because tools and test suites read or set them; the host says what of them matters
//! ([`crate::Host::config_set`]). Names that nobody knows are refused in Redis's words.

use std::collections::BTreeMap;

/// Every setting with the value that it starts with.
const STARTING: [(&str, &str); 47] = [
    ("activedefrag", "no"),
    ("appendfsync", "everysec"),
    ("appendonly", "yes"),
    ("bind", "*"),
    ("busy-reply-threshold", "5000"),
    ("client-output-buffer-limit", "normal 0 0 0 slave 0 0 0 pubsub 0 0 0"),
    ("close-on-oom", "no"),
    ("cluster-enabled", "no"),
    ("daemonize", "no"),
    ("databases", "16"),
    ("dbfilename", ""),
    ("dir", "."),
    ("enable-debug-command", "no"),
    ("hash-max-listpack-entries", "128"),
    ("hash-max-listpack-value", "64"),
    ("hz", "10"),
    ("io-threads", "1"),
    ("latency-monitor-threshold", "0"),
    ("latency-tracking", "no"),
    ("lazyfree-lazy-user-flush", "no"),
    ("lfu-decay-time", "1"),
    ("lfu-log-factor", "10"),
    ("list-max-listpack-size", "-2"),
    ("logfile", ""),
    ("loglevel", "notice"),
    ("lua-time-limit", "5000"),
    ("maxclients", "10000"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("maxmemory-samples", "5"),
    ("min-replicas-to-write", "0"),
    ("notify-keyspace-events", ""),
    ("port", "6379"),
    ("proto-max-bulk-len", "8388608"),
    ("replica-read-only", "no"),
    ("requirepass", ""),
    ("save", ""),
    ("set-max-intset-entries", "512"),
    ("slave-read-only", "no"),
    ("slowlog-log-slower-than", "-1"),
    ("slowlog-max-len", "128"),
    ("stop-writes-on-bgsave-error", "no"),
    ("tcp-keepalive", "300"),
    ("timeout", "0"),
    ("tls-port", "0"),
    ("zset-max-listpack-entries", "128"),
    ("zset-max-listpack-value", "64"),
];

/// Settings that hold from the start and cannot be set.
const FIXED: [&str; 10] = [
    "bind",
    "cluster-enabled",
    "daemonize",
    "databases",
    "enable-debug-command",
    "io-threads",
    "logfile",
    "port",
    "requirepass",
    "tls-port",
];

/// Settings whose value is a number that is not negative.
const NUMBERS: [&str; 12] = [
    "hash-max-listpack-entries",
    "hash-max-listpack-value",
    "hz",
    "latency-monitor-threshold",
    "maxclients",
    "maxmemory-samples",
    "proto-max-bulk-len",
    "set-max-intset-entries",
    "slowlog-max-len",
    "tcp-keepalive",
    "timeout",
    "zset-max-listpack-entries",
];

/// Settings by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigTable {
    values: BTreeMap<String, String>,
}

impl Default for ConfigTable {
    fn default() -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self { values: STARTING.into_iter().map(owned).collect() }
    }
}

impl ConfigTable {
    /// The value of a setting, by its name in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Every setting, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Sets, or adds, a setting, whatever it is: for the host.
    pub fn set(&mut self, name: &str, value: &str) {
        self.values.insert(name.to_owned(), value.to_owned());
    }

    /// Whether a client may set it so.
    ///
    /// # Errors
    /// Why not, in Redis's words.
    pub(crate) fn accepts(&self, name: &str, value: &str) -> Result<(), &'static str> {
        if FIXED.contains(&name) && self.get(name) != Some(value) {
            return Err("can't set immutable config");
        }
        if NUMBERS.contains(&name) && value.parse::<u64>().is_err() {
            return Err("argument couldn't be parsed into an integer");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_about_a_setting_that_exists() {
        let table = ConfigTable::default();
        for name in FIXED.iter().chain(&NUMBERS) {
            assert!(table.get(name).is_some(), "{name}");
        }
        assert!(STARTING.is_sorted_by_key(|(name, _)| *name));
    }
}
