//! Who runs where: every process and container in its slot on its machine, and the ports that each of them gets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_blueprint::{App, Container, Port, Process, Publish, Workload};
use plumb_model::state::ReleaseBody;
use plumb_model::{Address, MachineName, OwnerName, PortName, ProcessName, ResourceKind, parallel};

use super::context::Context;
use super::place::{Placing, place};
use super::ports::{Allotting, Want, allot};
use super::rename;
use super::service::Facts;
use crate::desired::claimed_ports;

/// The name of an app's only container.
const ONLY: &str = "app";

/// One process or container in one slot on one machine.
pub(super) struct Instance<'a> {
    pub owner: &'a OwnerName,
    pub unit: Unit<'a>,
    pub machine: &'a MachineName,
    pub slot: u32,
    pub address: Address,
}

/// What runs there.
#[derive(Clone, Copy)]
pub(super) enum Unit<'a> {
    Process {
        name: &'a ProcessName,
        decl: &'a Process,
    },
    Container {
        name: &'a str,
        decl: &'a Container,
        /// Whether it is one of the services of a Compose file.
        compose: bool,
    },
}

/// A port as it is asked for.
pub(super) struct Asked<'a> {
    pub name: &'a PortName,
    pub number: Port,
    pub publish: &'a Publish,
    /// The number inside the container.
    pub inside: Option<u16>,
    pub udp: bool,
}

impl<'a> Unit<'a> {
    pub fn name(&self) -> &'a str {
        match self {
            Self::Process { name, .. } => name.as_str(),
            Self::Container { name, .. } => name,
        }
    }

    pub fn ports(&self) -> Vec<Asked<'a>> {
        const LOOPBACK: &Publish = &Publish::Loopback;
        match self {
            Self::Process { decl, .. } => decl
                .ports
                .iter()
                .map(|(name, number)| Asked {
                    name,
                    number: *number,
                    publish: decl.publish.get(name).unwrap_or(LOOPBACK),
                    inside: None,
                    udp: false,
                })
                .collect(),
            Self::Container { decl, .. } => decl
                .ports
                .iter()
                .map(|(name, port)| Asked {
                    name,
                    number: port.machine,
                    publish: &port.publish,
                    inside: Some(port.container),
                    udp: port.udp,
                })
                .collect(),
        }
    }
}

/// Those of each app, sorted by unit, machine and slot.
pub(super) type Instances<'a> = BTreeMap<&'a OwnerName, Vec<Instance<'a>>>;

/// The ports of each instance, by name.
pub(super) type Ports = BTreeMap<Address, BTreeMap<PortName, u16>>;

pub(super) fn place_all<'a>(context: &Context<'a>) -> Instances<'a> {
    let set = context.set;
    let apps = set.apps.iter().collect();
    parallel::each(apps, super::size(set), |(owner, app)| {
        (owner, place_app(context, owner, app))
    })
    .into_iter()
    .collect()
}

/// The machines that any of these is on.
pub(super) fn machines<'a>(instances: &[Instance<'a>]) -> BTreeSet<&'a MachineName> {
    instances.iter().map(|instance| instance.machine).collect()
}

fn place_app<'a>(context: &Context<'a>, owner: &'a OwnerName, app: &'a App) -> Vec<Instance<'a>> {
    let machines = context.selected(&app.machines);
    let mut all = Vec::new();
    let mut add = |unit: Unit<'a>, kind, slots: &BTreeSet<(&'a MachineName, u32)>| {
        for (machine, slot) in slots {
            let name = format!("{}/{slot}", unit.name());
            all.push(Instance {
                owner,
                unit,
                machine,
                slot: *slot,
                address: Address::new(machine, owner, kind, &name),
            });
        }
    };
    let placing = |unit: &'a str, replicas, recorded| Placing {
        owner,
        unit,
        replicas,
        spread: app.spread.as_deref(),
        recorded,
    };
    match &app.workload {
        Workload::Processes => {
            for (name, decl) in &app.processes {
                let recorded = slots(context, owner, ResourceKind::Process, Some(name.as_str()));
                let replicas = decl.replicas.or(app.replicas);
                let slots = place(&placing(name.as_str(), replicas, recorded), &machines);
                add(Unit::Process { name, decl }, ResourceKind::Process, &slots);
            }
        }
        Workload::Container(decl) => {
            let recorded = slots(context, owner, ResourceKind::Container, None);
            let slots = place(&placing(ONLY, app.replicas, recorded), &machines);
            let unit = Unit::Container {
                name: ONLY,
                decl,
                compose: false,
            };
            add(unit, ResourceKind::Container, &slots);
        }
        Workload::Compose(compose) => {
            // The services of one project stay together: one slot is the whole of it.
            let recorded = slots(context, owner, ResourceKind::Container, None);
            let slots = place(&placing("compose", app.replicas, recorded), &machines);
            for (name, decl) in &compose.services {
                let unit = Unit::Container {
                    name: name.as_str(),
                    decl,
                    compose: true,
                };
                add(unit, ResourceKind::Container, &slots);
            }
        }
        Workload::Static { .. } => {}
    }
    all
}

/// Where slots are recorded: those of one unit, or of all.
fn slots(
    context: &Context<'_>,
    owner: &OwnerName,
    kind: ResourceKind,
    unit: Option<&str>,
) -> BTreeMap<u32, MachineName> {
    context
        .recorded_resources(owner, kind)
        .filter_map(|resource| {
            let (name, slot) = resource.address.name.split_once('/')?;
            let wanted = unit.is_none_or(|unit| unit == name);
            let slot = slot.parse().ok().filter(|_| wanted)?;
            Some((slot, resource.address.machine.clone()))
        })
        .collect()
}

/// Gives every port its number.
pub(super) fn ports<'a>(
    context: &mut Context<'a>,
    instances: &Instances<'a>,
    services: &BTreeMap<&'a OwnerName, Facts<'a>>,
    kept: &BTreeMap<OwnerName, Arc<ReleaseBody>>,
) -> Ports {
    let mut wants = Vec::new();
    for instance in instances.values().flatten() {
        for asked in instance.unit.ports() {
            let fixed = match asked.number {
                Port::Auto => None,
                Port::Fixed(number) => Some(number),
            };
            wants.push(Want {
                address: instance.address.clone(),
                port: asked.name.clone(),
                fixed,
            });
        }
    }
    wants.sort_unstable();
    wants.dedup();
    let mut taken: BTreeMap<&MachineName, BTreeSet<u16>> = BTreeMap::new();
    for facts in services.values() {
        taken.entry(facts.machine).or_default().insert(facts.port);
    }
    for resource in kept.values().flat_map(|body| &body.resources) {
        let held = taken.entry(&resource.address.machine).or_default();
        held.extend(claimed_ports(resource));
    }
    let renamed = &context.renamed;
    let given = allot(
        &wants,
        taken,
        &Allotting {
            recorded: context.input.recorded,
            observed: context.input.observed,
            workspace: context.input.workspace,
            before: &|address| {
                let old = renamed.get(&address.owner)?;
                Some(rename::under(address, old))
            },
        },
    );
    let mut ports = Ports::new();
    for (Want { address, port, .. }, number) in wants.into_iter().zip(given) {
        match number {
            Some(number) => {
                ports.entry(address).or_default().insert(port, number);
            }
            None => {
                let origin = context.origin("App", &address.owner, "/ports");
                let message = format!(
                    "every port from 20000 to 29999 on machine `{}` is allotted",
                    address.machine
                );
                context.problem(
                    message,
                    origin,
                    "write fixed port numbers, or use more machines",
                );
            }
        }
    }
    ports
}
