//! The structural check of one document against its kind's schema, in words of our own: what is unknown,
//! missing, of the wrong type or none of the allowed values.
//!
//! Whatever is about the meaning of a text (names, durations, paths, references) is left to `convert`, which
//! can say more than a pattern.

use jsonschema::error::ValidationErrorKind as Is;
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;

use crate::code::Code;
use crate::diagnostic::{Diagnostic, Diagnostics, alternatives, quote};
use crate::document::Document;
use crate::events::join;
use crate::hints;
use crate::nearest::nearest;
use crate::schema::{Kind, compiled};
use crate::tree;

/// What the check found besides the problems that it reported.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Pointers whose value has been complained about.
    pub reported: std::collections::HashSet<String>,
    /// Something is against the schema that `convert` is expected to complain about.
    pub left: Vec<String>,
}

/// Checks a document.
pub(crate) fn check(
    document: &Document<'_>,
    kind: Kind,
    value: &tree::Value<'_>,
    out: &mut Diagnostics,
) -> Checked {
    let compiled = compiled(kind);
    if compiled.shape.as_ref().is_some_and(|s| s.accepts(value)) {
        return Checked::default();
    }
    let value = &value.to_json();
    out.credentials.of_document(value);
    let mut pass = Pass {
        document,
        kind,
        schema: &compiled.schema,
        root: value,
        out,
        done: Checked::default(),
    };
    // Unknown keys first, since a key without a driver explains what is missing beside it.
    let (unknown, others): (Vec<_>, Vec<_>) = compiled
        .validator()
        .iter_errors(value)
        .partition(|e| matches!(e.kind(), Is::AdditionalProperties { .. }));
    for error in unknown.iter().chain(&others) {
        pass.one(error);
    }
    pass.done
}

struct Pass<'a, 'b> {
    document: &'a Document<'a>,
    kind: Kind,
    schema: &'static Value,
    root: &'a Value,
    out: &'b mut Diagnostics,
    done: Checked,
}

impl Pass<'_, '_> {
    fn one(&mut self, error: &ValidationError<'_>) {
        let pointer = error.instance_path().as_str();
        match error.kind() {
            Is::AdditionalProperties { unexpected } => {
                let known = self.siblings(error);
                for key in unexpected {
                    self.unknown_key(pointer, key, &known);
                }
            }
            Is::Required { property } => {
                if let Some(key) = property.as_str() {
                    self.missing(pointer, key);
                }
            }
            Is::Type { .. } => self.wrong_type(pointer, &expected(error)),
            Is::Enum { .. } | Is::Constant { .. } => self.bad_choice(pointer, &choices(error), &[]),
            Is::AnyOf { context } | Is::OneOfNotValid { context } => {
                self.branches(pointer, context)
            }
            Is::Minimum { limit } | Is::ExclusiveMinimum { limit } => {
                self.out_of_range(pointer, &format!("at least {limit}"));
            }
            Is::Maximum { limit } | Is::ExclusiveMaximum { limit } => {
                self.out_of_range(pointer, &format!("at most {limit}"));
            }
            Is::MinItems { .. } | Is::MinProperties { .. } => {
                self.report(
                    pointer,
                    Code::OutOfRange,
                    format!("{} may not be empty", name(pointer)),
                    None,
                );
            }
            Is::MaxItems { limit } => {
                self.report(
                    pointer,
                    Code::OutOfRange,
                    format!("{} has more than {limit} entries", name(pointer)),
                    None,
                );
            }
            Is::Pattern { .. } | Is::MinLength { .. } | Is::MaxLength { .. } => {
                self.done.left.push(pointer.to_owned());
            }
            _ => self.report(
                pointer,
                Code::AgainstSchema,
                format!("{} is not as the language has it", name(pointer)),
                None,
            ),
        }
    }

    /// A value that fits none of several forms: the form that it is closest to is what it was meant to be.
    fn branches(&mut self, pointer: &str, context: &[Vec<ValidationError<'static>>]) {
        let value = self.root.pointer(pointer).unwrap_or(&Value::Null);
        let other_form = |error: &ValidationError<'_>| {
            error.instance_path().as_str() == pointer
                && match error.kind() {
                    Is::Type { .. } => true,
                    Is::Enum { .. } | Is::Constant { .. } => !value.is_string(),
                    _ => false,
                }
        };
        let all_choices: Option<Vec<Vec<String>>> = context
            .iter()
            .map(|branch| match branch.as_slice() {
                [one] if matches!(one.kind(), Is::Enum { .. } | Is::Constant { .. }) => {
                    Some(choices(one))
                }
                _ => None,
            })
            .collect();
        if let Some(choices) = all_choices
            && value.is_string()
        {
            return self.bad_choice(pointer, &choices.concat(), &[]);
        }
        let forms = forms(pointer, context);
        let closest = context
            .iter()
            .filter(|branch| !branch.iter().any(other_form))
            .min_by_key(|branch| branch.len());
        if let Some(branch) = closest {
            for error in branch {
                if error.instance_path().as_str() == pointer
                    && matches!(
                        error.kind(),
                        Is::Enum { .. } | Is::Constant { .. } | Is::OneOfNotValid { .. }
                    )
                {
                    let choices: Vec<String> = forms
                        .iter()
                        .filter_map(|f| f.strip_prefix('`')?.strip_suffix('`'))
                        .map(str::to_owned)
                        .collect();
                    let others: Vec<String> = forms
                        .iter()
                        .filter(|f| !f.starts_with('`'))
                        .cloned()
                        .collect();
                    self.bad_choice(pointer, &choices, &others);
                } else {
                    self.one(error);
                }
            }
            return;
        }
        self.wrong_type(pointer, &forms);
    }

