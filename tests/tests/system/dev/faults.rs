//! What cannot be done is a condition that names resource and cause, soon, and keeps nothing else from going on.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use plumb_tests::running::Mark;
use plumb_tests::world::{PATIENCE, World, eventually};
use rustix::mount::MountFlags;
use serde_json::Value;

/// The bar of the issue.
const SOON: Duration = Duration::from_secs(2);

/// The resource of an owner that failed, with its reason and message.
fn failure<'a>(status: &'a Value, owner: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let owners = status["owners"].as_array()?;
    let resources = owners.iter().find(|o| o["name"] == owner)?["resources"].as_array()?;
    let failed = resources.iter().find(|r| r["state"] == "failed")?;
    let conditions = failed["conditions"].as_array()?;
    let condition = conditions
        .iter()
        .find(|c| (c["kind"] == "Failed" || c["kind"] == "Blocked") && c["status"] == true)?;
    Some((
        failed["address"].as_str()?,
        condition["reason"].as_str()?,
        condition["message"].as_str()?,
    ))
}

fn state<'a>(status: &'a Value, owner: &str) -> &'a str {
    let owners = status["owners"].as_array().map_or(&[][..], Vec::as_slice);
    let found = owners.iter().find(|o| o["name"] == owner);
    found.and_then(|o| o["state"].as_str()).unwrap_or_default()
}

#[test]
fn each_fault_is_a_condition_within_two_seconds_while_the_rest_goes_on() {
    let mut world = World::new("faults");
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    let app = |name: &str, run: &str, more: &str| {
        world.write(
            &format!("{name}.yaml"),
            &format!("kind: App\nname: {name}\nmachines: local\nrun: {run}\n{more}"),
        );
    };
    app("good", "sleep 1000", "");
    app(
        "taken",
        "sleep 1000",
        &format!("ports: {{ http: {port} }}\n"),
    );
    app("missing", "[no-such-program, --now]", "");
    app("quits", "exit 3", "");
    app("ends", "[\"true\"]", "");
    let setup = |name: &str, path: &str, declared: &str| {
        let path = world.managed(path);
        world.write(
            &format!("{name}.yaml"),
            &format!(
                "kind: Setup\nname: {name}\nmachines: local\nfiles:\n  {path}: {{ {declared} }}\n"
            ),
        );
    };
    setup("fine", "fine", "content: x");
    setup("unwritable", "locked/file", "content: x");
    setup("linked", "link/file", "content: x");
    setup("notafolder", "plain/file", "content: x");
    setup("full", "full/file", "source: big");
    setup("readonly", "readonly/file", "content: x");
    world.write("big", &"0123456789abcdef".repeat(16 * 1024));
    fs::create_dir(world.path("aside")).unwrap();
    symlink(world.path("aside"), world.managed("link")).unwrap();
    fs::write(world.managed("plain"), "a file").unwrap();
    world.become_nobody();
    fs::create_dir(world.managed("locked")).unwrap();
    let _full = world.mount("full", c"size=64k,mode=0777", MountFlags::empty());
    let _readonly = world.mount("readonly", c"size=64k,mode=0777", MountFlags::RDONLY);

    let expected = [
        ("taken", "PortTaken", port.to_string()),
        ("missing", "CommandNotFound", "no-such-program".to_owned()),
        ("quits", "ExitedAtOnce", "status 3".to_owned()),
        ("ends", "ExitedAtOnce", "status 0".to_owned()),
        ("unwritable", "PermissionDenied", "locked".to_owned()),
        ("linked", "SymlinkInPath", "link".to_owned()),
        ("notafolder", "BadPath", "plain".to_owned()),
        ("full", "DiskFull", "full".to_owned()),
        ("readonly", "ReadOnly", "readonly".to_owned()),
    ];
    let dev = world.dev(&[]);
    dev.expect(Mark::default(), "Plan: ", PATIENCE);
    let began = Instant::now();
    let status = loop {
        let status = world.status();
        let all = expected
            .iter()
            .all(|(owner, ..)| failure(&status, owner).is_some());
        if all && state(&status, "good") == "converged" && state(&status, "fine") == "converged" {
            break status;
        }
        let known = expected
            .iter()
            .map(|(owner, ..)| (owner, failure(&status, owner)));
        assert!(began.elapsed() < SOON, "{:#?}", known.collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(20));
    };
    for (owner, reason, cause) in &expected {
        let (address, found, message) = failure(&status, owner).unwrap();
        assert_eq!(found, *reason, "{owner}: {message}");
        assert!(message.contains(cause.as_str()), "{owner}: {message}");
        assert!(
            address.contains(&format!("local/{owner}/")),
            "{owner}: {address}"
        );
        // Shown where somebody looks, with resource and cause: as an event, or in the progress.
        eventually("it is shown", SOON, || {
            let all = dev.since(Mark::default());
            let shown = all.lines().any(|line| {
                let event = line.contains(&format!("✗ local {owner}/"));
                let progress = line.contains(&format!("failed  0/1  local/{owner}/"));
                (event || progress) && line.contains(cause.as_str())
            });
            shown.then_some(())
        });
    }
    assert_eq!(
        fs::read_dir(world.path("aside")).unwrap().count(),
        0,
        "nothing was written through the link"
    );
    assert_eq!(
        fs::read_dir(world.managed("full")).unwrap().count(),
        0,
        "nothing half-written is left"
    );
    dev.expect(Mark::default(), "Not converged:", PATIENCE);

    // Once the cause is gone, it goes on by itself.
    drop(stranger);
    world.until("the port is free and taken", |s| {
        state(s, "taken") == "converged"
    });
    assert_eq!(dev.stop().code, Some(0));
    assert_eq!(world.processes(), Vec::<u32>::new());
}
