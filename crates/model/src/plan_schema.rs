//! The JSON Schema (2020-12) of a plan, published as `schemas/plan.json`, made from the types of [`crate::plan`]: what they
//! document is what it describes. It never describes what is merely recorded.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use crate::address::Address;
use crate::hash::Hash;
use crate::name::{MachineName, OwnerName, SecretName, WorkspaceName};
use crate::plan::Plan;

/// Types whose text form has a grammar of its own.
macro_rules! text {
    ($($type:ident: $pattern:expr, $description:literal;)*) => {
        $(
            impl JsonSchema for $type {
                fn schema_name() -> Cow<'static, str> {
                    stringify!($type).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!({
                        "type": "string",
                        "pattern": $pattern,
                        "description": $description,
                    })
                }
            }
        )*
    };
}

const NAME: &str = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$";

text! {
    WorkspaceName: NAME, "The name of a workspace.";
    MachineName: NAME, "The name of a machine.";
    OwnerName: NAME, "The name of an App, Service, Setup, Volume or Network.";
    SecretName: "^[A-Za-z0-9][-A-Za-z0-9_.]*$", "The name of a secret.";
    Hash: "^[0-9a-f]{64}$", "A BLAKE3 digest: 64 lower-case hex digits.";
    Address:
        "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z]+/[\\s\\S]+$",
        "Where a resource is: `machine/owner/kind/name`. The name is the rest, and may hold `/`.";
}

/// The schema of what `plumb plan --format json` prints.
#[must_use]
pub fn plan_schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<Plan>();
    schema.insert("title".to_owned(), "Plan".into());
    schema.to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refresh with `PLUMB_UPDATE=1 cargo test -p plumb-model plan_schema`.
    #[test]
    fn the_published_schema_is_that_of_the_types() {
        let text = serde_json::to_string_pretty(&plan_schema()).unwrap() + "\n";
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/plan.json");
        if std::env::var_os("PLUMB_UPDATE").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).unwrap_or_default() == text,
            "schemas/plan.json is stale: run `PLUMB_UPDATE=1 cargo test -p plumb-model plan_schema`"
        );
    }

    #[test]
    fn it_compiles_and_every_property_of_every_object_says_what_it_is() {
        let schema = plan_schema();
        jsonschema::draft202012::new(&schema).unwrap();
        let definitions = schema["$defs"].as_object().unwrap();
        for (name, object) in definitions.iter().chain([(&"Plan".to_owned(), &schema)]) {
            let properties = object["properties"].as_object().into_iter().flatten();
            for (property, content) in properties {
                assert!(
                    content["description"].as_str().is_some_and(|d| d.len() > 3),
                    "{name}.{property} has no description"
                );
            }
        }
    }
}
