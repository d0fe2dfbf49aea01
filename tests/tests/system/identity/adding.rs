//! `plumb agent install` and `plumb machine add`, the latter against a real sshd on loopback.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use plumb_tests::pair::{PATIENCE, Pair, Port, online, signal, wait};
use rustix::process::Signal;

/// An sshd that lets this user in with a key, ended with the test. Where this user is root, it and what it starts see /etc,
/// /var and /usr/local through an overlay of their own, and an empty /run: the machine itself is not touched.
struct Sshd {
    child: Child,
    port: Port,
    /// Where its root is seen from outside, through the daemon itself.
    own_root: bool,
}

impl Sshd {
    fn start(pair: &Pair) -> Self {
        let folder = pair.path("sshd");
        fs::create_dir(&folder).unwrap();
        let key = |name: &str| {
            let path = folder.join(name);
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(&path)
                .status()
                .expect("ssh-keygen runs; scripts/test installs openssh-client");
            assert!(made.success());
            path
        };
        let host = key("host");
        let user = key("user");
        let keys = folder.join("authorized_keys");
        fs::copy(user.with_extension("pub"), &keys).unwrap();
        let port = Port::take();
        let config = folder.join("config");
        let text = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n",
            port.number,
            host.display(),
            keys.display()
        );
        fs::write(&config, text).unwrap();
        let known = format!(
            "[127.0.0.1]:{} {}",
            port.number,
            fs::read_to_string(host.with_extension("pub")).unwrap()
        );
        fs::write(folder.join("known_hosts"), known).unwrap();
        let own_root = rustix::process::geteuid().is_root();
        let mut command = if own_root {
            let script = "set -e; mount -t tmpfs run /run; mkdir /run/sshd; for d in etc var usr/local; do mkdir -p /run/o/$d/u /run/o/$d/w; mount -t overlay -o lowerdir=/$d,upperdir=/run/o/$d/u,workdir=/run/o/$d/w over /$d; done; exec /usr/sbin/sshd -D -e -f \"$1\"";
            let mut command = Command::new("unshare");
            command
                .args(["--mount", "sh", "-c", script, "sh"])
                .arg(&config);
            command
        } else {
            let mut command = Command::new("/usr/sbin/sshd");
            command.args(["-D", "-e", "-f"]).arg(&config);
            command
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .expect("sshd runs; scripts/test installs openssh-server");
        let number = port.number;
        wait("sshd listens", PATIENCE, || {
            std::net::TcpStream::connect(("127.0.0.1", number)).ok()
        });
        Self {
            child,
            port,
            own_root,
        }
    }

    /// `plumb machine add` of this sshd.
    fn add(&self, pair: &Pair, name: &str) -> Command {
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout);
        let target = format!(
            "ssh://{}@127.0.0.1:{}",
            user.unwrap().trim(),
            self.port.number
        );
        let known = format!(
            "UserKnownHostsFile={}",
            pair.path("sshd/known_hosts").display()
        );
        let mut command = pair.command();
        command.args([
            "machine",
            "add",
            &target,
            "--name",
            name,
            "--ssh-option",
            &known,
        ]);
        command.args(["--ssh-option", "BatchMode=yes", "--identity"]);
        command.arg(pair.path("sshd/user"));
        command
    }

    /// A file as what runs beneath the sshd sees it.
    fn sees(&self, path: &str) -> std::path::PathBuf {
        Path::new("/proc")
            .join(self.child.id().to_string())
            .join("root")
            .join(path.trim_start_matches('/'))
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One command makes a machine out of a host that is reached with ssh. Needs root, so that the whole of it can run beneath
/// a root of its own; without it the test below covers what is left.
#[test]
fn a_host_becomes_a_machine_with_one_command() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: it takes root");
        return;
    }
    let mut pair = Pair::new();
    pair.start_server();
    let sshd = Sshd::start(&pair);
    assert!(sshd.own_root);
    let said = pair.run(&mut sshd.add(&pair, "web-1")).good();
    assert!(said.ends_with("Machine web-1 is online.\n"), "{said}");
    let started = said
        .split("Started the agent as process ")
        .nth(1)
        .expect(&said);
    let pid: u32 = started.split(';').next().unwrap().parse().unwrap();

    let unit = fs::read_to_string(sshd.sees("/etc/systemd/system/plumb-agent.service")).unwrap();
    assert!(unit.contains("KillMode=process"), "{unit}");
    assert!(!Path::new("/etc/systemd/system/plumb-agent.service").exists());
    let log = wait("the agent logs JSON", PATIENCE, || {
        let text = fs::read_to_string(sshd.sees("/var/log/plumb/agent.log")).ok()?;
        (!text.is_empty()).then_some(text)
    });
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(line["timestamp"].is_string(), "{line}");
    }
    let shown = pair
        .plumb(&["machine", "show", "web-1", "--output", "json"])
        .good();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let host = &shown["machine"]["host"];
    assert!(host["cpus"].as_u64().unwrap() > 0 && host["disk_bytes"].as_u64().unwrap() > 0);

    // The token was on no command line, and nothing of the copy is left.
    let left: Vec<_> = fs::read_dir("/tmp")
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("plumb."))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // The same name twice is refused before anything is sent there.
    let line = pair.run(&mut sshd.add(&pair, "web-1")).one_line();
    assert!(line.contains("enrolled already"), "{line}");
    signal(pid, Signal::TERM);
    wait("the agent ends", PATIENCE, || {
        (!plumb_tests::pair::alive(pid)).then_some(())
    });
}

