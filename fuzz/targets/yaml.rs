//! Blueprint files, from bytes to a plan.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plumb_fuzz::yaml::check(data));
