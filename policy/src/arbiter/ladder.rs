//! From an ask that is short of memory to a kill: wait for the one that is under way, keep the cool-down, look for
//! victims, choose one.

use super::{
    Arbiter, Ask, Candidate, Effect, KillFailure, Rules,
    kill::{Backoff, Kill, Progress},
    room::{Judgement, judge},
    victim,
    waiting::Waiter,
};
use crate::{
    Bytes,
    outcome::{EventId, Outcome, Reason},
    sample::Sample,
};

/// What an ask that is short of memory has to do.
enum Turn {
    Wait,
    Refuse(Reason),
    Look,
}

impl Arbiter {
    /// Lets an ask wait that is short of memory, or refuses it.
    pub(super) fn take_turn(&mut self, waiter: Waiter, effects: &mut Vec<Effect>) {
        let turn = self.turn(&waiter.ask);
        match turn {
            Turn::Refuse(reason) => return self.refuse(&waiter, reason, effects),
            Turn::Wait | Turn::Look if self.waiting.is_full() => {
                return self.refuse(&waiter, Reason::Busy, effects);
            }
            Turn::Wait => {}
            Turn::Look => {
                self.look = Some(waiter.ask.id);
                effects.push(Effect::LookForVictims { id: waiter.ask.id });
            }
        }
        self.waiting.push(waiter);
    }

    /// Uses up the answer to a look: afterwards a kill is under way, or nobody waits.
    pub(super) fn choose(
        &mut self,
        id: EventId,
        found: &[Candidate],
        sample: &Sample,
        effects: &mut Vec<Effect>,
    ) {
        if self.look != Some(id) {
            return;
        }
        self.look = None;
        self.serve(sample, effects);
        for waiter in self.waiting.take_all() {
            self.decide(waiter, found, sample, effects);
        }
    }

    fn decide(&mut self, waiter: Waiter, found: &[Candidate], sample: &Sample, effects: &mut Vec<Effect>) {
        let missing = match judge(&self.target, &waiter.ask, sample, self.answers.promised()) {
            Judgement::Grant => return self.grant(&waiter, effects),
            Judgement::Refuse(reason) => return self.refuse(&waiter, reason, effects),
            Judgement::Short(missing) => missing,
        };
        match self.turn(&waiter.ask) {
            Turn::Refuse(reason) => self.refuse(&waiter, reason, effects),
            Turn::Wait => self.waiting.push(waiter),
            Turn::Look => self.kill_or_refuse(waiter, found, missing, effects),
        }
    }

    fn kill_or_refuse(
        &mut self,
        waiter: Waiter,
        found: &[Candidate],
        missing: Bytes,
        effects: &mut Vec<Effect>,
    ) {
        let Rules { kill, dry_run, .. } = &waiter.ask.rules;
        match victim::choose(&self.target, found, missing, kill, self.kill.as_ref()) {
            None => self.refuse(&waiter, Reason::NoVictim, effects),
            Some(chosen) if *dry_run => self.imagine(&waiter, chosen, effects),
            Some(chosen) => self.kill(waiter, chosen, found, effects),
        }
    }

    fn kill(&mut self, waiter: Waiter, chosen: &Candidate, found: &[Candidate], effects: &mut Vec<Effect>) {
        let (id, scope) = (waiter.ask.id, waiter.ask.rules.kill.scope);
        self.kill = Some(Kill::new(id, self.now, chosen, scope, found));
        self.waiting.push(waiter.into_cause());
        effects.push(Effect::Kill { id, victim: chosen.clone(), scope });
    }

    fn imagine(&mut self, waiter: &Waiter, chosen: &Candidate, effects: &mut Vec<Effect>) {
        self.kill = Some(Kill::imagined(waiter.ask.id, self.now, chosen));
        // What is true of the refusal is that nobody may be killed.
        let would_have = Some(Outcome::GrantedAfterKill);
        self.answer(waiter, Reason::NoVictim, None, Some(chosen.named()), would_have, effects);
    }

    pub(super) fn killed(&mut self, id: EventId, result: Result<(), KillFailure>, effects: &mut Vec<Effect>) {
        let is_asked = |kill: &&mut Kill| kill.id == id && kill.progress == Progress::Asked;
        let Some(kill) = self.kill.as_mut().filter(is_asked) else { return };
        match result {
            Ok(()) => {
                kill.progress = Progress::Sent;
                self.backoff = Some(Backoff::start(self.now));
            }
            Err(_) => {
                kill.progress = Progress::NotSent;
                if let Some(cause) = self.waiting.take(id) {
                    self.refuse(&cause, Reason::KillFailed, effects);
                }
                self.judge_anew(effects);
            }
        }
    }

    /// Lets those who wait for a look or a kill that has come to nothing look again, or refuses them.
    pub(super) fn judge_anew(&mut self, effects: &mut Vec<Effect>) {
        for waiter in self.waiting.take_all() {
            self.take_turn(waiter, effects);
        }
    }

    /// What an ask has to do that is short of memory and may be killed for.
    fn turn(&self, ask: &Ask) -> Turn {
        if self.waiting.has_cause() {
            return Turn::Wait;
        }
        if self.kill.as_ref().is_some_and(|kill| kill.is_recent(self.now, ask.rules.kill.cooldown)) {
            return Turn::Refuse(Reason::Cooldown);
        }
        if self.look.is_some() { Turn::Wait } else { Turn::Look }
    }
}
