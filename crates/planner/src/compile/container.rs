//! Containers, alone or as services of a Compose file: the image that is pulled or built, the volumes and networks, and
//! the container after all of them.

use std::collections::{BTreeMap, BTreeSet};

use plumb_blueprint::{App, Container, ImageDecl, MountSourceDecl, Workload};
use plumb_model::spec_container::{ContainerImage, Mount, MountSource, PublishedPort};
use plumb_model::spec_source::BuildMethod;
use plumb_model::state::ResolutionKey;
use plumb_model::{
    Address, Addresses, BuildSpec, ContainerSpec, DriftPolicy, ImageSpec, MachineName, OnDelete,
    OwnerName, PortName, ResourceKind, ResourceSpec, VolumeSpec,
};

use super::context::{Context, Draft, Made, escape};
use super::env;
use super::instances::{Instance, Unit};
use super::native::health_spec;
use super::reach::{Reach, bind};
use super::resolve::own_digest;
use super::service::no_private_address;
use super::shared::network_spec;
use super::source::{Prepared, keep_build, scope};

/// How long a build from a Dockerfile may take, in milliseconds: an hour, since it may compile a system.
const BUILD_TIMEOUT_MS: u64 = 60 * 60 * 1000;

/// The container of one instance, with what it needs.
#[allow(
    clippy::too_many_arguments,
    reason = "called once, with what its caller holds anyway"
)]
pub(super) fn compile<'a>(
    context: &mut Context<'a>,
    draft: &mut Draft,
    app: &'a App,
    instance: &Instance<'a>,
    all: &[Instance<'a>],
    reach: &Reach<'a>,
    ready: &Prepared,
) {
    let Unit::Container {
        name,
        decl,
        compose,
    } = instance.unit
    else {
        return;
    };
    let (owner, machine) = (instance.owner, instance.machine);
    let origin = origin(context, owner, name, compose);
    let image = image(
        context,
        draft,
        app,
        owner,
        (name, decl),
        machine,
        reach,
        ready,
    );
    let mut after = image.after;
    let numbers = instance.ports.clone();
    let published = publish(context, instance, decl, &numbers);
    let mounts = mounts(context, draft, app, instance, decl, &mut after);
    let networks = networks(context, draft, app, instance, decl, &mut after);
    let first = |other: &&Instance<'_>| {
        let named = decl.after.iter().any(|n| n.as_str() == other.unit.name());
        named && other.machine == machine && other.slot == instance.slot
    };
    after.extend(all.iter().filter(first).map(|other| other.address.clone()));

    let mut scope = scope(context, machine, reach);
    scope.from.in_container = true;
    after.extend(env::services_here(&app.uses, &scope));
    let mut handed = if compose {
        BTreeMap::new()
    } else {
        let inside = decl.ports.iter().map(|(n, p)| (n.clone(), p.container));
        env::port_variables(&inside.collect())
    };
    handed.extend(env::service_variables(context, owner, &app.uses, &scope));
    let env = env::written(context, owner, handed, [&decl.env], &scope);
    let health = decl.health.as_ref().and_then(|health| {
        health_spec(health, &numbers, |port| {
            published.get(port).map(|p| p.address.clone())
        })
    });
    let mut command = |argv: &Option<Vec<_>>| {
        argv.as_ref()
            .map(|argv| context.command(argv, &scope, origin.as_ref()))
    };
    let spec = ContainerSpec {
        entrypoint: command(&decl.entrypoint),
        command: command(&decl.command),
        image: image.image.unwrap_or_else(|| ContainerImage::Pulled {
            reference: String::new(),
            digest: None,
        }),
        env,
        secrets: env::secrets(context.input.secrets, &app.secrets, &BTreeMap::new()),
        workdir: decl.workdir.clone(),
        user: decl.user.clone().or_else(|| app.user.clone()),
        ports: published,
        mounts,
        networks,
        labels: decl.labels.clone(),
        health,
        restart: decl.restart.clone().unwrap_or_else(|| app.restart.clone()),
        stop: decl.stop.clone().unwrap_or_else(|| app.stop.clone()),
        log: app.log.clone(),
        limits: app.limits.clone(),
        schedule: app.schedule.clone(),
        state: app.state,
    };
    if image.unknown {
        context.unknown(&instance.address, "image");
    }
    let made = Made {
        after,
        ..Made::new(app.drift, ResourceSpec::Container(spec), origin)
    };
    context.keep(draft, instance.address.clone(), made);
}

fn origin(
    context: &Context<'_>,
    owner: &OwnerName,
    name: &str,
    compose: bool,
) -> Option<plumb_model::plan::Origin> {
    if compose {
        return context.origin("App", owner, &format!("/compose/{}", escape(name)));
    }
    let image = context.set.origins.get("App", owner.as_str(), "/image");
    image.or_else(|| context.origin("App", owner, "/dockerfile"))
}

