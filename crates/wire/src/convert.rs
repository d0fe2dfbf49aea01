//! Small values between `plumb.v1` and the model: digests, times, names, facts, commits, JSON lines.
//!
//! Everything that comes in is parsed into a typed value or refused with the field's name; nothing is passed on
//! as a bare string.

use std::str::FromStr;

use plumb_model::capability::{Availability, HostFacts, MachineFacts};
use plumb_model::state::Commit;
use plumb_model::{Capability, Hash, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::v1;

/// Why a message does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message says nothing that this version knows.
    #[error("the message says nothing that this version of plumb knows; upgrade the older side")]
    Unknown,
    /// A field that must be there is not.
    #[error("the field {0} is missing")]
    Missing(&'static str),
    /// A field does not hold what it should.
    #[error("the field {field} cannot be read: {why}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A payload grew past its bound.
    #[error("the payload is larger than {0} bytes")]
    TooLarge(usize),
    /// A stream began with something else than it must.
    #[error("the stream does not begin with {0}")]
    FirstMessage(&'static str),
}

/// Parses a text field.
pub fn parse<T>(field: &'static str, text: &str) -> Result<T, WireError>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| WireError::Field {
        field,
        why: e.to_string(),
    })
}

/// Parses a text field in which empty means "none".
pub fn parse_optional<T>(field: &'static str, text: &str) -> Result<Option<T>, WireError>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    if text.is_empty() {
        Ok(None)
    } else {
        parse(field, text).map(Some)
    }
}

/// Reads a JSON field.
pub fn from_json<T: DeserializeOwned>(field: &'static str, bytes: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(bytes).map_err(|e| WireError::Field {
        field,
        why: e.to_string(),
    })
}

/// Writes a JSON field.
///
/// # Panics
/// If the value cannot be JSON, which no type that travels allows.
pub fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("what travels as JSON is always JSON")
}

/// Writes one JSON line for each value.
///
/// # Panics
/// As [`to_json`].
pub fn to_lines<T: Serialize>(values: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        serde_json::to_writer(&mut bytes, &value).expect("what travels as JSON is always JSON");
        bytes.push(b'\n');
    }
    bytes
}

/// Reads JSON lines, at most `limit` of them.
pub fn from_lines<T: DeserializeOwned>(
    field: &'static str,
    bytes: &[u8],
    limit: usize,
) -> Result<Vec<T>, WireError> {
    let mut values = Vec::new();
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        if values.len() == limit {
            return Err(WireError::Field {
                field,
                why: format!("more than {limit} lines"),
            });
        }
        values.push(from_json(field, line)?);
    }
    Ok(values)
}

/// Reads JSON lines, at most `limit` of them, as [`from_lines`] does, but passes over those that are JSON and hold what only
/// a newer version knows.
pub fn known_lines<T: DeserializeOwned>(
    field: &'static str,
    bytes: &[u8],
    limit: usize,
) -> Result<Vec<T>, WireError> {
    let mut values = Vec::new();
    for (at, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        if at == limit {
            return Err(WireError::Field {
                field,
                why: format!("more than {limit} lines"),
            });
        }
        match serde_json::from_slice(line) {
            Ok(value) => values.push(value),
            Err(_) => {
                from_json::<serde::de::IgnoredAny>(field, line)?;
            }
        }
    }
    Ok(values)
}

/// A digest as text, empty for none.
#[must_use]
pub fn hash_text(hash: Option<Hash>) -> String {
    hash.map(|h| h.to_string()).unwrap_or_default()
}

/// A time as text, empty for none.
#[must_use]
pub fn time_text(time: Option<Timestamp>) -> String {
    time.map(|t| t.to_string()).unwrap_or_default()
}

