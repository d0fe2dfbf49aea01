//! What differs between two resources, field by field, each with the cost and the redaction of its row in the coverage
//! table. Maps are compared key by key.

use std::collections::BTreeSet;

use plumb_model::coverage::{self, Cost, Redaction};
use plumb_model::plan::AttributeChange;
use plumb_model::secret::REDACTED;
use plumb_model::{
    Address, FileContent, FileSpec, Found, Hash, Resource, ResourceKind, ResourceSpec, SecretUse,
    symbolic,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Sides;

/// What hidden values are hashed with: without the address and whose history it is, nobody can try values out.
pub(super) struct Hiding<'a> {
    pub sides: &'a Sides<'a>,
    pub address: &'a Address,
}

impl Hiding<'_> {
    fn digest(&self, path: &str, old: Option<&Value>, new: Option<&Value>) -> Hash {
        let input = self.sides.input;
        let context = format!(
            "{}\n{}\n{}\n{path}",
            input.lineage, input.workspace, self.address
        );
        let both = serde_json::to_vec(&(old, new)).expect("model values are always JSON");
        Hash::keyed(&context, &both)
    }
}

/// One pair of values, which end up in the changes.
struct Pair {
    path: String,
    old: Option<Value>,
    new: Option<Value>,
    cost: Cost,
    /// How the values are hidden.
    hidden: Hidden,
}

#[derive(Clone, Copy, PartialEq)]
enum Hidden {
    /// Not at all.
    No,
    /// Key by key, so that it shows which one changed.
    ByKey,
    /// Whole.
    Yes,
}

/// The differences between two specs of one kind; none is a spec without any field.
pub(super) fn of_specs(
    hiding: &Hiding<'_>,
    before: Option<&ResourceSpec>,
    after: Option<&ResourceSpec>,
) -> Vec<AttributeChange> {
    let Some(kind) = before.or(after).map(ResourceSpec::kind) else {
        return Vec::new();
    };
    let old = before.map(ResourceSpec::fields).unwrap_or_default();
    let new = after.map(ResourceSpec::fields).unwrap_or_default();
    let nobody = BTreeSet::new();
    let unknown = after
        .and_then(|_| hiding.sides.desired.unknown.get(hiding.address))
        .unwrap_or(&nobody);
    of_fields(hiding, kind, old, new, unknown)
}

/// What adopting changes: what was found, against what is to be. Only what is known of both counts.
pub(super) fn of_found(
    hiding: &Hiding<'_>,
    found: &Found,
    after: &ResourceSpec,
) -> Vec<AttributeChange> {
    let new = after.fields();
    let mut old = Map::new();
    old.insert("path".to_owned(), new["path"].clone());
    old.insert("mode".to_owned(), json!(found.mode));
    for (field, value) in [("owner", &found.owner), ("group", &found.group)] {
        // Where the blueprint leaves it to the agent, it leaves it as it is found.
        let kept = new.get(field).is_none_or(Value::is_null);
        old.insert(
            field.to_owned(),
            if kept { Value::Null } else { json!(value) },
        );
    }
    if let ResourceSpec::File(FileSpec {
        content, notify, ..
    }) = after
    {
        old.insert("content".to_owned(), found_content(found, content));
        if !notify.is_empty() {
            old.insert("notify".to_owned(), json!(notify));
        }
    }
    of_fields(hiding, after.kind(), old, new, &BTreeSet::new())
}

fn found_content(found: &Found, wanted: &FileContent) -> Value {
    let same = found.digest == Some(wanted.digest()) && !matches!(wanted, FileContent::Template(_));
    match (&found.text, found.digest) {
        _ if same => json!(wanted),
        (Some(text), _) => json!(FileContent::Text(text.clone())),
        (None, Some(digest)) => json!(FileContent::Blob {
            digest,
            size: found.size.unwrap_or_default(),
        }),
        // Not everybody on that machine may read it, so nobody does here.
        (None, None) => Value::Null,
    }
}

fn of_fields(
    hiding: &Hiding<'_>,
    kind: ResourceKind,
    mut old: Map<String, Value>,
    mut new: Map<String, Value>,
    unknown: &BTreeSet<&'static str>,
) -> Vec<AttributeChange> {
    let mut changes = Vec::new();
    for row in coverage::fields(kind) {
        let pair = Pair {
            path: row.name.to_owned(),
            old: present(old.remove(row.name)),
            new: present(new.remove(row.name)),
            cost: row.cost,
            hidden: match row.redaction {
                Redaction::Public => Hidden::No,
                // A map of secrets is one of objects; a secret itself is not.
                Redaction::Sensitive if row.name == "secrets" => Hidden::ByKey,
                Redaction::Sensitive => Hidden::Yes,
            },
        };
        // What nobody knew before either has not changed.
        if unknown.contains(row.name) && (old.is_empty() || pair.old != pair.new) {
            changes.push(AttributeChange {
                path: pair.path,
                before: pair.old,
                after: None,
                sensitive: false,
                digest: None,
                unknown: true,
                cost: row.cost,
            });
        } else {
            compare(hiding, pair, &mut changes);
        }
    }
    changes
}

