//! What memcharged tells unasked: its signals, as one line of text or one JSON object each. Pure.

use std::collections::{BTreeMap, HashMap};

use memcharge_dbus::{
    MANAGER_INTERFACE, MOUNT_INTERFACE, TARGET_INTERFACE, mount_of_path, target_id_of_path,
};
use serde_json::{Value as Json, json};
use zbus::{
    Message,
    zvariant::{OwnedObjectPath, OwnedValue, Value},
};

use crate::{
    error::ClientError,
    event::{Recorded, asked_text, charger_text, limit_text, outcome_text, victim_text},
    json::escape_controls,
    time::utc,
};

const PROPERTIES_INTERFACE: &str = "org.freedesktop.DBus.Properties";

/// Something that has happened.
#[derive(Debug)]
pub(crate) enum Happening {
    /// An arbitration has ended.
    RemoteOom(Box<Recorded>),
    /// A mount is there now.
    MountNew {
        /// Its name.
        mount: String,
    },
    /// A mount is gone.
    MountRemoved {
        /// Its name.
        mount: String,
    },
    /// A mount is in another state.
    State {
        /// The mount's name.
        mount: String,
        /// The state.
        state: String,
        /// Why; `None`: as before, or nothing to say.
        reason: Option<String>,
    },
    /// Counters of a target's `memory.events` have grown.
    MemoryEvent {
        /// The target's cgroup id.
        target_id: u64,
        /// By how much, by the kernel's names.
        deltas: BTreeMap<String, u64>,
    },
}

impl Happening {
    /// Reads a signal; `None` for one that is not shown.
    pub(crate) fn read(message: &Message) -> Result<Option<Self>, ClientError> {
        let (header, body) = (message.header(), message.body());
        let path = header.path().map(|path| path.as_str()).unwrap_or_default();
        let interface = header.interface().map(|name| name.as_str()).unwrap_or_default();
        let member = header.member().map(|name| name.as_str()).unwrap_or_default();
        Ok(match (interface, member) {
            (MANAGER_INTERFACE, "RemoteOom") => {
                type Body = (OwnedObjectPath, String, HashMap<String, OwnedValue>);
                let (_, _, details): Body = body.deserialize()?;
                Some(Self::RemoteOom(Box::new(Recorded::read(details)?)))
            }
            (MANAGER_INTERFACE, "MountNew") => {
                let (mount, _): (String, OwnedObjectPath) = body.deserialize()?;
                Some(Self::MountNew { mount })
            }
            (MANAGER_INTERFACE, "MountRemoved") => {
                let (mount, _): (String, OwnedObjectPath) = body.deserialize()?;
                Some(Self::MountRemoved { mount })
            }
            (TARGET_INTERFACE, "MemoryEvent") => {
                let deltas = body.deserialize()?;
                target_id_of_path(path).map(|target_id| Self::MemoryEvent { target_id, deltas })
            }
            (PROPERTIES_INTERFACE, "PropertiesChanged") => {
                type Body = (String, HashMap<String, OwnedValue>, Vec<String>);
                let (changed_on, changed, _): Body = body.deserialize()?;
                if changed_on == MOUNT_INTERFACE { state_change(path, &changed) } else { None }
            }
            _ => None,
        })
    }

    /// One line without its end. `target` is the path of the target that this is about, where it is known.
    pub(crate) fn line(&self, now_usec: u64, target: Option<&str>) -> String {
        let (time, what) = match self {
            Self::RemoteOom(recorded) => (recorded.event.realtime_usec, oom_text(recorded)),
            Self::MountNew { mount } => (now_usec, format!("{mount}: new")),
            Self::MountRemoved { mount } => (now_usec, format!("{mount}: removed")),
            Self::State { mount, state, reason } => {
                let reason = reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                (now_usec, format!("{mount}: state {state}{reason}"))
            }
            Self::MemoryEvent { target_id, deltas } => {
                let target = target.map_or_else(|| format!("target {target_id}"), str::to_owned);
                let grown: Vec<String> =
                    deltas.iter().map(|(name, more)| format!("{name} +{more}")).collect();
                (now_usec, format!("{target}: memory.events {}", grown.join(", ")))
            }
        };
        format!("{} {}", utc(time), escape_controls(&what))
    }

    /// An object that says in `signal` what it is. `target` as in [`Self::line`].
    pub(crate) fn json(&self, now_usec: u64, target: Option<&str>) -> Json {
        let mut object = match self {
            Self::RemoteOom(recorded) => json!({
                "signal": "remote_oom",
                "mount": recorded.event.mount,
                "outcome": recorded.event.outcome.as_str(),
                "details": recorded.json(),
            }),
            Self::MountNew { mount } => json!({"signal": "mount_new", "mount": mount}),
            Self::MountRemoved { mount } => json!({"signal": "mount_removed", "mount": mount}),
            Self::State { mount, state, reason } => {
                json!({"signal": "state", "mount": mount, "state": state, "state_reason": reason})
            }
            Self::MemoryEvent { target_id, deltas } => {
                json!({"signal": "memory_event", "target_id": target_id, "target": target, "deltas": deltas})
            }
        };
        object["received_usec"] = Json::from(now_usec);
        object
    }
}

