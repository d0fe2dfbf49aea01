use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::MemoryStore;
use crate::store::{MAX_KEY_BYTES, MAX_OPERATIONS, MAX_VALUE_BYTES};

fn open(path: &Path) -> SledStore {
    SledStore::open(&DataFolder::open(path).unwrap()).unwrap()
}

/// A disk that never fills up.
fn plenty() -> Free {
    Box::new(|| Ok(u64::MAX))
}

fn put(store: &dyn Store, key: &str, value: &str) {
    let committed = store.commit(Txn::default().put(key, value)).unwrap();
    assert_eq!(committed, Committed::Yes);
}

/// A store that takes its folder with it.
struct Temporary {
    store: Option<SledStore>,
    folder: tempfile::TempDir,
}

impl Temporary {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            store: Some(open(folder.path())),
            folder,
        }
    }

    fn store(&self) -> &SledStore {
        self.store
            .as_ref()
            .expect("it is taken only while it is reopened")
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(open(self.folder.path()));
    }

    /// Closes the store and hands sled itself to `change`.
    fn raw(&mut self, change: impl FnOnce(&sled::Db)) {
        self.store = None;
        let db = open_sled(&self.folder.path().join("store")).unwrap();
        change(&db);
        db.flush().unwrap();
        drop(db);
        self.store = Some(open(self.folder.path()));
    }
}

impl Store for Temporary {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store().get(key)
    }
    fn scan(&self, p: &[u8], a: Option<&[u8]>, l: usize) -> Result<Vec<Pair>, StoreError> {
        self.store().scan(p, a, l)
    }
    fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        self.store().commit(txn)
    }
    fn ready(&self) -> Result<(), StoreError> {
        self.store().ready()
    }
}

#[test]
fn the_sled_store_does_what_every_store_does() {
    crate::conformance::check(|| Box::new(Temporary::new()));
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Txn),
    Get(Vec<u8>),
    Scan(Vec<u8>, Option<Vec<u8>>, usize),
    Reopen,
}

fn a_key() -> impl Strategy<Value = Vec<u8>> {
    // Few keys, so that they meet, among them prefixes of one another.
    prop_oneof![
        8 => proptest::collection::vec(prop_oneof![Just(0u8), Just(b'a'), Just(b'/'), Just(255)], 1..4),
        1 => Just(vec![b'z'; MAX_KEY_BYTES]),
    ]
}

fn a_value() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![
        4 => 0..3usize,
        1 => 16 * 1024 - 1..16 * 1024 + 2usize,
        1 => MAX_VALUE_BYTES - 1..MAX_VALUE_BYTES + 2,
    ];
    (length, any::<u8>()).prop_map(|(length, byte)| vec![byte; length])
}

