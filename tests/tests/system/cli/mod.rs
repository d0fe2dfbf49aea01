//! The command line: what a second terminal sees, and what it says when it cannot do as it is told.

mod contexts;
mod edges;
mod input;
mod offline;
mod plan_files;
mod records;
mod second;
mod tooling;

use plumb_tests::world::World;

/// The quickstart with a greeting of its own, where `dev` does not see it. Returns the folder as an argument.
fn other(world: &World, greeting: &str) -> String {
    let folder = world.copy_of_repo(&format!("other-{greeting}"));
    let manifest = folder.join("plumb.yaml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let text = text.replace("true to the blueprint", greeting);
    assert!(text.contains(greeting), "{text}");
    std::fs::write(manifest, text).unwrap();
    folder.display().to_string()
}
