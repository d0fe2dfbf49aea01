//! Reads the Compose files that apps name into the set.

use std::collections::BTreeSet;

use plumb_model::plan::Origin;

use super::{Options, Set};
use crate::code::Code;
use crate::compose::{self, Project};
use crate::convert::app::FixedPort;
use crate::diagnostic::{Diagnostic, Diagnostics, Spot, quote};
use crate::document;
use crate::nearest::nearest;
use crate::schema::Kind;
use crate::set::{App, Source as AppSource, Workload};
use crate::source::{Source, SourceFile};

/// The repository paths of the files besides blueprints that these blueprints consist of: Compose files. They are to be
/// handed in with [`Options::others`].
#[must_use]
pub fn others(files: &[SourceFile]) -> BTreeSet<String> {
    let mut wanted = BTreeSet::new();
    let mut ignored = Diagnostics::default();
    for file in files {
        // Nearly no file names one, and looking closer costs as much as parsing.
        if !file.text.windows(8).any(|bytes| bytes == b"compose:") {
            continue;
        }
        let Some(source) = Source::decode(file, &mut ignored) else {
            continue;
        };
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for document in document::read(&source, &mut ignored) {
            let app = document
                .kind
                .as_ref()
                .is_some_and(|(word, _)| Kind::parse(word) == Some(Kind::App));
            let path = document
                .value()
                .and_then(|value| value.get("compose")?.value.as_str());
            if let (true, Some(path)) = (app, path)
                && let Ok(path) = crate::scalar::repository_path(folder, path)
            {
                wanted.insert(path);
            }
        }
    }
    wanted
}

impl Set {
    /// Puts the projects of Compose files into their apps, and their claims beside those of others.
    pub(super) fn compose(&mut self, options: &Options, out: &mut Diagnostics) {
        for owner in &mut self.owners {
            let Some((path, spot)) = &owner.compose else {
                continue;
            };
            let Some(file) = options.others.iter().find(|file| file.path == *path) else {
                out.push(missing(path, spot, &options.others));
                continue;
            };
            let Some(app) = self.apps.get_mut(&owner.name) else {
                continue;
            };
            let project = compose::read(file, &app.machines, out);
            owner
                .fixed
                .extend(project.claims.iter().map(|(number, udp, spot)| FixedPort {
                    number: *number,
                    udp: *udp,
                    spot: spot.clone(),
                    replicas: app.replicas,
                }));
            for (name, place) in &project.places {
                let pointer = format!("/compose/{name}");
                let origin = Origin {
                    file: place.file.to_string(),
                    line: place.line,
                    column: place.column,
                };
                let app = owner.name.as_str();
                self.origins.elsewhere("App", app, pointer, origin);
            }
            fill(app, path, project);
        }
    }
}

fn fill(app: &mut App, path: &str, project: Project) {
    if project.builds() {
        // Build contexts are folders beside the file.
        let folder = path.rsplit_once('/').map_or(".", |(folder, _)| folder);
        app.source = Some(AppSource::Path {
            path: folder.to_owned(),
            dir: String::new(),
        });
    }
    let Workload::Compose(compose) = &mut app.workload else {
        return;
    };
    for (name, mut container) in project.services {
        // What the app says for all its services; a service's own wins.
        let own = std::mem::take(&mut container.env);
        container.env.clone_from(&app.env);
        container.env.extend(own);
        compose.services.insert(name, container);
    }
    compose.volumes = project.volumes;
    compose.networks = project.networks;
}

fn missing(path: &str, spot: &Spot, others: &[SourceFile]) -> Diagnostic {
    let hint = match nearest(path, others.iter().map(|file| file.path.as_str())) {
        Some(meant) => format!(
            "did you mean {}, counted from the repository's root?",
            quote(meant)
        ),
        None => "paths are relative to the file that they stand in".to_owned(),
    };
    Diagnostic::error(
        Code::ComposeMissing,
        format!(
            "there is no Compose file {} in this repository",
            quote(path)
        ),
    )
    .here(spot)
    .hint(hint)
}
