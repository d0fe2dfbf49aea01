//! From a checked document to typed values, each by itself; and these into the set, in the documents' order.

use std::collections::BTreeMap;

use plumb_model::state::MachineInfo;
use plumb_model::{MachineName, NameError, OwnerName};

use super::manifest::ReadManifest;
use super::{Entry, Set};
use crate::code::Code;
use crate::convert::app::FromManifest;
use crate::convert::infra::Shared;
use crate::convert::{Reader, app, infra, machine, setup};
use crate::cross::Owner;
use crate::diagnostic::{Diagnostic, Diagnostics, Spot, quote};
use crate::schema::Kind;
use crate::set::{App, Network, Publish, Registry, Service, Setup, Volume, Written};

/// A document's typed values, and what was found on the way to them.
pub(super) struct Converted {
    kind: Kind,
    values: Values,
    /// Something about it is wrong.
    flawed: bool,
    /// Where it is written, under its name as it is written.
    written: Option<(String, Written)>,
    /// What the structural check left to the conversion.
    left: Vec<(Spot, String)>,
    out: Diagnostics,
}

/// What a document holds. What has no name that is one holds nothing.
enum Values {
    Nothing,
    Machine(MachineName, MachineInfo),
    App(Box<(Owner, Option<App>)>),
    Setup(Box<(Owner, Option<Setup>)>),
    Service(Box<ConvertedService>),
    Volume(Owner, Option<Volume>),
    Network(Owner, Option<Network>),
    /// The place of its name, and what it holds for its host.
    Registry(OwnerName, Spot, Option<(String, Spot, Registry)>),
}

struct ConvertedService {
    owner: Owner,
    /// It does not say where it can be reached.
    unpublished: bool,
    service: Option<Service>,
}

/// Makes typed values of one document, whatever the others hold. The manifest has been read before.
pub(super) fn convert(entry: &Entry<'_>, manifest: &ReadManifest) -> Converted {
    let mut out = Diagnostics::default();
    let broken = !entry.checked.reported.is_empty();
    let mut reader = entry.reader(&manifest.vars, &mut out);
    let values = match entry.kind {
        Kind::Workspace | Kind::Overlay => Values::Nothing,
        Kind::Machine => {
            let name = name(&mut reader);
            let info = machine::read(&mut reader);
            name.map_or(Values::Nothing, |name| Values::Machine(name, info))
        }
        _ => owned(entry, broken, &mut reader, manifest),
    };
    let document = &entry.document;
    let name = document.name.as_ref().map(|(name, _)| name.clone());
    Converted {
        kind: entry.kind,
        values,
        flawed: broken || out.errors() > 0,
        written: name.zip(document.written()),
        left: entry.left(),
        out,
    }
}

/// The name of the document.
fn name<N: std::str::FromStr<Err = NameError>>(reader: &mut Reader<'_, '_>) -> Option<N> {
    let root = reader.root();
    let node = reader.get(&root, "name")?;
    reader.name(&node)
}

/// The values of a document of a kind that owns something, or of a Registry.
fn owned(
    entry: &Entry<'_>,
    broken: bool,
    reader: &mut Reader<'_, '_>,
    manifest: &ReadManifest,
) -> Values {
    let name: Option<OwnerName> = name(reader);
    let values = match entry.kind {
        Kind::App => {
            let from = FromManifest {
                defaults: &manifest.defaults.app,
                base_domain: manifest.base_domain.as_ref(),
            };
            let read = app::read(reader, name.as_ref(), &from);
            let flawed = broken || reader.out.errors() > 0;
            name.map(|name| Values::App(Box::new(app_of(name, read, flawed))))
        }
        Kind::Setup => {
            let read = setup::read(reader);
            let drift = manifest.defaults.setup_drift.unwrap_or_default();
            name.map(|name| Values::Setup(Box::new(setup_of(name, read, drift))))
        }
        Kind::Service => {
            let read = infra::service(reader, &manifest.defaults.service);
            name.map(|name| Values::Service(Box::new(service_of(name, read))))
        }
        Kind::Volume => {
            let read = infra::volume(reader);
            name.map(|name| {
                let (owner, value) = shared(name, Kind::Volume, read);
                Values::Volume(owner, value)
            })
        }
        Kind::Network => {
            let read = infra::network(reader);
            name.map(|name| {
                let (owner, value) = shared(name, Kind::Network, read);
                Values::Network(owner, value)
            })
        }
        Kind::Registry => name.map(|name| {
            let root = reader.root();
            let node = reader.get(&root, "name").unwrap_or(root);
            let spot = reader.spot(&node);
            let read = infra::registry(reader, name.as_str());
            Values::Registry(name, spot, read)
        }),
        Kind::Workspace | Kind::Overlay | Kind::Machine => None,
    };
    values.unwrap_or(Values::Nothing)
}

fn app_of(name: OwnerName, read: app::ReadApp, flawed: bool) -> (Owner, Option<App>) {
    let mut owner = Owner::new(name.clone(), Kind::App, read.selected.clone());
    owner.uses = read.uses.clone();
    owner.fixed = read.fixed();
    if !flawed {
        let ports = read.ports();
        owner.ports = ports.map(|all| all.into_iter().map(|(name, _)| name.clone()).collect());
    }
    owner.services = read.services.clone();
    if let Some(container) = &read.container {
        owner.networks = container.networks.clone();
        owner.volumes = container.volumes();
    }
    owner.routes = read.routes.clone();
    owner.ingress = read.ingress.clone();
    owner.spread = read.spread.clone();
    owner.renamed_from = read.renamed_from.clone();
    owner.compose = read.compose.clone();
    let selector = read.selected.as_ref().map(|s| s.selector.clone());
    (owner, selector.map(|selector| read.finish(selector)))
}

