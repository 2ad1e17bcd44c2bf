use std::sync::Arc;

use memcharge_policy::outcome::{LimitName, Operation};

use super::{recent::TELL_REPEATS, *};

fn full() -> Obstacle {
    Obstacle { limit: LimitName::Max, path: Some(Arc::from("/t")) }
}

fn case(obstacle: Obstacle, missing: u64) -> Case {
    let case = Case::new(7, 1000, Operation::Write);
    case.obstruct(obstacle, Bytes::mib(1), Bytes(missing));
    case.tried.set(true);
    case
}

fn new_reports() -> Reports {
    let proc = std::fs::File::open("/proc").unwrap();
    Reports::new(Box::leak(Box::default()), Processes::new(proc.into())).unwrap()
}

fn connected() -> Reports {
    let reports = new_reports();
    reports.connect(true);
    reports
}

fn reports_of(reports: &Reports) -> Vec<Report> {
    let next = || match reports.next_notice().0 {
        Some(Notice::Report(report)) => Some(report),
        None => None,
        other => unreachable!("{other:?}"),
    };
    std::iter::from_fn(next).collect()
}

/// The reports alone.
fn reports_of_all(reports: &Reports) -> Vec<Report> {
    let next = || reports.next_notice().0;
    let report = |notice| if let Notice::Report(report) = notice { Some(report) } else { None };
    std::iter::from_fn(next).filter_map(report).collect()
}

fn denials(reports: &Reports) -> u64 {
    let mut status = StoreStatus {
        used: Bytes(0),
        inodes_used: 0,
        inodes_max: 0,
        headroom: Bytes(0),
        denials: 0,
        kills: 0,
        unrecorded: 0,
    };
    reports.count_into(&mut status);
    status.denials
}

#[test]
fn a_refusal_like_the_last_one_is_a_repeat() {
    let reports = connected();
    drop(reports.refused(&case(full(), 8192), full()));
    let [first] = reports_of(&reports).try_into().unwrap();
    assert_eq!((first.outcome, first.reason, first.repeats), (Outcome::Enospc, Reason::Policy, 0));
    assert!(reports.is_recent(&full(), Bytes(8192)));
    drop(reports.refused(&case(full(), 8192), full()));
    let (notice, _) = reports.next_notice();
    assert_eq!(notice, Some(Notice::Repeats { id: first.id, repeats: 1 }), "the first is told at once");
    drop(reports.refused(&case(full(), 8192), full()));
    let (notice, quiet) = reports.next_notice();
    assert!(notice.is_none() && quiet.is_some_and(|quiet| quiet <= TELL_REPEATS), "the next ones later");
    assert_eq!(denials(&reports), 3);
}

#[test]
fn r32_who_was_refused_is_looked_at_when_they_have_their_answer() {
    let reports = connected();
    let own = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    let case = || {
        let case = Case::new(own, 1000, Operation::Write);
        case.obstruct(full(), Bytes::mib(1), Bytes(8192));
        case
    };
    let seen = reports.processes.charger(own, 1000);
    drop(reports.refused(&case(), full()));
    let [told] = reports_of(&reports).try_into().unwrap();
    assert_eq!(told.charger, seen);
    drop(reports.granted(&case(), &full(), Outcome::Granted).unseen());
    let asked = case();
    asked.sequence.set(Some(77));
    reports.lock().reserved = 1;
    drop(reports.granted(&asked, &full(), Outcome::Granted));
    for unseen in reports_of(&reports) {
        assert_eq!(unseen.charger, None, "there was no memory, or memcharged has seen them");
    }
}

#[test]
fn another_limit_or_a_much_smaller_wish_is_arbitrated_anew() {
    let reports = connected();
    drop(reports.refused(&case(full(), 64 << 20), full()));
    let cap = Obstacle::of(LimitName::Size);
    assert!(!reports.is_recent(&cap, Bytes(64 << 20)));
    assert!(!reports.is_recent(&full(), Bytes(4096)), "a refused GiB says nothing of a page");
    assert!(reports.is_recent(&full(), Bytes::mib(64).minus(Bytes(4096))), "readings move in batches");
}

