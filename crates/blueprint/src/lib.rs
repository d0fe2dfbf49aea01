//! Stage 1 of the road: YAML text → [`BlueprintSet`], with every problem reported at once, each at its file,
//! line and column with a snippet and a hint. It also generates the published `schemas/`.
//!
//! It never reads a file, a clock or the network: it sees what it is handed. The command line calls it where
//! the files are; the planner takes its result.
//!
//! The passes over a file, in this order, and why: [`source`](SourceFile) decodes it; `events` finds out where
//! everything stands and refuses what would choke the others; `value` reads the values as serde_yaml has them;
//! `check` holds them against the schema; `convert` makes typed values of them; `cross` compares documents.

mod code;
mod diagnostic;
mod explain;
mod nearest;
mod parse;
mod reference_doc;
mod render;
mod schema;
mod set;
mod source;

mod check;
mod compose;
mod convert;
mod cron;
mod cross;
mod document;
mod events;
mod fmt;
mod git_url;
mod hints;
mod mask;
mod plain;
mod reference;
mod scalar;
mod shape;
mod spans;
mod syntax;
mod tree;
mod unusable;
mod value;
mod written;

use plumb_model::parallel;

#[cfg(test)]
mod tests;

pub use code::Code;
pub use convert::tuning::SIGNALS;
pub use diagnostic::{Diagnostic, Diagnostics, MAX_DIAGNOSTICS, Severity, Span};
pub use events::{MAX_ALIASED_NODES, MAX_DEPTH};
pub use explain::{
    Example, Explanation, MANIFEST as EXAMPLE_MANIFEST, diagnostics_page, explain, explanations,
};
pub use fmt::{FormatError, format};
pub use mask::blinded;
pub use nearest::nearest;
pub use parse::{Options, others, parse};
pub use reference_doc::blueprint_reference;
pub use render::render;
pub use schema::{Kind, schema, schema_of_any};
pub use set::{
    App, BlueprintSet, Compose, Container, ContainerPort, Content, DataLoss, DirDecl, FileDecl,
    GitSource, Health, Hook, ImageDecl, MAX_INSTANCES, MountDecl, MountSourceDecl, Network,
    Origins, Policy, Port, Probe, Process, Publish, Reference, Registry, RouteDecl, RuntimeDecl,
    SecretDecl, Segment, Selector, Service, SetError, Setup, Source, Text, Volume, Workload,
    Workspace,
};
pub use source::{MAX_FILE_BYTES, SourceFile};
pub use unusable::{Unusable, unusable};
