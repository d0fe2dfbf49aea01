//! What people read: plans, statuses, history.

pub mod diagnostics;
pub mod machine;
pub mod plan;
pub mod rollout;
pub mod status;
pub mod table;
pub mod time;

/// `1 machine`, `2 machines`.
pub fn count(number: usize, one: &str) -> String {
    let plural = match number {
        1 => "",
        _ => "s",
    };
    format!("{number} {one}{plural}")
}
