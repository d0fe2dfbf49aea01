//! The small grammars: durations, sizes, paths, hosts and the like. Each function takes a text and gives the
//! value, or a lowercase fragment that says what is wrong with it.

/// The longest path in bytes, as Linux has it, its final NUL left out.
const MAX_PATH_BYTES: usize = 4095;

/// Milliseconds out of `500ms`, `10s`, `5m`, `1h`.
pub(crate) fn duration_ms(text: &str) -> Result<u64, &'static str> {
    const SHAPE: &str = "a duration is a whole number and a unit: `500ms`, `10s`, `5m` or `1h`";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(SHAPE),
    };
    if number.is_empty() {
        return Err(SHAPE);
    }
    let value: Option<u64> = number.parse().ok();
    value
        .and_then(|n| n.checked_mul(factor))
        .ok_or("this duration is too long to count")
}

/// Bytes out of `512Ki`, `10Mi`, `1Gi`.
pub(crate) fn size_bytes(text: &str) -> Result<u64, &'static str> {
    const SHAPE: &str = "a size is a whole number and a unit: `512Ki`, `10Mi` or `1Gi`";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        _ => return Err(SHAPE),
    };
    if number.is_empty() {
        return Err(SHAPE);
    }
    let value: Option<u64> = number.parse().ok();
    value
        .and_then(|n| n.checked_mul(1 << shift))
        .ok_or("this size is too large to count")
}

/// A path of the repository, written in a file in the folder `base`; relative to the root, `.` for the root.
pub(crate) fn repository_path(base: &str, text: &str) -> Result<String, &'static str> {
    plain(text)?;
    if text.starts_with('/') {
        return Err("this path is absolute; write it relative to this file, within the repository");
    }
    let mut parts: Vec<&str> = base
        .split('/')
        .filter(|p| !p.is_empty() && *p != ".")
        .collect();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or("this path leaves the repository")?;
            }
            part => parts.push(part),
        }
    }
    if parts.first() == Some(&".git") {
        return Err("git's own folder is no part of the repository's content");
    }
    Ok(if parts.is_empty() {
        ".".to_owned()
    } else {
        parts.join("/")
    })
}

