//! request: any bytes as a Redis client's requests; they decode or err, however they arrive, and never panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringdb_wire::fuzz::fuzz_resp_request(data));
