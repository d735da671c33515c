//! What speakers do: dial, speak, hear, hang up. Their words reach real sessions as bytes, in order,
//! cut anywhere; what comes back is read as a Redis client reads it.

use std::rc::Rc;
use std::sync::Arc;

use commands::SessionDefaults;
use ring::Level;
use wire::resp::ReplyDecoder;
use wire::resp::encode::write_command;

use super::{Happening, World};
use crate::history::{Ask, Asked, End};
use crate::sim::clock::MS;
use crate::sim::front::Spoken;
use crate::sim::node::Input;
use crate::workload::{Fate, Line, Speaker, Utterance, Wanted, own_number, row_of, talk};

/// How long a speaker waits, on average, after it was refused something.
const REFUSED_WAITS: u64 = 100 * MS;

/// What a client learns only late: the other end of its connection is gone.
const LOST_WITHIN: u64 = 20 * MS;

impl World {
    /// What every connection starts with.
    fn session_defaults(&self) -> Arc<SessionDefaults> {
        let timeout_us = self.profile.patience_ns / 1_000;
        Arc::new(SessionDefaults { timeout_us, ..SessionDefaults::default() })
    }

    fn core_of_line(&self, number: u64) -> usize {
        (number % u64::from(self.profile.cores)) as usize
    }

    /// Connects, if the node is there; else tries another one a little later.
    pub(crate) fn dial(&mut self, speaker: usize) {
        if self.speakers[speaker].line.is_some() {
            return;
        }
        let node = self.speakers[speaker].node;
        let Some(life) = self.nodes[node].life.as_ref().map(|l| l.number) else {
            let others = self.nodes.len() as u64;
            self.speakers[speaker].node = self.of_speakers.below(others) as usize;
            let at = self.now + self.of_speakers.between(5 * MS, 200 * MS);
            self.queue.plan(at, Happening::Dial { speaker });
            return;
        };
        let own = &mut self.speakers[speaker].own;
        if matches!(own.fate, Fate::There(Some(_))) {
            // Whoever takes its next plain SET need not have heard of the deadline, and then it stays.
            own.give_up();
        }
        self.numbers += 1;
        let number = self.numbers;
        let mixed = self.profile.mixed_levels;
        let (mut read, mut write) = (self.profile.read, self.profile.write);
        if mixed {
            read = self.of_speakers.pick(&[Level::One, Level::Quorum, Level::All]);
            write = self.of_speakers.pick(&[Level::One, Level::Quorum, Level::All]);
        }
        let explicit = mixed || self.of_speakers.coin();
        self.speakers[speaker].line = Some(Line {
            number,
            life,
            read,
            write,
            explicit,
            decoder: ReplyDecoder::new(),
            input: Vec::new(),
            waiting: std::collections::VecDeque::new(),
            sent_until: self.now,
            heard_until: self.now,
            heard: 0,
            under_way: std::collections::BTreeMap::new(),
            refused: false,
            watching: Vec::new(),
        });
        self.lines.insert(number, speaker);
        self.trace.tell(self.now, format_args!("s{speaker} calls n{} as {number}", node + 1));
        let core = self.core_of_line(number);
        let input = Input::Open(number, self.session_defaults());
        self.queue.plan(self.now, Happening::Input { node, life, core, input });
        let mut hello = Vec::new();
        if self.of_speakers.coin() {
            hello.push(vec!["HELLO".to_owned(), "3".to_owned()]);
        }
        if explicit {
            let all = ["CONSISTENCY", "READ", &read.to_string(), "WRITE", &write.to_string()]
                .map(str::to_owned);
            hello.push(all.to_vec());
        }
        hello.push(vec!["CLIENT".to_owned(), "SETNAME".to_owned(), format!("s{speaker}")]);
        let said = hello.into_iter().map(|words| Utterance {
            words: words.into_iter().map(Into::into).collect(),
            wanted: Wanted::Ok,
            begins: Vec::new(),
        });
        let said = said.collect();
        self.says(speaker, said);
    }

    /// A speaker says its next pipeline.
    pub(crate) fn speak(&mut self, speaker: usize, number: u64) {
        let Some(line) = &self.speakers[speaker].line else { return };
        if line.number != number || !line.waiting.is_empty() || !self.stormy {
            return;
        }
        if self.of_speakers.hits(20_000) {
            self.hang_up(speaker);
            return;
        }
        let next_op = self.history.next_op();
        let me = &mut self.speakers[speaker];
        let said = talk(&self.profile, me, (speaker, next_op, self.now), &mut self.of_speakers);
        self.says(speaker, said);
    }

