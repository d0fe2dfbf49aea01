//! Backups of a control plane that works, and control planes of backups.

use std::fs;
use std::path::Path;

use plumb_tests::pair::{PATIENCE, Pair, Port, ask, online, settled, wait};
use serde_json::Value;

const CANARY: &str = "canary-7f3e-in-a-secret";

fn declare(pair: &Pair, port: &Port, version: &str) {
    let number = port.number.to_string();
    let more = format!(
        "ports: {{ http: {number} }}\nenv: {{ VERSION: {version} }}\nsecrets: [KEY]\nstop: 2s\n"
    );
    pair.write_app(&["--port", &number], &more);
}

fn path(pair: &Pair, name: &str) -> String {
    pair.path(name).display().to_string()
}

fn contains(file: &Path, text: &str) -> bool {
    let bytes = fs::read(file).unwrap();
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

/// Rows 33 and 37, by the command line alone. Mutations: let `Machine::greeted` send a snapshot to an agent that is ahead;
/// copy `secrets.key` into the backup.
#[test]
fn a_control_plane_goes_on_from_an_older_backup_and_uses_no_generation_twice() {
    let mut pair = Pair::started();
    let port = Port::take();
    fs::write(pair.path("secret"), CANARY).unwrap();
    pair.plumb(&["secret", "set", "KEY", "--file", &path(&pair, "secret")])
        .good();
    declare(&pair, &port, "one");
    pair.apply();
    pair.status_until("settled", settled);

    let backup = path(&pair, "one.backup");
    let keys = path(&pair, "keys");
    let told = pair.plumb(&[
        "backup",
        &backup,
        "--keys",
        &keys,
        "--data",
        &path(&pair, "server"),
        "--output",
        "json",
    ]);
    let told: Value = serde_json::from_str(&told.good()).unwrap();
    assert!(told["backup"]["records"].as_u64().unwrap() > 5, "{told}");
    // A thief of it finds neither the secret nor a key.
    let keys_text = fs::read_to_string(&keys).unwrap();
    assert!(!contains(Path::new(&backup), CANARY));
    assert!(!contains(Path::new(&backup), "PRIVATE KEY"));
    let secret_key = fs::read_to_string(pair.path("server/identity/secrets.key")).unwrap();
    assert!(!contains(Path::new(&backup), secret_key.trim()));
    assert!(keys_text.contains("ca.key") && keys_text.contains("secrets.key"));
    for file in [&backup, &keys] {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o600, "{file}");
    }

    // On it goes: machines are ahead of the backup.
    declare(&pair, &port, "two");
    pair.apply();
    wait("the new version answers", PATIENCE, || {
        ask(port.number).filter(|(_, version)| version == "two")
    });
    let before = pair.status_until("settled", settled);
    pair.kill_server();
    fs::rename(pair.path("server"), pair.path("lost")).unwrap();
    let restored = pair.plumb(&[
        "restore",
        &backup,
        "--data",
        &path(&pair, "server"),
        "--keys",
        &keys,
    ]);
    let said = restored.good();
    assert!(said.contains("plumb recover"), "{said}");
    pair.start_server();
    let status = pair.status_until("regressed", |status| {
        status["machines"][0]["state"] == "regressed"
    });
    assert_eq!(ask(port.number).unwrap().1, "two");
    assert!(status["revision"].as_u64() < before["revision"].as_u64());

    pair.plumb(&["recover", "--all", "--yes"]).good();
    pair.status_until("settled again", settled);
    wait("what is recorded answers", PATIENCE, || {
        ask(port.number).filter(|(_, version)| version == "one")
    });
    let machine = pair
        .plumb(&["machine", "show", "local", "--output", "json"])
        .good();
    let machine: Value = serde_json::from_str(&machine).unwrap();
    let text = machine.to_string();
    assert!(
        text.contains("\"held\":3") || text.contains("\"generation\":3"),
        "{text}"
    );
    // And goes forward from there.
    declare(&pair, &port, "three");
    pair.apply();
    wait("the next version answers", PATIENCE, || {
        ask(port.number).filter(|(_, version)| version == "three")
    });
}

