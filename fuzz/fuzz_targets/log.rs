//! log: any bytes in place of a log segment of a small store; it errs or works, and never panics.
#![no_main]

#[path = "../../storage/tests/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::File::Log.fuzz(data));
