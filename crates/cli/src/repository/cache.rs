//! What blueprints meant when they were last read, kept under the user's cache folder, so that a large repository of
//! which nothing has changed is not parsed again.
//!
//! An entry is found by a hash over everything that parsing depends on, so there is nothing to invalidate: a changed byte
//! is another entry. Whatever is wrong with an entry or with the folder, it is as if there were none; nothing is ever
//! reported. Only sets without problems and warnings are kept: what there is to say is said from the files.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use plumb_blueprint::{App, BlueprintSet, Options, Origins, SourceFile};
use plumb_model::{Hash, OwnerName};
use serde::de::DeserializeOwned;

/// Set to anything but the empty text, nothing is read from the cache or put there.
const OFF: &str = "PLUMB_NO_CACHE";
/// The form of an entry; another one is none.
const FORMAT: &[u8; 8] = b"plumbBP1";
/// Less text than this is parsed in a few milliseconds.
const WORTH_BYTES: usize = 64 << 10;
/// The oldest entries beyond these go.
const MAX_ENTRIES: usize = 64;
const MAX_BYTES: u64 = 256 << 20;
/// So many apps are in one part of an entry; parts are read at the same time.
const APPS_PER_PART: usize = 100;
/// The length of a hash.
const HASH: usize = 32;

/// Where the set of some files is kept.
pub struct Cache {
    folder: PathBuf,
    key: Hash,
}

impl Cache {
    /// The place of these files' set; none where nothing is kept.
    pub fn of(files: &[SourceFile], options: &Options) -> Option<Self> {
        let size: usize = files.iter().map(|file| file.text.len()).sum();
        let off = std::env::var_os(OFF).is_some_and(|value| !value.is_empty());
        if off || size < WORTH_BYTES {
            return None;
        }
        let base = crate::context::base("XDG_CACHE_HOME", ".cache", "cached blueprints", "");
        Some(Self {
            folder: base.ok()?.join("blueprints"),
            key: key(&program()?, files, options),
        })
    }

    fn path(&self) -> PathBuf {
        self.folder.join(self.key.to_string())
    }

    /// The set that was kept.
    pub fn get(&self) -> Option<BlueprintSet> {
        let file = File::open(self.path()).ok()?;
        let mut bytes = Vec::new();
        (&file).take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        let set = decode(&bytes)?;
        // The least recently used go first.
        _ = file.set_modified(SystemTime::now());
        Some(set)
    }

    /// Keeps a set, if that can be done.
    pub fn put(&self, set: &mut BlueprintSet) {
        if set.warnings.is_empty()
            && let Some(bytes) = encode(set)
        {
            _ = self.write(&bytes);
        }
    }

    fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        // No need to flush it: what a crash leaves of it does not bear its own hash.
        let mut beside = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.folder)?;
        beside.write_all(bytes)?;
        beside.persist(self.path())?;
        prune(&self.folder)
    }
}

/// What tells this program from other versions and builds of it.
fn program() -> Option<String> {
    let file = fs::metadata(std::env::current_exe().ok()?).ok()?;
    let version = env!("CARGO_PKG_VERSION");
    Some(format!(
        "{version} {} {} {}",
        file.len(),
        file.mtime(),
        file.mtime_nsec()
    ))
}

/// A hash over everything that parsing depends on.
fn key(program: &str, files: &[SourceFile], options: &Options) -> Hash {
    let mut all = Vec::new();
    // Each piece stands for itself by its hash, so that none can run into the next.
    let mut add = |bytes: &[u8]| all.extend_from_slice(&Hash::of(bytes).0);
    add(FORMAT);
    add(program.as_bytes());
    add(format!("{:?} {:?}", options.env, options.too_large).as_bytes());
    for (mark, files) in [("blueprint", files), ("other", &options.others)] {
        for file in files {
            add(mark.as_bytes());
            add(file.path.as_bytes());
            add(&file.text);
        }
    }
    Hash::of(&all)
}

/// The format, a hash over what follows it, and the parts, each behind its length.
fn encode(set: &mut BlueprintSet) -> Option<Vec<u8>> {
    // The many apps and places apart from the rest, so that they can be read at the same time.
    let apps = std::mem::take(&mut set.apps);
    let origins = std::mem::take(&mut set.origins);
    let mut parts = vec![serde_json::to_vec(set), serde_json::to_vec(&origins)];
    let all: Vec<(&OwnerName, &App)> = apps.iter().collect();
    parts.extend(all.chunks(APPS_PER_PART).map(serde_json::to_vec));
    set.apps = apps;
    set.origins = origins;
    let mut body = Vec::new();
    for part in parts {
        let part = part.ok()?;
        body.extend_from_slice(&(part.len() as u64).to_le_bytes());
        body.extend_from_slice(&part);
    }
    let hash = Hash::of(&body);
    Some([FORMAT, &hash.0[..], &body].concat())
}

fn decode(bytes: &[u8]) -> Option<BlueprintSet> {
    let (hash, mut body) = bytes.strip_prefix(FORMAT)?.split_at_checked(HASH)?;
    if Hash::of(body).0 != *hash {
        return None;
    }
    let mut parts = Vec::new();
    while let Some((length, rest)) = body.split_first_chunk() {
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (part, rest) = rest.split_at_checked(length)?;
        parts.push(part);
        body = rest;
    }
    let (first, apps) = parts.split_first_chunk::<2>()?;
    let (rest, others) = std::thread::scope(|scope| {
        let head = scope.spawn(|| {
            let origins: Origins = part(first[1])?;
            Some((part::<BlueprintSet>(first[0])?, origins))
        });
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let share = apps.len().div_ceil(threads).max(1);
        let read = |parts: &[&[u8]]| -> Option<Vec<Vec<(OwnerName, App)>>> {
            parts.iter().map(|bytes| part(bytes)).collect()
        };
        let others: Vec<_> = apps
            .chunks(share)
            .map(|parts| scope.spawn(move || read(parts)))
            .collect();
        let others: Option<Vec<_>> = others
            .into_iter()
            .map(|other| other.join().ok().flatten())
            .collect();
        (head.join().ok().flatten(), others)
    });
    let (mut set, origins) = rest?;
    set.origins = origins;
    // In order already, so this is one pass.
    set.apps = BTreeMap::from_iter(others?.into_iter().flatten().flatten());
    Some(set)
}

fn part<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    // Checked as a whole, which is much quicker than text by text.
    serde_json::from_str(std::str::from_utf8(bytes).ok()?).ok()
}

/// Removes what was not used for longest, as far as there is too much.
fn prune(folder: &Path) -> std::io::Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file = entry.metadata()?;
        entries.push((file.modified()?, file.len(), entry.path()));
    }
    entries.sort_unstable_by(|a, b| b.cmp(a));
    let mut bytes = 0;
    for (number, (_, length, path)) in entries.into_iter().enumerate() {
        bytes += length;
        if number >= MAX_ENTRIES || bytes > MAX_BYTES {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