fn a_txn() -> impl Strategy<Value = Txn> {
    let checks = proptest::collection::vec((a_key(), proptest::option::of(a_value())), 0..2);
    let writes = proptest::collection::vec((a_key(), proptest::option::of(a_value())), 0..5);
    (checks, writes).prop_map(|(checks, writes)| {
        let txn = checks
            .into_iter()
            .fold(Txn::default(), |txn, (key, value)| match value {
                Some(value) => txn.equals(key, value),
                None => txn.absent(key),
            });
        writes
            .into_iter()
            .fold(txn, |txn, (key, value)| match value {
                Some(value) => txn.put(key, value),
                None => txn.delete(key),
            })
    })
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => a_txn().prop_map(Step::Commit),
        4 => a_key().prop_map(Step::Get),
        4 => (a_key(), proptest::option::of(a_key()), 0..9usize).prop_map(|(mut prefix, after, limit)| {
            prefix.pop();
            Step::Scan(prefix, after, limit)
        }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn sled_and_memory_answer_every_sequence_alike(steps in proptest::collection::vec(a_step(), 1..40)) {
        let mut sled = Temporary::new();
        let memory = MemoryStore::new();
        for step in steps {
            match step {
                Step::Commit(txn) => prop_assert_eq!(sled.commit(txn.clone()), memory.commit(txn)),
                Step::Get(key) => prop_assert_eq!(sled.get(&key), memory.get(&key)),
                Step::Scan(prefix, after, limit) => prop_assert_eq!(
                    sled.scan(&prefix, after.as_deref(), limit),
                    memory.scan(&prefix, after.as_deref(), limit)
                ),
                Step::Reopen => sled.reopen(),
            }
        }
        sled.reopen();
        prop_assert_eq!(sled.scan(b"", None, MAX_SCAN), memory.scan(b"", None, MAX_SCAN));
    }
}

/// Threat 37. Mutation: leave out the comparison of checksums in `record::decode`.
#[test]
fn a_flipped_bit_in_any_part_of_a_value_is_found_and_the_key_named() {
    let mut temporary = Temporary::new();
    put(&temporary, "whole", "untouched");
    let value = "v".repeat(40 * 1024);
    put(&temporary, "w/hello", &value);
    let head = record::head_key(b"w/hello");
    let parts = [
        (head.clone(), 1),
        (head.clone(), 5),
        (head, 700),
        (record::piece_key(b"w/hello", 1), 0),
        (record::piece_key(b"w/hello", 2), 4000),
    ];
    for (raw_key, at) in parts {
        let flip = |db: &sled::Db| {
            let mut bytes = db.get(&raw_key).unwrap().unwrap().to_vec();
            bytes[at] ^= 0x10;
            db.insert(&raw_key, bytes).unwrap();
        };
        temporary.raw(flip);
        for error in [
            temporary.get(b"w/hello").unwrap_err(),
            temporary.scan(b"", None, 10).unwrap_err(),
            temporary
                .commit(Txn::default().absent("w/hello"))
                .unwrap_err(),
            temporary
                .commit(Txn::default().put("w/hello", "x"))
                .unwrap_err(),
        ] {
            assert!(
                matches!(&error, StoreError::Damaged { key, .. } if key == "w/hello"),
                "{error}"
            );
            assert!(error.to_string().contains("backup"), "{error}");
        }
        assert_eq!(temporary.get(b"whole").unwrap().unwrap(), b"untouched");
        put(&temporary, "another", "write goes on");
        temporary.raw(flip);
        assert_eq!(
            temporary.get(b"w/hello").unwrap().unwrap(),
            value.as_bytes()
        );
    }
}

/// Threat 37: what was stored for one key turns up under another. Mutation: leave the key out of the checksum.
#[test]
fn a_value_under_another_key_is_found_and_the_key_named() {
    let mut temporary = Temporary::new();
    put(&temporary, "a", "1");
    temporary.raw(|db| {
        let stored = db.get(record::head_key(b"a")).unwrap().unwrap();
        db.insert(record::head_key(b"b"), stored).unwrap();
    });
    assert_eq!(temporary.get(b"a").unwrap().unwrap(), b"1");
    let error = temporary.get(b"b").unwrap_err();
    assert!(matches!(error, StoreError::Damaged { key, .. } if key == "b"));
}

#[test]
fn a_value_of_a_newer_version_is_refused_and_the_key_named() {
    let mut temporary = Temporary::new();
    put(&temporary, "a", "1");
    temporary.raw(|db| {
        db.insert(record::head_key(b"a"), &[2, 0, 0, 9]).unwrap();
    });
    assert_eq!(
        temporary.get(b"a"),
        Err(StoreError::NewerValue {
            key: "a".to_owned(),
            found: 2,
            reads: 1
        })
    );
}

/// Threat 37: bits flipped anywhere in sled's file. sled takes that for the end of its log; the mark does not.
/// Mutation: leave out the comparison with the mark in `SledStore::open_with`.
#[test]
fn damage_to_the_file_never_passes_for_an_older_state() {
    let original = tempfile::tempdir().unwrap();
    let store = open(original.path());
    for number in 0..40 {
        put(
            &store,
            &format!("k{number:02}"),
            &format!("value-{number}-").repeat(20),
        );
    }
    drop(store);
    let bytes = fs::read(original.path().join("store/db")).unwrap();
    let used = bytes.iter().rposition(|b| *b != 0).unwrap();
    let mut found = 0;
    let mut checked = 0;
    for at in (100..used).step_by(used / 24) {
        checked += 1;
        let copy = tempfile::tempdir().unwrap();
        copy_folder(original.path(), copy.path());
        // As it was while it ran: the snapshot of the last opening is older than these writes.
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x04;
        fs::write(copy.path().join("store/db"), &damaged).unwrap();
        let folder = DataFolder::open(copy.path()).unwrap();
        let store = match SledStore::open(&folder) {
            Ok(store) => store,
            Err(StoreError::Lost { .. } | StoreError::Open { .. }) => {
                found += 1;
                continue;
            }
            Err(error) => panic!("byte {at}: {error}"),
        };
        // What opens holds everything, or says what is damaged.
        for number in 0..40 {
            match store.get(format!("k{number:02}").as_bytes()) {
                Ok(value) => {
                    let expected = format!("value-{number}-").repeat(20);
                    assert_eq!(
                        value,
                        Some(expected.into_bytes()),
                        "byte {at}, record {number}"
                    );
                }
                Err(StoreError::Damaged { .. } | StoreError::Read { .. }) => found += 1,
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
    }
    assert!(
        checked >= 20 && found >= checked / 2,
        "{found} of {checked}"
    );
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Threat 37: an older copy of the store beside a newer mark, and the repair that the error names.
#[test]
fn a_store_that_was_put_back_by_itself_is_found_out_and_removing_the_mark_accepts_it() {
    let folder = tempfile::tempdir().unwrap();
    let backup = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    put(&store, "a", "1");
    drop(store);
    copy_folder(&folder.path().join("store"), backup.path());
    let store = open(folder.path());
    put(&store, "b", "2");
    drop(store);
    fs::remove_dir_all(folder.path().join("store")).unwrap();
    fs::create_dir(folder.path().join("store")).unwrap();
    copy_folder(backup.path(), &folder.path().join("store"));
    let data = DataFolder::open(folder.path()).unwrap();
    let error = SledStore::open(&data).err().expect("a lost write");
    let StoreError::Lost {
        held: 1,
        acknowledged: 2,
        mark,
        ..
    } = error
    else {
        panic!("{error}");
    };
    fs::remove_file(mark).unwrap();
    let store = SledStore::open(&data).unwrap();
    assert_eq!(store.get(b"a").unwrap().unwrap(), b"1");
    put(&store, "c", "3");
}

/// Threat 36. Mutation: leave out `has_room` in `Writer::run`.
#[test]
fn a_full_disk_refuses_writes_alone_and_only_while_it_is_full() {
    let temp = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(temp.path()).unwrap();
    let free = Arc::new(AtomicU64::new(room::RESERVE_BYTES + 1000));
    let store = SledStore::open_with(&folder, File::sync_data, {
        let free = Arc::clone(&free);
        Box::new(move || Ok(free.load(Ordering::SeqCst)))
    })
    .unwrap();
    put(&store, "a", "1");
    let large = || Txn::default().put("a", [b'2'; 1000]);
    let error = store.commit(large()).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    put(&store, "b", "1");
    free.store(room::RESERVE_BYTES - 1, Ordering::SeqCst);
    let error = store.ready().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the disk of the data folder has 16777215 bytes free, and a write needs 16777216; free disk space: writes are \
         taken again then, without a restart"
    );
    let small = store.commit(Txn::default().put("c", "1")).unwrap_err();
    assert!(matches!(small, StoreError::Full { .. }), "{small}");
    let looks = store.commit(Txn::default().equals("a", "1")).unwrap();
    assert_eq!(looks, Committed::Yes, "what writes nothing needs no room");
    let pair = |key: &[u8]| (key.to_vec(), b"1".to_vec());
    assert_eq!(store.scan(b"", None, 10).unwrap(), [pair(b"a"), pair(b"b")]);
    free.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(store.ready(), Ok(()));
    assert_eq!(store.commit(large()).unwrap(), Committed::Yes);
}

/// Mutation: leave out `tidy` in `Writer::commit`.
#[test]
fn a_read_writes_nothing_and_so_does_not_fail_after_a_write_that_did() {
    let temp = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(temp.path()).unwrap();
    let store = SledStore::open_with(&folder, File::sync_data, plenty()).unwrap();
    for number in 0..200 {
        put(&store, &format!("{number:04}"), "1");
        store.scan(b"", None, MAX_SCAN).unwrap();
        let written = store.shared.db.flush().unwrap();
        assert_eq!(written, 0, "after key {number}");
    }
}

/// Threat 36. Mutation: drop the result of `make_durable` in `Writer::commit`.
#[test]
fn a_failed_sync_is_no_acknowledgement_and_the_last_one() {
    let temp = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(temp.path()).unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let store = SledStore::open_with(
        &folder,
        {
            let broken = Arc::clone(&broken);
            move |file| match broken.load(Ordering::SeqCst) {
                true => Err(io::Error::from_raw_os_error(5)),
                false => file.sync_data(),
            }
        },
        plenty(),
    )
    .unwrap();
    put(&store, "a", "1");
    broken.store(true, Ordering::SeqCst);
    let txn = Txn::default().put("a", "2").put("b", "2");
    let error = store.commit(txn).unwrap_err();
    assert!(
        matches!(&error, StoreError::Uncertain(reason) if reason.contains("os error 5")),
        "{error}"
    );
    // A later sync that succeeds proves nothing about what an earlier one lost.
    broken.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        let error = store.commit(Txn::default().put("c", "3")).unwrap_err();
        assert!(matches!(error, StoreError::NotReady(_)), "{error}");
    }
    assert!(matches!(store.ready(), Err(StoreError::NotReady(_))));
    assert_eq!(
        store.scan(b"", None, 10).unwrap(),
        [(b"a".to_vec(), b"1".to_vec())],
        "reads go on, of what was acknowledged"
    );
    drop(store);
    let store = SledStore::open(&folder).unwrap();
    let a = store.get(b"a").unwrap();
    let b = store.get(b"b").unwrap();
    let whole = (a.as_deref(), b.as_deref());
    let kept = (Some(&b"2"[..]), Some(&b"2"[..]));
    assert!(whole == (Some(b"1"), None) || whole == kept, "{whole:?}");
}

/// Mutation: have `get` and `scan` look into sled alone, past `unacknowledged`.
#[test]
fn nothing_is_read_before_it_is_durable() {
    let temp = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(temp.path()).unwrap();
    let (entered, syncing) = sync_channel(0);
    let (go_on, released) = sync_channel::<()>(0);
    let store = SledStore::open_with(
        &folder,
        move |file| {
            entered.send(()).unwrap();
            released.recv().unwrap();
            file.sync_data()
        },
        plenty(),
    )
    .unwrap();
    let let_one_through = || {
        syncing.recv().unwrap();
        go_on.send(()).unwrap();
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| put(&store, "b", "old"));
        let_one_through();
        first.join().unwrap();
        let txn = Txn::default()
            .put("a", "new")
            .put("b", "new")
            .put("c", "new");
        let second = scope.spawn(|| store.commit(txn).unwrap());
        syncing.recv().unwrap();
        // sled has it all by now, and the disk perhaps not. Asserted only once the writer is let go, so that a
        // failure does not leave it waiting.
        let seen = (store.get(b"a"), store.get(b"b"), store.scan(b"", None, 10));
        go_on.send(()).unwrap();
        let only_b = vec![(b"b".to_vec(), b"old".to_vec())];
        assert_eq!(seen, (Ok(None), Ok(Some(b"old".to_vec())), Ok(only_b)));
        assert_eq!(second.join().unwrap(), Committed::Yes);
    });
    assert_eq!(store.scan(b"", None, 10).unwrap().len(), 3);
}

