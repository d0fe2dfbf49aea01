//! Every environment variable that Plumb hands to workloads by itself: the one list of them, and their names.
//!
//! What a blueprint writes under `env` goes before all of these. The agent adds PATH, HOME, USER, LOGNAME and SHELL to a
//! native process where the blueprint does not; nothing else is added anywhere.

use crate::name::{OwnerName, PortName};

/// The variable, who gets it, and what is in it, in the order in which people read them.
pub const INJECTED: [(&str, &str, &str); 7] = [
    (
        "`PORT_NAME`",
        "a process, a container that is not of a Compose file",
        "the number of the port `name` that it is to listen on",
    ),
    (
        "`PORT`",
        "the same, if it has one port alone",
        "the number of that port",
    ),
    (
        "`HOST`",
        "a process with a port that is published beyond loopback",
        "the address to listen on",
    ),
    (
        "`SERVICE_URL`",
        "whatever `uses` the service",
        "how to reach it, with the password in it where there is one",
    ),
    (
        "`SERVICE_HOST`, `SERVICE_PORT`, `SERVICE_USER`, `SERVICE_NAME`",
        "whatever `uses` the service",
        "the address, the port, the user and the database",
    ),
    (
        "`SERVICE_PASSWORD`",
        "whatever `uses` the service, where it has one",
        "the password, from the moment of the start; never shown",
    ),
    (
        "`KEY`, `KEY_FILE`",
        "whatever lists `KEY` under `secrets`",
        "the secret, or the path of the file that holds it",
    ),
];

/// The variable of a port: `PORT_HTTP`.
#[must_use]
pub fn port_variable(port: &PortName) -> String {
    format!("PORT_{}", upper(port.as_str()))
}

/// The variable of something about a service: `DB_URL`.
#[must_use]
pub fn service_variable(service: &OwnerName, what: &str) -> String {
    format!("{}_{what}", upper(service.as_str()))
}

fn upper(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_variables() {
        let port = PortName::new("http-alt").unwrap();
        assert_eq!(port_variable(&port), "PORT_HTTP_ALT");
        let service = OwnerName::new("main-db").unwrap();
        assert_eq!(service_variable(&service, "URL"), "MAIN_DB_URL");
    }
}
