//! The format: what is read back, and everything that is refused.

use std::collections::BTreeSet;

use plumb_model::Revision;
use plumb_model::plan::{
    BlastRadius, FORMAT as PLAN_FORMAT, MonthlyCost, NeedsConsent, Plan, Resolution,
};
use plumb_model::state::{ResolutionKey, RevisionKind};
use plumb_model::{Lineage, Timestamp, WorkspaceName};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::value::RawValue;

use super::*;

struct Signer(Ed25519KeyPair);

impl Signer {
    fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    fn sign(&self, document: &[u8]) -> Signature {
        Signature {
            key: PlanKey(self.0.public_key().as_ref().try_into().unwrap()),
            bytes: self
                .0
                .sign(&signed_bytes(document))
                .as_ref()
                .try_into()
                .unwrap(),
        }
    }
}

fn plan() -> Plan {
    let mut plan = Plan {
        format: PLAN_FORMAT,
        workspace: None,
        kind: RevisionKind::Apply,
        base: Revision(3),
        commit: None,
        machines: Vec::new(),
        owners: Vec::new(),
        changes: Vec::new(),
        order: Vec::new(),
        targets: BTreeSet::new(),
        resolutions: BTreeMap::from([(
            ResolutionKey("path app".into()),
            Resolution {
                resolved: Some(Hash::of(b"small").to_string()),
                before: None,
            },
        )]),
        blast_radius: BlastRadius::default(),
        monthly_cost: MonthlyCost::default(),
        drift: Vec::new(),
        not_done: Vec::new(),
        lacks: Vec::new(),
        unset_secrets: Vec::new(),
        consents: vec![NeedsConsent {
            allow: "deletes".into(),
            reason: "it deletes".into(),
        }],
        unchanged: 0,
        approval: Hash::of(b""),
    };
    plan.approval = plan.approval_hash();
    plan
}

fn content(text: &str) -> (Hash, u64, Vec<u8>) {
    (
        Hash::of(text.as_bytes()),
        text.len() as u64,
        text.as_bytes().to_vec(),
    )
}

fn blobs() -> BTreeMap<Hash, (u64, Vec<u8>)> {
    let empty = content("");
    let small = content("small");
    [empty, small]
        .into_iter()
        .map(|(digest, size, bytes)| (digest, (size, bytes)))
        .collect()
}

fn document() -> Document {
    Document {
        format: FORMAT,
        plumb: "0.1.0".into(),
        lineage: Lineage::from_random([7; 16]),
        workspace: WorkspaceName::new("shop").unwrap(),
        planned_at: Timestamp::UNIX_EPOCH,
        planned_by: "ann".into(),
        reads: ReadSet {
            manifest: None,
            owners: BTreeMap::new(),
            machines: BTreeMap::new(),
            absent: Absent::default(),
        },
        blobs: blobs().iter().map(|(d, (size, _))| (*d, *size)).collect(),
        request: Request::Blueprints {
            set: RawValue::from_string("{ \"any\" : [1, 2.50] }".into()).unwrap(),
            sources: BTreeMap::from([(
                "app".into(),
                Source {
                    digest: Hash::of(b"small"),
                    size: 5,
                    text: Some("small".into()),
                },
            )]),
            ask: None,
        },
        commit: None,
        plan: plan(),
    }
}

fn file_of(document: &[u8], signature: &Signature, bundle: bool) -> Vec<u8> {
    let blobs = blobs().into_iter().filter(|_| bundle);
    let blobs = blobs.map(|(d, (size, bytes))| Ok((d, size, io::Cursor::new(bytes))));
    let mut bytes = Vec::new();
    write(&mut bytes, document, signature, blobs).unwrap();
    bytes
}

fn file(bundle: bool) -> Vec<u8> {
    let document = document().bytes();
    file_of(&document, &Signer::new().sign(&document), bundle)
}

