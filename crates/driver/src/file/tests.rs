//! Tests of the file and directory drivers, among them those of threats 27 and 36.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plumb_model::{
    Action, Address, Depth, DirectorySpec, Fault, FileContent, FileSpec, Hash, Lineage, Mode,
    Observation, ResourceSpec, WorkspaceName, condition::Reason,
};

use super::{DirectoryDriver, FileDriver};
use crate::blobs::Blobs;
use crate::host::{Host, RunAs};
use crate::{Driver, Target};

mod adopt;

/// A machine of its own for each test: a data folder and a root for managed files.
struct Machine {
    host: Host,
    files: FileDriver,
    directories: DirectoryDriver,
    root: PathBuf,
    _folder: tempfile::TempDir,
}

type Answer = Result<Observation, Fault>;

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("root");
        let data = root.with_file_name("data");
        fs::create_dir(&root).unwrap();
        fs::create_dir(&data).unwrap();
        let host = Host {
            data,
            lineage: Lineage::from_random([1; 16]),
            workspace: WorkspaceName::new("test").unwrap(),
            run_as: RunAs::Agent,
            shim: Vec::new(),
            secrets: crate::secrets::Secrets::default(),
        };
        Self {
            files: FileDriver::new(&host),
            directories: DirectoryDriver::new(&host),
            host,
            root,
            _folder: folder,
        }
    }

    /// A new agent on the same machine.
    fn restart(&mut self) {
        self.files = FileDriver::new(&self.host);
        self.directories = DirectoryDriver::new(&self.host);
    }

    fn path(&self, name: &str) -> String {
        self.root.join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, text: &str) -> FileSpec {
        FileSpec {
            notify: Default::default(),
            path: self.path(name),
            content: FileContent::Text(text.into()),
            mode: Mode(0o644),
            owner: None,
            group: None,
        }
    }

    fn directory(&self, name: &str, mode: u32) -> DirectorySpec {
        DirectorySpec {
            path: self.path(name),
            mode: Mode(mode),
            owner: None,
            group: None,
        }
    }

    fn write(&mut self, spec: &FileSpec) -> Answer {
        act(&mut self.files, &file_of(spec), Action::Write)
    }

    fn make(&mut self, spec: &DirectorySpec) -> Answer {
        act(&mut self.directories, &directory_of(spec), Action::Write)
    }

    fn see(&mut self, spec: &FileSpec, depth: Depth) -> Answer {
        let (address, spec) = file_of(spec);
        observe(&mut self.files, &address, Some(&spec), depth)
    }

    fn see_directory(&mut self, spec: &DirectorySpec) -> Answer {
        let (address, spec) = directory_of(spec);
        observe(&mut self.directories, &address, Some(&spec), Depth::Quick)
    }

    /// The names of everything in a folder of the root.
    fn names(&self, folder: &str) -> Vec<String> {
        names(&self.root.join(folder))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn address(kind: &str, path: &str) -> Address {
    format!("m/base/{kind}/{path}").parse().unwrap()
}

fn file_of(spec: &FileSpec) -> (Address, ResourceSpec) {
    (
        address("file", &spec.path),
        ResourceSpec::File(spec.clone()),
    )
}

fn directory_of(spec: &DirectorySpec) -> (Address, ResourceSpec) {
    let address = address("directory", &spec.path);
    (address, ResourceSpec::Directory(spec.clone()))
}

fn target<'a>(address: &'a Address, spec: Option<&'a ResourceSpec>) -> Target<'a> {
    Target {
        address,
        spec,
        release: None,
    }
}

fn act(
    driver: &mut dyn Driver,
    (address, spec): &(Address, ResourceSpec),
    action: Action,
) -> Answer {
    let work = [(target(address, Some(spec)), action)];
    driver.act(&work).pop().unwrap()
}

fn remove(driver: &mut dyn Driver, address: &Address) -> Answer {
    let work = [(target(address, None), Action::Remove)];
    driver.act(&work).pop().unwrap()
}

fn observe(
    driver: &mut dyn Driver,
    address: &Address,
    spec: Option<&ResourceSpec>,
    depth: Depth,
) -> Answer {
    driver
        .observe(&[target(address, spec)], depth)
        .pop()
        .unwrap()
}

fn right() -> Answer {
    Ok(Observation::Present { differs: vec![] })
}

/// The fields that differ, or a panic with what was seen instead.
fn fields(answer: Answer) -> Vec<String> {
    match answer {
        Ok(Observation::Present { differs }) => differs.into_iter().map(|d| d.field).collect(),
        other => panic!("expected a difference, saw {other:?}"),
    }
}

fn mode_of(path: &str) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn must_be_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test mounts file systems and changes owners: run it as root"
    );
}

