//! Asks that are answered, wait, and are given up.

use super::{super::*, *};

#[test]
fn room_is_granted_and_counts_as_taken_until_the_store_has_reported() {
    let mut arbiter = Arbiter::new(TARGET);
    // 7 MiB are left: the reserve, the margin, and two asks.
    assert_eq!(arbiter.step(ms(0), oom(ask(1), 57)), [granted(1)]);
    assert_eq!(arbiter.step(ms(0), oom(ask(2), 57)), [granted(2)]);
    assert_eq!(arbiter.step(ms(0), oom(ask(3), 57))[0], look(3));
    assert_eq!(arbiter.step(ms(1), Input::Settled { id: id(1) }), []);
    assert_eq!(arbiter.step(ms(2), sampled(57)), [granted(3)]);
}

#[test]
fn a_promise_that_nobody_settles_lapses() {
    let mut arbiter = Arbiter::new(TARGET);
    let lapse = ms(200) + answers::GRACE;
    assert_eq!(arbiter.step(ms(0), oom(ask(1), 58)), [granted(1)]);
    let enospc = |n| {
        let mut ask = until(9000, ask(n));
        ask.rules.on_full = OnFull::Enospc;
        ask
    };
    assert_eq!(arbiter.step(lapse - ms(1), oom(enospc(2), 58)), [refused(2, Reason::Policy)]);
    assert_eq!(arbiter.step(lapse, oom(enospc(3), 58)), [granted(3)]);
}

#[test]
fn who_may_not_wait_is_refused_at_once() {
    for (limit, on_full, operation, reason) in [
        (LimitName::Max, OnFull::Enospc, Operation::Write, Reason::Policy),
        (LimitName::Size, OnFull::Kill, Operation::Write, Reason::Cap),
        (LimitName::Inodes, OnFull::Kill, Operation::Make, Reason::Cap),
        (LimitName::Machine, OnFull::Kill, Operation::Write, Reason::Machine),
        (LimitName::High, OnFull::Kill, Operation::Make, Reason::Metadata),
        (LimitName::Unreadable, OnFull::Kill, Operation::Write, Reason::TargetLost),
    ] {
        let mut ask = ask(1);
        (ask.asked.limit, ask.asked.operation, ask.rules.on_full) = (limit, operation, on_full);
        assert_eq!(Arbiter::new(TARGET).step(ms(0), oom(ask, 64)), [refused(1, reason)]);
    }
}

#[test]
fn what_does_not_fit_stops_no_smaller_one() {
    let mut arbiter = Arbiter::new(TARGET);
    let mut large = ask(1);
    large.asked.bytes = Bytes::mib(20);
    arbiter.step(ms(0), oom(large, 64));
    arbiter.step(ms(0), oom(ask(2), 64));
    assert_eq!(arbiter.step(ms(1), sampled(57)), [granted(2), arm(200)]);
}

#[test]
fn an_ask_that_comes_does_not_overtake_one_that_waits() {
    let mut arbiter = Arbiter::new(TARGET);
    arbiter.step(ms(0), oom(ask(1), 64));
    assert_eq!(arbiter.step(ms(1), oom(ask(2), 58)), [granted(1), look(2)]);
}

#[test]
fn at_the_deadline_all_are_refused() {
    let mut arbiter = after_kill();
    assert_eq!(arbiter.step(ms(3), oom(until(300, ask(2)), 64)), []);
    arbiter.step(ms(199), sampled(64));
    let not_freed = verdict(1, false, Reason::NotFreed, true);
    assert_eq!(arbiter.step(ms(200), sampled(64))[0], not_freed, "a kill was made for it");
    assert_eq!(arbiter.step(ms(300), sampled(64)), [refused(2, Reason::Deadline)], "it has only waited");
    assert_eq!(arbiter.step(ms(300), oom(until(300, ask(3)), 0)), [refused(3, Reason::Deadline)]);
}

#[test]
fn a_look_without_an_answer_is_made_again_for_the_next_who_waits() {
    let mut arbiter = Arbiter::new(TARGET);
    arbiter.step(ms(0), oom(ask(1), 64));
    arbiter.step(ms(0), oom(until(300, ask(2)), 64));
    let effects = [refused(1, Reason::Deadline), look(2), arm(300)];
    assert_eq!(arbiter.step(ms(200), sampled(64)), effects);
    assert_eq!(arbiter.step(ms(201), found(1, &[candidate(10, 8)], 64)), [], "too late");
    assert_eq!(arbiter.step(ms(202), found(2, &[candidate(10, 8)], 64)), [kill(2)]);
}

