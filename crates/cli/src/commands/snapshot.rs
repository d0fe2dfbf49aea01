//! `plumb snapshot`.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use crate::args::Output;
use crate::commands::Env;
use crate::context::Context;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::remote::Remote;

/// How every snapshot begins.
const BEGINNING: &[u8] = b"plumb-snapshot ";

/// Saves what is recorded and observed, so that `plumb plan --snapshot` can plan against it without a server.
pub async fn run(file: &Path, env: &Env<'_>) -> Result<Exit, CliError> {
    check_target(file)?;
    let mut remote = Remote::connect(&Context::find(env.context)?).await?;
    let bytes = remote.snapshot().await?;
    // What came is what will be read: a broken stream is noticed here and not in a month.
    let snapshot = plumb_planner::snapshot::Snapshot::parse(&bytes)
        .map_err(|e| CliError::Answer(e.to_string()))?;
    // Something may have come there while the control plane was asked.
    let taken = check_target(file)?;
    write_beside(file, &bytes, taken).map_err(CliError::file("write", file))?;
    let state = &snapshot.recorded.state;
    match env.output {
        Output::Json => out::json(&serde_json::json!({
            "format": 1, "file": file, "bytes": bytes.len(), "revision": state.revision,
            "owners": state.owners.len(), "machines": state.machines.len(),
        })),
        Output::Text => out::line(&format!(
            "Saved what is recorded of {} owner{} on {} machine{}; plan against it with `plumb plan --snapshot {}`.",
            state.owners.len(),
            if state.owners.len() == 1 { "" } else { "s" },
            state.machines.len(),
            if state.machines.len() == 1 { "" } else { "s" },
            plumb_model::escape::line(&file.display().to_string()),
        )),
    }
    Ok(Exit::Fine)
}

/// Refuses a place where no snapshot should go, and says whether an older snapshot is there, which gives way. Anything
/// else does not: it was hardly meant. A link is refused too: a rename would replace the link and not what it names.
fn check_target(path: &Path) -> Result<bool, CliError> {
    let refused = |why: &str| {
        CliError::Other(format!(
            "the snapshot is not saved to {}: {why}; choose another name",
            path.display()
        ))
    };
    if path == Path::new("-") {
        return Err(refused(
            "a snapshot is read again as a file, with `plumb plan --snapshot FILE`",
        ));
    }
    if path.file_name().is_none() {
        return Err(refused("that names no file"));
    }
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
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
    File::open(path)
        .and_then(|file| {
            file.take(BEGINNING.len() as u64)
                .read_to_end(&mut beginning)
        })
        .map_err(CliError::file("read", path))?;
    if beginning == BEGINNING {
        Ok(true)
    } else {
        Err(refused("a file is there that is no snapshot"))
    }
}

/// Writes a file beside its place and moves it there, so that nobody ever reads half of one. Only what was `taken` by
/// an older snapshot is replaced.
fn write_beside(file: &Path, bytes: &[u8], taken: bool) -> io::Result<()> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut beside = tempfile::NamedTempFile::new_in(folder)?;
    beside.write_all(bytes)?;
    beside.as_file().sync_all()?;
    if taken {
        beside.persist(file)
    } else {
        beside.persist_noclobber(file)
    }
    .map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_snapshot_gives_way_to_a_snapshot() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        fs::write(path("thesis.tex"), "x").unwrap();
        fs::write(path("empty"), "").unwrap();
        fs::write(path("old"), "plumb-snapshot 1\n").unwrap();
        fs::create_dir(path("folder")).unwrap();
        std::os::unix::fs::symlink(path("old"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("nothing"), path("dangling")).unwrap();
        assert!(!check_target(&path("new")).unwrap());
        assert!(check_target(&path("old")).unwrap());
        for (bad, why) in [
            (path("thesis.tex"), "a file is there that is no snapshot"),
            (path("empty"), "a file is there that is no snapshot"),
            (path("folder"), "it is a folder"),
            (path("link"), "it is a symbolic link"),
            (path("dangling"), "it is a symbolic link"),
            ("/dev/null".into(), "no regular file"),
            ("-".into(), "--snapshot FILE"),
            ("..".into(), "names no file"),
        ] {
            let error = check_target(&bad).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_came_there_meanwhile_is_not_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a");
        write_beside(&path, b"first", false).unwrap();
        assert!(write_beside(&path, b"second", false).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        write_beside(&path, b"second", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }
}
