//! The order of the passes: read every file, check each document by itself, then all of them together.

mod compose;
mod owners;

pub use compose::others;

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::OwnerName;

use crate::check::{self, Checked};
use crate::code::Code;
use crate::convert::workspace::{self, Defaults, Manifest};
use crate::convert::{Reader, Vars};
use crate::cross::{self, Known, Machines, Owner};
use crate::diagnostic::{Diagnostic, Diagnostics, Spot, alternatives, quote};
use crate::document::{self, Document};
use crate::nearest::nearest;
use crate::parallel;
use crate::schema::Kind;
use crate::set::{BlueprintSet, Content, Origins, Source as AppSource, Workspace};
use crate::source::{Source, SourceFile, too_large};

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
    order.sort_by(|a, b| a.path.cmp(&b.path));
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
    let read = parallel::each(sources.iter().collect(), size, read_file);
    let mut entries = Vec::new();
    for (documents, problems) in read {
        out.append(problems);
        for (document, checked) in documents {
            if let (Some(kind), Some(checked)) = (set.register(&document, &mut out), checked) {
                entries.push(Entry {
                    document,
                    kind,
                    checked,
                });
            }
        }
    }
    let manifest = set.manifest(&entries, options, &mut out);
    // A document is let go of as soon as its values are typed.
    let converted = parallel::each(entries, size, |entry| owners::convert(&entry, &manifest));
    for converted in converted {
        set.take(converted, &mut out);
    }
    set.machines.complete =
        !set.flawed_machines && !set.known.machines_incomplete && set.known.possible.is_empty();
    set.compose(options, &mut out);
    cross::check(&set.known, &set.machines, &set.owners, &mut out);
    set.publish_services();
    finish(set, manifest, out)
}

