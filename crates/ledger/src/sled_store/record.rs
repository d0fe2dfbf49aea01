//! How a value lies in sled: a head with version, checksum and the first bytes, and pieces for the rest.
//!
//! sled's keys: `k` KEY for the head, so that heads are ordered as keys are; `p` LENGTH KEY INDEX for a piece;
//! `s` for the number of the last transaction. The checksum covers key and value, so that a value that turns
//! up under another key is found out too.

use crate::store::{StoreError, show};

/// The version of heads that this writes, and the newest that it reads.
pub(super) const VERSION: u8 = 1;

/// The longest piece in bytes: twenty of them make a leaf that sled still writes to its log.
pub(super) const PIECE_BYTES: usize = 16 * 1024;

/// Where the number of the last transaction is.
pub(super) const COUNTER_KEY: &[u8] = b"s";

const CHECKSUM: usize = 16;
const HEADER: usize = 1 + 2 + CHECKSUM;

/// sled's key for the head of a value.
pub(super) fn head_key(key: &[u8]) -> Vec<u8> {
    [b"k", key].concat()
}

/// The key that a head belongs to; none if it is no head.
pub(super) fn key_of(head_key: &[u8]) -> Option<&[u8]> {
    head_key.strip_prefix(b"k")
}

/// sled's key for a piece. Indices count from 1; the head holds what would be number 0.
pub(super) fn piece_key(key: &[u8], index: u16) -> Vec<u8> {
    let length = u16::try_from(key.len()).expect("keys are at most 1 KiB: validated before");
    [b"p", &length.to_be_bytes()[..], key, &index.to_be_bytes()].concat()
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let mut short = [0; CHECKSUM];
    hasher.finalize_xof().fill(&mut short);
    short
}

/// Cuts a value: the head, then the pieces.
pub(super) fn encode<'a>(key: &[u8], value: &'a [u8]) -> (Vec<u8>, Vec<&'a [u8]>) {
    let (first, rest) = value.split_at(value.len().min(PIECE_BYTES));
    let pieces: Vec<&[u8]> = rest.chunks(PIECE_BYTES).collect();
    let count = u16::try_from(pieces.len()).expect("values are at most 100 KiB: validated before");
    let mut head = Vec::with_capacity(HEADER + first.len());
    head.push(VERSION);
    head.extend_from_slice(&count.to_be_bytes());
    head.extend_from_slice(&checksum(key, value));
    head.extend_from_slice(first);
    (head, pieces)
}

/// How many pieces a head says there are.
pub(super) fn pieces_of(head: &[u8]) -> u16 {
    match head {
        [_, high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

/// Puts a value together again, and checks it.
pub(super) fn decode<B: AsRef<[u8]>>(
    key: &[u8],
    head: &[u8],
    mut piece: impl FnMut(u16) -> Result<Option<B>, StoreError>,
) -> Result<Vec<u8>, StoreError> {
    let damaged = |reason: String| StoreError::Damaged {
        key: show(key),
        reason,
    };
    // The version is not covered by the checksum, whose place a newer version may have moved.
    match head.first() {
        Some(&found) if found > VERSION => {
            return Err(StoreError::NewerValue {
                key: show(key),
                found,
                reads: VERSION,
            });
        }
        Some(&VERSION) if head.len() >= HEADER => {}
        _ => return Err(damaged("its head is cut short".to_owned())),
    }
    let mut value = head[HEADER..].to_vec();
    for index in 1..=pieces_of(head) {
        let bytes = piece(index)?.ok_or_else(|| damaged(format!("piece {index} is missing")))?;
        value.extend_from_slice(bytes.as_ref());
    }
    if head[3..HEADER] != checksum(key, &value) {
        return Err(damaged("its checksum does not match".to_owned()));
    }
    Ok(value)
}

/// The number of the last transaction as it is stored.
pub(super) fn encode_counter(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Reads the number of the last transaction.
pub(super) fn decode_counter(bytes: &[u8]) -> Result<u64, String> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| {
        format!(
            "its transaction counter has {} bytes instead of 8",
            bytes.len()
        )
    })
}
