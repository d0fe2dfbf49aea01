//! What operators have ordered by hand for one machine: what is to stand still, what is to be started again, and what
//! is to be left as it is for a while.
//!
//! It is recorded beside the assignment and delivered like it, with a number of its own that only grows. It changes
//! nothing about what the blueprints say: it is laid over that for as long as it stands. The control plane writes it,
//! the agent keeps it on its disk, and `converge` obeys it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::hash::Hash;
use crate::{Lineage, MachineName, OwnerName, Timestamp, WorkspaceName};

/// The newest format of [`Orders`] that this version reads, and the one that it writes.
pub const FORMAT: u32 = 1;

/// The longest reason for a hold, in bytes: a sentence or two, with a link to a ticket.
pub const MAX_REASON_BYTES: usize = 500;

/// The longest a hold lasts, in days. What is to differ for longer belongs into a blueprint.
pub const MAX_HOLD_DAYS: u64 = 31;

/// What one of [`Orders`] has been numbered with: a later one has a higher number, and 0 is none at all.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct OrderNumber(pub u64);

impl std::fmt::Display for OrderNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Its processes are to stand still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Who said so.
    pub by: String,
    /// When.
    pub since: Timestamp,
}

/// Its processes are to be started again, each once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// The number of the orders that brought it: what was done for an older one does not count.
    pub id: OrderNumber,
    /// Who said so.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Those that run are left alone: it only undoes a stop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_start: bool,
}

/// A resource is left as it is, until a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Who said so.
    pub by: String,
    /// When.
    pub since: Timestamp,
    /// It ends by itself then.
    pub until: Timestamp,
    /// Why, for people. Never safe to show as it is.
    pub reason: String,
}

impl Hold {
    /// Whether it still counts.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        now < self.until
    }
}

/// What is ordered by hand.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hands {
    /// What is to stand still.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stopped: BTreeMap<OwnerName, Stopped>,
    /// The newest order to start again, of each owner that ever had one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub restarts: BTreeMap<OwnerName, Restart>,
    /// What is left as it is. Holds that have ended stay for a while, so that it can be said what they had covered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holds: BTreeMap<Address, Hold>,
}

impl Hands {
    /// Whether nothing is ordered, and nothing was lately.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stopped.is_empty() && self.restarts.is_empty() && self.holds.is_empty()
    }
}

/// All that is ordered by hand for one machine, as it is stored and sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose history it belongs to.
    pub lineage: Lineage,
    /// Which workspace.
    pub workspace: WorkspaceName,
    /// Which machine.
    pub machine: MachineName,
    /// Its number.
    pub number: OrderNumber,
    /// What is ordered.
    pub hands: Hands,
}

/// Why bytes are no orders.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrdersError {
    /// They cannot be read.
    #[error("the orders cannot be read: {0}")]
    Unreadable(String),
    /// Written by a newer Plumb.
    #[error(
        "the orders have format {0}, newer than the {FORMAT} that this version reads; upgrade plumb on this machine"
    )]
    Newer(u32),
}

impl Orders {
    /// The bytes that are stored, sent and hashed.
    ///
    /// # Panics
    /// Never: model values are always JSON.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("model values are always JSON")
    }

    /// The hash of [`Orders::bytes`].
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(&self.bytes())
    }

    /// Reads them.
    ///
    /// # Errors
    /// See [`OrdersError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, OrdersError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let unreadable = |e: serde_json::Error| OrdersError::Unreadable(e.to_string());
        // First by itself, since nothing else of a newer one can be relied on.
        let Format { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if format > FORMAT {
            return Err(OrdersError::Newer(format));
        }
        serde_json::from_slice(bytes).map_err(unreadable)
    }
}

/// A resource that was not as it should be when everything was checked, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which.
    pub address: Address,
    /// What was found, for people. Never safe to show as it is.
    pub found: String,
    /// What came of it.
    pub came: Came,
    /// More about that, for people: why it was left, or why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// What came of something that was not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Came {
    /// It was put right.
    Corrected,
    /// It was left, as the blueprint says.
    Left,
    /// It was left, since somebody holds it.
    Held,
    /// It was not yet right when the time for it was over.
    Unfinished,
    /// Something outside it is in the way, or acting on it failed.
    Failed,
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

impl Came {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Corrected => "corrected",
            Self::Left => "left",
            Self::Held => "held",
            Self::Unfinished => "unfinished",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    /// Whether nobody has to look after it.
    #[must_use]
    pub fn is_well(self) -> bool {
        matches!(self, Self::Corrected | Self::Left | Self::Held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::ResourceKind;

    fn orders() -> Orders {
        let machine = MachineName::new("m").unwrap();
        let owner = OwnerName::new("hello").unwrap();
        let at = Timestamp::UNIX_EPOCH;
        let by = "anna".to_owned();
        let hold = Hold {
            by: by.clone(),
            since: at,
            until: at,
            reason: "a look at it".to_owned(),
        };
        let file = Address::new(&machine, &owner, ResourceKind::File, "/etc/motd");
        let restart = Restart {
            id: OrderNumber(3),
            by: by.clone(),
            at,
            only_start: false,
        };
        Orders {
            format: FORMAT,
            lineage: Lineage::from_random([1; 16]),
            workspace: WorkspaceName::new("w").unwrap(),
            machine,
            number: OrderNumber(3),
            hands: Hands {
                stopped: BTreeMap::from([(owner.clone(), Stopped { by, since: at })]),
                restarts: BTreeMap::from([(owner, restart)]),
                holds: BTreeMap::from([(file, hold)]),
            },
        }
    }

    #[test]
    fn orders_read_back_and_a_newer_format_is_refused_by_name() {
        assert_eq!(Orders::parse(&orders().bytes()), Ok(orders()));
        let newer = Orders {
            format: 2,
            ..orders()
        };
        assert_eq!(Orders::parse(&newer.bytes()), Err(OrdersError::Newer(2)));
        assert!(matches!(
            Orders::parse(b"{}"),
            Err(OrdersError::Unreadable(_))
        ));
    }

    #[test]
    fn a_hold_ends_at_its_time() {
        let hold = orders().hands.holds.into_values().next().unwrap();
        let before = hold.until - std::time::Duration::from_nanos(1);
        assert!(hold.holds(before) && !hold.holds(hold.until));
    }
}
