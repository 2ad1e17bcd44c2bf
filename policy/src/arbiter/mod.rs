//! What a remote charger gets when its store has neither room nor cache to reclaim.
//!
//! An [`Arbiter`] decides for one target, whichever mounts charge it. It is a state machine without a clock and without
//! I/O: [`Arbiter::step`] takes the moment and what has happened, and returns what is to be done. An ask is answered at
//! once where the answer is known. Otherwise it waits: first until it is known who could be killed, then until memory
//! of the one who was killed has come back, and never longer than its deadline.
//!
//! - At most one look for victims and one kill are under way. Asks that come meanwhile wait for the same one.
//! - A kill is under way until the ask that it was for is answered. Within the cool-down after it was asked for there
//!   is no other one, whether it worked or not.
//! - Asks that wait are served in the order in which they came; one that does not fit stops no smaller one. What is
//!   granted counts as taken until the store has reported, as no sample shows it before.

mod answers;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod histories;
mod kill;
mod ladder;
mod messages;
#[cfg(test)]
mod properties;
mod protect;
mod room;
#[cfg(test)]
mod tests;
mod victim;
mod waiting;

pub use messages::{Ask, Candidate, Effect, Input, KillFailure, Moment, Rules};
pub use protect::is_protect_glob;

use self::{
    answers::Answers,
    kill::{Backoff, Kill, Progress},
    room::{Judgement, judge},
    waiting::{Waiter, Waiting},
};
use crate::{
    Bytes, MountName, OnFull,
    events::Delta,
    link::Verdict,
    outcome::{EventId, Outcome, Reason, Victim},
    sample::Sample,
};

/// Counters of `memory.events` that say that the cgroup ran into a limit.
const SHORT_OF_MEMORY: [&str; 3] = ["high", "max", "oom"];

/// Decides what remote chargers of one target get.
#[derive(Debug)]
pub struct Arbiter {
    target: String,
    now: Moment,
    waiting: Waiting,
    answers: Answers,
    /// For whom victims are looked for. That ask waits.
    look: Option<EventId>,
    /// The last kill, for the cool-down.
    kill: Option<Kill>,
    backoff: Option<Backoff>,
    armed: Option<Moment>,
}

