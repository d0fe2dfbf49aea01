//! What is true of every problem that the parser tells of.

use std::collections::BTreeSet;

use plumb_blueprint::{Diagnostics, MAX_DIAGNOSTICS, SourceFile, render};

/// The lines of a file as its problems count them: decoded as well as it can be, without a byte order mark.
fn lines(file: &SourceFile) -> Vec<usize> {
    let text = String::from_utf8_lossy(&file.text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.split('\n').map(|line| line.chars().count()).collect()
}

/// Every place lies inside its file, the first is the primary one, and what is shown to people holds nothing that a
/// terminal would obey.
pub fn check(problems: &Diagnostics, files: &[SourceFile]) {
    assert!(problems.items.len() <= MAX_DIAGNOSTICS);
    assert!(problems.omitted == 0 || problems.items.len() == MAX_DIAGNOSTICS);
    for problem in &problems.items {
        assert!(!problem.message.is_empty());
        for (at, span) in problem.spans.iter().enumerate() {
            assert_eq!(span.primary, at == 0, "{problem:?}");
            let file = files
                .iter()
                .find(|file| file.path == span.file)
                .unwrap_or_else(|| panic!("a place in no file: {problem:?}"));
            let lines = lines(file);
            assert!(
                span.line >= 1 && span.column >= 1 && span.length >= 1,
                "{problem:?}"
            );
            let chars = lines.get(span.line as usize - 1);
            let chars =
                *chars.unwrap_or_else(|| panic!("a place behind the last line: {problem:?}"));
            // One past the end of a line may be pointed at.
            let end = span.column as usize - 1 + span.length as usize;
            assert!(
                end <= chars + 1,
                "a place behind the end of its line: {problem:?}"
            );
        }
        if let Some(first) = problem.spans.first() {
            assert_eq!(first.file, problem.file, "{problem:?}");
        }
    }
    let unique: BTreeSet<String> = problems.items.iter().map(|p| format!("{p:?}")).collect();
    assert_eq!(
        unique.len(),
        problems.items.len(),
        "said twice: {problems:?}"
    );
    is_safe(&render(problems, files, false));
    is_safe(&problems.to_string());
}

/// Holds that a text has nothing in it that moves a cursor, colours, or turns the direction of writing.
pub fn is_safe(text: &str) {
    let bad = text.chars().find(|c| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    });
    assert_eq!(bad, None, "{text:?}");
}
