//! Plan files, from signing to recording.

use plumb_model::state::RevisionRecord;
use plumb_wire::plan_file::{Document, Moved, PlanKey, Signature, signed_bytes};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;

impl World {
    async fn sign(&self, request: v1::PlanRequest) -> v1::SignedPlan {
        let response = self.api().await.sign_plan(request).await.unwrap();
        response.into_inner().signed.unwrap()
    }

    async fn apply_signed(
        &self,
        request: v1::ApplySignedRequest,
    ) -> Result<v1::ApplySignedResponse, Status> {
        let response = self.api().await.apply_signed(request).await?;
        Ok(response.into_inner())
    }
}

fn apply_of(signed: &v1::SignedPlan) -> v1::ApplySignedRequest {
    v1::ApplySignedRequest {
        signed: Some(signed.clone()),
        ..Default::default()
    }
}

fn open(signed: &v1::SignedPlan) -> Document {
    let signature = Signature::from_wire(signed).unwrap();
    Document::open(&signed.document, &signature).unwrap()
}

fn destroy() -> v1::PlanRequest {
    v1::PlanRequest {
        request: Some(v1::plan_request::Request::Destroy(v1::Destroy {})),
        commit: None,
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> Refusal {
    Refusal::of(&result.unwrap_err()).unwrap()
}

/// Signs a document with a key of one's own, as anybody can.
fn forged(document: &Document) -> (v1::SignedPlan, PlanKey) {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let key = PlanKey(pair.public_key().as_ref().try_into().unwrap());
    let bytes = document.bytes();
    let signature = pair.sign(&signed_bytes(&bytes));
    let signature = Signature {
        key,
        bytes: signature.as_ref().try_into().unwrap(),
    };
    (signature.to_wire(bytes), key)
}

#[tokio::test]
async fn a_signed_plan_says_what_it_was_made_of_and_is_recorded_as_it_is() {
    let world = world().await;
    world.apply(blueprints("before")).await.unwrap();
    let signed = world.sign(blueprints("after")).await;
    let document = open(&signed);
    assert_eq!(document.plan.base.0, 1);
    assert_eq!(document.planned_by, "local");
    assert_eq!(document.lineage, world.running.lineage);
    assert_eq!(document.reads.owners.len(), 2);
    assert_eq!(document.reads.machines[&machine("web-1")], Generation(1));
    assert!(document.reads.absent.owners.is_empty());
    assert_eq!(document.plan_request(), blueprints("after"));
    let info = world.api().await.get_info(v1::GetInfoRequest {}).await;
    let key = info.unwrap().into_inner().plan_key;
    assert_eq!(key, world.running.plan_key.to_string());
    assert_eq!(world.running.plan_key.0.to_vec(), signed.public_key);

    let applied = world.apply_signed(apply_of(&signed)).await.unwrap();
    assert_eq!((applied.revision, applied.recorded_before), (2, false));
    assert_eq!(applied.releases.get("base"), Some(&2));
    let mut api = world.api().await;
    let history = api.history(v1::HistoryRequest::default()).await.unwrap();
    let entries = history.into_inner().entries;
    let record: RevisionRecord = serde_json::from_slice(&entries[0].record_json).unwrap();
    assert_eq!(record.approval, document.plan.approval);
}

#[tokio::test]
async fn the_key_outlives_a_restart() {
    let world = world().await;
    let (temp, key) = (world.temp, world.running.plan_key);
    let signed = {
        let world = World {
            temp: tempfile::tempdir().unwrap(),
            running: world.running,
        };
        let signed = world.sign(blueprints("x")).await;
        world.running.stop().await;
        signed
    };
    let running = start(config(&temp.path().join("data"), Timestamp::now)).await;
    let world = World {
        temp,
        running: running.unwrap(),
    };
    assert_eq!(world.running.plan_key, key);
    let applied = world.apply_signed(apply_of(&signed)).await.unwrap();
    assert_eq!(applied.revision, 1);
}

/// Mutation: leave `recorded_before` out of `Recorder::record`, or take any record's approval for the newest's.
#[tokio::test]
async fn the_same_file_twice_is_recorded_once_also_at_once() {
    let world = world().await;
    let signed = world.sign(blueprints("x")).await;
    let (one, two) = tokio::join!(
        world.apply_signed(apply_of(&signed)),
        world.apply_signed(apply_of(&signed))
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.revision, two.revision), (1, 1));
    assert_eq!(one.releases, two.releases);
    assert!(
        one.recorded_before != two.recorded_before,
        "{one:?} {two:?}"
    );
    // Once something else came on top, it is not the newest any more.
    world.apply(blueprints("y")).await.unwrap();
    let again = world.apply_signed(apply_of(&signed)).await;
    assert_eq!(refusal(again).reason, Reason::BaseMoved);
    assert_eq!(world.view().await.revision.0, 2);
}

/// Mutation: attribute everything to the head in `Recorder::attribute`.
#[tokio::test]
async fn a_moved_base_is_refused_and_each_thing_that_moved_is_named() {
    let world = world().await;
    world.apply(blueprints("one")).await.unwrap();
    let signed = world.sign(blueprints("mine")).await;
    let ann = world.api_token("ann", v1::Role::Deployer).await;
    let mut ann = world.api_as(&ann).await;
    let plan = ann.plan(blueprints("two")).await.unwrap().into_inner();
    let request = v1::ApplyRequest {
        request: Some(blueprints("two")),
        approval: plan.approval,
        base_revision: plan.base_revision,
        allow: Vec::new(),
    };
    ann.apply(request).await.unwrap();
    // Another machine, by somebody else: of that the plan knew nothing, and it stands in its way nowhere.
    let more = "kind: Workspace\nname: shop\n---\nkind: Machine\nname: web-1\n---\nkind: Machine\nname: web-2\n---\nkind: Setup\nname: base\nmachines: web-1\nfiles:\n  /tmp/plumb-test/motd: { content: \"two\" }\n---\nkind: App\nname: hello\nmachines: web-1\nrun: [sleep, \"1000\"]\n";
    world.apply(parsed(more)).await.unwrap();

    let refusal = refusal(world.apply_signed(apply_of(&signed)).await);
    assert_eq!(refusal.reason, Reason::BaseMoved);
    let moved: Vec<Moved> = serde_json::from_str(&refusal.metadata["moved"]).unwrap();
    let named: Vec<(String, Option<&str>, Option<u64>)> = moved
        .iter()
        .map(|m| {
            let what = format!("{}: {} → {}", m.subject, m.was, m.now);
            (what, m.by.as_deref(), m.revision.map(|r| r.0))
        })
        .collect();
    assert_eq!(
        named,
        [
            (
                "setup base: release 1 → release 2".to_owned(),
                Some("ann"),
                Some(2)
            ),
            (
                "machine web-1: generation 1 → generation 2".to_owned(),
                Some("ann"),
                Some(2)
            ),
        ]
    );
    for part in [
        "revision 1, and 3 is recorded now",
        "setup base: release 1 → release 2, recorded by ann at 2",
        "--rebase",
    ] {
        assert!(refusal.message.contains(part), "{}", refusal.message);
    }
    assert_eq!(world.view().await.revision.0, 3);
}

/// Mutation: leave the comparison of the read set out of `Recorder::record`.
#[tokio::test]
async fn a_restored_folder_that_counts_the_same_revision_twice_takes_no_plan_of_the_first_time() {
    let temp = tempfile::tempdir().unwrap();
    let (data, backup) = (temp.path().join("data"), temp.path().join("backup"));
    let at = |data: &std::path::Path| config(data, Timestamp::now);
    start(at(&data)).await.unwrap().stop().await;
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&data, &backup])
        .status();
    assert!(copied.unwrap().success());
    let world = World {
        temp,
        running: start(at(&data)).await.unwrap(),
    };
    world.apply(blueprints("one")).await.unwrap();
    let signed = world.sign(blueprints("mine")).await;
    let World { temp, running } = world;
    running.stop().await;

    let world = World {
        temp,
        running: start(at(&backup)).await.unwrap(),
    };
    world.apply(blueprints("two")).await.unwrap();
    let refused = refusal(world.apply_signed(apply_of(&signed)).await);
    assert_eq!(refused.reason, Reason::BaseMoved);
    let expected = "setup base: release 1 → another release 1";
    assert!(refused.message.contains(expected), "{}", refused.message);
    assert_eq!(world.view().await.revision.0, 1);
}

