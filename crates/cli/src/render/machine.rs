//! Machines, as a table and one by one. Whatever an agent says of itself is escaped.

use plumb_model::Timestamp;
use plumb_model::escape::line;
use plumb_wire::v1;
use plumb_wire::v1::capability::State;
use serde_json::{Value, json};

use crate::out::Style;
use crate::render::{table, time};

/// A machine as JSON.
pub fn json(machine: &v1::Machine) -> Value {
    let text = |text: &str| match text {
        "" => Value::Null,
        text => Value::from(text),
    };
    let facts = machine.facts.as_ref();
    let capabilities: serde_json::Map<String, Value> = facts
        .into_iter()
        .flat_map(|facts| &facts.capabilities)
        .map(|capability| {
            let state = match &capability.state {
                Some(State::Detail(detail)) => json!({ "has": detail }),
                Some(State::Lack(lack)) => json!({ "lacks": lack.why, "remedy": lack.remedy }),
                None => Value::Null,
            };
            (capability.name.clone(), state)
        })
        .collect();
    let host = facts.and_then(|facts| facts.host.as_ref()).map(|host| {
        json!({
            "os": host.os,
            "cpus": host.cpus,
            "memory_bytes": host.memory_bytes,
            "memory_available_bytes": host.memory_available_bytes,
            "disk_bytes": host.disk_bytes,
            "disk_free_bytes": host.disk_free_bytes,
        })
    });
    let identity = machine.identity.as_ref().map(|identity| {
        json!({
            "enrolled_at": text(&identity.enrolled_at),
            "removed_at": text(&identity.removed_at),
            "public_key_sha256": identity.public_key_sha256,
            "certificate_serial": identity.certificate_serial,
            "certificate_not_after": text(&identity.certificate_not_after),
            "ca": text(&identity.ca),
        })
    });
    let instances: Vec<Value> = machine
        .instances
        .iter()
        .map(|i| json!({ "instance": i.instance, "from": text(&i.from), "last_seen": i.last_seen }))
        .collect();
    json!({
        "name": machine.name,
        "online": machine.online,
        "state": machine.state,
        "message": text(&machine.message),
        "last_seen": text(&machine.last_seen),
        "version": facts.map(|f| f.version.clone()),
        "arch": facts.map(|f| f.arch.clone()),
        "hostname": facts.map(|f| f.hostname.clone()),
        "kernel": facts.map(|f| f.kernel.clone()),
        "host": host,
        "capabilities": capabilities,
        "generation": machine.generation,
        "held": machine.held,
        "resources": machine.resources,
        "converged": machine.converged,
        "identity": identity,
        "instances": instances,
    })
}

fn ago(at: &str, now: Timestamp) -> String {
    match at.parse::<Timestamp>() {
        Ok(at) => format!("{} ago", time::ago(at, now)),
        Err(_) => "-".to_owned(),
    }
}

fn state(machine: &v1::Machine, style: &Style) -> String {
    let word = line(&machine.state).replace('_', " ");
    match machine.state.as_str() {
        "online" => style.good(&word),
        "regressed" | "quarantined" => style.bad(&word),
        _ => style.loud(&word),
    }
}

/// A size as people say it: `512 MiB`, `3.7 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 10.0 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

/// All of them.
pub fn list(machines: &[v1::Machine], style: &Style, now: Timestamp) -> String {
    if machines.is_empty() {
        return "There is no machine yet; add one with `plumb machine add ssh://USER@HOST --name NAME`.\n"
            .to_owned();
    }
    let head = [
        "MACHINE",
        "STATE",
        "LAST SEEN",
        "VERSION",
        "ARCH",
        "HOST",
        "CPU",
        "MEMORY",
        "DISK",
    ];
    let mut rows = vec![head.map(|cell| style.faint(cell)).to_vec()];
    for machine in machines {
        let facts = machine.facts.as_ref();
        let host = facts.and_then(|facts| facts.host.as_ref());
        let said =
            |text: Option<&String>| text.map_or("-".to_owned(), |text| line(text).into_owned());
        rows.push(vec![
            machine.name.clone(),
            state(machine, style),
            ago(&machine.last_seen, now),
            said(facts.map(|f| &f.version)),
            said(facts.map(|f| &f.arch)),
            said(facts.map(|f| &f.hostname)),
            host.map_or("-".to_owned(), |h| h.cpus.to_string()),
            host.map_or("-".to_owned(), |h| size(h.memory_bytes)),
            host.map_or("-".to_owned(), |h| size(h.disk_bytes)),
        ]);
    }
    let mut text = table::table("", &rows);
    let wrong = machines
        .iter()
        .filter(|m| matches!(m.state.as_str(), "regressed" | "quarantined"));
    for machine in wrong {
        text.push_str(&format!("{}: {}\n", machine.name, line(&machine.message)));
    }
    text
}