    /// The keys that the mapping of an unknown key may have.
    fn siblings(&self, error: &ValidationError<'_>) -> Vec<&'static str> {
        let path = error.schema_path().as_str();
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let keys = self
            .schema
            .pointer(parent)
            .and_then(|s| s["properties"].as_object());
        keys.map(|k| k.keys().map(String::as_str).collect())
            .unwrap_or_default()
    }

    fn unknown_key(&mut self, parent: &str, key: &str, known: &[&str]) {
        if hints::is_secret(self.kind, parent) {
            return self.done.left.push(parent.to_owned());
        }
        let pointer = join(parent, key);
        let spot = self.document.key_spot(&pointer);
        if !self.done.reported.insert(pointer) {
            return;
        }
        let place = match name(parent).as_str() {
            "" => match self.kind {
                Kind::App | Kind::Overlay => format!("an {}", self.kind.as_str()),
                kind => format!("a {}", kind.as_str()),
            },
            place => place.to_owned(),
        };
        let known_words: Vec<String> = known.iter().map(|k| format!("`{k}`")).collect();
        let hint = match nearest(key, known.iter().copied()) {
            Some(meant) => {
                // That it is missing is the same slip of the pen.
                let there = join(parent, meant);
                if self.root.pointer(&there).is_none() {
                    self.done.reported.insert(there);
                }
                format!("did you mean `{meant}`?")
            }
            None => format!("it takes {}", alternatives(&known_words)),
        };
        self.out.push(
            Diagnostic::error(
                Code::UnknownKey,
                format!("{} is no key of {place}", quote(key)),
            )
            .here(&spot)
            .hint(hint),
        );
    }

    fn missing(&mut self, parent: &str, key: &str) {
        if hints::is_secret(self.kind, parent) {
            return self.done.left.push(parent.to_owned());
        }
        if !self.done.reported.insert(join(parent, key)) {
            return;
        }
        let place = match name(parent).as_str() {
            "" => format!("this {}", self.kind.as_str()),
            place => place.to_owned(),
        };
        self.out.push(
            Diagnostic::error(Code::MissingKey, format!("{place} has no `{key}`"))
                .here(&self.document.spot(parent))
                .maybe_hint(
                    hints::example(self.kind, key).map(|e| format!("add it, for example `{e}`")),
                ),
        );
    }

    fn wrong_type(&mut self, pointer: &str, expected: &[String]) {
        if hints::is_secret(self.kind, pointer) {
            return self.done.left.push(pointer.to_owned());
        }
        if !self.done.reported.insert(pointer.to_owned()) {
            return;
        }
        let value = self.root.pointer(pointer).unwrap_or(&Value::Null);
        self.out
            .push(wrong_type(self.document, pointer, value, expected));
    }

    /// A text that is none of the choices; `others` are the forms besides a text that the place takes.
    fn bad_choice(&mut self, pointer: &str, choices: &[String], others: &[String]) {
        let value = self.root.pointer(pointer).unwrap_or(&Value::Null);
        let mut words: Vec<String> = choices.iter().map(|c| format!("`{c}`")).collect();
        words.extend_from_slice(others);
        let Some(text) = value.as_str() else {
            return self.wrong_type(pointer, &words);
        };
        let close = nearest(text, choices.iter().map(String::as_str)).or_else(|| {
            choices
                .iter()
                .map(String::as_str)
                .find(|c| text.contains(c))
        });
        let takes_number = others.iter().any(|o| o.contains("number"));
        let hint = match close {
            _ if takes_number && text.parse::<u64>().is_ok() => {
                format!("write it without quotes: {text}")
            }
            Some(meant) if words.len() > 1 => {
                format!("did you mean `{meant}`? It takes {}", alternatives(&words))
            }
            _ => format!("it takes {}", alternatives(&words)),
        };
        let message = format!("{} is no choice for {}", quote(text), name(pointer));
        self.report(pointer, Code::BadChoice, message, Some(hint));
    }

    fn out_of_range(&mut self, pointer: &str, limit: &str) {
        let value = self.root.pointer(pointer).unwrap_or(&Value::Null);
        self.report(
            pointer,
            Code::OutOfRange,
            format!("{} is {value}, and must be {limit}", name(pointer)),
            None,
        );
    }

    fn report(&mut self, pointer: &str, code: Code, message: String, hint: Option<String>) {
        if self.done.reported.insert(pointer.to_owned()) {
            let spot = self.document.spot(pointer);
            self.out.push(
                Diagnostic::error(code, message)
                    .here(&spot)
                    .maybe_hint(hint),
            );
        }
    }
}

/// The forms that a place takes, in words; choices in backticks.
fn forms(pointer: &str, context: &[Vec<ValidationError<'static>>]) -> Vec<String> {
    fn of(pointer: &str, branch: &[ValidationError<'_>], out: &mut Vec<String>) {
        let here = || {
            branch
                .iter()
                .filter(|e| e.instance_path().as_str() == pointer)
        };
        let mut words: Vec<String> = here().flat_map(choices).map(|c| format!("`{c}`")).collect();
        for error in here() {
            if let Is::OneOfNotValid { context } | Is::AnyOf { context } = error.kind() {
                context
                    .iter()
                    .for_each(|branch| of(pointer, branch, &mut words));
            }
        }
        // A choice says more than that it is a text.
        if words.is_empty() {
            words = here().flat_map(expected).collect();
        }
        for word in words {
            if !out.contains(&word) {
                out.push(word);
            }
        }
    }
    let mut out = Vec::new();
    context
        .iter()
        .for_each(|branch| of(pointer, branch, &mut out));
    out
}

/// How a value of the first expected type is written.
fn by_example(expected: &[String]) -> Option<String> {
    let example = match expected.first()?.as_str() {
        "text" => "write a text, such as `name`",
        "a whole number" => "write a whole number, such as `2`",
        "a number" => "write a number, such as `1.5`",
        "true or false" => "write `true` or `false`, without quotes",
        "a list" => "write a list, such as `[one, two]`",
        "a mapping" => "write a mapping, such as `{ key: value }`",
        _ => return None,
    };
    Some(example.to_owned())
}

/// A value of the wrong type, with how to make a text of a number.
pub(crate) fn wrong_type(
    document: &Document<'_>,
    pointer: &str,
    value: &Value,
    expected: &[String],
) -> Diagnostic {
    let spot = document.spot(pointer);
    let found = match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    };
    let wanted = alternatives(expected);
    let message = format!("{}: expected {wanted}, found {found}", name(pointer));
    let takes_text = expected.iter().any(|e| e == "text");
    let hint = match value {
        Value::Null => Some("give it a value, or remove the key".to_owned()),
        Value::Number(_) | Value::Bool(_) if takes_text => {
            let written = document
                .text_of(pointer)
                .unwrap_or_else(|| value.to_string());
            let whole = value.as_u64().is_some();
            Some(hints::quote_it(pointer, &written, whole))
        }
        Value::String(text)
            if text.parse::<f64>().is_ok() && expected.iter().any(|e| e.contains("number")) =>
        {
            Some(format!("write it without quotes: {text}"))
        }
        Value::String(text)
            if crate::syntax::glued(text) && expected.iter().any(|e| e == "a mapping") =>
        {
            Some("write a space after the `:`".to_owned())
        }
        _ => hints::form(pointer, value)
            .map(str::to_owned)
            .or_else(|| by_example(expected)),
    };
    Diagnostic::error(Code::WrongType, message)
        .here(&spot)
        .maybe_hint(hint)
}

fn expected(error: &ValidationError<'_>) -> Vec<String> {
    let word = |kind: &str| match kind {
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a mapping",
        _ => "nothing",
    };
    match error.kind() {
        Is::Type { kind } => match kind {
            jsonschema::error::TypeKind::Single(one) => vec![word(one.as_str()).to_owned()],
            jsonschema::error::TypeKind::Multiple(several) => several
                .into_iter()
                .map(|one: JsonType| word(one.as_str()).to_owned())
                .collect(),
        },
        _ => Vec::new(),
    }
}

fn choices(error: &ValidationError<'_>) -> Vec<String> {
    let text = |v: &Value| v.as_str().map(str::to_owned);
    match error.kind() {
        Is::Enum { options } => options
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(text)
            .collect(),
        Is::Constant { expected_value } => text(expected_value).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// How a place is called in a message: its last key, with the one above where it is but a name or a number.
pub(crate) fn name(pointer: &str) -> String {
    let segments: Vec<String> = pointer
        .split('/')
        .skip(1)
        .map(|s| s.replace("~1", "/").replace("~0", "~"))
        .collect();
    match segments.as_slice() {
        [] => String::new(),
        [one] => quote(one),
        [.., above, last] if last.bytes().all(|b| b.is_ascii_digit()) => {
            format!(
                "entry {} of {}",
                last.parse::<u64>().map_or(0, |n| n + 1),
                quote(above)
            )
        }
        [.., above, last] => quote(&format!("{above}.{last}")),
    }
}