/// Mutation: let a rebase pass whatever the approval is.
#[tokio::test]
async fn a_rebase_goes_on_only_if_the_plan_comes_out_the_same() {
    let world = world().await;
    let yaml = |motd: &str, extra: &str| {
        parsed(&format!(
            "kind: Workspace\nname: shop\n---\nkind: Machine\nname: web-1\n---\nkind: Machine\nname: web-2\n{extra}---\nkind: Setup\nname: base\nmachines: web-1\nfiles:\n  /tmp/plumb-test/motd: {{ content: {motd:?} }}\n"
        ))
    };
    world.apply(yaml("one", "")).await.unwrap();
    let other = yaml("other", "");
    let signed = world.sign(other.clone()).await;
    let rebased = |signed: &v1::SignedPlan| v1::ApplySignedRequest {
        rebase: true,
        ..apply_of(signed)
    };
    // Something else came and went: the numbers moved, and nothing that the plan changes.
    world
        .apply(yaml("one", "labels: { a: b }\n"))
        .await
        .unwrap();
    world.apply(yaml("one", "")).await.unwrap();
    let without = refusal(world.apply_signed(apply_of(&signed)).await);
    assert_eq!(without.reason, Reason::BaseMoved);
    let applied = world.apply_signed(rebased(&signed)).await.unwrap();
    assert_eq!((applied.revision, applied.recorded_before), (4, false));
    let again = world.apply_signed(rebased(&signed)).await.unwrap();
    assert_eq!((again.revision, again.recorded_before), (4, true));
    // Now it would do something else.
    world.apply(yaml("three", "")).await.unwrap();
    let refused = refusal(world.apply_signed(rebased(&signed)).await);
    assert_eq!(refused.reason, Reason::PlanChanged);
    assert_eq!(world.view().await.revision.0, 5);
}

