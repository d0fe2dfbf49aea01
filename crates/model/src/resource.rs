//! One resource as it is assigned to a machine.

use serde::{Deserialize, Serialize};

use crate::address::{Address, Addresses};
use crate::spec::ResourceSpec;

/// What the agent does about a difference that somebody else made.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum DriftPolicy {
    /// Put it right.
    #[default]
    Enforce,
    /// Say so, and leave it.
    Report,
    /// Leave it.
    Ignore,
}

/// So many addresses are kept beyond the last one. A machine that was away for longer than so many renames finds the
/// resource no more: what it still holds is then removed and made anew.
pub const MAX_WAS_BEFORE: usize = 8;

/// A resource: what should be at an address, and what must be there first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Where.
    pub address: Address,
    /// What must have converged before this is acted on. Acyclic; all on the same machine.
    pub after: Addresses,
    /// What to do about drift.
    pub drift: DriftPolicy,
    /// The address that it had before its owner was renamed. An agent that still holds it there moves it here as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Address>,
    /// The addresses that it had before [`was`](Self::was), newest first, at most [`MAX_WAS_BEFORE`]: an agent that was away while
    /// its owner was renamed twice still holds it at one of these. [`renamed_from`](Self::renamed_from) fills both in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub was_before: Vec<Address>,
    /// Something that Plumb did not make may be taken over here: a plan that showed what would be lost was approved. The
    /// original is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
    /// What.
    pub spec: ResourceSpec,
}

impl Resource {
    /// A resource that waits for nothing, has always been at its address and adopts nothing.
    #[must_use]
    pub fn new(address: Address, drift: DriftPolicy, spec: ResourceSpec) -> Self {
        Self {
            address,
            after: Addresses::new(),
            drift,
            was: None,
            was_before: Vec::new(),
            adopt: false,
            spec,
        }
    }

    /// Notes that this resource is `old` under another address, and which addresses `old` itself had before.
    pub fn renamed_from(&mut self, old: &Self) {
        let mut chain: Vec<Address> = Vec::new();
        for address in old.addresses_before().iter().copied() {
            if *address != self.address && !chain.contains(address) {
                chain.push(address.clone());
            }
        }
        chain.truncate(MAX_WAS_BEFORE);
        // Renamed away and back again: the address in between is still the one before.
        self.was = (old.address != self.address).then(|| old.address.clone());
        if self.was.is_none() {
            chain = old.was_before.clone();
            self.was.clone_from(&old.was);
        }
        self.was_before = chain;
    }

    /// Every address that it had before, newest first, on its own machine: where an agent may still hold it.
    #[must_use]
    pub fn addresses_before(&self) -> Vec<&Address> {
        self.was
            .iter()
            .chain(&self.was_before)
            .filter(|old| old.machine == self.address.machine && **old != self.address)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{DirectorySpec, Mode};

    fn at(owner: &str) -> Resource {
        let spec = DirectorySpec {
            path: "/d".into(),
            mode: Mode(0o755),
            owner: None,
            group: None,
        };
        let address = format!("m/{owner}/directory//d").parse().unwrap();
        Resource::new(address, DriftPolicy::Enforce, ResourceSpec::Directory(spec))
    }

    fn owners(resource: &Resource) -> Vec<String> {
        let before = resource.addresses_before();
        before.iter().map(|a| a.owner.to_string()).collect()
    }

    #[test]
    fn a_resource_that_is_renamed_again_and_again_knows_its_addresses_newest_first() {
        let mut held = at("n0");
        assert_eq!(owners(&held), [""; 0]);
        for n in 1..20 {
            let mut next = at(&format!("n{n}"));
            next.renamed_from(&held);
            held = next;
        }
        assert_eq!(owners(&held).len(), MAX_WAS_BEFORE + 1);
        assert_eq!(owners(&held)[..3], ["n18", "n17", "n16"]);
    }

    #[test]
    fn renamed_back_it_does_not_name_itself_and_unchanged_it_keeps_what_it_was() {
        let a = at("a");
        let mut b = at("b");
        b.renamed_from(&a);
        let mut back = at("a");
        back.renamed_from(&b);
        assert_eq!(owners(&back), ["b"]);
        let mut same = at("b");
        same.renamed_from(&b);
        assert_eq!(same, b);
    }

    #[test]
    fn what_was_never_renamed_is_written_as_before() {
        let text = serde_json::to_string(&at("a")).unwrap();
        assert!(!text.contains("was") && !text.contains("adopt"), "{text}");
    }
}
