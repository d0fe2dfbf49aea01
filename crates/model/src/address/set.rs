//! A few addresses. Nearly every resource waits for one or none, and a tree would take the room of eleven for each of them.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize};

use super::Address;

/// A set of addresses, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Addresses(Vec<Address>);

impl Addresses {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds an address; whether it was not there before.
    pub fn insert(&mut self, address: Address) -> bool {
        match self.0.binary_search(&address) {
            Ok(_) => false,
            Err(at) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, address);
                true
            }
        }
    }

    /// Whether an address is there.
    #[must_use]
    pub fn contains(&self, address: &Address) -> bool {
        self.0.binary_search(address).is_ok()
    }

    /// All of them, in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Address> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn sorted(mut all: Vec<Address>) -> Self {
        if !all.is_sorted_by(|a, b| a < b) {
            all.sort_unstable();
            all.dedup();
        }
        all.shrink_to_fit();
        Self(all)
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::sorted)
    }
}

impl FromIterator<Address> for Addresses {
    fn from_iter<I: IntoIterator<Item = Address>>(all: I) -> Self {
        Self::sorted(all.into_iter().collect())
    }
}

impl Extend<Address> for Addresses {
    fn extend<I: IntoIterator<Item = Address>>(&mut self, more: I) {
        for address in more {
            self.insert(address);
        }
    }
}

impl From<BTreeSet<Address>> for Addresses {
    fn from(all: BTreeSet<Address>) -> Self {
        Self(all.into_iter().collect())
    }
}

impl<const N: usize> From<[Address; N]> for Addresses {
    fn from(all: [Address; N]) -> Self {
        Self::sorted(all.into())
    }
}

impl IntoIterator for Addresses {
    type Item = Address;
    type IntoIter = std::vec::IntoIter<Address>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Addresses {
    type Item = &'a Address;
    type IntoIter = std::slice::Iter<'a, Address>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation: keep the order of insertion.
    #[test]
    fn it_is_a_set_like_any_other() {
        let address = |name: &str| format!("m/o/file//{name}").parse::<Address>().unwrap();
        let names = ["b", "a", "c", "a"];
        let tree: BTreeSet<Address> = names.iter().map(|n| address(n)).collect();
        let mut one = Addresses::new();
        let added: Vec<bool> = names.iter().map(|n| one.insert(address(n))).collect();
        assert_eq!(added, [true, true, true, false]);
        let all: Addresses = names.iter().map(|n| address(n)).collect();
        assert_eq!(one, all);
        assert_eq!(one, Addresses::from(tree.clone()));
        assert_eq!(one.len(), 3);
        assert!(one.contains(&address("c")) && !one.contains(&address("d")));
        let json = serde_json::to_string(&one).unwrap();
        assert_eq!(json, serde_json::to_string(&tree).unwrap());
        let shuffled = r#"["m/o/file//c","m/o/file//a","m/o/file//b","m/o/file//a"]"#;
        assert_eq!(serde_json::from_str::<Addresses>(shuffled).unwrap(), one);
    }
}