/// Where the image of a container is written, or the build that makes it.
fn image_origin(
    context: &Context<'_>,
    app: &App,
    owner: &OwnerName,
    name: &str,
) -> Option<plumb_model::plan::Origin> {
    match &app.workload {
        Workload::Compose(_) => {
            context.origin("App", owner, &format!("/compose/{}/image", escape(name)))
        }
        _ => origin(context, owner, name, false),
    }
}

/// Where a volume or network is written: in the Compose file that declares it, or as the app's own.
fn shared_origin(
    context: &Context<'_>,
    app: &App,
    owner: &OwnerName,
    key: &str,
    name: &str,
) -> Option<plumb_model::plan::Origin> {
    let pointer = match &app.workload {
        Workload::Compose(_) => format!("/compose/:{key}/{}", escape(name)),
        _ => format!("/{key}/{}", escape(name)),
    };
    context.origin("App", owner, &pointer)
}

/// What a container is made from.
pub(super) struct Image {
    /// None where the app has no source to build it of, which is a problem by then.
    pub image: Option<ContainerImage>,
    pub after: Addresses,
    /// Nobody knows its digest yet.
    pub unknown: bool,
}

/// Puts the image, or the build that makes it, on the machine.
#[allow(
    clippy::too_many_arguments,
    reason = "called twice, with what both callers hold anyway"
)]
pub(super) fn image<'a>(
    context: &mut Context<'a>,
    draft: &mut Draft,
    app: &'a App,
    owner: &'a OwnerName,
    (name, decl): (&str, &'a Container),
    machine: &'a MachineName,
    reach: &Reach<'a>,
    ready: &Prepared,
) -> Image {
    match &decl.image {
        ImageDecl::Reference(reference) => {
            pulled(context, draft, app, owner, name, machine, reference)
        }
        ImageDecl::Dockerfile {
            path,
            target,
            args,
            context: folder,
        } => {
            let Some(mut source) = ready.workdir.clone() else {
                let origin = context.origin("App", owner, "/dockerfile");
                context.problem(
                    format!("`{owner}` has a `dockerfile` and no source that it is in"),
                    origin,
                    "add `source: { path: … }` or `source: { git: … }`",
                );
                return Image {
                    image: None,
                    after: Addresses::new(),
                    unknown: false,
                };
            };
            source.dir = [source.dir.as_str(), folder]
                .into_iter()
                .filter(|dir| !dir.is_empty())
                .collect::<Vec<_>>()
                .join("/");
            let scope = scope(context, machine, reach).last();
            let args = args
                .iter()
                .map(|(arg, text)| {
                    let origin = context.origin("App", owner, "/dockerfile");
                    (arg.clone(), context.text(text, &scope, origin))
                })
                .collect();
            let spec = BuildSpec {
                source,
                method: BuildMethod::Dockerfile {
                    path: path.clone(),
                    target: target.clone(),
                    args,
                },
                toolchain: None,
                env: BTreeMap::new(),
                secrets: BTreeMap::new(),
                timeout_ms: BUILD_TIMEOUT_MS,
            };
            let mut ready = ready.clone();
            let fingerprint = spec.fingerprint();
            let address = Address::new(machine, owner, ResourceKind::Build, name);
            keep_build(context, draft, app, address, spec, &mut ready);
            Image {
                image: Some(ContainerImage::Built(fingerprint)),
                after: ready.after,
                unknown: ready.workdir_unknown,
            }
        }
    }
}

fn pulled(
    context: &mut Context<'_>,
    draft: &mut Draft,
    app: &App,
    owner: &OwnerName,
    name: &str,
    machine: &MachineName,
    reference: &str,
) -> Image {
    let digest = match own_digest(reference) {
        Some(digest) => Some(digest.to_owned()),
        None => {
            let recorded = context.recorded(owner);
            let key = ResolutionKey(format!("image {reference}"));
            context.resolver.resolve(owner, recorded, key)
        }
    };
    let address = Address::new(machine, owner, ResourceKind::Image, name);
    let unknown = digest.is_none();
    if unknown {
        context.unknown(&address, "digest");
    }
    let registry = context.set.registries.get(registry_host(reference));
    let spec = ResourceSpec::Image(ImageSpec {
        reference: reference.to_owned(),
        digest: digest.clone(),
        username: registry.and_then(|r| r.username.clone()),
        password: registry.and_then(|r| {
            let password = r.password.as_ref()?;
            Some(context.input.secrets.newest(password))
        }),
    });
    let origin = image_origin(context, app, owner, name);
    context.keep(draft, address.clone(), Made::new(app.drift, spec, origin));
    Image {
        image: Some(ContainerImage::Pulled {
            reference: reference.to_owned(),
            digest,
        }),
        after: Addresses::from([address]),
        unknown,
    }
}

