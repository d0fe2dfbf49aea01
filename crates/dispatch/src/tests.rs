//! Both ends together over a link that the tests drive by hand, and each end by itself.

mod chaos;
mod fencing;
mod folding;
mod renames;
mod secrets;
mod sessions;
mod world;
