//! Wakes the agent when a process ends, through the pidfd of its shim.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use plumb_driver::process::ExitWatch;
use plumb_model::Address;
use tokio::sync::mpsc;

use crate::ready::register;

/// Watches each incarnation once.
#[derive(Debug, Clone)]
pub struct Exits {
    watch: ExitWatch,
    /// Incarnation → the address that it has now: its owner may be renamed while it is watched.
    watched: Arc<Mutex<BTreeMap<String, Address>>>,
    ended: mpsc::Sender<Address>,
}

impl Exits {
    /// Ends come through `ended`.
    pub fn new(watch: ExitWatch, ended: mpsc::Sender<Address>) -> Self {
        Self {
            watch,
            watched: Arc::default(),
            ended,
        }
    }

    /// Watches an incarnation, unless it is watched already. What cannot be watched is told as ended, so that it is
    /// looked at again.
    pub fn watch(&self, address: &Address, incarnation: &str) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched
            .insert(incarnation.to_owned(), address.clone())
            .is_some()
        {
            return;
        }
        drop(watched);
        let this = self.clone();
        let (address, incarnation) = (address.clone(), incarnation.to_owned());
        tokio::spawn(async move {
            if let Ok(Some(pidfd)) = this.watch.pidfd(&address, &incarnation)
                && let Ok(pidfd) = register(pidfd)
            {
                let _ = pidfd.readable().await;
            }
            let now = this
                .watched
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&incarnation);
            let _ = this.ended.send(now.unwrap_or(address)).await;
        });
    }
}
