//! Validating and planning a large workspace, as whole processes: against bare typed parsing of the same text, with
//! two cores and with one, with a parsed cache and without; and what must be refused at once.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Table, fleet, median, ms, world};

/// Runs of each, taken in turn.
const ROUNDS: usize = 15;

/// All of it.
pub fn run(table: &mut Table) -> Result<(), String> {
    let bench = Bench::new()?;
    let ten = bench.fleet("ten", 2000, 20)?;
    let split = bench.fleet("split", 2000, 1)?;
    let hundred = bench.fleet("hundred", 20_000, 20)?;
    compared(table, &bench, "10,000 resources", &ten)?;
    compared(table, &bench, "the same, one app in each file", &split)?;
    recorded(table, &bench, &ten)?;
    linear(table, &bench, &ten, &hundred)?;
    refused(table, &bench)
}

/// Against the bare parser, on two cores and on one.
fn compared(table: &mut Table, bench: &Bench, what: &str, folder: &Path) -> Result<(), String> {
    for (cores, bar) in [("0,1", "≤ 1.6 ×"), ("0", "≤ 3 ×")] {
        let one = cores == "0";
        let (mut bare, mut whole, mut cached) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let took = [
                bench.bare(folder, "0")?,
                bench.plumb(folder, cores, Cache::Off)?,
                bench.plumb(folder, cores, Cache::Warm)?,
            ];
            if round > 0 {
                bare.push(took[0]);
                whole.push(took[1]);
                cached.push(took[2]);
            }
        }
        let words = if one { "one core" } else { "two cores" };
        table.row(
            &format!("{what}: bare typed serde_yaml, one core"),
            &ms(&bare),
            "",
        );
        table.row(
            &format!("{what}: validate and plan, {words}"),
            &ms(&whole),
            "",
        );
        let ratio = median(&whole).as_secs_f64() / median(&bare).as_secs_f64();
        table.row(
            "the second over the first, medians",
            &format!("{ratio:.2} ×"),
            bar,
        );
        table.row(
            &format!("{what}: unchanged, out of the cache, {words}"),
            &ms(&cached),
            "≤ 100 ms",
        );
    }
    let peak = bench.peak(folder, Cache::Off)?;
    table.row(&format!("{what}: peak memory"), &mib(peak), "≤ 100 MiB");
    Ok(())
}

/// The plan of what is recorded already: everything is compared, and nothing changes.
fn recorded(table: &mut Table, bench: &Bench, folder: &Path) -> Result<(), String> {
    let snapshot = bench.snapshot(folder)?;
    for (cores, words, bar) in [("0,1", "two cores", "≤ 1.6 ×"), ("0", "one core", "≤ 3 ×")] {
        let (mut bare, mut whole, mut cached) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let took = [
                bench.bare(folder, "0")?,
                took(&mut bench.plan(folder, &snapshot, cores, Cache::Off), true)?,
                took(&mut bench.plan(folder, &snapshot, cores, Cache::Warm), true)?,
            ];
            if round > 0 {
                bare.push(took[0]);
                whole.push(took[1]);
                cached.push(took[2]);
            }
        }
        let row = "10,000 resources, all recorded: plan --snapshot";
        table.row(&format!("{row}, {words}"), &ms(&whole), "");
        let ratio = median(&whole).as_secs_f64() / median(&bare).as_secs_f64();
        table.row("that over bare parsing", &format!("{ratio:.2} ×"), bar);
        table.row(
            &format!("{row}, out of the cache, {words}"),
            &ms(&cached),
            "≤ 100 ms",
        );
    }
    let peak = peak(&mut bench.plan(folder, &snapshot, "0,1", Cache::Off))?;
    table.row(
        "10,000 resources, all recorded: peak memory",
        &mib(peak),
        "≤ 100 MiB",
    );
    Ok(())
}

/// Ten times as much takes ten times as long.
fn linear(table: &mut Table, bench: &Bench, ten: &Path, hundred: &Path) -> Result<(), String> {
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for round in 0..=5 {
        let took = [
            bench.plumb(ten, "0,1", Cache::Off)?,
            bench.plumb(hundred, "0,1", Cache::Off)?,
        ];
        if round > 0 {
            small.push(took[0]);
            large.push(took[1]);
        }
    }
    table.row(
        "100,000 resources: validate and plan, two cores",
        &ms(&large),
        "",
    );
    let ratio = median(&large).as_secs_f64() / median(&small).as_secs_f64();
    table.row(
        "that over 10,000 resources",
        &format!("{ratio:.1} ×"),
        "≤ 10 × or so: linear",
    );
    table.row(
        "100,000 resources: peak memory",
        &mib(bench.peak(hundred, Cache::Off)?),
        "",
    );
    Ok(())
}

