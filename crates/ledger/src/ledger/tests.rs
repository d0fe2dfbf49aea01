use std::sync::Mutex;

use plumb_model::name;
use plumb_model::state::{MachineInfo, MachineState, OwnerKind, OwnerState, RevisionKind};
use plumb_model::{Generation, MachineName};

use super::*;
use crate::store::{MAX_VALUE_BYTES, Pair};
use crate::{DataFolder, MemoryStore, SledStore};

fn ledger_on(store: Arc<dyn Store>) -> Ledger {
    let lineage = Lineage::from_random([1; 16]);
    Ledger::open(store, lineage, WorkspaceName::new("shop").unwrap())
}

fn ledger() -> Ledger {
    ledger_on(Arc::new(MemoryStore::new()))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn owner(name: &str) -> OwnerName {
    OwnerName::new(name).unwrap()
}

fn machine(name: &str) -> MachineName {
    MachineName::new(name).unwrap()
}

/// The next revision after what is recorded: a release of `hello`, and an assignment for each of `machines`.
fn next_of(recorded: &Recorded, machines: usize, text: &str) -> Next {
    let mut state = recorded.state.clone();
    state.revision = state.revision.next();
    let release = state
        .last_release
        .get(&owner("hello"))
        .map_or(ReleaseNumber(1), |last| last.next());
    let body = ReleaseBody {
        rollout: None,
        resolutions: Default::default(),
        format: state::FORMAT,
        owner: owner("hello"),
        kind: OwnerKind::App,
        resources: Vec::new(),
    }
    .bytes();
    let mut bodies = BTreeMap::from([(Hash::of(&body), body.clone())]);
    state.owners.insert(
        owner("hello"),
        OwnerState {
            release,
            body: Hash::of(&body),
        },
    );
    state.last_release.insert(owner("hello"), release);
    let mut moved = BTreeMap::new();
    for index in 0..machines {
        let bytes = format!("assignment of {index}: {text}").into_bytes();
        let name = machine(&format!("m{index:05}"));
        state.machines.insert(
            name.clone(),
            MachineState {
                info: MachineInfo::default(),
                generation: Generation(state.revision.0),
                assignment: Hash::of(&bytes),
                tombstones: BTreeMap::new(),
                leaving: false,
                rolling: None,
            },
        );
        moved.insert(name, Generation(state.revision.0));
        bodies.insert(Hash::of(&bytes), bytes);
    }
    Next {
        state,
        bodies,
        released: BTreeMap::from([(owner("hello"), release)]),
        moved,
    }
}

fn record_of(next: &Next, by: &str) -> RevisionRecord {
    let released = next.released.iter().map(|(owner, number)| {
        let body = next.state.owners.get(owner).map(|state| state.body);
        (owner.clone(), (*number, body))
    });
    RevisionRecord {
        revision: next.state.revision,
        at: at(next.state.revision.0 as i64),
        by: by.to_owned(),
        commit: None,
        kind: RevisionKind::Apply,
        approval: Hash::of(b"approval"),
        state: Hash::of(&next.state.bytes()),
        released: released.collect(),
        allowed: Vec::new(),
        renamed: BTreeMap::new(),
    }
}

fn apply(ledger: &Ledger, text: &str, by: &str) -> Next {
    let recorded = ledger.load().unwrap();
    let next = next_of(&recorded, 2, text);
    ledger
        .apply(recorded.state.revision, &next, &record_of(&next, by))
        .unwrap();
    next
}

#[test]
fn what_was_applied_is_what_is_loaded_also_after_reopening() {
    let temp = tempfile::tempdir().unwrap();
    let open = || {
        let folder = DataFolder::open(temp.path()).unwrap();
        ledger_on(Arc::new(SledStore::open(&folder).unwrap()))
    };
    let first = open();
    assert_eq!(first.load().unwrap(), Recorded::default());
    let next = apply(&first, "one", "ada");
    drop(first);
    let ledger = open();
    let recorded = ledger.load().unwrap();
    assert_eq!(recorded.state, next.state);
    assert_eq!(recorded.releases.len(), 1);
    for (hash, bytes) in &next.bodies {
        assert_eq!(ledger.body(hash).unwrap().as_ref(), Some(bytes));
    }
    assert_eq!(ledger.revisions(10).unwrap(), [record_of(&next, "ada")]);
    assert_eq!(ledger.body(&Hash::of(b"never stored")).unwrap(), None);
}

#[test]
fn of_two_applies_one_wins_and_the_other_is_told_what_moved() {
    let ledger = ledger();
    apply(&ledger, "zero", "ada");
    let recorded = ledger.load().unwrap();
    let results: Vec<_> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|racer| {
                let (ledger, recorded) = (&ledger, &recorded);
                scope.spawn(move || {
                    let next = next_of(recorded, 2, &format!("racer {racer}"));
                    let by = format!("racer-{racer}");
                    let record = record_of(&next, &by);
                    (by, ledger.apply(recorded.state.revision, &next, &record))
                })
            })
            .collect();
        racers.into_iter().map(|r| r.join().unwrap()).collect()
    });
    let winners: Vec<_> = results
        .iter()
        .filter(|(_, result)| result.is_ok())
        .collect();
    let [(winner, _)] = winners[..] else {
        panic!("one winner, not {}", winners.len());
    };
    let head = ledger.head().unwrap().unwrap();
    assert_eq!((head.revision, &head.by), (Revision(2), winner));
    for (_, result) in results.iter().filter(|(_, result)| result.is_err()) {
        let expected = ApplyError::Moved {
            base: Revision(1),
            head: Revision(2),
            by: winner.clone(),
            at: at(2),
        };
        assert_eq!(result, &Err(expected));
    }
    assert_eq!(ledger.revisions(10).unwrap().len(), 2);
}

