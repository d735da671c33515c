//! Scans: a key that is there throughout a scan is found, and one that never is there is not.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use replication::op::{SetCondition, SetExpiry};
use replication::row::{self, Row};
use replication::{Op, Request, Task};

use crate::history::{Ask, value_of};
use crate::profile::Profile;
use crate::workload::{Composed, Scanning, key_of, row_of, slot_of};

/// Stable keys of each tag.
const STABLE: u64 = 3;

/// Keys that are written once and stay.
#[derive(Debug, Default)]
pub struct Scans {
    /// Asked for so far.
    asked: u64,
    /// There since.
    there: BTreeMap<Row, u64>,
}

impl Scans {
    /// The first requests of all create the stable keys.
    pub fn next_to_settle(
        &mut self,
        client: usize,
        profile: &Profile,
        op: u64,
    ) -> Option<Composed> {
        if profile.mix.scan == 0 || client != 0 || self.asked >= STABLE * profile.tags {
            return None;
        }
        let (tag, number) = (self.asked % profile.tags, self.asked / profile.tags);
        self.asked += 1;
        let row = row_of(0, 's', tag, number);
        let set = Op::Set {
            value: value_of(op),
            expiry: SetExpiry::Clear,
            condition: SetCondition::Always,
            get: false,
        };
        let task = Task::one(slot_of(tag), 0, row.clone(), set);
        Some(Composed {
            ask: Ask::Settle,
            rows: vec![row],
            read: crate::workload::needed(profile.read),
            write: crate::workload::needed(profile.write),
            request: Request::Task(task),
        })
    }

    /// A stable key is there from now on.
    pub fn settled(&mut self, rows: &[Row], now: u64) {
        for row in rows {
            self.there.entry(row.clone()).or_insert(now);
        }
    }

    /// A walk over all keys is over, or KEYS was asked for those of one tag.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_all(
        &self,
        found: &BTreeSet<Bytes>,
        since: u64,
        tag: Option<u64>,
        strong: bool,
    ) -> Result<(), String> {
        for (row, there) in self.there.iter().filter(|(_, there)| strong && **there < since) {
            let key = row::key_of(row).map(Bytes::from).unwrap_or_default();
            let meant = tag.is_none_or(|tag| row::slot_of(row) == Some(slot_of(tag)));
            if meant && !found.contains(&key) {
                return Err(format!("{key:?}, there since {there}, is missing since {since}"));
            }
        }
        let never = (0..8).map(|tag| key_of('a', tag, 0)).find(|k| found.contains(k));
        match never {
            Some(key) => Err(format!("{key:?} was never written")),
            None => Ok(()),
        }
    }

    /// A scan of a whole group of slots is over.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, scanning: &Scanning, strong: bool) -> Result<(), String> {
        let first = scanning.last.0 + 1 - ring::SLOTS_PER_GROUP;
        for (row, since) in &self.there {
            let slot = row::slot_of(row).map_or(0, |s| s.0);
            let key = row::key_of(row).map(Bytes::from).unwrap_or_default();
            let in_group = (first..=scanning.last.0).contains(&slot);
            if strong && in_group && *since < scanning.since && !scanning.found.contains(&key) {
                return Err(format!("{key:?} is missing, found {:?}", scanning.found));
            }
        }
        let never = (0..8).map(|tag| key_of('a', tag, 0)).find(|k| scanning.found.contains(k));
        match never {
            Some(key) => Err(format!("{key:?} was never written")),
            None => Ok(()),
        }
    }
}
