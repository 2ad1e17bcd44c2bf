//! What was tried before the answer, and why no more.

use memcharge_policy::outcome::{Event, LimitName, Reason};

use super::{is_metadata, victim};
use crate::output::human_size;

/// What was reclaimed, who was killed, or why nobody was.
pub(super) fn tried(event: &Event) -> String {
    let kill = if event.would_have.is_some() { would_have_killed(event) } else { killed(event) };
    let parts = [reclaimed(event), kill];
    parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(" ")
}

fn reclaimed(event: &Event) -> String {
    match event.bytes_reclaimed.0 {
        // There is nothing to say of reclaim where it could not have helped.
        0 if is_metadata(event.operation) => String::new(),
        0 => match event.limit.name {
            LimitName::Max | LimitName::High => "No cache of the target was reclaimed.".to_owned(),
            LimitName::Size | LimitName::Inodes | LimitName::Machine | LimitName::Unreadable => String::new(),
        },
        bytes => {
            format!("The kernel was asked to drop cache of the target, and dropped {}.", human_size(bytes))
        }
    }
}

fn killed(event: &Event) -> String {
    let Some(dead) = event.victim.as_ref().map(victim) else { return nobody(event.reason).to_owned() };
    match event.reason {
        Reason::KillFailed => format!("{dead} was to be killed, but the kill did not work."),
        Reason::NotFreed => format!("{dead} was killed, but too little memory came free in time."),
        Reason::Taken => {
            format!("{dead} was killed, but what came free was taken by others before this charge.")
        }
        Reason::Deadline => format!("{dead} was killed, but the deadline passed before there was room."),
        _ => format!("{dead} was killed, a process of the target whose memory could make room."),
    }
}

/// Why nobody was killed, for each reason.
fn nobody(reason: Reason) -> &'static str {
    match reason {
        Reason::Room => "When it was looked at again there was room, and nobody was killed.",
        Reason::Policy => "Nobody was killed, since the policy of the mount is on-full = \"enospc\".",
        Reason::Cap => "Nobody was killed, since no kill frees anything of a mount's own cap.",
        Reason::Machine => {
            "Nobody was killed, since a shortage of the whole machine is no matter of this target."
        }
        Reason::Metadata => "What makes or finds a name never waits, and nobody is killed for it.",
        Reason::Cooldown => {
            "Nobody was killed, since the last kill was too short a time ago (kill.cooldown)."
        }
        Reason::NoVictim => {
            "Nobody was killed: the target has no process that may be killed and whose death would free enough."
        }
        Reason::KillFailed => "A process of the target was to be killed, but the kill did not work.",
        Reason::NotFreed => "Too little memory came free in time.",
        Reason::Deadline => "The deadline passed before there was room, and nobody was killed.",
        Reason::NoDaemon => {
            "memcharged was not there to be asked, so the mount's store refused by itself, and nobody was killed."
        }
        Reason::Busy => {
            "As many requests as may wait were waiting already, so this one was refused at once, and nobody was killed."
        }
        Reason::Taken => {
            "What had come free was taken by others before this charge, and nobody was killed for it."
        }
        Reason::TargetLost => "Until the target is in order again nothing helps, so nobody was killed.",
    }
}

/// Under dry run: what would have been done.
fn would_have_killed(event: &Event) -> String {
    let Some(outcome) = event.would_have else { return String::new() };
    let whom = match event.victim.as_ref().map(victim) {
        Some(chosen) => format!("Without it {chosen} would have been killed"),
        None => "Without it nobody would have been killed either".to_owned(),
    };
    let why = match event.reason {
        Reason::Cooldown => ", since the last kill would have been too short a time ago (kill.cooldown)",
        Reason::NoVictim => {
            ", since the target has no process that may be killed and whose death would free enough"
        }
        _ => "",
    };
    format!(
        "memcharged runs with --dry-run, which kills nobody. {whom}{why}, and the outcome would have been {outcome}."
    )
}

