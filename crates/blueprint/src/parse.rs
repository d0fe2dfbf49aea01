//! The order of the passes: read every file, check each document by itself, then all of them together.

mod compose;
mod manifest;
mod owners;

pub use compose::others;

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::OwnerName;

use crate::check::{self, Checked};
use crate::code::Code;
use crate::convert::{Reader, Vars};
use crate::cross::{self, Known, Machines, Owner};
use crate::diagnostic::{Diagnostic, Diagnostics, Spot, alternatives, quote};
use crate::document::{self, Document};
use crate::nearest::nearest;
use crate::parallel;
use crate::schema::Kind;
use crate::set::{BlueprintSet, Content, Origins, Source as AppSource, Workspace};
use crate::source::{Chunk, Source, SourceFile, too_large};
use crate::tree;
use manifest::{ReadManifest, overlay_name};
use owners::Converted;

/// What a caller may ask of [`parse`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The environment whose overlay is laid over the manifest: `staging` means the file
    /// `plumb.staging.yaml` beside it.
    pub env: Option<String>,
    /// The files besides blueprints that [`others`] asks for, as far as they are there.
    pub others: Vec<SourceFile>,
    /// Blueprint files that were not read since they are larger than [`crate::MAX_FILE_BYTES`], with their size in bytes.
    pub too_large: Vec<(String, u64)>,
}

/// A document that has been through the structural check.
struct Entry<'a> {
    document: Document<'a>,
    kind: Kind,
    checked: Checked,
}

/// A document of whatever kind, and what the structural check found if there is a schema to hold it against.
type Looked<'a> = (Document<'a>, Option<(Kind, Checked)>);

/// A few documents of a file: what is read and converted in one go.
struct Batch<'a> {
    source: &'a Source<'a>,
    chunks: Vec<Chunk<'a>>,
    /// They may say what all others depend on.
    early: bool,
}

/// Parses, validates and normalises the blueprints of a workspace.
///
/// # Guarantees
/// The result is the same for any order of keys and files and any split over files, `origins` apart. Every
/// problem of every file is reported in one go, up to [`crate::MAX_DIAGNOSTICS`].
///
/// # Errors
/// All problems, if there is an error among them. Warnings alone are in [`BlueprintSet::warnings`].
pub fn parse(files: &[SourceFile], options: &Options) -> Result<BlueprintSet, Diagnostics> {
    let mut out = Diagnostics::default();
    let mut order: Vec<&SourceFile> = files.iter().collect();
    // The manifest comes first: whatever else calls itself a Workspace is the second.
    order.sort_by_key(|file| (file.path != "plumb.yaml", &file.path));
    let size = files.iter().map(|file| file.text.len()).sum();
    // Each file by itself, as far as that goes without knowing the others.
    let decoded = parallel::each(order, size, |file| {
        let mut out = Diagnostics::default();
        (Source::decode(file, &mut out), out)
    });
    let mut set = Set::default();
    for (path, bytes) in &options.too_large {
        out.push(too_large(path, *bytes));
        set.known.incomplete();
    }
    let mut sources = Vec::new();
    for (source, problems) in decoded {
        out.append(problems);
        match source {
            Some(source) => sources.push(source),
            None => set.known.incomplete(),
        }
    }
    let likely = read(&sources, size, options, &|source| may_hold_manifest(source));
    // Written in an odd way: then nothing is taken for granted.
    let read = likely.or_else(|| read(&sources, size, options, &|_| true));
    let Read {
        mut manifest,
        problems,
        documents,
    } = read.unwrap_or_default();
    out.append(problems);
    for (head, converted) in documents {
        set.register(&head, &mut out);
        if let Some(converted) = converted {
            set.take(converted, &mut out);
        }
    }
    manifest.hold(&set, &mut out);
    set.machines.complete =
        !set.flawed_machines && !set.known.machines_incomplete && set.known.possible.is_empty();
    set.compose(options, &mut out);
    cross::check(&set.known, &set.machines, &set.owners, &mut out);
    set.publish_services();
    finish(set, manifest, out)
}

