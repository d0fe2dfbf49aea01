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
use std::time::Duration;

use plumb_dispatch::fleet::Event;
use plumb_dispatch::protocol::Now;
use plumb_dispatch::{Fleet, Recording, Rollouts};
use plumb_ledger::{Actor, AuditEntry, Ledger, LedgerError, Store, WorkspaceRecord};
use plumb_model::rollout::HeldBack;
use plumb_model::{Lineage, MachineName, OwnerName, Timestamp, WorkspaceName};
use plumb_wire::error::{Reason, Refusal};
use tokio::sync::{Mutex, watch};
use tonic::{Request, Status};

use crate::access::{Access, Shown, enrolled_key};
use crate::audit::Log;
use crate::blobs::Blobs;
use crate::events::desk::Desk;
use crate::gateway::Gateway;
use crate::guard::FromMachine;
use crate::guard::past_the_rules;
use crate::hands;
use crate::identity::KeyDigest;
use crate::recorder::{Recorder, keep_rolling, load, load_rollouts};
use crate::refuse;
use crate::roster::Roster;
use crate::secrets::Vault;
use crate::secrets::keys::Keys;
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
    /// What is ordered by hand in it.
    pub hands: Arc<hands::Desk>,
    /// Its artifacts and files.
    pub blobs: Arc<Blobs>,
    /// Its secrets.
    pub vault: Vault,
    /// Who was heard under the identity of each machine.
    pub roster: Arc<Roster>,
    /// Takes the journals of its machines.
    pub desk: Desk,
    /// Who did what in it.
    pub audit: Log,
    /// One join or renewal at a time, so that two tokens cannot give one name to two machines.
    pub enrolling: Arc<Mutex<()>>,
}

impl Tenant {
    /// Another key counts for a machine from now on, or none: its streams are cut, and nothing that was heard under the one
    /// before is believed.
    pub async fn identity_moved(&self, machine: &MachineName, removed: bool) {
        self.roster.forget(machine);
        if removed {
            self.desk.anew(machine.clone());
        }
        self.gateway.identity(machine.clone(), removed).await;
    }

    /// Refuses a machine that is neither enrolled nor recorded.
    pub async fn knows(&self, machine: &MachineName) -> Result<(), Refusal> {
        let asked = machine.clone();
        let recorded = move |fleet: &Fleet| fleet.machine_view(&asked).is_some();
        if self.access.machine(machine).is_some()
            || self.gateway.look(recorded).await != Some(false)
        {
            return Ok(());
        }
        Err(refuse::unknown_machine(machine))
    }

    /// A machine has joined. Nothing that was heard of one of this name before is this one's; its journal is another, and
    /// that it does not go on where the one before ended is no sign of tampering: an admin made the token for it.
    pub async fn joined(&self, machine: &MachineName) {
        self.desk.anew(machine.clone());
        self.identity_moved(machine, false).await;
    }

    /// Resolves when the key that a call came with counts no more for its machine.
    pub async fn shut_out(&self, machine: &FromMachine) {
        let mut moves = self.roster.moves();
        loop {
            moves.mark_unchanged();
            let record = self.access.machine(&machine.name);
            if enrolled_key(record.as_ref(), &machine.name, &machine.key).is_err() {
                return;
            }
            if moves.changed().await.is_err() {
                return;
            }
        }
    }
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
    /// The keys that wrap the keys of secrets.
    pub keys: Arc<Keys>,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// Names this run of the control plane, and no other one.
    pub run: String,
}

impl Plane {
    /// The ledger of a workspace.
    pub fn ledger(&self, workspace: &WorkspaceName) -> Ledger {
        Ledger::open(self.store.clone(), self.lineage.clone(), workspace.clone())
    }

