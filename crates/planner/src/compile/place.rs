//! Placing replicas: a slot stays where it is recorded; the others go to the value of the spreading label with the fewest
//! slots, there to the machine with the fewest, ties settled by rendezvous hashing, so that adding a machine moves nothing.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::state::MachineInfo;
use plumb_model::{Hash, MachineName, OwnerName};

/// What is placed, and how.
pub(super) struct Placing<'a> {
    pub owner: &'a OwnerName,
    /// The process or container that the slots are of.
    pub unit: &'a str,
    /// How many slots; none is slot 0 on every machine.
    pub replicas: Option<u32>,
    /// The label over whose values they are spread first.
    pub spread: Option<&'a str>,
    /// Where slots are recorded.
    pub recorded: BTreeMap<u32, MachineName>,
}

/// Where each slot goes.
pub(super) fn place<'a>(
    placing: &Placing<'_>,
    machines: &BTreeMap<&'a MachineName, &'a MachineInfo>,
) -> BTreeSet<(&'a MachineName, u32)> {
    let Some(replicas) = placing.replicas else {
        return machines.keys().map(|machine| (*machine, 0)).collect();
    };
    let mut load: BTreeMap<&MachineName, u32> = BTreeMap::new();
    let mut values: BTreeMap<&str, u32> = BTreeMap::new();
    // Machines without the label are one more value.
    let value = |info: &'a MachineInfo| -> &'a str {
        placing
            .spread
            .and_then(|label| info.labels.get(label))
            .map_or("", String::as_str)
    };
    let mut placed = BTreeSet::new();
    let mut open = Vec::new();
    for slot in 0..replicas {
        let stays = placing
            .recorded
            .get(&slot)
            .and_then(|machine| machines.get_key_value(machine));
        match stays {
            Some((machine, info)) => {
                *load.entry(machine).or_default() += 1;
                *values.entry(value(info)).or_default() += 1;
                placed.insert((*machine, slot));
            }
            None => open.push(slot),
        }
    }
    for slot in open {
        let best = machines.iter().min_by_key(|(machine, info)| {
            (
                values.get(value(info)).copied().unwrap_or(0),
                load.get(**machine).copied().unwrap_or(0),
                weight(placing.owner, placing.unit, &slot.to_string(), machine),
            )
        });
        let Some((machine, info)) = best else {
            break;
        };
        *load.entry(machine).or_default() += 1;
        *values.entry(value(info)).or_default() += 1;
        placed.insert((*machine, slot));
    }
    placed
}

/// How much a machine is wanted for something: the lowest gets it.
pub(super) fn weight(owner: &OwnerName, unit: &str, slot: &str, machine: &MachineName) -> Hash {
    Hash::of(format!("{owner}\n{unit}\n{slot}\n{machine}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machines(names: &[(&str, &str)]) -> BTreeMap<MachineName, MachineInfo> {
        let machine = |(name, zone): &(&str, &str)| {
            let labels = BTreeMap::from([("zone".to_owned(), (*zone).to_owned())]);
            let info = MachineInfo {
                labels,
                ..MachineInfo::default()
            };
            (MachineName::new(name).unwrap(), info)
        };
        names.iter().map(machine).collect()
    }

    fn placed(
        machines: &BTreeMap<MachineName, MachineInfo>,
        replicas: Option<u32>,
        spread: Option<&str>,
        recorded: &BTreeSet<(MachineName, u32)>,
    ) -> BTreeSet<(MachineName, u32)> {
        let owner = OwnerName::new("o").unwrap();
        let placing = Placing {
            owner: &owner,
            unit: "p",
            replicas,
            spread,
            recorded: recorded.iter().map(|(m, s)| (*s, m.clone())).collect(),
        };
        let all = place(&placing, &machines.iter().collect());
        all.into_iter().map(|(m, slot)| (m.clone(), slot)).collect()
    }

    #[test]
    fn replicas_spread_and_stay_where_they_are() {
        let two = machines(&[("a", "x"), ("b", "x")]);
        let nothing = BTreeSet::new();
        let first = placed(&two, Some(4), None, &nothing);
        let on_a = first.iter().filter(|(m, _)| m.as_str() == "a").count();
        assert_eq!((first.len(), on_a), (4, 2));
        let three = machines(&[("a", "x"), ("b", "x"), ("c", "x")]);
        let more = placed(&three, Some(4), None, &first);
        assert_eq!(more, first, "a new machine moves nothing");
        assert_eq!(placed(&two, None, None, &first).len(), 2);
        assert_eq!(placed(&machines(&[]), Some(2), None, &nothing).len(), 0);
    }

    /// Fails under the mutation: leave the values of the label out of the comparison.
    #[test]
    fn values_of_a_label_are_balanced_before_machines() {
        let four = machines(&[("a", "x"), ("b", "x"), ("c", "x"), ("d", "y")]);
        for replicas in [2, 4, 6] {
            let all = placed(&four, Some(replicas), Some("zone"), &BTreeSet::new());
            let on_d = all.iter().filter(|(m, _)| m.as_str() == "d").count();
            assert_eq!(on_d as u32, replicas / 2, "{all:?}");
        }
        let stuck = [("a", 0), ("b", 1)].map(|(m, slot)| (MachineName::new(m).unwrap(), slot));
        let recorded = BTreeSet::from(stuck.clone());
        let grown = placed(&four, Some(4), Some("zone"), &recorded);
        assert!(stuck.iter().all(|one| grown.contains(one)), "{grown:?}");
        let on_d = grown.iter().filter(|(m, _)| m.as_str() == "d").count();
        assert_eq!(on_d, 2, "what stays is made up for: {grown:?}");
    }
}
