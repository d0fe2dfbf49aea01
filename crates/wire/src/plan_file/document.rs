//! The signed part of a plan file: the request, the plan that was made of it, and what it was made against.
//!
//! A document is checked against itself before anybody sees it; whether it is still true is the ledger's to say.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::plan::Plan;
use plumb_model::state::{OwnerState, ResolutionKey, RevisionKind};
use plumb_model::{
    Generation, Hash, Lineage, MachineName, OwnerName, ReleaseNumber, Timestamp, WorkspaceName,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{FORMAT, MAX_BLOBS, MAX_DOCUMENT_BYTES, PlanFileError, Signature};
use crate::convert::{WireError, parse};
use crate::v1;

pub use plumb_model::state::Commit;

/// Everything that a plan file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of the control plane that made it.
    pub plumb: String,
    /// The lineage of the history that it was planned against.
    pub lineage: Lineage,
    /// The workspace that it was planned for.
    pub workspace: WorkspaceName,
    /// When it was planned.
    pub planned_at: Timestamp,
    /// By whom: the name of the token that was used.
    pub planned_by: String,
    /// What it was planned against, and expects to find when it is applied.
    pub reads: ReadSet,
    /// Every blob that has to be stored before it is applied, with its size in bytes.
    pub blobs: BTreeMap<Hash, u64>,
    /// What was asked for.
    pub request: Request,
    /// The commit that the request comes from.
    pub commit: Option<Commit>,
    /// The plan: base revision, resolutions, consents and approval hash are in it.
    pub plan: Plan,
}

/// What a plan read of the recorded state: all of it, since placement and ports depend on what is everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadSet {
    /// The name in the manifest that was applied last.
    pub manifest: Option<WorkspaceName>,
    /// Each owner, at its release.
    pub owners: BTreeMap<OwnerName, OwnerState>,
    /// Each machine, at the generation of its assignment.
    pub machines: BTreeMap<MachineName, Generation>,
    /// What the plan makes, and expects not to be there.
    pub absent: Absent,
}

/// What must not be there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Absent {
    /// Owners.
    pub owners: BTreeSet<OwnerName>,
    /// Machines.
    pub machines: BTreeSet<MachineName>,
}

/// What was planned.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Blueprints.
    Blueprints {
        /// The typed blueprints, exactly as they were sent.
        set: Box<RawValue>,
        /// What the repository held at each path that they refer to.
        sources: BTreeMap<String, Source>,
        /// What of them was planned, and how, exactly as it was sent; none is all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ask: Option<Box<RawValue>>,
    },
    /// An earlier release of an owner.
    Rollback {
        /// Whose.
        owner: OwnerName,
        /// Which.
        release: ReleaseNumber,
    },
    /// Nothing: everything is removed.
    Destroy {},
}

/// What was found at a path of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// BLAKE3 of its bytes, packed if it is a folder.
    pub digest: Hash,
    /// The number of those bytes.
    pub size: u64,
    /// Its text, where it is a short one.
    pub text: Option<String>,
}

/// Why a format number is refused.
pub(super) enum FormatError {
    Newer(u32),
    Unreadable(String),
}

/// Looks at the format alone, before anything else is expected of the bytes.
pub(super) fn check_format(bytes: &[u8]) -> Result<(), FormatError> {
    #[derive(Deserialize)]
    struct Probe {
        format: u32,
    }
    match serde_json::from_slice::<Probe>(bytes) {
        Ok(Probe { format }) if format > FORMAT => Err(FormatError::Newer(format)),
        Ok(Probe { format: FORMAT }) => Ok(()),
        Ok(Probe { format }) => Err(FormatError::Unreadable(format!("no format is {format}"))),
        Err(e) => Err(FormatError::Unreadable(e.to_string())),
    }
}