impl From<&MachineFacts> for v1::MachineFacts {
    fn from(facts: &MachineFacts) -> Self {
        use v1::capability::State;
        let capabilities = facts
            .capabilities
            .0
            .iter()
            .map(|(capability, availability)| v1::Capability {
                name: capability.as_str().to_owned(),
                state: Some(match availability {
                    Availability::Has { detail } => State::Detail(detail.clone()),
                    Availability::Lacks { why, remedy } => State::Lack(v1::Lack {
                        why: why.clone(),
                        remedy: remedy.clone(),
                    }),
                }),
            })
            .collect();
        Self {
            version: facts.version.clone(),
            arch: facts.arch.clone(),
            hostname: facts.hostname.clone(),
            kernel: facts.kernel.clone(),
            capabilities,
            host: facts.host.as_ref().map(|host| v1::HostFacts {
                os: host.os.clone(),
                cpus: host.cpus,
                memory_bytes: host.memory_bytes,
                memory_available_bytes: host.memory_available_bytes,
                disk_bytes: host.disk_bytes,
                disk_free_bytes: host.disk_free_bytes,
            }),
        }
    }
}

impl From<v1::MachineFacts> for MachineFacts {
    /// An ability whose name this version does not know is passed over: nothing here can need it.
    fn from(facts: v1::MachineFacts) -> Self {
        use v1::capability::State;
        let capabilities = facts
            .capabilities
            .into_iter()
            .filter_map(|capability| {
                let kind = capability_named(&capability.name)?;
                let availability = match capability.state? {
                    State::Detail(detail) => Availability::Has { detail },
                    State::Lack(lack) => Availability::Lacks {
                        why: lack.why,
                        remedy: lack.remedy,
                    },
                };
                Some((kind, availability))
            })
            .collect();
        Self {
            version: facts.version,
            arch: facts.arch,
            hostname: facts.hostname,
            kernel: facts.kernel,
            capabilities,
            host: facts.host.map(|host| {
                Box::new(HostFacts {
                    os: host.os,
                    cpus: host.cpus,
                    memory_bytes: host.memory_bytes,
                    memory_available_bytes: host.memory_available_bytes,
                    disk_bytes: host.disk_bytes,
                    disk_free_bytes: host.disk_free_bytes,
                })
            }),
        }
    }
}

fn capability_named(name: &str) -> Option<Capability> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
}

impl From<Commit> for v1::Commit {
    fn from(commit: Commit) -> Self {
        Self {
            id: commit.id,
            author: commit.author,
            subject: commit.subject,
            dirty: commit.dirty,
        }
    }
}

impl From<v1::Commit> for Commit {
    fn from(commit: v1::Commit) -> Self {
        Self {
            id: commit.id,
            author: commit.author,
            subject: commit.subject,
            dirty: commit.dirty,
        }
    }
}

#[cfg(test)]
mod tests {
    use plumb_model::capability::Capabilities;

    use super::*;

    #[test]
    fn facts_read_back_and_abilities_from_the_future_are_passed_over() {
        let facts = MachineFacts {
            version: "0.1.0".into(),
            arch: "x86_64".into(),
            hostname: "h".into(),
            kernel: "6.1".into(),
            capabilities: Capabilities::from_iter([
                (
                    Capability::Files,
                    Availability::Has {
                        detail: "openat2".into(),
                    },
                ),
                (
                    Capability::Users,
                    Availability::Lacks {
                        why: "not root".into(),
                        remedy: "run as root".into(),
                    },
                ),
            ]),
            host: None,
        };
        let mut wire = v1::MachineFacts::from(&facts);
        wire.capabilities.push(v1::Capability {
            name: "levitation".into(),
            state: Some(v1::capability::State::Detail("3 m".into())),
        });
        assert_eq!(MachineFacts::from(wire), facts);
    }

    #[test]
    fn a_bad_field_is_named() {
        let error = parse::<Hash>("digest", "xyz").unwrap_err();
        assert!(error.to_string().contains("digest"), "{error}");
        assert!(from_lines::<u8>("n", b"1\n2\n3\n", 2).is_err());
    }
}
