//! The one crate that knows the wire: `plumb.v1` as generated from `proto/`, its conversions to and from the
//! model and the session protocol, how errors travel, and how a client reaches a control plane.
//!
//! It decides nothing. The shells (`control-plane`, `agent`, `cli`) call it, and nothing below them does.

#[cfg(test)]
mod api_doc;
pub mod client;
pub mod codec;
pub mod convert;
pub mod error;
pub mod exposition;
pub mod pages;
pub mod pin;
pub mod plan_file;
#[cfg(test)]
mod recordings;
mod redacted;
pub mod session;
pub mod token;

/// Bytes that are made once and shared, as messages hold them.
pub use prost::bytes::Bytes;

/// The generated messages, clients and servers of the public API. The documentation of each is in `proto/`.
#[allow(
    missing_docs,
    clippy::all,
    reason = "generated code; proto/ holds the comments"
)]
pub mod v1 {
    tonic::include_proto!("plumb.v1");
}

/// The encoded file descriptor set of `plumb.v1`, for gRPC reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The full path of every method of `plumb.v1`, such as `/plumb.v1.Agents/Session`.
pub const METHODS: &[&str] = include!(concat!(env!("OUT_DIR"), "/methods.rs"));

/// The name that every control plane's certificate carries, and that clients check whatever address they dialled.
/// Addresses change and are forwarded; the pinned CA says which control plane it is.
pub const SERVER_NAME: &str = "control-plane.plumb.internal";

/// The most bytes of a payload, blob or log batch in one message: small enough that a heartbeat behind it does not
/// wait long on a slow line.
pub const PIECE_BYTES: usize = 256 * 1024;

/// The largest message of the `ControlPlane` service, in bytes: blueprints and plans of a large workspace.
pub const MAX_API_MESSAGE: usize = 64 * 1024 * 1024;

/// The largest message of the `Agents` and `Enrollment` services, in bytes: a piece and what stands around it.
pub const MAX_AGENT_MESSAGE: usize = 1024 * 1024;

/// The largest blob, in bytes.
pub const MAX_BLOB_BYTES: u64 = 1 << 30;
