//! What is held of one plan, counted by other means than the planner's own.

use std::collections::{BTreeMap, BTreeSet};

use plumb_blueprint::{BlueprintSet, DataLoss};
use plumb_model::coverage::Cost;
use plumb_model::plan::{Change, ChangeAction};
use plumb_model::secret::REDACTED;
use plumb_model::state::Recorded;
use plumb_model::{Address, OnDelete, OwnerName, Resource, ResourceSpec};

use super::super::{World, instance_of};
use super::{CANARY, STRANGER};
use crate::{Planned, Request};

type ByAddress<'a> = BTreeMap<&'a Address, &'a Resource>;

fn by_address(recorded: &Recorded) -> ByAddress<'_> {
    let bodies = recorded.releases.values();
    bodies
        .flat_map(|body| &body.resources)
        .map(|resource| (&resource.address, resource.as_ref()))
        .collect()
}

/// Whether something runs all the time, as its fields say.
fn is_running(resource: &Resource) -> bool {
    let fields = resource.spec.fields();
    let schedule = fields.get("schedule");
    resource.address.kind.runs()
        && fields.get("state").is_some_and(|state| state == "running")
        && schedule.is_none_or(serde_json::Value::is_null)
}

/// Whether its data stays when it is desired no more.
fn is_kept(resource: &Resource) -> bool {
    let on_delete = match &resource.spec {
        ResourceSpec::Volume(spec) => spec.on_delete,
        ResourceSpec::Service(spec) => spec.on_delete,
        _ => return false,
    };
    on_delete == OnDelete::Keep
}

/// Holds that a text tells no secret, and nothing of a stranger's.
pub(super) fn no_canary(text: &str) {
    for word in [CANARY, STRANGER] {
        assert!(!text.contains(word), "{word} is in {text}");
    }
}

/// A plan with what it was made against.
pub(super) struct Plan<'a> {
    world: &'a World,
    request: &'a Request,
    planned: &'a Planned,
    after: Recorded,
    /// Owners by the name that they had, for those that this plan renames.
    renamed: BTreeMap<OwnerName, OwnerName>,
}

impl<'a> Plan<'a> {
    pub fn new(world: &'a World, request: &'a Request, planned: &'a Planned) -> Self {
        let after = world.recorded.after(&planned.next);
        let after = after.expect("a next state has all its bodies");
        let before = &world.recorded.releases;
        let mut renamed = BTreeMap::new();
        if let Request::Apply { blueprint, .. } = request {
            for (new, old) in renames(blueprint) {
                let moves = before.contains_key(old)
                    && !before.contains_key(new)
                    && after.releases.contains_key(new);
                if moves {
                    renamed.insert(old.clone(), new.clone());
                }
            }
        }
        Self {
            world,
            request,
            planned,
            after,
            renamed,
        }
    }

