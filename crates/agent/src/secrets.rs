//! The secrets of this machine: those that its assignment names, and no others, kept encrypted on its disk so that a reboot
//! without a control plane starts what it should.
//!
//! `DATA/secrets/NAME@VERSION` holds a value, sealed with a key of this machine alone: `DATA/identity/secrets.key` (mode
//! 0600), or the systemd credential `plumb-agent-secret-key`, which a TPM can hold. What a blueprint wants in memory only is
//! never written. It decides nothing about who may have what: the control plane hands over what is recorded for this
//! machine. It never logs a value.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plumb_dispatch::protocol::SecretVersion;
use plumb_driver::secrets::Secrets;
use plumb_model::sealed::{Key, NONCE_BYTES};
use plumb_model::{Assignment, Hash, Secret, SecretName, SecretRef};

use crate::folder::replace;
use crate::link::random_bytes;

/// The file of the key in `DATA/identity`.
const KEY: &str = "secrets.key";

/// The name of the systemd credential.
const CREDENTIAL: &str = "plumb-agent-secret-key";

/// What an assignment names, and how it is kept.
pub type Wanted = BTreeMap<SecretVersion, Kept>;

/// How a secret is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Encrypted on the disk.
    OnDisk,
    /// In memory alone.
    InMemory,
}

/// Every version of a secret that an assignment names. Where one use wants it in memory only, it is.
#[must_use]
pub fn wanted(assignment: &Assignment) -> Wanted {
    let mut all = Wanted::new();
    for resource in assignment.resources() {
        for secret in resource.spec.secrets() {
            let Some(version) = secret.version else {
                continue;
            };
            let kept = all
                .entry((secret.name.clone(), version))
                .or_insert(Kept::OnDisk);
            if resource.spec.keeps_in_memory(secret) {
                *kept = Kept::InMemory;
            }
        }
    }
    all
}

/// What stands for a secret where something waits for it.
#[must_use]
pub fn awaited((name, version): &SecretVersion) -> Option<Hash> {
    let secret = SecretRef {
        name: name.clone(),
        version: Some(*version),
        digest: None,
    };
    secret.awaited()
}

/// Keeps them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keeper {
    folder: PathBuf,
    key: Arc<Key>,
    /// What the newest assignment names. Held for as long as values come or go, so that an order that was overtaken by
    /// the next assignment takes nothing away from it.
    wanted: Arc<Mutex<Wanted>>,
    /// Where the drivers find them.
    pub shelf: Secrets,
}

impl Keeper {
    /// Opens the key, or makes one, and puts what is on the disk on the shelf. `env` looks a variable up.
    ///
    /// # Errors
    /// When the key cannot be read or made. A value that cannot be opened is fetched anew.
    pub fn open(
        data: &Path,
        shelf: Secrets,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> io::Result<Self> {
        let credential = env("CREDENTIALS_DIRECTORY")
            .map(|folder| PathBuf::from(folder).join(CREDENTIAL))
            .filter(|path| path.is_file());
        let own = data.join("identity").join(KEY);
        let path = credential.unwrap_or(own);
        let key = match fs::read_to_string(&path) {
            Ok(text) => Key::parse(text.trim())
                .ok_or_else(|| io::Error::other("it should hold one key of 64 hex digits"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Key::new(random_bytes());
                replace(&path, key.text().as_bytes(), 0o600)?;
                key
            }
            Err(error) => return Err(error),
        };
        let keeper = Self {
            folder: data.join("secrets"),
            key: Arc::new(key),
            wanted: Arc::default(),
            shelf,
        };
        keeper.load();
        Ok(keeper)
    }

    fn load(&self) {
        for (secret, path) in self.on_disk() {
            let opened = fs::read(&path).ok().and_then(|sealed| {
                let value = self.key.open(&purpose(&secret), &sealed).ok()?;
                std::str::from_utf8(&value).ok().map(str::to_owned)
            });
            match opened {
                Some(value) => self.shelf.put(secret.0, secret.1, Secret::new(value)),
                None => {
                    tracing::warn!(path = %path.display(), "a secret on the disk cannot be opened; it is asked for again");
                }
            }
        }
    }

    fn on_disk(&self) -> Vec<(SecretVersion, PathBuf)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (name, version) = name.split_once('@')?;
                let secret = (SecretName::new(name).ok()?, version.parse().ok()?);
                Some((secret, entry.path()))
            })
            .collect()
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what the newest assignment names. Returns those that are not on this machine.
    #[must_use]
    pub fn want(&self, wanted: Wanted) -> BTreeSet<SecretVersion> {
        let missing = wanted
            .keys()
            .filter(|(name, version)| !self.shelf.has(name, *version))
            .cloned()
            .collect();
        *self.wanted() = wanted;
        missing
    }

