//! Which keys of the Compose specification are read, and which are refused by name: nothing is dropped silently.

/// What is read at the top of a Compose file.
pub(super) const TOP: [&str; 5] = ["name", "services", "volumes", "networks", "version"];

/// What the specification has besides, at the top.
pub(super) const TOP_REFUSED: [&str; 4] = ["configs", "secrets", "include", "models"];

/// What is read of a service.
pub(super) const SERVICE: [&str; 19] = [
    "image",
    "build",
    "command",
    "entrypoint",
    "environment",
    "ports",
    "expose",
    "volumes",
    "networks",
    "depends_on",
    "restart",
    "labels",
    "user",
    "working_dir",
    "stop_signal",
    "stop_grace_period",
    "container_name",
    "hostname",
    "init",
];

/// What the specification has besides, of a service, with what to write instead where there is something.
pub(super) const SERVICE_REFUSED: [(&str, Option<&str>); 70] = [
    ("annotations", None),
    ("attach", None),
    ("blkio_config", None),
    ("cap_add", None),
    ("cap_drop", None),
    ("cgroup", None),
    ("cgroup_parent", None),
    (
        "configs",
        Some(
            "put the file on the machine with a Setup, and mount it: `/etc/x.conf:/etc/x.conf:ro`",
        ),
    ),
    ("cpu_count", None),
    ("cpu_percent", None),
    ("cpu_period", None),
    ("cpu_quota", None),
    ("cpu_rt_period", None),
    ("cpu_rt_runtime", None),
    ("cpu_shares", None),
    ("cpus", Some("write `limits: { cpu: 1.5 }` in the App")),
    ("cpuset", None),
    ("credential_spec", None),
    ("deploy", Some("write `limits` and `replicas` in the App")),
    ("develop", None),
    ("device_cgroup_rules", None),
    ("devices", None),
    ("dns", None),
    ("dns_opt", None),
    ("dns_search", None),
    ("domainname", None),
    ("env_file", Some("write the variables under `environment`")),
    (
        "extends",
        Some("write the keys out, or share them with a YAML anchor"),
    ),
    ("external_links", None),
    ("extra_hosts", None),
    ("gpus", None),
    ("group_add", None),
    (
        "healthcheck",
        Some("write `health` in an App of its own for this service"),
    ),
    ("ipc", None),
    ("isolation", None),
    ("label_file", None),
    (
        "links",
        Some("leave it out: services of one project reach one another by name"),
    ),
    ("logging", Some("write `log` in the App")),
    ("mac_address", None),
    (
        "mem_limit",
        Some("write `limits: { memory: 512Mi }` in the App"),
    ),
    ("mem_reservation", None),
    ("mem_swappiness", None),
    ("memswap_limit", None),
    ("models", None),
    ("network_mode", None),
    ("oom_kill_disable", None),
    ("oom_score_adj", None),
    ("pid", None),
    (
        "pids_limit",
        Some("write `limits: { processes: 200 }` in the App"),
    ),
    ("platform", None),
    ("post_start", None),
    ("pre_stop", None),
    ("privileged", None),
    (
        "profiles",
        Some("leave the service out, or put it into a Compose file of its own"),
    ),
    ("provider", None),
    (
        "pull_policy",
        Some("leave it out: an image is pinned by its digest in the plan, and pulled once"),
    ),
    ("read_only", None),
    ("runtime", None),
    ("scale", Some("write `replicas` in the App")),
    ("secrets", Some("write `secrets` in the App")),
    ("security_opt", None),
    ("shm_size", None),
    ("stdin_open", None),
    ("storage_opt", None),
    ("sysctls", None),
    ("tmpfs", None),
    ("tty", None),
    ("ulimits", None),
    ("userns_mode", None),
    ("volumes_from", None),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_both_read_and_refused() {
        assert!(
            SERVICE_REFUSED
                .iter()
                .all(|(key, _)| !SERVICE.contains(key))
        );
        assert!(TOP_REFUSED.iter().all(|key| !TOP.contains(key)));
        assert!(SERVICE_REFUSED.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
