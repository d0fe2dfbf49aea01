//! What people read: plans, statuses, history.

pub mod diagnostics;
pub mod machine;
pub mod plan;
pub mod rollout;
pub mod status;
pub mod table;
pub mod time;