/// Reads a file's documents, and checks the structure of those whose kind is known.
fn read_file<'a>(source: &'a Source<'a>) -> (Vec<(Document<'a>, Option<Checked>)>, Diagnostics) {
    let mut out = Diagnostics::default();
    let documents = document::read(source, &mut out);
    let checked = documents.into_iter().map(|document| {
        let word = document.kind.as_ref().map(|(word, _)| word.as_str());
        let checked = match (word.and_then(Kind::parse), document.value()) {
            (Some(kind), Some(value)) if value.is_object() => {
                Some(check::check(&document, kind, value, &mut out))
            }
            _ => None,
        };
        (document, checked)
    });
    let checked = checked.collect();
    (checked, out)
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

/// The manifest with its overlay.
#[derive(Default)]
struct ReadManifest {
    manifest: Manifest,
    vars: Vars,
    defaults: Defaults,
    /// The domain that apps are reachable under, and where it is written.
    base_domain: Option<(String, Spot)>,
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
    unreadable_manifest: bool,
}

impl Set {
    /// Takes a document's kind and name in, and gives its kind if it is one that is driven.
    fn register(&mut self, document: &Document<'_>, out: &mut Diagnostics) -> Option<Kind> {
        let readable = document.tree.is_some();
        if document.value().is_some_and(|v| !v.is_object()) {
            out.push(
                Diagnostic::error(Code::NotAMapping, "a blueprint is a mapping")
                    .here(&document.spot(""))
                    .hint("begin it with `kind: App` and `name: hello`"),
            );
            self.known.incomplete();
            return None;
        }
        let Some((word, kind_spot)) = &document.kind else {
            match &document.name {
                Some((name, _)) => {
                    self.known.possible.insert(name.clone());
                }
                None => self.known.incomplete(),
            }
            if let Some(value) = document.value() {
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
            return None;
        };
        let kind = Kind::parse(word);
        if !readable {
            match kind {
                Some(Kind::Workspace) => self.unreadable_manifest = true,
                Some(Kind::Machine) => self.flawed_machines = true,
                _ => {}
            }
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
        self.register_name(document, word, kind, out);
        kind
    }

    fn register_name(
        &mut self,
        document: &Document<'_>,
        word: &str,
        kind: Option<Kind>,
        out: &mut Diagnostics,
    ) {
        let machine = kind == Some(Kind::Machine);
        let owner = matches!(
            kind,
            Some(Kind::App | Kind::Setup | Kind::Service | Kind::Volume | Kind::Network)
        );
        let Some((name, spot)) = &document.name else {
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

    /// Reads the manifest, finds the overlay that was asked for, and lays it over.
    fn manifest(
        &mut self,
        entries: &[Entry<'_>],
        options: &Options,
        out: &mut Diagnostics,
    ) -> ReadManifest {
        let base = entries.iter().find(|e| e.kind == Kind::Workspace);
        if self.workspace.is_none() && self.known.complete() {
            out.push(
                Diagnostic::error(
                    Code::NoManifest,
                    "this folder has no manifest: no document says `kind: Workspace`",
                )
                .in_file("plumb.yaml")
                .hint(
                    "add a file plumb.yaml with the two lines `kind: Workspace` and `name: shop`",
                ),
            );
        }
        let folder = |path: &str| {
            path.rsplit_once('/')
                .map_or(String::new(), |(f, _)| format!("{f}/"))
        };
        let manifest_path = self.workspace.as_ref().map_or("", |spot| &*spot.file);
        let home = folder(manifest_path);
        let mut overlay = None;
        let mut available = Vec::new();
        for entry in entries.iter().filter(|e| e.kind == Kind::Overlay) {
            let path = &*entry.document.source.path;
            let name = path.strip_prefix(home.as_str()).and_then(overlay_name);
            match name {
                Some(name) if Some(name) == options.env.as_deref() && overlay.is_none() => overlay = Some(entry),
                Some(name) => available.push(name),
                None if base.is_none() => {}
                None => out.push(
                    Diagnostic::error(Code::OverlayOutOfPlace, "no `--env` can choose this Overlay")
                        .here(&entry.document.spot("/kind"))
                        .hint(format!("put it beside the manifest: {home}plumb.NAME.yaml is chosen by `--env NAME`")),
                ),
            }
        }
        for entry in entries.iter().filter(|e| e.kind != Kind::Overlay) {
            let path = &*entry.document.source.path;
            if path
                .strip_prefix(home.as_str())
                .and_then(overlay_name)
                .is_some()
            {
                out.push(
                    Diagnostic::error(
                        Code::OverlayOutOfPlace,
                        format!(
                            "a file plumb.NAME.yaml is an Overlay, and holds no {}",
                            entry.kind.as_str()
                        ),
                    )
                    .here(&entry.document.spot("/kind"))
                    .hint("move it to another file"),
                );
            }
        }
        if let (Some(env), None) = (&options.env, overlay)
            && base.is_some()
            && self.known.complete()
        {
            available.sort_unstable();
            let words: Vec<String> = available.iter().map(|name| quote(name)).collect();
            let hint = match nearest(env, available.iter().copied()) {
                Some(meant) => format!("did you mean `--env {meant}`?"),
                None if words.is_empty() => {
                    format!("add {home}plumb.{env}.yaml with `kind: Overlay`, or leave `--env` out")
                }
                None => format!("there is {}", alternatives(&words)),
            };
            out.push(
                Diagnostic::error(
                    Code::UnknownOverlay,
                    format!("there is no overlay for the environment {}", quote(env)),
                )
                .in_file(&format!("{home}plumb.{env}.yaml"))
                .hint(hint),
            );
        }
        let flawed_before = out.errors();
        let no_vars = Vars::default();
        let layers: Vec<&Entry<'_>> = base.into_iter().chain(overlay).collect();
        let mut read = ReadManifest::default();
        for layer in &layers {
            let upper = workspace::manifest(&mut layer.reader(&no_vars, out));
            read.manifest = upper.over(std::mem::take(&mut read.manifest));
        }
        // An Overlay that is not chosen is held to the same rules.
        for entry in entries
            .iter()
            .filter(|e| e.kind == Kind::Overlay && !layers.iter().any(|l| std::ptr::eq(*l, *e)))
        {
            let own = workspace::manifest(&mut entry.reader(&no_vars, out));
            let mut values = read.manifest.vars.clone();
            values.extend(own.vars);
            let vars = Vars {
                values,
                incomplete: base.is_none(),
            };
            workspace::defaults(&mut entry.reader(&vars, out));
        }
        let broken = base.is_none() || self.unreadable_manifest || out.errors() > flawed_before;
        read.vars = Vars {
            values: read.manifest.vars.clone(),
            incomplete: broken,
        };
        for layer in &layers {
            let mut reader = layer.reader(&read.vars, out);
            let upper = workspace::defaults(&mut reader);
            read.defaults = upper.over(&read.defaults);
        }
        if let Some(base) = base {
            read.base_domain = workspace::base_domain(&mut base.reader(&read.vars, out));
        }
        read
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

/// `staging` out of `plumb.staging.yaml`.
fn overlay_name(file: &str) -> Option<&str> {
    let stem = file
        .strip_suffix(".yaml")
        .or_else(|| file.strip_suffix(".yml"))?;
    let name = stem.strip_prefix("plumb.")?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}
