//! Front: the connections of one simulated core, with real sessions behind them.
//!
//! It does what a node's front does: whole commands of what came go to the session until it wants no
//! more, its requests go to the machine under numbers of their own, answers go back to whoever asked,
//! and replies leave with the end of the turn. A client that goes cancels what it asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use commands::{Output, PlainHost, Session, SessionDefaults, Submit};
use replication::{Answer, Request};
use ring::Now;
use wire::resp::{Decoder, Limits};

/// Requests of sessions have this bit; those that clients hand in themselves do not.
const OF_SESSION: u64 = 1 << 63;

/// The bits of a request's number that name its core.
const CORE_SHIFT: u32 = 48;

/// The core whose session asked this; `None` if no session did.
#[must_use]
pub const fn core_of(request: u64) -> Option<usize> {
    if request & OF_SESSION == 0 {
        return None;
    }
    Some((request & !OF_SESSION) as usize >> CORE_SHIFT)
}

/// A connection.
struct Conn {
    session: Session,
    output: Output,
    decoder: Decoder,
    /// What came and was not fed yet.
    input: Vec<u8>,
}

/// What a client hears at the end of a turn.
#[derive(Debug)]
pub struct Spoken {
    /// The connection.
    pub conn: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Nothing follows.
    pub close: bool,
}

/// A request of a session, under the number that its answer must carry.
#[derive(Debug)]
pub struct Asking {
    /// The number.
    pub id: u64,
    /// The request.
    pub request: Request,
    /// How long it may take, in microseconds.
    pub timeout_us: u64,
}

/// The connections of a core.
pub struct Front {
    /// What sessions know of the node.
    pub host: PlainHost,
    core: u64,
    conns: BTreeMap<u64, Conn>,
    /// Who asked, and the session's own number of the request.
    asked: BTreeMap<u64, (u64, u64)>,
    numbers: u64,
    asking: Vec<Asking>,
    /// Connections that did something in this turn.
    touched: BTreeSet<u64>,
}

impl Front {
    /// The front of a core on which nobody has called yet.
    #[must_use]
    pub fn new(core: u8) -> Self {
        Self {
            host: PlainHost { loading: true, ..PlainHost::default() },
            core: u64::from(core),
            conns: BTreeMap::new(),
            asked: BTreeMap::new(),
            numbers: 0,
            asking: Vec::new(),
            touched: BTreeSet::new(),
        }
    }

    /// A client has connected.
    pub fn open(&mut self, conn: u64, defaults: &Arc<SessionDefaults>, bugs: Vec<commands::Bug>) {
        let session = Session::new(conn, defaults.clone(), conn).with_bugs(bugs);
        self.conns.insert(
            conn,
            Conn {
                session,
                output: Output::default(),
                decoder: Decoder::new(Limits::default()),
                input: Vec::new(),
            },
        );
    }

    /// A client has gone; the requests to be cancelled.
    pub fn close(&mut self, conn: u64) -> Vec<u64> {
        self.conns.remove(&conn);
        let gone: Vec<u64> =
            self.asked.iter().filter(|(_, (c, _))| *c == conn).map(|(id, _)| *id).collect();
        for id in &gone {
            self.asked.remove(id);
        }
        gone
    }

    /// Bytes came from a client.
    pub fn bytes(&mut self, now: Now, conn: u64, bytes: &[u8]) {
        let Some(c) = self.conns.get_mut(&conn) else { return };
        c.input.extend_from_slice(bytes);
        self.feed(now, conn);
    }

    /// The machine has answered.
    pub fn answered(&mut self, now: Now, request: u64, answer: Answer) {
        let Some((conn, id)) = self.asked.remove(&request) else { return };
        let Some(c) = self.conns.get_mut(&conn) else { return };
        c.session.on_answer(now, id, answer, &mut self.host, &mut c.output);
        self.feed(now, conn);
    }

    /// Gives the session as many whole commands as it wants, and takes its requests.
    fn feed(&mut self, now: Now, conn: u64) {
        let Some(c) = self.conns.get_mut(&conn) else { return };
        let mut at = 0;
        while c.session.wants_more() && !c.output.close {
            c.decoder.set_authenticated(c.session.is_authenticated());
            match c.decoder.decode(&c.input[at..]) {
                Ok(Some(decoded)) => {
                    at += decoded.consumed;
                    let args: Vec<&[u8]> = decoded.command.args().collect();
                    c.session.on_command(now, &args, &mut self.host, &mut c.output);
                }
                Ok(None) => break,
                Err(e) => {
                    c.session.on_protocol_error(&e.to_string(), &self.host, &mut c.output);
                    at = c.input.len();
                    break;
                }
            }
        }
        c.input.drain(..at);
        self.touched.insert(conn);
        for Submit { id, request, timeout_us } in c.output.submits.drain(..) {
            self.numbers += 1;
            let number = OF_SESSION | self.core << CORE_SHIFT | self.numbers;
            self.asked.insert(number, (conn, id));
            self.asking.push(Asking { id: number, request, timeout_us });
        }
    }

    /// What sessions have asked since the last call.
    pub fn take_asking(&mut self) -> Vec<Asking> {
        std::mem::take(&mut self.asking)
    }

    /// What clients are to hear, by connection.
    pub fn take_spoken(&mut self) -> Vec<Spoken> {
        let mut spoken = Vec::new();
        for conn in std::mem::take(&mut self.touched) {
            let Some(c) = self.conns.get_mut(&conn) else { continue };
            if !c.output.replies.is_empty() || c.output.close {
                let bytes = std::mem::take(&mut c.output.replies);
                spoken.push(Spoken { conn, bytes, close: c.output.close });
            }
        }
        spoken
    }

    /// How many requests of sessions are not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.asked.len()
    }
}