/// A change of a mount's state; `None` where something else has changed.
fn state_change(path: &str, changed: &HashMap<String, OwnedValue>) -> Option<Happening> {
    let text = |key: &str| match changed.get(key).map(|value| &**value) {
        Some(Value::Str(text)) => Some(text.to_string()),
        _ => None,
    };
    let mount = mount_of_path(path)?.to_string();
    let reason = text("StateReason").filter(|reason| !reason.is_empty());
    text("State").map(|state| Happening::State { mount, state, reason })
}

fn oom_text(recorded: &Recorded) -> String {
    let event = &recorded.event;
    let killed = match (&event.victim, event.would_have) {
        (Some(victim), None) => format!(", killed {}", victim_text(victim)),
        (Some(victim), Some(_)) => format!(", would have killed {}", victim_text(victim)),
        (None, _) => String::new(),
    };
    format!(
        "{}: {}, {} asked by {}, {}{killed}, event {}",
        event.mount,
        outcome_text(event),
        asked_text(event),
        charger_text(event),
        limit_text(&event.limit),
        event.id
    )
}

#[cfg(test)]
mod tests {
    use memcharge_dbus::{ROOT_PATH, event_details, mount_path, target_path};
    use memcharge_policy::outcome::{Event, Victim};
    use serde::Serialize;
    use zbus::zvariant::DynamicType;

    use super::*;
    use crate::event::tests::event;

    const NOW: u64 = 1_735_689_660_000_000;

    fn signal<B: Serialize + DynamicType>(path: &str, interface: &str, member: &str, body: &B) -> Message {
        Message::signal(path, interface, member).unwrap().build(body).unwrap()
    }

    fn read<B: Serialize + DynamicType>(
        path: &str,
        interface: &str,
        member: &str,
        body: &B,
    ) -> Option<Happening> {
        Happening::read(&signal(path, interface, member, body)).unwrap()
    }

    #[test]
    fn an_arbitration_in_one_line() {
        let mount = mount_path(&"models".parse().unwrap());
        let event =
            Event { victim: Some(Victim { pid: 17, comm: "hog".into(), cgroup: "/t".into() }), ..event() };
        let body = (&mount, event.outcome.as_str(), event_details(&event));
        let found = read(ROOT_PATH, MANAGER_INTERFACE, "RemoteOom", &body).unwrap();
        assert_eq!(
            found.line(NOW, None),
            "2025-01-01 00:00:00Z models: enospc, 1.0 MiB asked by python3[123], target /models.slice memory.max, \
             killed hog[17], event 000000000000abcd0000000000000007"
        );
        let json = found.json(NOW, None);
        assert_eq!((&json["signal"], &json["received_usec"]), (&json!("remote_oom"), &json!(NOW)));
        assert_eq!((&json["mount"], &json["details"]["victim_pid"]), (&json!("models"), &json!(17)));
    }

    #[test]
    fn mounts_come_change_and_go() {
        let mount = mount_path(&"a.b".parse().unwrap());
        let new = read(ROOT_PATH, MANAGER_INTERFACE, "MountNew", &("a.b", &mount)).unwrap();
        assert_eq!(new.line(NOW, None), "2025-01-01 00:01:00Z a.b: new");
        let gone = read(ROOT_PATH, MANAGER_INTERFACE, "MountRemoved", &("a.b", &mount)).unwrap();
        assert_eq!(
            gone.json(NOW, None),
            json!({"signal": "mount_removed", "mount": "a.b", "received_usec": NOW})
        );

        let change = |pairs: &[(&str, &str)]| {
            let changed: HashMap<&str, Value<'_>> =
                pairs.iter().map(|(key, value)| (*key, Value::from(*value))).collect();
            let body = (MOUNT_INTERFACE, changed, Vec::<String>::new());
            read(mount.as_str(), PROPERTIES_INTERFACE, "PropertiesChanged", &body)
        };
        let frozen = change(&[("State", "frozen"), ("StateReason", "the target\nis frozen")]).unwrap();
        assert_eq!(frozen.line(NOW, None), "2025-01-01 00:01:00Z a.b: state frozen (the target\\nis frozen)");
        let active = change(&[("State", "active"), ("StateReason", "")]).unwrap();
        assert_eq!(active.line(NOW, None), "2025-01-01 00:01:00Z a.b: state active");
        assert!(change(&[("OnFull", "kill")]).is_none());
    }

    #[test]
    fn counters_of_a_target() {
        let body = HashMap::from([("oom", 1u64), ("max", 3)]);
        let found = read(target_path(4711).as_str(), TARGET_INTERFACE, "MemoryEvent", &body).unwrap();
        assert_eq!(
            found.line(NOW, Some("/models.slice")),
            "2025-01-01 00:01:00Z /models.slice: memory.events max +3, oom +1"
        );
        assert_eq!(found.line(NOW, None), "2025-01-01 00:01:00Z target 4711: memory.events max +3, oom +1");
        assert_eq!(found.json(NOW, None)["target"], Json::Null);
    }

    #[test]
    fn other_signals_are_not_shown_and_broken_ones_are_errors() {
        assert!(read(ROOT_PATH, "org.freedesktop.DBus.ObjectManager", "InterfacesAdded", &()).is_none());
        assert!(read(ROOT_PATH, MANAGER_INTERFACE, "Other", &()).is_none());
        assert!(Happening::read(&signal(ROOT_PATH, MANAGER_INTERFACE, "MountNew", &1u32)).is_err());
    }
}