/// Row 37. Mutation: leave the digest out of the reader.
#[test]
fn a_backup_that_is_cut_short_or_changed_is_refused_with_what_to_do() {
    let mut pair = Pair::new();
    pair.start_server();
    let (backup, keys) = (path(&pair, "a.backup"), path(&pair, "keys"));
    pair.plumb(&["backup", &backup]).good();
    pair.plumb(&["backup", "--keys", &keys, "--data", &path(&pair, "server")])
        .good();
    let line = pair.plumb(&["backup", &backup]).one_line();
    assert!(line.contains("exists already"), "{line}");
    let whole = fs::read(&backup).unwrap();
    let bad = path(&pair, "bad.backup");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for (bytes, says) in [
        (&whole[..whole.len() - 7], "is damaged near byte"),
        (&whole[..20], "is damaged near byte"),
        (&flipped[..], "is damaged near byte"),
        (b"kind: App\n", "this is no backup of plumb"),
    ] {
        fs::write(&bad, bytes).unwrap();
        let line = pair
            .plumb(&[
                "restore",
                &bad,
                "--data",
                &path(&pair, "new"),
                "--keys",
                &keys,
            ])
            .one_line();
        assert!(line.contains(says), "{line}");
        assert!(!pair.path("new").exists());
    }
    let line = pair
        .plumb(&["restore", &backup, "--data", &path(&pair, "new")])
        .one_line();
    assert!(line.contains("--without-keys"), "{line}");
    let line = pair
        .plumb(&[
            "restore",
            &backup,
            "--data",
            &path(&pair, "server"),
            "--keys",
            &keys,
        ])
        .one_line();
    assert!(line.contains("is not empty"), "{line}");
    // Only who may do everything may take everything away.
    let made = pair
        .plumb(&[
            "token", "create", "ops", "--role", "admin", "--output", "json",
        ])
        .good();
    let made: Value = serde_json::from_str(&made).unwrap();
    let context = fs::read_to_string(pair.path("config/plumb/contexts/main.json")).unwrap();
    let mut context: Value = serde_json::from_str(&context).unwrap();
    context["token"] = made["token"].clone();
    fs::write(pair.path("ops.json"), context.to_string()).unwrap();
    let line = pair
        .plumb(&[
            "backup",
            &path(&pair, "b.backup"),
            "--context",
            &path(&pair, "ops.json"),
        ])
        .one_line();
    assert!(line.contains("for workspace main only"), "{line}");
    assert!(!pair.path("b.backup").exists() && !pair.path("b.backup.unfinished").exists());
    let audit = pair.plumb(&["audit", "--output", "json"]).good();
    assert!(audit.contains("Operations/Backup"), "{audit}");
}

/// A backup is of one moment, however much is applied meanwhile.
#[test]
fn a_backup_that_is_taken_while_applies_go_on_can_be_started_on() {
    let mut pair = Pair::started();
    pair.status_until("online", online);
    let keys = path(&pair, "keys");
    pair.plumb(&["backup", "--keys", &keys, "--data", &path(&pair, "server")])
        .good();
    for round in 0..4 {
        // What a plan was approved against must not move before it is applied.
        pair.status_until("settled", settled);
        pair.write_app(&[], &format!("env: {{ ROUND: \"{round}\" }}\n"));
        let mut apply = pair.command();
        apply.args(["apply", "--yes", "--detach"]);
        apply.stdout(std::process::Stdio::null());
        let mut apply = apply.spawn().unwrap();
        pair.plumb(&["backup", &path(&pair, &format!("{round}.backup"))])
            .good();
        assert!(apply.wait().unwrap().success());
    }
    pair.kill_server();
    fs::rename(pair.path("server"), pair.path("lost")).unwrap();
    for round in 0..4 {
        let from = path(&pair, &format!("{round}.backup"));
        pair.plumb(&[
            "restore",
            &from,
            "--data",
            &path(&pair, "server"),
            "--keys",
            &keys,
        ])
        .good();
        pair.start_server();
        let verified = pair.plumb(&["audit", "--verify"]).good();
        assert!(verified.contains("is whole"), "{verified}");
        pair.plumb(&["status"]).good();
        pair.kill_server();
        fs::remove_dir_all(pair.path("server")).unwrap();
    }
}
