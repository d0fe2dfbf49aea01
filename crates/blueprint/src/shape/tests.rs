//! The fast check against the validator that it stands in for.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Pattern, Shape};
use crate::schema::{Kind, compiled};
use crate::tree::Tree;

/// Mutation: use a word of JSON Schema under `written` that is not known here, such as `maxLength`.
#[test]
fn every_schema_of_the_language_compiles() {
    for kind in Kind::ALL {
        assert!(compiled(kind).shape.is_some(), "{}", kind.as_str());
    }
    for foreign in [
        json!({ "maxLength": 3 }),
        json!({ "pattern": "a" }),
        json!({ "format": "ipv4" }),
        json!({ "$ref": "#/$defs/Missing" }),
        json!({ "properties": { "a": { "not": {} } } }),
    ] {
        assert!(Shape::compile(&foreign).is_none(), "{foreign}");
    }
}

#[test]
fn patterns_match_what_their_expressions_do() {
    let check = |expression: &str, good: &[&str], bad: &[&str]| {
        let pattern = Pattern::compile(expression).unwrap();
        good.iter()
            .for_each(|t| assert!(pattern.matches(t), "{expression} {t:?}"));
        bad.iter()
            .for_each(|t| assert!(!pattern.matches(t), "{expression} {t:?}"));
    };
    let long = "a".repeat(63);
    let longer = "a".repeat(64);
    check(
        "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        &["a", "a-b", "a--b", &long],
        &["", "-", "a-", "-a", "A", "a\n", "a b", "ä", &longer],
    );
    check(
        "^[0-9]+(ms|s|m|h)$",
        &["1s", "10ms", "3m"],
        &["s", "1", "1sm", "1 s", "1s\n"],
    );
    check("^[0-7]{3,5}$", &["644", "00644"], &["64", "000644", "648"]);
    check("^[A-Z]{3}$", &["EUR"], &["EU", "EURO"]);
    for unknown in [
        "a", "^a", "^a|b$", "^(a)*$", "^.$", "^[^a]$", "^a+?$", "^(a$", "^[]$", "^\\d$", "^[a-$",
    ] {
        assert!(Pattern::compile(unknown).is_none(), "{unknown}");
    }
}

/// Where random choices come from: one number decides on all of them.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // SplitMix64, the shortest generator that is good enough.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.roll(all.len())]
    }
}

/// A value that a place may be filled with by mistake.
fn odd(dice: &mut Dice) -> Value {
    let all = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(1.0),
        json!(1.5),
        json!(600),
        json!(65536),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("auto"),
        json!("web-1"),
        json!("-"),
        json!("10s"),
        json!("5Gi"),
        json!("0644\n"),
        json!([]),
        json!([""]),
        json!(["a", 1]),
        json!({}),
        json!({ "a": "b" }),
        json!({ "path": "/x" }),
        json!({ "secret": "A", "name": 1 }),
    ];
    dice.pick(&all).clone()
}

