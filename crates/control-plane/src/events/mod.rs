//! The `EventLog` service: what happened on the machines of a workspace, in pages and as it is stored.
//!
//! It holds no state: [`desk`] stores events, the ledger keeps them, and a resume token is the number of an event, so that it
//! is good after a restart too. Each call works on the caller's workspace alone.

pub(crate) mod desk;

use std::sync::Arc;

use plumb_ledger::EventRecord;
use plumb_model::journal::Head;
use plumb_model::{Hash, MachineName, OwnerName, Timestamp};
use plumb_wire::convert::{WireError, parse_optional};
use plumb_wire::error::Refusal;
use plumb_wire::v1;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::access_service::page_size;
use crate::refuse;
use crate::tenants::{Tenant, tenant_of};

/// The most events that are looked at for one page or message.
const LOOK: usize = 5_000;

/// The most events in one message of a watch.
const NEWS: usize = 200;

/// How many messages wait for a reader.
const READER: usize = 4;

/// The `EventLog` service.
pub(crate) struct Events {
    /// Turns true when the control plane goes down.
    pub stopping: watch::Receiver<bool>,
}

/// Which events are wanted.
#[derive(Clone)]
struct Wanted {
    machine: Option<MachineName>,
    owner: Option<OwnerName>,
    since: Option<Timestamp>,
}

impl Wanted {
    fn parse(machine: &str, owner: &str, since: &str) -> Result<Self, Refusal> {
        Ok(Self {
            machine: parse_optional("machine", machine)?,
            owner: parse_optional("owner", owner)?,
            since: parse_optional("since", since)?,
        })
    }

    fn has(&self, event: &EventRecord) -> bool {
        let owner = event.what.address().map(|address| &address.owner);
        self.machine.as_ref().is_none_or(|m| event.machine == *m)
            && self.owner.as_ref().is_none_or(|o| owner == Some(o))
            && self.since.is_none_or(|since| event.at >= since)
    }
}

/// A token says which workspace's numbers it counts in: eight digits are enough to notice a mistake.
fn prefix(tenant: &Tenant) -> String {
    let name = format!("{}/{}", tenant.ledger.lineage(), tenant.workspace);
    Hash::of(name.as_bytes()).to_string()[..8].to_owned()
}

fn token(prefix: &str, number: u64) -> String {
    format!("{prefix}-{number}")
}

fn number_of(field: &'static str, prefix: &str, token: &str) -> Result<Option<u64>, Refusal> {
    if token.is_empty() {
        return Ok(None);
    }
    let number = token
        .split_once('-')
        .filter(|(of, _)| *of == prefix)
        .and_then(|(_, number)| number.parse().ok());
    number.map(Some).ok_or_else(|| {
        Refusal::from(WireError::Field {
            field,
            why: "it is no token of this workspace; begin without one".to_owned(),
        })
    })
}

fn to_wire(prefix: &str, number: u64, event: EventRecord) -> v1::Event {
    v1::Event {
        resume_token: token(prefix, number),
        number,
        machine: event.machine.to_string(),
        at: event.at.to_string(),
        received: event.received.to_string(),
        away: event.away,
        entry: event.entry.unwrap_or_default(),
        kind: event.what.word().to_owned(),
        address: event
            .what
            .address()
            .map(ToString::to_string)
            .unwrap_or_default(),
        message: event.what.words(),
    }
}

fn journal(machine: &MachineName, head: Head) -> v1::Journal {
    let broken = head.broken.unwrap_or_default();
    v1::Journal {
        machine: machine.to_string(),
        entries: head.number,
        head: head.hash.to_string(),
        broken_at: broken.number,
        why: broken.why,
    }
}

/// One page. Blocks.
fn list(
    tenant: &Tenant,
    wanted: &Wanted,
    size: u32,
    page_token: &str,
) -> Result<v1::ListEventsResponse, Refusal> {
    let prefix = prefix(tenant);
    let before = number_of("page_token", &prefix, page_token)?;
    let ledger = &tenant.ledger;
    let last = ledger.events_kept().map_err(|e| refuse::ledger(&e))?.last;
    let (events, next) = ledger
        .events_before(before, page_size(size), LOOK, |event| wanted.has(event))
        .map_err(|e| refuse::ledger(&e))?;
    let mut answer = v1::ListEventsResponse {
        events: events
            .into_iter()
            .map(|(number, event)| to_wire(&prefix, number, event))
            .collect(),
        next_page_token: next.map(|next| token(&prefix, next)).unwrap_or_default(),
        ..v1::ListEventsResponse::default()
    };
    if before.is_none() {
        answer.resume_token = token(&prefix, last);
        let journals = ledger.journals().map_err(|e| refuse::ledger(&e))?;
        let mine = |machine: &MachineName| wanted.machine.as_ref().is_none_or(|m| m == machine);
        answer.journals = journals
            .into_iter()
            .filter(|(machine, _)| mine(machine))
            .map(|(machine, head)| journal(&machine, head))
            .collect();
    }
    Ok(answer)
}

