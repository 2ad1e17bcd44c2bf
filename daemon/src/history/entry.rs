//! What goes to the journal about an arbitration, and how it is written for it. Pure.

use memcharge_policy::outcome::{Event, EventId, Outcome, Victim};

use super::wording;

/// The name that `journalctl -t` knows.
const IDENTIFIER: &str = "memcharged";

/// What kind of entry this is; `systemd/memcharge.catalog` explains each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A charger got ENOSPC.
    Refused,
    /// A charger got its memory, with luck or after reclaim.
    Granted,
    /// A charger got its memory, and a process died for it.
    GrantedAfterKill,
    /// A process was killed.
    Killed,
}

impl Kind {
    /// All of them.
    #[cfg(test)]
    pub(super) const ALL: [Self; 4] = [Self::Refused, Self::Granted, Self::GrantedAfterKill, Self::Killed];

    /// The `MESSAGE_ID`. Others look for these: they never change.
    pub(super) fn message_id(self) -> &'static str {
        match self {
            Self::Refused => "b93779109b0645b98b7c60375fd66e8d",
            Self::Granted => "7154e9c5ae2b457ca7450adb95d976e6",
            Self::GrantedAfterKill => "7a9796f79ce5494bb7374d06e48663a8",
            Self::Killed => "c1d283b6c7ec4af7b070e4aaeb29b7ff",
        }
    }

    /// The severity, by the numbers of syslog(3).
    fn priority(self) -> u8 {
        match self {
            Self::Refused => 4,
            Self::GrantedAfterKill | Self::Killed => 5,
            Self::Granted => 6,
        }
    }

    /// Whether a process died.
    pub(super) fn is_kill(self) -> bool {
        matches!(self, Self::GrantedAfterKill | Self::Killed)
    }

    fn of(event: &Event) -> Self {
        match event.outcome {
            Outcome::Enospc | Outcome::EnospcTimeout => Self::Refused,
            Outcome::Granted | Outcome::GrantedAfterReclaim => Self::Granted,
            Outcome::GrantedAfterKill => Self::GrantedAfterKill,
        }
    }
}

/// An entry. What is not known has no field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its kind.
    pub(super) kind: Kind,
    /// The event that it is about.
    pub(super) id: EventId,
    /// The mount.
    pub(super) mount: String,
    /// One sentence.
    pub(super) message: String,
    /// The fields of its own.
    pub(super) fields: Vec<(&'static str, String)>,
    /// Whether a process was killed for it: then it goes out in any case.
    pub(super) must: bool,
}

impl Entry {
    /// The entry for an event.
    pub(super) fn of_event(event: &Event) -> Self {
        let kind = Kind::of(event);
        let mut fields = vec![
            ("MEMCHARGE_MOUNT", event.mount.clone()),
            ("MEMCHARGE_TARGET", event.target.clone()),
            ("MEMCHARGE_EVENT_ID", event.id.to_string()),
            ("MEMCHARGE_OUTCOME", event.outcome.to_string()),
            ("MEMCHARGE_REASON", event.reason.to_string()),
            ("MEMCHARGE_OPERATION", event.operation.to_string()),
            ("MEMCHARGE_LIMIT_KIND", event.limit.kind.to_string()),
            ("MEMCHARGE_LIMIT_NAME", event.limit.name.to_string()),
            ("MEMCHARGE_LIMIT_PATH", event.limit.path.clone()),
            ("MEMCHARGE_BYTES_ASKED", event.bytes_asked.0.to_string()),
            ("MEMCHARGE_BYTES_MISSING", event.bytes_missing.0.to_string()),
            ("MEMCHARGE_BYTES_RECLAIMED", event.bytes_reclaimed.0.to_string()),
            ("MEMCHARGE_DURATION_USEC", event.duration_usec.to_string()),
            ("MEMCHARGE_REPEATS", event.repeats.to_string()),
            ("MEMCHARGE_CHARGER_UID", event.charger.uid.to_string()),
            ("MEMCHARGE_CHARGER_COMM", event.charger.comm.clone()),
            ("MEMCHARGE_CHARGER_CGROUP", event.charger.cgroup.clone()),
        ];
        if event.charger.pid != 0 {
            fields.push(("MEMCHARGE_CHARGER_PID", event.charger.pid.to_string()));
        }
        // Who would have been killed is in the sentence only: a process of these fields is dead.
        let killed = event.victim.as_ref().filter(|_| event.would_have.is_none());
        match event.would_have {
            Some(outcome) => fields.push(("MEMCHARGE_WOULD_HAVE", outcome.to_string())),
            None => fields.extend(killed.into_iter().flat_map(victim_fields)),
        }
        fields.retain(|(_, value)| !value.is_empty());
        Self {
            kind,
            id: event.id,
            mount: event.mount.clone(),
            message: wording::sentence(event),
            fields,
            must: kind.is_kill() || killed.is_some(),
        }
    }

    /// The entry for a kill that has just happened.
    pub(super) fn of_kill(id: EventId, mount: &str, target: &str, victim: &Victim) -> Self {
        let mut fields = vec![
            ("MEMCHARGE_MOUNT", mount.to_owned()),
            ("MEMCHARGE_TARGET", target.to_owned()),
            ("MEMCHARGE_EVENT_ID", id.to_string()),
        ];
        fields.extend(victim_fields(victim));
        Self {
            kind: Kind::Killed,
            id,
            mount: mount.to_owned(),
            message: wording::kill(mount, target, victim),
            fields,
            must: true,
        }
    }

    /// The same, told together with so many others that were not.
    pub(super) fn and_suppressed(mut self, suppressed: u64) -> Self {
        if suppressed > 0 {
            self.message.push_str(&format!(" ... and {suppressed} more since the entry before"));
            self.fields.push(("MEMCHARGE_SUPPRESSED", suppressed.to_string()));
        }
        self
    }

    /// The entry in the journal's own protocol.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut text = Vec::new();
        put(&mut text, "MESSAGE", &self.message);
        put(&mut text, "MESSAGE_ID", self.kind.message_id());
        put(&mut text, "PRIORITY", &self.kind.priority().to_string());
        put(&mut text, "SYSLOG_IDENTIFIER", IDENTIFIER);
        for (name, value) in &self.fields {
            put(&mut text, name, value);
        }
        text
    }
}

fn victim_fields(victim: &Victim) -> [(&'static str, String); 3] {
    [
        ("MEMCHARGE_VICTIM_PID", victim.pid.to_string()),
        ("MEMCHARGE_VICTIM_COMM", victim.comm.clone()),
        ("MEMCHARGE_VICTIM_CGROUP", victim.cgroup.clone()),
    ]
}

/// Every value goes with its length: a process chooses its name itself, and a line end in it must not forge a field.
fn put(text: &mut Vec<u8>, name: &str, value: &str) {
    text.extend_from_slice(name.as_bytes());
    text.push(b'\n');
    text.extend_from_slice(&(value.len() as u64).to_le_bytes());
    text.extend_from_slice(value.as_bytes());
    text.push(b'\n');
}

#[cfg(test)]
pub(super) mod tests;
