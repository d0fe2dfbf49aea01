use std::sync::Mutex;

use plumb_ledger::MemoryStore;
use plumb_model::journal::Entry;
use plumb_model::{Generation, Hash, Lineage, WorkspaceName};

use super::*;

fn ledger() -> Ledger {
    Ledger::open(
        Arc::new(MemoryStore::default()),
        Lineage::from_random([1; 16]),
        WorkspaceName::new("shop").unwrap(),
    )
}

fn machine() -> MachineName {
    MachineName::new("web-1").unwrap()
}

fn taker(ledger: &Ledger) -> Taker {
    Taker {
        ledger: ledger.clone(),
        now: || Timestamp::UNIX_EPOCH,
        heads: BTreeMap::new(),
        events: Vec::new(),
        moved: BTreeMap::new(),
        replies: Vec::new(),
    }
}

fn lines(ledger: &Ledger, count: u64) -> (Mark, Vec<Vec<u8>>) {
    let mut before = start_of(ledger.lineage(), ledger.workspace(), &machine(), "c");
    let mut lines = Vec::new();
    for number in 1..=count {
        let what = Happening::AssignmentTaken {
            generation: Generation(number),
        };
        let line = Entry {
            number,
            before,
            at: Timestamp::UNIX_EPOCH,
            away: number < 3,
            what,
        }
        .line();
        before = Hash::of(&line);
        lines.push(line);
    }
    let mark = Mark {
        chain: "c".into(),
        number: count,
        hash: before,
    };
    (mark, lines)
}

type Answers = Arc<Mutex<Vec<u64>>>;

fn reply(answers: &Answers) -> Reply {
    let answers = answers.clone();
    Box::new(move |message| {
        if let ToAgent::JournalStored { through, .. } = message {
            answers.lock().unwrap().push(through);
        }
    })
}

fn greet(taker: &mut Taker, mark: &Mark, answers: &Answers) {
    taker.take(Order::Greeted {
        machine: machine(),
        mark: mark.clone(),
        reply: reply(answers),
    });
    taker.flush();
}

fn hand(taker: &mut Taker, mark: &Mark, lines: &[Vec<u8>], answers: &Answers) {
    taker.take(Order::Handed {
        machine: machine(),
        chunk: Chunk {
            newest: mark.clone(),
            lines: lines.to_vec(),
        },
        reply: reply(answers),
    });
    taker.flush();
}

fn entries(ledger: &Ledger) -> Vec<Option<u64>> {
    let (events, _) = ledger.events_after(0, 1000, 1000, |_| true).unwrap();
    events.into_iter().map(|(_, event)| event.entry).collect()
}

/// Mutation: answer before the commit, or store the head of a journal after its entries.
#[test]
fn entries_are_stored_once_and_answered_when_they_are_also_after_a_restart() {
    let ledger = ledger();
    let (mark, lines) = lines(&ledger, 100);
    let answers = Answers::default();
    let mut first = taker(&ledger);
    hand(&mut first, &mark, &lines, &answers);
    assert_eq!(entries(&ledger), [], "nobody has said from where");
    greet(&mut first, &mark, &answers);
    hand(&mut first, &mark, &lines[..60], &answers);
    assert_eq!(*answers.lock().unwrap(), [0, 60]);
    // The answer was lost with the process: another one is told the same, and it all comes again.
    let mut second = taker(&ledger);
    greet(&mut second, &mark, &answers);
    hand(&mut second, &mark, &lines, &answers);
    assert_eq!(*answers.lock().unwrap(), [0, 60, 60, 100]);
    let numbers: Vec<_> = (1..=100).map(Some).collect();
    assert_eq!(entries(&ledger), numbers);
    let head = ledger.journal(&machine()).unwrap().unwrap();
    assert_eq!(
        (head.number, head.hash, head.broken),
        (100, mark.hash, None)
    );
    let (events, _) = ledger.events_after(0, 3, 3, |_| true).unwrap();
    let away: Vec<_> = events.iter().map(|(_, event)| event.away).collect();
    assert_eq!(away, [true, true, false]);
}

/// Threat row 37. Mutation: drop what `Head::take` finds.
#[test]
fn a_journal_that_was_tampered_with_is_stored_as_such() {
    let ledger = ledger();
    let (mark, mut lines) = lines(&ledger, 5);
    let text = String::from_utf8(lines[2].clone()).unwrap();
    lines[2] = text
        .replace("\"generation\":3", "\"generation\":9")
        .into_bytes();
    let answers = Answers::default();
    let mut taker = taker(&ledger);
    greet(&mut taker, &mark, &answers);
    hand(&mut taker, &mark, &lines, &answers);
    let (events, _) = ledger.events_after(0, 9, 9, |_| true).unwrap();
    let words: Vec<_> = events.iter().map(|(_, e)| e.what.word()).collect();
    assert_eq!(words.iter().filter(|w| **w == "journal_broken").count(), 1);
    assert_eq!(words.len(), 6);
    let head = ledger.journal(&machine()).unwrap().unwrap();
    assert_eq!(head.broken.unwrap().number, 4);
    assert_eq!(*answers.lock().unwrap(), [0, 5]);
}

/// Threat row 19. Mutation: keep how far the journal of a removed machine was taken.
#[test]
fn a_machine_that_joins_under_the_name_of_a_removed_one_begins_a_journal_of_its_own() {
    let ledger = ledger();
    let (mark, lines) = lines(&ledger, 5);
    let answers = Answers::default();
    let mut taker = taker(&ledger);
    greet(&mut taker, &mark, &answers);
    hand(&mut taker, &mark, &lines, &answers);
    taker.take(Order::Anew(machine()));
    let other = Mark {
        chain: "d".into(),
        ..mark
    };
    greet(&mut taker, &other, &answers);
    assert_eq!(*answers.lock().unwrap(), [0, 5, 0]);
    let head = ledger.journal(&machine()).unwrap().unwrap();
    assert_eq!((head.chain.as_str(), head.broken), ("d", None));
}

#[test]
fn an_entry_about_another_machine_is_not_stored_and_events_without_a_journal_are() {
    let ledger = ledger();
    let start = start_of(ledger.lineage(), ledger.workspace(), &machine(), "c");
    let line = Entry {
        number: 1,
        before: start,
        at: Timestamp::UNIX_EPOCH,
        away: false,
        what: Happening::Resource {
            address: "other/web/file//x".parse().unwrap(),
            kind: plumb_model::condition::EventKind::Applied,
            message: "m".into(),
        },
    }
    .line();
    let mark = Mark {
        chain: "c".into(),
        number: 1,
        hash: Hash::of(&line),
    };
    let answers = Answers::default();
    let mut taker = taker(&ledger);
    greet(&mut taker, &mark, &answers);
    hand(&mut taker, &mark, &[line], &answers);
    assert_eq!(entries(&ledger), []);
    taker.take(Order::Heard {
        machine: machine(),
        events: vec![MachineEvent {
            at: Timestamp::UNIX_EPOCH,
            address: "web-1/web/file//x".parse().unwrap(),
            kind: plumb_model::condition::EventKind::Applied,
            message: "m".into(),
        }],
    });
    taker.flush();
    assert_eq!(entries(&ledger), [None]);
}
