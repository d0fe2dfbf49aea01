//! Compiles `proto/` without protoc, and writes the descriptor set (for reflection) and the list of all methods
//! (so that a test can hold the table of access rules against it).

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

const FILES: [&str; 11] = [
    "error",
    "rollouts",
    "enrollment",
    "agents",
    "control_plane",
    "access",
    "machines",
    "secrets",
    "hands",
    "operations",
    "events",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", root.display());
    println!("cargo::rerun-if-changed=build.rs");

    let files = FILES.map(|name| format!("plumb/v1/{name}.proto"));
    let descriptors = protox::compile(files, [&root])?;
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    let mut methods = String::from("&[\n");
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                methods.push_str(&format!(
                    "    \"/{}.{}/{}\",\n",
                    file.package(),
                    service.name(),
                    method.name()
                ));
            }
        }
    }
    methods.push(']');
    fs::write(out.join("methods.rs"), methods)?;

    // What holds the value of a secret is shown by hand, without it: see `redacted.rs`.
    let holds_values = [".plumb.v1.SetSecretRequest", ".plumb.v1.SecretValue"];
    tonic_prost_build::configure()
        .skip_debug(holds_values)
        .emit_rerun_if_changed(false)
        .codec_path("crate::codec::SmallCodec")
        .btree_map(".")
        // Some megabytes of a large fleet, made once for all who ask.
        .bytes(".plumb.v1.GetStatusResponse.view_json")
        .bytes(".plumb.v1.WatchResponse.view_json")
        .compile_fds(descriptors)?;
    Ok(())
}
