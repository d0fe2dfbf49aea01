//! The way in which blueprints are written changes nothing: the order of keys and documents, the style, and which file
//! something stands in.
//!
//! Documents with random values are written twice by different means and parsed; the plans are the same but for places,
//! and where one of the two is refused, so is the other, for as many reasons.

use plumb_blueprint::{Diagnostics, Options, SourceFile, parse};
use plumb_model::{Hash, Lineage};
use proptest::prelude::*;
use serde_json::Value;

use super::super::facts;
use crate::{Input, Observed, Planned, Request, Source, plan};

/// What may stand in a workspace; `%` is a random digit. Those with a second document need it.
const DOCUMENTS: [&str; 10] = [
    r#"{"kind":"App","name":"web","machines":"all","run":"serve %","ports":{"http":"auto","admin":900%},"env":{"A":"x","B":"${machine.name}","C":"${app.web.ports.http}"},"source":{"path":"app"},"health":{"path":"/%","port":"http","interval":"1%s"}}"#,
    r#"{"kind":"App","name":"work","machines":["b","a"],"processes":{"one":{"run":["./one","%"],"ports":{"http":"auto"}},"two":"./two"},"restart":"always","state":"running","routes":["w.example.com"]}"#,
    r#"{"kind":"Setup","name":"base","machines":["b","a"],"files":{"/srv/d/f":{"content":"v%"},"/srv/g":{"source":"g.bin","mode":"060%"}},"directories":{"/srv/d":{"mode":"070%"}},"packages":["git","curl"]}"#,
    r#"{"kind":"Service","name":"db","machines":"a","engine":"postgres@16.%","publish":"public"}
{"kind":"App","name":"user","machines":"a","run":"./user","uses":["db"],"env":{"U":"${service.db.url}?x=%"},"secrets":["TWO","ONE"]}"#,
    r#"{"kind":"Volume","name":"data","machines":["b","a"],"on_delete":"keep"}
{"kind":"App","name":"box","machines":"a","image":"box@sha256:%111111111111111111111111111111111111111111111111111111111111111","volumes":{"data":"/data","own":{"path":"/own"}},"ports":{"http":{"port":8081,"publish":"loopback"}},"routes":["b.example.com","a.example.com"],"secrets":{"KEY":"key-%"}}"#,
    r#"{"kind":"Network","name":"back","machines":"all","internal":true,"subnet":"10.2%.0.0/24"}"#,
    r#"{"kind":"Registry","name":"r","host":"registry.example.com","username":"u%","password":{"secret":"key"}}"#,
    r#"{"kind":"App","name":"site","machines":"a","static":"public","source":{"git":"https://git.example.com/x.git","branch":"b%"},"routes":["site.example.com/%"]}"#,
    r#"{"kind":"Network","name":"inner","machines":"a"}
{"kind":"Network","name":"outer","machines":"a"}
{"kind":"Service","name":"cache","machines":"a","engine":"redis@7.2.%","port":6400}
{"kind":"Service","name":"queue","machines":"a","engine":"rabbitmq@3.13.%"}
{"kind":"App","name":"many","machines":"a","image":"box@sha256:%111111111111111111111111111111111111111111111111111111111111111","networks":["outer","inner"],"uses":["queue","cache"]}
{"kind":"App","name":"told","machines":"a","run":"./told"}
{"kind":"Setup","name":"tells","machines":"a","files":{"/etc/tells":{"content":"%","notify":["told","many"]}}}"#,
    r#"{"kind":"Setup","name":"odd","machines":{"role":"web"},"files":{"/odd":{"content":"a: 'b' # \"%\"\n  two\n"}},"surprise":%}"#,
];

