//! `on-full = "kill"` where more than one process, a unit of systemd, or the daemon's own life is concerned (R13, R20).

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Report, Waiting, report, report_while},
    host::{BOOKWORM, PLAIN},
    kernel_log::Mark,
    mount::{Mount, leftovers},
    people::{Place, history, journal, last},
    service::{ctl, run, sh, start_daemon, unit_property},
    vm_tests,
    wait::until,
};

const REFUSED: Report = Report { done: 0, errno: Some(28) };

const LIMIT: u64 = 64 * MIB;

fn granted(mib: u64) -> Report {
    Report { done: mib * MIB, errno: None }
}

/// Starts a unit that holds so many MiB in `t.slice`; its main process.
fn start_unit(name: &str, mib: u64) -> u32 {
    // A pipe that is open for writing as well never ends.
    let hog = format!(
        "exec 3<>/run/never; exec /mnt/files/memcharge-probe --cgroup /t.slice/{name}.service hog {} <&3",
        mib * MIB
    );
    let unit = format!("--unit={name}");
    let _ =
        run(&["systemd-run", "-q", "--slice=t.slice", &unit, "-p", "MemoryMax=48M", "bash", "-c", &hog]).ok();
    let cgroup = format!("/t.slice/{name}.service");
    until("the unit holds its memory", || {
        let there = fs::exists(format!("/sys/fs/cgroup{cgroup}/memory.stat")).unwrap();
        (there && Cg::at(&cgroup).stat("anon") >= mib * MIB).then_some(())
    });
    unit_property(name, "MainPID").parse().unwrap()
}

/// R20: systemd sees a kill for lack of memory, and says so of the victim's unit.
fn a_unit_shows_that_it_was_killed_for_memory() {
    fs::write("/run/systemd/system/t.slice", "[Slice]\nMemoryMax=64M\nMemorySwapMax=0\n").unwrap();
    let _ = sh("systemctl daemon-reload && mkfifo /run/never").ok();
    let client = Cg::make("/client");
    let mount = Mount::make("m", "t.slice", &["--on-full", "kill", "--set", "deadline=5s"]);
    let (victim, bystander) = (start_unit("victim", 24), start_unit("bystander", 10));
    let log = Mark::now();
    let file = mount.join("f");
    let look = || until("it is recorded", || history("m").pop());
    let (asked, event) = report_while(&client, &["fallocate", &file, &(36 * MIB).to_string()], look);
    assert_eq!(asked, granted(36), "{event}");
    assert_eq!(
        (&event["outcome"], &event["victim_pid"]),
        (&"granted-after-kill".into(), &victim.into()),
        "{event}"
    );
    assert_eq!(event["victim_cgroup"], "/t.slice/victim.service", "{event}");
    until("systemd has seen it", || (unit_property("victim", "ActiveState") == "failed").then_some(()));
    assert_eq!(unit_property("victim", "Result"), "oom-kill");
    assert_eq!(unit_property("bystander", "ActiveState"), "active");
    assert_eq!(unit_property("bystander", "MainPID"), bystander.to_string());
    let slice = Cg::at("/t.slice");
    assert_eq!((slice.event("oom"), slice.event("oom_kill")), (0, 0));
    log.assert_silent();
}

