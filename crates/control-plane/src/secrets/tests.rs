//! The vault against a store in memory: what is stored tells nothing, and a rotation may end anywhere.

use plumb_ledger::{MemoryStore, Store};
use plumb_model::{Lineage, WorkspaceName};

use super::*;

const CANARY: &str = "canary-90d2";

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

struct World {
    store: Arc<MemoryStore>,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            store: Arc::default(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::new(Keys::open(self.folder.path(), &|_| None).unwrap())
    }

    fn vault(&self, workspace: &str, keys: &Arc<Keys>) -> Vault {
        let ledger = Ledger::open(
            self.store.clone(),
            Lineage::from_random([1; 16]),
            WorkspaceName::new(workspace).unwrap(),
        );
        Vault::new(ledger, keys.clone(), now)
    }

    fn stored(&self) -> String {
        let all = self.store.scan(b"", None, 1000).unwrap();
        let text = all.iter().flat_map(|(key, value)| [key, value]);
        text.map(|bytes| String::from_utf8_lossy(bytes).into_owned() + "\n")
            .collect()
    }
}

fn name(text: &str) -> SecretName {
    SecretName::new(text).unwrap()
}

fn set(vault: &Vault, key: &str, value: &str) -> Set {
    let value = Secret::new(value.to_owned());
    vault
        .set(&name(key), &value, "local", false, &BTreeSet::new())
        .unwrap()
}

fn get(vault: &Vault, key: &str, version: u64) -> Option<String> {
    let value = vault.value(&name(key), version).unwrap()?;
    Some(value.expose().to_owned())
}

/// Rows 32 and 33. Mutations: `set` that stores the value without sealing it; `fresh` that stores the data key without
/// wrapping it (then the store alone opens all).
#[test]
fn a_stolen_store_is_ciphertext_and_opens_with_no_other_key() {
    let world = World::new();
    let vault = world.vault("main", &world.keys());
    set(&vault, "KEY", CANARY);
    let stored = world.stored();
    assert!(stored.contains("secret/KEY"));
    for form in [CANARY.to_owned(), STANDARD.encode(CANARY)] {
        assert!(!stored.contains(&form), "{stored}");
    }
    let key = std::fs::read_to_string(world.folder.path().join("secrets.key")).unwrap();
    assert!(!stored.contains(key.trim()));

    let thief = tempfile::tempdir().unwrap();
    let keys = Arc::new(Keys::open(thief.path(), &|_| None).unwrap());
    let error = world
        .vault("main", &keys)
        .value(&name("KEY"), 1)
        .unwrap_err();
    assert!(matches!(error, SecretError::KeyMissing { .. }));
    assert!(!error.to_string().contains(CANARY));
    // Nor does the record say anything under another name or in another workspace.
    let theirs = world.vault("theirs", &world.keys());
    assert_eq!(get(&theirs, "KEY", 1), None);
    let swapped = STANDARD.decode(vault.ledger.secret_value(&name("KEY"), 1).unwrap().unwrap());
    let record = vault.ledger.secret(&name("KEY")).unwrap().unwrap();
    let data_key = vault.data_key(&record).unwrap();
    assert!(
        data_key
            .open(&vault.value_of(&name("OTHER"), 1), &swapped.unwrap())
            .is_err()
    );
}

#[test]
fn equal_values_make_no_version_and_every_version_stays_readable_up_to_a_bound() {
    let world = World::new();
    let vault = world.vault("main", &world.keys());
    assert_eq!(set(&vault, "KEY", "a").version, 1);
    assert!(set(&vault, "KEY", "a").unchanged);
    for number in 2..=60 {
        let value = Secret::new(format!("v{number}"));
        let in_use = BTreeSet::from([3]);
        let set = vault
            .set(&name("KEY"), &value, "local", false, &in_use)
            .unwrap();
        assert_eq!(set.version, number);
    }
    assert_eq!(get(&vault, "KEY", 60).unwrap(), "v60");
    assert_eq!(get(&vault, "KEY", 3).unwrap(), "v3", "it is in use");
    assert_eq!(get(&vault, "KEY", 2), None);
    let KnownSecrets(Some(known)) = vault.known().unwrap() else {
        panic!("it was asked");
    };
    assert_eq!(known[&name("KEY")].current, 60);
    assert_eq!(known[&name("KEY")].versions.len(), KEPT_VERSIONS + 1);
}