#[test]
fn commits_that_wait_for_one_sync_share_the_next() {
    const WAITING: usize = 20;
    let temp = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(temp.path()).unwrap();
    let syncs = Arc::new(AtomicUsize::new(0));
    let (entered, syncing) = sync_channel(WAITING + 1);
    let (go_on, released) = sync_channel::<()>(WAITING + 1);
    let store = SledStore::open_with(
        &folder,
        {
            let syncs = Arc::clone(&syncs);
            move |file| {
                syncs.fetch_add(1, Ordering::SeqCst);
                entered.send(()).unwrap();
                released.recv().unwrap();
                file.sync_data()
            }
        },
        plenty(),
    )
    .unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| put(&store, "first", "x"));
        syncing.recv().unwrap();
        let answers: Vec<_> = (0..WAITING)
            .map(|number| {
                let (answer, answered) = sync_channel(1);
                let txn = Txn::default().put(format!("{number}"), "x");
                store
                    .jobs
                    .as_ref()
                    .unwrap()
                    .send(Job { txn, answer })
                    .unwrap();
                answered
            })
            .collect();
        go_on.send(()).unwrap();
        go_on.send(()).unwrap();
        for answer in answers {
            assert_eq!(answer.recv().unwrap(), Ok(Committed::Yes));
        }
    });
    assert_eq!(syncs.load(Ordering::SeqCst), 2);
}

