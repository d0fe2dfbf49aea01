//! The JSON Schemas (2020-12) of the language: published under `schemas/` for editors, and compiled once for
//! the structural check.

use std::sync::OnceLock;

use jsonschema::Validator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::shape::Shape;
use crate::written;

/// The kinds of document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The manifest.
    Workspace,
    /// Changes to the manifest for one environment.
    Overlay,
    /// A VM.
    Machine,
    /// An app.
    App,
    /// A machine's own set-up.
    Setup,
    /// Shared infrastructure.
    Service,
    /// A volume that several apps may use.
    Volume,
    /// A network that several apps may use.
    Network,
    /// A credential for a registry of container images.
    Registry,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Workspace,
        Self::Overlay,
        Self::Machine,
        Self::App,
        Self::Setup,
        Self::Service,
        Self::Volume,
        Self::Network,
        Self::Registry,
    ];

    /// The word that stands behind `kind:`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workspace => "Workspace",
            Self::Overlay => "Overlay",
            Self::Machine => "Machine",
            Self::App => "App",
            Self::Setup => "Setup",
            Self::Service => "Service",
            Self::Volume => "Volume",
            Self::Network => "Network",
            Self::Registry => "Registry",
        }
    }

    /// The kind that a word stands for.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The name of its schema under `schemas/`.
    #[must_use]
    pub fn schema_file(self) -> &'static str {
        match self {
            Self::Workspace => "workspace.json",
            Self::Overlay => "overlay.json",
            Self::Machine => "machine.json",
            Self::App => "app.json",
            Self::Setup => "setup.json",
            Self::Service => "service.json",
            Self::Volume => "volume.json",
            Self::Network => "network.json",
            Self::Registry => "registry.json",
        }
    }
}

/// A kind's schema.
#[must_use]
pub fn schema(kind: Kind) -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let root = match kind {
        Kind::Workspace => generator.root_schema_for::<written::Workspace>(),
        Kind::Overlay => generator.root_schema_for::<written::Overlay>(),
        Kind::Machine => generator.root_schema_for::<written::Machine>(),
        Kind::App => generator.root_schema_for::<written::App>(),
        Kind::Setup => generator.root_schema_for::<written::Setup>(),
        Kind::Service => generator.root_schema_for::<written::Service>(),
        Kind::Volume => generator.root_schema_for::<written::Volume>(),
        Kind::Network => generator.root_schema_for::<written::Network>(),
        Kind::Registry => generator.root_schema_for::<written::Registry>(),
    };
    let mut value = root.to_value();
    without_null(&mut value);
    if let Value::Object(map) = &mut value {
        let example: Value = serde_yaml::from_str(written::example::of(kind))
            .expect("the examples are written by hand, and a test parses each");
        map.insert("examples".into(), json!([example]));
    }
    value
}

/// The schema of any document: one of the kinds.
#[must_use]
pub fn schema_of_any() -> Value {
    let mut definitions = Map::new();
    let mut branches = Vec::new();
    for kind in Kind::ALL {
        let Value::Object(mut one) = schema(kind) else {
            continue;
        };
        one.remove("$schema");
        if let Some(Value::Object(shared)) = one.remove("$defs") {
            definitions.extend(shared);
        }
        definitions.insert(kind.as_str().to_owned(), Value::Object(one));
        branches.push(json!({ "$ref": format!("#/$defs/{}", kind.as_str()) }));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Blueprint",
        "description": "A Plumb blueprint: one document of any kind.",
        "oneOf": branches,
        "$defs": definitions,
    })
}

/// A key that may be left out may not therefore be null: `ports:` with nothing behind it is a mistake, and
/// messages about "X or null" help nobody.
fn without_null(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(map) => {
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|t| t != "null");
                if let [one] = types.as_slice() {
                    let one = one.clone();
                    map.insert("type".into(), one);
                }
            }
            if let Some(Value::Array(words)) = map.get_mut("enum") {
                words.retain(|word| !word.is_null());
            }
            if let Some(Value::Array(branches)) = map.get_mut("anyOf") {
                let before = branches.len();
                branches.retain(|branch| branch != &json!({ "type": "null" }));
                if branches.len() < before
                    && let [Value::Object(one)] = branches.as_slice()
                {
                    let one = one.clone();
                    map.remove("anyOf");
                    for (key, item) in one {
                        map.entry(key).or_insert(item);
                    }
                }
            }
            map.values_mut().for_each(without_null);
        }
        _ => {}
    }
}

/// A schema and its compiled forms.
pub(crate) struct Compiled {
    pub schema: Value,
    /// Says yes or no, fast; a test holds that there is one of each kind.
    pub shape: Option<Shape>,
    validator: OnceLock<Validator>,
}

