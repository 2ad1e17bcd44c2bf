//! An arbitration in one plain sentence. Pure.

use memcharge_policy::outcome::{Charger, Event, LimitName, Operation, Outcome, Reason, Victim};

/// What an event is about.
pub(super) fn sentence(event: &Event) -> String {
    let (mount, who, what) = (&event.mount, who(&event.charger), what(event));
    let (cause, target) = (cause(event), &event.target);
    let text = match event.outcome {
        Outcome::Enospc | Outcome::EnospcTimeout => match because(event) {
            Some(why) => format!("{who} got ENOSPC for {what}: {cause}, and {why}"),
            None => format!("{who} got ENOSPC for {what}: {cause}"),
        },
        Outcome::Granted => {
            format!("{who} got {what}: {cause}, but there was room when it was looked at again")
        }
        Outcome::GrantedAfterReclaim => {
            format!("{who} got {what}: {cause}, and {} of cache of {target} gave way", event.bytes_reclaimed)
        }
        Outcome::GrantedAfterKill => match &event.victim {
            Some(victim) => format!("{who} got {what}: {cause}, and {} was killed", name(victim)),
            None => format!("{who} got {what}: {cause}, and a process of {target} was killed"),
        },
    };
    let would_have = match (event.would_have, &event.victim) {
        (Some(outcome), Some(victim)) => {
            format!("; without --dry-run: {outcome}, with {} killed", name(victim))
        }
        (Some(outcome), None) => format!("; without --dry-run: {outcome}"),
        (None, _) => String::new(),
    };
    clean(&format!("mount {mount}: {text}{would_have}"))
}

/// A kill that has just happened.
pub(super) fn kill(mount: &str, target: &str, victim: &Victim) -> String {
    clean(&format!("mount {mount}: killed {}, to make room in {target}", name(victim)))
}

/// The text without line ends and the like: a process chooses its name itself, and must not forge lines of a log.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn name(victim: &Victim) -> String {
    format!("{} (pid {}) of {}", victim.comm, victim.pid, victim.cgroup)
}

fn who(charger: &Charger) -> String {
    let Charger { pid, uid, comm, .. } = charger;
    match (comm.as_str(), pid) {
        ("", 0) => format!("a process of uid {uid}"),
        ("", pid) => format!("the process {pid} of uid {uid}"),
        (comm, 0) => comm.to_owned(),
        (comm, pid) => format!("{comm} (pid {pid})"),
    }
}

fn what(event: &Event) -> String {
    let bytes = event.bytes_asked;
    match event.operation {
        Operation::Write => format!("a write that needs {bytes}"),
        Operation::Truncate => format!("a truncate that needs {bytes}"),
        Operation::Fallocate => format!("an fallocate that needs {bytes}"),
        Operation::Copy => format!("a copy that needs {bytes}"),
        Operation::Make => "a new name".to_owned(),
        Operation::Change => "a change of an attribute".to_owned(),
        Operation::Look => "finding a name".to_owned(),
    }
}

fn cause(event: &Event) -> String {
    let limit = &event.limit;
    match limit.name {
        LimitName::Size => "the mount's size was used up".to_owned(),
        LimitName::Inodes => "the mount's inodes were used up".to_owned(),
        LimitName::Max | LimitName::High => format!("{} of {} was reached", limit.name, limit.path),
        LimitName::Machine => "the machine was short of memory".to_owned(),
        LimitName::Unreadable => format!("the target {} could not be read", event.target),
    }
}

/// Why a refusal was not averted, where the limit does not say it already.
fn because(event: &Event) -> Option<String> {
    let why = match event.reason {
        Reason::Room | Reason::Cap | Reason::Machine | Reason::TargetLost => return None,
        Reason::Policy => "the policy is to kill nobody",
        Reason::Metadata => "nobody is killed for a name",
        Reason::Cooldown => "the last kill was too short a time ago",
        Reason::NoVictim => "no process may be killed whose death would free enough",
        Reason::KillFailed => "the kill did not work",
        Reason::NotFreed => {
            return Some(match &event.victim {
                Some(victim) => format!("{} was killed, which did not free enough in time", name(victim)),
                None => "a kill did not free enough in time".to_owned(),
            });
        }
        Reason::Deadline => "the deadline passed",
        Reason::NoDaemon => "memcharged was not there to be asked",
        Reason::Busy => "as many requests as may wait were waiting already",
        Reason::Taken => "others took what had been freed",
    };
    Some(why.to_owned())
}

