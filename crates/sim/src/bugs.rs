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
    /// An agent takes an assignment that comes late for a newer one.
    TakesOlder,
    /// An agent forgets what a resource waits for.
    IgnoresOrder,
    /// An agent forgets what a resource was called before.
    IgnoresRenames,
    /// A driver says that it has written, and has not.
    SaysSo,
    /// A driver writes where it is only to look.
    WritesWhenItLooks,
    /// A driver takes a stranger's file for Plumb's.
    TakesOver,
    /// An agent looks at something again before it has the answer.
    LooksTwice,
    /// A control plane records labels of machines that nobody gave.
    RecordsOther,
}