#[test]
fn only_a_cgroup_that_ran_into_a_limit_is_trimmed() {
    let grown = |name: &str| Delta::Grown(Counters([(name.to_owned(), 1)].into()));
    for (delta, effects) in [
        (grown("high"), vec![Effect::Trim]),
        (grown("max"), vec![Effect::Trim]),
        (grown("oom"), vec![Effect::Trim]),
        (grown("oom_kill"), vec![]),
        (grown("low"), vec![]),
        (Delta::Grown(Counters([("max".to_owned(), 2), ("oom".to_owned(), 1)].into())), vec![Effect::Trim]),
        (Delta::Unchanged, vec![]),
        (Delta::Replaced, vec![]),
    ] {
        let mut arbiter = Arbiter::new(TARGET);
        assert_eq!(arbiter.step(ms(0), Input::Events { delta: delta.clone(), sample: sample(64) }), effects);
        arbiter.step(ms(1), oom(ask(1), 64));
        let effects: Vec<_> = effects.into_iter().chain([granted(1)]).collect();
        assert_eq!(
            arbiter.step(ms(2), Input::Events { delta, sample: sample(0) }),
            effects,
            "room has appeared"
        );
    }
}

#[test]
fn what_waits_is_judged_by_the_new_policy() {
    let enospc = || Input::Policy { mount: name("m"), rules: Rules { on_full: OnFull::Enospc, ..rules() } };
    let mut arbiter = Arbiter::new(TARGET);
    arbiter.step(ms(0), oom(ask(1), 64));
    arbiter.step(ms(0), oom(Ask { mount: name("other"), ..ask(2) }, 64));
    assert_eq!(arbiter.step(ms(1), enospc()), [refused(1, Reason::Policy), look(2)]);

    let mut arbiter = Arbiter::new(TARGET);
    arbiter.step(ms(0), oom(ask(1), 64));
    let kill = KillPolicy { protect: vec!["app-*".into()], ..rules().kill };
    arbiter.step(ms(1), Input::Policy { mount: name("m"), rules: Rules { kill, ..rules() } });
    assert_eq!(arbiter.step(ms(2), found(1, &[candidate(10, 8)], 64)), [refused(1, Reason::NoVictim)]);

    let mut arbiter = after_kill();
    arbiter.step(ms(3), oom(ask(2), 64));
    assert_eq!(
        arbiter.step(ms(4), enospc()),
        [refused(2, Reason::Policy)],
        "somebody died for the first one"
    );
    assert_eq!(arbiter.step(ms(7), sampled(58)), [verdict(1, true, Reason::Room, true)]);
}

#[test]
fn what_a_store_has_given_up_is_not_answered() {
    for input in [Input::Settled { id: id(1) }, Input::Forget { mount: name("m") }] {
        let mut arbiter = Arbiter::new(TARGET);
        arbiter.step(ms(0), oom(ask(1), 64));
        assert_eq!(arbiter.step(ms(1), input), []);
        assert_eq!(arbiter.step(ms(2), found(1, &[candidate(10, 8)], 64)), []);
        assert_eq!(arbiter.step(ms(3), oom(ask(1), 64)), [], "it is not asked again");
        assert_eq!(arbiter.step(ms(200), sampled(64)), []);
    }
}

#[test]
fn what_nobody_has_asked_changes_nothing() {
    let mut arbiter = after_kill();
    for input in [
        found(1, &[candidate(11, 9)], 0),
        found(7, &[candidate(11, 9)], 0),
        killed(1),
        killed(7),
        Input::Killed { id: id(1), result: Err(KillFailure::Refused) },
        oom(ask(1), 64),
        Input::Settled { id: id(7) },
        Input::Forget { mount: name("other") },
        Input::Policy { mount: name("other"), rules: Rules { on_full: OnFull::Enospc, ..rules() } },
    ] {
        assert_eq!(arbiter.step(ms(3), input.clone()), [], "{input:?}");
    }
    assert_eq!(arbiter.step(ms(7), sampled(58)), [verdict(1, true, Reason::Room, true)]);
    assert_eq!(arbiter.step(ms(8), oom(ask(1), 64)), [], "it was answered");
}

#[test]
fn no_more_than_64_wait() {
    let mut arbiter = Arbiter::new(TARGET);
    for n in 0..64 {
        let effects = arbiter.step(ms(0), oom(ask(n), 64));
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Answer { .. })), "{n}");
    }
    assert_eq!(arbiter.step(ms(0), oom(ask(64), 64)), [refused(64, Reason::Busy)]);
    assert_eq!(arbiter.step(ms(200), sampled(64)).len(), 64);
}

#[test]
fn what_is_promised_to_stores_that_never_settle_is_bounded() {
    let mut arbiter = Arbiter::new(TARGET);
    let small = |n| {
        let mut ask = ask(n);
        ask.asked.bytes = Bytes(1);
        ask
    };
    for n in 0..256 {
        assert_eq!(arbiter.step(ms(0), oom(small(n), 0)), [granted(n)]);
    }
    assert_eq!(arbiter.step(ms(0), oom(small(256), 0)), [refused(256, Reason::Busy)]);
}