/// Mutation: take a plan's word for who signed it, or leave the comparison with `vouched_key` out.
#[tokio::test]
async fn what_another_key_signed_is_a_request_that_somebody_vouches_for() {
    let (first, second) = (world().await, world().await);
    let signed = first.sign(blueprints("x")).await;
    let id = first.running.plan_key.id().to_string();
    let refused = refusal(second.apply_signed(apply_of(&signed)).await);
    assert_eq!(refused.reason, Reason::ForeignPlan);
    assert_eq!(refused.metadata["key"], id);
    assert!(
        refused.message.contains(&format!("--key {id}")),
        "{}",
        refused.message
    );
    let vouched = v1::ApplySignedRequest {
        vouched_key: second.running.plan_key.id().to_string(),
        ..apply_of(&signed)
    };
    assert_eq!(
        refusal(second.apply_signed(vouched).await).reason,
        Reason::ForeignPlan
    );
    let vouched = v1::ApplySignedRequest {
        vouched_key: id.clone(),
        ..apply_of(&signed)
    };
    let applied = second.apply_signed(vouched.clone()).await.unwrap();
    assert_eq!(applied.revision, 1);
    assert!(second.apply_signed(vouched).await.unwrap().recorded_before);

    // What it claims of this history counts for nothing: it is planned again, and must come out the same.
    let third = world().await;
    third.apply(blueprints("y")).await.unwrap();
    let own = open(&third.sign(blueprints("x")).await);
    let mut claims = open(&signed);
    claims.lineage = own.lineage;
    claims.workspace = own.workspace;
    claims.reads = own.reads;
    claims.plan.base = own.plan.base;
    let (forged, key) = forged(&claims);
    assert_eq!(
        refusal(third.apply_signed(apply_of(&forged)).await).reason,
        Reason::ForeignPlan
    );
    let vouched = v1::ApplySignedRequest {
        vouched_key: key.id().to_string(),
        ..apply_of(&forged)
    };
    assert_eq!(
        refusal(third.apply_signed(vouched).await).reason,
        Reason::PlanChanged
    );
    assert_eq!(third.view().await.revision.0, 1);
}

#[tokio::test]
async fn what_nobody_signed_so_is_refused_before_anything_else() {
    let world = world().await;
    let signed = world.sign(blueprints("x")).await;
    let check = |change: &dyn Fn(&mut v1::SignedPlan)| {
        let mut changed = signed.clone();
        change(&mut changed);
        apply_of(&changed)
    };
    let last = signed.document.len() - 1;
    for (request, expected) in [
        (check(&|s| s.document[last / 2] ^= 1), Reason::PlanDamaged),
        (check(&|s| s.document.push(b' ')), Reason::PlanDamaged),
        (check(&|s| s.signature[7] ^= 1), Reason::PlanDamaged),
        (check(&|s| s.public_key[7] ^= 1), Reason::PlanDamaged),
        (check(&|s| s.document.clear()), Reason::PlanDamaged),
        (check(&|s| s.signature.clear()), Reason::BadMessage),
        (check(&|s| s.public_key.push(0)), Reason::BadMessage),
        (v1::ApplySignedRequest::default(), Reason::BadMessage),
    ] {
        assert_eq!(reason(world.apply_signed(request).await), expected);
    }
    assert_eq!(world.view().await.revision.0, 0);
}

