//! The API from another language: the client under docs/python, with stock grpcio, against a live control plane.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use plumb_tests::pair::{Outcome, Pair, online, settled};

/// Runs a command that has to end well.
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// A Python with grpcio, in a folder of the test's own; what pip had to fetch it keeps in its cache.
fn python(pair: &Pair) -> PathBuf {
    let venv = pair.path("venv");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    let python = venv.join("bin/python");
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "grpcio", "grpcio-tools"]));
    python
}

#[test]
fn a_client_in_python_lists_plans_applies_watches_and_reads_an_errors_details() {
    let pair = Pair::started();
    pair.status_until("online", online);
    let python = python(&pair);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (proto, made) = (root.join("proto"), pair.path("gen"));
    fs::create_dir(&made).unwrap();
    let files = fs::read_dir(proto.join("plumb/v1")).unwrap().flatten();
    let out = made.display();
    run(Command::new(&python)
        .args(["-m", "grpc_tools.protoc", "-I"])
        .arg(&proto)
        .args([
            format!("--python_out={out}"),
            format!("--grpc_python_out={out}"),
        ])
        .args(files.map(|file| file.path())));
    let client = |arguments: &[&str]| -> Outcome {
        let mut command = Command::new(&python);
        command
            .env("PYTHONPATH", &made)
            .arg(root.join("docs/python/plumb_client.py"))
            .arg("--context")
            .arg(pair.path("config/plumb/contexts/main.json"))
            .args(arguments);
        pair.run(&mut command)
    };
    let health = client(&["health"]).good();
    assert!(
        health.contains(", ready\n") && health.contains("store: takes writes"),
        "{health}"
    );
    assert_eq!(client(&["machines"]).good(), "local: online\n");

    pair.write_app(&[], "");
    let repo = pair.path("repo").display().to_string();
    let plan = client(&["plan", &repo]).good();
    assert!(
        plan.contains("resources change, against revision 0"),
        "{plan}"
    );
    let applied = client(&["apply", &repo]).good();
    assert!(applied.contains("recorded as revision 1"), "{applied}");
    let watched = client(&["watch"]).good();
    let last = watched.lines().last().unwrap();
    assert!(
        last.contains("revision 1: {\"app\": \"converged\"}"),
        "{watched}"
    );
    pair.status_until("settled", settled);
    // The very same as the command line would have recorded.
    let again = pair.plumb(&["plan", "--detailed-exitcode"]);
    assert_eq!(again.code, Some(0), "{again:?}");

    // What is wrong comes with a reason, and with every problem for programs.
    pair.write("app.yaml", "kind: App\nname: app\nmachnes: local\nrun: x\n");
    let refused = client(&["plan", &repo]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused
            .err
            .contains("FAILED_PRECONDITION: the blueprints have problems"),
        "{refused:?}"
    );
    assert!(refused.err.contains("reason: PLAN_REFUSED"), "{refused:?}");
    assert!(
        refused.err.contains("problems: ") && refused.err.contains("machnes"),
        "{refused:?}"
    );
    // What would be removed needs consent, which the details name.
    fs::remove_file(pair.path("repo/app.yaml")).unwrap();
    let refused = client(&["apply", &repo]);
    assert!(
        refused.err.contains("reason: CONSENT_NEEDED"),
        "{refused:?}"
    );
}
