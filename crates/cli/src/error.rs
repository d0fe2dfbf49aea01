//! Why a command failed. Each shows as one line with the next step; causes are added by [`chain`].

use std::error::Error;
use std::path::PathBuf;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A file or folder cannot be used.
    #[error("cannot {doing} {path}", path = .path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no manifest.
    #[error("no blueprints at {path}: neither it nor a folder above holds a plumb.yaml; give the folder of a blueprint repository, or start one with a plumb.yaml that says `kind: Workspace` and `name: NAME`", path = .0.display())]
    NoManifest(PathBuf),
    /// Blueprints are wrong; they have been shown.
    #[error("{0}")]
    Invalid(String),
    /// No context.
    #[error(
        "no control plane is known here: log in to one with `plumb login`, start `plumb dev` or `plumb server`, or choose one with --context NAME|FILE"
    )]
    NoContext,
    /// A context that is not there.
    #[error("there is no context {name:?} ({path}); there are: {known}", path = .path.display())]
    UnknownContext {
        /// What was asked for.
        name: String,
        /// Where it would be.
        path: PathBuf,
        /// The names of those that exist.
        known: String,
    },
    /// A damaged context.
    #[error("the context file {path} cannot be read: {why}; start `plumb dev` or `plumb server` again, which write it anew, or choose another with --context", path = .path.display())]
    BadContext {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Neither HOME nor the XDG variables say where things go.
    #[error("HOME is not set, so there is no place for {0}; set HOME, or name the place with {1}")]
    NoHome(&'static str, &'static str),
    /// The control plane was not reached.
    #[error(transparent)]
    Connect(#[from] plumb_wire::client::ConnectError),
    /// The control plane refused, or the connection broke.
    #[error(transparent)]
    Call(#[from] plumb_wire::client::CallError),
    /// What came back cannot be read.
    #[error("the control plane's answer cannot be read ({0}); upgrade the older side")]
    Answer(String),
    /// A git commit cannot be read.
    #[error(transparent)]
    Tree(#[from] crate::git::TreeError),
    /// Nobody can be asked.
    #[error("nobody is there to ask: look at the plan above, and run the command again with --yes")]
    NeedsYes,
    /// The token cannot be one.
    #[error(
        "the token in the context cannot be used: {0}; start `plumb dev` or `plumb server` again, which write it anew"
    )]
    Token(#[from] plumb_wire::token::TokenError),
    /// The agent cannot start.
    #[error(transparent)]
    Agent(#[from] plumb_agent::AgentError),
    /// The control plane cannot start.
    #[error(transparent)]
    Server(#[from] plumb_control_plane::StartError),
    /// Anything else that has its own sentence.
    #[error("{0}")]
    Other(String),
}

impl CliError {
    /// Whether a plan was refused since it would be another by now.
    pub fn is_plan_changed(&self) -> bool {
        use plumb_wire::client::CallError;
        use plumb_wire::error::Reason;
        matches!(self, Self::Call(CallError::Refused(refusal)) if refusal.reason == Reason::PlanChanged)
    }

    /// A file error.
    pub fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            doing,
            path,
            source: without_place(source),
        }
    }
}

/// A system's error by itself: where a file is first written beside its place, `tempfile` adds a name that nobody knows.
fn without_place(error: std::io::Error) -> std::io::Error {
    let text = error.to_string();
    match text.split_once(" at path \"") {
        Some((plain, _)) if error.raw_os_error().is_none() => {
            std::io::Error::new(error.kind(), plain)
        }
        _ => error,
    }
}

/// An error with its causes, each once.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation: hand the error on as it is.
    #[test]
    fn a_file_beside_its_place_is_not_named() {
        let temp = tempfile::tempdir().unwrap();
        let missing = temp.path().join("missing");
        let error = tempfile::NamedTempFile::new_in(&missing).unwrap_err();
        assert!(error.to_string().contains(".tmp"), "{error}");
        let error = CliError::file("write", "x.plan")(error);
        assert_eq!(
            chain(&error),
            "cannot write x.plan: No such file or directory (os error 2)"
        );
    }
}
