//! People and tools with tokens of their own, on the real control plane: log in, be cut off, and leave a trace.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use plumb_tests::pair::{Outcome, Pair, wait};
use serde_json::Value;

/// What a revoked token's streams are cut within.
const CUT: Duration = Duration::from_secs(5);

/// Somebody on another computer: with folders of his own.
struct Person<'a> {
    pair: &'a Pair,
    name: &'static str,
}

impl Person<'_> {
    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.pair.command();
        command
            .args(arguments)
            .env("XDG_CONFIG_HOME", self.pair.path(self.name));
        command
    }

    fn plumb(&self, arguments: &[&str]) -> Outcome {
        self.pair.run(&mut self.command(arguments))
    }

    /// `plumb login` with a token on standard input.
    fn login(&self, token: &str, pin: &str) -> Outcome {
        let url = format!("https://{}", self.pair.address());
        let mut command = self.command(&["login", &url, "--pin", pin, "--token-stdin"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(child.stdin.take().unwrap(), "{token}").unwrap();
        let output = child.wait_with_output().unwrap();
        Outcome {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn stream(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }
}

/// Makes a token; its text, and the digest to log in with.
fn token(pair: &Pair, arguments: &[&str]) -> (String, String) {
    let made = pair.plumb(&[&["token", "create"], arguments].concat());
    assert_eq!(made.code, Some(0), "{made:?}");
    let pin = made.err.split("--pin ").nth(1).unwrap();
    let pin = pin.split_whitespace().next().unwrap();
    (made.out.trim().to_owned(), pin.to_owned())
}

fn audit(pair: &Pair) -> Vec<Value> {
    let text = pair.plumb(&["audit", "--json"]).good();
    let json: Value = serde_json::from_str(&text).unwrap();
    json["audit"].as_array().unwrap().clone()
}

/// Threat 26, on the real programs. Mutation: leave `token_revoked` out of `revoke` in the control plane.
#[test]
fn somebody_with_a_token_logs_in_is_cut_off_when_it_is_revoked_and_leaves_a_trace() {
    let mut pair = Pair::new();
    pair.start_server();
    let (text, pin) = token(&pair, &["ci", "--role", "viewer", "--ttl", "30d"]);
    let ci = Person {
        pair: &pair,
        name: "ci",
    };
    // Another digest: whoever answers is not who is meant, and gets no token.
    let other = pin.chars().rev().collect::<String>();
    let refused = ci.login(&text, &other);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("nothing was sent"), "{refused:?}");
    assert!(!refused.err.contains(&text), "{refused:?}");

    let in_ = ci.login(&text, &pin).good();
    assert!(in_.contains("as ci, role viewer"), "{in_}");
    ci.plumb(&["status"]).good();
    let refused = ci.plumb(&["token", "list"]).one_line();
    assert!(refused.contains("needs admin"), "{refused}");

    let mut watching = ci.stream(&["status", "--watch"]);
    // It watches once its use of the token is seen in a stream: what is asked twice in a row has been answered once.
    ci.plumb(&["status"]).good();
    pair.plumb(&["token", "revoke", "ci"]).good();
    let ended = wait("the watch is cut", CUT, || watching.try_wait().unwrap());
    assert_eq!(ended.code(), Some(1));
    let refused = ci.plumb(&["status"]).one_line();
    assert!(refused.contains("does not know this token"), "{refused}");
    ci.plumb(&["logout"]).good();
    assert!(
        ci.plumb(&["status"])
            .one_line()
            .contains("no control plane")
    );
    let listed = ci.plumb(&["context", "list"]).good();
    assert!(listed.contains("No context is here yet"), "{listed}");

    let trace: Vec<String> = audit(&pair)
        .iter()
        .rev()
        .map(|e| format!("{} {} {}", e["who"], e["method"], e["refused"]).replace('"', ""))
        .collect();
    assert_eq!(
        trace,
        [
            "control plane start ",
            "token local ControlPlane/CreateToken ",
            "token ci Access/ListTokens ROLE_TOO_LOW",
            "token local Access/RevokeToken ",
        ]
    );
    let whole = pair.plumb(&["audit", "--verify"]).good();
    assert!(whole.contains("4 entries"), "{whole}");
}

/// Mutation: take the refusal for a failure.
#[test]
fn somebody_revokes_his_own_token_and_is_told_that_it_is_done() {
    let mut pair = Pair::new();
    pair.start_server();
    let (text, pin) = token(&pair, &["me", "--role", "admin"]);
    let me = Person {
        pair: &pair,
        name: "me",
    };
    me.login(&text, &pin).good();
    let said = me.plumb(&["token", "revoke", "me"]).good();
    assert!(said.contains("Token me is revoked"), "{said}");
    let refused = me.plumb(&["status"]).one_line();
    assert!(refused.contains("does not know this token"), "{refused}");
}

#[test]
fn a_second_workspace_has_a_context_state_and_tokens_of_its_own_across_restarts() {
    let mut pair = Pair::new();
    pair.start_server();
    pair.plumb(&["workspace", "create", "crm"]).good();
    let (text, pin) = token(&pair, &["ci", "--role", "admin", "--context", "crm"]);
    pair.kill_server();
    pair.start_server();
    let listed = pair
        .plumb(&["workspace", "list", "--output", "json"])
        .good();
    assert!(listed.contains("crm"), "{listed}");
    // The admin's token is made anew at every start, in every context that holds it.
    let crm = pair.plumb(&["audit", "--context", "crm", "--json"]).good();
    assert!(crm.contains("made workspace crm"), "{crm}");
    let ci = Person {
        pair: &pair,
        name: "ci",
    };
    let logged_in = ci.login(&text, &pin).good();
    assert!(logged_in.contains("workspace crm"), "{logged_in}");
    let listed = ci.plumb(&["workspace", "list", "--output", "json"]).good();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["workspaces"].as_array().unwrap().len(), 1);
    let refused = ci.plumb(&["workspace", "create", "more"]).one_line();
    assert!(refused.contains("for workspace crm only"), "{refused}");
}
