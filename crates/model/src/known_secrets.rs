//! What is known of secrets without knowing them: which are set, in which versions, with a keyed hash of each; and which
//! a plan needs and are not set. Never a value.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::hash::Hash;
use crate::name::SecretName;
use crate::plan::Origin;
use crate::spec_parts::SecretRef;

/// The secrets that are set. The default is that nobody was asked, as where no control plane is at hand: then none is
/// looked up, and none is missed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KnownSecrets(pub Option<BTreeMap<SecretName, KnownSecret>>);

/// One secret that is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownSecret {
    /// The newest version, which whatever is planned from blueprints gets.
    pub current: u64,
    /// Every version that is kept, with the keyed hash of its value.
    pub versions: BTreeMap<u64, Hash>,
}

impl KnownSecrets {
    /// That nobody was asked.
    pub const UNASKED: &'static Self = &Self(None);

    /// A secret at its newest version; without one if it is not set, or nobody was asked.
    #[must_use]
    pub fn newest(&self, name: &SecretName) -> SecretRef {
        let known = self.0.as_ref().and_then(|all| all.get(name));
        SecretRef {
            name: name.clone(),
            version: known.map(|known| known.current),
            digest: known.and_then(|known| known.versions.get(&known.current).copied()),
        }
    }

    /// Whether a value can be had for a reference. True where nobody was asked.
    #[must_use]
    pub fn holds(&self, secret: &SecretRef) -> bool {
        let Some(all) = &self.0 else { return true };
        let known = all.get(&secret.name);
        secret
            .version
            .zip(known)
            .is_some_and(|(version, known)| known.versions.contains_key(&version))
    }
}

/// A secret that something needs and nobody has set. A plan with one of these can be read, and not applied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct UnsetSecret {
    /// Its name.
    pub secret: SecretName,
    /// The version that is no longer kept, where an earlier release asks for one; none where there is none at all.
    pub version: Option<u64>,
    /// What needs it.
    pub needed_by: BTreeSet<Address>,
    /// Where in the blueprints the first of them comes from.
    pub origin: Option<Origin>,
}

impl UnsetSecret {
    /// What is missing, as a sentence fragment.
    #[must_use]
    pub fn what(&self) -> String {
        let owners: BTreeSet<&str> = self.needed_by.iter().map(|a| a.owner.as_str()).collect();
        let owners: Vec<String> = owners.into_iter().map(|o| format!("`{o}`")).collect();
        let owners = owners.join(", ");
        match self.version {
            None => format!(
                "the secret `{}`, which {owners} needs, is not set",
                self.secret
            ),
            Some(version) => format!(
                "version {version} of the secret `{}`, which {owners} needs, is no longer kept",
                self.secret
            ),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self.version {
            None => format!("set it with `plumb secret set {}`", self.secret),
            Some(_) => format!(
                "apply the blueprints instead, which use the newest version, or go back to a newer release; `plumb secret list` shows what there is of `{}`",
                self.secret
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_that_is_kept_can_be_had_and_nobody_is_told_off_where_nobody_was_asked() {
        let name = SecretName::new("KEY").unwrap();
        let known = KnownSecret {
            current: 3,
            versions: BTreeMap::from([(2, Hash::of(b"2")), (3, Hash::of(b"3"))]),
        };
        let asked = KnownSecrets(Some(BTreeMap::from([(name.clone(), known)])));
        let at = |version| SecretRef {
            name: name.clone(),
            version,
            digest: None,
        };
        for (version, held) in [
            (None, false),
            (Some(1), false),
            (Some(2), true),
            (Some(3), true),
        ] {
            assert_eq!(asked.holds(&at(version)), held, "{version:?}");
            assert!(KnownSecrets::UNASKED.holds(&at(version)));
        }
        assert_eq!(asked.newest(&name).version, Some(3));
        assert_eq!(asked.newest(&name).digest, Some(Hash::of(b"3")));
        let other = SecretName::new("OTHER").unwrap();
        assert_eq!(asked.newest(&other), SecretRef::unresolved(other));
    }
}
