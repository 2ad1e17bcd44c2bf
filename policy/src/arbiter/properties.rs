//! What holds whatever happens in whichever order: random histories, with answers that come late, twice or never,
//! against a model of what the caller knows.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{fixtures::*, histories::*, *};
use crate::{KillScope, admission::MARGIN, mountinfo::is_within};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Standing {
    Open,
    Answered,
    GivenUp,
}

/// What the caller knows.
struct Model {
    arbiter: Arbiter,
    twin: Arbiter,
    now: Moment,
    current: u64,
    rules: BTreeMap<&'static str, Rules>,
    asks: Vec<(Ask, Standing)>,
    promised: BTreeMap<EventId, Ask>,
    looks: Vec<EventId>,
    kills: Vec<EventId>,
    /// For whom a signal was sent.
    sent: Vec<EventId>,
    last_kill: Option<Moment>,
    armed: Option<Moment>,
}

impl Model {
    fn new(rules: Vec<Rules>) -> Self {
        Self {
            arbiter: Arbiter::new(TARGET),
            twin: Arbiter::new(TARGET),
            now: Moment::ZERO,
            current: 60,
            rules: MOUNTS.into_iter().zip(rules).collect(),
            asks: Vec::new(),
            promised: BTreeMap::new(),
            looks: Vec::new(),
            kills: Vec::new(),
            sent: Vec::new(),
            last_kill: None,
            armed: None,
        }
    }

    /// The target, and a cgroup above it with 16 MiB more of both.
    fn sample(&self) -> Sample {
        let mut above = level(self.current + 20);
        above.max = Some(Bytes::mib(80));
        Sample { levels: vec![level(self.current), above], available: Bytes::mib(4096) }
    }

    /// What is missing for an ask in a target that is as [`Model::sample`] says; the cgroup above it is fuller by 4 MiB.
    fn missing(&self, ask: &Ask) -> u64 {
        let promised: u64 = self.promised.values().map(|ask| ask.asked.bytes.0).sum();
        let reserve = ask.reserve.map_or(Bytes::mib(4).0, |reserve| reserve.0);
        let wanted = ask.asked.bytes.0 + reserve + MARGIN.0 + promised;
        (wanted + Bytes::mib(self.current + 4).0).saturating_sub(Bytes::mib(64).0)
    }

    /// What the arbiter is told; `None` where there is nothing of the kind to tell.
    fn input(&mut self, happening: Happening) -> Option<Input> {
        let sample = self.sample();
        Some(match happening {
            Happening::Wait(millis) => {
                self.now += ms(millis);
                return None;
            }
            Happening::Use(mib) => {
                self.current = mib;
                return None;
            }
            Happening::Ask { mount, mib, patience, limit, operation } => {
                let n = self.asks.len() as u64;
                let mut ask = Ask { mount: name(MOUNTS[mount]), deadline: self.now + ms(patience), ..ask(n) };
                (ask.asked.bytes, ask.asked.limit, ask.asked.operation) = (Bytes::mib(mib), limit, operation);
                (ask.rules, ask.reserve) =
                    (self.rules[MOUNTS[mount]].clone(), (mount > 0).then(|| Bytes::mib(2)));
                self.asks.push((ask.clone(), Standing::Open));
                Input::RemoteOom { ask, sample }
            }
            Happening::AskAgain(which) => {
                let (ask, _) = pick(&self.asks, which)?;
                if ask.deadline + answers::GRACE <= self.now {
                    return None;
                }
                Input::RemoteOom { ask: ask.clone(), sample }
            }
            Happening::Found(which, found, again) => {
                let id = take(&mut self.looks, which, again)?;
                Input::Candidates { id, found, sample }
            }
            Happening::Killed(which, sent, again) => {
                let id = take(&mut self.kills, which, again)?;
                self.sent.extend(sent.then_some(id));
                Input::Killed { id, result: if sent { Ok(()) } else { Err(KillFailure::Gone) } }
            }
            Happening::Sampled => {
                self.armed = None;
                Input::Sampled { sample }
            }
            Happening::Events(delta) => Input::Events { delta, sample },
            Happening::Settled(which) => {
                let at = which % self.asks.len().max(1);
                let (ask, standing) = self.asks.get_mut(at)?;
                give_up(standing);
                self.promised.remove(&ask.id);
                Input::Settled { id: ask.id }
            }
            Happening::Forget(mount) => {
                let mount = name(MOUNTS[mount]);
                self.promised.retain(|_, ask| ask.mount != mount);
                self.asks
                    .iter_mut()
                    .filter(|(ask, _)| ask.mount == mount)
                    .for_each(|(_, standing)| give_up(standing));
                Input::Forget { mount }
            }
            Happening::Policy(mount, rules) => {
                self.rules.insert(MOUNTS[mount], rules.clone());
                Input::Policy { mount: name(MOUNTS[mount]), rules }
            }
        })
    }

