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

/// A host of a route: a host name, or one behind `*.`; in lower case. Errors say what is wrong with it.
pub(crate) fn route_host(text: &str) -> Result<String, &'static str> {
    if text.contains("://") {
        return Err("leave the scheme out: shop.example.com");
    }
    if text.contains(':') {
        return Err("leave the port out: routes are answered at 80 and 443");
    }
    if !text.is_ascii() {
        return Err("write an international domain in its ASCII form, which begins with xn--");
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    if name.contains('*') {
        return Err("a wildcard stands only in front: *.example.com");
    }
    if !is_host_name(name) || name.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err("a host is letters, digits and inner `-`, joined by dots: shop.example.com");
    }
    Ok(text.to_ascii_lowercase())
}

/// A path of a route, without a trailing `/` but for the root's.
pub(crate) fn route_path(text: &str) -> Result<String, &'static str> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%+@:,=!$&".contains(&b);
    if !text.starts_with('/') {
        return Err("a path begins with `/`");
    }
    if text.len() > 1024 || !text.bytes().all(good) {
        return Err(
            "a path is letters, digits and `-._~%+@:,=!$&/`; write anything else as %20 and the like",
        );
    }
    if text.contains("//") || text.split('/').any(|p| matches!(p, "." | "..")) {
        return Err("a path holds no `//`, `.` or `..`");
    }
    let trimmed = text.trim_end_matches('/');
    Ok(if trimmed.is_empty() {
        "/".to_owned()
    } else {
        trimmed.to_owned()
    })
}

/// The reference of a container image: `[HOST[:PORT]/]PATH[:TAG][@sha256:DIGEST]`. It never repeats the text, which
/// may hold a credential by mistake.
pub(crate) fn image(text: &str) -> Result<(), &'static str> {
    if text.len() > 512 {
        return Err("it is longer than 512 bytes");
    }
    if text.contains("://") {
        return Err("leave the scheme out: registry.example.com/acme/catalog:2.3");
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    if let Some(digest) = digest {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err("behind `@` stands a digest: sha256: and 64 hexadecimal digits");
        }
    }
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    if let Some(tag) = tag {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if tag.is_empty()
            || tag.len() > 128
            || tag.starts_with(['-', '.'])
            || !tag.bytes().all(good)
        {
            return Err("its tag is no tag: use letters, digits, `_`, `-` and `.`");
        }
    }
    let path = match path.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => {
            if !crate::git_url::is_host_and_port(host) {
                return Err("its registry is no host");
            }
            rest
        }
        _ => path,
    };
    let part = |p: &str| {
        p.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.')
        }) && p.starts_with(|c: char| c.is_ascii_alphanumeric())
            && p.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    if path.is_empty() || !path.split('/').all(part) {
        return Err("its name is lower-case letters, digits, `-`, `_` and `.`: acme/catalog:2.3");
    }
    Ok(())
}

/// `NAME@VERSION`, such as `node@20`.
pub(crate) fn name_and_version(text: &str) -> Option<(&str, &str)> {
    let (name, version) = text.split_once('@')?;
    let good = (1..=64).contains(&version.len())
        && version.starts_with(|c: char| c.is_ascii_alphanumeric())
        && version
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'));
    good.then_some((name, version))
}

/// The name of a package of the operating system, as apt and rpm have it.
pub(crate) fn is_package(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_' | b':'))
}

