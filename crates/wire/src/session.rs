//! The messages of the control stream between `plumb.v1` and `dispatch::protocol`, with large payloads cut into
//! pieces on one side and put together, within a bound, on the other.
//!
//! Guarantees: what [`from_agent`] or [`from_server`] yields is what went into [`to_server`] or [`to_agent`].
//! Assumptions: the pieces of one message follow each other, with at most payload-free messages in between; a
//! stream has one sender.

use std::collections::BTreeMap;

use plumb_dispatch::hands::HeldOrders;
use plumb_dispatch::journal::{Chunk, MAX_CHUNK_BYTES, MAX_ENTRIES};
use plumb_dispatch::protocol::{
    Hello, LogsRequest, MAX_EVENTS, MAX_FINDINGS, MAX_SECRETS, MAX_STATUSES, Reconciled, Refusal,
    RefusalKind, Releases, SecretVersion, ToAgent, ToServer,
};
use plumb_dispatch::version::{UNSAID, Versions};
use plumb_model::journal::{MAX_LINE_BYTES, Mark};
use plumb_model::observation::MAX_FOUND_TEXT_BYTES;
use plumb_model::{
    ConditionKind, Delta, Generation, OrderNumber, OwnerName, ReleaseNumber, ResourceStatus, Secret,
};

use crate::PIECE_BYTES;
use crate::convert::{
    WireError, from_json, from_lines, hash_text, known_lines, parse, parse_optional, time_text,
    to_lines,
};
use crate::v1;
use crate::v1::agent_message::Message as Up;
use crate::v1::server_message::Message as Down;

/// The largest payload that an agent takes, in bytes: an assignment of some hundred thousand resources.
pub const MAX_TO_AGENT: usize = 256 * 1024 * 1024;

/// The largest payload that a server takes, in bytes: [`MAX_STATUSES`] statuses with long messages.
pub const MAX_TO_SERVER: usize = 64 * 1024 * 1024;

/// The most CAs that an agent is heard to trust: two, while one takes the other's place.
const MAX_CAS: usize = 4;

/// The longest text for people that is taken over from the other side, in bytes.
const MAX_TEXT: usize = 4096;

pub(crate) const REFUSALS: [RefusalKind; 7] = [
    RefusalKind::OtherLineage,
    RefusalKind::OtherMachine,
    RefusalKind::LowerGeneration,
    RefusalKind::OtherContent,
    RefusalKind::Empty,
    RefusalKind::Unreadable,
    RefusalKind::NotStored,
];

/// Cuts off all but the last piece of a payload; the caller sends the pieces first and the rest in the message.
fn cut(mut payload: Vec<u8>) -> (Vec<v1::Part>, Vec<u8>) {
    let whole = payload.len().saturating_sub(1) / PIECE_BYTES;
    if whole == 0 {
        return (Vec::new(), payload);
    }
    let rest = payload.split_off(whole * PIECE_BYTES);
    let parts = payload
        .chunks(PIECE_BYTES)
        .map(|data| v1::Part {
            data: data.to_vec(),
        })
        .collect();
    (parts, rest)
}

/// Puts payloads together.
#[derive(Debug, Default)]
struct Pieces(Vec<u8>);

