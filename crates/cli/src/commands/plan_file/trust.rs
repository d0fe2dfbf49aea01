//! Whose signature counts: that of the control plane in the context, or of the key that was given.

use std::path::Path;

use plumb_model::escape;
use plumb_wire::plan_file::{KeyId, PlanFile, PlanKey};

use crate::context::Context;
use crate::error::CliError;

/// How large a file with a key may be, in bytes: many times what it is.
const MAX_KEY_FILE: u64 = 4096;

/// A key that somebody trusts, whole or by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Whole(PlanKey),
    Id(KeyId),
}

impl Key {
    /// Reads what `--key` was given: a key's text, its id, or a file that holds one of them.
    fn given(text: &str) -> Result<Self, CliError> {
        if let Some(key) = Self::named(text) {
            return Ok(key);
        }
        let path = Path::new(text);
        let size = path.metadata().map_err(|source| {
            let doing = "open, as a file with a key (a key's text or id would do as well),";
            CliError::file(doing, path)(source)
        })?;
        let neither = || {
            CliError::Other(format!(
                "{} holds no key: expected the line that `plumb plan key` prints",
                path.display()
            ))
        };
        if !size.is_file() || size.len() > MAX_KEY_FILE {
            return Err(neither());
        }
        let text = std::fs::read_to_string(path).map_err(CliError::file("read", path))?;
        Self::named(text.trim()).ok_or_else(neither)
    }

    fn named(text: &str) -> Option<Self> {
        let whole = text.parse().map(Self::Whole);
        whole.or_else(|_| text.parse().map(Self::Id)).ok()
    }

    fn is(&self, key: &PlanKey) -> bool {
        match self {
            Self::Whole(trusted) => trusted == key,
            Self::Id(trusted) => *trusted == key.id(),
        }
    }
}

/// The key in a context.
pub(super) fn key_of(context: &Context) -> Result<PlanKey, CliError> {
    context.plan_key.ok_or_else(|| {
        CliError::Other("the context names no key of plan files: it was written by an older plumb; start `plumb server` or `plumb dev` again, which write it anew".to_owned())
    })
}

/// A key to hold a signature against, and where it comes from.
pub(super) struct Trusted {
    key: Key,
    workspace: Option<String>,
}

impl Trusted {
    /// The key that was given, or else the one of the context.
    pub fn find(
        given: Option<&str>,
        context: impl FnOnce() -> Result<Context, CliError>,
    ) -> Result<Self, CliError> {
        if let Some(given) = given {
            let key = Key::given(given)?;
            return Ok(Self {
                key,
                workspace: None,
            });
        }
        let context = context().map_err(|error| match error {
            CliError::NoContext => CliError::Other("nothing says whose signature counts: give a key with --key, or choose a control plane with --context".to_owned()),
            other => other,
        })?;
        Ok(Self {
            key: Key::Whole(key_of(&context)?),
            workspace: Some(context.workspace.to_string()),
        })
    }

    /// Says how a key comes to be trusted.
    pub fn words(&self) -> String {
        match &self.workspace {
            Some(workspace) => {
                format!("which is that of the control plane of workspace {workspace}")
            }
            None => "which is the one that was given".to_owned(),
        }
    }

    /// Refuses a file that this key has not signed.
    pub fn check(&self, file: &PlanFile, path: &Path) -> Result<(), CliError> {
        let key = &file.signature.key;
        if self.key.is(key) {
            return Ok(());
        }
        let expected = match &self.workspace {
            Some(workspace) => format!("that of the control plane of workspace {workspace}"),
            None => "the one that was given".to_owned(),
        };
        Err(CliError::Other(format!(
            "{} is signed with the key {}, which is not {expected}; find out whose it is before you trust it with --key",
            path.display(),
            key.id()
        )))
    }
}

/// The signature of a file, as it stands to what is known here.
pub(super) enum Standing {
    /// It is the context's.
    Ours(PlanKey, String),
    /// It is another than the context's.
    Other(PlanKey, String),
    /// There is nothing to hold it against.
    Unknown(PlanKey),
}

impl Standing {
    pub fn of(file: &PlanFile, context: Option<&Context>) -> Self {
        let key = file.signature.key;
        let known = context.and_then(|c| Some((c.plan_key?, c.workspace.to_string())));
        match known {
            Some((known, workspace)) if known == key => Self::Ours(key, workspace),
            Some((_, workspace)) => Self::Other(key, workspace),
            None => Self::Unknown(key),
        }
    }

    pub fn words(&self) -> String {
        match self {
            Self::Ours(key, workspace) => format!(
                "Signed with the key {}, which is that of the control plane of workspace {}.",
                key.id(),
                escape::line(workspace)
            ),
            Self::Other(key, workspace) => format!(
                "Signed with the key {}, which is NOT that of the control plane of workspace {}; `plumb plan verify --key` holds it against another.",
                key.id(),
                escape::line(workspace)
            ),
            Self::Unknown(key) => format!(
                "Whole, and signed with the key {}; whose that is was not checked: `plumb plan verify --key` does.",
                key.id()
            ),
        }
    }
}

/// Who has signed a plan that is to be applied.
pub(super) enum Signer {
    /// The control plane that it is given to.
    Own,
    /// Another, for whom the caller vouches.
    Vouched,
}

/// Finds out whether a file may be given to a control plane that signs with `own`.
pub(super) fn signer(
    file: &PlanFile,
    path: &Path,
    own: &PlanKey,
    given: Option<&str>,
    address: &str,
) -> Result<Signer, CliError> {
    let key = &file.signature.key;
    if let Some(given) = given {
        // A key that was given is meant: also where the file is this control plane's own.
        let key = Key::given(given)?;
        let workspace = None;
        Trusted { key, workspace }.check(file, path)?;
    }
    if key == own {
        Ok(Signer::Own)
    } else if given.is_some() {
        Ok(Signer::Vouched)
    } else {
        Err(CliError::Other(format!(
            "{} was signed with the key {id}, and the control plane at {address} signs with {}; find out whose it is, and go on with --key {id}: the plan is then made again there, and applied only if it comes out the same",
            path.display(),
            own.id(),
            id = key.id()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_given_as_text_id_or_file_and_nothing_else_passes_for_one() {
        let key = PlanKey([7; 32]);
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("server.key");
        let file = path.display().to_string();
        std::fs::write(&path, format!("{key}\n")).unwrap();
        for given in [key.to_string(), file.clone()] {
            assert_eq!(Key::given(&given).unwrap(), Key::Whole(key));
        }
        std::fs::write(&path, format!("{}\n", key.id())).unwrap();
        for given in [key.id().to_string(), file.clone()] {
            let given = Key::given(&given).unwrap();
            assert_eq!(given, Key::Id(key.id()));
            assert!(given.is(&key) && !given.is(&PlanKey([8; 32])));
        }
        std::fs::write(&path, "-----BEGIN PUBLIC KEY-----").unwrap();
        let folder = temp.path().display().to_string();
        for (bad, expected) in [
            (file.as_str(), "holds no key"),
            (folder.as_str(), "holds no key"),
            ("/dev/zero", "holds no key"),
            ("abc", "cannot open, as a file with a key"),
            ("", "cannot open, as a file with a key"),
        ] {
            let error = Key::given(bad).unwrap_err().to_string();
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }
}
