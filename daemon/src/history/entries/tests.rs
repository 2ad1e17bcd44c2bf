//! The list, by tables and with anything that can come.

use std::collections::BTreeMap;

use memcharge_policy::{Bytes, outcome::Outcome};
use proptest::prelude::*;

use super::*;
use crate::history::tests::{all, event, victim, wide};

/// A list with these events.
fn with(ids: impl IntoIterator<Item = u128>) -> Entries {
    let mut entries = Entries::new(wide());
    for id in ids {
        drop(entries.add(event(id)));
    }
    entries
}

fn ids(events: &[Event]) -> Vec<u128> {
    events.iter().map(|event| event.id.0).collect()
}

fn intent(id: u128) -> Intent {
    Intent { id: EventId(id), victim: victim(8), realtime_usec: 50 }
}

#[test]
fn the_newest_that_match_are_found_the_newest_last() {
    let mut entries = Entries::new(wide());
    for (id, mount) in [(1, "a"), (2, "b"), (3, "a"), (4, "a")] {
        let realtime_usec = u64::try_from(id).unwrap();
        drop(entries.add(Event { mount: mount.into(), realtime_usec, ..event(id) }));
    }
    let query = |mount: Option<&str>, since_usec, limit| Query { since_usec, limit, ..all(mount) };
    for (query, found) in [
        (all(None), vec![1, 2, 3, 4]),
        (query(None, None, 2), vec![3, 4]),
        (query(Some("a"), None, 2), vec![3, 4]),
        (query(Some("a"), None, 3), vec![1, 3, 4]),
        (query(None, Some(3), 9), vec![3, 4]),
        (query(Some("b"), Some(3), 9), vec![]),
        (query(None, None, 0), vec![]),
    ] {
        assert_eq!(ids(&entries.query(&query)), found, "{query:?}");
    }
    assert_eq!(entries.last("b").map(|event| event.id), Some(EventId(2)));
    assert_eq!(entries.last("c"), None);
}

#[test]
fn other_bounds_hold_at_once() {
    let mut entries = with(1..=8);
    assert_eq!(entries.bound(HistorySettings { max_entries: 8, ..wide() }), Change::Unchanged);
    assert_eq!(entries.bound(HistorySettings { max_entries: 4, ..wide() }), Change::Rewrite);
    assert_eq!(ids(&entries.query(&all(None))), [6, 7, 8]);
    assert_eq!(entries.bound(wide()), Change::Unchanged);
    assert!(matches!(entries.add(event(9)), (Added::New(_), Change::Line(_))));
}

#[test]
fn an_event_is_found_by_the_start_of_its_id() {
    let entries = with([0xabcd << 112, (0xabcd << 112) + 1, 0xabce << 112, u128::MAX]);
    let tail = "0".repeat(27);
    for (prefix, found) in [
        ("abce", Ok(0xabce << 112)),
        ("ffff", Ok(u128::MAX)),
        (&format!("abcd{tail}1"), Ok((0xabcd << 112) + 1)),
        (&format!("abcd{tail}0"), Ok(0xabcd << 112)),
        (&format!("abcd{tail}"), Err("several")),
        ("abcd", Err("several")),
        ("0000", Err("no event 0000")),
        ("abc", Err("is not the id")),
        ("", Err("is not the id")),
        ("ABCE", Err("is not the id")),
        ("+abce", Err("is not the id")),
        ("äbce", Err("is not the id")),
        (&"a".repeat(33), Err("is not the id")),
    ] {
        match (entries.get(prefix), found) {
            (Ok(event), Ok(id)) => assert_eq!(event.id, EventId(id), "{prefix}"),
            (Err(DaemonError::InvalidOption(text)), Err(part)) => assert!(text.contains(part), "{text}"),
            (got, _) => panic!("{prefix}: {got:?}"),
        }
    }
}

#[test]
fn an_event_is_there_once_and_its_repeats_never_go_down() {
    let mut entries = with([1]);
    let told = |repeats| Event { repeats, ..event(1) };
    let line = |repeats| Change::Line(Line::Repeats { repeats: Repeats { id: EventId(1), repeats } });
    assert_eq!(entries.add(told(3)), (Added::Known, line(3)));
    assert_eq!(entries.add(told(2)), (Added::Known, Change::Unchanged));
    assert_eq!(entries.repeats(EventId(1), 9), line(9));
    assert_eq!(entries.repeats(EventId(1), 9), Change::Unchanged);
    assert_eq!(entries.repeats(EventId(2), 9), Change::Unchanged, "an event that is not there");
    assert_eq!(entries.query(&all(None)), [told(9)]);
}

#[test]
fn the_victim_of_an_intent_is_filled_in_where_nobody_knows_better() {
    let known = Event { victim: Some(victim(99)), ..event(1) };
    let failed = Event { reason: Reason::KillFailed, ..event(1) };
    let lost = Event { outcome: Outcome::Enospc, reason: Reason::NoDaemon, ..event(1) };
    for (told, recorded) in [
        (lost.clone(), Event { victim: Some(victim(8)), ..lost }),
        (known.clone(), known),
        (failed.clone(), failed),
    ] {
        let mut entries = Entries::new(wide());
        assert_eq!(entries.intend(intent(1)).unwrap(), Change::Line(Line::Kill { kill: intent(1) }));
        drop(entries.intend(intent(2)).unwrap());
        let (added, change) = entries.add(told);
        assert_eq!(added, Added::New(recorded.clone()));
        assert_eq!(change, Change::Line(Line::Event(Box::new(recorded))), "the file has it, too");
        assert_eq!(entries.intents().cloned().collect::<Vec<_>>(), [intent(2)]);
    }
}