/// Mutation: make `record::PIECE_BYTES` 100 KiB.
#[test]
fn sled_never_writes_a_file_that_it_does_not_sync() {
    let temporary = Temporary::new();
    // The largest values under neighbouring keys fill leaves, the longest keys fill inner nodes.
    for round in 0..3u8 {
        for number in 0..30 {
            let value = vec![round; MAX_VALUE_BYTES];
            let txn = Txn::default().put(format!("v{number:03}"), value);
            assert_eq!(temporary.commit(txn).unwrap(), Committed::Yes);
        }
    }
    for chunk in 0..40 {
        let txn = (0..MAX_OPERATIONS).fold(Txn::default(), |txn, number| {
            // Distinct from the front on, so that sled cannot shorten them by a common prefix.
            let mut key = blake3::hash(format!("{chunk}/{number}").as_bytes())
                .to_hex()
                .as_bytes()
                .repeat(16);
            key.truncate(MAX_KEY_BYTES);
            txn.put(key, "x")
        });
        let halves = txn.writes.chunks(MAX_OPERATIONS / 2).map(<[_]>::to_vec);
        for writes in halves {
            let txn = Txn {
                checks: Vec::new(),
                writes,
            };
            assert_eq!(temporary.commit(txn).unwrap(), Committed::Yes);
        }
    }
    let blobs = temporary.folder.path().join("store/blobs");
    assert_eq!(fs::read_dir(blobs).unwrap().count(), 0);
}

