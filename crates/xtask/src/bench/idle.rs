//! What an idle agent costs: memory, processor and wake-ups, with ten processes under it.

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use super::Table;
use super::world::World;

/// How long it is watched.
const WATCHED: Duration = Duration::from_secs(120);

/// Runs the standing pair with ten sleeping processes, and watches the agent and its shims.
pub fn run(table: &mut Table) -> Result<(), String> {
    let world = World::new()?;
    let mut text = String::from("kind: Workspace\nname: main\n---\nkind: Machine\nname: m\n");
    for n in 0..10 {
        let _ = write!(
            text,
            "---\nkind: App\nname: app{n}\nmachines: m\nrun: [sleep, \"1000000\"]\n"
        );
    }
    world.write("plumb.yaml", &text)?;
    let (server_data, agent_data) = (world.path("server"), world.path("agent"));
    let (server, line) = world.start(
        &[
            "server",
            "--data",
            &server_data.to_string_lossy(),
            "--listen",
            "127.0.0.1:0",
        ],
        "listening on",
    )?;
    let address = line
        .split("listening on ")
        .nth(1)
        .and_then(|l| l.split(';').next())
        .ok_or("no address")?
        .to_owned();
    let token = world.run(&["token", "create", "--join", "--machine", "m"])?;
    let (agent, _) = world.start(
        &[
            "agent",
            "--server",
            &address,
            "--token",
            token.trim(),
            "--data",
            &agent_data.to_string_lossy(),
            "--run-as",
            "agent",
        ],
        "started",
    )?;
    world.run(&["apply", &world.repo().to_string_lossy(), "--yes"])?;
    // The worker threads of the first convergence end after ten idle seconds.
    std::thread::sleep(Duration::from_secs(30));
    let (cpu, switches) = (cpu_ticks(agent.pid())?, context_switches(agent.pid())?);
    std::thread::sleep(WATCHED);
    let seconds = WATCHED.as_secs_f64();
    let share = (cpu_ticks(agent.pid())? - cpu) as f64
        / rustix::param::clock_ticks_per_second() as f64
        / seconds
        * 100.0;
    let wakes = (context_switches(agent.pid())? - switches) as f64 / seconds;
    let shims = shims(&agent_data.to_string_lossy());
    let worst = shims
        .iter()
        .filter_map(|pid| pss_kib(*pid).ok())
        .max()
        .unwrap_or(0);
    let kib = pss_kib(agent.pid())?;
    table.row(
        "idle agent with 10 processes, PSS",
        &format!("{:.1} MiB", kib as f64 / 1024.0),
        "≤ 12 MiB",
    );
    table.row(
        &format!("the largest of its {} shims, PSS", shims.len()),
        &format!("{:.2} MiB", worst as f64 / 1024.0),
        "≤ 1.5 MiB",
    );
    table.row("its share of a core", &format!("{share:.3} %"), "≤ 0.05 %");
    table.row(
        "its wake-ups (context switches)",
        &format!("{wakes:.2}/s"),
        "≤ 1/s",
    );
    world.run(&["destroy", "--yes"])?;
    drop(agent);
    drop(server);
    Ok(())
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))
}

/// The memory of a process, its share of what it has in common with others.
pub fn pss_kib(pid: u32) -> Result<u64, String> {
    let text = read(&format!("/proc/{pid}/smaps_rollup"))?;
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("Pss:"))
        .ok_or("no Pss")?;
    line.trim()
        .trim_end_matches(" kB")
        .trim()
        .parse()
        .map_err(|_| "no number".to_owned())
}

/// The processor time that a process has used, in clock ticks.
pub fn cpu_ticks(pid: u32) -> Result<u64, String> {
    let text = read(&format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = text
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let number = |at: usize| {
        fields
            .get(at)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok(number(11) + number(12))
}

fn context_switches(pid: u32) -> Result<u64, String> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .map_err(|e| e.to_string())?
        .flatten()
    {
        let text = read(&task.path().join("status").to_string_lossy()).unwrap_or_default();
        sum += text
            .lines()
            .filter(|l| l.contains("ctxt_switches"))
            .filter_map(|l| l.split_whitespace().last()?.parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(sum)
}

/// The shims whose command line names this agent's folder.
fn shims(agent_data: &str) -> Vec<u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
            words.get(1) == Some(&&b"shim"[..])
                && words
                    .get(2)
                    .is_some_and(|w| w.starts_with(agent_data.as_bytes()))
        })
        .collect()
}