    /// Where the blobs of a workspace besides the home are.
    pub fn blobs(&self, workspace: &WorkspaceName) -> PathBuf {
        let folder = self.data.join("workspaces").join(workspace.as_str());
        folder.join("blobs")
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
    rollouts: Rollouts,
    held_back: BTreeMap<OwnerName, HeldBack>,
    hands: hands::Recorded,
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
        // Before anything is read, so that nothing which another control plane still writes goes unseen.
        let ledger = plane.ledger(workspace).lead(&plane.run)?;
        let access = Access::new(plane.now, ledger.list_tokens()?, ledger.identities()?);
        let (recorded, assignments) = load(&ledger)?;
        let rollouts = load_rollouts(&ledger, &recorded, &assignments, (plane.now)())?;
        let held_back = ledger.held_back()?;
        let recording = Recording::with(&recorded, &assignments, &rollouts)?;
        let mut outcomes = BTreeMap::new();
        for owner in recording.owners.keys() {
            for (release, outcome) in ledger.outcomes(owner)? {
                outcomes.insert((owner.clone(), release), outcome);
            }
        }
        let mut fleet = Fleet::new(plane.lineage.clone(), recording.clone(), &outcomes);
        let now = Now {
            wall: (plane.now)(),
            mono_ms: 0,
        };
        let hands = hands::Recorded::load(&ledger)?;
        // Nobody is connected yet whom it could be sent to.
        let _ = fleet.handle(Event::Hands(hands.machines.clone()), now);
        access.each_machine(|identity| {
            if identity.removed.is_some() {
                // Nobody is connected, and nobody waits for what comes of it.
                let machine = identity.machine.clone();
                let removed = true;
                let _ = fleet.handle(Event::Identity { machine, removed }, now);
            }
        });
        Ok(Self {
            ledger,
            access,
            blobs: Blobs::open(blobs)?,
            fleet,
            recording,
            recorded,
            assignments,
            rollouts,
            held_back,
            hands,
        })
    }

    /// Starts to serve it.
    pub fn serve(self, plane: &Plane) -> Tenant {
        let access = Arc::new(self.access);
        let blobs = Arc::new(self.blobs);
        let vault = Vault::new(self.ledger.clone(), plane.keys.clone(), plane.now);
        let desk = Desk::start(self.ledger.clone(), plane.now);
        let gateway = Gateway::start(
            self.fleet,
            &self.recording,
            self.ledger.clone(),
            access.clone(),
            vault.clone(),
            desk.clone(),
            plane.now,
        );
        let hands = Arc::new(hands::Desk::new(
            self.ledger.clone(),
            plane.now,
            gateway.clone(),
            self.hands,
        ));
        let recorder = Arc::new(Recorder::new(
            self.ledger.clone(),
            plane.now,
            gateway.clone(),
            hands.clone(),
            blobs.clone(),
            vault.clone(),
            plane.signer.clone(),
            self.recorded,
            self.assignments,
            self.rollouts,
            self.held_back,
        ));
        tokio::spawn(keep_rolling(Arc::downgrade(&recorder), gateway.changes()));
        Tenant {
            workspace: self.ledger.workspace().clone(),
            audit: Log::start(self.ledger.clone()),
            ledger: self.ledger,
            access,
            gateway,
            desk,
            vault,
            recorder,
            hands,
            blobs,
            roster: Arc::default(),
            enrolling: Arc::default(),
        }
    }
}

fn taken(name: &WorkspaceName) -> Refusal {
    Refusal::new(
        Reason::NameTaken,
        format!("there is a workspace {name} on this control plane already; choose another name"),
    )
}

/// The blocking part of making a workspace.
fn make(plane: &Plane, home: &Ledger, name: &WorkspaceName, by: String) -> Result<Opened, Refusal> {
    let now = (plane.now)();
    let record = WorkspaceRecord {
        name: name.clone(),
        created: now,
        by: by.clone(),
    };
    if !home
        .add_workspace(&record)
        .map_err(|e| refuse::ledger(&e))?
    {
        return Err(taken(name));
    }
    let opened = Opened::read(plane, name, &plane.blobs(name)).map_err(|e| refuse::storage(&e))?;
    let entry = AuditEntry {
        at: now,
        who: Actor::Token(by),
        from: String::new(),
        method: "Access/CreateWorkspace".to_owned(),
        refused: None,
        detail: format!("made workspace {name}"),
        owners: Vec::new(),
    };
    opened
        .ledger
        .append_audit(&[entry])
        .map_err(|e| refuse::ledger(&e))?;
    Ok(opened)
}

