//! Tests of packing, unpacking and the artifact driver, among them those of threat 28.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use plumb_model::{
    Action, Address, ArtifactSpec, Depth, Fault, Hash, Lineage, Observation, ResourceSpec,
    WorkspaceName, condition::Reason,
};
use tar::{EntryType, Header};

use super::{ArtifactDriver, MAX_MEMBERS, PackError, folder, pack, pack_into};
use crate::blobs::Blobs;
use crate::file::tests::Mounted;
use crate::host::{Host, RunAs};
use crate::{Driver, Target};

type Answer = Result<Observation, Fault>;

fn host(data: &Path) -> Host {
    Host {
        data: data.to_owned(),
        lineage: Lineage::from_random([1; 16]),
        workspace: WorkspaceName::new("test").unwrap(),
        run_as: RunAs::Agent,
        shim: Vec::new(),
        secrets: crate::secrets::Secrets::default(),
    }
}

fn address(owner: &str) -> Address {
    format!("m/{owner}/artifact/source").parse().unwrap()
}

fn spec(digest: Hash, size: u64) -> ResourceSpec {
    ResourceSpec::Artifact(ArtifactSpec { digest, size })
}

fn observe(driver: &mut ArtifactDriver, spec: Option<&ResourceSpec>, depth: Depth) -> Answer {
    let target = Target {
        address: &address("app"),
        spec,
        release: None,
    };
    driver.observe(&[target], depth).pop().unwrap()
}

fn act(driver: &mut ArtifactDriver, owner: &str, spec: Option<&ResourceSpec>) -> Answer {
    let target = Target {
        address: &address(owner),
        spec,
        release: None,
    };
    let action = match spec {
        Some(_) => Action::Write,
        None => Action::Remove,
    };
    driver.act(&[(target, action)]).pop().unwrap()
}