#[test]
fn a_secret_that_was_removed_is_gone_and_never_gives_a_number_twice() {
    let world = World::new();
    let vault = world.vault("main", &world.keys());
    let missing = vault.set(
        &name("KEY"),
        &Secret::new("x".into()),
        "local",
        true,
        &BTreeSet::new(),
    );
    assert!(matches!(missing, Err(SecretError::Unknown(_))));
    set(&vault, "KEY", "a");
    set(&vault, "KEY", "b");
    let digest = vault.list().unwrap()[0].versions[&2].digest;
    assert_eq!(vault.remove(&name("KEY")).unwrap(), 2);
    assert_eq!(get(&vault, "KEY", 2), None);
    assert!(vault.list().unwrap().is_empty());
    assert!(!world.stored().contains("secret-value/"));
    assert!(matches!(
        vault.remove(&name("KEY")),
        Err(SecretError::Unknown(_))
    ));
    assert_eq!(set(&vault, "KEY", "b").version, 3);
    assert_ne!(
        vault.list().unwrap()[0].versions[&3].digest,
        digest,
        "another data key"
    );
}

#[test]
fn what_cannot_be_handed_over_is_refused_without_a_byte_of_it() {
    let world = World::new();
    let vault = world.vault("main", &world.keys());
    for bad in ["", &format!("{CANARY}\0"), &CANARY.repeat(MAX_VALUE)] {
        let value = Secret::new(bad.to_owned());
        let error = vault
            .set(&name("KEY"), &value, "local", false, &BTreeSet::new())
            .unwrap_err();
        assert!(matches!(error, SecretError::Value { .. }));
        assert!(!format!("{error} {error:?}").contains(CANARY));
    }
    let longest = "x".repeat(MAX_VALUE);
    set(&vault, "KEY", &longest);
    assert_eq!(get(&vault, "KEY", 1).unwrap(), longest);
}

/// Mutation: `rotate` that calls `finish` before `rewrap`.
#[test]
fn a_rotation_of_the_key_may_end_anywhere_and_goes_on_where_it_was() {
    let world = World::new();
    let workspaces = ["a", "b"];
    let vaults = |keys: &Arc<Keys>| workspaces.map(|workspace| world.vault(workspace, keys));
    let check = |keys: &Arc<Keys>| {
        for vault in &vaults(keys) {
            for key in ["ONE", "TWO"] {
                assert_eq!(get(vault, key, 1).unwrap(), format!("{key} of it"));
            }
        }
    };
    let keys = world.keys();
    for vault in &vaults(&keys) {
        for key in ["ONE", "TWO"] {
            set(vault, key, &format!("{key} of it"));
        }
    }
    let first = keys.newest().id();
    // It ends after the key was made, after the first workspace, and after all were wrapped.
    keys.begin().unwrap();
    check(&world.keys());
    let keys = world.keys();
    assert!(keys.is_rotating());
    assert_eq!(world.vault("a", &keys).rewrap().unwrap(), 2);
    check(&world.keys());
    let keys = world.keys();
    let (id, count) = rotate(&keys, &vaults(&keys)).unwrap();
    assert_eq!(count, 2, "the other two were wrapped before");
    assert_ne!(id, first);
    let keys = world.keys();
    assert!(!keys.is_rotating() && keys.named(&first).is_none());
    check(&keys);
    // What the digests say does not move with the key, and so neither does any plan.
    let before = vaults(&keys)[0].known().unwrap();
    rotate(&keys, &vaults(&keys)).unwrap();
    assert_eq!(vaults(&keys)[0].known().unwrap(), before);
}

#[test]
fn a_secret_whose_key_is_lost_can_be_set_again() {
    let world = World::new();
    set(&world.vault("main", &world.keys()), "KEY", "lost");
    std::fs::remove_file(world.folder.path().join("secrets.key")).unwrap();
    let vault = world.vault("main", &world.keys());
    assert_eq!(vault.unreadable().unwrap(), [name("KEY")]);
    assert_eq!(set(&vault, "KEY", "found").version, 2);
    assert_eq!(get(&vault, "KEY", 2).unwrap(), "found");
    assert_eq!(get(&vault, "KEY", 1), None);
}
