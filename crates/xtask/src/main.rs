//! Chores of the project that are not tests. `cargo xtask bench` measures the bars of docs/BENCHMARKS.md.

mod bench;
mod load;

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
        // What `bench plan` runs as a process of its own, and the workspace that it makes, to look at.
        ["bare", folder] => {
            report(bench::bare::run(folder.as_ref()).map(|n| format!("{n} documents")))
        }
        ["fleet", folder, apps, per_file] => {
            let (Ok(apps), Ok(per_file)) = (apps.parse(), per_file.parse()) else {
                return report(Err(
                    "the numbers of apps and of apps per file are numbers".to_owned()
                ));
            };
            let written = bench::fleet::write(folder.as_ref(), apps, per_file);
            report(
                written
                    .map(|()| format!("{apps} apps"))
                    .map_err(|e| e.to_string()),
            )
        }
        // What `bench fleet` runs as a process of its own.
        ["load", context, agents, data] => {
            let Ok(agents) = agents.parse() else {
                return report(Err("the number of agents is a number".to_owned()));
            };
            let options = load::Options {
                context: context.into(),
                agents,
                data: data.into(),
            };
            report(load::run(&options).map(|()| "ended".to_owned()))
        }
        _ => {
            eprintln!(
                "usage: cargo xtask bench [NAME…]\n       cargo xtask bare FOLDER\n       cargo xtask fleet FOLDER APPS APPS-PER-FILE\n       cargo xtask load CONTEXT-FILE AGENTS FOLDER\nnames: {}",
                bench::NAMES.join(" ")
            );
            ExitCode::from(1)
        }
    }
}

fn report(result: Result<String, String>) -> ExitCode {
    match result {
        Ok(said) => println!("{said}"),
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(1);
        }
    }
    ExitCode::SUCCESS
}
