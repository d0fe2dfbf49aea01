//! What two documents claim at once on one machine: a port, a path, a route.

use std::collections::{BTreeMap, HashMap};

use plumb_model::MachineName;

use super::All;
use crate::code::Code;
use crate::convert::app::FixedPort;
use crate::diagnostic::{Diagnostic, Diagnostics, Spot, quote};

/// Checks all claims.
pub(super) fn check(all: &All<'_>, out: &mut Diagnostics) {
    ports(all, out);
    paths(all, out);
    routes(all, out);
}

/// A machine that is in both lists, which are sorted.
fn common<'a>(a: &[&'a MachineName], b: &[&'a MachineName]) -> Option<&'a MachineName> {
    let (few, many) = if a.len() < b.len() { (a, b) } else { (b, a) };
    few.iter()
        .find(|machine| many.binary_search(machine).is_ok())
        .copied()
}

/// One host and path, twice on one web server.
fn routes(all: &All<'_>, out: &mut Diagnostics) {
    let mut claims: HashMap<(&str, &str), Vec<(usize, &Spot)>> = HashMap::new();
    for (at, owner) in all.owners.iter().enumerate() {
        for (route, spot) in &owner.routes {
            let seen = claims.entry((&route.host, &route.path)).or_default();
            let clash = seen.iter().find_map(|(first, first_spot)| {
                let machine = common(&all.places[*first].ingress, &all.places[at].ingress)?;
                Some((machine, *first, *first_spot))
            });
            if let Some((machine, first, first_spot)) = clash {
                let shown = match route.path.as_str() {
                    "/" => quote(&route.host),
                    path => quote(&format!("{}{path}", route.host)),
                };
                out.push(
                    Diagnostic::error(
                        Code::RouteClash,
                        format!(
                            "the route {shown} is claimed twice on the machine {}",
                            quote(machine.as_str())
                        ),
                    )
                    .at(spot, format!("by {}", quote(owner.name.as_str())))
                    .at(
                        first_spot,
                        format!("and by {}", quote(all.owners[first].name.as_str())),
                    )
                    .hint("give one of them another host or path"),
                );
            }
            seen.push((at, spot));
        }
    }
}

/// One fixed port, twice on one machine.
fn ports(all: &All<'_>, out: &mut Diagnostics) {
    let (owners, complete) = (all.owners, all.machines.complete);
    let mut claims: BTreeMap<(u16, bool), Vec<(usize, &Spot)>> = BTreeMap::new();
    for (at, owner) in owners.iter().enumerate() {
        let machines = all.places[at].on.len();
        for FixedPort {
            number: port,
            udp,
            spot,
            replicas,
        } in &owner.fixed
        {
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
                claims.entry((*port, *udp)).or_default().push((at, spot));
            }
        }
    }
    for ((port, _), claims) in claims.iter().filter(|(_, c)| c.len() > 1) {
        let mut taken: HashMap<&MachineName, (usize, &Spot)> = HashMap::new();
        for (at, spot) in claims {
            let mut clash = None;
            for machine in &all.places[*at].on {
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
fn paths(all: &All<'_>, out: &mut Diagnostics) {
    let (owners, places) = (all.owners, all.places);
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
        let machine = common(&places[a].on, &places[b].on)?;
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
