//! A thousand files: observed unchanged, and written for the first time, against a bare loop that does the least that
//! is durable.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plumb_converge::{Effect, Event, Now, Reconciler, Settings};
use plumb_driver::file::FileDriver;
use plumb_driver::host::{Host, RunAs};
use plumb_driver::{Driver, Target};
use plumb_model::assignment::{self, Assignment, Entry, Header};
use plumb_model::{
    Address, DriftPolicy, FileContent, FileSpec, Generation, Lineage, MachineName, Mode, OwnerName,
    Resource, ResourceKind, ResourceSpec, Timestamp, WorkspaceName,
};

use super::{Table, median, ms};

/// How many files.
const COUNT: usize = 1000;
/// How many folders they are spread over.
const FOLDERS: usize = 10;

/// Measures both.
pub fn run(table: &mut Table) -> Result<(), String> {
    let mut ours = Vec::new();
    let mut bare = Vec::new();
    for round in 0..8 {
        // In turn, so that a drift of the machine's speed meets both.
        let (a, b) = (first_apply(None)?, bare_loop()?);
        if round > 0 {
            ours.push(a);
            bare.push(b);
        }
    }
    let ratio = median(&ours).as_secs_f64() / median(&bare).as_secs_f64();
    table.row("first apply of 1,000 small files, durable", &ms(&ours), "");
    table.row(
        "bare loop: write beside, one syncfs, rename, fsync of the folders",
        &ms(&bare),
        "",
    );
    table.row(
        "the first over the second, medians",
        &format!("{ratio:.2} ×"),
        "≤ 1.5 ×",
    );
    let mut unchanged = Vec::new();
    first_apply(Some(&mut unchanged))?;
    table.row(
        "reconcile of 1,000 unchanged files",
        &ms(&unchanged),
        "≤ 20 ms",
    );
    Ok(())
}

/// A reconciler and a file driver, wired as the agent wires them.
struct Agent {
    reconciler: Reconciler,
    driver: FileDriver,
    began: Instant,
}

impl Agent {
    fn feed(&mut self, event: Event, later_ms: u64) {
        let mut queue = vec![event];
        while let Some(event) = queue.pop() {
            let mono_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(0) + later_ms;
            let now = Now {
                mono_ms,
                wall: Timestamp::now(),
            };
            for effect in self.reconciler.handle(event, now) {
                match effect {
                    Effect::Observe { work, depth, .. } => {
                        let targets: Vec<Target<'_>> = work.iter().map(target).collect();
                        let seen = self.driver.observe(&targets, depth);
                        queue.push(Event::Observed(
                            work.iter().map(|w| w.address.clone()).zip(seen).collect(),
                        ));
                    }
                    Effect::Act { work, .. } => {
                        let jobs: Vec<_> = work
                            .iter()
                            .map(|(w, action)| (target(w), action.clone()))
                            .collect();
                        let done = self.driver.act(&jobs);
                        let done = work
                            .iter()
                            .zip(done)
                            .map(|((w, action), r)| (w.address.clone(), action.clone(), r));
                        queue.push(Event::Acted(done.collect()));
                    }
                    _ => {}
                }
            }
        }
    }
}

fn target(work: &plumb_converge::Work) -> Target<'_> {
    Target {
        address: &work.address,
        spec: work.resource.as_ref().map(|r| &r.spec),
        release: None,
    }
}

/// Converges a thousand new files; then, if asked, times resyncs that find nothing to do.
fn first_apply(unchanged: Option<&mut Vec<Duration>>) -> Result<Duration, String> {
    let folder = tempfile::Builder::new()
        .prefix("plumb-bench-")
        .tempdir()
        .map_err(|e| e.to_string())?;
    let (data, managed) = (folder.path().join("data"), folder.path().join("managed"));
    fs::create_dir(&data).map_err(|e| e.to_string())?;
    make_folders(&managed)?;
    let workspace = WorkspaceName::new("bench").map_err(|e| e.to_string())?;
    let machine = MachineName::new("m").map_err(|e| e.to_string())?;
    let owner = OwnerName::new("base").map_err(|e| e.to_string())?;
    let lineage = Lineage::from_random([7; 16]);
    let host = Host {
        data,
        lineage: lineage.clone(),
        workspace: workspace.clone(),
        run_as: RunAs::Agent,
        shim: Vec::new(),
        secrets: Default::default(),
    };
    let entries = (0..COUNT).map(|n| {
        let path = path(&managed, n);
        let spec = FileSpec {
            notify: Default::default(),
            path: path.clone(),
            content: FileContent::Text(content(n)),
            mode: Mode(0o644),
            owner: None,
            group: None,
        };
        Entry::from(Resource {
            adopt: false,
            was: None,
            was_before: Vec::new(),
            address: Address::new(&machine, &owner, ResourceKind::File, &path),
            after: Default::default(),
            drift: DriftPolicy::Enforce,
            spec: ResourceSpec::File(spec),
        })
    });
    let header = Header {
        format: assignment::FORMAT,
        lineage,
        workspace,
        machine: machine.clone(),
    };
    let assignment = Arc::new(Assignment::build(header, entries));
    let settings = Settings {
        resync_ms: 30_000,
        full_every: 0,
        seed: 1,
    };
    let mut agent = Agent {
        reconciler: Reconciler::new(settings, BTreeMap::new()),
        driver: FileDriver::new(&host),
        began: Instant::now(),
    };
    let began = Instant::now();
    agent.feed(
        Event::Assigned {
            generation: Generation(1),
            assignment,
            missing: Vec::new(),
        },
        0,
    );
    let took = began.elapsed();
    if (0..COUNT).any(|n| fs::read_to_string(path(&managed, n)).ok() != Some(content(n))) {
        return Err("the files are not as they should be".to_owned());
    }
    if let Some(times) = unchanged {
        for round in 1..=25 {
            std::thread::sleep(Duration::from_millis(30));
            let began = Instant::now();
            agent.feed(Event::Tick, round * 60_000);
            if round > 5 {
                times.push(began.elapsed());
            }
        }
    }
    Ok(took)
}

fn make_folders(managed: &Path) -> Result<(), String> {
    (0..FOLDERS)
        .try_for_each(|n| fs::create_dir_all(managed.join(format!("d{n}"))))
        .map_err(|e| e.to_string())
}

fn path(managed: &Path, n: usize) -> String {
    managed
        .join(format!("d{}/f{n}", n % FOLDERS))
        .to_string_lossy()
        .into_owned()
}

fn content(n: usize) -> String {
    format!("file {n}\n").repeat(20)
}

/// The least that is durable: each file written beside, one syncfs, each renamed, each folder synced.
fn bare_loop() -> Result<Duration, String> {
    let folder = tempfile::Builder::new()
        .prefix("plumb-bench-")
        .tempdir()
        .map_err(|e| e.to_string())?;
    make_folders(folder.path())?;
    let texts: Vec<(String, String)> = (0..COUNT)
        .map(|n| (path(folder.path(), n), content(n)))
        .collect();
    let began = Instant::now();
    let work = || -> std::io::Result<()> {
        for (path, text) in &texts {
            File::create(format!("{path}.new"))?.write_all(text.as_bytes())?;
        }
        rustix::fs::syncfs(File::open(folder.path())?)?;
        for (path, _) in &texts {
            fs::rename(format!("{path}.new"), path)?;
        }
        (0..FOLDERS).try_for_each(|n| File::open(folder.path().join(format!("d{n}")))?.sync_all())
    };
    work().map_err(|e| e.to_string())?;
    Ok(began.elapsed())
}
