//! Plan files, as they come from a disk or a stranger.
//!
//! No fuzzer finds a signature. So an input is one of three things: a document (it starts with `{`), which is signed here
//! and then read; blueprints (lines that start with `#= `), of which a plan, a document and a file are made; and else a
//! file as it is.

use std::collections::BTreeMap;
use std::io::Cursor;

use plumb_model::{Hash, Timestamp};
use plumb_planner::Source;
use plumb_wire::plan_file::{
    self, Absent, Document, FORMAT, PlanFile, PlanFileError, PlanKey, ReadSet, Request, Signature,
    signed_bytes,
};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::value::RawValue;

use crate::problems::is_safe;
use crate::{apply, yaml};

/// Parts a document from the blobs that may lie in its file. JSON never holds it.
const SEPARATOR: u8 = 0;

fn sign(document: &[u8]) -> Signature {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed of 32 bytes");
    let exactly = "ed25519 has one length";
    Signature {
        key: PlanKey(pair.public_key().as_ref().try_into().expect(exactly)),
        bytes: pair
            .sign(&signed_bytes(document))
            .as_ref()
            .try_into()
            .expect(exactly),
    }
}

/// A file of these parts. The blobs are written in the order of their digests.
fn write(document: &[u8], signature: &Signature, blobs: &BTreeMap<Hash, &[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let blobs = blobs
        .iter()
        .map(|(digest, bytes)| Ok((*digest, bytes.len() as u64, Cursor::new(*bytes))));
    plan_file::write(&mut bytes, document, signature, blobs).expect("memory takes everything");
    bytes
}

/// Reads a file. One that is taken is the only one for its content, holds in whatever order it is read, and asks the API
/// for what it says; a refusal says why, in words that a terminal can show.
fn read(bytes: &[u8]) -> Result<PlanFile, PlanFileError> {
    let file = PlanFile::parse(bytes).inspect_err(|error| is_safe(&error.to_string()))?;
    let blobs = file.blobs.iter().map(|(digest, blob)| {
        let at = usize::try_from(blob.offset).expect("it was read from memory");
        let size = usize::try_from(blob.size).expect("it was read from memory");
        let blob = &bytes[at..at + size];
        assert_eq!(Hash::of(blob), *digest, "a blob is not what its name says");
        (*digest, blob)
    });
    let blobs: BTreeMap<Hash, &[u8]> = blobs.collect();
    assert!(
        blobs.is_empty() || blobs.keys().eq(file.document.blobs.keys()),
        "half a bundle"
    );
    assert!(write(&file.bytes, &file.signature, &blobs) == bytes);
    assert!(
        file.signature
            .key
            .has_signed(&file.bytes, &file.signature.bytes)
    );
    let plan = &file.document.plan;
    assert_eq!(plan.approval, plan.approval_hash());
    let asked = file.document.plan_request();
    let asked = asked.request.expect("something was asked for");
    let again = Request::of(asked, &plan.kind).expect("it can be asked for again");
    let json = |request: &Request| serde_json::to_vec(request).expect("a request is JSON");
    assert_eq!(json(&again), json(&file.document.request));
    // Encoded anew it need not be the same bytes; what it says is the same.
    let anew = file.document.bytes();
    let document = Document::open(&anew, &sign(&anew)).expect("it reads back");
    assert_eq!(document.plan, *plan);
    assert_eq!(document.bytes(), anew);
    Ok(file)
}

/// A document that somebody signed, whatever it says.
fn document(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == SEPARATOR);
    let document = parts.next().unwrap_or_default();
    let _ = read(&write(document, &sign(document), &BTreeMap::new()));
    let Ok(mut typed) = serde_json::from_slice::<Document>(document) else {
        return;
    };
    // No fuzzer finds a digest either.
    let blobs: BTreeMap<Hash, &[u8]> = parts.map(|blob| (Hash::of(blob), blob)).collect();
    typed.blobs = blobs.iter().map(|(d, b)| (*d, b.len() as u64)).collect();
    typed.plan.approval = typed.plan.approval_hash();
    typed.commit.clone_from(&typed.plan.commit);
    let bytes = typed.bytes();
    let file = write(&bytes, &sign(&bytes), &blobs);
    match read(&file) {
        Ok(file) => assert_eq!(file.bytes, bytes),
        Err(PlanFileError::Inconsistent(_) | PlanFileError::Document(_)) => {}
        Err(PlanFileError::Newer { .. }) => assert!(typed.format > FORMAT),
        Err(other) => panic!("what was just made is refused: {other}"),
    }
}

/// A plan of these blueprints on an empty workspace makes a file that can be read.
fn planned(data: &[u8]) {
    let Ok(set) = yaml::read(&yaml::files(data)) else {
        return;
    };
    let Some(planned) = apply::first(&set) else {
        return;
    };
    let text = serde_json::to_string(&set).expect("a set is JSON");
    let sources = apply::sources(&set).into_iter().map(|(path, source)| {
        let Source { digest, size, text } = source;
        (path, plan_file::Source { digest, size, text })
    });
    let document = Document {
        format: FORMAT,
        plumb: "0.1.0".to_owned(),
        lineage: apply::lineage(),
        workspace: set.workspace.name.clone(),
        planned_at: Timestamp::UNIX_EPOCH,
        planned_by: "ann".to_owned(),
        reads: ReadSet {
            manifest: None,
            owners: BTreeMap::new(),
            machines: BTreeMap::new(),
            absent: Absent::default(),
        },
        blobs: BTreeMap::new(),
        request: Request::Blueprints {
            set: RawValue::from_string(text).expect("a set is JSON"),
            sources: sources.collect(),
            ask: None,
        },
        commit: None,
        plan: planned.plan,
    };
    let bytes = document.bytes();
    let file = read(&write(&bytes, &sign(&bytes), &BTreeMap::new()));
    let file = file.expect("the file of a plan can be read");
    assert_eq!(file.document.plan, document.plan);
    assert_eq!(file.bytes, bytes);
}

/// Holds all of it for one input.
pub fn check(data: &[u8]) {
    match data.first() {
        Some(b'{') => document(data),
        Some(b'#') => planned(data),
        _ => drop(read(data)),
    }
}
