//! The end of a request.

use memcharge_policy::{
    admission,
    outcome::{Outcome, Reason},
};
use rustix::io::Errno;

use super::Gate;
use crate::{backing::Backing, case::Case, reports::Told};

impl Gate {
    /// Ends a request: what becomes of it is written down if there was an arbitration, or a refusal.
    pub(crate) fn close<T>(
        &self,
        backing: &Backing,
        case: &Case,
        result: Result<T, Errno>,
    ) -> (Result<T, Errno>, Told<'_>) {
        let (result, told) = self.conclude(backing, case, result);
        // To look at a process takes a few files of it, on the target's bill.
        let may_look = || admission::admit_lookup(&self.lock().sample).is_ok();
        let told = if told.looks() && !may_look() { told.unseen() } else { told };
        (result, told)
    }

    fn conclude<T>(
        &self,
        backing: &Backing,
        case: &Case,
        result: Result<T, Errno>,
    ) -> (Result<T, Errno>, Told<'_>) {
        match result {
            // Nobody is killed for a process that the OOM killer spares: what the target's limit refuses is ENOMEM here.
            Err(e @ (Errno::NOSPC | Errno::NOMEM)) => {
                let obstacle = case.obstacle().unwrap_or_else(|| self.guess(backing, case, e));
                (Err(Errno::NOSPC), self.reports.refused(case, obstacle))
            }
            result => match (case.granted.get(), case.obstacle()) {
                (Some(outcome), Some(obstacle)) => {
                    case.reason.set(Reason::Room);
                    (result, self.reports.granted(case, &obstacle, outcome))
                }
                // memcharged was asked, and the client got less than it wanted all the same.
                (None, Some(obstacle)) if case.sequence.get().is_some() => {
                    (result, self.reports.granted(case, &obstacle, Outcome::Granted))
                }
                _ => (result, Told::NOTHING),
            },
        }
    }
}
