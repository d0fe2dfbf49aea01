//! What a shim is told to run: the program's path, the exact environment and the working directory.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use plumb_model::condition::Reason;
use plumb_model::spec::WorkDir;
use plumb_model::{Fault, ProcessSpec, ReleaseNumber, symbolic};

use super::users::Person;
use crate::shim::record::MARK;

/// The PATH when neither the blueprint nor the agent's own environment has one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of an incarnation, complete: nothing of the agent's own but its PATH gets in.
pub fn environment(
    spec: &ProcessSpec,
    release: Option<ReleaseNumber>,
    person: &Person,
    home: &Path,
    incarnation: &str,
) -> Result<BTreeMap<String, String>, Fault> {
    let path = || std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned());
    let mut env = BTreeMap::from([
        ("HOME".to_owned(), home.to_string_lossy().into_owned()),
        ("LOGNAME".to_owned(), person.name.clone()),
        ("PATH".to_owned(), path()),
        ("SHELL".to_owned(), person.shell.clone()),
        ("USER".to_owned(), person.name.clone()),
    ]);
    for (name, value) in &spec.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let message = format!(
                "the environment variable {name:?} cannot be set: a name has neither '=' nor NUL, a value no NUL"
            );
            return Err(Fault::new(Reason::BadContent, message));
        }
        if symbolic::holds_credential(value) {
            let message = format!(
                "the environment variable {name} is to hold the credential of a service, which this version of plumb cannot fill in: upgrade plumb on this machine"
            );
            return Err(Fault::new(Reason::LacksCapability, message));
        }
        env.insert(name.clone(), symbolic::expand(value, release));
    }
    // Last: the mark is never the blueprint's to set.
    env.insert(MARK.to_owned(), incarnation.to_owned());
    Ok(env)
}

/// The working directory inside an unpacked artifact.
pub fn workdir(data: &Path, spec: &WorkDir) -> Result<PathBuf, Fault> {
    let root = data.join("artifacts").join(spec.artifact.to_string());
    let inside = Path::new(&spec.dir);
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !inside.components().all(plain) {
        let message = format!("{:?} leaves the artifact", spec.dir);
        return Err(Fault::new(Reason::BadPath, message));
    }
    let Ok(root) = root.canonicalize() else {
        let message = format!("the artifact {} is not unpacked", spec.artifact.short());
        return Err(Fault::new(Reason::ContentMissing, message));
    };
    // A link inside the artifact may lead on, but not out.
    match root.join(inside).canonicalize() {
        Ok(dir) if dir.is_dir() && dir.starts_with(&root) => Ok(dir),
        _ => {
            let message = format!(
                "the folder {:?} is not in the artifact {}",
                spec.dir,
                spec.artifact.short()
            );
            Err(Fault::new(Reason::BadPath, message))
        }
    }
}

/// The program's path: a bare name is looked up in PATH, a relative one in the working directory.
pub fn program(name: &str, path: &str, cwd: &Path) -> Result<PathBuf, Fault> {
    let not_found = |message| Err(Fault::new(Reason::CommandNotFound, message));
    if name.contains('\0') || name.is_empty() {
        return not_found("the command is empty or has a NUL in it".to_owned());
    }
    if name.contains('/') {
        let program = cwd.join(name);
        return match program.metadata() {
            Err(_) => not_found(format!("the command {} does not exist", program.display())),
            Ok(_) if executable(&program) => Ok(program),
            Ok(_) => not_found(format!(
                "the command {} is not an executable file: chmod +x it",
                program.display()
            )),
        };
    }
    let mut found = path
        .split(':')
        .filter(|folder| !folder.is_empty())
        .map(|folder| cwd.join(folder).join(name));
    match found.find(|program| executable(program)) {
        Some(program) => Ok(program),
        None => not_found(format!(
            "the command {name:?} is in none of the folders of PATH ({path}): install it, or give its full path"
        )),
    }
}

fn executable(program: &Path) -> bool {
    program.is_file() && rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_as_a_shell_would_find_it() {
        let cwd = tempfile::tempdir().unwrap();
        std::fs::write(cwd.path().join("data"), "").unwrap();
        assert_eq!(
            program("sh", "/nowhere:/bin", cwd.path()).unwrap(),
            Path::new("/bin/sh")
        );
        for (name, path) in [
            ("sh", "/nowhere"),
            ("./data", "/bin"),
            ("/no/such", "/bin"),
            ("", "/bin"),
        ] {
            let fault = program(name, path, cwd.path()).unwrap_err();
            assert_eq!(fault.reason, Reason::CommandNotFound);
            assert!(
                name != "sh" || fault.message.contains("\"sh\"") && fault.message.contains(path)
            );
        }
    }

    #[test]
    fn a_working_directory_is_inside_its_artifact() {
        let data = tempfile::tempdir().unwrap();
        let artifact = plumb_model::Hash::of(b"a");
        let root = data.path().join("artifacts").join(artifact.to_string());
        std::fs::create_dir_all(root.join("app")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        let at = |dir: &str| {
            workdir(
                data.path(),
                &WorkDir {
                    of: Default::default(),
                    artifact,
                    dir: dir.to_owned(),
                },
            )
        };
        assert!(at("").is_ok() && at("app").is_ok());
        for dir in ["..", "/etc", "out", "missing"] {
            assert_eq!(at(dir).unwrap_err().reason, Reason::BadPath, "{dir}");
        }
    }
}
