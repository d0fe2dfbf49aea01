//! A bare shim: what the tests of this crate start, and what its memory is measured with.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(incarnation) => plumb_driver::shim::run(Path::new(&incarnation)),
        None => {
            eprintln!("usage: shim INCARNATION_DIR (the agent starts it)");
            ExitCode::FAILURE
        }
    }
}
