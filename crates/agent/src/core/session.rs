//! What the link brings, and what the session has this agent do about it.

use plumb_converge as converge;
use plumb_dispatch::agent::{Effect as SessionEffect, Event as SessionEvent};
use plumb_model::Timestamp;
use plumb_model::journal::Happening;

use super::{Core, Input};
use crate::link::LinkEvent;
use crate::logs;

impl Core {
    pub(super) fn linked(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Connected(uplink) => {
                self.session
                    .introduce(uplink.host.clone(), uplink.trusted_cas.clone());
                self.uplink = Some(uplink);
                self.tell_session(SessionEvent::Connected {
                    instance: self.instance.clone(),
                });
                self.fetch_missing();
            }
            LinkEvent::Received(message) => {
                let was_online = self.session.is_online();
                self.tell_session(SessionEvent::Received(message));
                if !was_online && self.session.is_online() {
                    self.notebook.link(Timestamp::now(), true);
                    self.heard = true;
                    self.tally.linked();
                    self.contact.note(true);
                    self.converge(converge::Event::Heard { away_ms: None });
                    self.ask_for_secrets();
                }
            }
            LinkEvent::Disconnected => {
                self.unlink();
                self.lost();
            }
        }
    }

    /// The control plane is not heard any more.
    pub(super) fn lost(&mut self) {
        self.tell_session(SessionEvent::Disconnected);
        self.unheard();
    }

    pub(super) fn unheard(&mut self) {
        self.notebook.link(Timestamp::now(), false);
        if std::mem::take(&mut self.heard) {
            self.contact.note(true);
            self.converge(converge::Event::Heard { away_ms: Some(0) });
        }
    }

    pub(super) fn unlink(&mut self) {
        self.uplink = None;
        if let Some(task) = self.fetching.take() {
            task.abort();
        }
        for (_, task) in std::mem::take(&mut self.log_streams) {
            task.abort();
        }
    }

    pub(super) fn tell_session(&mut self, event: SessionEvent) {
        let effects = self.session.handle(event, self.now());
        self.warned.look(&self.session);
        let mut broken = false;
        for effect in effects {
            match effect {
                SessionEffect::Send(message) => {
                    let failed = self
                        .uplink
                        .as_ref()
                        .is_some_and(|uplink| !uplink.send(message));
                    if failed {
                        tracing::warn!(
                            "the control plane does not take what this agent says; reconnecting"
                        );
                        self.unlink();
                        // What else is to be done is about this machine, and is done: what was stored is adopted, whether or
                        // not anybody could be told.
                        broken = true;
                    }
                }
                SessionEffect::Persist(held) => {
                    let (keeper, other) = (self.keeper.clone(), self.probed.clone());
                    tokio::task::spawn_blocking(move || {
                        let result = keeper.save_held(&held);
                        let _ = other.blocking_send(Input::Persisted { held, result });
                    });
                }
                SessionEffect::Adopt(held) => {
                    let generation = held.generation;
                    let what = Happening::AssignmentTaken { generation };
                    self.notebook.note(Timestamp::now(), what);
                    self.adopt(held);
                }
                SessionEffect::ReadJournal { after } => self.notebook.read(after),
                SessionEffect::Disconnect { reason } => {
                    tracing::warn!("{reason}");
                    self.unlink();
                    self.unheard();
                }
                SessionEffect::KeepHands(orders) => {
                    self.book.new = Some(orders);
                    self.write_hands();
                }
                SessionEffect::Reconcile { request, owner } => {
                    self.converge(converge::Event::Check { request, owner });
                }
                SessionEffect::OpenLogs(request) => {
                    let Some(uplink) = &self.uplink else { continue };
                    let (data, channel) = (self.folder.path().to_owned(), uplink.channel.clone());
                    let (id, other) = (request.request, self.probed.clone());
                    let task = tokio::spawn(async move {
                        let result = logs::serve(data, request, channel).await;
                        let _ = other
                            .send(Input::LogsEnded {
                                request: id,
                                result,
                            })
                            .await;
                    });
                    self.log_streams.insert(id, task);
                }
                SessionEffect::SecretsCame { values, missing } => {
                    self.secrets_came(values, &missing);
                }
                SessionEffect::CloseLogs { request } => {
                    if let Some(task) = self.log_streams.remove(&request) {
                        task.abort();
                    }
                }
            }
        }
        if broken {
            self.lost();
        }
    }
}
