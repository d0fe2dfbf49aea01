//! Machines whose clocks are wrong. The agent's, through libfaketime: what the kernel counts while it runs is left alone, as it
//! is when somebody sets a clock.

use std::path::PathBuf;
use std::time::Duration;

use plumb_tests::pair::{Pair, settled, wait};

/// The library that tells a program another time.
fn library() -> String {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib is a folder");
    let found = folders
        .flatten()
        .map(|entry| entry.path().join("faketime/libfaketime.so.1"))
        .find(|path: &PathBuf| path.is_file());
    let found = found.expect("libfaketime is installed; scripts/test does that");
    found.display().to_string()
}

/// The environment of a program whose clock is so far off.
fn clock<'a>(offset: &'a str, library: &'a str) -> [(&'static str, &'a str); 3] {
    [
        ("LD_PRELOAD", library),
        ("FAKETIME", offset),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]
}

fn said(pair: &Pair, text: &str) {
    let limit = Duration::from_secs(20);
    wait(&format!("the agent says {text:?}"), limit, || {
        let agent = pair.agent.as_ref()?;
        agent.log().contains(text).then_some(())
    });
}

/// Row 40. Mutations: hold a certificate of another time for one of another control plane; leave the clock out of the hello.
#[test]
fn a_clock_that_is_wrong_is_named_and_holds_nothing_up_that_it_need_not() {
    let mut pair = Pair::new();
    pair.start_server();
    pair.write_app(&[], "");
    pair.apply_detached();
    let token = pair.token("local", "5m");
    let (server, library) = (pair.address(), library());

    // Two hours behind, the control plane's certificate does not hold yet; eleven years ahead, not any more. The token is not
    // spent on it.
    for (offset, what) in [("-2h", "does not hold before"), ("+11y", "ran out at")] {
        let mut command = pair.agent_command("agent");
        command.args(["--server", &server]);
        command.envs(clock(offset, &library));
        command.env("PLUMB_JOIN_TOKEN", &token);
        let outcome = pair.run(&mut command);
        let line = outcome.one_line();
        assert!(
            line.contains(what) && line.contains("clock"),
            "{offset}: {line}"
        );
    }

    // Two hours ahead, everything holds: it converges, and both ends say what is wrong.
    let [library_of, offset, monotonic] = clock("+2h", &library);
    let joining = [library_of, offset, monotonic, ("PLUMB_JOIN_TOKEN", &*token)];
    pair.start_agent_with(&["--server", &server], &joining);
    let status = pair.status_until("settled", settled);
    let message = status["machines"][0]["message"]
        .as_str()
        .unwrap_or_default();
    assert!(
        message.contains("its clock is") && message.contains("ahead of the control plane's"),
        "{status:#}"
    );
    said(&pair, "ahead of the control plane's");
    let running = pair.incarnation();

    // Set back by ten years, it is named, and what runs, runs on; set right, it is taken again, with the identity it had.
    pair.kill_agent();
    pair.start_agent_with(&[], &clock("-10y", &library));
    said(&pair, "does not hold before");
    assert_eq!(pair.running(), std::slice::from_ref(&running));
    pair.kill_agent();
    pair.start_agent();
    let status = pair.status_until("settled", settled);
    assert!(status["machines"][0]["message"].is_null(), "{status:#}");
    assert_eq!(pair.running(), [running]);
}
