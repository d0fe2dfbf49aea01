//! Which directories the agent watches, so that a change to what Plumb manages wakes it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use plumb_model::ResourceSpec;

/// The folders whose entries are managed: the parent of every file and directory. A watch on a parent tells of entries
/// that are made, changed, removed and renamed, and of their modes; a directory's own content is nobody's business.
/// Folders that do not exist are listed too: watch the nearest one that does, by [`nearest`].
#[must_use]
pub fn managed_parents<'a>(specs: impl IntoIterator<Item = &'a ResourceSpec>) -> BTreeSet<PathBuf> {
    specs
        .into_iter()
        .filter_map(|spec| match spec {
            ResourceSpec::File(spec) => Some(&spec.path),
            ResourceSpec::Directory(spec) => Some(&spec.path),
            _ => None,
        })
        .filter_map(|path| std::path::Path::new(path).parent().map(PathBuf::from))
        .collect()
}

/// The folder itself if it is there, and otherwise the nearest one above it that is; a symbolic link does not count.
#[must_use]
pub fn nearest(folder: &std::path::Path) -> PathBuf {
    folder
        .ancestors()
        .find(|path| std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()))
        .map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_model::{DirectorySpec, Mode};

    #[test]
    fn each_parent_is_watched_once_and_a_missing_one_by_its_ancestor() {
        let spec = |path: &str| {
            ResourceSpec::Directory(DirectorySpec {
                path: path.into(),
                mode: Mode(0o755),
                owner: None,
                group: None,
            })
        };
        let specs = [spec("/a/b"), spec("/a/c"), spec("/a/b/d"), spec("/x")];
        let found: Vec<_> = managed_parents(&specs).into_iter().collect();
        assert_eq!(found, ["/", "/a", "/a/b"].map(PathBuf::from));
        let data = tempfile::tempdir().unwrap();
        assert_eq!(nearest(&data.path().join("no/such")), data.path());
        assert_eq!(nearest(data.path()), data.path());
    }
}