/// What must be refused at once, and with little memory.
fn refused(table: &mut Table, bench: &Bench) -> Result<(), String> {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for n in 1..30 {
        let one = format!("*a{}", n - 1);
        laughs.push_str(&format!("a{n}: &a{n} [{}]\n", [one.as_str(); 9].join(", ")));
    }
    let list = vec!["x"; 5000].join(",");
    let uses = vec!["*l"; 5000].join(",");
    for (name, text) in [
        ("alias bomb, exponential", laughs),
        (
            "alias bomb, quadratic",
            format!("a: &l [{list}]\nb: [{uses}]\n"),
        ),
        ("100,000 levels, flow", "[".repeat(100_000)),
        ("100,000 levels, block", "- ".repeat(100_000)),
        ("a file of 100 MB", "a".repeat(100_000_000)),
    ] {
        let folder = bench.folder.path().join("refused");
        fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        fs::write(folder.join("plumb.yaml"), "kind: Workspace\nname: bench\n")
            .and_then(|()| fs::write(folder.join("bad.yaml"), format!("kind: App\n{text}")))
            .map_err(|e| e.to_string())?;
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(bench.refused(&folder)?);
        }
        all.remove(0);
        table.row(&format!("{name}: refused"), &ms(&all), "< 1 s");
        let peak = bench.peak(&folder, Cache::Off)?;
        table.row(&format!("{name}: peak memory"), &mib(peak), "< 64 MiB");
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Cache {
    Off,
    Warm,
}

struct Bench {
    folder: tempfile::TempDir,
    plumb: PathBuf,
    this: PathBuf,
}

impl Bench {
    fn new() -> Result<Self, String> {
        Ok(Self {
            folder: tempfile::Builder::new()
                .prefix("plumb-bench-")
                .tempdir()
                .map_err(|e| e.to_string())?,
            plumb: world::plumb()?,
            this: std::env::current_exe().map_err(|e| e.to_string())?,
        })
    }

    fn fleet(&self, name: &str, apps: usize, per_file: usize) -> Result<PathBuf, String> {
        let folder = self.folder.path().join(name);
        fs::create_dir(&folder)
            .and_then(|()| fleet::write(&folder, apps, per_file))
            .map_err(|e| e.to_string())?;
        Ok(folder)
    }

    /// A command on these cores, in an environment of its own.
    fn on(&self, cores: &str, program: &Path) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", cores]).arg(program);
        for home in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"] {
            command.env(home, self.folder.path().join(home));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn bare(&self, folder: &Path, cores: &str) -> Result<Duration, String> {
        let mut command = self.on(cores, &self.this);
        took(command.arg("bare").arg(folder), true)
    }

    fn validate(&self, folder: &Path, cores: &str, cache: Cache) -> Command {
        let mut command = self.on(cores, &self.plumb);
        command.arg("validate").arg(folder).stderr(Stdio::null());
        if cache == Cache::Off {
            command.env("PLUMB_NO_CACHE", "1");
        }
        command
    }

    fn plan(&self, folder: &Path, snapshot: &Path, cores: &str, cache: Cache) -> Command {
        let mut command = self.on(cores, &self.plumb);
        command
            .arg("plan")
            .arg(folder)
            .arg("--snapshot")
            .arg(snapshot);
        command.stderr(Stdio::null());
        if cache == Cache::Off {
            command.env("PLUMB_NO_CACHE", "1");
        }
        command
    }

    /// Records a folder's blueprints in a control plane of their own, and saves what it then knows.
    fn snapshot(&self, folder: &Path) -> Result<PathBuf, String> {
        let file = self.folder.path().join("fleet.snapshot");
        let mut server = self
            .on("0,1", &self.plumb)
            .args(["server", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.folder.path().join("server"))
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        let done = self.record(folder, &file);
        let _ = server.kill();
        let _ = server.wait();
        done.map(|()| file)
    }

    fn record(&self, folder: &Path, file: &Path) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(30);
        let status = || {
            let mut command = self.on("0,1", &self.plumb);
            took(command.arg("status").stderr(Stdio::null()), true)
        };
        while status().is_err() {
            if Instant::now() > until {
                return Err("the control plane did not come up".to_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut apply = self.on("0,1", &self.plumb);
        took(
            apply.arg("apply").arg(folder).args(["--yes", "--detach"]),
            true,
        )?;
        let mut save = self.on("0,1", &self.plumb);
        took(save.args(["snapshot", "--out"]).arg(file), true).map(|_| ())
    }

    fn plumb(&self, folder: &Path, cores: &str, cache: Cache) -> Result<Duration, String> {
        took(&mut self.validate(folder, cores, cache), true)
    }

    fn refused(&self, folder: &Path) -> Result<Duration, String> {
        took(&mut self.validate(folder, "0,1", Cache::Off), false)
    }

    /// The largest resident set, in KiB. It is looked at every 200 µs, and the kernel keeps the peak in between, so what
    /// is missed is the growth in the last of these.
    fn peak(&self, folder: &Path, cache: Cache) -> Result<u64, String> {
        peak(&mut self.validate(folder, "0,1", cache))
    }
}

/// As [`Bench::peak`], of any command.
fn peak(command: &mut Command) -> Result<u64, String> {
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().map_err(|e| e.to_string())?.is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let high = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = high.and_then(|l| l.trim().split(' ').next()?.parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(peak)
}

fn took(command: &mut Command, good: bool) -> Result<Duration, String> {
    let began = Instant::now();
    let status = command.status().map_err(|e| e.to_string())?;
    let took = began.elapsed();
    if status.success() == good {
        return Ok(took);
    }
    let _ = std::io::stderr().flush();
    Err(format!("{command:?} ended with {status}"))
}

fn mib(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}
