//! What will be felt of a change, and why something is down for a time.

use std::collections::BTreeSet;

use plumb_model::coverage::Cost;
use plumb_model::plan::{Change, ChangeAction, Felt};
use plumb_model::spec_container::MountSource;
use plumb_model::{FileSpec, OwnerName, Resource, ResourceKind, ResourceSpec, RunState};

use super::Sides;

/// Whether a resource runs all the time. What is started at set times is not stopped by a change.
pub(super) fn is_running(resource: &Resource) -> bool {
    match &resource.spec {
        ResourceSpec::Process(spec) => spec.state == RunState::Running && spec.schedule.is_none(),
        ResourceSpec::Container(spec) => spec.state == RunState::Running && spec.schedule.is_none(),
        ResourceSpec::Service(spec) => spec.state == RunState::Running,
        _ => false,
    }
}

/// What is felt of one resource's change.
pub(super) fn felt(change: &Change, old: Option<&Resource>, new: Option<&Resource>) -> Felt {
    let kind = change.address.kind;
    match change.action {
        ChangeAction::Forget | ChangeAction::NoOp => return Felt::Nothing,
        ChangeAction::Adopt => return Felt::InPlace,
        _ => {}
    }
    if kind == ResourceKind::Route {
        return Felt::Reload;
    }
    if !kind.runs() {
        return Felt::InPlace;
    }
    match (old.is_some_and(is_running), new.is_some_and(is_running)) {
        (true, true) => match change.cost {
            Some(Cost::Replace) => Felt::Replace,
            Some(Cost::Restart) => Felt::Restart,
            Some(Cost::Reload) => Felt::Reload,
            Some(Cost::InPlace) | None => Felt::InPlace,
        },
        (true, false) => Felt::Stop,
        (false, true) => Felt::Start,
        (false, false) => Felt::Nothing,
    }
}

/// How many running things a change stops and starts: itself, or those that a file tells.
pub(super) fn restarts(sides: &Sides<'_>, change: &Change, felt: Felt) -> u32 {
    let itself = u32::from(matches!(felt, Felt::Restart | Felt::Replace));
    let told = told(sides, change);
    if told.is_empty() {
        return itself;
    }
    let of_told = sides
        .before
        .values()
        .filter(|r| r.address.machine == change.address.machine)
        .filter(|r| told.contains(&r.address.owner) && is_running(r))
        .count();
    itself + u32::try_from(of_told).unwrap_or(u32::MAX)
}

/// The apps that run on the machine and are told because the content of a file changes.
fn told<'a>(sides: &Sides<'a>, change: &Change) -> BTreeSet<&'a OwnerName> {
    let is_content = |path: &str| path.split('.').next() == Some("content");
    let changes = matches!(change.action, ChangeAction::Update | ChangeAction::Adopt)
        && change.attributes.iter().any(|a| is_content(&a.path));
    let Some(ResourceSpec::File(FileSpec { notify, .. })) = changes
        .then(|| sides.after.get(&change.address))
        .flatten()
        .map(|r| &r.spec)
    else {
        return BTreeSet::new();
    };
    sides
        .before
        .values()
        .filter(|r| r.address.machine == change.address.machine && is_running(r))
        .map(|r| &r.address.owner)
        .filter(|owner| notify.contains(*owner))
        .collect()
}

/// Why something is not there for a time, if it is not.
pub(super) fn downtime(
    sides: &Sides<'_>,
    change: &Change,
    old: Option<&Resource>,
    new: Option<&Resource>,
) -> Option<String> {
    let told = told(sides, change);
    if !told.is_empty() {
        let names: Vec<String> = told.iter().map(|owner| format!("`{owner}`")).collect();
        return Some(format!("it restarts {}", names.join(" and ")));
    }
    let old = old.filter(|old| is_running(old))?;
    match change.action {
        ChangeAction::Delete => Some("it is stopped for good".to_owned()),
        ChangeAction::Update
        | ChangeAction::ReplaceCreateFirst
        | ChangeAction::ReplaceDeleteFirst => {
            let new = new?;
            if !is_running(new) {
                return Some(if is_stopped(new) {
                    "it is stopped, as the blueprint says".to_owned()
                } else {
                    "it is stopped, and runs only at set times from now on".to_owned()
                });
            }
            (change.cost >= Some(Cost::Restart)).then(|| stop_first(sides, old, new))
        }
        ChangeAction::Create | ChangeAction::Forget | ChangeAction::Adopt | ChangeAction::NoOp => {
            None
        }
    }
}

fn is_stopped(resource: &Resource) -> bool {
    match &resource.spec {
        ResourceSpec::Process(spec) => spec.state == RunState::Stopped,
        ResourceSpec::Container(spec) => spec.state == RunState::Stopped,
        ResourceSpec::Service(spec) => spec.state == RunState::Stopped,
        _ => false,
    }
}

/// Why the old one has to be stopped before the new one starts.
fn stop_first(sides: &Sides<'_>, old: &Resource, new: &Resource) -> String {
    let why = if old.address.kind == ResourceKind::Service {
        "since only one can have its data".to_owned()
    } else if let Some(ports) = shared(ports(old), &ports(new)) {
        format!("since both need port {ports}")
    } else if let Some(volumes) = shared(volumes(old), &volumes(new)) {
        format!("since both write to the volume {volumes}")
    } else if sides.fronted.contains(&new.address.owner) {
        "since this version of plumb switches no route over while both run".to_owned()
    } else {
        "since nothing stands in front of it to switch over".to_owned()
    };
    format!("it is stopped before the new one starts, {why}")
}

fn ports(resource: &Resource) -> BTreeSet<String> {
    crate::desired::claimed_ports(resource)
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// The volumes that a container writes to.
fn volumes(resource: &Resource) -> BTreeSet<String> {
    let ResourceSpec::Container(spec) = &resource.spec else {
        return BTreeSet::new();
    };
    spec.mounts
        .values()
        .filter(|mount| !mount.read_only)
        .filter_map(|mount| match &mount.source {
            MountSource::Volume(name) => Some(format!("`{name}`")),
            MountSource::Path(_) => None,
        })
        .collect()
}

fn shared(old: BTreeSet<String>, new: &BTreeSet<String>) -> Option<String> {
    let both: Vec<&str> = old.intersection(new).map(String::as_str).collect();
    (!both.is_empty()).then(|| both.join(" and "))
}
