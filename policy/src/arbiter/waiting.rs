//! The asks that wait, in the order in which they came.

use super::{Ask, Moment, Rules};
use crate::{MountName, outcome::EventId};

/// How many asks wait at most. A store has a few threads that may wait; what goes beyond is better refused at once.
const MAX_WAITING: usize = 64;

/// An ask without an answer.
#[derive(Debug)]
pub(super) struct Waiter {
    /// The ask.
    pub(super) ask: Ask,
    /// Whether the last kill was asked for because of it.
    pub(super) is_cause: bool,
}

/// The asks that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting(Vec<Waiter>);

impl Waiter {
    /// An ask that has just come.
    pub(super) fn new(ask: Ask) -> Self {
        Self { ask, is_cause: false }
    }

    /// The same one, now that a kill was asked for because of it.
    pub(super) fn into_cause(self) -> Self {
        Self { is_cause: true, ..self }
    }
}

impl Waiting {
    /// Whether no more may wait.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MAX_WAITING
    }

    /// Whether this one waits.
    pub(super) fn contains(&self, id: EventId) -> bool {
        self.0.iter().any(|waiter| waiter.ask.id == id)
    }

    /// Whether the one waits because of whom the last kill was asked for.
    pub(super) fn has_cause(&self) -> bool {
        self.0.iter().any(|waiter| waiter.is_cause)
    }

    /// When the next one has to be answered.
    pub(super) fn earliest_deadline(&self) -> Option<Moment> {
        self.0.iter().map(|waiter| waiter.ask.deadline).min()
    }

    /// Adds one behind all others.
    pub(super) fn push(&mut self, waiter: Waiter) {
        self.0.push(waiter);
    }

    /// Takes one out.
    pub(super) fn take(&mut self, id: EventId) -> Option<Waiter> {
        let at = self.0.iter().position(|waiter| waiter.ask.id == id)?;
        Some(self.0.remove(at))
    }

    /// Takes all out, in the order of arrival. Those that are added again keep it.
    pub(super) fn take_all(&mut self) -> Vec<Waiter> {
        std::mem::take(&mut self.0)
    }

    /// Takes out those whose deadline has come.
    pub(super) fn take_expired(&mut self, now: Moment) -> Vec<Waiter> {
        self.take_if(|waiter| waiter.ask.deadline <= now)
    }

    /// Takes out those that `which` names, asked about each in the order of arrival.
    pub(super) fn take_if(&mut self, mut which: impl FnMut(&Waiter) -> bool) -> Vec<Waiter> {
        self.0.extract_if(.., |waiter| which(waiter)).collect()
    }

    /// Changes the rules of a mount's asks.
    pub(super) fn set_rules(&mut self, mount: &MountName, rules: &Rules) {
        for waiter in self.0.iter_mut().filter(|waiter| waiter.ask.mount == *mount) {
            waiter.ask.rules = rules.clone();
        }
    }
}
