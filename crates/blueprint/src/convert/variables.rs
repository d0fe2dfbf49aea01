//! The environment variables that Plumb hands in by itself, and those of the blueprint: no variable may come from two
//! sources, since one of them would be lost.

use std::collections::BTreeMap;

use plumb_model::injected::{port_variable, service_variable};
use plumb_model::{PortName, SecretForm};

use super::app::ReadApp;
use super::around::ReadSecret;
use super::process::{ReadPort, ReadProcess};
use super::tuning::Tuning;
use super::{Reader, Rendered};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, Spot, alternatives, quote};
use crate::events::join;
use crate::set::Publish;

/// What is injected for each service that is used.
const OF_SERVICE: [&str; 6] = ["URL", "HOST", "PORT", "USER", "PASSWORD", "NAME"];

/// Where a variable comes from.
struct Given {
    what: String,
    spot: Spot,
    /// Whether Plumb hands it in unasked, so that the blueprint has to choose another name.
    code: Code,
}

/// Checks all variables of an app. `defaults` are those of the manifest.
pub(crate) fn check(r: &mut Reader<'_, '_>, app: &ReadApp, defaults: &Tuning) {
    let shared = shared(r, app);
    let own_env = r.get(&r.root(), "env");
    // `env` of the app, which all its processes share, and of the manifest.
    let written = |r: &Reader<'_, '_>, variable: &str| -> Option<(String, Spot)> {
        if let Some(own) = own_env.and_then(|env| r.get(&env, variable)) {
            return Some((format!("`env` sets {variable}"), r.key_spot(&own)));
        }
        let spot = defaults.env_spots.get(variable)?;
        Some((
            format!("`env` of the manifest's defaults sets {variable}"),
            spot.clone(),
        ))
    };
    let units: Vec<Unit<'_>> = units(app);
    for unit in &units {
        let mut all = BTreeMap::new();
        ports(r, unit, &mut all);
        for (variable, given) in &shared {
            add(r, &mut all, variable, given);
        }
        if let Some((_, process)) = unit.process {
            // A process's own secret of the same variable is used in place of the app's.
            for (variable, secret) in &process.secrets {
                for (variable, given) in of_secret(variable, secret) {
                    if !app.secrets.contains_key(&variable) {
                        add(r, &mut all, &variable, &given);
                    }
                }
            }
        }
        for (variable, given) in &all {
            let own = unit.process.and_then(|(name, process)| {
                process.env.contains_key(variable).then(|| {
                    let at = format!("/processes/{name}/env");
                    let spot = r.document.key_spot(&join(&at, variable));
                    (format!("`env` sets {variable}"), spot)
                })
            });
            if let Some((what, spot)) = own.or_else(|| written(r, variable)) {
                clash(r, variable, &what, &spot, given);
            }
        }
    }
    if units.is_empty() {
        for (variable, given) in &shared {
            if let Some((what, spot)) = written(r, variable) {
                clash(r, variable, &what, &spot, given);
            }
        }
    }
}

/// What has ports and variables of its own: a process, or the app's container.
struct Unit<'a> {
    process: Option<(&'a str, &'a ReadProcess)>,
    ports: &'a BTreeMap<PortName, ReadPort>,
}

fn units(app: &ReadApp) -> Vec<Unit<'_>> {
    let processes = app.processes.iter().map(|(name, process)| Unit {
        process: Some((name.as_str(), process)),
        ports: &process.ports,
    });
    let container = app.container.iter().map(|container| Unit {
        process: None,
        ports: &container.ports,
    });
    processes.chain(container).collect()
}

/// The variables of the app's services and secrets.
fn shared(r: &mut Reader<'_, '_>, app: &ReadApp) -> Vec<(String, Given)> {
    let mut all = BTreeMap::new();
    for (service, spot) in &app.services {
        for what in OF_SERVICE {
            let given = Given {
                what: format!("`uses` hands it in for {}", quote(service.as_str())),
                spot: spot.clone(),
                code: Code::ReservedVariable,
            };
            add(r, &mut all, &service_variable(service, what), &given);
        }
    }
    for (variable, secret) in &app.secrets {
        for (variable, given) in of_secret(variable, secret) {
            add(r, &mut all, &variable, &given);
        }
    }
    all.into_iter().collect()
}

