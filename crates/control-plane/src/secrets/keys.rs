//! The key-encryption keys: they wrap the data key of every secret, and are kept outside the store.
//!
//! They come from the first of these that there is: the file named by `PLUMB_SECRET_KEY_FILE`; the systemd credential
//! `plumb-secret-key`; the variable `PLUMB_SECRET_KEY`; `DATA/identity/secrets.key` (mode 0600), which is made if there
//! is none. A file holds one key a line, 64 hex digits: the first wraps, the others only open what they wrapped before.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use plumb_model::sealed::{KEY_BYTES, Key};
use zeroize::Zeroizing;

use crate::identity::{self, IdentityError};

/// The file in `DATA/identity`.
const OWN: &str = "secrets.key";

/// The name of the systemd credential.
const CREDENTIAL: &str = "plumb-secret-key";

/// The key-encryption keys.
#[derive(Debug)]
pub(crate) struct Keys {
    /// The folder of this control plane's own file; none if the keys are somebody else's to keep.
    own: Option<PathBuf>,
    /// The first wraps.
    all: RwLock<Vec<Key>>,
    /// Held for reading while a data key is wrapped and stored, and for writing while all of them are wrapped anew: so
    /// none is stored under a key that is just being given up.
    turn: RwLock<()>,
}

impl Keys {
    /// Opens them. `env` looks a variable of the environment up.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds something else.
    pub fn open(
        identity_folder: &Path,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, IdentityError> {
        let given = env("PLUMB_SECRET_KEY_FILE").map(PathBuf::from).or_else(|| {
            let credential = PathBuf::from(env("CREDENTIALS_DIRECTORY")?).join(CREDENTIAL);
            credential.is_file().then_some(credential)
        });
        let (own, path, text) = if let Some(path) = given {
            let text = identity::read_bytes(&path)?.ok_or_else(|| IdentityError::Damaged {
                path: path.clone(),
                why: "there is no such file; it should hold 64 hex digits, as `openssl rand -hex 32` prints them".to_owned(),
            })?;
            (None, path, text)
        } else if let Some(text) = env("PLUMB_SECRET_KEY") {
            let path = PathBuf::from("PLUMB_SECRET_KEY");
            (None, path, text.into_encoded_bytes())
        } else {
            let path = identity_folder.join(OWN);
            let text = match identity::read_bytes(&path)? {
                Some(text) => text,
                None => {
                    let key = random_key()?;
                    write(identity_folder, std::slice::from_ref(&key))?;
                    key.text().as_bytes().to_vec()
                }
            };
            (Some(identity_folder.to_owned()), path, text)
        };
        let text = Zeroizing::new(text);
        let all = parse(&text).ok_or_else(|| IdentityError::Damaged {
            path,
            why: "it should hold keys of 64 hex digits, one a line".to_owned(),
        })?;
        Ok(Self {
            own,
            all: RwLock::new(all),
            turn: RwLock::default(),
        })
    }

    fn all(&self) -> RwLockReadGuard<'_, Vec<Key>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key that wraps now.
    pub fn newest(&self) -> Key {
        self.all()[0].clone()
    }

    /// The key of an id.
    pub fn named(&self, id: &str) -> Option<Key> {
        self.all().iter().find(|key| key.id() == id).cloned()
    }

    /// Whether a rotation of this control plane's own key was cut short.
    pub fn is_rotating(&self) -> bool {
        self.own.is_some() && self.all().len() > 1
    }

    /// Whether somebody else keeps them.
    pub fn are_given(&self) -> bool {
        self.own.is_none()
    }

    /// Keeps a rotation off for as long as a data key is wrapped and stored.
    pub fn wrapping(&self) -> RwLockReadGuard<'_, ()> {
        self.turn.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps everybody else off for as long as all data keys are wrapped anew.
    pub fn rotating(&self) -> RwLockWriteGuard<'_, ()> {
        self.turn.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new key before the present one, durably, unless that has been done. A key that is given is somebody else's to
    /// replace.
    pub fn begin(&self) -> Result<(), IdentityError> {
        let Some(folder) = &self.own else {
            return Ok(());
        };
        if self.all().len() > 1 {
            return Ok(());
        }
        let mut all = vec![random_key()?];
        all.extend(self.all().iter().cloned());
        write(folder, &all)?;
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = all;
        Ok(())
    }

    /// Forgets all but the newest, once nothing is wrapped in another any more.
    pub fn finish(&self) -> Result<(), IdentityError> {
        let Some(folder) = &self.own else {
            return Ok(());
        };
        let newest = vec![self.newest()];
        write(folder, &newest)?;
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = newest;
        Ok(())
    }
}

fn random_key() -> Result<Key, IdentityError> {
    identity::random::<KEY_BYTES>()
        .map(Key::new)
        .map_err(|error| IdentityError::Make(error.to_string()))
}

fn write(folder: &Path, keys: &[Key]) -> Result<(), IdentityError> {
    let mut text = Zeroizing::new(String::new());
    for key in keys {
        text.push_str(&key.text());
        text.push('\n');
    }
    identity::write_private(folder, OWN, text.as_bytes())
}

fn parse(text: &[u8]) -> Option<Vec<Key>> {
    let text = std::str::from_utf8(text).ok()?;
    let lines = text.lines().map(str::trim);
    let keys: Option<Vec<Key>> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(Key::parse)
        .collect();
    keys.filter(|keys| !keys.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_own_key_is_private_and_a_given_one_goes_before_it() {
        let temp = tempfile::tempdir().unwrap();
        let none = |_: &str| None;
        let own = Keys::open(temp.path(), &none).unwrap();
        let path = temp.path().join(OWN);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let again = Keys::open(temp.path(), &none).unwrap();
        assert_eq!(again.newest().id(), own.newest().id());

        let given = temp.path().join(CREDENTIAL);
        std::fs::write(&given, format!("# mine\n{}\n", "ab".repeat(32))).unwrap();
        let text = Key::parse(&"ab".repeat(32)).unwrap().id();
        let folder = temp.path().as_os_str().to_owned();
        for (variable, value) in [
            ("PLUMB_SECRET_KEY_FILE", given.as_os_str().to_owned()),
            ("CREDENTIALS_DIRECTORY", folder),
            ("PLUMB_SECRET_KEY", OsString::from("ab".repeat(32))),
        ] {
            let env = |name: &str| (name == variable).then(|| value.clone());
            let keys = Keys::open(temp.path(), &env).unwrap();
            assert_eq!(keys.newest().id(), text, "{variable}");
            assert!(keys.are_given());
        }
        let env = |name: &str| (name == "PLUMB_SECRET_KEY").then(|| OsString::from("short"));
        let error = Keys::open(temp.path(), &env).unwrap_err().to_string();
        assert!(
            error.contains("PLUMB_SECRET_KEY") && !error.contains("short"),
            "{error}"
        );
    }

    #[test]
    fn a_rotation_that_was_cut_short_is_seen_at_the_next_start() {
        let temp = tempfile::tempdir().unwrap();
        let none = |_: &str| None;
        let keys = Keys::open(temp.path(), &none).unwrap();
        let first = keys.newest().id();
        keys.begin().unwrap();
        let second = keys.newest().id();
        assert_ne!(first, second);
        let again = Keys::open(temp.path(), &none).unwrap();
        assert!(again.is_rotating() && again.named(&first).is_some());
        assert_eq!(again.newest().id(), second);
        // Beginning again makes no third one.
        again.begin().unwrap();
        assert_eq!(again.newest().id(), second);
        again.finish().unwrap();
        let last = Keys::open(temp.path(), &none).unwrap();
        assert!(!last.is_rotating() && last.named(&first).is_none());
    }
}
