//! R29: a mount gets another target. Its files and its clients stay.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    thread,
};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::report,
    host::PLAIN,
    mount::Mount,
    service::{Said, ctl, run, sh, start_daemon, unit_property},
    vm_tests,
    wait::until,
};

use crate::faults::{FAULTY, arm, assert_fired, install, settle};

/// What the kernel's counters may lag, and what a file costs beside its pages.
const ABOUT: u64 = MIB / 2;

/// More than any target here has.
const ENDLESS: &str = "1000000000";

const ENOSPC: Option<i32> = Some(28);

fn retarget(target: &str, more: &[&str]) -> Said {
    ctl(&[&["retarget", "m", target], more].concat())
}

/// What a cgroup and all below it are charged for files in memory, also those below that are gone.
fn shmem(cg: &str) -> u64 {
    Cg::at(cg).stat("shmem")
}

fn assert_about(what: &str, found: u64, expected: u64) {
    assert!(found.abs_diff(expected) < ABOUT, "{what}: {found}, not about {expected}");
}

/// Slices with a limit, which are there.
fn slices() {
    for (name, max) in [("a", 64), ("b", 48)] {
        fs::write(format!("/run/systemd/system/{name}.slice"), format!("[Slice]\nMemoryMax={max}M\n"))
            .unwrap();
    }
    let _ = sh("systemctl daemon-reload && systemctl start a.slice b.slice").ok();
}

/// Writes and reads without a pause until it is told to stop. Returns how often; an error fails the test.
fn busy(file: &File, stop: &std::sync::atomic::AtomicBool) -> u64 {
    let mut rounds = 0u64;
    while !stop.load(std::sync::atomic::Ordering::SeqCst) {
        let text = rounds.to_le_bytes();
        file.write_all_at(&text, 4096 * (rounds % 16)).unwrap();
        let mut back = [0; 8];
        file.read_exact_at(&mut back, 4096 * (rounds % 16)).unwrap();
        assert_eq!(back, text);
        rounds += 1;
    }
    rounds
}

