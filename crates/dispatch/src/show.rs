//! From what the fleet knows to what people see.
//!
//! It decides nothing and changes nothing; the types are those of [`view`](crate::view).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use plumb_model::capability::MachineFacts;
use plumb_model::parallel;
use plumb_model::rollout::Phase;
use plumb_model::state::{MachineInfo, Outcome, OwnerKind};
use plumb_model::{
    Condition, ConditionKind, Entry, Generation, HealthProbe, MachineName, OwnerName, ProcessSpec,
    Reason, ReleaseNumber, ResourceKind, ResourceSpec, ResourceStatus, Revision, RunState,
};

use crate::fleet::Fleet;
use crate::judge::{Progress, judge};
use crate::machine::Machine;
use crate::machines::Machines;
use crate::releases::Track;
use crate::skew;
use crate::view::{
    Counts, FORMAT, MachineView, MachineWord, OwnerView, ProcessView, ResourceView, RolloutView,
    StateWord, WorkspaceView,
};

impl Fleet {
    /// Machines by name, behind the one given: at most `limit`.
    #[must_use]
    pub fn machine_views(&self, after: Option<&MachineName>, limit: usize) -> Vec<MachineView> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.machines
            .range((from, Bound::Unbounded))
            .filter(|(_, machine)| machine.is_shown())
            .take(limit)
            .map(|(name, machine)| self.view_of(name, machine))
            .collect()
    }

    /// One machine; none if nothing is recorded of it and its agent is not connected.
    #[must_use]
    pub fn machine_view(&self, name: &MachineName) -> Option<MachineView> {
        let machine = self.machines.get(name).filter(|m| m.is_shown())?;
        Some(self.view_of(name, machine))
    }

    fn view_of(&self, name: &MachineName, machine: &Machine) -> MachineView {
        let mut counts = Counts::default();
        for entry in machine.assignment().into_iter().flat_map(|a| a.entries()) {
            if let Some(view) = resource_view(name, machine, entry) {
                counts.add(view.state);
            }
        }
        machine_view(name, machine, counts)
    }

    /// Everything as it stands.
    #[must_use]
    pub fn view(&self) -> WorkspaceView {
        self.standing().view()
    }

    /// All that is known now, to be looked at elsewhere while the fleet goes on. Takes as long as copying a pointer for each
    /// machine does.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            revision: self.revision,
            machines: self.machines.clone(),
            owners: self
                .owners
                .iter()
                .map(|(owner, track)| (owner.clone(), Released::of(track)))
                .collect(),
            rollouts: self.rollouts.clone(),
            dropped_statuses: self.dropped_statuses,
            dropped_events: self.dropped_events,
        }
    }
}

/// A fleet as it stood at one moment.
#[derive(Debug)]
pub struct Standing {
    revision: Revision,
    machines: Machines,
    owners: BTreeMap<OwnerName, Released>,
    rollouts: BTreeMap<OwnerName, RolloutView>,
    dropped_statuses: u64,
    dropped_events: u64,
}

/// An owner's release, and what became of it.
#[derive(Debug, Clone, Copy)]
struct Released {
    kind: Option<OwnerKind>,
    release: ReleaseNumber,
    outcome: Outcome,
    removed: bool,
}

impl Released {
    fn of(track: &Track) -> Self {
        Self {
            kind: track.kind,
            release: track.release,
            outcome: track.outcome,
            removed: track.removed,
        }
    }
}

impl Standing {
    /// What each machine that was ever heard of since this control plane started says of itself.
    pub fn facts(&self) -> impl Iterator<Item = (&MachineName, &MachineFacts)> {
        self.machines.facts()
    }

    /// The last status of every resource, of machines that are not regressed.
    pub fn statuses(&self) -> impl Iterator<Item = &Arc<ResourceStatus>> {
        self.machines.statuses()
    }

