//! The difference between desired and recorded: changes with their reasons, costs and consequences.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::coverage::{self, Cost, Redaction};
use plumb_model::plan::{
    AttributeChange, BlastRadius, Change, ChangeAction, DriftNote, FORMAT, Felt, MachineChange,
    MonthlyCost, NeedsConsent, NotDone, OwnerChange, Plan,
};
use plumb_model::state::{MachineInfo, Next, OwnerKind, RevisionKind};
use plumb_model::{
    Address, ConditionKind, Hash, MachineName, OwnerName, ReleaseNumber, Resource, ResourceKind,
    ResourceSpec, RunState,
};
use serde_json::Value;

use crate::desired::{Desired, claims};
use crate::{Input, Request, capability};

/// Compares. Release numbers, touched machines and the approval hash are filled in afterwards.
pub(crate) fn diff(desired: &Desired, input: &Input<'_>) -> Plan {
    let before: BTreeMap<&Address, &Resource> = input
        .recorded
        .releases
        .values()
        .flat_map(|body| &body.resources)
        .map(|r| (&r.address, r))
        .collect();
    let after: BTreeMap<&Address, &Resource> =
        desired.resources().map(|r| (&r.address, r)).collect();
    let addresses: BTreeSet<&Address> = before.keys().chain(after.keys()).copied().collect();
    let mut changes = Vec::new();
    let mut worst: BTreeMap<&OwnerName, Felt> = BTreeMap::new();
    let mut restarts = 0;
    let mut unchanged = 0;
    for address in addresses {
        let old = before.get(address).copied();
        let new = after.get(address).copied();
        let Some(change) = change(address, old, new, desired) else {
            unchanged += 1;
            continue;
        };
        let felt = felt(old, new, change.cost);
        restarts += u32::from(felt == Felt::Restart);
        let worst = worst.entry(&address.owner).or_insert(felt);
        *worst = felt.max(*worst);
        changes.push(change);
    }
    let order = order(&changes, &before, &after);
    let owners = owner_changes(desired, input, &worst);
    let machines = machine_changes(desired, input);
    let blast_radius = blast_radius(&changes, restarts);
    let consents = consents(desired, input, &blast_radius);
    Plan {
        format: FORMAT,
        workspace: desired
            .manifest
            .clone()
            .or_else(|| input.recorded.state.manifest.clone()),
        kind: match input.request {
            Request::Apply { .. } => RevisionKind::Apply,
            Request::Rollback { owner, to, .. } => RevisionKind::Rollback {
                owner: owner.clone(),
                to: *to,
            },
            Request::Destroy => RevisionKind::Destroy,
        },
        base: input.recorded.state.revision,
        commit: input.commit.cloned(),
        machines,
        owners,
        changes,
        order,
        targets: BTreeSet::new(),
        resolutions: desired.resolutions.clone(),
        blast_radius,
        monthly_cost: monthly_cost(desired, input),
        drift: drift(input, &before),
        not_done: not_done(desired, input),
        lacks: capability::lacks(desired, &before, input.observed),
        consents,
        unchanged,
        approval: Hash([0; 32]),
    }
}

fn change(
    address: &Address,
    before: Option<&Resource>,
    after: Option<&Resource>,
    desired: &Desired,
) -> Option<Change> {
    let origin = desired.origins.get(address).cloned();
    let base = |action, reasons: Vec<String>, attributes| Change {
        address: address.clone(),
        action,
        reasons,
        attributes,
        blocked_by: Vec::new(),
        cost: None,
        downtime: None,
        origin,
    };
    match (before, after) {
        (None, None) => None,
        (None, Some(new)) => {
            let attributes = spec_changes(None, Some(&new.spec));
            Some(base(
                ChangeAction::Create,
                vec![format!("new in `{}`", address.owner)],
                attributes,
            ))
        }
        (Some(old), None) => {
            let reason = if desired.owners.contains_key(&address.owner) {
                format!("no longer in `{}`", address.owner)
            } else {
                format!("`{}` is removed", address.owner)
            };
            let mut change = base(
                ChangeAction::Delete,
                vec![reason],
                spec_changes(Some(&old.spec), None),
            );
            if is_running(old) {
                change.downtime = Some("it is stopped for good".to_owned());
            }
            Some(change)
        }
        (Some(old), Some(new)) => {
            if old == new {
                return None;
            }
            let mut attributes = spec_changes(Some(&old.spec), Some(&new.spec));
            attributes.extend(around(old, new));
            let cost = attributes.iter().map(|a| a.cost).max();
            let replaced = cost == Some(Cost::Replace);
            let action = if replaced {
                ChangeAction::ReplaceCreateFirst
            } else {
                ChangeAction::Update
            };
            let fields: BTreeSet<&str> = attributes
                .iter()
                .map(|a| a.path.split('.').next().unwrap_or(&a.path))
                .collect();
            let reasons = vec![format!(
                "{} changed",
                fields.into_iter().collect::<Vec<_>>().join(", ")
            )];
            let mut change = base(action, reasons, attributes);
            change.cost = cost;
            change.downtime = downtime(old, new, cost);
            Some(change)
        }
    }
}

