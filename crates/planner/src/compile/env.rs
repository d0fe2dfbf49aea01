//! The environment of a workload: what Plumb hands in ([`plumb_model::injected`] lists it), and what is written, which
//! goes before it.

use std::collections::{BTreeMap, BTreeSet};

use plumb_blueprint::{SecretDecl, Text};
use plumb_model::injected::{port_variable, service_variable};
use plumb_model::{Address, KnownSecrets, OwnerName, PortName, ResourceKind, SecretUse, symbolic};

use super::context::{Context, escape};
use super::text::{Scope, is_secret, render};

/// An environment by variable; `${release}` and passwords in it are symbolic.
pub(super) type Env = BTreeMap<String, String>;

/// `PORT_NAME` for each port, and `PORT` if there is only one.
pub(super) fn port_variables(ports: &BTreeMap<PortName, u16>) -> Env {
    let mut env: Env = ports
        .iter()
        .map(|(name, number)| (port_variable(name), number.to_string()))
        .collect();
    if let (1, Some(number)) = (ports.len(), ports.values().next()) {
        env.insert("PORT".to_owned(), number.to_string());
    }
    env
}

/// What `uses` hands in for each service.
pub(super) fn service_variables(
    context: &mut Context<'_>,
    owner: &OwnerName,
    uses: &BTreeSet<OwnerName>,
    scope: &Scope<'_>,
) -> Env {
    use plumb_blueprint::{Reference as R, Segment};
    let mut env = Env::new();
    for service in uses {
        let has_password = scope
            .reach
            .services
            .get(service)
            .is_some_and(super::service::Facts::has_password);
        let all = [
            ("URL", R::ServiceUrl(service.clone())),
            ("HOST", R::ServiceHost(service.clone())),
            ("PORT", R::ServicePort(service.clone())),
            ("USER", R::ServiceUser(service.clone())),
            ("NAME", R::ServiceDatabase(service.clone())),
            ("PASSWORD", R::ServicePassword(service.clone())),
        ];
        for (what, reference) in all {
            if what == "PASSWORD" && !has_password {
                continue;
            }
            match render(&[Segment::Ref(reference)], scope) {
                Ok(value) => {
                    env.insert(service_variable(service, what), value);
                }
                Err((message, hint)) => {
                    let origin = context.origin("App", owner, "/uses");
                    context.problem(message, origin, hint);
                }
            }
        }
    }
    env
}

/// The services on the machine itself that something uses: they are there before it.
pub(super) fn services_here(
    uses: &BTreeSet<OwnerName>,
    scope: &Scope<'_>,
) -> impl Iterator<Item = Address> {
    uses.iter().filter_map(move |service| {
        let facts = scope.reach.services.get(service)?;
        let here = facts.machine == scope.from.machine;
        here.then(|| {
            Address::new(
                facts.machine,
                service,
                ResourceKind::Service,
                service.as_str(),
            )
        })
    })
}

/// Renders what is written over what is handed in; of the layers, a later one over those before.
pub(super) fn written<const N: usize>(
    context: &mut Context<'_>,
    owner: &OwnerName,
    mut env: Env,
    layers: [&BTreeMap<String, Text>; N],
    scope: &Scope<'_>,
) -> Env {
    let texts = layers.iter().enumerate().flat_map(|(at, layer)| {
        let over = &layers[at + 1..];
        let seen = move |name: &String| !over.iter().any(|layer| layer.contains_key(name));
        layer.iter().filter(move |(name, _)| seen(name))
    });
    for (name, text) in texts {
        // Where it is written is looked up only once it is to be shown: there are many more of these than of anything else.
        let value = render(text, scope).unwrap_or_else(|(message, hint)| {
            let origin = context.origin("App", owner, &format!("/env/{}", escape(name)));
            context.problem(message, origin, hint);
            String::new()
        });
        env.insert(name.clone(), value);
    }
    env
}

/// What a build is handed: what is written, but for what holds a credential.
pub(super) fn of_a_build(
    context: &mut Context<'_>,
    owner: &OwnerName,
    texts: &BTreeMap<String, Text>,
    scope: &Scope<'_>,
) -> Env {
    let open: BTreeMap<String, Text> = texts
        .iter()
        .filter(|(_, text)| !is_secret(text))
        .map(|(name, text)| (name.clone(), text.clone()))
        .collect();
    let mut env = written(context, owner, Env::new(), [&open], scope);
    env.retain(|_, value| !symbolic::holds_credential(value));
    env
}

/// The secrets that a workload is handed, by reference, each at its newest version.
pub(super) fn secrets(
    known: &KnownSecrets,
    shared: &BTreeMap<String, SecretDecl>,
    own: &BTreeMap<String, SecretDecl>,
) -> BTreeMap<String, SecretUse> {
    shared
        .iter()
        .chain(own)
        .map(|(variable, decl)| {
            let used = SecretUse {
                secret: known.newest(&decl.secret),
                form: decl.form,
                on_change: decl.on_change,
                memory_only: decl.memory_only,
            };
            (variable.clone(), used)
        })
        .collect()
}
