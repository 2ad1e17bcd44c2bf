//! R27, R28: the daemon, a store and what undoes a mount are killed at each single step of what they do. Afterwards there
//! is the old state or the new one, never a third.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::{FileExt, OpenOptionsExt, symlink},
    path::Path,
};

use memcharge_faults::DIRECTORY;
use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Waiting, report},
    host::{Needs, PLAIN},
    mount::{Mount, leftovers},
    service::{ctl, run, sh},
    vm_tests,
    wait::until,
};

/// Programs that die where a test wants it.
pub(crate) const FAULTY: Needs =
    Needs { programs: &["MEMCHARGE_FAULTY_DAEMON", "MEMCHARGE_FAULTY_STORE"], ..PLAIN };

const PLACE: &str = "/run/shared/x";

/// Puts these programs where the package has its own.
pub(crate) fn install() {
    for (program, path) in [
        ("MEMCHARGE_FAULTY_DAEMON", "/usr/sbin/memcharged"),
        ("MEMCHARGE_FAULTY_STORE", "/usr/libexec/memcharge/memcharge-store"),
    ] {
        let _ = run(&["install", "-m", "755", &format!("/mnt/files/{program}"), path]).ok();
    }
    fs::create_dir_all(DIRECTORY).unwrap();
    Cg::make("/t").max(96 * MIB);
}

/// The next process that comes to this place dies there.
pub(crate) fn arm(place: &str) {
    fs::write(Path::new(DIRECTORY).join(place), "").unwrap();
}

pub(crate) fn assert_fired(place: &str) {
    let left = fs::remove_file(Path::new(DIRECTORY).join(place)).is_ok();
    assert!(!left, "nobody came to {place}");
}

/// Waits until the daemon is there, and has come to its conclusions.
pub(crate) fn settle() {
    until("memcharged is back", || {
        (run(&["systemctl", "start", "memcharged"]).status == 0 && ctl(&["list"]).status == 0).then_some(())
    });
}

/// A mount is there and works, or nothing of it is.
fn there_or_gone(place: &str) -> bool {
    until("it is one of the two", || {
        let shown = ctl(&["--json", "show", "x"]);
        if shown.status == 5 && leftovers("x", PLACE).is_empty() {
            return Some(false);
        }
        let active = shown.status == 0 && shown.out.contains("\"active\"");
        let works = active && fs::write(format!("{PLACE}/works"), place).is_ok();
        works.then_some(true)
    })
}

fn unmount() {
    let _ = ctl(&["unmount", "x"]).ok();
    until("nothing is left", || leftovers("x", PLACE).is_empty().then_some(()));
}

/// Has the store's unit give its mount up.
fn give_up(mount: &Mount) {
    const STORE: &str = "/usr/libexec/memcharge/memcharge-store";
    let _ = sh(&format!("mv {STORE} {STORE}.good; printf '#!/bin/sh\nexit 70\n' >{STORE}; chmod +x {STORE}"))
        .ok();
    let _ = sh(&format!("kill -9 {}", mount.store())).ok();
    until("the mount is given up", || (mount.properties()["state"] == "failed").then_some(()));
    let _ = sh(&format!("mv {STORE}.good {STORE}")).ok();
}

/// One kind of request: it is made in a directory, and must succeed as if nothing had happened.
type Act = fn(&Path);

