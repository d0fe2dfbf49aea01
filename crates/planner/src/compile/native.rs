//! Native processes: a command with its environment, in the folder of what was built.

use std::collections::BTreeMap;

use plumb_blueprint::{App, Health, Probe, Process, Publish};
use plumb_model::{
    HealthProbe, HealthSpec, MachineName, OwnerName, PortName, ProcessSpec, ResourceSpec,
};

use super::context::{Context, Draft, Made};
use super::env;
use super::instances::{Instance, Unit};
use super::reach::{Reach, bind};
use super::service::no_private_address;
use super::source::{Prepared, scope};

/// The process of one instance.
pub(super) fn process<'a>(
    context: &mut Context<'a>,
    draft: &mut Draft,
    app: &'a App,
    instance: &Instance<'a>,
    reach: &Reach<'a>,
    ready: &Prepared,
) {
    let Unit::Process { name, decl } = instance.unit else {
        return;
    };
    let owner = instance.owner;
    let scope = scope(context, instance.machine, reach);
    let ports = instance.ports.clone();
    let bound = bound(context, owner, decl, instance.machine);
    let mut handed = env::port_variables(&ports);
    handed.extend(env::service_variables(context, owner, &app.uses, &scope));
    handed.extend(bound.clone().map(|address| ("HOST".to_owned(), address)));
    let env = env::written(context, owner, handed, [&app.env, &decl.env], &scope);
    let origin = context.run_origin(owner, name);
    let argv = context.command(&decl.argv, &scope, origin.as_ref());
    let health = decl
        .health
        .as_ref()
        .and_then(|health| health_spec(health, &ports, |_| bound.clone()));
    let spec = ResourceSpec::Process(ProcessSpec {
        argv,
        env,
        workdir: ready.folder(&decl.dir),
        user: app.user.clone(),
        ports,
        health,
        restart: app.restart.clone(),
        stop: app.stop.clone(),
        log: app.log.clone(),
        state: app.state,
        toolchain: ready.toolchain.clone(),
        secrets: env::secrets(context.input.secrets, &app.secrets, &decl.secrets),
        limits: decl.limits.clone().or_else(|| app.limits.clone()),
        schedule: decl.schedule.clone().or_else(|| app.schedule.clone()),
        on_disconnect: app.on_disconnect.clone(),
    });
    ready.mark_unknown(context, &instance.address);
    let mut after = ready.after.clone();
    after.extend(env::services_here(&app.uses, &scope));
    let made = Made {
        after,
        ..Made::new(app.drift, spec, origin)
    };
    context.keep(draft, instance.address.clone(), made);
}

/// The address that a process is to listen on; none where all its ports are on loopback, as without `publish`.
fn bound(
    context: &mut Context<'_>,
    owner: &OwnerName,
    decl: &Process,
    machine: &MachineName,
) -> Option<String> {
    let mut wider = decl.publish.values().filter(|p| **p != Publish::Loopback);
    let first = wider.next()?;
    if let Some(other) = wider.find(|p| *p != first) {
        let origin = context.origin("App", owner, "/ports");
        let (one, two) = (
            super::reach::published(first),
            super::reach::published(other),
        );
        context.problem(
            format!("a process of `{owner}` publishes one port {one} and another {two}, and is told of one address alone"),
            origin,
            "publish all its ports alike, or make two processes of it",
        );
        return None;
    }
    let address = bind(first, &context.set.machines[machine]);
    if address.is_none() {
        no_private_address(context, "App", owner, machine);
    }
    address
}

/// A health check with numbers for its ports. `asked` says where a port answers, if not on 127.0.0.1.
pub(super) fn health_spec(
    health: &Health,
    ports: &BTreeMap<PortName, u16>,
    asked: impl Fn(&PortName) -> Option<String>,
) -> Option<HealthSpec> {
    let (Probe::Http { port, .. } | Probe::Tcp { port }) = &health.probe;
    let number = *ports.get(port)?;
    // What listens everywhere listens on loopback too.
    let host = asked(port).filter(|a| a != "127.0.0.1" && a != "0.0.0.0" && a != "::");
    let probe = match &health.probe {
        Probe::Http { path, codes, .. } => HealthProbe::Http {
            host,
            port: number,
            path: path.clone(),
            codes: codes.clone(),
        },
        Probe::Tcp { .. } => HealthProbe::Tcp { host, port: number },
    };
    Some(HealthSpec {
        probe,
        interval_ms: health.interval_ms,
        timeout_ms: health.timeout_ms,
        healthy_threshold: health.healthy_threshold,
        unhealthy_threshold: health.unhealthy_threshold,
    })
}