/// Every document by itself, and the manifest.
#[derive(Default)]
struct Read {
    manifest: ReadManifest,
    /// What is wrong with the manifest, and what was found before the conversion.
    problems: Diagnostics,
    documents: Vec<Named>,
}

/// What a document calls itself, and its values if it could be held against a schema.
type Named = (Head, Option<Converted>);

/// What all documents together want to know of each: what it calls itself.
struct Head {
    /// It is a mapping that could be read.
    usable: bool,
    /// It could be read.
    readable: bool,
    kind: Option<(String, Spot)>,
    name: Option<(String, Spot)>,
}

/// Reads the documents that may be the manifest or an overlay, and then all of them, each in one go from its text to its
/// typed values: so they are in the processor's cache, and let go of at once. None if there is a manifest or an overlay
/// where it was not looked for.
fn read<'a>(
    sources: &'a [Source<'a>],
    size: usize,
    options: &Options,
    early: &dyn Fn(&Source<'_>) -> bool,
) -> Option<Read> {
    let batches: Vec<Batch<'a>> = sources.iter().flat_map(|s| batches(s, early(s))).collect();
    let mut problems = Diagnostics::default();
    let mut first = Vec::new();
    for batch in batches.iter().filter(|batch| batch.early) {
        // What is wrong with it is said when it is converted.
        first.extend(look(batch, &mut Diagnostics::default()));
    }
    let files = sources.iter().map(|source| &*source.path).collect();
    let manifest = ReadManifest::read(first, &files, options, &mut problems);
    let converted = parallel::each(batches, size, |batch| convert_all(&batch, &manifest));
    let mut documents = Vec::new();
    for batch in converted {
        let (all, found) = batch?;
        documents.extend(all);
        problems.append(found);
    }
    Some(Read {
        manifest,
        problems,
        documents,
    })
}

/// Whether a file may hold the manifest or an overlay, or stands where only an overlay may.
fn may_hold_manifest(source: &Source<'_>) -> bool {
    let name = source.path.rsplit('/').next().unwrap_or_default();
    let words = [Kind::Workspace, Kind::Overlay].map(Kind::as_str);
    overlay_name(name).is_some() || words.iter().any(|word| source.text.contains(word))
}

/// Cuts a file so that a large one is read by several threads.
fn batches<'a>(source: &'a Source<'a>, early: bool) -> Vec<Batch<'a>> {
    const BYTES: usize = 32 << 10;
    let mut out: Vec<Batch<'a>> = Vec::new();
    let mut room = 0;
    for chunk in source.chunks() {
        let bytes = chunk.text.len();
        match out.last_mut() {
            Some(last) if bytes <= room => {
                room -= bytes;
                last.chunks.push(chunk);
            }
            _ => {
                room = BYTES.saturating_sub(bytes);
                out.push(Batch {
                    source,
                    chunks: vec![chunk],
                    early,
                });
            }
        }
    }
    out
}

/// Reads documents, and checks the structure of those whose kind is known.
fn look<'a>(batch: &Batch<'a>, out: &mut Diagnostics) -> Vec<Looked<'a>> {
    let mut looked = Vec::new();
    for chunk in &batch.chunks {
        for document in document::read_chunk(batch.source, chunk, out) {
            let word = document.kind.as_ref().map(|(word, _)| word.as_str());
            let checked = match (word.and_then(Kind::parse), document.value()) {
                (Some(kind), Some(value)) if value.is_object() => {
                    Some((kind, check::check(&document, kind, value, out)))
                }
                _ => None,
            };
            looked.push((document, checked));
        }
    }
    looked
}

