//! Planning without a server: against a snapshot, and between two git commits.

use plumb_tests::world::World;

use super::other;

#[test]
fn a_plan_against_a_snapshot_is_the_plan_that_the_server_makes() {
    let world = World::quickstart("snapshot");
    let dev = world.dev(&[]).ready();
    let file = world.path("fleet.snapshot").display().to_string();
    let said = world.run(&["snapshot", "--out", &file]).good();
    assert!(said.contains("2 owners on 1 machine"), "{said}");
    let folder = other(&world, "elsewhere");
    let offline = ["plan", &folder, "--snapshot", &file, "--output", "json"];
    let online = world.run(&["plan", &folder, "--output", "json"]).json();
    assert_eq!(world.run(&offline).json(), online);
    assert!(!online["changes"].as_array().unwrap().is_empty());
    // Whoever has the file needs no server, and finds no credential in it.
    dev.stop();
    assert_eq!(world.run(&offline).json(), online);
    let bytes = std::fs::read_to_string(&file).unwrap();
    assert!(!bytes.contains("plumb_"), "a token in a snapshot");
    let unchanged = world.path("repo").display().to_string();
    let said = world
        .run(&[
            "plan",
            &unchanged,
            "--snapshot",
            &file,
            "--detailed-exitcode",
        ])
        .good();
    assert!(said.contains("No changes"), "{said}");
    std::fs::write(&file, &bytes[..bytes.len() - 2]).unwrap();
    let line = world.run(&offline).one_line();
    assert!(
        line.ends_with("take it again with `plumb snapshot`"),
        "{line}"
    );
    std::fs::write(&file, "kind: App\n").unwrap();
    let line = world.run(&offline).one_line();
    assert!(line.contains("it is no snapshot"), "{line}");
}

#[test]
fn the_plan_between_two_commits_needs_no_server_and_leaves_the_working_tree_alone() {
    let world = World::quickstart("diff");
    let commit = |message: &str| {
        world.git(&["add", "."]);
        world.git(&["commit", "--quiet", "--message", message]);
    };
    world.git(&["init", "--quiet", "--initial-branch", "main"]);
    world.git(&["commit", "--quiet", "--allow-empty", "--message", "Nothing"]);
    commit("One");
    world.edit("plumb.yaml", "true to the blueprint", "two");
    world.edit("app/server.py", "import", "# changed\nimport");
    commit("Two");
    world.edit("plumb.yaml", "two", "not committed");
    let repo = world.path("repo").display().to_string();

    let said = world.run(&["diff", "main~1..main", &repo]).good();
    assert!(said.contains("GREETING") && said.contains("two"), "{said}");
    assert!(said.contains("artifact source"), "{said}");
    assert!(!said.contains("not committed"), "{said}");
    assert!(!said.contains("wait"), "no machine is asked: {said}");
    assert!(!said.contains("heard of"), "no machine is asked: {said}");
    let said = world.run(&["diff", "main", &repo]).good();
    assert!(said.contains("not committed"), "{said}");
    let changes = ["diff", "main~1..main", &repo, "--detailed-exitcode"];
    assert_eq!(world.run(&changes).code, Some(2));
    let same = ["diff", "main..main", &repo, "--detailed-exitcode"];
    assert_eq!(world.run(&same).code, Some(0));
    // Neither of them needs the working tree, which may hold anything.
    let (manifest, aside) = (world.path("repo/plumb.yaml"), world.path("aside"));
    std::fs::rename(&manifest, &aside).unwrap();
    assert_eq!(world.run(&changes).code, Some(2));
    let line = world.run(&["diff", "main", &repo]).one_line();
    assert!(line.contains("plumb.yaml"), "{line}");
    std::fs::rename(&aside, &manifest).unwrap();
    // Before the manifest came there was nothing, and going back there removes everything.
    let first = world
        .run(&["diff", "main~2..main", &repo, "--output", "json"])
        .json();
    let back = world
        .run(&["diff", "main..main~2", &repo, "--output", "json"])
        .json();
    let actions = |plan: &serde_json::Value| {
        let changes = plan["changes"].as_array().unwrap();
        let mut words: Vec<_> = changes.iter().map(|c| c["action"].to_string()).collect();
        words.dedup();
        (changes.len(), words)
    };
    assert_eq!(actions(&first), (5, vec!["\"create\"".to_owned()]));
    assert_eq!(actions(&back), (5, vec!["\"delete\"".to_owned()]));

    for (range, wanted) in [
        ("nope..main", "there is no commit \"nope\""),
        ("main...main~1", "has three dots"),
        (
            "--upload-pack=x..main",
            "there is no commit \"--upload-pack=x\"",
        ),
    ] {
        let line = world.run(&["diff", "--", range, &repo]).one_line();
        assert!(line.contains(wanted), "{line}");
    }
    let text = std::fs::read_to_string(world.path("repo/plumb.yaml")).unwrap();
    assert!(text.contains("not committed"));
}
