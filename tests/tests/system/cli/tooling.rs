//! The tools of the language on the real binary: `init`, `fmt`, `validate` in all its formats, `explain`, `schema`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;

use plumb_tests::world::World;

#[test]
fn a_repository_made_by_init_is_valid_formatted_and_runs_at_once() {
    let world = World::new("starter");
    let folder = world.path("shop").display().to_string();
    let out = world.run(&["init", &folder, "--name", "starter"]).good();
    assert!(out.contains("plumb dev"), "{out}");
    let valid = world.run(&["validate", &folder]).good();
    assert!(
        valid.starts_with("Valid. Workspace starter: 1 machine, 1 app"),
        "{valid}"
    );
    let _ = world.run(&["fmt", "--check", &folder]).good();
    let status = world.run(&["dev", &folder, "--once", "--output", "json"]);
    assert_eq!(status.code, Some(0), "{status:?}");
    let again = world.run(&["init", &folder]).one_line();
    assert!(
        again.contains("plumb.yaml") && again.contains("nothing was written"),
        "{again}"
    );
}

#[test]
fn init_writes_nothing_at_all_where_one_of_its_files_is_in_the_way() {
    let world = World::new("in-the-way");
    fs::create_dir(world.path("other")).unwrap();
    fs::write(world.path("other/README.md"), "mine").unwrap();
    let folder = world.path("other").display().to_string();
    let line = world.run(&["init", &folder]).one_line();
    assert!(line.contains("README.md"), "{line}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    assert_eq!(
        fs::read_to_string(world.path("other/README.md")).unwrap(),
        "mine"
    );
}

#[test]
fn fmt_changes_what_it_must_and_keeps_the_mode() {
    let world = World::new("fmt");
    let crooked = "kind:   App\nname: a\nmachines:   local\nrun: sleep 1 #why\n";
    let straight = "kind: App\nname: a\nmachines: local\nrun: sleep 1 # why\n";
    world.write("apps/a.yaml", crooked);
    world.write("apps/other.yaml", "not:   a blueprint\n");
    world.write("apps/broken.yaml", "kind: App\nname: [\n");
    let real = world.path("repo/apps/a.yaml");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();

    let check = world.run(&["fmt", "--check", "apps/a.yaml"]);
    assert_eq!(check.code, Some(1));
    assert!(
        check.out.contains("-kind:   App\n") && check.out.contains("+kind: App\n"),
        "{check:?}"
    );
    assert_eq!(fs::read_to_string(&real).unwrap(), crooked);

    let said = world.run(&["fmt"]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), "apps/a.yaml\n"));
    assert!(
        said.err.contains("broken.yaml:") && said.err.contains("P0004"),
        "{}",
        said.err
    );
    assert_eq!(fs::read_to_string(&real).unwrap(), straight);
    assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o600);

    let left = fs::read_to_string(world.path("repo/apps/other.yaml")).unwrap();
    assert_eq!(left, "not:   a blueprint\n");
    let _ = world
        .run(&["fmt", "--check", "apps/a.yaml", "plumb.yaml"])
        .good();

    let mut command = world.command();
    command
        .args(["fmt", "-"])
        .stdin(Stdio::from(fs::File::open(&real).unwrap()));
    assert_eq!(world.run_command(&mut command).good(), straight);
}

#[test]
fn each_format_of_validate_goes_to_standard_output_and_tells_of_the_checkout() {
    let world = World::new("formats");
    world.git(&["init", "--quiet", ".."]);
    world.write(
        "apps/a b.yaml",
        "kind: App\nname: a\nmachines: local\nrun: x\nprots: {}\n",
    );
    let run = |format: &str| {
        let said = world.run(&["validate", "--format", format]);
        assert_eq!((said.code, said.err.as_str()), (Some(1), ""), "{format}");
        said.out
    };
    let sarif: serde_json::Value = serde_json::from_str(&run("sarif")).unwrap();
    let location = &sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
    assert_eq!(location["artifactLocation"]["uri"], "repo/apps/a%20b.yaml");
    assert_eq!(location["region"]["startLine"], 5);
    assert!(run("github").starts_with("::error file=repo/apps/a b.yaml,line=5,"));
    let gitlab: serde_json::Value = serde_json::from_str(&run("gitlab")).unwrap();
    assert_eq!(gitlab[0]["location"]["path"], "repo/apps/a b.yaml");
    assert!(
        run("junit").contains("<testsuite name=\"repo/apps/a b.yaml\" tests=\"1\" failures=\"1\"")
    );
    let json: serde_json::Value = serde_json::from_str(&run("json")).unwrap();
    assert_eq!(json["diagnostics"]["items"][0]["file"], "apps/a b.yaml");

    // Only what touches the path counts; the rest is mentioned.
    let narrow = world.run(&["validate", "plumb.yaml"]);
    assert_eq!(narrow.code, Some(0), "{narrow:?}");
    assert!(
        narrow.err.contains("1 problem more elsewhere"),
        "{narrow:?}"
    );
    assert_eq!(world.run(&["validate", "apps"]).code, Some(1));
    assert_eq!(
        world.run(&["validate", "plumb.yaml", "apps/a b.yaml"]).code,
        Some(1)
    );
}

#[test]
fn a_source_that_is_not_there_is_told_of_at_the_app_that_names_it() {
    let world = World::new("missing");
    world.write(
        "a.yaml",
        "kind: App\nname: a\nmachines: local\nrun: x\nsource: { path: nowhere }\n",
    );
    let said = world.run(&["validate", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let item = &json["diagnostics"]["items"][0];
    assert_eq!((said.code, &item["code"]), (Some(1), &"P0413".into()));
    assert_eq!(
        (&item["file"], item["spans"][0]["line"].as_u64()),
        (&"a.yaml".into(), Some(5))
    );
    let text = world.run(&["validate"]);
    assert!(
        text.err.contains("a.yaml:5:1") && text.err.contains("nowhere"),
        "{text:?}"
    );
}

#[test]
fn explain_and_schema_tell_what_they_are_asked() {
    let world = World::new("explain");
    let all = world.run(&["explain"]).good();
    assert!(
        all.lines().count() > 50 && all.contains("P0105  No such key"),
        "{all}"
    );
    let one = world.run(&["explain", "p0105"]).good();
    assert!(
        one.contains("did you mean `ports`?") && one.contains("Right (hello.yaml)"),
        "{one}"
    );
    let json = world.run(&["explain", "P0105", "--output", "json"]).json();
    assert_eq!(json["explanation"]["code"], "P0105");
    assert!(
        world
            .run(&["explain", "P0150"])
            .one_line()
            .contains("did you mean")
    );

    let app = world.run(&["schema", "app"]).json();
    assert_eq!(app, world.run(&["schema", "App"]).json());
    let plan = world.run(&["schema", "plan"]).json();
    assert!(plan["properties"]["changes"].is_object(), "{plan}");
    let table = world.run(&["schema", "--coverage"]).good();
    assert!(
        table.contains("process.argv") && table.contains("restart"),
        "{table}"
    );
    let coverage = world
        .run(&["schema", "--coverage", "--output", "json"])
        .json();
    assert!(coverage["kinds"].as_array().unwrap().len() >= 4);
}
