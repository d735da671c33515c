//! The audit: once all is mended, a client speaks to every node, and each must tell the same: every
//! counter exact, every pair whole, as many keys as there are, and in a scan those and no others.

use std::collections::BTreeSet;

use bytes::Bytes;
use replication::Record;
use replication::row::{self, Row};
use ring::WallMillis;

use super::World;
use super::understanding::is_of_kind;
use crate::check::convergence::Copies;
use crate::history::{Ask, End};
use crate::sim::clock::{MS, SECOND, true_wall};
use crate::workload::{Draft, Form, Speaker, Utterance, Walk, Wanted};

/// How long a node may take to answer its auditor.
const WITHIN: u64 = 60 * SECOND;

/// Keys asked for at once.
const AT_ONCE: usize = 32;

impl World {
    /// Waits until every command of every speaker is answered: none may be forgotten.
    pub(crate) fn hear_everybody_out(&mut self) {
        let deadline = self.now + WITHIN;
        while self.now < deadline && !self.all_were_answered() && self.broken().is_none() {
            self.run(self.now + 50 * MS);
        }
        let stuck = self
            .speakers
            .iter()
            .position(|s| s.line.as_ref().is_some_and(|line| !line.waiting.is_empty()));
        if let Some(speaker) = stuck {
            let line = self.speakers[speaker].line.as_ref();
            let text = format!("s{speaker} waits for {:?}", line.map(|l| &l.waiting));
            self.truth.breaks("every command is answered", text);
        }
    }

    /// Asks every node for everything, as its clients would.
    pub(crate) fn audit(&mut self, copies: &Copies) {
        let of_kind = |kind: u8| move |row: &&Row| is_of_kind(row, kind);
        let counters: Vec<Row> = self.counters.rows().cloned().collect();
        let firsts: Vec<Row> = copies
            .keys()
            .filter(of_kind(b'm'))
            .filter(|row| number_of(row).is_some_and(|n| n % 2 == 0))
            .cloned()
            .collect();
        for node in 0..self.nodes.len() {
            let speaker = self.speakers.len();
            self.speakers.push(Speaker { node, ..Speaker::default() });
            self.dial(speaker);
            let mut said = Vec::new();
            for row in &counters {
                let key = row::key_of(row).unwrap_or_default();
                said.push(self.asks(&said, Ask::Sum, vec![row.clone()], "GET", &[&key]));
            }
            for first in &firsts {
                let Some(second) = second_of(first) else { continue };
                let keys = [first, &second].map(|r| row::key_of(r).unwrap_or_default());
                let rows = vec![first.clone(), second];
                said.push(self.asks(&said, Ask::GetMany, rows, "MGET", &[&keys[0], &keys[1]]));
            }
            while !said.is_empty() && self.broken().is_none() {
                let mut now = said;
                said = now.split_off(now.len().min(AT_ONCE));
                self.ask_and_wait(speaker, now);
            }
            if self.broken().is_some() {
                return;
            }
            self.sizes.clear();
            let op = self.history.next_op();
            let draft = self.draft(Ask::Count, Vec::new());
            let words = vec![Bytes::from_static(b"DBSIZE")];
            let wanted = Wanted::Size(op);
            self.ask_and_wait(speaker, vec![Utterance { words, wanted, begins: vec![draft] }]);
            self.check_size(node, copies);
            if node == self.profile.seed as usize % self.nodes.len() {
                self.walk_everything(speaker, copies);
            }
        }
    }

    fn draft(&self, ask: Ask, rows: Vec<Row>) -> Draft {
        Draft { ask, rows, read: 3, write: 3 }
    }

    fn asks(
        &self,
        before: &[Utterance],
        ask: Ask,
        rows: Vec<Row>,
        command: &str,
        keys: &[&[u8]],
    ) -> Utterance {
        let form = if command == "MGET" { Form::Values } else { Form::Value };
        let op = self.history.next_op() + before.len() as u64;
        let all =
            ["WITH", "ALL", command].into_iter().map(str::as_bytes).chain(keys.iter().copied());
        let words = all.map(Bytes::copy_from_slice).collect();
        let begins = vec![self.draft(ask, rows)];
        Utterance { words, wanted: Wanted::Request(op, form), begins }
    }