    fn step(&mut self, input: Input) -> Result<(), TestCaseError> {
        self.promised.retain(|_, ask| self.now < ask.deadline + answers::GRACE);
        let effects = self.arbiter.step(self.now, input.clone());
        prop_assert_eq!(
            &effects,
            &self.twin.step(self.now, input.clone()),
            "the same inputs, the same effects"
        );
        for effect in &effects {
            match effect {
                Effect::Answer { id, verdict, would_have, .. } => {
                    self.check_answer(&input, *id, verdict, *would_have)?;
                }
                Effect::Kill { id, victim, scope } => self.check_kill(&input, *id, victim, *scope)?,
                Effect::LookForVictims { id } => self.looks.push(*id),
                Effect::Arm { at } => self.armed = Some(self.armed.map_or(*at, |armed| armed.min(*at))),
                Effect::Trim => {}
            }
        }
        let trims = effects.iter().filter(|effect| matches!(effect, Effect::Trim)).count();
        let is_short = matches!(&input, Input::Events { delta: Delta::Grown(by), .. }
            if by.get("high") + by.get("max") + by.get("oom") > 0);
        prop_assert_eq!(trims, usize::from(is_short));
        let earliest = self.open().map(|ask| ask.deadline).min();
        prop_assert!(earliest.is_none_or(|deadline| self.now < deadline), "every deadline is kept");
        let waits = earliest.is_none_or(|deadline| self.armed.is_some_and(|armed| armed <= deadline));
        prop_assert!(waits, "a timer runs while anybody waits");
        Ok(())
    }

    fn open(&self) -> impl Iterator<Item = &Ask> {
        self.asks.iter().filter(|(_, standing)| *standing == Standing::Open).map(|(ask, _)| ask)
    }

    fn check_answer(
        &mut self,
        input: &Input,
        id: EventId,
        verdict: &Verdict,
        would_have: Option<Outcome>,
    ) -> Result<(), TestCaseError> {
        let asked = self.asks.iter().position(|(ask, _)| ask.id == id);
        let asked = asked.ok_or_else(|| TestCaseError::fail("an answer that nobody waits for"))?;
        prop_assert_eq!(self.asks[asked].1, Standing::Open, "one answer each");
        self.asks[asked].1 = Standing::Answered;
        let ask = self.asks[asked].0.clone();
        prop_assert_eq!(verdict.id, id);
        prop_assert!(!verdict.killed || self.sent.contains(&id), "killed means that a signal was sent");
        prop_assert!(would_have.is_none() || !verdict.killed);
        prop_assert_eq!(verdict.reason == Reason::NotFreed, verdict.killed && !verdict.grant);
        if verdict.grant {
            let has_sample = !matches!(
                input,
                Input::Killed { .. } | Input::Settled { .. } | Input::Forget { .. } | Input::Policy { .. }
            );
            prop_assert!(has_sample && self.missing(&ask) == 0, "there is room for it and for all promises");
            prop_assert!(self.now < ask.deadline);
            self.promised.insert(id, ask);
        } else if would_have == Some(Outcome::GrantedAfterKill) {
            prop_assert!(self.rules_of(&ask).dry_run);
            self.check_cooldown(&ask)?;
        } else if verdict.reason == Reason::Cooldown {
            let cooldown = self.rules_of(&ask).kill.cooldown;
            prop_assert!(self.last_kill.is_some_and(|at| self.now - at < cooldown));
        }
        Ok(())
    }

