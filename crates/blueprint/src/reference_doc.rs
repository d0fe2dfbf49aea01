//! `docs/blueprint-reference.md`: every key of every kind, written out of the schemas so that it cannot lag behind them.
//!
//! It reads nothing but the schemas and adds no facts of its own. The test below keeps the file current.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::schema::{Kind, schema};

const OPENING: &str = "# Blueprint reference

Every key of every kind. It is generated from the same types as [`schemas/`](../schemas), which editors use through
yaml-language-server: put `# yaml-language-server: $schema=PATH/schemas/plumb.json` on a file's first line.

One YAML document is one blueprint; any split over files gives the same result. Paths are relative to the file that they
stand in and may not leave the repository. Unknown keys are errors, and so are keys that would do nothing where they stand.

## How to read this page

Most of what has structure also has a short form, and each of these means the same as the one to its right:

| short | whole |
|---|---|
| `machines: web-1` | `machines: [web-1]` |
| `run: npm start` | `processes: { app: { run: npm start } }` |
| `ports: { http: 3000 }` | `ports: { http: { port: 3000 } }` |
| `health: /healthz` | `health: { path: /healthz }` |
| `secrets: [STRIPE_KEY]` | `secrets: { STRIPE_KEY: { secret: STRIPE_KEY, as: env } }` |
| `routes: [example.com/shop]` | `routes: [{ host: example.com, path: /shop }]` |
| `volumes: { index: /data }` | `volumes: { index: { path: /data } }` |
| `schedule: 15 3 * * *` | `schedule: { cron: 15 3 * * *, timezone: UTC }` |
| `hooks: { before: npm run migrate }` | `hooks: { before: [{ run: npm run migrate }] }` |
| `rollout: rolling` | `rollout: { strategy: rolling }` |
| `restart: never` | `restart: { policy: never }` |
| `stop: 30s` | `stop: { grace: 30s }` |
| `log: 50Mi` | `log: { max_size: 50Mi }` |
| `dockerfile: Dockerfile` | `dockerfile: { path: Dockerfile }` |

A text command runs under `sh -c`; a list is one command's words. Durations are `500ms`, `10s`, `5m`, `1h`; sizes `512Ki`,
`10Mi`, `1Gi`. `no`, `on` and `0123` are texts; a number where a text is expected (`1.10`) must be quoted.

## References

In texts such as the values of `env`, commands and the `content` of files, `${…}` stands for something that is known only
when a plan is made. The set is closed; there are no functions and no environment. `$${` is a literal `${`.

| reference | stands for |
|---|---|
| `${machine.name}` | the machine that the text is rendered for |
| `${machine.labels.X}` | its label X |
| `${machine.address}` | its address |
| `${app.X.url}`, `${app.X.host}`, `${app.X.ports.P}` | where the app X can be reached |
| `${service.X.url}` | where the Service X can be reached, with its credential: sensitive wherever it flows, and not for commands |
| `${service.X.host}`, `.port`, `.user`, `.database` | the parts of that without the password |
| `${vars.X}` | a variable of the manifest; also in many places that take no other reference, such as `routes` and `image` |
| `${release}` | the number of the release, in `env` only |
| `${commit}` | the commit that the blueprints come from |

## What goes with what

| | `run`, `processes` | `image`, `dockerfile` | `compose` | `static` |
|---|---|---|---|---|
| `source` | yes | `dockerfile` only, and needed | | yes, and needed |
| `runtime`, `build`, `hooks`, `on_disconnect` | yes | | | |
| `command`, `entrypoint`, `workdir`, `volumes`, `networks`, `labels` | | yes | | |
| `ports`, `health`, `schedule`, `user` | yes | yes | | |
| `env`, `secrets`, `uses`, `limits`, `restart`, `stop`, `log` | yes | yes | yes | |
| everything else | yes | yes | yes | yes |
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
    page.push_str("\n# Kinds\n");
    for (kind, one) in &kinds {
        let example = crate::written::example::of(*kind);
        section(&mut page, 2, kind.as_str(), one, &shared, Some(example));
    }
    page.push_str("\n# Values\n\nWhat several keys take, in alphabetical order.\n");
    // What document it is, is said by each kind's own section.
    let is_kind = |name: &str| {
        Kind::ALL
            .iter()
            .any(|k| format!("{}Kind", k.as_str()) == name)
    };
    for (name, one) in shared.iter().filter(|(name, _)| !is_kind(name)) {
        section(&mut page, 3, name, one, &shared, None);
    }
    page
}

fn section(
    page: &mut String,
    level: usize,
    name: &str,
    schema: &Value,
    shared: &Shared,
    example: Option<&str>,
) {
    let _ = write!(page, "\n{} {name}\n", "#".repeat(level));
    let meaning = text(schema, "description");
    if !meaning.is_empty() {
        let _ = write!(page, "\n{meaning}\n");
    }
    if let Some(example) = example {
        let _ = write!(page, "\n```yaml\n{example}```\n");
    }
    let Some(Value::Object(keys)) = schema.get("properties") else {
        let _ = write!(page, "\nWritten as: {}.\n", form(schema));
        if let Some(examples) = examples(schema) {
            let _ = write!(page, "\nFor example: {examples}.\n");
        }
        return;
    };
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .map(|all| all.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    page.push_str("\n| key | value | if left out | meaning |\n|---|---|---|---|\n");
    for (key, value) in keys {
        let absent = match value.get("default") {
            _ if required.contains(&key.as_str()) => "**required**".to_owned(),
            Some(default) => format!("`{}`", yaml(default)),
            None => String::new(),
        };
        // A key that says nothing of its own means what its value's type means.
        let of_type = text(value, "$ref").strip_prefix("#/$defs/");
        let of_type = of_type.and_then(|name| shared.get(name));
        let mut meaning = match text(value, "description") {
            "" => of_type.map(|t| text(t, "description")).unwrap_or_default(),
            own => own,
        }
        .to_owned();
        if let (Some(examples), None) = (examples(value), value.get("default")) {
            let _ = write!(meaning, " For example {examples}.");
        }
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let _ = writeln!(
            page,
            "| `{key}` | {} | {absent} | {} |",
            cell(&form(value)),
            cell(&meaning)
        );
    }
}

/// The examples of a schema, as they are written in a blueprint.
fn examples(schema: &Value) -> Option<String> {
    let all = schema.get("examples")?.as_array()?;
    let words: Vec<String> = all.iter().map(|one| format!("`{}`", yaml(one))).collect();
    Some(crate::diagnostic::alternatives(&words))
}

/// A value as one writes it on one line of YAML.
fn yaml(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{k}: {}", yaml(v)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(yaml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::String(text) => {
            // A text that YAML would read as something else, or not at all, stands in quotes.
            let plain = serde_yaml::from_str::<Value>(text).is_ok_and(|read| read == *value);
            let flow = !text.contains(['{', '}', '[', ']', ',', '#', '\n', '&', '*', '"']);
            if plain && flow {
                text.clone()
            } else {
                serde_json::to_string(text).unwrap_or_default()
            }
        }
        other => other.to_string(),
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
