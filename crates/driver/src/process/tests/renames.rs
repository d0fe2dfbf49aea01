//! Renamed owners: what runs is not touched, and is found under its new name whatever happens.

use super::*;
use crate::logs;

impl Stage {
    /// The same machine, asked as another owner.
    fn of(&self, owner: &str) -> Address {
        let owner = OwnerName::new(owner).unwrap();
        Address::new(
            &self.address.machine,
            &owner,
            ResourceKind::Process,
            "web/0",
        )
    }

    fn rename(&mut self, owner: &str, before: &[&str], spec: &ProcessSpec) -> Observation {
        let from = before.iter().map(|owner| self.of(owner)).collect();
        self.address = self.of(owner);
        self.act(Some(spec), Action::Move { from }).unwrap()
    }

    /// A new agent on the same machine.
    fn restart(&mut self) {
        self.driver = ProcessDriver::new(self.driver.host.clone());
    }

    fn as_owner<T>(&mut self, owner: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let other = self.of(owner);
        let now = std::mem::replace(&mut self.address, other);
        let done = work(self);
        self.address = now;
        done
    }

    fn logs_of(&self, owner: &str) -> Vec<String> {
        let owner = OwnerName::new(owner).unwrap();
        logs::slots(self.data.path(), &owner, None)
            .iter()
            .flat_map(|log| {
                let mut reader = LogReader::open(&log.path, LogQuery::default()).unwrap();
                std::iter::from_fn(move || reader.poll().unwrap())
            })
            .map(|line| line.text)
            .collect()
    }
}

const SERVE: &str = "echo $$ > pid; echo begun; trap 'exit 7' TERM; while :; do sleep 0.05; done";

