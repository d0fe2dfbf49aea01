//! What must be allowed expressly: an apply without it records nothing.

use std::collections::BTreeSet;

use plumb_blueprint::DataLoss;
use plumb_model::plan::{ChangeAction, NeedsConsent, Plan};

use crate::desired::Desired;
use crate::{Input, Request};

/// The names of all consents: what `--allow` takes. For `held`, whoever keeps what was taken back asks.
pub const CONSENTS: [&str; 9] = [
    "deletes",
    "restarts",
    "machines",
    "labels",
    "data-loss",
    "empty",
    "rename",
    "adopt",
    "held",
];

/// Every consent that a plan needs, in the order in which people are asked.
pub(super) fn consents(desired: &Desired, input: &Input<'_>, plan: &Plan) -> Vec<NeedsConsent> {
    let applied = matches!(input.request, Request::Apply { .. });
    let found = [
        renamed(desired, input).filter(|_| applied),
        emptied(desired, input, plan).filter(|_| applied),
        deletes(desired, plan),
        data_loss(desired, plan),
        restarts(desired, plan),
        machines(desired, plan),
        labels(input, plan),
        adopt(plan),
    ];
    found
        .into_iter()
        .flatten()
        .inspect(|(allow, _)| {
            assert!(
                CONSENTS.contains(allow),
                "{allow} has its place in the list"
            )
        })
        .map(|(allow, reason)| NeedsConsent {
            allow: allow.to_owned(),
            reason,
        })
        .collect()
}

/// What `--allow` takes, and why.
type Needed = Option<(&'static str, String)>;

fn renamed(desired: &Desired, input: &Input<'_>) -> Needed {
    let (old, new) = (&input.recorded.state.manifest, &desired.manifest);
    let (Some(old), Some(new)) = (old, new) else {
        return None;
    };
    (old != new).then(|| {
        let reason = format!(
            "workspace `{old}` is recorded here, and these blueprints are of workspace `{new}`"
        );
        ("rename", reason)
    })
}

/// Everything that is recorded would go. With targets nothing outside them does.
fn emptied(desired: &Desired, input: &Input<'_>, plan: &Plan) -> Needed {
    if !desired.targets.is_empty() {
        return None;
    }
    let recorded = !input.recorded.state.owners.is_empty();
    let missing = if desired.owners.is_empty() {
        "App, Setup, Service, Volume or Network"
    } else if desired.machines.is_empty() {
        "machine"
    } else {
        return None;
    };
    let goes = plan.blast_radius.deletes > 0 || (desired.owners.is_empty() && recorded);
    goes.then(|| {
        let reason = format!(
            "the blueprints declare no {missing}, so everything that is recorded would be removed"
        );
        ("empty", reason)
    })
}

/// `1 machine`, `2 machines`.
fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

fn deletes(desired: &Desired, plan: &Plan) -> Needed {
    let free = desired.policy.as_ref()?.deletes?;
    let deletes = plan.blast_radius.deletes;
    (deletes > free).then(|| {
        let reason = format!(
            "{} would be deleted, and the policy of this workspace lets {free} go",
            count(deletes as usize, "resource")
        );
        ("deletes", reason)
    })
}

/// Asked for whatever is planned, unless the blueprints say that it may be.
fn data_loss(desired: &Desired, plan: &Plan) -> Needed {
    let allowed = desired
        .policy
        .as_ref()
        .is_some_and(|policy| policy.data_loss == DataLoss::Allow);
    let lost: BTreeSet<String> = plan
        .owners
        .iter()
        .flat_map(|owner| &owner.data_loss)
        .map(|address| format!("`{address}`"))
        .collect();
    (!allowed && !lost.is_empty()).then(|| {
        let lost: Vec<String> = lost.into_iter().collect();
        let reason = format!("the data of {} would be destroyed", lost.join(", "));
        ("data-loss", reason)
    })
}

fn restarts(desired: &Desired, plan: &Plan) -> Needed {
    let free = desired.policy.as_ref()?.restarts?;
    let restarts = plan.blast_radius.restarts;
    (restarts > free).then(|| {
        let reason = format!(
            "{} would be restarted, and the policy of this workspace lets {free} be",
            count(restarts as usize, "running thing")
        );
        ("restarts", reason)
    })
}

fn machines(desired: &Desired, plan: &Plan) -> Needed {
    let free = desired.policy.as_ref()?.machines?;
    let touched = plan.blast_radius.machines.len();
    (touched > free as usize).then(|| {
        let reason = format!(
            "{} would be touched, and the policy of this workspace lets {free} be",
            count(touched, "machine")
        );
        ("machines", reason)
    })
}

/// Machines without the labels that they must have, if the plan does anything at all.
///
/// It is about the machines as the blueprints have them: those that `--target` leaves as they are recorded are not what they
/// will be.
fn labels(input: &Input<'_>, plan: &Plan) -> Needed {
    let Request::Apply { blueprint, .. } = input.request else {
        return None;
    };
    let required = &blueprint.workspace.policy.required_labels;
    if plan.is_empty() {
        return None;
    }
    let mut lacking = Vec::new();
    for (name, info) in &blueprint.machines {
        for label in required {
            if !info.labels.contains_key(label) {
                lacking.push(format!("machine `{name}` has no label `{label}`"));
            }
        }
    }
    (!lacking.is_empty()).then(|| {
        let reason = format!("{}, which the policy asks for", lacking.join(", "));
        ("labels", reason)
    })
}

fn adopt(plan: &Plan) -> Needed {
    let taken: Vec<String> = plan
        .changes
        .iter()
        .filter(|change| change.action == ChangeAction::Adopt)
        .map(|change| format!("`{}`", change.address))
        .collect();
    (!taken.is_empty()).then(|| {
        let reason = format!(
            "what plumb did not make would be taken over at {}",
            taken.join(", ")
        );
        ("adopt", reason)
    })
}
