//! Secrets that what comes or changes needs, and that nobody has set.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::{Address, ResourceSpec, SecretName, UnsetSecret};

use super::Sides;

/// Finds them, sorted by name. What stays as it is has what it needs already, or has done without.
pub(super) fn unset(sides: &Sides<'_>) -> Vec<UnsetSecret> {
    let mut missing: BTreeMap<(SecretName, Option<u64>), BTreeSet<Address>> = BTreeMap::new();
    for resource in sides.after.iter() {
        let address = &resource.address;
        // The password of a service is made when the service is: nobody sets it.
        if matches!(resource.spec, ResourceSpec::Service(_)) {
            continue;
        }
        let unheld = resource.spec.secrets().into_iter();
        let mut unheld = unheld
            .filter(|secret| !sides.input.secrets.holds(secret))
            .peekable();
        if unheld.peek().is_none() || sides.old(address) == Some(resource) {
            continue;
        }
        for secret in unheld {
            missing
                .entry((secret.name.clone(), secret.version))
                .or_default()
                .insert(address.clone());
        }
    }
    missing
        .into_iter()
        .map(|((secret, version), needed_by)| UnsetSecret {
            secret,
            version,
            origin: needed_by
                .iter()
                .find_map(|address| sides.desired.origin(address).cloned()),
            needed_by,
        })
        .collect()
}
