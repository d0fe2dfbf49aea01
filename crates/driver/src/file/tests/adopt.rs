//! Taking over what Plumb did not make, and renamed owners.

use super::*;
use crate::file::crash::tests::dying_at;
use plumb_model::{Found, FoundKind};

impl Machine {
    fn adopt(&mut self, spec: &FileSpec) -> Answer {
        act(&mut self.files, &file_of(spec), Action::Adopt)
    }

    fn found(&mut self, spec: &FileSpec) -> Found {
        match self.see(spec, Depth::Quick) {
            Ok(Observation::Foreign { found, .. }) => *found.unwrap(),
            other => panic!("not foreign: {other:?}"),
        }
    }

    /// What was kept: path, mode and content of each, in the order of their numbers.
    fn originals(&self) -> Vec<(String, String, String)> {
        let mut kept = Vec::new();
        let folder = self.host.data.join("originals");
        for hash in fs::read_dir(&folder).into_iter().flatten().flatten() {
            for number in names(&hash.path()) {
                let at = hash.path().join(&number);
                assert!(number.parse::<u64>().is_ok(), "{at:?} is half a copy");
                let about: serde_json::Value =
                    serde_json::from_slice(&fs::read(at.join("about.json")).unwrap()).unwrap();
                let content = fs::read_to_string(at.join("content")).unwrap_or_default();
                let field = |name: &str| about[name].as_str().unwrap().to_owned();
                kept.push((field("path"), field("mode"), content));
            }
        }
        kept
    }
}