fn is_running(resource: &Resource) -> bool {
    matches!(&resource.spec, ResourceSpec::Process(spec) if spec.state == RunState::Running)
}

/// What users will notice of a changed process.
fn downtime(old: &Resource, new: &Resource, cost: Option<Cost>) -> Option<String> {
    let (ResourceSpec::Process(before), ResourceSpec::Process(after)) = (&old.spec, &new.spec)
    else {
        return None;
    };
    if cost < Some(Cost::Restart) || before.state == RunState::Stopped {
        return None;
    }
    if after.state == RunState::Stopped {
        return Some("it is stopped, as the blueprint says".to_owned());
    }
    let kept: Vec<String> = before
        .ports
        .values()
        .filter(|p| after.ports.values().any(|q| q == *p))
        .map(ToString::to_string)
        .collect();
    Some(if kept.is_empty() {
        "it is stopped before the new one starts, since nothing stands in front of it to switch over".to_owned()
    } else {
        format!(
            "it is stopped before the new one starts, since both need port {}",
            kept.join(" and ")
        )
    })
}

/// Field by field, each with the cost that its row in the coverage table gives; maps are compared key by key.
fn spec_changes(
    before: Option<&ResourceSpec>,
    after: Option<&ResourceSpec>,
) -> Vec<AttributeChange> {
    let Some(kind) = before.or(after).map(ResourceSpec::kind) else {
        return Vec::new();
    };
    let before = before.map(ResourceSpec::fields).unwrap_or_default();
    let after = after.map(ResourceSpec::fields).unwrap_or_default();
    let mut changes = Vec::new();
    for row in coverage::fields(kind) {
        let (old, new) = (before.get(row.name), after.get(row.name));
        compare(
            row.name,
            old,
            new,
            row.cost,
            row.redaction == Redaction::Sensitive,
            &mut changes,
        );
    }
    changes
}

fn compare(
    path: &str,
    old: Option<&Value>,
    new: Option<&Value>,
    cost: Cost,
    sensitive: bool,
    changes: &mut Vec<AttributeChange>,
) {
    let present = |v: Option<&Value>| v.filter(|v| !v.is_null()).cloned();
    let (old, new) = (present(old), present(new));
    if old == new {
        return;
    }
    let maps = |v: &Option<Value>| matches!(v, Some(Value::Object(_)) | None);
    if maps(&old) && maps(&new) {
        let empty = serde_json::Map::new();
        let object = |v: &Option<Value>| {
            v.as_ref()
                .and_then(Value::as_object)
                .unwrap_or(&empty)
                .clone()
        };
        let (a, b) = (object(&old), object(&new));
        let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for key in keys {
            compare(
                &format!("{path}.{key}"),
                a.get(key),
                b.get(key),
                cost,
                sensitive,
                changes,
            );
        }
        return;
    }
    let hide = |v: Option<Value>| {
        if sensitive {
            v.map(|_| plumb_model::secret::REDACTED.into())
        } else {
            v
        }
    };
    let digest = sensitive.then(|| {
        let both = serde_json::to_vec(&(&old, &new)).expect("model values are always JSON");
        Hash::keyed(path, &both)
    });
    changes.push(AttributeChange {
        path: path.to_owned(),
        before: hide(old),
        after: hide(new),
        sensitive,
        digest,
        unknown: false,
        cost,
    });
}

/// What is said about a resource outside its spec; it never touches what runs.
fn around(old: &Resource, new: &Resource) -> Vec<AttributeChange> {
    fn value(v: &impl serde::Serialize) -> Option<Value> {
        Some(serde_json::to_value(v).expect("model values are always JSON"))
    }
    let mut changes = Vec::new();
    let mut push = |path: &str, before, after| {
        if before != after {
            changes.push(AttributeChange {
                path: path.to_owned(),
                before,
                after,
                sensitive: false,
                digest: None,
                unknown: false,
                cost: Cost::InPlace,
            });
        }
    };
    push("drift", value(&old.drift), value(&new.drift));
    push("after", value(&old.after), value(&new.after));
    changes
}

