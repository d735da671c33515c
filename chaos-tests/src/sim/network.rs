//! The network: delays, losses, duplicates, disorder, cuts, and connections that break.
//!
//! Between two nodes there is one connection at a time. While it lasts a *faithful* network (as QUIC)
//! delivers each lane in order and loses nothing: a cut only delays. A *chaotic* one loses, doubles
//! and reorders. When the connection breaks, what is under way is lost either way, and both ends hear
//! of the next connection.

use super::chance::Chance;
use super::clock::MS;

/// How the network behaves.
#[derive(Clone, Debug)]
pub struct Manners {
    /// In order and without loss while a connection lasts.
    pub faithful: bool,
    /// Shortest and longest usual delay, in nanoseconds.
    pub delay_ns: (u64, u64),
    /// How many frames in a million take up to a hundred times as long.
    pub late_ppm: u32,
    /// How many frames in a million are lost, if it is not faithful.
    pub loss_ppm: u32,
    /// How many frames in a million come twice, if it is not faithful.
    pub twice_ppm: u32,
}

/// A lane of a connection: order holds within one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Small messages and heartbeats.
    Small = 0,
    /// Pulls and listings.
    Bulk = 1,
}

/// One direction between two nodes.
#[derive(Clone, Debug, Default)]
struct Way {
    cut: bool,
    /// When the last frame of each lane arrives.
    last: [u64; 2],
}

/// All connections of `n` nodes, numbered from 0.
#[derive(Clone, Debug)]
pub struct Network {
    n: usize,
    /// How it behaves.
    pub manners: Manners,
    ways: Vec<Way>,
    /// The number of the present connection of each pair; odd while there is one.
    connections: Vec<u64>,
}

impl Network {
    /// Nobody is connected yet.
    #[must_use]
    pub fn new(n: usize, manners: Manners) -> Self {
        Self { n, manners, ways: vec![Way::default(); n * n], connections: vec![0; n * n] }
    }

    const fn pair(&self, a: usize, b: usize) -> usize {
        if a < b { a * self.n + b } else { b * self.n + a }
    }

    /// The number of the connection between two nodes, if there is one.
    #[must_use]
    pub fn connection(&self, a: usize, b: usize) -> Option<u64> {
        let number = self.connections[self.pair(a, b)];
        (number % 2 == 1).then_some(number)
    }

    /// Breaks the connection: what is under way is lost. False if there was none.
    pub fn break_up(&mut self, a: usize, b: usize) -> bool {
        let pair = self.pair(a, b);
        let was = self.connections[pair] % 2 == 1;
        if was {
            self.connections[pair] += 1;
            for way in [a * self.n + b, b * self.n + a] {
                self.ways[way].last = [0; 2];
            }
        }
        was
    }

    /// Connects two nodes. False if they are connected, or cannot be for a cut.
    pub fn connect(&mut self, a: usize, b: usize) -> bool {
        let pair = self.pair(a, b);
        let possible = !self.is_cut(a, b) && !self.is_cut(b, a);
        if self.connections[pair] % 2 == 1 || !possible {
            return false;
        }
        self.connections[pair] += 1;
        true
    }

    /// Cuts or mends one direction.
    pub fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        self.ways[from * self.n + to].cut = cut;
    }

    /// True if nothing gets from one to the other.
    #[must_use]
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.ways[from * self.n + to].cut
    }

    /// When a frame sent now arrives: never, once, or twice.
    pub fn send(
        &mut self,
        now: u64,
        (from, to): (usize, usize),
        lane: Lane,
        chance: &mut Chance,
    ) -> [Option<u64>; 2] {
        if self.connection(from, to).is_none() {
            return [None; 2];
        }
        let m = &self.manners;
        let (low, high) = m.delay_ns;
        let mut delay = chance.between(low, high);
        if m.late_ppm > 0 && chance.hits(m.late_ppm) {
            delay = delay.saturating_mul(chance.between(2, 100)).min(800 * MS);
        }
        let mut at = now + delay;
        let way = &mut self.ways[from * self.n + to];
        if m.faithful {
            let last = &mut way.last[lane as usize];
            at = at.max(*last + 1);
            *last = at;
            return [Some(at), None];
        }
        if chance.hits(m.loss_ppm) {
            return [None; 2];
        }
        let again = chance.hits(m.twice_ppm).then(|| now + chance.between(low, high * 4));
        [Some(at), again]
    }
}
