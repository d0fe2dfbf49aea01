//! One agent: the production session and reconciler, on a VM and a disk that outlive it.

use std::collections::{BTreeMap, BTreeSet};

use plumb_converge::{Reconciler, Settings};
use plumb_dispatch::agent::AgentSession;
use plumb_dispatch::protocol::SecretVersion;
use plumb_dispatch::{Held, Identity};
use plumb_model::capability::{Availability, MachineFacts};
use plumb_model::{Address, Capability, Generation, Hash, MachineName};

use crate::bugs::Bug;
use crate::vm::Vm;
use crate::workload;

/// What survives the agent.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// The assignment.
    pub held: Option<Held>,
    /// What has converged.
    pub applied: BTreeMap<Address, Hash>,
}

/// An agent's process.
#[derive(Debug)]
pub struct Running {
    /// The session's end.
    pub session: AgentSession,
    /// The reconciler.
    pub reconciler: Reconciler,
    /// Says which start this is; answers to an earlier one are not heard.
    pub epoch: u64,
    /// What is being written to the disk.
    pub persisting: Option<Held>,
    /// Addresses that a driver works on.
    pub busy: BTreeSet<Address>,
    /// Content that is still to be fetched.
    pub missing: BTreeSet<Hash>,
    /// When it is to be woken, in virtual milliseconds.
    pub wake_ms: Option<u64>,
}

/// A machine: VM, disk, and the agent while it runs.
#[derive(Debug)]
pub struct Machine {
    /// Its name.
    pub name: MachineName,
    /// The VM.
    pub vm: Vm,
    /// The disk.
    pub disk: Disk,
    /// The agent.
    pub running: Option<Running>,
    /// How often the agent was started.
    pub starts: u64,
    /// The highest generation that was ever on the disk.
    pub highest: Generation,
    /// Its stream, as the agent sees it.
    pub link: Option<u64>,
    /// How far its clock on the wall is off, in milliseconds.
    pub skew_ms: i64,
    /// The key of its certificate.
    pub key: u64,
    /// Its key counts no more: it is another machine's copy, or was removed.
    pub shut_out: bool,
    /// Nobody reaches it, nor it anybody, before this virtual time.
    pub alone_until: u64,
}

/// What every agent says of its VM.
#[must_use]
pub fn facts(name: &MachineName) -> MachineFacts {
    let has = || Availability::Has {
        detail: "simulated".to_owned(),
    };
    let all = [
        Capability::Files,
        Capability::Processes,
        Capability::Chown,
        Capability::Users,
        Capability::Secrets,
    ];
    MachineFacts {
        version: "0.1.0".to_owned(),
        arch: "x86_64".to_owned(),
        hostname: name.to_string(),
        kernel: "6.1".to_owned(),
        capabilities: all.into_iter().map(|c| (c, has())).collect(),
        host: None,
    }
}

impl Machine {
    /// A VM without an agent yet.
    #[must_use]
    pub fn new(name: MachineName, bug: Option<Bug>) -> Self {
        Self {
            name,
            vm: Vm::new(bug),
            disk: Disk::default(),
            running: None,
            starts: 0,
            highest: Generation(0),
            link: None,
            skew_ms: 0,
            key: 0,
            shut_out: false,
            alone_until: 0,
        }
    }

    /// Starts the agent from its disk. The caller has it converge what is there.
    pub fn start(&mut self, seed: u64) {
        self.starts += 1;
        let identity = Identity {
            workspace: workload::workspace(),
            machine: self.name.clone(),
            lineage: None,
        };
        let settings = Settings {
            resync_ms: 30_000,
            full_every: 20,
            seed,
        };
        self.running = Some(Running {
            session: AgentSession::new(identity, facts(&self.name), self.disk.held.clone()),
            reconciler: Reconciler::new(settings, self.disk.applied.clone()),
            epoch: self.starts,
            persisting: None,
            busy: BTreeSet::new(),
            missing: BTreeSet::new(),
            wake_ms: None,
        });
    }

    /// What an assignment refers to and this VM does not have.
    #[must_use]
    pub fn missing(&self, held: &Held) -> BTreeSet<Hash> {
        held.assignment
            .resources()
            .flat_map(|resource| resource.spec.blobs())
            .map(|(digest, _)| digest)
            .filter(|digest| !self.vm.blobs.contains(digest))
            .collect()
    }

    /// The secrets that it names and this VM does not have, with what stands for each.
    #[must_use]
    pub fn missing_secrets(&self, held: &Held) -> BTreeMap<SecretVersion, Hash> {
        held.assignment
            .resources()
            .flat_map(|resource| resource.spec.secrets())
            .filter_map(|secret| {
                let version = (secret.name.clone(), secret.version?);
                Some((version, secret.awaited()?))
            })
            .filter(|(_, awaited)| !self.vm.secrets.contains(awaited))
            .collect()
    }

    /// Another VM with all that is on this one, as somebody makes it who copies a disk. No agent runs on it yet.
    #[must_use]
    pub fn copied(&self) -> Self {
        Self {
            name: self.name.clone(),
            vm: self.vm.clone(),
            disk: self.disk.clone(),
            running: None,
            starts: self.starts,
            highest: self.highest,
            link: None,
            skew_ms: self.skew_ms,
            key: self.key,
            shut_out: self.shut_out,
            alone_until: 0,
        }
    }
}
