//! One attribute as people read it: a value, a pair with what changed marked, a diff, or the word that stands for a secret.
//! Everything that comes out is clean.

use std::fmt::Write as _;

use plumb_model::ResourceKind;
use plumb_model::escape;
use plumb_model::plan::{AttributeChange, Change, ChangeAction};
use serde_json::Value;

use super::diff::{self, Line, Part};
use super::named;

/// Lists of more elements than this are shown as a diff, an element a line.
const MAX_LIST: usize = 4;

/// An attribute to show.
#[derive(Debug)]
pub struct Shown {
    /// Its path.
    pub path: String,
    /// What it says.
    pub what: What,
}

/// What an attribute says.
#[derive(Debug)]
pub enum What {
    /// What stands for a value that is not shown.
    Word(&'static str),
    /// A value that is there from the start, comes (`+`) or goes (`-`).
    One(Option<char>, String),
    /// One value and then another.
    Pair(Vec<Part>, Vec<Part>),
    /// A text of several lines.
    Lines(Vec<Line>),
}

/// Makes an attribute readable. `full` cuts nothing.
pub fn shown(attribute: &AttributeChange, action: ChangeAction, full: bool) -> Shown {
    Shown {
        path: named::name(&attribute.path),
        what: what(attribute, action, full),
    }
}

fn what(attribute: &AttributeChange, action: ChangeAction, full: bool) -> What {
    let (before, after) = (attribute.before.as_ref(), attribute.after.as_ref());
    let plain = |value: &Value, full| said(&attribute.path, value, full);
    let created = action == ChangeAction::Create;
    if attribute.sensitive {
        return What::Word(match (before, after) {
            (None, _) if created => "(secret)",
            (None, Some(_)) => "(secret, new)",
            (Some(_), None) => "(secret, removed)",
            _ => "(secret, changed)",
        });
    }
    if attribute.unknown {
        return match before {
            None => What::Word("(not known yet)"),
            Some(before) => What::Pair(same(&plain(before, full)), same("(not known yet)")),
        };
    }
    let list = |v: Option<&Value>| v.is_some_and(Value::is_array);
    let new_list = (before.is_none() || after.is_none()) && (list(before) || list(after));
    if let (Some(old), Some(new)) = (lines(before), lines(after))
        && (many(before) || many(after))
        && !new_list
    {
        return What::Lines(diff::unified(&old, &new));
    }
    match (before, after) {
        (Some(before), Some(after)) => pair(&attribute.path, before, after, full),
        (None, Some(after)) => What::One((!created).then_some('+'), plain(after, full)),
        (Some(before), None) => What::One(
            (action != ChangeAction::Delete).then_some('-'),
            plain(before, full),
        ),
        (None, None) => What::Word("(nothing)"),
    }
}

fn same(text: &str) -> Vec<Part> {
    vec![Part {
        changed: true,
        text: text.to_owned(),
    }]
}

fn pair(path: &str, before: &Value, after: &Value, full: bool) -> What {
    let plain = |value: &Value, full| said(path, value, full);
    if digest(before).is_some() || digest(after).is_some() {
        return What::Pair(same(&plain(before, full)), same(&plain(after, full)));
    }
    let (old, new) = (plain(before, true), plain(after, true));
    let (old, new) = diff::inline(&old, &new);
    What::Pair(old, new)
}

/// Whether a value takes several lines.
fn many(value: Option<&Value>) -> bool {
    match value {
        Some(Value::String(text)) => text.trim_end_matches('\n').contains('\n'),
        Some(Value::Array(items)) => match command(items) {
            Some(command) => command.trim_end_matches('\n').contains('\n'),
            None => items.len() > MAX_LIST,
        },
        _ => false,
    }
}

/// A value as lines: a text as it is, a list with an element a line. None for what is neither.
fn lines(value: Option<&Value>) -> Option<String> {
    match value {
        None => Some(String::new()),
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(items)) if command(items).is_some() => command(items).map(str::to_owned),
        Some(Value::Array(items)) => Some(items.iter().fold(String::new(), |mut text, item| {
            let _ = writeln!(text, "{}", plain(item, true));
            text
        })),
        Some(_) => None,
    }
}

/// The shell's command of `["/bin/sh", "-c", COMMAND]`: what blueprints write as a text. Any other list of arguments is
/// shown as a list, so that nobody takes one for the other.
fn command(items: &[Value]) -> Option<&str> {
    match items {
        [shell, dash, command] if shell == "/bin/sh" && dash == "-c" => command.as_str(),
        _ => None,
    }
}

/// The short form of a digest or commit.
fn digest(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let (algorithm, hex) = match text.split_once(':') {
        Some((algorithm @ "sha256", hex)) => (Some(algorithm), hex),
        Some(_) => return None,
        None => (None, text),
    };
    let long = matches!(hex.len(), 40 | 64) && hex.bytes().all(|b| b.is_ascii_hexdigit());
    long.then(|| {
        let colon = algorithm.map(|a| format!("{a}:")).unwrap_or_default();
        format!("{colon}{}…", &hex[..12])
    })
}

