//! Contexts: files that say how a control plane is reached. They hold a token, so their mode is 0600.
//!
//! A control plane writes its own context, and never over another's: that may hold the only copy of a token.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plumb_model::{Secret, WorkspaceName};
use plumb_wire::plan_file::PlanKey;
use serde::{Deserialize, Serialize};

use crate::error::CliError;

/// A context has an address, a certificate and two keys: some 2 KiB.
const MAX_BYTES: u64 = 64 * 1024;

/// How often the control plane is asked whether its CA is being replaced: a rotation waits for those who do not know.
const LEARN_EVERY: Duration = Duration::from_secs(600);

/// How long a control plane on this machine may take to be connected to.
const PROBE: Duration = Duration::from_millis(500);

/// How a control plane is reached.
#[derive(Debug, Clone)]
pub struct Context {
    /// `HOST:PORT`.
    pub address: String,
    /// Its CA.
    pub ca_pem: String,
    /// The token.
    pub token: Secret,
    /// Its workspace.
    pub workspace: WorkspaceName,
    /// The key that signs its plan files; none in a file of a version that signed nothing.
    pub plan_key: Option<PlanKey>,
    /// The file that it was read from.
    pub origin: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    address: String,
    workspace: WorkspaceName,
    ca_pem: String,
    token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan_key: Option<PlanKey>,
}

/// Where a context was written.
#[derive(Debug)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// What `--context` takes, where the context is not the current one.
    chosen_by: Option<String>,
    /// The name of the current context, if it is another that was kept.
    kept: Option<String>,
}

impl Written {
    /// How the control plane is reached from another terminal, if not by saying nothing.
    pub fn remark(&self) -> Option<String> {
        let chosen_by = plumb_model::escape::line(self.chosen_by.as_deref()?);
        let kept = match self.kept.as_deref().map(plumb_model::escape::line) {
            Some(kept) => format!("The current context stays {kept}. "),
            None => String::new(),
        };
        Some(format!(
            "{kept}From another terminal, choose this control plane with --context {chosen_by}"
        ))
    }
}

/// The folder of an XDG base directory, with its fallback beneath HOME.
pub fn base(
    variable: &str,
    fallback: &str,
    what: &'static str,
    flag: &'static str,
) -> Result<PathBuf, CliError> {
    let absolute = |v: std::ffi::OsString| Some(PathBuf::from(v)).filter(|p| p.is_absolute());
    if let Some(folder) = std::env::var_os(variable).and_then(absolute) {
        return Ok(folder.join("plumb"));
    }
    let home = std::env::var_os("HOME")
        .and_then(absolute)
        .ok_or(CliError::NoHome(what, flag))?;
    Ok(home.join(fallback).join("plumb"))
}

fn folder() -> Result<PathBuf, CliError> {
    Ok(base("XDG_CONFIG_HOME", ".config", "context files", "--context")?.join("contexts"))
}

impl Context {
    /// Finds the chosen context, or the current one.
    pub fn find(chosen: Option<&str>) -> Result<Self, CliError> {
        let Some(name) = chosen.filter(|c| !c.is_empty()) else {
            let path = folder()?.join("current");
            return match fs::read_to_string(&path) {
                Ok(name) => Self::read(&folder()?.join(format!("{}.json", name.trim()))),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(CliError::NoContext),
                Err(e) => Err(CliError::file("read", path)(e)),
            };
        };
        if is_path(name) {
            return Self::read(Path::new(name));
        }
        let folder = folder()?;
        let path = folder.join(format!("{name}.json"));
        if !path.exists() {
            let known = listed(&names(&folder));
            return Err(CliError::UnknownContext {
                name: name.to_owned(),
                path,
                known,
            });
        }
        Self::read(&path)
    }

