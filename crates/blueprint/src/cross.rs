//! What only shows when all documents lie side by side: unknown machines and references, and things that two
//! of them claim at once. Every message shows both places.
//!
//! It is certain of what it says: where a document could not be read in full, what depends on the missing
//! part is not complained about, and which machine an app lands on is left to the planner where it has a choice.

use std::collections::{BTreeMap, HashMap};

use plumb_model::state::MachineInfo;
use plumb_model::{MachineName, OwnerName, PortName};

use crate::code::Code;
use crate::convert::{Selected, Use};
use crate::diagnostic::{Diagnostic, Diagnostics, Spot, alternatives, quote};
use crate::nearest::nearest;
use crate::set::{Reference, Selector};

/// Names longer than the others are listed in a hint only up to here.
const LISTED: usize = 8;

/// The names that exist, those of documents that are otherwise wrong included.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub machines: BTreeMap<String, Spot>,
    /// Apps, Services and Setups: the kind, and the place.
    pub owners: BTreeMap<String, (String, Spot)>,
    /// Names of documents whose kind is not known: each may be a machine's or an owner's.
    pub possible: std::collections::BTreeSet<String>,
    /// A machine could not even be read so far as to know its name: an unknown name may be its.
    pub machines_incomplete: bool,
    /// The same of an owner.
    pub owners_incomplete: bool,
}

impl Known {
    /// Something is there of which nothing is known.
    pub fn incomplete(&mut self) {
        self.machines_incomplete = true;
        self.owners_incomplete = true;
    }

    /// Nothing is missing.
    pub fn complete(&self) -> bool {
        !self.machines_incomplete && !self.owners_incomplete && self.possible.is_empty()
    }
}

/// An App or a Setup, as far as this module is concerned.
#[derive(Debug)]
pub(crate) struct Owner {
    pub name: OwnerName,
    pub selected: Option<Selected>,
    pub uses: Vec<Use>,
    /// Fixed ports: the number, its place, and how many instances there are over all machines.
    pub fixed: Vec<(u16, Spot, Option<u32>)>,
    /// Paths: whether it is a file, and its place.
    pub claims: Vec<(String, bool, Spot)>,
    /// The names of an app's ports; none if they could not all be read, or for a Setup.
    pub ports: Option<Vec<PortName>>,
    pub is_app: bool,
}

/// All machines that could be read, and whether those are all.
#[derive(Debug, Default)]
pub(crate) struct Machines {
    pub infos: BTreeMap<MachineName, MachineInfo>,
    pub complete: bool,
}

/// Checks everything.
pub(crate) fn check(known: &Known, machines: &Machines, owners: &[Owner], out: &mut Diagnostics) {
    let mut selections = Selections {
        machines,
        cache: BTreeMap::new(),
    };
    let selected: Vec<Vec<&MachineName>> = owners
        .iter()
        .map(|owner| {
            owner
                .selected
                .as_ref()
                .map(|s| selections.of(&s.selector))
                .unwrap_or_default()
        })
        .collect();
    for (owner, on) in owners.iter().zip(&selected) {
        selectors(known, machines, owner, on, out);
    }
    let apps: HashMap<&OwnerName, &Owner> = owners
        .iter()
        .filter(|o| o.is_app)
        .map(|o| (&o.name, o))
        .collect();
    for (owner, on) in owners.iter().zip(&selected) {
        references(known, machines, &apps, owner, on, out);
    }
    ports(owners, &selected, machines.complete, out);
    paths(owners, &selected, out);
}

/// Which machines a selector means, worked out once for each selector.
struct Selections<'a> {
    machines: &'a Machines,
    cache: BTreeMap<Selector, Vec<&'a MachineName>>,
}

impl<'a> Selections<'a> {
    fn of(&mut self, selector: &Selector) -> Vec<&'a MachineName> {
        if let Some(found) = self.cache.get(selector) {
            return found.clone();
        }
        let infos = &self.machines.infos;
        let found: Vec<&MachineName> = match selector {
            Selector::Names(names) => names
                .iter()
                .filter_map(|n| infos.get_key_value(n))
                .map(|(n, _)| n)
                .collect(),
            other => infos
                .iter()
                .filter(|(n, i)| other.matches(n, i))
                .map(|(n, _)| n)
                .collect(),
        };
        self.cache.insert(selector.clone(), found.clone());
        found
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut words: Vec<String> = names.take(LISTED + 1).map(quote).collect();
    if words.len() > LISTED {
        words[LISTED] = "others".to_owned();
    }
    alternatives(&words)
}