#[test]
fn a_file_is_written_as_its_spec_says_whatever_the_umask() {
    let mut machine = Machine::new();
    // The umask is the process's, and other tests run in it: each mode below has bits that no usual umask lets through.
    for mode in [0o666, 0o777, 0o600, 0o4755, 0o1777, 0o400] {
        let mut spec = machine.file("f", "text");
        spec.mode = Mode(mode);
        assert_eq!(machine.write(&spec), right());
        assert_eq!(mode_of(&spec.path), mode);
        assert_eq!(fs::read(&spec.path).unwrap(), b"text");
        assert_eq!(machine.see(&spec, Depth::Full), right());
    }
    let spec = machine.directory("d", 0o2777);
    assert_eq!(machine.make(&spec), right());
    assert_eq!(mode_of(&spec.path), 0o2777);
    assert_eq!(machine.names(""), ["d", "f"]);
}

#[test]
fn binary_content_comes_from_a_blob_and_a_missing_or_damaged_blob_is_said() {
    let mut machine = Machine::new();
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let blobs = Blobs::new(&machine.host.data);
    let spec = FileSpec {
        content: FileContent::Blob {
            digest: Hash::of(&bytes),
            size: bytes.len() as u64,
        },
        ..machine.file("binary", "")
    };
    let fault = machine.write(&spec).unwrap_err();
    assert_eq!(fault.reason, Reason::ContentMissing, "{fault}");
    let digest = blobs.put(&bytes).unwrap();
    assert_eq!(machine.write(&spec), right());
    assert_eq!(fs::read(&spec.path).unwrap(), bytes);

    fs::write(blobs.path(digest), b"bit rot").unwrap();
    fs::remove_file(&spec.path).unwrap();
    let fault = machine.write(&spec).unwrap_err();
    assert_eq!(fault.reason, Reason::BadContent, "{fault}");
    assert!(!blobs.has(digest), "it is fetched again");
    assert_eq!(machine.names(""), [""; 0]);
}

