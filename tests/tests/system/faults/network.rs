//! Networks that delay, overtake, go one way only, or are not there: through a proxy, and in a network namespace.

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plumb_tests::fleet::PATIENCE;
use plumb_tests::pair::{Daemon, Pair, alive, online, settled, wait};

use super::proxy;

/// A session is given up after three heartbeats of silence, which is noticed within five seconds.
const MISSED: Duration = Duration::from_secs(60);

/// Declares the app in this round.
fn declare(pair: &Pair, round: usize) {
    pair.write_app(&[], &format!("env: {{ ROUND: \"{round}\" }}\nstop: 2s\n"));
}

/// The round that the one incarnation of the app was started in, as its environment says.
fn round_of(pair: &Pair) -> Option<String> {
    let running = pair.running();
    let [one] = running.as_slice() else {
        return None;
    };
    let environment = std::fs::read(format!("/proc/{}/environ", one.pid)).ok()?;
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let found = environment
        .split('\0')
        .find_map(|v| v.strip_prefix("ROUND="))?;
    Some(found.to_owned())
}

fn wait_for_round(pair: &Pair, round: usize, within: Duration) {
    wait(&format!("round {round} runs"), within, || {
        (round_of(pair)? == round.to_string()).then_some(())
    });
}

/// Row 38. Mutations: leave the hashes out of deltas at both ends, since one end alone finds it; leave the pause out of the
/// link's retries.
#[test]
fn over_a_network_that_delays_overtakes_and_breaks_every_apply_arrives_in_the_end() {
    let mut pair = Pair::new();
    pair.start_server();
    let (address, weather) = proxy::start(pair.address());
    let token = pair.token("local", "1m");
    pair.start_agent_with(&["--server", &address], &[("PLUMB_JOIN_TOKEN", &token)]);
    declare(&pair, 1);
    pair.apply();
    weather.delay_ms.store(80, Ordering::Relaxed);
    let mut files = String::from("kind: Setup\nname: base\nmachines: local\nfiles:\n");
    for round in 2..8 {
        declare(&pair, round);
        // Each round adds a file: whoever misses a round and takes the next for the difference lacks one.
        let file = pair.path("managed").join(round.to_string());
        files += &format!("  {}: {{ content: \"{round}\\n\" }}\n", file.display());
        pair.write("base.yaml", &files);
        pair.apply_detached();
        // In the midst of it, and at once for the next.
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_millis(30 * round as u64));
            weather.break_all();
        }
    }
    wait_for_round(&pair, 7, PATIENCE);
    weather.delay_ms.store(0, Ordering::Relaxed);
    pair.status_until("settled", settled);
    assert!(!pair.was_doubled());
    let plan = pair.plumb(&["plan", "--detailed-exitcode"]);
    assert_eq!(plan.code, Some(0), "{plan:?}");

    // Nobody is there: it tries again, with longer and longer pauses.
    pair.kill_server();
    let before = weather.came.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(4));
    let tries = weather.came.load(Ordering::Relaxed) - before;
    assert!((1..40).contains(&tries), "{tries} tries");
}

/// Row 38, one way. Mutations: leave the silence out of `Fleet::tick` and the keepalive out of the server, of which either
/// is enough; leave the keepalive out of the agent's endpoint.
#[test]
fn a_network_that_goes_one_way_only_is_noticed_by_whoever_hears_nothing() {
    for up in [true, false] {
        let mut pair = Pair::new();
        pair.start_server();
        let (address, weather) = proxy::start(pair.address());
        let token = pair.token("local", "1m");
        pair.start_agent_with(&["--server", &address], &[("PLUMB_JOIN_TOKEN", &token)]);
        declare(&pair, 1);
        pair.apply();
        let running = pair.incarnation();
        let cut = if up {
            &weather.cut_up
        } else {
            &weather.cut_down
        };
        cut.store(true, Ordering::Relaxed);
        wait("the machine is shown as away", MISSED, || {
            (!online(&pair.try_status()?)).then_some(())
        });
        declare(&pair, 2);
        pair.apply_detached();
        assert_eq!(pair.running(), [running], "what runs, runs on");
        cut.store(false, Ordering::Relaxed);
        weather.break_all();
        wait_for_round(&pair, 2, PATIENCE);
        pair.status_until("settled", settled);
        assert!(!pair.was_doubled());
    }
}

/// Whether the agent has noted that it lost the control plane.
fn lost(pair: &Pair) -> bool {
    let journal = std::fs::read_dir(pair.path("agent/journal")).expect("a journal");
    let mut segments = journal.flatten().map(|entry| entry.path());
    segments.any(|path| {
        std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"what\":\"link_lost\""))
    })
}

