//! Processes: stopped, stubborn, flooding, orphaned, removed, and as users of their own.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use plumb_tests::pair::{
    PATIENCE, Pair, Port, alive, ask, peak_memory, process, settled, signal, wait,
};
use rustix::process::Signal;

use super::{answered_by, declare, serving};

#[test]
fn a_stopped_app_stays_recorded_and_starts_again() {
    let (pair, port) = serving();
    let before = pair.incarnation();
    let number = port.number.to_string();
    let more = format!("ports: {{ http: {number} }}\nenv: {{ VERSION: one }}\nstop: 2s\n");
    pair.write_app(&["--port", &number], &format!("{more}state: stopped\n"));
    pair.apply();
    assert!(!alive(before.pid) && !alive(before.shim));
    assert_eq!(ask(port.number), None);
    let status = pair.try_status().unwrap();
    let app = status["owners"]
        .as_array()
        .unwrap()
        .iter()
        .find(|o| o["name"] == "app");
    assert_eq!(app.unwrap()["state"], "stopped");
    assert_eq!(pair.plumb(&["plan", "--detailed-exitcode"]).code, Some(0));

    declare(&pair, &port, "one");
    pair.apply();
    assert_ne!(answered_by(&port), before.pid);
    assert_eq!(process(&pair.try_status().unwrap())["restarts"], 0);
    assert!(!pair.was_doubled());
}

#[test]
fn an_app_that_ignores_term_is_killed_after_its_grace() {
    let pair = Pair::started();
    let stubborn = |state: &str| {
        pair.write(
            "app.yaml",
            format!(
                "kind: App\nname: app\nmachines: local\nstop: 1s\nstate: {state}\n\
                 run: \"trap '' TERM; while :; do sleep 1; done # {}\"\n",
                pair.path("").display()
            ),
        );
    };
    stubborn("running");
    pair.apply();
    let before = pair.incarnation();
    let began = Instant::now();
    stubborn("stopped");
    pair.apply();
    assert!(
        began.elapsed() >= Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
    assert!(!alive(before.pid) && !alive(before.shim));
    let exit = fs::read_to_string(before.folder.join("exit.json")).unwrap();
    assert!(exit.contains("\"signal\":9"), "{exit}");
}

/// Mutation: do not set the parent-death signal of the command.
#[test]
fn with_its_shim_killed_the_app_dies_and_one_new_instance_serves() {
    let (pair, port) = serving();
    let before = pair.incarnation();
    signal(before.shim, Signal::KILL);
    let after = wait("another one serves", Duration::from_secs(3), || {
        ask(port.number).filter(|(pid, _)| *pid != before.pid)
    });
    assert!(!alive(before.pid));
    let status = pair.status_until("settled", settled);
    assert_eq!(process(&status)["pid"], after.0);
    assert_eq!(process(&status)["restarts"], 1);
    assert!(!pair.was_doubled());
}

#[test]
fn an_app_removed_from_the_blueprints_leaves_nothing_behind() {
    let pair = Pair::started();
    pair.write("app/data.txt", "data\n");
    pair.write_app(&["--say", "hello"], "source: { path: app }\n");
    pair.write("base.yaml", setup(&pair));
    pair.apply();
    let before = pair.incarnation();
    let count = |folder: &str| fs::read_dir(pair.path(folder)).unwrap().count();
    assert!(count("agent/artifacts") > 0 && count("agent/blobs") > 0);
    assert!(pair.path("agent/logs/app").exists());

    fs::remove_file(pair.path("repo/app.yaml")).unwrap();
    pair.apply();
    assert!(!alive(before.pid) && !alive(before.shim));
    for gone in ["agent/processes/app", "agent/logs/app"] {
        assert!(!pair.path(gone).exists(), "{gone}");
    }
    wait("artifact and blob are gone", PATIENCE, || {
        (count("agent/artifacts") == 0 && count("agent/blobs") == 0).then_some(())
    });
    let status = pair.status_until("gone from the status", |status| {
        status["owners"].as_array().unwrap().len() == 1
    });
    assert!(settled(&status));
    assert!(pair.path("managed/kept").exists());
}

fn setup(pair: &Pair) -> String {
    let path = pair.path("managed/kept");
    format!(
        "kind: Setup\nname: base\nmachines: local\nfiles:\n  {}: {{ content: kept }}\n",
        path.display()
    )
}

/// Removes the system user when the test is over, however it ends.
struct User(String);

impl Drop for User {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.0).output();
    }
}

