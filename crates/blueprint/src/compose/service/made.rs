//! What a service is made from and what it runs: its image or build, its command, its environment.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::Reader;
use super::literal;
use crate::check::name;
use crate::code::Code;
use crate::diagnostic::{Diagnostic, quote};
use crate::events::join;
use crate::set::{ImageDecl, Text};

/// Where one of the pairs under a key stands; of a list the list itself, which one it is not being known any more.
fn pair_at(at: &str, map: &Map<String, Value>, key: &str, name: &str) -> String {
    let at = join(at, key);
    match map.get(key) {
        Some(Value::Array(_)) => at,
        _ => join(&at, name),
    }
}

/// The texts of a value that is one or a list of them, each with its place.
fn texts<'v>(at: &str, value: &'v Value) -> Vec<(String, &'v str)> {
    match value {
        Value::Array(items) => {
            let items = items.iter().enumerate();
            let texts = items.filter_map(|(i, item)| Some((format!("{at}/{i}"), item.as_str()?)));
            texts.collect()
        }
        other => other
            .as_str()
            .map(|text| (at.to_owned(), text))
            .into_iter()
            .collect(),
    }
}

impl<'a> Reader<'a, '_> {
    pub(super) fn image(&mut self, at: &str, map: &'a Map<String, Value>) -> Option<ImageDecl> {
        match (map.get("image"), map.get("build")) {
            (Some(_), None) => self.get_text(at, map, "image").map(ImageDecl::Reference),
            (image, Some(build)) => {
                if image.is_some() {
                    let at = join(at, "image");
                    self.bad(
                        &at,
                        "a service with `build` takes its image from there",
                        "remove `image`: a built image is named by what it is built from",
                    );
                }
                self.build(&join(at, "build"), build)
            }
            (None, None) => {
                let spot = self.document.key_spot(at);
                self.out.push(
                    Diagnostic::error(Code::ComposeValue, "this service says nowhere what to run")
                        .here(&spot)
                        .hint("add `image: nginx:1.27`, or `build: .`"),
                );
                None
            }
        }
    }

    fn build(&mut self, at: &str, build: &'a Value) -> Option<ImageDecl> {
        let (context, map) = match build {
            Value::Object(map) => (
                map.get("context").map(|c| (join(at, "context"), c)),
                Some(map),
            ),
            context => (Some((at.to_owned(), context)), None),
        };
        if let Some(map) = map {
            self.only(at, map, &["context", "dockerfile", "target", "args"]);
        }
        let folder = match context {
            Some((at, context)) => {
                let text = self.text(&at, context)?;
                match crate::scalar::folder_beneath(text.trim_start_matches("./")) {
                    Ok(folder) => folder,
                    Err(_) if text == "." || text == "./" => String::new(),
                    Err(problem) => {
                        self.bad(
                            &at,
                            format!("{}: {problem}", quote(&text)),
                            "name a folder beside the Compose file",
                        );
                        return None;
                    }
                }
            }
            None => String::new(),
        };
        let file = match map {
            Some(map) if map.contains_key("dockerfile") => self.get_text(at, map, "dockerfile")?,
            _ => "Dockerfile".to_owned(),
        };
        let mut args = BTreeMap::new();
        let mut target = None;
        if let Some(map) = map {
            target = self.get_text(at, map, "target");
            let pairs = self.pairs(at, map, "args");
            for (name, value) in &pairs {
                self.likely_credential(&pair_at(at, map, "args", name), Some(name), name, value);
            }
            args = pairs.into_iter().map(|(k, v)| (k, literal(v))).collect();
        }
        Some(ImageDecl::Dockerfile {
            path: file,
            target,
            args,
            context: folder,
        })
    }

    /// Warns of a text that looks like a credential.
    fn likely_credential(&mut self, at: &str, variable: Option<&str>, what: &str, text: &str) {
        if let Some(warning) = crate::mask::warning(variable, || what.to_owned(), text) {
            let spot = self.document.spot(at);
            self.out.push(warning.here(&spot));
        }
    }

    pub(super) fn command(
        &mut self,
        at: &str,
        map: &'a Map<String, Value>,
        key: &str,
    ) -> Option<Vec<Text>> {
        let value = map.get(key)?;
        let at = join(at, key);
        for (at, text) in texts(&at, value) {
            self.likely_credential(&at, None, &name(&at), text);
        }
        match value {
            Value::Array(items) => Some(
                items
                    .iter()
                    .enumerate()
                    .filter_map(|(i, item)| self.text(&format!("{at}/{i}"), item))
                    .map(literal)
                    .collect(),
            ),
            _ => {
                // Compose splits a text into words as a shell does, without running one.
                let text = self.text(&at, value)?;
                match words(&text) {
                    Some(words) => Some(words.into_iter().map(literal).collect()),
                    None => {
                        self.bad(
                            &at,
                            "a quote in this command is not closed",
                            "write the command as a list of words",
                        );
                        None
                    }
                }
            }
        }
    }

    /// `KEY: value` or `- KEY=value`.
    pub(super) fn pairs(
        &mut self,
        at: &str,
        map: &'a Map<String, Value>,
        key: &str,
    ) -> BTreeMap<String, String> {
        let at = join(at, key);
        let mut pairs = BTreeMap::new();
        match map.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::Object(entries)) => {
                for (name, value) in entries {
                    let at = join(&at, name);
                    let text = match value {
                        Value::Number(number) => Some(number.to_string()),
                        Value::Bool(word) => Some(word.to_string()),
                        Value::Null => {
                            self.bad(&at, format!("{} takes its value from the environment, and blueprints have none", quote(name)), "write the value out");
                            None
                        }
                        other => self.text(&at, other),
                    };
                    if let Some(text) = text {
                        pairs.insert(name.clone(), text);
                    }
                }
            }
            Some(Value::Array(items)) => {
                for (i, item) in items.iter().enumerate() {
                    let at = format!("{at}/{i}");
                    let Some(text) = self.text(&at, item) else {
                        continue;
                    };
                    match text.split_once('=') {
                        Some((name, value)) => {
                            pairs.insert(name.to_owned(), value.to_owned());
                        }
                        None => {
                            // What follows is a value that was written in another way, and may be a secret.
                            let end = text.find([':', ' ', '\t']).unwrap_or(text.len());
                            let (name, value) = text.split_at(end);
                            self.out
                                .credentials
                                .add(value.trim_start_matches([':', ' ', '\t']));
                            self.bad(
                                &at,
                                format!(
                                    "{} takes its value from the environment, and blueprints have none",
                                    quote(name)
                                ),
                                "write it as NAME=VALUE",
                            );
                        }
                    }
                }
            }
            Some(other) => self.mismatch(&at, other, "a mapping or a list"),
        }
        pairs
    }

    pub(super) fn environment(
        &mut self,
        at: &str,
        map: &'a Map<String, Value>,
    ) -> BTreeMap<String, Text> {
        let whole = at;
        let pairs = self.pairs(at, map, "environment");
        let at = join(at, "environment");
        let mut env = BTreeMap::new();
        for (name, value) in pairs {
            if crate::scalar::is_env_name(&name) {
                let pair = pair_at(whole, map, "environment", &name);
                self.likely_credential(&pair, Some(&name), &name, &value);
                env.insert(name, literal(value));
            } else {
                self.bad(
                    &at,
                    format!(
                        "{} cannot be the name of an environment variable",
                        quote(&name)
                    ),
                    "use letters, digits and `_`, and do not start with a digit",
                );
            }
        }
        env
    }
}

/// Splits a command as a shell would split it, without anything else that a shell does; none if a quote stays open.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('"'), '\\') => {
                let next = chars.next()?;
                let word = word.get_or_insert_default();
                if !matches!(next, '"' | '\\' | '$' | '`') {
                    word.push('\\');
                }
                word.push(next);
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_a_shell_splits_it() {
        for (text, expected) in [
            (
                "nginx -g 'daemon off;'",
                Some(vec!["nginx", "-g", "daemon off;"]),
            ),
            (
                r#"a "b \"c\" \d" e\ f ''"#,
                Some(vec!["a", r#"b "c" \d"#, "e f", ""]),
            ),
            ("", Some(vec![])),
            ("a 'b", None),
            ("a \\", None),
        ] {
            let expected = expected.map(|w| w.into_iter().map(str::to_owned).collect());
            assert_eq!(words(text), expected, "{text}");
        }
    }
}
