//! `plumb backup` and `plumb restore`.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use plumb_control_plane::backup::{self, BackupError, Frame, KeyFile, Reader};
use plumb_model::Timestamp;
use plumb_wire::client::{self, OperationsClient};
use plumb_wire::v1;
use serde_json::json;

use crate::args::Output;
use crate::args::operations::{BackupArgs, RestoreArgs};
use crate::commands::Env;
use crate::context::Context;
use crate::dial::Dialled;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::render::count;

impl From<BackupError> for CliError {
    fn from(error: BackupError) -> Self {
        Self::Other(crate::error::chain(&error))
    }
}

/// A file that is removed unless it is kept.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Takes a backup, copies the keys, or does both.
pub async fn backup(args: &BackupArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    let mut told = serde_json::Map::from_iter([("format".to_owned(), json!(1))]);
    let mut lines = Vec::new();
    if let Some(file) = &args.file {
        let taken = take(file, args.without_blobs, env).await?;
        lines.push(format!(
            "{}: {} records and {} files, {} bytes, as of {}",
            file.display(),
            taken.pairs,
            taken.files,
            taken.bytes,
            taken.header.at
        ));
        told.insert(
            "backup".to_owned(),
            json!({
                "file": file, "at": taken.header.at, "lineage": taken.header.lineage,
                "records": taken.pairs, "files": taken.files, "bytes": taken.bytes,
            }),
        );
    }
    if let (Some(file), Some(data)) = (&args.keys, &args.data) {
        let names = backup::copy_keys(data, file)?;
        lines.push(format!(
            "{}: {}. Whoever has it and a backup is this control plane; keep the two apart.",
            file.display(),
            names.join(", ")
        ));
        told.insert("keys".to_owned(), json!({ "file": file, "names": names }));
    } else if env.output == Output::Text {
        out::note(
            "The keys of the control plane are not in it: copy them once, and after each `plumb ca rotate` and `plumb secret rotate-key`, with `plumb backup --keys FILE --data DIR` on its machine.",
        );
    }
    match env.output {
        Output::Json => out::json(&told),
        Output::Text => lines.iter().for_each(|line| out::line(line)),
    }
    Ok(Exit::Fine)
}

/// A backup that was taken and read back.
struct Taken {
    header: backup::Header,
    pairs: u64,
    files: u64,
    bytes: u64,
}

async fn take(file: &Path, without_blobs: bool, env: &Env<'_>) -> Result<Taken, CliError> {
    if file.exists() {
        return Err(CliError::Other(format!(
            "{} exists already; name another file, so that no older backup is lost",
            file.display()
        )));
    }
    let context = Context::find(env.context)?;
    let mut operations: Dialled<OperationsClient> =
        Dialled::to(&context, client::operations_with).await?;
    let failed = operations.failed();
    let request = v1::BackupRequest { without_blobs };
    let answer = operations.client.backup(request).await;
    let mut pieces = answer.map_err(&failed)?.into_inner();
    let mut name = file.as_os_str().to_owned();
    name.push(".unfinished");
    let beside = PathBuf::from(name);
    let _ = std::fs::remove_file(&beside);
    let mut written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .map_err(CliError::file("create", &beside))?;
    let mut unfinished = Unfinished(Some(beside.clone()));
    while let Some(piece) = pieces.message().await.map_err(&failed)? {
        written
            .write_all(&piece.data)
            .map_err(CliError::file("write", &beside))?;
    }
    written
        .sync_all()
        .map_err(CliError::file("sync", &beside))?;
    // What cannot be restored is no backup.
    let taken = verify(&beside)?;
    std::fs::rename(&beside, file).map_err(CliError::file("make", file))?;
    unfinished.0 = None;
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))
        .and_then(|folder| folder.sync_all())
        .map_err(CliError::file("sync the folder of", file))?;
    Ok(taken)
}

/// Reads a backup to its end.
fn verify(file: &Path) -> Result<Taken, CliError> {
    let input = File::open(file).map_err(CliError::file("open", file))?;
    let bytes = input
        .metadata()
        .map_err(CliError::file("read", file))?
        .len();
    let mut reader = Reader::new(BufReader::with_capacity(256 * 1024, input))?;
    let (mut pairs, mut files) = (0, 0);
    while let Some(frame) = reader.read_next()? {
        match frame {
            Frame::Pair(..) => pairs += 1,
            Frame::File(_) => files += 1,
            Frame::Data(_) => {}
        }
    }
    Ok(Taken {
        header: reader.header().clone(),
        pairs,
        files,
        bytes,
    })
}

/// Makes a data folder of a backup.
pub fn restore(args: &RestoreArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    let keys = match (&args.keys, args.without_keys) {
        (Some(file), _) => Some(KeyFile::read(file)?),
        (None, true) => None,
        (None, false) => {
            return Err(CliError::Other(
                "a backup holds no keys, and without them no machine knows the control plane again: give --keys FILE, as `plumb backup --keys` wrote it, or go on with --without-keys".to_owned(),
            ));
        }
    };
    let restored = backup::restore(&args.file, &args.data, keys.as_ref(), Timestamp::now)?;
    let header = &restored.header;
    if env.output == Output::Json {
        out::json(&json!({
            "format": 1, "data": args.data, "at": header.at, "lineage": header.lineage,
            "workspace": header.workspace, "records": restored.pairs, "blobs": restored.blobs,
            "keys": keys.is_some(),
        }));
        return Ok(Exit::Fine);
    }
    out::line(&format!(
        "{} is as it was at {}: {}, {}, {}.",
        args.data.display(),
        header.at,
        count(
            usize::try_from(restored.pairs).unwrap_or(usize::MAX),
            "record"
        ),
        count(
            usize::try_from(restored.blobs).unwrap_or(usize::MAX),
            "blob"
        ),
        if keys.is_some() {
            "with its keys"
        } else {
            "without its keys"
        }
    ));
    out::line(&format!(
        "Start it: plumb server --data {} --workspace {}",
        args.data.display(),
        header.workspace
    ));
    out::line(
        "Machines that hold more than it has recorded are left alone until `plumb recover`; tokens and machines that were taken back since count again: see `plumb token list` and `plumb machine list`.",
    );
    if keys.is_none() {
        out::line("It will make a new CA: machines join anew, and contexts are logged in anew.");
    }
    Ok(Exit::Fine)
}
