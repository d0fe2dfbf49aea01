//! What a machine last said of each of its resources.
//!
//! A control plane holds one for each of thousands of machines, nearly all with a handful of resources: so it is a list, sorted by
//! address, and not a map, whose smallest node has room for eleven. Each status is shared with whoever looks at the fleet.

use std::sync::Arc;

use plumb_model::{Address, ResourceStatus};

/// See the [module](self).
#[derive(Debug, Clone, Default)]
pub(crate) struct Statuses(Vec<Arc<ResourceStatus>>);

impl Statuses {
    fn find(&self, address: &Address) -> Result<usize, usize> {
        self.0
            .binary_search_by(|status| status.address.cmp(address))
    }

    /// What was last said of a resource.
    pub fn get(&self, address: &Address) -> Option<&ResourceStatus> {
        let at = self.find(address).ok()?;
        self.0.get(at).map(AsRef::as_ref)
    }

    /// Takes what was said of a resource in the place of what was said of it before.
    pub fn insert(&mut self, mut status: ResourceStatus) {
        // What was read off the wire has grown as it was read.
        status.conditions.shrink_to_fit();
        let status = Arc::new(status);
        match self.find(&status.address) {
            Ok(at) => {
                if let Some(place) = self.0.get_mut(at) {
                    *place = status;
                }
            }
            Err(at) => {
                if self.0.len() == self.0.capacity() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, status);
            }
        }
    }

    /// Drops those that are not to be kept.
    pub fn retain(&mut self, keep: impl Fn(&ResourceStatus) -> bool) {
        self.0.retain(|status| keep(status));
    }

    /// All of them, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ResourceStatus>> {
        self.0.iter()
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }
}

impl FromIterator<ResourceStatus> for Statuses {
    fn from_iter<I: IntoIterator<Item = ResourceStatus>>(all: I) -> Self {
        let mut statuses = Self::default();
        for status in all {
            statuses.insert(status);
        }
        statuses
    }
}