    /// Forgets what is not wanted any more, and takes off the disk what is to be in memory alone. Blocks.
    pub fn retain(&self) {
        let wanted = self.wanted();
        self.shelf.retain(&wanted.keys().cloned().collect());
        for (secret, path) in self.on_disk() {
            if wanted.get(&secret) != Some(&Kept::OnDisk)
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %error, "a secret that is not needed any more cannot be removed");
            }
        }
    }

    /// Takes a value in, if it is wanted: on the disk first, where it is to be there. Blocks. What the disk does not take is
    /// kept in memory alone, so that what waits for it can start.
    pub fn keep(&self, secret: &SecretVersion, value: Secret) {
        let wanted = self.wanted();
        let Some(kept) = wanted.get(secret) else {
            return;
        };
        if *kept == Kept::OnDisk
            && let Err(error) = self.write(secret, &value)
        {
            tracing::warn!(name = %secret.0, version = secret.1, %error, "a secret cannot be written to the disk; after a reboot it is asked for again");
        }
        self.shelf.put(secret.0.clone(), secret.1, value);
    }

    fn write(&self, secret: &SecretVersion, value: &Secret) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        let nonce: [u8; NONCE_BYTES] = random_bytes();
        let value = value.expose().as_bytes();
        let sealed = self.key.seal(nonce, &purpose(secret), value);
        let (name, version) = secret;
        write_beside(&self.folder, &format!("{name}@{version}"), &sealed)
    }
}

/// As [`replace`], beside a name that may have dots in it.
fn write_beside(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    // A name that no secret has, so that two of them never share one.
    let beside = folder.join(format!(".{}", Hash::of(name.as_bytes()).short()));
    replace(&beside, bytes, 0o600)?;
    fs::rename(&beside, folder.join(name))?;
    fs::File::open(folder)?.sync_all()
}

fn purpose((name, version): &SecretVersion) -> String {
    format!("plumb agent secret\n{name}\n{version}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn secret(name: &str, version: u64) -> SecretVersion {
        (SecretName::new(name).unwrap(), version)
    }

    fn open(data: &Path) -> Keeper {
        fs::create_dir_all(data.join("identity")).unwrap();
        Keeper::open(data, Secrets::default(), &|_| None).unwrap()
    }

    /// Rows 32 and 33. Mutations: `write` that writes the value itself; `keep` that writes whatever `kept` says.
    #[test]
    fn what_is_on_the_disk_is_sealed_and_what_is_for_memory_only_is_not_there() {
        let data = tempfile::tempdir().unwrap();
        let keeper = open(data.path());
        let value = |text: &str| Secret::new(text.to_owned());
        let wanted = Wanted::from([
            (secret("KEY.pem", 2), Kept::OnDisk),
            (secret("KEY", 1), Kept::InMemory),
        ]);
        assert_eq!(keeper.want(wanted.clone()).len(), 2);
        keeper.keep(&secret("KEY.pem", 2), value("canary-disk"));
        keeper.keep(&secret("KEY", 1), value("canary-memory"));
        keeper.keep(&secret("NOT-ASKED-FOR", 1), value("canary-other"));
        let files: Vec<_> = fs::read_dir(data.path().join("secrets"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(files.len(), 1);
        let bytes = fs::read(&files[0]).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"canary"));
        for path in [&files[0], &data.path().join("identity").join(KEY)] {
            let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600);
        }
        // After a reboot.
        let again = open(data.path());
        assert_eq!(
            again.want(wanted.clone()),
            BTreeSet::from([secret("KEY", 1)])
        );
        // Another machine's key opens nothing, nor does this one's under another name.
        fs::write(
            data.path().join("identity").join(KEY),
            Key::new([9; 32]).text().as_bytes(),
        )
        .unwrap();
        assert_eq!(open(data.path()).want(wanted).len(), 2);
    }

    #[test]
    fn what_the_assignment_names_no_more_is_forgotten_and_leaves_the_disk() {
        let data = tempfile::tempdir().unwrap();
        let keeper = open(data.path());
        let all = [1, 2, 3].map(|version| (secret("KEY", version), Kept::OnDisk));
        assert_eq!(keeper.want(all.into()).len(), 3);
        for version in [1, 2, 3] {
            keeper.keep(&secret("KEY", version), Secret::new(format!("v{version}")));
        }
        let wanted = Wanted::from([
            (secret("KEY", 2), Kept::OnDisk),
            (secret("KEY", 3), Kept::InMemory),
        ]);
        assert!(keeper.want(wanted).is_empty());
        keeper.retain();
        let left: Vec<_> = keeper.on_disk().into_iter().map(|(s, _)| s).collect();
        assert_eq!(left, [secret("KEY", 2)]);
        assert!(!keeper.shelf.has(&SecretName::new("KEY").unwrap(), 1));
    }
}