#[test]
fn every_drift_is_seen_and_put_right() {
    let mut machine = Machine::new();
    let spec = machine.file("f", "right");
    let path = spec.path.clone();
    let outside = machine.host.data.join("outside");
    fs::write(&outside, "precious").unwrap();
    type Drift<'a> = (&'a str, &'a dyn Fn());
    let drifts: [Drift<'_>; 8] = [
        ("", &|| fs::remove_file(&path).unwrap()),
        ("content", &|| fs::write(&path, "wrong").unwrap()),
        ("content", &|| {
            fs::write(&path, "longer than it was").unwrap()
        }),
        ("mode", &|| {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("type", &|| {
            fs::remove_file(&path).unwrap();
            symlink(&outside, &path).unwrap();
        }),
        ("type", &|| {
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }),
        ("type", &|| {
            fs::remove_file(&path).unwrap();
            let mode = rustix::fs::Mode::RUSR;
            rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
            assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
        }),
        // Another name for the same inode: it must not be changed through this one.
        ("mode", &|| {
            fs::hard_link(&path, outside.with_file_name("other-name")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }),
    ];
    assert_eq!(machine.write(&spec), right());
    for depth in [Depth::Quick, Depth::Full] {
        for (at, (field, drift)) in drifts.iter().enumerate() {
            let _ = fs::remove_file(outside.with_file_name("other-name"));
            drift();
            let seen = machine.see(&spec, depth);
            match *field {
                "" => assert_eq!(seen, Ok(Observation::Absent)),
                field => assert_eq!(fields(seen), [field], "drift {at}"),
            }
            assert_eq!(machine.write(&spec), right(), "drift {at}");
            assert_eq!(fs::read(&path).unwrap(), b"right", "drift {at}");
            assert_eq!(mode_of(&path), 0o644, "drift {at}");
            assert_eq!(machine.see(&spec, depth), right(), "drift {at}");
        }
        assert_eq!(
            mode_of(outside.with_file_name("other-name").to_str().unwrap()),
            0o600
        );
    }
    assert_eq!(fs::read(&outside).unwrap(), b"precious");
    assert_eq!(machine.names(""), ["f"]);
}

#[test]
fn a_directory_with_something_in_it_is_never_removed_to_make_room() {
    let mut machine = Machine::new();
    let spec = machine.file("f", "right");
    machine.write(&spec).unwrap();
    fs::remove_file(&spec.path).unwrap();
    fs::create_dir(&spec.path).unwrap();
    fs::write(machine.root.join("f/kept"), "kept").unwrap();
    let fault = machine.write(&spec).unwrap_err();
    assert_eq!(fault.reason, Reason::BadPath, "{fault}");
    assert_eq!(machine.names("f"), ["kept"]);
    assert_eq!(machine.names(""), ["f"]);
}

#[test]
fn when_only_the_mode_differs_the_inode_stays() {
    let mut machine = Machine::new();
    let spec = machine.file("f", "right");
    machine.write(&spec).unwrap();
    let inode = fs::metadata(&spec.path).unwrap().ino();
    fs::set_permissions(&spec.path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(machine.write(&spec), right());
    assert_eq!(fs::metadata(&spec.path).unwrap().ino(), inode);
    assert_eq!(mode_of(&spec.path), 0o644);
}

/// On kernels whose ctime ticks (before Linux 6.13) this needs the rule of `look::RACY`, which has a test of its own.
#[test]
fn an_edit_of_equal_length_right_after_a_look_is_seen() {
    let mut machine = Machine::new();
    let spec = machine.file("f", "right");
    machine.write(&spec).unwrap();
    for _ in 0..200 {
        assert_eq!(machine.see(&spec, Depth::Quick), right());
        fs::write(&spec.path, "wrong").unwrap();
        assert_eq!(fields(machine.see(&spec, Depth::Quick)), ["content"]);
        fs::write(&spec.path, "right").unwrap();
    }
}

#[test]
fn what_plumb_does_not_own_is_taken_over_if_equal_and_left_alone_if_not() {
    let mut machine = Machine::new();
    let spec = machine.file("f", "text");
    fs::write(&spec.path, "their own").unwrap();
    fs::set_permissions(&spec.path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        machine.see(&spec, Depth::Quick),
        Ok(Observation::Foreign { .. })
    ));
    let fault = machine.write(&spec).unwrap_err();
    assert_eq!(fault.reason, Reason::NotOurs);
    assert!(fault.message.contains("mv "), "{fault}");
    assert_eq!(fs::read(&spec.path).unwrap(), b"their own");
    let (address, _) = file_of(&spec);
    assert_eq!(
        remove(&mut machine.files, &address),
        Ok(Observation::Absent)
    );
    assert_eq!(fs::read(&spec.path).unwrap(), b"their own");

    fs::write(&spec.path, "text").unwrap();
    assert_eq!(machine.see(&spec, Depth::Quick), right());
    machine.restart();
    fs::write(&spec.path, "drifted").unwrap();
    assert_eq!(fields(machine.see(&spec, Depth::Quick)), ["content"]);
    assert_eq!(machine.write(&spec), right());
    let gone = remove(&mut machine.files, &address);
    assert!(matches!(gone, Ok(Observation::Gone { .. })), "{gone:?}");
    assert_eq!(machine.names(""), [""; 0]);
}

#[test]
fn a_removed_file_is_forgotten_and_a_later_stranger_is_not_taken_for_it() {
    let mut machine = Machine::new();
    let spec = machine.file("f", "text");
    machine.write(&spec).unwrap();
    let (address, _) = file_of(&spec);
    assert_eq!(
        observe(&mut machine.files, &address, None, Depth::Quick),
        right()
    );
    fs::remove_file(&spec.path).unwrap();
    assert_eq!(
        observe(&mut machine.files, &address, None, Depth::Quick),
        Ok(Observation::Absent)
    );
    machine.restart();
    fs::write(&spec.path, "a stranger's").unwrap();
    assert_eq!(
        remove(&mut machine.files, &address),
        Ok(Observation::Absent)
    );
    assert_eq!(fs::read(&spec.path).unwrap(), b"a stranger's");
}

#[test]
fn a_path_that_moves_to_another_owner_survives_the_tombstone_of_the_first() {
    let mut machine = Machine::new();
    let spec = machine.file("f", "text");
    machine.write(&spec).unwrap();
    let (old, resource) = file_of(&spec);
    let new: Address = format!("m/other/file/{}", spec.path).parse().unwrap();
    assert_eq!(
        observe(&mut machine.files, &new, Some(&resource), Depth::Quick),
        right()
    );
    assert_eq!(remove(&mut machine.files, &old), Ok(Observation::Absent));
    assert_eq!(fs::read(&spec.path).unwrap(), b"text");
    assert_eq!(remove(&mut machine.files, &new), Ok(Observation::Absent));
    assert_eq!(machine.names(""), [""; 0]);
}

#[test]
fn a_directory_goes_only_if_plumb_made_it_and_it_is_empty() {
    let mut machine = Machine::new();
    let (made, found, used) = (
        machine.directory("made", 0o755),
        machine.directory("found", 0o700),
        machine.directory("used", 0o755),
    );
    fs::create_dir(&found.path).unwrap();
    fs::set_permissions(&found.path, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(
        machine.see_directory(&found),
        Ok(Observation::Foreign { .. })
    ));
    let refused = machine.make(&found).unwrap_err();
    assert_eq!(refused.reason, Reason::NotOurs);
    assert_eq!(mode_of(&found.path), 0o755);
    let adopted = act(
        &mut machine.directories,
        &directory_of(&found),
        Action::Adopt,
    );
    assert_eq!(adopted, right());
    for spec in [&made, &found, &used] {
        assert_eq!(machine.make(spec), right());
        assert_eq!(machine.see_directory(spec), right());
    }
    assert_eq!(mode_of(&found.path), 0o700);
    fs::write(machine.root.join("used/theirs"), "").unwrap();
    for spec in [&made, &found, &used] {
        let (address, _) = directory_of(spec);
        let gone = remove(&mut machine.directories, &address);
        let expected = match spec {
            _ if spec == &made => Observation::Absent,
            _ if spec == &found => note("let go: it was there before Plumb, and stays"),
            _ => note("let go: it holds files that are not Plumb's"),
        };
        assert_eq!(gone, Ok(expected));
        let left = observe(&mut machine.directories, &address, None, Depth::Full);
        assert_eq!(left, Ok(Observation::Absent));
    }
    assert_eq!(machine.names(""), ["found", "used"]);
    assert_eq!(machine.names("used"), ["theirs"]);
}

fn note(text: &str) -> Observation {
    Observation::Gone {
        note: text.to_owned(),
    }
}

/// Mutation: open the folder before the ledger is asked.
#[test]
fn what_was_never_made_is_gone_at_once_whatever_stands_in_its_way() {
    let mut machine = Machine::new();
    let real = machine.root.join("real");
    fs::create_dir(&real).unwrap();
    symlink(&real, machine.root.join("link")).unwrap();
    let spec = machine.file("link/f", "text");
    let (address, _) = file_of(&spec);
    let fault = machine.write(&spec).unwrap_err();
    assert_eq!(fault.reason, Reason::SymlinkInPath);
    for restarted in [false, true] {
        if restarted {
            machine.restart();
        }
        let seen = observe(&mut machine.files, &address, None, Depth::Full);
        assert_eq!(seen, Ok(Observation::Absent));
        let gone = remove(&mut machine.files, &address);
        assert_eq!(gone, Ok(Observation::Absent));
    }
    // What Plumb did make stays a trouble until the link is gone, and the words speak of a removal.
    let made = machine.file("d/f", "text");
    machine.make(&machine.directory("d", 0o755)).unwrap();
    assert_eq!(machine.write(&made), right());
    fs::rename(machine.root.join("d"), machine.root.join("e")).unwrap();
    symlink(machine.root.join("e"), machine.root.join("d")).unwrap();
    let (address, _) = file_of(&made);
    let fault = observe(&mut machine.files, &address, None, Depth::Full).unwrap_err();
    assert_eq!(fault.reason, Reason::SymlinkInPath);
    assert!(fault.message.contains("put the directory back"), "{fault}");
    assert_eq!(remove(&mut machine.files, &address), Err(fault));
}

#[test]
fn nested_directories_of_one_batch_are_made_and_removed_in_order() {
    let mut machine = Machine::new();
    let specs: Vec<_> = ["a/b/c", "a", "a/b"]
        .iter()
        .map(|name| directory_of(&machine.directory(name, 0o755)))
        .collect();
    let work: Vec<_> = specs
        .iter()
        .map(|(a, s)| (target(a, Some(s)), Action::Write))
        .collect();
    assert_eq!(machine.directories.act(&work), [right(), right(), right()]);
    assert!(machine.root.join("a/b/c").is_dir());
    let work: Vec<_> = specs
        .iter()
        .map(|(a, _)| (target(a, None), Action::Remove))
        .collect();
    machine.directories.act(&work);
    assert_eq!(machine.names(""), [""; 0]);
}

#[test]
fn a_directory_replaced_by_a_link_is_put_back_without_touching_where_it_leads() {
    let mut machine = Machine::new();
    let spec = machine.directory("d", 0o755);
    machine.make(&spec).unwrap();
    let outside = machine.host.data.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_dir(&spec.path).unwrap();
    symlink(&outside, &spec.path).unwrap();
    assert_eq!(fields(machine.see_directory(&spec)), ["type"]);
    assert_eq!(machine.make(&spec), right());
    assert!(fs::symlink_metadata(&spec.path).unwrap().is_dir());
    assert_eq!(mode_of(outside.to_str().unwrap()), 0o700);
}

#[test]
fn owners_are_set_by_name_and_number_and_unknown_ones_are_named() {
    must_be_root();
    let mut machine = Machine::new();
    let mut spec = machine.file("f", "text");
    spec.owner = Some("4711".into());
    spec.group = Some("4712".into());
    spec.mode = Mode(0o4755);
    assert_eq!(machine.write(&spec), right());
    let meta = fs::metadata(&spec.path).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (4711, 4712));
    assert_eq!(
        mode_of(&spec.path),
        0o4755,
        "chown clears the set-user-ID bit"
    );
    std::os::unix::fs::chown(&spec.path, Some(0), Some(0)).unwrap();
    assert_eq!(
        fields(machine.see(&spec, Depth::Quick)),
        ["mode", "owner", "group"]
    );
    assert_eq!(machine.write(&spec), right());
    assert_eq!(mode_of(&spec.path), 0o4755);

    spec.owner = Some("no-such-user".into());
    let fault = machine.write(&spec).unwrap_err();
    assert_eq!(fault.reason, Reason::UnknownUser);
    assert!(fault.message.contains("no-such-user"), "{fault}");
}

#[test]
fn bad_paths_are_explained_and_fail_nobody_else() {
    let mut machine = Machine::new();
    fs::write(machine.root.join("plain"), "").unwrap();
    fs::create_dir(machine.root.join("real")).unwrap();
    symlink("real", machine.root.join("link")).unwrap();
    let specs = [
        machine.file("missing/dir/f", "x"),
        machine.file("plain/f", "x"),
        machine.file("link/f", "x"),
        machine.file("good", "x"),
        machine.file("a/../f", "x"),
        FileSpec {
            path: "/".into(),
            ..machine.file("", "x")
        },
    ];
    let all: Vec<_> = specs.iter().map(file_of).collect();
    let work: Vec<_> = all
        .iter()
        .map(|(a, s)| (target(a, Some(s)), Action::Write))
        .collect();
    let answers = machine.files.act(&work);
    let expected = [
        (Reason::BadPath, machine.path("missing") + " does not exist"),
        (
            Reason::BadPath,
            machine.path("plain") + " is a regular file",
        ),
        (Reason::SymlinkInPath, machine.path("real/f")),
        (Reason::AsDesired, String::new()),
        (Reason::BadPath, "..".into()),
        (Reason::BadPath, "root directory".into()),
    ];
    for (answer, (reason, words)) in answers.iter().zip(expected) {
        match answer {
            Ok(seen) => {
                assert_eq!(reason, Reason::AsDesired, "{seen:?}");
            }
            Err(fault) => {
                assert_eq!(fault.reason, reason, "{fault}");
                assert!(fault.message.contains(&words), "{fault} / {words}");
            }
        }
    }
    assert!(
        answers[2]
            .as_ref()
            .unwrap_err()
            .message
            .contains(&machine.path("link"))
    );
    assert_eq!(machine.names(""), ["good", "link", "plain", "real"]);
    assert_eq!(machine.names("real"), [""; 0]);
}

#[test]
fn the_temporary_of_a_crash_is_removed_and_those_of_others_are_not() {
    let mut machine = Machine::new();
    let spec = machine.file("f", "text");
    machine.write(&spec).unwrap();
    let name = machine
        .files
        .0
        .owned
        .as_ref()
        .unwrap()
        .temporary(&spec.path);
    fs::write(machine.root.join(&name), "half").unwrap();
    fs::write(machine.root.join(".plumb-somebody"), "").unwrap();
    machine.restart();
    assert_eq!(machine.see(&spec, Depth::Quick), right());
    assert_eq!(machine.names(""), [".plumb-somebody", "f"]);

    fs::write(machine.root.join(&name), "half").unwrap();
    fs::remove_file(&spec.path).unwrap();
    assert_eq!(machine.write(&spec), right());
    assert_eq!(machine.names(""), [".plumb-somebody", "f"]);
}

#[test]
fn a_thousand_files_in_more_folders_than_may_be_open_are_written() {
    let mut machine = Machine::new();
    let mut specs = Vec::new();
    for folder in 0..300 {
        fs::create_dir(machine.root.join(folder.to_string())).unwrap();
        for file in 0..4 {
            specs.push(file_of(&machine.file(&format!("{folder}/{file}"), "text")));
        }
    }
    let work: Vec<_> = specs
        .iter()
        .map(|(a, s)| (target(a, Some(s)), Action::Write))
        .collect();
    assert!(machine.files.act(&work).iter().all(|a| *a == right()));
    let targets: Vec<_> = specs.iter().map(|(a, s)| target(a, Some(s))).collect();
    let seen = machine.files.observe(&targets, Depth::Full);
    assert!(seen.iter().all(|a| *a == right()));
}

/// Threat 27. Mutation: open the parent without `RESOLVE_NO_SYMLINKS`, or write by path instead of by handle.
#[test]
fn threat_27_a_parent_swapped_for_a_link_in_a_loop_lets_nothing_out() {
    let mut machine = Machine::new();
    let outside = machine.host.data.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "precious").unwrap();
    fs::set_permissions(outside.join("f"), fs::Permissions::from_mode(0o640)).unwrap();
    let inode = fs::metadata(outside.join("f")).unwrap().ino();
    let parent = machine.root.join("parent");
    fs::create_dir(&parent).unwrap();
    let (aside, link) = (machine.root.join("aside"), machine.root.join("link"));
    let stop = AtomicBool::new(false);
    let (mut written, mut refused) = (0u32, 0u32);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0u32.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                fs::rename(&parent, &aside).unwrap();
                symlink(&outside, &link).unwrap();
                fs::rename(&link, &parent).unwrap();
                std::thread::park_timeout(Duration::from_micros(u64::from(turn % 7) * 50));
                fs::remove_file(&parent).unwrap();
                fs::rename(&aside, &parent).unwrap();
                // The leaf too, every other time.
                let _ = fs::remove_file(parent.join("f"));
                if turn.is_multiple_of(2) {
                    let _ = symlink(outside.join("f"), parent.join("f"));
                }
                std::thread::park_timeout(Duration::from_micros(u64::from(turn % 11) * 100));
            }
        });
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut round = 0u32;
        while (written < 50 || refused < 50) && Instant::now() < deadline {
            round += 1;
            let mut spec = machine.file("parent/f", &format!("text {}", round / 2));
            spec.mode = Mode(if round.is_multiple_of(2) {
                0o644
            } else {
                0o666
            });
            match machine.write(&spec) {
                Ok(_) => written += 1,
                Err(_) => refused += 1,
            }
            if round.is_multiple_of(7) {
                let (address, _) = file_of(&spec);
                let _ = remove(&mut machine.files, &address);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(
        written >= 50 && refused >= 50,
        "{written} written, {refused} refused"
    );
    assert_eq!(names(&outside), ["f"]);
    let after = fs::metadata(outside.join("f")).unwrap();
    assert_eq!(fs::read(outside.join("f")).unwrap(), b"precious");
    assert_eq!((after.ino(), after.mode() & 0o777), (inode, 0o640));
}

/// Threat 27, without chance. Mutation: drop `RESOLVE_NO_SYMLINKS`.
#[test]
fn threat_27_a_link_among_the_parents_is_refused_for_every_operation() {
    let mut machine = Machine::new();
    let outside = machine.host.data.join("outside");
    let spec = machine.file("parent/sub/f", "text");
    fs::create_dir_all(machine.root.join("parent/sub")).unwrap();
    machine.write(&spec).unwrap();
    fs::rename(machine.root.join("parent"), &outside).unwrap();
    symlink(&outside, machine.root.join("parent")).unwrap();
    let (address, resource) = file_of(&spec);
    for answer in [
        machine.write(&spec),
        machine.see(&spec, Depth::Full),
        remove(&mut machine.files, &address),
        observe(&mut machine.files, &address, Some(&resource), Depth::Quick),
    ] {
        let fault = answer.unwrap_err();
        assert_eq!(fault.reason, Reason::SymlinkInPath);
        let instead = outside.join("sub/f");
        assert!(fault.message.contains(&machine.path("parent")), "{fault}");
        let remedies = [instead.to_str().unwrap(), "put the directory back"];
        let remedy = remedies.iter().any(|words| fault.message.contains(words));
        assert!(remedy, "{fault}");
    }
    assert_eq!(names(&outside.join("sub")), ["f"]);
}

/// A file system of its own, unmounted whatever happens.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn new(
        path: PathBuf,
        options: &std::ffi::CStr,
        flags: rustix::mount::MountFlags,
    ) -> Self {
        must_be_root();
        fs::create_dir(&path).unwrap();
        rustix::mount::mount("plumb-test", &path, "tmpfs", flags, options).unwrap();
        Self(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Threat 36. Mutations: leave the temporary after a failed write; let one failure end the batch; keep the claim.
#[test]
fn threat_36_a_full_disk_is_said_leaves_nothing_behind_and_fails_nobody_else() {
    must_be_root();
    let mut machine = Machine::new();
    let small = machine.root.join("small");
    let _mounted = Mounted::new(
        small,
        c"size=64k,mode=0755",
        rustix::mount::MountFlags::empty(),
    );
    let bytes = vec![7; 1 << 20];
    let blob = Blobs::new(&machine.host.data).put(&bytes).unwrap();
    let big = FileSpec {
        content: FileContent::Blob {
            digest: blob,
            size: bytes.len() as u64,
        },
        ..machine.file("small/big", "")
    };
    let kept = machine.file("small/kept", "old");
    assert_eq!(machine.write(&kept), right());
    let replaced = FileSpec {
        content: big.content.clone(),
        ..kept.clone()
    };
    let specs = [
        file_of(&big),
        file_of(&replaced),
        file_of(&machine.file("good", "x")),
        file_of(&machine.file("small/fits", "x")),
    ];
    let work: Vec<_> = specs
        .iter()
        .map(|(a, s)| (target(a, Some(s)), Action::Write))
        .collect();
    let answers = machine.files.act(&work);
    for (answer, (address, _)) in answers.iter().zip(&specs).take(2) {
        let fault = answer.as_ref().unwrap_err();
        assert_eq!(fault.reason, Reason::DiskFull, "{fault}");
        assert!(fault.message.contains(&*address.name), "{fault}");
        assert!(fault.message.contains("no space"), "{fault}");
    }
    assert_eq!(answers[2..], [right(), right()]);
    assert_eq!(machine.names("small"), ["fits", "kept"]);
    assert_eq!(fs::read(&kept.path).unwrap(), b"old");
    // What was never made was never Plumb's.
    fs::write(&big.path, "a stranger's").unwrap();
    assert!(matches!(
        machine.see(&big, Depth::Quick),
        Ok(Observation::Foreign { .. })
    ));
}

#[test]
fn a_read_only_file_system_is_said() {
    must_be_root();
    let mut machine = Machine::new();
    let path = machine.root.join("ro");
    let _mounted = Mounted::new(path, c"size=64k", rustix::mount::MountFlags::RDONLY);
    let fault = machine.write(&machine.file("ro/f", "x")).unwrap_err();
    assert_eq!(fault.reason, Reason::ReadOnly, "{fault}");
    let fault = machine.make(&machine.directory("ro/d", 0o755)).unwrap_err();
    assert_eq!(fault.reason, Reason::ReadOnly, "{fault}");
}

#[test]
fn a_ledger_that_cannot_be_opened_is_said_of_each_resource_and_heals() {
    let mut machine = Machine::new();
    let spec = machine.file("f", "x");
    fs::write(machine.host.data.join("owned"), "in the way").unwrap();
    let fault = machine.see(&spec, Depth::Quick).unwrap_err();
    assert!(fault.message.contains("owned"), "{fault}");
    assert!(machine.write(&spec).is_err());
    assert_eq!(machine.names(""), [""; 0]);
    fs::remove_file(machine.host.data.join("owned")).unwrap();
    assert_eq!(machine.write(&spec), right());
}
