//! What is true of every plan, over random histories of the whole language.
//!
//! A case is a small typed workspace and what happens to it: edits, agents that report, strangers in the way, rollbacks,
//! the end. Each plan on the way is held against what was recorded before it, by means that do not ask the planner
//! ([`held`]); what may be applied is recorded by [`World::apply`], which holds the order of the changes besides, and
//! planned again, which must give nothing. [`split`] holds that the way in which blueprints are written changes nothing.

mod draft;
mod held;
mod owners;
mod split;

use std::collections::{BTreeMap, BTreeSet};

use plumb_blueprint::BlueprintSet;
use plumb_model::capability::Capability;
use plumb_model::state::ResolutionKey;
use plumb_model::{Address, Hash, MachineName, OwnerName, ReleaseNumber};
use proptest::prelude::*;

use super::{Said, World, facts, owner as name};
use crate::{Ask, Refresh, Request, Source};
use draft::{Dice, Draft, Edit};
use held::Plan;

/// What stands for a secret: in names of secrets, beside credentials in texts, in credentials' names.
const CANARY: &str = "canary4711";

/// What a stranger's file holds that no resource of ours is about.
const STRANGER: &str = "stranger4712";

/// So many cases of each property in every test run; `PLUMB_CASES=N` looks at others.
const CASES: u32 = 10_000;

fn cases() -> u32 {
    match std::env::var("PLUMB_CASES") {
        Ok(text) => text.parse().expect("PLUMB_CASES is a number"),
        Err(_) => CASES,
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// The blueprints change and are planned, with this much asked for.
    Edit(Vec<Edit>, u8),
    /// All agents report that they are done.
    Converge,
    /// An agent says something of the n-th resource, and the same is planned again.
    Said(u8, u8),
    /// The n-th release that there ever was, again.
    Rollback(u8),
    Destroy,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prop::collection::vec(draft::edit(), 1..4), any::<u8>())
            .prop_map(|(edits, ask)| Step::Edit(edits, ask)),
        2 => Just(Step::Converge),
        3 => any::<(u8, u8)>().prop_map(|(at, what)| Step::Said(at, what)),
        2 => any::<u8>().prop_map(Step::Rollback),
        1 => Just(Step::Destroy),
    ]
}

/// What repository paths hold.
fn sources(set: &BlueprintSet, content: u8) -> BTreeMap<String, Source> {
    let source = |path: &String| {
        let text = format!("{path} {content}");
        Source {
            digest: Hash::of(text.as_bytes()),
            size: text.len() as u64,
            text: path.starts_with("file").then_some(text),
        }
    };
    let paths = set.paths.iter();
    paths.map(|path| (path.clone(), source(path))).collect()
}

/// What moving names mean when somebody looks.
fn resolved(content: u8) -> BTreeMap<ResolutionKey, String> {
    let digit = ["1", "2", "3"][usize::from(content % 3)];
    let image = format!("sha256:{}", digit.repeat(64));
    let mut all = vec![
        ("image box:2".to_owned(), image.clone()),
        ("image registry.example.com/box:1".to_owned(), image),
        ("runtime node@20".to_owned(), format!("20.{digit}.0")),
    ];
    for wanted in ["branch main", "branch next", "tag v1"] {
        let key = format!("git https://git.example.com/x.git {wanted}");
        all.push((key, digit.repeat(40)));
    }
    for engine in ["postgres", "redis", "rabbitmq"] {
        for version in ["16", "16.3", "7.2.4"] {
            let key = format!("service {engine}@{version}");
            all.push((key, format!("{version}.{digit}")));
        }
    }
    all.into_iter()
        .map(|(k, v)| (ResolutionKey(k), v))
        .collect()
}

/// What is asked for: mostly everything.
fn ask(throw: u8, draft: &Draft, set: &BlueprintSet) -> Ask {
    let mut ask = Ask::default();
    // Once in a while nobody can look names up.
    if throw % 16 != 15 {
        ask.resolved = resolved(draft.content);
    }
    if throw % 5 == 4 {
        ask.refresh = Refresh::All;
    }
    if throw % 7 == 6 {
        let owners: Vec<&OwnerName> = set.apps.keys().chain(set.setups.keys()).collect();
        let one = owners.get(usize::from(throw / 7) % owners.len().max(1));
        ask.targets = one.map(|owner| (*owner).clone()).into_iter().collect();
    }
    ask
}

/// A history on its way.
struct Walk {
    world: World,
    draft: Draft,
    /// How many plans were made, and how many of them did something.
    plans: (u32, u32),
}

impl Walk {
    fn request(&self, throw: u8) -> Request {
        let blueprint = draft::set(&self.draft);
        Request::Apply {
            sources: sources(&blueprint, self.draft.content),
            ask: ask(throw, &self.draft, &blueprint),
            blueprint,
        }
    }

    /// Machines are heard of; one lacks something, and one never is.
    fn hear(&mut self) {
        for (number, throws) in &self.draft.machines {
            let name = MachineName::new(&format!("m{number}")).expect("a name");
            let said = match Dice(throws.get(6..).unwrap_or_default()).roll(12) {
                11 => continue,
                10 => facts(&[Capability::Containers]),
                _ => facts(&[]),
            };
            self.world.observed.machines.insert(name, said);
        }
    }

