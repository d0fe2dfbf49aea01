//! The formatter.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plumb_fuzz::fmt::check(data));
