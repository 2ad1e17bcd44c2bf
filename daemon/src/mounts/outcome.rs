//! From what a store reports to what is recorded. Pure.

use memcharge_policy::{
    link::{Asked, MountRecord, Report},
    mountinfo::is_within,
    outcome::{Charger, Event, Limit, LimitKind, LimitName, Outcome, Victim},
};

/// What is known of an arbitration beside the store's report.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// Who asked, as long as that could be read.
    pub(super) charger: Charger,
    /// Who was killed for it, or under `--dry-run` would have been.
    pub(super) victim: Option<Victim>,
    /// Under `--dry-run`: how it would have ended.
    pub(super) would_have: Option<Outcome>,
}

/// The event of a report.
pub(super) fn event(record: &MountRecord, report: Report, known: Known) -> Event {
    let Report { id, realtime_usec, outcome, reason, what, duration_usec, repeats, charger: _ } = report;
    Event {
        id,
        realtime_usec,
        mount: record.policy.name.to_string(),
        target: record.policy.target.to_string(),
        outcome,
        reason,
        operation: what.operation,
        limit: limit(record, &what),
        bytes_asked: what.bytes,
        bytes_missing: what.missing,
        bytes_reclaimed: what.reclaimed,
        victim: known.victim,
        charger: known.charger,
        duration_usec,
        repeats,
        would_have: known.would_have,
    }
}

/// Whose limit it is. A cgroup below the target is the store's own.
fn limit(record: &MountRecord, what: &Asked) -> Limit {
    let kind = match what.limit {
        LimitName::Size | LimitName::Inodes => LimitKind::Mount,
        LimitName::Machine => LimitKind::Machine,
        LimitName::Max | LimitName::High | LimitName::Unreadable => {
            if is_within(&what.limit_path, &record.target_path) {
                LimitKind::Target
            } else {
                LimitKind::Ancestor
            }
        }
    };
    Limit { kind, path: what.limit_path.clone(), name: what.limit }
}

#[cfg(test)]
mod tests {
    use memcharge_policy::{
        Bytes, MountPolicy, Target,
        outcome::{EventId, Operation, Reason},
    };

    use super::*;

    fn record() -> MountRecord {
        MountRecord {
            policy: MountPolicy::new("m".parse().unwrap(), "/run/m".into(), Target::Path("/a/t".into())),
            cap: None,
            mount_id: 1,
            attached: true,
            mounted_on: "/run/m".into(),
            made_directories: Vec::new(),
            leaf: "/a/t/memcharge-m".into(),
            made_leaf: true,
            target_path: "/a/t".into(),
            target_id: 7,
            slot: 1,
            base: None,
            generation: 0,
            made_usec: 0,
            recovering: false,
            moving: false,
            previous: memcharge_policy::link::Previous::default(),
            fragment: String::new(),
            owner: 0,
        }
    }

    #[test]
    fn r17_r19_the_limit_that_was_hit_is_told_apart() {
        for (limit, path, kind) in [
            (LimitName::Size, "", LimitKind::Mount),
            (LimitName::Inodes, "", LimitKind::Mount),
            (LimitName::Machine, "", LimitKind::Machine),
            (LimitName::Max, "/a/t", LimitKind::Target),
            (LimitName::Max, "/a/t/memcharge-m", LimitKind::Target),
            (LimitName::High, "/a", LimitKind::Ancestor),
            (LimitName::Unreadable, "/a/t/memcharge-m", LimitKind::Target),
        ] {
            let report = Report {
                id: EventId(1),
                realtime_usec: 5,
                outcome: Outcome::Enospc,
                reason: Reason::Policy,
                what: Asked {
                    operation: Operation::Write,
                    bytes: Bytes(4096),
                    missing: Bytes(4096),
                    reclaimed: Bytes(0),
                    limit,
                    limit_path: path.into(),
                    tid: 1,
                    uid: 2,
                },
                duration_usec: 3,
                repeats: 0,
                charger: None,
            };
            let event = event(&record(), report, Known::default());
            assert_eq!((event.limit.kind, event.limit.path.as_str(), event.limit.name), (kind, path, limit));
            assert_eq!((event.mount.as_str(), event.target.as_str()), ("m", "/a/t"));
        }
    }
}
