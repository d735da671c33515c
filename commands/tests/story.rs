//! Story: a client that talks to one session, over a model that answers its requests.

use std::sync::Arc;

use commands::{Output, PlainHost, Session, SessionDefaults, Submit};
use replication::Answer;
use ring::{Instant, NodeId, Now, WallMillis};

use crate::model::Model;

/// A conversation.
pub(crate) struct Story {
    pub(crate) session: Session,
    pub(crate) host: PlainHost,
    pub(crate) model: Model,
    pub(crate) now: Now,
    pub(crate) out: Output,
}

impl Story {
    pub(crate) fn new() -> Self {
        Self::with(SessionDefaults::default())
    }

    pub(crate) fn with(defaults: SessionDefaults) -> Self {
        let mut host =
            PlainHost { owners: vec![NodeId(1), NodeId(2), NodeId(3)], ..PlainHost::default() };
        host.facts.copies = 3;
        host.secret = *b"a cluster secret";
        Self {
            session: Session::new(7, Arc::new(defaults), 1),
            host,
            model: Model::default(),
            now: Now { mono: Instant(1_000), wall: WallMillis(1_700_000_000_000) },
            out: Output::default(),
        }
    }

    /// The client sends a command; nothing is answered yet.
    pub(crate) fn sends(&mut self, args: &[&[u8]]) {
        self.session.on_command(self.now, args, &mut self.host, &mut self.out);
    }

    /// The same from text, cut at blanks; `''` is an empty argument.
    pub(crate) fn sends_line(&mut self, line: &str) {
        let args: Vec<&[u8]> = words(line);
        self.sends(&args);
    }

    /// The requests that wait for an answer.
    pub(crate) fn takes_submits(&mut self) -> Vec<Submit> {
        std::mem::take(&mut self.out.submits)
    }

    /// One request is answered so.
    pub(crate) fn answers(&mut self, id: u64, answer: Answer) {
        self.session.on_answer(self.now, id, answer, &mut self.host, &mut self.out);
    }

    /// The model answers one request.
    pub(crate) fn serves(&mut self, submit: Submit) {
        let answer = self.model.answer(self.now.wall, submit.request);
        self.answers(submit.id, answer);
    }

    /// The model answers everything until nothing is asked any more.
    pub(crate) fn settles(&mut self) {
        while !self.out.submits.is_empty() {
            for submit in self.takes_submits() {
                self.serves(submit);
            }
        }
    }

    /// The raw bytes that the client has heard since it last listened.
    pub(crate) fn hears(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out.replies)
    }

    /// What the client has heard, with a blank for each line's end.
    pub(crate) fn hears_text(&mut self) -> String {
        String::from_utf8_lossy(&self.hears()).replace("\r\n", " ").trim_end().to_owned()
    }

    /// Sends a line and hears its reply.
    pub(crate) fn says(&mut self, line: &str) -> String {
        self.sends_line(line);
        self.settles();
        self.hears_text()
    }

    /// The same for arguments of any bytes.
    pub(crate) fn says_args(&mut self, args: &[&[u8]]) -> Vec<u8> {
        self.sends(args);
        self.settles();
        self.hears()
    }

    /// Sends lines and checks each reply.
    pub(crate) fn goes(&mut self, lines: &[(&str, &str)]) {
        for (line, wanted) in lines {
            assert_eq!(self.says(line), *wanted, "{line}");
        }
    }

    pub(crate) fn passes_ms(&mut self, ms: u64) {
        self.now.mono.0 += ms * 1_000_000;
        self.now.wall.0 += ms;
    }
}

/// A line cut at blanks.
pub(crate) fn words(line: &str) -> Vec<&[u8]> {
    line.split_ascii_whitespace()
        .map(|word| if word == "''" { &[] } else { word.as_bytes() })
        .collect()
}