#[test]
fn the_victim_of_a_kill_that_did_not_happen_is_withdrawn() {
    let spared = Change::Line(Line::Spared { spared: Spared { id: EventId(1) } });
    let mut before = with([]);
    drop(before.intend(intent(1)).unwrap());
    drop(before.intend(intent(2)).unwrap());
    assert_eq!(before.spared(EventId(1)), spared);
    assert_eq!(before.spared(EventId(1)), Change::Unchanged);
    assert_eq!(before.add(event(1)).0, Added::New(event(1)));
    assert_eq!(before.intents().cloned().collect::<Vec<_>>(), [intent(2)], "another kill is another matter");

    let mut after = with([]);
    drop(after.intend(intent(1)).unwrap());
    drop(after.add(event(1)));
    drop(after.repeats(EventId(1), 5));
    assert_eq!(after.spared(EventId(1)), spared);
    assert_eq!(after.query(&all(None)), [Event { repeats: 5, ..event(1) }]);
    assert_eq!(after.bytes, Line::Event(Box::new(Event { repeats: 5, ..event(1) })).length());
    assert_eq!(after.spared(EventId(1)), Change::Unchanged);
    assert_eq!(after.spared(EventId(3)), Change::Unchanged, "an event that is not there");
}

#[test]
fn intents_do_not_pile_up() {
    let mut entries = with([]);
    for id in 0..200 {
        drop(entries.intend(intent(id)).unwrap());
        drop(entries.intend(intent(id)).unwrap());
    }
    let left: Vec<u128> = entries.intents().map(|intent| intent.id.0).collect();
    assert_eq!(left, (200 - MAX_INTENTS as u128..200).collect::<Vec<_>>());
    entries.forget_intents(50);
    assert_eq!(entries.intents().count(), MAX_INTENTS);
    entries.forget_intents(51);
    assert_eq!(entries.intents().count(), 0);
}

#[test]
fn the_newest_event_is_kept_whatever_the_bounds() {
    let mut entries = Entries::new(HistorySettings { max_entries: 1, max_size: Bytes(1) });
    drop(entries.add(event(1)));
    assert!(!entries.dropped());
    assert_eq!(entries.add(event(2)), (Added::New(event(2)), Change::Rewrite));
    assert_eq!(entries.query(&all(None)), [event(2)]);
}

/// What can happen.
#[derive(Debug, Clone)]
enum Step {
    Add(u128, u64),
    Repeats(u128, u64),
    Intend(u128),
    Spared(u128),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u128..60, 0u64..2000).prop_map(|(id, repeats)| Step::Add(id, repeats)),
        2 => (0u128..60, 0u64..200_000).prop_map(|(id, repeats)| Step::Repeats(id, repeats)),
        1 => (0u128..60).prop_map(Step::Intend),
        1 => (0u128..60).prop_map(Step::Spared),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_bounds_are_kept_and_only_the_oldest_go(
        steps in steps(), max_entries in 1u64..40, max_size in 1u64..20_000,
    ) {
        let bounds = HistorySettings { max_entries, max_size: Bytes(max_size) };
        let mut entries = Entries::new(bounds);
        // All events that ever came, in order, with what is known of their repeats.
        let mut order: Vec<u128> = Vec::new();
        let mut known: BTreeMap<u128, u64> = BTreeMap::new();
        for step in steps {
            let before = ids(&entries.query(&all(None)));
            let change = match step {
                Step::Add(id, repeats) => {
                    let (added, change) = entries.add(Event { repeats, ..event(id) });
                    prop_assert_eq!(added == Added::Known, before.contains(&id));
                    if added == Added::Known {
                        known.entry(id).and_modify(|old| *old = (*old).max(repeats));
                    } else {
                        order.push(id);
                        known.insert(id, repeats);
                    }
                    change
                }
                Step::Repeats(id, repeats) => {
                    if before.contains(&id) {
                        known.entry(id).and_modify(|old| *old = (*old).max(repeats));
                    }
                    entries.repeats(EventId(id), repeats)
                }
                Step::Spared(id) => {
                    let change = entries.spared(EventId(id));
                    prop_assert!(entries.intents().all(|intent| intent.id.0 != id));
                    let alive = |event: &Event| event.id.0 != id || event.victim.is_none();
                    prop_assert!(entries.query(&all(None)).iter().all(alive));
                    change
                }
                Step::Intend(id) => match entries.intend(intent(id)) {
                    Ok(change) => {
                        prop_assert!(!before.contains(&id));
                        change
                    }
                    Err(_) => {
                        prop_assert!(before.contains(&id));
                        Change::Unchanged
                    }
                },
            };
            let now = entries.query(&all(None));
            prop_assert!(now.len() as u64 <= max_entries);
            prop_assert!(now.len() == 1 || entries.bytes == 0 || entries.total() <= max_size);
            prop_assert_eq!(entries.index.len(), now.len());
            let lengths: u64 = now.iter().map(|event| Line::Event(Box::new(event.clone())).length()).sum();
            prop_assert_eq!(entries.bytes, lengths);
            let newest = order.len() - now.len();
            prop_assert_eq!(ids(&now), order[newest..].to_vec(), "the newest without a gap");
            prop_assert!(now.iter().all(|event| known[&event.id.0] == event.repeats));
            let dropped = before.first().is_some_and(|oldest| !ids(&now).contains(oldest));
            prop_assert_eq!(change == Change::Rewrite, dropped, "the file follows");
        }
    }
}