vm_tests! { PLAIN;
    /// The default: refused while there are data, with the numbers; done while there are none.
    fn r29_refused_while_there_are_data() {
        slices();
        let client = Cg::make("/client");
        let mount = Mount::make("m", "a.slice", &["--set", "reserve=1M"]);
        report(&client, &["write", &mount.join("f"), &(8 * MIB).to_string()]);
        for more in [&[][..], &["--mode", "refuse"]] {
            let said = retarget("b.slice", more).failed(1);
            println!("{}", said.err.trim());
            assert!(said.err.contains("8M") && said.err.contains("a.slice") && said.err.contains("future-only"));
        }
        assert_eq!(mount.properties()["target"], "a.slice");
        fs::remove_file(mount.join("f")).unwrap();
        let store = mount.store();
        let _ = retarget("b.slice", &[]).ok();
        assert_eq!((mount.properties()["target"].clone(), mount.number("previous_bytes")), ("b.slice".into(), 0));
        assert_eq!(mount.leaf().path(), "/b.slice/memcharge-store-m.service");
        assert_ne!(mount.store(), store);
        assert!(!ctl(&["status", "m"]).ok().out.contains("Earlier"), "nobody else pays");
        let before = (shmem("/a.slice"), shmem("/b.slice"));
        report(&client, &["write", &mount.join("g"), &(8 * MIB).to_string()]);
        assert_about("b.slice pays", shmem("/b.slice") - before.1, 8 * MIB);
        assert_about("a.slice does not", shmem("/a.slice"), before.0);
        // To where it is already.
        let store = mount.store();
        let _ = retarget("b.slice", &[]).ok();
        assert_eq!(mount.store(), store);
    }

    /// Old pages stay where they are, new ones are charged to the new target, of whatever kind; both balances are shown.
    fn r29_future_only_from_target_to_target() {
        slices();
        Cg::make("/raw").max(40 * MIB);
        let _ = run(&["systemd-run", "--unit=svc", "-pMemoryMax=64M", "sleep", "infinity"]).ok();
        let client = Cg::make("/client");
        let mount = Mount::make("m", "a.slice", &["--set", "reserve=1M", "--set", "deadline=5s"]);
        report(&client, &["write", &mount.join("0"), &(8 * MIB).to_string()]);
        let content = fs::read(mount.join("0")).unwrap();
        let mut earlier = vec!["a.slice"];
        let places = [("/raw", "/raw"), ("svc.service", "/system.slice/svc.service"), ("b.slice", "/b.slice")];
        for (round, (target, cgroup)) in (1u64..).zip(places) {
            let held: Vec<u64> = ["/a.slice", "/raw", "/b.slice"].map(shmem).to_vec();
            let _ = retarget(target, &["--mode", "future-only"]).ok();
            let after: Vec<u64> = ["/a.slice", "/raw", "/b.slice"].map(shmem).to_vec();
            for (before, after) in held.iter().zip(&after) {
                assert_about("what was charged stays", *after, *before);
            }
            let before = shmem(cgroup);
            report(&client, &["write", &mount.join(&round.to_string()), &(4 * MIB).to_string()]);
            assert_about(&format!("{target} pays"), shmem(cgroup) - before, 4 * MIB);
            let properties = mount.properties();
            assert_eq!(properties["previous_targets"], serde_json::json!(earlier), "{target}");
            assert_eq!(mount.number("previous_bytes"), (8 + 4 * (round - 1)) * MIB, "{target}");
            assert_eq!(properties["state"], "active");
            let status = ctl(&["status", "m"]).ok().out;
            println!("{status}");
            assert!(status.contains(&format!("Target: {target}\n")) && status.contains("Earlier: up to "), "{status}");
            earlier.push(target);
        }
        assert!(!Cg::at("/raw").children().contains(&"memcharge-m".to_owned()), "the cgroup it had there is gone");
        assert_eq!(fs::read(mount.join("0")).unwrap(), content);
        // The new limit is the one that counts now, and nobody dies at it.
        let filled = report(&client, &["write", &mount.join("full"), ENDLESS]);
        assert_eq!(filled.errno, ENOSPC);
        assert!(filled.done < 48 * MIB && Cg::at("/b.slice").event("oom_kill") == 0, "{filled:?}");
        assert!(ctl(&["history", "m"]).ok().out.contains("/b.slice"));
        for name in ["full", "3", "2", "1", "0"] {
            fs::remove_file(mount.join(name)).unwrap();
        }
        until("what is freed is nobody's", || (shmem("/a.slice") < ABOUT && shmem("/raw") < ABOUT).then_some(()));
        assert_eq!(mount.number("previous_bytes"), 0);
        // The data alone are kept: a connection that is held as well would never end.
        until("no connection is kept", || (unit_property("memcharged", "NFileDescriptorStore") == "3").then_some(()));
        mount.unmount();
        until("nothing is kept", || (unit_property("memcharged", "NFileDescriptorStore") == "0").then_some(()));
    }

    /// Clients that work all the while notice nothing but a pause; a store that is killed afterwards, and a daemon that is
    /// started again, go on with the new target.
    fn r29_clients_notice_nothing() {
        slices();
        let mount = Mount::make("m", "a.slice", &["--set", "reserve=1M"]);
        let stop = std::sync::atomic::AtomicBool::new(false);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(mount.join("busy")).unwrap();
        thread::scope(|scope| {
            let worker = scope.spawn(|| busy(&file, &stop));
            for target in ["b.slice", "a.slice", "b.slice"] {
                let _ = retarget(target, &["--mode", "future-only"]).ok();
                fs::write(mount.join(target), target).unwrap();
            }
            stop.store(true, std::sync::atomic::Ordering::SeqCst);
            println!("{} rounds", worker.join().unwrap());
        });
        let _ = sh(&format!("kill -9 {}", mount.store())).ok();
        assert_eq!(fs::read_to_string(mount.join("a.slice")).unwrap(), "a.slice");
        until("it is back", || (mount.properties()["state"] == "active").then_some(()));
        assert_eq!(mount.leaf().path(), "/b.slice/memcharge-store-m.service");
        let _ = run(&["systemctl", "restart", "memcharged"]).ok();
        let properties = mount.properties();
        assert_eq!((properties["target"].clone(), properties["state"].clone()), ("b.slice".into(), "active".into()));
        assert_eq!(properties["previous_targets"], serde_json::json!(["b.slice", "a.slice"]));
        let before = shmem("/b.slice");
        report(&Cg::make("/client"), &["write", &mount.join("new"), &(4 * MIB).to_string()]);
        assert_about("b.slice pays", shmem("/b.slice") - before, 4 * MIB);
    }

    /// What cannot be done is refused with what to do, and changes nothing.
    fn r29_refusals_change_nothing() {
        slices();
        Cg::make("/small").max(2 * MIB);
        let _ = Cg::make("/nomem/inner");
        let client = Cg::make("/client");
        let mount = Mount::make("m", "a.slice", &["--size", "50%", "--set", "reserve=1M"]);
        report(&client, &["write", &mount.join("f"), &(28 * MIB).to_string()]);
        let store = mount.store();
        let future = &["--mode", "future-only"][..];
        for (target, more, status, words) in [
            ("/absent", future, 1, "/absent"),
            ("absent.service", future, 1, "absent.service"),
            ("/small", future, 1, "headroom"),
            ("b.slice", future, 1, "28M"),
            ("b.slice", &["--mode", "migrate"], 1, "not built yet"),
            ("nothing", future, 1, "nothing"),
            ("b.slice", &["--mode", "half"], 2, "half"),
        ] {
            let said = retarget(target, more).failed(status);
            println!("{target} {more:?}: {}", said.err.trim());
            assert!(said.err.contains(words), "{words}: {}", said.err);
            assert_eq!((mount.store(), mount.properties()["target"].clone()), (store, "a.slice".into()), "{target}");
        }
        let said = ctl(&["retarget", "other", "b.slice"]).failed(5);
        assert!(said.err.contains("other"), "{}", said.err);
        assert_eq!(mount.properties()["state"], "active");
    }

    /// A mount from a file: the file still says who pays after the next boot, and a reload says so.
    fn r29_the_file_is_not_changed() {
        slices();
        let file = "/etc/memcharge/mounts.d/m.toml";
        let text = |target: &str| format!("where = \"/run/shared/m\"\ntarget = \"{target}\"\nreserve = \"1M\"\n");
        fs::write(file, text("a.slice")).unwrap();
        start_daemon();
        let _ = ctl(&["set", "m", "reserve=2M"]).ok();
        let _ = retarget("b.slice", &[]).ok();
        let _ = ctl(&["revert", "m"]).ok();
        let mount = Mount { name: "m".to_owned(), place: "/run/shared/m".to_owned() };
        assert_eq!((mount.properties()["target"].clone(), mount.number("reserve")), ("b.slice".into(), MIB));
        let said = ctl(&["reload"]).failed(1);
        println!("{}", said.err.trim());
        assert!(said.err.contains("retarget m"), "{}", said.err);
        assert_eq!(mount.properties()["target"], "b.slice");
        fs::write(file, text("b.slice")).unwrap();
        let _ = ctl(&["reload"]).ok();
        assert_eq!(mount.properties()["target"], "b.slice");
    }
}

