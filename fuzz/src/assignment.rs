//! An agent's assignment and its deltas, as they come from the wire and from the disk.

use plumb_model::assignment::AssignmentError;
use plumb_model::{Assignment, Delta, Hash};

/// Parts an input into an assignment and what follows it: another one, or the lines of a delta. JSON never holds it.
const SEPARATOR: u8 = 0;

fn parts(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == SEPARATOR) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, b""),
    }
}

/// Bytes that are accepted are kept exactly, in the order of their addresses, and a copy built of what they say says
/// the same.
fn read(bytes: &[u8]) -> Option<Assignment> {
    let read = Assignment::parse(bytes).ok()?;
    assert_eq!(read.bytes(), bytes);
    assert_eq!(read.hash(), Hash::of(bytes));
    let built = Assignment::build(read.header().clone(), read.entries().cloned());
    assert!(built.entries().eq(read.entries()));
    assert_eq!(Assignment::parse(&built.bytes()).as_ref(), Ok(&built));
    Some(read)
}

/// Whatever a delta makes can be read from a disk again.
fn sound(result: &Assignment) {
    let read = Assignment::parse(&result.bytes());
    assert_eq!(
        read.as_ref(),
        Ok(result),
        "the outcome of a delta cannot be read back"
    );
}

/// Holds all of it for one input.
pub fn check(data: &[u8]) {
    let (first, second) = parts(data);
    let Some(from) = read(first) else { return };
    if let Some(to) = read(second)
        && to.bytes().split(|b| *b == b'\n').next() == from.bytes().split(|b| *b == b'\n').next()
    {
        let delta = from.delta_to(&to);
        assert_eq!(
            from.apply(&delta).as_ref(),
            Ok(&to),
            "a delta does not lead there"
        );
        let back = to.delta_to(&from);
        assert_eq!(
            to.apply(&back).as_ref(),
            Ok(&from),
            "a delta does not lead back"
        );
    }
    // As lines of a delta of which nothing is known but that its hashes are right.
    let lines = second.split(|byte| *byte == SEPARATOR);
    let upserts = lines
        .filter(|line| !line.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    let removes = from
        .entries()
        .take(1)
        .map(|entry| entry.address().clone())
        .collect();
    let mut delta = Delta {
        applies_to: from.hash(),
        results_in: Hash([0; 32]),
        upserts,
        removes,
    };
    if let Err(AssignmentError::Result { found, .. }) = from.apply(&delta) {
        delta.results_in = found;
        let result = from.apply(&delta).expect("the hash is what it results in");
        sound(&result);
    }
}
