//! Backups of a data folder, and folders of backups.

use super::*;
use crate::rotation::Authorities;
use plumb_ledger::{DataFolder, SledStore, Txn};
use tokio_stream::StreamExt;

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

/// A data folder with something in each place.
fn folder(at: &Path) -> Source {
    let data = DataFolder::open(at).unwrap();
    let lineage = data.lineage().clone();
    let store = SledStore::open(&data).unwrap();
    for number in 0..2500 {
        let key = format!("k/{number:05}");
        let _ = store
            .commit(Txn::default().put(key, vec![b'v'; number % 300]))
            .unwrap();
    }
    let large = Txn::default().put("large", vec![b'l'; 90_000]);
    let _ = store.commit(large).unwrap();
    Authorities::open(&at.join("identity"), &lineage, now()).unwrap();
    fs::write(at.join("identity/secrets.key"), "0a".repeat(32)).unwrap();
    for place in ["blobs", "workspaces/crm/blobs"] {
        fs::create_dir_all(at.join(place)).unwrap();
        let bytes = format!("a blob of {place}").repeat(20_000);
        let name = Hash::of(bytes.as_bytes()).to_string();
        fs::write(at.join(place).join(name), bytes).unwrap();
    }
    Source::new(
        at,
        lineage,
        WorkspaceName::new("shop").unwrap(),
        now,
        Arc::new(Measured::new(store)),
    )
}

/// The same folder, opened again.
fn folder_again(at: &Path) -> Source {
    let data = DataFolder::open(at).unwrap();
    let store = SledStore::open(&data).unwrap();
    let workspace = WorkspaceName::new("shop").unwrap();
    let lineage = data.lineage().clone();
    Source::new(at, lineage, workspace, now, Arc::new(Measured::new(store)))
}

/// Notes a secret that is sealed with a key of this id.
fn seal(at: &Path, name: &str, kek: &str) {
    let data = DataFolder::open(at).unwrap();
    let store = Arc::new(SledStore::open(&data).unwrap());
    let workspace = WorkspaceName::new("shop").unwrap();
    let ledger = plumb_ledger::Ledger::open(store, data.lineage().clone(), workspace);
    let name = plumb_model::SecretName::new(name).unwrap();
    let version = plumb_ledger::SecretVersionRecord {
        set_at: now(),
        set_by: "ann".to_owned(),
        digest: Hash::of(b"value"),
    };
    let record = plumb_ledger::SecretRecord {
        name: name.clone(),
        kek: kek.to_owned(),
        data_key: "AAAA".to_owned(),
        last: 1,
        versions: [(1, version)].into(),
    };
    let changed = ledger.change_secret::<_, plumb_ledger::LedgerError>(&name, |_| {
        let (record, value) = (record.clone(), Some((1, "AAAA".to_owned())));
        Ok((Some(plumb_ledger::SecretChange { record, value }), ()))
    });
    changed.unwrap();
}

async fn taken(source: &Source, with_blobs: bool) -> Vec<u8> {
    let mut pieces = source.take(with_blobs).unwrap().pieces();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        bytes.extend(piece.unwrap().data);
    }
    bytes
}

