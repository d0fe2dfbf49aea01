//! References inside texts: `${…}` out of a closed set, and `$${` for a literal.

use plumb_model::{OwnerName, PortName};

use crate::code::Code;
use crate::nearest::nearest;
use crate::set::Reference;

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Literal(&'a str),
    /// What stands between `${` and `}`.
    Ref(&'a str),
    /// `${` without its `}`.
    Open,
}

/// Cuts a text into its parts.
pub(crate) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    let (mut from, mut at) = (0, 0);
    while let Some(found) = text[at..].find('$') {
        let dollar = at + found;
        let rest = &text[dollar..];
        if rest.starts_with("$${") {
            // The second dollar begins the literal `${`.
            out.push(Piece::Literal(&text[from..dollar]));
            from = dollar + 1;
            at = dollar + 3;
        } else if let Some(inner) = rest.strip_prefix("${") {
            out.push(Piece::Literal(&text[from..dollar]));
            match inner.find('}') {
                Some(end) => {
                    out.push(Piece::Ref(&inner[..end]));
                    from = dollar + 2 + end + 1;
                }
                None => {
                    out.push(Piece::Open);
                    from = dollar + 2;
                }
            }
            at = from;
        } else {
            at = dollar + 1;
        }
    }
    out.push(Piece::Literal(&text[from..]));
    out.retain(|piece| *piece != Piece::Literal(""));
    out
}

/// A reference before the workspace's variables are known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Var(String),
    Ref(Reference),
}

/// Why a text between `${` and `}` is no reference.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub code: Code,
    pub message: String,
    pub hint: String,
}

const ALL: &str = "${machine.name}, ${machine.labels.X}, ${machine.address}, ${app.X.url}, ${app.X.host}, ${app.X.ports.P}, ${service.X.url} (also .host, .port, .user and .database), ${vars.X}, ${release} and ${commit}";

/// Parses what stands between `${` and `}`.
pub(crate) fn parse(inner: &str) -> Result<Parsed, Refusal> {
    let parts: Vec<&str> = inner.split('.').collect();
    let bad = |message: String, hint: String| Refusal {
        code: Code::BadReference,
        message,
        hint,
    };
    let reference = match parts.as_slice() {
        ["vars", name] if !name.is_empty() => return Ok(Parsed::Var((*name).to_owned())),
        ["machine", "name"] => Reference::MachineName,
        ["machine", "address"] => Reference::MachineAddress,
        // Labels may hold dots.
        ["machine", "labels", _, ..] => {
            Reference::MachineLabel(inner["machine.labels.".len()..].to_owned())
        }
        ["app", app, rest @ ..] => {
            let app = OwnerName::new(app).map_err(|e| {
                bad(
                    format!("`${{{inner}}}` names no app: {e}"),
                    "write ${app.NAME.url}".into(),
                )
            })?;
            match rest {
                ["url"] => Reference::AppUrl(app),
                ["host"] => Reference::AppHost(app),
                ["ports", port] => {
                    let port = PortName::new(port).map_err(|e| {
                        bad(
                            format!("`${{{inner}}}` names no port: {e}"),
                            "write ${app.NAME.ports.PORT}".into(),
                        )
                    })?;
                    Reference::AppPort(app, port)
                }
                _ => {
                    return Err(bad(
                        format!("`${{{inner}}}` is no reference"),
                        format!(
                            "of an app there are ${{app.{app}.url}}, ${{app.{app}.host}} and ${{app.{app}.ports.PORT}}"
                        ),
                    ));
                }
            }
        }
        ["release"] => Reference::Release,
        ["commit"] => Reference::Commit,
        ["service", service, rest @ ..] => {
            let service = OwnerName::new(service).map_err(|e| {
                bad(
                    format!("`${{{inner}}}` names no service: {e}"),
                    "write ${service.NAME.url}".into(),
                )
            })?;
            match rest {
                ["url"] => Reference::ServiceUrl(service),
                ["host"] => Reference::ServiceHost(service),
                ["port"] => Reference::ServicePort(service),
                ["user"] => Reference::ServiceUser(service),
                ["database"] => Reference::ServiceDatabase(service),
                ["password"] => {
                    return Err(bad(
                        format!(
                            "`${{{inner}}}` is no reference: a password is never written into a text"
                        ),
                        format!(
                            "write `uses: [{service}]`, which hands it in as {}",
                            plumb_model::injected::service_variable(&service, "PASSWORD")
                        ),
                    ));
                }
                _ => {
                    return Err(bad(
                        format!("`${{{inner}}}` is no reference"),
                        format!(
                            "of a service there are ${{service.{service}.url}}, .host, .port, .user and .database"
                        ),
                    ));
                }
            }
        }
        [word]
            if crate::scalar::is_env_name(word)
                && nearest(word, ["release", "commit"]).is_none() =>
        {
            return Err(bad(
                format!("`${{{word}}}` is no reference"),
                format!("for a shell variable write $${{{word}}} or ${word}"),
            ));
        }
        _ => {
            let whole = [
                "machine.name",
                "machine.address",
                "machine.labels",
                "release",
                "commit",
                "vars",
                "app",
                "service",
            ];
            let rest = inner.split_once('.').map_or("", |(_, rest)| rest);
            let group = nearest(parts[0], ["machine", "app", "service", "vars"])
                .filter(|group| *group != parts[0]);
            let hint = match (nearest(inner, whole), group) {
                (Some(meant), _)
                    if !matches!(meant, "machine.labels" | "vars" | "app" | "service") =>
                {
                    format!("did you mean ${{{meant}}}?")
                }
                (_, Some(group)) if !rest.is_empty() => {
                    format!("did you mean ${{{group}.{rest}}}?")
                }
                _ => format!("there are {ALL}; $${{ is a literal"),
            };
            return Err(bad(format!("`${{{inner}}}` is no reference"), hint));
        }
    };
    Ok(Parsed::Ref(reference))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_references_and_a_doubled_dollar_is_a_literal() {
        use Piece::{Literal as L, Open, Ref as R};
        for (text, expected) in [
            ("plain $x $$ $", vec![L("plain $x $$ $")]),
            ("a${b}c", vec![L("a"), R("b"), L("c")]),
            ("$${b} ${c}", vec![L("${b} "), R("c")]),
            ("x$$${b}", vec![L("x$"), L("${b}")]),
            ("${a}${b}", vec![R("a"), R("b")]),
            ("${a", vec![Open, L("a")]),
            ("", vec![]),
        ] {
            assert_eq!(pieces(text), expected, "{text}");
        }
    }

    #[test]
    fn the_set_of_references_is_closed() {
        let owner = OwnerName::new("x").unwrap();
        for (inner, expected) in [
            ("machine.name", Reference::MachineName),
            ("machine.labels.a.b", Reference::MachineLabel("a.b".into())),
            ("app.x.url", Reference::AppUrl(owner.clone())),
            (
                "app.x.ports.http",
                Reference::AppPort(owner.clone(), PortName::new("http").unwrap()),
            ),
            ("service.x.url", Reference::ServiceUrl(owner.clone())),
            ("service.x.port", Reference::ServicePort(owner)),
        ] {
            assert_eq!(parse(inner), Ok(Parsed::Ref(expected)), "{inner}");
        }
        for bad in [
            "",
            "HOME",
            "machine",
            "machine.labels",
            "vars",
            "vars.",
            "app.x",
            "app..url",
            "app.x.url.y",
            " machine.name",
            "env.X",
            "service.db",
            "service.db.password",
            "service.DB.url",
            "service.db.url.x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
