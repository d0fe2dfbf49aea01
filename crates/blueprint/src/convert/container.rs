//! What is special about an App that is a container: image or Dockerfile, command, ports, mounts, networks.

use std::collections::BTreeMap;

use plumb_model::{OwnerName, PortName};

use super::process::{self, Command, ReadHealth, ReadPort};
use super::{Node, Place, Reader, Use};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, Spot, quote};
use crate::set::{
    Container, ContainerPort, Health, ImageDecl, MountDecl, MountSourceDecl, Port, Text,
};

/// A container as far as it is right.
#[derive(Debug, Default)]
pub(crate) struct ReadContainer {
    pub image: Option<ImageDecl>,
    entrypoint: Option<Vec<Text>>,
    command: Option<Vec<Text>>,
    pub ports: BTreeMap<PortName, ReadPort>,
    /// By the path inside, with the place.
    pub mounts: BTreeMap<String, (MountDecl, Spot)>,
    pub networks: Vec<(OwnerName, Spot)>,
    /// The health check before its port is known, and where it is written.
    pub read_health: Option<(ReadHealth, Spot)>,
    pub health: Option<Health>,
    workdir: Option<String>,
    user: Option<String>,
    labels: BTreeMap<String, String>,
}

impl ReadContainer {
    /// The volumes that are mounted, with their places.
    pub fn volumes(&self) -> Vec<(String, Spot)> {
        let mounts = self.mounts.values();
        let named = mounts.filter_map(|(mount, spot)| match &mount.source {
            MountSourceDecl::Volume(name) => Some((name.clone(), spot.clone())),
            MountSourceDecl::Path(_) => None,
        });
        named.collect()
    }

    /// The container with its environment.
    pub fn finish(self, env: BTreeMap<String, Text>) -> Container {
        let ports = self.ports.into_iter().map(|(name, port)| {
            let inside = match port.port {
                Port::Fixed(number) => number,
                // It has been reported.
                Port::Auto => 0,
            };
            let port = ContainerPort {
                container: inside,
                machine: port.machine.unwrap_or(Port::Auto),
                publish: port.publish,
                udp: port.udp,
            };
            (name, port)
        });
        Container {
            restart: None,
            stop: None,
            // Without one there was an error, and nobody sees this.
            image: self
                .image
                .unwrap_or_else(|| ImageDecl::Reference(String::new())),
            entrypoint: self.entrypoint,
            command: self.command,
            env,
            ports: ports.collect(),
            mounts: self
                .mounts
                .into_iter()
                .map(|(path, (mount, _))| (path, mount))
                .collect(),
            networks: self
                .networks
                .into_iter()
                .map(|(name, _)| name.as_str().to_owned())
                .collect(),
            health: self.health,
            workdir: self.workdir,
            user: self.user,
            labels: self.labels,
            after: Default::default(),
        }
    }
}

/// Reads the keys of an App that belong to its container.
pub(crate) fn read<'a>(
    r: &mut Reader<'a, '_>,
    root: &Node<'a>,
    uses: &mut Vec<Use>,
) -> ReadContainer {
    let mut out = ReadContainer {
        image: image(r, root, uses),
        ..ReadContainer::default()
    };
    for (key, slot) in [
        ("entrypoint", &mut out.entrypoint),
        ("command", &mut out.command),
    ] {
        if let Some(node) = r.get(root, key) {
            let Command { argv, .. } = process::command(r, &node, uses);
            *slot = (!argv.is_empty()).then_some(argv);
        }
    }
    if let Some(node) = r.get(root, "ports") {
        out.ports = process::ports(r, &node, process::Inside::Container);
    }
    if let Some(node) = r.get(root, "health") {
        out.read_health = process::health(r, &node).map(|health| (health, r.key_spot(&node)));
    }
    if let Some(node) = r.get(root, "volumes") {
        volumes(r, &node, &mut out.mounts);
    }
    if let Some(node) = r.get(root, "networks") {
        out.networks = r.names(&node);
    }
    if let Some((text, at)) = r.get_text(root, "workdir") {
        match crate::scalar::machine_path(text) {
            Ok(()) => out.workdir = Some(text.to_owned()),
            // In an image the root folder is as good as any other.
            Err(_) if text == "/" => out.workdir = Some(text.to_owned()),
            Err(problem) => r.bad(
                &at,
                Code::BadPath,
                format!("{}: {problem}", quote(text)),
                None,
            ),
        }
    }
    if let Some((text, at)) = r.get_text(root, "user") {
        if crate::scalar::is_container_user(text) {
            out.user = Some(text.to_owned());
        } else {
            r.bad(
                &at,
                Code::BadUser,
                format!("{} cannot be a container's user", quote(text)),
                Some("write a name, a number in quotes, or both of user and group: \"1000:1000\""),
            );
        }
    }
    if let Some(node) = r.get(root, "labels") {
        labels(r, &node, &mut out.labels);
    }
    out
}

