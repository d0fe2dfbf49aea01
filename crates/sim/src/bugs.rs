//! Bugs to plant: each breaks one invariant, and a test holds that the simulator sees it.
//!
//! They are in what the simulator does around the stages, where a control plane, an agent or a store would have them.

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A control plane records other content under a generation that it has given already.
    ReusesGeneration,
    /// An agent removes what it does not find in its assignment, whether or not anybody said so.
    RemovesUnasked,
    /// A control plane leaves out the tombstones of what is to go.
    DropsTombstones,
    /// Rollouts are told that everything is available.
    IgnoresBudget,
    /// A control plane writes the secrets that it hands over to its log.
    LogsSecrets,
    /// An agent acknowledges before its disk has.
    AcknowledgesEarly,
    /// The store acknowledges before it keeps.
    StoreForgets,
    /// A control plane does not take the lead, so that nothing fences the one before.
    Unfenced,
    /// Nobody hears whose key counts for a machine.
    AnyKey,
    /// Timers are set by the clock on the wall.
    WallTimers,
}
