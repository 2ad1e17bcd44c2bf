//! Whether there is room to speak to memcharged: whatever is made for that is charged to the target.

use memcharge_policy::{Bytes, admission};

use super::Gate;
use crate::backing::Backing;

/// How much may be said to memcharged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Voice {
    /// Nothing.
    None,
    /// Whether it can make room.
    Question,
    /// Everything.
    Full,
}

impl Voice {
    /// What it takes to tell something, or to ask a `question`.
    pub(crate) fn for_question(question: bool) -> Self {
        if question { Self::Question } else { Self::Full }
    }
}

impl Gate {
    /// What may be made for memcharged: the socket of a connection, a message. All of it is charged to the target, and with
    /// that at its limit the kernel would kill one of its tasks for it.
    pub(crate) fn voice(&self, backing: &Backing) -> Voice {
        let mut state = self.lock();
        // In a target that cannot be read memcharged is who can put it in order.
        if state.look(backing, Bytes(0), false).is_err()
            || state.has_room(admission::admit_lookup(&state.sample))
        {
            return Voice::Full;
        }
        if admission::admit_question(&state.sample).is_ok() { Voice::Question } else { Voice::None }
    }
}