vm_tests! { FAULTY;
    /// R27, R28: the daemon, or the new store, dies at each step. The mount is there with its data, and somebody pays.
    fn r29_killed_while_moving() {
        install();
        slices();
        const ALL: &[&str] = &[
            "retarget.recorded", "retarget.stopped", "mount.started", "mount.placed", "mount.sent", "retarget.launched",
            "retarget.written", "start.received", "start.keeping", "start.kept", "start.table", "start.session",
            "resume.asked", "start.ready",
        ];
        const SOME: &[&str] = &["retarget.stopped", "mount.placed", "retarget.launched", "start.kept"];
        for (targets, places) in
            [(["a.slice", "b.slice"], ALL), (["/t", "a.slice"], SOME), (["b.slice", "/t"], SOME)]
        {
            let mount = Mount::make("m", targets[0], &["--set", "reserve=1M"]);
            for &place in places {
                let from = mount.properties()["target"].as_str().unwrap().to_owned();
                let to = if from == targets[0] { targets[1] } else { targets[0] };
                fs::write(mount.join("mark"), place).unwrap();
                arm(place);
                let said = retarget(to, &["--mode", "future-only"]);
                assert_fired(place);
                settle();
                assert_eq!(fs::read_to_string(mount.join("mark")).unwrap(), place);
                until("it is active", || (mount.properties()["state"] == "active").then_some(()));
                let at = mount.properties()["target"].as_str().unwrap().to_owned();
                println!("{from} to {to}, {place}: retarget said {}, it is at {at}", said.status);
                assert!(at == to || at == from && said.status != 0, "{place}: {at}");
                let cgroup = if at.starts_with('/') { at.clone() } else { format!("/{at}") };
                assert!(mount.leaf().path().starts_with(&format!("{cgroup}/")), "{place}: {}", mount.leaf().path());
                let before = shmem(&cgroup);
                report(&Cg::make("/client"), &["write", &mount.join("f"), &(2 * MIB).to_string()]);
                assert_about(&format!("{place}: {at} pays"), shmem(&cgroup) - before, 2 * MIB);
                fs::remove_file(mount.join("f")).unwrap();
            }
            mount.unmount();
        }
        until("nothing is left", || Cg::at("/t").children().is_empty().then_some(()));
    }
}
