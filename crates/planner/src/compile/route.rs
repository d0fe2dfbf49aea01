//! Routes: what the web servers of the ingress machines answer, one resource for each host and path.

use std::collections::{BTreeMap, BTreeSet};

use plumb_blueprint::{App, RouteDecl, Workload};
use plumb_model::plan::Origin;
use plumb_model::spec_service::RouteTarget;
use plumb_model::{
    Address, Addresses, MachineName, OwnerName, PortName, ResourceKind, ResourceSpec, RouteSpec,
};

use super::context::{Context, Draft, Made};
use super::instances::{self, Instance};
use super::reach::{From, Reach, published};
use super::source::Prepared;

/// All routes of an app on all machines that answer for them.
pub(super) fn compile<'a>(
    context: &mut Context<'a>,
    draft: &mut Draft,
    owner: &'a OwnerName,
    app: &'a App,
    prepared: &BTreeMap<&'a MachineName, Prepared>,
    instances: &[Instance<'a>],
    reach: &Reach<'a>,
) {
    if app.routes.is_empty() {
        return;
    }
    if let Workload::Static { dir } = &app.workload {
        files(context, draft, owner, app, dir, prepared);
        return;
    }
    let Some(port) = reach.main_port(owner) else {
        // Nothing runs, then nothing answers; a port that was never declared is another matter.
        if !instances.is_empty() {
            let origin = context.origin("App", owner, "/routes");
            context.problem(
                format!("`{owner}` has routes and no port that they could lead to"),
                origin,
                format!("add `ports: {{ http: auto }}` to app `{owner}`"),
            );
        }
        return;
    };
    let behind = behind(context, owner, app, port, instances, reach);
    for (machine, upstreams) in behind {
        let here = instances.iter().filter(|i| i.machine == machine);
        let after: Addresses = here.map(|i| i.address.clone()).collect();
        for route in &app.routes {
            let target = RouteTarget::Upstreams(upstreams.clone());
            keep(context, draft, app, owner, machine, route, target, &after);
        }
    }
}

/// What each machine's web server leads to: all instances that can be reached from there.
fn behind<'a>(
    context: &mut Context<'a>,
    owner: &OwnerName,
    app: &'a App,
    port: &PortName,
    instances: &[Instance<'a>],
    reach: &Reach<'a>,
) -> BTreeMap<&'a MachineName, BTreeSet<String>> {
    let machines: BTreeSet<&MachineName> = match &app.ingress {
        Some(selector) => context.selected(selector).into_keys().collect(),
        None => instances::machines(instances),
    };
    let mut behind = BTreeMap::new();
    // Instances that no web server gets to, with the first that tried.
    let mut lost: BTreeMap<&MachineName, String> = BTreeMap::new();
    let mut found: BTreeSet<&MachineName> = BTreeSet::new();
    for machine in machines {
        let from = From {
            machine,
            in_container: false,
        };
        let mut upstreams = BTreeSet::new();
        for (at, publish, spot) in reach.each(owner, port, from) {
            match spot {
                Some(spot) => {
                    found.insert(at);
                    upstreams.insert(spot.to_string());
                }
                None => {
                    let message = format!(
                        "app `{owner}` runs on machine `{at}` and publishes its ports {}, which the web server of machine `{machine}` cannot reach",
                        published(publish)
                    );
                    lost.entry(at).or_insert(message);
                }
            }
        }
        // Without `ingress` it answers where the app runs, for what runs there.
        if upstreams.is_empty() && app.ingress.is_none() {
            continue;
        }
        behind.insert(machine, upstreams);
    }
    let nothing_behind = behind.values().any(BTreeSet::is_empty);
    for (at, message) in lost {
        if nothing_behind || !found.contains(at) {
            let origin = context.origin("App", owner, "/routes");
            context.problem(
                message,
                origin,
                format!("add `publish: private` to the port `{port}` of `{owner}`, or let `ingress` be where it runs"),
            );
        }
    }
    behind
}

/// The routes of a static site: its files are where it is.
fn files<'a>(
    context: &mut Context<'a>,
    draft: &mut Draft,
    owner: &OwnerName,
    app: &'a App,
    dir: &str,
    prepared: &BTreeMap<&'a MachineName, Prepared>,
) {
    if let Some(ingress) = &app.ingress {
        for machine in context.selected(ingress).into_keys() {
            if !prepared.contains_key(machine) {
                let origin = context.origin("App", owner, "/ingress");
                context.problem(
                    format!("the files of `{owner}` are not on machine `{machine}`, whose web server is to answer for them"),
                    origin,
                    format!("add `{machine}` to the `machines` of `{owner}`, or leave out `ingress`"),
                );
            }
        }
    }
    for (machine, ready) in prepared {
        let Some(folder) = ready.folder(dir) else {
            let origin = context.origin("App", owner, "/static");
            context.problem(
                format!("`{owner}` serves files and has no source that they are in"),
                origin,
                "add `source: { path: … }` or `source: { git: … }`",
            );
            return;
        };
        for route in &app.routes {
            let target = RouteTarget::Files(folder.clone());
            let address = keep(
                context,
                draft,
                app,
                owner,
                machine,
                route,
                target,
                &ready.after,
            );
            if ready.workdir_unknown {
                context.unknown(&address, "target");
            }
        }
    }
}

/// Where a route is written: with its app, or as the domain in the manifest that brings one about.
fn origin(context: &Context<'_>, owner: &OwnerName) -> Option<Origin> {
    let set = context.set;
    let manifest = set.workspace.name.as_str();
    let own = set.origins.get("App", owner.as_str(), "/routes");
    own.or_else(|| set.origins.get("Workspace", manifest, "/base_domain"))
        .or_else(|| context.origin("App", owner, ""))
}

#[allow(
    clippy::too_many_arguments,
    reason = "called twice, with what both callers hold anyway"
)]
fn keep(
    context: &mut Context<'_>,
    draft: &mut Draft,
    app: &App,
    owner: &OwnerName,
    machine: &MachineName,
    route: &RouteDecl,
    target: RouteTarget,
    after: &Addresses,
) -> Address {
    let path = route.path.trim_end_matches('/');
    let name = format!("{}{path}", route.host);
    let address = Address::new(machine, owner, ResourceKind::Route, &name);
    let spec = ResourceSpec::Route(RouteSpec {
        hosts: vec![route.host.clone()],
        path: route.path.clone(),
        target,
    });
    let made = Made {
        after: after.clone(),
        ..Made::new(app.drift, spec, origin(context, owner))
    };
    context.keep(draft, address.clone(), made);
    address
}
