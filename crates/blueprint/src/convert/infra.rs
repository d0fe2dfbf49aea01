//! What apps share: Service, Volume, Network and Registry.

use plumb_model::spec_service::{Backup, Engine};
use plumb_model::{DriftPolicy, OnDelete, OwnerName, RunState, SecretName};

use super::{Node, Reader, Selected, around, schedule, source, tuning};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, Spot, quote};
use crate::set::{Network, Publish, Registry, Selector, Service, Volume};

/// The settings of Services that have defaults in the manifest.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServiceDefaults {
    publish: Option<Publish>,
    backup: Option<Backup>,
    on_delete: Option<OnDelete>,
    drift: Option<DriftPolicy>,
}

impl ServiceDefaults {
    /// These, and those of `base` where there are none.
    pub fn over(self, base: &Self) -> Self {
        Self {
            publish: self.publish.or_else(|| base.publish.clone()),
            backup: self.backup.or_else(|| base.backup.clone()),
            on_delete: self.on_delete.or(base.on_delete),
            drift: self.drift.or(base.drift),
        }
    }
}

/// Reads the settings of a Service, or of the Services' defaults.
pub(crate) fn service_defaults<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> ServiceDefaults {
    let publish = r.get(node, "publish");
    let backup = r.get(node, "backup");
    ServiceDefaults {
        publish: publish.and_then(|node| around::publish(r, &node)),
        backup: backup.and_then(|node| schedule::backup(r, &node)),
        on_delete: on_delete(r, node),
        drift: tuning::drift(r, node),
    }
}

fn on_delete<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<OnDelete> {
    let node = r.get(node, "on_delete")?;
    r.choice(
        &node,
        &[("keep", OnDelete::Keep), ("destroy", OnDelete::Destroy)],
    )
}

/// A Service as far as it is right, with what `cross` wants to know.
#[derive(Debug)]
pub(crate) struct ReadService {
    pub selected: Option<Selected>,
    engine: Option<(Engine, String)>,
    pub port: Option<u16>,
    /// Where the port is written, or what implies it.
    pub port_spot: Spot,
    settings: ServiceDefaults,
    user: Option<String>,
    database: Option<String>,
    state: RunState,
    pub renamed_from: Option<(OwnerName, Spot)>,
}

impl ReadService {
    /// Whether it is written, here or in the manifest, where it can be reached.
    pub fn published(&self) -> bool {
        self.settings.publish.is_some()
    }

    /// The service with its defaults filled in; none if its engine is not known.
    pub fn finish(self, name: &OwnerName, machines: Selector) -> Option<Service> {
        let (engine, version) = self.engine?;
        let own = || name.as_str().replace('-', "_");
        Some(Service {
            machines,
            engine,
            version,
            port: self.port?,
            // What nobody wrote depends on the machine, and is settled when all machines are known.
            publish: self.settings.publish.unwrap_or_default(),
            user: self.user.unwrap_or_else(own),
            database: self.database.unwrap_or_else(own),
            backup: self.settings.backup,
            on_delete: self.settings.on_delete.unwrap_or_default(),
            drift: self.settings.drift.unwrap_or_default(),
            state: self.state,
            renamed_from: self.renamed_from.map(|(name, _)| name),
        })
    }
}

/// Reads a Service. What is wrong in it is reported and left out.
pub(crate) fn service(r: &mut Reader<'_, '_>, defaults: &ServiceDefaults) -> ReadService {
    let root = r.root();
    let engine = r.get(&root, "engine").and_then(|node| {
        let all = Engine::ALL.map(|one| (one.as_str(), one));
        source::name_and_version(r, &node, "engine", &all, "postgres@16")
    });
    let port = r.get(&root, "port");
    let port_spot = match &port {
        Some(node) => r.key_spot(node),
        None => r
            .get(&root, "engine")
            .map_or_else(|| r.spot(&root), |node| r.spot(&node)),
    };
    let number = match &port {
        Some(node) => {
            let number = node.value.as_u64().and_then(|n| u16::try_from(n).ok());
            let number = number.filter(|n| *n > 0);
            if number.is_none() {
                r.mismatch(node, "a whole number from 1 to 65535");
            }
            number
        }
        None => engine.as_ref().map(|(engine, _)| engine.default_port()),
    };
    let identifier = |r: &mut Reader<'_, '_>, key: &str| {
        let root = r.root();
        let (text, at) = r.get_text(&root, key)?;
        if crate::scalar::is_identifier(text) {
            return Some(text.to_owned());
        }
        r.bad(
            &at,
            Code::BadName,
            format!("{} cannot be the {key} of a service", quote(text)),
            Some("use at most 63 letters, digits and `_`, and begin with a letter or `_`"),
        );
        None
    };
    ReadService {
        selected: r.machines(&root),
        engine,
        port: number,
        port_spot,
        settings: service_defaults(r, &root).over(defaults),
        user: identifier(r, "user"),
        database: identifier(r, "database"),
        state: state(r, &root),
        renamed_from: r.renamed_from(&root),
    }
}