/// A network namespace with one cable to this one; gone when it is dropped.
struct Namespace {
    name: String,
    /// This end's address.
    near: String,
}

fn ip(arguments: &[&str]) {
    let made = Command::new("ip").args(arguments).output();
    let made = made.expect("ip runs; scripts/test installs iproute2");
    assert!(
        made.status.success(),
        "making network namespaces takes root: run scripts/test as root: {made:?}"
    );
}

impl Namespace {
    /// `number` keeps the addresses of tests that run at once apart.
    fn new(number: u16) -> Self {
        let name = format!("plumb-test-{number}");
        let (near_end, far_end) = (format!("pn{number}"), format!("pf{number}"));
        // A /30 of its own in 198.18.0.0/15, which is for tests of networks.
        let base = u32::from(number) * 4;
        let address = |host: u32| {
            let at = (198 << 24) + (18 << 16) + base + host;
            std::net::Ipv4Addr::from(at).to_string()
        };
        let (near, far) = (address(1), address(2));
        ip(&["netns", "add", &name]);
        ip(&[
            "link", "add", &near_end, "type", "veth", "peer", "name", &far_end, "netns", &name,
        ]);
        ip(&["addr", "add", &format!("{near}/30"), "dev", &near_end]);
        ip(&["link", "set", &near_end, "up"]);
        ip(&[
            "-n",
            &name,
            "addr",
            "add",
            &format!("{far}/30"),
            "dev",
            &far_end,
        ]);
        ip(&["-n", &name, "link", "set", &far_end, "up"]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Self { name, near }
    }

    /// Nothing that leaves the namespace arrives; what is sent into it does.
    fn cut_out(&self) {
        ip(&[
            "-n",
            &self.name,
            "route",
            "add",
            "blackhole",
            &format!("{}/32", self.near),
        ]);
    }

    /// Undoes [`Namespace::cut_out`].
    fn join_out(&self) {
        ip(&[
            "-n",
            &self.name,
            "route",
            "del",
            "blackhole",
            &format!("{}/32", self.near),
        ]);
    }

    /// The cable is pulled, or put back.
    fn cable(&self, state: &str) {
        let end = format!("pn{}", self.name.trim_start_matches("plumb-test-"));
        ip(&["link", "set", &end, state]);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

/// Row 38 on the kernel's own network. Mutations as above.
#[test]
fn a_machine_whose_cable_is_pulled_or_hears_and_is_not_heard_comes_back_by_itself() {
    let mut pair = Pair::new();
    let space = Namespace::new(pair.port.number);
    pair.listen_on = "0.0.0.0";
    pair.start_server();
    let token = pair.token("local", "1m");
    let server = format!("{}:{}", space.near, pair.port.number);
    let mut agent = Command::new("ip");
    agent.args(["netns", "exec", &space.name]);
    let inner = pair.agent_command("agent");
    agent.arg(inner.get_program()).args(inner.get_args());
    agent.args(["--server", &server]);
    for (key, value) in inner.get_envs() {
        match value {
            Some(value) => agent.env(key, value),
            None => agent.env_remove(key),
        };
    }
    agent.env("PLUMB_JOIN_TOKEN", token);
    let daemon: Daemon = pair.start_daemon(&mut agent, "agent", "started");
    pair.agent = Some(daemon);
    declare(&pair, 1);
    pair.apply();
    let mut round = 1;
    for cut in ["cable", "one way"] {
        let running = pair.incarnation();
        if cut == "cable" {
            space.cable("down");
        } else {
            space.cut_out();
        }
        round += 1;
        declare(&pair, round);
        pair.apply_detached();
        wait("the machine is shown as away", MISSED, || {
            (!online(&pair.try_status()?)).then_some(())
        });
        if cut == "cable" {
            assert!(alive(running.pid), "what runs, runs on");
            // Nothing that the server sends arrives, not even that it has given the connection up.
            wait("the agent notices by itself", MISSED, || {
                lost(&pair).then_some(())
            });
        } else {
            // It hears what it is to do, and does it, though nobody hears of that.
            wait_for_round(&pair, round, PATIENCE);
        }
        if cut == "cable" {
            space.cable("up");
        } else {
            space.join_out();
        }
        wait_for_round(&pair, round, PATIENCE);
        pair.status_until("settled", settled);
    }
    assert!(!pair.was_doubled());
}
