//! From blueprints to every machine's resources: machines selected, instances placed, ports allotted, moving names looked
//! up, references resolved.
//!
//! One module for each thing that a blueprint can ask for; what they share is in [`context`]. None of them looks at
//! another's resources but through addresses.

mod carry;
mod claims;
mod container;
mod context;
mod env;
mod instances;
mod native;
mod place;
mod ports;
mod reach;
mod rename;
mod resolve;
mod route;
mod service;
mod setup;
mod shared;
mod source;
mod target;
mod task;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use plumb_blueprint::{App, BlueprintSet, Workload};
use plumb_model::plan::{Origin, Resolution};
use plumb_model::state::{FORMAT, OwnerKind, ReleaseBody, ResolutionKey};
use plumb_model::{Address, OwnerName, parallel};

use crate::desired::{Desired, touched};
use crate::{Ask, Input, PlanError, Source};
use carry::Strangers;
pub(crate) use carry::stranger;
use context::{Context, Draft, Drafts};
use instances::Instance;
use reach::Reach;
use rename::Moved;
#[cfg(test)]
pub(crate) use rename::under;
pub(crate) use rename::{after_renames, from_nothing, release_under};
use source::Prepared;

/// Compiles a valid set of blueprints.
///
/// # Errors
/// Everything that depends on what is recorded or on a whole machine: clashing claims, references without a value or to
/// what cannot be reached, a range of ports that is used up, targets that nobody knows.
pub fn compile(
    set: &BlueprintSet,
    sources: &BTreeMap<String, Source>,
    ask: &Ask,
    input: &Input<'_>,
) -> Result<Desired, PlanError> {
    let (set, rest) = target::narrow(set, &ask.targets, input.recorded)?;
    let set = set.as_ref();
    let mut context = Context::new(set, sources, ask, input);
    let services = service::facts(&mut context);
    let mut instances = instances::place_all(&context);
    instances::allot_ports(&mut context, &mut instances, &services, &rest.kept);
    let reach = Reach {
        instances: &instances,
        services,
        machines: &set.machines,
    };

    let mut drafts = Drafts::new();
    // None of them looks at another, so they are compiled side by side, and what is found joined in order of their names.
    let setups = parallel::each(set.setups.iter().collect(), size(set), |(name, setup)| {
        let mut own = context.fork();
        let draft = setup::compile(&mut own, name, setup, &reach);
        (name, draft, own)
    });
    let strangers = Strangers::new(input);
    // Where nothing is renamed, an app that has no path of the machine waits for nobody, and is compared with what is
    // recorded while it is still at hand.
    let alone = context.renamed.is_empty();
    let apps = parallel::each(set.apps.iter().collect(), size(set), |(name, decl)| {
        let mut own = context.fork();
        let here = instances.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut draft = app(&mut own, name, decl, here, &reach);
        let done = if alone && !claims::has_paths(&draft) {
            carry::carry_over(&own, name, &mut draft, &Moved::new(), &strangers);
            Ok(release(&own, name, draft))
        } else {
            Err(draft)
        };
        (name, done, own)
    });
    for (name, draft, own) in setups {
        context.join(own);
        drafts.insert(name.clone(), draft);
    }
    let mut released = Vec::new();
    for (name, done, own) in apps {
        context.join(own);
        match done {
            Ok(done) => released.push((name.clone(), done)),
            Err(draft) => _ = drafts.insert(name.clone(), draft),
        }
    }
    for (name, decl) in &set.services {
        let draft = service::compile(&mut context, name, decl, &reach);
        drafts.insert(name.clone(), draft);
    }
    for (name, decl) in &set.volumes {
        drafts.insert(name.clone(), shared::volume(&mut context, name, decl));
    }
    for (name, decl) in &set.networks {
        drafts.insert(name.clone(), shared::network(&mut context, name, decl));
    }
    claims::nest_paths(&mut drafts);
    let moved = rename::moved(&context, &drafts);
    let all = drafts.into_iter().collect();
    released.extend(parallel::each(all, size(set), |(name, mut draft)| {
        carry::carry_over(&context, &name, &mut draft, &moved, &strangers);
        let done = release(&context, &name, draft);
        (name, done)
    }));
    finish(context, released, rest, moved)
}