#[test]
fn a_plan_against_a_revision_that_was_never_recorded_is_refused() {
    let ledger = ledger();
    let mut ahead = Recorded::default();
    ahead.state.revision = Revision(7);
    let next = next_of(&ahead, 1, "x");
    assert_eq!(
        ledger.apply(Revision(7), &next, &record_of(&next, "ada")),
        Err(ApplyError::Ahead {
            base: Revision(7),
            head: Revision(0)
        })
    );
}

#[test]
fn a_next_state_that_contradicts_itself_is_not_recorded() {
    let ledger = ledger();
    let good = next_of(&Recorded::default(), 1, "x");
    let mut missing = good.clone();
    missing.bodies.pop_last();
    let mut mislabelled = good.clone();
    mislabelled.bodies.insert(Hash::of(b"a"), b"b".to_vec());
    let mut other_state = record_of(&good, "ada");
    other_state.state = Hash::of(b"other");
    let mut other_number = record_of(&good, "ada");
    other_number.revision = Revision(2);
    let cases = [
        (&missing, record_of(&missing, "ada")),
        (&mislabelled, record_of(&mislabelled, "ada")),
        (&good, other_state),
        (&good, other_number),
    ];
    for (next, record) in cases {
        let result = ledger.apply(Revision(0), next, &record);
        assert!(
            matches!(result, Err(ApplyError::Inconsistent(_))),
            "{result:?}"
        );
        assert_eq!(ledger.head().unwrap(), None);
    }
}

/// Notes what each transaction was like.
struct Watched {
    inner: MemoryStore,
    seen: Mutex<Vec<(usize, usize, bool)>>,
}

impl Store for Watched {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(key)
    }
    fn scan(&self, p: &[u8], a: Option<&[u8]>, l: usize) -> Result<Vec<Pair>, StoreError> {
        self.inner.scan(p, a, l)
    }
    fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        let operations = txn.checks.len() + txn.writes.len();
        let moves_head = txn
            .writes
            .iter()
            .any(|write| write.key().ends_with(b"/head"));
        let mut seen = self.seen.lock().unwrap();
        seen.push((operations, txn.bytes(), moves_head));
        self.inner.commit(txn)
    }
    fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[test]
fn an_apply_to_5000_machines_moves_the_head_with_one_small_transaction() {
    let store = Arc::new(Watched {
        inner: MemoryStore::new(),
        seen: Mutex::default(),
    });
    let ledger = ledger_on(Arc::clone(&store) as Arc<dyn Store>);
    let next = next_of(&Recorded::default(), 5000, "x");
    assert!(next.state.bytes().len() > MAX_VALUE_BYTES, "in pieces");
    ledger
        .apply(Revision(0), &next, &record_of(&next, "ada"))
        .unwrap();
    assert_eq!(ledger.load().unwrap().state, next.state);
    let seen = store.seen.lock().unwrap();
    let heads: Vec<_> = seen.iter().filter(|(.., moves_head)| *moves_head).collect();
    let [(operations, bytes, _)] = heads[..] else {
        panic!("the head moved {} times", heads.len());
    };
    assert!(
        *operations <= 4 && *bytes < 1024,
        "{operations} operations, {bytes} bytes"
    );
    assert_eq!(
        seen.last(),
        Some(&(*operations, *bytes, true)),
        "bodies come first"
    );
    assert!(seen.len() < 5000 / 100 + 10, "{} transactions", seen.len());
}

