//! Files that hold secrets: written beside and renamed, mode 0400, of the user that is to read them.
//!
//! Every folder on the way is the agent's own and nobody else can write to it, so no name in it can be swapped for a link
//! between a check and a write. Files are not synced: they are in memory, and a reboot takes them away as it should.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use plumb_model::condition::Reason;
use plumb_model::{Fault, Secret, SecretName};

use super::Secrets;
use super::runtime::is_in_memory;

/// Where one secret of one app is, and who reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The numbers of the user and group that it belongs to; none leaves it to the agent.
    pub owner: Option<(u32, u32)>,
}

impl Place {
    /// `RUNTIME/secrets/APP/NAME`; where a process runs as a user that its blueprint names, `APP/@USER/NAME`, so that two
    /// users of one secret do not take it from each other.
    ///
    /// # Errors
    /// When this machine has no tmpfs.
    pub fn of(
        secrets: &Secrets,
        app: &str,
        user: Option<&str>,
        name: &SecretName,
        owner: Option<(u32, u32)>,
    ) -> Result<Self, Fault> {
        let mut path = secrets.runtime()?.join("secrets").join(app);
        if let Some(user) = user {
            // A user's name has no slash in it, or the system knows no such user.
            path.push(format!("@{}", user.replace('/', "_")));
        }
        path.push(name.as_str());
        Ok(Self { path, owner })
    }
}

fn fault(error: &io::Error, doing: &str, path: &Path) -> Fault {
    crate::trouble::fault_of(error, doing, &path.display().to_string())
}

/// Writes a secret to its place, for exactly one user to read.
///
/// # Errors
/// When the folder is not on a tmpfs or not the agent's alone, or the file cannot be written.
pub fn write(secrets: &Secrets, place: &Place, value: &Secret) -> Result<(), Fault> {
    let Some(folder) = place.path.parent() else {
        return Err(Fault::new(Reason::BadPath, "a secret's file has no folder"));
    };
    make_folders(secrets.runtime()?, folder)?;
    let name = place.path.file_name().unwrap_or_default();
    // No name of a secret begins with a dot.
    let beside = folder.join(format!(".{}.new", name.to_string_lossy()));
    let fail = |error: io::Error| fault(&error, "write", &place.path);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(&beside)
        .map_err(fail)?;
    // The agent's umask may have taken more away.
    file.set_permissions(Permissions::from_mode(0o400))
        .map_err(fail)?;
    if let Some((uid, gid)) = place.owner {
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).map_err(fail)?;
    }
    file.write_all(value.expose().as_bytes()).map_err(fail)?;
    fs::rename(&beside, &place.path).map_err(fail)
}

/// Whether a place holds exactly this value, with the mode and owner that it should have. Without a value, whether a file
/// with that mode is there.
#[must_use]
pub fn holds(place: &Place, value: Option<&Secret>) -> bool {
    let Ok(found) = fs::symlink_metadata(&place.path) else {
        return false;
    };
    let owned = place
        .owner
        .is_none_or(|(uid, gid)| found.uid() == uid && found.gid() == gid);
    found.is_file()
        && found.mode() & 0o7777 == 0o400
        && owned
        && value.is_none_or(|value| {
            fs::read(&place.path).is_ok_and(|bytes| {
                zeroize::Zeroizing::new(bytes).as_slice() == value.expose().as_bytes()
            })
        })
}

/// Removes a file of a secret, and the app's folder with its last one.
///
/// # Errors
/// When it cannot be removed. One that is not there is fine.
pub fn remove(secrets: &Secrets, path: &Path) -> Result<(), Fault> {
    let root = secrets.runtime()?.join("secrets");
    // A note that somebody has changed leads nowhere else.
    if !path.starts_with(&root) || path.components().any(|part| part.as_os_str() == "..") {
        return Ok(());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(fault(&error, "remove", path));
        }
        _ => {}
    }
    let mut folder = path.parent();
    while let Some(empty) = folder.filter(|folder| *folder != root && folder.starts_with(&root)) {
        if fs::remove_dir(empty).is_err() {
            break;
        }
        folder = empty.parent();
    }
    Ok(())
}