#[cfg(test)]
mod tests {
    use memcharge_policy::{
        Bytes,
        outcome::{Limit, LimitKind},
    };

    use super::*;
    use crate::history::tests::{event, victim};

    #[test]
    fn outcomes_are_told_in_a_sentence() {
        let granted = |outcome, reason| Event { outcome, reason, ..event(1) };
        let killed = |outcome, reason| Event { victim: Some(victim(8)), ..granted(outcome, reason) };
        let start = "mount m: writer (pid 7)";
        let max = "a write that needs 4K: memory.max of /t.slice was reached";
        for (event, sentence) in [
            (event(1), format!("{start} got ENOSPC for {max}, and the policy is to kill nobody")),
            (
                granted(Outcome::Granted, Reason::Room),
                format!("{start} got {max}, but there was room when it was looked at again"),
            ),
            (
                Event {
                    bytes_reclaimed: Bytes::mib(1),
                    ..granted(Outcome::GrantedAfterReclaim, Reason::Room)
                },
                format!("{start} got {max}, and 1M of cache of t.slice gave way"),
            ),
            (
                killed(Outcome::GrantedAfterKill, Reason::Room),
                format!("{start} got {max}, and hog (pid 8) of /t.slice/hog.service was killed"),
            ),
            (
                killed(Outcome::EnospcTimeout, Reason::NotFreed),
                format!(
                    "{start} got ENOSPC for {max}, and hog (pid 8) of /t.slice/hog.service was killed, which did not free enough in time"
                ),
            ),
            (
                Event {
                    would_have: Some(Outcome::GrantedAfterKill),
                    ..killed(Outcome::Enospc, Reason::NoVictim)
                },
                format!(
                    "{start} got ENOSPC for {max}, and no process may be killed whose death would free enough; \
                     without --dry-run: granted-after-kill, with hog (pid 8) of /t.slice/hog.service killed"
                ),
            ),
        ] {
            assert_eq!(super::sentence(&event), sentence);
        }
        assert_eq!(
            kill("m", "t.slice", &victim(8)),
            "mount m: killed hog (pid 8) of /t.slice/hog.service, to make room in t.slice"
        );
    }

    #[test]
    fn every_limit_is_told_from_the_others() {
        let limit = |kind, path: &str, name| Event {
            limit: Limit { kind, path: path.into(), name },
            reason: Reason::Cap,
            ..event(1)
        };
        for (event, end) in [
            (limit(LimitKind::Mount, "", LimitName::Size), ": the mount's size was used up"),
            (limit(LimitKind::Mount, "", LimitName::Inodes), ": the mount's inodes were used up"),
            (limit(LimitKind::Ancestor, "/a", LimitName::High), ": memory.high of /a was reached"),
            (limit(LimitKind::Machine, "", LimitName::Machine), ": the machine was short of memory"),
            (limit(LimitKind::Target, "", LimitName::Unreadable), ": the target t.slice could not be read"),
        ] {
            assert!(sentence(&event).ends_with(end), "{}", sentence(&event));
        }
    }

    #[test]
    fn who_is_gone_is_not_made_up() {
        let charger = |pid, comm: &str| Charger { pid, uid: 5, comm: comm.into(), cgroup: String::new() };
        for (charger, text) in [
            (charger(0, ""), "a process of uid 5"),
            (charger(9, ""), "the process 9 of uid 5"),
            (charger(0, "x"), "x"),
            (charger(9, "x"), "x (pid 9)"),
        ] {
            assert_eq!(who(&charger), text);
        }
    }

    #[test]
    fn a_name_cannot_forge_a_line() {
        let mut forged = event(1);
        forged.charger.comm = "x\nmount m: \u{1b}[1m".into();
        assert!(
            sentence(&forged).starts_with("mount m: x?mount m: ?[1m (pid 7) got"),
            "{}",
            sentence(&forged)
        );
    }
}