fn right() -> Answer {
    Ok(Observation::Present { differs: vec![] })
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn bytes_of(root: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack_into(root, &mut bytes).unwrap();
    bytes
}

/// A small tree; `reversed` makes the same files in another order, with other times and modes that mean the same.
fn tree(root: &Path, reversed: bool) {
    let long = format!("{}/{}", "long-name-".repeat(9), "x".repeat(120));
    let mut files = vec![
        ("app.py", &b"print(1)\n"[..], 0o644, 0o600),
        ("bin/run", b"#!/bin/sh\n", 0o755, 0o711),
        ("bin-extra", b"", 0o644, 0o666),
        ("data/\u{fc}.bin", &[0, 159, 146, 150], 0o644, 0o640),
        (long.as_str(), b"deep", 0o644, 0o604),
    ];
    if reversed {
        files.reverse();
    }
    for (path, content, mode, other) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let mode = if reversed { other } else { mode };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        if reversed {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
            fs::File::options()
                .append(true)
                .open(&path)
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
    }
    fs::create_dir_all(root.join("empty")).unwrap();
    symlink("../app.py", root.join("bin/link")).unwrap();
    if reversed {
        fs::create_dir(root.join(".git")).unwrap();
        fs::write(root.join(".git/config"), "other").unwrap();
        fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn the_same_files_pack_to_the_same_bytes_whatever_their_times_order_and_modes() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree(one.path(), false);
    tree(two.path(), true);
    let bytes = bytes_of(one.path());
    assert_eq!(bytes, bytes_of(two.path()));
    let mut packed = pack(one.path()).unwrap();
    assert_eq!(packed.digest, Hash::of(&bytes));
    assert_eq!(packed.size, bytes.len() as u64);
    let mut read = Vec::new();
    packed.file.read_to_end(&mut read).unwrap();
    assert_eq!(read, bytes);
    fs::set_permissions(one.path().join("app.py"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(bytes, bytes_of(one.path()), "executable is content");
}

/// The digest of a fixed tree: if it moves, an upgrade of Plumb would replace every artifact of every fleet.
#[test]
fn the_format_does_not_move() {
    let root = tempfile::tempdir().unwrap();
    tree(root.path(), false);
    let digest = Hash::of(&bytes_of(root.path())).to_string();
    assert_eq!(
        digest,
        "b2e66821fed6cf0d7ee2e9da373bc8c2d069b58f4f07a505c96dca6ca1b00116"
    );
}

#[test]
fn a_single_file_is_packed_under_its_own_name() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("app.py");
    fs::write(&file, "print(1)").unwrap();
    let bytes = bytes_of(&file);
    let (mut driver, spec) = stored(data.path(), &bytes);
    assert_eq!(act(&mut driver, "app", Some(&spec)), right());
    assert_eq!(names(&folder(data.path(), Hash::of(&bytes))), ["app.py"]);
}

#[test]
fn what_may_not_be_packed_is_refused_by_name() {
    type Make = fn(&Path);
    let bad: [(&str, Make); 5] = [
        ("absolute", |at| symlink("/etc/passwd", at).unwrap()),
        ("escaping", |at| symlink("../secret", at).unwrap()),
        ("climbing", |at| symlink("a/../..", at).unwrap()),
        ("pipe", |at| {
            rustix::fs::mkfifoat(rustix::fs::CWD, at, rustix::fs::Mode::RUSR).unwrap();
        }),
        ("socket", |at| {
            std::os::unix::net::UnixListener::bind(at).unwrap();
        }),
    ];
    for (name, make) in bad {
        let root = tempfile::tempdir().unwrap();
        make(&root.path().join(name));
        let error = pack_into(root.path(), &mut Vec::new()).unwrap_err();
        assert!(matches!(error, PackError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let root = tempfile::tempdir().unwrap();
    fs::File::create(root.path().join("huge"))
        .unwrap()
        .set_len(2 << 30)
        .unwrap();
    let error = pack_into(root.path(), &mut std::io::sink()).unwrap_err();
    assert!(matches!(error, PackError::TooLarge { .. }), "{error}");
    let error = pack(&root.path().join("missing")).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

/// Stores an archive as a blob; returns a driver and the spec that asks for it.
fn stored(data: &Path, bytes: &[u8]) -> (ArtifactDriver, ResourceSpec) {
    let digest = Blobs::new(data).put(bytes).unwrap();
    let driver = ArtifactDriver::new(&host(data));
    (driver, spec(digest, bytes.len() as u64))
}

#[test]
fn what_was_packed_unpacks_the_same_and_readable_by_all() {
    let (root, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree(root.path(), true);
    let bytes = bytes_of(root.path());
    let (mut driver, spec) = stored(data.path(), &bytes);
    assert_eq!(
        observe(&mut driver, Some(&spec), Depth::Quick),
        Ok(Observation::Absent)
    );
    assert_eq!(act(&mut driver, "app", Some(&spec)), right());
    for depth in [Depth::Quick, Depth::Full] {
        assert_eq!(observe(&mut driver, Some(&spec), depth), right());
    }
    let out = folder(data.path(), Hash::of(&bytes));
    assert_eq!(
        bytes_of(&out),
        bytes,
        "packing what was unpacked gives it back"
    );
    assert_eq!(fs::read(out.join("bin/link")).unwrap(), b"print(1)\n");
    for (path, mode) in [
        ("", 0o755),
        ("empty", 0o755),
        ("app.py", 0o644),
        ("bin/run", 0o755),
    ] {
        let found = fs::metadata(out.join(path)).unwrap().mode() & 0o7777;
        assert_eq!(found, mode, "{path}");
    }
    // A new agent knows it, and a second write changes nothing.
    let mut driver = ArtifactDriver::new(&host(data.path()));
    assert_eq!(observe(&mut driver, Some(&spec), Depth::Full), right());
    assert_eq!(act(&mut driver, "app", Some(&spec)), right());
}

#[test]
fn what_was_deleted_or_edited_inside_is_found_and_put_right_where_it_is() {
    let (root, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree(root.path(), false);
    let bytes = bytes_of(root.path());
    let (mut driver, spec) = stored(data.path(), &bytes);
    act(&mut driver, "app", Some(&spec)).unwrap();
    let out = folder(data.path(), Hash::of(&bytes));
    let inode = fs::metadata(&out).unwrap().ino();
    let untouched = fs::metadata(out.join("bin-extra")).unwrap().ino();
    let outside = data.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("run"), "precious").unwrap();
    let drifts: [(&str, &dyn Fn()); 6] = [
        ("app.py", &|| fs::remove_file(out.join("app.py")).unwrap()),
        ("app.py", &|| {
            fs::write(out.join("app.py"), "print(2)\n").unwrap()
        }),
        ("bin/run", &|| {
            fs::set_permissions(out.join("bin/run"), fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("bin", &|| {
            fs::remove_dir_all(out.join("bin")).unwrap();
            symlink(&outside, out.join("bin")).unwrap();
        }),
        ("app.py", &|| {
            fs::remove_file(out.join("app.py")).unwrap();
            fs::create_dir_all(out.join("app.py/deep")).unwrap();
        }),
        ("bin/link", &|| {
            fs::remove_file(out.join("bin/link")).unwrap();
            symlink("/etc/passwd", out.join("bin/link")).unwrap();
        }),
    ];
    for (named, drift) in drifts {
        drift();
        fs::write(out.join("cache"), "the app's own").unwrap();
        match observe(&mut driver, Some(&spec), Depth::Full) {
            Ok(Observation::Present { differs }) => {
                assert_eq!(differs.len(), 1);
                assert!(differs[0].found.starts_with(named), "{differs:?}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(act(&mut driver, "app", Some(&spec)), right());
        assert_eq!(observe(&mut driver, Some(&spec), Depth::Full), right());
        assert_eq!(fs::read(out.join("cache")).unwrap(), b"the app's own");
        fs::remove_file(out.join("cache")).unwrap();
        assert_eq!(bytes_of(&out), bytes);
    }
    assert_eq!(fs::metadata(&out).unwrap().ino(), inode);
    assert_eq!(
        fs::metadata(out.join("bin-extra")).unwrap().ino(),
        untouched
    );
    assert_eq!(names(&outside), ["run"]);
    fs::remove_dir_all(&out).unwrap();
    assert_eq!(
        observe(&mut driver, Some(&spec), Depth::Quick),
        Ok(Observation::Absent)
    );
    assert_eq!(act(&mut driver, "app", Some(&spec)), right());
    assert_eq!(bytes_of(&out), bytes);
}

#[test]
fn a_digest_goes_with_its_last_holder_and_the_one_before_the_newest_stays() {
    let data = tempfile::tempdir().unwrap();
    let mut specs = Vec::new();
    for n in 0..4 {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("n"), n.to_string()).unwrap();
        specs.push(stored(data.path(), &bytes_of(root.path())).1);
    }
    let held = |data: &Path| {
        names(&data.join("artifacts"))
            .into_iter()
            .filter(|n| n.ends_with(".complete"))
            .count()
    };
    let mut driver = ArtifactDriver::new(&host(data.path()));
    act(&mut driver, "other", Some(&specs[0])).unwrap();
    for (n, spec) in specs.iter().enumerate() {
        act(&mut driver, "app", Some(spec)).unwrap();
        // The other app's, and at most two of this one.
        assert_eq!(held(data.path()), [1, 2, 3, 3][n]);
    }
    assert_eq!(act(&mut driver, "app", None), Ok(Observation::Absent));
    assert_eq!(
        observe(&mut driver, None, Depth::Quick),
        Ok(Observation::Absent)
    );
    assert_eq!(held(data.path()), 1);
    assert_eq!(act(&mut driver, "other", None), Ok(Observation::Absent));
    assert_eq!(names(&data.path().join("artifacts")), [""; 0]);
    assert_eq!(names(&data.path().join("blobs")), [""; 0]);
}

#[test]
fn missing_and_wrong_archives_are_said_and_nothing_is_unpacked() {
    let data = tempfile::tempdir().unwrap();
    let (mut driver, good) = stored(data.path(), &[0; 1024]);
    let missing = spec(Hash::of(b"elsewhere"), 9);
    let fault = act(&mut driver, "app", Some(&missing)).unwrap_err();
    assert_eq!(fault.reason, Reason::ContentMissing, "{fault}");
    let blobs = Blobs::new(data.path());
    fs::write(blobs.path(Hash::of(&[0; 1024])), [1; 1024]).unwrap();
    let fault = act(&mut driver, "app", Some(&good)).unwrap_err();
    assert_eq!(fault.reason, Reason::BadContent, "{fault}");
    assert!(!blobs.has(Hash::of(&[0; 1024])), "it is fetched again");
    assert_eq!(names(&data.path().join("artifacts")), [""; 0]);
}

/// Appends a member exactly as it is told to, with none of the checks of an honest packer.
fn member(out: &mut Vec<u8>, kind: EntryType, path: &[u8], link: &[u8], size: u64, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// Unpacks a hostile archive and checks that it is refused with these words and leaves nothing, inside or outside.
fn refuses(words: &str, build: impl FnOnce(&mut Vec<u8>)) {
    refuses_with(MAX_MEMBERS, words, build);
}

fn refuses_with(max_members: usize, words: &str, build: impl FnOnce(&mut Vec<u8>)) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let outside = folder.path().join("outside");
    for dir in [&data, &outside] {
        fs::create_dir(dir).unwrap();
    }
    let mut bytes = Vec::new();
    member(&mut bytes, EntryType::Regular, b"first", b"", 2, b"ok");
    build(&mut bytes);
    bytes.resize(bytes.len() + 1024, 0);
    let (mut driver, spec) = stored(&data, &bytes);
    driver.max_members = max_members;
    let fault = act(&mut driver, "app", Some(&spec)).unwrap_err();
    assert_eq!(fault.reason, Reason::BadContent, "{fault}");
    assert!(fault.message.contains(words), "{words:?} not in: {fault}");
    assert_eq!(names(&data.join("artifacts")), [""; 0], "{words}");
    assert_eq!(names(&outside), [""; 0], "{words}");
    assert_eq!(names(folder.path()), ["data", "outside"], "{words}");
    assert!(!Path::new("/plumb-test-absolute").exists());
}

/// Threat 28. Mutation: drop `safe::member` or the match of entry types in `Unpacker::member`.
#[test]
fn threat_28_members_that_leave_the_tree_are_refused() {
    let file = EntryType::Regular;
    refuses("absolute path", |out| {
        member(out, file, b"/plumb-test-absolute", b"", 1, b"x")
    });
    refuses("`..`", |out| {
        member(out, file, b"../../outside/x", b"", 1, b"x")
    });
    refuses("`..`", |out| {
        member(out, file, b"a/../../outside/x", b"", 1, b"x")
    });
    refuses("`..`", |out| {
        member(out, EntryType::Directory, b"..", b"", 0, b"")
    });
    refuses("empty part", |out| member(out, file, b"./x", b"", 1, b"x"));
    refuses("no name", |out| member(out, file, b"", b"", 1, b"x"));
    refuses("absolute path", |out| {
        member(
            out,
            EntryType::GNULongName,
            b"././@LongLink",
            b"",
            22,
            b"/plumb-test-absolute\0\0",
        );
        member(out, file, b"harmless", b"", 1, b"x");
    });
}

/// Threat 28. Mutation: allow the kind in `Unpacker::member`.
#[test]
fn threat_28_members_of_dangerous_kinds_are_refused() {
    for (kind, words) in [
        (EntryType::Link, "hard link"),
        (EntryType::Char, "device node"),
        (EntryType::Block, "device node"),
        (EntryType::Fifo, "named pipe"),
        (EntryType::GNUSparse, "type that Plumb does not pack"),
        (EntryType::Continuous, "type that Plumb does not pack"),
        (EntryType::XHeader, "type that Plumb does not pack"),
        (EntryType::XGlobalHeader, "type that Plumb does not pack"),
    ] {
        refuses(words, |out| member(out, kind, b"x", b"first", 0, b""));
    }
}

/// Threat 28. Mutations: drop `safe::link`; open parents without `RESOLVE_NO_SYMLINKS`.
#[test]
fn threat_28_links_that_leave_the_tree_and_writes_through_links_are_refused() {
    let link = EntryType::Symlink;
    for target in [&b"/etc/shadow"[..], b"../outside", b"..", b"a/../../x"] {
        refuses("symbolic link", |out| {
            member(out, link, b"x", target, 0, b"")
        });
    }
    refuses("through a symbolic link", |out| {
        member(out, EntryType::Directory, b"real", b"", 0, b"");
        member(out, link, b"via", b"real", 0, b"");
        member(out, EntryType::Regular, b"via/x", b"", 1, b"x");
    });
    refuses("twice", |out| {
        member(out, link, b"via", b"first", 0, b"");
        member(out, EntryType::Regular, b"via", b"", 1, b"x");
    });
    refuses("has content", |out| {
        member(out, link, b"x", b"first", 1, b"x")
    });
}

/// Threat 28. Mutations: drop the bound on bytes, on members or on long names; drop the set of names.
#[test]
fn threat_28_bombs_and_duplicates_are_refused() {
    let file = EntryType::Regular;
    refuses("1 GiB", |out| {
        member(out, file, b"huge", b"", 10 << 30, b"x")
    });
    refuses("1 GiB", |out| {
        member(out, file, b"huge", b"", u64::MAX / 2, b"x")
    });
    refuses("cut short", |out| {
        member(out, file, b"short", b"", 1 << 20, b"x")
    });
    refuses("long name", |out| {
        member(
            out,
            EntryType::GNULongName,
            b"././@LongLink",
            b"",
            1 << 29,
            b"x",
        );
    });
    refuses("no other member", |out| {
        member(
            out,
            EntryType::GNULongName,
            b"././@LongLink",
            b"",
            2,
            b"x\0",
        );
    });
    refuses("twice", |out| member(out, file, b"first", b"", 1, b"x"));
    refuses("no directory", |out| {
        member(out, file, b"first/x", b"", 1, b"x")
    });
    refuses("before the directory", |out| {
        member(out, file, b"none/x", b"", 1, b"x")
    });
    refuses("cannot be read", |out| out.extend_from_slice(&[0xff; 512]));
    refuses_with(100, "members that are allowed", |out| {
        for n in 0..100 {
            let name = format!("d{n}");
            member(out, EntryType::Directory, name.as_bytes(), b"", 0, b"");
        }
    });
}

/// Threat 36 for artifacts. Mutation: leave the partial folder after a failure.
#[test]
fn threat_36_a_full_disk_leaves_no_part_of_an_artifact() {
    let (root, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for n in 0..64 {
        fs::write(root.path().join(n.to_string()), vec![n; 4096]).unwrap();
    }
    let bytes = bytes_of(root.path());
    let (mut driver, spec) = stored(data.path(), &bytes);
    let artifacts = data.path().join("artifacts");
    let none = rustix::mount::MountFlags::empty();
    let mounted = Mounted::new(artifacts.clone(), c"size=64k", none);
    let answer = act(&mut driver, "app", Some(&spec));
    let left = names(&artifacts);
    drop(mounted);
    let fault = answer.unwrap_err();
    assert_eq!(fault.reason, Reason::DiskFull, "{fault}");
    assert_eq!(left, [""; 0]);
}