/// One of them.
pub fn show(machine: &v1::Machine, style: &Style, now: Timestamp) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |what: &str, value: String| rows.push(vec![style.faint(what), value]);
    row("machine", machine.name.clone());
    row("state", state(machine, style));
    if !machine.message.is_empty() {
        row("", line(&machine.message).into_owned());
    }
    row("last seen", ago(&machine.last_seen, now));
    row(
        "resources",
        format!("{} of {} converged", machine.converged, machine.resources),
    );
    if machine.held != machine.generation {
        row(
            "generation",
            format!(
                "{} is held, {} is recorded",
                machine.held, machine.generation
            ),
        );
    }
    if let Some(facts) = &machine.facts {
        row("agent", line(&facts.version).into_owned());
        row("host", line(&facts.hostname).into_owned());
        row(
            "system",
            format!("{}, Linux {}", line(&facts.arch), line(&facts.kernel)),
        );
        if let Some(host) = &facts.host {
            row("os", line(&host.os).into_owned());
            row("cpus", host.cpus.to_string());
            row(
                "memory",
                format!(
                    "{}, {} available",
                    size(host.memory_bytes),
                    size(host.memory_available_bytes)
                ),
            );
            row(
                "disk",
                format!(
                    "{}, {} free",
                    size(host.disk_bytes),
                    size(host.disk_free_bytes)
                ),
            );
        }
    }
    if let Some(identity) = &machine.identity {
        row("enrolled", identity.enrolled_at.clone());
        if !identity.removed_at.is_empty() {
            row("removed", identity.removed_at.clone());
        }
        if !identity.certificate_not_after.is_empty() {
            row(
                "certificate",
                format!(
                    "until {}, renewed by itself",
                    identity.certificate_not_after
                ),
            );
        }
    }
    let mut text = table::table("", &rows);
    if let Some(facts) = &machine.facts {
        text.push_str("\ncan\n");
        let cells = facts.capabilities.iter().map(|capability| {
            let name = line(&capability.name).into_owned();
            let (mark, why) = match &capability.state {
                Some(State::Detail(detail)) => (style.good("yes"), line(detail).into_owned()),
                Some(State::Lack(lack)) => (
                    style.loud("no"),
                    format!("{}: {}", line(&lack.why), line(&lack.remedy)),
                ),
                None => (style.faint("?"), String::new()),
            };
            vec![name, mark, why]
        });
        text.push_str(&table::table("  ", &cells.collect::<Vec<_>>()));
    }
    // One is what there should be; several tell of restarts, or of a copy.
    if machine.instances.len() > 1 || machine.state == "quarantined" {
        text.push_str("\nagents heard under this identity, the newest last\n");
        let cells = machine.instances.iter().map(|i| {
            let short: String = i.instance.chars().take(8).collect();
            vec![
                line(&short).into_owned(),
                line(&i.from).into_owned(),
                ago(&i.last_seen, now),
            ]
        });
        text.push_str(&table::table("  ", &cells.collect::<Vec<_>>()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn machine(name: &str, state: &str) -> v1::Machine {
        v1::Machine {
            name: name.to_owned(),
            online: state == "online",
            state: state.to_owned(),
            message: String::new(),
            last_seen: "2026-11-21T11:59:57Z".to_owned(),
            facts: Some(v1::MachineFacts {
                version: "0.1.0".to_owned(),
                arch: "x86_64".to_owned(),
                hostname: "host\u{1b}[2J\n".to_owned(),
                kernel: "6.1.0".to_owned(),
                capabilities: vec![
                    v1::Capability {
                        name: "files".to_owned(),
                        state: Some(State::Detail("openat2".to_owned())),
                    },
                    v1::Capability {
                        name: "containers".to_owned(),
                        state: Some(State::Lack(v1::Lack {
                            why: "no Docker Engine".to_owned(),
                            remedy: "install it".to_owned(),
                        })),
                    },
                ],
                host: Some(v1::HostFacts {
                    os: "Debian GNU/Linux 12 (bookworm)".to_owned(),
                    cpus: 2,
                    memory_bytes: 4_000_000_000,
                    memory_available_bytes: 900_000_000,
                    disk_bytes: 50_000_000_000,
                    disk_free_bytes: 20_000_000_000,
                }),
            }),
            generation: 4,
            held: 4,
            resources: 12,
            converged: 11,
            identity: Some(v1::MachineIdentity {
                enrolled_at: "2026-11-01T00:00:00Z".to_owned(),
                certificate_not_after: "2026-11-22T06:00:00Z".to_owned(),
                ..Default::default()
            }),
            instances: vec![v1::AgentInstance {
                instance: "3f2a91c4aaaa".to_owned(),
                from: "203.0.113.7:41022".to_owned(),
                last_seen: "2026-11-21T11:59:57Z".to_owned(),
            }],
        }
    }

    const PLAIN: Style = Style {
        color: false,
        live: false,
    };

    #[test]
    fn machines_are_a_table_and_what_is_wrong_follows_it() {
        let mut cloned = machine("web-2", "quarantined");
        cloned.message = "two agents live under the identity of machine web-2".to_owned();
        let never = v1::Machine {
            name: "web-3".to_owned(),
            state: "never_seen".to_owned(),
            ..Default::default()
        };
        let text = list(&[machine("web-1", "online"), cloned, never], &PLAIN, now());
        insta::assert_snapshot!(text);
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_machine_is_shown_with_its_host_and_what_it_can_do() {
        let mut shown = machine("web-1", "quarantined");
        shown.message = "two agents live under it".to_owned();
        insta::assert_snapshot!(show(&shown, &PLAIN, now()));
    }

    #[test]
    fn sizes_are_said_in_few_digits() {
        for (bytes, said) in [
            (0, "0.0 KiB"),
            (512 << 20, "512 MiB"),
            (4_000_000_000, "3.7 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(size(bytes), said);
        }
    }
}
