//! What the gateway, the planner and the API ask the fleet. Nothing here changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_model::capability::MachineFacts;
use plumb_model::condition::MachineEvent;
use plumb_model::{Address, Assignment, Generation, MachineName, OrderNumber, ResourceStatus};

use super::{Effect, Fleet};
use crate::protocol::{LogsRequest, ToAgent};
use crate::view::HandsView;

impl Fleet {
    /// The session of a machine, if it is online: where to send an [`ToAgent::OpenLogs`].
    #[must_use]
    pub fn session_of(&self, machine: &MachineName) -> Option<u64> {
        Some(self.machines.get(machine)?.session.as_ref()?.id)
    }

    /// Which run of its agent a machine's session is of, if it is online.
    #[must_use]
    pub fn instance_of(&self, machine: &MachineName) -> Option<&str> {
        Some(
            self.machines
                .get(machine)?
                .session
                .as_ref()?
                .instance
                .as_str(),
        )
    }

    /// Whether a machine's agent takes orders by hand; none if it is offline.
    #[must_use]
    pub fn takes_hands(&self, machine: &MachineName) -> Option<bool> {
        let machine = self.machines.get(machine)?;
        machine.session.as_ref()?;
        Some(machine.hands.held.is_some())
    }

    /// The highest number of orders by hand that a machine is known to hold: the next ones are numbered above it.
    #[must_use]
    pub fn held_orders(&self, machine: &MachineName) -> OrderNumber {
        let held = self.machines.get(machine).and_then(|m| m.hands.held);
        held.map_or(OrderNumber(0), |held| held.number)
    }

    /// What is recorded for each machine to hold now.
    pub fn assignments(&self) -> impl Iterator<Item = (&MachineName, &Arc<Assignment>)> {
        self.machines
            .iter()
            .filter_map(|(name, machine)| Some((name, machine.assignment()?)))
    }

    /// What a resource's agent last said of it.
    #[must_use]
    pub fn status_of(&self, address: &Address) -> Option<&ResourceStatus> {
        let statuses = &self.machines.get(&address.machine)?.statuses;
        statuses.get(address)
    }

    /// How far a machine has come with what is ordered by hand.
    #[must_use]
    pub fn hands_of(&self, machine: &MachineName) -> Option<HandsView> {
        self.machines.get(machine)?.hands.view()
    }

    /// Whether a machine is online with an agent that keeps a journal.
    #[must_use]
    pub fn keeps_journal(&self, machine: &MachineName) -> bool {
        let session = self.machines.get(machine).and_then(|m| m.session.as_ref());
        session.is_some_and(|session| session.journal)
    }

    /// Asks a machine for a log; none if it is offline.
    #[must_use]
    pub fn open_logs(&self, machine: &MachineName, request: LogsRequest) -> Option<Effect> {
        Some(Effect::Send {
            session: self.session_of(machine)?,
            message: ToAgent::OpenLogs(request),
        })
    }

    /// For each machine, what was ordered removed and is proven gone: the planner may drop those tombstones.
    #[must_use]
    pub fn settled(&self) -> BTreeMap<MachineName, BTreeSet<Address>> {
        self.machines
            .iter()
            .map(|(name, machine)| (name.clone(), machine.settled()))
            .filter(|(_, settled)| !settled.is_empty())
            .collect()
    }

    /// What each machine that was ever heard of since this control plane started says of itself.
    pub fn facts(&self) -> impl Iterator<Item = (&MachineName, &MachineFacts)> {
        self.machines.facts()
    }

    /// What each machine holds, as it last said. A machine that comes back into the blueprints under its old name must
    /// be given a generation above this one, or its agent refuses it.
    pub fn held(&self) -> impl Iterator<Item = (&MachineName, Generation)> {
        self.machines
            .iter()
            .filter_map(|(name, machine)| Some((name, machine.held?.0)))
    }

    /// The machines that hold more than is recorded, with the generation that each holds.
    pub fn regressed(&self) -> impl Iterator<Item = (&MachineName, Generation)> {
        self.machines
            .iter()
            .filter(|(_, machine)| machine.regressed.is_some())
            .filter_map(|(name, machine)| Some((name, machine.held?.0)))
    }

    /// What a machine that was ever heard of since this control plane started says of itself.
    #[must_use]
    pub fn facts_of(&self, machine: &MachineName) -> Option<&MachineFacts> {
        self.machines.get(machine)?.facts.as_ref()
    }

    /// The last status of every resource, of machines that are not regressed.
    pub fn statuses(&self) -> impl Iterator<Item = &Arc<ResourceStatus>> {
        self.machines.statuses()
    }

    /// The last events of the workspace, oldest first; at most [`KEPT_EVENTS`].
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &MachineEvent> {
        self.events.iter()
    }
}
