//! Ten configured mounts, and services that need them, when the machine shuts down and boots.

use std::{collections::BTreeMap, fs, time::Duration};

use memcharge_tests::{
    host::{BOOKWORM, Needs, Shutdown, TIMED},
    service::{ctl, sh, unit_property},
    vm_tests,
    wait::until,
};
use serde_json::Value;

/// Where and on whose bill: slices that several share, one below another, one place outside /run.
const MOUNTS: [(&str, &str, &str); 10] = [
    ("m0", "/run/shared/m0", "a.slice"),
    ("m1", "/run/shared/m1", "a.slice"),
    ("m2", "/run/shared/m2", "a.slice"),
    ("m3", "/run/shared/m3", "b.slice"),
    ("m4", "/run/shared/m4", "b.slice"),
    ("m5", "/run/shared/deep/m5", "b-c.slice"),
    ("m6", "/run/shared/deep/m6", "b-c.slice"),
    ("m7", "/srv/m7", "d.slice"),
    ("m8", "/run/shared/m8", "d.slice"),
    ("m9", "/run/shared/m9", "e.slice"),
];

/// Services, each with the mount that it uses; the last one has it at /dev/shm.
const USERS: [(&str, &str); 5] = [
    ("user0", "/run/shared/m0"),
    ("user1", "/run/shared/m1"),
    ("user2", "/run/shared/deep/m5"),
    ("user3", "/srv/m7"),
    ("user4", "/dev/shm"),
];

/// What a shutdown may take longer because of the mounts and their users, one of which needs two seconds.
const LONGER: Duration = Duration::from_secs(10);

/// And by how many times: a machine that is slow, or busy, is slow with ten mounts as it is without.
const TIMES: u32 = 4;

/// "Stopping ..." and "Stopped ..." of PID 1, see sd-messages.h.
const STOPPING: &str = "de5b426a63be47a7b6ac3eaac82e2f6f";
const STOPPED: &str = "9d1aaa27d60140bd96365438aad20286";

/// Writes the files, and enables what shall be there after the next boot.
fn configure() {
    for (name, place, target) in MOUNTS {
        let text = format!("where = \"{place}\"\ntarget = \"{target}\"\nsize = \"8M\"\n");
        fs::write(format!("/etc/memcharge/mounts.d/{name}.toml"), text).unwrap();
    }
    let places = MOUNTS.map(|(_, place, _)| place).join(" ");
    for (name, dir) in USERS {
        let bind = if dir == "/dev/shm" { "BindPaths=/run/shared/m4:/dev/shm\n" } else { "" };
        // It writes when it starts and, after a while, when it is stopped: the mount has to be there until then.
        let unit = format!(
            "[Unit]\nRequires=memcharged.service\nAfter=memcharged.service\n\
             [Service]\nType=exec\n{bind}\
             ExecStartPre=bash -ec 'for p in {places}; do mountpoint -q $$p; done'\n\
             ExecStart=bash -ec 'exec 3>{dir}/held; echo started >&3; exec sleep infinity'\n\
             ExecStop=bash -ec 'sleep 2; echo stopped >>{dir}/held; cat {dir}/held >/var/lib/{name}.held'\n\
             [Install]\nWantedBy=multi-user.target\n"
        );
        fs::write(format!("/etc/systemd/system/{name}.service"), unit).unwrap();
    }
    let users = USERS.map(|(name, _)| name).join(" ");
    let _ = sh(&format!("systemctl daemon-reload && systemctl enable memcharged {users}")).ok();
}

/// Processes of no unit that have files and directories of mounts in use, one of them in a mount namespace of its own.
fn keep_busy() {
    let inside =
        "mkdir -p /sys/fs/cgroup/busy; echo $$ >/sys/fs/cgroup/busy/cgroup.procs; echo x >f; exec 9<>f";
    for (how, place) in [("", "/run/shared/m8"), ("", "/run/shared/m0"), ("unshare -m", "/run/shared/m9")] {
        let start = format!(
            "cd {place} || exit; {how} setsid bash -c '{inside}; exec sleep infinity' </dev/null &>/dev/null &"
        );
        let _ = sh(&start).ok();
        until("the file is there", || fs::exists(format!("{place}/f")).unwrap().then_some(()));
    }
}

/// All of it is up, by nobody's help.
fn all_is_up() {
    let failed = sh("systemctl --failed --plain --no-legend").ok().out;
    assert_eq!(failed.trim(), "", "no failed unit");
    for (name, _) in USERS {
        assert_eq!(unit_property(&format!("{name}.service"), "ActiveState"), "active");
        // A failed start is not tried again: the mounts were there the first time.
        assert_eq!(unit_property(&format!("{name}.service"), "NRestarts"), "0");
    }
    assert_eq!(unit_property("memcharged", "StatusText"), "10 mounts active");
    let status = ctl(&["status"]).ok().out;
    println!("{status}");
    for (name, place, target) in MOUNTS {
        let shown: Value = serde_json::from_str(&ctl(&["--json", "show", name]).ok().out).unwrap();
        assert_eq!((&shown["state"], &shown["where"]), (&"active".into(), &place.into()), "{shown}");
        assert_eq!(unit_property(&format!("memcharge-store-{name}.service"), "Slice"), target);
    }
    for (dir, end) in [("mounts", "json"), ("stores", "sock")] {
        let mut files: Vec<String> = fs::read_dir(format!("/run/memcharge/{dir}"))
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, MOUNTS.map(|(name, ..)| format!("{name}.{end}")), "/run/memcharge/{dir}");
    }
    let warnings = sh("journalctl -b --no-pager -q -p warning -u memcharged -u 'memcharge-store-*'").ok().out;
    assert_eq!(warnings.trim(), "");
}