fn of_secret(variable: &str, secret: &ReadSecret) -> Vec<(String, Given)> {
    let spot = secret.spot.clone();
    let names = match secret.decl.form {
        SecretForm::Env => vec![variable.to_owned()],
        SecretForm::File => vec![format!("{variable}_FILE")],
    };
    let given = |variable: String| {
        let what = "it is a secret".to_owned();
        let (spot, code) = (spot.clone(), Code::VariableClash);
        (variable, Given { what, spot, code })
    };
    names.into_iter().map(given).collect()
}

fn ports(r: &mut Reader<'_, '_>, unit: &Unit<'_>, all: &mut BTreeMap<String, Given>) {
    let mut first: BTreeMap<String, &PortName> = BTreeMap::new();
    for (name, port) in unit.ports {
        let variable = port_variable(name);
        if let Some(other) = first.insert(variable.clone(), name) {
            let other_spot = &unit.ports[other].spot;
            r.out.push(
                Diagnostic::error(
                    Code::ReservedVariable,
                    format!(
                        "the ports {} and {} would both be handed in as {variable}",
                        quote(other.as_str()),
                        quote(name.as_str())
                    ),
                )
                .at(&port.spot, "this one")
                .at(other_spot, "and this one")
                .hint("rename one of them"),
            );
        }
        let given = |what: String| Given {
            what,
            spot: port.spot.clone(),
            code: Code::ReservedVariable,
        };
        let what = format!("it is handed in for the port {}", quote(name.as_str()));
        if unit.ports.len() == 1 {
            all.insert("PORT".to_owned(), given(what.clone()));
        }
        all.insert(variable, given(what));
        if unit.process.is_some() && port.publish != Publish::Loopback {
            let what = format!(
                "it is handed in as the address of the port {}",
                quote(name.as_str())
            );
            all.entry("HOST".to_owned()).or_insert_with(|| given(what));
        }
    }
}

/// Adds a variable, or says that it is there already.
fn add(r: &mut Reader<'_, '_>, all: &mut BTreeMap<String, Given>, variable: &str, given: &Given) {
    if let Some(first) = all.get(variable) {
        clash(r, variable, &given.what, &given.spot, first);
        return;
    }
    let given = Given {
        what: given.what.clone(),
        spot: given.spot.clone(),
        code: given.code,
    };
    all.insert(variable.to_owned(), given);
}

fn clash(r: &mut Reader<'_, '_>, variable: &str, what: &str, spot: &Spot, first: &Given) {
    let hint = match first.code {
        Code::ReservedVariable => format!("choose another name than {variable}: plumb sets it"),
        _ => "remove one of them".to_owned(),
    };
    r.out.push(
        Diagnostic::error(
            first.code,
            format!("{variable} has two sources: {what}, and {}", first.what),
        )
        .at(spot, "one is here")
        .at(&first.spot, "the other is here")
        .hint(hint),
    );
}

/// `$PORT` in a command of a process that has not exactly one port is empty, which is easily overlooked.
pub(crate) fn port_in_command(
    r: &mut Reader<'_, '_>,
    process: &ReadProcess,
    shared: &BTreeMap<String, Rendered>,
) {
    let Some((text, spot)) = &process.shell else {
        return;
    };
    let uses = text.match_indices("$PORT").any(|(at, word)| {
        let next = text[at + word.len()..].chars().next();
        !next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
    });
    let given = process.env.contains_key("PORT") || shared.contains_key("PORT");
    if !uses || given || process.ports.len() == 1 {
        return;
    }
    let names: Vec<String> = process
        .ports
        .keys()
        .map(|port| format!("${}", port_variable(port)))
        .collect();
    let hint = if names.is_empty() {
        "add `ports: { http: auto }`".to_owned()
    } else {
        format!("say which one: {}", alternatives(&names))
    };
    let have = if names.is_empty() {
        "none".to_owned()
    } else {
        names.len().to_string()
    };
    r.out.push(
        Diagnostic::warning(Code::PortNotSet, format!("this command uses $PORT, which is set where a process has exactly one port; this one has {have}"))
            .here(spot)
            .hint(hint),
    );
}