/// All kinds of requests that have an effect. Each leaves the directory as it was.
const ACTS: [(&str, &[&str], Act); 12] = [
    ("create", &["make.made", "make.given", "open.named", "open.counting", "open.counted"], |dir| {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(dir.join("new")).unwrap();
        file.write_all_at(b"content", 0).unwrap();
        assert_eq!(fs::read(dir.join("new")).unwrap(), b"content");
        fs::remove_file(dir.join("new")).unwrap();
    }),
    ("append", &["grant.fitted"], |dir| {
        let before = fs::read(dir.join("log")).unwrap();
        let mut log = OpenOptions::new().append(true).open(dir.join("log")).unwrap();
        log.write_all(&[b'x'; 70_000]).unwrap();
        assert_eq!(fs::read(dir.join("log")).unwrap().len(), before.len() + 70_000);
        log.set_len(before.len() as u64).unwrap();
        assert_eq!(fs::read(dir.join("log")).unwrap(), before);
    }),
    ("rename", &["rename.moved"], |dir| {
        fs::rename(dir.join("a"), dir.join("z")).unwrap();
        assert_eq!(fs::read(dir.join("z")).unwrap(), b"a");
        fs::rename(dir.join("z"), dir.join("a")).unwrap();
    }),
    ("exchange", &["rename.moved"], |dir| {
        exchange(dir);
        assert_eq!(
            (fs::read(dir.join("a")).unwrap(), fs::read(dir.join("b")).unwrap()),
            (b"b".into(), b"a".into())
        );
        exchange(dir);
        assert_eq!(fs::read(dir.join("a")).unwrap(), b"a");
    }),
    ("link", &["link.made"], |dir| {
        fs::hard_link(dir.join("a"), dir.join("l")).unwrap();
        assert_eq!(fs::read(dir.join("l")).unwrap(), b"a");
        fs::remove_file(dir.join("l")).unwrap();
        assert!(!dir.join("l").exists());
    }),
    ("remove", &["remove.removed"], |dir| {
        fs::remove_file(dir.join("b")).unwrap();
        assert!(!dir.join("b").exists());
        fs::write(dir.join("b"), "b").unwrap();
    }),
    ("mkdir", &["make.made", "make.given"], |dir| {
        fs::create_dir(dir.join("d")).unwrap();
        fs::write(dir.join("d/f"), "x").unwrap();
        fs::remove_file(dir.join("d/f")).unwrap();
        fs::remove_dir(dir.join("d")).unwrap();
    }),
    ("rmdir", &["remove.removed"], |dir| {
        fs::remove_dir(dir.join("empty")).unwrap();
        assert!(!dir.join("empty").exists());
        fs::create_dir(dir.join("empty")).unwrap();
    }),
    ("symlink", &["make.made"], |dir| {
        symlink("a", dir.join("s")).unwrap();
        assert_eq!(fs::read(dir.join("s")).unwrap(), b"a");
        fs::remove_file(dir.join("s")).unwrap();
    }),
    ("xattr", &[], |dir| {
        let path = dir.join("a");
        let flags = rustix::fs::XattrFlags::CREATE;
        rustix::fs::setxattr(&path, "user.x", b"1", flags).unwrap();
        assert_eq!(rustix::fs::setxattr(&path, "user.x", b"2", flags), Err(rustix::io::Errno::EXIST));
        rustix::fs::removexattr(&path, "user.x").unwrap();
        assert_eq!(rustix::fs::removexattr(&path, "user.x"), Err(rustix::io::Errno::NODATA));
    }),
    ("truncate", &[], |dir| {
        let file = OpenOptions::new().write(true).open(dir.join("b")).unwrap();
        file.set_len(200_000).unwrap();
        assert_eq!(fs::read(dir.join("b")).unwrap().len(), 200_000);
        file.set_len(1).unwrap();
        assert_eq!(fs::read(dir.join("b")).unwrap(), b"b");
    }),
    ("close", &["release.counting", "release.counted", "release.closing"], |dir| {
        let mut file = File::open(dir.join("a")).unwrap();
        let mut other = OpenOptions::new().read(true).write(true).open(dir.join("a")).unwrap();
        drop(File::open(dir.join("b")).unwrap());
        let mut text = String::new();
        other.read_to_string(&mut text).unwrap();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "aa");
        fs::write(dir.join("gone"), [7; 100_000]).unwrap();
        let mut gone = File::open(dir.join("gone")).unwrap();
        fs::remove_file(dir.join("gone")).unwrap();
        let mut content = Vec::new();
        gone.read_to_end(&mut content).unwrap();
        assert_eq!(content, [7; 100_000]);
    }),
];

fn exchange(dir: &Path) {
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    let dir = File::open(dir).unwrap();
    rustix::fs::renameat_with(&dir, "a", &dir, "b", flags).unwrap();
}

/// Where every request comes along.
const REQUEST: [&str; 4] = ["request.begun", "request.run", "request.finished", "request.answered"];

