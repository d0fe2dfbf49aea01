//! All the resources of one machine, as the exact bytes that are stored, hashed and sent.
//!
//! An assignment is a header line and one JSON line for each entry, sorted by address. A delta carries
//! whole lines, so both ends hash the very same bytes and nothing is ever hashed after re-encoding.
//!
//! Invariant: lines are unique by address and sorted, so equal content means equal bytes.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Generation;
use crate::address::Address;
use crate::hash::Hash;
use crate::name::{Lineage, MachineName, OwnerName, WorkspaceName};
use crate::resource::Resource;

/// The newest assignment format that this version reads and the one it writes.
pub const FORMAT: u32 = 1;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose history this belongs to.
    pub lineage: Lineage,
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The machine; every address in the assignment is on it.
    pub machine: MachineName,
}

/// The order to remove a resource, kept until the agent has proven that it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    /// What is to be removed.
    pub address: Address,
    /// The generation that ordered it; absence proven at this one or later settles it.
    pub since: Generation,
}

/// One line: a resource or a tombstone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// Something that should be. Shared: what is recorded of a machine is in its owner's release too.
    Resource(Arc<Resource>),
    /// Something that should be no more.
    Tombstone(Tombstone),
}

impl From<Resource> for Entry {
    fn from(resource: Resource) -> Self {
        Self::Resource(Arc::new(resource))
    }
}

impl Entry {
    /// The address that the entry is about.
    #[must_use]
    pub fn address(&self) -> &Address {
        match self {
            Self::Resource(resource) => &resource.address,
            Self::Tombstone(tombstone) => &tombstone.address,
        }
    }
}

/// Why bytes are not an assignment, or a delta does not fit one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    /// A line is not what it should be; counted from 1.
    #[error("line {0} of the assignment cannot be read: {1}")]
    Line(usize, String),
    /// Written by a newer Plumb.
    #[error(
        "the assignment has format {0}, newer than the {FORMAT} that this version reads; upgrade plumb on this machine"
    )]
    NewerFormat(u32),
    /// Lines out of order, twice the same address, or an address on another machine.
    #[error("line {0} of the assignment is out of order or belongs to another machine")]
    Order(usize),
    /// The delta starts from other content.
    #[error("the delta applies to {expected:?}, but {found:?} is held")]
    Base {
        /// What the delta starts from.
        expected: Hash,
        /// What is held.
        found: Hash,
    },
    /// The delta does not lead to the content that it promised.
    #[error("the delta was to result in {expected:?}, but results in {found:?}")]
    Result {
        /// What was promised.
        expected: Hash,
        /// What came out.
        found: Hash,
    },
}

/// An assignment: its bytes, their hash, and what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    header: Header,
    header_line: Vec<u8>,
    lines: Lines,
    hash: Hash,
}

/// The lines, sorted by address. Shared, since nearly all of one assignment is in the next one too; and in a list, since the
/// smallest node of a map has room for eleven and most machines have fewer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Lines(Vec<Arc<Written>>);

impl Lines {
    /// Of two for one address the later wins.
    fn of(mut all: Vec<Arc<Written>>) -> Self {
        // Stable, so that the later of two comes behind.
        all.sort_by(|a, b| a.address().cmp(b.address()));
        all.dedup_by(|later, earlier| {
            let same = later.address() == earlier.address();
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        all.shrink_to_fit();
        Self(all)
    }

    fn get(&self, address: &Address) -> Option<&Arc<Written>> {
        let at = self.0.binary_search_by(|line| line.address().cmp(address));
        self.0.get(at.ok()?)
    }

    fn iter(&self) -> std::slice::Iter<'_, Arc<Written>> {
        self.0.iter()
    }
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    /// Its very bytes, with the line feed.
    line: Vec<u8>,
    /// What it says.
    entry: Entry,
}

impl Written {
    fn address(&self) -> &Address {
        self.entry.address()
    }

