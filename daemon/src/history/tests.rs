//! The history as its users see it.

use std::{fs, os::unix::fs::PermissionsExt};

use memcharge_policy::{
    Bytes,
    outcome::{Charger, Limit, LimitKind, LimitName, Operation, Outcome, Reason},
};

use super::*;

/// A refusal.
pub(super) fn event(id: u128) -> Event {
    Event {
        id: EventId(id),
        realtime_usec: 1_700_000_000_000_000,
        mount: "m".into(),
        target: "t.slice".into(),
        outcome: Outcome::Enospc,
        reason: Reason::Policy,
        operation: Operation::Write,
        limit: Limit { kind: LimitKind::Target, path: "/t.slice".into(), name: LimitName::Max },
        bytes_asked: Bytes::kib(4),
        bytes_missing: Bytes::kib(4),
        bytes_reclaimed: Bytes(0),
        victim: None,
        charger: Charger { pid: 7, uid: 1000, comm: "writer".into(), cgroup: "/w.service".into() },
        duration_usec: 1,
        repeats: 0,
        would_have: None,
    }
}

/// Who is killed.
pub(super) fn victim(pid: u32) -> Victim {
    Victim { pid, comm: "hog".into(), cgroup: "/t.slice/hog.service".into() }
}

/// All of a mount, or of all.
pub(super) fn all(mount: Option<&str>) -> Query {
    Query { mount: mount.map(str::to_owned), since_usec: None, limit: usize::MAX }
}

/// Bounds that nothing here meets.
pub(super) fn wide() -> HistorySettings {
    HistorySettings::default()
}

#[tokio::test]
async fn r32_the_history_survives_its_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("memcharge");
    let history = start(&dir, wide()).unwrap();
    assert_eq!(history.add(event(1)).await.unwrap(), Added::New(event(1)));
    assert_eq!(history.add(event(2)).await.unwrap(), Added::New(event(2)));
    history.repeats(EventId(1), 5).await;
    assert_eq!(history.add(event(1)).await.unwrap(), Added::Known, "a store tells again");
    // As after kill -9: nobody ends the first one. What was answered, and the one message before, is in the file.
    let next = start(&dir, wide()).unwrap();
    let seen = vec![Event { repeats: 5, ..event(1) }, event(2)];
    assert_eq!(next.query(all(None)).await.unwrap(), seen);
    assert_eq!(next.last("m").await.unwrap(), Some(event(2)));
    assert_eq!(next.last("other").await.unwrap(), None);
    assert_eq!(next.get("00000000000000000000000000000001").await.unwrap(), seen[0]);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join("history.jsonl"))), (0o750, 0o640));
}

#[tokio::test]
async fn a_kill_is_known_though_the_daemon_did_not_live_to_tell() {
    let dir = tempfile::tempdir().unwrap();
    let history = start(dir.path(), wide()).unwrap();
    history.intend_kill(EventId(1), victim(8)).await.unwrap();
    history.intend_kill(EventId(2), victim(9)).await.unwrap();
    let next = start(dir.path(), wide()).unwrap();
    let known = Event { victim: Some(victim(8)), ..event(1) };
    assert_eq!(next.add(event(1)).await.unwrap(), Added::New(known.clone()));
    assert!(matches!(next.intend_kill(EventId(1), victim(8)).await, Err(DaemonError::InvalidOption(_))));
    next.end().await;
    let last = Owner::load(dir.path(), Entries::new(wide()));
    assert_eq!(last.unfinished(), [EventId(2)], "until its event comes");
    assert_eq!(start(dir.path(), wide()).unwrap().last("m").await.unwrap(), Some(known));
}

#[tokio::test]
async fn r20_who_was_spared_is_no_victim_for_this_daemon_or_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let history = start(dir.path(), wide()).unwrap();
    history.intend_kill(EventId(1), victim(8)).await.unwrap();
    history.spared(EventId(1)).await;
    assert_eq!(history.add(event(1)).await.unwrap(), Added::New(event(1)), "spared, then recorded");
    history.intend_kill(EventId(2), victim(9)).await.unwrap();
    let named = Event { victim: Some(victim(9)), ..event(2) };
    assert_eq!(history.add(event(2)).await.unwrap(), Added::New(named), "nobody knows better yet");
    history.spared(EventId(2)).await;
    assert_eq!(history.last("m").await.unwrap(), Some(event(2)), "recorded, then spared");
    history.intend_kill(EventId(3), victim(10)).await.unwrap();
    history.spared(EventId(3)).await;
    history.end().await;
    assert_eq!(Owner::load(dir.path(), Entries::new(wide())).unfinished(), []);
    let next = start(dir.path(), wide()).unwrap();
    assert_eq!(next.add(event(3)).await.unwrap(), Added::New(event(3)), "spared, and recorded by the next");
    assert_eq!(next.query(all(None)).await.unwrap(), [event(1), event(2), event(3)]);
}

#[tokio::test]
async fn the_end_comes_after_what_was_given_before() {
    let dir = tempfile::tempdir().unwrap();
    let history = start(dir.path(), wide()).unwrap();
    let other = history.clone();
    history.add(event(1)).await.unwrap();
    for repeats in 1..=200 {
        history.repeats(EventId(1), repeats).await;
    }
    history.end().await;
    let text = fs::read_to_string(dir.path().join("history.jsonl")).unwrap();
    assert!(text.ends_with("\"repeats\":200}}\n"), "{text}");
    assert!(matches!(other.add(event(2)).await, Err(DaemonError::Stopping)));
    assert!(matches!(other.query(all(None)).await, Err(DaemonError::Stopping)));
    other.repeats(EventId(1), 300).await;
    other.end().await;
}
