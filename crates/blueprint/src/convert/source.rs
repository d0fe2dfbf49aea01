//! Where an app's files come from, and what builds them: sources, runtimes, build steps.

use plumb_model::spec_parts::Runtime;
use plumb_model::spec_source::GitRef;

use super::process;
use super::{Node, Place, Reader, Use};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, alternatives, quote};
use crate::git_url;
use crate::nearest::nearest;
use crate::set::{GitSource, RuntimeDecl, Segment, Source, Text};

/// The source, which says in which folder of it everything starts.
pub(crate) fn read<'a>(r: &mut Reader<'a, '_>, root: &Node<'a>) -> Option<Source> {
    let node = r.get(root, "source")?;
    let dir = r.get(&node, "dir").and_then(|dir| process::dir(r, &dir));
    let dir = dir.unwrap_or_default();
    let (path, git) = (r.get(&node, "path"), r.get(&node, "git"));
    match (path, git) {
        (Some(path), None) => {
            for key in ["branch", "tag", "commit", "follow"] {
                if let Some(key_node) = r.get(&node, key) {
                    r.bad_key(
                        &key_node,
                        Code::KeyOutOfPlace,
                        format!(
                            "`{key}` goes with `git`, and this source is a folder of the repository"
                        ),
                        Some("remove it, or write `git: https://…` in place of `path`"),
                    );
                }
            }
            let path = r.repository_path(&path);
            path.map(|path| Source::Path { path, dir })
        }
        (None, Some(git)) => self::git(r, &node, &git, &dir).map(Source::Git),
        (Some(path), Some(git)) => {
            url(r, &git);
            let (first, second) = (r.key_spot(&path), r.key_spot(&git));
            r.out.push(
                Diagnostic::error(Code::ExactlyOne, "a source is either a `path` or `git`")
                    .at(&second, "this one")
                    .at(&first, "or this one")
                    .hint("remove one of them"),
            );
            None
        }
        (None, None) => {
            if node.value.is_object() {
                r.bad(
                    &node,
                    Code::ExactlyOne,
                    "this source says nowhere where the files are",
                    Some("add `path: ../web`, or `git: https://git.example.com/me/web.git` with `branch: main`"),
                );
            }
            None
        }
    }
}

fn git<'a>(
    r: &mut Reader<'a, '_>,
    source: &Node<'a>,
    git: &Node<'a>,
    dir: &str,
) -> Option<GitSource> {
    let url = url(r, git);
    let given: Vec<(&str, Node<'a>)> = ["branch", "tag", "commit"]
        .into_iter()
        .filter_map(|key| Some((key, r.get(source, key)?)))
        .collect();
    let follow = r.get_bool(source, "follow");
    let wanted = match given.as_slice() {
        [(key, node)] => wanted(r, key, node),
        [] => {
            r.bad_key(
                git,
                Code::ExactlyOne,
                "this source does not say what of the repository it wants",
                Some("add `branch: main`, `tag: v1.0`, or `commit:` with a full id"),
            );
            None
        }
        [(first_key, first), (second_key, second), ..] => {
            let (first, second) = (r.key_spot(first), r.key_spot(second));
            r.out.push(
                Diagnostic::error(
                    Code::ExactlyOne,
                    format!("a git source wants either `{first_key}` or `{second_key}`"),
                )
                .at(&second, "this one")
                .at(&first, "or this one")
                .hint("remove one of them"),
            );
            None
        }
    };
    if follow == Some(true)
        && let Some(GitRef::Tag(_) | GitRef::Commit(_)) = &wanted
        && let Some(node) = r.get(source, "follow")
    {
        let other = r.key_spot(&given[0].1);
        let spot = r.key_spot(&node);
        r.out.push(
            Diagnostic::error(
                Code::KeyOutOfPlace,
                format!(
                    "`follow` goes with `branch`: a {} does not move",
                    given[0].0
                ),
            )
            .at(&spot, "this follows")
            .at(&other, "what stays")
            .hint("remove `follow`, or write `branch: main`"),
        );
        return None;
    }
    Some(GitSource {
        url: url?,
        wanted: wanted?,
        dir: dir.to_owned(),
        follow: follow.unwrap_or(false),
    })
}

/// A URL without a credential. It is not repeated in what is said of it.
fn url<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<String> {
    // What comes out of a variable is held to the same rules; a wrong reference is told of by `with_vars`.
    let text = r.with_vars(node)?;
    let problem = match git_url::check(&text) {
        Ok(()) => return Some(text),
        Err(problem) => problem,
    };
    let (code, message, hint) = match problem {
        git_url::Problem::Credential => (
            Code::LiteralCredential,
            "this git URL holds a credential, and a blueprint never holds one".to_owned(),
            "leave everything out that is no address, and give the repository's credential to the control plane",
        ),
        git_url::Problem::Scheme(hint) => (
            Code::BadGitUrl,
            "a git source is fetched over https or ssh, and this URL is neither".to_owned(),
            hint,
        ),
        git_url::Problem::Shape(what) => (
            Code::BadGitUrl,
            format!("this is no git URL: {what}"),
            "write it like https://git.example.com/me/web.git or git@git.example.com:me/web.git",
        ),
    };
    r.hide(node);
    r.bad(node, code, message, Some(hint));
    None
}

fn wanted<'a>(r: &mut Reader<'a, '_>, key: &str, node: &Node<'a>) -> Option<GitRef> {
    let text = r.with_vars(node)?;
    if key == "commit" {
        if git_url::is_commit(&text) {
            return Some(GitRef::Commit(text));
        }
        r.bad(
            node,
            Code::BadGitRef,
            format!("{} is no id of a commit", quote(&text)),
            Some("write all 40 digits of it, in lower case: `git rev-parse HEAD` prints them"),
        );
        return None;
    }
    match git_url::check_ref(&text) {
        Ok(()) if key == "tag" => Some(GitRef::Tag(text)),
        Ok(()) => Some(GitRef::Branch(text)),
        Err(problem) => {
            let message = format!("{} cannot be a {key}: {problem}", quote(&text));
            r.bad(node, Code::BadGitRef, message, None);
            None
        }
    }
}