#[test]
fn a_host_that_cannot_be_reached_is_one_line_and_costs_no_token() {
    let mut pair = Pair::new();
    pair.start_server();
    let port = Port::take();
    let target = format!("ssh://nobody@127.0.0.1:{}", port.number);
    let mut command = pair.command();
    command.args([
        "machine",
        "add",
        &target,
        "--name",
        "web-1",
        "--ssh-option",
        "BatchMode=yes",
    ]);
    let line = pair.run(&mut command).one_line();
    assert!(
        line.contains("looking around on 127.0.0.1 failed"),
        "{line}"
    );
    let line = pair
        .plumb(&[
            "machine",
            "add",
            "ssh://root@-oProxyCommand=id",
            "--name",
            "web-1",
        ])
        .one_line();
    assert!(line.contains("no address for ssh"), "{line}");
}

/// From the machine's own side, into a folder as if it were /: joined, with program, unit and places for logs; and done
/// again it stays the machine that it was.
#[test]
fn an_agent_is_installed_with_one_command_and_again_without_a_token() {
    let mut pair = Pair::new();
    pair.start_server();
    let root = pair.path("root");
    let token = pair.token("local", "1m");
    let server = pair.address();
    let install = |more: &[&str], token: Option<&str>| {
        let mut command = pair.command();
        command
            .args(["agent", "install", "--root"])
            .arg(&root)
            .args(more);
        if let Some(token) = token {
            command.env("PLUMB_JOIN_TOKEN", token);
        }
        pair.run(&mut command)
    };
    let line = install(&[], None).one_line();
    assert!(line.contains("not enrolled yet"), "{line}");
    let line = install(&["--data", "/var/lib/x y"], Some(&token)).one_line();
    assert!(line.contains("cannot stand in a unit"), "{line}");

    let said = install(&["--server", &server], Some(&token)).good();
    assert!(
        said.contains("This machine is local.") && said.contains("systemctl enable --now"),
        "{said}"
    );
    let program = root.join("usr/local/bin/plumb");
    assert_eq!(
        fs::metadata(&program).unwrap().permissions().mode() & 0o777,
        0o755
    );
    assert!(
        Command::new(&program)
            .arg("--version")
            .status()
            .unwrap()
            .success()
    );
    let key = root.join("var/lib/plumb/agent/identity/key.pem");
    assert_eq!(
        fs::metadata(key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(root.join("var/log/plumb").is_dir());
    let unit = fs::read_to_string(root.join("etc/systemd/system/plumb-agent.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/local/bin/plumb agent --data /var/lib/plumb/agent --log-file /var/log/plumb/agent.log\n"), "{unit}");
    assert!(!pair.tells_a_secret(unit.as_bytes()));
    // An upgrade needs neither server nor token.
    install(&[], None).good();
    fs::rename(root.join("var/lib/plumb/agent"), pair.path("agent")).unwrap();
    pair.start_agent_with(&[], &[]);
    pair.status_until("online", online);
}
