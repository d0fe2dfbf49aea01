//! Plan files: what `plumb plan --out` writes, and what `show`, `plan verify` and `apply` read.
//!
//! A file holds `plan.json` (a [`Document`]), `signature.json`, and in a bundle every blob that the plan needs. The
//! signature covers the exact bytes of `plan.json`; nothing is verified after it was encoded anew. Here is the format
//! and all that can be verified without knowing whom to trust: the control plane makes documents and signs them, and
//! the command line reads them and compares keys. Nothing here opens files or decides what is trusted.
//!
//! Guarantees: for one content there is one file, byte for byte; whatever was changed, cut off or added is refused with
//! what and where; no more is held in memory than the document.

mod container;
mod document;
mod key;
mod moved;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use plumb_model::Hash;
use serde::{Deserialize, Serialize};

pub use container::ContainerError;
pub use document::{Absent, Commit, Document, ReadSet, Request, Source};
pub use key::{DOMAIN, KeyError, KeyId, PlanKey, Signature, signed_bytes};
pub use moved::{Moved, Subject};

use crate::{MAX_API_MESSAGE, MAX_BLOB_BYTES};
use container::{Member, Reader, Writer};

/// The newest format that this version reads, and the one that it writes.
pub const FORMAT: u32 = 1;

/// The largest document, in bytes: it travels in one message of the API, with its signature beside it.
pub const MAX_DOCUMENT_BYTES: u64 = MAX_API_MESSAGE as u64 - 4096;

/// The most blobs of one file: as many as one apply asks after.
pub const MAX_BLOBS: usize = 65_536;

/// The most bytes of all blobs together: what fits on a disk that somebody plans on.
pub const MAX_FILE_BYTES: u64 = 64 << 30;

const DOCUMENT: &str = "plan.json";
const SIGNATURE: &str = "signature.json";
const BLOBS: &str = "blobs/";

/// How large `signature.json` may be, in bytes: several times what it is.
const MAX_SIGNATURE_BYTES: u64 = 1024;

/// Why a file is no plan file that can be used. Every one leaves nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum PlanFileError {
    /// Its first member is none of ours.
    #[error("it is no plan file: those are written by `plumb plan --out FILE`")]
    NotOne,
    /// The container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// A newer version wrote it.
    #[error("it has format {found}, and this plumb reads up to {FORMAT}; upgrade plumb")]
    Newer {
        /// Its format.
        found: u32,
    },
    /// `signature.json` does not say what it should.
    #[error("its signature.json was changed or damaged: {0}")]
    SignatureFile(String),
    /// The signature is not over this document.
    #[error("its plan.json is not what the key {0} signed: it was changed or damaged after that")]
    Signature(KeyId),
    /// The document does not say what it should.
    #[error("its plan.json cannot be read: {0}")]
    Document(String),
    /// The document contradicts itself.
    #[error("its plan.json contradicts itself: {0}")]
    Inconsistent(String),
    /// A blob is not what its name says.
    #[error("its blob {expected} was changed or damaged: the bytes have the digest {found}")]
    Blob {
        /// Its name.
        expected: Hash,
        /// What was found.
        found: Hash,
    },
    /// A bundle is not whole.
    #[error("it is a bundle that lacks the blob {0}, which the plan needs")]
    BlobMissing(Hash),
}

/// A blob in a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Where its bytes begin in the file.
    pub offset: u64,
    /// How many there are.
    pub size: u64,
}

/// A plan file that is whole: its document is what the key in it signed, says nothing that contradicts itself, and its
/// blobs are what their names say. Whether that key is to be trusted is the caller's to find out.
#[derive(Debug, Clone)]
pub struct PlanFile {
    /// What it says.
    pub document: Document,
    /// The exact bytes of the document.
    pub bytes: Vec<u8>,
    /// Who signed them.
    pub signature: Signature,
    /// The blobs of a bundle, each once; empty, or all of [`Document::blobs`].
    pub blobs: BTreeMap<Hash, Blob>,
}

impl PlanFile {
    /// Reads a file from memory. Never panics, whatever the bytes are.
    ///
    /// # Errors
    /// See [`PlanFileError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PlanFileError> {
        Self::read(bytes)
    }

    /// Reads a file. Blobs are verified as they pass, and not kept.
    ///
    /// # Errors
    /// See [`PlanFileError`].
    pub fn read(input: impl Read) -> Result<Self, PlanFileError> {
        let mut reader = Reader::new(input, 2 + MAX_BLOBS as u64);
        let first = match reader.next() {
            Ok(Some(member)) if member.name == DOCUMENT => member,
            Err(error) if is_ours(&error) => return Err(error.into()),
            Ok(_) | Err(_) => return Err(PlanFileError::NotOne),
        };
        let bytes = small(&mut reader, &first, MAX_DOCUMENT_BYTES)?;
        let Some(second) = reader.next()? else {
            return Err(PlanFileError::SignatureFile("it is missing".to_owned()));
        };
        if second.name != SIGNATURE {
            return Err(second
                .refused("stands where signature.json should be")
                .into());
        }
        let signature = small(&mut reader, &second, MAX_SIGNATURE_BYTES)?;
        let signature = read_signature(&signature)?;
        let document = Document::open(&bytes, &signature)?;
        let blobs = read_blobs(&mut reader, &document)?;
        Ok(Self {
            document,
            bytes,
            signature,
            blobs,
        })
    }
}

