//! What plain tmpfs would have done in a mount's place: it charges whoever touches a page first, and at a cgroup's limit
//! the kernel kills.

use memcharge_policy::{
    mountinfo::is_within,
    outcome::{Event, LimitName, Operation},
};

/// What plain tmpfs does with this request, after "And plain tmpfs?".
pub(super) fn plain_tmpfs(event: &Event) -> String {
    match event.limit.name {
        LimitName::Size => within_size(event),
        LimitName::Inodes if event.outcome.is_refusal() => {
            "With the same cap (nr_inodes=) it would have returned ENOSPC as well.".to_owned()
        }
        LimitName::Inodes => {
            "With the same cap (nr_inodes=) it would have returned ENOSPC, unless there was an inode left \
             just then."
                .to_owned()
        }
        LimitName::Machine => without_check(event),
        LimitName::Max | LimitName::High | LimitName::Unreadable => on_first_touch(event),
    }
}

/// The cap is the one limit that tmpfs has too.
fn within_size(event: &Event) -> String {
    match event.operation {
        Operation::Truncate => "With the same cap (size=) it would have set the length, since it allocates nothing there. \
             What does not fit is found out later: a write gets ENOSPC, and a touch through a mapping ends in SIGBUS."
            .to_owned(),
        _ if event.outcome.is_refusal() => {
            "With the same cap (size=) it would have returned ENOSPC as well.".to_owned()
        }
        _ => "With the same cap (size=) it would have returned ENOSPC, unless there was room just then.".to_owned(),
    }
}

/// The machine's memory is the matter of nobody but the kernel.
fn without_check(event: &Event) -> String {
    match event.operation {
        Operation::Truncate => "It would have set the length and allocated nothing. The pages are allocated when they are \
             first touched, and at the end of the machine's memory the kernel kills a process of the whole machine."
            .to_owned(),
        Operation::Look => LOOK.to_owned(),
        _ => format!(
            "It would have taken the memory, on the bill of {}. At the end of the machine's memory the kernel reclaims, and \
             then kills a process of the whole machine.",
            bill(event)
        ),
    }
}

const LOOK: &str = "It has all its names and inodes in memory, so looking one up or opening it would have needed next to nothing.";

fn on_first_touch(event: &Event) -> String {
    let (bill, decided) = (bill(event), decided(event));
    match event.operation {
        Operation::Look => LOOK.to_owned(),
        Operation::Truncate => format!(
            "It would have set the length and allocated nothing. Each page is charged later, to whoever touches it first, \
             and the target pays nothing for what others touch. Had the charger touched them all, they would have been on \
             the bill of {bill}. {decided}"
        ),
        Operation::Make => format!(
            "It would have taken the memory for that, about 1 KiB for a file, on the bill of {bill}. {decided}"
        ),
        Operation::Change => {
            format!("It would have taken the memory for that, if any, on the bill of {bill}. {decided}")
        }
        Operation::Write | Operation::Fallocate | Operation::Copy => {
            let target = if shares_limit(event) { "" } else { ", and the target would have paid nothing" };
            format!(
                "It charges a page to whoever touches it first, so these pages would have been on the bill of \
                 {bill}{target}. {decided}"
            )
        }
    }
}

/// Who pays on plain tmpfs.
fn bill(event: &Event) -> String {
    match event.charger.cgroup.as_str() {
        "" => "the charger's own cgroup".to_owned(),
        cgroup => format!("the charger's own cgroup, {cgroup}"),
    }
}

/// Whether the limit that was hit counts for the charger's own cgroup, too.
fn shares_limit(event: &Event) -> bool {
    let (cgroup, path) = (&event.charger.cgroup, &event.limit.path);
    !cgroup.is_empty() && !path.is_empty() && is_within(cgroup, path)
}

