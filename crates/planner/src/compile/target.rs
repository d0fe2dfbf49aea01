//! Planning only some owners: they and what they depend on are compiled, and everything else stays as it is recorded.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_blueprint::{
    App, BlueprintSet, Container, Content, ImageDecl, MountSourceDecl, Reference, Segment, Text,
    Workload, nearest,
};
use plumb_model::state::{MachineInfo, Recorded, ReleaseBody};
use plumb_model::{MachineName, OwnerName};

use super::rename::is_there;
use crate::{PlanError, Problem};

/// What there is besides the blueprints that are compiled.
pub(super) struct Rest {
    /// Owners that stay as they are recorded.
    pub kept: BTreeMap<OwnerName, Arc<ReleaseBody>>,
    /// The machines that the plan starts from; those that compiled resources are on come to them.
    pub machines: BTreeMap<MachineName, MachineInfo>,
    /// The owners that are planned; empty is all.
    pub targets: BTreeSet<OwnerName>,
}

/// Narrows a set down to some owners with what they depend on, and says what there is besides. No targets: everything.
pub(super) fn narrow<'a>(
    set: &'a BlueprintSet,
    targets: &BTreeSet<OwnerName>,
    recorded: &Recorded,
) -> Result<(Cow<'a, BlueprintSet>, Rest), PlanError> {
    if targets.is_empty() {
        let rest = Rest {
            kept: BTreeMap::new(),
            machines: set.machines.clone(),
            targets: BTreeSet::new(),
        };
        return Ok((Cow::Borrowed(set), rest));
    }
    known(set, targets, recorded)?;
    let all = closure(set, targets);
    let mut narrowed = set.clone();
    narrowed.apps.retain(|name, _| all.contains(name));
    narrowed.setups.retain(|name, _| all.contains(name));
    narrowed.services.retain(|name, _| all.contains(name));
    narrowed.volumes.retain(|name, _| all.contains(name));
    narrowed.networks.retain(|name, _| all.contains(name));
    narrowed.paths = paths(&narrowed);
    let renamed = super::rename::renamed(&narrowed, recorded, &mut Vec::new());
    let kept: BTreeMap<_, _> = recorded
        .releases
        .iter()
        .filter(|(name, _)| !all.contains(*name) && !renamed.values().any(|old| old == *name))
        .map(|(name, body)| (name.clone(), body.clone()))
        .collect();
    let machines = recorded
        .state
        .machines
        .iter()
        .filter(|(_, machine)| !machine.leaving)
        .map(|(name, machine)| (name.clone(), machine.info.clone()))
        .collect();
    let rest = Rest {
        kept,
        machines,
        targets: all,
    };
    Ok((Cow::Owned(narrowed), rest))
}

/// Refuses targets that are neither in the blueprints nor recorded.
fn known(
    set: &BlueprintSet,
    targets: &BTreeSet<OwnerName>,
    recorded: &Recorded,
) -> Result<(), PlanError> {
    let names = || {
        let written = set
            .apps
            .keys()
            .chain(set.setups.keys())
            .chain(set.services.keys())
            .chain(set.volumes.keys())
            .chain(set.networks.keys());
        written
            .chain(recorded.releases.keys())
            .map(OwnerName::as_str)
    };
    let problems: Vec<Problem> = targets
        .iter()
        .filter(|name| !is_there(set, name) && !recorded.releases.contains_key(*name))
        .map(|name| Problem {
            message: format!(
                "there is no `{name}` to plan: neither a blueprint nor a record has that name"
            ),
            origin: None,
            hint: Some(match nearest(name.as_str(), names()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => {
                    "a target is the name of an App, Setup, Service, Volume or Network".to_owned()
                }
            }),
        })
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(PlanError { problems })
    }
}

/// The targets with all that they depend on.
fn closure(set: &BlueprintSet, targets: &BTreeSet<OwnerName>) -> BTreeSet<OwnerName> {
    let mut all = BTreeSet::new();
    let mut open: Vec<OwnerName> = targets.iter().cloned().collect();
    while let Some(name) = open.pop() {
        let mut uses = BTreeSet::new();
        if let Some(app) = set.apps.get(&name) {
            app_uses(set, app, &mut uses);
        }
        if let Some(setup) = set.setups.get(&name) {
            for file in setup.files.values() {
                if let Content::Text(text) = &file.content {
                    text_uses(text, &mut uses);
                }
            }
        }
        if all.insert(name) {
            open.extend(uses.into_iter().filter(|used| is_there(set, used)));
        }
    }
    all
}

fn app_uses(set: &BlueprintSet, app: &App, uses: &mut BTreeSet<OwnerName>) {
    uses.extend(app.uses.iter().cloned());
    let mut texts: Vec<&Text> = app.env.values().chain(app.build.iter().flatten()).collect();
    for process in app.processes.values() {
        texts.extend(process.env.values().chain(&process.argv));
    }
    texts.extend(app.hooks.iter().flat_map(|hook| &hook.argv));
    for container in containers(app) {
        texts.extend(container.env.values());
        texts.extend(
            container
                .entrypoint
                .iter()
                .chain(&container.command)
                .flatten(),
        );
        if let ImageDecl::Dockerfile { args, .. } = &container.image {
            texts.extend(args.values());
        }
        for mount in container.mounts.values() {
            if let MountSourceDecl::Volume(name) = &mount.source {
                let found = set.volumes.keys().find(|v| v.as_str() == name);
                uses.extend(found.cloned());
            }
        }
        for name in &container.networks {
            let found = set.networks.keys().find(|n| n.as_str() == name);
            uses.extend(found.cloned());
        }
    }
    for text in texts {
        text_uses(text, uses);
    }
}

/// The containers that an app consists of.
pub(super) fn containers(app: &App) -> Vec<&Container> {
    match &app.workload {
        Workload::Container(container) => vec![container],
        Workload::Compose(compose) => compose.services.values().collect(),
        Workload::Processes | Workload::Static { .. } => Vec::new(),
    }
}

fn text_uses(text: &Text, uses: &mut BTreeSet<OwnerName>) {
    for segment in text {
        let Segment::Ref(reference) = segment else {
            continue;
        };
        match reference {
            Reference::AppUrl(owner)
            | Reference::AppHost(owner)
            | Reference::AppPort(owner, _)
            | Reference::ServiceUrl(owner)
            | Reference::ServiceHost(owner)
            | Reference::ServicePort(owner)
            | Reference::ServiceUser(owner)
            | Reference::ServiceDatabase(owner)
            | Reference::ServicePassword(owner) => {
                uses.insert(owner.clone());
            }
            Reference::MachineName
            | Reference::MachineLabel(_)
            | Reference::MachineAddress
            | Reference::Release
            | Reference::Commit => {}
        }
    }
}

/// The repository paths that a set's owners still name.
fn paths(set: &BlueprintSet) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for app in set.apps.values() {
        if let Some(plumb_blueprint::Source::Path { path, .. }) = &app.source {
            paths.insert(path.clone());
        }
    }
    for file in set.setups.values().flat_map(|setup| setup.files.values()) {
        if let Content::Source(path) = &file.content {
            paths.insert(path.clone());
        }
    }
    paths
}
