//! What moving names mean: a branch's commit, an image's digest, a version. Each keeps its recorded meaning while its text
//! stays the same and nobody asks for another; otherwise it takes the one that was handed in, or none.

use std::collections::BTreeMap;

use plumb_model::OwnerName;
use plumb_model::plan::Resolution;
use plumb_model::spec_source::GitRef;
use plumb_model::state::{ReleaseBody, ResolutionKey};

use crate::Ask;

/// What one owner's name means now and meant before.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Meaning {
    now: Option<String>,
    before: Option<String>,
}

pub(super) struct Resolver<'a> {
    ask: &'a Ask,
    met: BTreeMap<OwnerName, BTreeMap<ResolutionKey, Meaning>>,
}

impl<'a> Resolver<'a> {
    pub fn new(ask: &'a Ask) -> Self {
        Self {
            ask,
            met: BTreeMap::new(),
        }
    }

    /// Another one that has met nothing yet.
    pub fn fork(&self) -> Self {
        Self::new(self.ask)
    }

    /// Takes over what a fork has met, for owners that this one has not met.
    pub fn join(&mut self, fork: Self) {
        self.met.extend(fork.met);
    }

    /// What a name that an owner uses means; none where nobody knows.
    pub fn resolve(
        &mut self,
        owner: &OwnerName,
        recorded: Option<&ReleaseBody>,
        key: ResolutionKey,
    ) -> Option<String> {
        let before = recorded
            .and_then(|body| body.resolutions.get(&key))
            .cloned();
        let sticky = before.clone().filter(|_| !self.ask.refresh.asks_for(&key));
        let now = sticky.or_else(|| self.ask.resolved.get(&key).cloned());
        let meaning = Meaning {
            now: now.clone(),
            before,
        };
        self.met
            .entry(owner.clone())
            .or_default()
            .insert(key, meaning);
        now
    }

    /// What an owner's release keeps.
    pub fn recorded_of(&self, owner: &OwnerName) -> BTreeMap<ResolutionKey, String> {
        let met = self.met.get(owner).into_iter().flatten();
        met.filter_map(|(key, meaning)| Some((key.clone(), meaning.now.clone()?)))
            .collect()
    }

    /// What the plan says of every name. Where owners mean different things by one, each is named.
    pub fn of_the_plan(&self) -> BTreeMap<ResolutionKey, Resolution> {
        let mut by_key: BTreeMap<&ResolutionKey, Vec<(&OwnerName, &Meaning)>> = BTreeMap::new();
        for (owner, names) in &self.met {
            for (key, meaning) in names {
                by_key.entry(key).or_default().push((owner, meaning));
            }
        }
        let resolution = |meaning: &Meaning| Resolution {
            resolved: meaning.now.clone(),
            before: meaning
                .before
                .clone()
                .filter(|before| meaning.now.as_ref() != Some(before)),
        };
        let mut all = BTreeMap::new();
        for (key, meanings) in by_key {
            let first = meanings[0].1;
            if meanings.iter().all(|(_, m)| m.now == first.now) {
                // One of them may have meant something else before.
                let telling = meanings
                    .iter()
                    .map(|(_, m)| resolution(m))
                    .find(|r| r.before.is_some());
                all.insert(key.clone(), telling.unwrap_or_else(|| resolution(first)));
                continue;
            }
            for (owner, meaning) in meanings {
                let key = ResolutionKey(format!("{key} of {owner}"));
                all.insert(key, resolution(meaning));
            }
        }
        all
    }
}

/// The key of a git reference; none for a commit, which means itself.
pub(super) fn git_key(url: &str, wanted: &GitRef) -> Option<ResolutionKey> {
    match wanted {
        GitRef::Branch(name) => Some(ResolutionKey(format!("git {url} branch {name}"))),
        GitRef::Tag(name) => Some(ResolutionKey(format!("git {url} tag {name}"))),
        GitRef::Commit(_) => None,
    }
}

/// The digest that an image's reference carries itself.
pub(super) fn own_digest(reference: &str) -> Option<&str> {
    let (_, digest) = reference.rsplit_once('@')?;
    digest.starts_with("sha256:").then_some(digest)
}

/// Whether a version has at least so many parts, all of them numbers: then it means itself.
pub(super) fn is_exact(version: &str, parts: usize) -> bool {
    let all: Vec<&str> = version.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    all.len() >= parts && all.iter().all(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_carries_its_own_meaning_is_looked_up_nowhere() {
        assert_eq!(own_digest("a/b:1@sha256:12"), Some("sha256:12"));
        assert_eq!(own_digest("a/b:1"), None);
        assert_eq!(own_digest("user@host/b"), None);
        for (version, parts, exact) in [
            ("20.1.0", 3, true),
            ("20", 3, false),
            ("20.1", 3, false),
            ("16.3", 2, true),
            ("16", 2, false),
            ("1.2.x", 3, false),
            ("1..2", 3, false),
            ("", 1, false),
        ] {
            assert_eq!(is_exact(version, parts), exact, "{version}");
        }
    }
}