/// All workspaces of a control plane.
pub(crate) struct Tenants {
    plane: Plane,
    /// One workspace is made at a time.
    making: Mutex<()>,
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
    pub fn new(plane: Plane, home: Tenant) -> Self {
        let home = Arc::new(home);
        let all = BTreeMap::from([(home.workspace.clone(), home.clone())]);
        Self {
            plane,
            making: Mutex::default(),
            home,
            all: RwLock::new(all),
        }
    }

    /// Whose history all of them are.
    pub fn lineage(&self) -> &Lineage {
        &self.plane.lineage
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
    pub fn add(&self, tenant: Tenant) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(tenant.workspace.clone(), Arc::new(tenant));
    }

    /// Makes a new workspace and serves it. Its own audit log begins with who made it.
    ///
    /// # Errors
    /// If there is one of that name, or the ledger refuses; nothing is served then.
    pub async fn make(self: &Arc<Self>, name: WorkspaceName, by: String) -> Result<(), Refusal> {
        let this = self.clone();
        // In a task of its own: a caller who goes away leaves no workspace that is noted and not served.
        let made = tokio::spawn(async move {
            let _turn = this.making.lock().await;
            if this.get(&name).is_some() {
                return Err(taken(&name));
            }
            let plane = this.plane.clone();
            let home = this.home.ledger.clone();
            let opened = refuse::blocking(move || make(&plane, &home, &name, by)).await?;
            this.add(opened.serve(&this.plane));
            Ok(())
        });
        made.await.map_err(|e| refuse::panicked(&e))?
    }

    /// The token of this id and secret, with the workspace that it belongs to. The same id may be in several
    /// workspaces: the secret says which is meant.
    pub fn token(&self, id: &str, secret: &str) -> Option<(Arc<Tenant>, Shown)> {
        self.list().into_iter().find_map(|tenant| {
            let shown = tenant.access.token(id, secret)?;
            Some((tenant, shown))
        })
    }

    /// The workspace that keeps a join token of this id and secret. Blocks.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn join_token(&self, id: &str, secret: &str) -> Result<Option<Arc<Tenant>>, LedgerError> {
        for tenant in self.list() {
            if let Some(record) = tenant.ledger.get_token(id)?
                && record.matches(secret)
            {
                return Ok(Some(tenant));
            }
        }
        Ok(None)
    }

    /// The workspace in which a machine was enrolled with this key, whether it has been removed or not.
    pub fn enrolled(&self, machine: &MachineName, key: &KeyDigest) -> Option<Arc<Tenant>> {
        self.list().into_iter().find(|tenant| {
            let record = tenant.access.machine(machine);
            record.is_some_and(|record| record.public_key_sha256 == key.0)
        })
    }
}

/// How often tokens are looked at for having run out.
const LOOK: Duration = Duration::from_secs(1);

/// How many looks apart the last uses of tokens are noted in the ledger.
const NOTE_EVERY: u32 = 60;

/// Ends the streams of tokens that have run out, and notes now and then when tokens were used. Until the control plane
/// goes down; then it notes them once more.
pub(crate) async fn keep(tenants: Arc<Tenants>, mut stop: watch::Receiver<bool>) {
    let mut looks = 0;
    loop {
        let stopping = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => true,
            () = tokio::time::sleep(LOOK) => false,
        };
        looks += 1;
        for tenant in tenants.list() {
            tenant.access.end_expired();
            if stopping || looks % NOTE_EVERY == 0 {
                tenant.note_uses().await;
            }
        }
        if stopping {
            return;
        }
    }
}

impl Tenant {
    async fn note_uses(&self) {
        let uses = self.access.take_uses();
        let ledger = self.ledger.clone();
        let noted = tokio::task::spawn_blocking(move || {
            uses.into_iter()
                .try_for_each(|(id, at)| ledger.touch_token(&id, at))
        })
        .await;
        // A note for people: what is lost of it harms nobody.
        match noted {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("cannot note when tokens were used: {error}"),
            Err(error) => tracing::warn!("cannot note when tokens were used: {error}"),
        }
    }
}

/// The workspace that the guard has found for a call.
pub(crate) fn tenant_of<T>(request: &Request<T>) -> Result<Arc<Tenant>, Status> {
    let tenant = request.extensions().get::<Arc<Tenant>>().cloned();
    tenant.ok_or_else(|| past_the_rules().into())
}