fn everything(data: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let store = SledStore::open(&DataFolder::open(data).unwrap()).unwrap();
    let (mut all, mut after) = (Vec::new(), None::<Vec<u8>>);
    loop {
        let pairs = store.scan(b"", after.as_deref(), MAX_SCAN).unwrap();
        let Some((last, _)) = pairs.last() else {
            return all;
        };
        after = Some(last.clone());
        all.extend(pairs);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_backed_up_is_restored_whole_and_holds_no_key() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let source = folder(&at("data"));
    let bytes = taken(&source, true).await;
    let secret = "0a".repeat(32);
    assert!(!bytes.windows(64).any(|part| part == secret.as_bytes()));
    assert!(!bytes.windows(11).any(|part| part == b"PRIVATE KEY"));
    assert!(!at("data/.backup-0").exists());
    fs::write(at("copy"), &bytes).unwrap();
    let names = copy_keys(&at("data"), &at("keys")).unwrap();
    assert_eq!(names, ["ca.key", "secrets.key"]);
    let keys = KeyFile::read(&at("keys")).unwrap();

    let restored = restore(&at("copy"), &at("new/data"), Some(&keys), now).unwrap();
    assert_eq!((restored.pairs, restored.blobs), (2501, 2));
    drop(source);
    assert_eq!(everything(&at("new/data")), everything(&at("data")));
    for name in [
        "lineage",
        "identity/ca.key",
        "identity/ca.pem",
        "identity/secrets.key",
    ] {
        let of = |folder: &str| fs::read(at(folder).join(name)).unwrap();
        assert_eq!(of("new/data"), of("data"), "{name}");
    }
    assert_eq!(
        fs::read_to_string(at("new/data/workspace")).unwrap(),
        "shop\n"
    );
    for place in ["blobs", "workspaces/crm/blobs"] {
        for name in super::names(&at("data").join(place)).unwrap() {
            let of = |folder: &str| fs::read(at(folder).join(place).join(&name)).unwrap();
            assert_eq!(of("new/data"), of("data"), "{place}/{name}");
        }
    }
    // What is there is never written over.
    let error = restore(&at("copy"), &at("new/data"), Some(&keys), now).unwrap_err();
    assert!(error.to_string().contains("is not empty"), "{error}");
    assert!(copy_keys(&at("data"), &at("keys")).is_err());
}

/// Row 37. Mutation: rename the folder before the last frame was read.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_leaves_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let source = folder(&at("data"));
    let bytes = taken(&source, true).await;
    copy_keys(&at("data"), &at("keys")).unwrap();
    let keys = KeyFile::read(&at("keys")).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 4;
    for bad in [
        &bytes[..bytes.len() - 1],
        &bytes[..bytes.len() / 3],
        &flipped,
    ] {
        fs::write(at("copy"), bad).unwrap();
        let error = restore(&at("copy"), &at("new"), Some(&keys), now).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("is damaged near byte"), "{text}");
        assert!(text.contains("use another copy"), "{text}");
        let left: Vec<_> = super::names(temp.path()).unwrap();
        assert_eq!(left, ["copy", "data", "keys"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_do_not_fit_are_refused_and_without_any_the_ca_is_new() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let source = folder(&at("data"));
    fs::write(at("copy"), taken(&source, false).await).unwrap();
    drop(folder(&at("other")));
    copy_keys(&at("other"), &at("foreign")).unwrap();
    let foreign = KeyFile::read(&at("foreign")).unwrap();
    let error = restore(&at("copy"), &at("new"), Some(&foreign), now).unwrap_err();
    assert!(
        error.to_string().contains("another control plane"),
        "{error}"
    );

    // The same control plane, and another CA than the one in the backup.
    copy_keys(&at("data"), &at("keys")).unwrap();
    let mut moved = KeyFile::read(&at("keys")).unwrap();
    let theirs = KeyFile::read(&at("foreign")).unwrap();
    moved.swap_keys(theirs);
    let error = restore(&at("copy"), &at("new"), Some(&moved), now).unwrap_err();
    assert!(
        error.to_string().contains("do not fit the backup"),
        "{error}"
    );
    assert!(!at("new").exists());

    // A secret that was sealed anew, with a key that was made after the copy of the keys.
    let source = {
        drop(source);
        seal(&at("data"), "API_KEY", "0123456789abcdef");
        folder_again(&at("data"))
    };
    fs::write(at("later"), taken(&source, false).await).unwrap();
    drop(source);
    let keys = KeyFile::read(&at("keys")).unwrap();
    let error = restore(&at("later"), &at("new"), Some(&keys), now).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the secret API_KEY is sealed with another one"),
        "{error}"
    );
    assert!(!at("new").exists());

    let mut text = fs::read_to_string(at("keys")).unwrap();
    text = text.replacen("LS0t", "LS1t", 1);
    fs::write(at("bad"), text).unwrap();
    let error = KeyFile::read(&at("bad")).unwrap_err();
    assert!(error.to_string().contains("digest"), "{error}");

    let restored = restore(&at("copy"), &at("new"), None, now).unwrap();
    assert_eq!(restored.blobs, 0);
    assert!(!at("new/identity").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_backup_is_taken_at_a_time() {
    let temp = tempfile::tempdir().unwrap();
    let source = folder(temp.path());
    let first = source.take(false).unwrap();
    assert!(matches!(source.take(false), Err(BackupError::Refused(_))));
    drop(first);
    source.take(false).unwrap();
}