/// The short form of what a moving name stands for.
pub fn resolved(text: &str, full: bool) -> String {
    let short = digest(&Value::from(text)).filter(|_| !full);
    short.unwrap_or_else(|| super::words::clean(text))
}

/// The value of an attribute on one line, as blueprints have it.
pub fn said(path: &str, value: &Value, full: bool) -> String {
    named::value(path, value).unwrap_or_else(|| plain(value, full))
}

/// A value on one line.
fn plain(value: &Value, full: bool) -> String {
    match value {
        Value::String(text) => digest(value)
            .filter(|_| !full)
            .unwrap_or_else(|| quoted(text)),
        Value::Array(items) => match command(items) {
            Some(command) if command.contains('\n') => quoted(command),
            Some(command) => super::words::clean(command),
            None if items.is_empty() => "[]".to_owned(),
            // Build steps.
            None if items.iter().all(Value::is_array) => {
                let commands: Vec<String> = items.iter().map(|i| plain(i, full)).collect();
                commands.join(" ; ")
            }
            None => {
                let words: Vec<String> = items.iter().map(word).collect();
                format!("[{}]", words.join(", "))
            }
        },
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{}: {}", super::words::clean(key), plain(value, full)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => super::words::clean(&other.to_string()),
    }
}

/// An element of a list: bare where that is plain.
fn word(value: &Value) -> String {
    match value {
        Value::String(text)
            if !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_./:=@%+".contains(&b)) =>
        {
            text.clone()
        }
        Value::String(text) => quoted(text),
        other => super::words::clean(&other.to_string()),
    }
}

/// A text in quotes, with what cannot be seen and what would end it escaped.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if escape::is_unsafe(c) || matches!(c, '"' | '\\' | '\t') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.push('"');
    out
}

/// Whether an attribute is worth a line.
pub fn tells(change: &Change, attribute: &AttributeChange) -> bool {
    let created = change.action == ChangeAction::Create;
    let silent = created && says_nothing(change.address.kind, attribute);
    !silent && !named::is_inner(change, attribute)
}

/// Whether an attribute of a new resource tells a reader nothing: it is what it always is unless a blueprint says otherwise,
/// or it repeats another. `--full` shows it all the same.
fn says_nothing(kind: ResourceKind, attribute: &AttributeChange) -> bool {
    if attribute.sensitive || attribute.unknown {
        return false;
    }
    let path = attribute.path.as_str();
    let after = attribute.after.as_ref();
    let text = after.and_then(Value::as_str);
    let empty = match after {
        None | Some(Value::Null) | Some(Value::Bool(false)) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        _ => false,
    };
    let usual = match path {
        // A name or a path of which the address consists.
        "path" | "name" => kind != ResourceKind::Route,
        "size" | "content.blob.size" | "timeout_ms" => true,
        "state" => text == Some("running"),
        "mode" => {
            text == Some(if kind == ResourceKind::Directory {
                "0755"
            } else {
                "0644"
            })
        }
        "on_delete" => text == Some("keep"),
        "drift" => text == Some("enforce"),
        "after" => true,
        "health.interval_ms"
        | "health.timeout_ms"
        | "health.healthy_threshold"
        | "health.unhealthy_threshold"
        | "health.probe.http.codes" => true,
        "restart.policy" => text == Some("always"),
        "restart.initial_ms" | "restart.max_ms" => true,
        _ => {
            ["stop.", "log.", "workdir.", "source."]
                .iter()
                .any(|p| path.starts_with(p))
                && kind != ResourceKind::Artifact
        }
    };
    empty || usual
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_short_and_nothing_in_them_can_act() {
        let hash = "0123456789ab".to_owned() + &"c".repeat(52);
        for (value, expected) in [
            (
                json!("a \"b\" \\ \u{1b}[31m\n"),
                r#""a \"b\" \\ \u{1b}[31m\n""#.to_owned(),
            ),
            (json!(hash), "0123456789ab…".to_owned()),
            (
                json!(format!("sha256:{hash}")),
                "sha256:0123456789ab…".to_owned(),
            ),
            (
                json!(["/bin/sh", "-c", "npm start && x"]),
                "npm start && x".to_owned(),
            ),
            (json!(["npm", "start"]), "[npm, start]".to_owned()),
            (
                json!(["node", "a, b", ""]),
                r#"[node, "a, b", ""]"#.to_owned(),
            ),
            (
                json!([["/bin/sh", "-c", "a b"], ["c", "d"]]),
                "a b ; [c, d]".to_owned(),
            ),
            (json!(8080), "8080".to_owned()),
            (json!({"a": "\u{202e}"}), r#"{a: "\u{202e}"}"#.to_owned()),
        ] {
            assert_eq!(plain(&value, false), expected);
        }
    }
}
