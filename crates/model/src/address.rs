//! Where a resource is: `machine/owner/kind/name`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{MachineName, NameError, OwnerName};

/// What sort of thing a resource is. Each has one driver module and one block of coverage rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    /// A repository path, packed and addressed by content.
    Artifact,
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A native process.
    Process,
}

impl ResourceKind {
    /// Every kind, in the order in which people read them.
    pub const ALL: [Self; 4] = [Self::Artifact, Self::Directory, Self::File, Self::Process];

    /// The word that stands in addresses and files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Artifact => "artifact",
            Self::Directory => "directory",
            Self::File => "file",
            Self::Process => "process",
        }
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The address of one resource. The last part is greedy, since paths hold `/`:
/// `web-1/base/file//etc/motd` is the file `/etc/motd`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// The machine it is on.
    pub machine: MachineName,
    /// The App or Setup that it belongs to.
    pub owner: OwnerName,
    /// What it is.
    pub kind: ResourceKind,
    /// Its name within the owner: a path for files, `PROCESS/SLOT` for processes.
    pub name: Box<str>,
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Fewer than four parts.
    #[error("an address has the form machine/owner/kind/name")]
    Parts,
    /// The third part names no kind.
    #[error("{0:?} is no resource kind; there are artifact, directory, file and process")]
    Kind(String),
    /// One of the names does not follow the grammar.
    #[error("in an address")]
    Name(#[from] NameError),
}

impl Address {
    /// Puts an address together from its parts.
    #[must_use]
    pub fn new(machine: &MachineName, owner: &OwnerName, kind: ResourceKind, name: &str) -> Self {
        Self {
            machine: machine.clone(),
            owner: owner.clone(),
            kind,
            name: name.into(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}/{}",
            self.machine, self.owner, self.kind, self.name
        )
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let mut parts = text.splitn(4, '/');
        let (Some(machine), Some(owner), Some(kind), Some(name)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(AddressError::Parts);
        };
        if name.is_empty() {
            return Err(AddressError::Parts);
        }
        let kind = ResourceKind::ALL
            .into_iter()
            .find(|k| k.as_str() == kind)
            .ok_or_else(|| AddressError::Kind(kind.to_owned()))?;
        Ok(Self {
            machine: MachineName::new(machine)?,
            owner: OwnerName::new(owner)?,
            kind,
            name: name.into(),
        })
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_is_greedy_and_reads_back() {
        for text in [
            "web-1/base/file//etc/motd",
            "m/app/process/web/0",
            "m/a/artifact/source",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for bad in ["", "a/b/file", "a/b/file/", "a/b/thing/x", "A/b/file/x"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