/// Reads documents and makes typed values of them; none if one of them should have been read early and was not.
fn convert_all(batch: &Batch<'_>, manifest: &ReadManifest) -> Option<(Vec<Named>, Diagnostics)> {
    let mut out = Diagnostics::default();
    let mut all = Vec::new();
    for (document, checked) in look(batch, &mut out) {
        let word = document.kind.as_ref().map(|(word, _)| word.as_str());
        let kind = word.and_then(Kind::parse);
        if matches!(kind, Some(Kind::Workspace | Kind::Overlay)) && !batch.early {
            return None;
        }
        let head = Head::of(&document, &mut out);
        let converted = checked.map(|(kind, checked)| {
            let entry = Entry {
                document,
                kind,
                checked,
            };
            owners::convert(&entry, manifest)
        });
        all.push((head, converted));
    }
    Some((all, out))
}

impl Head {
    /// Looks at a document; what is no blueprint at all is reported.
    fn of(document: &Document<'_>, out: &mut Diagnostics) -> Self {
        let value = document.value();
        let usable = value.is_some_and(tree::Value::is_object);
        if let Some(value) = value {
            if !usable {
                out.push(
                    Diagnostic::error(Code::NotAMapping, "a blueprint is a mapping")
                        .here(&document.spot(""))
                        .hint("begin it with `kind: App` and `name: hello`"),
                );
            } else if document.kind.is_none() {
                let problem = match value.get("kind") {
                    Some(tree) => {
                        let value = tree.value.to_json();
                        check::wrong_type(document, "/kind", &value, &["text".to_owned()])
                    }
                    None => Diagnostic::error(
                        Code::KindMissing,
                        "this document does not say what it is: it has no `kind`",
                    )
                    .here(&document.spot(""))
                    .hint(format!("add one of {}", alternatives(&kind_words()))),
                };
                out.push(problem);
            }
        }
        Self {
            usable,
            readable: value.is_some(),
            kind: document.kind.clone(),
            name: document.name.clone(),
        }
    }
}

fn finish(set: Set, manifest: ReadManifest, out: Diagnostics) -> Result<BlueprintSet, Diagnostics> {
    let out = out.finish();
    let (Some(name), 0) = (manifest.manifest.name.clone(), out.errors()) else {
        return Err(out);
    };
    let mut paths = BTreeSet::new();
    for app in set.apps.values() {
        if let Some(AppSource::Path { path, .. }) = &app.source {
            paths.insert(path.clone());
        }
    }
    for file in set.setups.values().flat_map(|setup| setup.files.values()) {
        if let Content::Source(path) = &file.content {
            paths.insert(path.clone());
        }
    }
    Ok(BlueprintSet {
        workspace: Workspace {
            name,
            policy: manifest.manifest.policy(),
            vars: manifest.vars.values,
            base_domain: manifest.base_domain.map(|(domain, _)| domain),
        },
        machines: set.machines.infos,
        apps: set.apps,
        setups: set.setups,
        services: set.services,
        volumes: set.volumes,
        networks: set.networks,
        registries: set.registries,
        origins: set.origins,
        paths,
        warnings: out,
    })
}

/// What comes together while documents are read.
#[derive(Default)]
struct Set {
    known: Known,
    machines: Machines,
    flawed_machines: bool,
    owners: Vec<Owner>,
    apps: BTreeMap<OwnerName, crate::set::App>,
    setups: BTreeMap<OwnerName, crate::set::Setup>,
    services: BTreeMap<OwnerName, crate::set::Service>,
    volumes: BTreeMap<OwnerName, crate::set::Volume>,
    networks: BTreeMap<OwnerName, crate::set::Network>,
    registries: BTreeMap<String, crate::set::Registry>,
    /// Services that do not say where they can be reached.
    unpublished: BTreeSet<OwnerName>,
    registry_names: BTreeMap<OwnerName, Spot>,
    registry_hosts: BTreeMap<String, Spot>,
    origins: Origins,
    /// Where the Workspace is, whether or not it could be read.
    workspace: Option<Spot>,
}

