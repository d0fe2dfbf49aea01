//! A control plane as a process of its own, and its API.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plumb_blueprint::SourceFile;
use plumb_wire::client::{self, ApiClient};
use plumb_wire::v1;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use super::super::world::World;

/// How long a start may take.
const START: Duration = Duration::from_secs(60);

/// `plumb server` on a folder and port of its own.
pub struct Control {
    world: World,
    child: Child,
    port: u16,
    starts: usize,
    /// Calls the API.
    pub runtime: Runtime,
}

/// An apply, by the monotonic clock.
pub struct Applied {
    /// When the plan was asked for.
    pub planned_ms: f64,
    /// When the apply was asked for.
    pub asked_ms: f64,
    /// When it was answered, and so recorded and told.
    pub answered_ms: f64,
}

impl Control {
    /// Starts one, and waits until it listens.
    pub fn start() -> Result<Self, String> {
        let world = World::new()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(|e| e.to_string())?
            .port();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        let child = spawn(&world, port, 0)?;
        let control = Self {
            world,
            child,
            port,
            starts: 1,
            runtime,
        };
        control.listening(0)?;
        Ok(control)
    }

    /// The folders.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The file that says how it is reached.
    pub fn context(&self) -> PathBuf {
        self.world.path("config/plumb/contexts/main.json")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn listening(&self, start: usize) -> Result<(), String> {
        let until = Instant::now() + START;
        let out = self.world.path(&format!("server.{start}.out"));
        while !fs::read_to_string(&out).is_ok_and(|text| text.contains("listening on")) {
            if Instant::now() > until {
                return Err(format!("the server never listened: {}", self.log(start)));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// What the newest start has logged.
    pub fn newest_log(&self) -> String {
        self.log(self.starts - 1)
    }

    fn log(&self, start: usize) -> String {
        fs::read_to_string(self.world.path(&format!("server.{start}.err"))).unwrap_or_default()
    }

    /// Asks it to end, waits, and starts it again on the same folder. When it listened.
    pub fn restart(&mut self) -> Result<f64, String> {
        self.end();
        let start = self.starts;
        self.child = spawn(&self.world, self.port, start)?;
        self.starts += 1;
        self.listening(start)?;
        Ok(crate::load::now_ms())
    }

    fn end(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }

    /// The API, with the admin's token of the newest start.
    pub fn api(&self) -> Result<ApiClient, String> {
        let (target, token) = crate::load::context(&self.context())?;
        let channel = self
            .runtime
            .block_on(client::connect(&target))
            .map_err(|e| e.to_string())?;
        client::api(channel, &token).map_err(|e| e.to_string())
    }

    /// Stops an app by hand, or lets it run again. When that was asked for.
    pub fn order(&self, owner: &str, stop: bool) -> Result<f64, String> {
        let (target, token) = crate::load::context(&self.context())?;
        let bearer = client::Bearer::new(&token).map_err(|e| e.to_string())?;
        let (owner, machine) = (owner.to_owned(), String::new());
        self.runtime.block_on(async {
            let channel = client::connect(&target).await.map_err(|e| e.to_string())?;
            let mut hands = client::hands_with(channel, bearer);
            let asked_ms = crate::load::now_ms();
            if stop {
                let request = v1::StopAppRequest { owner, machine };
                hands.stop_app(request).await.map(drop)
            } else {
                let request = v1::StartAppRequest { owner, machine };
                hands.start_app(request).await.map(drop)
            }
            .map_err(|e| e.to_string())?;
            Ok(asked_ms)
        })
    }

    /// Plans these blueprints and applies the plan.
    pub fn apply(&self, yaml: &str) -> Result<Applied, String> {
        let request = request(yaml)?;
        let mut api = self.api()?;
        self.runtime.block_on(async {
            let planned_ms = crate::load::now_ms();
            let plan = api
                .plan(request.clone())
                .await
                .map_err(|e| e.to_string())?
                .into_inner();
            let request = v1::ApplyRequest {
                request: Some(request),
                approval: plan.approval,
                base_revision: plan.base_revision,
                allow: vec!["deletes".to_owned(), "restarts".to_owned()],
            };
            let asked_ms = crate::load::now_ms();
            api.apply(request).await.map_err(|e| e.to_string())?;
            Ok(Applied {
                planned_ms,
                asked_ms,
                answered_ms: crate::load::now_ms(),
            })
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(world: &World, port: u16, start: usize) -> Result<Child, String> {
    let file = |kind: &str| {
        fs::File::create(world.path(&format!("server.{start}.{kind}"))).map_err(|e| e.to_string())
    };
    let data = world.path("server");
    let address = format!("127.0.0.1:{port}");
    let mut command: Command = world.command(&[
        "server",
        "--data",
        &data.to_string_lossy(),
        "--listen",
        &address,
    ]);
    command
        .stdin(Stdio::null())
        .stdout(file("out")?)
        .stderr(file("err")?)
        .spawn()
        .map_err(|e| e.to_string())
}

/// A request to apply blueprints that name no file.
pub fn request(yaml: &str) -> Result<v1::PlanRequest, String> {
    let file = SourceFile {
        path: "plumb.yaml".into(),
        text: yaml.as_bytes().to_vec(),
    };
    let set = plumb_blueprint::parse(std::slice::from_ref(&file), &Default::default())
        .map_err(|found| plumb_blueprint::render(&found, &[file], false))?;
    let set = serde_json::to_vec(&set).map_err(|e| e.to_string())?;
    Ok(v1::PlanRequest {
        request: Some(v1::plan_request::Request::Blueprints(v1::Blueprints {
            blueprint_set_json: set,
            sources: Default::default(),
            ask_json: Vec::new(),
        })),
        commit: None,
    })
}
