//! Settings of the daemons, the doctor, and what comes of the arguments themselves.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use plumb_tests::pair::{Pair, online};
use serde_json::Value;

/// Mutation: ask the file before the environment in `config::resolve`.
#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let pair = Pair::new();
    fs::write(
        pair.path("server.yaml"),
        "data: /from/file\nlisten: 127.0.0.1:1\nworkspace: file\nlog: warn\n",
    )
    .unwrap();
    let file = pair.path("server.yaml").display().to_string();
    let mut command = pair.command();
    command
        .args([
            "server",
            "--config",
            &file,
            "--print-config",
            "--output",
            "json",
        ])
        .args(["--listen", "127.0.0.1:3"])
        .env_remove("PLUMB_LOG")
        .env("PLUMB_SERVER_LISTEN", "127.0.0.1:2")
        .env("PLUMB_SERVER_WORKSPACE", "env");
    let shown: Value = serde_json::from_str(&pair.run(&mut command).good()).unwrap();
    let settings = &shown["settings"];
    for (key, value, from) in [
        ("data", "/from/file", format!("{file}:1:7")),
        ("listen", "127.0.0.1:3", "--listen".to_owned()),
        ("workspace", "env", "PLUMB_SERVER_WORKSPACE".to_owned()),
        ("log", "warn", format!("{file}:4:6")),
    ] {
        assert_eq!(settings[key]["value"], value, "{shown}");
        assert_eq!(settings[key]["from"], from, "{shown}");
    }
    assert!(settings["http"].is_null());

    fs::write(pair.path("server.yaml"), "data: /x\nlissten: 127.0.0.1:1\n").unwrap();
    let line = pair.plumb(&["server", "--config", &file]).one_line();
    assert!(
        line.contains("server.yaml:2:1: there is no setting \"lissten\""),
        "{line}"
    );
    fs::write(pair.path("agent.yaml"), "data: /x\ninterval: soon\n").unwrap();
    let file = pair.path("agent.yaml").display().to_string();
    let line = pair.plumb(&["agent", "--config", &file]).one_line();
    assert!(
        line.contains("agent.yaml:2:11: interval cannot be \"soon\""),
        "{line}"
    );
    let line = pair.plumb(&["server"]).one_line();
    assert!(
        line.contains("give --data, set PLUMB_SERVER_DATA"),
        "{line}"
    );
}

#[test]
fn a_server_and_an_agent_run_on_a_config_file_alone() {
    let mut pair = Pair::new();
    let at = |name: &str| pair.path(name).display().to_string();
    fs::write(
        at("server.yaml"),
        format!(
            "# of a test\ndata: {}\nlisten: {}\n",
            at("server"),
            pair.address()
        ),
    )
    .unwrap();
    let mut server = pair.command();
    server.args(["server", "--config", &at("server.yaml")]);
    let server = pair.start_daemon(&mut server, "by-file", "listening on");
    let token = pair.token("local", "1m");
    fs::write(
        at("agent.yaml"),
        format!(
            "data: {}\nserver: {}\nrun_as: agent\ninterval: 20s\n",
            at("agent"),
            pair.address()
        ),
    )
    .unwrap();
    let mut agent = pair.command();
    agent.args(["agent", "--config", &at("agent.yaml")]);
    agent.env("PLUMB_JOIN_TOKEN", token);
    let agent = pair.start_daemon(&mut agent, "agent-by-file", "started");
    pair.server = Some(server);
    pair.agent = Some(agent);
    pair.status_until("online", online);
}

fn checks(pair: &Pair, arguments: &[&str]) -> (Option<i32>, Value) {
    let outcome = pair.plumb(&[&["doctor", "--output", "json"], arguments].concat());
    let checks = serde_json::from_str(&outcome.out).unwrap_or_else(|_| panic!("{outcome:?}"));
    (outcome.code, checks)
}

fn state<'a>(checks: &'a Value, check: &str) -> &'a Value {
    let all = checks["checks"].as_array().unwrap();
    let found = all.iter().find(|c| c["check"] == check);
    found.unwrap_or_else(|| panic!("{check} in {checks:#}"))
}

#[test]
fn the_doctor_finds_what_is_wrong_and_says_what_to_do() {
    let mut pair = Pair::started();
    pair.status_until("online", online);
    let data = |name: &str| pair.path(name).display().to_string();
    let (server, agent, repo) = (data("server"), data("agent"), data("repo"));
    let all = ["--data", &server, "--data", &agent];
    let (code, found) = checks(&pair, &all);
    assert_eq!(code, Some(0), "{found:#}");
    for check in [
        "file", "reach", "token", "version", "clock", "store", "agents", "ca", "keys", "process",
    ] {
        assert_eq!(state(&found, check)["state"], "ok", "{found:#}");
    }
    let text = pair.plumb(&["doctor"]).good();
    assert!(
        text.lines().last().unwrap().ends_with("0 in the way"),
        "{text}"
    );

    // A context that others may read, and a key of the agent that others may read.
    let context = pair.path("config/plumb/contexts/main.json");
    let key = pair.path("agent/identity/key.pem");
    for path in [&context, &key] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let (code, found) = checks(&pair, &["--data", &agent]);
    assert_eq!(code, Some(1));
    assert!(
        state(&found, "file")["remedy"]
            .as_str()
            .unwrap()
            .starts_with("chmod 600 ")
    );
    assert!(
        state(&found, "keys")["remedy"]
            .as_str()
            .unwrap()
            .starts_with("chmod 600 ")
    );
    for path in [&context, &key] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    // The control plane is gone: from here, and from the agent's machine.
    pair.kill_server();
    let (code, found) = checks(&pair, &["--data", &agent, "--data", &server]);
    assert_eq!(code, Some(1));
    assert_eq!(state(&found, "reach")["state"], "fail");
    let says = state(&found, "reach")["says"].as_str().unwrap();
    assert!(says.contains("cannot reach the control plane"), "{says}");
    let of_server = |c: &&Value| c["on"] == server.as_str() && c["check"] == "process";
    let process = found["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(of_server)
        .unwrap()
        .clone();
    assert_eq!(process["state"], "warn", "{process}");
    let (code, _) = checks(&pair, &["--data", &repo]);
    assert_eq!(code, Some(1));
}

#[test]
fn manuals_and_completions_name_every_command() {
    let pair = Pair::new();
    let folder = pair.path("man").display().to_string();
    let said = pair.plumb(&["man", "--out", &folder]).good();
    assert!(said.contains("pages written"), "{said}");
    let page = fs::read_to_string(pair.path("man/plumb.1")).unwrap();
    assert!(page.contains(".TH plumb 1"), "{page}");
    for command in ["apply", "backup", "doctor", "machine-add", "agent-install"] {
        let page = fs::read_to_string(pair.path(&format!("man/plumb-{command}.1"))).unwrap();
        assert!(page.contains(&format!(".TH plumb-{command} 1")), "{page}");
    }
    assert_eq!(pair.plumb(&["man"]).good(), page);
    for shell in ["bash", "zsh", "fish"] {
        let script = pair.plumb(&["completions", shell]).good();
        for command in ["apply", "backup", "doctor"] {
            assert!(script.contains(command), "{shell}");
        }
    }
}
