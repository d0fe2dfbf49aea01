//! The ports of a service, in each of the forms that Compose has for them.

use plumb_model::PortName;
use serde_json::{Map, Value};

use super::super::{Project, Reader};
use crate::events::join;
use crate::set::{Container, ContainerPort, Port, Publish};

impl<'a> Reader<'a, '_> {
    pub(super) fn ports(
        &mut self,
        at: &str,
        map: &'a Map<String, Value>,
        container: &mut Container,
        project: &mut Project,
    ) {
        let at = join(at, "ports");
        let items = match map.get("ports") {
            None | Some(Value::Null) => return,
            Some(Value::Array(items)) => items,
            Some(other) => return self.mismatch(&at, other, "a list"),
        };
        for (i, item) in items.iter().enumerate() {
            let at = format!("{at}/{i}");
            let read = match item {
                Value::Number(number) => short_port(&number.to_string()),
                Value::Object(map) => self.long_port(&at, map),
                other => match self.text(&at, other) {
                    Some(text) => short_port(&text),
                    None => continue,
                },
            };
            let Some(port) = read else {
                self.bad(&at, "this is no port", "write \"8080:80\", \"127.0.0.1:8080:80\" or \"53:53/udp\"; ranges are written out");
                continue;
            };
            if let Port::Fixed(number) = port.machine {
                project
                    .claims
                    .push((number, port.udp, self.document.spot(&at)));
            }
            let protocol = if port.udp { "-udp" } else { "" };
            let name = format!("p{}{protocol}", port.container);
            let name = PortName::new(&name).expect("letters, digits and a dash inside");
            if container.ports.insert(name, port).is_some() {
                self.bad(
                    &at,
                    "this port of the container stands here twice",
                    "remove one of them",
                );
            }
        }
    }

    fn long_port(&mut self, at: &str, map: &'a Map<String, Value>) -> Option<ContainerPort> {
        self.only(
            at,
            map,
            &[
                "target",
                "published",
                "host_ip",
                "protocol",
                "name",
                "mode",
                "app_protocol",
            ],
        );
        let number = |value: Option<&Value>| -> Option<u16> {
            match value? {
                Value::Number(n) => n.as_u64().and_then(|n| u16::try_from(n).ok()),
                Value::String(text) => text.parse().ok(),
                _ => None,
            }
            .filter(|n| *n > 0)
        };
        let machine = match map.get("published") {
            None => Port::Auto,
            published => Port::Fixed(number(published)?),
        };
        Some(ContainerPort {
            container: number(map.get("target"))?,
            machine,
            publish: publish(map.get("host_ip").and_then(Value::as_str)),
            udp: match map.get("protocol").and_then(Value::as_str) {
                None | Some("tcp") => false,
                Some("udp") => true,
                Some(_) => return None,
            },
        })
    }
}

/// Compose publishes on every address unless one is named.
fn publish(address: Option<&str>) -> Publish {
    match address {
        None | Some("0.0.0.0" | "") => Publish::Public,
        Some("127.0.0.1") => Publish::Loopback,
        Some(other) => Publish::Address(other.to_owned()),
    }
}

/// `80`, `8080:80`, `127.0.0.1:8080:80`, each with `/tcp` or `/udp`.
fn short_port(text: &str) -> Option<ContainerPort> {
    let (text, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let udp = match protocol {
        "tcp" => false,
        "udp" => true,
        _ => return None,
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|n| *n > 0);
    let mut parts = text.rsplitn(3, ':');
    let container = number(parts.next()?)?;
    let machine = match parts.next() {
        None | Some("") => Port::Auto,
        Some(text) => Port::Fixed(number(text)?),
    };
    let address = parts.next();
    if address.is_some_and(|a| a.parse::<std::net::IpAddr>().is_err()) {
        return None;
    }
    Some(ContainerPort {
        container,
        machine,
        publish: publish(address),
        udp,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_in_each_short_form() {
        let port = |container, machine, publish, udp| {
            Some(ContainerPort {
                container,
                machine,
                publish,
                udp,
            })
        };
        for (text, expected) in [
            ("80", port(80, Port::Auto, Publish::Public, false)),
            (
                "8080:80",
                port(80, Port::Fixed(8080), Publish::Public, false),
            ),
            (
                "127.0.0.1:53:53/udp",
                port(53, Port::Fixed(53), Publish::Loopback, true),
            ),
            (
                "127.0.0.1::80",
                port(80, Port::Auto, Publish::Loopback, false),
            ),
            ("80-90", None),
            ("0", None),
            ("x:80", None),
            ("host:80:80", None),
            ("80/sctp", None),
        ] {
            assert_eq!(short_port(text), expected, "{text}");
        }
    }
}
