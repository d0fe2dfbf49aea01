//! Plans, and records what was approved: one apply at a time.
//!
//! Guarantees: what is recorded is exactly what the approval hash names, planned again against the recorded state
//! under the lock; every blob that it needs was stored before; a caller who hangs up in the middle leaves an apply
//! either done, with the fleet told, or undone. It never decides what a plan holds: that is the planner's.

mod moved;
mod recover;
mod rollouts;
mod signed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use plumb_dispatch::{Recording, Rollouts};
use plumb_ledger::Ledger;
use plumb_model::rollout::HeldBack;
use plumb_model::state::{Commit, Next, Outcome, Recorded, ReleaseBody, RevisionRecord, with_name};
use plumb_model::{
    Assignment, Hash, KnownSecrets, Lineage, MachineName, OwnerName, ReleaseNumber, Revision,
    SecretName, Timestamp, WorkspaceName,
};
use plumb_planner::snapshot::{Head, Snapshot};
use plumb_planner::{Ask, Input, Observed, Planned, Source};
use plumb_wire::convert::{WireError, from_json, parse};
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::plan_file::ReadSet;
use plumb_wire::v1;

use crate::blobs::Blobs;
use crate::gateway::Gateway;
use crate::hands::Desk;
use crate::refuse;
use crate::secrets::Vault;
use crate::secrets::service::{Users, users};
use crate::signing::Signer;

pub(crate) use rollouts::{keep_rolling, load_rollouts};

/// How far back a rollback without a number looks: as many releases of an app as are kept.
const KEPT_RELEASES: usize = 50;

/// How many digests of missing blobs are named in a refusal.
const NAMED_BLOBS: usize = 64;

/// The recorded state as it is held in memory.
#[derive(Clone)]
struct Current {
    recorded: Arc<Recorded>,
    /// What each machine comes to in the end.
    assignments: Arc<BTreeMap<MachineName, Arc<Assignment>>>,
    /// Where machines are until then.
    rollouts: Arc<Rollouts>,
    /// What was taken back, and does not come again by itself.
    held_back: Arc<BTreeMap<OwnerName, HeldBack>>,
}

/// What an apply came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    pub revision: Revision,
    pub releases: BTreeMap<OwnerName, ReleaseNumber>,
    /// Exactly this plan was the last that was recorded, before the call.
    pub recorded_before: bool,
}

/// What is to be recorded.
struct Order {
    request: v1::PlanRequest,
    /// The approval that planning again must come to.
    approval: Hash,
    /// What it may do beyond the harmless.
    allow: BTreeSet<String>,
    base: Base,
}

/// What must be recorded when an order is carried out.
enum Base {
    /// This revision.
    At(Revision),
    /// This revision, in which a plan file's plan read this.
    Read(Revision, Box<ReadSet>),
    /// Whatever there is.
    Newest,
}

/// Plans and records.
pub(crate) struct Recorder {
    pub ledger: Ledger,
    pub lineage: Lineage,
    pub workspace: WorkspaceName,
    pub now: fn() -> Timestamp,
    pub gateway: Gateway,
    pub hands: Arc<Desk>,
    pub blobs: Arc<Blobs>,
    pub vault: Vault,
    pub signer: Arc<Signer>,
    started: Instant,
    current: RwLock<Current>,
    applying: Arc<tokio::sync::Mutex<()>>,
}

/// Reads the recorded state and every machine's assignment. Blocks.
pub(crate) fn load(
    ledger: &Ledger,
) -> Result<(Recorded, BTreeMap<MachineName, Arc<Assignment>>), plumb_ledger::LedgerError> {
    let recorded = ledger.load()?;
    let mut assignments = BTreeMap::new();
    for (name, machine) in &recorded.state.machines {
        if machine.generation.0 == 0 {
            continue;
        }
        let assignment = ledger
            .assignment(&machine.assignment, &recorded)?
            .ok_or_else(|| plumb_ledger::LedgerError::Missing {
                key: format!("assignment {} of machine {name}", machine.assignment),
            })?;
        assignments.insert(name.clone(), Arc::new(assignment));
    }
    Ok((recorded, assignments))
}

