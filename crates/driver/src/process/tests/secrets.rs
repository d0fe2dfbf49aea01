//! Secrets reach exactly the process that is to have them, and are nowhere else.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use plumb_model::{OnSecretChange, Secret, SecretForm, SecretName, SecretRef, SecretUse};

use super::*;
use crate::secrets::Secrets;

const CANARY: &str = "canary-5e77";

fn used(version: u64, form: SecretForm, on_change: OnSecretChange) -> SecretUse {
    SecretUse {
        on_change,
        ..SecretUse::new(
            SecretRef {
                name: SecretName::new("key").unwrap(),
                version: Some(version),
                digest: None,
            },
            form,
        )
    }
}

/// A slot whose machine has two versions of one secret, with the tmpfs that files are on.
fn stage() -> (Stage, tempfile::TempDir) {
    let mut stage = Stage::new();
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    let secrets = Secrets::new(Some(shm.path().join("plumb")));
    for version in [1, 2] {
        let value = Secret::new(format!("{CANARY}-{version}"));
        secrets.put(SecretName::new("key").unwrap(), version, value);
    }
    stage.driver.host.secrets = secrets;
    (stage, shm)
}

fn environ(pid: u32) -> String {
    super::proc_text(pid, "environ")
}

fn command_line(pid: u32) -> String {
    super::proc_text(pid, "cmdline")
}

fn parent(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after = stat.rsplit_once(')').unwrap().1;
    after.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Every file beneath a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => all.extend(files(&entry.path())),
            kind if kind.is_file() => all.push(entry.path()),
            _ => {}
        }
    }
    all
}

fn assert_no_canary_in(folder: &Path) {
    for file in files(folder) {
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        assert!(!text.contains(CANARY), "{}: {text}", file.display());
    }
}

/// Rows 32 and 34. Mutations: `start::prepare` that puts `handed.secret` into the spec's `env`; the shim started with the
/// secrets in its own environment.
#[test]
fn a_secret_in_the_environment_is_in_that_of_its_process_alone() {
    let (mut stage, _shm) = stage();
    let mut spec = shell("exec sleep 60");
    let secret = used(1, SecretForm::Env, OnSecretChange::Restart);
    spec.secrets.insert("API_KEY".to_owned(), secret);
    let run = stage.start(&spec);
    let value = format!("API_KEY={CANARY}-1\0");
    assert!(environ(run.pid).contains(&value));
    let shim = parent(run.pid);
    // A shim is started without any.
    let of_shim = fs::read(format!("/proc/{shim}/environ")).unwrap();
    let of_shim = String::from_utf8_lossy(&of_shim).into_owned();
    for shown in [command_line(run.pid), command_line(shim), of_shim] {
        assert!(!shown.contains(CANARY), "{shown}");
    }
    assert_no_canary_in(stage.data.path());
    // A new version is another incarnation; one that is only told would not be.
    let mut next = spec.clone();
    next.secrets.get_mut("API_KEY").unwrap().secret.version = Some(2);
    assert_ne!(spec.incarnation_hash(), next.incarnation_hash());
}

/// Row 34. Mutation: `hand_over` that puts the value of a file into `secret` too.
#[test]
fn a_secret_as_a_file_is_in_no_environment_and_goes_with_its_process() {
    let (mut stage, shm) = stage();
    let mut spec = shell("exec sleep 60");
    let secret = used(1, SecretForm::File, OnSecretChange::Restart);
    spec.secrets.insert("API_KEY".to_owned(), secret);
    let run = stage.start(&spec);
    let file = shm.path().join("plumb/secrets/hello/key");
    let shown = environ(run.pid);
    let variable = format!("API_KEY_FILE={}\0", file.display());
    assert!(
        shown.contains(&variable) && !shown.contains(CANARY),
        "{shown}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{CANARY}-1"));
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o400);
    assert_no_canary_in(stage.data.path());
    // Somebody removes it: the next look puts it back, and disturbs nobody.
    fs::remove_file(&file).unwrap();
    assert!(matches!(stage.look(Some(&spec)), Observation::Running(again) if again.id == run.id));
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{CANARY}-1"));
    stage.act(Some(&spec), Action::Stop).unwrap();
    wait_for("exit", || {
        matches!(stage.look(Some(&spec)), Observation::Exited(..)).then_some(())
    });
    stage.act(None, Action::Remove).unwrap();
    assert!(!file.exists());
}

/// Mutation: `refresh` that leaves the signals out, or `told` called before them.
#[test]
fn a_new_version_of_a_file_is_told_by_its_signal_and_restarts_nothing() {
    let (mut stage, shm) = stage();
    let script = "trap 'cat $API_KEY_FILE >> told; echo >> told' USR1; echo up >> told; while :; do sleep 0.02; done";
    let mut spec = shell(script);
    let secret = |version| used(version, SecretForm::File, OnSecretChange::Signal(10));
    spec.secrets.insert("API_KEY".to_owned(), secret(1));
    let run = stage.start(&spec);
    let told = stage.data.path().join("processes/hello/web.0/work/told");
    let said = || fs::read_to_string(&told).unwrap_or_default();
    wait_for("start", || (said() == "up\n").then_some(()));
    let first = spec.incarnation_hash();
    spec.secrets.insert("API_KEY".to_owned(), secret(2));
    assert_eq!(spec.incarnation_hash(), first);
    for _ in 0..2 {
        let seen = stage.look(Some(&spec));
        assert!(matches!(seen, Observation::Running(again) if again.id == run.id));
    }
    wait_for("word", || (said().matches('\n').count() > 1).then_some(()));
    assert_eq!(said(), format!("up\n{CANARY}-2\n"), "told once");
    let file = shm.path().join("plumb/secrets/hello/key");
    assert_eq!(fs::read_to_string(file).unwrap(), format!("{CANARY}-2"));
}

#[test]
fn what_is_not_on_the_machine_is_waited_for_by_name_and_nothing_starts() {
    let (mut stage, _shm) = stage();
    for (version, expected) in [
        (
            Some(9),
            "version 9 of the secret key is not on this machine",
        ),
        (None, "which version of the secret key"),
    ] {
        let mut spec = shell("exec sleep 60");
        let mut secret = used(1, SecretForm::Env, OnSecretChange::Restart);
        secret.secret.version = version;
        spec.secrets.insert("KEY".to_owned(), secret);
        let fault = stage.act(Some(&spec), Action::Start).unwrap_err();
        assert_eq!(fault.reason, Reason::ContentMissing);
        assert!(fault.message.contains(expected), "{fault}");
        assert_eq!(stage.look(Some(&spec)), Observation::Absent);
    }
}

#[test]
fn the_credential_of_a_service_is_never_handed_over_as_the_text_that_stands_for_it() {
    let (mut stage, _shm) = stage();
    let mut spec = shell("exec sleep 60");
    spec.env
        .insert("URL".to_owned(), "${service.db.url}".to_owned());
    let fault = stage.act(Some(&spec), Action::Start).unwrap_err();
    assert_eq!(fault.reason, Reason::LacksCapability);
}