/// The user or the database of a service: what every engine takes without quotes.
pub(crate) fn is_identifier(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The user of a container: a name or a number, and behind a `:` a group's.
pub(crate) fn is_container_user(text: &str) -> bool {
    match text.split_once(':') {
        Some((user, group)) => is_user_or_number(user) && is_user_or_number(group),
        None => is_user_or_number(text),
    }
}

/// An address range such as `10.20.0.0/24`, beginning at its first address.
pub(crate) fn subnet(text: &str) -> Result<(), &'static str> {
    const SHAPE: &str = "write an address range like 10.20.0.0/24";
    let (address, bits) = text.split_once('/').ok_or(SHAPE)?;
    let address: std::net::IpAddr = address.parse().map_err(|_| SHAPE)?;
    let digits = (1..=3).contains(&bits.len()) && bits.bytes().all(|b| b.is_ascii_digit());
    let bits: u32 = if digits {
        bits.parse().map_err(|_| SHAPE)?
    } else {
        return Err(SHAPE);
    };
    let (value, width) = match address {
        std::net::IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        std::net::IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    // A range of fewer than four addresses holds no container besides its gateway.
    if !(8..=width - 2).contains(&bits) {
        return Err("its length is between /8 and two bits less than the whole address");
    }
    let below = (1_u128 << (width - bits)) - 1;
    if value & below != 0 {
        return Err(
            "its address has bits behind its length; begin at the first address of the range",
        );
    }
    Ok(())
}

/// Thousandths of a CPU core out of a number with at most three decimals.
pub(crate) fn cpu_millis(cores: f64) -> Option<u64> {
    let millis = cores * 1000.0;
    let whole = millis.round();
    ((10.0..=1_024_000.0).contains(&whole) && (millis - whole).abs() < 1e-6).then_some(whole as u64)
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

    /// Threat row 5. Mutation: take any text as a host, or as a path.
    #[test]
    fn row_5_hosts_and_paths_hold_nothing_that_ends_them_early() {
        for (text, expected) in [
            ("shop.example.com", Some("shop.example.com")),
            ("Shop.Example.COM", Some("shop.example.com")),
            ("*.example.com", Some("*.example.com")),
            ("localhost", Some("localhost")),
            ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            ("bücher.example", None),
            ("a.*.example.com", None),
            ("*", None),
            ("*.", None),
            ("*.*.a", None),
            ("a\nb", None),
            ("a\"b", None),
            ("a'b", None),
            ("{a}", None),
            ("{env.X}", None),
            ("a b", None),
            ("a..b", None),
            ("a.", None),
            ("-a.b", None),
            ("a:80", None),
            ("https://a.b", None),
            ("10.0.0.1", None),
            ("a;b", None),
            ("", None),
        ] {
            assert_eq!(route_host(text).ok().as_deref(), expected, "{text:?}");
        }
        for (text, expected) in [
            ("/", Some("/")),
            ("/api/", Some("/api")),
            ("/a%20b/~c", Some("/a%20b/~c")),
            ("api", None),
            ("/a b", None),
            ("/a\nb", None),
            ("/{a}", None),
            ("/a\"", None),
            ("/a*", None),
            ("/../a", None),
            ("/a//b", None),
            ("/ä", None),
            ("/a?b", None),
        ] {
            assert_eq!(route_path(text).ok().as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn images_versions_and_ranges_hold_their_grammars() {
        let digest = "a".repeat(64);
        for good in [
            "nginx",
            "nginx:1.27",
            "registry.example.com/acme/catalog:2.3",
            "localhost:5000/a",
            &format!("a/b@sha256:{digest}"),
            &format!("a/b:1@sha256:{digest}"),
        ] {
            assert_eq!(image(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "A",
            "a:",
            "a:-x",
            "a b",
            "a/",
            "/a",
            "-a",
            "a@sha256:12",
            "me:pw@a.b/c",
            "https://a.b/c",
            "a\nb",
            "a$(x)",
        ] {
            assert!(image(bad).is_err(), "{bad:?}");
        }
        assert_eq!(name_and_version("node@20"), Some(("node", "20")));
        for bad in [
            "node",
            "node@",
            "node@-x",
            "node@20 21",
            "node@20\n",
            "node@$(x)",
        ] {
            assert_eq!(name_and_version(bad), None, "{bad}");
        }
        assert!(subnet("10.20.0.0/24").is_ok() && subnet("fd00::/64").is_ok());
        for bad in [
            "10.20.0.1/24",
            "10.20.0.0",
            "10.20.0.0/31",
            "10.20.0.0/0",
            "x/24",
            "10.0.0.0/+8",
        ] {
            assert!(subnet(bad).is_err(), "{bad}");
        }
        assert_eq!(
            [1.5, 2.0, 0.001, 0.0105, 2000.0].map(cpu_millis),
            [Some(1500), Some(2000), None, None, None]
        );
        assert!(is_package("g++-12") && !is_package("-y") && !is_package("a b") && !is_package(""));
        assert!(
            is_container_user("1000:1000")
                && !is_container_user("a:b:c")
                && !is_container_user(":")
        );
        assert!(is_identifier("shop_1") && !is_identifier("1a") && !is_identifier("a\"b"));
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
