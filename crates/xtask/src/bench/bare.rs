//! The least that anybody does with such files: typed serde_yaml deserialisation of every document, in one thread,
//! in a process of its own. What `plumb` takes for validating and planning is measured against this.

#![allow(
    dead_code,
    reason = "the values are read and dropped; that they can be is the point"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// Reads every YAML file beneath a folder; gives the number of documents.
///
/// # Errors
/// The first file or document that cannot be read.
pub fn run(folder: &Path) -> Result<usize, String> {
    let mut folders = vec![folder.to_owned()];
    let mut documents = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|e| e.to_string())? {
            let entry = entry.map_err(|e| e.to_string())?;
            let path = entry.path();
            if entry.file_type().map_err(|e| e.to_string())?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "yaml") {
                let text = fs::read_to_string(&path).map_err(|e| e.to_string())?;
                for document in serde_yaml::Deserializer::from_str(&text) {
                    let read = Document::deserialize(document)
                        .map_err(|e| format!("{}: {e}", path.display()))?;
                    documents.push(read);
                }
            }
        }
    }
    Ok(documents.len())
}

type Map<T> = BTreeMap<String, T>;

/// Any document: one struct, so that no time goes into finding out which kind it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    kind: String,
    name: String,
    vars: Option<Map<String>>,
    policy: Option<Policy>,
    defaults: Option<Map<AppDefaults>>,
    labels: Option<Map<String>>,
    address: Option<Map<String>>,
    price: Option<Price>,
    machines: Option<Vec<String>>,
    directories: Option<Map<Directory>>,
    files: Option<Map<File>>,
    source: Option<Source>,
    run: Option<String>,
    processes: Option<Processes>,
    ports: Option<Map<String>>,
    health: Option<Health>,
    env: Option<Map<String>>,
    stop: Option<Stop>,
    log: Option<Log>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    deletes: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppDefaults {
    env: Map<String>,
    restart: Restart,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Restart {
    policy: String,
    backoff: Map<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    monthly: f64,
    currency: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Directory {
    mode: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    content: String,
    mode: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Processes {
    web: Web,
    worker: Worker,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Web {
    run: String,
    replicas: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Worker {
    run: Vec<String>,
    replicas: u32,
    env: Map<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Health {
    path: String,
    interval: String,
    timeout: String,
    healthy_threshold: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stop {
    signal: String,
    grace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    max_size: String,
    keep: u32,
}