impl Pieces {
    fn push(&mut self, data: &[u8], limit: usize) -> Result<(), WireError> {
        if self.0.len() + data.len() > limit {
            self.0 = Vec::new();
            return Err(WireError::TooLarge(limit));
        }
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn finish(&mut self, last: Vec<u8>, limit: usize) -> Result<Vec<u8>, WireError> {
        if self.0.is_empty() {
            return if last.len() > limit {
                Err(WireError::TooLarge(limit))
            } else {
                Ok(last)
            };
        }
        self.push(&last, limit)?;
        Ok(std::mem::take(&mut self.0))
    }
}

fn clipped(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let mut end = MAX_TEXT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

/// What is kept of a foreign file is bounded on this side too: an agent may be anybody's. What only a newer version knows is
/// passed over.
fn bounded(mut status: ResourceStatus) -> ResourceStatus {
    status
        .conditions
        .retain(|condition| condition.kind != ConditionKind::Unknown);
    if let Some(found) = &mut status.found {
        found
            .text
            .take_if(|text| text.len() as u64 > MAX_FOUND_TEXT_BYTES);
        found.owner = clipped(std::mem::take(&mut found.owner));
        found.group = clipped(std::mem::take(&mut found.group));
    }
    status
}

fn releases_out(releases: Releases) -> BTreeMap<String, u64> {
    releases
        .into_iter()
        .map(|(owner, release)| (owner.into(), release.0))
        .collect()
}

fn releases_in(releases: BTreeMap<String, u64>) -> Result<Releases, WireError> {
    releases
        .into_iter()
        .map(|(owner, release)| {
            Ok((
                parse::<OwnerName>("releases", &owner)?,
                ReleaseNumber(release),
            ))
        })
        .collect()
}

fn mark_out(mark: Mark) -> v1::JournalMark {
    v1::JournalMark {
        chain: mark.chain,
        number: mark.number,
        hash: mark.hash.to_string(),
    }
}

fn mark_in(mark: v1::JournalMark) -> Result<Mark, WireError> {
    Ok(Mark {
        chain: clipped(mark.chain),
        number: mark.number,
        hash: parse("journal.hash", &mark.hash)?,
    })
}

fn chunk_in(entries: v1::JournalEntries) -> Result<Chunk, WireError> {
    let bytes: usize = entries.lines.iter().map(Vec::len).sum();
    if entries.lines.len() > MAX_ENTRIES || bytes > MAX_CHUNK_BYTES + MAX_LINE_BYTES {
        return Err(WireError::TooLarge(MAX_CHUNK_BYTES));
    }
    let newest = entries.newest.ok_or(WireError::Missing("journal.newest"))?;
    Ok(Chunk {
        newest: mark_in(newest)?,
        lines: entries.lines,
    })
}

fn version_out((name, version): SecretVersion) -> v1::SecretVersion {
    v1::SecretVersion {
        name: name.into(),
        version,
    }
}

fn version_in(secret: v1::SecretVersion) -> Result<SecretVersion, WireError> {
    Ok((parse("secrets.name", &secret.name)?, secret.version))
}

fn value_in(secret: v1::SecretValue) -> Result<(SecretVersion, Secret), WireError> {
    let name = parse("secrets.name", &secret.name)?;
    // Whatever is wrong with it, no byte of it goes into a message.
    let value = String::from_utf8(secret.value).map_err(|_| WireError::Field {
        field: "secrets.value",
        why: "it is not UTF-8".to_owned(),
    })?;
    Ok(((name, secret.version), Secret::new(value)))
}

/// Encodes what an agent says.
pub fn to_server(message: ToServer) -> Vec<v1::AgentMessage> {
    let (parts, last) = match message {
        ToServer::Hello(hello) => (
            Vec::new(),
            Up::Hello(v1::Hello {
                lineage: hello.lineage.map(String::from).unwrap_or_default(),
                generation: hello.generation.0,
                hash: hash_text(hello.hash),
                instance: hello.instance,
                facts: Some(v1::MachineFacts::from(&hello.facts)),
                trusted_cas: hello.trusted_cas,
                protocol_oldest: hello.versions.oldest,
                protocol_newest: hello.versions.newest,
                journal: hello.journal.map(mark_out),
                hands: hello.hands.map(|held| v1::HeldHands {
                    number: held.number.0,
                    hash: hash_text(held.hash),
                }),
                at: hello.at.map(|at| at.to_string()).unwrap_or_default(),
            }),
        ),
        ToServer::Ack { generation, hash } => (
            Vec::new(),
            Up::Ack(v1::Ack {
                generation: generation.0,
                hash: hash.to_string(),
            }),
        ),
        ToServer::Resync { reason } => (Vec::new(), Up::Resync(v1::Resync { reason })),
        ToServer::Refused(refusal) => (
            Vec::new(),
            Up::Refused(v1::Refused {
                generation: refusal.generation.0,
                kind: refusal.kind.as_str().to_owned(),
                message: refusal.message,
            }),
        ),
        ToServer::Status {
            complete,
            resources,
        } => {
            let (parts, payload) = cut(to_lines(resources));
            (parts, Up::Status(v1::Status { complete, payload }))
        }
        ToServer::Events { events, dropped } => {
            let (parts, payload) = cut(to_lines(events));
            (parts, Up::Events(v1::Events { payload, dropped }))
        }
        ToServer::Heartbeat => (Vec::new(), Up::Heartbeat(v1::Heartbeat {})),
        ToServer::Journal(chunk) => (
            Vec::new(),
            Up::JournalEntries(v1::JournalEntries {
                newest: Some(mark_out(chunk.newest)),
                lines: chunk.lines,
            }),
        ),
        ToServer::WantSecrets(secrets) => (
            Vec::new(),
            Up::WantSecrets(v1::WantSecrets {
                secrets: secrets.into_iter().map(version_out).collect(),
            }),
        ),
        ToServer::HandsAnswer { orders, refused } => (
            Vec::new(),
            Up::HandsAnswer(v1::HandsAnswer {
                number: orders.number.0,
                hash: hash_text(orders.hash),
                refused: refused.unwrap_or_default(),
            }),
        ),
        ToServer::Reconciled(result) => {
            let (parts, payload) = cut(to_lines(result.findings));
            let reconciled = v1::Reconciled {
                request: result.request,
                checked: result.checked,
                payload,
                more: result.more,
            };
            (parts, Up::Reconciled(reconciled))
        }
        ToServer::LogsFailed { request, message } => (
            Vec::new(),
            Up::LogsFailed(v1::LogsFailed { request, message }),
        ),
    };
    parts
        .into_iter()
        .map(Up::Part)
        .chain([last])
        .map(|message| v1::AgentMessage {
            message: Some(message),
        })
        .collect()
}

/// Decodes what one agent says, message by message. One for each stream.
#[derive(Debug, Default)]
pub struct FromAgent(Pieces);

impl FromAgent {
    /// Takes the next message; none while a payload is not whole.
    ///
    /// # Errors
    /// When it cannot be read; the stream is of no use any more then.
    pub fn take(&mut self, message: v1::AgentMessage) -> Result<Option<ToServer>, WireError> {
        // What a newer version says, and this one does not know, is passed over.
        let Some(message) = message.message else {
            return Ok(None);
        };
        let message = match message {
            Up::Part(part) => {
                self.0.push(&part.data, MAX_TO_SERVER)?;
                return Ok(None);
            }
            Up::Hello(hello) => ToServer::Hello(Hello {
                lineage: parse_optional("hello.lineage", &hello.lineage)?,
                generation: Generation(hello.generation),
                hash: parse_optional("hello.hash", &hello.hash)?,
                instance: clipped(hello.instance),
                facts: hello.facts.ok_or(WireError::Missing("hello.facts"))?.into(),
                trusted_cas: hello
                    .trusted_cas
                    .into_iter()
                    .take(MAX_CAS)
                    .map(clipped)
                    .collect(),
                versions: Versions::said(hello.protocol_oldest, hello.protocol_newest),
                journal: hello.journal.map(mark_in).transpose()?,
                hands: match hello.hands {
                    Some(held) => Some(HeldOrders {
                        number: OrderNumber(held.number),
                        hash: parse_optional("hello.hands.hash", &held.hash)?,
                    }),
                    None => None,
                },
                at: parse_optional("hello.at", &hello.at)?,
            }),
            Up::HandsAnswer(answer) => ToServer::HandsAnswer {
                orders: HeldOrders {
                    number: OrderNumber(answer.number),
                    hash: parse_optional("hands_answer.hash", &answer.hash)?,
                },
                refused: Some(clipped(answer.refused)).filter(|why| !why.is_empty()),
            },
            Up::Reconciled(result) => ToServer::Reconciled(Reconciled {
                request: result.request,
                checked: result.checked,
                findings: from_lines(
                    "reconciled.payload",
                    &self.0.finish(result.payload, MAX_TO_SERVER)?,
                    MAX_FINDINGS,
                )?,
                more: result.more,
            }),
            Up::Ack(ack) => ToServer::Ack {
                generation: Generation(ack.generation),
                hash: parse("ack.hash", &ack.hash)?,
            },
            Up::Resync(resync) => ToServer::Resync {
                reason: clipped(resync.reason),
            },
            Up::Refused(refused) => ToServer::Refused(Refusal {
                generation: Generation(refused.generation),
                // A reason that only a newer version knows is no reason to hear no more of the agent: its message says it.
                kind: REFUSALS
                    .into_iter()
                    .find(|kind| kind.as_str() == refused.kind)
                    .unwrap_or(RefusalKind::Unreadable),
                message: clipped(refused.message),
            }),
            Up::Status(status) => ToServer::Status {
                complete: status.complete,
                resources: known_lines(
                    "status.payload",
                    &self.0.finish(status.payload, MAX_TO_SERVER)?,
                    MAX_STATUSES,
                )?
                .into_iter()
                .map(bounded)
                .collect(),
            },
            Up::Events(events) => ToServer::Events {
                events: known_lines(
                    "events.payload",
                    &self.0.finish(events.payload, MAX_TO_SERVER)?,
                    MAX_EVENTS,
                )?,
                dropped: events.dropped,
            },
            Up::Heartbeat(v1::Heartbeat {}) => ToServer::Heartbeat,
            Up::JournalEntries(entries) => ToServer::Journal(chunk_in(entries)?),
            Up::WantSecrets(wanted) => ToServer::WantSecrets(
                wanted
                    .secrets
                    .into_iter()
                    .take(MAX_SECRETS)
                    .map(version_in)
                    .collect::<Result<_, _>>()?,
            ),
            Up::LogsFailed(failed) => ToServer::LogsFailed {
                request: failed.request,
                message: clipped(failed.message),
            },
        };
        Ok(Some(message))
    }
}

/// Encodes what the control plane says.
pub fn to_agent(message: ToAgent) -> Vec<v1::ServerMessage> {
    let (parts, last) = match message {
        ToAgent::Welcome {
            session,
            lineage,
            heartbeat_ms,
            server_time,
            protocol,
            version,
        } => (
            Vec::new(),
            Down::Welcome(v1::Welcome {
                session,
                heartbeat_ms,
                server_time: time_text(Some(server_time)),
                lineage: lineage.into(),
                protocol,
                version,
            }),
        ),
        ToAgent::Snapshot {
            generation,
            hash,
            releases,
            bytes,
            confirm_empty,
        } => {
            let (parts, payload) = cut(bytes);
            let snapshot = v1::Snapshot {
                generation: generation.0,
                hash: hash.to_string(),
                releases: releases_out(releases),
                confirm_empty,
                payload,
            };
            (parts, Down::Snapshot(snapshot))
        }
        ToAgent::Delta {
            generation,
            releases,
            delta,
        } => {
            let upserts = delta.upserts.len() as u64;
            let mut lines = delta.upserts.concat();
            lines.extend(to_lines(&delta.removes));
            let (parts, payload) = cut(lines);
            let delta = v1::Delta {
                generation: generation.0,
                releases: releases_out(releases),
                applies_to: delta.applies_to.to_string(),
                results_in: delta.results_in.to_string(),
                upserts,
                payload,
            };
            (parts, Down::Delta(delta))
        }
        ToAgent::OpenLogs(logs) => (
            Vec::new(),
            Down::OpenLogs(v1::OpenLogs {
                request: logs.request,
                owner: logs.owner.into(),
                process: logs.process.map(String::from).unwrap_or_default(),
                follow: logs.follow,
                since: time_text(logs.since),
                tail: logs.tail,
            }),
        ),
        ToAgent::CloseLogs { request } => (Vec::new(), Down::CloseLogs(v1::CloseLogs { request })),
        ToAgent::Secrets { values, missing } => (
            Vec::new(),
            Down::SecretValues(v1::SecretValues {
                secrets: values
                    .into_iter()
                    .map(|((name, version), value)| v1::SecretValue {
                        name: name.into(),
                        version,
                        value: value.expose().as_bytes().to_vec(),
                    })
                    .collect(),
                missing: missing.into_iter().map(version_out).collect(),
            }),
        ),
        ToAgent::Hands { bytes } => {
            let (parts, payload) = cut(bytes);
            (parts, Down::HandsOrders(v1::HandsOrders { payload }))
        }
        ToAgent::Reconcile { request, owner } => (
            Vec::new(),
            Down::Reconcile(v1::Reconcile {
                request,
                owner: owner.map(String::from).unwrap_or_default(),
            }),
        ),
        ToAgent::JournalStored { chain, through } => (
            Vec::new(),
            Down::JournalStored(v1::JournalStored { chain, through }),
        ),
        ToAgent::Goodbye { reason } => (Vec::new(), Down::Goodbye(v1::Goodbye { reason })),
        ToAgent::Renew { within_ms } => (Vec::new(), Down::Renew(v1::Renew { within_ms })),
        ToAgent::Rekey { code } => (Vec::new(), Down::Rekey(v1::Rekey { code })),
    };
    parts
        .into_iter()
        .map(Down::Part)
        .chain([last])
        .map(|message| v1::ServerMessage {
            message: Some(message),
        })
        .collect()
}

/// Decodes what the control plane says, message by message. One for each stream.
#[derive(Debug, Default)]
pub struct FromServer(Pieces);

impl FromServer {
    /// Takes the next message; none while a payload is not whole.
    ///
    /// # Errors
    /// When it cannot be read; the stream is of no use any more then.
    pub fn take(&mut self, message: v1::ServerMessage) -> Result<Option<ToAgent>, WireError> {
        // What a newer version says, and this one does not know, is passed over.
        let Some(message) = message.message else {
            return Ok(None);
        };
        let message = match message {
            Down::Part(part) => {
                self.0.push(&part.data, MAX_TO_AGENT)?;
                return Ok(None);
            }
            Down::Welcome(welcome) => ToAgent::Welcome {
                session: welcome.session,
                lineage: parse("welcome.lineage", &welcome.lineage)?,
                heartbeat_ms: welcome.heartbeat_ms,
                server_time: parse("welcome.server_time", &welcome.server_time)?,
                protocol: match welcome.protocol {
                    0 => UNSAID,
                    said => said,
                },
                version: clipped(welcome.version),
            },
            Down::HandsOrders(orders) => ToAgent::Hands {
                bytes: self.0.finish(orders.payload, MAX_TO_AGENT)?,
            },
            Down::Reconcile(reconcile) => ToAgent::Reconcile {
                request: reconcile.request,
                owner: parse_optional("reconcile.owner", &reconcile.owner)?,
            },
            Down::Snapshot(snapshot) => ToAgent::Snapshot {
                generation: Generation(snapshot.generation),
                hash: parse("snapshot.hash", &snapshot.hash)?,
                releases: releases_in(snapshot.releases)?,
                confirm_empty: snapshot.confirm_empty,
                bytes: self.0.finish(snapshot.payload, MAX_TO_AGENT)?,
            },
            Down::Delta(delta) => {
                let payload = self.0.finish(delta.payload, MAX_TO_AGENT)?;
                let upserts = usize::try_from(delta.upserts).unwrap_or(usize::MAX);
                let mut lines = payload.split_inclusive(|b| *b == b'\n');
                let upserted: Vec<_> = lines.by_ref().take(upserts).map(<[u8]>::to_vec).collect();
                if upserted.len() != upserts {
                    return Err(WireError::Field {
                        field: "delta.upserts",
                        why: format!("{upserts} lines were announced, {} came", upserted.len()),
                    });
                }
                let removes = lines
                    .map(|line| from_json("delta.payload", line))
                    .collect::<Result<_, _>>()?;
                ToAgent::Delta {
                    generation: Generation(delta.generation),
                    releases: releases_in(delta.releases)?,
                    delta: Delta {
                        applies_to: parse("delta.applies_to", &delta.applies_to)?,
                        results_in: parse("delta.results_in", &delta.results_in)?,
                        upserts: upserted,
                        removes,
                    },
                }
            }
            Down::OpenLogs(open) => ToAgent::OpenLogs(LogsRequest {
                request: open.request,
                owner: parse("open_logs.owner", &open.owner)?,
                process: parse_optional("open_logs.process", &open.process)?,
                follow: open.follow,
                since: parse_optional("open_logs.since", &open.since)?,
                tail: open.tail,
            }),
            Down::CloseLogs(close) => ToAgent::CloseLogs {
                request: close.request,
            },
            Down::SecretValues(came) => ToAgent::Secrets {
                values: came
                    .secrets
                    .into_iter()
                    .map(value_in)
                    .collect::<Result<_, _>>()?,
                missing: came
                    .missing
                    .into_iter()
                    .map(version_in)
                    .collect::<Result<_, _>>()?,
            },
            Down::JournalStored(stored) => ToAgent::JournalStored {
                chain: clipped(stored.chain),
                through: stored.through,
            },
            Down::Goodbye(goodbye) => ToAgent::Goodbye {
                reason: clipped(goodbye.reason),
            },
            Down::Renew(renew) => ToAgent::Renew {
                within_ms: renew.within_ms,
            },
            Down::Rekey(rekey) => ToAgent::Rekey {
                code: clipped(rekey.code),
            },
        };
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests;