fn selectors(
    known: &Known,
    machines: &Machines,
    owner: &Owner,
    on: &[&MachineName],
    out: &mut Diagnostics,
) {
    let Some(selected) = &owner.selected else {
        return;
    };
    for (name, spot) in &selected.named {
        let name_text = name.as_str();
        if known.machines.contains_key(name_text)
            || known.possible.contains(name_text)
            || known.machines_incomplete
        {
            continue;
        }
        let names = || known.machines.keys().map(String::as_str);
        let hint = match nearest(name.as_str(), names()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if name.as_str() == "all" => {
                "for every machine write `machines: all`, without a list".to_owned()
            }
            None if known.machines.is_empty() => format!(
                "there is no machine yet: add a document `kind: Machine` with `name: {name}`"
            ),
            None => format!("there is {}", listed(names())),
        };
        out.push(
            Diagnostic::error(
                Code::UnknownMachine,
                format!("there is no machine {}", quote(name.as_str())),
            )
            .here(spot)
            .hint(hint),
        );
    }
    if !on.is_empty() || !machines.complete {
        return;
    }
    match &selected.selector {
        Selector::Names(_) => {}
        Selector::All => out.push(
            Diagnostic::error(
                Code::NothingSelected,
                "there is no machine in this workspace",
            )
            .here(&selected.spot)
            .hint("add a document `kind: Machine` with `name: web-1`"),
        ),
        Selector::Labels(labels) => {
            let shown: Vec<String> = labels
                .iter()
                .map(|(k, v)| quote(&format!("{k}: {v}")))
                .collect();
            let all = machines.infos.values().flat_map(|i| &i.labels);
            let seen: std::collections::BTreeSet<String> =
                all.map(|(k, v)| format!("{k}: {v}")).collect();
            let meant = labels.iter().find_map(|(k, v)| {
                let label = format!("{k}: {v}");
                (!seen.contains(&label))
                    .then(|| nearest(&label, seen.iter().map(String::as_str)))
                    .flatten()
            });
            let hint = match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if seen.is_empty() => {
                    "no machine has a label; add `labels: { role: web }` to one".to_owned()
                }
                None => format!("there is {}", listed(seen.iter().map(String::as_str))),
            };
            out.push(
                Diagnostic::error(
                    Code::NothingSelected,
                    format!("no machine has {}", shown.join(" and ")),
                )
                .here(&selected.spot)
                .hint(hint),
            );
        }
    }
}

