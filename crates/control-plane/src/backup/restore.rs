//! Makes a data folder of a backup: beside, whole, and only then under its name.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plumb_ledger::{
    Committed, DATA_FORMAT, DataFolder, Ledger, MAX_OPERATIONS, MAX_TRANSACTION_BYTES, SledStore,
    Store, Txn,
};
use plumb_model::{Lineage, SecretName, Timestamp, WorkspaceName};

use super::format::{BackupError, Frame, Header, Reader, failed};
use super::keys::KeyFile;
use crate::rotation::Authorities;
use crate::secrets::keys::Keys;

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the backup says of itself.
    pub header: Header,
    /// How many pairs of the store.
    pub pairs: u64,
    /// How many blobs.
    pub blobs: u64,
}

/// A folder that is removed unless it is kept.
struct Beside(PathBuf);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn refused(error: &(dyn std::error::Error + 'static)) -> BackupError {
    BackupError::Refused(crate::refuse::chain(error))
}

/// Makes the data folder `data` of a backup. Without keys the control plane gets a new CA, so that every machine and context has to
/// join anew, and secrets cannot be read unless their key is given to it; so that takes `without_keys`. Blocks.
///
/// # Errors
/// See [`BackupError`]. Nothing is at `data` then that was not there before.
pub fn restore(
    file: &Path,
    data: &Path,
    keys: Option<&KeyFile>,
    now: fn() -> Timestamp,
) -> Result<Restored, BackupError> {
    let input = File::open(file).map_err(failed("open", file))?;
    let mut reader = Reader::new(BufReader::with_capacity(256 * 1024, input))?;
    let header = reader.header().clone();
    if let Some(keys) = keys
        && keys.lineage != header.lineage
    {
        return Err(BackupError::Refused(
            "the keys are of another control plane than the backup; give those that were copied beside it".to_owned(),
        ));
    }
    let data = std::path::absolute(data).map_err(failed("find", data))?;
    must_be_free(&data)?;
    let (Some(parent), Some(name)) = (data.parent(), data.file_name()) else {
        return Err(BackupError::Refused(
            "give --data a folder that can be made".to_owned(),
        ));
    };
    fs::create_dir_all(parent).map_err(failed("create", parent))?;
    let beside = parent.join(format!(
        ".{}.restoring-{}",
        name.to_string_lossy(),
        std::process::id()
    ));
    folder(&beside)?;
    let beside = Beside(beside);
    let restored = fill(&mut reader, &beside.0, keys)?;
    check(&beside.0, &header, keys.is_some(), now)?;
    // An empty folder in its place gives way to it.
    fs::rename(&beside.0, &data).map_err(failed("make", &data))?;
    std::mem::forget(beside);
    File::open(parent)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("sync", parent))?;
    Ok(restored)
}

/// Refuses a folder that holds anything.
fn must_be_free(data: &Path) -> Result<(), BackupError> {
    match fs::read_dir(data) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(BackupError::Refused(format!(
                "{} is not empty; move it away first, or restore into another folder",
                data.display()
            ))),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("look into", data)(e)),
    }
}

fn folder(path: &Path) -> Result<(), BackupError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("create", path))
}

fn note(path: &Path, text: &str) -> Result<(), BackupError> {
    plumb_ledger::write_durably(path, format!("{text}\n").as_bytes()).map_err(failed("write", path))
}

fn fill(
    reader: &mut Reader<BufReader<File>>,
    to: &Path,
    keys: Option<&KeyFile>,
) -> Result<Restored, BackupError> {
    let header = reader.header().clone();
    let Header {
        lineage, workspace, ..
    } = &header;
    prepare(to, lineage, workspace)?;
    let opened = DataFolder::open(to).map_err(|e| refused(&e))?;
    let store = SledStore::open(&opened).map_err(|e| refused(&e))?;
    let (mut pairs, mut blobs) = (0, 0);
    let mut txn = Txn::default();
    let mut file: Option<(PathBuf, File)> = None;
    while let Some(frame) = reader.read_next()? {
        match frame {
            Frame::Pair(key, value) => {
                pairs += 1;
                let bytes = key.len() + value.len();
                if txn.writes.len() == MAX_OPERATIONS || txn.bytes() + bytes > MAX_TRANSACTION_BYTES
                {
                    commit(&store, std::mem::take(&mut txn))?;
                }
                txn = txn.put(key, value);
            }
            Frame::File(entry) => {
                close(file.take())?;
                // Without the keys that belong to them certificates are of no use.
                if entry.path.starts_with("identity/") && keys.is_none() {
                    file = None;
                    continue;
                }
                blobs += u64::from(!entry.path.starts_with("identity/"));
                // The reader lets only paths of a data folder through.
                let path = to.join(&entry.path);
                if let Some(parent) = path.parent() {
                    folder(parent)?;
                }
                let made = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)
                    .map_err(failed("create", &path))?;
                file = Some((path, made));
            }
            Frame::Data(bytes) => {
                if let Some((path, open)) = &mut file {
                    open.write_all(&bytes).map_err(failed("write", path))?;
                }
            }
        }
    }
    close(file)?;
    commit(&store, txn)?;
    if let Some(keys) = keys {
        let identity = to.join("identity");
        folder(&identity)?;
        keys.write_to(&identity)?;
    }
    Ok(Restored {
        header,
        pairs,
        blobs,
    })
}

