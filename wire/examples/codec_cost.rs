//! What the codec and a frame cost: nanoseconds a message, encoded and decoded.
//!
//! `cargo run --release -p ringdb-wire --example codec_cost`

use std::hint::black_box;
use std::time::{Duration, Instant};

use ringdb_wire::codec::{decode, decode_next, encode_into};
use ringdb_wire::{FrameDecoder, FrameWriter, Header, Kind};
use serde::{Deserialize, Serialize};

/// A message such as nodes exchange for each write.
#[derive(Serialize, Deserialize)]
struct Message<'a> {
    t: u64,
    o: u8,
    #[serde(borrow, with = "serde_bytes")]
    k: &'a [u8],
    #[serde(borrow, with = "serde_bytes")]
    d: &'a [u8],
}

fn main() {
    let message = Message { t: 0x1234_5678_9abc, o: 3, k: b"user:000042", d: &[b'x'; 100] };
    let mut bytes = Vec::with_capacity(4_096);
    report("encode a message", || {
        bytes.clear();
        encode_into(black_box(&message), &mut bytes);
    });
    println!("  of {} bytes", bytes.len());
    report("decode it, borrowed", || {
        let message: Message<'_> = decode(black_box(&bytes)).expect("whole");
        black_box(message.t + u64::from(message.o));
    });

    let mut writer = FrameWriter::new();
    report("build a frame of 16", || {
        writer.clear();
        writer.begin(Header::new(Kind::PEER_MESSAGES));
        for _ in 0..16 {
            encode_into(black_box(&message), writer.body());
        }
        writer.finish().expect("fits");
    });
    let mut decoder = FrameDecoder::new();
    report("read a frame of 16", || {
        let frame = decoder.decode(black_box(writer.bytes())).expect("good").expect("whole");
        let mut rest = frame.body;
        while !rest.is_empty() {
            let (message, after): (Message<'_>, _) = decode_next(rest).expect("whole");
            black_box(message.k);
            rest = after;
        }
    });
}

/// The best of twenty rounds: the others met another program.
#[allow(clippy::disallowed_methods, reason = "this program measures; the crate itself does not")]
fn report(what: &str, mut work: impl FnMut()) {
    const REPEATS: u32 = 20_000;
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        for _ in 0..REPEATS {
            work();
        }
        best = best.min(start.elapsed());
    }
    println!("{what:24} {:8.1} ns", best.as_nanos() as f64 / f64::from(REPEATS));
}
