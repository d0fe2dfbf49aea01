//! The workspaces of one control plane: everything that serves one is in its [`Tenant`], and nothing in two.
//!
//! The guard finds the tenant of a call, from the token or the certificate that came with it, and leaves it in the
//! request; a service works on that one and has no way to another. So whatever is read, written, streamed or
//! watched belongs to one workspace, without a filter that somebody could forget.
//!
//! It decides nothing about rights: `access` and `guard` do. The first workspace of a data folder is its home: there
//! the control plane keeps what belongs to no workspace alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use plumb_dispatch::{Fleet, Recording};
use plumb_ledger::{Ledger, Store, TokenRecord};
use plumb_model::{Lineage, MachineName, Timestamp, WorkspaceName};
use plumb_wire::error::{Reason, Refusal};
use tokio::sync::Mutex;
use tonic::{Request, Status};

use crate::access::Access;
use crate::blobs::Blobs;
use crate::gateway::Gateway;
use crate::identity::KeyDigest;
use crate::recorder::{Recorder, load};
use crate::server::StartError;
use crate::signing::Signer;

/// One workspace, with everything that serves it.
pub(crate) struct Tenant {
    /// Its name.
    pub workspace: WorkspaceName,
    /// What is recorded of it.
    pub ledger: Ledger,
    /// Its tokens and the identities of its machines.
    pub access: Arc<Access>,
    /// The way to its fleet.
    pub gateway: Gateway,
    /// Plans and records.
    pub recorder: Arc<Recorder>,
    /// Its artifacts and files.
    pub blobs: Arc<Blobs>,
    /// One join or renewal at a time, so that two tokens cannot give one name to two machines.
    pub enrolling: Arc<Mutex<()>>,
}

/// What all workspaces of a control plane share.
#[derive(Clone)]
pub(crate) struct Plane {
    /// The data folder.
    pub data: PathBuf,
    /// The store in it.
    pub store: Arc<dyn Store>,
    /// Whose history it is.
    pub lineage: Lineage,
    /// Signs plan files.
    pub signer: Arc<Signer>,
    /// The clock.
    pub now: fn() -> Timestamp,
}

impl Plane {
    /// The ledger of a workspace.
    pub fn ledger(&self, workspace: &WorkspaceName) -> Ledger {
        Ledger::open(self.store.clone(), self.lineage.clone(), workspace.clone())
    }
}

/// A workspace that was read and is not served yet.
pub(crate) struct Opened {
    ledger: Ledger,
    access: Access,
    blobs: Blobs,
    fleet: Fleet,
    recording: Recording,
    recorded: plumb_model::state::Recorded,
    assignments: BTreeMap<MachineName, Arc<plumb_model::Assignment>>,
}

impl Opened {
    /// Reads what is recorded of a workspace, whose blobs are in a folder of their own. Blocks.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn read(
        plane: &Plane,
        workspace: &WorkspaceName,
        blobs: &Path,
    ) -> Result<Self, StartError> {
        let ledger = plane.ledger(workspace);
        let access = Access::new(plane.now, ledger.list_tokens()?, ledger.identities()?);
        let (recorded, assignments) = load(&ledger)?;
        let recording = Recording::new(&recorded, &assignments)?;
        let mut outcomes = BTreeMap::new();
        for owner in recording.owners.keys() {
            for (release, outcome) in ledger.outcomes(owner)? {
                outcomes.insert((owner.clone(), release), outcome);
            }
        }
        let fleet = Fleet::new(plane.lineage.clone(), recording.clone(), &outcomes);
        Ok(Self {
            ledger,
            access,
            blobs: Blobs::open(blobs)?,
            fleet,
            recording,
            recorded,
            assignments,
        })
    }

    /// Starts to serve it.
    pub fn serve(self, plane: &Plane) -> Tenant {
        let access = Arc::new(self.access);
        let blobs = Arc::new(self.blobs);
        let gateway = Gateway::start(
            self.fleet,
            &self.recording,
            self.ledger.clone(),
            access.clone(),
            plane.now,
        );
        let recorder = Arc::new(Recorder::new(
            self.ledger.clone(),
            plane.now,
            gateway.clone(),
            blobs.clone(),
            plane.signer.clone(),
            self.recorded,
            self.assignments,
        ));
        Tenant {
            workspace: self.ledger.workspace().clone(),
            ledger: self.ledger,
            access,
            gateway,
            recorder,
            blobs,
            enrolling: Arc::default(),
        }
    }
}

/// All workspaces of a control plane.
pub(crate) struct Tenants {
    lineage: Lineage,
    home: Arc<Tenant>,
    all: RwLock<BTreeMap<WorkspaceName, Arc<Tenant>>>,
}

impl std::fmt::Debug for Tenants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenants").finish_non_exhaustive()
    }
}

impl Tenants {
    /// Starts with the home of the data folder.
    pub fn new(lineage: Lineage, home: Tenant) -> Self {
        let home = Arc::new(home);
        let all = BTreeMap::from([(home.workspace.clone(), home.clone())]);
        Self {
            lineage,
            home,
            all: RwLock::new(all),
        }
    }

    /// Whose history all of them are.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// The first workspace, which also keeps what belongs to no workspace alone.
    pub fn home(&self) -> &Arc<Tenant> {
        &self.home
    }

    /// The workspace of exactly this name.
    pub fn get(&self, workspace: &WorkspaceName) -> Option<Arc<Tenant>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(workspace).cloned()
    }

    /// All of them, by name.
    pub fn list(&self) -> Vec<Arc<Tenant>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }

    /// Adds one.
    pub fn add(&self, tenant: Tenant) -> Arc<Tenant> {
        let tenant = Arc::new(tenant);
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(tenant.workspace.clone(), tenant.clone());
        tenant
    }

    /// The token of this id and secret, with the workspace that it belongs to. The same id may be in several
    /// workspaces: the secret says which is meant.
    pub fn token(&self, id: &str, secret: &str) -> Option<(Arc<Tenant>, TokenRecord)> {
        self.list().into_iter().find_map(|tenant| {
            let record = tenant.access.token(id, secret)?;
            Some((tenant, record))
        })
    }

    /// The workspace in which a machine was enrolled with this key, whether it has been removed or not.
    pub fn enrolled(&self, machine: &MachineName, key: &KeyDigest) -> Option<Arc<Tenant>> {
        self.list().into_iter().find(|tenant| {
            let record = tenant.access.machine(machine);
            record.is_some_and(|record| record.public_key_sha256 == key.0)
        })
    }
}

/// The workspace that the guard has found for a call.
pub(crate) fn tenant_of<T>(request: &Request<T>) -> Result<Arc<Tenant>, Status> {
    request
        .extensions()
        .get::<Arc<Tenant>>()
        .cloned()
        .ok_or_else(|| {
            Refusal::new(
                Reason::NoCredential,
                "this call came past the access rules and is refused; report it",
            )
            .into()
        })
}
