//! The coverage contract: for each field of each resource kind, what a change costs, how it is observed
//! and whether it may be shown.
//!
//! There is no second classifier: planner, renderer and agent all read these rows. A field cannot be
//! declared without its row, since [`resource_spec!`](crate::resource_spec) makes both out of one line.

use serde::{Deserialize, Serialize};

use crate::address::ResourceKind;

/// What changing a field does to a running resource. Ordered from cheap to dear.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Cost {
    /// Changed where it is; nothing notices.
    InPlace,
    /// The process is told to read its configuration again.
    Reload,
    /// The process is stopped and started.
    Restart,
    /// The resource is made anew and the old one removed.
    Replace,
}

/// How the agent sees the field on the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// By this means.
    By(&'static str),
    /// Not at all, because of this.
    Cannot(&'static str),
}

/// Whether a value may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Redaction {
    /// It may.
    Public,
    /// The value is replaced by a mark and a keyed hash; only that it changed is shown.
    Sensitive,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Field {
    /// The field's name in the spec, as serialised.
    pub name: &'static str,
    /// What a change costs.
    pub cost: Cost,
    /// How it is observed.
    pub observed: Observed,
    /// Whether it may be shown.
    pub redaction: Redaction,
}

/// A resource spec together with its rows.
pub trait Covered {
    /// The kind that this spec describes.
    const KIND: ResourceKind;
    /// One row for each field, in declaration order.
    const FIELDS: &'static [Field];
}

/// The rows of one kind.
#[must_use]
pub fn fields(kind: ResourceKind) -> &'static [Field] {
    match kind {
        ResourceKind::Artifact => crate::spec::ArtifactSpec::FIELDS,
        ResourceKind::Directory => crate::spec::DirectorySpec::FIELDS,
        ResourceKind::File => crate::spec::FileSpec::FIELDS,
        ResourceKind::Process => crate::spec::ProcessSpec::FIELDS,
        ResourceKind::Package => crate::PackageSpec::FIELDS,
        ResourceKind::Checkout => crate::CheckoutSpec::FIELDS,
        ResourceKind::Toolchain => crate::ToolchainSpec::FIELDS,
        ResourceKind::Build => crate::BuildSpec::FIELDS,
        ResourceKind::Image => crate::ImageSpec::FIELDS,
        ResourceKind::Network => crate::NetworkSpec::FIELDS,
        ResourceKind::Volume => crate::VolumeSpec::FIELDS,
        ResourceKind::Service => crate::ServiceSpec::FIELDS,
        ResourceKind::Task => crate::TaskSpec::FIELDS,
        ResourceKind::Container => crate::ContainerSpec::FIELDS,
        ResourceKind::Route => crate::RouteSpec::FIELDS,
    }
}

/// The row of one field of one kind.
#[must_use]
pub fn field(kind: ResourceKind, name: &str) -> Option<&'static Field> {
    fields(kind).iter().find(|f| f.name == name)
}

/// Declares a resource spec and its coverage rows in one place:
/// `name: Type => cost, observed by "…" | cannot "…", public | sensitive;`
#[macro_export]
macro_rules! resource_spec {
    (
        $(#[$doc:meta])*
        pub struct $name:ident: $kind:ident {
            $(
                $(#[$field_doc:meta])*
                $field:ident: $type:ty => $cost:ident, $how:ident($what:literal), $redaction:ident;
            )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $( $(#[$field_doc])* pub $field: $type, )*
        }

        impl $crate::coverage::Covered for $name {
            const KIND: $crate::address::ResourceKind = $crate::address::ResourceKind::$kind;
            const FIELDS: &'static [$crate::coverage::Field] = &[
                $( $crate::coverage::Field {
                    name: stringify!($field),
                    cost: $crate::coverage::Cost::$cost,
                    observed: $crate::coverage::Observed::$how($what),
                    redaction: $crate::coverage::Redaction::$redaction,
                }, )*
            ];
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_says_something() {
        for kind in ResourceKind::ALL {
            assert!(!fields(kind).is_empty(), "{kind} has no rows");
            for field in fields(kind) {
                let (Observed::By(text) | Observed::Cannot(text)) = field.observed;
                assert!(text.len() > 3, "{kind}.{} says too little", field.name);
            }
        }
    }
}
