//! Machines through the real service: listed, removed, copied, renewed, recovered; and the CA replaced.

use std::sync::atomic::{AtomicI64, Ordering};

use plumb_dispatch::view::MachineWord;
use plumb_model::{Assignment, ResourceStatus};
use plumb_wire::client::{Bearer, MachinesClient, machines_with};
use plumb_wire::token::CaDigest;
use v1::rotate_ca_request::Step;

use super::*;

impl World {
    async fn machines(&self) -> MachinesClient {
        let bearer = Bearer::new(&self.running.admin_token).unwrap();
        machines_with(self.channel().await, bearer)
    }

    async fn machine(&self, name: &str) -> Result<v1::Machine, Status> {
        let name = name.to_owned();
        let asked = v1::GetMachineRequest { name };
        let answer = self.machines().await.get_machine(asked).await?;
        Ok(answer.into_inner().machine.unwrap())
    }

    async fn remove(&self, name: &str, force: bool) -> Result<v1::RemoveMachineResponse, Status> {
        let name = name.to_owned();
        let asked = v1::RemoveMachineRequest { name, force };
        Ok(self
            .machines()
            .await
            .remove_machine(asked)
            .await?
            .into_inner())
    }

    async fn ca(&self) -> v1::GetCaResponse {
        let answer = self.machines().await.get_ca(v1::GetCaRequest {}).await;
        answer.unwrap().into_inner()
    }

    async fn rotate(&self, step: Step) -> Result<v1::GetCaResponse, Status> {
        let asked = v1::RotateCaRequest { step: step.into() };
        Ok(self.machines().await.rotate_ca(asked).await?.into_inner())
    }

    /// The next certificate for the enrolled key, as an agent fetches it that trusts `ca_pem`.
    async fn renew(&self, enrolled: &Enrolled, ca_pem: &str) -> Result<Renewed, Status> {
        let target = Target {
            ca_pem: ca_pem.to_owned(),
            ..self.target(None)
        };
        let channel = connect(&target)
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;
        let asked = v1::RenewRequest {
            csr_der: csr(&enrolled.key),
            machine: enrolled.response.machine.clone(),
        };
        let answer = enrollment(channel).renew(asked).await?.into_inner();
        let pem = |ders: &[Vec<u8>]| {
            ders.iter()
                .map(|der| plumb_wire::pin::to_pem(der))
                .collect()
        };
        Ok(Renewed {
            chain_pem: pem(&answer.chain_der),
            trust_pem: pem(&answer.trust_der),
            trusted: answer
                .trust_der
                .iter()
                .map(|der| CaDigest::of(der).to_string())
                .collect(),
        })
    }

    /// A session of a machine with this certificate, by an agent that trusts these CAs.
    async fn greet(&self, enrolled: &Enrolled, renewed: &Renewed, instance: &str) -> Talk {
        let target = Target {
            address: self.address(),
            ca_pem: renewed.trust_pem.clone(),
            identity: Some(ClientIdentity {
                chain_pem: renewed.chain_pem.clone(),
                key_pem: Secret::new(enrolled.key.serialize_pem()),
            }),
        };
        let mut client = agents(connect(&target).await.unwrap());
        let mut talk = Talk::open(&mut client, says_hello(instance, &renewed.trusted))
            .await
            .unwrap();
        assert!(matches!(
            talk.hear().await,
            Ok(Some(ToAgent::Welcome { .. }))
        ));
        talk
    }

