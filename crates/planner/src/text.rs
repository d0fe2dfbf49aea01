//! Rendering texts: every reference becomes what it stands for on one machine.

use std::collections::BTreeMap;

use plumb_blueprint::{Reference, Segment};
use plumb_model::state::{Commit, MachineInfo};
use plumb_model::{MachineName, OwnerName, PortName, symbolic};

/// Where an app answers: machine → port name → number, over all its processes.
pub(crate) type Endpoints = BTreeMap<OwnerName, BTreeMap<MachineName, BTreeMap<PortName, u16>>>;

/// What references can be resolved against.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub machine: &'a MachineName,
    pub info: &'a MachineInfo,
    pub endpoints: &'a Endpoints,
    pub commit: Option<&'a Commit>,
    /// Whether `${release}` stays symbolic here; otherwise the text is final.
    pub symbolic: bool,
}

/// Renders a text, or says which reference has no value here and what to do.
pub(crate) fn render(text: &[Segment], scope: &Scope<'_>) -> Result<String, (String, String)> {
    let mut out = String::new();
    for segment in text {
        match segment {
            Segment::Literal(literal) if scope.symbolic => {
                out.push_str(&symbolic::literal(literal))
            }
            Segment::Literal(literal) => out.push_str(literal),
            Segment::Ref(Reference::Release) if scope.symbolic => out.push_str(symbolic::RELEASE),
            Segment::Ref(reference) => {
                let value = resolve(reference, scope)?;
                if scope.symbolic {
                    out.push_str(&symbolic::literal(&value));
                } else {
                    out.push_str(&value);
                }
            }
        }
    }
    Ok(out)
}

fn resolve(reference: &Reference, scope: &Scope<'_>) -> Result<String, (String, String)> {
    let machine = scope.machine;
    match reference {
        Reference::MachineName => Ok(machine.to_string()),
        Reference::MachineLabel(label) => scope.info.labels.get(label).cloned().ok_or_else(|| {
            (
                format!("machine `{machine}` has no label `{label}`"),
                format!("add `labels: {{ {label}: … }}` to machine `{machine}`"),
            )
        }),
        Reference::MachineAddress => {
            let address = &scope.info.address;
            address
                .get("private")
                .or_else(|| address.get("public"))
                .cloned()
                .ok_or_else(|| {
                    (
                        format!("machine `{machine}` declares no address"),
                        format!("add `address: {{ private: … }}` to machine `{machine}`"),
                    )
                })
        }
        Reference::AppHost(app) => endpoint(app, scope).map(|_| "127.0.0.1".to_owned()),
        Reference::AppPort(app, port) => {
            let ports = endpoint(app, scope)?;
            ports
                .get(port)
                .map(ToString::to_string)
                .ok_or_else(|| no_port(app, machine))
        }
        Reference::AppUrl(app) => {
            let ports = endpoint(app, scope)?;
            let http = ports
                .iter()
                .find(|(name, _)| name.as_str() == "http")
                .or_else(|| ports.iter().next());
            let (_, port) = http.ok_or_else(|| no_port(app, machine))?;
            Ok(format!("http://127.0.0.1:{port}"))
        }
        Reference::ServiceUrl(service)
        | Reference::ServiceHost(service)
        | Reference::ServicePort(service)
        | Reference::ServiceUser(service)
        | Reference::ServiceDatabase(service)
        | Reference::ServicePassword(service) => Err((
            format!("service `{service}` has no address yet"),
            "write the address out".to_owned(),
        )),
        Reference::Release => Err((
            "`${release}` has no value here".to_owned(),
            "use it in an app's `env`, and read the variable".to_owned(),
        )),
        Reference::Commit => Ok(scope
            .commit
            .map_or_else(|| "uncommitted".to_owned(), |c| c.id.clone())),
    }
}

fn no_port(app: &OwnerName, machine: &MachineName) -> (String, String) {
    (
        format!("app `{app}` has no such port on machine `{machine}`"),
        format!("add `ports: {{ http: auto }}` to app `{app}`"),
    )
}

/// The ports of an app as they are reached from this machine. Ports are published on loopback, so the app must
/// run on the same machine.
fn endpoint<'a>(
    app: &OwnerName,
    scope: &Scope<'a>,
) -> Result<&'a BTreeMap<PortName, u16>, (String, String)> {
    let machine = scope.machine;
    let everywhere = scope.endpoints.get(app);
    if let Some(ports) = everywhere.and_then(|e| e.get(machine)) {
        return Ok(ports);
    }
    let elsewhere = everywhere.and_then(|e| e.keys().next());
    Err(match elsewhere {
        Some(other) => (
            format!(
                "app `{app}` runs on machine `{other}` and publishes its ports on 127.0.0.1 there, \
                 which machine `{machine}` cannot reach"
            ),
            "run both on the same machine, or give the address in `vars`".to_owned(),
        ),
        None => no_port(app, machine),
    })
}
