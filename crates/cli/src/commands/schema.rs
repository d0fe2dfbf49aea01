//! `plumb schema`.

use plumb_blueprint::{Kind, nearest, schema, schema_of_any};
use plumb_model::ResourceKind;
use plumb_model::coverage::{Cost, Field, Observed, Redaction, fields};
use serde_json::json;

use crate::args::Output;
use crate::commands::Env;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::render::table::table;

/// Prints the JSON Schema of a kind, or of any blueprint.
pub fn run(kind: Option<&str>) -> Result<Exit, CliError> {
    let value = match kind {
        None => schema_of_any(),
        Some(word) => {
            let all = Kind::ALL.map(Kind::as_str);
            let kind = Kind::ALL
                .into_iter()
                .find(|k| k.as_str().eq_ignore_ascii_case(word));
            schema(kind.ok_or_else(|| {
                let hint = nearest(word, all)
                    .map(|n| format!("; did you mean {n}?"))
                    .unwrap_or_default();
                CliError::Other(format!(
                    "there is no kind {word:?}{hint}; there are {}",
                    all.join(", ")
                ))
            })?)
        }
    };
    let text = serde_json::to_string_pretty(&value).expect("a schema is always JSON");
    out::line(&text);
    Ok(Exit::Fine)
}

/// Prints what a change of each field of each resource kind costs, how it is observed, and whether it may be shown.
pub fn coverage(env: &Env<'_>) -> Result<Exit, CliError> {
    match env.output {
        Output::Json => {
            let kinds: Vec<_> = ResourceKind::ALL
                .into_iter()
                .map(|kind| json!({ "kind": kind.to_string(), "fields": fields(kind) }))
                .collect();
            out::json(&json!({ "format": 1, "kinds": kinds }));
        }
        Output::Text => {
            let head = ["FIELD", "A CHANGE", "SHOWN", "OBSERVED"];
            let mut rows = vec![head.map(|word| env.style.bold(word)).to_vec()];
            for kind in ResourceKind::ALL {
                rows.extend(fields(kind).iter().map(|field| row(kind, field)));
            }
            out::print(&table("", &rows));
        }
    }
    Ok(Exit::Fine)
}

fn row(kind: ResourceKind, field: &Field) -> Vec<String> {
    let cost = match field.cost {
        Cost::InPlace => "in place",
        Cost::Reload => "reload",
        Cost::Restart => "restart",
        Cost::Replace => "replace",
    };
    let shown = match field.redaction {
        Redaction::Public => "yes",
        Redaction::Sensitive => "no",
    };
    let observed = match field.observed {
        Observed::By(how) => how.to_owned(),
        Observed::Cannot(why) => format!("cannot be: {why}"),
    };
    vec![
        format!("{kind}.{}", field.name),
        cost.to_owned(),
        shown.to_owned(),
        observed,
    ]
}
