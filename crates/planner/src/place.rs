//! Placing replicas: a slot stays where it is recorded; the others go to the machine with the fewest slots,
//! ties settled by rendezvous hashing, so that adding a machine moves nothing.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::{Hash, MachineName, OwnerName, ProcessName};

/// Where each slot of one process goes. Without a number, every machine runs slot 0.
pub(crate) fn place(
    owner: &OwnerName,
    process: &ProcessName,
    machines: &BTreeSet<MachineName>,
    replicas: Option<u32>,
    recorded: &BTreeMap<u32, MachineName>,
) -> BTreeSet<(MachineName, u32)> {
    let Some(replicas) = replicas else {
        return machines
            .iter()
            .map(|machine| (machine.clone(), 0))
            .collect();
    };
    if machines.is_empty() {
        return BTreeSet::new();
    }
    let mut load: BTreeMap<&MachineName, u32> = machines.iter().map(|m| (m, 0)).collect();
    let mut placed = BTreeSet::new();
    let mut open = Vec::new();
    for slot in 0..replicas {
        match recorded
            .get(&slot)
            .and_then(|machine| machines.get(machine))
        {
            Some(machine) => {
                *load.entry(machine).or_default() += 1;
                placed.insert((machine.clone(), slot));
            }
            None => open.push(slot),
        }
    }
    for slot in open {
        let weight = |machine: &MachineName| {
            Hash::of(format!("{owner}\n{process}\n{slot}\n{machine}").as_bytes())
        };
        let best = machines
            .iter()
            .min_by_key(|machine| (load.get(machine).copied().unwrap_or(0), weight(machine)))
            .expect("there is at least one machine, as checked above");
        *load.entry(best).or_default() += 1;
        placed.insert((best.clone(), slot));
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machines(names: &[&str]) -> BTreeSet<MachineName> {
        names.iter().map(|n| MachineName::new(n).unwrap()).collect()
    }

    #[test]
    fn replicas_spread_and_stay_where_they_are() {
        let (owner, process) = (OwnerName::new("o").unwrap(), ProcessName::new("p").unwrap());
        let two = machines(&["a", "b"]);
        let first = place(&owner, &process, &two, Some(4), &BTreeMap::new());
        let on_a = first.iter().filter(|(m, _)| m.as_str() == "a").count();
        assert_eq!((first.len(), on_a), (4, 2));
        let recorded: BTreeMap<u32, MachineName> =
            first.iter().map(|(m, s)| (*s, m.clone())).collect();
        let more = place(
            &owner,
            &process,
            &machines(&["a", "b", "c"]),
            Some(4),
            &recorded,
        );
        assert_eq!(more, first, "a new machine moves nothing");
        assert_eq!(place(&owner, &process, &two, None, &recorded).len(), 2);
    }
}