fn refused(bytes: &[u8]) -> String {
    let error = PlanFile::parse(bytes).expect_err("it must be refused");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[test]
fn a_file_reads_back_byte_for_byte_with_and_without_blobs() {
    for bundle in [false, true] {
        let bytes = file(bundle);
        let read = PlanFile::parse(&bytes).unwrap();
        assert_eq!(read.bytes, document().bytes());
        assert_eq!(read.document.bytes(), read.bytes);
        assert_eq!(read.document.plan, plan());
        let found: BTreeMap<Hash, (u64, Vec<u8>)> = read
            .blobs
            .iter()
            .map(|(digest, blob)| {
                let at = blob.offset as usize;
                let content = bytes[at..at + blob.size as usize].to_vec();
                (*digest, (blob.size, content))
            })
            .collect();
        assert_eq!(found, if bundle { blobs() } else { BTreeMap::new() });
        assert_eq!(file_of(&read.bytes, &read.signature, bundle), bytes);
        let Request::Blueprints { set, .. } = &read.document.request else {
            panic!("another request");
        };
        assert_eq!(
            set.get(),
            "{ \"any\" : [1, 2.50] }",
            "exactly as it was sent"
        );
    }
}

/// Mutations: leave the comparison of the whole header out of `container::member`, or that of the padding out of
/// `Reader::content`, or the check of the signature out of `Document::open`, or that of the digest out of `read_blobs`.
#[test]
fn a_flipped_bit_anywhere_is_refused_with_what_was_changed() {
    let bytes = file(true);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let error = refused(&changed);
        assert!(
            [
                "plan.json",
                "signature.json",
                "blob",
                "member",
                "plan file",
                "its end",
                "format"
            ]
            .iter()
            .any(|what| error.contains(what)),
            "byte {at}: {error}"
        );
    }
}

/// Mutation: take the end of the input for the end of the container in `Reader::next`.
#[test]
fn a_file_that_was_cut_off_anywhere_or_goes_on_is_refused() {
    let bytes = file(true);
    for length in 0..bytes.len() {
        let _ = refused(&bytes[..length]);
    }
    for more in [&b"\0"[..], &[0; 512], &[0; 10_240], b"x"] {
        let longer = [&bytes, more].concat();
        assert_eq!(refused(&longer), "something follows its end");
    }
}

/// The members of a file, each with all its blocks.
fn members(bundle: bool) -> Vec<Vec<u8>> {
    let bytes = file(bundle);
    let mut members = Vec::new();
    let mut at = 0;
    while bytes[at] != 0 {
        let size = std::str::from_utf8(&bytes[at + 124..at + 135]).unwrap();
        let size = usize::from_str_radix(size, 8)
            .unwrap()
            .next_multiple_of(512);
        members.push(bytes[at..at + 512 + size].to_vec());
        at += 512 + size;
    }
    members
}

fn joined(members: &[&[u8]]) -> Vec<u8> {
    [&members.concat()[..], &[0; 1024]].concat()
}

/// A member as any program may write it: with this name and type, and a checksum that is right.
fn hostile(name: &[u8], kind: u8, size: u64, link: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[148..156].copy_from_slice(b"        ");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.to_vec()
}

