//! Thousands of agents on one control plane: what they cost while nothing happens, and how fast everything reaches them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plumb_wire::client::ApiClient;
use plumb_wire::v1;
use serde_json::Value;

use super::super::Table;
use super::super::idle::{cpu_ticks, pss_kib};
use super::control::Control;
use super::swarm::Swarm;

/// How long the idle fleet is watched.
const WATCHED: Duration = Duration::from_secs(60);

/// How long everything is left alone before memory is read: what was freed goes back by then.
const SETTLE: Duration = Duration::from_secs(20);

/// Past this something is broken.
const PATIENCE: Duration = Duration::from_secs(180);

/// The rows of the fleet.
pub fn run(table: &mut Table, agents: usize) -> Result<(), String> {
    let mut control = Control::start()?;
    std::thread::sleep(Duration::from_secs(5));
    let empty_kib = pss_kib(control.pid())?;
    let began = Instant::now();
    let data = control.world().path("agents");
    let mut swarm = Swarm::start(&control.context(), agents, &data)?;
    eprintln!(
        "{agents} agents enrolled in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    swarm.all_online(agents, PATIENCE)?;
    control.apply(&blueprints(agents, "one", "one"))?;
    swarm.durable(agents, PATIENCE)?;

    let grown_kib = idle(table, &control, &mut swarm, agents, empty_kib)?;
    everything(table, &control, &mut swarm, agents)?;
    one_resource(table, &control, &mut swarm, agents)?;
    one_order(table, &control, &mut swarm, agents)?;
    restart(table, &mut control, &mut swarm, agents)?;
    std::thread::sleep(SETTLE);
    let again = pss_kib(control.pid())?.saturating_sub(empty_kib) as f64 / agents as f64;
    table.row(
        &format!("memory of the server for each of {agents} agents that came back to a fresh one"),
        &format!("{again:.1} KiB (right after enrolment {grown_kib:.1} KiB)"),
        "≤ 64 KiB",
    );
    Ok(())
}

/// A process and a file on each machine, and on some of them one file more.
fn blueprints(agents: usize, all: &str, some: &str) -> String {
    let mut text = String::from("kind: Workspace\nname: main\n");
    for number in 0..agents {
        let group = if number < super::REACHED {
            "some"
        } else {
            "rest"
        };
        let _ = write!(
            text,
            "---\nkind: Machine\nname: {}\nlabels: {{ group: {group} }}\n",
            crate::load::name(number)
        );
    }
    let _ = write!(
        text,
        "---\nkind: App\nname: web\nmachines: all\nrun: [/usr/local/bin/web, --listen, 127.0.0.1:8080]\n\
         env: {{ LOG_LEVEL: info, VERSION: \"{all}\", ZONE: \"${{machine.name}}\" }}\n\
         ---\nkind: Setup\nname: base\nmachines: all\nfiles:\n  /etc/web.conf: {{ content: \"workers = 4\\n\" }}\n\
         ---\nkind: App\nname: side\nmachines: {{ group: some }}\nrun: [/usr/local/bin/side]\n\
         ---\nkind: Setup\nname: flag\nmachines: {{ group: some }}\nfiles:\n  /etc/flag: {{ content: \"{some}\\n\" }}\n",
    );
    text
}

/// Memory and processor while nothing happens but heartbeats, and each agent saying once a minute how a resource is.
fn idle(
    table: &mut Table,
    control: &Control,
    swarm: &mut Swarm,
    agents: usize,
    empty_kib: u64,
) -> Result<f64, String> {
    std::thread::sleep(SETTLE);
    let kib = pss_kib(control.pid())?;
    let each = kib.saturating_sub(empty_kib) as f64 / agents as f64;
    eprintln!("the server: {empty_kib} KiB empty, {kib} KiB with {agents} agents");
    swarm.ask("chatter 0.0167")?;
    let ticks = cpu_ticks(control.pid())?;
    let began = Instant::now();
    std::thread::sleep(WATCHED);
    let share = (cpu_ticks(control.pid())? - ticks) as f64
        / rustix::param::clock_ticks_per_second() as f64
        / began.elapsed().as_secs_f64()
        * 100.0;
    swarm.ask("chatter 0")?;
    table.row(
        &format!("memory of the server for each of {agents} idle agents, their state included"),
        &format!("{each:.1} KiB"),
        "≤ 64 KiB",
    );
    table.row(
        "heartbeats of all, and a status of each a minute",
        &format!("{share:.1} % of a core"),
        "≤ 25 %",
    );
    Ok(each)
}

/// An apply that changes a process on every machine, and reads of the API meanwhile.
fn everything(
    table: &mut Table,
    control: &Control,
    swarm: &mut Swarm,
    agents: usize,
) -> Result<(), String> {
    let bare_ms = swarm.sync_cost_ms()?;
    swarm.mark()?;
    let reader = Reader::start(control)?;
    let applied = control.apply(&blueprints(agents, "two", "one"))?;
    let stats = swarm.durable(agents, PATIENCE)?;
    let times = reader.stop();
    let bare_after_ms = swarm.sync_cost_ms()?;
    let bare_ms = bare_ms.min(bare_after_ms);
    let last = number(&stats, "durable", "last_ms")?;
    let heard = number(&stats, "received", "last_ms")?;
    let whole = last - applied.planned_ms;
    table.row(
        &format!("an apply that touches all {agents}: plan asked for → durable on all"),
        &format!(
            "{:.1} s (planned in {:.1} s, recorded and told in {:.1} s, the last has heard after {:.1} s)",
            whole / 1e3,
            (applied.asked_ms - applied.planned_ms) / 1e3,
            (applied.answered_ms - applied.asked_ms) / 1e3,
            (heard - applied.planned_ms) / 1e3,
        ),
        "",
    );
    table.row(
        "the syncs of the load generator by themselves",
        &format!("{:.1} s", bare_ms / 1e3),
        "",
    );
    table.row(
        "the first beyond the second",
        &format!("{:.1} s", (whole - bare_ms) / 1e3),
        "≤ 10 s",
    );
    let mut all: Vec<f64> = times.values().flatten().copied().collect();
    let mut by_kind = String::new();
    for (kind, times) in &times {
        let mut times = times.clone();
        let _ = write!(
            by_kind,
            "{}{kind} {:.0}",
            if by_kind.is_empty() { "" } else { ", " },
            percentile(&mut times, 0.99)
        );
    }
    table.row(
        "reads of the API meanwhile, p99",
        &format!(
            "{:.0} ms (n={}; each: {by_kind})",
            percentile(&mut all, 0.99),
            all.len()
        ),
        "≤ 250 ms",
    );
    Ok(())
}

/// A change of one resource on a thousand machines.
fn one_resource(
    table: &mut Table,
    control: &Control,
    swarm: &mut Swarm,
    agents: usize,
) -> Result<(), String> {
    let some = agents.min(super::REACHED);
    let (mut from_asked, mut from_recorded) = (Vec::new(), Vec::new());
    for round in 0..5 {
        swarm.mark()?;
        let applied = control.apply(&blueprints(agents, "two", &format!("round {round}")))?;
        let stats = swarm.durable(some, PATIENCE)?;
        let first = number(&stats, "received", "first_ms")?;
        let last = number(&stats, "received", "last_ms")?;
        from_asked.push(last - applied.asked_ms);
        from_recorded.push(last - first.min(applied.answered_ms));
        std::thread::sleep(Duration::from_secs(1));
    }
    table.row(
        &format!("a change of one resource reaches {some} agents: from the first to the last"),
        &format!("{:.0} ms", percentile(&mut from_recorded, 0.5)),
        "≤ 100 ms",
    );
    table.row(
        "the same, from when the apply was asked for: planning and recording included",
        &format!("{:.0} ms", percentile(&mut from_asked, 0.5)),
        "",
    );
    Ok(())
}

/// An order by hand to one process on a thousand machines: asked for, recorded, told, heard.
fn one_order(
    table: &mut Table,
    control: &Control,
    swarm: &mut Swarm,
    agents: usize,
) -> Result<(), String> {
    let some = agents.min(super::REACHED);
    let (mut took, mut spread) = (Vec::new(), Vec::new());
    for round in 0..6 {
        swarm.mark()?;
        let asked_ms = control.order("side", round % 2 == 0)?;
        let stats = swarm.until("all ordered", PATIENCE, |stats| {
            stats["since_mark"]["ordered"]["count"].as_u64() >= u64::try_from(some).ok()
        })?;
        let last = number(&stats, "ordered", "last_ms")?;
        took.push(last - asked_ms);
        spread.push(last - number(&stats, "ordered", "first_ms")?);
        std::thread::sleep(Duration::from_secs(1));
    }
    table.row(
        &format!(
            "`plumb stop` or `start` of a process on {some} machines: from the first to the last"
        ),
        &format!("{:.0} ms", percentile(&mut spread, 0.5)),
        "≤ 100 ms",
    );
    table.row(
        "the same, from when it was asked for: recording included",
        &format!("{:.0} ms", percentile(&mut took, 0.5)),
        "",
    );
    Ok(())
}

/// The server ends and starts again.
fn restart(
    table: &mut Table,
    control: &mut Control,
    swarm: &mut Swarm,
    agents: usize,
) -> Result<(), String> {
    swarm.mark()?;
    let down = crate::load::now_ms();
    let listening = control.restart()?;
    let stats = swarm.until("all back", PATIENCE, |stats| {
        stats["since_mark"]["welcomed"]["count"].as_u64() >= u64::try_from(agents).ok()
            && stats["online"].as_u64() == u64::try_from(agents).ok()
    })?;
    let last = number(&stats, "welcomed", "last_ms")?;
    // What an agent says while nobody listens is no error of the server's.
    let late = swarm.ask(&format!("complaints {}", listening + 50.0))?;
    let late: Vec<String> = late
        .as_object()
        .into_iter()
        .flatten()
        .map(|(what, count)| format!("{count} × {what}"))
        .collect();
    let log = control.newest_log();
    let complaints = log
        .lines()
        .filter(|line| line.contains("WARN") || line.contains("ERROR"))
        .count();
    for line in log
        .lines()
        .filter(|l| l.contains("WARN") || l.contains("ERROR"))
        .take(5)
    {
        eprintln!("{line}");
    }
    table.row(
        &format!("server restarted → all {agents} back"),
        &format!(
            "{:.1} s after it listened (down for {:.1} s)",
            (last - listening) / 1e3,
            (listening - down) / 1e3
        ),
        "≤ 30 s",
    );
    table.row(
        "complaints meanwhile",
        &format!(
            "{complaints} in the server's log; of agents after it listened: {}",
            if late.is_empty() {
                "none".to_owned()
            } else {
                late.join("; ")
            }
        ),
        "no burst",
    );
    Ok(())
}

fn number(stats: &Value, what: &str, which: &str) -> Result<f64, String> {
    let value = stats["since_mark"][what][which].as_f64();
    value.ok_or_else(|| format!("no {which} of {what} in {stats}"))
}

fn percentile(all: &mut [f64], part: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    let at = ((all.len() as f64 * part).ceil() as usize).saturating_sub(1);
    all.get(at).copied().unwrap_or(f64::NAN)
}

/// Reads the API over and over, each kind of read in turn, and notes how long each took in milliseconds.
struct Reader {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<BTreeMap<&'static str, Vec<f64>>>,
    runtime: tokio::runtime::Handle,
}

impl Reader {
    fn start(control: &Control) -> Result<Self, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let api = control.api()?;
        let runtime = control.runtime.handle().clone();
        let task = runtime.spawn(read(api, stop.clone()));
        Ok(Self {
            stop,
            task,
            runtime,
        })
    }

    fn stop(self) -> BTreeMap<&'static str, Vec<f64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.runtime.block_on(self.task).unwrap_or_default()
    }
}

async fn read(mut api: ApiClient, stop: Arc<AtomicBool>) -> BTreeMap<&'static str, Vec<f64>> {
    let mut times: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        for kind in ["info", "history", "status"] {
            let began = Instant::now();
            let good = match kind {
                "info" => api.get_info(v1::GetInfoRequest {}).await.is_ok(),
                "history" => api.history(v1::HistoryRequest::default()).await.is_ok(),
                _ => api.get_status(v1::GetStatusRequest {}).await.is_ok(),
            };
            let took = if good {
                began.elapsed().as_secs_f64() * 1e3
            } else {
                f64::INFINITY
            };
            times.entry(kind).or_default().push(took);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    times
}
