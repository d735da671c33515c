//! frame: any bytes as a stream of frames; they decode or err, however they arrive, and never panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringdb_wire::fuzz::fuzz_frame(data));