    /// It, for people.
    #[must_use]
    pub fn view(&self) -> WorkspaceView {
        let all: Vec<_> = self.machines.iter().collect();
        let parts = all.chunks(AT_A_TIME).collect();
        let size = all.len() * parallel::A_RESOURCE;
        let mut machines = Vec::with_capacity(all.len());
        let mut resources: BTreeMap<&OwnerName, Vec<ResourceView>> = BTreeMap::new();
        let mut urls: BTreeMap<&OwnerName, BTreeSet<String>> = BTreeMap::new();
        for part in parallel::each(parts, size, Part::of) {
            machines.extend(part.machines);
            for (owner, view) in part.resources {
                resources.entry(owner).or_default().push(view);
            }
            for (owner, more) in part.urls {
                urls.entry(owner).or_default().extend(more);
            }
        }
        let owners = self
            .owners
            .iter()
            // Whatever was proven gone is shown no more, though its tombstones stay until the next apply.
            .filter(|(owner, track)| !track.removed || resources.contains_key(*owner))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(owner, track)| {
                owner_view(
                    owner,
                    *track,
                    resources.remove(owner).unwrap_or_default(),
                    urls.remove(owner).unwrap_or_default().into_iter().collect(),
                    self.rollouts.get(owner).cloned(),
                )
            })
            .collect();
        WorkspaceView {
            format: FORMAT,
            revision: self.revision,
            machines,
            owners,
            dropped_statuses: self.dropped_statuses,
            dropped_events: self.dropped_events,
        }
    }
}

/// So many machines are looked at by one thread at a time.
const AT_A_TIME: usize = 256;

/// What some of the machines come to.
#[derive(Default)]
struct Part<'a> {
    machines: Vec<MachineView>,
    /// By machine, and by address on each.
    resources: Vec<(&'a OwnerName, ResourceView)>,
    urls: BTreeMap<&'a OwnerName, BTreeSet<String>>,
}

impl<'a> Part<'a> {
    fn of(machines: &[(&'a MachineName, &'a Machine)]) -> Self {
        let mut part = Self::default();
        for (name, machine) in machines {
            let mut counts = Counts::default();
            let entries = machine.assignment().into_iter().flat_map(|a| a.entries());
            for entry in entries {
                let Some(view) = resource_view(name, machine, entry) else {
                    continue;
                };
                let owner = &entry.address().owner;
                counts.add(view.state);
                part.resources.push((owner, view));
                if let (Some(spec), Some(record)) = (process_spec(entry), &machine.record) {
                    let urls = part.urls.entry(owner).or_default();
                    urls.extend(answers(spec, &record.info));
                }
            }
            if machine.is_shown() {
                part.machines.push(machine_view(name, machine, counts));
            }
        }
        part
    }
}

fn process_spec(entry: &Entry) -> Option<&ProcessSpec> {
    match entry {
        Entry::Resource(resource) => match &resource.spec {
            ResourceSpec::Process(spec) => Some(spec),
            _ => None,
        },
        Entry::Tombstone(_) => None,
    }
}

/// Where a process answers: at the port of an http health check, and at every port whose name starts with `http`. A
/// machine without a declared address is taken to be this one.
fn answers(spec: &ProcessSpec, info: &MachineInfo) -> Vec<String> {
    if spec.state == RunState::Stopped {
        return Vec::new();
    }
    let host = info
        .address
        .get("public")
        .or_else(|| info.address.get("private"))
        .map_or("127.0.0.1", String::as_str);
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let checked = spec.health.as_ref().and_then(|health| match health.probe {
        HealthProbe::Http { port, .. } => Some(port),
        HealthProbe::Tcp { .. } => None,
    });
    let named = spec
        .ports
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("http"))
        .map(|(name, port)| (*port, name.as_str().starts_with("https")));
    let mut ports: BTreeMap<u16, bool> = named.collect();
    if let Some(port) = checked {
        ports.insert(port, false);
    }
    ports
        .into_iter()
        .map(|(port, tls)| format!("{}://{host}:{port}", if tls { "https" } else { "http" }))
        .collect()
}

fn machine_view(name: &MachineName, machine: &Machine, counts: Counts) -> MachineView {
    let facts = machine.facts.as_ref();
    let refused = machine.refused.as_ref().map(|refused| {
        format!(
            "refused generation {}: {}",
            refused.refusal.generation, refused.refusal.message
        )
    });
    let incompatible = machine.incompatible.as_ref();
    let (state, message) = if let Some(why) = incompatible.filter(|_| !machine.is_online()) {
        (MachineWord::Offline, Some(why.clone()))
    } else if let Some(regressed) = &machine.regressed {
        (MachineWord::Regressed, Some(regressed.clone()))
    } else if machine.is_cloned() {
        (MachineWord::Quarantined, Some(quarantined(name, machine)))
    } else if machine.record.is_none() {
        let message = "no blueprint names this machine; add a `kind: Machine` document for it";
        (MachineWord::Unassigned, Some(message.to_owned()))
    } else if machine.is_online() {
        let skew = || skew::said("its clock", machine.ahead_ms?);
        (MachineWord::Online, refused.or_else(skew))
    } else if machine.last_seen.is_some() {
        (MachineWord::Offline, Some(offline(name, machine)))
    } else {
        (MachineWord::NeverSeen, Some(offline(name, machine)))
    };
    MachineView {
        name: name.clone(),
        online: machine.is_online(),
        state,
        message,
        last_seen: machine.last_seen,
        version: facts.map(|f| f.version.clone()),
        hostname: facts.map(|f| f.hostname.clone()),
        arch: facts.map(|f| f.arch.clone()),
        generation: machine.generation(),
        acked: machine.held.map_or(Generation(0), |(held, _)| held),
        leaving: machine.record.as_ref().is_some_and(|r| r.leaving),
        counts,
        hands: machine.hands.view(),
    }
}

