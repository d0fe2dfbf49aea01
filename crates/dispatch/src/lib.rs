//! Stage 4: which machine gets which generation when, and what became of it. Both ends of the session protocol, and the
//! folding of what agents report into the status that people read.
//!
//! Event in, effects out: nothing here opens a socket, sleeps, reads a clock or rolls dice. The agent's shell
//! drives [`AgentSession`], the control plane's gateway drives [`Fleet`], and the simulator both.
//!
//! Invariant: the fence of the agent is enough by itself. Whatever the fleet sends, in whatever order it arrives, an
//! agent never goes back a generation and never takes what is not its own.

pub mod protocol;

pub mod agent;
pub mod fence;
pub mod hands;
pub mod journal;

pub mod fleet;
pub mod judge;
mod machine;
mod machines;
pub mod record;
mod releases;
mod sight;

pub mod rollout;

mod show;
mod skew;
mod statuses;
pub mod version;
pub mod view;

#[cfg(test)]
mod tests;

pub use agent::{AgentSession, Held};
pub use fence::Identity;
pub use fleet::Fleet;
pub use protocol::{Hello, LogsRequest, Now, Refusal, RefusalKind, Releases, ToAgent, ToServer};
pub use record::{MachineRecord, OwnerRecord, Recording, RecordingError};
pub use rollout::Rollouts;
pub use show::Standing;
pub use view::WorkspaceView;
