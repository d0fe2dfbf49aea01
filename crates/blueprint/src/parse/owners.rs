//! Takes the documents that own resources, and Registries, into the set as they are read.

use plumb_model::OwnerName;

use super::{Entry, ReadManifest, Set};
use crate::code::Code;
use crate::convert::app::FromManifest;
use crate::convert::infra::Shared;
use crate::convert::{Reader, app, infra, setup};
use crate::cross::Owner;
use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::schema::Kind;
use crate::set::Publish;

impl Set {
    /// Reads one document of a kind that has a section of its own in the set, the manifest and machines apart.
    pub(super) fn owner(
        &mut self,
        entry: &Entry<'_>,
        manifest: &ReadManifest,
        out: &mut Diagnostics,
    ) {
        let before = out.errors();
        let broken = !entry.checked.reported.is_empty();
        let mut reader = entry.reader(&manifest.vars, out);
        let root = reader.root();
        let node = reader.get(&root, "name");
        let name = node.and_then(|node| reader.name::<OwnerName>(&node));
        match entry.kind {
            Kind::App => {
                let from = FromManifest {
                    defaults: &manifest.defaults.app,
                    base_domain: manifest.base_domain.as_ref(),
                };
                let read = app::read(&mut reader, name.as_ref(), &from);
                let flawed = broken || out.errors() > before;
                if let Some(name) = name {
                    self.app(name, read, flawed);
                }
            }
            Kind::Setup => {
                let read = setup::read(&mut reader);
                if let Some(name) = name {
                    let drift = manifest.defaults.setup_drift.unwrap_or_default();
                    self.setup(name, read, drift);
                }
            }
            Kind::Service => {
                let read = infra::service(&mut reader, &manifest.defaults.service);
                if let Some(name) = name {
                    self.service(name, read);
                }
            }
            Kind::Volume => {
                let read = infra::volume(&mut reader);
                if let (Some(name), Some(value)) = (&name, &read.value) {
                    self.volumes
                        .entry(name.clone())
                        .or_insert_with(|| value.clone());
                }
                self.shared(name, Kind::Volume, read);
            }
            Kind::Network => {
                let read = infra::network(&mut reader);
                if let (Some(name), Some(value)) = (&name, &read.value) {
                    self.networks
                        .entry(name.clone())
                        .or_insert_with(|| value.clone());
                }
                self.shared(name, Kind::Network, read);
            }
            Kind::Registry => {
                if let Some(name) = &name {
                    self.registry(&mut reader, name);
                }
            }
            Kind::Workspace | Kind::Overlay | Kind::Machine => {}
        }
    }

    fn app(&mut self, name: OwnerName, read: app::ReadApp, flawed: bool) {
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
        self.owners.push(owner);
        if let Some(selected) = &read.selected {
            let selector = selected.selector.clone();
            self.apps
                .entry(name)
                .or_insert_with(|| read.finish(selector));
        }
    }

    fn setup(&mut self, name: OwnerName, read: setup::ReadSetup, drift: plumb_model::DriftPolicy) {
        let mut owner = Owner::new(name.clone(), Kind::Setup, read.selected.clone());
        owner.uses = read.uses;
        owner.claims = read.claims;
        owner.notify = read.notify;
        owner.renamed_from = read.renamed_from.clone();
        self.owners.push(owner);
        if let Some(selected) = read.selected {
            let setup = crate::set::Setup {
                machines: selected.selector,
                drift: read.drift.unwrap_or(drift),
                packages: read.packages,
                renamed_from: read.renamed_from.map(|(name, _)| name),
                files: read.files,
                directories: read.directories,
            };
            self.setups.entry(name).or_insert(setup);
        }
    }

    fn service(&mut self, name: OwnerName, read: infra::ReadService) {
        let mut owner = Owner::new(name.clone(), Kind::Service, read.selected.clone());
        owner.renamed_from = read.renamed_from.clone();
        owner.fixed.extend(read.port.map(|number| app::FixedPort {
            number,
            udp: false,
            spot: read.port_spot.clone(),
            replicas: Some(1),
        }));
        self.owners.push(owner);
        if let Some(selected) = &read.selected {
            let selector = selected.selector.clone();
            if !read.published() {
                self.unpublished.insert(name.clone());
            }
            if let Some(service) = read.finish(&name, selector) {
                self.services.entry(name).or_insert(service);
            }
        }
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

    fn shared<T>(&mut self, name: Option<OwnerName>, kind: Kind, read: Shared<T>) {
        if let Some(name) = name {
            let mut owner = Owner::new(name, kind, read.selected);
            owner.renamed_from = read.renamed_from;
            self.owners.push(owner);
        }
    }

    fn registry(&mut self, reader: &mut Reader<'_, '_>, name: &OwnerName) {
        let root = reader.root();
        let spot = match reader.get(&root, "name") {
            Some(node) => reader.spot(&node),
            None => reader.spot(&root),
        };
        match self.registry_names.get(name) {
            Some(first) => reader.out.push(
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
        let Some((host, spot, registry)) = infra::registry(reader, name.as_str()) else {
            return;
        };
        match self.registry_hosts.get(&host) {
            Some(first) => reader.out.push(
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