fn theirs(path: &str, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn open_up(machine: &Machine) {
    let mut folder = machine.root.as_path();
    while folder.starts_with(std::env::temp_dir()) && folder != std::env::temp_dir() {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        folder = folder.parent().unwrap();
    }
}

/// Row 32 for foreign files. Mutations: tell the text whatever the mode; leave out the folders above; leave the bound out.
#[test]
fn a_foreign_file_is_described_and_its_text_told_only_if_everybody_may_read_it() {
    let mut machine = Machine::new();
    let spec = machine.file("f", "text");
    theirs(&spec.path, "their own\n", 0o644);
    // A folder above that is closed to others closes the file too.
    fs::set_permissions(&machine.root, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(machine.found(&spec).text, None);
    open_up(&machine);
    let found = machine.found(&spec);
    assert_eq!(
        (found.kind, found.mode, found.size),
        (FoundKind::File, Mode(0o644), Some(10))
    );
    assert_eq!(found.text.as_deref(), Some("their own\n"));
    assert_eq!(found.digest, Some(Hash::of(b"their own\n")));
    if rustix::process::geteuid().is_root() {
        assert_eq!((&*found.owner, &*found.group), ("root", "root"));
    }
    for (text, mode) in [
        ("canary-secret", 0o640),
        ("canary-secret", 0o600),
        ("canary-secret", 0o662),
    ] {
        theirs(&spec.path, text, mode);
        let answer = machine.see(&spec, Depth::Full);
        assert!(!format!("{answer:?}").contains("canary"), "{answer:?}");
        assert_eq!(
            machine.found(&spec).digest,
            None,
            "a short secret could be guessed from its hash"
        );
    }
    theirs(&spec.path, "\u{1b}[2J", 0o644);
    assert!(
        machine.found(&spec).text.is_some(),
        "escaping is for whoever shows it"
    );
    fs::write(&spec.path, b"\xff\xfe").unwrap();
    let found = machine.found(&spec);
    assert!(found.text.is_none() && found.digest.is_some());
    fs::write(&spec.path, "x".repeat(16 * 1024)).unwrap();
    assert!(machine.found(&spec).text.is_some());
    fs::write(&spec.path, "x".repeat(16 * 1024 + 1)).unwrap();
    assert!(machine.found(&spec).text.is_none());
}

#[test]
fn the_texts_of_many_foreign_files_are_bounded_and_those_told_stay_told() {
    let mut machine = Machine::new();
    open_up(&machine);
    let specs: Vec<_> = (0..80)
        .map(|n| machine.file(&format!("f{n}"), "mine"))
        .collect();
    for spec in &specs {
        theirs(&spec.path, &"x".repeat(16 * 1024), 0o644);
    }
    let told = |machine: &mut Machine| -> Vec<usize> {
        (0..80)
            .filter(|n| machine.found(&specs[*n]).text.is_some())
            .collect()
    };
    let first = told(&mut machine);
    assert_eq!(first.len(), 64);
    assert_eq!(told(&mut machine), first);
    fs::remove_file(&specs[0].path).unwrap();
    let _ = machine.see(&specs[0], Depth::Quick);
    let of_last = machine.found(&specs[79]);
    assert!(of_last.text.is_some(), "room that is given back is used");
}

/// Mutations: leave out the copy; take the copy after the write; let a second adoption take its place.
#[test]
fn what_is_adopted_is_kept_first_and_never_overwritten_by_a_later_adoption() {
    let mut machine = Machine::new();
    let spec = machine.file("f", "text");
    theirs(&spec.path, "their own", 0o600);
    assert_eq!(machine.write(&spec).unwrap_err().reason, Reason::NotOurs);
    assert_eq!(machine.originals(), []);
    assert_eq!(machine.adopt(&spec), right());
    assert_eq!(fs::read(&spec.path).unwrap(), b"text");
    assert_eq!(mode_of(&spec.path), 0o644);
    let first = (spec.path.clone(), "0600".to_owned(), "their own".to_owned());
    assert_eq!(machine.originals(), std::slice::from_ref(&first));
    let folder = machine.host.data.join("originals");
    assert_eq!(mode_of(folder.to_str().unwrap()), 0o700);

    // It is like any other file now, and no change of Plumb's own is kept.
    machine.restart();
    fs::write(&spec.path, "drift").unwrap();
    assert_eq!(machine.write(&spec), right());
    let (address, _) = file_of(&spec);
    let gone = remove(&mut machine.files, &address);
    assert!(matches!(gone, Ok(Observation::Gone { .. })), "{gone:?}");
    assert_eq!(machine.names(""), [""; 0]);
    assert_eq!(machine.originals(), std::slice::from_ref(&first));

    theirs(&spec.path, "another", 0o644);
    assert_eq!(machine.adopt(&spec), right());
    let second = (spec.path.clone(), "0644".to_owned(), "another".to_owned());
    assert_eq!(machine.originals(), [first, second]);
}

#[test]
fn where_only_the_mode_differs_the_inode_stays_and_the_mode_is_kept() {
    let mut machine = Machine::new();
    let spec = machine.file("f", "text");
    theirs(&spec.path, "text", 0o600);
    let inode = fs::metadata(&spec.path).unwrap().ino();
    assert_eq!(machine.adopt(&spec), right());
    assert_eq!(
        (mode_of(&spec.path), fs::metadata(&spec.path).unwrap().ino()),
        (0o644, inode)
    );
    assert_eq!(machine.originals()[0].1, "0600");
}

/// Mutation: leave `fits` out of `decide`.
#[test]
fn a_link_a_pipe_or_a_directory_in_a_files_place_is_never_adopted() {
    let mut machine = Machine::new();
    let outside = machine.root.join("outside");
    fs::write(&outside, "outside").unwrap();
    let spec = machine.file("f", "text");
    type Put = fn(&Path, &Path);
    let put: [(FoundKind, Put); 3] = [
        (FoundKind::Symlink, |path, to| symlink(to, path).unwrap()),
        (FoundKind::Fifo, |path, _| {
            rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR).unwrap();
        }),
        (FoundKind::Directory, |path, _| {
            fs::create_dir(path).unwrap()
        }),
    ];
    for (kind, put) in put {
        put(Path::new(&spec.path), &outside);
        let found = machine.found(&spec);
        assert_eq!((found.kind, found.size, found.text), (kind, None, None));
        assert_eq!(machine.adopt(&spec).unwrap_err().reason, Reason::NotOurs);
        let _ = fs::remove_dir(&spec.path).or_else(|_| fs::remove_file(&spec.path));
    }
    assert_eq!(fs::read(&outside).unwrap(), b"outside");
    let folder = machine.directory("d", 0o755);
    fs::write(&folder.path, "a file").unwrap();
    let refused = act(
        &mut machine.directories,
        &directory_of(&folder),
        Action::Adopt,
    );
    assert_eq!(refused.unwrap_err().reason, Reason::NotOurs);
    assert_eq!(machine.originals(), []);
}

/// Mutations: claim before keeping; unlink before the exchange; leave `is_like` out.
#[test]
fn wherever_an_adoption_is_cut_off_the_original_is_in_its_place_or_kept() {
    for point in ["copied", "kept", "claimed", "staged", "swapped"] {
        let mut machine = Machine::new();
        let spec = machine.file("f", "text");
        theirs(&spec.path, "their own", 0o600);
        let died = dying_at(point, || {
            let _ = machine.adopt(&spec);
        });
        assert!(died, "{point} is on the way");
        let there = fs::read_to_string(&spec.path).unwrap();
        let kept = point != "copied";
        match &*there {
            "their own" => assert_eq!(mode_of(&spec.path), 0o600, "{point}"),
            "text" => assert!(kept, "{point}"),
            other => panic!("{other:?} after {point}"),
        }
        // The next agent: whether it still sees a stranger's file or one of its own, one adoption makes it right.
        machine.restart();
        match machine.see(&spec, Depth::Quick) {
            Ok(Observation::Foreign { .. }) => assert_eq!(machine.adopt(&spec), right()),
            Ok(_) => assert_eq!(machine.write(&spec), right()),
            Err(fault) => panic!("{fault} after {point}"),
        }
        assert_eq!(fs::read(&spec.path).unwrap(), b"text");
        assert_eq!(machine.names(""), ["f"], "{point}");
        let original = (spec.path.clone(), "0600".to_owned(), "their own".to_owned());
        assert_eq!(machine.originals(), [original], "{point}");
    }
}

/// Threat 27 for adoption. Mutation: rename over the path instead of exchanging.
#[test]
fn threat_27_what_is_put_there_while_it_is_adopted_is_not_lost() {
    for _ in 0..40 {
        let mut machine = Machine::new();
        let spec = machine.file("f", "text");
        theirs(&spec.path, "their 0", 0o644);
        let stop = AtomicBool::new(false);
        let last = std::thread::scope(|scope| {
            let (path, stop) = (&spec.path, &stop);
            // Somebody replaces the file again and again, until it is Plumb's.
            let writer = scope.spawn(move || {
                let (beside, mut last) = (format!("{path}.theirs"), 0);
                while !stop.load(Ordering::Relaxed) {
                    fs::write(&beside, format!("their {}", last + 1)).unwrap();
                    if fs::read_to_string(path).is_ok_and(|text| text == "text") {
                        break;
                    }
                    fs::rename(&beside, path).unwrap();
                    last += 1;
                }
                let _ = fs::remove_file(&beside);
                last
            });
            for _ in 0..20 {
                if machine.adopt(&spec).is_ok() {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
            writer.join().unwrap()
        });
        let text = fs::read_to_string(&spec.path).unwrap();
        if text == "text" {
            let last = format!("their {last}");
            assert!(
                machine.originals().iter().any(|o| o.2 == last),
                "{last} is lost"
            );
        } else {
            assert_eq!(text, format!("their {last}"));
        }
    }
}

#[test]
fn what_was_as_it_should_be_is_taken_over_and_kept_before_it_is_changed_or_removed() {
    for removed in [false, true] {
        let mut machine = Machine::new();
        let spec = machine.file("f", "text");
        theirs(&spec.path, "text", 0o644);
        assert_eq!(machine.see(&spec, Depth::Quick), right());
        assert_eq!(machine.originals(), [], "nothing is lost by it");
        if removed {
            let (address, _) = file_of(&spec);
            let gone = remove(&mut machine.files, &address);
            let hash = Hash::of(format!("file {}", spec.path).as_bytes());
            let kept = format!("originals/{hash}/1");
            assert!(machine.host.data.join(&kept).join("content").exists());
            let told = format!(
                "removed; what was there before Plumb is kept in {kept} in the agent's data folder"
            );
            assert_eq!(gone, Ok(note(&told)));
        } else {
            let next = machine.file("f", "the next version");
            assert_eq!(machine.write(&next), right());
            assert_eq!(machine.write(&machine.file("f", "and one more")), right());
        }
        let original = (spec.path.clone(), "0644".to_owned(), "text".to_owned());
        assert_eq!(machine.originals(), [original]);
    }
}

#[test]
fn an_adopted_directory_keeps_what_is_in_it_and_stays_when_it_is_removed() {
    let mut machine = Machine::new();
    let spec = machine.directory("d", 0o750);
    fs::create_dir(&spec.path).unwrap();
    theirs(&machine.path("d/inner"), "x", 0o600);
    let work = directory_of(&spec);
    assert_eq!(act(&mut machine.directories, &work, Action::Adopt), right());
    assert_eq!(mode_of(&spec.path), 0o750);
    assert_eq!(machine.names("d"), ["inner"]);
    assert_eq!(
        remove(&mut machine.directories, &work.0),
        Ok(note("let go: it was there before Plumb, and stays"))
    );
    assert_eq!(machine.names("d"), ["inner"]);
}

/// Threat 36 for adoption: without room for the copy nothing is touched. Mutation: write although keeping failed.
#[test]
fn threat_36_where_the_original_cannot_be_kept_nothing_is_adopted() {
    must_be_root();
    let mut machine = Machine::new();
    let spec = machine.file("f", "text");
    theirs(&spec.path, &"x".repeat(200_000), 0o600);
    let small = machine.host.data.join("originals");
    let mounted = Mounted::new(
        small,
        c"size=64k,mode=0700",
        rustix::mount::MountFlags::empty(),
    );
    let fault = machine.adopt(&spec).unwrap_err();
    assert_eq!(fault.reason, Reason::DiskFull, "{fault}");
    assert_eq!(fs::metadata(&spec.path).unwrap().len(), 200_000);
    let (address, _) = file_of(&spec);
    remove(&mut machine.files, &address).unwrap();
    assert!(fs::exists(&spec.path).unwrap(), "it was never claimed");
    drop(mounted);
    assert_eq!(machine.adopt(&spec), right());
    assert_eq!(machine.originals().len(), 1);
}

#[test]
fn a_renamed_owner_holds_what_it_held_and_the_tombstone_of_the_old_name_takes_nothing() {
    let mut machine = Machine::new();
    let spec = machine.file("f", "text");
    machine.write(&spec).unwrap();
    let (old, resource) = file_of(&spec);
    let new: Address = format!("m/renamed/file/{}", spec.path).parse().unwrap();
    let before: Address = format!("m/between/file/{}", spec.path).parse().unwrap();
    let action = Action::Move {
        from: vec![before, old.clone()],
    };
    fs::write(&spec.path, "drift, which a rename does not touch").unwrap();
    for _ in 0..2 {
        let work = [(target(&new, Some(&resource)), action.clone())];
        assert_eq!(fields(machine.files.act(&work).pop().unwrap()), ["content"]);
        machine.restart();
    }
    assert_eq!(remove(&mut machine.files, &old), Ok(Observation::Absent));
    assert_eq!(machine.names(""), ["f"]);
    assert_eq!(remove(&mut machine.files, &new), Ok(Observation::Absent));
    assert_eq!(machine.names(""), [""; 0]);
}
