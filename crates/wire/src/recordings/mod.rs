//! Frozen bytes of everything that goes over the wire, held against what they mean: `crates/wire/recordings/`.
//!
//! A recording is never written anew: what an agent or a control plane of an earlier version says stays as it is, so
//! whoever makes one of these tests fail has broken that version, and has to mend the code and not the file.

mod peers;
mod v1_session;
mod v1_values;
mod v2_session;

use std::path::PathBuf;

use plumb_dispatch::protocol::{ToAgent, ToServer};
use prost::Message;

use crate::session::{FromAgent, FromServer};
use crate::v1;

/// The messages of a recording, in the order in which they were sent.
fn recorded<M: Message + Default>(version: &str, name: &str) -> Vec<M> {
    let bytes = std::fs::read(path(version, name)).expect("a recording of this name");
    let mut rest = bytes.as_slice();
    let mut messages = Vec::new();
    while !rest.is_empty() {
        messages.push(M::decode_length_delimited(&mut rest).expect("whole messages"));
    }
    messages
}

fn path(version: &str, name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("recordings");
    folder.join(version).join(format!("{name}.bin"))
}

/// Writes a recording that is not there yet, if `PLUMB_UPDATE` says so. One that is there is left alone.
fn record<M: Message>(version: &str, name: &str, messages: &[M]) {
    let path = path(version, name);
    if path.exists() || std::env::var_os("PLUMB_UPDATE").is_none() {
        return;
    }
    let bytes: Vec<u8> = messages
        .iter()
        .flat_map(Message::encode_length_delimited_to_vec)
        .collect();
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder of recordings");
    std::fs::write(path, bytes).expect("a recording");
}

/// What an agent said, as this version hears it.
fn heard_of_agent(version: &str, name: &str) -> Vec<ToServer> {
    let mut from = FromAgent::default();
    recorded::<v1::AgentMessage>(version, name)
        .into_iter()
        .filter_map(|message| from.take(message).expect("it can be read"))
        .collect()
}

/// What a control plane said, as this version hears it.
fn heard_of_server(version: &str, name: &str) -> Vec<ToAgent> {
    let mut from = FromServer::default();
    recorded::<v1::ServerMessage>(version, name)
        .into_iter()
        .filter_map(|message| from.take(message).expect("it can be read"))
        .collect()
}

/// The names of the recordings of a version, sorted.
fn names(version: &str) -> Vec<String> {
    let folder = path(version, "x").with_file_name("");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .expect("the recordings of a version")
        .filter_map(|entry| {
            let name = entry.expect("an entry").file_name().into_string().ok()?;
            Some(name.strip_suffix(".bin")?.to_owned())
        })
        .collect();
    names.sort();
    names
}