    /// Sends commands, and notes what must come back.
    pub(crate) fn says(&mut self, speaker: usize, said: Vec<Utterance>) {
        let node = self.speakers[speaker].node;
        let (now, client) = (self.now, self.profile.clients + speaker);
        let mut bytes = Vec::new();
        for utterance in said {
            let words: Vec<&[u8]> = utterance.words.iter().map(|w| &w[..]).collect();
            write_command(&mut bytes, &words);
            if self.trace.wants_text() {
                let text: Vec<_> = words.iter().map(|w| String::from_utf8_lossy(w)).collect();
                let text = text.join(" ");
                self.trace.tell(now, format_args!("s{speaker} says {text:.120}"));
            }
            for draft in utterance.begins {
                let Some(line) = &mut self.speakers[speaker].line else { return };
                let op = self.history.next_op();
                let mut after = Vec::new();
                for row in &draft.rows {
                    let earlier = line.under_way.entry(row.clone()).or_default();
                    after.extend(earlier.iter().copied());
                    earlier.push(op);
                }
                let asked = Asked {
                    client,
                    node,
                    ask: draft.ask,
                    rows: draft.rows,
                    at: now,
                    after,
                    knows: Rc::default(),
                    read: draft.read,
                    write: draft.write,
                    end: End::Open,
                    ended: 0,
                };
                self.counters.begins(&asked, op);
                self.history.begin(asked);
            }
            let Some(line) = &mut self.speakers[speaker].line else { return };
            line.waiting.push_back(utterance.wanted);
        }
        let Some(line) = &self.speakers[speaker].line else { return };
        let (number, life, heard) = (line.number, line.life, line.heard);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let cut = if self.of_speakers.hits(700_000) {
                rest.len()
            } else {
                1 + self.of_speakers.below(rest.len() as u64) as usize
            };
            let (segment, later) = rest.split_at(cut);
            rest = later;
            let delay = self.of_speakers.between(20_000, 400_000);
            let Some(line) = &mut self.speakers[speaker].line else { return };
            let at = (now + delay).max(line.sent_until + 1);
            line.sent_until = at;
            let input = Input::Bytes(number, Rc::from(segment));
            let core = (number % u64::from(self.profile.cores)) as usize;
            self.queue.plan(at, Happening::Input { node, life, core, input });
        }
        let at = now + self.profile.patience_ns * 3 / 2;
        self.queue.plan(at, Happening::Impatient { speaker, number, heard });
    }

    /// Bytes leave a node for a client.
    pub(crate) fn spoken(&mut self, spoken: Spoken) {
        let Spoken { conn, bytes, close } = spoken;
        let Some(speaker) = self.lines.get(&conn).copied() else { return };
        let delay = self.of_speakers.between(20_000, 400_000);
        let Some(line) = &mut self.speakers[speaker].line else { return };
        let at = (self.now + delay).max(line.heard_until + 1);
        line.heard_until = at;
        let bytes = Rc::from(bytes);
        self.queue.plan(at, Happening::Hear { speaker, number: conn, bytes, close });
    }

    /// Bytes arrive at a client.
    pub(crate) fn hear(&mut self, speaker: usize, number: u64, bytes: &[u8], close: bool) {
        let Some(line) = &mut self.speakers[speaker].line else { return };
        if line.number != number {
            return;
        }
        line.input.extend_from_slice(bytes);
        self.trace.mix(&[self.now, number, bytes.len() as u64]);
        loop {
            let Some(line) = &mut self.speakers[speaker].line else { return };
            let read = match line.decoder.decode(&line.input) {
                Ok(Some(read)) => read,
                Ok(None) => break,
                Err(e) => {
                    self.truth.breaks("replies can be read", format!("s{speaker}: {e}"));
                    return;
                }
            };
            line.input.drain(..read.consumed);
            line.heard += 1;
            let Some(wanted) = line.waiting.pop_front() else {
                let text = format!("s{speaker} heard {:?}", read.reply);
                self.truth.breaks("no reply comes unasked", text);
                return;
            };
            if self.trace.wants_text() {
                let reply = format!("{:?}", read.reply);
                self.trace
                    .tell(self.now, format_args!("s{speaker} hears {reply:.200} for {wanted:?}"));
            }
            self.understand(speaker, &wanted, read.reply);
            if self.truth.broken.is_some() {
                return;
            }
        }
        if close {
            self.line_lost(speaker);
            return;
        }
        let Some(line) = &mut self.speakers[speaker].line else { return };
        if line.waiting.is_empty() {
            line.under_way.clear();
            let mut wait = self.of_speakers.waiting(self.profile.think_ns) + MS / 10;
            if std::mem::take(&mut line.refused) && self.stormy {
                if self.of_speakers.coin() {
                    self.hang_up(speaker);
                    return;
                }
                wait += self.of_speakers.waiting(REFUSED_WAITS);
            }
            self.queue.plan(self.now + wait, Happening::Speak { speaker, number });
        }
    }

    /// A speaker has waited for long.
    pub(crate) fn impatient(&mut self, speaker: usize, number: u64, heard: u64) {
        let Some(line) = &self.speakers[speaker].line else { return };
        if line.number != number || line.waiting.is_empty() {
            return;
        }
        let stuck = line.heard == heard;
        if stuck && self.stormy && self.of_speakers.hits(250_000) {
            self.hang_up(speaker);
            return;
        }
        let heard = line.heard;
        let at = self.now + self.profile.patience_ns * 3 / 2;
        self.queue.plan(at, Happening::Impatient { speaker, number, heard });
    }

    /// A speaker closes its connection, whatever it still waits for.
    fn hang_up(&mut self, speaker: usize) {
        let node = self.speakers[speaker].node;
        let Some(line) = &self.speakers[speaker].line else { return };
        let (number, life) = (line.number, line.life);
        let at = (self.now + self.of_speakers.between(20_000, 400_000)).max(line.sent_until + 1);
        let core = self.core_of_line(number);
        let input = Input::Close(number);
        self.queue.plan(at, Happening::Input { node, life, core, input });
        self.line_lost(speaker);
    }

    /// A process is gone, and every connection to it.
    pub(crate) fn lines_lost(&mut self, node: usize, life: u64) {
        for speaker in 0..self.speakers.len() {
            let there = self.speakers[speaker].node == node;
            let line = self.speakers[speaker].line.as_ref();
            if there && line.is_some_and(|line| line.life == life) {
                self.line_lost(speaker);
            }
        }
    }

    /// A connection is over: what was not answered is in doubt, and the speaker dials anew.
    fn line_lost(&mut self, speaker: usize) {
        let Some(line) = self.speakers[speaker].line.take() else { return };
        self.trace.tell(self.now, format_args!("s{speaker} lost {}", line.number));
        self.lines.remove(&line.number);
        for wanted in line.waiting {
            for op in wanted.ops() {
                self.request_ends(speaker, op, End::Unknown);
            }
        }
        if self.of_speakers.coin() {
            let node = self.of_speakers.below(self.nodes.len() as u64) as usize;
            self.speakers[speaker].node = node;
        }
        let at = self.now + self.of_speakers.between(MS, LOST_WITHIN);
        self.queue.plan(at, Happening::Dial { speaker });
    }

    /// A request of a speaker has ended; `None` if it had before.
    pub(crate) fn request_ends(&mut self, speaker: usize, op: u64, end: End) -> Option<Asked> {
        if !self.history.end(op, self.now, end) {
            return None;
        }
        self.trace.mix(&[self.now, op, end as u64]);
        let asked = self.history.get(op).clone();
        self.counters.ends(&asked, op);
        if end == End::Failed {
            crate::check::durability::failed(&mut self.truth, op, &asked);
        }
        if end != End::Done {
            let me = &mut self.speakers[speaker];
            if let Some(row) = asked.rows.first() {
                me.contexts.remove(row);
            }
            let changes = !matches!(asked.ask, Ask::Expiring(crate::history::Step::Get))
                || end == End::Failed;
            if matches!(asked.ask, Ask::Expiring(_)) && changes && is_own(me, speaker, &asked) {
                self.speakers[speaker].own.give_up();
            }
        }
        Some(asked)
    }

    /// True if nobody waits for a reply.
    pub(crate) fn all_were_answered(&self) -> bool {
        self.speakers.iter().all(|s| s.line.as_ref().is_none_or(|line| line.waiting.is_empty()))
    }
}

/// True if a request is about the speaker's present own key, whatever its tag.
pub(crate) fn is_own(me: &Speaker, speaker: usize, asked: &Asked) -> bool {
    let number = own_number(speaker, me.own.generation);
    let is = |tag| asked.rows.first() == Some(&row_of(0, 'e', tag, number));
    (0..8).any(is)
}