/// Whether something should run.
pub(crate) fn state<'a>(r: &mut Reader<'a, '_>, root: &Node<'a>) -> RunState {
    let choices = [
        ("running", RunState::Running),
        ("stopped", RunState::Stopped),
    ];
    let state = r.get(root, "state");
    state
        .and_then(|state| r.choice(&state, &choices))
        .unwrap_or(RunState::Running)
}

/// A Volume or a Network as far as it is right: machines are known separately.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    pub selected: Option<Selected>,
    pub renamed_from: Option<(OwnerName, Spot)>,
    pub value: Option<T>,
}

/// Reads a Volume.
pub(crate) fn volume(r: &mut Reader<'_, '_>) -> Shared<Volume> {
    let root = r.root();
    let on_delete = on_delete(r, &root).unwrap_or_default();
    let (selected, renamed_from) = (r.machines(&root), r.renamed_from(&root));
    let value = selected.as_ref().map(|selected| Volume {
        machines: selected.selector.clone(),
        on_delete,
        renamed_from: renamed_from.as_ref().map(|(name, _)| name.clone()),
    });
    Shared {
        selected,
        renamed_from,
        value,
    }
}

/// Reads a Network.
pub(crate) fn network(r: &mut Reader<'_, '_>) -> Shared<Network> {
    let root = r.root();
    let mut subnet = None;
    if let Some((text, at)) = r.get_text(&root, "subnet") {
        match crate::scalar::subnet(text) {
            Ok(()) => subnet = Some(text.to_owned()),
            Err(problem) => r.bad(
                &at,
                Code::BadSubnet,
                format!("{} is no address range", quote(text)),
                Some(problem),
            ),
        }
    }
    let internal = r.get_bool(&root, "internal").unwrap_or(false);
    let (selected, renamed_from) = (r.machines(&root), r.renamed_from(&root));
    let value = selected.as_ref().map(|selected| Network {
        machines: selected.selector.clone(),
        subnet,
        internal,
        renamed_from: renamed_from.as_ref().map(|(name, _)| name.clone()),
    });
    Shared {
        selected,
        renamed_from,
        value,
    }
}

/// Reads a Registry: its host, where that is written, and the rest.
pub(crate) fn registry(r: &mut Reader<'_, '_>, name: &str) -> Option<(String, Spot, Registry)> {
    let root = r.root();
    let password = password(r, &root);
    let username = r.get(&root, "username").and_then(|node| {
        let text = r.with_vars(&node)?;
        let good = (1..=255).contains(&text.len())
            && !text.contains(':')
            && text.bytes().all(|b| b.is_ascii_graphic());
        if !good {
            r.hide(&node);
            r.bad(
                &node,
                Code::BadUser,
                "this cannot be a user of a registry",
                Some("a user is on one line, without spaces and `:`"),
            );
        }
        good.then_some(text)
    });
    if let (Some(secret), None) = (&password, r.get(&root, "username")) {
        let node = r.get(&root, "password")?;
        r.bad_key(
            &node,
            Code::MissingKey,
            format!("the password {} is of no user", quote(secret.as_str())),
            Some("add `username: deploy`"),
        );
    }
    let node = r.get(&root, "host")?;
    let host = r.with_vars(&node)?.to_ascii_lowercase();
    let spot = r.spot(&node);
    if !crate::git_url::is_host_and_port(&host) {
        if host.contains('@') {
            r.hide(&node);
        }
        r.out.push(
            Diagnostic::error(Code::BadHost, "this is no host of a registry")
                .here(&spot)
                .hint("write what stands in front of an image's name, without scheme and path: registry.example.com or registry.example.com:5000"),
        );
        return None;
    }
    let registry = Registry {
        name: name.to_owned(),
        username,
        password,
    };
    Some((host, spot, registry))
}

/// The secret that holds the password. Anything else in this place is one itself, and is not repeated.
fn password<'a>(r: &mut Reader<'a, '_>, root: &Node<'a>) -> Option<SecretName> {
    let node = r.get(root, "password")?;
    let secret = r
        .get(&node, "secret")
        .filter(|s| s.value.as_str().is_some());
    if let (Some(secret), Some(1)) = (&secret, node.value.as_object().map(|map| map.len())) {
        return r.secret_name(secret);
    }
    r.hide(&node);
    r.bad_key(
        &node,
        Code::LiteralCredential,
        "a blueprint never holds a password",
        Some("name the secret that holds it: `password: { secret: REGISTRY_PASSWORD }`, and set it with the control plane"),
    );
    None
}
