//! A blueprint repository on disk: which files are blueprints, and what their sources hold.

mod blueprint;
mod cache;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek};
use std::path::{Path, PathBuf};

use plumb_blueprint::{BlueprintSet, Diagnostics, Options, SourceFile, Unusable};
use plumb_driver::artifact;
use plumb_model::spec::MAX_INLINE_BYTES;
use plumb_model::state::Commit;
use plumb_model::{Hash, parallel};
use plumb_planner::Source;

pub use blueprint::{Blueprint, is_yaml, read_blueprint};
use blueprint::{is_empty, read_text};

use crate::args::{Blueprints, Output};
use crate::error::CliError;
use crate::out::{self, Style};

/// The manifest's file name.
pub const MANIFEST: &str = "plumb.yaml";
/// So many YAML files are read at most: a bound against pointing it at a whole disk.
const MAX_FILES: usize = 20_000;
/// So many bytes may all blueprints of a repository have: those of 400,000 resources, all in memory while they are parsed.
const MAX_TOTAL_BYTES: usize = 64 << 20;
/// A single file source may be this large; it is held in memory while it is uploaded.
const MAX_SOURCE_FILE: u64 = 256 * 1024 * 1024;

/// A repository that was found.
#[derive(Debug, Clone)]
pub struct Repository {
    /// The folder that holds the manifest.
    pub root: PathBuf,
    /// The chosen environment.
    pub env: Option<String>,
}

/// Blueprints as they were read.
pub struct Read {
    /// What they mean.
    pub set: BlueprintSet,
    /// Files that look like blueprints and declare nothing.
    pub silent: Silent,
}

/// Files that may have been meant to declare something, and do not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Silent {
    /// They hold nothing but comments and white space.
    pub empty: Vec<String>,
    /// They are symbolic links, which are not followed: a blueprint is a regular file of the repository.
    pub links: Vec<String>,
    /// They are no regular files: a named pipe, a socket.
    pub special: Vec<String>,
    /// They have no top-level `kind`.
    pub kindless: Vec<String>,
}

impl Silent {
    /// What to say of them where something is removed that they may have declared; nothing if there are none.
    pub fn note(&self) -> Option<String> {
        // A repository may hold many files that are something else.
        const SHOWN: usize = 5;
        let said = |files: &[String], one: &str, many: &str| {
            let word = if files.len() == 1 { one } else { many };
            let more = match files.len().saturating_sub(SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let shown = files[..files.len().min(SHOWN)].join(", ");
            (!files.is_empty()).then(|| format!("{shown}{more} {word}"))
        };
        let parts: Vec<String> = [
            said(&self.empty, "is empty", "are empty"),
            said(
                &self.links,
                "is a symbolic link, which is not followed",
                "are symbolic links, which are not followed",
            ),
            said(&self.special, "is no regular file", "are no regular files"),
            said(
                &self.kindless,
                "has no top-level `kind`",
                "have no top-level `kind`",
            ),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!parts.is_empty()).then(|| {
            format!(
                "Passed over: {}. What the blueprints do not declare any more is removed.",
                plumb_model::escape::line(&parts.join("; "))
            )
        })
    }
}

/// Blueprints as they were parsed.
pub struct Parsed {
    /// What they mean, or what is wrong.
    pub result: Result<BlueprintSet, Diagnostics>,
    /// Their files, to show places in.
    pub files: Vec<SourceFile>,
    /// YAML files without a `kind`.
    pub passed: Vec<String>,
    /// Those of them that are empty, and the links.
    pub silent: Silent,
}

/// The sources of a set, read.
pub struct Sources {
    /// For the planner.
    pub by_path: BTreeMap<String, Source>,
    /// For upload: what is not carried in the plan itself.
    pub blobs: BTreeMap<Hash, File>,
}

impl Sources {
    /// The request to apply a set with these sources.
    pub fn request(&self, set: BlueprintSet, ask: plumb_planner::Ask) -> plumb_planner::Request {
        plumb_planner::Request::Apply {
            blueprint: set,
            sources: self.by_path.clone(),
            ask,
        }
    }
}

/// The blueprint files of a repository.
#[derive(Default)]
struct Found {
    files: Vec<SourceFile>,
    /// YAML files without a `kind`.
    passed: Vec<String>,
    silent: Silent,
    /// What is too large to be a blueprint, with its size.
    too_large: Vec<(String, u64)>,
}

impl Repository {
    /// Looks for the manifest in a folder and above it.
    pub fn find(blueprints: &Blueprints) -> Result<Self, CliError> {
        let start =
            fs::canonicalize(&blueprints.path).map_err(CliError::file("open", &blueprints.path))?;
        let root = start
            .ancestors()
            .find(|folder| folder.join(MANIFEST).is_file());
        let root = root.ok_or_else(|| CliError::NoManifest(blueprints.path.clone()))?;
        Ok(Self {
            root: root.to_owned(),
            env: blueprints.env.clone(),
        })
    }

