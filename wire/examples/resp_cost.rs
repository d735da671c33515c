//! What RESP costs: nanoseconds a command decoded and a reply encoded.
//!
//! `cargo run --release -p ringdb-wire --example resp_cost`

use std::hint::black_box;
use std::time::{Duration, Instant};

use ringdb_wire::resp::encode::{write_bulk, write_command, write_integer, write_ok};
use ringdb_wire::resp::{Decoder, Limits};

const PIPELINE: u32 = 16;

fn main() {
    let mut sets = Vec::new();
    let mut gets = Vec::new();
    for i in 0..PIPELINE {
        let key = format!("key:{i:012}");
        write_command(&mut sets, &[b"SET", key.as_bytes(), &[b'x'; 100]]);
        write_command(&mut gets, &[b"GET", key.as_bytes()]);
    }
    let inline = b"PING\r\n".repeat(PIPELINE as usize);
    let mut decoder = Decoder::new(Limits::default());
    for (what, pipeline) in
        [("decode SET, 100 bytes", &sets), ("decode GET", &gets), ("decode inline PING", &inline)]
    {
        report(what, || {
            let mut rest = black_box(&pipeline[..]);
            let mut commands = 0;
            while let Some(decoded) = decoder.decode(rest).expect("well formed") {
                commands += 1;
                black_box(decoded.command.args().last());
                rest = &rest[decoded.consumed..];
            }
            assert_eq!(commands, PIPELINE, "every command is whole");
        });
    }

    let mut out = Vec::with_capacity(1 << 16);
    report("encode OK", || {
        out.clear();
        (0..PIPELINE).for_each(|_| write_ok(black_box(&mut out)));
    });
    report("encode integer", || {
        out.clear();
        (0..PIPELINE).for_each(|i| write_integer(black_box(&mut out), i64::from(i) * 1_000));
    });
    report("encode bulk, 100 bytes", || {
        out.clear();
        (0..PIPELINE).for_each(|_| write_bulk(black_box(&mut out), &[b'x'; 100]));
    });
}

/// The best of twenty rounds: the others met another program.
#[allow(clippy::disallowed_methods, reason = "this program measures; the crate itself does not")]
fn report(what: &str, mut work: impl FnMut()) {
    const REPEATS: u32 = 5_000;
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        for _ in 0..REPEATS {
            work();
        }
        best = best.min(start.elapsed());
    }
    println!("{what:24} {:8.1} ns", best.as_nanos() as f64 / f64::from(REPEATS * PIPELINE));
}
