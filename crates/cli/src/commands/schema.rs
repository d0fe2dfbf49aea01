//! `plumb schema`.

use plumb_blueprint::{Kind, nearest, schema, schema_of_any};
use plumb_model::ResourceKind;
use plumb_model::coverage::{Cost, Field, Observed, Redaction, fields};
use plumb_model::plan_schema::plan_schema;
use serde_json::json;

use crate::args::Output;
use crate::commands::Env;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::render::table::table;

/// What stands for a plan, in the place of a kind.
const PLAN: &str = "plan";

/// Prints the JSON Schema of a kind, of any blueprint, or of a plan.
pub fn run(kind: Option<&str>) -> Result<Exit, CliError> {
    let value = match kind {
        None => schema_of_any(),
        Some(word) if word.eq_ignore_ascii_case(PLAN) => plan_schema(),
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
                    "there is no kind {word:?}{hint}; there are {}, and {PLAN} for that of a plan",
                    all.join(", ")
                ))
            })?)
        }
    };
    let text = serde_json::to_string_pretty(&value).expect("a schema is always JSON");
    out::line(&text);
    Ok(Exit::Fine)
}

/// Prints what a change of each field of a resource kind, or of each, costs, how it is observed, and whether it may be
/// shown.
pub fn coverage(kind: Option<&str>, env: &Env<'_>) -> Result<Exit, CliError> {
    let kinds = match kind {
        None => ResourceKind::ALL.to_vec(),
        Some(word) => vec![resource_kind(word)?],
    };
    match env.output {
        Output::Json => {
            let kinds: Vec<_> = kinds
                .into_iter()
                .map(|kind| json!({ "kind": kind.to_string(), "fields": fields(kind) }))
                .collect();
            out::json(&json!({ "format": 1, "kinds": kinds }));
        }
        Output::Text => {
            let head = ["FIELD", "A CHANGE", "SHOWN", "OBSERVED"];
            let mut rows = vec![head.map(|word| env.style.bold(word)).to_vec()];
            for kind in kinds {
                rows.extend(fields(kind).iter().map(|field| row(kind, field)));
            }
            out::print(&table("", &rows));
        }
    }
    Ok(Exit::Fine)
}

/// The resource kind of this name. A kind of blueprint is the likeliest slip, and no resource: it becomes some.
fn resource_kind(word: &str) -> Result<ResourceKind, CliError> {
    let all = ResourceKind::ALL.map(ResourceKind::as_str);
    let found = ResourceKind::ALL
        .into_iter()
        .find(|kind| kind.as_str().eq_ignore_ascii_case(word));
    if let Some(kind) = found {
        return Ok(kind);
    }
    let why = if let Some(kind) = Kind::ALL
        .into_iter()
        .find(|kind| kind.as_str().eq_ignore_ascii_case(word))
    {
        format!(
            "{} is a kind of blueprint, and --coverage is about the resources that blueprints become",
            kind.as_str()
        )
    } else {
        let hint = nearest(word, all)
            .map(|n| format!("; did you mean {n}?"))
            .unwrap_or_default();
        format!("there is no resource kind {word:?}{hint}")
    };
    Err(CliError::Other(format!(
        "{why}; give one of {}, or none for all",
        all.join(", ")
    )))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_is_of_a_resource_kind_and_says_so_of_a_blueprint_kind() {
        assert_eq!(resource_kind("Process").unwrap(), ResourceKind::Process);
        for (word, expected) in [
            ("app", "App is a kind of blueprint, and --coverage is about"),
            (
                "proces",
                "there is no resource kind \"proces\"; did you mean process?",
            ),
        ] {
            let error = resource_kind(word).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
            assert!(error.contains("give one of ") && error.ends_with(", or none for all"));
        }
    }
}
