//! The workspace as people see it, as JSON, made once for however many ask and never where agents would wait for it.

use std::sync::{Mutex, OnceLock, PoisonError};

use plumb_dispatch::{Standing, WorkspaceView};
use plumb_model::parallel;
use plumb_wire::Bytes;
use plumb_wire::convert::to_json;
use serde::Serialize;

/// So many machines or resources are written at a time by one thread.
const AT_A_TIME: usize = 256;

/// The workspace as it stood at one moment, and the same as JSON once somebody has asked for it.
pub(super) struct Shown {
    /// Let go once there is the JSON: a machine that moves while it is held is copied.
    standing: Mutex<Option<Standing>>,
    json: OnceLock<Bytes>,
}

impl Shown {
    pub fn of(standing: Standing) -> Self {
        Self {
            standing: Mutex::new(Some(standing)),
            json: OnceLock::new(),
        }
    }

    /// If it has been made.
    pub fn made(&self) -> Option<Bytes> {
        self.json.get().cloned()
    }

    /// Made once, however many ask; whoever asks meanwhile waits for it. Blocks.
    pub fn json(&self) -> Bytes {
        let make = || {
            let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
            let view = standing.take().map(|standing| standing.view());
            view.map(written).unwrap_or_default().into()
        };
        self.json.get_or_init(make).clone()
    }
}

/// How an empty list of machines and one of an owner's resources are written. A quotation mark within a text is written
/// with a backslash before it, so that these stand nowhere else.
const LISTS: [&str; 2] = ["\"machines\":[]", "\"resources\":[]"];

/// The view as JSON. That of a large fleet is megabytes, so its long lists are written by all processors and put into the
/// rest of it afterwards.
fn written(mut view: WorkspaceView) -> Vec<u8> {
    let machines = std::mem::take(&mut view.machines);
    let owners = view.owners.iter_mut();
    let resources: Vec<_> = owners.map(|o| std::mem::take(&mut o.resources)).collect();
    let frame = to_json(&view);
    let lists = resources.iter().map(|list| (LISTS[1], elements(list)));
    let lists = std::iter::once((LISTS[0], elements(&machines))).chain(lists);
    let mut rest = frame.as_slice();
    let mut json = Vec::new();
    for (empty, list) in lists {
        let (before, behind) = rest.split_at(within(rest, empty));
        json.extend_from_slice(before);
        json.extend_from_slice(&list);
        rest = behind;
    }
    json.extend_from_slice(rest);
    json
}

/// Where the first such list has its end.
fn within(json: &[u8], empty: &str) -> usize {
    let at = json
        .windows(empty.len())
        .position(|part| part == empty.as_bytes());
    at.map_or(json.len(), |at| at + empty.len() - 1)
}

/// What stands between the brackets of a list.
fn elements<T: Serialize + Sync>(all: &[T]) -> Vec<u8> {
    let parts = all.chunks(AT_A_TIME).collect();
    let parts = parallel::each(parts, all.len() * parallel::A_RESOURCE, |part| {
        let mut json = to_json(&part);
        // Without its brackets.
        json.pop();
        json.split_off(1)
    });
    parts.join(&b","[..])
}

#[cfg(test)]
mod tests {
    use plumb_dispatch::view::{
        Counts, FORMAT, MachineView, MachineWord, OwnerView, ResourceView, StateWord,
    };
    use plumb_model::state::Outcome;
    use plumb_model::{
        Address, Generation, MachineName, OwnerName, ReleaseNumber, ResourceKind, Revision,
    };

    use super::*;

    fn owner(name: &str, resources: usize) -> OwnerView {
        let owner = OwnerName::new(name).unwrap();
        let resource = |n: usize| {
            let machine = MachineName::new(&format!("m-{n}")).unwrap();
            ResourceView {
                address: Address::new(&machine, &owner, ResourceKind::File, "/etc/x"),
                kind: ResourceKind::File,
                state: StateWord::Converged,
                message: Some(format!("{n} \"resources\":[] \"machines\":[]")),
                generation: None,
                conditions: Vec::new(),
                process: None,
            }
        };
        OwnerView {
            name: owner.clone(),
            kind: None,
            release: ReleaseNumber(1),
            outcome: Outcome::Converged,
            state: StateWord::Converged,
            message: Some("\"resources\":[]".to_owned()),
            urls: vec!["\"machines\":[]".to_owned()],
            counts: Counts::default(),
            resources: (0..resources).map(resource).collect(),
            rollout: None,
        }
    }

    fn machine(n: usize) -> MachineView {
        MachineView {
            name: MachineName::new(&format!("m-{n}")).unwrap(),
            online: true,
            state: MachineWord::Online,
            message: Some("\"machines\":[]".to_owned()),
            last_seen: None,
            version: None,
            hostname: None,
            arch: None,
            generation: Generation(1),
            acked: Generation(1),
            leaving: false,
            counts: Counts::default(),
            hands: None,
        }
    }

    /// Mutation: leave the comma between two parts out, or look for the first list in what is written already.
    #[test]
    fn what_is_written_in_parts_is_what_is_written_at_once() {
        for (machines, resources) in [
            (0, vec![]),
            (1, vec![0]),
            (AT_A_TIME, vec![1, 0, AT_A_TIME]),
            (AT_A_TIME * 2 + 1, vec![0, AT_A_TIME + 1, 3]),
        ] {
            let owners = resources.iter().enumerate();
            let view = WorkspaceView {
                format: FORMAT,
                revision: Revision(7),
                machines: (0..machines).map(machine).collect(),
                owners: owners
                    .map(|(n, count)| owner(&format!("o-{n}"), *count))
                    .collect(),
                dropped_statuses: 0,
                dropped_events: 1,
            };
            let whole = String::from_utf8(to_json(&view)).unwrap();
            assert_eq!(String::from_utf8(written(view)).unwrap(), whole);
        }
    }
}
