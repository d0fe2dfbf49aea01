//! What somebody breaks while `dev` runs is put right, at once, and shown.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use plumb_tests::running::Running;
use plumb_tests::world::{World, eventually, get, signal};
use rustix::process::Signal;

/// The bar of the issue.
const SOON: Duration = Duration::from_secs(1);

#[test]
fn an_app_killed_with_9_serves_again_within_a_second_and_is_shown_as_drift() {
    let world = World::quickstart("killed");
    let dev = world.dev(&[]).ready();
    let url = dev.url("hello");
    // The first restart after a healthy spell is immediate; the second one must not take its place here.
    let pid = dev.app_pid();
    let mark = dev.mark();
    signal(pid, Signal::KILL);
    let body = eventually("it serves again", SOON, || {
        get(&url)
            .map(|(_, body)| body)
            .filter(|body| !body.contains(&format!("pid {pid})")))
    });
    assert!(
        body.starts_with("true to the blueprint (release 1, "),
        "{body}"
    );
    let line = dev.expect(mark, "drift corrected", SOON);
    assert!(line.contains("local hello/process app/0"), "{line}");
    assert!(
        line.contains("signal 9") || line.contains("KILL"),
        "the cause: {line}"
    );
    let status = world.until("healthy again", |s| s["owners"][1]["state"] == "converged");
    let process = &status["owners"][1]["resources"];
    let process = process
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["kind"] == "process")
        .unwrap();
    assert_eq!(process["process"]["restarts"], 1);
    assert_eq!(dev.stop().code, Some(0));
    assert_eq!(world.processes(), Vec::<u32>::new());
}

/// Breaks the managed file and waits until it is as declared again, and said to be.
#[track_caller]
fn check(dev: &Running<'_>, path: &Path, what: &str, harm: impl FnOnce(&Path)) {
    let (content, mode) = (fs::read(path).unwrap(), mode(path));
    let mark = dev.mark();
    harm(path);
    eventually(what, SOON, || {
        let meta = fs::symlink_metadata(path).ok()?;
        let whole = meta.is_file() && meta.permissions().mode() & 0o7777 == mode;
        (whole && fs::read(path).ok()? == content).then_some(())
    });
    let line = dev.expect(mark, "drift corrected", SOON);
    assert!(
        line.contains(&format!("base/file {}", path.display())),
        "{what}: {line}"
    );
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_managed_file_is_restored_within_a_second_whatever_is_done_to_it() {
    let world = World::quickstart("harm");
    let dev = world.dev(&[]).ready();
    let file = world.path("managed/app.toml");
    assert_eq!(mode(&file), 0o640);
    check(&dev, &file, "deleted", |f| fs::remove_file(f).unwrap());
    check(&dev, &file, "edited", |f| fs::write(f, "other").unwrap());
    check(&dev, &file, "edited to the same length", |f| {
        let text = fs::read_to_string(f).unwrap();
        fs::write(f, text.replace('2', "3")).unwrap();
    });
    check(&dev, &file, "chmodded", |f| {
        fs::set_permissions(f, fs::Permissions::from_mode(0o666)).unwrap()
    });
    let target = world.path("victim");
    fs::write(&target, "mine").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
    check(&dev, &file, "replaced by a symlink", |f| {
        fs::remove_file(f).unwrap();
        symlink(&target, f).unwrap();
    });
    assert_eq!(
        fs::read_to_string(&target).unwrap(),
        "mine",
        "what the link led to is not touched"
    );
    assert_eq!(mode(&target), 0o600);
    check(&dev, &file, "replaced by another file", |f| {
        fs::write(f.with_extension("x"), "other").unwrap();
        fs::rename(f.with_extension("x"), f).unwrap();
    });
    let status = world.until("all is well", |s| s["owners"][0]["state"] == "converged");
    assert_eq!(status["revision"], 1, "nothing was recorded for it");
    assert_eq!(dev.stop().code, Some(0));
}

#[test]
fn a_managed_folder_comes_back_with_what_was_in_it() {
    let world = World::quickstart("folder");
    world.edit("base.yaml", &world.managed(""), &world.managed("deep/"));
    world.edit(
        "base.yaml",
        &format!("{}:", world.managed("").trim_end_matches('/')),
        &format!("{}:", world.managed("deep")),
    );
    let dev = world.dev(&[]).ready();
    let folder = world.path("managed/deep");
    let mark = dev.mark();
    // In one step: while it was emptied file by file, the first ones would be back already.
    fs::rename(&folder, world.path("aside")).unwrap();
    eventually("folder and files are back", SOON, || {
        let whole =
            mode_of(&folder) == Some(0o755) && mode_of(&folder.join("app.toml")) == Some(0o640);
        (whole && folder.join("motd").is_file()).then_some(())
    });
    dev.expect(mark, "drift corrected", SOON);
    assert_eq!(dev.stop().code, Some(0));
}

fn mode_of(path: &Path) -> Option<u32> {
    fs::symlink_metadata(path)
        .ok()
        .map(|m| m.permissions().mode() & 0o7777)
}

#[test]
fn drift_that_is_only_to_be_reported_is_left_and_shown() {
    let world = World::quickstart("report");
    world.edit("base.yaml", "machines: all", "machines: all\ndrift: report");
    let dev = world.dev(&[]).ready();
    let file = world.path("managed/motd");
    let mark = dev.mark();
    fs::write(&file, "other").unwrap();
    let line = dev.expect(mark, "drift seen and left", SOON);
    assert!(
        line.contains("base/file") && line.contains("motd"),
        "{line}"
    );
    let status = world.until("degraded", |s| s["owners"][0]["state"] == "degraded");
    assert!(
        status["owners"][0]["message"]
            .as_str()
            .unwrap()
            .contains("left, as the blueprint says")
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "other");
    let plan = world.run(&["plan"]).good();
    assert!(plan.contains("Drift: not part of this plan"), "{plan}");
    assert_eq!(dev.stop().code, Some(0));
}
