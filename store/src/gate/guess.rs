//! What has refused a request that had passed the gate.

use memcharge_policy::{
    Bytes,
    admission::Refusal,
    outcome::{LimitName, Operation},
};
use rustix::io::Errno;

use super::Gate;
use crate::{
    backing::Backing,
    case::{Case, Obstacle},
};

/// The room of how many inodes the largest attribute takes: tmpfs counts 1 KiB for an inode, and a value of up to 64 KiB with
/// its name.
const ATTRIBUTE_INODES: u64 = 66;

impl Gate {
    /// What has refused a request that passed the gate: tmpfs, which says ENOSPC for a name or an attribute if its room for
    /// inodes is used up, or the tightest limit of all.
    pub(super) fn guess(&self, backing: &Backing, case: &Case, e: Errno) -> Obstacle {
        let inodes = e == Errno::NOSPC
            && backing.usage().is_ok_and(|usage| {
                lacks_inodes(case.operation, usage.inodes_max.saturating_sub(usage.inodes_used))
            });
        let mut state = self.lock();
        let obstacle = match state.look(backing, Bytes(0), true) {
            _ if inodes => Obstacle::of(LimitName::Inodes),
            Ok(_) => {
                let bound = state.sample.headroom(Bytes(0)).bound;
                state.denied(Refusal { bound, missing: Bytes(0) }).obstacle
            }
            Err(denied) => denied.obstacle,
        };
        case.obstruct(obstacle.clone(), case.asked.get(), Bytes(0));
        obstacle
    }
}

/// Whether tmpfs lacks room for inodes if it says ENOSPC to this with so many inodes left. It takes attributes from the same
/// room.
fn lacks_inodes(operation: Operation, left: u64) -> bool {
    match operation {
        Operation::Make => left == 0,
        Operation::Change => left < ATTRIBUTE_INODES,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inodes_are_named_only_where_they_lack() {
        for (operation, left, lacks) in [
            (Operation::Make, 0, true),
            (Operation::Make, 1, false),
            (Operation::Change, 0, true),
            (Operation::Change, ATTRIBUTE_INODES - 1, true),
            (Operation::Change, ATTRIBUTE_INODES, false),
            (Operation::Look, 0, false),
            (Operation::Write, 0, false),
        ] {
            assert_eq!(lacks_inodes(operation, left), lacks, "{operation} with {left} left");
        }
    }
}
