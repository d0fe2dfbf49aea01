//! Where the value of a secret comes from: a prompt that shows nothing, standard input, a file, or chance. Never from an
//! argument, and no error says a byte of it.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use plumb_model::{Hash, Secret, SecretName};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use crate::args::secret::ValueFrom;
use crate::error::CliError;

/// One byte more than the longest value, which the control plane refuses with a better message.
const MAX: u64 = 64 * 1024 + 2;

/// Reads a value.
pub fn read(name: &SecretName, from: &ValueFrom) -> Result<Secret, CliError> {
    if from.generate {
        return generate();
    }
    let stdin = || text(name, "standard input", io::stdin().lock());
    match from.file.as_deref() {
        Some(path) if path == Path::new("-") => stdin(),
        Some(path) => {
            // A pipe is as good as a file here: `--file <(pass show key)`.
            let file = File::open(path).map_err(CliError::file("open", path))?;
            text(name, &path.display().to_string(), file)
        }
        None if io::stdin().is_terminal() => prompt(name),
        // What a program or `echo` writes ends with a line feed that is no part of the value.
        None => stdin().map(|value| {
            let text = value.expose();
            let text = text.strip_suffix('\n').unwrap_or(text);
            Secret::new(text.strip_suffix('\r').unwrap_or(text).to_owned())
        }),
    }
}

fn generate() -> Result<Secret, CliError> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(CliError::file("read", "/dev/urandom"))?;
    // The text form of a hash is that of any 32 bytes.
    Ok(Secret::new(Hash(bytes).to_string()))
}

fn text(name: &SecretName, from: &str, reader: impl Read) -> Result<Secret, CliError> {
    let mut bytes = Vec::new();
    reader
        .take(MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::Other(format!("cannot read {from}: {error}")))?;
    // The bytes that the error would hold go no further.
    String::from_utf8(bytes).map(Secret::new).map_err(|_| {
        CliError::Other(format!(
            "the value of the secret {name} in {from} is not UTF-8 text; encode it, for example with base64"
        ))
    })
}

/// A terminal that shows nothing of what is typed, and is put back when this is dropped.
struct Quiet {
    stdin: io::Stdin,
    before: Termios,
}

impl Quiet {
    fn new() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut quiet = before.clone();
        // Key by key: a whole line would end at 4,095 bytes, and a signal would leave the terminal silent.
        quiet
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&stdin, OptionalActions::Flush, &quiet)?;
        Ok(Self { stdin, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.stdin, OptionalActions::Flush, &self.before);
    }
}

fn prompt(name: &SecretName) -> Result<Secret, CliError> {
    let failed = |error: io::Error| CliError::Other(format!("cannot ask on the terminal: {error}"));
    let quiet = Quiet::new().map_err(failed)?;
    let say = |text: &str| {
        let mut err = io::stderr();
        err.write_all(text.as_bytes()).and_then(|()| err.flush())
    };
    say(&format!("Value of {name} (it is not shown): ")).map_err(failed)?;
    let typed = line(io::stdin().lock()).map_err(failed)?;
    drop(quiet);
    say("\n").map_err(failed)?;
    let bytes =
        typed.ok_or_else(|| CliError::Other("nothing was set: the prompt was left".to_owned()))?;
    text(name, "what was typed", bytes.as_slice())
}

/// What is typed up to Enter; none if it is broken off. Knows the keys that take something back.
fn line(mut keys: impl Read) -> io::Result<Option<Vec<u8>>> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const BACKSPACE: u8 = 8;
    const KILL: u8 = 21;
    const DELETE: u8 = 127;
    let mut typed: Vec<u8> = Vec::new();
    let mut key = [0];
    loop {
        if keys.read(&mut key)? == 0 {
            return Ok(None);
        }
        match key[0] {
            b'\r' | b'\n' => return Ok(Some(typed)),
            INTERRUPT => return Ok(None),
            END if typed.is_empty() => return Ok(None),
            END => return Ok(Some(typed)),
            KILL => typed.clear(),
            BACKSPACE | DELETE => {
                // A whole character of UTF-8.
                while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            other => typed.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_ends_at_enter_and_can_be_taken_back() {
        for (keys, typed) in [
            ("abc\r", Some("abc")),
            ("ab\u{7f}c\nmore", Some("ac")),
            ("aé\u{8}b\r", Some("ab")),
            ("wrong\u{15}right\r", Some("right")),
            ("abc\u{3}", None),
            ("\u{4}", None),
            ("abc\u{4}", Some("abc")),
            ("abc", None),
        ] {
            let found = line(keys.as_bytes()).unwrap();
            assert_eq!(found.as_deref(), typed.map(str::as_bytes), "{keys:?}");
        }
    }

    #[test]
    fn what_is_made_is_long_and_another_one_each_time_and_what_is_no_text_is_refused_unseen() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert_eq!(one.expose().len(), 64);
        assert_ne!(one, two);
        let name = SecretName::new("KEY").unwrap();
        let error = text(&name, "here", &b"canary\xff"[..]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
}
