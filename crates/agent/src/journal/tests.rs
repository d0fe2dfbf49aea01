use plumb_model::journal::Head;

use super::*;

fn owner() -> Owner {
    Owner {
        lineage: Lineage::from_random([1; 16]),
        workspace: WorkspaceName::new("shop").unwrap(),
        machine: MachineName::new("web-1").unwrap(),
    }
}

const SMALL: Bounds = Bounds {
    segment_bytes: 1000,
    segments: 3,
};

fn open(data: &Path, bounds: Bounds) -> Journal {
    Journal::open(data, owner(), bounds).unwrap()
}

fn taken(generation: u64) -> Happening {
    Happening::AssignmentTaken {
        generation: plumb_model::Generation(generation),
    }
}

fn note(journal: &mut Journal, count: u64) {
    for n in 0..count {
        journal.note(Timestamp::UNIX_EPOCH, false, taken(n));
    }
}

/// Hands everything over, as a session does. What the control plane found.
fn hand_over(journal: &mut Journal, head: Option<Head>) -> (Head, Vec<Happening>, usize) {
    let owner = owner();
    let start = start_of(
        &owner.lineage,
        &owner.workspace,
        &owner.machine,
        &journal.mark().chain,
    );
    let (mut head, mut found) = Head::greet(head, journal.mark(), start);
    let mut came = 0;
    while let Some(chunk) = journal.read(head.number).unwrap() {
        for line in &chunk.lines {
            let (entry, wrong) = head.take(line);
            came += usize::from(entry.is_some());
            found.extend(wrong);
        }
        found.extend(head.reached(&chunk.newest));
    }
    (head, found, came)
}

fn files(data: &Path) -> Vec<PathBuf> {
    let names = segment_names(&data.join("journal")).unwrap();
    names.into_iter().map(|(_, path)| path).collect()
}

#[test]
fn what_was_noted_is_handed_over_whole_also_after_a_restart_and_in_many_chunks() {
    let data = tempfile::tempdir().unwrap();
    let mut journal = open(data.path(), BOUNDS);
    note(&mut journal, 700);
    let (head, found, came) = hand_over(&mut journal, None);
    assert_eq!((found, came), (vec![], 701), "and that it was begun");
    drop(journal);
    let mut journal = open(data.path(), BOUNDS);
    note(&mut journal, 3);
    let (head, found, came) = hand_over(&mut journal, Some(head));
    assert_eq!((found, came, head.number), (vec![], 3, 704));
    assert_eq!(journal.read(704).unwrap(), None);
}

/// Mutation: write no entry that says that the oldest segment goes.
#[test]
fn a_full_journal_drops_its_oldest_entries_and_still_holds_together() {
    let data = tempfile::tempdir().unwrap();
    let mut journal = open(data.path(), SMALL);
    note(&mut journal, 10);
    let (early, _, _) = hand_over(&mut journal, None);
    note(&mut journal, 200);
    assert_eq!(files(data.path()).len(), 3);
    let size: u64 = files(data.path())
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    assert!(size < 3 * (SMALL.segment_bytes + 1000), "{size}");
    for head in [None, Some(early)] {
        let (head, found, came) = hand_over(&mut journal, head);
        assert_eq!(found, []);
        assert_eq!((head.number, &head.broken), (journal.mark().number, &None));
        assert!(came > 3 && came < 30, "{came}");
    }
    drop(journal);
    let mut journal = open(data.path(), SMALL);
    assert_eq!(hand_over(&mut journal, None).1, []);
}

/// Threat row 35. Mutation: go on behind a torn line without cutting it off.
#[test]
fn a_torn_end_is_cut_off_and_counted_and_nothing_else_is_lost() {
    let data = tempfile::tempdir().unwrap();
    let mut journal = open(data.path(), BOUNDS);
    note(&mut journal, 5);
    drop(journal);
    let path = files(data.path()).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    for cut in [1, 30, 100] {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let mut journal = open(data.path(), BOUNDS);
        assert_eq!(journal.mark().number, 5);
        note(&mut journal, 1);
        let chunk = journal.read(5).unwrap().unwrap();
        let entry = Entry::parse(&chunk.lines[0]).unwrap();
        assert_eq!(entry.what, Happening::Lost { entries: 1 });
        assert_eq!(hand_over(&mut journal, None).1, []);
    }
}

