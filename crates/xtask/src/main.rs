//! Chores of the project that are not tests. `cargo xtask bench` measures the bars of docs/BENCHMARKS.md.

mod bench;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["bench", only @ ..] => bench::run(only),
        _ => {
            eprintln!(
                "usage: cargo xtask bench [NAME…]\nnames: {}",
                bench::NAMES.join(" ")
            );
            ExitCode::from(1)
        }
    }
}
