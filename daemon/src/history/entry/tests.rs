//! Entries of the journal, and the catalog that explains them.

use std::collections::BTreeMap;

use memcharge_policy::{
    Bytes,
    outcome::{Charger, Limit, LimitKind, LimitName, Reason},
};

use super::*;
use crate::history::tests::{event, victim};

const CATALOG: &str = include_str!("../../../../systemd/memcharge.catalog");

/// Reads the journal's protocol, both of its forms.
pub(in crate::history) fn decode(mut text: &[u8]) -> Vec<(String, String)> {
    let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut fields = Vec::new();
    while !text.is_empty() {
        let end = text.iter().position(|byte| *byte == b'\n').unwrap();
        let (name, rest) = (string(&text[..end]), &text[end + 1..]);
        assert!(!name.contains('='), "values go with their length");
        let (length, rest) = rest.split_at(8);
        let length = usize::try_from(u64::from_le_bytes(length.try_into().unwrap())).unwrap();
        fields.push((name, string(&rest[..length])));
        assert_eq!(rest[length], b'\n');
        text = &rest[length + 1..];
    }
    fields
}

fn fields(entry: &Entry) -> BTreeMap<String, String> {
    let fields = decode(&entry.encode());
    let count = fields.len();
    let map: BTreeMap<_, _> = fields.into_iter().collect();
    assert_eq!(map.len(), count, "no field twice");
    map
}

/// Of whom nothing is known.
fn bare(outcome: Outcome) -> Event {
    Event {
        outcome,
        limit: Limit { kind: LimitKind::Mount, path: String::new(), name: LimitName::Size },
        charger: Charger::default(),
        ..event(1)
    }
}

/// The shortest entry of each kind.
fn shortest(kind: Kind) -> Entry {
    match kind {
        Kind::Refused => Entry::of_event(&bare(Outcome::Enospc)),
        Kind::Granted => Entry::of_event(&bare(Outcome::Granted)),
        Kind::GrantedAfterKill => Entry::of_event(&bare(Outcome::GrantedAfterKill)),
        Kind::Killed => Entry::of_kill(EventId(1), "m", "t.slice", &victim(8)),
    }
}

