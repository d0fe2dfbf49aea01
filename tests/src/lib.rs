//! System tests of Plumb: the helpers that its tests share. The tests themselves are in `tests/system`.

pub mod fleet;
pub mod pair;

pub mod running;
pub mod world;

use std::path::PathBuf;

/// The `plumb` binary that was built beside this test, in the same profile.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn plumb() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("a test is in PROFILE/deps");
    let plumb = profile.join("plumb");
    assert!(
        plumb.is_file(),
        "there is no {}; run `cargo build -p plumb`{} first, or scripts/test, which does",
        plumb.display(),
        if profile.ends_with("release") {
            " --release"
        } else {
            ""
        }
    );
    plumb
}
