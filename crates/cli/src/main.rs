//! `plumb`: the one binary. Arguments, exit codes and rendering; everything else is in the crates above.

mod access;
mod args;
mod beside;
mod commands;
mod config;
mod context;
mod dial;
mod error;
mod events;
mod fleet;
mod follow;
mod git;
mod install;
mod logging;
mod memory;
mod offline;
mod out;
mod regular;
mod remote;
mod render;
mod repository;
mod rolling;
mod secrets;
mod ssh;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::out::Exit;

/// Planning ten thousand resources makes millions of small values on several threads; glibc's allocator spends a third of the time of that
/// on growing its heaps.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A shim stays for as long as its process does, so it gets nothing that the command line needs.
    let mut words = std::env::args_os().skip(1);
    if words.next().as_deref() == Some(OsStr::new("shim")) {
        return match words.next() {
            Some(folder) => plumb_driver::shim::run(Path::new(&folder)),
            None => {
                out::complain(
                    "`plumb shim` is started by the agent; there is no use for it on a command line",
                );
                ExitCode::from(1)
            }
        };
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(|l| format!(" at {}:{}", l.file(), l.line()))
            .unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("it does not say why");
        out::complain(&format!(
            "a defect in plumb{place}: {what}\nPlease report it together with what you did. Nothing is recorded that was not said to be."
        ));
    }));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Usage errors are 1, since 2 means "there are changes".
            if error.use_stderr() {
                let _ = error.print();
                return ExitCode::from(1);
            }
            // Help that was asked for and cannot be written is an error as all other output is.
            let help = error.render();
            out::print(&if out::Style::detect().color {
                help.ansi().to_string()
            } else {
                help.to_string()
            });
            return ExitCode::SUCCESS;
        }
    };
    let style = out::Style::detect();
    match commands::run(cli, &style) {
        Ok(Exit::Fine) => ExitCode::SUCCESS,
        Ok(Exit::Failed) => ExitCode::from(1),
        Ok(Exit::Changes) => ExitCode::from(2),
        Err(error) => {
            out::complain(&error::chain(&error));
            ExitCode::from(1)
        }
    }
}
