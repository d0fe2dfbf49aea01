//! What a git source may name: URLs without a credential and of a safe scheme, and refs that are no options.
//!
//! Nothing here ever repeats a URL in a message: it may hold a credential.

use crate::scalar::{is_host_name, is_user};

/// Why a URL is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// It holds a password or a token.
    Credential,
    /// It is anything but https or ssh; the hint.
    Scheme(&'static str),
    /// It is of the right scheme, but wrong; what is.
    Shape(&'static str),
}

const MAX_URL_BYTES: usize = 2048;

/// Checks `https://HOST/PATH`, `ssh://[USER@]HOST/PATH` or `USER@HOST:PATH`.
pub(crate) fn check(url: &str) -> Result<(), Problem> {
    use Problem::{Credential, Scheme, Shape};
    if url.len() > MAX_URL_BYTES {
        return Err(Shape("it is longer than 2048 bytes"));
    }
    if !url.bytes().all(|b| b.is_ascii_graphic()) || url.contains(['"', '\'', '`', '\\', '<', '>'])
    {
        return Err(Shape("it holds a character that no URL has"));
    }
    // Before all else, so that a credential is called one whatever else is wrong.
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = after_scheme.split('/').next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    if user.is_some_and(|user| user.contains(':')) || after_scheme.contains(['?', '#']) {
        return Err(Credential);
    }
    if url.contains("::") && !url.contains('[') {
        return Err(Scheme(
            "write an https:// or ssh:// URL; a transport helper would run a program",
        ));
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return short(url);
    };
    if rest.matches('@').count() > usize::from(scheme == "ssh") {
        return Err(Credential);
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = match scheme {
        "https" => authority,
        "ssh" => match authority.split_once('@') {
            Some((user, _)) if !is_remote_user(user) => {
                return Err(Shape("its user is no user's name"));
            }
            Some((_, host)) => host,
            None => authority,
        },
        "http" => return Err(Scheme("write https:// in place of http://")),
        "git" => return Err(Scheme("write https:// in place of git://")),
        other if other.eq_ignore_ascii_case("https") || other.eq_ignore_ascii_case("ssh") => {
            return Err(Scheme("write the scheme in lower case"));
        }
        "file" => {
            return Err(Scheme(
                "for a folder of this repository write `source: { path: ../web }`",
            ));
        }
        _ => return Err(Scheme("write an https:// or ssh:// URL, or git@HOST:PATH")),
    };
    if !is_host_and_port(host) {
        return Err(Shape("it has no host"));
    }
    path_of(path)
}

/// `git@HOST:PATH`, as scp has it.
fn short(url: &str) -> Result<(), Problem> {
    let Some((user, rest)) = url.split_once('@') else {
        return Err(Problem::Scheme(
            "write an https:// or ssh:// URL, or git@HOST:PATH; for a folder of this repository `source: { path: ../web }`",
        ));
    };
    if !is_remote_user(user) {
        return Err(Problem::Shape("its user is no user's name"));
    }
    let Some((host, path)) = rest.split_once(':') else {
        return Err(Problem::Shape("it has no `:` behind its host"));
    };
    if !is_host_name(host) {
        return Err(Problem::Shape("it has no host"));
    }
    path_of(path)
}

fn path_of(path: &str) -> Result<(), Problem> {
    if path.trim_matches('/').is_empty() {
        return Err(Problem::Shape("it names no repository behind its host"));
    }
    if path.starts_with('-') {
        return Err(Problem::Shape(
            "its path begins with `-`, which git takes for an option",
        ));
    }
    Ok(())
}

/// The user of an ssh URL. Capital letters and dots are fine on other hosts than ours.
fn is_remote_user(user: &str) -> bool {
    is_user(&user.to_ascii_lowercase().replace('.', "_"))
}

/// A host as URLs have it, with a port or without.
pub(crate) fn is_host_and_port(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((host, rest)) => {
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match rest.strip_prefix(':') {
                Some(port) => ("ipv6", Some(port)),
                None => return rest.is_empty(),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    crate::scalar::is_host(host)
        && !host.contains(':')
        && port.is_none_or(|p| {
            p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok_and(|p| p > 0)
        })
}

/// Checks the name of a branch or tag, within what `git check-ref-format` takes.
pub(crate) fn check_ref(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > 255 {
        return Err("it has 1 to 255 bytes");
    }
    if name.starts_with('-') {
        return Err("it may not begin with `-`, which git takes for an option");
    }
    if name.chars().any(|c| c.is_whitespace() || c.is_control())
        || name.contains(['~', '^', ':', '?', '*', '[', '\\'])
    {
        return Err("it may hold no space, no control character and none of `~^:?*[\\`");
    }
    if name.contains("..") || name.contains("@{") || name == "@" {
        return Err("it may hold no `..` and no `@{`");
    }
    let part = |p: &str| !p.is_empty() && !p.starts_with('.') && !p.ends_with(".lock");
    if !name.split('/').all(part) || name.ends_with('.') {
        return Err("none of its parts may be empty, begin with `.` or end with `.lock`");
    }
    Ok(())
}

/// Whether a text is the full id of a commit: 40 or 64 hexadecimal digits.
pub(crate) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Problem::{Credential, Scheme, Shape};

    #[test]
    fn https_and_ssh_without_a_credential_are_taken() {
        for good in [
            "https://git.example.com/acme/storefront.git",
            "https://git.example.com:8443/a",
            "ssh://git@git.example.com/acme/a.git",
            "ssh://git.example.com:2222/a",
            "https://[2001:db8::1]/a",
            "git@git.example.com:acme/a.git",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    /// Threat rows 9 and 10, as far as a parser can see them. Mutation: take any scheme, or any user.
    #[test]
    fn rows_9_and_10_other_schemes_and_options_are_refused() {
        for bad in [
            "ext::sh -c id",
            "ext::sh",
            "EXT::sh",
            "fd::7",
            "file:///etc",
            "FILE:///etc",
            "http://a.example.com/x",
            "git://a.example.com/x",
            "HTTPS://a.example.com/x",
            "javascript://a.example.com/x",
            "/srv/git",
            "../x",
            "",
        ] {
            assert!(matches!(check(bad), Err(Scheme(_) | Shape(_))), "{bad}");
        }
        for bad in [
            "ssh://-oProxyCommand=x@a.example.com/x",
            "ssh://-oX@a/x",
            "-oX@a.example.com:x",
            "git@-oX:x",
            "ssh://git@-oX/x",
            "git@a.example.com:--upload-pack=x",
            "ssh://a.example.com/-x",
            "https:///x",
            "https://a.example.com",
            "https://a.example.com/",
            "https://a b/x",
            "https://a.example.com/x\ny",
            "https://a.example.com:99999/x",
            "git@:x",
        ] {
            assert!(
                matches!(check(bad), Err(Shape(_))),
                "{bad}: {:?}",
                check(bad)
            );
        }
        for bad in [
            "https://me:canary@a.example.com/x",
            "https://canary@a.example.com/x",
            "ssh://git:canary@a.example.com/x",
            "https://a.example.com/x?token=canary",
            "https://a.example.com/x#canary",
            "me:canary@a.example.com:x",
            "ext://me:canary@a.example.com/x",
        ] {
            assert_eq!(check(bad), Err(Credential), "{bad}");
        }
    }

    #[test]
    fn a_ref_is_no_option() {
        for good in ["main", "v2.3.0", "feature/a-b", "release-1_2"] {
            assert_eq!(check_ref(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "-x",
            "--upload-pack=x",
            "a b",
            "a..b",
            "a\nb",
            "a~1",
            "a:b",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a.lock",
            "@{u}",
            "@",
        ] {
            assert!(check_ref(bad).is_err(), "{bad}");
        }
        assert!(is_commit(&"a".repeat(40)) && !is_commit("abc123") && !is_commit(&"A".repeat(40)));
    }
}