/// Mutations: have `Slot::of` ignore the places; have `logs::slots` ignore them; forget the note after a removal.
#[test]
fn a_renamed_process_goes_on_under_its_new_name_with_its_logs_home_and_exit() {
    let mut stage = Stage::new();
    let spec = shell(SERVE);
    let run = stage.start(&spec);
    let pid = stage.number("pid");
    for round in 0..2 {
        let Observation::Running(seen) = stage.rename("new", &["hello"], &spec) else {
            panic!("it does not run");
        };
        assert_eq!(seen, run, "round {round}");
        stage.restart();
        assert_eq!(stage.observe(), Observation::Running(run.clone()));
    }
    assert!(lives(pid));
    assert_eq!(stage.as_owner("hello", Stage::observe), Observation::Absent);
    wait_for("log", || {
        stage
            .logs_of("new")
            .contains(&"begun".to_owned())
            .then_some(())
    });
    assert_eq!(stage.logs_of("hello"), [""; 0]);
    // Its end is told, seen and recorded.
    let watch = ExitWatch::new(&stage.driver.host);
    assert!(watch.pidfd(&stage.address, &run.id).unwrap().is_some());
    stage.act(Some(&spec), Action::Stop).unwrap();
    assert_eq!(stage.exit().1, ExitStatus::Code(7));
    // The next one finds the files that the one before left.
    stage.start(&shell("cat pid; echo next"));
    assert_eq!(stage.exit().1, ExitStatus::Code(0));
    let said = stage.logs_of("new");
    assert!(
        said.contains(&pid.to_string()) && said.contains(&"begun".to_owned()),
        "{said:?}"
    );
    stage.act(None, Action::Remove).unwrap();
    assert_eq!(stage.observe(), Observation::Absent);
    assert_eq!(stage.logs_of("new"), [""; 0]);
    for folder in ["processes", "logs"] {
        let left: Vec<_> = fs::read_dir(stage.data.path().join(folder))
            .unwrap()
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Row 41 after a rename. Mutation: move the log's folder along.
#[test]
fn a_log_goes_on_rotating_after_a_rename() {
    let mut stage = Stage::new();
    let mut spec = shell(
        "n=0; while [ $n -lt 400 ]; do echo line $n; n=$((n+1)); [ $n = 200 ] && read x < go; done; sleep 60",
    );
    spec.log = LogSpec {
        max_bytes: 4096,
        keep: 2,
    };
    spec.argv[2] = format!("mkfifo go; echo made > made; {}", spec.argv[2]);
    stage.start(&spec);
    stage.written("made");
    let go = stage.slot().path.join(folder::WORK).join("go");
    stage.rename("new", &["hello"], &spec);
    fs::write(&go, "on\n").unwrap();
    wait_for("the last line", || {
        stage
            .logs_of("new")
            .last()
            .is_some_and(|line| line == "line 399")
            .then_some(())
    });
    let owner = OwnerName::new("new").unwrap();
    let found = logs::slots(stage.data.path(), &owner, None);
    assert_eq!(logs::files(&found[0].path).len(), 3);
    stage.act(Some(&spec), Action::Stop).unwrap();
    stage.exit();
}

/// Mutations: look at the newest old address alone; let the old address keep its place.
#[test]
fn a_chain_of_renames_a_return_and_a_new_app_under_the_old_name_are_told_apart() {
    let mut stage = Stage::new();
    let spec = shell(SERVE);
    let run = Observation::Running(stage.start(&spec));
    assert_eq!(stage.rename("c", &["b", "hello"], &spec), run);
    assert_eq!(stage.rename("hello", &["c", "b"], &spec), run);
    assert_eq!(stage.rename("c", &["hello"], &spec), run);
    // A new app under the old name: another process, other logs, another folder.
    let other = shell("echo other; sleep 60");
    let second = stage.as_owner("hello", |stage| stage.start(&other));
    for _ in 0..2 {
        // Asked again, by an agent that does not remember, it moves nothing.
        stage.restart();
        assert_eq!(stage.rename("c", &["hello"], &spec), run);
        let seen = stage.as_owner("hello", Stage::observe);
        assert_eq!(seen, Observation::Running(second.clone()));
    }
    wait_for("log", || {
        (stage.logs_of("hello") == ["other"]).then_some(())
    });
    assert_eq!(stage.logs_of("c"), ["begun"]);
    stage.as_owner("hello", |stage| {
        stage.act(Some(&other), Action::Stop).unwrap();
        stage.exit();
        stage.act(None, Action::Remove).unwrap();
        // Its name is that of the other's place, and the other is none of its business.
        assert_eq!(stage.observe(), Observation::Absent);
        assert_eq!(stage.act(None, Action::Remove), Ok(Observation::Absent));
    });
    assert_eq!(stage.observe(), run);
    stage.act(Some(&spec), Action::Stop).unwrap();
    stage.exit();
    stage.act(None, Action::Remove).unwrap();
    let note = fs::read_to_string(stage.data.path().join("owned/process.json")).unwrap();
    assert!(
        note.contains("\"places\":{}") && note.contains("\"moved\":{}"),
        "{note}"
    );
}

/// Found by the simulator. Mutation: forget only with a removal, which a process that never ran does not need.
#[test]
fn a_name_that_went_without_ever_running_takes_over_again() {
    let mut stage = Stage::new();
    let spec = shell(SERVE);
    assert_eq!(stage.rename("new", &["hello"], &spec), Observation::Absent);
    // Its tombstone finds nothing; then the old name lives again, and is renamed again.
    assert_eq!(stage.observe(), Observation::Absent);
    let run = stage.as_owner("hello", |stage| stage.start(&spec));
    let seen = stage.rename("new", &["hello"], &spec);
    assert_eq!(seen, Observation::Running(run));
}

#[test]
fn where_something_is_under_the_new_name_already_each_stays_where_it_is() {
    let mut stage = Stage::new();
    let spec = shell(SERVE);
    let first = stage.start(&spec);
    let second = stage.as_owner("new", |stage| stage.start(&spec));
    let seen = stage.rename("new", &["hello"], &spec);
    assert_eq!(seen, Observation::Running(second));
    let old = stage.as_owner("hello", Stage::observe);
    assert_eq!(old, Observation::Running(first));
    stage.as_owner("hello", |stage| {
        stage.act(Some(&spec), Action::Stop).unwrap();
        stage.exit();
    });
}

/// Threat 37, the agent's side. Mutation: take a note that cannot be read for none.
#[test]
fn a_damaged_or_newer_note_is_refused_and_starts_nothing_twice() {
    let mut stage = Stage::new();
    let spec = shell(SERVE);
    let run = Observation::Running(stage.start(&spec));
    stage.rename("new", &["hello"], &spec);
    let note = stage.data.path().join("owned/process.json");
    let whole = fs::read(&note).unwrap();
    for (text, said) in [
        ("{\"format\":1", "damaged"),
        ("{\"format\":9}", "newer plumb"),
    ] {
        fs::write(&note, text).unwrap();
        let fault = stage.act(Some(&spec), Action::Start).unwrap_err();
        assert!(fault.message.contains(said), "{fault}");
        assert_eq!(fs::read(&note).unwrap(), text.as_bytes());
    }
    fs::write(&note, whole).unwrap();
    assert_eq!(stage.observe(), run);
}

/// Needs root; without it there is nothing to switch to. Mutation: leave `take_over_user` out.
#[test]
fn a_renamed_app_keeps_its_user_and_a_new_one_under_the_old_name_gets_another() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (old, new) = (
        format!("a{}", std::process::id()),
        format!("b{}", std::process::id()),
    );
    let mut stage = Stage::with(&old, RunAs::AppUsers);
    let mut made = vec![Made(format!("plumb-{old}"))];
    let who = shell("id -un > name; cat secret; umask 077; echo mine > secret");
    stage.start(&who);
    stage.exit();
    let user = stage.written("name");
    assert_eq!(user, format!("plumb-{old}\n"));
    stage.rename(&new, &[&old], &who);
    stage.start(&who);
    stage.exit();
    assert_eq!(stage.written("name"), user);
    assert_eq!(
        stage.log().last().unwrap(),
        "mine",
        "its files are its own still"
    );
    let other = stage.as_owner(&old, |stage| {
        stage.start(&who);
        stage.exit();
        stage.written("name")
    });
    made.push(Made(other.trim().to_owned()));
    assert_ne!(other, user);
    assert!(other.starts_with(&format!("plumb-{old}-")), "{other}");
    // Back again, everybody has what they had.
    stage.as_owner(&old, |stage| stage.act(None, Action::Remove).unwrap());
    stage.rename(&old, &[&new], &who);
    stage.start(&who);
    stage.exit();
    assert_eq!(stage.written("name"), user);
}