fn references(
    known: &Known,
    machines: &Machines,
    apps: &HashMap<&OwnerName, &Owner>,
    owner: &Owner,
    on: &[&MachineName],
    out: &mut Diagnostics,
) {
    for Use { reference, spot } in &owner.uses {
        match reference {
            Reference::MachineName | Reference::Release | Reference::Commit => {}
            // The grammar of references does not let these through yet.
            Reference::ServiceUrl(_)
            | Reference::ServiceHost(_)
            | Reference::ServicePort(_)
            | Reference::ServiceUser(_)
            | Reference::ServiceDatabase(_)
            | Reference::ServicePassword(_) => {}
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
                let Some((kind, place)) = known.owners.get(app.as_str()) else {
                    unknown_app(known, app, spot, out);
                    continue;
                };
                if kind != "App" {
                    out.push(
                        Diagnostic::error(
                            Code::UnknownReference,
                            format!("{} is no App but a {kind}", quote(app.as_str())),
                        )
                        .at(spot, "referred to here")
                        .at(place, "it is here")
                        .hint("only an App has an address"),
                    );
                    continue;
                }
                let Some(ports) = apps.get(app).and_then(|a| a.ports.as_ref()) else {
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

fn unknown_app(known: &Known, app: &OwnerName, spot: &Spot, out: &mut Diagnostics) {
    if known.owners_incomplete || known.possible.contains(app.as_str()) {
        return;
    }
    let apps = || {
        known
            .owners
            .iter()
            .filter(|(_, (kind, _))| kind == "App")
            .map(|(name, _)| name.as_str())
    };
    let hint = match nearest(app.as_str(), apps()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if apps().next().is_none() => "there is no App at all".to_owned(),
        None => format!("there is {}", listed(apps())),
    };
    out.push(
        Diagnostic::error(
            Code::UnknownReference,
            format!("there is no App {}", quote(app.as_str())),
        )
        .here(spot)
        .hint(hint),
    );
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

/// One fixed port, twice on one machine.
fn ports(owners: &[Owner], selected: &[Vec<&MachineName>], complete: bool, out: &mut Diagnostics) {
    let mut claims: BTreeMap<u16, Vec<(usize, &Spot)>> = BTreeMap::new();
    for (at, owner) in owners.iter().enumerate() {
        let machines = selected[at].len();
        for (port, spot, replicas) in &owner.fixed {
            let instances = replicas.map_or(machines, |n| n as usize);
            if instances > machines && machines > 0 && complete {
                out.push(
                    Diagnostic::error(
                        Code::PortClash,
                        format!("port {port} is claimed twice on one machine: {} has {instances} instances and {machines} machine{}", quote(owner.name.as_str()), if machines == 1 { "" } else { "s" }),
                    )
                    .here(spot)
                    .hint("write `auto` for the port, or fewer `replicas`"),
                );
            }
            // With fewer instances than machines the planner has a choice, and may well find a place.
            if instances >= machines {
                claims.entry(*port).or_default().push((at, spot));
            }
        }
    }
    for (port, claims) in claims.iter().filter(|(_, c)| c.len() > 1) {
        let mut taken: HashMap<&MachineName, (usize, &Spot)> = HashMap::new();
        for (at, spot) in claims {
            let mut clash = None;
            for machine in &selected[*at] {
                match taken.get(*machine) {
                    Some(first) => clash = clash.or(Some((*machine, *first))),
                    None => {
                        taken.insert(machine, (*at, spot));
                    }
                }
            }
            if let Some((machine, (first, first_spot))) = clash {
                let (one, other) = (owners[first].name.as_str(), owners[*at].name.as_str());
                out.push(
                    Diagnostic::error(
                        Code::PortClash,
                        format!(
                            "port {port} is claimed twice on the machine {}",
                            quote(machine.as_str())
                        ),
                    )
                    .at(spot, format!("by {}", quote(other)))
                    .at(first_spot, format!("and by {}", quote(one)))
                    .hint("give one of them another number, or write `auto` and let plumb choose"),
                );
            }
        }
    }
}

/// One path, twice on one machine, or below something that is a file there.
fn paths(owners: &[Owner], selected: &[Vec<&MachineName>], out: &mut Diagnostics) {
    let mut claims: BTreeMap<&str, Vec<(usize, bool, &Spot)>> = BTreeMap::new();
    for (at, owner) in owners.iter().enumerate() {
        for (path, is_file, spot) in &owner.claims {
            claims.entry(path).or_default().push((at, *is_file, spot));
        }
    }
    // Where two owners meet: a machine, or themselves.
    let shared = |a: usize, b: usize| -> Option<String> {
        if a == b {
            return Some(format!("by {}", quote(owners[a].name.as_str())));
        }
        let (few, many) = if selected[a].len() < selected[b].len() {
            (a, b)
        } else {
            (b, a)
        };
        // Both are sorted.
        let machine = selected[few]
            .iter()
            .find(|m| selected[many].binary_search(m).is_ok())?;
        Some(format!("on the machine {}", quote(machine.as_str())))
    };
    for (path, all) in &claims {
        for (second, (at, _, spot)) in all.iter().enumerate().skip(1) {
            let clash = all[..second].iter().find_map(|(first, _, first_spot)| {
                Some((shared(*first, *at)?, *first, *first_spot))
            });
            if let Some((place, first, first_spot)) = clash {
                out.push(
                    Diagnostic::error(
                        Code::PathClash,
                        format!("{} is claimed twice {place}", quote(path)),
                    )
                    .at(spot, format!("by {}", quote(owners[*at].name.as_str())))
                    .at(
                        first_spot,
                        format!("and by {}", quote(owners[first].name.as_str())),
                    )
                    .hint("keep it in one of them"),
                );
            }
        }
        let mut above = *path;
        while let Some((parent, _)) = above.rsplit_once('/') {
            above = parent;
            let files = claims
                .get(parent)
                .into_iter()
                .flatten()
                .filter(|(_, is_file, _)| *is_file);
            for (file, _, file_spot) in files {
                for (at, _, spot) in all {
                    let Some(place) = shared(*file, *at) else {
                        continue;
                    };
                    out.push(
                        Diagnostic::error(
                            Code::PathClash,
                            format!("{} lies below a file {place}", quote(path)),
                        )
                        .at(spot, "this path")
                        .at(file_spot, "this is a file")
                        .hint("only a directory can hold others"),
                    );
                }
            }
        }
    }
}