/// Which limit decides there, and how.
fn decided(event: &Event) -> String {
    let path = &event.limit.path;
    match event.limit.name {
        LimitName::High if shares_limit(event) => format!(
            "{path} is above that cgroup, so the same limit would have counted: over memory.high the kernel reclaims and \
             slows the charger down, and does not refuse."
        ),
        _ if shares_limit(event) => format!(
            "{path} is above that cgroup, so the same limit would have counted: at memory.max the kernel reclaims, and then \
             kills a process somewhere below {path}, which may be the charger."
        ),
        _ => "The limits of that cgroup would have decided: with room there the call succeeds; at memory.max the kernel \
              reclaims, and then kills a process of that cgroup, which may be the charger."
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use memcharge_policy::outcome::{Charger, Limit, LimitKind, Outcome};

    use super::*;
    use crate::event::tests::event;

    fn at(kind: LimitKind, path: &str, name: LimitName, operation: Operation, cgroup: &str) -> Event {
        let charger = Charger { cgroup: cgroup.into(), ..event().charger };
        Event { limit: Limit { kind, path: path.into(), name }, operation, charger, ..event() }
    }

    #[test]
    fn for_each_limit_and_operation() {
        use LimitKind::{Ancestor, Machine, Mount, Target};
        use LimitName::{High, Inodes, Max, Size, Unreadable};
        use Operation::{Change, Copy, Fallocate, Look, Make, Truncate, Write};
        let own = "kills a process of that cgroup, which may be the charger.";
        for (kind, path, name, operation, cgroup, parts) in [
            (Mount, "", Size, Write, "/u", vec!["same cap (size=) it would have returned ENOSPC as well."]),
            (Mount, "", Size, Truncate, "/u", vec!["would have set the length", "SIGBUS"]),
            (Mount, "", Inodes, Make, "/u", vec!["(nr_inodes=) it would have returned ENOSPC as well."]),
            (
                Machine,
                "",
                LimitName::Machine,
                Write,
                "/u",
                vec!["cgroup, /u", "a process of the whole machine."],
            ),
            (Machine, "", LimitName::Machine, Truncate, "/u", vec!["allocated nothing", "whole machine."]),
            (Machine, "", LimitName::Machine, Look, "/u", vec!["next to nothing."]),
            (
                Target,
                "/t",
                Max,
                Write,
                "/u",
                vec!["own cgroup, /u, and the target would have paid nothing.", own],
            ),
            (Target, "/t", Max, Fallocate, "", vec!["charger's own cgroup, and the target would have", own]),
            (
                Target,
                "/t",
                Max,
                Copy,
                "/tt",
                vec!["own cgroup, /tt, and the target would have paid nothing.", own],
            ),
            (
                Target,
                "/t",
                Max,
                Write,
                "/t/x",
                vec!["own cgroup, /t/x. /t is above that cgroup", "below /t, which may"],
            ),
            (Target, "/t", High, Write, "/t/x", vec!["own cgroup, /t/x. /t is", "and does not refuse."]),
            (Ancestor, "/a", Max, Write, "/a/u", vec!["/a is above that cgroup", "somewhere below /a"]),
            (Ancestor, "/a", High, Write, "/u", vec!["and the target would have paid nothing.", own]),
            (
                Target,
                "/t",
                Max,
                Truncate,
                "/u",
                vec!["allocated nothing", "bill of the charger's own cgroup, /u.", own],
            ),
            (Target, "/t", Max, Make, "/u", vec!["about 1 KiB for a file", own]),
            (Target, "/t", Max, Change, "/u", vec!["memory for that, if any", own]),
            (Target, "/t", Max, Look, "/u", vec!["next to nothing."]),
            (Target, "", Unreadable, Write, "/u", vec!["and the target would have paid nothing.", own]),
        ] {
            let text = plain_tmpfs(&at(kind, path, name, operation, cgroup));
            for part in parts {
                assert!(text.contains(part), "{name} {operation} of {cgroup}: {text}");
            }
        }
    }

    #[test]
    fn what_was_granted_is_not_said_to_have_been_refused_as_well() {
        for name in [LimitName::Size, LimitName::Inodes] {
            let capped = at(LimitKind::Mount, "", name, Operation::Write, "/u");
            let text = plain_tmpfs(&Event { outcome: Outcome::Granted, ..capped });
            assert!(!text.contains("as well") && text.contains("just then"), "{text}");
        }
    }
}