/// So much of an instance's name tells it from the others.
const INSTANCE_DIGITS: usize = 8;

/// Why nothing is sent to either of two agents, and the one command that settles it.
fn quarantined(name: &MachineName, machine: &Machine) -> String {
    let now = machine.session.as_ref().map(|s| s.instance.as_str());
    let others = machine.superseded.iter().rev().map(String::as_str);
    let mut living: Vec<&str> = Vec::new();
    for instance in now.into_iter().chain(others) {
        if !living.contains(&instance) && living.len() < 2 {
            living.push(instance);
        }
    }
    let short: Vec<String> = living
        .iter()
        .map(|instance| instance.chars().take(INSTANCE_DIGITS).collect())
        .collect();
    let keep = short.first().map_or("INSTANCE", String::as_str);
    format!(
        "two agents live under the identity of machine {name} ({}), so nothing is sent to either; keep one of them and shut the other out with `plumb machine keep {name} {keep}` (`plumb machine show {name}` says where each connects from)",
        short.join(" and ")
    )
}

fn offline(name: &MachineName, machine: &Machine) -> String {
    if machine.removed {
        return format!(
            "machine {name} has been removed; enrol another under its name with `plumb token create --join --machine {name}`, or take it out of the blueprints and apply"
        );
    }
    match machine.last_seen {
        Some(_) => {
            format!("machine {name} is offline; check its agent and its way to this control plane")
        }
        None => format!(
            "machine {name} has not connected since this control plane started; start `plumb agent` on it"
        ),
    }
}

/// A resource's line; none for what is proven gone.
fn resource_view(name: &MachineName, machine: &Machine, entry: &Entry) -> Option<ResourceView> {
    let address = entry.address();
    let status = machine.statuses.get(address);
    let progress = judge(entry, status, machine.generation());
    let removing = matches!(entry, Entry::Tombstone(_));
    if removing && progress == Progress::Done {
        return None;
    }
    let (state, message) = word(name, machine, entry, progress);
    let process = process_spec(entry)
        .map(|spec| process_view(Some(spec), status))
        .or_else(|| {
            status
                .filter(|s| s.process.is_some())
                .map(|s| process_view(None, Some(s)))
        });
    Some(ResourceView {
        address: address.clone(),
        kind: address.kind,
        state,
        message,
        generation: status.map(|s| s.generation),
        conditions: status.map(|s| s.conditions.clone()).unwrap_or_default(),
        process,
    })
}

fn word(
    name: &MachineName,
    machine: &Machine,
    entry: &Entry,
    progress: Progress<'_>,
) -> (StateWord, Option<String>) {
    if machine.regressed.is_some() {
        let message = format!(
            "machine {name} is ahead of the control plane's records, and left alone; `plumb machine show {name}` says more, `plumb recover` goes on from what is recorded"
        );
        return (StateWord::Waiting, Some(message));
    }
    let under_way = match entry {
        Entry::Tombstone(_) => StateWord::Removing,
        Entry::Resource(_) => StateWord::Converging,
    };
    let say = |c: &Condition| Some(c.message.clone());
    match progress {
        Progress::Failed(c) => (StateWord::Failed, say(c)),
        Progress::Unhealthy(c) => (StateWord::Degraded, say(c)),
        Progress::Pending(_) if machine.is_cloned() => {
            (StateWord::Waiting, Some(quarantined(name, machine)))
        }
        Progress::Pending(_) if refusal(machine).is_some() => (StateWord::Failed, refusal(machine)),
        Progress::Pending(_) if !machine.is_online() => {
            (StateWord::Waiting, Some(offline(name, machine)))
        }
        Progress::Pending(Some(c)) => (under_way, say(c)),
        Progress::Pending(None) => (under_way, Some("not reported yet".to_owned())),
        Progress::Done | Progress::Drifted(_) if !machine.is_online() => {
            (StateWord::Degraded, Some(offline(name, machine)))
        }
        Progress::Drifted(c) => (StateWord::Degraded, say(c)),
        Progress::Done => {
            let by_blueprint = process_spec(entry).is_some_and(|p| p.state == RunState::Stopped);
            // By hand, or while the control plane was not heard: the agent says which.
            let converged = machine
                .statuses
                .get(entry.address())
                .and_then(|status| status.condition(ConditionKind::Converged));
            let otherwise = converged.filter(|c| c.reason == Reason::Stopped);
            match (by_blueprint, otherwise) {
                (true, _) => (StateWord::Stopped, None),
                (false, Some(c)) => (StateWord::Stopped, say(c)),
                (false, None) => (StateWord::Converged, None),
            }
        }
    }
}

