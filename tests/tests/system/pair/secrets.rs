//! Secrets through the real pair: set, handed over, told of, kept over a reboot without a control plane, and seen nowhere.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use plumb_tests::pair::{Outcome, PATIENCE, Pair, alive, settled, wait};
use rustix::process::Signal;

/// What every value in this test has in it.
const CANARY: &str = "canary-c41f";

/// Runs a command with something on its standard input.
fn fed(pair: &Pair, arguments: &[&str], input: &str) -> Outcome {
    let mut child = pair
        .command()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let outcome = Outcome {
        code: output.status.code(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    };
    assert!(
        !outcome.out.contains(CANARY) && !outcome.err.contains(CANARY),
        "{outcome:?}"
    );
    outcome
}

fn declare(pair: &Pair) {
    let mark = pair.path("managed").display().to_string();
    let script = format!(
        "trap 'wc -c < $TLS_FILE >> {mark}/told' USR1; while :; do sleep 0.05; done # {mark}"
    );
    let script = serde_json::to_string(&script).unwrap();
    pair.write(
        "app.yaml",
        format!(
            "kind: App\nname: app\nmachines: local\nrun: {script}\nstop: 1s\nsecrets:\n  API_KEY: api-key\n  TLS: {{ secret: tls.pem, as: file, on_change: {{ signal: USR1 }} }}\n---\nkind: App\nname: other\nmachines: local\nrun: {script}\nstop: 1s\nsecrets: {{ TLS: {{ secret: once, memory_only: true }} }}\n"
        ),
    );
}

fn environ(pid: u32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/environ")).unwrap()).into_owned()
}

fn variable(pid: u32, name: &str) -> Option<String> {
    let all = environ(pid);
    let mut all = all.split('\0');
    all.find_map(|entry| Some(entry.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// Every file of the test that holds the canary: stores, folders of the agent, logs, contexts, blueprints.
fn holding_the_canary(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(holding_the_canary(&entry.path()));
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            if bytes
                .windows(CANARY.len())
                .any(|part| part == CANARY.as_bytes())
            {
                found.push(entry.path());
            }
        }
    }
    found
}

fn assert_seen_nowhere(pair: &Pair) {
    assert_eq!(holding_the_canary(&pair.path("")), [] as [PathBuf; 0]);
    for said in [pair.logs(), pair.plumb(&["status", "--output", "json"]).out] {
        assert!(!said.contains(CANARY), "{said}");
    }
}

/// Whether any process but this one shows the canary on its command line, or has it in an environment that it was not
/// meant for.
fn assert_in_no_other_process(meant_for: &[u32]) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        assert!(!line.contains(CANARY), "process {pid}: {line}");
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        let shown = String::from_utf8_lossy(&environ).contains(CANARY);
        // What an app starts has its environment, as it should: those here are `sleep`.
        let parent = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = parent
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        let meant = meant_for.contains(&pid) || parent.is_some_and(|p| meant_for.contains(&p));
        assert!(meant || !shown, "process {pid}: {line}");
    }
}

