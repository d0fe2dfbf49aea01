//! A control plane and many agents as processes of their own, on top of a [`Pair`](crate::pair::Pair): what the faults of a
//! fleet are tried on. Every machine keeps a file and runs one process of the app `app`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::pair::{Daemon, Incarnation, Pair, wait};

/// How long a fleet may take for what one machine does at once: all share a few cores with other tests.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How many join at once.
const JOINERS: usize = 4;

/// See the [module](self).
#[derive(Debug)]
pub struct Fleet {
    /// The control plane, without an agent of its own.
    pub pair: Pair,
    /// The agents by their numbers, while they live.
    pub agents: Vec<Option<Daemon>>,
}

/// A machine's name, which is also that of its agent's data folder.
pub fn name(number: usize) -> String {
    format!("m{number:02}")
}

impl Fleet {
    /// A control plane with so many agents, which hold nothing yet.
    ///
    /// # Panics
    /// When one of them does not start, as everything here when the test cannot go on.
    pub fn started(count: usize) -> Self {
        let mut pair = Pair::new();
        pair.start_server();
        let mut agents: Vec<Option<Daemon>> = Vec::new();
        for first in (0..count).step_by(JOINERS) {
            let pair = &pair;
            let joined: Vec<Daemon> = std::thread::scope(|scope| {
                let threads: Vec<_> = (first..count.min(first + JOINERS))
                    .map(|number| scope.spawn(move || pair.join_as(&name(number))))
                    .collect();
                let joined = threads.into_iter().map(|thread| thread.join());
                joined.map(|agent| agent.expect("it joins")).collect()
            });
            agents.extend(joined.into_iter().map(Some));
        }
        Self { pair, agents }
    }

    /// Where a machine keeps its file.
    pub fn file(&self, number: usize) -> PathBuf {
        self.pair.path("managed").join(name(number))
    }

    /// Declares a round: every file says its number, and every process has it in its environment.
    pub fn declare(&self, round: usize) {
        let mut text = String::from("kind: Workspace\nname: main\n");
        for number in 0..self.agents.len() {
            let machine = name(number);
            let _ = write!(
                text,
                "---\nkind: Machine\nname: {machine}\n---\nkind: Setup\nname: base-{machine}\nmachines: {machine}\nfiles:\n  \
                 {}: {{ content: \"round {round}\\n\" }}\n",
                self.file(number).display()
            );
        }
        let _ = write!(
            text,
            "---\nkind: App\nname: app\nmachines: all\nrun: [sleep, \"100000\"]\nenv: {{ ROUND: \"{round}\" }}\nstop: 2s\n"
        );
        self.pair.write("plumb.yaml", text);
    }

    /// Declares a round and records it, without waiting for anybody.
    #[track_caller]
    pub fn apply(&self, round: usize) {
        self.declare(round);
        self.pair
            .plumb(&[
                "apply",
                "--yes",
                "--detach",
                "--allow",
                "deletes,empty,restarts",
            ])
            .good();
    }

    /// Whether a machine is at a round, as its disk says.
    pub fn is_at(&self, number: usize, round: usize) -> bool {
        let text = std::fs::read_to_string(self.file(number));
        text.is_ok_and(|text| text == format!("round {round}\n"))
    }

    /// Waits until these machines are at a round.
    #[track_caller]
    pub fn wait_for(&self, numbers: impl IntoIterator<Item = usize>, round: usize) {
        for number in numbers {
            wait(
                &format!("{} is at round {round}", name(number)),
                PATIENCE,
                || self.is_at(number, round).then_some(()),
            );
        }
    }

    /// Waits until everybody is online and everything is as recorded; then nothing is left to plan, and every machine runs
    /// the app once.
    #[track_caller]
    pub fn settle(&self, round: usize) {
        self.wait_for(0..self.agents.len(), round);
        wait("everybody is online and converged", PATIENCE, || {
            let status = self.pair.try_status()?;
            is_settled(&status, self.agents.len()).then_some(())
        });
        let plan = self.pair.plumb(&["plan", "--detailed-exitcode"]);
        assert_eq!(plan.code, Some(0), "nothing is left to plan: {plan:?}");
        for number in 0..self.agents.len() {
            let running = self.running(number);
            assert_eq!(running.len(), 1, "{} runs {running:?}", name(number));
        }
    }

    /// The incarnations of the app that run on a machine.
    pub fn running(&self, number: usize) -> Vec<Incarnation> {
        self.pair.running_in(&name(number))
    }

    /// Kills an agent with -9.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut agent) = self.agents[number].take() {
            agent.kill();
        }
    }

    /// Starts a killed agent again, on what it knows.
    pub fn start(&mut self, number: usize) {
        self.agents[number] = Some(self.pair.start_other_agent(&name(number)));
    }

    /// An agent's process id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self, number: usize) -> u32 {
        self.agents[number].as_ref().expect("the agent runs").pid()
    }

    /// The names of the machines that are connected, as the control plane says.
    pub fn online(&self) -> Vec<String> {
        let status = self.pair.try_status().unwrap_or_default();
        let machines = status["machines"].as_array().cloned().unwrap_or_default();
        machines
            .iter()
            .filter(|machine| machine["online"] == true)
            .filter_map(|machine| Some(machine["name"].as_str()?.to_owned()))
            .collect()
    }
}

fn is_settled(status: &Value, machines: usize) -> bool {
    let all = |what: &str| status[what].as_array().cloned().unwrap_or_default();
    let online = all("machines")
        .iter()
        .filter(|m| m["online"] == true)
        .count();
    online == machines && all("owners").iter().all(|o| o["state"] == "converged")
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for agent in self.agents.iter_mut().flatten() {
            if std::thread::panicking() {
                eprintln!("{}", agent.log());
            }
            agent.kill();
        }
    }
}