#[test]
fn all_that_is_known_is_in_a_field() {
    let full = Event {
        outcome: Outcome::GrantedAfterKill,
        reason: Reason::Room,
        bytes_reclaimed: Bytes::kib(8),
        victim: Some(victim(8)),
        repeats: 3,
        ..event(0xff)
    };
    let fields = fields(&Entry::of_event(&full));
    let expected = [
        ("MESSAGE_ID", Kind::GrantedAfterKill.message_id()),
        ("PRIORITY", "5"),
        ("SYSLOG_IDENTIFIER", "memcharged"),
        ("MEMCHARGE_MOUNT", "m"),
        ("MEMCHARGE_TARGET", "t.slice"),
        ("MEMCHARGE_EVENT_ID", "000000000000000000000000000000ff"),
        ("MEMCHARGE_OUTCOME", "granted-after-kill"),
        ("MEMCHARGE_REASON", "room"),
        ("MEMCHARGE_OPERATION", "write"),
        ("MEMCHARGE_LIMIT_KIND", "target"),
        ("MEMCHARGE_LIMIT_NAME", "memory.max"),
        ("MEMCHARGE_LIMIT_PATH", "/t.slice"),
        ("MEMCHARGE_BYTES_ASKED", "4096"),
        ("MEMCHARGE_BYTES_MISSING", "4096"),
        ("MEMCHARGE_BYTES_RECLAIMED", "8192"),
        ("MEMCHARGE_VICTIM_PID", "8"),
        ("MEMCHARGE_VICTIM_COMM", "hog"),
        ("MEMCHARGE_VICTIM_CGROUP", "/t.slice/hog.service"),
        ("MEMCHARGE_CHARGER_PID", "7"),
        ("MEMCHARGE_CHARGER_UID", "1000"),
        ("MEMCHARGE_CHARGER_COMM", "writer"),
        ("MEMCHARGE_CHARGER_CGROUP", "/w.service"),
        ("MEMCHARGE_DURATION_USEC", "1"),
        ("MEMCHARGE_REPEATS", "3"),
    ];
    for (name, value) in expected {
        assert_eq!(fields.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(fields.len(), expected.len() + 1, "and MESSAGE: {fields:?}");
}

#[test]
fn severities() {
    for (kind, priority) in
        [(Kind::Refused, "4"), (Kind::Granted, "6"), (Kind::GrantedAfterKill, "5"), (Kind::Killed, "5")]
    {
        let entry = shortest(kind);
        assert_eq!(entry.kind, kind);
        assert_eq!(fields(&entry)["PRIORITY"], priority, "{kind:?}");
        assert_eq!(entry.must, kind.is_kill());
    }
}

#[test]
fn what_is_not_known_has_no_field() {
    let fields = fields(&shortest(Kind::Refused));
    for name in ["LIMIT_PATH", "VICTIM_PID", "CHARGER_PID", "CHARGER_COMM", "CHARGER_CGROUP", "WOULD_HAVE"] {
        assert!(!fields.contains_key(&format!("MEMCHARGE_{name}")), "{name}");
    }
}

#[test]
fn who_only_would_have_been_killed_is_no_victim() {
    let dry = Event { victim: Some(victim(8)), would_have: Some(Outcome::GrantedAfterKill), ..event(1) };
    let entry = Entry::of_event(&dry);
    assert!(!entry.must);
    let fields = fields(&entry);
    assert_eq!(fields["MEMCHARGE_WOULD_HAVE"], "granted-after-kill");
    assert!(fields["MESSAGE"].contains("hog (pid 8)"));
    assert!(!fields.keys().any(|name| name.contains("VICTIM")), "{fields:?}");
    let killed_in_vain = Event { victim: Some(victim(8)), ..event(1) };
    assert!(Entry::of_event(&killed_in_vain).must, "a process died");
}

#[test]
fn a_name_cannot_forge_a_field() {
    let mut forged = event(1);
    forged.charger.comm = "x\nPRIORITY=0\nMESSAGE_ID\n".into();
    let fields = fields(&Entry::of_event(&forged));
    assert_eq!(fields["PRIORITY"], "4");
    assert_eq!(fields["MEMCHARGE_CHARGER_COMM"], forged.charger.comm);
}

#[test]
fn suppressed_entries_are_told() {
    assert_eq!(Entry::of_event(&event(1)).and_suppressed(0), Entry::of_event(&event(1)));
    let fields = fields(&Entry::of_event(&event(1)).and_suppressed(132));
    assert_eq!(fields["MEMCHARGE_SUPPRESSED"], "132");
    assert!(fields["MESSAGE"].ends_with(" ... and 132 more since the entry before"), "{}", fields["MESSAGE"]);
}

/// The catalog's texts by id.
fn catalog() -> BTreeMap<&'static str, &'static str> {
    let (_head, texts) = CATALOG.split_once("\n-- ").unwrap();
    texts.split("\n-- ").map(|text| text.split_once('\n').unwrap()).collect()
}

#[test]
fn the_catalog_explains_every_kind_and_no_other() {
    let mut ids: Vec<_> = Kind::ALL.into_iter().map(Kind::message_id).collect();
    assert!(ids.iter().all(|id| id.len() == 32 && id.parse::<EventId>().is_ok()), "{ids:?}");
    ids.sort_unstable();
    assert_eq!(catalog().into_keys().collect::<Vec<_>>(), ids);
    for (id, text) in catalog() {
        let (head, body) = text.split_once("\n\n").unwrap();
        for key in ["Subject: ", "Defined-By: memcharge", "Support: ", "Documentation: man:memchargectl(1)"] {
            assert!(head.lines().any(|line| line.starts_with(key)), "{id}: {key}");
        }
        assert!(body.contains("memchargectl"), "{id}: what to do");
    }
}

#[test]
fn the_catalog_names_only_fields_that_every_entry_has() {
    for kind in Kind::ALL {
        let fields = fields(&shortest(kind));
        let text = catalog()[kind.message_id()];
        let named: Vec<_> = text.split('@').skip(1).step_by(2).collect();
        assert!(!named.is_empty());
        for name in named {
            assert!(fields.contains_key(name), "{kind:?}: {name:?}");
        }
    }
}
