//! `docs/blueprint-reference.md`: every key of every kind, written out of the schemas so that it cannot lag behind them.
//!
//! It reads nothing but the schemas and adds no facts of its own. The test below keeps the file current.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::schema::{Kind, schema};

const OPENING: &str = "# Blueprint reference

Every key of every kind that this version drives. It is generated from the same types as [`schemas/`](../schemas), which
editors use through yaml-language-server: put `# yaml-language-server: $schema=PATH/schemas/plumb.json` on a file's first line.

One YAML document is one blueprint; any split over files gives the same result. Paths are relative to the file that they
stand in and may not leave the repository. Unknown keys are errors, and so are keys of the language that this version has
no driver for.
";

/// What several kinds use, by name.
type Shared = BTreeMap<String, Value>;

/// The whole page, in Markdown.
#[must_use]
pub fn blueprint_reference() -> String {
    let mut page = OPENING.to_owned();
    let kinds = Kind::ALL.map(|kind| (kind, schema(kind)));
    let mut shared: Shared = BTreeMap::new();
    for (_, one) in &kinds {
        if let Some(Value::Object(definitions)) = one.get("$defs") {
            shared.extend(definitions.clone());
        }
    }
    for (kind, one) in &kinds {
        section(&mut page, 2, kind.as_str(), one, &shared);
    }
    page.push_str("\n## Values\n");
    // What document it is, is said by each kind's own section.
    let is_kind = |name: &str| {
        Kind::ALL
            .iter()
            .any(|k| format!("{}Kind", k.as_str()) == name)
    };
    for (name, one) in shared.iter().filter(|(name, _)| !is_kind(name)) {
        section(&mut page, 3, name, one, &shared);
    }
    page
}

fn section(page: &mut String, level: usize, name: &str, schema: &Value, shared: &Shared) {
    let _ = write!(page, "\n{} {name}\n", "#".repeat(level));
    let meaning = text(schema, "description");
    if !meaning.is_empty() {
        let _ = write!(page, "\n{meaning}\n");
    }
    let Some(Value::Object(keys)) = schema.get("properties") else {
        let _ = write!(page, "\nWritten as: {}.\n", form(schema));
        return;
    };
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .map(|all| all.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    page.push_str("\n| key | value | meaning |\n|---|---|---|\n");
    for (key, value) in keys {
        let must = if required.contains(&key.as_str()) {
            " (required)"
        } else {
            ""
        };
        // A key that says nothing of its own means what its value's type means.
        let of_type = text(value, "$ref").strip_prefix("#/$defs/");
        let of_type = of_type.and_then(|name| shared.get(name));
        let meaning = match text(value, "description") {
            "" => of_type.map(|t| text(t, "description")).unwrap_or_default(),
            own => own,
        };
        let meaning = meaning.replace('|', "\\|");
        let _ = writeln!(
            page,
            "| `{key}`{must} | {} | {meaning} |",
            form(value).replace('|', "\\|")
        );
    }
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// How a value is written, in words.
fn form(schema: &Value) -> String {
    if let Some(name) = text(schema, "$ref").strip_prefix("#/$defs/") {
        return match name.strip_suffix("Kind") {
            Some(kind) if Kind::parse(kind).is_some() => format!("`{kind}`"),
            _ => format!("[{name}](#{})", name.to_lowercase()),
        };
    }
    if let Some(Value::Array(branches)) = schema.get("anyOf") {
        return either(branches.iter().map(form));
    }
    if let Some(Value::Array(words)) = schema.get("enum") {
        return either(
            words
                .iter()
                .filter_map(Value::as_str)
                .map(|w| format!("`{w}`")),
        );
    }
    match text(schema, "type") {
        "array" => format!("a list of {}", item(schema, "items")),
        "object" => match schema.get("additionalProperties") {
            Some(Value::Object(_)) => {
                format!(
                    "a mapping of names to {}",
                    item(schema, "additionalProperties")
                )
            }
            _ => "a mapping".to_owned(),
        },
        "integer" => match (schema.get("minimum"), schema.get("maximum")) {
            (Some(least), Some(most)) => format!("a number from {least} to {most}"),
            _ => "a whole number".to_owned(),
        },
        "number" => "a number".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        "string" => match text(schema, "pattern") {
            "" => "a text".to_owned(),
            pattern => format!("a text of the form `{pattern}`"),
        },
        _ => "any value".to_owned(),
    }
}

/// The form of what a list or mapping holds, such as "[Port](#port)" or "(a text or a list of texts)".
fn item(schema: &Value, key: &str) -> String {
    let inner = schema.get(key).map(form).unwrap_or_default();
    if inner.contains(" or ") {
        return format!("({inner})");
    }
    match inner.as_str() {
        "a text" => "texts".to_owned(),
        "a whole number" => "whole numbers".to_owned(),
        _ => inner,
    }
}

fn either(forms: impl Iterator<Item = String>) -> String {
    forms.collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refresh with `PLUMB_UPDATE=1 cargo test -p plumb-blueprint reference_doc`.
    #[test]
    fn the_published_reference_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../docs/blueprint-reference.md");
        let page = blueprint_reference();
        if std::env::var_os("PLUMB_UPDATE").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).unwrap_or_default() == page,
            "docs/blueprint-reference.md is stale: run `PLUMB_UPDATE=1 cargo test -p plumb-blueprint reference_doc`"
        );
    }

    #[test]
    fn every_key_has_a_form_and_every_link_a_section() {
        let page = blueprint_reference();
        assert!(!page.contains("any value"), "{page}");
        for link in page.split("](#").skip(1) {
            let anchor = link.split(')').next().unwrap();
            let found = page.lines().any(|l| {
                l.strip_prefix("### ")
                    .is_some_and(|h| h.to_lowercase() == anchor)
            });
            assert!(found, "no section {anchor}");
        }
    }
}