    /// Whether it is the same line as another.
    fn is(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(self, other) || self.line == other.line
    }
}

fn line_of(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("model values are always JSON");
    line.push(b'\n');
    line
}

/// Reads one line, of which the line feed is a part: one without it, or with another inside, would run into the next.
fn read_line<'a, T: Deserialize<'a>>(line: &'a [u8], at: usize) -> Result<T, AssignmentError> {
    if line.iter().position(|byte| *byte == b'\n') != line.len().checked_sub(1) {
        let message = "it is not one line that ends with a line feed".to_owned();
        return Err(AssignmentError::Line(at, message));
    }
    serde_json::from_slice(line).map_err(|e| AssignmentError::Line(at, e.to_string()))
}

impl Assignment {
    /// Builds an assignment; of two entries for one address the later wins.
    #[must_use]
    pub fn build(header: Header, entries: impl IntoIterator<Item = Entry>) -> Self {
        let lines = entries.into_iter().map(|entry| {
            let line = line_of(&entry);
            Arc::new(Written { line, entry })
        });
        let lines = Lines::of(lines.collect());
        Self::from_lines(header.clone(), line_of(&header), lines)
    }

    fn from_lines(header: Header, header_line: Vec<u8>, lines: Lines) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header_line);
        for written in lines.iter() {
            hasher.update(&written.line);
        }
        Self {
            header,
            header_line,
            lines,
            hash: Hash(*hasher.finalize().as_bytes()),
        }
    }

    /// Reads the bytes of [`Assignment::bytes`]; the hash is over these very bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, AssignmentError> {
        Self::parse_sharing(bytes, |_| None)
    }

    /// The same, where each resource that is known already is not held twice. What is known by an address may be another one.
    pub fn parse_sharing<'k>(
        bytes: &[u8],
        known: impl Fn(&Address) -> Option<&'k Arc<Resource>>,
    ) -> Result<Self, AssignmentError> {
        let mut split = bytes.split_inclusive(|b| *b == b'\n');
        let first = split.next().unwrap_or_default();
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let format: Format = read_line(first, 1)?;
        if format.format > FORMAT {
            return Err(AssignmentError::NewerFormat(format.format));
        }
        let header: Header = read_line(first, 1)?;
        let mut lines: Vec<Arc<Written>> = Vec::new();
        for (index, line) in split.enumerate() {
            let at = index + 2;
            let mut entry: Entry = read_line(line, at)?;
            let address = entry.address();
            let in_order = lines.last().is_none_or(|last| last.address() < address);
            if !in_order || address.machine != header.machine {
                return Err(AssignmentError::Order(at));
            }
            if let Entry::Resource(resource) = &mut entry
                && let Some(known) = known(&resource.address).filter(|known| *known == resource)
            {
                *resource = known.clone();
            }
            let line = line.to_vec();
            lines.push(Arc::new(Written { line, entry }));
        }
        lines.shrink_to_fit();
        Ok(Self::from_lines(header, first.to_vec(), Lines(lines)))
    }

    /// The exact bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header_line.clone();
        for written in self.lines.iter() {
            bytes.extend_from_slice(&written.line);
        }
        bytes
    }

    /// BLAKE3 of [`Assignment::bytes`].
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The first line.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What is to be at an address, if anything is said of it.
    #[must_use]
    pub fn get(&self, address: &Address) -> Option<&Entry> {
        self.lines.get(address).map(|written| &written.entry)
    }

    /// All entries, sorted by address.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.lines.iter().map(|written| &written.entry)
    }

    /// All resources, sorted by address.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.entries().filter_map(|entry| match entry {
            Entry::Resource(resource) => Some(resource.as_ref()),
            Entry::Tombstone(_) => None,
        })
    }

    /// Whether it says nothing at all. An empty one needs confirmation before an agent takes it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.0.is_empty()
    }

    /// The owners of which the two do not hold the very same lines.
    #[must_use]
    pub fn differing_owners(&self, other: &Self) -> BTreeSet<OwnerName> {
        let mut differing = BTreeSet::new();
        let one_way = |from: &Self, to: &Self, out: &mut BTreeSet<OwnerName>| {
            for written in from.lines.iter() {
                let address = written.address();
                let there = to.lines.get(address);
                let same = there.is_some_and(|there| there.is(written));
                if !same && !out.contains(&address.owner) {
                    out.insert(address.owner.clone());
                }
            }
        };
        one_way(self, other, &mut differing);
        one_way(other, self, &mut differing);
        differing
    }

    /// The lines of `self`, but those of some owners as `held` has them. No line is written anew.
    #[must_use]
    pub fn with_lines_of(&self, held: &Self, owners: &BTreeSet<OwnerName>) -> Self {
        let kept = |line: &&Arc<Written>| !owners.contains(&line.address().owner);
        let theirs = |line: &&Arc<Written>| !kept(line);
        let lines = self.lines.iter().filter(kept);
        let lines = lines.chain(held.lines.iter().filter(theirs));
        let lines = Lines::of(lines.cloned().collect());
        Self::from_lines(self.header.clone(), self.header_line.clone(), lines)
    }

    /// The lines that lead from `self` to `to`. An address that `to` no longer speaks of is listed in `removes`:
    /// its tombstone has been settled.
    #[must_use]
    pub fn delta_to(&self, to: &Self) -> Delta {
        let upserts = to
            .lines
            .iter()
            .filter(|written| {
                let old = self.lines.get(written.address());
                old.is_none_or(|old| !old.is(written))
            })
            .map(|written| written.line.clone())
            .collect();
        let removes = self
            .lines
            .iter()
            .map(|written| written.address())
            .filter(|address| to.lines.get(address).is_none())
            .cloned()
            .collect();
        Delta {
            applies_to: self.hash,
            results_in: to.hash,
            upserts,
            removes,
        }
    }

    /// Applies a delta, and checks that the result is what it promises.
    pub fn apply(&self, delta: &Delta) -> Result<Self, AssignmentError> {
        if delta.applies_to != self.hash {
            return Err(AssignmentError::Base {
                expected: delta.applies_to,
                found: self.hash,
            });
        }
        let removes: BTreeSet<&Address> = delta.removes.iter().collect();
        let kept = |line: &&Arc<Written>| !removes.contains(line.address());
        let mut lines: Vec<_> = self.lines.iter().filter(kept).cloned().collect();
        for (index, line) in delta.upserts.iter().enumerate() {
            let entry: Entry = read_line(line, index + 1)?;
            if entry.address().machine != self.header.machine {
                return Err(AssignmentError::Order(index + 1));
            }
            let line = line.clone();
            lines.push(Arc::new(Written { line, entry }));
        }
        let lines = Lines::of(lines);
        let result = Self::from_lines(self.header.clone(), self.header_line.clone(), lines);
        if result.hash != delta.results_in {
            return Err(AssignmentError::Result {
                expected: delta.results_in,
                found: result.hash,
            });
        }
        Ok(result)
    }
}