    fn read(path: &Path) -> Result<Self, CliError> {
        let bytes = bounded(path).map_err(|e| CliError::BadContext {
            path: path.to_owned(),
            why: e.to_string(),
        })?;
        // The message of a JSON error names line and column, and never the text, which may hold the token.
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|e| CliError::BadContext {
            path: path.to_owned(),
            why: format!("line {}, column {}", e.line(), e.column()),
        })?;
        Ok(Self {
            address: stored.address,
            ca_pem: stored.ca_pem,
            token: Secret::new(stored.token),
            workspace: stored.workspace,
            plan_key: stored.plan_key,
            origin: Some(path.to_owned()),
        })
    }

    /// Whether it was long enough ago that the control plane was asked for its CAs.
    pub fn wants_to_learn(&self) -> bool {
        let asked = self
            .origin
            .as_ref()
            .map(|path| fs::metadata(path)?.modified());
        asked.is_some_and(|asked| {
            asked.is_ok_and(|at| at.elapsed().is_ok_and(|ago| ago >= LEARN_EVERY))
        })
    }

    /// Takes the CAs that the control plane says are to be trusted into the file that this was read from. Everything else in
    /// it stays.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn learn(&mut self, cas: &[plumb_wire::v1::Ca]) -> Result<(), CliError> {
        let Some(path) = self.origin.clone().filter(|_| !cas.is_empty()) else {
            return Ok(());
        };
        let ca_pem: String = cas
            .iter()
            .map(|ca| plumb_wire::pin::to_pem(&ca.certificate_der))
            .collect();
        if ca_pem == self.ca_pem {
            // Not again for a while.
            let touched = fs::File::options().append(true).open(&path);
            let _ = touched.and_then(|file| file.set_modified(std::time::SystemTime::now()));
            return Ok(());
        }
        let bad = |why: String| CliError::BadContext {
            path: path.clone(),
            why,
        };
        let bytes = bounded(&path).map_err(|e| bad(e.to_string()))?;
        let mut stored: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|e| bad(format!("line {}, column {}", e.line(), e.column())))?;
        stored["ca_pem"] = ca_pem.clone().into();
        let bytes = serde_json::to_vec_pretty(&stored).expect("a context is always JSON");
        private_write(&fs::canonicalize(&path).unwrap_or(path), &bytes)?;
        self.ca_pem = ca_pem;
        Ok(())
    }

    /// Writes the context, and makes it the current one unless that is of another control plane. `chosen` is the name or
    /// path that was asked for; a path is never the current one.
    ///
    /// # Errors
    /// If what is there is another control plane's context, or no context at all.
    pub fn write(&self, chosen: Option<&str>) -> Result<Written, CliError> {
        let chosen = chosen.filter(|chosen| !chosen.is_empty());
        match chosen.filter(|chosen| is_path(chosen)) {
            Some(path) => self.write_to(Path::new(path), true),
            None => self.write_in(&folder()?, chosen),
        }
    }

    /// Writes the context of a login, and makes it the current one. What is there under the name is taken over only from
    /// the same control plane.
    ///
    /// # Errors
    /// As of [`Context::write`].
    pub fn log_in(&self, name: &str) -> Result<PathBuf, CliError> {
        let folder = folder()?;
        let path = folder.join(format!("{name}.json"));
        self.write_to(&path, true)?;
        private_write(&folder.join("current"), name.as_bytes())?;
        Ok(path)
    }

    /// Gives the other contexts of this control plane, those of its further workspaces, the token of this one in place of
    /// the one of the start before: both are named alike. Those that hold another token stay.
    pub fn renew_others(&self) {
        let Ok(folder) = folder() else { return };
        let id = |context: &Self| {
            let token: Option<plumb_wire::token::ApiToken> = context.token.expose().parse().ok();
            token.map(|token| token.id)
        };
        for name in names(&folder) {
            let path = folder.join(format!("{name}.json"));
            let Ok(there) = Self::read(&path) else {
                continue;
            };
            if !self.is_same(&there) || id(&there) != id(self) || there.workspace == self.workspace
            {
                continue;
            }
            let renewed = Self {
                workspace: there.workspace.clone(),
                ..self.clone()
            };
            if let Err(error) = renewed.write_to(&path, true) {
                tracing::warn!("the context {name} keeps a token that is good no more: {error}");
            }
        }
    }

    /// Writes it under a name beside the others, without making it the current one.
    ///
    /// # Errors
    /// As of [`Context::write`].
    pub fn write_beside(&self, name: &str) -> Result<PathBuf, CliError> {
        let path = folder()?.join(format!("{name}.json"));
        self.write_to(&path, true)?;
        Ok(path)
    }

    /// Makes a context the current one.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn make_current(name: &str) -> Result<(), CliError> {
        Self::find(Some(name))?;
        private_write(&folder()?.join("current"), name.as_bytes())
    }

    /// Removes a context, or the current one: the name of what was removed.
    ///
    /// # Errors
    /// If there is none.
    pub fn forget(chosen: Option<&str>) -> Result<String, CliError> {
        let folder = folder()?;
        let (known, current) = Self::known()?;
        let name = match (chosen.filter(|chosen| !chosen.is_empty()), current) {
            (Some(name), _) => name.to_owned(),
            (None, Some(current)) => current,
            (None, None) => return Err(CliError::NoContext),
        };
        let path = folder.join(format!("{name}.json"));
        if !known.contains(&name) {
            return Err(CliError::UnknownContext {
                name,
                path,
                known: listed(&known),
            });
        }
        fs::remove_file(&path).map_err(CliError::file("remove", &path))?;
        let current = folder.join("current");
        if fs::read_to_string(&current).is_ok_and(|text| text.trim() == name) {
            fs::remove_file(&current).map_err(CliError::file("remove", &current))?;
        }
        Ok(name)
    }

    /// The names of all contexts, and which is the current one.
    ///
    /// # Errors
    /// If there is no place for them.
    pub fn known() -> Result<(Vec<String>, Option<String>), CliError> {
        let folder = folder()?;
        let current = fs::read_to_string(folder.join("current")).ok();
        let current = current.map(|name| name.trim().to_owned());
        Ok((names(&folder), current))
    }

    /// Writes it under a name into the folder of contexts.
    fn write_in(&self, folder: &Path, chosen: Option<&str>) -> Result<Written, CliError> {
        let name = chosen.unwrap_or(self.workspace.as_str());
        let path = folder.join(format!("{name}.json"));
        let mut written = self.write_to(&path, chosen.is_some())?;
        match self.other_current(folder) {
            Some(other) => {
                written.chosen_by = Some(name.to_owned());
                written.kept = Some(other);
            }
            None => {
                private_write(&folder.join("current"), name.as_bytes())?;
                written.chosen_by = None;
            }
        }
        Ok(written)
    }

    fn write_to(&self, path: &Path, chosen: bool) -> Result<Written, CliError> {
        self.check_place(path, chosen)?;
        let stored = Stored {
            format: 1,
            address: self.address.clone(),
            workspace: self.workspace.clone(),
            ca_pem: self.ca_pem.clone(),
            token: self.token.expose().to_owned(),
            plan_key: self.plan_key,
        };
        let bytes = serde_json::to_vec_pretty(&stored).expect("a context is always JSON");
        // What a link names is written, and not the link replaced.
        private_write(&fs::canonicalize(path).unwrap_or(path.to_owned()), &bytes)?;
        Ok(Written {
            path: path.to_owned(),
            chosen_by: Some(path.display().to_string()),
            kept: None,
        })
    }

    /// Refuses a place that holds anything but a context of this very control plane. Under its workspace's name, which
    /// nobody chose, what no longer is of any use gives way: a damaged file, or one of a control plane of this machine
    /// that has ended.
    fn check_place(&self, path: &Path, chosen: bool) -> Result<(), CliError> {
        match fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(CliError::file("look at", path)(e)),
            Ok(_) => {}
        }
        let why = match Self::read(path) {
            Ok(there) if self.is_same(&there) || (!chosen && self.outlived(&there)) => {
                return Ok(());
            }
            Ok(there) => format!(
                "it is the context of another control plane, at {}",
                there.address
            ),
            Err(_) if !chosen && path.is_file() => return Ok(()),
            Err(_) => "what is there is no context file".to_owned(),
        };
        Err(CliError::Other(format!(
            "the context of this control plane is not written to {}: {why}; choose another name with --context or PLUMB_CONTEXT, or move that file away",
            path.display()
        )))
    }

    /// The name of the current context, if that is of another control plane that may be in use.
    fn other_current(&self, folder: &Path) -> Option<String> {
        let name = String::from_utf8(bounded(&folder.join("current")).ok()?).ok()?;
        let name = name.trim();
        let there = Self::read(&folder.join(format!("{name}.json"))).ok()?;
        (!self.is_same(&there) && !self.outlived(&there)).then(|| name.to_owned())
    }

    /// Whether both are of one control plane: there is a CA that both know, while its address may change at every start.
    fn is_same(&self, other: &Self) -> bool {
        let cas = |pem: &str| -> Vec<String> {
            pem.split_inclusive("-----END CERTIFICATE-----")
                .map(|one| one.trim().to_owned())
                .filter(|one| !one.is_empty())
                .collect()
        };
        let theirs = cas(&other.ca_pem);
        cas(&self.ca_pem).iter().any(|ca| theirs.contains(ca))
    }

    /// Whether the other one is of a control plane of this machine that runs no more. Of another machine nobody knows.
    fn outlived(&self, other: &Self) -> bool {
        let Ok(address) = other.address.parse::<SocketAddr>() else {
            return false;
        };
        if !address.ip().is_loopback() {
            return false;
        }
        // This control plane listens there by now, so nobody else does.
        other.address == self.address
            || TcpStream::connect_timeout(&address, PROBE)
                .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// The names of the contexts in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| {
            let name = e.file_name().into_string().ok()?;
            name.strip_suffix(".json").map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

/// Whether what was chosen is a path, and not a name.
fn is_path(chosen: &str) -> bool {
    chosen.contains('/') || Path::new(chosen).extension().is_some()
}

/// All of a small regular file.
fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    crate::regular::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!(
            "it has more than {MAX_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

fn private_write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(CliError::file("make the folder", folder))?;
    }
    let beside_of = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let write = || {
        // Made with mode 0600.
        let mut beside = tempfile::NamedTempFile::new_in(beside_of)?;
        beside.write_all(bytes)?;
        beside.persist(path).map_err(|e| e.error)?;
        Ok(())
    };
    write().map_err(CliError::file("write the context file", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn context(ca: &str, address: &str) -> Context {
        Context {
            address: address.to_owned(),
            ca_pem: ca.to_owned(),
            token: Secret::new(format!("token of {ca}")),
            workspace: "shop".parse().unwrap(),
            plan_key: None,
            origin: None,
        }
    }

    /// The address of a control plane of this machine that has ended: nobody listens on port 1.
    fn ended() -> String {
        "127.0.0.1:1".to_owned()
    }

    fn current(folder: &Path) -> String {
        fs::read_to_string(folder.join("current")).unwrap()
    }

    #[test]
    fn a_chosen_place_is_written_only_if_it_is_free_or_its_own() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("here.json");
        let (ours, others) = (context("ours", &ended()), context("others", &ended()));
        ours.write_to(&path, true).unwrap();
        ours.write_to(&path, true).unwrap();
        let error = others.write_to(&path, true).unwrap_err().to_string();
        assert!(
            error.contains("here.json") && error.contains("another control plane"),
            "{error}"
        );
        assert_eq!(Context::read(&path).unwrap().ca_pem, "ours");
        for text in ["", "my thesis", "{}"] {
            let path = temp.path().join("thesis.txt");
            fs::write(&path, text).unwrap();
            let error = ours.write_to(&path, true).unwrap_err().to_string();
            assert!(error.contains("no context file"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert!(ours.write_to(Path::new("/dev/null"), true).is_err());
        let error = others
            .write_in(temp.path(), Some("here"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("another control plane"), "{error}");
    }

    #[test]
    fn the_name_of_the_workspace_is_taken_from_nobody_who_may_use_it() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("shop.json");
        let ours = context("ours", &ended());
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let runs = port.local_addr().unwrap().to_string();
        for (address, may) in [
            (ended(), true),
            (runs, false),
            ("192.0.2.1:7700".to_owned(), false),
        ] {
            let _ = fs::remove_file(&path);
            context("others", &address).write_to(&path, true).unwrap();
            assert_eq!(ours.write_in(temp.path(), None).is_ok(), may, "{address}");
        }
        fs::write(&path, "damaged").unwrap();
        ours.write_in(temp.path(), None).unwrap();
    }

    #[test]
    fn another_control_plane_stays_the_current_one_while_it_may_be_in_use() {
        let temp = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let runs = port.local_addr().unwrap().to_string();
        let ours = context("ours", &ended());
        for (address, stays) in [
            (ended(), false),
            (runs, true),
            ("192.0.2.1:7700".to_owned(), true),
        ] {
            let folder = temp.path().join(&address);
            let other = context("others", &address);
            let first = other.write_in(&folder, Some("other")).unwrap();
            assert_eq!(first.remark(), None, "no context was there");
            let remark = ours.write_in(&folder, None).unwrap().remark();
            assert_eq!(current(&folder), if stays { "other" } else { "shop" });
            let expected = "The current context stays other. From another terminal, choose this control plane with --context shop";
            assert_eq!(remark.as_deref(), stays.then_some(expected), "{address}");
            // Dangling.
            fs::remove_file(folder.join("other.json")).unwrap();
            assert_eq!(ours.write_in(&folder, None).unwrap().remark(), None);
            assert_eq!(current(&folder), "shop");
        }
    }

    /// Its data folder was replaced: what listens at the address of the old context is this very control plane.
    #[test]
    fn a_context_of_the_own_address_is_of_one_that_runs_no_more() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = port.local_addr().unwrap().to_string();
        let temp = tempfile::tempdir().unwrap();
        context("others", &address)
            .write_in(temp.path(), None)
            .unwrap();
        let ours = context("ours", &address);
        assert!(ours.write_in(temp.path(), None).is_ok());
    }

    #[test]
    fn a_context_learns_the_cas_and_keeps_all_else() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("c.json");
        context("ours", &ended()).write_to(&path, true).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen('{', "{ \"newer\": [1],", 1)).unwrap();
        let mut read = Context::read(&path).unwrap();
        assert!(!read.wants_to_learn());
        let ca = |der: &[u8]| plumb_wire::v1::Ca {
            certificate_der: der.to_vec(),
            ..Default::default()
        };
        read.learn(&[ca(b"one"), ca(b"two")]).unwrap();
        let again = Context::read(&path).unwrap();
        assert_eq!(again.ca_pem.matches("BEGIN CERTIFICATE").count(), 2);
        assert_eq!(again.token.expose(), "token of ours");
        assert!(fs::read_to_string(&path).unwrap().contains("newer"));
        let old = std::time::SystemTime::now() - LEARN_EVERY;
        fs::File::options()
            .append(true)
            .open(&path)
            .unwrap()
            .set_modified(old)
            .unwrap();
        let mut again = Context::read(&path).unwrap();
        assert!(again.wants_to_learn());
        again.learn(&[ca(b"one"), ca(b"two")]).unwrap();
        assert!(!again.wants_to_learn(), "it was asked just now");
        // The newer of both is still the same control plane.
        let mut newer = again.clone();
        newer.ca_pem = plumb_wire::pin::to_pem(b"two");
        assert!(newer.is_same(&again));
        newer.ca_pem = plumb_wire::pin::to_pem(b"three");
        assert!(!newer.is_same(&again));
    }

    #[test]
    fn a_context_is_a_small_regular_file() {
        let temp = tempfile::tempdir().unwrap();
        let large = temp.path().join("large.json");
        fs::write(&large, " ".repeat(MAX_BYTES as usize + 1)).unwrap();
        for (path, why) in [
            (large.as_path(), "more than 65536 bytes"),
            (Path::new("/dev/zero"), "no regular file"),
        ] {
            let error = Context::read(path).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
