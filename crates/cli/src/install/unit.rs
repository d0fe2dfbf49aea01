//! The agent's systemd unit.

use std::path::Path;

use crate::args::RunAsArg;

/// Where the unit is kept, below the root.
pub const UNIT_PATH: &str = "etc/systemd/system/plumb-agent.service";

/// Its name.
pub const UNIT: &str = "plumb-agent.service";

/// Where the program is put, below the root.
pub const PROGRAM_PATH: &str = "usr/local/bin/plumb";

/// Where the agent logs to.
pub const LOG_FILE: &str = "/var/log/plumb/agent.log";

/// The arguments that the agent is started with.
pub fn arguments(data: &Path, run_as: Option<RunAsArg>) -> Vec<String> {
    let mut arguments = vec![
        "agent".to_owned(),
        "--data".to_owned(),
        data.display().to_string(),
        "--log-file".to_owned(),
        LOG_FILE.to_owned(),
    ];
    match run_as {
        None => {}
        Some(RunAsArg::AppUsers) => arguments.extend(["--run-as".into(), "app-users".into()]),
        Some(RunAsArg::Agent) => arguments.extend(["--run-as".into(), "agent".into()]),
    }
    arguments
}

/// Whether a path can stand in a unit as it is: nothing in it means anything to systemd.
pub fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path.to_str().is_some_and(|text| {
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"/._-+@".contains(&b))
        })
}

/// The unit. `data` is plain (see [`is_plain`]).
pub fn unit(data: &Path, run_as: Option<RunAsArg>) -> String {
    let command = arguments(data, run_as).join(" ");
    format!(
        "\
# Written by `plumb agent install`; done again, it writes this anew. Put changes of your own into
# /etc/systemd/system/{UNIT}.d/.
[Unit]
Description=Plumb agent: keeps this machine true to its blueprints
Documentation=man:plumb(1)
Wants=network-online.target
After=network-online.target
# It tries for ever: without an agent nobody mends the machine.
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=/{PROGRAM_PATH} {command}
Restart=always
RestartSec=2s

# Apps live under shims that outlive the agent: a stop, restart or upgrade of it ends the agent and nothing else, and an
# app that is out of memory takes nobody with it.
KillMode=process
OOMPolicy=continue
Delegate=yes
TasksMax=infinity
LimitNOFILE=65536:524288

StateDirectory=plumb
StateDirectoryMode=0711
LogsDirectory=plumb
LogsDirectoryMode=0750
RuntimeDirectory=plumb
RuntimeDirectoryMode=0711
RuntimeDirectoryPreserve=yes

# What neither the agent nor an app beneath it needs. The file system cannot be shut off here: the agent writes wherever
# the blueprints say, and every app would be shut off with it.
ProtectKernelLogs=yes
ProtectClock=yes
RestrictRealtime=yes
LockPersonality=yes
KeyringMode=private
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
CapabilityBoundingSet=~CAP_SYS_MODULE CAP_SYS_BOOT CAP_SYS_TIME CAP_SYSLOG CAP_SYS_RAWIO CAP_MAC_ADMIN CAP_MAC_OVERRIDE CAP_WAKE_ALARM CAP_LEASE
UMask=0022

[Install]
WantedBy=multi-user.target
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_hardened_and_lets_apps_outlive_the_agent() {
        insta::assert_snapshot!(unit(Path::new("/var/lib/plumb/agent"), None));
        for must in ["KillMode=process", "OOMPolicy=continue", "Restart=always"] {
            assert!(
                unit(Path::new("/d"), None).lines().any(|line| line == must),
                "{must}"
            );
        }
    }

    /// Row 6. Mutation: let `is_plain` say yes to any absolute path.
    #[test]
    fn a_path_that_would_mean_something_to_systemd_is_none_for_a_unit() {
        for good in ["/var/lib/plumb/agent", "/srv/a_b-1.2+x@y"] {
            assert!(is_plain(Path::new(good)), "{good}");
        }
        for bad in [
            "relative",
            "/a b",
            "/a\nExecStartPre=/bin/sh",
            "/%n",
            "/$HOME",
            "/a\"b",
            "/a\\b",
            "/a;b",
            "/ü",
        ] {
            assert!(!is_plain(Path::new(bad)), "{bad}");
        }
    }
}