fn order(
    changes: &[Change],
    before: &BTreeMap<&Address, &Resource>,
    after: &BTreeMap<&Address, &Resource>,
) -> Vec<(Address, Address)> {
    let changed: BTreeMap<&Address, ChangeAction> =
        changes.iter().map(|c| (&c.address, c.action)).collect();
    let mut order = BTreeSet::new();
    // What is let go is gone before another resource takes it. From deletes to the others only, so that two
    // resources that swap what they hold make no cycle.
    let let_go: BTreeMap<_, &Address> = changed
        .iter()
        .filter(|(_, action)| **action == ChangeAction::Delete)
        .filter_map(|(address, _)| before.get(*address))
        .flat_map(|resource| claims(resource).into_iter().map(|c| (c, &resource.address)))
        .collect();
    for (address, action) in &changed {
        let deleted = *action == ChangeAction::Delete;
        let Some(resource) = (if deleted { before } else { after }).get(*address) else {
            continue;
        };
        for other in &resource.after {
            match (deleted, changed.get(other)) {
                (true, Some(ChangeAction::Delete)) => {
                    order.insert(((*address).clone(), other.clone()))
                }
                (false, Some(a)) if *a != ChangeAction::Delete => {
                    order.insert((other.clone(), (*address).clone()))
                }
                _ => false,
            };
        }
        if !deleted {
            for claim in claims(resource) {
                if let Some(holder) = let_go.get(&claim) {
                    order.insert(((*holder).clone(), (*address).clone()));
                }
            }
        }
    }
    order.into_iter().collect()
}

fn owner_changes(
    desired: &Desired,
    input: &Input<'_>,
    worst: &BTreeMap<&OwnerName, Felt>,
) -> Vec<OwnerChange> {
    let recorded = &input.recorded.state;
    let names: BTreeSet<&OwnerName> = desired
        .owners
        .keys()
        .chain(recorded.owners.keys())
        .collect();
    let mut owners = Vec::new();
    for owner in names {
        let old = input.recorded.releases.get(owner);
        let new = desired.owners.get(owner);
        let action = match (old, new) {
            (None, _) => ChangeAction::Create,
            (Some(_), None) => ChangeAction::Delete,
            (Some(old), Some(new)) if old == new => continue,
            (Some(_), Some(_)) => ChangeAction::Update,
        };
        let felt = worst.get(owner).copied().unwrap_or(Felt::Nothing);
        owners.push(OwnerChange {
            owner: owner.clone(),
            kind: old.or(new).map_or(OwnerKind::App, |body| body.kind),
            action,
            renamed_from: None,
            downtime: BTreeSet::new(),
            data_loss: BTreeSet::new(),
            origin: None,
            from: recorded.owners.get(owner).map(|o| o.release),
            to: ReleaseNumber(0),
            felt,
        });
    }
    owners
}

/// What is felt of one resource's change.
fn felt(old: Option<&Resource>, new: Option<&Resource>, cost: Option<Cost>) -> Felt {
    if old.or(new).map(|r| r.address.kind) != Some(ResourceKind::Process) {
        return Felt::InPlace;
    }
    match (old.is_some_and(is_running), new.is_some_and(is_running)) {
        (true, true) if cost >= Some(Cost::Restart) => Felt::Restart,
        (true, true) => Felt::InPlace,
        (true, false) => Felt::Stop,
        (false, true) => Felt::Start,
        (false, false) => Felt::Nothing,
    }
}

fn machine_changes(desired: &Desired, input: &Input<'_>) -> Vec<MachineChange> {
    let recorded = &input.recorded.state.machines;
    let names: BTreeSet<_> = desired.machines.keys().chain(recorded.keys()).collect();
    let fields = |info: Option<&MachineInfo>| {
        info.map(|i| serde_json::to_value(i).expect("model values are always JSON"))
    };
    let mut changes = Vec::new();
    for name in names {
        let old = recorded.get(name).filter(|m| !m.leaving).map(|m| &m.info);
        let new = desired.machines.get(name);
        let action = match (old, new) {
            (None, None) => continue,
            (Some(old), Some(new)) if old == new => continue,
            (None, Some(_)) => ChangeAction::Create,
            (Some(_), None) => ChangeAction::Delete,
            (Some(_), Some(_)) => ChangeAction::Update,
        };
        let (before, after) = (fields(old), fields(new));
        let mut attributes = Vec::new();
        for field in ["labels", "address", "price"] {
            let get = |v: &Option<Value>| v.as_ref().and_then(|v| v.get(field)).cloned();
            compare(
                field,
                get(&before).as_ref(),
                get(&after).as_ref(),
                Cost::InPlace,
                false,
                &mut attributes,
            );
        }
        changes.push(MachineChange {
            machine: name.clone(),
            action,
            attributes,
        });
    }
    changes
}

