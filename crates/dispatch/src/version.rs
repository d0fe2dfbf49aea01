//! Which versions of the session protocol the two ends speak, and what is said where they have none in common.
//!
//! The hello carries the agent's versions, the welcome the one that both go on with. A version is added when a message
//! changes its meaning, or is needed where it could be passed over before; new messages and fields that an older end may
//! pass over need none. Each end speaks two versions, so that a fleet can be upgraded in any order, one step at a time.

use std::fmt;

/// Versions that one end speaks, all of them from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
}

/// What this version of Plumb speaks. 1: everything before versions were negotiated; 2: the journal is handed over.
pub const SPOKEN: Versions = Versions {
    oldest: 1,
    newest: 2,
};

/// The version of an end that says none.
pub const UNSAID: u32 = 1;

/// The version of Plumb that this is, for people.
pub const PLUMB: &str = env!("CARGO_PKG_VERSION");

impl Versions {
    /// What an end speaks that says so on the wire, where 0 is unsaid.
    #[must_use]
    pub fn said(oldest: u32, newest: u32) -> Self {
        let newest = if newest == 0 { UNSAID } else { newest };
        Self {
            oldest: if oldest == 0 { UNSAID } else { oldest }.min(newest),
            newest,
        }
    }

    /// Whether a version is among them.
    #[must_use]
    pub fn has(self, version: u32) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }

    /// The newest version that both speak.
    #[must_use]
    pub fn agree(self, other: Self) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (self.has(newest) && other.has(newest)).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { oldest, newest } = self;
        if oldest == newest {
            write!(f, "version {newest}")
        } else {
            write!(f, "versions {oldest} to {newest}")
        }
    }
}

/// What both sides are told where they have no version in common: both versions of Plumb, and which one to upgrade first.
#[must_use]
pub(crate) fn refusal(agent: (&str, Versions), server: (&str, Versions)) -> String {
    let first = if agent.1.newest < server.1.oldest {
        "upgrade plumb on the machine first: an agent may be one version older than its control plane"
    } else {
        "upgrade the control plane first: an agent may be one version newer than it"
    };
    let name = |plumb: &str| match plumb {
        "" => "of an unknown version".to_owned(),
        plumb => format!("plumb {plumb}"),
    };
    format!(
        "the agent, {}, speaks {} of the session protocol, and the control plane, {}, {}; {first}",
        name(agent.0),
        agent.1,
        name(server.0),
        server.1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(oldest: u32, newest: u32) -> Versions {
        Versions { oldest, newest }
    }

    /// Threat row 42. Mutation: let `agree` take the newer of the two newest ones.
    #[test]
    fn ends_that_are_one_version_apart_agree_and_others_do_not() {
        for (mine, theirs, agreed) in [
            ((1, 2), (1, 2), Some(2)),
            ((1, 2), (2, 3), Some(2)),
            ((2, 3), (1, 2), Some(2)),
            ((2, 3), (3, 4), Some(3)),
            ((1, 2), (1, 1), Some(1)),
            ((1, 2), (3, 4), None),
            ((3, 4), (1, 2), None),
            ((2, 3), (1, 1), None),
        ] {
            let (mine, theirs) = (versions(mine.0, mine.1), versions(theirs.0, theirs.1));
            assert_eq!(mine.agree(theirs), agreed, "{mine} and {theirs}");
            assert_eq!(theirs.agree(mine), agreed, "{theirs} and {mine}");
        }
        assert_eq!(SPOKEN.newest - SPOKEN.oldest, 1);
        assert_eq!(Versions::said(0, 0), versions(1, 1));
        assert_eq!(Versions::said(9, 3), versions(3, 3), "nonsense is no panic");
    }

    #[test]
    fn a_refusal_names_both_and_which_one_is_to_be_upgraded_first() {
        let old = refusal(("0.1.0", versions(1, 2)), ("0.9.0", versions(3, 4)));
        assert!(
            old.contains("plumb 0.1.0, speaks versions 1 to 2")
                && old.contains("plumb 0.9.0, versions 3 to 4")
                && old.contains("upgrade plumb on the machine first"),
            "{old}"
        );
        let new = refusal(("0.9.0", versions(3, 4)), ("0.1.0", versions(1, 2)));
        assert!(new.contains("upgrade the control plane first"), "{new}");
    }
}
