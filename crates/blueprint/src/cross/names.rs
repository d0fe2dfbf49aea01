//! Names of other documents outside texts: services that are used, apps that are notified, networks, volumes, former
//! names.

use std::collections::BTreeMap;

use plumb_model::OwnerName;

use super::{All, listed};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, Diagnostics, Spot, quote};
use crate::nearest::nearest;
use crate::schema::Kind;

/// Checks what an owner names.
pub(super) fn check(all: &All<'_>, at: usize, out: &mut Diagnostics) {
    let owner = &all.owners[at];
    for (kind, names) in [
        (Kind::Service, &owner.services),
        (Kind::App, &owner.notify),
        (Kind::Network, &owner.networks),
    ] {
        for (name, spot) in names {
            let found = is_a(all, kind, name, spot, out);
            if let (Some(place), Kind::Network) = (found, kind) {
                is_there(all, at, name, spot, place, out);
            }
        }
    }
    for (name, spot) in &owner.volumes {
        // A name that is no document's is a volume of the app's own.
        let Some((kind, place)) = all.known.owners.get(name) else {
            continue;
        };
        if kind == Kind::Volume.as_str()
            && let Ok(name) = OwnerName::new(name)
        {
            is_there(all, at, &name, spot, place, out);
        }
    }
}

/// The place of a document of a kind, or an error.
pub(super) fn is_a<'a>(
    all: &All<'a>,
    kind: Kind,
    name: &OwnerName,
    spot: &Spot,
    out: &mut Diagnostics,
) -> Option<&'a Spot> {
    let word = kind.as_str();
    match all.known.owners.get(name.as_str()) {
        Some((found, place)) if found == word => Some(place),
        Some((found, place)) => {
            let what = match kind {
                Kind::App => "only an App has an address of its own",
                Kind::Service => "only a Service can be used in this way",
                _ => "name one of the right kind",
            };
            out.push(
                Diagnostic::error(
                    Code::UnknownReference,
                    format!(
                        "{} is no {word} but {}",
                        quote(name.as_str()),
                        article(found)
                    ),
                )
                .at(spot, "referred to here")
                .at(place, "it is here")
                .hint(what),
            );
            None
        }
        None => {
            if all.known.owners_incomplete || all.known.possible.contains(name.as_str()) {
                return None;
            }
            let names = || {
                let all = all.known.owners.iter();
                all.filter(|(_, (found, _))| found == word)
                    .map(|(name, _)| name.as_str())
            };
            let hint = match nearest(name.as_str(), names()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if names().next().is_none() => {
                    format!("there is none yet: add a document `kind: {word}` with `name: {name}`")
                }
                None => format!("there is {}", listed(names())),
            };
            out.push(
                Diagnostic::error(
                    Code::UnknownReference,
                    format!("there is no {word} {}", quote(name.as_str())),
                )
                .here(spot)
                .hint(hint),
            );
            None
        }
    }
}

fn article(kind: &str) -> String {
    match kind {
        "App" => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}

/// A Network or Volume must be wherever an app that uses it goes.
fn is_there(
    all: &All<'_>,
    at: usize,
    name: &OwnerName,
    spot: &Spot,
    place: &Spot,
    out: &mut Diagnostics,
) {
    let Some(shared) = all.by_name.get(name).copied() else {
        return;
    };
    if all.owners[shared].selected.is_none() || !all.machines.complete {
        return;
    }
    let there = &all.places[shared].on;
    let lacking = all.places[at]
        .on
        .iter()
        .find(|machine| there.binary_search(machine).is_err());
    if let Some(machine) = lacking {
        let word = all.owners[shared].kind.as_str();
        out.push(
            Diagnostic::error(
                Code::MachineLacks,
                format!(
                    "the {word} {} is not on the machine {}, and {} goes there",
                    quote(name.as_str()),
                    quote(machine.as_str()),
                    quote(all.owners[at].name.as_str())
                ),
            )
            .at(spot, "used here")
            .at(place, format!("the {word} is here"))
            .hint("let its `machines` be those of the app, or more"),
        );
    }
}

/// Former names: nobody may have one now, and no two may have had the same.
pub(super) fn former(all: &All<'_>, out: &mut Diagnostics) {
    let mut claimed: BTreeMap<&OwnerName, (&OwnerName, &Spot)> = BTreeMap::new();
    for owner in all.owners {
        let Some((former, spot)) = &owner.renamed_from else {
            continue;
        };
        let taken = all.known.owners.get(former.as_str());
        let problem = if *former == owner.name {
            Diagnostic::error(Code::FormerNameTaken, "this is the name that it has now")
                .here(spot)
                .hint("remove `renamed_from`")
        } else if let Some((kind, place)) = taken {
            Diagnostic::error(
                Code::FormerNameTaken,
                format!(
                    "{} cannot have been {}, which is still the name of {}",
                    quote(owner.name.as_str()),
                    quote(former.as_str()),
                    article(kind)
                ),
            )
            .at(spot, "renamed here")
            .at(place, "still here")
            .hint("remove one of the two; to swap names, rename in two steps")
        } else if let Some((other, first)) = claimed.get(former) {
            Diagnostic::error(
                Code::FormerNameTaken,
                format!(
                    "{} and {} cannot both have been {}",
                    quote(other.as_str()),
                    quote(owner.name.as_str()),
                    quote(former.as_str())
                ),
            )
            .at(spot, "renamed here")
            .at(first, "and here")
            .hint("remove one of the two")
        } else {
            claimed.insert(former, (&owner.name, spot));
            continue;
        };
        out.push(problem);
    }
}
