//! Orders by hand on their way to the disk and to the reconciler, and what stands at what is held.

use plumb_converge as converge;
use plumb_dispatch::agent::Event as SessionEvent;
use plumb_dispatch::hands::WrittenOrders;
use plumb_driver::file;
use plumb_model::{ConditionKind, Reason, ResourceKind};

use super::{Core, Input};
use crate::hands::{self, Page};

impl Core {
    /// Writes what is to be written of orders by hand, unless something is being written.
    pub(super) fn write_hands(&mut self) {
        let reconciler = &self.reconciler;
        let with = |new: &WrittenOrders| reconciler.progress_with(&new.orders.hands);
        let Some((path, page)) = self.book.next(with) else {
            return;
        };
        let other = self.probed.clone();
        tokio::task::spawn_blocking(move || {
            let result = hands::write(&path, &page);
            let _ = other.blocking_send(Input::HandsWritten { page, result });
        });
    }

    pub(super) fn hands_written(&mut self, page: Page, result: std::io::Result<()>) {
        self.book.ended(&page, result.is_ok());
        let folder = self.folder.path().display();
        let result =
            result.map_err(|error| format!("cannot write orders by hand to {folder}: {error}"));
        if let Err(error) = &result {
            tracing::error!("{error}");
        }
        match (page.version, result) {
            (Some(version), Ok(())) => self.converge(converge::Event::Noted(version)),
            // It is tried again when the agent next wakes.
            (Some(_), Err(_)) => {}
            (None, result) => {
                let well = result.is_ok();
                self.tell_session(SessionEvent::HandsKept(result));
                if well && self.stopping.is_none() {
                    let hands = page.orders.orders.hands.clone();
                    self.converge(converge::Event::Hands(hands));
                }
            }
        }
    }

    /// Tells what stands at files that somebody holds and that somebody has changed.
    pub(super) fn show_held(&self, statuses: &[plumb_model::ResourceStatus]) {
        let left = statuses.iter().filter(|status| {
            let drifted = status.condition(ConditionKind::Drifted);
            status.address.kind == ResourceKind::File
                && drifted.is_some_and(|c| c.status && c.reason == Reason::ReportOnly)
                && self.reconciler.is_held(&status.address)
        });
        for status in left {
            let (address, other) = (status.address.clone(), self.probed.clone());
            tokio::task::spawn_blocking(move || {
                if let Some(found) = file::found_at(&address.name) {
                    let _ = other.blocking_send(Input::Shown(address, found));
                }
            });
        }
    }
}