fn present(value: Option<Value>) -> Option<Value> {
    value.filter(|value| !value.is_null())
}

/// The old value and the new one.
type Values = (Option<Value>, Option<Value>);

/// Both as maps, where each is one or nothing at all; otherwise both as they were.
fn maps(old: Option<Value>, new: Option<Value>) -> Result<[Map<String, Value>; 2], Values> {
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => Ok([old, new]),
        (Some(Value::Object(old)), None) => Ok([old, Map::new()]),
        (None, Some(Value::Object(new))) => Ok([Map::new(), new]),
        other => Err(other),
    }
}

fn compare(hiding: &Hiding<'_>, pair: Pair, changes: &mut Vec<AttributeChange>) {
    let Pair {
        path,
        old,
        new,
        cost,
        hidden,
    } = pair;
    if old == new {
        return;
    }
    let (old, new) = if hidden == Hidden::Yes {
        (old, new)
    } else {
        match maps(old, new) {
            Ok([mut old, new]) => {
                // Key by key, each value moved out: those of the old that the new one has no more stay behind.
                let mut both: Vec<(String, Option<Value>, Option<Value>)> = Vec::new();
                for (key, new) in new {
                    let old = old.remove(&key);
                    both.push((key, old, Some(new)));
                }
                if !old.is_empty() {
                    both.extend(old.into_iter().map(|(key, old)| (key, Some(old), None)));
                    both.sort_by(|a, b| a.0.cmp(&b.0));
                }
                for (key, old, new) in both {
                    let inner = Pair {
                        path: [path.as_str(), &key].join("."),
                        old: present(old),
                        new: present(new),
                        cost,
                        hidden: match hidden {
                            Hidden::ByKey => Hidden::Yes,
                            other => other,
                        },
                    };
                    compare(hiding, inner, changes);
                }
                return;
            }
            Err(both) => both,
        }
    };
    let cost = cheaper_secret(&path, old.as_ref(), new.as_ref()).unwrap_or(cost);
    let sensitive = hidden != Hidden::No
        || holds_credential(&path, old.as_ref())
        || holds_credential(&path, new.as_ref());
    let digest = sensitive.then(|| hiding.digest(&path, old.as_ref(), new.as_ref()));
    let shown =
        |value: Option<Value>| value.map(|value| if sensitive { REDACTED.into() } else { value });
    changes.push(AttributeChange {
        path,
        before: shown(old),
        after: shown(new),
        sensitive,
        digest,
        unknown: false,
        cost,
    });
}

/// What another version of a secret costs where what runs is only told of it.
fn cheaper_secret(path: &str, old: Option<&Value>, new: Option<&Value>) -> Option<Cost> {
    if !path.starts_with("secrets.") {
        return None;
    }
    let used = |value: &Value| SecretUse::deserialize(value).ok();
    used(old?)?.cheaper(&used(new?)?)
}

/// Whether a value is symbolic text that holds a credential. Only environments and templates are symbolic: in any other
/// text such a reference is just what it looks like.
fn holds_credential(path: &str, value: Option<&Value>) -> bool {
    (path.starts_with("env.") || path == "content.template")
        && value
            .and_then(Value::as_str)
            .is_some_and(symbolic::holds_credential)
}

/// What is said about a resource outside its spec; it never touches what runs.
pub(super) fn around(old: &Resource, new: &Resource) -> Vec<AttributeChange> {
    let mut changes = Vec::new();
    let mut push = |path: &str, before: Value, after: Value| {
        if before != after {
            changes.push(AttributeChange {
                path: path.to_owned(),
                before: Some(before).filter(|v| !v.is_null()),
                after: Some(after).filter(|v| !v.is_null()),
                sensitive: false,
                digest: None,
                unknown: false,
                cost: Cost::InPlace,
            });
        }
    };
    push("drift", json!(old.drift), json!(new.drift));
    push("after", json!(old.after), json!(new.after));
    push("adopt", json!(old.adopt), json!(new.adopt));
    changes
}

/// A difference of anything that is JSON and nobody's secret.
pub(super) fn plain(path: &str, old: Option<Value>, new: Option<Value>) -> Option<AttributeChange> {
    (old != new).then(|| AttributeChange {
        path: path.to_owned(),
        before: old,
        after: new,
        sensitive: false,
        digest: None,
        unknown: false,
        cost: Cost::InPlace,
    })
}