    async fn phase(&self, wanted: &str) -> v1::GetCaResponse {
        within(async {
            loop {
                let state = self.ca().await;
                if state.phase == wanted {
                    return state;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
    }
}

struct Renewed {
    chain_pem: String,
    trust_pem: String,
    trusted: Vec<String>,
}

fn says_hello(instance: &str, trusted: &[String]) -> ToServer {
    let ToServer::Hello(hello) = hello(None, 0, None) else {
        unreachable!("a hello is a hello");
    };
    ToServer::Hello(Hello {
        instance: instance.to_owned(),
        trusted_cas: trusted.to_vec(),
        versions: plumb_dispatch::version::SPOKEN,
        journal: None,
        hands: None,
        at: None,
        ..hello
    })
}

/// Hears until there is an order, passing over assignments.
async fn next_order(talk: &mut Talk) -> ToAgent {
    within(async {
        loop {
            let heard = talk.hear().await.unwrap().expect("the session goes on");
            if matches!(heard, ToAgent::Renew { .. } | ToAgent::Rekey { .. }) {
                return heard;
            }
        }
    })
    .await
}

/// The stream ends, with or without a goodbye before.
async fn ends(talk: &mut Talk) {
    within(async { while let Ok(Some(_)) = talk.hear().await {} }).await;
}

/// Rows 19 and 21. Mutations: leave `identity_moved` out of `remove_machine` (the stream goes on); leave the look at
/// `removed` out of `enrolled_key` (it comes back); keep the old key's record when the name joins again.
#[tokio::test]
async fn a_removed_machine_is_cut_off_within_five_seconds_and_its_name_begins_anew() {
    let world = world().await;
    let old = world.enrol("web-1").await;
    let mut client = world.agents(&old).await;
    let mut talk = Talk::open(&mut client, hello(None, 0, None)).await.unwrap();
    assert!(matches!(
        talk.hear().await,
        Ok(Some(ToAgent::Welcome { .. }))
    ));
    let shown = world.machine("web-1").await.unwrap();
    assert!(shown.online && shown.state == "unassigned", "{shown:?}");
    assert_eq!(shown.instances.len(), 1);
    assert!(shown.instances[0].from.starts_with("127.0.0.1:"));

    let removed = world.remove("web-1", false).await.unwrap();
    let cut = tokio::time::timeout(Duration::from_secs(5), ends(&mut talk));
    cut.await.expect("the stream is cut within five seconds");
    assert!(!removed.removed_at.is_empty());
    // Neither the open connection, nor a new one, nor a renewal is let in again.
    let again = Talk::open(&mut client, hello(None, 0, None)).await;
    assert_eq!(reason(again.map(|_| ())), Reason::MachineRemoved);
    let blob = v1::FetchBlobRequest {
        digest: Hash::of(b"x").to_string(),
        offset: 0,
    };
    assert_eq!(
        reason(client.fetch_blob(blob).await),
        Reason::MachineRemoved
    );
    let ca = world.running.ca_pem.clone();
    assert_eq!(reason(world.renew(&old, &ca).await), Reason::MachineRemoved);
    assert_eq!(world.machine("web-1").await.unwrap().state, "removed");
    // Removing it again changes nothing.
    let twice = world.remove("web-1", false).await.unwrap();
    assert_eq!(twice.removed_at, removed.removed_at);

    // Its name is free: a token that names nobody may take it, and the old key has nothing to do with it.
    let any = world.join_token("", 0).await;
    let new = world.join(&any, "web-1").await.unwrap();
    assert_eq!(reason(world.renew(&old, &ca).await), Reason::WrongKey);
    world.renew(&new, &ca).await.unwrap();
    let shown = world.machine("web-1").await.unwrap();
    assert!(
        !shown.online && shown.facts.is_none() && shown.instances.is_empty(),
        "{shown:?}"
    );
    assert_eq!(
        reason(world.remove("nobody", false).await),
        Reason::NotFound
    );
}

#[tokio::test]
async fn a_machine_with_resources_is_removed_only_by_force_and_then_what_it_had_to_lose_is_lost() {
    let world = world().await;
    world.enrol("web-1").await;
    world.apply(blueprints("one")).await.unwrap();
    let refused = world.remove("web-1", false).await.unwrap_err();
    assert!(refused.message().contains("--force"), "{refused}");
    assert_eq!(Refusal::of(&refused).unwrap().reason, Reason::MachineInUse);
    let removed = world.remove("web-1", true).await.unwrap();
    assert!(removed.resources > 0);
    // What is taken out of the blueprints need not be proven gone by anybody.
    let empty = parsed("kind: Workspace\nname: shop\n---\nkind: Machine\nname: web-2\n");
    let mut api = world.api().await;
    let plan = api.plan(empty.clone()).await.unwrap().into_inner();
    let request = v1::ApplyRequest {
        request: Some(empty),
        approval: plan.approval,
        base_revision: plan.base_revision,
        allow: vec!["empty".to_owned()],
    };
    api.apply(request).await.unwrap();
    world
        .wait_for_view(|view| {
            view.owners
                .iter()
                .all(|owner| owner.name.as_str() != "hello")
        })
        .await;
}

#[tokio::test]
async fn machines_are_listed_page_by_page_whether_recorded_enrolled_or_connected() {
    let world = world().await;
    for name in ["web-1", "web-3", "web-5"] {
        world.enrol(name).await;
    }
    let yaml = "kind: Workspace\nname: shop\n---\nkind: Machine\nname: web-2\n---\nkind: Machine\nname: web-4\n---\nkind: Setup\nname: base\nmachines: web-2\nfiles:\n  /tmp/plumb-test/motd: { content: x }\n";
    world.apply(parsed(yaml)).await.unwrap();
    let mut machines = world.machines().await;
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let asked = v1::ListMachinesRequest {
            page_size: 2,
            page_token,
        };
        let page = machines.list_machines(asked).await.unwrap().into_inner();
        assert!(page.machines.len() <= 2);
        names.extend(page.machines.into_iter().map(|machine| machine.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["web-1", "web-2", "web-3", "web-4", "web-5"]);
    assert_eq!(reason(world.machine("web-9").await), Reason::NotFound);
}

/// Mutations: let `rekey` take any code; leave `put_identity` out of it (the copy stays in).
#[tokio::test]
async fn of_two_agents_under_one_identity_the_one_that_is_kept_gets_another_key_and_the_other_is_shut_out()
 {
    let world = world().await;
    let enrolled = world.enrol("web-1").await;
    let ca = world.running.ca_pem.clone();
    let renewed = world.renew(&enrolled, &ca).await.unwrap();
    world.apply(blueprints("one")).await.unwrap();
    let mut talks = Vec::new();
    for instance in ["aaaa1111", "bbbb2222", "aaaa1111", "bbbb2222"] {
        talks.push(world.greet(&enrolled, &renewed, instance).await);
    }
    let shown = world.machine("web-1").await.unwrap();
    assert_eq!(shown.state, "quarantined");
    assert!(
        shown.message.contains("plumb machine keep web-1 bbbb2222"),
        "{}",
        shown.message
    );
    assert_eq!(shown.instances.len(), 2);

    let keep = |instance: &str| v1::KeepMachineRequest {
        name: "web-1".to_owned(),
        instance: instance.to_owned(),
    };
    let mut machines = world.machines().await;
    assert_eq!(
        reason(machines.keep_machine(keep("cccc")).await),
        Reason::NotFound
    );
    assert_eq!(
        reason(machines.keep_machine(keep("a")).await),
        Reason::BadMessage
    );
    // The other one is connected just now: the order waits for the one that is meant.
    let kept = machines
        .keep_machine(keep("aaaa"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((kept.instance.as_str(), kept.told), ("aaaa1111", false));
    let mut talk = world.greet(&enrolled, &renewed, "aaaa1111").await;
    let ToAgent::Rekey { code } = next_order(&mut talk).await else {
        panic!("it is told to take another key");
    };
    let key = KeyPair::generate().unwrap();
    let asked = |code: &str| v1::RekeyRequest {
        code: code.to_owned(),
        csr_der: csr(&key),
    };
    let mut client = world.agents(&enrolled).await;
    assert_eq!(
        reason(client.rekey(asked("guessed")).await),
        Reason::NotFound
    );
    let answer = client.rekey(asked(&code)).await.unwrap().into_inner();
    ends(&mut talk).await;
    // The copy has the old key, and is out with whatever it tries.
    assert_eq!(reason(client.rekey(asked(&code)).await), Reason::WrongKey);
    assert_eq!(reason(world.renew(&enrolled, &ca).await), Reason::WrongKey);
    let again = Talk::open(&mut client, hello(None, 0, None)).await;
    assert_eq!(reason(again.map(|_| ())), Reason::WrongKey);
    // And the one that stays is given its assignment.
    let kept = Enrolled {
        chain_pem: answer
            .chain_der
            .iter()
            .map(|der| plumb_wire::pin::to_pem(der))
            .collect(),
        key,
        response: enrolled.response.clone(),
    };
    let mut client = world.agents(&kept).await;
    let mut talk = Talk::open(&mut client, says_hello("aaaa1111", &renewed.trusted))
        .await
        .unwrap();
    assert!(matches!(
        talk.hear().await,
        Ok(Some(ToAgent::Welcome { .. }))
    ));
    assert!(matches!(
        talk.hear().await,
        Ok(Some(ToAgent::Snapshot { .. }))
    ));
    assert_eq!(world.machine("web-1").await.unwrap().state, "online");
}

static LATER: AtomicI64 = AtomicI64::new(0);

fn later() -> Timestamp {
    let seconds = u64::try_from(LATER.load(Ordering::SeqCst)).unwrap();
    Timestamp::now() + Duration::from_secs(seconds)
}

/// Mutations: leave the look at `not_after` out of the guard (the connection that was made before goes on), the handed-in
/// clock out of `tls::config` (a new one is let in), or the cut of the gateway's tick out (the session stays).
#[tokio::test]
async fn past_its_expiry_a_certificate_may_renew_and_do_nothing_else() {
    let world = world_at(later).await;
    let enrolled = world.enrol("web-1").await;
    let mut client = world.agents(&enrolled).await;
    let mut talk = Talk::open(&mut client, hello(None, 0, None)).await.unwrap();
    assert!(matches!(
        talk.hear().await,
        Ok(Some(ToAgent::Welcome { .. }))
    ));
    LATER.store(23 * 3600, Ordering::SeqCst);
    let blob = || v1::FetchBlobRequest {
        digest: Hash::of(b"x").to_string(),
        offset: 0,
    };
    assert_eq!(
        reason(client.fetch_blob(blob()).await),
        Reason::NotFound,
        "it still counts"
    );

    LATER.store(24 * 3600 + 1, Ordering::SeqCst);
    ends(&mut talk).await;
    let expired = Reason::CertificateExpired;
    let again = Talk::open(&mut client, hello(None, 0, None)).await;
    assert_eq!(reason(again.map(|_| ())), expired);
    assert_eq!(reason(client.fetch_blob(blob()).await), expired);
    let logs = client
        .push_logs(tokio_stream::iter([v1::PushLogsRequest::default()]))
        .await;
    assert_eq!(reason(logs), expired);
    let rekey = client.rekey(v1::RekeyRequest::default()).await;
    assert_eq!(reason(rekey), expired);
    // TLS does not even take a new connection with it.
    let identity = ClientIdentity {
        chain_pem: enrolled.chain_pem.clone(),
        key_pem: Secret::new(enrolled.key.serialize_pem()),
    };
    let mut refused = match connect(&world.target(Some(identity))).await {
        Err(error) => {
            assert!(
                matches!(
                    error,
                    plumb_wire::client::ConnectError::CertificateRefused { .. }
                ),
                "{error}"
            );
            None
        }
        // With TLS 1.3 the client learns of it only when it says something.
        Ok(channel) => Some(agents(channel)),
    };
    if let Some(client) = &mut refused {
        let status = client.fetch_blob(blob()).await.unwrap_err();
        assert_eq!(
            Refusal::of(&status),
            None,
            "it never reached a service: {status}"
        );
    }
    // A month later it renews, and is a machine again.
    LATER.store(31 * 86_400, Ordering::SeqCst);
    let ca = world.running.ca_pem.clone();
    let renewed = world.renew(&enrolled, &ca).await.unwrap();
    world.greet(&enrolled, &renewed, "one").await;
}

/// The whole of it, with one machine and two tokens. Mutations: have `wants_renewal` say no while spreading (it never
/// goes on); drop the old CA with dependents left; do not put the new settings into TLS.
#[tokio::test]
async fn the_ca_is_replaced_without_a_gap_and_the_old_one_goes_when_nobody_depends_on_it() {
    let world = world().await;
    let enrolled = world.enrol("web-1").await;
    let old_ca = world.running.ca_pem.clone();
    let first = world.renew(&enrolled, &old_ca).await.unwrap();
    let mut talk = world.greet(&enrolled, &first, "one").await;
    let ci = world.api_token("ci", v1::Role::Deployer).await;
    assert_eq!(world.ca().await.phase, "steady");
    assert_eq!(reason(world.rotate(Step::Finish).await), Reason::WrongState);

    let begun = world.rotate(Step::Begin).await.unwrap();
    assert_eq!(begun.phase, "spreading");
    assert_eq!(begun.unaware_machines, ["web-1"]);
    assert_eq!(reason(world.rotate(Step::Begin).await), Reason::WrongState);
    // The machine is asked to renew, learns of the new CA over the old trust, and says so when it comes again.
    assert!(matches!(next_order(&mut talk).await, ToAgent::Renew { .. }));
    let second = world.renew(&enrolled, &old_ca).await.unwrap();
    assert_eq!(second.trusted.len(), 2);
    let talk = world.greet(&enrolled, &second, "one").await;
    let issuing = world.phase("issuing").await;
    assert_eq!(issuing.machines_on_old, ["web-1"]);
    assert_eq!(issuing.unaware_tokens, ["ci"]);
    // The new one issues, and whoever knows only the old one still gets in, with an old certificate too.
    world.greet(&enrolled, &first, "one").await;
    drop(talk);
    let mut talk = world.greet(&enrolled, &second, "one").await;
    assert!(matches!(next_order(&mut talk).await, ToAgent::Renew { .. }));
    let third = world.renew(&enrolled, &old_ca).await.unwrap();
    let talk = world.greet(&enrolled, &third, "one").await;
    // Nothing but a token's context holds it up now.
    within(async {
        while !world.ca().await.machines_on_old.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(world.ca().await.phase, "issuing");
    let target = Target {
        ca_pem: second.trust_pem.clone(),
        ..world.target(None)
    };
    let bearer = Bearer::new(&ci).unwrap();
    let mut as_ci = machines_with(connect(&target).await.unwrap(), bearer);
    let told = as_ci
        .get_ca(v1::GetCaRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(told.cas.len(), 2);
    within(async {
        let bearer = Bearer::new(&world.running.admin_token).unwrap();
        loop {
            let mut machines = machines_with(connect(&target).await.unwrap(), bearer.clone());
            let state = machines
                .get_ca(v1::GetCaRequest {})
                .await
                .unwrap()
                .into_inner();
            if state.phase == "steady" {
                assert_eq!(state.cas.len(), 1);
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    // The session with the new certificate went on all the while; an old one is worth nothing, and neither is old trust.
    talk.say(ToServer::Heartbeat).await;
    assert!(
        connect(&Target {
            ca_pem: old_ca,
            ..world.target(None)
        })
        .await
        .is_err()
    );
    let stale = ClientIdentity {
        chain_pem: first.chain_pem.clone(),
        key_pem: Secret::new(enrolled.key.serialize_pem()),
    };
    let refused = match connect(&Target {
        identity: Some(stale),
        ..target
    })
    .await
    {
        Err(_) => true,
        Ok(channel) => {
            let blob = v1::FetchBlobRequest::default();
            Refusal::of(&agents(channel).fetch_blob(blob).await.unwrap_err()).is_none()
        }
    };
    assert!(
        refused,
        "TLS lets nobody in with a certificate of a CA that was dropped"
    );
    let data = world.temp.path().join("data/identity");
    assert!(!data.join("ca.key").exists() && data.join("ca-2.key").exists());
}

#[tokio::test]
async fn a_rotation_goes_on_where_it_was_when_the_control_plane_comes_back() {
    let world = world().await;
    let data = world.temp.path().join("data");
    let old_ca = world.running.ca_pem.clone();
    let enrolled = world.enrol("web-1").await;
    let begun = world.rotate(Step::Begin).await.unwrap();
    let next = begun.cas[1].digest.clone();
    world.running.stop().await;
    let running = start(config(&data, Timestamp::now)).await.unwrap();
    let world = World {
        temp: world.temp,
        running,
    };
    let state = world.ca().await;
    assert_eq!(
        (state.phase.as_str(), state.cas[1].digest.as_str()),
        ("spreading", next.as_str())
    );
    let renewed = world.renew(&enrolled, &old_ca).await.unwrap();
    world.greet(&enrolled, &renewed, "one").await;
    assert_eq!(world.phase("issuing").await.cas[1].digest, next);
    // Who waits no longer drops the old one, whoever depends on it.
    let done = world.rotate(Step::Finish).await.unwrap();
    assert_eq!((done.phase.as_str(), done.cas.len()), ("steady", 1));
    assert_eq!(done.cas[0].digest, next);
}

/// A control plane that was restored from an older backup finds an agent ahead. Mutation: record a generation that is not
/// above the one that the agent holds.
#[tokio::test]
async fn a_machine_that_holds_more_than_is_recorded_goes_on_above_it_when_an_operator_says_so() {
    let world = world().await;
    let enrolled = world.enrol("web-1").await;
    world.apply(blueprints("one")).await.unwrap();
    let mut client = world.agents(&enrolled).await;
    let lineage = world.running.lineage.clone();
    let ahead = hello(Some(&lineage), 41, Some(Hash::of(b"what nobody recorded")));
    let mut talk = Talk::open(&mut client, ahead).await.unwrap();
    assert!(matches!(
        talk.hear().await,
        Ok(Some(ToAgent::Welcome { .. }))
    ));
    world
        .wait_for_view(|view| view.machines[0].state == MachineWord::Regressed)
        .await;
    let shown = world.machine("web-1").await.unwrap();
    assert!(shown.message.contains("plumb recover"), "{}", shown.message);

    let recover = |names: &[&str]| v1::RecoverMachinesRequest {
        names: names.iter().map(ToString::to_string).collect(),
    };
    let mut machines = world.machines().await;
    let other = machines.recover_machines(recover(&["web-7"])).await;
    assert_eq!(reason(other), Reason::WrongState);
    let done = machines
        .recover_machines(recover(&["web-1"]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(done.machines.len(), 1);
    assert_eq!(
        (done.machines[0].held, done.machines[0].generation),
        (41, 42)
    );
    let Ok(Some(ToAgent::Snapshot {
        generation,
        hash,
        bytes,
        ..
    })) = talk.hear().await
    else {
        panic!("what is recorded is sent");
    };
    assert_eq!(generation, Generation(42));
    let assignment = Assignment::parse(&bytes).unwrap();
    assert_eq!(assignment.hash(), hash);
    talk.say(ToServer::Ack { generation, hash }).await;
    talk.say(ToServer::Status {
        complete: true,
        resources: Vec::<ResourceStatus>::new(),
    })
    .await;
    world
        .wait_for_view(|view| view.machines[0].acked == Generation(42))
        .await;
    // There is nothing left to do; and what is applied from now on goes on above it.
    let none = machines
        .recover_machines(recover(&[]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((none.revision, none.machines.len()), (0, 0));
    world.apply(blueprints("two")).await.unwrap();
    assert_eq!(world.machine("web-1").await.unwrap().generation, 43);
    let history = world
        .api()
        .await
        .history(v1::HistoryRequest::default())
        .await;
    let entries = history.unwrap().into_inner().entries;
    let records: Vec<String> = entries
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.record_json).into_owned())
        .collect();
    assert!(
        records[1].contains(r#""recover":{"machines":{"web-1":42}}"#),
        "{records:?}"
    );
}
