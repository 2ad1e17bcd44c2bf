//! The configuration changes while the daemon runs: reload, by every way to ask for it.

use std::{fs, process::Command};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Waiting, report},
    history::Follower,
    host::{BOOKWORM, PLAIN},
    mount::{Mount, leftovers},
    service::{Said, ctl, run, sh, start_daemon, unit_property},
    vm_tests,
    wait::until,
};
use serde_json::Value;

const MAIN_DROP_IN: &str = "/etc/memcharge/memcharged.toml.d/test.toml";

fn file(name: &str) -> String {
    format!("/etc/memcharge/mounts.d/{name}.toml")
}

/// Writes the file of a mount at /run/shared/NAME.
fn configure(name: &str, target: &str, more: &str) -> Mount {
    let place = format!("/run/shared/{name}");
    fs::write(file(name), format!("where = \"{place}\"\ntarget = \"{target}\"\n{more}")).unwrap();
    Mount { name: name.to_owned(), place }
}

fn configure_daemon(text: &str) {
    fs::create_dir_all("/etc/memcharge/memcharged.toml.d").unwrap();
    fs::write(MAIN_DROP_IN, text).unwrap();
}

fn remove(name: &str) {
    fs::remove_file(file(name)).unwrap();
}

fn reload() -> Said {
    ctl(&["reload"])
}

fn generation() -> u64 {
    let manager =
        ["org.memcharge.Memcharge1", "/org/memcharge/Memcharge1", "org.memcharge.Memcharge1.Manager"];
    let said = run(&[&["busctl", "get-property"], &manager[..], &["ConfigGeneration"]].concat()).ok();
    said.out.trim().strip_prefix("t ").unwrap().parse().unwrap()
}

/// The generations that the bus was told of.
fn told(follower: &Follower) -> Vec<u64> {
    let lines = follower.lines();
    let changes = lines.iter().filter(|line| line["member"] == "PropertiesChanged");
    changes.filter_map(|line| line["payload"]["data"][1]["ConfigGeneration"]["data"].as_u64()).collect()
}

