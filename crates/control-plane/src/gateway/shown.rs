//! The workspace as people see it, as JSON, made once for however many ask and never where agents would wait for it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use plumb_dispatch::Standing;

/// The workspace as it stood at one moment, and the same as JSON once somebody has asked for it.
pub(super) struct Shown {
    /// Let go once there is the JSON: a machine that moves while it is held is copied.
    standing: Mutex<Option<Standing>>,
    json: OnceLock<Arc<Vec<u8>>>,
}

impl Shown {
    pub fn of(standing: Standing) -> Self {
        Self {
            standing: Mutex::new(Some(standing)),
            json: OnceLock::new(),
        }
    }

    /// If it has been made.
    pub fn made(&self) -> Option<Arc<Vec<u8>>> {
        self.json.get().cloned()
    }

    /// Made once, however many ask; whoever asks meanwhile waits for it. Blocks.
    pub fn json(&self) -> Arc<Vec<u8>> {
        let make = || {
            let standing = self
                .standing
                .lock()
                .map_or_else(PoisonError::into_inner, |s| s)
                .take();
            let view = standing.map(|standing| standing.view());
            Arc::new(plumb_wire::convert::to_json(&view))
        };
        self.json.get_or_init(make).clone()
    }
}