    fn ask_and_wait(&mut self, speaker: usize, said: Vec<Utterance>) {
        let ops: Vec<u64> = said.iter().flat_map(|u| u.wanted.ops()).collect();
        self.says(speaker, said);
        let deadline = self.now + WITHIN;
        let open = |w: &Self| ops.iter().any(|op| w.history.get(*op).end == End::Open);
        while self.now < deadline && open(self) && self.broken().is_none() {
            self.run(self.now + 2 * MS);
        }
        let failed = ops.iter().map(|op| self.history.get(*op)).find(|a| a.end != End::Done);
        if let Some(failed) = failed {
            let text = format!("{failed:?}");
            self.truth.breaks("everything answers once all is mended", text);
        }
    }

    /// Keys of the first keyspace that every clock agrees are there, and those that some may see.
    fn live(&self, copies: &Copies) -> (BTreeSet<Bytes>, BTreeSet<Bytes>) {
        let now = true_wall(self.now);
        let margin = self.profile.skew_ms + self.profile.jump_ms + 5_000;
        let (mut sure, mut perhaps) = (BTreeSet::new(), BTreeSet::new());
        for (row, by_node) in copies {
            if row::keyspace_of(row) != Some(0) {
                continue;
            }
            let Some(record) = by_node.values().next().and_then(|b| Record::decode(b)) else {
                continue;
            };
            let there = |at: u64| record.view(WallMillis(at)).exists();
            let key = Bytes::from(row::key_of(row).unwrap_or_default());
            match (there(now - margin), there(now + margin)) {
                (true, true) => drop(sure.insert(key)),
                (false, false) => {}
                _ => drop(perhaps.insert(key)),
            }
        }
        (sure, perhaps)
    }

    fn check_size(&mut self, node: usize, copies: &Copies) {
        let (sure, perhaps) = self.live(copies);
        let range = sure.len()..=sure.len() + perhaps.len();
        let told = self.sizes.last().map(|size| *size as usize);
        if !told.is_some_and(|told| range.contains(&told)) {
            let text = format!("n{} told {told:?} keys, there are {range:?}", node + 1);
            self.truth.breaks("DBSIZE counts the live keys", text);
        }
    }

    fn walk_everything(&mut self, speaker: usize, copies: &Copies) {
        self.walked = None;
        let cursor = Bytes::from_static(b"0");
        let found = BTreeSet::new();
        let walk = Walk { since: self.now, cursor, strong: true, found };
        self.speakers[speaker].walk = Some(walk);
        while let Some(walk) = &self.speakers[speaker].walk {
            let words = [&b"SCAN"[..], &walk.cursor, b"COUNT", b"700"].map(Bytes::copy_from_slice);
            let op = self.history.next_op();
            let begins = vec![self.draft(Ask::Scan, Vec::new())];
            let said = Utterance { words: words.to_vec(), wanted: Wanted::Page(op), begins };
            self.ask_and_wait(speaker, vec![said]);
            if self.broken().is_some() {
                return;
            }
        }
        let (sure, perhaps) = self.live(copies);
        let found = self.walked.take().unwrap_or_default();
        let missing = sure.difference(&found).next();
        let invented = found.iter().find(|key| !sure.contains(*key) && !perhaps.contains(*key));
        if missing.is_some() || invented.is_some() {
            let text = format!("missing {missing:?}, invented {invented:?}");
            self.truth.breaks("a scan at rest returns the live keys and no others", text);
        }
    }
}

/// The number of a key: the digits behind its kind.
fn number_of(row: &[u8]) -> Option<u64> {
    let key = row::key_of(row)?;
    let behind = key.iter().position(|b| *b == b'}')? + 2;
    core::str::from_utf8(key.get(behind..)?).ok()?.parse().ok()
}

/// The other key of a pair.
fn second_of(first: &[u8]) -> Option<Row> {
    let key = row::key_of(first)?;
    let behind = key.iter().position(|b| *b == b'}')? + 2;
    let number = number_of(first)? + 1;
    let mut second = key.get(..behind)?.to_vec();
    second.extend_from_slice(number.to_string().as_bytes());
    Some(row::of_key(row::keyspace_of(first)?, &second))
}