/// One line that is to be written, of which what it says is at hand as bytes already.
#[derive(Debug, Clone, Copy)]
pub enum Line<'a> {
    /// The JSON of a resource.
    Resource(&'a [u8]),
    /// An order to remove something.
    Tombstone(&'a Tombstone),
}

/// The bytes that [`Assignment::build`] makes of the same, without reading or copying what the resources say. The lines
/// must be sorted by address, each address once.
///
/// # Panics
/// Never: model values are always JSON.
#[must_use]
pub fn write<'a>(header: &Header, lines: impl IntoIterator<Item = Line<'a>>) -> Vec<u8> {
    let mut bytes = line_of(header);
    for line in lines {
        match line {
            Line::Resource(json) => {
                bytes.extend_from_slice(b"{\"resource\":");
                bytes.extend_from_slice(json);
                bytes.push(b'}');
            }
            Line::Tombstone(tombstone) => {
                bytes.extend_from_slice(b"{\"tombstone\":");
                serde_json::to_writer(&mut bytes, tombstone).expect("model values are always JSON");
                bytes.push(b'}');
            }
        }
        bytes.push(b'\n');
    }
    bytes
}

/// The difference between two assignments of one machine, as whole lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The hash of the content that it starts from.
    pub applies_to: Hash,
    /// The hash of the content that it leads to.
    pub results_in: Hash,
    /// New and changed lines.
    pub upserts: Vec<Vec<u8>>,
    /// Addresses that are spoken of no more: their tombstones have been settled.
    pub removes: Vec<Address>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{DirectorySpec, Mode, ResourceSpec};
    use crate::{DriftPolicy, OwnerName, ResourceKind};

    fn header() -> Header {
        Header {
            format: FORMAT,
            lineage: Lineage::from_random([1; 16]),
            workspace: WorkspaceName::new("w").unwrap(),
            machine: MachineName::new("m").unwrap(),
        }
    }

    fn entry(name: &str, mode: u32) -> Entry {
        let owner = OwnerName::new("o").unwrap();
        let resource = Resource {
            adopt: false,
            was: None,
            was_before: Vec::new(),
            address: Address::new(&header().machine, &owner, ResourceKind::Directory, name),
            after: Default::default(),
            drift: DriftPolicy::Enforce,
            spec: ResourceSpec::Directory(DirectorySpec {
                path: name.into(),
                mode: Mode(mode),
                owner: None,
                group: None,
            }),
        };
        Entry::from(resource)
    }

    #[test]
    fn bytes_read_back_and_do_not_depend_on_the_order_of_entries() {
        let a = Assignment::build(header(), [entry("/a", 0o755), entry("/b", 0o700)]);
        let b = Assignment::build(header(), [entry("/b", 0o700), entry("/a", 0o755)]);
        assert_eq!(a.bytes(), b.bytes());
        assert_eq!(a.hash(), Hash::of(&a.bytes()));
        assert_eq!(Assignment::parse(&a.bytes()).unwrap(), a);
    }

    #[test]
    fn lines_written_of_bytes_are_those_of_the_entries() {
        let gone = Tombstone {
            address: entry("/c", 0).address().clone(),
            since: Generation(7),
        };
        let entries = [
            entry("/a", 0o755),
            entry("/b", 0o700),
            Entry::Tombstone(gone.clone()),
        ];
        let built = Assignment::build(header(), entries.clone());
        let json: Vec<Vec<u8>> = built
            .resources()
            .map(|resource| serde_json::to_vec(resource).unwrap())
            .collect();
        let lines = json.iter().map(|json| Line::Resource(json));
        let written = write(&header(), lines.chain([Line::Tombstone(&gone)]));
        assert_eq!(written, built.bytes());
    }

    #[test]
    fn a_delta_leads_where_it_says_and_fits_nothing_else() {
        let a = Assignment::build(header(), [entry("/a", 0o755), entry("/b", 0o700)]);
        let b = Assignment::build(header(), [entry("/a", 0o700), entry("/c", 0o700)]);
        let delta = a.delta_to(&b);
        assert_eq!((delta.upserts.len(), delta.removes.len()), (2, 1));
        assert_eq!(a.apply(&delta).unwrap(), b);
        assert!(matches!(b.apply(&delta), Err(AssignmentError::Base { .. })));
        let mut torn = delta;
        torn.upserts.pop();
        assert!(matches!(
            a.apply(&torn),
            Err(AssignmentError::Result { .. })
        ));
    }

    /// Mutation: read lines with `serde_json::from_slice` alone.
    #[test]
    fn a_line_that_would_run_into_the_next_one_is_refused() {
        let a = Assignment::build(header(), [entry("/a", 0o755)]);
        let bytes = a.bytes();
        let torn = &bytes[..bytes.len() - 1];
        assert!(matches!(
            Assignment::parse(torn),
            Err(AssignmentError::Line(2, _))
        ));
        let line = line_of(&entry("/b", 0o755));
        let open = line[..line.len() - 1].to_vec();
        let broken = [b"\n", line.as_slice()].concat();
        for upsert in [open, broken, Vec::new()] {
            let delta = Delta {
                applies_to: a.hash(),
                results_in: a.hash(),
                upserts: vec![upsert],
                removes: Vec::new(),
            };
            assert!(matches!(a.apply(&delta), Err(AssignmentError::Line(1, _))));
        }
    }

    #[test]
    fn a_newer_format_and_disorder_are_refused() {
        let newer = b"{\"format\":2,\"new\":true}\n";
        assert_eq!(
            Assignment::parse(newer),
            Err(AssignmentError::NewerFormat(2))
        );
        let a = Assignment::build(header(), [entry("/a", 0o755), entry("/b", 0o700)]);
        let bytes = a.bytes();
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let swapped = format!("{}\n{}\n{}\n", lines[0], lines[2], lines[1]);
        assert_eq!(
            Assignment::parse(swapped.as_bytes()),
            Err(AssignmentError::Order(3))
        );
    }
}
