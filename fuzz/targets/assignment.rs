//! An agent's assignment and its deltas.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plumb_fuzz::assignment::check(data));