    /// The commit that the repository is at.
    pub fn commit(&self) -> Option<Commit> {
        crate::git::commit(&self.root)
    }

    /// Every blueprint file: each YAML file beneath the root that has a top-level `kind`. Hidden folders and folders
    /// with a manifest of their own are passed over.
    fn files(&self) -> Result<Found, CliError> {
        let mut found = Found::default();
        let mut bytes = 0;
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            let mut entries: Vec<_> = fs::read_dir(&folder)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(CliError::file("list", &folder))?;
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let (path, name) = (entry.path(), entry.file_name());
                let name = name.to_string_lossy();
                let kind = entry
                    .file_type()
                    .map_err(CliError::file("look at", &path))?;
                if kind.is_dir() {
                    if !name.starts_with('.') && !path.join(MANIFEST).is_file() {
                        folders.push(path);
                    }
                    continue;
                }
                if name.starts_with('.') || !is_yaml(&name) {
                    continue;
                }
                if kind.is_symlink() {
                    found.silent.links.push(self.relative(&path));
                    continue;
                }
                if !kind.is_file() {
                    found.silent.special.push(self.relative(&path));
                    continue;
                }
                if found.files.len() >= MAX_FILES {
                    return Err(CliError::Other(format!(
                        "{} holds more than {MAX_FILES} YAML files; give the folder of one blueprint repository",
                        self.root.display()
                    )));
                }
                let relative = self.relative(&path);
                match read_blueprint(&path).map_err(CliError::file("read", &path))? {
                    Some(Blueprint::Text(text)) => {
                        bytes += text.len();
                        found.files.push(SourceFile {
                            path: relative,
                            text,
                        });
                    }
                    Some(Blueprint::TooLarge(size)) => found.too_large.push((relative, size)),
                    None => {
                        if is_empty(&path) {
                            found.silent.empty.push(relative.clone());
                        }
                        found.passed.push(relative);
                    }
                }
                if bytes > MAX_TOTAL_BYTES {
                    return Err(CliError::Other(format!(
                        "the blueprints in {} have more than {MAX_TOTAL_BYTES} bytes; give the folder of one blueprint repository",
                        self.root.display()
                    )));
                }
            }
        }
        found.files.sort_by(|a, b| a.path.cmp(&b.path));
        crate::memory::expect(bytes);
        Ok(found)
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .to_string_lossy()
            .into_owned()
    }

    /// Reads and parses all blueprints.
    pub fn parse(&self) -> Result<Parsed, CliError> {
        let Found {
            mut files,
            mut passed,
            mut silent,
            too_large,
        } = self.files()?;
        if silent.links.iter().any(|path| path == MANIFEST) {
            return Err(CliError::Other(format!(
                "{} is a symbolic link, which is not followed: a blueprint is a regular file of its repository; copy it there, or give the folder that it leads to",
                self.root.join(MANIFEST).display()
            )));
        }
        let mut options = Options {
            env: self.env.clone(),
            others: self.others(&files),
            too_large,
        };
        let result = parse(&files, &options);
        let part = |path: &String| options.others.iter().any(|other| other.path == *path);
        passed.retain(|path| !part(path));
        silent.empty.retain(|path| !part(path));
        silent.links.retain(|path| !part(path));
        let others = passed.iter().filter(|path| !silent.empty.contains(path));
        silent.kindless = others.cloned().collect();
        files.append(&mut options.others);
        Ok(Parsed {
            result,
            files,
            passed,
            silent,
        })
    }

    /// The files besides blueprints that blueprints consist of. One that is not there, or leads out of the repository, is
    /// left out: whoever names it is told so.
    fn others(&self, files: &[SourceFile]) -> Vec<SourceFile> {
        let read = |path: String| {
            let real = fs::canonicalize(self.root.join(&path)).ok()?;
            let inside = real.starts_with(&self.root) && real.is_file();
            let (text, _) = inside.then(|| read_text(&real).ok()).flatten()?;
            Some(SourceFile { path, text })
        };
        let wanted = plumb_blueprint::others(files);
        wanted.into_iter().filter_map(read).collect()
    }

    /// Reads, parses, and shows what is wrong.
    pub fn read(&self, output: Output, style: &Style) -> Result<Read, CliError> {
        let Parsed {
            result,
            files,
            silent,
            ..
        } = self.parse()?;
        match result {
            Ok(set) => {
                if !set.warnings.is_empty() {
                    out::note(&plumb_blueprint::render(&set.warnings, &files, style.color));
                }
                Ok(Read { set, silent })
            }
            Err(diagnostics) => {
                show(&diagnostics, &files, output, style);
                Err(CliError::Invalid(invalid(&diagnostics)))
            }
        }
    }

    /// Reads what the blueprints refer to, and shows what cannot be used. Folders are packed, short texts travel in the
    /// plan, all else is uploaded.
    pub fn sources(
        &self,
        set: &BlueprintSet,
        output: Output,
        style: &Style,
    ) -> Result<Sources, CliError> {
        self.try_sources(set)?.map_err(|problems| {
            let mut named: Vec<&str> = problems
                .items
                .iter()
                .flat_map(|problem| problem.spans.iter().map(|span| span.file.as_str()))
                .collect();
            named.sort_unstable();
            named.dedup();
            let read = |path: &str| {
                let (text, _) = read_text(&self.root.join(path)).ok()?;
                Some(SourceFile {
                    path: path.to_owned(),
                    text,
                })
            };
            let files: Vec<SourceFile> = named.into_iter().filter_map(read).collect();
            show(&problems, &files, output, style);
            CliError::Invalid(invalid(&problems))
        })
    }

    /// The same, without showing anything: the inner error holds every source that cannot be used, at its places.
    ///
    /// # Errors
    /// The outer one is not about the sources: there is no room to pack them.
    pub fn try_sources(
        &self,
        set: &BlueprintSet,
    ) -> Result<Result<Sources, Diagnostics>, CliError> {
        let folders: Vec<&str> = set
            .apps
            .values()
            .filter_map(|app| app.source.as_ref())
            .filter_map(|source| match source {
                plumb_blueprint::Source::Path { path, .. } => Some(path.as_str()),
                plumb_blueprint::Source::Git(_) => None,
            })
            .collect();
        let mut sources = Sources {
            by_path: BTreeMap::new(),
            blobs: BTreeMap::new(),
        };
        let mut unusable = Vec::new();
        // Packing is worth threads from the first few on.
        let size = set.paths.len() * (32 << 10);
        let all = parallel::each(set.paths.iter().collect(), size, |path: &String| {
            let read = self.resolve(path).and_then(|real| {
                if folders.contains(&path.as_str()) {
                    self.packed(&real)
                } else {
                    read_source(&real)
                }
            });
            (path, read)
        });
        for (path, read) in all {
            match read {
                Ok((source, blob)) => {
                    if let Some(blob) = blob {
                        sources.blobs.insert(source.digest, blob);
                    }
                    sources.by_path.insert(path.clone(), source);
                }
                Err(Refused::Source { why, hint }) => unusable.push(Unusable {
                    path: path.clone(),
                    why,
                    hint,
                }),
                Err(Refused::Here(error)) => return Err(error),
            }
        }
        Ok(if unusable.is_empty() {
            Ok(sources)
        } else {
            Err(plumb_blueprint::unusable(set, &unusable))
        })
    }

    /// Packs a folder or a file.
    fn packed(&self, real: &Path) -> Result<(Source, Option<File>), Refused> {
        let packed = artifact::pack(real).map_err(|error| match error {
            artifact::PackError::Scratch { .. } => {
                Refused::Here(CliError::Other(crate::error::chain(&error)))
            }
            error => {
                // As people know it: relative to the repository.
                let root = format!("{}/", self.root.display());
                Refused::because(format!(
                    "cannot be packed: {}",
                    crate::error::chain(&error).replace(&root, "")
                ))
            }
        })?;
        let source = Source {
            digest: packed.digest,
            size: packed.size,
            text: None,
        };
        Ok((source, Some(packed.file)))
    }

    /// Where a source is; a symbolic link must not lead out of the repository.
    fn resolve(&self, relative: &str) -> Result<PathBuf, Refused> {
        let path = self.root.join(relative);
        let real = fs::canonicalize(&path).map_err(|error| self.not_there(relative, &error))?;
        if real.starts_with(&self.root) {
            Ok(real)
        } else {
            Err(Refused::Source {
                why: "leads out of the repository by a symbolic link".to_owned(),
                hint: Some("put the files themselves there".to_owned()),
            })
        }
    }

    /// Why a source cannot be reached. Of one that is not there, the nearest name in the folder where it would be is told.
    fn not_there(&self, relative: &str, error: &std::io::Error) -> Refused {
        if error.kind() != std::io::ErrorKind::NotFound {
            return Refused::because(format!("cannot be used: {error}"));
        }
        let path = Path::new(relative);
        let above = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let siblings: Vec<String> = fs::read_dir(self.root.join(above))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.'))
            .collect();
        let near = plumb_blueprint::nearest(&name, siblings.iter().map(String::as_str));
        let hint = match near {
            Some(near) => format!("did you mean `{}`?", above.join(near).display()),
            None => format!(
                "it is looked for at {}; what a blueprint names is relative to the file that it stands in",
                self.root.join(relative).display()
            ),
        };
        Refused::Source {
            why: "is not there".to_owned(),
            hint: Some(hint),
        }
    }
}

