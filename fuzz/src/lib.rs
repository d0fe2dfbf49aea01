//! The properties that fuzzing holds, one module for each target. A broken one panics.
//!
//! They go through the public doors of the crates only, so that what is found can be a test of the crate as it stands.

pub mod apply;
pub mod assignment;
pub mod fmt;
pub mod plan_file;
pub mod problems;
pub mod references;
pub mod yaml;
