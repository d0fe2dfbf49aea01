//! `plumb hold`: a resource is left as it is for a time.

use plumb_model::{Timestamp, escape};
use plumb_wire::v1;
use serde_json::{Value, json};

use super::patch::patch;
use super::{Hands, connect, list};
use crate::args::{HoldArgs, Output};
use crate::commands::Env;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::remote::Remote;
use crate::render::time::full;

/// Holds, releases or lists.
pub async fn hold(args: &HoldArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    let mut hands = connect(env).await?;
    if args.command.is_some() {
        let orders = list(&mut hands).await?;
        match env.output {
            Output::Json => out::json(&json!({ "format": 1, "orders": all_json(&orders) })),
            Output::Text => out::print(&listed(&orders, env)),
        }
        return Ok(Exit::Fine);
    }
    let (order, online, text) = if let Some(resource) = &args.release {
        let asked = v1::ReleaseResourceRequest {
            resource: resource.clone(),
        };
        let answer = hands.client.release_resource(asked).await;
        let answer = answer.map_err(hands.failed())?.into_inner();
        let text = "is held no more; what differs there is dealt with as its drift policy says";
        (answer.order, answer.online, text.to_owned())
    } else {
        let (Some(resource), Some(length), Some(reason)) =
            (&args.resource, args.length, &args.reason)
        else {
            return Err(CliError::Other(
                "name the resource, --for how long and the --reason; see `plumb hold --help`"
                    .to_owned(),
            ));
        };
        held(&mut hands, resource, length, reason).await?
    };
    let order = order.ok_or_else(|| CliError::Answer("it holds no order".to_owned()))?;
    match env.output {
        Output::Json => {
            let order = order_json(&order);
            out::json(&json!({ "format": 1, "order": order, "online": online }));
        }
        Output::Text => {
            out::line(&escape::line(&format!("{} {text}.", order.resource)));
            if !online {
                out::note(&format!(
                    "{} is offline: it has the order as soon as its agent connects",
                    order.machine
                ));
            }
        }
    }
    Ok(Exit::Fine)
}

async fn held(
    hands: &mut Hands,
    resource: &str,
    length: std::time::Duration,
    reason: &str,
) -> Result<(Option<v1::HandOrder>, bool, String), CliError> {
    let asked = v1::HoldResourceRequest {
        resource: resource.to_owned(),
        for_ms: u64::try_from(length.as_millis()).unwrap_or(u64::MAX),
        reason: reason.to_owned(),
    };
    let answer = hands.client.hold_resource(asked).await;
    let answer = answer.map_err(hands.failed())?.into_inner();
    let until = answer.order.as_ref().map(|order| when(&order.until));
    let text = format!(
        "is held until {}; `plumb hold list` shows what differs there meanwhile",
        until.unwrap_or_default()
    );
    Ok((answer.order, answer.online, text))
}

/// A time of the wire, to the second; what cannot be read stays as it came.
fn when(text: &str) -> String {
    let at: Result<Timestamp, _> = text.parse();
    at.map_or_else(|_| text.to_owned(), |at| format!("{} UTC", full(at)))
}

/// Whether a hold has ended.
fn is_over(order: &v1::HandOrder, now: Timestamp) -> bool {
    let until: Option<Timestamp> = order.until.parse().ok();
    until.is_some_and(|until| until <= now)
}

/// What a plan is shown with: what stands still or is held by hand, whatever the blueprints say. Nothing is not worth a word,
/// and neither is a control plane that knows of none.
pub async fn notes(remote: &Remote) -> Vec<String> {
    let client = plumb_wire::client::hands_with;
    let Ok(mut hands) = Hands::to(&remote.context, client).await else {
        return Vec::new();
    };
    let orders = list(&mut hands).await.unwrap_or_default();
    sentences(&orders, Timestamp::now())
}

