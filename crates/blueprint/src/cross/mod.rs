//! What only shows when all documents lie side by side: unknown machines and references, and things that two
//! of them claim at once. Every message shows both places.
//!
//! It is certain of what it says: where a document could not be read in full, what depends on the missing
//! part is not complained about, and which machine an app lands on is left to the planner where it has a choice.

mod claims;
mod names;
mod references;
mod selectors;

use std::collections::{BTreeMap, HashMap};

use plumb_model::state::MachineInfo;
use plumb_model::{MachineName, OwnerName, PortName};

use crate::convert::app::FixedPort;
use crate::convert::{Selected, Use};
use crate::diagnostic::{Diagnostics, Spot, alternatives, quote};
use crate::schema::Kind;
use crate::set::{RouteDecl, Selector};

/// Names longer than the others are listed in a hint only up to here.
const LISTED: usize = 8;

/// The names that exist, those of documents that are otherwise wrong included.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub machines: BTreeMap<String, Spot>,
    /// Apps, Setups, Services, Volumes and Networks: the kind, and the place.
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

/// A document that owns resources, as far as this module is concerned.
#[derive(Debug)]
pub(crate) struct Owner {
    pub name: OwnerName,
    pub kind: Kind,
    pub selected: Option<Selected>,
    /// References in its texts.
    pub uses: Vec<Use>,
    /// Ports of the machine that it claims.
    pub fixed: Vec<FixedPort>,
    /// Paths: whether it is a file, and its place.
    pub claims: Vec<(String, bool, Spot)>,
    /// The names of an app's ports; none if they could not all be read.
    pub ports: Option<Vec<PortName>>,
    /// The Services that it uses.
    pub services: Vec<(OwnerName, Spot)>,
    /// The apps that it notifies.
    pub notify: Vec<(OwnerName, Spot)>,
    /// The Networks that it is in.
    pub networks: Vec<(OwnerName, Spot)>,
    /// The volumes that it mounts: those of documents, or its own.
    pub volumes: Vec<(String, Spot)>,
    /// What leads to it, and whose web server answers: none is where it runs.
    pub routes: Vec<(RouteDecl, Spot)>,
    pub ingress: Option<Selected>,
    /// The label that it is spread over.
    pub spread: Option<(String, Spot)>,
    pub renamed_from: Option<(OwnerName, Spot)>,
    /// The Compose file that it consists of.
    pub compose: Option<(String, Spot)>,
}

impl Owner {
    /// One that claims and names nothing yet.
    pub fn new(name: OwnerName, kind: Kind, selected: Option<Selected>) -> Self {
        Self {
            name,
            kind,
            selected,
            uses: Vec::new(),
            fixed: Vec::new(),
            claims: Vec::new(),
            ports: None,
            services: Vec::new(),
            notify: Vec::new(),
            networks: Vec::new(),
            volumes: Vec::new(),
            routes: Vec::new(),
            ingress: None,
            spread: None,
            renamed_from: None,
            compose: None,
        }
    }
}

/// All machines that could be read, and whether those are all.
#[derive(Debug, Default)]
pub(crate) struct Machines {
    pub infos: BTreeMap<MachineName, MachineInfo>,
    pub complete: bool,
}

/// Where an owner goes, and where its routes are answered.
struct Places<'a> {
    on: Vec<&'a MachineName>,
    ingress: Vec<&'a MachineName>,
}

/// Checks everything.
pub(crate) fn check(known: &Known, machines: &Machines, owners: &[Owner], out: &mut Diagnostics) {
    let mut selections = Selections {
        machines,
        cache: BTreeMap::new(),
    };
    let mut of = |selected: &Option<Selected>| {
        let selector = selected.as_ref().map(|s| &s.selector);
        selector.map(|s| selections.of(s)).unwrap_or_default()
    };
    let places: Vec<Places<'_>> = owners
        .iter()
        .map(|owner| {
            let on = of(&owner.selected);
            let ingress = match &owner.ingress {
                Some(_) => of(&owner.ingress),
                None if owner.routes.is_empty() => Vec::new(),
                None => on.clone(),
            };
            Places { on, ingress }
        })
        .collect();
    let by_name: HashMap<&OwnerName, usize> = owners
        .iter()
        .enumerate()
        .map(|(at, o)| (&o.name, at))
        .collect();
    let all = All {
        known,
        machines,
        owners,
        places: &places,
        by_name: &by_name,
    };
    for at in 0..owners.len() {
        selectors::check(&all, at, out);
        references::check(&all, at, out);
        names::check(&all, at, out);
    }
    names::former(&all, out);
    claims::check(&all, out);
}

/// Everything that is known when documents are compared.
struct All<'a> {
    known: &'a Known,
    machines: &'a Machines,
    owners: &'a [Owner],
    /// Of each owner.
    places: &'a [Places<'a>],
    by_name: &'a HashMap<&'a OwnerName, usize>,
}

impl All<'_> {
    fn owner(&self, name: &OwnerName) -> Option<&Owner> {
        self.by_name.get(name).map(|at| &self.owners[*at])
    }
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
