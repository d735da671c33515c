//! Redis clients: few sockets that are looked after in turn.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Chance, Loop, Mode, Moment, NODE_DEADLINE, Options, Outcome, Phase, TICK};

/// What a connection hands to the system ahead: what lies there cannot be given up.
const SEND_BUFFER_BYTES: usize = 32 << 10;

/// One of them.
pub(super) struct Connection {
    stream: TcpStream,
    /// When they were due, of those that wait to be sent.
    unsent: VecDeque<Instant>,
    /// When they were due, and where they end in what is written, of those that the system has not taken yet.
    leaving: VecDeque<(Instant, usize)>,
    /// When they were due and sent, of those that wait for an answer.
    sent: VecDeque<(Instant, Instant)>,
    out: Vec<u8>,
    written: usize,
    /// When it last took all answers that were there.
    looked: Instant,
    inbox: Vec<u8>,
    chance: Chance,
}

impl Connection {
    fn open(address: SocketAddr, seed: u64) -> Outcome<Self> {
        let stream = TcpStream::connect(address).map_err(|e| format!("{address}: {e}"))?;
        stream.set_nodelay(true)?;
        socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            unsent: VecDeque::new(),
            leaving: VecDeque::new(),
            sent: VecDeque::new(),
            out: Vec::new(),
            written: 0,
            inbox: Vec::new(),
            looked: Instant::now(),
            chance: Chance::new(seed),
        })
    }

    /// Sends what is due, as much as the socket takes; what is too old is given up.
    fn write(&mut self, now: Instant, options: &Options, moment: &mut Moment) -> Outcome<()> {
        loop {
            while self.out.len() - self.written < 16 << 10 {
                let Some(due) = self.unsent.pop_front() else { break };
                if now.duration_since(due) >= options.deadline {
                    moment.lost += 1;
                    continue;
                }
                let key = self.chance.key();
                let bytes = options.value_bytes;
                match options.mode {
                    Mode::Get => write!(self.out, "*2\r\n$3\r\nGET\r\n$16\r\nkey:{key:012}\r\n")?,
                    Mode::Incr => {
                        write!(self.out, "*2\r\n$4\r\nINCR\r\n$18\r\ncount:{key:012}\r\n")?;
                    }
                    Mode::Set => {
                        write!(
                            self.out,
                            "*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${bytes}\r\n"
                        )?;
                        self.out.resize(self.out.len() + bytes, b'v');
                        self.out.extend_from_slice(b"\r\n");
                    }
                }
                self.leaving.push_back((due, self.out.len()));
            }
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
                return Ok(());
            }
            match self.stream.write(&self.out[self.written..]) {
                Ok(n) => self.written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.into()),
            }
            let left = self.leaving.iter().take_while(|(_, end)| *end <= self.written).count();
            self.sent.extend(self.leaving.drain(..left).map(|(due, _)| (due, now)));
        }
    }

    fn in_flight(&self) -> usize {
        self.unsent.len() + self.leaving.len() + self.sent.len()
    }

    /// Takes the answers that are there.
    fn read(&mut self, options: &Options, phase: &mut Phase, moment: usize) -> Outcome<()> {
        let mut buffer = [0; 64 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(n) => self.inbox.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.into()),
            }
        }
        let now = Instant::now();
        // What comes now was not there then: it came in between.
        let looked = std::mem::replace(&mut self.looked, now);
        let mut at = 0;
        while let Some(end) = self.inbox[at..].windows(2).position(|w| w == b"\r\n") {
            let line = &self.inbox[at..at + end];
            let mut next = at + end + 2;
            if line.first() == Some(&b'$') && line != b"$-1" {
                next += std::str::from_utf8(&line[1..])?.parse::<usize>()? + 2;
            }
            if next > self.inbox.len() {
                break;
            }
            let (due, sent) = self.sent.pop_front().ok_or("an answer to nothing")?;
            let took = now.duration_since(due);
            let of = &mut phase.moments[moment];
            if line.starts_with(b"-OVERLOADED") {
                of.refused += 1;
            } else if line.starts_with(b"-") {
                of.errors += 1;
                let text = || String::from_utf8_lossy(line).into_owned();
                phase.first_error.get_or_insert_with(text);
            } else if took > options.deadline {
                of.late += 1;
                phase.beyond += u64::from(looked.saturating_duration_since(sent) > NODE_DEADLINE);
            } else {
                of.good += 1;
                of.took_us.push(took.as_micros() as u32);
            }
            at = next;
        }
        self.inbox.drain(..at);
        Ok(())
    }
}

/// Opens all connections, dealt to the addresses in turn.
pub(super) fn open_all(options: &Options) -> Outcome<Vec<Connection>> {
    let open =
        |i: usize| Connection::open(options.addresses[i % options.addresses.len()], i as u64 + 1);
    (0..options.connections).map(open).collect()
}

/// One phase.
pub(super) fn run(
    options: &Options,
    connections: &mut [Connection],
    how: Loop,
    seconds: f64,
) -> Outcome<Phase> {
    let began = Instant::now();
    let mut phase = Phase::new(&options.pids, seconds);
    let (mut offered, mut next) = (0_u64, 0_usize);
    loop {
        let now = Instant::now();
        let since = now.duration_since(began);
        if since.as_secs_f64() >= seconds {
            phase.end();
            return Ok(phase);
        }
        let moment = phase.moment(since);
        match how {
            Loop::Closed(window) => {
                for connection in connections.iter_mut() {
                    while connection.in_flight() < window {
                        connection.unsent.push_back(now);
                        phase.moments[moment].offered += 1;
                    }
                }
            }
            Loop::Open(rate) => {
                let due = (since.as_secs_f64() * rate) as u64;
                while offered < due {
                    let at = began + Duration::from_secs_f64(offered as f64 / rate);
                    connections[next].unsent.push_back(at);
                    next = (next + 1) % connections.len();
                    offered += 1;
                    phase.moments[moment].offered += 1;
                }
            }
        }
        for connection in connections.iter_mut() {
            connection.write(now, options, &mut phase.moments[moment])?;
            connection.read(options, &mut phase, moment)?;
        }
        // In a closed loop whoever has an answer asks again at once.
        if matches!(how, Loop::Open(_)) {
            std::thread::sleep(TICK.saturating_sub(now.elapsed()));
        }
    }
}