/// Threat row 37. Mutation: leave the hash of the entry before out of `look`.
#[test]
fn whatever_somebody_else_changed_is_said_by_the_agent_or_found_by_the_control_plane() {
    type Tamper = fn(&[u8]) -> Vec<u8>;
    let tampers: [(&str, Tamper); 3] = [
        ("a bit", |bytes| {
            let mut bytes = bytes.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        }),
        ("a line is gone", |bytes| {
            let lines: Vec<_> = bytes.split_inclusive(|b| *b == b'\n').collect();
            [&lines[..3], &lines[4..]].concat().concat()
        }),
        ("an entry with a right checksum", |bytes| {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            let lines: Vec<_> = text.split_inclusive('\n').collect();
            let json =
                lines[3].trim_end()[CHECKSUM + 1..].replace("\"generation\":1", "\"generation\":9");
            let mut all: Vec<Vec<u8>> = lines.iter().map(|l| l.as_bytes().to_vec()).collect();
            all[3] = written_line(json.as_bytes());
            all.concat()
        }),
    ];
    for (name, tamper) in tampers {
        let data = tempfile::tempdir().unwrap();
        let mut journal = open(data.path(), BOUNDS);
        note(&mut journal, 6);
        let (had, _, _) = hand_over(&mut journal, None);
        note(&mut journal, 2);
        // While it is open: the control plane finds it, if it was not handed over before.
        let path = files(data.path()).pop().unwrap();
        let before = fs::read(&path).unwrap();
        let after = tamper(&before);
        assert_ne!(before, after, "{name}");
        fs::write(&path, &after).unwrap();
        let (_, found, _) = hand_over(&mut journal, None);
        assert!(!found.is_empty(), "{name}");
        drop(journal);
        // After a restart: the agent says it even of what was handed over.
        let mut journal = open(data.path(), BOUNDS);
        let chunk = journal.read(journal.mark().number - 1).unwrap().unwrap();
        let entry = Entry::parse(&chunk.lines[0]).unwrap();
        assert!(
            matches!(entry.what, Happening::Damaged { .. }),
            "{name}: {entry:?}"
        );
        let (head, _, _) = hand_over(&mut journal, Some(had));
        assert!(head.broken.is_some(), "{name}");
    }
}

/// Threat row 37. Mutation: leave the owner, the chain, the name of a file, a checksum or a number out of `look`. The number
/// and hash of a header need no test of their own: the entry behind it holds both again.
#[test]
fn each_thing_that_does_not_fit_is_seen_though_all_else_fits() {
    /// Changes one line of a file, and puts its checksum right if that is wanted.
    fn change(path: &Path, line: impl Fn(usize) -> usize, from: &str, to: &str, right: bool) {
        let text = fs::read_to_string(path).unwrap();
        let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
        let line = line(lines.len());
        let changed = lines[line].replacen(from, to, 1);
        assert_ne!(lines[line], changed, "{from}");
        lines[line] = match right {
            true => {
                let json = &changed.trim_end()[CHECKSUM + 1..];
                String::from_utf8(written_line(json.as_bytes())).unwrap()
            }
            false => changed,
        };
        fs::write(path, lines.concat()).unwrap();
    }
    let bounds = Bounds {
        segments: 9,
        ..SMALL
    };
    for case in ["none", "owner", "chain", "name", "checksum", "number"] {
        let data = tempfile::tempdir().unwrap();
        let mut journal = open(data.path(), bounds);
        note(&mut journal, 12);
        let newest = journal.mark().number;
        drop(journal);
        let all = files(data.path());
        assert!(all.len() > 1, "{all:?}");
        let last = all.last().unwrap();
        let mut owner = owner();
        match case {
            "owner" => owner.machine = MachineName::new("web-2").unwrap(),
            "chain" => change(last, |_| 0, "\"chain\":\"", "\"chain\":\"0", true),
            "name" => fs::rename(last, last.with_file_name("00000000000000000099.log")).unwrap(),
            "checksum" => change(last, |lines| lines - 1, "\"1970-", "\"1971-", false),
            "number" => {
                let (from, to) = (format!(":{newest},"), format!(":{},", newest + 1));
                change(last, |lines| lines - 1, &from, &to, true);
            }
            _ => {}
        }
        let mut journal = Journal::open(data.path(), owner, bounds).unwrap();
        let chunk = journal.read(0).unwrap().unwrap();
        let seen = chunk.lines.iter().any(|line| {
            let what = Entry::parse(line).unwrap().what;
            matches!(
                what,
                Happening::Damaged { .. } | Happening::Begun { why: Some(_) }
            )
        });
        assert_eq!(seen, case != "none", "{case}");
    }
}