/// An owner's release, and where it comes from.
struct Released {
    body: Arc<ReleaseBody>,
    origins: BTreeMap<Address, Origin>,
    owner_origin: Option<Origin>,
}

/// Makes a release of a draft.
fn release(context: &Context<'_>, name: &OwnerName, draft: Draft) -> Released {
    let body = ReleaseBody {
        format: FORMAT,
        kind: draft.kind,
        resources: draft.resources.into_values().map(Arc::from).collect(),
        resolutions: context.resolver.recorded_of(name),
        rollout: draft.rollout,
        owner: name.clone(),
    };
    // What is as it is recorded is the recorded one from here on, which every later comparison sees at once.
    let recorded = context.input.recorded.releases.get(name);
    let same = recorded.filter(|old| ***old == body).cloned();
    Released {
        body: same.unwrap_or_else(|| Arc::new(body)),
        origins: draft.origins,
        owner_origin: context.origin(draft.kind.as_str(), name, ""),
    }
}

/// How much there is to compile, as far as it decides on threads: a few resources for each owner.
fn size(set: &BlueprintSet) -> usize {
    (set.apps.len() + set.setups.len()) * 4 * parallel::A_RESOURCE
}

/// All resources of one app.
fn app<'a>(
    context: &mut Context<'a>,
    name: &'a OwnerName,
    decl: &'a App,
    instances: &[Instance<'a>],
    reach: &Reach<'a>,
) -> Draft {
    let mut draft = Draft::new(OwnerKind::App);
    draft.rollout.clone_from(&decl.rollout);
    let mut prepared: BTreeMap<_, Prepared> = BTreeMap::new();
    let machines = match decl.workload {
        Workload::Static { .. } => context.selected(&decl.machines).into_keys().collect(),
        _ => instances::machines(instances),
    };
    for machine in machines {
        let ready = source::prepare(context, &mut draft, name, decl, machine, reach);
        prepared.insert(machine, ready);
    }
    task::before(context, &mut draft, name, decl, &mut prepared, reach);
    for instance in instances {
        let Some(ready) = prepared.get(&instance.address.machine) else {
            continue;
        };
        match instance.unit {
            instances::Unit::Process { .. } => {
                native::process(context, &mut draft, decl, instance, reach, ready);
            }
            instances::Unit::Container { .. } => {
                container::compile(context, &mut draft, decl, instance, instances, reach, ready)
            }
        }
    }
    task::after(context, &mut draft, name, decl, &prepared, instances, reach);
    route::compile(context, &mut draft, name, decl, &prepared, instances, reach);
    draft
}

/// Puts the releases of all owners together, unless there are problems.
fn finish(
    mut context: Context<'_>,
    released: Vec<(OwnerName, Released)>,
    rest: target::Rest,
    moved: Moved,
) -> Result<Desired, PlanError> {
    let mut owners = rest.kept;
    let mut machines = rest.machines;
    let mut origins = BTreeMap::new();
    let mut owner_origins = BTreeMap::new();
    for (name, done) in released {
        if !rest.targets.is_empty() {
            // Of the machines only those that the targets need are looked at anew.
            for machine in done.body.resources.iter().map(|r| &r.address.machine) {
                if let Some(info) = context.set.machines.get(machine) {
                    machines.insert(machine.clone(), info.clone());
                }
            }
        }
        owner_origins.extend(done.owner_origin.map(|origin| (name.clone(), origin)));
        origins.insert(name.clone(), done.origins);
        owners.insert(name, done.body);
    }
    let touched = touched(&machines, &owners, context.input);
    claims::check(&mut context, &owners, &origins, &touched);
    if !context.problems.is_empty() {
        return Err(PlanError {
            problems: context.problems,
        });
    }
    let mut resolutions = context.resolver.of_the_plan();
    for path in &context.set.paths {
        if let Some(source) = context.sources.get(path) {
            let resolution = Resolution {
                resolved: Some(source.digest.to_string()),
                before: None,
            };
            resolutions.insert(ResolutionKey(format!("path {path}")), resolution);
        }
    }
    Ok(Desired {
        manifest: Some(context.set.workspace.name.clone()),
        machines,
        owners,
        origins,
        owner_origins,
        resolutions,
        policy: Some(context.set.workspace.policy.clone()),
        renamed: Arc::unwrap_or_clone(context.renamed),
        moved,
        unknown: context.unknown,
        targets: rest.targets,
    })
}
