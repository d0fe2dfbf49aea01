//! The control plane: the tokio shell around the planner, the ledger and dispatch.
//!
//! Tour: [`server`] starts it; `tenants` are its workspaces; [`guard`] holds every call against the one table of rules
//! in [`access`], and finds its workspace, with [`limits`], [`audit`] and `cut` (revoked tokens' streams) at its side;
//! [`identity`] is the CA; `enrollment`, `agents`, `api` and `access_service` are services of `plumb.v1`; `recorder` plans and records, one apply at
//! a time; `operations`, `metrics` and `measured` say how it is; [`backup`] copies it; `texts` reads blueprints that come as they are
//! written; `gateway` owns the fleet in one task; `blobs` keeps artifacts; `signing` signs plan files.
//!
//! It never plans by itself, never decides what a machine holds, and writes nothing to standard output. Called by
//! the command line: `plumb server` and `plumb dev`.

pub mod access;
pub mod audit;
pub mod backup;
pub mod blobs;
pub mod gateway;
pub mod guard;
pub mod identity;
pub mod limits;
pub mod rotation;
pub mod server;

mod access_service;
mod agents;
mod api;
mod cut;
mod enrollment;
mod events;
mod hands;
mod incoming;
mod logs;
mod machines;
mod measured;
mod metrics;
mod operations;
mod outbox;
mod recorder;
mod refuse;
mod rollouts;
mod roster;
mod secrets;
mod signing;
mod tenants;
#[cfg(test)]
mod tests;
mod texts;
mod tls;

pub use server::{Config, Running, StartError, start};