fn refusal(machine: &Machine) -> Option<String> {
    machine
        .refused
        .as_ref()
        .map(|refused| refused.refusal.message.clone())
}

fn process_view(spec: Option<&ProcessSpec>, status: Option<&ResourceStatus>) -> ProcessView {
    let seen = status.and_then(|s| s.process.clone()).unwrap_or_default();
    ProcessView {
        state: spec.map(|s| s.state),
        pid: seen.pid,
        incarnation: seen.incarnation,
        started: seen.started,
        restarts: seen.restarts,
        last_exit: seen.last_exit,
        ports: spec.map(|s| s.ports.clone()).unwrap_or_default(),
        health: seen.health.into(),
        restarted: seen.restarted,
    }
}

fn owner_view(
    owner: &OwnerName,
    track: Released,
    resources: Vec<ResourceView>,
    urls: Vec<String>,
    rollout: Option<RolloutView>,
) -> OwnerView {
    let mut counts = Counts::default();
    for resource in &resources {
        counts.add(resource.state);
    }
    // The first of the worst; a stopped process hides nothing of its app's files.
    let worst = resources
        .iter()
        .rev()
        .max_by_key(|r| r.state.max(StateWord::Converged));
    let mut state = worst.map_or(StateWord::Converged, |r| r.state.max(StateWord::Converged));
    let mut processes = resources
        .iter()
        .filter(|r| r.kind == ResourceKind::Process)
        .peekable();
    if state == StateWord::Converged
        && processes.peek().is_some()
        && processes.all(|r| r.state == StateWord::Stopped)
    {
        state = StateWord::Stopped;
    }
    if track.removed && matches!(state, StateWord::Converged | StateWord::Converging) {
        state = StateWord::Removing;
    }
    let rollout = rollout.filter(|rollout| rollout.release == track.release && !track.removed);
    let rolling = rollout.as_ref().and_then(rolling);
    let message = worst.and_then(|r| {
        let message = r.message.as_ref()?;
        let same = resources.iter().filter(|o| o.state == r.state).count();
        Some(match same {
            0 | 1 => format!("{}: {message}", r.address),
            _ => format!("{}: {message} (and {} more)", r.address, same - 1),
        })
    });
    let (state, message) = match rolling {
        // What its machines hold is as it should be, but for some it is not yet the release.
        Some((word, why)) if matches!(state, StateWord::Converged | StateWord::Stopped) => {
            (word, Some(why))
        }
        _ => (state, message),
    };
    OwnerView {
        name: owner.clone(),
        kind: track.kind,
        release: track.release,
        outcome: track.outcome,
        state,
        message,
        urls,
        counts,
        resources,
        rollout,
    }
}

/// How an owner is whose machines still move to its release, and why.
fn rolling(rollout: &RolloutView) -> Option<(StateWord, String)> {
    let word = match rollout.phase {
        Phase::Done => return None,
        Phase::Running | Phase::Paused | Phase::Reverting => StateWord::Converging,
        Phase::Stalled => StateWord::Waiting,
        Phase::Failed => StateWord::Failed,
    };
    let why = rollout.why.as_ref().or(rollout.waits.as_ref());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let message = format!(
        "the rollout is {}, {} of {} are at release {}{why}",
        rollout.phase.as_str(),
        rollout.moved,
        rollout.instances,
        rollout.release
    );
    Some((word, message))
}
