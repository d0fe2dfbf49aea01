//! The standing pair, `plumb server` and `plumb agent` as processes of their own, under everything that befalls them.

mod agent;
mod content;
mod events;
mod hands;
mod join;
mod processes;
mod renames;
mod rollouts;
mod secrets;
mod server;
mod undriven;

use std::fs;
use std::path::Path;
use std::time::Duration;

use plumb_tests::pair::{Pair, Port, ask, wait};

/// How soon what was broken must be whole again.
const HEALED: Duration = Duration::from_secs(1);

/// A pair whose app serves on the port, and whose Setup keeps `managed/motd`.
fn serving() -> (Pair, Port) {
    let port = Port::take();
    let pair = Pair::started();
    declare(&pair, &port, "one");
    pair.apply();
    (pair, port)
}

/// Declares an app of this version that serves on the port, and a file.
fn declare(pair: &Pair, port: &Port, version: &str) {
    let number = port.number.to_string();
    let more = format!("ports: {{ http: {number} }}\nenv: {{ VERSION: {version} }}\nstop: 2s\n");
    pair.write_app(&["--port", &number], &more);
    let motd = pair.path("managed/motd");
    pair.write(
        "base.yaml",
        format!(
            "kind: Setup\nname: base\nmachines: local\nfiles:\n  {}: {{ content: \"true\\n\" }}\n",
            motd.display()
        ),
    );
}

/// The app's process id, as it says itself.
fn answered_by(port: &Port) -> u32 {
    wait("the app answers", plumb_tests::pair::PATIENCE, || {
        ask(port.number)
    })
    .0
}

/// Deletes the managed file, and waits until it is back.
fn assert_the_file_heals(pair: &Pair, within: Duration) {
    let motd = pair.path("managed/motd");
    fs::remove_file(&motd).expect("the managed file was there");
    wait("the file is restored", within, || {
        fs::read(&motd).ok().filter(|text| text == b"true\n")
    });
}

/// Kills the app with -9, and waits until another one answers.
fn assert_the_app_heals(port: &Port, within: Duration) -> u32 {
    let before = answered_by(port);
    plumb_tests::pair::signal(before, rustix::process::Signal::KILL);
    wait("the app serves again", within, || {
        ask(port.number).filter(|(pid, _)| *pid != before)
    })
    .0
}

/// Copies a folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
