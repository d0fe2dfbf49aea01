//! Writing a plan file: beside its place, synced, and moved there, or nothing.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Read as _, Seek as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use plumb_model::Hash;
use plumb_model::plan::Plan;
use plumb_wire::plan_file::{self, Document, Signature};
use plumb_wire::v1;

use crate::args::Output;
use crate::commands::Env;
use crate::commands::apply::show_plan;
use crate::error::CliError;
use crate::out;
use crate::repository::Sources;

/// How every plan file begins: the name of its first member.
const BEGINNING: &[u8] = b"plan.json\0";

/// Refuses a place where no plan file should go, before anything is planned. An older plan file gives way; a folder, a
/// device or a file of another sort does not: it was hardly meant.
pub fn check_target(path: &Path) -> Result<(), CliError> {
    let refused = |why: &str| {
        CliError::Other(format!(
            "the plan is not saved to {}: {why}; choose another name",
            path.display()
        ))
    };
    if path == Path::new("-") {
        return Err(refused("a plan file is no text for a terminal or a pipe"));
    }
    if path.file_name().is_none() {
        return Err(refused("that names no file"));
    }
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(CliError::file("look at", path)(e)),
    };
    if metadata.is_dir() {
        return Err(refused("it is a folder"));
    }
    if !metadata.is_file() {
        return Err(refused("it is no regular file"));
    }
    let mut beginning = Vec::new();
    File::open(path)
        .and_then(|file| {
            file.take(BEGINNING.len() as u64)
                .read_to_end(&mut beginning)
        })
        .map_err(CliError::file("read", path))?;
    if beginning.is_empty() || beginning == BEGINNING {
        Ok(())
    } else {
        Err(refused("a file is there that is no plan file"))
    }
}

/// Saves a signed plan, with the blobs of `sources` in a bundle, and shows it.
pub fn save(
    path: &Path,
    signed: v1::SignedPlan,
    sources: Option<&mut Sources>,
    env: &Env<'_>,
) -> Result<Plan, CliError> {
    let answer = |e: &dyn std::error::Error| CliError::Answer(crate::error::chain(e));
    let signature = Signature::from_wire(&signed).map_err(|e| answer(&e))?;
    // What came is what will be read: anything wrong is noticed here, and not in a month.
    let document = Document::open(&signed.document, &signature).map_err(|e| answer(&e))?;
    let write = |file: &mut File| write(file, &signed.document, &signature, &document, sources);
    beside(path, write).map_err(CliError::file("write the plan file", path))?;
    show_plan(&document.plan, env);
    let said = format!(
        "Saved to {path}, signed with the key {}. Record exactly this with `plumb apply {path}`.",
        signature.key.id(),
        path = path.display()
    );
    match env.output {
        Output::Text => out::line(&format!("\n{}", plumb_model::escape::line(&said))),
        _ => out::note(&plumb_model::escape::line(&said)),
    }
    Ok(document.plan)
}

fn write(
    file: &mut File,
    bytes: &[u8],
    signature: &Signature,
    document: &Document,
    sources: Option<&mut Sources>,
) -> io::Result<()> {
    let mut sources = sources;
    let wanted: Vec<(Hash, u64)> = match &sources {
        Some(_) => document.blobs.iter().map(|(d, s)| (*d, *s)).collect(),
        None => Vec::new(),
    };
    let blobs = wanted.into_iter().map(|(digest, size)| {
        let blob = sources
            .as_mut()
            .and_then(|sources| sources.blobs.get_mut(&digest))
            .ok_or_else(|| {
                io::Error::other(format!(
                    "the content {digest} is not in this repository, so there is no bundle of it"
                ))
            })?;
        blob.rewind()?;
        Ok((digest, size, blob.try_clone()?))
    });
    let mut out = BufWriter::new(file);
    plan_file::write(&mut out, bytes, signature, blobs)
}

/// Writes a file beside its place, and moves it there once it is on the disk. Only its owner can read it, as with a
/// snapshot: a plan holds no secret that Plumb knows of, but every literal of an environment, which people take for one.
fn beside(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut beside = tempfile::Builder::new()
        .prefix(".plan-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)?;
    write(beside.as_file_mut())?;
    beside.as_file().sync_all()?;
    beside.persist(path).map_err(|e| e.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plan_file_gives_way_to_a_plan_file() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        fs::write(path("thesis.tex"), "x").unwrap();
        fs::write(path("empty"), "").unwrap();
        fs::write(path("old.plan"), b"plan.json\0\0\0").unwrap();
        fs::create_dir(path("folder")).unwrap();
        for good in ["new", "empty", "old.plan"] {
            check_target(&path(good)).unwrap();
        }
        for (bad, why) in [
            (path("thesis.tex"), "no plan file"),
            (path("folder"), "it is a folder"),
            ("/dev/null".into(), "no regular file"),
            ("-".into(), "no text for a terminal"),
            ("..".into(), "names no file"),
        ] {
            let error = check_target(&bad).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_plan_file_is_its_owners_alone_and_what_cannot_be_written_whole_leaves_what_was_there() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.plan");
        beside(&path, |file| io::Write::write_all(file, b"first")).unwrap();
        let failed = beside(&path, |file| {
            io::Write::write_all(file, b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        // Mutation: the mode that the umask leaves.
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }
}