/// A language runtime and its version.
pub(crate) fn runtime<'a>(r: &mut Reader<'a, '_>, root: &Node<'a>) -> Option<RuntimeDecl> {
    let node = r.get(root, "runtime")?;
    let (runtime, version) = name_and_version(
        r,
        &node,
        "runtime",
        &Runtime::ALL.map(|one| (one.as_str(), one)),
        "node@20",
    )?;
    Some(RuntimeDecl { runtime, version })
}

/// `NAME@VERSION`, whose name is one of several words.
pub(crate) fn name_and_version<'a, T: Copy>(
    r: &mut Reader<'a, '_>,
    node: &Node<'a>,
    what: &str,
    all: &[(&str, T)],
    example: &str,
) -> Option<(T, String)> {
    let text = r.with_vars(node)?;
    let name = text.split('@').next().unwrap_or_default();
    let Some((word, found)) = all.iter().find(|(word, _)| *word == name) else {
        let words: Vec<String> = all.iter().map(|(word, _)| quote(word)).collect();
        let hint = match nearest(name, all.iter().map(|(word, _)| *word)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("there is {}", alternatives(&words)),
        };
        r.bad(
            node,
            Code::BadVersion,
            format!("there is no {what} {}", quote(name)),
            Some(&hint),
        );
        return None;
    };
    match crate::scalar::name_and_version(&text) {
        Some((_, version)) => Some((*found, version.to_owned())),
        None => {
            let hint = match text.contains('@') {
                true => format!("write it like `{example}`"),
                false => format!("add its version: `{word}@…`, such as `{example}`"),
            };
            let message = format!(
                "{} does not name a version of the {what} `{word}`",
                quote(&text)
            );
            r.bad(node, Code::BadVersion, message, Some(&hint));
            None
        }
    }
}

/// Build steps, each run by `sh -c`.
pub(crate) fn build<'a>(
    r: &mut Reader<'a, '_>,
    root: &Node<'a>,
    uses: &mut Vec<Use>,
) -> Vec<Vec<Text>> {
    let Some(node) = r.get(root, "build") else {
        return Vec::new();
    };
    let steps = if node.value.is_array() {
        r.items(&node)
    } else {
        vec![node]
    };
    let mut out = Vec::new();
    for step in steps {
        let Some(text) = r.text(&step) else { continue };
        if text.trim().is_empty() {
            r.bad(
                &step,
                Code::EmptyCommand,
                "this step is empty",
                Some("write it like `build: [npm ci, npm run build]`"),
            );
            continue;
        }
        if let Some(rendered) = r.rendered(&step, Place::Command) {
            uses.extend(rendered.uses);
            let word = |text: &str| vec![Segment::Literal(text.to_owned())];
            out.push(vec![word("/bin/sh"), word("-c"), rendered.text]);
        }
    }
    out
}
