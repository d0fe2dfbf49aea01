//! Hooks: commands that run once for each release, on one of the app's machines.

use std::collections::{BTreeMap, BTreeSet};

use plumb_blueprint::{App, Hook, Workload};
use plumb_model::spec_source::TaskMoment;
use plumb_model::{Address, MachineName, OwnerName, ResourceKind, ResourceSpec, TaskSpec};

use super::container;
use super::context::{Context, Draft, Made};
use super::env;
use super::instances::Instance;
use super::place::weight;
use super::reach::Reach;
use super::source::{Prepared, scope};

/// The hooks before a release. What starts on their machine waits for them.
pub(super) fn before<'a>(
    context: &mut Context<'a>,
    draft: &mut Draft,
    owner: &'a OwnerName,
    app: &'a App,
    prepared: &mut BTreeMap<&'a MachineName, Prepared>,
    reach: &Reach<'a>,
) {
    let Some(machine) = machine(context, owner, app, prepared) else {
        return;
    };
    for (number, hook) in numbered(app, TaskMoment::Before) {
        let Some(ready) = prepared.get(machine).cloned() else {
            return;
        };
        let address = task(
            context,
            draft,
            owner,
            app,
            (number, hook),
            machine,
            &ready,
            reach,
        );
        if let Some(ready) = prepared.get_mut(machine) {
            ready.after.insert(address);
        }
    }
}

/// The hooks after a release. They wait for what runs on their machine.
pub(super) fn after<'a>(
    context: &mut Context<'a>,
    draft: &mut Draft,
    owner: &'a OwnerName,
    app: &'a App,
    prepared: &BTreeMap<&'a MachineName, Prepared>,
    instances: &[Instance<'a>],
    reach: &Reach<'a>,
) {
    let Some(machine) = machine(context, owner, app, prepared) else {
        return;
    };
    let Some(ready) = prepared.get(machine) else {
        return;
    };
    let mut ready = ready.clone();
    let here = instances.iter().filter(|i| i.machine == machine);
    ready.after.extend(here.map(|i| i.address.clone()));
    for (number, hook) in numbered(app, TaskMoment::After) {
        let address = task(
            context,
            draft,
            owner,
            app,
            (number, hook),
            machine,
            &ready,
            reach,
        );
        ready.after.insert(address);
    }
}

/// The hooks of one moment, counted from 0.
fn numbered(app: &App, moment: TaskMoment) -> impl Iterator<Item = (usize, &Hook)> {
    app.hooks
        .iter()
        .filter(move |hook| hook.moment == moment)
        .enumerate()
}

/// The one machine: where they ran before, if the app is still there.
fn machine<'a>(
    context: &Context<'a>,
    owner: &OwnerName,
    app: &App,
    prepared: &BTreeMap<&'a MachineName, Prepared>,
) -> Option<&'a MachineName> {
    if app.hooks.is_empty() {
        return None;
    }
    let recorded: BTreeSet<&MachineName> = context
        .recorded_resources(owner, ResourceKind::Task)
        .map(|resource| &resource.address.machine)
        .collect();
    let there = || prepared.keys().copied();
    there()
        .find(|machine| recorded.contains(machine))
        .or_else(|| there().min_by_key(|machine| weight(owner, "task", "", machine)))
}

#[allow(
    clippy::too_many_arguments,
    reason = "called twice, with what both callers hold anyway"
)]
fn task<'a>(
    context: &mut Context<'a>,
    draft: &mut Draft,
    owner: &'a OwnerName,
    app: &'a App,
    (number, hook): (usize, &'a Hook),
    machine: &'a MachineName,
    ready: &Prepared,
    reach: &Reach<'a>,
) -> Address {
    let word = match hook.moment {
        TaskMoment::Before => "before",
        TaskMoment::After => "after",
    };
    let address = Address::new(
        machine,
        owner,
        ResourceKind::Task,
        &format!("{word}/{number}"),
    );
    let origin = context.origin("App", owner, &format!("/hooks/{word}"));
    let mut scope = scope(context, machine, reach);
    let mut after = ready.after.clone();
    let mut image = None;
    match &app.workload {
        Workload::Container(decl) => {
            scope.from.in_container = true;
            let made = container::image(context, draft, app, owner, ("app", decl), machine, reach, ready);
            after.extend(made.after);
            if made.unknown {
                context.unknown(&address, "image");
            }
            image = made.image;
        }
        Workload::Compose(_) => context.problem(
            format!("`{owner}` has hooks, and nobody knows in which of its Compose services they are to run"),
            origin.clone(),
            "make them services of the Compose file that the others depend on",
        ),
        Workload::Processes | Workload::Static { .. } => {}
    }
    let native = image.is_none();
    after.extend(env::services_here(&app.uses, &scope));
    let handed = env::service_variables(context, owner, &app.uses, &scope);
    let env = env::written(context, owner, handed, [&app.env], &scope);
    let spec = ResourceSpec::Task(TaskSpec {
        moment: hook.moment,
        argv: context.command(&hook.argv, &scope, origin.as_ref()),
        env,
        secrets: env::secrets(context.input.secrets, &app.secrets, &BTreeMap::new()),
        workdir: ready.workdir.clone().filter(|_| native),
        toolchain: ready.toolchain.clone(),
        image,
        user: app.user.clone(),
        reversible: hook.reversible,
        timeout_ms: hook.timeout_ms,
    });
    if native {
        ready.mark_unknown(context, &address);
    }
    let made = Made {
        after,
        ..Made::new(app.drift, spec, origin)
    };
    context.keep(draft, address.clone(), made);
    address
}