const MACHINES: &str = r#"{"kind":"Machine","name":"a","labels":{"role":"web","name":"a"},"address":{"private":"10.0.0.1","public":"192.0.2.1"}}
{"kind":"Machine","name":"b","labels":{"name":"b"},"price":{"monthly":4.51,"currency":"EUR"}}
{"kind":"Workspace","name":"shop","policy":{"deletes":1,"required_labels":["role","name"]},"vars":{"x":"1"}}"#;

/// A small generator of its own: each way of writing is one number.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % limit.max(1)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

/// Lists that say the same in any order.
const SETS: [&str; 7] = [
    "machines",
    "packages",
    "secrets",
    "required_labels",
    "networks",
    "uses",
    "notify",
];

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

/// A value in flow style, with its keys in a random order.
fn flow(value: &Value, chance: &mut Chance) -> String {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            chance.shuffle(&mut pairs);
            let pairs: Vec<String> = pairs
                .into_iter()
                .map(|(key, value)| {
                    format!(
                        "{}: {}",
                        quoted(key),
                        flow(&ordered(key, value, chance), chance)
                    )
                })
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| flow(item, chance)).collect();
            format!("[{}]", items.join(","))
        }
        other => other.to_string(),
    }
}

/// A list in a random order, where that says the same.
fn ordered(key: &str, value: &Value, chance: &mut Chance) -> Value {
    match value {
        Value::Array(items) if SETS.contains(&key) => {
            let mut items = items.clone();
            chance.shuffle(&mut items);
            Value::Array(items)
        }
        other => other.clone(),
    }
}

/// A mapping in block style, here and there with a comment; what is inside may be in either style.
fn block(
    map: &serde_json::Map<String, Value>,
    indent: usize,
    chance: &mut Chance,
    out: &mut String,
) {
    let mut pairs: Vec<_> = map.iter().collect();
    chance.shuffle(&mut pairs);
    for (key, value) in pairs {
        if chance.below(6) == 0 {
            out.push_str("# what follows is as it is\n\n");
        }
        out.push_str(&" ".repeat(indent));
        let key_text = if chance.below(2) == 0 {
            quoted(key)
        } else {
            key.clone()
        };
        match ordered(key, value, chance) {
            Value::Object(inner) if !inner.is_empty() && chance.below(2) == 0 => {
                out.push_str(&format!("{key_text}:\n"));
                block(&inner, indent + 1 + chance.below(4), chance, out);
            }
            Value::Array(items) if !items.is_empty() && chance.below(2) == 0 => {
                out.push_str(&format!("{key_text}:\n"));
                for item in items {
                    let item = flow(&item, chance);
                    out.push_str(&format!("{}- {item}\n", " ".repeat(indent + 1)));
                }
            }
            other => out.push_str(&format!("{key_text}: {}\n", flow(&other, chance))),
        }
    }
}

/// Documents as files, in one of very many ways.
fn written(documents: &[Value], way: u64) -> Vec<SourceFile> {
    let mut chance = Chance(way);
    let count = 1 + chance.below(4);
    let mut texts = vec![Vec::new(); count];
    let mut documents: Vec<&Value> = documents.iter().collect();
    chance.shuffle(&mut documents);
    for document in documents {
        let map = document.as_object().expect("a document is a mapping");
        let mut text = String::new();
        block(map, 0, &mut chance, &mut text);
        // The manifest has a file that is called so.
        let at = if map["kind"] == "Workspace" {
            0
        } else {
            chance.below(count)
        };
        texts[at].push(text);
    }
    let files = texts.into_iter().enumerate();
    let mut files: Vec<SourceFile> = files
        .map(|(at, texts)| SourceFile {
            path: match at {
                0 => "plumb.yaml".to_owned(),
                n => format!("{}{n}.yaml", ["x", "a", "z"][n % 3]),
            },
            text: texts.join("---\n").into_bytes(),
        })
        .collect();
    chance.shuffle(&mut files);
    files
}

