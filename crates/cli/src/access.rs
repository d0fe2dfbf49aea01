//! Talking to a control plane about access: one method for each call of the service `Access`.

use plumb_model::Secret;
use plumb_wire::client::{self, AccessClient};
use plumb_wire::v1;

use crate::context::Context;
use crate::dial::Dialled;
use crate::error::CliError;

/// How many entries are asked for at once.
const PAGE: u32 = 500;

/// A connection with a token.
pub type Access = Dialled<AccessClient>;

impl Access {
    /// Connects, and proves that it is the right control plane.
    pub async fn connect(context: &Context) -> Result<Self, CliError> {
        Self::to(context, client::access_with).await
    }

    /// All tokens of the workspace, by id.
    pub async fn tokens(&mut self) -> Result<Vec<v1::Token>, CliError> {
        let (mut tokens, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListTokensRequest {
                page_size: PAGE,
                page_token,
            };
            let answer = self.client.list_tokens(request).await;
            let answer = answer.map_err(self.failed())?.into_inner();
            tokens.extend(answer.tokens);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return Ok(tokens);
            }
        }
    }

    /// Takes a token back.
    pub async fn revoke(&mut self, id: &str) -> Result<(), CliError> {
        let request = v1::RevokeTokenRequest { id: id.to_owned() };
        let answer = self.client.revoke_token(request).await;
        answer.map_err(self.failed()).map(|_| ())
    }

    /// The workspaces that the token may go into, by name.
    pub async fn workspaces(&mut self) -> Result<Vec<v1::Workspace>, CliError> {
        let (mut workspaces, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListWorkspacesRequest {
                page_size: PAGE,
                page_token,
            };
            let answer = self.client.list_workspaces(request).await;
            let answer = answer.map_err(self.failed())?.into_inner();
            workspaces.extend(answer.workspaces);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return Ok(workspaces);
            }
        }
    }

    /// Makes a workspace.
    pub async fn create_workspace(&mut self, name: &str) -> Result<(), CliError> {
        let request = v1::CreateWorkspaceRequest {
            name: name.to_owned(),
        };
        let answer = self.client.create_workspace(request).await;
        answer.map_err(self.failed()).map(|_| ())
    }

    /// What was done, newest first, at most `limit` entries.
    pub async fn audit(
        &mut self,
        since: &str,
        owner: &str,
        limit: usize,
    ) -> Result<Vec<v1::AuditEntry>, CliError> {
        let (mut entries, mut page_token) = (Vec::new(), String::new());
        loop {
            let left = limit - entries.len();
            let request = v1::ListAuditRequest {
                page_size: u32::try_from(left).unwrap_or(PAGE).clamp(1, PAGE),
                page_token,
                since: since.to_owned(),
                owner: owner.to_owned(),
            };
            let answer = self.client.list_audit(request).await;
            let answer = answer.map_err(self.failed())?.into_inner();
            entries.extend(answer.entries);
            entries.truncate(limit);
            page_token = answer.next_page_token;
            if page_token.is_empty() || entries.len() == limit {
                return Ok(entries);
            }
        }
    }

    /// Whether the audit log is whole.
    pub async fn verify(&mut self) -> Result<v1::VerifyAuditResponse, CliError> {
        let answer = self.client.verify_audit(v1::VerifyAuditRequest {}).await;
        Ok(answer.map_err(self.failed())?.into_inner())
    }
}

/// A secret that somebody types, or that stands in the first line of standard input.
pub fn read_secret(what: &str, stdin: bool) -> Result<Secret, CliError> {
    use std::io::{BufRead as _, IsTerminal as _, Read as _};
    let input = std::io::stdin();
    if !stdin {
        if !input.is_terminal() {
            return Err(CliError::Other(format!(
                "nobody is there to ask for the {what}; hand it over on standard input with --token-stdin"
            )));
        }
        eprint!("{what}: ");
    }
    let quiet = if stdin { None } else { Some(Quiet::begin()?) };
    let mut line = String::new();
    // Far longer than any token, and bounded.
    let read = input.lock().take(4096).read_line(&mut line);
    drop(quiet);
    read.map_err(CliError::file("read", "standard input"))?;
    let text = line.trim().to_owned();
    if text.is_empty() {
        return Err(CliError::Other(format!("no {what} was given")));
    }
    Ok(Secret::new(text))
}

/// Keeps a terminal from showing what is typed, until it is dropped.
struct Quiet(rustix::termios::Termios);

impl Quiet {
    fn begin() -> Result<Self, CliError> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let failed = |e: rustix::io::Errno| {
            CliError::Other(format!(
                "cannot hide what is typed here ({e}); use --token-stdin"
            ))
        };
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(
            std::io::stdin(),
            rustix::termios::OptionalActions::Flush,
            &self.0,
        );
        eprintln!();
    }
}
