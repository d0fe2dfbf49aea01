//! The keys of a control plane in a file of their own: what a backup never holds.
//!
//! Whoever has this file and a backup is this control plane, so its mode is 0600 and it belongs elsewhere than the
//! backups. It is made from the data folder itself, by somebody who may read that; the API has no way to it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plumb_model::{Hash, Lineage};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::format::{BackupError, failed, is_key};
use super::names;

/// The newest format of such a file that this version reads, and the one that it writes.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored {
    /// What it is, for whoever finds it.
    what: String,
    format: u32,
    lineage: Lineage,
    /// Name → bytes in base64.
    keys: BTreeMap<String, String>,
    /// Over lineage and keys.
    digest: Hash,
}

/// The keys of one control plane.
pub struct KeyFile {
    /// Whose.
    pub lineage: Lineage,
    keys: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyFile")
            .field("names", &self.names())
            .finish_non_exhaustive()
    }
}

fn digest(lineage: &Lineage, keys: &BTreeMap<String, String>) -> Hash {
    Hash::of_json(&(lineage, keys))
}

/// Copies the keys of a data folder into a file, mode 0600. Their names.
///
/// # Errors
/// When there is no data folder, when the file is there already, or when the system refuses.
pub fn copy_keys(data: &Path, file: &Path) -> Result<Vec<String>, BackupError> {
    let lineage_path = data.join("lineage");
    let lineage = fs::read_to_string(&lineage_path).map_err(failed("read", &lineage_path))?;
    let lineage = Lineage::new(lineage.trim())
        .map_err(|e| BackupError::Refused(format!("{} is damaged: {e}", lineage_path.display())))?;
    let folder = data.join("identity");
    let mut keys = BTreeMap::new();
    for name in names(&folder)?.into_iter().filter(|name| is_key(name)) {
        let path = folder.join(&name);
        let bytes = Zeroizing::new(fs::read(&path).map_err(failed("read", &path))?);
        keys.insert(name, STANDARD.encode(&*bytes));
    }
    if keys.is_empty() {
        return Err(BackupError::Refused(format!(
            "{} holds no keys: it is no data folder of a control plane; give the one that --data of `plumb server` names",
            data.display()
        )));
    }
    if file.exists() {
        return Err(BackupError::Refused(format!(
            "{} exists already; name another file, so that no older keys are lost",
            file.display()
        )));
    }
    let found = keys.keys().cloned().collect();
    let stored = Stored {
        what:
            "the keys of a plumb control plane: whoever has them and a backup is that control plane"
                .to_owned(),
        format: FORMAT,
        digest: digest(&lineage, &keys),
        lineage,
        keys,
    };
    let text = Zeroizing::new(
        serde_json::to_vec_pretty(&stored).expect("texts and numbers are always JSON"),
    );
    let file = std::path::absolute(file).map_err(failed("find", file))?;
    plumb_ledger::write_durably(&file, &text).map_err(failed("write", &file))?;
    Ok(found)
}

impl KeyFile {
    /// Reads such a file.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was written.
    pub fn read(file: &Path) -> Result<Self, BackupError> {
        let bytes = Zeroizing::new(fs::read(file).map_err(failed("read", file))?);
        // What is wrong is not told in detail: it might quote a key.
        let bad = |why: &str| {
            BackupError::Refused(format!(
                "{} is no file of keys, or is damaged ({why}); give one that `plumb backup --keys` has written",
                file.display()
            ))
        };
        let stored: Stored =
            serde_json::from_slice(&bytes).map_err(|e| bad(&format!("line {}", e.line())))?;
        if stored.format > FORMAT {
            return Err(BackupError::Refused(format!(
                "{} was written by a newer plumb (format {}, this one reads up to {FORMAT}); upgrade plumb",
                file.display(),
                stored.format
            )));
        }
        if stored.digest != digest(&stored.lineage, &stored.keys) {
            return Err(bad("its digest is another"));
        }
        let mut keys = BTreeMap::new();
        for (name, text) in stored.keys {
            if !is_key(&name) {
                return Err(bad("it names a file that is no key"));
            }
            let bytes = STANDARD
                .decode(text)
                .map_err(|_| bad("a key cannot be read"))?;
            keys.insert(name, Zeroizing::new(bytes));
        }
        Ok(Self {
            lineage: stored.lineage,
            keys,
        })
    }

    /// The names of the keys.
    pub fn names(&self) -> Vec<&str> {
        self.keys.keys().map(String::as_str).collect()
    }

    /// Writes them into the folder `identity`.
    pub(super) fn write_to(&self, folder: &Path) -> Result<(), BackupError> {
        for (name, bytes) in &self.keys {
            let path = folder.join(name);
            plumb_ledger::write_durably(&path, bytes).map_err(failed("write", &path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
impl KeyFile {
    /// Takes another control plane's keys for its own.
    pub(super) fn swap_keys(&mut self, other: Self) {
        self.keys = other.keys;
    }
}
