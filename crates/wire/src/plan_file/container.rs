//! The container of a plan file: an uncompressed tar of regular files, in exactly one form.
//!
//! A header is taken only if it is, byte for byte, the one that [`Writer`] makes for that name and size. So there is
//! one file for one content, `tar` can list it, and links, devices, times, owners, extensions and long names have no
//! way in. It knows nothing of plans.

use std::io::{self, Read, Write};

/// The size of a header, and what contents are padded to.
const BLOCK: usize = 512;

/// The two empty blocks at the end.
const END: usize = 2 * BLOCK;

/// How much is read at a time, in bytes.
const CHUNK: usize = 64 * 1024;

/// Why the bytes are no such container.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// They cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// They end too early.
    #[error("it is cut off within {0}")]
    CutOff(String),
    /// A member is not one that Plumb writes.
    #[error("its member {number} (`{name}`) {why}")]
    Member {
        /// Counted from 1.
        number: u64,
        /// As it calls itself, made safe to show.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something follows the end.
    #[error("something follows its end")]
    Trailing,
    /// It goes on past a bound.
    #[error("it holds more than {limit} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
}

/// Writes a container.
pub(super) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes one member.
    ///
    /// # Errors
    /// Where the bytes cannot be read or written, and with `InvalidData` if there are not exactly `size` of them.
    pub fn member(&mut self, name: &str, size: u64, content: impl Read) -> io::Result<()> {
        let header = header(name, size).ok_or(io::ErrorKind::InvalidInput)?;
        self.out.write_all(&header)?;
        let mut content = content.take(size + 1);
        if io::copy(&mut content, &mut self.out)? != size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the content changed while it was written",
            ));
        }
        self.out.write_all(&[0; BLOCK][..padding(size)])
    }

    /// Writes the end.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; END])?;
        Ok(self.out)
    }
}

/// One member, before its content is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub number: u64,
    pub name: String,
    pub size: u64,
}

impl Member {
    pub fn refused(&self, why: &'static str) -> ContainerError {
        ContainerError::Member {
            number: self.number,
            name: plumb_model::escape::line(&self.name).into_owned(),
            why,
        }
    }
}

/// Reads a container, member after member.
pub(super) struct Reader<R> {
    input: R,
    /// How many bytes were read.
    pub offset: u64,
    members: u64,
    limit: u64,
}

impl<R: Read> Reader<R> {
    /// Reads at most `limit` members.
    pub fn new(input: R, limit: u64) -> Self {
        Self {
            input,
            offset: 0,
            members: 0,
            limit,
        }
    }

    /// The next member; none at the end, after which nothing follows.
    pub fn next(&mut self) -> Result<Option<Member>, ContainerError> {
        let number = self.members + 1;
        let mut block = [0; BLOCK];
        self.exactly(&mut block, || format!("the header of member {number}"))?;
        if block == [0; BLOCK] {
            self.exactly(&mut block, || "its end".to_owned())?;
            let follows = self.input.read(&mut [0; 1])? > 0;
            return if block != [0; BLOCK] || follows {
                Err(ContainerError::Trailing)
            } else {
                Ok(None)
            };
        }
        self.members = number;
        if number > self.limit {
            return Err(ContainerError::TooMuch {
                what: "members",
                limit: self.limit,
            });
        }
        member(number, &block).map(Some)
    }

    /// Hands the content of a member on, piece by piece.
    pub fn content(
        &mut self,
        member: &Member,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), ContainerError> {
        let within = || format!("`{}`", plumb_model::escape::line(&member.name));
        let mut left = member.size;
        let mut chunk = [0; CHUNK];
        while left > 0 {
            let wanted = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            self.exactly(&mut chunk[..wanted], within)?;
            take(&chunk[..wanted]);
            left -= wanted as u64;
        }
        let padding = &mut chunk[..padding(member.size)];
        self.exactly(padding, within)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(member.refused("is followed by something else than padding"));
        }
        Ok(())
    }

    /// The content of a member that its caller has found small enough. It grows as bytes come, not as a header says.
    pub fn bytes(&mut self, member: &Member) -> Result<Vec<u8>, ContainerError> {
        let mut bytes = Vec::new();
        self.content(member, |piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }

    fn exactly(
        &mut self,
        bytes: &mut [u8],
        within: impl FnOnce() -> String,
    ) -> Result<(), ContainerError> {
        self.input.read_exact(bytes).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => ContainerError::CutOff(within()),
            _ => ContainerError::Read(e),
        })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

fn padding(size: u64) -> usize {
    // Less than a block, so it fits.
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

/// The one header for a name and a size; none where they do not fit into one.
fn header(name: &str, size: u64) -> Option<[u8; BLOCK]> {
    const MAX_SIZE: u64 = 0o77_777_777_777;
    if name.is_empty() || name.len() > 100 || size > MAX_SIZE {
        return None;
    }
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(block)
}

/// Reads a header, or says what is wrong with it.
fn member(number: u64, block: &[u8; BLOCK]) -> Result<Member, ContainerError> {
    let text = |at: usize, length: usize| {
        let field = &block[at..at + length];
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(length);
        String::from_utf8_lossy(&field[..end]).into_owned()
    };
    let name = text(0, 100);
    let refused = |why| ContainerError::Member {
        number,
        name: plumb_model::escape::line(&name).into_owned(),
        why,
    };
    match block[156] {
        b'0' => {}
        b'1' => return Err(refused("is a hard link")),
        b'2' => return Err(refused("is a symbolic link")),
        b'3' | b'4' | b'6' => return Err(refused("is a device or a pipe")),
        b'5' => return Err(refused("is a folder")),
        _ => return Err(refused("is no regular file")),
    }
    if name.starts_with('/') {
        return Err(refused("has an absolute path"));
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(refused("has a path that is not in its plain form"));
    }
    let size = u64::from_str_radix(&text(124, 12), 8)
        .ok()
        .filter(|size| header(&name, *size).as_ref() == Some(block))
        .ok_or_else(|| refused("has a header that plumb does not write: it was changed, damaged, or packed by another program"))?;
    Ok(Member { number, name, size })
}
