//! Secrets on their last steps: the values that this machine has, and the files that hand them over. Whatever runs
//! something uses it, processes now and containers later.
//!
//! Values are in memory alone; the agent, which keeps them encrypted on its disk, puts them here. Files are on a tmpfs
//! alone, `RUNTIME/secrets/APP/NAME`, mode 0400, of the user that is to read them. It never logs or shows a value.

mod files;
mod runtime;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use plumb_model::condition::Reason;
use plumb_model::{Fault, Secret, SecretName, SecretRef};

pub use files::{Place, holds, remove, write};
pub use runtime::{describe, runtime_folder};

/// The secrets that this machine has. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    values: Arc<RwLock<BTreeMap<(SecretName, u64), Secret>>>,
    runtime: Option<Arc<PathBuf>>,
}

impl Secrets {
    /// None yet. `runtime` is the folder, on a tmpfs, beneath which files are written; without one, none can be.
    #[must_use]
    pub fn new(runtime: Option<PathBuf>) -> Self {
        Self {
            values: Arc::default(),
            runtime: runtime.map(Arc::new),
        }
    }

    /// Takes a value in.
    pub fn put(&self, name: SecretName, version: u64, value: Secret) {
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        values.insert((name, version), value);
    }

    /// Forgets every value but these.
    pub fn retain(&self, kept: &BTreeSet<(SecretName, u64)>) {
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        values.retain(|key, _| kept.contains(key));
    }

    /// Whether a version is here.
    #[must_use]
    pub fn has(&self, name: &SecretName, version: u64) -> bool {
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
        values.contains_key(&(name.clone(), version))
    }

    /// The value of a secret.
    ///
    /// # Errors
    /// When it is not here: the fault names it, and says what it waits for.
    pub fn get(&self, secret: &SecretRef) -> Result<Secret, Fault> {
        let name = &secret.name;
        let Some(version) = secret.version else {
            let message = format!(
                "nobody has said which version of the secret {name} it gets: set it with `plumb secret set {name}`, and apply again"
            );
            return Err(Fault::new(Reason::ContentMissing, message));
        };
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
        values
            .get(&(name.clone(), version))
            .cloned()
            .ok_or_else(|| {
                let message = format!(
                    "version {version} of the secret {name} is not on this machine: it waits for the control plane to hand it over"
                );
                Fault::new(Reason::ContentMissing, message)
            })
    }

    /// The folder beneath which files are written.
    ///
    /// # Errors
    /// When this machine has no tmpfs for them.
    pub fn runtime(&self) -> Result<&Path, Fault> {
        self.runtime.as_deref().map(PathBuf::as_path).ok_or_else(|| {
            let message = "this machine has no tmpfs that the agent can write to, and secrets are written to no disk: mount one at /run or /dev/shm, or hand the secret over `as: env`";
            Fault::new(Reason::LacksCapability, message)
        })
    }
}
