//! A recorded arbitration as it crosses the bus: `a{sv}`, in `GetHistory`, `GetEvent`, `LastOutcome` and the signals.

use std::{collections::HashMap, str::FromStr};

use memcharge_policy::{
    Bytes, PolicyError,
    outcome::{Charger, Event, Limit, Victim},
};
use zbus::zvariant::{OwnedValue, Value};

/// The keys of an event and their types, in the order of the contract.
pub const EVENT_KEYS: [(&str, &str); 23] = [
    ("Id", "s"),
    ("RealtimeUSec", "t"),
    ("Mount", "s"),
    ("Target", "s"),
    ("Outcome", "s"),
    ("Reason", "s"),
    ("Operation", "s"),
    ("LimitKind", "s"),
    ("LimitPath", "s"),
    ("LimitName", "s"),
    ("BytesAsked", "t"),
    ("BytesMissing", "t"),
    ("BytesReclaimed", "t"),
    ("VictimPid", "u"),
    ("VictimComm", "s"),
    ("VictimCgroup", "s"),
    ("ChargerPid", "u"),
    ("ChargerUid", "u"),
    ("ChargerComm", "s"),
    ("ChargerCgroup", "s"),
    ("DurationUSec", "t"),
    ("Repeats", "t"),
    ("WouldHave", "s"),
];

/// The one key that an event may lack.
const WOULD_HAVE: &str = "WouldHave";

/// Why a dictionary is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A key is not there.
    #[error("the event has no key {0}")]
    Missing(&'static str),
    /// A value is of another type.
    #[error("the event's {key} is of the D-Bus type `{found}`, not `{wanted}`")]
    Type {
        /// The key.
        key: &'static str,
        /// The type that was found.
        found: String,
        /// The type of the contract.
        wanted: &'static str,
    },
    /// A value is of the right type and means nothing here.
    #[error("the event's {key}: {source}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        source: PolicyError,
    },
}

/// An event as a dictionary: every key of the contract, `WouldHave` only where there is something to say.
pub fn event_details(event: &Event) -> HashMap<&'static str, Value<'static>> {
    let word = |word: &'static str| Value::from(word);
    let text = |text: &str| Value::from(text.to_owned());
    let victim = event.victim.as_ref();
    let mut details = HashMap::from([
        ("Id", Value::from(event.id.to_string())),
        ("RealtimeUSec", event.realtime_usec.into()),
        ("Mount", text(&event.mount)),
        ("Target", text(&event.target)),
        ("Outcome", word(event.outcome.as_str())),
        ("Reason", word(event.reason.as_str())),
        ("Operation", word(event.operation.as_str())),
        ("LimitKind", word(event.limit.kind.as_str())),
        ("LimitPath", text(&event.limit.path)),
        ("LimitName", word(event.limit.name.as_str())),
        ("BytesAsked", event.bytes_asked.0.into()),
        ("BytesMissing", event.bytes_missing.0.into()),
        ("BytesReclaimed", event.bytes_reclaimed.0.into()),
        ("VictimPid", victim.map_or(0, |victim| victim.pid).into()),
        ("VictimComm", text(victim.map_or("", |victim| &victim.comm))),
        ("VictimCgroup", text(victim.map_or("", |victim| &victim.cgroup))),
        ("ChargerPid", event.charger.pid.into()),
        ("ChargerUid", event.charger.uid.into()),
        ("ChargerComm", text(&event.charger.comm)),
        ("ChargerCgroup", text(&event.charger.cgroup)),
        ("DurationUSec", event.duration_usec.into()),
        ("Repeats", event.repeats.into()),
    ]);
    if let Some(outcome) = event.would_have {
        details.insert(WOULD_HAVE, word(outcome.as_str()));
    }
    details
}

/// Reads an event. Keys that are not of the contract are left alone: a newer daemon may have more.
pub fn read_event(details: &HashMap<String, OwnedValue>) -> Result<Event, WireError> {
    let read = Reader(details);
    let victim = Victim {
        pid: read.number32("VictimPid")?,
        comm: read.text("VictimComm")?,
        cgroup: read.text("VictimCgroup")?,
    };
    Ok(Event {
        id: read.parsed("Id")?,
        realtime_usec: read.number("RealtimeUSec")?,
        mount: read.text("Mount")?,
        target: read.text("Target")?,
        outcome: read.parsed("Outcome")?,
        reason: read.parsed("Reason")?,
        operation: read.parsed("Operation")?,
        limit: Limit {
            kind: read.parsed("LimitKind")?,
            path: read.text("LimitPath")?,
            name: read.parsed("LimitName")?,
        },
        bytes_asked: read.bytes("BytesAsked")?,
        bytes_missing: read.bytes("BytesMissing")?,
        bytes_reclaimed: read.bytes("BytesReclaimed")?,
        victim: (victim.pid != 0).then_some(victim),
        charger: Charger {
            pid: read.number32("ChargerPid")?,
            uid: read.number32("ChargerUid")?,
            comm: read.text("ChargerComm")?,
            cgroup: read.text("ChargerCgroup")?,
        },
        duration_usec: read.number("DurationUSec")?,
        repeats: read.number("Repeats")?,
        would_have: details.contains_key(WOULD_HAVE).then(|| read.parsed(WOULD_HAVE)).transpose()?,
    })
}