#[test]
fn an_apply_to_1500_owners_fits_although_its_record_does_not_fit_one_value() {
    let ledger = ledger();
    let mut next = next_of(&Recorded::default(), 0, "x");
    let hello = next.state.owners[&owner("hello")].clone();
    for index in 0..1500 {
        let name = owner(&format!("{index:04}-{}", "x".repeat(50)));
        next.state.owners.insert(name.clone(), hello.clone());
        next.released.insert(name, ReleaseNumber(1));
    }
    let record = record_of(&next, "ada");
    assert!(records::encode(&record).len() > MAX_VALUE_BYTES);
    ledger.apply(Revision(0), &next, &record).unwrap();
    assert_eq!(ledger.revision(Revision(1)).unwrap(), Some(record));
}

/// Threat 37. Mutation: leave out the comparison of hashes in `Ledger::body`.
#[test]
fn a_body_that_does_not_have_its_hash_is_never_handed_out() {
    let store = Arc::new(MemoryStore::new());
    let ledger = ledger_on(Arc::clone(&store) as Arc<dyn Store>);
    for length in [0, 10, 64 * 1024, 64 * 1024 + 1, 200 * 1024] {
        let bytes: Vec<u8> = (0..length).map(|i| (i % 241) as u8).collect();
        let hash = ledger.put_body(&bytes).unwrap();
        assert_eq!(ledger.body(&hash).unwrap(), Some(bytes));
        let prefix = ledger.body_key(&hash);
        for (key, value) in store.scan(prefix.as_bytes(), None, 100).unwrap() {
            let flipped = value.iter().enumerate().map(|(i, byte)| {
                let last = i + 1 == value.len();
                if last { byte ^ 1 } else { *byte }
            });
            let put = |value: Vec<u8>| store.commit(Txn::default().put(key.clone(), value));
            assert_eq!(put(flipped.collect()), Ok(Committed::Yes));
            let error = ledger.body(&hash).expect_err("it is damaged").to_string();
            assert!(error.contains(&hash.to_string()), "{error}");
            assert_eq!(put(value.clone()), Ok(Committed::Yes));
        }
    }
}

