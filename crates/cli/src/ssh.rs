//! Running commands on another machine with the `ssh` command.
//!
//! Host keys, agents, passwords and jump hosts are ssh's own business, by the user's configuration. Nothing that came from
//! an address reaches a shell here or there unchecked: an address is parsed against a narrow grammar, and what is run there
//! is written by the callers. One connection serves all commands, so that a password is asked for once.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::error::CliError;

/// How long ssh may take to connect, in seconds.
const CONNECT_SECONDS: u32 = 15;

/// `ssh://USER@HOST[:PORT]`, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Who logs in.
    pub user: String,
    /// Where.
    pub host: String,
    /// At which port; none leaves it to ssh.
    pub port: Option<u16>,
}

impl Address {
    /// Parses one.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn parse(text: &str) -> Result<Self, CliError> {
        let bad = || {
            CliError::Other(format!(
                "{:?} is no address for ssh: write ssh://USER@HOST or ssh://USER@HOST:PORT",
                plumb_model::escape::line(text)
            ))
        };
        let rest = text.strip_prefix("ssh://").ok_or_else(bad)?;
        let (user, rest) = rest.split_once('@').ok_or_else(bad)?;
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(bad)?;
                match after {
                    "" => (host, None),
                    after => (host, Some(after.strip_prefix(':').ok_or_else(bad)?)),
                }
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = port
            .map(|port| {
                port.parse::<u16>()
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or_else(bad)
            })
            .transpose()?;
        let plain = |text: &str, more: &[u8]| {
            !text.is_empty()
                && text.len() <= 255
                && !text.starts_with(['-', '.'])
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
        };
        if !plain(user, b"._-") || !plain(host, b".-:") {
            return Err(bad());
        }
        Ok(Self {
            user: user.to_owned(),
            host: host.to_owned(),
            port,
        })
    }
}

/// A way to another machine.
pub struct Ssh {
    address: Address,
    identity: Option<PathBuf>,
    options: Vec<String>,
    /// Holds the socket of the shared connection.
    folder: tempfile::TempDir,
}

impl Ssh {
    /// Prepares one; nothing is dialled yet.
    ///
    /// # Errors
    /// When there is no place for the socket of the connection.
    pub fn new(
        address: Address,
        identity: Option<PathBuf>,
        options: Vec<String>,
    ) -> Result<Self, CliError> {
        // The path of a socket is short: not in TMPDIR, which may be deep.
        let folder = tempfile::Builder::new()
            .prefix("plumb-ssh-")
            .tempdir_in("/tmp")
            .map_err(CliError::file("make a folder in", "/tmp"))?;
        Ok(Self {
            address,
            identity,
            options,
            folder,
        })
    }

    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut option = |text: String| arguments.extend(["-o".into(), text.into()]);
        option(format!("ConnectTimeout={CONNECT_SECONDS}"));
        option("ControlMaster=auto".to_owned());
        option("ControlPersist=60".to_owned());
        option(format!("ControlPath={}/s", self.folder.path().display()));
        for own in &self.options {
            option(own.clone());
        }
        if let Some(identity) = &self.identity {
            arguments.extend(["-i".into(), identity.into()]);
        }
        if let Some(port) = self.address.port {
            arguments.extend(["-p".into(), port.to_string().into()]);
        }
        arguments.extend(["-l".into(), self.address.user.clone().into()]);
        arguments.push("--".into());
        arguments.push(self.address.host.clone().into());
        arguments
    }

    fn start(&self, command: &str, input: Stdio) -> Result<std::process::Child, CliError> {
        Command::new("ssh")
            .args(self.arguments())
            .arg(command)
            .env_remove("PLUMB_JOIN_TOKEN")
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => CliError::Other(
                    "the command ssh is missing here; install it (apt-get install openssh-client)"
                        .to_owned(),
                ),
                _ => CliError::file("run", "ssh")(source),
            })
    }

    fn done(&self, what: &str, output: Output) -> Result<String, CliError> {
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        // The last line says it; those before are banners and warnings.
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        Err(CliError::Other(format!(
            "{what} on {} failed: {}",
            self.address.host,
            plumb_model::escape::line(last.unwrap_or("ssh gave no reason"))
        )))
    }

    /// Runs a command there, with this for its standard input. What it printed.
    ///
    /// # Errors
    /// When it fails: `what` was tried, and the last line of what was said.
    pub fn run(&self, what: &str, command: &str, input: &[u8]) -> Result<String, CliError> {
        let mut child = self.start(command, Stdio::piped())?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that ends before it has read all says why itself.
            let _ = stdin.write_all(input);
        }
        let output = child
            .wait_with_output()
            .map_err(CliError::file("run", "ssh"))?;
        self.done(what, output)
    }

    /// Runs a command there that reads this file.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn send(&self, what: &str, command: &str, file: &Path) -> Result<String, CliError> {
        let input = File::open(file).map_err(CliError::file("read", file))?;
        let output = self
            .start(command, Stdio::from(input))?
            .wait_with_output()
            .map_err(CliError::file("run", "ssh"))?;
        self.done(what, output)
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        // Ends the shared connection; without one there is nothing to end.
        let _ = Command::new("ssh")
            .args(["-O", "exit"])
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_user_host_and_port_and_nothing_that_ssh_takes_for_an_option() {
        let check = |text: &str, user: &str, host: &str, port: Option<u16>| {
            let expected = Address {
                user: user.to_owned(),
                host: host.to_owned(),
                port,
            };
            assert_eq!(Address::parse(text).unwrap(), expected, "{text}");
        };
        check(
            "ssh://root@web-1.example.com",
            "root",
            "web-1.example.com",
            None,
        );
        check(
            "ssh://d_e.p-loy@203.0.113.7:2222",
            "d_e.p-loy",
            "203.0.113.7",
            Some(2222),
        );
        check(
            "ssh://root@[2001:db8::1]:22",
            "root",
            "2001:db8::1",
            Some(22),
        );
        check("ssh://root@[::1]", "root", "::1", None);
        for bad in [
            "",
            "root@host",
            "ssh://host",
            "ssh://@host",
            "ssh://root@",
            "ssh://-oProxyCommand=x@host",
            "ssh://root@-oProxyCommand=x",
            "ssh://root@host:0",
            "ssh://root@host:22x",
            "ssh://root@host:",
            "ssh://root@ho st",
            "ssh://root@host;id",
            "ssh://ro$(id)ot@host",
            "ssh://root@host/path",
            "ssh://root:password@host",
            "ssh://root@[::1",
            "ssh://root@host\n",
        ] {
            let error = Address::parse(bad).unwrap_err().to_string();
            assert!(
                error.contains("write ssh://USER@HOST") && !error.contains('\n'),
                "{bad}: {error}"
            );
        }
    }
}
