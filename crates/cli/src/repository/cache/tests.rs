//! A set comes back as it was, or not at all.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::*;

/// A manifest, a machine and so many apps.
fn files(apps: usize) -> Vec<SourceFile> {
    let file = |path: &str, text: String| SourceFile {
        path: path.to_owned(),
        text: text.into_bytes(),
    };
    let mut all = vec![file(
        "plumb.yaml",
        "kind: Workspace\nname: shop\n---\nkind: Machine\nname: vm\n".to_owned(),
    )];
    for number in 0..apps {
        let text = format!(
            "kind: App\nname: a{number}\nmachines: vm\nrun: [./server, --port, \"${{app.a0.ports.http}}\"]\nports: {{ http: auto }}\nenv: {{ KEY: \"{number}\" }}\n"
        );
        all.push(file(&format!("apps/{number}.yaml"), text));
    }
    all
}

fn set(apps: usize) -> BlueprintSet {
    plumb_blueprint::parse(&files(apps), &Options::default()).unwrap()
}

fn cache(folder: &Path) -> Cache {
    Cache {
        folder: folder.join("cache/plumb/blueprints"),
        key: Hash::of(b"a"),
    }
}

/// Mutation: leave `origins`, or the last part of the apps, out of `encode`.
#[test]
fn a_set_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    assert_eq!(cache.get(), None);
    for apps in [0, 1, 2 * APPS_PER_PART + 3] {
        let before = set(apps);
        let mut given = before.clone();
        cache.put(&mut given);
        assert_eq!(given, before);
        assert_eq!(cache.get().as_ref(), Some(&before));
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&cache.folder), 0o700);
    assert_eq!(mode(&cache.path()), 0o600);
    assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), 1);
}

/// Mutation: leave any `add` out of `key`.
#[test]
fn any_other_byte_name_order_environment_or_program_is_another_entry() {
    let options = |env: Option<&str>, others: Vec<SourceFile>, large: &[(&str, u64)]| Options {
        env: env.map(str::to_owned),
        others,
        too_large: large.iter().map(|(p, n)| ((*p).to_owned(), *n)).collect(),
    };
    let plain = options(None, Vec::new(), &[]);
    let all = files(2);
    let mut keys = vec![
        key("1", &all, &plain),
        key("2", &all, &plain),
        key("1", &all[1..], &plain),
        key("1", &[], &plain),
        key("1", &all, &options(Some("staging"), Vec::new(), &[])),
        key("1", &all, &options(Some("None"), Vec::new(), &[])),
        key("1", &all, &options(None, Vec::new(), &[("x.yaml", 1)])),
        key("1", &all[1..], &options(None, all[..1].to_vec(), &[])),
        key("1", &all, &options(None, all[..1].to_vec(), &[])),
    ];
    for file in 0..all.len() {
        for at in 0..all[file].text.len() {
            let mut changed = all.clone();
            changed[file].text[at] ^= 1;
            keys.push(key("1", &changed, &plain));
        }
        let mut changed = all.clone();
        changed[file].path.push('x');
        keys.push(key("1", &changed, &plain));
        // The end of a text is not the beginning of what follows.
        let mut moved = all.clone();
        let last = moved[file].text.pop().unwrap();
        if let Some(next) = moved.get_mut(file + 1) {
            next.text.insert(0, last);
        }
        keys.push(key("1", &moved, &plain));
    }
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count);
    assert_eq!(key("1", &all, &plain), key("1", &files(2), &plain));
}

/// Mutation: do not compare the hash in `decode`, or read past a part's end.
#[test]
fn a_damaged_or_foreign_entry_is_as_good_as_none() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    let mut set = set(2);
    cache.put(&mut set);
    let good = fs::read(cache.path()).unwrap();
    for at in (0..good.len()).step_by(7).chain(0..48) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        fs::write(cache.path(), &bad).unwrap();
        assert_eq!(cache.get(), None, "byte {at}");
        fs::write(cache.path(), &good[..at]).unwrap();
        assert_eq!(cache.get(), None, "the first {at} bytes");
    }
    // What bears its hash and is still no set.
    for body in [
        &b""[..],
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        &[0; 16],
        &[0; 24],
    ] {
        let hash = Hash::of(body);
        fs::write(cache.path(), [FORMAT, &hash.0[..], body].concat()).unwrap();
        assert_eq!(cache.get(), None, "{body:?}");
    }
    fs::remove_file(cache.path()).unwrap();
    fs::create_dir(cache.path()).unwrap();
    assert_eq!(cache.get(), None);
    cache.put(&mut set);
    fs::remove_dir(cache.path()).unwrap();
    fs::write(cache.path(), &good).unwrap();
    assert_eq!(cache.get(), Some(set));
}

#[test]
fn a_folder_that_cannot_be_written_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    fs::write(folder.path().join("cache"), "a file").unwrap();
    cache.put(&mut set(1));
    assert_eq!(cache.get(), None);
}

/// Mutation: leave the check of the warnings out of `put`.
#[test]
fn a_set_with_warnings_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    let mut set = set(1);
    let text = "kind: App\nname: 1x;\n".to_owned().into_bytes();
    let path = "x.yaml".to_owned();
    let problems = plumb_blueprint::parse(&[SourceFile { path, text }], &Options::default());
    set.warnings.items = problems.unwrap_err().items;
    cache.put(&mut set);
    assert_eq!(cache.get(), None);
}

#[test]
fn what_was_not_used_for_longest_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = |number: usize| folder.path().join(number.to_string());
    let now = SystemTime::now();
    for number in 0..MAX_ENTRIES + 3 {
        let file = File::create(path(number)).unwrap();
        file.set_len(1).unwrap();
        let age = Duration::from_secs(10 * number as u64);
        file.set_modified(now - age).unwrap();
    }
    // The second oldest was used just now.
    let used = MAX_ENTRIES + 1;
    File::open(path(used)).unwrap().set_modified(now).unwrap();
    prune(folder.path()).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), MAX_ENTRIES);
    assert!(path(used).exists() && path(0).exists());
    assert!(!path(MAX_ENTRIES).exists() && !path(MAX_ENTRIES + 2).exists());
    // A sparse file is as large as it says.
    File::options()
        .write(true)
        .open(path(0))
        .unwrap()
        .set_len(MAX_BYTES)
        .unwrap();
    File::open(path(0))
        .unwrap()
        .set_modified(now + Duration::from_secs(9))
        .unwrap();
    prune(folder.path()).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