/// A plan file opens no way round what an apply checks.
#[tokio::test]
async fn consents_and_blobs_are_asked_for_as_in_any_apply() {
    let world = world().await;
    world.apply(blueprints("x")).await.unwrap();
    let emptied = parsed("kind: Workspace\nname: shop\n---\nkind: Machine\nname: web-1\n");
    let signed = world.sign(emptied).await;
    assert_eq!(open(&signed).plan.consents.len(), 1);
    let refused = refusal(world.apply_signed(apply_of(&signed)).await);
    assert_eq!(refused.reason, Reason::ConsentNeeded);
    let allowed = v1::ApplySignedRequest {
        allow: vec!["empty".into()],
        ..apply_of(&signed)
    };
    assert_eq!(world.apply_signed(allowed).await.unwrap().revision, 2);

    let yaml = "kind: Workspace\nname: shop\n---\nkind: Machine\nname: web-1\n---\nkind: App\nname: hello\nmachines: web-1\nsource: { path: app }\nrun: [sleep, \"1000\"]\n";
    let mut request = parsed(yaml);
    let packed = b"packed".to_vec();
    let digest = Hash::of(&packed);
    let Some(v1::plan_request::Request::Blueprints(set)) = &mut request.request else {
        panic!("another request");
    };
    let source = v1::Source {
        digest: digest.to_string(),
        size: packed.len() as u64,
        text: None,
    };
    set.sources.insert("app".into(), source);
    let signed = world.sign(request).await;
    let wanted = open(&signed).blobs;
    assert_eq!(wanted.into_iter().collect::<Vec<_>>(), [(digest, 6)]);
    let refused = refusal(world.apply_signed(apply_of(&signed)).await);
    assert_eq!(refused.reason, Reason::BlobsMissing);
}

#[tokio::test]
async fn rollbacks_and_destroys_can_be_signed_and_applied() {
    let world = world().await;
    world.apply(blueprints("one")).await.unwrap();
    world.apply(blueprints("two")).await.unwrap();
    let rollback = v1::PlanRequest {
        request: Some(v1::plan_request::Request::Rollback(v1::Rollback {
            owner: "base".into(),
            release: None,
        })),
        commit: None,
    };
    let signed = world.sign(rollback).await;
    // The release is named, so that nothing is chosen anew.
    assert!(matches!(
        open(&signed).plan_request().request,
        Some(v1::plan_request::Request::Rollback(v1::Rollback {
            release: Some(1),
            ..
        }))
    ));
    assert_eq!(
        world
            .apply_signed(apply_of(&signed))
            .await
            .unwrap()
            .revision,
        3
    );
    let signed = world.sign(destroy()).await;
    assert_eq!(
        world
            .apply_signed(apply_of(&signed))
            .await
            .unwrap()
            .revision,
        4
    );
    assert!(
        world
            .view()
            .await
            .owners
            .iter()
            .all(|o| o.name.as_str() != "nobody")
    );
}

/// Mutation: give either method a lower role in `RULES`.
#[tokio::test]
async fn planners_sign_and_only_deployers_apply() {
    let world = world().await;
    let viewer = world.api_token("v", v1::Role::Viewer).await;
    let planner = world.api_token("p", v1::Role::Planner).await;
    let mut viewer = world.api_as(&viewer).await;
    let mut planner = world.api_as(&planner).await;
    let refused = viewer.sign_plan(blueprints("x")).await;
    assert_eq!(reason(refused), Reason::RoleTooLow);
    let signed = planner.sign_plan(blueprints("x")).await.unwrap();
    let signed = signed.into_inner().signed.unwrap();
    assert_eq!(open(&signed).planned_by, "p");
    let refused = planner.apply_signed(apply_of(&signed)).await;
    assert_eq!(reason(refused), Reason::RoleTooLow);
}
