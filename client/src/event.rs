//! A recorded arbitration as the daemon gives it, and its parts in a few words.

use std::collections::HashMap;

use memcharge_dbus::read_event;
use memcharge_policy::outcome::{Event, Limit, LimitKind, Victim};
use serde_json::{Map, Value as Json};
use zbus::zvariant::OwnedValue;

use crate::{
    error::ClientError,
    json::{escape_controls, snake_case, to_json},
    output::human_size,
};

/// A recorded arbitration.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// What it says.
    pub(crate) event: Event,
    /// As it was given: a newer daemon may say more than this program knows.
    details: HashMap<String, OwnedValue>,
}

impl Recorded {
    /// Reads an event of the bus. One that lacks something is an error that names it.
    pub(crate) fn read(details: HashMap<String, OwnedValue>) -> Result<Self, ClientError> {
        Ok(Self { event: read_event(&details)?, details })
    }

    /// An object with the keys of the contract in snake_case.
    pub(crate) fn json(&self) -> Map<String, Json> {
        self.details.iter().map(|(key, value)| (snake_case(key), to_json(value))).collect()
    }
}

/// Whose limit it is, where, and which: "target /a/b memory.max".
pub(crate) fn limit_text(limit: &Limit) -> String {
    match limit.kind {
        LimitKind::Target | LimitKind::Ancestor if !limit.path.is_empty() => {
            format!("{} {} {}", limit.kind, escape_controls(&limit.path), limit.name)
        }
        _ => format!("{} {}", limit.kind, limit.name),
    }
}

/// Who asked: `python3[123]`; "-" where nothing is known.
pub(crate) fn charger_text(event: &Event) -> String {
    let charger = &event.charger;
    match (charger.comm.as_str(), charger.pid) {
        ("", 0) => "-".to_owned(),
        ("", pid) => format!("[{pid}]"),
        (comm, 0) => escape_controls(comm),
        (comm, pid) => process_text(comm, pid),
    }
}

/// Who was killed: `hog[17]`.
pub(crate) fn victim_text(victim: &Victim) -> String {
    process_text(&victim.comm, victim.pid)
}

fn process_text(comm: &str, pid: u32) -> String {
    format!("{}[{pid}]", escape_controls(comm))
}

/// What was asked for: "1.0 MiB", or the operation for metadata.
pub(crate) fn asked_text(event: &Event) -> String {
    match event.bytes_asked.0 {
        0 => event.operation.to_string(),
        bytes => human_size(bytes),
    }
}

/// How it ended, and under dry run how it would have.
pub(crate) fn outcome_text(event: &Event) -> String {
    match event.would_have {
        Some(would) => format!("{} (dry run, else {would})", event.outcome),
        None => event.outcome.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use memcharge_dbus::event_details;
    use memcharge_policy::{
        Bytes,
        outcome::{Charger, LimitName, Operation, Outcome, Reason},
    };
    use serde_json::json;
    use zbus::zvariant::Value;

    use super::*;

    /// A refused write of 1 MiB.
    pub(crate) fn event() -> Event {
        Event {
            id: "000000000000abcd0000000000000007".parse().unwrap(),
            realtime_usec: 1_735_689_600_000_000,
            mount: "models".into(),
            target: "models.slice".into(),
            outcome: Outcome::Enospc,
            reason: Reason::Policy,
            operation: Operation::Write,
            limit: Limit { kind: LimitKind::Target, path: "/models.slice".into(), name: LimitName::Max },
            bytes_asked: Bytes::mib(1),
            bytes_missing: Bytes::kib(64),
            bytes_reclaimed: Bytes(0),
            victim: None,
            charger: Charger { pid: 123, uid: 1000, comm: "python3".into(), cgroup: "/user.slice".into() },
            duration_usec: 12_300,
            repeats: 0,
            would_have: None,
        }
    }

    /// An event as it comes over the bus.
    pub(crate) fn details(event: &Event) -> HashMap<String, OwnedValue> {
        let owned = |value: Value<'static>| OwnedValue::try_from(value).unwrap();
        event_details(event).into_iter().map(|(key, value)| (key.to_owned(), owned(value))).collect()
    }

    #[test]
    fn json_has_what_was_given() {
        let mut given = details(&event());
        given.insert("NewKey".to_owned(), OwnedValue::from(true));
        let json = Recorded::read(given).unwrap().json();
        assert_eq!(json["realtime_usec"], 1_735_689_600_000_000u64);
        assert_eq!(json["id"], "000000000000abcd0000000000000007");
        assert_eq!(json["new_key"], json!(true));
        assert!(!json.contains_key("would_have"));
    }

    #[test]
    fn a_missing_key_is_named() {
        let mut given = details(&event());
        given.remove("BytesAsked");
        let error = Recorded::read(given).unwrap_err();
        assert_eq!(
            error.to_string(),
            "memcharged's answer does not hold together: the event has no key BytesAsked"
        );
    }

    #[test]
    fn parts_in_a_few_words() {
        let limit = |kind, path: &str, name| Limit { kind, path: path.into(), name };
        for (limit, text) in [
            (limit(LimitKind::Target, "/a/b", LimitName::Max), "target /a/b memory.max"),
            (limit(LimitKind::Ancestor, "/a", LimitName::High), "ancestor /a memory.high"),
            (limit(LimitKind::Mount, "", LimitName::Size), "mount size"),
            (limit(LimitKind::Machine, "", LimitName::Machine), "machine MemAvailable"),
            (limit(LimitKind::Target, "", LimitName::Unreadable), "target unreadable"),
            (limit(LimitKind::Target, "/a\nb", LimitName::Max), "target /a\\nb memory.max"),
        ] {
            assert_eq!(limit_text(&limit), text);
        }
        for (comm, pid, text) in
            [("a b", 3, "a b[3]"), ("", 3, "[3]"), ("a\u{1b}", 0, "a\\u{1b}"), ("", 0, "-")]
        {
            let charger = Charger { pid, comm: comm.into(), ..Charger::default() };
            assert_eq!(charger_text(&Event { charger, ..event() }), text);
        }
        let metadata = Event { bytes_asked: Bytes(0), operation: Operation::Make, ..event() };
        assert_eq!((asked_text(&event()).as_str(), asked_text(&metadata).as_str()), ("1.0 MiB", "make"));
        let dry = Event { would_have: Some(Outcome::GrantedAfterKill), ..event() };
        assert_eq!(outcome_text(&dry), "enospc (dry run, else granted-after-kill)");
    }
}
