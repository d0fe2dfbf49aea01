//! Callers who take more than their share of the one port: connections that say nothing, that stop reading, and that break the
//! rules of HTTP/2 as fast as they can.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use plumb_tests::pair::{PATIENCE, Pair, peak_memory, settled, wait};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, RootCertStore, StreamOwned};

/// How much the control plane may grow under a flood, in bytes: a debug build holds some tens of MiB to begin with.
const GROWTH: u64 = 96 * 1024 * 1024;

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A connection that is let in and has said nothing of HTTP/2 yet.
fn connect(pair: &Pair) -> Tls {
    let context = std::fs::read_to_string(pair.path("config/plumb/contexts/main.json")).unwrap();
    let context: serde_json::Value = serde_json::from_str(&context).unwrap();
    let ca = context["ca_pem"].as_str().unwrap();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols.push(b"h2".to_vec());
    let name = ServerName::try_from("control-plane.plumb.internal").unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let tcp = TcpStream::connect(pair.address()).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.set_write_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(tls, tcp)
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `POST /x` over https, with what every request must have, as HPACK writes it.
fn request_headers() -> Vec<u8> {
    // :method POST, :scheme https, from the static table; :path and :authority written out.
    let mut block = vec![0x83, 0x87];
    block.extend([0x04, 2]);
    block.extend(b"/x");
    block.extend([0x01, 1]);
    block.extend(b"x");
    block
}

/// Says hello in HTTP/2.
fn preface(tls: &mut Tls) {
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    tls.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
}

/// Sends frames until the server has had enough; whether it had, and how many went out.
fn flood(pair: &Pair, most: u32, frames: impl Fn(u32) -> Vec<u8>) -> (bool, u32) {
    let mut tls = connect(pair);
    preface(&mut tls);
    for number in 0..most {
        if tls.write_all(&frames(number)).is_err() || tls.flush().is_err() {
            return (true, number);
        }
    }
    // What it says to that comes after its answers.
    let _ = tls.sock.set_read_timeout(Some(Duration::from_secs(5)));
    let mut heard = Vec::new();
    let mut piece = [0; 16 * 1024];
    while let Ok(count) = tls.read(&mut piece) {
        if count == 0 {
            return (true, most);
        }
        heard.extend_from_slice(&piece[..count]);
        if is_told_off(&heard) {
            return (true, most);
        }
    }
    (is_told_off(&heard), most)
}

/// Whether a GOAWAY is among these frames.
fn is_told_off(mut heard: &[u8]) -> bool {
    while let [a, b, c, kind, ..] = *heard {
        if kind == GOAWAY {
            return true;
        }
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        match heard.get(9 + length..) {
            Some(rest) => heard = rest,
            None => return false,
        }
    }
    false
}

/// Whether others are served meanwhile, and how much memory the server has taken.
fn assert_serves(pair: &Pair, before: u64, what: &str) {
    let grown = serves(pair, before);
    assert!(grown < GROWTH, "{what}: grown by {grown} bytes");
}

/// By how much the server has grown, while others are served.
fn serves(pair: &Pair, before: u64) -> u64 {
    pair.plumb(&["status"]).good();
    peak_memory(pair.server.as_ref().unwrap().pid()).saturating_sub(before)
}

/// Row 41. Mutation: an h2 before 0.4.16, or a `http2_max_header_list_size` of the server without a bound. (Left out, hyper's
/// own 16 KiB hold.)
#[test]
fn floods_of_http2_frames_end_their_own_connection_and_nobody_elses() {
    let pair = Pair::started();
    pair.status_until("settled", settled);
    let before = peak_memory(pair.server.as_ref().unwrap().pid());

    let (ended, sent) = flood(&pair, 200_000, |number| {
        let stream = number * 2 + 1;
        let mut both = frame(HEADERS, END_HEADERS, stream, &request_headers());
        both.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        both
    });
    assert!(ended, "{sent} streams opened and reset at once");
    assert_serves(&pair, before, "resets");

    let (ended, sent) = flood(&pair, 20_000, |number| {
        let junk = vec![0; 8 * 1024];
        if number == 0 {
            frame(HEADERS, END_STREAM, 1, &request_headers())
        } else {
            // Never ended: one header block that grows for ever.
            frame(CONTINUATION, 0, 1, &junk)
        }
    });
    assert!(ended, "{sent} continuations of one header block");
    assert_serves(&pair, before, "continuations");

    // Pings have to be answered: whoever does not read the answers is held back, and costs no memory.
    let mut tls = connect(&pair);
    preface(&mut tls);
    tls.sock
        .set_write_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    for _ in 0..200_000 {
        if tls.write_all(&frame(PING, 0, 0, &[0; 8])).is_err() {
            break;
        }
    }
    assert_serves(&pair, before, "pings");
}

/// Row 41. Mutations: leave the deadline out of `tls::accept`; take connections in one after the other there.
#[test]
fn connections_that_say_nothing_keep_nobody_out_and_are_closed() {
    const SILENT: usize = 300;
    let pair = Pair::started();
    let before = peak_memory(pair.server.as_ref().unwrap().pid());
    let silent: Vec<TcpStream> = (0..SILENT)
        .map(|_| TcpStream::connect(pair.address()).unwrap())
        .collect();
    // Some say half of something.
    for mut stream in silent.iter().step_by(2) {
        stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).unwrap();
    }
    assert_serves(&pair, before, "silent connections");
    for mut stream in &silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        assert!(
            stream.read_to_end(&mut rest).is_ok() || !rest.is_empty(),
            "a handshake that does not come is given up"
        );
    }
}

/// Row 41. Mutation: make the channel of a follower of logs unbounded.
#[test]
fn a_reader_that_stops_reading_holds_nobody_up_and_costs_no_memory() {
    let mut pair = Pair::started();
    pair.write_app(&[], "env: { ROUND: zero }\n");
    pair.apply();
    let before = peak_memory(pair.server.as_ref().unwrap().pid());
    // A follower of the log of an app that floods it, and one that is never read.
    pair.write_app(
        &["--flood"],
        "env: { ROUND: one }\nlog: { max_size: 1Mi, keep: 2 }\n",
    );
    pair.apply_detached();
    let mut readers: Vec<_> = (0..3)
        .map(|_| {
            let mut command = pair.command();
            command.args(["logs", "app", "--follow"]);
            command.stdout(std::process::Stdio::piped());
            command.spawn().expect("plumb starts")
        })
        .collect();
    for round in 0..8 {
        pair.write_app(
            &["--flood"],
            &format!(
                "env: {{ ROUND: \"{round}\" }}\nlog: {{ max_size: 1Mi, keep: 2 }}\nstop: 1s\n"
            ),
        );
        pair.apply_detached();
        wait("it goes on", PATIENCE, || pair.try_status().filter(settled));
    }
    // What three readers may have waiting for them is a few MiB; what the app has written by now is far more.
    let grown = serves(&pair, before);
    assert!(grown < GROWTH / 2, "grown by {grown} bytes");
    for reader in &mut readers {
        let _ = reader.kill();
        let _ = reader.wait();
    }
    std::fs::remove_file(pair.path("repo/app.yaml")).unwrap();
    pair.apply();
    pair.kill_server();
}
