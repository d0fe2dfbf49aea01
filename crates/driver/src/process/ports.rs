//! Whether the ports of a process are free, and who holds them if they are not. Never listens, so that no
//! client is ever answered by the test.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use plumb_model::condition::Reason;
use plumb_model::{Fault, PortName};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use super::proc;

/// Says which port is taken, by the first one found.
pub fn check(ports: &BTreeMap<PortName, u16>) -> Result<(), Fault> {
    for (name, port) in ports {
        if !taken(*port) {
            continue;
        }
        let holder = match proc::listener(*port) {
            Some((pid, program)) => format!("{program} (process {pid})"),
            None => "another program, which this agent may not look into".to_owned(),
        };
        let message = format!(
            "port {port} ({name}) is held by {holder}: stop that program, or give the port another number"
        );
        return Err(Fault::new(Reason::PortTaken, message));
    }
    Ok(())
}

fn taken(port: u16) -> bool {
    [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST]
        .into_iter()
        .any(|address| {
            let tried = socket_with(
                AddressFamily::INET,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )
            .and_then(|socket| {
                // Connections of the incarnation before that linger in TIME_WAIT take nothing.
                sockopt::set_socket_reuseaddr(&socket, true)?;
                bind(&socket, &SocketAddrV4::new(address, port))
            });
            // Any other failure, such as a port that only root may take, is the program's to report.
            tried == Err(Errno::ADDRINUSE)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_either_address_takes_a_port_and_a_closed_one_frees_it() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let socket = std::net::TcpListener::bind(address).unwrap();
            let port = socket.local_addr().unwrap().port();
            assert!(taken(port), "{address}");
            drop(socket);
            assert!(!taken(port), "{address}");
        }
    }
}