/// A value that a schema describes, or nearly.
fn value(schema: &Value, root: &Value, dice: &mut Dice, depth: usize) -> Value {
    if dice.roll(60) == 0 {
        return odd(dice);
    }
    if let Some(name) = schema["$ref"].as_str() {
        let schema = root.pointer(name.trim_start_matches('#')).unwrap();
        return value(schema, root, dice, depth);
    }
    let several = |word: &str| schema[word].as_array().filter(|all| !all.is_empty());
    for word in ["anyOf", "enum"] {
        if let Some(all) = several(word) {
            let one = dice.pick(all);
            return if word == "enum" {
                one.clone()
            } else {
                value(one, root, dice, depth)
            };
        }
    }
    if let Some(examples) = several("examples")
        && (depth > 5 || dice.roll(3) == 0)
    {
        return dice.pick(examples).clone();
    }
    let keys = schema["properties"].as_object();
    let mut map = Map::new();
    for (key, schema) in keys.into_iter().flatten() {
        let needed = several("required").is_some_and(|all| all.contains(&json!(key)));
        if if needed {
            dice.roll(40) > 0
        } else {
            dice.roll(4) == 0
        } {
            map.insert(key.clone(), value(schema, root, dice, depth + 1));
        }
    }
    let inner = &schema["additionalProperties"];
    if inner.is_object() || inner == false && dice.roll(60) == 0 {
        for key in ["http", "web-1", "A B"].into_iter().take(dice.roll(3)) {
            map.insert(key.to_owned(), value(inner, root, dice, depth + 1));
        }
    }
    let kind = schema["type"].as_str();
    match kind {
        _ if keys.is_some() || inner.is_object() => Value::Object(map),
        Some("array") => {
            let many = dice.roll(4);
            (0..many)
                .map(|_| value(&schema["items"], root, dice, depth + 1))
                .collect()
        }
        Some("integer" | "number") => {
            let edges = [&schema["minimum"], &schema["maximum"]];
            let edge = edges[dice.roll(2)].as_f64().unwrap_or(7.0);
            let number = edge + [0.0, 0.0, 1.0, -1.0, 0.5][dice.roll(5)];
            if number.fract() == 0.0 && dice.roll(9) > 0 {
                json!(number as i64)
            } else {
                json!(number)
            }
        }
        Some("boolean") => json!(dice.roll(2) == 0),
        Some("string") => dice
            .pick(&[
                json!("a"),
                json!("10s"),
                json!("/x"),
                json!("STRIPE_KEY"),
                json!("a b"),
            ])
            .clone(),
        _ => odd(dice),
    }
}

/// Puts something odd somewhere into a value.
fn mutate(value: &mut Value, dice: &mut Dice) {
    let inside = dice.roll(5) > 0;
    match value {
        Value::Object(map) if inside && !map.is_empty() => {
            let key = dice.pick(&map.keys().cloned().collect::<Vec<_>>()).clone();
            match dice.roll(8) {
                0 => _ = map.remove(&key),
                1 => {
                    _ = map.insert(
                        ["x", "run", "path", "port"][dice.roll(4)].to_owned(),
                        odd(dice),
                    )
                }
                _ => mutate(&mut map[&key], dice),
            }
        }
        Value::Array(items) if inside && !items.is_empty() => {
            let at = dice.roll(items.len());
            match dice.roll(8) {
                0 => _ = items.remove(at),
                1 => items.resize(120, items[at].clone()),
                _ => mutate(&mut items[at], dice),
            }
        }
        value => *value = odd(dice),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// Mutations: leave `minItems` out of `Shape::good`, or take a whole number for any.
    #[test]
    fn it_says_of_random_documents_what_the_validator_says(seed: u64, kind in 0..Kind::ALL.len()) {
        let compiled = compiled(Kind::ALL[kind]);
        let shape = compiled.shape.as_ref().unwrap();
        let mut dice = Dice(seed);
        let mut document = if seed % 2 == 0 {
            compiled.schema["examples"][0].clone()
        } else {
            value(&compiled.schema, &compiled.schema, &mut dice, 0)
        };
        for _ in 0..3 {
            prop_assert_eq!(
                shape.accepts(&Tree::of_json(&document).value),
                compiled.validator().is_valid(&document),
                "{}", document
            );
            mutate(&mut document, &mut dice);
        }
    }
}

#[test]
fn both_good_and_bad_documents_are_among_the_random_ones() {
    let mut counts = [0, 0];
    for seed in 0..2000 {
        let compiled = compiled(Kind::ALL[seed % Kind::ALL.len()]);
        let mut dice = Dice(seed as u64);
        let document = value(&compiled.schema, &compiled.schema, &mut dice, 0);
        let good = compiled
            .shape
            .as_ref()
            .unwrap()
            .accepts(&Tree::of_json(&document).value);
        counts[usize::from(good)] += 1;
    }
    assert!(counts.iter().all(|n| *n > 100), "bad and good: {counts:?}");
}