/// The host that an image comes from: what stands before the first slash, if it looks like a host.
fn registry_host(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

fn publish(
    context: &mut Context<'_>,
    instance: &Instance<'_>,
    decl: &Container,
    numbers: &BTreeMap<PortName, u16>,
) -> BTreeMap<PortName, PublishedPort> {
    let mut published = BTreeMap::new();
    for (name, port) in &decl.ports {
        let Some(number) = numbers.get(name) else {
            continue;
        };
        let Some(address) = bind(&port.publish, &context.set.machines[instance.machine]) else {
            no_private_address(context, "App", instance.owner, instance.machine);
            continue;
        };
        let spec = PublishedPort {
            container: port.container,
            machine: *number,
            address,
            udp: port.udp,
        };
        published.insert(name.clone(), spec);
    }
    published
}

/// What is mounted; volumes of the app's own come with it.
fn mounts(
    context: &mut Context<'_>,
    draft: &mut Draft,
    app: &App,
    instance: &Instance<'_>,
    decl: &Container,
    after: &mut Addresses,
) -> BTreeMap<String, Mount> {
    let mut mounts = BTreeMap::new();
    for (inside, mount) in &decl.mounts {
        let source = match &mount.source {
            MountSourceDecl::Path(path) => MountSource::Path(path.clone()),
            MountSourceDecl::Volume(name) => {
                let origin = shared_origin(context, app, instance.owner, "volumes", name);
                let address = volume(context, draft, app, instance, name, origin);
                let source = MountSource::Volume(format!("{}/{}", address.owner, address.name));
                after.insert(address);
                source
            }
        };
        let mount = Mount {
            source,
            read_only: mount.read_only,
        };
        mounts.insert(inside.clone(), mount);
    }
    mounts
}

/// The volume of a name: the Compose project's, a Volume document's, or one of the app's own.
fn volume(
    context: &mut Context<'_>,
    draft: &mut Draft,
    app: &App,
    instance: &Instance<'_>,
    name: &str,
    origin: Option<plumb_model::plan::Origin>,
) -> Address {
    let machine = instance.machine;
    let of_project = match &app.workload {
        Workload::Compose(compose) => compose.volumes.get(name).copied(),
        _ => None,
    };
    let set = context.set;
    let document = set.volumes.iter().find(|(doc, _)| doc.as_str() == name);
    if let (None, Some((owner, document))) = (of_project, document) {
        if !context.selected(&document.machines).contains_key(machine) {
            not_there(context, "Volume", owner, instance, origin);
        }
        return Address::new(machine, owner, ResourceKind::Volume, name);
    }
    let address = Address::new(machine, instance.owner, ResourceKind::Volume, name);
    let spec = ResourceSpec::Volume(VolumeSpec {
        on_delete: of_project.unwrap_or(OnDelete::Keep),
    });
    let made = Made::new(DriftPolicy::Enforce, spec, origin);
    context.keep(draft, address.clone(), made);
    address
}

/// The networks that it is in, besides the workspace's own; those of a Compose project come with it.
fn networks(
    context: &mut Context<'_>,
    draft: &mut Draft,
    app: &App,
    instance: &Instance<'_>,
    decl: &Container,
    after: &mut Addresses,
) -> BTreeSet<String> {
    let (machine, owner) = (instance.machine, instance.owner);
    let set = context.set;
    let mut networks = BTreeSet::new();
    for name in &decl.networks {
        let origin = shared_origin(context, app, owner, "networks", name);
        let of_project = match &app.workload {
            Workload::Compose(compose) => compose.networks.get(name),
            _ => None,
        };
        let document = set.networks.iter().find(|(doc, _)| doc.as_str() == name);
        let address = match (of_project, document) {
            (Some(network), _) => {
                let address = Address::new(machine, owner, ResourceKind::Network, name);
                let made = Made::new(DriftPolicy::Enforce, network_spec(network), origin);
                context.keep(draft, address.clone(), made);
                address
            }
            (None, Some((network, document))) => {
                if !context.selected(&document.machines).contains_key(machine) {
                    not_there(context, "Network", network, instance, origin);
                }
                Address::new(machine, network, ResourceKind::Network, name)
            }
            (None, None) => {
                context.problem(
                    format!("`{owner}` is in a network `{name}`, and there is none of that name"),
                    origin,
                    format!("add a blueprint of `kind: Network` named `{name}`"),
                );
                continue;
            }
        };
        networks.insert(format!("{}/{}", address.owner, address.name));
        after.insert(address);
    }
    networks
}

/// A Volume or Network that is not where it is used.
fn not_there(
    context: &mut Context<'_>,
    kind: &str,
    name: &OwnerName,
    instance: &Instance<'_>,
    origin: Option<plumb_model::plan::Origin>,
) {
    context.problem(
        format!(
            "`{}` runs on machine `{}` and uses `{name}`, which is not there",
            instance.owner, instance.machine
        ),
        origin,
        format!(
            "add `{}` to the `machines` of {kind} `{name}`",
            instance.machine
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::registry_host;

    #[test]
    fn an_image_comes_from_the_host_before_its_first_slash_if_that_is_one() {
        for (reference, host) in [
            ("nginx", "docker.io"),
            ("acme/shop:1.2", "docker.io"),
            ("registry.example.com/acme/shop", "registry.example.com"),
            ("localhost:5000/shop", "localhost:5000"),
            ("localhost/shop", "localhost"),
        ] {
            assert_eq!(registry_host(reference), host, "{reference}");
        }
    }
}