#[test]
fn a_newer_record_is_refused_by_name() {
    let store = Arc::new(MemoryStore::new());
    let ledger = ledger_on(Arc::clone(&store) as Arc<dyn Store>);
    let key = ledger.key("head");
    let txn = Txn::default().put(key.as_str(), br#"{"format":2,"novel":1}"#.as_slice());
    assert_eq!(store.commit(txn), Ok(Committed::Yes));
    let expected = LedgerError::Newer {
        key,
        found: 2,
        reads: 1,
    };
    assert_eq!(ledger.load(), Err(expected));
}

#[test]
fn the_log_reads_newest_first_and_knows_the_releases_of_an_owner() {
    let ledger = ledger();
    for text in ["one", "two", "three"] {
        apply(&ledger, text, "ada");
    }
    let numbers = |records: Vec<RevisionRecord>| -> Vec<u64> {
        records.iter().map(|record| record.revision.0).collect()
    };
    assert_eq!(numbers(ledger.revisions(2).unwrap()), [3, 2]);
    assert_eq!(numbers(ledger.revisions(10).unwrap()), [3, 2, 1]);
    assert_eq!(
        numbers(ledger.releases(&owner("hello"), 2).unwrap()),
        [3, 2]
    );
    assert_eq!(ledger.releases(&owner("other"), 2).unwrap(), []);
    assert_eq!(ledger.revision(Revision(9)).unwrap(), None);
}

#[test]
fn outcomes_belong_to_one_owner_and_the_last_counts() {
    let ledger = ledger();
    let set = |name: &str, release, outcome| {
        ledger
            .set_outcome(&owner(name), ReleaseNumber(release), outcome)
            .unwrap();
    };
    set("a", 1, Outcome::Converging);
    set("a", 1, Outcome::Converged);
    set("a", 12, Outcome::Failed);
    set("a-b", 1, Outcome::Superseded);
    assert_eq!(
        ledger.outcomes(&owner("a")).unwrap(),
        BTreeMap::from([
            (ReleaseNumber(1), Outcome::Converged),
            (ReleaseNumber(12), Outcome::Failed)
        ])
    );
    let many = (1..=300).map(|n| (owner("many"), ReleaseNumber(n), Outcome::Removed));
    ledger.set_outcomes(many).unwrap();
    assert_eq!(ledger.outcomes(&owner("many")).unwrap().len(), 300);
}

#[test]
fn workspaces_and_lineages_in_one_store_do_not_see_each_other() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let ledger = ledger_on(Arc::clone(&store));
    apply(&ledger, "x", "ada");
    let shop = WorkspaceName::new("shop").unwrap();
    let others = [
        (
            Lineage::from_random([1; 16]),
            WorkspaceName::new("shop-2").unwrap(),
        ),
        (Lineage::from_random([2; 16]), shop),
    ];
    for (lineage, workspace) in others {
        let other = Ledger::open(Arc::clone(&store), lineage, workspace);
        assert_eq!(other.load().unwrap(), Recorded::default());
        assert_eq!(other.body(&ledger.head().unwrap().unwrap().state), Ok(None));
    }
    let prefix = format!("{}/shop/", ledger.lineage());
    for (key, _) in store.scan(b"", None, 100).unwrap() {
        assert!(key.starts_with(prefix.as_bytes()));
    }
}

fn token(id: &str, kind: TokenKind) -> TokenRecord {
    TokenRecord {
        id: id.to_owned(),
        secret: Hash::of(b"s3cret"),
        kind,
        created: at(0),
        expires_at: Some(at(100)),
        last_used: None,
        consumed: None,
    }
}

/// Mutation: write the consumed token without checking what it was before.
#[test]
fn of_100_racers_for_a_join_token_exactly_one_succeeds() {
    let temp = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(temp.path()).unwrap();
    let ledger = ledger_on(Arc::new(SledStore::open(&folder).unwrap()));
    ledger
        .put_token(&token("join-1", TokenKind::Join { machine: None }))
        .unwrap();
    let results: Vec<_> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..100)
            .map(|racer| {
                let ledger = &ledger;
                let machine = machine(&format!("m{racer}"));
                scope.spawn(move || ledger.consume_join("join-1", "s3cret", &machine, at(1)))
            })
            .collect();
        racers.into_iter().map(|r| r.join().unwrap()).collect()
    });
    let mut winners = results.iter().flatten();
    let winner = winners.next().unwrap();
    assert_eq!(winners.next(), None);
    assert_eq!(ledger.get_token("join-1").unwrap().as_ref(), Some(winner));
    let used = winner.consumed.clone().unwrap();
    let refusal = ConsumeError::Used {
        at: used.at,
        machine: used.machine,
    };
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!(error, &refusal);
    }
}

#[test]
fn a_join_token_is_refused_for_each_reason_and_stays_as_it_was() {
    let ledger = ledger();
    let bound = token(
        "bound",
        TokenKind::Join {
            machine: Some(machine("a")),
        },
    );
    let api = token(
        "api",
        TokenKind::Api {
            role: "admin".to_owned(),
            all: false,
        },
    );
    ledger.put_token(&bound).unwrap();
    ledger.put_token(&api).unwrap();
    let try_it = |id: &str, secret: &str, name: &str, second| {
        ledger.consume_join(id, secret, &machine(name), at(second))
    };
    assert_eq!(try_it("bound", "wrong", "a", 1), Err(ConsumeError::Invalid));
    assert_eq!(
        try_it("absent", "s3cret", "a", 1),
        Err(ConsumeError::Invalid)
    );
    assert_eq!(
        try_it("../head", "s3cret", "a", 1),
        Err(ConsumeError::Invalid)
    );
    assert_eq!(try_it("api", "s3cret", "a", 1), Err(ConsumeError::Invalid));
    assert_eq!(
        try_it("bound", "s3cret", "a", 100),
        Err(ConsumeError::Expired(at(100)))
    );
    assert_eq!(
        try_it("bound", "s3cret", "b", 1),
        Err(ConsumeError::OtherMachine {
            bound: machine("a"),
            machine: machine("b")
        })
    );
    assert_eq!(ledger.list_tokens().unwrap(), [api, bound]);
    assert!(try_it("bound", "s3cret", "a", 99).is_ok());
}