fn blast_radius(changes: &[Change], restarts: u32) -> BlastRadius {
    let mut radius = BlastRadius {
        restarts,
        ..BlastRadius::default()
    };
    for change in changes {
        match change.action {
            ChangeAction::Delete => radius.deletes += 1,
            ChangeAction::ReplaceCreateFirst | ChangeAction::ReplaceDeleteFirst => {
                radius.replacements += 1
            }
            _ => {}
        }
        if change.downtime.is_some() {
            *radius
                .peak_unavailable
                .entry(change.address.owner.clone())
                .or_default() += 1;
        }
    }
    radius
}

fn monthly_cost(desired: &Desired, input: &Input<'_>) -> MonthlyCost {
    fn total<'a>(machines: impl Iterator<Item = &'a MachineInfo>) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for price in machines.filter_map(|m| m.price.as_ref()) {
            let sum: &mut u64 = sums.entry(price.currency.clone()).or_default();
            *sum = sum.saturating_add(price.monthly_cents);
        }
        sums
    }
    MonthlyCost {
        before_cents: total(
            input
                .recorded
                .state
                .machines
                .values()
                .filter(|m| !m.leaving)
                .map(|m| &m.info),
        ),
        after_cents: total(desired.machines.values()),
    }
}

/// What waits for machines whose agents have never been heard of.
fn not_done(desired: &Desired, input: &Input<'_>) -> Vec<NotDone> {
    let mut waiting: BTreeMap<&MachineName, usize> = BTreeMap::new();
    for resource in desired.resources() {
        let machine = &resource.address.machine;
        if !input.observed.machines.contains_key(machine) {
            *waiting.entry(machine).or_default() += 1;
        }
    }
    waiting
        .into_iter()
        .map(|(machine, count)| NotDone {
            subject: format!("machine {machine}"),
            reason: format!(
                "{count} resource{} wait{} until its agent joins: \
                 run `plumb token create --join --machine {machine}` here and `plumb agent` there",
                if count == 1 { "" } else { "s" },
                if count == 1 { "s" } else { "" },
            ),
        })
        .collect()
}

fn drift(input: &Input<'_>, before: &BTreeMap<&Address, &Resource>) -> Vec<DriftNote> {
    input
        .observed
        .statuses
        .values()
        .filter_map(|status| {
            let drifted = status
                .condition(ConditionKind::Drifted)
                .filter(|c| c.status)?;
            Some(DriftNote {
                address: status.address.clone(),
                message: drifted.message.clone(),
                policy: before
                    .get(&status.address)
                    .map(|resource| resource.drift)
                    .unwrap_or_default(),
            })
        })
        .collect()
}

/// Whether every owner that is recorded goes.
fn nothing_left(desired: &Desired, input: &Input<'_>) -> bool {
    desired.owners.is_empty() && !input.recorded.state.owners.is_empty()
}

/// What must be allowed expressly. An apply without it records nothing.
fn consents(desired: &Desired, input: &Input<'_>, radius: &BlastRadius) -> Vec<NeedsConsent> {
    let mut consents = Vec::new();
    let recorded = &input.recorded.state;
    if let Request::Apply { .. } = input.request {
        if let (Some(old), Some(new)) = (&recorded.manifest, &desired.manifest)
            && old != new
        {
            consents.push(NeedsConsent {
                    allow: "rename".to_owned(),
                    reason: format!("workspace `{old}` is recorded here, and these blueprints are of workspace `{new}`"),
                });
        }
        let missing = if desired.owners.is_empty() {
            Some("app and no Setup")
        } else if desired.machines.is_empty() {
            Some("machine")
        } else {
            None
        };
        if let Some(missing) =
            missing.filter(|_| radius.deletes > 0 || nothing_left(desired, input))
        {
            consents.push(NeedsConsent {
                allow: "empty".to_owned(),
                reason: format!("the blueprints declare no {missing}, so everything that is recorded would be removed"),
            });
        }
        if let Some(free) = desired.free_deletes.filter(|free| radius.deletes > *free) {
            consents.push(NeedsConsent {
                allow: "deletes".to_owned(),
                reason: format!("{} resources would be deleted, and the policy of this workspace lets {free} go", radius.deletes),
            });
        }
    }
    consents
}

/// Puts the numbers in that the next state gives.
pub(crate) fn number_releases(plan: &mut Plan, next: &Next) {
    for change in &mut plan.owners {
        if let Some(release) = next.released.get(&change.owner) {
            change.to = *release;
        }
    }
}
