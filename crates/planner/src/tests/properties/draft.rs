//! Small random workspaces over the whole language, typed: nothing is written down and parsed again.
//!
//! A [`Draft`] is a few bytes for each machine and each owner, which a [`Dice`] reads as throws; a byte that is missing
//! is the plainest throw, so that what fails shrinks to something plain. An [`Edit`] changes a draft the way people do.

use std::collections::{BTreeMap, BTreeSet};

use plumb_blueprint::{BlueprintSet, DataLoss, Policy, Registry, Workspace};
use plumb_model::state::{MachineInfo, Price};
use plumb_model::{MachineName, OwnerName};
use proptest::prelude::*;

use super::owners;
use super::{CANARY, name};

/// Throws, one byte each.
pub(super) struct Dice<'a>(pub &'a [u8]);

impl Dice<'_> {
    /// 0 to `sides` - 1; 0 at the end.
    pub fn roll(&mut self, sides: u8) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first % sides
    }

    /// Once in so many times, and never at the end.
    pub fn rarely(&mut self, once_in: u8) -> bool {
        self.roll(once_in) == once_in - 1
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        let at = self.roll(u8::try_from(of.len().max(1)).expect("short lists"));
        of.get(usize::from(at)).cloned()
    }
}

/// What kind of owner a draft is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Native,
    Container,
    Compose,
    Static,
    Service,
    Volume,
    Network,
    Setup,
}

/// One owner.
#[derive(Debug, Clone)]
pub(super) struct Thing {
    pub sort: Sort,
    /// So many times it was renamed.
    pub renames: u8,
    pub throws: Vec<u8>,
}

/// A workspace.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// By number.
    pub machines: BTreeMap<u8, Vec<u8>>,
    /// By number.
    pub things: BTreeMap<u8, Thing>,
    pub policy: Vec<u8>,
    /// What stands behind every repository path.
    pub content: u8,
}

/// What people do to their blueprints between two plans.
#[derive(Debug, Clone)]
pub(super) enum Edit {
    Throw { of: u8, at: u8, byte: u8 },
    Thing(u8, Thing),
    Remove(u8),
    Rename(u8),
    Machine(u8, Vec<u8>),
    RemoveMachine(u8),
    Policy { at: u8, byte: u8 },
    Content(u8),
}

fn throws(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

fn thing() -> impl Strategy<Value = Thing> {
    let sort = prop::sample::select(vec![
        Sort::Native,
        Sort::Container,
        Sort::Compose,
        Sort::Static,
        Sort::Service,
        Sort::Volume,
        Sort::Network,
        Sort::Setup,
    ]);
    (sort, throws(40)).prop_map(|(sort, throws)| Thing {
        sort,
        renames: 0,
        throws,
    })
}

pub(super) fn draft() -> impl Strategy<Value = Draft> {
    (
        prop::collection::btree_map(0..3u8, throws(8), 1..4),
        prop::collection::btree_map(0..6u8, thing(), 1..5),
        throws(6),
    )
        .prop_map(|(machines, things, policy)| Draft {
            machines,
            things,
            policy,
            content: 0,
        })
}

pub(super) fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => any::<(u8, u8, u8)>().prop_map(|(of, at, byte)| Edit::Throw { of, at, byte }),
        2 => (0..6u8, thing()).prop_map(|(at, thing)| Edit::Thing(at, thing)),
        2 => any::<u8>().prop_map(Edit::Remove),
        2 => any::<u8>().prop_map(Edit::Rename),
        1 => (0..3u8, throws(8)).prop_map(|(at, throws)| Edit::Machine(at, throws)),
        1 => any::<u8>().prop_map(Edit::RemoveMachine),
        1 => (0..6u8, any::<u8>()).prop_map(|(at, byte)| Edit::Policy { at, byte }),
        1 => any::<u8>().prop_map(Edit::Content),
    ]
}

impl Edit {
    pub fn carry_out(&self, draft: &mut Draft) {
        fn nth<T>(map: &BTreeMap<u8, T>, n: u8) -> Option<u8> {
            let at = usize::from(n) % map.len().max(1);
            map.keys().nth(at).copied()
        }
        fn set(bytes: &mut Vec<u8>, at: u8, byte: u8) {
            let at = usize::from(at) % (bytes.len() + 1);
            match bytes.get_mut(at) {
                Some(old) => *old = byte,
                None => bytes.push(byte),
            }
        }
        match self {
            Self::Throw { of, at, byte } => {
                if let Some(key) = nth(&draft.things, *of) {
                    let thing = draft.things.get_mut(&key).expect("it is there");
                    set(&mut thing.throws, *at, *byte);
                }
            }
            Self::Thing(at, thing) => {
                draft.things.insert(*at, thing.clone());
            }
            Self::Remove(n) => {
                if let Some(key) = nth(&draft.things, *n) {
                    draft.things.remove(&key);
                }
            }
            Self::Rename(n) => {
                if let Some(key) = nth(&draft.things, *n) {
                    draft.things.get_mut(&key).expect("it is there").renames += 1;
                }
            }
            Self::Machine(at, throws) => {
                draft.machines.insert(*at, throws.clone());
            }
            Self::RemoveMachine(n) => {
                if let Some(key) = nth(&draft.machines, *n).filter(|_| draft.machines.len() > 1) {
                    draft.machines.remove(&key);
                }
            }
            Self::Policy { at, byte } => set(&mut draft.policy, *at, *byte),
            Self::Content(content) => draft.content = *content,
        }
    }
}

