//! What nobody waits for any more: a terminal or an output that is gone, and failures that come later.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use plumb_tests::running::STOP;
use plumb_tests::world::{PATIENCE, World, eventually};
use rustix::process::Signal;

/// Mutation: leave `hung_up` out of `run` in `commands/dev.rs`.
#[test]
fn a_closed_terminal_ends_dev_and_its_apps() {
    let world = World::quickstart("hangup");
    let dev = world.dev(&[]).ready();
    dev.signal(Signal::HUP);
    assert_eq!(dev.end(STOP).code, Some(0));
    assert_eq!(world.processes(), Vec::<u32>::new());
}

/// Mutation: leave `out::lost` out of `run` in `commands/dev.rs`.
#[test]
fn a_closed_output_ends_dev_and_its_apps() {
    let world = World::quickstart("unheard");
    let mut dev = world
        .command()
        .arg("dev")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(dev.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("In a second terminal")));
    drop(lines);
    world.edit("plumb.yaml", "true to the blueprint", "said to nobody");
    let status = eventually("it ends", STOP, || dev.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert_eq!(world.processes(), Vec::<u32>::new());
}

/// Mutation: see failures only after a save.
#[test]
fn what_fails_later_is_told_and_an_emptied_file_is_named() {
    let world = World::quickstart("later");
    world.write(
        "second.yaml",
        "kind: App\nname: second\nmachines: local\nrun: sleep 1000\n",
    );
    let dev = world.dev(&["--allow", "deletes"]).ready();
    let mark = dev.mark();
    let managed = world.managed("motd");
    fs::remove_file(&managed).unwrap();
    fs::create_dir(&managed).unwrap();
    fs::write(format!("{managed}/mine"), "not Plumb's to remove").unwrap();
    dev.expect(mark, "Not converged:", PATIENCE);
    dev.expect(mark, &format!("file/{managed}: "), PATIENCE);

    let mark = dev.mark();
    world.write("second.yaml", "");
    dev.expect(mark, "Passed over: second.yaml is empty.", PATIENCE);
    assert_eq!(dev.stop().code, Some(0));
}
