//! What a member of an archive may be called and where a symbolic link in it may lead. Packing and unpacking hold the
//! same rules, so that what was packed unpacks.

/// The longest member path in bytes: PATH_MAX of Linux, less the terminating zero.
pub(super) const MAX_PATH_BYTES: usize = 4095;

/// Checks that a member's path stays beneath the root: relative, and without empty, `.` or `..` parts. Says what is wrong.
pub(super) fn member(path: &[u8]) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("has no name");
    }
    if path.len() > MAX_PATH_BYTES {
        return Err("has a path longer than 4095 bytes");
    }
    if path[0] == b'/' {
        return Err("has an absolute path");
    }
    if path.contains(&0) {
        return Err("has a NUL character in its path");
    }
    for part in path.split(|b| *b == b'/') {
        match part {
            b".." => return Err("has `..` in its path"),
            b"" | b"." => return Err("has an empty part or `.` in its path"),
            _ => {}
        }
    }
    Ok(())
}

/// Checks that a symbolic link at `path` leads to somewhere beneath the root.
///
/// `..` may stand only at the start of the target, and no more often than the link is deep. With that, every step after
/// it goes down from a real directory, and another link on the way leads inside by the same rule; whereas `a/../..`
/// would climb out where `a` is a link that shortens the way.
pub(super) fn link(path: &[u8], target: &[u8]) -> Result<(), &'static str> {
    if target.is_empty() || target.len() > MAX_PATH_BYTES || target.contains(&0) {
        return Err("is a symbolic link without a usable target");
    }
    if target[0] == b'/' {
        return Err("is a symbolic link to an absolute path");
    }
    let mut depth = path.iter().filter(|b| **b == b'/').count();
    let mut down = false;
    for part in target.split(|b| *b == b'/') {
        match part {
            b".." if down => {
                return Err("is a symbolic link with `..` after a name in its target");
            }
            b".." => {
                depth = depth
                    .checked_sub(1)
                    .ok_or("is a symbolic link that leads out of the tree")?;
            }
            b"" | b"." => {}
            _ => down = true,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_beneath_the_root_is_allowed() {
        for good in ["a", "a/b", "..a", "a..", "...", "a b/ü"] {
            assert_eq!(member(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            "", "/", "/a", "..", "a/..", "../a", "a//b", "a/", "./a", "a\0",
        ] {
            assert!(member(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    /// Mutation: resolve `..` lexically anywhere in the target, and `a/b/link/../../..` passes.
    #[test]
    fn links_lead_nowhere_else() {
        for (path, target) in [
            ("l", "a"),
            ("l", "a/b"),
            ("l", "."),
            ("d/l", "../a"),
            ("d/e/l", "../../a"),
            ("d/l", "./x"),
            ("d/l", ".."),
        ] {
            assert_eq!(link(path.as_bytes(), target.as_bytes()), Ok(()), "{target}");
        }
        for (path, target) in [
            ("l", ".."),
            ("l", "../a"),
            ("d/l", "../../a"),
            ("l", "/etc/shadow"),
            ("l", ""),
            ("l", "a/../.."),
            ("x", "a/b/link/../../.."),
            ("l", "a\0b"),
        ] {
            assert!(
                link(path.as_bytes(), target.as_bytes()).is_err(),
                "{target}"
            );
        }
    }
}