/// Makes the folders from the tmpfs down to `folder`, which others may pass through and not list, and holds that each is
/// the agent's alone.
fn make_folders(runtime: &Path, folder: &Path) -> Result<(), Fault> {
    let mut base = runtime;
    while let Some(parent) = base
        .parent()
        .filter(|_| fs::symlink_metadata(base).is_err())
    {
        base = parent;
    }
    if !is_in_memory(base) {
        let message = format!(
            "{} is not on a tmpfs any more, and secrets are written to no disk: mount one there, and start the agent again",
            base.display()
        );
        return Err(Fault::new(Reason::LacksCapability, message));
    }
    // What is above is the system's: /run, /dev/shm, the user's runtime folder.
    let ours = |path: &Path| path.starts_with(runtime) || is_plumbs(path);
    let mut missing: Vec<&Path> = folder.ancestors().take_while(|path| ours(path)).collect();
    missing.reverse();
    let own = rustix::process::geteuid().as_raw();
    for path in missing {
        match DirBuilder::new().mode(0o711).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(fault(&error, "make", path));
            }
            _ => {}
        }
        let found = fs::symlink_metadata(path).map_err(|error| fault(&error, "look at", path))?;
        if !found.is_dir() || found.uid() != own || found.mode() & 0o022 != 0 {
            let message = format!(
                "{} is not a folder that only the agent's user can write to, and no secret is written there: remove it",
                path.display()
            );
            return Err(Fault::new(Reason::PermissionDenied, message));
        }
    }
    Ok(())
}

/// Whether a folder above the runtime folder is Plumb's too: `/run/plumb` of `/run/plumb/agents/X`.
fn is_plumbs(path: &Path) -> bool {
    let named = |path: &Path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name == "plumb" || name.starts_with("plumb-"))
    };
    let in_agents = path.file_name().is_some_and(|name| name == "agents");
    named(path) || (in_agents && path.parent().is_some_and(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &Path, name: &str) -> (Secrets, Place) {
        let secrets = Secrets::new(Some(folder.join("plumb")));
        let name = SecretName::new(name).unwrap();
        let place = Place::of(&secrets, "web", None, &name, None).unwrap();
        (secrets, place)
    }

    /// Row 34. Mutations: another mode in `write`; leaving `is_in_memory` out of `make_folders`.
    #[test]
    fn a_secret_is_a_file_of_mode_0400_on_a_tmpfs_and_nowhere_else() {
        let shm = tempfile::tempdir_in("/dev/shm").unwrap();
        let (secrets, place) = place(shm.path(), "KEY");
        let value = Secret::new("canary-77".into());
        write(&secrets, &place, &value).unwrap();
        assert_eq!(place.path, shm.path().join("plumb/secrets/web/KEY"));
        assert!(holds(&place, Some(&value)));
        assert!(!holds(&place, Some(&Secret::new("other".into()))));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&place.path), 0o400);
        assert_eq!(mode(place.path.parent().unwrap()), 0o711);
        write(&secrets, &place, &Secret::new("second".into())).unwrap();
        assert_eq!(fs::read_to_string(&place.path).unwrap(), "second");
        remove(&secrets, &place.path).unwrap();
        assert!(!place.path.parent().unwrap().exists());
        remove(&secrets, &place.path).unwrap();
        // A note that leads out is not followed.
        let outside = shm.path().join("outside");
        fs::write(&outside, "x").unwrap();
        remove(&secrets, &shm.path().join("plumb/secrets/../../outside")).unwrap();
        assert!(outside.exists());

        let disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let (secrets, place) = super::tests::place(disk.path(), "KEY");
        let refused = write(&secrets, &place, &value).unwrap_err();
        assert_eq!(refused.reason, Reason::LacksCapability);
        assert!(!refused.message.contains("canary"));
        assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_others_can_write_to_or_a_link_gets_no_secret() {
        for bad in ["open", "link"] {
            let shm = tempfile::tempdir_in("/dev/shm").unwrap();
            let (secrets, place) = place(shm.path(), "KEY");
            let top = shm.path().join("plumb");
            if bad == "open" {
                fs::create_dir(&top).unwrap();
                fs::set_permissions(&top, Permissions::from_mode(0o777)).unwrap();
            } else {
                let elsewhere = shm.path().join("elsewhere");
                fs::create_dir(&elsewhere).unwrap();
                std::os::unix::fs::symlink(&elsewhere, &top).unwrap();
            }
            let refused = write(&secrets, &place, &Secret::new("v".into())).unwrap_err();
            assert_eq!(refused.reason, Reason::PermissionDenied, "{bad}");
        }
    }
}