fn names() -> Vec<String> {
    let list: Value = serde_json::from_str(&ctl(&["--json", "list"]).ok().out).unwrap();
    list.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

fn journal() -> String {
    sh("journalctl -b -u memcharged --no-pager -o cat").ok().out
}

fn says(said: &Said, parts: &[&str]) {
    println!("{}", said.err.trim());
    for part in parts {
        assert!(said.err.contains(part), "{part} in {}", said.err);
    }
}

fn comes_changes_and_goes() {
    Cg::make("/t").max(64 * MIB);
    start_daemon();
    assert_eq!(generation(), 1);
    let mount = configure("m", "/t", "size = \"8M\"\n");
    let _ = run(&["systemctl", "reload", "memcharged"]).ok();
    assert_eq!(mount.properties()["state"], "active", "it is there when the reload returns");
    assert_eq!(generation(), 2);
    configure("m", "/t", "size = \"12M\"\n");
    let _ = run(&["systemctl", "reload", "memcharged"]).ok();
    assert_eq!(mount.number("size_max"), 12 * MIB);
    fs::write(file("m"), "where = 5\n").unwrap();
    let _ = run(&["systemctl", "reload", "memcharged"]).failed(1);
    assert!(journal().contains("/etc/memcharge/mounts.d/m.toml:1: `where` must be"), "{}", journal());
    assert_eq!(run(&["systemctl", "is-active", "memcharged"]).out.trim(), "active");
    assert_eq!(mount.number("size_max"), 12 * MIB);
    remove("m");
    let _ = run(&["systemctl", "reload", "memcharged"]).ok();
    assert!(leftovers("m", &mount.place).is_empty());
    assert_eq!(generation(), 4);
}

vm_tests! { PLAIN;
    /// `systemctl reload` returns when all is done, and fails where it is not.
    fn systemctl_reload_is_synchronous() {
        comes_changes_and_goes();
    }

    /// A changed file applies at once, in the store as well; what was set at run time stays on top until it is reverted.
    fn a_changed_file_applies_below_what_was_set() {
        Cg::make("/t").max(64 * MIB);
        let client = Cg::make("/client");
        let mount = configure("m", "/t", "size = \"8M\"\nreserve = \"2M\"\n");
        start_daemon();
        let bus = Follower::bus();
        let _ = reload().ok();
        assert_eq!(generation(), 1, "nothing was different");

        configure("m", "/t", "size = \"12M\"\nreserve = \"3M\"\non-full = \"kill\"\n[kill]\nvictim = \"newest\"\n");
        assert_eq!(ctl(&["--json", "reload"]).ok().out.trim(), "{\"config_generation\":2}");
        let properties = mount.properties();
        assert_eq!(properties["size_max"], 12 * MIB);
        assert_eq!(properties["reserve"], 3 * MIB);
        assert_eq!((&properties["on_full"], &properties["kill_victim"]), (&"kill".into(), &"newest".into()));
        let written = report(&client, &["write", &mount.join("f"), &(1u64 << 40).to_string()]);
        assert_eq!((written.done, written.errno), (12 * MIB, Some(28)), "the store has it");

        // Below what is in use: refused, and said.
        configure("m", "/t", "size = \"4M\"\nreserve = \"4M\"\n");
        says(&reload().failed(1), &["mount m could not be changed", "12M", "4M"]);
        assert_eq!((mount.number("size_max"), mount.number("reserve")), (12 * MIB, 3 * MIB));
        assert_eq!(generation(), 2);

        // What was set stays, the rest follows.
        let _ = ctl(&["set", "m", "size=20M", "reclaim=false"]).ok();
        configure("m", "/t", "size = \"16M\"\nreserve = \"5M\"\n");
        let _ = reload().ok();
        for restarted in [false, true] {
            if restarted {
                let _ = run(&["systemctl", "restart", "memcharged"]).ok();
                let _ = reload().ok();
                assert_eq!(generation(), 1, "a new daemon counts anew, and nothing was different");
            }
            let properties = mount.properties();
            assert_eq!((&properties["size_max"], &properties["reclaim"]), (&(20 * MIB).into(), &false.into()));
            assert_eq!((&properties["reserve"], &properties["on_full"]), (&(5 * MIB).into(), &"enospc".into()));
        }
        let _ = ctl(&["revert", "m"]).ok();
        let properties = mount.properties();
        assert_eq!((&properties["size_max"], &properties["reclaim"]), (&(16 * MIB).into(), &true.into()));
        assert_eq!(properties["reserve"], 5 * MIB);

        // A drop-in.
        let drop_in = format!("{}.d/more.toml", file("m"));
        fs::create_dir_all(format!("{}.d", file("m"))).unwrap();
        fs::write(&drop_in, "size = \"24M\"\n").unwrap();
        let _ = reload().ok();
        let properties = mount.properties();
        assert_eq!((&properties["size_max"], &properties["drop_in_paths"][0]), (&(24 * MIB).into(), &drop_in.into()));
        until("the generations are told", || (told(&bus) == [2, 3, 2]).then_some(()));
    }

    /// A wrong file changes nothing, not even what is right in other files; every error is said at once.
    fn a_wrong_configuration_changes_nothing() {
        Cg::make("/t").max(64 * MIB);
        let mount = configure("m", "/t", "size = \"8M\"\n");
        start_daemon();
        configure("m", "/t", "size = \"12M\"\n");
        configure("a", "/t", "sise = \"1M\"\n");
        configure("b", "/t", "reserve = \"big\"\n");
        configure_daemon("log-level = \"loud\"\n");
        let parts = [
            "3 error(s), and nothing was changed", "/a.toml:3: unknown key `sise`; did you mean `size`?", "/b.toml:3:",
            "test.toml:1:",
        ];
        says(&reload().failed(1), &parts);
        let _ = run(&["systemctl", "reload", "memcharged"]).failed(1);
        for part in &parts[1..] {
            assert!(journal().contains(part), "{part} in {}", journal());
        }
        assert_eq!(names(), ["m"]);
        assert_eq!((mount.number("size_max"), generation()), (8 * MIB, 1));
        for (name, place) in [("a", "/run/shared/a"), ("b", "/run/shared/b")] {
            assert!(leftovers(name, place).is_empty());
            remove(name);
        }
        configure_daemon("log-level = \"info\"\n");
        let _ = reload().ok();
        assert_eq!((mount.number("size_max"), generation()), (12 * MIB, 2));
    }

    /// A mount whose file is gone ends, but not while somebody uses it. One that was made by hand has no file to lose.
    fn a_removed_file_ends_the_mount() {
        let client = Cg::make("/client");
        Cg::make("/t").max(64 * MIB);
        let (mount, other) = (configure("m", "/t", ""), configure("other", "/t", ""));
        let by_hand = Mount::make("hand", "/t", &[]);
        let _ = ctl(&["mount", "kept", "--where", "/run/shared/kept", "--target", "/t", "--persist"]).ok();
        let path = mount.join("f");
        report(&client, &["write", &path, &MIB.to_string()]);
        let user = Waiting::start(&client, &["hold", &path]);
        remove("m");
        remove("other");
        let refused = reload().failed(1);
        says(&refused, &["mount m: its file is gone", "in use by", &format!("pid {}", user.pid()), "memcharge-probe"]);
        assert_eq!(names(), ["hand", "kept", "m"], "the others are not held up");
        assert_eq!(report(&client, &["read", &path]).done, MIB, "nothing was lost");
        assert!(leftovers("other", &other.place).is_empty());
        let _ = run(&["systemctl", "restart", "memcharged"]).ok();
        assert_eq!(mount.properties()["state"], "active", "a restart ends nothing");
        says(&reload().failed(1), &["mount m: its file is gone"]);
        user.end();
        let _ = reload().ok();
        assert_eq!(names(), ["hand", "kept"]);
        assert!(leftovers("m", &mount.place).is_empty());
        // Masked is gone, too.
        fs::remove_file(file("kept")).unwrap();
        std::os::unix::fs::symlink("/dev/null", file("kept")).unwrap();
        let _ = reload().ok();
        assert_eq!(names(), ["hand"]);
        by_hand.unmount();
    }

    /// What cannot change on a mount that is there is said, with what to do; it works then.
    fn what_cannot_change_waits() {
        for target in ["/t", "/t2"] {
            Cg::make(target).max(64 * MIB);
        }
        let mount = configure("m", "/t", "");
        start_daemon();
        fs::write(mount.join("f"), "data").unwrap();
        fs::write(file("m"), "where = \"/run/shared/new\"\ntarget = \"/t2\"\nmode = \"0700\"\nsize = \"8M\"\n").unwrap();
        let parts = ["mount m: where, target, mode cannot change while it is mounted", "memchargectl unmount m"];
        says(&reload().failed(1), &parts);
        let properties = mount.properties();
        assert_eq!((&properties["where"], &properties["target"]), (&mount.place.clone().into(), &"/t".into()));
        assert_eq!(properties["size_max"], 8 * MIB, "what can change has");
        says(&reload().failed(1), &parts);
        assert_eq!(generation(), 2);
        assert_eq!(fs::read_to_string(mount.join("f")).unwrap(), "data");
        let _ = ctl(&["unmount", "m"]).ok();
        let _ = reload().ok();
        let properties = mount.properties();
        assert_eq!((&properties["where"], &properties["target"]), (&"/run/shared/new".into(), &"/t2".into()));

        // A mount that was made by hand is taken over by its file, unless it is another one.
        let by_hand = Mount::make("hand", "/t", &["--size", "8M"]);
        configure("hand", "/t2", "");
        says(&reload().failed(1), &["mount hand was made at run time", "(target differ)"]);
        assert_eq!(by_hand.number("size_max"), 8 * MIB);
        configure("hand", "/t", "size = \"9M\"\n");
        let _ = reload().ok();
        assert_eq!((by_hand.number("size_max"), &by_hand.properties()["fragment_path"]), (9 * MIB, &file("hand").into()));
        // Its file gets another name: so does the mount, at the same place.
        fs::rename(file("hand"), file("renamed")).unwrap();
        let _ = reload().ok();
        assert_eq!(names(), ["m", "renamed"]);
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap().matches(" /run/shared/hand ").count(), 1);
    }

    /// One that cannot be made is failed, holds up nobody, is said, and is tried again.
    fn a_mount_that_fails_is_tried_again() {
        Cg::make("/t").max(64 * MIB);
        for name in ["bad", "worse"] {
            fs::create_dir_all(format!("/run/shared/{name}/somebody-s")).unwrap();
        }
        let bad = configure("bad", "/t", "");
        start_daemon();
        assert_eq!(bad.properties()["state"], "failed");
        let (good, worse) = (configure("good", "/t", ""), configure("worse", "/t", ""));
        says(&reload().failed(1), &["mount bad could not be made", "mount worse could not be made", "not empty"]);
        assert_eq!(unit_property("memcharged", "StatusText"), "1 mount active, 2 failed");
        assert_eq!((&good.properties()["state"], generation()), (&"active".into(), 2));
        says(&reload().failed(1), &["mount bad could not be made"]);
        assert_eq!(generation(), 2, "nothing was different");
        for name in ["bad", "worse"] {
            fs::remove_dir(format!("/run/shared/{name}/somebody-s")).unwrap();
        }
        configure("worse", "/t", "size = \"8M\"\n");
        let _ = reload().ok();
        for mount in [bad, good, worse] {
            assert_eq!(mount.properties()["state"], "active", "{}", mount.name);
        }
        assert_eq!(generation(), 3);
    }

    /// A signal does the same. The daemon's own settings are in force without a restart.
    fn sighup_and_the_daemon_s_own_settings() {
        Cg::make("/t").max(64 * MIB);
        start_daemon();
        let pid = unit_property("memcharged", "MainPID");
        let mount = configure("m", "/t", "");
        configure_daemon("log-level = \"error\"\n[history]\nmax-entries = 1\n[defaults]\nsize = \"9M\"\n");
        let _ = sh(&format!("kill -HUP {pid}")).ok();
        until("the mount is made", || (ctl(&["show", "m"]).status == 0).then_some(()));
        until("it is told", || (generation() == 2).then_some(()));
        assert_eq!(mount.number("size_max"), 9 * MIB);
        let client = Cg::make("/client");
        for size in [20u64, 30, 40] {
            let _ = report(&client, &["fallocate", &mount.join("f"), &(size * MIB).to_string()]);
        }
        until("one event is kept", || {
            let events: Value = serde_json::from_str(&ctl(&["--json", "history"]).ok().out).unwrap();
            (events.as_array().unwrap().len() == 1).then_some(())
        });
        let by_hand = Mount::make("hand", "/t", &[]);
        assert_eq!(by_hand.number("size_max"), 9 * MIB, "new defaults are those of new mounts");
        assert!(!journal().contains("mount hand is active"), "the log level is lower: {}", journal());
        // A signal that finds a wrong configuration does no harm.
        fs::write(file("m"), "nonsense\n").unwrap();
        let _ = sh(&format!("kill -HUP {pid}")).ok();
        until("it is said", || journal().contains("/m.toml:1: not valid TOML").then_some(()));
        assert_eq!(unit_property("memcharged", "MainPID"), pid);
        assert_eq!(mount.properties()["state"], "active");
    }

    /// Reloads follow each other, also while the daemon starts; nobody else waits for them. Others may not ask for one.
    fn reloads_at_once() {
        Cg::make("/t").max(64 * MIB);
        for name in ["a", "b", "c", "d"] {
            configure(name, "/t", "");
        }
        let _ = run(&["systemctl", "start", "--no-block", "memcharged"]).ok();
        until("the bus answers", || (ctl(&["list"]).status == 0).then_some(()));
        configure("e", "/t", "");
        let reloads: Vec<_> =
            (0..8).map(|_| Command::new("memchargectl").arg("reload").spawn().unwrap()).collect();
        assert!(ctl(&["status"]).status == 0, "the table answers meanwhile");
        for mut reload in reloads {
            assert!(reload.wait().unwrap().success());
        }
        assert_eq!(names(), ["a", "b", "c", "d", "e"]);
        assert!(generation() <= 2, "one of them has made e, or the start has");
        let _ = run(&["systemctl", "is-active", "memcharged"]).ok();
        let _ = run(&["useradd", "--uid", "1000", "somebody"]).ok();
        remove("a");
        let words = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "memchargectl", "reload"];
        let _ = run(&words).failed(4);
        assert_eq!(names().len(), 5);
        let _ = run(&["systemctl", "stop", "memcharged"]).ok();
        let _ = reload().failed(3);
        assert_eq!(run(&["systemctl", "is-active", "memcharged"]).out.trim(), "inactive", "a reload starts nothing");
    }
}

mod bookworm {
    use super::{BOOKWORM, vm_tests};

    vm_tests! { BOOKWORM;
        /// The same on Debian 12.
        fn systemctl_reload_is_synchronous_on_debian_12() {
            super::comes_changes_and_goes();
        }
    }
}
