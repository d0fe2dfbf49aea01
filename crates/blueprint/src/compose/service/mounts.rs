//! What a service mounts: volumes of its project, and paths of the machine.

use serde_json::{Map, Value};

use super::super::{Project, Reader};
use crate::diagnostic::quote;
use crate::events::join;
use crate::set::{Container, MountDecl, MountSourceDecl};

impl<'a> Reader<'a, '_> {
    pub(super) fn mounts(
        &mut self,
        at: &str,
        map: &'a Map<String, Value>,
        container: &mut Container,
        project: &Project,
    ) {
        let at = join(at, "volumes");
        let items = match map.get("volumes") {
            None | Some(Value::Null) => return,
            Some(Value::Array(items)) => items,
            Some(other) => return self.mismatch(&at, other, "a list"),
        };
        for (i, item) in items.iter().enumerate() {
            let at = format!("{at}/{i}");
            let Some((source, target, read_only)) = self.mount(&at, item) else {
                continue;
            };
            let source = if source.starts_with('/') {
                MountSourceDecl::Path(source)
            } else if source.starts_with(['.', '~']) {
                self.bad(
                    &at,
                    "a folder beside the Compose file is not on the machine",
                    "name an absolute path of the machine, or a volume",
                );
                continue;
            } else if project.volumes.contains_key(&source) {
                MountSourceDecl::Volume(source)
            } else {
                self.missing(
                    &at,
                    "volume",
                    &source,
                    project.volumes.keys().cloned().collect(),
                );
                continue;
            };
            if crate::scalar::machine_path(&target).is_err() {
                self.bad(
                    &at,
                    format!("{} is no path inside a container", quote(&target)),
                    "write an absolute path without `.`, `..` or a final slash",
                );
                continue;
            }
            let mount = MountDecl { source, read_only };
            if container.mounts.insert(target, mount).is_some() {
                self.bad(
                    &at,
                    "something is mounted at this path already",
                    "remove one of them",
                );
            }
        }
    }

    fn mount(&mut self, at: &str, item: &'a Value) -> Option<(String, String, bool)> {
        if let Value::Object(map) = item {
            self.only(at, map, &["type", "source", "target", "read_only"]);
            let read_only = map
                .get("read_only")
                .and_then(Value::as_bool)
                .unwrap_or(false);
            let (source, target) = (
                self.get_text(at, map, "source"),
                self.get_text(at, map, "target"),
            );
            return match (source, target, map.get("type").and_then(Value::as_str)) {
                (Some(source), Some(target), Some("volume" | "bind")) => {
                    Some((source, target, read_only))
                }
                _ => {
                    self.bad(
                        at,
                        "a mount has a `type` (volume or bind), a `source` and a `target`",
                        "write it as \"data:/var/lib/data\"",
                    );
                    None
                }
            };
        }
        let text = self.text(at, item)?;
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [source, target] => Some(((*source).to_owned(), (*target).to_owned(), false)),
            [source, target, "rw"] => Some(((*source).to_owned(), (*target).to_owned(), false)),
            [source, target, "ro"] => Some(((*source).to_owned(), (*target).to_owned(), true)),
            [_] => {
                self.bad(
                    at,
                    "an anonymous volume would be lost with its container",
                    "give it a name: \"data:/var/lib/data\", with `volumes: { data: }` at the top",
                );
                None
            }
            _ => {
                self.bad(
                    at,
                    format!("{} is no mount", quote(&text)),
                    "write \"data:/var/lib/data\" or \"/etc/x.conf:/etc/x.conf:ro\"",
                );
                None
            }
        }
    }
}