/// Rows 32, 33 and 34 through the real programs. Mutations: `Vault::set` that stores the value unsealed; `Keeper::write`
/// that does; `start::prepare` that puts secrets into the shim's `spec.json`; `named_secrets` that names nothing (then
/// nothing starts).
#[test]
fn secrets_reach_what_uses_them_and_are_seen_nowhere_else() {
    let mut pair = Pair::started();
    declare(&pair);

    // Nothing is set: the plan says so, with the command.
    let refused = pair.plumb(&["plan"]);
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    for name in ["api-key", "tls.pem", "once"] {
        let command = format!("plumb secret set {name}");
        assert!(refused.out.contains(&command), "{}", refused.out);
    }
    assert_eq!(pair.plumb(&["apply", "--yes"]).code, Some(1));

    // From standard input, from a file, from a `.env` file.
    let set = fed(
        &pair,
        &["secret", "set", "api-key"],
        &format!("{CANARY}-1\n"),
    );
    assert!(set.good().contains("api-key is set"));
    let (pem, env) = (pair.path("pem"), pair.path("dot.env"));
    fs::write(&pem, format!("{CANARY}\nof three\nlines\n")).unwrap();
    fs::write(&env, format!("export once='{CANARY} only'\n")).unwrap();
    let pem_path = pem.display().to_string();
    pair.plumb(&["secret", "set", "tls.pem", "--file", &pem_path])
        .good();
    pair.plumb(&["secret", "import", &env.display().to_string()])
        .good();
    fs::remove_file(&pem).unwrap();
    fs::remove_file(&env).unwrap();

    pair.apply();
    let app = pair.incarnation();
    assert_eq!(variable(app.pid, "API_KEY").unwrap(), format!("{CANARY}-1"));
    let file = PathBuf::from(variable(app.pid, "TLS_FILE").unwrap());
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        format!("{CANARY}\nof three\nlines\n")
    );
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o400);
    assert!(!environ(app.shim).contains(CANARY));
    let other = other(&pair).unwrap();
    assert_in_no_other_process(&[app.pid, other]);
    assert_seen_nowhere(&pair);
    assert!(pair.plumb(&["plan"]).good().contains("No changes"));

    // Another version by itself changes nothing that runs; the plan shows that it would, and not what.
    let again = fed(&pair, &["secret", "set", "api-key"], &format!("{CANARY}-2"));
    assert!(again.good().contains("used by app"));
    let plan = pair.plumb(&["plan"]).good();
    assert!(plan.contains("(secret, changed)"), "{plan}");
    assert_eq!(pair.incarnation().pid, app.pid);
    let listed = pair.plumb(&["secret", "list"]).good();
    assert!(
        listed.contains("api-key") && listed.contains("older version"),
        "{listed}"
    );

    // Applied, one restarts and the other is told.
    let applied = fed(
        &pair,
        &["secret", "rotate", "api-key", "--apply", "--yes"],
        &format!("{CANARY}-3"),
    );
    applied.good();
    let restarted = pair.incarnation();
    assert_ne!(restarted.pid, app.pid);
    let value = variable(restarted.pid, "API_KEY").unwrap();
    assert_eq!(value, format!("{CANARY}-3"));
    fed(
        &pair,
        &["secret", "rotate", "tls.pem", "--apply", "--yes"],
        CANARY,
    )
    .good();
    wait("the app is told", PATIENCE, || {
        let told = fs::read_to_string(pair.path("managed/told")).ok()?;
        (told.trim() == CANARY.len().to_string()).then_some(())
    });
    assert_eq!(pair.incarnation().pid, restarted.pid);
    assert!(pair.plumb(&["plan"]).good().contains("No changes"));

    // Another key wraps all; what is in use is not removed by accident.
    let key = fs::read_to_string(pair.path("server/identity/secrets.key")).unwrap();
    let rotated = pair.plumb(&["secret", "rotate-key"]).good();
    assert!(rotated.contains("3 secrets were wrapped anew"), "{rotated}");
    let now = fs::read_to_string(pair.path("server/identity/secrets.key")).unwrap();
    assert_ne!(now, key);
    let refused = pair.plumb(&["secret", "rm", "api-key"]).one_line();
    assert!(refused.contains("used by app"), "{refused}");
    assert_seen_nowhere(&pair);

    // The machine reboots while the control plane is gone: what is on the disk is enough, but for what is not there.
    pair.kill_server();
    pair.kill_agent();
    for pid in [restarted.shim, restarted.pid, other] {
        plumb_tests::pair::signal(pid, Signal::KILL);
    }
    wait("the apps are gone", PATIENCE, || {
        (!alive(restarted.pid) && !alive(other)).then_some(())
    });
    fs::remove_dir_all(file.parent().unwrap()).unwrap();
    pair.start_agent();
    let rebooted = pair.incarnation();
    assert_eq!(variable(rebooted.pid, "API_KEY").unwrap(), value);
    assert_eq!(fs::read_to_string(&file).unwrap(), CANARY);
    assert!(self::other(&pair).is_none(), "its secret is in memory only");
    pair.start_server();
    wait("the other one starts", PATIENCE, || self::other(&pair));
    pair.status_until("settled", settled);
    assert_seen_nowhere(&pair);

    // What nobody uses any more leaves the machine.
    fs::remove_file(pair.path("repo/app.yaml")).unwrap();
    pair.apply();
    assert!(!file.exists());
    wait("the agent forgets them", PATIENCE, || {
        let left = fs::read_dir(pair.path("agent/secrets")).ok()?;
        (left.count() == 0).then_some(())
    });
    pair.plumb(&["secret", "rm", "api-key"]).good();
}

/// The process of the app `other`, if it runs.
fn other(pair: &Pair) -> Option<u32> {
    let slots = fs::read_dir(pair.path("agent/processes/other")).ok()?;
    let states = slots
        .flatten()
        .filter_map(|slot| fs::read_dir(slot.path()).ok())
        .flatten()
        .flatten()
        .filter_map(|folder| fs::read(folder.path().join("state.json")).ok());
    states
        .filter_map(|state| serde_json::from_slice::<serde_json::Value>(&state).ok())
        .filter_map(|state| u32::try_from(state["command"]["pid"].as_u64()?).ok())
        .find(|pid| alive(*pid))
}