fn setup_of(
    name: OwnerName,
    read: setup::ReadSetup,
    drift: plumb_model::DriftPolicy,
) -> (Owner, Option<Setup>) {
    let mut owner = Owner::new(name.clone(), Kind::Setup, read.selected.clone());
    owner.uses = read.uses;
    owner.claims = read.claims;
    owner.notify = read.notify;
    owner.renamed_from = read.renamed_from.clone();
    let setup = read.selected.map(|selected| Setup {
        machines: selected.selector,
        drift: read.drift.unwrap_or(drift),
        packages: read.packages,
        renamed_from: read.renamed_from.map(|(name, _)| name),
        files: read.files,
        directories: read.directories,
    });
    (owner, setup)
}

fn service_of(name: OwnerName, read: infra::ReadService) -> ConvertedService {
    let mut owner = Owner::new(name.clone(), Kind::Service, read.selected.clone());
    owner.renamed_from = read.renamed_from.clone();
    owner.fixed.extend(read.port.map(|number| app::FixedPort {
        number,
        udp: false,
        spot: read.port_spot.clone(),
        replicas: Some(1),
    }));
    let selector = read.selected.as_ref().map(|s| s.selector.clone());
    ConvertedService {
        owner,
        unpublished: selector.is_some() && !read.published(),
        service: selector.and_then(|selector| read.finish(&name, selector)),
    }
}

fn shared<T>(name: OwnerName, kind: Kind, read: Shared<T>) -> (Owner, Option<T>) {
    let mut owner = Owner::new(name, kind, read.selected);
    owner.renamed_from = read.renamed_from;
    (owner, read.value)
}

impl Set {
    /// Takes a document's values in.
    pub(super) fn take(&mut self, converted: Converted, out: &mut Diagnostics) {
        let Converted {
            kind,
            values,
            flawed,
            written,
            left,
            out: problems,
        } = converted;
        out.append(problems);
        self.flawed_machines |= kind == Kind::Machine && flawed;
        if let Some((name, written)) = written {
            self.origins.insert(kind.as_str(), name, written);
        }
        match values {
            Values::Nothing => {}
            Values::Machine(name, info) => {
                self.machines.infos.entry(name).or_insert(info);
            }
            Values::App(app) => {
                let (owner, app) = *app;
                put(&mut self.apps, &owner, app);
                self.owners.push(owner);
            }
            Values::Setup(setup) => {
                let (owner, setup) = *setup;
                put(&mut self.setups, &owner, setup);
                self.owners.push(owner);
            }
            Values::Service(service) => {
                let ConvertedService {
                    owner,
                    unpublished,
                    service,
                } = *service;
                if unpublished {
                    self.unpublished.insert(owner.name.clone());
                }
                put(&mut self.services, &owner, service);
                self.owners.push(owner);
            }
            Values::Volume(owner, volume) => {
                put(&mut self.volumes, &owner, volume);
                self.owners.push(owner);
            }
            Values::Network(owner, network) => {
                put(&mut self.networks, &owner, network);
                self.owners.push(owner);
            }
            Values::Registry(name, spot, read) => self.registry(&name, spot, read, out),
        }
        hold(left, out);
    }

    /// A Service that does not say where it can be reached is there for the other machines, if its own has an
    /// address for them: whoever writes `uses` on another machine means just that.
    pub(super) fn publish_services(&mut self) {
        for name in &self.unpublished {
            let Some(service) = self.services.get_mut(name) else {
                continue;
            };
            let mut on = self.machines.infos.iter();
            let private = on.any(|(name, info)| {
                service.machines.matches(name, info) && info.address.contains_key("private")
            });
            if private {
                service.publish = Publish::Private;
            }
        }
    }

    fn registry(
        &mut self,
        name: &OwnerName,
        spot: Spot,
        read: Option<(String, Spot, Registry)>,
        out: &mut Diagnostics,
    ) {
        match self.registry_names.get(name) {
            Some(first) => out.push(
                Diagnostic::error(
                    Code::DuplicateName,
                    format!(
                        "there are two of the name {}: Registry",
                        quote(name.as_str())
                    ),
                )
                .at(&spot, "this Registry")
                .at(first, "and this Registry")
                .hint("rename one of them"),
            ),
            None => {
                self.registry_names.insert(name.clone(), spot);
            }
        }
        let Some((host, spot, registry)) = read else {
            return;
        };
        match self.registry_hosts.get(&host) {
            Some(first) => out.push(
                Diagnostic::error(
                    Code::RegistryClash,
                    format!("there are two Registries of the host {}", quote(&host)),
                )
                .at(&spot, format!("one is {}", quote(name.as_str())))
                .at(first, "the other is here")
                .hint("a host has one credential: remove one of them"),
            ),
            None => {
                self.registry_hosts.insert(host.clone(), spot);
                self.registries.insert(host, registry);
            }
        }
    }
}

/// The first of a name counts; that there is a second is said elsewhere.
fn put<T>(all: &mut BTreeMap<OwnerName, T>, owner: &Owner, value: Option<T>) {
    if let Some(value) = value {
        all.entry(owner.name.clone()).or_insert(value);
    }
}

/// What the structural check left to the conversion must have been complained about by now: neither may rely on the
/// other alone.
fn hold(left: Vec<(Spot, String)>, out: &mut Diagnostics) {
    for (spot, name) in left {
        let mut said = out.items.iter().flat_map(|d| &d.spans);
        if out.omitted == 0 && !said.any(|s| s.line == spot.line && *s.file == *spot.file) {
            let message = format!("{name} is not as the language has it");
            out.push(Diagnostic::error(Code::AgainstSchema, message).here(&spot));
        }
    }
}
