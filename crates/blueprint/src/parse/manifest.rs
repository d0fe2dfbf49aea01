//! The manifest and its overlays, which are read before everything else since all depends on them.

use std::collections::BTreeSet;

use super::{Entry, Looked, Options, Set};
use crate::code::Code;
use crate::convert::Vars;
use crate::convert::workspace::{self, Defaults, Manifest};
use crate::diagnostic::{Diagnostic, Diagnostics, Spot, alternatives, quote};
use crate::nearest::nearest;
use crate::schema::Kind;

/// The manifest with its overlay.
#[derive(Default)]
pub(super) struct ReadManifest {
    pub manifest: Manifest,
    pub vars: Vars,
    pub defaults: Defaults,
    /// The domain that apps are reachable under, and where it is written.
    pub base_domain: Option<(String, Spot)>,
    /// No overlay was found for the environment that was asked for: that can be said of it, once all is known.
    no_overlay: Option<Diagnostic>,
}

impl ReadManifest {
    /// Reads the manifest, finds the overlay that was asked for, and lays it over. These are the documents of all files
    /// that may hold either, and `files` the paths of all files.
    pub fn read(
        documents: Vec<Looked<'_>>,
        files: &BTreeSet<&str>,
        options: &Options,
        out: &mut Diagnostics,
    ) -> Self {
        let mut unreadable = false;
        let mut workspace = None;
        let mut entries = Vec::new();
        for (document, checked) in documents {
            if let Some((word, spot)) = &document.kind
                && Kind::parse(word) == Some(Kind::Workspace)
            {
                unreadable |= document.tree.is_none();
                workspace.get_or_insert_with(|| spot.clone());
            }
            if let Some((kind, checked)) = checked {
                entries.push(Entry {
                    document,
                    kind,
                    checked,
                });
            }
        }
        let base = entries.iter().find(|e| e.kind == Kind::Workspace);
        let path = workspace.as_ref().map_or("", |spot| &*spot.file);
        let home = &path[..path.rfind('/').map_or(0, |at| at + 1)];
        let (overlay, mut available) = overlays(&entries, home, options, out);
        let mut read = Self::default();
        if let (Some(env), None, Some(_)) = (&options.env, overlay, base) {
            available.sort_unstable();
            let path = format!("{home}plumb.{env}.yaml");
            read.no_overlay = Some(if files.contains(&*path) {
                empty_overlay(env, &path)
            } else {
                no_overlay(env, home, &available)
            });
        }
        let flawed_before = out.errors();
        let no_vars = Vars::default();
        let layers: Vec<&Entry<'_>> = base.into_iter().chain(overlay).collect();
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
        let broken = base.is_none() || unreadable || out.errors() > flawed_before;
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

    /// Says what is missing, which nobody knows before all documents are: one that cannot be read may be it.
    pub fn hold(&mut self, set: &Set, out: &mut Diagnostics) {
        if !set.known.complete() {
            return;
        }
        if set.workspace.is_none() {
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
        if let Some(problem) = self.no_overlay.take() {
            out.push(problem);
        }
    }
}

/// The overlay that was asked for, and the names of the others. What is in the wrong place is reported.
fn overlays<'e, 'a>(
    entries: &'e [Entry<'a>],
    home: &str,
    options: &Options,
    out: &mut Diagnostics,
) -> (Option<&'e Entry<'a>>, Vec<&'e str>) {
    let has_base = entries.iter().any(|e| e.kind == Kind::Workspace);
    let mut overlay = None;
    let mut available = Vec::new();
    for entry in entries {
        let path = &*entry.document.source.path;
        let name = path.strip_prefix(home).and_then(overlay_name);
        let mut misplaced = |message: String, hint: String| {
            out.push(
                Diagnostic::error(Code::OverlayOutOfPlace, message)
                    .here(&entry.document.spot("/kind"))
                    .hint(hint),
            );
        };
        match (entry.kind == Kind::Overlay, name) {
            (true, Some(name)) if Some(name) == options.env.as_deref() && overlay.is_none() => {
                overlay = Some(entry);
            }
            (true, Some(name)) => available.push(name),
            (true, None) if !has_base => {}
            (true, None) => misplaced(
                "no `--env` can choose this Overlay".to_owned(),
                format!(
                    "put it beside the manifest: {home}plumb.NAME.yaml is chosen by `--env NAME`"
                ),
            ),
            (false, Some(_)) => misplaced(
                format!(
                    "a file plumb.NAME.yaml is an Overlay, and holds no {}",
                    entry.kind.as_str()
                ),
                "move it to another file".to_owned(),
            ),
            (false, None) => {}
        }
    }
    (overlay, available)
}

/// What is said where the file is there, and is no Overlay.
fn empty_overlay(env: &str, path: &str) -> Diagnostic {
    Diagnostic::error(
        Code::UnknownOverlay,
        format!(
            "there is no overlay for the environment {}: its file declares none",
            quote(env)
        ),
    )
    .in_file(path)
    .hint("begin it with `kind: Overlay`, or leave `--env` out")
}

fn no_overlay(env: &str, home: &str, available: &[&str]) -> Diagnostic {
    let words: Vec<String> = available.iter().map(|name| quote(name)).collect();
    let hint = match nearest(env, available.iter().copied()) {
        Some(meant) => format!("did you mean `--env {meant}`?"),
        None if words.is_empty() => {
            format!("add {home}plumb.{env}.yaml with `kind: Overlay`, or leave `--env` out")
        }
        None => format!("there is {}", alternatives(&words)),
    };
    Diagnostic::error(
        Code::UnknownOverlay,
        format!("there is no overlay for the environment {}", quote(env)),
    )
    .in_file(&format!("{home}plumb.{env}.yaml"))
    .hint(hint)
}

/// `staging` out of `plumb.staging.yaml`.
pub(super) fn overlay_name(file: &str) -> Option<&str> {
    let stem = file
        .strip_suffix(".yaml")
        .or_else(|| file.strip_suffix(".yml"))?;
    let name = stem.strip_prefix("plumb.")?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}
