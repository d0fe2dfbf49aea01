//! Where a resource is: `machine/owner/kind/name`.

mod set;

pub use set::Addresses;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name::{MachineName, NameError, OwnerName, Reads};

/// What sort of thing a resource is. Each has one driver module and one block of coverage rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    /// A package of the machine's operating system.
    Package,
    /// A repository path, packed and addressed by content.
    Artifact,
    /// A git repository at one commit.
    Checkout,
    /// A language runtime at one version.
    Toolchain,
    /// What build steps or a Dockerfile make out of a source.
    Build,
    /// A container image.
    Image,
    /// A network of containers.
    Network,
    /// A named volume: data.
    Volume,
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// Shared infrastructure such as a database: data.
    Service,
    /// A command that runs once for each release.
    Task,
    /// A native process.
    Process,
    /// A container.
    Container,
    /// What a web server answers with.
    Route,
}

impl ResourceKind {
    /// Every kind, in the order in which people read them: what is needed comes before what needs it.
    pub const ALL: [Self; 15] = [
        Self::Package,
        Self::Artifact,
        Self::Checkout,
        Self::Toolchain,
        Self::Build,
        Self::Image,
        Self::Network,
        Self::Volume,
        Self::Directory,
        Self::File,
        Self::Service,
        Self::Task,
        Self::Process,
        Self::Container,
        Self::Route,
    ];

    /// The word that stands in addresses and files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::Artifact => "artifact",
            Self::Checkout => "checkout",
            Self::Toolchain => "toolchain",
            Self::Build => "build",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Directory => "directory",
            Self::File => "file",
            Self::Service => "service",
            Self::Task => "task",
            Self::Process => "process",
            Self::Container => "container",
            Self::Route => "route",
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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The machine it is on.
    pub machine: MachineName,
    /// The App, Service, Setup, Volume or Network that it belongs to.
    pub owner: OwnerName,
    /// What it is.
    pub kind: ResourceKind,
    /// Its name within the owner: a path for files, `PROCESS/SLOT` for processes.
    pub name: Arc<str>,
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Fewer than four parts.
    #[error("an address has the form machine/owner/kind/name")]
    Parts,
    /// The third part names no kind.
    #[error("{0:?} is no resource kind; there are {list}", list = kinds())]
    Kind(String),
    /// One of the names does not follow the grammar.
    #[error("in an address")]
    Name(#[from] NameError),
}

/// Every kind's word, for a message.
fn kinds() -> String {
    ResourceKind::ALL.map(ResourceKind::as_str).join(", ")
}

impl ResourceKind {
    /// Whether what it names holds data that cannot be made again from the blueprints.
    #[must_use]
    pub fn holds_data(self) -> bool {
        matches!(self, Self::Volume | Self::Service)
    }

    /// Whether it runs: what is stopped and started is felt.
    #[must_use]
    pub fn runs(self) -> bool {
        matches!(self, Self::Process | Self::Container | Self::Service)
    }
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

    /// Its text form, put together in one piece: a plan of a large fleet writes hundreds of thousands of them.
    fn text(&self) -> String {
        let parts = [
            self.machine.as_str(),
            self.owner.as_str(),
            self.kind.as_str(),
            &self.name,
        ];
        parts.join("/")
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

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Reads(str::parse))
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
        address.text()
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
