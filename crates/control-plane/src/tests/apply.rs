//! Planning, applying, blobs and history.

use plumb_model::plan::Plan;
use plumb_model::state::{RevisionKind, RevisionRecord};

use super::*;

async fn approved(api: &mut ApiClient, request: &v1::PlanRequest) -> v1::ApplyRequest {
    let plan = api.plan(request.clone()).await.unwrap().into_inner();
    v1::ApplyRequest {
        request: Some(request.clone()),
        approval: plan.approval,
        base_revision: plan.base_revision,
        allow: Vec::new(),
    }
}

#[tokio::test]
async fn what_was_applied_plans_to_nothing_and_stands_in_the_history() {
    let world = world().await;
    let applied = world.apply(blueprints("hello")).await.unwrap();
    assert_eq!(applied.revision, 1);
    assert_eq!(applied.releases.get("base"), Some(&1));
    let mut api = world.api().await;
    let again = api.plan(blueprints("hello")).await.unwrap().into_inner();
    let plan: Plan = serde_json::from_slice(&again.plan_json).unwrap();
    assert!(plan.is_empty(), "{plan:#?}");
    // Nothing to do is recorded as nothing.
    let nothing = world.apply(blueprints("hello")).await.unwrap();
    assert_eq!((nothing.revision, nothing.releases.len()), (1, 0));

    let history = api.history(v1::HistoryRequest::default()).await.unwrap();
    let entries = history.into_inner().entries;
    assert_eq!(entries.len(), 1);
    let record: RevisionRecord = serde_json::from_slice(&entries[0].record_json).unwrap();
    assert_eq!((record.revision.0, record.by.as_str()), (1, "local"));
    assert_eq!(entries[0].outcomes.get("base").unwrap(), "converging");
}

/// Mutation: leave the comparison of `base` out of `Recorder::record`, or the lock out of `Recorder::apply`.
#[tokio::test]
async fn of_two_applies_at_once_one_wins_and_the_other_is_told_what_moved() {
    let world = world().await;
    let ann = world.api_token("ann", v1::Role::Deployer).await;
    let bob = world.api_token("bob", v1::Role::Deployer).await;
    let (mut ann, mut bob) = (world.api_as(&ann).await, world.api_as(&bob).await);
    let first = approved(&mut ann, &blueprints("from ann")).await;
    let second = approved(&mut bob, &blueprints("from bob")).await;
    let (one, two) = tokio::join!(ann.apply(first), bob.apply(second));
    let (winner, lost) = match (one, two) {
        (Ok(_), Err(status)) => ("ann", status),
        (Err(status), Ok(_)) => ("bob", status),
        other => panic!("{other:?}"),
    };
    assert_eq!(lost.code(), tonic::Code::FailedPrecondition);
    let refusal = Refusal::of(&lost).unwrap();
    assert_eq!(refusal.reason, Reason::BaseMoved);
    assert_eq!(refusal.metadata["head"], "1");
    assert_eq!(refusal.metadata["by"], winner);
    assert!(refusal.metadata.contains_key("at"));
    for part in ["revision 1", winner, "`plumb plan`"] {
        assert!(refusal.message.contains(part), "{}", refusal.message);
    }
    assert_eq!(world.view().await.revision.0, 1);
}

/// Mutation: leave the comparison of approvals out of `Recorder::record`.
#[tokio::test]
async fn what_was_not_approved_is_not_recorded() {
    let world = world().await;
    let mut api = world.api().await;
    let mut request = approved(&mut api, &blueprints("shown")).await;
    request.request = Some(blueprints("smuggled in"));
    assert_eq!(reason(api.apply(request).await), Reason::PlanChanged);
    assert_eq!(world.view().await.revision.0, 0);
}

/// Mutation: leave the check of consents out of `Recorder::record`.
#[tokio::test]
async fn an_emptied_workspace_wants_its_consent_by_name() {
    let world = world().await;
    world.apply(blueprints("x")).await.unwrap();
    let mut api = world.api().await;
    let emptied = parsed("kind: Workspace\nname: shop\n---\nkind: Machine\nname: web-1\n");
    let mut request = approved(&mut api, &emptied).await;
    request.allow = vec!["something-else".into()];
    let status = api.apply(request.clone()).await.unwrap_err();
    let refusal = Refusal::of(&status).unwrap();
    assert_eq!(refusal.reason, Reason::ConsentNeeded);
    assert_eq!(refusal.metadata["allow"], "empty");
    assert!(
        refusal.message.ends_with("; go ahead with --allow empty"),
        "{}",
        refusal.message
    );
    assert_eq!(world.view().await.revision.0, 1);
    // What was allowed and not needed is not kept.
    request.allow = vec!["restarts".into(), "empty".into()];
    assert_eq!(api.apply(request).await.unwrap().into_inner().revision, 2);
    let history = api.history(v1::HistoryRequest::default()).await.unwrap();
    let entries = history.into_inner().entries;
    let record: RevisionRecord = serde_json::from_slice(&entries[0].record_json).unwrap();
    assert_eq!(record.allowed, ["empty"]);
    let first: serde_json::Value = serde_json::from_slice(&entries[1].record_json).unwrap();
    assert_eq!(first.get("allowed"), None, "an old record reads as it did");
}

