//! Packs a path of a repository reproducibly: the same files give the same bytes, whatever their times, owners, order or
//! umask. The CLI calls it where the files are. It follows no symbolic link and holds no more than one chunk in memory.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use plumb_model::Hash;
use tar::{EntryType, Header};

use super::{MAX_BYTES, MAX_MEMBERS, safe};

/// The size of a tar block, in bytes.
const BLOCK_BYTES: u64 = 512;

/// The longest name that fits into a tar header, in bytes; longer ones go before it, in a member of their own.
const NAME_BYTES: usize = 100;

/// Why a path cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive cannot be written.
    #[error("cannot write the archive of {path}")]
    Write {
        /// Of what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive cannot be written to the temporary folder.
    #[error(
        "cannot write the archive of {path} to the temporary folder {folder}; free space there, or name another folder with TMPDIR"
    )]
    Scratch {
        /// Of what.
        path: PathBuf,
        /// The system's temporary folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A member may not be in an archive.
    #[error("{path} {why}; take it out of the source")]
    Refused {
        /// Which.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// It was changed meanwhile.
    #[error("{path} was changed while it was packed; try again once nothing writes to it")]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// Too much.
    #[error(
        "{path} holds {what}; choose a smaller folder as the source, since artifacts are for code, not data"
    )]
    TooLarge {
        /// What was packed.
        path: PathBuf,
        /// Which bound was passed.
        what: &'static str,
    },
}

/// A packed path.
#[derive(Debug)]
pub struct Packed {
    /// BLAKE3 of the archive's bytes.
    pub digest: Hash,
    /// Their number.
    pub size: u64,
    /// The archive, to be read from its start: a file without a name, gone with its last handle.
    pub file: File,
}

/// Packs a folder or a single file into a nameless file of the system's temporary folder.
///
/// # Errors
/// A symbolic link that leads out of `root`, anything but files, directories and links, more than 1 GiB or 200,000
/// members, or a failure to read or write: each names its path.
pub fn pack(root: &Path) -> Result<Packed, PackError> {
    let folder = std::env::temp_dir();
    let failed = |source| PackError::Scratch {
        path: root.to_owned(),
        folder: folder.clone(),
        source,
    };
    let mut file = nameless(&folder).map_err(failed)?;
    let (digest, size) = pack_into(root, &mut file).map_err(|error| match error {
        PackError::Write { source, .. } => failed(source),
        other => other,
    })?;
    file.rewind().map_err(failed)?;
    Ok(Packed { digest, size, file })
}

/// Packs into any writer; returns the digest and the number of the bytes that were written.
///
/// # Errors
/// As [`pack`].
pub fn pack_into(root: &Path, out: &mut impl Write) -> Result<(Hash, u64), PackError> {
    let mut archive = Archive {
        root,
        out: BufWriter::with_capacity(1 << 16, out),
        hasher: blake3::Hasher::new(),
        size: 0,
    };
    for member in members(root)? {
        archive.member(&member)?;
    }
    // Two empty blocks end an archive.
    archive.write(&[0; 2 * BLOCK_BYTES as usize])?;
    archive.out.flush().map_err(|source| PackError::Write {
        path: root.to_owned(),
        source,
    })?;
    Ok((Hash(*archive.hasher.finalize().as_bytes()), archive.size))
}