    /// Plans, holds everything, and records what may be applied.
    fn plan(&mut self, request: &Request) {
        self.plans.0 += 1;
        let planned = match self.world.try_plan(request) {
            Ok(planned) => planned,
            Err(refused) => {
                held::no_canary(&refused.to_string());
                held::no_canary(&format!("{refused:?}"));
                return;
            }
        };
        self.plans.1 += u32::from(!planned.plan.is_empty());
        let plan = Plan::new(&self.world, request, &planned);
        plan.removes_only_what_is_owned();
        plan.counts_are_right();
        plan.asks_for_what_it_must();
        plan.hides_what_it_must();
        if planned.plan.obstacles().next().is_some() {
            // The control plane records no such plan; the order and the rest are held all the same.
            self.world.clone().apply(&planned);
            return;
        }
        self.world.apply(&planned);
        let again = self.world.try_plan(request).expect("what was planned once");
        assert!(again.plan.is_empty(), "{:#?}", again.plan);
        assert!(again.next.moved.is_empty(), "{:?}", again.next.moved);
        assert!(again.next.released.is_empty(), "{:?}", again.next.released);
    }

    /// Something that an agent says of the n-th recorded resource, and of a thing that nobody here knows.
    fn said(&mut self, at: u8, what: u8) {
        let recorded: Vec<Address> = self
            .world
            .recorded
            .releases
            .values()
            .flat_map(|body| &body.resources)
            .map(|resource| resource.address.clone())
            .collect();
        let Some(address) = recorded.get(usize::from(at) % recorded.len().max(1)) else {
            return;
        };
        let said = match what % 4 {
            0 => Said::PortTaken,
            1 => Said::InTheWay("theirs"),
            2 => Said::InTheWay(""),
            _ => Said::Drifted("mode is 0600"),
        };
        self.world.observe(&address.to_string(), said);
        let machine = &address.machine;
        let theirs = format!("{machine}/theirs/file//srv/theirs");
        self.world.observe(&theirs, Said::InTheWay(STRANGER));
    }

    fn rollback(&mut self, n: u8) {
        let history = &self.world.history;
        let nth = history.keys().nth(usize::from(n) % history.len().max(1));
        let Some((owner, ReleaseNumber(to))) = nth.cloned() else {
            return;
        };
        let request = self.world.rollback_to(owner.as_str(), to);
        self.plan(&request);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Edit(edits, throw) => {
                for edit in edits {
                    edit.carry_out(&mut self.draft);
                }
                self.hear();
                let request = self.request(*throw);
                self.plan(&request);
            }
            Step::Converge => self.world.converge(),
            Step::Said(at, what) => {
                self.said(*at, *what);
                let request = self.request(0);
                self.plan(&request);
            }
            Step::Rollback(n) => self.rollback(*n),
            Step::Destroy => self.plan(&Request::Destroy),
        }
    }
}

fn walk(draft: &Draft, steps: &[Step]) -> (u32, u32) {
    let mut walk = Walk {
        world: World::default(),
        draft: draft.clone(),
        plans: (0, 0),
    };
    walk.step(&Step::Edit(Vec::new(), 0));
    for step in steps {
        walk.step(step);
    }
    walk.plans
}

/// Walks a quarter of the histories: four tests of their own, so that they run side by side. One of them once met a plan
/// that destroyed data without asking for `data-loss`.
macro_rules! quarter {
    ($($name:ident)*) => {
        proptest! {
            #![proptest_config(ProptestConfig {
                cases: cases().div_ceil(4),
                failure_persistence: None,
                ..ProptestConfig::default()
            })]
            $(
                #[test]
                fn $name(
                    draft in draft::draft(),
                    steps in prop::collection::vec(step(), 0..4),
                ) {
                    walk(&draft, &steps);
                }
            )*
        }
    };
}

quarter! {
    every_plan_of_every_history_is_settled_owned_counted_asked_for_hidden_and_in_order
    so_is_every_plan_of_a_second_quarter
    so_is_every_plan_of_a_third_quarter
    so_is_every_plan_of_the_last_quarter
}

/// What the generator makes is not mostly nonsense: the properties would hold of nothing.
#[test]
fn most_histories_are_planned_and_meet_every_kind_and_action() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut all, mut refused) = (0, 0);
    let mut kinds = BTreeSet::new();
    for _ in 0..300 {
        let tree = draft::draft().new_tree(&mut runner).expect("a draft");
        let set = draft::set(&tree.current());
        let request = Request::Apply {
            sources: sources(&set, 0),
            ask: ask(0, &tree.current(), &set),
            blueprint: set,
        };
        all += 1;
        match World::default().try_plan(&request) {
            Ok(planned) => {
                let changes = planned.plan.changes.into_iter();
                kinds.extend(changes.map(|change| change.address.kind));
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused * 4 < all, "{refused} of {all} are refused");
    assert_eq!(
        kinds.len(),
        plumb_model::ResourceKind::ALL.len(),
        "{kinds:?}"
    );
}
