//! Each arbitration has one recorded outcome, and everybody is told the same of it (R17, R19, R32).

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Report, Waiting, report, report_while},
    history::{
        FILE, assert_recorded, events, full_mount, limit, mount, number, refusals, refuse_each, refused, text,
    },
    host::PLAIN,
    mount::Mount,
    service::{ctl, run, sh, unit_property},
    vm_tests,
    wait::until,
};
use serde_json::Value;

const ENOSPC: Option<i32> = Some(28);

const NAME: &str = "org.memcharge.Memcharge1";
const ROOT: &str = "/org/memcharge/Memcharge1";
const MANAGER: &str = "org.memcharge.Memcharge1.Manager";

/// Kinds of names, and an attribute.
const KINDS: [&str; 4] = ["file", "dir", "symlink", "xattr"];

/// All ways to ask for memory that is not there; returns how many ENOSPCs clients have seen.
fn refuse_data(client: &Cg, mount: &Mount) -> u64 {
    let (file, much) = (mount.join("f"), (1u64 << 40).to_string());
    // What is made when there is no room is metadata.
    KINDS.iter().for_each(|kind| std::fs::create_dir(mount.join(kind)).unwrap());
    assert_eq!(report(client, &["write", &mount.join("copy"), "4096"]).errno, None);
    let mut seen = refused(client, &["write", &file, &much]);
    for words in [["truncate", &file, &much], ["fallocate", &file, &much]] {
        seen += refused(client, &words);
    }
    seen += refused(client, &["copy", &file, &mount.join("copy")]);
    let often = report(client, &["grow", &file, "100"]);
    assert_eq!(often, Report { done: 100, errno: None });
    seen + often.done
}

fn refuse_metadata(client: &Cg, mount: &Mount) -> u64 {
    KINDS.iter().map(|kind| refused(client, &["make", &mount.join(kind), kind, "20000"])).sum()
}

/// The last event, once it is there.
fn last(mount: &Mount) -> Value {
    until("an event", || events(&mount.name).pop())
}

/// Calls `GetHistory` with options as busctl takes them.
fn get_history(options: &[&str]) -> memcharge_tests::service::Said {
    run(&[&["busctl", "--json=short", "call", NAME, ROOT, MANAGER, "GetHistory", "a{sv}"], options].concat())
}

/// The events in an answer of busctl.
fn answered(options: &[&str]) -> Vec<Value> {
    let answer: Value = serde_json::from_str(&get_history(options).ok().out).unwrap();
    answer["data"][0].as_array().unwrap().clone()
}

