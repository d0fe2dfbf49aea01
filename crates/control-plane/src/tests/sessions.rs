//! Sessions, blobs and logs, with a test in the agent's place.

use plumb_model::Assignment;

use super::*;

async fn connected(world: &World, name: &str) -> (v1::agents_client::AgentsClient<Channel>, Talk) {
    let enrolled = world.enrol(name).await;
    let mut client = world.agents(&enrolled).await;
    let mut talk = Talk::open(&mut client, hello(None, 0, None)).await.unwrap();
    assert!(matches!(
        talk.hear().await,
        Ok(Some(ToAgent::Welcome { .. }))
    ));
    (client, talk)
}

async fn snapshot(talk: &mut Talk) -> (Generation, Assignment) {
    match talk.hear().await {
        Ok(Some(ToAgent::Snapshot {
            generation, bytes, ..
        })) => (generation, Assignment::parse(&bytes).unwrap()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_applied_reaches_the_machine_and_its_ack_reaches_the_status() {
    let world = world().await;
    let (_client, mut talk) = connected(&world, "web-1").await;
    world.apply(blueprints("one")).await.unwrap();
    let (generation, assignment) = snapshot(&mut talk).await;
    assert_eq!(assignment.header().machine, machine("web-1"));
    assert_eq!(assignment.header().lineage, world.running.lineage);
    talk.say(ToServer::Ack {
        generation,
        hash: assignment.hash(),
    })
    .await;
    world
        .wait_for_view(|view| view.machines[0].acked == generation)
        .await;

    // The next one comes as a delta that leads where it says.
    world.apply(blueprints("two")).await.unwrap();
    let Ok(Some(ToAgent::Delta { delta, .. })) = talk.hear().await else {
        panic!("a delta is wanted");
    };
    assert_eq!(delta.upserts.len(), 1);
    assignment.apply(&delta).unwrap();
}

#[tokio::test]
async fn a_restarted_control_plane_knows_everything() {
    let world = world().await;
    let enrolled = world.enrol("web-1").await;
    world.apply(blueprints("one")).await.unwrap();
    world.running.stop().await;
    let running = start(config(&world.temp.path().join("data"), Timestamp::now))
        .await
        .unwrap();
    let world = World {
        temp: world.temp,
        running,
    };
    assert_eq!(world.view().await.revision.0, 1);
    let mut client = world.agents(&enrolled).await;
    let mut talk = Talk::open(&mut client, hello(None, 0, None)).await.unwrap();
    assert!(matches!(
        talk.hear().await,
        Ok(Some(ToAgent::Welcome { .. }))
    ));
    snapshot(&mut talk).await;
    world.apply(blueprints("two")).await.unwrap();
}

#[tokio::test]
async fn a_new_hello_ends_the_old_session() {
    let world = world().await;
    let (mut client, mut old) = connected(&world, "web-1").await;
    let mut new = Talk::open(&mut client, hello(None, 0, None)).await.unwrap();
    assert!(matches!(
        new.hear().await,
        Ok(Some(ToAgent::Welcome { .. }))
    ));
    assert!(matches!(
        old.hear().await,
        Ok(Some(ToAgent::Goodbye { .. }))
    ));
    assert!(matches!(old.hear().await, Ok(None)));
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_a_hello_is_refused() {
    let world = world().await;
    let enrolled = world.enrol("web-1").await;
    let mut client = world.agents(&enrolled).await;
    let mut talk = Talk::open(&mut client, ToServer::Heartbeat).await.unwrap();
    assert_eq!(reason(talk.hear().await), Reason::BadMessage);
    // And one that turns to nonsense ends there.
    let mut talk = Talk::open(&mut client, hello(None, 0, None)).await.unwrap();
    talk.hear().await.unwrap();
    talk.tx
        .send(v1::AgentMessage {
            message: Some(v1::agent_message::Message::Ack(v1::Ack {
                generation: 1,
                hash: "nonsense".into(),
            })),
        })
        .await
        .unwrap();
    assert_eq!(reason(talk.hear().await), Reason::BadMessage);
    world.wait_for_view(|view| view.machines.is_empty()).await;
}

#[tokio::test]
async fn stopping_says_goodbye_and_comes_back_soon() {
    let world = world().await;
    let (_client, mut talk) = connected(&world, "web-1").await;
    let mut watching = world
        .api()
        .await
        .watch(v1::WatchRequest::default())
        .await
        .unwrap()
        .into_inner();
    watching.message().await.unwrap();
    let begun = std::time::Instant::now();
    world.running.stop().await;
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    assert!(matches!(
        talk.hear().await,
        Ok(Some(ToAgent::Goodbye { .. }))
    ));
}

/// An agent touches only its own machine's data. Mutation: leave `may_fetch` out of `fetch_blob`.
#[tokio::test]
async fn a_machine_fetches_only_what_its_own_assignment_names() {
    let world = world().await;
    let data: Vec<u8> = (0..600_000_u32).map(|n| n as u8).collect();
    let digest = Hash::of(&data);
    let yaml = "kind: Workspace\nname: shop\n---\nkind: Machine\nname: web-1\n---\nkind: Machine\nname: web-2\n---\nkind: Setup\nname: base\nmachines: web-1\nfiles:\n  /tmp/plumb-test/big: { source: big.bin }\n";
    let file = plumb_blueprint::SourceFile {
        path: "plumb.yaml".into(),
        text: yaml.into(),
    };
    let set = plumb_blueprint::parse(std::slice::from_ref(&file), &Default::default())
        .unwrap_or_else(|d| panic!("{}", plumb_blueprint::render(&d, &[file], false)));
    let path = set.paths.first().unwrap().clone();
    let source = v1::Source {
        digest: digest.to_string(),
        size: data.len() as u64,
        text: None,
    };
    let request = v1::PlanRequest {
        request: Some(v1::plan_request::Request::Blueprints(v1::Blueprints {
            blueprint_set_json: serde_json::to_vec(&set).unwrap(),
            sources: [(path, source)].into(),
            ask_json: Vec::new(),
        })),
        commit: None,
    };
    // Not before the blob is there.
    let status = world.apply(request.clone()).await.unwrap_err();
    let refusal = Refusal::of(&status).unwrap();
    assert_eq!(refusal.reason, Reason::BlobsMissing);
    assert_eq!(refusal.metadata["digests"], digest.to_string());
    let upload: Vec<_> = data
        .chunks(100_000)
        .map(|data| v1::UploadBlobRequest {
            digest: digest.to_string(),
            data: data.to_vec(),
            offset: 0,
        })
        .collect();
    let mut api = world.api().await;
    api.upload_blob(tokio_stream::iter(upload)).await.unwrap();
    world.apply(request).await.unwrap();

    let fetch = |offset| v1::FetchBlobRequest {
        digest: digest.to_string(),
        offset,
    };
    let (mut client, _talk) = connected(&world, "web-1").await;
    for offset in [0, 599_999, 600_000] {
        let mut stream = client.fetch_blob(fetch(offset)).await.unwrap().into_inner();
        let (mut got, mut total) = (Vec::new(), 0);
        while let Some(piece) = stream.message().await.unwrap() {
            assert!(piece.data.len() <= plumb_wire::PIECE_BYTES);
            total = total.max(piece.total);
            got.extend(piece.data);
        }
        assert_eq!(got, data[offset as usize..]);
        assert_eq!(total, data.len() as u64);
    }
    let (mut other, _talk) = connected(&world, "web-2").await;
    assert_eq!(reason(other.fetch_blob(fetch(0)).await), Reason::NotFound);
}

#[tokio::test]
async fn log_lines_come_from_the_machine_that_was_asked_and_from_no_other() {
    let world = world().await;
    world.apply(blueprints("x")).await.unwrap();
    let mut api = world.api().await;
    let request = v1::LogsRequest {
        owner: "hello".into(),
        tail: Some(5),
        ..Default::default()
    };
    // Nobody is there to answer: said in a line, and over.
    let mut lines = api.logs(request.clone()).await.unwrap().into_inner();
    let first = within(lines.message()).await.unwrap().unwrap();
    let v1::logs_response::News::Notice(notice) = first.news.unwrap() else {
        panic!("a notice is wanted");
    };
    assert!(notice.contains("not connected"), "{notice}");
    assert!(within(lines.message()).await.unwrap().is_none());
    let mut unknown = request.clone();
    unknown.owner = "nobody".into();
    assert_eq!(reason(api.logs(unknown).await), Reason::NotFound);

    let (mut client, mut talk) = connected(&world, "web-1").await;
    snapshot(&mut talk).await;
    let mut lines = api.logs(request).await.unwrap().into_inner();
    let Ok(Some(ToAgent::OpenLogs(open))) = talk.hear().await else {
        panic!("an order for logs is wanted");
    };
    assert_eq!((open.owner.as_str(), open.tail), ("hello", Some(5)));
    let push = |text: &str| v1::PushLogsRequest {
        request: open.request,
        batch: Some(v1::LogBatch {
            process: "app".into(),
            slot: 0,
            lines: vec![v1::LogLine {
                at: String::new(),
                stderr: false,
                text: text.as_bytes().to_vec(),
            }],
            dropped: 0,
        }),
    };
    // Another machine's stream under that number goes nowhere.
    let (mut mallory, _mallory_talk) = connected(&world, "web-2").await;
    mallory
        .push_logs(tokio_stream::iter(vec![push("forged")]))
        .await
        .unwrap();
    client
        .push_logs(tokio_stream::iter(vec![push("one"), push("two")]))
        .await
        .unwrap();
    let mut got = Vec::new();
    while let Some(message) = within(lines.message()).await.unwrap() {
        assert_eq!(message.machine, "web-1");
        let Some(v1::logs_response::News::Batch(batch)) = message.news else {
            panic!("lines are wanted");
        };
        got.push(String::from_utf8(batch.lines[0].text.clone()).unwrap());
    }
    assert_eq!(got, ["one", "two"]);
}

#[tokio::test]
async fn an_agent_is_told_when_nobody_reads_its_logs_any_more() {
    let world = world().await;
    world.apply(blueprints("x")).await.unwrap();
    let (mut client, mut talk) = connected(&world, "web-1").await;
    snapshot(&mut talk).await;
    let mut api = world.api().await;
    let request = v1::LogsRequest {
        owner: "hello".into(),
        follow: true,
        ..Default::default()
    };
    let lines = api.logs(request).await.unwrap();
    let Ok(Some(ToAgent::OpenLogs(open))) = talk.hear().await else {
        panic!("an order for logs is wanted");
    };
    let (tx, rx) = mpsc::channel(1);
    tx.send(v1::PushLogsRequest {
        request: open.request,
        batch: None,
    })
    .await
    .unwrap();
    let pushing = tokio::spawn(async move { client.push_logs(ReceiverStream::new(rx)).await });
    drop(lines);
    within(pushing).await.unwrap().unwrap();
    let heard = talk.hear().await;
    assert!(matches!(heard, Ok(Some(ToAgent::CloseLogs { request })) if request == open.request));
}

#[tokio::test]
async fn a_watcher_sees_the_workspace_at_once_and_what_happens_on_machines() {
    let world = world().await;
    world.apply(blueprints("x")).await.unwrap();
    let mut api = world.api().await;
    let mut news = api
        .watch(v1::WatchRequest::default())
        .await
        .unwrap()
        .into_inner();
    let first = within(news.message()).await.unwrap().unwrap();
    let view: plumb_dispatch::WorkspaceView = serde_json::from_slice(&first.view_json).unwrap();
    assert_eq!(view.revision.0, 1);
    let (_client, mut talk) = connected(&world, "web-1").await;
    let (generation, assignment) = snapshot(&mut talk).await;
    talk.say(ToServer::Ack {
        generation,
        hash: assignment.hash(),
    })
    .await;
    let address = assignment.resources().next().unwrap().address.clone();
    let event = plumb_model::condition::MachineEvent {
        at: Timestamp::now(),
        address,
        kind: plumb_model::condition::EventKind::Applied,
        message: "made".into(),
    };
    talk.say(ToServer::Events {
        events: vec![event.clone()],
        dropped: 0,
    })
    .await;
    within(async {
        loop {
            let message = news.message().await.unwrap().unwrap();
            if let Some(told) = message.events.first() {
                assert_eq!(told.machine, "web-1");
                let told: plumb_model::condition::MachineEvent =
                    serde_json::from_slice(&told.event_json).unwrap();
                assert_eq!(told, event);
                return;
            }
        }
    })
    .await;
}
