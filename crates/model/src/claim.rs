//! What of a machine only one resource can have: a path, a port, a route.
//!
//! The planner refuses two resources that claim the same; dispatch lets one go before another takes what it had.

use crate::resource::Resource;
use crate::spec::ResourceSpec;

/// Something of a machine that only one resource can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim<'a> {
    /// A path.
    Path(&'a str),
    /// A port.
    Port {
        /// Its number.
        number: u16,
        /// Of UDP, and otherwise of TCP.
        udp: bool,
    },
    /// A host and a path under it.
    Route {
        /// The host.
        host: &'a str,
        /// The path.
        path: &'a str,
    },
}

impl std::fmt::Display for Claim<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => write!(f, "path {path}"),
            Self::Port { number, udp } => {
                let protocol = if *udp { " (udp)" } else { "" };
                write!(f, "port {number}{protocol}")
            }
            Self::Route { host, path } => write!(f, "route {host}{path}"),
        }
    }
}

/// What a resource has for itself alone on its machine.
pub fn each_claim<'a>(resource: &'a Resource, mut each: impl FnMut(Claim<'a>)) {
    use ResourceSpec::{Container, Directory, File, Process, Route, Service};
    let port = |number: u16, udp: bool| Claim::Port { number, udp };
    match &resource.spec {
        Directory(spec) => each(Claim::Path(&spec.path)),
        File(spec) => each(Claim::Path(&spec.path)),
        Process(spec) => spec.ports.values().for_each(|p| each(port(*p, false))),
        Container(spec) => spec
            .ports
            .values()
            .for_each(|p| each(port(p.machine, p.udp))),
        Service(spec) => each(port(spec.port, false)),
        Route(spec) => spec.hosts.iter().for_each(|host| {
            each(Claim::Route {
                host,
                path: &spec.path,
            });
        }),
        _ => {}
    }
}
