//! What will be felt of a change, and why something is down for a time.

use std::collections::BTreeSet;

use plumb_model::coverage::Cost;
use plumb_model::plan::{Change, ChangeAction, Felt};
use plumb_model::spec_container::MountSource;
use plumb_model::{
    Address, ConditionKind, FileSpec, OwnerName, Resource, ResourceKind, ResourceSpec, RunState,
};

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

/// Whether what is recorded runs now, as far as anybody can say. A process that its agent has never got to stay up is not
/// stopped by a change.
pub(super) fn is_up(sides: &Sides<'_>, recorded: &Resource) -> bool {
    is_running(recorded) && !never_got_up(sides, recorded)
}

/// Whether its agent says, of what is recorded now, that it did not get it to run and stay.
fn never_got_up(sides: &Sides<'_>, recorded: &Resource) -> bool {
    let address = &recorded.address;
    let machines = &sides.input.recorded.state.machines;
    let (Some(status), Some(machine)) = (
        sides.input.observed.statuses.get(address),
        machines.get(&address.machine),
    ) else {
        return false;
    };
    let Some(process) = &status.process else {
        return false;
    };
    // While it is started again and again it is up for moments, which is not what a plan should depend on.
    let dies = process.pid.is_none() || process.last_exit.is_some();
    status.generation >= machine.generation && !status.is(ConditionKind::Converged) && dies
}

/// What is felt of one resource's change.
pub(super) fn felt(
    sides: &Sides<'_>,
    change: &Change,
    old: Option<&Resource>,
    new: Option<&Resource>,
) -> Felt {
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
        return match change.action {
            ChangeAction::ReplaceDeleteFirst => Felt::Replace,
            _ => Felt::InPlace,
        };
    }
    let up = old.is_some_and(|old| is_up(sides, old));
    match (up, new.is_some_and(is_running)) {
        (true, true) => match change.cost {
            Some(Cost::Replace) => Felt::Replace,
            Some(Cost::Restart) => Felt::Restart,
            Some(Cost::Reload) => Felt::Reload,
            Some(Cost::InPlace) | None => Felt::InPlace,
        },
        (true, false) => Felt::Stop,
        (false, true) if change.cost < Some(Cost::Restart) && old.is_some_and(is_running) => {
            // It does not stay up, and nothing here changes that.
            Felt::InPlace
        }
        (false, true) => Felt::Start,
        (false, false) => Felt::Nothing,
    }
}

/// What a change stops for a time or for good: where it is afterwards, or was, if it goes.
#[derive(Debug, Default)]
pub(super) struct Stopped {
    /// What is started again.
    pub restarted: BTreeSet<Address>,
    /// What is unavailable at some moment.
    pub down: BTreeSet<Address>,
}

/// What a change stops: itself, or those that a file tells.
pub(super) fn stopped(sides: &Sides<'_>, change: &Change) -> Stopped {
    let mut stopped = Stopped::default();
    if change.address.kind.runs() {
        if matches!(change.felt, Felt::Restart | Felt::Replace) {
            stopped.restarted.insert(change.address.clone());
        }
        if change.downtime.is_some() {
            stopped.down.insert(change.address.clone());
        }
    }
    for told in told(sides, change) {
        stopped.restarted.insert(told.clone());
        stopped.down.insert(told.clone());
    }
    stopped
}

/// What runs on the machine, goes on running, and is told because the content of a file changes.
fn told<'a>(sides: &Sides<'a>, change: &Change) -> Vec<&'a Address> {
    let is_content = |path: &str| path.split('.').next() == Some("content");
    let changes = matches!(change.action, ChangeAction::Update | ChangeAction::Adopt)
        && change.attributes.iter().any(|a| is_content(&a.path));
    let Some(ResourceSpec::File(FileSpec { notify, .. })) = changes
        .then(|| sides.after.get(&change.address))
        .flatten()
        .map(|r| &r.spec)
    else {
        return Vec::new();
    };
    let machine = &change.address.machine;
    let of = |owner| sides.of(machine, owner);
    let running = notify.iter().flat_map(of).filter(|new| is_running(new));
    running
        .map(|new| &new.address)
        .filter(|address| sides.old(address).is_some_and(|old| is_up(sides, old)))
        .collect()
}

/// Why something is not there for a time, if it is not.
pub(super) fn downtime(
    sides: &Sides<'_>,
    change: &Change,
    old: Option<&Resource>,
    new: Option<&Resource>,
) -> Option<String> {
    let owners: BTreeSet<_> = told(sides, change).iter().map(|a| &a.owner).collect();
    if !owners.is_empty() {
        return Some(format!("it restarts {}", list(&owners)));
    }
    if change.address.kind == ResourceKind::Network {
        return cut_off(sides, change);
    }
    let old = old.filter(|old| is_up(sides, old))?;
    match change.action {
        ChangeAction::Delete if others_go_on(sides, old) => None,
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
            if change.cost == Some(Cost::Replace) && change.address.kind.holds_data() {
                return Some("it is stopped, and the new one starts empty".to_owned());
            }
            (change.cost >= Some(Cost::Restart)).then(|| stop_first(sides, old, new))
        }
        ChangeAction::Create | ChangeAction::Forget | ChangeAction::Adopt | ChangeAction::NoOp => {
            None
        }
    }
}

fn list(names: &BTreeSet<&OwnerName>) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(" and ")
}

/// Who cannot be reached through a network while it is made anew.
fn cut_off(sides: &Sides<'_>, change: &Change) -> Option<String> {
    let Address {
        machine,
        owner,
        name,
        ..
    } = &change.address;
    let network = format!("{owner}/{name}");
    let is_in_it = |resource: &&Resource| match &resource.spec {
        ResourceSpec::Container(spec) => {
            resource.address.machine == *machine && spec.networks.contains(&network)
        }
        _ => false,
    };
    let replaced = change.action == ChangeAction::ReplaceDeleteFirst;
    let stays = sides.after.iter().filter(|_| replaced);
    let inside: BTreeSet<_> = stays
        .filter(is_in_it)
        .filter(|new| sides.old(&new.address).is_some_and(|old| is_up(sides, old)))
        .map(|new| &new.address.owner)
        .collect();
    (!inside.is_empty()).then(|| {
        format!(
            "what is in it reaches nothing through it until it is made anew: {}",
            list(&inside)
        )
    })
}

/// Whether other instances of what goes, which were up, go on: then there are fewer of it, and no downtime.
fn others_go_on(sides: &Sides<'_>, gone: &Resource) -> bool {
    let instances_of = |address: &Address| {
        let (name, number) = address.name.rsplit_once('/')?;
        let is_number = number.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| (address.kind, name.to_owned()))
    };
    let Some(mine) = instances_of(&gone.address) else {
        return false;
    };
    let owner = sides.owner(&gone.address);
    let body = sides.desired.owners.get(owner);
    let mut others = body.iter().flat_map(|body| &body.resources);
    others.any(|new| {
        is_running(new)
            && instances_of(&new.address).as_ref() == Some(&mine)
            && sides.old(&new.address).is_some_and(|old| is_up(sides, old))
    })
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
