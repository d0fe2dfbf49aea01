//! Health, readiness and the numbers of both programs.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use plumb_tests::pair::{PATIENCE, Pair, Port, online, settled, wait};
use serde_json::Value;

use super::get;

/// A text of Prometheus' format, read by its rules: every sample belongs to a family that was announced, with HELP and
/// TYPE, names and labels are of the grammar, counters end in `_total`, and no sample comes twice.
fn parsed(text: &str) -> BTreeMap<String, f64> {
    let is_name = |name: &str| {
        let mut chars = name.chars();
        chars
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == ':')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    };
    let (mut helped, mut kinds, mut samples) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    let mut family = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty(), "{line}");
            assert!(helped.insert(name.to_owned()), "{name} is announced twice");
            family = name.to_owned();
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, family, "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            kinds.insert(name.to_owned(), kind.to_owned());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            None => (series, ""),
        };
        let base = match kinds.get(&family).map(String::as_str) {
            Some("histogram") => ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap(),
            _ => name,
        };
        assert_eq!(base, family, "{line} is of no family that was announced");
        for label in labels.split("\",").filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once("=\"").unwrap();
            assert!(is_name(label) && !label.contains(':'), "{line}");
            assert!(!value.trim_end_matches('"').contains('"'), "{line}");
        }
        assert!(
            samples.insert(series.to_owned(), value).is_none(),
            "{line} twice"
        );
    }
    samples
}

