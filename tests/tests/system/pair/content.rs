//! Content on its way to a machine: exact, in pieces, and resumed.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plumb_tests::pair::{PATIENCE, Pair, settled, wait};

/// Bytes that nothing can make smaller, and that are no text.
fn noise(count: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

#[test]
fn binary_content_arrives_byte_for_byte_with_its_mode_and_owner() {
    let pair = Pair::started();
    let content = noise(100_000, 7);
    assert!(std::str::from_utf8(&content).is_err());
    pair.write("files/blob.bin", &content);
    pair.write("files/empty.bin", b"");
    let root = rustix::process::geteuid().is_root();
    let owner = if root {
        ", owner: daemon, group: daemon"
    } else {
        ""
    };
    pair.write(
        "base.yaml",
        format!(
            "kind: Setup\nname: base\nmachines: local\nfiles:\n  \
             {0}/blob: {{ source: files/blob.bin, mode: \"0641\"{owner} }}\n  \
             {0}/empty: {{ source: files/empty.bin }}\n",
            pair.path("managed").display()
        ),
    );
    pair.apply();
    let path = pair.path("managed/blob");
    let check = || {
        let metadata = fs::metadata(&path).ok()?;
        let right = fs::read(&path).ok()? == content
            && metadata.permissions().mode() & 0o7777 == 0o641
            && (!root || (metadata.uid(), metadata.gid()) == (1, 1));
        right.then_some(())
    };
    check().expect("content, mode and owner");
    assert_eq!(fs::read(pair.path("managed/empty")).unwrap(), b"");
    // One byte in the middle, at the same length.
    let mut other = content.clone();
    other[50_000] ^= 1;
    fs::write(&path, other).unwrap();
    wait("the content is restored", super::HEALED, check);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    wait("the mode is restored", super::HEALED, check);
}

/// Stands between agent and server; lets so many bytes through to the agent, and then none.
struct Gate {
    address: String,
    passed: Arc<AtomicU64>,
    limit: Arc<AtomicU64>,
}

impl Gate {
    fn before(server: String, limit: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Self {
            address: listener.local_addr().unwrap().to_string(),
            passed: Arc::default(),
            limit: Arc::new(AtomicU64::new(limit)),
        };
        let (passed, limit) = (gate.passed.clone(), gate.limit.clone());
        std::thread::spawn(move || {
            for agent in listener.incoming().flatten() {
                // While the server is away, the connection just closes.
                let Ok(there) = TcpStream::connect(&server) else {
                    continue;
                };
                let (up, down) = (
                    (agent.try_clone().unwrap(), there.try_clone().unwrap()),
                    (there, agent),
                );
                std::thread::spawn(move || pump(up.0, up.1, None));
                let counted = Some((passed.clone(), limit.clone()));
                std::thread::spawn(move || pump(down.0, down.1, counted));
            }
        });
        gate
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, counted: Option<(Arc<AtomicU64>, Arc<AtomicU64>)>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(read) if read > 0 => read,
            _ => break,
        };
        if let Some((passed, limit)) = &counted {
            passed.fetch_add(read as u64, Ordering::SeqCst);
            let mut other_end = [0];
            from.set_read_timeout(Some(Duration::from_millis(10)))
                .unwrap();
            while passed.load(Ordering::SeqCst) > limit.load(Ordering::SeqCst) {
                // Held back until the server is gone.
                if matches!(from.peek(&mut other_end), Ok(0)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            from.set_read_timeout(None).unwrap();
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Mutation: ask for every transfer from its beginning.
#[test]
fn a_large_artifact_comes_in_pieces_and_goes_on_where_a_crash_of_the_server_cut_it() {
    const MIB: u64 = 1 << 20;
    let mut pair = Pair::new();
    pair.start_server();
    let gate = Gate::before(pair.address(), 12 * MIB);
    let token = pair.token("local", "1m");
    pair.start_agent_with(
        &["--server", &gate.address],
        &[("PLUMB_JOIN_TOKEN", &token)],
    );
    let parts: Vec<Vec<u8>> = (0..6).map(|n| noise(5 << 20, n + 1)).collect();
    for (number, part) in parts.iter().enumerate() {
        pair.write(&format!("app/part-{number}"), part);
    }
    pair.write_app(&[], "source: { path: app }\n");
    pair.apply_detached();
    let partial = || {
        let folder = fs::read_dir(pair.path("agent/blobs")).ok()?;
        let sizes = folder
            .flatten()
            .filter_map(|e| Some(e.metadata().ok()?.len()));
        sizes.max()
    };
    let before = wait("a part is on the agent's disk", PATIENCE, || {
        partial().filter(|size| *size >= 8 * MIB)
    });
    assert!(before < 20 * MIB, "{before}");
    assert!(pair.running().is_empty());

    pair.kill_server();
    gate.limit.store(u64::MAX, Ordering::SeqCst);
    let passed = gate.passed.load(Ordering::SeqCst);
    pair.start_server();
    pair.status_until("settled", settled);
    let after = gate.passed.load(Ordering::SeqCst) - passed;
    assert!(
        after < 30 * MIB - before + 3 * MIB,
        "{after} bytes came after {before} were there"
    );
    let cwd = format!("/proc/{}/cwd", pair.incarnation().pid);
    for (number, part) in parts.iter().enumerate() {
        assert!(fs::read(format!("{cwd}/part-{number}")).unwrap() == *part);
    }
}

/// Stands between command line and server; breaks the connection once, after so many bytes towards the server. How many
/// went that way in all.
fn cutting(server: String, after: u64) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sent, left) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(after)));
    let counted = sent.clone();
    std::thread::spawn(move || {
        for mut near in listener.incoming().flatten() {
            let mut far = TcpStream::connect(&server).unwrap();
            let down = (far.try_clone().unwrap(), near.try_clone().unwrap());
            std::thread::spawn(move || pump(down.0, down.1, None));
            let (sent, left) = (counted.clone(), left.clone());
            std::thread::spawn(move || {
                let mut buffer = vec![0; 16 * 1024];
                while let Ok(read @ 1..) = near.read(&mut buffer) {
                    sent.fetch_add(read as u64, Ordering::SeqCst);
                    let before = left.load(Ordering::SeqCst);
                    let now = before.saturating_sub(read as u64);
                    left.store(now, Ordering::SeqCst);
                    if before > 0 && now == 0 || far.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
                let _ = near.shutdown(Shutdown::Both);
                let _ = far.shutdown(Shutdown::Both);
            });
        }
    });
    (address, sent)
}

/// Mutation: say in `missing_blobs` that nothing came, or remove an upload that is cut.
#[test]
fn an_upload_that_is_cut_goes_on_where_it_stopped_and_no_byte_is_wrong() {
    const MIB: u64 = 1 << 20;
    let pair = Pair::started();
    let (address, sent) = cutting(pair.address(), 16 * MIB);
    let context = fs::read_to_string(pair.path("config/plumb/contexts/main.json")).unwrap();
    let direct = pair.address();
    assert!(context.contains(&direct));
    let through = pair.path("through.json");
    fs::write(&through, context.replace(&direct, &address)).unwrap();
    fs::set_permissions(&through, fs::Permissions::from_mode(0o600)).unwrap();
    let content = noise(20 << 20, 3);
    pair.write("files/large", &content);
    let target = pair.path("managed/large");
    pair.write(
        "base.yaml",
        format!(
            "kind: Setup\nname: base\nmachines: local\nfiles:\n  {}: {{ source: files/large }}\n",
            target.display()
        ),
    );
    let through = through.display().to_string();
    pair.plumb(&["--context", &through, "apply", "--yes"])
        .good();
    assert!(fs::read(&target).unwrap() == content);
    let sent = sent.load(Ordering::SeqCst);
    // What was on its way when it was cut goes again: some windows and buffers, and not the sixteen MiB before.
    assert!(sent > 20 * MIB && sent < 26 * MIB, "{sent} bytes were sent");
    let left = fs::read_dir(pair.path("server/blobs")).unwrap().flatten();
    let names: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(
        names
            .iter()
            .all(|name| !name.to_string_lossy().starts_with('.')),
        "{names:?}"
    );
}