vm_tests! { PLAIN;
    /// R17, R19, R32: every ENOSPC that a client sees is an outcome or the repeat of one, and the limit is the right one.
    fn r32_each_refusal_is_recorded_once_and_names_its_limit() {
        let client = Cg::make("/client");
        for (name, level, file, kind) in [
            ("target", "/parent/target", "memory.max", "target"),
            ("ancestor", "/parent", "memory.max", "ancestor"),
            ("high", "/parent/target", "memory.high", "target"),
            ("high-above", "/parent", "memory.high", "ancestor"),
        ] {
            let (parent, target) = (Cg::make("/parent"), Cg::make("/parent/target").max(512 * MIB));
            let own = Cg::make("/parent/target/own");
            Cg::at(level).write(file, &(32 * MIB).to_string());
            let mount = mount(name, target.path(), &[]);
            let mut seen = refuse_data(&client, &mount);
            // The target's own task takes the reserve, which metadata may not touch either.
            let mut grown = Waiting::start(&own, &["hog", &(2 * MIB).to_string()]);
            seen += refuse_metadata(&client, &mount);
            let events = assert_recorded(&mount, seen);
            println!("{name}: {seen} refusals in {} events", events.len());
            for event in &events {
                assert_eq!(limit(event), (kind, level, file), "{event}");
                assert_eq!((text(event, "mount"), text(event, "target")), (name, "/parent/target"));
                assert_eq!((number(event, "victim_pid"), number(event, "bytes_reclaimed")), (0, 0));
            }
            assert!((events.len() as u64) < seen / 4, "repeats are no events of their own");
            assert!(grown.is_alive());
            assert_eq!(parent.event("oom_kill"), 0);
            Cg::at(level).write(file, "max");
            mount.unmount();
        }
    }

    /// R19, R32: the mount's own limits, on bytes and on inodes, are told apart from the target's and from each other.
    fn r19_the_mount_s_own_limits_are_named() {
        let client = Cg::make("/client");
        Cg::make("/target").max(96 * MIB);
        let mount = mount("m", "/target", &["--size", "4M", "--set", "inodes=40"]);
        let seen = refuse_data(&client, &mount);
        let by_size = assert_recorded(&mount, seen);
        for event in &by_size {
            assert_eq!((limit(event), text(event, "reason")), (("mount", "", "size"), "cap"), "{event}");
        }
        let before: Vec<_> = by_size.iter().map(|event| text(event, "id")).collect();
        let seen = seen + refuse_metadata(&client, &mount);
        let by_inodes = assert_recorded(&mount, seen);
        let by_inodes: Vec<_> = by_inodes.iter().filter(|e| !before.contains(&text(e, "id"))).collect();
        assert!(!by_inodes.is_empty());
        for event in by_inodes {
            assert_eq!((limit(event), text(event, "reason")), (("mount", "", "inodes"), "cap"), "{event}");
        }
    }

    /// R32: who asked, for what, and what came of it; `explain` says it in words.
    fn r32_the_charger_is_named_and_explained() {
        let (parent, client) = (Cg::make("/parent"), Cg::make("/client"));
        let target = Cg::make("/parent/target").max(512 * MIB);
        for (name, uid, limited, words) in [
            ("root", "0", Some("/parent/target"), "the target's own limit: memory.max of /parent/target"),
            ("user", "1234", Some("/parent"), "a limit above the target: memory.max of /parent, which counts"),
            ("capped", "1234", None, "the mount's own cap on the bytes in files (size), not a limit of a cgroup"),
        ] {
            let (target, parent) = (target.clone().max(512 * MIB), parent.clone().max(512 * MIB));
            let mount = mount(name, target.path(), &["--size", "64M"]);
            if let Some(level) = limited {
                Cg::at(level).write("memory.max", &(32 * MIB).to_string());
            }
            let asked = 300 * MIB;
            let ask = ["--uid", uid, "truncate", &mount.join("f"), &asked.to_string()];
            let (ended, (pid, event)) = report_while(&client, &ask, || {
                (client.read("cgroup.procs").trim().parse::<u64>().unwrap(), last(&mount))
            });
            assert_eq!(ended.errno, ENOSPC);
            assert_eq!((number(&event, "charger_pid"), number(&event, "charger_uid").to_string()), (pid, uid.to_owned()));
            assert_eq!((text(&event, "charger_comm"), text(&event, "charger_cgroup")), ("memcharge-probe", "/client"));
            assert_eq!((text(&event, "outcome"), text(&event, "operation")), ("enospc", "truncate"));
            assert_eq!(number(&event, "bytes_asked"), asked);
            assert!(number(&event, "bytes_missing") > 200 * MIB && number(&event, "bytes_missing") <= asked);
            assert!(number(&event, "duration_usec") < 5_000_000, "{event}");
            let said = ctl(&["explain", &text(&event, "id")[..12]]).ok().out;
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            let who = format!("memcharge-probe (PID {pid}, user {uid}, in the cgroup /client) set the length of a file");
            for part in [words, &who, "got ENOSPC after", "And plain tmpfs?", "300.0 MiB"] {
                assert!(said.contains(part), "{part:?} is not in: {said}");
            }
            drop((target, parent));
            mount.unmount();
        }
    }

    /// R32: who ends as soon as they were refused is named all the same.
    fn r32_a_charger_that_ends_at_once_is_named() {
        Cg::make("/target").max(32 * MIB);
        let mount = mount("m", "/target", &[]);
        // Within a second a refusal would be a repeat of the one before it.
        let pause = std::time::Duration::from_millis(1100);
        let commands = ["head -c 100M /dev/zero >f", "truncate -s 1G f", "dd if=/dev/zero of=f bs=1M count=100 status=none"];
        for (at, command) in commands.into_iter().enumerate() {
            let said = sh(&format!("cd {}; {command}", mount.place)).failed(1);
            assert!(said.err.contains("No space left on device"), "{}", said.err);
            let event = until("an event", || events(&mount.name).into_iter().nth(at));
            let named = (text(&event, "charger_comm"), text(&event, "charger_cgroup").is_empty());
            assert_eq!(named, (command.split(' ').next().unwrap(), false), "{event}");
            std::thread::sleep(pause);
        }
        mount.unmount();
    }

    /// R32: what was refused just before its store is stopped is recorded, with every repeat.
    fn r32_nothing_is_lost_when_a_store_is_stopped() {
        let client = Cg::make("/client");
        for name in ["a", "b"] {
            let _ = sh(&format!("systemctl set-property --runtime {name}.slice MemoryMax=48M")).ok();
        }
        let ends: [&[&str]; 2] = [&["retarget", "m0", "b.slice", "--mode", "future-only"], &["unmount", "m1"]];
        for (at, end) in ends.into_iter().enumerate() {
            let mount = mount(&format!("m{at}"), "a.slice", &["--size", "1M"]);
            let mut seen = refused(&client, &["write", &mount.join("f"), &(2 * MIB).to_string()]);
            // Counts are told once a second. So these are still to be told.
            for _ in 0..2 {
                seen += report(&client, &["grow", &mount.join("f"), "100"]).done;
            }
            let _ = ctl(end).ok();
            assert_eq!(seen, 201);
            until("every refusal is recorded", || {
                let recorded = refusals(&events(&mount.name));
                println!("{}: {recorded} of {seen}", mount.name);
                (recorded == seen).then_some(())
            });
        }
    }

    /// R14, R32: what reclaim has made room for is an outcome too, with the bytes that it freed.
    fn r14_a_grant_after_reclaim_is_recorded() {
        let target = Cg::make("/target").max(64 * MIB);
        let (client, own) = (Cg::make("/client"), Cg::make("/target/own"));
        let mount = mount("m", "/target", &[]);
        let _ = sh("head -c 100M /dev/urandom > /var/tmp/cache; sync; echo 1 > /proc/sys/vm/drop_caches").ok();
        for file in ["f", "g"] {
            assert_eq!(report(&client, &["write", &mount.join(file), "4096"]).errno, None);
        }
        report(&own, &["read", "/var/tmp/cache"]);
        assert!(target.stat("file") - target.stat("shmem") > 32 * MIB, "the target is full of cache");
        // Without reclaim the cache counts like all else.
        let _ = ctl(&["set", "m", "reclaim=false"]).ok();
        let seen = refused(&client, &["write", &mount.join("f"), &(40 * MIB).to_string()]);
        assert_recorded(&mount, seen);
        let _ = ctl(&["set", "m", "reclaim=true"]).ok();
        let written = report(&client, &["write", &mount.join("g"), &(30 * MIB).to_string()]);
        assert_eq!((written.done, written.errno), (30 * MIB, None));
        let granted: Vec<_> = until("the grant is recorded", || {
            let mut all = events("m");
            all.retain(|event| text(event, "outcome") == "granted-after-reclaim");
            (!all.is_empty()).then_some(all)
        });
        for event in granted {
            assert_eq!((limit(&event), text(&event, "reason")), (("target", "/target", "memory.max"), "room"));
            assert!(number(&event, "bytes_reclaimed") > 0 && number(&event, "bytes_missing") > 0, "{event}");
            assert_eq!(number(&event, "repeats"), 0);
        }
        assert_recorded(&mount, seen);
        assert_eq!(target.event("oom_kill"), 0);
    }

    /// The history is read by its options, and events by their ids; what is wrong is refused.
    fn history_is_read_by_options() {
        let client = Cg::make("/client");
        let mount = full_mount("m", &client);
        let other = mount_of_its_own(&client);
        refuse_each(&mount, 100..=103);
        let all = assert_recorded(&mount, 4);
        assert_recorded(&other, 1);
        assert_eq!(answered(&["0"]).len(), 5);
        assert_eq!(answered(&["1", "Mount", "s", "m"]).len(), 4);
        assert_eq!(answered(&["1", "Mount", "s", "nowhere"]).len(), 0);
        let newest = answered(&["2", "Mount", "s", "m", "Limit", "u", "2"]);
        let ids: Vec<_> = newest.iter().map(|event| event["Id"]["data"].as_str().unwrap()).collect();
        assert_eq!(ids, [text(&all[2], "id"), text(&all[3], "id")]);
        let since = number(&all[1], "realtime_usec");
        assert_eq!(answered(&["2", "Mount", "s", "m", "Since", "t", &since.to_string()]).len(), 3);
        assert_eq!(answered(&["2", "Mount", "s", "m", "Since", "t", &(since + 1).to_string()]).len(), 2);
        for (wrong, why) in [
            (["1", "Mounts", "s", "m"], "there is no option Mounts; did you mean Mount?"),
            (["1", "Limit", "u", "0"], "Limit"),
            (["1", "Limit", "t", "5"], "Limit"),
        ] {
            let said = get_history(&wrong).failed(1);
            assert!(said.err.contains(why), "{}", said.err);
        }
        let id = text(&all[0], "id");
        let get = |id: &str| run(&["busctl", "--json=short", "call", NAME, ROOT, MANAGER, "GetEvent", "s", id]);
        for digits in [32, 16] {
            let event: Value = serde_json::from_str(&get(&id[..digits]).ok().out).unwrap();
            assert_eq!(event["data"][0]["Id"]["data"], id);
        }
        let nothing = if id.starts_with("0000") { "ffffffffffff" } else { "000000000000" };
        for wrong in [&id[..3], nothing, "xyzw", ""] {
            assert!(!get(wrong).failed(1).err.is_empty());
        }
        let explained: Value = serde_json::from_str(&ctl(&["--json", "explain", id]).ok().out).unwrap();
        assert_eq!((text(&explained, "id"), text(&explained, "mount")), (id, "m"));
        assert!(text(&explained, "explanation").contains("ENOSPC"));
        let _ = ctl(&["explain", nothing]).failed(1);
        // Everybody may look.
        let shown = run(&["runuser", "-u", "nobody", "--", "memchargectl", "history", "m"]).ok().out;
        assert!(shown.contains(&id[..12]), "{shown}");
        let _ = run(&["runuser", "-u", "nobody", "--", "memchargectl", "explain", id]).ok();
        let denied = run(&["runuser", "-u", "nobody", "--", "memchargectl", "set", "m", "reserve=1M"]).failed(4);
        println!("{}", denied.err.trim());
    }

    /// R27, R32: neither an end of the daemon nor its SIGKILL loses or doubles an outcome; refusals while it is away count.
    fn r32_history_survives_the_daemon() {
        let client = Cg::make("/client");
        let mount = full_mount("m", &client);
        let file = mount.join("f");
        let grow = |often: u64| report(&client, &["grow", &file, &often.to_string()]).done;
        refuse_each(&mount, 100..=104);
        let mut seen = 5 + grow(10);
        let first = assert_recorded(&mount, seen);
        let _ = run(&["systemctl", "restart", "memcharged"]).ok();
        let again = assert_recorded(&mount, seen);
        assert_eq!(first, again, "a restart changes nothing in the history");

        let _ = run(&["systemctl", "stop", "memcharged"]).ok();
        // More events than a store can keep for the daemon.
        refuse_each(&mount, 200..=299);
        seen += 100 + grow(20);
        let _ = run(&["systemctl", "start", "memcharged"]).ok();
        let events = assert_recorded(&mount, seen);
        assert_eq!(events[..first.len()], first, "what was there is as it was");

        for round in 0..3 {
            let daemon = unit_property("memcharged", "MainPID");
            let writer = {
                let (client, file) = (client.clone(), file.clone());
                std::thread::spawn(move || report(&client, &["grow", &file, "2000"]).done)
            };
            refuse_each(&mount, 100..=109);
            let _ = run(&["systemctl", "kill", "-s", "KILL", "memcharged"]).ok();
            refuse_each(&mount, 300..=309);
            seen += 20 + writer.join().unwrap();
            until("the daemon is back", || {
                let now = unit_property("memcharged", "MainPID");
                let active = unit_property("memcharged", "ActiveState") == "active";
                (active && now != "0" && now != daemon).then_some(())
            });
            let events = assert_recorded(&mount, seen);
            println!("round {round}: {seen} refusals in {} events", events.len());
            assert!(events.iter().all(|event| limit(event) == ("mount", "", "size")));
        }
    }

    /// The history is bounded, in memory and on disk; the newest events are kept.
    fn history_is_bounded() {
        std::fs::create_dir_all("/etc/memcharge/memcharged.toml.d").unwrap();
        std::fs::write("/etc/memcharge/memcharged.toml.d/x.toml", "[history]\nmax-entries = 20\n").unwrap();
        let client = Cg::make("/client");
        let mount = full_mount("m", &client);
        refuse_each(&mount, 100..=159);
        assert_eq!(mount.number("denials"), 60);
        let newest = |events: &[Value]| events.last().map(|event| number(event, "bytes_asked")) == Some(100 * MIB);
        let kept = until("the newest event", || Some(events("m")).filter(|events| newest(events)));
        println!("{} events are kept", kept.len());
        assert!((10..=20).contains(&kept.len()), "{}", kept.len());
        assert_eq!(refusals(&kept), kept.len() as u64);
        for _ in 0..2 {
            let size = std::fs::metadata(FILE).unwrap().len();
            assert!(size < 20 * 1024, "the file has {size} bytes");
            assert_eq!(events("m"), kept);
            let _ = run(&["systemctl", "restart", "memcharged"]).ok();
        }
    }
}

/// Another mount with one event.
fn mount_of_its_own(client: &Cg) -> Mount {
    let other = mount("other", "/target", &["--size", "1M"]);
    refused(client, &["fallocate", &other.join("f"), &(2 * MIB).to_string()]);
    other
}