/// Writes a file. `blobs` are all that the document needs, in the order of their digests, or none.
///
/// # Errors
/// Where something cannot be read or written, and with `InvalidData` if a blob has another size than it says.
pub fn write<B: Read>(
    out: impl Write,
    document: &[u8],
    signature: &Signature,
    blobs: impl IntoIterator<Item = io::Result<(Hash, u64, B)>>,
) -> io::Result<()> {
    let mut writer = Writer::new(out);
    writer.member(DOCUMENT, document.len() as u64, document)?;
    let signature = signature_bytes(signature);
    writer.member(SIGNATURE, signature.len() as u64, signature.as_slice())?;
    for blob in blobs {
        let (digest, size, content) = blob?;
        writer.member(&format!("{BLOBS}{digest}"), size, content)?;
    }
    writer.finish()?.flush()
}

/// `signature.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureFile {
    format: u32,
    key: PlanKey,
    signature: String,
}

fn signature_bytes(signature: &Signature) -> Vec<u8> {
    let file = SignatureFile {
        format: FORMAT,
        key: signature.key,
        signature: signature.bytes.iter().map(|b| format!("{b:02x}")).collect(),
    };
    let mut bytes = crate::convert::to_json(&file);
    bytes.push(b'\n');
    bytes
}

fn read_signature(bytes: &[u8]) -> Result<Signature, PlanFileError> {
    let damaged = |why: &dyn std::fmt::Display| PlanFileError::SignatureFile(why.to_string());
    document::check_format(bytes).map_err(|found| match found {
        document::FormatError::Newer(found) => PlanFileError::Newer { found },
        document::FormatError::Unreadable(why) => damaged(&why),
    })?;
    let file: SignatureFile = serde_json::from_slice(bytes).map_err(|e| damaged(&e))?;
    let signature = Signature {
        key: file.key,
        bytes: key::unhex(&file.signature)
            .ok_or_else(|| damaged(&"expected 128 hex digits as the signature"))?,
    };
    // One form only, so that every changed byte is noticed.
    if signature_bytes(&signature) != bytes {
        return Err(damaged(&"it is not in the form that plumb writes"));
    }
    Ok(signature)
}

/// Whether a first member that cannot be read was once a plan file's, or is not even known.
fn is_ours(error: &ContainerError) -> bool {
    match error {
        ContainerError::Read(_) => true,
        ContainerError::Member { name, .. } => name == DOCUMENT,
        _ => false,
    }
}

fn small<R: Read>(
    reader: &mut Reader<R>,
    member: &Member,
    limit: u64,
) -> Result<Vec<u8>, PlanFileError> {
    if member.size > limit {
        return Err(member
            .refused("is larger than any that plumb writes")
            .into());
    }
    Ok(reader.bytes(member)?)
}

fn read_blobs<R: Read>(
    reader: &mut Reader<R>,
    document: &Document,
) -> Result<BTreeMap<Hash, Blob>, PlanFileError> {
    let mut blobs = BTreeMap::new();
    let mut last = None;
    while let Some(member) = reader.next()? {
        let digest: Hash = member
            .name
            .strip_prefix(BLOBS)
            .and_then(|digest| digest.parse().ok())
            // A digest has one form, so that no two names mean one blob.
            .filter(|digest: &Hash| member.name == format!("{BLOBS}{digest}"))
            .ok_or_else(|| member.refused("is neither the plan, its signature nor a blob"))?;
        match document.blobs.get(&digest) {
            None => {
                return Err(member
                    .refused("is a blob that the plan does not need")
                    .into());
            }
            Some(size) if *size != member.size || member.size > MAX_BLOB_BYTES => {
                return Err(member.refused("has another size than the plan says").into());
            }
            Some(_) => {}
        }
        if last.is_some_and(|last| last >= digest) {
            return Err(member.refused("comes twice, or out of order").into());
        }
        last = Some(digest);
        let offset = reader.offset;
        if offset.saturating_add(member.size) > MAX_FILE_BYTES {
            return Err(ContainerError::TooMuch {
                what: "bytes",
                limit: MAX_FILE_BYTES,
            }
            .into());
        }
        let mut hasher = blake3::Hasher::new();
        reader.content(&member, |piece| {
            hasher.update(piece);
        })?;
        let found = Hash(*hasher.finalize().as_bytes());
        if found != digest {
            return Err(PlanFileError::Blob {
                expected: digest,
                found,
            });
        }
        let size = member.size;
        blobs.insert(digest, Blob { offset, size });
    }
    if !blobs.is_empty()
        && let Some(missing) = document.blobs.keys().find(|d| !blobs.contains_key(*d))
    {
        return Err(PlanFileError::BlobMissing(*missing));
    }
    Ok(blobs)
}