impl Document {
    /// The exact bytes that are signed and stored.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        crate::convert::to_json(self)
    }

    /// Reads a document whose bytes the key in `signature` has signed, and that does not contradict itself.
    ///
    /// # Errors
    /// See [`PlanFileError`]. A newer format is told before anything else.
    pub fn open(bytes: &[u8], signature: &Signature) -> Result<Self, PlanFileError> {
        if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(PlanFileError::Document(format!(
                "it has {} bytes, more than {MAX_DOCUMENT_BYTES}",
                bytes.len()
            )));
        }
        // What is damaged is told as damage; only what is signed may fail to be understood.
        match check_format(bytes) {
            Err(FormatError::Newer(found)) => return Err(PlanFileError::Newer { found }),
            Err(FormatError::Unreadable(_)) | Ok(()) => {}
        }
        if !signature.key.has_signed(bytes, &signature.bytes) {
            return Err(PlanFileError::Signature(signature.key.id()));
        }
        let document: Self =
            serde_json::from_slice(bytes).map_err(|e| PlanFileError::Document(e.to_string()))?;
        if document.format != FORMAT {
            return Err(PlanFileError::Document(format!(
                "no format is {}",
                document.format
            )));
        }
        document.check().map_err(PlanFileError::Inconsistent)?;
        Ok(document)
    }

    /// Holds what it says twice, and what follows from one another, against each other.
    fn check(&self) -> Result<(), String> {
        let plan = &self.plan;
        let approval = plan.approval_hash();
        if plan.approval != approval {
            return Err(format!(
                "the plan states the approval {}, and what it says has {approval}",
                plan.approval
            ));
        }
        if self.commit != plan.commit {
            return Err("the request and the plan come from different commits".to_owned());
        }
        let same_kind = match (&self.request, &plan.kind) {
            (Request::Blueprints { .. }, RevisionKind::Apply)
            | (Request::Destroy {}, RevisionKind::Destroy) => true,
            (
                Request::Rollback { owner, release },
                RevisionKind::Rollback { owner: planned, to },
            ) => owner == planned && release == to,
            _ => false,
        };
        if !same_kind {
            return Err("the plan is for something else than what was asked for".to_owned());
        }
        if let Request::Blueprints { sources, .. } = &self.request {
            for (path, source) in sources {
                check_source(path, source, plan)?;
            }
        }
        if self.blobs.len() > MAX_BLOBS {
            return Err(format!("it needs more than {MAX_BLOBS} blobs"));
        }
        let there = self
            .reads
            .absent
            .owners
            .iter()
            .find(|o| self.reads.owners.contains_key(*o));
        if let Some(owner) = there {
            return Err(format!("it expects {owner} both to be there and not to be"));
        }
        let there = self
            .reads
            .absent
            .machines
            .iter()
            .find(|m| self.reads.machines.contains_key(*m));
        if let Some(machine) = there {
            return Err(format!(
                "it expects machine {machine} both to be there and not to be"
            ));
        }
        Ok(())
    }

    /// The request as the API takes it.
    #[must_use]
    pub fn plan_request(&self) -> v1::PlanRequest {
        use v1::plan_request::Request as Wire;
        let request = match &self.request {
            Request::Blueprints { set, sources, ask } => Wire::Blueprints(v1::Blueprints {
                blueprint_set_json: set.get().as_bytes().to_vec(),
                sources: sources
                    .iter()
                    .map(|(path, source)| {
                        let source = v1::Source {
                            digest: source.digest.to_string(),
                            size: source.size,
                            text: source.text.clone(),
                        };
                        (path.clone(), source)
                    })
                    .collect(),
                ask_json: ask
                    .as_ref()
                    .map(|ask| ask.get().as_bytes().to_vec())
                    .unwrap_or_default(),
            }),
            Request::Rollback { owner, release } => Wire::Rollback(v1::Rollback {
                owner: owner.to_string(),
                release: Some(release.0),
            }),
            Request::Destroy {} => Wire::Destroy(v1::Destroy {}),
        };
        v1::PlanRequest {
            request: Some(request),
            commit: self.commit.clone().map(v1::Commit::from),
        }
    }
}

/// A JSON field as it was sent.
fn raw(field: &'static str, bytes: Vec<u8>) -> Result<Box<RawValue>, WireError> {
    let unreadable = |why: String| WireError::Field { field, why };
    let text = String::from_utf8(bytes).map_err(|e| unreadable(e.to_string()))?;
    RawValue::from_string(text).map_err(|e| unreadable(e.to_string()))
}

/// A source's digest must be the one that the plan was made with. Its text must be what has that digest.
fn check_source(path: &str, source: &Source, plan: &Plan) -> Result<(), String> {
    let other = |what: &str| format!("the source {} {what}", plumb_model::escape::line(path));
    let planned = plan
        .resolutions
        .get(&ResolutionKey(format!("path {path}")))
        .and_then(|resolution| resolution.resolved.as_ref());
    if planned.is_some_and(|planned| *planned != source.digest.to_string()) {
        return Err(other("is not the one that was planned with"));
    }
    match &source.text {
        Some(text)
            if text.len() as u64 != source.size || Hash::of(text.as_bytes()) != source.digest =>
        {
            Err(other("has a text that is not what its digest says"))
        }
        _ => Ok(()),
    }
}

impl Request {
    /// What the API was asked, with what the plan made of it: a rollback names its release.
    ///
    /// # Errors
    /// With the field that cannot be read.
    pub fn of(request: v1::plan_request::Request, kind: &RevisionKind) -> Result<Self, WireError> {
        use v1::plan_request::Request as Wire;
        Ok(match (request, kind) {
            (Wire::Rollback(_), RevisionKind::Rollback { owner, to }) => Self::Rollback {
                owner: owner.clone(),
                release: *to,
            },
            (Wire::Rollback(_), _) => return Err(WireError::Missing("rollback")),
            (Wire::Destroy(v1::Destroy {}), _) => Self::Destroy {},
            (Wire::RenewSecrets(_), _) => {
                return Err(WireError::Field {
                    field: "request",
                    why: "newer versions of secrets are applied at once, and not from a plan file"
                        .to_owned(),
                });
            }
            (Wire::Texts(_), _) => {
                return Err(WireError::Field {
                    field: "request",
                    why: "a plan file holds blueprints as they were read, and not their texts"
                        .to_owned(),
                });
            }
            (Wire::Blueprints(blueprints), _) => {
                let v1::Blueprints {
                    blueprint_set_json,
                    sources,
                    ask_json,
                } = blueprints;
                let sources = sources
                    .into_iter()
                    .map(|(path, source)| {
                        let v1::Source { digest, size, text } = source;
                        let digest = parse("sources.digest", &digest)?;
                        Ok((path, Source { digest, size, text }))
                    })
                    .collect::<Result<_, WireError>>()?;
                let set = raw("blueprint_set_json", blueprint_set_json)?;
                let ask = match ask_json.as_slice() {
                    [] => None,
                    _ => Some(raw("ask_json", ask_json)?),
                };
                Self::Blueprints { set, sources, ask }
            }
        })
    }
}
