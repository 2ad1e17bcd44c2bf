//! One arbitration in words: who asked for what, what was in the way, what was tried, what came of it, and what plain
//! tmpfs would have done in its place. Pure.

mod plain;
mod tried;

use memcharge_policy::outcome::{Charger, Event, LimitKind, LimitName, Operation, Outcome, Victim};

use crate::{json::escape_controls, output::human_size, time::span};

/// The arbitration in full sentences, a paragraph each: the question, the limit, what was tried, the answer, and plain
/// tmpfs. What came from outside cannot break a line.
pub(crate) fn explain(event: &Event) -> Vec<String> {
    let paragraphs = [
        asked(event),
        limit(event),
        tried::tried(event),
        answer(event),
        format!("And plain tmpfs? {}", plain::plain_tmpfs(event)),
    ];
    paragraphs.iter().filter(|text| !text.is_empty()).map(|text| escape_controls(text)).collect()
}

fn asked(event: &Event) -> String {
    let (mount, bytes) = (&event.mount, human_size(event.bytes_asked.0));
    let what = match event.operation {
        Operation::Write => {
            format!("wrote to a file of the mount {mount}; that needed {bytes} of new memory.")
        }
        Operation::Truncate => {
            format!("set the length of a file of the mount {mount}; {bytes} had to be allocated for that.")
        }
        Operation::Fallocate => format!("asked for {bytes} for a file of the mount {mount} with fallocate."),
        Operation::Copy => {
            format!(
                "copied into a file of the mount {mount} with copy_file_range; that needed {bytes} of new memory."
            )
        }
        Operation::Make => format!("made a name in the mount {mount}: a file, a directory or a link."),
        Operation::Change => format!("changed an attribute in the mount {mount}."),
        Operation::Look => format!("looked a name up, or opened it, in the mount {mount}."),
    };
    let beside = if is_metadata(event.operation) {
        " The kernel needs memory for that beside the pages of files, and the store of the mount must not run into a \
         limit with it."
    } else {
        ""
    };
    format!(
        "{} {what}{beside} What is in this mount is paid for by its target, {}.",
        charger(&event.charger),
        event.target
    )
}

fn charger(charger: &Charger) -> String {
    let Charger { pid, uid, comm, cgroup } = charger;
    let place = if cgroup.is_empty() { String::new() } else { format!(", in the cgroup {cgroup}") };
    match (pid, comm.as_str()) {
        (0, "") => format!("A process in a process namespace that memcharge cannot see (user {uid}{place})"),
        (0, comm) => format!("{comm} (user {uid}{place})"),
        (pid, "") => {
            format!("A process that had ended before it was looked at (PID {pid}, user {uid}{place})")
        }
        (pid, comm) => format!("{comm} (PID {pid}, user {uid}{place})"),
    }
}

fn victim(victim: &Victim) -> String {
    format!("{} (PID {}, in the cgroup {})", victim.comm, victim.pid, victim.cgroup)
}

fn is_metadata(operation: Operation) -> bool {
    matches!(operation, Operation::Make | Operation::Change | Operation::Look)
}

fn limit(event: &Event) -> String {
    let limit = &event.limit;
    let (name, path) = (limit.name, &limit.path);
    let missing = missing(event);
    match (limit.name, limit.kind) {
        (LimitName::Size, _) => format!(
            "In the way was the mount's own cap on the bytes in files (size), not a limit of a cgroup.{missing}"
        ),
        (LimitName::Inodes, _) => {
            "In the way was the mount's own cap on inodes (inodes), not a limit on memory.".to_owned()
        }
        (LimitName::Machine, _) => format!(
            "In the way was no limit of a cgroup: the machine itself had too little memory available.{missing}"
        ),
        (LimitName::Unreadable, _) => {
            "In the way was no limit: the target could not be read, or the mount's store was \
             not in it, and then nothing may grow."
                .to_owned()
        }
        (_, LimitKind::Target) => {
            format!("In the way was the target's own limit: {name} of {path}.{}{missing}", slowed(name))
        }
        (_, LimitKind::Ancestor) => format!(
            "In the way was a limit above the target: {name} of {path}, which counts for everything below it.{}{missing}",
            slowed(name)
        ),
        (_, LimitKind::Mount | LimitKind::Machine) => {
            format!("In the way was {name} of {path}.{}{missing}", slowed(name))
        }
    }
}

