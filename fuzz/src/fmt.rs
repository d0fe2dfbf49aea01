//! The formatter: what it makes means the same and is in canonical form, whatever the file is.

use plumb_blueprint::{FormatError, Options, SourceFile, format, parse};

use crate::{problems, yaml};

/// Holds all of it for one file. What cannot be read is refused with its places; nothing is a defect.
fn hold(file: &SourceFile) {
    let formatted = match format(file) {
        Ok(formatted) => formatted,
        Err(FormatError::Unreadable(found)) => {
            assert!(found.errors() > 0, "refused without a word");
            problems::check(&found, std::slice::from_ref(file));
            return;
        }
        Err(FormatError::Defect(why)) => panic!("{why}"),
    };
    let text = formatted.as_bytes().to_vec();
    let path = file.path.clone();
    let after = SourceFile { path, text };
    let again = format(&after).expect("what was formatted can be read");
    assert_eq!(again, formatted, "formatted twice it is another file");
    assert!(!formatted.contains('\r'), "{formatted:?}");
    // The blueprint in it is the same one. Problems may move, so only their codes and words are held.
    let read = |file: &SourceFile| {
        parse(std::slice::from_ref(file), &Options::default()).map_err(|found| {
            let of = found.items.into_iter();
            of.map(|problem| (problem.code, problem.message))
                .collect::<Vec<_>>()
        })
    };
    match (read(file), read(&after)) {
        (Ok(one), Ok(two)) => {
            let json = |set| serde_json::to_value(set).expect("a set is JSON");
            assert_eq!(json(&one), json(&two), "formatted it means something else");
        }
        (Err(one), Err(two)) => assert_eq!(one.len(), two.len(), "{one:?}\n{two:?}"),
        (one, two) => panic!("formatting decides whether it is read: {one:?}\n{two:?}"),
    }
}

/// Holds all of it for each file of an input.
pub fn check(data: &[u8]) {
    for file in yaml::files(data) {
        hold(&file);
    }
}
