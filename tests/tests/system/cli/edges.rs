//! Where the command line meets what is no ordinary file, disk or reader.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use plumb_tests::world::World;
use rustix::mount::MountFlags;

/// Mutation: leave the printing of help to clap.
#[test]
fn help_that_cannot_be_written_is_an_error_and_a_reader_that_left_is_none() {
    let world = World::new("help");
    for arguments in [&["--help"][..], &["--version"], &["plan", "--help"]] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let mut command = world.command();
        let said = command.args(arguments).stdout(full).output().unwrap();
        let err = String::from_utf8(said.stderr).unwrap();
        assert_eq!(said.status.code(), Some(1), "{arguments:?}");
        assert_eq!(
            err,
            "error: cannot write the output: No space left on device\n"
        );

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = world.command();
        let said = command.args(arguments).stdout(writer).output().unwrap();
        assert_eq!(said.status.code(), Some(0), "{arguments:?}");
        assert!(said.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_pipe_is_no_snapshot_and_no_source_and_holds_nothing_up() {
    let world = World::new("pipes");
    for pipe in ["repo/pipe", "repo/app/pipe"] {
        fs::create_dir_all(world.path(pipe).parent().unwrap()).unwrap();
        let made = Command::new("mkfifo").arg(world.path(pipe)).status();
        assert!(made.unwrap().success());
    }
    let said = world.run(&["plan", "--snapshot", "pipe"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("pipe: it is no regular file"),
        "{}",
        said.err
    );

    world.write(
        "both.yaml",
        "kind: App\nname: hello\nmachines: local\nsource: { path: app }\nrun: ./hello\n---\nkind: Setup\nname: base\n\
         machines: local\nfiles:\n  /etc/motd: { source: pipe }\n  /etc/gone: { source: pip }\n",
    );
    let said = world.run(&["validate"]);
    assert_eq!(said.code, Some(1));
    for place in [
        "both.yaml:4:1",
        "both.yaml:11:3",
        "both.yaml:12:3",
        "did you mean `pipe`?",
    ] {
        assert!(said.err.contains(place), "{place} in {}", said.err);
    }
    assert_eq!(said.err.matches("error[P0413]").count(), 3, "{}", said.err);
}

/// Mutation: end with 0 as soon as nobody reads.
#[test]
fn a_reader_that_left_changes_neither_what_is_done_nor_the_exit_code() {
    let world = World::new("left");
    let unread = |arguments: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = world.command();
        let command = command.current_dir(world.path("repo")).args(arguments);
        let said = command.stdout(writer).output().unwrap();
        (said.status.code(), String::from_utf8(said.stderr).unwrap())
    };
    world.write(
        "hello.yaml",
        "kind:   App\nname: hello\nmachines: local\nrun: sleep 1\n",
    );
    assert_eq!(unread(&["fmt", "--check"]).0, Some(1));
    assert_eq!(unread(&["fmt"]), (Some(0), String::new()));
    assert_eq!(unread(&["fmt", "--check"]), (Some(0), String::new()));
    world.write(
        "hello.yaml",
        "kind: App\nnmae: hello\nmachines: local\nrun: sleep 1\n",
    );
    for format in ["json", "sarif", "junit", "github", "gitlab"] {
        assert_eq!(
            unread(&["validate", "--format", format]).0,
            Some(1),
            "{format}"
        );
    }
}

#[test]
fn what_goes_back_or_goes_altogether_takes_no_choice_of_blueprints() {
    let world = World::new("choices");
    for arguments in [
        &["plan", "--destroy", "--target", "hello"][..],
        &["plan", ".", "--destroy"],
        &["plan", "--destroy", "--env", "staging"],
        &["plan", "--rollback", "hello@1", "--target", "hello"],
        &["plan", ".", "--rollback", "hello"],
    ] {
        let said = world.run(arguments);
        assert_eq!(said.code, Some(1), "{arguments:?}: {}", said.err);
        assert!(said.err.contains("cannot be used with"), "{}", said.err);
    }
}

#[test]
fn a_misspelt_key_is_told_of_once_and_a_file_that_nobody_reads_is_named() {
    let world = World::new("told");
    world.write(
        "hello.yaml",
        "kind: App\nnmae: hello\nmachines: local\nrun: sleep 1\n",
    );
    let said = world.run(&["validate"]);
    assert_eq!(said.err.matches("error[").count(), 1, "{}", said.err);
    world.write(
        "hello.yaml",
        "kind : App\nname: hello\nmachines: local\nrun: sleep 1\n",
    );
    let said = world.run(&["validate"]).good();
    assert!(said.contains("1 app"), "{said}");
    world.write("hello.json", "{}");
    let said = world.run(&["validate", "hello.json"]).good();
    assert!(
        said.contains("Not read") && said.contains("hello.json"),
        "{said}"
    );
}

#[test]
fn a_full_temporary_folder_is_named_with_what_to_do() {
    let world = World::new("scratch");
    let small = world.mount("small", c"size=64k,mode=0777", MountFlags::empty());
    world.write("app/big", &"0123456789abcdef".repeat(64 * 1024));
    world.write(
        "hello.yaml",
        "kind: App\nname: hello\nmachines: local\nsource: { path: app }\nrun: ./hello\n",
    );
    let mut command = world.command();
    let said = world.run_command(command.arg("validate").env("TMPDIR", &small));
    assert_eq!(said.code, Some(1));
    let named = format!(
        "to the temporary folder {}; free space there",
        small.display()
    );
    assert!(
        said.err.contains(&named) && said.err.contains("TMPDIR"),
        "{}",
        said.err
    );
    assert!(said.err.contains("No space left on device"), "{}", said.err);
}

#[test]
fn a_symbolic_link_is_no_blueprint_to_any_command_and_that_is_said() {
    let world = World::new("links");
    let outside = world.path("outside.yaml");
    let crooked = "kind:   App\nname: a\nmachines: local\nrun: sleep 1\n";
    fs::write(&outside, crooked).unwrap();
    symlink(&outside, world.path("repo/link.yaml")).unwrap();
    let said = world.run(&["validate"]).good();
    assert!(said.contains("0 apps"), "{said}");
    assert!(
        said.contains("Passed over, since symbolic links are not followed: link.yaml"),
        "{said}"
    );
    let _ = world.run(&["fmt"]).good();
    let said = world.run(&["fmt", "link.yaml"]);
    assert_eq!(said.code, Some(1));
    let named = format!("format {} itself", outside.display());
    assert!(said.err.contains(&named), "{}", said.err);
    assert_eq!(fs::read_to_string(&outside).unwrap(), crooked);
}
