//! References in texts: to labels and addresses of machines, and to apps and services.

use plumb_model::{MachineName, OwnerName, PortName};

use super::{All, Known, Owner, listed};
use crate::code::Code;
use crate::convert::Use;
use crate::diagnostic::{Diagnostic, Diagnostics, Spot, quote};
use crate::nearest::nearest;
use crate::schema::Kind;
use crate::set::Reference;

/// Checks the references in the texts of an owner.
pub(super) fn check(all: &All<'_>, at: usize, out: &mut Diagnostics) {
    let (known, machines) = (all.known, all.machines);
    let (owner, on) = (&all.owners[at], &all.places[at].on);
    for Use { reference, spot } in &owner.uses {
        match reference {
            Reference::MachineName | Reference::Release | Reference::Commit => {}
            Reference::ServiceUrl(service)
            | Reference::ServiceHost(service)
            | Reference::ServicePort(service)
            | Reference::ServiceUser(service)
            | Reference::ServiceDatabase(service)
            | Reference::ServicePassword(service) => {
                super::names::is_a(all, Kind::Service, service, spot, out);
            }
            Reference::MachineLabel(label) => {
                let lacking = on
                    .iter()
                    .find(|name| !machines.infos[**name].labels.contains_key(label));
                if let Some(machine) = lacking {
                    let labels = machines.infos[*machine].labels.keys().map(String::as_str);
                    let hint = match nearest(label, labels) {
                        Some(meant) => format!("did you mean ${{machine.labels.{meant}}}?"),
                        None => format!("add it there: `labels: {{ {label}: … }}`"),
                    };
                    lacks(
                        known,
                        machine,
                        format!("no label {}", quote(label)),
                        spot,
                        hint,
                        owner,
                        out,
                    );
                }
            }
            Reference::MachineAddress => {
                let lacking = on
                    .iter()
                    .find(|name| machines.infos[**name].address.is_empty());
                if let Some(machine) = lacking {
                    lacks(
                        known,
                        machine,
                        "no address".to_owned(),
                        spot,
                        "add it there: `address: { private: 10.0.0.10 }`".to_owned(),
                        owner,
                        out,
                    );
                }
            }
            Reference::AppUrl(app) | Reference::AppHost(app) | Reference::AppPort(app, _) => {
                let Some(place) = super::names::is_a(all, Kind::App, app, spot, out) else {
                    continue;
                };
                let Some(ports) = all.owner(app).and_then(|a| a.ports.as_ref()) else {
                    continue;
                };
                app_port(reference, app, ports, spot, place, out);
            }
        }
    }
}

fn lacks(
    known: &Known,
    machine: &MachineName,
    what: String,
    spot: &Spot,
    hint: String,
    owner: &Owner,
    out: &mut Diagnostics,
) {
    let mut problem = Diagnostic::error(
        Code::MachineLacks,
        format!(
            "the machine {} has {what}, and {} goes there",
            quote(machine.as_str()),
            quote(owner.name.as_str())
        ),
    )
    .at(spot, "referred to here");
    if let Some(place) = known.machines.get(machine.as_str()) {
        problem = problem.at(place, "the machine is here");
    }
    out.push(problem.hint(hint));
}

fn app_port(
    reference: &Reference,
    app: &OwnerName,
    ports: &[PortName],
    spot: &Spot,
    place: &Spot,
    out: &mut Diagnostics,
) {
    let names = || ports.iter().map(PortName::as_str);
    let problem = match reference {
        Reference::AppPort(_, port) if !ports.contains(port) => {
            let hint = match nearest(port.as_str(), names()) {
                Some(meant) => format!("did you mean ${{app.{app}.ports.{meant}}}?"),
                None if ports.is_empty() => format!("add it there: `ports: {{ {port}: auto }}`"),
                None => format!("there is {}", listed(names())),
            };
            Diagnostic::error(
                Code::UnknownReference,
                format!(
                    "the App {} has no port {}",
                    quote(app.as_str()),
                    quote(port.as_str())
                ),
            )
            .at(spot, "referred to here")
            .at(place, "the app is here")
            .hint(hint)
        }
        Reference::AppUrl(_) if ports.is_empty() => Diagnostic::error(
            Code::UnknownReference,
            format!("the App {} has no port, and so no URL", quote(app.as_str())),
        )
        .at(spot, "referred to here")
        .at(place, "the app is here")
        .hint("add it there: `ports: { http: auto }`"),
        Reference::AppUrl(_) if ports.len() > 1 && !names().any(|n| n == "http") => {
            Diagnostic::error(
                Code::WhichPort,
                format!(
                    "the App {} has several ports and none is called `http`, so it has no one URL",
                    quote(app.as_str())
                ),
            )
            .at(spot, "referred to here")
            .at(place, "the app is here")
            .hint(format!(
                "write `http://${{app.{app}.host}}:${{app.{app}.ports.PORT}}`; there is {}",
                listed(names())
            ))
        }
        _ => return,
    };
    out.push(problem);
}