    fn before(&self) -> ByAddress<'_> {
        by_address(&self.world.recorded)
    }

    /// Where what is recorded at an address is afterwards.
    fn becomes(&self, address: &Address) -> Address {
        match self.renamed.get(&address.owner) {
            Some(new) => crate::compile::under(address, new),
            None => address.clone(),
        }
    }

    fn changes(&self) -> impl Iterator<Item = &Change> {
        self.planned.plan.changes.iter()
    }

    fn with_action(&self, action: ChangeAction) -> BTreeSet<Address> {
        let changes = self.changes().filter(|c| c.action == action);
        changes.map(|c| c.address.clone()).collect()
    }

    /// What is recorded and desired no more goes, unless its data is to be kept; nothing else does.
    pub fn removes_only_what_is_owned(&self) {
        let (before, after) = (self.before(), by_address(&self.after));
        let (mut gone, mut kept) = (BTreeSet::new(), BTreeSet::new());
        for (address, resource) in &before {
            if after.contains_key(&self.becomes(address)) {
                continue;
            }
            let which = if is_kept(resource) {
                &mut kept
            } else {
                &mut gone
            };
            which.insert((*address).clone());
        }
        assert_eq!(self.with_action(ChangeAction::Delete), gone);
        assert_eq!(self.with_action(ChangeAction::Forget), kept);
        for change in self.changes() {
            let address = &change.address;
            let known = before.contains_key(address) || after.contains_key(address);
            assert!(known, "{address} is nobody's");
        }
        // An agent that has not heard of a rename has what goes at one of these.
        let former: BTreeSet<Address> = gone
            .iter()
            .flat_map(|address| before[address].addresses_before())
            .cloned()
            .collect();
        let old = &self.world.recorded.state.machines;
        let new = &self.planned.next.state.machines;
        for (name, machine) in new {
            let pending = old.get(name).map(|m| &m.tombstones);
            for address in machine.tombstones.keys() {
                let ordered = pending.is_some_and(|t| t.contains_key(address));
                let goes = gone.contains(address) || former.contains(address);
                assert!(ordered || goes, "{address}");
                assert!(!after.contains_key(address), "{address}");
            }
        }
        for address in &gone {
            let machine = &new[&address.machine];
            assert!(machine.tombstones.contains_key(address), "{address}");
        }
    }

    /// What a file's new content tells its apps to do: what is restarted because of it.
    fn told(&self, change: &Change) -> BTreeSet<Address> {
        let after = by_address(&self.after);
        let is_content = |path: &str| path.split('.').next() == Some("content");
        let moves = matches!(change.action, ChangeAction::Update | ChangeAction::Adopt)
            && change.attributes.iter().any(|a| is_content(&a.path));
        let Some(ResourceSpec::File(spec)) = after.get(&change.address).map(|r| &r.spec) else {
            return BTreeSet::new();
        };
        let here = |address: &Address| {
            address.machine == change.address.machine && spec.notify.contains(&address.owner)
        };
        // A renamed owner is told under its new name, and what is not there afterwards is not told.
        self.before()
            .into_values()
            .filter(|resource| moves && is_running(resource))
            .map(|resource| self.becomes(&resource.address))
            .filter(|address| after.get(address).is_some_and(|new| is_running(new)))
            .filter(here)
            .collect()
    }

    /// Whether other instances of what goes, which ran, run afterwards.
    fn others_go_on(&self, gone: &Address) -> bool {
        let after = by_address(&self.after);
        let mut others = self.before().into_values();
        others.any(|other| {
            other.address.owner == gone.owner
                && is_running(other)
                && instance_of(&other.address).is_some()
                && instance_of(&other.address) == instance_of(gone)
                && after
                    .get(&self.becomes(&other.address))
                    .is_some_and(|new| is_running(new))
        })
    }

    /// The blast radius is what can be counted in the changes.
    ///
    /// Fails under the mutations: count a restart for each reason of it; leave those who are told by a file out of the peak;
    /// count them under the name that they had.
    pub fn counts_are_right(&self) {
        let (before, after) = (self.before(), by_address(&self.after));
        let radius = &self.planned.plan.blast_radius;
        let replaced = |change: &Change| {
            matches!(
                change.action,
                ChangeAction::ReplaceCreateFirst | ChangeAction::ReplaceDeleteFirst
            )
        };
        let count = |holds: &dyn Fn(&Change) -> bool| {
            u32::try_from(self.changes().filter(|c| holds(c)).count()).expect("few")
        };
        let deletes = count(&|c| c.action == ChangeAction::Delete);
        assert_eq!(radius.deletes, deletes);
        assert_eq!(radius.replacements, count(&replaced));
        let data = |c: &Change| c.action == ChangeAction::Delete || replaced(c);
        let lost = count(&|c| c.address.kind.holds_data() && data(c));
        assert_eq!(radius.data_deletes, lost);

        // Each thing once, where it is afterwards, or was if it goes.
        let (mut restarted, mut stopped) = (BTreeSet::new(), BTreeSet::new());
        let back: BTreeMap<Address, &Address> =
            before.keys().map(|a| (self.becomes(a), *a)).collect();
        for change in self.changes() {
            let told = self.told(change);
            restarted.extend(told.iter().cloned());
            stopped.extend(told);
            // What goes keeps the address that it has, whatever its owner is called from now on.
            let at = back.get(&change.address).copied();
            let old = before.get(at.unwrap_or(&change.address)).copied();
            if !old.is_some_and(is_running) {
                continue;
            }
            let new = after.get(&change.address).copied();
            let stays = new.is_some_and(is_running);
            let dear = change.attributes.iter().any(|a| a.cost >= Cost::Restart);
            let acted = change.action == ChangeAction::Update || replaced(change);
            let goes = change.action == ChangeAction::Delete && !self.others_go_on(&change.address);
            if acted && stays && dear {
                restarted.insert(change.address.clone());
            }
            if goes || acted && (dear || !stays) {
                stopped.insert(change.address.clone());
            }
        }
        let mut down: BTreeMap<OwnerName, u32> = BTreeMap::new();
        for address in &stopped {
            let owner = self.renamed.get(&address.owner).unwrap_or(&address.owner);
            *down.entry(owner.clone()).or_default() += 1;
        }
        assert_eq!(radius.restarts as usize, restarted.len());
        let peaks = &radius.peak_unavailable;
        assert!(peaks.keys().eq(down.keys()), "{peaks:?} of {down:?}");
        for (owner, all) in &down {
            // Fewer at once only where machines move in waves.
            let note = format!("rollout of {owner}");
            let paced = self.planned.plan.not_done.iter().any(|n| n.subject == note);
            let peak = peaks[owner];
            assert!(
                peak == *all || paced && peak > 0 && peak < *all,
                "{note}: {peak} of {all}"
            );
        }
        for (owner, peak) in &radius.peak_unavailable {
            let mine = back.iter();
            let mine = mine.filter(|(new, old)| [&new.owner, &old.owner].contains(&owner));
            let running = mine.filter(|(_, old)| is_running(before[*old])).count();
            assert!(*peak as usize <= running, "{owner}: {peak} of {running}");
        }

        let old = &self.world.recorded.state.machines;
        let moved = self.planned.next.state.machines.iter();
        let moved: BTreeSet<_> = moved
            .filter(|(name, m)| old.get(*name).map(|o| o.assignment) != Some(m.assignment))
            .map(|(name, _)| name.clone())
            .collect();
        assert_eq!(radius.machines, moved);
    }

    /// A consent is asked for exactly where the policy is exceeded, so that nothing is done unasked.
    pub fn asks_for_what_it_must(&self) {
        let plan = &self.planned.plan;
        let radius = &plan.blast_radius;
        let mut needed: BTreeSet<&str> = BTreeSet::new();
        let mut free = DataLoss::Deny;
        if let Request::Apply { blueprint, ask, .. } = self.request {
            let policy = &blueprint.workspace.policy;
            let over = |limit: Option<u32>, found: u32| limit.is_some_and(|limit| found > limit);
            let machines = u32::try_from(radius.machines.len()).expect("few");
            let lacking = blueprint.machines.values().any(|machine| {
                let labels = &mut policy.required_labels.iter();
                labels.any(|label| !machine.labels.contains_key(label))
            });
            let is_empty =
                self.after.releases.is_empty() && !self.world.recorded.releases.is_empty();
            for (name, asked) in [
                ("deletes", over(policy.deletes, radius.deletes)),
                ("restarts", over(policy.restarts, radius.restarts)),
                ("machines", over(policy.machines, machines)),
                ("labels", lacking && !plan.is_empty()),
                ("empty", is_empty && ask.targets.is_empty()),
            ] {
                if asked {
                    needed.insert(name);
                }
            }
            free = policy.data_loss;
        }
        if radius.data_deletes > 0 && free == DataLoss::Deny {
            needed.insert("data-loss");
        }
        if !self.with_action(ChangeAction::Adopt).is_empty() {
            needed.insert("adopt");
        }
        let asked: Vec<&str> = plan.consents.iter().map(|c| c.allow.as_str()).collect();
        assert_eq!(asked.iter().copied().collect::<BTreeSet<_>>(), needed);
        assert_eq!(asked.len(), needed.len(), "asked twice: {asked:?}");
    }

    /// What is nobody's business is in no form of the plan, and a stranger's things are nowhere.
    pub fn hides_what_it_must(&self) {
        let plan = &self.planned.plan;
        no_canary(&serde_json::to_string(plan).expect("a plan is JSON"));
        no_canary(&format!("{plan:?}"));
        for body in self.planned.next.bodies.values() {
            let text = String::from_utf8_lossy(body);
            assert!(!text.contains(STRANGER), "{text}");
        }
        for attribute in self.changes().flat_map(|change| &change.attributes) {
            let values = attribute.before.iter().chain(&attribute.after);
            if attribute.sensitive {
                assert!(attribute.digest.is_some(), "{attribute:?}");
                assert!(values.into_iter().all(|v| v == REDACTED), "{attribute:?}");
            }
        }
    }
}

fn renames(set: &BlueprintSet) -> Vec<(&OwnerName, &OwnerName)> {
    let apps = set.apps.iter().map(|(n, it)| (n, &it.renamed_from));
    let setups = set.setups.iter().map(|(n, it)| (n, &it.renamed_from));
    let services = set.services.iter().map(|(n, it)| (n, &it.renamed_from));
    let volumes = set.volumes.iter().map(|(n, it)| (n, &it.renamed_from));
    let networks = set.networks.iter().map(|(n, it)| (n, &it.renamed_from));
    let all = apps.chain(setups).chain(services).chain(volumes);
    all.chain(networks)
        .filter_map(|(new, old)| Some((new, old.as_ref()?)))
        .collect()
}
