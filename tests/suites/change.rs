//! The policy of a mount changes while it is mounted; and a daemon and a store that have nothing to do do nothing.

use std::{collections::BTreeMap, fs, time::Duration};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Waiting, report},
    history::{Follower, assert_recorded, text},
    host::PLAIN,
    mount::Mount,
    service::{Said, ctl, run, unit_property},
    vm_tests,
    wait::until,
};
use serde_json::Value;

const ENOSPC: Option<i32> = Some(28);

/// How far the kernel's counters lag.
const SLOP: u64 = MIB;

/// The properties that `set` changes.
const CHANGEABLE: [&str; 10] = [
    "on_full",
    "reserve",
    "reclaim",
    "deadline_usec",
    "size_max",
    "inodes_max",
    "kill_victim",
    "kill_scope",
    "kill_protect",
    "kill_cooldown_usec",
];

fn set(name: &str, assignments: &[&str]) -> Said {
    ctl(&[&["--json", "set", name], assignments].concat())
}

/// A change that works; returns how many there were by now.
fn change(name: &str, assignments: &[&str]) -> u64 {
    let said: Value = serde_json::from_str(&set(name, assignments).ok().out).unwrap();
    said["generation"].as_u64().unwrap()
}

fn policy(mount: &Mount) -> BTreeMap<&'static str, Value> {
    let all = mount.properties();
    CHANGEABLE.iter().map(|key| (*key, all[*key].clone())).collect()
}

/// Fills a file of a mount, and removes it; returns what went in.
fn filled(client: &Cg, mount: &Mount) -> u64 {
    let file = mount.join("filled");
    let report = report(client, &["write", &file, &(1u64 << 40).to_string()]);
    assert_eq!(report.errno, ENOSPC);
    fs::remove_file(file).unwrap();
    report.done
}

/// The values of a property that the bus was told of.
fn told(follower: &Follower, property: &str) -> Vec<Value> {
    let lines = follower.lines();
    let changes = lines.iter().filter(|line| line["member"] == "PropertiesChanged");
    let values = changes.map(|line| line["payload"]["data"][1][property]["data"].clone());
    values.filter(|value| !value.is_null()).collect()
}

/// How often each thread of a process has gone to sleep by itself.
fn sleeps(pid: &str) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let sleeps = tasks.map(|task| {
        let task = task.unwrap();
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        (task.file_name().into_string().unwrap(), line.unwrap().trim().parse().unwrap())
    });
    sleeps.collect()
}