/// curl to the one port of the control plane, which speaks HTTP/2 over TLS: the status and the body.
fn curl(pair: &Pair, path: &str, token: Option<&str>) -> (String, String) {
    let url = format!("https://{}{path}", pair.address());
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--insecure",
        "--http2",
        "--write-out",
        "\n%{http_code}",
        &url,
    ]);
    if let Some(token) = token {
        command.args(["--header", &format!("authorization: Bearer {token}")]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

fn pair() -> (Pair, String, String) {
    let (pages, numbers) = (Port::take(), Port::take());
    let at = |port: &Port| format!("127.0.0.1:{}", port.number);
    let (pages, numbers) = (at(&pages), at(&numbers));
    let mut pair = Pair::new();
    pair.server_arguments = vec!["--http".to_owned(), pages.clone()];
    pair.agent_arguments
        .extend(["--metrics".to_owned(), numbers.clone()]);
    pair.start_server();
    pair.join();
    pair.status_until("online", online);
    (pair, pages, numbers)
}

#[test]
fn both_programs_tell_their_numbers_in_the_format_of_prometheus() {
    let (pair, pages, numbers) = pair();
    pair.write_app(&[], "");
    pair.apply();
    pair.status_until("settled", settled);
    assert_eq!(get(&pages, "/healthz"), Some((200, "ok\n".to_owned())));
    assert_eq!(get(&pages, "/readyz"), Some((200, "ready\n".to_owned())));
    assert_eq!(get(&pages, "/").unwrap().0, 404);

    let (status, text) = get(&pages, "/metrics").unwrap();
    assert_eq!(status, 200);
    let samples = parsed(&text);
    let of = |name: &str| {
        *samples
            .get(name)
            .unwrap_or_else(|| panic!("{name} in {text}"))
    };
    assert_eq!(of("plumb_ready"), 1.0);
    assert_eq!(of("plumb_store_ready"), 1.0);
    assert_eq!(of("plumb_agents_connected{workspace=\"main\"}"), 1.0);
    assert_eq!(of("plumb_machines{workspace=\"main\"}"), 1.0);
    assert_eq!(of("plumb_applies_total{result=\"recorded\"}"), 1.0);
    assert!(of("plumb_sessions_total") >= 1.0);
    assert!(of("plumb_audit_entries_total{workspace=\"main\"}") >= 1.0);
    assert!(of("plumb_store_commits_total{result=\"committed\"}") >= 2.0);
    assert!(
        of("plumb_rpc_handled_total{method=\"plumb.v1.ControlPlane/Apply\",code=\"OK\"}") >= 1.0
    );

    // The agent, which is told to serve them; and drift that it has put right.
    let before = pair.incarnation();
    plumb_tests::pair::signal(before.pid, rustix::process::Signal::KILL);
    let samples = wait("a restart is counted", PATIENCE, || {
        let samples = parsed(&get(&numbers, "/metrics")?.1);
        let restarts = |(name, value): (&String, &f64)| {
            name.starts_with("plumb_agent_process_restarts_total{") && *value >= 1.0
        };
        samples.iter().any(restarts).then_some(samples)
    });
    assert_eq!(samples["plumb_agent_connected"], 1.0);
    assert_eq!(samples["plumb_agent_generation"], 1.0);
    assert!(samples["plumb_agent_events_total{event=\"drift_corrected\"}"] >= 1.0);
    assert!(samples["plumb_agent_reconciles_total{kind=\"process\"}"] >= 1.0);
    assert!(samples["plumb_agent_actions_total{kind=\"process\",result=\"done\"}"] >= 2.0);
    assert!(samples["plumb_agent_certificate_not_after_timestamp_seconds"] > 1.7e9);
}

/// A tmpfs over a folder that is unmounted in the end.
struct SmallDisk(std::path::PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Row 36. Mutation: leave the store out of `Operations::parts`.
#[test]
fn with_a_full_disk_the_control_plane_is_alive_and_not_ready_until_there_is_room() {
    use rustix::mount::{MountFlags, mount};
    let pages = Port::take();
    let pages = format!("127.0.0.1:{}", pages.number);
    let mut pair = Pair::new();
    let folder = pair.path("server");
    std::fs::create_dir(&folder).unwrap();
    mount("tmpfs", &folder, "tmpfs", MountFlags::NOSUID, c"size=40m")
        .expect("mounting a small tmpfs takes root: run scripts/test as root");
    let disk = SmallDisk(folder.clone());
    pair.server_arguments = vec!["--http".to_owned(), pages.clone()];
    pair.start_server();
    let ready = || get(&pages, "/readyz").unwrap();
    assert_eq!(ready(), (200, "ready\n".to_owned()));

    // Less than what is kept free stays free.
    std::fs::write(folder.join("ballast"), vec![0; 28 * 1024 * 1024]).unwrap();
    assert_eq!(ready(), (503, "not ready: store\n".to_owned()));
    assert_eq!(get(&pages, "/healthz").unwrap().0, 200);
    let samples = parsed(&get(&pages, "/metrics").unwrap().1);
    assert_eq!(
        (samples["plumb_ready"], samples["plumb_store_ready"]),
        (0.0, 0.0)
    );
    let doctor = pair.plumb(&["doctor"]);
    assert_eq!(doctor.code, Some(1));
    assert!(doctor.out.contains("free disk space"), "{doctor:?}");
    let backup = pair.path("full.backup").display().to_string();
    let line = pair.plumb(&["backup", &backup]).one_line();
    assert!(line.contains("free disk space"), "{line}");

    std::fs::remove_file(folder.join("ballast")).unwrap();
    assert_eq!(ready(), (200, "ready\n".to_owned()));
    pair.plumb(&["backup", &backup]).good();
    // What keeps the folder busy goes before the disk does.
    drop(pair);
    drop(disk);
}

/// Mutation: leave the row of `/metrics` out of the table of rules, or make it `Rule::Public`.
#[test]
fn on_the_one_port_numbers_take_a_token_and_readiness_takes_none() {
    let (pair, ..) = pair();
    assert_eq!(curl(&pair, "/healthz", None), ("200".into(), "ok\n".into()));
    assert_eq!(
        curl(&pair, "/readyz", None),
        ("200".into(), "ready\n".into())
    );
    let (status, body) = curl(&pair, "/metrics", None);
    assert_eq!(status, "401", "{body}");
    assert!(body.contains("needs a token"), "{body}");
    pair.plumb(&["workspace", "create", "crm"]).good();
    let made = pair.plumb(&[
        "token",
        "create",
        "prometheus",
        "--role",
        "viewer",
        "--output",
        "json",
    ]);
    let made: Value = serde_json::from_str(&made.good()).unwrap();
    let token = made["token"].as_str().unwrap();
    let (status, body) = curl(&pair, "/metrics", Some(token));
    assert_eq!(status, "200", "{body}");
    let samples = parsed(&body);
    assert!(
        samples.contains_key("plumb_machines{workspace=\"main\"}"),
        "{body}"
    );
    // A token of one workspace reads of no other.
    assert!(!body.contains("crm"), "{body}");
    assert!(samples["plumb_refused_unauthenticated_total"] >= 1.0);
}
