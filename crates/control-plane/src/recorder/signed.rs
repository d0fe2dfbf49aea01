//! Plans that leave the control plane in a file, and come back to be applied.
//!
//! Guarantees: what is signed was planned here, just now; what comes back is planned again like any other request, under
//! the same lock, and recorded only if its approval is the same. A signature of this control plane adds that base and
//! read set are believed; one of another adds nothing, so its plan is no more than a request that somebody vouches for.

use std::collections::BTreeMap;
use std::sync::Arc;

use plumb_model::Hash;
use plumb_model::plan::Resolution;
use plumb_model::state::{ResolutionKey, StateBody};
use plumb_planner::{Ask, Observed, Planned};
use plumb_wire::convert::{WireError, from_json, to_json};
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::plan_file::{
    self, Absent, Document, MAX_DOCUMENT_BYTES, PlanFileError, ReadSet, Request, Signature,
};
use plumb_wire::v1;

use super::{Applied, Base, Current, Order, Recorder, after, wanted_blobs};
use crate::refuse;

impl Recorder {
    /// Plans a request against what is recorded now, and signs the result.
    pub async fn sign(
        self: &Arc<Self>,
        by: String,
        request: v1::PlanRequest,
    ) -> Result<v1::SignedPlan, Refusal> {
        let observed = self.observed().await?;
        let this = self.clone();
        let before = self.current();
        refuse::blocking(move || this.sign_against(by, request, &before, &observed)).await
    }

    fn sign_against(
        &self,
        by: String,
        request: v1::PlanRequest,
        before: &Current,
        observed: &Observed,
    ) -> Result<v1::SignedPlan, Refusal> {
        // All of what was asked: what a new field asks for must find its place in the document.
        let v1::PlanRequest {
            request: asked,
            commit: _,
        } = request.clone();
        let Planned { plan, next } = self.plan_against(request, before, observed)?;
        let (_, bodies) = after(before, &next)?;
        let blobs = wanted_blobs(&bodies);
        let mut asked = asked.ok_or(WireError::Missing("request"))?;
        if let v1::plan_request::Request::Blueprints(blueprints) = &mut asked {
            blueprints.ask_json = pinned(&blueprints.ask_json, &plan.resolutions)?;
        }
        let document = Document {
            format: plan_file::FORMAT,
            plumb: env!("CARGO_PKG_VERSION").to_owned(),
            lineage: self.lineage.clone(),
            workspace: self.workspace.clone(),
            planned_at: (self.now)(),
            planned_by: by,
            reads: read_set(&before.recorded.state, &next.state),
            blobs,
            request: Request::of(asked, &plan.kind)?,
            commit: plan.commit.clone(),
            plan,
        }
        .bytes();
        if document.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(Refusal::new(
                Reason::TooLarge,
                format!(
                    "the plan has {} bytes, and a plan file holds at most {MAX_DOCUMENT_BYTES}; plan a part of the workspace, or apply without a file",
                    document.len()
                ),
            ));
        }
        Ok(self.signer.sign(&document).to_wire(document))
    }

    /// Records a signed plan, if it is still what would be done.
    pub async fn apply_signed(
        self: &Arc<Self>,
        by: String,
        request: v1::ApplySignedRequest,
    ) -> Result<Applied, Refusal> {
        let v1::ApplySignedRequest {
            signed,
            allow,
            rebase,
            vouched_key,
        } = request;
        let signed = signed.ok_or(WireError::Missing("signed"))?;
        let signature = Signature::from_wire(&signed)?;
        let document =
            refuse::blocking(move || Document::open(&signed.document, &signature).map_err(damaged))
                .await?;
        let own = signature.key == self.signer.key()
            && document.lineage == self.lineage
            && document.workspace == self.workspace;
        let key = signature.key.id().to_string();
        if !own && vouched_key != key {
            return Err(Refusal::new(
                Reason::ForeignPlan,
                format!(
                    "the plan was signed with the key {key}, and this control plane signs with {}; if you know whose that is, apply it with --key {key}: it is planned again here, and must come out the same",
                    self.signer.key().id()
                ),
            )
            .with("key", &key));
        }
        tracing::info!(%by, %key, own, planned_by = %document.planned_by, approval = %document.plan.approval, "a signed plan is to be recorded");
        let base = if own && !rebase {
            Base::Read(document.plan.base, Box::new(document.reads.clone()))
        } else {
            Base::Newest
        };
        let order = Order {
            request: document.plan_request(),
            approval: document.plan.approval,
            allow: allow.into_iter().collect(),
            base,
        };
        self.order(by, order).await
    }

    /// What the newest revision recorded, if it was exactly this plan.
    pub(super) fn recorded_before(&self, approval: Hash) -> Result<Option<Applied>, Refusal> {
        let newest = self.ledger.revisions(1).map_err(|e| refuse::ledger(&e))?;
        let same = newest
            .into_iter()
            .find(|record| record.approval == approval);
        Ok(same.map(|record| Applied {
            revision: record.revision,
            releases: record
                .released
                .into_iter()
                .map(|(owner, (release, _))| (owner, release))
                .collect(),
            recorded_before: true,
        }))
    }
}

