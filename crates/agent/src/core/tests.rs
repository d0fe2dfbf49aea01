//! The core by itself, on a folder of its own and a link that breaks.

use std::path::Path;

use plumb_dispatch::ToAgent;
use plumb_dispatch::version::SPOKEN;
use plumb_driver::host::RunAs;
use plumb_model::assignment::Header;
use plumb_model::resource::Resource;
use plumb_model::spec::DirectorySpec;
use plumb_model::{Assignment, DriftPolicy, Entry, Generation, Lineage, Mode};
use tonic::transport::Endpoint;

use super::*;

fn record() -> Record {
    Record {
        server: "127.0.0.1:1".to_owned(),
        lineage: Lineage::from_random([1; 16]),
        workspace: "default".parse().unwrap(),
        machine: "web-1".parse().unwrap(),
        ca_pem: String::new(),
        chain_pem: String::new(),
        made: Timestamp::UNIX_EPOCH,
        not_after: Timestamp::UNIX_EPOCH,
        key_file: None,
    }
}

fn core(data: &Path, record: &Record) -> Core {
    let folder = Folder::open(data).unwrap();
    std::fs::create_dir_all(data.join("identity")).unwrap();
    let host = Host {
        data: folder.path().to_owned(),
        lineage: record.lineage.clone(),
        workspace: record.workspace.clone(),
        run_as: RunAs::Agent,
        shim: Vec::new(),
        secrets: Secrets::new(None),
    };
    let config = Config {
        data: data.to_owned(),
        server: None,
        token: None,
        machine: None,
        interval: Duration::from_secs(30),
        metrics: None,
        run_as: RunAs::Agent,
        shim: Vec::new(),
        now: Timestamp::now,
    };
    let book = Book::open(folder.path()).unwrap();
    Core::new(folder, &host, record, None, book, Notes::none(), &config).unwrap()
}

/// Row 35. Mutation: return where a message cannot be sent, with what else is to be done undone.
#[tokio::test]
async fn what_was_stored_is_adopted_though_nobody_can_be_told() {
    let temp = tempfile::tempdir().unwrap();
    let record = record();
    let mut core = core(&temp.path().join("agent"), &record);
    let directory = temp.path().join("kept");
    let header = Header {
        format: plumb_model::assignment::FORMAT,
        workspace: record.workspace.clone(),
        machine: record.machine.clone(),
        lineage: record.lineage.clone(),
    };
    let path = directory.display().to_string();
    let resource = Resource::new(
        format!("web-1/base/directory/{path}").parse().unwrap(),
        DriftPolicy::Enforce,
        ResourceSpec::Directory(DirectorySpec {
            path: path.clone(),
            mode: Mode(0o755),
            owner: None,
            group: None,
        }),
    );
    let assignment = Assignment::build(header, [Entry::from(resource)]);

    let (uplink, mut sent) = Uplink::to(Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
    core.linked(LinkEvent::Connected(uplink));
    sent.recv().await.expect("a hello");
    core.linked(LinkEvent::Received(ToAgent::Welcome {
        session: 1,
        lineage: record.lineage.clone(),
        heartbeat_ms: 15_000,
        server_time: Timestamp::now(),
        protocol: SPOKEN.newest,
        version: "0.1.0".to_owned(),
    }));
    core.linked(LinkEvent::Received(ToAgent::Snapshot {
        generation: Generation(1),
        hash: assignment.hash(),
        releases: Default::default(),
        bytes: assignment.bytes(),
        confirm_empty: false,
    }));
    // The link breaks while the assignment is being written.
    drop(sent);
    let stored = loop {
        let input = core.inputs.other.recv().await.expect("it is stored");
        if matches!(input, Input::Persisted { .. }) {
            break input;
        }
    };
    core.take(stored);
    assert!(core.uplink.is_none(), "nobody could be told");
    assert!(!core.session.is_online());
    assert_eq!(core.managed.keys().collect::<Vec<_>>(), [&directory]);
}