#[test]
fn under_a_root_agent_each_app_runs_as_a_user_of_its_own() {
    assert!(
        rustix::process::geteuid().is_root(),
        "only root can make users: run scripts/test as root"
    );
    let name = format!("t{}", std::process::id());
    let user = User(format!("plumb-{name}"));
    let mut pair = Pair::new();
    pair.agent_arguments = Vec::new();
    pair.start_server();
    pair.join();
    pair.write("app/inner/data.txt", "readable\n");
    pair.write(
        "app.yaml",
        format!(
            "kind: App\nname: {name}\nmachines: local\nsource: {{ path: app }}\n\
             run: \"id -un; cat inner/data.txt; touch inner/x || echo read-only; ls {} || echo closed; exec sleep 1000\"\n",
            pair.path("agent/identity").display()
        ),
    );
    pair.apply();
    let out = wait("the app has written", PATIENCE, || {
        let out = pair.plumb(&["logs", &name]).good();
        out.contains("closed").then_some(out)
    });
    for said in [user.0.as_str(), "readable", "read-only"] {
        assert!(out.contains(said), "{out}");
    }
    let status = pair.status_until("settled", settled);
    let resources = status["owners"][0]["resources"].as_array().unwrap();
    let pid = resources
        .iter()
        .find_map(|r| r["process"]["pid"].as_u64())
        .unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(name))
            .unwrap()
            .trim()
    };
    assert!(
        !field("Uid:").split_whitespace().any(|uid| uid == "0"),
        "{text}"
    );
    assert!(
        !field("Gid:").split_whitespace().any(|gid| gid == "0"),
        "{text}"
    );
    assert_eq!(field("NoNewPrivs:"), "1");
    fs::remove_file(pair.path("repo/app.yaml")).unwrap();
    pair.apply();
    wait("the app is gone", PATIENCE, || {
        (!alive(u32::try_from(pid).unwrap())).then_some(())
    });
}

/// Row 41. Mutation: leave the check of `max_bytes` out of the shim, or make a channel on the way unbounded.
#[test]
fn a_flood_of_output_stays_within_its_cap_and_a_slow_follower_costs_no_memory() {
    const CAP: u64 = 256 * 1024;
    let pair = Pair::started();
    pair.write_app(&["--flood"], "log: { max_size: 256Ki, keep: 2 }\n");
    pair.apply();
    let app = pair.incarnation();
    let [server, agent] = [&pair.server, &pair.agent].map(|d| d.as_ref().unwrap().pid());
    let began = [server, agent, app.shim].map(peak_memory);
    let mut follower = pair
        .command()
        .args(["logs", "app", "-f"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = follower.stdout.take().unwrap();
    let mut some = [0; 4096];
    out.read_exact(&mut some).unwrap();
    // It reads no more now. Meanwhile the log goes round many times.
    let log = pair.path("agent/logs/app");
    let current = log.join("app.0.log");
    let mut rotations = 0;
    let mut last = 0;
    let until = Instant::now() + PATIENCE;
    while rotations < 40 {
        assert!(Instant::now() < until, "{rotations} rotations");
        let size = fs::metadata(&current).map(|m| m.len()).unwrap_or(0);
        rotations += u32::from(size < last);
        last = size;
        for file in fs::read_dir(&log).unwrap().flatten() {
            let size = file.metadata().map(|m| m.len()).unwrap_or(0);
            assert!(size <= CAP, "{:?}: {size}", file.path());
        }
        assert!(fs::read_dir(&log).unwrap().count() <= 3);
        std::thread::sleep(Duration::from_millis(5));
    }
    // And then goes on where there is still something to read.
    for _ in 0..512 {
        out.read_exact(&mut some).unwrap();
    }
    let text = String::from_utf8_lossy(&some);
    assert!(text.contains("line "), "{text}");
    let ended = [server, agent, app.shim].map(peak_memory);
    for (who, (began, ended)) in ["server", "agent", "shim"]
        .iter()
        .zip(began.iter().zip(ended))
    {
        // The kernel counts on each processor by itself, so that the peak it tells may even go down a little.
        let grown = ended.saturating_sub(*began);
        assert!(grown < 24 << 20, "the {who} grew by {grown} bytes");
    }
    assert!(peak_memory(follower.id()) < 96 << 20);
    let _ = follower.kill();
    let _ = follower.wait();
    assert_eq!(pair.incarnation(), app);
}

#[test]
fn a_port_that_a_stranger_holds_blocks_only_its_app_and_names_the_holder() {
    let port = Port::take();
    let stranger = std::net::TcpListener::bind(("127.0.0.1", port.number)).unwrap();
    let pair = Pair::started();
    declare(&pair, &port, "one");
    let outcome = pair.plumb(&["apply", "--yes"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome.out.contains(&port.number.to_string()),
        "{outcome:?}"
    );
    assert!(pair.path("managed/motd").exists());
    drop(stranger);
    answered_by(&port);
    pair.status_until("settled", settled);
}
