//! Services: shared infrastructure on one machine, with a password that Plumb makes and nobody sees.

use std::collections::BTreeMap;

use plumb_blueprint::{Publish, Service};
use plumb_model::spec_service::Engine;
use plumb_model::state::{OwnerKind, ResolutionKey};
use plumb_model::{
    Address, MachineName, OwnerName, ResourceKind, ResourceSpec, SecretName, SecretRef,
    ServiceSpec, symbolic,
};

use super::context::{Context, Draft, Made};
use super::reach::{Reach, bind};
use super::resolve::is_exact;

/// What others need to know of a service.
#[derive(Debug, Clone)]
pub(super) struct Facts<'a> {
    pub machine: &'a MachineName,
    pub engine: Engine,
    pub port: u16,
    pub publish: &'a Publish,
    pub user: String,
    pub database: String,
    pub password: SecretRef,
}

impl Facts<'_> {
    /// Whether its clients must say who they are.
    pub fn has_password(&self) -> bool {
        self.engine != Engine::Memcached
    }

    /// Whether a database is part of its URL.
    pub fn has_database(&self) -> bool {
        !matches!(
            self.engine,
            Engine::Redis | Engine::Valkey | Engine::Memcached
        )
    }

    /// The password as it stands in texts. It goes by the name under which the secret was made, which a rename leaves.
    pub fn symbolic_password(&self) -> String {
        let name = self.password.name.as_str();
        let owner = name.strip_suffix(PASSWORD).unwrap_or(name);
        match OwnerName::new(owner) {
            Ok(owner) => symbolic::service(&owner, "password"),
            // Only a record that somebody else wrote could hold such a name.
            Err(_) => symbolic::RELEASE.to_owned(),
        }
    }
}

/// What the name of a service's password ends with.
const PASSWORD: &str = ".password";

/// The facts of all services.
pub(super) fn facts<'a>(context: &mut Context<'a>) -> BTreeMap<&'a OwnerName, Facts<'a>> {
    let set = context.set;
    let mut all = BTreeMap::new();
    for (name, service) in &set.services {
        let machines: Vec<&MachineName> = context.selected(&service.machines).into_keys().collect();
        let [machine] = machines[..] else {
            let origin = context.origin("Service", name, "/machines");
            context.problem(
                format!(
                    "service `{name}` runs on exactly one machine, and {} are meant",
                    machines.len()
                ),
                origin,
                "name one machine: its data is in one place",
            );
            continue;
        };
        let Some((user, database, password)) = identity(context, name, service, machine) else {
            continue;
        };
        let facts = Facts {
            machine,
            engine: service.engine,
            port: service.port,
            publish: &service.publish,
            user,
            database,
            password,
        };
        all.insert(name, facts);
    }
    all
}

/// User, database and password. A renamed service keeps those that it had by default: they are in its data. Where it
/// starts empty, on another machine, it has its own.
fn identity(
    context: &Context<'_>,
    name: &OwnerName,
    service: &Service,
    machine: &MachineName,
) -> Option<(String, String, SecretRef)> {
    let by_default = |name: &OwnerName| name.as_str().replace('-', "_");
    let new_password = SecretName::new(&format!("{name}{PASSWORD}")).ok()?;
    let mut user = service.user.clone();
    let mut database = service.database.clone();
    let mut password = SecretRef {
        name: new_password,
        version: None,
        digest: None,
    };
    let recorded = context
        .recorded_resources(name, ResourceKind::Service)
        .filter(|resource| resource.address.machine == *machine)
        .find_map(|resource| match &resource.spec {
            ResourceSpec::Service(spec) => Some((resource, spec)),
            _ => None,
        });
    if let Some((resource, spec)) = recorded {
        password.name.clone_from(&spec.password.name);
        let mut names: Vec<&OwnerName> = vec![&resource.address.owner];
        names.extend(resource.addresses_before().iter().map(|a| &a.owner));
        let kept = |now: &String, before: &String| {
            *now == by_default(name) && names.iter().any(|old| *before == by_default(old))
        };
        if kept(&user, &spec.user) {
            user.clone_from(&spec.user);
        }
        if kept(&database, &spec.database) {
            database.clone_from(&spec.database);
        }
    }
    Some((user, database, password))
}

/// The resource.
pub(super) fn compile<'a>(
    context: &mut Context<'a>,
    name: &'a OwnerName,
    service: &'a Service,
    reach: &Reach<'a>,
) -> Draft {
    let mut draft = Draft::new(OwnerKind::Service);
    let Some(facts) = reach.services.get(name) else {
        return draft;
    };
    let address = Address::new(facts.machine, name, ResourceKind::Service, name.as_str());
    let origin = context.origin("Service", name, "/engine");
    let Some(bound) = context
        .set
        .machines
        .get(facts.machine)
        .and_then(|info| bind(facts.publish, info))
    else {
        no_private_address(context, "Service", name, facts.machine);
        return draft;
    };
    let version = version(context, name, service, &address);
    let spec = ServiceSpec {
        engine: service.engine,
        wanted: service.version.clone(),
        version,
        address: bound,
        port: service.port,
        user: facts.user.clone(),
        database: facts.database.clone(),
        password: facts.password.clone(),
        backup: service.backup.clone(),
        on_delete: service.on_delete,
        state: service.state,
    };
    let made = Made::new(service.drift, ResourceSpec::Service(spec), origin);
    context.keep(&mut draft, address, made);
    draft
}

/// Something is to be published on a private address that the machine does not have.
pub(super) fn no_private_address(
    context: &mut Context<'_>,
    kind: &str,
    name: &OwnerName,
    machine: &MachineName,
) {
    let pointer = if kind == "App" { "/ports" } else { "/publish" };
    let origin = context.origin(kind, name, pointer);
    context.problem(
        format!("`{name}` is published on the private address of machine `{machine}`, which declares none"),
        origin,
        format!("add `address: {{ private: … }}` to machine `{machine}`"),
    );
}

fn version(
    context: &mut Context<'_>,
    name: &OwnerName,
    service: &Service,
    address: &Address,
) -> Option<String> {
    // PostgreSQL has counted in two parts since 10; the others in three.
    let parts = if service.engine == Engine::Postgres {
        2
    } else {
        3
    };
    if is_exact(&service.version, parts) {
        return Some(service.version.clone());
    }
    let key = ResolutionKey(format!(
        "service {}@{}",
        service.engine.as_str(),
        service.version
    ));
    let recorded = context.recorded(name);
    let version = context.resolver.resolve(name, recorded, key);
    if version.is_none() {
        context.unknown(address, "version");
    }
    version
}
