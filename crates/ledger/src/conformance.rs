//! What every [`Store`] promises, as one suite of assertions. Run by the tests of each implementation.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::store::{
    Committed, MAX_KEY_BYTES, MAX_OPERATIONS, MAX_SCAN, MAX_TRANSACTION_BYTES, MAX_VALUE_BYTES,
    Pair, Store, StoreError, Txn,
};

/// Runs the whole suite, each part on an empty store of its own.
///
/// # Panics
/// When the store breaks a promise: the message says which.
pub fn check(make: impl Fn() -> Box<dyn Store>) {
    let parts: [fn(&dyn Store); 8] = [
        a_fresh_store_is_empty_and_ready,
        what_was_put_is_there_until_it_is_deleted,
        a_transaction_is_applied_whole_or_not_at_all,
        a_conflict_names_exactly_the_keys_that_moved,
        a_scan_is_in_the_order_of_the_bytes_and_pages,
        the_limits_hold_to_the_byte,
        of_many_racers_for_one_key_one_wins,
        concurrent_increments_are_all_counted,
    ];
    for part in parts {
        part(&*make());
    }
}

fn get(store: &dyn Store, key: &[u8]) -> Option<Vec<u8>> {
    store.get(key).expect("a read of a healthy store")
}

fn commit(store: &dyn Store, txn: Txn) -> Committed {
    store.commit(txn).expect("a write to a healthy store")
}

