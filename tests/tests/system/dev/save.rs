//! Saving while `dev` runs.

use std::time::Duration;

use plumb_tests::world::{PATIENCE, World, eventually, get};

/// A save is planned, applied and served within this time, as somebody who watches would call at once.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn saving_a_blueprint_shows_the_difference_and_applies_it() {
    let world = World::quickstart("save");
    let dev = world.dev(&[]).ready();
    let mark = dev.mark();
    world.edit("plumb.yaml", "true to the blueprint", "saved");
    dev.expect(mark, "Plan for workspace save", AT_ONCE);
    dev.expect(
        mark,
        "content  \"true to the blueprint\\n\" → \"saved\\n\"",
        AT_ONCE,
    );
    dev.expect(
        mark,
        "env.GREETING  \"true to the blueprint\" → \"saved\"",
        AT_ONCE,
    );
    dev.expect(mark, "  converged", AT_ONCE);
    let status = world.until("converged", |s| s["owners"][1]["state"] == "converged");
    assert_eq!(status["revision"], 2);
    let url = status["owners"][1]["urls"][0].as_str().unwrap();
    eventually("the new greeting is served", AT_ONCE, || {
        get(url).filter(|(_, body)| body.starts_with("saved (release 2, "))
    });
    assert_eq!(
        std::fs::read_to_string(world.managed("motd")).unwrap(),
        "saved\n"
    );

    let mark = dev.mark();
    world.edit("app/server.py", "\"ok\\n\"", "\"fine\\n\"");
    dev.expect(mark, "artifact source", AT_ONCE);
    let health = format!("{url}/healthz");
    eventually("the new source is served", AT_ONCE, || {
        get(&health).filter(|(_, body)| body == "fine\n")
    });
    assert_eq!(dev.stop().code, Some(0));
    assert_eq!(world.processes(), Vec::<u32>::new());
}

#[test]
fn an_invalid_save_shows_its_problems_and_changes_nothing_and_a_mended_one_goes_on() {
    let world = World::quickstart("invalid");
    let dev = world.dev(&[]).ready();
    let pid = dev.app_pid();
    let mark = dev.mark();
    world.edit("hello.yaml", "health: /healthz", "helth: /healthz");
    dev.expect(mark, "hello.yaml:12:1", AT_ONCE);
    dev.expect(
        mark,
        "1 problem in the blueprints; nothing was changed",
        AT_ONCE,
    );
    assert!(
        dev.since(mark).contains("health"),
        "a hint with the right name"
    );
    assert_eq!(world.status()["revision"], 1);
    assert_eq!(dev.app_pid(), pid, "the app was not touched");

    // A problem that only the planner can find is shown with its place too, and changes nothing either.
    let mark = dev.mark();
    world.edit(
        "hello.yaml",
        "helth: /healthz",
        "health: /healthz\nreplicas: 2",
    );
    let (plan, refused) = ("Plan for workspace", "nothing was changed");
    eventually("it is planned or refused", AT_ONCE, || {
        let said = dev.since(mark);
        (said.contains(plan) || said.contains(refused)).then_some(())
    });

    let mark = dev.mark();
    world.edit("hello.yaml", "\nreplicas: 2", "");
    world.edit("plumb.yaml", "true to the blueprint", "mended");
    dev.expect(mark, "\"mended\"", AT_ONCE);
    let status = world.until("converged", |s| {
        s["owners"][1]["state"] == "converged" && s["owners"][1]["release"].as_u64() >= Some(2)
    });
    let url = status["owners"][1]["urls"][0].as_str().unwrap();
    eventually("the mended greeting is served", PATIENCE, || {
        get(url).filter(|(_, body)| body.starts_with("mended "))
    });
    assert_eq!(dev.stop().code, Some(0));
}

#[test]
fn a_file_that_is_no_longer_declared_goes() {
    let world = World::quickstart("undeclare");
    let dev = world.dev(&[]).ready();
    let mark = dev.mark();
    let motd = world.managed("motd");
    world.edit(
        "base.yaml",
        &format!("  {motd}: {{ content: \"${{vars.greeting}}\\n\" }}\n"),
        "",
    );
    dev.expect(mark, "1 to delete", AT_ONCE);
    eventually("it is gone", AT_ONCE, || {
        (!std::path::Path::new(&motd).exists()).then_some(())
    });
    assert!(world.path("managed/app.toml").is_file(), "the others stay");
    assert_eq!(dev.stop().code, Some(0));
}

#[test]
fn touching_a_file_plans_nothing_new() {
    let world = World::quickstart("touch");
    let dev = world.dev(&[]).ready();
    let mark = dev.mark();
    world.write("notes.txt", "nothing of interest");
    world.edit("base.yaml", "kind: Setup", "kind: Setup  # a comment");
    world.edit("plumb.yaml", "true to the blueprint", "touched");
    dev.expect(mark, "\"touched\"", AT_ONCE);
    world.until("converged", |s| {
        s["revision"].as_u64() >= Some(2) && s["owners"][1]["state"] == "converged"
    });
    assert_eq!(
        world.status()["revision"],
        2,
        "one save, one revision; comments make none"
    );
    assert_eq!(dev.stop().code, Some(0));
}
