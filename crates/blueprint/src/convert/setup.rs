//! Setup: files and directories.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::{DriftPolicy, Mode, OwnerName};

use super::{Node, Place, Reader, Selected, Use};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, Spot, quote};
use crate::set::{Content, DirDecl, FileDecl};

/// A Setup as far as it is right, with what `cross` wants to know.
#[derive(Debug)]
pub(crate) struct ReadSetup {
    pub selected: Option<Selected>,
    pub drift: Option<DriftPolicy>,
    pub files: BTreeMap<String, FileDecl>,
    pub directories: BTreeMap<String, DirDecl>,
    /// Where each path is written, and whether it is a file.
    pub claims: Vec<(String, bool, Spot)>,
    pub uses: Vec<Use>,
    pub packages: BTreeSet<String>,
    pub renamed_from: Option<(OwnerName, Spot)>,
    /// The apps that files notify, with their places.
    pub notify: Vec<(OwnerName, Spot)>,
}

/// Reads a Setup. What is wrong in it is reported and left out.
pub(crate) fn read(r: &mut Reader<'_, '_>) -> ReadSetup {
    let root = r.root();
    let mut out = ReadSetup {
        selected: r.machines(&root),
        drift: super::tuning::drift(r, &root),
        files: BTreeMap::new(),
        directories: BTreeMap::new(),
        claims: Vec::new(),
        uses: Vec::new(),
        packages: BTreeSet::new(),
        renamed_from: r.renamed_from(&root),
        notify: Vec::new(),
    };
    if let Some(packages) = r.get(&root, "packages") {
        let mut spots = BTreeMap::new();
        for node in r.items(&packages) {
            let Some(text) = r.text(&node) else { continue };
            if crate::scalar::is_package(text) {
                out.packages.insert(text.to_owned());
                let spot = r.spot(&node);
                match spots.get(text) {
                    Some(first) => r.twice("package", &spot, first),
                    None => {
                        spots.insert(text, spot);
                    }
                }
            } else {
                r.bad(&node, Code::BadPackage, format!("{} is no name of a package", quote(text)), Some("use letters, digits, `+`, `-`, `.` and `_`, and begin with a letter or digit"));
            }
        }
    }
    for (key, is_file) in [("files", true), ("directories", false)] {
        let Some(node) = r.get(&root, key) else {
            continue;
        };
        for (path, node) in r.entries(&node) {
            if let Err(problem) = crate::scalar::machine_path(path) {
                let better = (path.len() > 1 && path.ends_with('/'))
                    .then(|| format!("write `{}`", path.trim_end_matches('/')));
                r.bad_key(
                    &node,
                    Code::BadPath,
                    format!("{}: {problem}", quote(path)),
                    better.as_deref(),
                );
                continue;
            }
            out.claims
                .push((path.to_owned(), is_file, r.key_spot(&node)));
            if is_file {
                if let Some(file) = file(r, &node, &mut out.uses, &mut out.notify) {
                    out.files.insert(path.to_owned(), file);
                }
            } else {
                let directory = DirDecl {
                    mode: mode(r, &node, 0o755),
                    owner: user(r, &node, "owner"),
                    group: user(r, &node, "group"),
                };
                out.directories.insert(path.to_owned(), directory);
            }
        }
    }
    out
}

fn file<'a>(
    r: &mut Reader<'a, '_>,
    node: &Node<'a>,
    uses: &mut Vec<Use>,
    all_notified: &mut Vec<(OwnerName, Spot)>,
) -> Option<FileDecl> {
    let notified = r.get(node, "notify").map(|node| r.names(&node));
    let notified = notified.unwrap_or_default();
    let notify = notified.iter().map(|(name, _)| name.clone()).collect();
    all_notified.extend(notified);
    let (content, source) = (r.get(node, "content"), r.get(node, "source"));
    let (mode, owner, group) = (
        mode(r, node, 0o644),
        user(r, node, "owner"),
        user(r, node, "group"),
    );
    let content = match (content, source) {
        (Some(content), None) => r.rendered(&content, Place::Content).map(|rendered| {
            uses.extend(rendered.uses);
            Content::Text(rendered.text)
        }),
        (None, Some(source)) => r.repository_path(&source).map(Content::Source),
        (Some(content), Some(source)) => {
            let (first, second) = (r.key_spot(&content), r.key_spot(&source));
            r.out.push(
                Diagnostic::error(Code::ExactlyOne, "a file has either `content` or `source`")
                    .at(&second, "this one")
                    .at(&first, "or this one")
                    .hint("remove one of them"),
            );
            None
        }
        (None, None) => {
            if node.value.is_object() {
                r.bad_key(node, Code::ExactlyOne, "this file has neither `content` nor `source`", Some("add `content: \"…\"`, or `source: ../files/motd` for a file of the repository"));
            } else {
                r.mismatch(node, "a mapping");
            }
            None
        }
    }?;
    Some(FileDecl {
        notify,
        content,
        mode,
        owner,
        group,
    })
}

fn mode<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>, default: u32) -> Mode {
    let Some((text, at)) = r.get_text(node, "mode") else {
        return Mode(default);
    };
    Mode::parse(text).unwrap_or_else(|| {
        r.bad(
            &at,
            Code::BadMode,
            format!("{} is no file mode", quote(text)),
            Some("write octal digits such as \"0644\""),
        );
        Mode(default)
    })
}

fn user<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>, key: &str) -> Option<String> {
    let (text, at) = r.get_text(node, key)?;
    if crate::scalar::is_user_or_number(text) {
        return Some(text.to_owned());
    }
    r.bad(
        &at,
        Code::BadUser,
        format!(
            "{} cannot be {} name",
            quote(text),
            if key == "owner" {
                "a user's"
            } else {
                "a group's"
            }
        ),
        Some("use a name of at most 32 of a-z, 0-9, `_` and `-`, or a number in quotes"),
    );
    None
}