vm_tests! { FAULTY;
    /// A daemon or a store that dies while a mount is made.
    fn r27_r28_killed_while_mounting() {
        install();
        let places = [
            "mount.recorded", "mount.directory", "mount.started", "mount.placed", "mount.sent", "mount.launched",
            "mount.shown", "mount.attached", "start.received", "start.keeping", "start.kept", "start.table",
            "start.session", "start.ready",
        ];
        for target in ["/t", "t.slice"] {
            for place in places {
                settle();
                arm(place);
                let said = ctl(&["mount", "x", "--where", PLACE, "--target", target]);
                assert_fired(place);
                settle();
                let there = there_or_gone(place);
                println!("{target} {place}: mount said {}, {}", said.status, if there { "there" } else { "gone" });
                assert!(there || said.status != 0, "{place}: a mount that was reported is there");
                if !there {
                    let _ = ctl(&["mount", "x", "--where", PLACE, "--target", target]).ok();
                }
                unmount();
            }
        }
    }

    /// A store that dies within a request: each has its effect once, and its client no error.
    fn r28_killed_within_requests() {
        install();
        let mount = Mount::make("x", "/t", &[]);
        let dir = Path::new(&mount.place).join("dir");
        fs::create_dir(&dir).unwrap();
        for name in ["a", "b", "log"] {
            fs::write(dir.join(name), name).unwrap();
        }
        fs::create_dir(dir.join("empty")).unwrap();
        let names = || {
            let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = names();
        let used = mount.number("used_bytes");
        for (name, own, act) in ACTS {
            for place in REQUEST.iter().chain(own) {
                println!("{name} {place}");
                arm(place);
                act(&dir);
                // The request of a close comes when it comes.
                until("somebody came there", || (!Path::new(DIRECTORY).join(place).exists()).then_some(()));
                assert_eq!(names(), before, "{name} {place}");
            }
        }
        until("nothing is held that is gone", || (mount.number("used_bytes") == used).then_some(()));
        assert_eq!(mount.properties()["state"], "active");
        unmount();
    }

    /// A store that dies while it takes over from one that died.
    fn r28_killed_while_taking_over() {
        install();
        for target in ["/t", "t.slice"] {
            let mount = Mount::make("x", target, &[]);
            fs::write(mount.join("f"), "data").unwrap();
            for place in ["resume.taken", "resume.home", "start.table", "start.session", "resume.asked", "start.ready"] {
                arm(place);
                let _ = sh(&format!("kill -9 {}", mount.store())).ok();
                assert_eq!(fs::read_to_string(mount.join("f")).unwrap(), "data", "{place}");
                assert_fired(place);
                until("memcharged knows", || (mount.properties()["state"] == "active").then_some(()));
            }
            unmount();
        }
    }

    /// A daemon that dies while it mounts the data of a lost mount again loses none of them.
    fn r28_killed_while_recovering() {
        install();
        let mount = Mount::make("x", "/t", &[]);
        fs::write(mount.join("f"), "data").unwrap();
        for place in ["recover.recorded", "recover.launched", "recover.shown"] {
            give_up(&mount);
            arm(place);
            let said = ctl(&["recover", "x"]);
            assert_fired(place);
            settle();
            let state = mount.properties()["state"].as_str().unwrap().to_owned();
            println!("{place}: recover said {}, the mount is {state}", said.status);
            if state == "failed" {
                let _ = ctl(&["recover", "x"]).ok();
            }
            assert_eq!(fs::read_to_string(mount.join("f")).unwrap(), "data", "{place}");
            until("it is active", || (mount.properties()["state"] == "active").then_some(()));
        }
        give_up(&mount);
        unmount();
        until("all memory is given back", || (Cg::at("/t").current() < MIB / 2).then_some(()));
    }

    /// Whoever undoes a mount dies while doing so.
    fn r26_r27_killed_while_unmounting() {
        install();
        let places = [
            "unmount.begun", "unmount.released", "unmount.stopped", "unmount.cleared", "end.begun", "end.unmounted",
            "end.leaf", "end.directories", "end.record",
        ];
        for target in ["/t", "t.slice"] {
            for place in places {
                let mount = Mount::make("x", target, &[]);
                fs::write(mount.join("f"), "data").unwrap();
                arm(place);
                let said = ctl(&["unmount", "x"]);
                assert_fired(place);
                settle();
                let there = there_or_gone(place);
                println!("{target} {place}: unmount said {}, {}", said.status, if there { "there" } else { "gone" });
                if there {
                    assert_eq!(fs::read_to_string(mount.join("f")).unwrap(), "data", "{place}");
                    unmount();
                }
            }
        }
        until("the target is empty", || Cg::at("/t").children().is_empty().then_some(()));
    }

    /// The daemon dies while a policy is changed, and while it arbitrates.
    fn r27_killed_while_changing_and_arbitrating() {
        install();
        let client = Cg::make("/client");
        let target = Cg::make("/t").max(48 * MIB);
        let mount = Mount::make("x", "/t", &["--set", "reserve=1M", "--set", "deadline=5s"]);
        for place in ["set.given", "set.written"] {
            arm(place);
            let _ = ctl(&["set", "x", "reserve=2M"]);
            assert_fired(place);
            settle();
            let reserve = mount.number("reserve");
            println!("{place}: {reserve}");
            assert!([MIB, 2 * MIB].contains(&reserve), "{place}: {reserve}");
            let _ = ctl(&["set", "x", "reserve=1M"]).ok();
        }
        let _ = ctl(&["set", "x", "on-full=kill", "kill.cooldown=0"]).ok();
        for place in ["oom.heard", "kill.sent", "event.recorded"] {
            settle();
            let mut hog = Waiting::start(&target, &["hog", &(20 * MIB).to_string()]);
            until("the history has settled", || (ctl(&["--json", "history"]).status == 0).then_some(()));
            arm(place);
            let written = report(&client, &["write", &mount.join("f"), &(36 * MIB).to_string()]);
            assert_fired(place);
            settle();
            let dead = !hog.is_alive();
            let told = until("the outcome is recorded", || {
                let said = ctl(&["--json", "history", "x"]).ok().out;
                let events: serde_json::Value = serde_json::from_str(&said).unwrap();
                events.as_array().unwrap().first().cloned()
            });
            println!("{place}: {written:?}, the process is {}: {told}", if dead { "dead" } else { "alive" });
            assert!(written.errno.is_none_or(|errno| errno == 28), "{place}: {written:?}");
            if told["outcome"] == "granted-after-kill" {
                assert!(dead, "{place}: who is named is dead");
            }
            fs::remove_file(mount.join("f")).unwrap();
            drop(hog);
        }
        unmount();
    }
}
