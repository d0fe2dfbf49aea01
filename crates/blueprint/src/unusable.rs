//! Sources that cannot be used, as problems at the places that name them. Whoever reads the repository's other files finds
//! them out; this module only knows where each is written.

use plumb_model::plan::Origin;

use crate::code::Code;
use crate::diagnostic::{Diagnostic, Diagnostics, Spot, quote};
use crate::set::{BlueprintSet, Content, Source};

/// A source that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// As in [`BlueprintSet::paths`].
    pub path: String,
    /// What is wrong with it, as it goes on after its name: `is not there`.
    pub why: String,
    /// What to do.
    pub hint: Option<String>,
}

/// A problem for each source, at the places that name it.
#[must_use]
pub fn unusable(set: &BlueprintSet, sources: &[Unusable]) -> Diagnostics {
    let mut out = Diagnostics::default();
    for source in sources {
        let message = format!("the source {} {}", quote(&source.path), source.why);
        let mut problem = Diagnostic::error(Code::UnusableSource, message)
            .in_file("plumb.yaml")
            .maybe_hint(source.hint.clone());
        for (at, (origin, length)) in places(set, &source.path).into_iter().enumerate() {
            let spot = Spot {
                file: origin.file.as_str().into(),
                line: origin.line,
                column: origin.column,
                length,
            };
            problem = if at == 0 {
                problem.here(&spot)
            } else {
                problem.at(&spot, "named here too")
            };
        }
        out.push(problem);
    }
    out.finish()
}

/// Where a source is named, and how long the key is there.
fn places(set: &BlueprintSet, path: &str) -> Vec<(Origin, u32)> {
    let apps = set.apps.iter().filter_map(|(name, app)| {
        let named = matches!(&app.source, Some(Source::Path { path: own, .. }) if own == path);
        let origin = || set.origin("App", name.as_str(), "/source");
        named.then(origin).flatten().map(|o| (o, length("source")))
    });
    let files = set.setups.iter().flat_map(|(name, setup)| {
        setup.files.iter().filter_map(move |(at, file)| {
            let named = matches!(&file.content, Content::Source(own) if own == path);
            let at = at.to_string();
            let pointer = format!("/files/{}", at.replace('~', "~0").replace('/', "~1"));
            let origin = || set.origin("Setup", name.as_str(), &pointer);
            named.then(origin).flatten().map(|o| (o, length(&at)))
        })
    });
    let mut places: Vec<_> = apps.chain(files).collect();
    places.sort_by(|(a, _), (b, _)| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    places
}

fn length(key: &str) -> u32 {
    key.chars().count().try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, SourceFile, parse, render};

    const BLUEPRINTS: &str = "kind: Workspace
name: shop
---
kind: Machine
name: web-1
---
kind: App
name: hello
machines: web-1
source: { path: app }
run: ./hello
---
kind: App
name: again
machines: web-1
source: { path: app }
run: ./again
---
kind: Setup
name: base
machines: web-1
files:
  /etc/motd: { source: motd.txt }
  /etc/else: { content: x }
";

    /// Mutations: only the first source; only the first place.
    #[test]
    fn every_source_is_told_of_at_every_place_that_names_it() {
        let files = [SourceFile {
            path: "plumb.yaml".to_owned(),
            text: BLUEPRINTS.as_bytes().to_vec(),
        }];
        let set = parse(&files, &Options::default()).unwrap();
        let source = |path: &str, hint: Option<&str>| Unusable {
            path: path.to_owned(),
            why: "is not there".to_owned(),
            hint: hint.map(str::to_owned),
        };
        let found = unusable(
            &set,
            &[source("app", Some("make it")), source("motd.txt", None)],
        );
        assert_eq!(found.errors(), 2);
        insta::assert_snapshot!(render(&found, &files, false), @"
        error[P0413]: the source `app` is not there
          --> plumb.yaml:10:1
           |
        10 | source: { path: app }
           | ^^^^^^
        ...
        16 | source: { path: app }
           | ------ named here too
           |
           = help: make it

        error[P0413]: the source `motd.txt` is not there
          --> plumb.yaml:23:3
           |
        23 |   /etc/motd: { source: motd.txt }
           |   ^^^^^^^^^
        ");
    }
}
