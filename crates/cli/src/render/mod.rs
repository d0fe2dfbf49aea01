//! What people read: plans, statuses, history.

pub mod diagnostics;
pub mod plan;
pub mod status;
pub mod rollout;
pub mod table;
pub mod time;