#[test]
fn tokens_are_made_once_listed_touched_and_removed() {
    let ledger = ledger();
    let api = token(
        "ci",
        TokenKind::Api {
            role: "deployer".to_owned(),
            all: false,
        },
    );
    ledger.put_token(&api).unwrap();
    assert_eq!(
        ledger.put_token(&api),
        Err(TokenError::Exists("ci".to_owned()))
    );
    let bad = TokenRecord {
        id: "a/b".to_owned(),
        ..api.clone()
    };
    let refused = ledger.put_token(&bad);
    assert!(matches!(
        refused,
        Err(TokenError::BadId {
            source: name::NameError::BadCharacter('/', 1),
            ..
        })
    ));
    assert!(api.matches("s3cret") && !api.matches("s3cret ") && !api.matches(""));
    ledger.touch_token("ci", at(5)).unwrap();
    assert_eq!(
        ledger.get_token("ci").unwrap().unwrap().last_used,
        Some(at(5))
    );
    assert_eq!(ledger.remove_token("ci"), Ok(true));
    assert_eq!(ledger.remove_token("ci"), Ok(false));
    ledger.touch_token("ci", at(6)).unwrap();
    assert_eq!(ledger.list_tokens().unwrap(), []);
}

#[test]
fn a_removed_machine_is_not_renewed_and_another_key_never_is() {
    let ledger = ledger();
    let identity = MachineIdentity {
        machine: machine("a"),
        public_key_sha256: "00ff".to_owned(),
        certificate_serial: "1".to_owned(),
        enrolled_at: at(0),
        removed: None,
        seen: None,
    };
    let renew =
        |name: &str, key: &str, serial: &str| ledger.renew_identity(&machine(name), key, serial);
    assert_eq!(
        renew("a", "00ff", "2"),
        Err(IdentityError::Unknown(machine("a")))
    );
    ledger.put_identity(&identity).unwrap();
    assert_eq!(renew("a", "00ff", "2").unwrap().certificate_serial, "2");
    assert_eq!(
        renew("a", "0000", "3"),
        Err(IdentityError::OtherKey(machine("a")))
    );
    ledger.remove_identity(&machine("a"), at(7)).unwrap();
    let again = ledger.remove_identity(&machine("a"), at(8)).unwrap();
    assert_eq!(again.removed, Some(at(7)));
    assert_eq!(
        renew("a", "00ff", "4"),
        Err(IdentityError::Removed {
            machine: machine("a"),
            at: at(7)
        })
    );
    assert_eq!(ledger.identities(), Ok(vec![again.clone()]));
    assert_eq!(again.certificate_serial, "2");
    ledger.put_identity(&identity).unwrap();
    assert!(renew("a", "00ff", "5").is_ok(), "enrolled anew");
}

/// Fails under the mutation: look for one name only.
#[test]
fn the_releases_of_an_owner_are_those_under_a_name_that_it_had_too() {
    let ledger = ledger();
    apply(&ledger, "one", "ada");
    let recorded = ledger.load().unwrap();
    let mut next = next_of(&recorded, 2, "two");
    let (hello, shop) = (owner("hello"), owner("shop"));
    let state = next.state.owners.remove(&hello).unwrap();
    next.state.owners.insert(shop.clone(), state);
    let number = next.released.remove(&hello).unwrap();
    next.released.insert(shop.clone(), number);
    let mut record = record_of(&next, "ada");
    record.renamed.insert(shop.clone(), hello.clone());
    ledger
        .apply(recorded.state.revision, &next, &record)
        .unwrap();
    let found = ledger.releases(&shop, 9).unwrap();
    let named: Vec<(OwnerName, u64)> = state::with_name(&shop, &found)
        .map(|(name, record)| (name, record.revision.0))
        .collect();
    assert_eq!(named, [(shop.clone(), 2), (hello.clone(), 1)]);
    assert_eq!(ledger.releases(&hello, 9).unwrap().len(), 1);
    assert_eq!(ledger.releases(&shop, 1).unwrap().len(), 1);
}
