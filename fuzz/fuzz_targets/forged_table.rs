//! forged_table: any recipe of a table whose few bytes stand for many; it is read or refused.
#![no_main]

#[path = "../../storage/tests/fuzz/forged.rs"]
mod forged;

libfuzzer_sys::fuzz_target!(|data: &[u8]| forged::fuzz(data));
