//! The rules one by one.

mod asks;
mod kills;

use super::{fixtures::*, *};
use crate::{
    KillPolicy, KillScope,
    events::Counters,
    outcome::{LimitName, Operation},
};

fn oom(ask: Ask, current: u64) -> Input {
    Input::RemoteOom { ask, sample: sample(current) }
}

fn found(n: u64, found: &[Candidate], current: u64) -> Input {
    Input::Candidates { id: id(n), found: found.to_vec(), sample: sample(current) }
}

fn killed(n: u64) -> Input {
    Input::Killed { id: id(n), result: Ok(()) }
}

fn sampled(current: u64) -> Input {
    Input::Sampled { sample: sample(current) }
}

fn verdict(n: u64, grant: bool, reason: Reason, killed: bool) -> Effect {
    let victim = killed.then(|| candidate(10, 8).named());
    let verdict = Verdict { id: id(n), grant, reason, killed };
    Effect::Answer { id: id(n), mount: name("m"), verdict, victim, would_have: None }
}

fn granted(n: u64) -> Effect {
    verdict(n, true, Reason::Room, false)
}

fn refused(n: u64, reason: Reason) -> Effect {
    verdict(n, false, reason, false)
}

fn look(n: u64) -> Effect {
    Effect::LookForVictims { id: id(n) }
}

fn kill(n: u64) -> Effect {
    Effect::Kill { id: id(n), victim: candidate(10, 8), scope: KillScope::Process }
}

fn arm(at: u64) -> Effect {
    Effect::Arm { at: ms(at) }
}

fn until(deadline: u64, ask: Ask) -> Ask {
    Ask { deadline: ms(deadline), ..ask }
}

fn cooling_for(millis: u64, mut ask: Ask) -> Ask {
    ask.rules.kill.cooldown = ms(millis);
    ask
}

fn dry(mut ask: Ask) -> Ask {
    ask.rules.dry_run = true;
    ask
}

/// Takes a full target and its first ask as far as a signal that was sent at 2 ms.
fn after_kill() -> Arbiter {
    let mut arbiter = Arbiter::new(TARGET);
    assert_eq!(arbiter.step(ms(0), oom(ask(1), 64)), [look(1), arm(200)]);
    assert_eq!(arbiter.step(ms(1), found(1, &[candidate(10, 8)], 64)), [kill(1)]);
    assert_eq!(arbiter.step(ms(2), killed(1)), [arm(7)]);
    arbiter
}