impl Compiled {
    /// What can say why. Compiling it costs more than checking a thousand documents, so that is put off until
    /// there is something to explain.
    pub fn validator(&self) -> &Validator {
        self.validator.get_or_init(|| {
            jsonschema::draft202012::new(&self.schema)
                .expect("the schemas are generated from types, and a test compiles each")
        })
    }
}

/// The compiled schema of a kind, made once.
pub(crate) fn compiled(kind: Kind) -> &'static Compiled {
    static ALL: [OnceLock<Compiled>; Kind::ALL.len()] =
        [const { OnceLock::new() }; Kind::ALL.len()];
    ALL[kind as usize].get_or_init(|| {
        let schema = schema(kind);
        Compiled {
            shape: Shape::compile(&schema),
            schema,
            validator: OnceLock::new(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refresh with `PLUMB_UPDATE=1 cargo test -p plumb-blueprint schemas`.
    #[test]
    fn the_published_schemas_are_those_of_the_types() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
        let all = Kind::ALL
            .into_iter()
            .map(|kind| (kind.schema_file(), schema(kind)))
            .chain([("plumb.json", schema_of_any())]);
        for (name, schema) in all {
            let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
            let path = folder.join(name);
            if std::env::var_os("PLUMB_UPDATE").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            assert!(
                std::fs::read_to_string(&path).unwrap_or_default() == text,
                "schemas/{name} is stale: run `PLUMB_UPDATE=1 cargo test -p plumb-blueprint schemas`"
            );
        }
    }

    #[test]
    fn each_schema_compiles_and_knows_no_null() {
        for kind in Kind::ALL {
            compiled(kind).validator();
            let text = compiled(kind).schema.to_string();
            assert!(!text.contains("null"), "{}: {text}", kind.as_str());
        }
    }

    /// Each property of a schema, with its pointer.
    fn properties<'a>(schema: &'a Value, at: &str, out: &mut Vec<(String, &'a Value)>) {
        match schema {
            Value::Object(map) => {
                if let Some(Value::Object(keys)) = map.get("properties") {
                    out.extend(keys.iter().map(|(key, v)| (format!("{at}/{key}"), v)));
                }
                for (key, value) in map.iter().filter(|(key, _)| *key != "examples") {
                    properties(value, &format!("{at}/{key}"), out);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| properties(item, at, out)),
            _ => {}
        }
    }

    /// What a schema refers to, or itself.
    fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
        let name = schema["$ref"].as_str().and_then(|r| r.strip_prefix('#'));
        name.and_then(|at| root.pointer(at)).unwrap_or(schema)
    }

    /// Mutation: drop the doc comment or the examples of any field under `written`.
    #[test]
    fn every_key_has_a_description_and_shows_how_it_is_written() {
        let mut poor = Vec::new();
        for kind in Kind::ALL {
            let root = schema(kind);
            let mut all = Vec::new();
            properties(&root, "", &mut all);
            assert!(all.len() > 4, "{}", kind.as_str());
            for (at, property) in all {
                if property["description"].as_str().unwrap_or_default().len() < 8 {
                    poor.push(format!("{} {at} has no description", kind.as_str()));
                }
                let told = |s: &Value| {
                    ["examples", "default", "enum", "const"]
                        .iter()
                        .any(|key| s.get(*key).is_some())
                        || s["type"] == "boolean"
                };
                if !told(property) && !told(resolved(property, &root)) {
                    poor.push(format!("{} {at} has no example", kind.as_str()));
                }
            }
            assert!(root["title"].is_string() && root["description"].is_string());
        }
        assert!(poor.is_empty(), "{}", poor.join("\n"));
    }

    /// Mutation: change an example or a default into one that the schema refuses.
    #[test]
    fn examples_and_defaults_are_what_their_schemas_take() {
        let mut wrong = Vec::new();
        for kind in Kind::ALL {
            let root = schema(kind);
            let mut all = Vec::new();
            properties(&root, "", &mut all);
            let definitions = root["$defs"].as_object().cloned().unwrap_or_default();
            let types = definitions.iter().map(|(name, s)| (name.clone(), s));
            let whole = std::iter::once((kind.as_str().to_owned(), &root));
            for (at, one) in all.into_iter().chain(types).chain(whole) {
                let mut alone = one.clone();
                alone["$defs"] = root["$defs"].clone();
                let validator = jsonschema::draft202012::new(&alone).unwrap();
                let examples = one["examples"].as_array().into_iter().flatten();
                for value in examples.chain(one.get("default")) {
                    if !validator.is_valid(value) {
                        wrong.push(format!("{} {at}: {value}", kind.as_str()));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