/// A folder beneath another one; empty for that one itself.
pub(crate) fn folder_beneath(text: &str) -> Result<String, &'static str> {
    plain(text)?;
    if text.starts_with('/') {
        return Err("this folder is absolute; write it relative to the source");
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("this folder may not go up with `..`"),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// The path of a file or directory on a machine.
pub(crate) fn machine_path(text: &str) -> Result<(), &'static str> {
    plain(text)?;
    if !text.starts_with('/') {
        return Err("this path is relative; a machine's files have absolute paths");
    }
    if text == "/" {
        return Err("the root folder belongs to the machine");
    }
    if text.contains("${") {
        return Err("a path takes no references");
    }
    for part in text.split('/').skip(1) {
        match part {
            "" => return Err("this path holds a doubled or trailing `/`"),
            "." | ".." => return Err("this path holds `.` or `..`; write where it leads"),
            part if part.len() > 255 => return Err("a name in this path is longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

fn plain(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("a path may not be empty");
    }
    if text.len() > MAX_PATH_BYTES {
        return Err("this path is longer than 4095 bytes");
    }
    if text.chars().any(char::is_control) {
        return Err("this path holds a control character");
    }
    Ok(())
}

/// `[A-Za-z_][A-Za-z0-9_]*`, at most 255 bytes.
pub(crate) fn is_env_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 255
        && bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `[a-z_][a-z0-9_-]*`, at most 32 bytes, as `useradd` has it.
pub(crate) fn is_user(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 32
        && bytes
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

/// A user's or group's name, or its number.
pub(crate) fn is_user_or_number(text: &str) -> bool {
    // The largest number means "no user" to the kernel.
    is_user(text)
        || text.bytes().all(|b| b.is_ascii_digit())
            && text.parse::<u32>().is_ok_and(|n| n < u32::MAX)
}

/// A host name: labels of letters, digits and inner `-`, joined by dots.
pub(crate) fn is_host_name(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// An IP address or a host name. What consists of numbers only is no name but a mistyped address.
pub(crate) fn is_host(text: &str) -> bool {
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse::<std::net::IpAddr>().is_ok() || (!numeric && is_host_name(text))
}

/// The key of a label: letters, digits, `-`, `_`, `.`, at most 63.
pub(crate) fn is_label_key(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The value of a label: at most 255 bytes on one line.
pub(crate) fn is_label_value(text: &str) -> bool {
    text.len() <= 255 && !text.chars().any(char::is_control)
}

/// An inclusive range out of `200` or `200-399`.
pub(crate) fn status_codes(text: &str) -> Option<(u16, u16)> {
    let code = |t: &str| {
        let good = t.len() == 3 && t.bytes().all(|b| b.is_ascii_digit());
        good.then(|| t.parse::<u16>().ok())
            .flatten()
            .filter(|c| (100..=599).contains(c))
    };
    let (from, to) = match text.split_once('-') {
        Some((from, to)) => (code(from.trim())?, code(to.trim())?),
        None => (code(text)?, code(text)?),
    };
    (from <= to).then_some((from, to))
}

/// The path of an HTTP request: it goes into the request line, so nothing may end that line early.
pub(crate) fn is_request_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= 2048
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
}

/// Hundredths out of a price with at most two decimals.
pub(crate) fn cents(price: f64) -> Option<u64> {
    let cents = price * 100.0;
    let whole = cents.round();
    ((0.0..=1e11).contains(&whole) && (cents - whole).abs() < 1e-4).then_some(whole as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_need_their_unit_and_do_not_overflow() {
        for (text, expected) in [
            ("500ms", Some(500)),
            ("10s", Some(10_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("0s", Some(0)),
            ("10", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("1 s", None),
            ("1d", None),
            ("", None),
            ("99999999999999999999h", None),
            ("9999999999999999h", None),
        ] {
            assert_eq!(duration_ms(text).ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("4Ki", Some(4096)),
            ("10Mi", Some(10 << 20)),
            ("1Gi", Some(1 << 30)),
            ("10", None),
            ("10MB", None),
            ("Mi", None),
            ("99999999999Gi", None),
        ] {
            assert_eq!(size_bytes(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_repository_path_never_leaves_the_repository() {
        for (base, text, expected) in [
            ("apps", "../thumbnails", Some("thumbnails")),
            ("apps", "./x/./y//z", Some("apps/x/y/z")),
            ("", "site", Some("site")),
            ("", ".", Some(".")),
            ("a/b", "../..", Some(".")),
            ("a/b", "../../../b", None),
            ("", "..", None),
            ("", "x/../../y", None),
            ("", "/etc", None),
            ("", "", None),
            ("", "a\nb", None),
            ("", ".git/config", None),
        ] {
            assert_eq!(
                repository_path(base, text).ok().as_deref(),
                expected,
                "{base} {text}"
            );
        }
    }

    #[test]
    fn a_machine_path_is_absolute_and_normal() {
        for good in ["/etc/motd", "/a", "/a b/ä"] {
            assert_eq!(machine_path(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/",
            "etc",
            "/etc/",
            "//etc",
            "/a/./b",
            "/a/../b",
            "/a\0b",
            "/a\nb",
            "/${vars.x}",
            &format!("/{}", "x".repeat(256)),
        ] {
            assert!(machine_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_other_grammars_hold_their_bounds() {
        assert!(
            is_env_name("PATH_2")
                && !is_env_name("2X")
                && !is_env_name("A-B")
                && !is_env_name("A=B")
                && !is_env_name("")
        );
        assert!(
            is_user("www-data")
                && !is_user("Root")
                && !is_user("-x")
                && !is_user("1000")
                && !is_user("a b")
        );
        assert!(
            is_user_or_number("1000") && !is_user_or_number("4294967295") && !is_user_or_number("")
        );
        assert!(
            is_host("10.0.0.1")
                && is_host("fd00::1")
                && is_host("a.example.com")
                && !is_host("10.0.0.256")
                && !is_host("a b")
                && !is_host("a..b")
                && !is_host("")
        );
        assert_eq!(status_codes("200-399"), Some((200, 399)));
        assert_eq!(
            (
                status_codes("399-200"),
                status_codes("99"),
                status_codes("2xx")
            ),
            (None, None, None)
        );
        assert!(
            is_request_path("/a?b=c")
                && !is_request_path("a")
                && !is_request_path("/a b")
                && !is_request_path("/a\r\nX: y")
        );
        assert_eq!(
            (cents(4.51), cents(9.2), cents(0.001), cents(-1.0)),
            (Some(451), Some(920), None, None)
        );
    }
}
