//! Allotting ports: fixed ones as written, `auto` ones from 20000 to 29999, and the same again at every plan.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::state::Recorded;
use plumb_model::{Address, Hash, PortName, Reason, ResourceSpec, WorkspaceName};

use crate::Observed;

/// The range of `auto` ports. Below the range that Linux gives to outgoing connections (32768 and up).
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// A port that is wanted: by whom, under which name, and which number if it is fixed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Want<'a> {
    pub address: &'a Address,
    pub port: &'a PortName,
    pub fixed: Option<u16>,
}

/// What ports are allotted by.
pub(super) struct Allotting<'a> {
    pub recorded: &'a Recorded,
    pub observed: &'a Observed,
    pub workspace: &'a WorkspaceName,
    /// The address that a resource is recorded at, if its owner is renamed now.
    pub before: &'a (dyn Fn(&Address) -> Option<Address> + Sync),
}

/// Gives each port that is wanted on one machine a number, none once the range is used up. What is taken already is given to
/// nobody. Who comes first follows from the addresses, not from the order of `wants`.
pub(super) fn allot(
    wants: &[Want<'_>],
    mut taken: BTreeSet<u16>,
    by: &Allotting<'_>,
) -> Vec<Option<u16>> {
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by(|a, b| wants[*a].cmp(&wants[*b]));
    let mut given: Vec<Option<u16>> = wants.iter().map(|want| want.fixed).collect();
    taken.extend(wants.iter().filter_map(|want| want.fixed));
    let mut stranded: BTreeMap<usize, u16> = BTreeMap::new();
    for at in order.iter().copied() {
        let want = &wants[at];
        if want.fixed.is_some() {
            continue;
        }
        let old = (by.before)(want.address);
        let address = old.as_ref().unwrap_or(want.address);
        let body = by.recorded.releases.get(&address.owner);
        let Some(number) = body
            .and_then(|body| body.resource(address))
            .and_then(|resource| recorded_port(&resource.spec, want.port))
        else {
            continue;
        };
        if is_stranded(address, by.recorded, by.observed) {
            // A stranger sits there: the number is avoided for everybody on this machine.
            stranded.insert(at, number);
            taken.insert(number);
        } else if (FIRST..FIRST + COUNT).contains(&number) && taken.insert(number) {
            given[at] = Some(number);
        }
    }
    for at in order {
        if given[at].is_some() {
            continue;
        }
        let Want { address, port, .. } = &wants[at];
        let hash = Hash::of(format!("{}\n{address}\n{port}", by.workspace).as_bytes());
        // Away from a stranger the search goes on from there, so that it never comes back to one met before.
        let start = match stranded.get(&at) {
            Some(number) => number.saturating_sub(FIRST) % COUNT,
            None => u16::from_le_bytes([hash.0[0], hash.0[1]]) % COUNT,
        };
        given[at] = (0..COUNT)
            .map(|i| FIRST + (start + i) % COUNT)
            .find(|number| taken.insert(*number));
    }
    given
}

fn recorded_port(spec: &ResourceSpec, port: &PortName) -> Option<u16> {
    match spec {
        ResourceSpec::Process(spec) => spec.ports.get(port).copied(),
        ResourceSpec::Container(spec) => spec.ports.get(port).map(|port| port.machine),
        _ => None,
    }
}

/// Whether the agent found a stranger on a port of this process as it is recorded now. What it said under an
/// earlier generation may be about a port that the process has left since.
fn is_stranded(address: &Address, recorded: &Recorded, observed: &Observed) -> bool {
    let Some(status) = observed.statuses.get(address) else {
        return false;
    };
    let mut conditions = status.conditions.iter();
    conditions.any(|c| c.status && c.reason == Reason::PortTaken)
        && recorded
            .state
            .machines
            .get(&address.machine)
            .is_some_and(|machine| status.generation >= machine.generation)
}