fn scan(store: &dyn Store, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Vec<u8>> {
    let pairs: Vec<Pair> = store
        .scan(prefix, after, limit)
        .expect("a scan of a healthy store");
    pairs.into_iter().map(|(key, _)| key).collect()
}

fn a_fresh_store_is_empty_and_ready(store: &dyn Store) {
    assert_eq!(store.ready(), Ok(()));
    assert_eq!(get(store, b"a"), None);
    assert_eq!(scan(store, b"", None, 10), Vec::<Vec<u8>>::new());
    assert_eq!(commit(store, Txn::default()), Committed::Yes, "empty");
}

fn what_was_put_is_there_until_it_is_deleted(store: &dyn Store) {
    // Long, empty, shorter and longer again: no rest of an earlier value may shine through.
    let long: Vec<u8> = (0..MAX_VALUE_BYTES).map(|i| (i % 251) as u8).collect();
    for length in [
        1,
        0,
        MAX_VALUE_BYTES,
        16 * 1024,
        16 * 1024 + 1,
        7,
        MAX_VALUE_BYTES,
    ] {
        let value = long[..length].to_vec();
        assert_eq!(
            commit(store, Txn::default().put("a", value.clone())),
            Committed::Yes
        );
        assert_eq!(get(store, b"a"), Some(value), "a value of {length} bytes");
    }
    assert_eq!(
        store.scan(b"", None, 10),
        Ok(vec![(b"a".to_vec(), long.clone())])
    );
    assert_eq!(commit(store, Txn::default().delete("a")), Committed::Yes);
    assert_eq!(get(store, b"a"), None);
    assert_eq!(scan(store, b"", None, 10), Vec::<Vec<u8>>::new());
    let absent = Txn::default().delete("never there");
    assert_eq!(commit(store, absent), Committed::Yes);
}

fn a_transaction_is_applied_whole_or_not_at_all(store: &dyn Store) {
    let first = Txn::default().absent("a").put("a", "1").put("b", "1");
    assert_eq!(commit(store, first), Committed::Yes);
    let refused = Txn::default()
        .equals("a", "2")
        .put("a", "3")
        .put("c", "3")
        .delete("b");
    assert_eq!(
        commit(store, refused),
        Committed::Conflict(vec![b"a".to_vec()])
    );
    assert_eq!(scan(store, b"", None, 10), [b"a", b"b"]);
    assert_eq!(get(store, b"a"), Some(b"1".to_vec()));
    let swap = Txn::default()
        .equals("a", "1")
        .absent("c")
        .put("c", "4")
        .delete("a");
    assert_eq!(commit(store, swap), Committed::Yes);
    assert_eq!(scan(store, b"", None, 10), [b"b", b"c"]);
    // A check alone is an answer as well.
    assert_eq!(
        commit(store, Txn::default().equals("c", "4")),
        Committed::Yes
    );
}

fn a_conflict_names_exactly_the_keys_that_moved(store: &dyn Store) {
    assert_eq!(
        commit(store, Txn::default().put("a", "1").put("b", "2")),
        Committed::Yes
    );
    let txn = Txn::default()
        .absent("a")
        .equals("b", "2")
        .equals("c", "3")
        .absent("d")
        .put("d", "4");
    assert_eq!(
        commit(store, txn),
        Committed::Conflict(vec![b"a".to_vec(), b"c".to_vec()])
    );
    assert_eq!(get(store, b"d"), None);
}

fn a_scan_is_in_the_order_of_the_bytes_and_pages(store: &dyn Store) {
    let keys: [&[u8]; 7] = [b"a", b"b", b"b/", b"b/\x00", b"b/1", b"b/\xff", b"c"];
    for key in keys.iter().rev() {
        assert_eq!(commit(store, Txn::default().put(*key, "x")), Committed::Yes);
    }
    assert_eq!(scan(store, b"", None, 10), keys);
    assert_eq!(scan(store, b"b/", None, 10), keys[2..6]);
    assert_eq!(scan(store, b"b/", None, 2), keys[2..4]);
    assert_eq!(scan(store, b"b/", Some(keys[3]), 2), keys[4..6]);
    assert_eq!(scan(store, b"b/", Some(b"b/0"), 10), keys[4..6], "no key");
    assert_eq!(scan(store, b"b/", Some(b"a"), 10), keys[2..6], "before");
    assert_eq!(scan(store, b"b/", Some(b"c"), 10), keys[..0], "past it");
    assert_eq!(scan(store, b"x", None, 10), keys[..0]);
    assert_eq!(scan(store, b"", None, 0), keys[..0]);

    let many: Vec<Vec<u8>> = (0..MAX_SCAN + 1)
        .map(|i| format!("many/{i:06}").into_bytes())
        .collect();
    for keys in many.chunks(MAX_OPERATIONS) {
        let txn = keys
            .iter()
            .fold(Txn::default(), |txn, key| txn.put(key.clone(), "x"));
        assert_eq!(commit(store, txn), Committed::Yes);
    }
    let page = scan(store, b"many/", None, usize::MAX);
    assert_eq!(page, many[..MAX_SCAN]);
    let rest = scan(store, b"many/", page.last().map(Vec::as_slice), usize::MAX);
    assert_eq!(rest, many[MAX_SCAN..]);
}

fn the_limits_hold_to_the_byte(store: &dyn Store) {
    let puts =
        |count: usize| (0..count).fold(Txn::default(), |txn, i| txn.put(format!("{i:03}"), "x"));
    assert_eq!(
        commit(store, puts(MAX_OPERATIONS - 1).absent("y")),
        Committed::Yes
    );
    assert_eq!(
        store.commit(puts(MAX_OPERATIONS).absent("y")),
        Err(StoreError::TooManyOperations(MAX_OPERATIONS + 1))
    );

    let longest = vec![b'k'; MAX_KEY_BYTES];
    assert_eq!(
        commit(store, Txn::default().put(longest.clone(), "x")),
        Committed::Yes
    );
    assert_eq!(get(store, &longest), Some(b"x".to_vec()));
    let too_long = vec![b'k'; MAX_KEY_BYTES + 1];
    let refused = Err(StoreError::KeyTooLong(MAX_KEY_BYTES + 1));
    assert_eq!(
        store.commit(Txn::default().put(too_long.clone(), "x")),
        refused
    );
    assert_eq!(
        store.commit(Txn::default().delete(too_long.clone())),
        refused
    );
    assert_eq!(store.commit(Txn::default().absent(too_long)), refused);
    assert_eq!(store.get(b""), Err(StoreError::EmptyKey));
    assert_eq!(
        store.commit(Txn::default().put("", "x")),
        Err(StoreError::EmptyKey)
    );

    let value = vec![0; MAX_VALUE_BYTES + 1];
    let error = StoreError::ValueTooLong {
        key: "v".to_owned(),
        bytes: MAX_VALUE_BYTES + 1,
    };
    assert_eq!(
        store.commit(Txn::default().put("v", value.clone())),
        Err(error.clone())
    );
    assert_eq!(store.commit(Txn::default().equals("v", value)), Err(error));

    let full = |last: usize| {
        let whole = (0..10).fold(Txn::default(), |txn, i| {
            txn.put(format!("{i}"), vec![1; MAX_VALUE_BYTES])
        });
        let rest = MAX_TRANSACTION_BYTES - whole.bytes() - 1;
        whole.put("l", vec![2; rest + last])
    };
    assert_eq!(commit(store, full(0)), Committed::Yes);
    assert_eq!(
        store.commit(full(1)),
        Err(StoreError::TransactionTooLong(MAX_TRANSACTION_BYTES + 1))
    );

    let twice = Txn::default().put("t", "1").delete("t");
    assert_eq!(
        store.commit(twice),
        Err(StoreError::WrittenTwice("t".to_owned()))
    );
    assert_eq!(get(store, b"t"), None);
    assert_eq!(store.ready(), Ok(()), "a refused transaction harms nothing");
}

fn of_many_racers_for_one_key_one_wins(store: &dyn Store) {
    let winners = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for racer in 0..16 {
            let winners = &winners;
            scope.spawn(move || {
                let txn = Txn::default().absent("cup").put("cup", format!("{racer}"));
                if commit(store, txn) == Committed::Yes {
                    winners.fetch_add(1, Ordering::SeqCst);
                    let cup = get(store, b"cup");
                    assert_eq!(cup, Some(format!("{racer}").into_bytes()), "own write");
                }
            });
        }
    });
    assert_eq!(winners.into_inner(), 1);
}

fn concurrent_increments_are_all_counted(store: &dyn Store) {
    const THREADS: u32 = 4;
    const EACH: u32 = 25;
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..EACH {
                    increment(store);
                }
            });
        }
    });
    assert_eq!(
        get(store, b"count"),
        Some((THREADS * EACH).to_be_bytes().to_vec())
    );
}

fn increment(store: &dyn Store) {
    loop {
        let before = get(store, b"count");
        let count = before.as_deref().map_or(0, |bytes| {
            u32::from_be_bytes(bytes.try_into().expect("four bytes were written"))
        });
        let txn = match before {
            Some(before) => Txn::default().equals("count", before),
            None => Txn::default().absent("count"),
        };
        if commit(store, txn.put("count", (count + 1).to_be_bytes())) == Committed::Yes {
            return;
        }
    }
}