    fn check_kill(
        &mut self,
        input: &Input,
        id: EventId,
        victim: &Candidate,
        scope: KillScope,
    ) -> Result<(), TestCaseError> {
        let Input::Candidates { found, .. } = input else {
            return Err(TestCaseError::fail("a kill out of the blue"));
        };
        let ask = self.open().find(|ask| ask.id == id).cloned();
        let ask = ask.ok_or_else(|| TestCaseError::fail("a kill for nobody"))?;
        let rules = self.rules_of(&ask).clone();
        prop_assert_eq!(rules.on_full, OnFull::Kill);
        prop_assert!(!rules.dry_run);
        prop_assert_eq!(rules.kill.scope, scope);
        self.check_cooldown(&ask)?;
        let dies = |candidate: &&Candidate| match scope {
            KillScope::Process => *candidate == victim,
            KillScope::Cgroup => is_within(&candidate.cgroup, &victim.cgroup),
        };
        let dying: Vec<_> = found.iter().filter(dies).collect();
        let protects = !rules.kill.protect.is_empty();
        prop_assert!(dying.iter().all(|candidate| may_die(candidate, protects)), "{:?}", dying);
        prop_assert!(scope == KillScope::Process || victim.cgroup != TARGET);
        let frees: u64 = match scope {
            KillScope::Process => victim.frees.0,
            KillScope::Cgroup => dying.iter().map(|candidate| candidate.frees.0).sum(),
        };
        prop_assert!(found.contains(victim), "{:?}", victim);
        prop_assert!(self.missing(&ask) > 0 && frees >= self.missing(&ask), "the kill helps");
        self.kills.push(id);
        Ok(())
    }

    /// Two kills, or what would have been one, within the cool-down of the later one.
    fn check_cooldown(&mut self, ask: &Ask) -> Result<(), TestCaseError> {
        let cooldown = self.rules_of(ask).kill.cooldown;
        prop_assert!(self.last_kill.is_none_or(|at| self.now - at >= cooldown));
        self.last_kill = Some(self.now);
        Ok(())
    }

    fn rules_of(&self, ask: &Ask) -> &Rules {
        &self.rules[ask.mount.as_str()]
    }
}

fn give_up(standing: &mut Standing) {
    if *standing == Standing::Open {
        *standing = Standing::GivenUp;
    }
}

fn pick<T>(list: &[T], which: usize) -> Option<&T> {
    list.get(which % list.len().max(1))
}

fn take(list: &mut Vec<EventId>, which: usize, again: bool) -> Option<EventId> {
    let at = which % list.len().max(1);
    if again { list.get(at).copied() } else { (at < list.len()).then(|| list.remove(at)) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn every_history_keeps_the_rules(
        rules in prop::collection::vec(any_rules(), 3..4),
        history in prop::collection::vec(any_happening(), 0..100),
    ) {
        let mut model = Model::new(rules);
        for happening in history {
            if let Some(input) = model.input(happening) {
                model.step(input)?;
            }
        }
        // A caller who does no more than serve the timer gets an answer for everybody.
        model.current = 64;
        for _ in 0..1000 {
            let Some(at) = model.armed.take() else { break };
            model.now = model.now.max(at);
            let sample = model.sample();
            model.step(Input::Sampled { sample })?;
        }
        prop_assert_eq!(model.open().count(), 0);
    }

    #[test]
    fn answers_to_what_nobody_has_asked_are_safe_and_do_nothing(
        number in any::<u64>(), found in prop::collection::vec(any_candidate(), 0..4), delta in any_delta(),
    ) {
        let mut arbiter = Arbiter::new(TARGET);
        let (stray, sample) = (id(number), sample(64));
        for input in [
            Input::Candidates { id: stray, found, sample: sample.clone() },
            Input::Killed { id: stray, result: Ok(()) },
            Input::Killed { id: stray, result: Err(KillFailure::Refused) },
            Input::Settled { id: stray },
            Input::Forget { mount: name("a") },
            Input::Sampled { sample: sample.clone() },
        ] {
            prop_assert_eq!(arbiter.step(ms(number % 1000), input), vec![]);
        }
        let effects = arbiter.step(ms(1000), Input::Events { delta, sample });
        prop_assert!(effects.iter().all(|effect| *effect == Effect::Trim));
    }
}
