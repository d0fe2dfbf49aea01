//! What holds of every set that parsing makes, checked of one that came from elsewhere: the API takes sets from
//! anybody, and plans none that parsing would have refused.
//!
//! What two resources claim at once (ports, paths, routes) and what references lead nowhere is the planner's to find,
//! for every set alike.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use plumb_model::OwnerName;

use super::{App, BlueprintSet, Port, Selector, Source};

/// The most instances of one app or process. Far more than run anywhere, and few enough to be placed in a moment.
pub const MAX_INSTANCES: u32 = 10_000;

/// What is wrong with a set, and with what in it: a fragment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct SetError {
    /// Which document.
    pub what: String,
    /// What does not hold.
    pub why: String,
}

fn wrong(what: &str, why: impl Into<String>) -> SetError {
    SetError {
        what: what.to_owned(),
        why: why.into(),
    }
}

/// Whether a path stays where it begins.
fn stays_inside(path: &str) -> bool {
    Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        && !path.contains('\0')
}

/// Whether a path is absolute and written the one way.
fn is_absolute(path: &str) -> bool {
    let rest = path.strip_prefix('/');
    rest.is_some_and(|rest| {
        !path.contains('\0')
            && (rest.is_empty() || rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
    })
}

/// Whether a text can be the name of an environment variable.
fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0', '\n']) && !name.starts_with(char::is_whitespace)
}

/// Whether a text can be a user's or group's name or number.
fn is_account(name: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$');
    !name.is_empty() && name.len() <= 32 && !name.starts_with('-') && name.chars().all(inside)
}

/// Whether a text can be a host of a route.
fn is_host(host: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let host = host.strip_prefix("*.").unwrap_or(host);
    !host.is_empty() && host.len() <= 253 && host.chars().all(inside)
}

