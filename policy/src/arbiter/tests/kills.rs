//! Looks, kills and cool-downs.

use super::{super::*, *};

#[test]
fn r20_a_kill_is_followed_until_memory_is_there() {
    let mut arbiter = after_kill();
    assert_eq!(arbiter.step(ms(7), sampled(64)), [arm(17)]);
    assert_eq!(arbiter.step(ms(17), sampled(64)), [arm(37)]);
    assert_eq!(arbiter.step(ms(37), sampled(56)), [verdict(1, true, Reason::Room, true)]);
}

#[test]
fn samples_become_rarer_up_to_a_bound() {
    let mut arbiter = after_kill();
    assert_eq!(arbiter.step(ms(3), sampled(64)), [arm(7)], "not for one that comes early");
    let (mut now, mut pauses) = (7, Vec::new());
    for _ in 0..6 {
        let [Effect::Arm { at }] = arbiter.step(ms(now), sampled(64))[..] else {
            panic!("not armed at {now}")
        };
        let next = u64::try_from(at.as_millis()).unwrap();
        pauses.push(next - now);
        now = next;
    }
    assert_eq!(pauses, [10, 20, 40, 50, 50, 23], "the last one ends at the deadline");
}

#[test]
fn nobody_is_killed_whose_death_frees_too_little_by_now() {
    for (frees, current, effects) in [
        (8, 64, vec![kill(1)]),
        // 6 MiB more than the limit are needed, and the target has grown since it was asked.
        (8, 67, vec![refused(1, Reason::NoVictim)]),
        (5, 64, vec![refused(1, Reason::NoVictim)]),
        (0, 58, vec![granted(1)]),
    ] {
        let mut arbiter = Arbiter::new(TARGET);
        arbiter.step(ms(0), oom(ask(1), 64));
        assert_eq!(arbiter.step(ms(1), found(1, &[candidate(10, frees)], current)), effects);
    }
}

#[test]
fn who_asks_while_a_look_or_a_kill_is_under_way_waits_for_the_same_one() {
    let mut arbiter = Arbiter::new(TARGET);
    arbiter.step(ms(0), oom(ask(1), 64));
    assert_eq!(arbiter.step(ms(0), oom(ask(2), 64)), []);
    assert_eq!(arbiter.step(ms(1), found(1, &[candidate(10, 8), candidate(9, 8)], 64)), [kill(1)]);
    assert_eq!(arbiter.step(ms(1), oom(ask(3), 64)), []);
    arbiter.step(ms(2), killed(1));
    // 7 MiB: two of three.
    let served = [verdict(1, true, Reason::Room, true), granted(2), arm(17)];
    assert_eq!(arbiter.step(ms(7), sampled(57)), served);
    assert_eq!(arbiter.step(ms(8), Input::Settled { id: id(1) }), []);
    assert_eq!(arbiter.step(ms(17), sampled(57)), [granted(3)]);
}

#[test]
fn within_the_cool_down_of_who_asks_there_is_no_second_kill() {
    let mut arbiter = after_kill();
    assert_eq!(arbiter.step(ms(7), sampled(58)), [verdict(1, true, Reason::Room, true)]);
    let mut other = until(9000, ask(2));
    other.mount = name("other");
    let answer = arbiter.step(ms(1000), oom(other, 64)).remove(0);
    assert!(matches!(answer, Effect::Answer { verdict: Verdict { reason: Reason::Cooldown, .. }, .. }));
    let long = cooling_for(5000, until(9000, ask(3)));
    assert_eq!(arbiter.step(ms(1001), oom(long, 64)), [refused(3, Reason::Cooldown)]);
    assert_eq!(
        arbiter.step(ms(1001), oom(until(9000, ask(4)), 64))[0],
        look(4),
        "the kill was asked for at 1 ms"
    );
}

#[test]
fn a_kill_that_fails_is_refused_and_cools_down_all_the_same() {
    let mut arbiter = Arbiter::new(TARGET);
    arbiter.step(ms(0), oom(ask(1), 64));
    arbiter.step(ms(0), oom(ask(2), 64));
    arbiter.step(ms(0), oom(cooling_for(0, ask(3)), 64));
    arbiter.step(ms(1), found(1, &[candidate(10, 8)], 64));
    let failed = || Input::Killed { id: id(1), result: Err(KillFailure::Gone) };
    let answers = [refused(1, Reason::KillFailed), refused(2, Reason::Cooldown), look(3)];
    assert_eq!(arbiter.step(ms(2), failed()), answers);
    assert_eq!(arbiter.step(ms(2), failed()), [], "the second answer of the same kind");
    assert_eq!(arbiter.step(ms(3), found(3, &[candidate(10, 8)], 64)), [kill(3)], "nobody has died yet");
}