/// What comes after an event. Blocks.
fn after(
    tenant: &Tenant,
    wanted: &Wanted,
    at: u64,
) -> Result<(v1::WatchEventsResponse, u64, bool), Refusal> {
    let prefix = prefix(tenant);
    let ledger = &tenant.ledger;
    let kept = ledger.events_kept().map_err(|e| refuse::ledger(&e))?;
    // A store that was restored counts its numbers anew: what it has is told from there.
    let at = at.min(kept.last);
    let missed = kept.first.saturating_sub(1).saturating_sub(at);
    let (events, looked) = ledger
        .events_after(at, NEWS, LOOK, |event| wanted.has(event))
        .map_err(|e| refuse::ledger(&e))?;
    let news = v1::WatchEventsResponse {
        events: events
            .into_iter()
            .map(|(number, event)| to_wire(&prefix, number, event))
            .collect(),
        resume_token: token(&prefix, looked),
        missed,
    };
    Ok((news, looked, looked < kept.last))
}

/// Streams what is stored, until the reader goes or the control plane does.
async fn watch(
    wanted: Wanted,
    mut at: u64,
    mut stopping: watch::Receiver<bool>,
    tx: mpsc::Sender<Result<v1::WatchEventsResponse, Status>>,
    // Last, so that it is let go of before the stream ends: whoever waits for that may open the store anew.
    tenant: Arc<Tenant>,
) {
    let mut stored = tenant.desk.stored();
    let mut first = true;
    loop {
        stored.borrow_and_update();
        let (from, mine, filter) = (at, tenant.clone(), wanted.clone());
        let news = refuse::blocking(move || after(&mine, &filter, from)).await;
        let more = match news {
            Ok((news, looked, more)) => {
                at = looked;
                // The first message says where the watch begins, even if there is nothing to tell.
                if first || !news.events.is_empty() || news.missed > 0 {
                    first = false;
                    if tx.send(Ok(news)).await.is_err() {
                        return;
                    }
                }
                more
            }
            Err(refusal) => {
                let _ = tx.send(Err(refusal.into())).await;
                return;
            }
        };
        if more {
            continue;
        }
        tokio::select! {
            changed = stored.changed() => if changed.is_err() { return },
            () = tx.closed() => return,
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
}

#[tonic::async_trait]
impl v1::event_log_server::EventLog for Events {
    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let v1::ListEventsRequest {
            machine,
            owner,
            since,
            page_size,
            page_token,
        } = request.into_inner();
        let wanted = Wanted::parse(&machine, &owner, &since)?;
        let (from, asked) = (tenant.clone(), wanted.machine.clone());
        let listed = refuse::blocking(move || list(&from, &wanted, page_size, &page_token)).await?;
        // That nothing happened on a machine that is not there would be misread.
        if let Some(machine) = asked.filter(|_| listed.events.is_empty()) {
            tenant.knows(&machine).await?;
        }
        Ok(Response::new(listed))
    }

    type WatchEventsStream = ReceiverStream<Result<v1::WatchEventsResponse, Status>>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let tenant = tenant_of(&request)?;
        let v1::WatchEventsRequest {
            machine,
            owner,
            resume_token,
        } = request.into_inner();
        let wanted = Wanted::parse(&machine, &owner, "")?;
        let at = match number_of("resume_token", &prefix(&tenant), &resume_token)? {
            Some(at) => at,
            None => {
                let ledger = tenant.ledger.clone();
                let kept =
                    refuse::blocking(move || ledger.events_kept().map_err(|e| refuse::ledger(&e)));
                kept.await?.last
            }
        };
        let (tx, rx) = mpsc::channel(READER);
        tokio::spawn(watch(wanted, at, self.stopping.clone(), tx, tenant));
        Ok(Response::new(ReceiverStream::new(rx)))
    }
}

#[cfg(test)]
mod tests {
    use plumb_model::Generation;
    use plumb_model::journal::Happening;

    use super::*;

    /// Mutation: take any number for a token.
    #[test]
    fn a_token_of_another_workspace_or_of_nobody_is_refused() {
        assert_eq!(number_of("t", "0123abcd", "").unwrap(), None);
        let mine = token("0123abcd", 7);
        assert_eq!(number_of("t", "0123abcd", &mine).unwrap(), Some(7));
        for other in [
            token("ffffffff", 7).as_str(),
            "7",
            "0123abcd-",
            "0123abcd-x",
        ] {
            let refusal = number_of("resume_token", "0123abcd", other).unwrap_err();
            assert!(
                refusal.message.contains("resume_token"),
                "{other}: {refusal:?}"
            );
        }
    }

    #[test]
    fn events_are_wanted_by_machine_owner_and_time() {
        let event = |what| EventRecord {
            machine: MachineName::new("web-1").unwrap(),
            at: Timestamp::UNIX_EPOCH,
            received: Timestamp::UNIX_EPOCH,
            away: false,
            entry: Some(1),
            what,
        };
        let resource = event(Happening::Resource {
            address: "web-1/web/file//x".parse().unwrap(),
            kind: plumb_model::condition::EventKind::Applied,
            message: "m".into(),
        });
        let generation = Generation(1);
        let own = event(Happening::AssignmentTaken { generation });
        for (machine, owner, since, expected) in [
            ("", "", "", (true, true)),
            ("web-1", "", "", (true, true)),
            ("web-2", "", "", (false, false)),
            ("", "web", "", (true, false)),
            ("", "db", "", (false, false)),
            ("", "", "1970-01-01T00:00:01Z", (false, false)),
        ] {
            let wanted = Wanted::parse(machine, owner, since).unwrap();
            let found = (wanted.has(&resource), wanted.has(&own));
            assert_eq!(found, expected, "{machine} {owner} {since}");
        }
        assert!(Wanted::parse("no name!", "", "").is_err());
    }
}
