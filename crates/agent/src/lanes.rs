//! One lane for each resource kind: its driver, run on threads that may block, one job at a time.
//!
//! A slow lane, such as one that unpacks an artifact, holds up no other: a killed process is restarted meanwhile.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use plumb_converge::{Event, Work};
use plumb_dispatch::protocol::Releases;
use plumb_driver::artifact::ArtifactDriver;
use plumb_driver::file::{DirectoryDriver, FileDriver};
use plumb_driver::host::Host;
use plumb_driver::process::ProcessDriver;
use plumb_driver::undriven::UndrivenDriver;
use plumb_driver::{Driver, Target};
use plumb_model::{Action, Depth, Fault, Observation, Reason, ResourceKind};
use tokio::sync::mpsc;

type Lane = Arc<Mutex<Box<dyn Driver>>>;

/// All drivers.
pub struct Lanes {
    artifact: Lane,
    directory: Lane,
    file: Lane,
    process: Lane,
    undriven: Lane,
    done: mpsc::Sender<Event>,
}

fn lane(driver: impl Driver + 'static) -> Lane {
    Arc::new(Mutex::new(Box::new(driver)))
}

impl Lanes {
    /// Answers come through `done`, one for each job.
    pub fn new(host: &Host, done: mpsc::Sender<Event>) -> Self {
        Self {
            artifact: lane(ArtifactDriver::new(host)),
            directory: lane(DirectoryDriver::new(host)),
            file: lane(FileDriver::new(host)),
            process: lane(ProcessDriver::new(host.clone())),
            undriven: lane(UndrivenDriver),
            done,
        }
    }

    fn lane(&self, kind: ResourceKind) -> Lane {
        match kind {
            ResourceKind::Artifact => &self.artifact,
            ResourceKind::Directory => &self.directory,
            ResourceKind::File => &self.file,
            ResourceKind::Process => &self.process,
            ResourceKind::Package
            | ResourceKind::Checkout
            | ResourceKind::Toolchain
            | ResourceKind::Build
            | ResourceKind::Image
            | ResourceKind::Network
            | ResourceKind::Volume
            | ResourceKind::Service
            | ResourceKind::Task
            | ResourceKind::Container
            | ResourceKind::Route => &self.undriven,
        }
        .clone()
    }

    /// Has a batch looked at.
    pub fn observe(
        &self,
        kind: ResourceKind,
        depth: Depth,
        work: Vec<Work>,
        releases: Arc<Releases>,
    ) {
        self.run(kind, move |driver| {
            let targets: Vec<Target<'_>> = work.iter().map(|w| target(w, &releases)).collect();
            let results = answers(targets.len(), || driver.observe(&targets, depth));
            let addresses = work.iter().map(|w| w.address.clone());
            Event::Observed(addresses.zip(results).collect())
        });
    }

    /// Has a batch acted on.
    pub fn act(&self, kind: ResourceKind, work: Vec<(Work, Action)>, releases: Arc<Releases>) {
        self.run(kind, move |driver| {
            let jobs: Vec<(Target<'_>, Action)> = work
                .iter()
                .map(|(w, action)| (target(w, &releases), action.clone()))
                .collect();
            let results = answers(jobs.len(), || driver.act(&jobs));
            let asked = work
                .iter()
                .map(|(w, action)| (w.address.clone(), action.clone()));
            Event::Acted(
                asked
                    .zip(results)
                    .map(|((address, action), result)| (address, action, result))
                    .collect(),
            )
        });
    }

    fn run(&self, kind: ResourceKind, job: impl FnOnce(&mut dyn Driver) -> Event + Send + 'static) {
        let (lane, done) = (self.lane(kind), self.done.clone());
        tokio::task::spawn_blocking(move || {
            let event = job(lane.lock().unwrap_or_else(PoisonError::into_inner).as_mut());
            let _ = done.blocking_send(event);
        });
    }
}

fn target<'a>(work: &'a Work, releases: &Releases) -> Target<'a> {
    Target {
        address: &work.address,
        spec: work.resource.as_ref().map(|r| &r.spec),
        release: releases.get(&work.address.owner).copied(),
    }
}

/// The driver's answers, or as many faults: whatever happens in a driver, each question is answered, since the
/// reconciler waits for it.
fn answers(
    count: usize,
    driver: impl FnOnce() -> Vec<Result<Observation, Fault>>,
) -> Vec<Result<Observation, Fault>> {
    let mut results = std::panic::catch_unwind(AssertUnwindSafe(driver)).unwrap_or_default();
    results.resize_with(count, || {
        Err(Fault::new(
            Reason::Io,
            "the driver gave no answer: a defect of plumb; see the agent's log and report it",
        ))
    });
    results
}