/// Moments of the last shutdown, in microseconds since that boot, by unit.
fn moments(message: &str) -> BTreeMap<String, u64> {
    let lines = sh(&format!("journalctl -b -1 --no-pager -q -o json MESSAGE_ID={message}")).ok().out;
    let entries = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    entries
        .map(|entry| {
            let time = entry["__MONOTONIC_TIMESTAMP"].as_str().unwrap().parse().unwrap();
            (entry["UNIT"].as_str().unwrap().to_owned(), time)
        })
        .collect()
}

/// What the last boot's journal says of its shutdown: users first, then stores.
fn units_stopped_in_order() {
    let (stopping, stopped) = (moments(STOPPING), moments(STOPPED));
    let at = |moments: &BTreeMap<String, u64>, unit: &str| {
        *moments.get(unit).unwrap_or_else(|| panic!("{unit} in {moments:?}"))
    };
    let users_end =
        USERS.map(|(name, _)| at(&stopped, &format!("{name}.service"))).into_iter().max().unwrap();
    for (name, ..) in MOUNTS {
        let unit = format!("memcharge-store-{name}.service");
        let (from, to) = (at(&stopping, &unit), at(&stopped, &unit));
        println!(
            "{unit}: {} ms, {} ms after the last user",
            (to - from) / 1000,
            from.saturating_sub(users_end) / 1000
        );
        assert!(from >= users_end, "{unit} ends before its users");
    }
    for (name, _) in USERS {
        let held = fs::read_to_string(format!("/var/lib/{name}.held")).unwrap();
        assert_eq!(held, "started\nstopped\n", "{name} had its mount to the end");
    }
}

/// Nothing was complained about.
fn shutdown_was_quiet(console: &str) {
    let journal =
        |more: &str| sh(&format!("journalctl -b -1 --no-pager -q -o short-monotonic {more}")).ok().out;
    let warnings = journal("-p warning -u memcharged -u memcharge.target -u 'memcharge-store-*'");
    assert_eq!(warnings.trim(), "");
    let text = journal("") + console;
    let complaints: Vec<&str> = text
        .lines()
        .filter(|line| {
            ["Failed to unmount", "Failed unmounting", "timed out", "Timed out", "SIGKILL", "oredump"]
                .iter()
                .any(|complaint| line.contains(complaint))
        })
        .collect();
    assert_eq!(complaints, Vec::<&str>::new());
}

fn boots_and_shuts_down() {
    all_is_up();
    for (_, place, _) in MOUNTS {
        assert!(fs::write(format!("{place}/data"), "x").is_ok());
    }
    keep_busy();
}

fn was_shut_down_and_boots() {
    let shutdown = Shutdown::before_this_boot();
    let plain: u64 = fs::read_to_string("/var/lib/plain-shutdown").unwrap().parse().unwrap();
    println!("shutdown: {} ms, without mounts {plain} ms", shutdown.took.as_millis());
    println!("console of the shutdown:\n{}", shutdown.console);
    units_stopped_in_order();
    shutdown_was_quiet(&shutdown.console);
    assert!(shutdown.took < Duration::from_millis(plain) * TIMES + LONGER);
    all_is_up();
    for (_, place, _) in MOUNTS {
        assert!(!fs::exists(format!("{place}/data")).unwrap(), "memory does not outlive the machine");
    }
}

/// The shutdown before this one was of a machine without mounts: what others are compared with.
fn note_the_plain_shutdown() {
    fs::write("/var/lib/plain-shutdown", Shutdown::before_this_boot().took.as_millis().to_string()).unwrap();
}

vm_tests! { TIMED;
    /// Mounts are there before the services that need them, and until these have ended; a shutdown waits for nobody else.
    fn ten_mounts_and_their_users_over_a_reboot() {
        configure();
    } reboot {
        note_the_plain_shutdown();
        boots_and_shuts_down();
    } reboot {
        was_shut_down_and_boots();
    }
}

mod bookworm {
    use super::{BOOKWORM, Needs, vm_tests};

    vm_tests! { Needs { alone: true, ..BOOKWORM };
        /// The same with systemd 252.
        fn ten_mounts_and_their_users_over_a_reboot_on_debian_12() {
            super::configure();
        } reboot {
            super::note_the_plain_shutdown();
            super::boots_and_shuts_down();
        } reboot {
            super::was_shut_down_and_boots();
        }
    }
}