#[test]
fn nothing_is_lost_or_grows_while_nobody_listens() {
    let reports = new_reports();
    let many = 10 * RING as u64;
    for size in (0..many).rev() {
        // Each one is much smaller than the one before, and so an event of its own as long as there is a place.
        drop(reports.refused(&case(full(), size << 20), full()));
        drop(reports.granted(&case(full(), 4096), &full(), Outcome::GrantedAfterReclaim));
    }
    reports.connect(true);
    let (mut told, mut refusals) = (0, 0);
    while let Some(notice) = reports.next_notice().0 {
        told += 1;
        refusals += match notice {
            Notice::Report(report) => u64::from(report.outcome.is_refusal()) + report.repeats,
            Notice::Repeats { repeats, .. } => repeats,
            Notice::Oom(_) => 0,
        };
    }
    assert!(told <= RING + 1);
    assert_eq!(refusals, many, "each refusal is an event or a repeat");
    assert_eq!(denials(&reports), many);
}

#[test]
fn what_is_recorded_is_not_told_again() {
    let reports = connected();
    drop(reports.refused(&case(full(), 4096), full()));
    let [first] = reports_of(&reports).try_into().unwrap();
    reports.connect(false);
    reports.connect(true);
    assert_eq!(reports_of(&reports).len(), 1, "a new daemon hears it again");
    reports.recorded(first.id);
    reports.connect(true);
    assert!(reports_of(&reports).is_empty());
}

#[test]
fn the_last_count_of_a_recorded_event_is_reported_again() {
    let reports = connected();
    drop(reports.refused(&case(full(), 64 << 20), full()));
    let [first] = reports_of(&reports).try_into().unwrap();
    reports.recorded(first.id);
    drop(reports.refused(&case(full(), 64 << 20), full()));
    drop(reports.refused(&case(full(), 4096), full()));
    let told = reports_of(&reports);
    assert_eq!(
        told.iter().map(|r| (r.id == first.id, r.repeats)).collect::<Vec<_>>(),
        [(true, 1), (false, 0)]
    );
}

#[test]
fn a_question_has_an_answer_by_its_deadline_at_the_latest() {
    let reports = new_reports();
    let until = || Instant::now() + Duration::from_millis(30);
    let verdict = reports.ask(&case(full(), 4096), &full(), until()).unwrap();
    assert_eq!((verdict.grant, verdict.reason), (false, Reason::NoDaemon), "nobody is asked");
    reports.connect(true);
    assert_eq!(reports.ask(&case(full(), 4096), &full(), until()), None, "nobody answers");
    std::thread::scope(|scope| {
        let asked = case(full(), 4096);
        scope.spawn(|| {
            let oom = loop {
                if let Some(Notice::Oom(oom)) = reports.next_notice().0 {
                    break oom;
                }
            };
            let stale = Verdict { id: EventId(1), grant: false, reason: Reason::Cooldown, killed: false };
            reports.judge(stale);
            reports.judge(Verdict { id: oom.id, grant: true, reason: Reason::Room, killed: true });
        });
        let verdict = reports.ask(&asked, &full(), Instant::now() + Duration::from_secs(10));
        assert!(verdict.is_some_and(|verdict| verdict.grant && verdict.killed));
    });
}

#[test]
fn a_count_that_is_still_to_be_told_outlives_the_record_of_an_earlier_one() {
    let reports = connected();
    drop(reports.refused(&case(full(), 64 << 20), full()));
    let [first] = reports_of(&reports).try_into().unwrap();
    drop(reports.refused(&case(full(), 64 << 20), full()));
    drop(reports.refused(&case(full(), 4096), full()));
    reports.recorded(first.id);
    let told = reports_of(&reports);
    assert_eq!(
        told.iter().map(|r| (r.id == first.id, r.repeats)).collect::<Vec<_>>(),
        [(true, 1), (false, 0)]
    );
}