struct Reader<'a>(&'a HashMap<String, OwnedValue>);

impl Reader<'_> {
    fn value(&self, key: &'static str) -> Result<&Value<'_>, WireError> {
        self.0.get(key).map(|value| &**value).ok_or(WireError::Missing(key))
    }

    fn text(&self, key: &'static str) -> Result<String, WireError> {
        match self.value(key)? {
            Value::Str(text) => Ok(text.to_string()),
            other => Err(wrong_type(key, other, "s")),
        }
    }

    fn number(&self, key: &'static str) -> Result<u64, WireError> {
        match self.value(key)? {
            Value::U64(number) => Ok(*number),
            other => Err(wrong_type(key, other, "t")),
        }
    }

    fn number32(&self, key: &'static str) -> Result<u32, WireError> {
        match self.value(key)? {
            Value::U32(number) => Ok(*number),
            other => Err(wrong_type(key, other, "u")),
        }
    }

    fn bytes(&self, key: &'static str) -> Result<Bytes, WireError> {
        self.number(key).map(Bytes)
    }

    fn parsed<T: FromStr<Err = PolicyError>>(&self, key: &'static str) -> Result<T, WireError> {
        self.text(key)?.parse().map_err(|source| WireError::Value { key, source })
    }
}

fn wrong_type(key: &'static str, found: &Value<'_>, wanted: &'static str) -> WireError {
    WireError::Type { key, found: found.value_signature().to_string(), wanted }
}

#[cfg(test)]
mod tests {
    use memcharge_policy::outcome::{LimitKind, LimitName, Operation, Outcome, Reason};

    use super::*;

    fn event() -> Event {
        Event {
            id: "000000000000abcd0000000000000007".parse().unwrap(),
            realtime_usec: 1_700_000_000_000_000,
            mount: "models".into(),
            target: "models.slice".into(),
            outcome: Outcome::GrantedAfterKill,
            reason: Reason::Room,
            operation: Operation::Write,
            limit: Limit { kind: LimitKind::Ancestor, path: "/a".into(), name: LimitName::High },
            bytes_asked: Bytes::mib(1),
            bytes_missing: Bytes::kib(64),
            bytes_reclaimed: Bytes(4096),
            victim: Some(Victim { pid: 17, comm: "hog".into(), cgroup: "/a/b".into() }),
            charger: Charger { pid: 4, uid: 1000, comm: "dd".into(), cgroup: "/user.slice".into() },
            duration_usec: 1234,
            repeats: u64::MAX,
            would_have: Some(Outcome::Enospc),
        }
    }

    fn crossed(event: &Event) -> HashMap<String, OwnedValue> {
        let owned = |value: Value<'static>| OwnedValue::try_from(value).unwrap();
        event_details(event).into_iter().map(|(key, value)| (key.to_owned(), owned(value))).collect()
    }

    #[test]
    fn an_event_is_read_back() {
        assert_eq!(read_event(&crossed(&event())), Ok(event()));
        let bare = Event { victim: None, would_have: None, ..event() };
        assert_eq!(read_event(&crossed(&bare)), Ok(bare));
    }

    #[test]
    fn the_dictionary_has_the_keys_and_types_of_the_contract() {
        let details = event_details(&event());
        assert_eq!(details.len(), EVENT_KEYS.len());
        for (key, ty) in EVENT_KEYS {
            assert_eq!(details[key].value_signature().to_string(), ty, "{key}");
        }
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_named() {
        for (key, ty) in EVENT_KEYS {
            let mut details = crossed(&event());
            details.insert(key.to_owned(), OwnedValue::from(true));
            let wrong = WireError::Type { key, found: "b".into(), wanted: ty };
            assert_eq!(read_event(&details), Err(wrong));
            details.remove(key);
            if key != WOULD_HAVE {
                assert_eq!(read_event(&details), Err(WireError::Missing(key)));
            }
        }
    }

    #[test]
    fn a_word_that_is_none_is_named_with_its_key() {
        for key in ["Id", "Outcome", "Reason", "Operation", "LimitKind", "LimitName", "WouldHave"] {
            let mut details = crossed(&event());
            details.insert(key.to_owned(), OwnedValue::try_from(Value::from("lost")).unwrap());
            let error = read_event(&details).unwrap_err();
            assert!(error.to_string().starts_with(&format!("the event's {key}: `lost` is not")), "{error}");
        }
    }

    #[test]
    fn a_key_of_a_newer_daemon_is_left_alone() {
        let mut details = crossed(&event());
        details.insert("Mood".to_owned(), OwnedValue::from(true));
        assert_eq!(read_event(&details), Ok(event()));
    }
}