fn nameless(folder: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::TMPFILE.bits();
    if let Ok(flags) = i32::try_from(flags)
        && let Ok(file) = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(folder)
    {
        return Ok(file);
    }
    // Some file systems have no nameless files: make one and take its name away.
    for attempt in 0..100u32 {
        let path = folder.join(format!(".plumb-pack-{}-{attempt}", std::process::id()));
        match OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
        {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
            Ok(file) => {
                fs::remove_file(&path)?;
                return Ok(file);
            }
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

/// A member to be packed: its path in the archive, and on the disk.
struct Member {
    path: Vec<u8>,
    real: PathBuf,
    meta: fs::Metadata,
}

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> PackError {
    let path = path.to_owned();
    move |source| PackError::Read { path, source }
}

/// Every member, sorted by the bytes of its path, so that a directory comes before what is in it.
fn members(root: &Path) -> Result<Vec<Member>, PackError> {
    let meta = fs::symlink_metadata(root).map_err(read_error(root))?;
    let mut found = Vec::new();
    if !meta.is_dir() {
        if !meta.is_file() {
            return Err(PackError::Refused {
                path: root.to_owned(),
                why: "is neither a folder nor a regular file",
            });
        }
        let name = root.file_name().unwrap_or(OsStr::new("file"));
        found.push(Member {
            path: name.as_bytes().to_vec(),
            real: root.to_owned(),
            meta,
        });
        return Ok(found);
    }
    let mut folders = vec![(Vec::new(), root.to_owned())];
    while let Some((prefix, folder)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(read_error(&folder))? {
            let entry = entry.map_err(read_error(&folder))?;
            let name = entry.file_name();
            // A repository's own history; a `.git` file is that of a submodule or a worktree.
            if name == ".git" {
                continue;
            }
            let mut path: Vec<u8> = prefix.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            let real = entry.path();
            safe::member(&path).map_err(|why| PackError::Refused {
                path: real.clone(),
                why,
            })?;
            let meta = fs::symlink_metadata(&real).map_err(read_error(&real))?;
            if meta.is_dir() {
                folders.push((path.clone(), real.clone()));
            }
            found.push(Member { path, real, meta });
            if found.len() > MAX_MEMBERS {
                return Err(PackError::TooLarge {
                    path: root.to_owned(),
                    what: "more than 200,000 files",
                });
            }
        }
    }
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

struct Archive<'a, W: Write> {
    root: &'a Path,
    out: BufWriter<W>,
    hasher: blake3::Hasher,
    size: u64,
}

impl<W: Write> Archive<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.size += bytes.len() as u64;
        self.fits(0)?;
        self.hasher.update(bytes);
        self.out
            .write_all(bytes)
            .map_err(|source| PackError::Write {
                path: self.root.to_owned(),
                source,
            })
    }

    /// Whether so many bytes more are within the bound.
    fn fits(&self, more: u64) -> Result<(), PackError> {
        if self.size.saturating_add(more) > MAX_BYTES {
            return Err(PackError::TooLarge {
                path: self.root.to_owned(),
                what: "more than 1 GiB",
            });
        }
        Ok(())
    }

    fn pad(&mut self, written: u64) -> Result<(), PackError> {
        let rest = written.next_multiple_of(BLOCK_BYTES) - written;
        self.write(&[0; BLOCK_BYTES as usize][..usize::try_from(rest).unwrap_or(0)])
    }

    fn member(&mut self, member: &Member) -> Result<(), PackError> {
        let refused = |why| PackError::Refused {
            path: member.real.clone(),
            why,
        };
        let kind = member.meta.file_type();
        if kind.is_dir() {
            self.header(EntryType::Directory, &member.path, &[], 0o755, 0)
        } else if kind.is_symlink() {
            let target = fs::read_link(&member.real).map_err(read_error(&member.real))?;
            let target = target.into_os_string().into_vec();
            safe::link(&member.path, &target).map_err(refused)?;
            self.header(EntryType::Symlink, &member.path, &target, 0o777, 0)
        } else if kind.is_file() {
            self.file(member)
        } else {
            Err(refused("is neither a file, a folder nor a symbolic link"))
        }
    }

    fn file(&mut self, member: &Member) -> Result<(), PackError> {
        let changed = || PackError::Changed {
            path: member.real.clone(),
        };
        // Without NONBLOCK a pipe that was put there since would hold this up for ever.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
            .open(&member.real)
            .map_err(read_error(&member.real))?;
        let meta = file.metadata().map_err(read_error(&member.real))?;
        if !meta.is_file() {
            return Err(changed());
        }
        self.fits(meta.len())?;
        let executable = meta.permissions().mode() & 0o111 != 0;
        let mode = if executable { 0o755 } else { 0o644 };
        self.header(EntryType::Regular, &member.path, &[], mode, meta.len())?;
        let mut buffer = vec![0; 1 << 16];
        let mut done = 0;
        loop {
            let n = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(read_error(&member.real)(e)),
            };
            done += n as u64;
            if done > meta.len() {
                return Err(changed());
            }
            self.write(&buffer[..n])?;
        }
        if done != meta.len() {
            return Err(changed());
        }
        self.pad(done)
    }

    /// Writes a header whose every byte follows from the arguments.
    fn header(
        &mut self,
        kind: EntryType,
        path: &[u8],
        target: &[u8],
        mode: u32,
        size: u64,
    ) -> Result<(), PackError> {
        for (kind, name) in [
            (EntryType::GNULongName, path),
            (EntryType::GNULongLink, target),
        ] {
            if name.len() > NAME_BYTES {
                let bytes = plain(kind, b"././@LongLink", &[], 0o644, name.len() as u64 + 1);
                self.write(bytes.as_bytes())?;
                self.write(name)?;
                self.write(&[0])?;
                self.pad(name.len() as u64 + 1)?;
            }
        }
        self.write(plain(kind, path, target, mode, size).as_bytes())
    }
}

fn plain(kind: EntryType, path: &[u8], target: &[u8], mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    let gnu = header.as_old_mut();
    for (slot, text) in [(&mut gnu.name, path), (&mut gnu.linkname, target)] {
        let fits = text.len().min(NAME_BYTES);
        slot[..fits].copy_from_slice(&text[..fits]);
    }
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}
