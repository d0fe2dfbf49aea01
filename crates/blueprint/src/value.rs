//! The second pass over a document: its values, without their places.
//!
//! serde_yaml decides what is a number and what is a text; this only makes JSON values of it and carries out
//! merge keys (`<<`). Whoever calls it has been through the event pass, so depth and size are bounded.

use serde::Deserialize;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The documents of one chunk, each a value or serde_yaml's error. It ends with the first error: behind a
/// syntax error, serde_yaml repeats it for ever.
pub(crate) fn read(text: &str) -> Vec<Result<Value, serde_yaml::Error>> {
    let mut out = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let read = Any::deserialize(document).map(|any| any.0);
        let failed = read.is_err();
        out.push(read);
        if failed {
            break;
        }
    }
    out
}

/// A value in which the first of two equal keys counts, as the event pass reports the second.
struct Any(Value);

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor).map(Self)
    }
}

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        // JSON has no infinity; the nearest number is out of every range too.
        let finite = if value.is_nan() {
            f64::MAX
        } else {
            value.clamp(f64::MIN, f64::MAX)
        };
        Ok(Number::from_f64(finite).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(Any(value)) = seq.next_element()? {
            out.push(value);
        }
        Ok(out.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        // Asked for a text, serde_yaml hands a key over as it is written: `80` is "80", `0x50` is "0x50".
        while let Some(key) = map.next_key::<String>()? {
            let Any(value) = map.next_value()?;
            out.entry(key).or_insert(value);
        }
        Ok(out.into())
    }
}

/// Carries out merge keys, bottom up: what stands in the mapping wins over what is merged into it, and the
/// earlier of two merged mappings over the later one. Tells the pointers of those that merge no mapping.
pub(crate) fn merge(value: &mut Value, pointer: &str, bad: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                merge(item, &format!("{pointer}/{at}"), bad);
            }
        }
        Value::Object(map) => {
            for (key, item) in map.iter_mut() {
                if item.is_array() || item.is_object() {
                    merge(item, &crate::events::join(pointer, key), bad);
                }
            }
            let merged = match map.remove("<<") {
                None => return,
                Some(Value::Array(items)) => items,
                Some(one) => vec![one],
            };
            for source in merged {
                let Value::Object(source) = source else {
                    bad.push(format!("{pointer}/<<"));
                    continue;
                };
                for (key, item) in source {
                    map.entry(key).or_insert(item);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_text_is_a_text_and_what_looks_like_a_number_is_a_number() {
        let text = "[no, on, 0123, 12:30:45, 2026-11-01, 1e3, 0o17, 1.10, ~, true, '1']";
        let value = read(text).remove(0).unwrap();
        assert_eq!(
            value,
            serde_json::json!([
                "no",
                "on",
                "0123",
                "12:30:45",
                "2026-11-01",
                1000.0,
                15,
                1.1,
                null,
                true,
                "1"
            ])
        );
    }

    /// Mutation: go on behind an error, and this fills memory.
    #[test]
    fn a_syntax_error_ends_the_reading() {
        let text = format!("{{ \"{}\": x }}\n...\nb: 1\n", "x".repeat(2000));
        let read = read(&text);
        assert!(matches!(read.as_slice(), [Err(_)]), "{read:?}");
    }

    #[test]
    fn a_merge_never_overrides_what_is_written() {
        let mut value =
            read("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], x: 0}\nd: {<<: 3}\n")
                .remove(0)
                .unwrap();
        let mut bad = Vec::new();
        merge(&mut value, "", &mut bad);
        assert_eq!(value["c"], serde_json::json!({"x": 0, "y": 1, "z": 2}));
        assert_eq!(bad, ["/d/<<"]);
    }
}
