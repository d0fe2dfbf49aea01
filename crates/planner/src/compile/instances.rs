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
    /// The numbers of its ports, once they are allotted.
    pub ports: BTreeMap<PortName, u16>,
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

    /// Its ports by name.
    pub fn ports(&self) -> impl Iterator<Item = Asked<'a>> + use<'a> {
        let (processes, containers) = match self {
            Self::Process { decl, .. } => (Some(decl.ports.keys()), None),
            Self::Container { decl, .. } => (None, Some(decl.ports.keys())),
        };
        let names = processes.into_iter().flatten();
        let names = names.chain(containers.into_iter().flatten());
        let unit = *self;
        names.filter_map(move |name| unit.port(name))
    }

    /// The port of this name.
    pub fn port(&self, name: &PortName) -> Option<Asked<'a>> {
        const LOOPBACK: &Publish = &Publish::Loopback;
        match self {
            Self::Process { decl, .. } => {
                let (name, number) = decl.ports.get_key_value(name)?;
                Some(Asked {
                    name,
                    number: *number,
                    publish: decl.publish.get(name).unwrap_or(LOOPBACK),
                    inside: None,
                    udp: false,
                })
            }
            Self::Container { decl, .. } => {
                let (name, port) = decl.ports.get_key_value(name)?;
                Some(Asked {
                    name,
                    number: port.machine,
                    publish: &port.publish,
                    inside: Some(port.container),
                    udp: port.udp,
                })
            }
        }
    }
}

/// Those of each app, sorted by unit, machine and slot.
pub(super) type Instances<'a> = BTreeMap<&'a OwnerName, Vec<Instance<'a>>>;

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
                ports: BTreeMap::new(),
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
pub(super) fn allot_ports<'a>(
    context: &mut Context<'a>,
    instances: &mut Instances<'a>,
    services: &BTreeMap<&'a OwnerName, Facts<'a>>,
    kept: &BTreeMap<OwnerName, Arc<ReleaseBody>>,
) {
    let mut by_machine: BTreeMap<&MachineName, Asking<'_>> = BTreeMap::new();
    for facts in services.values() {
        let there = by_machine.entry(facts.machine).or_default();
        there.taken.insert(facts.port);
    }
    for resource in kept.values().flat_map(|body| &body.resources) {
        let there = by_machine.entry(&resource.address.machine).or_default();
        there.taken.extend(claimed_ports(resource));
    }
    // Each by the number that it has among all, in the order of the instances.
    let mut count = 0;
    for instance in instances.values().flatten() {
        for asked in instance.unit.ports() {
            let there = by_machine.entry(instance.machine).or_default();
            let fixed = match asked.number {
                Port::Auto => None,
                Port::Fixed(number) => Some(number),
            };
            there.wants.push(Want {
                address: &instance.address,
                port: asked.name,
                fixed,
            });
            there.numbers.push(count);
            count += 1;
        }
    }
    let renamed = &context.renamed;
    let by = Allotting {
        recorded: context.input.recorded,
        observed: context.input.observed,
        workspace: context.input.workspace,
        before: &|address| {
            let old = renamed.get(&address.owner)?;
            Some(rename::under(address, old))
        },
    };
    // One machine's ports are nothing to another.
    let machines = by_machine.into_iter().collect();
    let size = count * parallel::A_RESOURCE;
    let allotted = parallel::each(machines, size, |(machine, asking): (_, Asking<'_>)| {
        let given = allot(&asking.wants, asking.taken, &by);
        let all = asking.wants.iter().zip(&given);
        let lacking = all.filter(|(_, number)| number.is_none());
        let lacking: Vec<OwnerName> = lacking.map(|(w, _)| w.address.owner.clone()).collect();
        let given: Vec<_> = asking.numbers.into_iter().zip(given).collect();
        (machine.clone(), given, lacking)
    });
    let mut numbers: Vec<Option<u16>> = vec![None; count];
    for (machine, given, lacking) in allotted {
        for (at, number) in given {
            numbers[at] = number;
        }
        // Which of the apps there go without is chance: it is the machine that is full.
        if let Some(first) = lacking.first() {
            let origin = context.origin("App", first, "/ports");
            let message = format!(
                "every port from 20000 to 29999 on machine `{machine}` is allotted, and {} more {} asked for there with `auto`",
                lacking.len(),
                if lacking.len() == 1 { "is" } else { "are" },
            );
            context.problem(
                message,
                origin,
                "write fixed port numbers, or use more machines",
            );
        }
    }
    let mut numbers = numbers.into_iter();
    for instance in instances.values_mut().flatten() {
        for (asked, number) in instance.unit.ports().zip(&mut numbers) {
            if let Some(number) = number {
                instance.ports.insert(asked.name.clone(), number);
            }
        }
    }
}

/// The ports that are asked for on one machine.
#[derive(Default)]
struct Asking<'a> {
    wants: Vec<Want<'a>>,
    /// Which of all ports each of them is.
    numbers: Vec<usize>,
    taken: BTreeSet<u16>,
}