/// What the folder is before anything is in it.
fn prepare(to: &Path, lineage: &Lineage, workspace: &WorkspaceName) -> Result<(), BackupError> {
    note(&to.join("lineage"), lineage.as_str())?;
    note(&to.join("workspace"), workspace.as_str())?;
    note(&to.join("format"), &DATA_FORMAT.to_string())
}

fn close(file: Option<(PathBuf, File)>) -> Result<(), BackupError> {
    match file {
        Some((path, file)) => file.sync_all().map_err(failed("sync", &path)),
        None => Ok(()),
    }
}

fn commit(store: &SledStore, txn: Txn) -> Result<(), BackupError> {
    if txn.writes.is_empty() {
        return Ok(());
    }
    match store.commit(txn).map_err(|e| refused(&e))? {
        Committed::Yes => Ok(()),
        Committed::Conflict(_) => Err(BackupError::Refused(
            "the store refuses what it was not asked to check; report it".to_owned(),
        )),
    }
}

/// Holds certificates, secrets and keys against one another, as a start of the control plane would.
fn check(
    to: &Path,
    header: &Header,
    with_keys: bool,
    now: fn() -> Timestamp,
) -> Result<(), BackupError> {
    if !with_keys {
        return Ok(());
    }
    let misfit = |what: &str, when: &str| {
        BackupError::Refused(format!(
            "the keys do not fit the backup ({what}); give those that were copied at about the same time, after the last `plumb {when}`"
        ))
    };
    let identity = to.join("identity");
    Authorities::open(&identity, &header.lineage, now())
        .map_err(|error| misfit(&crate::refuse::chain(&error), "ca rotate"))?;
    if !identity.join("secrets.key").exists() {
        tracing::debug!("the keys of secrets are kept elsewhere");
        return Ok(());
    }
    let keys = Keys::open(&identity, &|_| None)
        .map_err(|error| misfit(&crate::refuse::chain(&error), "secret rotate-key"))?;
    let sealed = sealed_otherwise(to, header, &keys)?;
    match sealed.as_slice() {
        [] => Ok(()),
        [name] => Err(misfit(
            &format!("the secret {name} is sealed with another one"),
            "secret rotate-key",
        )),
        [name, more @ ..] => Err(misfit(
            &format!(
                "the secret {name} and {} more are sealed with another one",
                more.len()
            ),
            "secret rotate-key",
        )),
    }
}

/// The secrets that none of these keys opens, in whichever workspace.
fn sealed_otherwise(
    to: &Path,
    header: &Header,
    keys: &Keys,
) -> Result<Vec<SecretName>, BackupError> {
    let opened = DataFolder::open(to).map_err(|e| refused(&e))?;
    let store: Arc<dyn Store> = Arc::new(SledStore::open(&opened).map_err(|e| refused(&e))?);
    let ledger = |workspace| Ledger::open(store.clone(), header.lineage.clone(), workspace);
    let home = ledger(header.workspace.clone());
    let others = home.workspaces().map_err(|e| refused(&e))?;
    let others = others.into_iter().map(|record| ledger(record.name));
    let mut sealed = Vec::new();
    for ledger in std::iter::once(home.clone()).chain(others) {
        let secrets = ledger.secrets().map_err(|e| refused(&e))?.into_iter();
        let shut = secrets.filter(|s| s.current().is_some() && keys.named(&s.kek).is_none());
        sealed.extend(shut.map(|secret| secret.name));
    }
    Ok(sealed)
}