/// Mutation: leave out `remove_unfinished_snapshots`.
#[test]
fn a_snapshot_that_was_not_finished_does_not_keep_it_from_opening() {
    let mut temporary = Temporary::new();
    put(&temporary, "a", "1");
    let left = temporary
        .folder
        .path()
        .join("store/snap.FFFFFFFFFFFFFFFF.generating");
    fs::write(&left, "half").unwrap();
    temporary.reopen();
    assert!(!left.exists());
    assert_eq!(temporary.get(b"a").unwrap().unwrap(), b"1");
}

#[test]
fn the_folder_stays_locked_until_the_store_is_gone_too() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let error = DataFolder::open(temp.path()).unwrap_err().to_string();
    assert!(
        error.contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    drop(store);
    open(temp.path());
}

#[test]
fn an_error_of_the_system_is_told_in_its_own_words() {
    let full = || sled::Error::Io(io::Error::from_raw_os_error(28));
    // sled hands on clones, and a clone holds the debug text.
    for (error, expected) in [
        (full(), "No space left on device (os error 28)"),
        (full().clone(), "No space left on device (os error 28)"),
        (
            full().clone().clone(),
            "No space left on device (os error 28)",
        ),
    ] {
        assert_eq!(sled_text(&error), expected);
    }
    // `open_sled` waits for a lock that is let go late by this very text.
    let held =
        "could not acquire lock on \"db\": Os { code: 11, kind: WouldBlock, message: \"busy\" }";
    let error = sled::Error::Io(io::Error::other(held));
    assert_eq!(sled_text(&error), held);
}
