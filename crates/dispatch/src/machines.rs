//! The machines of a fleet, each shared with whoever is looking until it moves.
//!
//! To show thousands of machines takes longer than agents may wait for, so whoever wants to see them takes a copy of the map, which
//! is a matter of pointers, and looks at it elsewhere. A machine that moves meanwhile is copied first.

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::sync::Arc;

use plumb_model::capability::MachineFacts;
use plumb_model::{MachineName, ResourceStatus};

use crate::machine::{Machine, Session};

/// See the [module](self).
#[derive(Debug, Clone, Default)]
pub(crate) struct Machines(BTreeMap<MachineName, Arc<Machine>>);

impl Machines {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn get(&self, name: &MachineName) -> Option<&Machine> {
        self.0.get(name).map(AsRef::as_ref)
    }

    /// One of them, to move it.
    pub fn get_mut(&mut self, name: &MachineName) -> Option<&mut Machine> {
        self.0.get_mut(name).map(Arc::make_mut)
    }

    /// One of them, to move it; made if there is none.
    pub fn of(&mut self, name: MachineName) -> &mut Machine {
        Arc::make_mut(self.0.entry(name).or_default())
    }

    pub fn remove(&mut self, name: &MachineName) {
        self.0.remove(name);
    }

    pub fn keys(&self) -> impl Iterator<Item = &MachineName> {
        self.0.keys()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&MachineName, &Machine)> {
        self.0
            .iter()
            .map(|(name, machine)| (name, machine.as_ref()))
    }

    pub fn values(&self) -> impl Iterator<Item = &Machine> {
        self.0.values().map(AsRef::as_ref)
    }

    /// The live sessions.
    pub fn sessions_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        let online = self.0.values_mut().filter(|machine| machine.is_online());
        online.filter_map(|machine| Arc::make_mut(machine).session.as_mut())
    }

    /// What each says of itself that was ever heard.
    pub fn facts(&self) -> impl Iterator<Item = (&MachineName, &MachineFacts)> {
        self.iter()
            .filter_map(|(name, machine)| Some((name, machine.facts.as_ref()?)))
    }

    /// The last status of every resource, of machines that are not regressed.
    pub fn statuses(&self) -> impl Iterator<Item = &Arc<ResourceStatus>> {
        self.values()
            .filter(|machine| machine.regressed.is_none())
            .flat_map(|machine| machine.statuses.iter())
    }

    pub fn range<'a>(
        &'a self,
        range: impl RangeBounds<&'a MachineName>,
    ) -> impl Iterator<Item = (&'a MachineName, &'a Machine)> {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        let range = self.0.range::<MachineName, _>(bounds);
        range.map(|(name, machine)| (name, machine.as_ref()))
    }
}
