//! Saving what a command was asked to save in a file: where that may go, and how it comes there whole or not at all.
//! `plumb plan --out` and `plumb snapshot` use it. It replaces nothing but what is of its own sort.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::error::CliError;

/// A sort of file that Plumb writes.
pub struct Sort {
    /// What is saved: `the plan`.
    pub what: &'static str,
    /// What such a file is called: `plan file`.
    pub name: &'static str,
    /// How every such file begins.
    pub beginning: &'static [u8],
    /// Why it does not go to standard output.
    pub no_output: &'static str,
}

/// Whether an older file of the same sort gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nothing is there.
    Free,
    /// An older one is, or an empty file, as `mktemp` makes.
    Taken,
}

/// Refuses a place where nothing of this sort should go, and says what is there. A folder, a device or a file of another
/// sort does not give way: it was hardly meant. Nor does a link: a rename would replace the link and not what it names.
///
/// # Errors
/// Why not, and what to do.
pub fn check(path: &Path, sort: &Sort) -> Result<Place, CliError> {
    let refused = |why: &str| {
        CliError::Other(format!(
            "{} is not saved to {}: {why}; choose another name",
            sort.what,
            path.display()
        ))
    };
    if path == Path::new("-") {
        return Err(refused(sort.no_output));
    }
    if path.file_name().is_none() {
        return Err(refused("that names no file"));
    }
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Place::Free),
        Err(e) => return Err(CliError::file("look at", path)(e)),
    };
    if metadata.is_dir() {
        return Err(refused("it is a folder"));
    }
    if metadata.is_symlink() {
        return Err(refused("it is a symbolic link"));
    }
    if !metadata.is_file() {
        return Err(refused("it is no regular file"));
    }
    let mut beginning = Vec::new();
    crate::regular::open(path)
        .and_then(|file| {
            file.take(sort.beginning.len() as u64)
                .read_to_end(&mut beginning)
        })
        .map_err(CliError::file("read", path))?;
    if beginning.is_empty() || beginning == sort.beginning {
        Ok(Place::Taken)
    } else {
        Err(refused(&format!(
            "a file is there that is no {}",
            sort.name
        )))
    }
}

/// Writes a file beside its place, syncs it, moves it there, and syncs the folder: whoever reads finds the whole file or
/// what was there before, after a crash too. Only what [`check`] found there is replaced. Only its owner can read the file:
/// neither a plan nor a snapshot holds a secret that Plumb knows of, but every literal of an environment, which people
/// take for one.
///
/// # Errors
/// When the system refuses, `write` fails, or something came there meanwhile.
pub fn write(
    path: &Path,
    place: Place,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut beside = tempfile::Builder::new()
        .prefix(".plumb-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)?;
    write(beside.as_file_mut())?;
    beside.as_file().sync_all()?;
    match place {
        Place::Taken => beside.persist(path),
        Place::Free => beside.persist_noclobber(path),
    }
    .map_err(|e| e.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::*;

    const SORT: Sort = Sort {
        what: "the plan",
        name: "plan file",
        beginning: b"plan.json\0",
        no_output: "a plan file is no text",
    };

    #[test]
    fn only_a_file_of_the_same_sort_gives_way() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        fs::write(path("thesis.tex"), "x").unwrap();
        fs::write(path("empty"), "").unwrap();
        fs::write(path("old"), b"plan.json\0\0\0").unwrap();
        fs::create_dir(path("folder")).unwrap();
        symlink(path("old"), path("link")).unwrap();
        symlink(path("nothing"), path("dangling")).unwrap();
        assert_eq!(check(&path("new"), &SORT).unwrap(), Place::Free);
        assert_eq!(check(&path("old"), &SORT).unwrap(), Place::Taken);
        assert_eq!(check(&path("empty"), &SORT).unwrap(), Place::Taken);
        for (bad, why) in [
            (path("thesis.tex"), "a file is there that is no plan file"),
            (path("folder"), "it is a folder"),
            (path("link"), "it is a symbolic link"),
            (path("dangling"), "it is a symbolic link"),
            ("/dev/null".into(), "no regular file"),
            ("-".into(), "a plan file is no text"),
            ("..".into(), "names no file"),
        ] {
            let error = check(&bad, &SORT).unwrap_err().to_string();
            assert!(error.starts_with("the plan is not saved to "), "{error}");
            assert!(error.contains(why), "{error}");
        }
    }

    /// Mutations: the mode that the umask leaves; `persist` for either place.
    #[test]
    fn what_is_written_is_whole_its_owners_alone_and_replaces_nothing_that_came_meanwhile() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a");
        let text = |text: &'static [u8]| move |file: &mut File| file.write_all(text);
        write(&path, Place::Free, text(b"first")).unwrap();
        assert!(write(&path, Place::Free, text(b"second")).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        let failed = write(&path, Place::Taken, |file| {
            file.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        write(&path, Place::Taken, text(b"second")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }
}