fn slowed(name: LimitName) -> &'static str {
    match name {
        LimitName::High => {
            " The kernel slows down whoever is over memory.high, so for a mount it counts like memory.max."
        }
        _ => "",
    }
}

/// How much was missing, and what counts beside the bytes that were asked for.
fn missing(event: &Event) -> String {
    let bytes = match event.bytes_missing.0 {
        0 => return String::new(),
        bytes => human_size(bytes),
    };
    let kept = match (event.limit.name, event.operation) {
        (LimitName::Size, _) => "",
        (_, Operation::Look) => ", counting a remainder that nothing touches",
        _ => ", counting the reserve of the target's own tasks and a margin",
    };
    format!(" {bytes} were missing there{kept}.")
}

fn answer(event: &Event) -> String {
    let time = span(event.duration_usec);
    let instead = match event.operation {
        Operation::Write | Operation::Copy => " (a short count, where a part had fitted)",
        // The store tells of it all the same, and which of the two it was is not recorded.
        Operation::Truncate => {
            " (under sparse = \"sigbus\": success, with a hole where nothing was allocated)"
        }
        _ => "",
    };
    let answer = match event.outcome {
        Outcome::Granted => format!("The charger got its memory, after {time}."),
        Outcome::GrantedAfterReclaim => {
            format!("The charger got its memory, after {time}, out of the cache that gave way.")
        }
        Outcome::GrantedAfterKill => {
            format!("The charger got its memory, after {time}, out of what the kill had freed.")
        }
        Outcome::Enospc => format!("The charger got ENOSPC after {time}{instead}."),
        Outcome::EnospcTimeout => {
            format!("The charger got ENOSPC after {time}, when the mount's deadline had passed{instead}.")
        }
    };
    let repeats = match event.repeats {
        0 => String::new(),
        1 => " One more refusal for the same limit followed shortly after, and was answered without arbitrating again.".to_owned(),
        more => format!(
            " {more} more refusals for the same limit followed shortly after, and were answered without arbitrating again."
        ),
    };
    answer + &repeats
}

#[cfg(test)]
mod tests {
    use memcharge_policy::{
        Bytes,
        outcome::{Limit, Reason},
    };

    use super::*;
    use crate::event::tests::event;

    #[test]
    fn a_refused_write_in_full() {
        let event = Event { repeats: 3, ..event() };
        assert_eq!(
            explain(&event),
            [
                "python3 (PID 123, user 1000, in the cgroup /user.slice) wrote to a file of the mount models; that needed \
                 1.0 MiB of new memory. What is in this mount is paid for by its target, models.slice.",
                "In the way was the target's own limit: memory.max of /models.slice. 64.0 KiB were missing there, counting \
                 the reserve of the target's own tasks and a margin.",
                "No cache of the target was reclaimed. Nobody was killed, since the policy of the mount is on-full = \
                 \"enospc\".",
                "The charger got ENOSPC after 12.3 ms (a short count, where a part had fitted). 3 more refusals for the \
                 same limit followed shortly after, and were answered without arbitrating again.",
                "And plain tmpfs? It charges a page to whoever touches it first, so these pages would have been on the bill \
                 of the charger's own cgroup, /user.slice, and the target would have paid nothing. The limits of that \
                 cgroup would have decided: with room there the call succeeds; at memory.max the kernel reclaims, and then \
                 kills a process of that cgroup, which may be the charger.",
            ]
        );
    }

    #[test]
    fn a_charger_of_whom_little_is_known() {
        for (pid, comm, cgroup, begins) in [
            (0, "", "", "A process in a process namespace that memcharge cannot see (user 5) wrote"),
            (0, "dd", "", "dd (user 5) wrote"),
            (7, "", "", "A process that had ended before it was looked at (PID 7, user 5) wrote"),
            (7, "d\nd", "/a", "d\\nd (PID 7, user 5, in the cgroup /a) wrote"),
        ] {
            let charger = Charger { pid, uid: 5, comm: comm.into(), cgroup: cgroup.into() };
            let text = &explain(&Event { charger, ..event() })[0];
            assert!(text.starts_with(begins), "{text}");
        }
    }

