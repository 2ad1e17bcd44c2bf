//! One request from the kernel's call to the answer: what is remembered of it, and what is told of it.

use std::sync::Arc;

use fuser::{ReplyEntry, Request};
use memcharge_faults::may_die;
use memcharge_policy::outcome::Operation;
use rustix::io::Errno as Os;

use super::reply::reply_entry;
use crate::{
    case::Case,
    fs::{Entry, Fs},
    keep::{Run, Slots},
    liveness::{Liveness, Pulse},
    reports::Told,
};

/// What requests are served with.
pub(crate) struct Adapter {
    pub(super) fs: Arc<Fs>,
    slots: &'static Slots,
    liveness: &'static Liveness,
    pub(super) max_write: u32,
}

/// Kept until the client has its answer: then the request need not be remembered any more, and memcharged hears of it.
#[must_use]
pub(super) struct After<'a> {
    _answered: Answered,
    _told: Told<'a>,
    _pulse: Pulse,
}

/// A request that is answered when this is dropped; only then its slot is free.
struct Answered {
    slots: &'static Slots,
    _run: Run,
}

impl Drop for Answered {
    fn drop(&mut self) {
        may_die("request.answered");
        self.slots.note_served();
    }
}

/// The result of a request whose effect is remembered, as a number, and what that number stands for.
pub(super) struct Memory<N, A> {
    /// The number of a result.
    pub(super) number: N,
    /// The result again, for a request whose answer was lost.
    pub(super) again: A,
}

impl Adapter {
    /// An adapter to `fs` that takes writes of up to `max_write` bytes.
    pub(crate) fn new(
        fs: Arc<Fs>,
        slots: &'static Slots,
        liveness: &'static Liveness,
        max_write: u32,
    ) -> Self {
        Self { fs, slots, liveness, max_write }
    }

    fn answered(&self, run: Run) -> Answered {
        Answered { slots: self.slots, _run: run }
    }

    /// Serves a request that may be run twice without harm, and may be refused for want of memory.
    pub(super) fn serve<T>(
        &self,
        request: &Request,
        operation: Operation,
        act: impl FnOnce(&Case) -> Result<T, Os>,
    ) -> (Result<T, Os>, After<'_>) {
        let pulse = self.liveness.begin();
        let case = Case::new(request.pid(), request.uid(), operation);
        let result = act(&case);
        let (result, told) = self.fs.close(&case, result);
        (result, After { _answered: self.answered(case.run), _told: told, _pulse: pulse })
    }

    /// Serves a request that must have its effect once. One that a store that was killed has run to its end is answered
    /// from what is remembered of it.
    pub(super) fn effect<T, N: FnOnce(&T) -> u64, A: FnOnce(u64) -> Result<T, Os>>(
        &self,
        request: &Request,
        operation: Operation,
        memory: Memory<N, A>,
        act: impl FnOnce(&Case) -> Result<T, Os>,
    ) -> (Result<T, Os>, After<'_>) {
        let pulse = self.liveness.begin();
        let run = self.slots.begin(request.unique().0);
        let case = Case::new(request.pid(), request.uid(), operation).remembered(run);
        let (result, told) = match case.run.done() {
            Some(done) => (done.and_then(memory.again), Told::NOTHING),
            None => {
                may_die("request.begun");
                let result = act(&case);
                may_die("request.run");
                let (result, told) = self.fs.close(&case, result);
                case.run.finish(result.as_ref().map(memory.number).map_err(|e| *e));
                may_die("request.finished");
                (result, told)
            }
        };
        (result, After { _answered: self.answered(case.run), _told: told, _pulse: pulse })
    }

    /// As [`Adapter::effect`], for a request that has no result but its success.
    pub(super) fn change(
        &self,
        request: &Request,
        operation: Operation,
        act: impl FnOnce(&Case) -> Result<(), Os>,
    ) -> (Result<(), Os>, After<'_>) {
        self.effect(request, operation, Memory { number: |_: &()| 0, again: |_| Ok(()) }, act)
    }

    /// As [`Adapter::effect`], for a request whose result is a number.
    pub(super) fn amount(
        &self,
        request: &Request,
        operation: Operation,
        act: impl FnOnce(&Case) -> Result<usize, Os>,
    ) -> (Result<usize, Os>, After<'_>) {
        let memory = Memory { number: |amount: &usize| *amount as u64, again: |amount| Ok(amount as usize) };
        self.effect(request, operation, memory, act)
    }

    /// As [`Adapter::effect`], for a request that makes a name; it is answered here.
    pub(super) fn make(
        &self,
        request: &Request,
        reply: ReplyEntry,
        act: impl FnOnce(&Case) -> Result<Entry, Os>,
    ) {
        let memory = Memory { number: |entry: &Entry| entry.stat.st_ino, again: |ino| self.fs.known(ino) };
        let (result, _after) = self.effect(request, Operation::Make, memory, act);
        reply_entry(reply, result);
    }
}
