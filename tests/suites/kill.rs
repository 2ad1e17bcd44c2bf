//! `on-full = "kill"`: who is killed, who is not, and that all who tell of it say the same (R20, R32).

use std::{
    fs,
    time::{Duration, Instant},
};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Report, Waiting, report},
    host::TIMED,
    mount::Mount,
    people::{Place, history},
    service::ctl,
    vm_tests,
    wait::until,
};

const REFUSED: Report = Report { done: 0, errno: Some(28) };

/// The limit of most targets here: room for people and a reserve of 4 MiB.
const LIMIT: u64 = 64 * MIB;

fn granted(mib: u64) -> Report {
    Report { done: mib * MIB, errno: None }
}

vm_tests! { TIMED;
    /// R20, R32: the largest is killed, and the count, the history, the journal and both signals name the one who is
    /// gone. A smaller one, one whose death would not free enough, one outside, the charger and the store live.
    fn r20_the_largest_is_killed_and_everybody_says_so() {
        let mut place = Place::make("/target", LIMIT, &[("own", 16), ("own", 24), ("own", 3)], &[]);
        assert_eq!(place.ask("f", 20), granted(20));
        place.assert_dead(&[1]);
        let event = place.assert_killed(1, "own", 1);
        assert_eq!(event["bytes_asked"], 20 * MIB, "{event}");
        assert_eq!((&event["operation"], &event["limit_kind"]), (&"fallocate".into(), &"target".into()), "{event}");
        assert_eq!((&event["limit_path"], &event["limit_name"]), (&"/target".into(), &"memory.max".into()), "{event}");
        assert_eq!(event["charger_comm"], "memcharge-probe", "{event}");
        let missing = event["bytes_missing"].as_u64().unwrap();
        assert!((4 * MIB..16 * MIB).contains(&missing), "3 MiB would not have been enough: {event}");
        assert_eq!(history("m").len(), 1);
        assert_eq!(place.mount.number("denials"), 0);
        assert_eq!(place.mount.properties()["last_outcome"]["id"], event["id"]);
        assert!(place.mount.number("used_bytes") >= 20 * MIB);
    }

    /// R20: the policy names the one: the newest, or the one with the highest score, of those who free enough.
    fn r20_the_newest_or_the_highest_score_is_killed() {
        for (at, (order, victim)) in [("newest", 2), ("oom-score", 1)].into_iter().enumerate() {
            let people = [("own", 18), ("own", 14), ("own", 12), ("own", 2)];
            let setting = format!("kill.victim={order}");
            let mut place = Place::make(&format!("/t{at}"), LIMIT, &people, &["--set", &setting]);
            for (person, score) in [(1, "500"), (3, "900")] {
                fs::write(format!("/proc/{}/oom_score_adj", place.people[person].pid()), score).unwrap();
            }
            assert_eq!(place.ask("f", 16), granted(16), "{order}");
            place.assert_dead(&[victim]);
            place.assert_killed(victim, "own", 1);
            place.end();
        }
    }

    /// R20: what a glob protects, and what no one may kill, is spared; the next best dies. A frozen one can be killed.
    fn r20_the_protected_are_spared() {
        let people = [("db-1.service/inner", 20), ("own", 14), ("cold", 10), ("own", 2)];
        let more = ["--set", "kill.protect=web-*,db-*.service"];
        let mut place = Place::make("/target", LIMIT, &people, &more);
        fs::write(format!("/proc/{}/oom_score_adj", place.people[1].pid()), "-1000").unwrap();
        let cold = Cg::at("/target/cold");
        cold.write("cgroup.freeze", "1");
        until("it is frozen", || cold.read("cgroup.events").contains("frozen 1").then_some(()));
        assert_eq!(place.ask("f", 16), granted(16));
        place.assert_dead(&[2]);
        place.assert_killed(2, "cold", 1);
    }

    /// R20: nobody is killed whose memory is this mount's own pages, or who is too small: ENOSPC, and all live.
    fn r20_a_useless_kill_is_not_made() {
        let mut place = Place::make("/target", LIMIT, &[("own", 3), ("own", 4)], &[]);
        assert_eq!(report(&place.client, &["fallocate", &place.mount.join("held"), &(32 * MIB).to_string()]), granted(32));
        let own = Cg::at("/target/own");
        place.people.push(Waiting::start(&own, &["hold", &place.mount.join("held"), "--map"]));
        assert_eq!(place.ask("f", 24), REFUSED);
        place.assert_dead(&[]);
        place.assert_refused("no-victim", 0);
        assert_eq!(place.mount.number("denials"), 1);
        assert!(!fs::exists(place.mount.join("f")).unwrap() || fs::metadata(place.mount.join("f")).unwrap().len() == 0);
        // With somebody who frees enough, that one dies, although the other one has more memory.
        place.people.push(Waiting::start(&own, &["hog", &(8 * MIB).to_string()]));
        place.ask_until_granted("g", 10 * MIB);
        place.assert_dead(&[3]);
        place.assert_killed(3, "own", 1);
        report(&place.client, &["read", &place.mount.join("held")]);
    }

    /// R20: within the cool-down the next request is refused and nobody dies; after it the next one is killed.
    fn r20_a_cool_down_lies_between_two_kills() {
        const COOLDOWN: Duration = Duration::from_secs(15);
        let mut place = Place::make("/target", LIMIT, &[("own", 20), ("own", 16), ("own", 8)], &[]);
        let start = Instant::now();
        assert_eq!(place.ask("f", 18), granted(18));
        assert_eq!(place.ask("g", 16), REFUSED);
        assert!(start.elapsed() < COOLDOWN, "the machine is too slow for this test: {:?}", start.elapsed());
        place.assert_dead(&[0]);
        place.assert_refused("cooldown", 1);
        let refused = history("m").len();
        place.ask_until_granted("g", 16 * MIB);
        assert!(start.elapsed() >= COOLDOWN, "killed again after {:?}", start.elapsed());
        place.assert_dead(&[0, 1]);
        place.assert_killed(1, "own", 2);
        for event in &history("m")[refused..history("m").len() - 1] {
            assert_eq!(event["reason"], "cooldown", "{event}");
        }
        // A shorter one counts at once.
        let _ = ctl(&["set", "m", "kill.cooldown=0"]).ok();
        place.ask_until_granted("h", 18 * MIB);
        place.assert_dead(&[0, 1, 2]);
    }

    /// R20: two mounts of one target that are short at once kill one process, not two.
    fn r20_two_mounts_do_not_kill_twice() {
        // No room for either of them before the kill, for both after it.
        let mut place = Place::make("/target", LIMIT, &[("own", 24), ("own", 20), ("own", 1)], &[]);
        let other = Mount::make("n", "/target", &["--on-full", "kill", "--set", "deadline=5s"]);
        let asks = [place.mount.join("f"), other.join("f")].map(|file| {
            let client = place.client.clone();
            std::thread::spawn(move || report(&client, &["fallocate", &file, &(13 * MIB).to_string()]))
        });
        for ask in asks {
            assert_eq!(ask.join().unwrap(), granted(13));
        }
        place.assert_dead(&[0]);
        assert_eq!(place.mount.number("kills") + other.number("kills"), 1);
        let killers = || {
            let events = [history("m"), history("n")].concat();
            events.into_iter().filter(|event| event["outcome"] == "granted-after-kill").count()
        };
        until("it is recorded", || (killers() > 0).then_some(()));
        assert_eq!(killers(), 1, "{:?} {:?}", history("m"), history("n"));
        // The cool-down is the target's: it counts for the other mount, too.
        for (mount, name) in [(&place.mount, "m"), (&other, "n")] {
            assert_eq!(report(&place.client, &["fallocate", &mount.join("g"), &(20 * MIB).to_string()]), REFUSED);
            until("it is recorded", || history(name).last().is_some_and(|event| event["reason"] == "cooldown").then_some(()));
        }
        place.assert_dead(&[0]);
        assert_eq!(killers(), 1);
    }

    /// R19, R20: nobody is killed for a mount's own cap, nor for a name.
    fn r19_r20_nobody_is_killed_for_the_cap_or_for_a_name() {
        let mut place = Place::make("/target", LIMIT, &[("own", 20)], &["--size", "8M"]);
        assert_eq!(place.ask("f", 9), REFUSED);
        let event = place.assert_refused("cap", 0);
        assert_eq!((&event["limit_kind"], &event["limit_name"]), (&"mount".into(), &"size".into()), "{event}");
        place.assert_dead(&[]);
        // The target's own tasks take what is left but 3 MiB.
        let left = LIMIT - place.target.current() - 3 * MIB;
        place.people.push(Waiting::start(&Cg::at("/target/own"), &["hog", &left.to_string()]));
        let made = place.act(&["make", &place.mount.place, "file", "10000"]);
        assert_eq!(made.errno, Some(28), "{made:?}");
        place.assert_dead(&[]);
        let event = place.assert_refused("metadata", 0);
        assert_eq!((&event["operation"], &event["limit_kind"]), (&"make".into(), &"target".into()), "{event}");
        assert_eq!(event["bytes_asked"], 0, "{event}");
    }
}
