//! Seeds that every change must pass, and bugs that every seed must show.

mod bugs;
mod prefixes;
mod scripted;
mod seeds;