fn image<'a>(r: &mut Reader<'a, '_>, root: &Node<'a>, uses: &mut Vec<Use>) -> Option<ImageDecl> {
    if let Some(node) = r.get(root, "image") {
        let text = r.with_vars(&node)?;
        return match crate::scalar::image(&text) {
            Ok(()) => Some(ImageDecl::Reference(text)),
            Err(problem) => {
                // It is not repeated: a credential may have been put in front of the registry's host.
                if text.contains('@') {
                    r.hide(&node);
                }
                let message = format!("this is no reference of an image: {problem}");
                r.bad(&node, Code::BadImage, message, Some("write it like registry.example.com/acme/catalog:2.3; a Registry holds what it takes to log in"));
                None
            }
        };
    }
    let node = r.get(root, "dockerfile")?;
    let full = node.value.is_object();
    let path = if full {
        r.get(&node, "path")
    } else {
        Some(node)
    };
    let path = match path {
        Some(path) => process::dir(r, &path)?,
        None => "Dockerfile".to_owned(),
    };
    let mut target = None;
    let mut args = BTreeMap::new();
    if full {
        if let Some((text, at)) = r.get_text(&node, "target") {
            // A stage's name, as BuildKit has it.
            let good = text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.len() <= 128
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
            if good {
                target = Some(text.to_owned());
            } else {
                r.bad(
                    &at,
                    Code::BadName,
                    format!("{} is no name of a stage", quote(text)),
                    Some("use letters, digits, `_`, `-` and `.`"),
                );
            }
        }
        if let Some(node) = r.get(&node, "args") {
            for (key, value) in r.entries(&node) {
                if !crate::scalar::is_env_name(key) {
                    r.bad_key(
                        &value,
                        Code::BadEnvName,
                        format!("{} cannot be the name of a build argument", quote(key)),
                        Some("use letters, digits and `_`, and do not start with a digit"),
                    );
                    continue;
                }
                // What looks like one by itself is warned of where it is rendered.
                let text = value.value.as_str().unwrap_or_default();
                if !crate::mask::is_credential(text) {
                    r.likely_credential(&value, Some(key), text);
                }
                if let Some(rendered) = r.rendered(&value, Place::Command) {
                    uses.extend(rendered.uses);
                    args.insert(key.to_owned(), rendered.text);
                }
            }
        }
    }
    if r.get(root, "source").is_none() {
        r.bad_key(
            &node,
            Code::DirWithoutSource,
            "a Dockerfile is built out of the app's source, and this app has none",
            Some("add `source: { path: . }` for the folder of this file"),
        );
    }
    Some(ImageDecl::Dockerfile {
        path,
        target,
        args,
        context: String::new(),
    })
}

fn volumes<'a>(
    r: &mut Reader<'a, '_>,
    node: &Node<'a>,
    out: &mut BTreeMap<String, (MountDecl, Spot)>,
) {
    for (key, entry) in r.entries(node) {
        let full = entry.value.is_object();
        let path = if full {
            r.get(&entry, "path")
        } else {
            Some(entry)
        };
        let read_only = full && r.get_bool(&entry, "read_only").unwrap_or(false);
        let from = full.then(|| r.get(&entry, "from")).flatten();
        // The name is a volume's unless it is but a name for a folder of the machine.
        let name = r.name_key::<OwnerName>(key, &entry);
        let from = match from {
            Some(from) => match absolute(r, &from) {
                Some(path) => MountSourceDecl::Path(path),
                None => continue,
            },
            None => match name {
                Some(name) => MountSourceDecl::Volume(name.as_str().to_owned()),
                None => continue,
            },
        };
        let Some(path) = path.and_then(|path| absolute(r, &path)) else {
            continue;
        };
        let spot = r.key_spot(&entry);
        let mount = MountDecl {
            source: from,
            read_only,
        };
        if let Some((_, first)) = out.get(&path) {
            r.out.push(
                Diagnostic::error(
                    Code::PathClash,
                    format!("{} inside the container is claimed twice", quote(&path)),
                )
                .at(&spot, "by this volume")
                .at(first, "and by this one")
                .hint("give one of them another path"),
            );
            continue;
        }
        out.insert(path, (mount, spot));
    }
}

fn absolute<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<String> {
    let text = r.text(node)?;
    match crate::scalar::machine_path(text) {
        Ok(()) => Some(text.to_owned()),
        Err(problem) => {
            r.bad(
                node,
                Code::BadPath,
                format!("{}: {problem}", quote(text)),
                None,
            );
            None
        }
    }
}

/// Labels of a container, whose keys may also hold `/`. Those that begin with `plumb.` are Plumb's own.
fn labels<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>, out: &mut BTreeMap<String, String>) {
    for (key, value) in r.entries(node) {
        let Some(text) = r.text(&value) else { continue };
        let good =
            key.len() <= 128 && !key.is_empty() && key.split('/').all(crate::scalar::is_label_key);
        if !good {
            r.bad_key(
                &value,
                Code::BadLabel,
                format!("{} cannot be a label", quote(key)),
                Some("use letters, digits, `-`, `_`, `.` and `/`"),
            );
        } else if key == "plumb" || key.starts_with("plumb.") {
            r.bad_key(
                &value,
                Code::BadLabel,
                "labels that begin with `plumb.` are Plumb's own",
                Some("choose another beginning"),
            );
        } else if !crate::scalar::is_label_value(text) {
            r.bad(
                &value,
                Code::BadLabel,
                "a label's value is one line of at most 255 bytes",
                None,
            );
        } else {
            out.insert(key.to_owned(), text.to_owned());
        }
    }
}