#[tokio::test]
async fn a_destroy_is_recorded_as_one() {
    let world = world().await;
    world.apply(blueprints("x")).await.unwrap();
    let destroy = v1::PlanRequest {
        request: Some(v1::plan_request::Request::Destroy(v1::Destroy {})),
        commit: None,
    };
    assert_eq!(world.apply(destroy).await.unwrap().revision, 2);
    let mut api = world.api().await;
    let history = api.history(v1::HistoryRequest::default()).await.unwrap();
    let entries = history.into_inner().entries;
    let record: RevisionRecord = serde_json::from_slice(&entries[0].record_json).unwrap();
    assert_eq!(record.kind, RevisionKind::Destroy);
}

#[tokio::test]
async fn a_rollback_takes_the_release_before_and_is_applied_forward() {
    let world = world().await;
    world.apply(blueprints("one")).await.unwrap();
    world.apply(blueprints("two")).await.unwrap();
    let rollback = |release| v1::PlanRequest {
        request: Some(v1::plan_request::Request::Rollback(v1::Rollback {
            owner: "base".into(),
            release,
        })),
        commit: None,
    };
    let applied = world.apply(rollback(None)).await.unwrap();
    assert_eq!(applied.revision, 3);
    assert_eq!(applied.releases.get("base"), Some(&3));
    let mut api = world.api().await;
    let history = v1::HistoryRequest {
        owner: "base".into(),
        limit: 1,
        ..v1::HistoryRequest::default()
    };
    let entries = api.history(history).await.unwrap().into_inner().entries;
    let record: RevisionRecord = serde_json::from_slice(&entries[0].record_json).unwrap();
    assert!(matches!(record.kind, RevisionKind::Rollback { to, .. } if to.0 == 1));
    assert_eq!(reason(api.plan(rollback(Some(9))).await), Reason::NotFound);
    let unknown = v1::PlanRequest {
        request: Some(v1::plan_request::Request::Rollback(v1::Rollback {
            owner: "nobody".into(),
            release: None,
        })),
        commit: None,
    };
    assert_eq!(reason(api.plan(unknown).await), Reason::NotFound);
}

#[tokio::test]
async fn requests_that_say_nothing_or_nonsense_are_refused_by_field() {
    let world = world().await;
    let mut api = world.api().await;
    let empty = v1::PlanRequest::default();
    assert_eq!(reason(api.plan(empty).await), Reason::BadMessage);
    let nonsense = v1::PlanRequest {
        request: Some(v1::plan_request::Request::Blueprints(v1::Blueprints {
            blueprint_set_json: b"{\"workspace\":".to_vec(),
            sources: Default::default(),
            ask_json: Vec::new(),
        })),
        commit: None,
    };
    let status = api.plan(nonsense).await.unwrap_err();
    assert!(status.message().contains("blueprint_set_json"), "{status}");
    let deep = "[".repeat(100_000);
    let deep = v1::PlanRequest {
        request: Some(v1::plan_request::Request::Blueprints(v1::Blueprints {
            blueprint_set_json: deep.into_bytes(),
            sources: Default::default(),
            ask_json: Vec::new(),
        })),
        commit: None,
    };
    assert_eq!(reason(api.plan(deep).await), Reason::BadMessage);
}

fn pieces(digest: Hash, parts: &[&[u8]]) -> Vec<v1::UploadBlobRequest> {
    parts
        .iter()
        .map(|data| v1::UploadBlobRequest {
            digest: digest.to_string(),
            data: data.to_vec(),
            offset: 0,
        })
        .collect()
}

#[tokio::test]
async fn a_blob_is_missing_until_it_was_sent_whole_and_right() {
    let world = world().await;
    let mut api = world.api().await;
    let digest = Hash::of(b"hello world");
    let ask = || v1::MissingBlobsRequest {
        digests: vec![digest.to_string()],
    };
    let missing =
        |response: tonic::Response<v1::MissingBlobsResponse>| response.into_inner().digests.len();
    let wrong = tokio_stream::iter(pieces(digest, &[b"hello ", b"mallory"]));
    assert_eq!(reason(api.upload_blob(wrong).await), Reason::DigestMismatch);
    assert_eq!(missing(api.missing_blobs(ask()).await.unwrap()), 1);
    let right = tokio_stream::iter(pieces(digest, &[b"hello ", b"world"]));
    let stored = api.upload_blob(right).await.unwrap().into_inner();
    assert_eq!(stored.size, 11);
    assert_eq!(missing(api.missing_blobs(ask()).await.unwrap()), 0);
    // Once more is no harm.
    let again = tokio_stream::iter(pieces(digest, &[b"hello world"]));
    api.upload_blob(again).await.unwrap();
    let nothing = tokio_stream::iter(Vec::<v1::UploadBlobRequest>::new());
    assert_eq!(reason(api.upload_blob(nothing).await), Reason::BadMessage);
}

/// Mutation: leave `claim` out of `server::open`, and the folder looks empty under the other name.
#[tokio::test]
async fn a_data_folder_serves_no_other_workspace_than_its_own() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let first = start(config(&data, Timestamp::now)).await.unwrap();
    first.stop().await;
    let mut other = config(&data, Timestamp::now);
    other.workspace = WorkspaceName::new("shpo").unwrap();
    let error = start(other).await.unwrap_err().to_string();
    assert!(error.contains("holds workspace shop, not shpo"), "{error}");
    start(config(&data, Timestamp::now))
        .await
        .unwrap()
        .stop()
        .await;
}
