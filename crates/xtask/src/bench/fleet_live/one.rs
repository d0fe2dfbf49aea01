//! What one agent's user feels: from an apply to the disk of the agent, and to the process that was restarted for it.

use std::time::{Duration, Instant};

use super::super::world::until;
use super::super::{Table, live, median, ms};
use super::control::Control;
use super::swarm::Swarm;

/// Both rows.
pub fn run(table: &mut Table) -> Result<(), String> {
    durable(table)?;
    restarted(table)
}

/// How many applies are measured.
const APPLIES: usize = 30;

/// An apply → durable on the one agent that it is for.
fn durable(table: &mut Table) -> Result<(), String> {
    let control = Control::start()?;
    let data = control.world().path("agents");
    let mut swarm = Swarm::start(&control.context(), 1, &data)?;
    swarm.all_online(1, Duration::from_secs(30))?;
    let mut took = Vec::new();
    for round in 0..=APPLIES {
        swarm.mark()?;
        let applied = control.apply(&format!(
            "kind: Workspace\nname: main\n---\nkind: Machine\nname: {}\n---\nkind: Setup\nname: base\nmachines: all\n\
             files:\n  /tmp/plumb-bench/motd: {{ content: \"round {round}\\n\" }}\n",
            crate::load::name(0)
        ))?;
        let stats = swarm.durable(1, Duration::from_secs(30))?;
        let at = stats["since_mark"]["durable"]["last_ms"]
            .as_f64()
            .ok_or("no time")?;
        // The first makes everything.
        if round > 0 {
            took.push(Duration::from_secs_f64((at - applied.asked_ms) / 1e3));
        }
    }
    table.row(
        "apply → durable on the agent, one agent",
        &ms(&took),
        "median ≤ 30 ms",
    );
    Ok(())
}

/// How many restarts are measured.
const RESTARTS: usize = 10;

/// An apply that changes an app's environment → the new process serves and its health check has passed, beyond the app's own start.
fn restarted(table: &mut Table) -> Result<(), String> {
    let control = Control::start()?;
    let world = control.world();
    world.serving_app()?;
    let server = world.repo().join("app/server.py");
    let token = world.run(&["token", "create", "--join", "--machine", "m"])?;
    let agent_data = world.path("agent");
    let (agent, _) = world.start(
        &[
            "agent",
            "--server",
            &control.address(),
            "--token",
            token.trim(),
            "--data",
            &agent_data.to_string_lossy(),
            "--run-as",
            "agent",
        ],
        "started",
    )?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .map_err(|e| e.to_string())?
        .port();
    let blueprints = |round: usize| {
        format!(
            "kind: Workspace\nname: main\n---\nkind: Machine\nname: m\n---\nkind: App\nname: hello\nmachines: m\n\
             run: [python3, {server}]\nports: {{ http: {port} }}\n\
             env: {{ GREETING: hi, ROUND: \"{round}\", RELEASE: \"${{release}}\" }}\nhealth: /healthz\n",
            server = server.display(),
        )
    };
    let mut api = control.api()?;
    let mut healthy_release = || -> Option<(u64, bool)> {
        let asked = plumb_wire::v1::GetStatusRequest {};
        let view = control
            .runtime
            .block_on(api.get_status(asked))
            .ok()?
            .into_inner();
        let view: serde_json::Value = serde_json::from_slice(&view.view_json).ok()?;
        let owner = view["owners"].as_array()?.first()?.clone();
        Some((
            owner["release"].as_u64()?,
            owner["state"].as_str() == Some("converged"),
        ))
    };
    let (mut again, mut own) = (Vec::new(), Vec::new());
    for round in 0..=RESTARTS {
        // Below the rate at which restarts back off.
        std::thread::sleep(Duration::from_secs(3));
        let text = blueprints(round);
        let applied = control.apply(&text)?;
        let release = round as u64 + 1;
        let asked = Instant::now();
        let before = (applied.answered_ms - applied.asked_ms) / 1e3;
        until("converged", || healthy_release() == Some((release, true)))?;
        let took = asked.elapsed() + Duration::from_secs_f64(before);
        let bare = live::bare_start(world)?;
        if round > 0 {
            again.push(took);
            own.push(bare);
        }
    }
    world.run(&["destroy", "--yes"])?;
    drop(agent);
    let beyond = median(&again).saturating_sub(median(&own));
    table.row(
        "apply that restarts an app → serving, healthy and said to be",
        &ms(&again),
        "",
    );
    table.row("the app's own start-up, run bare", &ms(&own), "");
    table.row(
        "the first beyond the second, medians",
        &format!("{:.1} ms", beyond.as_secs_f64() * 1e3),
        "≤ 150 ms",
    );
    Ok(())
}