/// One sentence for each order that stands; what is stopped everywhere is not told of machine by machine.
fn sentences(orders: &[v1::HandOrder], now: Timestamp) -> Vec<String> {
    let everywhere = |order: &v1::HandOrder| {
        let same =
            |o: &&v1::HandOrder| o.what == "stop" && o.owner == order.owner && o.machine.is_empty();
        orders.iter().find(same)
    };
    orders
        .iter()
        .filter_map(|order| {
            let text = match order.what.as_str() {
                "stop" if order.machine.is_empty() => format!(
                    "{} is stopped by {} since {}; `plumb start {}` undoes it",
                    order.owner,
                    order.by,
                    when(&order.since),
                    order.owner
                ),
                "stop" if everywhere(order).is_some() => return None,
                "stop" => format!(
                    "{} is stopped on {} by {} since {}; `plumb start {} --machine {}` undoes it",
                    order.owner,
                    order.machine,
                    order.by,
                    when(&order.since),
                    order.owner,
                    order.machine
                ),
                "hold" if !is_over(order, now) => format!(
                    "{} is held by {} until {} ({}); `plumb hold --release {}` undoes it",
                    order.resource,
                    order.by,
                    when(&order.until),
                    order.reason,
                    order.resource
                ),
                _ => return None,
            };
            Some(escape::line(&text).into_owned())
        })
        .collect()
}

fn listed(orders: &[v1::HandOrder], env: &Env<'_>) -> String {
    if orders.is_empty() {
        return "Nothing is stopped or held by hand.\n".to_owned();
    }
    let now = Timestamp::now();
    let mut text = String::new();
    for order in orders {
        let said = match (order.what.as_str(), order.machine.is_empty()) {
            ("stop", true) => format!("{} everywhere", order.owner),
            ("stop", false) => format!("{} on {}", order.owner, order.machine),
            _ => order.resource.clone(),
        };
        let word = match order.what.as_str() {
            "hold" if is_over(order, now) => env.style.faint("was held"),
            "hold" => env.style.change("held"),
            _ => env.style.change("stopped"),
        };
        text.push_str(&format!(
            "{word}  {}\n",
            env.style.bold(&escape::line(&said))
        ));
        let until = match order.until.as_str() {
            "" => String::new(),
            until => format!(", until {}", when(until)),
        };
        let by = format!("  by {} at {}{until}", order.by, when(&order.since));
        text.push_str(&format!("{}\n", escape::line(&by)));
        for (name, what) in [
            ("why", &order.reason),
            ("trouble", &order.trouble),
            ("differs", &order.drift),
        ] {
            if !what.is_empty() {
                text.push_str(&format!("  {name}: {}\n", escape::line(what)));
            }
        }
        if !order.delivered && order.trouble.is_empty() {
            text.push_str("  its machine does not have the order yet\n");
        }
        if order.found.is_none() && !order.found_mode.is_empty() {
            text.push_str("  what stands there is not told: it is no text, is long, or not everybody on the machine may read it\n");
        }
        if let Some(patch) = patch(order, env.style) {
            text.push_str(&patch);
        }
    }
    text
}

fn all_json(orders: &[v1::HandOrder]) -> Vec<Value> {
    orders.iter().map(order_json).collect()
}

fn order_json(order: &v1::HandOrder) -> Value {
    json!({
        "what": order.what,
        "machine": order.machine,
        "owner": order.owner,
        "resource": order.resource,
        "by": order.by,
        "since": order.since,
        "until": order.until,
        "reason": order.reason,
        "delivered": order.delivered,
        "trouble": order.trouble,
        "drift": order.drift,
        "found": order.found,
        "found_mode": order.found_mode,
        "recorded": order.recorded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_told_once_of_what_is_stopped_everywhere_and_of_holds_that_stand() {
        let order = |what: &str, machine: &str, resource: &str, until: &str| v1::HandOrder {
            what: what.into(),
            machine: machine.into(),
            owner: "hello".into(),
            resource: resource.into(),
            by: "anna".into(),
            since: "2026-11-21T08:00:00Z".into(),
            until: until.into(),
            reason: "a look\x1b[2J".into(),
            ..v1::HandOrder::default()
        };
        let orders = [
            order("stop", "", "", ""),
            order("stop", "web-1", "", ""),
            order(
                "hold",
                "web-1",
                "web-1/base/file//a",
                "2026-11-21T10:00:00Z",
            ),
            order(
                "hold",
                "web-1",
                "web-1/base/file//b",
                "2026-11-21T08:30:00Z",
            ),
        ];
        let now = "2026-11-21T09:00:00Z".parse().unwrap();
        let said = sentences(&orders, now);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("stopped by anna since") && said[0].contains("plumb start hello"));
        assert!(
            said[1].contains("file//a is held") && !said[1].contains('\x1b'),
            "{said:?}"
        );
        let alone = sentences(&orders[1..2], now);
        assert!(alone[0].contains("stopped on web-1"), "{alone:?}");
    }
}
