//! The daemon is killed while mounts are made, changed and ended (R27).

use std::fs;

use memcharge_tests::{
    killer::{DAEMON, Killer, Plan},
    mount::leftovers,
    random::Random,
    service::{ctl, run, sh},
    vm_tests,
    wait::until,
};

use crate::crash::{CRASH, target};

/// What a test knows of a mount while the daemon is killed under the calls that change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Absent,
    Mounted(u64),
    /// A call has failed: it may have been done.
    Unknown,
}

/// memchargectl while the daemon comes and goes: whether it says that it was done.
fn try_ctl(words: &[&str]) -> bool {
    run(&[&["timeout", "60", "memchargectl", "--quiet"], words].concat()).status == 0
}

/// One change of one mount at random. Returns what is known of it then.
fn change(name: &str, known: Known, round: u64, random: &mut Random) -> Known {
    let place = format!("/run/shared/{name}");
    let mark = format!("{place}/mark");
    if let Known::Mounted(number) = known {
        assert_eq!(fs::read_to_string(&mark).unwrap(), number.to_string(), "what {name} holds");
    }
    match (known, random.below(3)) {
        (Known::Mounted(_), 0..2) => {
            let _ = try_ctl(&["set", name, &format!("reserve={}M", 1 + random.below(8))]);
            known
        }
        (Known::Absent, _) | (Known::Unknown, 0) => {
            let target = ["/t", "t.slice"][random.below(2) as usize];
            if !try_ctl(&["mount", name, "--where", &place, "--target", target]) {
                return Known::Unknown;
            }
            fs::write(&mark, round.to_string()).unwrap();
            Known::Mounted(round)
        }
        _ if try_ctl(&["unmount", name]) => Known::Absent,
        _ => Known::Unknown,
    }
}

/// A mount is there and works, or nothing of it is left.
fn assert_whole(name: &str, known: Known) {
    let place = format!("/run/shared/{name}");
    let shown = ctl(&["--json", "show", name]);
    println!("{name}: {known:?}, shown: {}", shown.status);
    if shown.status == 0 {
        assert_ne!(known, Known::Absent, "{name} was unmounted");
        until("it is active", || ctl(&["--json", "show", name]).out.contains("\"active\"").then_some(()));
        if let Known::Mounted(number) = known {
            assert_eq!(fs::read_to_string(format!("{place}/mark")).unwrap(), number.to_string());
        }
        fs::write(format!("{place}/new"), "works").unwrap();
        assert_eq!(fs::read_to_string(format!("{place}/new")).unwrap(), "works");
        let _ = ctl(&["unmount", name]).ok();
    } else {
        assert!(!matches!(known, Known::Mounted(_)), "{name} was mounted: {}", shown.err);
    }
    until("nothing of it is left", || {
        let left = leftovers(name, &place);
        if !left.is_empty() {
            println!("{left:?}");
        }
        left.is_empty().then_some(())
    });
}

vm_tests! { CRASH;
    /// R27: whatever the daemon was doing when it was killed, each mount is there and works, or nothing of it is left.
    fn r27_the_daemon_is_killed_between_everything() {
        const NAMES: [&str; 4] = ["a", "b", "c", "d"];
        // systemd would give up a service that dies so often.
        let dir = "/run/systemd/system/memcharged.service.d";
        fs::create_dir_all(dir).unwrap();
        fs::write(format!("{dir}/test.conf"), "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestartSec=100ms\n").unwrap();
        let _ = sh("systemctl daemon-reload && systemctl start memcharged").ok();
        let targets = [target("/t"), target("t.slice")];
        let plan = Plan { every: 100..1500, ..Plan::daemon() };
        let (killer, mut random) = (Killer::start(plan, 27), Random::new(27));
        let mut known = NAMES.map(|_| Known::Absent);
        for round in 0..100 {
            let at = random.below(NAMES.len() as u64) as usize;
            known[at] = change(NAMES[at], known[at], round, &mut random);
        }
        let kills = killer.stop();
        println!("{kills} daemons were killed; {known:?}");
        assert!(kills > 10, "only {kills} daemons were killed");
        let _ = run(&["systemctl", "restart", DAEMON]).ok();
        for (name, known) in NAMES.into_iter().zip(known) {
            assert_whole(name, known);
        }
        let [raw, _] = targets;
        until("no leaf of a store is left", || (raw.children() == ["own"]).then_some(()));
        assert_eq!(raw.event("oom_kill"), 0);
    }
}
