//! The watchdogs: what is stuck is started again and loses nothing by it; what is merely frozen is left alone (R28, R33).

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    host::{Needs, PLAIN},
    mount::Mount,
    service::{ctl, sh, unit_property},
    vm_tests,
    wait::until,
};

const NIGHTLY: Needs = Needs { timeout: Duration::from_secs(1200), ..PLAIN };

/// The watchdog's two minutes, and what systemd takes to end a process that does not run.
const LONGEST: Duration = Duration::from_secs(240);

fn stop(pid: impl std::fmt::Display) {
    let _ = sh(&format!("kill -STOP {pid}")).ok();
}

vm_tests! { NIGHTLY;
    #[ignore = "takes minutes; part of the nightly run"]
    fn what_is_stuck_is_started_again_and_what_is_frozen_is_not() {
        let [stuck, frozen] = ["stuck", "frozen"].map(|name| {
            Cg::make(&format!("/{name}")).max(64 * MIB);
            let mount = Mount::make(name, &format!("/{name}"), &[]);
            fs::write(mount.join("f"), "data").unwrap();
            mount
        });
        let (old, cold) = (stuck.store(), frozen.store());
        Cg::at("/frozen").write("cgroup.freeze", "1");
        until("it is said to be frozen", || (frozen.properties()["state"] == "frozen").then_some(()));

        stop(old);
        let start = Instant::now();
        // It waits for the next store, and sees no error.
        assert_eq!(fs::read_to_string(stuck.join("f")).unwrap(), "data");
        fs::write(stuck.join("g"), "more").unwrap();
        println!("a store that was stopped was replaced within {:?}", start.elapsed());
        assert!(start.elapsed() > Duration::from_secs(30), "it was stopped");
        assert!(start.elapsed() < LONGEST);
        assert_ne!(stuck.store(), old);
        // Both had the same time.
        sleep(Duration::from_secs(150).saturating_sub(start.elapsed()));
        assert_eq!((frozen.store(), &frozen.properties()["state"]), (cold, &"frozen".into()));
        Cg::at("/frozen").write("cgroup.freeze", "0");
        assert_eq!(fs::read_to_string(frozen.join("f")).unwrap(), "data");

        let stores = [&stuck, &frozen].map(Mount::store);
        let daemon = unit_property("memcharged", "MainPID");
        stop(&daemon);
        let start = Instant::now();
        while unit_property("memcharged", "MainPID") == daemon {
            assert!(start.elapsed() < LONGEST, "nobody ended it");
            fs::write(stuck.join("g"), "the stores go on").unwrap();
            sleep(Duration::from_secs(5));
        }
        println!("a daemon that was stopped was ended after {:?}", start.elapsed());
        until("memcharged is back", || (ctl(&["list"]).status == 0).then_some(()));
        for (mount, store) in [&stuck, &frozen].into_iter().zip(stores) {
            assert_eq!((mount.store(), &mount.properties()["state"]), (store, &"active".into()));
            assert_eq!(fs::read_to_string(mount.join("f")).unwrap(), "data");
        }
    }
}