#[cfg(test)]
mod tests {
    use memcharge_policy::{
        Bytes,
        outcome::{Limit, LimitKind, Operation, Outcome, Victim},
    };

    use super::*;
    use crate::event::tests::event;

    const REASONS: [Reason; 14] = [
        Reason::Room,
        Reason::Policy,
        Reason::Cap,
        Reason::Machine,
        Reason::Metadata,
        Reason::Cooldown,
        Reason::NoVictim,
        Reason::KillFailed,
        Reason::NotFreed,
        Reason::Deadline,
        Reason::NoDaemon,
        Reason::Busy,
        Reason::Taken,
        Reason::TargetLost,
    ];

    fn hog() -> Option<Victim> {
        Some(Victim { pid: 17, comm: "hog".into(), cgroup: "/t/hog".into() })
    }

    #[test]
    fn nobody_is_said_to_be_dead_who_is_not() {
        assert_eq!(REASONS.map(Reason::as_str), Reason::WORDS);
        for reason in REASONS {
            let text = tried(&Event { reason, ..event() });
            assert!(!text.contains("was killed,") || text.contains("obody was killed,"), "{reason}: {text}");
            let text = tried(&Event {
                reason,
                would_have: Some(Outcome::GrantedAfterKill),
                victim: hog(),
                ..event()
            });
            assert!(!text.contains("hog (PID 17, in the cgroup /t/hog) was killed"), "{reason}: {text}");
            assert!(
                text.contains("hog (PID 17, in the cgroup /t/hog) would have been killed"),
                "{reason}: {text}"
            );
        }
    }

    #[test]
    fn the_dead_are_named() {
        for (reason, end) in [
            (Reason::Room, "was killed, a process of the target whose memory could make room."),
            (Reason::NotFreed, "was killed, but too little memory came free in time."),
            (Reason::Taken, "was killed, but what came free was taken by others before this charge."),
            (Reason::Deadline, "was killed, but the deadline passed before there was room."),
            (Reason::KillFailed, "was to be killed, but the kill did not work."),
        ] {
            let text = tried(&Event { reason, victim: hog(), bytes_reclaimed: Bytes::mib(2), ..event() });
            assert_eq!(
                text,
                format!(
                    "The kernel was asked to drop cache of the target, and dropped 2.0 MiB. \
                     hog (PID 17, in the cgroup /t/hog) {end}"
                )
            );
        }
    }

    #[test]
    fn reclaim_is_spoken_of_where_it_could_have_helped() {
        let silent = Event { operation: Operation::Make, reason: Reason::Metadata, ..event() };
        assert_eq!(tried(&silent), "What makes or finds a name never waits, and nobody is killed for it.");
        let limit = Limit { kind: LimitKind::Mount, path: String::new(), name: LimitName::Size };
        let capped = Event { limit, reason: Reason::Cap, ..event() };
        assert_eq!(tried(&capped), "Nobody was killed, since no kill frees anything of a mount's own cap.");
    }

    #[test]
    fn a_dry_run_says_what_would_have_been() {
        for (reason, victim, would, text) in [
            (
                Reason::NoVictim,
                None,
                Outcome::Enospc,
                "Without it nobody would have been killed either, since the target has no process that may be killed and \
                 whose death would free enough, and the outcome would have been enospc.",
            ),
            (
                Reason::Room,
                hog(),
                Outcome::GrantedAfterKill,
                "Without it hog (PID 17, in the cgroup /t/hog) would have been killed, and the outcome would have been \
                 granted-after-kill.",
            ),
        ] {
            let event = Event { reason, victim, would_have: Some(would), ..event() };
            let prefix =
                "No cache of the target was reclaimed. memcharged runs with --dry-run, which kills nobody. ";
            assert_eq!(tried(&event), format!("{prefix}{text}"));
        }
    }
}