    #[test]
    fn each_limit_is_told_from_the_others() {
        for (kind, path, name, begins) in [
            (
                LimitKind::Mount,
                "",
                LimitName::Size,
                "In the way was the mount's own cap on the bytes in files (size)",
            ),
            (
                LimitKind::Mount,
                "",
                LimitName::Inodes,
                "In the way was the mount's own cap on inodes (inodes)",
            ),
            (
                LimitKind::Target,
                "/t",
                LimitName::Max,
                "In the way was the target's own limit: memory.max of /t. 64",
            ),
            (
                LimitKind::Target,
                "/t",
                LimitName::High,
                "In the way was the target's own limit: memory.high of /t. The",
            ),
            (
                LimitKind::Ancestor,
                "/a",
                LimitName::Max,
                "In the way was a limit above the target: memory.max of /a,",
            ),
            (
                LimitKind::Ancestor,
                "/a",
                LimitName::High,
                "In the way was a limit above the target: memory.high of /a,",
            ),
            (
                LimitKind::Machine,
                "",
                LimitName::Machine,
                "In the way was no limit of a cgroup: the machine itself",
            ),
            (
                LimitKind::Target,
                "",
                LimitName::Unreadable,
                "In the way was no limit: the target could not be read",
            ),
        ] {
            let text = &explain(&Event { limit: Limit { kind, path: path.into(), name }, ..event() })[1];
            assert!(text.starts_with(begins), "{text}");
        }
    }

    #[test]
    fn what_is_missing_counts_what_is_kept_free_for_this_operation() {
        let look = Event { operation: Operation::Look, bytes_asked: Bytes(0), ..event() };
        assert!(explain(&look)[1].ends_with("missing there, counting a remainder that nothing touches."));
        let whole = Event { bytes_missing: Bytes(0), ..event() };
        assert!(explain(&whole)[1].ends_with("memory.max of /models.slice."));
    }

    #[test]
    fn each_operation_is_told_from_the_others() {
        for (operation, part) in [
            (Operation::Write, "wrote to a file of the mount models; that needed 1.0 MiB"),
            (
                Operation::Truncate,
                "set the length of a file of the mount models; 1.0 MiB had to be allocated",
            ),
            (Operation::Fallocate, "asked for 1.0 MiB for a file of the mount models with fallocate"),
            (
                Operation::Copy,
                "copied into a file of the mount models with copy_file_range; that needed 1.0 MiB",
            ),
            (
                Operation::Make,
                "made a name in the mount models: a file, a directory or a link. The kernel needs",
            ),
            (Operation::Change, "changed an attribute in the mount models. The kernel needs"),
            (Operation::Look, "looked a name up, or opened it, in the mount models. The kernel needs"),
        ] {
            let text = &explain(&Event { operation, ..event() })[0];
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn each_outcome_is_told_from_the_others() {
        for (outcome, text) in [
            (Outcome::Granted, "The charger got its memory, after 12.3 ms."),
            (
                Outcome::GrantedAfterReclaim,
                "The charger got its memory, after 12.3 ms, out of the cache that gave way.",
            ),
            (
                Outcome::GrantedAfterKill,
                "The charger got its memory, after 12.3 ms, out of what the kill had freed.",
            ),
            (Outcome::Enospc, "The charger got ENOSPC after 12.3 ms."),
            (
                Outcome::EnospcTimeout,
                "The charger got ENOSPC after 12.3 ms, when the mount's deadline had passed.",
            ),
        ] {
            let event = Event { outcome, reason: Reason::Room, operation: Operation::Fallocate, ..event() };
            assert_eq!(answer(&event), text);
        }
        assert!(answer(&Event { repeats: 1, ..event() }).contains(" One more refusal"));
    }
}
