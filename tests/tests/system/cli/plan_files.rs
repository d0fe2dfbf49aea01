//! Plan files: from `plan --out` over `show` and `plan verify` to `apply FILE`, and everything in between that is refused.

use std::fs;

use plumb_tests::world::{World, get};
use serde_json::Value;

use super::other;

/// A file beside the repository, as an argument.
fn file(world: &World, name: &str) -> String {
    world.path(name).display().to_string()
}

/// The lines of an apply as JSON.
fn events(out: &str) -> Vec<Value> {
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

#[test]
fn what_was_planned_is_shown_verified_and_recorded_once() {
    let world = World::quickstart("files");
    let dev = world.dev(&[]).ready();
    let plan = file(&world, "release.plan");
    let folder = other(&world, "reviewed");
    let said = world.run(&["plan", &folder, "--out", &plan, "--detailed-exitcode"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    let (shown, saved) = said.out.split_once("\nSaved to ").unwrap();
    assert_eq!(shown, world.run(&["plan", &folder]).good(), "the same plan");
    assert!(saved.contains(&format!("`plumb apply {plan}`")), "{saved}");
    assert_eq!(world.status()["revision"], 1, "nothing was recorded");
    // The same once more, over the old one.
    let _ = world.run(&["plan", &folder, "--out", &plan]).good();

    let out = world.run(&["show", &plan]).good();
    assert!(out.ends_with(shown), "{out}");
    assert!(
        out.starts_with("Plan file of workspace files, planned ")
            && out.contains("which is that of the control plane of workspace files."),
        "{out}"
    );
    let json = world.run(&["show", &plan, "--output", "json"]).json();
    let planned = world.run(&["plan", &folder, "--output", "json"]).json();
    assert_eq!(json, planned);
    let out = world.run(&["plan", "verify", &plan]).good();
    assert!(
        out.ends_with("release.plan is as it was signed.\n"),
        "{out}"
    );
    let key = world.run(&["plan", "key"]).good();
    fs::write(world.path("server.key"), &key).unwrap();
    let key_file = file(&world, "server.key");
    let json = world
        .run(&[
            "plan", "verify", &plan, "--key", &key_file, "--output", "json",
        ])
        .json();
    assert_eq!(json["key"], key.trim());
    assert_eq!(json["approval"], planned["approval"]);
    let id = json["key_id"].as_str().unwrap();
    let _ = world.run(&["plan", "verify", &plan, "--key", id]).good();
    let line = world
        .run(&["plan", "verify", &plan, "--key", &"ab".repeat(16)])
        .one_line();
    assert!(
        line.contains("which is not the one that was given"),
        "{line}"
    );

    // It is tar, and holds what it says.
    let mut tar = std::process::Command::new("tar");
    let listed = world.run_command(tar.args(["-tf", &plan])).good();
    assert_eq!(listed, "plan.json\nsignature.json\n");

    let said = world.run(&["apply", &plan]);
    assert_eq!(said.code, Some(1), "nobody can be asked: {said:?}");
    assert!(said.err.contains("--yes"), "{said:?}");
    assert_eq!(world.status()["revision"], 1, "nothing was recorded");
    let out = world.run(&["apply", &plan, "--yes"]).good();
    assert!(out.contains("Signed by this control plane.\n"), "{out}");
    assert!(out.contains("\nConverged.\n"), "{out}");
    let url = out.lines().last().unwrap().trim();
    assert!(get(url).unwrap().1.starts_with("reviewed (release 2, "));

    let out = world.run(&["apply", &plan, "--yes"]).good();
    assert!(
        out.contains("Exactly this is recorded already, as revision 2; nothing to do."),
        "{out}"
    );
    assert_eq!(world.status()["revision"], 2);

    // Going back and removing, from files too. A release is not known elsewhere, so there is no bundle of it.
    let back = file(&world, "back.plan");
    let _ = world
        .run(&["plan", "--rollback", "hello@1", "--out", &back])
        .good();
    let _ = world.run(&["apply", &back, "--yes"]).good();
    assert!(
        get(url)
            .unwrap()
            .1
            .starts_with("true to the blueprint (release 3, ")
    );
    let gone = file(&world, "gone.plan");
    let out = world.run(&["plan", "--destroy", "--out", &gone]).good();
    assert!(out.contains("everything is removed"), "{out}");
    let _ = world.run(&["apply", &gone, "--yes"]).good();
    assert_eq!(world.status()["owners"], serde_json::json!([]));
    let said = world.run(&["plan", "--destroy", "--out", &gone, "--bundle"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    drop(dev);
}

#[test]
fn what_moved_is_named_and_a_rebase_goes_on_only_with_the_same_plan() {
    let world = World::quickstart("moved");
    let dev = world.dev(&[]).ready();
    let plan = file(&world, "a.plan");
    let mine = other(&world, "mine");
    let _ = world.run(&["plan", &mine, "--out", &plan]).good();

    // Something that the plan does not change: it comes out the same.
    let priced = world.copy_of_repo("priced");
    let manifest = fs::read_to_string(priced.join("plumb.yaml")).unwrap();
    fs::write(
        priced.join("plumb.yaml"),
        manifest.replace("name: local", "name: local\nlabels: { room: cellar }"),
    )
    .unwrap();
    let text = fs::read_to_string(priced.join("base.yaml")).unwrap();
    let text = text.replace(
        "files:\n",
        &format!("files:\n  {}: {{ content: x }}\n", world.managed("extra")),
    );
    fs::write(priced.join("base.yaml"), text).unwrap();
    let priced = priced.display().to_string();
    let _ = world.run(&["apply", &priced, "--yes"]).good();
    let said = world.run(&["apply", &plan, "--yes"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.starts_with(
            "Since the plan was made:\n  setup base: release 1 → release 2, recorded by local at 2"
        ),
        "{said:?}"
    );
    assert!(
        said.err
            .contains("\n  machine local: generation 1 → generation 2, recorded by local at "),
        "{said:?}"
    );
    assert!(
        said.err
            .contains("made against revision 1, and 2 is recorded now (setup base"),
        "{said:?}"
    );
    assert_eq!(world.status()["revision"], 2, "nothing was recorded");

    // It would now also take the other change back: another plan, which is shown and not applied.
    let said = world.run(&["apply", &plan, "--yes", "--rebase"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let (_, now) = said
        .out
        .split_once("Now it would be another plan:")
        .unwrap();
    assert!(
        now.contains("extra") && now.contains("to delete"),
        "{said:?}"
    );
    assert!(said.err.contains("nothing was changed"), "{said:?}");
    assert_eq!(world.status()["revision"], 2, "nothing was recorded");

    // Back as it was, and the plan is the same again, at a later revision.
    let repo = file(&world, "repo");
    let _ = world
        .run(&["apply", &repo, "--yes", "--allow", "deletes"])
        .good();
    assert_eq!(world.status()["revision"], 3);
    assert_eq!(world.run(&["apply", &plan, "--yes"]).code, Some(1));
    let out = world.run(&["apply", &plan, "--yes", "--rebase"]).good();
    assert!(out.contains("\nConverged.\n"), "{out}");
    assert_eq!(world.status()["revision"], 4);
    let out = world.run(&["apply", &plan, "--yes", "--rebase"]).good();
    assert!(out.contains("recorded already, as revision 4"), "{out}");

    // What a file needs consent for is asked for as ever, and what was allowed is kept.
    let emptied = world.copy_of_repo("emptied");
    fs::remove_file(emptied.join("base.yaml")).unwrap();
    fs::remove_file(emptied.join("hello.yaml")).unwrap();
    let emptied = emptied.display().to_string();
    let _ = world.run(&["plan", &emptied, "--out", &plan]).good();
    let said = world.run(&["apply", &plan, "--yes"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("--allow "), "{said:?}");
    let allow = ["--allow", "empty,deletes"];
    let _ = world
        .run(&[&["apply", &plan, "--yes"], &allow[..]].concat())
        .good();
    let table = world.run(&["history", "--verbose"]).good();
    let (head, newest) = (table.lines().next(), table.lines().nth(1));
    assert!(head.unwrap().ends_with("  REVISION  ALLOWED"), "{table}");
    assert!(newest.unwrap().contains("  5         "), "{table}");
    assert!(newest.unwrap().ends_with("empty"), "{table}");
    drop(dev);
}

#[test]
fn a_bundle_is_replayed_on_a_fresh_server_by_whoever_trusts_its_key() {
    let world = World::quickstart("bundle");
    let one = world.server("one", "one");
    let two = world.server("two", "two");
    let (bundle, bare) = (file(&world, "bundle.plan"), file(&world, "bare.plan"));
    let plan = |arguments: &[&str]| {
        let common = ["plan", "--context", "one", "--out"];
        world.run(&[&common[..], arguments].concat()).good()
    };
    plan(&[&bundle, "--bundle"]);
    plan(&[&bare]);
    let elsewhere = |arguments: &[&str]| {
        let mut command = world.command();
        command.current_dir(world.path("home")).args(arguments);
        world.run_command(&mut command)
    };
    let key = elsewhere(&["plan", "key", "--context", "one"]).good();
    let key = key.trim();
    let apply = |context: &str, plan: &str, more: &[&str]| {
        let common = ["apply", plan, "--context", context, "--yes", "--detach"];
        elsewhere(&[&common[..], more].concat())
    };

    let line = elsewhere(&["plan", "verify", &bundle, "--context", "two"]).one_line();
    assert!(
        line.contains("not that of the control plane of workspace main"),
        "{line}"
    );
    let said = apply("two", &bundle, &[]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("and go on with --key "), "{said:?}");
    let said = apply(
        "two",
        &bundle,
        &["--key", &key.replace("ed25519:", "ed25519:00")[..72]],
    );
    assert_eq!(said.code, Some(1), "{said:?}");
    // The repository is not here, and the file holds no content.
    let said = apply("two", &bare, &["--key", key]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.contains("the control plane lacks `app` (") && said.err.contains("--bundle"),
        "{said:?}"
    );
    let revision = |context: &str| {
        let status = elsewhere(&["status", "--context", context, "--output", "json"]).json();
        status["revision"].clone()
    };
    assert_eq!(revision("two"), 0, "nothing was recorded");

    let said = apply("two", &bundle, &["--key", key]);
    assert!(
        said.out.contains("Signed by another control plane"),
        "{said:?}"
    );
    assert!(said.good().ends_with("Recorded.\n"));
    assert_eq!(revision("two"), 1);
    let out = apply("two", &bundle, &["--key", key]).good();
    assert!(out.contains("recorded already, as revision 1"), "{out}");

    // Where it was made, it needs no key; and where the repository is, no bundle.
    let said = world.run(&["apply", &bare, "--context", "one", "--yes", "--detach"]);
    let _ = said.good();
    let show = |context: &str| {
        let status = elsewhere(&["status", "--context", context, "--output", "json"]).json();
        let owners = status["owners"].as_array().unwrap().clone();
        let resources = owners
            .iter()
            .flat_map(|o| o["resources"].as_array().unwrap());
        resources.map(|r| r["address"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        show("one"),
        show("two"),
        "the same, byte for byte or not at all"
    );
    drop((one, two));
}

#[test]
fn a_changed_file_is_refused_by_every_command_and_records_nothing() {
    let world = World::quickstart("tampered");
    let server = world.server("data", "tampered");
    let plan = file(&world, "good.plan");
    let _ = world.run(&["plan", "--out", &plan, "--bundle"]).good();
    let good = fs::read(&plan).unwrap();
    let bad = file(&world, "bad.plan");
    let text = String::from_utf8_lossy(&good).into_owned();
    let at = |what: &str| {
        let what = what.as_bytes();
        good.windows(what.len()).position(|w| w == what).unwrap()
    };
    assert!(text.contains("server.py"));
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        bytes
    };
    let cases = [
        (
            flipped(at("true to the blueprint")),
            "its plan.json is not what the key",
        ),
        (flipped(at("\"signature\":\"") + 20), "changed or damaged"),
        (flipped(at("blobs/") + 200), "its member 3"),
        (flipped(at("blobs/") + 700), "its blob "),
        (good[..good.len() - 1].to_vec(), "cut off"),
        ([&good[..], b"\n"].concat(), "something follows its end"),
        (b"kind: Workspace\n".to_vec(), "it is no plan file"),
        (Vec::new(), "it is no plan file"),
    ];
    for (bytes, expected) in cases {
        fs::write(&bad, bytes).unwrap();
        for command in [
            &["show", &bad][..],
            &["plan", "verify", &bad],
            &["apply", &bad, "--yes", "--detach"],
        ] {
            let line = world.run(command).one_line();
            assert!(line.contains(expected), "{expected}: {line}");
        }
    }
    assert_eq!(world.status()["revision"], 0, "nothing was recorded");

    // What is shown needs nobody; whom to trust has to be said by somebody.
    fs::remove_dir_all(world.path("config")).unwrap();
    let out = world.run(&["show", &plan]).good();
    assert!(out.contains("whose that is was not checked"), "{out}");
    let line = world.run(&["plan", "verify", &plan]).one_line();
    assert!(line.contains("--key"), "{line}");
    drop(server);
}

#[test]
fn a_plan_is_saved_only_where_it_is_meant_to_be() {
    let world = World::quickstart("saved");
    let server = world.server("data", "saved");
    let manifest = world.path("repo/plumb.yaml").display().to_string();
    let before = fs::read(&manifest).unwrap();
    for (target, why) in [
        ("-", "no text for a terminal"),
        (".", "names no file"),
        ("app", "it is a folder"),
        (manifest.as_str(), "a file is there that is no plan file"),
    ] {
        let line = world.run(&["plan", "--out", target]).one_line();
        assert!(line.contains(why), "{line}");
    }
    assert_eq!(fs::read(&manifest).unwrap(), before);
    let said = world.run(&["plan", "--out", "nowhere/a.plan"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("nowhere/a.plan"), "{said:?}");
    for arguments in [
        &["plan", "--bundle"][..],
        &["plan", "--destroy", "--rollback", "hello"],
        &["plan", "--rollback", "hello@x"],
    ] {
        assert_eq!(world.run(arguments).code, Some(1), "{arguments:?}");
    }
    let line = world.run(&["apply", "--rebase", "--yes"]).one_line();
    assert!(line.contains("--rebase is for plan files"), "{line}");
    drop(server);
}

#[test]
fn an_apply_for_programs_tells_each_event_on_a_line_and_the_outcome_last() {
    let world = World::quickstart("events");
    let dev = world.dev(&[]).ready();
    let said = world.run(&["apply", &other(&world, "told"), "--yes", "--output", "json"]);
    let told = events(&said.good());
    assert!(told.iter().all(|e| e["format"] == 1), "{told:#?}");
    let names: Vec<&str> = told.iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!(names[..2], ["planned", "recorded"], "{told:#?}");
    assert_eq!(*names.last().unwrap(), "outcome");
    assert_eq!(told[0]["changes"], 2);
    assert_eq!(
        told[1]["releases"],
        serde_json::json!({ "base": 2, "hello": 2 })
    );
    let last = told.last().unwrap();
    assert_eq!(last["outcome"], "converged");
    assert_eq!(last["status"]["revision"], 2);
    let progress = told.iter().filter(|e| e["event"] == "resource");
    let states: Vec<&Value> = progress.map(|e| &e["state"]).collect();
    assert_eq!(states.last().unwrap(), &"converged", "{told:#?}");
    let known = [
        "planned", "recorded", "resource", "health", "machine", "outcome",
    ];
    assert!(names.iter().all(|name| known.contains(name)), "{names:?}");

    let out = world
        .run(&[
            "apply",
            &other(&world, "left"),
            "--yes",
            "--detach",
            "--output",
            "json",
        ])
        .good();
    let told = events(&out);
    assert_eq!(told.len(), 3, "{told:#?}");
    assert_eq!(told[2]["outcome"], "recorded");
    let said = world.run(&["apply", &other(&world, "asked"), "--output", "json"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("--yes"), "{said:?}");
    drop(dev);
}