/// An owner's name, and the one that it had.
pub(super) fn names(number: u8, thing: &Thing) -> (OwnerName, Option<OwnerName>) {
    let called = |renames: u8| match renames {
        0 => name(&format!("x{number}")),
        n => name(&format!("x{number}-{n}")),
    };
    let before = thing.renames.checked_sub(1).map(called);
    (called(thing.renames), before)
}

fn machine_info(throws: &[u8], number: u8) -> MachineInfo {
    let mut dice = Dice(throws);
    let mut info = MachineInfo::default();
    let role = ["web", "db"][usize::from(dice.roll(2))];
    info.labels.insert("role".to_owned(), role.to_owned());
    if dice.rarely(3) {
        let zone = format!("z{}", dice.roll(2));
        info.labels.insert("zone".to_owned(), zone);
    }
    for network in ["private", "public"] {
        if !dice.rarely(8) {
            let first = if network == "private" { 10 } else { 192 };
            let address = format!("{first}.0.{}.{}", dice.roll(3), number + 1);
            info.address.insert(network.to_owned(), address);
        }
    }
    if dice.rarely(3) {
        let monthly_cents = u64::from(dice.roll(200));
        let currency = "EUR".to_owned();
        info.price = Some(Price {
            monthly_cents,
            currency,
        });
    }
    info
}

fn policy(throws: &[u8]) -> Policy {
    let mut dice = Dice(throws);
    let mut limit = || dice.rarely(2).then(|| u32::from(dice.roll(3)));
    let (deletes, restarts, machines) = (limit(), limit(), limit());
    let required_labels = dice.rarely(4).then(|| "zone".to_owned());
    Policy {
        deletes,
        restarts,
        machines,
        required_labels: required_labels.into_iter().collect(),
        data_loss: if dice.rarely(3) {
            DataLoss::Allow
        } else {
            DataLoss::Deny
        },
    }
}

/// What everything in a workspace may refer to.
pub(super) struct Around<'a> {
    pub draft: &'a Draft,
    pub machines: Vec<MachineName>,
    pub roles: BTreeSet<String>,
}

impl Around<'_> {
    /// The names of all owners of these kinds.
    pub fn all(&self, sorts: &[Sort]) -> Vec<OwnerName> {
        let things = self.draft.things.iter();
        things
            .filter(|(_, thing)| sorts.contains(&thing.sort))
            .map(|(number, thing)| names(*number, thing).0)
            .collect()
    }
}

/// What a draft means.
pub(super) fn set(draft: &Draft) -> BlueprintSet {
    let machines: BTreeMap<MachineName, MachineInfo> = draft
        .machines
        .iter()
        .map(|(number, throws)| {
            let name = MachineName::new(&format!("m{number}")).expect("a name");
            (name, machine_info(throws, *number))
        })
        .collect();
    let around = Around {
        draft,
        machines: machines.keys().cloned().collect(),
        roles: machines
            .values()
            .filter_map(|info| info.labels.get("role").cloned())
            .collect(),
    };
    let mut dice = Dice(&draft.policy);
    let base_domain = dice.rarely(4).then(|| "example.org".to_owned());
    let registry = Registry {
        name: "r".to_owned(),
        username: Some("u".to_owned()),
        password: Some(owners::secret(&format!("{CANARY}-registry"))),
    };
    let mut set = BlueprintSet {
        workspace: Workspace {
            name: plumb_model::WorkspaceName::new("shop").expect("a name"),
            vars: BTreeMap::new(),
            policy: policy(&draft.policy),
            base_domain,
        },
        machines,
        apps: BTreeMap::new(),
        setups: BTreeMap::new(),
        services: BTreeMap::new(),
        volumes: BTreeMap::new(),
        networks: BTreeMap::new(),
        registries: [("registry.example.com".to_owned(), registry)].into(),
        origins: Default::default(),
        paths: BTreeSet::new(),
        warnings: Default::default(),
    };
    for (number, thing) in &draft.things {
        owners::add(&mut set, &around, *number, thing);
    }
    set
}
