//! `plumb dev`: one command takes a blueprint to a serving app that heals itself.

mod ending;
mod faults;
mod heal;
mod once;
mod save;

use plumb_tests::world::World;

/// A printed text without what differs from run to run: the test's folder, ports and process ids, digests, times.
pub(crate) fn steady(world: &World, text: &str) -> String {
    let text = text.replace(&world.path("").display().to_string(), "WORLD/");
    let mut steady = String::new();
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        let run = rest
            .find(|c: char| !c.is_ascii_hexdigit())
            .unwrap_or(rest.len());
        let word = &rest[..run];
        let inside = steady.chars().last().is_some_and(|c| c.is_alphanumeric());
        let step = if inside || run == 0 {
            steady.push(c);
            c.len_utf8()
        } else {
            let digits = word.bytes().all(|b| b.is_ascii_digit());
            match run {
                10.. if !digits => steady.push_str("HASH"),
                5.. if digits && !word.starts_with('0') => steady.push_str("NUMBER"),
                _ => steady.push_str(word),
            }
            run
        };
        rest = &rest[step..];
    }
    steady
}
