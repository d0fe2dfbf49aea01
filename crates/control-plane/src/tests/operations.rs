//! Health, watches that go on where they were, pages of the history, and blueprints that are sent as text.

use plumb_model::state::RevisionRecord;
use plumb_wire::client::{Bearer, OperationsClient, operations_with};

use super::*;

async fn operations(world: &World) -> OperationsClient {
    let bearer = Bearer::new(&world.running.admin_token).unwrap();
    operations_with(world.channel().await, bearer)
}

#[tokio::test]
async fn health_tells_version_clock_and_parts() {
    let world = world_at(|| "2026-11-21T12:00:00Z".parse().unwrap()).await;
    let mut operations = operations(&world).await;
    let health = operations.get_health(v1::GetHealthRequest {}).await;
    let health = health.unwrap().into_inner();
    assert_eq!(health.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(health.now, "2026-11-21T12:00:00Z");
    assert!(health.ready);
    let parts: Vec<&str> = health.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(parts, ["store", "agents", "ca"]);
}

/// Mutation: let `Resume::shown` be 0 whatever the token says.
#[tokio::test]
async fn a_watch_that_goes_on_is_sent_only_what_has_changed_since() {
    let world = world().await;
    let mut api = world.api().await;
    let mut first = api
        .watch(v1::WatchRequest::default())
        .await
        .unwrap()
        .into_inner();
    let seen = within(first.message()).await.unwrap().unwrap();
    assert!(!seen.resume_token.is_empty());
    let revision = |message: &v1::WatchResponse| {
        let view: serde_json::Value = serde_json::from_slice(&message.view_json).unwrap();
        view["revision"].as_u64().unwrap()
    };
    assert_eq!(revision(&seen), 0);
    let again = |token: &str| v1::WatchRequest {
        resume_token: token.to_owned(),
    };
    let mut second = api
        .watch(again(&seen.resume_token))
        .await
        .unwrap()
        .into_inner();
    world.apply(blueprints("hello")).await.unwrap();
    let next = within(second.message()).await.unwrap().unwrap();
    assert_eq!(revision(&next), 1, "what was seen already was sent again");
    // A token of another run, or of nobody, is as good as none.
    for strange in [
        "x",
        "0123456789abcdef-7",
        "-",
        &format!("x{}", next.resume_token),
    ] {
        let mut stream = api.watch(again(strange)).await.unwrap().into_inner();
        let all = within(stream.message()).await.unwrap().unwrap();
        assert_eq!(revision(&all), 1, "{strange}");
    }
}

#[tokio::test]
async fn the_history_has_pages() {
    let world = world().await;
    for text in ["one", "two", "three"] {
        world.apply(blueprints(text)).await.unwrap();
    }
    let mut api = world.api().await;
    for owner in ["", "base"] {
        let (mut seen, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::HistoryRequest {
                owner: owner.to_owned(),
                limit: 2,
                page_token,
            };
            let page = api.history(request).await.unwrap().into_inner();
            assert!(page.entries.len() <= 2);
            seen.extend(page.entries.iter().map(|entry| {
                let record: RevisionRecord = serde_json::from_slice(&entry.record_json).unwrap();
                record.revision.0
            }));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, [3, 2, 1], "{owner}");
    }
    let request = v1::HistoryRequest {
        page_token: "x".to_owned(),
        ..v1::HistoryRequest::default()
    };
    assert_eq!(reason(api.history(request).await), Reason::BadMessage);
}

fn texts(files: &[(&str, &str)]) -> v1::PlanRequest {
    let files = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect();
    v1::PlanRequest {
        request: Some(v1::plan_request::Request::Texts(v1::Texts {
            files,
            ..v1::Texts::default()
        })),
        commit: None,
    }
}

const MANIFEST: (&str, &str) = (
    "plumb.yaml",
    "kind: Workspace\nname: shop\n---\nkind: Machine\nname: web-1\n",
);

/// Mutation: leave `texts::read` out of `apply`.
#[tokio::test]
async fn texts_are_planned_and_applied_as_what_they_mean() {
    let world = world().await;
    let app = "kind: App\nname: hello\nmachines: web-1\nrun: [sleep, \"1\"]\n";
    let mut api = world.api().await;
    let request = texts(&[MANIFEST, ("apps/hello.yaml", app)]);
    let read = parsed(&format!("{}---\n{app}", MANIFEST.1));
    let as_text = api.plan(request.clone()).await.unwrap().into_inner();
    let as_read = api.plan(read).await.unwrap().into_inner();
    assert_eq!(as_text.approval, as_read.approval);
    let applied = world.apply(request).await.unwrap();
    assert_eq!(applied.releases.get("hello"), Some(&1));
}

#[tokio::test]
async fn what_is_wrong_with_texts_is_told_whole() {
    let world = world().await;
    let bad = "kind: App\nname: hello\nmachnes: web-1\n";
    let status = world
        .api()
        .await
        .plan(texts(&[MANIFEST, ("hello.yaml", bad)]))
        .await
        .unwrap_err();
    let refusal = Refusal::of(&status).unwrap();
    assert_eq!(refusal.reason, Reason::PlanRefused);
    let first = "the first of them: hello.yaml:";
    assert!(refusal.message.contains(first), "{}", refusal.message);
    assert!(refusal.metadata["problems"].contains("machnes"));
    let problems: serde_json::Value = serde_json::from_str(&refusal.metadata["problems"]).unwrap();
    let total: usize = refusal.metadata["total"].parse().unwrap();
    assert_eq!(problems.as_array().unwrap().len(), total);
    let none = world.api().await.plan(texts(&[])).await.unwrap_err();
    assert_eq!(Refusal::of(&none).unwrap().reason, Reason::PlanRefused);
}
