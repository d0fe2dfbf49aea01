//! Setups: packages, directories and files of the machine itself.

use plumb_blueprint::{Content, FileDecl, Setup};
use plumb_model::plan::Origin;
use plumb_model::state::OwnerKind;
use plumb_model::{
    Address, Addresses, DirectorySpec, FileContent, FileSpec, OwnerName, PackageSpec, ResourceKind,
    ResourceSpec,
};

use super::context::{Context, Draft, Made, escape};
use super::reach::{From, Reach};
use super::text::{Scope, is_secret};

pub(super) fn compile<'a>(
    context: &mut Context<'a>,
    owner: &OwnerName,
    setup: &'a Setup,
    reach: &Reach<'a>,
) -> Draft {
    let mut draft = Draft::new(OwnerKind::Setup);
    for (machine, info) in context.selected(&setup.machines) {
        let scope = Scope {
            from: From {
                machine,
                in_container: false,
            },
            info,
            reach,
            commit: context.input.commit,
            symbolic: false,
        };
        // What packages bring along is there before anything is put beside it.
        let mut packages = Addresses::new();
        for package in &setup.packages {
            let origin = context.origin("Setup", owner, "/packages");
            let address = Address::new(machine, owner, ResourceKind::Package, package);
            let spec = ResourceSpec::Package(PackageSpec {
                name: package.clone(),
            });
            packages.insert(address.clone());
            context.keep(&mut draft, address, Made::new(setup.drift, spec, origin));
        }
        for (path, decl) in &setup.directories {
            let spec = ResourceSpec::Directory(DirectorySpec {
                path: path.clone(),
                mode: decl.mode,
                owner: decl.owner.clone(),
                group: decl.group.clone(),
            });
            let pointer = format!("/directories/{}", escape(path));
            let made = Made {
                after: packages.clone(),
                ..Made::new(setup.drift, spec, context.origin("Setup", owner, &pointer))
            };
            let address = Address::new(machine, owner, ResourceKind::Directory, path);
            context.keep(&mut draft, address, made);
        }
        for (path, decl) in &setup.files {
            let origin = context.origin("Setup", owner, &format!("/files/{}", escape(path)));
            let Some(content) = content(context, decl, &scope, origin.clone()) else {
                continue;
            };
            let spec = ResourceSpec::File(FileSpec {
                path: path.clone(),
                content,
                mode: decl.mode,
                owner: decl.owner.clone(),
                group: decl.group.clone(),
                notify: decl.notify.clone(),
            });
            let made = Made {
                after: packages.clone(),
                ..Made::new(setup.drift, spec, origin)
            };
            let address = Address::new(machine, owner, ResourceKind::File, path);
            context.keep(&mut draft, address, made);
        }
    }
    draft
}

fn content(
    context: &mut Context<'_>,
    decl: &FileDecl,
    scope: &Scope<'_>,
    origin: Option<Origin>,
) -> Option<FileContent> {
    match &decl.content {
        Content::Text(text) if is_secret(text) => {
            let scope = Scope {
                symbolic: true,
                ..*scope
            };
            Some(FileContent::Template(context.text(text, &scope, origin)))
        }
        Content::Text(text) => Some(FileContent::Text(context.text(text, scope, origin))),
        Content::Source(path) => {
            let source = context.source(path, origin)?;
            Some(match &source.text {
                Some(text) => FileContent::Text(text.clone()),
                None => FileContent::Blob {
                    digest: source.digest,
                    size: source.size,
                },
            })
        }
    }
}
