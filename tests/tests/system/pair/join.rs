//! How a machine joins, and what must keep it from joining.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use plumb_tests::pair::{Pair, online, settled};

/// Row 16. Mutation: let `consume` of a token succeed twice.
#[test]
fn a_join_token_joins_one_machine_once() {
    let mut pair = Pair::new();
    pair.start_server();
    let token = pair.token("local", "1m");
    let server = pair.address();
    pair.start_agent_with(&["--server", &server, "--token", &token], &[]);
    pair.status_until("online", online);

    let mut second = pair.agent_command("second");
    second.args(["--server", &server, "--token", &token]);
    let line = pair.run(&mut second).one_line();
    assert!(line.contains("used"), "{line}");
    assert!(!pair.path("second/identity/enrolled.json").exists());
    assert_eq!(
        pair.try_status().unwrap()["machines"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn an_expired_join_token_is_refused_in_one_line() {
    let mut pair = Pair::new();
    pair.start_server();
    let token = pair.token("local", "1s");
    // Time itself is what is waited for.
    std::thread::sleep(Duration::from_millis(1100));
    let mut agent = pair.agent_command("agent");
    agent.args(["--server", &pair.address(), "--token", &token]);
    let line = pair.run(&mut agent).one_line();
    assert!(
        line.contains("expired") && line.contains("token create"),
        "{line}"
    );
}

#[test]
fn what_is_no_token_and_a_server_that_is_away_are_told_in_one_line() {
    let pair = Pair::new();
    let mut agent = pair.agent_command("agent");
    agent.args([
        "--server",
        &pair.address(),
        "--token",
        "plumb-join_nonsense",
    ]);
    let line = pair.run(&mut agent).one_line();
    assert!(
        line.contains("token") && !line.contains("nonsense"),
        "{line}"
    );

    let token = format!(
        "plumb-join_{}_{}_{}",
        "a".repeat(16),
        "b".repeat(64),
        "c".repeat(64)
    );
    let mut agent = pair.agent_command("agent");
    agent.args(["--server", &pair.address(), "--token", &token]);
    let line = pair.run(&mut agent).one_line();
    assert!(line.contains(&pair.address()), "{line}");

    let line = pair.run(&mut pair.agent_command("agent")).one_line();
    assert!(line.contains("not enrolled"), "{line}");
}

/// A server with a CA of its own, that keeps every byte which it can read.
fn impostor() -> (String, Arc<Mutex<Vec<u8>>>, JoinHandle<()>) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = ["control-plane.plumb.internal", "localhost"].map(str::to_owned);
    let leaf = CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone(), ca_cert.der().clone()],
            key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    config.alpn_protocols.push(b"h2".to_vec());
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let keep = heard.clone();
    let thread = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut tls = rustls::ServerConnection::new(config).unwrap();
        let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
        let mut read = Vec::new();
        let _ = stream.read_to_end(&mut read);
        keep.lock().unwrap().extend(read);
    });
    (address, heard, thread)
}

/// Row 20. Mutation: skip the comparison of the digest in `pin`.
#[test]
fn a_control_plane_of_another_ca_never_sees_the_token() {
    let mut pair = Pair::new();
    pair.start_server();
    let token = pair.token("local", "1m");
    let (address, heard, thread) = impostor();
    let mut agent = pair.agent_command("agent");
    agent.args(["--server", &address, "--token", &token]);
    let line = pair.run(&mut agent).one_line();
    thread.join().unwrap();
    assert!(
        line.contains("CA") || line.contains("certificate"),
        "{line}"
    );
    let heard = heard.lock().unwrap();
    assert!(heard.is_empty(), "{} bytes were sent", heard.len());

    // Nor does a real control plane that is another one; and the token is still good for its own.
    let mut other = Pair::new();
    other.start_server();
    let mut agent = pair.agent_command("agent");
    agent.args(["--server", &other.address(), "--token", &token]);
    pair.run(&mut agent).one_line();
    let server = pair.address();
    pair.start_agent_with(&["--server", &server], &[("PLUMB_JOIN_TOKEN", &token)]);
    pair.status_until("online", online);
}

fn assert_no_secret_beneath(pair: &Pair, folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            assert_no_secret_beneath(pair, &entry.path());
        } else if kind.is_file() {
            let text = fs::read(entry.path()).unwrap();
            assert!(!pair.tells_a_secret(&text), "a token in {:?}", entry.path());
        }
    }
}

/// Row 32. Mutation: log the request of a join. The logs and outputs of every pair are searched when it goes.
#[test]
fn tokens_stand_in_no_log_no_data_folder_and_no_command_line() {
    let mut pair = Pair::new();
    pair.log_level = "trace";
    pair.start_server();
    pair.join();
    pair.write_app(&[], "");
    pair.apply();
    pair.status_until("settled", settled);
    let pid = pair.agent.as_ref().unwrap().pid();
    for line in ["cmdline", "environ"] {
        let text = fs::read(format!("/proc/{}/{line}", pair.incarnation().pid)).unwrap();
        assert!(!pair.tells_a_secret(&text));
    }
    assert!(!pair.tells_a_secret(&fs::read(format!("/proc/{pid}/cmdline")).unwrap()));
    for folder in ["server", "agent", "logs"] {
        assert_no_secret_beneath(&pair, &pair.path(folder));
    }
    // The search finds what is where it belongs.
    for place in [
        pair.path("config/plumb/contexts/main.json"),
        format!("/proc/{pid}/environ").into(),
    ] {
        assert!(pair.tells_a_secret(&fs::read(place).unwrap()));
    }
    let context = fs::metadata(pair.path("config/plumb/contexts/main.json")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&context.permissions()) & 0o777,
        0o600
    );
}