fn wake_ups(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> u64 {
    // A thread that has ended was awake to do so, and one that is new is.
    let threads: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let wake_ups = threads.iter().map(|tid| match (before.get(*tid), after.get(*tid)) {
        (Some(before), Some(after)) => after - before,
        _ => 1,
    });
    wake_ups.sum()
}

vm_tests! { PLAIN;
    /// Each key that can change does, in the store as well; all of it is undone by `revert`.
    fn a_change_is_in_force_at_once_and_reverted() {
        let target = Cg::make("/target").max(64 * MIB);
        let client = Cg::make("/client");
        let mount = Mount::make("m", "/target", &["--size", "8M", "--set", "deadline=5s"]);
        let made = policy(&mount);
        let bus = Follower::bus();
        let mut seen = 1;
        assert_eq!(filled(&client, &mount), 8 * MIB);

        // The cap.
        assert_eq!(change("m", &["size=12M"]), 1);
        assert_eq!(filled(&client, &mount), 12 * MIB);
        assert_eq!(change("m", &["size=25%"]), 2);
        assert_eq!(mount.number("size_max"), 16 * MIB);
        assert_eq!(filled(&client, &mount), 16 * MIB);
        until("the cap is told", || {
            (told(&bus, "SizeMax") == [Value::from(12 * MIB), Value::from(16 * MIB)]).then_some(())
        });

        // The reserve: what is not left to the target is the clients'.
        assert_eq!(change("m", &["size=64M", "reserve=8M"]), 3);
        let less = filled(&client, &mount);
        assert_eq!(change("m", &["reserve=28M"]), 4);
        let much_less = filled(&client, &mount);
        assert!((less - much_less).abs_diff(20 * MIB) < 2 * SLOP, "{less} and {much_less}");
        seen += 4;

        // The number of inodes, the root directory included.
        assert_eq!(change("m", &["inodes=10"]), 5);
        let files = report(&client, &["make", &mount.place, "file", "20"]);
        assert_eq!((files.done, files.errno), (9, ENOSPC));
        seen += 1;
        let events = assert_recorded(&mount, seen);
        assert_eq!(text(events.last().unwrap(), "limit_name"), "inodes");
        let refused = set("m", &["inodes=5"]).failed(1);
        assert!(refused.err.contains("10 inodes in use"), "{}", refused.err);
        assert_eq!(mount.number("inodes_max"), 10);

        // What matters to arbitration.
        let all = [
            "deadline=3s", "reclaim=false", "on-full=kill", "kill.victim=newest", "kill.cooldown=7s",
            "kill.protect=db-*,x",
        ];
        assert_eq!(change("m", &all), 6);
        let now = policy(&mount);
        for (key, value) in [
            ("deadline_usec", Value::from(3_000_000)),
            ("reclaim", false.into()),
            ("on_full", "kill".into()),
            ("kill_victim", "newest".into()),
            ("kill_cooldown_usec", 7_000_000.into()),
            ("kill_protect", vec!["db-*", "x"].into()),
            ("reserve", (28 * MIB).into()),
            ("size_max", (64 * MIB).into()),
        ] {
            assert_eq!(now[key], value, "{key}");
        }
        for (property, value) in [("Reclaim", Value::from(false)), ("OnFull", "kill".into()), ("InodesMax", 10.into())] {
            until("the change is told", || (told(&bus, property).last() == Some(&value)).then_some(()));
        }
        assert_eq!(change("m", &["kill.scope=cgroup"]), 7);
        let now = policy(&mount);
        assert_eq!(now["kill_scope"], "cgroup");

        // A daemon that starts anew finds it all, and the way back.
        let _ = run(&["systemctl", "restart", "memcharged"]).ok();
        let changed = policy(&mount);
        assert_eq!(changed, now, "after a restart");
        let _ = ctl(&["revert", "m"]).ok();
        assert_eq!(policy(&mount), made);
        assert_eq!(change("m", &["reserve=2M"]), 9, "the way back was a change, too");
        assert!(report(&client, &["make", &mount.place, "file", "30"]).errno.is_none(), "the inodes are back");
        assert_eq!(filled(&client, &mount), 8 * MIB);
        assert_recorded(&mount, seen + 1);
        assert_eq!(target.event("oom_kill"), 0);
    }

    /// What cannot be is refused, and then nothing has changed.
    fn a_refused_change_changes_nothing() {
        Cg::make("/target").max(64 * MIB);
        let client = Cg::make("/client");
        let mount = Mount::make("m", "/target", &["--size", "8M", "--set", "deadline=5s"]);
        let made = policy(&mount);
        assert_eq!(report(&client, &["fallocate", &mount.join("f"), &(2 * MIB).to_string()]).errno, None);
        let small = set("m", &["size=1M", "reserve=5M"]).failed(1);
        for part in ["2", "1"] {
            assert!(small.err.contains(part), "both numbers: {}", small.err);
        }
        println!("{}", small.err.trim());
        let call = |option: &[&str]| {
            let object = "/org/memcharge/Memcharge1/mount/m";
            let interface = "org.memcharge.Memcharge1.Mount";
            let words = ["busctl", "call", "org.memcharge.Memcharge1", object, interface, "SetPolicy", "a{sv}"];
            // busctl has no names of errors in its messages but at this level.
            run(&[&["env", "SYSTEMD_LOG_LEVEL=debug"], &words[..], option].concat())
        };
        let small = call(&["1", "SizeMax", "t", "1048576"]).failed(1);
        assert!(small.err.contains("Memcharge1.Error.TooSmall"), "{}", small.err);
        for (assignment, status) in [
            ("colour=blue", 2),
            ("where=/elsewhere", 2),
            ("target=/target", 2),
            ("size", 2),
            ("reserve=lots", 2),
            ("sparse=sigbus", 1),
            ("mode=0700", 1),
            ("deadline=0", 1),
            ("deadline=1h", 1),
        ] {
            let said = set("m", &["reclaim=false", assignment]).failed(status);
            println!("{assignment}: {}", said.err.trim());
        }
        assert!(call(&["1", "Where", "s", "/x"]).failed(1).err.contains("Error.InvalidOption"));
        assert!(call(&["0"]).failed(1).err.contains("Error.InvalidOption"));
        let _ = set("nowhere", &["reserve=1M"]).failed(5);
        assert_eq!(policy(&mount), made);
        assert_eq!(change("m", &["reserve=5M"]), 1, "what was refused does not count");
        assert_eq!(report(&client, &["fallocate", &mount.join("f"), &(8 * MIB).to_string()]).errno, None);
    }

    /// No polling: a daemon and a store with nothing to do sleep, but for the watchdog.
    fn idle_means_asleep() {
        Cg::make("/target").max(64 * MIB);
        let (client, own) = (Cg::make("/client"), Cg::make("/target/own"));
        let mount = Mount::make("m", "/target", &["--size", "4M", "--set", "deadline=5s"]);
        let _task = Waiting::start(&own, &["hog", "1048576"]);
        filled(&client, &mount);
        assert_recorded(&mount, 1);
        let (daemon, store) = (unit_property("memcharged", "MainPID"), mount.store().to_string());
        // What was just done has an end; that of a thread that nobody needs any more comes after 10 s.
        let quiet = Duration::from_secs(12);
        until("nobody has anything left to do", || {
            let before = (sleeps(&daemon), sleeps(&store));
            std::thread::sleep(quiet);
            let after = (sleeps(&daemon), sleeps(&store));
            (before.0.len() == after.0.len() && before.1.len() == after.1.len()).then_some(())
        });
        let before = [sleeps(&daemon), sleeps(&store)];
        // The time that is observed.
        std::thread::sleep(Duration::from_secs(40));
        let after = [sleeps(&daemon), sleeps(&store)];
        let woken = [0, 1].map(|i| wake_ups(&before[i], &after[i]));
        println!("wake-ups in 40 s: daemon {}, store {}", woken[0], woken[1]);
        assert!(woken[0] <= 3 && woken[1] <= 3, "{before:?} {after:?}");
    }
}
