//! Orders by hand, with a test in the agent's place.

use plumb_dispatch::hands::HeldOrders;
use plumb_model::{OrderNumber, Orders, OwnerName};
use plumb_wire::client::{Bearer, HandsClient, hands_with};

use super::*;

async fn hands(world: &World) -> HandsClient {
    let bearer = Bearer::new(&world.running.admin_token).unwrap();
    hands_with(world.channel().await, bearer)
}

/// A hello of an agent that takes orders, and holds those of this number.
fn greeting(number: u64) -> ToServer {
    let ToServer::Hello(mut hello) = hello(None, 0, None) else {
        panic!("no hello")
    };
    hello.hands = Some(HeldOrders {
        number: OrderNumber(number),
        hash: (number > 0).then(|| Hash::of(b"other")),
    });
    ToServer::Hello(hello)
}

async fn talk(world: &World, name: &str, number: u64) -> Talk {
    let enrolled = world.enrol(name).await;
    let mut client = world.agents(&enrolled).await;
    let mut talk = Talk::open(&mut client, greeting(number)).await.unwrap();
    assert!(matches!(
        talk.hear().await,
        Ok(Some(ToAgent::Welcome { .. }))
    ));
    talk
}

async fn orders(talk: &mut Talk) -> Orders {
    match talk.hear().await {
        Ok(Some(ToAgent::Hands { bytes })) => Orders::parse(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn take(talk: &mut Talk, orders: &Orders) {
    let answer = HeldOrders {
        number: orders.number,
        hash: Some(orders.hash()),
    };
    talk.say(ToServer::HandsAnswer {
        orders: answer,
        refused: None,
    })
    .await;
}

fn machines(all: &str) -> v1::PlanRequest {
    parsed(&format!(
        "kind: Workspace\nname: shop\n---\nkind: Machine\nname: web-1\n---\nkind: Machine\nname: web-2\n---\nkind: App\nname: hello\nmachines: {all}\nrun: [sleep, \"1000\"]\n"
    ))
}

/// Mutations: send assignments whatever is in flight; leave `follow` out of an apply.
#[tokio::test]
async fn a_machine_that_a_stopped_app_comes_to_is_told_to_stop_it_before_it_is_told_to_run_it() {
    let world = world().await;
    world.apply(machines("web-1")).await.unwrap();
    let asked = v1::StopAppRequest {
        owner: "hello".into(),
        machine: String::new(),
    };
    let mut client = hands(&world).await;
    let stopped = client.stop_app(asked.clone()).await.unwrap().into_inner();
    assert_eq!(stopped.machines.len(), 1);
    assert_eq!(
        (stopped.machines[0].number, stopped.machines[0].online),
        (1, false)
    );
    // Once more changes nothing.
    let again = client.stop_app(asked).await.unwrap().into_inner();
    assert_eq!(again.machines[0].number, 0);

    let mut talk = talk(&world, "web-2", 0).await;
    // Nothing is on it so far.
    let Ok(Some(ToAgent::Snapshot {
        generation, hash, ..
    })) = talk.hear().await
    else {
        panic!("no assignment")
    };
    talk.say(ToServer::Ack { generation, hash }).await;
    world.apply(machines("[web-1, web-2]")).await.unwrap();
    let told = orders(&mut talk).await;
    let owner = OwnerName::new("hello").unwrap();
    assert!(told.hands.stopped.contains_key(&owner), "{told:?}");
    take(&mut talk, &told).await;
    assert!(matches!(
        talk.hear().await,
        Ok(Some(ToAgent::Snapshot { .. } | ToAgent::Delta { .. }))
    ));

    // What leaves the blueprints leaves nothing behind that a later app of its name would find.
    world.running.stop().await;
    let running = start(config(&world.temp.path().join("data"), Timestamp::now))
        .await
        .unwrap();
    let world = World {
        temp: world.temp,
        running,
    };
    let list = hands(&world)
        .await
        .list_hands(v1::ListHandsRequest::default())
        .await;
    let list = list.unwrap().into_inner().orders;
    let machines: Vec<&str> = list.iter().map(|order| order.machine.as_str()).collect();
    assert_eq!(machines, ["", "web-1", "web-2"], "they survive a restart");
}

/// Mutation: leave `refuse_held` out.
#[tokio::test]
async fn what_is_held_is_neither_stopped_nor_started_by_hand() {
    let world = world().await;
    world.apply(machines("[web-1, web-2]")).await.unwrap();
    let mut client = hands(&world).await;
    let hold = v1::HoldResourceRequest {
        resource: "web-1/hello/process/app/0".into(),
        for_ms: 60_000,
        reason: "a look at it".into(),
    };
    client.hold_resource(hold).await.unwrap();
    let (owner, everywhere) = ("hello".to_owned(), String::new());
    let stop = |machine: &str| v1::StopAppRequest {
        owner: owner.clone(),
        machine: machine.to_owned(),
    };
    for machine in ["", "web-1"] {
        let refused = client.stop_app(stop(machine)).await.unwrap_err();
        assert!(
            refused
                .message()
                .contains("web-1/hello/process/app/0 is held until"),
            "{refused:?}"
        );
    }
    let restart = v1::RestartAppRequest {
        owner: owner.clone(),
        machine: everywhere,
    };
    client.restart_app(restart).await.unwrap_err();
    client.stop_app(stop("web-2")).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_holds_more_than_is_recorded_is_left_alone_until_the_next_order() {
    let world = world().await;
    world.apply(machines("web-1")).await.unwrap();
    let mut client = hands(&world).await;
    let asked = v1::StopAppRequest {
        owner: "hello".into(),
        machine: String::new(),
    };
    client.stop_app(asked).await.unwrap();
    let mut talk = talk(&world, "web-1", 9).await;
    // Its assignment, and not the older orders.
    assert!(matches!(
        talk.hear().await,
        Ok(Some(ToAgent::Snapshot { .. }))
    ));
    let view = world.view().await;
    let trouble = view.machines[0]
        .hands
        .as_ref()
        .and_then(|h| h.trouble.clone());
    assert!(trouble.unwrap().contains("number 9"));
    let asked = v1::StartAppRequest {
        owner: "hello".into(),
        machine: "web-1".into(),
    };
    let started = client.start_app(asked).await.unwrap().into_inner();
    assert_eq!(started.machines[0].number, 10);
    let told = orders(&mut talk).await;
    assert!(told.hands.stopped.is_empty() && told.number == OrderNumber(10));
}

#[tokio::test]
async fn an_older_agent_is_sent_nothing_that_it_would_not_know() {
    let world = world().await;
    let enrolled = world.enrol("web-1").await;
    let mut agents = world.agents(&enrolled).await;
    let mut talk = Talk::open(&mut agents, hello(None, 0, None)).await.unwrap();
    talk.hear().await.unwrap();
    let mut client = hands(&world).await;
    world.apply(machines("web-1")).await.unwrap();
    assert!(matches!(
        talk.hear().await,
        Ok(Some(ToAgent::Snapshot { .. }))
    ));
    let asked = v1::StopAppRequest {
        owner: "hello".into(),
        machine: String::new(),
    };
    client.stop_app(asked).await.unwrap();
    let asked = v1::ReconcileRequest {
        machine: "web-1".into(),
        ..v1::ReconcileRequest::default()
    };
    let mut answers = client.reconcile(asked).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert!(answer.failed.contains("upgrade it"), "{answer:?}");
    assert_eq!(answer.remaining, 0);
}