fn damaged(error: PlanFileError) -> Refusal {
    Refusal::new(
        Reason::PlanDamaged,
        format!(
            "the plan file cannot be used: {}; have it made again with `plumb plan --out`",
            refuse::chain(&error)
        ),
    )
}

/// What was asked, with what the plan took every moving name to mean: so it means the same when the file is applied, also
/// where nothing is recorded of it.
fn pinned(
    ask_json: &[u8],
    resolutions: &BTreeMap<ResolutionKey, Resolution>,
) -> Result<Vec<u8>, WireError> {
    let mut ask: Ask = match ask_json {
        [] => Ask::default(),
        json => from_json("ask_json", json)?,
    };
    let before = ask.clone();
    for (key, resolution) in resolutions {
        // What a path holds travels with the sources.
        if let Some(resolved) = &resolution.resolved
            && !key.0.starts_with("path ")
        {
            ask.resolved.insert(key.clone(), resolved.clone());
        }
    }
    Ok(if ask == before {
        ask_json.to_vec()
    } else {
        to_json(&ask)
    })
}

/// What a plan read, and what it makes.
fn read_set(before: &StateBody, next: &StateBody) -> ReadSet {
    let new = |name: &dyn Fn(&StateBody) -> bool| !name(before);
    ReadSet {
        manifest: before.manifest.clone(),
        owners: before.owners.clone(),
        machines: before
            .machines
            .iter()
            .map(|(name, machine)| (name.clone(), machine.generation))
            .collect::<BTreeMap<_, _>>(),
        absent: Absent {
            owners: next
                .owners
                .keys()
                .filter(|owner| new(&|state| state.owners.contains_key(*owner)))
                .cloned()
                .collect(),
            machines: next
                .machines
                .keys()
                .filter(|machine| new(&|state| state.machines.contains_key(*machine)))
                .cloned()
                .collect(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation: leave the insertion out of `pinned`.
    #[test]
    fn what_moving_names_meant_travels_with_the_request() {
        let key = |text: &str| ResolutionKey(text.to_owned());
        let resolution = |resolved: Option<&str>| Resolution {
            resolved: resolved.map(str::to_owned),
            before: None,
        };
        let resolutions = BTreeMap::from([
            (key("git https://x branch main"), resolution(Some("c0ffee"))),
            (key("image a:1"), resolution(None)),
            (key("path app"), resolution(Some("d1"))),
        ]);
        let read = |json: Vec<u8>| serde_json::from_slice::<Ask>(&json).unwrap();
        let ask = read(pinned(b"", &resolutions).unwrap());
        let expected = BTreeMap::from([(key("git https://x branch main"), "c0ffee".to_owned())]);
        assert_eq!(ask.resolved, expected);
        // What was asked besides stays, and what needs nothing stays byte for byte.
        let asked = Ask {
            targets: [plumb_model::OwnerName::new("a").unwrap()].into(),
            ..Ask::default()
        };
        let again = read(pinned(&to_json(&asked), &resolutions).unwrap());
        assert_eq!((again.targets, again.resolved), (asked.targets, expected));
        for same in [&b""[..], &to_json(&Ask::default())] {
            assert_eq!(pinned(same, &BTreeMap::new()).unwrap(), same);
        }
        assert!(pinned(b"nonsense", &resolutions).is_err());
    }
}