impl Arbiter {
    /// An arbiter for the target whose cgroup below the root is `target`, with a leading `/`.
    pub fn new(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            now: Moment::ZERO,
            waiting: Waiting::default(),
            answers: Answers::default(),
            look: None,
            kill: None,
            backoff: None,
            armed: None,
        }
    }

    /// Takes what has happened, and returns what is to be done, in this order. Asks whose deadline has come are refused
    /// first, unless the input gives them up. A `now` before the last one counts as the last one.
    pub fn step(&mut self, now: Moment, input: Input) -> Vec<Effect> {
        self.now = self.now.max(now);
        let mut effects = Vec::new();
        self.answers.lapse(self.now);
        // Nobody waits any more for what a store has given up, whatever the time.
        match &input {
            Input::Settled { id } => self.settle(*id),
            Input::Forget { mount } => self.forget(mount),
            _ => {}
        }
        self.expire(&mut effects);
        match input {
            Input::RemoteOom { ask, sample } => self.arrive(ask, &sample, &mut effects),
            Input::Candidates { id, found, sample } => self.choose(id, &found, &sample, &mut effects),
            Input::Killed { id, result } => self.killed(id, result, &mut effects),
            Input::Sampled { sample } => self.sampled(&sample, &mut effects),
            Input::Events { delta, sample } => self.events(&delta, &sample, &mut effects),
            Input::Settled { .. } | Input::Forget { .. } => {}
            Input::Policy { mount, rules } => self.change(&mount, &rules, &mut effects),
        }
        self.tidy(&mut effects);
        effects
    }

    fn expire(&mut self, effects: &mut Vec<Effect>) {
        for waiter in self.waiting.take_expired(self.now) {
            let reason = if self.was_hit_for(&waiter) { Reason::NotFreed } else { Reason::Deadline };
            self.refuse(&waiter, reason, effects);
        }
    }

    fn arrive(&mut self, ask: Ask, sample: &Sample, effects: &mut Vec<Effect>) {
        // Those who came before have the first claim on what the sample shows.
        let taken = self.serve(sample, effects);
        if self.waiting.contains(ask.id) || self.answers.knows(ask.id) {
            return;
        }
        let waiter = Waiter::new(ask);
        if waiter.ask.deadline <= self.now {
            return self.refuse(&waiter, Reason::Deadline, effects);
        }
        match judge(&self.target, &waiter.ask, sample, taken) {
            Judgement::Grant if self.answers.is_full() => self.refuse(&waiter, Reason::Busy, effects),
            Judgement::Grant => self.grant(&waiter, effects),
            Judgement::Refuse(reason) => self.refuse(&waiter, reason, effects),
            Judgement::Short(_) => self.take_turn(waiter, effects),
        }
    }

    fn sampled(&mut self, sample: &Sample, effects: &mut Vec<Effect>) {
        self.armed = None;
        self.serve(sample, effects);
        self.backoff = self.backoff.map(|backoff| backoff.after(self.now));
    }

    fn events(&mut self, delta: &Delta, sample: &Sample, effects: &mut Vec<Effect>) {
        if let Delta::Grown(by) = delta
            && SHORT_OF_MEMORY.iter().any(|name| by.get(name) > 0)
        {
            effects.push(Effect::Trim);
        }
        self.serve(sample, effects);
    }

    fn settle(&mut self, id: EventId) {
        if let Some(waiter) = self.waiting.take(id) {
            self.answers.note(&waiter.ask, None);
        }
        self.answers.settle(id);
    }

    fn forget(&mut self, mount: &MountName) {
        for waiter in self.waiting.take_if(|waiter| waiter.ask.mount == *mount) {
            self.answers.note(&waiter.ask, None);
        }
        self.answers.forget(mount);
    }

    fn change(&mut self, mount: &MountName, rules: &Rules, effects: &mut Vec<Effect>) {
        self.waiting.set_rules(mount, rules);
        if rules.on_full == OnFull::Enospc {
            // One for which a kill was asked already goes on: refusing it would not bring anybody back.
            for waiter in self.waiting.take_if(|waiter| waiter.ask.mount == *mount && !waiter.is_cause) {
                self.refuse(&waiter, Reason::Policy, effects);
            }
        }
    }

    /// Grants what fits, in the order of arrival. Returns what is taken of the sample's room afterwards: what is
    /// promised, and what is kept for one that is granted as soon as it is known whether somebody was killed for it.
    fn serve(&mut self, sample: &Sample, effects: &mut Vec<Effect>) -> Bytes {
        let is_open = self.kill.as_ref().is_some_and(|kill| kill.progress == Progress::Asked);
        let (mut taken, target) = (self.answers.promised(), &self.target);
        let served = self.waiting.take_if(|waiter| {
            let fits = judge(target, &waiter.ask, sample, taken) == Judgement::Grant;
            if fits {
                taken = taken.plus(waiter.ask.need());
            }
            fits && !(waiter.is_cause && is_open)
        });
        for waiter in served {
            self.grant(&waiter, effects);
        }
        taken
    }

    /// Keeps what must hold between two steps: who is looked for waits, and a timer runs while anybody waits.
    fn tidy(&mut self, effects: &mut Vec<Effect>) {
        if self.look.is_some_and(|id| !self.waiting.contains(id)) {
            self.look = None;
            self.judge_anew(effects);
        }
        let Some(deadline) = self.waiting.earliest_deadline() else {
            self.backoff = None;
            return;
        };
        let next = self.backoff.map_or(deadline, |backoff| backoff.next.min(deadline));
        // A moment that has passed may have been missed; to arm again does no harm.
        let is_armed = self.armed.is_some_and(|armed| self.now < armed && armed <= next);
        if !is_armed {
            self.armed = Some(next);
            effects.push(Effect::Arm { at: next });
        }
    }

    /// Whether the signal of its kill was sent.
    fn was_hit_for(&self, waiter: &Waiter) -> bool {
        waiter.is_cause && self.kill.as_ref().is_some_and(|kill| kill.progress == Progress::Sent)
    }

    fn grant(&mut self, waiter: &Waiter, effects: &mut Vec<Effect>) {
        self.answer(waiter, Reason::Room, Some(waiter.ask.need()), None, None, effects);
    }

    fn refuse(&mut self, waiter: &Waiter, reason: Reason, effects: &mut Vec<Effect>) {
        let outcome = if reason == Reason::Deadline { Outcome::EnospcTimeout } else { Outcome::Enospc };
        // Rules may have changed since somebody was killed.
        let is_imagined = waiter.ask.rules.dry_run && !self.was_hit_for(waiter);
        let would_have = is_imagined.then_some(outcome);
        self.answer(waiter, reason, None, None, would_have, effects);
    }

    fn answer(
        &mut self,
        waiter: &Waiter,
        reason: Reason,
        granted: Option<Bytes>,
        imagined: Option<Victim>,
        would_have: Option<Outcome>,
        effects: &mut Vec<Effect>,
    ) {
        let killed = self.was_hit_for(waiter);
        let victim = self.kill.as_ref().filter(|_| killed).map(|kill| kill.victim.clone()).or(imagined);
        let Ask { id, mount, .. } = &waiter.ask;
        let verdict = Verdict { id: *id, grant: granted.is_some(), reason, killed };
        self.answers.note(&waiter.ask, granted);
        effects.push(Effect::Answer { id: *id, mount: mount.clone(), verdict, victim, would_have });
    }
}