impl Set {
    /// Takes a document's kind and name in.
    fn register(&mut self, head: &Head, out: &mut Diagnostics) {
        if head.readable && !head.usable {
            return self.known.incomplete();
        }
        let Some((word, kind_spot)) = &head.kind else {
            return match &head.name {
                Some((name, _)) => {
                    self.known.possible.insert(name.clone());
                }
                None => self.known.incomplete(),
            };
        };
        let kind = Kind::parse(word);
        if !head.readable && kind == Some(Kind::Machine) {
            self.flawed_machines = true;
        }
        if kind == Some(Kind::Workspace) {
            match &self.workspace {
                Some(first) => out.push(
                    Diagnostic::error(Code::DuplicateName, "there are two Workspaces")
                        .at(kind_spot, "the second is here")
                        .at(first, "the first is here")
                        .hint("a repository has one manifest, plumb.yaml; another environment is an Overlay"),
                ),
                None => self.workspace = Some(kind_spot.clone()),
            }
        }
        if kind.is_none() {
            let words = kind_words();
            let hint = match nearest(word, Kind::ALL.into_iter().map(Kind::as_str)) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("there is {}", alternatives(&words)),
            };
            out.push(
                Diagnostic::error(
                    Code::UnknownKind,
                    format!("there is no kind {}", quote(word)),
                )
                .here(kind_spot)
                .hint(hint),
            );
        }
        self.register_name(head, word, kind, out);
    }

    fn register_name(
        &mut self,
        head: &Head,
        word: &str,
        kind: Option<Kind>,
        out: &mut Diagnostics,
    ) {
        let machine = kind == Some(Kind::Machine);
        let owner = matches!(
            kind,
            Some(Kind::App | Kind::Setup | Kind::Service | Kind::Volume | Kind::Network)
        );
        let Some((name, spot)) = &head.name else {
            self.known.machines_incomplete |= machine || kind.is_none();
            self.known.owners_incomplete |= owner || kind.is_none();
            return;
        };
        let first = if machine {
            self.known
                .machines
                .get(name)
                .cloned()
                .map(|spot| ("Machine".to_owned(), spot))
        } else {
            self.known.owners.get(name).cloned()
        };
        match first {
            // What cannot be read may be anything, once it can.
            Some(_) if !head.readable => {}
            Some((first_kind, first)) if machine || owner => {
                let message = if first_kind == word {
                    format!("there are two of the name {}: {word}", quote(name))
                } else {
                    format!(
                        "the name {} is taken: App, Setup, Service, Volume and Network share their names",
                        quote(name)
                    )
                };
                out.push(
                    Diagnostic::error(Code::DuplicateName, message)
                        .at(spot, format!("this {word}"))
                        .at(&first, format!("and this {first_kind}"))
                        .hint("rename one of them"),
                );
            }
            _ if machine => {
                self.known.machines.insert(name.clone(), spot.clone());
            }
            _ if owner => {
                self.known
                    .owners
                    .insert(name.clone(), (word.to_owned(), spot.clone()));
            }
            // It may have been meant to be anything.
            _ if kind.is_none() => {
                self.known.possible.insert(name.clone());
            }
            _ => {}
        }
    }
}

impl<'a> Entry<'a> {
    /// What the structural check left to the conversion: its places, and what to call them.
    fn left(&self) -> Vec<(Spot, String)> {
        let left = self.checked.left.iter();
        left.map(|pointer| (self.document.spot(pointer), check::name(pointer)))
            .collect()
    }

    fn reader<'b>(&'a self, vars: &'b Vars, out: &'b mut Diagnostics) -> Reader<'a, 'b>
    where
        'a: 'b,
    {
        Reader {
            document: &self.document,
            checked: &self.checked,
            vars,
            out,
        }
    }
}

fn kind_words() -> Vec<String> {
    Kind::ALL
        .into_iter()
        .map(|kind| format!("`{}`", kind.as_str()))
        .collect()
}
