//! How a process gets its secrets: in its own environment alone, or as files. Which files a slot was given is noted beside
//! its incarnations, by name and version, so that a new version can be told of and what nobody uses any more goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use plumb_model::condition::Reason;
use plumb_model::{Fault, ProcessSpec, Secret, SecretForm, SecretName, SecretUse};
use serde::{Deserialize, Serialize};

use super::folder::Slot;
use super::io_fault;
use super::users::Person;
use crate::host::Host;
use crate::secrets::{self, Place};
use crate::shim::record;

/// The note in a slot's folder.
const NOTE: &str = "secrets.json";

/// A file that a slot was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    name: SecretName,
    version: Option<u64>,
    path: PathBuf,
}

/// What a process is started with.
#[derive(Debug, Default)]
pub struct HandedOver {
    /// Variables that hold a secret. They are written to no file.
    pub secret: BTreeMap<String, Secret>,
    /// Variables that hold the path of one.
    pub paths: BTreeMap<String, String>,
}

/// The app that a slot is of, as its folder says: a renamed one stays where it is.
fn app(slot: &Slot) -> &str {
    let folder = slot.path.parent().and_then(Path::file_name);
    folder.and_then(|name| name.to_str()).unwrap_or("app")
}

fn place(
    host: &Host,
    slot: &Slot,
    person: &Person,
    spec: &ProcessSpec,
    used: &SecretUse,
) -> Result<Place, Fault> {
    let owner = person.switch.as_ref().map(|user| (user.uid, user.gid));
    let user = spec.user.as_deref();
    Place::of(&host.secrets, app(slot), user, &used.secret.name, owner)
}

/// Writes the files that a process is about to be started with, and gathers its variables.
///
/// # Errors
/// When a secret is not on this machine, or cannot be written.
pub fn hand_over(
    host: &Host,
    slot: &Slot,
    person: &Person,
    spec: &ProcessSpec,
) -> Result<HandedOver, Fault> {
    let mut out = HandedOver::default();
    let mut given = Vec::new();
    for (variable, used) in &spec.secrets {
        let value = host.secrets.get(&used.secret)?;
        if value.expose().contains('\0') {
            let message = format!("the secret {} has a NUL in it", used.secret.name);
            return Err(Fault::new(Reason::BadContent, message));
        }
        match used.form {
            SecretForm::Env => {
                out.secret.insert(variable.clone(), value);
            }
            SecretForm::File => {
                let place = place(host, slot, person, spec, used)?;
                if !secrets::holds(&place, Some(&value)) {
                    secrets::write(&host.secrets, &place, &value)?;
                }
                let path = place.path.to_string_lossy().into_owned();
                out.paths.insert(format!("{variable}_FILE"), path);
                given.push(Given {
                    name: used.secret.name.clone(),
                    version: used.secret.version,
                    path: place.path,
                });
            }
        }
    }
    let before = noted(slot);
    if before != given {
        note(slot, &given)?;
        remove_unused(host, slot, before)?;
    }
    Ok(out)
}

/// Brings the files of a running process up to date, and returns the signals that tell it so. `closely` reads what they
/// hold.
///
/// # Errors
/// When a new version is not on this machine yet, or cannot be written.
pub fn refresh(
    host: &Host,
    slot: &Slot,
    person: impl FnOnce() -> Result<Person, Fault>,
    spec: &ProcessSpec,
    closely: bool,
) -> Result<BTreeSet<i32>, Fault> {
    let mut signals = BTreeSet::new();
    let files = || spec.secrets.values().filter(|u| u.form == SecretForm::File);
    if files().next().is_none() {
        return Ok(signals);
    }
    let person = person()?;
    let before = noted(slot);
    for used in files() {
        let place = place(host, slot, &person, spec, used)?;
        let had = before.iter().find(|given| given.path == place.path);
        let moved = had.is_none_or(|had| had.version != used.secret.version);
        if !moved && !closely && secrets::holds(&place, None) {
            continue;
        }
        // What is there as it should be does not need the value: after a restart of the agent it may not be at hand.
        let value = match host.secrets.get(&used.secret) {
            Err(_) if !moved && secrets::holds(&place, None) => continue,
            value => value?,
        };
        if !secrets::holds(&place, Some(&value)) {
            secrets::write(&host.secrets, &place, &value)?;
        }
        if moved {
            signals.extend(used.on_change.signal());
        }
    }
    Ok(signals)
}

/// Notes that a running process has been told of the versions in its spec. Only afterwards: who dies in between tells it
/// once more.
///
/// # Errors
/// When the note cannot be written.
pub fn told(host: &Host, slot: &Slot, person: &Person, spec: &ProcessSpec) -> Result<(), Fault> {
    let files = spec.secrets.values();
    let given = files
        .filter(|used| used.form == SecretForm::File)
        .map(|used| {
            Ok(Given {
                name: used.secret.name.clone(),
                version: used.secret.version,
                path: place(host, slot, person, spec, used)?.path,
            })
        })
        .collect::<Result<Vec<_>, Fault>>()?;
    if noted(slot) == given {
        return Ok(());
    }
    note(slot, &given)
}

/// Removes the files of a slot that is being removed.
///
/// # Errors
/// When one cannot be removed.
pub fn forget(host: &Host, slot: &Slot) -> Result<(), Fault> {
    let before = noted(slot);
    if before.is_empty() {
        return Ok(());
    }
    note(slot, &[])?;
    remove_unused(host, slot, before)
}

/// Removes those files that no slot of the same app was given.
fn remove_unused(host: &Host, slot: &Slot, files: Vec<Given>) -> Result<(), Fault> {
    let used: BTreeSet<PathBuf> = siblings(slot)
        .flat_map(|slot| record::read::<Vec<Given>>(&slot, NOTE).unwrap_or_default())
        .map(|given| given.path)
        .collect();
    for given in files.iter().filter(|given| !used.contains(&given.path)) {
        secrets::remove(&host.secrets, &given.path)?;
    }
    Ok(())
}

/// The folders of all slots of the same app.
fn siblings(slot: &Slot) -> impl Iterator<Item = PathBuf> {
    let entries = slot.path.parent().and_then(|app| fs::read_dir(app).ok());
    entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

fn noted(slot: &Slot) -> Vec<Given> {
    record::read(&slot.path, NOTE).unwrap_or_default()
}

fn note(slot: &Slot, given: &[Given]) -> Result<(), Fault> {
    record::write(&slot.path, NOTE, &given)
        .map_err(|error| io_fault(&error, "cannot write in", &slot.path))
}
