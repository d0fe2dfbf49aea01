//! Many at once: joins that race with one token.

use std::process::Child;
use std::time::{Duration, Instant};

use plumb_tests::fleet::PATIENCE;
use plumb_tests::pair::Pair;

/// How many join at once, each a process of its own.
const JOINS: usize = 100;

/// Row 16 with real programs. Mutation: let `consume` of a token succeed twice.
#[test]
fn of_a_hundred_agents_that_race_with_one_token_one_is_enrolled_and_the_others_are_told() {
    let mut pair = Pair::new();
    pair.start_server();
    let token = pair.token("local", "5m");
    let server = pair.address();
    let mut joining: Vec<(usize, Child)> = (0..JOINS)
        .map(|number| {
            let mut command = pair.agent_command(&format!("racer-{number}"));
            command.args(["--server", &server]);
            command.env("PLUMB_JOIN_TOKEN", &token);
            command.stdout(std::process::Stdio::null());
            command.stderr(std::process::Stdio::piped());
            (number, command.spawn().expect("plumb starts"))
        })
        .collect();
    // All but one end by themselves.
    let mut refused = Vec::new();
    let until = Instant::now() + PATIENCE;
    while joining.len() > 1 {
        let mut ended = None;
        for (at, (_, child)) in joining.iter_mut().enumerate() {
            if child.try_wait().expect("the child is ours").is_some() {
                ended = Some(at);
                break;
            }
        }
        match ended {
            Some(at) => {
                let (_, child) = joining.swap_remove(at);
                let output = child.wait_with_output().expect("it has ended");
                refused.push(String::from_utf8_lossy(&output.stderr).into_owned());
            }
            None if Instant::now() >= until => {
                for (_, child) in &mut joining {
                    let _ = child.kill();
                    let _ = child.wait();
                }
                panic!("{} of them run: more than one was let in", joining.len());
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    for line in &refused {
        assert!(
            line.contains("the join token was used by local"),
            "a clear refusal: {line}"
        );
    }
    pair.status_until("the one is online", |status| {
        status["machines"][0]["online"] == true
    });
    let enrolled = (0..JOINS)
        .filter(|number| {
            let file = format!("racer-{number}/identity/enrolled.json");
            pair.path(&file).is_file()
        })
        .count();
    assert_eq!(enrolled, 1);
    let (_, mut winner) = joining.pop().expect("one is left");
    let _ = winner.kill();
    let _ = winner.wait();
}