vm_tests! { PLAIN;
    fn r20_a_unit_shows_that_it_was_killed_for_memory() {
        a_unit_shows_that_it_was_killed_for_memory();
    }

    /// R20: `scope = "cgroup"` kills all of the victim's cgroup, and nobody in the one beside it or above it.
    fn r20_a_whole_cgroup_is_killed() {
        let people = [("a", 10), ("a", 9), ("b", 21), ("a", 1), ("b", 1)];
        let mut place = Place::make("/target", LIMIT, &people, &["--set", "kill.scope=cgroup"]);
        // One of the larger cgroup may not be killed, so none of it.
        fs::write(format!("/proc/{}/oom_score_adj", place.people[4].pid()), "-1000").unwrap();
        assert_eq!(place.ask("f", 28), granted(28), "{:?}", history("m"));
        place.assert_dead(&[0, 1, 3]);
        place.assert_killed(0, "a", 1);
    }

    /// R20: `scope = "cgroup"` is refused where the target has processes of its own, since the store would die with them.
    fn r20_a_scope_that_would_kill_the_store_is_refused() {
        let leaf = Cg::make("/leaf").max(LIMIT);
        start_daemon();
        let mut own = Waiting::start(&leaf, &["hog", &MIB.to_string()]);
        let words = ["mount", "m", "--where", "/run/shared/m", "--target", "/leaf", "--on-full", "kill"];
        let refused = ctl(&[&words[..], &["--set", "kill.scope=cgroup"]].concat()).failed(1);
        assert!(refused.err.contains("would kill the store"), "{}", refused.err);
        assert!(leftovers("m", "/run/shared/m").is_empty(), "{:?}", leftovers("m", "/run/shared/m"));
        let mount = Mount::make("m", "/leaf", &["--on-full", "kill"]);
        let refused = ctl(&["set", "m", "kill.scope=cgroup"]).failed(1);
        assert!(refused.err.contains("would kill the store"), "{}", refused.err);
        assert_eq!(mount.properties()["kill_scope"], "process");
        assert!(own.is_alive());
        // Without a kill the scope means nothing; it is the policy that makes it one.
        let _ = ctl(&["set", "m", "on-full=enospc", "kill.scope=cgroup"]).ok();
        let _ = ctl(&["set", "m", "on-full=kill"]).failed(1);
        assert_eq!(mount.properties()["on_full"], "enospc");
    }

    /// R20: a victim that hangs in a write to this very mount dies, and whoever writes beside it goes on.
    fn r20_a_victim_that_waits_for_this_mount_dies() {
        let mut place = Place::make("/target", LIMIT, &[("own", 2)], &[]);
        assert_eq!(report(&place.client, &["fallocate", &place.mount.join("held"), &(14 * MIB).to_string()]), granted(14));
        let is_over = Arc::new(AtomicBool::new(false));
        let neighbour = {
            let (client, mount, is_over) = (place.client.clone(), place.mount.place.clone(), Arc::clone(&is_over));
            std::thread::spawn(move || {
                // Six files at most: alone it never fills the target.
                for at in (0..6).cycle() {
                    let file = format!("{mount}/g{at}");
                    assert_eq!(report(&client, &["write", &file, "1048576", "--block", "4096"]), granted(1));
                    if is_over.load(Ordering::Acquire) {
                        return;
                    }
                }
            })
        };
        // One block: all of it is private memory of the one that writes, and too much for the target.
        let own = Cg::at("/target/own");
        let block = (30 * MIB).to_string();
        let file = place.mount.join("v");
        let victim = memcharge_tests::client::probe(&own, &["write", &file, &block, "--block", &block]);
        assert_eq!(victim.status, 128 + 9, "{victim:?}");
        assert!(fs::metadata(&file).unwrap().len() > 0, "it was killed before it wrote");
        is_over.store(true, Ordering::Release);
        neighbour.join().unwrap();
        place.assert_dead(&[]);
        assert_eq!(place.mount.number("kills"), 1);
        let event = until("it is recorded", || {
            history("m").into_iter().find(|event| event["outcome"] == "granted-after-kill")
        });
        assert_eq!(event["victim_cgroup"], "/target/own", "{event}");
        let room = report(&place.client, &["fallocate", &place.mount.join("h"), &(8 * MIB).to_string()]);
        assert_eq!(room, granted(8));
        report(&place.client, &["verify", &place.mount.join("g0"), &MIB.to_string()]);
    }

    /// R17, R20: with the limit on a common ancestor the one in the target is killed, not the charger, and not a larger
    /// one beside it.
    fn r17_r20_the_charger_below_a_common_limit_is_not_killed() {
        let parent = Cg::make("/parent").max(LIMIT);
        let (target, client) = (Cg::make("/parent/target"), Cg::make("/parent/client"));
        let own = Cg::make("/parent/target/own");
        let mount = Mount::make("m", target.path(), &["--on-full", "kill", "--set", "deadline=5s"]);
        let mut beside = Waiting::start(&client, &["hog", &(18 * MIB).to_string()]);
        let mut victim = Waiting::start(&own, &["hog", &(12 * MIB).to_string()]);
        let log = Mark::now();
        // What it writes is private memory of the charger as well.
        let bytes = (14 * MIB).to_string();
        let look = || until("it is recorded", || history("m").pop());
        let (asked, event) = report_while(&client, &["write", &mount.join("f"), &bytes, "--block", &bytes], look);
        assert_eq!(asked, granted(14), "{event}");
        assert_eq!((&event["outcome"], &event["victim_pid"]), (&"granted-after-kill".into(), &victim.pid().into()), "{event}");
        assert_eq!((&event["limit_kind"], &event["limit_path"]), (&"ancestor".into(), &"/parent".into()), "{event}");
        assert_eq!(event["charger_cgroup"], "/parent/client", "{event}");
        until("the victim is gone", || (!victim.is_alive()).then_some(()));
        assert!(beside.is_alive());
        assert_eq!((parent.event("oom"), parent.event("oom_kill")), (0, 0));
        assert_eq!(mount.properties()["state"], "active");
        log.assert_silent();
    }

    /// R13: without the daemon nobody is asked and nobody waits; the refusal is recorded when it is back.
    fn r13_without_the_daemon_a_request_is_refused_at_once() {
        let mut place = Place::make("/target", LIMIT, &[("own", 24), ("own", 14)], &["--set", "deadline=50s"]);
        let _ = run(&["systemctl", "stop", "memcharged"]).ok();
        let start = Instant::now();
        assert_eq!(report(&place.client, &["fallocate", &place.mount.join("f"), &(20 * MIB).to_string()]), REFUSED);
        assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
        start_daemon();
        until("it is recorded", || (!history("m").is_empty()).then_some(()));
        place.assert_dead(&[]);
        place.assert_refused("no-daemon", 0);
        place.ask_until_granted("f", 20 * MIB);
        place.assert_dead(&[0]);
        place.assert_killed(0, "own", 1);
    }

    /// R13, R27, R32: the daemon dies while it looks for a victim. The charger has its answer by the deadline, and
    /// nothing is recorded twice, nor is a death kept secret.
    fn r13_r27_the_daemon_dies_while_it_looks_for_a_victim() {
        let mut place = Place::make("/target", 2 * LIMIT, &[("own", 16), ("own", 10)], &["--set", "deadline=20s"]);
        // Many to be looked at.
        let crowd = (0..60).map(|_| Waiting::start(&Cg::at("/target/own"), &["hog", "65536"])).collect::<Vec<_>>();
        let room = 2 * LIMIT - place.target.current();
        let daemon = unit_property("memcharged", "MainPID");
        let charger = {
            let (client, file) = (place.client.clone(), place.mount.join("f"));
            std::thread::spawn(move || {
                let start = Instant::now();
                (report(&client, &["fallocate", &file, &room.to_string()]), start.elapsed())
            })
        };
        let start = Instant::now();
        while !is_looking(&daemon) {
            assert!(start.elapsed() < Duration::from_secs(20), "it does not look for anybody");
        }
        fs::write("/sys/fs/cgroup/system.slice/memcharged.service/cgroup.kill", "1").unwrap();
        let (asked, elapsed) = charger.join().unwrap();
        println!("{asked:?} after {elapsed:?}");
        assert!(elapsed < Duration::from_secs(25), "{elapsed:?}");
        until("the daemon is back", || {
            let now = unit_property("memcharged", "MainPID");
            (now != daemon && now != "0" && unit_property("memcharged", "ActiveState") == "active").then_some(())
        });
        until("it is recorded", || (!history("m").is_empty()).then_some(()));
        assert_eq!(asked, REFUSED);
        place.assert_refused("no-daemon", 0);
        place.assert_dead(&[]);
        // The next one is served as ever, and then there are two events.
        place.ask_until_granted("g", room);
        place.assert_dead(&[0]);
        place.assert_killed(0, "own", 1);
        let mut ids: Vec<_> = history("m").iter().map(|event| event["id"].to_string()).collect();
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count, "an event is recorded twice: {:?}", history("m"));
        drop(crowd);
    }

    /// The daemon says what it would do, and does not do it.
    fn a_dry_run_kills_nobody_and_says_whom() {
        let dir = "/etc/systemd/system/memcharged.service.d";
        fs::create_dir_all(dir).unwrap();
        let dry = "[Service]\nExecStart=\nExecStart=/usr/sbin/memcharged --dry-run\n";
        fs::write(format!("{dir}/dry-run.conf"), dry).unwrap();
        let _ = run(&["systemctl", "daemon-reload"]).ok();
        let mut place = Place::make("/target", LIMIT, &[("own", 24), ("own", 14), ("own", 2)], &[]);
        assert_eq!(place.ask("f", 20), REFUSED);
        place.assert_dead(&[]);
        let event = last("m");
        assert_eq!((&event["outcome"], &event["would_have"]), (&"enospc".into(), &"granted-after-kill".into()), "{event}");
        assert_eq!(event["victim_pid"], place.people[0].pid(), "{event}");
        assert_eq!(event["victim_cgroup"], "/target/own", "{event}");
        assert_eq!(history("m").len(), 1);
        assert_eq!((place.mount.number("kills"), place.mount.number("denials")), (0, 1));
        let root = ["org.memcharge.Memcharge1", "/org/memcharge/Memcharge1", "org.memcharge.Memcharge1.Manager"];
        let said = run(&[&["busctl", "get-property"], &root[..], &["DryRun"]].concat()).ok();
        assert_eq!(said.out.trim(), "b true");
        let id = format!("MEMCHARGE_EVENT_ID={}", event["id"].as_str().unwrap());
        let told = until("the journal tells of it", || Some(journal(&[&id])).filter(|told| !told.is_empty()));
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0]["MEMCHARGE_WOULD_HAVE"], "granted-after-kill", "{told:?}");
        assert!(told[0]["MEMCHARGE_VICTIM_PID"].is_null(), "a process of this field is dead: {told:?}");
    }
}

/// Whether the daemon holds a process of others open.
fn is_looking(daemon: &str) -> bool {
    let Ok(fds) = fs::read_dir(format!("/proc/{daemon}/fd")) else { return false };
    let links = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let mut names = links.filter_map(|link| link.strip_prefix("/proc").ok().map(ToOwned::to_owned));
    names.any(|name| name.to_string_lossy().starts_with(|digit: char| digit.is_ascii_digit()))
}

mod bookworm {
    use super::{BOOKWORM, vm_tests};

    vm_tests! { BOOKWORM;
        /// Debian 12's systemd 252 sees it as well.
        fn r20_a_unit_shows_that_it_was_killed_for_memory_on_debian_12() {
            super::a_unit_shows_that_it_was_killed_for_memory();
        }
    }
}
