//! A blueprint repository on disk: which files are blueprints, and what their sources hold.

mod cache;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek};
use std::path::{Path, PathBuf};

use plumb_blueprint::{BlueprintSet, Diagnostics, Options, SourceFile};
use plumb_driver::artifact;
use plumb_model::Hash;
use plumb_model::spec::MAX_INLINE_BYTES;
use plumb_model::state::Commit;
use plumb_planner::Source;

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
}

/// Blueprints as they were parsed.
pub struct Parsed {
    /// What they mean, or what is wrong.
    pub result: Result<BlueprintSet, Diagnostics>,
    /// Their files, to show places in.
    pub files: Vec<SourceFile>,
    /// YAML files without a `kind`.
    pub passed: Vec<String>,
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
                if !kind.is_file()
                    || !(name.ends_with(".yaml") || name.ends_with(".yml"))
                    || name.starts_with('.')
                {
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
                    None => found.passed.push(relative),
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
            too_large,
        } = self.files()?;
        let mut options = Options {
            env: self.env.clone(),
            others: self.others(&files),
            too_large,
        };
        let result = parse(&files, &options);
        passed.retain(|path| options.others.iter().all(|other| other.path != *path));
        files.append(&mut options.others);
        Ok(Parsed {
            result,
            files,
            passed,
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
        let Parsed { result, files, .. } = self.parse()?;
        match result {
            Ok(set) => {
                if !set.warnings.is_empty() {
                    out::note(&plumb_blueprint::render(&set.warnings, &files, style.color));
                }
                Ok(Read { set })
            }
            Err(diagnostics) => {
                show(&diagnostics, &files, output, style);
                Err(CliError::Invalid(invalid(&diagnostics)))
            }
        }
    }

    /// Reads what the blueprints refer to. Folders are packed, short texts travel in the plan, all else is uploaded.
    pub fn sources(&self, set: &BlueprintSet) -> Result<Sources, CliError> {
        let folders: Vec<&str> = set
            .apps
            .values()
            .filter_map(|app| app.source.as_ref())
            .filter_map(|source| match source {
                plumb_blueprint::Source::Path { path } => Some(path.as_str()),
                plumb_blueprint::Source::Git(_) => None,
            })
            .collect();
        let mut sources = Sources {
            by_path: BTreeMap::new(),
            blobs: BTreeMap::new(),
        };
        for relative in &set.paths {
            let path = self.resolve(relative, set)?;
            let (source, blob) = if folders.contains(&relative.as_str()) {
                let packed = artifact::pack(&path).map_err(|e| CliError::Pack {
                    path: relative.clone(),
                    why: crate::error::chain(&e),
                })?;
                (
                    Source {
                        digest: packed.digest,
                        size: packed.size,
                        text: None,
                    },
                    Some(packed.file),
                )
            } else {
                read_source(&path)?
            };
            if let Some(blob) = blob {
                sources.blobs.insert(source.digest, blob);
            }
            sources.by_path.insert(relative.clone(), source);
        }
        Ok(sources)
    }

    /// Where a source is; a symbolic link must not lead out of the repository.
    fn resolve(&self, relative: &str, set: &BlueprintSet) -> Result<PathBuf, CliError> {
        let path = self.root.join(relative);
        let place = || {
            let mut owners = set.apps.keys();
            let origin = owners.find_map(|app| set.origins.get("App", app.as_str(), "/source"));
            origin
                .map(|origin| format!(" (see {origin})"))
                .unwrap_or_default()
        };
        let real = fs::canonicalize(&path).map_err(|e| CliError::Pack {
            path: relative.to_owned(),
            why: format!("{e}{}", place()),
        })?;
        if !real.starts_with(&self.root) {
            return Err(CliError::Pack {
                path: relative.to_owned(),
                why: "a symbolic link leads out of the repository; put the files themselves there"
                    .to_owned(),
            });
        }
        Ok(real)
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

/// A blueprint file as it was found.
pub enum Blueprint {
    /// Its bytes.
    Text(Vec<u8>),
    /// It is too large to be one; so many bytes, which nobody read.
    TooLarge(u64),
}

/// The beginning of a file, one byte more than a blueprint may have at most, so that a larger file is not taken for its
/// beginning; and how many bytes the file has.
fn read_text(path: &Path) -> std::io::Result<(Vec<u8>, u64)> {
    let limit = plumb_blueprint::MAX_FILE_BYTES as u64 + 1;
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut text = Vec::with_capacity(size.min(limit) as usize);
    file.take(limit).read_to_end(&mut text)?;
    Ok((text, size))
}

/// The bytes of a blueprint file, or none if no line of it, or of what is looked at of a large one, starts with `kind:`.
pub fn read_blueprint(path: &Path) -> std::io::Result<Option<Blueprint>> {
    let (text, size) = read_text(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let named = name == MANIFEST || (name.starts_with("plumb.") && name.ends_with(".yaml"));
    let has_kind = || {
        text.split(|b| *b == b'\n').any(|line| {
            let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
            [&b"kind:"[..], b"\"kind\"", b"'kind'", b"{"]
                .iter()
                .any(|start| line.starts_with(start))
        })
    };
    if !named && !has_kind() && !meant_to_be(&text) {
        return Ok(None);
    }
    let too_large = text.len() > plumb_blueprint::MAX_FILE_BYTES;
    Ok(Some(if too_large {
        // It may have grown since it was measured.
        Blueprint::TooLarge(size.max(text.len() as u64))
    } else {
        Blueprint::Text(text)
    }))
}

/// Whether a file without a `kind` was surely meant to be a blueprint: it is UTF-16, in which nothing can be found, or it
/// has a `name` and a slip of the pen where `kind` would be. To pass over such a file would remove what it declares.
fn meant_to_be(text: &[u8]) -> bool {
    if matches!(text, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
        return true;
    }
    let keys = || {
        text.split(|b| *b == b'\n').filter_map(|line| {
            let line = std::str::from_utf8(line).ok()?;
            let (key, _) = line.split_once(':')?;
            key.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_')
                .then_some(key)
        })
    };
    keys().any(|key| key == "name")
        && keys().any(|key| {
            let key = key.to_ascii_lowercase();
            key == "kind" || plumb_blueprint::nearest(&key, ["kind"]).is_some()
        })
}

fn read_source(path: &Path) -> Result<(Source, Option<File>), CliError> {
    let mut file = File::open(path).map_err(CliError::file("open", path))?;
    let metadata = file.metadata().map_err(CliError::file("look at", path))?;
    if !metadata.is_file() {
        return Err(CliError::Other(format!(
            "{} is no regular file, so it cannot be a file's source",
            path.display()
        )));
    }
    if metadata.len() > MAX_SOURCE_FILE {
        return Err(CliError::Other(format!(
            "{} has {} bytes; a file's source may have {MAX_SOURCE_FILE}",
            path.display(),
            metadata.len()
        )));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(CliError::file("read", path))?;
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
    file.rewind().map_err(CliError::file("read", path))?;
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
    use super::meant_to_be;

    #[test]
    fn a_slip_of_the_pen_does_not_make_a_blueprint_something_else() {
        for (text, expected) in [
            ("knd: App\nname: two\n", true),
            ("Kind: App\nname: two\n", true),
            ("kinds: App\nname: two\n", true),
            ("name: two\nservices: {}\n", false),
            ("kin_d_of: x\nname: y\n", false),
            ("site_name: docs\nnav: []\n", false),
            ("# knd: App\n- name: x\n", false),
            ("", false),
        ] {
            assert_eq!(meant_to_be(text.as_bytes()), expected, "{text}");
        }
        assert!(meant_to_be(b"\xff\xfek\0i\0n\0d\0"));
    }
}
