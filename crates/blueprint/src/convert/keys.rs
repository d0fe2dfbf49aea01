//! Which keys of an App go with which workload. A key that would do nothing is an error that names both.

use super::{Node, Reader};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, quote};

/// What an App consists of, by the key that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `run` or `processes`.
    Native,
    /// `image`.
    Image,
    /// `dockerfile`.
    Dockerfile,
    /// `compose`.
    Compose,
    /// `static`.
    Static,
}

/// The keys that say what an App consists of, in the order in which they are told of.
const FORMS: [(&str, Form); 6] = [
    ("run", Form::Native),
    ("processes", Form::Native),
    ("image", Form::Image),
    ("dockerfile", Form::Dockerfile),
    ("compose", Form::Compose),
    ("static", Form::Static),
];

impl Form {
    fn words(self) -> &'static str {
        match self {
            Self::Native => "native processes",
            Self::Image | Self::Dockerfile => "a container",
            Self::Compose => "a Compose file",
            Self::Static => "a static site",
        }
    }
}

/// The forms that a key goes with, in words of a hint; none if it goes with all of them.
fn goes_with(key: &str) -> Option<&'static [Form]> {
    use Form::{Compose, Dockerfile, Image, Native, Static};
    Some(match key {
        "runtime" | "build" | "hooks" | "on_disconnect" => &[Native],
        "source" => &[Native, Dockerfile, Static],
        "command" | "entrypoint" | "volumes" | "networks" | "workdir" | "labels" => {
            &[Image, Dockerfile]
        }
        "ports" | "health" | "schedule" | "user" => &[Native, Image, Dockerfile],
        "env" | "secrets" | "uses" | "limits" | "restart" | "stop" | "log" => {
            &[Native, Image, Dockerfile, Compose]
        }
        _ => return None,
    })
}

/// What to write in place of a key that goes with another form.
fn instead(key: &str, form: Form) -> &'static str {
    match (key, form) {
        ("runtime", Form::Static) | ("build", Form::Static) => {
            "build it before, and let `static` name the folder with the result"
        }
        ("runtime", _) => "the image brings its own: remove `runtime`",
        ("build", Form::Image) => {
            "to build an image write `dockerfile: Dockerfile` in place of `image`"
        }
        ("build", _) => "write the steps into the Dockerfile",
        ("hooks", Form::Static) => "remove it: nothing runs here",
        ("on_disconnect", Form::Image | Form::Dockerfile | Form::Compose) => {
            "remove it: only native processes can be stopped by it"
        }
        ("hooks", _) => {
            "do it at the start of the container: `command: ./migrate && exec ./server`"
        }
        ("source", Form::Image) => {
            "an image brings its own files: remove `source`, or write `dockerfile: Dockerfile` in place of `image`"
        }
        ("source", _) => "the Compose file names its own build contexts: remove `source`",
        ("command", Form::Native) => "write it as `run`",
        ("entrypoint", Form::Native) => "write all of the command as `run`",
        ("volumes", Form::Native) => {
            "a native process uses the machine's own folders: make one in a Setup with `directories`"
        }
        ("networks", Form::Native) => "a native process uses the machine's own network: remove it",
        ("workdir", Form::Native) => {
            "write `source: { path: …, dir: … }` for the folder in which it starts"
        }
        ("labels", Form::Native) => "a native process has no labels: remove it",
        ("ports" | "health", Form::Static) => {
            "the machine's web server answers for the files: write `routes`"
        }
        (_, Form::Static) => {
            "remove it: nothing runs here, the machine's web server hands out the files"
        }
        (_, _) => "write it into the Compose file",
    }
}

/// What an App consists of. Two of them, none, and keys that go with another one are reported.
pub(crate) fn form<'a>(
    r: &mut Reader<'a, '_>,
    root: &Node<'a>,
    name: Option<&str>,
) -> Option<Form> {
    let given: Vec<(&str, Form, Node<'a>)> = FORMS
        .iter()
        .filter_map(|(key, form)| Some((*key, *form, r.get(root, key)?)))
        .collect();
    let (key, form, node) = match given.as_slice() {
        [one] => one,
        [] => {
            let shown = name.map_or_else(|| "this App".to_owned(), quote);
            let spot = r.spot(root);
            r.out.push(
                Diagnostic::error(Code::ExactlyOne, format!("{shown} says nowhere what to run"))
                    .here(&spot)
                    .hint("add one of `run: ./server`, `processes`, `image`, `dockerfile`, `compose` and `static`"),
            );
            return None;
        }
        [first, second, ..] => {
            let hint = if first.1 == second.1 {
                "`run: X` is short for `processes: { app: { run: X } }`"
            } else {
                "remove one of them; what a container runs is its `command`"
            };
            let (one, other) = (r.key_spot(&first.2), r.key_spot(&second.2));
            r.out.push(
                Diagnostic::error(
                    Code::ExactlyOne,
                    format!("an App has either `{}` or `{}`", first.0, second.0),
                )
                .at(&other, "this one")
                .at(&one, "or this one")
                .hint(hint),
            );
            return None;
        }
    };
    let place = r.key_spot(node);
    for (found, node) in r.entries(root) {
        let Some(forms) = goes_with(found) else {
            continue;
        };
        if forms.contains(form) {
            continue;
        }
        let spot = r.key_spot(&node);
        r.out.push(
            Diagnostic::error(
                Code::KeyOutOfPlace,
                format!(
                    "`{found}` does not go with `{key}`: this app is {}",
                    form.words()
                ),
            )
            .at(&spot, "this key")
            .at(&place, "what the app consists of")
            .hint(instead(found, *form)),
        );
    }
    Some(*form)
}
