//! How one thing is reached from another: the address and port of an app's instance or of a service, as seen from a
//! machine or from a container on it.

use std::collections::BTreeMap;

use plumb_blueprint::Publish;
use plumb_model::state::MachineInfo;
use plumb_model::{MachineName, OwnerName, PortName};

use super::instances::{Instance, Instances, Unit};
use super::service::Facts;

/// Where something is used.
#[derive(Clone, Copy)]
pub(super) struct From<'a> {
    pub machine: &'a MachineName,
    /// Inside a container, 127.0.0.1 is the container itself.
    pub in_container: bool,
}

/// A port of one instance.
struct Open<'a> {
    number: u16,
    publish: &'a Publish,
    /// The number inside the container.
    inside: Option<u16>,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    pub host: String,
    pub port: u16,
}

impl std::fmt::Display for Spot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why something has no address from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreachable<'a> {
    /// It runs nowhere, or has no such port.
    Nowhere,
    /// It runs there and is published so that nobody else gets to it.
    At(&'a MachineName, &'a Publish),
}

/// All that can be reached.
pub(super) struct Reach<'a> {
    pub instances: &'a Instances<'a>,
    pub services: BTreeMap<&'a OwnerName, Facts<'a>>,
    pub machines: &'a BTreeMap<MachineName, MachineInfo>,
}

impl<'a> Reach<'a> {
    fn of(&self, app: &OwnerName) -> impl Iterator<Item = &'a Instance<'a>> + use<'a> {
        self.instances.get(app).into_iter().flatten()
    }

    /// The port of an app that is meant where none is named: `http`, or the first. Nothing speaks HTTP over UDP here.
    pub fn main_port(&self, app: &OwnerName) -> Option<&'a PortName> {
        let names = || {
            let open = |i: &'a Instance<'a>| {
                let ports = i.unit.ports().filter(|asked| !asked.udp);
                ports.filter(|asked| i.ports.contains_key(asked.name))
            };
            self.of(app).flat_map(open).map(|asked| asked.name)
        };
        names()
            .find(|name| name.as_str() == "http")
            .or_else(|| names().min())
    }

    /// Where a port of an app answers from here: on this machine if it can, otherwise on the first one that can be reached.
    pub fn app(
        &self,
        app: &OwnerName,
        port: &PortName,
        from: From<'_>,
    ) -> Result<Spot, Unreachable<'a>> {
        let having = || self.of(app).filter_map(|i| Some((i, open(i, port)?)));
        let here = having().filter(|(instance, _)| instance.machine == from.machine);
        let elsewhere = having().filter(|(instance, _)| instance.machine != from.machine);
        let mut refused = Unreachable::Nowhere;
        for (instance, open) in here.chain(elsewhere) {
            match self.spot(instance, &open, from) {
                Some(spot) => return Ok(spot),
                None if refused == Unreachable::Nowhere => {
                    refused = Unreachable::At(instance.machine, open.publish);
                }
                None => {}
            }
        }
        Err(refused)
    }

    /// Where each instance of an app with this port answers from here, with its machine; none where it does not.
    pub fn each(
        &self,
        app: &OwnerName,
        port: &PortName,
        from: From<'_>,
    ) -> Vec<(&'a MachineName, &'a Publish, Option<Spot>)> {
        let each = |instance: &'a Instance<'a>| {
            let open = open(instance, port)?;
            let spot = self.spot(instance, &open, from);
            Some((instance.machine, open.publish, spot))
        };
        self.of(app).filter_map(each).collect()
    }

    /// Where a service answers from here.
    pub fn service(&self, facts: &Facts<'a>, from: From<'_>) -> Option<Spot> {
        let host = self.host(facts.machine, facts.publish, from)?;
        Some(Spot {
            host,
            port: facts.port,
        })
    }

    fn spot(&self, instance: &Instance<'_>, open: &Open<'_>, from: From<'_>) -> Option<Spot> {
        if from.in_container
            && instance.machine == from.machine
            && let (Some(alias), Some(inside)) = (alias(instance), open.inside)
        {
            return Some(Spot {
                host: alias,
                port: inside,
            });
        }
        let host = self.host(instance.machine, open.publish, from)?;
        Some(Spot {
            host,
            port: open.number,
        })
    }

    /// The host under which something that is published so on a machine is reached; none if it is not.
    fn host(&self, at: &MachineName, publish: &Publish, from: From<'_>) -> Option<String> {
        let local = at == from.machine && !from.in_container;
        let address = |machine: &MachineName, network: &str| {
            self.machines.get(machine)?.address.get(network).cloned()
        };
        let everywhere = || {
            if local {
                return Some("127.0.0.1".to_owned());
            }
            let both_private = address(from.machine, "private").is_some();
            address(at, "private")
                .filter(|_| both_private)
                .or_else(|| address(at, "public"))
                .or_else(|| address(at, "private"))
        };
        match publish {
            Publish::Loopback => local.then(|| "127.0.0.1".to_owned()),
            Publish::Private => address(at, "private"),
            Publish::Public => everywhere(),
            Publish::Address(given) if given == "0.0.0.0" || given == "::" => everywhere(),
            Publish::Address(given) if is_loopback(given) => local.then(|| given.clone()),
            Publish::Address(given) => Some(given.clone()),
        }
    }
}

fn is_loopback(address: &str) -> bool {
    address
        .parse::<std::net::IpAddr>()
        .is_ok_and(|address| address.is_loopback())
}

/// The port of this name, where it has a number.
fn open<'a>(instance: &Instance<'a>, port: &PortName) -> Option<Open<'a>> {
    let asked = instance.unit.port(port)?;
    Some(Open {
        number: *instance.ports.get(port)?,
        publish: asked.publish,
        inside: asked.inside,
    })
}

/// A container's name in the workspace's network: that of its app, with that of the Compose service before it.
fn alias(instance: &Instance<'_>) -> Option<String> {
    match instance.unit {
        Unit::Process { .. } => None,
        Unit::Container { compose: false, .. } => Some(instance.owner.to_string()),
        Unit::Container { name, .. } => Some(format!("{name}.{}", instance.owner)),
    }
}

/// The address that a published port is bound to on its machine; none if the machine does not have it.
pub(super) fn bind(publish: &Publish, machine: &MachineInfo) -> Option<String> {
    match publish {
        Publish::Loopback => Some("127.0.0.1".to_owned()),
        Publish::Private => machine.address.get("private").cloned(),
        Publish::Public => Some("0.0.0.0".to_owned()),
        Publish::Address(address) => Some(address.clone()),
    }
}

/// How something is published, in words.
pub(super) fn published(publish: &Publish) -> String {
    match publish {
        Publish::Loopback => "on 127.0.0.1 there".to_owned(),
        Publish::Private => "on its private address".to_owned(),
        Publish::Public => "on every address of it".to_owned(),
        Publish::Address(address) => format!("on {address} there"),
    }
}

impl std::fmt::Display for From<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.in_container {
            write!(f, "a container on machine `{}`", self.machine)
        } else {
            write!(f, "machine `{}`", self.machine)
        }
    }
}