#[test]
fn who_was_killed_and_has_not_ended_is_not_killed_again() {
    let mut arbiter = after_kill();
    assert_eq!(arbiter.step(ms(200), sampled(64)), [verdict(1, false, Reason::NotFreed, true)]);
    arbiter.step(ms(201), oom(until(900, cooling_for(0, ask(2))), 64));
    let again = found(2, &[candidate(10, 8), candidate(4, 7)], 64);
    let Some(Effect::Kill { victim, .. }) = arbiter.step(ms(202), again).pop() else { panic!("no kill") };
    assert_eq!(victim.pid, 4);
    arbiter.step(ms(900), sampled(64));
    arbiter.step(ms(901), oom(until(1900, cooling_for(0, ask(3))), 64));
    let reused = Candidate { started: 2000, ..candidate(4, 7) };
    let Some(Effect::Kill { victim, .. }) = arbiter.step(ms(902), found(3, &[reused], 64)).pop() else {
        panic!("another process with the same pid may be killed")
    };
    assert_eq!(victim.started, 2000);
}

#[test]
fn all_of_a_cgroup_that_was_killed_count_as_dying() {
    let mut arbiter = Arbiter::new(TARGET);
    let by_cgroup = |n| {
        let mut ask = until(9000, cooling_for(0, ask(n)));
        ask.rules.kill.scope = KillScope::Cgroup;
        ask
    };
    let pair = [candidate(10, 8), Candidate { pid: 11, ..candidate(10, 7) }];
    arbiter.step(ms(0), oom(by_cgroup(1), 64));
    arbiter.step(ms(1), found(1, &pair, 64));
    arbiter.step(ms(2), killed(1));
    arbiter.step(ms(2), Input::Settled { id: id(1) });
    arbiter.step(ms(3), oom(by_cgroup(2), 64));
    assert_eq!(arbiter.step(ms(4), found(2, &pair, 64)), [refused(2, Reason::NoVictim)]);
}

#[test]
fn a_grant_says_that_somebody_was_killed_only_when_that_is_known() {
    let mut arbiter = Arbiter::new(TARGET);
    arbiter.step(ms(0), oom(ask(1), 64));
    arbiter.step(ms(1), found(1, &[candidate(10, 8)], 64));
    assert_eq!(arbiter.step(ms(2), sampled(58)), [arm(200)], "the kill may not have been made");
    assert_eq!(arbiter.step(ms(2), oom(ask(2), 58)), [], "what the first one needs is kept for it");
    arbiter.step(ms(3), killed(1));
    assert_eq!(arbiter.step(ms(8), sampled(58))[0], verdict(1, true, Reason::Room, true));
}

#[test]
fn dry_run_says_what_would_have_been_and_kills_nobody() {
    let answer = |n, reason, victim: Option<Victim>, would_have| Effect::Answer {
        id: id(n),
        mount: name("m"),
        verdict: Verdict { id: id(n), grant: false, reason, killed: false },
        victim,
        would_have: Some(would_have),
    };
    let mut arbiter = Arbiter::new(TARGET);
    assert_eq!(arbiter.step(ms(0), oom(dry(ask(1)), 64))[0], look(1));
    let nobody = [answer(1, Reason::NoVictim, None, Outcome::Enospc)];
    assert_eq!(arbiter.step(ms(1), found(1, &[candidate(10, 1)], 64)), nobody);
    arbiter.step(ms(2), oom(dry(ask(2)), 64));
    let somebody = Some(candidate(10, 8).named());
    let killed = [answer(2, Reason::NoVictim, somebody, Outcome::GrantedAfterKill)];
    assert_eq!(arbiter.step(ms(3), found(2, &[candidate(10, 8)], 64)), killed);
    let cooling = [answer(3, Reason::Cooldown, None, Outcome::Enospc)];
    assert_eq!(arbiter.step(ms(4), oom(dry(ask(3)), 64)), cooling);
    let late = dry(until(1300, ask(4)));
    arbiter.step(ms(1003), oom(late, 64));
    let late = answer(4, Reason::Deadline, None, Outcome::EnospcTimeout);
    assert_eq!(arbiter.step(ms(1300), sampled(64)), [late]);
    assert_eq!(arbiter.step(ms(1301), oom(dry(until(1400, ask(5))), 0)), [granted(5)]);
}

#[test]
fn a_clock_that_goes_back_stands_still() {
    let mut arbiter = Arbiter::new(TARGET);
    arbiter.step(ms(5000), oom(until(5200, ask(1)), 64));
    arbiter.step(ms(5001), found(1, &[candidate(10, 8)], 64));
    arbiter.step(ms(5002), killed(1));
    arbiter.step(ms(0), sampled(58));
    assert_eq!(arbiter.step(ms(0), oom(until(5200, ask(2)), 64)), [refused(2, Reason::Cooldown)]);
    assert_eq!(arbiter.step(ms(0), oom(until(5000, ask(3)), 0)), [refused(3, Reason::Deadline)]);
}