/// The plan, or the number of reasons why there is none.
fn planned(files: &[SourceFile]) -> Result<Planned, usize> {
    let refused = |found: Diagnostics| usize::try_from(found.errors()).expect("few");
    let set = parse(files, &Options::default()).map_err(refused)?;
    let source = |path: &String| Source {
        digest: Hash::of(path.as_bytes()),
        size: path.len() as u64,
        text: Some(path.clone()),
    };
    let mut observed = Observed::default();
    let first = set.machines.keys().next().cloned();
    observed
        .machines
        .extend(first.map(|name| (name, facts(&[]))));
    let workspace = set.workspace.name.clone();
    let request = Request::Apply {
        sources: set.paths.iter().map(|p| (p.clone(), source(p))).collect(),
        ask: Default::default(),
        blueprint: set,
    };
    plan(Input {
        request: &request,
        recorded: &Default::default(),
        lineage: &Lineage::from_random([1; 16]),
        workspace: &workspace,
        observed: &observed,
        secrets: plumb_model::KnownSecrets::UNASKED,
        commit: None,
    })
    .map_err(|refused| refused.problems.len())
}

/// Without the places.
fn bare(mut planned: Planned) -> Planned {
    let plan = &mut planned.plan;
    plan.changes.iter_mut().for_each(|c| c.origin = None);
    plan.owners.iter_mut().for_each(|o| o.origin = None);
    planned
}

fn check(which: &[bool], digits: &[u8], ways: (u64, u64)) -> bool {
    let mut digits = digits.iter().cycle();
    let chosen = DOCUMENTS.iter().zip(which).filter(|(_, is)| **is);
    let texts = chosen.map(|(text, _)| *text).chain([MACHINES]);
    let documents: Vec<Value> = texts
        .flat_map(str::lines)
        .map(|line| {
            let line: String = line
                .chars()
                .map(|c| match c {
                    '%' => char::from(b'0' + digits.next().expect("a cycle") % 10),
                    c => c,
                })
                .collect();
            serde_json::from_str(&line).expect("a document is JSON")
        })
        .collect();
    let one = planned(&written(&documents, ways.0));
    let two = planned(&written(&documents, ways.1));
    let is_planned = one.is_ok();
    match (one, two) {
        (Ok(one), Ok(two)) => {
            assert_eq!(one.plan.approval, two.plan.approval);
            assert_eq!(one.next.state.bytes(), two.next.state.bytes());
            assert_eq!(one.next, two.next);
            assert_eq!(bare(one), bare(two));
        }
        (one, two) => assert_eq!(one.map(|_| 0), two.map(|_| 0)),
    }
    is_planned
}

proptest! {
    // Parsing costs far more than planning.
    #![proptest_config(ProptestConfig { cases: super::cases() / 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_keys_the_style_and_the_split_over_files_change_nothing_but_the_places(
        which in prop::collection::vec(any::<bool>(), DOCUMENTS.len()),
        digits in prop::collection::vec(1..8u8, 1..20),
        ways in any::<(u64, u64)>(),
    ) {
        check(&which, &digits, ways);
    }
}

/// All but the last, which has a key that nobody knows.
#[test]
fn the_documents_are_planned() {
    let mut which = [true; DOCUMENTS.len()];
    assert!(!check(&which, &[1], (1, 2)));
    which[DOCUMENTS.len() - 1] = false;
    let mut chance = Chance(7);
    let documents = DOCUMENTS[..DOCUMENTS.len() - 1]
        .iter()
        .copied()
        .chain([MACHINES]);
    let documents: Vec<Value> = documents
        .flat_map(str::lines)
        .map(|line| serde_json::from_str(&line.replace('%', "1")).expect("JSON"))
        .collect();
    let files = written(&documents, chance.below(9) as u64);
    let problems =
        parse(&files, &Options::default()).map_err(|d| plumb_blueprint::render(&d, &files, false));
    assert!(problems.is_ok(), "{}", problems.unwrap_err());
    assert!(check(&which, &[1], (1, 2)));
}