impl Recorder {
    #[allow(
        clippy::too_many_arguments,
        reason = "called once, where everything is put together"
    )]
    pub fn new(
        ledger: Ledger,
        now: fn() -> Timestamp,
        gateway: Gateway,
        hands: Arc<Desk>,
        blobs: Arc<Blobs>,
        vault: Vault,
        signer: Arc<Signer>,
        recorded: Recorded,
        assignments: BTreeMap<MachineName, Arc<Assignment>>,
        rollouts: Rollouts,
        held_back: BTreeMap<OwnerName, HeldBack>,
    ) -> Self {
        Self {
            lineage: ledger.lineage().clone(),
            workspace: ledger.workspace().clone(),
            ledger,
            now,
            gateway,
            hands,
            blobs,
            vault,
            signer,
            started: Instant::now(),
            current: RwLock::new(Current {
                recorded: Arc::new(recorded),
                assignments: Arc::new(assignments),
                rollouts: Arc::new(rollouts),
                held_back: Arc::new(held_back),
            }),
            applying: Arc::default(),
        }
    }

    fn current(&self) -> Current {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Who uses which secret, of what is recorded.
    pub fn users_of_secrets(&self) -> BTreeMap<SecretName, Users> {
        users(&self.current().recorded)
    }

    /// The recorded revision.
    pub fn revision(&self) -> Revision {
        self.current().recorded.state.revision
    }

    async fn observed(&self) -> Result<Observed, Refusal> {
        self.gateway.observe().await.ok_or_else(|| {
            Refusal::new(
                Reason::Closing,
                "the control plane is going down; try again",
            )
        })
    }

    /// Plans a request against what is recorded now.
    pub async fn plan(self: &Arc<Self>, request: v1::PlanRequest) -> Result<Planned, Refusal> {
        let observed = self.observed().await?;
        let this = self.clone();
        let current = self.current();
        refuse::blocking(move || this.plan_against(request, &current, &observed)).await
    }

    /// Everything that a plan would be made against now, as bytes.
    pub async fn snapshot(&self) -> Result<Vec<u8>, Refusal> {
        let observed = self.observed().await?;
        let snapshot = Snapshot {
            head: Some(Head {
                lineage: self.lineage.clone(),
                workspace: self.workspace.clone(),
                at: (self.now)(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            recorded: Recorded::clone(&self.current().recorded),
            observed,
            secrets: KnownSecrets::default(),
        };
        let vault = self.vault.clone();
        refuse::blocking(move || {
            let secrets = vault.known()?;
            Ok(Snapshot {
                secrets,
                ..snapshot
            }
            .bytes())
        })
        .await
    }

    /// Plans. Blocks: a rollback reads its release, and a large workspace takes a while.
    fn plan_against(
        &self,
        request: v1::PlanRequest,
        before: &Current,
        observed: &Observed,
    ) -> Result<Planned, Refusal> {
        let recorded = &*before.counted();
        let commit = request.commit.map(Commit::from);
        let request = self.asked(
            request.request.ok_or(WireError::Missing("request"))?,
            recorded,
        )?;
        let mut planned = plumb_planner::plan(Input {
            request: &request,
            recorded,
            lineage: &self.lineage,
            workspace: &self.workspace,
            observed,
            secrets: &self.vault.known()?,
            commit: commit.as_ref(),
        })
        .map_err(|e| refuse::plan(&e))?;
        self.ask_for_held(before, &mut planned);
        Ok(planned)
    }

    fn asked(
        &self,
        request: v1::plan_request::Request,
        recorded: &Recorded,
    ) -> Result<plumb_planner::Request, Refusal> {
        use v1::plan_request::Request;
        Ok(match request {
            Request::Blueprints(blueprints) => {
                let sources = blueprints
                    .sources
                    .into_iter()
                    .map(|(path, source)| {
                        let source = Source {
                            digest: parse("sources.digest", &source.digest)?,
                            size: source.size,
                            text: source.text,
                        };
                        Ok((path, source))
                    })
                    .collect::<Result<_, WireError>>()?;
                plumb_planner::Request::Apply {
                    blueprint: checked(&blueprints.blueprint_set_json)?,
                    sources,
                    ask: match blueprints.ask_json.as_slice() {
                        [] => Ask::default(),
                        json => from_json("ask_json", json)?,
                    },
                }
            }
            Request::Rollback(rollback) => {
                let owner: OwnerName = parse("rollback.owner", &rollback.owner)?;
                let (to, body) =
                    self.earlier(&owner, rollback.release.map(ReleaseNumber), recorded)?;
                plumb_planner::Request::Rollback {
                    owner,
                    to,
                    body: Arc::new(body),
                }
            }
            Request::Texts(_) => {
                return Err(Refusal::new(
                    Reason::BadMessage,
                    "texts were not read before they were planned; report it",
                ));
            }
            Request::Destroy(v1::Destroy {}) => plumb_planner::Request::Destroy,
            Request::RenewSecrets(secrets) => plumb_planner::Request::Secrets {
                names: secrets
                    .names
                    .iter()
                    .map(|name| parse("renew_secrets.names", name))
                    .collect::<Result<_, _>>()?,
            },
        })
    }

    /// The release to go back to, with its content.
    fn earlier(
        &self,
        owner: &OwnerName,
        wanted: Option<ReleaseNumber>,
        recorded: &Recorded,
    ) -> Result<(ReleaseNumber, ReleaseBody), Refusal> {
        let history = self
            .ledger
            .releases(owner, KEPT_RELEASES)
            .map_err(|e| refuse::ledger(&e))?;
        // Releases under a name that it had are its own too; their numbers go on.
        let releases: Vec<(ReleaseNumber, Hash, OwnerName)> = with_name(owner, &history)
            .filter_map(|(name, record)| {
                let (number, body) = record.released.get(&name)?;
                Some((*number, (*body)?, name))
            })
            .collect();
        if releases.is_empty() {
            return Err(Refusal::new(
                Reason::NotFound,
                format!("nothing named {owner} was ever released; `plumb history` lists what was"),
            ));
        }
        let current = recorded.state.owners.get(owner).map(|state| state.release);
        let found = match wanted {
            Some(wanted) => releases.iter().find(|(number, ..)| *number == wanted),
            None => {
                let mut outcomes = BTreeMap::new();
                let names: BTreeSet<&OwnerName> = releases.iter().map(|(.., name)| name).collect();
                for name in names {
                    let noted = self.ledger.outcomes(name);
                    outcomes.insert(name, noted.map_err(|e| refuse::ledger(&e))?);
                }
                let before = releases
                    .iter()
                    .filter(|(number, ..)| current.is_none_or(|current| *number < current));
                let outcome = |number, name| outcomes.get(name).and_then(|noted| noted.get(number));
                let mut known = before
                    .clone()
                    .map(|release| (release, outcome(&release.0, &release.2)));
                let newest = known.clone().next();
                let converged = known
                    .clone()
                    .find(|(_, outcome)| *outcome == Some(&Outcome::Converged));
                // One that was replaced before anybody could tell may be good; one that has failed is not.
                let found = converged
                    .or_else(|| known.find(|(_, outcome)| *outcome != Some(&Outcome::Failed)));
                if let (Some(((failed, ..), _)), None) = (newest, found) {
                    return Err(Refusal::new(
                        Reason::NotFound,
                        format!(
                            "{owner} has no earlier release that has not failed; `plumb history {owner}` lists them, and `plumb rollback {owner} {failed}` goes back to the newest all the same"
                        ),
                    ));
                }
                found.map(|(release, _)| release)
            }
        };
        let (number, hash, _) = found.ok_or_else(|| {
            let message = match wanted {
                Some(wanted) => format!(
                    "{owner} has no release {wanted} among its last {KEPT_RELEASES}; `plumb history {owner}` lists them"
                ),
                None => format!("{owner} has no earlier release to go back to"),
            };
            Refusal::new(Reason::NotFound, message)
        })?;
        let body = self
            .ledger
            .release(hash)
            .map_err(|e| refuse::ledger(&e))?
            .ok_or_else(|| {
                Refusal::new(
                    Reason::Storage,
                    format!("the content of release {number} of {owner} is missing; restore the data folder from a backup"),
                )
            })?;
        Ok((*number, body))
    }

    /// Plans again, and records it if it is what was approved. Runs to its end even if the caller goes away.
    pub async fn apply(
        self: &Arc<Self>,
        by: String,
        request: v1::ApplyRequest,
    ) -> Result<Applied, Refusal> {
        let order = Order {
            approval: parse("approval", &request.approval)?,
            base: Base::At(Revision(request.base_revision)),
            allow: request.allow.into_iter().collect(),
            request: request.request.ok_or(WireError::Missing("request"))?,
        };
        self.order(by, order).await
    }

    /// Carries an order out, when its turn has come.
    async fn order(self: &Arc<Self>, by: String, order: Order) -> Result<Applied, Refusal> {
        let turn = self.applying.clone().lock_owned().await;
        let this = self.clone();
        tokio::spawn(async move {
            let applied = this.apply_in_turn(by, order).await;
            drop(turn);
            applied
        })
        .await
        .map_err(|e| refuse::panicked(&e))?
    }

    async fn apply_in_turn(self: Arc<Self>, by: String, order: Order) -> Result<Applied, Refusal> {
        let observed = self.observed().await?;
        let this = self.clone();
        let before = self.current();
        let was = before.assignments.clone();
        let done = refuse::blocking(move || this.record(by, order, &before, &observed)).await;
        match done {
            Ok((applied, None)) => Ok(applied),
            Ok((applied, Some((current, recording)))) => {
                self.follow_by_hand(&was, &current).await;
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
                self.gateway.recorded(recording).await;
                Ok(applied)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Has what is ordered by hand follow what was recorded, before agents hear of that.
    async fn follow_by_hand(
        &self,
        was: &BTreeMap<MachineName, Arc<Assignment>>,
        current: &Current,
    ) {
        // It is recorded, and cannot be taken back for this: an app that was stopped runs on machines that it is new to.
        if let Err(refusal) = self.hands.follow(was, &current.assignments).await {
            tracing::error!(
                "orders by hand do not follow what was recorded: {}",
                refusal.message
            );
        }
    }

    /// The blocking part of an apply: everything up to the ledger.
    fn record(
        &self,
        by: String,
        order: Order,
        before: &Current,
        observed: &Observed,
    ) -> Result<(Applied, Option<(Current, Recording)>), Refusal> {
        let Order {
            request,
            approval,
            allow,
            base,
        } = order;
        let revision = before.recorded.state.revision;
        match base {
            Base::At(base) if base != revision => return Err(self.moved(base)),
            // The number alone does not say it all: a folder that was restored counts the same numbers twice.
            Base::Read(base, reads)
                if base != revision || !reads.moved(&before.recorded.state).is_empty() =>
            {
                return match self.recorded_before(approval)? {
                    Some(applied) => Ok((applied, None)),
                    None => Err(self.moved_since(base, &reads, before)),
                };
            }
            Base::Newest => {
                if let Some(applied) = self.recorded_before(approval)? {
                    return Ok((applied, None));
                }
            }
            Base::At(_) | Base::Read(..) => {}
        }
        let planned = self.plan_against(request, before, observed)?;
        let plan = &planned.plan;
        if plan.approval != approval {
            return Err(Refusal::new(
                Reason::PlanChanged,
                format!(
                    "at revision {revision} this would no longer do what was approved: the blueprints, what they refer to, or the machines have changed since; run `plumb plan` again"
                ),
            )
            .with("head", revision)
            .with("approved", approval)
            .with("now", plan.approval));
        }
        let obstacles: Vec<String> = plan.obstacles().collect();
        if let Some((first, others)) = obstacles.split_first() {
            let more = match others.len() {
                0 => String::new(),
                n => format!(" (and {n} more, which `plumb plan` shows)"),
            };
            return Err(Refusal::new(Reason::PlanBlocked, format!("{first}{more}")));
        }
        let (given, missing): (BTreeSet<&str>, BTreeSet<&str>) = plan
            .consents
            .iter()
            .map(|consent| consent.allow.as_str())
            .partition(|name| allow.contains(*name));
        // Only what it needed: a name that was allowed out of habit says nothing about this revision.
        let allowed: Vec<String> = given.into_iter().map(str::to_owned).collect();
        if let Some(first) = plan
            .consents
            .iter()
            .find(|c| missing.contains(c.allow.as_str()))
        {
            let names = missing.into_iter().collect::<Vec<_>>().join(",");
            return Err(Refusal::new(
                Reason::ConsentNeeded,
                format!("{}; go ahead with --allow {names}", first.reason),
            )
            .with("allow", names));
        }
        if plan.is_empty() {
            let applied = Applied {
                revision,
                releases: BTreeMap::new(),
                recorded_before: false,
            };
            return Ok((applied, None));
        }
        let (applied, current, recording) = self.commit(by, planned, allowed, before, None)?;
        Ok((applied, Some((current, recording))))
    }

    /// Records a plan that may be.
    fn commit(
        &self,
        by: String,
        planned: Planned,
        allowed: Vec<String>,
        before: &Current,
        reverts: Option<(OwnerName, ReleaseNumber)>,
    ) -> Result<(Applied, Current, Recording), Refusal> {
        let Planned { plan, mut next } = planned;
        let revision = before.recorded.state.revision;
        let (mut current, bodies) = after(before, &next)?;
        self.check_blobs(&bodies)?;
        let at = (self.now)();
        let begun = current.begin(before, &mut next, &plan, reverts.as_ref(), at);
        let record = RevisionRecord {
            revision: next.state.revision,
            at,
            by,
            commit: plan.commit,
            kind: plan.kind,
            approval: plan.approval,
            state: Hash::of(&next.state.bytes()),
            released: next
                .released
                .iter()
                .map(|(owner, release)| {
                    let body = next.state.owners.get(owner).map(|state| state.body);
                    (owner.clone(), (*release, body))
                })
                .collect(),
            allowed,
            renamed: plan
                .owners
                .iter()
                .filter_map(|owner| Some((owner.owner.clone(), owner.renamed_from.clone()?)))
                .collect(),
        };
        let recording = current.recording()?;
        self.ledger
            .apply(revision, &next, &record)
            .map_err(|e| refuse::apply(&e))?;
        tracing::info!(revision = %next.state.revision, by = %record.by, "recorded");
        self.begun(&mut current, &begun, &record.allowed);
        let applied = Applied {
            revision: next.state.revision,
            releases: next.released,
            recorded_before: false,
        };
        Ok((applied, current, recording))
    }

    /// Names what was recorded since.
    fn moved(&self, base: Revision) -> Refusal {
        match self.ledger.head() {
            Ok(Some(head)) if head.revision > base => {
                refuse::apply(&plumb_ledger::ApplyError::Moved {
                    base,
                    head: head.revision,
                    by: head.by,
                    at: head.at,
                })
            }
            Ok(head) => refuse::apply(&plumb_ledger::ApplyError::Ahead {
                base,
                head: head.map_or(Revision(0), |head| head.revision),
            }),
            Err(error) => refuse::ledger(&error),
        }
    }

    /// Every blob that the new releases name must be stored: agents would wait for it for ever.
    fn check_blobs(&self, bodies: &[Arc<ReleaseBody>]) -> Result<(), Refusal> {
        let missing: BTreeSet<Hash> = wanted_blobs(bodies)
            .into_keys()
            .filter(|digest| !self.blobs.has(digest))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let named: Vec<String> = missing
            .iter()
            .take(NAMED_BLOBS)
            .map(Hash::to_string)
            .collect();
        Err(Refusal::new(
            Reason::BlobsMissing,
            format!(
                "{} artifacts or files were not sent to the control plane; run the command again",
                missing.len()
            ),
        )
        .with("total", missing.len())
        .with("digests", named.join(",")))
    }
}

/// Blueprints as they came over the API: from whoever holds a token, and not only from a command line that has parsed them.
fn checked(json: &[u8]) -> Result<plumb_blueprint::BlueprintSet, Refusal> {
    let set: plumb_blueprint::BlueprintSet = from_json("blueprint_set_json", json)?;
    set.check().map_err(|error| {
        Refusal::new(
            Reason::BadMessage,
            format!("the blueprints that were sent do not hold together: {error}; send what `plumb validate` lets pass"),
        )
    })?;
    Ok(set)
}

/// Every blob that releases name, with its size.
fn wanted_blobs(bodies: &[Arc<ReleaseBody>]) -> BTreeMap<Hash, u64> {
    bodies
        .iter()
        .flat_map(|body| &body.resources)
        .flat_map(|resource| resource.spec.blobs())
        .collect()
}

/// What is held in memory once `next` is recorded, and the releases that are new.
fn after(before: &Current, next: &Next) -> Result<(Current, Vec<Arc<ReleaseBody>>), Refusal> {
    let broken = |what: String| {
        refuse::ledger(&plumb_ledger::LedgerError::Unreadable {
            key: what,
            reason: "the plan does not hold together; this is a defect of plumb".to_owned(),
        })
    };
    let recorded = before.recorded.after(next).map_err(|e| {
        let causes = std::error::Error::source(&e).map(|cause| format!(": {cause}"));
        broken(format!("{e}{}", causes.unwrap_or_default()))
    })?;
    let bodies = next
        .released
        .keys()
        .filter_map(|owner| recorded.releases.get(owner).cloned())
        .collect();
    let mut assignments = BTreeMap::new();
    for (name, machine) in &next.state.machines {
        if machine.generation.0 == 0 {
            continue;
        }
        let kept = before
            .assignments
            .get(name)
            .filter(|held| held.hash() == machine.assignment);
        let assignment = match (kept, next.bodies.get(&machine.assignment)) {
            (Some(assignment), _) => assignment.clone(),
            (None, Some(bytes)) => Arc::new(
                Assignment::parse_sharing(bytes, |address| recorded.resource(address))
                    .map_err(|e| broken(format!("assignment of {name}: {e}")))?,
            ),
            (None, None) => return Err(broken(format!("assignment of {name}"))),
        };
        assignments.insert(name.clone(), assignment);
    }
    let current = Current {
        recorded: Arc::new(recorded),
        assignments: Arc::new(assignments),
        rollouts: before.rollouts.clone(),
        held_back: before.held_back.clone(),
    };
    Ok((current, bodies))
}
