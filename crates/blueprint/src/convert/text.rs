//! Texts that may hold references: variables are put in, and what only the planner knows is kept apart.

use std::collections::BTreeMap;

use super::{Node, Place, Reader, Rendered, Use};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, Spot, quote};
use crate::nearest::nearest;
use crate::reference::{Parsed, Piece, parse, pieces};
use crate::set::{Reference, Segment};

/// The longest argument or variable in bytes, its final NUL left out: Linux's MAX_ARG_STRLEN.
const MAX_ARGUMENT_BYTES: usize = 128 * 1024 - 1;

impl<'a> Reader<'a, '_> {
    /// A text without references that is put before the operating system as it is.
    fn acceptable(&mut self, node: &Node<'_>, text: &str, place: Place) -> bool {
        if place == Place::Content {
            return true;
        }
        let problem = if text.contains('\0') {
            "holds a NUL, which ends a text for the operating system"
        } else if text.len() > MAX_ARGUMENT_BYTES {
            "is longer than the 128 KiB that Linux takes"
        } else {
            return true;
        };
        self.bad(
            node,
            Code::BadText,
            format!("{} {problem}", self.called(node)),
            Some("put it into a file"),
        );
        false
    }

    /// A text that may hold references.
    pub fn rendered(&mut self, node: &Node<'a>, place: Place) -> Option<Rendered> {
        let text = self.text(node)?;
        if !self.acceptable(node, text, place) {
            return None;
        }
        if place == Place::Command {
            self.likely_credential(node, None, text);
        }
        let mut out = Rendered::default();
        let mut good = true;
        let mut literal = String::new();
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for piece in pieces(text) {
            let inner = match piece {
                Piece::Literal(text) => {
                    literal.push_str(text);
                    continue;
                }
                Piece::Open => {
                    self.bad(
                        node,
                        Code::BadReference,
                        "`${` without its `}`",
                        Some("close it, or write $${ for a literal `${`"),
                    );
                    good = false;
                    continue;
                }
                Piece::Ref(inner) => inner,
            };
            let count = seen.entry(inner).or_insert(0);
            let (document, nth) = (self.document, *count);
            *count += 1;
            // With what it stands in, which is a part of the same text.
            let at = inner.as_ptr() as usize - text.as_ptr() as usize;
            let whole = &text[at - "${".len()..=at + inner.len()];
            let spot = || document.inside(node.tree, whole, nth);
            match parse(inner) {
                Ok(Parsed::Var(var)) => match self.vars.values.get(&var) {
                    Some(value) => literal.push_str(value),
                    None => {
                        good = false;
                        self.unknown_var(&var, &spot());
                    }
                },
                Ok(Parsed::Ref(reference)) => {
                    if reference == Reference::Release && place != Place::Env {
                        good = false;
                        self.out.push(
                            Diagnostic::error(Code::ReferenceOutOfPlace, "`${release}` is known only when a process starts, and stands in `env`")
                                .here(&spot())
                                .hint("write `env: { RELEASE: \"${release}\" }`, and use $RELEASE in the command"),
                        );
                        continue;
                    }
                    if let (Reference::ServiceUrl(_), Place::Command) = (&reference, place) {
                        good = false;
                        self.out.push(
                            Diagnostic::error(Code::ReferenceOutOfPlace, format!("`${{{inner}}}` holds a credential, and a command line or a build can be looked at by others"))
                                .here(&spot())
                                .hint(format!("write `env: {{ DATABASE_URL: \"${{{inner}}}\" }}`, and use $DATABASE_URL in the command")),
                        );
                        continue;
                    }
                    if !literal.is_empty() {
                        out.text
                            .push(Segment::Literal(std::mem::take(&mut literal)));
                    }
                    out.text.push(Segment::Ref(reference.clone()));
                    let spot = spot();
                    out.uses.push(Use { reference, spot });
                }
                Err(refusal) => {
                    good = false;
                    self.out.push(
                        Diagnostic::error(refusal.code, refusal.message)
                            .here(&spot())
                            .hint(refusal.hint),
                    );
                }
            }
        }
        if !literal.is_empty() {
            out.text.push(Segment::Literal(literal));
        }
        good.then_some(out)
    }

    /// Warns of a text that looks like a credential: the value of a variable, or whatever stands there.
    pub(super) fn likely_credential(
        &mut self,
        node: &Node<'_>,
        variable: Option<&str>,
        text: &str,
    ) {
        let what = || variable.map_or_else(|| self.called(node), str::to_owned);
        if let Some(warning) = crate::mask::warning(variable, what, text) {
            let spot = self.spot(node);
            self.out.push(warning.here(&spot));
        }
    }

    /// A text in which only `${vars.X}` may stand.
    pub fn with_vars(&mut self, node: &Node<'a>) -> Option<String> {
        let rendered = self.rendered(node, Place::Content)?;
        if let Some(first) = rendered.uses.first() {
            self.out.push(
                Diagnostic::error(
                    Code::ReferenceOutOfPlace,
                    format!("{} takes no references but ${{vars.X}}", self.called(node)),
                )
                .here(&first.spot)
                .hint("write it out, or put it under `vars` in plumb.yaml"),
            );
            return None;
        }
        Some(
            rendered
                .text
                .into_iter()
                .map(|s| match s {
                    Segment::Literal(text) => text,
                    Segment::Ref(_) => String::new(),
                })
                .collect(),
        )
    }

    fn unknown_var(&mut self, var: &str, spot: &Spot) {
        if self.vars.incomplete {
            return;
        }
        let known = self.vars.values.keys().map(String::as_str);
        let hint = match nearest(var, known) {
            Some(meant) => format!("did you mean ${{vars.{meant}}}?"),
            None => format!(
                "add it to plumb.yaml: `vars: {{ {}: … }}`",
                if crate::scalar::is_label_key(var) {
                    var
                } else {
                    "NAME"
                }
            ),
        };
        self.out.push(
            Diagnostic::error(
                Code::UnknownVar,
                format!("the workspace has no variable {}", quote(var)),
            )
            .here(spot)
            .hint(hint),
        );
    }

    /// A mapping of environment variables.
    pub fn env(&mut self, node: &Node<'a>) -> BTreeMap<String, Rendered> {
        let mut env = BTreeMap::new();
        for (key, value) in self.entries(node) {
            if !crate::scalar::is_env_name(key) {
                self.bad_key(
                    &value,
                    Code::BadEnvName,
                    format!(
                        "{} cannot be the name of an environment variable",
                        quote(key)
                    ),
                    Some("use letters, digits and `_`, and do not start with a digit"),
                );
                continue;
            }
            if let Some(text) = value.value.as_str() {
                self.likely_credential(&value, Some(key), text);
            }
            if let Some(rendered) = self.rendered(&value, Place::Env) {
                env.insert(key.to_owned(), rendered);
            }
        }
        env
    }
}
