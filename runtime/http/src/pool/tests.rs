use super::*;

/// A table of connections, each from a source, in a phase, of no use for so many seconds, with a document of such an
/// address; and the present.
fn table(entries: &[(u8, Phase, u64, Option<usize>)]) -> (Table, Instant) {
    let begun = Instant::now();
    let now = begun + Duration::from_secs(1000);
    let mut table = Table::default();
    for (id, (source, phase, idle, document)) in (0..).zip(entries) {
        let then = now - Duration::from_secs(*idle);
        let entry = Entry {
            source: Some([192, 0, 2, *source].into()),
            phase: *phase,
            since: then,
            progress: then,
            document: document.map(|place| (place, 10)),
            closing: false,
            close: Arc::default(),
        };
        table.entries.insert(id, entry);
    }
    (table, now)
}

#[test]
fn expired_by_phase() {
    let limits = Limits::new(8);
    for (phase, limit) in
        [(Phase::Opening, 10), (Phase::Answering, 30), (Phase::Writing, 10), (Phase::Kept, 90)]
    {
        let (table, now) = table(&[(1, phase, limit - 1, None), (1, phase, limit, None)]);
        assert_eq!(table.expired(now, &limits), [1], "{phase:?}");
    }
}

#[test]
fn exchange_with_progress_expires_in_the_end() {
    let limits = Limits::new(8);
    let (mut table, now) = table(&[(1, Phase::Writing, 0, None), (1, Phase::Writing, 0, None)]);
    table.entries.get_mut(&1).unwrap().since = now - limits.exchange;
    assert_eq!(table.expired(now, &limits), [1]);
}

#[test]
fn victim_is_the_least_useful() {
    let limits = Limits::new(100);
    for (entries, victim) in [
        (&[(1, Phase::Opening, 1), (2, Phase::Opening, 9), (3, Phase::Kept, 5)][..], 1),
        (&[(1, Phase::Writing, 3), (2, Phase::Opening, 2)], 0),
        (&[(1, Phase::Answering, 9), (2, Phase::Opening, 0)], 1),
        (&[(1, Phase::Answering, 4), (2, Phase::Answering, 5)], 1),
    ] {
        let entries: Vec<_> =
            entries.iter().map(|(source, phase, idle)| (*source, *phase, *idle, None)).collect();
        assert_eq!(table(&entries).0.victim(&limits), Some(victim), "{entries:?}");
    }
    assert_eq!(table(&[]).0.victim(&limits), None);
}

#[test]
fn victim_is_of_the_client_with_most_places() {
    let mut entries = vec![(1, Phase::Kept, 80, None)];
    entries.extend((0..3).map(|idle| (2, Phase::Opening, idle, None)));
    let limits = Limits::new(8);
    assert_eq!(table(&entries).0.victim(&limits), Some(3));
    // With a quarter of the places it is one like others.
    assert_eq!(table(&entries[..3]).0.victim(&limits), Some(0));
}

#[test]
fn one_that_is_closing_is_not_chosen_again() {
    let limits = Limits::new(8);
    let (mut table, now) =
        table(&[(1, Phase::Opening, 50, Some(1)), (1, Phase::Opening, 40, None)]);
    table.close(&[0]);
    assert_eq!((table.victim(&limits), table.expired(now, &limits)), (Some(1), vec![1]));
    let tight = Limits { documents: 0, ..limits };
    assert!(table.holders_of_others((2, 10), &tight).is_empty());
}

#[test]
fn oldest_readers_of_other_documents_go_when_there_are_too_many() {
    let limits = Limits { documents: 30, ..Limits::new(8) };
    let reader = |idle, place| (1, Phase::Writing, idle, Some(place));
    let readers = [reader(9, 1), reader(8, 2), reader(7, 1), reader(6, 3), reader(5, 4)];
    let (table, _) = table(&readers);
    // 1 and 2 go: 3, 4 and the new one are as much as there may be.
    assert_eq!(table.holders_of_others((5, 10), &limits), [0, 1, 2]);
    // Readers of the same document as the new one stay.
    assert_eq!(table.holders_of_others((1, 10), &limits), [1]);
    let wide = Limits { documents: 50, ..limits };
    assert!(table.holders_of_others((5, 10), &wide).is_empty());
    // One document is never too many.
    assert_eq!(table.holders_of_others((5, 100), &limits), [0, 1, 2, 3, 4]);
}

#[test]
fn addresses_of_one_client_are_one_source() {
    let parse = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(network(parse("2001:db8::1")), network(parse("2001:db8::2:3")));
    assert_ne!(network(parse("2001:db8::1")), network(parse("2001:db8:0:1::1")));
    assert_eq!(network(parse("::ffff:192.0.2.1")), parse("192.0.2.1"));
    assert_ne!(network(parse("192.0.2.1")), network(parse("192.0.2.2")));
}
