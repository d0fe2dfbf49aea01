//! Plan files.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plumb_fuzz::plan_file::check(data));