/// Why a source was not read.
#[derive(Debug)]
enum Refused {
    /// It is the source's fault.
    Source { why: String, hint: Option<String> },
    /// It is the fault of where this runs.
    Here(CliError),
}

impl Refused {
    fn because(why: String) -> Self {
        Self::Source { why, hint: None }
    }
}

/// Parses blueprints, or finds what they meant the last time.
fn parse(files: &[SourceFile], options: &Options) -> Result<BlueprintSet, Diagnostics> {
    let cache = cache::Cache::of(files, options);
    if let Some(set) = cache.as_ref().and_then(cache::Cache::get) {
        return Ok(set);
    }
    let mut set = plumb_blueprint::parse(files, options)?;
    if let Some(cache) = cache {
        cache.put(&mut set);
    }
    Ok(set)
}

/// Shows problems, as text or JSON.
pub fn show(diagnostics: &Diagnostics, files: &[SourceFile], output: Output, style: &Style) {
    match output {
        Output::Text => out::note(&plumb_blueprint::render(diagnostics, files, style.color)),
        Output::Json => out::json(&serde_json::json!({ "format": 1, "diagnostics": diagnostics })),
    }
}

/// One line about what was shown.
pub fn invalid(diagnostics: &Diagnostics) -> String {
    let count = diagnostics.errors();
    format!(
        "{count} problem{} in the blueprints; nothing was changed",
        if count == 1 { "" } else { "s" }
    )
}

