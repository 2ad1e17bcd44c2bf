//! What was answered lately: no ask is answered twice, and no two are granted the same bytes.

use std::{collections::VecDeque, time::Duration};

use super::{Ask, Moment};
use crate::{Bytes, MountName, outcome::EventId};

/// How long after its deadline an answer is remembered, and a promise kept that the store says nothing about: it may be
/// stalled, for up to two seconds at `memory.high`. What it has allocated by then is in the sample.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// How many answers that promise nothing are remembered. To forget one too early costs a second answer to a store that
/// asks twice.
const MAX_SETTLED: usize = 256;

/// How many promises there are at most before more is promised only to those who wait.
const MAX_PROMISES: usize = 256;

/// The answers, oldest first.
#[derive(Debug, Default)]
pub(super) struct Answers(VecDeque<Answered>);

#[derive(Debug)]
struct Answered {
    id: EventId,
    mount: MountName,
    /// What was granted and is not settled.
    promised: Option<Bytes>,
    until: Moment,
}

impl Answers {
    /// Remembers that an ask needs no answer any more; `promised` is what was granted.
    pub(super) fn note(&mut self, ask: &Ask, promised: Option<Bytes>) {
        if promised.is_none() {
            self.make_room();
        }
        let until = ask.deadline.saturating_add(GRACE);
        self.0.push_back(Answered { id: ask.id, mount: ask.mount.clone(), promised, until });
    }

    /// Whether this was answered.
    pub(super) fn knows(&self, id: EventId) -> bool {
        self.0.iter().any(|answered| answered.id == id)
    }

    /// The sum of all promises.
    pub(super) fn promised(&self) -> Bytes {
        self.0.iter().filter_map(|answered| answered.promised).fold(Bytes(0), Bytes::plus)
    }

    /// Whether there are as many promises as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.0.iter().filter(|answered| answered.promised.is_some()).count() >= MAX_PROMISES
    }

    /// Drops a promise.
    pub(super) fn settle(&mut self, id: EventId) {
        self.release(|answered| answered.id == id);
    }

    /// Drops all promises to a mount.
    pub(super) fn forget(&mut self, mount: &MountName) {
        self.release(|answered| answered.mount == *mount);
    }

    /// Drops what was answered too long ago to matter.
    pub(super) fn lapse(&mut self, now: Moment) {
        self.0.retain(|answered| answered.until > now);
    }

    fn release(&mut self, which: impl Fn(&Answered) -> bool) {
        for answered in self.0.iter_mut().filter(|answered| which(answered)) {
            answered.promised = None;
        }
        while self.settled().count() > MAX_SETTLED {
            self.make_room();
        }
    }

    fn make_room(&mut self) {
        let (count, oldest) = (self.settled().count(), self.settled().next());
        if count >= MAX_SETTLED
            && let Some(oldest) = oldest
        {
            self.0.remove(oldest);
        }
    }

    fn settled(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().filter(|(_, answered)| answered.promised.is_none()).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures::*, *};

    #[test]
    fn a_promise_ends_when_it_is_settled_or_its_store_is_gone_or_it_lapses() {
        let (first, second, third) = (ask(1), ask(2), Ask { mount: name("other"), ..ask(3) });
        let mut answers = Answers::default();
        for ask in [&first, &second, &third] {
            answers.note(ask, Some(Bytes::mib(1)));
        }
        assert_eq!(answers.promised(), Bytes::mib(3));
        answers.settle(first.id);
        assert_eq!(answers.promised(), Bytes::mib(2));
        answers.forget(&third.mount);
        assert_eq!(answers.promised(), Bytes::mib(1));
        assert!([1, 2, 3].iter().all(|at| answers.knows(id(*at))), "what was answered stays answered");
        answers.lapse(first.deadline);
        assert_eq!(answers.promised(), Bytes::mib(1));
        answers.lapse(first.deadline + GRACE);
        assert_eq!(answers.promised(), Bytes(0));
        assert!(!answers.knows(id(2)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_a_promise_is_not_forgotten_for_it() {
        let mut answers = Answers::default();
        answers.note(&ask(0), Some(Bytes::mib(1)));
        for at in 1..=2 * MAX_SETTLED as u64 {
            answers.note(&ask(at), None);
        }
        assert_eq!(answers.0.len(), 1 + MAX_SETTLED);
        assert_eq!(answers.promised(), Bytes::mib(1));
        assert!(!answers.knows(id(1)) && answers.knows(id(2 * MAX_SETTLED as u64)));
        answers.settle(id(0));
        assert_eq!(answers.0.len(), MAX_SETTLED);
    }
}
