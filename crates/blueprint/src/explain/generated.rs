//! Wrong examples that no text file can show: too large, not text, or too deep.

use crate::source::MAX_FILE_BYTES;

/// What the file is, in brackets.
pub(super) fn description(name: &str) -> String {
    let what = match name {
        "too-large" => "a file of 1 MiB and one byte",
        "latin-1" => "the text `run: echo Grüße`, saved as Latin-1",
        "control" => "the text `run: ./hello`, with a NUL byte behind it",
        "deep" => "the text `run:`, and 65 opening brackets behind it",
        _ => "nothing",
    };
    format!("({what})\n")
}

/// The bytes of the file.
pub(super) fn bytes(name: &str) -> Vec<u8> {
    let app = |run: &[u8]| {
        let mut bytes = b"kind: App\nname: hello\nmachines: web-1\nrun: ".to_vec();
        bytes.extend_from_slice(run);
        bytes.push(b'\n');
        bytes
    };
    match name {
        "too-large" => vec![b'#'; MAX_FILE_BYTES + 1],
        "latin-1" => app(b"echo Gr\xfc\xdfe"),
        "control" => app(b"./hello\0"),
        "deep" => app("[".repeat(65).as_bytes()),
        _ => Vec::new(),
    }
}