impl BlueprintSet {
    /// Checks what parsing guarantees of every set.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn check(&self) -> Result<(), SetError> {
        self.check_names()?;
        for (name, app) in &self.apps {
            self.check_app(&format!("App {name}"), app)?;
        }
        for (name, setup) in &self.setups {
            let what = format!("Setup {name}");
            self.check_selector(&what, &setup.machines)?;
            for path in setup.files.keys().chain(setup.directories.keys()) {
                if !is_absolute(path) {
                    return Err(wrong(
                        &what,
                        format!("the path {path:?} is not absolute and normalised"),
                    ));
                }
            }
            let files = setup.files.values().map(|file| (&file.owner, &file.group));
            let folders = setup
                .directories
                .values()
                .map(|dir| (&dir.owner, &dir.group));
            for account in files
                .chain(folders)
                .flat_map(|(owner, group)| [owner, group])
            {
                check_account(&what, account.as_deref())?;
            }
        }
        for (name, service) in &self.services {
            let what = format!("Service {name}");
            self.check_selector(&what, &service.machines)?;
            let on = self
                .machines
                .iter()
                .filter(|(name, info)| service.machines.matches(name, info));
            if on.count() != 1 {
                return Err(wrong(&what, "it is not on exactly one machine"));
            }
        }
        for (name, volume) in &self.volumes {
            self.check_selector(&format!("Volume {name}"), &volume.machines)?;
        }
        for (name, network) in &self.networks {
            self.check_selector(&format!("Network {name}"), &network.machines)?;
        }
        let outside = self.paths.iter().find(|path| !stays_inside(path));
        match outside {
            Some(path) => Err(wrong(
                "paths",
                format!("{path:?} leads out of the repository"),
            )),
            None => Ok(()),
        }
    }

    /// No name twice, and none that something had and something else has.
    fn check_names(&self) -> Result<(), SetError> {
        let mut seen: BTreeMap<&OwnerName, &str> = BTreeMap::new();
        let former = |kind, name, was: &Option<OwnerName>| (kind, name, was.clone());
        let all = (self
            .apps
            .iter()
            .map(|(n, d)| former("App", n, &d.renamed_from)))
        .chain(
            self.setups
                .iter()
                .map(|(n, d)| former("Setup", n, &d.renamed_from)),
        )
        .chain(
            self.services
                .iter()
                .map(|(n, d)| former("Service", n, &d.renamed_from)),
        )
        .chain(
            self.volumes
                .iter()
                .map(|(n, d)| former("Volume", n, &d.renamed_from)),
        )
        .chain(
            self.networks
                .iter()
                .map(|(n, d)| former("Network", n, &d.renamed_from)),
        );
        let all: Vec<_> = all.collect();
        for (kind, name, _) in &all {
            if let Some(other) = seen.insert(name, kind) {
                return Err(wrong(
                    &format!("{kind} {name}"),
                    format!("there is a {other} of that name"),
                ));
            }
        }
        let taken = all
            .iter()
            .find(|(_, _, was)| was.as_ref().is_some_and(|was| seen.contains_key(was)));
        match taken {
            Some((kind, name, _)) => Err(wrong(
                &format!("{kind} {name}"),
                "the name that it had is in use",
            )),
            None => Ok(()),
        }
    }

    fn check_selector(&self, what: &str, selector: &Selector) -> Result<(), SetError> {
        let holds = match selector {
            Selector::All => true,
            Selector::Names(names) => names.iter().all(|name| self.machines.contains_key(name)),
            Selector::Labels(_) => self
                .machines
                .iter()
                .any(|(name, info)| selector.matches(name, info)),
        };
        if holds {
            return Ok(());
        }
        Err(wrong(
            what,
            "it names a machine that is none, or labels that no machine has",
        ))
    }

    fn check_app(&self, what: &str, app: &App) -> Result<(), SetError> {
        self.check_selector(what, &app.machines)?;
        if let Some(ingress) = &app.ingress {
            self.check_selector(what, ingress)?;
        }
        if let Some(name) = app
            .uses
            .iter()
            .find(|name| !self.services.contains_key(*name))
        {
            return Err(wrong(
                what,
                format!("it uses the Service {name}, which is none"),
            ));
        }
        check_account(what, app.user.as_deref())?;
        if let Some(route) = app.routes.iter().find(|route| !is_host(&route.host)) {
            return Err(wrong(what, format!("{:?} is no host", route.host)));
        }
        if let Some(Source::Path { path, dir }) = &app.source
            && !(stays_inside(path) && stays_inside(dir))
        {
            return Err(wrong(what, "its source leads out of the repository"));
        }
        let mut instances = vec![app.replicas];
        let mut variables: Vec<&String> = app.env.keys().collect();
        for (name, process) in &app.processes {
            instances.push(process.replicas);
            variables.extend(process.env.keys());
            if process.argv.is_empty() || process.argv[0].is_empty() {
                return Err(wrong(what, format!("the process {name} has no command")));
            }
            if !stays_inside(&process.dir) {
                return Err(wrong(
                    what,
                    format!("the folder of the process {name} is outside of its source"),
                ));
            }
            if process.ports.values().any(|port| *port == Port::Fixed(0)) {
                return Err(wrong(what, format!("the process {name} has a port 0")));
            }
        }
        if let Some(variable) = variables.into_iter().find(|name| !is_variable(name)) {
            return Err(wrong(
                what,
                format!("{variable:?} cannot name an environment variable"),
            ));
        }
        if instances
            .into_iter()
            .flatten()
            .any(|count| count > MAX_INSTANCES)
        {
            return Err(wrong(
                what,
                format!("it has more than {MAX_INSTANCES} instances"),
            ));
        }
        Ok(())
    }
}

fn check_account(what: &str, account: Option<&str>) -> Result<(), SetError> {
    match account {
        Some(name) if !is_account(name) => {
            Err(wrong(what, format!("{name:?} is no user or group")))
        }
        _ => Ok(()),
    }
}