/// Mutation: count lines instead of reading their numbers.
#[test]
fn what_is_noted_after_somebody_took_entries_away_is_still_handed_over() {
    let data = tempfile::tempdir().unwrap();
    let mut journal = open(data.path(), BOUNDS);
    note(&mut journal, 6);
    let (had, _, _) = hand_over(&mut journal, None);
    let path = files(data.path()).pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let some: Vec<_> = bytes.split_inclusive(|b| *b == b'\n').take(3).collect();
    fs::write(&path, some.concat()).unwrap();
    note(&mut journal, 1);
    let (head, _, came) = hand_over(&mut journal, Some(had));
    assert_eq!((head.number, came), (8, 1));
    drop(journal);
    let mut journal = open(data.path(), BOUNDS);
    let (head, _, _) = hand_over(&mut journal, Some(head));
    assert!(head.broken.is_some(), "the agent says it when it starts");
}

#[test]
fn a_journal_that_cannot_be_read_is_set_aside_and_another_begins_and_says_why() {
    let data = tempfile::tempdir().unwrap();
    let mut journal = open(data.path(), BOUNDS);
    note(&mut journal, 2);
    let (head, _, _) = hand_over(&mut journal, None);
    drop(journal);
    fs::write(files(data.path()).pop().unwrap(), "rubbish\n").unwrap();
    let mut journal = open(data.path(), BOUNDS);
    let chunk = journal.read(0).unwrap().unwrap();
    let entry = Entry::parse(&chunk.lines[0]).unwrap();
    assert!(matches!(entry.what, Happening::Begun { why: Some(_) }));
    assert!(data.path().join("journal/damaged").is_dir());
    let (_, found, _) = hand_over(&mut journal, Some(head));
    assert!(matches!(found.as_slice(), [Happening::ChainBroken { .. }]));
}

/// Threat row 42. Mutation: look for a newer format after the folder has been written to.
#[test]
fn a_journal_of_a_newer_version_is_refused_before_anything_is_written() {
    let data = tempfile::tempdir().unwrap();
    drop(open(data.path(), BOUNDS));
    let path = files(data.path()).pop().unwrap();
    let bytes = written_line(br#"{"format":2,"who":"knows"}"#);
    fs::write(&path, &bytes).unwrap();
    let error = Journal::open(data.path(), owner(), BOUNDS).unwrap_err();
    assert!(
        error.to_string().contains("newer plumb (format 2"),
        "{error}"
    );
    assert_eq!(files(data.path()), std::slice::from_ref(&path));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn what_could_not_be_noted_is_counted() {
    let data = tempfile::tempdir().unwrap();
    let mut journal = open(data.path(), BOUNDS);
    journal.lose(7);
    note(&mut journal, 1);
    let chunk = journal.read(1).unwrap().unwrap();
    let whats: Vec<_> = chunk
        .lines
        .iter()
        .map(|line| Entry::parse(line).unwrap().what)
        .collect();
    assert_eq!(whats, [Happening::Lost { entries: 7 }, taken(0)]);
    assert_eq!(hand_over(&mut journal, None).1, []);
}
