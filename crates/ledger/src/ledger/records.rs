//! How small records and bodies are written: JSON, versioned, a newer version refused by name.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::LedgerError;

/// The newest format of a record that this version reads, and the one that it writes.
pub const RECORD_FORMAT: u32 = 1;

#[derive(Serialize)]
struct Envelope<'a, T> {
    format: u32,
    record: &'a T,
}

#[derive(Deserialize)]
struct Opened<T> {
    record: T,
}

/// Read by itself first, since nothing else of a newer record can be relied on.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// A record's bytes.
pub(super) fn encode(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(&Envelope {
        format: RECORD_FORMAT,
        record,
    })
    .expect("records are always JSON")
}

fn check_format(key: &str, bytes: &[u8], reads: u32) -> Result<(), LedgerError> {
    let format: Format = serde_json::from_slice(bytes).map_err(|e| unreadable(key, &e))?;
    if format.format > reads {
        return Err(LedgerError::Newer {
            key: key.to_owned(),
            found: format.format,
            reads,
        });
    }
    Ok(())
}

fn unreadable(key: &str, error: &serde_json::Error) -> LedgerError {
    LedgerError::Unreadable {
        key: key.to_owned(),
        reason: error.to_string(),
    }
}

/// Reads a record.
pub(super) fn parse<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, LedgerError> {
    check_format(key, bytes, RECORD_FORMAT)?;
    let opened: Opened<T> = serde_json::from_slice(bytes).map_err(|e| unreadable(key, &e))?;
    Ok(opened.record)
}

/// Reads a body of the model, which carries its format itself.
pub(super) fn parse_body<T: DeserializeOwned>(
    key: &str,
    bytes: &[u8],
    reads: u32,
) -> Result<T, LedgerError> {
    check_format(key, bytes, reads)?;
    serde_json::from_slice(bytes).map_err(|e| unreadable(key, &e))
}