#[test]
fn after_a_change_of_the_rules_nothing_is_a_repeat() {
    let reports = connected();
    drop(reports.refused(&case(full(), 4096), full()));
    assert!(reports.is_recent(&full(), Bytes(4096)));
    reports.forget();
    assert!(!reports.is_recent(&full(), Bytes(4096)));
}

#[test]
fn a_refusal_for_which_nothing_was_tried_stands_for_no_other() {
    let reports = connected();
    let quick = case(full(), 4096);
    quick.tried.set(false);
    drop(reports.refused(&quick, full()));
    assert!(!reports.is_recent(&full(), Bytes(4096)), "the next one is arbitrated");
    drop(reports.refused(&case(full(), 4096), full()));
    assert!(reports.is_recent(&full(), Bytes(4096)));
    assert_eq!(reports_of(&reports).len(), 2);
    drop(reports.refused(&quick, full()));
    let (notice, _) = reports.next_notice();
    assert!(
        matches!(notice, Some(Notice::Repeats { repeats: 1, .. })),
        "a quick one after that is its repeat"
    );
}

#[test]
fn a_report_that_was_told_twice_stays_until_both_are_recorded() {
    let reports = connected();
    drop(reports.refused(&case(full(), 64 << 20), full()));
    let [first] = reports_of(&reports).try_into().unwrap();
    drop(reports.refused(&case(full(), 64 << 20), full()));
    drop(reports.refused(&case(full(), 4096), full()));
    assert_eq!(reports_of(&reports).len(), 2, "the first again, with its count");
    reports.recorded(first.id);
    reports.connect(true);
    assert!(
        reports_of(&reports).iter().any(|r| (r.id, r.repeats) == (first.id, 1)),
        "a new daemon hears the count"
    );
    reports.recorded(first.id);
    reports.connect(true);
    assert!(reports_of(&reports).iter().all(|r| r.id != first.id));
}

#[test]
fn what_was_asked_has_its_place_among_the_reports() {
    let reports = connected();
    let asked = case(full(), 64 << 20);
    assert_eq!(reports.ask(&asked, &full(), Instant::now()), None);
    for size in (0..2 * RING as u64).rev() {
        drop(reports.refused(&case(full(), size << 20), full()));
    }
    drop(reports.granted(&asked, &full(), Outcome::GrantedAfterKill));
    let outcomes: Vec<_> = reports_of_all(&reports).into_iter().map(|report| report.outcome).collect();
    assert!(outcomes.len() <= RING && outcomes.contains(&Outcome::GrantedAfterKill), "{outcomes:?}");
}

#[test]
fn a_quick_refusal_is_a_repeat_although_the_moment_has_passed() {
    let reports = connected();
    drop(reports.refused(&case(full(), 4096), full()));
    let quick = case(full(), 4096);
    quick.quick.set(true);
    reports.forget();
    drop(reports.refused(&quick, full()));
    assert_eq!(reports_of_all(&reports).len(), 1);
}

#[test]
fn what_is_told_wakes_a_moment_later_and_a_question_at_once() {
    let reports = connected();
    let is_woken = |pause: i64| {
        let mut polls =
            [rustix::event::PollFd::from_borrowed_fd(reports.wake_fd(), rustix::event::PollFlags::IN)];
        let limit = rustix::time::Timespec { tv_sec: pause, tv_nsec: 0 };
        rustix::event::poll(&mut polls, Some(&limit)).unwrap() == 1
    };
    drop(reports.refused(&case(full(), 64 << 20), full()));
    assert!(is_woken(10));
    reports.heard();
    assert!(!is_woken(0), "once");
    drop(reports.refused(&case(full(), 4096), full()));
    assert_eq!(reports.ask(&case(full(), 64 << 20), &full(), Instant::now()), None);
    drop(reports.granted(&case(full(), 4096), &full(), Outcome::Granted));
    assert!(is_woken(10), "a question is not put off by what is told after it");
}
