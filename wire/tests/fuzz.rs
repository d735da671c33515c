//! Seeded mutations of good input through the properties of `ringdb_wire::fuzz`.
//!
//! A failure prints its round; the same round makes the same input on every machine. With
//! `RINGDB_FUZZ_FACTOR=100` there are a hundred times as many.

use ringdb_wire::codec::encode_into;
use ringdb_wire::fuzz::{fuzz_codec, fuzz_frame, fuzz_reply, fuzz_resp_request};
use ringdb_wire::{FrameWriter, Header, Kind};

/// Steele, Lea and Flood's SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let words = length.div_ceil(8);
        let mut bytes: Vec<u8> = (0..words).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(length);
        bytes
    }

    /// A few good inputs one after the other, damaged in a few places.
    fn mutant(&mut self, seeds: &[Vec<u8>], spice: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..=self.below(3) {
            bytes.extend_from_slice(&seeds[self.below(seeds.len())]);
        }
        for _ in 0..self.below(6) {
            if bytes.is_empty() {
                break;
            }
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = spice[self.below(spice.len())],
                2 => bytes.insert(at, spice[self.below(spice.len())]),
                3 => drop(bytes.remove(at)),
                4 => bytes.truncate(at),
                _ => {
                    let end = at + self.below(bytes.len() - at);
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
            }
        }
        bytes
    }
}

fn storm(seeds: &[Vec<u8>], spice: &[u8], rounds: u64, property: fn(&[u8])) {
    for seed in seeds {
        property(seed);
        for end in 0..seed.len() {
            property(&seed[..end]);
        }
    }
    let factor = std::env::var("RINGDB_FUZZ_FACTOR").ok().and_then(|f| f.parse().ok());
    for round in 0..rounds * factor.unwrap_or(1) {
        let input = Random(round).mutant(seeds, spice);
        let caught = std::panic::catch_unwind(|| property(&input));
        assert!(caught.is_ok(), "round {round} breaks a promise: {}", input.escape_ascii());
    }
}

#[test]
fn requests_hold_their_promises_in_a_storm() {
    let seeds = [
        &b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n"[..],
        b"*1\r\n$4\r\nPING\r\n",
        b"set \"a \\x41\\n\" 'b\\'c' d\r\n",
        b"*0\r\n",
        b"\r\n",
        b"*-1\r\n",
        b"*2\r\n$0\r\n\r\n$70\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n",
        b"GET aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n",
    ];
    storm(&seeds.map(<[u8]>::to_vec), b"*$\r\n0123456789-\"'\\x \0\xff", 30_000, fuzz_resp_request);
}

#[test]
fn replies_hold_their_promises_in_a_storm() {
    let seeds = [
        &b"*2\r\n$3\r\nfoo\r\n:42\r\n"[..],
        b"%1\r\n+k\r\n~2\r\n#t\r\n_\r\n",
        b"|1\r\n+meta\r\n:1\r\n>2\r\n,1.5\r\n(-123\r\n",
        b"=7\r\ntxt:abc\r\n!5\r\nERR x\r\n",
        b"-ERR no\r\n$-1\r\n*-1\r\n,nan\r\n,-inf\r\n",
    ];
    let spice = b"*$%~>|_#,(!=+-:\r\n0123456789tf.e\xff";
    storm(&seeds.map(<[u8]>::to_vec), spice, 30_000, fuzz_reply);
}

#[test]
fn frames_hold_their_promises_in_a_storm() {
    let mut seeds = Vec::new();
    for body in [&b""[..], b"hello", &b"abcdefgh".repeat(600)] {
        let mut writer = FrameWriter::new();
        writer.frame(Header::new(Kind::PEER_MESSAGES), body).expect("fits");
        seeds.push(writer.bytes().to_vec());
    }
    storm(&seeds, b"\x00\x01\x02\x7f\x80\xff", 20_000, fuzz_frame);
}

#[test]
fn messages_hold_their_promises_in_a_storm() {
    storm(
        &messages(),
        b"\x80\x81\x90\x91\xa1\xc0\xc4\xc6\xcf\xd9\xdc\xdd\xdf\xff",
        30_000,
        fuzz_codec,
    );
}

/// Every request and reply that the native client knows, as bytes.
pub(crate) fn messages() -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for request in crate::codec::requests() {
        let mut bytes = Vec::new();
        encode_into(&request, &mut bytes);
        messages.push(bytes);
    }
    for reply in crate::codec::replies() {
        let mut bytes = Vec::new();
        encode_into(&reply, &mut bytes);
        messages.push(bytes);
    }
    messages
}
