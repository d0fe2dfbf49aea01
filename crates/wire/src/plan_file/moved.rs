//! What of a plan's read set is no longer as it was.

use std::fmt;

use plumb_model::state::StateBody;
use plumb_model::{MachineName, OwnerName, Revision, Timestamp};
use serde::{Deserialize, Serialize};

use super::ReadSet;

/// One thing that a plan read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The name in the manifest.
    Manifest,
    /// A machine.
    Machine {
        /// Its name.
        name: MachineName,
    },
    /// An owner.
    Owner {
        /// Its name.
        name: OwnerName,
        /// The kind of its blueprint, such as `app`, if it is known.
        kind: Option<String>,
    },
}

impl Subject {
    /// How it is in a recorded state, in words.
    #[must_use]
    pub fn at(&self, state: &StateBody) -> String {
        let found = match self {
            Self::Manifest => state.manifest.as_ref().map(ToString::to_string),
            Self::Machine { name } => state
                .machines
                .get(name)
                .map(|machine| format!("generation {}", machine.generation)),
            Self::Owner { name, .. } => state
                .owners
                .get(name)
                .map(|owner| format!("release {}", owner.release)),
        };
        found.unwrap_or_else(|| "nothing".to_owned())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest => f.write_str("the workspace's name"),
            Self::Machine { name } => write!(f, "machine {name}"),
            Self::Owner { name, kind: None } => write!(f, "{name}"),
            Self::Owner {
                name,
                kind: Some(kind),
            } => write!(f, "{kind} {name}"),
        }
    }
}

/// One thing that is no longer as a plan read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// What.
    pub subject: Subject,
    /// How the plan read it.
    pub was: String,
    /// How it is.
    pub now: String,
    /// The newest revision that moved it, if it is known.
    pub revision: Option<Revision>,
    /// Who recorded that.
    pub by: Option<String>,
    /// When.
    pub at: Option<Timestamp>,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} → {}", self.subject, self.was, self.now)?;
        match (&self.by, self.at) {
            (Some(by), Some(at)) => write!(f, ", recorded by {by} at {at}"),
            _ => Ok(()),
        }
    }
}

impl ReadSet {
    /// Everything of it that is otherwise in a recorded state: owners, then machines, each by name, then the manifest.
    #[must_use]
    pub fn moved(&self, now: &StateBody) -> Vec<Moved> {
        let nothing = "nothing".to_owned();
        let owners = self.owners.iter().map(|(name, owner)| {
            let same = now.owners.get(name) == Some(owner);
            (name, format!("release {}", owner.release), same)
        });
        let absent = self.absent.owners.iter().map(|name| {
            let same = !now.owners.contains_key(name);
            (name, nothing.clone(), same)
        });
        let owners = owners.chain(absent).map(|(name, was, same)| {
            let (name, kind) = (name.clone(), None);
            (Subject::Owner { name, kind }, was, same)
        });
        let machines = self.machines.iter().map(|(name, generation)| {
            let held = now.machines.get(name).map(|machine| machine.generation);
            let same = held == Some(*generation);
            (name, format!("generation {generation}"), same)
        });
        let absent = self.absent.machines.iter().map(|name| {
            let same = !now.machines.contains_key(name);
            (name, nothing.clone(), same)
        });
        let machines = machines.chain(absent).map(|(name, was, same)| {
            let name = name.clone();
            (Subject::Machine { name }, was, same)
        });
        let manifest = self.manifest.as_ref().map(ToString::to_string);
        let manifest = (
            Subject::Manifest,
            manifest.unwrap_or_else(|| nothing.clone()),
            self.manifest == now.manifest,
        );
        owners
            .chain(machines)
            .chain([manifest])
            .filter(|(_, _, same)| !same)
            .map(|(subject, was, _)| {
                let mut now = subject.at(now);
                // A folder that was restored counts the same numbers twice.
                if now == was {
                    now = format!("another {now}");
                }
                Moved {
                    now,
                    subject,
                    was,
                    revision: None,
                    by: None,
                    at: None,
                }
            })
            .collect()
    }
}