/// Threat 28, as far as plan files go. Mutation: leave the type, the path or the bound in question out of
/// `container::member`, `read_blobs` or `small`.
#[test]
fn hostile_members_are_refused_by_name() {
    let own = members(true);
    let [plan, signature, blob, last] = &own[..] else {
        panic!("other members");
    };
    let stranger = format!("blobs/{}", Hash::of(b"stranger"));
    let upper = format!("blobs/{}", "AB".repeat(32));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            hostile(b"/etc/passwd", b'0', 0, b""),
            "has an absolute path",
        ),
        (
            hostile(b"blobs/../../x", b'0', 0, b""),
            "not in its plain form",
        ),
        (
            hostile(b"./plan.json", b'0', 0, b""),
            "not in its plain form",
        ),
        (hostile(b"blobs//x", b'0', 0, b""), "not in its plain form"),
        (
            hostile(b"blobs/x", b'2', 0, b"/etc/shadow"),
            "is a symbolic link",
        ),
        (hostile(b"blobs/x", b'1', 0, b"plan.json"), "is a hard link"),
        (hostile(b"blobs/x", b'3', 0, b""), "is a device or a pipe"),
        (hostile(b"blobs/x", b'4', 0, b""), "is a device or a pipe"),
        (hostile(b"blobs/x", b'6', 0, b""), "is a device or a pipe"),
        (hostile(b"blobs/", b'5', 0, b""), "is a folder"),
        (hostile(b"blobs/x", b'x', 0, b""), "is no regular file"),
        (hostile(b"blobs/x", b'L', 0, b""), "is no regular file"),
        (
            hostile(b"blobs/x", b'0', 0, b"link"),
            "a header that plumb does not write",
        ),
        (hostile(b"blobs/x", b'0', 0, b""), "is neither the plan"),
        (
            hostile(upper.as_bytes(), b'0', 0, b""),
            "is neither the plan",
        ),
        (
            hostile(stranger.as_bytes(), b'0', 0, b""),
            "a blob that the plan does not need",
        ),
        (blob.clone(), "comes twice, or out of order"),
        (plan.clone(), "is neither the plan"),
        (signature.clone(), "is neither the plan"),
        (hostile(b"\x1b[2J", b'0', 0, b""), "is neither the plan"),
        (
            hostile(b"\x1b\xff", b'0', 0, b""),
            "a header that plumb does not write",
        ),
    ];
    for (member, expected) in cases {
        let error = refused(&joined(&[plan, signature, blob, &member]));
        assert!(error.contains("its member 4 (`"), "{error}");
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(!error.contains('\x1b'), "{error:?}");
    }
    for (bytes, expected) in [
        (joined(&[signature, plan]), "it is no plan file"),
        (joined(&[]), "it is no plan file"),
        (
            joined(&[plan]),
            "its signature.json was changed or damaged: it is missing",
        ),
        (
            joined(&[plan, blob]),
            "stands where signature.json should be",
        ),
        (
            joined(&[plan, signature, blob]),
            "it is a bundle that lacks the blob",
        ),
        (joined(&[plan, signature, last, blob]), "out of order"),
        (
            joined(&[&hostile(b"plan.json", b'0', 64 << 20, b"")]),
            "is larger than any that plumb writes",
        ),
        (
            joined(&[plan, &hostile(b"signature.json", b'0', 4096, b"")]),
            "is larger than any that plumb writes",
        ),
        (
            joined(&[plan, signature, &hostile(&blob[..70], b'0', 1 << 31, b"")]),
            "has another size than the plan says",
        ),
        // It says that it is large and is not: no more is taken than there is.
        (
            hostile(b"plan.json", b'0', 63 << 20, b""),
            "it is cut off within `plan.json`",
        ),
        (
            b"PK\x03\x04 no tar at all".repeat(100),
            "it is no plan file",
        ),
        (
            b"kind: Workspace\nname: shop\n".to_vec(),
            "it is no plan file",
        ),
    ] {
        let error = refused(&bytes);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

/// Mutation: verify the signature over the document as it is encoded anew.
#[test]
fn the_signature_covers_the_very_bytes_under_the_domain_of_plan_files() {
    let signer = Signer::new();
    let document = document().bytes();
    // The same meaning in other bytes is another document.
    let spaced = String::from_utf8(document.clone()).unwrap() + " ";
    let error = refused(&file_of(spaced.as_bytes(), &signer.sign(&document), false));
    assert!(error.contains("is not what the key"), "{error}");
    // The same key over the same bytes, for another purpose.
    let elsewhere = Signature {
        bytes: signer.0.sign(&document).as_ref().try_into().unwrap(),
        ..signer.sign(&document)
    };
    let error = refused(&file_of(&document, &elsewhere, false));
    assert!(error.contains("is not what the key"), "{error}");
    // Another key's name beside it.
    let other = Signature {
        key: Signer::new().sign(b"").key,
        ..signer.sign(&document)
    };
    let error = refused(&file_of(&document, &other, false));
    assert!(error.contains(&other.key.id().to_string()), "{error}");
}

/// Mutation: leave the comparison of its form out of `read_signature`.
#[test]
fn a_signature_is_written_in_one_way_only() {
    let document = document().bytes();
    let signature = Signer::new().sign(&document);
    let own = String::from_utf8(signature_bytes(&signature)).unwrap();
    let (key, bytes) = (signature.key, own.split('"').rev().nth(1).unwrap());
    for other in [
        own.trim_end().to_owned(),
        format!("{own}\n"),
        own.replace("\":", "\": "),
        format!("{{\"key\":\"{key}\",\"format\":1,\"signature\":\"{bytes}\"}}\n"),
    ] {
        assert_ne!(other, own);
        let mut file = Writer::new(Vec::new());
        let members = [(DOCUMENT, &document[..]), (SIGNATURE, other.as_bytes())];
        for (name, content) in members {
            file.member(name, content.len() as u64, content).unwrap();
        }
        let error = refused(&file.finish().unwrap());
        assert!(
            error.contains("not in the form that plumb writes"),
            "{error}"
        );
    }
}

#[test]
fn a_newer_format_is_told_as_such() {
    let signer = Signer::new();
    let mut newer = document();
    newer.format = 2;
    let newer = newer.bytes();
    // What signs a newer format need not be what signs this one.
    for signature in [signer.sign(&newer), signer.sign(b"otherwise")] {
        let error = refused(&file_of(&newer, &signature, false));
        assert_eq!(
            error,
            "it has format 2, and this plumb reads up to 1; upgrade plumb"
        );
    }
    let mut old = document();
    old.format = 0;
    let old = old.bytes();
    let error = refused(&file_of(&old, &signer.sign(&old), false));
    assert!(error.contains("no format is 0"), "{error}");
}

/// A signature says who planned, not that it holds together. Mutation: leave the check in question out of
/// `Document::check`.
#[test]
fn what_contradicts_itself_is_refused_though_it_is_signed() {
    let check = |change: &dyn Fn(&mut Document), expected: &str| {
        let mut changed = document();
        change(&mut changed);
        let bytes = changed.bytes();
        let error = refused(&file_of(&bytes, &Signer::new().sign(&bytes), false));
        assert!(error.contains(expected), "{expected}: {error}");
    };
    check(&|d| d.plan.consents.clear(), "the plan states the approval");
    check(
        &|d| d.plan.approval = Hash::of(b"x"),
        "the plan states the approval",
    );
    check(
        &|d| d.request = Request::Destroy {},
        "something else than what was asked for",
    );
    check(
        &|d| {
            d.commit = Some(Commit {
                id: "c0ffee".into(),
                author: "Ann <ann@example.org>".into(),
                subject: "x".into(),
                dirty: false,
            });
        },
        "different commits",
    );
    check(
        &|d| {
            let Request::Blueprints { sources, .. } = &mut d.request else {
                return;
            };
            if let Some(source) = sources.get_mut("app") {
                source.text = Some("other".into());
            }
        },
        "a text that is not what its digest says",
    );
    check(
        &|d| {
            let Request::Blueprints { sources, .. } = &mut d.request else {
                return;
            };
            let other = Source {
                digest: Hash::of(b"other"),
                size: 5,
                text: None,
            };
            sources.insert("app".into(), other);
        },
        "is not the one that was planned with",
    );
    check(
        &|d| {
            let app = plumb_model::OwnerName::new("app").unwrap();
            let state = plumb_model::state::OwnerState {
                release: plumb_model::ReleaseNumber(1),
                body: Hash::of(b""),
            };
            d.reads.owners.insert(app.clone(), state);
            d.reads.absent.owners.insert(app);
        },
        "both to be there and not to be",
    );
    let unknown = String::from_utf8(document().bytes()).unwrap();
    let unknown = unknown.replacen('{', "{\"more\":1,", 1).into_bytes();
    let error = refused(&file_of(&unknown, &Signer::new().sign(&unknown), false));
    assert!(error.contains("unknown field `more`"), "{error}");
}

/// What the bytes of a plan file may be asks for nothing: no depth, no size, no text makes it fall over.
#[test]
fn nonsense_in_a_signed_document_is_an_error() {
    for nonsense in [
        "[".repeat(1 << 20),
        format!("{{\"format\":1,\"request\":{}", "[".repeat(1 << 20)),
        "{\"format\":1}".to_owned(),
        "{\"format\":-1}".to_owned(),
        "{\"format\":1e99}".to_owned(),
        "null".to_owned(),
        String::new(),
        "\u{feff}{}".to_owned(),
    ] {
        let bytes = nonsense.as_bytes();
        let error = refused(&file_of(bytes, &Signer::new().sign(bytes), false));
        assert!(error.contains("its plan.json cannot be read"), "{error}");
    }
}

#[test]
fn a_blob_that_changes_while_it_is_written_makes_no_file() {
    let document = document().bytes();
    let signature = Signer::new().sign(&document);
    for size in [4, 6] {
        let blob = std::iter::once(Ok((Hash::of(b"small"), size, &b"small"[..])));
        let error = write(Vec::new(), &document, &signature, blob).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