fn read_source(path: &Path) -> Result<(Source, Option<File>), Refused> {
    let refused = |error: std::io::Error| Refused::because(format!("cannot be read: {error}"));
    let mut file = crate::regular::open(path).map_err(refused)?;
    let length = file.metadata().map_err(refused)?.len();
    if length > MAX_SOURCE_FILE {
        return Err(Refused::because(format!(
            "has {length} bytes; a file's source may have {MAX_SOURCE_FILE}"
        )));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(refused)?;
    let (digest, size) = (Hash::of(&bytes), bytes.len() as u64);
    if bytes.len() <= MAX_INLINE_BYTES
        && let Ok(text) = String::from_utf8(bytes)
    {
        return Ok((
            Source {
                digest,
                size,
                text: Some(text),
            },
            None,
        ));
    }
    file.rewind().map_err(refused)?;
    Ok((
        Source {
            digest,
            size,
            text: None,
        },
        Some(file),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation: pass over the manifest like any other link, and say that there is none.
    #[test]
    fn a_manifest_that_is_a_link_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        fs::write(root.join("real"), "kind: Workspace\nname: shop\n").unwrap();
        std::os::unix::fs::symlink("real", root.join(MANIFEST)).unwrap();
        let error = Repository { root, env: None }.parse().err().unwrap();
        let said = crate::error::chain(&error);
        assert!(said.contains("plumb.yaml is a symbolic link"), "{said}");
    }

    /// Mutations: stop at the first; open a source without `regular`.
    #[test]
    fn every_source_that_cannot_be_used_is_told_of_at_its_place() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        let blueprints = "kind: Workspace
name: shop
---
kind: Machine
name: web-1
---
kind: App
name: hello
machines: web-1
source: { path: ap }
run: ./hello
---
kind: App
name: sock
machines: web-1
source: { path: held }
run: ./hello
---
kind: Setup
name: base
machines: web-1
files:
  /etc/motd: { source: pipe }
  /etc/else: { source: nowhere.txt }
  /etc/out: { source: out }
";
        fs::write(root.join(MANIFEST), blueprints).unwrap();
        fs::create_dir(root.join("app")).unwrap();
        fs::create_dir(root.join("held")).unwrap();
        std::os::unix::fs::symlink("/etc/hosts", root.join("out")).unwrap();
        for pipe in ["pipe", "held/pipe"] {
            rustix::fs::mkfifoat(rustix::fs::CWD, root.join(pipe), 0o600.into()).unwrap();
        }
        let repository = Repository {
            root: root.clone(),
            env: None,
        };
        let parsed = repository.parse().unwrap();
        let set = parsed.result.unwrap();
        let problems = repository.try_sources(&set).unwrap().err().unwrap();
        let shown = plumb_blueprint::render(&problems, &parsed.files, false);
        let shown = shown.replace(&root.display().to_string(), "ROOT");
        insta::assert_snapshot!(shown, @"
        error[P0413]: the source `ap` is not there
          --> plumb.yaml:10:1
           |
        10 | source: { path: ap }
           | ^^^^^^
           |
           = help: did you mean `app`?

        error[P0413]: the source `held` cannot be packed: held/pipe is neither a file, a folder nor a symbolic link; take it out of the source
          --> plumb.yaml:16:1
           |
        16 | source: { path: held }
           | ^^^^^^

        error[P0413]: the source `pipe` cannot be read: it is no regular file
          --> plumb.yaml:23:3
           |
        23 |   /etc/motd: { source: pipe }
           |   ^^^^^^^^^

        error[P0413]: the source `nowhere.txt` is not there
          --> plumb.yaml:24:3
           |
        24 |   /etc/else: { source: nowhere.txt }
           |   ^^^^^^^^^
           |
           = help: it is looked for at ROOT/nowhere.txt; what a blueprint names is relative to the file that it stands in

        error[P0413]: the source `out` leads out of the repository by a symbolic link
          --> plumb.yaml:25:3
           |
        25 |   /etc/out: { source: out }
           |   ^^^^^^^^
           |
           = help: put the files themselves there
        ");
    }

    /// Mutation: follow a link; take a file with a word in it for an empty one.
    #[test]
    fn empty_files_and_links_are_noted() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
        write(MANIFEST, "kind: Workspace\nname: shop\n");
        write("empty.yaml", "");
        write("commented.yaml", "---\n# kind: App\n\n");
        write("other.yaml", "site: docs\n");
        std::os::unix::fs::symlink("other.yaml", root.join("link.yaml")).unwrap();
        let repository = Repository { root, env: None };
        let silent = repository.parse().unwrap().silent;
        assert_eq!(silent.empty, ["commented.yaml", "empty.yaml"]);
        assert_eq!(silent.links, ["link.yaml"]);
        assert_eq!(
            silent.note().unwrap(),
            "Passed over: commented.yaml, empty.yaml are empty; link.yaml is a symbolic link, which is not followed; \
             other.yaml has no top-level `kind`. What the blueprints do not declare any more is removed."
        );
        assert_eq!(Silent::default().note(), None);
    }
}
