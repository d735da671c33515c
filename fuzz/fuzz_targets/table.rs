//! table: any bytes in place of a table of a small store; it errs or works, and never panics.
#![no_main]

#[path = "../../storage/tests/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::File::Table.fuzz(data));
